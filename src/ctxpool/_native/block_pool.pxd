"""The block pool: ``from ctxpool._native.block_pool cimport BlockPool``.

Compile with ``ctxpool.get_include()`` and ``numpy.get_include()`` on the include path.
"""

from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint32_t, uint64_t


cdef extern from "ctxpool/block_pool.h" nogil:
    const uint32_t CXP_NO_BLOCK
    const uint32_t CXP_MAX_BLOCKS
    enum:
        CXP_FREE
        CXP_BY_LEASE
        CXP_BY_INDEX
        CXP_ZERO_ON_TAKE
        CXP_ZERO_ON_GIVE
        CXP_DEBUG
        CXP_CLOSED

    ctypedef struct cxp_vm:
        void *map
        unsigned char *base
        size_t size

    ctypedef struct cxp_block_pool:
        uint32_t *stack
        uint32_t *slot
        unsigned char *base
        size_t stride
        size_t block_size
        uint32_t nfree
        uint32_t fresh
        uint32_t in_use
        uint32_t peak
        uint32_t flags
        uint32_t blocks
        uint32_t max_blocks
        uint64_t takes
        uint64_t gives
        uint32_t absent
        uint32_t idle
        uint32_t slab_shift
        uint64_t padding
        cxp_vm vm

    int cxp_block_pool_init(cxp_block_pool *pool, size_t block_size, uint32_t blocks,
                            uint32_t max_blocks, size_t alignment, uint32_t flags,
                            int huge, int prefault)
    void cxp_block_pool_fini(cxp_block_pool *pool)
    uint32_t cxp_block_pool_grow(cxp_block_pool *pool, uint32_t more)
    int cxp_block_pool_use_slabs(cxp_block_pool *pool, uint32_t shift)
    uint32_t cxp_block_pool_reserve(cxp_block_pool *pool, uint32_t more)
    void cxp_block_pool_present(cxp_block_pool *pool, uint32_t first, uint32_t n)
    int cxp_block_pool_withdraw(cxp_block_pool *pool, uint32_t first, uint32_t n)
    uint32_t cxp_block_pool_idle(const cxp_block_pool *pool)
    void cxp_block_pool_close(cxp_block_pool *pool)
    void cxp_block_pool_pin(cxp_block_pool *pool)
    void cxp_block_pool_unpin(cxp_block_pool *pool)
    size_t cxp_block_pool_trim(cxp_block_pool *pool)
    int cxp_block_pool_mend(cxp_block_pool *pool, uint32_t index)
    void cxp_block_pool_pass(cxp_block_pool *pool, uint32_t index, uint32_t owner)
    int64_t cxp_block_pool_check(const cxp_block_pool *pool)

    void *cxp_block_pool_at(const cxp_block_pool *pool, uint32_t index)
    uint32_t cxp_block_pool_owner(const cxp_block_pool *pool, uint32_t index)
    uint32_t cxp_block_pool_generation(const cxp_block_pool *pool, uint32_t index)
    uint32_t cxp_block_pool_available(const cxp_block_pool *pool)
    uint32_t cxp_block_pool_take(cxp_block_pool *pool, uint32_t owner)
    uint32_t cxp_block_pool_take_checked(cxp_block_pool *pool, uint32_t owner,
                                         int *disturbed)
    int cxp_block_pool_give(cxp_block_pool *pool, uint32_t index, uint32_t owner)
    int cxp_block_pool_take_many(cxp_block_pool *pool, uint32_t owner,
                                 uint32_t *indices, size_t n, int *disturbed)
    int64_t cxp_block_pool_give_many(cxp_block_pool *pool, const uint32_t *indices,
                                     size_t n, uint32_t owner)

    int cxp_vm_advise_fork(const cxp_vm *vm, int mode)
    int cxp_vm_populate(void *p, size_t n)
    size_t cxp_vm_discard(void *p, size_t n, int lazy)


cdef class Block


cdef class BlockPool:
    # Take from it and give to it with CXP_BY_INDEX, holding the GIL (or, on a
    # free-threaded build, the object's critical section): a pool that threads of
    # Python use at the same time has no other lock.
    cdef cxp_block_pool c
    cdef object __weakref__
    cdef object _name
    cdef object _on_exhausted
    cdef object _waiters          # deque of Waiter
    cdef dict _places             # debug: index -> where it was acquired
    cdef void **_views            # per block: a memoryview that sleeps, see Block
    cdef size_t _alignment
    cdef double _timeout
    cdef bint _debug
    cdef bint _closed
    cdef bint _slow               # debug, hooks, or somebody waited once: see _give
    cdef bint _prefault
    cdef bint _pinned             # for the hooks: only _finish lets the slab go
    cdef uint32_t _slab           # blocks that come and go together; 0: none do
    cdef uint32_t _coming         # calls of on_create that go on
    cdef object _on_create
    cdef object _on_destroy
    cdef object _listener         # called when a slab became wholly free, or None
    cdef list _ranges             # (first, n) that on_destroy is to be told of
    cdef list _holes              # (first, n) that are absent, to be used again
    cdef uint32_t _waiting        # len(_waiters)
    cdef uint32_t _deferred
    cdef uint64_t _waits
    cdef uint64_t _exhausted
    cdef uint64_t _heap
    cdef uint64_t _heap_released

    cdef uint32_t _take(self, uint32_t owner, object timeout,
                        bint heap) except? CXP_NO_BLOCK
    cdef uint32_t _take_slow(self, uint32_t owner, object timeout,
                             bint heap) except? CXP_NO_BLOCK
    cdef double _patience(self, timeout) except? -1
    cdef uint32_t _extend(self, uint32_t more, bint holes) except? CXP_NO_BLOCK
    cdef uint32_t _more(self, size_t needed) except? CXP_NO_BLOCK
    cdef int _finish(self) noexcept
    cdef int _tell(self, object hook, uint32_t first, uint32_t n) noexcept
    cdef int _notify(self) noexcept
    cdef size_t _size_of(self, object size) except? 0
    cdef int _take_many(self, uint32_t owner, uint32_t *indices, size_t n) except -1
    cdef int _give(self, uint32_t index, uint32_t owner) noexcept
    cdef int _hand_over(self) except -1
    cdef int _inspect(self, uint32_t index, uint32_t owner, bint disturbed) except -1
    cdef int _refuse(self, size_t n) except -1
    cdef int _check_open(self) except -1
    cdef int64_t _check_index(self, object number) except -1
    cdef int _forget_views(self) noexcept
    cdef PyObject *_acquire_lease(self) except NULL
    cdef Block _heap_block(self, size_t size)


# The fields of these two are raw references, owned unless said otherwise: their
# allocation and deallocation are written by hand.
cdef class _Lease:
    cdef PyObject *pool     # BlockPool; NULL while the lease sleeps
    cdef void *memory
    cdef size_t size        # bytes that its user asked for
    cdef uint32_t index
    cdef bint deferred


cdef class Block:
    cdef PyObject *pool_    # BlockPool; NULL: the block is dead
    cdef PyObject *lease_   # _Lease or NULL
    cdef PyObject *view_    # memoryview over the lease, or NULL
    cdef size_t size_
    cdef uint32_t index_

    cdef int _dead(self) except -1
    cdef PyObject *_get_lease(self) except NULL
    cdef object _get_view(self)
    cdef bint _quiescent(self) noexcept
    cdef int _release(self, bint strict) except -1
    cdef int _release_locked(self, bint strict) except -1
