#include <ctxpool/lru_table.h>

#include "check.h"

/* Keys are small numbers, their hash a poor one: many tags and homes collide. */
static uint64_t
hash_of(uintptr_t key)
{
    return (key % 64) << (key % 3 * 20);
}

static uint32_t
find(const cxp_lru_table *t, uintptr_t key)
{
    uint32_t at, tag = cxp_lru_tag(hash_of(key));
    uint32_t e = cxp_lru_first(t, tag, &at);
    while (e && (uintptr_t)t->entries[e].key != key)
        e = cxp_lru_next(t, tag, &at);
    return e;
}

static uint32_t
insert(cxp_lru_table *t, uintptr_t key)
{
    return cxp_lru_insert(t, (void *)key, (void *)(key * 2), cxp_lru_tag(hash_of(key)));
}

static uint32_t seed = 12345;

static uint32_t
below(uint32_t n)
{
    seed = seed * 1664525u + 1013904223u;
    return (seed >> 8) % n;
}

static void
test_empty(void)
{
    cxp_lru_table t;
    cxp_lru_init(&t);
    CHECK(find(&t, 7) == 0);
    CHECK(cxp_lru_oldest(&t) == 0);
    CHECK(cxp_lru_bytes(&t) == 0);
    CHECK(cxp_lru_check(&t) == 0);
    cxp_lru_fini(&t);
}

static void
test_recency_and_order(void)
{
    cxp_lru_table t;
    cxp_lru_init(&t);
    for (uintptr_t k = 1; k <= 5; k++)
        CHECK(insert(&t, k));
    cxp_lru_promote(&t, find(&t, 1));
    cxp_lru_promote(&t, find(&t, 3));
    uintptr_t by_recency[] = {2, 4, 5, 1, 3};
    uint32_t e = cxp_lru_oldest(&t);
    for (int i = 0; i < 5; i++, e = cxp_lru_newer(&t, e))
        CHECK((uintptr_t)t.entries[e].key == by_recency[i]);
    CHECK(e == 0);
    cxp_lru_remove(&t, find(&t, 2));
    CHECK(find(&t, 2) == 0);
    CHECK(insert(&t, 2));
    uintptr_t by_insertion[] = {1, 3, 4, 5, 2};
    uint32_t *order = cxp_lru_in_order(&t);
    for (int i = 0; i < 5; i++)
        CHECK((uintptr_t)t.entries[order[i]].key == by_insertion[i]);
    free(order);
    CHECK(cxp_lru_check(&t) == 0);
    cxp_lru_fini(&t);
}

/* Fifty entries of one home: most are too far from it for their slots to say how far.
 */
static void
test_far_from_home(void)
{
    cxp_lru_table t;
    cxp_lru_init(&t);
    uint32_t e[50];
    for (uint32_t k = 0; k < 50; k++) {
        e[k] = cxp_lru_insert(&t, (void *)(uintptr_t)(k + 1), &t, 8 * k);
        CHECK(e[k]);
        CHECK(cxp_lru_insert(&t, (void *)(uintptr_t)(k + 101), &t, k << 29 | 1));
    }
    CHECK(cxp_lru_check(&t) == 0);
    for (uint32_t k = 0; k < 50; k += 2) {
        CHECK(!cxp_lru_replace(&t, e[k], (void *)(uintptr_t)(k + 201), &t, 8 * k + 4));
        CHECK(cxp_lru_check(&t) == 0);
    }
    for (uint32_t k = 0; k < 50; k++) {
        uint32_t at, tag = t.entries[e[k * 7 % 50]].tag;
        CHECK(cxp_lru_first(&t, tag, &at) == e[k * 7 % 50]);
        cxp_lru_remove(&t, e[k * 7 % 50]);
        CHECK(cxp_lru_first(&t, tag, &at) == 0);
        CHECK(cxp_lru_check(&t) == 0);
    }
    CHECK(cxp_lru_len(&t) == 50);
    cxp_lru_fini(&t);
}

static void
test_sequence_wraps(void)
{
    cxp_lru_table t;
    cxp_lru_init(&t);
    for (uintptr_t k = 1; k <= 100; k++)
        insert(&t, k);
    t.next_seq = UINT32_MAX - 1;
    for (uintptr_t k = 101; k <= 110; k++)
        CHECK(insert(&t, k));
    uint32_t *order = cxp_lru_in_order(&t);
    for (uintptr_t i = 0; i < 110; i++)
        CHECK((uintptr_t)t.entries[order[i]].key == i + 1);
    free(order);
    CHECK(t.next_seq == 110);
    CHECK(cxp_lru_check(&t) == 0);
    cxp_lru_fini(&t);
}

static void
test_reserve(void)
{
    cxp_lru_table t;
    cxp_lru_init(&t);
    t.limit = 1000;
    CHECK(cxp_lru_reserve(&t, 1000) == 0);
    cxp_lru_prefault(&t);
    size_t bytes = cxp_lru_bytes(&t);
    void *slots = t.slots, *entries = t.entries;
    for (uintptr_t k = 1; k <= 1000; k++)
        CHECK(insert(&t, k));
    CHECK(cxp_lru_bytes(&t) == bytes && t.slots == slots && t.entries == entries);
    CHECK(cxp_lru_check(&t) == 0);
    CHECK(cxp_lru_reserve(&t, UINT32_MAX) == -1);
    cxp_lru_fini(&t);
}

