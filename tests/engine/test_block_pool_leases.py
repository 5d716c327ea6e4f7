"""Memory never goes back while anything can still reach it."""

import array
import ctypes
import gc
import io
import mmap
import pickle
import sys
import threading
import time
import weakref

import numpy as np
import pytest

from ctxpool.errors import BlockInUseError

SIZE = 1 << 18

HOLDERS = {
    "view": lambda v: v,
    "view of the view": memoryview,
    "slice": lambda v: v[1:2],
    "slice of a slice": lambda v: v[::2][3:9],
    "cast": lambda v: v.cast("i"),
    "read-only": lambda v: v.toreadonly(),
    "frombuffer": lambda v: np.frombuffer(v, np.uint8),
    "asarray": np.asarray,
    "array without a copy": lambda v: (
        np.array(v, copy=False) if np.__version__ < "2" else np.asarray(v, copy=False)
    ),
    "ndarray over it": lambda v: np.ndarray((SIZE,), np.uint8, buffer=v),
    "part of an ndarray": lambda v: np.ndarray((SIZE,), np.uint8, buffer=v)[
        ::2
    ].reshape(2, -1),
    "dlpack": lambda v: np.from_dlpack(np.asarray(v)),
    "PickleBuffer": pickle.PickleBuffer,
    "ctypes": lambda v: (ctypes.c_char * 64).from_buffer(v),
    "the exporter": lambda v: v.obj,
    "a weak reference": weakref.ref,
    "closure": lambda v: lambda: v,
    "cycle": lambda v: (lambda box: box.append((box, v)) or box)([]),
}
try:
    import pyarrow

    HOLDERS["pyarrow buffer"] = pyarrow.py_buffer
    HOLDERS["pyarrow reader"] = lambda v: pyarrow.BufferReader(pyarrow.py_buffer(v))
except ImportError:
    pyarrow = None


@pytest.fixture(params=HOLDERS)
def hold(request):
    return HOLDERS[request.param]


def test_a_held_block_is_deferred(impl, hold):
    pool = impl.BlockPool(SIZE, 1)
    block = pool.acquire()
    held = hold(block.view)
    block.release()
    if type(held) is weakref.ref:
        # It reaches the memory only while the view is alive: either is safe.
        assert held() is None or pool.in_use == 1
    else:
        assert block.released
        assert pool.in_use == pool.stats().deferred == 1
        assert pool.try_acquire() is None
    del held
    gc.collect()
    assert pool.in_use == pool.stats().deferred == 0
    pool.acquire().view[:4] = b"next"
    pool.check()


def test_a_strict_release_refuses_while_held(impl, hold):
    pool = impl.BlockPool(SIZE, 1)
    block = pool.acquire()
    block.view[:4] = b"mine"
    held = hold(block.view)
    if type(held) is not weakref.ref:
        with pytest.raises(BlockInUseError, match="still reachable") as caught:
            block.release(strict=True)
        assert isinstance(caught.value, BufferError)
        assert not block.released
        assert bytes(block.view[:4]) == b"mine"
        caught = None
    held = None
    gc.collect()
    block.release(strict=True)
    assert pool.in_use == 0
    pool.check()


def test_a_strict_release_by_with_or_pool(impl):
    pool = impl.BlockPool(64, 1)
    block = pool.acquire()
    array = block.array()
    with pytest.raises(BlockInUseError):
        pool.release(block, strict=True)
    del array
    pool.release(block, strict=True)


@pytest.mark.parametrize("how", ["release", "drop", "with"])
def test_a_view_outlives_its_block_untouched(impl, how):
    pool = impl.BlockPool(64, 2)
    block = pool.acquire()
    view = block.view
    view[:4] = b"mine"
    if how == "release":
        block.release()
    elif how == "with":
        with block:
            del block
    else:
        del block
    for _ in range(3):
        with pool.acquire() as other:
            other.view[:4] = b"else"
    assert bytes(view[:4]) == b"mine"
    assert pool.in_use == 1
    del view
    assert pool.in_use == 0


def test_the_body_may_keep_a_view_beyond_with(impl):
    pool = impl.BlockPool(64, 1)
    with pool.acquire() as block:
        kept = np.asarray(block.view)
    assert block.released
    assert pool.stats().deferred == 1
    kept[:] = 9
    del kept
    assert pool.stats().deferred == 0


def test_the_view_is_one_object_while_the_block_lives(impl):
    pool = impl.BlockPool(64, 1)
    block = pool.acquire()
    assert block.view is block.view
    block.view.release()  # its user's right; the block makes another
    block.view[:2] = b"ok"
    with block.view as view:
        view[0] = 1
    assert block.view[1] == ord("k")
    block.release(strict=True)
    assert pool.in_use == 0


def test_released_views_do_not_wake_again(impl):
    pool = impl.BlockPool(64, 1)
    for _ in range(5):
        with pool.acquire() as block:
            view = block.view
            view[:] = bytes(64)
        view.release()
        with pytest.raises(ValueError, match="released"):
            view[0]
        del view
        assert pool.in_use == 0
    for _ in range(5):
        with pool.acquire() as block:
            block.view[0] = 1
            block.array()[1] = 2
        assert pool.in_use == 0
    pool.check()


