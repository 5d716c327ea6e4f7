#include "check.h"
#include "ctxpool/token_ring.h"

#include <pthread.h>
#include <string.h>

/* ---- a plain model: every token in one long array, moved about by memmove ---- */

#define MODEL_MAX 512

typedef struct {
    int64_t tokens[MODEL_MAX];
    size_t len, capacity, sink, step;
    uint64_t position, evicted;
} model;

static void
model_remove(model *m, size_t at)
{
    memmove(m->tokens + at, m->tokens + at + 1, (m->len - at - 1) * sizeof *m->tokens);
    m->len--;
}

static void
model_append(model *m, int64_t token)
{
    if (m->len == m->capacity) {
        for (size_t i = 0; i < m->step; i++)
            model_remove(m, m->sink);
        m->evicted += m->step;
    }
    m->tokens[m->len++] = token;
    m->position++;
}

static uint64_t seed = 88172645463325252u;

static size_t
below(size_t n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (size_t)((seed >> 11) % n);
}

/* ---- what was shown, with a copy of it ---- */

#define SHOWN_MAX 64

typedef struct {
    cxp_gen *gen;
    size_t section;
    const char *data;
    size_t nbytes;
    char *copy;
} shown;

static void
shown_end(shown *s)
{
    if (!s->gen)
        return;
    CHECK(memcmp(s->data, s->copy, s->nbytes) == 0);
    free(s->copy);
    cxp_gen_drop(s->gen, s->section);
    s->gen = NULL;
}

static void
shown_begin(shown *s, cxp_ring *ring)
{
    shown_end(s);
    s->data = ring->data + ring->start * ring->size;
    s->nbytes = (ring->w - ring->start) * ring->size;
    s->copy = malloc(s->nbytes + 1);
    memcpy(s->copy, s->data, s->nbytes);
    s->gen = ring->gen;
    s->section = cxp_ring_section(ring);
    cxp_gen_hold(s->gen, s->section);
    cxp_ring_show(ring, ring->w);
}

static int64_t
token_for(const cxp_ring *ring)
{
    uint64_t bits = seed ^ (seed << 21);
    return (int64_t)((uint64_t)ring->least +
                     (ring->span + 1 ? bits % (ring->span + 1) : bits));
}

static int
append(cxp_ring *ring, int64_t token)
{
    if (cxp_ring_push(ring, token))
        return 0;
    char bytes[8];
    cxp_token_write(bytes, ring->size, (uint64_t)token);
    return cxp_ring_extend(ring, bytes, 1, cxp_ring_overflow(ring, 1));
}

static int
extend(cxp_ring *ring, const int64_t *tokens, size_t m)
{
    char bytes[MODEL_MAX * 8];
    char *to = cxp_ring_tail(ring, m);
    if (!to || below(2))
        to = bytes;
    for (size_t i = 0; i < m; i++)
        cxp_token_write(to + i * ring->size, ring->size, (uint64_t)tokens[i]);
    if ((to != bytes || below(2)) && cxp_ring_fast(ring, to, m))
        return 0;
    return cxp_ring_extend(ring, to, m, cxp_ring_overflow(ring, m));
}

static void
check_ring(const cxp_ring *ring)
{
    int line = cxp_ring_check(ring);
    if (line)
        fprintf(stderr, "token_ring.h:%d does not hold\n", line);
    CHECK(line == 0);
}

static void
compare(const cxp_ring *ring, const model *m)
{
    check_ring(ring);
    CHECK(cxp_ring_len(ring) == m->len);
    CHECK(cxp_ring_position(ring) == m->position);
    CHECK(ring->evicted == m->evicted);
    for (size_t i = 0; i < m->len && i < cxp_ring_len(ring); i++)
        CHECK((int64_t)cxp_ring_load(ring, cxp_ring_at(ring, i)) == m->tokens[i]);
}

