"""Episodes: what comes back, what goes, and what a crash or a bad callback can do."""

import math
import os

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ctxpool.context import EpisodicMemory, FlatIndex, HashedEmbedder
from ctxpool.errors import (
    StoreError,
    ValueTooLargeError,
)

DAY = 86400.0


class Letters:
    """A vector of how often each of eight letters is in a text."""

    name = "letters"
    dimensions = 8

    def embed(self, texts):
        made = np.array([[t.count(c) for c in "abcdefgh"] for t in texts], np.float32)
        return made.reshape(len(texts), 8)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def memory(clock):
    with EpisodicMemory(clock=clock) as made:
        yield made


def texts(found):
    return [one.episode.text for one in found]


# --- remembering and recalling -------------------------------------------------------


def test_what_was_said_comes_back(memory, clock):
    clock.now = 5.0
    said = memory.remember(
        "The build fails with error 137",
        role="user",
        id="m1",
        importance=0.7,
        metadata={"by": "Ada"},
        sources=["m0"],
    )
    memory.remember("Lunch was good")
    (found,) = memory.recall("what error did the build give", 1)
    assert found.episode.text == said.text
    assert (found.episode.uses, found.episode.created) == (0, 5.0)
    assert 0 < found.score <= found.similarity
    assert memory.get("m0") == memory.get("m1")
    assert memory.get("m1").metadata == {"by": "Ada"}
    assert "m0" in memory
    assert memory.get("m2") is None
    memory.get("m1").metadata["by"] = "Eve"  # a copy of one's own
    assert memory.get("m1").metadata == {"by": "Ada"}


def test_said_again_it_is_one(memory, clock):
    first = memory.remember("hello there", id="a", importance=0.2, metadata={"x": 1})
    clock.now = 9.0
    again = memory.remember("hello there", id="b", importance=0.9, metadata={"y": None})
    assert (again.id, again.sources, again.uses) == ("a", ("b",), 1)
    assert (again.created, again.accessed) == (first.created, 9.0)
    assert (again.importance, again.metadata) == (0.9, {"x": 1, "y": None})
    assert len(memory) == 1
    assert memory.remember("hello there", role="tool").id != "a"
    assert memory.stats().repeated == 1
    with pytest.raises(ValueError, match="'a' is that of another text"):
        memory.remember("something else", id="a")
    assert len(memory) == 2


def test_many_at_once(memory):
    found = memory.remember_many(["one", {"text": "two", "id": "2"}, "one"])
    assert [e.text for e in found] == ["one", "two", "one"]
    assert found[0].id == found[2].id
    with pytest.raises(ValueError, match="another text"):
        memory.remember_many(["three", {"text": "four", "id": "2"}])
    assert len(memory) == 2
    assert memory.remember_many([]) == []


def test_filters(memory):
    for n in range(60):
        memory.remember(f"note number {n}", metadata={"n": n, "even": n % 2 == 0})
    assert texts(memory.recall("note", 1, where={"n": 7})) == ["note number 7"]
    assert len(memory.recall("note", 60, where={"even": True})) == 30
    assert memory.recall("note", 3, where={"none": 1}) == []
    assert len(memory.recall("note", 5, where=lambda e: e.metadata["n"] > 57)) == 2
    assert memory.recall("note", 5, threshold=2) == []
    assert memory.recall("note", 0) == []
    assert memory.recall("", 5) == []


def test_recency_and_importance(clock):
    with EpisodicMemory(
        clock=clock, embedder=Letters(), half_life=DAY, recency_weight=0.5
    ) as memory:
        memory.remember("ah", importance=0.5)
        memory.remember("ag", importance=0.0)
        clock.now = 10 * DAY
        memory.remember("af", importance=0.5)
        found = memory.recall("a", count_use=False)
        assert texts(found) == ["af", "ah", "ag"]
        assert [round(one.recency, 3) for one in found] == [1.0, 0.001, 0.001]
        for _ in range(20):
            memory.recall("ah", 1)
        clock.now += DAY
        kept = {one.episode.text: one.recency for one in memory.recall("a")}
        assert kept["ah"] > 0.95 > 0.6 > kept["af"]


