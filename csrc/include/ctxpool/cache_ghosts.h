/* Ghosts: what was evicted of late, by tag. S3-FIFO lets in by the front door what
 * comes back soon.
 *
 *     cxp_ghosts g = {0};
 *     cxp_ghosts_add(&g, tag, room);            // it went; `room` are remembered
 *     if (cxp_ghosts_take(&g, tag, room)) ...   // it came back soon; now forgotten
 *     cxp_ghosts_reset(&g);
 *
 * A ghost is a tag and the time of its death, counted in deaths: one older than `room`
 * is none any more, without anybody having to remove it. They lie in buckets of four,
 * as in the S3-FIFO paper's own implementation. A full bucket loses its oldest: with
 * two slots or more for each ghost, at most 3 % go before their time.
 *
 * Invariants (cxp_ghosts_check() walks them all): each is in the bucket of its tag, no
 * tag is twice in one.
 *
 * Cost: add and take one bucket, of 32 bytes. The number of buckets is a power of two
 * that depends on the largest `room` alone; it grows in O(n) when that has doubled
 * since the first ghost came. 16 to 32 bytes for each of `room`.
 *
 * Contract: nothing fails; for want of memory fewer are remembered.
 */
#ifndef CTXPOOL_CACHE_GHOSTS_H
#define CTXPOOL_CACHE_GHOSTS_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { CXP_GHOST_WAYS = 4 };

typedef struct cxp_ghost_bucket {
    uint32_t tag[CXP_GHOST_WAYS], died[CXP_GHOST_WAYS]; /* died 0: an empty slot */
} cxp_ghost_bucket;

typedef struct cxp_ghosts {
    cxp_ghost_bucket *buckets;
    uint32_t count, allocated; /* buckets in use, and in memory */
    uint32_t now;              /* deaths; never 0 after the first */
} cxp_ghosts;

static inline void
cxp_ghosts_reset(cxp_ghosts *g)
{
    free(g->buckets);
    memset(g, 0, sizeof *g);
}

static inline size_t
cxp_ghosts_bytes(const cxp_ghosts *g)
{
    return g->allocated * sizeof *g->buckets;
}

static inline cxp_ghost_bucket *
cxp_ghosts_bucket_(const cxp_ghosts *g, uint32_t tag)
{
    uint32_t mixed = tag * 0x9E3779B1u;
    return &g->buckets[(mixed ^ mixed >> 16) & (g->count - 1)];
}

/* Have the processor fetch the bucket of tag. */
static inline void
cxp_ghosts_expect(const cxp_ghosts *g, uint32_t tag)
{
    if (g->count)
        __builtin_prefetch(cxp_ghosts_bucket_(g, tag), 1);
}

/* The buckets that `room` ghosts want. */
static inline uint32_t
cxp_ghosts_wanted(uint32_t room)
{
    uint32_t count = 1;
    while (count < room / 2 && count < UINT32_C(1) << 27)
        count *= 2;
    return count;
}

/* Memory for `room` ghosts. -1: there is none. */
static inline int
cxp_ghosts_reserve(cxp_ghosts *g, uint32_t room)
{
    uint32_t wanted = cxp_ghosts_wanted(room);
    if (wanted <= g->allocated)
        return 0;
    cxp_ghost_bucket *buckets = realloc(g->buckets, wanted * sizeof *buckets);
    if (!buckets)
        return -1;
    memset(buckets + g->allocated, 0, (wanted - g->allocated) * sizeof *buckets);
    g->buckets = buckets;
    g->allocated = wanted;
    return 0;
}

/* More buckets: each is parted in two, as often as it takes. */
static inline void
cxp_ghosts_grow_(cxp_ghosts *g, uint32_t room)
{
    uint32_t wanted = cxp_ghosts_wanted(room);
    if (cxp_ghosts_reserve(g, room))
        wanted = g->allocated;
    if (!g->now)
        g->count = wanted;
    while (g->count < wanted) {
        uint32_t old = g->count;
        g->count *= 2;
        for (uint32_t i = 0; i < old; i++) {
            cxp_ghost_bucket *from = &g->buckets[i], *to = from + old;
            for (int way = 0; way < CXP_GHOST_WAYS; way++)
                if (from->died[way] && cxp_ghosts_bucket_(g, from->tag[way]) == to) {
                    to->tag[way] = from->tag[way];
                    to->died[way] = from->died[way];
                    from->tag[way] = from->died[way] = 0;
                }
        }
    }
}

/* The slot of tag in its bucket, CXP_GHOST_WAYS for none. */
static inline int
cxp_ghosts_find_(const cxp_ghost_bucket *b, uint32_t tag)
{
    unsigned found = 0; /* a bit for each slot, without a branch for each */
    for (int way = 0; way < CXP_GHOST_WAYS; way++)
        found |= (unsigned)((b->tag[way] == tag) & (b->died[way] != 0)) << way;
    return found ? __builtin_ctz(found) : CXP_GHOST_WAYS;
}

/* Forget tag; whether it was among the last `room` that died. */
static inline int
cxp_ghosts_take(cxp_ghosts *g, uint32_t tag, uint32_t room)
{
    if (!g->count)
        return 0;
    cxp_ghost_bucket *b = cxp_ghosts_bucket_(g, tag);
    int way = cxp_ghosts_find_(b, tag);
    if (way == CXP_GHOST_WAYS)
        return 0;
    int known = g->now - b->died[way] < room;
    b->tag[way] = b->died[way] = 0;
    return known;
}

/* tag has died. `room`: how many are to be remembered. */
static inline void
cxp_ghosts_add(cxp_ghosts *g, uint32_t tag, uint32_t room)
{
    if (!g->count || g->count < room / 2)
        cxp_ghosts_grow_(g, room);
    if (!g->count)
        return;
    if (!++g->now)
        g->now = 1;
    cxp_ghost_bucket *b = cxp_ghosts_bucket_(g, tag);
    int at = cxp_ghosts_find_(b, tag);
    if (at == CXP_GHOST_WAYS) { /* the oldest; before all, an empty one */
        uint32_t longest = 0;
        at = 0;
        for (int way = 0; way < CXP_GHOST_WAYS; way++) {
            uint32_t age = b->died[way] ? g->now - b->died[way] : UINT32_MAX;
            at = age > longest ? way : at;
            longest = age > longest ? age : longest;
        }
    }
    b->tag[at] = tag;
    b->died[at] = g->now;
}

/* 0, or 1 when an invariant is broken. O(n). */
static inline int
cxp_ghosts_check(const cxp_ghosts *g)
{
    if (g->count & (g->count - 1) || g->count > g->allocated)
        return 1;
    for (uint32_t i = 0; i < g->count; i++)
        for (int way = 0; way < CXP_GHOST_WAYS; way++) {
            const cxp_ghost_bucket *b = &g->buckets[i];
            if (!b->died[way])
                continue;
            if (cxp_ghosts_bucket_(g, b->tag[way]) != b)
                return 1;
            for (int other = 0; other < way; other++)
                if (b->died[other] && b->tag[other] == b->tag[way])
                    return 1;
        }
    return 0;
}

#endif
