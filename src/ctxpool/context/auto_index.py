"""An index that is exact while it is small, and becomes a graph when it is large."""

from __future__ import annotations

import heapq
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, compress
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from .._arguments import count
from .._pure.locks import new_rlock
from ..stats import _Record
from ._snapshot import read_snapshot, write_snapshot
from .embedding import Vectors, unit_rows
from .graph import HNSWIndex, has_graphs
from .vectors import (
    FlatIndex,
    Id,
    Match,
    check_ids,
    check_new,
)

__all__ = [
    "AutoIndex",
    "AutoIndexStats",
    "index_from_state",
    "index_state",
    "load_index",
]

_MOST = 1 << 40
# Older vectors that move with each that is stored or dropped.
_PACE = 2


@dataclass(frozen=True, slots=True)
class AutoIndexStats(_Record):
    """A moment of an :class:`AutoIndex`.

    Attributes
    ----------
    flat, graph : int
        Vectors that are searched one by one, and through the graph.
    large : bool
        Whether it wants to be a graph.
    switches : int
        How often that changed.
    available : bool
        Whether the extra ``vectors`` is installed; without it there is no graph.
    bytes : int
        Of vectors and graph.
    """

    flat: int
    graph: int
    large: bool
    switches: int
    available: bool
    bytes: int


