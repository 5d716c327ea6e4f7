/* A model of which key comes next: prediction by partial matching over contexts of up
 * to `order` keys, in memory of a fixed bound. What it computes, and from whose papers,
 * is told in src/ctxpool/_pure/markov.py, its twin; this is how.
 *
 *     cxp_markov m;
 *     cxp_markov_init(&m, 3, 10000, 16, hits, tries);    // -1: no memory
 *     uint32_t id = ...                                  // as in any cxp_lru_table,
 *     if (!id)                                           // m.keys
 *         id = cxp_markov_add(&m, key, tag);             // 0: no memory
 *     cxp_markov_record(&m, id, id);
 *     while ((key = cxp_markov_take_unused(&m)))         // nothing names it any more
 *         ...
 *     cxp_markov_place at = m.here;
 *     uint32_t n = cxp_markov_predict(&m, &at, 5);       // m.guesses[0..n)
 *     cxp_markov_fini(&m);
 *
 * Layout
 *     keys       an lru_table: an entry's number is the key's id. Its values and its
 *                order of use mean nothing here.
 *     symbols    by id: how many names, followers and places it is in.
 *     levels     contexts of 0, 1, 2 ... keys: {tag, context} slots, open addressing
 *                with linear probing, at most 0.6 full, over an array of contexts of
 *                equal size: header, name (ids, the last one used at the end), counts
 *                (a byte each), followers (ids). Context 0 is the head of the recency
 *                list. Level 0 has one context, of no name, and no slots.
 *     rates      hits and tries, see _markov_support.py.
 * A context of two keys with 16 followers takes 104 bytes, and 13 to 27 of slots.
 *
 * Invariants (cxp_markov_check() walks them all)
 *     1. Each context of a level is in one slot, with the tag of its name, and between
 *        its home and that slot none is empty; the recency list holds it once.
 *     2. Counts are at least 1, not ascending, and sum to total, below 255; followers
 *        are distinct, and but for level 0 there is one.
 *     3. uses of a symbol is the number of its places: in names, followers, here.
 *        One without any is on the list of the unused; so may others be.
 *     4. Each rate has 0 <= hits <= tries <= CXP_MARKOV_MEMORY.
 *
 * Cost: record and predict O(order * successors); nothing is allocated by them, and no
 * table but that of the keys grows, in cxp_markov_add(): O(keys) at each doubling.
 *
 * Contract: the caller locks. Keys are opaque and never freed here. `keys.version`
 * changes whenever ids may have: a caller whose comparison can run foreign code looks
 * at it afterwards, and starts again if it did. A function that fails has changed
 * nothing.
 */
#ifndef CTXPOOL_MARKOV_H
#define CTXPOOL_MARKOV_H

#include <ctxpool/asan.h>
#include <ctxpool/lru_table.h>

#define CXP_MARKOV_MAX_ORDER 8
#define CXP_MARKOV_MOST      255 /* of a context's counts: at it all are halved */
#define CXP_MARKOV_MEMORY    1000.0
#define CXP_MARKOV_FAINT  0.01 /* left to shorter contexts, when they are not asked */
#define CXP_MARKOV_LISTED UINT32_MAX /* the end of the list of the unused */

enum {
    CXP_MARKOV_STEPS = 11,
    CXP_MARKOV_SHARES = 12,
    CXP_MARKOV_FOLLOWERS = 8,
    CXP_MARKOV_LEADS = CXP_MARKOV_STEPS * CXP_MARKOV_SHARES,
    CXP_MARKOV_RESTS = CXP_MARKOV_STEPS * CXP_MARKOV_FOLLOWERS,
    CXP_MARKOV_RATES = CXP_MARKOV_LEADS + 2 * CXP_MARKOV_RESTS
};

typedef struct cxp_markov_symbol {
    uint32_t uses;
    uint32_t next;  /* in the list of the unused, CXP_MARKOV_LISTED; 0: not in it */
    uint32_t stamp; /* the prediction that found it last */
} cxp_markov_symbol;

typedef struct cxp_markov_context {
    uint32_t prev, next; /* by recency */
    uint32_t tag;
    uint16_t total;
    uint16_t followers;
} cxp_markov_context; /* then the name, the counts, the followers */

typedef struct cxp_markov_slot {
    uint32_t tag, context;
} cxp_markov_slot;

typedef struct cxp_markov_level {
    cxp_markov_slot *slots;
    unsigned char *contexts;
    size_t stride;
    uint32_t mask, shift;
    uint32_t size; /* keys of a name */
    uint32_t used, limit;
} cxp_markov_level;

typedef struct cxp_markov_rate {
    double hits, tries;
} cxp_markov_rate;

