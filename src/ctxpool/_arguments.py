"""Checks of arguments that both twins make in the same words."""

from __future__ import annotations

import math
import operator
from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "array_layout",
    "check_indices",
    "choice",
    "count",
    "fraction",
    "number",
    "power_of_two",
    "seconds",
]


def choice(name: str, value: Any, choices: Collection[str]) -> Any:
    """*value*, one of *choices*."""
    if not isinstance(value, str) or value not in choices:
        listed = ", ".join(map(repr, choices))
        raise ValueError(f"{name} must be one of {listed}, not {value!r}")
    return value


def count(name: str, value: Any, lowest: int, highest: int) -> int:
    """*value* as an int from *lowest* to *highest*."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be a whole number, not {value!r}") from None
    if not lowest <= number <= highest:
        raise ValueError(f"{name} must be from {lowest} to {highest}, not {number}")
    return number


def power_of_two(name: str, value: Any, highest: int) -> int:
    """*value* as an int that is a power of two up to *highest*."""
    number = count(name, value, 1, highest)
    if number & (number - 1):
        raise ValueError(f"{name} must be a power of two, not {number}")
    return number


def number(name: str, value: Any) -> float:
    """*value* as a float that is finite."""
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"{name} must be a number, not {value!r}") from None
    if not math.isfinite(found):
        raise ValueError(f"{name} must be finite, not {value!r}")
    return found


def fraction(name: str, value: Any) -> float:
    """*value* as a float from 0 to 1."""
    found = number(name, value)
    if not 0 <= found <= 1:
        raise ValueError(f"{name} must be from 0 to 1, not {value!r}")
    return found


def seconds(name: str, value: Any) -> float:
    """A timeout as a float; math.inf for None."""
    if value is None:
        return math.inf
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be seconds or None, not {value!r}") from None
    if not number >= 0:
        raise ValueError(f"{name} must not be negative, not {value!r}")
    return number


def array_layout(
    block_size: int, dtype: npt.DTypeLike | None, shape: Any
) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """The dtype and the shape of an array that fits into a block."""
    dt = np.dtype(np.uint8 if dtype is None else dtype)
    if dt.hasobject:
        raise ValueError(f"a block can't hold references to objects: dtype {dt}")
    if dt.itemsize == 0:
        raise ValueError(f"dtype {dt} has items of no size")
    if shape is None:
        return dt, (block_size // dt.itemsize,)
    dims: tuple[int, ...]
    try:
        dims = (operator.index(shape),)
    except TypeError:
        try:
            dims = tuple(operator.index(n) for n in shape)
        except TypeError:
            raise TypeError(
                f"shape must be a whole number or a tuple of them, not {shape!r}"
            ) from None
    if len(dims) > 32:
        raise ValueError(f"an array has at most 32 dimensions, not {len(dims)}")
    if any(n < 0 for n in dims):
        raise ValueError(f"shape must not be negative, not {shape!r}")
    nbytes = math.prod(dims) * dt.itemsize
    if nbytes > block_size:
        raise ValueError(
            f"an array of shape {dims} and dtype {dt} takes {nbytes} bytes: "
            f"more than a block of {block_size}"
        )
    return dt, dims


def check_indices(indices: Any, *, highest: int | None = None) -> None:
    """Refuse what is no integer ndarray, or can't be filled with *highest*."""
    if not isinstance(indices, np.ndarray) or indices.dtype.kind not in "iu":
        raise TypeError(f"an ndarray of integers is needed, not {indices!r}")
    if highest is None:
        return
    if not indices.flags.writeable:
        raise ValueError("out must be writable")
    if highest > np.iinfo(indices.dtype).max:
        raise ValueError(
            f"out of dtype {indices.dtype} can't hold block numbers up to {highest}"
        )
