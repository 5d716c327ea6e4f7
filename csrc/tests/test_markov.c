#include <ctxpool/markov.h>

#include "check.h"

enum { RATES = CXP_MARKOV_RATES * 2 * (CXP_MARKOV_MAX_ORDER + 1) };
static double hits[RATES], tries[RATES];
static uint32_t seed = 12345;

static uint32_t
below(uint32_t n)
{
    seed = seed * 1664525u + 1013904223u;
    return (seed >> 8) % n;
}

static int
begin(cxp_markov *m, uint32_t order, uint32_t contexts, uint32_t successors)
{
    return cxp_markov_init(m, order, contexts, successors, hits, tries);
}

static uint32_t
find(const cxp_markov *m, uintptr_t key)
{
    uint32_t at, tag = cxp_lru_tag(key);
    uint32_t id = cxp_lru_first(&m->keys, tag, &at);
    while (id && (uintptr_t)m->keys.entries[id].key != key)
        id = cxp_lru_next(&m->keys, tag, &at);
    return id;
}

static void
note(cxp_markov *m, uintptr_t key)
{
    uint32_t id = find(m, key);
    if (!id)
        id = cxp_markov_add(m, (void *)key, cxp_lru_tag(key));
    CHECK(id);
    cxp_markov_record(m, id, id);
    void *gone;
    while ((gone = cxp_markov_take_unused(m)))
        CHECK(!find(m, (uintptr_t)gone));
}

static uintptr_t
best(cxp_markov *m, double *chance)
{
    cxp_markov_place at = m->here;
    if (!cxp_markov_predict(m, &at, 1))
        return 0;
    *chance = m->guesses[0].chance;
    return (uintptr_t)m->keys.entries[m->guesses[0].id].key;
}

static void
test_empty(void)
{
    cxp_markov m;
    double chance;
    CHECK(begin(&m, 3, 10, 4) == 0);
    CHECK(best(&m, &chance) == 0);
    CHECK(cxp_markov_len(&m) == 0);
    CHECK(cxp_markov_take_unused(&m) == NULL);
    CHECK(cxp_markov_check(&m) == 0);
    cxp_markov_fini(&m);
}

static void
test_a_cycle_becomes_certain(void)
{
    cxp_markov m;
    double chance = 0;
    CHECK(begin(&m, 3, 1000, 16) == 0);
    for (uintptr_t i = 0; i < 5000; i++)
        note(&m, i % 50 + 1);
    CHECK(best(&m, &chance) == 1);
    CHECK(chance > 0.95 && chance < 1);
    note(&m, 1);
    CHECK(best(&m, &chance) == 2);
    cxp_markov_forget_place(&m);
    note(&m, 7);
    CHECK(best(&m, &chance) == 8);
    cxp_markov_fini(&m);
}

static void
test_a_longer_context_decides(void)
{
    cxp_markov m;
    double chance = 0;
    const char *text = "abcxbd";
    CHECK(begin(&m, 2, 100, 4) == 0);
    for (int i = 0; i < 600; i++)
        note(&m, (uintptr_t)text[i % 6]);
    note(&m, 'a');
    note(&m, 'b');
    CHECK(best(&m, &chance) == 'c');
    note(&m, 'x');
    note(&m, 'b');
    CHECK(best(&m, &chance) == 'd');
    cxp_markov_fini(&m);
}

/* Keys that nothing names go, and the bound holds. */
static void
test_memory_is_bounded(void)
{
    cxp_markov m;
    CHECK(begin(&m, 2, 50, 4) == 0);
    for (uintptr_t i = 1; i < 100000; i++)
        note(&m, below(2) ? i : below(100) + 1);
    CHECK(cxp_markov_len(&m) == 100);
    CHECK(m.keys.used <= 50 * (4 + 1) + 50 * (4 + 2) + 4 + 2);
    CHECK(cxp_markov_check(&m) == 0);
    cxp_markov_fini(&m);
}

