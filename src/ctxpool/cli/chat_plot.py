"""Draw a replayed conversation: what is sent, what is remembered, how long it takes."""

import io
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import chat_report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw", "figure"]

_COLOURS = {
    "everything": "#777777",
    "truncation": "#d55e00",
    "window": "#e69f00",
    "overflow": "#009e73",
    "hierarchical": "#0072b2",
}
_PARTS = {"kept": "#0072b2", "shortened": "#56b4e9", "recalled": "#e69f00"}
_GRID = "#d8d8d8"


def draw(result: dict[str, Any], path: Path) -> None:
    """Write the plot of a report to *path*, in the format its suffix names."""
    suffix = path.suffix.lower()
    if suffix != ".html":
        figure(result).savefig(path, format=suffix[1:], dpi=130)
        return
    picture = io.StringIO()
    figure(result).savefig(picture, format="svg")
    svg = picture.getvalue()
    path.write_text(
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        "<title>ctxpool chat</title></head>\n"
        f"<body>\n{svg[svg.index('<svg') :]}\n"
        f"<pre>{escape(chat_report.summary(result))}</pre>\n</body></html>\n",
        encoding="utf-8",
    )


def figure(result: dict[str, Any]) -> "Figure":
    """Four panels over the turns: tokens sent, messages that left, facts, latency."""
    from matplotlib.figure import Figure

    memories = result["memories"]
    shown = list(memories)[-1]
    picture = Figure(figsize=(13, 8.6), layout="constrained")
    (sent, facts), (left, latency) = picture.subplots(2, 2)
    _sent(sent, memories[shown], shown, result["budget"])
    _left(left, memories[shown], shown)
    _facts(facts, memories)
    _latency(latency, memories)
    for axes in (sent, facts, left, latency):
        axes.set_xlabel("ms" if axes is latency else "turn", fontsize=9)
        axes.grid(axis="y", color=_GRID, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=8)
        for edge in ("top", "right"):
            axes.spines[edge].set_visible(False)
    picture.suptitle(
        f"A conversation of {result['messages']:,} messages and {result['tokens']:,} "
        f"tokens, in {result['budget']:,} tokens",
        fontsize=12,
        ha="left",
        x=0.01,
    )
    return picture


def _title(axes: "Axes", text: str) -> None:
    axes.set_title(text, loc="left", fontsize=10, weight="bold")


def _sent(axes: "Axes", memory: dict[str, Any], name: str, budget: int) -> None:
    rows = [row for row in memory["turns"] if row["turn"]]
    turns = [row["turn"] for row in rows]
    axes.stackplot(
        turns,
        *([row[part] for row in rows] for part in _PARTS),
        colors=list(_PARTS.values()),
        labels=list(_PARTS),
        step="mid",
        alpha=0.85,
    )
    axes.axhline(budget, color="#222222", linewidth=1, linestyle="--", label="budget")
    axes.set_ylim(0, budget * 1.3)
    axes.yaxis.set_major_formatter(lambda tokens, _: f"{tokens:,.0f}")
    _title(axes, f"Tokens sent in each turn: {name}")
    axes.legend(loc="upper left", ncols=4, fontsize=8, frameon=False)


def _left(axes: "Axes", memory: dict[str, Any], name: str) -> None:
    """Messages, summed up over the turns."""
    rows = memory["turns"]
    turns = [row["turn"] for row in rows]
    series = {
        "seen": ("messages", "#222222"),
        "spilled into a store": ("spilled", "#e69f00"),
        "compressed": ("compress", "#56b4e9"),
        "summarised": ("summarise", "#009e73"),
        "evicted for good": ("evicted", "#d55e00"),
    }
    for label, (key, colour) in series.items():
        total, sums = 0, []
        for row in rows:
            total += row[key]
            sums.append(total)
        if total:
            axes.plot(turns, sums, color=colour, label=label, drawstyle="steps-post")
    _title(axes, f"Messages so far: {name}")
    axes.set_ylim(bottom=0)
    axes.legend(loc="upper left", fontsize=8, frameon=False)


def _facts(axes: "Axes", memories: dict[str, Any]) -> None:
    """Answered of those asked so far."""
    for name, memory in memories.items():
        turns, shares, asked, answered = [], [], 0, 0
        for row in memory["turns"]:
            asked += row["asked"]
            answered += row["answered"]
            if asked:
                turns.append(row["turn"])
                shares.append(100 * answered / asked)
        if asked:
            axes.plot(
                turns,
                shares,
                color=_COLOURS[name],
                linestyle="--" if name == "everything" else "-",
                drawstyle="steps-post",
                label=f"{name} {answered} of {asked}, "
                f"{memory['tokens']['mean']:,} tokens",
            )
    _title(axes, "Questions answerable so far, %")
    axes.set_ylim(0, 104)
    if axes.lines:
        axes.legend(loc="lower left", fontsize=8, frameon=False)
    else:
        axes.text(0.5, 0.5, "no questions", transform=axes.transAxes, ha="center")


def _latency(axes: "Axes", memories: dict[str, Any]) -> None:
    for name, memory in memories.items():
        if name == "everything":
            continue  # it appends to a list
        times = sorted(row["ns"] / 1e6 for row in memory["turns"])
        shares = [100 * (n + 1) / len(times) for n in range(len(times))]
        axes.plot(times, shares, color=_COLOURS[name], label=name)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda ms, _: f"{ms:g}")
    axes.set_ylim(0, 104)
    _title(axes, "Latency: turns that took at most so long, %")
    axes.legend(loc="lower right", fontsize=8, frameon=False)
