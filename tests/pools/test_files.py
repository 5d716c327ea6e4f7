"""Files through pool blocks: every byte, in order, in bounded memory."""

import asyncio
import gc
import gzip
import hashlib
import io
import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxpool.errors import MemoryLimitError, PoolClosedError, PoolExhaustedError
from ctxpool.pools import iter_array, map_blocks, read_blocks


class Slow(io.RawIOBase):
    """A file that gives as few bytes at a time as it likes, and may fail."""

    def __init__(self, data, steps=(7,), fails_at=None):
        self.data, self.steps, self.at, self.turn = data, steps, 0, 0
        self.fails_at = fails_at

    def readable(self):
        return True

    def readinto(self, buffer):
        if self.fails_at is not None and self.at >= self.fails_at:
            raise OSError("the disk is gone")
        n = min(len(buffer), self.steps[self.turn % len(self.steps)])
        piece = self.data[self.at : self.at + n]
        buffer[: len(piece)] = piece
        self.at += len(piece)
        self.turn += 1
        return len(piece)


async def gathered(blocks):
    return [bytes(block) async for block in blocks]


@settings(max_examples=15)
@given(
    data=st.binary(max_size=600),
    steps=st.lists(st.integers(1, 100), min_size=1, max_size=4),
    size=st.integers(1, 120),
    in_flight=st.integers(2, 4),
    ahead=st.integers(0, 3),
    overlap=st.integers(0, 20),
    asynchronous=st.booleans(),
)
def test_out_is_in(impl, data, steps, size, in_flight, ahead, overlap, asynchronous):
    overlap = min(overlap, size - 1)
    pool = impl.BlockPool(size, in_flight, on_exhausted="wait")
    blocks = read_blocks(
        Slow(data, steps),
        pool,
        in_flight=in_flight,
        read_ahead=ahead,
        overlap=overlap,
        timeout=5,
    )
    if asynchronous:
        pieces = asyncio.run(gathered(blocks))
    else:
        pieces = [bytes(block) for block in blocks]
    whole = b"".join(pieces[:1] + [piece[overlap:] for piece in pieces[1:] if overlap])
    if overlap:
        before = b""
        for i, piece in enumerate(pieces):
            begin = before[len(before) - min(overlap, len(before)) :]
            assert i == 0 or piece.startswith(begin)
            before = before + piece[len(begin) if i else 0 :]
        assert before == data
    else:
        assert b"".join(pieces) == data
        assert all(len(piece) == size for piece in pieces[:-1])
    assert len(whole) <= len(data) + size
    gc.collect()
    assert pool.in_use == 0
    pool.check()


@settings(max_examples=15)
@given(
    words=st.lists(st.binary(max_size=12), max_size=40),
    delimiter=st.sampled_from([b"\n", b"\r\n", b"abc"]),
    steps=st.lists(st.integers(1, 50), min_size=1, max_size=3),
    ends=st.booleans(),
    size=st.sampled_from([60, 36, 21]),
)
def test_records_are_whole(impl, words, delimiter, steps, ends, size):
    words = [word.replace(delimiter[:1], b"") for word in words]
    data = delimiter.join(words) + (delimiter if ends else b"")
    pool = impl.BlockPool(size, 2)
    blocks = read_blocks(
        Slow(data, steps), pool, in_flight=2, delimiter=delimiter, max_record=20
    )
    pieces = [bytes(block) for block in blocks]
    assert b"".join(pieces) == data
    assert all(piece.endswith(delimiter) for piece in pieces[:-1])
    assert all(pieces)
    assert pool.in_use == 0


def test_a_record_that_is_too_long(impl):
    pool = impl.BlockPool(64, 2)
    data = b"short\n" + b"x" * 100 + b"\n"
    with (
        read_blocks(io.BytesIO(data), pool, delimiter=b"\n", max_record=16) as blocks,
        pytest.raises(ValueError, match="max_record=16: it begins at byte 6"),
    ):
        [bytes(block) for block in blocks]
    assert list(blocks) == []
    assert pool.in_use == 0


