/* A heap for arrays: what is freed stays mapped, and resident, for the next array.
 *
 *   heap     bins: one per size class, four classes per doubling of the size
 *   bin      -> extent -> extent ...        those with a free block, newest first
 *   extent   one map: many small blocks of one class, or one large block
 *   idle     newest <-> ... <-> oldest      the extents of which no block is out
 *   page map address -> extent              for what is freed by its address alone
 *
 * Invariants (cxp_array_heap_check walks them):
 *   - an extent is in its bin's list while a block of it is free, and in the idle
 *     list while all are; it is in the page map from its first block to its unmapping;
 *   - a block below `fresh` is out, or on its extent's stack exactly once; the rest
 *     was never handed out, and is zeros;
 *   - the blocks of idle extents that were ever used take at most `keep` bytes: the
 *     oldest is unmapped when a newer one needs its place.
 *
 * Nothing is written beside a block: it has no header. So a block of 8 MiB is four
 * huge pages and no byte more, data is aligned to 64 bytes (large blocks to 2 MiB), an
 * overrun damages no list, and a wrong size from who frees does no harm. Reuse is last
 * in, first out: the newest block is the one that is still in the cache.
 *
 * take, give, resize: O(1), and a system call where no free block fits. Thread-safe,
 * also against fork: a lock per heap is held for some tens of instructions, never
 * across a system call that maps or unmaps. No Python here.
 */
#ifndef CTXPOOL_ARRAY_HEAP_H
#define CTXPOOL_ARRAY_HEAP_H

#include <stddef.h>
#include <stdint.h>

#include "ctxpool/vm.h"

/* The classes of 64 bytes to 2^46. */
#define CXP_HEAP_CLASSES   161
#define CXP_HEAP_ALIGNMENT 64

typedef struct cxp_extent {
    struct cxp_array_heap *heap;
    unsigned char *base;
    size_t block;    /* bytes of one block, a multiple of 64 */
    uint32_t blocks; /* that fit */
    uint32_t nfree;  /* stack[0 .. nfree-1] were given back */
    uint32_t fresh;  /* blocks [fresh, blocks) were never handed out */
    uint32_t size_class;
    struct cxp_extent *next, *prev;   /* in the bin */
    struct cxp_extent *newer, *older; /* in the idle list */
    cxp_vm vm;
    uint16_t stack[];
} cxp_extent;

typedef struct cxp_heap_counts {
    uint64_t hits;     /* blocks that were mapped already */
    uint64_t misses;   /* blocks that needed a new map */
    uint64_t refused;  /* blocks beyond the limit, or that the system did not give */
    uint64_t unmapped; /* extents given back to the system */
    size_t live_blocks, live_bytes, peak_bytes;
    size_t idle_bytes;   /* of idle extents, what was ever used */
    size_t mapped_bytes; /* of all extents */
} cxp_heap_counts;

typedef struct cxp_array_heap {
    uint32_t lock;
    int prefault; /* make new maps resident at once */
    size_t huge_from;
    size_t keep;  /* most idle_bytes */
    size_t limit; /* most live_bytes */
    cxp_heap_counts counts;
    cxp_extent *newest, *oldest;
    cxp_extent *bins[CXP_HEAP_CLASSES];
    struct cxp_array_heap *next_heap, *prev_heap; /* all that fork must know of */
} cxp_array_heap;

/* Bytes of a block that is asked for as n: at most a quarter more, above 256 bytes. */
size_t cxp_array_heap_block(size_t n);

/* Maps for blocks of `huge_from` bytes and more ask for huge pages: 0 for all of them,
 * SIZE_MAX for none. */
void cxp_array_heap_init(cxp_array_heap *heap, size_t keep, size_t limit,
                         size_t huge_from, int prefault);

/* Unmap everything. No block may be out. */
void cxp_array_heap_fini(cxp_array_heap *heap);

/* At least n bytes, of which `zeroed` asks that they be zeros; NULL with errno:
 * EDQUOT beyond the limit, else ENOMEM. */
void *cxp_array_heap_take(cxp_array_heap *heap, size_t n, int zeroed);

/* The extent of a block that is out, of any heap, by its address; NULL for memory from
 * elsewhere. Two loads. */
cxp_extent *cxp_array_heap_find(const void *p);

/* Give back a block of `extent`. */
void cxp_array_heap_give(cxp_extent *extent, void *p);

/* Tell that n bytes of a block are used from now on: 0, or -1 where that is too much,
 * or so little that a much smaller block would do. */
int cxp_array_heap_fit(cxp_extent *extent, void *p, size_t n);

/* Copy n bytes of a block, or as many as it has, and give it back. */
void cxp_array_heap_move(cxp_extent *extent, void *p, void *to, size_t n);

/* Make n blocks of `size` bytes free and resident: how many are. O(pages). */
size_t cxp_array_heap_warm(cxp_array_heap *heap, size_t size, size_t n);

/* Unmap idle extents, and give back whole pages of free blocks beside live ones:
 * bytes that were resident. O(extents + pages). */
size_t cxp_array_heap_trim(cxp_array_heap *heap);

void cxp_array_heap_count(cxp_array_heap *heap, cxp_heap_counts *counts);

/* 0, or the line of the invariant that is broken. For tests: O(blocks). */
int cxp_array_heap_check(cxp_array_heap *heap);

#endif /* CTXPOOL_ARRAY_HEAP_H */
