/* Three caches in miniature: what each of three experts would hold.
 *
 * All see the same accesses: those to the keys of a sample, all keys of a cache of up
 * to 512 entries, of a larger one every 2nd, 4th, ... 64th, by bits of the hash. So a
 * miniature is to its keys what a whole cache is to all (Waldspurger et al., "Efficient
 * MRC construction with SHARDS", FAST 2015; "Cache modeling and optimization using
 * miniature simulations", USENIX ATC 2017).
 *
 *     expert 0     LRU
 *     expert 1     W-TinyLFU with a window of  1 % (cache_tinylfu.h has the segments)
 *     expert 2     W-TinyLFU with a window of 25 %
 *
 * A score is a sum that is kept in bounds (Page, "Continuous inspection schemes",
 * Biometrika 41 (1954)), in units of hits of a miniature of n entries:
 *     lead[i]      hits of expert i - hits of LRU, from -2 n to n / 4
 *     between      hits of expert 2 - hits of expert 1, from -n to n
 * The lower bound is the point: a cache full of keys can be hit once in a row before
 * its like catches up, so LRU's lead is remembered for two rounds. The upper bound is
 * what is lost, at most, before LRU has the cache back.
 *
 * While the cache itself is LRU, its own hits are LRU's, too: a sample whose keys
 * happen to be too many for the miniature says nothing against it.
 *
 * Layout. A node of 36 bytes for each tag that some expert holds, found by open
 * addressing; it is linked into a list of each expert. Nodes 0, 1, 2 are the heads of
 * the segments of all experts. Beyond 32,768 entries that is 1 to 4 bytes for each
 * entry of the cache, below at most 90 KB.
 *
 * Invariants (cxp_shadows_check())
 *     1. count[i][s] is the length of list s of expert i.
 *     2. Each node that is not free is in a list, and in the slot where it is sought.
 *     3. What is chosen exists.
 *
 * Cost: O(1) an access; a smaller sample takes up to 16 nodes out at each access until
 * all that do not belong to it are gone. What there is no memory for is not seen.
 */
#ifndef CTXPOOL_CACHE_SHADOW_H
#define CTXPOOL_CACHE_SHADOW_H

#include "cache_sketch.h"

enum { CXP_WINDOW, CXP_PROBATION, CXP_PROTECTED, CXP_SEGMENTS };
enum { CXP_EXPERTS = 3, CXP_SHADOW_MOST = 512, CXP_SHADOW_LOG = 6, CXP_PURGE = 16 };

typedef struct cxp_shadow_node {
    uint32_t tag;
    uint8_t in[CXP_EXPERTS]; /* 0: in none, else the segment + 1 */
    uint8_t live;
    cxp_count count;
    uint32_t prev[CXP_EXPERTS], next[CXP_EXPERTS];
} cxp_shadow_node;

typedef struct cxp_shadows {
    cxp_shadow_node *nodes;
    uint32_t *slots;
    uint32_t mask, allocated, high, free; /* nodes 3..high have been used */
    uint32_t entries;                     /* of the cache, at most so far */
    uint32_t log;                         /* the sample: 1 key in 2^log */
    uint32_t purge;                       /* nodes below may be out of the sample */
    uint32_t count[CXP_EXPERTS][CXP_SEGMENTS];
    int64_t lead[CXP_EXPERTS], between;
    uint32_t better; /* of 1 and 2 */
    uint32_t chosen;
} cxp_shadows;

static inline void
cxp_shadows_reset(cxp_shadows *s)
{
    free(s->nodes);
    free(s->slots);
    memset(s, 0, sizeof *s);
}

static inline size_t
cxp_shadows_bytes(const cxp_shadows *s)
{
    return s->allocated * sizeof(cxp_shadow_node) +
           (s->slots ? ((size_t)s->mask + 1) * sizeof(uint32_t) : 0);
}

/* The sample for a cache that has held `entries`. */
static inline uint32_t
cxp_shadows_log(uint32_t entries, uint32_t log)
{
    while (log < CXP_SHADOW_LOG && entries >> log > CXP_SHADOW_MOST)
        log++;
    return log;
}

static inline int
cxp_shadows_sampled(const cxp_shadows *s, uint64_t mixed)
{
    return !((uint32_t)mixed >> 26 & ((1u << s->log) - 1));
}

/* Entries of the window of W-TinyLFU `expert` among n. */
static inline uint32_t
cxp_shadows_window(uint32_t expert, uint32_t n)
{
    uint32_t w = (uint32_t)(((uint64_t)n * (expert == 1 ? 1 : 25) + 50) / 100);
    return w ? w : 1;
}

/* ---- Nodes ---- */

