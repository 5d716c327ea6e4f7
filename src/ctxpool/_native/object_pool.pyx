# cython: freethreading_compatible=True
# cython: binding=False, embedsignature=True, embedsignature.format=clinic
# cython: boundscheck=False, wraparound=False, initializedcheck=False
"""The object pool: slots and leases in C, all else in ctxpool._object_support.

A pool owns its objects, idle or out, through the entries of object_pool_impl.h; a
lease borrows the entry, and keeps the pool alive. A lease is its own awaitable:
``async with`` that need not wait makes no coroutine.
"""

cimport cython
from cpython.exc cimport PyErr_Fetch, PyErr_Restore
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF
from libc.math cimport INFINITY, NAN
from libc.stdint cimport uint64_t, uint8_t
from libc.string cimport memset

from asyncio import _get_running_loop
from collections import deque
from collections.abc import Coroutine
from types import GenericAlias

from ctxpool import _object_support as support
from ctxpool import _unraisable
from ctxpool.errors import LeaseError

cdef extern from "critical.h":
    void cxp_unlock_after_fork(object self)

cdef extern from "object_pool_impl.h":
    ctypedef struct cxp_entry:
        cxp_entry *prev
        cxp_entry *next
        cxp_entry *same
        PyObject *obj
        PyObject *place
        double created
        double since
        uint64_t uses
        uint8_t out
        uint8_t by_lease
        uint8_t told
        uint8_t foreign
    ctypedef struct cxp_slots:
        cxp_entry idle
        cxp_entry out
        Py_ssize_t n_idle
        Py_ssize_t n_out
        Py_ssize_t n_reserved
        Py_ssize_t peak
        Py_ssize_t waiting
        Py_ssize_t max_size
        Py_ssize_t min_size
        uint64_t acquires
        uint64_t releases
        double max_age
        double max_idle
        int closed
        int lifo
    const int CXP_HAS_GIL
    void cxp_slots_empty(cxp_slots *s)
    void cxp_entry_unlink(cxp_entry *e)
    void cxp_entry_link(cxp_entry *list, cxp_entry *e)
    Py_ssize_t cxp_slots_size(const cxp_slots *s)
    void cxp_slots_send(cxp_slots *s, cxp_entry *e, double now)
    cxp_entry *cxp_slots_take(cxp_slots *s, double now)
    int cxp_slots_give(cxp_slots *s, cxp_entry *e, double now)
    cxp_entry *cxp_locked_take(PyObject *pool, cxp_slots *s, double now)
    bint cxp_locked_give(PyObject *pool, cxp_slots *s, cxp_entry *e, double now)
    double cxp_monotonic()
    int cxp_slots_check(const cxp_slots *s)
    PyObject *cxp_lease_reborn()
    void cxp_lease_died(PyObject *lease)
    void cxp_lease_slots(object type, void (*dealloc)(PyObject *) noexcept,
                         void (*finalize)(PyObject *) noexcept)
    object cxp_new_reference(PyObject *op)
    PyObject *cxp_stop_with(PyObject *value)
    PyObject *cxp_stop(PyObject *self)
    void cxp_set_next(object type, PyObject *(*next)(PyObject *) noexcept)
    void cxp_pool_slots(object type, object specimen, cxp_slots *slots)

cdef extern from "Python.h":
    void PyObject_GC_UnTrack(PyObject *op)

cdef enum:
    PENDING
    RESERVED
    HELD
    DEAD

cdef int WAITS = support.WAITS
cdef int EXPIRED = support.EXPIRED
cdef int EVICTED = support.EVICTED


@cython.final
cdef class _Done:
    # What __aexit__ gives to await where nothing is left to wait for.

    def __await__(self):
        return self

    def __next__(self):  # replaced below by what costs less
        raise StopIteration


cdef _Done DONE = _Done()


# ---- Leases --------------------------------------------------------------------------

cdef ObjectLease blank(ObjectPool pool):
    """A lease of nothing yet."""
    cdef PyObject *op = cxp_lease_reborn()
    cdef ObjectLease lease
    if op == NULL:
        lease = ObjectLease.__new__(ObjectLease)
    else:
        lease = cxp_new_reference(op)
    lease.pool_ = pool
    lease.state = PENDING
    return lease


