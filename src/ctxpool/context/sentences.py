"""A text in pieces: sentences, lines of code, logs and lists, with their places."""

import re
import unicodedata
from typing import Literal, NamedTuple

from .words import ABBREVIATIONS

__all__ = ["LONGEST", "Kind", "Piece", "split"]

Kind = Literal["prose", "heading", "list", "table", "code"]

# Where a piece may end: a line's end with all that is blank behind it, a sentence's end
# before a blank, the full stops of scripts that put no blank behind them. No part of it
# can match what the part before it can, so the search is linear.
_END = re.compile(
    r"[\n\r\u2028\u2029]\s*|[.!?\u2026][\"'\u201d\u2019\u00bb)\]]*[ \t]+"
    r"|[\u3002\uff01\uff1f\uff1b][\u300d\u300f\u201d\u2019\uff09]*[ \t]*"
)
_LINE = re.compile(
    r"[ \t]*+(?:(?P<fence>```|~~~)|(?P<heading>#{1,6}[ \t])|(?P<table>\|)"
    r"|(?P<list>(?:[-*+•]|\d{1,3}[.)])[ \t]))"
)
_LOWER = re.compile(r"[a-z]")
_SHORTEST = 3  # characters before a mark that make a sentence; "1." makes none
_WORD_BEFORE = 12  # characters looked at for an abbreviation
_WRAPPED = 50  # characters: a shorter line was ended by its writer, not by a margin
LONGEST = 320
"""Characters that a piece has at most, unless it is said otherwise."""
_CUTS = re.compile(r".*(?:[\s,;}\]]|(?=[{\[]))", re.DOTALL)


class Piece(NamedTuple):
    """``text[start:end]``, which is never blank."""

    start: int
    end: int
    kind: Kind


def split(text: str, limit: int = LONGEST) -> list[Piece]:
    """The pieces of *text*, in order, without a gap but for blanks.

    Sentences end at their marks, with care for abbreviations, initials, decimal numbers
    and hard-wrapped lines; in lists, tables, logs and code each line is a piece, with
    its indentation. What is longer than *limit* is cut, at a blank or a comma where
    there is one, and never between a character and what combines with it, unless that
    is longer than *limit* itself.

    Parameters
    ----------
    text : str
        Any text: code, JSON, one giant line, no letters at all.
    limit : int
        Characters that a piece has at most.

    Returns
    -------
    list of Piece
        Empty if *text* is blank.

    Notes
    -----
    O(len(text)).

    Examples
    --------
    >>> text = "Dr. Lee fixed v1.2. It works!\\n- one\\n- two"
    >>> [text[piece.start : piece.end] for piece in split(text)]
    ['Dr. Lee fixed v1.2.', 'It works!', '- one', '- two']
    """
    if limit < 1:
        raise ValueError(f"limit must be 1 or more, not {limit!r}")
    pieces: list[Piece] = []
    start = 0
    kind: Kind = _kind_at(text, 0)
    fenced = kind == "code"
    for found in _END.finditer(text):
        gap = found.start()
        if text[gap] in "\n\r\u2028\u2029":
            if _goes_on(text, start, gap, found.end(), kind):
                continue
            _add(pieces, text, start, gap, kind, limit)
            # The next line's indentation is its own.
            start = gap + len(found[0].rstrip(" \t"))
            line = _LINE.match(text, start)
            if line and line["fence"]:
                # The fence is code, at both of its ends.
                kind, fenced = "code", not fenced
            else:
                kind = "code" if fenced else _kind_of(line)
        elif not fenced and kind != "table" and _is_end(text, start, found):
            _add(pieces, text, start, found.end(), kind, limit)
            start = found.end()
    _add(pieces, text, start, len(text), kind, limit)
    return pieces


def _kind_at(text: str, start: int) -> Kind:
    line = _LINE.match(text, start)
    return "code" if line and line["fence"] else _kind_of(line)


def _kind_of(line: re.Match[str] | None) -> Kind:
    if line is None:
        return "prose"
    kind: Kind = line.lastgroup  # type: ignore[assignment]
    return kind


def _goes_on(text: str, start: int, gap: int, after: int, kind: Kind) -> bool:
    """Whether the sentence of a wrapped line goes on in the next one."""
    return (
        kind in ("prose", "list")
        and after < len(text)
        and text.count("\n", gap, after) < 2
        and gap - max(start, text.rfind("\n", start, gap)) >= _WRAPPED
        and _LOWER.match(text, after) is not None
        and text[gap - 1] not in ".:;{}(),"
    )


def _is_end(text: str, start: int, found: re.Match[str]) -> bool:
    """Whether a mark ends the sentence that begins at *start*."""
    gap, after = found.span()
    if gap - start < _SHORTEST or (after < len(text) and _LOWER.match(text, after)):
        return False
    if text[gap] != ".":
        return True
    before = text[max(0, gap - _WORD_BEFORE) : gap]
    words = before.split()
    word = words[-1].lstrip("([\"'“") if words else ""
    if word.lower() in ABBREVIATIONS:
        return False
    return not (len(word) == 1 and word.isalpha() and word.isupper())


def _add(
    pieces: list[Piece], text: str, start: int, end: int, kind: Kind, limit: int
) -> None:
    """Add what is not blank of ``text[start:end]``, in pieces of at most *limit*."""
    end = start + len(text[start:end].rstrip())
    while end - start > limit:
        found = _CUTS.match(text, start + (limit + 1) // 2, start + limit)
        cut = found.end() if found else _between_characters(text, start, start + limit)
        if part := text[start:cut].rstrip():
            pieces.append(Piece(start, start + len(part), kind))
        start = cut
    if start < end:
        pieces.append(Piece(start, end, kind))


def _between_characters(text: str, start: int, cut: int) -> int:
    """*cut*, or less: not before a mark that combines, nor within a joined emoji."""
    place = cut
    while place > start + 1 and (
        unicodedata.combining(text[place])
        or text[place] in "\u200d\ufe0f"
        or text[place - 1] == "\u200d"
        or "\U0001f3fb" <= text[place] <= "\U0001f3ff"
    ):
        place -= 1
    return place if place > start + 1 else cut
