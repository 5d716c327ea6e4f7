"""Windows of messages: what fits, adding, orphans, the prompt cache; tokens counted.

Method. Contenders take turns in one process, the order rotating, with the garbage
collector off; a ratio is the median of the rounds' own ratios. All count with the same
tokenizer: o200k_base where rs-bpe is installed, else the heuristic. LangChain's
trim_messages comes with the extra ``langchain``; it is called as its documentation
shows, and counts every message anew each time; "approximate" is its own estimate by
characters. The conversation is made here, by a seeded generator.

Bias. LangChain's function keeps no state: it answers about any list of messages. A
window has to be kept, and each message is counted when it is added; a plain list takes
messages in 30 ns and counts none.
"""

import gc
import importlib
import importlib.util
import json
import random
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from bar import Bar
from section import Findings, Section

from ctxpool.context import (
    ContextWindow,
    HeuristicTokenizer,
    Message,
    MessageCounter,
    PromptCache,
    TokenCounter,
    ToolCall,
    load_tokenizer,
    to_langchain,
)

__all__ = ["sections"]

BUDGET = 16_000
HAS_BPE = importlib.util.find_spec("rs_bpe") is not None
HAS_LANGCHAIN = importlib.util.find_spec("langchain_core") is not None
WORDS = (
    "the window keeps what fits and a tool returns rows of values while users "
    + "ask for reports on memory latency tokens budgets failures tests"
).split()


def tokenizer() -> Any:
    return load_tokenizer("o200k_base" if HAS_BPE else "heuristic")


def sentence(rng: random.Random, words: int) -> str:
    return " ".join(rng.choices(WORDS, k=words)).capitalize() + f" {rng.random()}."


def conversation(count: int, tools: bool = False) -> list[Message]:
    """Questions and answers; with *tools*, calls and results in between."""
    rng = random.Random(count)
    found = [Message("system", sentence(rng, 30))]
    while len(found) < count:
        found.append(Message("user", sentence(rng, rng.randint(10, 60))))
        for step in range(rng.randint(0, 3) if tools else 0):
            ids = [f"{len(found)}-{step}-{n}" for n in range(rng.randint(1, 3))]
            calls = tuple(ToolCall(i, "search", '{"q": "orders"}') for i in ids)
            found.append(Message("assistant", "", calls))
            found += [
                Message("tool", sentence(rng, rng.randint(20, 200)), tool_call_id=i)
                for i in ids
            ]
        found.append(Message("assistant", sentence(rng, rng.randint(20, 90))))
    return found


# -- LangChain -------------------------------------------------------------------------


def langchain_count() -> Callable[[list[Any]], int]:
    """Counts as we do: the text, the calls, and four tokens a message."""
    count = tokenizer().count

    def counted(messages: list[Any]) -> int:
        total = 0
        for message in messages:
            total += 4 + count(message.content)
            for call in getattr(message, "tool_calls", ()):
                total += 8 + count(call["name"]) + count(json.dumps(call["args"]))
        return total

    return counted


def trim(messages: list[Any], budget: int, counter: Any, **settings: Any) -> list[Any]:
    trim_messages = importlib.import_module("langchain_core.messages").trim_messages
    given = {"strategy": "last", "include_system": True, **settings}
    found: list[Any] = trim_messages(
        messages, max_tokens=budget, token_counter=counter, **given
    )
    return found


# -- timing ----------------------------------------------------------------------------


def in_turns(
    contenders: dict[str, tuple[Callable[[], Any], int]], rounds: int
) -> dict[str, list[float]]:
    """For each, ns a call in each round; the number says how often it is called."""
    names = list(contenders)
    found: dict[str, list[float]] = {name: [] for name in names}
    gc.collect()
    gc.disable()
    try:
        for turn in range(rounds + 1):  # the first warms up
            at = turn % len(names)
            for name in names[at:] + names[:at]:
                call, n = contenders[name]
                start = time.perf_counter_ns()
                for _ in range(n):
                    call()
                if turn:
                    found[name].append((time.perf_counter_ns() - start) / n)
    finally:
        gc.enable()
    return found


def ratio(mine: list[float], other: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(mine, other, strict=True))