/* The last keys, and the hashes of the last 0, 1, 2 ... of them. */
typedef struct cxp_markov_place {
    uint64_t hash[CXP_MARKOV_MAX_ORDER + 1];
    uint32_t recent[CXP_MARKOV_MAX_ORDER];
    uint32_t length;
} cxp_markov_place;

typedef struct cxp_markov_guess {
    double chance;
    uint32_t id;
    uint32_t rank; /* among those of equal chance */
} cxp_markov_guess;

typedef struct cxp_markov {
    cxp_lru_table keys;
    cxp_markov_symbol *symbols;
    cxp_markov_rate *rates;
    cxp_markov_guess *guesses;
    uint32_t room; /* length of symbols[] */
    uint32_t unused;
    uint32_t stamp;
    uint32_t order, contexts, successors;
    cxp_markov_place here;
    cxp_markov_level levels[CXP_MARKOV_MAX_ORDER + 1];
} cxp_markov;

/* ---- Contexts ---- */

static inline cxp_markov_context *
cxp_markov_at_(const cxp_markov_level *level, uint32_t c)
{
    return (cxp_markov_context *)(void *)(level->contexts + c * level->stride);
}

static inline uint32_t *
cxp_markov_name(const cxp_markov_context *context)
{
    return (uint32_t *)(uintptr_t)(context + 1);
}

static inline uint8_t *
cxp_markov_counts(const cxp_markov_level *level, const cxp_markov_context *context)
{
    return (uint8_t *)(cxp_markov_name(context) + level->size);
}

static inline uint32_t *
cxp_markov_followers(const cxp_markov *m, const cxp_markov_level *level,
                     const cxp_markov_context *context)
{
    uint8_t *counts = cxp_markov_counts(level, context);
    return (uint32_t *)(void *)(counts + ((m->successors + 3) & ~3u));
}

static inline uint64_t
cxp_markov_mix_(uint64_t hash, uint32_t id)
{
    hash = (hash ^ id) * 0x9E3779B97F4A7C15u;
    return hash ^ hash >> 32;
}

/* id comes next. 0 is a key that was never seen: no context has it in its name. */
static inline void
cxp_markov_push(cxp_markov_place *at, uint32_t order, uint32_t id)
{
    if (at->length >= order) {
        at->length = order - 1;
        for (uint32_t i = 1; i < order; i++)
            at->recent[i - 1] = at->recent[i];
    }
    at->recent[at->length++] = id;
    for (uint32_t k = at->length; k; k--)
        at->hash[k] = cxp_markov_mix_(at->hash[k - 1], id);
}

static inline uint32_t
cxp_markov_tag_(uint64_t hash)
{
    return (uint32_t)((hash * 0xD6E8FEB86659FD93u) >> 32);
}

static inline uint32_t
cxp_markov_home_(const cxp_markov_level *level, uint32_t tag)
{
    return tag >> level->shift;
}

/* The context of the last level->size keys; 0: none. */
static inline uint32_t
cxp_markov_find_(const cxp_markov_level *level, const cxp_markov_place *at)
{
    uint32_t size = level->size, tag = cxp_markov_tag_(at->hash[size]);
    const uint32_t *name = at->recent + at->length - size;
    for (uint32_t p = cxp_markov_home_(level, tag); level->slots[p].context;
         p = (p + 1) & level->mask) {
        if (level->slots[p].tag != tag)
            continue;
        uint32_t c = level->slots[p].context, same = 0;
        const uint32_t *its = cxp_markov_name(cxp_markov_at_(level, c));
        while (same < size && its[same] == name[same])
            same++;
        if (same == size)
            return c;
    }
    return 0;
}

static inline void
cxp_markov_link_(cxp_markov_level *level, uint32_t c)
{
    cxp_markov_context *head = cxp_markov_at_(level, 0);
    cxp_markov_context *context = cxp_markov_at_(level, c);
    context->prev = 0;
    context->next = head->next;
    cxp_markov_at_(level, head->next)->prev = c;
    head->next = c;
}

static inline void
cxp_markov_unlink_(cxp_markov_level *level, uint32_t c)
{
    cxp_markov_context *context = cxp_markov_at_(level, c);
    cxp_markov_at_(level, context->prev)->next = context->next;
    cxp_markov_at_(level, context->next)->prev = context->prev;
}

static inline void
cxp_markov_occupy_(cxp_markov_level *level, uint32_t c)
{
    uint32_t tag = cxp_markov_at_(level, c)->tag, p = cxp_markov_home_(level, tag);
    while (level->slots[p].context)
        p = (p + 1) & level->mask;
    level->slots[p] = (cxp_markov_slot){tag, c};
}