cdef void lease_finalize(PyObject *op) noexcept:
    """Give back what a lease holds that nobody reaches any more."""
    cdef int state = (<ObjectLease>op).state
    (<ObjectLease>op).state = DEAD
    if state == HELD or state == RESERVED:
        drop((<ObjectLease>op).pool_, state, (<ObjectLease>op).entry)


cdef void lease_dealloc(PyObject *op) noexcept:
    PyObject_GC_UnTrack(op)
    lease_finalize(op)
    (<ObjectLease>op).timeout_ = None
    (<ObjectLease>op).pool_ = None
    cxp_lease_died(op)


cdef void drop(ObjectPool pool, int state, cxp_entry *entry) noexcept:
    """From a finalizer, where an exception may be on its way."""
    cdef PyObject *kind
    cdef PyObject *value
    cdef PyObject *trace
    if state == HELD:
        if entry.foreign:
            return
        if not pool._slow_give and cxp_locked_give(
            <PyObject *>pool, &pool.s, entry, pool._now()
        ):
            if not pool.s.waiting:
                return
            entry = NULL
    PyErr_Fetch(&kind, &value, &trace)
    try:
        if state == RESERVED:
            pool._unreserve()
        elif entry == NULL:
            pool._pass_on()
        else:
            support.give_back(pool, holding(pool, entry))
    except BaseException as error:
        _unraisable.report(error)
    PyErr_Restore(kind, value, trace)


cdef ObjectLease holding(ObjectPool pool, cxp_entry *entry):
    cdef ObjectLease lease = blank(pool)
    lease.entry = entry
    lease.state = HELD
    return lease


cdef cxp_entry *detach(ObjectLease lease) except NULL:
    """What a lease holds; it is dead."""
    cdef cxp_entry *entry = NULL
    if CXP_HAS_GIL:
        if lease.state == HELD:
            lease.state = DEAD
            return lease.entry
    else:
        # The lease, against a thread that releases it too.
        with cython.critical_section(lease):
            if lease.state == HELD:
                lease.state = DEAD
                entry = lease.entry
        if entry != NULL:
            return entry
    lease._refuse()
    return NULL


cdef cxp_entry *held(ObjectLease lease) except NULL:
    if lease.state != HELD:
        lease._refuse()
    return lease.entry


cdef object put_back(ObjectPool pool, cxp_entry *entry):
    """An object that is out becomes idle; or the task that sees to it."""
    if entry.foreign:
        return None
    if pool._slow_give:
        if pool._reset is None or pool.s.closed:
            return support.give_back(pool, holding(pool, entry))
        # What restore() does, without a coroutine.
        try:
            result = pool._reset(<object>entry.obj)
            if result is not None and isinstance(result, Coroutine):
                raise support.coroutine_error(pool._settings, result)
        except BaseException as error:
            support.reset_failed(pool, holding(pool, entry), error)
            return None
    if not cxp_locked_give(<PyObject *>pool, &pool.s, entry, pool._now()):
        return support.give_back(pool, holding(pool, entry))
    if pool.s.waiting:
        pool._pass_on()
    return None


