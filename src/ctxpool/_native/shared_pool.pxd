"""The shared pool's C interface."""

from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint32_t, uint64_t


cdef extern from "ctxpool/shared_pool.h" nogil:
    const uint32_t CXP_SHARED_NONE
    const uint32_t CXP_SHARED_PARTICIPANTS

    ctypedef struct cxp_shared_slot:
        uint32_t pid
        uint32_t incarnation
        uint64_t since_ns
        uint64_t takes, opens, gives, sends, waits, exhausted, recovered

    ctypedef struct cxp_shared_header:
        char name[32]
        uint64_t alignment
        cxp_shared_slot slot[32]

    ctypedef struct cxp_shared_pool:
        cxp_shared_header *header
        uint64_t *since
        unsigned char *base
        size_t block_size
        size_t stride
        size_t map_size
        uint64_t id
        uint32_t blocks
        uint32_t slot
        uint32_t held
        uint32_t waiters
        uint32_t forks
        int fd

    int cxp_shared_create(cxp_shared_pool *pool, size_t block_size, uint32_t blocks,
                          size_t alignment, const char *name, int reserve)
    int cxp_shared_attach(cxp_shared_pool *pool, int fd)
    int cxp_shared_rejoin(cxp_shared_pool *pool)
    void cxp_shared_fini(cxp_shared_pool *pool)
    uint32_t cxp_shared_take(cxp_shared_pool *pool)
    int cxp_shared_open(cxp_shared_pool *pool, uint32_t index, uint32_t generation,
                        int moved)
    int cxp_shared_give(cxp_shared_pool *pool, uint32_t index)
    int cxp_shared_send(cxp_shared_pool *pool, uint32_t index, uint32_t keeper,
                        uint32_t incarnation)
    uint32_t cxp_shared_recover(cxp_shared_pool *pool)
    int cxp_shared_alive(cxp_shared_pool *pool, uint32_t slot)
    void cxp_shared_wait_begin(cxp_shared_pool *pool)
    void cxp_shared_wait_end(cxp_shared_pool *pool)
    uint32_t cxp_shared_seen(const cxp_shared_pool *pool)
    void cxp_shared_wait(const cxp_shared_pool *pool, uint32_t seen, uint64_t ns)
    uint64_t cxp_shared_now()
    int64_t cxp_shared_check(const cxp_shared_pool *pool)
    uint64_t cxp_shared_word(const cxp_shared_pool *pool, uint32_t index)
    uint32_t cxp_shared_generation(uint64_t word)
    int cxp_shared_is_free(uint64_t word)
    void *cxp_shared_at(const cxp_shared_pool *pool, uint32_t index)


cdef class SharedBlockPool:
    cdef cxp_shared_pool c
    cdef object __weakref__
    cdef object _name
    cdef object _alignment
    cdef uint32_t _blocks
    cdef size_t _size
    cdef size_t _bytes
    cdef double _timeout
    cdef bint _waits
    cdef bint _made
    cdef bint _closed
    cdef uint32_t _leases    # objects that reach the mapping
    cdef uint32_t _deferred  # of them, those whose block is dead

    cdef int _begin(self, object on_exhausted, object timeout) except -1
    cdef int _know(self) except -1
    cdef int _open(self) except -1
    cdef int _join(self) except -1
    cdef int _finish(self) noexcept
    cdef int _give(self, uint32_t index, uint32_t forks) noexcept
    cdef SharedBlock _try(self)
    cdef SharedBlock _block(self, uint32_t index, uint32_t generation)


cdef class _Lease:
    cdef SharedBlockPool pool
    cdef void *memory
    cdef uint32_t index
    cdef uint32_t forks
    cdef bint deferred


cdef class SharedBlock:
    cdef SharedBlockPool _pool  # None: the block is dead
    cdef _Lease _lease          # or None
    cdef object _view           # or None
    cdef uint32_t _index
    cdef uint32_t _generation
    cdef uint32_t _forks        # of the pool, when this was made

    cdef SharedBlockPool _living(self)
    cdef _Lease _get_lease(self)
    cdef bint _quiescent(self) noexcept
    cdef int _let_go(self) noexcept
