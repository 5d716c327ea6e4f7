#define _GNU_SOURCE /* memfd_create */
#include "ctxpool/shared_pool.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#ifdef __linux__
#include <sys/ptrace.h>
#endif
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"

enum { BLOCKS = 150, SIZE = 200 };

static uint32_t
count_free(const cxp_shared_pool *pool)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < pool->blocks; i++)
        n += (uint32_t)cxp_shared_is_free(cxp_shared_word(pool, i));
    return n;
}

static uint32_t
generation(const cxp_shared_pool *pool, uint32_t index)
{
    return cxp_shared_generation(cxp_shared_word(pool, index));
}

static int
send_as_mine(cxp_shared_pool *pool, uint32_t index)
{
    return cxp_shared_send(pool, index, pool->slot,
                           pool->header->slot[pool->slot].incarnation);
}

static void
test_one_participant(void)
{
    cxp_shared_pool pool;
    CHECK(cxp_shared_create(&pool, 0, 1, 64, "", 0) == -1 && errno == EINVAL);
    CHECK(cxp_shared_create(&pool, SIZE, BLOCKS, 64, "name", 1) == 0);
    CHECK(pool.stride == 256 && strcmp(pool.header->name, "name") == 0);
    for (uint32_t i = 0; i < BLOCKS; i++) {
        uint32_t index = cxp_shared_take(&pool);
        CHECK(index < BLOCKS && generation(&pool, index) == 1);
        memset(cxp_shared_at(&pool, index), (int)index, SIZE);
    }
    CHECK(pool.held == BLOCKS && cxp_shared_check(&pool) == 0);
    CHECK(cxp_shared_take(&pool) == CXP_SHARED_NONE);
    CHECK(cxp_shared_give(&pool, 70) == 1);
    CHECK(cxp_shared_give(&pool, 70) == -1 && cxp_shared_give(&pool, BLOCKS) == -1);
    CHECK(cxp_shared_open(&pool, 70, 1, 0) == -1); /* it is free */
    CHECK(cxp_shared_take(&pool) == 70 && generation(&pool, 70) == 2);
    CHECK(cxp_shared_open(&pool, 70, 1, 0) == -1); /* another hand-out */
    CHECK(cxp_shared_open(&pool, 70, 2, 1) == -1); /* not in transit */
    CHECK(cxp_shared_open(&pool, 70, 2, 0) == 0);  /* a second reference */
    CHECK(cxp_shared_give(&pool, 70) == 0 && cxp_shared_give(&pool, 70) == 1);
    /* A block whose hint was lost is found all the same. */
    memset(pool.hints, 0, 8 * ((BLOCKS + 63) / 64));
    pool.last = CXP_SHARED_NONE;
    CHECK(cxp_shared_take(&pool) == 70);
    /* And wrong hints lead nowhere, not even beyond the end. */
    memset(pool.hints, 0xFF, 8 * ((BLOCKS + 63) / 64));
    CHECK(cxp_shared_take(&pool) == CXP_SHARED_NONE);
    cxp_shared_fini(&pool);
    cxp_shared_fini(&pool);
}

