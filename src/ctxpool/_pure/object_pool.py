"""The object pool in Python: what ``_native/object_pool.pyx`` does, slower."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Generic, NoReturn, SupportsIndex, TypeVar

from ctxpool import _object_support as support
from ctxpool import _unraisable
from ctxpool._pure.locks import new_lock
from ctxpool._pure.object_lease import (
    DEAD,
    HELD,
    PENDING,
    RESERVED,
    Entry,
    ObjectLease,
    make_lease,
)
from ctxpool._waiting import TaskWaiter, Waiter
from ctxpool.stats import ObjectPoolStats, PooledObject

__all__ = ["ObjectLease", "ObjectPool"]

T = TypeVar("T")


class _Locked:
    """The lock of a pool's tables. A lease that is finalized while it is held, in this
    very thread perhaps, is put down, and seen to at its end."""

    __slots__ = ("_pool",)

    def __init__(self, pool: ObjectPool[Any]) -> None:
        self._pool = pool

    def __enter__(self) -> None:
        self._pool._lock.acquire()

    def __exit__(self, *exc: object) -> None:
        self._pool._lock.release()
        if self._pool._dropped:
            self._pool._settle()


class ObjectPool(Generic[T]):
    """Objects that are expensive to make, lent out one by one and used again.

    Connections, parsers, compressors, sessions: whatever takes longer to make than
    about a microsecond, may be used by one at a time, and can be used again.

    Parameters
    ----------
    factory : callable
        Makes an object, without arguments. It, *reset*, *validate* and *dispose* may
        be coroutine functions: the pool then belongs to the event loop that uses it
        first, and its objects are acquired by ``async with`` and ``await`` alone.
    initial_size : int
        Objects to make now; if the factory is a coroutine function, at
        ``async with pool``.
    max_size : int
        Objects that may exist. One that is being made or disposed of counts.
    reset : callable, optional
        Called with an object that comes back, before anybody else gets it. If it
        raises, the error goes to :func:`sys.unraisablehook`, and the object is
        disposed of.
    validate : callable, optional
        Called with an idle object before it is handed out: whether it is still good.
        If it returns something false, or raises, the object is replaced.
    dispose : callable, optional
        Called with an object that the pool lets go of. Its errors go to
        :func:`sys.unraisablehook`.
    min_size : int
        Objects that are not evicted for being idle.
    timeout : float, optional
        Seconds that an acquire waits for an object that is out: 30, and not without
        end unless you give None.
    lifo : bool
        Whether the object that came back last goes out first: it is the warmest, and
        the others can grow old enough to be evicted. Else the one that came first.
    max_age : float, optional
        Seconds after which an object is replaced, whatever its use.
    max_idle : float, optional
        Seconds without use after which an object is evicted.
    cleanup_interval : float, optional
        Seconds between the rounds of a thread that evicts, which all pools share. It
        comes more often where *max_age*, *max_idle* or *leak_after* are shorter. With
        None it comes only for these.
    leak_after : float, optional
        Seconds after which an object that is still out counts as leaked. Costs about a
        microsecond an acquire, for the place where it was.
    on_leak : callable, optional
        Called once for such an object with it, the seconds, and the place,
        ``"file:line in function"``; from the thread that evicts. By default a
        ResourceWarning.
    name : str, optional
        For errors and statistics.
    clock : callable, optional
        Gives the time in seconds; :func:`time.monotonic` by default.

    Raises
    ------
    TypeError, ValueError
        An argument is of the wrong kind, or out of range.

    Notes
    -----
    Acquire and release are O(1). Who waits is served in turn, threads and tasks in one
    queue; who stops waiting, by timeout or cancellation, passes on what he was handed.
    A factory that raises, an object that fails, a lease that is dropped lose no slot:
    the next who waits gets it.

    **Thread-safety**: each call is atomic, from any thread, and without coroutine
    functions from any event loop. Callbacks run outside of all locks and may use the
    pool. A forked child has an empty pool of its own: it neither uses nor finalizes
    what the parent's holds. A pool that is dropped disposes of its idle objects.

    Where it does not pay: objects that are made in less than a microsecond, and state
    that one thread keeps for itself anyway (``threading.local``).

    Examples
    --------
    >>> pool = ObjectPool(bytearray, max_size=2, reset=bytearray.clear)
    >>> with pool.acquire() as buffer:
    ...     buffer += b"hello"
    ...     pool.in_use
    1
    >>> with pool.acquire() as again:
    ...     again is buffer, len(again)
    (True, 0)
    >>> pool.stats().created
    1
    """

    __slots__ = (
        "__weakref__",
        "_acquires",
        "_by_id",
        "_closed",
        "_counts",
        "_dropped",
        "_idle",
        "_lock",
        "_out",
        "_peak",
        "_releases",
        "_reserved",
        "_settings",
        "_settling",
        "_waiters",
    )

    def __init_subclass__(cls) -> None:
        raise TypeError("type 'ctxpool.ObjectPool' is not an acceptable base type")

    def __init__(
        self,
        factory: Callable[[], T | Awaitable[T]],
        initial_size: SupportsIndex = 0,
        max_size: SupportsIndex = 100,
        *,
        reset: Callable[[T], Any] | None = None,
        validate: Callable[[T], Any] | None = None,
        dispose: Callable[[T], Any] | None = None,
        min_size: SupportsIndex = 0,
        timeout: float | None = 30.0,
        lifo: bool = True,
        max_age: float | None = None,
        max_idle: float | None = 600.0,
        cleanup_interval: float | None = 300.0,
        leak_after: float | None = None,
        on_leak: Callable[[T, float, str], Any] | None = None,
        name: str | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        if hasattr(self, "_settings"):
            raise RuntimeError("this pool is made already: make another")
        settings = support.Settings(
            factory, initial_size, max_size, reset, validate, dispose, min_size,
            timeout, lifo, max_age, max_idle, cleanup_interval, leak_after, on_leak,
            name, clock,
        )  # fmt: skip
        self._lock = new_lock()
        self._dropped: deque[tuple[int, Entry | None]] = deque()
        self._settling = False
        self._waiters: deque[Waiter | TaskWaiter] = deque()
        self._by_id: dict[int, list[Entry]] = {}
        # In the order they came in: the oldest is the first.
        self._idle: dict[Entry, None] = {}
        self._out: dict[Entry, None] = {}
        self._reserved = self._peak = self._acquires = self._releases = 0
        self._counts = [0] * len(support.COUNTS)
        self._closed = False
        self._settings = settings
        support.open_pool(self)

    # -- acquire and release -----------------------------------------------------------

    def acquire(self, timeout: float | None = None) -> ObjectLease[T]:
        """A lease of an object: the idle one that came back last, or else a new one.

        O(1), and what *validate* or the factory take. ``with pool.acquire() as obj``
        gives the object, as does ``async with``: in a thread that runs an event loop
        nothing waits but what awaits. There a lease that can't be had at once is still
        to be awaited, and is had by ``async with`` or ``await``.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait if all objects are out; 0 for not at all, the pool's own by
            default.

        Returns
        -------
        ObjectLease

        Raises
        ------
        PoolTimeoutError
            No object became free in time.
        PoolClosedError
            The pool is closed.
        TypeError
            The pool has coroutine functions, and no event loop runs here.
        Exception
            Whatever the factory raises.
        """
        entry = self._take()
        if entry is not None:
            return make_lease(self, HELD, entry)
        lease = support.acquire(self, timeout, False)
        return make_lease(self, PENDING, None, timeout) if lease is None else lease

    def acquire_async(self, timeout: float | None = None) -> ObjectLease[T]:
        """A lease for ``async with`` or ``await``: what waits is a task, no thread.

        As :meth:`acquire` otherwise, but all errors come from the ``await``.
        """
        entry = self._take()
        if entry is not None:
            return make_lease(self, HELD, entry)
        return make_lease(self, PENDING, None, timeout)

    def get(self, timeout: float | None = None) -> T:
        """An object without a lease, to be given back by :meth:`put`.

        Quicker, and less safe: an object that is dropped is lost to the pool. This
        thread waits, whether it runs an event loop or not. Errors as :meth:`acquire`.
        """
        entry = self._take()
        if entry is None:
            lease = support.acquire(self, timeout, True)
            entry = lease._detach()
        entry.by_lease = False
        return entry.object  # type: ignore[no-any-return]

    def put(self, obj: T) -> None:
        """Give back an object that :meth:`get` gave. O(1), and the pool's *reset*.

        Raises
        ------
        ValueError
            It is not out by :meth:`get`: it was put back before, belongs to a lease,
            or is none of the pool's.
        """
        entry = self._got(obj)
        if not self._put_back(entry):
            support.give_back(self, make_lease(self, HELD, entry))

    def discard(self, obj: T) -> None:
        """Dispose of an object that :meth:`get` gave, instead of putting it back.

        Raises
        ------
        ValueError
            As :meth:`put`.
        """
        support.discard(self, make_lease(self, HELD, self._got(obj)))

    # -- the pool's life ---------------------------------------------------------------

    def evict(self) -> int:
        """Dispose now of idle objects that are too old, or were idle for too long.

        What the shared thread does from time to time. O(idle objects) and *dispose*.

        Returns
        -------
        int
            How many.
        """
        return support.evict(self)

    def close(self) -> None:
        """Hand out nothing more, and dispose of the idle objects.

        Those that are out are disposed of when they come back. Who waits gets
        :class:`~ctxpool.errors.PoolClosedError`. Closing twice does nothing.
        """
        support.close(self)

    async def aclose(self) -> None:
        """As :meth:`close`, and wait for what coroutine functions have to do."""
        await support.close_in_task(self)

    def stats(self) -> ObjectPoolStats:
        """What the pool counts, at this moment."""
        with self._locked:
            numbers = (
                self._size(),
                len(self._idle),
                len(self._out),
                len(self._waiters),
                self._peak,
                self._acquires,
                self._releases,
            )
            counts = tuple(self._counts)
        return support.statistics(self, numbers, counts)

    def objects(self) -> list[PooledObject]:
        """What is known of each object, idle ones first, the oldest use first. O(n)."""
        with self._locked:
            found = [
                (e.object, e.created, e.since, e.uses, out, e.place if out else None)
                for out, entries in ((False, self._idle), (True, self._out))
                for e in entries
            ]
        return support.described(self, found)

    def check(self) -> None:
        """Walk the pool's invariants; AssertionError where one is broken. For tests."""
        with self._locked:
            entries = [*self._idle, *self._out]
            known = [e for same in self._by_id.values() for e in same]
            right = (
                len(entries) == len(set(entries)) == len(known)
                and set(entries) == set(known)
                and self._reserved >= 0
                and self._size() <= self._settings.max_size
                and len(self._out) == self._acquires - self._releases
                and len(self._out) <= self._peak
            )
            stalled = self._waiters and (
                self._idle or self._size() < self._settings.max_size
            )
        if not right:
            raise AssertionError("the pool's counts are wrong")
        if stalled:
            raise AssertionError("somebody waits for what is there")

    @property
    def name(self) -> str | None:
        """The pool's name."""
        return self._settings.name

    @property
    def max_size(self) -> int:
        """Objects that may exist."""
        return self._settings.max_size

    @property
    def size(self) -> int:
        """Objects that exist, or are being made or disposed of."""
        return self._size()

    @property
    def idle(self) -> int:
        """Objects that wait in the pool."""
        return len(self._idle)

    @property
    def in_use(self) -> int:
        """Objects that are out."""
        return len(self._out)

    @property
    def closed(self) -> bool:
        """Whether the pool was closed."""
        return self._closed

    def __enter__(self) -> ObjectPool[T]:
        if self._closed:
            raise support.closed_error(self._settings)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> ObjectPool[T]:
        await support.open_in_task(self)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        await support.close_in_task(self)

    def __repr__(self) -> str:
        name = "" if self.name is None else f"name={self.name!r}, "
        closed = ", closed" if self._closed else ""
        return (
            f"<ObjectPool {name}max_size={self.max_size}, idle={self.idle}, "
            f"in_use={self.in_use}{closed}>"
        )

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "cannot pickle an ObjectPool: its objects are good in this process only"
        )

    def __del__(self) -> None:
        if hasattr(self, "_settings") and not self._closed:
            self._closed = True
            objects = [entry.object for entry in self._idle]
            self._idle.clear()
            support.finalize(self._settings, objects)

    # -- the hot path ------------------------------------------------------------------

    @property
    def _locked(self) -> _Locked:
        return _Locked(self)  # kept, it would make a cycle

    def _now(self) -> float:
        """The time, or nan where the user's clock raises."""
        try:
            return self._settings.clock()
        except Exception as error:
            _unraisable.report(error)
            return math.nan

    def _take(self) -> Entry | None:
        """An idle object that nobody has to look at first, or None."""
        settings = self._settings
        if settings.validate is not None or settings.leak_after != math.inf:
            return None
        if settings.is_async and not support.is_bound_here(settings):
            return None
        now = self._now()
        with self._locked:
            if self._closed or self._waiters or not self._idle:
                return None
            if now - self._next().created >= settings.max_age:
                return None
            return self._take_idle(now)

    def _next(self) -> Entry:
        return next(reversed(self._idle) if self._settings.lifo else iter(self._idle))

    def _take_idle(self, now: float) -> Entry:
        entry = self._next()
        del self._idle[entry]
        self._send_out(entry, now)
        return entry

    def _send_out(self, entry: Entry, now: float) -> None:
        self._out[entry] = None
        entry.since = now
        entry.uses += 1
        entry.by_lease, entry.told, entry.place = True, False, None
        self._acquires += 1
        self._peak = max(self._peak, len(self._out))

    def _put_back(self, entry: Entry) -> bool:
        """Whether an object that is out could be made idle without more ado."""
        if entry.foreign:
            return True
        return self._settings.reset is None and self._make_idle(entry)

    def _make_idle(self, entry: Entry) -> bool:
        now = self._now()
        with self._locked:
            if self._closed:
                return False
            del self._out[entry]
            self._idle[entry] = None
            entry.since, entry.by_lease = now, True
            self._releases += 1
        self._pass_on()
        return True

    def _got(self, obj: Any) -> Entry:
        """The entry of an object that is out by :meth:`get`, and is so no more."""
        with self._locked:
            same = self._by_id.get(id(obj), ())
            for entry in same:
                if not entry.by_lease:
                    entry.by_lease = True
                    return entry
            leased = any(entry in self._out for entry in same)
        if leased:
            raise ValueError(f"{obj!r} is out by a lease: release that")
        if same:
            raise ValueError(f"{obj!r} was put back before")
        raise ValueError(f"{obj!r} is no object of {self._settings.label}")

    def _settle(self) -> None:
        """See to the leases that were dropped, unless the lock is held: by this very
        thread perhaps, in a finalizer, or by one that will see to them."""
        while self._dropped and not self._settling:
            if not self._lock.acquire(blocking=False):
                return
            self._settling = True
            self._lock.release()
            try:
                while self._dropped:
                    self._settle_one()
            except IndexError:  # another thread was faster
                pass
            finally:
                self._settling = False

    def _settle_one(self) -> None:
        state, entry = self._dropped.popleft()
        try:
            if state == RESERVED:
                self._free(make_lease(self, RESERVED))
            elif entry is not None and not self._put_back(entry):
                support.give_back(self, make_lease(self, HELD, entry))
        except BaseException as error:  # as of any finalizer
            _unraisable.report(error)

    def _pass_on(self) -> None:
        """What there is to those who wait, first come, first served."""
        while self._waiters:
            now = self._now()
            with self._locked:
                lease = self._claim_locked(now)
            if lease is None:
                return
            handed = False
            while not handed:
                with self._locked:
                    waiter = self._waiters.popleft() if self._waiters else None
                if waiter is None:
                    self._unclaim(lease)
                    return
                handed = not waiter.gone and waiter.hand(lease)

    # -- what ctxpool._waiting and ctxpool._object_support ask of a pool ---------------

    def _size(self) -> int:
        return len(self._idle) + len(self._out) + self._reserved

    def _claim_locked(self, now: float) -> ObjectLease[T] | None:
        if self._closed:
            return None
        if self._idle:
            return make_lease(self, HELD, self._take_idle(now))
        if self._size() < self._settings.max_size:
            self._reserved += 1
            return make_lease(self, RESERVED)
        return None

    def _claim(self) -> ObjectLease[T] | None:
        now = self._now()
        with self._locked:
            if not self._closed:
                return None if self._waiters else self._claim_locked(now)
        raise support.closed_error(self._settings)

    def _unclaim(self, lease: ObjectLease[T]) -> None:
        """Undo a claim, of an object that nobody saw."""
        if lease._state == RESERVED:
            self._free(lease)
        elif lease._state == HELD and not self._make_idle(entry := lease._detach()):
            support.discard(self, make_lease(self, HELD, entry))

    def _renew(self, lease: ObjectLease[T]) -> ObjectLease[T]:
        """What another thread handed over, in a lease of this thread's own.

        Without the GIL the last reference to an object that another thread made may
        have to wait for that thread, and that thread for what the lease holds.
        """
        fresh: ObjectLease[T] = make_lease(self, lease._state, lease._entry)
        lease._state, lease._entry = DEAD, None
        return fresh

    def _reserve(self, size: int) -> ObjectLease[T] | None:
        with self._locked:
            if self._closed or self._size() >= size:
                return None
            self._reserved += 1
            return make_lease(self, RESERVED)

    def _enqueue(self, waiter: Waiter | TaskWaiter) -> None:
        now = self._now()
        with self._locked:
            if self._closed:
                raise support.closed_error(self._settings)
            self._counts[support.WAITS] += 1
            if not self._waiters:  # one may have come back just now
                waiter.index = self._claim_locked(now)
            if waiter.index is None:
                self._waiters.append(waiter)

    def _withdraw(self, waiter: Waiter | TaskWaiter) -> None:
        with self._locked:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def _take_back(self, lease: ObjectLease[T]) -> None:
        self._unclaim(lease)
        self._pass_on()

    def _give_up(self, patience: float) -> NoReturn:
        support.give_up(self, patience)

    def _fill(self, lease: ObjectLease[T], obj: T) -> bool:
        return self._store(lease, obj, False)

    def _stock(self, lease: ObjectLease[T], obj: T) -> bool:
        stored = self._store(lease, obj, True)
        self._pass_on()
        return stored

    def _store(self, lease: ObjectLease[T], obj: T, idle: bool) -> bool:
        now = self._now()
        with self._locked:
            if self._closed:
                return False
            entry = Entry(obj, now)
            self._by_id.setdefault(id(obj), []).append(entry)
            self._reserved -= self._reserved > 0
            if idle:
                self._idle[entry] = None
                lease._state = DEAD
            else:
                self._send_out(entry, now)
                lease._state, lease._entry = HELD, entry
        return True

    def _forget_entry(self, entry: Entry) -> None:
        same = self._by_id[id(entry.object)]
        same.remove(entry)
        if not same:
            del self._by_id[id(entry.object)]

    def _empty(self, lease: ObjectLease[T]) -> T:
        with self._locked:
            entry = lease._entry
            assert lease._state == HELD
            assert entry is not None
            lease._state, lease._entry = RESERVED, None
            del self._out[entry]
            self._forget_entry(entry)
            self._releases += 1
            self._reserved += 1
        return entry.object  # type: ignore[no-any-return]

    def _push(self, lease: ObjectLease[T]) -> bool:
        entry = lease._entry
        assert entry is not None
        if not self._make_idle(entry):
            return False
        lease._state, lease._entry = DEAD, None
        return True

    def _free(self, lease: ObjectLease[T]) -> None:
        with self._locked:
            if lease._state == RESERVED:
                lease._state = DEAD
                self._reserved -= self._reserved > 0  # 0: forked in the factory
        self._pass_on()

    def _age(self, lease: ObjectLease[T]) -> float:
        entry = lease._entry
        assert entry is not None
        return self._now() - entry.created

    def _mark(self, lease: ObjectLease[T], place: str) -> None:
        entry = lease._entry
        assert entry is not None
        entry.place = place

    def _tally(self, count: int) -> None:
        with self._locked:
            self._counts[count] += 1

    def _pop_expired(self, now: float) -> tuple[ObjectLease[T], T] | None:
        settings = self._settings
        with self._locked:
            for entry in self._idle:
                if now == math.inf:
                    break
                if now - entry.created >= settings.max_age:
                    self._counts[support.EXPIRED] += 1
                    break
                if (
                    now - entry.since >= settings.max_idle
                    and self._size() > settings.min_size
                ):
                    self._counts[support.EVICTED] += 1
                    break
            else:
                return None
            del self._idle[entry]
            self._forget_entry(entry)
            self._reserved += 1
            return make_lease(self, RESERVED), entry.object

    def _overdue(self, now: float) -> list[tuple[T, float, str | None]]:
        found = []
        with self._locked:
            for entry in self._out:
                if now - entry.since < self._settings.leak_after:
                    break
                if not entry.told:
                    entry.told = True
                    found.append((entry.object, entry.since, entry.place))
        return found

    def _bound(self, loop: Any) -> None:
        pass  # the settings have it

    def _shut(self) -> list[Waiter | TaskWaiter]:
        with self._locked:
            self._closed = True
            waiters = list(self._waiters)
            self._waiters.clear()
        return waiters

    def _forget(self) -> list[Any]:
        """In a forked child, where this thread is the only one."""
        objects = [entry.object for entry in (*self._idle, *self._out)]
        for entry in self._out:
            entry.foreign = True
        for table in (self._idle, self._out, self._by_id, self._waiters, self._dropped):
            table.clear()
        self._reserved = 0
        self._releases = self._acquires
        self._settling = False
        return objects
