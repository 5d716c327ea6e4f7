"""Vectors by id, and those nearest to a query: exactly, or through a graph."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from .._arguments import count
from .._pure.locks import new_rlock
from ._snapshot import write_snapshot
from .embedding import Vectors, unit_rows

__all__ = ["FlatIndex", "Id", "Match", "VectorIndex"]

Id = int | str
# An id and its similarity, the cosine, from -1 to 1.
Match = tuple[Id, float]

MOST_RESULTS = 1 << 20  # of results
_CHUNK = 1 << 22  # similarities that are held at once, for many queries


@runtime_checkable
class VectorIndex(Protocol):
    """Vectors by id. Any object with these methods is one."""

    dimensions: int

    def add(self, ids: Sequence[Id], vectors: npt.ArrayLike) -> None:
        """Store vectors, a row for each id; in the place of those with these ids."""

    def remove(self, ids: Collection[Id]) -> int:
        """Drop vectors; how many there were."""

    def search(
        self, query: npt.ArrayLike, k: int, *, among: Collection[Id] | None = None
    ) -> list[Match]:
        """The *k* most similar to one vector, the nearest first."""

    def get(self, ids: Sequence[Id]) -> Vectors:
        """The vectors of *ids*, of length 1; KeyError where there is none."""

    def __len__(self) -> int: ...

    def __contains__(self, id: object) -> bool: ...

    def __iter__(self) -> Iterator[Id]: ...


def check_ids(ids: Any) -> list[Id]:
    """*ids* as a list of str and int, or a TypeError that names what is neither."""
    if isinstance(ids, (str, bytes)):
        raise TypeError(f"a sequence of ids is needed, not one: {ids!r}")
    try:
        given = list(ids)
    except TypeError:
        raise TypeError(f"a sequence of ids is needed, not {ids!r}") from None
    return [check_id(one) for one in given]


def check_id(id: Any) -> Id:
    """*id*, str or int, as a plain one."""
    if type(id) is str or type(id) is int:
        return id
    if isinstance(id, str):
        return str(id)
    try:
        if not isinstance(id, (bool, np.bool_)):
            return operator.index(id)
    except TypeError:
        pass
    raise TypeError(f"an id must be str or int, not {id!r}")


def check_new(
    ids: Any, vectors: npt.ArrayLike, dimensions: int
) -> tuple[list[Id], Vectors]:
    """What :meth:`VectorIndex.add` was given, checked; of an id named twice, the
    last."""
    checked = check_ids(ids)
    rows = unit_rows(vectors, len(checked), dimensions)
    last = {id: row for row, id in enumerate(checked)}
    if len(last) < len(checked):
        return list(last), rows[list(last.values())]
    return checked, rows


def check_query(query: npt.ArrayLike, dimensions: int) -> Vectors:
    """One vector as a row of length 1."""
    with np.errstate(over="ignore"):
        made = np.asarray(query, dtype=np.float32)
    if made.shape != (dimensions,):
        raise ValueError(
            f"a vector of shape ({dimensions},) is needed, not {made.shape}"
        )
    largest = float(np.abs(made).max())
    if not math.isfinite(largest):
        raise ValueError("a vector holds a number that is not finite")
    if largest:
        made = made / np.float32(largest)
        made /= np.float32(math.sqrt(float(np.dot(made, made))))
    return made


def similarities(vectors: Vectors, query: Vectors) -> Vectors:
    """The product of each row with one vector, by this thread alone.

    BLAS would share the product of a matrix with the other processors, and where these
    are busy wait for them: 9 ms in place of 0.05 for 1,000 rows, on a loaded machine.
    """
    made: Vectors = _row_by_row(vectors, query)
    return made


def _einsum(vectors: Vectors, query: Vectors) -> Any:
    return np.einsum("ij,j->i", vectors, query)


_row_by_row: Callable[[Vectors, Vectors], Any] = getattr(np, "vecdot", _einsum)


def top_places(similarities: Vectors, k: int) -> npt.NDArray[np.intp]:
    """The places of the *k* largest, the largest first; O(n + k log k)."""
    if k < len(similarities):
        largest = np.argpartition(similarities, len(similarities) - k)[-k:]
        largest.sort()  # equal ones in the order of their rows
    else:
        largest = np.arange(len(similarities))
    return largest[np.argsort(-similarities[largest], kind="stable")]


class BaseIndex:
    """What the flat index and the graph have in common."""

    dimensions: int

    def __init__(self, dimensions: int) -> None:
        self.dimensions = count("dimensions", dimensions, 1, 1 << 20)
        self._lock = new_rlock()

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} of {len(self):,} vectors of "  # type: ignore[arg-type]
            f"{self.dimensions} dimensions>"
        )


class FlatIndex(BaseIndex):
    """Vectors in one array; a search looks at every one of them, and errs never.

    Vectors are brought to length 1, so that the similarity is the cosine.

    Parameters
    ----------
    dimensions : int
    capacity : int
        Vectors to have room for from the start, in memory that counts when it is used.

    Notes
    -----
    ``add`` is O(1) a vector, amortised: past *capacity* the array grows by half, and is
    copied then, some 10 ms for 60 MB. ``remove`` is O(1):
    the last vector takes the place. ``search`` is O(n), as fast as memory can be read,
    and by the caller's thread alone: some 40 microseconds for 1,000 vectors of 384
    dimensions, 0.5 ms for 10,000. Four bytes a dimension, and about 150 an id.

    **Thread-safety**: each call is atomic; they wait for one another.

    Examples
    --------
    >>> index = FlatIndex(2)
    >>> index.add(["east", "north"], [[1, 0], [0, 1]])
    >>> index.search([3, 4], 1)
    [('north', 0.800000011920929)]
    """

    kind = "flat index"

    def __init__(self, dimensions: int, *, capacity: int = 64) -> None:
        super().__init__(dimensions)
        self._capacity = count("capacity", capacity, 1, 1 << 40)
        self._vectors = np.empty((self._capacity, self.dimensions), np.float32)
        self._ids: list[Id] = []
        self._rows: dict[Id, int] = {}

    def add(self, ids: Sequence[Id], vectors: npt.ArrayLike) -> None:
        """Store vectors, a row for each id; in the place of those with these ids.

        Raises
        ------
        TypeError
            An id is neither str nor int.
        ValueError
            There are not as many vectors as ids, or they have other dimensions, or a
            number is not finite. Nothing is stored.
        """
        new, rows = check_new(ids, vectors, self.dimensions)
        with self._lock:
            fresh = [id for id in new if id not in self._rows]
            self._resize(len(self._ids) + len(fresh))
            for place, id in enumerate(fresh, len(self._ids)):
                self._rows[id] = place
            self._ids += fresh
            self._vectors[[self._rows[id] for id in new]] = rows

    def _resize(self, needed: int) -> None:
        """Room for *needed* rows, and not much more than that."""
        room = len(self._vectors)
        if needed > room:
            room = max(needed, room + room // 2)
        elif needed < room // 4 and room > self._capacity:
            room = max(2 * needed, self._capacity)
        else:
            return
        made = np.empty((room, self.dimensions), np.float32)
        kept = min(len(self._ids), needed)
        made[:kept] = self._vectors[:kept]
        self._vectors = made

    def remove(self, ids: Collection[Id]) -> int:
        """Drop vectors; how many there were. Ids that are unknown are passed over."""
        gone = check_ids(ids)
        with self._lock:
            before = len(self._ids)
            for id in gone:
                row = self._rows.pop(id, None)
                if row is None:
                    continue
                last = self._ids.pop()
                if row < len(self._ids):
                    self._ids[row] = last
                    self._rows[last] = row
                    self._vectors[row] = self._vectors[len(self._ids)]
            self._resize(len(self._ids))
            return before - len(self._ids)

    def search(
        self, query: npt.ArrayLike, k: int, *, among: Collection[Id] | None = None
    ) -> list[Match]:
        """The *k* most similar to one vector, the nearest first.

        Parameters
        ----------
        query : array
            Of any length; one of zeros is equally near to all.
        k : int
            Fewer come back where there are fewer.
        among : collection of ids, optional
            Look at these alone.
        """
        vector = check_query(query, self.dimensions)
        k = count("k", k, 1, MOST_RESULTS)
        wanted = None if among is None else check_ids(among)
        with self._lock:
            n = len(self._ids)
            if wanted is None:
                rows = None
                similar = similarities(self._vectors[:n], vector)
            else:
                found = {self._rows[id]: None for id in wanted if id in self._rows}
                rows = np.fromiter(found, np.intp, len(found))
                similar = similarities(self._vectors[rows], vector)
            best = top_places(similar, k)
            places = best if rows is None else rows[best]
            ids = self._ids
            return list(
                zip(
                    [ids[place] for place in places.tolist()],
                    similar[best].tolist(),
                    strict=True,
                )
            )

    def search_many(self, queries: npt.ArrayLike, k: int) -> list[list[Match]]:
        """:meth:`search` for each row of *queries*, in one product of matrices."""
        vectors = unit_rows(queries, None, self.dimensions)
        k = count("k", k, 1, MOST_RESULTS)
        found: list[list[Match]] = []
        with self._lock:
            n, ids = len(self._ids), self._ids
            step = max(1, _CHUNK // max(n, 1))
            for start in range(0, len(vectors), step):
                similar = vectors[start : start + step] @ self._vectors[:n].T
                for row in similar:
                    best = top_places(row, k)
                    names = [ids[place] for place in best.tolist()]
                    found.append(list(zip(names, row[best].tolist(), strict=True)))
        return found

    def get(self, ids: Sequence[Id]) -> Vectors:
        """The vectors of *ids*, of length 1; KeyError where there is none."""
        wanted = check_ids(ids)
        with self._lock:
            return self._vectors[[self._rows[id] for id in wanted]]

    def some(self, most: int) -> list[Id]:
        """Up to *most* of the ids, those that are the least work to drop."""
        with self._lock:
            return self._ids[max(0, len(self._ids) - most) :]

    @property
    def nbytes(self) -> int:
        """Bytes of the array of vectors."""
        return self._vectors.nbytes

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all to a file, whole or not at all; :func:`load_index` reads it.

        Raises
        ------
        StoreError
            It can't be written.
        """
        write_snapshot(path, self.kind, *self._state())

    def _state(self) -> tuple[dict[str, Any], list[Any]]:
        with self._lock:
            ids = list(self._ids)
            vectors = self._vectors[: len(ids)].astype("<f4")
        return {"dimensions": self.dimensions, "ids": ids}, [vectors]

    @classmethod
    def _from_state(cls, meta: dict[str, Any], parts: list[bytearray]) -> FlatIndex:
        index = cls(meta["dimensions"])
        vectors = np.frombuffer(parts[0], "<f4").reshape(-1, index.dimensions)
        index._ids = meta["ids"]
        index._rows = {id: row for row, id in enumerate(index._ids)}
        index._resize(len(vectors))
        index._vectors[: len(vectors)] = vectors
        return index

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, id: object) -> bool:
        return id in self._rows

    def __iter__(self) -> Iterator[Id]:
        """The ids, in no order that holds."""
        with self._lock:
            return iter(list(self._ids))
