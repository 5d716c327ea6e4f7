"""What a MemoryPool does, by its single calls."""

import copy
import gc
import itertools
import pickle
import sys
import weakref

import numpy as np
import pytest

import ctxpool
from ctxpool.errors import BlockReleasedError, PoolClosedError, PoolExhaustedError


def sums(pool):
    stats = pool.stats()
    return stats.in_use, stats.requested, stats.padding


def test_a_block_of_the_smallest_class_that_holds_it(memory_pool):
    pool = memory_pool([4096, "16KiB", 65536], "1MiB")
    assert pool.block_sizes == (4096, 16384, 65536)
    for size, block_size in [
        (1, 4096), (4096, 4096), (4097, 16384), (16384, 16384), (16385, 65536),
        ("64KiB", 65536), (np.int64(5), 4096), (True, 4096),
    ]:  # fmt: skip
        with pool.allocate(size) as block:
            asked = 65536 if size == "64KiB" else int(size)
            assert len(block) == len(block.view) == asked
            assert block.array().nbytes == asked
            assert block.pool.block_size == block_size
            assert sums(pool) == (1, asked, block_size - asked)
            block.view[:] = bytes([7]) * asked
        assert sums(pool) == (0, 0, 0)
    pool.check()


def test_the_default_classes_waste_a_quarter_at_most(memory_pool):
    pool = memory_pool()
    sizes = pool.block_sizes
    assert (sizes[0], sizes[-1], pool.total_size) == (256, 64 << 20, 10**9)
    for smaller, larger in itertools.pairwise(sizes):
        assert larger <= 1.25 * smaller
        assert larger % 64 == 0
    assert memory_pool(total_size="1MB").block_sizes[-1] <= 250_000
    with pytest.raises(ValueError, match="no size class"):
        memory_pool(total_size=1000)


def test_blocks_keep_their_rules(memory_pool):
    pool = memory_pool([100], 1000)
    block = pool.allocate(80)
    view = block.view
    block.release()
    assert sums(pool) == (1, 80, 20)  # somebody reaches it
    with pytest.raises(BlockReleasedError):
        block.release()
    del view
    assert sums(pool) == (0, 0, 0)
    pool.allocate(50)
    assert sums(pool) == (0, 0, 0)  # dropped
    pool.check()


def test_release_by_the_pool(memory_pool, impl):
    pool, other = memory_pool([100], 1000), memory_pool([100], 1000)
    block = pool.allocate(1)
    with pytest.raises(ValueError, match="another pool"):
        other.release(block)
    with pytest.raises(ValueError, match="another pool"):
        pool.release(impl.BlockPool(64, 1).acquire())
    with pytest.raises(TypeError, match="takes a Block, not 7"):
        pool.release(7)
    pool.release(block)
    with pytest.raises(BlockReleasedError):
        pool.release(block)


def test_arrays(memory_pool):
    pool = memory_pool([4096, 65536], "1MiB")
    for shape, dtype, nbytes in [
        (100, None, 100), ((4, 5), "f8", 160), ([3, 7], np.int16, 42), ((), "i4", 4),
        ((0, 3), "f4", 1), (np.int32(9), "u1", 9), ((2, np.int64(3)), "u1", 6),
        ((100, 100), np.dtype("f4"), 40_000),
    ]:  # fmt: skip
        array = pool.empty(shape, dtype)
        assert array.shape == np.empty(shape, dtype or "u1").shape
        assert array.dtype == np.dtype(dtype or "u1")
        assert array.flags.c_contiguous
        assert array.flags.writeable
        array[...] = 1
        assert sums(pool)[:2] == (1, nbytes)
        part = array[..., None]
        del array
        assert sums(pool)[0] == 1
        del part
        assert sums(pool) == (0, 0, 0)
    pool.check()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((None,), TypeError),
        ((-1,), ValueError),
        (((-2, -3),), ValueError),
        ((3, object), ValueError),
        ((3, "S0"), ValueError),
        (("ab",), TypeError),
        ((1.5,), TypeError),
        (((2, 1.5),), TypeError),
        ((3, "no such dtype"), TypeError),
        (((2**40, 2**40), "f8"), ValueError),
        ((10**30,), ValueError),
    ],
)
def test_impossible_arrays(memory_pool, arguments, error):
    pool = memory_pool([4096], "64KiB")
    with pytest.raises(error):
        pool.empty(*arguments)
    assert sums(pool) == (0, 0, 0)
    pool.check()


