"""Fast, predictable memory for real-time Python.

The engine, each of it native with a pure-Python twin of the same behaviour:

- :class:`BlockPool`: equal blocks of memory, handed out and taken back in O(1).
- :class:`TokenWindow`: the last N tokens, always as one array.
- :class:`LRUCache`: a mapping with a bound; :class:`Cache`: one with other policies
  than LRU.
- :class:`ObjectPool`: expensive objects, lent out one by one.
- :class:`LazyProxy`: an object loaded when it is first used.
- :class:`MarkovModel`: learns the order of keys, and predicts the next ones.

Decorators over the caches: :func:`lru_cache`, :func:`ttl_cache`, :func:`cached_method`.

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
    TokenWindow,
    backend,
)
from ._include import get_include
from .sizes import parse_size
from .stats import (
    BlockPoolStats,
    LRUCacheStats,
    ObjectPoolStats,
    PooledObject,
    TokenWindowStats,
)

if TYPE_CHECKING:
    from .caches.decorators import cached_method, lru_cache, ttl_cache
    from .pools.manager import (
        ResourceManager,
        get_pooled_resource,
        pooled_resource,
        register_resource_type,
    )

__all__ = [
    "Block",
    "BlockPool",
    "BlockPoolStats",
    "Cache",
    "CachedFunction",
    "LRUCache",
    "LRUCacheStats",
    "LazyProxy",
    "MarkovModel",
    "ObjectLease",
    "ObjectPool",
    "ObjectPoolStats",
    "PooledObject",
    "ResourceManager",
    "TokenWindow",
    "TokenWindowStats",
    "__version__",
    "backend",
    "cached_method",
    "errors",
    "get_include",
    "get_pooled_resource",
    "lru_cache",
    "parse_size",
    "pooled_resource",
    "register_resource_type",
    "ttl_cache",
]
__version__ = "0.1.0"

# What lies above the engine is loaded when it is first asked for.
_LAZY = {
    "ResourceManager": "pools.manager",
    "cached_method": "caches.decorators",
    "get_pooled_resource": "pools.manager",
    "lru_cache": "caches.decorators",
    "pooled_resource": "pools.manager",
    "register_resource_type": "pools.manager",
    "ttl_cache": "caches.decorators",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    globals()[name] = value
    return value
