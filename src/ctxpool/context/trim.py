"""What a text can do without: blanks, decoration, filler, small talk, repetition."""

import re
from itertools import groupby

from . import words
from .extract import Extract, Span
from .sentences import LONGEST, Piece, split

__all__ = ["trim", "trimmed_pieces"]


def _by_first_letter(phrases: tuple[str, ...]) -> str:
    """A pattern of all *phrases*, longest first, capitalised or not.

    By their first letters, so that the search rejects most words by one comparison.
    """
    ordered = sorted((p.strip() for p in phrases), key=lambda p: (p[0], -len(p)))
    return "|".join(
        f"[{first}{first.upper()}](?:{'|'.join(re.escape(p[1:]) for p in group)})"
        for first, group in groupby(ordered, key=lambda p: p[0])
    )


# At most places one look at the next character rejects all of it.
_WASTE = re.compile(
    r"(?P<escape>\x1b\[[0-9;?]*[A-Za-z])|(?P<rule>[-=_*#~.])(?P=rule){3,}"
    r"|(?P<blank>[ \t])[ \t]+"
    rf"|\b(?P<before>,[ \t])?(?P<phrase>{_by_first_letter(words.PHRASES)})\b"
    r"(?P<after>,?[ \t]+)?"
)
_KEPT = {"rule": 3, "blank": 1}  # characters of a run that stay
_NEGATED = re.compile(r"(?:not|n't) $")
_SPEAKER = re.compile(r"\s*(?:\[[^\]\n]{1,24}\]\s*)?[\w.-]+(?: [\w.-]+)?:\s")
_WORD = re.compile(r"[\w']+")
_EMPTY_TALK = words.STOP | words.FILLERS | words.SMALL_TALK
# They answer a question, or turn a statement round.
_DECISIVE = frozenset(
    ["yes", "no", "not", "nor", "yep", "yeah", "ok", "okay", "sure", "never", "don't"]
)
_BOILERPLATE = re.compile(
    r"(?i)\s*(?:this (?:e-?mail|message)(?: and any attachments?)? (?:is|are|may be) "
    r"(?:confidential|intended)|if you are not the intended recipient"
    r"|please consider the environment|sent from my |unsubscribe|all rights reserved"
    r"|view this (?:e-?mail|message) in your browser|-{3,} ?forwarded message)"
)
_LONG_TALK = 80  # characters: more is no small talk
_REPEATED = 20  # characters: less may be said twice


def trim(text: str) -> Extract:
    """*text* without what carries little.

    Runs of blanks and blank lines, terminal escapes, rules and dots; phrases that add
    nothing (*as you know*, *basically*); greetings, thanks and the small print of mail;
    sentences that were there before. Code and tables stay as they are, but for blanks
    at the ends of lines. English phrases; the rest in any language.

    Parameters
    ----------
    text : str
        Any text.

    Returns
    -------
    Extract
        The rest, with the places of its parts in *text*.

    Notes
    -----
    O(len(text)). **Thread-safety**: a function of its argument.

    Examples
    --------
    >>> trim("Hi all!  Basically, the build is   red. Thanks!").text
    'the build is red.'
    """
    return trimmed_pieces(text)[0]


def trimmed_pieces(text: str, limit: int = LONGEST) -> tuple[Extract, list[Piece]]:
    """What :func:`trim` leaves, and the pieces of it, of at most *limit* characters.

    A sentence that lost its first words can't be told from the one before it any more.
    """
    parts: list[str] = []
    spans: list[Span] = []
    pieces: list[Piece] = []
    seen: set[str] = set()
    at = previous = 0
    for piece in split(text, limit):
        kept = _kept(text, piece, seen)
        if not kept:
            continue
        if parts:
            gap = _gap(text, previous, piece.start)
            parts.append(gap)
            at += len(gap)
        first = at
        for start, end in kept:
            spans.append(Span(start, end, at))
            parts.append(text[start:end])
            at += end - start
        pieces.append(Piece(first, at, piece.kind))
        previous = piece.end
    left = "".join(parts)
    if left == text:
        return Extract.whole(text), pieces
    return Extract(left, tuple(spans), len(text)), pieces


def _gap(text: str, previous: int, start: int) -> str:
    """What stands between two pieces: of blank lines one."""
    lines = text.count("\n", previous, start)
    if lines:
        return "\n\n" if lines > 1 and text[previous:start].isspace() else "\n"
    return " " if start > previous else ""


def _kept(text: str, piece: Piece, seen: set[str]) -> list[tuple[int, int]]:
    """The parts of a piece that stay."""
    start, end, kind = piece
    if kind not in ("prose", "list"):
        return [(start, end)]
    whole = text[start:end]
    if len(whole) >= _REPEATED:
        if (folded := whole.strip()) in seen:
            return []
        seen.add(folded)
    if _is_small_talk(whole) or _BOILERPLATE.match(whole):
        return []
    kept = []
    for found in _WASTE.finditer(text, start, end):
        first, after = found.span()
        if found["blank"] and first == piece.start:
            continue  # the indentation of a line
        if not found["phrase"]:
            first += _KEPT.get(found.lastgroup or "", 0)
        elif _NEGATED.search(text, max(start, first - 4), first):
            continue  # "not really" says something
        elif found["before"] and found["after"]:
            after -= 1  # the blank still parts two words
        elif not (found["before"] or found["after"]):
            # It ends the sentence: with the blank before it.
            first -= first > start and text[first - 1] == " "
        if first > start:
            kept.append((start, first))
        start = after
    if start < end:
        kept.append((start, end))
    if start > piece.start and not any(_WORD.search(text, *part) for part in kept):
        return []  # it was nothing but waste
    return kept


def _is_small_talk(whole: str) -> bool:
    if len(whole) > _LONG_TALK:
        return False
    speaker = _SPEAKER.match(whole)
    said = set(_WORD.findall(whole.lower(), speaker.end() if speaker else 0))
    return (
        said <= _EMPTY_TALK
        and not said.isdisjoint(words.SMALL_TALK)
        and said.isdisjoint(_DECISIVE)
    )
