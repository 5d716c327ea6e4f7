"""The blocks in C, and the manager around them.

Whoever touches ``manager.c`` serialises with the manager's methods, by the GIL or by
``cython.critical_section(manager)``. Of the functions only those of token_hash.h are
inline: who calls the others compiles csrc/src/prefix_blocks.c, too.
"""

from libc.stdint cimport int32_t, uint32_t, uint64_t


cdef extern from "ctxpool/token_hash.h" nogil:
    ctypedef struct cxp_hash:
        uint64_t low
        uint64_t high

    cxp_hash cxp_hash_extend(cxp_hash hash, const cxp_hash *powers,
                             const int32_t *tokens, size_t n)


cdef extern from "ctxpool/prefix_blocks.h" nogil:
    enum:
        CXP_PREFIX_STORED
        CXP_PREFIX_REMOVED
        CXP_PREFIX_CLEARED

    ctypedef struct cxp_prefix_block:
        cxp_hash hash
        uint32_t refs
        uint32_t flags

    ctypedef struct cxp_prefix_sequence:
        uint32_t *blocks
        uint32_t nblocks
        uint64_t tokens

    ctypedef struct cxp_prefix_event:
        cxp_hash hash
        cxp_hash parent
        uint32_t kind
        uint32_t block

    ctypedef struct cxp_prefix_growth:
        uint32_t added
        uint32_t copied_from

    ctypedef struct cxp_prefix_blocks:
        cxp_prefix_block *blocks
        int32_t *tokens
        cxp_hash *powers
        uint32_t num_blocks
        uint32_t block_size
        uint32_t nfree
        uint32_t ncached
        uint32_t peak
        uint32_t live
        size_t event_room
        size_t event_count
        uint64_t queried_tokens
        uint64_t hit_tokens
        uint64_t evictions
        uint64_t exhausted
        uint64_t events_dropped

    int cxp_prefix_init(cxp_prefix_blocks *p, uint32_t num_blocks, uint32_t block_size,
                        bint verify, size_t events, cxp_hash key)
    void cxp_prefix_fini(cxp_prefix_blocks *p)
    size_t cxp_prefix_lookup(const cxp_prefix_blocks *p, cxp_hash start,
                             const int32_t *tokens, size_t n)
    size_t cxp_prefix_touch(cxp_prefix_blocks *p, cxp_hash start,
                            const int32_t *tokens, size_t n)
    int cxp_prefix_allocate(cxp_prefix_blocks *p, cxp_hash start, const int32_t *tokens,
                            size_t n, uint64_t *handle, int32_t *out, size_t *cached)
    cxp_prefix_sequence *cxp_prefix_find(const cxp_prefix_blocks *p, uint64_t handle)
    size_t cxp_prefix_wanted(const cxp_prefix_blocks *p, const cxp_prefix_sequence *s,
                             size_t n)
    int cxp_prefix_append(cxp_prefix_blocks *p, cxp_prefix_sequence *s,
                          const int32_t *tokens, size_t n, int32_t *fresh,
                          cxp_prefix_growth *growth)
    int cxp_prefix_fork(cxp_prefix_blocks *p, uint64_t handle, uint64_t *forked)
    void cxp_prefix_free(cxp_prefix_blocks *p, uint64_t handle, uint32_t computed)
    int cxp_prefix_take(cxp_prefix_blocks *p, size_t n, int32_t *out)
    size_t cxp_prefix_give(cxp_prefix_blocks *p, const int32_t *blocks, size_t n)
    uint32_t cxp_prefix_reset(cxp_prefix_blocks *p)
    bint cxp_prefix_next_event(cxp_prefix_blocks *p, cxp_prefix_event *event)
    int cxp_prefix_check(const cxp_prefix_blocks *p)


cdef class PrefixBlockManager:
    cdef cxp_prefix_blocks c
    cdef cxp_hash _unsalted  # the hash of no tokens
    cdef bint _made          # __init__ was called
    cdef object __weakref__

    cdef int _ready(self) except -1
    cdef int _start(self, salt, cxp_hash *start) except -1
