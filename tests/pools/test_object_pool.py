"""ObjectPool: what it lends, makes, resets, validates, evicts and disposes of."""

import gc
import itertools
import math
import os
import pickle
import sys
import time
import weakref

import pytest

from ctxpool.errors import LeaseError, PoolClosedError, PoolTimeoutError


class Thing:
    """What a pool holds in these tests."""

    numbers = itertools.count()

    def __init__(self):
        self.number = next(self.numbers)
        self.good = True
        self.resets = 0


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def unraised(monkeypatch):
    """What went to sys.unraisablehook."""
    errors = []
    monkeypatch.setattr(sys, "unraisablehook", lambda u: errors.append(u.exc_value))
    return errors


def test_with_gives_the_object(impl):
    pool = impl.ObjectPool(Thing, max_size=2)
    with pool.acquire() as first:
        assert isinstance(first, Thing)
        assert (pool.in_use, pool.idle, pool.size) == (1, 0, 1)
        with pool.acquire() as second:
            assert second is not first
    assert (pool.in_use, pool.idle, pool.size) == (0, 2, 2)
    pool.check()


def test_a_lease(impl):
    pool = impl.ObjectPool(Thing)
    lease = pool.acquire()
    assert isinstance(lease.object, Thing)
    assert lease.pool is pool
    assert not lease.released
    assert repr(lease).startswith("<ObjectLease of <")
    lease.release()
    assert lease.released
    assert repr(lease) == "<ObjectLease, released>"
    for use in (lease.release, lease.discard, lease.__enter__, lambda: lease.object):
        with pytest.raises(LeaseError, match="was released"):
            use()
    assert issubclass(LeaseError, ValueError)
    assert pool.idle == 1
    pool.check()


def test_released_inside_with(impl):
    pool = impl.ObjectPool(Thing)
    lease = pool.acquire()
    with lease:
        lease.release()
    assert pool.idle == 1
    pool.check()


def test_a_dropped_lease_gives_back(impl):
    pool = impl.ObjectPool(Thing, max_size=1, timeout=0)
    lease = pool.acquire()
    thing = lease.object
    del lease
    assert pool.idle == 1
    assert pool.acquire().object is thing
    pool.check()


def test_a_lease_in_a_cycle_gives_back(impl):
    pool = impl.ObjectPool(Thing, max_size=1)
    for _ in range(3):
        lease = pool.acquire()
        lease.object.lease = lease
        cycle = [lease]
        cycle.append(cycle)
        thing = weakref.ref(lease.object)
        del lease, cycle
        del thing().lease
        gc.collect()
        assert pool.idle == 1
    pool.check()


def test_a_pool_that_its_object_knows_is_collected(impl):
    disposed = []
    pool = impl.ObjectPool(Thing, dispose=disposed.append)
    lease = pool.acquire()
    lease.object.pool = pool
    other = pool.acquire()
    other.object.lease = lease  # and a lease that is never released
    other.release()
    alive = weakref.ref(pool)
    del pool, lease, other
    gc.collect()
    gc.collect()
    assert alive() is None or disposed
    disposed.clear()
    gc.collect()
    assert alive() is None


