"""Draw the promises of bench/context.py: each measured figure against its limit."""

from pathlib import Path
from typing import Any

from cache_plot import GRID

__all__ = ["draw"]

_MET, _MISSED = "#0072b2", "#d55e00"


def figure(value: float) -> str:
    """Three digits, or all of a whole number."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def draw(report: dict[str, Any], path: Path) -> None:
    """Write the picture of a report, in the format that the suffix names: right of the
    line a promise is kept.

    Raises
    ------
    ValueError
        The report has no promises.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    bars = [bar for bar in report["bars"] if bar["value"] > 0 and bar["limit"] > 0]
    if not bars:
        raise ValueError("the report holds nothing that is drawn")
    picture = Figure(figsize=(11, 1.4 + 0.27 * len(bars)), layout="constrained")
    axes = picture.subplots()
    for y, bar in enumerate(reversed(bars)):
        ratio = bar["value"] / bar["limit"]
        better = ratio if bar["least"] else 1 / ratio
        colour = _MET if bar["met"] else _MISSED
        axes.plot([1, better], [y, y], color=colour, linewidth=1.5, alpha=0.5)
        axes.plot([better], [y], marker="o", color=colour, markersize=5)
        axes.annotate(
            f"{figure(bar['value'])} {bar['unit']}",
            (max(better, 1), y),
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
            fontsize=7,
        )
    names = [bar["what"] for bar in reversed(bars)]
    axes.set_yticks(range(len(bars)), names, fontsize=8)
    axes.set_ylim(-0.7, len(bars) - 0.3)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=20))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda times, _: f"{times:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.axvline(1, color="#222222", linewidth=1)
    axes.set_xlabel("times better than promised", fontsize=9)
    axes.grid(axis="x", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    for edge in ("top", "right", "left"):
        axes.spines[edge].set_visible(False)
    quick = "  (a quick run: no figures to go by)" if report["quick"] else ""
    picture.suptitle(
        f"Promises of the context memory.   CPython {report['python'].split()[0]}, "
        f"{report['machine']}{quick}",
        fontsize=10,
        ha="left",
        x=0.01,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.savefig(path, dpi=100)
