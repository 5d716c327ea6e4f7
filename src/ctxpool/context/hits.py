"""What a retriever holds, finds and counts, as frozen records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..stats import _Record
from .vectors import Id

__all__ = ["Hit", "RecallReport", "Record", "RetrieverStats"]


@dataclass(frozen=True, slots=True)
class Record:
    """A text that is held.

    Attributes
    ----------
    id : int or str
    text : str
    metadata : mapping
        The caller's own.
    importance : float
        From 0 to 1.
    timestamp : float
        Seconds, on the retriever's clock.
    """

    id: Id
    text: str
    metadata: Mapping[str, Any]
    importance: float
    timestamp: float


@dataclass(frozen=True, slots=True)
class Hit:
    """A text that was found.

    Attributes
    ----------
    record : Record
    similarity : float
        To the query: the cosine, from -1 to 1.
    score : float
        What it was ranked by: the weighted mean of similarity, recency and importance.
    """

    record: Record
    similarity: float
    score: float

    @property
    def id(self) -> Id:
        """The record's id."""
        return self.record.id

    @property
    def text(self) -> str:
        """The record's text."""
        return self.record.text

    @property
    def metadata(self) -> Mapping[str, Any]:
        """The record's metadata."""
        return self.record.metadata


@dataclass(frozen=True, slots=True)
class RecallReport(_Record):
    """What an index found of what there was to find.

    Attributes
    ----------
    queries, k : int
    recall : float
        The share of the *k* truly nearest that were among the *k* found, from 0 to 1.
    worst : float
        The same, of the query that fared worst.
    search_s, exact_s : float
        Seconds for a query: of the index, and of comparing with every vector.
    """

    queries: int
    k: int
    recall: float
    worst: float
    search_s: float
    exact_s: float


@dataclass(frozen=True, slots=True)
class RetrieverStats(_Record):
    """A moment of a :class:`ContextRetriever`; counts are since its construction.

    Attributes
    ----------
    records : int
        Texts that are held.
    epoch : int
        Changes of what is held; each makes all cached answers stale.
    hits, misses : int
        Queries that were answered from the cache, and that were not.
    embeds : int
        Queries that had to be embedded.
    embed_s, search_s, hit_s : float
        Seconds in all: of embedding queries, of the misses without it, of the hits.
    search_max_s : float
        The longest of the misses.
    bytes : int
        Of the index; 0 where it does not say.
    """

    records: int
    epoch: int
    hits: int
    misses: int
    embeds: int
    embed_s: float
    search_s: float
    hit_s: float
    search_max_s: float
    bytes: int

    @property
    def hit_ratio(self) -> float:
        """Hits over queries; 0.0 before the first query."""
        queries = self.hits + self.misses
        return self.hits / queries if queries else 0.0
