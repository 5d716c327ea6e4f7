"""MemoryPool against a dict of bytearrays, by random actions."""

import itertools

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

from ctxpool.errors import PoolExhaustedError

SIZES = (32, 100, 256, 1000)


class Machine(RuleBasedStateMachine):
    """Every block has its own mark, and must find it for ever."""

    make = None
    blocks = Bundle("blocks")

    @initialize(
        total=st.integers(1024, 4096),
        slab=st.sampled_from([32, 128, 512, 4096]),
        heap=st.booleans(),
        debug=st.booleans(),
    )
    def begin(self, total, slab, heap, debug):
        self.slabs = {}  # address -> bytes, as the hooks are told
        self.pool = self.make(
            SIZES, total + 64, slab_size=slab, debug=debug, alignment=16,
            on_exhausted="heap" if heap else "raise",
            on_create=self.slabs.__setitem__,
            on_destroy=lambda address, nbytes: self.slabs.pop(address),
        )  # fmt: skip
        self.heap, self.marks, self.live = heap, 0, []

    @rule(target=blocks, size=st.integers(1, 1000), array=st.booleans())
    def allocate(self, size, array):
        try:
            block = self.pool.allocate(size)
        except PoolExhaustedError:
            assert not self.heap
            assert self.nothing_left(size)
            return None
        if block.index == -1:
            assert self.nothing_left(size)
        entry = {
            "address": block.address,
            "size": size,
            "heap": block.index == -1,
            "class": None if block.index == -1 else block.pool.block_size,
            "holds": block.array() if array else block,
        }
        self.marks = self.marks % 250 + 1
        entry["mark"] = bytes([self.marks]) * size
        self.memory(entry)[:] = entry["mark"]
        self.live.append(entry)
        return entry

    def memory(self, entry):
        holds = entry["holds"]
        return holds.view if hasattr(holds, "release") else memoryview(holds)

    def nothing_left(self, size):
        """Neither a free block of its class, nor a slab to be had."""
        stats = self.pool.stats()
        wanted = min(s for s in SIZES if s >= size)
        idle = sum(each.idle for each in stats.classes if each.block_size != wanted)
        mine = next(each for each in stats.classes if each.block_size == wanted)
        free = stats.total_size - stats.bytes + idle
        return mine.blocks == mine.in_use and free < mine.slab_bytes

    @rule(entry=consumes(blocks))
    def release(self, entry):
        if entry is None:
            return
        assert bytes(self.memory(entry)) == entry["mark"]
        holds = entry.pop("holds")
        if hasattr(holds, "release"):
            self.pool.release(holds)
        self.live.remove(entry)

    @rule()
    def trim(self):
        self.pool.trim()
        assert not any(each.idle for each in self.pool.stats().classes)

    @invariant()
    def whole(self):
        if not hasattr(self, "pool"):
            return
        self.pool.check()
        stats = self.pool.stats()
        assert sum(self.slabs.values()) == stats.bytes <= stats.total_size
        pooled = [entry for entry in self.live if not entry["heap"]]
        assert stats.in_use == len(pooled)
        assert stats.requested == sum(entry["size"] for entry in pooled)
        assert stats.padding == sum(e["class"] - e["size"] for e in pooled)
        assert stats.heap_in_use == len(self.live) - len(pooled)
        spans = sorted((e["address"], e["address"] + e["size"]) for e in self.live)
        for (_, end), (begin, _) in itertools.pairwise(spans):
            assert end <= begin
        for begin, end in [(e["address"], e["address"] + e["size"]) for e in pooled]:
            assert any(a <= begin and end <= a + n for a, n in self.slabs.items())


def test_model(memory_pool):
    machine = type("Machine", (Machine,), {"make": staticmethod(memory_pool)})
    run_state_machine_as_test(
        machine, settings=settings(max_examples=min(60, settings.default.max_examples))
    )
