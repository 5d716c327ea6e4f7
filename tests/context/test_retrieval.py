"""The retriever: what it finds, in which order, and what it keeps in step."""

import os
import signal
import sys
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from ctxpool.context import (
    CallableEmbedder,
    ContextRetriever,
    FlatIndex,
    HashedEmbedder,
    maximal_marginal_relevance,
)
from ctxpool.errors import StoreError

WORDS = ["red", "green", "blue", "one", "two", "three"]


def bag(texts):
    """How often each of WORDS is in a text, and a little of something else."""
    return [[text.split().count(word) for word in WORDS] + [0.1] for text in texts]


def made(**given):
    given.setdefault("clock", lambda: 1000.0)
    return ContextRetriever(CallableEmbedder(bag, 7), FlatIndex(7), **given)


def ids(hits):
    return [hit.id for hit in hits]


# --- finding ---------------------------------------------------------------------


def test_the_nearest_first():
    held = made()
    assert held.retrieve("red") == []
    assert held.add(["red one", "red", "green", "blue"], ["a", "b", "c", "d"]) == [
        *"abcd"
    ]
    hits = held.retrieve("red", 2)
    assert ids(hits) == ["b", "a"]
    assert hits[0].similarity == pytest.approx(1, abs=1e-6)
    assert hits[0].score == hits[0].similarity
    assert (hits[0].text, hits[0].metadata, hits[0].record.timestamp) == (
        "red",
        {},
        1000,
    )
    assert ids(held.retrieve("red", 4, threshold=0.5)) == ["b", "a"]
    assert ids(held.retrieve(bag(["blue"])[0], 1)) == ["d"]
    assert held.retrieve("red", threshold=1.0, where={"x": 1}) == []
    assert ids(made(threshold=0.9).retrieve("red")) == []


def test_where():
    held = made()
    texts = [f"red {WORDS[n % 6]}" for n in range(60)]
    info = [{"n": n, "even": n % 2 == 0} for n in range(60)]
    held.add(texts, metadata=info)
    hits = held.retrieve("red", 30, where={"even": True})
    assert {hit.metadata["even"] for hit in hits} == {True}
    assert len(hits) == 30
    assert ids(held.retrieve("red", 5, where={"n": 41})) == [41]
    assert held.retrieve("red", 5, where={"none": 41}) == []
    found = held.retrieve("red", 60, where=lambda record: record.metadata["n"] < 9)
    assert sorted(ids(found)) == list(range(9))
    unhashable = held.retrieve("red", 5, where={"n": [1]})
    assert unhashable == []
    with pytest.raises(TypeError, match="where must be a mapping or callable, not 3"):
        held.retrieve("red", where=3)


@given(
    kept=st.sets(st.integers(0, 79), max_size=80),
    k=st.integers(1, 12),
    query=st.sampled_from(WORDS),
)
@settings(max_examples=40)
def test_where_is_exact(kept, k, query):
    held = FILTERED
    found = held.retrieve(query, k, where=lambda record: record.id in kept)
    everything = held.retrieve(query, 80)
    assert ids(found) == [id for id in ids(everything) if id in kept][:k]


FILTERED = made(cache_size=0)
FILTERED.add([f"{' '.join(WORDS[: n % 7])} {'red ' * n}" for n in range(80)])


def test_recency_and_importance():
    held = made()
    held.add(
        ["red", "red", "green"],
        ["old", "new", "off"],
        timestamps=[0, 900, 1000],
        importance=[1.0, 0.0, 1.0],
    )
    recent = held.retrieve("red", 3, recency=1.0, half_life=100, now=1000)
    assert ids(recent)[0] == "new"
    by_id = {hit.id: hit for hit in recent}
    assert by_id["new"].similarity == pytest.approx(1, abs=1e-6)
    assert by_id["new"].score == pytest.approx((1 + 0.5) / 2, abs=3e-3)
    assert by_id["old"].score == pytest.approx((1 + 0.5**10) / 2, abs=3e-3)
    assert by_id["off"].score == pytest.approx((0.01 + 1) / 2, abs=0.01)
    weighed = held.retrieve("red", 3, importance=0.5)
    assert ids(weighed)[0] == "old"
    assert weighed[0].score == pytest.approx(1, abs=1e-6)
    # What is of the future counts as of now.
    assert held.retrieve("red", 1, recency=1, now=-1e9)[0].score == pytest.approx(1)
    assert ids(held.retrieve("red", 1, recency=1, half_life=1e3)) == ["new"]  # now
    # Among as many of the most similar only.
    assert "off" not in ids(held.retrieve("red", 2, recency=5, candidates=2))


