"""LRUCache for other Cython code, and its table for C.

    from ctxpool._native.lru_cache cimport LRUCache

    cdef LRUCache cache = LRUCache(1000)
    cache.store(key, value)              # cache[key] = value
    value = cache.lookup(key, None)      # cache.get(key)
"""

from libc.stdint cimport uint32_t, uint64_t


cdef extern from "ctxpool/cache_policy.h" nogil:
    ctypedef struct cxp_policy:
        uint32_t kind
        uint32_t next_kind

    void cxp_policy_init(cxp_policy *p, uint32_t kind)
    size_t cxp_policy_bytes(const cxp_policy *p)
    int cxp_policy_preallocate(cxp_policy *p, const cxp_lru_table *t)
    void cxp_policy_restore(cxp_policy *p, cxp_lru_table *t, const uint32_t *marks)
    int cxp_policy_check(const cxp_policy *p, const cxp_lru_table *t)
    void cxp_cache_use(cxp_lru_table *t, uint32_t e)
    uint32_t cxp_cache_victim(cxp_lru_table *t)
    uint32_t cxp_cache_insert(cxp_lru_table *t, void *key, void *value, uint32_t tag)
    void cxp_cache_remove(cxp_lru_table *t, uint32_t e)
    void cxp_cache_detach(cxp_lru_table *t, cxp_lru_table *old)


cdef extern from "ctxpool/lru_table.h" nogil:
    ctypedef struct cxp_lru_entry:
        void *key
        void *value
        uint32_t tag
        uint32_t seq
        uint32_t prev
        uint32_t next

    ctypedef struct cxp_lru_table:
        cxp_lru_entry *entries
        cxp_policy *policy
        uint32_t used
        uint32_t high
        uint32_t allocated
        uint32_t limit
        uint32_t mask
        uint64_t version
        uint64_t hits
        uint64_t misses
        uint64_t inserts
        double *sizes
        double total
        double *due
        uint32_t *place
        uint32_t due_count

    void cxp_lru_init(cxp_lru_table *t)
    void cxp_lru_fini(cxp_lru_table *t)
    void cxp_lru_detach(cxp_lru_table *t, cxp_lru_table *old)
    size_t cxp_lru_bytes(const cxp_lru_table *t)
    uint32_t cxp_lru_tag(uint64_t hash)
    uint32_t cxp_lru_first(const cxp_lru_table *t, uint32_t tag, uint32_t *at)
    uint32_t cxp_lru_next(const cxp_lru_table *t, uint32_t tag, uint32_t *at)
    uint32_t cxp_lru_len(const cxp_lru_table *t)
    bint cxp_lru_timed(const cxp_lru_table *t)
    uint32_t cxp_lru_oldest(const cxp_lru_table *t)
    uint32_t cxp_lru_newer(const cxp_lru_table *t, uint32_t e)
    void cxp_lru_promote(cxp_lru_table *t, uint32_t e)
    uint32_t *cxp_lru_in_order(const cxp_lru_table *t)
    int cxp_lru_reserve(cxp_lru_table *t, uint32_t n)
    void cxp_lru_prefault(cxp_lru_table *t)
    int cxp_lru_use_sizes(cxp_lru_table *t)
    int cxp_lru_use_due(cxp_lru_table *t)
    void cxp_lru_set_due(cxp_lru_table *t, uint32_t e, double when)
    void cxp_lru_no_due(cxp_lru_table *t, uint32_t e)
    bint cxp_lru_is_due(const cxp_lru_table *t, uint32_t e, double now)
    uint32_t cxp_lru_first_due(const cxp_lru_table *t, double now)
    uint32_t cxp_lru_insert(cxp_lru_table *t, void *key, void *value, uint32_t tag)
    void cxp_lru_set_size(cxp_lru_table *t, uint32_t e, double size)
    void cxp_lru_remove(cxp_lru_table *t, uint32_t e)
    int cxp_lru_check(const cxp_lru_table *t)


cdef class LRUCache:
    # Only inside a critical section on the cache, and only to be read.
    cdef cxp_lru_table table

    cdef uint32_t capacity      # most entries, where each counts 1
    cdef int tracked            # the garbage collector sees this cache
    cdef bint plain             # store() may take the short way
    cdef bint sized
    cdef bint fractional        # some size was a float
    cdef bint preallocated
    cdef unsigned int hooks     # which methods a subclass overrides
    cdef double most            # maxsize
    cdef double seconds         # ttl; 0: none
    cdef uint64_t evicted[3]
    cdef readonly object _getsizeof
    cdef object bound, on_evict, timer, flights
    cdef object __weakref__

    # cache.get(key, default): promotes and counts.
    cdef object lookup(self, object key, object default)
    # cache[key] = value
    cdef int store(self, object key, object value) except -1
