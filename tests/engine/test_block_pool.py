"""What a BlockPool does, by its single calls."""

import copy
import gc
import pickle
import sys
import weakref

import numpy as np
import pytest

from ctxpool.errors import (
    BlockReleasedError,
    CorruptionError,
    CtxPoolError,
    PoolClosedError,
    PoolExhaustedError,
)


def test_every_block_comes_out_once(impl):
    pool = impl.BlockPool(100, 4)
    blocks = [pool.acquire() for _ in range(4)]
    assert [block.index for block in blocks] == [0, 1, 2, 3]
    for i, block in enumerate(blocks):
        block.view[:] = bytes([i]) * 100
    assert [bytes(block.view) for block in blocks] == [
        bytes([i]) * 100 for i in range(4)
    ]
    with pytest.raises(PoolExhaustedError, match="0 of 4 blocks free, 1 needed"):
        pool.acquire()
    assert pool.available == 0
    for block in blocks:
        block.release()
    assert pool.available == 4
    pool.check()


def test_the_newest_free_block_is_reused_first(impl):
    pool = impl.BlockPool(64, 3)
    blocks = pool.acquire_many(3)
    blocks[2].release()
    blocks[0].release()
    assert [pool.acquire().index for _ in range(3)] == [0, 0, 0]
    assert [block.index for block in pool.acquire_many(2)] == [0, 2]


def test_a_block_is_what_it_says(impl):
    pool = impl.BlockPool("1KiB", 3, alignment=256, name="frames")
    a, b = pool.acquire(), pool.acquire()
    assert len(a) == len(a.view) == 1024
    assert b.address - a.address == 1024
    assert a.address % 256 == 0
    assert a.address == pool.address(a.index)
    assert a.pool is pool
    assert not a.released
    assert (a.view.format, a.view.readonly, a.view.contiguous) == ("B", False, True)
    assert repr(a) == "<Block 0 of 1024 bytes>"
    assert (
        repr(pool) == "<BlockPool name='frames', block_size=1024, blocks=3, in_use=2>"
    )
    assert np.frombuffer(a.view, np.uint8).ctypes.data == a.address
    a.release()
    assert repr(a) == "<Block, released>"


def test_the_block_itself_is_no_buffer(impl):
    block = impl.BlockPool(64, 1).acquire()
    with pytest.raises(TypeError):
        memoryview(block)


@pytest.mark.parametrize(
    "use",
    [
        lambda block: block.view,
        lambda block: block.array(),
        lambda block: block.index,
        lambda block: block.address,
        lambda block: block.pool,
        lambda block: len(block),
        lambda block: block.__enter__(),
        lambda block: block.release(),
        lambda block: block.release(strict=True),
    ],
)
def test_a_released_block_is_dead(impl, use):
    pool = impl.BlockPool(64, 1)
    block = pool.acquire()
    block.release()
    assert block.released
    with pytest.raises(BlockReleasedError, match="released") as caught:
        use(block)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, CtxPoolError)
    other = pool.acquire()  # the same memory, another's
    with pytest.raises(BlockReleasedError):
        use(block)
    assert not other.released
    pool.check()


def test_with_gives_the_block_back(impl):
    pool = impl.BlockPool(64, 1)
    with pool.acquire() as block:
        block.view[:3] = b"abc"
        assert pool.in_use == 1
    assert pool.in_use == 0
    with pool.acquire() as block:
        block.release()  # early, by hand
    assert pool.in_use == 0
    with pytest.raises(KeyError), pool.acquire():
        raise KeyError("the body's own")
    assert pool.in_use == 0


def test_a_dropped_block_comes_back(impl):
    pool = impl.BlockPool(64, 1)
    for _ in range(3):
        pool.acquire()
        assert pool.in_use == 0
    pool.check()


