"""Texts as vectors: what an embedder is, and one that needs no model."""

from __future__ import annotations

import math
import os
import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from .. import LRUCache
from .._arguments import count
from .._pure.locks import new_lock
from ..errors import StoreError
from ._snapshot import read_snapshot, write_snapshot

__all__ = ["Embedder", "HashedEmbedder", "Vectors", "embed_queries", "unit_rows"]

Vectors = npt.NDArray[np.float32]


@runtime_checkable
class Embedder(Protocol):
    """Turns texts into vectors. Any object with these three is one.

    One that tells questions from documents has ``embed_queries(texts)`` too, and one
    that learns from documents ``learn(texts)``, ``forget(texts)`` and ``version``, a
    number that changes whenever the vectors of queries do.

    Attributes
    ----------
    name : str
        Vectors of embedders of the same name can be compared.
    dimensions : int
    """

    name: str
    dimensions: int

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One row for each text, of length 1, or 0 for a text that says nothing."""


def embed_queries(embedder: Embedder, texts: Sequence[str]) -> Vectors:
    """The vectors of *texts* as questions, where *embedder* tells them apart."""
    embed = getattr(embedder, "embed_queries", embedder.embed)
    return unit_rows(embed(texts), len(texts), embedder.dimensions)


def unit_rows(vectors: Any, rows: int | None, dimensions: int) -> Vectors:
    """*vectors* as float32 rows of length 1; a row of zeros stays one.

    Raises
    ------
    ValueError
        The shape is another, or a number is not finite.
    """
    with np.errstate(over="ignore"):  # what is too large is told of below
        made: Vectors = np.asarray(vectors, dtype=np.float32)
    if made.ndim != 2 or made.shape[1] != dimensions or rows not in (None, len(made)):
        wanted = f"({'n' if rows is None else rows}, {dimensions})"
        raise ValueError(f"vectors of shape {wanted} are needed, not {made.shape}")
    # Scaled first: the square of a large number must not overflow.
    largest = np.abs(made).max(axis=1, initial=0.0)
    if not np.isfinite(largest).all():
        row = int(np.flatnonzero(~np.isfinite(largest))[0])
        raise ValueError(f"vector {row} holds a number that is not finite")
    largest[largest == 0] = 1
    made = made / largest[:, None]
    length = np.sqrt(np.einsum("ij,ij->i", made, made))
    length[length == 0] = 1
    made /= length[:, None]
    return made


# Words of English that say little of what a text is about. They count for less in
# documents and queries alike, so that vectors stay comparable.
_COMMON_TEXT = """
a about after all also am an and any are as at be because been before being both but by
can could did do does doing done for from get gets had has have having he her here hers
him his how i if in into is it its just let like me might more most must my no nor not
now of off on once one only or other our out over own per please shall she should so
some such than that the their them then there these they this those through to too
under until up us very want was way we were what when where which while who whom whose
why will with would you your yours
"""
_COMMON = frozenset(_COMMON_TEXT.split())
_COMMON_WEIGHT = 0.2
# Chinese, Japanese, Thai, Lao and Khmer are written without spaces: runs of them.
_UNSPACED = "\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
# Signs that belong to the letter before them, which \w leaves out.
_MARKS = "\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0900-\u0dff"
_WORD = re.compile(rf"[\w{_MARKS}]+")
_RUN = re.compile(f"[{_UNSPACED}]+|[^{_UNSPACED}]+")
_IS_UNSPACED = re.compile(f"[{_UNSPACED}]")
# Fractions of the golden ratio: CRC-32 alone keeps neighbours together.
_MIX = np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)
_LONGEST = 64  # characters of a word that are looked at
# A word has so many columns: where one of them is another word's, too, most of what it
# weighs is still its own.
_COLUMNS = 2
# What the pairs and the n-grams of words weigh beside the words.
_PAIR = 0.25
_GRAMS = 1.5
_AT_ONCE = 64  # texts
_BUCKETS = 1 << 17  # of document frequencies


def words_of(text: str) -> list[str]:
    """The words of a text in small letters; of unspaced scripts, pairs of characters.

    Examples
    --------
    >>> words_of("Port 5433, parse_config")
    ['port', '5433', 'parse', 'config']
    """
    if text.isascii():
        return _WORD.findall(text.lower().replace("_", " "))
    made: list[str] = []
    text = unicodedata.normalize("NFKC", text).casefold().replace("_", " ")
    for word in _WORD.findall(text):
        for run in _RUN.findall(word):
            if len(run) > 2 and _IS_UNSPACED.match(run):
                made += (run[i : i + 2] for i in range(len(run) - 1))
            else:
                made.append(run)
    return made


class _Word(NamedTuple):
    """What a word adds to a vector: the word itself first, then its n-grams."""

    columns: npt.NDArray[np.int32]
    values: npt.NDArray[np.float32]
    hashed: int


class HashedEmbedder:
    """Vectors of hashed words, pairs of words and character n-grams: no model, no
    download, and the same in every process.

    Texts are near one another that share words, or parts of words (other endings, a
    typing error, an identifier's pieces). A paraphrase in other words is not found:
    for that take a sentence model.

    Each feature goes to a column by its hash (a whole word to two), with a sign from
    the hash, so that collisions cancel out on average [1]_. A document's features
    weigh 1 + log(count), common English words less. How rare a word is counts on the
    side of the query alone: what :meth:`learn` is told changes the vectors of queries,
    and those of documents stay as they are.

    Parameters
    ----------
    dimensions : int
        More cost memory and time of search, and have fewer collisions.
    ngrams : tuple of int
        The shortest and the longest character n-grams; (0, 0) for none.
    cache_size : int
        Words whose hashes are kept, about 0.5 KB each.

    Attributes
    ----------
    documents : int
        That were learned and not forgotten.
    version : int
        Changes with each of these.

    Notes
    -----
    Some 20 microseconds for a text of 20 words once its words are known; time grows
    with the number of different words.

    **Thread-safety**: each call is atomic.

    References
    ----------
    .. [1] K. Weinberger et al., "Feature hashing for large scale multitask learning",
       ICML 2009.

    Examples
    --------
    >>> embedder = HashedEmbedder()
    >>> a, b, c = embedder.embed(["red apples", "an apple, red", "tax forms"])
    >>> bool(a @ b > 0.4), bool(a @ c < 0.1)
    (True, True)
    """

    def __init__(
        self,
        dimensions: int = 768,
        *,
        ngrams: tuple[int, int] = (3, 5),
        cache_size: int = 16_384,
    ) -> None:
        self.dimensions = count("dimensions", dimensions, 8, 1 << 16)
        try:
            shortest, longest = ngrams
        except (TypeError, ValueError):
            raise TypeError(f"ngrams must be two numbers, not {ngrams!r}") from None
        shortest = count("the shortest of ngrams", shortest, 0, 16)
        self.ngrams = shortest, count("the longest of ngrams", longest, shortest, 16)
        self.name = f"hashed-2-{self.dimensions}-{shortest}-{longest}"
        cache_size = count("cache_size", cache_size, 1, 1 << 30)
        self._words: LRUCache[str, _Word] = LRUCache(cache_size)
        self._lock = new_lock()  # of what follows
        self._frequencies = np.zeros(_BUCKETS, np.uint32)
        self.documents = 0
        self.version = 0

    def embed(self, texts: Sequence[str]) -> Vectors:
        """The vectors of documents, a row each; O(total length).

        Raises
        ------
        TypeError
            *texts* is one text, or holds what is none.
        """
        return self._embed(texts, None, 0)

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        """As :meth:`embed`, with rare words weighing more than frequent ones."""
        with self._lock:
            documents = self.documents
        # Another thread may be learning: a count that is one off is no harm.
        return self._embed(texts, self._frequencies, documents)

    def _embed(
        self,
        texts: Sequence[str],
        frequencies: npt.NDArray[np.uint32] | None,
        documents: int,
    ) -> Vectors:
        checked = check_texts(texts)
        made = np.empty((len(checked), self.dimensions), np.float32)
        for start in range(0, len(checked), _AT_ONCE):
            some = checked[start : start + _AT_ONCE]
            sums = self._sums(some, frequencies if documents else None, documents)
            lengths = np.sqrt(np.einsum("ij,ij->i", sums, sums))
            lengths[lengths == 0] = 1
            made[start : start + len(some)] = sums / lengths[:, None]
        return made

    def _sums(
        self,
        texts: list[str],
        frequencies: npt.NDArray[np.uint32] | None,
        documents: int,
    ) -> npt.NDArray[np.float64]:
        """The rows of some texts, of any length. Lists first, then each step for all
        of them: NumPy's own time for a call is more than a short text's work."""
        entries: list[_Word] = []
        weights: list[float] = []
        bases: list[int] = []  # where the row of each entry begins
        firsts: list[int] = []  # of the pairs: their words' places in entries
        seconds: list[int] = []
        for row, text in enumerate(texts):
            places: dict[str, int] = {}
            order = []
            for word in words_of(text):
                place = places.get(word)
                if place is None:
                    place = places[word] = len(entries)
                    entries.append(self._words.get(word) or self._made(word))
                    weights.append(_COMMON_WEIGHT if word in _COMMON else 1.0)
                order.append(place)
            if len(order) > len(places):
                for place, n in Counter(order).items():
                    weights[place] *= 1 + math.log(n)
            bases += [row * self.dimensions] * len(places)
            firsts += order[:-1]
            seconds += order[1:]
        size = len(texts) * self.dimensions
        if not entries:
            return np.zeros((len(texts), self.dimensions))
        weighed, base = np.array(weights), np.array(bases)
        hashed = np.array([entry.hashed for entry in entries], np.uint64)
        if frequencies is not None:
            weighed *= _rarity(frequencies[hashed % _BUCKETS], documents)
        columns = np.concatenate([entry.columns for entry in entries])
        values = np.concatenate([entry.values for entry in entries])
        of = np.repeat(
            np.arange(len(entries)), [len(entry.columns) for entry in entries]
        )
        pair_columns, pair_values = self._placed(
            (hashed[firsts] * np.uint64(3) + hashed[seconds]) * _MIX
        )
        # A pair weighs what the lighter of its words does.
        pair_values = pair_values * (
            _PAIR * np.minimum(weighed[firsts], weighed[seconds])
        )
        sums: Any = np.bincount(
            np.concatenate([base[of] + columns, base[firsts] + pair_columns]),
            np.concatenate([weighed[of] * values, pair_values]),
            size,
        )
        rows: npt.NDArray[np.float64] = sums.reshape(len(texts), self.dimensions)
        return rows

    def _placed(
        self, hashes: npt.NDArray[np.uint64]
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """The columns and the signs of 64-bit hashes, from different bits of them."""
        columns = ((hashes >> _HALF) * np.uint64(self.dimensions)) >> _HALF
        signs = 1 - 2 * ((hashes >> np.uint64(8)) & np.uint64(1)).astype(np.float32)
        return columns.astype(np.int32), signs

    def _made(self, word: str) -> _Word:
        """The features of a word that is not in the cache."""
        whole, word = word, word[:_LONGEST]
        coded = word.encode("utf-8", "surrogatepass")
        features = [coded, *(b"%d|%b" % (n, coded) for n in range(1, _COLUMNS))]
        shortest, longest = self.ngrams
        marked = f"<{word}>"
        if shortest and word not in _COMMON:
            features += (
                b"#" + marked[i : i + n].encode("utf-8", "surrogatepass")
                for n in range(shortest, min(longest, len(marked) - 1) + 1)
                for i in range(len(marked) - n + 1)
            )
        # Mixed twice, and shifted between, so that each bit of the CRC reaches many.
        hashes = np.array([zlib.crc32(feature) for feature in features], np.uint64)
        hashes *= _MIX
        hashes ^= hashes >> np.uint64(29)
        hashes *= _MIX
        columns, values = self._placed(hashes)
        values[:_COLUMNS] /= math.sqrt(_COLUMNS)
        if len(features) > _COLUMNS:
            values[_COLUMNS:] *= _GRAMS / math.sqrt(len(features) - _COLUMNS)
        made = _Word(columns, values, int(hashes[0] >> _HALF))
        if whole is word:
            self._words[word] = made
        return made

    def learn(self, texts: Sequence[str]) -> None:
        """Count in which documents each word is; O(total length)."""
        self._learn(texts, 1)

    def forget(self, texts: Sequence[str]) -> None:
        """Undo :meth:`learn`, for documents that are gone."""
        self._learn(texts, -1)

    def _learn(self, texts: Sequence[str], step: int) -> None:
        seen = [
            np.array(sorted({self._bucket(word) for word in words_of(text)}), np.intp)
            for text in check_texts(texts)
        ]
        with self._lock:
            for buckets in seen:
                if step > 0:
                    self._frequencies[buckets] += 1
                else:
                    # Never below none, whatever was forgotten that never was learned.
                    self._frequencies[buckets[self._frequencies[buckets] > 0]] -= 1
            self.documents = max(0, self.documents + step * len(seen))
            self.version += 1

    def _bucket(self, word: str) -> int:
        return (self._words.get(word) or self._made(word)).hashed % _BUCKETS

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write what was learned to a file, whole or not at all.

        Raises
        ------
        StoreError
            It can't be written.
        """
        with self._lock:
            frequencies, documents = self._frequencies.copy(), self.documents
        meta = {"name": self.name, "documents": documents}
        packed = zlib.compress(frequencies.astype("<u4").tobytes(), 1)
        write_snapshot(path, "document frequencies", meta, [packed])

    def restore(self, path: str | os.PathLike[str]) -> None:
        """Replace what was learned by what :meth:`save` wrote.

        Raises
        ------
        StoreError
            The file is not there, or damaged, or of an embedder with other settings.
            Nothing is changed.
        """
        _, meta, parts = read_snapshot(path, "document frequencies")
        if meta["name"] != self.name:
            raise StoreError(
                f"{os.fspath(path)!r} is of an embedder {meta['name']!r}, not "
                f"{self.name!r}"
            )
        found = np.frombuffer(zlib.decompress(parts[0]), "<u4").astype(np.uint32)
        with self._lock:
            self._frequencies, self.documents = found, int(meta["documents"])
            self.version += 1

    def __repr__(self) -> str:
        return f"<HashedEmbedder {self.name!r}, {self.documents} documents learned>"


def _rarity(
    found_in: npt.NDArray[np.uint32], documents: int
) -> npt.NDArray[np.float64]:
    """The inverse document frequency as BM25 has it."""
    found = np.minimum(found_in, documents) + 0.5
    return np.log(1 + (documents + 1 - found) / found)


def check_texts(texts: Iterable[str]) -> list[str]:
    """*texts* as a list of str, or a TypeError that names what is none."""
    if isinstance(texts, str):
        raise TypeError(f"a sequence of texts is needed, not one: {texts!r}")
    try:
        made = list(texts)
    except TypeError:
        raise TypeError(f"a sequence of texts is needed, not {texts!r}") from None
    for text in made:
        if not isinstance(text, str):
            raise TypeError(f"a text must be str, not {text!r}")
    return made
