"""Record every single operation's latency and print the tails.

    python bench/tail.py [--json FILE] [--plot FILE] [--only TEXT] [--n N]

Method. A clock reading (perf_counter_ns) before and after each operation, into an
array that was allocated and touched before. The contenders of an operation run in
turns of 1/20 of their operations each, the order rotating, in one process, with
the garbage collector off; an empty operation takes its turn like the others, and
is printed as "(control)": what the clock and the machine alone do.

Bias. The two clock readings (about 40 to 70 ns) are contained in every figure, so
the p50 of fast operations is mostly clock: bench/compare.py has those medians.
On a machine that others use, the maximum is whoever took the core away; compare it
with the control's before blaming anyone.
"""

import argparse
import gc
import json
import platform
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from cases import cases
from operations import Case, compile_loop, control

TURNS = 20
QUANTILES = {"p50": 50.0, "p99": 99.0, "p99.9": 99.9, "max": 100.0}


def record(group: list[Case], n: int) -> dict[str, np.ndarray]:
    """The latencies in ns of n operations of each, fewer where one takes long."""
    empty = control(group[0])
    entries = []
    for case in [empty, *group]:
        count = max(TURNS, min(n, case.ops * 10) // TURNS * TURNS)
        out = np.zeros(count, np.int64)
        entries.append((case.name, compile_loop(case, latency=True), out))
    gc.collect()
    gc.disable()
    try:
        for _, loop, out in entries:
            loop(min(200, len(out)), memoryview(out))
        for turn in range(TURNS):
            first = turn % len(entries)
            for _, loop, out in entries[first:] + entries[:first]:
                part = len(out) // TURNS
                loop(part, memoryview(out)[turn * part : (turn + 1) * part])
    finally:
        gc.enable()
    return {name.replace("empty loop", "control"): out for name, _, out in entries}


def summary(out: np.ndarray) -> dict[str, float]:
    figures = np.percentile(out, list(QUANTILES.values())).tolist()
    return dict(zip(QUANTILES, figures, strict=True))


def plot(recorded: dict[str, dict[str, np.ndarray]], path: Path) -> None:
    """Latency against the share of operations that are slower, both logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    columns = min(3, len(recorded))
    lines = -(-len(recorded) // columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(6 * columns, 3.6 * lines), squeeze=False
    )
    for axis in axes.flat[len(recorded) :]:
        axis.axis("off")
    names = dict.fromkeys(n for by_name in recorded.values() for n in by_name)
    names.pop("(control)")
    colours = {name: f"C{i}" for i, name in enumerate(names)} | {"(control)": "0.6"}
    for axis, (title, by_name) in zip(axes.flat, recorded.items(), strict=False):
        for name, out in by_name.items():
            slower = 1 - np.arange(len(out)) / len(out)
            line = ":" if name == "(control)" else "-"
            latencies = np.sort(np.maximum(out, 1))
            axis.loglog(slower, latencies, line, color=colours[name], label=name)
        axis.invert_xaxis()
        axis.set(title=title, xlabel="share of operations that are slower", ylabel="ns")
        axis.grid(alpha=0.3)
        axis.legend(fontsize="small")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--plot", type=Path, help="write a picture here")
    parser.add_argument("--only", default="", help="operations that contain this text")
    parser.add_argument("--n", type=int, default=40_000, help="operations of each")
    arguments = parser.parse_args()

    groups: dict[str, list[Case]] = defaultdict(list)
    for case in cases():
        if arguments.only.lower() in case.group.lower():
            groups[case.group].append(case)
    if not groups:
        sys.exit(f"no operation contains {arguments.only!r}")
    print(__doc__.split("Method. ", 1)[1])
    recorded: dict[str, dict[str, np.ndarray]] = {}
    report: dict[str, Any] = {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "machine": platform.platform(),
        "unit": "ns",
        "operations": {},
    }
    for title, group in groups.items():
        by_name = recorded[title] = record(group, arguments.n)
        print(
            f"{title}\n{'':14}" + "".join(f"{q:>12}" for q in QUANTILES) + "         n"
        )
        for name, out in by_name.items():
            figures = summary(out)
            report["operations"].setdefault(title, {})[name] = {
                **figures,
                "n": len(out),
            }
            cells = "".join(f"{value:12,.0f}" for value in figures.values())
            print(f"{name:14}{cells}{len(out):10,}", flush=True)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(report, indent=1))
        print(f"\nfigures: {arguments.json}")
    if arguments.plot:
        plot(recorded, arguments.plot)
        print(f"picture: {arguments.plot}")


if __name__ == "__main__":
    main()