def test_episodes_in_time(memory):
    for n in (3, 1, 2):
        memory.remember(f"at {n}", at=n)
    assert [e.text for e in memory.episodes()] == ["at 1", "at 2", "at 3"]
    assert [e.text for e in memory.episodes(limit=2)] == ["at 2", "at 3"]
    assert [e.text for e in memory.episodes(since=2, before=3)] == ["at 2"]


class Model(RuleBasedStateMachine):
    """Against a dict, a naive retention and a naive score."""

    words = st.text("abcdefgh", min_size=1, max_size=6)

    def __init__(self):
        super().__init__()
        self.clock = Clock()
        self.gone = []
        self.memory = self.opened()
        self.model = {}  # text: [created, accessed, uses, importance, order]
        self.order = 0

    def opened(self):
        import tempfile

        self.folder = getattr(self, "folder", None) or tempfile.TemporaryDirectory()
        return EpisodicMemory(
            os.path.join(self.folder.name, "e.db"),
            embedder=Letters(),
            index=FlatIndex(8),
            max_items=6,
            half_life=10.0,
            clock=self.clock,
            on_evict=self.gone.extend,
        )

    def teardown(self):
        self.memory.close()
        self.folder.cleanup()

    def kept(self, row, importance=True):
        _, accessed, uses, weight, _ = row
        half_lives = max(self.clock.now - accessed, 0) / (10.0 * (1 + uses))
        weight = float(np.float32(weight)) if importance else 0.0
        return 2.0 ** -(half_lives * (1 - weight))

    @rule(text=words, importance=st.sampled_from([0.0, 0.25, 0.75, 1.0]))
    def remember(self, text, importance):
        self.gone.clear()
        self.memory.remember(text, importance=importance)
        if text in self.model:
            row = self.model[text]
            row[1], row[2] = max(row[1], self.clock.now), row[2] + 1
            row[3] = max(row[3], importance)
            return
        if len(self.model) == 6:
            least = min(
                self.model,
                key=lambda t: (
                    self.kept(self.model[t]),
                    self.model[t][3],
                    self.model[t][4],
                ),
            )
            assert [e.text for e in self.gone] == [least]
            del self.model[least]
        self.order += 1
        now = self.clock.now
        self.model[text] = [now, now, 0, importance, self.order]

    @rule(seconds=st.integers(1, 40))
    def wait(self, seconds):
        self.clock.now += seconds

    @rule(data=st.data())
    def forget(self, data):
        if self.model:
            text = data.draw(st.sampled_from(sorted(self.model)))
            (gone,) = self.memory.forget(self.memory.remember(text).id)
            assert gone.text == text
            del self.model[text]

    @rule(query=words, k=st.integers(1, 4))
    def recall(self, query, k):
        found = self.memory.recall(query, k)
        vectors = Letters().embed([query, *self.model])
        vectors /= np.sqrt((vectors**2).sum(axis=1))[:, None]
        expected = {}
        for text, vector in zip(self.model, vectors[1:], strict=True):
            similarity = float(vector @ vectors[0])
            if similarity > 1e-6:
                row = self.model[text]
                score = similarity * (1 - 0.2 * (1 - self.kept(row, False)))
                expected[text] = score * (1 - 0.2 * (1 - row[3]))
        best = sorted(expected.values(), reverse=True)[:k]
        assert np.allclose([one.score for one in found], best, atol=2e-3)
        for one in found:
            assert math.isclose(one.score, expected[one.episode.text], abs_tol=2e-3)
            row = self.model[one.episode.text]
            row[1], row[2] = max(row[1], self.clock.now), row[2] + 1

    @rule()
    def restart(self):
        self.memory.close()
        self.memory = self.opened()

    @invariant()
    def the_same(self):
        found = {e.text: e for e in self.memory.episodes()}
        assert set(found) == set(self.model)
        for text, episode in found.items():
            created, accessed, uses, importance, _ = self.model[text]
            assert (episode.created, episode.accessed) == (created, accessed)
            assert (episode.uses, episode.importance) == (uses, importance)
        assert len(self.memory.stats().as_dict()) == 8


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=6, stateful_step_count=25, deadline=None)


# --- bounds --------------------------------------------------------------------------


