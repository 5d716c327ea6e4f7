"""What was experienced: one text each, and what is found of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..stats import _Record

__all__ = ["Consolidation", "Episode", "EpisodicStats", "Recollection"]


@dataclass(frozen=True, slots=True)
class Episode:
    """A text that is remembered, as it was at a moment.

    Attributes
    ----------
    id : str
        By default made of the text: the same text has the same id.
    text, role : str
        What was said, and by whom.
    created : float
        Seconds since the epoch.
    importance : float
        From 0 to 1.
    metadata : mapping
        The caller's own.
    sources : tuple of str
        Other ids that it goes by: of equal texts, and of what was merged into it.
    accessed : float
        When it was last recalled, or remembered again.
    uses : int
        How often.
    """

    id: str
    text: str
    role: str
    created: float
    importance: float
    metadata: Mapping[str, Any] = field(hash=False)
    sources: tuple[str, ...]
    accessed: float
    uses: int


@dataclass(frozen=True, slots=True)
class Recollection:
    """An episode that a query found.

    Attributes
    ----------
    episode : Episode
    similarity : float
        To the query: the cosine of their vectors.
    recency : float
        From 1, just now, to 0.
    score : float
        By which they are ordered.
    """

    episode: Episode
    similarity: float
    recency: float
    score: float


@dataclass(frozen=True, slots=True)
class Consolidation(_Record):
    """What :meth:`EpisodicMemory.consolidate` did.

    Attributes
    ----------
    looked_at : int
        Episodes that were compared with their like.
    merged : int
        Episodes that others now stand for.
    faded : int
        Episodes that were forgotten.
    """

    looked_at: int = 0
    merged: int = 0
    faded: int = 0


@dataclass(frozen=True, slots=True)
class EpisodicStats(_Record):
    """A moment of an :class:`EpisodicMemory`; counts are since it was opened.

    Attributes
    ----------
    items : int
        Episodes.
    bytes : int
        Of their texts, metadata and vectors in the file: what *max_bytes* bounds.
    file_bytes : int
        Of the file and its journal.
    index_bytes : int
        Of vectors in memory.
    repeated : int
        Texts that were remembered already.
    evicted : int
        Episodes that had to go for want of room.
    hits, misses : int
        Texts that were in memory when they were recalled, and that had to be read.
    """

    items: int
    bytes: int
    file_bytes: int
    index_bytes: int
    repeated: int
    evicted: int
    hits: int
    misses: int
