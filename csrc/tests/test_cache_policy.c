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

/* The oldest ghosts go first, and one that is taken makes room. */
static void
test_ghosts(void)
{
    cxp_ghosts g = {0};
    for (uint32_t tag = 0; tag < 1000; tag++)
        cxp_ghosts_add(&g, tag * 1024, 100);
    CHECK(g.used == 100);
    CHECK(!cxp_ghosts_take(&g, 899 * 1024));
    CHECK(cxp_ghosts_take(&g, 950 * 1024));
    CHECK(!cxp_ghosts_take(&g, 950 * 1024));
    cxp_ghosts_add(&g, 5, 100);
    CHECK(cxp_ghosts_take(&g, 900 * 1024));
    cxp_ghosts_add(&g, 5, 3);
    CHECK(g.used == 3);
    cxp_ghosts_add(&g, 6, 0);
    CHECK(g.used == 0 && !cxp_ghosts_take(&g, 6));
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
    test_ghosts();
    return CHECK_SUMMARY();
}