static inline uint32_t
cxp_shadows_slot_(const cxp_shadows *s, uint32_t tag)
{
    uint32_t p = (tag * 0x9E3779B1u) >> 7 & s->mask;
    while (s->slots[p] && s->nodes[s->slots[p]].tag != tag)
        p = (p + 1) & s->mask;
    return p;
}

/* Twice the room. -1: no memory. */
static inline int
cxp_shadows_grow_(cxp_shadows *s)
{
    size_t room = s->allocated ? (size_t)s->allocated * 2 : 64, n = room * 2;
    uint32_t *slots = calloc(n, sizeof *slots);
    cxp_shadow_node *nodes = slots ? realloc(s->nodes, room * sizeof *nodes) : NULL;
    if (!nodes) {
        free(slots);
        return -1;
    }
    free(s->slots);
    s->nodes = nodes;
    s->slots = slots;
    s->mask = (uint32_t)(n - 1);
    if (!s->allocated) {
        memset(nodes, 0, CXP_SEGMENTS * sizeof *nodes);
        for (uint32_t h = 0; h < CXP_SEGMENTS; h++)
            for (uint32_t x = 0; x < CXP_EXPERTS; x++)
                nodes[h].prev[x] = nodes[h].next[x] = h;
        s->high = CXP_SEGMENTS - 1;
    }
    s->allocated = (uint32_t)room;
    for (uint32_t i = CXP_SEGMENTS; i <= s->high; i++)
        if (nodes[i].live)
            slots[cxp_shadows_slot_(s, nodes[i].tag)] = i;
    return 0;
}

/* Memory for the sample of a cache of `entries`, were all experts to hold other keys:
 * it grows with the cache, and no more once that is full. -1: none. */
static inline int
cxp_shadows_preallocate(cxp_shadows *s, uint32_t entries)
{
    uint32_t n = entries >> cxp_shadows_log(entries, 0);
    if (entries > CXP_SHADOW_MOST && n < CXP_SHADOW_MOST)
        n = CXP_SHADOW_MOST;
    while (s->allocated < (uint64_t)CXP_EXPERTS * n + 8)
        if (cxp_shadows_grow_(s))
            return -1;
    return 0;
}

/* The node of a tag that has none. 0: no memory. */
static inline uint32_t
cxp_shadows_new_(cxp_shadows *s, uint32_t tag)
{
    if (!s->free && s->high + 1 >= s->allocated && cxp_shadows_grow_(s))
        return 0;
    uint32_t n = s->free;
    if (n)
        s->free = s->nodes[n].next[0];
    else
        n = ++s->high;
    s->nodes[n] = (cxp_shadow_node){.tag = tag, .live = 1};
    s->slots[cxp_shadows_slot_(s, tag)] = n;
    return n;
}

static inline unsigned
cxp_shadows_frequency_(const cxp_shadows *s, const cxp_sketch *sketch, uint32_t n)
{
    return cxp_count_frequency(sketch, s->nodes[n].count);
}

/* No expert holds n. */
static inline void
cxp_shadows_free_(cxp_shadows *s, cxp_sketch *sketch, uint32_t n)
{
    cxp_shadow_node *nodes = s->nodes;
    cxp_sketch_raise(sketch, cxp_sketch_mix(nodes[n].tag),
                     cxp_shadows_frequency_(s, sketch, n));
    uint32_t hole = cxp_shadows_slot_(s, nodes[n].tag);
    for (uint32_t p = (hole + 1) & s->mask; s->slots[p]; p = (p + 1) & s->mask) {
        uint32_t home = (nodes[s->slots[p]].tag * 0x9E3779B1u) >> 7 & s->mask;
        if (((p - home) & s->mask) >= ((p - hole) & s->mask)) {
            s->slots[hole] = s->slots[p];
            hole = p;
        }
    }
    s->slots[hole] = 0;
    nodes[n].live = 0;
    nodes[n].next[0] = s->free;
    s->free = n;
}

/* ---- The lists of expert x ---- */

static inline void
cxp_shadows_put_(cxp_shadows *s, uint32_t x, uint32_t n, uint32_t segment)
{
    cxp_shadow_node *nodes = s->nodes;
    uint32_t first = nodes[segment].next[x];
    nodes[n].prev[x] = segment;
    nodes[n].next[x] = first;
    nodes[first].prev[x] = n;
    nodes[segment].next[x] = n;
    nodes[n].in[x] = (uint8_t)(segment + 1);
    s->count[x][segment]++;
}

