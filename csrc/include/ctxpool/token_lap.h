/* A ring's way through its buffers: how far it may write, and where it goes then.
 *
 * A generation starts with `carry` tokens of the last one and ends at a *wall*: the
 * buffer's end, or the first section of it that somebody holds from an earlier
 * generation. With
 *
 *      shift = wall - carry
 *
 * token j < carry of the next generation is slot j + shift of this one (slot j, if
 * j < prefix). It is copied ahead while w goes from `begun` to the wall, `rate` tokens
 * for each one appended, rate = ceil(carry / (wall - begun)).
 *
 * With little slack a ring goes to and fro between two buffers. With slack >= 3 * room
 * (`round`) it goes round in a single one: when it comes near the end, the window has
 * long left the first sections, and if nobody holds them they are where the next
 * generation begins:
 *
 *      0        carry                start              slots
 *      | copied  |    seen no more     |   the window  -->|
 *
 * so that 1 token in 3 is written twice, the others once. Sections further on may still
 * be held; the wall moves when they are let go. If one is not by the time that only
 * carry / 2 slots are left before it, the generation ends there. Where the first
 * sections are held the next one begins in another buffer: the spare, or a new one.
 *
 * Memory: `slots` tokens, going to and fro twice that; the same for each buffer that is
 * held when the way leads out of it; and the spare.
 *
 * Why a section that was found free stays so: a hold is taken where the window starts,
 * and until the wall has come there that is behind w.
 */
#ifndef CTXPOOL_TOKEN_LAP_H
#define CTXPOOL_TOKEN_LAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "ctxpool/token_copy.h"
#include "ctxpool/token_gen.h"

#define CXP_RING_BATCH ((size_t)64)    /* appends between two steps of copying ahead */
#define CXP_RING_LOOK  ((size_t)4096)  /* at most, between two looks at the way */
#define CXP_RING_PIECE ((size_t)16384) /* bytes of an extend between two of them */
#define CXP_RING_NEAR  ((size_t)65536) /* bytes of it that are left in the caches */
#define CXP_RING_LARGE ((size_t)1 << 23) /* bytes of a buffer that no cache holds */

/* What a caller of a callback wants to know afterwards: the lowest absolute position
 * at which the window ended while he was not looking (pop reuses positions). */
typedef struct cxp_watch {
    uint64_t low;
    struct cxp_watch *next;
} cxp_watch;

typedef struct cxp_ring {
    /* What append touches comes first: two cache lines. */
    char *data;       /* slot 0 of the buffer */
    size_t w;         /* the next slot to write */
    size_t stop;      /* w at which append must take the slow path */
    size_t start;     /* the window is [start, w) */
    size_t room;      /* tokens that fit in [start, w) */
    uint64_t evicted; /* tokens dropped by overflow */
    int64_t least;    /* tokens are least .. least + span (span is short for uint64, */
    uint64_t span;    /* whose upper half only the callers' slow path accepts) */
    unsigned size;    /* bytes of a token: 1, 2, 4, 8 */
    bool is_signed;

    bool tell;            /* someone wants to see tokens before overflow drops them */
    size_t capacity;      /* tokens in all */
    size_t slots;         /* tokens of a buffer */
    size_t wall;          /* slots before it are free of what was shown before */
    size_t sink;          /* tokens to pin */
    size_t prefix;        /* sink, if the pinned tokens are in the buffer; else 0 */
    size_t carry;         /* tokens that the next generation begins with */
    size_t step;          /* tokens that an overflow drops */
    size_t lap;           /* w at which this generation began */
    size_t viewed;        /* slots [0, viewed) of this generation were shown */
    uint64_t origin;      /* absolute position of slot 0 */
    uint64_t generations; /* used up */
    bool round;           /* a generation may begin in the buffer of the last one */
    bool large;           /* a buffer is larger than the caches */
    unsigned grain;       /* log2 of the slots of a section */

    cxp_gen *gen;
    cxp_gen *next; /* where tokens are copied ahead to, may be gen; NULL: not yet */
    size_t shift;  /* its token j is slot j + shift of this generation (if >= prefix) */
    size_t copied; /* tokens of it that are there */
    size_t begun;  /* w from which `rate` tokens are copied ahead per token appended */
    size_t rate;
    size_t due; /* w at which the way is looked at again */
    cxp_home *home;
    char *pinned;    /* the sink beside the body, or NULL */
    size_t npinned;  /* tokens in it */
    uint64_t repins; /* changes of it */
    cxp_watch *watches;
} cxp_ring;

