"""What is built on the engine's BlockPool."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .arena import ReadArena
    from .file_arrays import iter_array
    from .files import FileBlocks, read_blocks
    from .limits import (
        MemoryHeadroom,
        available_memory,
        memory_limit,
        require_memory,
    )
    from .parallel import map_blocks
    from .protocols import BlockProtocol
    from .reader import BlockReader, BlockReaderStats
    from .streams import (
        open_connection,
        open_unix_connection,
        start_server,
        start_unix_server,
    )

__all__ = [
    "BlockProtocol",
    "BlockReader",
    "BlockReaderStats",
    "FileBlocks",
    "MemoryHeadroom",
    "ReadArena",
    "available_memory",
    "iter_array",
    "map_blocks",
    "memory_limit",
    "open_connection",
    "open_unix_connection",
    "read_blocks",
    "require_memory",
    "start_server",
    "start_unix_server",
]
_homes = {
    "BlockProtocol": "protocols",
    "BlockReader": "reader",
    "BlockReaderStats": "reader",
    "FileBlocks": "files",
    "MemoryHeadroom": "limits",
    "ReadArena": "arena",
    "available_memory": "limits",
    "iter_array": "file_arrays",
    "map_blocks": "parallel",
    "memory_limit": "limits",
    "open_connection": "streams",
    "open_unix_connection": "streams",
    "read_blocks": "files",
    "require_memory": "limits",
    "start_server": "streams",
    "start_unix_server": "streams",
}


def __getattr__(name: str) -> Any:
    if name not in _homes:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_homes[name]}", __name__), name)
