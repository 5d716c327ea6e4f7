#define _GNU_SOURCE /* EDQUOT, alarm, fork */
#include "ctxpool/array_heap.h"

#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "ctxpool/asan.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)

static void
give(void *p)
{
    cxp_array_heap_give(cxp_array_heap_find(p), p);
}

static cxp_heap_counts
counts(cxp_array_heap *heap)
{
    cxp_heap_counts now;
    cxp_array_heap_count(heap, &now);
    return now;
}

static void
test_classes_waste_at_most_a_quarter(void)
{
    size_t before = 0;
    for (size_t n = 1; n < 64 * MIB; n += n / 97 + 1) {
        size_t block = cxp_array_heap_block(n);
        CHECK(block >= n && block >= before && block % 64 == 0);
        CHECK(n <= 256 || block <= n + n / 4 + 64);
        CHECK(cxp_array_heap_block(block) == block);
        before = block;
    }
    for (size_t n = 64 * KIB; n <= (size_t)1 << 46; n *= 2)
        CHECK(cxp_array_heap_block(n) == n);
    CHECK(cxp_array_heap_block(((size_t)1 << 46) + 1) == 0);
}

static void
test_the_newest_block_is_the_next(void)
{
    cxp_array_heap heap;
    cxp_array_heap_init(&heap, 64 * MIB, SIZE_MAX, 2 * MIB, 0);
    for (size_t n = 1; n <= 16 * MIB; n *= 4) {
        char *a = cxp_array_heap_take(&heap, n, 0),
             *b = cxp_array_heap_take(&heap, n, 0);
        CHECK(a && b && a != b && (uintptr_t)a % 64 == 0 && (uintptr_t)b % 64 == 0);
        memset(a, 1, n);
        memset(b, 2, n);
        give(a);
        give(b);
        CHECK(cxp_array_heap_take(&heap, n, 0) == b);
        CHECK(cxp_array_heap_take(&heap, n, 0) == a);
        CHECK(a[0] == 1 && a[n - 1] == 1);
        CHECK(cxp_array_heap_check(&heap) == 0);
        give(a);
        give(b);
    }
    CHECK(counts(&heap).live_blocks == 0 && counts(&heap).live_bytes == 0);
    CHECK(cxp_array_heap_check(&heap) == 0);
    cxp_array_heap_fini(&heap);
}

static void
test_zeroed_blocks_are_zeros(void)
{
    cxp_array_heap heap;
    cxp_array_heap_init(&heap, 64 * MIB, SIZE_MAX, 2 * MIB, 0);
    for (size_t n = 100; n <= 10 * MIB; n *= 10)
        for (int round = 0; round < 3; round++) {
            unsigned char *p = cxp_array_heap_take(&heap, n, 1);
            size_t sum = 0;
            for (size_t i = 0; i < n; i++)
                sum += p[i];
            CHECK(sum == 0);
            memset(p, 0xFF, n);
            give(p);
        }
    cxp_array_heap_fini(&heap);
}

static void
test_what_is_kept_is_bounded_and_the_oldest_goes(void)
{
    cxp_array_heap heap;
    void *p[4];
    cxp_array_heap_init(&heap, 8 * MIB, SIZE_MAX, 2 * MIB, 0);
    for (size_t i = 0; i < 4; i++)
        p[i] = cxp_array_heap_take(&heap, (i + 1) * MIB, 0);
    for (size_t i = 0; i < 4; i++) {
        give(p[i]); /* 1, 1+2, 1+2+3; then 4 in the places of 1 and 2 */
        CHECK(cxp_array_heap_check(&heap) == 0);
    }
    CHECK(counts(&heap).idle_bytes == 7 * MIB && counts(&heap).unmapped == 2);
    uint64_t misses = counts(&heap).misses;
    CHECK(cxp_array_heap_take(&heap, 4 * MIB, 0) == p[3]);
    CHECK(cxp_array_heap_take(&heap, 3 * MIB, 0) == p[2]);
    CHECK(counts(&heap).misses == misses && counts(&heap).hits == 2);
    give(p[3]);
    give(p[2]);
    void *large = cxp_array_heap_take(&heap, 9 * MIB, 0);
    CHECK(large && counts(&heap).misses == misses + 1);
    give(large); /* alone more than is kept: it goes, and the others stay */
    CHECK(counts(&heap).idle_bytes == 7 * MIB && counts(&heap).unmapped == 3);
    CHECK(cxp_array_heap_find(large) == NULL);
    CHECK(cxp_array_heap_check(&heap) == 0);
    cxp_array_heap_fini(&heap);
}

