/* A slab of equal blocks, handed out and taken back by index in O(1).
 *
 *   slab   [block 0 |gap][block 1 |gap] ... [block blocks-1 |gap]   one mapping
 *   stack  indices of blocks that were given back, the newest on top
 *   slot   per block: who has it, and how often it was handed out
 *
 * Invariants (cxp_block_pool_check walks them):
 *   - fresh <= blocks <= max_blocks; blocks [fresh, blocks) were never handed out;
 *   - a block below fresh is owned, absent, or on the stack exactly once;
 *   - in_use blocks are owned: in_use + nfree + absent == fresh, until the pool is
 *     closed;
 *   - with CXP_SLABS, used[s] blocks of slab s (1 << slab_shift of them) are owned, and
 *     idle slabs have none that is owned and none that is absent.
 *
 * A range of blocks may be absent: reserved, but not there to be taken. So a slab comes
 * and goes without moving any other.
 *
 * The stack lies beside the blocks and not inside them: take and give touch no
 * block memory, a write into a block that was given back corrupts nothing, a double
 * give is found in O(1). It is last in, first out: a block that is still in the
 * cache is used again first. Nothing but init and grow asks the system for memory.
 *
 * Not thread-safe: the caller serialises calls on one pool (the Python BlockPool
 * holds its GIL or its critical section). No Python here.
 */
#ifndef CTXPOOL_BLOCK_POOL_H
#define CTXPOOL_BLOCK_POOL_H

#include <stddef.h>
#include <stdint.h>

#include "ctxpool/asan.h"
#include "ctxpool/vm.h"

#define CXP_NO_BLOCK   UINT32_MAX /* the pool is exhausted */
#define CXP_MAX_BLOCKS (UINT32_MAX - 1)

/* Who has a block: the low bits of its slot. */
enum {
    CXP_FREE = 0,
    CXP_BY_LEASE = 1, /* an object returns it when it dies */
    CXP_BY_INDEX = 2, /* its user returns it by number */
    CXP_ABSENT = 3,   /* it has no memory for now */
    CXP_OWNER = 3     /* mask of the above */
};
#define CXP_POISONED   4u /* free, and filled with CXP_POISON_FREE (debug) */
#define CXP_GENERATION 8u /* one hand-out, counted in the bits above */

enum {
    CXP_ZERO_ON_TAKE = 1,
    CXP_ZERO_ON_GIVE = 2,
    CXP_DEBUG = 4,
    CXP_CLOSED = 8,
    CXP_SLABS = 16 /* count what is owned of each slab */
};

#define CXP_POISON_FREE 0xDD /* debug: what a free block is filled with */
#define CXP_POISON_NEW  0xCD /* debug: what a fresh block is filled with */
#define CXP_CANARY      0xFD /* debug: what the gap behind a block is filled with */
#define CXP_CANARY_SIZE 16   /* debug: at least this much gap */

typedef struct cxp_block_pool {
    uint32_t *stack;
    uint32_t *slot;
    unsigned char *base; /* block 0 */
    size_t stride;       /* block_size with its gap, a multiple of alignment */
    uint32_t nfree;      /* stack[0 .. nfree-1] are free */
    uint32_t fresh;
    uint32_t in_use;
    uint32_t peak; /* most in_use ever */
    uint32_t flags;
    uint32_t blocks;
    uint64_t takes, gives;
    uint32_t max_blocks;
    uint32_t pins;     /* callers that use the slab without the lock */
    size_t block_size; /* bytes the user may write */
    uint32_t absent;
    uint32_t idle;       /* slabs wholly free */
    uint32_t slab_shift; /* a slab is 1 << slab_shift blocks */
    uint32_t *used;      /* of each slab, how many are owned; NULL without CXP_SLABS */
    uint64_t padding;    /* bytes of owned blocks that their owners did not ask for */
    cxp_vm vm;
    /* cxp_block_pool_taken and _given, found through the pool: take and give link
     * with nothing, so that an extension built elsewhere can inline them. */
    int (*taken)(struct cxp_block_pool *pool, uint32_t index);
    int (*given)(struct cxp_block_pool *pool, uint32_t index);
} cxp_block_pool;

/* 0, or -1 with errno: ENOMEM, or EINVAL for sizes of zero, too many blocks, an
 * alignment that is no power of two, or a slab that no address space holds. `blocks`
 * may be 0: all are to come by grow or reserve.
 * `huge` asks for huge pages; a refusal is no error. O(1), but for `prefault`,
 * which makes the first `blocks` blocks resident. */
int cxp_block_pool_init(cxp_block_pool *pool, size_t block_size, uint32_t blocks,
                        uint32_t max_blocks, size_t alignment, uint32_t flags, int huge,
                        int prefault);

/* Let up to `more` further blocks exist; how many do now. */
uint32_t cxp_block_pool_grow(cxp_block_pool *pool, uint32_t more);

/* Count slabs of 1 << shift blocks from now on; no block may be there yet. 0, or -1 for
 * want of memory. The pool's blocks then come by reserve, whole slabs at a time. */
int cxp_block_pool_use_slabs(cxp_block_pool *pool, uint32_t shift);

/* Up to `more` further blocks, from index `blocks` before the call on, all of them
 * absent; how many. Then `present` makes a range of absent blocks free, and `withdraw`
 * one of free blocks absent: 0, or -1 if one of them is owned, and then nothing
 * changed. Neither touches the blocks' memory. O(n), withdraw O(n + free blocks). */
