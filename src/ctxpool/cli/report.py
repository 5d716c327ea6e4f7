"""The figures of a run, as a dict for JSON and as a table for people."""

from datetime import UTC, datetime
from textwrap import wrap
from typing import Any

from .. import __version__, backend
from .._info import machine
from .job import Job
from .latency import PERCENTILES
from .settings import Settings
from .sides import OPERATIONS, Side
from .workload import Unreadable

__all__ = [
    "build",
    "format_bytes",
    "format_ns",
    "format_ratio",
    "header",
    "method",
    "rows",
    "table",
    "verdict",
]

SCHEMA = 1
_FIGURES = [*(f"{p}_ns" for p in PERCENTILES), "max_ns"]
_NAMES = [*PERCENTILES, "max"]
_FEW = 1000
_LOSS = 1.05
_WIDTH = 80

_UNPOOLED = {
    "bytearray": "a fresh bytearray per read",
    "numpy": "a fresh np.empty per read",
    "deque": "a collections.deque made an array by np.fromiter",
    "concatenate": "an array made anew by np.concatenate",
}


def _unpooled(settings: dict[str, Any]) -> str:
    buffer = _UNPOOLED[settings["unpooled_buffer"]]
    window = _UNPOOLED[settings["unpooled_window"]]
    return f"{buffer}, {window}, an OrderedDict"


def method(settings: Settings, timer: dict[str, Any]) -> list[str]:
    """How the figures came about, as sentences."""
    return [
        "Both sides do the same work in the same process, in turns at every step, "
        "and who goes first alternates. All results are compared for equality: "
        "digests, tokens, the window and the last tokens after every step, cache "
        "hits.",
        f"Unpooled is {_unpooled(settings.as_dict())} with move_to_end and popitem. "
        "It takes no lock; the pooled side is safe to share between threads. "
        "--unpooled-buffer and --unpooled-window choose other ways.",
        "Reading is the same code, but not the same memory: a fresh bytearray was "
        "just zeroed and so is warm in the caches, and memory that was never "
        "touched costs page faults here.",
        "An insert that evicts frees the evicted tokens too, on both sides.",
        f"A chunk is what fits a block ({settings.block_size} bytes) or the rest of "
        f"a file. {settings.in_flight} chunks are in flight: a buffer is given back "
        "when so many newer ones were taken, less one. A step adds "
        f"{settings.step} tokens and looks at the window ({settings.window} tokens) "
        f"and at its last {settings.last}.",
        f"After each first visit of a file come {settings.revisit:g} later visits on "
        "average, to the k-th most recently read file with probability about 1/k "
        f"(seed {settings.seed}).",
        "Clock: time.perf_counter_ns, around the calls and nothing else. Reading it "
        f"costs p50 {format_ns(timer['p50_ns'])}, p99 {format_ns(timer['p99_ns'])}, "
        "which is part of every figure. Percentiles are nearest ranks of all "
        "samples, the first ones included.",
        "Every call comes after other work and so meets cold caches of the "
        "processor: figures are larger, on both sides, than those of a loop that "
        "does nothing else.",
        "The garbage collector is "
        + ("on, as in most programs." if settings.gc else "off (--no-gc)."),
        "Rows marked * run the same code on both sides: their ratio shows how much "
        "this run can tell.",
    ]


def build(
    job: Job,
    settings: Settings,
    tokenizer: str,
    timer: dict[str, Any],
    skipped: list[Unreadable],
    memory: dict[str, Any] | None,
    seconds: float,
) -> dict[str, Any]:
    """All figures of a run; plain data, ready for JSON."""
    tally = job.tally
    sides: tuple[Side, Side] = (job.pooled, job.unpooled)
    return {
        "schema": SCHEMA,
        "command": "ctxpool run",
        "version": __version__,
        "backend": backend,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "settings": {**settings.as_dict(), "tokenizer": tokenizer},
        "method": method(settings, timer),
        "timer": timer,
        "input": {
            "visits": tally.visits,
            "bytes": tally.bytes,
            "chunks": tally.chunks,
            "tokens": tally.tokens,
            "steps": tally.steps,
            "preempted": tally.preempted,
            "skipped": [{"path": s.path, "reason": s.reason} for s in skipped],
        },
        "equal": {
            "token_checksum": f"{tally.checksum:08x}",
            "cache_hits": job.pooled.hits,
            "cache_misses": job.pooled.misses,
        },
        "operations": [_operation(name, *sides) for name in OPERATIONS],
        "throughput": _throughput(job),
        "memory": _memory(memory),
        "primitives": job.pooled.stats(),
        "seconds": round(seconds, 3),
    }


