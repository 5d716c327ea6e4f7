"""Pickles whose buffers lie in pool blocks."""

import asyncio
import gc
import io
import pickle
import queue
import socket
import threading
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxpool.errors import (
    BlockInUseError,
    FrameError,
    PoolExhaustedError,
    TruncatedFrameError,
)
from ctxpool.pools.pickling import dump, dumps, frame, load, load_async, loads
from ctxpool.pools.streams import open_connection


def same(a, b):
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and bool((a == b).all())
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def inside(array, pool):
    begin = array.ctypes.data
    return pool.address(0) <= begin < pool.address(pool.blocks - 1) + pool.block_size


def examples():
    a = np.arange(60.0).reshape(3, 4, 5)
    frozen = np.arange(9)
    frozen.setflags(write=False)
    return {
        "C": a,
        "F": np.asfortranarray(a),
        "strided": a[:, ::2],
        "read-only": frozen,
        "none": np.empty((0, 3)),
        "scalar": np.array(7),
        "records": np.zeros(3, [("x", "f4"), ("y", "S3")]),
        "buffer": pickle.PickleBuffer(bytearray(b"some bytes")),
        "bytes": pickle.PickleBuffer(b"constant"),
        "large": np.arange(3000, dtype=np.uint16),
        "others": ["text", 1 << 70, None, {"b": (1.5,)}],
        "objects": np.array([1, "two"], object),
    }


def check(made, pool):
    wanted = examples()
    assert list(made) == list(wanted)
    for key, value in wanted.items():
        if isinstance(value, pickle.PickleBuffer):
            assert bytes(made[key]) == bytes(value)
        else:
            assert same(made[key], value), key
    assert made["F"].flags.f_contiguous
    assert made["C"].flags.writeable
    assert not made["read-only"].flags.writeable
    assert memoryview(made["bytes"]).readonly
    assert inside(made["C"], pool)
    assert not inside(made["large"], pool) or pool.block_size >= 6000
    made["C"][:] = 0


@pytest.mark.parametrize("checksum", [False, True])
@pytest.mark.parametrize("size", [512, 4096, 10_000])
def test_every_way_round(impl, checksum, size):
    pool, file = impl.BlockPool(size, 40), io.BytesIO()
    written = dump(examples(), file, checksum=checksum)
    assert written == len(file.getvalue())
    assert b"".join(frame(examples(), checksum=checksum)) == file.getvalue()
    file.seek(0)
    made = load(file, pool)
    check(made, pool)
    del made
    made = loads(file.getvalue(), pool)
    check(made, pool)
    del made
    assert pool.in_use == 0
    parts = dumps(examples(), pool)
    assert b"".join(parts) == b"".join(frame(examples()))
    assert pool.in_use >= 1
    made = loads(parts)
    del parts
    check(made, pool)
    del made
    gc.collect()
    assert pool.in_use == 0


def test_an_array_lies_where_it_was_read(impl):
    pool, file = impl.BlockPool(4096, 4), io.BytesIO()
    dump([np.arange(10), np.arange(20.0)], file)
    file.seek(0)
    a, b = load(file, pool)
    assert pool.in_use == 1, "small buffers share a block"
    assert a.ctypes.data % 64 == b.ctypes.data % 64 == 0
    assert 0 < b.ctypes.data - a.ctypes.data < 4096
    part = b[5:]
    del a, b
    assert pool.in_use == 1
    del part
    assert pool.in_use == 0


def test_many_small_buffers(impl):
    pool, file = impl.BlockPool(64 * 100, 8), io.BytesIO()
    arrays = [np.full(i % 9, i) for i in range(500)]
    dump(arrays, file)
    file.seek(0)
    made = load(file, pool)
    assert same(made, arrays)
    assert pool.in_use <= 6
    del made
    assert pool.in_use == 0


def test_a_copy_is_a_copy(impl):
    pool = impl.BlockPool(4096, 4)
    array = np.arange(10)
    parts = dumps(array, pool)
    array[:] = 0
    assert loads(parts).tolist() == list(range(10))
    through = queue.SimpleQueue()
    through.put(parts)
    found = []
    thread = threading.Thread(target=lambda: found.append(loads(through.get())))
    thread.start()
    thread.join()
    assert found[0].tolist() == list(range(10))
    found[0][0] = 99
    assert loads(parts)[0] == 99, "in place: no copy was made"


