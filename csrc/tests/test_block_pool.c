#include "check.h"
#include "ctxpool/block_pool.h"

#include <stdlib.h>
#include <string.h>

static cxp_block_pool
make(size_t block_size, uint32_t blocks, uint32_t max_blocks, uint32_t flags)
{
    cxp_block_pool pool;
    CHECK(cxp_block_pool_init(&pool, block_size, blocks, max_blocks, 64, flags, 0, 0) ==
          0);
    return pool;
}

static void
test_every_block_comes_out_once(void)
{
    cxp_block_pool pool = make(100, 4, 4, 0);
    for (uint32_t i = 0; i < 4; i++) {
        CHECK(cxp_block_pool_take(&pool, CXP_BY_LEASE) == i);
        memset(cxp_block_pool_at(&pool, i), (int)i, pool.block_size);
    }
    CHECK(cxp_block_pool_take(&pool, CXP_BY_LEASE) == CXP_NO_BLOCK);
    for (uint32_t i = 0; i < 4; i++) {
        unsigned char *block = cxp_block_pool_at(&pool, i);
        CHECK(block[0] == i && block[99] == i && (uintptr_t)block % 64 == 0);
    }
    CHECK(cxp_block_pool_check(&pool) == 0);
    cxp_block_pool_fini(&pool);
}

static void
test_the_newest_free_block_is_reused_first(void)
{
    cxp_block_pool pool = make(8, 3, 3, 0);
    for (int i = 0; i < 3; i++)
        cxp_block_pool_take(&pool, CXP_BY_LEASE);
    CHECK(cxp_block_pool_give(&pool, 0, CXP_BY_LEASE) == 0);
    CHECK(cxp_block_pool_give(&pool, 2, CXP_BY_LEASE) == 0);
    CHECK(cxp_block_pool_take(&pool, CXP_BY_LEASE) == 2);
    CHECK(cxp_block_pool_generation(&pool, 2) == 2);
    CHECK(cxp_block_pool_generation(&pool, 1) == 1);
    cxp_block_pool_fini(&pool);
}

static void
test_a_give_by_another_is_refused(void)
{
    cxp_block_pool pool = make(8, 2, 2, 0);
    uint32_t index = cxp_block_pool_take(&pool, CXP_BY_LEASE);
    CHECK(cxp_block_pool_give(&pool, index, CXP_BY_INDEX) == -1);
    CHECK(cxp_block_pool_give(&pool, index, CXP_BY_LEASE) == 0);
    CHECK(cxp_block_pool_give(&pool, index, CXP_BY_LEASE) == -1);
    CHECK(cxp_block_pool_give(&pool, 1, CXP_BY_LEASE) == -1); /* never handed out */
    CHECK(cxp_block_pool_give(&pool, 99, CXP_BY_LEASE) == -1);
    CHECK(cxp_block_pool_check(&pool) == 0);
    cxp_block_pool_fini(&pool);
}

static void
test_many_is_all_or_nothing(void)
{
    cxp_block_pool pool = make(8, 4, 4, 0);
    uint32_t got[4];
    int disturbed = 0;
    CHECK(cxp_block_pool_take_many(&pool, CXP_BY_INDEX, got, 5, &disturbed) == -1);
    CHECK(cxp_block_pool_available(&pool) == 4);
    CHECK(cxp_block_pool_take_many(&pool, CXP_BY_INDEX, got, 4, &disturbed) == 0);
    uint32_t twice[] = {0, 1, 0}, stranger[] = {0, 1, 77};
    CHECK(cxp_block_pool_give_many(&pool, twice, 3, CXP_BY_INDEX) == -3);
    CHECK(cxp_block_pool_give_many(&pool, stranger, 3, CXP_BY_INDEX) == -3);
    CHECK(pool.in_use == 4 && cxp_block_pool_check(&pool) == 0);
    CHECK(cxp_block_pool_give_many(&pool, got, 4, CXP_BY_INDEX) == 0);
    CHECK(pool.in_use == 0 && cxp_block_pool_check(&pool) == 0);
    CHECK(cxp_block_pool_take(&pool, CXP_BY_INDEX) == got[0]);
    cxp_block_pool_fini(&pool);
}

