#include "ctxpool/page_map.h"

#include <stdint.h>
#include <stdlib.h>

#define CHUNK_BITS 21
#define LEAF_BITS  13
#define LEAF_SIZE  ((size_t)1 << LEAF_BITS)
#define ROOT_BITS  (47 - CHUNK_BITS - LEAF_BITS)

static void **root[(size_t)1 << ROOT_BITS];

int
cxp_page_map_set(const void *p, void *entry)
{
    size_t chunk = (uintptr_t)p >> CHUNK_BITS, high = chunk >> LEAF_BITS;
    if (high >> ROOT_BITS)
        return -1;
    void **leaf = __atomic_load_n(&root[high], __ATOMIC_ACQUIRE);
    if (!leaf) {
        void **made = calloc(LEAF_SIZE, sizeof *made);
        if (!made)
            return -1;
        if (__atomic_compare_exchange_n(&root[high], &leaf, made, 0, __ATOMIC_ACQ_REL,
                                        __ATOMIC_ACQUIRE))
            leaf = made;
        else
            free(made); /* another thread was quicker, and `leaf` is its leaf */
    }
    __atomic_store_n(&leaf[chunk & (LEAF_SIZE - 1)], entry, __ATOMIC_RELEASE);
    return 0;
}

void *
cxp_page_map_get(const void *p)
{
    size_t chunk = (uintptr_t)p >> CHUNK_BITS, high = chunk >> LEAF_BITS;
    if (high >> ROOT_BITS)
        return NULL;
    void **leaf = __atomic_load_n(&root[high], __ATOMIC_ACQUIRE);
    if (!leaf)
        return NULL;
    return __atomic_load_n(&leaf[chunk & (LEAF_SIZE - 1)], __ATOMIC_ACQUIRE);
}