def test_leases_and_pools_are_made_by_hand_only(impl):
    with pytest.raises(TypeError, match=r"ObjectPool\.acquire"):
        impl.ObjectLease()
    for cls in (impl.ObjectLease, impl.ObjectPool):
        with pytest.raises(TypeError, match="acceptable base type"):
            type("Sub", (cls,), {})
    pool = impl.ObjectPool(Thing)
    for thing in (pool, pool.acquire()):
        with pytest.raises(TypeError, match="cannot pickle"):
            pickle.dumps(thing)
    with pytest.raises(RuntimeError, match="made already"):
        pool.__init__(Thing)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"factory": 3}, TypeError, "factory must be callable, not 3"),
        ({"reset": 3}, TypeError, "reset must be callable or None, not 3"),
        ({"on_leak": 3}, TypeError, "on_leak must be callable or None, not 3"),
        ({"clock": 3}, TypeError, "clock must be callable or None, not 3"),
        ({"max_size": 0}, ValueError, "max_size must be from 1 to"),
        ({"max_size": 1.5}, TypeError, "max_size must be a whole number, not 1.5"),
        ({"initial_size": 3, "max_size": 2}, ValueError, "initial_size must be from"),
        ({"min_size": -1}, ValueError, "min_size must be from 0 to 100, not -1"),
        ({"timeout": -1}, ValueError, "timeout must not be negative, not -1"),
        ({"timeout": "soon"}, TypeError, "timeout must be seconds or None, not 'soon'"),
        ({"max_age": 0}, ValueError, "max_age must be more than 0, not 0"),
        ({"max_idle": math.nan}, ValueError, "max_idle must not be negative, not nan"),
        ({"name": 3}, TypeError, "name must be text or None, not 3"),
    ],
)
def test_bad_arguments(impl, arguments, error, text):
    with pytest.raises(error, match=text):
        impl.ObjectPool(**{"factory": Thing, **arguments})


def test_lifo_and_fifo(impl):
    for lifo in (True, False):
        pool = impl.ObjectPool(Thing, lifo=lifo)
        leases = [pool.acquire() for _ in range(3)]
        things = [lease.object for lease in leases]
        for lease in leases:
            lease.release()
        again = [pool.acquire() for _ in range(3)]
        expected = things[::-1] if lifo else things
        assert [lease.object for lease in again] == expected
        pool.check()


def test_initial_objects(impl):
    pool = impl.ObjectPool(Thing, 3, 5)
    assert (pool.idle, pool.size, pool.max_size) == (3, 3, 5)
    assert (pool.stats().created, pool.stats().acquires) == (3, 0)
    pool.check()


def test_initial_objects_all_or_none(impl):
    disposed, made = [], []

    def factory():
        if len(made) == 2:
            raise OSError("no more")
        made.append(Thing())
        return made[-1]

    with pytest.raises(OSError, match="no more"):
        impl.ObjectPool(factory, 3, dispose=disposed.append)
    assert set(disposed) == set(made)


def test_exhausted(impl):
    pool = impl.ObjectPool(Thing, max_size=1, timeout=0.01, name="few")
    lease = pool.acquire()
    text = r"no object of the pool 'few' became free within 0\.01 s; max_size=1 are out"
    with pytest.raises(PoolTimeoutError, match=text):
        pool.acquire()
    with pytest.raises(TimeoutError, match="within 0 s"):
        pool.acquire(timeout=0)
    with pytest.raises(ValueError, match="timeout must not be negative"):
        pool.acquire(timeout=-1)
    lease.release()
    pool.acquire(0).release()
    stats = pool.stats()
    assert (stats.timeouts, stats.waits) == (2, 1)
    pool.check()


def test_get_and_put(impl):
    pool = impl.ObjectPool(Thing, max_size=1, timeout=0)
    thing = pool.get()
    with pytest.raises(PoolTimeoutError):
        pool.get()
    pool.put(thing)
    with pytest.raises(ValueError, match="was put back before"):
        pool.put(thing)
    with pytest.raises(ValueError, match="is no object of the pool"):
        pool.put(Thing())
    with pool.acquire() as leased:
        assert leased is thing
        for refused in (pool.put, pool.discard):
            with pytest.raises(ValueError, match="out by a lease"):
                refused(thing)
    assert pool.get() is thing
    pool.discard(thing)
    assert pool.size == 0
    with pytest.raises(ValueError, match="is no object"):
        pool.discard(thing)
    pool.check()


def test_one_object_lent_to_many(impl):
    """A pool of one thing, to bound how many use it at once."""
    thing = Thing()
    pool = impl.ObjectPool(lambda: thing, max_size=3, timeout=0)
    assert [pool.get() for _ in range(3)] == [thing] * 3
    with pytest.raises(PoolTimeoutError):
        pool.get()
    for left in (2, 1, 0):
        pool.put(thing)
        assert pool.in_use == left
    with pytest.raises(ValueError, match="was put back before"):
        pool.put(thing)
    pool.get()
    pool.discard(thing)
    assert pool.size == 2
    pool.check()


