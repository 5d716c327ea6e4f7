/* The last `capacity` tokens of a stream, always contiguous, never rewritten.
 *
 * The tokens lie in an append-only buffer of `slots` tokens, and the window is a
 * stretch of it that ends at `w`:
 *
 *      0          start               w            slots
 *      |  evicted   |  the window  -->|  free        |
 *
 * A token once shown never changes, so whoever was shown a stretch keeps it for ever:
 * he holds the buffer and the section of it in which the stretch begins
 * (`cxp_gen_hold`), and sees no later token.
 *
 * When the slots are used up the next *generation* begins, with the newest tokens of
 * this one, and these are copied ahead in small batches while w moves, so that the
 * change itself copies nothing at once. Where it begins, and when, is in token_lap.h.
 *
 * Overflow drops `step` tokens at a time, oldest first: 1 to slide, more to compact.
 *
 * Pinned tokens (`sink`, the first ones to come) are never dropped. When compacting
 * they stay before the others in the buffer: start is 0, prefix is sink, slots is
 * capacity, and dropping means to change generations. When sliding that cannot be:
 * they live in an array of their own, beside a body of capacity - sink tokens.
 *
 * Cost: append O(1) worst case (at most 2 * CXP_RING_BATCH * rate tokens are
 * copied in it); extend(m) O(m), or O(capacity) when the slack is smaller than m;
 * popleft O(1), O(n) with a prefix; pop O(1); append after a pop into slots that were
 * shown O(n).
 *
 * Invariants (cxp_ring_check walks them):
 *   start <= w <= wall <= slots, w - start <= room, w <= stop <= wall
 *   viewed is the highest slot ever shown of this generation; no slot below it is
 *     written again (w < viewed, after a pop, forces a new generation)
 *   no slot before wall was shown in an earlier generation to someone who still holds
 *   next[j] equals its source for every copied j that is still in the window
 *   the absolute position of slot i is origin + i
 *   append without the slow path is allowed exactly while w < stop
 *
 * Not thread-safe: the caller serialises calls on one ring. Only holds may be dropped
 * by any thread at any time. No Python here.
 */
#ifndef CTXPOOL_TOKEN_RING_H
#define CTXPOOL_TOKEN_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "ctxpool/token_lap.h"

/* Tokens in the window. */
static inline size_t
cxp_ring_len(const cxp_ring *ring)
{
    return ring->npinned + ring->w - ring->start;
}

/* Tokens ever seen, less those taken back by pop. */
static inline uint64_t
cxp_ring_position(const cxp_ring *ring)
{
    return ring->origin + ring->w;
}

/* Of the tokens in [start, w), those that are not pinned: the last ones. */
static inline size_t
cxp_ring_body(const cxp_ring *ring)
{
    size_t n = ring->w - ring->start;
    return n > ring->prefix ? n - ring->prefix : 0;
}

/* Of m tokens to come, those that will be pinned: the first ones. */
static inline size_t
cxp_ring_pins(const cxp_ring *ring, size_t m)
{
    size_t have = ring->prefix ? ring->w : ring->npinned;
    size_t want = have < ring->sink ? ring->sink - have : 0;
    return m < want ? m : want;
}

/* How many unpinned tokens, oldest first, m more would push out. They are those of
 * the body and then, if it is not enough, of the m themselves after the pinned. */
static inline size_t
cxp_ring_overflow(const cxp_ring *ring, size_t m)
{
    size_t free_ = ring->capacity - cxp_ring_len(ring);
    if (m <= free_)
        return 0;
    size_t over = m - free_;
    return over + (ring->step - 1 - (over - 1) % ring->step);
}

/* Write the low `size` bytes of a token. */
static inline void
cxp_token_write(char *at, unsigned size, uint64_t token)
{
    switch (size) {
    case 4: {
        uint32_t t = (uint32_t)token;
        memcpy(at, &t, sizeof t);
        break;
    }
    case 8:
        memcpy(at, &token, sizeof token);
        break;
    case 2: {
        uint16_t t = (uint16_t)token;
        memcpy(at, &t, sizeof t);
        break;
    }
    default:
        *(unsigned char *)at = (unsigned char)token;
    }
}

