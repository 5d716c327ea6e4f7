# cython: freethreading_compatible=True
# cython: binding=False, embedsignature=True, embedsignature.format=clinic
# cython: boundscheck=False, wraparound=False, initializedcheck=False
"""NumPy's memory from csrc/include/ctxpool/array_heap.h, by its own hook (NEP 49).

A capsule owns the heap, and every array holds the capsule that its memory came from:
so the heap goes when the last array has gone, and not before.

What NumPy calls runs with its GIL or without one, in any thread: it uses no Python.
"""

from cpython.object cimport PyObject
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_New
from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free

cimport numpy as cnp

cnp.import_array()

cdef extern from "ctxpool/array_heap.h":
    ctypedef struct cxp_array_heap:
        pass
    ctypedef struct cxp_extent:
        cxp_array_heap *heap
        size_t block
    ctypedef struct cxp_heap_counts:
        uint64_t hits, misses, refused, unmapped
        size_t live_blocks, live_bytes, peak_bytes, idle_bytes, mapped_bytes
    size_t cxp_array_heap_block(size_t n) nogil
    void cxp_array_heap_init(cxp_array_heap *heap, size_t keep, size_t limit,
                             size_t huge_from, int prefault) nogil
    void cxp_array_heap_fini(cxp_array_heap *heap) nogil
    void *cxp_array_heap_take(cxp_array_heap *heap, size_t n, int zeroed) nogil
    cxp_extent *cxp_array_heap_find(const void *p) nogil
    void cxp_array_heap_give(cxp_extent *extent, void *p) nogil
    int cxp_array_heap_fit(cxp_extent *extent, void *p, size_t n) nogil
    void cxp_array_heap_move(cxp_extent *extent, void *p, void *to, size_t n) nogil
    size_t cxp_array_heap_warm(cxp_array_heap *heap, size_t size, size_t n) nogil
    size_t cxp_array_heap_trim(cxp_array_heap *heap) nogil
    void cxp_array_heap_count(cxp_array_heap *heap, cxp_heap_counts *counts) nogil
    int cxp_array_heap_check(cxp_array_heap *heap) nogil

cdef extern from "numpy/arrayobject.h":
    # Declared anew, for the functions' exact types.
    ctypedef struct cxp_allocator "PyDataMemAllocator":
        void *ctx
        void *(*malloc)(void *, size_t) noexcept nogil
        void *(*calloc)(void *, size_t, size_t) noexcept nogil
        void *(*realloc)(void *, void *, size_t) noexcept nogil
        void (*free)(void *, void *, size_t) noexcept nogil
    ctypedef struct cxp_handler "PyDataMem_Handler":
        char name[127]
        unsigned char version
        cxp_allocator allocator
    PyObject *PyDataMem_DefaultHandler

cdef extern from *:
    """
    #define CXP_HUGE_FROM ((size_t)2 << 20)
    """
    const size_t CXP_HUGE_FROM
    const size_t SIZE_MAX

cdef const char *MEM_HANDLER = "mem_handler"
cdef dict HUGE_FROM = {"auto": CXP_HUGE_FROM, "always": 0, "never": SIZE_MAX}


cdef struct Pool:
    cxp_handler handler
    cxp_array_heap heap
    cxp_allocator plain  # NumPy's own: for small arrays, and where we have nothing
    size_t min_size
    bint bounded


cdef void *pool_take(Pool *pool, size_t n, int zeroed) noexcept nogil:
    cdef void *p = cxp_array_heap_take(&pool.heap, n, zeroed)
    if p != NULL or pool.bounded:
        return p
    if zeroed:
        return pool.plain.calloc(pool.plain.ctx, n, 1)
    return pool.plain.malloc(pool.plain.ctx, n)


cdef void *pool_malloc(void *ctx, size_t n) noexcept nogil:
    cdef Pool *pool = <Pool *>ctx
    if n < pool.min_size:
        return pool.plain.malloc(pool.plain.ctx, n)
    return pool_take(pool, n, 0)


cdef void *pool_calloc(void *ctx, size_t count, size_t size) noexcept nogil:
    cdef Pool *pool = <Pool *>ctx
    if size and count > SIZE_MAX // size:
        return NULL
    if count * size < pool.min_size:
        return pool.plain.calloc(pool.plain.ctx, count, size)
    return pool_take(pool, count * size, 1)