@pytest.mark.parametrize("bad", [0, -1, "0", 65537, 10**30])
def test_sizes_that_are_none(memory_pool, bad):
    pool = memory_pool([4096, 65536], "1MiB")
    with pytest.raises(ValueError, match=str(bad)):
        pool.allocate(bad)


@pytest.mark.parametrize("bad", [None, 1.5, 4096.0, [4096], {}, b"64"])
def test_sizes_of_no_kind(memory_pool, bad):
    pool = memory_pool([4096], "1MiB")
    pool.allocate(4096)
    pool.allocate(1)
    with pytest.raises(TypeError):
        pool.allocate(bad)


# -- the budget ------------------------------------------------------------------------


def test_the_budget_holds(memory_pool):
    pool = memory_pool([64, 256], 1024, slab_size=256, name="b")
    small = [pool.allocate(64) for _ in range(8)]  # two slabs
    large = [pool.allocate(200), pool.allocate(256)]
    assert pool.stats().bytes == 1024
    with pytest.raises(
        PoolExhaustedError, match="the pool 'b' has no free block of 64"
    ):
        pool.allocate(10)
    with pytest.raises(MemoryError):
        pool.allocate(65)
    assert pool.stats().exhausted == 2
    large.pop()
    small.append(pool.allocate(1))  # the large one's slab
    stats = pool.stats()
    assert (stats.moved, stats.bytes, stats.peak_bytes) == (1, 1024, 1024)
    pool.check()
    del small[:4]
    with pool.allocate(256):
        assert pool.stats().moved == 2
    pool.check()


def test_a_budget_larger_than_a_class_can_use(memory_pool):
    pool = memory_pool([1], "1TiB", alignment=1, slab_size="512GiB")
    (each,) = pool._classes
    assert each.slab_blocks == 1 << 29
    assert each._settings["max_blocks"] == 7 << 29
    pool.check()


def test_several_slabs_make_one(memory_pool):
    pool = memory_pool([64, 1024], 1024, slab_size=64)
    held = [pool.allocate(64) for _ in range(16)]
    with pytest.raises(PoolExhaustedError):
        pool.allocate(1024)
    assert pool.stats().classes[0].blocks == 16  # nothing was given up in vain
    held.clear()
    with pool.allocate(1000):
        assert pool.stats().classes[0].blocks == 0
        with pytest.raises(PoolExhaustedError):
            pool.allocate(1)
    pool.allocate(1)
    pool.check()


def test_stats(memory_pool):
    pool = memory_pool([64, 256], 4096, slab_size=256, name="s", on_too_large="heap")
    held = [pool.allocate(50), pool.allocate(60), pool.allocate(200)]
    extra = pool.allocate(1000)
    stats = pool.stats()
    assert (stats.name, stats.total_size, stats.bytes) == ("s", 4096, 512)
    assert (stats.in_use, stats.requested, stats.padding) == (3, 310, 14 + 4 + 56)
    assert (stats.too_large, stats.heap, stats.heap_in_use) == (1, 1, 1)
    assert stats.free_in_used_slabs == 128
    assert stats.external_fragmentation == 128 / 512
    assert stats.internal_fragmentation == 74 / 384
    small, large = stats.classes
    assert (small.block_size, small.slab_bytes, small.blocks) == (64, 256, 4)
    assert (small.peak, small.acquires, small.misses, small.idle) == (2, 2, 1, 0)
    assert small.internal_fragmentation == 18 / 128
    assert small.external_fragmentation == 0.5
    assert (large.blocks, large.free_in_used_slabs) == (1, 0)
    assert stats.as_dict()["classes"][0]["requested"] == 110
    del extra
    held.clear()
    stats = pool.stats()
    assert (stats.heap_in_use, stats.in_use, stats.internal_fragmentation) == (0, 0, 0)
    assert stats.classes[0].idle == 256
    assert memory_pool().stats().external_fragmentation == 0.0