static void
test_the_limit_refuses_and_forgets_nothing(void)
{
    cxp_array_heap heap;
    cxp_array_heap_init(&heap, SIZE_MAX, 4 * MIB, 2 * MIB, 0);
    CHECK(cxp_array_heap_take(&heap, 5 * MIB, 0) == NULL && errno == EDQUOT);
    void *a = cxp_array_heap_take(&heap, 3 * MIB, 0);
    CHECK(a && cxp_array_heap_take(&heap, 2 * MIB, 0) == NULL);
    CHECK(counts(&heap).refused == 2 && counts(&heap).live_bytes == 3 * MIB);
    void *b = cxp_array_heap_take(&heap, 1 * MIB, 0);
    CHECK(b && counts(&heap).peak_bytes == 4 * MIB);
    give(a);
    give(b);
    CHECK(cxp_array_heap_take(&heap, SIZE_MAX, 0) == NULL && errno == ENOMEM);
    CHECK(cxp_array_heap_check(&heap) == 0);
    cxp_array_heap_fini(&heap);
}

static void
test_what_the_system_refuses(void)
{
    cxp_array_heap heap;
    cxp_array_heap_init(&heap, SIZE_MAX, SIZE_MAX, SIZE_MAX, 0);
    void *idle = cxp_array_heap_take(&heap, 4 * MIB, 0);
    give(idle);
    if (cxp_array_heap_take(&heap, (size_t)1 << 46, 0) == NULL) {
        CHECK(errno == ENOMEM && counts(&heap).refused == 1);
        CHECK(counts(&heap).mapped_bytes == 0); /* it tried without what was idle */
    }
    CHECK(cxp_array_heap_check(&heap) == 0);
    cxp_array_heap_fini(&heap);
}

static void
test_foreign_memory_is_known_as_such(void)
{
    int here;
    void *p = malloc(100), *big = malloc(8 * MIB);
    CHECK(cxp_array_heap_find(NULL) == NULL && cxp_array_heap_find(&here) == NULL);
    CHECK(cxp_array_heap_find(p) == NULL && cxp_array_heap_find(big) == NULL);
    CHECK(cxp_array_heap_find((void *)UINTPTR_MAX) == NULL);
    free(p);
    free(big);
}

static void
test_resizing(void)
{
    cxp_array_heap heap;
    cxp_array_heap_init(&heap, SIZE_MAX, SIZE_MAX, 2 * MIB, 0);
    char *p = cxp_array_heap_take(&heap, 1000, 0);
    cxp_extent *extent = cxp_array_heap_find(p);
    CHECK(cxp_array_heap_fit(extent, p, 1024) == 0);
    CHECK(cxp_array_heap_fit(extent, p, 1025) == -1);
    CHECK(cxp_array_heap_fit(extent, p, 100) == -1);
    memset(p, 7, 1024);
    char *q = cxp_array_heap_take(&heap, 3 * MIB, 0);
    cxp_array_heap_move(extent, p, q, 3 * MIB);
    CHECK(q[0] == 7 && q[1023] == 7 && counts(&heap).live_blocks == 1);
    give(q);
    cxp_array_heap_fini(&heap);
}

