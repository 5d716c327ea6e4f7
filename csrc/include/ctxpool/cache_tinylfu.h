/* W-TinyLFU, and the policy that chooses between it and LRU as it goes.
 *
 * What is new enters the window, an LRU queue. What leaves the window has to have been
 * asked for more often (cache_sketch.h) than what the main part would drop for it; the
 * main part is a segmented LRU: probation, and after one more use protected, up to four
 * fifths of it. Einziger, Friedman, Manes, "TinyLFU: a highly efficient cache admission
 * policy", ACM TOS 13 (2017). The window's share makes it anything from LFU-like to
 * LRU:
 *
 *     CXP_TINYLFU   the share climbs: Einziger, Eytan, Friedman, Manes, "Adaptive
 *                   software cache management", Middleware 2018
 *     CXP_ADAPTIVE  whole (LRU), 1 % or 25 %, as of late did best in three miniature
 *                   caches (cache_shadow.h); the mini-simulation of the same paper,
 * with LRU to fall back to
 *
 * Nothing is thrown out at a change: a window that is too long sheds four entries to
 * probation at each insertion; one that is too short grows by what comes. Under LRU a
 * use takes an entry of the main part back to the window, and the main part, which
 * holds nothing used since, is dropped first.
 *
 * Layout. The table's list is window, protected, probation, each newest first. first[s]
 * is the first entry of segment s: with none in it, that of the next segment, 0 for the
 * end of the list. A count an entry says the segment and the frequency.
 *
 * Invariants (cxp_tiny_check())
 *     1. Segments are in that order, and count[] and first[] are right.
 *     2. The share is between those of 1 % and 80 %; the sketch has its blocks.
 *
 * Cost: use, insert, remove, victim O(1). 2 bytes an entry, the sketch 8; CXP_ADAPTIVE
 * the miniatures besides.
 */
#ifndef CTXPOOL_CACHE_TINYLFU_H
#define CTXPOOL_CACHE_TINYLFU_H

#include "cache_shadow.h"
#include "lru_table.h"

enum {
    CXP_TINY_LEAST = 655,   /* 1 % of 65,536: shares are in these */
    CXP_TINY_MOST = 52429,  /* 80 % */
    CXP_TINY_STEP = 4096,   /* 6.25 %, less by a fiftieth each time */
    CXP_TINY_RESTART = 3277 /* a change of the hit ratio by 5 % */
};

typedef struct cxp_tiny {
    cxp_count *mark; /* the segment is its lowest bits */
    cxp_sketch sketch;
    uint32_t first[CXP_SEGMENTS], count[CXP_SEGMENTS]; /* first[CXP_WINDOW]: unused */
    int adaptive;
    uint32_t share, step, upwards;   /* the climb */
    uint64_t hits, requests, before; /* of this period; the ratio of the last */
    uint64_t random;
    cxp_shadows shadows;
} cxp_tiny;

static inline void
cxp_tiny_init(cxp_tiny *w, int adaptive)
{
    memset(w, 0, sizeof *w);
    w->adaptive = adaptive;
    w->share = CXP_TINY_LEAST;
    w->step = CXP_TINY_STEP;
    w->upwards = 1;
}

static inline void
cxp_tiny_reset(cxp_tiny *w)
{
    free(w->mark);
    free(w->sketch.words);
    cxp_shadows_reset(&w->shadows);
}

/* Memory for that many entries. -1: none. */
static inline int
cxp_tiny_reserve(cxp_tiny *w, size_t entries)
{
    cxp_count *mark = realloc(w->mark, entries * sizeof *mark);
    if (!mark)
        return -1;
    w->mark = mark;
    return cxp_sketch_reserve(&w->sketch, entries);
}

static inline size_t
cxp_tiny_bytes(const cxp_tiny *w)
{
    return (size_t)w->sketch.room * CXP_SKETCH_WORDS * sizeof(uint64_t) +
           cxp_shadows_bytes(&w->shadows);
}

/* ---- Segments ---- */

static inline uint8_t
cxp_tiny_segment_(const cxp_tiny *w, uint32_t e)
{
    return w->mark[e] & 3;
}