def test_the_pool_lives_while_a_block_is_out(impl):
    block = impl.BlockPool(64, 1).acquire()
    view, array = impl.BlockPool(64, 1).acquire().view, impl.BlockPool(64, 1).empty()
    gc.collect()
    block.view[0] = view[0] = array[0] = 1
    assert block.view[0] == view[0] == array[0] == 1


def test_release_by_the_pool(impl):
    pool, other = impl.BlockPool(64, 1), impl.BlockPool(64, 1)
    block = pool.acquire()
    with pytest.raises(ValueError, match="another pool"):
        other.release(block)
    with pytest.raises(TypeError, match="takes a Block, not 7"):
        pool.release(7)
    pool.release(block)
    with pytest.raises(BlockReleasedError):
        pool.release(block)
    assert pool.in_use == 0


def test_try_acquire(impl):
    pool = impl.BlockPool(64, 1)
    block = pool.try_acquire()
    assert block.index == 0
    assert pool.try_acquire() is None
    assert pool.stats().exhausted == 0


def test_acquire_many_is_all_or_nothing(impl):
    pool = impl.BlockPool(64, 4)
    assert pool.acquire_many(0) == []
    held = pool.acquire_many(3)
    with pytest.raises(PoolExhaustedError, match="1 of 4 blocks free, 2 needed"):
        pool.acquire_many(2)
    with pytest.raises(PoolExhaustedError):
        pool.acquire_many(10**30)
    with pytest.raises(ValueError, match="negative, not -1"):
        pool.acquire_many(-1)
    with pytest.raises(TypeError):
        pool.acquire_many(1.5)
    assert pool.available == 1
    del held
    assert pool.available == 4
    pool.check()


@pytest.mark.parametrize("dtype", [None, "u1", "float32", np.int64, ">i2"])
def test_arrays_over_a_block(impl, dtype):
    pool = impl.BlockPool(4096, 2)
    block = pool.acquire()
    array = block.array(dtype)
    assert array.nbytes == 4096
    assert array.ctypes.data == block.address
    assert array.flags.writeable
    assert array.flags.c_contiguous
    assert not array.flags.owndata
    assert array.dtype == np.dtype(np.uint8 if dtype is None else dtype)
    assert block.array(dtype, 3).shape == (3,)
    assert block.array(dtype, (2, np.int32(3))).shape == (2, 3)
    assert block.array(dtype, [2, 3]).shape == (2, 3)
    assert block.array(dtype, ()).shape == ()
    assert block.array(dtype, (0, 5)).shape == (0, 5)
    assert pool.empty((4, 5), dtype).shape == (4, 5)


@pytest.mark.parametrize("make", ["array", "empty"])
def test_impossible_arrays_are_refused(impl, make):
    pool = impl.BlockPool(64, 1)

    def array(shape=None, dtype=None):
        if make == "empty":
            return pool.empty(shape, dtype)
        with pool.acquire() as block:
            return block.array(dtype, shape)

    with pytest.raises(ValueError, match="takes 72 bytes: more than a block of 64"):
        array(9, "f8")
    with pytest.raises(ValueError, match="more than a block"):
        array((2**40, 2**40), "f8")
    with pytest.raises(ValueError, match="more than a block"):
        array(10**30)
    with pytest.raises(ValueError, match="negative, not -1"):
        array(-1)
    with pytest.raises(ValueError, match="negative"):
        array((2, -1))
    with pytest.raises(ValueError, match="references to objects"):
        array(1, object)
    with pytest.raises(ValueError, match="references to objects"):
        array(1, [("a", "i4"), ("b", "O")])
    with pytest.raises(ValueError, match="no size"):
        array(1, "S0")
    with pytest.raises(TypeError, match=r"not 1\.5"):
        array(1.5)
    with pytest.raises(TypeError, match="not 'ab'"):
        array("ab")
    with pytest.raises(ValueError, match="at most 32 dimensions"):
        array((1,) * 33)
    with pytest.raises(TypeError):
        array(1, "no such dtype")
    assert pool.in_use == 0
    pool.check()


