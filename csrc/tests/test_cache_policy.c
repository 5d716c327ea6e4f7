/* Random actions on each policy, all invariants after each. */
#include "ctxpool/cache_policy.h"

#include "check.h"

enum { KEYS = 300, STEPS = 20000 };

static uint32_t
dice(uint32_t *state, uint32_t sides)
{
    *state = *state * 1664525u + 1013904223u;
    return (uint32_t)((uint64_t)(*state >> 8) * sides >> 24);
}

static uint32_t
find(cxp_lru_table *t, uintptr_t key)
{
    uint32_t at, e = cxp_lru_first(t, cxp_lru_tag(key), &at);
    while (e && t->entries[e].key != (void *)key)
        e = cxp_lru_next(t, cxp_lru_tag(key), &at);
    return e;
}

static void
test_random(uint32_t kind, uint32_t capacity)
{
    cxp_lru_table t;
    cxp_policy p;
    cxp_lru_init(&t);
    cxp_policy_init(&p, kind);
    t.policy = &p;
    t.limit = capacity;
    uint32_t state = kind + capacity;
    for (int step = 0; step < STEPS; step++) {
        uintptr_t key = 1 + dice(&state, dice(&state, 3) ? KEYS / 10 : KEYS);
        uint32_t e = find(&t, key), action = dice(&state, 100);
        if (action == 0 && e)
            cxp_cache_remove(&t, e);
        else if (action == 1 && t.used)
            cxp_cache_remove(&t, cxp_cache_victim(&t));
        else if (action == 2 && !dice(&state, 20)) {
            cxp_lru_table old;
            cxp_cache_detach(&t, &old);
            CHECK(!old.policy && t.policy == &p && !t.used);
            cxp_lru_fini(&old);
        } else if (e)
            cxp_cache_use(&t, e);
        else if (t.used < capacity)
            CHECK(cxp_cache_insert(&t, (void *)key, &t, cxp_lru_tag(key)));
        else {
            uint32_t victim = cxp_cache_victim(&t);
            CHECK(t.entries[victim].key);
            CHECK(!cxp_cache_replace(&t, victim, (void *)key, &t, cxp_lru_tag(key)));
            CHECK(find(&t, key));
        }
        CHECK(t.used <= capacity);
        CHECK(cxp_lru_check(&t) == 0);
        CHECK(cxp_policy_check(&p, &t) == 0);
        if (check_failures)
            break;
    }
    uint32_t marks[KEYS + 2] = {0};
    for (uint32_t e = 1; e <= t.high; e++)
        marks[e] = t.entries[e].key ? cxp_policy_mark(&p, e) : 0;
    cxp_policy_restore(&p, &t, marks);
    CHECK(cxp_policy_check(&p, &t) == 0);
    for (uint32_t e = 1; e <= t.high; e++)
        CHECK(!t.entries[e].key || marks[e] == cxp_policy_mark(&p, e));
    memset(marks, 0xff, sizeof marks); /* marks that nobody made */
    cxp_policy_restore(&p, &t, marks);
    CHECK(cxp_policy_check(&p, &t) == 0);
    cxp_policy_reset(&p);
    cxp_lru_fini(&t);
}

/* Large enough for a sample of the keys, which shrinks as the cache fills: loops that
 * LRU loses, draws that it wins, and removals in between. */
static void
test_sample(uint32_t kind)
{
    enum { ROOM = 3000, ROUNDS = 90000 };
    cxp_lru_table t;
    cxp_policy p;
    cxp_lru_init(&t);
    cxp_policy_init(&p, kind);
    t.policy = &p;
    uint32_t state = 7, chosen = 0;
    for (uint32_t step = 0; step < ROUNDS; step++) {
        uintptr_t key = 1 + step % 4000;
        if (step / 30000 == 1)
            key = 1 + step / 8 + dice(&state, 2500);
        uint32_t e = find(&t, key);
        if (e && !dice(&state, 500))
            cxp_cache_remove(&t, e);
        else if (e)
            cxp_cache_use(&t, e);
        else {
            if (t.used == ROOM)
                cxp_cache_remove(&t, cxp_cache_victim(&t));
            CHECK(cxp_cache_insert(&t, (void *)key, &t, cxp_lru_tag(key)));
        }
        chosen |= 1u << p.tiny.shadows.chosen;
        if (step % 97 == 0)
            CHECK(cxp_lru_check(&t) == 0 && cxp_policy_check(&p, &t) == 0);
        if (check_failures)
            break;
    }
    if (kind == CXP_ADAPTIVE) {
        CHECK(p.tiny.shadows.log == 3);
        CHECK(chosen & 1 && chosen & 6);
        for (uint32_t x = 0; x < CXP_EXPERTS; x++) {
            const uint32_t *count = p.tiny.shadows.count[x];
            CHECK(count[0] + count[1] + count[2] <= ROOM >> 3);
        }
    }
    cxp_policy_reset(&p);
    cxp_lru_fini(&t);
}

