#include "ctxpool/prefix_blocks.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define NO_SLOT     UINT32_MAX
#define FIRST_SLOTS 64u

/* ---- making and ending ---- */

/* Touched at once, so that no page fault comes later; NULL also where n * size is more
 * than there can be. */
static void *
touched(size_t n, size_t size)
{
    if (n > PTRDIFF_MAX / size)
        return NULL;
    void *memory = malloc(n ? n * size : 1);
    if (memory)
        memset(memory, 0, n * size);
    return memory;
}

int
cxp_prefix_init(cxp_prefix_blocks *p, uint32_t num_blocks, uint32_t block_size,
                bool verify, size_t events, cxp_hash key)
{
    memset(p, 0, sizeof *p);
    p->num_blocks = num_blocks;
    p->block_size = block_size;
    uint64_t slots = 8;
    while (slots < 2 * (uint64_t)num_blocks)
        slots *= 2;
    p->mask = slots - 1;
    p->free_slot = NO_SLOT;
    p->event_room = events;
    /* The largest first: what is too much fails before memory is touched for it. */
    if ((verify && !(p->tokens = touched((size_t)num_blocks * block_size, 4))) ||
        !(p->events = touched(events, sizeof *p->events)) ||
        !(p->blocks = touched((size_t)num_blocks + 1, sizeof *p->blocks)) ||
        !(p->table = touched(slots, sizeof *p->table)) ||
        !(p->powers = touched((size_t)block_size + 1, sizeof *p->powers))) {
        cxp_prefix_fini(p);
        return -1;
    }
    cxp_hash_powers(p->powers, block_size, key);
    for (uint32_t b = 0; b <= num_blocks; b++) {
        p->blocks[b].prev = b ? b - 1 : num_blocks;
        p->blocks[b].next = b < num_blocks ? b + 1 : 0;
    }
    p->nfree = num_blocks;
    return 0;
}

void
cxp_prefix_fini(cxp_prefix_blocks *p)
{
    for (uint32_t i = 0; i < p->slots; i++)
        free(p->sequences[i].blocks);
    free(p->sequences);
    free(p->events);
    free(p->powers);
    free(p->tokens);
    free(p->table);
    free(p->blocks);
    memset(p, 0, sizeof *p);
}

/* ---- events ---- */

static void
tell(cxp_prefix_blocks *p, uint32_t kind, uint32_t block, cxp_hash hash,
     cxp_hash parent)
{
    if (!p->event_room)
        return;
    size_t at = p->event_oldest + p->event_count;
    if (at >= p->event_room)
        at -= p->event_room;
    p->events[at] = (cxp_prefix_event){
        .hash = hash, .parent = parent, .kind = kind, .block = block};
    if (p->event_count < p->event_room) {
        p->event_count++;
        return;
    }
    p->event_oldest = at + 1 == p->event_room ? 0 : at + 1;
    p->events_dropped++;
}

bool
cxp_prefix_next_event(cxp_prefix_blocks *p, cxp_prefix_event *event)
{
    if (!p->event_count)
        return false;
    *event = p->events[p->event_oldest];
    p->event_count--;
    if (++p->event_oldest == p->event_room)
        p->event_oldest = 0;
    return true;
}

/* ---- the table ---- */

/* The slot of the block with this hash, or the empty one where it belongs. */
static uint64_t
slot_of(const cxp_prefix_blocks *p, cxp_hash hash)
{
    uint64_t slot = hash.low & p->mask;
    while (p->table[slot] && !cxp_hash_equal(p->blocks[p->table[slot] - 1].hash, hash))
        slot = (slot + 1) & p->mask;
    return slot;
}

static int32_t *
tokens_of(const cxp_prefix_blocks *p, uint32_t block)
{
    return p->tokens + (size_t)block * p->block_size;
}

/* Whether a block is cached for these tokens. */
static bool
cached_block(const cxp_prefix_blocks *p, cxp_hash hash, const int32_t *tokens,
             uint32_t *block)
{
    uint32_t found = p->table[slot_of(p, hash)];
    if (!found)
        return false;
    *block = found - 1;
    return !p->tokens ||
           memcmp(tokens_of(p, *block), tokens, sizeof *tokens * p->block_size) == 0;
}

