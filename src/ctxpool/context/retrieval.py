"""Texts found again by what they say, by when they were said and by how much they
matter."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .. import LRUCache
from .._arguments import count
from ..errors import StoreError
from ._numbers import number
from ._snapshot import read_snapshot, write_snapshot
from .collection import TextCollection
from .embedding import (
    Embedder,
    Vectors,
    check_texts,
    embed_queries,
    unit_rows,
)
from .filters import Where, filter_key, matcher
from .hits import Hit, RecallReport, Record, RetrieverStats
from .mmr import maximal_marginal_relevance
from .recall import measured_recall
from .vectors import Id, Match, VectorIndex, check_query

__all__ = ["ContextRetriever"]

_KIND = "retriever"
_MOST = 1 << 20
_DAY = 86_400.0
# Recency is told in steps of this share of the half-life: 0.3 % of it at most, so that
# a question asked again a moment later has the same answer, from the cache.
_STEPS = 256


class _Asked(NamedTuple):
    """A question without its text, as part of a key."""

    k: int
    threshold: float
    recency: float
    half_life: float
    importance: float
    diversity: float
    candidates: int
    now: float


class _Query(NamedTuple):
    """A text's vector, and that vector in bytes."""

    version: int
    vector: Vectors
    key: bytes


class ContextRetriever(TextCollection):
    """Texts by what they say: cached, indexed similarity search.

    Parameters
    ----------
    embedder : Embedder, optional
        A :class:`HashedEmbedder` by default, which needs nothing and finds the words
        that are asked for. One that learns is told of each text.
    index : VectorIndex, optional
        An empty one; by default an :class:`AutoIndex`.
    cache_size : int
        Answers that are kept, some 5 KB each; 0 for none. An answer is found again by
        its query's vector at 8 bits a dimension, so that queries that differ by less
        share one. Any change of what is held makes all of them stale.
    threshold : float, optional
        The similarity below which nothing counts as found.
    clock : callable
        The time in seconds, where none is given.

    Notes
    -----
    A cached answer takes a few microseconds, another one the time of the embedder and
    of the index.

    **Thread-safety**: each call is atomic. The embedder and filters are called outside
    any lock and may use the retriever; the index is used under its lock, and by it
    alone.

    Examples
    --------
    >>> notes = ContextRetriever()
    >>> notes.add(["The backup runs at night.", "Ann likes tea."], ids=["n1", "n2"])
    ['n1', 'n2']
    >>> [hit.id for hit in notes.retrieve("when do backups run?", 1)]
    ['n1']
    """

    def __init__(
        self,
        embedder: Embedder | None = None,
        index: VectorIndex | None = None,
        *,
        cache_size: int = 1024,
        threshold: float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(embedder, index, clock)
        self.threshold = (
            -math.inf if threshold is None else number("threshold", threshold, -1, 1)
        )
        size = count("cache_size", cache_size, 0, _MOST)
        self._queries: LRUCache[str, _Query] | None = None
        self._answers: LRUCache[Any, tuple[int, list[Hit]]] | None = None
        if size:
            self._queries, self._answers = LRUCache(size), LRUCache(size)
        # Guarded by the lock.
        self._hits = self._misses = self._embeds = 0
        self._embed_s = self._search_s = self._hit_s = self._search_max_s = 0.0

    def retrieve(
        self,
        query: str | npt.ArrayLike,
        k: int = 10,
        *,
        threshold: float | None = None,
        where: Where | None = None,
        recency: float = 0.0,
        half_life: float = _DAY,
        importance: float = 0.0,
        diversity: float = 0.0,
        candidates: int | None = None,
        now: float | None = None,
    ) -> list[Hit]:
        """The *k* texts that answer a query best.

        Parameters
        ----------
        query : str or array
            A text, or its vector.
        k : int
            Fewer come back where fewer pass.
        threshold : float, optional
            The least similarity, in place of the retriever's.
        where : mapping or callable, optional
            What the metadata must have, key by key; or a function of the
            :class:`Record` that says whether it may be found. Answers through a
            function, or with values other than text and numbers, are not cached.
        recency, importance : float
            What these weigh beside the similarity, which weighs 1. Recency is 1 for
            what is of now, a half after *half_life* seconds, a quarter after two.
        half_life : float
            In seconds.
        diversity : float
            From 0 to 1: how much to prefer what says something else than the hits
            before it (:func:`~ctxpool.context.mmr.maximal_marginal_relevance`).
        candidates : int, optional
            How many of the most similar are ranked by all this: by default ten times
            *k*, at least 100.
        now : float, optional
            The time from which recency counts, in place of the clock's.

        Raises
        ------
        TypeError, ValueError
            An argument is of the wrong kind or out of range.

        Notes
        -----
        The weighted sum is that of J. S. Park et al., "Generative agents: interactive
        simulacra of human behavior", UIST 2023; here over the sum of the weights.
        """
        begin = time.perf_counter()
        asked = self._asked(
            k, threshold, recency, half_life, importance, diversity, candidates, now
        )
        vector, key = self._embedded(query)
        filtered = None if where is None else filter_key(where)
        with self._lock:
            epoch = self._epoch
        answers = self._answers if where is None or filtered is not None else None
        middle = time.perf_counter()
        if answers is not None:
            known = answers.get((key, asked, filtered))
            if known is not None and known[0] == epoch:
                with self._lock:
                    self._hits += 1
                    self._hit_s += time.perf_counter() - begin
                return list(known[1])
        found = self._ranked(vector, asked, None if where is None else matcher(where))
        if answers is not None:
            answers[key, asked, filtered] = epoch, list(found)
        took = time.perf_counter() - middle
        with self._lock:
            self._misses += 1
            self._search_s += took
            self._search_max_s = max(self._search_max_s, took)
        return found

    def _asked(
        self,
        k: int,
        threshold: float | None,
        recency: float,
        half_life: float,
        importance: float,
        diversity: float,
        candidates: int | None,
        now: float | None,
    ) -> _Asked:
        k = count("k", k, 1, _MOST)
        least = self.threshold
        if threshold is not None:
            least = number("threshold", threshold, -1, 1)
        if recency or importance or diversity or candidates is not None:
            recency = number("recency", recency, 0, 1e6)
            importance = number("importance", importance, 0, 1e6)
            diversity = number("diversity", diversity, 0, 1)
            wide = max(10 * k, 100) if candidates is None else candidates
            wide = max(k, count("candidates", wide, 1, 10 * _MOST))
        else:
            wide = k
        moment = 0.0
        if recency:
            half_life = number("half_life", half_life, 1e-9)
            step = half_life / _STEPS
            moment = number("now", self._clock() if now is None else now)
            moment = math.floor(moment / step) * step
        return _Asked(k, least, recency, half_life, importance, diversity, wide, moment)

    def _embedded(self, query: str | npt.ArrayLike) -> tuple[Vectors, bytes]:
        if not isinstance(query, str):
            vector = check_query(query, self.embedder.dimensions)
            return vector, _quantised(vector)
        version = getattr(self.embedder, "version", 0)
        known = None if self._queries is None else self._queries.get(query)
        if known is not None and known.version == version:
            return known.vector, known.key
        begin = time.perf_counter()
        vector = embed_queries(self.embedder, [query])[0]
        took = time.perf_counter() - begin
        key = _quantised(vector)
        if self._queries is not None:
            self._queries[query] = _Query(version, vector, key)
        with self._lock:
            self._embeds += 1
            self._embed_s += took
        return vector, key

    def _ranked(
        self, vector: Vectors, asked: _Asked, keep: Callable[[Record], bool] | None
    ) -> list[Hit]:
        if keep is None:
            found, records = self._found(vector, asked.candidates)
        else:
            found, records = self._kept(vector, asked.candidates, keep)
        total = 1 + asked.recency + asked.importance
        hits = []
        for id, similarity in found:
            if similarity < asked.threshold:
                break
            record, score = records[id], similarity
            if total > 1:
                score += asked.importance * record.importance
                if asked.recency:
                    age = max(0.0, asked.now - record.timestamp)
                    score += asked.recency * 0.5 ** (age / asked.half_life)
                score /= total
            hits.append(Hit(record, similarity, score))
        if total > 1:
            hits.sort(key=lambda hit: -hit.score)
        if asked.diversity:
            hits = self._diverse(hits, asked)
        return hits[: asked.k]

    def _found(
        self, vector: Vectors, k: int, among: list[Id] | None = None
    ) -> tuple[list[Match], dict[Id, Record]]:
        """What the index finds, the nearest first, and the records at that moment."""
        with self._lock:
            records = self._records
            found = self.index.search(vector, min(k, _MOST), among=among)
            # Nobody else should use the index; what they put there is not ours to find.
            found = [match for match in found if match[0] in records]
            return found, {id: records[id] for id, _ in found}

    def _kept(
        self, vector: Vectors, k: int, keep: Callable[[Record], bool]
    ) -> tuple[list[Match], dict[Id, Record]]:
        """The same of what *keep* lets pass, which is user code: no lock is held.

        Few filters leave out most, so a few more than needed are found and sifted.
        Only if too few are left, all are, and the index looks at the rest alone.
        """
        wanted = 4 * k
        found, records = self._found(vector, wanted)
        passed = {id: bool(keep(record)) for id, record in records.items()}
        kept = [match for match in found if passed[match[0]]]
        if len(kept) >= k or len(self) <= len(found):
            return kept[:k], records
        with self._lock:
            everything = list(self._records.values())
        ids = [
            record.id
            for record in everything
            if (passed[record.id] if record.id in passed else keep(record))
        ]
        return self._found(vector, k, ids)

    def _diverse(self, hits: list[Hit], asked: _Asked) -> list[Hit]:
        with self._lock:  # some may be gone
            hits = [hit for hit in hits if hit.id in self._records]
            vectors = self.index.get([hit.id for hit in hits])
        chosen = maximal_marginal_relevance(
            [hit.score for hit in hits], vectors, asked.k, asked.diversity
        )
        return [hits[place] for place in chosen]

    # ---- About it ----

    def recall(
        self, queries: Sequence[str] | npt.NDArray[Any], k: int = 10
    ) -> RecallReport:
        """What the index finds of the truly nearest; O(queries n).

        Parameters
        ----------
        queries : sequence of str, or array of vectors
        k : int

        Notes
        -----
        Nothing is cached or counted. Vectors are compared as the index holds them. What
        other threads change meanwhile blurs the figure.
        """
        k = count("k", k, 1, _MOST)
        if isinstance(queries, np.ndarray):
            vectors = unit_rows(queries, None, self.embedder.dimensions)
        else:
            vectors = embed_queries(self.embedder, check_texts(queries))

        def there(ids: list[Id]) -> Vectors:
            with self._lock:
                return self.index.get([id for id in ids if id in self._records])

        def search(query: Vectors, k: int) -> list[Match]:
            return self._found(query, k)[0]

        return measured_recall(vectors, k, list(self), there, search)

    def stats(self) -> RetrieverStats:
        """What was asked, what was cached, and how long it took."""
        with self._lock:
            return RetrieverStats(
                records=len(self._records),
                epoch=self._epoch,
                hits=self._hits,
                misses=self._misses,
                embeds=self._embeds,
                embed_s=self._embed_s,
                search_s=self._search_s,
                hit_s=self._hit_s,
                search_max_s=self._search_max_s,
                bytes=getattr(self.index, "nbytes", 0),
            )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all that is held to a file, whole or not at all.

        Raises
        ------
        TypeError
            Metadata is not what JSON can hold, or the index is not one of ctxpool's.
        StoreError
            The file can't be written.
        """
        write_snapshot(path, _KIND, *self._state())

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        embedder: Embedder | None = None,
        **settings: Any,
    ) -> ContextRetriever:
        """A retriever with what :meth:`save` wrote, its index included.

        An embedder that learns is told of the texts, which takes O(total length).

        Parameters
        ----------
        path : path
        embedder : Embedder, optional
            One of the same name as the retriever's that was saved.
        **settings
            As for the class, without *index*.

        Raises
        ------
        StoreError
            The file is not there, or damaged, or of another embedder.
        """
        made = cls(embedder, **settings)
        _, meta, parts = read_snapshot(path, _KIND)
        if meta["embedder"] != made.embedder.name:
            raise StoreError(
                f"{os.fspath(path)!r} was made with the embedder "
                f"{meta['embedder']!r}, not {made.embedder.name!r}"
            )
        made._restore(meta, parts)
        return made

    def __repr__(self) -> str:
        return f"<ContextRetriever of {len(self):,} texts, {self.embedder.name}>"


def _quantised(vector: Vectors) -> bytes:
    """A vector's direction at 8 bits a dimension."""
    largest = float(np.abs(vector).max(initial=0.0))
    if not largest:
        return b""
    quantised: npt.NDArray[np.int8] = np.rint(vector * (127 / largest)).astype(np.int8)
    return quantised.tobytes()
