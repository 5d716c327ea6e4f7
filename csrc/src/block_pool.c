#include "ctxpool/block_pool.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int
cxp_block_pool_init(cxp_block_pool *pool, size_t block_size, uint32_t blocks,
                    uint32_t max_blocks, size_t alignment, uint32_t flags, int huge,
                    int prefault)
{
    memset(pool, 0, sizeof *pool);
    errno = EINVAL;
    if (block_size == 0 || max_blocks == 0 || blocks > max_blocks ||
        max_blocks > CXP_MAX_BLOCKS)
        return -1;
    if (alignment == 0 || (alignment & (alignment - 1)))
        return -1;
    size_t gap = flags & CXP_DEBUG ? CXP_CANARY_SIZE : 0;
    if (block_size > SIZE_MAX - gap - alignment)
        return -1;
    size_t stride = (block_size + gap + alignment - 1) & ~(alignment - 1);
    if (max_blocks > (SIZE_MAX / 2) / stride)
        return -1;

    size_t size = stride * max_blocks, huge_page = huge ? cxp_vm_huge_page_size() : 0;
    huge = huge_page && size >= huge_page;
    if (huge && alignment < huge_page)
        alignment = huge_page;
    if (cxp_vm_map(&pool->vm, size, alignment, blocks < max_blocks))
        return -1;
    if (huge)
        cxp_vm_advise_huge(&pool->vm);
    /* Lazily zeroed by the system: a large pool is made in O(1). */
    pool->stack = calloc(max_blocks, sizeof *pool->stack);
    pool->slot = calloc(max_blocks, sizeof *pool->slot);
    if (!pool->stack || !pool->slot ||
        (prefault && blocks && cxp_vm_populate(pool->vm.base, stride * blocks))) {
        cxp_block_pool_fini(pool);
        errno = ENOMEM;
        return -1;
    }
    pool->base = pool->vm.base;
    pool->stride = stride;
    pool->block_size = block_size;
    pool->blocks = blocks;
    pool->max_blocks = max_blocks;
    pool->flags = flags;
    pool->taken = cxp_block_pool_taken;
    pool->given = cxp_block_pool_given;
    CXP_HIDE(pool->base, pool->vm.size);
    return 0;
}

uint32_t
cxp_block_pool_grow(cxp_block_pool *pool, uint32_t more)
{
    uint32_t room = pool->max_blocks - pool->blocks;
    if (pool->flags & CXP_CLOSED)
        return 0;
    if (more > room)
        more = room;
    pool->blocks += more;
    return more;
}

int
cxp_block_pool_use_slabs(cxp_block_pool *pool, uint32_t shift)
{
    size_t slabs = ((size_t)pool->max_blocks >> shift) + 1; /* the last may be short */
    pool->used = calloc(slabs, sizeof *pool->used);
    if (!pool->used)
        return -1;
    pool->slab_shift = shift;
    pool->flags |= CXP_SLABS;
    return 0;
}

uint32_t
cxp_block_pool_reserve(cxp_block_pool *pool, uint32_t more)
{
    uint32_t first = pool->blocks;
    if (pool->flags & CXP_CLOSED)
        return 0;
    /* Blocks never handed out go on the stack: below fresh none is without a place. */
    while (pool->fresh < first)
        pool->stack[pool->nfree++] = pool->fresh++;
    more = cxp_block_pool_grow(pool, more);
    for (uint32_t i = first; i < first + more; i++)
        pool->slot[i] |= CXP_ABSENT;
    pool->fresh = pool->blocks;
    pool->absent += more;
    return more;
}

void
cxp_block_pool_present(cxp_block_pool *pool, uint32_t first, uint32_t n)
{
    for (uint32_t i = first + n; i-- > first;) { /* the first will be taken first */
        pool->slot[i] &= ~(uint32_t)CXP_OWNER;
        pool->stack[pool->nfree++] = i;
    }
    pool->absent -= n;
    if (pool->flags & CXP_SLABS)
        pool->idle++;
}

int
cxp_block_pool_withdraw(cxp_block_pool *pool, uint32_t first, uint32_t n)
{
    uint32_t kept = 0;
    for (uint32_t i = first; i < first + n; i++)
        if (cxp_block_pool_owner(pool, i) != CXP_FREE)
            return -1;
    for (uint32_t i = 0; i < pool->nfree; i++)
        if (pool->stack[i] - first >= n)
            pool->stack[kept++] = pool->stack[i];
    pool->nfree = kept;
    for (uint32_t i = first; i < first + n; i++)
        pool->slot[i] = (pool->slot[i] & ~CXP_POISONED) | CXP_ABSENT;
    pool->absent += n;
    if (pool->flags & CXP_SLABS)
        pool->idle--;
    return 0;
}

