"""CachedFunction and CachedMethod for other Cython code: call them as any object."""

from libc.stdint cimport uint32_t, uint64_t
from cpython.object cimport PyObject

from ctxpool._native.lru_cache cimport LRUCache, cxp_lru_table


cdef extern from "cached_function.h":
    ctypedef PyObject *(*cxp_extras)(PyObject *, PyObject *, PyObject **, size_t,
                                     PyObject *)
    ctypedef double (*cxp_clock)(PyObject *)

    ctypedef struct cxp_cached:
        void *call
        PyObject *function
        PyObject *cache
        PyObject *key
        PyObject *timer
        cxp_lru_table *table
        const uint32_t *capacity
        int *tracked
        uint64_t *evicted
        cxp_extras extras
        cxp_clock clock
        double ttl
        uint64_t uncached
        int typed
        int method
        int first_stays


cdef class CachedFunction:
    cdef cxp_cached c  # first: C finds it there
    cdef object function, key, timer, maxsize, policy, flights
    cdef LRUCache cache
    cdef dict __dict__
    cdef object __weakref__


cdef extern from "cached_method.h":
    ctypedef struct cxp_method:
        void *call
        PyObject *name
        PyObject *homes
        PyObject *last
        void *settle


cdef class CachedMethod:
    cdef cxp_method m  # first: C finds it there
    cdef object function, make
    cdef dict homes             # of instances without a __dict__, by address
    cdef list names             # all that it ever had
    cdef dict __dict__
    cdef object __weakref__