def test_empty_returns_its_block_with_the_last_view(impl):
    pool = impl.BlockPool(4096, 1)
    array = pool.empty((32, 32), "f4")
    part = array[3:5, ::2].reshape(-1)
    assert pool.in_use == 1
    del array
    assert pool.in_use == 1
    part[:] = 7
    del part
    assert pool.in_use == 0
    pool.check()


# -- blocks by number ------------------------------------------------------------------


def test_blocks_by_number(impl):
    pool = impl.BlockPool(64, 3)
    numbers = [pool.allocate() for _ in range(3)]
    assert numbers == [0, 1, 2]
    with pytest.raises(PoolExhaustedError):
        pool.allocate()
    pool.free(1)
    for wrong in (1, 3, -1, 2**40, -(2**70)):
        with pytest.raises(ValueError, match=f"block {wrong} was not allocated"):
            pool.free(wrong)
    with pytest.raises(TypeError):
        pool.free("1")
    assert pool.allocate() == 1
    assert [pool.generation(i) for i in range(3)] == [1, 2, 1]
    with pytest.raises(IndexError, match="no block 3 in a pool of 3"):
        pool.generation(3)
    with pytest.raises(IndexError, match="no block -1"):
        pool.address(-1)
    pool.check()


def test_a_blocks_number_can_not_be_freed(impl):
    pool = impl.BlockPool(64, 2)
    block = pool.acquire()
    with pytest.raises(ValueError, match="not allocated by number"):
        pool.free(block.index)
    assert pool.in_use == 1
    block.view[0] = 1


@pytest.mark.parametrize("dtype", ["u4", "i4", "i8", "u2", ">i8"])
def test_many_numbers(impl, dtype):
    pool = impl.BlockPool(64, 8)
    out = np.zeros((2, 3), dtype)
    pool.allocate_many(out)
    assert sorted(out.ravel().tolist()) == [0, 1, 2, 3, 4, 5]
    before = out.copy()
    with pytest.raises(PoolExhaustedError, match="2 of 8 blocks free, 6 needed"):
        pool.allocate_many(out)
    assert (out == before).all()
    twice = np.array([0, 1, 0], dtype)
    with pytest.raises(ValueError, match="block 0 stands there twice"):
        pool.free_many(twice)
    with pytest.raises(ValueError, match="block 7 was not allocated"):
        pool.free_many(np.array([0, 7], dtype))
    assert pool.in_use == 6
    pool.free_many(out)
    assert pool.in_use == 0
    strided = np.zeros(8, dtype)[::2]
    pool.allocate_many(strided)
    assert pool.in_use == 4
    pool.free_many(strided[::-1])
    assert pool.in_use == 0
    pool.check()


def test_arrays_that_can_not_hold_numbers(impl):
    pool = impl.BlockPool(8, 300)
    with pytest.raises(TypeError, match="ndarray of integers"):
        pool.allocate_many([0, 0])
    with pytest.raises(TypeError, match="ndarray of integers"):
        pool.allocate_many(np.zeros(2))
    with pytest.raises(TypeError, match="ndarray of integers"):
        pool.free_many([1])
    with pytest.raises(ValueError, match="block numbers up to 299"):
        pool.allocate_many(np.zeros(2, np.uint8))
    frozen = np.zeros(2, np.int64)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="writable"):
        pool.allocate_many(frozen)
    with pytest.raises(ValueError, match="block -1 was not allocated"):
        pool.free_many(np.array([-1]))
    assert pool.stats().acquires == 0


# -- exhaustion ------------------------------------------------------------------------


def test_growing(impl):
    pool = impl.BlockPool(4096, 2, on_exhausted="grow", max_blocks=5)
    assert (pool.blocks, pool.max_blocks) == (2, 5)
    blocks = [pool.acquire() for _ in range(3)]
    first = blocks[0].address
    assert pool.blocks == 4
    blocks += [pool.acquire(), pool.acquire()]
    assert (pool.blocks, first) == (5, blocks[0].address)
    with pytest.raises(PoolExhaustedError, match="beyond max_blocks=5"):
        pool.acquire()
    assert [block.index for block in blocks] == [0, 1, 2, 3, 4]
    assert pool.try_acquire() is None
    pool.check()


