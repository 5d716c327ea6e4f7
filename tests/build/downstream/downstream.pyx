# cython: language_level=3, freethreading_compatible=True
"""Somebody else's extension: blocks and the table, from C, without the GIL."""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from ctxpool._native.block_pool cimport (
    CXP_BY_INDEX,
    CXP_NO_BLOCK,
    BlockPool,
    cxp_block_pool,
    cxp_block_pool_at,
    cxp_block_pool_give,
    cxp_block_pool_take,
)
from ctxpool._native.lru_cache cimport (
    cxp_lru_check,
    cxp_lru_fini,
    cxp_lru_first,
    cxp_lru_init,
    cxp_lru_insert,
    cxp_lru_next,
    cxp_lru_oldest,
    cxp_lru_promote,
    cxp_lru_remove,
    cxp_lru_table,
    cxp_lru_tag,
)
from ctxpool._native.markov cimport MarkovModel, cxp_markov_len


def take_all(BlockPool pool, unsigned char value):
    """Take every free block, fill it, and return the indices."""
    cdef cxp_block_pool *c = &pool.c
    cdef uint32_t taken[64]
    cdef int n = 0
    with nogil:
        while n < 64:
            taken[n] = cxp_block_pool_take(c, CXP_BY_INDEX)
            if taken[n] == CXP_NO_BLOCK:
                break
            memset(cxp_block_pool_at(c, taken[n]), value, c.block_size)
            n += 1
    return [taken[i] for i in range(n)]


def give(BlockPool pool, uint32_t index):
    """0, or -1 where the block is not taken."""
    cdef int result
    with nogil:
        result = cxp_block_pool_give(&pool.c, index, CXP_BY_INDEX)
    return result


cdef uint64_t SPREAD = <uint64_t> 0x9E3779B97F4A7C15ULL


def evictions(uint64_t capacity, uint64_t requests, uint64_t distinct):
    """Serve requests 1..distinct, round and round, from a table of our own."""
    cdef cxp_lru_table table
    cdef uint64_t i, key, evicted = 0, hits = 0
    cdef uint32_t entry, tag, at = 0
    cdef int sound = 0
    with nogil:
        cxp_lru_init(&table)
        for i in range(requests):
            key = i % distinct + 1
            tag = cxp_lru_tag(key * SPREAD)
            entry = cxp_lru_first(&table, tag, &at)
            while entry and <uint64_t> table.entries[entry].key != key:
                entry = cxp_lru_next(&table, tag, &at)
            if entry:
                cxp_lru_promote(&table, entry)
                hits += 1
                continue
            if table.used == capacity:
                cxp_lru_remove(&table, cxp_lru_oldest(&table))
                evicted += 1
            if not cxp_lru_insert(&table, <void *> key, <void *> key, tag):
                break
        sound = cxp_lru_check(&table)
        cxp_lru_fini(&table)
    return hits, evicted, sound


def learn(MarkovModel model, keys):
    """Record without a Python call; how many contexts are known then."""
    for key in keys:
        model.note(key)
    return cxp_markov_len(&model.m)
