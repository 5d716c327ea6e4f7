"""Slabs that come and go, the hooks that are told of it, and blocks in part."""

import gc
import sys
import threading
import weakref

import numpy as np
import pytest

from ctxpool.errors import PoolClosedError, PoolExhaustedError


class Registry:
    """What on_create and on_destroy were told; each range is there once."""

    def __init__(self):
        self.alive, self.told = {}, []

    def create(self, address, nbytes):
        assert address not in self.alive
        self.alive[address] = nbytes
        self.told.append("create")

    def destroy(self, address, nbytes):
        assert self.alive.pop(address) == nbytes
        self.told.append("destroy")


@pytest.fixture
def registry():
    return Registry()


@pytest.fixture
def unraisable(monkeypatch):
    seen = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: seen.append(args.exc_value))
    return seen


# -- blocks in part --------------------------------------------------------------------


def test_a_block_in_part(impl):
    pool = impl.BlockPool(100, 2)
    block = pool.acquire(size=30)
    assert len(block) == block.size == len(block.view) == 30
    assert block.array().shape == (30,)
    assert block.array("f4").shape == (7,)
    with pytest.raises(ValueError, match="more than a block of 30"):
        block.array("u1", 31)
    assert repr(block) == "<Block 0 of 30 bytes>"
    assert pool.stats().padding == 70
    block.release()
    assert pool.stats().padding == 0
    assert len(pool.try_acquire(size=100)) == 100
    assert len(pool.acquire()) == 100


@pytest.mark.parametrize("how", ["release", "drop", "deferred", "with"])
def test_padding_is_counted_while_the_slot_is_out(impl, how):
    pool = impl.BlockPool(100, 1)
    for size in (10, 10, 20, 100):
        block = pool.acquire(size=size)
        block.view[-1] = size
        assert len(block.view) == size  # not the sleeping view of another size
        held = block.array() if how == "deferred" else None
        if how == "with":
            with block:
                pass
        elif how != "drop":
            block.release()
        del block
        assert pool.stats().padding == (100 - size if how == "deferred" else 0)
        del held
        assert pool.stats().padding == 0
        assert pool.in_use == 0


@pytest.mark.parametrize("take", ["acquire", "try_acquire"])
def test_parts_that_are_none(impl, take):
    pool = impl.BlockPool(100, 1)
    for wrong in (0, -1, 101, 10**30, -(10**30)):
        with pytest.raises(ValueError, match="size must be from 1 to 100"):
            getattr(pool, take)(size=wrong)
    for wrong in (1.5, "10", [1]):
        with pytest.raises(TypeError):
            getattr(pool, take)(size=wrong)
    assert pool.in_use == 0
    assert len(getattr(pool, take)(size=np.int64(7))) == 7


# -- slabs -----------------------------------------------------------------------------


def test_slabs_come_and_go(impl):
    pool = impl.BlockPool(4096, 0, max_blocks=12, slab_blocks=4, huge_pages="never")
    assert (pool.blocks, pool.max_blocks, pool.available) == (0, 12, 0)
    assert pool.try_acquire() is None
    with pytest.raises(PoolExhaustedError, match="0 of 0 blocks free"):
        pool.acquire()
    assert pool.grow() == 4
    assert pool.grow(9) == 8
    assert pool.grow() == 0
    blocks = [pool.acquire() for _ in range(12)]
    for i, block in enumerate(blocks):
        block.view[:] = bytes([i]) * 4096
    addresses = {block.address for block in blocks}
    assert len(addresses) == 12
    assert pool.shrink() == (0, 0)
    del blocks[4:8], block
    assert pool.stats().idle == 4
    assert pool.shrink() == (4, 4 * 4096)
    assert (pool.blocks, pool.available, pool.stats().bytes) == (8, 0, 8 * 4096)
    pool.check()
    assert [bytes(b.view[:1]) for b in blocks] == [bytes([i]) for i in range(4)] + [
        bytes([i]) for i in range(8, 12)
    ]
    assert pool.grow() == 4
    new = [pool.acquire() for _ in range(4)]
    assert {block.address for block in new} < addresses
    assert not any(any(block.view) for block in new)  # other memory than before
    pool.check()


def test_a_slab_in_part_stays(impl):
    pool = impl.BlockPool(64, 8, slab_blocks=4)
    a = pool.acquire_many(8)
    kept = a[5]
    del a
    assert pool.stats().idle == 4
    assert pool.shrink(1) == (4, 0)  # less than a page
    assert pool.shrink() == (0, 0)
    kept.view[0] = 1
    del kept
    assert pool.shrink()[0] == 4
    assert pool.blocks == 0
    pool.check()


