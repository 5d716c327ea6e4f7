"""MemoryPool beside np.empty, bytearray and mmap: calls, mixed sizes, framed receives.

"calls" is the cost of getting a buffer and giving it back, without touching it: here a
pool loses against pymalloc and numpy's own cache, by rows. "mixed" gets buffers of
sizes from 1 KiB to 8 MiB, evenly spread over their logarithms, keeps the newest four,
and writes a byte of each page, in C. "framed" receives frames from another process
over a socket pair into a new buffer each, keeps the newest four; "one kept" is the
steady buffer that a pool can't better.

Method. As in bench/tail.py: the contenders take turns in one process, the order
rotating, with the clock around every single operation; the clock alone is "(control)".
The first operations, in which a pool takes its memory from the system, are left out
and printed as "first": the sum of what they took. "faults" are page faults an
operation.

Bias. We chose the sizes. A process of its own for each contender would hide what one's
memory does to the other's; in one process glibc's heap is warmed by all of them.
"""

import gc
import mmap
import resource
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import floors
import numpy as np
from bar import Bar
from operations import KIB, MIB, Case, measure
from section import Findings, Section

from ctxpool import Block, BlockPool, MemoryPool

__all__ = ["sections"]

OURS, CONTROL = "MemoryPool", "(control)"
KEPT, TURNS, WARM = 4, 20, 0.1
BUDGET = "1GiB"

Make = Callable[[int], Any]  # a buffer of so many bytes


def makers() -> dict[str, Make]:
    u1 = np.dtype("u1")
    pool = MemoryPool(total_size=BUDGET)
    return {
        OURS: pool.allocate,
        "np.empty": lambda size: np.empty(size, u1),
        "bytearray": bytearray,
        "mmap": lambda size: mmap.mmap(-1, size),
    }


def writable(buffer: Any) -> Any:
    """What is written to: a Block's view, anything else itself."""
    return buffer.view if isinstance(buffer, Block) else buffer


# --- calls -----------------------------------------------------------------------


def calls(size: int, quick: bool) -> Findings:
    def case(name: str, statement: str, given: dict[str, Any]) -> Case:
        return Case("MemoryPool", "calls", size, name, statement, given=lambda: given)

    u1 = np.dtype("u1")
    cases = [
        case(OURS, f"pool.allocate({size}).release()", {"pool": MemoryPool()}),
        case("BlockPool", "pool.acquire().release()", {"pool": BlockPool(size, 4)}),
        case(f"{OURS}.empty", f"pool.empty({size}, u1)", {"pool": MemoryPool(),
                                                         "u1": u1}),
        case("np.empty", f"empty({size}, u1)", {"empty": np.empty, "u1": u1}),
        case("bytearray", f"bytearray({size})", {}),
    ]  # fmt: skip
    found = measure(cases, rounds=5 if quick else 21, longest=20e6)
    rows = [
        {"name": name, "size": size, "median_ns": float(np.median(many)),
         "p99_ns": float(np.percentile(many, 99))}
        for name, many in found.items()
    ]  # fmt: skip
    lines = [f"  {row['name']:20}{row['median_ns']:12,.0f} ns" for row in rows]
    median = {row["name"]: row["median_ns"] for row in rows}
    over = median[OURS] - median["BlockPool"]
    what = f"allocate + release of {size:,} bytes, over BlockPool's pair"
    return Findings("\n".join(lines), rows, [Bar(what, over, 150, "ns")])


# --- a clock around each operation -------------------------------------------------


@dataclass
class Recorded:
    out: np.ndarray
    first: float = 0.0  # ns of what is left out
    faults: int = 0