static inline int
cxp_tiny_is_lru_(const cxp_tiny *w)
{
    return w->adaptive && !w->shadows.chosen;
}

/* How long the window is to be, unless all is window. */
static inline uint32_t
cxp_tiny_window_(const cxp_tiny *w, const cxp_lru_table *t)
{
    if (w->adaptive)
        return cxp_shadows_window(w->shadows.chosen, t->used);
    uint32_t length = (uint32_t)((uint64_t)t->used * w->share >> 16);
    return length ? length : 1;
}

/* e leaves its segment; it stays where it is in the list. */
static inline void
cxp_tiny_leave_(cxp_tiny *w, const cxp_lru_table *t, uint32_t e)
{
    uint32_t next = t->entries[e].next;
    w->count[cxp_tiny_segment_(w, e)]--;
    if (w->first[CXP_PROTECTED] == e)
        w->first[CXP_PROTECTED] = next;
    if (w->first[CXP_PROBATION] == e)
        w->first[CXP_PROBATION] = next;
}

/* e becomes the newest of a segment. */
static inline void
cxp_tiny_move_(cxp_tiny *w, cxp_lru_table *t, uint32_t e, uint8_t segment)
{
    if (cxp_tiny_segment_(w, e) == segment &&
        (segment == CXP_WINDOW ? t->entries[0].next : w->first[segment]) == e)
        return;
    cxp_tiny_leave_(w, t, e);
    cxp_lru_unlink_(t->entries, e);
    uint32_t at = segment == CXP_WINDOW ? t->entries[0].next : w->first[segment];
    uint32_t prev = t->entries[at].prev;
    t->entries[e].prev = prev;
    t->entries[e].next = at;
    t->entries[prev].next = e;
    t->entries[at].prev = e;
    if (segment == CXP_PROTECTED ||
        (segment == CXP_PROBATION && w->first[CXP_PROTECTED] == at))
        w->first[CXP_PROTECTED] = e;
    if (segment == CXP_PROBATION)
        w->first[CXP_PROBATION] = e;
    w->mark[e] = (cxp_count)((w->mark[e] & ~3u) | segment);
    w->count[segment]++;
}

static inline uint32_t
cxp_tiny_oldest_(const cxp_tiny *w, const cxp_lru_table *t, uint32_t segment)
{
    uint32_t after = segment == CXP_WINDOW      ? w->first[CXP_PROTECTED]
                     : segment == CXP_PROTECTED ? w->first[CXP_PROBATION]
                                                : 0;
    return t->entries[after].prev;
}

static inline unsigned
cxp_tiny_frequency(const cxp_tiny *w, uint32_t e)
{
    return cxp_count_frequency(&w->sketch, w->mark[e]);
}

/* ---- The climb ---- */

/* A period of ten requests an entry is over. */
static inline void
cxp_tiny_climb_(cxp_tiny *w)
{
    uint64_t ratio = (w->hits << 16) / w->requests;
    uint64_t change = ratio < w->before ? w->before - ratio : ratio - w->before;
    if (ratio < w->before)
        w->upwards = !w->upwards;
    w->step = change >= CXP_TINY_RESTART ? CXP_TINY_STEP : w->step * 98 / 100;
    if (w->upwards)
        w->share =
            w->share + w->step < CXP_TINY_MOST ? w->share + w->step : CXP_TINY_MOST;
    else
        w->share =
            w->share > CXP_TINY_LEAST + w->step ? w->share - w->step : CXP_TINY_LEAST;
    w->before = ratio;
    w->hits = w->requests = 0;
}

/* e, of that frequency before, was asked for or stored. */
static inline void
cxp_tiny_access_(cxp_tiny *w, const cxp_lru_table *t, uint32_t e, uint64_t mixed,
                 unsigned segment, unsigned frequency, unsigned hit)
{
    frequency += frequency < 15;
    w->mark[e] = cxp_count_of(&w->sketch, segment, frequency);
    cxp_sketch_tick(&w->sketch, t->high);
    if (w->adaptive) {
        cxp_shadows_access(&w->shadows, &w->sketch, t->entries[e].tag, mixed, frequency,
                           hit, t->used, t->high);
        return;
    }
    w->hits += hit;
    if (++w->requests >= (uint64_t)CXP_SKETCH_PERIOD * (t->high < 8 ? 8 : t->high))
        cxp_tiny_climb_(w);
}