def test_several_frames_in_a_file(impl):
    pool, file = impl.BlockPool(4096, 4), io.BytesIO()
    for i in range(3):
        dump({"i": i, "x": np.full(3, i)}, file)
    file.seek(0)
    for i in range(3):
        assert load(file, pool)["x"].tolist() == [i] * 3
    with pytest.raises(EOFError, match="at its end") as caught:
        load(file, pool)
    assert not isinstance(caught.value, FrameError)


def test_over_a_socket(impl):
    pool = impl.BlockPool(1 << 16, 4)
    ours, theirs = socket.socketpair()
    array = np.arange(5000.0)
    with ours, theirs, ours.makefile("rb", buffering=0) as file:
        sender = threading.Thread(
            target=lambda: dump(array, theirs.makefile("wb", buffering=0))
        )
        sender.start()
        made = load(file, pool)
        sender.join()
    assert same(made, array)
    assert inside(made, pool)


def test_over_streams(impl):
    async def main():
        pool = impl.BlockPool(1 << 16, 6, on_exhausted="wait")
        for ours_first in (True, False):
            a, b = socket.socketpair()
            if ours_first:
                reader, writer = await open_connection(pool=pool, sock=a)
            else:
                reader, writer = await asyncio.open_connection(sock=a)
            _, sender = await asyncio.open_connection(sock=b)
            arrays = [np.arange(6000.0), np.arange(3), np.zeros(100_000, np.uint8)]
            for checksum in (False, True):
                sender.writelines(frame(arrays, checksum=checksum))
                made = await load_async(reader, pool)
                assert same(made, arrays)
                assert inside(made[0], pool)
            sender.write(b"".join(frame(arrays))[:-1000])
            sender.close()
            with pytest.raises(TruncatedFrameError, match="1000 bytes before the end"):
                await load_async(reader, pool)
            with pytest.raises(EOFError, match="at its end"):
                await load_async(reader, pool)
            writer.close()
            await writer.wait_closed()
            await sender.wait_closed()
        return pool

    pool = asyncio.run(asyncio.wait_for(main(), 20))
    gc.collect()
    assert pool.in_use == 0


def test_a_cancelled_load_keeps_no_block(impl):
    async def main():
        pool = impl.BlockPool(1 << 16, 4, on_exhausted="wait")
        a, b = socket.socketpair()
        whole = b"".join(frame([np.arange(6000.0), np.arange(7000.0)]))
        for cut in (0, 10, 100, 400, 40_000, 60_000, len(whole) - 1):
            reader, writer = await open_connection(pool=pool, sock=a.dup())
            b.sendall(whole[:cut])
            task = asyncio.create_task(load_async(reader, pool))
            await asyncio.sleep(0.005)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            del task
            writer.transport.abort()
            await writer.wait_closed()
            del reader, writer
            gc.collect()
            assert pool.in_use == 0
        a.close()
        b.close()

    asyncio.run(asyncio.wait_for(main(), 20))


# -- what is wrong ---------------------------------------------------------------------


@pytest.mark.parametrize("checksum", [False, True])
def test_truncated_anywhere(impl, checksum):
    pool = impl.BlockPool(256, 16)
    whole = b"".join(frame([np.arange(20), b"x", np.arange(70)], checksum=checksum))
    for cut in range(1, len(whole)):
        with pytest.raises(TruncatedFrameError):
            load(io.BytesIO(whole[:cut]), pool)
        with pytest.raises(TruncatedFrameError):
            loads(whole[:cut])
    assert pool.in_use == 0
    with pytest.raises(FrameError, match="3 bytes follow the frame"):
        loads(whole + b"abc")
    with pytest.raises(TruncatedFrameError):
        loads(b"")


def test_every_bit_of_a_checked_frame(impl):
    """A flipped bit anywhere is found, and nothing is unpickled."""
    pool = impl.BlockPool(256, 16)
    whole = bytearray(b"".join(frame([np.arange(5), np.arange(3)], checksum=True)))
    head = len(bytes(frame([np.arange(5), np.arange(3)])[0]).rstrip(b"\0"))
    for at in range(len(whole)):
        whole[at] ^= 1 << (at % 8)
        if at < head or at >= 256:  # not the zeros between
            with pytest.raises(FrameError):
                load(io.BytesIO(bytes(whole)), pool, max_bytes="1MB")
            with pytest.raises(FrameError):
                loads(bytes(whole))
        whole[at] ^= 1 << (at % 8)
    assert pool.in_use == 0