/* A full block can be found from now on, unless one with its hash can already. */
static void
cache(cxp_prefix_blocks *p, uint32_t block, cxp_hash hash, cxp_hash parent)
{
    uint64_t slot = slot_of(p, hash);
    if (p->table[slot])
        return;
    p->table[slot] = block + 1;
    p->blocks[block].hash = hash;
    p->blocks[block].flags |= CXP_PREFIX_CACHED;
    p->ncached++;
    tell(p, CXP_PREFIX_STORED, block, hash, parent);
}

static void
uncache(cxp_prefix_blocks *p, uint32_t block)
{
    cxp_hash hash = p->blocks[block].hash;
    uint64_t hole = slot_of(p, hash), slot = hole;
    /* Whoever was pushed on by this one moves back: no tombstones. */
    for (;;) {
        slot = (slot + 1) & p->mask;
        if (!p->table[slot])
            break;
        uint64_t home = p->blocks[p->table[slot] - 1].hash.low & p->mask;
        if (((slot - home) & p->mask) >= ((slot - hole) & p->mask)) {
            p->table[hole] = p->table[slot];
            hole = slot;
        }
    }
    p->table[hole] = 0;
    p->blocks[block].flags &= ~CXP_PREFIX_CACHED;
    p->ncached--;
    tell(p, CXP_PREFIX_REMOVED, block, hash, (cxp_hash){0, 0});
}

/* ---- the free list ---- */

static void
unlink_free(cxp_prefix_blocks *p, uint32_t block)
{
    cxp_prefix_block *b = &p->blocks[block];
    p->blocks[b->prev].next = b->next;
    p->blocks[b->next].prev = b->prev;
    p->nfree--;
}

static void
link_free(cxp_prefix_blocks *p, uint32_t block, uint32_t before)
{
    cxp_prefix_block *b = &p->blocks[block];
    b->prev = p->blocks[before].prev;
    b->next = before;
    p->blocks[b->prev].next = block;
    p->blocks[before].prev = block;
    p->nfree++;
}

/* A block that is used once more. */
static void
ref(cxp_prefix_blocks *p, uint32_t block)
{
    if (!p->blocks[block].refs++)
        unlink_free(p, block);
}

static void
unref(cxp_prefix_blocks *p, uint32_t block)
{
    if (--p->blocks[block].refs)
        return;
    bool cached = p->blocks[block].flags & CXP_PREFIX_CACHED;
    link_free(p, block, cached ? p->num_blocks : p->blocks[p->num_blocks].next);
}

/* The first free block, for something new. There is one. */
static uint32_t
take(cxp_prefix_blocks *p)
{
    uint32_t block = p->blocks[p->num_blocks].next;
    if (p->blocks[block].flags & CXP_PREFIX_CACHED) {
        uncache(p, block);
        p->evictions++;
    }
    ref(p, block);
    return block;
}

static void
count_peak(cxp_prefix_blocks *p)
{
    if (p->num_blocks - p->nfree > p->peak)
        p->peak = p->num_blocks - p->nfree;
}

/* ---- sequences ---- */

/* A slot for one more sequence; NO_SLOT: no memory. */
static uint32_t
free_slot(cxp_prefix_blocks *p)
{
    if (p->free_slot != NO_SLOT)
        return p->free_slot;
    uint32_t more = p->slots ? p->slots : FIRST_SLOTS;
    if (more > NO_SLOT - 1 - p->slots)
        return NO_SLOT;
    size_t slots = (size_t)p->slots + more;
    cxp_prefix_sequence *grown = realloc(p->sequences, sizeof *grown * slots);
    if (!grown)
        return NO_SLOT;
    p->sequences = grown;
    memset(grown + p->slots, 0, sizeof *grown * more);
    for (size_t i = slots; i-- > p->slots;) { /* the first will be used first */
        grown[i].next_free = p->free_slot;
        p->free_slot = (uint32_t)i;
    }
    p->slots = (uint32_t)slots;
    return p->free_slot;
}

/* Begin the sequence of a slot that free_slot gave. */
static cxp_prefix_sequence *
begin(cxp_prefix_blocks *p, uint32_t slot, uint64_t *handle)
{
    cxp_prefix_sequence *s = &p->sequences[slot];
    p->free_slot = s->next_free;
    p->live++;
    s->live = true;
    *handle = (uint64_t)s->generation << 32 | slot;
    return s;
}

