"""What both implementations of :class:`~ctxpool.LRUCache` share.

The checks of arguments (so that the messages are the same), the views, and the
single flight behind ``get_or_compute``. None of it is on a hot path.
"""

import math
import operator
import os
import threading
import time
from collections.abc import (
    Callable,
    ItemsView,
    Iterable,
    Iterator,
    KeysView,
    Mapping,
    ValuesView,
)
from reprlib import recursive_repr
from typing import Any

__all__ = [
    "MISSING",
    "POLICIES",
    "CacheItems",
    "CacheKeys",
    "CacheValues",
    "checked_maxsize",
    "checked_number",
    "checked_policy",
    "checked_preallocate",
    "checked_size",
    "checked_ttl",
    "flight_epoch",
    "overridden",
    "pairs",
    "shown",
    "single_flight",
]

MISSING: Any = object()
MOST_ENTRIES = 0x7FFFFFFE


def checked_number(number: Any, name: str) -> int | float:
    """*number* as a plain int or float that is not NaN."""
    if not isinstance(number, (int, float)):
        try:
            number = operator.index(number)
        except TypeError:
            if not hasattr(type(number), "__float__"):
                raise TypeError(f"{name} must be a number, not {number!r}") from None
            number = float(number)
    if number != number:
        raise ValueError(f"{name} must be a number, not nan")
    return float(number) if isinstance(number, float) else int(number)


def _not_negative(number: Any, name: str) -> int | float:
    number = checked_number(number, name)
    if number < 0:
        raise ValueError(f"{name} must be non-negative, not {number!r}")
    return number  # type: ignore[no-any-return]


def checked_maxsize(maxsize: Any) -> int | float:
    """*maxsize* as a number that is not negative."""
    return _not_negative(maxsize, "maxsize")


def checked_size(size: Any) -> int | float:
    """What ``getsizeof`` returned, as a number that is not negative."""
    return _not_negative(size, "value size")


def checked_ttl(ttl: Any) -> float | None:
    """*ttl* in seconds; None when entries do not expire."""
    if ttl is None:
        return None
    seconds = float(checked_number(ttl, "ttl"))
    if seconds <= 0:
        raise ValueError(f"ttl must be positive, not {ttl!r}")
    return None if seconds == math.inf else seconds


def checked_preallocate(maxsize: int | float, sized: bool) -> int:
    """How many entries ``preallocate=True`` is to make room for."""
    if sized:
        raise ValueError(
            "preallocate needs to know the number of entries: not with getsizeof"
        )
    if maxsize > MOST_ENTRIES:
        raise ValueError(
            f"preallocate needs a maxsize of at most {MOST_ENTRIES}, not {maxsize!r}"
        )
    return int(maxsize)


# In the order of the native numbers.
POLICIES = (
    "adaptive",
    "fifo",
    "lfu",
    "lru",
    "mru",
    "rr",
    "s3fifo",
    "sieve",
    "tinylfu",
)


def checked_policy(policy: Any) -> str:
    """The name of a policy that there is."""
    if not isinstance(policy, str):
        raise TypeError(f"policy must be a str, not {policy!r}")
    if policy not in POLICIES:
        raise ValueError(f"policy must be one of {', '.join(POLICIES)}, not {policy!r}")
    return str(policy)


def overridden(cls: type, base: type, names: Iterable[str]) -> frozenset[str]:
    """Which of *names* the class *cls* takes from elsewhere than *base*."""

    def owner(name: str) -> type:
        return next(c for c in cls.__mro__ if name in c.__dict__)

    return frozenset(name for name in names if owner(name) is not base)


def pairs(items: Any) -> Iterator[tuple[Any, Any]]:
    """The pairs of a mapping, or of an iterable of pairs, as ``dict`` takes them."""
    if isinstance(items, Mapping):
        for key in items:
            yield key, items[key]
    elif hasattr(items, "keys"):
        for key in items.keys():  # noqa: SIM118
            yield key, items[key]
    else:
        for key, value in items:
            yield key, value


class CacheSignature:
    """``inspect.signature(LRUCache)``: a native type's text signature cannot show a
    function as a default. Not for subclasses, which may have an ``__init__``."""

    def __init__(self, like: Callable[..., None]) -> None:
        self.like = like

    def __set_name__(self, owner: type, name: str) -> None:
        self.owner = owner

    def __get__(self, cache: Any, owner: type) -> Any:
        import inspect

        if owner is not self.owner:
            raise AttributeError("__signature__")
        return inspect.signature(self.like)


def lru_cache_init(
    maxsize: Any,
    getsizeof: Any = None,
    *,
    ttl: Any = None,
    preallocate: Any = False,
    on_evict: Any = None,
    timer: Any = time.monotonic,
) -> None: ...


