#include "check.h"
#include "ctxpool/prefix_blocks.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static uint64_t seed = 88172645463325252u;

static size_t
below(size_t n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (size_t)((seed >> 11) % n);
}

static const cxp_hash KEY = {0x9e3779b97f4a7c15u, 0x1234567890abcdefu};
static const cxp_hash START = {7, 0};

#define SIZE 4u

static uint64_t
made(cxp_prefix_blocks *p, const int32_t *tokens, size_t n, size_t *cached)
{
    int32_t out[64];
    uint64_t handle = UINT64_MAX;
    CHECK(cxp_prefix_allocate(p, START, tokens, n, &handle, out, cached) == 0);
    CHECK(cxp_prefix_check(p) == 0);
    return handle;
}

static void
test_reuse_and_order(void)
{
    cxp_prefix_blocks p;
    const int32_t one[] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
    const int32_t other[] = {9, 9, 9, 9, 8, 8, 8, 8};
    size_t cached;
    CHECK(cxp_prefix_init(&p, 4, SIZE, true, 3, KEY) == 0);
    uint64_t a = made(&p, one, 9, &cached);
    CHECK(cached == 0 && p.nfree == 1 && p.ncached == 2);
    uint64_t b = made(&p, one, 9, &cached);
    CHECK(cached == 2 && p.nfree == 0);
    int32_t out[8];
    uint64_t none;
    CHECK(cxp_prefix_allocate(&p, START, other, 8, &none, out, &cached) == ENOSPC);
    CHECK(cxp_prefix_check(&p) == 0 && p.exhausted == 1);
    cxp_prefix_free(&p, a, UINT32_MAX);
    CHECK(cxp_prefix_find(&p, a) == NULL);
    cxp_prefix_free(&p, b, UINT32_MAX);
    CHECK(p.nfree == 4 && p.ncached == 2 && cxp_prefix_check(&p) == 0);
    /* Two uncached blocks are taken first, then the chain from its end. */
    uint64_t c = made(&p, other, 8, &cached);
    CHECK(cxp_prefix_lookup(&p, START, one, 9) == 2 && p.evictions == 0);
    uint64_t d = made(&p, other + 1, 4, &cached);
    CHECK(cxp_prefix_lookup(&p, START, one, 9) == 1 && p.evictions == 1);
    cxp_prefix_free(&p, c, 1); /* its second block was never computed */
    CHECK(cxp_prefix_lookup(&p, START, other, 8) == 1);
    cxp_prefix_free(&p, d, UINT32_MAX);
    CHECK(cxp_prefix_lookup(&p, (cxp_hash){8, 0}, one, 9) == 0);
    CHECK(cxp_prefix_reset(&p) == 3 && cxp_prefix_check(&p) == 0);
    CHECK(cxp_prefix_lookup(&p, START, one, 9) == 0);
    cxp_prefix_event event;
    uint32_t last = UINT32_MAX, events = 0;
    for (; cxp_prefix_next_event(&p, &event); events++)
        last = event.kind;
    CHECK(events == 3 && last == CXP_PREFIX_CLEARED && p.events_dropped == 5);
    cxp_prefix_fini(&p);
}

static void
test_copy_on_write(void)
{
    cxp_prefix_blocks p;
    const int32_t tokens[] = {1, 2, 3, 4, 5, 6, 7, 8};
    size_t cached;
    uint64_t b;
    int32_t fresh[4];
    cxp_prefix_growth growth;
    CHECK(cxp_prefix_init(&p, 4, SIZE, true, 0, KEY) == 0);
    uint64_t a = made(&p, tokens, 6, &cached);
    CHECK(cxp_prefix_fork(&p, a, &b) == 0 && cxp_prefix_check(&p) == 0);
    cxp_prefix_sequence *s = cxp_prefix_find(&p, a), *t = cxp_prefix_find(&p, b);
    uint32_t tail = s->blocks[1];
    CHECK(t->blocks[1] == tail);
    CHECK(cxp_prefix_wanted(&p, s, 1) == 1);
    CHECK(cxp_prefix_append(&p, s, tokens + 6, 1, fresh, &growth) == 0);
    CHECK(growth.added == 1 && growth.copied_from == tail && s->blocks[1] != tail);
    CHECK(cxp_prefix_wanted(&p, t, 2) == 0);
    CHECK(cxp_prefix_append(&p, t, tokens + 6, 2, fresh, &growth) == 0);
    CHECK(growth.added == 0 && growth.copied_from == 4 && t->blocks[1] == tail);
    /* The second to fill it keeps a private block. */
    CHECK(cxp_prefix_append(&p, s, tokens + 7, 1, fresh, &growth) == 0);
    CHECK(cxp_hash_equal(s->hash, t->hash) && p.ncached == 2);
    CHECK(cxp_prefix_lookup(&p, START, tokens, 8) == 2 && cxp_prefix_check(&p) == 0);
    cxp_prefix_free(&p, a, UINT32_MAX);
    cxp_prefix_free(&p, b, UINT32_MAX);
    CHECK(p.nfree == 4 && cxp_prefix_check(&p) == 0);
    cxp_prefix_fini(&p);
}