cxp_prefix_sequence *
cxp_prefix_find(const cxp_prefix_blocks *p, uint64_t handle)
{
    uint64_t slot = handle & UINT32_MAX;
    if (slot >= p->slots)
        return NULL;
    cxp_prefix_sequence *s = &p->sequences[slot];
    return s->live && s->generation == handle >> 32 ? s : NULL;
}

/* Put n tokens, of which one block at most gets some, behind those of the sequence. Its
 * last block has room for them, and is its own. */
static void
fill(cxp_prefix_blocks *p, cxp_prefix_sequence *s, const int32_t *tokens, size_t n)
{
    size_t filled = s->tokens % p->block_size;
    uint32_t block = s->blocks[s->nblocks - 1];
    if (p->tokens)
        memcpy(tokens_of(p, block) + filled, tokens, sizeof *tokens * n);
    s->hash = cxp_hash_extend(s->hash, p->powers, tokens, n);
    s->tokens += n;
    if (filled + n == p->block_size) {
        cache(p, block, s->hash, s->full);
        s->full = s->hash;
    }
}

/* Append, where everything is there that is needed. */
static void
grow(cxp_prefix_blocks *p, cxp_prefix_sequence *s, const int32_t *tokens, size_t n)
{
    while (n) {
        size_t filled = s->tokens % p->block_size, part = p->block_size - filled;
        if (part > n)
            part = n;
        if (!filled)
            s->blocks[s->nblocks++] = take(p);
        fill(p, s, tokens, part);
        tokens += part;
        n -= part;
    }
    count_peak(p);
}

/* The block that is cached for the next block_size tokens; *hash becomes theirs. */
static bool
step(const cxp_prefix_blocks *p, cxp_hash *hash, const int32_t *tokens, uint32_t *block)
{
    cxp_hash next = cxp_hash_extend(*hash, p->powers, tokens, p->block_size);
    if (!cached_block(p, next, tokens, block))
        return false;
    *hash = next;
    return true;
}

size_t
cxp_prefix_lookup(const cxp_prefix_blocks *p, cxp_hash start, const int32_t *tokens,
                  size_t n)
{
    size_t full = n / p->block_size, i = 0;
    uint32_t block;
    while (i < full && step(p, &start, tokens + i * p->block_size, &block))
        i++;
    return i;
}

size_t
cxp_prefix_touch(cxp_prefix_blocks *p, cxp_hash start, const int32_t *tokens, size_t n)
{
    size_t full = n / p->block_size, i = 0;
    uint32_t block, before = p->num_blocks;
    for (; i < full && step(p, &start, tokens + i * p->block_size, &block); i++) {
        if (p->blocks[block].refs)
            continue;
        /* Each before its predecessor in the sequence, as free leaves them. */
        unlink_free(p, block);
        link_free(p, block, before);
        before = block;
    }
    return i;
}

int
cxp_prefix_allocate(cxp_prefix_blocks *p, cxp_hash start, const int32_t *tokens,
                    size_t n, uint64_t *handle, int32_t *out, size_t *cached)
{
    size_t wanted = n / p->block_size + (n % p->block_size != 0), full = 0, idle = 0;
    if (wanted > p->num_blocks) {
        p->exhausted++;
        return ENOSPC;
    }
    uint32_t slot = free_slot(p);
    uint32_t *blocks = malloc(sizeof *blocks * (wanted ? wanted : 1));
    if (slot == NO_SLOT || !blocks) {
        free(blocks);
        return ENOMEM;
    }
    cxp_hash hash = start;
    while (full < n / p->block_size &&
           step(p, &hash, tokens + full * p->block_size, &blocks[full]))
        idle += !p->blocks[blocks[full++]].refs;
    if (wanted - full > p->nfree - idle) {
        free(blocks);
        p->exhausted++;
        return ENOSPC;
    }
    for (size_t i = 0; i < full; i++)
        ref(p, blocks[i]);
    cxp_prefix_sequence *s = begin(p, slot, handle);
    s->blocks = blocks;
    s->nblocks = (uint32_t)full;
    s->room = (uint32_t)wanted;
    s->hash = s->full = hash;
    s->tokens = full * p->block_size;
    grow(p, s, tokens + s->tokens, n - s->tokens);
    for (size_t i = 0; i < wanted; i++)
        out[i] = (int32_t)blocks[i];
    p->queried_tokens += n;
    p->hit_tokens += full * p->block_size;
    *cached = full;
    return 0;
}

