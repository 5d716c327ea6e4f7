"""kill -9 at any instant: every block comes back, none while somebody uses it."""

import contextlib
import os
import random
import signal
import socket
import sys
import threading
import time

import pytest

from ctxpool import BlockHandle
from ctxpool.errors import BlockReleasedError, PoolExhaustedError

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="needs Linux"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]
BLOCKS, SIZE, CHILDREN = 9, 64, 3


def mark(block, value):
    block.view[:] = value.to_bytes(4, "little") * (SIZE // 4)


def marked(block):
    """Who wrote it last: one and the same all over."""
    data = bytes(block.view)
    assert data == data[:4] * (SIZE // 4), "two wrote at once"
    return int.from_bytes(data[:4], "little")


def busy(pool, wire, seed):
    """Acquire, mark, verify, release, send and open, until the end."""
    choose, me, mine = random.Random(seed), os.getpid(), []
    while True:
        what = choose.randrange(8)
        if what < 3 and len(mine) < 4:
            with contextlib.suppress(PoolExhaustedError):
                mine.append(pool.acquire())
                mark(mine[-1], me)
        elif what < 5 and mine:
            block = mine.pop(choose.randrange(len(mine)))
            if marked(block) != me:
                os._exit(3)
            block.release()
        elif what < 6 and mine:
            handle = mine.pop().send()
            with contextlib.suppress(BlockingIOError):
                wire.send(handle.to_bytes(), socket.MSG_DONTWAIT)
        elif what < 7:
            with contextlib.suppress(BlockingIOError, BlockReleasedError):
                data = wire.recv(200, socket.MSG_DONTWAIT)
                mine.append(pool.open(BlockHandle.from_bytes(data)))
                mark(mine[-1], me)
        elif len(mine) > 2:
            mine.clear()


def test_kill_at_random_instants(impl, open_fds):
    pool = impl.SharedBlockPool(SIZE, BLOCKS)
    fds, threads = open_fds(), threading.active_count()
    choose = random.Random(1)
    # Datagrams: who is killed leaves no half of a message.
    wires = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    children = {}

    def start(n):
        pid = os.fork()
        if pid == 0:
            status = 4
            try:
                busy(pool, wires[n % 2], n)
            except BaseException as error:
                print(f"child: {error!r}", file=sys.stderr, flush=True)
            finally:
                os._exit(status)
        children[pid] = n

    def end(pid):
        os.kill(pid, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        del children[pid]
        assert status == -signal.SIGKILL, f"a child was let down: {status}"

    try:
        for n in range(CHILDREN):
            start(n)
        stop, n = time.monotonic() + 0.7, CHILDREN
        while time.monotonic() < stop:
            time.sleep(choose.uniform(0, 0.02))
            end(choose.choice(sorted(children)))
            start(n)
            n += 1
            with contextlib.suppress(PoolExhaustedError), pool.acquire() as block:
                mark(block, os.getpid())  # the parent goes on meanwhile
                time.sleep(0.001)
                assert marked(block) == os.getpid()
        assert n > CHILDREN
    finally:
        for pid in list(children):
            end(pid)
        for wire in wires:
            wire.close()
    pool.recover()
    assert pool.available == BLOCKS, pool.loans()
    assert pool.stats().participants == 1
    assert [p.pid for p in pool.participants()] == [os.getpid()]
    pool.check()
    blocks = [pool.acquire() for _ in range(BLOCKS)]  # each of them once
    assert len({block.index for block in blocks}) == BLOCKS
    assert open_fds() <= fds
    assert threading.active_count() <= threads
    assert not any("ctxpool" in name for name in os.listdir("/dev/shm"))
    del blocks
    pool.close()


def test_the_maker_is_killed(impl):
    """No participant is special; the memory goes with the last one."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        try:
            pool = impl.SharedBlockPool(SIZE, 2)
            pool.send_fd(theirs)
            block = pool.acquire()
            block.view[:4] = b"abcd"
            theirs.send(block.handle.to_bytes())
            time.sleep(60)
        finally:
            os._exit(1)
    try:
        with impl.SharedBlockPool.receive(ours) as pool:
            handle = BlockHandle.from_bytes(ours.recv(200))
            block = pool.open(handle)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            assert bytes(block.view[:4]) == b"abcd"
            assert pool.recover() == 0  # it is ours, too
            block.release()
            assert pool.available == 2
            with pytest.raises(BlockReleasedError):
                pool.open(handle)
    finally:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        ours.close()
        theirs.close()


def test_stopped_is_not_dead(impl):
    """A process that the scheduler has forgotten keeps what it holds."""
    pool = impl.SharedBlockPool(SIZE, 1)
    ready, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            block = pool.acquire()
            os.write(tell, b"x")
            time.sleep(60)
            block.release()
        finally:
            os._exit(1)
    try:
        os.read(ready, 1)
        os.kill(pid, signal.SIGSTOP)
        assert pool.recover() == 0
        with pytest.raises(PoolExhaustedError):
            pool.acquire()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        (loan,) = pool.loans()
        assert loan.holders == (pid,)
        (dead,) = (p for p in pool.participants() if not p.me)
        assert (dead.pid, dead.alive, dead.holds) == (pid, False, 1)
        with pool.acquire():  # which recovers by itself
            assert pool.stats().recovered == 1
    finally:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        os.close(ready)
        os.close(tell)
