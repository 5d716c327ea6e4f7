"""``ctxpool bench hitratio``: hit ratios of the policies on access traces."""

import heapq
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import Cache, __version__, backend
from . import output, plot, traces
from .errors import UsageError
from .progress import Progress

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["POLICIES", "hit_ratio", "optimum", "run"]

POLICIES = (
    "lru",
    "adaptive",
    "tinylfu",
    "s3fifo",
    "sieve",
    "fifo",
    "lfu",
    "mru",
    "rr",
)


def hit_ratio(keys: Sequence[int], size: int, policy: str) -> float:
    """Percent of *keys* that a cache of *size* entries has when they are asked for."""
    cache: Cache[int, bool] = Cache(size, policy)
    get, put = cache.get, cache.__setitem__
    for key in keys:
        if get(key) is None:
            put(key, True)
    return 100 * cache.stats().hits / len(keys)


def optimum(keys: Sequence[int], size: int) -> float:
    """The same of the best policy there can be, which knows the future.

    It drops what is wanted again latest: Belady, *A study of replacement algorithms
    for a virtual-storage computer*, IBM Systems Journal 5 (1966). O(n log n).
    """
    never = len(keys)
    following = [never] * never
    last: dict[int, int] = {}
    for at in range(never - 1, -1, -1):
        following[at] = last.get(keys[at], never)
        last[keys[at]] = at
    held: dict[int, int] = {}  # key: when it is wanted next
    latest: list[tuple[int, int]] = []  # (-when, key), some out of date
    hits = 0
    for at, key in enumerate(keys):
        if key in held:
            hits += 1
        elif len(held) >= size:
            while True:
                when, victim = heapq.heappop(latest)
                if held.get(victim) == -when:
                    del held[victim]
                    break
        held[key] = following[at]
        heapq.heappush(latest, (-following[at], key))
    return 100 * hits / len(keys)


def run(
    folder: str | None,
    sizes: Sequence[int],
    json_to: str | None,
    plot_to: str | None,
    quiet: bool,
) -> int:
    """Measure, and write what was asked for. The exit code."""
    if plot_to is not None:
        plot.check(plot_to)
    found = traces.made() if folder is None else traces.find(folder)
    progress = Progress(1, None if quiet else sys.stderr)
    try:
        points = _measure(found, sizes, progress)
    finally:
        progress.close()
    if not points:
        raise UsageError("no trace has more keys than the smallest of the sizes")
    result = {
        "version": __version__,
        "backend": backend,
        "traces": folder,
        "points": points,
        "against_lru": _against_lru(points),
    }
    if plot_to is not None:
        output.write(plot_to, "--plot", lambda path: _draw(result, path))
    text = json.dumps(result, indent=1)
    if json_to == "-":
        print(text)
    elif json_to is not None:
        output.write(json_to, "--json", lambda path: output.write_json(result, path))
    print(_table(result), file=sys.stderr if json_to == "-" else None)
    return 0


def _measure(
    found: list[traces.Trace], sizes: Sequence[int], progress: Progress
) -> list[dict[str, Any]]:
    points = []
    for number, trace in enumerate(found, 1):
        keys = trace.keys().tolist()
        distinct = len(set(keys))
        for size in sizes:
            if size >= distinct:  # nothing is ever dropped
                continue
            ratios = {}
            progress.say(
                f"trace {number} of {len(found)}: {trace.name}, "
                f"{len(keys):,} requests, {size:,} entries"
            )
            for policy in POLICIES:
                ratios[policy] = hit_ratio(keys, size, policy)
            ratios["optimum"] = optimum(keys, size)
            points.append(
                {
                    "trace": trace.name,
                    "requests": len(keys),
                    "keys": distinct,
                    "size": size,
                    "percent": ratios,
                }
            )
    return points


