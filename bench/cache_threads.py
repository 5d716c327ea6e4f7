"""Several threads on one cache: millions of operations a second, all together.

A thread starts with the others at a barrier and works through an order of its own;
the clock stops when the last is done. Contenders take turns, the order rotating.
"""

import itertools
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from bar import Bar
from cache_cases import Ring, keys, shuffled
from operations import Case, compile_loop
from peers import Contender, contenders, without_gil
from section import Findings, Section

__all__ = ["sections"]

COUNTS = (1, 2, 4)
SIZE = 1_000
OURS = ("LRUCache", "Cache s3fifo")
NAMES = ("dict", "functools", "cachebox", "cachetools", *OURS)
# Whose own documentation asks for a lock; it stands around each single call.
LOCKED = ("cachetools",)

# Operation and keys by workload: reads only; the same with equal keys that are each
# thread's own; and nine reads for each store. (Without a GIL the counts of references
# to whatever is shared, keys and cache, hold everybody up.)
WORKLOADS = {
    "reads": ("hit get", "ring.shuffled"),
    "own keys": ("equal-copy key", "shuffled(keys(ring.size, ring.kind))"),
    "90 % reads": ("zipf read-through", "ring.zipf"),
}


def compiled(contender: Contender, workload: str, ring: Ring) -> list[Any]:
    """A loop for each thread, over one cache."""
    cache, lock = contender.filled(ring.own), threading.Lock()
    operation, feed = WORKLOADS[workload]
    statement = contender.statements[operation]
    if contender.name in LOCKED:
        statement = f"with lock:\n    {statement}"
    case = Case("threads", operation, SIZE, contender.name, statement)
    given = {"cache": cache, "lock": lock, "ring": ring}
    given |= {"keys": keys, "shuffled": shuffled}
    return [
        compile_loop(
            replace(
                case,
                feed=f"(feed := {feed})[{at}:] + feed[:{at}]",
                given=lambda: given,
            )
        )
        for at in range(0, SIZE, SIZE // max(COUNTS))
    ]


def rate(loops: list[Any], n: int) -> float:
    """Millions of operations a second; each thread does n."""
    barrier = threading.Barrier(len(loops) + 1)

    def work(loop: Any) -> None:
        barrier.wait()
        loop(n)

    threads = [threading.Thread(target=work, args=(loop,)) for loop in loops]
    for thread in threads:
        thread.start()
    barrier.wait()
    start = time.perf_counter_ns()
    for thread in threads:
        thread.join()
    return len(loops) * n * 1e3 / (time.perf_counter_ns() - start)


def table(quick: bool, progress: Callable[[str], None]) -> list[dict[str, Any]]:
    ring = Ring(SIZE, "str")
    taking_part = [c for c in contenders() if c.name in NAMES]
    slow = 10 if quick else 1
    rows = []
    for workload in WORKLOADS:
        progress(workload)
        loops = {c.name: compiled(c, workload, ring) for c in taking_part}
        names = list(loops)
        rates: dict[tuple[str, int], list[float]] = {
            (name, threads): [] for name in names for threads in COUNTS
        }
        for turn in range(3 if quick else 10):  # the first warms up
            at = turn % len(names)
            for name in names[at:] + names[:at]:
                n = (20_000 if name in LOCKED else 200_000) // slow
                for threads in COUNTS:
                    mops = rate(loops[name][:threads], n)
                    if turn:
                        rates[name, threads].append(mops)
        rows += [
            {
                "workload": workload,
                "threads": threads,
                "name": name,
                "mops": statistics.median(many),
                "rounds": many,
            }
            for (name, threads), many in rates.items()
        ]
    return rows


def bars(rows: list[dict[str, Any]]) -> Iterator[Bar]:
    mops = {(r["workload"], r["name"], r["threads"]): r["mops"] for r in rows}
    rounds = {(r["workload"], r["name"], r["threads"]): r["rounds"] for r in rows}
    others = {r["name"] for r in rows} - {"dict", *OURS}

    def gains(workload: str, name: str, threads: int) -> list[float]:
        """To one thread, in each round."""
        one, many = (rounds[workload, name, count] for count in (1, threads))
        return [b / a for a, b in zip(one, many, strict=True)]

    for workload, mine in itertools.product(WORKLOADS, OURS):
        for threads in COUNTS[1:]:
            ours, floor = (gains(workload, name, threads) for name in (mine, "dict"))
            # Two that scale alike are within 5 % of each other, by chance.
            yield Bar(
                f"{mine}: {workload}, {threads} threads to one, to a dict's",
                statistics.median(a / b for a, b in zip(ours, floor, strict=True)),
                0.95,
                note=f"{statistics.median(ours):.2f}, "
                f"dict {statistics.median(floor):.2f}",
                least=True,
            )
        for threads in COUNTS:
            best = max(others, key=lambda name: mops[workload, name, threads])
            mine_s, peer_s = (mops[workload, n, threads] for n in (mine, best))
            yield Bar(
                f"{mine}: {workload}, threads: {threads}, to the best peer",
                mine_s / peer_s,
                1.0,
                note=f"{mine_s:.1f} Mops/s, {best} {peer_s:.1f}",
                least=True,
            )


def printed(rows: list[dict[str, Any]]) -> str:
    mops = {(r["workload"], r["name"], r["threads"]): r["mops"] for r in rows}
    columns = [(workload, threads) for workload in WORKLOADS for threads in COUNTS]
    head = "".join(f"{f'{w}, {t}':>15}" for w, t in columns)
    lines = [f"{'threads, Mops/s':16}{head}"]
    for name in dict.fromkeys(row["name"] for row in rows):
        label = name + (" + Lock" if name in LOCKED else "")
        cells = "".join(f"{mops[w, name, t]:15.1f}" for w, t in columns)
        lines.append(f"{label:16}{cells}")
    return "\n".join(lines)


def sections(quick: bool, progress: Callable[[str], None]) -> Iterator[Section]:
    def run() -> Findings:
        rows = table(quick, progress)
        return Findings(printed(rows), rows, list(bars(rows)))

    gil = "without a GIL" if without_gil() else "with the GIL"
    version = ".".join(map(str, sys.version_info[:2]))
    yield Section(f"threads: CPython {version} {gil}", run)