uint32_t
cxp_block_pool_idle(const cxp_block_pool *pool)
{
    uint32_t slab = pool->idle ? (pool->blocks - 1) >> pool->slab_shift : 0;
    if (!pool->idle)
        return CXP_NO_BLOCK;
    /* An absent slab is absent as a whole. The last first: what is used stays low. */
    for (;; slab--) {
        uint32_t first = slab << pool->slab_shift;
        if (!pool->used[slab] && (pool->slot[first] & CXP_OWNER) == CXP_FREE)
            return first;
        if (!slab)
            return CXP_NO_BLOCK;
    }
}

static void
unmap(cxp_block_pool *pool)
{
    if (pool->in_use || pool->pins)
        return;
    CXP_SHOW(pool->vm.base, pool->vm.size);
    cxp_vm_unmap(&pool->vm);
    pool->base = NULL;
}

void
cxp_block_pool_close(cxp_block_pool *pool)
{
    if (pool->flags & CXP_CLOSED)
        return;
    pool->flags |= CXP_CLOSED;
    pool->nfree = 0;            /* take finds nothing on the stack, */
    pool->fresh = pool->blocks; /* and nothing fresh */
    unmap(pool);
}

void
cxp_block_pool_pin(cxp_block_pool *pool)
{
    pool->pins++;
}

void
cxp_block_pool_unpin(cxp_block_pool *pool)
{
    pool->pins--;
    if (pool->flags & CXP_CLOSED)
        unmap(pool);
}

void
cxp_block_pool_fini(cxp_block_pool *pool)
{
    pool->in_use = pool->pins = 0;
    unmap(pool);
    free(pool->stack);
    free(pool->slot);
    free(pool->used);
    memset(pool, 0, sizeof *pool);
}

/* The offset of the first byte that is not `value`, or n. */
static size_t
first_other(const unsigned char *p, size_t n, unsigned char value)
{
    if (n == 0 || (p[0] == value && memcmp(p, p + 1, n - 1) == 0))
        return n;
    size_t i = 0;
    while (p[i] == value)
        i++;
    return i;
}

int
cxp_block_pool_taken(cxp_block_pool *pool, uint32_t index)
{
    unsigned char *block = cxp_block_pool_at(pool, index);
    int disturbed = 0;
    if (pool->flags & CXP_SLABS && pool->used[index >> pool->slab_shift]++ == 0)
        pool->idle--;
    if (pool->flags & CXP_DEBUG) {
        if (pool->slot[index] & CXP_POISONED)
            disturbed = first_other(block, pool->block_size, CXP_POISON_FREE) !=
                        pool->block_size;
        pool->slot[index] &= ~CXP_POISONED;
        CXP_SHOW(block, pool->stride);
        memset(block, CXP_POISON_NEW, pool->block_size);
        if (pool->flags & CXP_ZERO_ON_GIVE) /* it would be zeros but for the poison */
            memset(block, 0, pool->block_size);
        memset(block + pool->block_size, CXP_CANARY, pool->stride - pool->block_size);
        CXP_HIDE(block + pool->block_size, pool->stride - pool->block_size);
    }
    if (pool->flags & CXP_ZERO_ON_TAKE)
        memset(block, 0, pool->block_size);
    return -disturbed;
}

int
cxp_block_pool_mend(cxp_block_pool *pool, uint32_t index)
{
    size_t gap = pool->stride - pool->block_size;
    unsigned char *end =
        (unsigned char *)cxp_block_pool_at(pool, index) + pool->block_size;
    CXP_SHOW(end, gap);
    int damaged = first_other(end, gap, CXP_CANARY) != gap;
    memset(end, CXP_CANARY, gap);
    CXP_HIDE(end, gap);
    return damaged;
}