cdef void *pool_realloc(void *ctx, void *p, size_t n) noexcept nogil:
    cdef Pool *pool = <Pool *>ctx
    cdef cxp_extent *extent = cxp_array_heap_find(p)
    cdef void *moved
    if p == NULL:
        return pool_malloc(ctx, n)
    if extent == NULL:  # how large it was, only the system knows: it stays there
        return pool.plain.realloc(pool.plain.ctx, p, n)
    if cxp_array_heap_fit(extent, p, n) == 0:
        return p
    moved = pool_malloc(ctx, n)
    if moved == NULL:
        return p if n <= extent.block else NULL
    cxp_array_heap_move(extent, p, moved, n)
    return moved


cdef void pool_free(void *ctx, void *p, size_t size) noexcept nogil:
    # NumPy's size is wrong at times; it counts for NumPy's own cache only.
    cdef Pool *pool = <Pool *>ctx
    cdef cxp_extent *extent = cxp_array_heap_find(p)
    if extent == NULL:
        pool.plain.free(pool.plain.ctx, p, size)
    else:
        cxp_array_heap_give(extent, p)


cdef void destroy(object capsule) noexcept:
    cdef Pool *pool = <Pool *>PyCapsule_GetPointer(capsule, MEM_HANDLER)
    cdef cxp_heap_counts counts
    cxp_array_heap_count(&pool.heap, &counts)
    if counts.live_blocks:
        # Foreign code took memory out of an array, and may yet come to free it.
        cxp_array_heap_trim(&pool.heap)
        return
    cxp_array_heap_fini(&pool.heap)
    free(pool)


def current_handler():
    """The capsule of the handler that NumPy uses in this context."""
    return cnp.PyDataMem_GetHandler()


def set_handler(capsule):
    """Let NumPy use a handler in this context; the one before. TypeError, ValueError
    for what is none."""
    return cnp.PyDataMem_SetHandler(capsule)


cdef class ArrayHeap:
    """A heap and its handler. Sizes are in bytes; the caller has checked them."""

    cdef readonly object capsule
    cdef Pool *pool

    def __cinit__(self, size_t keep, limit, size_t min_size, huge_pages, bint prefault,
                  bytes name not None):
        cdef cxp_handler *plain = <cxp_handler *>PyCapsule_GetPointer(
            <object>PyDataMem_DefaultHandler, MEM_HANDLER)
        cdef size_t huge_from = HUGE_FROM[huge_pages]
        cdef size_t most = SIZE_MAX if limit is None else limit
        cdef Py_ssize_t i
        cdef Pool *pool = <Pool *>calloc(1, sizeof(Pool))
        if pool == NULL:
            raise MemoryError("no memory for a pool")
        for i in range(min(len(name), <Py_ssize_t>sizeof(pool.handler.name) - 1)):
            pool.handler.name[i] = name[i]
        pool.handler.version = 1
        pool.handler.allocator.ctx = pool
        pool.handler.allocator.malloc = pool_malloc
        pool.handler.allocator.calloc = pool_calloc
        pool.handler.allocator.realloc = pool_realloc
        pool.handler.allocator.free = pool_free
        pool.plain = plain.allocator
        pool.min_size = min_size
        pool.bounded = limit is not None
        cxp_array_heap_init(&pool.heap, keep, most, huge_from, prefault)
        try:
            self.capsule = PyCapsule_New(pool, MEM_HANDLER, destroy)
        except BaseException:
            cxp_array_heap_fini(&pool.heap)
            free(pool)
            raise
        self.pool = pool

    def owns(self, cnp.ndarray array not None):
        """Whether the array's own memory is a block of this heap."""
        cdef cxp_extent *extent = cxp_array_heap_find(cnp.PyArray_DATA(array))
        return (extent != NULL and extent.heap == &self.pool.heap
                and bool(array.flags.owndata))

    @staticmethod
    def block(size_t n):
        """Bytes of the block for n bytes, 0 where there is none so large."""
        return cxp_array_heap_block(n)

    def warm(self, size_t size, size_t n):
        """Make n blocks free and resident; how many are."""
        cdef size_t warm
        with nogil:
            warm = cxp_array_heap_warm(&self.pool.heap, size, n)
        return warm

    def trim(self):
        """Give free memory back; bytes that were resident."""
        cdef size_t freed
        with nogil:
            freed = cxp_array_heap_trim(&self.pool.heap)
        return freed

    def counts(self):
        """The counts of array_heap.h, by name."""
        cdef cxp_heap_counts counts
        cxp_array_heap_count(&self.pool.heap, &counts)
        return counts

    def check(self):
        """0, or the line in array_heap.c of the invariant that is broken."""
        return cxp_array_heap_check(&self.pool.heap)
