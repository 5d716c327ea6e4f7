"""What may be found: a mapping that metadata must match, or a function of a record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .hits import Record

__all__ = ["Where", "filter_key", "matcher"]

Where = Mapping[str, Any] | Callable[[Record], Any]

# Values whose equality runs no code of the caller's, and never changes.
_PLAIN = (str, int, float, bool, bytes, type(None))


def filter_key(where: Where) -> tuple[Any, ...] | None:
    """A filter as part of a key; None where its answers can't be cached."""
    if not isinstance(where, Mapping):
        return None
    items = tuple(where.items())
    if all(type(key) is str and type(value) in _PLAIN for key, value in items):
        return tuple(sorted(items, key=lambda item: item[0]))
    return None


def matcher(where: Where) -> Callable[[Record], Any]:
    """A filter as a function."""
    if isinstance(where, Mapping):
        items = list(where.items())

        def has(record: Record) -> bool:
            info = record.metadata
            return all(key in info and info[key] == value for key, value in items)

        return has
    if not callable(where):
        raise TypeError(f"where must be a mapping or callable, not {where!r}")
    return where