def test_several_holders_the_last_one_counts(impl):
    pool = impl.BlockPool(64, 1)
    block = pool.acquire()
    holders = [block.view, block.array("i4"), np.asarray(block.view), block.view[2:]]
    block.release()
    while holders:
        assert pool.in_use == 1
        holders.pop()
        gc.collect()
    assert pool.in_use == 0


def test_pickle_out_of_band(impl):
    pool = impl.BlockPool(4096, 1)
    array = pool.empty(1024, "f4")
    array[:] = range(1024)
    buffers = []
    data = pickle.dumps(array, protocol=5, buffer_callback=buffers.append)
    assert len(data) < 400
    twin = pickle.loads(data, buffers=buffers)
    del array
    assert pool.in_use == 1
    assert twin[1023] == 1023
    del twin, buffers
    assert pool.in_use == 0


def test_reading_a_file_into_a_block(impl, tmp_path):
    (tmp_path / "f").write_bytes(b"0123456789")
    pool = impl.BlockPool(8, 1)
    with pool.acquire() as block, open(tmp_path / "f", "rb", buffering=0) as file:
        assert file.readinto(block.view) == 8
        assert bytes(block.view) == b"01234567"
        assert io.BytesIO(b"xy").readinto(block.view[2:4]) == 2
        assert bytes(block.view) == b"01xy4567"
    assert pool.in_use == 0


def test_an_array_of_the_standard_library_is_a_copy(impl):
    pool = impl.BlockPool(8, 1)
    with pool.acquire() as block:
        copy = array.array("B", block.view)
    assert pool.in_use == 0
    assert len(copy) == 8


def test_blocks_die_in_another_thread(impl):
    pool = impl.BlockPool(64, 4)
    box = [pool.empty(), pool.acquire(), pool.acquire().view]
    thread = threading.Thread(target=box.clear)
    thread.start()
    thread.join()
    assert pool.in_use == 0
    pool.check()


def test_blocks_in_cycles_come_back(impl):
    pool = impl.BlockPool(64, 3)
    for thing in (pool.acquire(), pool.empty(), pool.acquire().view):
        box = [thing]
        box.append(box)
        del box, thing
    gc.collect()
    assert pool.in_use == 0


def test_a_holder_of_a_dead_pool(impl):
    pool = impl.BlockPool(mmap.PAGESIZE, 2)
    view, array = pool.acquire().view, pool.empty()
    pool.close()
    del pool
    gc.collect()
    view[:] = bytes(len(view))
    array[:] = 1
    assert array.sum() == mmap.PAGESIZE


def test_memory_found_by_the_collector_stays_mapped(impl):
    """Not by an honest way; but it must not crash."""
    pool = impl.BlockPool(64, 1)
    with pool.acquire() as block:
        block.view[:5] = b"inner"
    del block
    found = [
        thing
        for thing in gc.get_objects()
        if type(thing) is memoryview and len(thing) == 64
    ]
    pool.close()
    del pool
    gc.collect()
    for view in found:
        bytes(view)


def test_pyzmq_in_flight(impl):
    zmq = pytest.importorskip("zmq")
    pool = impl.BlockPool(32 << 20, 1)
    with (
        zmq.Context() as context,
        context.socket(zmq.PULL) as pull,
        context.socket(zmq.PUSH) as push,
    ):
        pull.setsockopt(zmq.RCVHWM, 1)
        push.setsockopt(zmq.SNDHWM, 10)
        port = pull.bind_to_random_port("tcp://127.0.0.1")
        push.connect(f"tcp://127.0.0.1:{port}")
        block = pool.acquire()
        block.view[:4] = b"AAAA"
        push.send_multipart([block.view, b"small"], copy=False)
        block.release()
        if pool.in_use:  # still in flight: nobody else gets it
            assert pool.try_acquire() is None
        message = pull.recv_multipart()
        assert message[0][:4] == b"AAAA"
        assert len(message[0]) == 32 << 20
        deadline = time.monotonic() + 10
        while pool.in_use and time.monotonic() < deadline:
            time.sleep(0.01)
    assert pool.in_use == 0


def test_release_leaks_nothing(impl):
    pool = impl.BlockPool(4096, 2)

    def cycle():
        with pool.acquire() as block:
            block.view[0] = 1
            block.array("f4", (2, 2))
        pool.empty((3, 3))
        pool.acquire()
        block = pool.acquire()
        view = block.view
        block.release()
        del view
        pool.free(pool.allocate())

    for _ in range(50):
        cycle()
    gc.collect()
    before, references = len(gc.get_objects()), sys.getrefcount(pool)
    for _ in range(500):
        cycle()
    gc.collect()
    assert len(gc.get_objects()) - before < 20
    assert sys.getrefcount(pool) == references
    pool.check()
