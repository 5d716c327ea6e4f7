/* Generations' buffers: counted, with a count for each section of them that somebody
 * sees; and where a retired one waits.
 *
 * Whoever was shown tokens *holds* the buffer, and in it the section in which they
 * begin: so a ring knows which of its old tokens nobody sees any more, and may write
 * there again without leaving the buffer.
 *
 * A ring and the buffers it made share a `cxp_home`. The last reference to a
 * buffer makes it the home's *spare*, from which the ring takes its next one: so a
 * ring whose views are short-lived never allocates, and nothing looks at any object's
 * reference count. One spare is kept, another one is freed; when the ring is gone
 * (`closed`) none is kept. The home dies with the last that refers to it: the ring, and
 * every buffer, a spare included.
 *
 * Thread-safe: references are taken by whoever has one, and dropped by any thread at
 * any time. O(1), but for the allocator. No Python here.
 */
#ifndef CTXPOOL_TOKEN_GEN_H
#define CTXPOOL_TOKEN_GEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __linux__
#include <sys/mman.h>
#endif

#define CXP_GEN_ALIGN    ((size_t)64)
#define CXP_GEN_HEAD     ((size_t)128)
#define CXP_GEN_SECTIONS 16
#define CXP_GEN_HUGE     ((size_t)1 << 22)

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
    size_t refs;           /* atomic: the ring, and each buffer, spare or not */
    size_t nbytes;         /* of a buffer's tokens */
    struct cxp_gen *spare; /* atomic: a retired buffer, or NULL */
    int closed;            /* atomic: the ring is gone, keep no spare */
} cxp_home;

typedef struct cxp_gen {
    size_t refs; /* atomic */
    size_t nbytes;
    cxp_home *home;                  /* NULL: a buffer that is simply freed */
    uint32_t held[CXP_GEN_SECTIONS]; /* atomic: of refs, those who see this section */
} cxp_gen; /* the tokens follow, CXP_GEN_HEAD bytes after its start */

_Static_assert(sizeof(cxp_gen) <= CXP_GEN_HEAD, "the tokens follow the head");

static inline char *
cxp_gen_data(cxp_gen *gen)
{
    return (char *)gen + CXP_GEN_HEAD;
}

/* A buffer with one reference; NULL when memory is short. Its pages are touched by
 * whoever writes them first. */
static inline cxp_gen *
cxp_gen_new(cxp_home *home, size_t nbytes)
{
    if (nbytes > SIZE_MAX - CXP_GEN_HEAD - CXP_GEN_ALIGN)
        return NULL;
    size_t size = (CXP_GEN_HEAD + nbytes + CXP_GEN_ALIGN - 1) & ~(CXP_GEN_ALIGN - 1);
    cxp_gen *gen = (cxp_gen *)aligned_alloc(CXP_GEN_ALIGN, size);
    if (gen == NULL)
        return NULL;
    gen->refs = 1;
    gen->nbytes = nbytes;
    gen->home = home;
    memset(gen->held, 0, sizeof gen->held);
    if (home)
        __atomic_add_fetch(&home->refs, 1, __ATOMIC_RELAXED);
    return gen;
}

/* The same, with all pages touched: huge ones, if it is large. A buffer whose pages are
 * touched one by one later does not have them, since to clear one takes 0.1 ms. */
static inline cxp_gen *
cxp_gen_touched(cxp_home *home, size_t nbytes)
{
    cxp_gen *gen = cxp_gen_new(home, nbytes);
    if (gen == NULL)
        return NULL;
    char *data = cxp_gen_data(gen);
#ifdef MADV_HUGEPAGE
    if (nbytes >= CXP_GEN_HUGE) {
        size_t before = (size_t)(-(uintptr_t)data % 4096);
        madvise(data + before, nbytes - before, MADV_HUGEPAGE); /* or do without */
    }
#endif
    memset(data, 0, nbytes);
    return gen;
}

/* One of no ring, held by the caller in section 0. */
static inline cxp_gen *
cxp_gen_alone(size_t nbytes)
{
    cxp_gen *gen = cxp_gen_new(NULL, nbytes);
    if (gen)
        gen->held[0] = 1;
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

/* A reference, for whoever is shown tokens that begin in a section. */
static inline void
cxp_gen_hold(cxp_gen *gen, size_t section)
{
    cxp_gen_ref(gen);
    __atomic_add_fetch(&gen->held[section], 1, __ATOMIC_RELAXED);
}

/* Any thread, at any time. */
static inline void
cxp_gen_drop(cxp_gen *gen, size_t section)
{
    __atomic_sub_fetch(&gen->held[section], 1, __ATOMIC_RELEASE);
    cxp_gen_unref(gen);
}

static inline bool
cxp_gen_held(const cxp_gen *gen, size_t section)
{
    return __atomic_load_n(&gen->held[section], __ATOMIC_ACQUIRE) != 0;
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
