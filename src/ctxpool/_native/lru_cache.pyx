# cython: freethreading_compatible=True
# cython: binding=False, embedsignature=True, embedsignature.format=clinic
"""LRUCache over csrc/include/ctxpool/lru_table.h.

Every critical section here is on the cache itself, against any other call on it.
Inside, only the comparison of keys (cxp_find) may run Python code; what is evicted or
replaced is collected and dies, and is reported, after the section.
"""

cimport cython
from cpython.object cimport PyObject, PyTypeObject
from cpython.ref cimport Py_DECREF, Py_INCREF, Py_XDECREF
from libc.math cimport INFINITY

import os
import time
import weakref
from collections.abc import Mapping, MutableMapping
from types import GenericAlias

from .. import _cache_support as support
from .. import _unraisable
from .._pickling import constructor
from ..errors import ValueTooLargeError
from ..stats import LRUCacheStats

__all__ = ["LRUCache"]

cdef extern from "lru_cache_impl.h":
    enum:
        CXP_FREE_THREADED
        CXP_CAPACITY
        CXP_EXPIRED
        CXP_RESIZE
        CXP_STORED
        CXP_EVICTED
        CXP_LONG_WAY

    ctypedef struct cxp_dead_entry:
        PyObject *key
        PyObject *value
        int reason

    ctypedef struct cxp_dead:
        size_t count
        cxp_dead_entry *items

    ctypedef struct cxp_record:
        PyObject *key
        PyObject *value
        double size
        double due
        uint32_t rank
        uint32_t mark

    int cxp_key_tag(object key, uint32_t *tag) except -1
    uint32_t cxp_find(cxp_lru_table *t, object key, uint32_t tag) except? 0xFFFFFFFF
    void cxp_dead_init(cxp_dead *dead)
    int cxp_dead_add(cxp_dead *dead, PyObject *key, PyObject *value, int reason)
    void cxp_dead_free(cxp_dead *dead)
    int cxp_bury(cxp_lru_table *t, uint32_t e, int reason, cxp_dead *dead)
    void cxp_drop_table(cxp_lru_table *old)
    PyObject *cxp_hit(object self, cxp_lru_table *t, object key) except? NULL
    int cxp_has(object self, cxp_lru_table *t, object key) except -1
    object cxp_given(PyObject *reference)
    object cxp_shared(PyObject *reference)
    bint cxp_is_bare(object self)
    void cxp_track_for(object self, int *tracked, object key, object value)
    void cxp_track(object self, int *tracked)
    void cxp_untrack(object self, int *tracked)
    int cxp_store(object self, cxp_lru_table *t, uint32_t *capacity, int *tracked,
                  uint64_t *evicted, object key, object value, PyObject **old_key,
                  PyObject **old_value) except -1
    cxp_record *cxp_records(object self, cxp_lru_table *t, bint by_use,
                            Py_ssize_t *count) except NULL
    list cxp_list_records(cxp_record *records, Py_ssize_t count, bint pairs)
    void cxp_free_records(cxp_record *records, Py_ssize_t count)
    double cxp_monotonic()
    void cxp_after_fork(object self, cxp_lru_table *t)
    void cxp_take_slots(PyTypeObject *type, object specimen, cxp_lru_table *table)
    int cxp_take_reads(PyTypeObject *type, object specimen, unsigned int *hooks,
                       unsigned int get_hooks, unsigned int missing_hook) except -1

cdef object MISSING = support.MISSING
cdef object NO_DEFAULT = object()
cdef tuple REASONS = ("capacity", "expired", "resize")
cdef object monotonic = time.monotonic

# The methods whose overriding in a subclass changes what another method does.
cdef enum:
    CONTAINS = 1
    DELITEM = 2
    GETITEM = 4
    MISSES = 8
    SETITEM = 16
    GETSIZEOF = 32
    POPITEM = 64
cdef dict HOOKS = {
    "__contains__": CONTAINS,
    "__delitem__": DELITEM,
    "__getitem__": GETITEM,
    "__missing__": MISSES,
    "__setitem__": SETITEM,
    "getsizeof": GETSIZEOF,
    "popitem": POPITEM,
}

# Due entries that one store drops beyond those it must.
cdef enum:
    DUE_PER_STORE = 2

# What put_locked() did.
cdef enum:
    STORED
    KEPT
    MAKE_ROOM


# Where a lock can outlive its thread in a fork: all caches there are.
cdef object living = weakref.WeakValueDictionary() if CXP_FREE_THREADED else None


def _after_fork_in_child():
    cdef LRUCache cache
    for cache in list(living.values()):
        cxp_after_fork(cache, &cache.table)
        if cache.flights is not None:
            cache.flights = {}


if CXP_FREE_THREADED and hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def _one(value):
    """The size of a value where no getsizeof was given: 1."""
    return 1


