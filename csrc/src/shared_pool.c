#define _GNU_SOURCE /* F_OFD_SETLK, F_ADD_SEALS, syscall */
#include "ctxpool/shared_pool.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <linux/futex.h>
#include <sys/syscall.h>
#endif

#if defined(__linux__) && defined(SYS_memfd_create) && defined(SYS_getrandom)
#define SUPPORTED 1
/* The kernel's numbers, which older headers of the C library lack. */
#ifndef F_OFD_SETLK
#define F_OFD_GETLK 36
#define F_OFD_SETLK 37
#endif
#ifndef F_ADD_SEALS
#define F_ADD_SEALS   1033
#define F_GET_SEALS   1034
#define F_SEAL_SEAL   1
#define F_SEAL_SHRINK 2
#define F_SEAL_GROW   4
#endif
#define CLOEXEC_AND_SEALING 3u /* of memfd_create */
#define NOEXEC_SEAL         8u /* Linux 6.3; some systems refuse to do without */
#define SEALED              (F_SEAL_SHRINK | F_SEAL_GROW)
#else
#define SUPPORTED 0
#endif

#define TRANSIT(slot) ((uint64_t)((slot) + 1) << 32)
#define TRANSIT_MASK  (UINT64_C(63) << 32)

_Static_assert(sizeof(cxp_shared_header) <= CXP_SHARED_HEADER, "the header is a page");
_Static_assert(sizeof(cxp_shared_slot) == 96, "the same on all builds");

/* ---- All pools of this process, for the child of a fork ----
 *
 * A child inherits the description of the parent's lock: it must close it, or the
 * parent would seem to live for as long as the child does. */

static cxp_shared_pool *pools;
static pthread_mutex_t pools_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void
before_fork(void)
{
    pthread_mutex_lock(&pools_lock);
}

static void
after_fork(void)
{
    pthread_mutex_unlock(&pools_lock);
}

static void
after_fork_in_child(void)
{
    for (cxp_shared_pool *pool = pools; pool; pool = pool->next) {
        if (pool->lock_fd >= 0)
            close(pool->lock_fd); /* the lock stays the parent's */
        pool->lock_fd = -1;
        pool->slot = CXP_SHARED_NONE;
        pool->bit = pool->held = pool->waiters = 0;
        pool->forks++;
        memset(pool->local, 0, pool->blocks * sizeof *pool->local);
    }
    pthread_mutex_unlock(&pools_lock);
}

static void
register_fork(void)
{
    pthread_atfork(before_fork, after_fork, after_fork_in_child);
}

static void
enlist(cxp_shared_pool *pool)
{
    pthread_once(&once, register_fork);
    pthread_mutex_lock(&pools_lock);
    pool->next = pools;
    pool->link = &pools;
    if (pools)
        pools->link = &pool->next;
    pools = pool;
    pthread_mutex_unlock(&pools_lock);
}

static void
strike(cxp_shared_pool *pool)
{
    pthread_mutex_lock(&pools_lock);
    if (pool->link) {
        *pool->link = pool->next;
        if (pool->next)
            pool->next->link = pool->link;
    }
    pool->link = NULL;
    pthread_mutex_unlock(&pools_lock);
}

/* ---- Words ---- */

