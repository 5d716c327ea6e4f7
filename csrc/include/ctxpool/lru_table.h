/* A hash table whose entries are ordered three ways: by recency, by insertion,
 * and, for those that have one, by the time they fall due. It is the body of an
 * LRU cache and decides nothing: what is evicted, and when, is the caller's.
 *
 *     cxp_lru_table t;
 *     cxp_lru_init(&t);
 *     uint32_t at, tag = cxp_lru_tag(my_hash(key));
 *     uint32_t e = cxp_lru_first(&t, tag, &at);
 *     while (e && !my_equal(t.entries[e].key, key))
 *         e = cxp_lru_next(&t, tag, &at);
 *     if (e)
 *         cxp_lru_promote(&t, e);
 *     else
 *         e = cxp_lru_insert(&t, key, value, tag);   // 0: no memory
 *     ...
 *     cxp_lru_fini(&t);
 *
 * Layout
 *     slots    32 bits each, 0 where empty: the entry's number in the low bits, as many
 *              as number the slots; then 4 bits for its distance from home (15: or
 *              more); the rest is a part of the tag that its home does not tell. Open
 *              addressing, linear probing, at most 0.6 full, a power of two of them.
 *              Those in a row lie in the order of their homes (Robin Hood hashing:
 *              Celis, Larson and Munro, 1985): none is far from its home, and taking
 *              one out moves only the few behind it that are not at home.
 *     entries  {key, value, tag, seq, prev, next}, 32 bytes. Entry 0 is the head of
 *              the recency list: its next is the most recent, its prev the least.
 *     Both begin on a line of the processor's cache, so that no entry, and no home of
 *     eight neighbouring hashes, lies across two.
 *     tag      32 mixed bits of the hash. The home of an entry follows from its tag,
 *              so the table grows and deletes without hash functions or keys.
 *     seq      the place in the order of insertion.
 * One entry and its share of the slots take 39 to 46 bytes. Two more arrays exist only
 * once used: sizes (8 bytes an entry), and due times with their heap (16 bytes).
 *
 * Invariants (cxp_lru_check() walks them all)
 *     1. Each live entry (key not NULL) is in exactly one slot, with its distance and
 *        its part of the tag, and between its home and that slot no slot is empty, nor
 *        taken by an entry with a later home.
 *     2. The recency list holds each live entry once; `used` is their number.
 *     3. Entries 1..high are live or on the free list, never both.
 *     4. seq is different for each live entry and below next_seq.
 *     5. The heap is ordered by (due, seq), and place[] is its inverse.
 *     6. total is the sum of sizes[] (exactly so while they are whole numbers).
 *     7. Entry numbers stay below 2^31: a policy may use the top bits of prev and next.
 *
 * Cost: find, insert, remove, promote O(1); growing O(n) at each doubling, none after
 * cxp_lru_reserve(); setting a due time O(1) where each is later than those before,
 * O(log n) at worst; cxp_lru_in_order() O(n). A removal leaves no tombstone, so
 * churn neither slows the table down nor lets it grow.
 *
 * Contract: the caller locks. Keys and values are opaque, never NULL, never freed
 * here. `version` changes whenever entries or slots move: a caller whose comparison
 * can run foreign code looks at it afterwards, and starts the search again if it did.
 * A function that fails (no memory) has changed nothing.
 */
#ifndef CTXPOOL_LRU_TABLE_H
#define CTXPOOL_LRU_TABLE_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* 0.6 of the most slots: 28 bits number them, and 4 are for the distance. */
#define CXP_LRU_MAX_SLOTS   (1u << 28)
#define CXP_LRU_MAX_ENTRIES (CXP_LRU_MAX_SLOTS / 10 * 6)

typedef struct cxp_lru_entry {
    void *key, *value;
    uint32_t tag, seq;
    uint32_t prev, next;
} cxp_lru_entry;

typedef uint32_t cxp_lru_slot;

struct cxp_policy;