def test_diversity():
    held = made()
    held.add(["red one", "red one", "red two"], ["a", "b", "c"])
    assert set(ids(held.retrieve("red one", 2))) == {"a", "b"}
    assert ids(held.retrieve("red one", 2, diversity=0.6))[1] == "c"
    assert len(held.retrieve("red one", 9, diversity=1.0)) == 3


@given(
    n=st.integers(0, 9),
    k=st.integers(1, 12),
    diversity=st.floats(0, 1),
    seed=st.integers(0, 50),
)
@settings(max_examples=60)
def test_mmr_as_it_is_defined(n, k, diversity, seed):
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((n, 4)).astype("f4")
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    relevance = rng.random(n)
    chosen, left = [], list(range(n))
    while left and len(chosen) < k:

        def gain(i):
            near = max((float(vectors[i] @ vectors[j]) for j in chosen), default=0.0)
            return (1 - diversity) * relevance[i] - diversity * near

        best = max(left, key=lambda i: (round(gain(i), 5), -i))
        chosen.append(best)
        left.remove(best)
    found = maximal_marginal_relevance(relevance, vectors, k, diversity)
    if diversity < 0.999:  # with ties that rounding decides, any order will do
        assert found == chosen or len(set(found)) == len(chosen)
    assert sorted(set(found)) == sorted(found)


def test_mmr_of_bad_diversity():
    with pytest.raises(ValueError, match="diversity must be from 0 to 1, not 2"):
        maximal_marginal_relevance([1], np.ones((1, 1), "f4"), 1, 2)


# --- the cache -------------------------------------------------------------------


def test_answers_are_cached_until_something_changes():
    asked = []

    def function(texts):
        asked.extend(texts)
        return bag(texts)

    held = ContextRetriever(CallableEmbedder(function, 7), clock=lambda: 5.0)
    held.add(["red", "green"], ["a", "b"])
    asked.clear()
    first = held.retrieve("red", 1)
    first.clear()  # the caller's own
    assert ids(held.retrieve("red", 1)) == ["a"]
    assert ids(held.retrieve(bag(["red"])[0], 1)) == ["a"]
    assert asked == ["red"]
    stats = held.stats()
    assert (stats.hits, stats.misses, stats.embeds) == (2, 1, 1)
    assert stats.hit_ratio == pytest.approx(2 / 3)
    held.retrieve("red", 2)
    held.retrieve("red", 1, threshold=0.1)
    held.retrieve("red", 1, where={"x": 1})
    held.retrieve("red", 1, where={"x": 1})
    assert held.stats().misses == 4
    held.retrieve("red", 1, where=lambda record: True)
    held.retrieve("red", 1, where=lambda record: True)
    assert held.stats().misses == 6
    for change in (
        lambda: held.add(["red red"], ["c"]),
        lambda: held.update("c", importance=0.5),
        lambda: held.remove(["c"]),
    ):
        change()
        before = held.stats().misses
        held.retrieve("red", 1)
        assert held.stats().misses == before + 1
    assert held.remove(["none"]) == 0
    held.retrieve("red", 1)
    assert held.stats().misses == before + 1
    assert held.stats().as_dict()["records"] == 2


def test_recency_is_cached_for_a_moment():
    held = made()
    held.add(["red"], timestamps=0)
    for now in (1000.0, 1000.1, 1001.0):
        held.retrieve("red", recency=1, half_life=1000, now=now)
    held.retrieve("red", recency=1, half_life=1000, now=1900)
    assert (held.stats().hits, held.stats().misses) == (2, 2)


def test_a_query_is_embedded_anew_when_the_embedder_has_learned():
    held = ContextRetriever(HashedEmbedder(128))
    held.add(["alpha error", "beta error"])
    held.retrieve("alpha error")
    held.retrieve("alpha error")
    held.add(["gamma error"])
    assert held.embedder.documents == 3
    held.retrieve("alpha error")
    assert held.stats().embeds == 2
    held.update(0, "delta")
    held.remove([1])
    held.clear()
    assert held.embedder.documents == 0
    assert len(held) == 0


def test_without_a_cache():
    held = made(cache_size=0)
    held.add(["red"])
    held.retrieve("red")
    held.retrieve("red")
    assert (held.stats().hits, held.stats().misses, held.stats().embeds) == (0, 2, 2)


# --- what is held ----------------------------------------------------------------


