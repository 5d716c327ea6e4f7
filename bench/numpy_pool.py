"""NumPy under numpy_pool, against glibc's malloc and those one can preload.

    python bench/numpy_pool.py [--quick] [--only TEXT] [--json FILE] [--plot FILE]

Method. A step is one run of a workload (numpy_cases.py): its inputs too are made under
the allocator that is measured. NumPy's own handler over glibc, and the pool, take turns
in one process ("glibc", "pool"). mimalloc, jemalloc and tcmalloc serve a process as a
whole (LD_PRELOAD), so each has one of its own, and so has the pool once more ("pool,
alone") to compare with them; the processes run in turns, the order rotating. A ratio is
the median of the rounds' own ratios of medians; p99 and the page faults (getrusage,
minor) are those of all steps together. A ! marks a promise that was missed.

Bias. We chose the workloads; the last one is there because the pool loses it. The
others' defaults are as Debian ships them; tcmalloc and mimalloc ask for no huge pages
here, and the pool does where they are had ("madvise").
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass
from glob import glob
from pathlib import Path
from typing import Any

import numpy as np
from bar import Bar
from numpy_cases import WORKLOADS

STEPS = Path(__file__).with_name("numpy_steps.py")
LIBRARIES = {
    "tcmalloc": "libtcmalloc_minimal.so.*",
    "mimalloc": "libmimalloc.so.*",
    "jemalloc": "libjemalloc.so.*",
}
ALONE = "pool, alone"

Found = dict[str, dict[str, dict[str, list[Any]]]]  # workload, allocator, figure


@dataclass(frozen=True)
class Process:
    """What runs in one process: sides of numpy_steps.py under our names for them."""

    sides: dict[str, str]
    preload: str | None = None


def library(pattern: str) -> str | None:
    for folder in ("/usr/lib/*-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib"):
        for path in sorted(glob(f"{folder}/{pattern}")):
            return path
    return None


def processes() -> list[Process]:
    found = [Process({"plain": "glibc", "pool": "pool"}), Process({"pool": ALONE})]
    for name, pattern in LIBRARIES.items():
        path = library(pattern)
        if path is None:
            print(f"{name} is not installed ({pattern}): left out")
        else:
            found.append(Process({"plain": name}, path))
    return found


def measure(rounds: int, turns: int, only: str) -> Found:
    contenders, found = processes(), {}
    for i in range(rounds):
        first = i % len(contenders)
        for process in contenders[first:] + contenders[:first]:
            env = dict(os.environ)
            if process.preload:
                env["LD_PRELOAD"] = process.preload
            command = [sys.executable, str(STEPS), ",".join(process.sides), str(turns)]
            done = subprocess.run(
                [*command, only], env=env, check=True, stdout=subprocess.PIPE
            )
            for workload, by_side in json.loads(done.stdout).items():
                for side, figures in by_side.items():
                    empty: dict[str, list[Any]] = {"rounds": [], "faults": []}
                    entry = found.setdefault(workload, {}).setdefault(
                        process.sides[side], empty
                    )
                    entry["rounds"].append(figures["ns"])
                    entry["faults"].append(figures["faults"])
    return found


def summary(entry: dict[str, list[Any]]) -> dict[str, float]:
    steps = np.concatenate(entry["rounds"]) / 1e3
    p50, p99 = np.percentile(steps, [50, 99]).tolist()
    faults = sum(entry["faults"]) / len(steps)
    return {"p50_us": p50, "p99_us": p99, "faults": faults, "steps": len(steps)}


def ratio(ours: dict[str, list[Any]], theirs: dict[str, list[Any]]) -> float:
    pairs = zip(ours["rounds"], theirs["rounds"], strict=True)
    return statistics.median(float(np.median(a) / np.median(b)) for a, b in pairs)


def bars(name: str, by_name: dict[str, Any]) -> list[Bar]:
    workload = next(w for w in WORKLOADS if w.name == name)
    figures = {k: summary(entry) for k, entry in by_name.items()}
    ours = by_name["pool"]
    faster = 1 / ratio(ours, by_name["glibc"])
    chain = name.startswith("chain")
    found = []
    if workload.gain:
        what = f"{name}: glibc to the pool"
        if chain and "kept" not in name:
            found.append(Bar(what, faster, 1.4, least=True))
        faults = figures["pool"]["faults"]
        found.append(Bar(f"{name}: page faults per step", faults, 0, ""))
        if "tcmalloc" in by_name and "kept" not in name:
            value = ratio(by_name[ALONE], by_name["tcmalloc"])
            found.append(Bar(f"{name}: the pool to tcmalloc", value, 1.02))
        if "kept" in name:
            for other, mine in (("glibc", "pool"), ("tcmalloc", ALONE)):
                if other in figures:
                    value = figures[mine]["p99_us"] / figures[other]["p99_us"]
                    found.append(Bar(f"{name}: p99 to {other}'s", value, 1))
    elif name != WORKLOADS[-1].name:
        found.append(Bar(f"{name}: the pool to NumPy's own", 1 / faster, 1.02))
    return found


def draw(report: dict[str, Any], path: Path) -> None:
    """Each workload's p50 (bar) and p99 (tick) as times of glibc's p50."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    workloads = list(report)
    names = list(dict.fromkeys(n for by_name in report.values() for n in by_name))
    figure, axis = plt.subplots(figsize=(11, 0.75 * len(workloads) + 1.4))
    height = 0.84 / len(names)
    colours = {"pool": "#0072b2", ALONE: "#56b4e9", "glibc": "#555555"}
    for i, name in enumerate(names):
        at = [k + (i - len(names) / 2 + 0.5) * height for k in range(len(workloads))]
        base = [report[w]["glibc"]["p50_us"] for w in workloads]
        p50, p99 = (
            [report[w][name][q] / b for w, b in zip(workloads, base, strict=True)]
            for q in ("p50_us", "p99_us")
        )
        colour = colours.get(name, f"C{i}")
        axis.barh(at, p50, height, label=name, color=colour)
        axis.plot(p99, at, "|", color=colour, markersize=5)
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}x")
    axis.axvline(1, color="0.6", linewidth=0.8)
    axis.set_yticks(range(len(workloads)), workloads)
    axis.invert_yaxis()
    axis.set_xlabel("time of a step: p50 (bar) and p99 (tick), times glibc's p50")
    axis.legend(fontsize="small", ncols=len(names), loc="lower center", frameon=False,
                bbox_to_anchor=(0.5, 1))  # fmt: skip
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="to see that it works")
    parser.add_argument("--only", default="", help="workloads that contain this text")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--plot", type=Path, help="write a picture here")
    arguments = parser.parse_args()
    if not any(arguments.only in workload.name for workload in WORKLOADS):
        sys.exit(f"no workload contains {arguments.only!r}")
    print(__doc__.split("\n\n", 2)[2])
    rounds, turns = (2, 2) if arguments.quick else (7, 6)
    found = measure(rounds, turns, arguments.only)
    table: dict[str, Any] = {}
    verdicts: list[Bar] = []
    print(f"{'us per step':28}{'p50':>12}{'p99':>12}{'faults':>10}{'to glibc':>10}")
    for workload, by_name in found.items():
        print(workload)
        table[workload] = {name: summary(entry) for name, entry in by_name.items()}
        for name, row in table[workload].items():
            row["to_glibc"] = ratio(by_name[name], by_name["glibc"])
            print(
                f"    {name:24}{row['p50_us']:12,.1f}{row['p99_us']:12,.1f}"
                f"{row['faults']:10,.1f}{row['to_glibc']:9.2f}x"
            )
        verdicts += bars(workload, by_name)
    print()
    for bar in verdicts:
        print(f"  {' ' if bar.met else '!'} {bar}")
    print(f"\n{sum(bar.met for bar in verdicts)} of {len(verdicts)} promises kept")
    if arguments.json:
        report = {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "machine": platform.platform(),
            "workloads": table,
            "bars": [{"met": bar.met, **asdict(bar)} for bar in verdicts],
        }
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(report, indent=1))
        print(f"figures: {arguments.json}")
    if arguments.plot:
        draw(table, arguments.plot)
        print(f"picture: {arguments.plot}")


if __name__ == "__main__":
    main()