typedef struct cxp_lru_table {
    cxp_lru_slot *slots;
    cxp_lru_entry *entries;
    void *slots_block, *entries_block; /* what malloc gave, in which they lie */
    struct cxp_policy *policy; /* of the cache above (cache_policy.h): not ours */
    uint32_t mask, shift;      /* slots - 1 (0: no slots yet); 32 - log2(slots) */
    uint32_t high;             /* entries ever used */
    uint32_t allocated;        /* length of entries[], the head included */
    uint32_t free;             /* first free entry, linked by next */
    uint32_t limit; /* most entries the caller will want: bounds the growth */
    uint32_t next_seq;
    uint64_t version;
    uint64_t hits, misses, inserts; /* hits and misses are the caller's to count */
    double *sizes, total;           /* NULL: not used */
    double *due;                    /* NULL: not used */
    uint32_t *heap, *place; /* heap[0..due_count); place 0: not in it, else + 1 */
    /* The last two may be looked at without the lock (cxp_lru_len, cxp_lru_timed), so
     * they are always stored whole. */
    uint32_t used; /* live entries */
    uint32_t due_count;
} cxp_lru_table;

static inline void
cxp_lru_set_(uint32_t *count, uint32_t value)
{
    __atomic_store_n(count, value, __ATOMIC_RELAXED);
}

/* Live entries, at some moment near now. */
static inline uint32_t
cxp_lru_len(const cxp_lru_table *t)
{
    return __atomic_load_n(&t->used, __ATOMIC_RELAXED);
}

/* Whether some entry has a due time, at some moment near now. */
static inline int
cxp_lru_timed(const cxp_lru_table *t)
{
    return __atomic_load_n(&t->due_count, __ATOMIC_RELAXED) != 0;
}

/* ---- Construction ---- */

/* An empty table holds no memory; searching it is allowed. */
static inline void
cxp_lru_init(cxp_lru_table *t)
{
    static const cxp_lru_slot none[8]; /* any home is in it */
    memset(t, 0, offsetof(cxp_lru_table, used));
    cxp_lru_set_(&t->used, 0);
    cxp_lru_set_(&t->due_count, 0);
    t->slots = (cxp_lru_slot *)(uintptr_t)none; /* never written: it counts as full */
    t->shift = 31;
    t->limit = CXP_LRU_MAX_ENTRIES;
}

static inline void
cxp_lru_fini(cxp_lru_table *t)
{
    free(t->slots_block);
    free(t->entries_block);
    free(t->sizes);
    free(t->due);
    free(t->heap);
    free(t->place);
    cxp_lru_init(t);
}

/* Move everything into `old` and leave `t` empty, its counts and limit kept. The way
 * to clear a table whose keys run foreign code when they die: finish with `t` first. */
static inline void
cxp_lru_detach(cxp_lru_table *t, cxp_lru_table *old)
{
    *old = *t;
    cxp_lru_init(t);
    t->limit = old->limit;
    t->version = old->version + 1;
    t->hits = old->hits;
    t->misses = old->misses;
    t->inserts = old->inserts;
}

/* Bytes of memory that the table holds. */
static inline size_t
cxp_lru_bytes(const cxp_lru_table *t)
{
    size_t each = sizeof(cxp_lru_entry) + (t->sizes ? sizeof(double) : 0) +
                  (t->due ? sizeof(double) + 2 * sizeof(uint32_t) : 0);
    return t->allocated * each +
           (t->mask ? ((size_t)t->mask + 1) * sizeof(cxp_lru_slot) : 0);
}

/* ---- Search ---- */

/* Neighbouring hashes (whole numbers) share a cache line of slots: the low three bits
 * are kept, the others are spread by Fibonacci hashing. */
static inline uint32_t
cxp_lru_tag(uint64_t hash)
{
    uint32_t spread = (uint32_t)(((hash >> 3) * UINT64_C(0x9E3779B97F4A7C15)) >> 32);
    return (spread & ~7u) | (uint32_t)(hash & 7);
}

static inline uint32_t
cxp_lru_home(const cxp_lru_table *t, uint32_t tag)
{
    return ((tag >> t->shift) & ~7u) | (tag & 7u);
}

/* Bits of a slot below its part of the tag. */
static inline uint32_t
cxp_lru_low_(const cxp_lru_table *t)
{
    return 32 - t->shift + 4;
}

/* The slot of entry e, in place p. */
static inline cxp_lru_slot
cxp_lru_slot_(const cxp_lru_table *t, uint32_t p, uint32_t tag, uint32_t e)
{
    uint32_t distance = (p - cxp_lru_home(t, tag)) & t->mask;
    uint64_t part = (uint64_t)(tag >> 3) << cxp_lru_low_(t);
    return (uint32_t)part | (distance < 15 ? distance : 15) << (32 - t->shift) | e;
}