def test_slabs_and_numbers(impl):
    pool = impl.BlockPool(64, 4, slab_blocks=2, max_blocks=4)
    numbers = np.zeros(4, np.uint32)
    pool.allocate_many(numbers)
    pool.free_many(numbers[:2])
    assert pool.shrink() == (2, 0)
    with pytest.raises(ValueError, match="not allocated"):
        pool.free(int(numbers[0]))
    pool.free_many(numbers[2:])
    assert pool.stats().idle == 2
    pool.check()


def test_growing_by_slabs_by_itself(impl):
    pool = impl.BlockPool(64, 0, slab_blocks=2, max_blocks=6, on_exhausted="grow")
    held = [pool.acquire()]
    assert pool.blocks == 2
    held += pool.acquire_many(4)
    assert pool.blocks == 6
    held.append(pool.try_acquire())
    assert pool.try_acquire() is None
    with pytest.raises(PoolExhaustedError, match="beyond max_blocks=6"):
        pool.acquire()
    held.clear()
    assert pool.shrink()[0] == 6
    assert pool.acquire().index >= 0
    pool.check()


def test_new_slabs_go_to_those_who_wait(impl):
    pool = impl.BlockPool(64, 0, slab_blocks=1, max_blocks=2, on_exhausted="wait")
    got = []
    thread = threading.Thread(target=lambda: got.append(pool.acquire(timeout=10)))
    thread.start()
    while not pool.stats().waits:
        pass
    assert pool.grow() == 1
    thread.join(10)
    assert [block.index for block in got] == [0]


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"slab_blocks": 3}, ValueError, "slab_blocks must be a power of two, not 3"),
        ({"slab_blocks": 4, "blocks": 6}, ValueError, "blocks must be a multiple"),
        ({"slab_blocks": 2, "max_blocks": 5}, ValueError, "max_blocks must be a mult"),
        ({"on_create": 5}, TypeError, "on_create must be callable or None, not 5"),
        ({"on_destroy": "x"}, TypeError, "on_destroy must be callable or None"),
    ],
)
def test_bad_arguments(impl, arguments, error, match):
    with pytest.raises(error, match=match):
        impl.BlockPool(**{"block_size": 64, "blocks": 4, **arguments})


def test_pools_without_slabs(impl):
    pool = impl.BlockPool(64, 1)
    for call in (pool.grow, pool.shrink):
        with pytest.raises(RuntimeError, match="slab_blocks"):
            call()
    with pytest.raises(RuntimeError, match="without slabs"):
        impl.BlockPool(64, 1, slab_blocks=1).warm()
    closed = impl.BlockPool(64, 1, slab_blocks=1)
    closed.close()
    for call in (closed.grow, closed.shrink):
        with pytest.raises(PoolClosedError):
            call()


def test_debug_knows_slabs(impl):
    pool = impl.BlockPool(64, 4, slab_blocks=2, debug=True)
    for _ in range(3):
        blocks = pool.acquire_many(4)
        del blocks
        assert pool.shrink()[0] == 4
        assert pool.grow(2) == 4
        pool.check()


# -- hooks -----------------------------------------------------------------------------


def test_hooks_of_a_plain_pool(impl, registry):
    pool = impl.BlockPool(
        100, 4, on_create=registry.create, on_destroy=registry.destroy
    )
    assert registry.alive == {pool.address(0): 4 * 128}
    pool.acquire().view[0] = 1
    assert pool.trim() == 0  # registered memory stays
    del pool
    gc.collect()
    assert registry.told == ["create", "destroy"]


def test_hooks_of_a_growing_pool(impl, registry):
    pool = impl.BlockPool(
        64, 2, on_exhausted="grow", max_blocks=7, on_create=registry.create,
        on_destroy=registry.destroy,
    )  # fmt: skip
    blocks = [pool.acquire() for _ in range(7)]
    assert sorted(registry.alive.values()) == [2 * 64, 2 * 64, 3 * 64]
    assert [block.index for block in blocks] == list(range(7))
    pool.check()
    pool.close()
    assert "destroy" not in registry.told
    kept = blocks.pop().view
    blocks.clear()
    assert "destroy" not in registry.told  # a view is alive
    kept[0] = 1
    del kept
    assert registry.told == ["create"] * 3 + ["destroy"] * 3
    assert not registry.alive


def test_hooks_of_slabs(impl, registry):
    pool = impl.BlockPool(
        64, 0, slab_blocks=2, max_blocks=6, on_create=registry.create,
        on_destroy=registry.destroy,
    )  # fmt: skip
    assert not registry.told
    pool.grow(3)
    held = [pool.acquire() for _ in range(3)]
    pool.shrink()
    assert registry.told == ["create"] * 3 + ["destroy"]
    pool.grow()
    assert len(registry.alive) == 3
    del held
    pool.close()
    assert not registry.alive


@pytest.mark.parametrize("how", ["close", "drop"])
def test_a_dropped_pool_with_blocks_alive(impl, registry, how):
    pool = impl.BlockPool(64, 2, on_create=registry.create, on_destroy=registry.destroy)
    array, number = pool.empty(), None
    if how == "close":
        number = pool.allocate()
        pool.close()
        pool.free(number)
    del pool
    gc.collect()
    assert registry.told == ["create"]
    array[:] = 1
    del array
    gc.collect()
    assert registry.told == ["create", "destroy"]