class Machine(RuleBasedStateMachine):
    """Against a dict of texts."""

    texts = st.lists(st.sampled_from(WORDS), max_size=3).map(" ".join)
    names = st.one_of(st.integers(0, 5), st.sampled_from("ab"))

    def __init__(self):
        super().__init__()
        self.held, self.model = made(), {}

    @rule(items=st.lists(st.tuples(names, texts), max_size=4))
    def add(self, items):
        given = [id for id, _ in items]
        if len(set(given)) < len(given) or set(given) & set(self.model):
            with pytest.raises(ValueError, match=r"taken|twice"):
                self.held.add([text for _, text in items], given)
        else:
            self.held.add([text for _, text in items], given)
            self.model.update(items)

    @rule(new=st.lists(texts, max_size=3))
    def add_without_ids(self, new):
        given = self.held.add(new)
        assert not set(given) & set(self.model)
        self.model.update(zip(given, new, strict=True))

    @rule(id=names, text=texts)
    def update(self, id, text):
        if id in self.model:
            assert self.held.update(id, text).text == text
            self.model[id] = text
        else:
            with pytest.raises(KeyError):
                self.held.update(id, text)

    @rule(given=st.lists(names, max_size=3))
    def remove(self, given):
        known = set(given) & set(self.model)
        assert self.held.remove(given) == len(known)
        for id in known:
            del self.model[id]

    @rule(query=texts, k=st.integers(1, 5))
    def retrieve(self, query, k):
        row = np.array(bag([query])[0])
        found = self.held.retrieve(query, k)

        def similarity(text):
            other = np.array(bag([text])[0])
            return row @ other / np.linalg.norm(row) / np.linalg.norm(other)

        best = sorted(map(similarity, self.model.values()), reverse=True)[:k]
        assert [hit.similarity for hit in found] == pytest.approx(best, abs=1e-5)
        assert all(self.model[hit.id] == hit.text for hit in found)

    @invariant()
    def in_step(self):
        assert list(self.held) == list(self.model)
        assert set(self.held.index) == set(self.model)
        assert len(self.held) == len(self.model)


def test_as_a_dict_of_texts():
    run_state_machine_as_test(
        Machine, settings=settings(max_examples=25, stateful_step_count=25)
    )


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"texts": "red"}, TypeError, "not one: 'red'"),
        ({"texts": ["red", 3]}, TypeError, "must be str, not 3"),
        ({"ids": ["a"]}, ValueError, "2 texts have 1 ids"),
        ({"ids": ["a", "a"]}, ValueError, "'a' is given twice"),
        ({"ids": ["x", "here"]}, ValueError, "'here' is taken"),
        ({"ids": ["x", 1.5]}, TypeError, "str or int, not 1.5"),
        ({"metadata": [{}]}, ValueError, "2 texts have 1 of metadata"),
        ({"metadata": [{}, 3]}, TypeError, "metadata must be mappings, not 3"),
        ({"metadata": 3}, TypeError, "metadata must be one or a sequence, not 3"),
        ({"importance": 2}, ValueError, "importance must be from 0 to 1, not 2"),
        ({"importance": "x"}, TypeError, "importance must be a number, not 'x'"),
        ({"importance": [0.5]}, ValueError, "2 texts have 1 of importance"),
        ({"timestamps": float("nan")}, ValueError, "timestamp must be finite, not nan"),
        ({"vectors": [[1]]}, ValueError, "are needed"),
    ],
)
def test_bad_texts_change_nothing(arguments, error, says):
    held = made()
    held.add(["green"], ["here"])
    with pytest.raises(error, match=says):
        held.add(**{"texts": ["red", "blue"], **arguments})
    assert list(held) == list(held.index) == ["here"]
    assert held.stats().epoch == 1


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"k": 0}, ValueError, "k must be from 1"),
        ({"threshold": 2}, ValueError, "threshold must be from -1 to 1, not 2"),
        ({"recency": -1}, ValueError, "recency must be from 0"),
        ({"recency": 1, "half_life": 0}, ValueError, "half_life must be at least"),
        ({"recency": 1, "now": "x"}, TypeError, "now must be a number, not 'x'"),
        ({"importance": "x"}, TypeError, "importance must be a number"),
        ({"diversity": 1.5}, ValueError, "diversity must be from 0 to 1, not 1.5"),
        ({"candidates": 0}, ValueError, "candidates must be from 1"),
        ({"query": [1, 2]}, ValueError, r"shape \(7,\) is needed"),
        ({"query": None}, (TypeError, ValueError), "needed"),
    ],
)
def test_bad_questions(arguments, error, says):
    held = made()
    held.add(["green"])
    with pytest.raises(error, match=says):
        held.retrieve(**{"query": "red", **arguments})


