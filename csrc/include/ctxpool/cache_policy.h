/* Which entry a full cache drops: policies over an lru_table.
 *
 *     cxp_policy p;
 *     cxp_policy_init(&p, CXP_S3FIFO);
 *     t.policy = &p;
 *     e = cxp_cache_insert(&t, key, value, tag);     // as cxp_lru_insert()
 *     cxp_cache_use(&t, e);                          // a hit
 *     cxp_cache_remove(&t, cxp_cache_victim(&t));    // make room
 *     ...
 *     cxp_policy_reset(&p);
 *     cxp_lru_fini(&t);
 *
 * Each cxp_cache_ function does the table's part and the policy's, in the right order;
 * with t.policy NULL it is the table's alone: exact LRU.
 *
 * Layout. The table's one list stays the only list: a policy cuts it into segments.
 *     FIFO, RR, SIEVE   the order of insertion; RR has its entries in an array too
 *     LRU, MRU          the order of use
 *     S3-FIFO           small queue, then main queue, each newest first
 *     LFU               groups of equal frequency, most frequent first; inside, most
 *                       recent first
 *     TinyLFU, adaptive window, protected, probation (cache_tinylfu.h)
 * Side arrays by entry: a byte of marks (SIEVE, S3-FIFO) or words (RR 8 bytes, LFU 12).
 * S3-FIFO remembers the tags of as many evicted keys as its main queue holds entries
 * (cache_ghosts.h).
 *
 * Invariants (cxp_policy_check() walks them all)
 *     1. S3-FIFO: no entry marked main comes before one that is not; first_main is the
 *        first that is, 0 for none; mains is their number.
 *     2. LFU: frequencies fall along the list, all members of a group are neighbours,
 *        head[] is the first; the others of head[] are on the free list.
 *     3. RR: place[] is the inverse of nodes[0..used).
 *     4. SIEVE: the hand is 0 or a live entry.
 *     5. Those of the ghosts.
 *     6 to 8. Those of cache_tinylfu.h.
 *
 * Cost: use O(1), at most two writes for a policy that only marks; insert, remove O(1);
 * victim O(1), for SIEVE amortised: it and S3-FIFO pass by entries that were used, each
 * once for the hit that marked it, S3-FIFO no more than CXP_MOST_PASSED.
 *
 * Contract: as the table's. Nothing here fails but cxp_cache_insert(), for want of
 * memory, with nothing changed; ghosts for which there is no memory are forgotten.
 */
#ifndef CTXPOOL_CACHE_POLICY_H
#define CTXPOOL_CACHE_POLICY_H

#include "cache_ghosts.h"
#include "cache_tinylfu.h"

/* Kept out of the callers, where it would cost LRU its registers: 15 % of a store. */
#define CXP_ASIDE __attribute__((noinline, unused))

enum {
    CXP_ADAPTIVE,
    CXP_FIFO,
    CXP_LFU,
    CXP_LRU,
    CXP_MRU,
    CXP_RR,
    CXP_S3FIFO,
    CXP_SIEVE,
    CXP_TINYLFU,
    CXP_POLICIES
};

/* ---- The policy ---- */

typedef struct cxp_policy {
    uint32_t kind, next_kind;   /* next_kind: from the next reset on */
    uint32_t room;              /* length of the side arrays */
    uint8_t *mark;              /* SIEVE: used; S3-FIFO: times used, 4: in main */
    uint32_t most;              /* uses that are marked; 0: a use does something else */
    uint32_t hand;              /* SIEVE; 0: starts at the oldest */
    uint32_t first_main, mains; /* S3-FIFO */
    uint32_t *nodes, *place;    /* RR; LFU: group of an entry, in place[] */
    uint32_t *head, *frequency; /* LFU, by group; head links the free groups */
    uint32_t groups, free_group; /* groups ever used */
    uint64_t random;             /* RR: splitmix64 */
    cxp_ghosts ghosts;
    cxp_tiny tiny; /* TinyLFU, adaptive */
} cxp_policy;