def test_a_path(impl, tmp_path):
    path = tmp_path / "data"
    path.write_bytes(bytes(range(256)) * 10)
    pool = impl.BlockPool(1000, 4)
    for file in (path, str(path), os.fsencode(path)):
        blocks = read_blocks(file, pool)
        assert str(path) in repr(blocks)
        assert [len(block) for block in blocks] == [1000, 1000, 560]
        assert blocks._source.file.closed
    with read_blocks(path, pool, read_ahead=2) as blocks:
        next(blocks)
    assert blocks._source.file.closed
    assert list(blocks) == []
    for ahead in (0, 2):
        blocks = read_blocks(path, pool, read_ahead=ahead)
        next(blocks)
        del blocks  # no ResourceWarning
    with pytest.raises(FileNotFoundError):
        read_blocks(tmp_path / "absent", pool)
    until = time.monotonic() + 5
    while pool.in_use and time.monotonic() < until:
        time.sleep(0.001)  # the reading thread lets go of its own
    assert pool.in_use == 0


def test_a_file_object_stays_open(impl):
    pool = impl.BlockPool(4, 4)
    file = io.BytesIO(b"headbody")
    file.read(4)
    assert [bytes(block) for block in read_blocks(file, pool)] == [b"body"]
    assert not file.closed
    zipped = io.BytesIO(gzip.compress(b"0123456789"))
    with gzip.open(zipped) as file:
        assert b"".join(map(bytes, read_blocks(file, pool))) == b"0123456789"


def test_bad_arguments(impl):
    pool, file = impl.BlockPool(64, 2), io.BytesIO()
    for wrong, message in [
        ({"in_flight": 0}, "in_flight must be from 1"),
        ({"read_ahead": -1}, "read_ahead must be from 0"),
        ({"overlap": 64}, "overlap must be from 0 to 63"),
        ({"max_record": 3}, "needs a delimiter"),
        ({"delimiter": b""}, "one at least"),
        ({"delimiter": "\n"}, "must be bytes"),
        ({"delimiter": b"\n", "overlap": 3}, "exclude each other"),
        ({"delimiter": b"\n", "max_record": 64}, "max_record must be from 1 to 63"),
        ({"timeout": -1}, "timeout must not be negative"),
    ]:
        with pytest.raises(ValueError, match=message):
            read_blocks(file, pool, **wrong)
    with pytest.raises(TypeError, match="a path or a binary file"):
        read_blocks(7, pool)


# -- in flight -------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [0, 2])
def test_who_keeps_all_is_told(impl, ahead):
    """And can go on when some are free again."""
    pool = impl.BlockPool(10, 10)
    blocks = read_blocks(
        io.BytesIO(bytes(range(100))), pool, in_flight=3, read_ahead=ahead
    )
    kept = []
    for _ in range(3):
        kept.append(next(blocks))
    with pytest.raises(PoolExhaustedError, match="all 3 blocks"):
        next(blocks)
    assert len(kept) == pool.in_use == 3
    seen = b"".join(map(bytes, kept))
    kept.clear()
    assert seen + b"".join(map(bytes, blocks)) == bytes(range(100))
    gc.collect()
    assert pool.in_use == 0


def test_another_thread_gives_back(impl):
    pool = impl.BlockPool(10, 10)
    blocks = read_blocks(io.BytesIO(bytes(50)), pool, in_flight=1, timeout=5)
    kept = [next(blocks)]
    timer = threading.Timer(0.02, kept.clear)
    timer.start()
    assert len(next(blocks)) == 10
    timer.join()


def test_a_wait_that_is_too_long(impl):
    blocks = read_blocks(
        io.BytesIO(bytes(50)), impl.BlockPool(10, 2), in_flight=1, timeout=0.01
    )
    kept = next(blocks)
    with pytest.raises(PoolExhaustedError, match=r"after 0\.01 s"):
        next(blocks)

    async def main():
        with pytest.raises(PoolExhaustedError, match=r"after 0\.01 s"):
            await anext(blocks)

    asyncio.run(main())
    del kept
    assert len(next(blocks)) == 10


def test_a_pool_that_has_none(impl):
    pool = impl.BlockPool(10, 1)
    blocks, held = read_blocks(io.BytesIO(bytes(20)), pool), pool.acquire()
    for _ in range(6):  # more often than in_flight: no token is lost
        with pytest.raises(PoolExhaustedError):
            next(blocks)
    held.release()
    assert sum(map(len, blocks)) == 20
    pool.close()
    with pytest.raises(PoolClosedError):
        next(read_blocks(io.BytesIO(bytes(20)), pool))


