"""Functions that make keys of calls. Arguments by name count in any order."""

from typing import Any

__all__ = ("hashkey", "methodkey", "typedkey", "typedmethodkey")


class _Mark:
    """Stands between arguments by place and by name; pickled as itself."""


def hashkey(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
    """A key in which equal arguments are equal, whatever their types."""
    return (*args, _Mark, *sorted(kwargs.items())) if kwargs else args


def methodkey(self: Any, /, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
    """:func:`hashkey` without the instance."""
    return hashkey(*args, **kwargs)


def typedkey(*args: Any, **kwargs: Any) -> tuple[Any, ...]:
    """:func:`hashkey` in which arguments of different types differ."""
    by_name = [type(value) for _, value in sorted(kwargs.items())]
    return (*hashkey(*args, **kwargs), *by_name, *map(type, args))


def typedmethodkey(self: Any, /, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
    """:func:`typedkey` without the instance."""
    return typedkey(*args, **kwargs)
