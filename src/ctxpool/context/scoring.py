"""What the words of a text are worth, and each of its pieces by them."""

import re
from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import lru_cache
from . import words
from .sentences import Kind, Piece

__all__ = ["FEATURES", "IDENTIFIERS", "Importance", "ScoredPieces"]

Floats = npt.NDArray[np.float64]

# A word with what is joined to it (paths, versions, addresses, dates, amounts), or two
# characters of a script that puts no blanks between words.
_TERM = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\uac00-\ud7af]{1,2}"
    r"|[$€£#@]?\w+(?:[.:/@'\u2019-]+\w+)*%?"
)
_ASCII_TERM = re.compile(r"[$#@]?\w+(?:[.:/@'-]+\w+)*%?", re.ASCII)  # 1.4x as fast
_TIME = re.compile(r"\d{4}-\d\d-\d\d(?:T[\d:.]+)?Z?|\d{1,2}:\d\d(?::\d\d)?(?:[.,]\d+)?")
_OPAQUE = re.compile(r"(?=.*\d)[0-9a-fA-F-]{12,}")  # hashes, uuids
_DIGIT = re.compile(r"\d")
_JOINED = re.compile(r"[_/:@#]|[a-z][A-Z]|[A-Za-z]\d|\d[A-Za-z]|[^\d.]\.|\.[^\d.]")

# What a word is, and what one of its kind is worth.
WORD, STOP, FILLER, CUE, NAME, NUMBER, IDENTIFIER, TIME, OPAQUE = range(9)
IDENTIFIERS = frozenset((NUMBER, IDENTIFIER, TIME, OPAQUE))
_WORTH = np.array([1.0, 0.03, 0.0, 1.2, 1.5, 6.0, 4.0, 1.5, 0.6])


class _Vocabulary(dict[str, int]):
    """The number of each word; a new one gets the next, and its kind is found."""

    def __init__(self) -> None:
        super().__init__()
        # All stop words have one number, and all fillers another.
        self.kinds = [STOP, FILLER]
        self._folded: dict[str, int] = {}

    def __missing__(self, word: str) -> int:
        folded, kind = _folded_and_kind(word)
        if kind in (STOP, FILLER):
            number: int | None = self.kinds.index(kind)
        else:
            number = self._folded.get(folded)
        if number is None:
            number = self._folded[folded] = len(self.kinds)
            self.kinds.append(kind)
        elif kind == WORD and self.kinds[number] == NAME:
            self.kinds[number] = WORD  # it was capitalised as the first of a sentence
        self[word] = number
        return number


_KNOWN = {
    **dict.fromkeys(words.FILLERS, FILLER),
    **dict.fromkeys(words.CUES, CUE),
    **dict.fromkeys(words.STOP, STOP),
}


def _kind(word: str, folded: str) -> int:
    known = _KNOWN.get(folded)
    if known is not None:
        return known
    if word.isalpha():
        if word == folded:
            return WORD
        if word[1:].islower():
            return NAME
        return IDENTIFIER if len(word) > 1 else NAME  # an acronym, or camelCase
    if _DIGIT.search(word):
        if _TIME.fullmatch(word):
            return TIME
        if _OPAQUE.fullmatch(word):
            return OPAQUE
        return IDENTIFIER if _JOINED.search(word) else NUMBER
    if _JOINED.search(word):
        return IDENTIFIER
    return NAME if word[0].isupper() else WORD


def _folded_with_kind(word: str) -> tuple[str, int]:
    folded = word.lower()
    return folded, _kind(word, folded)


# Most words of a text were in the one before it, too.
_folded_and_kind: Callable[[str], tuple[str, int]] = lru_cache(maxsize=16_384)(
    _folded_with_kind
)

FEATURES = (
    "words",
    "stop words",
    "fillers",
    "cues",
    "names",
    "numbers",
    "identifiers",
    "centroid",
    "first",
    "place",
    "heading",
    "list",
    "table",
    "code",
    "question",
)
"""What the columns of :attr:`ScoredPieces.features` are."""