uint64_t
cxp_shared_now(void)
{
    struct timespec now;
#ifdef CLOCK_MONOTONIC_COARSE
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
#else
    clock_gettime(CLOCK_MONOTONIC, &now);
#endif
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static int
swap(cxp_shared_pool *pool, uint32_t index, uint64_t *old, uint64_t new_word)
{
    return __atomic_compare_exchange_n(&pool->words[index], old, new_word, 0,
                                       __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

static void
count(uint64_t *counter)
{
    /* Only its participant writes it; others read it. */
    __atomic_store_n(counter, *counter + 1, __ATOMIC_RELAXED);
}

static void
hint_free(cxp_shared_pool *pool, uint32_t index)
{
    __atomic_fetch_or(&pool->hints[index / 64], UINT64_C(1) << index % 64,
                      __ATOMIC_SEQ_CST);
}

static void
hint_taken(cxp_shared_pool *pool, uint32_t index)
{
    __atomic_fetch_and(&pool->hints[index / 64], ~(UINT64_C(1) << index % 64),
                       __ATOMIC_SEQ_CST);
}

/* A block is free: say so, and wake one who waits. */
static void
freed(cxp_shared_pool *pool, uint32_t index)
{
    hint_free(pool, index);
#if SUPPORTED
    if (__atomic_load_n(&pool->header->waiting, __ATOMIC_SEQ_CST)) {
        __atomic_fetch_add(&pool->header->wake, 1, __ATOMIC_SEQ_CST);
        syscall(SYS_futex, &pool->header->wake, FUTEX_WAKE, 1, NULL, NULL, 0);
    }
#endif
}

/* Take `holder`'s bit and, with `transit`, that transit out of a word: 1 if it is free
 * now, 0 if not, -1 if nothing of it was there. */
static int
withdraw(cxp_shared_pool *pool, uint32_t index, uint32_t holder, uint64_t transit)
{
    uint64_t old = cxp_shared_word(pool, index), new_word;
    do {
        new_word = old & ~(uint64_t)holder;
        if (transit && (old & TRANSIT_MASK) == transit)
            new_word &= ~TRANSIT_MASK;
        if (new_word == old)
            return -1;
    } while (!swap(pool, index, &old, new_word));
    if (!cxp_shared_is_free(new_word))
        return 0;
    freed(pool, index);
    return 1;
}

/* ---- Slots ---- */

#if SUPPORTED
static int
lock(const cxp_shared_pool *pool, uint32_t slot, int command, short type)
{
    struct flock range = {.l_type = type, .l_whence = SEEK_SET, .l_len = 1};
    range.l_start = (off_t)slot;
    if (fcntl(pool->lock_fd, command, &range))
        return -1;
    return range.l_type;
}
#endif

/* With the lock of the slot: nothing of its last participant stays. */
static uint32_t
scrub(cxp_shared_pool *pool, uint32_t slot)
{
    uint32_t free_now = 0;
    cxp_shared_slot *was = &pool->header->slot[slot];
    /* First: who sends a block into this slot from now on finds out, see send. */
    __atomic_fetch_add(&was->incarnation, 1, __ATOMIC_SEQ_CST);
    __atomic_fetch_and(&pool->header->waiting, ~(1u << slot), __ATOMIC_SEQ_CST);
    for (uint32_t i = 0; i < pool->blocks; i++)
        free_now += withdraw(pool, i, 1u << slot, TRANSIT(slot)) == 1;
    /* The last step: a scrub that is cut short is done again. */
    __atomic_store_n(&was->pid, 0, __ATOMIC_SEQ_CST);
    return free_now;
}

int
cxp_shared_alive(cxp_shared_pool *pool, uint32_t slot)
{
    if (slot == pool->slot)
        return 1;
#if SUPPORTED
    return lock(pool, slot, F_OFD_GETLK, F_WRLCK) != F_UNLCK;
#else
    return 0;
#endif
}

uint32_t
cxp_shared_recover(cxp_shared_pool *pool)
{
    uint32_t recovered = 0;
#if SUPPORTED
    uint64_t named = 0; /* slots that words name: transits are slots plus 1 */
    for (uint32_t i = 0; i < pool->blocks; i++) {
        uint64_t word = cxp_shared_word(pool, i);
        named |= cxp_shared_holders(word);
        if (cxp_shared_transit(word))
            named |= UINT64_C(1) << (cxp_shared_transit(word) - 1);
    }
    for (uint32_t s = 0; s < CXP_SHARED_PARTICIPANTS; s++) {
        uint32_t pid = __atomic_load_n(&pool->header->slot[s].pid, __ATOMIC_SEQ_CST);
        if (s == pool->slot || !(pid || named >> s & 1))
            continue;
        if (lock(pool, s, F_OFD_SETLK, F_WRLCK) < 0)
            continue; /* it lives */
        recovered += scrub(pool, s);
        lock(pool, s, F_OFD_SETLK, F_UNLCK);
    }
    pool->header->slot[pool->slot].recovered += recovered;
#endif
    return recovered;
}

int
cxp_shared_rejoin(cxp_shared_pool *pool)
{
#if SUPPORTED
    char path[32];
    if (pool->slot != CXP_SHARED_NONE)
        return 0;
    snprintf(path, sizeof path, "/proc/self/fd/%d", pool->fd);
    pthread_mutex_lock(&pools_lock); /* no fork sees it open and not in lock_fd */
    pool->lock_fd = open(path, O_RDWR | O_CLOEXEC); /* a description of its own */
    pthread_mutex_unlock(&pools_lock);
    if (pool->lock_fd < 0)
        return -1;
    for (uint32_t s = 0; s < CXP_SHARED_PARTICIPANTS; s++) {
        if (lock(pool, s, F_OFD_SETLK, F_WRLCK) < 0) {
            if (errno == EAGAIN || errno == EACCES)
                continue;
            break;
        }
        cxp_shared_slot *mine = &pool->header->slot[s];
        scrub(pool, s);
        uint32_t incarnation = mine->incarnation;
        memset(mine, 0, sizeof *mine);
        mine->since_ns = cxp_shared_now();
        __atomic_store_n(&mine->incarnation, incarnation, __ATOMIC_SEQ_CST);
        /* Before the first block: who finds a pid looks for what it left. */
        __atomic_store_n(&mine->pid, (uint32_t)getpid(), __ATOMIC_SEQ_CST);
        pool->slot = s;
        pool->bit = 1u << s;
        return 0;
    }
    int reason = errno == EAGAIN || errno == EACCES ? CXP_SHARED_FULL : -1;
    int error = errno;
    close(pool->lock_fd);
    pool->lock_fd = -1;
    errno = error;
    return reason;
#else
    (void)pool;
    errno = ENOTSUP;
    return -1;
#endif
}

/* ---- The segment ---- */

static uint64_t
round_up(uint64_t n, uint64_t unit)
{
    return (n + unit - 1) & ~(unit - 1);
}

/* Everything that follows from block_size, blocks and alignment; -1 if they are bad. */
static int
lay_out(cxp_shared_header *h)
{
    if (h->block_size == 0 || h->blocks == 0 || h->blocks > CXP_SHARED_MAX_BLOCKS ||
        h->alignment == 0 || h->alignment & (h->alignment - 1) ||
        h->alignment > CXP_SHARED_HEADER || h->name[sizeof h->name - 1] ||
        h->block_size > (uint64_t)INT64_MAX / 2)
        return -1;
    h->stride = round_up(h->block_size, h->alignment);
    h->words = CXP_SHARED_HEADER;
    h->since = h->words + 8 * h->blocks;
    h->hints = h->since + 8 * h->blocks;
    h->data = round_up(h->hints + 8 * ((h->blocks + 63) / 64), CXP_SHARED_HEADER);
    if (h->stride > ((uint64_t)INT64_MAX / 2 - h->data) / h->blocks)
        return -1;
    h->total = round_up(h->data + h->stride * h->blocks, CXP_SHARED_HEADER);
    return 0;
}

#if SUPPORTED
/* Map what the header describes, and take a slot. */
static int
join(cxp_shared_pool *pool, const cxp_shared_header *h)
{
    void *map = mmap(NULL, h->total, PROT_READ | PROT_WRITE, MAP_SHARED, pool->fd, 0);
    if (map == MAP_FAILED)
        return -1;
    pool->header = map;
    pool->map_size = h->total;
    pool->words = (uint64_t *)(void *)((char *)map + h->words);
    pool->since = (uint64_t *)(void *)((char *)map + h->since);
    pool->hints = (uint64_t *)(void *)((char *)map + h->hints);
    pool->base = (unsigned char *)map + h->data;
    pool->block_size = h->block_size;
    pool->stride = h->stride;
    pool->blocks = (uint32_t)h->blocks;
    pool->id = h->id;
    pool->local = calloc(h->blocks, sizeof *pool->local);
    if (!pool->local)
        return -1;
    enlist(pool);
    return cxp_shared_rejoin(pool);
}
#endif

static void
begin(cxp_shared_pool *pool)
{
    memset(pool, 0, sizeof *pool);
    pool->fd = pool->lock_fd = -1;
    pool->slot = CXP_SHARED_NONE;
    pool->last = CXP_SHARED_NONE;
}

static int
failed(cxp_shared_pool *pool, int reason)
{
    int error = errno;
    cxp_shared_fini(pool);
    errno = error;
    return reason;
}

int
cxp_shared_create(cxp_shared_pool *pool, size_t block_size, uint32_t blocks,
                  size_t alignment, const char *name, int reserve)
{
    begin(pool);
    cxp_shared_header h;
    memset(&h, 0, sizeof h);
    memcpy(h.magic, CXP_SHARED_MAGIC, sizeof h.magic);
    h.version = CXP_SHARED_VERSION;
    h.kind = CXP_SHARED_NATIVE;
    h.block_size = block_size;
    h.blocks = blocks;
    h.alignment = alignment;
    if (lay_out(&h) || strlen(name) >= sizeof h.name) {
        errno = EINVAL;
        return -1;
    }
    memcpy(h.name, name, strlen(name));
#if SUPPORTED
    if (syscall(SYS_getrandom, &h.id, sizeof h.id, 0) != (long)sizeof h.id)
        return -1;
    unsigned flags = CLOEXEC_AND_SEALING | NOEXEC_SEAL;
    pool->fd = (int)syscall(SYS_memfd_create, "ctxpool", flags);
    if (pool->fd < 0 && errno == EINVAL)
        pool->fd = (int)syscall(SYS_memfd_create, "ctxpool", CLOEXEC_AND_SEALING);
    if (pool->fd < 0 || ftruncate(pool->fd, (off_t)h.total) ||
        fcntl(pool->fd, F_ADD_SEALS, SEALED | F_SEAL_SEAL) ||
        pwrite(pool->fd, &h, sizeof h, 0) != (ssize_t)sizeof h)
        return failed(pool, -1);
    int error = reserve ? posix_fallocate(pool->fd, 0, (off_t)h.total) : 0;
    if (error) {
        errno = error;
        return failed(pool, -1);
    }
    int reason = join(pool, &h);
    if (reason)
        return failed(pool, reason);
    for (uint32_t i = 0; i < blocks; i++)
        hint_free(pool, i);
    return 0;
#else
    (void)reserve;
    errno = ENOTSUP;
    return -1;
#endif
}

int
cxp_shared_attach(cxp_shared_pool *pool, int fd)
{
    begin(pool);
#if SUPPORTED
    cxp_shared_header h, computed;
    struct stat file;
    if (fstat(fd, &file))
        return -1;
    int sealed = fcntl(fd, F_GET_SEALS);
    if (sealed < 0 || (sealed & SEALED) != SEALED ||
        pread(fd, &h, sizeof h, 0) != (ssize_t)sizeof h ||
        memcmp(h.magic, CXP_SHARED_MAGIC, sizeof h.magic))
        return CXP_SHARED_FOREIGN;
    if (h.version != CXP_SHARED_VERSION)
        return CXP_SHARED_OTHER_VERSION;
    if (h.kind != CXP_SHARED_NATIVE)
        return CXP_SHARED_OTHER_KIND;
    computed = h;
    if (lay_out(&computed) || memcmp(&computed, &h, sizeof h) ||
        h.total != (uint64_t)file.st_size)
        return CXP_SHARED_CORRUPT;
    pool->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (pool->fd < 0)
        return -1;
    int reason = join(pool, &h);
    return reason ? failed(pool, reason) : 0;
#else
    (void)fd;
    (void)failed;
    errno = ENOTSUP;
    return -1;
#endif
}

void
cxp_shared_fini(cxp_shared_pool *pool)
{
    if (pool->slot != CXP_SHARED_NONE && pool->header)
        scrub(pool, pool->slot);
    if (pool->link)
        strike(pool);
    if (pool->lock_fd >= 0)
        close(pool->lock_fd); /* and with it the lock */
    if (pool->fd >= 0)
        close(pool->fd);
    if (pool->header)
        munmap(pool->header, pool->map_size);
    free(pool->local);
    begin(pool);
}

/* ---- Blocks ---- */

static void
hold(cxp_shared_pool *pool, uint32_t index)
{
    if (pool->local[index]++ == 0)
        pool->held++;
}

static int
claim(cxp_shared_pool *pool, uint32_t index)
{
    uint64_t old = cxp_shared_word(pool, index);
    do {
        if (!cxp_shared_is_free(old))
            return 0;
    } while (!swap(pool, index, &old, old + (UINT64_C(1) << 38) + pool->bit));
    hint_taken(pool, index);
    __atomic_store_n(&pool->since[index], cxp_shared_now(), __ATOMIC_RELAXED);
    hold(pool, index);
    count(&pool->header->slot[pool->slot].takes);
    return 1;
}

static uint32_t
claim_hinted(cxp_shared_pool *pool)
{
    uint32_t n = (pool->blocks + 63) / 64;
    uint32_t first = pool->last == CXP_SHARED_NONE ? 0 : pool->last / 64;
    for (uint32_t k = 0; k < n; k++) {
        uint32_t at = first + k < n ? first + k : first + k - n;
        uint64_t bits = __atomic_load_n(&pool->hints[at], __ATOMIC_SEQ_CST);
        for (; bits; bits &= bits - 1) {
            uint32_t index = at * 64 + (uint32_t)__builtin_ctzll(bits);
            if (index >= pool->blocks)
                break;
            if (claim(pool, index))
                return index;
            /* A wrong hint. Its block may come back just now: look again. */
            hint_taken(pool, index);
            if (cxp_shared_is_free(cxp_shared_word(pool, index)))
                hint_free(pool, index);
        }
    }
    return CXP_SHARED_NONE;
}

uint32_t
cxp_shared_take(cxp_shared_pool *pool)
{
    if (pool->last != CXP_SHARED_NONE && claim(pool, pool->last))
        return pool->last;
    uint32_t index = claim_hinted(pool);
    if (index != CXP_SHARED_NONE)
        return pool->last = index;
    for (index = 0; index < pool->blocks; index++)
        if (claim(pool, index))
            return pool->last = index;
    return CXP_SHARED_NONE;
}

int
cxp_shared_open(cxp_shared_pool *pool, uint32_t index, uint32_t generation, int moved)
{
    if (index >= pool->blocks)
        return -1;
    uint64_t old = cxp_shared_word(pool, index), new_word;
    do {
        if (cxp_shared_generation(old) != generation || cxp_shared_is_free(old) ||
            (moved && !cxp_shared_transit(old)))
            return -1;
        new_word = (moved ? old & ~TRANSIT_MASK : old) | pool->bit;
    } while (!swap(pool, index, &old, new_word));
    hold(pool, index);
    count(&pool->header->slot[pool->slot].opens);
    return 0;
}

int
cxp_shared_give(cxp_shared_pool *pool, uint32_t index)
{
    if (index >= pool->blocks || pool->slot == CXP_SHARED_NONE || !pool->local[index])
        return -1;
    count(&pool->header->slot[pool->slot].gives);
    if (--pool->local[index])
        return 0;
    pool->held--;
    int free_now = withdraw(pool, index, pool->bit, 0);
    if (free_now == 1)
        pool->last = index;
    return free_now;
}

int
cxp_shared_send(cxp_shared_pool *pool, uint32_t index, uint32_t keeper,
                uint32_t incarnation)
{
    if (keeper >= CXP_SHARED_PARTICIPANTS)
        return -2;
    const cxp_shared_slot *slot = &pool->header->slot[keeper];
    uint64_t old = cxp_shared_word(pool, index);
    do {
        if (old & TRANSIT_MASK)
            return -1;
        if (__atomic_load_n(&slot->incarnation, __ATOMIC_SEQ_CST) != incarnation ||
            !__atomic_load_n(&slot->pid, __ATOMIC_SEQ_CST))
            return -2;
    } while (!swap(pool, index, &old, old | TRANSIT(keeper)));
    /* Was it too late for his scrub to see it? (Who is killed right here leaves a word
     * that names a slot, which a recovery finds, or its next participant's scrub.) */
    if (__atomic_load_n(&slot->incarnation, __ATOMIC_SEQ_CST) != incarnation ||
        !__atomic_load_n(&slot->pid, __ATOMIC_SEQ_CST)) {
        withdraw(pool, index, 0, TRANSIT(keeper));
        return -2;
    }
    count(&pool->header->slot[pool->slot].sends);
    return 0;
}

/* ---- Waiting ---- */

void
cxp_shared_wait_begin(cxp_shared_pool *pool)
{
    if (pool->waiters++ == 0)
        __atomic_fetch_or(&pool->header->waiting, pool->bit, __ATOMIC_SEQ_CST);
    count(&pool->header->slot[pool->slot].waits);
}

void
cxp_shared_wait_end(cxp_shared_pool *pool)
{
    if (pool->waiters && --pool->waiters == 0)
        __atomic_fetch_and(&pool->header->waiting, ~pool->bit, __ATOMIC_SEQ_CST);
}

uint32_t
cxp_shared_seen(const cxp_shared_pool *pool)
{
    return __atomic_load_n(&pool->header->wake, __ATOMIC_SEQ_CST);
}

void
cxp_shared_wait(const cxp_shared_pool *pool, uint32_t seen, uint64_t ns)
{
    struct timespec time = {.tv_sec = (time_t)(ns / 1000000000u)};
    time.tv_nsec = (long)(ns % 1000000000u);
#if SUPPORTED
    syscall(SYS_futex, &pool->header->wake, FUTEX_WAIT, seen, &time, NULL, 0);
#else
    (void)pool;
    (void)seen;
    nanosleep(&time, NULL);
#endif
}

int64_t
cxp_shared_check(const cxp_shared_pool *pool)
{
    uint32_t held = 0;
    for (uint32_t i = 0; i < pool->blocks; i++) {
        int mine = (cxp_shared_holders(cxp_shared_word(pool, i)) & pool->bit) != 0;
        if (mine != (pool->local[i] != 0))
            return -1 - (int64_t)i;
        held += (uint32_t)mine;
    }
    return held == pool->held ? 0 : -1 - (int64_t)pool->blocks;
}