static inline int
cxp_policy_is_tiny_(const cxp_policy *p)
{
    return p->kind == CXP_TINYLFU || p->kind == CXP_ADAPTIVE;
}

static inline void
cxp_policy_init(cxp_policy *p, uint32_t kind)
{
    memset(p, 0, sizeof *p);
    p->kind = p->next_kind = kind;
    p->most = kind == CXP_SIEVE ? 1 : kind == CXP_S3FIFO ? 3 : 0;
    cxp_tiny_init(&p->tiny, kind == CXP_ADAPTIVE);
}

/* As new, and of the next kind. */
static inline void
cxp_policy_reset(cxp_policy *p)
{
    free(p->mark);
    free(p->nodes);
    free(p->place);
    free(p->head);
    free(p->frequency);
    cxp_ghosts_reset(&p->ghosts);
    cxp_tiny_reset(&p->tiny);
    cxp_policy_init(p, p->next_kind);
}

/* Bytes of memory that the policy holds. */
static inline size_t
cxp_policy_bytes(const cxp_policy *p)
{
    size_t arrays = (p->mark ? 1u : 0) + (p->tiny.mark ? sizeof(cxp_count) : 0) +
                    (p->nodes ? 4u : 0) + (p->place ? 4u : 0) + (p->head ? 8u : 0);
    return p->room * arrays + cxp_ghosts_bytes(&p->ghosts) + cxp_tiny_bytes(&p->tiny);
}

static inline int
cxp_policy_longer_(uint32_t **array, size_t count)
{
    uint32_t *longer = realloc(*array, count * sizeof **array);
    if (!longer)
        return -1;
    *array = longer;
    return 0;
}

/* Side arrays for all that the table has room for. -1: no memory. */
static inline int
cxp_policy_reserve(cxp_policy *p, const cxp_lru_table *t)
{
    size_t n = t->allocated;
    if (n <= p->room)
        return 0;
    if (p->kind == CXP_SIEVE || p->kind == CXP_S3FIFO) {
        uint8_t *mark = realloc(p->mark, n);
        if (!mark)
            return -1;
        p->mark = mark;
    } else if (p->kind == CXP_RR) {
        if (cxp_policy_longer_(&p->nodes, n) || cxp_policy_longer_(&p->place, n))
            return -1;
    } else if (p->kind == CXP_LFU) {
        if (cxp_policy_longer_(&p->place, n) || cxp_policy_longer_(&p->head, n) ||
            cxp_policy_longer_(&p->frequency, n))
            return -1;
    } else if (cxp_policy_is_tiny_(p) && cxp_tiny_reserve(&p->tiny, n))
        return -1;
    p->room = (uint32_t)n;
    return 0;
}

/* How many ghosts S3-FIFO remembers where at most n entries have been. */
static inline uint32_t
cxp_s3_ghosts_(uint32_t n)
{
    return n - n / 10;
}

/* All memory that the policy will want while the table does not grow. -1: no memory. */
static inline int
cxp_policy_preallocate(cxp_policy *p, const cxp_lru_table *t)
{
    if (cxp_policy_reserve(p, t))
        return -1;
    if (p->kind == CXP_S3FIFO)
        return cxp_ghosts_reserve(&p->ghosts, cxp_s3_ghosts_(t->allocated));
    if (p->kind == CXP_ADAPTIVE)
        return cxp_shadows_preallocate(&p->tiny.shadows, t->allocated);
    return 0;
}

/* Link e in front of `at`, 0 for the end of the list. */
static inline void
cxp_policy_link_(cxp_lru_entry *entries, uint32_t at, uint32_t e)
{
    uint32_t prev = entries[at].prev;
    entries[e].prev = prev;
    entries[e].next = at;
    entries[prev].next = e;
    entries[at].prev = e;
}

/* ---- LFU ---- */

static inline uint32_t
cxp_lfu_group_(cxp_policy *p, uint32_t head, uint32_t frequency)
{
    uint32_t g = p->free_group;
    if (g)
        p->free_group = p->head[g];
    else
        g = ++p->groups;
    p->head[g] = head;
    p->frequency[g] = frequency;
    return g;
}

