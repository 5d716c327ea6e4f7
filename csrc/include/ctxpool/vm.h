/* Memory straight from the system: mapped, advised, made resident, given back.
 *
 * A map is private and anonymous: it starts as zeros, costs no memory until it is
 * touched, and a forked child gets a copy. Functions return 0, or -1 with errno
 * set; none of them allocates from the heap. All are thread-safe on disjoint maps.
 */
#ifndef CTXPOOL_VM_H
#define CTXPOOL_VM_H

#include <stddef.h>

typedef struct cxp_vm {
    unsigned char *base; /* aligned as asked for */
    size_t size;         /* bytes usable from base, whole pages */
    void *map;           /* what the system gave: */
    size_t map_size;     /* base lies in it */
} cxp_vm;

/* What a forked child finds in a map. */
enum {
    CXP_FORK_COPY = 0,  /* what every child sees: the bytes at the fork */
    CXP_FORK_WIPE = 1,  /* zeros */
    CXP_FORK_ABSENT = 2 /* nothing: touching it is a fault */
};

/* Bytes of a page, and of a transparent huge page (0 where there are none). */
size_t cxp_vm_page_size(void);
size_t cxp_vm_huge_page_size(void);

/* Map at least `size` bytes at a multiple of `alignment` (a power of two). With
 * `lazy` the system reserves no swap for it: for a map of which little may ever
 * be used. */
int cxp_vm_map(cxp_vm *vm, size_t size, size_t alignment, int lazy);
void cxp_vm_unmap(cxp_vm *vm);

/* Give back the address space around [base, base + size) that the alignment took:
 * for those who keep many maps. */
void cxp_vm_fit(cxp_vm *vm);

/* Ask for huge pages; -1 where the system has none. */
int cxp_vm_advise_huge(const cxp_vm *vm);
int cxp_vm_advise_fork(const cxp_vm *vm, int mode);

/* Make [p, p + n) resident and writable, without changing a byte of it, also
 * while others write there. O(pages). */
int cxp_vm_populate(void *p, size_t n);

/* Bytes of the whole pages inside [p, p + n) that are resident. O(pages). */
size_t cxp_vm_resident(const void *p, size_t n);

/* Give the whole pages inside [p, p + n) back to the system; their bytes are lost.
 * The result is what was resident there. Afterwards they read as zeros; or, with
 * `lazy`, as zeros or as they were: the system takes them when it is short. */
size_t cxp_vm_discard(void *p, size_t n, int lazy);

#endif /* CTXPOOL_VM_H */