def test_growing_for_many(impl):
    pool = impl.BlockPool(64, 1, on_exhausted="grow", max_blocks=100)
    assert len(pool.acquire_many(50)) == 50
    numbers = np.zeros(100, np.uint32)
    pool.allocate_many(numbers)
    assert pool.blocks == 100
    with pytest.raises(PoolExhaustedError):
        pool.acquire_many(1)


def test_growing_without_a_bound_of_ones_own(impl):
    pool = impl.BlockPool(64, 2, on_exhausted="grow")
    assert pool.max_blocks == 128
    assert len(pool.acquire_many(128)) == 128


def test_the_heap_as_fallback(impl):
    pool = impl.BlockPool(100, 1, on_exhausted="heap", alignment=128)
    first, extra = pool.acquire(), pool.acquire()
    assert (first.index, extra.index) == (0, -1)
    assert extra.address % 128 == 0
    extra.view[:] = bytes(100)
    array = pool.empty((5, 5), "i4")
    array[:] = 1
    assert pool.try_acquire() is None
    with pytest.raises(PoolExhaustedError):
        pool.allocate()
    stats = pool.stats()
    assert (stats.heap_fallbacks, stats.in_use, stats.acquires) == (2, 1, 3)
    view = extra.view
    extra.release()
    view[:] = bytes(100)  # still ours
    del view, array, first
    assert pool.stats().releases == 3
    pool.check()


# -- memory ----------------------------------------------------------------------------


@pytest.mark.parametrize("zero", ["never", "acquire", "release"])
def test_zeroing(impl, zero):
    pool = impl.BlockPool(256, 1, zero=zero)
    with pool.acquire() as block:
        block.view[:] = b"x" * 256
    with pool.acquire() as block:
        wanted = b"x" * 256 if zero == "never" else bytes(256)
        assert bytes(block.view) == wanted


def test_trim_says_what_it_freed(impl):
    pool = impl.BlockPool(1 << 16, 8, prefault=True, huge_pages="never")
    kept = pool.acquire()
    kept.view[:4] = b"kept"
    assert pool.trim() == 7 << 16
    assert pool.trim() == 0
    assert bytes(kept.view[:4]) == b"kept"
    pool.warm()
    assert pool.trim() == 7 << 16
    pool.warm(3)
    assert pool.trim() == 2 << 16
    assert bytes(kept.view[:4]) == b"kept"
    with pytest.raises(ValueError, match="from 0 to 8, not 9"):
        pool.warm(9)
    pool.check()


@pytest.mark.parametrize("huge_pages", ["auto", "always", "never"])
def test_huge_pages_are_a_wish(impl, huge_pages):
    pool = impl.BlockPool("2MiB", 2, huge_pages=huge_pages, prefault=True)
    with pool.acquire() as block:
        block.view[-1] = 1
    small = impl.BlockPool(64, 2, huge_pages=huge_pages)
    small.acquire().view[0] = 1


def test_a_great_alignment(impl):
    pool = impl.BlockPool(100, 3, alignment=1 << 16)
    assert [pool.address(i) % (1 << 16) for i in range(3)] == [0, 0, 0]


def test_a_closed_pool(impl):
    pool = impl.BlockPool(64, 3)
    block, array = pool.acquire(), pool.empty()
    number = pool.allocate()
    pool.close()
    pool.close()
    assert pool.closed
    for use in (
        pool.acquire,
        pool.try_acquire,
        pool.allocate,
        pool.empty,
        pool.warm,
        pool.__enter__,
        lambda: pool.acquire_many(1),
        lambda: pool.acquire_many(99),
        lambda: pool.allocate_many(np.zeros(1, np.uint32)),
    ):
        with pytest.raises(PoolClosedError, match="is closed") as caught:
            use()
        assert isinstance(caught.value, ValueError)
    block.view[:5] = b"alive"
    array[:] = 3
    assert bytes(block.view[:5]) == b"alive"
    block.release()
    del array
    pool.free(number)
    assert pool.in_use == 0
    assert pool.trim() == 0
    with pytest.raises(PoolClosedError):
        pool.address(0)
    assert "closed" in repr(pool)
    pool.check()


