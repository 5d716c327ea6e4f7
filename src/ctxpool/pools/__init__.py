"""What is built on the engine's pools. Each name is loaded when it is first asked for."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .numpy import NumpyPool, numpy_pool
    from .sized import MemoryPool

__all__ = [
    "MemoryPool",
    "NumpyPool",
    "numpy_pool",
]
_homes = {
    "MemoryPool": "sized",
    "NumpyPool": "numpy",
    "numpy_pool": "numpy",
}


def __getattr__(name: str) -> Any:
    if name not in _homes:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_homes[name]}", __name__), name)
