"""A new buffer and its first touch: BlockPool beside what the system has.

Each operation gets a buffer and writes a byte of each of its pages, in C; the newest 1
or 4 are kept. A shared-memory segment is unlinked at once. "thread" does it in another
thread than the main one, where glibc takes memory from another arena. Method and
columns as in pools_sized.py: each operation is a Python call too, about 0.3 us of every
figure. The bars are bench/bars.py's, whose loops have none.
"""

import mmap
import threading
from collections import deque
from collections.abc import Callable, Iterator
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import floors
import numpy as np
from operations import KIB, MIB
from pools_sized import printed, record, rows_of
from section import Findings, Section

from ctxpool import BlockPool

__all__ = ["sections"]

OPERATIONS = {4 * KIB: 10_000, 64 * KIB: 10_000, MIB: 2_000, 64 * MIB: 60}


def work(make: Callable[[], Any], live: int) -> Callable[[int], None]:
    touch, u1 = floors.load().touch, np.dtype("u1")
    kept: deque[Any] = deque(maxlen=live)

    def do(i: int) -> None:
        buffer = make()
        seen = buffer.buf if isinstance(buffer, SharedMemory) else buffer
        touch(np.frombuffer(seen, u1))
        del seen
        kept.append(buffer)

    return do


def touched(size: int, live: int, n: int, thread: bool) -> Findings:
    u1 = np.dtype("u1")
    pool = BlockPool(size, live + 1)

    def segment() -> SharedMemory:
        made = SharedMemory(create=True, size=size)
        made.unlink()
        return made

    makers: dict[str, Callable[[], Any]] = {
        "BlockPool": lambda: pool.empty(size, u1),
        "np.empty": lambda: np.empty(size, u1),
        "bytearray": lambda: bytearray(size),
        "mmap": lambda: mmap.mmap(-1, size),
        "SharedMemory": segment,
    }
    todo = {name: work(make, live) for name, make in makers.items()}
    results: list[Any] = []

    def measure() -> None:
        results.append(record(todo, n))

    if thread:
        worker = threading.Thread(target=measure)
        worker.start()
        worker.join()
    else:
        measure()
    where = "thread" if thread else "main"
    rows = rows_of(results[0], size=size, live=live, where=where)
    return Findings(printed(rows), rows)


def sections(quick: bool, progress: Callable[[str], None]) -> Iterator[Section]:
    for size, n in OPERATIONS.items():
        for live in (1, 4):
            for thread in (False, True):

                def run(
                    size: int = size,
                    n: int = n,
                    live: int = live,
                    thread: bool = thread,
                ) -> Findings:
                    progress(f"touch {size >> 10:,} KiB")
                    return touched(size, live, max(n // 20, 20) if quick else n, thread)

                where = "thread" if thread else "main"
                title = f"touch: {size >> 10:,} KiB, {live} live, {where}"
                yield Section(title, run)
