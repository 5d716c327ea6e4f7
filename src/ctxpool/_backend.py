"""Choose native or pure, once, at import. Nobody else asks.

``CTXPOOL_PURE=1`` selects the pure-Python twin. ``CTXPOOL_NATIVE=1`` makes a
missing native build an error. With neither the native build is used where it
exists.
"""

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

from ._pickling import publish

__all__ = [
    "Block",
    "BlockPool",
    "Cache",
    "CachedFunction",
    "CachedMethod",
    "LRUCache",
    "LazyProxy",
    "MarkovModel",
    "ObjectLease",
    "ObjectPool",
    "PrefixBlockManager",
    "SharedBlock",
    "SharedBlockPool",
    "TokenWindow",
    "backend",
]


_EXTENSIONS = (
    "allocation_sampler",
    "block_pool",
    "cache",
    "cached_function",
    "lazy_proxy",
    "lru_cache",
    "markov",
    "numpy_memory",
    "shared_pool",
    "object_pool",
    "prefix_blocks",
    "token_window",
)


def _flag(name: str) -> bool:
    value = os.environ.get(name, "").strip().lower()
    if value in ("", "0", "false", "no", "off"):
        return False
    if value in ("1", "true", "yes", "on"):
        return True
    raise ImportError(f"{name} must be 1 or 0, not {value!r}")


_pure, _native = _flag("CTXPOOL_PURE"), _flag("CTXPOOL_NATIVE")
if _pure and _native:
    raise ImportError(
        "CTXPOOL_PURE=1 and CTXPOOL_NATIVE=1 exclude each other: unset one"
    )

backend: Literal["native", "pure"]

if TYPE_CHECKING or _pure:
    from ._pure.block_pool import Block, BlockPool
    from ._pure.cache import Cache
    from ._pure.cached_function import CachedFunction, CachedMethod
    from ._pure.lazy_proxy import LazyProxy
    from ._pure.lru_cache import LRUCache
    from ._pure.markov import MarkovModel
    from ._pure.object_pool import ObjectLease, ObjectPool
    from ._pure.prefix_blocks import PrefixBlockManager
    from ._pure.shared_pool import SharedBlock, SharedBlockPool
    from ._pure.token_window import TokenWindow

    backend = "pure"
else:
    try:
        from ._native.block_pool import Block, BlockPool
        from ._native.cache import Cache
        from ._native.cached_function import CachedFunction, CachedMethod
        from ._native.lazy_proxy import LazyProxy
        from ._native.lru_cache import LRUCache
        from ._native.markov import MarkovModel
        from ._native.object_pool import ObjectLease, ObjectPool
        from ._native.prefix_blocks import PrefixBlockManager
        from ._native.shared_pool import SharedBlock, SharedBlockPool
        from ._native.token_window import TokenWindow

        backend = "native"
    except ModuleNotFoundError as error:
        # Only absence is forgiven, and only of all: an extension that is there
        # and does not load (a wrong ABI, a missing symbol), or one that is missing
        # beside others, is an error the user must see.
        if not (error.name or "").startswith("ctxpool._native.") or any(
            find_spec(f"ctxpool._native.{name}") for name in _EXTENSIONS
        ):
            raise
        if _native:
            raise ImportError(
                "CTXPOOL_NATIVE=1, but this installation has no native build: "
                "reinstall where there is a C compiler "
                "(pip install --no-cache-dir --force-reinstall ctxpool)"
            ) from error
        from ._pure.block_pool import Block, BlockPool
        from ._pure.cache import Cache
        from ._pure.cached_function import CachedFunction, CachedMethod
        from ._pure.lazy_proxy import LazyProxy
        from ._pure.lru_cache import LRUCache
        from ._pure.markov import MarkovModel
        from ._pure.object_pool import ObjectLease, ObjectPool
        from ._pure.prefix_blocks import PrefixBlockManager
        from ._pure.shared_pool import SharedBlock, SharedBlockPool
        from ._pure.token_window import TokenWindow

        backend = "pure"

publish(Cache, LRUCache, MarkovModel, TokenWindow)