def question(count: int, rounds: int) -> Findings:
    messages = conversation(count)
    window = ContextWindow(2**40, tokenizer=tokenizer())
    window.extend(messages)
    contenders: dict[str, tuple[Callable[[], Any], int]] = {
        "ours: fits": (partial(window.fits, BUDGET), 200),
        "ours: messages": (partial(window.messages, BUDGET), 100),
    }
    if HAS_LANGCHAIN:
        theirs, counter = to_langchain(messages), langchain_count()
        for name, counted in (("", counter), (", approximate", "approximate")):
            contenders[f"LangChain trim_messages{name}"] = (
                lambda counted=counted: trim(theirs, BUDGET, counted, start_on="human"),
                1,
            )
    figures = in_turns(contenders, rounds)
    rows, lines = (
        [],
        [f"{'us':38}{'median':>12}{'worst round':>14}{'to LangChain':>15}"],
    )
    peer = figures.get("LangChain trim_messages")
    for name, times in figures.items():
        row = {
            "name": name,
            "messages": count,
            "median_us": statistics.median(times) / 1e3,
            "max_us": max(times) / 1e3,
            "to_langchain": ratio(times, peer) if peer else None,
        }
        rows.append(row)
        share = f"{row['to_langchain']:14.6f}x" if peer else "-"
        lines.append(
            f"{name:38}{row['median_us']:12,.2f}{row['max_us']:14,.2f}{share:>15}"
        )
    bars = [Bar(f"fits, {count:,} messages", rows[0]["median_us"], 1, "us")]
    if peer:
        what = f"messages to LangChain's, {count:,} messages"
        bars.append(Bar(what, rows[1]["to_langchain"], 0.01))
    return Findings("\n".join(lines), rows, bars)


def adding(count: int) -> Findings:
    """Each message is counted by one counter, and added to windows with another."""
    rows, lines = (
        [],
        [f"{'us a message':38}{'p50':>9}{'p99':>9}{'p99.9':>9}{'max':>11}"],
    )
    messages = conversation(count, tools=True)
    count_only = MessageCounter(tokenizer())
    windows = {
        "append": ContextWindow(BUDGET, tokenizer=tokenizer()),
        "append, max_bytes": ContextWindow(
            BUDGET, tokenizer=tokenizer(), max_bytes="1MiB"
        ),
    }
    times: dict[str, list[int]] = {"counting alone": []}
    times |= {name: [] for name in windows}
    now = time.perf_counter_ns
    gc.collect()
    gc.disable()
    try:
        for i, message in enumerate(messages):
            calls = [("counting alone", count_only)]
            calls += [(name, window.append) for name, window in windows.items()]
            for name, call in calls[i % 3 :] + calls[: i % 3]:
                start = now()
                call(message)
                times[name].append(now() - start)
    finally:
        gc.enable()
    alone = np.array(times["counting alone"])
    bars = []
    for name, single in times.items():
        shown = {name: np.array(single)}
        if name != "counting alone":
            shown[f"{name}, less counting"] = np.array(single) - alone
        for what, ns in shown.items():
            p50, p99, p999 = (float(p) / 1e3 for p in np.percentile(ns, (50, 99, 99.9)))
            most = float(ns.max()) / 1e3
            rows.append({"name": what, "p50": p50, "p99": p99, "p99.9": p999})
            lines.append(f"{what:38}{p50:9.2f}{p99:9.2f}{p999:9.2f}{most:11.2f}")
            if what == "append, less counting":
                bars.append(Bar("adding, beside counting", p50, 2, "us"))
    return Findings("\n".join(lines), rows, bars)


# -- what is in the prompt -------------------------------------------------------------


def faults(roles: list[tuple[str, list[str], str]]) -> str | None:
    """Why a provider refuses a prompt of (role, calls, answered call)."""
    waiting: set[str] = set()
    spoken = late = False
    for role, calls, answers in roles:
        if role == "tool":
            if answers not in waiting:
                return "orphaned result"
            waiting.remove(answers)
            continue
        if waiting:
            return "unanswered call"
        late = late or (not spoken and role not in ("system", "user"))
        spoken = spoken or role == "user"
        waiting = set(calls)
    return "unanswered call" if waiting else "no user first" if late else None


def orphans(budgets: int) -> Findings:
    messages = conversation(600, tools=True)
    window = ContextWindow(2**40, tokenizer=tokenizer())
    window.extend(messages)
    sizes = [500 + 400 * n for n in range(budgets)]
    ways: dict[str, Callable[[int], list[Any]]] = {"ours": window.messages}
    if HAS_LANGCHAIN:
        theirs, counter = to_langchain(messages), langchain_count()
        ways["LangChain, defaults"] = lambda n: trim(theirs, n, counter)
        ways["LangChain, start_on=human"] = lambda n: trim(
            theirs, n, counter, start_on="human"
        )
    head = f"{f'of {budgets} prompts':38}{'split calls':>14}{'no user first':>16}"
    rows, lines = [], [head]
    for name, way in ways.items():
        found = [faults([kind(m) for m in way(size)]) for size in sizes]
        starts = found.count("no user first")
        split = budgets - found.count(None) - starts
        rows.append({"name": name, "split": split, "no_user_first": starts})
        lines.append(f"{name:38}{split:14}{starts:16}")
    refused = rows[0]["split"] + rows[0]["no_user_first"]
    bars = [Bar("prompts that a provider refuses", refused, 0, "")]
    return Findings("\n".join(lines), rows, bars)


def kind(message: Any) -> tuple[str, list[str], str]:
    if isinstance(message, Message):
        ids = [call.id for call in message.tool_calls]
        return message.role, ids, message.tool_call_id
    role = {"human": "user", "ai": "assistant"}.get(message.type, message.type)
    ids = [call["id"] for call in getattr(message, "tool_calls", ())]
    return role, ids, getattr(message, "tool_call_id", "")