/* The first entry from slot p on that may have the key. */
static inline uint32_t
cxp_lru_probe_(const cxp_lru_table *t, uint32_t tag, uint32_t p, uint32_t *at)
{
    uint32_t low = cxp_lru_low_(t);
    uint32_t part = (uint32_t)((uint64_t)(tag >> 3) << low);
    for (;; p = (p + 1) & t->mask) {
        cxp_lru_slot slot = t->slots[p];
        uint32_t e = slot & t->mask;
        if (!slot || (!((uint64_t)(slot ^ part) >> low) && t->entries[e].tag == tag)) {
            *at = p;
            return e;
        }
    }
}

/* The first entry that may have the key: the tags are equal, the keys are the
 * caller's to compare. 0: none. *at is the slot. */
static inline uint32_t
cxp_lru_first(const cxp_lru_table *t, uint32_t tag, uint32_t *at)
{
    return cxp_lru_probe_(t, tag, cxp_lru_home(t, tag), at);
}

/* The next such entry after slot *at. */
static inline uint32_t
cxp_lru_next(const cxp_lru_table *t, uint32_t tag, uint32_t *at)
{
    return cxp_lru_probe_(t, tag, (*at + 1) & t->mask, at);
}

/* ---- Slots ---- */

/* How far the entry in slot p is from its home. */
static inline uint32_t
cxp_lru_distance_(const cxp_lru_table *t, uint32_t p)
{
    uint32_t slot = t->slots[p], distance = slot >> (32 - t->shift) & 15;
    if (distance < 15)
        return distance;
    return (p - cxp_lru_home(t, t->entries[slot & t->mask].tag)) & t->mask;
}

/* Give e a slot, behind all whose home is not later; the others there move up. */
static inline void
cxp_lru_place_(cxp_lru_table *t, uint32_t e, uint32_t tag)
{
    uint32_t mask = t->mask, log = 32 - t->shift, p = cxp_lru_home(t, tag);
    for (uint32_t far = 0; t->slots[p] && cxp_lru_distance_(t, p) >= far; far++)
        p = (p + 1) & mask;
    cxp_lru_slot slot = cxp_lru_slot_(t, p, tag, e), next = t->slots[p];
    t->slots[p] = slot;
    while (next) { /* one further from its home each; 15 stays, which is "or more" */
        slot = next + ((uint32_t)((next >> log & 15) < 15) << log);
        p = (p + 1) & mask;
        next = t->slots[p];
        t->slots[p] = slot;
    }
}

/* Empty the slot of e, found from its home under that tag; those behind it that are not
 * at home move back, so there is no tombstone. */
static inline void
cxp_lru_vacate_(cxp_lru_table *t, uint32_t e, uint32_t tag)
{
    cxp_lru_slot *slots = t->slots;
    uint32_t mask = t->mask, log = 32 - t->shift, p = cxp_lru_home(t, tag);
    while ((slots[p] & mask) != e)
        p = (p + 1) & mask;
    for (;;) {
        uint32_t hole = p;
        p = (p + 1) & mask;
        cxp_lru_slot slot = slots[p];
        uint32_t distance = slot >> log & 15;
        if (!distance) { /* at home, or empty */
            slots[hole] = 0;
            return;
        }
        slots[hole] =
            distance < 15
                ? slot - (1u << log)
                : cxp_lru_slot_(t, hole, t->entries[slot & mask].tag, slot & mask);
    }
}

/* ---- Recency ---- */

static inline uint32_t
cxp_lru_oldest(const cxp_lru_table *t)
{
    return t->used ? t->entries[0].prev : 0;
}

/* e will go next: have the processor fetch what that will touch, its slot and its key,
 * and the entry after it. */
static inline void
cxp_lru_expect(const cxp_lru_table *t, uint32_t e)
{
    const cxp_lru_entry *entry = &t->entries[e];
    __builtin_prefetch(&t->slots[cxp_lru_home(t, entry->tag)], 1);
    __builtin_prefetch(entry->key, 1);
    __builtin_prefetch(&t->entries[entry->prev], 1);
}

/* The entry used next after e; 0 when e is the most recent. */
static inline uint32_t
cxp_lru_newer(const cxp_lru_table *t, uint32_t e)
{
    return t->entries[e].prev;
}