@pytest.mark.parametrize("ahead", [0, 2])
def test_a_file_that_fails(impl, ahead):
    pool = impl.BlockPool(10, 4)
    blocks = read_blocks(Slow(bytes(100), fails_at=35), pool, read_ahead=ahead)
    assert [len(next(blocks)) for _ in range(3)] == [10, 10, 10]
    with pytest.raises(OSError, match="disk is gone"):
        next(blocks)
    assert list(blocks) == []
    gc.collect()
    assert pool.in_use == 0


def test_a_non_blocking_file(impl):
    class Later(Slow):
        def readinto(self, buffer):
            return None

    with pytest.raises(BlockingIOError, match="non-blocking"):
        next(read_blocks(Later(b""), impl.BlockPool(10, 2)))


# -- asyncio ---------------------------------------------------------------------------


def test_a_cancelled_read_loses_nothing(impl):
    class Sleepy(Slow):
        def readinto(self, buffer):
            time.sleep(0.002)
            return super().readinto(buffer)

    async def main():
        data = bytes(range(200))
        pool = impl.BlockPool(20, 4, on_exhausted="wait")
        blocks = read_blocks(Sleepy(data, (20,)), pool, in_flight=2)
        seen, cancelled = bytearray(), 0
        while True:
            task = asyncio.ensure_future(anext(blocks))
            for _ in range(cancelled % 4):
                await asyncio.sleep(0)
            if len(seen) % 40 == 0 and cancelled < 12:
                task.cancel()
            try:
                seen += await task
            except asyncio.CancelledError:
                cancelled += 1
            except StopAsyncIteration:
                break
        assert seen == data
        assert cancelled == 12
        del task
        return pool

    pool = asyncio.run(main())
    gc.collect()
    assert pool.in_use == 0


def test_tasks_hold_blocks(impl):
    """A consumer in other tasks slows the reading down, and gets all."""

    async def main():
        data = bytes(range(250)) * 4
        pool = impl.BlockPool(100, 20)
        total, most, running = 0, 0, set()

        async def consume(block):
            nonlocal total, most
            most = max(most, pool.in_use)
            await asyncio.sleep(0.001)
            total += sum(block)

        async for block in read_blocks(io.BytesIO(data), pool, timeout=None):
            running.add(asyncio.create_task(consume(block)))
            del block
            running = {task for task in running if not task.done()}
        await asyncio.gather(*running)
        assert total == sum(data)
        assert most <= 4

    asyncio.run(main())


# -- arrays ----------------------------------------------------------------------------


def test_arrays(impl, tmp_path):
    path = tmp_path / "numbers"
    numbers = np.arange(1000, dtype=np.float64)
    numbers.tofile(path)
    pool = impl.BlockPool(900, 4)
    arrays = [array.copy() for array in iter_array(path, np.float64, pool)]
    assert [len(array) for array in arrays[:2]] == [112, 112]
    assert (np.concatenate(arrays) == numbers).all()
    frames = [f.copy() for f in iter_array(path, "f8", pool, shape=(5, 2))]
    assert frames[0].shape == (11, 5, 2)
    assert (np.concatenate(frames).ravel() == numbers).all()
    for array in iter_array(path, "f8", pool, shape=10):
        assert array.flags.writeable
        assert array.flags.aligned
        array += 1
    del array
    assert pool.in_use == 0


def test_arrays_that_do_not_fit(impl, tmp_path):
    path = tmp_path / "numbers"
    path.write_bytes(bytes(20))
    pool = impl.BlockPool(16, 3)
    arrays = iter_array(path, "f8", pool)
    assert len(next(arrays)) == 2
    with pytest.raises(ValueError, match="ends with 4 bytes that are no whole item"):
        next(arrays)
    with pytest.raises(ValueError, match="larger than a block of 16"):
        iter_array(path, "f8", pool, shape=3)
    with pytest.raises(ValueError, match="no items of dtype object"):
        iter_array(path, object, pool)
    with pytest.raises(ValueError, match="has no bytes"):
        iter_array(path, "f8", pool, shape=0)
    with pytest.raises(TypeError, match="no overlap"):
        iter_array(path, "f8", pool, overlap=1)


