"""Pickles that name a primitive, and not the twin it is: either loads the other's."""

import copyreg
from typing import Any

__all__ = ["construct", "constructor", "publish"]

_public: dict[str, Any] = {}


def publish(*classes: type) -> None:
    """Let pickles name these, the primitives in use, by their bare names."""
    _public.update({cls.__name__: cls for cls in classes})


def construct(name: str) -> Any:
    """An empty primitive of this name, for pickle to fill."""
    cls: Any = _public[name]
    return cls.__new__(cls)


def constructor(cls: type) -> tuple[Any, tuple[Any, ...]]:
    """How to make an empty *cls*: the first two items of a ``__reduce__``."""
    if _public.get(cls.__name__) is cls:
        return construct, (cls.__name__,)
    return copyreg.__newobj__, (cls,)  # type: ignore[attr-defined]