/* The token at `at`, extended to 64 bits by its sign. */
static inline uint64_t
cxp_ring_load(const cxp_ring *ring, const char *at)
{
    uint64_t t8;
    uint32_t t4;
    uint16_t t2;
    uint8_t t1;
    switch (ring->size) {
    case 4:
        memcpy(&t4, at, sizeof t4);
        return ring->is_signed ? (uint64_t)(int64_t)(int32_t)t4 : t4;
    case 8:
        memcpy(&t8, at, sizeof t8);
        return t8;
    case 2:
        memcpy(&t2, at, sizeof t2);
        return ring->is_signed ? (uint64_t)(int64_t)(int16_t)t2 : t2;
    default:
        memcpy(&t1, at, sizeof t1);
        return ring->is_signed ? (uint64_t)(int64_t)(int8_t)t1 : t1;
    }
}

/* Where token i < len of the window is. */
static inline const char *
cxp_ring_at(const cxp_ring *ring, size_t i)
{
    if (i < ring->npinned)
        return ring->pinned + i * ring->size;
    return ring->data + (ring->start + i - ring->npinned) * ring->size;
}

/* Add one token, if nothing but a store is needed: else false, and nothing is done
 * (the token is out of range, the window is to be told of evictions, ...). O(1). */
static inline bool
cxp_ring_push(cxp_ring *ring, int64_t token)
{
    if (ring->w == ring->stop || (uint64_t)token - (uint64_t)ring->least > ring->span)
        return false;
    cxp_token_write(ring->data + ring->w * ring->size, ring->size, (uint64_t)token);
    if (++ring->w - ring->start > ring->room) {
        ring->start++;
        ring->evicted++;
    }
    return true;
}

static inline void
cxp_ring_fini(cxp_ring *ring)
{
    if (ring->home) {
        __atomic_store_n(&ring->home->closed, 1, __ATOMIC_SEQ_CST);
        if (ring->gen)
            cxp_gen_unref(ring->gen);
        if (ring->next)
            cxp_gen_unref(ring->next);
        cxp_home_drain(ring->home);
        cxp_home_unref(ring->home);
    }
    free(ring->pinned);
    memset(ring, 0, sizeof *ring);
}

/* An empty ring for tokens of `size` bytes; its buffers are touched. 0 <= sink, step
 * >= 1, sink + step <= capacity, slack >= 1: when sliding step is 1, when compacting
 * it is capacity - sink - overlap. `compact` asks for the pinned tokens to be in one
 * stretch with the others. Returns 0, or -1 when memory is short. */
static inline int
cxp_ring_init(cxp_ring *ring, size_t capacity, size_t slack, size_t sink, size_t step,
              bool compact, unsigned size, bool is_signed)
{
    memset(ring, 0, sizeof *ring);
    bool beside = sink && !compact;
    size_t room = beside ? capacity - sink : capacity;
    if (slack > SIZE_MAX / 4 - room || room + slack > SIZE_MAX / 4 / size)
        return -1;
    ring->size = size;
    ring->is_signed = is_signed;
    ring->span = UINT64_MAX >> (64 - 8 * size);
    if (is_signed)
        ring->least = -1 - (int64_t)(ring->span >> 1);
    else if (size == 8)
        ring->span = INT64_MAX;
    ring->capacity = capacity;
    ring->room = room;
    ring->sink = sink;
    ring->step = step;
    ring->prefix = beside ? 0 : sink;
    ring->slots = ring->prefix ? capacity : room + slack;
    ring->carry = ring->prefix ? capacity - step : room - 1;
    ring->wall = ring->slots;
    ring->round = !ring->prefix && slack / 3 >= room;
    size_t line = CXP_GEN_ALIGN / size;
    if (ring->round && room / 2 >= line) /* copies run between like addresses */
        ring->carry += (ring->slots - ring->carry) % line;
    while ((ring->slots - 1) >> ring->grain >= CXP_GEN_SECTIONS)
        ring->grain++;

    size_t nbytes = ring->slots * size;
    ring->large = nbytes >= CXP_RING_LARGE;
    ring->home = (cxp_home *)calloc(1, sizeof *ring->home);
    if (ring->home) {
        ring->home->refs = 1;
        ring->home->nbytes = nbytes;
        ring->gen = cxp_gen_touched(ring->home, nbytes);
    }
    bool made = ring->gen != NULL;
    if (made && !ring->round) {
        cxp_gen *spare = cxp_gen_touched(ring->home, nbytes);
        made = spare != NULL;
        if (made)
            cxp_gen_unref(spare);
    }
    if (beside)
        ring->pinned = (char *)calloc(sink, size);
    if (!made || (beside && !ring->pinned)) {
        cxp_ring_fini(ring);
        return -1;
    }
    ring->data = cxp_gen_data(ring->gen);
    ring->due = CXP_RING_BATCH;
    cxp_ring_pace(ring, 0);
    cxp_ring_aim(ring);
    return 0;
}

