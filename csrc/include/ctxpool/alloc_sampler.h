/* Where a program's memory goes, from a sample of its allocations: cheap enough to be
 * left on in production.
 *
 *     static cxp_alloc_sampler s;
 *     cxp_alloc_begin(&s, 512 << 10, 1 << 16);
 *     void *p = malloc(n);
 *     if (cxp_alloc_due(&s, &mine, n)) {           // mine: of this thread
 *         cxp_alloc_lock(&s);
 *         uint32_t node = cxp_alloc_node(&s, CXP_ALLOC_ROOT, caller, line);
 *         cxp_alloc_note(&s, p, n, cxp_alloc_node(&s, node, callee, line));
 *         cxp_alloc_unlock(&s);
 *     }
 *     ...
 *     if (cxp_alloc_maybe(&s, p))
 *         cxp_alloc_forget(&s, p);
 *     free(p);
 *
 * Which. All allocations, laid end to end, are a line of bytes; along it lie points at
 * exponentially distributed distances of `mean` bytes, and an allocation in which one
 * of them lies is sampled. So one of n bytes is sampled with p = 1 - exp(-n / mean),
 * and stands for n / p bytes and 1 / p allocations: the sums are unbiased, whatever the
 * sizes. (tcmalloc's heap profiler and Go's sample in this way.)
 *
 * Where. A tree of places, from the outermost caller inwards; a place is two opaque
 * values, given by the caller. A node counts what was allocated at exactly that stack:
 * in all, and what of it is alive. The tree is bounded: when it is full, what is new
 * counts for the nearest place that is known.
 *
 * Gone. Each freed address is looked up in a filter of one byte a bucket first; hardly
 * any goes further. Addresses near one another have buckets near one another, so the
 * filter's part that is used stays in the processor's caches.
 *
 * Contract: cxp_alloc_due() is the thread's own and takes no lock; cxp_alloc_maybe()
 * takes none either; the others are for who holds the lock, or take it as said. An
 * address is forgotten before it is freed, and noted before anybody else has it. What
 * is sampled is dropped, and counted, where there is no memory. The sampler itself uses
 * malloc: never call it from malloc's own hooks.
 */
#ifndef CTXPOOL_ALLOC_SAMPLER_H
#define CTXPOOL_ALLOC_SAMPLER_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

enum {
    CXP_ALLOC_ROOT = 0,
    CXP_ALLOC_PAGES = 1 << 11, /* of the filter */
    CXP_ALLOC_CELLS = 1 << 6,  /* of each */
};

/* Of one stack: the place, the stack that it was called from, and what came of it. */
typedef struct cxp_alloc_place {
    const void *where;
    int32_t at;
    uint32_t parent;
    double bytes, count;           /* allocated */
    double live_bytes, live_count; /* of these, not yet freed */
} cxp_alloc_place;

typedef struct cxp_alloc_sample {
    uintptr_t p; /* 0: none */
    double bytes;
    float count;
    uint32_t node;
} cxp_alloc_sample;

typedef struct cxp_alloc_sampler {
    pthread_mutex_t lock;
    int on;
    uint32_t era; /* of each beginning, so that threads draw anew */
    double mean;
    cxp_alloc_place *places;
    uint32_t *index; /* of places, by their hash: number + 1 */
    uint32_t used, most, index_mask;
    cxp_alloc_sample *samples;
    size_t live, mask;
    uint64_t sampled, dropped, merged;                 /* merged: the tree was full */
    uint8_t filter[CXP_ALLOC_PAGES * CXP_ALLOC_CELLS]; /* 255: stays so */
} cxp_alloc_sampler;

/* A thread's own. All zero at first. */
typedef struct cxp_alloc_thread {
    int64_t left; /* bytes until the next point, or until it looks up */
    int64_t more; /* from there to the point */
    uint64_t random;
    uint32_t era;
} cxp_alloc_thread;

/* ---- The hot path ---- */

int cxp_alloc_due_(cxp_alloc_sampler *s, cxp_alloc_thread *mine, size_t n);

/* Whether an allocation of n bytes is one of the sample. */
static inline int
cxp_alloc_due(cxp_alloc_sampler *s, cxp_alloc_thread *mine, size_t n)
{
    mine->left -= (int64_t)n;
    return __builtin_expect(mine->left < 0, 0) ? cxp_alloc_due_(s, mine, n) : 0;
}

static inline uint32_t
cxp_alloc_cell_(uintptr_t p)
{
    uint64_t page = (uint64_t)(p >> 12) * UINT64_C(0x9E3779B97F4A7C15);
    return (uint32_t)(page >> 53) * CXP_ALLOC_CELLS |
           (uint32_t)(p >> 4 & (CXP_ALLOC_CELLS - 1));
}

/* Whether p may be of the sample: seldom, if it is not. */
static inline int
cxp_alloc_maybe(const cxp_alloc_sampler *s, const void *p)
{
    const uint8_t *cell = &s->filter[cxp_alloc_cell_((uintptr_t)p)];
    int known = __atomic_load_n(cell, __ATOMIC_RELAXED) != 0;
    return (int)__builtin_expect(known, 0);
}

/* ---- All else ---- */

/* Once, before all. */
void cxp_alloc_init(cxp_alloc_sampler *s);

/* Begin, with nothing. most: places in the tree, the root included. -1: no memory. */
int cxp_alloc_begin(cxp_alloc_sampler *s, double mean, uint32_t most);

/* Forget everything; nothing is sampled after it. The lock is taken. *places becomes
 * the caller's to free, with what `where` means to it; *used of them. */
void cxp_alloc_end(cxp_alloc_sampler *s, cxp_alloc_place **places, uint32_t *used);

static inline void
cxp_alloc_lock(cxp_alloc_sampler *s)
{
    pthread_mutex_lock(&s->lock);
}

static inline void
cxp_alloc_unlock(cxp_alloc_sampler *s)
{
    pthread_mutex_unlock(&s->lock);
}

/* The place that *parent* called, for who holds the lock of a sampler that is on.
 * *made: whether it is new; the parent itself where the tree is full. */
uint32_t cxp_alloc_node(cxp_alloc_sampler *s, uint32_t parent, const void *where,
                        int32_t at, int *made);

/* p, of n bytes, was allocated there. For who holds the lock. */
void cxp_alloc_note(cxp_alloc_sampler *s, void *p, size_t n, uint32_t node);

/* p is about to be freed. Takes the lock. 1: it was of the sample, and *was says how,
 * so that cxp_alloc_again() can take it back. */
int cxp_alloc_forget(cxp_alloc_sampler *s, void *p, cxp_alloc_sample *was);

/* It was not freed after all. Takes the lock. */
void cxp_alloc_again(cxp_alloc_sampler *s, const cxp_alloc_sample *was);

/* A copy of the places, which the caller frees; *used of them. For who holds the lock.
 * NULL: no memory, or it is not on (*used is 0). */
cxp_alloc_place *cxp_alloc_copy(cxp_alloc_sampler *s, uint32_t *used);

#endif
