"""Measure each promised ratio of the engine and print PASS or MISS.

    python bench/bars.py [--full] [--only TEXT] [--json FILE]

Method. Contenders of one bar run in one process, in turns, the order rotating;
a bar is judged by the median of the rounds' own ratios. The empty loop is taken
off for BlockPool and TokenWindow, not for LRUCache. Absolute times move from
machine to machine, ratios much less; they move too when the machine has other
work. The floors (a call that does nothing, an empty context manager, a pool
without any safety, memcpy) are compiled from floors.pyx.

Bias. We chose the operations. Peers are called as their documentation shows.

The table informs: the exit status is 0 whatever it says. --full adds 10^6 entries
and takes some minutes.
"""

import argparse
import gc
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cache_memory
import cache_table
import floors
import numpy as np
import operations
from bar import Bar, ns
from fresh import in_a_new_process
from operations import Case, compile_loop, control, measure, ratio
from peers import contenders, peers


def groups(found: list[Case]) -> dict[tuple[str, str, int], list[Case]]:
    table: dict[tuple[str, str, int], list[Case]] = {}
    for case in found:
        if case.name != "pure":
            table.setdefault((case.primitive, case.operation, case.size), []).append(
                case
            )
    return table


# --- BlockPool -------------------------------------------------------------------


def floor(operation: str, statement: str, setup: str) -> Case:
    imported = "import floors; floors = floors.load(); "
    return Case("BlockPool", operation, 4096, "floor", statement, imported + setup)


def block_pool(full: bool) -> Iterator[Bar]:
    table = groups(list(operations.block_pool((4096,))))
    plain = "pool = floors.PlainPool(64); floors = None"
    pair = table["BlockPool", "acquire + release", 4096]
    pair.append(floor("", "pool.acquire().release()", plain))
    got = measure(pair)
    note = ns(got, "native", "floor")
    yield Bar(
        "acquire + release, to an unsafe Cython pool",
        ratio(got, "native", "floor"),
        1.2,
        note=note,
    )
    for peer in ("bytearray", "np.empty"):
        yield Bar(
            f"acquire + release, {peer}(4096) to ours",
            ratio(got, peer, "native"),
            4,
            note=ns(got, peer),
            least=True,
        )

    dropped = table["BlockPool", "dropped", 4096]
    dropped.append(floor("", "pool.acquire()", plain))
    got = measure(dropped)
    yield Bar(
        "dropped, to an unsafe Cython pool",
        ratio(got, "native", "floor"),
        1.1,
        note=ns(got, "native", "floor"),
    )

    with_ = table["BlockPool", "with", 4096]
    nothing = "pool = floors.Nothing(); floors = None"
    with_.append(floor("", "with pool.acquire(): pass", nothing))
    got = measure(with_)
    yield Bar(
        "with, to an empty C context manager",
        ratio(got, "native", "floor"),
        1.15,
        note=ns(got, "native", "floor"),
    )

    got = measure(table["BlockPool", "array", 4096])
    yield Bar(
        "array, to np.empty(4096)",
        ratio(got, "native", "np.empty"),
        0.4,
        note=ns(got, "native", "np.empty"),
    )

    ratios = [two_threads() for _ in range(7)]
    yield Bar(
        "acquire + release on two threads, aggregate to one",
        statistics.median(ratios),
        1.2,
    )

    yield from first_touch((4096, 65_536), 1, 2.0, 5.0)
    yield from first_touch((1 << 20, 4 << 20), 4, None, 8.0)
    yield from first_touch((64 << 20,), 1, 15.0, None)


def two_threads(n: int = 100_000) -> float:
    """Time per operation with two threads on one pool, to that of one thread."""
    case = Case(
        "BlockPool",
        "",
        4096,
        "native",
        "pool.acquire().release()",
        "pool = BlockPool(4096, 64)",
        side="pooled",
    )
    names = operations.namespace(case)
    exec(case.setup, names)
    pool = names["pool"]

    def work() -> None:
        for _ in range(n):
            pool.acquire().release()

    def timed(threads: int) -> float:
        workers = [threading.Thread(target=work) for _ in range(threads)]
        start = time.perf_counter_ns()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return (time.perf_counter_ns() - start) / (n * threads)

    return timed(2) / timed(1)