static inline void
cxp_shadows_take_(cxp_shadows *s, uint32_t x, uint32_t n)
{
    cxp_shadow_node *nodes = s->nodes;
    uint32_t prev = nodes[n].prev[x], next = nodes[n].next[x];
    nodes[prev].next[x] = next;
    nodes[next].prev[x] = prev;
    s->count[x][nodes[n].in[x] - 1]--;
    nodes[n].in[x] = 0;
}

static inline void
cxp_shadows_drop_(cxp_shadows *s, cxp_sketch *sketch, uint32_t x, uint32_t n)
{
    cxp_shadows_take_(s, x, n);
    if (!s->nodes[n].in[0] && !s->nodes[n].in[1] && !s->nodes[n].in[2])
        cxp_shadows_free_(s, sketch, n);
}

static inline void
cxp_shadows_move_(cxp_shadows *s, uint32_t x, uint32_t n, uint32_t segment)
{
    if (s->nodes[segment].next[x] == n)
        return;
    cxp_shadows_take_(s, x, n);
    cxp_shadows_put_(s, x, n, segment);
}

static inline void
cxp_shadows_hit_(cxp_shadows *s, uint32_t x, uint32_t n, uint32_t size)
{
    if (!x || s->nodes[n].in[x] == CXP_WINDOW + 1) {
        cxp_shadows_move_(s, x, n, CXP_WINDOW);
        return;
    }
    cxp_shadows_move_(s, x, n, CXP_PROTECTED);
    uint32_t w = cxp_shadows_window(x, size);
    uint32_t most = size > w ? (uint32_t)((uint64_t)(size - w) * 4 / 5) : 0;
    for (int i = 0; i < 4 && s->count[x][CXP_PROTECTED] > most; i++)
        cxp_shadows_move_(s, x, s->nodes[CXP_PROTECTED].prev[x], CXP_PROBATION);
}

/* Expert x makes room for one. */
static inline void
cxp_shadows_evict_(cxp_shadows *s, cxp_sketch *sketch, uint32_t x, uint32_t size)
{
    const cxp_shadow_node *nodes = s->nodes;
    const uint32_t *count = s->count[x];
    uint32_t candidate = nodes[CXP_WINDOW].prev[x];
    uint32_t victim = count[CXP_PROBATION] ? nodes[CXP_PROBATION].prev[x]
                                           : nodes[CXP_PROTECTED].prev[x];
    if (!count[CXP_PROBATION] && !count[CXP_PROTECTED])
        victim = candidate;
    else if (count[CXP_WINDOW] >= cxp_shadows_window(x, size)) {
        if (cxp_shadows_frequency_(s, sketch, candidate) >
            cxp_shadows_frequency_(s, sketch, victim))
            cxp_shadows_move_(s, x, candidate, CXP_PROBATION);
        else
            victim = candidate;
    }
    cxp_shadows_drop_(s, sketch, x, victim);
}

/* n is new to expert x. */
static inline void
cxp_shadows_add_(cxp_shadows *s, cxp_sketch *sketch, uint32_t x, uint32_t n,
                 uint32_t size)
{
    uint32_t *count = s->count[x];
    for (int i = 0; i < 2; i++)
        if (count[0] + count[1] + count[2] >= size)
            cxp_shadows_evict_(s, sketch, x, size);
    cxp_shadows_put_(s, x, n, CXP_WINDOW);
    for (int i = 0; x && i < 4 && count[CXP_WINDOW] > cxp_shadows_window(x, size); i++)
        cxp_shadows_move_(s, x, s->nodes[CXP_WINDOW].prev[x], CXP_PROBATION);
}

/* ---- What the policy calls ---- */

static inline int64_t
cxp_shadows_bound_(int64_t value, int64_t least, int64_t most)
{
    return value < least ? least : value > most ? most : value;
}

/* A key of the sample was asked for, or stored, and has this frequency; size: entries
 * of a miniature. Which of the experts hit it, as bits. */
static inline unsigned
cxp_shadows_see_(cxp_shadows *s, cxp_sketch *sketch, uint32_t tag, unsigned frequency,
                 uint32_t size)
{
    for (int i = 0; i < CXP_PURGE && s->purge > CXP_SEGMENTS; i++) {
        uint32_t n = --s->purge;
        if (s->nodes[n].live &&
            !cxp_shadows_sampled(s, cxp_sketch_mix(s->nodes[n].tag)))
            for (uint32_t x = 0; x < CXP_EXPERTS; x++)
                if (s->nodes[n].in[x])
                    cxp_shadows_drop_(s, sketch, x, n);
    }
    uint32_t n = s->allocated ? s->slots[cxp_shadows_slot_(s, tag)] : 0;
    if (!n && !(n = cxp_shadows_new_(s, tag)))
        return 0;
    s->nodes[n].count = cxp_count_of(sketch, 0, frequency);
    unsigned hits = 0;
    for (uint32_t x = 0; x < CXP_EXPERTS; x++) {
        if (s->nodes[n].in[x]) {
            hits |= 1u << x;
            cxp_shadows_hit_(s, x, n, size);
        } else
            cxp_shadows_add_(s, sketch, x, n, size);
    }
    return hits;
}

