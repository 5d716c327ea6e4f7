"""Threads and tasks that wait for memory of a MemoryPool; forks."""

import asyncio
import contextlib
import os
import sysconfig
import threading
import time

import pytest

from ctxpool.errors import PoolClosedError, PoolTimeoutError


def until(condition, timeout=10):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.001)


def start(*targets):
    threads = [threading.Thread(target=target, daemon=True) for target in targets]
    for thread in threads:
        thread.start()
    return threads


def join(threads, timeout=30):
    for thread in threads:
        thread.join(timeout)
        assert not thread.is_alive(), "a thread hangs"


@pytest.fixture
def pool(memory_pool):
    """Room for four blocks of 64 bytes, or two of 128, or one of 256."""
    pool = memory_pool([64, 128, 256], 256, slab_size=64, on_exhausted="wait", name="w")
    yield pool
    assert pool.stats().in_use == 0
    assert not pool._line.waiting
    pool.check()


def test_waiting_in_vain(pool):
    held = pool.allocate(200)
    begin = time.monotonic()
    with pytest.raises(PoolTimeoutError, match=r"'w' became free within 0\.02 s"):
        pool.allocate(200, timeout=0.02)
    assert time.monotonic() - begin >= 0.019
    with pytest.raises(PoolTimeoutError):
        pool.allocate(1, timeout=0)
    with pytest.raises(PoolTimeoutError):
        pool.empty(3, timeout=0)
    with pytest.raises(ValueError, match="not -3"):
        pool.allocate(1, timeout=-3)
    assert (pool.stats().waits, pool.stats().exhausted) == (3, 3)
    held.release()
    pool.allocate(1, timeout=0).release()


@pytest.mark.parametrize("how", ["release", "drop", "view", "array"])
def test_a_waiter_gets_another_class_s_slab(pool, how):
    held = [pool.allocate(64) for _ in range(4)]
    if how == "view":
        held = [block.view for block in held]
    elif how == "array":
        held = [block.array() for block in held]
    got = []
    threads = start(lambda: got.append(len(pool.allocate(256))))
    until(lambda: pool._line.waiting)
    for _ in range(3):
        block = held.pop()
        if how == "release":
            block.release()
        del block
    time.sleep(0.02)
    assert not got  # three of four slabs are not enough
    if how == "release":
        held[0].release()
    held.clear()
    join(threads)
    assert got == [256]


def test_the_same_class_is_served_in_turn(pool):
    held, order, threads = pool.allocate(256), [], []

    def wait(i):
        with pool.allocate(250):
            order.append(i)

    for i in range(6):
        threads += start(lambda i=i: wait(i))
        until(lambda i=i: len(pool._line.waiting) == i + 1)
    held.release()
    join(threads)
    assert order == list(range(6))


def test_a_slab_serves_who_came_first(pool):
    held, order, threads = pool.allocate(256), [], []
    leave = threading.Event()

    def wait(size):
        with pool.allocate(size):
            order.append(size)
            leave.wait(10)

    for i, size in enumerate([128, 100, 64]):
        threads += start(lambda size=size: wait(size))
        until(lambda i=i: len(pool._line.waiting) == i + 1)
    held.release()
    until(lambda: len(order) == 2)
    time.sleep(0.02)
    assert sorted(order) == [100, 128]  # and not 64, which would take one's place
    leave.set()
    join(threads)
    assert order[2] == 64


def test_who_holds_much_is_not_held_up(pool):
    """A free block of one's own class is there for one, whoever else waits."""
    held = [pool.allocate(128), pool.allocate(64), pool.allocate(64)]
    held.pop().release()  # a free block of 64, in a slab of its own
    threads = start(lambda: pool.allocate(256).release())
    until(lambda: pool._line.waiting)
    with pool.allocate(60, timeout=5):
        pass
    held.clear()
    join(threads)


def test_a_short_wait_loses_no_wake_up(pool):
    """Waiters that give up just as a slab becomes free, and those behind them."""
    stop = time.monotonic() + 1.0
    served = [0] * 4

    def work(number, size, timeout):
        while time.monotonic() < stop:
            try:
                with pool.allocate(size, timeout) as block:
                    block.view[:] = bytes([number]) * size
                    assert bytes(block.view) == bytes([number]) * size
            except PoolTimeoutError:
                continue
            served[number] += 1

    join(
        start(
            lambda: work(0, 256, 1e-4),
            lambda: work(1, 128, 1e-3),
            lambda: work(2, 64, 0),
            lambda: work(3, 250, 20),
        )
    )
    assert served[3]


def test_budget_that_comes_back_unused_wakes_a_waiter(memory_pool):
    """It was taken when the waiter looked, for a slab that then failed to come."""
    entered, leave, got = threading.Event(), threading.Event(), []

    def create(address, nbytes):
        if nbytes == 128 and not leave.is_set():
            entered.set()
            leave.wait(10)
            raise OSError("cannot pin")

    pool = memory_pool(
        [64, 128], 128, slab_size=64, on_exhausted="wait", on_create=create
    )

    def fail():
        with pytest.raises(OSError, match="cannot pin"):
            pool.allocate(128)

    threads = start(fail)
    assert entered.wait(10)
    threads += start(lambda: got.append(pool.allocate(64, timeout=20).size))
    until(lambda: pool._line.waiting)
    time.sleep(0.02)
    leave.set()
    join(threads)
    assert got == [64]
    pool.check()


def test_closing_wakes_those_who_wait(memory_pool):
    pool = memory_pool([64, 256], 256, on_exhausted="wait")
    held, errors = pool.allocate(256), []

    def wait(size):
        try:
            pool.allocate(size)
        except PoolClosedError as error:
            errors.append(error)

    threads = start(*[lambda size=size: wait(size) for size in (256, 64, 200)])
    until(lambda: len(pool._line.waiting) == 3)
    pool.close()
    join(threads)
    assert len(errors) == 3
    held.release()


