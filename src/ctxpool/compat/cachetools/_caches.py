"""Cache and the caches that know no time.

A policy is what it does when an entry is stored, used or removed, and whom it names as
the victim; the rest is in Cache.
"""

import random
from collections import OrderedDict
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any, Generic, TypeVar

from ... import _backend

__all__ = ["Cache", "FIFOCache", "LFUCache", "LRUCache", "RRCache"]

K = TypeVar("K")
V = TypeVar("V")
MISSING: Any = object()


class Cache(MutableMapping[K, V], Generic[K, V]):
    """A mapping with a bound, and the base of all caches here.

    Parameters
    ----------
    maxsize : int or float
        The bound of ``currsize``.
    getsizeof : callable, optional
        ``getsizeof(value)`` is its size; 1 without it. A subclass may define it.
    """

    def __init__(self, maxsize: Any, getsizeof: Any = None) -> None:
        if maxsize < 0:
            raise ValueError(f"maxsize must be non-negative, not {maxsize!r}")
        if getsizeof is not None:
            self.getsizeof = getsizeof  # type: ignore[method-assign]
        # Value, size, and the key as it was stored: a policy that is given that one
        # finds it by identity, without a call of an __eq__ that might come back.
        self.__entries: dict[Any, tuple[Any, Any, Any]] = {}
        self.__currsize: Any = 0
        self.__maxsize = maxsize

    # ---- What a policy defines ----

    def _stored(self, key: Any) -> None:
        """*key* was stored, anew or again."""

    def _used(self, key: Any) -> None:
        """*key* was looked up."""

    def _removed(self, key: Any) -> None:
        """*key* was removed."""

    def _emptied(self) -> None:
        """All keys were removed."""

    def _victim(self) -> Any:
        """The key to go next. StopIteration: there is none."""
        return next(iter(self.__entries))

    # ---- The mapping ----

    def _peek(self, key: Any) -> Any:
        return self.__entries[key][0]

    def __repr__(self) -> str:
        items = {key: value for key, (value, *_) in self.__entries.items()}
        return (
            f"{type(self).__name__}({items!r}, "
            f"maxsize={self.__maxsize!r}, currsize={self.__currsize!r})"
        )

    def __getitem__(self, key: Any) -> Any:
        entry = self.__entries.get(key)
        if entry is None:
            return self.__missing__(key)
        self._used(entry[2])
        return entry[0]

    def __missing__(self, key: Any) -> Any:
        raise KeyError(key)

    def __setitem__(self, key: Any, value: Any) -> None:
        size = self.getsizeof(value)
        if size > self.__maxsize:
            raise ValueError(
                f"value too large: size {size!r}, maxsize {self.__maxsize!r}"
            )
        if size < 0:
            raise ValueError(f"value size must be non-negative, not {size!r}")
        while True:  # the one evicted may be the one replaced
            old = self.__entries.get(key)
            more = size if old is None else size - old[1]
            if self.__currsize + more <= self.__maxsize:
                break
            self.popitem()
        if old is not None:
            key = old[2]
        self.__entries[key] = value, size, key
        self.__currsize += more
        self._stored(key)

    def __delitem__(self, key: Any) -> None:
        _, size, stored = self.__entries.pop(key)
        self.__currsize -= size
        self._removed(stored)

    def __contains__(self, key: object) -> bool:
        return key in self.__entries

    def __iter__(self) -> Iterator[Any]:
        return iter(self.__entries)

    def __len__(self) -> int:
        return len(self.__entries)

    def get(self, key: Any, default: Any = None) -> Any:
        """``cache[key]`` if *key* is there, else *default*."""
        if key in self:
            return self[key]
        return default

    def pop(self, key: Any, default: Any = MISSING) -> Any:
        """Remove *key* and return its value, or *default*."""
        if key in self:
            value = self[key]
            del self[key]
            return value
        if default is MISSING:
            raise KeyError(key)
        return default

    def popitem(self) -> tuple[Any, Any]:
        """Remove and return the pair that the policy would evict."""
        try:
            key = self._victim()
        except StopIteration:
            raise KeyError(f"{type(self).__name__} is empty") from None
        value = self._peek(key)
        del self[key]
        return key, value

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """``cache[key]``, after storing *default* if *key* is not there."""
        if key in self:
            return self[key]
        self[key] = default
        return default

    def clear(self) -> None:
        """Remove all entries."""
        self.__entries.clear()
        self.__currsize = 0
        self._emptied()

    @property
    def maxsize(self) -> Any:
        """The bound of the size."""
        return self.__maxsize

    @property
    def currsize(self) -> Any:
        """The size of all entries together."""
        return self.__currsize

    @staticmethod
    def getsizeof(value: Any) -> Any:
        """The size of a value: 1."""
        return 1


