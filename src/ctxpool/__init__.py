"""Fast, predictable memory for real-time Python.

The engine, each of it native with a pure-Python twin of the same behaviour:

- :class:`BlockPool`: equal blocks of memory, handed out and taken back in O(1).
- :class:`SharedBlockPool`: blocks that processes hand to one another without a copy.
- :class:`TokenWindow`: the last N tokens, always as one array.
- :class:`LRUCache`: a mapping with a bound; :class:`Cache`: one with other policies
  than LRU.
- :class:`LazyProxy`: an object loaded when it is first used.
- :class:`MarkovModel`: learns the order of keys, and predicts the next ones.

:class:`MemoryPool`: blocks of many sizes under one budget, over :class:`BlockPool`.

:class:`ContextRetriever`: texts found again by what they say.

Decorators over the caches: :func:`lru_cache`, :func:`ttl_cache`, :func:`cached_method`.
NumPy's own arrays out of a pool: :func:`numpy_pool`.

Memory of an agent: :mod:`ctxpool.context`.

``ctxpool.backend`` tells which of the two is at work, ``"native"`` or ``"pure"``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import errors
from ._backend import (
    Block,
    BlockPool,
    Cache,
    CachedFunction,
    LazyProxy,
    LRUCache,
    MarkovModel,
    ObjectLease,
    ObjectPool,
    SharedBlock,
    SharedBlockPool,
    TokenWindow,
    backend,
)
from ._include import get_include
from ._shared_support import BlockHandle
from .sizes import parse_size
from .stats import (
    BlockPoolStats,
    ContextWindowStats,
    LRUCacheStats,
    MemoryPoolStats,
    NumpyPoolStats,
    ObjectPoolStats,
    PooledObject,
    SharedPoolStats,
    SizeClassStats,
    SpillStats,
    TokenWindowStats,
)

if TYPE_CHECKING:
    from .caches.decorators import cached_method, lru_cache, ttl_cache
    from .context.episodic import EpisodicMemory
    from .context.memory import HierarchicalMemory
    from .context.messages import Message
    from .context.overflow import OverflowChain
    from .context.retrieval import ContextRetriever
    from .context.semantic import SemanticMemory
    from .context.spill import SpillStore
    from .context.window import ContextWindow
    from .pools.manager import (
        ResourceManager,
        get_pooled_resource,
        pooled_resource,
        register_resource_type,
    )
    from .pools.numpy import NumpyPool, numpy_pool
    from .pools.sized import MemoryPool

__all__ = [
    "Block",
    "BlockHandle",
    "BlockPool",
    "BlockPoolStats",
    "Cache",
    "CachedFunction",
    "ContextRetriever",
    "ContextWindow",
    "ContextWindowStats",
    "EpisodicMemory",
    "HierarchicalMemory",
    "LRUCache",
    "LRUCacheStats",
    "LazyProxy",
    "MarkovModel",
    "MemoryPool",
    "MemoryPoolStats",
    "Message",
    "NumpyPool",
    "NumpyPoolStats",
    "ObjectLease",
    "ObjectPool",
    "ObjectPoolStats",
    "OverflowChain",
    "PooledObject",
    "ResourceManager",
    "SemanticMemory",
    "SharedBlock",
    "SharedBlockPool",
    "SharedPoolStats",
    "SizeClassStats",
    "SpillStats",
    "SpillStore",
    "TokenWindow",
    "TokenWindowStats",
    "__version__",
    "backend",
    "cached_method",
    "errors",
    "get_include",
    "get_pooled_resource",
    "lru_cache",
    "numpy_pool",
    "parse_size",
    "pooled_resource",
    "register_resource_type",
    "ttl_cache",
]
__version__ = "0.1.0"

# What lies above the engine is loaded when it is first asked for.
_LAZY = {
    "ResourceManager": "pools.manager",
    "get_pooled_resource": "pools.manager",
    "pooled_resource": "pools.manager",
    "register_resource_type": "pools.manager",
    "ContextRetriever": "context.retrieval",
    "EpisodicMemory": "context.episodic",
    "HierarchicalMemory": "context.memory",
    "SemanticMemory": "context.semantic",
    "MemoryPool": "pools.sized",
    "NumpyPool": "pools.numpy",
    "OverflowChain": "context.overflow",
    "SpillStore": "context.spill",
    "ContextWindow": "context.window",
    "Message": "context.messages",
    "cached_method": "caches.decorators",
    "lru_cache": "caches.decorators",
    "numpy_pool": "pools.numpy",
    "ttl_cache": "caches.decorators",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    globals()[name] = value
    return value
