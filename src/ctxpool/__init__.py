"""Fast, predictable memory for real-time Python.

Three primitives, each native with a pure-Python twin of the same behaviour:

- :class:`BlockPool`: equal blocks of memory, handed out and taken back in O(1).
- :class:`TokenWindow`: the last N tokens, always as one array.
- :class:`LRUCache`: a mapping with a bound.

and, as native and as alike, :class:`LazyProxy`: an object loaded when first used.

``ctxpool.backend`` tells which of the two is at work, ``"native"`` or ``"pure"``.
"""

from . import errors
from ._backend import Block, BlockPool, LazyProxy, LRUCache, TokenWindow, backend
from ._include import get_include
from .sizes import parse_size
from .stats import BlockPoolStats, LRUCacheStats, TokenWindowStats

__all__ = [
    "Block",
    "BlockPool",
    "BlockPoolStats",
    "LRUCache",
    "LRUCacheStats",
    "LazyProxy",
    "TokenWindow",
    "TokenWindowStats",
    "__version__",
    "backend",
    "errors",
    "get_include",
    "parse_size",
]
__version__ = "0.1.0"