static void
test_it_grows_to_its_bound(void)
{
    cxp_block_pool pool = make(4096, 1, 4, 0);
    void *first = cxp_block_pool_at(&pool, cxp_block_pool_take(&pool, CXP_BY_LEASE));
    CHECK(cxp_block_pool_take(&pool, CXP_BY_LEASE) == CXP_NO_BLOCK);
    CHECK(cxp_block_pool_grow(&pool, 2) == 2);
    CHECK(cxp_block_pool_grow(&pool, 2) == 1);
    CHECK(cxp_block_pool_grow(&pool, 2) == 0);
    CHECK(first == cxp_block_pool_at(&pool, 0)); /* growing moves nothing */
    for (uint32_t i = 1; i < 4; i++)
        CHECK(cxp_block_pool_take(&pool, CXP_BY_LEASE) == i);
    CHECK(cxp_block_pool_check(&pool) == 0);
    cxp_block_pool_fini(&pool);
}

static void
test_zeroing(void)
{
    for (uint32_t flag = CXP_ZERO_ON_TAKE; flag <= CXP_ZERO_ON_GIVE; flag *= 2) {
        for (uint32_t debug = 0; debug <= CXP_DEBUG; debug += CXP_DEBUG) {
            cxp_block_pool pool = make(64, 1, 1, flag | debug);
            for (int round = 0; round < 3; round++) {
                uint32_t i = cxp_block_pool_take(&pool, CXP_BY_LEASE);
                unsigned char *block = cxp_block_pool_at(&pool, i);
                CHECK(block[0] == 0 && block[63] == 0);
                memset(block, 5, 64);
                CHECK(cxp_block_pool_give(&pool, i, CXP_BY_LEASE) == 0);
            }
            cxp_block_pool_fini(&pool);
        }
    }
}

static void
test_debug_finds_writes_where_nobody_may_write(void)
{
    cxp_block_pool pool = make(100, 1, 1, CXP_DEBUG);
    unsigned char *block = cxp_block_pool_at(&pool, 0);
    int disturbed = 0;
    cxp_block_pool_take_checked(&pool, CXP_BY_LEASE, &disturbed);
    CHECK(!disturbed && block[0] == CXP_POISON_NEW);
    CXP_SHOW(block, pool.stride);
    block[100] = 0; /* behind the end */
    CHECK(cxp_block_pool_give(&pool, 0, CXP_BY_LEASE) == 1);
    cxp_block_pool_take_checked(&pool, CXP_BY_LEASE, &disturbed);
    CHECK(!disturbed);
    CHECK(cxp_block_pool_give(&pool, 0, CXP_BY_LEASE) == 0);
    CXP_SHOW(block, pool.stride);
    block[99] = 0; /* after it was given back */
    cxp_block_pool_take_checked(&pool, CXP_BY_LEASE, &disturbed);
    CHECK(disturbed);
    CHECK(cxp_block_pool_give(&pool, 0, CXP_BY_LEASE) == 0);
    cxp_block_pool_trim(&pool); /* its poison is gone, and that is no damage */
    disturbed = 0;
    cxp_block_pool_take_checked(&pool, CXP_BY_LEASE, &disturbed);
    CHECK(!disturbed);
    cxp_block_pool_fini(&pool);
}

static void
test_trim_gives_back_free_blocks_only(void)
{
    size_t page = cxp_vm_page_size();
    cxp_block_pool pool = make(page, 8, 8, 0);
    for (uint32_t i = 0; i < 8; i++)
        memset(cxp_block_pool_at(&pool, cxp_block_pool_take(&pool, CXP_BY_LEASE)), 7,
               page);
    CHECK(cxp_block_pool_trim(&pool) == 0);
    for (uint32_t i = 0; i < 8; i += 2)
        cxp_block_pool_give(&pool, i, CXP_BY_LEASE);
    CHECK(cxp_block_pool_trim(&pool) == 4 * page);
    CHECK(cxp_block_pool_trim(&pool) == 0);
    for (uint32_t i = 1; i < 8; i += 2)
        CHECK(*(unsigned char *)cxp_block_pool_at(&pool, i) == 7);
    cxp_block_pool_fini(&pool);
}

