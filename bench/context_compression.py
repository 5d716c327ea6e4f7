"""Shorter texts: what is left of their facts, how fast, and the archive's sizes.

Facts: the texts of tests/data/facts, each with what it states, written by hand; a
fact is kept if its wordings stand near to one another in what is left. A budget is a
share of the characters. "best possible" chooses the same pieces knowing the facts. The
weights of our scorer were chosen on one half of the texts; the other half is printed
apart. "fitted" has an importance that was learned from the other half.
Peers: what people do (the head, the tail, both ends), and sumy's TextRank, LexRank, LSA
and SumBasic on the very same pieces, as sumy's own splitter wants a download.

Speed: contenders take turns in one process, the order rotating; medians and p99.

Where we lose: no selection of whole sentences keeps most facts of a dense text in a
tenth of it, see "best possible"; a language model that writes anew does (summarizer=).
JSON in one line has no sentences to choose from. On a text without numbers, names or
identifiers the advantage over truncation is small.
"""

import importlib
import json
import random
import re
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from bar import Bar
from facts import Labelled, labelled_texts
from section import Findings, Section

from ctxpool.codecs import HierarchicalCompressor
from ctxpool.context import (
    AdaptiveCompressor,
    HeuristicTokenizer,
    ImportanceModel,
)
from ctxpool.context.extract import extract
from ctxpool.context.fact_retention import states
from ctxpool.context.sentences import split
from ctxpool.context.trim import trim

__all__ = ["sections"]

SHARES = (0.5, 1 / 3.2, 0.25, 0.1, 0.05)
EFFICIENCY, ACCURACY, SAVED = 3.2, 88, 73.5  # what was promised
SUMY = {
    "sumy TextRank": ("text_rank", "TextRankSummarizer"),
    "sumy LexRank": ("lex_rank", "LexRankSummarizer"),
    "sumy LSA": ("lsa", "LsaSummarizer"),
    "sumy SumBasic": ("sum_basic", "SumBasicSummarizer"),
}
IDENTIFIER = re.compile(r"\b(?=\w*[\d_]|[a-z]+[A-Z])\w[\w.]*\w\b")
OWN = ("extract()", "extract(), fitted", "best possible")
HOUR, DAY = 3600, 86400

Method = Callable[[str, float], str]


def has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


# --- who takes part ------------------------------------------------------------------


class Pieces:
    """sumy's tokenizer, with our pieces as its sentences."""

    def to_sentences(self, paragraph: str) -> list[str]:
        return [paragraph[start:end] for start, end, _ in split(paragraph)]

    def to_words(self, sentence: str) -> list[str]:
        return re.findall(r"\w+", sentence)


def sumy(name: str) -> Method:
    module, cls = SUMY[name]
    summarizer = getattr(importlib.import_module(f"sumy.summarizers.{module}"), cls)()
    parser = importlib.import_module("sumy.parsers.plaintext").PlaintextParser

    def shorten(text: str, share: float) -> str:
        document = parser(text, Pieces()).document
        budget = int(len(text) * share)
        kept, low, high = "", 0, len(document.sentences) + 1
        while high - low > 1:  # the most sentences that fit
            middle = (low + high) // 2
            tried = "\n".join(map(str, summarizer(document, middle)))
            if len(tried) <= budget:
                kept, low = tried, middle
            else:
                high = middle
        return kept

    return shorten


def both_ends(text: str, share: float) -> str:
    half = int(len(text) * share) // 2
    return f"{text[:half]}\n{text[len(text) - half :]}"


def methods() -> dict[str, Method]:
    found: dict[str, Method] = {
        "extract()": lambda text, share: extract(text, ratio=share).text,
        "head": lambda text, share: text[: int(len(text) * share)],
        "tail": lambda text, share: text[len(text) - int(len(text) * share) :],
        "head and tail": both_ends,
    }
    if has("sumy"):
        found |= {name: sumy(name) for name in SUMY}
    return found


