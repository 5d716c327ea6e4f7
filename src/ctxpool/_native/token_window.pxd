"""What downstream Cython code may use: the ring in C, and the window around it.

Whoever touches ``window.c`` serialises with the window's methods, by the GIL or by
``cython.critical_section(window)``. A stretch of tokens stays valid for as long as
it is shown (``cxp_ring_show``) and held: ``cxp_gen_hold(gen, section)``, with the
window's ``c.gen`` and ``cxp_ring_section(&c)`` of the moment when it was shown.
"""

from libc.stdint cimport int64_t, uint64_t


cdef extern from "ctxpool/token_ring.h" nogil:
    ctypedef struct cxp_gen:
        size_t nbytes

    ctypedef struct cxp_watch:
        uint64_t low
        cxp_watch *next

    ctypedef struct cxp_ring:
        char *data
        size_t w
        size_t start
        size_t room
        uint64_t evicted
        unsigned size
        bint is_signed
        bint tell
        size_t capacity
        size_t slots
        size_t wall
        size_t sink
        size_t prefix
        size_t viewed
        uint64_t origin
        uint64_t generations
        cxp_gen *gen
        char *pinned
        size_t npinned
        uint64_t repins
        cxp_watch *watches

    cxp_gen *cxp_gen_alone(size_t nbytes)
    void cxp_gen_hold(cxp_gen *gen, size_t section)
    void cxp_gen_drop(cxp_gen *gen, size_t section)
    char *cxp_gen_data(cxp_gen *gen)

    int cxp_ring_init(cxp_ring *ring, size_t capacity, size_t slack, size_t sink,
                      size_t step, bint compact, unsigned size, bint is_signed)
    void cxp_ring_fini(cxp_ring *ring)
    size_t cxp_ring_len(const cxp_ring *ring)
    uint64_t cxp_ring_position(const cxp_ring *ring)
    size_t cxp_ring_section(const cxp_ring *ring)
    size_t cxp_ring_body(const cxp_ring *ring)
    size_t cxp_ring_pins(const cxp_ring *ring, size_t m)
    size_t cxp_ring_overflow(const cxp_ring *ring, size_t m)
    const char *cxp_ring_at(const cxp_ring *ring, size_t i)
    uint64_t cxp_ring_load(const cxp_ring *ring, const char *at)
    void cxp_token_write(char *at, unsigned size, uint64_t token)
    bint cxp_ring_push(cxp_ring *ring, int64_t token)
    char *cxp_ring_tail(const cxp_ring *ring, size_t m)
    bint cxp_ring_fast(cxp_ring *ring, const char *src, size_t m)
    bint cxp_ring_turns(const cxp_ring *ring, size_t m, size_t drop)
    int cxp_ring_extend(cxp_ring *ring, const void *src, size_t m, size_t drop)
    int cxp_ring_popleft(cxp_ring *ring, uint64_t *token)
    int cxp_ring_pop(cxp_ring *ring, uint64_t *token)
    int cxp_ring_clear(cxp_ring *ring)
    size_t cxp_ring_find(const cxp_ring *ring, const char *tokens, size_t n,
                         uint64_t token)
    void cxp_ring_show(cxp_ring *ring, size_t end)
    void cxp_ring_aim(cxp_ring *ring)
    size_t cxp_ring_bytes(const cxp_ring *ring)
    int cxp_ring_check(const cxp_ring *ring)


cdef class Generation:
    cdef cxp_gen *gen
    cdef size_t section


cdef class TokenWindow:
    cdef cxp_ring c
    cdef object _dtype
    cdef object _on_evict
    cdef Generation _holder  # of what was shown last
    cdef Generation _copied  # the tokens in one piece, where the sink lies apart:
    cdef size_t _copied_n    # how many,
    cdef uint64_t _copied_at[4]  # and the state of the ring that they show
    cdef object _overlap
    cdef object _slack
    cdef object _overflow
    cdef bint _made               # __init__ was called
    cdef object __weakref__

    cdef int _add(self, const char *tokens, size_t m, size_t drop)
    cdef Generation _hold(self)
    cdef Generation _reach(self, const char **data, size_t *n)
    cdef object _array(self, Generation holder, const char *data, size_t n)
    cdef int _ready(self) except -1
    cdef int _token(self, object token, uint64_t *bits) except -1
    cdef object _int(self, uint64_t bits)
    cdef int _put(self, const char *tokens, size_t m) except -1
    cdef int _put_telling(self, const char *tokens, size_t m) except -1
    cdef int _put_items(self, object tokens) except -1
    cdef size_t _put_values(self, const void *source, size_t m, size_t size,
                            bint is_signed) except? 0
    cdef int _put_array(self, object tokens) except -1
    cdef bint _put_buffer(self, object tokens) except -1
    cdef bint _put_small_ints(self, object tokens) except -1
    cdef Py_ssize_t _find(self, object token, Py_ssize_t start, Py_ssize_t stop)
    cdef tuple _state(self)
