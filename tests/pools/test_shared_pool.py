"""SharedBlockPool: blocks, handles, ways to another process, what refuses and why."""

import asyncio
import contextlib
import gc
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import ctxpool
from ctxpool._shared_support import MAX_BLOCKS, PARTICIPANTS
from ctxpool.errors import (
    BlockInUseError,
    BlockReleasedError,
    PoolClosedError,
    PoolExhaustedError,
    PoolTimeoutError,
    SegmentError,
)

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="needs Linux"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]
PROGRAM = Path(__file__).parents[1] / "isolated" / "shared_pool.py"


@pytest.fixture
def pool(impl):
    with impl.SharedBlockPool("4KiB", 4, name="frames") as pool:
        yield pool
        pool.check()


@pytest.fixture
def other(impl, pool):
    """Another participant, in this process."""
    with impl.SharedBlockPool.from_fd(pool.fileno()) as other:
        yield other
        if not other.closed:
            other.check()


@contextlib.contextmanager
def forked(body):
    """*body* in a child, which is killed at the end; its pid."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            body()
            status = 0
        finally:
            os._exit(status)
    try:
        yield pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)


def status(pid, patience=30.0):
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        done, code = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(code)
        time.sleep(0.001)
    raise TimeoutError("the child is still busy")


# -- blocks ----------------------------------------------------------------------------


def test_acquire_and_release(pool):
    block = pool.acquire()
    assert len(block) == pool.block_size == 4096
    assert bytes(block.view) == bytes(4096)
    block.view[:5] = b"hello"
    assert block.array("u1", 5).tobytes() == b"hello"
    assert block.address % 64 == 0
    assert (block.index, block.generation) == (0, 1)
    assert block.pool is pool
    assert pool.in_use == 1
    assert pool.available == 3
    block.release()
    assert block.released
    assert pool.in_use == 0
    for use in ("view", "array", "release", "send", "__enter__", "__len__"):
        with pytest.raises(BlockReleasedError, match="was released"):
            getattr(block, use)()
    for use in ("index", "generation", "address", "pool", "handle"):
        with pytest.raises(BlockReleasedError, match="was released"):
            getattr(block, use)
    assert repr(block) == "<SharedBlock, released>"


def test_the_block_that_came_back_last_is_taken_first(pool):
    a, b = pool.acquire(), pool.acquire()
    index = b.index
    b.release()
    assert pool.acquire().index == index
    a.release()


def test_dropped_and_with(pool):
    pool.acquire()
    assert pool.in_use == 0
    with pool.acquire() as block:
        assert pool.in_use == 1
        block.release()  # by hand, too
    with pytest.raises(KeyError), pool.acquire():
        raise KeyError
    assert pool.in_use == 0


@pytest.mark.parametrize(
    "hold",
    [
        lambda block: block.view,
        lambda block: block.view[3:9],
        lambda block: block.array(),
        lambda block: block.array("f4", (2, 3))[1:],
        lambda block: np.frombuffer(block.view, np.uint8),
        lambda block: memoryview(block.view),
    ],
)
@pytest.mark.parametrize("end", ["release", "send", "drop"])
def test_memory_stays_while_anything_reaches_it(pool, other, hold, end):
    blocks = [pool.acquire() for _ in range(4)]
    held = hold(blocks[2])
    if end == "release":
        with pytest.raises(BlockInUseError, match="still reachable"):
            blocks[2].release(strict=True)
        blocks[2].release()
    elif end == "send":
        other.open(blocks[2].send()).release()
    blocks[2] = None
    assert pool.in_use == 4
    assert pool.stats().deferred == (1 if end != "drop" else pool.stats().deferred)
    with pytest.raises(PoolExhaustedError):
        other.acquire()
    del held
    assert pool.in_use == 3
    assert pool.stats().deferred == 0
    other.acquire().release()


def test_strict_release_of_a_quiet_block(pool):
    block = pool.acquire()
    block.view[0] = 1
    block.array()[0] = 2
    block.release(strict=True)
    assert pool.in_use == 0


def test_a_released_view_is_made_anew(pool):
    block = pool.acquire()
    block.view.release()
    assert block.view[0] == 0
    block.view.release()
    block.release(strict=True)


def test_the_pool_may_go_before_its_blocks(impl):
    pool = impl.SharedBlockPool(64, 2)
    block, array = pool.acquire(), pool.acquire().array()
    pool.close()
    pool.close()
    assert pool.closed
    block.view[0] = 7
    array[0] = 8
    for use in (pool.acquire, pool.fileno, pool.recover, pool.stats, pool.participants):
        with pytest.raises(PoolClosedError, match="closed"):
            use()
    with pytest.raises(PoolClosedError):
        pool.open(block.handle)
    with pytest.raises(PoolClosedError), pool:
        pass
    del pool
    assert (block.view[0], array[0]) == (7, 8)
    block.release()


def test_all_in_one_cycle(impl, open_fds):
    """Finalizers of a cycle run in any order."""
    gc.collect()
    fds = open_fds()
    for _ in range(5):
        pool = impl.SharedBlockPool(64, 4)
        box = [pool, pool.acquire(), pool.acquire().array(), pool.acquire().view]
        box.append(box)
        box[1].view[0] = 1
        del pool, box
    gc.collect()
    assert open_fds() <= fds


def test_arrays_are_checked(pool):
    with pool.acquire() as block:
        assert block.array("f8").shape == (512,)
        assert block.array(np.dtype([("a", "u1"), ("b", "f4")]), 3).shape == (3,)
        for dtype, shape, error in [
            ("O", None, ValueError),
            ("u1", 4097, ValueError),
            ("u1", -1, ValueError),
            ("u1", "x", TypeError),
        ]:
            with pytest.raises(error):
                block.array(dtype, shape)
    assert pool.in_use == 0


def test_no_copies_by_pickle(pool):
    block = pool.acquire()
    with pytest.raises(TypeError, match="its handle"):
        pickle.dumps(block)
    with pytest.raises(TypeError, match="send_fd"):
        pickle.dumps(pool)


def test_types_are_final(impl):
    with pytest.raises(TypeError, match="made by"):
        impl.SharedBlock()
    for cls in (impl.SharedBlock, impl.SharedBlockPool):
        with pytest.raises(TypeError, match="acceptable base type"):
            type("Sub", (cls,), {})


# -- handles ---------------------------------------------------------------------------


def test_shown(pool, other):
    block = pool.acquire()
    block.view[:2] = b"ab"
    handle = pickle.loads(pickle.dumps(block.handle))
    assert handle == block.handle
    assert type(handle) is ctxpool.BlockHandle
    assert ctxpool.BlockHandle.from_bytes(handle.to_bytes()) == handle
    with pytest.raises(ValueError, match="17 bytes, not 2"):
        ctxpool.BlockHandle.from_bytes(b"xx")
    first, second = other.open(handle), other.open(handle)
    assert bytes(first.view[:2]) == b"ab"
    second.view[:2] = b"cd"
    assert bytes(block.view[:2]) == b"cd"
    block.release()
    first.release()
    assert pool.available == 3
    assert other.in_use == 1
    del second
    assert pool.available == 4
    with pytest.raises(BlockReleasedError, match="released it, detached or died"):
        other.open(handle)
    pool.acquire().release()
    with pytest.raises(BlockReleasedError, match="gone on to generation 2"):
        other.open(handle)


def test_sent(pool, other):
    block = pool.acquire()
    array = block.array("i4", 3)
    array[:] = 1, 2, 3
    del array
    shown, handle = block.handle, block.send()
    assert block.released
    assert pool.in_use == 0
    assert pool.available == 3
    assert pool.stats().in_transit == 1
    received = other.open(handle)
    assert received.array("i4", 3).tolist() == [1, 2, 3]
    with pytest.raises(BlockReleasedError, match="opened once"):
        pool.open(handle)
    again = pool.open(shown)  # as long as anybody has it
    received.release()
    again.release()
    assert pool.available == 4


def test_sent_twice(pool, other):
    mine = pool.acquire()
    theirs = other.open(mine.handle)
    handle = mine.send()
    with pytest.raises(BlockInUseError, match="in transit"):
        theirs.send()
    assert not theirs.released
    other.open(handle).send()
    assert theirs.index == handle.block


def test_a_sender_that_leaves_takes_it_back(impl, pool, other):
    handle = other.acquire().send()
    other.close()
    with pytest.raises(BlockReleasedError):
        pool.open(handle)
    assert pool.available == 4


def test_sent_to_one_who_stays(pool, other):
    handle = other.acquire().send(to=pool.participant)
    other.close()
    pool.open(handle).release()
    assert pool.available == 4


def test_sent_to_nobody(impl, pool, other):
    gone = other.participant
    other.close()
    block = pool.acquire()
    for to in (gone, 0, 31, 2**37 - 1):
        with pytest.raises(ValueError, match=f"no living participant {to}$"):
            block.send(to=to)
    with pytest.raises(ValueError, match="to must be from 0"):
        block.send(to=-1)
    with pytest.raises(TypeError, match="to must be"):
        block.send(to="x")
    assert not block.released
    # The number is not the next one's in that slot.
    with impl.SharedBlockPool.from_fd(pool.fileno()) as another:
        assert another.participant % PARTICIPANTS == gone % PARTICIPANTS
        assert another.participant != gone


def test_handles_are_checked(impl, pool):
    handle = pool.acquire().handle
    for wrong in (None, (1, 2, 3, False), "x", 0):
        with pytest.raises(TypeError, match="BlockHandle"):
            pool.open(wrong)
    with pytest.raises(TypeError, match="whole numbers"):
        pool.open(handle._replace(block="x"))
    for field, value in [
        ("pool", handle.pool ^ 1),
        ("block", 4),
        ("block", -1),
        ("block", 2**70),
        ("generation", 2**26),
        ("generation", -1),
    ]:
        with pytest.raises(ValueError, match="BlockHandle"):
            pool.open(handle._replace(**{field: value}))
    with (
        impl.SharedBlockPool(64, 4) as stranger,
        pytest.raises(ValueError, match="oth"),
    ):
        stranger.open(handle)


def test_generations_go_round(impl):
    """Also where 2**26 hand-outs are behind it."""
    with impl.SharedBlockPool(64, 1) as pool:
        last = (2**26 - 1) << 38
        os.pwrite(pool.fileno(), last.to_bytes(8, sys.byteorder), 4096)
        block = pool.acquire()
        assert block.generation == 0
        assert pool.open(block.handle).generation == 0
        block.release()
        assert pool.acquire().generation == 1


# -- making, attaching -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"block_size": 0}, ValueError, "block_size"),
        ({"block_size": "x"}, ValueError, "'x'"),
        ({"block_size": 1.5}, TypeError, "1.5"),
        ({"blocks": 0}, ValueError, "blocks must be from 1"),
        ({"blocks": MAX_BLOCKS + 1}, ValueError, str(MAX_BLOCKS)),
        ({"alignment": 48}, ValueError, "48"),
        ({"alignment": 8192}, ValueError, "8192"),
        ({"on_exhausted": "grow"}, ValueError, "'grow'"),
        ({"timeout": -1}, ValueError, "-1"),
        ({"timeout": "x"}, TypeError, "'x'"),
        ({"name": 5}, TypeError, "5"),
        ({"name": ""}, ValueError, "31 bytes"),
        ({"name": "ä" * 16}, ValueError, "31 bytes"),
        ({"name": "a\0b"}, ValueError, "31 bytes"),
        ({"block_size": 2**61, "blocks": 8}, OSError, "8 blocks of"),
    ],
)
def test_arguments(impl, arguments, error, says):
    with pytest.raises(error, match=says):
        impl.SharedBlockPool(**{"block_size": 64, "blocks": 4, **arguments})


@pytest.mark.parametrize("reserve", [False, True])
def test_geometry(impl, reserve):
    pool = impl.SharedBlockPool(
        100, 70, alignment=256, reserve=reserve, name="ä" * 15, timeout=1
    )
    other = impl.SharedBlockPool.from_fd(pool.fileno())
    for each in (pool, other):
        assert each.name == "ä" * 15
        assert (each.block_size, each.blocks, each.alignment) == (100, 70, 256)
        assert "block_size=100, blocks=70" in repr(each)
    blocks = [pool.acquire() for _ in range(35)] + [other.acquire() for _ in range(35)]
    assert sorted(b.index for b in blocks) == list(range(70))
    assert {b.address % 256 for b in blocks} == {0}
    for block in blocks:
        block.view[:] = bytes([block.index]) * 100
    assert all(bytes(b.view) == bytes([b.index]) * 100 for b in blocks)
    for each in (pool, other):
        with pytest.raises(PoolExhaustedError, match="none of 70"):
            each.acquire()
    assert pool.stats().exhausted == 2
    del blocks, block
    assert pool.available == 70


def test_init_twice(impl, pool):
    with pytest.raises(RuntimeError, match="made already"):
        pool.__init__(64, 4)
    assert pool.block_size == 4096


def test_no_more_than_32(impl, pool, open_fds):
    with contextlib.ExitStack() as stack:
        for _ in range(PARTICIPANTS - 1):
            more = impl.SharedBlockPool.from_fd(pool.fileno())
            stack.enter_context(more)
        before = open_fds()
        with pytest.raises(PoolExhaustedError, match="32 living"):
            impl.SharedBlockPool.from_fd(pool.fileno())
        assert open_fds() <= before
        more.close()
        impl.SharedBlockPool.from_fd(pool.fileno()).close()


def test_foreign_files(impl):
    attach = impl.SharedBlockPool.from_fd
    for wrong in ("x", None, 1.5):
        with pytest.raises(TypeError, match="fd must be"):
            attach(wrong)
    with pytest.raises(ValueError, match="fd must be"):
        attach(-1)
    with pytest.raises(OSError, match="Bad file"):
        attach(1_000_000)
    with tempfile.TemporaryFile() as file:
        file.write(bytes(8192))
        file.flush()
        with pytest.raises(SegmentError, match="holds no shared pool"):
            attach(file.fileno())
    read, write = os.pipe()
    memory = os.memfd_create("x", os.MFD_ALLOW_SEALING)
    for fd in (read, write, memory):
        with pytest.raises(SegmentError, match=f"descriptor {fd} holds no shared pool"):
            attach(fd)
        os.close(fd)


def test_the_file_is_sealed(pool):
    for size in (0, 4096, 1 << 20):
        with pytest.raises(PermissionError):
            os.ftruncate(pool.fileno(), size)


@pytest.mark.parametrize(
    ("offset", "says"),
    [(0, "no shared pool"), (7, "no shared pool"), (8, "version"), (12, "back end")]
    + [(offset, "damaged") for offset in range(24, 96, 8)]
    + [(127, "damaged")],
)
def test_damaged_headers(impl, pool, offset, says, open_fds):
    os.pwrite(pool.fileno(), b"\xee", offset)
    before = open_fds()
    with pytest.raises(SegmentError, match=says):
        impl.SharedBlockPool.from_fd(pool.fileno())
    assert open_fds() <= before
    pool.acquire().release()  # who is in, has its own copy


def test_scribbled_words_crash_nobody(impl):
    """Wrong answers, perhaps, but no crash, and no block beyond the end."""
    random = np.random.default_rng(7)
    for _ in range(20):
        with impl.SharedBlockPool(64, 70) as pool:
            block = pool.acquire()
            os.pwrite(pool.fileno(), random.bytes(8192 - 128), 128)
            for _ in range(10):
                with contextlib.suppress(PoolExhaustedError, BlockReleasedError):
                    taken = pool.acquire()
                    assert taken.index < 70
                    taken.view[:] = bytes(64)
            with contextlib.suppress(BlockInUseError, ValueError):
                block.send()
            pool.loans(), pool.participants(), pool.stats(), pool.recover()
            del taken


def test_the_twins_do_not_mix(twins):
    native, pure = twins
    for one, another in ((native, pure), (pure, native)):
        with (
            one.SharedBlockPool(64, 1) as pool,
            pytest.raises(SegmentError, match="other back end"),
        ):
            another.SharedBlockPool.from_fd(pool.fileno())


# -- waiting ---------------------------------------------------------------------------


def test_wait_times_out(impl):
    pool = impl.SharedBlockPool(64, 1, on_exhausted="wait", timeout=0.02, name="w")
    block = pool.acquire()
    with pytest.raises(PoolTimeoutError, match=r"pool 'w' became free within 0\.02"):
        pool.acquire()
    with pytest.raises(PoolTimeoutError, match=r"0.01"):
        pool.acquire(timeout=0.01)
    assert pool.try_acquire() is None
    assert pool.stats().waits == pool.stats().exhausted == 2
    block.release()
    pool.acquire(timeout=0).release()


def test_a_thread_waits_for_another_process(impl):
    pool = impl.SharedBlockPool(64, 1, on_exhausted="wait", timeout=20)
    block = pool.acquire()

    def body():
        pool.acquire().release()

    with forked(body) as pid:
        while not pool.stats().waits:
            time.sleep(0.001)
        block.release()
        assert status(pid) == 0
    pool.acquire().release()


def test_a_waiter_outlives_the_holder(impl):
    """Who waits finds out by itself that the holder was killed."""
    pool = impl.SharedBlockPool(64, 1, on_exhausted="wait", timeout=20)
    ready, tell = os.pipe()

    def body():
        block = pool.acquire()
        os.write(tell, b"x")
        time.sleep(60)
        block.release()

    with forked(body) as pid:
        os.read(ready, 1)
        threading.Timer(0.05, os.kill, (pid, signal.SIGKILL)).start()
        pool.acquire().release()
    os.close(ready)
    os.close(tell)


def test_closed_while_a_thread_waits(impl):
    pool = impl.SharedBlockPool(64, 1, on_exhausted="wait")
    block, found = pool.acquire(), []

    def run():
        try:
            pool.acquire()
        except PoolClosedError as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    while not pool.stats().waits:
        time.sleep(0.001)
    pool.close()
    block.release()
    thread.join(20)
    assert len(found) == 1


def test_tasks_wait_without_a_thread(impl):
    pool = impl.SharedBlockPool(64, 1, on_exhausted="wait", timeout=0.02)

    async def main():
        block = await pool.acquire_async()
        with pytest.raises(PoolTimeoutError):
            await pool.acquire_async()
        waiting = asyncio.create_task(pool.acquire_async(timeout=20))
        cancelled = asyncio.create_task(pool.acquire_async(timeout=20))
        await asyncio.sleep(0.001)
        assert threading.active_count() == threads
        cancelled.cancel()
        block.release()
        (await waiting).release()
        with pytest.raises(asyncio.CancelledError):
            await cancelled

    threads = threading.active_count()
    asyncio.run(main())
    assert pool.in_use == 0
    raising = impl.SharedBlockPool(64, 1)
    block = raising.acquire()
    with pytest.raises(PoolExhaustedError):
        asyncio.run(raising.acquire_async())
    block.release()


def test_threads(impl):
    """No two of them have one block at a time."""
    pool = impl.SharedBlockPool(64, 3, on_exhausted="wait", timeout=30)
    rounds = 2_000 if impl.backend == "native" else 150
    barrier, errors = threading.Barrier(4), []

    def run(mark):
        try:
            barrier.wait()
            for _ in range(rounds):
                with pool.acquire() as block:
                    block.view[0] = mark
                    assert block.view[0] == mark
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors
    assert pool.in_use == 0
    pool.check()


# -- to another process ----------------------------------------------------------------


def test_a_forked_child_takes_part(pool):
    ours = pool.acquire()
    ours.view[:6] = b"parent"
    kept = [ours.array()]
    handle = ours.handle
    ready, tell = os.pipe()

    def body():
        assert ours.released
        with pytest.raises(BlockReleasedError, match="parent's"):
            _ = ours.view
        assert pool.in_use == 0
        mine = pool.open(handle)
        assert bytes(mine.view[:6]) == b"parent"
        mine.view[:6] = b"child!"
        assert kept[0][0] == ord("c")  # still to be seen
        pool.check()
        block = pool.acquire()
        assert {p.pid for p in pool.participants()} == {os.getpid(), os.getppid()}
        block.view[:2] = b"ok"
        sent = block.send(to=parent)
        os.write(tell, pickle.dumps(sent))

    parent = pool.participant
    with forked(body) as pid:
        assert status(pid) == 0
        received = pool.open(pickle.loads(os.read(ready, 4096)))
    assert bytes(received.view[:2]) == b"ok"
    assert bytes(ours.view[:6]) == b"child!"
    received.release()
    kept.clear()
    ours.release()
    pool.recover()
    assert pool.available == 4
    os.close(ready)
    os.close(tell)


def test_a_child_that_drops_what_it_inherited_frees_nothing(pool):
    block, array = pool.acquire(), pool.acquire().array()
    array[0] = 7
    held = [block, array]

    def body():
        nonlocal block, array
        block = array = None
        held.clear()
        gc.collect()
        pool.close()
        with pytest.raises(PoolClosedError):
            pool.acquire()

    with forked(body) as pid:
        assert status(pid) == 0
    assert pool.in_use == 2
    assert (pool.available, array[0]) == (2, 7)
    block.view[0] = 1
    pool.check()


def test_a_living_child_does_not_keep_the_parent_alive(impl):
    """The child inherits the file description of the parent's lock, and closes it."""
    pool = impl.SharedBlockPool(64, 2)
    ready, tell = os.pipe()

    def parent():
        pool.acquire().send()
        if os.fork() == 0:
            os.write(tell, b"%d\n" % os.getpid())
            time.sleep(60)
        os._exit(0)

    with forked(parent) as pid:
        assert status(pid) == 0
        grandchild = int(os.read(ready, 100))
        try:
            assert pool.recover() == 1
        finally:
            os.kill(grandchild, signal.SIGKILL)
    os.close(ready)
    os.close(tell)


