"""The slowest single operation: a clock in C around each of ten million.

Each begins with an empty cache, so that growing is seen too. Streams: "churn" stores
a new key each time, "mixed" reads one for each that it stores, "expiry" stores as many
as the cache holds, waits until all have expired, and stores as many again.

The clock alone takes its turn like the others, as "(clock)": what it shows above its
median is the machine. A stream runs several times from the start; "again" is the
slowest operation when each takes the least of its times: what comes again at the same
place is the cache's own (turns begin, with cold caches of the processor, at other
places in each run). The worst ratio is judged by that, the clock's median taken off
both sides. "switched" counts operations above 10 us during which the scheduler
took the core away. Whoever is slower does fewer operations (n), which flatters it.
"""

import gc
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import floors
import numpy as np
from bar import Bar
from cache_cases import keys
from operations import engine
from peers import modules
from section import Findings, Section

__all__ = ["sections"]

N = 10_000_000
TURNS, RUNS, WARMING = 20, 3, 500
CLOCK = "(clock)"
OURS = ("LRUCache", "Cache s3fifo")


@dataclass(frozen=True)
class Streamed:
    name: str
    make: Callable[[], Any]
    n: int
    drops: bool = False


def streamed(capacity: int, n: int, ttl: float | None) -> list[Streamed]:
    found, native = modules(), engine("native")
    few, fewest = (max(n // part, 2 * capacity) for part in (5, 10))

    def lru() -> Any:
        return native["LRUCache"](capacity, ttl=ttl, preallocate=True)

    def s3fifo() -> Any:
        return native["Cache"](capacity, "s3fifo", ttl=ttl, preallocate=True)

    def peer(module: str) -> Callable[[], Any]:
        if ttl is None:
            return lambda: found[module].LRUCache(capacity)
        return lambda: found[module].TTLCache(capacity, ttl)

    entries = [Streamed(CLOCK, lambda: None, n)]
    if ttl is None:
        entries.append(Streamed("dict", dict, few, drops=True))
    entries += [
        Streamed(name, peer(name), count)
        for name, count in (("cachebox", few), ("cachetools", fewest))
        if name in found
    ]
    return [*entries, Streamed(OURS[0], lru, n), Streamed(OURS[1], s3fifo, few)]


@dataclass
class Recorded:
    first: np.ndarray  # ns of the first run
    least: np.ndarray  # the least of all runs
    switched: list[int]


def record(
    entries: list[Streamed], capacity: int, stream: str, ttl: float | None, runs: int
) -> dict[str, Recorded]:
    timed_stream = floors.load().timed_stream
    ring = keys(2 * capacity, "str")
    most = max(entry.n for entry in entries)
    part = most // TURNS if ttl is None else capacity
    scratch = np.zeros(part, np.int64)
    found = {
        entry.name: Recorded(
            np.zeros(entry.n, np.uint32), np.full(entry.n, 2**32 - 1, np.uint32), []
        )
        for entry in entries
    }
    gc.collect()
    gc.disable()
    try:
        for run in range(runs):
            caches = {entry.name: entry.make() for entry in entries}
            others = {entry.name: entry.make() for entry in entries}
            for turn, start in enumerate(range(-part * run // runs, most, part)):
                at = turn % len(entries)
                for entry in entries[at:] + entries[:at]:
                    first, last = max(start, 0), min(start + part, entry.n)
                    if last <= first:
                        continue
                    what = "nothing" if entry.name == CLOCK else stream
                    rest = (capacity, what, entry.drops)
                    out = scratch[: last - first]
                    # The code, if not the data, is warm when the clock starts.
                    timed_stream(others[entry.name], ring, 0, *rest, out[:WARMING])
                    switched = timed_stream(caches[entry.name], ring, first, *rest, out)
                    into = found[entry.name]
                    np.minimum(out, 2**32 - 1, out=out)
                    least = into.least[first:last]
                    np.minimum(least, out.astype(np.uint32), out=least)
                    if run == 0:
                        into.first[first:last] = out
                        into.switched += [first + i for i in switched]
                if ttl is not None:
                    time.sleep(ttl)
    finally:
        gc.enable()
    return found


def row(name: str, recorded: Recorded, clock: float) -> dict[str, Any]:
    first, least = recorded.first, recorded.least
    p50, tail = (float(x) for x in np.percentile(first, (50, 99.9)))
    again = float(least.max())
    places = np.argpartition(least, -5)[-5:]
    places = places[np.argsort(-least[places].astype(np.int64))].tolist()
    kept = first.copy()
    kept[recorded.switched] = 0
    return {
        "name": name,
        "n": len(first),
        "p50_ns": p50,
        "p99.9_ns": tail,
        "max_ns": float(first.max()),
        "switched": len(recorded.switched),
        "max_unswitched_ns": float(kept.max()),
        "again_ns": again,
        "again_places": {str(at): int(least[at]) for at in places},
        "worst_ratio": (again - clock) / max(p50 - clock, 1.0),
        "slowest_ns": slowest(least),
    }


def slowest(least: np.ndarray) -> list[float]:
    """The latencies that one of 10, 100, 1000 ... operations exceeds, for a picture."""
    shares = 10.0 ** -np.arange(0.5, np.log10(len(least)), 0.5)
    return [float(x) for x in np.quantile(least, 1 - shares)]


def table(
    capacity: int, stream: str, quick: bool, progress: Callable[[str], None]
) -> list[dict[str, Any]]:
    ttl = None
    if stream == "expiry":
        ttl = 0.01 if quick else 0.5e-6 * capacity
    progress(f"{stream}, {capacity:,}")
    entries = streamed(capacity, 10 * capacity if quick else N, ttl)
    kind = "churn" if stream == "expiry" else stream
    found = record(entries, capacity, kind, ttl, 2 if quick else RUNS)
    clock = float(np.median(found[CLOCK].first))
    return [row(entry.name, found[entry.name], clock) for entry in entries]


COLUMNS = ("p50", "p99.9", "max", "max_unswitched", "again")


def printed(rows: list[dict[str, Any]]) -> str:
    heads = ("p50", "p99.9", "max", "not switched", "again")
    lines = [
        f"{'ns':14}"
        + "".join(f"{head:>14}" for head in heads)
        + f"{'worst ratio':>14}{'switched':>10}{'n':>12}"
    ]
    for row in rows:
        cells = "".join(f"{row[f'{column}_ns']:14,.0f}" for column in COLUMNS)
        ratio = "-" if row["name"] == CLOCK else f"{row['worst_ratio']:,.1f}"
        lines.append(
            f"{row['name']:14}{cells}{ratio:>14}{row['switched']:10}{row['n']:12,}"
        )
    return "\n".join(lines)


def bars(rows: list[dict[str, Any]], title: str) -> Iterator[Bar]:
    for row in rows:
        if row["name"] in OURS:
            places = list(row["again_places"].items())[:3]
            yield Bar(
                f"{row['name']}: {title}, slowest of {row['n']:,} to the median",
                row["worst_ratio"],
                20,
                note=", ".join(f"{ns:,} ns at {int(at):,}" for at, ns in places),
            )


def sections(quick: bool, progress: Callable[[str], None]) -> Iterator[Section]:
    for capacity in (1_000,) if quick else (100_000, 1_000_000):
        for stream in ("churn", "mixed", "expiry"):

            def run(capacity: int = capacity, stream: str = stream) -> Findings:
                rows = table(capacity, stream, quick, progress)
                found = list(bars(rows, f"{stream}, {capacity:,}"))
                return Findings(printed(rows), rows, found)

            yield Section(f"tail: {stream}, {capacity:,} entries", run)