@settings(max_examples=50)
@given(junk=st.binary(max_size=300))
def test_junk(impl, junk):
    pool = impl.BlockPool(256, 4)
    with pytest.raises((FrameError, EOFError)):
        load(io.BytesIO(junk), pool, max_bytes=1 << 20)
    with pytest.raises((FrameError, EOFError)):
        load(io.BytesIO(b"CXP5\x01\x01\0\0" + junk), pool, max_bytes=1 << 20)
    assert pool.in_use == 0


def test_a_frame_that_is_too_large(impl):
    pool = impl.BlockPool(256, 4)
    whole = b"".join(frame(np.zeros(10_000)))
    with pytest.raises(FrameError, match="more than max_bytes=1000"):
        load(io.BytesIO(whole), pool, max_bytes="1KB")
    huge = bytearray(whole)
    huge[28:36] = (2**62).to_bytes(8, "little")
    huge[36:40] = crc32(huge[:36]).to_bytes(4, "little")
    with pytest.raises(FrameError, match="more than max_bytes"):
        load(io.BytesIO(huge), pool)


def test_oversize(impl):
    pool, array = impl.BlockPool(256, 4), np.zeros(1000)
    whole = b"".join(frame(array))
    assert load(io.BytesIO(whole), pool).nbytes == 8000
    assert loads(dumps(array, pool)).nbytes == 8000
    for work in (
        lambda: load(io.BytesIO(whole), pool, oversize="raise"),
        lambda: loads(whole, pool, oversize="raise"),
        lambda: dumps(array, pool, oversize="raise"),
    ):
        with pytest.raises(
            ValueError, match="8000 bytes is longer than a block of 256"
        ):
            work()
        assert pool.in_use == 0
    with pytest.raises(ValueError, match="oversize must be one of"):
        dumps(array, pool, oversize="ignore")
    with pytest.raises(ValueError, match="too small"):
        dumps(array, impl.BlockPool(100, 1))


def test_a_pool_that_runs_dry(impl):
    pool = impl.BlockPool(256, 3)
    arrays = [np.zeros(30) for _ in range(5)]
    whole = b"".join(frame(arrays))
    for work in (
        lambda: load(io.BytesIO(whole), pool),
        lambda: loads(whole, pool),
        lambda: dumps(arrays, pool),
    ):
        with pytest.raises(PoolExhaustedError):
            work()
        gc.collect()
        assert pool.in_use == 0
    pool.check()


def test_what_does_not_pickle(impl):
    pool = impl.BlockPool(256, 3)
    with pytest.raises(pickle.PicklingError, match="non-contiguous"):
        frame(pickle.PickleBuffer(memoryview(bytearray(10))[::2]))
    with pytest.raises((pickle.PicklingError, AttributeError)):
        dumps(lambda: None, pool)
    with pytest.raises(TypeError, match="readinto"):
        load("path", pool)

    class Full(io.RawIOBase):
        def write(self, data):
            return None

    with pytest.raises(BlockingIOError):
        dump(1, Full())
    assert pool.in_use == 0


def test_an_object_that_fails_to_load(impl):
    pool = impl.BlockPool(256, 3)
    with pytest.raises(ZeroDivisionError):
        load(io.BytesIO(b"".join(frame([np.arange(3), Broken()]))), pool)
    gc.collect()
    assert pool.in_use == 0


class Broken:
    def __reduce__(self):
        return divmod, (1, 0)


def test_a_block_is_strict_about_it(impl):
    """The lease rule holds for unpickled arrays as for others."""
    pool = impl.BlockPool(1024, 1)
    block = pool.acquire()
    whole = b"".join(frame(np.arange(5)))
    view = block.view[: len(whole)]
    view[:] = whole
    array = loads(view)
    del view
    with pytest.raises(BlockInUseError):
        block.release(strict=True)
    block.release()
    assert array.tolist() == [0, 1, 2, 3, 4]
    del array
    assert pool.in_use == 0