def test_trim_gives_back_what_was_resident(memory_pool):
    pool = memory_pool([1 << 16], 1 << 20, slab_size=1 << 18, huge_pages="never")
    held = [pool.allocate(1 << 16) for _ in range(8)]
    for block in held:
        block.view[:] = b"x" * (1 << 16)
    assert pool.trim() == 0
    kept = held[0]
    del held[:], block
    assert pool.trim() == 7 << 16  # one slab whole, and three blocks
    assert pool.trim() == 0
    assert bytes(kept.view[:2]) == b"xx"
    assert pool.stats().bytes == 1 << 18
    del kept
    assert pool.trim() == 1 << 16
    assert pool.stats().bytes == 0
    pool.allocate(5)
    pool.check()


def test_prefault_makes_slabs_resident(memory_pool):
    pool = memory_pool(
        [1 << 16], 1 << 20, slab_size=1 << 18, prefault=True, huge_pages="never"
    )
    pool.allocate(1)
    assert pool.trim() == 1 << 18


# -- policies --------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["heap", "map"])
def test_what_is_too_large(memory_pool, policy):
    pool = memory_pool([64], 1024, on_too_large=policy, zero="acquire", alignment=128)
    block = pool.allocate(100_000)
    assert block.address % 128 == 0
    assert len(block.view) == len(block) == 100_000
    assert bytes(block.view) == bytes(100_000)
    block.view[:] = b"x" * 100_000
    array = block.array("u1")
    pool.release(block)
    assert array[99_999] == 120
    assert pool.stats().too_large == 1
    assert pool.stats().bytes == 0
    assert pool.empty((1000, 100), "f4").shape == (1000, 100)
    with pytest.raises(MemoryError):
        pool.allocate(2**62)
    del array
    gc.collect()
    assert pool.stats().heap_in_use == 0


def test_the_heap_when_exhausted(memory_pool):
    pool = memory_pool([64], 64, on_exhausted="heap")
    blocks = [pool.allocate(40) for _ in range(3)]
    assert [len(block.view) for block in blocks] == [40] * 3
    assert [block.index for block in blocks] == [0, -1, -1]
    assert pool.stats().heap_in_use == 2
    pool.release(blocks.pop())
    assert pool.stats().heap_in_use == 1
    pool.check()


def test_a_closed_pool(memory_pool):
    with memory_pool([64, 256], 1024, name="c") as pool:
        block = pool.allocate(64)
    pool.close()
    assert pool.closed
    assert "closed" in repr(pool)
    for call in (
        lambda: pool.allocate(64),
        lambda: pool.allocate(200),
        lambda: pool.empty(3),
        pool.trim,
        pool.__enter__,
    ):
        with pytest.raises(PoolClosedError, match="the pool 'c' is closed"):
            call()
    block.view[:] = b"x" * 64
    pool.release(block)
    pool.stats()


def test_hooks(memory_pool):
    alive = {}

    def create(address, nbytes):
        assert address not in alive
        alive[address] = nbytes

    def destroy(address, nbytes):
        assert alive.pop(address) == nbytes

    pool = memory_pool(
        [64, 256], 1024, slab_size=256, on_create=create, on_destroy=destroy
    )
    held = [pool.allocate(64) for _ in range(16)]
    assert sum(alive.values()) == 1024
    held.clear()
    held.append(pool.allocate(256))
    assert sum(alive.values()) == pool.stats().bytes == 1024
    pool.trim()
    assert sum(alive.values()) == 256
    del pool
    gc.collect()
    assert len(alive) == 1
    held.clear()
    gc.collect()
    assert not alive


