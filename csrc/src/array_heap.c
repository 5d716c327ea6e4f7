#define _GNU_SOURCE /* EDQUOT, sched_yield */
#include "ctxpool/array_heap.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "ctxpool/asan.h"
#include "ctxpool/page_map.h"

/* Extents begin at multiples of this, one huge page on most machines; so each has an
 * entry of the page map for itself. */
#define CHUNK CXP_PAGE_MAP_CHUNK

/* Smaller blocks share an extent of a chunk's size; larger ones have their own. */
#define LARGEST_SHARED (CHUNK / 4)

#define SMALLEST_BITS 6
#define LARGEST       ((size_t)1 << 46)

/* --- locks ------------------------------------------------------------------------ */

/* A word: free in a forked child with a store, and without a call in the usual case.
 * Who holds it is done in some nanoseconds, unless the system has taken its core away:
 * so look again for a while, and then let others run. */
static void
lock_word(uint32_t *word)
{
    while (__atomic_exchange_n(word, 1, __ATOMIC_ACQUIRE))
        for (int tries = 0; __atomic_load_n(word, __ATOMIC_RELAXED); tries++) {
            if (tries > 100)
                sched_yield();
#if defined(__x86_64__) || defined(__i386__)
            __builtin_ia32_pause();
#elif defined(__aarch64__)
            __asm__ volatile("yield");
#endif
        }
}

static void
unlock_word(uint32_t *word)
{
    __atomic_store_n(word, 0, __ATOMIC_RELEASE);
}

static uint32_t heaps_lock;
static cxp_array_heap *heaps;

/* A fork may come while another thread holds a lock, which the child's copy of that
 * thread would never release: so the forking thread takes all of them first. */
static void
before_fork(void)
{
    lock_word(&heaps_lock);
    for (cxp_array_heap *heap = heaps; heap; heap = heap->next_heap)
        lock_word(&heap->lock);
}

static void
after_fork(void)
{
    for (cxp_array_heap *heap = heaps; heap; heap = heap->next_heap)
        unlock_word(&heap->lock);
    unlock_word(&heaps_lock);
}

static void
watch_forks(void)
{
    pthread_atfork(before_fork, after_fork, after_fork);
}

/* --- size classes ----------------------------------------------------------------- */

static uint32_t
class_of(size_t n)
{
    if (n <= (size_t)1 << SMALLEST_BITS)
        return 0;
    uint32_t bits = 63 - (uint32_t)__builtin_clzll(n - 1);
    uint32_t quarter = (uint32_t)((n - 1) >> (bits - 2)) & 3;
    return 1 + (bits - SMALLEST_BITS) * 4 + quarter;
}

static size_t
block_of(uint32_t size_class)
{
    size_t n = (size_t)1 << SMALLEST_BITS;
    if (size_class) {
        uint32_t bits = SMALLEST_BITS + (size_class - 1) / 4;
        n = ((size_t)1 << bits) +
            (((size_t)1 << bits) / 4) * ((size_class - 1) % 4 + 1);
    }
    size_t unit = n > LARGEST_SHARED ? cxp_vm_page_size() : CXP_HEAP_ALIGNMENT;
    return (n + unit - 1) & ~(unit - 1);
}

size_t
cxp_array_heap_block(size_t n)
{
    return n > LARGEST ? 0 : block_of(class_of(n));
}

/* --- extents ---------------------------------------------------------------------- */

static cxp_extent *
map_extent(cxp_array_heap *heap, uint32_t size_class)
{
    size_t block = block_of(size_class), size = block;
    uint32_t blocks = 1;
    if (block <= LARGEST_SHARED) {
        size = CHUNK;
        blocks = (uint32_t)(CHUNK / block);
    }
    cxp_extent *extent = malloc(sizeof *extent + blocks * sizeof extent->stack[0]);
    if (!extent)
        return NULL;
    memset(extent, 0, sizeof *extent);
    if (cxp_vm_map(&extent->vm, size, CHUNK, 0)) {
        free(extent);
        return NULL;
    }
    cxp_vm_fit(&extent->vm);
    extent->heap = heap;
    extent->base = extent->vm.base;
    extent->block = block;
    extent->blocks = blocks;
    extent->size_class = size_class;
    if (block >= heap->huge_from)
        cxp_vm_advise_huge(&extent->vm);
    if ((heap->prefault && cxp_vm_populate(extent->base, size)) ||
        cxp_page_map_set(extent->base, extent)) {
        cxp_vm_unmap(&extent->vm);
        free(extent);
        return NULL;
    }
    CXP_HIDE(extent->base, extent->vm.size);
    return extent;
}

