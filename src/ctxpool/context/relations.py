"""Entities, and the statements that relate them for a time."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

from ..stats import _Record

__all__ = ["Entity", "Neighbour", "Relation", "SemanticStats"]

_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Entity:
    """Somebody or something.

    Attributes
    ----------
    name : str
        As it was first given.
    kind : str
        Such as ``"person"``; empty where nobody said.
    attributes : mapping
        What JSON can hold.
    aliases : tuple of str
        Other names.
    """

    name: str
    kind: str = ""
    attributes: Mapping[str, Any] = field(default_factory=lambda: _NOTHING, hash=False)
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Relation:
    """A statement, and when it holds.

    Attributes
    ----------
    id : int
        Of this statement in its file.
    subject, predicate, object : str
        The subject and the object are names of entities.
    confidence : float
        From 0 to 1.
    valid_from : float
        Seconds since the epoch.
    valid_to : float or None
        It holds before this moment; None: still.
    sources : tuple of str
        Ids of what said so, the newest first, at most 20 of them.
    """

    id: int
    subject: str
    predicate: str
    object: str
    confidence: float
    valid_from: float
    valid_to: float | None = None
    sources: tuple[str, ...] = ()

    def holds(self, at: float) -> bool:
        """Whether it is so at this moment."""
        return self.valid_from <= at and (self.valid_to is None or at < self.valid_to)

    def __str__(self) -> str:
        return f"{self.subject} {self.predicate.replace('_', ' ')} {self.object}"


class Neighbour(NamedTuple):
    """An entity near another one: its name, how far, and the last step to it."""

    name: str
    hops: int
    relation: Relation


@dataclass(frozen=True, slots=True)
class SemanticStats(_Record):
    """A moment of a :class:`SemanticMemory`.

    Attributes
    ----------
    entities, relations : int
        In the file, relations that no longer hold included.
    open : int
        Relations without an end.
    file_bytes : int
        Of the file and its journal.
    hits, misses : int
        Entities whose relations were in memory, and that had to be read.
    """

    entities: int
    relations: int
    open: int
    file_bytes: int
    hits: int
    misses: int
