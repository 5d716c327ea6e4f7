"""An overflow of a message window: what it costs, what it saves, how it comes back.

"overflow" fills a window of 16,384 or 131,072 tokens with a made-up conversation
(turns of a question, in each second one a tool's result of up to 4,000 characters, an
answer), over and over; each time that it reaches 90 %, the chain makes room. A row is a
chain; "ms/turn" spreads its cost over the turns until the next overflow, which is what
a conversation pays. "trim" drops the oldest groups until 70 % is left, with tokens
counted once, and is the floor: it keeps nothing. Tokens are characters over four. All
chains see the same conversation, and take turns in one process, an overflow each.

"store" puts messages of about 1,000 characters into a file and gets them back, beside
what people use: shelve (over whichever dbm there is; no search, torn by a kill),
diskcache (SQLite, values pickled, no search), and a file of JSON lines with an fsync
to none (the floor of a put; nothing is found in it). Every put is a transaction of its
own. "restore" asks for the originals of a summary of 20; "search" for the best five by
two words, beside a scan of all texts in memory, which has nothing to read from a disk.

Bias. The conversation is ours; its tool results are long, as agents' are. The search
words are rare: of one that is in each message, all messages are ranked. Where we lose:
a put costs more than diskcache's or shelve's, as the words of the text are indexed; a
search for a word that all messages have.
"""

import json
import random
import shelve
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bar import Bar
from section import Findings, Section

from ctxpool.context import (
    Compress,
    Evict,
    Group,
    Message,
    OverflowChain,
    Spill,
    SpillStore,
    Summarise,
    ToolCall,
)

__all__ = ["sections"]

LINES = (
    "server database error pool timeout config deploy cache user request latency build",
    "test commit branch memory index query table schema token retry limit worker queue",
    "session header parser buffer thread signal socket cursor packet router driver",
)
WORDS = " ".join(LINES).split()


def text(rng: random.Random, sentences: int) -> str:
    """Sentences of common words, each with a number and an identifier."""

    def sentence() -> str:
        words = " ".join(rng.choices(WORDS, k=rng.randint(6, 16)))
        name = f"{rng.choice(WORDS)}_{rng.randint(0, 9999)}"
        return f"{words.capitalize()} {name} in {rng.randint(1, 999)} ms."

    return " ".join(sentence() for _ in range(sentences))


def count(message: Message) -> int:
    return 4 + len(message.text) // 4


def group(*messages: Message, pinned: bool = False) -> Group:
    return Group(messages, sum(map(count, messages)), pinned)


def turns(name: str) -> Iterator[list[Group]]:
    """An endless conversation; its messages' ids begin with *name*."""
    rng = random.Random(1)
    i = 0
    while True:
        i += 1
        made = [group(Message("user", text(rng, 2), id=f"{name}-u{i}"))]
        if i % 2:
            call = ToolCall(f"c{i}", "read", f'{{"path": "{rng.choice(WORDS)}.py"}}')
            result = text(rng, rng.randint(5, 50))
            made.append(
                group(
                    Message("assistant", tool_calls=(call,), id=f"{name}-c{i}"),
                    Message("tool", result, tool_call_id=f"c{i}", id=f"{name}-r{i}"),
                )
            )
        made.append(
            group(Message("assistant", text(rng, rng.randint(2, 8)), id=f"{name}-a{i}"))
        )
        yield made


# --- overflow --------------------------------------------------------------------


class Trim:
    """The oldest go, and that is all."""

    name, to = "trim", 0.7

    def apply(self, draft: Any) -> None:
        gone, excess = [], draft.excess
        for i in draft.free():
            if excess <= 0:
                break
            gone.append(i)
            excess -= draft[i].tokens
        draft.drop(gone)


