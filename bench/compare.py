"""Print pytest-benchmark's JSON as ns per operation and ratios to our native engine.

    python bench/compare.py out/bench.json

A ratio above 1 says how many times our native median the row's median is; the
empty loop (4 to 10 ns) is contained in every figure, so ratios of the fastest
operations are conservative.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any


def rows(report: dict[str, Any]) -> dict[tuple[str, str, int], dict[str, float]]:
    """ns per operation: {(primitive, operation, size): {name: median}}."""
    table: dict[tuple[str, str, int], dict[str, float]] = defaultdict(dict)
    for entry in report["benchmarks"]:
        info = entry["extra_info"]
        key = (info["primitive"], info["operation"], info["size"])
        nanoseconds = entry["stats"]["median"] / info["operations"] * 1e9
        table[key][info["name"]] = nanoseconds
    return table


def figure(ns: float) -> str:
    for limit, unit, scale in ((1e4, "ns", 1), (1e7, "us", 1e3), (1e10, "ms", 1e6)):
        if ns < limit:
            return f"{ns / scale:,.1f} {unit}"
    return f"{ns / 1e9:,.1f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report", type=Path)
    report = json.loads(parser.parse_args().report.read_text())
    print("Medians per operation; in brackets the ratio to our native engine.\n")
    last = None
    for (primitive, operation, size), by_name in rows(report).items():
        if primitive != last:
            print(f"{primitive}\n{'-' * len(primitive)}")
            last = primitive
        ours = by_name.get("native", by_name.get("pure"))
        cells = [
            f"{name} {figure(ns)}" + ("" if ns is ours else f" ({ns / ours:.2f}x)")
            for name, ns in by_name.items()
        ]
        print(f"{operation}, {size:,}:  " + "  |  ".join(cells))


if __name__ == "__main__":
    main()