static inline void
cxp_markov_vacate_(cxp_markov_level *level, uint32_t c)
{
    cxp_markov_slot *slots = level->slots;
    uint32_t mask = level->mask;
    uint32_t hole = cxp_markov_home_(level, cxp_markov_at_(level, c)->tag);
    while (slots[hole].context != c)
        hole = (hole + 1) & mask;
    for (uint32_t p = (hole + 1) & mask; slots[p].context; p = (p + 1) & mask) {
        uint32_t home = cxp_markov_home_(level, slots[p].tag);
        if (((p - home) & mask) >= ((p - hole) & mask)) {
            slots[hole] = slots[p];
            hole = p;
        }
    }
    slots[hole].context = 0;
}

/* ---- Begin and end ---- */

static inline size_t
cxp_markov_slots_(uint32_t contexts)
{
    size_t n = 8;
    while (n * 6 / 10 < contexts)
        n *= 2;
    return n;
}

static inline void
cxp_markov_fini(cxp_markov *m)
{
    for (uint32_t k = 0; k <= CXP_MARKOV_MAX_ORDER; k++) {
        cxp_markov_level *level = &m->levels[k];
        if (level->contexts)
            CXP_SHOW(level->contexts, ((size_t)level->limit + 1) * level->stride);
        free(level->slots);
        free(level->contexts);
    }
    free(m->symbols);
    free(m->rates);
    free(m->guesses);
    cxp_lru_fini(&m->keys);
    memset(m, 0, sizeof *m);
    cxp_lru_init(&m->keys);
}

/* A model that knows nothing: order 1..8, contexts 1..2^24, successors 1..128.
 * hits and tries: the priors of its CXP_MARKOV_RATES * 2 * (order + 1) rates.
 * -1: no memory. */
static inline int
cxp_markov_init(cxp_markov *m, uint32_t order, uint32_t contexts, uint32_t successors,
                const double *hits, const double *tries)
{
    memset(m, 0, sizeof *m);
    cxp_lru_init(&m->keys);
    m->order = order;
    m->contexts = contexts;
    m->successors = successors;
    m->unused = CXP_MARKOV_LISTED;
    size_t rates = (size_t)CXP_MARKOV_RATES * 2 * (order + 1);
    m->rates = malloc(rates * sizeof *m->rates);
    m->guesses = malloc((order + 1) * (size_t)successors * sizeof *m->guesses);
    int failed = !m->rates || !m->guesses;
    for (uint32_t k = 0; k <= order; k++) {
        cxp_markov_level *level = &m->levels[k];
        size_t bytes = sizeof(cxp_markov_context) + 4 * (size_t)k +
                       ((successors + 3) & ~3u) + 4 * (size_t)successors;
        level->stride = (bytes + 7) & ~(size_t)7;
        level->size = k;
        level->limit = k ? contexts : 1;
        if (k) {
            size_t slots = cxp_markov_slots_(contexts);
            level->mask = (uint32_t)(slots - 1);
            level->shift = 32;
            for (size_t n = slots; n > 1; n /= 2)
                level->shift--;
            level->slots = calloc(slots, sizeof *level->slots);
            failed |= !level->slots;
        }
        size_t length = (size_t)level->limit + 1;
        level->contexts = calloc(length, level->stride);
        failed |= !level->contexts;
        size_t ready = k ? 1 : 2;
        if (level->contexts)
            CXP_HIDE(level->contexts + ready * level->stride,
                     (length - ready) * level->stride);
    }
    if (failed) {
        cxp_markov_fini(m);
        return -1;
    }
    m->levels[0].used = 1;
    for (size_t i = 0; i < rates; i++)
        m->rates[i] = (cxp_markov_rate){hits[i], tries[i]};
    /* Not the same chains for everybody: only the order of slots depends on it. */
    m->here.hash[0] = (uint64_t)(uintptr_t)m->rates >> 4;
    return 0;
}

/* Bytes of the tables. */
static inline size_t
cxp_markov_bytes(const cxp_markov *m)
{
    size_t bytes = cxp_lru_bytes(&m->keys) + m->room * sizeof *m->symbols;
    bytes += CXP_MARKOV_RATES * 2 * (size_t)(m->order + 1) * sizeof *m->rates;
    bytes += (m->order + 1) * (size_t)m->successors * sizeof *m->guesses;
    for (uint32_t k = 0; k <= m->order; k++) {
        const cxp_markov_level *level = &m->levels[k];
        bytes += ((size_t)level->limit + 1) * level->stride;
        bytes += k ? ((size_t)level->mask + 1) * sizeof *level->slots : 0;
    }
    return bytes;
}