static void
test_warm_blocks_need_no_map(void)
{
    cxp_array_heap heap;
    cxp_array_heap_init(&heap, 64 * MIB, SIZE_MAX, 2 * MIB, 0);
    CHECK(cxp_array_heap_warm(&heap, 4 * MIB, 3) == 3);
    CHECK(cxp_array_heap_warm(&heap, 3 * KIB, 2000) == 2000);
    CHECK(cxp_array_heap_warm(&heap, 1, SIZE_MAX) == 0);
    uint64_t misses = counts(&heap).misses;
    void *p[3];
    for (int i = 0; i < 3; i++) {
        p[i] = cxp_array_heap_take(&heap, 4 * MIB, 0);
        CHECK(cxp_vm_resident(p[i], 4 * MIB) == 4 * MIB);
    }
    CHECK(counts(&heap).misses == misses);
    for (int i = 0; i < 3; i++)
        give(p[i]);
    CHECK(cxp_array_heap_check(&heap) == 0);
    cxp_array_heap_fini(&heap);
    cxp_array_heap_init(&heap, 64 * MIB, SIZE_MAX, SIZE_MAX, 1);
    p[0] = cxp_array_heap_take(&heap, 4 * MIB, 0);
    CHECK(cxp_vm_resident(p[0], 4 * MIB) == 4 * MIB);
    give(p[0]);
    cxp_array_heap_fini(&heap);
}

static void
test_trim_gives_memory_back(void)
{
    enum { N = 64 };
    cxp_array_heap heap;
    void *p[N];
    cxp_array_heap_init(&heap, SIZE_MAX, SIZE_MAX, SIZE_MAX, 0);
    void *large = cxp_array_heap_take(&heap, 4 * MIB, 0);
    memset(large, 1, 4 * MIB);
    for (int i = 0; i < N; i++) {
        p[i] = cxp_array_heap_take(&heap, 16 * KIB, 0);
        memset(p[i], 1, 16 * KIB);
    }
    give(large);
    for (int i = 0; i < N; i++)
        if (i != 5)
            give(p[i]);
    CHECK(cxp_array_heap_trim(&heap) == 4 * MIB + (N - 1) * 16 * KIB);
    CHECK(((char *)p[5])[16 * KIB - 1] == 1);
    CHECK(counts(&heap).idle_bytes == 0 && counts(&heap).mapped_bytes == 2 * MIB);
    char *again = cxp_array_heap_take(&heap, 16 * KIB, 1); /* neither clean nor dirty */
    CHECK(again[0] == 0 && again[16 * KIB - 1] == 0);
    give(again);
    CHECK(cxp_array_heap_check(&heap) == 0);
    give(p[5]);
    cxp_array_heap_fini(&heap);
}

/* One after another takes, fills, verifies and gives; every step is checked. */
static void
test_random_actions(void)
{
    enum { N = 200, STEPS = 6000 };
    static struct {
        unsigned char *p;
        size_t n;
    } held[N];
    cxp_array_heap heap;
    uint32_t seed = 12345;
    cxp_array_heap_init(&heap, 6 * MIB, 64 * MIB, 2 * MIB, 0);
    for (int step = 0; step < STEPS; step++) {
        seed = seed * 1664525u + 1013904223u;
        size_t i = (seed >> 8) % N;
        if (held[i].p) {
            CHECK(held[i].p[0] == (unsigned char)i);
            CHECK(held[i].p[held[i].n - 1] == (unsigned char)i);
            give(held[i].p);
            held[i].p = NULL;
        } else {
            size_t n = (size_t)1 << ((seed >> 16) % 22);
            n += seed % n;
            held[i].p = cxp_array_heap_take(&heap, n, (int)(seed >> 31));
            held[i].n = n;
            if (held[i].p) {
                held[i].p[0] = (unsigned char)i;
                held[i].p[n - 1] = (unsigned char)i;
            }
        }
        if (step % 1000 == 999)
            cxp_array_heap_trim(&heap);
        if (step % 7 == 0)
            CHECK(cxp_array_heap_check(&heap) == 0);
    }
    for (int i = 0; i < N; i++)
        if (held[i].p)
            give(held[i].p);
    CHECK(counts(&heap).live_bytes == 0 && cxp_array_heap_check(&heap) == 0);
    cxp_array_heap_fini(&heap);
}

