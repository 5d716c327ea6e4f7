/* How often keys were asked for of late, by their tags: a count-min sketch that ages.
 *
 * Cormode, Muthukrishnan, "An improved data stream summary: the count-min sketch and
 * its applications", J. Algorithms 55 (2005); the aging is TinyLFU's: Einziger,
 * Friedman, Manes, "TinyLFU: a highly efficient cache admission policy", ACM TOS 13
 * (2017).
 *
 * The sketch is for keys the cache does not hold. For one that it holds, a hit adds to
 * a count of its own (cxp_count), which enters the sketch when the key leaves and is
 * taken up from there when it comes back: a hit touches no more memory, and is exact.
 *
 * Layout. Blocks of 64 bytes, one for each eight entries the cache has ever held: 128
 * counters of 4 bits. A tag has four counters, all in one block. The number of blocks
 * grows one by one, as in linear hashing (Litwin, VLDB 1980): block b splits into b and
 * b + level by being copied, which overestimates but never forgets.
 *
 * Aging: after ten accesses an entry, then five, an epoch is over and all counters are
 * halved: a block at each access from then on, so that no call has more than one to do;
 * a count when it is looked at next, for it knows its epoch (modulo 1,024).
 *
 * Cost: raise, estimate, grow by a block, tick O(1). 8 bytes an entry, and 2 a count.
 */
#ifndef CTXPOOL_CACHE_SKETCH_H
#define CTXPOOL_CACHE_SKETCH_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { CXP_SKETCH_WORDS = 8, CXP_SKETCH_PERIOD = 10 };

typedef struct cxp_sketch {
    uint64_t *words;
    uint32_t room;   /* blocks there is memory for */
    uint32_t blocks; /* level <= blocks < 2 * level, once there is one */
    uint32_t level;
    uint32_t sweep; /* the next block to halve; none when it is past the last */
    uint32_t epoch;
    uint64_t accesses;
} cxp_sketch;

static inline uint32_t
cxp_sketch_blocks_for(uint32_t entries)
{
    return entries ? entries / 8 + (entries % 8 != 0) : 1;
}

/* Memory for that many entries. -1: no memory. */
static inline int
cxp_sketch_reserve(cxp_sketch *s, size_t entries)
{
    uint32_t room = cxp_sketch_blocks_for((uint32_t)entries);
    if (room <= s->room)
        return 0;
    uint64_t *words =
        realloc(s->words, (size_t)room * CXP_SKETCH_WORDS * sizeof *words);
    if (!words)
        return -1;
    s->words = words;
    s->room = room;
    return 0;
}

/* No counts, and one block. After cxp_sketch_reserve(). */
static inline void
cxp_sketch_clear(cxp_sketch *s)
{
    memset(s->words, 0, CXP_SKETCH_WORDS * sizeof *s->words);
    s->blocks = s->level = s->sweep = 1;
    s->epoch = 0;
    s->accesses = 0;
}

/* As many blocks as that many entries want, which there is memory for. */
static inline void
cxp_sketch_grow(cxp_sketch *s, uint32_t entries)
{
    uint32_t wanted = cxp_sketch_blocks_for(entries);
    if (!s->blocks)
        cxp_sketch_clear(s);
    while (s->blocks < wanted) {
        if (s->blocks == 2 * s->level)
            s->level *= 2;
        memcpy(s->words + (size_t)s->blocks * CXP_SKETCH_WORDS,
               s->words + (size_t)(s->blocks - s->level) * CXP_SKETCH_WORDS,
               CXP_SKETCH_WORDS * sizeof *s->words);
        if (s->sweep == s->blocks) /* none is to be halved: nor is the new one */
            s->sweep++;
        s->blocks++;
    }
}

/* 64 well mixed bits of a tag: the upper half chooses the block, bits 0 to 19 the
 * counters; bits 26 to 31 are for those who sample. */
static inline uint64_t
cxp_sketch_mix(uint32_t tag)
{
    uint64_t x = tag * UINT64_C(0x9E3779B97F4A7C15);
    x = (x ^ x >> 32) * UINT64_C(0xBF58476D1CE4E5B9);
    return x ^ x >> 29;
}

static inline uint64_t *
cxp_sketch_block_(const cxp_sketch *s, uint64_t mixed)
{
    uint32_t high = (uint32_t)(mixed >> 32), b = high & (2 * s->level - 1);
    b -= s->level & -(uint32_t)(b >= s->blocks); /* no branch: none to predict */
    return s->words + (size_t)b * CXP_SKETCH_WORDS;
}

/* Counter i of four is in words 2 i and 2 i + 1. */
static inline unsigned
cxp_sketch_at_(uint64_t mixed, unsigned i, unsigned *shift)
{
    unsigned bits = (unsigned)(mixed >> 5 * i) & 31;
    *shift = (bits >> 1) * 4;
    return 2 * i + (bits & 1);
}

/* An access: a step of the aging. The cache has held `entries`. */
static inline void
cxp_sketch_tick(cxp_sketch *s, uint32_t entries)
{
    s->accesses++;
    if (s->sweep < s->blocks) {
        uint64_t *block = s->words + (size_t)s->sweep++ * CXP_SKETCH_WORDS;
        for (unsigned i = 0; i < CXP_SKETCH_WORDS; i++)
            block[i] = block[i] >> 1 & UINT64_C(0x7777777777777777);
    } else if (s->accesses >=
               (uint64_t)CXP_SKETCH_PERIOD * (entries < 8 ? 8 : entries)) {
        s->accesses /= 2;
        s->sweep = 0;
        s->epoch++;
    }
}

static inline unsigned
cxp_sketch_estimate(const cxp_sketch *s, uint64_t mixed)
{
    const uint64_t *block = cxp_sketch_block_(s, mixed);
    unsigned least = 15, shift;
    for (unsigned i = 0; i < 4; i++) {
        uint64_t word = block[cxp_sketch_at_(mixed, i, &shift)];
        unsigned count = (unsigned)(word >> shift) & 15;
        least = count < least ? count : least;
    }
    return least;
}

/* At least that often. */
static inline void
cxp_sketch_raise(cxp_sketch *s, uint64_t mixed, unsigned to)
{
    uint64_t *block = cxp_sketch_block_(s, mixed);
    unsigned shift;
    for (unsigned i = 0; i < 4; i++) {
        uint64_t *word = block + cxp_sketch_at_(mixed, i, &shift);
        if ((*word >> shift & 15) < to)
            *word = (*word & ~(UINT64_C(15) << shift)) | (uint64_t)to << shift;
    }
}

/* ---- Counts: 2 bits of the caller's, 4 of the frequency, 10 of the epoch ---- */

typedef uint16_t cxp_count;

static inline cxp_count
cxp_count_of(const cxp_sketch *s, unsigned own, unsigned frequency)
{
    return (cxp_count)((own | frequency << 2 | s->epoch << 6) & 0xffff);
}

static inline unsigned
cxp_count_frequency(const cxp_sketch *s, cxp_count c)
{
    unsigned age = (s->epoch - (c >> 6)) & 1023;
    return (c >> 2 & 15u) >> (age < 4 ? age : 4);
}

#endif