int
cxp_block_pool_given(cxp_block_pool *pool, uint32_t index)
{
    unsigned char *block = cxp_block_pool_at(pool, index);
    int damaged = 0;
    if (pool->flags & CXP_SLABS && --pool->used[index >> pool->slab_shift] == 0)
        pool->idle++;
    if (pool->flags & CXP_DEBUG) {
        damaged = cxp_block_pool_mend(pool, index);
        memset(block, CXP_POISON_FREE, pool->block_size);
        pool->slot[index] |= CXP_POISONED;
    } else if (pool->flags & CXP_ZERO_ON_GIVE) {
        memset(block, 0, pool->block_size);
    }
    if (pool->flags & CXP_CLOSED) {
        pool->nfree = 0;
        unmap(pool);
    }
    return -damaged;
}

int64_t
cxp_block_pool_give_many(cxp_block_pool *pool, const uint32_t *indices, size_t n,
                         uint32_t owner)
{
    /* Disown all first: that finds a wrong or a double one while it can be undone. */
    for (size_t i = 0; i < n; i++) {
        if (cxp_block_pool_owner(pool, indices[i]) != owner) {
            for (size_t j = 0; j < i; j++)
                pool->slot[indices[j]] |= owner;
            return -1 - (int64_t)i;
        }
        pool->slot[indices[i]] &= ~(uint32_t)CXP_OWNER;
    }
    int damaged = 0;
    for (size_t i = n; i-- > 0;) { /* the first to be given is the first to be taken */
        pool->slot[indices[i]] |= owner;
        damaged |= cxp_block_pool_give(pool, indices[i], owner);
    }
    return damaged;
}

size_t
cxp_block_pool_trim(cxp_block_pool *pool)
{
    size_t freed = 0;
    if (!pool->base)
        return 0;
    /* Neighbours together: a page may span several small blocks. Huge spans are
     * given back lazily, which is a thousand times quicker; not in debug mode,
     * where what was free must not come back with its old bytes. */
    for (uint32_t begin = 0; begin < pool->blocks;) {
        uint32_t end = begin;
        while (end < pool->blocks && cxp_block_pool_owner(pool, end) == CXP_FREE) {
            if (end < pool->fresh)
                pool->slot[end] &= ~CXP_POISONED;
            end++;
        }
        if (end > begin) {
            size_t span = (size_t)(end - begin) * pool->stride;
            int lazy = span >= ((size_t)2 << 20) && !(pool->flags & CXP_DEBUG);
            freed += cxp_vm_discard(cxp_block_pool_at(pool, begin), span, lazy);
        }
        begin = end + 1;
    }
    return freed;
}

static int
slabs_are_wrong(const cxp_block_pool *pool)
{
    uint32_t idle = 0, span = (uint32_t)1 << pool->slab_shift;
    for (uint32_t first = 0; first < pool->blocks; first += span) {
        uint32_t end = pool->blocks - first < span ? pool->blocks : first + span;
        uint32_t owned = 0, absent = 0;
        for (uint32_t i = first; i < end; i++) {
            uint32_t owner = cxp_block_pool_owner(pool, i);
            owned += owner == CXP_BY_LEASE || owner == CXP_BY_INDEX;
            absent += owner == CXP_ABSENT;
        }
        if (owned != pool->used[first >> pool->slab_shift] ||
            (absent && absent != end - first))
            return 1;
        idle += !owned && !absent;
    }
    return idle != pool->idle;
}

int64_t
cxp_block_pool_check(const cxp_block_pool *pool)
{
    uint32_t owned = 0, absent = 0;
    if (pool->fresh > pool->blocks || pool->blocks > pool->max_blocks)
        return -1;
    for (uint32_t i = 0; i < pool->fresh; i++) {
        uint32_t owner = pool->slot[i] & CXP_OWNER;
        owned += owner != CXP_FREE && owner != CXP_ABSENT;
        absent += owner == CXP_ABSENT;
    }
    if (owned != pool->in_use || absent != pool->absent || pool->in_use > pool->peak)
        return -1;
    if (pool->flags & CXP_SLABS && slabs_are_wrong(pool))
        return -1;
    if (pool->takes - pool->gives != pool->in_use)
        return -1;
    if (pool->flags & CXP_CLOSED)
        return pool->nfree ? -1 : 0;
    if (pool->nfree + owned + absent != pool->fresh)
        return -1;
    for (uint32_t i = 0; i < pool->nfree; i++) {
        uint32_t index = pool->stack[i];
        if (index >= pool->fresh || (pool->slot[index] & CXP_OWNER) != CXP_FREE)
            return -1 - (int64_t)index;
        for (uint32_t j = 0; j < i; j++)
            if (pool->stack[j] == index)
                return -1 - (int64_t)index;
    }
    return 0;
}