static void
test_a_closed_pool_waits_for_its_last_block(void)
{
    cxp_block_pool pool = make(4096, 4, 8, 0);
    uint32_t index = cxp_block_pool_take(&pool, CXP_BY_LEASE);
    cxp_block_pool_close(&pool);
    cxp_block_pool_close(&pool);
    CHECK(cxp_block_pool_take(&pool, CXP_BY_LEASE) == CXP_NO_BLOCK);
    CHECK(cxp_block_pool_grow(&pool, 1) == 0);
    memset(cxp_block_pool_at(&pool, index), 1, 4096);
    CHECK(cxp_block_pool_check(&pool) == 0);
    CHECK(cxp_block_pool_give(&pool, index, CXP_BY_LEASE) == 0);
    CHECK(pool.base == NULL && pool.vm.map == NULL);
    CHECK(cxp_block_pool_take(&pool, CXP_BY_LEASE) == CXP_NO_BLOCK);
    CHECK(cxp_block_pool_trim(&pool) == 0);
    cxp_block_pool_fini(&pool);
}

static void
test_a_pinned_slab_stays(void)
{
    cxp_block_pool pool = make(4096, 2, 2, 0);
    cxp_block_pool_pin(&pool);
    cxp_block_pool_close(&pool);
    CHECK(pool.base != NULL);
    CXP_SHOW(pool.base, 1);
    pool.base[0] = 1;
    cxp_block_pool_unpin(&pool);
    CHECK(pool.base == NULL);
    cxp_block_pool_fini(&pool);
}

static void
test_impossible_sizes_are_refused(void)
{
    static const struct {
        size_t block_size;
        uint32_t blocks, max_blocks;
        size_t alignment;
    } bad[] = {{0, 1, 1, 64},
               {1, 0, 0, 64},
               {1, 2, 1, 64},
               {1, 1, 1, 48},
               {1, 1, 1, 0},
               {SIZE_MAX, 1, 1, 64},
               {SIZE_MAX / 4, 8, 8, 64},
               {1, 1, UINT32_MAX, 64}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cxp_block_pool pool;
        CHECK(cxp_block_pool_init(&pool, bad[i].block_size, bad[i].blocks,
                                  bad[i].max_blocks, bad[i].alignment, 0, 0, 0) == -1);
        cxp_block_pool_fini(&pool);
    }
}

static void
test_random_actions_keep_the_invariants(void)
{
    enum { BLOCKS = 24 };
    for (uint32_t flags = 0; flags < CXP_CLOSED; flags++) {
        cxp_block_pool pool = make(40, 4, BLOCKS, flags);
        uint32_t out[BLOCKS], n = 0;
        srand(flags + 1);
        for (int step = 0; step < 4000; step++) {
            int action = rand() % 10;
            if (action < 5) {
                uint32_t i = cxp_block_pool_take(&pool, CXP_BY_INDEX);
                CHECK((i == CXP_NO_BLOCK) == (n == pool.blocks));
                if (i != CXP_NO_BLOCK) {
                    memset(cxp_block_pool_at(&pool, i), (int)i, 40);
                    out[n++] = i;
                }
            } else if (action < 9 && n) {
                uint32_t k = (uint32_t)rand() % n, i = out[k];
                unsigned char *block = cxp_block_pool_at(&pool, i);
                CHECK(block[0] == i && block[39] == i);
                CHECK(cxp_block_pool_give(&pool, i, CXP_BY_INDEX) == 0);
                CHECK(cxp_block_pool_give(&pool, i, CXP_BY_INDEX) == -1);
                out[k] = out[--n];
            } else if (rand() % 50 == 0) {
                cxp_block_pool_grow(&pool, 1);
            } else {
                cxp_block_pool_trim(&pool);
            }
            CHECK(cxp_block_pool_check(&pool) == 0);
        }
        cxp_block_pool_fini(&pool);
    }
}