static void
test_loose_blocks(void)
{
    cxp_prefix_blocks p;
    int32_t out[3];
    CHECK(cxp_prefix_init(&p, 3, SIZE, false, 0, KEY) == 0);
    CHECK(cxp_prefix_take(&p, 4, out) == ENOSPC && p.nfree == 3);
    CHECK(cxp_prefix_take(&p, 2, out) == 0 && p.nfree == 1);
    const int32_t twice[] = {0, 1, 0}, absent[] = {1, 2}, wild[] = {0, -1},
                  good[] = {1, 0};
    CHECK(cxp_prefix_give(&p, twice, 3) == 2);
    CHECK(cxp_prefix_give(&p, absent, 2) == 1);
    CHECK(cxp_prefix_give(&p, wild, 2) == 1);
    CHECK(p.nfree == 1 && cxp_prefix_check(&p) == 0);
    CHECK(cxp_prefix_give(&p, good, 2) == 2);
    CHECK(p.nfree == 3 && cxp_prefix_check(&p) == 0);
    cxp_prefix_fini(&p);
}

/* Blocks are the size of a token's home, so that a collision can be written down: with
 * verify it is a miss, and never another's block. */
static void
test_collision(void)
{
    for (int verify = 0; verify < 2; verify++) {
        cxp_prefix_blocks p;
        const int32_t one[] = {5, 2},
                      other[] = {4, 5}; /* 6 k + 3 = 5 k + 6 for k = 3 */
        size_t cached;
        CHECK(cxp_prefix_init(&p, 4, 2, verify, 0, (cxp_hash){3, 0}) == 0);
        made(&p, one, 2, &cached);
        CHECK(cxp_prefix_lookup(&p, START, other, 2) == (verify ? 0 : 1));
        made(&p, other, 2, &cached);
        CHECK(cached == (verify ? 0 : 1) && p.ncached == 1);
        CHECK(cxp_prefix_lookup(&p, START, one, 2) == 1);
        cxp_prefix_fini(&p);
    }
}

static void
test_at_random(bool verify)
{
    enum { BLOCKS = 24, MOST = 12, TOKENS = 40 };
    cxp_prefix_blocks p;
    uint64_t handles[MOST];
    size_t lengths[MOST], live = 0, cached;
    int32_t tokens[TOKENS], out[TOKENS];
    cxp_prefix_growth growth;
    cxp_prefix_event event;
    CHECK(cxp_prefix_init(&p, BLOCKS, SIZE, verify, 5, KEY) == 0);
    for (int i = 0; i < 60000; i++) {
        size_t n = below(TOKENS);
        for (size_t j = 0; j < n; j++)
            tokens[j] = (int32_t)below(2) - 1;
        size_t which = live ? below(live) : 0;
        cxp_prefix_sequence *s = live ? cxp_prefix_find(&p, handles[which]) : NULL;
        CHECK(!live || (s && s->tokens == lengths[which]));
        uint32_t nfree = p.nfree;
        int rc = 0;
        switch (below(9)) {
        case 0:
        case 1:
            if (live == MOST)
                break;
            size_t known = cxp_prefix_lookup(&p, START, tokens, n);
            rc =
                cxp_prefix_allocate(&p, START, tokens, n, &handles[live], out, &cached);
            if (rc == 0) {
                CHECK(cached == known);
                lengths[live++] = n;
            }
            break;
        case 2:
        case 3:
            if (!live)
                break;
            rc = cxp_prefix_append(&p, s, tokens, n, out, &growth);
            if (rc == 0)
                lengths[which] += n;
            break;
        case 4:
            if (live && live < MOST) {
                CHECK(cxp_prefix_fork(&p, handles[which], &handles[live]) == 0);
                lengths[live++] = lengths[which];
            }
            break;
        case 5:
        case 6:
            if (!live)
                break;
            uint64_t gone = handles[which];
            cxp_prefix_free(&p, gone, (uint32_t)(below(2) ? UINT32_MAX : below(5)));
            CHECK(!cxp_prefix_find(&p, gone));
            live--;
            handles[which] = handles[live];
            lengths[which] = lengths[live];
            break;
        case 7:
            CHECK(cxp_prefix_touch(&p, START, tokens, n) ==
                  cxp_prefix_lookup(&p, START, tokens, n));
            break;
        default:
            if (below(40) == 0)
                cxp_prefix_reset(&p);
            cxp_prefix_next_event(&p, &event);
            if (cxp_prefix_take(&p, 3, out) == 0) {
                const int32_t back[] = {out[2], out[0], out[1]};
                CHECK(cxp_prefix_give(&p, back, 3) == 3);
            }
        }
        CHECK(rc == 0 || (rc == ENOSPC && p.nfree == nfree));
        int line = cxp_prefix_check(&p);
        CHECK(line == 0);
        if (check_failures)
            break;
    }
    CHECK(p.evictions && p.hit_tokens && p.exhausted && p.events_dropped);
    cxp_prefix_fini(&p);
}

static void
test_too_much(void)
{
    cxp_prefix_blocks p;
    CHECK(cxp_prefix_init(&p, 1, 1, false, SIZE_MAX / 8, KEY) == -1);
}

int
main(void)
{
    test_reuse_and_order();
    test_copy_on_write();
    test_loose_blocks();
    test_collision();
    test_at_random(false);
    test_at_random(true);
    test_too_much();
    return CHECK_SUMMARY();
}
