"""Measure MarkovModel's record and predict, and what PredictiveCache saves.

    python bench/prediction.py [--quick] [--json FILE]

Method. Times of calls: the model is trained first, then each call is timed alone, and
the median of an empty call is taken off; median, p99.9 and, as what a loop pays, the
mean of calls in a row. The keys are strings. The baseline is what people write: a dict
of collections.Counter by the last key, of unbounded memory; its prediction is
most_common(n). "right" is how often the first prediction was, on keys not yet recorded.

Latency: reads through a PredictiveCache whose load sleeps, with prefetching and without
it, the reader working a while between two reads.

Bias. We chose the sequences: cycles, files read whole, and independent draws by Zipf's
law, of which no predictor earns anything. A sleeping load leaves the processor to the
planner; one that computes in Python would not.
"""

import argparse
import itertools
import json
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ctxpool.caches import MarkovModel, PredictiveCache

BARS = {"record": 300.0, "predict(1)": 3000.0, "predict(5)": 3000.0}


class Counters:
    """The baseline."""

    def __init__(self) -> None:
        self.after: dict[Any, Counter[Any]] = {}
        self.last: Any = None

    def record(self, key: Any) -> None:
        counter = self.after.get(self.last)
        if counter is None:
            counter = self.after[self.last] = Counter()
        counter[key] += 1
        self.last = key

    def predict(self, n: int) -> list[tuple[Any, float]]:
        counter = self.after.get(self.last)
        if not counter:
            return []
        total = counter.total()
        return [(key, count / total) for key, count in counter.most_common(n)]


def sequences(keys: int, length: int) -> dict[str, list[str]]:
    rng = random.Random(1)
    names = [f"key-{i}" for i in range(keys)]
    weights = [1 / (i + 1) for i in range(keys)]
    files = [names[i : i + 20] for i in range(0, keys, 20)]
    popular = [1 / (i + 1) for i in range(len(files))]
    chosen = rng.choices(files, popular, k=length // 20)
    return {
        "cycle": (names * (length // keys + 1))[:length],
        "files": list(itertools.chain.from_iterable(chosen)),
        "zipf": rng.choices(names, weights, k=length),
    }


def each(call: Callable[[Any], Any], arguments: Iterable[Any]) -> list[int]:
    clock, times = time.perf_counter_ns, []
    for argument in arguments:
        start = clock()
        call(argument)
        times.append(clock() - start)
    return times


def in_a_row(call: Callable[[Any], Any], arguments: list[Any]) -> float:
    start = time.perf_counter_ns()
    for argument in arguments:
        call(argument)
    return (time.perf_counter_ns() - start) / len(arguments)


def p999(times: list[int]) -> float:
    return sorted(times)[len(times) * 999 // 1000]


def nothing(argument: Any) -> None:
    pass


def times_of(make: Callable[[], Any], sequence: list[str]) -> dict[str, Any]:
    model, half = make(), len(sequence) // 2
    for key in sequence[:half]:
        model.record(key)
    timed = sequence[half:]
    empty = statistics.median(each(nothing, timed[:20_000]))
    loop = in_a_row(nothing, timed)
    found: dict[str, Any] = {}

    def add(name: str, times: list[int], mean: float) -> None:
        found[name] = {
            "median": statistics.median(times) - empty,
            "p99.9": p999(times) - empty,
            "mean": mean,
        }

    part = len(timed) // 4
    mean = in_a_row(model.record, timed[:part]) - loop
    add("record", each(model.record, timed[part : 2 * part]), mean)
    for n, place in ((1, 2 * part), (5, 3 * part)):
        few = timed[place : place + min(part, 10_000)]
        times, right = [], 0
        for key in few:
            start = time.perf_counter_ns()
            guess = model.predict(n)
            times.append(time.perf_counter_ns() - start)
            right += bool(guess) and guess[0][0] == key
            model.record(key)
        add(f"predict({n})", times, statistics.fmean(times) - empty)
        found["right"] = right / len(few)
    return found


def latency(keys: list[Any], prefetch: bool, load: float, think: float) -> Any:
    def slow(key: Any) -> Any:
        time.sleep(load)
        return key

    waits = []
    with PredictiveCache(slow, 100, prefetch=prefetch) as cache:
        for key in keys:
            start = time.perf_counter()
            cache.get(key)
            waits.append(time.perf_counter() - start)
            if think:
                time.sleep(think)
        cache.prefetcher.flush()
        return waits, cache.stats()


def print_times(length: int, report: list[Any]) -> None:
    print("ns a call                              median     p99.9    in a row")
    for keys in (1_000, 100_000):
        for kind, sequence in sequences(keys, max(length, 4 * keys)).items():
            print(f"{keys:,} keys, {kind}")
            for name, make in (("MarkovModel", MarkovModel), ("Counters", Counters)):
                found = times_of(make, sequence)
                report.append({"keys": keys, "sequence": kind, "model": name, **found})
                for call, limit in BARS.items():
                    row = found[call]
                    verdict = ""
                    if name == "MarkovModel":
                        verdict = "PASS" if row["median"] <= limit else "MISS"
                        verdict = f"{verdict} <= {limit:,.0f}"
                    print(
                        f"    {name:12} {call:12} {row['median']:15,.0f} "
                        f"{row['p99.9']:9,.0f} {row['mean']:11,.0f}  {verdict}"
                    )
                print(f"    {name:12} right        {found['right']:15.1%}")


def print_latency(length: int, report: list[Any]) -> None:
    load, think = 0.001, 0.002
    print(f"\nReads, of which a load takes {load * 1000:g} ms, cache of 100; mean wait")
    rng = random.Random(2)
    files = [[rng.randrange(10**6) for _ in range(20)] for _ in range(40)]
    weights = [1 / (i + 1) for i in range(40)]
    chosen = rng.choices(files, weights, k=length // 20)
    kinds: dict[str, list[Any]] = {
        "cycle of 200": [i % 200 for i in range(length)],
        "files": list(itertools.chain.from_iterable(chosen)),
        "zipf": rng.choices(range(5000), [1 / (i + 1) for i in range(5000)], k=length),
    }
    for kind, keys in kinds.items():
        without, _ = latency(keys, False, load, think)
        waits, stats = latency(keys, True, load, think)
        learned = length // 2  # and what it saves once it has seen the keys
        less = 1 - statistics.fmean(waits) / statistics.fmean(without)
        late = 1 - statistics.fmean(waits[learned:]) / statistics.fmean(
            without[learned:]
        )
        report.append(
            {"reads": kind, "less": less, "less_later": late, **vars_of(stats)}
        )
        print(
            f"    {kind:14} {statistics.fmean(without) * 1e6:6,.0f} us -> "
            f"{statistics.fmean(waits) * 1e6:6,.0f} us: {less:4.0%} less, second half "
            f"{late:4.0%}; hits {stats.hit_rate_without:.0%} -> {stats.hit_rate:.0%}, "
            f"used {stats.used:,}, wasted {stats.wasted:,}, "
            f"{'on' if stats.enabled else 'off'}"
        )


def vars_of(stats: Any) -> dict[str, Any]:
    return {name: getattr(stats, name) for name in type(stats).__slots__}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of the calls")
    parser.add_argument("--json", type=Path, help="write the rows here")
    arguments = parser.parse_args()
    print((__doc__ or "").split("\n\n", 2)[2])
    report: list[Any] = []
    print_times(40_000 if arguments.quick else 400_000, report)
    print_latency(800 if arguments.quick else 4_000, report)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