cdef class _GetSizeOf:
    """``cache.getsizeof(value)``: the function that was given, else 1 for each."""

    def __get__(self, cache, owner):
        if cache is None or (<LRUCache>cache)._getsizeof is None:
            return _one
        return (<LRUCache>cache)._getsizeof

    def __set__(self, cache, function):
        (<LRUCache>cache)._getsizeof = function


cdef struct Put:
    uint32_t tag
    double size
    bint fractional
    double now
    double ttl
    bint keep
    PyObject *old  # a new reference: what was replaced, or kept


# ---- Inner parts ----

cdef int configure(LRUCache self, maxsize, getsizeof, ttl, preallocate, on_evict,
                   timer) except -1:
    cdef cxp_lru_table old
    cdef bint sized
    maxsize = support.checked_maxsize(maxsize)
    ttl = support.checked_ttl(ttl)
    for name, function in (
        ("getsizeof", getsizeof), ("on_evict", on_evict), ("timer", timer)
    ):
        if not callable(function) and (function is not None or name == "timer"):
            raise TypeError(f"{name} must be callable, not {function!r}")
    if getsizeof is not None:
        self.getsizeof = getsizeof
    sized = self._getsizeof is not None or (self.hooks & GETSIZEOF) != 0
    if preallocate:
        support.checked_preallocate(maxsize, sized)
    with cython.critical_section(self):
        cxp_cache_detach(&self.table, &old)
        self.sized = sized
        self.fractional = False
        self.seconds = 0 if ttl is None else ttl
        self.on_evict = on_evict
        self.timer = None if timer is monotonic else timer
        self.preallocated = bool(preallocate)
        set_bound(self, maxsize)
        if (cxp_is_bare(self) and on_evict is None and not sized
                and self.timer is None and self.flights is None):
            cxp_untrack(self, &self.tracked)
        else:
            cxp_track(self, &self.tracked)
    cxp_drop_table(&old)
    if preallocate:
        take_memory(self)
    return 0


cdef int set_bound(LRUCache self, maxsize) except -1:
    """Locked; *maxsize* is checked."""
    self.bound = maxsize
    try:
        self.most = maxsize
    except OverflowError:
        self.most = INFINITY
    self.capacity = <uint32_t>min(self.most, <double>support.MOST_ENTRIES)
    self.table.limit = support.MOST_ENTRIES if self.sized else self.capacity
    self.plain = (not self.sized and self.seconds == 0 and self.capacity > 0
                  and not self.hooks & (POPITEM | DELITEM))
    return 0


cdef int take_memory(LRUCache self) except -1:
    cdef int failed
    with cython.critical_section(self):
        failed = self.seconds > 0 and cxp_lru_use_due(&self.table)
        if not failed:
            failed = cxp_lru_reserve(&self.table, self.capacity)
        if not failed:
            cxp_lru_prefault(&self.table)
            if self.table.policy != NULL:
                failed = cxp_policy_preallocate(self.table.policy, &self.table)
    if failed:
        raise MemoryError(f"cannot make room for {self.capacity} entries")
    return 0


cdef double clock(LRUCache self) except? -1:
    if self.timer is None:
        return cxp_monotonic()
    return support.checked_number(self.timer(), "the time that timer returns")


cdef int notify(LRUCache self, cxp_dead *dead) except -1:
    """Tell on_evict of what is in *dead*, and let it die. Not locked."""
    cdef object told = self.on_evict, first = None
    cdef size_t i
    if told is not None:
        for i in range(dead.count):
            try:
                told(<object>dead.items[i].key, <object>dead.items[i].value,
                     REASONS[dead.items[i].reason])
            except BaseException as error:
                if first is None:
                    first = error
                else:
                    _unraisable.report(error)
    cxp_dead_free(dead)
    if first is not None:
        raise first
    return 0


cdef int evict(LRUCache self, uint32_t e, int reason, cxp_dead *dead) except -1:
    """Locked."""
    if cxp_bury(&self.table, e, reason, dead):
        raise MemoryError("no memory to evict an entry")
    self.evicted[reason] += 1
    return 0


cdef Py_ssize_t expire_all(LRUCache self) except -1:
    cdef cxp_dead dead
    cdef uint32_t e
    cdef double now
    cdef Py_ssize_t count
    if not cxp_lru_timed(&self.table):
        return 0
    now = clock(self)
    cxp_dead_init(&dead)
    try:
        with cython.critical_section(self):
            e = cxp_lru_first_due(&self.table, now)
            while e:
                evict(self, e, CXP_EXPIRED, &dead)
                e = cxp_lru_first_due(&self.table, now)
    finally:
        count = <Py_ssize_t>dead.count
        notify(self, &dead)
    return count


