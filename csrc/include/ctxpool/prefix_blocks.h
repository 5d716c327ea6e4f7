/* Blocks of tokens by number, shared by the sequences that begin alike.
 *
 * Whoever keeps something for each token of a sequence (the keys and values of a
 * transformer's attention, say) keeps it in blocks of `block_size` tokens. This is the
 * book-keeping: which sequence has which blocks, and which full block can be used again
 * by a sequence that begins with the same tokens (Kwon et al. 2023, "Efficient memory
 * management for large language model serving with PagedAttention"; the cache of blocks
 * by chained hashes is vLLM's automatic prefix caching).
 *
 *   sequence   its blocks in order; all are full but perhaps the last one
 *   block      refs: in how many sequences; hash: of all tokens up to its end
 *   table      hash -> block, for the cached blocks: open addressing, linear probing
 *   free list  the blocks with no refs, through their prev and next, in a ring that
 *              begins and ends at blocks[num_blocks]:
 *
 *              uncached, newest first | cached, least recently used first
 *              ^ taken from here                             given back here ^
 *
 * A full block is cached at once, unless an equal one is: then it stays private. A
 * cached block with no refs stays cached until it is taken. A sequence's blocks are
 * given back last block first, so that a chain is taken from its end: what is left of
 * it can be found.
 *
 * Invariants (cxp_prefix_check walks them):
 *   - refs counts a block's occurrences in live sequences, plus 1 if it is loose
 *     (taken by number, belonging to the caller);
 *   - a block is in the free list exactly while refs is 0;
 *   - a block is in the table exactly while it is cached; no two cached blocks have
 *     equal hashes; a cached block is full;
 *   - `verify`: tokens[b * block_size ...] are those of block b, as far as it is
 * filled.
 *
 * Cost: O(tokens) for lookup, touch, allocate and append; O(blocks) for free, fork,
 * take and give; nothing is allocated but a sequence's table of blocks. Memory: 32
 * bytes a block, 8 to 16 of the table, and with `verify` 4 bytes a token.
 *
 * Not thread-safe: the caller serialises. What fails changes nothing. No Python here.
 */
#ifndef CTXPOOL_PREFIX_BLOCKS_H
#define CTXPOOL_PREFIX_BLOCKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ctxpool/token_hash.h"

#define CXP_PREFIX_CACHED 1u
#define CXP_PREFIX_LOOSE  2u

typedef struct cxp_prefix_block {
    cxp_hash hash; /* if it is cached */
    uint32_t refs;
    uint32_t flags;
    uint32_t prev, next; /* if it is free */
} cxp_prefix_block;

typedef struct cxp_prefix_sequence {
    uint32_t *blocks;
    uint32_t nblocks, room;
    uint64_t tokens;
    cxp_hash hash; /* of all its tokens */
    cxp_hash full; /* of those in full blocks */
    uint32_t generation;
    uint32_t next_free; /* slot, if it is not live */
    bool live;
} cxp_prefix_sequence;

enum { CXP_PREFIX_STORED, CXP_PREFIX_REMOVED, CXP_PREFIX_CLEARED };

/* `block` was cached under `hash`, after the block (or start) `parent`; or is no
 * longer; or none is. */
typedef struct cxp_prefix_event {
    cxp_hash hash, parent;
    uint32_t kind, block;
} cxp_prefix_event;

typedef struct cxp_prefix_blocks {
    cxp_prefix_block *blocks;
    uint32_t *table; /* block + 1, or 0 */
    int32_t *tokens; /* NULL without `verify` */
    cxp_hash *powers;
    uint64_t mask; /* slots of the table - 1 */
    uint32_t num_blocks, block_size;
    uint32_t nfree, ncached, peak;

    cxp_prefix_sequence *sequences;
    uint32_t slots, live, free_slot;

    cxp_prefix_event *events; /* a ring of `room`: the oldest at `oldest` */
    size_t event_room, event_count, event_oldest;

    uint64_t queried_tokens, hit_tokens; /* by allocate */
    uint64_t evictions, exhausted, events_dropped;
} cxp_prefix_blocks;

/* What append did: the sequence's last `added` blocks are new; the first of them
 * replaces `copied_from`, when that is not num_blocks, and begins with its tokens. */
typedef struct cxp_prefix_growth {
    uint32_t added, copied_from;
} cxp_prefix_growth;

/* 0, or -1: no memory. All of it is touched here. */
int cxp_prefix_init(cxp_prefix_blocks *p, uint32_t num_blocks, uint32_t block_size,
                    bool verify, size_t events, cxp_hash key);
void cxp_prefix_fini(cxp_prefix_blocks *p);

/* How many blocks, from the first on, are cached. */
size_t cxp_prefix_lookup(const cxp_prefix_blocks *p, cxp_hash start,
                         const int32_t *tokens, size_t n);

/* The same; and they are now those used last. */
size_t cxp_prefix_touch(cxp_prefix_blocks *p, cxp_hash start, const int32_t *tokens,
                        size_t n);

/* A sequence of n tokens: its handle, its blocks to `out` (room for one per block_size
 * tokens, rounded up), and how many of them were cached. 0, ENOSPC or ENOMEM. */
int cxp_prefix_allocate(cxp_prefix_blocks *p, cxp_hash start, const int32_t *tokens,
                        size_t n, uint64_t *handle, int32_t *out, size_t *cached);

/* The live sequence of this handle, or NULL. */
cxp_prefix_sequence *cxp_prefix_find(const cxp_prefix_blocks *p, uint64_t handle);

/* Blocks that must be free to append n tokens. */
size_t cxp_prefix_wanted(const cxp_prefix_blocks *p, const cxp_prefix_sequence *s,
                         size_t n);

/* Add n tokens. `fresh`: room for cxp_prefix_wanted blocks. 0, ENOSPC or ENOMEM. */
int cxp_prefix_append(cxp_prefix_blocks *p, cxp_prefix_sequence *s,
                      const int32_t *tokens, size_t n, int32_t *fresh,
                      cxp_prefix_growth *growth);

/* Another sequence with the same blocks, also the last one, that either of the two
 * copies when it grows in it. 0 or ENOMEM. */
int cxp_prefix_fork(cxp_prefix_blocks *p, uint64_t handle, uint64_t *forked);

/* End a sequence; from block `computed` on its blocks are to be found no more. */
void cxp_prefix_free(cxp_prefix_blocks *p, uint64_t handle, uint32_t computed);

/* n blocks of no sequence, for the caller. 0 or ENOSPC. */
int cxp_prefix_take(cxp_prefix_blocks *p, size_t n, int32_t *out);

/* Give them back: n, or the index of one that is not out, or there twice. */
size_t cxp_prefix_give(cxp_prefix_blocks *p, const int32_t *blocks, size_t n);

/* Cache nothing any more; how many blocks were. */
uint32_t cxp_prefix_reset(cxp_prefix_blocks *p);

/* The oldest event, taken from the ring; false if there is none. */
bool cxp_prefix_next_event(cxp_prefix_blocks *p, cxp_prefix_event *event);

/* 0, or the line of the invariant that is broken. For tests: O(blocks + sequences). */
int cxp_prefix_check(const cxp_prefix_blocks *p);

#endif /* CTXPOOL_PREFIX_BLOCKS_H */