def cache_init(
    maxsize: Any,
    policy: Any = "s3fifo",
    getsizeof: Any = None,
    *,
    ttl: Any = None,
    preallocate: Any = False,
    on_evict: Any = None,
    timer: Any = time.monotonic,
) -> None: ...


@recursive_repr()
def shown(cache: Any) -> str:
    """``repr(cache)``."""
    items = ", ".join(f"{key!r}: {value!r}" for key, value in cache._snapshot())
    return (
        f"{type(cache).__name__}({{{items}}}, "
        f"maxsize={cache.maxsize!r}, currsize={cache.currsize!r})"
    )


class CacheKeys(KeysView[Any]):
    """The keys of a cache, in the order of their insertion."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self)!r})"


class CacheValues(ValuesView[Any]):
    """The values of a cache, in the order of insertion of their keys."""

    __slots__ = ()
    _mapping: Any

    def __iter__(self) -> Iterator[Any]:
        return iter([value for _, value in self._mapping._snapshot()])

    def __contains__(self, value: object) -> bool:
        return any(v is value or v == value for v in self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self)!r})"


class CacheItems(ItemsView[Any, Any]):
    """The pairs of a cache, in the order of insertion of their keys."""

    __slots__ = ()
    _mapping: Any

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return iter(self._mapping._snapshot())

    def __contains__(self, item: object) -> bool:
        if not isinstance(item, tuple) or len(item) != 2:
            return False
        value = self._mapping.peek(item[0], MISSING)
        return value is not MISSING and (value is item[1] or value == item[1])

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self)!r})"


class _Flight:
    """One computation: who computes, and what came of it."""

    __slots__ = ("done", "error", "landed", "owner", "value")

    def __init__(self) -> None:
        self.owner = threading.get_ident()
        self.done = False
        self.value: Any = MISSING
        self.error: Exception | None = None
        self.landed = threading.Lock()  # held while the flight is in the air
        self.landed.acquire()


# Which thread waits for which flight, so that a circle of waiters is seen.
_waits: dict[int, _Flight] = {}
_waits_lock = threading.Lock()


def _after_fork_in_child() -> None:
    global _waits_lock, _waits
    _waits, _waits_lock = {}, threading.Lock()
    _epoch[0] += 1


_epoch = [0]  # flights of an earlier epoch are a parent's: nobody here lands them
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def flight_epoch() -> int:
    """How many forks are behind this process. What was in the air then is lost."""
    return _epoch[0]


def _wait(flight: _Flight) -> bool:
    """Wait until *flight* has landed; False if that would be to wait for oneself."""
    me = threading.get_ident()
    with _waits_lock:
        ahead: _Flight | None = flight
        while ahead is not None and not ahead.done:
            if ahead.owner == me:
                return False
            ahead = _waits.get(ahead.owner)
        _waits[me] = flight
    try:
        with flight.landed:
            return True
    finally:
        with _waits_lock:
            _waits.pop(me, None)


def single_flight(
    flights: dict[Any, tuple[int, _Flight]],
    key: Any,
    fn: Callable[[Any], Any],
    peek: Callable[[Any, Any], Any],
    store: Callable[[Any, Any], None],
) -> Any:
    """``fn(key)``, computed by one thread at a time; the others take its outcome."""
    while True:
        mine = _Flight()
        entry = (_epoch[0], mine)
        epoch, flight = flights.setdefault(key, entry)
        if flight is not mine and (flight.done or epoch != _epoch[0]):
            # One whose removal failed, or whose thread stayed behind in a fork.
            flights[key] = entry
            flight = mine
        if flight is mine:
            try:
                return _fly(flights, key, mine, fn, peek, store)
            finally:
                del mine, flight, entry  # an error's traceback holds this frame
        if not _wait(flight):
            value = fn(key)
            store(key, value)
            return value
        if flight.error is not None:
            try:
                raise flight.error
            finally:
                del mine, flight, entry  # as above
        if flight.value is not MISSING:
            return flight.value
        # It was interrupted (KeyboardInterrupt, SystemExit), which is its thread's
        # own affair: start again.


def _fly(
    flights: dict[Any, tuple[int, _Flight]],
    key: Any,
    mine: _Flight,
    fn: Callable[[Any], Any],
    peek: Callable[[Any, Any], Any],
    store: Callable[[Any, Any], None],
) -> Any:
    try:
        value = peek(key, MISSING)  # stored since we missed it?
        if value is MISSING:
            value = fn(key)
            mine.value = value
            store(key, value)
        else:
            mine.value = value
        return value
    except Exception as error:
        if mine.value is MISSING:
            mine.error = error
        raise
    finally:
        try:
            flights.pop(key, None)
        finally:
            mine.done = True
            mine.landed.release()
            del mine  # as above