/* Contexts that are known. */
static inline size_t
cxp_markov_len(const cxp_markov *m)
{
    size_t known = 0;
    for (uint32_t k = 1; k <= m->order; k++)
        known += m->levels[k].used;
    return known;
}

/* ---- Keys ---- */

static inline void
cxp_markov_use(cxp_markov *m, uint32_t id)
{
    m->symbols[id].uses++;
}

static inline void
cxp_markov_release(cxp_markov *m, uint32_t id)
{
    cxp_markov_symbol *symbol = &m->symbols[id];
    if (--symbol->uses || symbol->next)
        return;
    symbol->next = m->unused;
    m->unused = id;
}

/* The id of a key that is not there yet; 0: no memory. It is on the list of the unused
 * until it is recorded. */
static inline uint32_t
cxp_markov_add(cxp_markov *m, void *key, uint32_t tag)
{
    uint32_t id = cxp_lru_insert(&m->keys, key, key, tag);
    if (!id)
        return 0;
    if (id >= m->room) {
        uint32_t room = m->keys.allocated;
        cxp_markov_symbol *symbols = realloc(m->symbols, room * sizeof *symbols);
        if (!symbols) {
            cxp_lru_remove(&m->keys, id);
            return 0;
        }
        memset(symbols + m->room, 0, (room - m->room) * sizeof *symbols);
        m->symbols = symbols;
        m->room = room;
    }
    m->symbols[id] = (cxp_markov_symbol){1, 0, 0};
    cxp_markov_release(m, id);
    return id;
}

/* Remove a key that nothing names, and return it; NULL when there is no such. */
static inline void *
cxp_markov_take_unused(cxp_markov *m)
{
    while (m->unused != CXP_MARKOV_LISTED) {
        uint32_t id = m->unused;
        m->unused = m->symbols[id].next;
        m->symbols[id].next = 0;
        if (m->symbols[id].uses)
            continue;
        void *key = m->keys.entries[id].key;
        cxp_lru_remove(&m->keys, id);
        return key;
    }
    return NULL;
}

/* ---- Rates ---- */

static const uint8_t cxp_markov_steps_[] = {1, 2, 3, 4, 6, 9, 13, 20, 32, 64, 128};

static inline uint32_t
cxp_markov_step_(uint32_t total)
{
    uint32_t step = total >= 13 ? 6 : 0;
    while (step + 1 < CXP_MARKOV_STEPS && cxp_markov_steps_[step + 1] <= total)
        step++;
    return step;
}

/* The rates of the leader (NULL: none leads) and of the (other) followers. */
static inline cxp_markov_rate *
cxp_markov_kinds_(cxp_markov_rate *base, uint32_t total, uint32_t first,
                  uint32_t followers, cxp_markov_rate **rest)
{
    uint32_t step = cxp_markov_step_(total);
    uint32_t many = followers < CXP_MARKOV_FOLLOWERS ? followers : CXP_MARKOV_FOLLOWERS;
    *rest = base + CXP_MARKOV_LEADS + step * CXP_MARKOV_FOLLOWERS + many - 1;
    if (3 * first < total) {
        *rest += CXP_MARKOV_RESTS;
        return NULL;
    }
    return base + step * CXP_MARKOV_SHARES + first * 16 / total - 5;
}

static inline void
cxp_markov_try_(cxp_markov_rate *rate, int hit)
{
    rate->tries += 1.0;
    if (hit)
        rate->hits += 1.0;
    if (rate->tries >= CXP_MARKOV_MEMORY) {
        rate->tries *= 0.5;
        rate->hits *= 0.5;
    }
}

/* Neither 0 nor quite 1: nothing is certain. */
static inline double
cxp_markov_rate_(const cxp_markov_rate *rate)
{
    double chance = (rate->hits + 0.01) / (rate->tries + 0.02);
    return chance < 0.999 ? chance : 0.999;
}

/* ---- Learning ---- */

static inline uint32_t
cxp_markov_where_(const uint32_t *ids, uint32_t n, uint32_t id)
{
    uint32_t i = 0;
    while (i + 4 <= n && !((ids[i] == id) | (ids[i + 1] == id) | (ids[i + 2] == id) |
                           (ids[i + 3] == id)))
        i += 4;
    while (i < n && ids[i] != id)
        i++;
    return i;
}