def test_a_factory_that_raises_loses_no_slot(impl):
    fails = iter([True, False, True, True, False])

    def factory():
        if next(fails):
            raise ConnectionError("refused")
        return Thing()

    pool = impl.ObjectPool(factory, max_size=2, timeout=0)
    made = 0
    for _ in range(5):
        try:
            pool.get()
            made += 1
        except ConnectionError:
            assert pool.size == made
    assert (made, pool.stats().failed, pool.in_use) == (2, 3, 2)
    pool.check()


def test_reset(impl, unraised):
    def reset(thing):
        thing.resets += 1
        if not thing.good:
            raise ValueError("beyond repair")

    disposed = []
    pool = impl.ObjectPool(Thing, max_size=1, reset=reset, dispose=disposed.append)
    with pool.acquire() as thing:
        assert thing.resets == 0
    pool.acquire()
    pool.put(pool.get())
    assert thing.resets == 3
    with pool.acquire() as again:
        assert again is thing
        thing.good = False
    assert [str(error) for error in unraised] == ["beyond repair"]
    assert disposed == [thing]
    assert pool.size == 0
    with pool.acquire() as other:
        assert other is not thing
    pool.check()


def test_reset_does_not_hide_the_bodys_error(impl, unraised):
    def reset(thing):
        raise OSError

    pool = impl.ObjectPool(Thing, reset=reset)
    with pytest.raises(KeyError), pool.acquire():
        raise KeyError
    assert len(unraised) == 1
    pool.check()


@pytest.mark.parametrize("how", ["false", "raises", "odd"])
def test_validate(impl, how):
    class Odd:
        def __bool__(self):
            raise ValueError

    def validate(thing):
        if thing.good:
            return True
        if how == "raises":
            raise ConnectionError
        return Odd() if how == "odd" else 0

    disposed = []
    pool = impl.ObjectPool(
        Thing, 1, 1, validate=validate, dispose=disposed.append, timeout=0
    )
    for acquire in (
        lambda: pool.acquire().object,
        lambda: pool.acquire().__enter__(),
        lambda: pool.objects()[0].object,
    ):
        thing = acquire()
        assert pool.acquire().object is thing
        thing.good = False
        assert pool.acquire().object is not thing
        assert disposed.pop() is thing
    assert pool.stats().invalid == 3
    assert pool.size == 1
    pool.check()


def test_validation_fails_and_the_factory_too(impl):
    things = [Thing()]
    pool = impl.ObjectPool(things.pop, 1, 1, validate=lambda t: False, timeout=0)
    with pytest.raises(IndexError):
        pool.acquire()
    assert pool.size == 0
    pool.check()


@pytest.mark.parametrize("callback", ["reset", "validate", "factory"])
def test_ctrl_c_in_a_callback(impl, callback):
    interrupted, disposed = [], []

    def act(thing=None):
        if interrupted:
            raise KeyboardInterrupt
        return Thing() if thing is None else True

    pool = impl.ObjectPool(
        act if callback == "factory" else Thing,
        max_size=1,
        timeout=0,
        dispose=disposed.append,
        **({} if callback == "factory" else {callback: act}),
    )
    if callback != "factory":
        pool.acquire().release()
    lease = pool.acquire() if callback == "reset" else None
    interrupted.append(True)
    with pytest.raises(KeyboardInterrupt):
        lease.release() if lease else pool.acquire()
    assert pool.size == 0
    assert len(disposed) == (callback != "factory")
    interrupted.clear()
    pool.acquire().release()
    pool.check()


def test_discard(impl):
    disposed = []
    pool = impl.ObjectPool(Thing, max_size=1, timeout=0, dispose=disposed.append)
    lease = pool.acquire()
    thing = lease.object
    lease.discard()
    assert disposed == [thing]
    assert (pool.size, lease.released) == (0, True)
    assert pool.acquire().object is not thing
    assert pool.stats().disposed == 1
    pool.check()