def test_bad_parts():
    with pytest.raises(TypeError, match="an embedder is needed, not 3"):
        ContextRetriever(3)
    with pytest.raises(TypeError, match="an index of vectors is needed, not 3"):
        ContextRetriever(index=3)
    with pytest.raises(ValueError, match="index is of 3 dimensions, the embedder of 7"):
        ContextRetriever(CallableEmbedder(bag, 7), FlatIndex(3))
    full = FlatIndex(768)
    full.add([1], np.ones((1, 768)))
    with pytest.raises(ValueError, match="an empty index is needed"):
        ContextRetriever(index=full)
    with pytest.raises(TypeError, match="clock must be callable, not 3"):
        ContextRetriever(clock=3)
    with pytest.raises(ValueError, match="threshold must be from -1 to 1, not 3"):
        ContextRetriever(threshold=3)


def test_update_changes_only_what_is_given():
    held = made()
    info = {"kind": "note"}
    held.add(["red"], ["a"], metadata=info, importance=0.5, timestamps=7)
    info["kind"] = "other"
    record = held.update("a", "green")
    assert (record.metadata, record.importance, record.timestamp) == (
        {"kind": "note"},
        0.5,
        7,
    )
    held.update("a", metadata={"n": 1}, importance=1, timestamp=8)
    record = held.get("a")
    assert (record.text, dict(record.metadata), record.timestamp) == (
        "green",
        {"n": 1},
        8,
    )
    assert held.retrieve("green", 1)[0].similarity == pytest.approx(1, abs=1e-5)
    for bad in ({"importance": 3}, {"text": 3}, {"metadata": 3}):
        with pytest.raises((TypeError, ValueError)):
            held.update("a", **bad)
    with pytest.raises(KeyError):
        held.get("b")
    assert "1 texts" in repr(held)


# --- callbacks -------------------------------------------------------------------


def test_an_embedder_that_raises_changes_nothing():
    def function(texts):
        if "bad" in texts:
            raise RuntimeError("bad")
        return bag(texts)

    held = ContextRetriever(CallableEmbedder(function, 7))
    held.add(["red"], ["a"])
    for act in (
        lambda: held.add(["green", "bad"]),
        lambda: held.update("a", "bad"),
        lambda: held.retrieve("bad"),
        lambda: held.retrieve("red", where=lambda record: 1 / 0),
    ):
        with pytest.raises((RuntimeError, ZeroDivisionError)):
            act()
    assert held.get("a").text == "red"
    assert ids(held.retrieve("red")) == ["a"]


def test_callbacks_may_use_the_retriever():
    held = None

    def function(texts):
        if held is not None and len(held) < 20:
            for id in list(held)[:1]:
                held.remove([id])
            held.retrieve(bag(["blue"])[0], 3)
        return bag(texts)

    held = ContextRetriever(CallableEmbedder(function, 7))
    held.add(["red", "green", "blue"], ["a", "b", "c"])
    held.add(["one"], ["d"])
    assert list(held) == ["b", "c", "d"]

    def hostile(record):
        held.remove([record.id])
        return True

    assert len(held.retrieve("two", 2, where=hostile)) == 2
    assert not len(held)
    held.add(["red", "green"])
    assert (
        held.retrieve("red", 2, where=lambda r: held.clear() or True, diversity=1) == []
    )


def test_an_index_that_fails_changes_nothing():
    class Failing(FlatIndex):
        broken = False

        def add(self, ids, vectors):
            if self.broken:
                raise MemoryError
            super().add(ids, vectors)

    held = ContextRetriever(HashedEmbedder(64), Failing(64))
    held.add(["red"], ["a"])
    held.index.broken = True
    for act in (lambda: held.add(["blue"]), lambda: held.update("a", "blue")):
        with pytest.raises(MemoryError):
            act()
    assert held.get("a").text == "red"
    assert held.embedder.documents == 1
    held.index.broken = False
    assert held.add(["blue"]) != ["a"]


