"""Draw the figures of bench/cache.py:  python bench/cache_plot.py FILE.json FILE.png"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["draw"]

# In the order of the legend; ours are filled marks, the others open ones.
STYLES = {
    "LRUCache": ("#0072b2", "o"),
    "Cache s3fifo": ("#56b4e9", "o"),
    "dict": ("#555555", "|"),
    "cachebox": ("#d55e00", "s"),
    "functools": ("#009e73", "D"),
    "lru-dict": ("#cc79a7", "^"),
    "cachetools": ("#b8860b", "v"),
    "moka-py": ("#8c564b", "P"),
    "theine": ("#7f3fbf", "X"),
    "(clock)": ("#aaaaaa", "|"),
}
OURS = ("LRUCache", "Cache s3fifo", "ctxpool")
ALIASES = {"ctxpool": "LRUCache", "plain call": "dict", "moka_py": "moka-py"}
GRID = "#d8d8d8"

Rows = list[dict[str, Any]]


def style(name: str) -> tuple[str, str]:
    return STYLES[ALIASES.get(name, name)]


def mark(axes: Any, x: float, y: float, name: str) -> None:
    colour, marker = style(name)
    axes.plot(
        [x],
        [y],
        marker=marker,
        color=colour,
        markerfacecolor=colour if name in OURS else "white",
        markersize=9 if marker == "|" else 6.5,
        markeredgewidth=1.6,
        linestyle="",
        zorder=4 if name in OURS else 3,
    )


def title(axes: Any, text: str) -> None:
    axes.set_title(text, loc="left", fontsize=11, weight="bold")


def times(ns: float, _: int = 0) -> str:
    """As short as can be: 500 ns, 20 us, 1 ms."""
    for unit, size in (("ns", 1), ("us", 1e3), ("ms", 1e6)):
        if ns < 999.5 * size:
            return f"{ns / size:g} {unit}"
    return f"{ns / 1e9:g} s"


def ratios(ratio: float, _: int = 0) -> str:
    return f"{ratio:g}x"


def logarithmic(axes: Any, axis: str, text: Callable[[float, int], str]) -> None:
    """Powers of ten, and 2 and 5 between where they are few, in plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    getattr(axes, f"set_{axis}scale")("log")
    low, high = getattr(axes, f"get_{axis}lim")()
    scale = getattr(axes, f"{axis}axis")
    subs = (1, 2, 5) if high < 300 * low else (1,)
    scale.set_major_locator(LogLocator(subs=subs, numticks=12))
    scale.set_major_formatter(FuncFormatter(text))
    scale.set_minor_formatter(NullFormatter())


def dots(
    axes: Any,
    lines: list[str],
    points: list[tuple[str, str, float]],
    text: Callable[[float, int], str],
) -> None:
    """A line of marks for each label; points are (label, contender, value)."""
    for name in STYLES | dict.fromkeys(ALIASES, None):
        for label, contender, value in points:
            if contender == name:
                mark(axes, value, len(lines) - 1 - lines.index(label), name)
    axes.set_yticks(range(len(lines)), lines[::-1])
    axes.set_ylim(-0.6, len(lines) - 0.4)
    logarithmic(axes, "x", text)
    axes.grid(axis="x", color=GRID, linewidth=0.6)
    axes.grid(axis="y", color=GRID, linewidth=0.6, linestyle=":")


def operations(axes: Any, rows: Rows, size: int, kind: str) -> None:
    points = [
        (row["operation"], row["name"], row["to_dict"])
        for row in rows
        if row["name"] in STYLES and row["name"] != "dict"
    ]
    dots(axes, list(dict.fromkeys(row["operation"] for row in rows)), points, ratios)
    axes.axvline(1, color=STYLES["dict"][0], linewidth=1.4, zorder=2)
    title(axes, f"Time of an operation to a dict's, {size:,} {kind} keys")


def memory(axes: Any, rows: Rows) -> None:
    rows = [row for row in rows if row["name"] in STYLES and "failed" not in row]
    rows.sort(key=lambda row: -row["churned"])
    for y, row in enumerate(rows):
        colour, _ = style(row["name"])
        axes.barh(y, row["churned"], height=0.62, color=colour, alpha=0.35)
        axes.barh(y, row["filled"], height=0.62, color=colour)
        axes.text(
            row["churned"],
            y,
            f" {row['filled']:.0f} / {row['churned']:.0f}",
            va="center",
            fontsize=9,
        )
    axes.set_yticks(range(len(rows)), [row["name"] for row in rows])
    axes.margins(x=0.18)
    count = f"{rows[0]['size']:,}" if rows else ""
    title(axes, f"Bytes an entry over key and value, {count}: filled / churned")