static void
random_run(bool compact, bool hold)
{
    model m = {.capacity = 1 + below(150)};
    m.sink = below(2) ? 0 : below(m.capacity);
    m.step = compact ? 1 + below(m.capacity - m.sink) : 1;
    size_t slack = 1 + below(below(2) ? 4 : 1000);
    unsigned size = 1u << below(4);
    cxp_ring ring;
    CHECK(cxp_ring_init(&ring, m.capacity, slack, m.sink, m.step, compact, size,
                        below(2)) == 0);
    shown shows[SHOWN_MAX] = {0};
    uint64_t token = 0, expected = 0;
    int64_t tokens[MODEL_MAX];

    for (int step = 0; step < 400 && !check_failures; step++) {
        switch (below(10)) {
        case 0:
            CHECK(cxp_ring_pop(&ring, &token) == (m.len == 0));
            if (m.len) {
                expected = (uint64_t)m.tokens[--m.len];
                m.position--;
                CHECK(token == expected);
            }
            break;
        case 1:
            if (m.len > m.sink) {
                expected = (uint64_t)m.tokens[m.sink];
                model_remove(&m, m.sink);
                CHECK(cxp_ring_popleft(&ring, &token) == 0);
                CHECK(token == expected);
            } else {
                CHECK(cxp_ring_popleft(&ring, &token) == 1);
            }
            break;
        case 2:
            if (below(20) == 0) {
                CHECK(cxp_ring_clear(&ring) == 0);
                m.len = 0;
            }
            break;
        case 3:
        case 4:
            if (hold)
                shown_begin(&shows[below(SHOWN_MAX)], &ring);
            break;
        case 5:
        case 6: {
            size_t n = below(below(3) ? 20 : MODEL_MAX - 160);
            for (size_t i = 0; i < n; i++) {
                tokens[i] = (below(9), token_for(&ring));
                model_append(&m, tokens[i]);
            }
            CHECK(extend(&ring, tokens, n) == 0);
            break;
        }
        default:
            for (size_t n = below(100); n; n--) {
                int64_t t = (below(9), token_for(&ring));
                CHECK(append(&ring, t) == 0);
                model_append(&m, t);
                check_ring(&ring);
            }
        }
        compare(&ring, &m);
    }
    if (below(2)) {
        cxp_ring_fini(&ring); /* what was shown outlives the ring */
        ring.gen = NULL;
    }
    for (size_t i = 0; i < SHOWN_MAX; i++)
        shown_end(&shows[i]);
    if (ring.gen)
        cxp_ring_fini(&ring);
}

static void
test_random_actions_against_the_model(void)
{
    for (int run = 0; run < 1500 && !check_failures; run++)
        random_run(run & 1, run & 2);
}

static void
test_a_push_out_of_range_does_nothing(void)
{
    cxp_ring ring;
    CHECK(cxp_ring_init(&ring, 4, 4, 0, 1, false, 1, true) == 0);
    CHECK(cxp_ring_push(&ring, 127) && cxp_ring_push(&ring, -128));
    CHECK(!cxp_ring_push(&ring, 128) && !cxp_ring_push(&ring, -129));
    CHECK(cxp_ring_len(&ring) == 2);
    cxp_ring_fini(&ring);
    CHECK(cxp_ring_init(&ring, 4, 4, 0, 1, false, 8, false) == 0);
    CHECK(cxp_ring_push(&ring, INT64_MAX) && !cxp_ring_push(&ring, -1));
    cxp_ring_fini(&ring);
}

static void
test_two_buffers_serve_for_ever_when_nobody_holds_one(void)
{
    cxp_ring ring;
    CHECK(cxp_ring_init(&ring, 100, 100, 0, 1, false, 4, true) == 0);
    cxp_gen *first = ring.gen, *second = ring.home->spare;
    for (int i = 0; i < 10000; i++) {
        CHECK(append(&ring, i) == 0);
        CHECK(ring.gen == first || ring.gen == second);
    }
    CHECK(ring.generations > 50);
    CHECK(cxp_ring_bytes(&ring) == 2 * 200 * 4);
    cxp_ring_fini(&ring);
}

/* The newest is held until there is a newer one, as by `view = window.view()`. */
static void
test_with_slack_one_buffer_serves_for_ever(void)
{
    for (size_t capacity = 1; capacity < 3000; capacity = capacity * 3 / 2 + 1) {
        for (size_t m = 1; m <= capacity; m += capacity / 3 + 1) {
            cxp_ring ring;
            int64_t tokens[MODEL_MAX] = {0};
            shown newest = {0};
            CHECK(cxp_ring_init(&ring, capacity, 3 * capacity, 0, 1, false, 4, true) ==
                  0);
            cxp_gen *only = ring.gen;
            for (size_t i = 0; i < 30000 && !check_failures; i += m) {
                if (m == 1)
                    CHECK(append(&ring, (int64_t)i) == 0);
                else
                    CHECK(extend(&ring, tokens, m < MODEL_MAX ? m : MODEL_MAX) == 0);
                if (capacity >= 64 && 4 * m < capacity) {
                    shown_begin(&newest, &ring);
                    CHECK(ring.gen == only);
                }
                check_ring(&ring);
            }
            if (capacity >= 64 && 4 * m < capacity)
                CHECK(cxp_ring_bytes(&ring) == 4 * capacity * 4);
            shown_end(&newest);
            cxp_ring_fini(&ring);
        }
    }
}

static void
test_what_is_held_for_long_is_gone_round(void)
{
    cxp_ring ring;
    shown old = {0};
    CHECK(cxp_ring_init(&ring, 100, 300, 0, 1, false, 4, true) == 0);
    for (int i = 0; i < 20000; i++) {
        CHECK(append(&ring, i) == 0);
        check_ring(&ring);
        if (i % 1777 == 500) /* and ends the one before */
            shown_begin(&old, &ring);
        for (size_t k = 0; k < cxp_ring_len(&ring); k++)
            CHECK((int64_t)cxp_ring_load(&ring, cxp_ring_at(&ring, k)) ==
                  i + 1 - (int64_t)cxp_ring_len(&ring) + (int64_t)k);
    }
    shown_end(&old);
    CHECK(cxp_ring_bytes(&ring) <= 2 * 400 * 4);
    cxp_ring_fini(&ring);
}

