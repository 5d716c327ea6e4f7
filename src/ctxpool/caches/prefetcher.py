"""Loads ahead of use: what to load, where to put it, and whether it pays.

A foreground notes each access and takes what was loaded ahead. All else is done by one
planner, in a thread or on the event loop: it owns the model and the figures, so that a
read waits for no lock that is held for long, and never for a prediction.

Whether it pays is counted in windows of accesses. What a load ahead saved is the cost
of the load that the read did not wait for; what it cost is the planner's time and a
share of each load in vain. Where that is a loss the prefetcher sleeps, and from time to
time makes its plans without loading, to see if they would have paid by now.
"""

import asyncio
import inspect
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Protocol

from .. import LRUCache, _arguments, _unraisable
from .._pure.locks import new_rlock
from .markov import MarkovModel

__all__ = ["AccessModel", "PrefetchStats", "Prefetcher"]

HIT, USED, MISS = range(3)
MISSING: Any = object()
WAKE_EVERY = (
    32  # hits; a miss wakes the planner at once, as the reader is about to wait
)
STEP = 64  # accesses that the planner looks at in one go
BACKLOG = 4096  # accesses that the planner is behind: more are only counted
VAIN = 0.2  # what a load in vain costs, of a load that somebody waits for
LOSSES = 3  # windows in a row after which it gives up: a young model has to learn
SLEEP = 16  # most windows to sleep before it tries its plans again; 1, 2, 4... at first
WIN = 1.5  # by how much it must win to begin again


class AccessModel(Protocol):
    """What a model of the accesses must offer; one may also have ``follow(steps)``."""

    def record(self, key: Hashable) -> None:
        """Note that *key* was used."""

    def predict(self, n: int) -> list[tuple[Any, float]]:
        """The *n* likeliest next keys and their probabilities, the likeliest first."""


@dataclass(frozen=True, slots=True)
class PrefetchStats:
    """What a prefetcher did and what it earned.

    Attributes
    ----------
    accesses, hits, used, misses : int
        Reads: all, those of the cache itself, those of what was loaded ahead, the rest.
    loads, wasted, errors : int
        Loads ahead: begun, never read, failed.
    unnoted : int
        Accesses that found the planner too far behind: counted, but not learned.
    enabled : bool
        Whether it loads ahead now.
    switches : int
        How often that changed.
    hit_rate, hit_rate_without : float
        Share of the reads that did not load, and what it would be without prefetching.
        The latter is exact: what is loaded ahead changes the cache only when it is
        read, as its load at that moment would have done.
    latency, latency_without : float
        Mean seconds that a read waited for loads, and what it would be without: each
        read of what was loaded ahead then counted at the mean cost of a load.
    """

    accesses: int
    hits: int
    used: int
    misses: int
    loads: int
    wasted: int
    errors: int
    unnoted: int
    enabled: bool
    switches: int
    hit_rate: float
    hit_rate_without: float
    latency: float
    latency_without: float


_living: weakref.WeakSet[Any] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    """The child has no planner and no loads under way."""
    for prefetcher in list(_living):
        prefetcher._wake = SimpleQueue()
        prefetcher._flights.clear()
        prefetcher._thread = prefetcher._pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


class _Flight(threading.Event):
    """A load ahead in a thread; set when it is over."""

    def __init__(self) -> None:
        super().__init__()
        self._claim = threading.Lock()

    def claimed(self) -> bool:
        """Whether the caller is the first to ask: to load it, or to see it dropped."""
        return self._claim.acquire(blocking=False)


def _planner(prefetcher: Callable[[], Any], wake: SimpleQueue[Any]) -> None:
    while (note := wake.get()) is not MISSING:
        alive = prefetcher()
        if alive is None:
            return
        alive._turn()
        del alive
        if note is not None:
            note.set()