def calls(axes: Any, rows: Rows) -> None:
    names = ("ctxpool", "plain call", "functools", "cachebox", "cachetools", "moka_py")
    points = [
        (row["operation"], row["name"], row["median_ns"])
        for row in rows
        if row["name"] in (*names, "theine")
    ]
    dots(axes, list(dict.fromkeys(row["operation"] for row in rows)), points, times)
    title(axes, "A decorated function on a hit (grey: a plain call, nothing cached)")


def threads(axes: Any, rows: Rows) -> None:
    workload = rows[-1]["workload"]
    for name in STYLES:
        mine = [r for r in rows if (r["name"], r["workload"]) == (name, workload)]
        if mine:
            colour, marker = style(name)
            axes.plot(
                [row["threads"] for row in mine],
                [row["mops"] for row in mine],
                marker=marker,
                color=colour,
                markerfacecolor=colour if name in OURS else "white",
            )
    axes.set_xticks(sorted({row["threads"] for row in rows}))
    axes.set_ylim(0)
    axes.set_xlabel("threads")
    axes.set_ylabel("Mops/s, all together")
    axes.grid(axis="y", color=GRID, linewidth=0.6)
    title(axes, f"Threads on one cache, {workload} (cachetools behind a lock)")


def tail(axes: Any, rows: Rows, what: str) -> None:
    for row in rows:
        colour, _ = style(row["name"])
        shares = [10 ** (-0.5 * (i + 1)) for i in range(len(row["slowest_ns"]))]
        axes.plot(
            [*shares, 1 / row["n"]],
            [*row["slowest_ns"], row["again_ns"]],
            color=colour,
            linewidth=2.2 if row["name"] in OURS else 1.4,
            linestyle=":" if row["name"] == "(clock)" else "-",
        )
    axes.set_xscale("log")
    axes.invert_xaxis()
    logarithmic(axes, "y", times)
    axes.set_xlabel("share of operations that are slower")
    axes.grid(color=GRID, linewidth=0.6)
    title(axes, f"Latency, {what}")


def panels(sections: dict[str, Rows]) -> list[tuple[Any, ...]]:
    """What there is to draw: a function and its arguments, for each panel."""
    found: list[tuple[Any, ...]] = []
    for name, rows in sections.items():
        chapter, _, rest = name.partition(": ")
        if chapter == "table" and rest.endswith(" str keys"):
            found.append((operations, rows, rows[0]["size"], "str"))
        elif chapter == "memory" and rest.endswith(" str keys"):
            found.append((memory, rows))
        elif name == "calls: decorators on a hit":
            found.append((calls, rows))
        elif chapter == "threads":
            found.append((threads, rows))
    tails = [name for name in sections if name.startswith("tail")]
    for stream in ("churn", "expiry"):
        largest = [name for name in tails if stream in name][-1:]
        found += [(tail, sections[name], name[6:]) for name in largest]
    return found


def draw(report: dict[str, Any], path: Path) -> None:
    """Write the picture of a report, in the format that the suffix names.

    Raises
    ------
    ValueError
        The report holds nothing that is drawn.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    parts = panels(report["sections"])
    if not parts:
        raise ValueError("the report holds nothing that is drawn")
    columns = min(2, len(parts))
    lines = -(-len(parts) // columns)
    picture = Figure(figsize=(6.8 * columns, 1.2 + 3.3 * lines), layout="constrained")
    grid = picture.subplots(lines, columns, squeeze=False)
    for axes, (panel, *arguments) in zip(grid.flat, parts, strict=False):
        panel(axes, *arguments)
        axes.set_axisbelow(True)
        for edge in ("top", "right"):
            axes.spines[edge].set_visible(False)
    for axes in grid.flat[len(parts) :]:
        axes.set_axis_off()
    handles = [
        Line2D(
            [],
            [],
            marker=marker,
            color=colour,
            markerfacecolor=colour if name in OURS else "white",
            markeredgewidth=1.6,
            linestyle=":" if name == "(clock)" else "",
            label=name,
        )
        for name, (colour, marker) in STYLES.items()
    ]
    picture.legend(handles=handles, loc="outside lower center", ncols=5, frameon=False)
    quick = "  (a quick run: no figures to go by)" if report["quick"] else ""
    picture.suptitle(
        f"CPython {report['python'].split()[0]}, {report['machine']}{quick}",
        fontsize=10,
        ha="left",
        x=0.01,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("report", type=Path)
    parser.add_argument("picture", type=Path)
    arguments = parser.parse_args()
    draw(json.loads(arguments.report.read_text()), arguments.picture)


if __name__ == "__main__":
    main()