static inline void
cxp_markov_halve_(cxp_markov *m, cxp_markov_level *level, cxp_markov_context *context)
{
    uint8_t *counts = cxp_markov_counts(level, context);
    const uint32_t *ids = cxp_markov_followers(m, level, context);
    uint32_t n = 0, total = 0;
    for (; n < context->followers && counts[n] > 1; n++) {
        counts[n] /= 2;
        total += counts[n];
    }
    for (uint32_t i = n; i < context->followers; i++)
        cxp_markov_release(m, ids[i]);
    context->followers = (uint16_t)n;
    context->total = (uint16_t)total;
}

/* One more for id, whose place among the followers is `at`, or their number. */
static inline void
cxp_markov_count_(cxp_markov *m, cxp_markov_level *level, cxp_markov_context *context,
                  uint32_t id, uint32_t at)
{
    uint8_t *counts = cxp_markov_counts(level, context);
    uint32_t *ids = cxp_markov_followers(m, level, context), count = 1;
    if (at < context->followers)
        count += counts[at];
    else {
        if (at == m->successors) {
            uint32_t rarest = counts[at - 1];
            context->followers--;
            context->total = (uint16_t)(context->total - rarest);
            cxp_markov_release(m, ids[at - 1]);
            if (rarest > 1)
                cxp_markov_halve_(m, level, context);
        }
        at = context->followers++;
        cxp_markov_use(m, id);
    }
    for (; at && counts[at - 1] <= count; at--) {
        ids[at] = ids[at - 1];
        counts[at] = counts[at - 1];
    }
    ids[at] = id;
    counts[at] = (uint8_t)count;
    context->total++;
    if (context->total >= CXP_MARKOV_MOST)
        cxp_markov_halve_(m, level, context);
}

/* A new context of the last level->size keys, with no follower yet. */
static inline cxp_markov_context *
cxp_markov_remember_(cxp_markov *m, cxp_markov_level *level, const cxp_markov_place *at)
{
    uint32_t c, size = level->size;
    cxp_markov_context *context;
    if (level->used < level->limit) {
        c = ++level->used;
        context = cxp_markov_at_(level, c);
        CXP_SHOW(context, level->stride);
    } else {
        c = cxp_markov_at_(level, 0)->prev;
        context = cxp_markov_at_(level, c);
        const uint32_t *ids = cxp_markov_followers(m, level, context);
        for (uint32_t i = 0; i < size; i++)
            cxp_markov_release(m, cxp_markov_name(context)[i]);
        for (uint32_t i = 0; i < context->followers; i++)
            cxp_markov_release(m, ids[i]);
        cxp_markov_vacate_(level, c);
        cxp_markov_unlink_(level, c);
    }
    memcpy(cxp_markov_name(context), at->recent + at->length - size,
           size * sizeof(uint32_t));
    for (uint32_t i = 0; i < size; i++)
        cxp_markov_use(m, cxp_markov_name(context)[i]);
    context->tag = cxp_markov_tag_(at->hash[size]);
    context->total = context->followers = 0;
    cxp_markov_link_(level, c);
    cxp_markov_occupy_(level, c);
    return context;
}

/* The key id was used; `own` is what contexts are to know it as. */
static inline void
cxp_markov_record(cxp_markov *m, uint32_t id, uint32_t own)
{
    cxp_markov_context *visited[CXP_MARKOV_MAX_ORDER + 1];
    cxp_markov_level *of[CXP_MARKOV_MAX_ORDER + 1];
    uint32_t count = 0, missing = 0, at = 0, last = 0;
    cxp_markov_place *here = &m->here;
    for (uint32_t k = here->length + 1; k--;) {
        cxp_markov_level *level = &m->levels[k];
        uint32_t c = k ? cxp_markov_find_(level, here) : 1;
        if (!c) {
            missing = k;
            continue;
        }
        cxp_markov_context *context = cxp_markov_at_(level, c);
        if (k && context->prev) {
            cxp_markov_unlink_(level, c);
            cxp_markov_link_(level, c);
        }
        uint32_t n = context->followers;
        const uint32_t *ids = cxp_markov_followers(m, level, context);
        at = cxp_markov_where_(ids, n, id);
        if (n) {
            cxp_markov_rate *rest,
                *lead = cxp_markov_kinds_(
                    m->rates + CXP_MARKOV_RATES * (2 * k + !!count), context->total,
                    *cxp_markov_counts(level, context), n, &rest);
            if (!lead)
                cxp_markov_try_(rest, at < n);
            else if (!at)
                cxp_markov_try_(lead, 1);
            else {
                uint32_t i = 0; /* a longer one that knew the leader: it can't come */
                while (i < count) {
                    const uint32_t *longer = cxp_markov_followers(m, of[i], visited[i]);
                    uint32_t length = visited[i]->followers;
                    if (cxp_markov_where_(longer, length, ids[0]) < length)
                        break;
                    i++;
                }
                if (i == count)
                    cxp_markov_try_(lead, 0);
                if (n > 1)
                    cxp_markov_try_(rest, at < n);
            }
        }
        of[count] = level;
        visited[count++] = context;
        if (at < n)
            break;
    }
    for (uint32_t i = 0; i < count; i++) {
        last = visited[i]->followers;
        cxp_markov_count_(m, of[i], visited[i], id, i + 1 < count ? last : at);
    }
    if (missing) {
        cxp_markov_level *level = &m->levels[missing];
        cxp_markov_count_(m, level, cxp_markov_remember_(m, level, here), id, 0);
    }
    cxp_markov_use(m, own);
    if (here->length == m->order)
        cxp_markov_release(m, here->recent[0]);
    cxp_markov_push(here, m->order, own);
}