/* Slots [0, end) were shown to someone who holds the generation. */
static inline void
cxp_ring_show(cxp_ring *ring, size_t end)
{
    if (end > ring->viewed)
        ring->viewed = end;
}

/* The section in which the window starts. */
static inline size_t
cxp_ring_section(const cxp_ring *ring)
{
    return ring->start >> ring->grain;
}

/* Set stop, after anything but push has changed the ring. */
static inline void
cxp_ring_aim(cxp_ring *ring)
{
    size_t stop = ring->due;
    size_t full = ring->start + ring->room;
    if (stop > ring->wall)
        stop = ring->wall;
    if ((ring->tell || ring->step > 1) && stop > full)
        stop = full;
    if (ring->w < ring->viewed || (ring->pinned && ring->npinned < ring->sink))
        stop = ring->w;
    ring->stop = stop;
}

/* The first slots of the buffer, up to `end`, that lie in sections nobody holds; on
 * from `from`, which is one of those or the wall. */
static inline size_t
cxp_ring_free_to(const cxp_ring *ring, size_t from, size_t end)
{
    size_t section = (size_t)1 << ring->grain;
    while (from < end && !cxp_gen_held(ring->gen, from >> ring->grain))
        from += section;
    return from < end ? from : end;
}

/* Copy ahead from where carry slots are left, not before `from`, so that all is there
 * at the wall. */
static inline void
cxp_ring_pace(cxp_ring *ring, size_t from)
{
    size_t near = ring->wall - ring->carry;
    ring->begun = near > from ? near : from;
    size_t left = ring->wall > ring->begun ? ring->wall - ring->begun : 1;
    ring->rate = left < ring->carry ? (ring->carry - 1) / left + 1 : 1;
}

/* Choose where the next generation begins: here, if that can be. */
static inline bool
cxp_ring_choose(cxp_ring *ring)
{
    /* Room for all tokens; half as much again, so that there is time to find another
     * way if those that follow are held. */
    size_t enough = ring->room + ring->room / 2;
    size_t left = ring->start >> ring->grain << ring->grain;
    if (ring->round && cxp_ring_free_to(ring, 0, left) >= enough)
        cxp_gen_ref(ring->next = ring->gen);
    else if (!(ring->next = cxp_home_take(ring->home)))
        return false;
    ring->shift = ring->wall - ring->carry;
    ring->copied = 0;
    return true;
}

/* Whether it is time to copy ahead; if not, `due` says when to ask again. Without
 * memory it isn't: it will be tried again, at the latest by cxp_ring_renew. */
static inline bool
cxp_ring_nears(cxp_ring *ring)
{
    if (ring->next)
        return true;
    ring->wall = cxp_ring_free_to(ring, ring->wall, ring->slots);
    size_t left = ring->wall - ring->w;
    bool held = ring->wall < ring->slots;
    ring->due = ring->w + CXP_RING_BATCH;
    if (left > ring->carry) {
        /* Now and then all the same: what then runs and is read is to be in a cache. */
        size_t near = ring->wall - ring->carry;
        size_t due = ring->w + CXP_RING_LOOK;
        __builtin_prefetch(ring->gen, 1);
        __builtin_prefetch(ring->gen->held + CXP_GEN_SECTIONS - 1, 1);
        __builtin_prefetch(ring->data, 1);
        ring->due = near < due ? near : due;
        return false;
    }
    if (held && left > ring->carry / 2)
        return false;
    if (!cxp_ring_choose(ring))
        return false;
    cxp_ring_pace(ring, held ? ring->w : ring->lap);
    return true;
}

