"""Extracts keep to their budget, point to the original, and keep what matters."""

import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxpool.context import Extract, HeuristicTokenizer, ImportanceModel, Piece, Span
from ctxpool.context.extract import extract
from ctxpool.context.scoring import FEATURES, ScoredPieces
from ctxpool.context.sentences import split

WORDS = st.sampled_from(
    ["the", "disk", "db-7", "failed", "91", "%", "Anna", "E4031", "yes", "漢字", "🎉",
     "\0", ". ", "\n", "\n\n", "```\n", "| ", "- ", ", ", "{", "x" * 70]
)  # fmt: skip
TEXTS = st.lists(WORDS, max_size=120).map(" ".join) | st.text(max_size=300)
count = HeuristicTokenizer().count

NOTE = (
    "Hi all, thanks for joining today! As you know it was a long week. "
    "The checkout service failed at 14:02 with error E4031. "
    "That was not so nice for anyone. We rolled back to v2.8.1 at 14:20."
)


def check(kept: Extract, text: str) -> None:
    """The spans give the text, and there is nothing else in it."""
    assert kept.original_length == len(text)
    previous = at = 0
    for span in kept.spans:
        assert previous <= span.start < span.end <= len(text)
        assert (
            kept.text[span.at :][: span.end - span.start] == text[span.start : span.end]
        )
        assert kept.text[at : span.at] in ("", " ", "\n")
        previous, at = span.end, span.at + span.end - span.start
    assert at == len(kept.text)
    assert kept.lossy == (kept.text != text)


@settings(max_examples=60)
@given(TEXTS, st.floats(0.001, 1))
def test_by_ratio(text: str, ratio: float) -> None:
    kept = extract(text, ratio=ratio)
    check(kept, text)
    assert len(kept.text) <= len(text) * ratio
    assert extract(text, ratio=ratio) == kept


@settings(max_examples=60)
@given(TEXTS, st.integers(0, 200))
def test_by_tokens(text: str, tokens: int) -> None:
    kept = extract(text, tokens=tokens)
    check(kept, text)
    assert count(kept.text) <= tokens
    assert kept.lossy == (count(text) > tokens)


@settings(max_examples=60)
@given(TEXTS, st.integers(0, 50), st.randoms(use_true_random=False))
def test_a_count_without_sense_breaks_nothing(
    text: str, tokens: int, random: random.Random
) -> None:
    seen: dict[str, int] = {}

    def count(part: str) -> int:
        return seen.setdefault(part, random.randint(0, 100))

    kept = extract(text, tokens=tokens, count=count)
    check(kept, text)
    assert not kept.text or seen[kept.text] <= tokens


def test_what_matters_is_kept() -> None:
    kept = extract(NOTE, ratio=0.5)
    last = NOTE.index("We rolled")
    assert kept.text == NOTE[66:120] + " " + NOTE[last:]
    assert kept.spans == (Span(66, 120, 0), Span(last, len(NOTE), 55))
    assert kept.ratio == len(kept.text) / len(NOTE)


def test_what_was_said_is_not_said_again() -> None:
    lines = [f"2024-05-01 10:00:{i:02} GET /healthz 200" for i in range(50)]
    lines[31] = "2024-05-01 10:00:31 disk /var/lib/orders 91 % full"
    kept = extract("\n".join(lines), ratio=0.1)
    assert "/var/lib/orders" in kept.text
    once = extract("The job failed twice. " * 40, ratio=0.5)
    assert once.text == "The job failed twice."


def test_neighbours_keep_what_is_between_them() -> None:
    text = (
        "def f(x):\n    return x1 + y2\n\nnothing of note here, really nothing at all"
    )
    assert extract(text, ratio=0.5).text == "def f(x):\n    return x1 + y2"


@pytest.mark.parametrize(
    "text",
    ["", "   \n ", "🎉🎉 👩\u200d👩\u200d👧", "\0\0\0", "--- --- ---", "the of and a"],
)  # fmt: skip
def test_texts_without_a_word_of_weight(text: str) -> None:
    check(extract(text, ratio=0.6), text)
    assert extract(text, ratio=1) == Extract.whole(text)
    assert extract(text, tokens=10**6).lossy is False


