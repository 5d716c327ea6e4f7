"""Two threads at once on each primitive, for ThreadSanitizer to watch.

Run by ``make tsan``, on a free-threaded interpreter that was built with it.
"""

import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np

import ctxpool

ROUNDS = 3_000


def together(*targets: Callable[[], None]) -> None:
    barrier, finished = threading.Barrier(len(targets)), list[object]()

    def run(target: Callable[[], None]) -> None:
        barrier.wait()
        target()
        finished.append(target)

    threads = [threading.Thread(target=run, args=(target,)) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(finished) == len(targets), "a thread failed"


def block_pool(pool: ctxpool.BlockPool) -> None:
    for i in range(ROUNDS):
        block = pool.acquire()
        block.view[0] = 1
        block.release()
        array = pool.empty(8)
        array[0] = 1
        del array
        pool.free(pool.allocate())
        pool.acquire()
        if i % 100 == 0:
            repr(pool), pool.stats(), pool.available, pool.blocks
            pool.trim()


def shared_pool(pool: ctxpool.SharedBlockPool) -> None:
    for i in range(ROUNDS):
        block = pool.acquire()
        block.view[0] = 1
        array = block.array()
        with pool.open(block.send()) as received:
            received.view[1] = 1
        del array
        if i % 100 == 0:
            repr(pool), pool.stats(), pool.loans(), pool.recover(), pool.available


def token_window(window: ctxpool.TokenWindow) -> None:
    for i in range(ROUNDS):
        window.append(i)
        window.extend([1, 2, 3])
        if i % 7 == 0:
            window.view().sum()
            window.last(3), window[0], len(window), window.position
            with suppress(IndexError):  # it may be empty but for what is pinned
                window.pop(), window.popleft()


def lru_cache(cache: ctxpool.LRUCache[int, str]) -> None:
    for i in range(ROUNDS):
        cache[i % 80] = str(i)
        cache.get(i % 60), (i % 30) in cache, len(cache)
        if i % 500 == 0:
            list(cache), cache.stats(), cache.currsize
            cache.set(i, "x", ttl=1e-4)
        if i % 1_000 == 0:
            cache.clear()


def numpy_pool(pool: ctxpool.NumpyPool) -> None:
    with pool:
        for i in range(ROUNDS):
            array = np.ones(1 << i % 16)
            array = np.zeros(array.size) + array[::-1]
            if i % 100 == 0:
                pool.owns(array), pool.stats(), pool.check(), repr(pool)
                pool.trim(), pool.warm("64KiB")


def prefix_blocks(manager: ctxpool.PrefixBlockManager) -> None:
    for i in range(ROUNDS // 10):
        tokens = list(range(i % 7 * 8))
        one = manager.allocate(tokens).sequence
        other = manager.fork(one)
        manager.append(other, [1, 2, 3])
        manager.blocks(other), manager.length(one), manager.touch(tokens)
        manager.free(one, computed=8 * i)
        manager.release(manager.acquire(2))
        manager.free(other)
        if i % 20 == 0:
            manager.stats(), manager.drain_events(), manager.reset_prefix_cache()
            manager.lookup(tokens), manager.hashes(tokens), manager.available


assert ctxpool.backend == "native"
assert not sys._is_gil_enabled()  # type: ignore[attr-defined]
SHARED: list[tuple[Any, Callable[[Any], None]]] = [
    (ctxpool.BlockPool(64, 8, on_exhausted="wait", timeout=9), block_pool),
    (ctxpool.BlockPool(64, 1, on_exhausted="grow", max_blocks=9), block_pool),
    (ctxpool.SharedBlockPool(64, 3, on_exhausted="wait", timeout=9), shared_pool),
    (ctxpool.TokenWindow(100), token_window),
    (ctxpool.TokenWindow(100, overflow="compact", sink=5), token_window),
    (ctxpool.LRUCache(50), lru_cache),
    (ctxpool.LRUCache(50, ttl=1e-3), lru_cache),
    (ctxpool.Cache(50, "s3fifo"), lru_cache),
    (ctxpool.Cache(50, "adaptive"), lru_cache),
    (ctxpool.PrefixBlockManager(60, 4, events=9), prefix_blocks),
    (ctxpool.numpy_pool("1MiB", min_size=1), numpy_pool),
]
for shared, work in SHARED:
    together(partial(work, shared), partial(work, shared))
print("no race")