/* e leaves its group, as the list is now. Whether the group is no more. */
static inline int
cxp_lfu_leave_(cxp_policy *p, const cxp_lru_table *t, uint32_t e)
{
    uint32_t g = p->place[e];
    if (p->head[g] != e)
        return 0;
    uint32_t next = t->entries[e].next;
    if (next && p->place[next] == g) {
        p->head[g] = next;
        return 0;
    }
    p->head[g] = p->free_group;
    p->free_group = g;
    return 1;
}

static inline void
cxp_lfu_add_(cxp_policy *p, cxp_lru_table *t, uint32_t e)
{
    cxp_lru_unlink_(t->entries, e);
    uint32_t last = t->entries[0].prev, g = last ? p->place[last] : 0, at = 0;
    if (g && p->frequency[g] == 1) {
        at = p->head[g];
        p->head[g] = e;
    } else
        g = cxp_lfu_group_(p, e, 1);
    p->place[e] = g;
    cxp_policy_link_(t->entries, at, e);
}

static inline void
cxp_lfu_use_(cxp_policy *p, cxp_lru_table *t, uint32_t e)
{
    uint32_t g = p->place[e], f = p->frequency[g];
    if (f == UINT32_MAX)
        return;
    uint32_t at = p->head[g], above = t->entries[at].prev;
    uint32_t up = above ? p->place[above] : 0;
    int found = up && p->frequency[up] == f + 1;
    int alone = cxp_lfu_leave_(p, t, e);
    if (found) {
        at = p->head[up];
        p->head[up] = e;
    } else
        up = cxp_lfu_group_(p, e, f + 1);
    p->place[e] = up;
    if (!found && (alone || at == e)) /* it is where it should be */
        return;
    cxp_lru_unlink_(t->entries, e);
    cxp_policy_link_(t->entries, at, e);
}

/* ---- S3-FIFO ---- */

enum { CXP_S3_MAIN = 4 };

/* Entries that were used and so are passed by, until the next goes all the same: a
 * cache in which all were used is no reason for a pause. (SIEVE without them all would
 * be another: it loses half its hits on loops that it would win.) */
enum { CXP_MOST_PASSED = 32 };

static inline void
cxp_s3_add_(cxp_policy *p, cxp_lru_table *t, uint32_t e)
{
    p->mark[e] = 0;
    if (!cxp_ghosts_take(&p->ghosts, t->entries[e].tag, cxp_s3_ghosts_(t->high)))
        return;
    p->mark[e] = CXP_S3_MAIN;
    cxp_lru_unlink_(t->entries, e);
    cxp_policy_link_(t->entries, p->first_main, e);
    p->first_main = e;
    p->mains++;
}

static inline uint32_t
cxp_s3_victim_(cxp_policy *p, cxp_lru_table *t)
{
    for (int passed = 0;; passed++) {
        if (((uint64_t)t->used - p->mains) * 10 >= t->used) {
            uint32_t e = t->entries[p->first_main].prev;
            if (p->mark[e] < 2 || passed == CXP_MOST_PASSED) {
                cxp_ghosts_add(&p->ghosts, t->entries[e].tag, cxp_s3_ghosts_(t->high));
                return e;
            }
            p->mark[e] = CXP_S3_MAIN; /* it is next to the main queue already */
            p->first_main = e;
            p->mains++;
        } else {
            uint32_t e = t->entries[0].prev;
            if (p->mark[e] == CXP_S3_MAIN || passed == CXP_MOST_PASSED)
                return e;
            p->mark[e]--;
            if (p->first_main != e) {
                cxp_lru_unlink_(t->entries, e);
                cxp_policy_link_(t->entries, p->first_main, e);
                p->first_main = e;
            }
        }
    }
}

/* ---- SIEVE, RR ---- */

