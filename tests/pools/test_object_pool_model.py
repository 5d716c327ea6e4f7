"""ObjectPool against a model, by random actions."""

import gc
from types import SimpleNamespace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from ctxpool.errors import PoolTimeoutError


class Thing:
    good = True
    alive = True


class Pools(RuleBasedStateMachine):
    impl: Any = None

    def __init__(self) -> None:
        super().__init__()
        self.fails = False
        self.now = 0.0
        self.made: list[Thing] = []
        self.leases: list[Any] = []
        self.plain: list[Thing] = []
        self.idle: list[Thing] = []  # the one that came back last is the last
        self.pool: Any = self.impl.ObjectPool(
            self.factory,
            max_size=4,
            validate=self.validate,
            reset=self.reset,
            dispose=self.dispose,
            timeout=0,
            min_size=1,
            max_idle=10,
            clock=lambda: self.now,
            cleanup_interval=None,
        )

    def factory(self) -> Thing:
        if self.fails:
            raise ConnectionError
        self.made.append(Thing())
        return self.made[-1]

    def validate(self, thing: Thing) -> bool:
        assert thing.alive
        if not thing.good:
            raise ConnectionError
        return True

    def reset(self, thing: Thing) -> None:
        assert thing.alive
        self.pool.check()
        self.pool.stats()

    def dispose(self, thing: Thing) -> None:
        assert thing.alive
        thing.alive = False

    def acquired(self, acquire: Any) -> Any:
        full = len(self.leases) + len(self.plain) == 4
        expected = self.idle[-1] if self.idle else None
        try:
            got = acquire()
        except PoolTimeoutError:
            assert full
            return None
        except ConnectionError:
            assert self.fails
            assert expected is None or not expected.good
            if expected is not None:
                self.idle.pop()
            return None
        assert not full
        thing = got if isinstance(got, Thing) else got.object
        if expected is not None:
            self.idle.pop()
            assert (thing is expected) == expected.good
        assert thing.alive
        return got

    @rule()
    def acquire(self) -> None:
        lease = self.acquired(self.pool.acquire)
        if lease is not None:
            self.leases.append(lease)

    @rule()
    def get(self) -> None:
        thing = self.acquired(self.pool.get)
        if thing is not None:
            self.plain.append(thing)

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), how=st.sampled_from(["release", "drop", "with", "discard"]))
    def give_back(self, data: st.DataObject, how: str) -> None:
        lease = self.leases.pop(data.draw(st.integers(0, len(self.leases) - 1)))
        thing = lease.object
        if how == "with":
            with lease:
                pass
        elif how != "drop":
            getattr(lease, how)()
        del lease
        if how == "drop":
            gc.collect(0)
        assert thing.alive == (how != "discard")
        if thing.alive:
            self.idle.append(thing)

    @precondition(lambda self: self.plain)
    @rule(data=st.data(), put=st.booleans())
    def put(self, data: st.DataObject, put: bool) -> None:
        thing = self.plain.pop(data.draw(st.integers(0, len(self.plain) - 1)))
        if put:
            self.pool.put(thing)
            self.idle.append(thing)
        else:
            self.pool.discard(thing)
        assert thing.alive == put

    @rule(data=st.data())
    def breaks(self, data: st.DataObject) -> None:
        if self.idle:
            data.draw(st.sampled_from(self.idle)).good = False

    @rule(fails=st.booleans())
    def factory_fails(self, fails: bool) -> None:
        self.fails = fails

    @rule(seconds=st.sampled_from([1.0, 6.0]))
    def time_goes_by(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def evict(self) -> None:
        self.pool.evict()
        self.idle = [thing for thing in self.idle if thing.alive]
        assert self.pool.evict() == 0

    @invariant()
    def nothing_is_lost(self) -> None:
        pool = self.pool
        pool.check()
        out = len(self.leases) + len(self.plain)
        assert (pool.in_use, pool.idle) == (out, len(self.idle))
        assert pool.size == out + len(self.idle) <= 4
        assert pool.size == sum(thing.alive for thing in self.made)
        stats = pool.stats()
        assert stats.created - stats.disposed == pool.size
        assert stats.created == len(self.made)

    def teardown(self) -> None:
        self.leases.clear()
        self.pool.close()
        for thing in self.plain:
            self.pool.put(thing)
        gc.collect(0)
        assert self.pool.size == 0
        assert not any(thing.alive for thing in self.made)


def test_model(impl: SimpleNamespace) -> None:
    machine = type("Machine", (Pools,), {"impl": impl})
    few = settings(max_examples=min(60, settings().max_examples))
    run_state_machine_as_test(machine, settings=few)
