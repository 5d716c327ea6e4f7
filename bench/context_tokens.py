"""TokenWindow beside deque, numpy_ringbuffer, dvg-ringbuffer and plain memcpy.

Windows of 4,096 to 10^7 int32 tokens, full. "memcpy" copies the same tokens, in C, to
one place after another of as many bytes as the window goes through, so that the
destination is as cold; "np.copyto" does so by numpy's call. A list holds small ints, an
array.array and an array what the window holds, an int64 array is checked for range on
the way (numpy's np.copyto(casting="unsafe") beside it checks nothing).

"median" is that of the rounds of a loop with the clock outside, the empty loop taken
off; a round of extends goes through whole generations, so it has its share of what is
copied ahead. "p99.9" and "max" have the clock around every single operation, that of
"(control)" around nothing. "worst" is of a capacity of 10^7, in more than a whole
generation; each operation's time is the least of four runs: what comes again at the
same place is ours, the rest is the machine's.

Where we lose: extend with a list of one token is bound by the call, as deque's is;
arrays of some KiB take up to twice memcpy's time, since a token in three is written
twice; the first append after a generation has ended runs code that is in no cache. A
deque takes no memory before it holds tokens, and a window all of it at once.
"""

import gc
import importlib
import importlib.util
import itertools
import resource
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import floors
import numpy as np
from bar import Bar
from fresh import in_a_new_process
from operations import Case, engine, measure, ratio
from section import Findings, Section
from tail import record, summary

__all__ = ["absent", "sections"]

CAPACITIES = (4_096, 131_072, 1_000_000, 10_000_000)
COUNTS = (1, 16, 512, 4_096, 65_536)
OURS, FLOOR = "TokenWindow", "memcpy"
PEERS = {"numpy_ringbuffer": "numpy-ringbuffer", "dvg_ringbuffer": "dvg-ringbuffer"}
BYTES = 16  # a token of capacity, as the docstring says

Given = dict[str, Any]


def absent() -> dict[str, str]:
    return {
        name: "not installed"
        for module, name in PEERS.items()
        if importlib.util.find_spec(module) is None
    }


def window(capacity: int) -> Any:
    made = engine("native")[OURS](capacity)
    made.extend(np.arange(capacity, dtype=np.int32))
    return made


def rings(capacity: int) -> Iterator[tuple[str, Any]]:
    for module, name in PEERS.items():
        if name not in absent():
            ring = importlib.import_module(module).RingBuffer(capacity, dtype=np.int32)
            ring.extend(np.arange(capacity, dtype=np.int32))
            yield name, ring


def full_deque(capacity: int) -> deque[int]:
    return deque(range(capacity), maxlen=capacity)


# --- the tables --------------------------------------------------------------------


def case(name: str, statement: str, given: Given, ops: int, per: int = 1) -> Case:
    return Case(OURS, "", 0, name, statement, ops=ops, per=per, given=lambda: given)


def table(
    cases: list[Case], quick: bool, tails: int, rounds: int = 15
) -> tuple[dict[str, list[float]], list[dict[str, Any]]]:
    """Medians of all, tails of those whose statement is a single operation."""
    found = measure(cases, 3 if quick else rounds, longest=2e7 if quick else 1e8)
    single = [case for case in cases if case.per == 1]
    recorded = record(single, min(tails, 2_000) if quick else tails)
    rows = []
    for name in [*found, "(control)"]:
        row: dict[str, Any] = {"name": name}
        if name in found:
            row["median_ns"] = statistics.median(found[name])
        if name in recorded:
            figures = summary(recorded[name])
            row |= {f"{q}_ns": figures[q] for q in ("p50", "p99.9", "max")}
        rows.append(row)
    return found, rows


def printed(rows: list[dict[str, Any]]) -> str:
    columns = ("median", "p50", "p99.9", "max")
    lines = [f"{'ns':26}" + "".join(f"{column:>14}" for column in columns)]
    for row in rows:
        cells = "".join(
            f"{row[f'{column}_ns']:14,.0f}" if f"{column}_ns" in row else f"{'-':>14}"
            for column in columns
        )
        lines.append(f"{row['name']:26}{cells}")
    return "\n".join(lines)


def append(capacity: int, quick: bool) -> Findings:
    named = [(OURS, window(capacity)), ("deque", full_deque(capacity))]
    named += rings(capacity)
    cases = [case(n, "window.append(7)", {"window": w}, 50_000) for n, w in named]
    found, rows = table(cases, quick, 40_000)
    bar = Bar(f"append, {capacity:,}, to deque", ratio(found, OURS, "deque"), 1.25)
    return Findings(printed(rows), rows, [bar])


