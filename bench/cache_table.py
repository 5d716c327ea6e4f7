"""ns per operation of every contender, ratios to a dict and to the best peer.

The contenders of a table keep their caches from one operation to the next; an
operation is measured for all of them in turns, the order rotating. The empty loop
(the row of that name) is contained in every figure.
"""

import statistics
from collections.abc import Callable, Iterator
from typing import Any

from bar import Bar
from cache_cases import KINDS, OPERATIONS, Ring, cases
from operations import control, measure, ratio
from peers import Contender, contenders
from section import Findings, Section

__all__ = ["bars", "sections", "table"]

SIZES = (1_000, 100_000, 1_000_000)
ROUNDS = {1_000: 21, 100_000: 5, 1_000_000: 5}
LONGEST_NS = {1_000: 4e6, 100_000: 3e7, 1_000_000: 5e7}
# On a hit they set a bit or add to a counter, and move nothing.
UNMOVED = ("Cache sieve", "Cache s3fifo")


def table(
    size: int,
    kind: str,
    taking_part: list[Contender],
    quick: bool = False,
    progress: Callable[[str], None] = lambda text: None,
) -> list[dict[str, Any]]:
    """A row for each operation and contender."""
    ring = Ring(size, kind)
    caches: dict[str, Any] = {}

    def filled(contender: Contender, ring: Ring, anew: bool) -> Any:
        if anew or contender.name not in caches:
            caches[contender.name] = contender.filled(ring.own)
        return caches[contender.name]

    sides = {contender.name: contender.side for contender in taking_part}
    rows = []
    groups = cases(ring, taking_part, filled=filled)
    for operation, group in zip(OPERATIONS, groups, strict=True):
        progress(operation)
        figures = measure(
            [*group, control(group[-1])],
            rounds=2 if quick else ROUNDS[size],
            subtract=False,
            longest=2e5 if quick else LONGEST_NS[size],
        )
        medians = {name: statistics.median(many) for name, many in figures.items()}
        best = min(
            (name for name in medians if sides.get(name) == "peer"),
            key=medians.__getitem__,
        )
        for name, many in figures.items():
            rows.append(
                {
                    "size": size,
                    "keys": kind,
                    "operation": operation,
                    "name": name,
                    "side": sides.get(name, "control"),
                    "median_ns": medians[name],
                    "min_ns": min(many),
                    "to_dict": ratio(figures, name, "dict"),
                    "best_peer": best,
                    "to_best_peer": ratio(figures, name, best),
                }
            )
    return rows


def limit_to_dict(row: dict[str, Any]) -> float | None:
    """The promised ratio to a dict; None where nothing is promised. What is said of
    str keys is asked of bytes and tuples too."""
    if row["operation"] == "zipf read-through":
        return None
    if row["name"] in UNMOVED:
        return 1.0
    if row["size"] == 1_000:
        return 0.6 if row["operation"] == "insert + evict" else 1.15
    if row["size"] == 100_000:
        return 1.4
    return 1.2 if "int" in row["keys"] else 1.0


def bars(rows: list[dict[str, Any]]) -> Iterator[Bar]:
    for row in rows:
        if row["name"] not in ("LRUCache", *UNMOVED):
            continue
        limit = limit_to_dict(row)
        what = f"{row['name']}: {row['operation']}, {row['size']:,} {row['keys']}"
        note = f"{row['median_ns']:,.1f} ns"
        if limit is not None:
            yield Bar(f"{what}, to dict", row["to_dict"], limit, note=note)
        note += f", {row['best_peer']}"
        yield Bar(f"{what}, to the best peer", row["to_best_peer"], 1.0, note=note)


def printed(rows: list[dict[str, Any]]) -> str:
    """A line for each contender, a column for each operation."""
    cells = {(row["name"], row["operation"]): row for row in rows}
    missed = {bar.what for bar in bars(rows) if not bar.met}
    lines = [" " * 14 + "".join(f"{operation:>26}" for operation in OPERATIONS)]
    order = ("floor", "peer", "ours", "control")
    ordered = sorted(rows, key=lambda row: order.index(row["side"]))
    for name in dict.fromkeys(row["name"] for row in ordered):
        line = f"{name:14}"
        for operation in OPERATIONS:
            row = cells.get((name, operation))
            line += f"{cell(row, missed) if row else '-':>26}"
        lines.append(line)
    return "\n".join(lines)


def cell(row: dict[str, Any], missed: set[str]) -> str:
    """Median/least ns, then the ratios; behind one that misses its bar a !"""
    what = f"{row['name']}: {row['operation']}, {row['size']:,} {row['keys']}"
    text = f"{row['median_ns']:,.0f}/{row['min_ns']:,.0f}"
    for value, of in ((row["to_dict"], "dict"), (row["to_best_peer"], "the best peer")):
        text += f" {value:.2f}" + ("!" if f"{what}, to {of}" in missed else " ")
    return text


def sections(quick: bool, progress: Callable[[str], None]) -> Iterator[Section]:
    taking_part = contenders()
    for size in SIZES[:1] if quick else SIZES:
        for kind in KINDS:

            def run(size: int = size, kind: str = kind) -> Findings:
                rows = table(size, kind, taking_part, quick, progress)
                return Findings(printed(rows), rows, list(bars(rows)))

            yield Section(f"table: {size:,} {kind} keys", run)