def test_even_one_giant_word_is_cut_to_fit() -> None:
    kept = extract("x1" * 5000, ratio=0.01)
    assert 0 < len(kept.text) <= 100
    assert extract("x1" * 5000, tokens=0).text == ""


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({}, TypeError, "one of ratio and tokens is needed"),
        ({"ratio": 0.5, "tokens": 4}, TypeError, "one of ratio and tokens"),
        ({"ratio": 0}, ValueError, "at most 1, not 0"),
        ({"ratio": 1.5}, ValueError, "at most 1, not 1.5"),
        ({"ratio": math.nan}, ValueError, "not nan"),
        ({"ratio": "half"}, TypeError, "not 'half'"),
        ({"tokens": -1}, ValueError, "not -1"),
        ({"tokens": 1.5}, TypeError, "not 1.5"),
        ({"tokens": 2, "count": lambda part: -1}, ValueError, "-1"),
        ({"tokens": 2, "count": lambda part: "9"}, TypeError, "9"),
        ({"ratio": 0.5, "pieces": [Piece(0, 999, "prose")]}, ValueError, "999"),
        ({"ratio": 0.5, "pieces": [Piece(3, 5, "prose"), Piece(4, 6, "prose")]},
         ValueError, "behind the one before"),
    ],
)  # fmt: skip
def test_bad_arguments(
    arguments: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        extract(NOTE, **arguments)


def test_no_text() -> None:
    with pytest.raises(TypeError, match="not b'x'"):
        extract(b"x", ratio=0.5)  # type: ignore[arg-type]


def test_what_count_raises_comes_through() -> None:
    with pytest.raises(ZeroDivisionError):
        extract(NOTE, tokens=5, count=lambda part: 1 // 0)


def test_pieces_of_ones_own_are_kept_whole() -> None:
    pieces = [Piece(0, 120, "prose"), Piece(121, len(NOTE), "prose")]
    kept = extract(NOTE, ratio=0.7, pieces=pieces)
    assert kept.text == NOTE[:120]


# --- importance ----------------------------------------------------------------------


def test_an_importance_of_ones_own() -> None:
    def only_nice(pieces: ScoredPieces) -> list[float]:
        return [float("nice" in text) for text in pieces.texts]

    kept = extract(NOTE, ratio=0.3, importance=only_nice)
    assert kept.text.startswith("That was not so nice")


@pytest.mark.parametrize(
    ("importance", "says"),
    [
        (lambda pieces: [1.0], "5 weights"),
        (lambda pieces: [-1.0] * len(pieces), "not .*-1.0"),
        (lambda pieces: [math.nan] * len(pieces), "nan"),
        (lambda pieces: [math.inf] * len(pieces), "inf"),
        (lambda pieces: "heavy", "could not convert"),
    ],
)
def test_a_wrong_importance(importance: Callable[..., Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        extract(NOTE, ratio=0.5, importance=importance)


@settings(max_examples=50)
@given(TEXTS)
def test_features_are_finite(text: str) -> None:
    scored = ScoredPieces(text, split(text))
    assert scored.features.shape == (len(scored), len(FEATURES))
    assert np.isfinite(scored.features).all()
    assert (scored.features >= 0).all()
    assert np.isfinite(scored.prior).all()
    assert (scored.prior > 0).all()


def test_a_model_learns() -> None:
    texts = [
        f"It was a day like any other. Please call Mr. Novak at {i}-555. Bye now."
        for i in range(5)
    ]
    facts = [[("Novak",)]] * 5
    model = ImportanceModel.fit(texts, facts)
    kept = extract(
        "We saw 4,711 ships at 14:02. It rained. You can call Ms. Weiss, she knows.",
        ratio=0.7,
        importance=ImportanceModel({"names": 50.0}),
    )
    assert kept.text.endswith("she knows.")
    again = ImportanceModel(model.weights)
    assert again.weights == model.weights
    assert again.weights["names"] > 0
    assert repr(again) == repr(model)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: ImportanceModel({"beauty": 1}), "'beauty'"),
        (lambda: ImportanceModel({"names": math.nan}), "'names' is not finite: nan"),
        (lambda: ImportanceModel.fit(["a"], []), "1 texts need as many"),
        (lambda: ImportanceModel.fit(["a b"], [[("z",)]]), "0 of 1 pieces"),
        (lambda: ImportanceModel.fit([], []), "0 of 0 pieces"),
        (lambda: ImportanceModel.fit(["a"], [[("a",)]], ridge=0), "not 0"),
    ],
)
def test_no_model(call: Callable[[], object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        call()


# --- all at once ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "unit",
    ["word ", "x", " ", ".", "a. ", "\na", '{"a":1,"b":[2,3]},', "🎉👩\u200d👧 ",
     "我们决定。", "שלום עולם. ", "\0", "1 ", "| a | b |\n", "GET /healthz 200 1ms\n"],
)  # fmt: skip
def test_no_text_takes_long(unit: str) -> None:
    """Minutes, if anything were quadratic."""
    text = unit * (60_000 // len(unit))
    assert len(extract(text, ratio=0.25).text) <= len(text) // 4


def test_many_lines_alike_but_for_a_number_take_no_time() -> None:
    extract("\n".join(f"request {i} took {i % 97} ms" for i in range(3000)), ratio=0.3)