static void
test_slabs_come_and_go(void)
{
    cxp_block_pool pool = make(64, 0, 12, 0);
    CHECK(cxp_block_pool_use_slabs(&pool, 2) == 0);
    CHECK(cxp_block_pool_take(&pool, CXP_BY_LEASE) == CXP_NO_BLOCK);
    for (uint32_t first = 0; first < 12; first += 4) {
        CHECK(cxp_block_pool_reserve(&pool, 4) == 4);
        CHECK(cxp_block_pool_take(&pool, CXP_BY_LEASE) == CXP_NO_BLOCK);
        cxp_block_pool_present(&pool, first, 4);
        for (uint32_t i = first; i < first + 4; i++)
            CHECK(cxp_block_pool_take(&pool, CXP_BY_LEASE) == i);
        CHECK(cxp_block_pool_check(&pool) == 0);
    }
    CHECK(cxp_block_pool_reserve(&pool, 4) == 0);
    CHECK(cxp_block_pool_idle(&pool) == CXP_NO_BLOCK);
    for (uint32_t i = 4; i < 9; i++)
        CHECK(cxp_block_pool_give(&pool, i, CXP_BY_LEASE) == 0);
    CHECK(pool.idle == 1 && cxp_block_pool_idle(&pool) == 4);
    CHECK(cxp_block_pool_withdraw(&pool, 8, 4) == -1);
    CHECK(cxp_block_pool_withdraw(&pool, 4, 4) == 0);
    CHECK(pool.absent == 4 && cxp_block_pool_idle(&pool) == CXP_NO_BLOCK);
    CHECK(cxp_block_pool_give(&pool, 5, CXP_BY_LEASE) == -1);
    CHECK(cxp_block_pool_check(&pool) == 0);
    CHECK(cxp_block_pool_take(&pool, CXP_BY_INDEX) == 8);
    CHECK(cxp_block_pool_take(&pool, CXP_BY_INDEX) == CXP_NO_BLOCK);
    cxp_block_pool_present(&pool, 4, 4);
    CHECK(cxp_block_pool_take(&pool, CXP_BY_INDEX) == 4);
    CHECK(cxp_block_pool_generation(&pool, 4) == 2);
    CHECK(cxp_block_pool_check(&pool) == 0);
    cxp_block_pool_fini(&pool);
}

static void
test_what_is_fresh_stays_free_when_more_is_reserved(void)
{
    cxp_block_pool pool = make(64, 3, 5, 0);
    CHECK(cxp_block_pool_take(&pool, CXP_BY_LEASE) == 0);
    CHECK(cxp_block_pool_reserve(&pool, 9) == 2);
    CHECK(cxp_block_pool_available(&pool) == 2 && pool.absent == 2);
    CHECK(cxp_block_pool_check(&pool) == 0);
    cxp_block_pool_present(&pool, 3, 2);
    CHECK(cxp_block_pool_available(&pool) == 4);
    CHECK(cxp_block_pool_check(&pool) == 0);
    cxp_block_pool_fini(&pool);
}

int
main(void)
{
    test_slabs_come_and_go();
    test_what_is_fresh_stays_free_when_more_is_reserved();
    test_every_block_comes_out_once();
    test_the_newest_free_block_is_reused_first();
    test_a_give_by_another_is_refused();
    test_many_is_all_or_nothing();
    test_it_grows_to_its_bound();
    test_zeroing();
    test_debug_finds_writes_where_nobody_may_write();
    test_trim_gives_back_free_blocks_only();
    test_a_closed_pool_waits_for_its_last_block();
    test_a_pinned_slab_stays();
    test_impossible_sizes_are_refused();
    test_random_actions_keep_the_invariants();
    return CHECK_SUMMARY();
}