/* Where m tokens may be written, to be added by cxp_ring_fast, or by cxp_ring_extend if
 * that does not: the free slots after the window. NULL if they must come from
 * elsewhere. */
static inline char *
cxp_ring_tail(const cxp_ring *ring, size_t m)
{
    if (m <= ring->stop - ring->w && m <= ring->room)
        return ring->data + ring->w * ring->size;
    if (ring->tell || ring->w < ring->viewed || m > ring->wall - ring->w ||
        cxp_ring_overflow(ring, m) > (ring->prefix ? 0 : ring->w - ring->start) ||
        (ring->pinned && ring->npinned < ring->sink))
        return NULL;
    return ring->data + ring->w * ring->size;
}

/* Add m tokens, if nothing but a copy is needed, as cxp_ring_push does. */
static inline bool
cxp_ring_fast(cxp_ring *ring, const char *src, size_t m)
{
    if (m > ring->stop - ring->w || (ring->large && m * ring->size > CXP_RING_NEAR))
        return false;
    char *to = ring->data + ring->w * ring->size;
    if (src != to)
        cxp_token_copy(to, src, m * ring->size, false);
    ring->w += m;
    if (ring->w - ring->start > ring->room) {
        size_t over = ring->w - ring->start - ring->room;
        ring->start += over;
        ring->evicted += over;
    }
    return true;
}

/* Whether cxp_ring_extend(ring, ..., m, drop) will change generations. Who holds the
 * current one for no more than its own convenience lets it go before that. */
static inline bool
cxp_ring_turns(const cxp_ring *ring, size_t m, size_t drop)
{
    size_t pins = cxp_ring_pins(ring, m), body = cxp_ring_body(ring);
    size_t gone = drop < body ? drop : body;
    size_t rest = m - (ring->prefix ? 0 : pins) - (drop - gone); /* into the buffer */
    return ring->w < ring->viewed ||
           (ring->prefix ? gone > 0 : rest > ring->wall - ring->w);
}

/* Write n tokens at w, unless they are there. Of many, each piece is copied ahead while
 * it is in the nearest cache; and where the caches are too small for a buffer, those
 * that come before the newest go past them. */
static inline void
cxp_ring_write(cxp_ring *ring, const char *in, size_t n, bool wait)
{
    size_t size = ring->size, piece = CXP_RING_PIECE / size;
    char *to = ring->data + ring->w * size;
    if (in == to) {
        ring->w += n;
        if (!wait)
            cxp_ring_ahead(ring);
        return;
    }
    while (n) {
        size_t m = wait || n < piece ? n : piece;
        bool past = ring->large && (n - m) * size >= CXP_RING_NEAR;
        cxp_token_copy(to, in, m * size, past);
        in += m * size;
        to += m * size;
        n -= m;
        ring->w += m;
        if (!wait)
            cxp_ring_ahead(ring);
    }
}

/* Add m tokens and drop the oldest `drop` unpinned ones of window and input together:
 * at least cxp_ring_overflow(m), at most all. `src` may be slots of the ring that the
 * caller holds. Returns 0, or -1 when memory is short and nothing is changed. */
