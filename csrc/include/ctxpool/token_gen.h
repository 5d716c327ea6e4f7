/* Generations: counted buffers of tokens, and where a retired one waits.
 *
 * A ring and the generations it made share a `cxp_home`. The last reference to a
 * generation makes it the home's *spare*, from which the ring takes its next one: so a
 * ring whose views are short-lived never allocates, and nothing looks at anybody's
 * reference count. One spare is kept, another one is freed; when the ring is gone
 * (`closed`) none is kept. The home dies with the last that refers to it: the ring, and
 * every generation, a spare included.
 *
 * Thread-safe: references are taken by whoever has one, and dropped by any thread at
 * any time. O(1), but for the allocator. No Python here.
 */
#ifndef CTXPOOL_TOKEN_GEN_H
#define CTXPOOL_TOKEN_GEN_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#define CXP_GEN_ALIGN ((size_t)64)

/* Under AddressSanitizer a spare buffer is poisoned: a use of a view that nobody
 * holds any more is reported. */
#if defined(__SANITIZE_ADDRESS__)
#define CXP_RING_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CXP_RING_ASAN 1
#endif
#endif
#ifdef CXP_RING_ASAN
#include <sanitizer/asan_interface.h>
#define CXP_RING_HIDE(p, n) ASAN_POISON_MEMORY_REGION(p, n)
#define CXP_RING_SHOW(p, n) ASAN_UNPOISON_MEMORY_REGION(p, n)
#else
#define CXP_RING_HIDE(p, n) ((void)(p), (void)(n))
#define CXP_RING_SHOW(p, n) ((void)(p), (void)(n))
#endif

struct cxp_gen;

typedef struct cxp_home {
    size_t refs;           /* atomic: the ring, and each generation, spare or not */
    size_t nbytes;         /* of a generation's tokens */
    struct cxp_gen *spare; /* atomic: a retired generation, or NULL */
    int closed;            /* atomic: the ring is gone, keep no spare */
} cxp_home;

typedef struct cxp_gen {
    size_t refs; /* atomic */
    size_t nbytes;
    cxp_home *home; /* NULL: a buffer that is simply freed */
} cxp_gen;          /* the tokens follow, CXP_GEN_ALIGN bytes after its start */

static inline char *
cxp_gen_data(cxp_gen *gen)
{
    return (char *)gen + CXP_GEN_ALIGN;
}

/* A buffer with one reference; NULL when memory is short. Its pages are touched by
 * whoever writes them first. */
static inline cxp_gen *
cxp_gen_new(cxp_home *home, size_t nbytes)
{
    if (nbytes > SIZE_MAX - 2 * CXP_GEN_ALIGN)
        return NULL;
    size_t size = (nbytes + 2 * CXP_GEN_ALIGN - 1) & ~(CXP_GEN_ALIGN - 1);
    cxp_gen *gen = (cxp_gen *)aligned_alloc(CXP_GEN_ALIGN, size);
    if (gen == NULL)
        return NULL;
    gen->refs = 1;
    gen->nbytes = nbytes;
    gen->home = home;
    if (home)
        __atomic_add_fetch(&home->refs, 1, __ATOMIC_RELAXED);
    return gen;
}

static inline void
cxp_home_unref(cxp_home *home)
{
    if (__atomic_sub_fetch(&home->refs, 1, __ATOMIC_ACQ_REL) == 0)
        free(home);
}

static inline void
cxp_gen_free(cxp_gen *gen)
{
    cxp_home *home = gen->home;
    CXP_RING_SHOW(cxp_gen_data(gen), gen->nbytes);
    free(gen);
    if (home)
        cxp_home_unref(home);
}

/* Free the spare, if there is one. */
static inline void
cxp_home_drain(cxp_home *home)
{
    cxp_gen *gen = __atomic_exchange_n(&home->spare, (cxp_gen *)NULL, __ATOMIC_SEQ_CST);
    if (gen)
        cxp_gen_free(gen);
}

static inline void
cxp_gen_ref(cxp_gen *gen)
{
    __atomic_add_fetch(&gen->refs, 1, __ATOMIC_RELAXED);
}

/* Any thread, at any time. The last reference makes it the ring's spare. */
static inline void
cxp_gen_unref(cxp_gen *gen)
{
    if (__atomic_sub_fetch(&gen->refs, 1, __ATOMIC_ACQ_REL))
        return;
    cxp_home *home = gen->home;
    if (home == NULL) {
        cxp_gen_free(gen);
        return;
    }
    /* As a spare it can be freed by the ring's end at once, and home with it. */
    __atomic_add_fetch(&home->refs, 1, __ATOMIC_RELAXED);
    CXP_RING_HIDE(cxp_gen_data(gen), gen->nbytes);
    gen = __atomic_exchange_n(&home->spare, gen, __ATOMIC_SEQ_CST);
    if (gen)
        cxp_gen_free(gen);
    /* The ring may have ended before the exchange: nobody else would look again. */
    if (__atomic_load_n(&home->closed, __ATOMIC_SEQ_CST))
        cxp_home_drain(home);
    cxp_home_unref(home);
}

/* The spare or a new buffer, with one reference; NULL when memory is short. */
static inline cxp_gen *
cxp_home_take(cxp_home *home)
{
    cxp_gen *gen = __atomic_exchange_n(&home->spare, (cxp_gen *)NULL, __ATOMIC_SEQ_CST);
    if (gen == NULL)
        return cxp_gen_new(home, home->nbytes);
    CXP_RING_SHOW(cxp_gen_data(gen), gen->nbytes);
    gen->refs = 1;
    return gen;
}

#endif /* CTXPOOL_TOKEN_GEN_H */
