"""``cached``: a call that looks into a cache first."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import update_wrapper
from types import MethodType
from typing import Any, NamedTuple

from ._caches import Cache

__all__ = ["CacheInfo", "Caching", "decorated"]


class CacheInfo(NamedTuple):
    """What ``cache_info()`` returns."""

    hits: int
    misses: int
    maxsize: Any
    currsize: Any


_UNLOCKED = nullcontext()


class Caching:
    """The call itself. A subclass has ``cache``, ``cache_key``, ``cache_lock`` and
    ``cache_condition``, of which the last two may be None."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._hits = self._misses = 0
        self._pending: set[Any] = set()

    cache: Any
    cache_key: Any
    cache_lock: Any
    cache_condition: Any

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        cache = self.cache
        key = self.cache_key(*args, **kwargs)
        condition, lock = self.cache_condition, self.cache_lock
        if condition is not None:
            return self._alone(cache, key, condition, lock, args, kwargs)
        with _UNLOCKED if lock is None else lock:
            try:
                value = cache[key]
            except KeyError:
                self._misses += 1
            else:
                self._hits += 1
                return value
        value = self._function(*args, **kwargs)
        try:
            if lock is None:
                cache[key] = value
                return value
            with lock:
                return cache.setdefault(key, value)  # another thread's, if it was first
        except ValueError:  # too large
            return value

    def _alone(
        self, cache: Any, key: Any, condition: Any, lock: Any, args: Any, kwargs: Any
    ) -> Any:
        with lock:
            while key in self._pending:
                condition.wait()
            try:
                value = cache[key]
            except KeyError:
                self._misses += 1
                self._pending.add(key)
            else:
                self._hits += 1
                return value
        try:
            value = self._function(*args, **kwargs)
            with lock:
                try:
                    cache[key] = value
                except ValueError:  # too large
                    return value
            return value
        finally:
            with lock:
                self._pending.discard(key)
                condition.notify_all()

    def cache_clear(self) -> None:
        """Clear the cache, and the counts."""
        lock = self.cache_lock
        with _UNLOCKED if lock is None else lock:
            self.cache.clear()
            self._hits = self._misses = 0


class Informing:
    """``cache_info`` for those who asked for it."""

    def cache_info(self: Any) -> CacheInfo:
        """Hits, misses, maxsize and current size."""
        lock = self.cache_lock
        with _UNLOCKED if lock is None else lock:
            cache = self.cache
            if isinstance(cache, Cache):
                bound, size = cache.maxsize, cache.currsize
            else:
                bound, size = None, len(cache)
            return CacheInfo(self._hits, self._misses, bound, size)


class _Function(Caching):
    def __init__(
        self, function: Any, cache: Any, key: Any, lock: Any, condition: Any
    ) -> None:
        update_wrapper(self, function)
        super().__init__(function)
        self.cache = cache
        self.cache_key = key
        self.cache_lock = condition if lock is None else lock
        self.cache_condition = condition

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else MethodType(self, instance)

    def __reduce__(self) -> Any:
        return self.__qualname__  # type: ignore[attr-defined]

    def __repr__(self) -> str:
        return f"<cached {self.__wrapped__!r}>"  # type: ignore[attr-defined]


class _InformingFunction(_Function, Informing):
    pass


def decorated(
    function: Any, cache: Any, key: Any, lock: Any, condition: Any, info: bool
) -> Any:
    """What ``cached(cache, ...)`` makes of *function*."""
    make = _InformingFunction if info else _Function
    return make(function, cache, key, lock, condition)