/* Tokens of the next generation whose source is written. */
static inline size_t
cxp_ring_ready(const cxp_ring *ring)
{
    size_t prefix = ring->w < ring->prefix ? ring->w : ring->prefix;
    return ring->w > ring->shift + prefix ? ring->w - ring->shift : prefix;
}

/* Copy tokens [copied, goal) of the next generation. */
static inline void
cxp_ring_copy_to(cxp_ring *ring, size_t goal)
{
    size_t shift = ring->shift, size = ring->size;
    char *to = cxp_gen_data(ring->next);
    size_t j = ring->copied;
    if (j < ring->prefix && j < goal) {
        size_t end = goal < ring->prefix ? goal : ring->prefix;
        memcpy(to + j * size, ring->data + j * size, (end - j) * size);
        j = end;
    }
    if (!ring->prefix && j + shift < ring->start) /* no longer in the window */
        j = ring->start - shift;
    if (j < goal) {
        cxp_token_copy(to + j * size, ring->data + (j + shift) * size,
                       (goal - j) * size, ring->large);
        j = goal;
    }
    ring->copied = j;
}

/* A step of copying ahead, after w has moved. */
static inline void
cxp_ring_ahead(cxp_ring *ring)
{
    if (!cxp_ring_nears(ring))
        return;
    ring->due = (ring->w < ring->begun ? ring->begun : ring->w) + CXP_RING_BATCH;
    if (ring->w > ring->begun) {
        size_t ready = cxp_ring_ready(ring);
        size_t due = ring->w - ring->begun;
        cxp_ring_copy_to(ring, due < ready / ring->rate ? due * ring->rate : ready);
    }
}

/* Change generations: drop the `drop` oldest tokens of the body, keep the others, and
 * make room for m <= capacity - those. O(1) at the end of a generation, else O(n).
 * Returns 0, or -1 when memory is short and nothing is changed. */
static inline int
cxp_ring_renew(cxp_ring *ring, size_t drop, size_t m)
{
    size_t size = ring->size;
    size_t pins = ring->w < ring->prefix ? ring->w : ring->prefix;
    size_t from = ring->start + pins + drop; /* the first token of the body to keep */
    size_t live = ring->w - from;
    if (!ring->next && !cxp_ring_choose(ring))
        return -1;
    size_t shift = ring->shift;
    char *to = cxp_gen_data(ring->next);
    bool here = ring->next == ring->gen;
    size_t wall = here ? cxp_ring_free_to(ring, 0, ring->slots) : ring->slots;

    if (ring->prefix ? drop == shift : from >= shift && ring->w - shift + m <= wall) {
        /* As the tokens were copied ahead. */
        ring->start = from - pins;
        cxp_ring_copy_to(ring, ring->w - shift);
        ring->start -= shift;
        ring->origin += shift;
        ring->w -= shift;
    } else {
        memcpy(to, ring->data, pins * size);
        cxp_token_copy(to + pins * size, ring->data + from * size, live * size,
                       ring->large);
        ring->start = 0;
        ring->origin += from - pins;
        ring->w = pins + live;
    }
    cxp_gen *old = ring->gen;
    ring->wall = wall;
    ring->gen = ring->next;
    ring->next = NULL;
    ring->data = to;
    ring->copied = ring->viewed = 0;
    ring->lap = ring->w;
    ring->due = ring->w + CXP_RING_BATCH;
    cxp_ring_pace(ring, ring->lap);
    ring->generations++;
    cxp_ring_aim(ring);
    cxp_gen_unref(old);
    return 0;
}

#endif /* CTXPOOL_TOKEN_LAP_H */