static inline int
cxp_ring_extend(cxp_ring *ring, const void *src, size_t m, size_t drop)
{
    const char *in = (const char *)src;
    size_t size = ring->size;
    size_t pins = cxp_ring_pins(ring, m);
    size_t body = cxp_ring_body(ring);
    size_t gone = drop < body ? drop : body; /* of the body */
    size_t through = drop - gone;            /* of the input */
    size_t rest = m - pins - through;
    size_t inside = ring->prefix ? pins : 0; /* pins that go to the buffer */

    bool turns = cxp_ring_turns(ring, m, drop);
    if (turns) {
        if (cxp_ring_renew(ring, gone, inside + rest))
            return -1;
    } else {
        ring->start += gone;
    }
    if (pins && !inside) {
        memcpy(ring->pinned + ring->npinned * size, in, pins * size);
        ring->npinned += pins;
        ring->origin += pins;
        ring->repins++;
    }
    ring->origin += through;
    ring->evicted += drop;
    /* At first the retired buffer may still be held for a moment, by the views of a
     * reader who is about to take a new one. */
    bool wait = turns && ring->w + inside + rest <= ring->lap + CXP_RING_BATCH;
    cxp_ring_write(ring, in, inside, wait);
    cxp_ring_write(ring, in + (pins + through) * size, rest, wait);
    if (wait)
        ring->due = ring->w + CXP_RING_BATCH;
    cxp_ring_aim(ring);
    return 0;
}

/* Drop the oldest token that is not pinned, into *token. Returns 0, 1 when there is
 * none, -1 when memory is short. O(1); with a prefix O(n). */
static inline int
cxp_ring_popleft(cxp_ring *ring, uint64_t *token)
{
    if (cxp_ring_body(ring) == 0)
        return 1;
    *token =
        cxp_ring_load(ring, ring->data + (ring->start + ring->prefix) * ring->size);
    if (ring->prefix)
        return cxp_ring_renew(ring, 1, 0);
    ring->start++;
    cxp_ring_aim(ring);
    return 0;
}

/* Take the newest token back, into *token. Returns 0, or 1 when there is none. O(1). */
static inline int
cxp_ring_pop(cxp_ring *ring, uint64_t *token)
{
    size_t len = cxp_ring_len(ring);
    if (len == 0)
        return 1;
    *token = cxp_ring_load(ring, cxp_ring_at(ring, len - 1));
    if (ring->w > ring->start) {
        ring->w--;
        size_t ready = cxp_ring_ready(ring);
        if (ring->copied > ready)
            ring->copied = ready;
        /* What is rolled back comes again. */
        if (ring->next && ring->due > ring->w + CXP_RING_BATCH)
            ring->due = ring->w + CXP_RING_BATCH;
    } else {
        ring->npinned--;
        ring->origin--;
        ring->repins++;
    }
    uint64_t end = cxp_ring_position(ring);
    for (cxp_watch *watch = ring->watches; watch; watch = watch->next)
        if (end < watch->low)
            watch->low = end;
    cxp_ring_aim(ring);
    return 0;
}

/* Drop everything, the pinned tokens too; the position stays. O(1). Returns 0, or -1
 * when memory is short (with a prefix that was shown) and nothing is changed. */
static inline int
cxp_ring_clear(cxp_ring *ring)
{
    size_t end = ring->w;
    if (ring->prefix && ring->viewed) {
        size_t pins = end < ring->prefix ? end : ring->prefix;
        if (cxp_ring_renew(ring, end - pins, 0))
            return -1;
        end = ring->w; /* the pinned ones, not shown in this generation */
    }
    if (ring->prefix) {
        ring->origin += end;
        ring->w = ring->copied = ring->lap = 0;
        cxp_ring_pace(ring, 0);
        ring->due = CXP_RING_BATCH;
    } else {
        ring->start = end;
    }
    ring->repins += ring->npinned != 0;
    ring->npinned = 0;
    cxp_ring_aim(ring);
    return 0;
}

/* The first i < n with tokens[i] == token (as cxp_ring_load gives it), or n. O(n). */
static inline size_t
cxp_ring_find(const cxp_ring *ring, const char *tokens, size_t n, uint64_t token)
{
#define CXP_RING_FIND(type)                                                            \
    do {                                                                               \
        const type *t = (const type *)(const void *)tokens;                            \
        size_t i = 0;                                                                  \
        while (i < n && t[i] != (type)token)                                           \
            i++;                                                                       \
        return i;                                                                      \
    } while (0)
    switch (ring->size) {
    case 1:
        CXP_RING_FIND(uint8_t);
    case 2:
        CXP_RING_FIND(uint16_t);
    case 4:
        CXP_RING_FIND(uint32_t);
    default:
        CXP_RING_FIND(uint64_t);
    }
#undef CXP_RING_FIND
}

