/* Blocks that several processes share: one sealed memfd, mapped by each of them.
 *
 *   header  what it is, its geometry; the futex; one entry per participant
 *   word    per block: {generation 26 | transit 6 | holders 32}, the whole truth
 *   since   per block: when it was taken, for reports
 *   hint    per block a bit: probably free
 *   blocks  from a page boundary on
 *
 * A participant is one attachment of one process, and has one of 32 slots. Slot s is
 * his while he holds an open-file-description lock on byte s of the file, through a
 * description that he alone opened and never maps: the kernel lets go of it when he
 * dies, of whatever cause, and no number that the system uses again (a pid) is
 * trusted, in whichever pid namespace he lives.
 *
 * Why kill -9 at any instruction loses no block and frees none in use:
 *   - A block is free when holders and transit of its word are 0. Each change of hands
 *     (take, open, give, send, recover) is one compare-and-swap of that one word, so
 *     there is no state between two states, no lock to be left held, and always a
 *     name in the word: who holds it (holders, a bit per slot), or under whose life
 *     it travels (transit, a slot plus 1).
 *   - Blocks of a dead participant come back when somebody else gets the lock on his
 *     byte, which only death or detaching frees; clears his bit and his transits; and
 *     unlocks. Whoever is killed at that lets go of the lock too, and the next one
 *     begins anew: clearing twice is clearing once.
 *   - Nobody takes a slot without doing that first.
 *   - The hints can be wrong both ways after a death. A block that seems free and is
 *     not is passed by; one that is free and does not seem so is found when take has
 *     found nothing else and walks the words themselves.
 *   - A waiter who dies leaves one bit in `waiting`, which costs a needless wake-up
 *     until it is recovered; a wake-up that died with the woken is why all waits are
 *     short and repeated.
 * A generation is one hand-out of a block. A handle names it, so that a late one is
 * refused; it would have to be late by exactly 2^26 hand-outs of one block.
 *
 * Nothing in the segment but words and counters is read after attaching, and every
 * index is checked: bytes that somebody scribbled there cannot lead outside of it. The
 * seals forbid to shrink the file, so that no access to it is a SIGBUS.
 *
 * Between processes every call is atomic. Within one participant it is not: the caller
 * serialises, as with block_pool.h; only cxp_shared_wait may run beside others. Needs
 * Linux (3.17: memfd and such locks); elsewhere create and attach fail with ENOTSUP.
 */
#ifndef CTXPOOL_SHARED_POOL_H
#define CTXPOOL_SHARED_POOL_H

#include <stddef.h>
#include <stdint.h>

#define CXP_SHARED_MAGIC        "ctxpool\x1a"
#define CXP_SHARED_VERSION      1u
#define CXP_SHARED_NATIVE       1u /* header kind: words change by compare-and-swap */
#define CXP_SHARED_PARTICIPANTS 32u
#define CXP_SHARED_MAX_BLOCKS   (1u << 24)
#define CXP_SHARED_HEADER       4096u
#define CXP_SHARED_GENERATIONS  (1u << 26)
#define CXP_SHARED_NONE         UINT32_MAX /* no block */

/* Why attach refused; positive, errors of the system are -1 with errno. */
enum {
    CXP_SHARED_FOREIGN = 1, /* no segment of ours: size, seals or magic */
    CXP_SHARED_OTHER_VERSION = 2,
    CXP_SHARED_OTHER_KIND = 3, /* made by the other implementation */
    CXP_SHARED_CORRUPT = 4,    /* its numbers contradict each other */
    CXP_SHARED_FULL = 5        /* all slots belong to living participants */
};

typedef struct cxp_shared_slot {
    uint32_t pid; /* for reports; 0: nobody has been here since the last scrub */
    uint32_t incarnation; /* how many have had this slot */
    uint64_t since_ns;    /* monotonic clock */
    uint64_t takes, opens, gives, sends, waits, exhausted, recovered;
    uint64_t spare[3];
} cxp_shared_slot;

typedef struct cxp_shared_header {
    char magic[8];
    uint32_t version, kind;
    uint64_t id; /* random: handles of other pools are told by it */
    uint64_t block_size, stride, blocks, alignment;
    uint64_t words, since, hints, data, total; /* offsets; bytes of the file */
    char name[32];                             /* UTF-8, ends with 0 */
    uint32_t wake; /* the futex: counts blocks that came back while somebody waited */
    uint32_t waiting; /* a bit per slot */
    cxp_shared_slot slot[CXP_SHARED_PARTICIPANTS];
} cxp_shared_header;

