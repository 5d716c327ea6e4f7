"""What is built on the engine's BlockPool."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .arena import ReadArena
    from .protocols import BlockProtocol
    from .streams import BlockReader, BlockReaderStats

__all__ = [
    "BlockProtocol",
    "BlockReader",
    "BlockReaderStats",
    "ReadArena",
]
_homes = {
    "BlockProtocol": "protocols",
    "BlockReader": "streams",
    "BlockReaderStats": "streams",
    "ReadArena": "arena",
}


def __getattr__(name: str) -> Any:
    if name not in _homes:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_homes[name]}", __name__), name)
