"""The pieces of a text that say most of it, in its own words."""

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np

from .. import _arguments
from .scoring import Floats, Importance, ScoredPieces
from .sentences import LONGEST, Piece, split
from .tokens import HeuristicTokenizer, whole

__all__ = ["Extract", "Span", "extract"]

# What a word is worth that is not there yet, that is there once, twice, more often. As
# the steps are few, a piece's gain changes a few times only, however long the text is.
_AGAIN = (1.0, 0.3, 0.1, 0.03)
# A piece's length counts a little less than in full: else the shortest would win.
_LENGTH = 0.8
_SHORT = 8  # characters that every piece costs beside its own
_SHORTEST_CUT = 24  # characters: no piece is cut to less
_TRIFLE = 0.01
_CLOSE = 0.9
_MORE_TRIES = 4


class Span(NamedTuple):
    """``extract.text[at : at + end - start] == original[start:end]``."""

    start: int
    end: int
    at: int


@dataclass(frozen=True, slots=True)
class Extract:
    """What was kept of a text.

    Attributes
    ----------
    text : str
        The kept pieces in the order of the original, parted by one blank or line end
        where something between them is missing.
    spans : tuple of Span
        Where each of its parts is in the original.
    original_length : int
        Characters of the original.
    """

    text: str
    spans: tuple[Span, ...]
    original_length: int

    @classmethod
    def whole(cls, text: str) -> Self:
        """All of *text*."""
        return cls(text, (Span(0, len(text), 0),) if text else (), len(text))

    @property
    def lossy(self) -> bool:
        """Whether anything of the original is missing."""
        whole = ((0, self.original_length, 0),) if self.original_length else ()
        return self.spans != whole

    @property
    def ratio(self) -> float:
        """Characters kept over characters of the original; 1.0 of an empty one."""
        if not self.original_length:
            return 1.0
        return len(self.text) / self.original_length

    def within(self, outer: "Extract") -> "Extract":
        """This extract of ``outer.text`` as one of the original of *outer*.

        O(spans of both).
        """
        spans: list[Span] = []
        inner = 0
        for start, end, at in self.spans:
            # Neither the spans nor what they are of ever go back.
            while inner and outer.spans[inner].at > start:
                inner -= 1
            while inner < len(outer.spans) and outer.spans[inner].at < end:
                source = outer.spans[inner]
                length = source.end - source.start
                first = max(start, source.at)
                last = min(end, source.at + length)
                if first < last:
                    here = source.start + first - source.at
                    spans.append(Span(here, here + last - first, at + first - start))
                if source.at + length > end:
                    break
                inner += 1
        return Extract(self.text, tuple(spans), outer.original_length)


