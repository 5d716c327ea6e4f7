"""Tasks that wait for a block."""

import asyncio
import inspect
import threading
import time

import pytest

from ctxpool.errors import PoolClosedError, PoolExhaustedError, PoolTimeoutError


def test_a_free_block_needs_no_waiting(impl):
    async def main():
        pool = impl.BlockPool(64, 1, on_exhausted="wait")
        with await pool.acquire_async() as block:
            block.view[0] = 1
            assert pool.in_use == 1
        assert pool.in_use == 0
        assert pool.stats().waits == 0

    assert inspect.iscoroutinefunction(main)
    asyncio.run(main())


@pytest.mark.parametrize("policy", ["raise", "grow", "heap"])
def test_other_policies_do_what_acquire_does(impl, policy):
    async def main():
        pool = impl.BlockPool(64, 1, on_exhausted=policy)
        held = await pool.acquire_async()
        if policy == "raise":
            with pytest.raises(PoolExhaustedError):
                await pool.acquire_async()
        else:
            other = await pool.acquire_async()
            assert other.index == (1 if policy == "grow" else -1)
        held.release()

    asyncio.run(main())


def test_tasks_are_served_in_turn(impl):
    async def main():
        pool = impl.BlockPool(64, 1, on_exhausted="wait", debug=True)
        order, held = [], pool.acquire()

        async def use(i):
            with await pool.acquire_async() as block:
                order.append(i)
                block.view[0] = i
                await asyncio.sleep(0)

        tasks = []
        for i in range(10):
            tasks.append(asyncio.create_task(use(i)))
            await asyncio.sleep(0)
        held.release()
        await asyncio.gather(*tasks)
        assert order == list(range(10))
        assert pool.in_use == 0
        assert pool.stats().waits == 10
        pool.check()

    asyncio.run(main())


def test_waiting_in_vain(impl):
    async def main():
        pool = impl.BlockPool(64, 1, on_exhausted="wait", timeout=0.02, name="w")
        block = await pool.acquire_async()
        with pytest.raises(PoolTimeoutError, match=r"'w' became free within 0\.02 s"):
            await pool.acquire_async()
        with pytest.raises(PoolTimeoutError, match=r"within 0\.01 s"):
            await pool.acquire_async(timeout=0.01)
        with pytest.raises(ValueError, match="not -1"):
            await pool.acquire_async(timeout=-1)
        block.release()
        (await pool.acquire_async()).release()
        assert pool.stats().exhausted == 2
        pool.check()

    asyncio.run(main())


def test_a_cancelled_task_loses_no_block(impl):
    async def main():
        pool = impl.BlockPool(64, 1, on_exhausted="wait")
        for handed in (False, True):
            block = await pool.acquire_async()
            first = asyncio.create_task(pool.acquire_async())
            second = asyncio.create_task(pool.acquire_async())
            await asyncio.sleep(0)
            if handed:
                block.release()  # to the first, which has not run since
                first.cancel()
            else:
                first.cancel()
                await asyncio.sleep(0)
                block.release()
            got = await asyncio.wait_for(second, 5)
            assert got.index == 0
            with pytest.raises(asyncio.CancelledError):
                await first
            got.release()
        assert pool.in_use == 0
        pool.check()

    asyncio.run(main())


def test_a_thread_wakes_a_task_and_a_task_a_thread(impl):
    pool = impl.BlockPool(64, 1, on_exhausted="wait", timeout=10)

    async def main():
        block = pool.acquire()
        threading.Timer(0.05, block.release).start()
        with await pool.acquire_async():
            got = []
            thread = threading.Thread(target=lambda: got.append(pool.acquire().index))
            thread.start()
            while pool.stats().waits < 2:
                await asyncio.sleep(0.001)
        await asyncio.to_thread(thread.join)
        assert got == [0]

    asyncio.run(main())
    assert pool.in_use == 0
    pool.check()


def test_a_closed_loop_keeps_nothing(impl):
    pool = impl.BlockPool(64, 1, on_exhausted="wait", timeout=5)
    block = pool.acquire()
    loop = asyncio.new_event_loop()
    task = loop.create_task(pool.acquire_async())
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    block.release()  # its task will never run
    assert pool.available == 1
    pool.acquire().release()
    pool.check()
    task.get_coro().close()
    task._log_destroy_pending = False


def test_closing_the_pool_wakes_tasks(impl):
    async def main():
        pool = impl.BlockPool(64, 1, on_exhausted="wait")
        block = pool.acquire()
        tasks = [asyncio.create_task(pool.acquire_async()) for _ in range(3)]
        await asyncio.sleep(0)
        pool.close()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(error) for error in results] == [PoolClosedError] * 3
        block.release()

    asyncio.run(main())


def test_tasks_and_threads_together(impl):
    pool = impl.BlockPool(64, 3, on_exhausted="wait", timeout=20)
    stop = time.monotonic() + 1.0

    def in_thread():
        while time.monotonic() < stop:
            with pool.acquire() as block:
                block.view[:] = b"t" * 64
                assert bytes(block.view) == b"t" * 64

    async def in_task():
        while time.monotonic() < stop:
            with await pool.acquire_async() as block:
                block.view[:] = b"a" * 64
                await asyncio.sleep(0)
                assert bytes(block.view) == b"a" * 64

    async def main():
        workers = [asyncio.to_thread(in_thread) for _ in range(2)]
        await asyncio.gather(*(in_task() for _ in range(5)), *workers)

    asyncio.run(main())
    assert pool.in_use == 0
    assert pool.stats().acquires == pool.stats().releases
    pool.check()