def test_dispose_that_raises(impl, unraised):
    def dispose(thing):
        raise OSError("closed already")

    pool = impl.ObjectPool(Thing, max_size=1, timeout=0, dispose=dispose)
    pool.acquire().discard()
    assert [str(error) for error in unraised] == ["closed already"]
    pool.acquire().release()
    pool.close()
    assert len(unraised) == 2
    assert pool.size == 0
    pool.check()


def test_max_age(impl):
    clock, disposed = Clock(), []
    pool = impl.ObjectPool(
        Thing, max_age=10, max_idle=None, clock=clock, dispose=disposed.append
    )
    with pool.acquire() as thing:
        clock.now += 9
    assert pool.acquire().object is thing
    clock.now += 1
    with pool.acquire() as other:
        assert other is not thing
    assert disposed == [thing]
    clock.now += 10
    assert pool.evict() == 1
    assert disposed == [thing, other]
    assert pool.stats().expired == 2
    pool.check()


def test_max_idle(impl):
    clock = Clock()
    pool = impl.ObjectPool(Thing, 4, 5, max_idle=10, min_size=1, clock=clock)
    clock.now += 6
    with pool.acquire(), pool.acquire():
        pass
    clock.now += 5
    assert pool.evict() == 2  # those that were not used meanwhile
    assert pool.evict() == 0
    clock.now += 100
    assert pool.evict() == 1
    assert pool.size == 1
    assert pool.stats().evicted == 3
    pool.check()


def test_eviction_in_the_background(impl):
    disposed = []
    pool = impl.ObjectPool(Thing, 2, max_idle=0.02, dispose=disposed.append)
    end = time.monotonic() + 20
    while len(disposed) < 2 and time.monotonic() < end:
        time.sleep(0.01)
    assert len(disposed) == 2
    assert pool.size == 0
    alive = weakref.ref(pool)
    pool.acquire().release()
    del pool
    while alive() is not None and time.monotonic() < end:  # a sweep may be under way
        time.sleep(0.01)
    assert alive() is None
    assert len(disposed) == 3


def test_leaks_are_told_once(impl):
    clock, told = Clock(), []
    pool = impl.ObjectPool(
        Thing, leak_after=5, clock=clock, on_leak=lambda *leak: told.append(leak)
    )
    from ctxpool._object_support import sweep

    lease = pool.acquire()
    other = pool.acquire()
    other.release()
    clock.now += 4
    sweep(pool)
    assert not told
    clock.now += 2
    sweep(pool)
    sweep(pool)
    ((thing, seconds, place),) = told
    assert thing is lease.object
    assert seconds == 6
    assert place.startswith(f"{__file__}:")
    assert place.endswith("in test_leaks_are_told_once")
    assert pool.objects()[-1].place == place
    assert pool.stats().leaked == 1
    lease.release()
    lease = pool.acquire()
    clock.now += 6
    sweep(pool)
    assert len(told) == 2


def test_a_leak_warns(impl):
    from ctxpool._object_support import sweep

    clock = Clock()
    pool = impl.ObjectPool(Thing, leak_after=5, clock=clock, name="lent")
    thing = pool.get()
    clock.now += 7
    with pytest.warns(ResourceWarning, match=r"'lent', acquired at .* for 7\.0 s"):
        sweep(pool)
    pool.put(thing)


def test_objects(impl):
    clock = Clock()
    pool = impl.ObjectPool(Thing, 2, clock=clock)
    clock.now += 10
    lease = pool.acquire()
    clock.now += 5
    idle, out = pool.objects()
    assert out.object is lease.object
    assert (idle.in_use, out.in_use) == (False, True)
    assert (idle.uses, out.uses) == (0, 1)
    assert out.last_used - out.created == pytest.approx(10)
    assert time.time() - out.created == pytest.approx(15, abs=5)
    assert out.place is None