static void
test_hand_over(void)
{
    cxp_shared_pool a, b, c;
    CHECK(cxp_shared_create(&a, SIZE, 4, 64, "", 0) == 0);
    CHECK(cxp_shared_attach(&b, a.fd) == 0 && cxp_shared_attach(&c, a.fd) == 0);
    CHECK(a.id == b.id && a.slot != b.slot);
    uint32_t i = cxp_shared_take(&a), g = generation(&a, i);
    memcpy(cxp_shared_at(&a, i), "hello", 6);
    /* Shared: as long as anybody holds it. */
    CHECK(cxp_shared_open(&b, i, g, 0) == 0);
    CHECK(strcmp(cxp_shared_at(&b, i), "hello") == 0);
    CHECK(cxp_shared_give(&a, i) == 0 && cxp_shared_give(&b, i) == 1);
    /* Moved: once. */
    i = cxp_shared_take(&a), g = generation(&a, i);
    CHECK(send_as_mine(&a, i) == 0 && send_as_mine(&a, i) == -1);
    CHECK(cxp_shared_give(&a, i) == 0 && count_free(&a) == 3);
    CHECK(cxp_shared_open(&b, i, g, 1) == 0 && cxp_shared_open(&c, i, g, 1) == -1);
    CHECK(cxp_shared_give(&b, i) == 1);
    /* The sender goes before it is opened: under his life, or under the receiver's. */
    i = cxp_shared_take(&b), g = generation(&b, i);
    CHECK(send_as_mine(&b, i) == 0);
    uint32_t j = cxp_shared_take(&b), gj = generation(&b, j);
    uint32_t incarnation = a.header->slot[a.slot].incarnation;
    CHECK(cxp_shared_send(&b, j, a.slot, incarnation + 1) == -2);
    CHECK(cxp_shared_send(&b, j, 31, 0) == -2 && cxp_shared_send(&b, j, 32, 0) == -2);
    CHECK(cxp_shared_send(&b, j, a.slot, incarnation) == 0);
    cxp_shared_fini(&b);
    CHECK(cxp_shared_open(&a, i, g, 1) == -1 && cxp_shared_open(&a, j, gj, 1) == 0);
    CHECK(cxp_shared_give(&a, j) == 1 && count_free(&a) == 4);
    cxp_shared_fini(&a);
    CHECK(cxp_shared_take(&c) != CXP_SHARED_NONE); /* no participant is special */
    cxp_shared_fini(&c);
}

static void
test_slots_run_out(void)
{
    cxp_shared_pool all[CXP_SHARED_PARTICIPANTS], more;
    CHECK(cxp_shared_create(&all[0], 8, 1, 8, "", 0) == 0);
    for (uint32_t i = 1; i < CXP_SHARED_PARTICIPANTS; i++)
        CHECK(cxp_shared_attach(&all[i], all[0].fd) == 0);
    CHECK(cxp_shared_attach(&more, all[0].fd) == CXP_SHARED_FULL);
    cxp_shared_fini(&all[7]);
    CHECK(cxp_shared_attach(&all[7], all[0].fd) == 0 && all[7].slot == 7);
    for (uint32_t i = 0; i < CXP_SHARED_PARTICIPANTS; i++)
        cxp_shared_fini(&all[i]);
}

static void
damage(off_t where, uint8_t byte, int expected)
{
    cxp_shared_pool pool, other;
    CHECK(cxp_shared_create(&pool, SIZE, 4, 64, "", 0) == 0);
    CHECK(pwrite(pool.fd, &byte, 1, where) == 1);
    CHECK(cxp_shared_attach(&other, pool.fd) == expected);
    cxp_shared_fini(&pool);
}

static void
test_damaged_headers(void)
{
    cxp_shared_pool pool;
    damage(0, 'x', CXP_SHARED_FOREIGN);
    damage(offsetof(cxp_shared_header, version), 9, CXP_SHARED_OTHER_VERSION);
    damage(offsetof(cxp_shared_header, kind), 2, CXP_SHARED_OTHER_KIND);
    damage(offsetof(cxp_shared_header, name) + 31, 'x', CXP_SHARED_CORRUPT);
    for (off_t at = offsetof(cxp_shared_header, block_size);
         at < (off_t)offsetof(cxp_shared_header, name); at++)
        damage(at, 0xA5, CXP_SHARED_CORRUPT);
    CHECK(cxp_shared_attach(&pool, -1) == -1 && errno == EBADF);
    int null = open("/dev/null", O_RDWR);
    CHECK(cxp_shared_attach(&pool, null) == CXP_SHARED_FOREIGN);
    close(null);
    /* Nobody can take the memory away. */
    CHECK(cxp_shared_create(&pool, SIZE, 4, 64, "", 0) == 0);
    CHECK(ftruncate(pool.fd, 0) == -1 && errno == EPERM);
    cxp_shared_fini(&pool);
}

