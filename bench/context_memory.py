"""What a memory's calls take, what its relations take, and what it saves.

Contenders do the same task one after the other, the order rotating with each; a ratio
is the median of the tasks' own. The first task is not counted. Texts are drawn with a
fixed seed. Files are in the temporary folder, without an fsync at each write, as is the
default.

"input and recall": a whole HierarchicalMemory with so many episodes in a directory. The
peers do a part of its work: "numpy" searches the same vectors, held in memory alone;
"fts5" is SQLite's own full-text index with bm25, in a file. "remember" is one episode
with its text, vector and metadata in one transaction; "sqlite" the insertion of the
text.

"graph": 100,000 triples over 20,000 entities, ten relations each. "sqlite" is the usual
table with two indices; "dict" and "networkx" are in memory and have no intervals.

"saved": the notes of bench/data/notes.json within a long conversation of other remarks,
and its questions, each with its one right note. Kept is the share of questions whose
note is in what the memory would send to a model. Flat is the whole conversation.

Where we lose: a dict and networkx find neighbours faster, and to add a relation takes
some four times what a plain table takes: names are looked up, intervals kept apart. A
numpy array without a file is searched as fast. Vectors are most of the memory: a flat
list of texts is far smaller.
"""

import json
import random
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from bar import Bar
from context_retrieval import NOTES, has, in_turns, printed, ratio, rows_of
from fresh import in_a_new_process
from section import Findings, Section

from ctxpool.context import (
    EpisodicMemory,
    HashedEmbedder,
    HierarchicalMemory,
    SemanticMemory,
    TokenCounter,
)
from ctxpool.context.embedding import words_of

__all__ = ["remarks", "sections"]

TRIPLES, ENTITIES, PREDICATES = 100_000, 20_000, 20
K = 8
SAVED, KEPT = (
    0.4,
    0.95,
)  # promised: share of memory that is saved, relevance that is kept


def remarks(n: int, seed: int = 1) -> list[str]:
    """Remarks of some twenty words, of a vocabulary with frequencies as words have."""
    rng = random.Random(seed)
    letters = "bcdfghklmnprst"
    words = [
        "".join(rng.choice(letters) + rng.choice("aeiou") for _ in range(size))
        for size in (rng.randint(1, 4) for _ in range(4000))
    ]
    weights = [1 / (rank + 5) for rank in range(len(words))]
    return [
        " ".join(rng.choices(words, weights, k=rng.randint(12, 28))) + f" {n}."
        for n in range(n)
    ]


# --- the calls -----------------------------------------------------------------------