def test_a_hook_that_raises_loses_nothing(impl):
    fail, calls = [True], []

    def create(address, nbytes):
        calls.append((address, nbytes))
        if fail[0]:
            raise KeyError("no")

    with pytest.raises(KeyError, match="no"):
        impl.BlockPool(64, 1, on_create=create)
    pool = impl.BlockPool(64, 0, slab_blocks=2, max_blocks=4, on_create=create)
    for _ in range(3):
        with pytest.raises(KeyError):
            pool.grow()
    assert pool.blocks == 0
    pool.check()
    fail[0] = False
    assert pool.grow(5) == 4
    growing = impl.BlockPool(64, 1, on_exhausted="grow", max_blocks=2, on_create=create)
    held = growing.acquire()
    fail[0] = True
    for _ in range(3):
        with pytest.raises(KeyError):
            growing.acquire()
    assert growing.blocks == 1
    growing.check()
    fail[0] = False
    assert growing.acquire().index == 1
    held.release()
    growing.check()


def test_on_destroy_that_raises(impl, unraisable):
    def destroy(address, nbytes):
        raise KeyError(nbytes)

    pool = impl.BlockPool(4096, 2, slab_blocks=1, on_destroy=destroy)
    assert pool.shrink(1)[0] == 1
    pool.close()
    assert [error.args for error in unraisable] == [(4096,), (4096,)]


def test_hooks_that_reenter(impl):
    pools, depth = [], []

    def create(address, nbytes):
        if pools and len(depth) < 3:
            depth.append(1)
            pools[0].try_acquire()
            pools[0].stats()
            pools[0].grow()

    def destroy(address, nbytes):
        pool = pools[0]
        pool.shrink() if not pool.closed else pool.close()
        pool.stats()

    pool = impl.BlockPool(
        64, 0, slab_blocks=2, max_blocks=20, on_create=create, on_destroy=destroy
    )
    pools.append(pool)
    pool.grow(2)
    assert pool.blocks == 10
    pool.check()
    pool.shrink()
    assert pool.blocks == 0
    pool.check()
    pool.grow()
    pool.close()


def test_a_hook_that_closes_the_pool(impl, registry):
    pools = []

    def create(address, nbytes):
        registry.create(address, nbytes)
        if pools:
            pools[0].close()

    pool = impl.BlockPool(
        64, 1, on_exhausted="grow", max_blocks=4, on_create=create,
        on_destroy=registry.destroy,
    )  # fmt: skip
    pools.append(pool)
    block = pool.acquire()
    with pytest.raises((PoolClosedError, PoolExhaustedError)):
        pool.acquire()
    block.release()
    assert not registry.alive


def test_a_hook_that_brings_the_pool_back(impl):
    """It is closed, its memory told of once."""
    kept, reference = [], []
    pool = impl.BlockPool(
        64, 2, slab_blocks=1, on_destroy=lambda *of: kept.append(reference[0]())
    )
    reference.append(weakref.ref(pool))
    del pool
    gc.collect()
    assert len(kept) == 2
    if kept[0] is not None:
        with pytest.raises(PoolClosedError):
            kept[0].acquire()
        kept[0].check()
    kept.clear()
    gc.collect()
    assert reference[0]() is None


def test_a_cycle_through_a_hook_is_collected(impl):
    class Owner:
        def __init__(self):
            self.pool = impl.BlockPool(
                64, 2, on_create=self.create, on_destroy=self.destroy
            )

        def create(self, address, nbytes):
            told.append("create")

        def destroy(self, address, nbytes):
            told.append("destroy")
            assert self.pool is not None

    told = []
    owner = Owner()
    owner.pool.acquire().release()
    del owner
    gc.collect()
    assert told == ["create", "destroy"]


def test_threads_grow_and_shrink(impl, registry):
    lock = threading.Lock()

    def create(address, nbytes):
        with lock:
            registry.create(address, nbytes)

    def destroy(address, nbytes):
        with lock:
            registry.destroy(address, nbytes)

    pool = impl.BlockPool(
        64, 0, slab_blocks=2, max_blocks=16, on_exhausted="grow", on_create=create,
        on_destroy=destroy,
    )  # fmt: skip
    errors = []

    def work(mark):
        try:
            for i in range(300):
                held = [pool.acquire() for _ in range(1 + i % 4)]
                for block in held:
                    block.view[:] = bytes([mark]) * 64
                for block in held:
                    assert bytes(block.view) == bytes([mark]) * 64
                del held, block
                pool.shrink(1)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(mark,)) for mark in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert not errors
    assert pool.in_use == 0
    pool.check()
    pool.close()
    assert not registry.alive
