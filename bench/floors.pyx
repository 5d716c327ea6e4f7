# cython: language_level=3, binding=False, freethreading_compatible=True
"""What no engine can beat: calls that do nothing, a pool with no safety at all, and
memcpy. Built at run time by floors.py; no part of ctxpool."""

from libc.stdlib cimport free, malloc
from libc.string cimport memcpy
cimport cython
cimport numpy as cnp


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
