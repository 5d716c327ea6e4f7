#define _GNU_SOURCE /* MAP_ANONYMOUS, madvise, mincore */
#include "ctxpool/vm.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MAP_NORESERVE
#define MAP_NORESERVE 0
#endif
#if defined(__linux__) && !defined(MADV_POPULATE_WRITE)
#define MADV_POPULATE_WRITE 23 /* Linux 5.14; older headers lack the name */
#endif

size_t
cxp_vm_page_size(void)
{
    static size_t size; /* the same for every writer: no race that matters */
    size_t known = __atomic_load_n(&size, __ATOMIC_RELAXED);
    if (!known) {
        long answer = sysconf(_SC_PAGESIZE);
        known = answer > 0 ? (size_t)answer : 4096;
        __atomic_store_n(&size, known, __ATOMIC_RELAXED);
    }
    return known;
}

size_t
cxp_vm_huge_page_size(void)
{
    size_t size = 0;
    FILE *file = fopen("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size", "r");
    if (file) {
        if (fscanf(file, "%zu", &size) != 1)
            size = 0;
        fclose(file);
    }
    return size;
}

static uintptr_t
round_up(uintptr_t n, size_t unit)
{
    return (n + unit - 1) & ~(uintptr_t)(unit - 1);
}

int
cxp_vm_map(cxp_vm *vm, size_t size, size_t alignment, int lazy)
{
    size_t page = cxp_vm_page_size();
    size_t extra = alignment > page ? alignment - page : 0;
    if (size == 0 || size > SIZE_MAX - page - extra) {
        errno = ENOMEM;
        return -1;
    }
    size_t usable = round_up(size, page);
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | (lazy ? MAP_NORESERVE : 0);
    void *map = mmap(NULL, usable + extra, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (map == MAP_FAILED)
        return -1;
    vm->map = map;
    vm->map_size = usable + extra;
    vm->size = usable;
    vm->base = (unsigned char *)map;
    if (extra)
        vm->base += round_up((uintptr_t)map, alignment) - (uintptr_t)map;
    return 0;
}

void
cxp_vm_unmap(cxp_vm *vm)
{
    if (vm->map)
        munmap(vm->map, vm->map_size);
    vm->map = vm->base = NULL;
    vm->map_size = vm->size = 0;
}

void
cxp_vm_fit(cxp_vm *vm)
{
    unsigned char *begin = vm->map, *end = begin + vm->map_size;
    unsigned char *stop = vm->base + vm->size;
    /* A refusal (too many maps) leaves it as it was. */
    if (end > stop && munmap(stop, (size_t)(end - stop)) == 0)
        vm->map_size -= (size_t)(end - stop);
    if (vm->base > begin && munmap(begin, (size_t)(vm->base - begin)) == 0) {
        vm->map_size -= (size_t)(vm->base - begin);
        vm->map = vm->base;
    }
}

int
cxp_vm_advise_huge(const cxp_vm *vm)
{
#ifdef MADV_HUGEPAGE
    return madvise(vm->base, vm->size, MADV_HUGEPAGE);
#else
    (void)vm;
    errno = ENOTSUP;
    return -1;
#endif
}

int
cxp_vm_advise_fork(const cxp_vm *vm, int mode)
{
    if (mode == CXP_FORK_COPY)
        return 0;
#if defined(MADV_WIPEONFORK) && defined(MADV_DONTFORK)
    int advice = mode == CXP_FORK_WIPE ? MADV_WIPEONFORK : MADV_DONTFORK;
    return madvise(vm->base, vm->size, advice);
#else
    (void)vm;
    errno = ENOTSUP;
    return -1;
#endif
}

/* It touches pages of free blocks, which are poisoned on purpose. */
#if defined(__GNUC__)
__attribute__((no_sanitize("address")))
#endif
int
cxp_vm_populate(void *p, size_t n)
{
    size_t page = cxp_vm_page_size();
    uintptr_t begin = (uintptr_t)p & ~(uintptr_t)(page - 1);
    uintptr_t end = round_up((uintptr_t)p + n, page);
#ifdef MADV_POPULATE_WRITE
    if (madvise((void *)begin, end - begin, MADV_POPULATE_WRITE) == 0)
        return 0;
    if (errno != EINVAL)
        return -1;
#endif
    for (uintptr_t at = begin; at < end; at += page)
        __atomic_fetch_or((unsigned char *)at, 0, __ATOMIC_RELAXED);
    return 0;
}

/* Narrow [p, p + n) to the whole pages in it; the length may become 0. */
static size_t
inner_pages(const void *p, size_t n, uintptr_t *begin)
{
    size_t page = cxp_vm_page_size();
    *begin = round_up((uintptr_t)p, page);
    uintptr_t end = ((uintptr_t)p + n) & ~(uintptr_t)(page - 1);
    return end > *begin ? end - *begin : 0;
}

size_t
cxp_vm_resident(const void *p, size_t n)
{
    uintptr_t begin;
    size_t rest = inner_pages(p, n, &begin);
    size_t page = cxp_vm_page_size(), resident = 0;
    while (rest) {
        unsigned char map[1024]; /* in pieces: nothing is allocated */
        size_t piece = rest < sizeof map * page ? rest : sizeof map * page;
#ifdef __APPLE__
        if (mincore((void *)begin, piece, (char *)map))
#else
        if (mincore((void *)begin, piece, map))
#endif
            return resident;
        for (size_t i = 0; i < piece / page; i++)
            resident += (map[i] & 1) ? page : 0;
        begin += piece;
        rest -= piece;
    }
    return resident;
}

size_t
cxp_vm_discard(void *p, size_t n, int lazy)
{
    uintptr_t begin;
    size_t length = inner_pages(p, n, &begin);
    if (!length)
        return 0;
    size_t resident = cxp_vm_resident(p, n);
#ifdef MADV_FREE
    if (lazy && madvise((void *)begin, length, MADV_FREE) == 0)
        return resident;
#endif
    (void)lazy;
    return madvise((void *)begin, length, MADV_DONTNEED) ? 0 : resident;
}