class AutoIndex:
    """A :class:`FlatIndex` up to some 20,000 vectors, then more and more a
    :class:`HNSWIndex`.

    No call pays for the change: past *above* each vector that is stored moves two older
    ones into the graph, about a millisecond, while searches ask both parts. When it
    shrinks below *below*, they move back in the same way. (The first that moves imports
    usearch, which takes 0.1 s where nobody has before.)

    Parameters
    ----------
    dimensions : int
    above, below : int
        Vectors at which it turns into a graph, and at which it turns back: half of
        *above* by default, so that it does not swing.
    capacity : int
        As for :class:`FlatIndex`.
    **settings
        As for :class:`HNSWIndex`.

    Notes
    -----
    Without the extra ``vectors`` it stays flat, and :meth:`stats` says so.

    **Thread-safety**: each call is atomic; they wait for one another.

    Examples
    --------
    >>> index = AutoIndex(2)
    >>> index.add(["east", "north"], [[1, 0], [0, 1]])
    >>> index.search([0, 2], 1)
    [('north', 1.0)]
    >>> index.stats().flat
    2
    """

    kind = "automatic index"

    def __init__(
        self,
        dimensions: int,
        *,
        above: int = 20_000,
        below: int | None = None,
        capacity: int = 64,
        **settings: int,
    ) -> None:
        self._lock = new_rlock()  # older than those of the two
        self._flat = FlatIndex(dimensions, capacity=capacity)
        self.dimensions = self._flat.dimensions
        self.above = count("above", above, 0, _MOST)
        half = self.above // 2 if below is None else below
        self.below = count("below", half, 0, self.above)
        self._available = has_graphs()
        self._graph = HNSWIndex(dimensions, **settings) if self._available else None
        self._settings = settings
        self._large = False
        self._switches = 0

    def add(self, ids: Sequence[Id], vectors: npt.ArrayLike) -> None:
        """As :meth:`FlatIndex.add`."""
        new, rows = check_new(ids, vectors, self.dimensions)
        with self._lock:
            if self._graph is not None:
                self._graph.remove(new)
            self._flat.add(new, rows)
            self._move(_PACE * len(new))

    def remove(self, ids: Collection[Id]) -> int:
        """As :meth:`FlatIndex.remove`."""
        gone = check_ids(ids)
        with self._lock:
            removed = self._flat.remove(gone)
            if self._graph is not None:
                removed += self._graph.remove(gone)
            self._move(_PACE * removed)
            return removed

    def _move(self, most: int) -> None:
        """Bring up to *most* vectors to where they should be."""
        if self._graph is None:
            return
        n = len(self)
        if n > self.above if not self._large else n < self.below:
            self._large = not self._large
            self._switches += 1
        source: FlatIndex | HNSWIndex
        target: FlatIndex | HNSWIndex
        source, target = self._flat, self._graph
        if not self._large:
            source, target = target, source
        moved = source.some(most)
        if moved:
            target.add(moved, source.get(moved))
            source.remove(moved)

    def settle(self) -> None:
        """Move all that is to be moved now; some 0.3 ms for each vector."""
        with self._lock:
            self._move(len(self))

    def search(
        self, query: npt.ArrayLike, k: int, *, among: Collection[Id] | None = None
    ) -> list[Match]:
        """As :meth:`FlatIndex.search`, of the vectors in the graph approximately."""
        wanted = None if among is None else check_ids(among)
        with self._lock:
            found = self._flat.search(query, k, among=wanted)
            if not self._graph:
                return found
            others = self._graph.search(query, k, among=wanted)
        if not found:
            return others
        return heapq.nlargest(k, found + others, key=itemgetter(1))

    def search_many(self, queries: npt.ArrayLike, k: int) -> list[list[Match]]:
        """:meth:`search` for each row of *queries*."""
        with self._lock:
            if not self._graph:
                return self._flat.search_many(queries, k)
            vectors = unit_rows(queries, None, self.dimensions)
            return [self.search(query, k) for query in vectors]

    def get(self, ids: Sequence[Id]) -> Vectors:
        """The vectors of *ids*; KeyError where there is none."""
        wanted = check_ids(ids)
        with self._lock:
            if not self._graph:
                return self._flat.get(wanted)
            made = np.empty((len(wanted), self.dimensions), np.float32)
            flat = np.array([id in self._flat for id in wanted], bool)
            for part, chosen in (self._flat, flat), (self._graph, ~flat):
                made[chosen] = part.get(list(compress(wanted, chosen)))
            return made

    def stats(self) -> AutoIndexStats:
        """What is where."""
        with self._lock:
            graph = self._graph
            return AutoIndexStats(
                flat=len(self._flat),
                graph=0 if graph is None else len(graph),
                large=self._large,
                switches=self._switches,
                available=self._available,
                bytes=self._flat.nbytes + (0 if graph is None else graph.nbytes),
            )

    @property
    def nbytes(self) -> int:
        """Bytes of vectors and graph."""
        return self.stats().bytes

    def save(self, path: str | os.PathLike[str]) -> None:
        """As :meth:`FlatIndex.save`."""
        write_snapshot(path, self.kind, *self._state())

    def _state(self) -> tuple[dict[str, Any], list[Any]]:
        with self._lock:
            flat, parts = self._flat._state()
            graph, more = self._graph._state() if self._graph else (None, [])
            meta = {
                "dimensions": self.dimensions,
                "above": self.above,
                "below": self.below,
                "settings": self._settings,
                "large": self._large,
                "flat": flat,
                "graph": graph,
            }
        return meta, parts + more

    @classmethod
    def _from_state(cls, meta: dict[str, Any], parts: list[bytearray]) -> AutoIndex:
        index = cls(
            meta["dimensions"],
            above=meta["above"],
            below=meta["below"],
            **meta["settings"],
        )
        index._flat = FlatIndex._from_state(meta["flat"], parts[:1])
        if meta["graph"] is not None:
            index._graph = HNSWIndex._from_state(meta["graph"], parts[1:])
        index._large = meta["large"] and index._graph is not None
        return index

    def __len__(self) -> int:
        with self._lock:
            return len(self._flat) + (len(self._graph) if self._graph else 0)

    def __contains__(self, id: object) -> bool:
        with self._lock:
            graph = self._graph
            return id in self._flat or (graph is not None and id in graph)

    def __iter__(self) -> Iterator[Id]:
        """The ids, in no order that holds."""
        with self._lock:
            return iter(list(chain(self._flat, self._graph or ())))

    def __repr__(self) -> str:
        return f"<AutoIndex of {len(self):,} vectors of {self.dimensions} dimensions>"


_KINDS: dict[str, Any] = {cls.kind: cls for cls in (FlatIndex, HNSWIndex, AutoIndex)}


def index_state(index: Any) -> tuple[str, dict[str, Any], list[Any]]:
    """The kind of an index of ours, and what it is made of."""
    if type(index) not in _KINDS.values():
        raise TypeError(f"only an index of ctxpool's can be written, not {index!r}")
    return (index.kind, *index._state())


def index_from_state(
    kind: str, meta: dict[str, Any], parts: list[bytearray]
) -> FlatIndex | HNSWIndex | AutoIndex:
    """The index that :func:`index_state` took apart."""
    made: FlatIndex | HNSWIndex | AutoIndex = _KINDS[kind]._from_state(meta, parts)
    return made


def load_index(
    path: str | os.PathLike[str],
) -> FlatIndex | HNSWIndex | AutoIndex:
    """The index that a ``save`` wrote to *path*.

    Raises
    ------
    StoreError
        The file is not there, damaged, or something else. It is left as it is.
    ImportError
        It has a graph, and the extra ``vectors`` is not installed.
    """
    return index_from_state(*read_snapshot(path, *_KINDS))