static inline void
cxp_lru_link_(cxp_lru_entry *entries, uint32_t e)
{
    uint32_t first = entries[0].next;
    entries[e].prev = 0;
    entries[e].next = first;
    entries[first].prev = e;
    entries[0].next = e;
}

static inline void
cxp_lru_unlink_(cxp_lru_entry *entries, uint32_t e)
{
    uint32_t prev = entries[e].prev, next = entries[e].next;
    entries[prev].next = next;
    entries[next].prev = prev;
}

/* Make e the most recent. */
static inline void
cxp_lru_promote(cxp_lru_table *t, uint32_t e)
{
    if (t->entries[0].next == e)
        return;
    cxp_lru_unlink_(t->entries, e);
    cxp_lru_link_(t->entries, e);
}

/* ---- Insertion order ---- */

/* The numbers of all live entries in the order of their insertion, in an array of
 * `used` that the caller frees. NULL: no memory. */
static inline uint32_t *
cxp_lru_in_order(const cxp_lru_table *t)
{
    size_t n = t->used, count = 0;
    uint64_t *a = malloc((n + 1) * sizeof *a), *b = NULL;
    if (!a)
        return NULL;
    int sorted = 1;
    for (uint32_t e = 1; e <= t->high; e++) {
        if (!t->entries[e].key)
            continue;
        a[count] = (uint64_t)t->entries[e].seq << 32 | e;
        sorted &= !count || a[count - 1] < a[count];
        count++;
    }
    if (!sorted) {
        b = malloc(n * sizeof *b);
        if (!b) {
            free(a);
            return NULL;
        }
        for (int bit = 32; bit < 64; bit += 8) { /* radix sort, least digit first */
            size_t start[257] = {0};
            for (size_t i = 0; i < n; i++)
                start[((a[i] >> bit) & 255) + 1]++;
            if (start[((a[0] >> bit) & 255) + 1] == n)
                continue;
            for (int d = 0; d < 256; d++)
                start[d + 1] += start[d];
            for (size_t i = 0; i < n; i++)
                b[start[(a[i] >> bit) & 255]++] = a[i];
            uint64_t *swap = a;
            a = b;
            b = swap;
        }
        free(b);
    }
    uint32_t *out =
        (uint32_t *)(void *)a; /* packs in place: reads run ahead of writes */
    for (size_t i = 0; i < n; i++) {
        uint64_t item;
        memcpy(&item, (char *)a + i * sizeof item, sizeof item);
        uint32_t e = (uint32_t)item;
        memcpy((char *)out + i * sizeof e, &e, sizeof e);
    }
    return out;
}

/* Number the entries afresh from 0, once in 2^32 insertions. -1: no memory. */
static inline int
cxp_lru_renumber_(cxp_lru_table *t)
{
    uint32_t *order = cxp_lru_in_order(t);
    if (!order)
        return -1;
    for (uint32_t i = 0; i < t->used; i++)
        t->entries[order[i]].seq = i;
    t->next_seq = t->used;
    free(order);
    return 0;
}

/* ---- Growth ---- */

#define CXP_LRU_LINE 64

/* The first line of a block that is CXP_LRU_LINE bytes longer than what it holds. */
static inline void *
cxp_lru_line_(void *block)
{
    return (char *)block + (-(uintptr_t)block & (CXP_LRU_LINE - 1));
}

static inline int
cxp_lru_rehash_(cxp_lru_table *t, uint32_t need)
{
    if (t->mask && ((uint64_t)t->mask + 1) * 6 / 10 >= need)
        return 0;
    uint64_t n = 8;
    uint32_t log = 3;
    while (n * 6 / 10 < need) {
        n <<= 1;
        log++;
    }
    if (n > CXP_LRU_MAX_SLOTS)
        return -1;
    void *block = calloc(1, (size_t)n * sizeof(cxp_lru_slot) + CXP_LRU_LINE);
    if (!block)
        return -1;
    cxp_lru_table grown = *t;
    grown.slots = cxp_lru_line_(block);
    grown.slots_block = block;
    grown.mask = (uint32_t)(n - 1);
    grown.shift = 32 - log;
    for (uint32_t e = 1; e <= t->high; e++)
        if (t->entries[e].key)
            cxp_lru_place_(&grown, e, t->entries[e].tag);
    free(t->slots_block);
    memcpy(t, &grown, offsetof(cxp_lru_table, used));
    t->version++;
    return 0;
}