/* Whether the last block has room, but others write there too. */
static bool
shares_tail(const cxp_prefix_blocks *p, const cxp_prefix_sequence *s)
{
    return s->tokens % p->block_size && p->blocks[s->blocks[s->nblocks - 1]].refs > 1;
}

size_t
cxp_prefix_wanted(const cxp_prefix_blocks *p, const cxp_prefix_sequence *s, size_t n)
{
    size_t room = s->nblocks * (size_t)p->block_size - s->tokens;
    if (!n)
        return 0;
    size_t beyond = n > room ? n - room : 0;
    return beyond / p->block_size + (beyond % p->block_size != 0) + shares_tail(p, s);
}

int
cxp_prefix_append(cxp_prefix_blocks *p, cxp_prefix_sequence *s, const int32_t *tokens,
                  size_t n, int32_t *fresh, cxp_prefix_growth *growth)
{
    size_t wanted = cxp_prefix_wanted(p, s, n);
    *growth = (cxp_prefix_growth){(uint32_t)wanted, p->num_blocks};
    if (wanted > p->nfree) {
        p->exhausted++;
        return ENOSPC;
    }
    if (wanted > s->room - s->nblocks) {
        size_t room = 2 * (s->nblocks + wanted);
        uint32_t *grown = realloc(s->blocks, sizeof *grown * room);
        if (!grown)
            return ENOMEM;
        s->blocks = grown;
        s->room = (uint32_t)room;
    }
    if (n && shares_tail(p, s)) {
        uint32_t old = s->blocks[s->nblocks - 1], own = take(p);
        if (p->tokens)
            memcpy(tokens_of(p, own), tokens_of(p, old),
                   sizeof *tokens * (s->tokens % p->block_size));
        unref(p, old);
        s->blocks[s->nblocks - 1] = own;
        growth->copied_from = old;
    }
    grow(p, s, tokens, n);
    for (size_t i = 0; i < wanted; i++)
        fresh[i] = (int32_t)s->blocks[s->nblocks - wanted + i];
    return 0;
}

int
cxp_prefix_fork(cxp_prefix_blocks *p, uint64_t handle, uint64_t *forked)
{
    uint32_t slot = free_slot(p); /* first: it may move the sequences */
    const cxp_prefix_sequence *s = cxp_prefix_find(p, handle);
    uint32_t *blocks = malloc(sizeof *blocks * (s->nblocks ? s->nblocks : 1));
    if (slot == NO_SLOT || !blocks) {
        free(blocks);
        return ENOMEM;
    }
    cxp_prefix_sequence *other = begin(p, slot, forked);
    for (uint32_t i = 0; i < s->nblocks; i++)
        ref(p, blocks[i] = s->blocks[i]);
    other->blocks = blocks;
    other->nblocks = other->room = s->nblocks;
    other->tokens = s->tokens;
    other->hash = s->hash;
    other->full = s->full;
    return 0;
}

void
cxp_prefix_free(cxp_prefix_blocks *p, uint64_t handle, uint32_t computed)
{
    cxp_prefix_sequence *s = cxp_prefix_find(p, handle);
    for (uint32_t i = s->nblocks; i-- > 0;) {
        uint32_t block = s->blocks[i];
        if (i >= computed && p->blocks[block].flags & CXP_PREFIX_CACHED)
            uncache(p, block);
        unref(p, block);
    }
    free(s->blocks);
    s->blocks = NULL;
    s->live = false;
    s->nblocks = s->room = 0;
    s->generation = (s->generation + 1) & (UINT32_MAX >> 1); /* handles fit int64 */
    s->next_free = p->free_slot;
    p->free_slot = (uint32_t)handle;
    p->live--;
}

/* ---- blocks by number ---- */