def test_a_bound_of_bytes(clock):
    gone = []
    with EpisodicMemory(
        clock=clock, embedder=Letters(), max_bytes=200, on_evict=gone.extend
    ) as memory:
        for n in range(20):
            memory.remember(f"a{n}" * 5, at=float(n))
            assert memory.stats().bytes <= 200
        assert len(gone) == memory.stats().evicted == 20 - len(memory)
        assert gone[0].text == "a0" * 5
        with pytest.raises(ValueTooLargeError, match="max_bytes, 200"):
            memory.remember("x" * 200)
        before = len(memory)
        with pytest.raises(ValueTooLargeError, match="texts at once"):
            memory.remember_many([f"b{n}" * 10 for n in range(20)])
        assert len(memory) == before


def test_the_important_stays(clock):
    with EpisodicMemory(clock=clock, embedder=Letters(), max_items=3) as memory:
        memory.remember("a", importance=1.0)
        for n in range(30):
            clock.now += DAY
            memory.remember("b" * (n + 1), importance=0.3)
        assert memory.get(memory.remember("a").id).uses == 1
        assert len(memory) == 3


def test_what_on_evict_raises_changes_nothing(clock):
    def raises(episodes):
        assert len(memory) == 1  # it may use the memory
        raise ZeroDivisionError

    memory = EpisodicMemory(clock=clock, max_items=1, on_evict=raises)
    with memory:
        memory.remember("one")
        with pytest.raises(ZeroDivisionError):
            memory.remember("two")
        assert [e.text for e in memory.episodes()] == ["two"]


# --- forgetting and consolidating ----------------------------------------------------


def test_what_is_forgotten_is_in_no_file(tmp_path):
    with EpisodicMemory(tmp_path / "e.db") as memory:
        memory.remember("the secret is xylophone", id="s")
        memory.remember("another one")
        memory.recall("secret")
        (gone,) = memory.forget("s")
        assert gone.text == "the secret is xylophone"
        for file in tmp_path.iterdir():
            assert b"xylophone" not in file.read_bytes()
        assert texts(memory.recall("secret xylophone another")) == ["another one"]
        assert memory.forget("s", "t") == []


def test_forgetting_by_time(memory):
    memory.remember_many([{"text": f"t{n}", "at": n} for n in range(5)])
    assert [e.text for e in memory.forget(before=3)] == ["t0", "t1", "t2"]
    assert len(memory) == 2


def test_consolidating(clock):
    with EpisodicMemory(clock=clock, embedder=Letters(), half_life=DAY) as memory:
        memory.remember("aab", id="1", importance=0.2, metadata={"x": 1, "z": 1})
        memory.remember("aba", id="2", importance=0.8, metadata={"y": 2, "z": 2}, at=3)
        memory.remember("ccc", id="3")
        memory.remember("hhh", id="4", importance=1.0)
        clock.now = 2 * DAY
        memory.remember("baa", id="5", importance=1.0)  # too young
        done = memory.consolidate(older_than=DAY)
        assert done.as_dict() == {"looked_at": 4, "merged": 1, "faded": 0}
        stays = memory.get("1")
        assert (stays.id, stays.sources, stays.created) == ("2", ("1",), 0.0)
        assert stays.metadata == {"x": 1, "y": 2, "z": 2}
        clock.now = 20 * DAY
        done = memory.consolidate(older_than=DAY, fade_below=0.05)
        assert (done.faded, done.merged) == (1, 1)  # ccc; 2 and 5 are one
        assert sorted(e.id for e in memory.episodes()) == ["4", "5"]
        assert memory.get("1").id == "5"


def test_consolidating_in_parts(memory):
    memory.remember_many([f"word{n} thing{n}" for n in range(10)])
    counts = [memory.consolidate(older_than=0, limit=4).looked_at for _ in range(4)]
    assert counts == [4, 4, 2, 4]


# --- embedders -----------------------------------------------------------------------