/* Arrays for n entries. When a later one finds no memory, the longer ones stay: each
 * holds at least `allocated`. */
static inline int
cxp_lru_lengthen_(cxp_lru_table *t, uint32_t n)
{
    size_t count = (size_t)n + 1;
    size_t lead = (size_t)((char *)t->entries - (char *)t->entries_block);
    char *block = realloc(t->entries_block, count * sizeof *t->entries + CXP_LRU_LINE);
    if (!block)
        return -1;
    cxp_lru_entry *entries = cxp_lru_line_(block);
    if (!t->entries)
        memset(entries, 0, sizeof *entries);
    else if (block + lead != (char *)entries) /* it lies otherwise than the old one */
        memmove(entries, block + lead, t->allocated * sizeof *entries);
    t->entries = entries;
    t->entries_block = block;
    t->version++;
    if (t->sizes) {
        double *sizes = realloc(t->sizes, count * sizeof *sizes);
        if (!sizes)
            return -1;
        t->sizes = sizes;
    }
    if (t->due) {
        double *due = realloc(t->due, count * sizeof *due);
        if (!due)
            return -1;
        t->due = due;
        uint32_t *heap = realloc(t->heap, count * sizeof *heap);
        if (!heap)
            return -1;
        t->heap = heap;
        uint32_t *place = realloc(t->place, count * sizeof *place);
        if (!place)
            return -1;
        t->place = place;
    }
    t->allocated = (uint32_t)count;
    return 0;
}

/* Room for n entries in all: nothing grows until then. -1: no memory. */
static inline int
cxp_lru_reserve(cxp_lru_table *t, uint32_t n)
{
    if (n > CXP_LRU_MAX_ENTRIES)
        return -1;
    if (n >= t->allocated && cxp_lru_lengthen_(t, n))
        return -1;
    return cxp_lru_rehash_(t, n);
}

/* Write to every page of a table that has held nothing yet: no page faults later. */
static inline void
cxp_lru_prefault(cxp_lru_table *t)
{
    if (!t->mask || t->high)
        return;
    memset(t->entries, 0, t->allocated * sizeof *t->entries);
    memset(t->slots, 0, ((size_t)t->mask + 1) * sizeof *t->slots);
    if (!t->due)
        return;
    memset(t->due, 0, t->allocated * sizeof *t->due);
    memset(t->heap, 0, t->allocated * sizeof *t->heap);
    memset(t->place, 0, t->allocated * sizeof *t->place);
}

/* Room for one more. */
static inline int
cxp_lru_room_(cxp_lru_table *t)
{
    if (t->next_seq == UINT32_MAX && cxp_lru_renumber_(t))
        return -1;
    if (!t->free && t->high + 1 >= t->allocated) {
        uint64_t n = (uint64_t)t->high + t->high / 2 + 4;
        if (n > t->limit)
            n = t->limit > t->high ? t->limit : (uint64_t)t->high + 1;
        if (n > CXP_LRU_MAX_ENTRIES)
            n = CXP_LRU_MAX_ENTRIES;
        if (n <= t->high || cxp_lru_lengthen_(t, (uint32_t)n))
            return -1;
    }
    return cxp_lru_rehash_(t, t->used + 1);
}

/* Start to keep sizes: 0 for the entries there are. -1: no memory. */
static inline int
cxp_lru_use_sizes(cxp_lru_table *t)
{
    if (!t->sizes)
        t->sizes = calloc(t->allocated ? t->allocated : 1, sizeof *t->sizes);
    return t->sizes ? 0 : -1;
}

/* Start to keep due times: none for the entries there are. -1: no memory. */
static inline int
cxp_lru_use_due(cxp_lru_table *t)
{
    if (t->due)
        return 0;
    size_t n = t->allocated ? t->allocated : 1;
    double *due = malloc(n * sizeof *due);
    uint32_t *heap = malloc(n * sizeof *heap), *place = calloc(n, sizeof *place);
    if (!due || !heap || !place) {
        free(due);
        free(heap);
        free(place);
        return -1;
    }
    t->due = due;
    t->heap = heap;
    t->place = place;
    return 0;
}

/* ---- Due times: a 4-ary heap of entry numbers ---- */