def test_over_a_unix_socket(impl, pool):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        pool.send_fd(ours)
        with impl.SharedBlockPool.receive(theirs, on_exhausted="wait") as received:
            assert received.name == "frames"
            received.open(pool.acquire().send()).release()
        ours.send(b"ctxpool")
        with pytest.raises(SegmentError, match="no file descriptor came"):
            impl.SharedBlockPool.receive(theirs)
        with open(os.devnull) as null:
            socket.send_fds(ours, [b"x"], [null.fileno()])
        with pytest.raises(SegmentError, match="holds no shared pool"):
            impl.SharedBlockPool.receive(theirs)
    with socket.socket() as tcp:
        for call in (pool.send_fd, impl.SharedBlockPool.receive):
            with pytest.raises(ValueError, match="Unix socket"):
                call(tcp)
            with pytest.raises(TypeError, match="Unix socket"):
                call("x")


@pytest.mark.parametrize("way", ["spawn", "executor", "exec", "exit"])
def test_program(impl, way):
    """Through multiprocessing and exec: see the program."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(PROGRAM), impl.backend, way],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.split() == ["good"], done.stdout
    assert not done.stderr


# -- what is known, what is left -------------------------------------------------------


def test_reports(pool, other):
    mine, shown = pool.acquire(), pool.acquire()
    theirs = other.open(shown.handle)
    other.acquire().send()
    stats = pool.stats()
    assert stats.as_dict() == {
        "name": "frames",
        "block_size": 4096,
        "blocks": 4,
        "in_use": 3,
        "in_transit": 1,
        "mine": 2,
        "deferred": 0,
        "participants": 2,
        "acquires": 3,
        "opens": 1,
        "releases": 1,
        "sends": 1,
        "waits": 0,
        "exhausted": 0,
        "recovered": 0,
        "bytes": 4096 * 6,
    }
    me, they = pool.participants()
    assert (me.me, me.alive, me.pid, me.holds) == (True, True, os.getpid(), 2)
    assert (they.me, they.holds, they.in_transit, they.opens) == (False, 1, 1, 1)
    assert they.number == other.participant
    assert me.age_s < 60
    loans = {loan.index: loan for loan in pool.loans()}
    assert len(loans) == 3
    pid = os.getpid()
    assert loans[mine.index].holders == (pid,)
    assert loans[shown.index].holders == (pid, pid)
    (travelling,) = (loan for loan in loans.values() if not loan.holders)
    assert travelling.in_transit_of == pid
    assert pool.loans(older_than=60) == []
    with pytest.raises(ValueError, match="older_than"):
        pool.loans(-1)
    theirs.release()


def test_nothing_is_left(impl, open_fds):
    gc.collect()
    fds, threads = open_fds(), threading.active_count()
    before = set(os.listdir("/dev/shm"))
    for _ in range(3):
        pool = impl.SharedBlockPool(4096, 3)
        other = impl.SharedBlockPool.from_fd(pool.fileno())
        array = other.open(pool.acquire().send()).array()
        assert not any("ctxpool" in name for name in os.listdir("/dev/shm"))
        pool.close()
        other.close()
        del array, pool, other
    gc.collect()
    assert open_fds() <= fds
    assert threading.active_count() <= threads
    assert not {n for n in set(os.listdir("/dev/shm")) - before if "ctxpool" in n}
    with open("/proc/self/maps") as maps:
        assert "memfd:ctxpool" not in maps.read()
