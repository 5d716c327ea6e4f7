"""Vectors in a graph: those nearest to a query, without a look at all of them."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from .._arguments import count
from ..errors import StoreError
from ._snapshot import write_snapshot
from .embedding import Vectors, unit_rows
from .vectors import (
    MOST_RESULTS,
    BaseIndex,
    Id,
    Match,
    check_ids,
    check_new,
    check_query,
    similarities,
    top_places,
)

__all__ = ["HNSWIndex"]


def has_graphs() -> bool:
    """Whether the extra ``vectors`` is installed."""
    return importlib.util.find_spec("usearch") is not None


class HNSWIndex(BaseIndex):
    """Vectors in a graph, at half precision, by `usearch`: a search looks at some
    hundreds of them, and may miss some. The extra ``vectors``.

    Parameters
    ----------
    dimensions : int
    connectivity : int
        Neighbours of a vector in the graph.
    expansion_add, expansion_search : int
        Candidates that are kept while one is stored and searched for: more find more
        and take longer. Where vectors form no clusters 512 may be needed: measure the
        recall, as :meth:`ContextRetriever.recall` does.

    Raises
    ------
    ImportError
        The extra is not installed.

    Notes
    -----
    Of 100,000 vectors of 384 dimensions: ``search`` some 0.2 ms, ``add`` 0.3 ms, each
    O(log n); ``remove`` some microseconds. Two bytes a dimension and about 200 a
    vector. Similarities are those of the rounded vectors, 0.001 off.

    **Thread-safety**: each call is atomic; they wait for one another.

    References
    ----------
    Y. Malkov and D. Yashunin, "Efficient and robust approximate nearest neighbor
    search using hierarchical navigable small world graphs", 2016.
    """

    kind = "graph index"

    def __init__(
        self,
        dimensions: int,
        *,
        connectivity: int = 16,
        expansion_add: int = 128,
        expansion_search: int = 128,
    ) -> None:
        super().__init__(dimensions)
        self._settings = {
            "connectivity": count("connectivity", connectivity, 2, 1024),
            "expansion_add": count("expansion_add", expansion_add, 1, 1 << 16),
            "expansion_search": count("expansion_search", expansion_search, 1, 1 << 16),
        }
        if not has_graphs():
            raise ImportError(
                'a graph of vectors needs usearch: pip install "ctxpool[vectors]"'
            )
        # None while there is nothing in it: the import alone takes 0.1 s.
        self._graph: Any = None
        # usearch knows vectors by numbers; none is used twice.
        self._keys: dict[Id, int] = {}
        self._ids: dict[int, Id] = {}
        self._next = 0

    def _begin(self) -> Any:
        """The graph, made where there is none."""
        if self._graph is None:
            index: Any = importlib.import_module("usearch.index")
            self._graph = index.Index(
                ndim=self.dimensions, metric="ip", dtype="f16", **self._settings
            )
        return self._graph

    def add(self, ids: Sequence[Id], vectors: npt.ArrayLike) -> None:
        """As :meth:`FlatIndex.add`."""
        new, rows = check_new(ids, vectors, self.dimensions)
        if not new:
            return
        with self._lock:
            first, self._next = self._next, self._next + len(new)
            keys = range(first, self._next)
            graph = self._begin()
            try:
                graph.add(np.array(keys, np.uint64), rows, threads=1)
            except BaseException:
                for key in keys:  # those that went in
                    graph.remove(key)
                raise
            old = self._taken(new)
            self._keys.update(zip(new, keys, strict=True))
            self._ids.update(zip(keys, new, strict=True))
            self._drop(old)

    def remove(self, ids: Collection[Id]) -> int:
        """As :meth:`FlatIndex.remove`."""
        gone = check_ids(ids)
        with self._lock:
            keys = self._taken(gone)
            self._drop(keys)
            return len(keys)

    def _taken(self, ids: list[Id]) -> list[int]:
        """The keys that *ids* had until now."""
        return [key for id in ids if (key := self._keys.pop(id, None)) is not None]

    def _drop(self, keys: list[int]) -> None:
        for key in keys:
            del self._ids[key]
            self._graph.remove(key)
        if not self._ids:
            self._graph = None  # one of nothing but gaps finds no more

    def search(
        self, query: npt.ArrayLike, k: int, *, among: Collection[Id] | None = None
    ) -> list[Match]:
        """As :meth:`FlatIndex.search`, approximately; with *among*, exactly."""
        vector = check_query(query, self.dimensions)
        k = count("k", k, 1, MOST_RESULTS)
        wanted = None if among is None else check_ids(among)
        with self._lock:
            if wanted is not None:
                known = list(dict.fromkeys(id for id in wanted if id in self._keys))
                similar = similarities(self._get(known), vector)
                return [(known[i], float(similar[i])) for i in top_places(similar, k)]
            if not self._ids:
                return []
            found = self._graph.search(vector, min(k, len(self._ids)), threads=1)
            ids = self._ids
            return [
                (ids[key], 1.0 - distance)
                for key, distance in zip(
                    found.keys.tolist(), found.distances.tolist(), strict=True
                )
            ]

    def search_many(self, queries: npt.ArrayLike, k: int) -> list[list[Match]]:
        """:meth:`search` for each row of *queries*."""
        return [
            self.search(query, k) for query in unit_rows(queries, None, self.dimensions)
        ]

    def get(self, ids: Sequence[Id]) -> Vectors:
        """The vectors of *ids*, as they were rounded; KeyError where there is none."""
        wanted = check_ids(ids)
        with self._lock:
            return self._get(wanted)

    def _get(self, ids: list[Id]) -> Vectors:
        keys = np.array([self._keys[id] for id in ids], np.uint64)
        if not len(keys):
            return np.empty((0, self.dimensions), np.float32)
        made: Vectors = np.asarray(self._graph.get(keys, dtype=np.float32))
        return made

    def some(self, most: int) -> list[Id]:
        """Up to *most* of the ids."""
        with self._lock:
            return list(islice(self._keys, most))

    @property
    def nbytes(self) -> int:
        """Bytes of the vectors and the graph."""
        with self._lock:
            return 0 if self._graph is None else int(self._graph.memory_usage)

    def save(self, path: str | os.PathLike[str]) -> None:
        """As :meth:`FlatIndex.save`."""
        write_snapshot(path, self.kind, *self._state())

    def _state(self) -> tuple[dict[str, Any], list[Any]]:
        with self._lock:
            meta = {
                "dimensions": self.dimensions,
                "settings": self._settings,
                "ids": list(self._keys),
                "next": self._next,
            }
            keys = np.array(list(self._keys.values()), "<u8")
            return meta, [keys, self._graph.save() if self._keys else b""]

    @classmethod
    def _from_state(cls, meta: dict[str, Any], parts: list[bytearray]) -> HNSWIndex:
        index = cls(meta["dimensions"], **meta["settings"])
        keys = np.frombuffer(parts[0], "<u8").tolist()
        if keys:
            graph = index._begin()
            try:
                graph.load(parts[1])
            except Exception as error:
                raise StoreError(f"the graph can't be read: {error}") from error
            # The file has no such settings.
            graph.expansion_add = index._settings["expansion_add"]
            graph.expansion_search = index._settings["expansion_search"]
        index._keys = dict(zip(meta["ids"], keys, strict=True))
        index._ids = dict(zip(keys, meta["ids"], strict=True))
        index._next = meta["next"]
        return index

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, id: object) -> bool:
        return id in self._keys

    def __iter__(self) -> Iterator[Id]:
        """The ids, in no order that holds."""
        with self._lock:
            return iter(list(self._keys))