/* Preallocated, nothing grows any more. */
static void
test_preallocated(uint32_t kind)
{
    cxp_lru_table t;
    cxp_policy p;
    cxp_lru_init(&t);
    cxp_policy_init(&p, kind);
    t.policy = &p;
    CHECK(!cxp_lru_reserve(&t, 5000) && !cxp_policy_preallocate(&p, &t));
    size_t bytes = cxp_policy_bytes(&p);
    uint32_t state = 3;
    for (uintptr_t step = 1; step < 60000; step++) {
        uintptr_t key = step & 1 ? step : 1 + dice(&state, 9000);
        uint32_t e = find(&t, key);
        if (e) {
            cxp_cache_use(&t, e);
            continue;
        }
        if (t.used == 5000)
            cxp_cache_remove(&t, cxp_cache_victim(&t));
        CHECK(cxp_cache_insert(&t, (void *)key, &t, cxp_lru_tag(key)));
    }
    CHECK(cxp_policy_bytes(&p) == bytes);
    cxp_policy_reset(&p);
    cxp_lru_fini(&t);
}

/* Growth forgets nothing; aging halves all, a block at a time. */
static void
test_sketch(void)
{
    cxp_sketch s = {0};
    CHECK(!cxp_sketch_reserve(&s, 1000));
    cxp_sketch_grow(&s, 1);
    CHECK(s.blocks == 1);
    for (uint32_t tag = 0; tag < 40; tag++)
        cxp_sketch_raise(&s, cxp_sketch_mix(tag), 1 + tag % 15);
    for (uint32_t n = 2; n <= 1000; n += 7) {
        cxp_sketch_grow(&s, n);
        CHECK(s.blocks == cxp_sketch_blocks_for(n));
        for (uint32_t tag = 0; tag < 40; tag++)
            CHECK(cxp_sketch_estimate(&s, cxp_sketch_mix(tag)) >= 1 + tag % 15);
    }
    cxp_count c = cxp_count_of(&s, 2, 12);
    s.accesses = 9999;
    for (uint32_t i = 0; i <= s.blocks; i++)
        cxp_sketch_tick(&s, 1000);
    CHECK(s.sweep == s.blocks && s.accesses == 5000 + s.blocks && s.epoch == 1);
    CHECK(cxp_count_frequency(&s, c) == 6 && (c & 3) == 2);
    for (uint32_t tag = 0; tag < 1000; tag++)
        CHECK(cxp_sketch_estimate(&s, cxp_sketch_mix(tag)) <= 7);
    s.epoch = 1024;
    c = cxp_count_of(&s, 1, 15);
    s.epoch += 9;
    CHECK(cxp_count_frequency(&s, c) == 0);
    free(s.words);
}

/* A tie is lost, but now and then by one in demand. */
static void
test_admission(void)
{
    cxp_tiny w;
    cxp_tiny_init(&w, 0);
    int admitted = 0;
    for (int i = 0; i < 12800; i++) {
        CHECK(cxp_tiny_admits_(&w, 5, 4) && !cxp_tiny_admits_(&w, 5, 5));
        admitted += cxp_tiny_admits_(&w, 10, 15);
    }
    CHECK(admitted > 50 && admitted < 150);
}

/* Those that died last are known, but for a few that share a bucket; older ones never.
 */
static void
test_ghosts(void)
{
    cxp_ghosts g = {0};
    CHECK(!cxp_ghosts_take(&g, 6, 100));
    for (uint32_t tag = 0; tag < 1000; tag++)
        cxp_ghosts_add(&g, tag * 1024, 100);
    CHECK(cxp_ghosts_check(&g) == 0);
    CHECK(!cxp_ghosts_take(&g, 899 * 1024, 100));
    CHECK(cxp_ghosts_take(&g, 999 * 1024, 100));
    CHECK(!cxp_ghosts_take(&g, 999 * 1024, 100));
    int known = 0;
    for (uint32_t tag = 0; tag < 999; tag++)
        known += cxp_ghosts_take(&g, tag * 1024, 100);
    CHECK(known >= 95 && known <= 99);
    for (uint32_t tag = 1; tag <= 50; tag++)
        cxp_ghosts_add(&g, tag, 100);
    known = 0;
    cxp_ghosts_add(&g, 51, 5000); /* more buckets: none is lost, none is in two */
    CHECK(g.count == cxp_ghosts_wanted(5000) && cxp_ghosts_check(&g) == 0);
    for (uint32_t tag = 1; tag <= 51; tag++)
        known += cxp_ghosts_take(&g, tag, 5000);
    CHECK(known >= 49);
    g.now = UINT32_MAX; /* the count of deaths starts again */
    cxp_ghosts_add(&g, 7, 100);
    CHECK(g.now == 1 && cxp_ghosts_take(&g, 7, 100));
    cxp_ghosts_add(&g, 8, 100);
    CHECK(!cxp_ghosts_take(&g, 8, 0));
    cxp_ghosts_reset(&g);
}

int
main(void)
{
    for (uint32_t kind = 0; kind < CXP_POLICIES; kind++) {
        test_random(kind, 1);
        test_random(kind, 7);
        test_random(kind, 100);
    }
    test_sample(CXP_ADAPTIVE);
    test_sample(CXP_TINYLFU);
    test_preallocated(CXP_ADAPTIVE);
    test_preallocated(CXP_TINYLFU);
    test_sketch();
    test_admission();
    test_ghosts();
    return CHECK_SUMMARY();
}