def record(work: dict[str, Callable[[int], None]], n: int) -> dict[str, Recorded]:
    """ns of each of n operations; ``work[name](i)`` does the i-th."""
    warm = max(int(n * WARM), 2 * KEPT)
    found = {name: Recorded(np.zeros(n, np.int64)) for name in [CONTROL, *work]}
    todo = {CONTROL: lambda i: None, **work}
    now = time.perf_counter_ns
    gc.collect()
    gc.disable()
    try:
        for name, do in todo.items():
            start = now()
            for i in range(warm):
                do(i)
            found[name].first = float(now() - start)
        names, part = list(todo), -(-n // TURNS)
        for turn in range(TURNS):
            at = turn % len(names)
            for name in names[at:] + names[:at]:
                do, out = todo[name], memoryview(found[name].out)
                before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
                for i in range(turn * part, min((turn + 1) * part, n)):
                    start = now()
                    do(i)
                    out[i] = now() - start
                after = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
                found[name].faults += after - before
    finally:
        gc.enable()
    return found


def rows_of(found: dict[str, Recorded], **more: Any) -> list[dict[str, Any]]:
    rows = []
    for name, recorded in found.items():
        p50, p99, p999 = np.percentile(recorded.out, (50, 99, 99.9)).tolist()
        rows.append(
            {
                "name": name,
                "n": len(recorded.out),
                "p50_us": p50 / 1e3,
                "p99_us": p99 / 1e3,
                "p99.9_us": p999 / 1e3,
                "max_us": float(recorded.out.max()) / 1e3,
                "mean_us": float(recorded.out.mean()) / 1e3,
                "first_us": recorded.first / 1e3,
                "faults": recorded.faults / len(recorded.out),
                **more,
            }
        )
    return rows


COLUMNS = ("p50", "p99", "p99.9", "max", "mean", "first")


def printed(rows: list[dict[str, Any]]) -> str:
    head = f"{'us':14}" + "".join(f"{column:>13}" for column in COLUMNS)
    lines = [f"{head}{'faults':>10}{'n':>9}"]
    for row in rows:
        cells = "".join(f"{row[f'{column}_us']:13,.2f}" for column in COLUMNS)
        lines.append(f"{row['name']:14}{cells}{row['faults']:10,.2f}{row['n']:9,}")
    return "\n".join(lines)


def against(
    rows: list[dict[str, Any]], peer: str, what: str, column: str, limit: float
) -> Bar:
    """How many times ours the peer's figure is."""
    by_name = {row["name"]: row[f"{column}_us"] for row in rows}
    clock = by_name[CONTROL] if column == "p50" else 0.0
    ours, theirs = (max(by_name[name] - clock, 1e-3) for name in (OURS, peer))
    note = f"{ours:,.2f} us, {peer} {theirs:,.2f} us"
    title = f"{what}, {column}, {peer} to ours"
    return Bar(title, theirs / ours, limit, least=True, note=note)


# --- mixed sizes -------------------------------------------------------------------


def mixed(low: int, high: int, n: int) -> Findings:
    rng = np.random.default_rng(1)
    logs = rng.uniform(np.log2(low), np.log2(high), n)
    sizes = [int(size) for size in 2**logs]
    touch = floors.load().touch

    def work(make: Make) -> Callable[[int], None]:
        live: deque[Any] = deque(maxlen=KEPT)

        def do(i: int) -> None:
            buffer = make(sizes[i])
            touch(np.frombuffer(writable(buffer), np.uint8))
            live.append(buffer)

        return do

    rows = rows_of(record({name: work(make) for name, make in makers().items()}, n))
    what = f"mixed sizes, {low >> 10:,} KiB to {high >> 10:,} KiB, {KEPT} live"
    bars = []
    for column, limit in (("mean", 2.0), ("p99.9", 4.0)):
        bars += [against(rows, peer, what, column, limit)
                 for peer in ("np.empty", "bytearray", "mmap")]  # fmt: skip
    return Findings(printed(rows), rows, bars)


# --- framed receives ---------------------------------------------------------------

SENDER = """
import socket, sys
out = socket.socket(fileno=int(sys.argv[1]))
frame = bytes(1 << 20)
try:
    while True:
        out.sendall(frame)
except OSError:
    pass
"""


def framed(size: int, kept: int, n: int) -> Findings:
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-c", SENDER, str(theirs.fileno())]
    sender = subprocess.Popen(command, pass_fds=[theirs.fileno()])
    theirs.close()
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        ours.setsockopt(socket.SOL_SOCKET, option, 1 << 20)

    def work(make: Make) -> Callable[[int], None]:
        live: deque[Any] = deque(maxlen=kept)

        def do(i: int) -> None:
            buffer = make(size)
            rest = memoryview(writable(buffer))
            while rest.nbytes:
                rest = rest[ours.recv_into(rest) :]
            live.append(buffer)

        return do

    try:
        todo = {name: work(make) for name, make in makers().items() if name != "mmap"}
        one = np.zeros(size, np.uint8)
        todo["one buffer"] = work(lambda size: one)
        rows = rows_of(record(todo, n), size=size, kept=kept)
    finally:
        ours.close()
        sender.kill()
        sender.wait()
    what = f"frames of {size >> 20} MiB, {kept} kept"
    bars = []
    if kept > 1:
        large = size >= 32 * MIB
        for peer, limit in (("bytearray", 3.0 if large else 1.5),
                            ("np.empty", 1.5 if large else 1.25)):  # fmt: skip
            bars.append(against(rows, peer, what, "p50", limit))
            bars.append(against(rows, peer, what, "p99", limit))
    return Findings(printed(rows), rows, bars)


# -----------------------------------------------------------------------------------


def sections(quick: bool, progress: Callable[[str], None]) -> Iterator[Section]:
    for size in (64, 512, 4 * KIB, 64 * KIB, MIB):

        def of_calls(size: int = size) -> Findings:
            progress(f"calls, {size:,} bytes")
            return calls(size, quick)

        yield Section(f"sized: calls, {size:,} bytes", of_calls)
    for low, high, n in ((KIB, 8 * MIB, 20_000), (4 * MIB, 64 * MIB, 1_000)):

        def of_mixed(low: int = low, high: int = high, n: int = n) -> Findings:
            progress(f"mixed, to {high >> 20} MiB")
            return mixed(low, high, n // 20 if quick else n)

        title = f"sized: mixed, {low >> 10:,} KiB to {high >> 10:,} KiB"
        yield Section(title, of_mixed)
    for size, kept, n in ((MIB, KEPT, 4_000), (32 * MIB, KEPT, 200), (MIB, 1, 4_000)):

        def of_frames(size: int = size, kept: int = kept, n: int = n) -> Findings:
            progress(f"frames of {size >> 20} MiB")
            return framed(size, kept, n // 20 if quick else n)

        yield Section(f"sized: framed, {size >> 20} MiB, {kept} kept", of_frames)
