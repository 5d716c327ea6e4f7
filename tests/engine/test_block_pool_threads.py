"""Waiting, threads, forks and exits of a BlockPool."""

import asyncio
import importlib
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from ctxpool.errors import (
    PoolClosedError,
    PoolExhaustedError,
    PoolTimeoutError,
)


def run_threads(*targets, timeout=60):
    """Run them at once; an exception of one is raised here; the GIL must stay off."""
    barrier, errors = threading.Barrier(len(targets)), []

    def run(target):
        try:
            barrier.wait()
            target()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(t,), daemon=True) for t in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout)
        assert not thread.is_alive(), "a thread hangs"
    if errors:
        raise errors[0]


def until(condition, timeout=10):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.001)


def test_waiting_in_vain(impl):
    pool = impl.BlockPool(64, 1, on_exhausted="wait", timeout=0.02, name="w")
    block = pool.acquire()
    begin = time.monotonic()
    with pytest.raises(PoolTimeoutError, match=r"'w' became free within 0\.02 s") as c:
        pool.acquire()
    assert time.monotonic() - begin >= 0.019
    assert isinstance(c.value, TimeoutError)
    assert isinstance(c.value, PoolExhaustedError)
    with pytest.raises(PoolTimeoutError):
        pool.acquire(timeout=0)
    with pytest.raises(PoolTimeoutError):
        pool.allocate()
    with pytest.raises(PoolTimeoutError):
        pool.empty()
    with pytest.raises(PoolExhaustedError):  # many never wait
        pool.acquire_many(1)
    with pytest.raises(ValueError, match="not -3"):
        pool.acquire(timeout=-3)
    stats = pool.stats()
    assert (stats.waits, stats.exhausted, stats.in_use) == (4, 5, 1)
    block.release()
    pool.acquire().release()
    pool.check()


@pytest.mark.parametrize("how", ["release", "drop", "array", "free", "view", "many"])
def test_a_waiter_gets_what_comes_back(impl, how):
    pool = impl.BlockPool(64, 1, on_exhausted="wait")
    held = [pool.empty()] if how == "array" else [pool.acquire()]
    if how in ("free", "many"):
        held.clear()
        held.append(pool.allocate())
    elif how == "view":
        held[0] = held[0].view
    got = []
    thread = threading.Thread(target=lambda: got.append(pool.acquire().index))
    thread.start()
    until(lambda: pool.stats().waits == 1)
    if how == "release":
        held[0].release()
    elif how == "free":
        pool.free(held[0])
    elif how == "many":
        pool.free_many(np.array(held))
    held.clear()
    thread.join(10)
    assert got == [0]
    assert pool.in_use == 0
    pool.check()


def test_waiters_are_served_in_turn(impl):
    pool = impl.BlockPool(64, 1, on_exhausted="wait", timeout=10)
    block, order, threads = pool.acquire(), [], []

    def wait(i):
        held = pool.acquire() if i % 2 else pool.allocate()
        order.append(i)
        if i % 2:
            held.release()
        else:
            pool.free(held)

    for i in range(6):
        threads.append(threading.Thread(target=wait, args=(i,)))
        threads[-1].start()
        until(lambda i=i: pool.stats().waits == i + 1)
    block.release()
    for thread in threads:
        thread.join(10)
    assert order == list(range(6))
    assert pool.in_use == 0
    pool.check()


def test_closing_wakes_those_who_wait(impl):
    pool = impl.BlockPool(64, 1, on_exhausted="wait")
    block, errors = pool.acquire(), []

    def wait():
        try:
            pool.acquire()
        except PoolClosedError as error:
            errors.append(error)

    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    until(lambda: pool.stats().waits == 3)
    pool.close()
    for thread in threads:
        thread.join(10)
    assert len(errors) == 3
    block.release()
    assert pool.in_use == 0


