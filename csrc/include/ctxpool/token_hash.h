/* Hashes of all prefixes of a sequence of tokens, each continuing the one before.
 *
 * The hash of t[0] .. t[n-1] is the polynomial
 *
 *     start * k^n + (t[0] + 1) * k^(n-1) + ... + (t[n-1] + 1)     modulo 2^127 - 1
 *
 * with tokens as unsigned 32-bit numbers and start from 1 to 2^127 - 2: evaluation
 * hashing (Carter and Wegman 1979, "Universal classes of hash functions"; over Mersenne
 * primes and in practice: Thorup 2015, "High speed hashing for integers and strings").
 *
 * What it promises: no coefficient is 0, so that different sequences, of whatever
 * lengths, and different starts are different polynomials, of degree at most n. Two of
 * them agree at no more than n of the 2^127 - 2 keys k: for a key chosen without
 * knowing the tokens they collide with a chance of at most n / 2^126, and among m
 * sequences there is a collision with one of at most m^2 * n / 2^127. Whoever knows the
 * key can make collisions; it is no cryptographic hash.
 *
 * And: given equal tokens, the step from one hash to the next is a bijection. If two
 * hashes agree, and so do the tokens hashed last, then the hashes before them agree
 * too.
 *
 * Cost: two multiplications of 64 bits for each token, one reduction for each call:
 * about a nanosecond a token. No Python here.
 */
#ifndef CTXPOOL_TOKEN_HASH_H
#define CTXPOOL_TOKEN_HASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifndef __SIZEOF_INT128__
#error "token_hash.h needs a compiler with 128-bit integers"
#endif

__extension__ typedef unsigned __int128 cxp_u128;

/* A number below 2^127 - 1. */
typedef struct cxp_hash {
    uint64_t low, high;
} cxp_hash;

#define CXP_HASH_PRIME (((cxp_u128)1 << 127) - 1)

static inline bool
cxp_hash_equal(cxp_hash a, cxp_hash b)
{
    return a.low == b.low && a.high == b.high;
}

static inline cxp_u128
cxp_hash_wide(cxp_hash hash)
{
    return (cxp_u128)hash.high << 64 | hash.low;
}

/* x modulo the prime, but that the prime itself and what is just above may stay. */
static inline cxp_u128
cxp_hash_fold(cxp_u128 x)
{
    return (x & CXP_HASH_PRIME) + (x >> 127);
}

static inline cxp_hash
cxp_hash_reduce(cxp_u128 x)
{
    x = cxp_hash_fold(x);
    if (x >= CXP_HASH_PRIME)
        x -= CXP_HASH_PRIME;
    return (cxp_hash){(uint64_t)x, (uint64_t)(x >> 64)};
}

/* x * 2^64, folded: x = top * 2^63 + rest, and 2^127 is 1. */
static inline cxp_u128
cxp_hash_shift(cxp_u128 x)
{
    const uint64_t rest = (uint64_t)x & (UINT64_MAX >> 1);
    return ((cxp_u128)rest << 64) + (x >> 63);
}

/* a * b, of any 128 bits. The two sums are below 2^128: the first is at most
 * (2^127 + 2^64) + (2^127 - 2^65), the second at most 2^127 + (2^127 - 1). */
static inline cxp_u128
cxp_hash_product(cxp_hash a, cxp_hash b)
{
    cxp_u128 low = (cxp_u128)a.low * b.low;
    cxp_u128 middle = (cxp_u128)a.low * b.high + (cxp_u128)a.high * b.low;
    cxp_u128 high = (cxp_u128)a.high * b.high; /* times 2^128, which is 2 */
    return cxp_hash_fold(cxp_hash_shift(middle) + 2 * high) + cxp_hash_fold(low);
}

static inline cxp_hash
cxp_hash_multiply(cxp_hash a, cxp_hash b)
{
    return cxp_hash_reduce(cxp_hash_product(a, b));
}

/* powers[i] = key^i, for i up to n. */
static inline void
cxp_hash_powers(cxp_hash *powers, size_t n, cxp_hash key)
{
    powers[0] = (cxp_hash){1, 0};
    for (size_t i = 1; i <= n; i++)
        powers[i] = cxp_hash_multiply(powers[i - 1], key);
}

/* The hash of what `hash` stands for and n more tokens; n at most 2^20, and at most as
 * many as there are powers. */
static inline cxp_hash
cxp_hash_extend(cxp_hash hash, const cxp_hash *powers, const int32_t *tokens, size_t n)
{
    cxp_u128 low = 0, high = 0; /* below 2^20 * 2^32 * 2^64 */
    for (size_t i = 0; i < n; i++) {
        const uint64_t token = (uint64_t)(uint32_t)tokens[i] + 1;
        const cxp_hash power = powers[n - 1 - i];
        low += (cxp_u128)token * power.low;
        high += (cxp_u128)token * power.high;
    }
    cxp_u128 before = cxp_hash_fold(cxp_hash_product(hash, powers[n]));
    cxp_u128 added = cxp_hash_fold(cxp_hash_shift(high) + low);
    return cxp_hash_reduce(added + before); /* each is at most 2^127 - 1 */
}

#endif /* CTXPOOL_TOKEN_HASH_H */
