"""Sizes in bytes, given as a number or as text such as ``"64MB"`` or ``"1GiB"``."""

import operator
import re
from typing import SupportsIndex

__all__ = ["format_size", "parse_size"]

_UNITS = {
    "": 1,
    "B": 1,
    **{f"{p}B": 1000**i for i, p in enumerate("KMGT", start=1)},
    **{p: 1000**i for i, p in enumerate("KMGT", start=1)},
    **{f"{p}IB": 1024**i for i, p in enumerate("KMGT", start=1)},
}
_TEXT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*")


def parse_size(size: SupportsIndex | str, name: str = "size") -> int:
    """Bytes of *size*; a positive whole number.

    ``KB MB GB TB`` are powers of 1000, ``KiB MiB GiB TiB`` powers of 1024.

    Parameters
    ----------
    size : int or str
        ``4096``, ``"4096"``, ``"64KB"``, ``"1.5 GiB"``.
    name : str
        What the size is of, for the error's text.

    Raises
    ------
    TypeError
        *size* is neither a whole number nor text.
    ValueError
        The text is no size, or the size is not a positive whole number of bytes.

    Examples
    --------
    >>> parse_size("4KiB")
    4096
    >>> parse_size("1.5 MB")
    1500000
    """
    nbytes: int
    if isinstance(size, str):
        match = _TEXT.fullmatch(size)
        unit = _UNITS.get(match[2].upper()) if match else None
        if match is None or unit is None:
            raise ValueError(
                f"{name} {size!r} is no size: write bytes or a number with a unit, "
                'such as 65536, "64KB" or "1GiB"'
            )
        whole, _, fraction = match[1].partition(".")
        scaled = int(whole + fraction) * unit
        nbytes, rest = divmod(scaled, 10 ** len(fraction))
        if rest:
            raise ValueError(f"{name} {size!r} is not a whole number of bytes")
    else:
        try:
            nbytes = operator.index(size)
        except TypeError:
            raise TypeError(
                f"{name} must be a whole number of bytes or text, not {size!r}"
            ) from None
    if nbytes <= 0:
        raise ValueError(f"{name} must be positive, not {size!r}")
    return nbytes


def format_size(size: float) -> str:
    """*size* bytes for people, in powers of 1024 with three digits or more.

    Examples
    --------
    >>> format_size(1536), format_size(999), format_size(-5 * 2**30)
    ('1.50 KiB', '999 B', '-5.00 GiB')
    """
    unit, scaled = "B", float(size)
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if abs(scaled) < 1024:
            break
        unit, scaled = larger, scaled / 1024
    digits = 0 if unit == "B" or abs(scaled) >= 100 else 1 if abs(scaled) >= 10 else 2
    return f"{scaled:,.{digits}f} {unit}"
