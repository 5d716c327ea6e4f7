"""One hostile probe of NumpyPool.

numpy_hostile.py PROBE[,PROBE...]: exits 0 when it held.
"""

import asyncio
import contextlib
import faulthandler
import gc
import os
import random
import resource
import sys
import threading
import weakref

import numpy as np

import ctxpool

faulthandler.enable()
MIB = 1 << 20


def fill(n, value):
    return np.full(n, value, np.uint8)


def all_are(array, value):
    return array[0] == value and bool((array == value).all())


def the_pool_dies_first():
    """Arrays keep their memory's home; the last of them takes it along."""
    for _ in range(200):
        pool = ctxpool.numpy_pool("16MiB", min_size=1)
        with pool:
            arrays = [fill(n, 7) for n in (1, 100, 5000, 300_000, 3 * MIB)]
            views = [a[::2] for a in arrays]
        ref = weakref.ref(pool)
        del pool, arrays
        gc.collect()
        assert ref() is None
        assert all(all_are(view, 7) for view in views)
        views[2].base.resize(9000, refcheck=False)
        bigger = np.concatenate(views)
        assert all_are(bigger[:100], 7)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 600 * 1024


def memory_goes_with_the_pool():
    def resident():
        gc.collect()
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()

    if not os.path.exists("/proc/self/statm"):
        return
    before = None
    for i in range(30):
        with ctxpool.numpy_pool("256MiB") as pool:
            a = np.ones(32 * MIB, np.uint8)
            b = a + a
            kept = [a[: n + 1].copy() for n in range(0, 20_000, 100)]
        del a, b, kept, pool
        if i == 5:
            before = resident()
    assert resident() < before + 16 * MIB, (before, resident())


def references():
    """Installing, leaving, failing and dying lose no reference."""
    from numpy._core.multiarray import get_handler_name

    pool = ctxpool.numpy_pool("1MiB")
    capsule = pool._heap.capsule
    before = sys.getrefcount(pool), sys.getrefcount(capsule)
    for _ in range(500):
        with pool, pool:
            a = np.ones(5000)
            a = a + 1
        pool.install().uninstall()
        with contextlib.suppress(RuntimeError):
            pool.uninstall()
        del a
    gc.collect()
    after = sys.getrefcount(pool), sys.getrefcount(capsule)
    # The newest lookup may stay in a cache of the interpreter's.
    assert all(x <= y + 2 for x, y in zip(after, before, strict=True)), (before, after)
    assert get_handler_name() == "default_allocator"


def other_threads_free():
    """Made here, freed where no handler of ours is installed, and the reverse."""
    pool = ctxpool.numpy_pool("8MiB")
    with pool:
        made = [fill(1 + 700 * i, i % 251) for i in range(600)]

    def drop(arrays):
        while arrays:
            array = arrays.pop()
            assert all_are(array, len(arrays) % 251)
            assert not pool.owns(array[:].copy())

    thread = threading.Thread(target=drop, args=(made,))
    thread.start()
    thread.join()
    assert not made
    there = []

    def make():
        with pool:
            there.extend(fill(100_000, i) for i in range(10))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    assert all(pool.owns(a) and all_are(a, i) for i, a in enumerate(there))
    there.clear()
    pool.check()
    assert pool.stats().live_blocks == 0


def threads():
    """Many threads on one pool; arrays change hands."""
    pool = ctxpool.numpy_pool("4MiB", min_size=1)
    shared, errors, barrier = [None] * 50, [], threading.Barrier(4)

    def work(seed):
        rng = random.Random(seed)
        try:
            pool.install()
            barrier.wait(60)
            for i in range(1500):
                value = rng.randrange(1, 250)
                shared[rng.randrange(50)] = fill(1 << rng.randrange(21), value), value
                found = shared[rng.randrange(50)]
                if found:
                    array, value = found
                    assert array[0] == array[-1] == value
                    copy = array + np.uint8(1)
                    assert copy[0] == copy[-1] == value + 1
                if i % 200 == 50 * seed:
                    pool.check()
                    pool.trim()
                    pool.warm("100KB", 3)
                    pool.stats()
        except BaseException as error:
            errors.append(error)

    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    sys.setswitchinterval(1e-5)
    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not errors, errors
    shared.clear()
    gc.collect()
    pool.check()
    assert pool.stats().live_blocks == 0, pool.stats()
    assert getattr(sys, "_is_gil_enabled", lambda: True)() == gil


def fork():
    """A child's pool and arrays are its own, also while threads are at work."""
    pool = ctxpool.numpy_pool("64MiB", min_size=1).install()
    a = fill(3 * MIB, 5)
    stop = threading.Event()

    def work():
        with pool:
            while not stop.is_set():
                fill(50_000, 1)

    thread = threading.Thread(target=work)
    thread.start()
    for _ in range(20):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                assert all_are(a, 5)
                a[:] = 6
                b = a + a
                assert pool.owns(b)
                assert all_are(b, 12)
                del b
                pool.check()
                pool.trim()
                code = 0
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        assert all_are(a, 5)
    stop.set()
    thread.join()
    pool.uninstall()


