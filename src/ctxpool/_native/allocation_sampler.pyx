# cython: freethreading_compatible=True
# cython: binding=False, embedsignature=True, embedsignature.format=clinic
"""A sample of CPython's allocations, over csrc/include/ctxpool/alloc_sampler.h.

There is one for the whole process, as there is one set of allocators. What is asked of
it comes from :mod:`ctxpool.monitor.tracing`, which holds a lock meanwhile.
"""

from libc.stdint cimport int32_t, uint32_t, uint64_t

from contextvars import ContextVar

__all__ = ["operation", "places", "start", "stop", "tallies"]

cdef extern from "allocation_sampler_impl.h":
    enum:
        CXP_MOST_DEPTH
        CXP_OPERATION_AT

    ctypedef struct cxp_alloc_place:
        void *where
        int32_t at
        uint32_t parent
        double bytes, count
        double live_bytes, live_count

    ctypedef struct cxp_alloc_sampler:
        uint64_t sampled, dropped, merged
        size_t live
        uint32_t used

    cxp_alloc_sampler cxp_sampler
    int cxp_sampler_init(object operation) except -1
    int cxp_sampler_start(double mean, int depth, uint32_t most) except -1
    cxp_alloc_place *cxp_sampler_copy(uint32_t *used)
    void cxp_sampler_drop(cxp_alloc_place *places, uint32_t used)
    void cxp_sampler_stop()
    bint cxp_is_reached(int domain)
    int cxp_line(object code, int32_t at)

most_depth = CXP_MOST_DEPTH

operation = ContextVar("ctxpool.operation")
cxp_sampler_init(operation)


def start(double mean, int depth, uint32_t most):
    """Begin to sample; nothing is known of what was allocated before."""
    cxp_sampler_start(mean, depth, most)


def stop():
    """Take the hooks out and forget everything."""
    cxp_sampler_stop()


def places():
    """A list of (parent, file or None, function or operation, line, bytes, count,
    live bytes, live count), the root first, parents before what they called."""
    cdef uint32_t i, used
    cdef cxp_alloc_place *found = cxp_sampler_copy(&used)
    cdef cxp_alloc_place *place
    cdef object where
    made = []
    try:
        for i in range(used):
            place = &found[i]
            if place.where is NULL:
                what = None, "", 0
            else:
                where = <object>place.where
                if place.at == CXP_OPERATION_AT:
                    what = None, where, 0
                else:
                    line = cxp_line(where, place.at)
                    what = where.co_filename, where.co_qualname, line
            made.append(
                (place.parent, *what, place.bytes, place.count,
                 place.live_bytes, place.live_count)
            )
    finally:
        cxp_sampler_drop(found, used)
    return made


def tallies():
    """(samples taken, alive, lost for want of memory, merged into a full tree, places,
    whether all three hooks are called)."""
    return (
        cxp_sampler.sampled, cxp_sampler.live, cxp_sampler.dropped, cxp_sampler.merged,
        cxp_sampler.used, cxp_is_reached(0) and cxp_is_reached(1) and cxp_is_reached(2),
    )