/* Bytes of the buffers that the ring holds or keeps for itself. */
static inline size_t
cxp_ring_bytes(const cxp_ring *ring)
{
    if (ring->home == NULL)
        return 0;
    bool spare = __atomic_load_n(&ring->home->spare, __ATOMIC_ACQUIRE) != NULL;
    bool other = ring->next && ring->next != ring->gen;
    size_t buffers = 1 + (size_t)other + (size_t)spare;
    return buffers * ring->home->nbytes + (ring->pinned ? ring->sink * ring->size : 0);
}

/* 0 if all invariants hold, else the line of the one that does not. O(n). */
static inline int
cxp_ring_check(const cxp_ring *ring)
{
#define CXP_RING_HOLDS(cond)                                                           \
    do {                                                                               \
        if (!(cond))                                                                   \
            return __LINE__;                                                           \
    } while (0)
    CXP_RING_HOLDS(ring->home && ring->gen && ring->data == cxp_gen_data(ring->gen));
    CXP_RING_HOLDS(ring->gen->home == ring->home);
    CXP_RING_HOLDS(ring->gen != ring->next || ring->round);
    CXP_RING_HOLDS(ring->home->nbytes == ring->slots * ring->size);
    CXP_RING_HOLDS(ring->start <= ring->w && ring->w <= ring->wall);
    CXP_RING_HOLDS(ring->w - ring->start <= ring->room);
    CXP_RING_HOLDS(cxp_ring_len(ring) <= ring->capacity);
    CXP_RING_HOLDS(ring->w <= ring->stop && ring->stop <= ring->wall);
    CXP_RING_HOLDS(ring->wall <= ring->slots && ring->carry <= ring->wall);
    CXP_RING_HOLDS(ring->viewed <= ring->wall);
    CXP_RING_HOLDS(ring->w >= ring->viewed || ring->stop == ring->w);
    CXP_RING_HOLDS(!ring->prefix ||
                   (ring->start == 0 && ring->slots == ring->capacity));
    CXP_RING_HOLDS(ring->npinned <= (ring->pinned ? ring->sink : 0));
    CXP_RING_HOLDS(!ring->pinned || ring->npinned == ring->sink ||
                   ring->w == ring->start);
    CXP_RING_HOLDS(!ring->pinned || ring->npinned == ring->sink ||
                   ring->stop == ring->w);
    CXP_RING_HOLDS((!ring->tell && ring->step == 1) ||
                   ring->stop <= ring->start + ring->room);
    CXP_RING_HOLDS(ring->copied == 0 || ring->next);
    CXP_RING_HOLDS(ring->copied <= ring->carry);
    if (ring->next == ring->gen) /* not into what is live or seen */
        CXP_RING_HOLDS(cxp_ring_free_to(ring, 0, ring->start) >= ring->room);
    for (size_t j = 0; j < ring->copied; j++) {
        size_t slot = j < ring->prefix ? j : j + ring->shift;
        if (slot < ring->start)
            continue;
        CXP_RING_HOLDS(slot < ring->w);
        CXP_RING_HOLDS(memcmp(cxp_gen_data(ring->next) + j * ring->size,
                              ring->data + slot * ring->size, ring->size) == 0);
    }
    if (ring->next && ring->w > ring->begun && ring->w >= ring->viewed) {
        /* Not more than a batch behind. */
        size_t due = ring->w - ring->begun;
        size_t late = due > CXP_RING_BATCH ? (due - CXP_RING_BATCH) * ring->rate : 0;
        size_t ready = cxp_ring_ready(ring);
        ready = ready > CXP_RING_BATCH ? ready - CXP_RING_BATCH : 0;
        CXP_RING_HOLDS(ring->copied >= (late < ready ? late : ready));
    }
#undef CXP_RING_HOLDS
    return 0;
}

#endif /* CTXPOOL_TOKEN_RING_H */
