# ruff: noqa: SIM105
"""One hostile probe of ObjectPool: object_pool_hostile.py BACKEND PROBE[,PROBE...].

Exits 0 when it held.
"""

import asyncio
import faulthandler
import gc
import importlib
import os
import random
import sys
import threading
import time
import weakref

faulthandler.enable()
ObjectPool = importlib.import_module(f"ctxpool._{sys.argv[1]}.object_pool").ObjectPool


class Thing:
    pass


class Act:
    """A callback that does something else each time."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.pool = None
        self.kept = []
        self.depth = 0

    def __call__(self, *args):
        pool = self.pool
        if pool is None or self.depth > 3:
            return Thing()
        self.depth += 1
        try:
            kind = self.random.randrange(9)
            if kind == 0:
                raise ValueError
            if kind == 1:
                self.kept.append(pool.acquire(timeout=0))
            elif kind == 2 and self.kept:
                self.kept.pop()
            elif kind == 3:
                pool.put(pool.get(timeout=0))
            elif kind == 4:
                pool.evict()
            elif kind == 5 and self.kept:
                self.kept.pop().discard()
            elif kind == 6:
                gc.collect(0)
            elif kind == 7:
                pool.objects(), pool.stats()
        finally:
            self.depth -= 1
        return Thing()


def callbacks_misbehave():
    sys.unraisablehook = lambda unraisable: None
    for seed in range(20):
        act = Act(seed)
        pool = ObjectPool(
            act, max_size=4, timeout=0, reset=act, validate=act, dispose=act
        )
        act.pool = pool
        for _ in range(60):
            try:
                with pool.acquire():
                    pass
            except (ValueError, MemoryError):
                pass
        if seed % 3 == 0:
            pool.close()
        act.pool = None  # it behaves from here on
        act.kept.clear()
        gc.collect()
        pool.check()
        assert pool.in_use == 0, pool
        del pool


def finalizers_reenter():
    class Noisy:
        def __del__(self):
            pool = box[0]
            if pool is not None and not pool.closed:
                try:
                    with pool.acquire(timeout=0):
                        pass
                except (MemoryError, ValueError):
                    pass

    box = [None]
    for seed in range(20):
        pool = box[0] = ObjectPool(Noisy, 2, 3, timeout=0)
        for i in range(30):
            lease = pool.acquire()
            if i % 3 == seed % 3:
                lease.discard()
            elif i % 7 == 0:
                cycle = [lease]
                cycle.append(cycle)
                del cycle
            del lease
            gc.collect(0)
        gc.collect()
        pool.check()
        assert pool.in_use == 0
        pool.close()
        assert pool.size == 0
    box[0] = None


def cycles():
    """Pools, leases and objects that know each other, in every order."""
    alive = []
    for how in range(32):
        pool = ObjectPool(Thing if how & 1 else list, max_size=3)
        lease, idle, plain = pool.acquire(), pool.acquire(), pool.get()
        for thing in (lease.object, idle.object, plain):
            if how & 1:
                thing.pool, thing.lease = pool, lease
            else:
                thing.extend((pool, lease))
        if how & 2:
            idle.release()
        if how & 4:
            lease.release()
        if how & 8:
            pool.close()
        if how & 16:
            # What a tuple holds only the pool itself can let go.
            box = []
            other = ObjectPool(lambda box=box: (box[0],))
            box.append(other)
            other.acquire()
            other.acquire().object[0]
            alive.append(weakref.ref(other))
            box.clear()
            del other, box
        alive.append(weakref.ref(pool))
        del pool, lease, idle, plain, thing
    for _ in range(3):
        gc.collect()
    assert not any(reference() for reference in alive), [r() for r in alive]


def references():
    """What goes in comes out with as many references as before."""
    thing = Thing()
    before = sys.getrefcount(thing)
    for _ in range(3):
        pool = ObjectPool(lambda: thing, max_size=3, reset=lambda t: None)
        for _ in range(10):
            with pool.acquire(), pool.acquire() as again:
                assert again is thing
            pool.put(pool.get())
            pool.acquire().discard()
            pool.acquire()
        pool.objects()
        del again, pool
        gc.collect()
    assert sys.getrefcount(thing) == before, (sys.getrefcount(thing), before)


def half_made():
    for arguments in ((), (3,), (Thing, -1)):
        try:
            ObjectPool(*arguments)
        except (TypeError, ValueError):
            pass
    pool = ObjectPool.__new__(ObjectPool)
    for use in (pool.acquire, pool.get, pool.close, pool.__repr__, pool.stats):
        try:
            use()
        except (AttributeError, RuntimeError):
            pass
    del pool
    gc.collect()


def fork_in_threads():
    """A child of a pool in full use uses its own."""
    pool = ObjectPool(Thing, max_size=3, timeout=10, max_idle=0.01)
    stop = threading.Event()

    # Arguments, and no variables of the function around: without a GIL these have locks
    # of the interpreter's own, which another thread may hold when the child is forked.
    def use(pool, stop):
        while not stop.is_set():
            with pool.acquire():
                pass
            pool.acquire()

    threads = [threading.Thread(target=use, args=(pool, stop)) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(15):
            child = os.fork()
            if child == 0:
                faulthandler.dump_traceback_later(20, exit=True)
                for _ in range(3):
                    with pool.acquire(timeout=1), pool.acquire(timeout=1):
                        pass
                pool.check()
                os._exit(0 if pool.in_use == 0 else 1)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def interpreter_exit():
    """With waiting threads, idle objects and a sweep due: nothing hangs or crashes."""
    pool = ObjectPool(Thing, 1, 1, timeout=None, max_idle=0.001, dispose=print)
    globals()["kept"] = (pool, pool.acquire(), pool.get)
    thread = threading.Thread(target=pool.acquire, daemon=True)
    thread.start()
    time.sleep(0.01)


def many_tasks():
    """Cancelled at random, on an object that breaks at random."""

    async def use(pool, rng):
        try:
            async with asyncio.timeout(rng.random() * 0.004):
                async with pool.acquire(timeout=rng.random() * 0.004):
                    await asyncio.sleep(rng.random() * 0.001)
                    if rng.random() < 0.1:
                        raise KeyError
        except (TimeoutError, KeyError, ConnectionError):
            pass

    async def main():
        rng = random.Random(5)

        async def maybe(*args):
            await asyncio.sleep(0)
            if rng.random() < 0.1:
                raise ConnectionError
            return Thing()

        sys.unraisablehook = lambda unraisable: None
        for callbacks in ({}, {"reset": maybe}, {"reset": maybe, "validate": maybe}):
            pool = ObjectPool(maybe, max_size=3, **callbacks)
            for _ in range(3):
                await asyncio.gather(*(use(pool, rng) for _ in range(150)))
            while pool._settings.tasks:
                await asyncio.gather(*pool._settings.tasks, return_exceptions=True)
            pool.check()
            assert (pool.in_use, pool.stats().waiting) == (0, 0)
            leases = []
            while len(leases) < 3:
                try:
                    leases.append(await pool.acquire(timeout=5))
                except ConnectionError:
                    pass
            leases.clear()
            await pool.aclose()
            assert pool.size == 0

    asyncio.run(main())


for probe in sys.argv[2].split(","):
    globals()[probe]()