def first_touch(
    sizes: tuple[int, ...], live: int, p50: float | None, tail: float | None
) -> Iterator[Bar]:
    """An array is got and a byte of each page written, in C; `live` are kept. The
    p50 of the clock alone is taken off the p50."""
    for size in sizes:
        setup = (
            "import floors; touch = floors.load().touch; floors = None\n"
            f"u1 = np.dtype('u1'); live = deque(maxlen={live}); keep = live.append"
        )
        keep = "touch(a); keep(a); a = None" if live > 1 else "touch(a); a = None"
        mine = Case(
            "BlockPool",
            "touch",
            size,
            "native",
            f"a = pool.empty({size}, u1); {keep}",
            f"pool = BlockPool({size}, {live + 2}); {setup}",
            side="pooled",
        )
        statement = f"a = np.empty({size}, u1); {keep}"
        peer = replace(
            mine, name="np.empty", side="unpooled", setup=setup, statement=statement
        )
        count = 60 if size >= 32 << 20 else 2_000 if size > 1 << 20 else 40_000
        contenders = (mine, peer, control(mine))
        loops = [
            (compile_loop(case, latency=True), np.zeros(count, np.int64))
            for case in contenders
        ]
        for loop, out in loops:
            loop(live + 2, memoryview(out))
        for turn in range(10):
            part = slice(turn * count // 10, (turn + 1) * count // 10)
            for loop, out in loops[turn % 3 :] + loops[: turn % 3]:
                loop(count // 10, memoryview(out)[part])
        clock = float(np.median(loops[2][1]))
        for label, quantile, limit in (("p50", 50, p50), ("p99.9", 99.9, tail)):
            if limit is None:
                continue
            off = clock if quantile == 50 else 0.0
            ours, theirs = (
                max(float(np.percentile(out, quantile)) - off, 1.0)
                for _, out in loops[:2]
            )
            yield Bar(
                f"touch {size >> 10:,} KiB, {live} live, {label}, np.empty to ours",
                theirs / ours,
                limit,
                least=True,
                note=f"{ours / 1e3:,.2f} us, np.empty {theirs / 1e3:,.2f} us",
            )


# --- TokenWindow -----------------------------------------------------------------


def token_window(full: bool) -> Iterator[Bar]:
    size = 131_072
    table = groups(list(operations.token_window((size,))))

    got = measure(table["TokenWindow", "append", size])
    yield Bar(
        "append, to deque",
        ratio(got, "native", "deque"),
        1.25,
        note=ns(got, "native", "deque"),
    )
    for n in (16, 512):
        got = measure(table["TokenWindow", f"extend {n} from a list", size])
        yield Bar(
            f"extend {n} from a list, deque to ours",
            ratio(got, "deque", "native"),
            2,
            least=True,
            note=ns(got, "native", "deque"),
        )
    for n in (512, 65_536):
        got = measure(table["TokenWindow", f"extend {n:,} from an array", size])
        ours, copy = statistics.median(got["native"]), copying(n, size)
        yield Bar(
            f"extend {n:,} int32 from an array, over memcpy",
            ours,
            1.3 * copy + 150,
            "ns",
            f"memcpy {copy:,.0f} ns",
        )

    windows = [size, 10_000_000]
    for capacity in windows:
        setup = (
            f"window = TokenWindow({capacity})\n"
            f"window.extend(np.arange({capacity}, dtype=np.int32))"
        )
        for statement in ("window.view()", "window.last(4000)"):
            case = Case(
                "TokenWindow", "", capacity, "native", statement, setup, side="pooled"
            )
            value = statistics.median(measure([case])["native"])
            yield Bar(f"{statement}, warm, capacity {capacity:,}", value, 120, "ns")
    yield immutable()
    yield worst()
    yield bytes_per_token()


def copying(n: int, capacity: int) -> float:
    """ns of one memcpy of n int32 into as many bytes as a window goes through."""
    module = floors.load()
    source, target = np.arange(n, dtype=np.int32), np.zeros(4 * capacity, np.int32)
    rounds = max(50, 2_000_000 // n)
    figures = []
    for _ in range(7):
        start = time.perf_counter_ns()
        module.copy_round(source, target, rounds)
        figures.append((time.perf_counter_ns() - start) / rounds)
    return statistics.median(figures)


def window_class() -> Any:
    return operations.engine("native")["TokenWindow"]


def immutable() -> Bar:
    window = window_class()(1_000)
    window.extend(np.arange(1_000, dtype=np.int32))
    view, before = window.view(), window.view().copy()
    for _ in range(5_000):
        window.append(9)
    changed = float((view != before).sum()) + float(view.flags.writeable)
    return Bar("tokens of an old view that changed", changed, 0, "")


def worst(capacity: int = 10_000_000, n: int = 512) -> Bar:
    """The worst extend in more than a generation. Each operation's time is the
    least of four runs: what comes again at the same place is ours, the rest noise."""
    tokens = np.arange(n, dtype=np.int32)
    count = int(3.5 * capacity / n)
    runs = []
    for _ in range(4):
        window = window_class()(capacity)
        window.extend(np.arange(capacity, dtype=np.int32))
        for _ in range(100):
            window.extend(tokens)
        out = np.zeros(count, np.int64)
        times, now = memoryview(out), time.perf_counter_ns
        gc.collect()
        gc.disable()
        for i in range(count):
            start = now()
            window.extend(tokens)
            times[i] = now() - start
        gc.enable()
        runs.append(out)
    least = np.minimum.reduce(runs)
    top, middle = float(least.max()), float(np.median(least))
    return Bar(
        f"worst extend({n}) at capacity {capacity:,}, to its median",
        top / middle,
        20,
        note=f"median {middle:,.0f} ns, worst {top:,.0f} ns, "
        f"operation {int(least.argmax()):,} of {count:,}",
    )


def bytes_per_token(capacity: int = 10_000_000) -> Bar:
    (used,) = in_a_new_process(
        "import numpy as np\n"
        "tokens = np.arange(100_000, dtype=np.int32); tokens.sum()\n"
        "before = resident()\n"
        "window_class = operations.engine('native')['TokenWindow']\n"
        f"window = window_class({capacity})\n"
        f"for _ in range({3 * capacity} // 100_000): window.extend(tokens)\n"
        f"report((resident() - before) / {capacity})\n"
    )
    what = "resident bytes per token, int32, to a deque's"
    return Bar(what, used, 40.6, "B")


# --- LRUCache --------------------------------------------------------------------


def lru_cache(full: bool) -> Iterator[Bar]:
    """LRUCache's cells; `make bench-cache` has more contenders, keys and chapters."""
    taking_part = [c for c in contenders() if c.name in ("dict", "LRUCache")] + peers()
    for size in (1_000, 100_000, 1_000_000) if full else (1_000, 100_000):
        for kind in ("str", "int") if full else ("str",):
            yield from cache_table.bars(cache_table.table(size, kind, taking_part))
    yield from cache_memory.bars([cache_memory.measured("LRUCache", "str", 1_000_000)])


# ---------------------------------------------------------------------------------

CHAPTERS: dict[str, Callable[[bool], Iterator[Bar]]] = {
    "BlockPool": block_pool,
    "TokenWindow": token_window,
    "LRUCache": lru_cache,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help="10^6 entries too")
    parser.add_argument("--only", default="", help="BlockPool, TokenWindow or LRUCache")
    parser.add_argument("--json", type=Path, help="write the rows here")
    arguments = parser.parse_args()
    try:
        operations.engine("native")
    except ModuleNotFoundError:
        sys.exit("the bars are those of the native engine, and it was not built")
    print(__doc__.split("\n\n", 2)[2])
    report: list[dict[str, Any]] = []
    for name, chapter in CHAPTERS.items():
        if arguments.only.lower() not in name.lower():
            continue
        print(name)
        for bar in chapter(arguments.full):
            print(f"  {bar}", flush=True)
            report.append({"primitive": name, "met": bar.met, **asdict(bar)})
    met = sum(row["met"] for row in report)
    print(f"\n{met} of {len(report)} bars met")
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