class Characters:
    """A token a character: the simulation's sizes are what they say."""

    def encode(self, text: str) -> list[int]:
        return list(map(ord, text))

    def count(self, text: str) -> int:
        return len(text)


def caching(turns: int) -> Findings:
    """16,000 tokens, a system prompt of 500, 250 a turn; each prompt is sent."""
    rows, lines = [], [f"{'low mark':38}{'cacheable':>11}{'cost':>9}{'in context':>12}"]
    for low in (1.0, 0.9, 0.75, 0.5, 0.25):
        count = MessageCounter(Characters(), per_message=0)
        window = ContextWindow(BUDGET, tokenizer=count, low_water=low)
        cache = PromptCache(counter=count)
        window.append(Message("system", "s" * 500))
        for turn in range(turns):
            window.append(Message("user", f"{turn:100}"))
            cache.send(window.messages())
            window.append(Message("assistant", f"{turn:150}"))
        stats = cache.stats()
        row = {
            "low_water": low,
            "share": 100 * stats.share,
            "cost": stats.cost / stats.uncached_cost,
            "tokens": stats.tokens / turns,
        }
        rows.append(row)
        lines.append(
            f"{low:<38}{row['share']:10.1f}%{row['cost']:8.2f}x{row['tokens']:12,.0f}"
        )
    default = next(row for row in rows if row["low_water"] == 0.75)
    bars = [Bar("input that a cache serves", default["share"], 90, "%", least=True)]
    lines.append("cost: to a provider without a cache, at the defaults of CachePrices")
    return Findings("\n".join(lines), rows, bars)


# -- tokens ----------------------------------------------------------------------------

ROOT = Path(__file__).resolve().parents[1]
# The first article of the Universal Declaration of Human Rights, a language a line.
ARTICLE = Path(__file__).with_name("article.txt")


def samples() -> dict[str, str]:
    rng = random.Random(1)

    def read(*patterns: str) -> str:
        paths = sorted(path for pattern in patterns for path in ROOT.glob(pattern))
        return "".join(path.read_text() for path in paths)

    values = [
        {"id": n, "name": sentence(rng, 3), "p": rng.random()} for n in range(300)
    ]
    stamps = (f"2026-11-21T17:{n % 60:02}:{n * 7 % 60:02}Z" for n in range(300))
    return {
        "prose": read("README.md", "CHANGELOG.md"),
        "Python": read("src/ctxpool/*/*.py"),
        "C": read("csrc/src/*.c"),
        "JSON": json.dumps(values, indent=1),
        "log": "\n".join(f"{s} INFO id={rng.getrandbits(32):08x} ok" for s in stamps),
        **dict(line.split(": ", 1) for line in ARTICLE.read_text().splitlines()),
    }


def heuristic(rounds: int) -> Findings:
    ours, real = HeuristicTokenizer(), tokenizer()
    rows, lines = [], [f"{'':38}{'ours':>8}{'len / 4':>10}   of o200k_base"]
    for name, text in samples().items():
        exact = real.count(text)
        row = {
            "name": name,
            "ours": ours.count(text) / exact,
            "quarter": len(text) / 4 / exact,
        }
        rows.append(row)
        lines.append(f"{name:38}{row['ours']:8.2f}{row['quarter']:10.2f}")
    text = samples()["prose"]
    known = TokenCounter(ours)
    figures = in_turns(
        {
            "heuristic": (lambda: ours.count(text), 3),
            "o200k_base": (lambda: real.count(text), 3),
            "counted before": (lambda: known(text), 1000),
        },
        rounds,
    )
    for name, times in figures.items():
        speed = len(text) / statistics.median(times) * 1e3
        rows.append({"name": name, "mb_s": speed})
        lines.append(f"{name:38}{speed:14,.1f} MB/s")
    off = {
        key: max(abs(r[key] - 1) for r in rows if key in r)
        for key in rows[0]
        if key != "name"
    }
    bars = [Bar("heuristic, largest error", 100 * off["ours"], 35, "%")]
    return Findings("\n".join(lines), rows, bars)


def sections(quick: bool, progress: Callable[[str], None]) -> Iterator[Section]:
    for count in (100, 1_000) if quick else (100, 1_000, 5_000):
        yield Section(
            f"window: what fits in {BUDGET:,} tokens, of {count:,} messages",
            lambda count=count: question(count, 3 if quick else 11),
        )
    size = 1_000 if quick else 20_000
    yield Section("window: adding a message", lambda: adding(size))
    yield Section(
        "window: prompts at 40 budgets, with parallel tool calls", lambda: orphans(40)
    )
    yield Section("window: the prompt cache", lambda: caching(200 if quick else 2_000))
    if HAS_BPE:
        yield Section("window: tokens", lambda: heuristic(3 if quick else 11))
