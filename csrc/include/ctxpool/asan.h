/* Under AddressSanitizer memory that nobody may touch is poisoned, so that an
 * overrun or a use after release inside one big mapping is reported as a use
 * after free would be. Elsewhere these cost nothing. */
#ifndef CTXPOOL_ASAN_H
#define CTXPOOL_ASAN_H

#if defined(__SANITIZE_ADDRESS__)
#define CXP_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CXP_ASAN 1
#endif
#endif

#ifdef CXP_ASAN
#include <sanitizer/asan_interface.h>
#define CXP_HIDE(p, n) ASAN_POISON_MEMORY_REGION(p, n)
#define CXP_SHOW(p, n) ASAN_UNPOISON_MEMORY_REGION(p, n)
#else
#define CXP_HIDE(p, n) ((void)(p), (void)(n))
#define CXP_SHOW(p, n) ((void)(p), (void)(n))
#endif

#endif /* CTXPOOL_ASAN_H */
