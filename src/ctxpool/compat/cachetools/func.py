"""Decorators with the face of functools.lru_cache, over the caches of this package.

Of several threads that make the same call, one calls the function.
"""

import math
import random
import time
from collections.abc import Callable
from threading import Condition
from typing import Any

from . import FIFOCache, LFUCache, LRUCache, RRCache, TTLCache, cached, keys

__all__ = ("fifo_cache", "lfu_cache", "lru_cache", "rr_cache", "ttl_cache")


class _UnboundedTTLCache(TTLCache[Any, Any]):
    @property
    def maxsize(self) -> Any:
        """None: no bound."""
        return None


def _decorator(make: Callable[[Any], Any], maxsize: Any, typed: bool) -> Any:
    """*make(maxsize)* makes the cache; *maxsize* may be the function itself."""
    if callable(maxsize):
        return _decorator(make, 128, typed)(maxsize)
    key = keys.typedkey if typed else keys.hashkey
    decorate = cached(make(maxsize), key=key, condition=Condition(), info=True)

    def decorator(function: Callable[..., Any]) -> Any:
        wrapper = decorate(function)
        wrapper.cache_parameters = lambda: {"maxsize": maxsize, "typed": typed}
        return wrapper

    return decorator


def _or_dict(make: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda maxsize: {} if maxsize is None else make(maxsize)


def fifo_cache(maxsize: Any = 128, typed: bool = False) -> Any:
    """Keep up to *maxsize* results; the one stored first goes first."""
    return _decorator(_or_dict(FIFOCache), maxsize, typed)


def lfu_cache(maxsize: Any = 128, typed: bool = False) -> Any:
    """Keep up to *maxsize* results; the one used least often goes first."""
    return _decorator(_or_dict(LFUCache), maxsize, typed)


def lru_cache(maxsize: Any = 128, typed: bool = False) -> Any:
    """Keep up to *maxsize* results; the least recently used goes first."""
    return _decorator(_or_dict(LRUCache), maxsize, typed)


def rr_cache(
    maxsize: Any = 128,
    choice: Callable[[Any], Any] = random.choice,
    typed: bool = False,
) -> Any:
    """Keep up to *maxsize* results; one chosen at random goes."""
    return _decorator(_or_dict(lambda size: RRCache(size, choice)), maxsize, typed)


def ttl_cache(
    maxsize: Any = 128,
    ttl: Any = 600,
    timer: Callable[[], Any] = time.monotonic,
    typed: bool = False,
) -> Any:
    """Keep up to *maxsize* results for *ttl*; the least recently used goes first."""

    def make(size: Any) -> Any:
        if size is None:
            return _UnboundedTTLCache(math.inf, ttl, timer)
        return TTLCache(size, ttl, timer)

    return _decorator(make, maxsize, typed)