/* The next key does not follow the last one. */
static inline void
cxp_markov_forget_place(cxp_markov *m)
{
    for (uint32_t i = 0; i < m->here.length; i++)
        cxp_markov_release(m, m->here.recent[i]);
    m->here.length = 0;
}

/* ---- Prediction ---- */

static inline int
cxp_markov_by_chance_(const void *a, const void *b)
{
    const cxp_markov_guess *x = a, *y = b;
    if (x->chance > y->chance || x->chance < y->chance)
        return x->chance > y->chance ? -1 : 1;
    return x->rank < y->rank ? -1 : 1;
}

/* What may follow `at`, with the chances, in m->guesses; their number. */
static inline uint32_t
cxp_markov_guess_all_(cxp_markov *m, const cxp_markov_place *at)
{
    cxp_markov_symbol *symbols = m->symbols;
    cxp_markov_guess *out = m->guesses;
    uint32_t count = 0, escaped = 0;
    double left = 1.0;
    if (!++m->stamp) {
        for (uint32_t i = 0; i < m->room; i++)
            symbols[i].stamp = 0;
        m->stamp = 1;
    }
    for (uint32_t k = at->length + 1; k--;) {
        const cxp_markov_level *level = &m->levels[k];
        uint32_t c = k ? cxp_markov_find_(level, at) : 1;
        if (!c)
            continue;
        const cxp_markov_context *context = cxp_markov_at_(level, c);
        const uint32_t *ids = cxp_markov_followers(m, level, context);
        const uint8_t *counts = cxp_markov_counts(level, context);
        uint32_t n = context->followers, start = count, total = 0, i = 0;
        if (!n)
            continue;
        cxp_markov_rate *rest,
            *lead = cxp_markov_kinds_(m->rates + CXP_MARKOV_RATES * (2 * k + escaped),
                                      context->total, counts[0], n, &rest);
        int known = symbols[ids[0]].stamp == m->stamp;
        if (lead && !known) {
            double rate = cxp_markov_rate_(lead);
            symbols[ids[0]].stamp = m->stamp;
            out[count] = (cxp_markov_guess){left * rate, ids[0], count};
            start = ++count;
            left *= 1.0 - rate;
            escaped = 1;
            i = 1;
        }
        for (; i < n; i++) {
            if (symbols[ids[i]].stamp == m->stamp)
                continue;
            symbols[ids[i]].stamp = m->stamp;
            out[count] = (cxp_markov_guess){counts[i], ids[i], count};
            count++;
            total += counts[i];
        }
        if (total) {
            double rate = cxp_markov_rate_(rest), scale = left * rate / total;
            for (uint32_t j = start; j < count; j++)
                out[j].chance = scale * out[j].chance;
            left *= 1.0 - rate;
            escaped = 1;
        }
        if (left < CXP_MARKOV_FAINT)
            break;
    }
    return count;
}

/* The n likeliest keys after `at`, the likeliest first, in m->guesses; their number. */
static inline uint32_t
cxp_markov_predict(cxp_markov *m, const cxp_markov_place *at, uint32_t n)
{
    uint32_t count = cxp_markov_guess_all_(m, at);
    cxp_markov_guess *out = m->guesses;
    if (n > 16) {
        if (count)
            qsort(out, count, sizeof *out, cxp_markov_by_chance_);
        return count < n ? count : n;
    }
    uint32_t ranked =
        0; /* out[0..ranked) is in order, and holds the likeliest so far */
    for (uint32_t i = 0; i < count && n; i++) {
        cxp_markov_guess guess = out[i];
        if (ranked == n && !(guess.chance > out[n - 1].chance))
            continue;
        uint32_t to = ranked < n ? ranked++ : n - 1;
        for (; to && guess.chance > out[to - 1].chance; to--)
            out[to] = out[to - 1];
        out[to] = guess;
    }
    return ranked;
}