/* ---- What the policy calls ---- */

static inline void
cxp_tiny_use(cxp_tiny *w, cxp_lru_table *t, uint32_t e)
{
    uint64_t mixed = cxp_sketch_mix(t->entries[e].tag);
    uint8_t segment = cxp_tiny_segment_(w, e);
    cxp_tiny_access_(w, t, e, mixed, segment, cxp_tiny_frequency(w, e), 1);
    if (segment == CXP_WINDOW || cxp_tiny_is_lru_(w)) {
        cxp_tiny_move_(w, t, e, CXP_WINDOW);
        return;
    }
    cxp_tiny_move_(w, t, e, CXP_PROTECTED);
    uint32_t length = cxp_tiny_window_(w, t);
    uint32_t most =
        t->used > length ? (uint32_t)((uint64_t)(t->used - length) * 4 / 5) : 0;
    for (int i = 0; i < 4 && w->count[CXP_PROTECTED] > most; i++)
        cxp_tiny_move_(w, t, cxp_tiny_oldest_(w, t, CXP_PROTECTED), CXP_PROBATION);
}

/* e is new in the table, at the front of its list, and there is memory for it. */
static inline void
cxp_tiny_add(cxp_tiny *w, cxp_lru_table *t, uint32_t e)
{
    cxp_sketch_grow(&w->sketch, t->high);
    uint64_t mixed = cxp_sketch_mix(t->entries[e].tag);
    unsigned frequency = cxp_sketch_estimate(&w->sketch, mixed);
    if (w->adaptive) {
        unsigned known =
            cxp_shadows_known(&w->shadows, &w->sketch, t->entries[e].tag, mixed);
        frequency = known > frequency ? known : frequency;
    }
    w->count[CXP_WINDOW]++;
    cxp_tiny_access_(w, t, e, mixed, CXP_WINDOW, frequency, 0);
    if (cxp_tiny_is_lru_(w))
        return;
    uint32_t length = cxp_tiny_window_(w, t);
    for (int i = 0; i < 4 && w->count[CXP_WINDOW] > length; i++)
        cxp_tiny_move_(w, t, cxp_tiny_oldest_(w, t, CXP_WINDOW), CXP_PROBATION);
}

/* e is about to leave the table. */
static inline void
cxp_tiny_forget(cxp_tiny *w, const cxp_lru_table *t, uint32_t e)
{
    cxp_sketch_raise(&w->sketch, cxp_sketch_mix(t->entries[e].tag),
                     cxp_tiny_frequency(w, e));
    cxp_tiny_leave_(w, t, e);
}

/* Whether one that was asked for a times replaces one asked for b times. One in 128 of
 * those that lose though they are in demand does it nevertheless: keys made to collide
 * in the sketch with the victim cannot shut the others out. */
