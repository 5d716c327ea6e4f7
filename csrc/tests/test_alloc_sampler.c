/* The sample against the truth: sums that are right on the average, addresses that come
 * and go, a full tree. */
#include "check.h"
#include "ctxpool/alloc_sampler.h"

#include <math.h>
#include <stdlib.h>

static cxp_alloc_sampler s;
static uint64_t random_state = 42;

static uint32_t
below(uint32_t n)
{
    random_state = random_state * UINT64_C(6364136223846793005) + 1;
    return (uint32_t)(random_state >> 33) % n;
}

static void
end(void)
{
    cxp_alloc_place *places;
    uint32_t used;
    cxp_alloc_end(&s, &places, &used);
    free(places);
}

static uint32_t
node(uint32_t parent, uintptr_t where)
{
    int made;
    return cxp_alloc_node(&s, parent, (void *)where, (int32_t)where, &made);
}

/* Sizes from tiny to many times the mean: each is counted as often as it should be. */
static void
test_sums_are_unbiased(void)
{
    static const size_t sizes[] = {16, 500, 4096, 100000, 3000000};
    enum { N = 200000 };
    CHECK(!cxp_alloc_begin(&s, 4096, 100));
    cxp_alloc_thread mine = {0};
    for (int i = 0; i < 5; i++) {
        size_t n = sizes[i];
        double chance = -expm1(-(double)n / 4096), expected = N * chance;
        uint64_t before = s.sampled;
        for (uintptr_t k = 1; k <= N; k++)
            if (cxp_alloc_due(&s, &mine, n)) {
                cxp_alloc_lock(&s);
                cxp_alloc_note(&s, (void *)(k << 4), n, node(0, (uintptr_t)i + 1));
                cxp_alloc_unlock(&s);
            }
        double off = fabs((double)(s.sampled - before) - expected);
        CHECK(off <= 5 * sqrt(expected * (1 - chance)) + 1);
        const cxp_alloc_place *place = &s.places[node(0, (uintptr_t)i + 1)];
        CHECK(fabs(place->count / N - 1) < 5 / sqrt(expected) + 1e-6);
        CHECK(fabs(place->bytes / ((double)n * N) - 1) < 5 / sqrt(expected) + 1e-6);
    }
    end();
}

static void
test_what_is_freed_is_alive_no_more(void)
{
    enum { N = 50000 };
    static char known[N + 1];
    CHECK(!cxp_alloc_begin(&s, 64, 100));
    cxp_alloc_sample was;
    size_t live = 0;
    for (int step = 0; step < 400000; step++) {
        uintptr_t k = 1 + below(N);
        void *p = (void *)(k * 48);
        if (known[k]) {
            CHECK(cxp_alloc_maybe(&s, p));
            CHECK(cxp_alloc_forget(&s, p, &was) && was.p == k * 48);
            if (below(10)) {
                known[k] = 0;
                live--;
            } else
                cxp_alloc_again(&s, &was);
        } else {
            CHECK(!cxp_alloc_maybe(&s, p) || !cxp_alloc_forget(&s, p, &was));
            cxp_alloc_lock(&s);
            cxp_alloc_note(&s, p, 32, node(node(0, 7), 1 + k % 5));
            cxp_alloc_unlock(&s);
            known[k] = 1;
            live++;
        }
        CHECK(s.live == live);
    }
    uint32_t used;
    cxp_alloc_place *places = cxp_alloc_copy(&s, &used);
    CHECK(places && used == 7);
    double count = 0, chance = -expm1(-32.0 / 64);
    for (uint32_t i = 0; i < used; i++)
        count += places[i].live_count;
    CHECK(fabs(count * chance - (double)live) < 1e-3 * (double)live);
    free(places);
    for (uintptr_t k = 1; k <= N; k++)
        if (known[k])
            CHECK(cxp_alloc_forget(&s, (void *)(k * 48), &was));
    CHECK(s.live == 0);
    for (uint32_t i = 1; i < s.used; i++)
        CHECK(fabs(s.places[i].live_bytes) < 1e-3);
    end();
    CHECK(!cxp_alloc_maybe(&s, (void *)48));
}

static void
test_an_address_that_comes_again_unfreed(void)
{
    CHECK(!cxp_alloc_begin(&s, 64, 100));
    cxp_alloc_lock(&s);
    cxp_alloc_note(&s, (void *)4096, 64, node(0, 1));
    cxp_alloc_note(&s, (void *)4096, 64, node(0, 2));
    cxp_alloc_unlock(&s);
    CHECK(s.live == 1);
    CHECK(fabs(s.places[1].live_bytes) < 1e-9 && s.places[2].live_bytes > 64);
    end();
}

static void
test_a_full_tree(void)
{
    CHECK(!cxp_alloc_begin(&s, 64, 4));
    uint32_t a = node(0, 1), b = node(a, 2), c = node(b, 3);
    CHECK(a == 1 && b == 2 && c == 3);
    CHECK(node(c, 4) == c && node(0, 9) == 0 && node(a, 2) == b);
    CHECK(s.merged == 2);
    end();
}

/* Another beginning, with another mean, is seen by a thread that was far from its next
 * point; what is off samples nothing. */
static void
test_beginnings(void)
{
    cxp_alloc_thread mine = {0};
    for (int i = 0; i < 1000; i++)
        CHECK(!cxp_alloc_due(&s, &mine, 1 << 20));
    CHECK(!cxp_alloc_begin(&s, 1e15, 10));
    for (int i = 0; i < 1000; i++)
        CHECK(!cxp_alloc_due(&s, &mine, 1 << 10));
    end();
    CHECK(!cxp_alloc_begin(&s, 1024, 10));
    int due = 0;
    for (int i = 0; i < 10000; i++)
        due += cxp_alloc_due(&s, &mine, 1 << 10);
    CHECK(due > 5000 && due < 7500); /* 1 - 1/e, of all but the first 256 */
    end();
    uint32_t used;
    CHECK(!cxp_alloc_copy(&s, &used) && used == 0);
    cxp_alloc_sample was = {16, 1, 1, 5};
    cxp_alloc_again(&s, &was);
    CHECK(!cxp_alloc_forget(&s, (void *)16, &was));
}

int
main(void)
{
    cxp_alloc_init(&s);
    test_sums_are_unbiased();
    test_what_is_freed_is_alive_no_more();
    test_an_address_that_comes_again_unfreed();
    test_a_full_tree();
    test_beginnings();
    return CHECK_SUMMARY();
}
