# cython: freethreading_compatible=True
# cython: binding=False, embedsignature=True, embedsignature.format=clinic
"""Cache: an LRUCache whose table has a policy (csrc/include/ctxpool/cache_policy.h).

Its critical section is on the cache itself, against any other call on it.
"""

cimport cython
from cpython.object cimport PyObject, PyTypeObject
from libc.stdint cimport uint32_t
from libc.stdlib cimport calloc, free

from ctxpool._native.lru_cache cimport (
    LRUCache, cxp_lru_in_order, cxp_lru_promote, cxp_policy_init, cxp_policy_restore,
)

import time
from types import MethodDescriptorType

from .. import _cache_support as support

__all__ = ["Cache"]

cdef extern from "Python.h":
    ctypedef struct PyMethodDef:
        pass
    ctypedef struct PyMethodDescrObject:
        PyMethodDef *d_method
    ctypedef struct Type "PyTypeObject":
        PyObject *tp_dict
    object PyDescr_NewMethod(PyTypeObject *type, PyMethodDef *method)
    void PyType_Modified(PyTypeObject *type)

cdef object monotonic = time.monotonic


cdef class Cache(LRUCache):
    """A mapping with a bound, and a choice of what goes when it is full.

    In everything else it is the :class:`LRUCache` that it derives from: what a use is,
    what expires, what is counted, what a subclass may override. ``by_recency()`` gives
    the order of the policy's queues, and ``popitem()`` the entry that the policy
    would drop.

    Parameters
    ----------
    maxsize : int or float
        The bound of ``currsize``; ``math.inf`` for none.
    policy : str
        ``"s3fifo"``, the one to begin with: new entries wait in a small queue, a tenth
        of all; those used twice there, or back soon after they went, enter the main
        queue, where those that were used go round again. Scans pass through. **It can
        fall far below LRU** (40 points on one trace) where keys are read once up and
        once down: each comes back just after it left the small queue. Yang et al.,
        *FIFO queues are all you need for cache eviction*, SOSP 2023.

        ``"sieve"``: one queue and a hand that spares, once, what was used since it
        last came by. The cheapest hit. **It can fall far below LRU** (30 points on
        some traces) where keys are read in turns that the hand outlives. Zhang et al.,
        *SIEVE is simpler than LRU*, NSDI 2024.

        ``"adaptive"``: LRU, or W-TinyLFU (below) with a window of 1 % or of 25 %, as of
        late did best. All three run in miniature on a sample of the keys, and LRU has
        the cache back as soon as the other falls behind it: on public traces 10 points
        above LRU in the mean, **nowhere more than 1 below**. The choice is that of the
        mini-simulation in Einziger, Eytan, Friedman, Manes, *Adaptive software cache
        management*, Middleware 2018; the sample that of Waldspurger et al., *Cache
        modeling and optimization using miniature simulations*, USENIX ATC 2017; the
        scores are bounded sums as in Page, *Continuous inspection schemes*, Biometrika
        41 (1954).

        ``"tinylfu"``: W-TinyLFU. New entries wait in a small window; what leaves it has
        to have been asked for more often than what the main part, a segmented LRU,
        would drop for it. The window starts at 1 % and climbs with the hit ratio, a
        step each ten requests an entry. **It can fall below LRU**: by 12 points on one
        trace (keys read once up and once down) and by 3 on another, by 8 to 16 where
        what is popular changes fast. Einziger, Friedman, Manes, *TinyLFU: a highly
        efficient cache admission policy*, ACM TOS 13 (2017), and *Adaptive software
        cache management*.

        ``"lru"``: the least recently used; Mattson et al., *Evaluation techniques for
        storage hierarchies*, IBM Systems Journal 9 (1970).

        ``"fifo"``: the oldest; uses count for nothing, which **can cost far more** than
        LRU. Belady, *A study of replacement algorithms for a virtual-storage computer*,
        IBM Systems Journal 5 (1966).

        ``"lfu"``: the least often used, of several the least recently used, by lists
        in O(1): Shah, Mitra, Matani, *An O(1) algorithm for implementing the LFU cache
        eviction scheme* (2010). **It can fall far below LRU**: what was once popular
        stays.

        ``"mru"``: the most recently used, for endless loops over more than fits; Chou
        and DeWitt, *An evaluation of buffer management strategies*, VLDB 1985. **Far
        below LRU** elsewhere.

        ``"rr"``: any, by a generator of fixed seed (splitmix64: Steele et al., *Fast
        splittable pseudorandom number generators*, OOPSLA 2014); the policy of Belady
        (1966) that no pattern of access defeats, if it does not know the seed.
    getsizeof, ttl, preallocate, on_evict, timer
        As for :class:`LRUCache`. Shares of a cache, such as the small queue's tenth,
        are shares of its entries, whatever their sizes.

    Notes
    -----
    A hit moves nothing with ``fifo``, ``rr``, ``sieve`` and ``s3fifo``. Look-up, store
    and making room are O(1), making room amortised with ``sieve``, which now and then
    passes by all entries; ``s3fifo`` does so with 32 at most before the next goes all
    the same. Native, a hit of ``tinylfu`` takes up to 1.4 times as long as one of
    ``s3fifo``, one of ``adaptive`` up to 1.9 times, in the smallest caches.

    Beside the entries of an LRUCache: 1 byte an entry with ``sieve``, 15 to 30 with
    ``s3fifo`` (it remembers the hashes of nearly as many evicted keys), 8 with ``rr``,
    12 with ``lfu``, 10 with ``tinylfu``. ``adaptive`` has the 10 of ``tinylfu`` and its
    miniatures: 100 to 280 bytes an entry up to 512 entries, 90 KB in all up to 32,768,
    1 to 4 bytes an entry beyond.

    A copy or pickle keeps the order and what is known of each entry, and forgets the
    evicted keys. ``adaptive`` and ``tinylfu`` keep the window they had chosen, and
    begin their measurements anew. They decide by nothing but the sequence of calls and
    the hashes of the keys: no clock, no seed from outside.

    Raises
    ------
    ValueError
        There is no such policy, or a number is out of its range.
    TypeError
        An argument is of the wrong type.

    Examples
    --------
    >>> cache = Cache(3, "sieve")
    >>> cache.update(a=1, b=2, c=3)
    >>> cache["a"]
    1
    >>> cache["d"] = 4                 # "b" is the oldest that was not used
    >>> list(cache)
    ['a', 'c', 'd']
    """

    def __cinit__(self):
        cxp_policy_init(&self.state, <uint32_t>support.POLICIES.index("s3fifo"))
        self.table.policy = &self.state

    @cython.embedsignature(False)
    def __init__(self, maxsize, policy="s3fifo", getsizeof=None, *, ttl=None,
                 preallocate=False, on_evict=None, timer=monotonic):
        self.state.next_kind = support.POLICIES.index(support.checked_policy(policy))
        try:
            LRUCache.__init__(self, maxsize, getsizeof, ttl=ttl, on_evict=on_evict,
                              preallocate=preallocate, timer=timer)
        finally:
            self.state.next_kind = self.state.kind

    @property
    def policy(self):
        """The name of the policy."""
        return support.POLICIES[self.state.kind]

    __signature__ = support.CacheSignature(support.cache_init)

    def _policy_state(self, marks):
        return {"policy": self.policy, "marks": marks}

    def __setstate__(self, state):
        """Take up what :meth:`__getstate__` gave."""
        self.state.next_kind = support.POLICIES.index(
            support.checked_policy(state["policy"])
        )
        LRUCache.__setstate__(self, state)

    def _restore_order(self, state):
        cdef list recency = state["recency"], marks = state["marks"]
        cdef Py_ssize_t i, n = len(recency)
        cdef uint32_t e
        cdef uint32_t *order = NULL
        cdef uint32_t *places = <uint32_t *>calloc(<size_t>n + 1, 2 * sizeof(uint32_t))
        cdef uint32_t *known = NULL
        if places == NULL:
            raise MemoryError("no memory to copy a cache")
        try:
            for i in range(n):
                places[i] = recency[i]
                places[n + i] = marks[i]
                if places[i] >= n:
                    raise ValueError(f"no entry {recency[i]!r} in the state of a cache")
            with cython.critical_section(self):
                if self.table.used == n:
                    order = cxp_lru_in_order(&self.table)
                    known = <uint32_t *>calloc(<size_t>self.table.allocated + 1,
                                               sizeof(uint32_t))
                    if order != NULL and known != NULL:
                        for i in range(n):
                            e = order[places[i]]
                            known[e] = places[n + places[i]]
                            cxp_lru_promote(&self.table, e)
                        cxp_policy_restore(&self.state, &self.table, known)
        finally:
            free(places)
            free(order)
            free(known)


# What LRUCache made of its slots holds for all that we add, too: no references.
(<PyTypeObject *>Cache).tp_traverse = (<PyTypeObject *>LRUCache).tp_traverse
(<PyTypeObject *>Cache).tp_clear = (<PyTypeObject *>LRUCache).tp_clear
(<PyTypeObject *>Cache).tp_dealloc = (<PyTypeObject *>LRUCache).tp_dealloc
vars(Cache)["__signature__"].owner = Cache


cdef int own_methods() except -1:
    """Make inherited methods Cache's own: the interpreter's quick call of a method in C
    is for instances of the very type that it was made for, and saves 10 ns."""
    cdef dict names = <dict>(<Type *>Cache).tp_dict
    for name, method in vars(LRUCache).items():
        # popitem: were it another here than there, it would count as overridden.
        if (type(method) is MethodDescriptorType and name not in names
                and name != "popitem"):
            names[name] = PyDescr_NewMethod(
                <PyTypeObject *>Cache, (<PyMethodDescrObject *>method).d_method)
    PyType_Modified(<PyTypeObject *>Cache)
    return 0


own_methods()