/* In a child: whatever there is to do, until it is killed. */
static void
busy(cxp_shared_pool *pool, unsigned seed)
{
    uint32_t mine[8] = {0}, n = 0;
    if (cxp_shared_rejoin(pool))
        _exit(1);
    for (;;) {
        seed = seed * 1103515245u + 12345u;
        unsigned what = seed >> 16 & 7;
        if (what < 3 && n < 8) {
            uint32_t index = cxp_shared_take(pool);
            if (index == CXP_SHARED_NONE)
                continue;
            /* Nobody else may have it: the owner's mark must stay. */
            uint32_t *mark = cxp_shared_at(pool, index);
            __atomic_store_n(mark, (uint32_t)getpid(), __ATOMIC_SEQ_CST);
            mine[n++] = index;
        } else if (what < 6 && n) {
            uint32_t index = mine[--n];
            uint32_t *mark = cxp_shared_at(pool, index);
            if (__atomic_load_n(mark, __ATOMIC_SEQ_CST) != (uint32_t)getpid())
                _exit(2);
            cxp_shared_give(pool, index);
        } else if (what == 6 && n) {
            send_as_mine(pool, mine[--n]); /* which nobody opens */
            cxp_shared_give(pool, mine[n]);
        } else {
            cxp_shared_recover(pool);
        }
    }
}

static void
test_kill(void)
{
    cxp_shared_pool pool;
    enum { CHILDREN = 3, ROUNDS = 60 };
    CHECK(cxp_shared_create(&pool, SIZE, BLOCKS, 64, "", 0) == 0);
    pid_t child[CHILDREN] = {0};
    for (unsigned round = 0; round < ROUNDS; round++) {
        unsigned at = round % CHILDREN;
        if (child[at]) {
            int status;
            kill(child[at], SIGKILL);
            waitpid(child[at], &status, 0);
            CHECK(WIFSIGNALED(status)); /* no child found a block of another's */
        }
        child[at] = fork();
        if (child[at] == 0)
            busy(&pool, round);
        usleep(1000 + 977 * (round % 7));
        uint32_t index = cxp_shared_take(&pool); /* the parent goes on */
        if (index != CXP_SHARED_NONE)
            cxp_shared_give(&pool, index);
    }
    for (unsigned at = 0; at < CHILDREN; at++) {
        kill(child[at], SIGKILL);
        waitpid(child[at], NULL, 0);
    }
    cxp_shared_recover(&pool);
    CHECK(count_free(&pool) == BLOCKS && cxp_shared_check(&pool) == 0);
    CHECK(pool.header->waiting == 0);
    cxp_shared_fini(&pool);
}

#ifdef __linux__
static void
hand_overs(cxp_shared_pool *pool)
{
    uint32_t index = cxp_shared_take(pool), g = generation(pool, index);
    send_as_mine(pool, index);
    cxp_shared_give(pool, index);
    cxp_shared_open(pool, index, g, 1);
    cxp_shared_give(pool, index);
}

static void
recovery(cxp_shared_pool *pool)
{
    cxp_shared_recover(pool);
}

static void
leaving(cxp_shared_pool *pool)
{
    cxp_shared_take(pool);
    cxp_shared_fini(pool);
}

/* A process that died with one block in its hands, and one in transit. */
static void
leave_a_dead_one(cxp_shared_pool *pool)
{
    pid_t child = fork();
    if (child == 0) {
        if (cxp_shared_rejoin(pool) == 0) {
            cxp_shared_take(pool);
            send_as_mine(pool, cxp_shared_take(pool));
        }
        _exit(0);
    }
    waitpid(child, NULL, 0);
}

/* Kill a child after so many of its instructions; how many there were. -1: it may not
 * be traced here. */
static long
killed_after(cxp_shared_pool *pool, void (*work)(cxp_shared_pool *), long steps)
{
    int status;
    pid_t child = fork();
    if (child == 0) {
        if (cxp_shared_rejoin(pool) || ptrace(PTRACE_TRACEME, 0, NULL, NULL))
            _exit(9);
        raise(SIGSTOP);
        work(pool);
        _exit(0);
    }
    waitpid(child, &status, 0);
    if (WIFEXITED(status))
        return -1;
    for (long i = 0; i < steps; i++) {
        if (ptrace(PTRACE_SINGLESTEP, child, NULL, NULL))
            return -1;
        waitpid(child, &status, 0);
        if (WIFEXITED(status))
            return i;
    }
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    return steps;
}

