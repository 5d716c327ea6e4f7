"""Blocks that processes share, beside what the standard library offers.

"take, touch, give back": memory of a size, a byte written into each of its pages, and
the memory given back. multiprocessing.shared_memory makes and unlinks a segment each
time, as its users do who have no pool; mmap is anonymous and shared, inherited by forks
only. The pool is also measured in its own process's terms: BlockPool.

"there and back": a payload that exists already goes to another process, which reads a
byte of each page and writes one, and sends all of it back. Pool: the payload is copied
into a block, and a handle goes through a multiprocessing.Pipe each way; shared_memory:
the same with a segment of its own and its name; Pipe and SimpleQueue: all bytes each
way. Whoever makes its payload in the block in the first place saves the copy.

Latency of each single operation; contenders in turns of some operations each.
"""

import gc
import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np
from bar import Bar
from operations import engine
from section import Findings, Section

from ctxpool import BlockHandle

__all__ = ["sections"]

PAGE = 4096
SIZES = {4 << 10: 4_000, 64 << 10: 4_000, 1 << 20: 1_500, 16 << 20: 200}
TURNS = 20
OURS, SEGMENT = "SharedBlockPool", "shared_memory"
# At most so much of shared_memory's time, by size.
TAKEN = {4 << 10: 0.05, 64 << 10: 0.05, 1 << 20: 0.02, 16 << 20: 0.02}
SENT = {4 << 10: 0.5, 64 << 10: 0.5, 1 << 20: 0.5, 16 << 20: 0.5}


def text(size: int) -> str:
    return f"{size >> 20} MiB" if size >> 20 else f"{size >> 10} KiB"


# --- take, touch, give back ------------------------------------------------------


def takers(size: int, stack: ExitStack) -> dict[str, Callable[[], None]]:
    native = engine("native")
    shared = stack.enter_context(native["SharedBlockPool"](size, 4))
    private = stack.enter_context(native["BlockPool"](size, 4))

    def pooled() -> None:
        with shared.acquire() as block:
            block.array()[::PAGE] = 1

    def local() -> None:
        with private.acquire() as block:
            block.array()[::PAGE] = 1

    def segment() -> None:
        memory = SharedMemory(create=True, size=size)
        array = np.frombuffer(memory.buf, np.uint8)
        array[::PAGE] = 1
        del array
        memory.close()
        memory.unlink()

    return {OURS: pooled, SEGMENT: segment, "BlockPool": local}


# --- there and back --------------------------------------------------------------


@dataclass
class Echo:
    """One way of sending; ``there`` runs here, ``back`` in the other process."""

    pipe: Connection

    def there(self, payload: bytes) -> None:
        self.pipe.send_bytes(payload)
        array = np.frombuffer(self.pipe.recv_bytes(), np.uint8)
        assert array[0] == 2

    def back(self) -> None:
        array = np.frombuffer(bytearray(self.pipe.recv_bytes()), np.uint8)
        touch(array)
        self.pipe.send_bytes(array)


@dataclass
class QueueEcho(Echo):
    requests: Any
    answers: Any

    def there(self, payload: bytes) -> None:
        self.requests.put(payload)
        assert np.frombuffer(self.answers.get(), np.uint8)[0] == 2

    def back(self) -> None:
        payload = bytearray(self.requests.get())
        touch(np.frombuffer(payload, np.uint8))
        self.answers.put(payload)


@dataclass
class PoolEcho(Echo):
    pool: Any

    def there(self, payload: bytes) -> None:
        block = self.pool.acquire()
        block.view[: len(payload)] = payload
        self.pipe.send_bytes(block.send().to_bytes())
        answer = BlockHandle.from_bytes(self.pipe.recv_bytes())
        with self.pool.open(answer) as block:
            assert block.view[0] == 2

    def back(self) -> None:
        block = self.pool.open(BlockHandle.from_bytes(self.pipe.recv_bytes()))
        touch(block.array())
        self.pipe.send_bytes(block.send().to_bytes())


@dataclass
class SegmentEcho(Echo):
    def there(self, payload: bytes) -> None:
        memory = SharedMemory(create=True, size=len(payload))
        memory.buf[: len(payload)] = payload
        self.pipe.send(memory.name)
        self.pipe.recv()
        assert memory.buf[0] == 2
        memory.close()
        memory.unlink()

    def back(self) -> None:
        name = self.pipe.recv()
        memory = SharedMemory(name)
        array = np.frombuffer(memory.buf, np.uint8)
        touch(array)
        del array
        memory.close()
        self.pipe.send(None)


