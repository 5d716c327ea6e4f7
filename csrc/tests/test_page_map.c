#include "ctxpool/page_map.h"

#include <pthread.h>
#include <stdint.h>

#include "check.h"

#define CHUNK CXP_PAGE_MAP_CHUNK

/* Addresses that nothing points to: the map only looks at their bits. */
static void *
chunk(size_t number)
{
    return (void *)(uintptr_t)(number * CHUNK);
}

static void
test_an_entry_serves_its_chunk_and_no_other(void)
{
    int a, b;
    size_t numbers[] = {1, 8191, 8192, 123456, ((size_t)1 << 26) - 1};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        char *p = chunk(numbers[i]);
        CHECK(cxp_page_map_get(p) == NULL);
        CHECK(cxp_page_map_set(p, &a) == 0);
        CHECK(cxp_page_map_get(p) == &a && cxp_page_map_get(p + CHUNK - 1) == &a);
        CHECK(cxp_page_map_get(p - 1) == NULL && cxp_page_map_get(p + CHUNK) == NULL);
        CHECK(cxp_page_map_set(p + 5, &b) == 0 && cxp_page_map_get(p) == &b);
        CHECK(cxp_page_map_set(p, NULL) == 0 && cxp_page_map_get(p) == NULL);
    }
}

static void
test_addresses_that_no_program_has(void)
{
    int a;
    CHECK(cxp_page_map_get(NULL) == NULL);
    CHECK(cxp_page_map_get((void *)UINTPTR_MAX) == NULL);
    CHECK(cxp_page_map_set((void *)UINTPTR_MAX, &a) == -1);
    CHECK(cxp_page_map_set(chunk((size_t)1 << 26), &a) == -1);
}

static void *
set_many(void *argument)
{
    for (size_t i = 0; i < 4000; i += 1)
        CHECK(cxp_page_map_set(chunk(40000000 + i * 2048 + (uintptr_t)argument),
                               argument) == 0);
    return NULL;
}

/* They make the same leaves at the same time. */
static void
test_threads(void)
{
    pthread_t threads[4];
    for (uintptr_t i = 0; i < 4; i++)
        CHECK(pthread_create(&threads[i], NULL, set_many, (void *)(i + 1)) == 0);
    for (size_t i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    for (uintptr_t t = 1; t <= 4; t++)
        for (size_t i = 0; i < 4000; i++)
            CHECK(cxp_page_map_get(chunk(40000000 + i * 2048 + t)) == (void *)t);
}

int
main(void)
{
    test_an_entry_serves_its_chunk_and_no_other();
    test_addresses_that_no_program_has();
    test_threads();
    return CHECK_SUMMARY();
}
