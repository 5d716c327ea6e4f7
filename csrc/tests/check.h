/* The whole test framework: a failed CHECK prints where, and main returns 1. */
#ifndef CTXPOOL_CHECK_H
#define CTXPOOL_CHECK_H

#include <stdio.h>

static int check_failures;

#define CHECK(cond)                                                                    \
    do {                                                                               \
        if (!(cond)) {                                                                 \
            check_failures++;                                                          \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);                 \
        }                                                                              \
    } while (0)

#define CHECK_SUMMARY() (check_failures ? 1 : 0)

#endif
