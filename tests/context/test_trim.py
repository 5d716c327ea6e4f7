"""What a text can do without, and what it can't."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxpool.context.sentences import split
from ctxpool.context.trim import trim, trimmed_pieces

WORDS = st.sampled_from(
    ["so,", "basically,", "really", "as you know,", "of course.", "Thanks!", "not",
     "red", "\x1b[31m", "======", "I think that", "\n", "\n\n\n", "  ", "```\n", "91",
     "(really)"]
)  # fmt: skip


@settings(max_examples=100)
@given(st.lists(WORDS, max_size=40).map(" ".join) | st.text(max_size=100))
def test_what_is_left_is_of_the_text(text: str) -> None:
    left, pieces = trimmed_pieces(text, 100)
    previous = at = 0
    for start, end, here in left.spans:
        assert previous <= start < end <= len(text)
        assert left.text[here : here + end - start] == text[start:end]
        assert left.text[at:here].strip() == ""
        previous, at = end, here + end - start
    assert at == len(left.text)
    assert left.lossy == (left.text != text)
    previous = 0
    for start, end, _ in pieces:
        assert previous <= start < end <= len(left.text)
        assert left.text[previous:start].strip() == ""
        previous = end


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("", ""),
        ("  \n ", ""),
        ("So, basically, we had it, really.", "So we had it."),
        ("I like it very much, of course.", "I like it much."),
        ("It was great really.", "It was great."),
        ("It is not really done.", "It is not really done."),
        ("I think that it works.", "it works."),
        ("\x1b[31mred\x1b[0m alert", "red alert"),
        ("==== FAILURES ============", "=== FAILURES ==="),
        ("a   b\t\tc", "a b\tc"),
        ("one\n\n\n\ntwo   \nthree", "one\n\ntwo\nthree"),
        ("Hi all! Thanks!", ""),
        ("[09:31] maria: thanks!!\n[09:32] jonas: at 14:00", "[09:32] jonas: at 14:00"),
        ("The disk of db-7 is full. The disk of db-7 is full.",
         "The disk of db-7 is full."),
        ("Gone. Sent from my phone", "Gone."),
        ("Basically.", ""),
    ],
)  # fmt: skip
def test_what_goes(text: str, left: str) -> None:
    assert trim(text).text == left


@pytest.mark.parametrize(
    "text",
    [
        "Yes, thanks.",
        "No thanks.",
        "Ok, thanks.",
        "Thanks, the limit is 40.",
        "+1\n+1",
        "🎉",
        "```py\nx  =  really   # very ======\n```",
        "| a   | very |\n|-----|------|",
        "key:\n    nested: 1",
        "veryfine unquiteness reallyfoo",
        "漢字。漢字。",
    ],
)
def test_what_stays(text: str) -> None:
    assert trim(text).text == text
    assert not trim(text).lossy


def test_pieces_remember_where_sentences_were() -> None:
    left, pieces = trimmed_pieces(
        "It broke. I think that it was late. Of course, we slept."
    )
    assert left.text == "It broke. it was late. we slept."
    assert [left.text[a:b] for a, b, _ in pieces] == [
        "It broke.",
        "it was late.",
        "we slept.",
    ]
    assert len(split(left.text)) == 1


@pytest.mark.parametrize(
    "unit", ["a ", " ", "=", "very ", ", really", "\x1b[", "I ", "[a] b: ", "thanks! "]
)
def test_no_text_takes_long(unit: str) -> None:
    trim(unit * (100_000 // len(unit)))