/* ---- Save and load ---- */

/* Everything but keys and rates, in an array that the caller frees; NULL: no memory.
 * The place: its length and keys; then contexts, that of no name first and those of a
 * level in the order of use, the least recent first: {length of the name, followers,
 * name, followers, counts}. A key is its rank among the live ids, from 0. */
static inline uint32_t *
cxp_markov_save(const cxp_markov *m, size_t *length)
{
    size_t room = 1 + CXP_MARKOV_MAX_ORDER + 2 + 2 * (size_t)m->successors, n = 0;
    for (uint32_t k = 1; k <= m->order; k++)
        for (uint32_t c = 1; c <= m->levels[k].used; c++)
            room += 2 + k + 2u * cxp_markov_at_(&m->levels[k], c)->followers;
    uint32_t *out = malloc(room * sizeof *out);
    uint32_t *rank = malloc(((size_t)m->keys.high + 1) * sizeof *rank);
    if (!out || !rank) {
        free(out);
        free(rank);
        return NULL;
    }
    for (uint32_t id = 1, live = 0; id <= m->keys.high; id++)
        if (m->keys.entries[id].key)
            rank[id] = live++;
    out[n++] = m->here.length;
    for (uint32_t i = 0; i < m->here.length; i++)
        out[n++] = rank[m->here.recent[i]];
    for (uint32_t k = 0; k <= m->order; k++) {
        const cxp_markov_level *level = &m->levels[k];
        uint32_t c = k ? cxp_markov_at_(level, 0)->prev : 1;
        for (; c; c = k ? cxp_markov_at_(level, c)->prev : 0) {
            const cxp_markov_context *context = cxp_markov_at_(level, c);
            uint32_t followers = context->followers;
            out[n++] = k;
            out[n++] = followers;
            for (uint32_t i = 0; i < k; i++)
                out[n++] = rank[cxp_markov_name(context)[i]];
            for (uint32_t i = 0; i < followers; i++)
                out[n++] = rank[cxp_markov_followers(m, level, context)[i]];
            for (uint32_t i = 0; i < followers; i++)
                out[n++] = cxp_markov_counts(level, context)[i];
        }
    }
    free(rank);
    *length = n;
    return out;
}

static inline int
cxp_markov_load_one_(cxp_markov *m, const uint32_t *name, uint32_t size,
                     const uint32_t *followers, const uint32_t *counts, uint32_t n)
{
    uint32_t total = 0;
    if (size && !n)
        return -1;
    for (uint32_t i = 0; i < n; i++) {
        if (!counts[i] || counts[i] >= CXP_MARKOV_MOST ||
            (i && counts[i] > counts[i - 1]) ||
            cxp_markov_where_(followers, i, followers[i]) < i)
            return -1;
        total += counts[i];
    }
    if (total >= CXP_MARKOV_MOST)
        return -1;
    cxp_markov_level *level = &m->levels[size];
    cxp_markov_context *context = cxp_markov_at_(level, 1);
    if (size) {
        cxp_markov_place at = {.hash = {m->here.hash[0]}};
        for (uint32_t i = 0; i < size; i++)
            cxp_markov_push(&at, size, name[i]);
        if (level->used == level->limit || cxp_markov_find_(level, &at))
            return -1;
        context = cxp_markov_remember_(m, level, &at);
    } else if (context->followers)
        return -1;
    context->total = (uint16_t)total;
    context->followers = (uint16_t)n;
    uint32_t *ids = cxp_markov_followers(m, level, context);
    for (uint32_t i = 0; i < n; i++) {
        ids[i] = followers[i];
        cxp_markov_counts(level, context)[i] = (uint8_t)counts[i];
        cxp_markov_use(m, ids[i]);
    }
    return 0;
}

/* What cxp_markov_save() gave, into a new model; the key of rank r has ids[r], which
 * the caller holds a use of. -1: no model is like that; this one is whole, and holds
 * some of it. */
static inline int
cxp_markov_load(cxp_markov *m, const uint32_t *saved, size_t length,
                const uint32_t *ids, size_t keys)
{
    uint32_t own[CXP_MARKOV_MAX_ORDER], followers[CXP_MARKOV_MOST];
    size_t at = 0;
    if (!length || saved[0] > m->order || saved[0] > length - 1)
        return -1;
    for (at = 1; at <= saved[0]; at++) {
        if (saved[at] >= keys)
            return -1;
        cxp_markov_use(m, ids[saved[at]]);
        cxp_markov_push(&m->here, m->order, ids[saved[at]]);
    }
    while (at < length) {
        if (length - at < 2)
            return -1;
        uint32_t size = saved[at], n = saved[at + 1];
        at += 2;
        if (size > m->order || n > m->successors || length - at < size + 2 * (size_t)n)
            return -1;
        for (uint32_t i = 0; i < size + n; i++)
            if (saved[at + i] >= keys)
                return -1;
            else if (i < size)
                own[i] = ids[saved[at + i]];
            else
                followers[i - size] = ids[saved[at + i]];
        if (cxp_markov_load_one_(m, own, size, followers, saved + at + size + n, n))
            return -1;
        at += size + 2 * (size_t)n;
    }
    return 0;
}

