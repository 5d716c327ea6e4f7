"""SharedBlockPool against a dict, by random actions of several participants.

All of them live in this process. To kill one, its lock is taken from it, as the kernel
does it; what is left of it is kept aside, for it must not touch the segment again.
"""

import os
import sys
from collections import Counter
from contextlib import suppress

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from ctxpool.errors import BlockInUseError, BlockReleasedError, PoolExhaustedError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
BLOCKS, MOST = 3, 4


def locks():
    """The file descriptors whose descriptions hold a lock."""
    found = set()
    for fd in map(int, os.listdir("/proc/self/fd")):
        with suppress(FileNotFoundError), open(f"/proc/self/fdinfo/{fd}") as info:
            if "lock:" in info.read():
                found.add(fd)
    return found


class Machine(RuleBasedStateMachine):
    impl = None
    blocks = Bundle("blocks")
    handles = Bundle("handles")

    def __init__(self):
        super().__init__()
        self.pools = {}  # number -> (pool, lock fd), of the living
        self.graves = []
        self.holders = {}  # index -> Counter of numbers
        self.keepers = {}  # index -> number, in transit
        self.generations = Counter()
        self.marks = {}  # index -> what its bytes are

    @initialize()
    def make(self):
        self.attach()

    @rule()
    def attach(self):
        if len(self.pools) == MOST:
            return
        before = locks()
        if self.pools:
            some = next(iter(self.pools.values()))[0]
            pool = self.impl.SharedBlockPool.from_fd(some.fileno())
        else:
            pool = self.impl.SharedBlockPool(8, BLOCKS)
        (lock,) = locks() - before
        self.pools[pool.participant] = pool, lock

    def some(self, data):
        number = data.draw(st.sampled_from(sorted(self.pools)))
        return number, self.pools[number][0]

    def is_free(self, index):
        return not self.holders.get(index) and index not in self.keepers

    def forget(self, number):
        for index in range(BLOCKS):
            self.holders.setdefault(index, Counter()).pop(number, None)
            if self.keepers.get(index) == number:
                del self.keepers[index]

    @rule(target=blocks, data=st.data())
    def acquire(self, data):
        number, pool = self.some(data)
        if not any(self.is_free(index) for index in range(BLOCKS)):
            with pytest.raises(PoolExhaustedError):
                pool.acquire()
            return None
        block = pool.acquire()
        index = block.index
        assert self.is_free(index)
        self.generations[index] += 1
        assert block.generation == self.generations[index]
        self.holders[index] = Counter([number])
        self.marks[index] = os.urandom(8)
        block.view[:] = self.marks[index]
        return {"number": number, "block": block}

    def usable(self, held):
        return (
            held is not None
            and held["number"] in self.pools
            and not held["block"].released
        )

    @rule(held=consumes(blocks))
    def release(self, held):
        if self.usable(held):
            index = held["block"].index
            held["block"].release()
            self.drop(index, held["number"])

    def drop(self, index, number):
        self.holders[index][number] -= 1
        self.holders[index] += Counter()  # without those that are zero

    @rule(target=handles, held=blocks)
    def show(self, held):
        if self.usable(held):
            return held["block"].handle
        return None

    @rule(target=handles, held=blocks, data=st.data())
    def send(self, held, data):
        if not self.usable(held):
            return None
        block, number = held["block"], held["number"]
        index = block.index
        to = data.draw(st.sampled_from([None, *sorted(self.pools)]))
        if index in self.keepers:
            with pytest.raises(BlockInUseError):
                block.send(to)
            return None
        handle = block.send(to)
        self.keepers[index] = number if to is None else to
        self.drop(index, number)
        return handle

    @rule(target=blocks, handle=handles, data=st.data())
    def open(self, handle, data):
        if handle is None:
            return None
        number, pool = self.some(data)
        index = handle.block
        if (
            self.generations[index] != handle.generation
            or self.is_free(index)
            or (handle.moved and index not in self.keepers)
        ):
            with pytest.raises(BlockReleasedError, match="too late"):
                pool.open(handle)
            return None
        block = pool.open(handle)
        if handle.moved:
            del self.keepers[index]
        self.holders.setdefault(index, Counter())[number] += 1
        assert bytes(block.view) == self.marks[index]
        return {"number": number, "block": block}

    @rule(data=st.data(), recover=st.booleans())
    def die(self, data, recover):
        if len(self.pools) < 2:
            return
        number, pool = self.some(data)
        lock = self.pools.pop(number)[1]
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, lock)
        os.close(nothing)
        self.graves.append(pool)
        free = sum(map(self.is_free, range(BLOCKS)))
        self.forget(number)
        now = sum(map(self.is_free, range(BLOCKS)))
        other = self.some(data)[1]
        assert other.recover() == now - free

    @rule(data=st.data())
    def leave(self, data):
        number, pool = self.some(data)
        if len(self.pools) > 1 and pool.in_use == 0:
            pool.close()
            del self.pools[number]
            self.forget(number)

    @invariant()
    def agree(self):
        free = sum(map(self.is_free, range(BLOCKS)))
        for number, (pool, _) in self.pools.items():
            pool.check()
            assert pool.available == free
            assert pool.in_use == sum(
                number in holders for holders in self.holders.values()
            )
        if self.pools:
            assert pool.stats().in_transit == len(self.keepers)

    def teardown(self):
        for pool, _ in self.pools.values():
            pool.close()
        self.pools.clear()


def test_model(impl):
    machine = type("Machine", (Machine,), {"impl": impl})
    profile = settings(max_examples=settings().max_examples // 8)
    run_state_machine_as_test(machine, settings=profile)