def test_a_short_wait_loses_no_block(impl):
    """A waiter that gives up just as a block is handed to it."""
    pool = impl.BlockPool(64, 1, on_exhausted="wait")
    stop = time.monotonic() + 1.0

    def work(timeout):
        while time.monotonic() < stop:
            try:
                block = pool.acquire(timeout)
            except PoolTimeoutError:
                continue
            block.view[0] = 1
            block.release()

    run_threads(lambda: work(1e-5), lambda: work(1e-4), lambda: work(0))
    assert pool.in_use == 0
    assert pool.available == 1
    pool.check()


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no POSIX signals")
def test_an_interrupted_wait_leaves_the_queue(impl):
    pool = impl.BlockPool(64, 1, on_exhausted="wait")
    block = pool.acquire()

    def interrupt():
        until(lambda: pool.stats().waits == 1)
        time.sleep(0.05)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        pool.acquire()
    thread.join()
    block.release()
    assert pool.available == 1
    pool.acquire().release()
    pool.check()


def test_two_threads_never_share_a_block(impl):
    pool = impl.BlockPool(64, 8, on_exhausted="grow", max_blocks=64)
    rounds = 3000 if impl.backend == "native" else 300

    def work(mark):
        rng = np.random.default_rng(mark)
        held = []
        for i in range(rounds):
            if len(held) < 10 and rng.random() < 0.55:
                block = pool.acquire()
                block.view[:] = bytes([mark]) * 64
                held.append(block)
            elif held:
                block = held.pop(int(rng.integers(len(held))))
                assert bytes(block.view) == bytes([mark]) * 64
                if i % 3:
                    block.release()
            if i % 7 == 0:
                array = pool.empty(16, "u4")
                array[:] = mark
                assert (array == mark).all()
            if i % 5 == 0:
                number = pool.allocate()
                pool.free(number)
            if i % 50 == 0:
                pool.stats()
                pool.trim()

    run_threads(lambda: work(1), lambda: work(2))
    assert pool.in_use == pool.stats().deferred == 0
    assert pool.stats().acquires == pool.stats().releases
    pool.check()
    if hasattr(sys, "_is_gil_enabled") and "t" in sys.abiflags:
        assert not sys._is_gil_enabled()


def test_one_block_released_by_two_threads(impl):
    for _ in range(200):
        pool = impl.BlockPool(64, 2)
        block, outcomes = pool.acquire(), []

        def release(block=block, outcomes=outcomes):
            try:
                block.release()
                outcomes.append("released")
            except ValueError:
                outcomes.append("refused")

        run_threads(release, release)
        assert sorted(outcomes) == ["refused", "released"]
        assert pool.in_use == 0


def test_a_view_asked_for_while_it_is_released(impl):
    pool = impl.BlockPool(64, 4)
    for _ in range(200):
        block = pool.acquire()

        def view(block=block):
            try:
                block.view[0] = 1
            except ValueError:
                return

        run_threads(view, block.release)
        del block, view
    assert pool.in_use == 0
    pool.check()


# -- forks and exits -------------------------------------------------------------------


def child(body):
    """Run *body* in a forked child; its exit status."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            body()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


fork_warning = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


@needs_fork
@fork_warning
@pytest.mark.parametrize("fork", ["copy", "wipe"])
def test_a_forked_child_has_blocks_of_its_own(impl, fork):
    pool = impl.BlockPool(4096, 4, fork=fork)
    block = pool.acquire()
    block.view[:6] = b"parent"

    def body():
        seen = bytes(block.view[:6])
        assert seen == (b"parent" if fork == "copy" else bytes(6))
        block.view[:6] = b"child!"
        assert pool.in_use == 1
        block.release()
        for _ in range(3):
            pool.acquire().view[0] = 9
        pool.check()

    assert child(body) == 0
    assert bytes(block.view[:6]) == b"parent"
    assert pool.in_use == 1
    pool.check()


@needs_fork
@fork_warning
def test_the_child_has_no_waiters_of_the_parent(impl):
    pool = impl.BlockPool(64, 1, on_exhausted="wait")
    block, got = pool.acquire(), []
    thread = threading.Thread(target=lambda: got.append(pool.acquire().index))
    thread.start()
    until(lambda: pool.stats().waits == 1)

    def body():
        block.release()  # to nobody: that thread stayed in the parent
        pool.acquire(timeout=1).release()
        assert pool.in_use == 0

    assert child(body) == 0
    block.release()
    thread.join(10)
    assert got == [0]


@pytest.mark.parametrize("pure", ["0", "1"])
def test_interpreter_exit_with_live_blocks(pure):
    program = """
