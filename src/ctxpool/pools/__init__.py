"""What is built on the engine's pools, each loaded when it is first asked for."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .arena import ReadArena
    from .file_arrays import iter_array
    from .files import FileBlocks, read_blocks
    from .limits import MemoryHeadroom, available_memory, memory_limit, require_memory
    from .manager import (
        ResourceManager,
        get_pooled_resource,
        pooled_resource,
        register_resource_type,
    )
    from .numpy import NumpyPool, numpy_pool
    from .parallel import map_blocks
    from .protocols import BlockProtocol
    from .reader import BlockReader, BlockReaderStats
    from .sized import MemoryPool
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
    "MemoryPool",
    "NumpyPool",
    "ReadArena",
    "ResourceManager",
    "available_memory",
    "get_pooled_resource",
    "iter_array",
    "map_blocks",
    "memory_limit",
    "numpy_pool",
    "open_connection",
    "open_unix_connection",
    "pooled_resource",
    "read_blocks",
    "register_resource_type",
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
    "MemoryPool": "sized",
    "NumpyPool": "numpy",
    "ReadArena": "arena",
    "ResourceManager": "manager",
    "available_memory": "limits",
    "get_pooled_resource": "manager",
    "iter_array": "file_arrays",
    "map_blocks": "parallel",
    "memory_limit": "limits",
    "numpy_pool": "numpy",
    "open_connection": "streams",
    "open_unix_connection": "streams",
    "pooled_resource": "manager",
    "read_blocks": "files",
    "register_resource_type": "manager",
    "require_memory": "limits",
    "start_server": "streams",
    "start_unix_server": "streams",
}


def __getattr__(name: str) -> Any:
    if name not in _homes:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_homes[name]}", __name__), name)