static void
test_whatever_happens(uint32_t order, uint32_t contexts, uint32_t successors,
                      uint32_t keys)
{
    cxp_markov m;
    CHECK(begin(&m, order, contexts, successors) == 0);
    for (int i = 0; i < 3000; i++) {
        uint32_t run = below(8);
        if (!run)
            cxp_markov_forget_place(&m);
        else if (run == 1)
            for (uintptr_t k = 1; k < 9; k++)
                note(&m, k);
        else
            note(&m, below(below(keys) + 1) + 1);
        cxp_markov_place at = m.here;
        if (!below(3))
            cxp_markov_push(&at, order, below(2) ? 0 : m.here.recent[0]);
        uint32_t n = cxp_markov_predict(&m, &at, 1 + below(40));
        double sum = 0;
        for (uint32_t g = 0; g < n; g++) {
            sum += m.guesses[g].chance;
            CHECK(m.guesses[g].chance > 0 && m.guesses[g].chance < 1);
            CHECK(!g || m.guesses[g].chance <= m.guesses[g - 1].chance);
            for (uint32_t h = 0; h < g; h++)
                CHECK(m.guesses[g].id != m.guesses[h].id);
        }
        CHECK(sum < 1 + 1e-9);
        CHECK(cxp_markov_check(&m) == 0);
    }
    cxp_markov_fini(&m);
}

static void
test_save_and_load(void)
{
    cxp_markov m, copy;
    CHECK(begin(&m, 3, 20, 5) == 0);
    for (int i = 0; i < 2000; i++)
        note(&m, below(below(30) + 1) + 1);
    size_t length, again;
    uint32_t ids[200], keys = 0, *saved = cxp_markov_save(&m, &length);
    CHECK(begin(&copy, 3, 20, 5) == 0);
    for (uint32_t id = 1; id <= m.keys.high; id++)
        if (m.keys.entries[id].key) {
            ids[keys] =
                cxp_markov_add(&copy, m.keys.entries[id].key, m.keys.entries[id].tag);
            cxp_markov_use(&copy, ids[keys++]);
        }
    CHECK(cxp_markov_load(&copy, saved, length, ids, keys) == 0);
    for (uint32_t i = 0; i < keys; i++)
        cxp_markov_release(&copy, ids[i]);
    CHECK(cxp_markov_check(&copy) == 0);
    uint32_t *resaved = cxp_markov_save(&copy, &again);
    CHECK(again == length && !memcmp(saved, resaved, length * sizeof *saved));
    for (int i = 0; i < 500; i++) {
        cxp_markov_fini(&copy);
        CHECK(begin(&copy, 3, 20, 5) == 0);
        for (uint32_t k = 0; k < keys; k++)
            ids[k] = cxp_markov_add(&copy, (void *)(uintptr_t)(k + 1), k);
        for (uint32_t k = 0; k < keys; k++)
            cxp_markov_use(&copy, ids[k]);
        memcpy(resaved, saved, length * sizeof *saved);
        resaved[below((uint32_t)length)] =
            below(2) ? below(300) : UINT32_MAX - below(3);
        (void)cxp_markov_load(&copy, resaved, length - below(3), ids, keys);
        for (uint32_t k = 0; k < keys; k++)
            cxp_markov_release(&copy, ids[k]);
        CHECK(cxp_markov_check(&copy) == 0);
    }
    free(saved);
    free(resaved);
    cxp_markov_fini(&copy);
    cxp_markov_fini(&m);
}

int
main(void)
{
    for (int i = 0; i < RATES; i++) {
        hits[i] = 1;
        tries[i] = 2;
    }
    test_empty();
    test_a_cycle_becomes_certain();
    test_a_longer_context_decides();
    test_memory_is_bounded();
    test_whatever_happens(1, 1, 1, 5);
    test_whatever_happens(2, 10, 3, 20);
    test_whatever_happens(3, 40, 16, 60);
    test_whatever_happens(8, 30, 128, 300);
    test_save_and_load();
    return CHECK_SUMMARY();
}
