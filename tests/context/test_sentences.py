# ruff: noqa: RUF001
"""Pieces of a text: where they end, and that nothing is lost."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxpool.context.sentences import Piece, split

SHAPES = st.text(
    st.sampled_from(
        list("aB1 .\n\t,!?…\"')。！；`#|-*{}[]\r\u2028\u0301\u200d\ufe0f👩🏽שع漢\0")
    ),
    max_size=300,
)


def texts(text: str, limit: int = 320) -> list[str]:
    return [text[piece.start : piece.end] for piece in split(text, limit)]


def kinds(text: str) -> list[str]:
    return [piece.kind for piece in split(text)]


@settings(max_examples=60)
@given(SHAPES | st.text(max_size=200), st.integers(1, 60))
def test_only_blanks_are_between_the_pieces(text: str, limit: int) -> None:
    previous = 0
    for start, end, _ in split(text, limit):
        assert previous <= start < end <= len(text)
        assert end - start <= limit
        assert text[previous:start].strip() == ""
        assert text[start:end].strip() != ""
        assert text[start:end] == text[start:end].rstrip()
        previous = end
    assert text[previous:].strip() == ""


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("", []),
        (" \n\t ", []),
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ('He said "stop." Then he left.', ['He said "stop."', "Then he left."]),
        ("Dr. Lee met J. Smith, e.g. at St. Ives.",
         ["Dr. Lee met J. Smith, e.g. at St. Ives."]),
        ("Version 3.11 is out. It is fast.", ["Version 3.11 is out.", "It is fast."]),
        ("See v1.2. It works", ["See v1.2.", "It works"]),
        ("1. First\n2. Second", ["1. First", "2. Second"]),
        ("我们决定了。明天发布！好吗？", ["我们决定了。", "明天发布！", "好吗？"]),
        ("שלום עולם. זה משפט.", ["שלום עולם.", "זה משפט."]),
        ("a\r\nb\rc", ["a", "b", "c"]),
        ("key: 1\n  nested: 2\n", ["key: 1", "  nested: 2"]),
    ],
)  # fmt: skip
def test_where_they_end(text: str, pieces: list[str]) -> None:
    assert texts(text) == pieces


def test_a_wrapped_sentence_is_one() -> None:
    wrapped = (
        "This is a sentence that was wrapped by an editor at a margin\n"
        "and goes on in the next line. This is another.\n"
    )
    assert texts(wrapped) == [wrapped[:90], "This is another."]
    assert texts("import os\nimport sys") == ["import os", "import sys"]


def test_code_is_cut_at_lines_only() -> None:
    code = "```py\nx = 1. if y else 2. \n\n    z = 3  # So. It is.\n```\n"
    text = f"Look. Here:\n{code}Done. Bye."
    assert texts(text) == [
        "Look.",
        "Here:",
        "```py",
        "x = 1. if y else 2.",
        "    z = 3  # So. It is.",
        "```",
        "Done.",
        "Bye.",
    ]
    assert kinds(text) == ["prose"] * 2 + ["code"] * 4 + ["prose"] * 2


def test_kinds() -> None:
    text = "# Head\n- item\n12) item\n| a. B | c |\nprose"
    assert kinds(text) == ["heading", "list", "list", "table", "prose"]


def test_long_ones_are_cut_at_blanks_and_commas() -> None:
    assert texts("aaa bbb ccc ddd", 8) == ["aaa bbb", "ccc ddd"]
    assert texts('{"a":1,"b":2,"c":3}', 10) == ['{"a":1,', '"b":2,', '"c":3}']
    assert texts("x" * 10, 4) == ["xxxx", "xxxx", "xx"]


def test_a_cut_goes_on() -> None:
    assert texts("a{{{b", 1) == ["a", "{", "{", "{", "b"]
    with pytest.raises(ValueError, match="not 0"):
        split("a", 0)


def test_no_cut_before_what_combines() -> None:
    family = "👩\u200d👩\u200d👧"
    assert texts(f"aa{family}", 4) == ["aa", family[:4], family[4:]]  # it is too long
    assert texts(f"aaaa{family}", 6) == ["aaaa", family]
    assert texts("aaae\u0301bbb", 4) == ["aaa", "e\u0301bb", "b"]


@pytest.mark.parametrize(
    "unit", [" ", ".", ". ", "\n", "\n ", "x", "\u0301", "(", "```\n"]
)
def test_no_text_takes_long(unit: str) -> None:
    """Minutes, if anything were quadratic."""
    split(unit * (200_000 // len(unit)))


def test_a_piece_is_a_tuple() -> None:
    assert split("Hi.") == [Piece(0, 3, "prose")] == [(0, 3, "prose")]