static void *
work(void *argument)
{
    cxp_array_heap *heap = argument;
    unsigned char *held[16] = {0};
    uint32_t seed = (uint32_t)(uintptr_t)&seed;
    for (int step = 0; step < 20000; step++) {
        seed = seed * 1664525u + 1013904223u;
        size_t i = (seed >> 8) % 16, n = (size_t)600 << ((seed >> 16) % 11);
        if (held[i]) {
            CHECK(*held[i] == (unsigned char)(uintptr_t)held);
            give(held[i]);
            held[i] = NULL;
        } else if ((held[i] = cxp_array_heap_take(heap, n, 0))) {
            *held[i] = (unsigned char)(uintptr_t)held;
        }
        if (step % 5000 == 0)
            cxp_array_heap_trim(heap);
    }
    for (size_t i = 0; i < 16; i++)
        if (held[i])
            give(held[i]);
    return NULL;
}

static void
test_threads(void)
{
    cxp_array_heap heap;
    pthread_t threads[4];
    cxp_array_heap_init(&heap, 2 * MIB, SIZE_MAX, 2 * MIB, 0);
    for (int i = 0; i < 4; i++)
        CHECK(pthread_create(&threads[i], NULL, work, &heap) == 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    CHECK(counts(&heap).live_blocks == 0 && cxp_array_heap_check(&heap) == 0);
    cxp_array_heap_fini(&heap);
}

/* A child of a process whose threads are at work finds every lock free. */
static void
test_fork(void)
{
    cxp_array_heap heap, other;
    pthread_t thread;
    cxp_array_heap_init(&heap, 64 * MIB, SIZE_MAX, 2 * MIB, 0);
    cxp_array_heap_init(&other, 64 * MIB, SIZE_MAX, 2 * MIB, 0);
    char *kept = cxp_array_heap_take(&heap, 100 * KIB, 0);
    *kept = 9;
    CHECK(pthread_create(&thread, NULL, work, &heap) == 0);
    for (int i = 0; i < 20; i++) {
        pid_t child = fork();
        if (child == 0) {
            alarm(20);
            char *p = cxp_array_heap_take(&heap, 10 * KIB, 1);
            int good = *kept == 9 && p && *p == 0;
            *kept = *p = 8;
            give(p);
            give(kept);
            good = good && cxp_array_heap_check(&heap) == 0;
            good = good && cxp_array_heap_check(&other) == 0;
            _exit(good ? 0 : 1);
        }
        int status = -1;
        CHECK(waitpid(child, &status, 0) == child && status == 0);
    }
    pthread_join(thread, NULL);
    CHECK(*kept == 9);
    give(kept);
    cxp_array_heap_fini(&heap);
    cxp_array_heap_fini(&other);
}

/* Under AddressSanitizer nobody may touch what is free, or behind what was asked for.
 */
static void
test_free_memory_is_poisoned(void)
{
#ifdef CXP_ASAN
    cxp_array_heap heap;
    cxp_array_heap_init(&heap, 64 * MIB, SIZE_MAX, 2 * MIB, 0);
    for (size_t n = 1000; n <= 4000000; n *= 10) {
        char *p = cxp_array_heap_take(&heap, n, 0);
        CHECK(!__asan_region_is_poisoned(p, n) && __asan_address_is_poisoned(p + n));
        CHECK(cxp_array_heap_fit(cxp_array_heap_find(p), p, n - 16) == 0);
        CHECK(__asan_address_is_poisoned(p + n - 16));
        give(p);
        CHECK(__asan_address_is_poisoned(p) && __asan_address_is_poisoned(p + n - 1));
    }
    cxp_array_heap_fini(&heap);
#endif
}

int
main(void)
{
    test_classes_waste_at_most_a_quarter();
    test_the_newest_block_is_the_next();
    test_zeroed_blocks_are_zeros();
    test_what_is_kept_is_bounded_and_the_oldest_goes();
    test_the_limit_refuses_and_forgets_nothing();
    test_what_the_system_refuses();
    test_foreign_memory_is_known_as_such();
    test_resizing();
    test_warm_blocks_need_no_map();
    test_trim_gives_memory_back();
    test_random_actions();
    test_free_memory_is_poisoned();
    test_threads();
    test_fork();
    return CHECK_SUMMARY();
}