static inline uint32_t
cxp_sieve_victim_(cxp_policy *p, cxp_lru_table *t)
{
    uint32_t e = p->hand ? p->hand : t->entries[0].prev;
    while (p->mark[e]) {
        p->mark[e] = 0;
        e = t->entries[e].prev; /* of the newest: the head, whose prev is the oldest */
        if (!e)
            e = t->entries[0].prev;
    }
    p->hand = e;
    return e;
}

static inline uint32_t
cxp_rr_victim_(cxp_policy *p, const cxp_lru_table *t)
{
    uint64_t x = p->random += UINT64_C(0x9E3779B97F4A7C15);
    x = (x ^ x >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ x >> 27) * UINT64_C(0x94D049BB133111EB);
    return p->nodes[((x ^ x >> 31) >> 32) * t->used >> 32];
}

/* ---- What a cache calls ---- */

static CXP_ASIDE void
cxp_policy_use_tiny_(cxp_policy *p, cxp_lru_table *t, uint32_t e)
{
    cxp_tiny_use(&p->tiny, t, e);
}

/* A hit, where it does more than mark. */
static CXP_ASIDE void
cxp_policy_use_(cxp_policy *p, cxp_lru_table *t, uint32_t e)
{
    if (p->kind == CXP_LRU || p->kind == CXP_MRU)
        cxp_lru_promote(t, e);
    else if (p->kind == CXP_LFU)
        cxp_lfu_use_(p, t, e);
    else if (cxp_policy_is_tiny_(p))
        cxp_policy_use_tiny_(p, t, e);
}

static inline void
cxp_cache_use(cxp_lru_table *t, uint32_t e)
{
    cxp_policy *p = t->policy;
    if (!p)
        cxp_lru_promote(t, e);
    else if (!p->most)
        cxp_policy_use_(p, t, e);
    else if ((p->mark[e] & 3) < p->most)
        p->mark[e]++;
}

/* The same out of line, for callers whose fast path is another. */
static CXP_ASIDE void
cxp_cache_use_aside(cxp_lru_table *t, uint32_t e)
{
    cxp_cache_use(t, e);
}

static CXP_ASIDE uint32_t
cxp_policy_victim_(cxp_policy *p, cxp_lru_table *t)
{
    switch (p->kind) {
    case CXP_MRU:
        return t->entries[0].next;
    case CXP_RR:
        return cxp_rr_victim_(p, t);
    case CXP_S3FIFO:
        return cxp_s3_victim_(p, t);
    case CXP_SIEVE:
        return cxp_sieve_victim_(p, t);
    case CXP_TINYLFU:
    case CXP_ADAPTIVE:
        return cxp_tiny_victim(&p->tiny, t);
    default:
        return cxp_lru_oldest(t);
    }
}

/* The entry to drop; 0 when there is none. */
static inline uint32_t
cxp_cache_victim(cxp_lru_table *t)
{
    return t->policy && t->used ? cxp_policy_victim_(t->policy, t) : cxp_lru_oldest(t);
}

/* e is new in the table, at the front of its list, and the side arrays are long
 * enough. */
static inline void
cxp_policy_add_(cxp_policy *p, cxp_lru_table *t, uint32_t e)
{
    if (p->kind == CXP_S3FIFO)
        cxp_s3_add_(p, t, e);
    else if (p->kind == CXP_SIEVE)
        p->mark[e] = 0;
    else if (p->kind == CXP_LFU)
        cxp_lfu_add_(p, t, e);
    else if (p->kind == CXP_RR) {
        p->nodes[t->used - 1] = e;
        p->place[e] = t->used - 1;
    } else if (cxp_policy_is_tiny_(p))
        cxp_tiny_add(&p->tiny, t, e);
}

