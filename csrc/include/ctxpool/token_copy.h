/* memcpy for tokens: as fast at any two addresses, and past the caches where that pays.
 *
 * The time of a memcpy of some KiB hangs on where its ends lie. With the `rep movsb`
 * that glibc takes for them, on AMD's Zen 3 and 4 a copy of 256 KiB to memory that is
 * in no cache takes from 15 to 29 us, depending on the low bits of the addresses; and
 * where `to` lies less than a cache line behind `from` in their pages, a copy of 4 KiB
 * takes 1.2 us instead of 0.06. The loop below stores whole lines: 16 us at any
 * addresses, 10 us past the caches. Copies that are short are left to memcpy; so is
 * everything where there is no SSE2 (which each x86-64 has).
 */
#ifndef CTXPOOL_TOKEN_COPY_H
#define CTXPOOL_TOKEN_COPY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#define CXP_COPY_LINE  ((size_t)64)
#define CXP_COPY_BRIEF ((size_t)1024) /* memcpy takes no `rep movsb` for it */
#define CXP_COPY_LONG  ((size_t)8192)

/* The library's memcpy: where gcc knows that n is small, it would write `rep movs`. */
static inline void
cxp_copy_call(char *to, const char *from, size_t n)
{
    __asm__("" : "+r"(n));
    memcpy(to, from, n);
}

#ifdef __SSE2__
/* n >= CXP_COPY_LONG bytes. `past`: by stores that go to memory, not to a cache. */
static inline void
cxp_copy_lines(char *to, const char *from, size_t n, bool past)
{
    size_t head = (size_t)(-(uintptr_t)to % CXP_COPY_LINE);
    memcpy(to, from, head);
    to += head;
    from += head;
    n -= head;
    for (; n >= CXP_COPY_LINE;
         n -= CXP_COPY_LINE, to += CXP_COPY_LINE, from += CXP_COPY_LINE) {
        const __m128i *in = (const __m128i *)(const void *)from;
        __m128i *out = (__m128i *)(void *)to;
        __m128i a = _mm_loadu_si128(in), b = _mm_loadu_si128(in + 1);
        __m128i c = _mm_loadu_si128(in + 2), d = _mm_loadu_si128(in + 3);
        if (past) {
            _mm_stream_si128(out, a);
            _mm_stream_si128(out + 1, b);
            _mm_stream_si128(out + 2, c);
            _mm_stream_si128(out + 3, d);
        } else {
            _mm_store_si128(out, a);
            _mm_store_si128(out + 1, b);
            _mm_store_si128(out + 2, c);
            _mm_store_si128(out + 3, d);
        }
    }
    memcpy(to, from, n);
    if (past)
        _mm_sfence(); /* a release orders no such stores */
}
#endif

/* Copy n bytes that do not overlap; `past` the caches if it is not for reading soon. */
static inline void
cxp_token_copy(char *to, const char *from, size_t n, bool past)
{
#ifdef __SSE2__
    if (n >= CXP_COPY_LONG) {
        if (past)
            cxp_copy_lines(to, from, n, true);
        else
            cxp_copy_lines(to, from, n, false);
        return;
    }
#endif
    (void)past;
    if (((uintptr_t)to - (uintptr_t)from) % 4096 - 1 < CXP_COPY_LINE - 1)
        for (; n > CXP_COPY_BRIEF;
             n -= CXP_COPY_BRIEF, to += CXP_COPY_BRIEF, from += CXP_COPY_BRIEF)
            cxp_copy_call(to, from, CXP_COPY_BRIEF);
    cxp_copy_call(to, from, n);
}

#endif /* CTXPOOL_TOKEN_COPY_H */
