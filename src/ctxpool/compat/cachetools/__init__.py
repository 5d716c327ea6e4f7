"""The interface of cachetools 8: ``from ctxpool.compat import cachetools``.

:class:`LRUCache` is the engine's. The others have their order in Python; as in
cachetools, they need a lock where threads share them.
"""

from collections.abc import Callable
from typing import Any

from . import keys
from ._caches import Cache, FIFOCache, LFUCache, LRUCache, RRCache
from ._functions import CacheInfo, decorated
from ._methods import method_descriptor
from ._timed import TLRUCache, TTLCache

__all__ = (
    "Cache",
    "CacheInfo",
    "FIFOCache",
    "LFUCache",
    "LRUCache",
    "RRCache",
    "TLRUCache",
    "TTLCache",
    "cached",
    "cachedmethod",
)
__version__ = "8.0.0"  # the version of the interface


def cached(
    cache: Any,
    key: Callable[..., Any] = keys.hashkey,
    lock: Any = None,
    condition: Any = None,
    info: bool = False,
) -> Callable[[Callable[..., Any]], Any]:
    """Remember the results of a function in *cache*.

    Parameters
    ----------
    cache : mutable mapping
        It may refuse a value by a ValueError.
    key : callable
        ``key(*args, **kwargs)`` makes the key of a call.
    lock : context manager, optional
        Held around each use of *cache*, not around the function.
    condition : threading.Condition, optional
        Of several threads that make the same call, one calls the function and the
        others wait.
    info : bool
        Whether to count hits and misses, for ``cache_info()``.

    Examples
    --------
    >>> @cached(LRUCache(maxsize=32), info=True)
    ... def square(n):
    ...     return n * n
    >>> square(3), square(3), square.cache_info()
    (9, 9, CacheInfo(hits=1, misses=1, maxsize=32, currsize=1))
    """
    if cache is None:
        raise TypeError("cache must not be None")
    return lambda function: decorated(function, cache, key, lock, condition, info)


def cachedmethod(
    cache: Callable[[Any], Any],
    key: Callable[..., Any] = keys.methodkey,
    lock: Callable[[Any], Any] | None = None,
    condition: Callable[[Any], Any] | None = None,
    info: bool = False,
) -> Callable[[Callable[..., Any]], Any]:
    """:func:`cached` for methods.

    *cache*, *lock* and *condition* are functions that are given the instance; *key* is
    given it as its first argument.

    Examples
    --------
    >>> class Squares:
    ...     def __init__(self):
    ...         self.cache = LRUCache(maxsize=32)
    ...     @cachedmethod(lambda self: self.cache)
    ...     def of(self, n):
    ...         return n * n
    >>> squares = Squares()
    >>> squares.of(3), len(squares.cache)
    (9, 1)
    """
    return lambda method: method_descriptor(method, cache, key, lock, condition, info)
