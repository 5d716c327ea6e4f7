#include "check.h"
#include "ctxpool/token_hash.h"

static uint64_t seed = 88172645463325252u;

static uint64_t
next(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed;
}

/* Some numbers near the ends, where carries are lost if any are. */
static cxp_hash
number(void)
{
    switch (next() % 4) {
    case 0:
        return cxp_hash_reduce(CXP_HASH_PRIME - 1 - next() % 3);
    case 1:
        return (cxp_hash){next() % 3, 0};
    default:
        return cxp_hash_reduce((cxp_u128)next() << 64 | next());
    }
}

static cxp_hash
add(cxp_hash a, cxp_hash b)
{
    return cxp_hash_reduce(cxp_hash_fold(cxp_hash_wide(a)) + cxp_hash_wide(b));
}

/* By doubling and adding, bit by bit. */
static cxp_hash
slow_multiply(cxp_hash a, cxp_hash b)
{
    cxp_hash product = {0, 0};
    for (int bit = 126; bit >= 0; bit--) {
        product = add(product, product);
        if (cxp_hash_wide(b) >> bit & 1)
            product = add(product, a);
    }
    return product;
}

static void
test_multiply(void)
{
    for (int i = 0; i < 20000; i++) {
        cxp_hash a = number(), b = number();
        cxp_hash c = cxp_hash_multiply(a, b);
        CHECK(cxp_hash_wide(c) < CXP_HASH_PRIME);
        CHECK(cxp_hash_equal(c, slow_multiply(a, b)));
    }
}

/* In one call, in several, and token by token as the polynomial says. */
static void
test_extend(void)
{
    enum { N = 100 };
    static cxp_hash powers[N + 1];
    int32_t tokens[N];
    for (int round = 0; round < 500; round++) {
        cxp_hash key = number(), start = number(), slow = start, parts = start;
        cxp_hash_powers(powers, N, key);
        for (int i = 0; i < N; i++) {
            tokens[i] = round % 3 ? (int32_t)(uint32_t)next() : -1;
            uint64_t token = (uint64_t)(uint32_t)tokens[i] + 1;
            slow = add(slow_multiply(slow, key), (cxp_hash){token, 0});
        }
        for (size_t done = 0, part; done < N; done += part) {
            part = (size_t)next() % (N - done) + 1;
            parts = cxp_hash_extend(parts, powers, tokens + done, part);
        }
        CHECK(cxp_hash_equal(slow, parts));
        CHECK(cxp_hash_equal(slow, cxp_hash_extend(start, powers, tokens, N)));
        CHECK(cxp_hash_equal(start, cxp_hash_extend(start, powers, tokens, 0)));
    }
}

/* The largest block of the largest tokens: no sum overflows. */
static void
test_largest(void)
{
    enum { N = 1 << 20 };
    static cxp_hash powers[N + 1];
    static int32_t tokens[N];
    cxp_hash key = cxp_hash_reduce(CXP_HASH_PRIME - 2), slow = key, one = {0, 1};
    cxp_hash_powers(powers, N, key);
    for (size_t i = 0; i < N; i++) {
        tokens[i] = -1; /* 2^32 in the polynomial */
        slow = add(cxp_hash_multiply(slow, key), (cxp_hash){(uint64_t)1 << 32, 0});
    }
    CHECK(cxp_hash_equal(slow, cxp_hash_extend(key, powers, tokens, N)));
    for (size_t i = 0; i <= N; i++) /* no power is larger */
        powers[i] = cxp_hash_reduce(CXP_HASH_PRIME - 1);
    cxp_hash sum = {0, 0},
             each = cxp_hash_multiply(powers[0], (cxp_hash){(uint64_t)1 << 32, 0});
    for (size_t i = 0; i < N; i++)
        sum = add(sum, each);
    sum = add(sum, cxp_hash_multiply(one, powers[0]));
    CHECK(cxp_hash_equal(sum, cxp_hash_extend(one, powers, tokens, N)));
}

int
main(void)
{
    test_multiply();
    test_extend();
    test_largest();
    return CHECK_SUMMARY();
}