static inline int
cxp_tiny_admits_(cxp_tiny *w, unsigned a, unsigned b)
{
    if (a > b || a < 6)
        return a > b;
    uint64_t x = w->random += UINT64_C(0x9E3779B97F4A7C15);
    x = (x ^ x >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    return x >> 57 == 0;
}

static inline uint32_t
cxp_tiny_victim(cxp_tiny *w, cxp_lru_table *t)
{
    uint32_t victim = t->entries[0].prev;
    if (cxp_tiny_is_lru_(w) || w->count[CXP_WINDOW] < cxp_tiny_window_(w, t) ||
        w->count[CXP_WINDOW] == t->used)
        return victim;
    uint32_t candidate = cxp_tiny_oldest_(w, t, CXP_WINDOW);
    if (!cxp_tiny_admits_(w, cxp_tiny_frequency(w, candidate),
                          cxp_tiny_frequency(w, victim)))
        return candidate;
    cxp_tiny_move_(w, t, candidate, CXP_PROBATION);
    return victim;
}

/* ---- Copies ---- */

/* Segment, frequency, and how long the window is to be. */
static inline uint32_t
cxp_tiny_mark(const cxp_tiny *w, uint32_t e)
{
    return cxp_tiny_segment_(w, e) | cxp_tiny_frequency(w, e) << 2 |
           (w->adaptive ? w->shadows.chosen : w->share) << 6;
}

/* Begin with the entries, order and marks of another; what is wrong is corrected. */
static inline void
cxp_tiny_restore(cxp_tiny *w, cxp_lru_table *t, const uint32_t *marks)
{
    cxp_tiny kept = *w;
    cxp_tiny_init(w, kept.adaptive);
    w->mark = kept.mark;
    w->sketch = kept.sketch;
    cxp_shadows_reset(&kept.shadows);
    if (!t->used)
        return;
    cxp_sketch_clear(&w->sketch);
    cxp_sketch_grow(&w->sketch, t->high);
    uint32_t chosen = 0;
    uint8_t segment = CXP_PROBATION;
    for (uint32_t e = t->entries[0].prev; e; e = t->entries[e].prev) {
        uint8_t is = marks[e] & 3;
        if (segment == CXP_PROBATION && is == CXP_PROTECTED)
            segment = CXP_PROTECTED;
        else if (is == CXP_WINDOW)
            segment = CXP_WINDOW;
        w->mark[e] = cxp_count_of(&w->sketch, segment, marks[e] >> 2 & 15);
        w->count[segment]++;
        if (segment != CXP_WINDOW)
            w->first[CXP_PROTECTED] = e;
        if (segment == CXP_PROBATION)
            w->first[CXP_PROBATION] = e;
        chosen = marks[e] >> 6;
    }
    if (!w->adaptive) {
        w->share = chosen < CXP_TINY_LEAST  ? CXP_TINY_LEAST
                   : chosen > CXP_TINY_MOST ? CXP_TINY_MOST
                                            : chosen;
        return;
    }
    cxp_shadows *s = &w->shadows;
    s->entries = t->high;
    s->log = cxp_shadows_log(t->high, 0);
    cxp_shadows_preallocate(s, t->high);
    for (uint32_t e = t->entries[0].prev; e; e = t->entries[e].prev) {
        uint64_t mixed = cxp_sketch_mix(t->entries[e].tag);
        if (cxp_shadows_sampled(s, mixed)) {
            uint32_t size = t->used >> s->log;
            cxp_shadows_see_(s, &w->sketch, t->entries[e].tag, cxp_tiny_frequency(w, e),
                             size ? size : 1);
        }
    }
    s->chosen = chosen < CXP_EXPERTS ? chosen : 0;
    s->better = s->chosen;
}

/* ---- Check ---- */

/* Walk all invariants: 0, or the number of the first that is broken. O(n). */
static inline int
cxp_tiny_check(const cxp_tiny *w, const cxp_lru_table *t)
{
    static const uint8_t next[CXP_SEGMENTS] = {CXP_PROTECTED, 3, CXP_PROBATION};
    uint32_t count[CXP_SEGMENTS] = {0}, first[CXP_SEGMENTS] = {0};
    uint8_t segment = CXP_WINDOW;
    for (uint32_t e = t->used ? t->entries[0].next : 0; e; e = t->entries[e].next) {
        while (segment < CXP_SEGMENTS && segment != cxp_tiny_segment_(w, e))
            segment = next[segment];
        if (segment >= CXP_SEGMENTS)
            return 1;
        if (!count[segment]++)
            first[segment] = e;
    }
    if (!count[CXP_PROTECTED])
        first[CXP_PROTECTED] = first[CXP_PROBATION];
    if (first[CXP_PROTECTED] != w->first[CXP_PROTECTED] ||
        first[CXP_PROBATION] != w->first[CXP_PROBATION] ||
        memcmp(count, w->count, sizeof count) != 0)
        return 1;
    if (w->share < CXP_TINY_LEAST || w->share > CXP_TINY_MOST ||
        w->sketch.blocks > w->sketch.room ||
        (t->used && w->sketch.blocks < cxp_sketch_blocks_for(t->high)))
        return 2;
    return w->adaptive && cxp_shadows_check(&w->shadows) ? 3 : 0;
}

#endif