uint32_t cxp_block_pool_reserve(cxp_block_pool *pool, uint32_t more);
void cxp_block_pool_present(cxp_block_pool *pool, uint32_t first, uint32_t n);
int cxp_block_pool_withdraw(cxp_block_pool *pool, uint32_t first, uint32_t n);

/* The first block of a slab that is wholly free, or CXP_NO_BLOCK. O(slabs). */
uint32_t cxp_block_pool_idle(const cxp_block_pool *pool);

/* Hand out nothing more. The slab is unmapped when the last block is back (at
 * once, if all are). */
void cxp_block_pool_close(cxp_block_pool *pool);

/* Keep the slab mapped until as many unpins, for work on it without the lock. */
void cxp_block_pool_pin(cxp_block_pool *pool);
void cxp_block_pool_unpin(cxp_block_pool *pool);

void cxp_block_pool_fini(cxp_block_pool *pool);

/* Give the memory of free blocks back to the system; bytes that were resident.
 * O(blocks + pages). */
size_t cxp_block_pool_trim(cxp_block_pool *pool);

/* 0, or -1 - i for the first block whose state breaks an invariant. For tests:
 * O(blocks^2). */
int64_t cxp_block_pool_check(const cxp_block_pool *pool);

/* The work of take and give that only some pools ask for (flags). Both return 0,
 * or -1 in debug: a free block was written to; something was written behind the
 * end of a block. The block is handed out or taken back all the same. */
int cxp_block_pool_taken(cxp_block_pool *pool, uint32_t index);
int cxp_block_pool_given(cxp_block_pool *pool, uint32_t index);

/* Debug: 1 when something was written behind the end of a block that is out; the
 * canary there is renewed, so that it is told once. */
int cxp_block_pool_mend(cxp_block_pool *pool, uint32_t index);

static inline void *
cxp_block_pool_at(const cxp_block_pool *pool, uint32_t index)
{
    return pool->base + (size_t)index * pool->stride;
}

static inline uint32_t
cxp_block_pool_owner(const cxp_block_pool *pool, uint32_t index)
{
    return index < pool->fresh ? pool->slot[index] & CXP_OWNER : CXP_FREE;
}

/* Let `owner` have a block that is out. */
static inline void
cxp_block_pool_pass(cxp_block_pool *pool, uint32_t index, uint32_t owner)
{
    pool->slot[index] = (pool->slot[index] & ~(uint32_t)CXP_OWNER) | owner;
}

/* How often a block was handed out, modulo 2^29. */
static inline uint32_t
cxp_block_pool_generation(const cxp_block_pool *pool, uint32_t index)
{
    return pool->slot[index] / CXP_GENERATION;
}

/* Free blocks. */
static inline uint32_t
cxp_block_pool_available(const cxp_block_pool *pool)
{
    return pool->nfree + (pool->blocks - pool->fresh);
}

/* Whether a block was disturbed while it was free is told in *disturbed. */
static inline uint32_t
cxp_block_pool_take_checked(cxp_block_pool *pool, uint32_t owner, int *disturbed)
{
    uint32_t index;
    if (pool->nfree)
        index = pool->stack[--pool->nfree];
    else if (pool->fresh < pool->blocks)
        index = pool->fresh++;
    else
        return CXP_NO_BLOCK;
    pool->slot[index] += CXP_GENERATION | owner;
    pool->takes++;
    if (++pool->in_use > pool->peak)
        pool->peak = pool->in_use;
    CXP_SHOW(cxp_block_pool_at(pool, index), pool->block_size);
    if (pool->flags && pool->taken(pool, index))
        *disturbed = 1;
    return index;
}

/* A free block's index, or CXP_NO_BLOCK. */
static inline uint32_t
cxp_block_pool_take(cxp_block_pool *pool, uint32_t owner)
{
    int disturbed = 0;
    return cxp_block_pool_take_checked(pool, owner, &disturbed);
}

/* 0; -1 when `owner` does not have the block (a double give, a bad index), and then
 * nothing has changed; 1 when the block was taken back, but (debug) something was
 * written behind its end. */
static inline int
cxp_block_pool_give(cxp_block_pool *pool, uint32_t index, uint32_t owner)
{
    int damaged = 0;
    if (cxp_block_pool_owner(pool, index) != owner)
        return -1;
    pool->slot[index] &= ~(uint32_t)CXP_OWNER;
    pool->gives++;
    pool->in_use--;
    pool->stack[pool->nfree++] = index;
    if (pool->flags)
        damaged = pool->given(pool, index) ? 1 : 0;
    if (pool->base)
        CXP_HIDE(cxp_block_pool_at(pool, index), pool->stride);
    return damaged;
}

/* n blocks, or none: 0, or -1 when fewer than n are free. O(n). */
static inline int
cxp_block_pool_take_many(cxp_block_pool *pool, uint32_t owner, uint32_t *indices,
                         size_t n, int *disturbed)
{
    if (n > cxp_block_pool_available(pool))
        return -1;
    for (size_t i = 0; i < n; i++)
        indices[i] = cxp_block_pool_take_checked(pool, owner, disturbed);
    return 0;
}

/* All n blocks back, or none: 0 or 1 as give, or -1 - i when indices[i] is not
 * `owner`'s or stands there twice. O(n). */
int64_t cxp_block_pool_give_many(cxp_block_pool *pool, const uint32_t *indices,
                                 size_t n, uint32_t owner);

#endif /* CTXPOOL_BLOCK_POOL_H */
