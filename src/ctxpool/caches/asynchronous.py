"""Cached coroutine functions: one flight per key and event loop.

The function runs in a task of its own, so that nobody who waits for it can take it down
by being cancelled; the last one who leaves cancels it. Flights know which flights they
wait for, so that a circle of them is seen before it closes.
"""

import asyncio
import contextvars
import time
import weakref
from collections.abc import Callable, Coroutine
from functools import update_wrapper
from typing import Any

from .. import _function_support as support
from .._backend import Cache, LRUCache
from .._cache_support import MISSING
from .._function_support import CacheInfo
from ..errors import ValueTooLargeError

__all__ = ["cached_coroutine_function"]


class _Flight:
    """One computation. Only its event loop's thread touches it."""

    __slots__ = ("error", "landed", "task", "value", "waiters", "waits")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.landed = loop.create_future()
        self.task: asyncio.Task[Any] | None = None
        self.waiters = 0
        self.waits: list[_Flight] = []
        self.value: Any = MISSING
        self.error: BaseException | None = None

    def leads_to(self, other: "_Flight") -> bool:
        """Whether it waits, however indirectly, for *other*, or is it."""
        ahead, seen = [self], {id(self)}
        while ahead:
            flight = ahead.pop()
            if flight is other:
                return True
            for following in flight.waits:
                if id(following) not in seen:
                    seen.add(id(following))
                    ahead.append(following)
        return False


# The flight in whose task we are.
_aboard: contextvars.ContextVar[_Flight | None] = contextvars.ContextVar(
    "ctxpool flight", default=None
)


class _Flights:
    """The calls of one function that are under way."""

    def __init__(self, function: Callable[..., Any], cache: LRUCache[Any, Any]) -> None:
        self.function = function
        self.cache = cache
        self.by_loop: weakref.WeakKeyDictionary[Any, dict[Any, _Flight]] = (
            weakref.WeakKeyDictionary()
        )

    def keep(self, key: Any, value: Any) -> None:
        try:
            self.cache[key] = value
        except ValueTooLargeError:
            return

    async def compute(self, key: Any, args: Any, kwargs: Any) -> Any:
        value = await self.function(*args, **kwargs)
        self.keep(key, value)
        return value

    def take_off(
        self, flights: dict[Any, _Flight], key: Any, args: Any, kwargs: Any
    ) -> _Flight:
        loop = asyncio.get_running_loop()
        flights[key] = flight = _Flight(loop)
        context = contextvars.copy_context()
        context.run(_aboard.set, flight)

        def land(task: "asyncio.Task[Any]") -> None:
            if flights.get(key) is flight:
                del flights[key]
            if task.cancelled():
                flight.error = asyncio.CancelledError()
            else:
                flight.error = task.exception()
                if flight.error is None:
                    flight.value = task.result()
            flight.landed.set_result(None)

        computing = self.compute(key, args, kwargs)
        flight.task = loop.create_task(computing, context=context)
        flight.task.add_done_callback(land)
        return flight

    async def outcome(self, key: Any, args: Any, kwargs: Any) -> Any:
        """The result of the flight of *key*, which starts if there is none."""
        flights = self.by_loop.setdefault(asyncio.get_running_loop(), {})
        flight = flights.get(key)
        me = _aboard.get()
        if flight is None:
            flight = self.take_off(flights, key, args, kwargs)
        elif me is not None and flight.leads_to(me):
            return await self.compute(key, args, kwargs)
        flight.waiters += 1
        if me is not None:
            me.waits.append(flight)
        try:
            await asyncio.wait((flight.landed,))
        finally:
            if me is not None:
                me.waits.remove(flight)
            flight.waiters -= 1
            if not (flight.waiters or flight.landed.done()):
                if flights.get(key) is flight:  # who comes now starts another
                    del flights[key]
                if flight.task is not None:
                    flight.task.cancel()
        if flight.error is None:
            return flight.value
        try:
            raise flight.error
        finally:
            del flight  # the error's traceback holds this frame


def cached_coroutine_function(
    function: Callable[..., Coroutine[Any, Any, Any]],
    maxsize: Any,
    typed: bool,
    *,
    policy: str,
    ttl: float | None,
    key: Callable[..., Any] | None,
    getsizeof: Callable[[Any], Any] | None,
    timer: Callable[[], Any] | None,
    single_flight: bool = True,
    method: bool = False,
) -> Any:
    """A coroutine function that remembers what *function* returned.

    The parameters are those of :class:`~ctxpool.CachedFunction`; it is always in
    single flight.
    """
    maxsize, policy, ttl = support.checked(
        function, maxsize, policy, ttl, key, getsizeof, timer
    )
    bound = support.bound(maxsize)
    clock = time.monotonic if timer is None else timer
    cache: LRUCache[Any, Any]
    if policy == "lru":
        cache = LRUCache(bound, getsizeof, ttl=ttl, timer=clock)
    else:
        cache = Cache(bound, policy, getsizeof, ttl=ttl, timer=clock)
    flights = _Flights(function, cache)
    cleared = [0, 0]  # hits and misses before the last cache_clear()

    async def cached(*args: Any, **kwargs: Any) -> Any:
        keyed = args[1:] if method else args
        if key is None:
            of = support.make_key(keyed, kwargs, typed)
        else:
            of = key(*keyed, **kwargs)
        value = cache.get(of, MISSING)
        if value is not MISSING:
            return value
        return await flights.outcome(of, args, kwargs)

    def cache_info() -> CacheInfo:
        """Hits, misses, maxsize and current size, as a named tuple."""
        stats = cache.stats()
        hits, misses = stats.hits - cleared[0], stats.misses - cleared[1]
        return CacheInfo(hits, misses, maxsize, stats.currsize)

    def cache_clear() -> None:
        """Forget all results, and the counts. Calls under way are not stopped."""
        cache.clear()
        stats = cache.stats()
        cleared[:] = stats.hits, stats.misses

    def cache_parameters() -> dict[str, Any]:
        """``{"maxsize": ..., "typed": ...}``, a new dict; policy and ttl if given."""
        return support.parameters(maxsize, typed, policy, ttl)

    for extra in (cache_info, cache_clear, cache_parameters):
        setattr(cached, extra.__name__, extra)
    return update_wrapper(cached, function)