/* A chain by `older`, which no list knows any more. Whoever maps memory may get these
 * addresses as soon as they are unmapped: so first the page map. */
static void
unmap_chain(cxp_extent *extent)
{
    while (extent) {
        cxp_extent *older = extent->older;
        cxp_page_map_set(extent->base, NULL);
        CXP_SHOW(extent->base, extent->vm.size);
        cxp_vm_unmap(&extent->vm);
        free(extent);
        extent = older;
    }
}

static size_t
used(const cxp_extent *extent)
{
    return extent->fresh * extent->block;
}

static uint32_t
out(const cxp_extent *extent)
{
    return extent->fresh - extent->nfree;
}

static void
bin_add(cxp_array_heap *heap, cxp_extent *extent)
{
    cxp_extent **bin = &heap->bins[extent->size_class];
    extent->prev = NULL;
    extent->next = *bin;
    if (*bin)
        (*bin)->prev = extent;
    *bin = extent;
}

static void
bin_remove(cxp_array_heap *heap, cxp_extent *extent)
{
    if (extent->prev)
        extent->prev->next = extent->next;
    else
        heap->bins[extent->size_class] = extent->next;
    if (extent->next)
        extent->next->prev = extent->prev;
}

static void
idle_add(cxp_array_heap *heap, cxp_extent *extent)
{
    extent->newer = NULL;
    extent->older = heap->newest;
    if (heap->newest)
        heap->newest->newer = extent;
    else
        heap->oldest = extent;
    heap->newest = extent;
    heap->counts.idle_bytes += used(extent);
}

static void
idle_remove(cxp_array_heap *heap, cxp_extent *extent)
{
    if (extent->newer)
        extent->newer->older = extent->older;
    else
        heap->newest = extent->older;
    if (extent->older)
        extent->older->newer = extent->newer;
    else
        heap->oldest = extent->newer;
    heap->counts.idle_bytes -= used(extent);
}

/* Take an extent that is in no idle list out of the heap, onto a chain that
 * unmap_chain gets when the lock is no longer held. */
static cxp_extent *
drop(cxp_array_heap *heap, cxp_extent *extent, cxp_extent *chain)
{
    bin_remove(heap, extent);
    heap->counts.unmapped++;
    heap->counts.mapped_bytes -= extent->vm.size;
    extent->older = chain;
    return extent;
}

/* The oldest idle extents, until at most `keep` bytes are idle. */
static cxp_extent *
evict(cxp_array_heap *heap, size_t keep)
{
    cxp_extent *chain = NULL;
    while (heap->oldest && heap->counts.idle_bytes > keep) {
        cxp_extent *extent = heap->oldest;
        idle_remove(heap, extent);
        chain = drop(heap, extent, chain);
    }
    return chain;
}

cxp_extent *
cxp_array_heap_find(const void *p)
{
    return cxp_page_map_get(p);
}

/* --- blocks ----------------------------------------------------------------------- */

/* A block of an extent that has one; `clean` tells that it is zeros. */
static void *
take_from(cxp_array_heap *heap, cxp_extent *extent, int *clean)
{
    if (out(extent) == 0 && extent->fresh)
        idle_remove(heap, extent);
    *clean = extent->nfree == 0;
    size_t index = *clean ? extent->fresh++ : extent->stack[--extent->nfree];
    if (extent->nfree == 0 && extent->fresh == extent->blocks)
        bin_remove(heap, extent);
    heap->counts.live_blocks++;
    heap->counts.live_bytes += extent->block;
    if (heap->counts.live_bytes > heap->counts.peak_bytes)
        heap->counts.peak_bytes = heap->counts.live_bytes;
    return extent->base + index * extent->block;
}

static int
beyond_limit(cxp_array_heap *heap, size_t block)
{
    if (block <= heap->limit && heap->counts.live_bytes <= heap->limit - block)
        return 0;
    heap->counts.refused++;
    return 1;
}

/* A block out of a new map. The lock is not held while the system works; meanwhile
 * others may have come nearer to the limit. */
static void *
take_new(cxp_array_heap *heap, uint32_t size_class, int *clean)
{
    cxp_extent *extent = map_extent(heap, size_class);
    if (!extent) { /* the system is short: what lies idle may help */
        cxp_array_heap_trim(heap);
        extent = map_extent(heap, size_class);
    }
    void *p = NULL;
    lock_word(&heap->lock);
    if (!extent) {
        heap->counts.refused++;
    } else if (!beyond_limit(heap, extent->block)) {
        heap->counts.misses++;
        heap->counts.mapped_bytes += extent->vm.size;
        bin_add(heap, extent);
        p = take_from(heap, extent, clean);
        extent = NULL;
    }
    unlock_word(&heap->lock);
    if (!p)
        errno = extent ? EDQUOT : ENOMEM;
    if (extent) {
        int error = errno;
        unmap_chain(extent);
        errno = error;
    }
    return p;
}