cdef PyObject *look(LRUCache self, object key, bint use, bint count,
                    double *left) except? NULL:
    """A new reference to the value of *key*, NULL when it is absent or due."""
    cdef cxp_dead dead
    cdef uint32_t tag, e
    cdef double now = -INFINITY
    cdef PyObject *value = NULL
    cxp_key_tag(key, &tag)
    if cxp_lru_timed(&self.table):
        now = clock(self)
    cxp_dead_init(&dead)
    try:
        with cython.critical_section(self):
            e = cxp_find(&self.table, key, tag)
            if e and cxp_lru_is_due(&self.table, e, now):
                evict(self, e, CXP_EXPIRED, &dead)
                e = 0
            if e:
                value = <PyObject *>self.table.entries[e].value
                Py_INCREF(<object>value)
                if use:
                    cxp_cache_use(&self.table, e)
                if left != NULL:
                    left[0] = INFINITY
                    if self.table.due_count and self.table.place[e]:
                        left[0] = self.table.due[e]
            if count:
                if e:
                    self.table.hits += 1
                else:
                    self.table.misses += 1
    finally:
        if dead.count:
            notify(self, &dead)
    return value


cdef int take(LRUCache self, object key, bint count, PyObject **old_key,
              PyObject **old_value) except -1:
    """Take *key* out, as two references: 1; 0 when it is absent or due."""
    cdef cxp_dead dead
    cdef uint32_t tag, e
    cdef double now = -INFINITY
    cxp_key_tag(key, &tag)
    if cxp_lru_timed(&self.table):
        now = clock(self)
    cxp_dead_init(&dead)
    try:
        with cython.critical_section(self):
            e = cxp_find(&self.table, key, tag)
            if e and cxp_lru_is_due(&self.table, e, now):
                evict(self, e, CXP_EXPIRED, &dead)
                e = 0
            if e:
                old_key[0] = <PyObject *>self.table.entries[e].key
                old_value[0] = <PyObject *>self.table.entries[e].value
                cxp_cache_remove(&self.table, e)
            if count:
                if e:
                    self.table.hits += 1
                else:
                    self.table.misses += 1
    finally:
        if dead.count:
            notify(self, &dead)
    return e != 0


cdef object too_large(LRUCache self, size):
    return ValueTooLargeError(
        f"value too large: size {size!r}, maxsize {self.maxsize!r}"
    )


cdef int put_locked(LRUCache self, object key, object value, Put *put,
                    cxp_dead *dead) except -1:
    """Store. MAKE_ROOM: an overridden popitem has to be called first."""
    cdef cxp_lru_table *t = &self.table
    cdef uint32_t e, victim
    cdef int _i
    for _i in range(DUE_PER_STORE):
        e = cxp_lru_first_due(t, put.now)
        if not e:
            break
        evict(self, e, CXP_EXPIRED, dead)
    e = cxp_find(t, key, put.tag)  # whatever we knew of the cache may be false now
    if ((self.sized and cxp_lru_use_sizes(t))
            or (put.ttl > 0 and cxp_lru_use_due(t))):
        raise MemoryError("no memory to store an entry")
    if e and cxp_lru_is_due(t, e, put.now):
        evict(self, e, CXP_EXPIRED, dead)
        e = 0
    if e and put.keep:
        cxp_cache_use(t, e)
        put.old = <PyObject *>t.entries[e].value
        Py_INCREF(<object>put.old)
        return KEPT
    while t.used:
        if self.sized:
            if t.total + (put.size - t.sizes[e] if e else put.size) <= self.most:
                break
        elif e or t.used < self.capacity:
            break
        victim = cxp_lru_first_due(t, put.now)
        if victim:
            evict(self, victim, CXP_EXPIRED, dead)
        elif self.hooks & (POPITEM | DELITEM):
            return MAKE_ROOM
        else:
            victim = cxp_cache_victim(t)
            evict(self, victim, CXP_CAPACITY, dead)
        if victim == e:
            e = 0
    if not t.used:
        if put.size > self.most:
            raise too_large(self, put.size)
        self.fractional = False
    if e:
        put.old = <PyObject *>t.entries[e].value
        t.entries[e].value = <void *>value
        cxp_cache_use(t, e)
    else:
        e = cxp_cache_insert(t, <void *>key, <void *>value, put.tag)
        if not e:
            raise MemoryError("no memory to store an entry")
        Py_INCREF(key)
    Py_INCREF(value)
    cxp_track_for(self, &self.tracked, key, value)
    if self.sized:
        cxp_lru_set_size(t, e, put.size)
        self.fractional |= put.fractional
    if put.ttl > 0:
        cxp_lru_set_due(t, e, put.now + put.ttl)
    elif t.due_count:
        cxp_lru_no_due(t, e)
    return STORED