int
cxp_prefix_take(cxp_prefix_blocks *p, size_t n, int32_t *out)
{
    if (n > p->nfree) {
        p->exhausted++;
        return ENOSPC;
    }
    uint32_t block = p->blocks[p->num_blocks].next;
    for (size_t i = 0; i < n; i++) {
        cxp_prefix_block *b = &p->blocks[block];
        if (b->flags & CXP_PREFIX_CACHED) {
            uncache(p, block);
            p->evictions++;
        }
        b->flags |= CXP_PREFIX_LOOSE;
        b->refs = 1;
        out[i] = (int32_t)block;
        block = b->next;
    }
    p->blocks[p->num_blocks].next = block; /* all at once */
    p->blocks[block].prev = p->num_blocks;
    p->nfree -= (uint32_t)n;
    count_peak(p);
    return 0;
}

size_t
cxp_prefix_give(cxp_prefix_blocks *p, const int32_t *blocks, size_t n)
{
    size_t bad = 0;
    while (bad < n && (uint32_t)blocks[bad] < p->num_blocks &&
           p->blocks[blocks[bad]].flags & CXP_PREFIX_LOOSE)
        p->blocks[blocks[bad++]].flags &= ~CXP_PREFIX_LOOSE; /* a second time is bad */
    for (size_t i = bad; i-- > 0;) {
        if (bad < n)
            p->blocks[blocks[i]].flags |= CXP_PREFIX_LOOSE;
        else
            unref(p, (uint32_t)blocks[i]);
    }
    return bad;
}

uint32_t
cxp_prefix_reset(cxp_prefix_blocks *p)
{
    uint32_t were = p->ncached;
    memset(p->table, 0, sizeof *p->table * (p->mask + 1));
    for (uint32_t b = 0; b < p->num_blocks; b++)
        p->blocks[b].flags &= ~CXP_PREFIX_CACHED;
    p->ncached = 0;
    tell(p, CXP_PREFIX_CLEARED, 0, (cxp_hash){0, 0}, (cxp_hash){0, 0});
    return were;
}

/* ---- the invariants ---- */

#define MUST(cond)                                                                     \
    do {                                                                               \
        if (!(cond)) {                                                                 \
            free(refs);                                                                \
            return __LINE__;                                                           \
        }                                                                              \
    } while (0)

int
cxp_prefix_check(const cxp_prefix_blocks *p)
{
    uint32_t *refs = calloc((size_t)p->num_blocks + 1, sizeof *refs);
    uint32_t live = 0, nfree = 0, cached = 0, entries = 0, at = p->num_blocks;
    MUST(refs);
    for (uint32_t i = 0; i < p->slots; i++) {
        const cxp_prefix_sequence *s = &p->sequences[i];
        if (!s->live)
            continue;
        live++;
        MUST(s->nblocks <= s->room);
        MUST(s->tokens <= (uint64_t)s->nblocks * p->block_size);
        MUST(s->tokens + p->block_size > (uint64_t)s->nblocks * p->block_size);
        for (uint32_t j = 0; j < s->nblocks; j++)
            refs[s->blocks[j]]++;
    }
    MUST(live == p->live);
    for (uint32_t b = 0; b < p->num_blocks; b++) {
        const cxp_prefix_block *block = &p->blocks[b];
        MUST(block->refs == refs[b] + (block->flags & CXP_PREFIX_LOOSE ? 1 : 0));
        if (block->flags & CXP_PREFIX_CACHED) {
            cached++;
            MUST(p->table[slot_of(p, block->hash)] == b + 1);
        }
    }
    MUST(cached == p->ncached);
    for (uint64_t slot = 0; slot <= p->mask; slot++)
        entries += p->table[slot] != 0;
    MUST(entries == cached);
    for (;;) {
        uint32_t next = p->blocks[at].next;
        MUST(p->blocks[next].prev == at);
        if ((at = next) == p->num_blocks)
            break;
        MUST(p->blocks[at].refs == 0 && ++nfree <= p->num_blocks);
    }
    MUST(nfree == p->nfree);
    for (uint32_t b = 0; b < p->num_blocks; b++)
        nfree -= p->blocks[b].refs == 0;
    MUST(nfree == 0);
    MUST(p->event_count <= p->event_room);
    free(refs);
    return 0;
}