static inline int
cxp_lru_before_(const cxp_lru_table *t, uint32_t a, uint32_t b)
{
    return t->due[a] < t->due[b] ||
           (!(t->due[b] < t->due[a]) && t->entries[a].seq < t->entries[b].seq);
}

static inline void
cxp_lru_put_(cxp_lru_table *t, uint32_t at, uint32_t e)
{
    t->heap[at] = e;
    t->place[e] = at + 1;
}

/* Find the place of e, from the hole at `at` upwards or downwards. */
static inline void
cxp_lru_sift_(cxp_lru_table *t, uint32_t at, uint32_t e)
{
    while (at && cxp_lru_before_(t, e, t->heap[(at - 1) / 4])) {
        cxp_lru_put_(t, at, t->heap[(at - 1) / 4]);
        at = (at - 1) / 4;
    }
    for (;;) {
        uint64_t child = (uint64_t)at * 4 + 1, end = child + 4;
        if (child >= t->due_count)
            break;
        if (end > t->due_count)
            end = t->due_count;
        uint32_t least = (uint32_t)child;
        for (uint32_t c = least + 1; c < end; c++)
            if (cxp_lru_before_(t, t->heap[c], t->heap[least]))
                least = c;
        if (!cxp_lru_before_(t, t->heap[least], e))
            break;
        cxp_lru_put_(t, at, t->heap[least]);
        at = least;
    }
    cxp_lru_put_(t, at, e);
}

/* e falls due at that time (not NaN). After cxp_lru_use_due(). */
static inline void
cxp_lru_set_due(cxp_lru_table *t, uint32_t e, double when)
{
    t->due[e] = when;
    uint32_t at = t->due_count;
    if (t->place[e])
        at = t->place[e] - 1;
    else
        cxp_lru_set_(&t->due_count, at + 1);
    cxp_lru_sift_(t, at, e);
}

/* e never falls due. */
static inline void
cxp_lru_no_due(cxp_lru_table *t, uint32_t e)
{
    if (!t->due_count || !t->place[e])
        return;
    cxp_lru_set_(&t->due_count, t->due_count - 1);
    uint32_t at = t->place[e] - 1, last = t->heap[t->due_count];
    t->place[e] = 0;
    if (last != e)
        cxp_lru_sift_(t, at, last);
}

static inline int
cxp_lru_is_due(const cxp_lru_table *t, uint32_t e, double now)
{
    return t->due_count && t->place[e] && t->due[e] <= now;
}

/* The first entry that is due by now, 0 for none. */
static inline uint32_t
cxp_lru_first_due(const cxp_lru_table *t, double now)
{
    return t->due_count && t->due[t->heap[0]] <= now ? t->heap[0] : 0;
}

/* ---- Insertion and removal ---- */

/* A new entry, the most recent; the key must not be there yet. 0: no memory, or
 * CXP_LRU_MAX_ENTRIES are there. */
static inline uint32_t
cxp_lru_insert(cxp_lru_table *t, void *key, void *value, uint32_t tag)
{
    if ((!t->free && t->high + 1 >= t->allocated) || t->next_seq == UINT32_MAX ||
        !t->mask || t->used + 1 > ((uint64_t)t->mask + 1) * 6 / 10)
        if (cxp_lru_room_(t))
            return 0;
    uint32_t e = t->free;
    if (e)
        t->free = t->entries[e].next;
    else
        e = ++t->high;
    cxp_lru_entry *entry = &t->entries[e];
    entry->key = key;
    entry->value = value;
    entry->tag = tag;
    entry->seq = t->next_seq++;
    cxp_lru_link_(t->entries, e);
    cxp_lru_place_(t, e, tag);
    if (t->sizes)
        t->sizes[e] = 0;
    if (t->place)
        t->place[e] = 0;
    cxp_lru_set_(&t->used, t->used + 1);
    t->inserts++;
    t->version++;
    return e;
}

static inline void
cxp_lru_set_size(cxp_lru_table *t, uint32_t e, double size)
{
    t->total += size - t->sizes[e];
    t->sizes[e] = size;
}