def _operation(name: str, pooled: Side, unpooled: Side) -> dict[str, Any]:
    label, same = OPERATIONS[name]
    row: dict[str, Any] = {"name": name, "label": label, "same_code": same}
    for side in (pooled, unpooled):
        record = side.record[name]
        row[side.name] = {**record.summary(), "histogram": record.histogram()}
    row["ratio"] = {
        figure.removesuffix("_ns"): _ratio(
            row["pooled"][figure], row["unpooled"][figure]
        )
        for figure in ["mean_ns", *_FIGURES]
    }
    return row


def _ratio(pooled: float | None, unpooled: float | None) -> float | None:
    """Pooled to unpooled; None where one of them is missing or nothing."""
    return (
        float(f"{pooled / unpooled:.4g}") if pooled is not None and unpooled else None
    )


def _throughput(job: Job) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for side in (job.pooled, job.unpooled):
        seconds = max(side.total_ns, 1) / 1e9
        result[side.name] = {
            "seconds": round(seconds, 6),
            "mb_per_s": round(job.tally.bytes / 1e6 / seconds, 3),
            "tokens_per_s": round(job.tally.tokens / seconds),
        }
    result["ratio"] = _ratio(job.unpooled.total_ns, job.pooled.total_ns)
    return result


def _memory(measured: dict[str, Any] | None) -> dict[str, Any] | None:
    if measured is None:
        return None
    peaks = [measured[name].get("peak_bytes") for name in ("pooled", "unpooled")]
    return {**measured, "ratio": _ratio(*peaks)}


def format_ns(ns: float | None) -> str:
    """Nanoseconds with three digits and a unit.

    >>> format_ns(83), format_ns(12_345), format_ns(1_234_567_890)
    ('83 ns', '12.3 us', '1.23 s')
    """
    if ns is None:
        return "-"
    if ns < 999.5:
        return f"{ns:.0f} ns"
    value = float(ns)
    for unit in ("us", "ms", "s"):
        value /= 1000
        if value < 999.5 or unit == "s":
            break
    return f"{_three(value)} {unit}"


def _three(value: float) -> str:
    return f"{value:.{0 if value >= 99.95 else 1 if value >= 9.995 else 2}f}"


def format_bytes(nbytes: float | None) -> str:
    """Bytes in powers of 1000.

    >>> format_bytes(512), format_bytes(31_500_000)
    ('512 B', '31.5 MB')
    """
    if nbytes is None:
        return "-"
    if abs(nbytes) < 1000:
        return f"{nbytes:.0f} B"
    value = float(nbytes)
    for unit in ("kB", "MB", "GB", "TB"):
        value /= 1000
        if abs(value) < 999.5 or unit == "TB":
            break
    return f"{_three(value)} {unit}"


def format_ratio(ratio: float | None) -> str:
    """A ratio with two digits or two decimals.

    >>> format_ratio(0.00026), format_ratio(0.5), format_ratio(76.55)
    ('0.00026x', '0.50x', '76.55x')
    """
    if ratio is None:
        return "-"
    return f"{float(f'{ratio:.2g}'):g}x" if 1e-4 <= ratio < 0.1 else f"{ratio:.2f}x"


def _gil(report: dict[str, Any]) -> str:
    return "" if report["machine"]["gil"] else ", free-threaded"


def header(report: dict[str, Any]) -> list[str]:
    """What ran, on what, over what."""
    m, i, s = report["machine"], report["input"], report["settings"]
    lines = [
        f"ctxpool {report['version']}, {report['backend']} back end, "
        f"{m['implementation']} {m['python']}{_gil(report)}, numpy {m['numpy']}",
        f"{m['processor'] or m['architecture']}, {m['cpus']} cpus, {m['system']}",
        f"{i['visits']:,} visits, {i['chunks']:,} chunks, {format_bytes(i['bytes'])}, "
        f"{i['tokens']:,} tokens by {s['tokenizer']} (as {s['tokens']}s)",
        f"block {s['block_size']:,} B, {s['in_flight']} in flight, "
        f"window {s['window']:,} tokens, step {s['step']:,}, last {s['last']:,}, "
        f"cache {s['cache']:,} chunks",
        f"unpooled: {_unpooled(s)}",
    ]
    return lines


