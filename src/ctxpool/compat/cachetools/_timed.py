"""Caches whose entries expire: TTLCache and TLRUCache.

Both keep two orders: that of use, for eviction, and that of expiry.
"""

import heapq
import time as clock
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

from ._caches import MISSING, Cache, K, V

__all__ = ["TLRUCache", "TTLCache"]


class _Timer:
    """A clock that stands still inside ``with``. What else it has is its function's."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self.__function = function
        self.__depth = 0
        self.__now: Any = None

    def __call__(self) -> Any:
        return self.__now if self.__depth else self.__function()

    def __enter__(self) -> Any:
        if not self.__depth:
            self.__now = self.__function()
        self.__depth += 1
        return self.__now

    def __exit__(self, exc_type: Any, exc: Any, tb: Any) -> None:
        self.__depth -= 1

    def __reduce__(self) -> Any:
        return _Timer, (self.__function,)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__function, name)


class _TimedCache(Cache[K, V]):
    """What both share. A subclass knows when entries are due."""

    def __init__(self, maxsize: Any, timer: Callable[[], Any], getsizeof: Any) -> None:
        super().__init__(maxsize, getsizeof)
        self.__timer = _Timer(timer)
        self.__recency: OrderedDict[Any, None] = OrderedDict()

    @property
    def timer(self) -> Any:
        """The clock."""
        return self.__timer

    @abstractmethod
    def _due(self, key: Any) -> Any:
        """When *key* expires. KeyError: it is not there."""

    @abstractmethod
    def _first_due(self) -> tuple[Any, Any]:
        """What expires first, and when. StopIteration: nothing does."""

    @abstractmethod
    def _by_due(self) -> list[Any]:
        """All keys, in the order of iteration."""

    def _is_alive(self, key: Any) -> bool:
        try:
            due = self._due(key)
        except KeyError:
            return False
        return bool(self.__timer() < due)

    def _stored(self, key: Any) -> None:
        self.__recency[key] = None
        self.__recency.move_to_end(key)

    def _used(self, key: Any) -> None:
        self.__recency.move_to_end(key)

    def _removed(self, key: Any) -> None:
        del self.__recency[key]

    def _emptied(self) -> None:
        self.__recency.clear()

    def _victim(self) -> Any:
        return next(iter(self.__recency))

    def __contains__(self, key: object) -> bool:
        return self._is_alive(key)

    def __getitem__(self, key: Any) -> Any:
        if key in self.__recency and not self._is_alive(key):
            return self.__missing__(key)
        return super().__getitem__(key)

    def __delitem__(self, key: Any) -> None:
        with self.__timer:
            alive = self._is_alive(key)
            super().__delitem__(key)
        if not alive:
            raise KeyError(key)

    def __iter__(self) -> Iterator[Any]:
        for key in self._by_due():
            if self._is_alive(key):
                yield key

    def __len__(self) -> int:
        self.expire()
        return super().__len__()

    def __repr__(self) -> str:
        with self.__timer as now:
            self.expire(now)
            return super().__repr__()

    @property
    def currsize(self) -> Any:
        """The size of all entries together."""
        self.expire()
        return super().currsize

    def get(self, key: Any, default: Any = None) -> Any:
        """``cache[key]`` if *key* is there, else *default*."""
        with self.__timer:
            return super().get(key, default)

    def pop(self, key: Any, default: Any = MISSING) -> Any:
        """Remove *key* and return its value, or *default*."""
        with self.__timer:
            return super().pop(key, default)

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """``cache[key]``, after storing *default* if *key* is not there."""
        with self.__timer:
            return super().setdefault(key, default)

    def popitem(self) -> tuple[Any, Any]:
        """Remove and return the least recently used pair that has not expired."""
        with self.__timer as now:
            self.expire(now)
            return super().popitem()

    def expire(self, time: Any = None) -> list[tuple[Any, Any]]:
        """Remove what has expired, and return it as a list of pairs."""
        now = self.__timer() if time is None else time
        expired: list[tuple[Any, Any]] = []
        while True:
            try:
                key, due = self._first_due()
            except StopIteration:
                return expired
            if now < due:
                return expired
            expired.append((key, self._peek(key)))
            Cache.__delitem__(self, key)


class TTLCache(_TimedCache[K, V]):
    """Entries live *ttl* after they were stored; the least recently used goes first.

    Parameters
    ----------
    ttl
        Time to live, in the units of *timer*.
    timer : callable
        The clock; its times need ``<`` and the addition of *ttl*.
    """

    def __init__(
        self,
        maxsize: Any,
        ttl: Any,
        timer: Callable[[], Any] = clock.monotonic,
        getsizeof: Any = None,
    ) -> None:
        super().__init__(maxsize, timer, getsizeof)
        self.__ttl = ttl
        self.__dues: OrderedDict[Any, Any] = OrderedDict()  # the first is due first

    @property
    def ttl(self) -> Any:
        """The time to live."""
        return self.__ttl

    def _due(self, key: Any) -> Any:
        return self.__dues[key]

    def _first_due(self) -> tuple[Any, Any]:
        return next(iter(self.__dues.items()))

    def _by_due(self) -> list[Any]:
        return list(self.__dues)

    def __setitem__(self, key: Any, value: Any) -> None:
        with self.timer as now:
            due = now + self.__ttl
            self.expire(now)
            super().__setitem__(key, value)
            self.__dues[key] = due
            self.__dues.move_to_end(key)

    def _removed(self, key: Any) -> None:
        super()._removed(key)
        self.__dues.pop(key, None)

    def _emptied(self) -> None:
        super()._emptied()
        self.__dues.clear()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.expire()


class TLRUCache(_TimedCache[K, V]):
    """Each entry has its own end; the least recently used goes first.

    Parameters
    ----------
    ttu : callable
        ``ttu(key, value, now)`` is when the entry expires. What has expired already
        is not stored, and what it would replace is removed.
    timer : callable
        The clock; its times need ``<``.
    """

    def __init__(
        self,
        maxsize: Any,
        ttu: Callable[[Any, Any, Any], Any],
        timer: Callable[[], Any] = clock.monotonic,
        getsizeof: Any = None,
    ) -> None:
        super().__init__(maxsize, timer, getsizeof)
        self.__ttu = ttu
        self.__count = 0
        # (due, number, key); one that is not its key's any more is stale.
        self.__items: dict[Any, tuple[Any, int, Any]] = {}
        self.__heap: list[tuple[Any, int, Any]] = []

    @property
    def ttu(self) -> Callable[[Any, Any, Any], Any]:
        """The function that tells when an entry expires."""
        return self.__ttu

    def _due(self, key: Any) -> Any:
        return self.__items[key][0]

    def _first_due(self) -> tuple[Any, Any]:
        heap = self.__heap
        while heap and self.__items.get(heap[0][2]) is not heap[0]:
            heapq.heappop(heap)
        if not heap:
            raise StopIteration
        return heap[0][2], heap[0][0]

    def _by_due(self) -> list[Any]:
        return [item[2] for item in sorted(self.__items.values())]

    def __setitem__(self, key: Any, value: Any) -> None:
        with self.timer as now:
            self.expire(now)
            due = self.__ttu(key, value, now)
            if not now < due:
                if key in self.__items:
                    Cache.__delitem__(self, key)
                return
            super().__setitem__(key, value)
            self.__count += 1
            self.__items[key] = item = (due, self.__count, key)
            heapq.heappush(self.__heap, item)
            if len(self.__heap) > 2 * len(self.__items):  # mostly stale
                self.__heap = sorted(self.__items.values())

    def _removed(self, key: Any) -> None:
        super()._removed(key)
        self.__items.pop(key, None)

    def _emptied(self) -> None:
        super()._emptied()
        self.__items.clear()
        self.__heap.clear()
