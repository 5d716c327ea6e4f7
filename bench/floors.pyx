# cython: language_level=3, binding=False, freethreading_compatible=True
"""What no engine can beat: calls that do nothing, a pool with no safety at all, and
memcpy; and a clock around single operations that no interpreter loop disturbs.
Built at run time by floors.py; no part of ctxpool."""

from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec
cimport cython
cimport numpy as cnp


cdef extern from "<sys/resource.h>" nogil:
    cdef struct rusage:
        long ru_nivcsw
    int RUSAGE_THREAD
    int getrusage(int who, rusage *usage)


cnp.import_array()


cdef class Nothing:
    """A method that does nothing, and an empty context manager from a call."""

    def call(self):
        return None

    def acquire(self):
        return self

    def __enter__(self):
        return self

    def __exit__(self, exc_type, exc, tb):
        return None


@cython.freelist(64)
@cython.final
cdef class PlainBlock:
    """Acquired and given back, and nothing is checked but twice giving."""

    cdef PlainPool pool
    cdef unsigned int index

    def release(self):
        if self.pool is not None:
            self.pool.stack[self.pool.free] = self.index
            self.pool.free += 1
            self.pool = None

    def __dealloc__(self):
        if self.pool is not None:
            self.pool.stack[self.pool.free] = self.index
            self.pool.free += 1


@cython.final
cdef class PlainPool:
    cdef unsigned int *stack
    cdef unsigned int free

    def __cinit__(self, unsigned int blocks):
        cdef unsigned int i
        self.stack = <unsigned int *> malloc(blocks * sizeof(unsigned int))
        if self.stack is NULL:
            raise MemoryError
        for i in range(blocks):
            self.stack[i] = i
        self.free = blocks

    def __dealloc__(self):
        free(self.stack)

    def acquire(self):
        if not self.free:
            raise MemoryError
        cdef PlainBlock block = PlainBlock.__new__(PlainBlock)
        self.free -= 1
        block.pool = self
        block.index = self.stack[self.free]
        return block


def touch(cnp.ndarray array):
    """Write a byte of every page of a one-dimensional array of bytes."""
    cdef char *at = <char *> cnp.PyArray_DATA(array)
    cdef char *end = at + cnp.PyArray_NBYTES(array)
    while at < end:
        at[0] = 1
        at += 4096


def copy_round(int[::1] source, int[::1] target, int rounds):
    """memcpy of source to one place of target after another, round and round:
    the destination is as cold as a window's."""
    cdef Py_ssize_t n = source.shape[0], size = target.shape[0], at = 0
    cdef int _round
    if n > size:
        raise ValueError("the source is larger than the target")
    with nogil:
        for _round in range(rounds):
            if at + n > size:
                at = 0
            memcpy(&target[at], &source[0], n * sizeof(int))
            at += n


cdef inline int64_t now() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return t.tv_sec * 1000000000 + t.tv_nsec


cdef inline long switches() noexcept nogil:
    """How often the scheduler took the core away from this thread."""
    cdef rusage usage
    getrusage(RUSAGE_THREAD, &usage)
    return usage.ru_nivcsw


@cython.boundscheck(False)
@cython.wraparound(False)
@cython.cdivision(True)
def timed_stream(
    cache, list keys, Py_ssize_t first, Py_ssize_t capacity, str stream, bint drops,
    int64_t[::1] out,
):
    """Time each single operation of a stream on a cache: out[i] = ns of the i-th.

    The stream goes on at its operation number `first`. "churn" stores key after key,
    round and round; "mixed" reads, after each store, the key that was stored a quarter
    of the capacity before; "nothing" is the clock alone. With `drops` the key stored
    `capacity` stores before is deleted, as part of the store. `keys` are more than
    the capacity.

    Returns the places of those over 10 us in which, or right before which, the
    scheduler took the core away.
    """
    cdef Py_ssize_t n = out.shape[0], ring = len(keys), back = capacity // 4
    cdef Py_ssize_t i, at, stored
    cdef bint mixed = stream == "mixed", nothing = stream == "nothing"
    cdef bint reads, full
    cdef long seen = switches(), count
    cdef int64_t start, previous, end = now()
    cdef object key, old, _value
    if ring <= capacity:
        raise ValueError("the keys are no more than the capacity")
    taken = []
    for i in range(n):
        at = first + i
        stored = at // 2 if mixed else at
        reads = mixed and at & 1
        full = drops and stored >= capacity
        if reads and stored >= back:
            key = keys[(stored - back) % ring]
        else:
            key = keys[stored % ring]
        old = keys[(stored - capacity) % ring] if full else None
        previous = end
        start = now()
        if nothing:
            end = now()
        elif reads:
            _value = cache[key]
            end = now()
        else:
            cache[key] = None
            if full:
                del cache[old]
            end = now()
        out[i] = end - start
        if end - previous > 10000:
            count = switches()
            if count != seen and end - start > 10000:
                taken.append(i)
            seen = count
    return taken