def test_threads():
    held = ContextRetriever(HashedEmbedder(64), cache_size=16)
    held.add(["red one", "red two"], ["keep1", "keep2"])
    barrier, errors = threading.Barrier(4), []

    def work(number):
        try:
            barrier.wait(10)
            for n in range(40):
                (id,) = held.add([f"text {number} of {n} green"])
                hits = held.retrieve(f"text {number} of {n} green", 3)
                assert hits[0].similarity > 0.5
                found = held.retrieve("red", 2, where=lambda r: "red" in r.text)
                assert {"keep1", "keep2"} == {hit.id for hit in found}
                held.retrieve("green", 5, diversity=0.5, recency=1.0)
                if n % 2:
                    held.update(id, "changed")
                held.remove([id])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors
    assert sorted(held) == sorted(held.index) == ["keep1", "keep2"]
    assert held.embedder.documents == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.skipif(
    not getattr(sys, "_is_gil_enabled", lambda: True)(),
    reason="without the GIL a fork among busy threads is not supported",
)
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_forked_among_busy_threads():
    held = ContextRetriever(HashedEmbedder(64))
    held.add(["red one", "green two"])
    stop = threading.Event()

    def work():
        while not stop.is_set():
            held.remove(held.add(["blue three"]))
            held.retrieve("red", 1)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            pid = os.fork()
            if pid == 0:
                try:
                    signal.alarm(30)
                    held.add(["red again"])
                    os._exit(0 if len(held.retrieve("red", 9)) >= 3 else 1)
                finally:
                    os._exit(2)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
    assert len(held) == 2


# --- recall, files ---------------------------------------------------------------


def test_recall():
    held = made()
    report = held.recall(["red"], 3)
    assert (report.recall, report.worst, report.queries) == (1.0, 1.0, 1)
    held.add([f"{' '.join(WORDS[n % 5 :])} red" * (n % 3) for n in range(50)])
    assert held.recall(["red", "blue", "none"], 10).recall == 1.0
    assert held.recall(np.array(bag(["red"])), 100).recall == 1.0
    with pytest.raises(ValueError, match="recall needs queries"):
        held.recall([])

    class Half(FlatIndex):
        def search(self, query, k, *, among=None):
            return super().search(query, k, among=among)[: k // 2]

    half = ContextRetriever(HashedEmbedder(64), Half(64))
    half.add([f"number {n}" for n in range(40)])
    report = half.recall(["number 3", "number 7"], 10)
    assert report.recall == pytest.approx(0.5, abs=0.01)
    assert report.as_dict()["k"] == 10


def test_saved_and_opened(tmp_path):
    path = tmp_path / "notes"
    held = ContextRetriever(clock=lambda: 3.0)
    held.add(["alpha one", "beta two"], ["a", 7], metadata=[{"x": [1]}, None])
    held.add(["gamma three"], importance=0.25, timestamps=9)
    held.save(path)
    opened = ContextRetriever.open(path, cache_size=4)
    assert [opened.get(id) for id in opened] == [held.get(id) for id in held]
    assert opened.embedder.documents == 3
    assert opened.retrieve("beta") == held.retrieve("beta")
    assert opened.add(["more"]) == held.add(["more"])
    with pytest.raises(StoreError, match="made with the embedder 'hashed-2-768-3-5'"):
        ContextRetriever.open(path, HashedEmbedder(64))
    for lost in ({"x": {1}}, {"x": (1,)}, {1: "x"}, {"x": float("nan")}):
        held.update("a", metadata=lost)
        with pytest.raises(TypeError, match="metadata of 'a' can't be written"):
            held.save(path)
    assert len(ContextRetriever.open(path)) == 3
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(StoreError, match="damaged"):
        ContextRetriever.open(path)
    with pytest.raises(StoreError, match="can't be read"):
        ContextRetriever.open(tmp_path / "none")
    FlatIndex(2).save(path)
    with pytest.raises(StoreError, match="holds a flat index, not a retriever"):
        ContextRetriever.open(path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_killed_while_it_saves(tmp_path):
    path = tmp_path / "notes"
    held = ContextRetriever(HashedEmbedder(64))
    held.add(["text 0"])
    held.save(path)
    for _ in range(4):
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                while True:
                    held.add([f"text {len(held)}"])
                    held.save(path)
                    os.write(write, b"%d\n" % len(held))
            finally:
                os._exit(1)
        os.close(write)
        told = b""
        while told.count(b"\n") < 5:
            told += os.read(read, 100)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        while more := os.read(read, 65536):
            told += more
        os.close(read)
        opened = ContextRetriever.open(path, HashedEmbedder(64))
        assert len(opened) - int(told.split()[-1]) in (0, 1)
        assert len(opened.index) == len(opened)