def test_the_pool_as_context_manager(impl):
    with impl.BlockPool(64, 1, name="pool") as pool:
        pool.acquire().release()
    with pytest.raises(PoolClosedError, match="the pool 'pool' is closed"):
        pool.acquire()


def test_stats(impl):
    pool = impl.BlockPool(100, 3, name="s")
    blocks = pool.acquire_many(2)
    view = blocks[0].view
    blocks[0].release()
    stats = pool.stats()
    assert stats.as_dict() == {
        "name": "s",
        "block_size": 100,
        "blocks": 3,
        "max_blocks": 3,
        "in_use": 2,
        "deferred": 1,
        "peak": 2,
        "acquires": 2,
        "releases": 0,
        "waits": 0,
        "exhausted": 0,
        "heap_fallbacks": 0,
        "bytes": 3 * 128,
        "padding": 0,
        "idle": 0,
    }
    with pytest.raises(AttributeError):
        stats.in_use = 0
    del view, blocks
    assert pool.stats().releases == 2


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"block_size": 0}, ValueError, "block_size must be positive, not 0"),
        ({"block_size": -5}, ValueError, "positive, not -5"),
        ({"block_size": "4 parsecs"}, ValueError, "'4 parsecs' is no size"),
        ({"block_size": 1.5}, TypeError, r"not 1\.5"),
        ({"block_size": 2**62}, MemoryError, "no room"),
        ({"blocks": 0}, ValueError, "blocks must be from 1 to .*, not 0"),
        ({"blocks": 2**32}, ValueError, "not 4294967296"),
        ({"blocks": None}, TypeError, "whole number, not None"),
        ({"max_blocks": 4}, ValueError, "needs on_exhausted=\"grow\", not 'raise'"),
        ({"max_blocks": 1, "on_exhausted": "grow"}, ValueError, "max_blocks"),
        ({"alignment": 48}, ValueError, "power of two, not 48"),
        ({"alignment": 0}, ValueError, "alignment"),
        ({"on_exhausted": "panic"}, ValueError, "not 'panic'"),
        ({"on_exhausted": ["raise"]}, ValueError, "on_exhausted"),
        ({"zero": "always"}, ValueError, "zero must be one of"),
        ({"huge_pages": True}, ValueError, "huge_pages must be one of"),
        ({"fork": "never"}, ValueError, "fork must be one of"),
        ({"timeout": -1}, ValueError, "timeout must not be negative, not -1"),
        ({"timeout": float("nan")}, ValueError, "timeout"),
        ({"timeout": "soon"}, TypeError, "not 'soon'"),
        ({"name": 5}, TypeError, "name must be text or None, not 5"),
    ],
)
def test_bad_arguments_are_named(impl, arguments, error, match):
    arguments = {"block_size": 64, "blocks": 2, **arguments}
    with pytest.raises(error, match=match):
        impl.BlockPool(**arguments)


def test_what_can_not_be_made(impl):
    with pytest.raises(TypeError, match=r"made by BlockPool.acquire\(\)"):
        impl.Block()
    pool = impl.BlockPool(64, 2)
    with pytest.raises(RuntimeError, match="made already"):
        pool.__init__(64, 1)
    for cls in (impl.Block, impl.BlockPool):
        with pytest.raises(TypeError):
            type("Sub", (cls,), {})
    for thing in (pool, pool.acquire()):
        for clone in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="cannot pickle"):
                clone(thing)
    weakref.ref(pool)
    with pytest.raises(TypeError):
        weakref.ref(pool.acquire())
    with pytest.raises((AttributeError, TypeError)):
        pool.acquire().view = None


