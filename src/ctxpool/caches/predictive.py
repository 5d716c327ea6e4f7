"""A cache that loads ahead what will be asked for."""

import asyncio
import time
from collections.abc import Callable, Hashable, Iterable
from functools import partial
from typing import Any

from .. import LRUCache
from .prefetcher import MISS, MISSING, USED, Prefetcher, PrefetchStats

__all__ = ["PredictiveCache"]


class PredictiveCache:
    """An :class:`~ctxpool.LRUCache` in front of *load*, with a :class:`Prefetcher`.

    What is loaded ahead waits in a segment of its own and moves to the cache when it is
    read: a wrong guess evicts nothing.

    Parameters
    ----------
    load : callable
        ``load(key)`` returns the value; or a coroutine function, for :meth:`aget`.
    cache_size : int, optional
        Most entries, or with *getsizeof* the most of its sum.
    getsizeof : callable, optional
        ``getsizeof(value)``.
    prefetch : bool, optional
        False: a plain read-through cache that reports the same figures.
    **options
        Those of :class:`Prefetcher`: ``model``, ``features``, ``confidence``, ...

    Notes
    -----
    *Threads.* Each call is atomic; a value is loaded by one thread, and others that
    want it wait. With a coroutine function the cache belongs to one event loop.

    Examples
    --------
    >>> from ctxpool.caches import PredictiveCache
    >>> with PredictiveCache(str.upper, cache_size=2) as cache:
    ...     [cache.get(key) for key in "abca"]
    ['A', 'B', 'C', 'A']
    """

    def __init__(
        self,
        load: Callable[[Any], Any],
        cache_size: int = 1000,
        *,
        getsizeof: Callable[[Any], float] | None = None,
        prefetch: bool = True,
        **options: Any,
    ) -> None:
        self._cache: Any = LRUCache(cache_size, getsizeof)
        self._load = load
        self._timer = options.get("timer", time.perf_counter)
        self._tasks: dict[Any, asyncio.Task[Any]] = {}
        self.prefetcher = Prefetcher(load, known=self._cache.__contains__, **options)
        if not prefetch:
            self.prefetcher.disable()

    def get(self, key: Hashable) -> Any:
        """The value of *key*: cached, loaded ahead, or loaded now.

        Raises
        ------
        TypeError
            ``load`` is a coroutine function.
        Exception
            Whatever ``load`` raises; nothing is cached then.
        """
        prefetcher = self.prefetcher
        value = self._cache.get(key, MISSING)
        if value is not MISSING:
            prefetcher.record(key)
            return value
        start, version = self._timer(), prefetcher.version
        value = prefetcher.take(key, MISSING)
        if value is not MISSING:
            self._keep(key, value, version)
            prefetcher.record(key, USED, self._timer() - start)
            return value
        value = self._cache.get_or_compute(key, self._load)
        prefetcher.record(key, MISS, self._timer() - start)
        return value

    __getitem__ = get

    async def aget(self, key: Hashable) -> Any:
        """As :meth:`get`, for a coroutine function."""
        prefetcher = self.prefetcher
        if not prefetcher.asynchronous:
            raise TypeError("load is no coroutine function: use get()")
        value = self._cache.get(key, MISSING)
        if value is not MISSING:
            prefetcher.record(key)
            return value
        start, version = self._timer(), prefetcher.version
        value = await prefetcher.atake(key, MISSING)
        if value is not MISSING:
            self._keep(key, value, version)
            prefetcher.record(key, USED, self._timer() - start)
            return value
        task = self._tasks.get(key)
        if task is None:
            task = self._tasks[key] = asyncio.ensure_future(self._aload(key))
        value = await asyncio.shield(task)  # a reader that gives up stops no other
        prefetcher.record(key, MISS, self._timer() - start)
        return value

    async def _aload(self, key: Any) -> Any:
        task = asyncio.current_task()
        try:
            value = await self._load(key)
            if self._tasks.get(key) is task:  # else put or dropped meanwhile
                self._cache.setdefault(key, value)
            return value
        finally:
            if self._tasks.get(key) is task:
                del self._tasks[key]

    def _keep(self, key: Any, value: Any, version: int) -> None:
        store = partial(self._cache.setdefault, key, value)
        self.prefetcher.keep(version, store)

    def put(self, key: Hashable, value: Any) -> None:
        """Cache *value*; what was loaded ahead for *key* is dropped."""
        self._tasks.pop(key, None)
        self.prefetcher.discard(key)
        self._cache[key] = value

    __setitem__ = put

    def invalidate(self, key: Hashable) -> bool:
        """Drop *key*, loaded ahead or not. Returns whether it was in the cache."""
        self._tasks.pop(key, None)
        self.prefetcher.discard(key)
        return self._cache.pop(key, MISSING) is not MISSING

    def train(self, history: Iterable[Hashable], epochs: int = 1) -> Any:
        """Train the model, as :meth:`MarkovModel.train` does.

        Raises
        ------
        TypeError
            The model has no ``train``.
        """
        train = getattr(self.prefetcher.model, "train", None)
        if train is None:
            raise TypeError(f"{self.prefetcher.model!r} has no train()")
        return train(history, epochs)

    def stats(self) -> PrefetchStats:
        """What prefetching did and what it earned."""
        return self.prefetcher.stats()

    def __len__(self) -> int:
        """Entries of the cache, without those that were loaded ahead and not read."""
        return len(self._cache)

    def __contains__(self, key: Hashable) -> bool:
        """Whether *key* is in the cache itself."""
        return key in self._cache

    def close(self) -> None:
        """End prefetching. The cache goes on without it."""
        self.prefetcher.close()

    def __enter__(self) -> "PredictiveCache":
        return self

    def __exit__(self, exc_type: Any, exc: Any, tb: Any) -> None:
        self.close()