static void
test_no_append_copies_more_than_two_batches(void)
{
    for (size_t slack = 50; slack <= 2000; slack += 150) {
        cxp_ring ring;
        CHECK(cxp_ring_init(&ring, 1000, slack, 0, 1, false, 4, true) == 0);
        for (int i = 0; i < 20000; i++) {
            uint64_t generations = ring.generations;
            size_t copied = ring.copied;
            CHECK(append(&ring, i) == 0);
            size_t now = ring.generations == generations ? ring.copied : ring.carry;
            CHECK(now - copied <= (2 * CXP_RING_BATCH + 1) * ring.rate);
        }
        cxp_ring_fini(&ring);
    }
}

static void
test_a_pop_is_seen_by_who_watches(void)
{
    cxp_ring ring;
    uint64_t token;
    CHECK(cxp_ring_init(&ring, 4, 4, 0, 1, false, 4, true) == 0);
    for (int i = 0; i < 6; i++)
        CHECK(append(&ring, i) == 0);
    cxp_watch watch = {UINT64_MAX, NULL};
    ring.watches = &watch;
    CHECK(cxp_ring_pop(&ring, &token) == 0 && token == 5);
    CHECK(append(&ring, 9) == 0 && watch.low == 5);
    ring.watches = NULL;
    cxp_ring_fini(&ring);
}

static void
test_find(void)
{
    cxp_ring ring;
    for (unsigned size = 1; size <= 8; size *= 2) {
        CHECK(cxp_ring_init(&ring, 100, 4, 0, 1, false, size, true) == 0);
        for (int i = 0; i < 100; i++)
            CHECK(append(&ring, -i) == 0);
        CHECK(cxp_ring_find(&ring, ring.data, 100, (uint64_t)-7) == 7);
        CHECK(cxp_ring_find(&ring, ring.data, 7, (uint64_t)-7) == 7);
        CHECK(cxp_ring_find(&ring, ring.data, 100, 1) == 100);
        cxp_ring_fini(&ring);
    }
}

/* ---- what was shown is dropped by another thread, while the ring goes on and ends
 * ---- */

#define HANDED 8

typedef struct {
    cxp_gen *gen;
    size_t section;
} hold;

static void *
drop_all(void *arg)
{
    hold *handed = arg;
    for (int i = 0; i < HANDED; i++)
        cxp_gen_drop(handed[i].gen, handed[i].section);
    return NULL;
}

static void
test_any_thread_may_drop_what_was_shown(void)
{
    for (int round = 0; round < 300; round++) {
        cxp_ring ring;
        hold handed[HANDED];
        pthread_t thread;
        CHECK(cxp_ring_init(&ring, 10, round & 1 ? 10 : 30, 0, 1, false, 4, true) == 0);
        for (int i = 0; i < HANDED * 15; i++) {
            CHECK(append(&ring, i) == 0);
            if (i % 15 == 0) {
                handed[i / 15] = (hold){ring.gen, cxp_ring_section(&ring)};
                cxp_gen_hold(ring.gen, cxp_ring_section(&ring));
                cxp_ring_show(&ring, ring.w);
            }
        }
        CHECK(pthread_create(&thread, NULL, drop_all, handed) == 0);
        for (int i = 0; i < round % 100; i++)
            CHECK(append(&ring, i) == 0);
        cxp_ring_fini(&ring);
        pthread_join(thread, NULL);
    }
}

static void
test_impossible_sizes_are_refused(void)
{
    cxp_ring ring;
    CHECK(cxp_ring_init(&ring, SIZE_MAX / 2, 1, 0, 1, false, 8, true) == -1);
    CHECK(cxp_ring_init(&ring, 10, SIZE_MAX - 2, 0, 1, false, 1, true) == -1);
    CHECK(cxp_ring_len(&ring) == 0 && !cxp_ring_push(&ring, 1));
    cxp_ring_fini(&ring);
}

int
main(void)
{
    test_random_actions_against_the_model();
    test_a_push_out_of_range_does_nothing();
    test_two_buffers_serve_for_ever_when_nobody_holds_one();
    test_with_slack_one_buffer_serves_for_ever();
    test_what_is_held_for_long_is_gone_round();
    test_no_append_copies_more_than_two_batches();
    test_a_pop_is_seen_by_who_watches();
    test_find();
    test_any_thread_may_drop_what_was_shown();
    test_impossible_sizes_are_refused();
    return CHECK_SUMMARY();
}