# -- threads ---------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 3, None])
def test_map_keeps_the_order(impl, workers):
    data = os.urandom(5000)
    pool = impl.BlockPool(100, 10, on_exhausted="wait")
    expected = [hashlib.sha256(data[i : i + 100]).digest() for i in range(0, 5000, 100)]
    blocks = read_blocks(io.BytesIO(data), pool, in_flight=4)
    found = list(
        map_blocks(lambda b: hashlib.sha256(b).digest(), blocks, workers=workers)
    )
    assert found == expected
    assert pool.in_use == 0


def test_map_fails_and_ends(impl):
    pool = impl.BlockPool(10, 10, on_exhausted="wait")

    def work(block):
        if block[0] == 30:
            raise LookupError("thirty")
        return block[0]

    blocks = read_blocks(io.BytesIO(bytes(range(100))), pool)
    results = map_blocks(work, blocks, workers=2)
    assert [next(results) for _ in range(3)] == [0, 10, 20]
    with pytest.raises(LookupError):
        next(results)
    blocks = read_blocks(io.BytesIO(bytes(range(100))), pool)
    results = map_blocks(bytes, blocks, workers=2, in_flight=2)
    next(results)
    results.close()
    assert list(map_blocks(str, range(5))) == list("01234")
    with pytest.raises(ValueError, match="workers must be from 1"):
        map_blocks(str, [], workers=0)
    blocks = read_blocks(io.BytesIO(bytes(100)), pool)
    results = map_blocks(lambda block: block, blocks)
    kept = [next(results)]
    with pytest.raises(PoolExhaustedError):
        kept += results
    kept.clear()
    del results, blocks
    gc.collect()
    assert pool.in_use == 0


# -- memory ----------------------------------------------------------------------------

# Not ru_maxrss: a child's begins with its parent's.
CONSTANT = """
import re, sys
from ctxpool.pools.files import read_blocks
total = 0
for block in read_blocks(sys.argv[1], block_size="256KiB", in_flight=3):
    total += block[0] + len(block)
print(total, re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1])
"""


def child(script, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.skipif(
    sys.platform != "linux" or "asan" in os.environ.get("LD_PRELOAD", ""),
    reason="/proc is Linux's, and AddressSanitizer keeps what was freed",
)
def test_memory_is_constant(tmp_path):
    """The peak does not grow while the file does, fourfold."""
    peaks = []
    for name, size in (("small", 8 << 20), ("large", 32 << 20)):
        path = tmp_path / name
        with open(path, "wb") as file:
            file.truncate(size)
        total, peak = child(CONSTANT, path)
        assert int(total) == size
        peaks.append(int(peak) << 10)
        path.unlink()
    assert abs(peaks[1] - peaks[0]) < 6 << 20, peaks


@pytest.mark.skipif(
    sys.platform != "linux" or "asan" in os.environ.get("LD_PRELOAD", ""),
    reason="RLIMIT_DATA is Linux's, and AddressSanitizer needs all there is",
)
def test_a_file_larger_than_a_limit(tmp_path):
    path = tmp_path / "large"
    with open(path, "wb") as file:
        file.truncate(4 << 30)
    found = child(
        """
        import sys
        from itertools import islice
        from ctxpool.pools.files import read_blocks
        from ctxpool.pools.limits import memory_limit, require_memory
        from ctxpool.errors import MemoryLimitError
        def refused(work):
            try:
                with memory_limit("64MiB"):
                    work()
            except MemoryLimitError as error:
                return error.limit
        whole = lambda: open(sys.argv[1], "rb").read()
        blocks = lambda: sum(map(len, islice(read_blocks(sys.argv[1]), 200)))
        greedy = lambda: read_blocks(sys.argv[1], in_flight=100)
        import ctxpool
        slab = lambda: ctxpool.BlockPool("1MiB", 100)
        print(refused(whole), refused(blocks), refused(greedy), refused(slab))
        """,
        path,
    )
    assert found == ["67108864", "None", "67108864", "67108864"]


def test_no_memory_for_the_pool():
    with pytest.raises(MemoryLimitError, match="needs 4096000000000000 bytes"):
        read_blocks(io.BytesIO(), block_size="1024TB", in_flight=4)


ISOLATED = Path(__file__).parents[1] / "isolated"


def test_the_end_of_the_interpreter(impl):
    done = subprocess.run(
        [sys.executable, "-X", "dev", ISOLATED / "buffers_exit.py", impl.backend],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr
