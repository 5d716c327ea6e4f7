"""Checks of arguments that are numbers, or one thing for each of several."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

__all__ = ["each", "number"]


def number(
    name: str, value: Any, lowest: float = -math.inf, highest: float = math.inf
) -> float:
    """*value* as a finite float from *lowest* to *highest*."""
    try:
        if isinstance(value, (str, bytes)):
            raise TypeError
        made = float(value)
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"{name} must be a number, not {value!r}") from None
    if not math.isfinite(made):
        raise ValueError(f"{name} must be finite, not {value!r}")
    if not lowest <= made <= highest:
        limits = f"at least {lowest:g}"
        if highest < math.inf:
            limits = f"from {lowest:g} to {highest:g}"
        raise ValueError(f"{name} must be {limits}, not {value!r}")
    return made


def each(name: str, given: Any, n: int, single: type | None = None) -> list[Any]:
    """*given* as a list of *n*: one for all, or one for each."""
    if given is None or isinstance(given, single or (int, float, np.generic, str)):
        return [given] * n
    try:
        made = list(given)
    except TypeError:
        raise TypeError(f"{name} must be one or a sequence, not {given!r}") from None
    if len(made) != n:
        raise ValueError(f"{n} texts have {len(made)} of {name}")
    if single is not None:
        for one in made:
            if one is not None and not isinstance(one, single):
                raise TypeError(f"{name} must be mappings, not {one!r}")
    return made