/* ---- Check ---- */

static inline int
cxp_markov_check_level_(const cxp_markov *m, const cxp_markov_level *level,
                        uint32_t *uses)
{
    uint32_t filled = 0, listed = 0, prev = 0;
    for (size_t p = 0; level->size && p <= level->mask; p++) {
        cxp_markov_slot slot = level->slots[p];
        if (!slot.context)
            continue;
        filled++;
        if (slot.context > level->used ||
            cxp_markov_at_(level, slot.context)->tag != slot.tag)
            return 1;
        for (uint32_t q = cxp_markov_home_(level, slot.tag); q != p;
             q = (q + 1) & level->mask)
            if (!level->slots[q].context || level->slots[q].context == slot.context)
                return 1;
    }
    if (level->used > level->limit || (level->size && filled != level->used))
        return 1;
    for (uint32_t c = cxp_markov_at_(level, 0)->next; c;
         prev = c, c = cxp_markov_at_(level, c)->next)
        if (++listed > level->used || cxp_markov_at_(level, c)->prev != prev)
            return 1;
    if (level->size &&
        (listed != level->used || cxp_markov_at_(level, 0)->prev != prev))
        return 1;
    for (uint32_t c = 1; c <= level->used; c++) {
        const cxp_markov_context *context = cxp_markov_at_(level, c);
        const uint32_t *ids = cxp_markov_followers(m, level, context);
        const uint8_t *counts = cxp_markov_counts(level, context);
        cxp_markov_place at = {.hash = {m->here.hash[0]}};
        uint32_t total = 0;
        for (uint32_t i = 0; i < level->size; i++) {
            uint32_t id = cxp_markov_name(context)[i];
            if (!id || id > m->keys.high)
                return 1;
            uses[id]++;
            cxp_markov_push(&at, level->size, id);
        }
        if (level->size && cxp_markov_find_(level, &at) != c)
            return 1;
        if (context->followers > m->successors || (level->size && !context->followers))
            return 2;
        for (uint32_t i = 0; i < context->followers; i++) {
            if (!ids[i] || ids[i] > m->keys.high || !counts[i] ||
                (i && counts[i] > counts[i - 1]) ||
                cxp_markov_where_(ids, i, ids[i]) < i)
                return 2;
            uses[ids[i]]++;
            total += counts[i];
        }
        if (total != context->total || total >= CXP_MARKOV_MOST)
            return 2;
    }
    return 0;
}

/* Walk all invariants: 0, or the number of the first that is broken (10 and more: of
 * the table of keys). O(n). */
static inline int
cxp_markov_check(const cxp_markov *m)
{
    int broken = cxp_lru_check(&m->keys);
    if (broken)
        return 10 + broken;
    uint32_t *uses = calloc((size_t)m->keys.high + 1, sizeof *uses), listed = 0;
    if (!uses)
        return 0;
    for (uint32_t k = 0; k <= m->order && !broken; k++)
        broken = cxp_markov_check_level_(m, &m->levels[k], uses);
    for (uint32_t i = 0; i < m->here.length; i++)
        uses[m->here.recent[i]]++;
    for (uint32_t id = m->unused; id != CXP_MARKOV_LISTED && !broken;
         id = m->symbols[id].next)
        broken = !id || id > m->keys.high || ++listed > m->keys.high ? 3 : 0;
    for (uint32_t id = 1; id <= m->keys.high && !broken; id++) {
        if (!m->keys.entries[id].key)
            broken = uses[id] || m->symbols[id].next ? 3 : 0;
        else if (m->symbols[id].uses != uses[id] || (!uses[id] && !m->symbols[id].next))
            broken = 3;
    }
    for (size_t i = 0; i < (size_t)CXP_MARKOV_RATES * 2 * (m->order + 1); i++)
        if (!(0 <= m->rates[i].hits && m->rates[i].hits <= m->rates[i].tries &&
              m->rates[i].tries <= CXP_MARKOV_MEMORY) &&
            !broken)
            broken = 4;
    free(uses);
    return broken;
}

#endif