def test_close(impl):
    disposed = []
    pool = impl.ObjectPool(Thing, 2, dispose=disposed.append, name="p")
    with pool:
        lease = pool.acquire()
        thing = lease.object
    assert pool.closed
    assert len(disposed) == 1
    assert repr(pool).endswith("in_use=1, closed>")
    for use in (pool.acquire, pool.get, pool.__enter__):
        with pytest.raises(PoolClosedError, match="the pool 'p' is closed"):
            use()
    lease.release()
    assert disposed[1:] == [thing]
    assert pool.size == 0
    pool.close()
    assert len(disposed) == 2
    pool.check()


def test_closed_by_its_factory(impl):
    disposed = []

    def factory():
        pool.close()
        return Thing()

    pool = impl.ObjectPool(factory, dispose=disposed.append)
    with pytest.raises(PoolClosedError):
        pool.acquire()
    assert len(disposed) == 1
    assert pool.size == 0
    pool.check()


def test_a_dropped_pool_disposes(impl):
    disposed = []
    pool = impl.ObjectPool(Thing, 3, dispose=disposed.append)
    thing = pool.get()
    del pool
    gc.collect()
    assert len(disposed) == 2
    assert thing not in disposed


def test_callbacks_may_use_the_pool(impl):
    calls = []

    def reset(thing):
        calls.append("reset")
        if len(calls) < 4:
            with pool.acquire() as other:
                assert other is not thing
        pool.stats()
        pool.evict()

    def dispose(thing):
        if not pool.closed:
            pool.put(pool.get())

    pool = impl.ObjectPool(
        lambda: pool.stats() and Thing(), reset=reset, dispose=dispose, max_size=9
    )
    pool.acquire().release()
    pool.acquire().discard()
    pool.check()
    assert pool.in_use == 0


def test_stats(impl):
    pool = impl.ObjectPool(Thing, max_size=4, name="s")
    with pool.acquire(), pool.acquire():
        stats = pool.stats()
    assert (stats.name, stats.size, stats.in_use, stats.idle) == ("s", 2, 2, 0)
    stats = pool.stats()
    assert (stats.acquires, stats.releases, stats.peak) == (2, 2, 2)
    assert (stats.created, stats.disposed, stats.max_size) == (2, 0, 4)
    assert stats.as_dict()["waiting"] == 0
    with pytest.raises(AttributeError):
        stats.size = 3
    assert repr(pool) == "<ObjectPool name='s', max_size=4, idle=2, in_use=0>"


def test_a_clock_that_raises(impl, unraised):
    def clock():
        raise OSError("stopped")

    pool = impl.ObjectPool(Thing, clock=clock, max_idle=None)
    with pool.acquire():
        pass
    assert unraised
    assert pool.idle == 1
    pool.check()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_begins_empty(impl):
    """It neither uses, disposes of nor finalizes what is the parent's."""
    read, write = os.pipe()

    class Socket:
        def __del__(self):
            os.write(write, b"finalized ")

    pool = impl.ObjectPool(
        Socket, 2, 2, timeout=0, dispose=lambda s: os.write(write, b"disposed ")
    )
    lease, other = pool.acquire(), pool.acquire()
    other.release()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            ids = {id(lease.object), *(id(o.object) for o in pool.objects())}
            del other
            assert (pool.size, pool.idle, pool.in_use) == (0, 0, 0)
            lease.release()
            assert pool.size == 0
            own = [pool.acquire(), pool.acquire()]
            assert not ids & {id(o.object) for o in own}
            pool.check()
            own.clear()
            assert pool.idle == 2
            del lease
            gc.collect()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    os.set_blocking(read, False)
    with pytest.raises(BlockingIOError):
        os.read(read, 100)
    lease.release()
    assert pool.idle == 2
    pool.check()
    pool.close()
    del lease, other, pool
    assert os.read(read, 100).count(b"disposed") == 2
    gc.collect()
    os.close(read)
    os.close(write)
