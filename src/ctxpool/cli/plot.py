"""Draw the latency distributions of a report.

matplotlib comes with the extra ``ctxpool[plot]`` and is imported here only, when a
plot is asked for.
"""

import importlib
import io
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import report
from .errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["SUFFIXES", "check", "draw", "figure"]

SUFFIXES = (".png", ".svg", ".html")

_COLOURS = {"pooled": "#0072b2", "unpooled": "#d55e00"}
_INK, _GRID = "#222222", "#d8d8d8"
_MARKS = {"p50_ns": ("o", "p50"), "p99_ns": ("D", "p99"), "p99.9_ns": ("s", "p99.9")}
_MARKS["max_ns"] = ("|", "max")


def check(path: str) -> None:
    """Find out whether :func:`draw` can work.

    Raises
    ------
    UsageError
        The suffix is none of :data:`SUFFIXES`, or matplotlib is missing.
    """
    if Path(path).suffix.lower() not in SUFFIXES:
        raise UsageError(f"--plot {path}: the name must end in {', '.join(SUFFIXES)}")
    try:
        importlib.import_module("matplotlib.figure")
    except ImportError as error:
        raise UsageError(
            f'--plot needs matplotlib: pip install "ctxpool[plot]" ({error})'
        ) from error


def draw(result: dict[str, Any], path: str) -> None:
    """Write the plot of a report to *path*, in the format its suffix names."""
    suffix = Path(path).suffix.lower()
    if suffix == ".html":
        Path(path).write_text(_page(result), encoding="utf-8")
    else:
        figure(result).savefig(path, format=suffix[1:], dpi=130)


def figure(result: dict[str, Any]) -> "Figure":
    """One panel per operation, both sides above each other, on a log time axis."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    rows = [row for row in result["operations"] if row["pooled"]["count"]]
    columns = 2
    lines = -(-len(rows) // columns)
    room = ConstrainedLayoutEngine(w_pad=0.15)  # for the sides' names
    picture = Figure(figsize=(13, 1.1 + 1.75 * lines), layout=room)
    grid = picture.subplots(lines, columns, squeeze=False)
    for axes, row in zip(grid.flat, rows, strict=False):
        _panel(axes, row)
    for axes in grid.flat[len(rows) :]:
        axes.set_axis_off()
    title = (
        "Latency, pooled and unpooled: the same work in the same run "
        "(heights: square root of the count)"
    )
    head = report.header(result)
    picture.suptitle(
        f"{title}\n{head[0]}; {head[2]}", fontsize=11, color=_INK, ha="left", x=0.01
    )
    picture.legend(
        handles=_legend(), loc="outside lower center", ncols=6, frameon=False
    )
    return picture


def _legend() -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    sides = [Patch(color=c, label=name, alpha=0.55) for name, c in _COLOURS.items()]
    marks = [
        Line2D([], [], marker=m, label=text, color=_INK, linestyle="", markersize=5)
        for m, text in _MARKS.values()
    ]
    return [*sides, *marks]


def _panel(axes: "Axes", row: dict[str, Any]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for side, base in (("pooled", 1.0), ("unpooled", 0.0)):
        _ridge(axes, row[side], base, _COLOURS[side])
    same = " (same code)" if row["same_code"] else ""
    ratio = row["ratio"]["p50"]
    axes.set_title(
        f"{row['label']}{same}", loc="left", fontsize=10, color=_INK, weight="bold"
    )
    axes.set_title(
        f"pooled / unpooled at p50: {report.format_ratio(ratio)}",
        loc="right",
        fontsize=9,
        color=_INK,
    )
    axes.set_xscale("log")
    axes.set_ylim(-0.25, 2.0)
    axes.set_yticks([1.3, 0.3], ["pooled", "unpooled"], fontsize=9)
    low, high = axes.get_xlim()
    # Less than two decades hold too few powers of ten to read by.
    subs = (1, 2, 5) if high < 100 * low else (1,)
    axes.xaxis.set_major_locator(LogLocator(subs=subs, numticks=12))
    axes.xaxis.set_major_formatter(FuncFormatter(_tick))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(axis="x", color=_GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    for edge in ("top", "right", "left"):
        axes.spines[edge].set_visible(False)


def _tick(ns: float, _: int) -> str:
    """A tick's time, without the zeros of a figure."""
    for unit, size in (("ns", 1), ("us", 1e3), ("ms", 1e6)):
        if ns < 999.5 * size:
            return f"{ns / size:g} {unit}"
    return f"{ns / 1e9:g} s"


def _ridge(axes: "Axes", side: dict[str, Any], base: float, colour: str) -> None:
    """A side's histogram, its highest bin 0.75 tall, and its percentiles below."""
    edges, counts = side["histogram"]["edges_ns"], side["histogram"]["counts"]
    # The square root lets the thin tail be seen beside the bulk.
    tallest = max(counts) ** 0.5
    heights = [base + 0.75 * count**0.5 / tallest for count in counts]
    axes.stairs(heights, edges, baseline=base, fill=True, color=colour, alpha=0.45)
    axes.stairs(heights, edges, baseline=base, color=colour, linewidth=1.0)
    for name, (marker, _) in _MARKS.items():
        axes.plot(
            [side[name]],
            [base - 0.1],
            marker=marker,
            color=colour,
            markersize=5,
            linestyle="",
            clip_on=False,
            zorder=3,
        )


_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 70em;
       margin: 2em auto; padding: 0 1em; }
svg { width: 100%; height: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .15em .8em; text-align: right; }
th:nth-child(1), td:nth-child(1), th:nth-child(3), td:nth-child(3) { text-align: left; }
tr.ratio td { border-bottom: 1px solid #ccc; font-weight: 600; }
pre { overflow-x: auto; }
"""


def _page(result: dict[str, Any]) -> str:
    """A page that needs nothing else: figure, table, method."""
    picture = io.StringIO()
    figure(result).savefig(picture, format="svg")
    svg = picture.getvalue()
    svg = svg[svg.index("<svg") :]
    head = "".join(
        f"<th>{escape(name)}</th>"
        for name in ("operation", "n", "side", "p50", "p99", "p99.9", "max")
    )
    body = "\n".join(
        f'<tr class="{cells[2]}">'
        + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        + "</tr>"
        for cells in report.rows(result)
    )
    method = "\n".join(f"<li>{escape(line)}</li>" for line in result["method"])
    about = "<br>\n".join(escape(line) for line in report.header(result))
    verdict = escape("\n".join(report.verdict(result)))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>ctxpool run</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>ctxpool run</h1>
<p>{about}</p>
{svg}
<h2>Figures</h2>
<table>
<thead><tr>{head}</tr></thead>
<tbody>
{body}
</tbody>
</table>
<pre>{verdict}</pre>
<h2>Method</h2>
<ul>
{method}
</ul>
</body>
</html>
"""
