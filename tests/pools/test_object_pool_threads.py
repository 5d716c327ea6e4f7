"""Threads on one ObjectPool: started together, errors gathered, nothing lost."""

import random
import threading
import time

import pytest

from ctxpool.errors import LeaseError, PoolClosedError, PoolTimeoutError


class Thing:
    pass


def run(*targets, timeout=60):
    errors = []
    barrier = threading.Barrier(len(targets))

    def guarded(target):
        try:
            barrier.wait(timeout)
            target()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(t,)) for t in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout)
    assert not any(thread.is_alive() for thread in threads)
    if errors:
        raise errors[0]


@pytest.mark.parametrize("reset", [False, True])
def test_no_object_is_lent_twice(impl, reset):
    busy = set()
    n = 400 if impl.backend == "pure" else 3_000
    pool = impl.ObjectPool(
        Thing, max_size=2, timeout=60, reset=(lambda thing: None) if reset else None
    )

    def use():
        choice = random.Random(threading.get_ident()).random
        for _ in range(n):
            kind = choice()
            if kind < 0.6:
                with pool.acquire() as thing:
                    assert thing not in busy
                    busy.add(thing)
                    busy.discard(thing)
            elif kind < 0.8:
                pool.put(pool.get())
            elif kind < 0.9:
                pool.acquire()  # dropped
            elif kind < 0.95:
                pool.acquire().discard()
            else:
                pool.stats()
                pool.objects()
                pool.evict()

    run(*[use] * 4)
    assert (pool.in_use, pool.stats().waiting) == (0, 0)
    stats = pool.stats()
    assert stats.acquires == stats.releases
    assert stats.created - stats.disposed == pool.size <= 2
    pool.check()


def test_timeouts_against_releases(impl):
    pool = impl.ObjectPool(Thing, max_size=1)
    counts = []

    def use():
        for i in range(60):
            try:
                with pool.acquire(timeout=0.0002 * (i % 4)):
                    time.sleep(0.0003)
                    counts.append(1)
            except PoolTimeoutError:
                counts.append(0)

    run(*[use] * 4)
    assert len(counts) == 240
    assert (pool.in_use, pool.stats().waiting, pool.size) == (0, 0, 1)
    pool.check()
    pool.acquire(timeout=0).release()


def test_threads_are_served_in_turn(impl):
    pool = impl.ObjectPool(Thing, max_size=1, timeout=30)
    lease, order, threads = pool.acquire(), [], []

    def use(i):
        with pool.acquire():
            order.append(i)

    for i in range(5):
        threads.append(threading.Thread(target=use, args=(i,)))
        threads[-1].start()
        while pool.stats().waiting <= i:
            time.sleep(0.001)
    lease.release()
    for thread in threads:
        thread.join(30)
    assert order == list(range(5))
    pool.check()


def test_one_lease_released_by_many(impl):
    pool = impl.ObjectPool(Thing, max_size=1)
    for _ in range(100):
        lease, refused = pool.acquire(), []

        def release(lease=lease, refused=refused):
            try:
                lease.release()
            except LeaseError:
                refused.append(None)

        run(*[release] * 3)
        assert len(refused) == 2
        assert (pool.idle, pool.in_use) == (1, 0)
    pool.check()


def test_slow_factories_do_not_wait_for_each_other(impl):
    together = threading.Barrier(3)

    def factory():
        together.wait(30)
        return Thing()

    pool = impl.ObjectPool(factory, max_size=3)
    run(*[lambda: pool.acquire().release()] * 3)
    assert pool.idle <= 3
    pool.check()


def test_closing_wakes_threads(impl):
    pool = impl.ObjectPool(Thing, max_size=1, timeout=30)
    lease, closed = pool.acquire(), []

    def use():
        try:
            pool.acquire()
        except PoolClosedError:
            closed.append(None)

    def close():
        while pool.stats().waiting < 3:
            time.sleep(0.001)
        pool.close()

    run(use, use, use, close)
    assert len(closed) == 3
    lease.release()
    assert pool.size == 0
    pool.check()


def test_an_idle_pool_has_no_thread(impl):
    pool = impl.ObjectPool(Thing, max_idle=None, cleanup_interval=None)
    before = set(threading.enumerate())
    pool.acquire().release()
    assert set(threading.enumerate()) <= before


def test_memory_is_flat(impl):
    import tracemalloc

    pool = impl.ObjectPool(Thing, max_size=4, max_idle=None, cleanup_interval=None)

    def use():
        for _ in range(300):
            with pool.acquire(), pool.acquire():
                pool.acquire()
            pool.put(pool.get())
            pool.acquire().discard()

    use()
    tracemalloc.start()
    try:
        use()
        first = tracemalloc.get_traced_memory()[0]
        use()
        assert tracemalloc.get_traced_memory()[0] - first < 5_000
    finally:
        tracemalloc.stop()
