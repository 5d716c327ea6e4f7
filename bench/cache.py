"""The whole table of the cache: ours, a dict, and the peers, side by side in one run.

    python bench/cache.py [--quick] [--only TEXT...] [--json FILE] [--plot FILE]

Method. Contenders of one operation run in one process, in turns, the order rotating,
with the garbage collector off; a ratio is the median of the rounds' own ratios. The
empty loop is in every figure and stands beside them: nothing is subtracted. Memory
is measured in a process for each contender. Latencies are taken in C around each
single operation. A ! marks a promise that was missed; at the end stands each of them.

Bias. We chose the operations. Peers are called as their documentation shows; the
best peer of an operation is whichever was fastest at it, in this run.

A full run takes about ten minutes and 3 GB. --quick is for seeing that it works.
"""

import argparse
import gc
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cache_calls
import cache_memory
import cache_plot
import cache_table
import cache_tail
import cache_threads
from operations import engine
from peers import absent
from section import Section

CHAPTERS = (cache_table, cache_memory, cache_calls, cache_threads, cache_tail)


def progress(text: str) -> None:
    """What is measured now, on a terminal; elsewhere nothing."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K  {text}", end="", file=sys.stderr, flush=True)


def chosen(quick: bool, only: list[str]) -> Iterator[Section]:
    for chapter in CHAPTERS:
        for section in chapter.sections(quick, progress):
            if any(text.lower() in section.title.lower() for text in only):
                yield section


def machine() -> dict[str, Any]:
    return {
        "python": sys.version.split(" (")[0],
        "machine": platform.platform(),
        "cpus": os.cpu_count(),
        "absent": absent(),
    }


def measured(quick: bool, only: list[str]) -> dict[str, Any]:
    """Run the sections, print each when it is done, and give back the report."""
    report: dict[str, Any] = {**machine(), "quick": quick, "sections": {}, "bars": []}
    for section in chosen(quick, only):
        start = time.monotonic()
        progress(section.title)
        findings = section.run()
        gc.collect()
        progress("")
        print(f"\n{section.title}  ({time.monotonic() - start:.0f} s)")
        print(findings.text, flush=True)
        report["sections"][section.title] = findings.rows
        report["bars"] += [
            {"section": section.title, "met": bar.met, **asdict(bar)}
            for bar in findings.bars
        ]
        for bar in findings.bars:
            if not section.title.startswith("table"):  # the table has its marks
                print(f"  {bar}")
    return report


def verdict(report: dict[str, Any]) -> str:
    """The promises that were missed, and how many were met."""
    missed = [bar for bar in report["bars"] if not bar["met"]]
    lines = [
        f"MISS  {bar['what']:66} {bar['value']:9,.2f} for {bar['limit']:<6g} "
        f"{bar['unit']:3} {bar['note']}"
        for bar in missed
    ]
    met = len(report["bars"]) - len(missed)
    return "\n".join([*lines, f"\n{met} of {len(report['bars'])} bars met"])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="seconds: no figures")
    parser.add_argument(
        "--only",
        nargs="+",
        default=[""],
        metavar="TEXT",
        help="the sections whose titles contain one of these",
    )
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--plot", type=Path, help="draw them: .png or .svg")
    options = parser.parse_args(arguments)
    try:
        engine("native")
    except ModuleNotFoundError:
        sys.exit("the figures are those of the native engine, and it was not built")
    print(__doc__.split("\n\n", 2)[2])
    for peer, reason in absent().items():
        print(f"{peer}: - ({reason})")
    report = measured(options.quick, options.only)
    if not report["sections"]:
        sys.exit(f"no section contains {' or '.join(map(repr, options.only))}")
    print("\n" + verdict(report))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=1))
        print(f"figures: {options.json}")
    if options.plot:
        cache_plot.draw(report, options.plot)
        print(f"picture: {options.plot}")


if __name__ == "__main__":
    main()
