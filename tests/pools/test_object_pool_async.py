"""ObjectPool and asyncio: tasks that wait, are cancelled, and run in several loops."""

import asyncio
import gc
import threading
import time

import pytest

from ctxpool.errors import LeaseError, PoolClosedError, PoolTimeoutError


class Thing:
    good = True


def test_every_way_to_await(impl):
    async def main():
        pool = impl.ObjectPool(Thing, max_size=1)
        for acquire in (pool.acquire, pool.acquire_async):
            for _ in range(2):  # once made, once idle
                async with acquire() as thing:
                    assert isinstance(thing, Thing)
                    assert pool.in_use == 1
                lease = await acquire()
                assert lease.object is thing
                assert await lease is lease
                async with lease as again:
                    assert again is thing
                assert lease.released
                with acquire() as again:
                    assert again is thing
                pool.check()
        lease = await pool.acquire_async()
        lease.discard()
        assert pool.size == 0

    asyncio.run(main())


def test_values_that_look_like_an_end(impl):
    """StopIteration, a tuple, an exception: what an await gives is the object."""

    async def main():
        for value in ((), (1, 2), StopIteration(3), None, ValueError("no")):
            pool = impl.ObjectPool(lambda value=value: value)
            for _ in range(2):
                async with pool.acquire_async() as obj:
                    assert obj is value

    asyncio.run(main())


def test_a_lease_that_is_still_to_be_awaited(impl):
    async def main():
        pool = impl.ObjectPool(Thing, max_size=1, timeout=5)
        with pool.acquire():
            for lease in (pool.acquire(), pool.acquire_async()):
                assert repr(lease) == "<ObjectLease, to be awaited>"
                assert not lease.released
                with pytest.raises(LeaseError, match="no object yet"):
                    _ = lease.object
                with pytest.raises(LeaseError, match="no object yet"):
                    lease.release()
            with pytest.raises(PoolTimeoutError):
                pool.acquire(timeout=0)
            with pytest.raises(PoolTimeoutError):
                await pool.acquire(timeout=0.01)
            with pytest.raises(PoolTimeoutError, match="within 0 s"):
                await pool.acquire_async(timeout=0)
            with pytest.raises(ValueError, match="not -1"):
                await pool.acquire_async(timeout=-1)
        assert (await lease).object
        lease.release()
        pool.check()

    asyncio.run(main())


def test_tasks_are_served_in_turn(impl):
    async def main():
        pool, order = impl.ObjectPool(Thing, max_size=1), []

        async def use(i):
            async with pool.acquire():
                order.append(i)
                await asyncio.sleep(0)

        lease = pool.acquire()
        tasks = []
        for i in range(10):
            tasks.append(asyncio.create_task(use(i)))
            await asyncio.sleep(0)
        assert pool.stats().waiting == 10
        lease.release()
        with pytest.raises(PoolTimeoutError):  # who comes later does not push in
            pool.get(timeout=0)
        await asyncio.gather(*tasks)
        assert order == list(range(10))
        assert pool.stats().created == 1
        pool.check()

    asyncio.run(main())


@pytest.mark.parametrize("slot", ["object", "room"])
@pytest.mark.parametrize("handed", [False, True])
def test_a_cancelled_waiter_passes_on(impl, handed, slot):
    """What he was handed goes to the next, whichever came first."""

    async def main():
        pool = impl.ObjectPool(Thing, max_size=1)
        for _ in range(3):
            lease = await pool.acquire_async()
            give_back = lease.release if slot == "object" else lease.discard
            tasks = [asyncio.create_task(use(pool)) for _ in range(3)]
            await asyncio.sleep(0)
            if handed:
                give_back()  # to the first, which has not run since
            tasks[0].cancel()
            if not handed:
                await asyncio.sleep(0)
                give_back()
            results = await asyncio.wait_for(
                asyncio.gather(*tasks, return_exceptions=True), 10
            )
            assert isinstance(results[0], asyncio.CancelledError)
            assert results[1:] == [True, True]
            assert pool.in_use == 0
            pool.check()

    async def use(pool):
        async with pool.acquire():
            await asyncio.sleep(0)
            return True

    asyncio.run(main())