class LRUCache(_backend.LRUCache[K, V], Cache[K, V]):
    """The engine's own: the least recently used entry goes first."""

    def __init__(self, maxsize: Any, getsizeof: Any = None) -> None:
        super().__init__(maxsize, getsizeof)


class FIFOCache(Cache[K, V]):
    """The entry stored longest ago goes first."""

    def __init__(self, maxsize: Any, getsizeof: Any = None) -> None:
        super().__init__(maxsize, getsizeof)
        self.__order: OrderedDict[Any, None] = OrderedDict()

    def _stored(self, key: Any) -> None:
        self.__order[key] = None
        self.__order.move_to_end(key)

    def _removed(self, key: Any) -> None:
        del self.__order[key]

    def _emptied(self) -> None:
        self.__order.clear()

    def _victim(self) -> Any:
        return next(iter(self.__order))


class LFUCache(Cache[K, V]):
    """The entry used least often goes first; of several the one longest so. O(1)."""

    def __init__(self, maxsize: Any, getsizeof: Any = None) -> None:
        super().__init__(maxsize, getsizeof)
        self.__uses: dict[Any, int] = {}
        self.__keys: dict[int, OrderedDict[Any, None]] = {}  # by the number of uses
        self.__fewest = 0  # no key has been used less often

    def _stored(self, key: Any) -> None:
        if key in self.__uses:
            self._used(key)
        else:
            self.__file(key, 1)
            self.__fewest = 1

    def _used(self, key: Any) -> None:
        uses = self._removed(key)
        if self.__fewest == uses and uses not in self.__keys:
            self.__fewest = uses + 1
        self.__file(key, uses + 1)

    def __file(self, key: Any, uses: int) -> None:
        self.__uses[key] = uses
        self.__keys.setdefault(uses, OrderedDict())[key] = None

    def _removed(self, key: Any) -> int:  # type: ignore[override]
        uses = self.__uses.pop(key)
        same = self.__keys[uses]
        del same[key]
        if not same:
            del self.__keys[uses]
        return uses

    def _emptied(self) -> None:
        self.__uses.clear()
        self.__keys.clear()

    def _victim(self) -> Any:
        if self.__uses and self.__fewest not in self.__keys:
            self.__fewest = min(self.__keys)  # after a removal by the user only
        return next(iter(self.__keys.get(self.__fewest, ())))


class RRCache(Cache[K, V]):
    """An entry chosen at random goes.

    Parameters
    ----------
    choice : callable
        ``choice(keys)`` picks one of a sequence.
    """

    def __init__(
        self,
        maxsize: Any,
        choice: Callable[[Any], Any] = random.choice,
        getsizeof: Any = None,
    ) -> None:
        super().__init__(maxsize, getsizeof)
        self.__choice = choice
        self.__keys: list[Any] = []
        self.__places: dict[Any, int] = {}

    @property
    def choice(self) -> Callable[[Any], Any]:
        """The function that picks a key."""
        return self.__choice

    def _stored(self, key: Any) -> None:
        if key not in self.__places:
            self.__places[key] = len(self.__keys)
            self.__keys.append(key)

    def _removed(self, key: Any) -> None:
        place, last = self.__places.pop(key), self.__keys.pop()
        if place < len(self.__keys):  # the last key fills the gap
            self.__keys[place] = last
            self.__places[last] = place

    def _emptied(self) -> None:
        self.__keys.clear()
        self.__places.clear()

    def _victim(self) -> Any:
        if not self.__keys:
            raise StopIteration
        return self.__choice(self.__keys)