cdef object put(LRUCache self, object key, object value, double ttl, bint keep):
    """Store, and return the value that is stored: with *keep*, one that was."""
    cdef Put put
    cdef cxp_dead dead
    cdef int done
    cdef uint64_t gone
    cdef object size = 1, old = None
    put.size = 1
    put.fractional = False
    if self.sized:
        size = support.checked_size(self.getsizeof(value))
        put.fractional = type(size) is float
    if size > self.maxsize:
        raise too_large(self, size)
    put.size = size
    put.ttl = ttl
    put.keep = keep
    put.old = NULL
    put.now = clock(self) if ttl > 0 or cxp_lru_timed(&self.table) else -INFINITY
    cxp_key_tag(key, &put.tag)
    cxp_dead_init(&dead)
    try:
        while True:
            with cython.critical_section(self):
                gone = self.table.inserts - self.table.used
                done = put_locked(self, key, value, &put, &dead)
            if done != MAKE_ROOM:
                break
            ask_popitem(self, CXP_CAPACITY, gone, &dead)
        if put.old != NULL:
            old = cxp_given(put.old)
    finally:
        if dead.count:
            notify(self, &dead)
    return old if done == KEPT else value


cdef uint64_t removed(LRUCache self):
    """How many entries have gone, whichever way."""
    with cython.critical_section(self):  # the table, against stores
        return self.table.inserts - self.table.used


cdef int ask_popitem(LRUCache self, int reason, uint64_t gone,
                     cxp_dead *dead) except -1:
    """Let an overridden popitem evict one. Not to find the entry that it chose is no
    error when another thread has made room since *gone* were counted."""
    cdef PyObject *key
    cdef PyObject *value
    try:
        pair = self.popitem()
    except KeyError:
        if removed(self) == gone:
            raise
        return 0
    with cython.critical_section(self):
        self.evicted[reason] += 1
    if isinstance(pair, tuple) and len(<tuple>pair) == 2:
        key = <PyObject *>(<tuple>pair)[0]
        value = <PyObject *>(<tuple>pair)[1]
        if cxp_dead_add(dead, key, value, reason):
            raise MemoryError("no memory to evict an entry")
        Py_INCREF(<object>key)
        Py_INCREF(<object>value)
    return 0


cdef int count_miss(LRUCache self) except -1:
    with cython.critical_section(self):
        self.table.misses += 1
    return 0


cdef list listing(LRUCache self, bint pairs, bint recency):
    """The keys or pairs in the order of insertion or of use, without the due."""
    cdef Py_ssize_t count
    cdef cxp_record *records
    cdef list out
    expire_all(self)
    records = cxp_records(self, &self.table, recency, &count)
    try:
        out = cxp_list_records(records, count, pairs)
    finally:
        cxp_free_records(records, count)
    return out


cdef bint is_over(LRUCache self) noexcept:
    if self.sized:
        return self.table.used and self.table.total > self.most
    return self.table.used > self.capacity