def test_timeouts_and_cancellations_against_releases(impl):
    """Waiters that give up at about the time when they are handed an object."""

    async def main():
        pool = impl.ObjectPool(Thing, max_size=2)
        done = [0, 0]

        async def use(i):
            try:
                async with asyncio.timeout(0.0005 * (i % 5)):
                    async with pool.acquire(timeout=0.0007 * (1 + i % 7)):
                        await asyncio.sleep(0.0003 * (i % 3))
                        done[0] += 1
            except TimeoutError:
                done[1] += 1

        for _ in range(3):
            await asyncio.gather(*map(use, range(200)))
        assert sum(done) == 600
        assert pool.in_use == 0
        assert pool.stats().waiting == 0
        assert pool.size <= 2
        pool.check()
        async with pool.acquire(timeout=5), pool.acquire(timeout=5):
            pass

    asyncio.run(main())


def test_a_factory_that_fails_wakes_the_next(impl):
    async def main():
        made = []

        def factory():
            made.append(None)
            if len(made) in (2, 3):
                raise ConnectionError
            return Thing()

        pool = impl.ObjectPool(factory, max_size=1)

        async def use():
            async with pool.acquire():
                await asyncio.sleep(0)
                return True

        lease = pool.acquire()
        tasks = [asyncio.create_task(use()) for _ in range(4)]
        await asyncio.sleep(0)
        lease.discard()
        results = await asyncio.wait_for(
            asyncio.gather(*tasks, return_exceptions=True), 10
        )
        assert [type(result) for result in results] == [
            ConnectionError,
            ConnectionError,
            bool,
            bool,
        ]
        pool.check()

    asyncio.run(main())


def test_coroutine_functions(impl):
    async def main():
        calls = []

        def named(name, result=None):
            async def callback(*args):
                await asyncio.sleep(0)
                calls.append(name)
                return Thing() if name == "factory" else result

            return callback

        pool = impl.ObjectPool(
            named("factory"),
            1,
            2,
            reset=named("reset"),
            validate=named("validate", True),
            dispose=named("dispose"),
        )
        assert pool.size == 0
        async with pool:
            assert calls == ["factory"]
            async with pool.acquire() as thing:
                assert calls == ["factory", "validate"]
            assert calls.pop() == "reset"
            lease = await pool.acquire_async()
            assert lease.object is thing
            lease.release()  # a task does it
            async with pool.acquire() as other:
                assert other is not thing
            calls.clear()
            lease = await pool.acquire()
            del lease
            gc.collect()
            await asyncio.sleep(0.01)
            assert calls == ["validate", "reset"]
            assert pool.idle == 2
        assert calls[2:] == ["dispose"] * 2
        assert pool.size == 0
        pool.check()
        with pytest.raises(PoolClosedError):
            async with pool:
                pass
        with pytest.raises(PoolClosedError):
            await pool.acquire()

    asyncio.run(main())


@pytest.mark.parametrize("callback", ["factory", "reset", "validate"])
def test_cancelled_in_a_callback(impl, callback):
    async def main():
        disposed = []
        asleep = []

        async def act(thing=None):
            if asleep:
                asleep[0].set()
                await asyncio.sleep(60)
            return Thing() if thing is None else True

        async def dispose(thing):
            disposed.append(thing)

        pool = impl.ObjectPool(
            act if callback == "factory" else Thing,
            max_size=1,
            dispose=dispose,
            **({} if callback == "factory" else {callback: act}),
        )

        async def use():
            async with pool.acquire():
                pass

        if callback == "validate":
            await use()
        asleep.append(asyncio.Event())
        task = asyncio.create_task(use())
        await asleep[0].wait()
        asleep.clear()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        if callback == "reset":  # what was begun goes on
            assert pool.in_use == 1
            (reset,) = pool._settings.tasks
            reset.cancel()
        await asyncio.sleep(0.01)
        assert pool.size == 0
        assert len(disposed) == (callback != "factory")
        await asyncio.wait_for(use(), 10)
        pool.check()
        await pool.aclose()

    asyncio.run(main())


def test_coroutine_functions_need_their_loop(impl):
    async def factory():
        return Thing()

    pool = impl.ObjectPool(factory, 3, max_size=3, name="db")
    text = "'db' has a coroutine function as factory: use `async with` or `await`"
    for use in (pool.acquire, pool.get):
        with pytest.raises(TypeError, match=text):
            use()

    async def use():
        async with pool.acquire() as thing:
            assert pool.size == 1
            await asyncio.to_thread(in_another_loop)
            with pytest.raises(TypeError, match=text), pool.acquire():
                pass
            return thing

    def in_another_loop():
        with pytest.raises(RuntimeError, match="belongs to another event loop"):
            asyncio.run(use())

    first = asyncio.run(use())
    # That loop is closed: what was made in it is of no use in another.
    assert asyncio.run(use()) is not first
    assert (pool.size, pool.stats().disposed) == (1, 1)
    pool.check()


