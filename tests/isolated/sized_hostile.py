"""Hostile users of a MemoryPool.  python sized_hostile.py native|pure PROBE"""

import gc
import importlib
import os
import signal
import sys
import threading
import time
from typing import Any

from ctxpool.errors import PoolExhaustedError
from ctxpool.pools import size_class, sized

engine: Any = importlib.import_module(f"ctxpool._{sys.argv[1]}.block_pool")
for module in (sized, size_class):
    module.BlockPool = engine.BlockPool  # type: ignore[misc]
sized.Block = engine.Block  # type: ignore[misc]
MemoryPool = sized.MemoryPool


def finalizers_use_the_pool() -> None:
    """Cycles whose finalizers allocate and release, wherever a collection may begin."""
    pool = MemoryPool([64, 128, 512], 4096, slab_size=256, on_exhausted="heap")

    class Late:
        def __init__(self) -> None:
            self.me, self.block = self, pool.allocate(100)

        def __del__(self) -> None:
            pool.allocate(500).release()
            self.kept = pool.allocate(60)
            pool.trim()

    gc.set_threshold(5)
    for i in range(3000):
        Late()
        with pool.allocate(i % 512 + 1) as block:
            block.view[0] = 1
        if i % 100 == 0:
            pool.stats()
    gc.set_threshold(700)
    gc.collect()
    gc.collect()
    assert pool.stats().in_use == 0, pool.stats()
    pool.check()


def hooks_do_anything() -> None:
    """Hooks that raise, re-enter, release, close and collect, in turn."""
    state: dict[str, Any] = {"turn": 0, "held": []}

    def hook(address: int, nbytes: int) -> None:
        state["turn"] += 1
        pool, turn = state.get("pool"), state["turn"]
        if pool is None or state.get("busy"):
            return
        state["busy"] = True
        try:
            if turn % 5 == 0:
                raise OSError("no")
            if turn % 5 == 1:
                state["held"].append(pool.allocate(40))
            elif turn % 5 == 2:
                state["held"].clear()
            elif turn % 5 == 3:
                pool.trim()
            else:
                gc.collect()
        finally:
            state["busy"] = False

    sys.unraisablehook = lambda args: None
    state["pool"] = pool = MemoryPool(
        [64, 128, 512], 2048, slab_size=128, on_create=hook, on_destroy=hook
    )
    for i in range(2000):
        try:
            state["held"].append(pool.allocate(i * 37 % 512 + 1))
        except (OSError, PoolExhaustedError):
            state["held"].clear()
    state["held"].clear()
    pool.check()
    pool.close()


def signals_use_the_pool() -> None:
    """A handler that allocates while the main thread is anywhere in the pool."""
    pool = MemoryPool([64, 128], 1024, slab_size=64, on_exhausted="heap")
    count = [0]

    def handler(number: int, frame: Any) -> None:
        count[0] += 1
        pool.allocate(count[0] % 128 + 1).view[0] = 1

    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    stop = time.monotonic() + 0.7
    i = 0
    while time.monotonic() < stop:
        held = [pool.allocate(i % 128 + 1) for _ in range(9)]
        i += 1
        held.clear()
        if i % 10 == 0:
            pool.trim()
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert count[0] > 10, count
    assert pool.stats().in_use == 0
    pool.check()


def memory_is_flat() -> None:
    """Slabs that move from class to class for ever leave nothing behind."""

    def resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")

    pool = MemoryPool([1 << 14, 1 << 16, 1 << 18], 1 << 20, slab_size=1 << 16)

    def rounds(n: int) -> None:
        for _ in range(n):
            for size in (1 << 14, 1 << 16, 1 << 18):
                held = [pool.allocate(size) for _ in range((1 << 20) // size)]
                for block in held:
                    block.view[:: 1 << 12] = bytes(size >> 12)
                del held, block
            other = MemoryPool([64], 1 << 16, on_exhausted="wait")
            other.allocate(3)

    rounds(5)
    before = resident()
    rounds(20)
    assert pool.stats().moved > 200
    assert resident() - before < 1 << 21, resident() - before


def interpreter_exit() -> None:
    """Blocks, arrays, waiters and hooks that are alive at the end."""
    pool = MemoryPool(
        [64], 64, on_exhausted="wait", on_create=print, on_destroy=lambda *of: None
    )
    sys.alive = [pool, pool.allocate(5)]  # type: ignore[attr-defined]
    threading.Thread(target=pool.allocate, args=(64,), daemon=True).start()
    other = MemoryPool([4096], "1MiB", debug=True)
    sys.more = [other.empty((4, 4)), other.allocate(1).view]  # type: ignore[attr-defined]


globals()[sys.argv[2]]()