/* e is about to leave the table. */
static inline void
cxp_policy_forget_(cxp_policy *p, cxp_lru_table *t, uint32_t e)
{
    if (p->kind == CXP_S3FIFO) {
        if (p->mark[e] & CXP_S3_MAIN) {
            if (p->first_main == e)
                p->first_main = t->entries[e].next;
            p->mains--;
        }
    } else if (p->kind == CXP_SIEVE) {
        if (p->hand == e)
            p->hand = t->entries[e].prev;
    } else if (p->kind == CXP_LFU)
        cxp_lfu_leave_(p, t, e);
    else if (p->kind == CXP_RR) {
        uint32_t last = p->nodes[t->used - 1];
        p->nodes[p->place[e]] = last;
        p->place[last] = p->place[e];
    } else if (cxp_policy_is_tiny_(p))
        cxp_tiny_forget(&p->tiny, t, e);
}

static inline void
cxp_cache_remove(cxp_lru_table *t, uint32_t e)
{
    if (t->policy)
        cxp_policy_forget_(t->policy, t, e);
    cxp_lru_remove(t, e);
}

/* Tell the policy of e, which is new. -1: no memory, and e is gone again. */
static CXP_ASIDE int
cxp_policy_admit_(cxp_policy *p, cxp_lru_table *t, uint32_t e)
{
    if (e >= p->room && cxp_policy_reserve(p, t)) {
        cxp_lru_remove(t, e);
        t->inserts--;
        return -1;
    }
    cxp_policy_add_(p, t, e);
    return 0;
}

static inline uint32_t
cxp_cache_insert(cxp_lru_table *t, void *key, void *value, uint32_t tag)
{
    uint32_t e = cxp_lru_insert(t, key, value, tag);
    if (t->policy && e && cxp_policy_admit_(t->policy, t, e))
        return 0;
    return e;
}

/* Before cxp_lru_replace(), which cannot fail after it. -1: no memory. */
static CXP_ASIDE int
cxp_policy_yield_(cxp_policy *p, cxp_lru_table *t, uint32_t e)
{
    if (t->next_seq == UINT32_MAX && cxp_lru_renumber_(t))
        return -1;
    cxp_policy_forget_(p, t, e);
    return 0;
}

/* Have the processor fetch what the next to go will touch. A victim that will be passed
 * by costs no more than the fetch. */
static CXP_ASIDE void
cxp_policy_expect_(const cxp_policy *p, const cxp_lru_table *t)
{
    uint32_t e = t->entries[0].prev;
    if (p->kind == CXP_S3FIFO) {
        if (((uint64_t)t->used - p->mains) * 10 >= t->used)
            e = t->entries[p->first_main].prev;
        cxp_ghosts_expect(&p->ghosts, t->entries[e].tag);
    } else if (p->kind == CXP_SIEVE && p->hand)
        e = p->hand;
    else if (p->kind == CXP_MRU || p->kind == CXP_RR)
        return;
    cxp_lru_expect(t, e);
}

/* Smaller tables stay in the processor's own caches: there a fetch is but work. */
enum { CXP_FETCHED_FROM = 1 << 13 };

/* After a replacement in a full cache, where the next is likely to be another. */
static inline void
cxp_cache_expect(const cxp_lru_table *t)
{
    if (t->mask < CXP_FETCHED_FROM)
        return;
    if (t->policy)
        cxp_policy_expect_(t->policy, t);
    else
        cxp_lru_expect(t, t->entries[0].prev);
}

/* A key of that tag may come in: the same for what the policy remembers of it. */
static inline void
cxp_cache_welcome(const cxp_lru_table *t, uint32_t tag)
{
    if (t->policy && t->policy->kind == CXP_S3FIFO && t->mask >= CXP_FETCHED_FROM)
        cxp_ghosts_expect(&t->policy->ghosts, tag);
}

/* As cxp_lru_replace(). */
static inline int
cxp_cache_replace(cxp_lru_table *t, uint32_t e, void *key, void *value, uint32_t tag)
{
    if (t->policy && cxp_policy_yield_(t->policy, t, e))
        return -1;
    if (cxp_lru_replace(t, e, key, value, tag))
        return -1;
    return t->policy ? cxp_policy_admit_(t->policy, t, e) : 0;
}