def calls(n: int, tasks: int) -> Findings:
    said = remarks(n + 2 * tasks)
    asked = [" ".join(text.split()[2:9]) for text in said[:: max(1, n // tasks)]][
        :tasks
    ]
    new, other = said[n : n + tasks], said[n + tasks :]
    with tempfile.TemporaryDirectory() as folder:
        memory = HierarchicalMemory(Path(folder, "memory"), budget=8192)
        alone = EpisodicMemory(Path(folder, "episodes.db"))
        for start in range(0, n, 1000):
            some = said[start : min(start + 1000, n)]
            memory.episodic.remember_many([{"text": t, "role": "user"} for t in some])
            alone.remember_many(some)
        embedder = HashedEmbedder()
        embedder.learn(said[:n])
        vectors = np.concatenate(
            [embedder.embed(said[at : at + 1000]) for at in range(0, n, 1000)]
        )[:n]
        table = sqlite3.connect(Path(folder, "table.db"), isolation_level=None)
        table.execute("PRAGMA journal_mode = WAL")
        table.execute("PRAGMA synchronous = NORMAL")
        table.execute("CREATE VIRTUAL TABLE remark USING fts5(text)")
        table.execute("CREATE TABLE flat (id INTEGER PRIMARY KEY, text, at)")
        table.execute("BEGIN")
        table.executemany("INSERT INTO remark VALUES (?)", [(t,) for t in said[:n]])
        table.execute("COMMIT")

        def numpy(i: int) -> None:
            similar = vectors @ embedder.embed_queries([asked[i]])[0]
            best = np.argpartition(similar, len(similar) - K)[-K:]
            [said[at] for at in best[np.argsort(-similar[best])].tolist()]

        def fts5(i: int) -> None:
            words = " OR ".join(f'"{word}"' for word in words_of(asked[i]))
            table.execute(
                "SELECT text FROM remark WHERE remark MATCH ? ORDER BY rank LIMIT ?",
                (words, K),
            ).fetchall()

        reads = in_turns(
            {
                "recall": lambda i: memory.recall(asked[i], K),
                "recall of episodes": lambda i: alone.recall(asked[i], K),
                "numpy": numpy,
                "fts5": fts5,
            },
            tasks,
        )
        # Each is warmed up with its first task, which is then known to it.
        writes = in_turns(
            {
                "process_input": lambda i: memory.process_input(f"{i} {new[i]}"),
                "remember": lambda i: alone.remember(f"{i} {other[i]}"),
                "sqlite": lambda i: table.execute(
                    "INSERT INTO flat (text, at) VALUES (?, ?)", (other[i], i)
                ),
            },
            tasks,
        )
        nbytes = memory.stats().file_bytes / max(1, len(memory.episodic))
        memory.close()
        alone.close()
        table.close()
    rows = rows_of({**reads, **writes}, episodes=n)
    by = {row["name"]: row for row in rows}
    text = printed(rows) + f"\nbytes of files an episode: {nbytes:,.0f}"
    bars = [
        Bar(
            f"process_input, {n:,} episodes, p50",
            by["process_input"]["p50_us"] / 1e3,
            5.0 if n <= 10_000 else 50.0,
            "ms",
        ),
        Bar(
            f"recall of episodes / numpy, {n:,}",
            1 / ratio(reads, "recall of episodes", "numpy"),
            3.0,
            note="median of the tasks' own",
        ),
    ]
    return Findings(text, rows, bars)


# --- relations -----------------------------------------------------------------------


def triples(n: int) -> list[tuple[str, str, str]]:
    rng = random.Random(3)
    names = [f"entity {n}" for n in range(ENTITIES * n // TRIPLES)]
    return [
        (rng.choice(names), f"p{rng.randrange(PREDICATES)}", rng.choice(names))
        for _ in range(n)
    ]


class Table:
    """The usual table of triples."""

    def __init__(self, path: Path) -> None:
        self.db = sqlite3.connect(path, isolation_level=None, cached_statements=256)
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("PRAGMA synchronous = NORMAL")
        self.db.execute("CREATE TABLE t (s TEXT, p TEXT, o TEXT)")
        self.db.execute("CREATE INDEX ts ON t (s, p, o)")
        self.db.execute("CREATE INDEX os ON t (o)")

    def near(self, name: str) -> list[str]:
        near = "SELECT o FROM t WHERE s = ? UNION SELECT s FROM t WHERE o = ?"
        rows = self.db.execute(near, (name, name))
        return [other for (other,) in rows]

    def two(self, name: str) -> set[str]:
        found = set(self.near(name))
        for one in list(found):
            found.update(self.near(one))
        return found

    def add(self, s: str, p: str, o: str) -> None:
        self.db.execute("INSERT INTO t VALUES (?, ?, ?)", (s, p, o))


def graph(n: int, tasks: int) -> Findings:
    all_ = triples(n)
    start = [s for s, _, _ in triples(n)[:tasks]]
    new = [(f"{s} new", p, o) for s, p, o in all_[:tasks]]
    near: dict[str, dict[str, str]] = {}

    def into_dict(s: str, p: str, o: str) -> None:
        near.setdefault(s, {})[o] = p
        near.setdefault(o, {})[s] = p

    def two_of_dict(name: str) -> set[str]:
        found = set(near[name])
        for one in list(found):
            found.update(near[one])
        return found

    with tempfile.TemporaryDirectory() as folder:
        memory = SemanticMemory(Path(folder, "facts.db"), cache_relations=4 * n)
        table = Table(Path(folder, "table.db"))
        table.db.execute("BEGIN")
        found = [tuple_fact(*one) for one in all_]
        for at in range(0, n, 5000):
            memory.add_found(found[at : at + 5000], at=1.0)
        for one in all_:
            table.add(*one)
            into_dict(*one)
        table.db.execute("COMMIT")
        for name in set(start):  # "cached" is the second time
            memory.neighbours(name, 2, limit=10**6)
        cold = SemanticMemory(Path(folder, "facts.db"), cache_relations=0)
        one_hop: dict[str, Callable[[int], Any]] = {
            "1 hop, cached": lambda i: memory.neighbours(start[i]),
            "1 hop, first time": lambda i: cold.neighbours(start[i]),
            "1 hop, sqlite": lambda i: table.near(start[i]),
            "1 hop, dict": lambda i: list(near[start[i]]),
        }
        two_hops: dict[str, Callable[[int], Any]] = {
            "2 hops, cached": lambda i: memory.neighbours(start[i], 2, limit=10**6),
            "2 hops, sqlite": lambda i: table.two(start[i]),
            "2 hops, dict": lambda i: two_of_dict(start[i]),
        }
        adds: dict[str, Callable[[int], Any]] = {
            "add": lambda i: memory.add(*new[i]),
            "add, sqlite": lambda i: table.add(*new[i]),
            "add, dict": lambda i: into_dict(*new[i]),
        }
        if has("networkx"):
            import networkx

            net = networkx.MultiDiGraph()
            net.add_edges_from((s, o, {"p": p}) for s, p, o in all_)
            both = networkx.all_neighbors
            one_hop["1 hop, networkx"] = lambda i: set(both(net, start[i]))
            two_hops["2 hops, networkx"] = lambda i: {
                two for one in set(both(net, start[i])) for two in both(net, one)
            }
            adds["add, networkx"] = lambda i: net.add_edge(
                new[i][0], new[i][2], p=new[i][1]
            )
        times = [in_turns(work, tasks) for work in (one_hop, two_hops, adds)]
        memory.close()
        cold.close()
        table.db.close()
    rows = [row for some in times for row in rows_of(some)]
    bars = [
        Bar(
            "1 hop / sqlite, cached",
            1 / ratio(times[0], "1 hop, cached", "1 hop, sqlite"),
            1.0,
        ),
        Bar(
            "2 hops / sqlite, cached",
            1 / ratio(times[1], "2 hops, cached", "2 hops, sqlite"),
            1.0,
        ),
    ]
    return Findings(printed(rows), rows, bars)


def tuple_fact(s: str, p: str, o: str) -> Any:
    from ctxpool.context import Fact

    return Fact(s, p, o)


# --- what is saved -------------------------------------------------------------------


def conversation(between: int) -> tuple[list[str], list[dict[str, Any]]]:
    """The notes, so many remarks after each, and the questions."""
    data = json.loads(NOTES.read_text())
    other = iter(remarks(between * len(data["notes"]), 5))
    said = []
    for note in data["notes"]:
        said += [note, *(next(other) for _ in range(between))]
    return said, data


def saved(between: int) -> Findings:
    said, data = conversation(between)
    count = TokenCounter()
    flat = sum(count(text) + 4 for text in said)  # as a message costs
    rows: list[dict[str, Any]] = []
    for share in (0.1, 0.2, 0.4, 0.6):
        memory = HierarchicalMemory(budget=int(flat * share), recall_share=0.5)
        for n, text in enumerate(said):
            memory.process_input(text, at=float(n))
        kept, sent, right = 0, [], 0
        for question in data["queries"]:
            # As a clone would be asked: no question is there when the next one is.
            context = memory.process_input(question["query"], k=64, at=float(len(said)))
            texts = "\n".join(message.content for message in context.messages)
            notes = [data["notes"][n] for n in question["relevant"]]
            kept += all(note in texts for note in notes)
            sent.append(context.tokens)
            memory.forget(context.message.id)
            found = memory.episodic.recall(question["query"], K, count_use=False)
            right += any(one.episode.text in notes for one in found)
        newest = said[-len(said) * int(share * 100) // 100 :]
        truncated = sum(
            all(data["notes"][n] in newest for n in q["relevant"])
            for q in data["queries"]
        )
        asked = len(data["queries"])
        rows.append(
            {
                "budget": f"{share:.0%} of flat",
                "tokens": float(np.mean(sent)),
                "saved": 1 - float(np.mean(sent)) / flat,
                "kept": kept / asked,
                "among_first_8": right / asked,
                "truncation_keeps": truncated / asked,
            }
        )
        memory.close()
    keys = list(rows[0])
    lines = [f"flat: {len(said):,} messages, {flat:,} tokens"]
    lines.append("".join(f"{key:>18}" for key in keys))
    for row in rows:
        cells = (
            f"{row[key]:>18}"
            if isinstance(row[key], str)
            else f"{row[key]:18,.3f}"
            if key != "tokens"
            else f"{row[key]:18,.0f}"
            for key in keys
        )
        lines.append("".join(cells))
    enough = [row["saved"] for row in rows if row["kept"] >= KEPT]
    bars = [
        Bar(
            f"tokens saved where {KEPT:.0%} of the answers are kept",
            max(enough, default=0.0),
            SAVED,
            "",
            least=True,
        )
    ]
    return Findings("\n".join(lines), rows, bars)


RESIDENT = """
from context_memory import remarks
from ctxpool.context import HashedEmbedder, HierarchicalMemory
import tempfile
embedder = HashedEmbedder()
embedder.embed(remarks(100))
{warm}
before = resident()
kept = []
for text in remarks({n}):
    {statement}
report((resident() - before) / {n})
"""
KINDS = {
    "texts in a list": ("", 'kept.append({"role": "user", "content": text})'),
    "and vectors as lists of floats": (
        "",
        'kept.append({"role": "user", "content": text,'
        ' "vector": embedder.embed([text])[0].tolist()})',
    ),
    "HierarchicalMemory": (
        "memory = HierarchicalMemory(tempfile.mkdtemp(), embedder=embedder);"
        ' memory.remember("warm")',
        "memory.remember(text)",
    ),
}


def resident(n: int) -> Findings:
    rows = []
    for name, (warm, statement) in KINDS.items():
        (nbytes,) = in_a_new_process(
            RESIDENT.format(warm=warm, statement=statement, n=n)
        )
        rows.append({"name": name, "bytes": nbytes, "messages": n})
    lines = [f"{row['name']:34}{row['bytes']:10,.0f} bytes a message" for row in rows]
    vectors, ours = rows[1]["bytes"], rows[2]["bytes"]
    bars = [
        Bar("resident memory saved, beside vectors as lists", 1 - ours / vectors, SAVED,
            "", least=True)
    ]  # fmt: skip
    return Findings("\n".join(lines), rows, bars)


def sections(quick: bool, progress: Callable[[str], None]) -> Iterator[Section]:
    tasks = 60 if quick else 300
    for n in (1_000, 10_000) if quick else (1_000, 10_000, 100_000):
        yield Section(
            f"memory: input and recall, {n:,} episodes", lambda n=n: calls(n, tasks)
        )
    n = TRIPLES // 10 if quick else TRIPLES
    yield Section(f"memory: graph, {n:,} triples", lambda: graph(n, 10 * tasks))
    yield Section("memory: saved", lambda: saved(10 if quick else 40))
    yield Section("memory: resident", lambda: resident(2_000 if quick else 10_000))