/* Take e out; the caller has its key and value. */
static inline void
cxp_lru_remove(cxp_lru_table *t, uint32_t e)
{
    cxp_lru_entry *entry = &t->entries[e];
    cxp_lru_vacate_(t, e, entry->tag);
    if (t->due_count)
        cxp_lru_no_due(t, e);
    cxp_lru_unlink_(t->entries, e);
    entry->key = entry->value = NULL;
    entry->next = t->free;
    t->free = e;
    cxp_lru_set_(&t->used, t->used - 1);
    if (t->sizes) { /* an empty table forgets the rounding errors of its past */
        t->total = t->used ? t->total - t->sizes[e] : 0;
        t->sizes[e] = 0;
    }
    t->version++;
}

/* Give e to another key that is not there yet: what removing e and inserting the other
 * comes to, in a full cache. -1: no memory, once in 2^32 insertions. */
static inline int
cxp_lru_replace(cxp_lru_table *t, uint32_t e, void *key, void *value, uint32_t tag)
{
    if (t->next_seq == UINT32_MAX && cxp_lru_renumber_(t))
        return -1;
    cxp_lru_entry *entry = &t->entries[e];
    cxp_lru_vacate_(t, e, entry->tag);
    cxp_lru_place_(t, e, tag);
    entry->key = key;
    entry->value = value;
    entry->tag = tag;
    entry->seq = t->next_seq++;
    cxp_lru_promote(t, e);
    if (t->due_count)
        cxp_lru_no_due(t, e);
    if (t->sizes)
        cxp_lru_set_size(t, e, 0);
    t->inserts++;
    t->version++;
    return 0;
}

/* ---- Check ---- */

/* Walk all invariants: 0, or the number of the first that is broken. O(n). */
static inline int
cxp_lru_check(const cxp_lru_table *t)
{
    uint64_t filled = 0, live = 0, listed = 0, freed = 0, dues = 0;
    double total = 0;
    for (uint64_t i = 0; t->mask && i <= t->mask; i++) {
        cxp_lru_slot slot = t->slots[i];
        uint32_t e = slot & t->mask;
        if (!slot)
            continue;
        filled++;
        if (!e || e > t->high || !t->entries[e].key ||
            cxp_lru_slot_(t, (uint32_t)i, t->entries[e].tag, e) != slot)
            return 1;
        for (uint32_t p = cxp_lru_home(t, t->entries[e].tag); p != i;
             p = (p + 1) & t->mask)
            if (!t->slots[p] || (t->slots[p] & t->mask) == e ||
                cxp_lru_distance_(t, p) <
                    ((p - cxp_lru_home(t, t->entries[e].tag)) & t->mask))
                return 1;
    }
    if (filled != t->used || (t->mask && filled > ((uint64_t)t->mask + 1) * 6 / 10))
        return 1;
    for (uint32_t e = 1; e <= t->high; e++) {
        if (!t->entries[e].key)
            continue;
        live++;
        if (t->entries[e].seq >= t->next_seq)
            return 4;
        if (t->sizes)
            total += t->sizes[e];
        if (t->place && t->place[e]) {
            dues++;
            if (t->place[e] > t->due_count || t->heap[t->place[e] - 1] != e)
                return 5;
        }
    }
    if (live != t->used || (t->allocated ? t->high >= t->allocated : t->high))
        return 2;
    if (t->used) {
        uint32_t e = t->entries[0].next;
        for (uint32_t prev = 0; e; prev = e, e = t->entries[e].next)
            if (++listed > t->used || t->entries[e].prev != prev || !t->entries[e].key)
                return 2;
        if (listed != t->used)
            return 2;
    }
    for (uint32_t e = t->free; e; e = t->entries[e].next)
        if (++freed > t->high || t->entries[e].key)
            return 3;
    if (freed + live != t->high)
        return 3;
    uint32_t *order = cxp_lru_in_order(t);
    for (uint32_t i = 1; order && i < t->used; i++)
        if (t->entries[order[i - 1]].seq >= t->entries[order[i]].seq) {
            free(order);
            return 4;
        }
    free(order);
    if (dues != t->due_count)
        return 5;
    for (uint32_t i = 1; i < t->due_count; i++)
        if (cxp_lru_before_(t, t->heap[i], t->heap[(i - 1) / 4]))
            return 5;
    if (t->sizes &&
        (total - t->total > 1e-6 * total || t->total - total > 1e-6 * total))
        return 6;
    return t->high > CXP_LRU_MAX_ENTRIES ? 7 : 0;
}

#endif
