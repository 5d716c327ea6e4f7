"""Draw the figures of bench/pools.py: medians as dots, with a line to p99.9 and a tick
at the maximum where latencies were taken."""

from pathlib import Path
from typing import Any

from cache_plot import GRID, logarithmic, times, title

__all__ = ["draw"]

OURS, THEIRS = "#0072b2", "#d55e00"
NAMES = ("ours", "MemoryPool", "BlockPool", "SharedBlockPool", "pooled")
COLUMNS = 3

Rows = list[dict[str, Any]]


def ns(row: dict[str, Any], what: str) -> float | None:
    """A time of a row in ns, in whichever unit it stands there."""
    for unit, size in (("ns", 1.0), ("us", 1e3), ("ms", 1e6)):
        if f"{what}_{unit}" in row:
            return float(row[f"{what}_{unit}"]) * size
    return None


def is_ours(name: str) -> bool:
    return name.startswith(("ctxpool", "our")) or name.split(": ")[-1] in NAMES


def text(row: dict[str, Any], several: bool) -> str:
    size = row.get("size", 0)
    if not several or not size:
        return str(row["name"])
    return (
        f"{size >> 20} MiB  {row['name']}"
        if size >> 20
        else (f"{size >> 10} KiB  {row['name']}")
    )


def latencies(axes: Any, rows: Rows, what: str) -> None:
    rows = [row for row in rows if not row["name"].startswith("(")]
    several = len({row.get("size") for row in rows}) > 1
    for y, row in enumerate(rows[::-1]):
        colour = OURS if is_ours(row["name"]) else THEIRS
        middle = next(
            (t for key in ("cpu", "p50", "median") if (t := ns(row, key))), None
        )
        tail, top = ns(row, "p99.9"), ns(row, "max")
        if middle is None:
            continue
        if "cpu_us" not in row and tail and top:
            axes.plot([middle, tail], [y, y], color=colour, linewidth=2.2, alpha=0.5)
            axes.plot([top], [y], marker="|", color=colour, markersize=7)
        axes.plot([middle], [y], marker="o", color=colour, markersize=6)
    axes.set_yticks(range(len(rows)), [text(row, several) for row in rows[::-1]])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    logarithmic(axes, "x", times)
    axes.grid(axis="x", color=GRID, linewidth=0.6)
    title(axes, what)


def both(rows: Rows) -> Rows:
    """Rows of pooled beside unpooled, as rows of one each."""
    return [
        {
            "name": f"{row['name']}: {side}",
            "p50_ns": row[f"{side}_p50_ns"],
            "p99.9_ns": row[f"{side}_p99.9_ns"],
            "max_ns": row[f"{side}_p99.9_ns"],
        }
        for row in rows
        for side in ("unpooled", "pooled")
    ]


PANELS = {
    "objects: with": "Object pools: `with`, a trivial object",
    "objects: async with": "`async with`, a trivial object",
    "objects: pooled and unpooled": "Objects made anew, or from a pool",
    "sized: mixed, 1 KiB": "Sizes from 1 KiB to 8 MiB, 4 alive",
    "sized: framed, 32 MiB": "Frames of 32 MiB received, 4 kept",
    "touch: 64 KiB, 4 live, main": "64 KiB and its first touch, 4 alive",
    "touch: 1,024 KiB, 4 live, main": "1 MiB and its first touch, 4 alive",
    "touch: 65,536 KiB, 1 live, main": "64 MiB and its first touch",
    "shared: take": "Shared memory: taken, touched, given back",
    "echo: 1,024 bytes, 16": "Server's CPU for an echo of 1 KiB, 16 at once",
    "pickle: 1 arrays": "32 MiB of arrays unpickled, 4 kept",
    "file: blocks of 1 MiB from the page cache, 0": "A block of 1 MiB of a file",
}


def draw(report: dict[str, Any], path: Path) -> None:
    """Write the picture of a report, in the format that the suffix names.

    Raises
    ------
    ValueError
        The report holds nothing that is drawn.
    """
    from matplotlib.figure import Figure

    found = [
        (rows, what)
        for start, what in PANELS.items()
        for name, rows in report["sections"].items()
        if name.startswith(start)
    ]
    if not found:
        raise ValueError("the report holds nothing that is drawn")
    columns = min(COLUMNS, len(found))
    lines = -(-len(found) // columns)
    picture = Figure(figsize=(6.2 * columns, 0.9 + 3.0 * lines), layout="constrained")
    grid = picture.subplots(lines, columns, squeeze=False)
    for axes, (rows, what) in zip(grid.flat, found, strict=False):
        paired = "pooled_p50_ns" in rows[0]
        latencies(axes, both(rows) if paired else rows, what)
        axes.set_axisbelow(True)
        for edge in ("top", "right"):
            axes.spines[edge].set_visible(False)
    for axes in grid.flat[len(found) :]:
        axes.set_axis_off()
    quick = "  (a quick run: no figures to go by)" if report["quick"] else ""
    picture.suptitle(
        "Dot: median; line: to p99.9; tick: the slowest.   "
        f"CPython {report['python'].split()[0]}, {report['machine']}{quick}",
        fontsize=10,
        ha="left",
        x=0.01,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.savefig(path, dpi=100)