void *
cxp_array_heap_take(cxp_array_heap *heap, size_t n, int zeroed)
{
    int clean = 0;
    void *p = NULL;
    if (n > LARGEST) {
        errno = ENOMEM;
        return NULL;
    }
    uint32_t size_class = class_of(n);
    lock_word(&heap->lock);
    cxp_extent *extent = heap->bins[size_class];
    size_t block = extent ? extent->block : block_of(size_class);
    int beyond = beyond_limit(heap, block);
    if (extent && !beyond) {
        p = take_from(heap, extent, &clean);
        heap->counts.hits++;
    }
    unlock_word(&heap->lock);
    if (beyond) {
        errno = EDQUOT;
        return NULL;
    }
    if (!p && !(p = take_new(heap, size_class, &clean)))
        return NULL;
    CXP_SHOW(p, n);
    if (zeroed && !clean)
        memset(p, 0, n);
    return p;
}

void
cxp_array_heap_give(cxp_extent *extent, void *p)
{
    cxp_array_heap *heap = extent->heap;
    cxp_extent *chain = NULL;
    size_t offset = (size_t)((unsigned char *)p - extent->base);
    uint32_t index =
        extent->blocks == 1 ? 0 : (uint32_t)offset / (uint32_t)extent->block;
    CXP_HIDE(p, extent->block);
    lock_word(&heap->lock);
    if (extent->nfree == 0 && extent->fresh == extent->blocks)
        bin_add(heap, extent);
    extent->stack[extent->nfree++] = (uint16_t)index;
    heap->counts.live_blocks--;
    heap->counts.live_bytes -= extent->block;
    if (out(extent) == 0) {
        if (used(extent) > heap->keep) { /* it would only drive out the others */
            chain = drop(heap, extent, NULL);
        } else {
            idle_add(heap, extent);
            chain = evict(heap, heap->keep);
        }
    }
    unlock_word(&heap->lock);
    unmap_chain(chain);
}

int
cxp_array_heap_fit(cxp_extent *extent, void *p, size_t n)
{
    if (n > extent->block || n < extent->block / 2)
        return -1;
    CXP_HIDE(p, extent->block);
    CXP_SHOW(p, n);
    return 0;
}

void
cxp_array_heap_move(cxp_extent *extent, void *p, void *to, size_t n)
{
    n = n < extent->block ? n : extent->block;
    CXP_SHOW(p, n); /* how much of it was asked for, nobody knows */
    memcpy(to, p, n);
    cxp_array_heap_give(extent, p);
}

size_t
cxp_array_heap_warm(cxp_array_heap *heap, size_t size, size_t n)
{
    void **blocks = n <= SIZE_MAX / sizeof *blocks ? malloc(n * sizeof *blocks) : NULL;
    size_t warm = 0;
    while (blocks && warm < n) {
        void *p = cxp_array_heap_take(heap, size, 0);
        if (!p)
            break;
        blocks[warm++] = p;
        if (cxp_vm_populate(p, size)) {
            cxp_array_heap_give(cxp_array_heap_find(p), p);
            warm--;
            break;
        }
    }
    for (size_t i = warm; i-- > 0;)
        cxp_array_heap_give(cxp_array_heap_find(blocks[i]), blocks[i]);
    free(blocks);
    return warm;
}

/* Whole pages of free blocks; neighbours together, as a page may span several. */
static size_t
discard_free(cxp_extent *extent)
{
    size_t freed = 0;
    unsigned char is_free[CHUNK / ((size_t)1 << SMALLEST_BITS) / 8] = {0};
    for (uint32_t i = 0; i < extent->nfree; i++)
        is_free[extent->stack[i] / 8] |= (unsigned char)(1u << (extent->stack[i] % 8));
    for (uint32_t begin = 0; begin < extent->fresh;) {
        uint32_t end = begin;
        while (end < extent->fresh && is_free[end / 8] & (1u << (end % 8)))
            end++;
        if (end > begin)
            freed += cxp_vm_discard(extent->base + begin * extent->block,
                                    (end - begin) * extent->block, 0);
        begin = end + 1;
    }
    return freed;
}