class ScoredPieces:
    """The pieces of a text, what is known of each, and what each is worth.

    Parameters
    ----------
    text : str
        The text.
    pieces : sequence of Piece
        Its pieces, as :func:`~ctxpool.context.sentences.split` finds them.

    Attributes
    ----------
    pieces : sequence of Piece
        As given.
    terms : list of set of int
        The numbers of each piece's words.
    worth : ndarray of float64
        What it is worth to have the word of each number once: its inverse frequency,
        by its kind (numbers and identifiers most, stop words next to nothing).

    Notes
    -----
    O(len(text)). **Thread-safety**: never changes once it is made.
    """

    def __init__(self, text: str, pieces: Sequence[Piece]) -> None:
        self._text = text
        self.pieces = pieces
        vocabulary = _Vocabulary()
        number = vocabulary.__getitem__
        find = (_ASCII_TERM if text.isascii() else _TERM).findall
        self._counts = np.empty(len(pieces), np.int64)
        self.terms: list[set[int]] = []
        numbers: list[list[int]] = []
        for i, (start, end, _) in enumerate(pieces):
            found = list(map(number, find(text[start:end])))
            numbers.append(found)
            self._counts[i] = len(found)
            self.terms.append(set(found))
        self._numbers = np.fromiter(chain.from_iterable(numbers), np.int64)
        self._kinds = np.array(vocabulary.kinds, np.int64)
        once = np.fromiter(chain.from_iterable(self.terms), np.int64)
        self._among = np.bincount(once, minlength=len(self._kinds))
        self._idf = np.log((len(pieces) + 1) / (self._among + 0.5)) + 0.1
        # Said often and yet not everywhere: what the text is about.
        self.worth: Floats = _WORTH[self._kinds] * self._idf * np.log(2 + self._among)

    def __len__(self) -> int:
        return len(self.pieces)

    @cached_property
    def texts(self) -> list[str]:
        """The text of each piece."""
        return [self._text[start:end] for start, end, _ in self.pieces]

    def _sums(self, of_words: npt.NDArray[Any]) -> Floats:
        """Per piece the sum of what is given for each of its words."""
        total = np.concatenate(([0.0], np.cumsum(of_words, dtype=np.float64)))
        ends = np.cumsum(self._counts)
        return np.asarray(total[ends] - total[ends - self._counts])

    def _shares(self, *kinds: int) -> Floats:
        hits = np.isin(self._kinds, kinds)[self._numbers]
        return self._sums(hits) / np.maximum(self._counts, 1)

    def _questions(self) -> Floats:
        text = self._text
        asked = (text[piece.end - 1] in "?\uff1f" for piece in self.pieces)
        return np.fromiter(asked, np.float64, len(self.pieces))

    @cached_property
    def centroid(self) -> Floats:
        """Cosine of each piece's TF-IDF vector with the mean of all of them.

        The classic measure of how central a sentence is (Radev et al., *Centroid-based
        summarization of multiple documents*, 2004).
        """
        weights = self._idf * (_WORTH[self._kinds] > 0.5)
        of_words = weights[self._numbers]
        lengths = np.sqrt(self._sums(of_words**2))
        lengths[lengths == 0] = 1.0
        unit = of_words / np.repeat(lengths, self._counts)
        centre = np.bincount(self._numbers, unit, minlength=len(self._kinds))
        norm = float(np.sqrt(centre @ centre)) or 1.0
        return self._sums(unit * (centre / norm)[self._numbers])

    @cached_property
    def features(self) -> Floats:
        """One row a piece, one column for each of :data:`FEATURES`, about 0 to 1."""
        n = len(self.pieces)
        kinds: list[Kind] = [piece.kind for piece in self.pieces]
        columns = [
            np.log1p(self._counts) / 4,
            self._shares(STOP),
            self._shares(FILLER),
            self._shares(CUE),
            self._shares(NAME),
            self._shares(NUMBER, TIME),
            self._shares(IDENTIFIER, OPAQUE),
            self.centroid,
            np.arange(n) == 0,
            np.arange(n) / max(n - 1, 1),
            *([kind == one for kind in kinds]
              for one in ("heading", "list", "table", "code")),
            self._questions(),
        ]  # fmt: skip
        return np.column_stack([np.asarray(column, np.float64) for column in columns])

    @cached_property
    def prior(self) -> Floats:
        """What each piece is worth beside its words: by its place, its form and cues.

        The importance of a piece where no model of one's own is given.
        """
        prior = 1 + 0.5 * self.centroid
        prior *= 1 + 0.5 * (self._shares(CUE) > 0)
        prior *= 1 - 0.7 * self._shares(FILLER)
        prior *= 1 - 0.3 * self._questions()
        prior[:1] *= 1.25
        return prior


Importance = Callable[[ScoredPieces], npt.ArrayLike]
"""Gives each piece a weight, 0 or more."""