def interpreter_exit():
    """Arrays, a pool and a running daemon thread are left as they are."""
    global left
    pool = ctxpool.numpy_pool("8MiB", min_size=1).install()

    class Late:
        def __init__(self):
            self.array = fill(MIB, 3)

        def __del__(self):
            self.array = self.array + self.array[:1]

    left = [Late(), np.ones(100_000), pool, pool.install()]
    left.append(left)

    def work():
        pool.install()
        while True:
            np.ones(10_000) + 1

    threading.Thread(target=work, daemon=True).start()


def generators_and_tasks():
    """A context that is left elsewhere is an error, and nothing worse."""
    pool = ctxpool.numpy_pool("8MiB")

    def generator():
        with pool:
            yield np.ones(10_000)

    running = generator()
    assert pool.owns(next(running))
    assert pool.owns(np.ones(10_000))  # as with any context variable
    errors = []

    def close():
        try:
            running.close()
        except RuntimeError as error:
            errors.append(error)

    thread = threading.Thread(target=close)
    thread.start()
    thread.join()
    assert "not installed" in str(errors[0])
    pool.uninstall()
    assert not pool.owns(np.ones(10_000))

    async def task(n):
        inside = n % 2
        if inside:
            pool.install()
        for _ in range(20):
            await asyncio.sleep(0)
            assert pool.owns(np.ones(10_000)) == inside
        if inside:
            pool.uninstall()

    async def main():
        await asyncio.gather(*map(task, range(10)))

    asyncio.run(main())
    assert not pool.owns(np.ones(10_000))


def objects_and_odd_memory():
    """What NumPy does with memory besides making arrays."""
    pool = ctxpool.numpy_pool("8MiB", min_size=1)

    class Bomb:
        def __del__(self):
            np.ones(5000) + 1
            pool.trim()

    with pool:
        for n in (0, 1, 10, 1000, 100_000):
            objects = np.array([Bomb() for _ in range(min(n, 300))], object)
            objects.sort(kind="stable") if n == 0 else objects[::2].copy()
            del objects
            strings = np.array(["x" * (i % 7) for i in range(min(n, 999))])
            np.sort(strings)
            a = np.fromiter(range(n), np.int64)
            a.resize(2 * n + 1, refcheck=False)
            a.resize(n // 3, refcheck=False)
            np.argsort(np.ones(n), kind="stable")
            np.partition(np.arange(n + 1), n // 2)
            b = np.zeros((n, 0, 3))
            b.sort()
            np.unique(a)
            a.shape = (a.size, 1)
            a.dtype = np.uint8
            np.lib.stride_tricks.as_strided(a, (2,), (0,)) if n > 9 else None
            np.frombuffer(a.tobytes() or b"1", np.uint8)
            c = np.empty((), np.dtype([("x", "V0")]))
            c.copy()
            c.__setstate__(c.__reduce__()[2])
            d = np.ones(n).astype("U5")
            d.__setstate__(np.ones(n // 2 + 1).__reduce__()[2])
            np.random.default_rng(1).permutation(n)
            pool.check()
    gc.collect()


def no_memory():
    """Where the system gives nothing more NumPy's own allocator is asked, and fails
    as it does; a limit fails before."""
    pool = ctxpool.numpy_pool("1GiB")
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    with pool:
        idle = np.ones(100 * MIB, np.uint8)
        del idle
        resource.setrlimit(resource.RLIMIT_AS, (now + 400 * MIB, hard))
        kept = np.ones(200 * MIB, np.uint8)  # needs the place of what is idle
        try:
            np.ones(2000 * MIB, np.uint8)
        except MemoryError:
            pass
        else:
            raise AssertionError("2 GB within 400 MB")
        many = []
        try:
            for _ in range(10_000):
                many.append(np.ones(300_000, np.uint8))
        except MemoryError:
            many.clear()
        assert all_are(kept[:1000], 1)
        pool.check()
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    assert pool.stats().refused > 0


def stolen():
    """The owner flag is taken from an array, as C code does: its memory is lost, and
    the heap that it is part of stays."""
    for _ in range(3):
        with ctxpool.numpy_pool("8MiB"):
            a = np.ones(100_000)
        address = a.__array_interface__["data"][0]
        a.flags  # noqa: B018
        b = np.frombuffer((ctypes.c_char * a.nbytes).from_address(address))
        class_offset = type(a).__basicsize__
        assert class_offset
        flags = ctypes.c_int.from_address(id(a) + FLAGS)
        assert flags.value & 4, "not where the flags are"
        flags.value &= ~4
        del a
        gc.collect()
        assert b[0] == b[-1] == 1.0


if "stolen" in sys.argv[1]:
    import ctypes

    # PyArrayObject: data, nd, dimensions, strides, base, descr, flags.
    FLAGS = object.__basicsize__ + 6 * 8

for probe in sys.argv[1].split(","):
    globals()[probe]()