# Its pool has to be there when it dies; cycles are broken by the pool.
@cython.final
@cython.no_gc_clear
cdef class ObjectLease:
    """ObjectLease()
--

An object of a pool, held until it is released.

    Made by :meth:`ObjectPool.acquire` and :meth:`ObjectPool.acquire_async` only. It
    gives its object back on :meth:`release`, at the end of ``with`` or ``async with``
    (both give the object itself, not the lease), or when the last reference to the
    lease dies. A released lease is dead: its object may be somebody else's by then.

    A lease that is still to be awaited has no object yet; ``await lease`` gives the
    lease, with one.

    **Thread-safety**: each call is atomic. Two threads that release one lease: one of
    them gets the error.
    """

    cdef ObjectPool pool_
    cdef object timeout_
    cdef cxp_entry *entry    # borrowed from the pool
    cdef int state
    cdef bint entering       # what an await under way gives: the object, not the lease

    def __init__(self):
        raise TypeError("leases are made by ObjectPool.acquire()")

    cdef int _refuse(self) except -1:
        if self.state == PENDING:
            raise LeaseError(
                "the lease has no object yet: use `async with` or `await`"
            )
        raise LeaseError("the lease was released")

    cdef object _get(self):
        if CXP_HAS_GIL:
            if self.state == HELD and self.entry.obj != NULL:
                return <object>self.entry.obj
        else:
            # The lease, against a thread that releases it.
            with cython.critical_section(self):
                if self.state == HELD and self.entry.obj != NULL:
                    return <object>self.entry.obj
        self._refuse()

    @property
    def object(self):
        """The object; LeaseError where the lease has none. O(1)."""
        return self._get()

    @property
    def pool(self):
        """The pool that the object belongs to."""
        return self.pool_

    @property
    def released(self):
        """Whether the object was given back."""
        return self.state == DEAD

    def release(self):
        """Give the object back. O(1), and the pool's *reset*.

        In a pool with coroutine functions, what they do is done by a task.

        Raises
        ------
        LeaseError
            The lease has no object: it was released before, or is still to be awaited.
        """
        cdef cxp_entry *entry = detach(self)
        put_back(self.pool_, entry)

    def discard(self):
        """Dispose of the object, which is broken, instead of giving it back.

        Raises
        ------
        LeaseError
            The lease has no object.
        """
        cdef cxp_entry *entry = detach(self)
        if not entry.foreign:
            support.discard(self.pool_, holding(self.pool_, entry))

    def __enter__(self):
        if self.state == PENDING:
            self._adopt(support.acquire(self.pool_, self.timeout_, True))
        return self._get()

    def __exit__(self, exc_type, exc, tb):
        if self.state == HELD:
            put_back(self.pool_, detach(self))

    def __aenter__(self):
        if self.state == PENDING:
            return support.entered(self)
        if self.state != HELD:
            self._refuse()
        self.entering = True
        return self

    def __aexit__(self, exc_type, exc, tb):
        cdef object task = None
        if self.state == HELD:
            task = put_back(self.pool_, detach(self))
        return DONE if task is None else support.keep(task)

    def __await__(self):
        if self.state == PENDING:
            return support.awaited(self).__await__()
        return self

    def __next__(self):  # replaced below by lease_next()
        raise StopIteration(self)

    def __repr__(self):
        if self.state == PENDING:
            return "<ObjectLease, to be awaited>"
        if self.state != HELD:
            return "<ObjectLease, released>"
        return f"<ObjectLease of {self._get()!r}>"

    def __reduce__(self):
        raise TypeError(
            "cannot pickle an ObjectLease: it is good in this process only"
        )

    __class_getitem__ = classmethod(GenericAlias)

    # What ctxpool._object_support asks of a lease.

    def _adopt(self, ObjectLease other not None):
        # The lease, against a thread that awaits it too: the second gives back.
        with cython.critical_section(self):
            if self.state == PENDING:
                self.entry = other.entry
                self.state = HELD
                other.state = DEAD

    @property
    def _held(self):
        return self.state == HELD

    @property
    def _timeout(self):
        return self.timeout_


# ---- The pool ------------------------------------------------------------------------