cdef class LRUCache:
    """A mapping with a bound: when it is full, the least recently used entry goes.

    A drop-in for ``cachetools.LRUCache``, subclasses included. It is a
    ``MutableMapping``; iteration follows the order of insertion, as in a dict, over
    a snapshot taken when it starts, and changes nothing of the order of use.

    ``cache[key]``, ``get``, ``get_many``, ``setdefault`` and ``get_or_compute`` count
    a hit or a miss and make the entry the most recently used; so does ``pop``, which
    removes it. ``in``, ``peek`` and all iteration do neither.

    Parameters
    ----------
    maxsize : int or float
        The bound of ``currsize``; ``math.inf`` for none.
    getsizeof : callable, optional
        ``getsizeof(value)`` gives the size of a value, an int or a float that is not
        negative. Without it each entry counts 1. A subclass may define the method
        instead. Sizes are added as C doubles: exact for whole numbers up to 2**53.
    ttl : float, optional
        Seconds an entry lives after it was stored. An expired entry is as good as
        gone: a look-up that meets it is a miss and removes it, ``len``, ``currsize``,
        ``stats`` and iteration remove all that are due first, a store removes up to
        two, and a full cache evicts one that is due before one that is not.
    preallocate : bool
        Take the memory for *maxsize* entries at once, so that no later insertion has
        to grow a table. Not with *getsizeof*, where the number is unknown. The
        pure-Python twin checks the argument and takes nothing.
    on_evict : callable, optional
        ``on_evict(key, value, reason)`` is told of each entry that was dropped, with
        the reason ``"capacity"``, ``"expired"`` or ``"resize"``; not of one that was
        deleted, popped, cleared or overwritten. It is called after the fact, outside
        any lock, and may use the cache. If it raises, the operation has taken effect
        all the same and the other calls are made; the first exception reaches the
        caller, others go to :func:`sys.unraisablehook`.
    timer : callable
        The clock of *ttl*, in seconds. It is not called while no entry has a ttl.

    Notes
    -----
    Look-up, store, eviction: O(1). Storing with a ttl: O(1) when the ttl is always
    the same, O(log n) at worst. Native: 32-byte entries under an open-addressing
    table, about 41 bytes an entry when full, unchanged by churn.

    **Thread-safety**: each single call is atomic. Keys are compared inside it, so an
    ``__eq__`` that blocks will block others; it may use the cache itself.

    **Subclassing**: a subclass that overrides ``__getitem__``, ``__setitem__``,
    ``__delitem__``, ``__contains__``, ``__missing__``, ``popitem`` or ``getsizeof``
    sees them called where ``cachetools`` calls them: eviction calls ``popitem()``,
    which does ``del self[key]``; ``get``, ``pop`` and ``setdefault`` go through
    ``key in self`` and ``self[key]``. Overriding is seen on the class, not on the
    instance. Expiry removes entries directly. An instance of the class itself has
    no ``__dict__``.

    Examples
    --------
    >>> cache = LRUCache(2)
    >>> cache["a"] = 1
    >>> cache["b"] = 2
    >>> cache["a"]
    1
    >>> cache["c"] = 3
    >>> cache
    LRUCache({'a': 1, 'c': 3}, maxsize=2, currsize=2)
    """

    def __cinit__(self):
        cxp_lru_init(&self.table)
        self.tracked = True
        self.bound = 0
        if type(self) is not LRUCache:
            for name in support.overridden(type(self), LRUCache, HOOKS):
                self.hooks |= <unsigned int>HOOKS[name]
        self.sized = (self.hooks & GETSIZEOF) != 0
        if CXP_FREE_THREADED:
            living[id(self)] = self

    @cython.embedsignature(False)
    def __init__(self, maxsize, getsizeof=None, *, ttl=None, preallocate=False,
                 on_evict=None, timer=monotonic):
        configure(self, maxsize, getsizeof, ttl, preallocate, on_evict, timer)

    def _snapshot(self):
        """The pairs in the order of insertion; by self[key] if that is overridden."""
        if self.hooks & GETITEM:
            return [(key, self[key]) for key in self if key in self]
        return listing(self, True, False)

    # ---- For other Cython code ----

    cdef object lookup(self, object key, object default):
        cdef PyObject *value
        if self.hooks & (CONTAINS | GETITEM):
            if key in self:
                return self[key]
            count_miss(self)
            return default
        value = look(self, key, True, True, NULL)
        return default if value == NULL else cxp_given(value)

    cdef int store(self, object key, object value) except -1:
        cdef PyObject *old_key
        cdef PyObject *old_value
        cdef cxp_dead dead
        cdef int done = CXP_LONG_WAY
        if self.plain and not cxp_lru_timed(&self.table):
            done = cxp_store(self, &self.table, &self.capacity, &self.tracked,
                             self.evicted, key, value, &old_key, &old_value)
        if done == CXP_LONG_WAY:
            put(self, key, value, self.seconds, False)
        elif done == CXP_EVICTED:
            if self.on_evict is None:
                Py_DECREF(<object>old_key)
                Py_DECREF(<object>old_value)
            else:
                cxp_dead_init(&dead)
                cxp_dead_add(&dead, old_key, old_value, CXP_CAPACITY)
                notify(self, &dead)
        return 0

    # ---- The mapping ----

    def __repr__(self):
        return support.shown(self)

    def __getitem__(self, key):
        cdef PyObject *value
        if cxp_lru_timed(&self.table):
            value = look(self, key, True, True, NULL)
        else:
            value = cxp_hit(self, &self.table, key)
        if value != NULL:
            return cxp_given(value)
        if self.hooks & MISSES:
            return self.__missing__(key)
        raise KeyError(key)

    def __missing__(self, key):
        """What ``cache[key]`` does when *key* is absent: raise KeyError."""
        raise KeyError(key)

    def __setitem__(self, key, value):
        LRUCache.store(self, key, value)

    def __delitem__(self, key):
        cdef PyObject *old_key
        cdef PyObject *old_value
        if not take(self, key, False, &old_key, &old_value):
            raise KeyError(key)
        Py_XDECREF(old_key)
        Py_XDECREF(old_value)

    def __contains__(self, key):
        cdef PyObject *value
        if not cxp_lru_timed(&self.table):
            return cxp_has(self, &self.table, key)
        value = look(self, key, False, False, NULL)
        Py_XDECREF(value)
        return value != NULL

    def __len__(self):
        if cxp_lru_timed(&self.table):
            expire_all(self)
        return cxp_lru_len(&self.table)

    def __iter__(self):
        return iter(listing(self, False, False))

    def __eq__(self, other):
        if not isinstance(other, Mapping):
            return NotImplemented
        return dict(self._snapshot()) == dict(other.items())

    @property
    def maxsize(self):
        """The bound of :attr:`currsize`."""
        # None after the garbage collector has cleared this cache.
        return self.most if self.bound is None else self.bound

    @property
    def currsize(self):
        """The sum of the sizes now; an int as long as all sizes are."""
        expire_all(self)
        if not self.sized:
            return cxp_lru_len(&self.table)
        if self.fractional and cxp_lru_len(&self.table):
            return self.table.total
        return int(self.table.total)

    @property
    def ttl(self):
        """Seconds an entry lives unless ``set`` says otherwise; None: for ever."""
        return self.seconds if self.seconds > 0 else None

    def get(self, key, default=None):
        """The value of *key*, now the most recently used; else *default*.

        ``__missing__`` is not called.
        """
        cdef PyObject *value
        if self.hooks & (CONTAINS | GETITEM) or cxp_lru_timed(&self.table):
            return self.lookup(key, default)
        value = cxp_hit(self, &self.table, key)
        return default if value == NULL else cxp_given(value)

    @cython.embedsignature(False)
    def pop(self, key, default=NO_DEFAULT):
        """pop($self, key, default='<no default>')\n--\n
        Remove *key* and return its value; else *default* if given.

        Raises
        ------
        KeyError
            *key* is absent and there is no default.
        """
        cdef PyObject *old_key
        cdef PyObject *old_value
        if not self.hooks & (CONTAINS | GETITEM | DELITEM):
            if take(self, key, True, &old_key, &old_value):
                value = cxp_given(old_value)
                Py_XDECREF(old_key)
                return value
        elif key in self:
            value = self[key]
            del self[key]
            return value
        else:
            count_miss(self)
        if default is NO_DEFAULT:
            raise KeyError(key)
        return default

    def popitem(self):
        """Remove the least recently used entry and return it as ``(key, value)``.

        Raises
        ------
        KeyError
            The cache is empty.
        """
        cdef uint32_t e
        cdef PyObject *old_key = NULL
        cdef PyObject *old_value = NULL
        cdef bint plain = not self.hooks & DELITEM
        expire_all(self)
        with cython.critical_section(self):
            e = cxp_cache_victim(&self.table)
            if e:
                old_key = <PyObject *>self.table.entries[e].key
                old_value = <PyObject *>self.table.entries[e].value
                if plain:
                    cxp_cache_remove(&self.table, e)
                else:
                    Py_INCREF(<object>old_key)
                    Py_INCREF(<object>old_value)
        if not e:
            raise KeyError(f"{type(self).__name__} is empty") from None
        key = cxp_given(old_key)
        value = cxp_given(old_value)
        if not plain:
            del self[key]
        return key, value

    def setdefault(self, key, default=None):
        """The value of *key*, now the most recently used; else store *default*.

        ``__missing__`` is not called.

        Raises
        ------
        ValueTooLargeError
            *default* would have to be stored and is larger than the cache may be.
        """
        cdef PyObject *value
        if not self.hooks & (CONTAINS | GETITEM | SETITEM):
            value = look(self, key, True, True, NULL)
            if value != NULL:
                return cxp_given(value)
            return put(self, key, default, self.seconds, True)
        if key in self:
            return self[key]
        count_miss(self)
        self[key] = default
        return default

    def clear(self):
        """Remove all entries. on_evict is not told."""
        cdef cxp_lru_table old
        with cython.critical_section(self):
            cxp_cache_detach(&self.table, &old)
            self.fractional = False
        cxp_drop_table(&old)
        if self.preallocated:
            take_memory(self)

    def update(self, other=(), /, **kwds):
        """Store each pair of a mapping or an iterable of pairs, and each keyword."""
        for key, value in support.pairs(other):
            self[key] = value
        for key, value in kwds.items():
            self[key] = value

    def keys(self):
        """The keys as a set-like view, in the order of insertion."""
        return support.CacheKeys(self)

    def values(self):
        """The values as a view, in the order of insertion of their keys.

        Unlike in ``cachetools``, to iterate uses no entry: the order in which they
        will be evicted stays, unless a subclass overrides ``__getitem__``.
        """
        return support.CacheValues(self)

    def items(self):
        """The pairs as a set-like view; see :meth:`values`."""
        return support.CacheItems(self)

    # ---- Beyond the mapping ----

    def peek(self, key, default=None):
        """The value of *key* or *default*, without a trace.

        The entry keeps its place in the order of use and nothing is counted.
        """
        cdef PyObject *value = look(self, key, False, False, NULL)
        return default if value == NULL else cxp_given(value)

    def touch(self, key):
        """Make *key* the most recently used; False when it is absent.

        Its time to live is not renewed, and nothing is counted.
        """
        cdef PyObject *value = look(self, key, True, False, NULL)
        Py_XDECREF(value)
        return value != NULL

    @cython.embedsignature(False)
    def set(self, key, value, *, ttl=MISSING):
        """set($self, key, value, *, ttl='<no default>')\n--\n
        Store *value* under *key*.

        Parameters
        ----------
        key, value
            As in ``cache[key] = value``.
        ttl : float or None, optional
            Seconds this entry lives; None or ``math.inf`` for ever. Without it the
            cache's own. The next store under *key* decides anew.

        Raises
        ------
        ValueTooLargeError
            The value is larger than the cache may be; nothing has changed.

        Examples
        --------
        >>> cache = LRUCache(2, ttl=60)
        >>> cache.set("a", 1, ttl=5)
        >>> cache.set("b", 2, ttl=None)
        >>> cache.time_left("b")
        inf
        """
        if ttl is MISSING:
            put(self, key, value, self.seconds, False)
        else:
            seconds = support.checked_ttl(ttl)
            put(self, key, value, 0 if seconds is None else seconds, False)

    def get_many(self, keys, default=None):
        """``[cache.get(key, default) for key in keys]``.

        Each look-up is atomic, the whole is not.
        """
        return [self.get(key, default) for key in keys]

    def set_many(self, items):
        """Store each pair of a mapping or an iterable of pairs.

        Each store is atomic, the whole is not: after an error the pairs before it
        are stored.
        """
        for key, value in support.pairs(items):
            self[key] = value

    def get_or_compute(self, key, fn):
        """The value of *key*; if it is absent, ``fn(key)``, stored.

        Of several threads that want the same absent key one calls *fn*; the others
        wait and get its value. An exception of *fn* reaches all of them and nothing
        is stored; one that is no ``Exception`` (``KeyboardInterrupt``) stays in its
        own thread, and another takes over. Where waiting would be waiting for oneself
        (*fn* asks for the same key, or two threads each for the other's) *fn* is
        called at once. A value that is too large is returned and not stored.

        Parameters
        ----------
        key
            As in ``cache[key]``.
        fn : callable
            Called as ``fn(key)``, outside any lock.

        Examples
        --------
        >>> cache = LRUCache(2)
        >>> cache.get_or_compute("four", len)
        4
        >>> cache
        LRUCache({'four': 4}, maxsize=2, currsize=1)
        """
        value = self.get(key, MISSING)
        if value is not MISSING:
            return value
        with cython.critical_section(self):
            if self.flights is None:
                self.flights = {}
                cxp_track(self, &self.tracked)
        return support.single_flight(
            self.flights, key, fn, self.peek, self._store_if_it_fits
        )

    def _store_if_it_fits(self, key, value):
        try:
            self[key] = value
        except ValueTooLargeError:
            return

    def resize(self, maxsize):
        """Set the bound; evict, with the reason ``"resize"``, what is over it.

        A subclass that overrides ``popitem`` or ``__delitem__`` sees them called.

        Raises
        ------
        ValueError
            *maxsize* is negative; nothing has changed.
        """
        cdef cxp_dead dead
        cdef uint32_t e
        cdef uint64_t gone
        cdef double now
        cdef bint plain = not self.hooks & (POPITEM | DELITEM)
        maxsize = support.checked_maxsize(maxsize)
        if self.preallocated:
            support.checked_preallocate(maxsize, self.sized)
        now = clock(self) if cxp_lru_timed(&self.table) else -INFINITY
        cxp_dead_init(&dead)
        try:
            with cython.critical_section(self):
                set_bound(self, maxsize)
                e = cxp_lru_first_due(&self.table, now) if is_over(self) else 0
                while e:
                    evict(self, e, CXP_EXPIRED, &dead)
                    e = cxp_lru_first_due(&self.table, now)
                while plain and is_over(self):
                    evict(self, cxp_cache_victim(&self.table), CXP_RESIZE, &dead)
            gone = removed(self)
            while is_over(self):
                ask_popitem(self, CXP_RESIZE, gone, &dead)
                gone = removed(self)
        finally:
            notify(self, &dead)
        if self.preallocated:
            take_memory(self)

    def by_recency(self):
        """The keys, least recently used first: the order of eviction. O(n)."""
        return listing(self, False, True)

    def expire(self):
        """Evict all entries that are due; return how many. O(1) when there are none."""
        return expire_all(self)

    def time_left(self, key):
        """Seconds until *key* expires; ``inf`` if it never does.

        Raises
        ------
        KeyError
            *key* is absent.
        """
        cdef double due = INFINITY
        cdef PyObject *value = look(self, key, False, False, &due)
        if value == NULL:
            raise KeyError(key)
        Py_XDECREF(value)
        return due if due == INFINITY else due - clock(self)

    def stats(self):
        """The counts so far, and what the cache holds now.

        A hit or a miss is counted by ``cache[key]``, ``get``, ``get_many``, ``pop``,
        ``setdefault`` and ``get_or_compute``. ``bytes`` is what the cache's own
        tables take, in the pure-Python twin an estimate.

        Examples
        --------
        >>> cache = LRUCache(2)
        >>> cache.get("a")
        >>> cache.stats().misses
        1
        """
        cdef cxp_lru_table table
        cdef uint64_t evicted[3]
        cdef bint fractional
        cdef size_t more = 0
        cdef object currsize  # not a double, as Cython would infer
        expire_all(self)
        with cython.critical_section(self):
            table = self.table
            evicted[:] = self.evicted
            fractional = self.fractional
            if table.policy != NULL:
                more = cxp_policy_bytes(table.policy)
        if not self.sized:
            currsize = table.used
        elif fractional and table.used:
            currsize = table.total
        else:
            currsize = int(table.total)
        return LRUCacheStats(
            hits=table.hits,
            misses=table.misses,
            inserts=table.inserts,
            evicted_capacity=evicted[CXP_CAPACITY],
            evicted_expired=evicted[CXP_EXPIRED],
            evicted_resize=evicted[CXP_RESIZE],
            size=table.used,
            currsize=currsize,
            maxsize=self.maxsize,
            bytes=cxp_lru_bytes(&table) + more,
        )

    def check(self):
        """Walk all invariants of the tables. O(n); for tests.

        Raises
        ------
        AssertionError
            One is broken.
        """
        cdef int broken
        with cython.critical_section(self):
            broken = cxp_lru_check(&self.table)
            if not broken and is_over(self) and not self.hooks & POPITEM:
                broken = 8
            if not broken and self.table.policy != NULL:
                broken = cxp_policy_check(self.table.policy, &self.table)
                broken = 10 + broken if broken else 0
        if broken:
            raise AssertionError(f"invariant {broken} of the table is broken")

    __class_getitem__ = classmethod(GenericAlias)
    __reversed__ = None
    __signature__ = support.CacheSignature(support.lru_cache_init)
    getsizeof = _GetSizeOf()

    # ---- Copy and pickle ----

    def __reduce__(self):
        return *constructor(type(self)), self.__getstate__()

    def __getstate__(self):
        """Everything but the counts: sizes, time left, both orders."""
        cdef Py_ssize_t count, i
        cdef cxp_record *records
        cdef double now
        cdef list items = [], recency, marks = []
        cdef object size  # or Cython would infer a double, and an int would become one
        expire_all(self)
        now = clock(self) if cxp_lru_timed(&self.table) else 0
        records = cxp_records(self, &self.table, False, &count)
        try:
            recency = [0] * count
            for i in range(count):
                size = records[i].size
                left = None if records[i].due == INFINITY else records[i].due - now
                if not self.fractional:
                    size = int(size)
                pair = cxp_shared(records[i].key), cxp_shared(records[i].value)
                items.append((*pair, size, left))
                recency[records[i].rank] = i
                marks.append(records[i].mark)
        finally:
            cxp_free_records(records, count)
        return {
            "maxsize": self.maxsize,
            "getsizeof": self._getsizeof,
            "ttl": self.ttl,
            "preallocate": self.preallocated,
            "on_evict": self.on_evict,
            "timer": monotonic if self.timer is None else self.timer,
            "items": items,
            "recency": recency,
            "attributes": dict(getattr(self, "__dict__", ())),
            **self._policy_state(marks),
        }

    def _policy_state(self, marks):
        """More for :meth:`__getstate__`, of *nodes*."""
        return {}

    def __setstate__(self, state):
        """Take up what :meth:`__getstate__` gave."""
        cdef cxp_dead dead
        cdef Put put
        if state["attributes"]:
            self.__dict__.update(state["attributes"])
        configure(self, state["maxsize"], state["getsizeof"], state["ttl"],
                  state["preallocate"], state["on_evict"], state["timer"])
        for key, value, size, left in state["items"]:
            put.size = size
            put.fractional = type(size) is float
            put.ttl = 0 if left is None else max(left, 1e-9)
            put.keep = False
            put.old = NULL
            put.now = -INFINITY if left is None else clock(self)
            cxp_key_tag(key, &put.tag)
            cxp_dead_init(&dead)
            try:
                with cython.critical_section(self):
                    put_locked(self, key, value, &put, &dead)
            finally:
                Py_XDECREF(put.old)
                cxp_dead_free(&dead)
        self._restore_order(state)
        with cython.critical_section(self):
            self.table.inserts = self.table.hits = self.table.misses = 0

    def _restore_order(self, state):
        """Bring the entries into the order of use that :meth:`__getstate__` saw."""
        for place in state["recency"]:
            self.touch(state["items"][place][0])


cdef LRUCache specimen = LRUCache(0)
cxp_take_slots(<PyTypeObject *>LRUCache, specimen, &specimen.table)
cxp_take_reads(<PyTypeObject *>LRUCache, specimen, &specimen.hooks,
               CONTAINS | GETITEM, MISSES)
specimen = None
vars(LRUCache)["__signature__"].owner = LRUCache
MutableMapping.register(LRUCache)
