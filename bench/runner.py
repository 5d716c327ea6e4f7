"""Runs the sections of a benchmark, prints and judges them, and keeps the figures.

A benchmark is a script with chapters, modules that give its sections:

    if __name__ == "__main__":
        run(__doc__, (a_chapter, another), absent(), draw)
"""

import argparse
import gc
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from operations import engine
from section import Section

__all__ = ["run"]


def progress(text: str) -> None:
    """What is measured now, on a terminal; elsewhere nothing."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K  {text}", end="", file=sys.stderr, flush=True)


def chosen(chapters: Sequence[Any], quick: bool, only: list[str]) -> Iterator[Section]:
    for chapter in chapters:
        for section in chapter.sections(quick, progress):
            if any(text.lower() in section.title.lower() for text in only):
                yield section


def machine(absent: dict[str, str]) -> dict[str, Any]:
    return {
        "python": sys.version.split(" (")[0],
        "machine": platform.platform(),
        "cpus": os.cpu_count(),
        "absent": absent,
    }


def measured(sections: Iterator[Section], report: dict[str, Any]) -> None:
    """Run the sections, print each when it is done, and add it to the report."""
    for section in sections:
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


def verdict(report: dict[str, Any]) -> str:
    """The promises that were missed, and how many were met."""
    missed = [bar for bar in report["bars"] if not bar["met"]]
    lines = [
        f"MISS  {bar['what']:66} {bar['value']:9,.2f} for "
        f"{'at least ' if bar['least'] else ''}{bar['limit']:<6g} "
        f"{bar['unit']:3} {bar['note']}"
        for bar in missed
    ]
    met = len(report["bars"]) - len(missed)
    return "\n".join([*lines, f"\n{met} of {len(report['bars'])} bars met"])


def run(
    doc: str,
    chapters: Sequence[Any],
    absent: dict[str, str],
    draw: Callable[[dict[str, Any], Path], None],
    arguments: list[str] | None = None,
) -> None:
    """Do what the command line asks for. *doc*: the script's own; what follows its
    first two paragraphs stands above the figures. *absent*: peers and why not."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
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
    print(doc.split("\n\n", 2)[2])
    for peer, reason in absent.items():
        print(f"{peer}: - ({reason})")
    report = {**machine(absent), "quick": options.quick, "sections": {}, "bars": []}
    measured(chosen(chapters, options.quick, options.only), report)
    if not report["sections"]:
        sys.exit(f"no section contains {' or '.join(map(repr, options.only))}")
    print("\n" + verdict(report))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(report, indent=1))
        print(f"figures: {options.json}")
    if options.plot:
        draw(report, options.plot)
        print(f"picture: {options.plot}")