def test_a_hook_that_raises_costs_no_budget(memory_pool):
    fail = [True]

    def create(address, nbytes):
        if fail[0]:
            raise OSError("cannot pin")

    pool = memory_pool([64], 64, on_create=create)
    for _ in range(3):
        with pytest.raises(OSError, match="cannot pin"):
            pool.allocate(1)
    pool.check()
    assert pool.stats().bytes == 0
    fail[0] = False
    pool.allocate(1)


def test_hooks_that_reenter(memory_pool):
    pools, kept, over = [], [], []

    def reenter(address, nbytes):
        if pools and len(kept) < 5 and not over:
            kept.append(None)
            kept[-1] = pools[0].allocate(300)
            pools[0].stats()
            pools[0].trim()

    pool = memory_pool(
        [64, 512], 4096, slab_size=512, on_create=reenter, on_destroy=reenter
    )
    pools.append(pool)
    held = [pool.allocate(64) for _ in range(9)]
    held.clear()
    pool.trim()
    assert len(kept) == 5
    pool.check()
    over.append(True)
    kept.clear()
    pool.trim()
    assert pool.stats().bytes == 0
    pool.check()


def test_debug_names_the_places(memory_pool):
    pool = memory_pool([64, 256], 8192, debug=True)
    kept = pool.allocate(30)
    line = sys._getframe().f_lineno - 1
    other = pool.empty(200)
    leaks = pool.leaks()
    assert leaks[0] == (
        64,
        f"{__file__}:{line} in test_debug_names_the_places",
    )
    assert leaks[1][0] == 256
    assert leaks[1][1].startswith(f"{__file__}:{line + 2}")
    del kept, other
    assert pool.leaks() == []
    with pytest.raises(RuntimeError, match="debug=True"):
        memory_pool([64], 64).leaks()


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"block_sizes": []}, ValueError, "no size class"),
        ({"block_sizes": [0]}, ValueError, "positive, not 0"),
        ({"block_sizes": "4096"}, TypeError, "several sizes, not '4096'"),
        ({"block_sizes": [1.5]}, TypeError, r"not 1\.5"),
        ({"block_sizes": 7}, TypeError, "iterable"),
        ({"block_sizes": [5000]}, ValueError, "5000 bytes .* less than one fits"),
        ({"total_size": 0}, ValueError, "total_size must be positive"),
        ({"total_size": "much"}, ValueError, "total_size 'much' is no size"),
        ({"on_too_large": "no"}, ValueError, "on_too_large must be one of"),
        ({"on_exhausted": "grow"}, ValueError, "on_exhausted must be one of"),
        ({"timeout": -1}, ValueError, "timeout must not be negative"),
        ({"slab_size": 0}, ValueError, "slab_size must be positive"),
        ({"alignment": 3}, ValueError, "power of two"),
        ({"zero": "x"}, ValueError, "zero must be one of"),
        ({"huge_pages": 1}, ValueError, "huge_pages must be one of"),
        ({"fork": "x"}, ValueError, "fork must be one of"),
        ({"name": 3}, TypeError, "name must be text"),
        ({"on_create": 3}, TypeError, "on_create must be callable"),
    ],
)
def test_bad_arguments_are_named(memory_pool, arguments, error, match):
    with pytest.raises(error, match=match):
        memory_pool(**{"block_sizes": [64], "total_size": 4096, **arguments})


def test_what_can_not_be_copied(memory_pool):
    pool = memory_pool([64], 64)
    for clone in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot pickle a MemoryPool"):
            clone(pool)


def test_a_dropped_pool_is_gone_at_once(memory_pool):
    pool = memory_pool([64], 1024, on_exhausted="wait")
    block = pool.allocate(10)
    reference, inner = weakref.ref(pool), weakref.ref(block.pool)
    gc.disable()
    try:
        del pool
        assert reference() is None
        block.view[0] = 1
        del block
        assert inner() is None
    finally:
        gc.enable()


def test_sizes_met_are_bounded(memory_pool):
    pool = memory_pool([1 << 16], 1 << 20)
    for size in range(1, 6000):
        assert len(pool.allocate(size)) == size
    assert len(pool._calls) <= 4096


def test_it_is_public():
    assert ctxpool.MemoryPool is ctxpool.pools.MemoryPool