/* cxp_lru_detach(); the policy stays with `t`, as new. */
static inline void
cxp_cache_detach(cxp_lru_table *t, cxp_lru_table *old)
{
    cxp_lru_detach(t, old);
    t->policy = old->policy;
    old->policy = NULL;
    if (t->policy)
        cxp_policy_reset(t->policy);
}

/* ---- Copies ---- */

/* What the policy knows of e, besides its place in the list. */
static inline uint32_t
cxp_policy_mark(const cxp_policy *p, uint32_t e)
{
    if (cxp_policy_is_tiny_(p))
        return cxp_tiny_mark(&p->tiny, e);
    if (p->kind == CXP_S3FIFO)
        return p->mark[e];
    if (p->kind == CXP_SIEVE)
        return p->mark[e] | (p->hand == e ? 2u : 0u);
    return p->kind == CXP_LFU ? p->frequency[p->place[e]] : 0;
}

/* Take up the marks of another's entries, by entry; the list is in its order already.
 * Marks that no policy would have made are corrected. */
static inline void
cxp_policy_restore(cxp_policy *p, cxp_lru_table *t, const uint32_t *marks)
{
    uint32_t g = 0;
    if (cxp_policy_is_tiny_(p)) {
        cxp_tiny_restore(&p->tiny, t, marks);
        return;
    }
    p->first_main = p->mains = p->hand = p->groups = p->free_group = 0;
    for (uint32_t e = t->used ? t->entries[0].prev : 0; e; e = t->entries[e].prev) {
        if (p->kind == CXP_SIEVE) {
            p->mark[e] = marks[e] & 1;
            if (marks[e] & 2)
                p->hand = e;
        } else if (p->kind == CXP_S3FIFO) {
            int main = marks[e] & CXP_S3_MAIN &&
                       (!t->entries[e].next || p->first_main == t->entries[e].next);
            p->mark[e] = (uint8_t)((marks[e] & 3) | (main ? CXP_S3_MAIN : 0u));
            if (main) {
                p->first_main = e;
                p->mains++;
            }
        } else if (p->kind == CXP_LFU) {
            uint32_t f = marks[e] ? marks[e] : 1;
            if (!g || f > p->frequency[g])
                g = cxp_lfu_group_(p, e, f);
            p->head[g] = e;
            p->place[e] = g;
        }
    }
}

/* ---- Check ---- */

/* Walk all invariants: 0, or the number of the first that is broken. O(n). */
static inline int
cxp_policy_check(const cxp_policy *p, const cxp_lru_table *t)
{
    uint32_t mains = 0, first = 0, groups = 0;
    uint64_t before = (uint64_t)UINT32_MAX + 1;
    for (uint32_t e = t->used ? t->entries[0].next : 0; e; e = t->entries[e].next) {
        if (p->kind == CXP_S3FIFO) {
            if (p->mark[e] & CXP_S3_MAIN) {
                mains++;
                first = first ? first : e;
            } else if (first)
                return 1;
        } else if (p->kind == CXP_LFU) {
            uint32_t prev = t->entries[e].prev, group = p->place[e];
            if (!prev || p->place[prev] != group) {
                if (p->head[group] != e || p->frequency[group] >= before)
                    return 2;
                before = p->frequency[group];
                groups++;
            }
        } else if (p->kind == CXP_RR) {
            if (p->place[e] >= t->used || p->nodes[p->place[e]] != e)
                return 3;
        }
    }
    if (p->kind == CXP_S3FIFO && (mains != p->mains || first != p->first_main))
        return 1;
    if (p->kind == CXP_LFU) {
        for (uint32_t free = p->free_group; free && groups <= p->groups; groups++)
            free = p->head[free];
        if (groups != p->groups)
            return 2;
    }
    if (p->hand && (p->hand > t->high || !t->entries[p->hand].key))
        return 4;
    if (cxp_ghosts_check(&p->ghosts))
        return 5;
    int broken = cxp_policy_is_tiny_(p) ? cxp_tiny_check(&p->tiny, t) : 0;
    return broken ? 5 + broken : 0;
}

#endif
