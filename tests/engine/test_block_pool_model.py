"""BlockPool against a list of bytearrays, by random actions."""

import numpy as np
import pytest
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

SIZE = 48


class Machine(RuleBasedStateMachine):
    """Every holder of memory writes its own mark, and must find it for ever."""

    impl = None
    blocks = Bundle("blocks")
    holders = Bundle("holders")
    numbers = Bundle("numbers")

    @initialize(
        n=st.integers(1, 6),
        grow=st.booleans(),
        zero=st.sampled_from(["never", "acquire", "release"]),
        debug=st.booleans(),
    )
    def make(self, n, grow, zero, debug):
        more = {"on_exhausted": "grow", "max_blocks": n + 3} if grow else {}
        self.pool = self.impl.BlockPool(SIZE, n, zero=zero, debug=debug, **more)
        self.limit, self.zero, self.marks = n + 3 * grow, zero != "never", 0
        self.model = {}  # id of what is out -> [block index, bytearray, reachable by]
        self.out = 0

    def written(self, buffer):
        """Fill with a new mark; the bytearray that the memory must equal from now."""
        self.marks = self.marks % 250 + 1
        buffer[:] = bytes([self.marks]) * SIZE
        return bytearray(buffer)

    def taken(self, make):
        if self.out == self.limit:
            with pytest.raises(PoolExhaustedError):
                make()
            return None
        self.out += 1
        return make()

    @rule(target=blocks)
    def acquire(self):
        block = self.taken(self.pool.acquire)
        if block is None:
            return None
        if self.zero:
            assert bytes(block.view) == bytes(SIZE)
        return {"block": block, "bytes": self.written(block.view), "holders": 0}

    @rule(target=holders)
    def empty(self):
        array = self.taken(self.pool.empty)
        if array is None:
            return None
        owner = {"block": None, "bytes": self.written(memoryview(array)), "holders": 1}
        return {"memory": array, "owner": owner}

    @rule(target=numbers)
    def allocate(self):
        return self.taken(self.pool.allocate)

    @rule(number=consumes(numbers))
    def free(self, number):
        if number is None:
            return
        self.pool.free(number)
        self.out -= 1
        with pytest.raises(ValueError, match="not allocated"):
            self.pool.free(number)

    @rule(
        target=holders,
        owner=blocks,
        kind=st.sampled_from(["view", "slice", "array", "ndarray", "frombuffer"]),
    )
    def hold(self, owner, kind):
        if owner is None or owner["block"] is None:
            return None
        block = owner["block"]
        memory = {
            "view": lambda: block.view,
            "slice": lambda: block.view[0:SIZE],
            "array": lambda: block.array(),
            "ndarray": lambda: np.ndarray((SIZE,), np.uint8, buffer=block.view),
            "frombuffer": lambda: np.frombuffer(block.view, np.uint8),
        }[kind]()
        owner["holders"] += 1
        return {"memory": memory, "owner": owner}

    @rule(holder=consumes(holders))
    def let_go(self, holder):
        if holder is None:
            return
        owner = holder["owner"]
        assert bytes(holder.pop("memory")) == owner["bytes"]
        owner["holders"] -= 1
        if not owner["holders"] and owner["block"] is None:
            self.out -= 1

    @rule(owner=blocks, strict=st.booleans())
    def release(self, owner, strict):
        if owner is None or owner["block"] is None:
            return
        block = owner["block"]
        assert bytes(block.view) == owner["bytes"]
        if strict and owner["holders"]:
            with pytest.raises(BlockInUseError):
                block.release(strict=True)
            return
        block.release(strict)
        owner["block"] = None
        if not owner["holders"]:
            self.out -= 1
        with pytest.raises(BlockReleasedError):
            block.release()

    @rule(owner=blocks)
    def drop(self, owner):
        if owner is None or owner["block"] is None:
            return
        owner["block"] = None
        if not owner["holders"]:
            self.out -= 1

    @rule(holder=holders)
    def read(self, holder):
        if holder is not None and "memory" in holder:
            assert bytes(holder["memory"]) == holder["owner"]["bytes"]

    @rule()
    def trim(self):
        self.pool.trim()

    @invariant()
    def whole(self):
        if hasattr(self, "pool"):
            assert self.pool.in_use == self.out
            self.pool.check()


def test_model(impl):
    run_state_machine_as_test(type("Machine", (Machine,), {"impl": impl}))