size_t
cxp_array_heap_trim(cxp_array_heap *heap)
{
    size_t freed = 0;
    lock_word(&heap->lock);
    cxp_extent *chain = evict(heap, 0);
    /* Others wait here, for some microseconds an extent. */
    for (uint32_t i = 0; i < CXP_HEAP_CLASSES; i++)
        for (cxp_extent *extent = heap->bins[i]; extent; extent = extent->next)
            if (extent->nfree && extent->blocks > 1)
                freed += discard_free(extent);
    unlock_word(&heap->lock);
    for (cxp_extent *extent = chain; extent; extent = extent->older)
        freed += cxp_vm_resident(extent->base, extent->vm.size);
    unmap_chain(chain);
    return freed;
}

/* --- the heap --------------------------------------------------------------------- */

void
cxp_array_heap_init(cxp_array_heap *heap, size_t keep, size_t limit, size_t huge_from,
                    int prefault)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch_forks);
    memset(heap, 0, sizeof *heap);
    heap->keep = keep;
    heap->limit = limit;
    heap->huge_from = cxp_vm_huge_page_size() ? huge_from : SIZE_MAX;
    heap->prefault = prefault;
    lock_word(&heaps_lock);
    heap->next_heap = heaps;
    if (heaps)
        heaps->prev_heap = heap;
    heaps = heap;
    unlock_word(&heaps_lock);
}

void
cxp_array_heap_fini(cxp_array_heap *heap)
{
    lock_word(&heaps_lock);
    if (heap->prev_heap)
        heap->prev_heap->next_heap = heap->next_heap;
    else
        heaps = heap->next_heap;
    if (heap->next_heap)
        heap->next_heap->prev_heap = heap->prev_heap;
    unlock_word(&heaps_lock);
    unmap_chain(evict(heap, 0));
}

void
cxp_array_heap_count(cxp_array_heap *heap, cxp_heap_counts *counts)
{
    lock_word(&heap->lock);
    *counts = heap->counts;
    unlock_word(&heap->lock);
}

#define HOLDS(cond)                                                                    \
    do {                                                                               \
        if (!(cond))                                                                   \
            return __LINE__;                                                           \
    } while (0)

/* An extent with a free block. */
static int
check_extent(const cxp_array_heap *heap, cxp_extent *extent, uint32_t size_class)
{
    unsigned char seen[CHUNK / ((size_t)1 << SMALLEST_BITS) / 8] = {0};
    HOLDS(extent->heap == heap && extent->size_class == size_class);
    HOLDS(extent->block == block_of(size_class));
    HOLDS(cxp_array_heap_find(extent->base) == extent);
    HOLDS(extent->nfree <= extent->fresh && extent->fresh <= extent->blocks);
    HOLDS(extent->nfree || extent->fresh < extent->blocks);
    HOLDS(extent->blocks * extent->block <= extent->vm.size);
    for (uint32_t i = 0; i < extent->nfree; i++) {
        uint32_t index = extent->stack[i];
        HOLDS(index < extent->fresh && !(seen[index / 8] & (1u << (index % 8))));
        seen[index / 8] |= (unsigned char)(1u << (index % 8));
    }
    return 0;
}

static int
check_locked(cxp_array_heap *heap)
{
    size_t idle = 0, idle_bytes = 0, listed = 0, binned = 0;
    const cxp_heap_counts *counts = &heap->counts;
    for (cxp_extent *extent = heap->newest; extent; extent = extent->older) {
        HOLDS(out(extent) == 0);
        HOLDS((extent->older ? extent->older->newer : heap->oldest) == extent);
        listed++;
        idle_bytes += used(extent);
    }
    for (uint32_t i = 0; i < CXP_HEAP_CLASSES; i++)
        for (cxp_extent *extent = heap->bins[i]; extent; extent = extent->next) {
            int line = check_extent(heap, extent, i);
            HOLDS(!extent->next || extent->next->prev == extent);
            if (line)
                return line;
            idle += out(extent) == 0;
            binned += extent->vm.size;
        }
    HOLDS(idle == listed && idle_bytes == counts->idle_bytes);
    HOLDS(idle_bytes <= heap->keep);
    HOLDS(binned <= counts->mapped_bytes && counts->live_bytes <= counts->mapped_bytes);
    HOLDS(counts->live_bytes <= counts->peak_bytes);
    HOLDS(counts->live_bytes <= heap->limit);
    HOLDS((counts->live_blocks == 0) == (counts->live_bytes == 0));
    return 0;
}

int
cxp_array_heap_check(cxp_array_heap *heap)
{
    lock_word(&heap->lock);
    int line = check_locked(heap);
    unlock_word(&heap->lock);
    return line;
}