def best_possible(one: Labelled, share: float) -> str:
    """The pieces with the most facts that are not there yet, for their length."""
    budget = int(len(one.text) * share)
    pieces = [one.text[start:end] for start, end, _ in split(one.text)]
    kept: set[int] = set()

    def text(numbers: set[int]) -> str:
        return "\n".join(pieces[i] for i in sorted(numbers))

    def stated(numbers: set[int]) -> int:
        return sum(states(text(numbers), fact) for fact in one.facts)

    # A fact may take several pieces: try all stretches of up to four.
    stretches = [
        set(range(i, j))
        for i in range(len(pieces))
        for j in range(i + 1, min(i + 5, len(pieces) + 1))
    ]
    while True:
        known = stated(kept)
        gains = []
        for stretch in stretches:
            more = kept | stretch
            if len(text(more)) <= budget and (gain := stated(more) - known):
                gains.append((gain / (len(text(more)) - len(text(kept))), more))
        if not gains:
            return text(kept)
        kept = max(gains, key=lambda pair: pair[0])[1]


# --- facts ---------------------------------------------------------------------------


def facts(quick: bool) -> Findings:
    texts = labelled_texts()
    ways = methods()
    rows = []
    for half in ("tuned on", "held out"):
        ours = [one for one in texts if one.held_out == (half == "held out")]
        total = sum(len(one.facts) for one in ours)
        others = [one for one in texts if one not in ours]
        model = ImportanceModel.fit(
            [one.text for one in others], [one.facts for one in others]
        )
        named: dict[str, Callable[[Labelled, float], str]] = {
            name: lambda one, share, way=way: way(one.text, share)
            for name, way in ways.items()
        }
        named["extract(), fitted"] = lambda one, share, model=model: (
            extract(one.text, ratio=share, importance=model).text
        )
        if not quick:
            named["best possible"] = best_possible
        for name, way in named.items():
            kept = [
                sum(states(left, f) for one, left in shortened for f in one.facts)
                for share in SHARES
                for shortened in [[(one, way(one, share)) for one in ours]]
            ]
            shares = {
                f"{share:.2%}": 100 * k / total
                for share, k in zip(SHARES, kept, strict=True)
            }
            rows.append({"half": half, "name": name, "facts": total, **shares})
    columns = [f"{share:.2%}" for share in SHARES]
    lines = [f"{'% of facts kept in':28}" + "".join(f"{c:>9}" for c in columns)]
    for row in rows:
        cells = "".join(f"{row[c]:9.1f}" for c in columns)
        lines.append(f"{row['half']:10}{row['name']:18}{cells}")
    held = {row["name"]: row for row in rows if row["half"] == "held out"}
    at = f"{1 / EFFICIENCY:.2%}"
    mine = held["extract()"]
    peers = [name for name in held if name not in OWN]
    bars = [
        Bar("facts kept at 3.2 times less, held out", mine[at], ACCURACY, "%",
            least=True, note="as promised")
    ]  # fmt: skip
    for c in ("50.00%", at, "25.00%", "10.00%"):
        peer = max(peers, key=lambda name: held[name][c])
        ratio = mine[c] / max(held[peer][c], 0.1)
        bars.append(Bar(f"facts kept in {c}, ours to {peer}", ratio, 1.0, least=True))
    return Findings("\n".join(lines), rows, bars)


# --- speed ---------------------------------------------------------------------------