class Conversation:
    """A window in a chain's hands, and what that cost."""

    def __init__(self, name: str, chain: OverflowChain, budget: int) -> None:
        self.chain, self.budget = chain, budget
        self.groups = [group(Message("system", "You help.", id="s"), pinned=True)]
        self.turns = turns(name)
        self.costs: list[float] = []
        self.lengths: list[int] = []
        self.saved: list[int] = []
        self.by: dict[str, int] = {}
        self.spoken = 0

    def go_on(self) -> None:
        """Up to the next overflow, and through it."""
        tokens = sum(each.tokens for each in self.groups)
        spoken = 0
        while tokens < 0.9 * self.budget:
            new = next(self.turns)
            self.groups += new
            tokens += sum(each.tokens for each in new)
            spoken += 1
        begin = time.perf_counter()
        result = self.chain.reduce(self.groups, self.budget, count)
        self.costs.append((time.perf_counter() - begin) * 1e3)
        self.groups = result.groups
        self.lengths.append(spoken)
        self.saved.append(result.report.saved)
        for name, saved in result.report.saved_by().items():
            self.by[name] = self.by.get(name, 0) + saved
        assert result.report.fits, result.report

    def row(self, name: str) -> dict[str, Any]:
        kept = {
            s for g in self.groups for m in g.messages for s in m.sources or (m.id,)
        }
        all_of_it = sum(self.by.values())
        return {
            "chain": name,
            "budget": self.budget,
            "overflows": len(self.costs),
            "p50_ms": statistics.median(self.costs),
            "p99_ms": float(np.percentile(self.costs, 99)),
            "max_ms": max(self.costs),
            "ms_per_turn": sum(self.costs) / max(sum(self.lengths), 1),
            "saved": statistics.mean(self.saved),
            "shares": {k: round(v / all_of_it, 3) for k, v in self.by.items()},
            "stands_for": len(kept),
        }


def overflows(budget: int, n: int, folder: Path) -> Findings:
    store = SpillStore(folder / f"{budget}.db")
    spill = Spill(store)
    chains = {
        "trim": OverflowChain([Trim()]),
        "evict": OverflowChain([Evict(to=0.7)]),
        "evict, store": OverflowChain([Evict(to=0.7), spill]),
        "compress, evict": OverflowChain([Compress(), Evict(to=0.7)]),
        "default": OverflowChain(),
        "default, store": OverflowChain([Compress(), Summarise(), Evict(), spill]),
    }
    talks = {name: Conversation(name, chain, budget) for name, chain in chains.items()}
    for _ in range(n):
        for talk in talks.values():
            talk.go_on()
    store.close()
    rows = [talk.row(name) for name, talk in talks.items()]
    lines = [
        f"{'chain':18}{'p50 ms':>9}{'p99':>9}{'max':>9}{'ms/turn':>9}{'saved':>9}"
        f"{'stands for':>12}  by"
    ]
    for row in rows:
        shares = ", ".join(f"{k} {100 * v:.0f} %" for k, v in row["shares"].items())
        lines.append(
            f"{row['chain']:18}{row['p50_ms']:9.2f}{row['p99_ms']:9.2f}"
            f"{row['max_ms']:9.2f}{row['ms_per_turn']:9.3f}{row['saved']:9,.0f}"
            f"{row['stands_for']:12,}  {shares}"
        )
    whole = rows[-1]
    bare, stored = (talks[name].costs for name in ("default", "default, store"))
    bars = [
        Bar(
            f"default, store: ms per turn at {budget:,} tokens",
            whole["ms_per_turn"],
            5.0,
            "ms",
            f"p50 {whole['p50_ms']:.1f} ms an overflow",
        ),
        Bar(
            f"with the store / without at {budget:,} tokens",
            statistics.median(b / a for a, b in zip(bare, stored, strict=True)),
            1.5,
        ),
    ]
    return Findings("\n".join(lines), rows, bars)


# --- store -----------------------------------------------------------------------


def messages(n: int) -> list[Message]:
    rng = random.Random(2)
    return [
        Message("user", f"Note of case_{i} here. {text(rng, 10)}", id=f"m{i}")
        for i in range(n)
    ]