typedef struct cxp_shared_pool {
    cxp_shared_header *header;
    uint64_t *words, *since, *hints;
    unsigned char *base; /* block 0 */
    size_t block_size, stride, map_size;
    uint64_t id;
    uint32_t blocks;
    uint32_t slot;    /* mine, or CXP_SHARED_NONE: not attached (closed, or forked) */
    uint32_t bit;     /* 1 << slot */
    uint32_t last;    /* the block that came back last: still in the cache */
    uint32_t *local;  /* per block: references in this process */
    uint32_t held;    /* blocks with any */
    uint32_t waiters; /* threads of mine that wait */
    uint32_t forks;   /* how often this attachment was inherited: see below */
    int fd, lock_fd;  /* to hand on; for the locks */
    struct cxp_shared_pool *next, **link; /* all of this process */
} cxp_shared_pool;

/* Make a segment and become its first participant. `reserve` takes all memory now, so
 * that none can be missing later. 0, or -1 with errno (EINVAL: sizes). */
int cxp_shared_create(cxp_shared_pool *pool, size_t block_size, uint32_t blocks,
                      size_t alignment, const char *name, int reserve);

/* Become a participant of the segment behind `fd`, which stays the caller's. 0; -1 with
 * errno; or one of the reasons above. O(blocks). */
int cxp_shared_attach(cxp_shared_pool *pool, int fd);

/* In the child of a fork nobody is attached (slot is NONE, forks has grown, the
 * references are forgotten: they were the parent's). This attaches anew. */
int cxp_shared_rejoin(cxp_shared_pool *pool);

/* Give back whatever this participant holds or has in transit, and unmap. Twice, or of
 * a zeroed struct, does nothing. O(blocks). */
void cxp_shared_fini(cxp_shared_pool *pool);

/* A free block, now held by this process, or CXP_SHARED_NONE. O(1) but for the search
 * of the hints, 64 blocks a step; O(blocks) when there is none. */
uint32_t cxp_shared_take(cxp_shared_pool *pool);

/* Hold the block of a handle: one that `moved` ends its transit and can be opened once;
 * another adds a holder. 0, or -1: it was given back (or was opened) meanwhile. */
int cxp_shared_open(cxp_shared_pool *pool, uint32_t index, uint32_t generation,
                    int moved);

/* Drop one reference of this process; the block is free when nobody has one and it is
 * not in transit. 1 if it is free now, 0 if not, -1 if this process had none. */
int cxp_shared_give(cxp_shared_pool *pool, uint32_t index);

/* Let a block that this process holds travel, under the life of the participant in
 * slot `keeper` of that incarnation: when he dies or detaches before it is opened, it
 * is free. The own reference stays. 0; -1: it travels already; -2: no such keeper. */
int cxp_shared_send(cxp_shared_pool *pool, uint32_t index, uint32_t keeper,
                    uint32_t incarnation);

/* Take back what dead participants held; blocks that are free now. O(participants), and
 * O(blocks) for each that died. */
uint32_t cxp_shared_recover(cxp_shared_pool *pool);

/* Whether the participant in a slot lives. */
int cxp_shared_alive(cxp_shared_pool *pool, uint32_t slot);

/* To wait: begin, then `seen`, then take; if it found none, wait; take again ...; end.
 * A block that comes back after `seen` ends the wait. Returns after `ns` at the latest,
 * or early for no reason. */
void cxp_shared_wait_begin(cxp_shared_pool *pool);
void cxp_shared_wait_end(cxp_shared_pool *pool);
uint32_t cxp_shared_seen(const cxp_shared_pool *pool);
void cxp_shared_wait(const cxp_shared_pool *pool, uint32_t seen, uint64_t ns);

/* Monotonic, the same in all processes; to some milliseconds. */
uint64_t cxp_shared_now(void);

/* 0, or -1 - i for the first block of which word and references disagree. */
int64_t cxp_shared_check(const cxp_shared_pool *pool);

static inline uint64_t
cxp_shared_word(const cxp_shared_pool *pool, uint32_t index)
{
    return __atomic_load_n(&pool->words[index], __ATOMIC_SEQ_CST);
}

static inline uint32_t
cxp_shared_holders(uint64_t word)
{
    return (uint32_t)word;
}

/* The keeper's slot plus 1; 0: not in transit. */
static inline uint32_t
cxp_shared_transit(uint64_t word)
{
    return (uint32_t)(word >> 32) & 63;
}

static inline uint32_t
cxp_shared_generation(uint64_t word)
{
    return (uint32_t)(word >> 38);
}

static inline int
cxp_shared_is_free(uint64_t word)
{
    return (word & ((UINT64_C(1) << 38) - 1)) == 0;
}

static inline void *
cxp_shared_at(const cxp_shared_pool *pool, uint32_t index)
{
    return pool->base + (size_t)index * pool->stride;
}

#endif /* CTXPOOL_SHARED_POOL_H */