def test_a_lease_that_outlives_its_loop(impl):
    async def coroutine_function(*args):
        return Thing()

    pool = impl.ObjectPool(coroutine_function, reset=coroutine_function, max_size=1)

    async def main():
        return await pool.acquire()

    lease = asyncio.run(main())
    lease.release()
    assert pool.size == 0
    lease = asyncio.run(main())
    del lease
    gc.collect()
    assert pool.size == 0
    pool.check()


def test_a_coroutine_by_surprise(impl):
    async def coroutine_function(*args):
        return Thing()

    pool = impl.ObjectPool(lambda: coroutine_function(), max_size=1)
    with pytest.raises(TypeError, match="make it of a coroutine function"):
        pool.acquire()
    assert pool.size == 0
    pool = impl.ObjectPool(Thing, 1, 1, validate=lambda t: coroutine_function())
    pool.acquire().release()
    assert pool.stats().invalid == 1
    pool.check()


def test_several_loops_and_threads(impl):
    pool = impl.ObjectPool(Thing, max_size=3, timeout=60)
    stop = time.monotonic() + 0.4
    busy, most, errors = set(), [0], []

    def used(thing):
        assert thing not in busy
        busy.add(thing)
        most[0] = max(most[0], len(busy))

    async def in_task():
        while time.monotonic() < stop:
            async with pool.acquire() as thing:
                used(thing)
                await asyncio.sleep(0)
                busy.discard(thing)

    async def loop():
        await asyncio.gather(*(in_task() for _ in range(4)))

    def in_thread():
        while time.monotonic() < stop:
            with pool.acquire() as thing:
                used(thing)
                time.sleep(0)
                busy.discard(thing)

    def guarded(function):
        try:
            function()
        except BaseException as error:
            errors.append(error)

    targets = [lambda: asyncio.run(loop())] * 2 + [in_thread] * 2
    threads = [threading.Thread(target=guarded, args=(t,)) for t in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors
    assert most[0] <= 3
    assert (pool.in_use, pool.stats().waiting) == (0, 0)
    assert pool.stats().acquires == pool.stats().releases
    pool.check()


def test_a_closed_loop_keeps_nothing(impl):
    pool = impl.ObjectPool(Thing, max_size=1, timeout=5)
    lease = pool.acquire()
    loop = asyncio.new_event_loop()

    async def wait():
        await pool.acquire_async()

    tasks = [loop.create_task(wait()) for _ in range(2)]
    loop.run_until_complete(asyncio.sleep(0))
    assert pool.stats().waiting == 2
    loop.close()
    lease.release()  # these tasks will never run
    pool.acquire(timeout=0).release()
    pool.check()
    for task in tasks:
        task.get_coro().close()
        task._log_destroy_pending = False


def test_handed_to_a_loop_that_closes(impl):
    """A task that was handed an object, and is not run again."""
    pool = impl.ObjectPool(Thing, max_size=1, timeout=5)
    lease = pool.acquire()
    loop = asyncio.new_event_loop()

    async def wait():
        await pool.acquire_async()

    task = loop.create_task(wait())
    loop.run_until_complete(asyncio.sleep(0))
    lease.release()
    assert pool.in_use == 1
    loop.close()
    task.get_coro().close()
    task._log_destroy_pending = False
    del task, lease
    gc.collect()
    assert pool.in_use == 0
    pool.acquire(timeout=0).release()
    pool.check()


def test_closing_wakes_tasks(impl):
    async def main():
        pool = impl.ObjectPool(Thing, max_size=1)
        lease = pool.acquire()
        waiting = [pool.acquire() for _ in range(3)]
        tasks = [asyncio.ensure_future(until(w)) for w in waiting]
        await asyncio.sleep(0)
        await pool.aclose()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(error) for error in results] == [PoolClosedError] * 3
        lease.release()
        assert pool.size == 0

    async def until(lease):
        await lease

    asyncio.run(main())


def test_dropped_without_aclose(impl):
    async def dispose(thing):
        raise AssertionError("never called")

    async def main():
        pool = impl.ObjectPool(Thing, dispose=dispose)
        async with pool.acquire():
            pass
        return [pool]

    pools = asyncio.run(main())
    with pytest.warns(ResourceWarning, match="1 idle objects are not disposed of"):
        pools.clear()