def rows(report: dict[str, Any]) -> list[list[str]]:
    """The cells of the table: operation, count, side, figures; three rows each."""
    cells = []
    for row in report["operations"]:
        count = row["pooled"]["count"]
        if not count:
            continue
        n = f"{count:,}"
        label = row["label"] + (" *" if row["same_code"] else "")
        for side in ("pooled", "unpooled"):
            figures = [format_ns(row[side][figure]) for figure in _FIGURES]
            cells.append([label, n, side, *figures])
            label = n = ""
        ratios = [format_ratio(row["ratio"][name]) for name in _NAMES]
        cells.append(["", "", "ratio", *ratios])
    return cells


def verdict(report: dict[str, Any]) -> list[str]:
    """Throughput, memory, and where pooling loses."""
    t, e = report["throughput"], report["equal"]
    lines = [
        f"{'':<12}{'time':>10}{'MB/s':>10}{'tokens/s':>14}{'peak memory':>14}",
    ]
    memory = report["memory"]
    for side in ("pooled", "unpooled"):
        peak = memory[side].get("peak_bytes") if memory else None
        lines.append(
            f"{side:<12}{t[side]['seconds']:>8.2f} s{t[side]['mb_per_s']:>10.2f}"
            f"{t[side]['tokens_per_s']:>14,}{format_bytes(peak):>14}"
        )
    times = _ratio(t["pooled"]["seconds"], t["unpooled"]["seconds"])
    speed = format_ratio(t["ratio"])
    lines.append(
        f"{'ratio':<12}{format_ratio(times):>10}{speed:>10}{speed:>14}"
        f"{format_ratio(memory['ratio'] if memory else None):>14}"
    )
    lines += ["", *_memory_notes(memory)]
    lines.append(
        f"Equal on both sides: {report['input']['tokens']:,} tokens "
        f"(checksum {e['token_checksum']}), {report['input']['steps']:,} windows, "
        f"{e['cache_hits']:,} cache hits, {e['cache_misses']:,} misses."
    )
    lines += _losses(report)
    if preempted := report["input"]["preempted"]:
        lines.append(
            f"The system took the processor away {preempted:,} times: what it fell on "
            "is a maximum, or more on a busy machine."
        )
    return lines


def _memory_notes(memory: dict[str, Any] | None) -> list[str]:
    if memory is None:
        return []
    errors = [
        f"Peak memory, {side}: not measured ({memory[side]['error']})."
        for side in ("pooled", "unpooled")
        if "error" in memory[side]
    ]
    if errors:
        return errors
    return [
        f"Peak memory: each side alone in a new process, its first "
        f"{format_bytes(memory['pooled']['input_bytes'])}, rise of resident memory "
        f"({memory['pooled']['method']}), cached tokens included."
    ]


def _losses(report: dict[str, Any]) -> list[str]:
    own = [r for r in report["operations"] if not r["same_code"]]
    lost = []
    for row in own:
        figures = [
            f"{name} {format_ratio(row['ratio'][name])}"
            for name in PERCENTILES
            if (row["ratio"][name] or 0) > _LOSS
        ]
        if figures:
            lost.append(f"{row['label']} ({', '.join(figures)})")
    few = [r["label"] for r in own if 0 < r["pooled"]["count"] < _FEW]
    lines = [
        "Pooling loses here: " + "; ".join(lost) + "."
        if lost
        else "Pooling loses at no p50, p99 or p99.9 of these rows."
    ]
    if few:
        lines.append(
            f"Fewer than {_FEW:,} samples, so p99.9 is the maximum: "
            + "; ".join(few)
            + "."
        )
    return lines


def _wrapped(lines: list[str]) -> list[str]:
    """Lines of prose broken at 80 columns; aligned ones fit as they are."""
    return [
        part
        for line in lines
        for part in (wrap(line, _WIDTH) if len(line) > _WIDTH else [line])
    ]


def table(report: dict[str, Any]) -> str:
    """The report as text, 80 columns wide."""
    lines = [*_wrapped(header(report)), ""]
    head = ["operation", "n", "side", *_NAMES]
    widths = [26, 7, 8, 8, 8, 8, 8]
    right = [False, True, False, True, True, True, True]

    def line(cells: list[str]) -> str:
        return " ".join(
            cell.rjust(width) if end else cell.ljust(width)
            for cell, width, end in zip(cells, widths, right, strict=True)
        ).rstrip()

    lines.append(line(head))
    lines.append("-" * (sum(widths) + len(widths) - 1))
    lines += [line(cells) for cells in rows(report)]
    lines.append("* the same code on both sides; ratio: pooled to unpooled")
    lines += ["", *_wrapped(verdict(report))]
    skipped = report["input"]["skipped"]
    if skipped:
        lines.append(f"Skipped: {len(skipped):,} files or folders, see above.")
    return "\n".join(lines)