import ctxpool, threading, sys
pool = ctxpool.BlockPool(4096, 16, on_exhausted="wait", debug=True)
a, b, c = pool.acquire(), pool.acquire().view, pool.empty((4, 4))
sys.alive = [pool.acquire(), pool.empty()]
class Late:
    def __del__(self):
        block = self.pool.acquire(); block.view[0] = 1; block.release()
late = Late(); late.pool = pool; late.me = late
threading.Thread(target=pool.acquire_many, args=(3,)).start()
other = ctxpool.BlockPool(64, 2, on_exhausted="wait")
threading.Thread(target=lambda: other.acquire_many(2) + [other.acquire()],
                 daemon=True).start()  # waits for ever
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "CTXPOOL_PURE": pure},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def test_a_block_of_the_waiting_thread_is_dropped_by_another(impl):
    """Without a GIL it dies only when this thread, which made it, runs again."""
    pool = impl.BlockPool(4096, 1, on_exhausted="wait")
    held = [pool.acquire()]
    had, in_time = threading.Event(), []

    def drop():
        while not pool.stats().waits:
            time.sleep(0.001)
        held.clear()
        in_time.append(had.wait(20))

    thread = threading.Thread(target=drop)
    thread.start()
    with pool.acquire(timeout=60):
        had.set()
    thread.join()
    assert in_time == [True]


def test_a_block_of_the_waiting_task_is_dropped_by_a_thread(impl):
    pool = impl.BlockPool(4096, 1, on_exhausted="wait")
    had, in_time = threading.Event(), []

    def drop(held):
        while not pool.stats().waits:
            time.sleep(0.001)
        held.clear()
        in_time.append(had.wait(20))

    async def main():
        thread = threading.Thread(target=drop, args=([pool.acquire()],))
        thread.start()
        async with asyncio.timeout(60):
            block = await pool.acquire_async()
        had.set()
        block.release()
        thread.join()

    asyncio.run(main())
    assert in_time == [True]


# ---- a call that interrupts another one of the same thread ----


@pytest.fixture
def interrupting(monkeypatch):
    """A pure pool; ``calls`` of it come in the middle of its next call."""
    module = importlib.import_module("ctxpool._pure.block_pool")
    pool = module.BlockPool(64, 4)
    calls, drain = [], module.BlockPool._drain

    def interrupted(self):
        drain(self)
        while calls:
            calls.pop()()

    monkeypatch.setattr(module.BlockPool, "_drain", interrupted)
    return pool, calls


def test_a_call_that_interrupts_one_is_refused(interrupting):
    pool, calls = interrupting
    refused = []

    def call():
        for use in (pool.acquire, pool.stats, pool.trim, pool.allocate):
            with pytest.raises(RuntimeError, match="that interrupted a call on a pool"):
                use()
            refused.append(use)

    calls.append(call)
    pool.acquire().release()
    assert len(refused) == 4
    assert pool.stats().in_use == 0
    pool.check()


def test_a_release_that_interrupts_a_call_is_done_after_it(interrupting):
    pool, calls = interrupting
    block = pool.acquire()
    calls.append(block.release)
    assert pool.stats().in_use <= 1
    assert pool.stats().in_use == 0
    pool.check()


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers here")
def test_a_signal_handler_never_hangs_on_a_pool(impl):
    pool, refused = impl.BlockPool(64, 64), []

    def handler(number, frame):
        try:
            pool.acquire().release()
        except RuntimeError as error:
            refused.append(error)

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.0003, 0.0003)
    try:
        stop = time.monotonic() + 0.3
        while time.monotonic() < stop:
            held = [pool.acquire() for _ in range(9)]
            held.clear()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert impl.backend == "pure" or not refused
    assert pool.stats().in_use == 0
    pool.check()