static void
test_detach(void)
{
    cxp_lru_table t, old;
    cxp_lru_init(&t);
    for (uintptr_t k = 1; k <= 50; k++)
        insert(&t, k);
    uint64_t version = t.version;
    cxp_lru_detach(&t, &old);
    CHECK(t.used == 0 && t.version != version && old.used == 50);
    CHECK(find(&t, 3) == 0 && find(&old, 3) != 0);
    CHECK(insert(&t, 3) && cxp_lru_check(&t) == 0 && cxp_lru_check(&old) == 0);
    CHECK(t.inserts == 51);
    cxp_lru_fini(&old);
    cxp_lru_fini(&t);
}

static void
test_memory_is_flat_and_small(void)
{
    enum { N = 1000000 };
    cxp_lru_table t;
    cxp_lru_init(&t);
    t.limit = N;
    for (uintptr_t k = 1; k <= 4 * N; k++) {
        uint32_t tag = cxp_lru_tag(k * 0x9E3779B1u);
        if (t.used == N && k % 2)
            CHECK(!cxp_lru_replace(&t, cxp_lru_oldest(&t), (void *)k, (void *)k, tag));
        else {
            if (t.used == N)
                cxp_lru_remove(&t, cxp_lru_oldest(&t));
            CHECK(cxp_lru_insert(&t, (void *)k, (void *)k, tag));
        }
        if (k == N)
            CHECK(cxp_lru_bytes(&t) < (size_t)50 * N);
    }
    CHECK(cxp_lru_bytes(&t) < (size_t)50 * N);
    CHECK(cxp_lru_check(&t) == 0);
    cxp_lru_fini(&t);
}

/* Random actions against plain arrays, all invariants checked at each step. */
static void
test_random(uint32_t keys, uint32_t steps)
{
    enum { MOST = 256 };
    double due[MOST] = {0}, size[MOST] = {0}, now = 0;
    int in[MOST] = {0};
    uint32_t used = 0;
    cxp_lru_table t;
    cxp_lru_init(&t);
    for (uint32_t step = 0; step < steps; step++) {
        uint32_t k = 1 + below(keys - 1), e = find(&t, k);
        CHECK(!!e == in[k]);
        if (step == steps / 4)
            CHECK(cxp_lru_use_sizes(&t) == 0);
        if (step == steps / 3)
            CHECK(cxp_lru_use_due(&t) == 0);
        switch (below(6)) {
        case 0:
        case 1:
            if (!e && used && below(2)) {
                uint32_t oldest = cxp_lru_oldest(&t);
                in[(uintptr_t)t.entries[oldest].key] = 0;
                void *key = (void *)(uintptr_t)k;
                CHECK(!cxp_lru_replace(&t, oldest, key, key, cxp_lru_tag(hash_of(k))));
                e = oldest;
                in[k] = 1;
                due[k] = size[k] = 0;
            } else if (!e) {
                e = insert(&t, k);
                used++;
                in[k] = 1;
                due[k] = size[k] = 0;
            }
            if (t.sizes) {
                size[k] = below(100);
                cxp_lru_set_size(&t, e, size[k]);
            }
            break;
        case 2:
            if (e) {
                cxp_lru_remove(&t, e);
                used--;
                in[k] = 0;
            }
            break;
        case 3:
            if (e)
                cxp_lru_promote(&t, e);
            break;
        case 4:
            if (e && t.due) {
                due[k] = below(4) ? now + below(1000) + 1 : 0;
                if (due[k] > 0)
                    cxp_lru_set_due(&t, e, due[k]);
                else
                    cxp_lru_no_due(&t, e);
            }
            break;
        default:
            now += below(20);
            while ((e = cxp_lru_first_due(&t, now)) != 0) {
                uintptr_t key = (uintptr_t)t.entries[e].key;
                for (uint32_t other = 1; other < keys; other++)
                    CHECK(!in[other] || due[other] <= 0 || due[other] >= due[key]);
                CHECK(in[key] && due[key] > 0 && due[key] <= now);
                cxp_lru_remove(&t, e);
                used--;
                in[key] = 0;
            }
        }
        double total = 0;
        for (uint32_t i = 1; i < keys; i++)
            total += in[i] ? size[i] : 0;
        CHECK(t.used == used);
        CHECK(!t.sizes || (t.total <= total && t.total >= total));
        CHECK(cxp_lru_check(&t) == 0);
        if (check_failures)
            break;
    }
    cxp_lru_fini(&t);
}

int
main(void)
{
    test_empty();
    test_recency_and_order();
    test_far_from_home();
    test_sequence_wraps();
    test_reserve();
    test_detach();
    test_memory_is_flat_and_small();
    test_random(10, 20000);
    test_random(250, 20000);
    return CHECK_SUMMARY();
}