def extend_list(capacity: int, n: int, quick: bool) -> Findings:
    tokens = [i % 30_000 for i in range(n)]
    named = [(OURS, window(capacity)), ("deque", full_deque(capacity))]
    named += rings(capacity)
    ops = max(10, 400_000 // n)
    cases = [
        case(name, "window.extend(tokens)", {"window": w, "tokens": tokens}, ops)
        for name, w in named
        if n <= capacity or name in (OURS, "deque")
    ]
    found, rows = table(cases, quick, 20_000 if n < 4_096 else 2_000)
    times = ratio(found, "deque", OURS)
    what = f"extend {n:,} from a list, {capacity:,}, deque to ours"
    return Findings(printed(rows), rows, [Bar(what, times, 2, least=True)])


def extend_array(capacity: int, n: int, kind: str, quick: bool) -> Findings:
    """*kind*: what the tokens come in: int32, array.array or int64."""
    narrow = np.arange(n, dtype=np.int32)
    tokens: Any = narrow
    if kind == "int64":
        tokens = narrow.astype(np.int64)
    elif kind == "array.array":
        array = importlib.import_module("array")
        tokens = array.array("i", narrow.tolist())
    # Of the four capacities that a window goes through, three are a generation.
    most = BYTES // 4 * capacity
    ops = max(12, -(-3 * capacity // n))
    ops *= -(-20_000 // (ops * max(n // 512, 1)))
    given: Given = {"window": window(capacity), "tokens": tokens}
    cases = [case(OURS, "window.extend(tokens)", given, ops)]
    cases += [
        case(name, "window.extend(tokens)", given | {"window": w}, min(ops, 2_000))
        for name, w in rings(capacity)
        if n <= capacity
    ]
    target = np.zeros(max(most, n), np.int32)
    places = [target[i : i + n] for i in range(0, len(target) - n + 1, n)][:100_000]
    given = {"place": itertools.cycle(places), "tokens": narrow, "copyto": np.copyto}
    copies = "copyto(next(place), tokens)"
    if kind == "int64":
        given["tokens"] = tokens
        copies = "copyto(next(place), tokens, casting='unsafe')"
    cases.append(case("np.copyto", copies, given, min(ops, len(places))))
    if kind != "int64":
        turns = max(1, len(target) // n)
        given = {"copy": floors.load().copy_round, "tokens": narrow, "target": target}
        statement = f"copy(tokens, target, {turns})"
        cases.append(
            case(FLOOR, statement, given, -(-min(ops, 20_000) // turns), turns)
        )
    found, rows = table(cases, quick, 20_000 if n < 4_096 else 2_000)
    bars = []
    if n >= 512 and n <= capacity:
        floor = "np.copyto" if kind == "int64" else FLOOR
        ours, copy = (statistics.median(found[name]) for name in (OURS, floor))
        what = f"extend {n:,} from {kind}, {capacity:,}, over {floor}"
        note = f"{floor} {copy:,.0f} ns, {ours / copy:.2f}x"
        bars.append(Bar(what, ours, 1.3 * copy + 150, "ns", note))
    return Findings(printed(rows), rows, bars)


def arrays(capacity: int, quick: bool) -> Findings:
    """The whole window, its end, and all its stretches, nothing new in between."""
    given = {"window": window(capacity), "deque_": full_deque(min(capacity, 131_072))}
    cases = [
        case(f"{OURS} {text}", f"window.{text}", given, 50_000)
        for text in ("view()", "last(4000)", "windows(64, 16)")
    ]
    for name, ring in rings(capacity):
        made = {"array": np.array, "window": ring}
        cases.append(case(f"{name} np.array", "array(window)", made, 5_000))
    if capacity <= 131_072:
        made = {"fill": np.fromiter, "window": given["deque_"], "i4": np.dtype("i4")}
        cases.append(case("deque np.fromiter", "fill(window, i4)", made, 200))
    found, rows = table(cases, quick, 20_000)
    bars = [
        Bar(f"{text}, {capacity:,}, warm", statistics.median(found[f"{OURS} {text}"]),
            120, "ns")
        for text in ("view()", "last(4000)")
    ]  # fmt: skip
    return Findings(printed(rows), rows, bars)


# --- the worst ---------------------------------------------------------------------


def least_of(runs: int, timed: Callable[[], np.ndarray]) -> np.ndarray:
    recorded = []
    gc.collect()
    gc.disable()
    try:
        for _ in range(runs):
            recorded.append(timed())
    finally:
        gc.enable()
    return np.minimum.reduce(recorded)


def worst_extends(capacity: int, n: int, generations: float) -> np.ndarray:
    """Of each extend through so many generations."""
    tokens, now = np.arange(n, dtype=np.int32), time.perf_counter_ns
    out = np.zeros(int(generations * 3 * capacity / n), np.int64)

    def timed() -> np.ndarray:
        extend, times = window(capacity).extend, memoryview(out)
        for _ in range(100):
            extend(tokens)
        for i in range(len(out)):
            start = now()
            extend(tokens)
            times[i] = now() - start
        return out.copy()

    return least_of(4, timed)


def worst_appends(capacity: int, each: int) -> np.ndarray:
    """Of appends before, at and after every place where something changes: the end of
    a generation, the beginning of copying ahead; and in the middle. The first ones
    after the extends that lead to such a place are not timed."""
    now, warm = time.perf_counter_ns, 5_000
    places = [capacity * k // 2 for k in range(2, 15)]
    out = np.zeros(len(places) * each, np.int64)

    def timed() -> np.ndarray:
        made, times, i = window(capacity), memoryview(out), 0
        step = np.zeros(10_000, np.int32)
        add = made.append
        for place in places:
            first = place - each // 2 - warm
            while made.position + len(step) < first:
                made.extend(step)
            made.extend(step[: max(first - made.position, 0)])
            for _ in range(warm):
                add(7)
            for _ in range(each):
                start = now()
                add(7)
                times[i] = now() - start
                i += 1
        return out.copy()

    return least_of(4, timed)


def worst(capacity: int, quick: bool) -> Findings:
    rows, bars = [], []
    todo = [
        ("append", worst_appends(capacity, 2_000 if quick else 20_000)),
        ("extend 512", worst_extends(capacity, 512, 1.2)),
        ("extend 4,096", worst_extends(capacity, 4_096, 1.2)),
    ]
    for name, times in todo:
        middle, tail = np.percentile(times, (50, 99.9)).tolist()
        top = float(times.max())
        rows.append({"name": name, "p50_ns": middle, "p99.9_ns": tail, "max_ns": top})
        what = f"worst {name} of {len(times):,}, {capacity:,}, to its median"
        bars.append(Bar(what, top / middle, 20, note=f"at {int(times.argmax()):,}"))
    return Findings(printed(rows), rows, bars)


def faults(capacity: int) -> Findings:
    """Page faults while a window goes through two generations."""
    made = window(capacity)
    tokens = np.arange(4_096, dtype=np.int32)
    made.extend(tokens)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(6 * capacity // len(tokens)):
        made.extend(tokens)
        made.view()
    count = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    rows = [{"name": "faults", "capacity": capacity, "faults": count}]
    what = f"page faults in 6 x {capacity:,} tokens"
    return Findings(f"{count} page faults", rows, [Bar(what, count, 4, "")])


def memory(capacity: int) -> Findings:
    """In a process of its own: resident bytes, full and in use."""
    (used,) = in_a_new_process(
        "import numpy as np\n"
        "tokens = np.arange(100_000, dtype=np.int32); tokens.sum()\n"
        "window_class = operations.engine('native')['TokenWindow']\n"
        "before = resident()\n"
        f"window = window_class({capacity})\n"
        f"for _ in range({6 * capacity} // 100_000): window.extend(tokens)\n"
        f"report((resident() - before) / {capacity})\n"
    )
    said = window(capacity).stats().bytes / capacity
    rows = [{"name": "bytes", "capacity": capacity, "resident": used, "said": said}]
    text = f"{used:.2f} resident bytes per int32 token of capacity, {said:.2f} said"
    what = f"resident bytes per token, {capacity:,}"
    bars = [
        Bar(what, used, BYTES * 1.02, "B"),
        Bar(f"{what}, to a deque's", used, 40.6, "B"),
    ]
    return Findings(text, rows, bars)


# ---------------------------------------------------------------------------------


def sections(quick: bool, progress: Callable[[str], None]) -> Iterator[Section]:
    for capacity in CAPACITIES[:2] if quick else CAPACITIES:
        at = f"{capacity:,} tokens"
        yield Section(f"append, {at}", lambda c=capacity: append(c, quick))
        for n in COUNTS:
            title = f"extend {n:,} from a list, {at}"
            yield Section(title, lambda c=capacity, n=n: extend_list(c, n, quick))
        for kind in ("int32", "array.array", "int64"):
            for n in COUNTS[1:]:
                yield Section(
                    f"extend {n:,} from {kind}, {at}",
                    lambda c=capacity, n=n, k=kind: extend_array(c, n, k, quick),
                )
        yield Section(f"arrays, {at}", lambda c=capacity: arrays(c, quick))
        yield Section(f"page faults, {at}", lambda c=capacity: faults(c))
    largest = CAPACITIES[2 if quick else 3]
    yield Section(f"worst, {largest:,} tokens", lambda: worst(largest, quick))
    yield Section("memory", lambda: memory(CAPACITIES[3]))