/* Keep the scores, and choose. */
static inline void
cxp_shadows_judge_(cxp_shadows *s, unsigned hits, uint32_t size)
{
    if (hits == 0 || hits == (1u << CXP_EXPERTS) - 1)
        return;
    int64_t n = size, margin = n / 50;
    int hit[CXP_EXPERTS] = {hits & 1, hits >> 1 & 1, hits >> 2 & 1};
    for (uint32_t x = 1; x < CXP_EXPERTS; x++)
        s->lead[x] =
            cxp_shadows_bound_(s->lead[x] + hit[x] - hit[0], -2 * n, n / 4 + 1);
    s->between = cxp_shadows_bound_(s->between + hit[2] - hit[1], -n, n);
    if (s->between > margin)
        s->better = 2;
    else if (s->between < -margin || !s->better)
        s->better = 1;
    uint32_t other = 3 - s->better;
    if (!s->chosen) {
        if (s->lead[s->better] > margin)
            s->chosen = s->better;
        else if (s->lead[other] > margin)
            s->chosen = other;
    } else if (s->lead[s->chosen] < 0)
        s->chosen = 0;
    else if (s->lead[s->better] >= 0)
        s->chosen = s->better;
}

/* How often a tag was asked for, as far as is known here. */
static inline unsigned
cxp_shadows_known(const cxp_shadows *s, const cxp_sketch *sketch, uint32_t tag,
                  uint64_t mixed)
{
    if (!s->allocated || !cxp_shadows_sampled(s, mixed))
        return 0;
    uint32_t n = s->slots[cxp_shadows_slot_(s, tag)];
    return n ? cxp_shadows_frequency_(s, sketch, n) : 0;
}

/* A key was asked for, with or without a hit, in a cache that holds `used` and has held
 * `high`. */
static inline void
cxp_shadows_access(cxp_shadows *s, cxp_sketch *sketch, uint32_t tag, uint64_t mixed,
                   unsigned frequency, unsigned hit, uint32_t used, uint32_t high)
{
    uint32_t log = cxp_shadows_log(high, s->log);
    if (high > s->entries) {
        s->entries = high;
        cxp_shadows_preallocate(s, high); /* without it: as long as there are nodes */
    }
    if (log != s->log) {
        s->log = log;
        s->purge = s->allocated ? s->high + 1 : 0;
    }
    if (!cxp_shadows_sampled(s, mixed))
        return;
    uint32_t size = used >> log ? used >> log : 1;
    unsigned hits = cxp_shadows_see_(s, sketch, tag, frequency, size);
    if (!s->chosen)
        hits |= hit;
    cxp_shadows_judge_(s, hits, size);
}

/* Walk all invariants: 0, or the number of the first that is broken. O(n). */
static inline int
cxp_shadows_check(const cxp_shadows *s)
{
    uint32_t live = 0, free = 0, slots = 0;
    for (uint32_t x = 0; s->allocated && x < CXP_EXPERTS; x++)
        for (uint32_t h = 0; h < CXP_SEGMENTS; h++) {
            uint32_t length = 0, prev = h;
            for (uint32_t n = s->nodes[h].next[x]; n != h; n = s->nodes[n].next[x]) {
                if (++length > s->high || s->nodes[n].in[x] != h + 1 ||
                    s->nodes[n].prev[x] != prev || !s->nodes[n].live)
                    return 1;
                prev = n;
            }
            if (length != s->count[x][h])
                return 1;
        }
    for (uint32_t n = CXP_SEGMENTS; s->allocated && n <= s->high; n++) {
        const cxp_shadow_node *node = &s->nodes[n];
        if (!node->live)
            continue;
        live++;
        if (!(node->in[0] | node->in[1] | node->in[2]) ||
            s->slots[cxp_shadows_slot_(s, node->tag)] != n)
            return 2;
    }
    for (uint32_t n = s->free; n; n = s->nodes[n].next[0])
        if (++free > s->high || s->nodes[n].live)
            return 2;
    for (uint64_t p = 0; s->slots && p <= s->mask; p++)
        slots += s->slots[p] != 0;
    if (slots != live || (s->allocated && live + free != s->high - CXP_SEGMENTS + 1))
        return 2;
    return s->chosen >= CXP_EXPERTS || s->better >= CXP_EXPERTS ? 3 : 0;
}

#endif