/* Not at random: after every instruction, if they are few; else after as many of them,
 * evenly spread, as can be stepped through in about a second. */
static void
test_kill_step_by_step(void (*work)(cxp_shared_pool *))
{
    cxp_shared_pool pool;
    CHECK(cxp_shared_create(&pool, SIZE, 4, 64, "", 0) == 0);
    uint32_t ours = cxp_shared_take(&pool), g = generation(&pool, ours);
    long all = killed_after(&pool, work, 1000000);
    long stride = all * all / 100000 + 1;
    if (all < 0)
        fprintf(stderr, "no ptrace here: nobody is killed step by step\n");
    for (long steps = 0; steps < all; steps += stride) {
        leave_a_dead_one(&pool);
        CHECK(killed_after(&pool, work, steps) >= 0);
        cxp_shared_recover(&pool);
        CHECK(count_free(&pool) == 3 && cxp_shared_check(&pool) == 0);
        CHECK(generation(&pool, ours) == g);
        uint32_t last = CXP_SHARED_NONE;
        for (int i = 0; i < 3; i++) { /* and whatever the hints say */
            uint32_t index = cxp_shared_take(&pool);
            CHECK(index != CXP_SHARED_NONE && index != ours && index != last);
            last = index;
        }
        for (uint32_t i = 0; i < 4; i++)
            if (i != ours)
                CHECK(cxp_shared_give(&pool, i) == 1);
    }
    cxp_shared_fini(&pool);
}
#endif

static void
test_fork(void)
{
    cxp_shared_pool pool;
    CHECK(cxp_shared_create(&pool, SIZE, 2, 64, "", 0) == 0);
    uint32_t index = cxp_shared_take(&pool);
    pid_t child = fork();
    if (child == 0) {
        int good = pool.slot == CXP_SHARED_NONE && pool.held == 0 && pool.forks == 1 &&
                   cxp_shared_give(&pool, index) == -1 && /* the parent's */
                   cxp_shared_rejoin(&pool) == 0 && cxp_shared_alive(&pool, 0) &&
                   cxp_shared_take(&pool) == 1 - index;
        _exit(good ? 0 : 1); /* and the block that it holds comes back by itself */
    }
    int status;
    waitpid(child, &status, 0);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK(cxp_shared_take(&pool) == CXP_SHARED_NONE);
    CHECK(cxp_shared_recover(&pool) == 1 && cxp_shared_take(&pool) == 1 - index);
    cxp_shared_fini(&pool);
}

static void
test_wait(void)
{
    cxp_shared_pool pool;
    CHECK(cxp_shared_create(&pool, SIZE, 1, 64, "", 0) == 0);
    uint32_t index = cxp_shared_take(&pool);
    int ready[2];
    CHECK(pipe(ready) == 0);
    pid_t child = fork();
    if (child == 0) {
        if (cxp_shared_rejoin(&pool))
            _exit(1);
        cxp_shared_wait_begin(&pool);
        if (write(ready[1], "x", 1) != 1)
            _exit(1);
        for (;;) {
            uint32_t seen = cxp_shared_seen(&pool);
            if (cxp_shared_take(&pool) != CXP_SHARED_NONE)
                break;
            cxp_shared_wait(&pool, seen, 10000000000u); /* the wake-up ends it */
        }
        cxp_shared_wait_end(&pool);
        _exit(0);
    }
    char byte;
    CHECK(read(ready[0], &byte, 1) == 1);
    usleep(20000);
    CHECK(cxp_shared_give(&pool, index) == 1);
    int status;
    alarm(5);
    waitpid(child, &status, 0);
    alarm(0);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    cxp_shared_fini(&pool);
}

int
main(void)
{
#ifndef __linux__
    return 0;
#endif
    test_one_participant();
    test_hand_over();
    test_slots_run_out();
    test_damaged_headers();
    test_fork();
    test_wait();
    test_kill();
#ifdef __linux__
    test_kill_step_by_step(hand_overs);
    test_kill_step_by_step(recovery);
    test_kill_step_by_step(leaving);
#endif
    return CHECK_SUMMARY();
}
