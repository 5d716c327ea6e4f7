"""Cache for other Cython code: an LRUCache with a policy."""

from ctxpool._native.lru_cache cimport LRUCache, cxp_policy


cdef class Cache(LRUCache):
    # Only inside a critical section on the cache, and only to be read.
    cdef cxp_policy state