def long_text(size: int) -> str:
    whole = "\n\n".join(one.text for one in labelled_texts())
    return (whole * (size // len(whole) + 1))[:size]


def timed(
    work: dict[str, Callable[[], Any]],
    n: int,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> dict[str, list[float]]:
    """Milliseconds, the order rotating; the first round warms up."""
    names = list(work)
    times: dict[str, list[float]] = {name: [] for name in names}
    for i in range(n + 1):
        at = i % len(names)
        for name in names[at:] + names[:at]:
            begin = clock()
            work[name]()
            times[name].append((clock() - begin) / 1e6)
    return {name: taken[1:] for name, taken in times.items()}


def quarter(quick: bool) -> Findings:
    """32,000 characters to a quarter, and the identifiers that are left."""
    text = long_text(32_000)
    known = set(IDENTIFIER.findall(text))
    adaptive = AdaptiveCompressor(ratio=0.25)
    tokens = HeuristicTokenizer().count(text) // 4
    work: dict[str, Callable[[], str]] = {
        "extract()": lambda: extract(text, ratio=0.25).text,
        "extract(tokens=)": lambda: extract(text, tokens=tokens).text,
        "AdaptiveCompressor hard": lambda: adaptive.compress(text, pressure=1).text,
        "AdaptiveCompressor light": lambda: adaptive.compress(text, pressure=0).text,
        "trim()": lambda: trim(text).text,
    }
    if has("sumy") and not quick:
        names = ("sumy SumBasic",)  # the others take half a minute
        peers = {name: sumy(name) for name in names}
        work |= {name: lambda way=way: way(text, 0.25) for name, way in peers.items()}
    times = timed(work, 5 if quick else 20)
    rows = []
    for name, do in work.items():
        left = do()
        p50, p99 = np.percentile(times[name], (50, 99)).tolist()
        kept = 100 * len(known & set(IDENTIFIER.findall(left))) / len(known)
        rows.append({"name": name, "p50_ms": p50, "p99_ms": p99,
                     "share": len(left) / len(text), "identifiers": kept})  # fmt: skip
    head = f"{'p50 ms':>9}{'p99 ms':>9}{'MB/s':>8}{'left':>8}{'identifiers':>13}"
    lines = [f"{'':28}{head}"]
    for row in rows:
        lines.append(
            f"{row['name']:28}{row['p50_ms']:9.2f}{row['p99_ms']:9.2f}"
            f"{0.032 / row['p50_ms'] * 1e3:8.2f}{row['share']:8.1%}"
            f"{row['identifiers']:12.1f}%"
        )
    bars = [
        Bar("extract(), 32,000 characters to 25 %", rows[0]["p50_ms"], 7.5, "ms"),
        Bar("identifiers that it keeps", rows[0]["identifiers"], 70, "%", least=True),
    ]
    return Findings("\n".join(lines), rows, bars)


def drawn_logs(n: int) -> str:
    rng = random.Random(1)
    return "\n".join(
        f"2024-05-{rng.randint(1, 30):02} 10:{rng.randint(0, 59):02} INFO worker-"
        f"{rng.randint(1, 9)} request {rng.randint(0, 10**6)} took "
        f"{rng.randint(1, 99)} ms"
        for _ in range(n // 60)
    )[:n]


def drawn_prose(n: int) -> str:
    """Words by Zipf's law, in sentences."""
    rng = random.Random(1)
    letters = "abcdefghijklmnopqrstuvwxyz"
    known = ["".join(rng.choices(letters, k=rng.randint(2, 9))) for _ in range(20_000)]
    odds = list(np.cumsum(1 / np.arange(1, len(known) + 1)))
    said = []
    while sum(map(len, said[-1:])) * len(said) < n * 1.3:
        words = rng.choices(known, cum_weights=odds, k=rng.randint(5, 25))
        said.append(" ".join(words).capitalize() + ".")
    return " ".join(said)[:n]


def kinds(quick: bool) -> Findings:
    """A quarter of a megabyte of anything, and whether ten times take ten times."""
    n = 100_000 if quick else 1_000_000
    texts = {
        "our labelled texts, repeated": long_text(n),
        "logs, every line another": drawn_logs(n),
        "prose, every sentence another": drawn_prose(n),
        "JSON in one line": json.dumps(list(range(n // 7)))[:n],
        "lines of one letter": "\na" * (n // 2),
        "no end of a sentence": "word " * (n // 5),
        "one word": "x" * n,
        "blanks": " " * n,
        "no blanks: CJK": "我们决定明天发布新版本。" * (n // 12),
        "emoji": "\U0001f389\U0001f469\u200d\U0001f467 " * (n // 5),
    }
    rows = []
    for name, text in texts.items():
        small = text[: len(text) // 10]
        work = {
            "whole": lambda text=text: extract(text, ratio=0.25),
            "tenth": lambda small=small: extract(small, ratio=0.25),
        }
        # The processor's own time: only long tasks are interrupted by others.
        times = timed(work, 3, time.process_time_ns)
        p50 = {key: statistics.median(taken) for key, taken in times.items()}
        speed = len(text) / p50["whole"] / 1e3
        rows.append({"name": name, "characters": len(text), "p50_ms": p50["whole"],
                     "MB_s": speed, "growth": p50["whole"] / p50["tenth"]})  # fmt: skip
    lines = [f"{'extract() to 25 %':32}{'ms':>10}{'MB/s':>9}{'ten times':>11}"]
    for row in rows:
        lines.append(
            f"{row['name']:32}{row['p50_ms']:10.1f}{row['MB_s']:9.2f}"
            f"{row['growth']:11.1f}"
        )
    worst = max(rows, key=lambda row: row["growth"])
    bars = [Bar("ten times the text, times the time", worst["growth"], 25,
                note=worst["name"])]  # fmt: skip
    return Findings("\n".join(lines), rows, bars)


# --- the archive ---------------------------------------------------------------------


def archive(quick: bool) -> Findings:
    """Two months of messages, the lines of the labelled texts in turn."""
    rng = random.Random(1)
    said = [
        line
        for one in labelled_texts()
        for line in one.text.splitlines()
        if len(line) > 20
    ]
    days, a_day = (15, 40) if quick else (60, 200)
    now = 1_700_000_000.0
    rows, lines = [], []
    codecs = ["zlib", *(["zstd"] if has("zstandard") else [])]
    for codec in codecs:
        store = HierarchicalCompressor(codec=codec, clock=lambda: now)
        items = [
            (f"{rng.choice(said)} ({i})", now - rng.random() * days * DAY,
             int(rng.random() < 0.05))
            for i in range(days * a_day)
        ]  # fmt: skip
        begin = time.perf_counter()
        for text, when, priority in items:
            store.add(text, time=when, priority=priority)
        added = time.perf_counter()
        store.compact()
        compacted = time.perf_counter()
        store.views()
        seen = time.perf_counter()
        store.views()
        again = time.perf_counter()
        report = store.report()
        spent = {
            "add_us": (added - begin) / len(items) * 1e6,
            "compact_MB_s": report.original_bytes / (compacted - added) / 1e6,
            "views_MB_s": report.original_bytes / (seen - compacted) / 1e6,
            "views_again_ms": (again - seen) * 1e3,
        }
        rows.append({"codec": codec, **report.as_dict(), **spent})
        lines.append(
            f"{codec}: {report.items:,} items, {report.original_bytes:,} bytes; shown "
            f"{report.view_bytes:,} ({1 - report.ratio:.1%} less), kept without loss "
            f"in {report.stored_bytes:,} ({1 - report.stored_ratio:.1%} less)"
        )
        lines.append("  " + ", ".join(f"{key} {x:,.2f}" for key, x in spent.items()))
    lines.append(
        f"{'level':8}{'items':>8}{'views':>8}{'bytes':>12}{'shown':>12}{'%':>8}"
    )
    for level in report.levels:
        share = 100 * level.view_bytes / max(level.original_bytes, 1)
        lines.append(
            f"{level.level:<8}{level.items:8,}{level.views:8,}{level.original_bytes:12,}"
            f"{level.view_bytes:12,}{share:8.1f}"
        )
    bars = [
        Bar("shown of two months, less", 100 * (1 - report.ratio), SAVED, "%",
            least=True, note="as promised"),
        Bar("kept without loss, less", 100 * (1 - report.stored_ratio), SAVED, "%",
            least=True, note=codec),
    ]  # fmt: skip
    return Findings("\n".join(lines), rows, bars)


def sections(quick: bool, progress: Callable[[str], None]) -> Iterator[Section]:
    for title, measure in (
        ("compression: facts kept", facts),
        ("compression: 32,000 characters", quarter),
        ("compression: kinds of text", kinds),
        ("compression: archive", archive),
    ):

        def run(measure: Callable[[bool], Findings] = measure) -> Findings:
            return measure(quick)

        yield Section(title, run)