# What leases need of it has to be there to the end; the collector clears its objects.
@cython.final
@cython.no_gc_clear
cdef class ObjectPool:
    """ObjectPool(factory, initial_size=0, max_size=100, *, reset=None, validate=None,
    dispose=None, min_size=0, timeout=30.0, lifo=True, max_age=None, max_idle=600.0,
    cleanup_interval=300.0, leak_after=None, on_leak=None, name=None,
    clock=None)
--

Objects that are expensive to make, lent out one by one and used again.

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

    cdef cxp_slots s
    cdef object __weakref__
    cdef readonly object _settings
    cdef object _loop        # of a pool with coroutine functions, once it is bound
    cdef object _clock       # None: that of C
    cdef object _waiters     # deque of Waiter
    cdef dict _by_id         # id of an object -> address of its first entry
    cdef object _validate    # where it is a plain function, and nothing else is to do
    cdef object _reset       # where it is a plain function
    cdef bint _slow_take     # each object has to be looked at first
    cdef bint _slow_give
    cdef uint64_t counts[9]  # by position in support.COUNTS

    def __cinit__(self, *args, **kwargs):
        cxp_slots_empty(&self.s)
        self._waiters = deque()
        self._by_id = {}

    def __init__(self, factory, initial_size=0, max_size=100, *, reset=None,
                 validate=None, dispose=None, min_size=0, timeout=30.0, lifo=True,
                 max_age=None, max_idle=600.0, cleanup_interval=300.0,
                 leak_after=None, on_leak=None, name=None, clock=None):
        if self._settings is not None:
            raise RuntimeError("this pool is made already: make another")
        settings = support.Settings(
            factory, initial_size, max_size, reset, validate, dispose, min_size,
            timeout, lifo, max_age, max_idle, cleanup_interval, leak_after, on_leak,
            name, clock,
        )
        self.s.max_size = settings.max_size
        self.s.min_size = settings.min_size
        self.s.max_age = settings.max_age
        self.s.max_idle = settings.max_idle
        self.s.lifo = settings.lifo
        self._clock = clock
        self._slow_take = validate is not None or settings.leak_after != INFINITY
        self._slow_give = reset is not None
        if not settings.is_async:
            self._reset = reset
            if settings.leak_after == INFINITY:
                self._validate = validate
        self._settings = settings
        support.open_pool(self)

    def __del__(self):
        cdef list objects
        if self._settings is not None and not self.s.closed:
            objects = self._cut_off(&self.s.idle, False)
            self.s.n_idle = 0
            self.s.closed = True
            support.finalize(self._settings, objects)

    def __dealloc__(self):
        self.s.closed = True
        self._cut_off(&self.s.idle, False)
        self._cut_off(&self.s.out, False)

    cdef list _cut_off(self, cxp_entry *list_, bint foreign):
        """The objects of a list's entries. They go; *foreign* ones are left to their
        leases."""
        cdef cxp_entry *entry
        cdef list objects = []
        while list_.next != list_:
            entry = list_.next
            cxp_entry_unlink(entry)
            if entry.obj != NULL:
                objects.append(<object>entry.obj)
            entry.foreign = foreign
            if not foreign:
                free_entry(entry)
        return objects

    cdef double _now(self) noexcept:
        """The time, or nan where the user's clock raises."""
        if self._clock is None:
            return cxp_monotonic()
        return self._users_now()

    cdef double _users_now(self) noexcept:
        try:
            return self._clock()
        except Exception as error:
            _unraisable.report(error)
            return NAN

    cdef cxp_entry *_take(self) noexcept:
        """An idle object that nobody has to look at first, or NULL."""
        if self._slow_take:
            return NULL
        if self._loop is not None and _get_running_loop() is not self._loop:
            return NULL
        return cxp_locked_take(<PyObject *>self, &self.s, self._now())

    cdef object _take_validated(self):
        """What acquire() in ctxpool._object_support does with an idle object, without
        a coroutine; or None, where it has more to do."""
        cdef ObjectLease lease
        cdef cxp_entry *entry
        if self._validate is None:
            return None
        lease = blank(self)
        entry = cxp_locked_take(<PyObject *>self, &self.s, self._now())
        if entry == NULL:
            return None
        lease.entry = entry
        lease.state = HELD
        try:
            good = self._validate(<object>entry.obj)
            if good is True or (not isinstance(good, Coroutine) and good):
                return lease
            if isinstance(good, Coroutine):
                raise support.coroutine_error(self._settings, good)
        except Exception:
            pass
        except BaseException:
            support.discard(self, lease)
            raise
        return support.replaced(self, lease)

    cdef int _unreserve(self) except -1:
        with cython.critical_section(self):  # its counters
            self.s.n_reserved -= self.s.n_reserved > 0  # 0: forked in the factory
        if self.s.waiting:
            self._pass_on()
        return 0

    cdef int _pass_on(self) except -1:
        """What there is to those who wait, first come, first served."""
        cdef ObjectLease lease
        cdef bint claimed, handed
        while self.s.waiting:
            lease = blank(self)
            now = self._now()
            with cython.critical_section(self):  # against its other threads
                claimed = self._claim_locked(lease, now)
            if not claimed:
                return 0
            handed = False
            while not handed:
                with cython.critical_section(self):  # as before
                    waiter = self._next_waiter()
                if waiter is None:
                    self._unclaim(lease)
                    return 0
                handed = not waiter.gone and waiter.hand(lease)
        return 0

    cdef object _next_waiter(self):
        # Under the lock.
        if not self.s.waiting:
            return None
        self.s.waiting -= 1
        return self._waiters.popleft()

    cdef bint _claim_locked(self, ObjectLease lease, double now) noexcept:
        if self.s.closed:
            return False
        if self.s.n_idle:
            lease.entry = cxp_slots_take(&self.s, now)
            lease.state = HELD
            return True
        if cxp_slots_size(&self.s) < self.s.max_size:
            self.s.n_reserved += 1
            lease.state = RESERVED
            return True
        return False

    cdef cxp_entry *_got(self, obj) except NULL:
        """The entry of an object that is out by get(), and is so no more."""
        cdef cxp_entry *entry = NULL
        cdef bint known = False, leased = False
        with cython.critical_section(self):  # against a thread that puts it back too
            address = self._by_id.get(<size_t><PyObject *>obj)
            if address is not None:
                entry = <cxp_entry *><size_t>address
            while entry != NULL and entry.by_lease:
                known = True
                leased = leased or entry.out
                entry = entry.same
            if entry != NULL:
                entry.by_lease = True
        if entry != NULL:
            return entry
        if leased:
            raise ValueError(f"{obj!r} is out by a lease: release that")
        if known:
            raise ValueError(f"{obj!r} was put back before")
        raise ValueError(f"{obj!r} is no object of {self._settings.label}")

    # -- acquire and release -----------------------------------------------------------

    def acquire(self, timeout=None):
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
        cdef ObjectLease lease = blank(self)
        cdef cxp_entry *entry = self._take()
        if entry != NULL:
            lease.entry = entry
            lease.state = HELD
            return lease
        found = self._take_validated()
        if found is None:
            found = support.acquire(self, timeout, False)
        if found is not None:
            return found
        lease.timeout_ = timeout
        return lease

    def acquire_async(self, timeout=None):
        """A lease for ``async with`` or ``await``: what waits is a task, no thread.

        As :meth:`acquire` otherwise, but all errors come from the ``await``.
        """
        cdef ObjectLease lease = blank(self)
        cdef cxp_entry *entry = self._take()
        if entry != NULL:
            lease.entry = entry
            lease.state = HELD
        else:
            lease.timeout_ = timeout
        return lease

    def get(self, timeout=None):
        """An object without a lease, to be given back by :meth:`put`.

        Quicker, and less safe: an object that is dropped is lost to the pool. This
        thread waits, whether it runs an event loop or not. Errors as :meth:`acquire`.
        """
        cdef cxp_entry *entry = self._take()
        if entry == NULL:
            found = self._take_validated()
            if found is None:
                found = support.acquire(self, timeout, True)
            entry = detach(found)
        entry.by_lease = False
        return <object>entry.obj

    def put(self, obj):
        """Give back an object that :meth:`get` gave. O(1), and the pool's *reset*.

        Raises
        ------
        ValueError
            It is not out by :meth:`get`: it was put back before, belongs to a lease,
            or is none of the pool's.
        """
        put_back(self, self._got(obj))

    def discard(self, obj):
        """Dispose of an object that :meth:`get` gave, instead of putting it back.

        Raises
        ------
        ValueError
            As :meth:`put`.
        """
        support.discard(self, holding(self, self._got(obj)))

    # -- the pool's life ---------------------------------------------------------------

    def evict(self):
        """Dispose now of idle objects that are too old, or were idle for too long.

        What the shared thread does from time to time. O(idle objects) and *dispose*.

        Returns
        -------
        int
            How many.
        """
        return support.evict(self)

    def close(self):
        """Hand out nothing more, and dispose of the idle objects.

        Those that are out are disposed of when they come back. Who waits gets
        :class:`~ctxpool.errors.PoolClosedError`. Closing twice does nothing.
        """
        support.close(self)

    async def aclose(self):
        """As :meth:`close`, and wait for what coroutine functions have to do."""
        await support.close_in_task(self)

    def stats(self):
        """What the pool counts, at this moment."""
        cdef cxp_slots s
        cdef uint64_t counts[9]
        with cython.critical_section(self):  # one moment
            s = self.s
            counts = self.counts
        numbers = (cxp_slots_size(&s), s.n_idle, s.n_out, s.waiting, s.peak,
                   s.acquires, s.releases)
        return support.statistics(self, numbers, tuple(counts))

    def objects(self):
        """What is known of each object, idle ones first, the oldest use first. O(n)."""
        cdef cxp_entry *ends[2]
        cdef cxp_entry *entry
        cdef list found = []
        cdef int i
        ends[0], ends[1] = &self.s.idle, &self.s.out
        # Room first: to make it may run the collector, and that anything.
        rows = [[None] * 6 for _ in range(cxp_slots_size(&self.s))]
        with cython.critical_section(self):  # one moment
            for i in range(2):
                entry = ends[i].prev
                while entry != ends[i] and rows:
                    row = rows.pop()
                    row[0] = <object>entry.obj
                    row[1], row[2] = entry.created, entry.since
                    row[3], row[4] = entry.uses, entry.out != 0
                    if entry.out and entry.place != NULL:
                        row[5] = <object>entry.place
                    found.append(row)
                    entry = entry.prev
        return support.described(self, found)

    def check(self):
        """Walk the pool's invariants; AssertionError where one is broken. For tests."""
        cdef int broken
        cdef bint stalled
        with cython.critical_section(self):  # one moment
            broken = cxp_slots_check(&self.s)
            broken = broken or self.s.waiting != len(self._waiters)
            stalled = self.s.waiting and (
                self.s.n_idle or cxp_slots_size(&self.s) < self.s.max_size
            )
        if broken:
            raise AssertionError("the pool's counts are wrong")
        if stalled:
            raise AssertionError("somebody waits for what is there")

    @property
    def name(self):
        """The pool's name."""
        return self._settings.name

    @property
    def max_size(self):
        """Objects that may exist."""
        return self.s.max_size

    @property
    def size(self):
        """Objects that exist, or are being made or disposed of."""
        return self._size()

    @property
    def idle(self):
        """Objects that wait in the pool."""
        with cython.critical_section(self):  # as in stats
            return self.s.n_idle

    @property
    def in_use(self):
        """Objects that are out."""
        with cython.critical_section(self):  # as in stats
            return self.s.n_out

    @property
    def closed(self):
        """Whether the pool was closed."""
        return self.s.closed != 0

    def __enter__(self):
        if self.s.closed:
            raise support.closed_error(self._settings)
        return self

    def __exit__(self, exc_type, exc, tb):
        self.close()

    async def __aenter__(self):
        await support.open_in_task(self)
        return self

    async def __aexit__(self, exc_type, exc, tb):
        await support.close_in_task(self)

    def __repr__(self):
        name = "" if self.name is None else f"name={self.name!r}, "
        closed = ", closed" if self.closed else ""
        return (
            f"<ObjectPool {name}max_size={self.max_size}, idle={self.idle}, "
            f"in_use={self.in_use}{closed}>"
        )

    def __reduce__(self):
        raise TypeError(
            "cannot pickle an ObjectPool: its objects are good in this process only"
        )

    __class_getitem__ = classmethod(GenericAlias)

    # -- what ctxpool._waiting and ctxpool._object_support ask of a pool ---------------

    def _size(self):
        with cython.critical_section(self):  # as in stats
            return cxp_slots_size(&self.s)

    def _claim(self):
        cdef ObjectLease lease = blank(self)
        cdef bint closed, claimed = False
        now = self._now()
        with cython.critical_section(self):  # against its other threads
            closed = self.s.closed
            if not self.s.waiting:
                claimed = self._claim_locked(lease, now)
        if closed:
            raise support.closed_error(self._settings)
        return lease if claimed else None

    def _unclaim(self, ObjectLease lease not None):
        cdef cxp_entry *entry
        if lease.state == RESERVED:
            self._free(lease)
        elif lease.state == HELD:
            entry = detach(lease)
            if cxp_locked_give(<PyObject *>self, &self.s, entry, self._now()):
                if self.s.waiting:
                    self._pass_on()
            else:
                support.discard(self, holding(self, entry))

    def _renew(self, ObjectLease lease not None):
        # See the twin. Nobody else has the lease.
        cdef ObjectLease fresh = blank(self)
        fresh.entry = lease.entry
        fresh.state = lease.state
        lease.state = DEAD
        return fresh

    def _reserve(self, Py_ssize_t size):
        cdef ObjectLease lease = blank(self)
        with cython.critical_section(self):  # against its other threads
            if self.s.closed or cxp_slots_size(&self.s) >= size:
                return None
            self.s.n_reserved += 1
            lease.state = RESERVED
        return lease

    def _enqueue(self, waiter):
        cdef ObjectLease lease = blank(self)
        cdef bint closed, claimed = False
        now = self._now()
        with cython.critical_section(self):  # against a thread that gives one back
            closed = self.s.closed
            if not closed:
                self.counts[WAITS] += 1
                if not self.s.waiting:  # one may have come back just now
                    claimed = self._claim_locked(lease, now)
                if not claimed:
                    self._waiters.append(waiter)
                    self.s.waiting += 1
        if closed:
            raise support.closed_error(self._settings)
        if claimed:
            waiter.index = lease

    def _withdraw(self, waiter):
        with cython.critical_section(self):  # against a thread that hands it one
            if waiter in self._waiters:
                self._waiters.remove(waiter)
                self.s.waiting -= 1

    def _take_back(self, ObjectLease lease not None):
        self._unclaim(lease)

    def _give_up(self, patience):
        support.give_up(self, patience)

    def _fill(self, ObjectLease lease not None, obj):
        return self._store(lease, obj, False)

    def _stock(self, ObjectLease lease not None, obj):
        cdef bint stored = self._store(lease, obj, True)
        if self.s.waiting:
            self._pass_on()
        return stored

    cdef bint _store(self, ObjectLease lease, obj, bint idle) except -1:
        cdef cxp_entry *entry = <cxp_entry *>PyMem_Malloc(sizeof(cxp_entry))
        cdef object number = <size_t><PyObject *>obj
        cdef object address = <size_t>entry
        cdef bint stored = False
        if entry == NULL:
            raise MemoryError()
        memset(entry, 0, sizeof(cxp_entry))
        entry.created = entry.since = self._now()
        entry.by_lease = True
        try:
            # The pool, against its other threads.
            with cython.critical_section(self):
                if not self.s.closed:
                    same = self._by_id.get(number)
                    self._by_id[number] = address
                    if same is not None:
                        entry.same = <cxp_entry *><size_t>same
                    Py_INCREF(obj)
                    entry.obj = <PyObject *>obj
                    self.s.n_reserved -= self.s.n_reserved > 0
                    if idle:
                        cxp_entry_link(&self.s.idle, entry)
                        self.s.n_idle += 1
                        lease.state = DEAD
                    else:
                        cxp_slots_send(&self.s, entry, entry.created)
                        lease.entry = entry
                        lease.state = HELD
                    stored = True
        finally:
            if not stored:
                PyMem_Free(entry)
        return stored

    cdef int _forget_entry(self, cxp_entry *entry) except -1:
        """Out of the table by identity. Under the lock."""
        cdef object number = <size_t>entry.obj
        cdef cxp_entry *before
        address = self._by_id.get(number)
        if address is None:
            return 0
        before = <cxp_entry *><size_t>address
        if before == entry:
            if entry.same == NULL:
                del self._by_id[number]
            else:
                self._by_id[number] = <size_t>entry.same
            return 0
        while before.same != NULL and before.same != entry:
            before = before.same
        if before.same == entry:
            before.same = entry.same
        return 0

    def _empty(self, ObjectLease lease not None):
        cdef cxp_entry *entry = held(lease)
        obj = <object>entry.obj if entry.obj != NULL else None
        with cython.critical_section(self):  # against its other threads
            lease.state = RESERVED
            cxp_entry_unlink(entry)
            self._forget_entry(entry)
            self.s.n_out -= 1
            self.s.releases += 1
            self.s.n_reserved += 1
        free_entry(entry)
        return obj

    def _push(self, ObjectLease lease not None):
        if not cxp_locked_give(<PyObject *>self, &self.s, held(lease), self._now()):
            return False
        lease.state = DEAD
        if self.s.waiting:
            self._pass_on()
        return True

    def _free(self, ObjectLease lease not None):
        if lease.state == RESERVED:
            lease.state = DEAD
            self._unreserve()

    def _age(self, ObjectLease lease not None):
        return self._now() - held(lease).created

    def _mark(self, ObjectLease lease not None, place):
        cdef cxp_entry *entry = held(lease)
        cdef PyObject *old
        Py_INCREF(place)
        with cython.critical_section(self):  # against a thread that reads it
            old = entry.place
            entry.place = <PyObject *>place
        Py_XDECREF(old)

    def _tally(self, int count):
        with cython.critical_section(self):  # its counters
            self.counts[count] += 1

    def _pop_expired(self, double now):
        cdef ObjectLease lease = blank(self)
        cdef cxp_entry *entry
        cdef bint found = False
        with cython.critical_section(self):  # against its other threads
            entry = self.s.idle.prev
            while entry != &self.s.idle:
                if now == INFINITY:
                    found = True
                elif now - entry.created >= self.s.max_age:
                    found = True
                    self.counts[EXPIRED] += 1
                elif (now - entry.since >= self.s.max_idle
                        and cxp_slots_size(&self.s) > self.s.min_size):
                    found = True
                    self.counts[EVICTED] += 1
                if found:
                    break
                entry = entry.prev
            if found:
                cxp_entry_unlink(entry)
                self._forget_entry(entry)
                self.s.n_idle -= 1
                self.s.n_reserved += 1
                lease.state = RESERVED
        if not found:
            return None
        obj = <object>entry.obj if entry.obj != NULL else None
        free_entry(entry)
        return lease, obj

    def _overdue(self, double now):
        cdef cxp_entry *entry
        cdef list found = []
        cdef double limit = self._settings.leak_after
        rows = [[None] * 3 for _ in range(self.s.n_out)]
        with cython.critical_section(self):  # one moment
            entry = self.s.out.prev
            while entry != &self.s.out and rows and not now - entry.since < limit:
                if not entry.told:
                    entry.told = True
                    row = rows.pop()
                    row[0], row[1] = <object>entry.obj, entry.since
                    if entry.place != NULL:
                        row[2] = <object>entry.place
                    found.append(row)
                entry = entry.prev
        return found

    def _bound(self, loop):
        self._loop = loop

    def _shut(self):
        with cython.critical_section(self):  # against its other threads
            self.s.closed = True
            waiters = self._waiters
            self._waiters = deque()
            self.s.waiting = 0
        return waiters

    def _forget(self):
        cxp_unlock_after_fork(self)
        cdef list objects = self._cut_off(&self.s.idle, True)
        objects += self._cut_off(&self.s.out, True)
        cxp_slots_empty(&self.s)
        self._by_id = {}
        self._waiters = deque()
        self._loop = None
        return objects