def touch(array: np.ndarray) -> None:
    """Read and write a byte of each page."""
    pages = array[::PAGE]
    np.add(pages, 1, out=pages)


def serve(echo: Echo) -> None:
    try:
        while True:
            echo.back()
    except (EOFError, OSError):
        pass


def senders(size: int, stack: ExitStack) -> dict[str, Callable[[], None]]:
    context = multiprocessing.get_context("spawn")
    pool = stack.enter_context(engine("native")["SharedBlockPool"](size, 4))
    payload = b"\x01" * size
    found: dict[str, Callable[[], None]] = {}
    for name, kind, more in (
        (OURS, PoolEcho, lambda: (pool,)),
        (SEGMENT, SegmentEcho, tuple),
        ("Pipe", Echo, tuple),
        (
            "SimpleQueue",
            QueueEcho,
            lambda: (context.SimpleQueue(), context.SimpleQueue()),
        ),
    ):
        ours, theirs = context.Pipe()
        given = more()
        process = context.Process(
            target=serve, args=(kind(theirs, *given),), daemon=True
        )
        process.start()
        theirs.close()
        stack.callback(process.join)
        stack.callback(process.kill)
        stack.callback(ours.close)
        echo = kind(ours, *given)
        found[name] = lambda echo=echo: echo.there(payload)
    return found


# --- the figures -----------------------------------------------------------------


def timed(contenders: dict[str, Callable[[], None]], n: int) -> dict[str, np.ndarray]:
    """ns of each operation, by name; a tenth more runs first, uncounted."""
    turns = min(TURNS, n)
    part, names = n // turns, list(contenders)
    found = {name: np.zeros((turns, part), np.int64) for name in names}
    for call in contenders.values():
        for _ in range(n // 10 + 1):
            call()
    gc.collect()
    gc.disable()
    try:
        for turn in range(turns):
            at = turn % len(names)
            for name in names[at:] + names[:at]:
                call, out = contenders[name], found[name][turn]
                for i in range(part):
                    start = time.perf_counter_ns()
                    call()
                    out[i] = time.perf_counter_ns() - start
    finally:
        gc.enable()
    return found


def rows(size: int, found: dict[str, np.ndarray]) -> Iterator[dict[str, Any]]:
    for name, taken in found.items():
        p50, p99, tail = (float(x) for x in np.percentile(taken, (50, 99, 99.9)))
        ratio = np.median(np.median(taken, 1) / np.median(found[SEGMENT], 1))
        yield {
            "size": size,
            "name": name,
            "n": taken.size,
            "p50_ns": p50,
            "p99_ns": p99,
            "p99.9_ns": tail,
            "max_ns": float(taken.max()),
            "to_segment": float(ratio),
        }


def printed(found: list[dict[str, Any]]) -> str:
    heads = ("p50", "p99", "p99.9", "max")
    lines = [
        f"{'us':8}{'':18}"
        + "".join(f"{head:>12}" for head in heads)
        + f"{'to shm':>10}{'n':>8}"
    ]
    for row in found:
        cells = "".join(f"{row[f'{head}_ns'] / 1e3:12,.1f}" for head in heads)
        lines.append(
            f"{text(row['size']):>8}  {row['name']:16}{cells}"
            f"{row['to_segment']:10.4f}{row['n']:8,}"
        )
    return "\n".join(lines)


def bars(
    what: str, found: list[dict[str, Any]], limits: dict[int, float]
) -> Iterator[Bar]:
    by = {(row["size"], row["name"]): row for row in found}
    for size, limit in limits.items():
        mine, pipe = by[size, OURS], by.get((size, "Pipe"))
        note = "of shared_memory's time"
        if pipe:
            note += f"; {mine['p50_ns'] / pipe['p50_ns']:.2f} of Pipe's"
        yield Bar(f"{what}, {text(size)}", mine["to_segment"], limit, note=note)


def sections(quick: bool, progress: Callable[[str], None]) -> Iterator[Section]:
    for what, contenders, limits in (
        ("take, touch, give back", takers, TAKEN),
        ("there and back", senders, SENT),
    ):

        def run(
            what: str = what,
            contenders: Callable[..., Any] = contenders,
            limits: dict[int, float] = limits,
        ) -> Findings:
            found: list[dict[str, Any]] = []
            sizes = {PAGE: TURNS} if quick else SIZES
            for size, n in sizes.items():
                progress(f"{what}, {text(size)}")
                with ExitStack() as stack:
                    found += rows(size, timed(contenders(size, stack), n))
            judged = {size: limits[size] for size in sizes}
            return Findings(printed(found), found, list(bars(what, found, judged)))

        yield Section(f"shared: {what}", run)