def _against_lru(points: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """By policy the mean and the worst difference from LRU, in points of percent."""
    out = {}
    for policy in (*POLICIES, "optimum"):
        gains = [p["percent"][policy] - p["percent"]["lru"] for p in points]
        out[policy] = {"mean": sum(gains) / len(gains), "worst": min(gains)}
    return out


def _table(result: dict[str, Any]) -> str:
    columns = (*POLICIES, "optimum")
    names = [f"{p['trace']} {p['size']:,}" for p in result["points"]]
    width = max(map(len, [*names, "mean against lru"]))

    def line(name: str, cells: Sequence[str]) -> str:
        return name.ljust(width) + "".join(cell.rjust(9) for cell in cells)

    lines = [
        f"hit ratios in percent, {result['backend']} back end",
        line("trace, entries", columns),
    ]
    for name, point in zip(names, result["points"], strict=True):
        lines.append(line(name, [f"{point['percent'][c]:.2f}" for c in columns]))
    for what in ("mean", "worst"):
        gains = [result["against_lru"][c][what] for c in columns]
        lines.append(line(f"{what} against lru", [f"{gain:+.2f}" for gain in gains]))
    return "\n".join(lines)


# ---- The plot ----

_COLOURS = {
    "lru": "#222222",
    "adaptive": "#8b0000",
    "tinylfu": "#56b4e9",
    "s3fifo": "#0072b2",
    "sieve": "#d55e00",
    "fifo": "#999999",
    "lfu": "#009e73",
    "mru": "#cc79a7",
    "rr": "#e69f00",
}
_PLAIN = ("fifo", "lfu", "mru", "rr")  # thin, and below the others


def _figure(result: dict[str, Any]) -> "Figure":
    """A panel for each trace: hit ratio over size, under the optimum."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(point["trace"] for point in result["points"]))
    columns = min(3, len(names))
    lines = -(-len(names) // columns)
    picture = Figure(figsize=(4.4 * columns, 0.9 + 3 * lines), layout="constrained")
    grid = picture.subplots(lines, columns, squeeze=False)
    for axes, name in zip(grid.flat, names, strict=False):
        points = [point for point in result["points"] if point["trace"] == name]
        sizes = [point["size"] for point in points]
        best = [point["percent"]["optimum"] for point in points]
        axes.plot(sizes, best, "k--", linewidth=1, label="optimum")
        for above, (policy, colour) in enumerate(reversed(_COLOURS.items())):
            ratios = [point["percent"][policy] for point in points]
            thin = policy in _PLAIN
            axes.plot(
                sizes,
                ratios,
                "o:" if thin else "o-",
                color=colour,
                label=policy,
                linewidth=1 if thin else 1.8,
                markersize=3 if thin else 4.5,
                zorder=3 + above,
            )
        axes.set_title(name, loc="left", fontsize=10, weight="bold")
        axes.set_xlabel("entries", fontsize=8)
        axes.set_ylabel("hits, %", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.grid(color="#d8d8d8", linewidth=0.6)
        axes.set_ylim(bottom=0)
    for axes in grid.flat[len(names) :]:
        axes.set_axis_off()
    (best_handle, *handles), (_, *labels) = grid.flat[0].get_legend_handles_labels()
    handles, labels = [best_handle, *handles[::-1]], ["optimum", *labels[::-1]]
    picture.legend(
        handles, labels, loc="outside lower center", ncols=len(labels), frameon=False
    )
    picture.suptitle("Hit ratios of the policies of ctxpool.Cache", fontsize=11)
    return picture


def _draw(result: dict[str, Any], path: str) -> None:
    suffix = Path(path).suffix.lower()
    if suffix != ".html":
        _figure(result).savefig(path, format=suffix[1:], dpi=130)
        return
    picture = io.StringIO()
    _figure(result).savefig(picture, format="svg")
    svg = picture.getvalue()
    Path(path).write_text(
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        "<title>ctxpool bench hitratio</title></head>\n"
        f"<body>\n{svg[svg.index('<svg') :]}\n<pre>{_table(result)}</pre>\n"
        "</body></html>\n",
        encoding="utf-8",
    )