cdef void free_entry(cxp_entry *entry) noexcept:
    cdef PyObject *obj = entry.obj
    cdef PyObject *place = entry.place
    PyMem_Free(entry)
    Py_XDECREF(place)
    Py_XDECREF(obj)


cdef PyObject *lease_next(PyObject *op) noexcept:
    """The end of an await: the object where ``async with`` awaits, else the lease."""
    cdef bint entering = (<ObjectLease>op).entering
    (<ObjectLease>op).entering = False
    if (entering and CXP_HAS_GIL and (<ObjectLease>op).state == HELD
            and (<ObjectLease>op).entry.obj != NULL):
        return cxp_stop_with((<ObjectLease>op).entry.obj)
    value = entered_with(<object>op) if entering else <object>op
    return NULL if value is None else cxp_stop_with(<PyObject *>value)


cdef object entered_with(ObjectLease lease):
    try:
        return lease._get()
    except LeaseError:  # another thread released it
        return None


cxp_set_next(_Done, cxp_stop)
cxp_set_next(ObjectLease, lease_next)
cxp_lease_slots(ObjectLease, lease_dealloc, lease_finalize)
cdef ObjectPool specimen = ObjectPool.__new__(ObjectPool)
cxp_pool_slots(ObjectPool, specimen, &specimen.s)
specimen = None