def test_another_embedder_is_refused_or_embeds_anew(tmp_path):
    path = tmp_path / "e.db"
    with EpisodicMemory(path) as memory:
        memory.remember_many([f"text {n}" for n in range(300)] + ["abc"])
    with pytest.raises(StoreError, match=r"not 'letters'.*reembed"):
        EpisodicMemory(path, embedder=Letters())
    with EpisodicMemory(path, embedder=Letters(), reembed=True) as memory:
        assert texts(memory.recall("abc", 1)) == ["abc"]
    with pytest.raises(StoreError, match="letters"):
        EpisodicMemory(path)


def test_it_learns_which_words_are_rare(tmp_path):
    for _ in range(2):  # and again from the file
        with EpisodicMemory(tmp_path / "e.db") as memory:
            memory.remember_many([f"same words {n}" for n in range(20)])
            assert memory.embedder.documents >= 20
            before = memory.embedder.documents
            memory.forget(memory.remember("gone soon").id)
            assert memory.embedder.documents == before


@pytest.mark.parametrize(
    "vectors",
    [
        lambda texts: [[math.nan] * 8] * len(texts),
        lambda texts: [[1.0] * 7] * len(texts),
        lambda texts: [[1.0] * 8] * (len(texts) + 1),
        lambda texts: 1 / 0,
        lambda texts: "text",
    ],
    ids=range(5),
)
def test_a_bad_embedder_changes_nothing(vectors):
    embedder = Letters()
    with EpisodicMemory(embedder=embedder) as memory:
        memory.remember("abc")
        embedder.embed = vectors
        with pytest.raises((ValueError, ZeroDivisionError)):
            memory.remember("abd")
        with pytest.raises((ValueError, ZeroDivisionError)):
            memory.recall("abd")
        del embedder.embed
        assert texts(memory.recall("abd")) == ["abc"]


def test_an_embedder_that_uses_the_memory():
    embedder = Letters()
    with EpisodicMemory(embedder=embedder) as memory:

        def embed(texts):
            if texts == ["a"]:
                memory.remember("b")
            return Letters.embed(embedder, texts)

        embedder.embed = embed
        memory.remember("a")
        assert {e.text for e in memory.episodes()} == {"b", "a"}


# --- bad arguments -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda m: m.remember(""), ValueError, "''"),
        (lambda m: m.remember(3), TypeError, "not 3"),
        (lambda m: m.remember("a", role=3), TypeError, "not 3"),
        (lambda m: m.remember("a", importance=1.5), ValueError, "not 1.5"),
        (lambda m: m.remember("a", metadata={"x": {1}}), TypeError, "JSON"),
        (lambda m: m.remember("a", metadata={"x": math.nan}), ValueError, "JSON"),
        (lambda m: m.remember("a", sources="ab"), TypeError, "'ab'"),
        (lambda m: m.remember("a", at="now"), TypeError, "'now'"),
        (lambda m: m.remember("\ud800"), UnicodeEncodeError, "surrogates"),
        (lambda m: m.remember_many([{"tex": "a"}]), TypeError, "tex"),
        (lambda m: m.remember_many("abc"), TypeError, "'abc'"),
        (lambda m: m.remember_many([3]), TypeError, "not 3"),
        (lambda m: m.remember("a", sources=[3]), TypeError, "not 3"),
        (lambda m: m.remember("a", id=0), TypeError, "not 0"),
        (lambda m: m.recall(3), TypeError, "not 3"),
        (lambda m: m.recall("a", -1), ValueError, "k must"),
        (lambda m: m.recall("a", where=3), TypeError, "not 3"),
        (lambda m: m.forget(3), TypeError, "not 3"),
        (lambda m: EpisodicMemory(embedder=3), TypeError, "not 3"),
        (lambda m: EpisodicMemory(index=FlatIndex(3)), ValueError, "3 dimensions"),
        (lambda m: EpisodicMemory(half_life=0), ValueError, "not 0"),
        (lambda m: EpisodicMemory(max_items=0), ValueError, "max_items"),
        (lambda m: EpisodicMemory(max_bytes="x"), ValueError, "'x'"),
    ],
    ids=range(23),
)
def test_bad_arguments(memory, call, error, says):
    with pytest.raises(error, match=says):
        call(memory)
    assert len(memory) == 0


def test_the_default_is_a_hashed_embedder(memory):
    assert isinstance(memory.embedder, HashedEmbedder)
    assert repr(memory) == "<EpisodicMemory ':memory:'>"