def extract(
    text: str,
    *,
    ratio: float | None = None,
    tokens: int | None = None,
    count: Callable[[str], int] | None = None,
    importance: Importance | None = None,
    pieces: Sequence[Piece] | None = None,
) -> Extract:
    """The pieces of *text* that say most of it, within a budget.

    Sentences, lines of logs, lists and code are kept or dropped whole. Each is worth
    what its words are: by inverse frequency, numbers, names and identifiers above all,
    what was said already less every time; more at the head, with words such as *decided*
    or *error*, and near the centre of the text. The same text gives the same extract.

    Parameters
    ----------
    text : str
        Any text.
    ratio : float, optional
        Share of its characters to keep at most, above 0 and up to 1.
    tokens : int, optional
        Tokens to keep at most. One of the two must be given.
    count : callable, optional
        Gives the tokens of a text; by default as
        :class:`~ctxpool.context.HeuristicTokenizer` does.
    importance : callable, optional
        Gives each piece of a :class:`~ctxpool.context.ScoredPieces` a weight to
        multiply that worth with: a function, or a fitted
        :class:`~ctxpool.context.ImportanceModel`.
    pieces : sequence of Piece, optional
        What to choose from, in order; by default what
        :func:`~ctxpool.context.sentences.split` finds, cut to fit the budget.

    Returns
    -------
    Extract
        Never more than was asked for; empty where not even one piece fits.

    Raises
    ------
    TypeError
        *text* is no text; neither or both of *ratio* and *tokens* are given.
    ValueError
        A budget, a count, a weight or a piece that can't be.

    Notes
    -----
    O(len(text)), whatever is in it, but for the choice among n pieces, O(n log n); with
    *tokens* about fifteen calls of *count*, most of them on the result.

    A greedy choice by gain over length, of a sum with diminishing returns: it has the
    guarantee of Lin and Bilmes, *A class of submodular functions for document
    summarization* (2011), with the lazy evaluation of Minoux. It does what maximal
    marginal relevance does, without comparing each piece with each other one.

    **Thread-safety**: a function of its arguments.

    Examples
    --------
    >>> text = (
    ...     "Hi all, thanks for joining today! As you know it was a long week. "
    ...     "The checkout service failed at 14:02 with error E4031. "
    ...     "That was not so nice for anyone. We rolled back to v2.8.1 at 14:20."
    ... )
    >>> kept = extract(text, ratio=0.5)
    >>> kept.text
    'The checkout service failed at 14:02 with error E4031. We rolled back to v2.8.1 at 14:20.'
    >>> [text[span.start : span.end][:20] for span in kept.spans]
    ['The checkout service', 'We rolled back to v2']
    """  # noqa: E501
    if not isinstance(text, str):
        raise TypeError(f"a text is needed, not {text!r}")
    if (ratio is None) == (tokens is None):
        raise TypeError(
            f"one of ratio and tokens is needed, not ratio={ratio!r} and "
            f"tokens={tokens!r}"
        )
    if pieces is not None:
        _check(pieces, len(text))
    if tokens is not None:
        count = count or HeuristicTokenizer().count
        return _within_tokens(text, tokens, count, importance, pieces)
    return _within(text, _characters(text, ratio), importance, pieces)


def _check(pieces: Sequence[Piece], length: int) -> None:
    previous = 0
    for piece in pieces:
        if not previous <= piece.start < piece.end <= length:
            raise ValueError(
                f"a piece must be behind the one before it and within the "
                f"{length} characters, not {piece!r}"
            )
        previous = piece.end


def _characters(text: str, ratio: float | None) -> int:
    if not isinstance(ratio, int | float) or isinstance(ratio, bool):
        raise TypeError(f"ratio must be a number, not {ratio!r}")
    if not 0 < ratio <= 1:
        raise ValueError(f"ratio must be above 0 and at most 1, not {ratio!r}")
    return int(len(text) * ratio)


def _within(
    text: str,
    budget: int,
    importance: Importance | None,
    given: Sequence[Piece] | None,
) -> Extract:
    if budget >= len(text):
        return Extract.whole(text)
    pieces = _pieces(text, budget, given)
    chosen = _choice(text, pieces, importance, budget)
    return _joined(text, [pieces[i] for i in sorted(chosen)])