def test_threads_of_all_sizes(memory_pool):
    pool = memory_pool(
        [64, 256, 1024], 4096, slab_size=256, on_exhausted="wait", timeout=20
    )
    errors = []

    def work(mark):
        try:
            for i in range(250):
                size = (mark * 37 + i * 101) % 1024 + 1
                with pool.allocate(size) as block:
                    block.view[:] = bytes([mark]) * size
                    assert bytes(block.view) == bytes([mark]) * size
                if i % 50 == 0:
                    pool.trim()
                    pool.stats()
        except BaseException as error:
            errors.append(error)

    join(start(*[lambda mark=mark: work(mark) for mark in range(1, 7)]))
    assert not errors
    assert pool.stats().in_use == 0
    assert pool.stats().peak_bytes <= 4096
    pool.check()


# -- tasks -----------------------------------------------------------------------------


def test_awaited_and_entered(pool):
    async def main():
        with await pool.allocate_async(100) as block:
            assert len(block.view) == 100
        async with pool.allocate_async("64B") as block:
            block.view[:] = b"x" * 64
            assert pool.stats().in_use == 1
        assert block.released
        async with pool.allocate_async(10) as block:
            block.release()
        with pytest.raises(KeyError):
            async with pool.allocate_async(10):
                raise KeyError("the body's own")
        assert pool.stats().in_use == 0
        with pytest.raises(ValueError, match="257 is larger"):
            await pool.allocate_async(257)
        with pytest.raises(TypeError):
            await pool.allocate_async(1.5)
        allocation = pool.allocate_async(10)
        async with allocation:
            with pytest.raises(RuntimeError, match="entered already"):
                async with allocation:
                    pass

    asyncio.run(main())


def test_tasks_wait(pool):
    async def main():
        held = await pool.allocate_async(256)
        with pytest.raises(PoolTimeoutError, match=r"within 0\.01 s"):
            await pool.allocate_async(64, timeout=0.01)
        order = []

        async def use(i, size):
            async with pool.allocate_async(size):
                order.append(i)
                await asyncio.sleep(0)

        tasks = []
        for i, size in enumerate([200, 128, 256, 30]):
            tasks.append(asyncio.create_task(use(i, size)))
            await asyncio.sleep(0)
        assert len(pool._line.waiting) == 4
        held.release()
        await asyncio.wait_for(asyncio.gather(*tasks), 20)
        assert sorted(order) == [0, 1, 2, 3]

    asyncio.run(main())


@pytest.mark.parametrize("size", [256, 64])
def test_a_cancelled_task_loses_nothing(pool, size):
    async def main():
        for handed in (False, True):
            held = pool.allocate(256)

            async def get():
                return await pool.allocate_async(size)

            first, second = asyncio.create_task(get()), asyncio.create_task(get())
            await asyncio.sleep(0)
            assert len(pool._line.waiting) == 2
            if handed:
                held.release()  # wakes the first, which has not run since
                first.cancel()
            else:
                first.cancel()
                await asyncio.sleep(0)
                held.release()
            got = await asyncio.wait_for(second, 5)
            with pytest.raises(asyncio.CancelledError):
                await first
            got.release()
            assert pool.stats().in_use == 0

    asyncio.run(main())


def test_threads_and_tasks_in_one_line(pool):
    async def main():
        held = pool.allocate(256)
        got = []
        threads = start(lambda: got.append(pool.allocate(256).size))
        while not pool._line.waiting:
            await asyncio.sleep(0.001)
        threading.Timer(0.02, held.release).start()
        async with pool.allocate_async(64, timeout=10):
            pass
        while not got:
            await asyncio.sleep(0.001)
        join(threads)

    asyncio.run(main())


def test_a_closed_loop_keeps_nothing(pool):
    held = pool.allocate(256)

    async def get():
        await pool.allocate_async(64)

    loop = asyncio.new_event_loop()
    task = loop.create_task(get())
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    held.release()
    pool.allocate(256, timeout=5).release()
    pool.allocate(64, timeout=5).release()
    task.get_coro().close()
    task._log_destroy_pending = False


# -- forks -----------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_has_a_pool_of_its_own(pool):
    held, got = pool.allocate(256), []
    threads = start(lambda: got.append(pool.allocate(64).size))
    until(lambda: pool._line.waiting)
    pid = os.fork()
    if not pid:
        status = 1
        try:
            held.release()  # to nobody: that thread stayed in the parent
            pool.allocate(128, timeout=5).release()
            pool.allocate(256, timeout=5).release()
            pool.check()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    held.release()
    join(threads)
    assert got == [64]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.skipif(
    bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
    reason="a fork leaves the locks of objects held that other threads use",
)
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_forks_amid_threads(pool):
    """No lock stays held in a child by a thread of the parent."""
    stop = threading.Event()

    def work(size):
        while not stop.is_set():
            with contextlib.suppress(PoolTimeoutError):
                pool.allocate(size, timeout=0.01).release()

    threads = start(*[lambda size=size: work(size) for size in (64, 128, 256)])
    try:
        for _ in range(10):
            pid = os.fork()
            if not pid:
                pool.stats()
                pool.trim()
                os._exit(0)
            deadline = time.monotonic() + 20
            while not os.waitpid(pid, os.WNOHANG)[0]:
                if time.monotonic() > deadline:
                    os.kill(pid, 9)
                    os.waitpid(pid, 0)
                    pytest.fail("a child hangs")
                time.sleep(0.001)
    finally:
        stop.set()
    join(threads)