class Prefetcher:
    """Loads keys that will be read soon, into a place of their own.

    Parameters
    ----------
    load : callable
        ``load(key)`` returns the value; or a coroutine function.
    model : AccessModel, optional
        Predicts; a :class:`MarkovModel` by default. Only the planner calls it.
    features : callable, optional
        For the default model.
    probation : int, optional
        Most values that are loaded and not yet read: the oldest are given up.
    ahead : int, optional
        Most keys to load after an access, and most steps to look ahead.
    confidence : float, optional
        The least probability of a key worth a load.
    cost : callable, optional
        ``cost(key)``: seconds that its load takes; by default the mean of those seen.
    size : callable, optional
        ``size(key)``: bytes that its value takes; by default 0.
    pressure : callable, optional
        ``pressure()``: what a byte costs now, in seconds. Keys are ranked by
        probability x cost - size x pressure, and those below 0 are left.
    known : callable, optional
        ``known(key)``: whether it needs no load, being cached already.
    workers : int, optional
        Most loads ahead at a time.
    window : int, optional
        Accesses after which it decides whether prefetching pays.
    timer : callable, optional
        Seconds.

    Notes
    -----
    *Errors* of a load ahead are counted and dropped: the read loads itself, and sees
    its own. Those of the callables above go to :func:`sys.unraisablehook`.

    *Threads.* With a plain ``load`` the planner is a daemon thread that starts with the
    first access and ends with :meth:`close`. With a coroutine function everything runs
    on the event loop of the caller, and the prefetcher belongs to that loop.

    Examples
    --------
    >>> from ctxpool.caches import Prefetcher
    >>> with Prefetcher(str.upper) as prefetcher:
    ...     for key in "abcabcabc" * 30:
    ...         value = prefetcher.get(key)
    ...     flushed = prefetcher.flush()
    >>> prefetcher.stats().accesses
    270
    """

    def __init__(
        self,
        load: Callable[[Any], Any],
        *,
        model: AccessModel | None = None,
        features: Callable[[Any], Hashable] | None = None,
        probation: int = 64,
        ahead: int = 4,
        confidence: float = 0.1,
        cost: Callable[[Any], float] | None = None,
        size: Callable[[Any], float] | None = None,
        pressure: Callable[[], float] | None = None,
        known: Callable[[Any], bool] | None = None,
        workers: int = 2,
        window: int = 256,
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        given: dict[str, Any] = {
            "load": load,
            "features": features,
            "cost": cost,
            "size": size,
        }
        given |= {"pressure": pressure, "known": known, "timer": timer}
        for name, function in given.items():
            if not callable(function) and (
                function is not None or name in ("load", "timer")
            ):
                raise TypeError(f"{name} must be callable, not {function!r}")
        if model is None:
            model = MarkovModel(features=features)
        elif features is not None:
            raise ValueError("features are for the default model: give the model them")
        elif not (hasattr(model, "record") and hasattr(model, "predict")):
            raise TypeError(f"model must have record() and predict(), not {model!r}")
        if not 0 <= confidence <= 1:
            raise ValueError(f"confidence must be from 0 to 1, not {confidence!r}")
        self.model: AccessModel = model
        self.version = 0  # counts what was discarded
        self.asynchronous = inspect.iscoroutinefunction(load)
        self._load, self._timer = load, timer
        self._cost_of, self._size_of = cost, size
        self._pressure, self._known = pressure, known
        self._ahead = _arguments.count("ahead", ahead, 1, 64)
        self._workers = _arguments.count("workers", workers, 1, 1024)
        self._window = _arguments.count("window", window, 16, 1 << 30)
        self._confidence = confidence
        probation = _arguments.count("probation", probation, 1, 1 << 30)
        # The thread's start and the end; what is loaded, against discard(); figures
        # that the workers change. Made before the locks of the caches it is outside of.
        self._guard = new_rlock()
        # Key: (window of its load, value). What is lost from it was loaded in vain.
        self._probation: Any = LRUCache(probation, on_evict=self._on_evict)
        self._shadow: Any = LRUCache(probation)  # plans that were not carried out
        self._flights: dict[Any, Any] = {}  # an Event or a Task each
        self._events: deque[Any] = deque()
        self._wake: SimpleQueue[Any] = SimpleQueue()
        self._unwoken = 0
        self._thread: threading.Thread | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._scheduled = self._closed = False
        self._counts = [0, 0, 0]  # of HIT, USED, MISS
        self._loads = self._wasted = self._errors = self._switches = 0
        self._unnoted = [0, 0, 0]  # of these, while the planner was far behind
        self._waited_unnoted = 0.0
        self._waited = 0.0
        self._cost = 0.0  # of a load: an exponential mean
        self._enabled = True
        self._nap = 0  # windows to sleep on
        self._sleep = 1  # windows to sleep the next time
        self._losses = 0  # windows in a row
        self._begin_window(0)
        _living.add(self)

    # ---- The foreground ----

    def get(self, key: Hashable) -> Any:
        """The value of *key*: as loaded ahead, else loaded now. For a plain ``load``.

        Raises
        ------
        TypeError
            ``load`` is a coroutine function.
        Exception
            Whatever ``load`` raises.
        """
        start = self._timer()
        value = self.take(key, MISSING)
        outcome = USED
        if value is MISSING:
            outcome, value = MISS, self._load(key)
        self.record(key, outcome, self._timer() - start)
        return value

    def take(self, key: Hashable, default: Any = None) -> Any:
        """What was loaded ahead for *key*, to be kept by the caller, or *default*.

        A load of it that is under way is waited for: it is done sooner than a new one.
        One that waits for a worker is dropped.

        Raises
        ------
        TypeError
            ``load`` is a coroutine function.
        """
        if self.asynchronous:
            raise TypeError("load is a coroutine function: await atake()")
        flight = self._flights.get(key)
        if flight is not None:
            if flight.claimed():
                self._land(key, flight)
            flight.wait()
        return self._probation.pop(key, (0, default))[1]

    async def atake(self, key: Hashable, default: Any = None) -> Any:
        """As :meth:`take`, on the event loop."""
        flight = self._flights.get(key)
        if flight is not None:
            await asyncio.wait([flight])
        return self._probation.pop(key, (0, default))[1]

    def record(self, key: Hashable, outcome: int = HIT, waited: float = 0.0) -> None:
        """Note an access.

        Parameters
        ----------
        key : hashable
        outcome : int, optional
            0: it was in the cache. 1: it was loaded ahead. 2: it had to be loaded.
        waited : float, optional
            Seconds that its reader waited.
        """
        if len(self._events) >= BACKLOG:
            with self._guard:
                self._unnoted[outcome] += 1
                self._waited_unnoted += waited
            return
        self._events.append((key, outcome, waited))
        self._unwoken += 1
        if outcome == HIT and self._unwoken < WAKE_EVERY:
            return
        self._unwoken = 0
        if self.asynchronous:
            if not self._scheduled and not self._closed:
                self._scheduled = True
                asyncio.get_running_loop().call_soon(self._plan_on_loop)
            return
        if self._thread is None:
            self._begin()
        self._wake.put(None)

    def keep(self, version: int, store: Callable[[], Any]) -> None:
        """Call *store* unless something was discarded since *version* was read."""
        with self._guard:
            if self.version == version:
                store()

    def discard(self, key: Hashable) -> None:
        """Forget what was loaded for *key*, or is being loaded: it is out of date."""
        with self._guard:
            self.version += 1
            flight = self._flights.pop(key, None)
            self._probation.pop(key, None)
        if isinstance(flight, _Flight) and flight.claimed():
            flight.set()

    def flush(self, timeout: float | None = 10.0) -> bool:
        """Wait until the planner and its loads are done with what was recorded.

        Returns
        -------
        bool
            Whether they are, rather than *timeout* seconds over. Always False for a
            coroutine function with loads under way: await something instead.
        """
        if self.asynchronous:
            self._step()
            return not self._flights
        if self._closed:
            return True
        if self._thread is None:
            self._begin()
        end = None if timeout is None else time.monotonic() + timeout
        done = threading.Event()
        self._wake.put(done)
        if not done.wait(timeout):
            return False
        for flight in list(self._flights.values()):
            if not flight.wait(None if end is None else max(0, end - time.monotonic())):
                return False
        return True

    def disable(self) -> None:
        """Only count, for good: load nothing ahead and learn nothing."""
        self._enabled, self._nap = False, 1 << 62

    def close(self) -> None:
        """End the planner and wait for its loads. What is loaded can still be taken."""
        with self._guard:
            self._closed = True
            thread, self._thread = self._thread, None
            pool, self._pool = self._pool, None
        if thread is not None:
            self._wake.put(MISSING)
            thread.join()
        if pool is not None:
            pool.shutdown(cancel_futures=True)
        for flight in list(self._flights.values()):
            if self.asynchronous:
                flight.cancel()
            else:
                flight.set()
        self._flights.clear()

    def __enter__(self) -> "Prefetcher":
        return self

    def __exit__(self, exc_type: Any, exc: Any, tb: Any) -> None:
        self.close()

    def stats(self) -> PrefetchStats:
        """What it did up to the last access that the planner has seen."""
        waited = self._waited + self._waited_unnoted
        hits, used, misses = map(int.__add__, self._counts, self._unnoted)
        accesses = hits + used + misses
        share = max(accesses, 1)
        return PrefetchStats(
            accesses=accesses,
            hits=hits,
            used=used,
            misses=misses,
            loads=self._loads,
            wasted=self._wasted,
            errors=self._errors,
            unnoted=sum(self._unnoted),
            enabled=self._enabled,
            switches=self._switches,
            hit_rate=(hits + used) / share,
            hit_rate_without=hits / share,
            latency=waited / share,
            latency_without=(waited + used * self._cost) / share,
        )

    # ---- The planner: one thread, or the event loop ----

    def _begin(self) -> None:
        with self._guard:
            if self._thread is None and not self._closed:
                self._pool = ThreadPoolExecutor(self._workers, "ctxpool-prefetch")
                # It holds no reference while it waits, and ends with the prefetcher.
                weakref.finalize(self, self._wake.put, MISSING)
                self._thread = threading.Thread(
                    target=_planner,
                    args=(weakref.ref(self), self._wake),
                    name="ctxpool-planner",
                    daemon=True,
                )
                self._thread.start()

    def _turn(self) -> None:
        while True:
            for key in self._step():
                flight = self._flights[key] = _Flight()
                pool = self._pool
                try:
                    if pool is None:
                        raise RuntimeError("closed")
                    pool.submit(self._load_ahead, key, flight)
                except RuntimeError:  # closed meanwhile, or the interpreter ends
                    self._land(key, flight)
            if not self._events:
                return
            time.sleep(0)  # let a reader have the interpreter

    def _land(self, key: Any, flight: _Flight) -> None:
        """The load is over, or never was."""
        with self._guard:
            if self._flights.get(key) is flight:
                del self._flights[key]
        flight.set()

    def _load_ahead(self, key: Any, flight: _Flight) -> None:
        if not flight.claimed():
            return
        self._begun()
        start = self._timer()
        try:
            value = self._load(key)
        except Exception:
            self._failed()
        else:
            self._landed(key, flight, value, self._timer() - start)
        finally:
            self._land(key, flight)

    def _plan_on_loop(self) -> None:
        self._scheduled = False
        if self._closed:
            return
        for key in self._step():
            self._flights[key] = asyncio.ensure_future(self._aload_ahead(key))

    async def _aload_ahead(self, key: Any) -> None:
        flight = asyncio.current_task()
        self._begun()
        start = self._timer()
        try:
            value = await self._load(key)
            self._landed(key, flight, value, self._timer() - start)
        except Exception:
            self._failed()
        finally:
            if self._flights.get(key) is flight:
                del self._flights[key]

    def _landed(self, key: Any, flight: Any, value: Any, seconds: float) -> None:
        self._learn_cost(seconds)
        with self._guard:
            if self._flights.get(key) is flight:  # else discarded meanwhile
                self._probation[key] = (self._number, value)

    def _begun(self) -> None:
        with self._guard:
            self._loads += 1

    def _failed(self) -> None:
        with self._guard:
            self._errors += 1

    def _learn_cost(self, seconds: float) -> None:
        with self._guard:
            self._cost += (seconds - self._cost) / (16 if self._cost else 1)

    def _on_evict(self, key: Any, value: Any, reason: str) -> None:
        self._wasted += 1
        self._in_vain += 1

    def _step(self) -> list[Any]:
        """Learn from what was noted; the keys to be loaded now."""
        events, planned = self._events, False
        start = time.thread_time()
        try:
            for _ in range(min(len(events), STEP)):
                key, outcome, waited = events.popleft()
                self._note(key, outcome, waited)
                planned = True
            keys = self._plan() if planned and self._nap == 0 else []
        except Exception as error:  # of the model or a callable
            _unraisable.report(error)
            return []
        self._busy_for += time.thread_time() - start
        if not self._enabled:
            for key in keys:
                self._shadow[key] = None
                self._tried += 1
            return []
        self._tried += len(keys)
        return keys

    def _note(self, key: Any, outcome: int, waited: float) -> None:
        self._counts[outcome] += 1
        self._waited += waited
        if outcome == MISS:
            self._learn_cost(waited)
            if self._shadow.pop(key, MISSING) is not MISSING:
                self._paid += 1
        elif outcome == USED:
            self._paid += 1
        if self._nap == 0:
            self.model.record(key)
        if sum(self._counts) % self._window == 0:
            self._end_window()

    def _plan(self) -> list[Any]:
        room = 2 * self._workers - len(self._flights)
        if room <= 0:
            return []
        chances = dict(self.model.predict(self._ahead))
        follow = getattr(self.model, "follow", None)
        if follow is not None and self._ahead > 1:
            for key, chance in follow(self._ahead):
                chances[key] = max(chance, chances.get(key, 0.0))
        byte = 0.0 if self._pressure is None else self._pressure()
        ranked: list[tuple[float, int, Any]] = []
        for key, chance in chances.items():
            if chance < self._confidence or key in self._flights:
                continue
            if key in self._probation or (self._known is not None and self._known(key)):
                continue
            cost = self._cost if self._cost_of is None else self._cost_of(key)
            size = 0.0 if self._size_of is None else self._size_of(key)
            worth = chance * cost - size * byte
            if worth > 0:
                ranked.append((worth, len(ranked), key))
        ranked.sort(reverse=True)
        return [key for _, _, key in ranked[: min(room, self._ahead)]]

    # ---- Does it pay? ----

    def _begin_window(self, number: int) -> None:
        self._number = number
        self._paid = self._in_vain = self._tried = 0
        self._busy_for = 0.0

    def _end_window(self) -> None:
        for key, (number, _) in self._probation.items():
            if number < self._number - 1 and self._probation.pop(key, None) is not None:
                self._wasted += 1
                self._in_vain += 1
        if self._nap:
            self._nap -= 1
        else:
            vain = self._in_vain if self._enabled else self._tried - self._paid
            gain = self._paid * self._cost
            loss = vain * self._cost * VAIN + self._busy_for
            won = gain >= loss if self._enabled else gain > WIN * loss
            self._losses = 0 if won else self._losses + 1
            if won and not self._enabled:
                self._switch(True)
                self._sleep = 1
            elif self._losses >= LOSSES:
                if self._enabled:
                    self._switch(False)
                self._losses = 0
                self._nap, self._sleep = self._sleep, min(2 * self._sleep, SLEEP)
                forget = getattr(self.model, "forget_position", None)
                if forget is not None:
                    forget()
        self._begin_window(self._number + 1)

    def _switch(self, enabled: bool) -> None:
        self._enabled = enabled
        self._switches += 1
        self._shadow.clear()