# -- debug -----------------------------------------------------------------------------


def scribble(address, value=0x11):
    """A write that no view would allow."""
    import ctypes

    ctypes.memset(address, value, 1)


@pytest.fixture
def unsanitized():
    """A test that writes where nobody may is for the canaries, not for ASan."""
    if "asan" in __import__("os").environ.get("LD_PRELOAD", ""):
        pytest.skip("AddressSanitizer stops the write itself")


def test_debug_fills_and_finds_a_write_behind_the_end(impl, unsanitized):
    pool = impl.BlockPool(100, 2, debug=True)
    block = pool.acquire()
    assert bytes(block.view) == b"\xcd" * 100
    scribble(block.address + 100)
    with pytest.raises(CorruptionError, match="behind the end of block 0"):
        block.release()
    assert block.released
    assert pool.in_use == 0
    scribble(pool.address(pool.allocate()) + 100)
    with pytest.raises(CorruptionError, match="behind the end of block 0"):
        pool.free(0)
    assert pool.in_use == 0
    numbers = np.zeros(2, np.int64)
    pool.allocate_many(numbers)
    scribble(pool.address(1) + 100)
    with pytest.raises(CorruptionError, match="behind the end of block 1"):
        pool.free_many(numbers)
    assert pool.in_use == 0
    pool.acquire().release()
    pool.check()


def test_debug_does_not_mask_the_bodys_exception(impl, unsanitized):
    pool = impl.BlockPool(100, 1, debug=True)
    with pytest.raises(KeyError) as caught, pool.acquire() as block:  # noqa: PT012
        scribble(block.address + 100)
        raise KeyError("mine")
    assert "behind the end of block 0" in caught.value.__notes__[0]


def test_debug_finds_a_write_to_a_free_block(impl, unsanitized):
    pool = impl.BlockPool(100, 1, debug=True)
    pool.acquire().release()
    scribble(pool.address(0) + 7)
    with pytest.raises(CorruptionError, match="block 0 was written to after"):
        pool.acquire()
    assert pool.in_use == 0
    assert bytes(pool.acquire().view) == b"\xcd" * 100
    scribble(pool.address(0) + 7)
    with pytest.raises(CorruptionError, match="written to after"):
        pool.acquire_many(1)
    pool.check()


def test_debug_reports_damage_that_nobody_could_catch(impl, unsanitized, monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: seen.append(args.exc_value))
    pool = impl.BlockPool(100, 1, debug=True)
    block = pool.acquire()
    scribble(block.address + 100)
    del block
    array = pool.empty()
    scribble(pool.address(0) + 100)
    del array
    assert [str(error) for error in seen] == [
        "something was written behind the end of block 0"
    ] * 2
    assert pool.in_use == 0


def test_debug_names_the_places_of_leaks(impl):
    pool = impl.BlockPool(64, 4, debug=True)
    kept = pool.acquire()
    line = sys._getframe().f_lineno - 1
    pool.acquire().release()
    array, number = pool.empty(), pool.allocate()
    leaks = pool.leaks()
    assert [index for index, _ in leaks] == [0, 1, 2]
    assert leaks[0][1] == (f"{__file__}:{line} in test_debug_names_the_places_of_leaks")
    with pytest.warns(ResourceWarning, match="closed with 3 blocks out") as caught:
        pool.close()
    assert leaks[0][1] in str(caught[0].message)
    assert caught[0].filename == __file__
    del kept, array
    pool.free(number)
    assert pool.leaks() == []
    with pytest.raises(RuntimeError, match="debug=True"):
        impl.BlockPool(64, 1).leaks()


def test_a_whole_debug_pool_closes_in_silence(impl):
    with impl.BlockPool(64, 4, debug=True) as pool:
        pool.acquire().release()
