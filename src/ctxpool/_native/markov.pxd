"""MarkovModel for other Cython code, and its model for C.

    from ctxpool._native.markov cimport MarkovModel

    cdef MarkovModel model = MarkovModel()
    model.note(key)                      # model.record(key)
"""

from libc.stdint cimport uint32_t, uint64_t

from ctxpool._native.lru_cache cimport cxp_lru_table


cdef extern from "ctxpool/markov.h" nogil:
    enum:
        CXP_MARKOV_RATES

    ctypedef struct cxp_markov_rate:
        double hits
        double tries

    ctypedef struct cxp_markov_place:
        uint32_t length

    ctypedef struct cxp_markov_guess:
        double chance
        uint32_t id

    ctypedef struct cxp_markov:
        cxp_lru_table keys
        cxp_markov_rate *rates
        cxp_markov_guess *guesses
        uint32_t order
        uint32_t contexts
        uint32_t successors
        cxp_markov_place here

    int cxp_markov_init(cxp_markov *m, uint32_t order, uint32_t contexts,
                        uint32_t successors, const double *hits, const double *tries)
    void cxp_markov_fini(cxp_markov *m)
    size_t cxp_markov_bytes(const cxp_markov *m)
    size_t cxp_markov_len(const cxp_markov *m)
    uint32_t cxp_markov_add(cxp_markov *m, void *key, uint32_t tag)
    void *cxp_markov_take_unused(cxp_markov *m)
    void cxp_markov_use(cxp_markov *m, uint32_t id)
    void cxp_markov_release(cxp_markov *m, uint32_t id)
    void cxp_markov_push(cxp_markov_place *at, uint32_t order, uint32_t id)
    void cxp_markov_record(cxp_markov *m, uint32_t id, uint32_t own)
    void cxp_markov_forget_place(cxp_markov *m)
    uint32_t cxp_markov_predict(cxp_markov *m, const cxp_markov_place *at, uint32_t n)
    uint32_t *cxp_markov_save(const cxp_markov *m, size_t *length)
    int cxp_markov_load(cxp_markov *m, const uint32_t *saved, size_t length,
                        const uint32_t *ids, size_t keys)
    int cxp_markov_check(const cxp_markov *m)


cdef class MarkovModel:
    # Only inside a critical section on the model.
    cdef cxp_markov m
    cdef uint64_t epoch  # counts the times that everything was forgotten
    cdef object features
    cdef object __weakref__

    # model.record(key)
    cdef int note(self, object key) except -1