class Lines:
    """JSON, a line for each."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("a")

    def put(self, message: Message) -> None:
        self.file.write(json.dumps([message.id, message.role, message.content]) + "\n")
        self.file.flush()


def timed(function: Callable[[Any], Any], items: Sequence[Any]) -> list[float]:
    """Microseconds of each call."""
    costs = []
    for item in items:
        begin = time.perf_counter_ns()
        function(item)
        costs.append((time.perf_counter_ns() - begin) / 1e3)
    return costs


def interleaved(
    todo: dict[str, Callable[[Any], Any]], items: Sequence[Any], parts: int = 20
) -> dict[str, list[float]]:
    """The contenders in turns of a part of the items each, the order rotating."""
    found: dict[str, list[float]] = {name: [] for name in todo}
    names = list(todo)
    for part in range(parts):
        some = items[part * len(items) // parts : (part + 1) * len(items) // parts]
        first = part % len(names)
        for name in names[first:] + names[:first]:
            found[name] += timed(todo[name], some)
    return found


def table(what: str, costs: dict[str, list[float]]) -> tuple[str, list[dict[str, Any]]]:
    ours = statistics.median(costs["SpillStore"])
    rows = [
        {
            "operation": what,
            "name": name,
            "p50_us": statistics.median(each),
            "p99_us": float(np.percentile(each, 99)),
            "max_us": max(each),
            "ratio": statistics.median(each) / ours,
        }
        for name, each in costs.items()
    ]
    lines = [
        f"{what:10}{row['name']:16}{row['p50_us']:12,.1f}{row['p99_us']:12,.1f}"
        f"{row['max_us']:12,.1f}{row['ratio']:9.2f}x"
        for row in rows
    ]
    return "\n".join(lines), rows


def stored(n: int, folder: Path) -> Findings:
    store = SpillStore(folder / "spill.db")
    lines, shelf = Lines(folder / "lines"), shelve.open(str(folder / "shelf"))  # noqa: SIM115
    puts: dict[str, Callable[[Any], Any]] = {
        "SpillStore": lambda message: store.put([message]),
        "shelve": lambda message: shelf.__setitem__(message.id, message),
        "JSON lines": lines.put,
    }
    gets: dict[str, Callable[[Any], Any]] = {
        "SpillStore": lambda message: store[message.id],
        "shelve": lambda message: shelf[message.id],
    }
    try:
        import diskcache

        cache = diskcache.Cache(str(folder / "cache"), eviction_policy="none")
        puts["diskcache"] = lambda message: cache.set(message.id, message)
        gets["diskcache"] = lambda message: cache[message.id]
    except ModuleNotFoundError:
        cache = None
    some = messages(n)
    texts, parts = [f"{'':26}{'p50 us':>12}{'p99':>12}{'max':>12}{'to ours':>10}"], []

    def add(what: str, costs: dict[str, list[float]]) -> dict[str, float]:
        printed, rows = table(what, costs)
        texts.append(printed)
        parts.extend(rows)
        return {row["name"]: row["p50_us"] for row in rows}

    put = add("put", interleaved(puts, some))
    shuffled = random.Random(3).sample(some, min(n, 2000))
    got = add("get", interleaved(gets, shuffled))

    summaries = [
        Message("user", "short", sources=tuple(m.id for m in some[i : i + 20]))
        for i in range(0, n - 20, max(n // 200, 1))
    ]
    add("restore", {"SpillStore": timed(store.originals, summaries)})
    asked = [f"which case_{i} is here?" for i in range(0, n, max(n // 100, 1))]

    def scan(query: str) -> list[Message]:
        words = [word for word in query.split() if "_" in word]
        return [m for m in some if any(word in m.content for word in words)][:5]

    found = add(
        "search", interleaved({"SpillStore": store.search, "scan": scan}, asked)
    )
    common = [
        f"{word} {other}" for word, other in zip(WORDS[:9], WORDS[9:18], strict=True)
    ]
    add("common", {"SpillStore": timed(store.search, common)})
    stats = store.stats()
    texts.append(
        f"{n:,} messages, {stats.bytes / 1e6:.1f} MB as JSON, file and journal "
        f"{stats.file_bytes / stats.bytes:.2f} times that"
    )
    store.close()
    shelf.close()
    if cache is not None:
        cache.close()
    bars = [
        Bar("get of a message / shelve's", got["SpillStore"] / got["shelve"], 2.0),
        Bar("put of a message, p50", put["SpillStore"], 500, "us", "words indexed"),
        Bar("scan / search", found["scan"] / found["SpillStore"], 5.0, least=True),
    ]
    return Findings("\n".join(texts), parts, bars)


def sections(quick: bool, progress: Callable[[str], None]) -> Iterator[Section]:
    for budget, n in ((16_384, 200), (131_072, 60)):

        def run(budget: int = budget, n: int = n) -> Findings:
            progress(f"overflow {budget:,}")
            with tempfile.TemporaryDirectory() as folder:
                return overflows(budget, max(n // 20, 4) if quick else n, Path(folder))

        yield Section(f"overflow: {budget:,} tokens", run)

    def store() -> Findings:
        progress("store")
        with tempfile.TemporaryDirectory() as folder:
            return stored(1_000 if quick else 20_000, Path(folder))

    yield Section("overflow: the store", store)