def _within_tokens(
    text: str,
    tokens: int,
    count: Callable[[str], int],
    importance: Importance | None,
    given: Sequence[Piece] | None,
) -> Extract:
    tokens = _arguments.count("tokens", tokens, 0, 2**62)

    def counted(part: str) -> int:
        return whole(count(part), "count gave {!r} tokens")

    total = counted(text)
    if total <= tokens:
        return Extract.whole(text)
    if not tokens:
        return Extract("", (), len(text))
    # Tokens of parts do not add up: choose by characters, more than will fit, and
    # look for how many of the choice do.
    budget = math.ceil(len(text) * tokens / total)
    pieces = _pieces(text, budget, given)
    order = _choice(text, pieces, importance, budget + budget // 3 + LONGEST)

    def of_first(n: int, *more: int) -> Extract:
        return _joined(text, [pieces[i] for i in sorted([*order[:n], *more])])

    best, fits, too_many = Extract("", (), len(text)), 0, len(order) + 1
    while too_many - fits > 1:
        middle = (fits + too_many) // 2
        tried = of_first(middle)
        if counted(tried.text) <= tokens:
            best, fits = tried, middle
        else:
            too_many = middle
    more: list[int] = []
    for i in order[fits + 1 : fits + 1 + _MORE_TRIES]:
        tried = of_first(fits, *more, i)
        if counted(tried.text) <= tokens:
            best = tried
            more.append(i)
    return best


def _pieces(text: str, budget: int, given: Sequence[Piece] | None) -> list[Piece]:
    """The pieces, the first of equal ones; none longer than the budget but if given."""
    limit = max(_SHORTEST_CUT, min(LONGEST, budget))
    first: dict[str, Piece] = {}
    for piece in split(text, limit) if given is None else given:
        first.setdefault(text[piece.start : piece.end].strip(), piece)
    return list(first.values())


def _weights(scored: ScoredPieces, importance: Importance | None) -> Floats:
    if importance is None:
        return scored.prior
    weights = np.asarray(importance(scored), np.float64)
    if weights.shape != (len(scored),):
        raise ValueError(
            f"importance must give {len(scored)} weights, one a piece, not an array "
            f"of shape {weights.shape}"
        )
    wrong = weights[~((weights >= 0) & (weights < np.inf))]
    if len(wrong):
        raise ValueError(f"a weight must be finite and 0 or more, not {wrong[0]!r}")
    return weights


def _choice(
    text: str, pieces: Sequence[Piece], importance: Importance | None, budget: int
) -> list[int]:
    """The numbers of the pieces to keep within *budget* characters, best first."""
    scored = ScoredPieces(text, pieces)
    lengths = np.array([piece.end - piece.start for piece in pieces], np.float64)
    per_gain: list[float] = (
        _weights(scored, importance) / (lengths + _SHORT) ** _LENGTH
    ).tolist()
    worth: list[float] = scored.worth.tolist()
    value = worth.copy()
    times = [0] * len(worth)
    # A piece without a single word (an emoji, a rule) is worth a trifle, too.
    heap = [
        (-(sum(map(value.__getitem__, terms)) + _TRIFLE) * per, i)
        for i, (terms, per) in enumerate(zip(scored.terms, per_gain, strict=True))
    ]
    heapq.heapify(heap)
    chosen: list[int] = []
    left = budget
    while heap:
        gain, i = heap[0]
        start, end, _ = pieces[i]
        # Each piece is followed by a blank, but for the last.
        if end - start > left:
            heapq.heappop(heap)
            continue
        terms = scored.terms[i]
        # Gains only shrink: one that hardly did is about the largest of all.
        now = -(sum(map(value.__getitem__, terms)) + _TRIFLE) * per_gain[i]
        if now > gain * _CLOSE:
            heapq.heapreplace(heap, (now, i))
            continue
        heapq.heappop(heap)
        chosen.append(i)
        left -= end - start + 1
        for term in terms:
            times[term] += 1
            value[term] = worth[term] * _AGAIN[min(times[term], len(_AGAIN) - 1)]
    return chosen


def _joined(text: str, pieces: Sequence[Piece]) -> Extract:
    """The pieces as one text."""
    parts: list[str] = []
    spans: list[Span] = []
    at = previous = 0
    for start, end, _ in pieces:
        if spans:
            between = text[previous:start]
            gap = "\n" if "\n" in between else " " if between else ""
            parts.append(gap)
            at += len(gap)
            if gap == between:  # nothing is missing
                last = spans.pop()
                spans.append(Span(last.start, end, last.at))
            else:
                spans.append(Span(start, end, at))
        else:
            spans.append(Span(start, end, at))
        parts.append(text[start:end])
        at += end - start
        previous = end
    return Extract("".join(parts), tuple(spans), len(text))
