"""Texts, what is known of them, and their vectors: always in step."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy.typing as npt

from .._pure.locks import new_rlock
from ._numbers import each, number
from .auto_index import AutoIndex, index_from_state, index_state
from .embedding import Embedder, HashedEmbedder, check_texts, unit_rows
from .hits import Record
from .vectors import BaseIndex, Id, VectorIndex, check_id, check_ids

__all__ = ["TextCollection"]


class TextCollection:
    """Records by id, and their vectors in an index.

    Parameters
    ----------
    embedder : Embedder, optional
    index : VectorIndex, optional
    clock : callable

    Notes
    -----
    **Thread-safety**: each call is atomic. The embedder is called outside any lock, the
    index under the collection's own.
    """

    def __init__(
        self,
        embedder: Embedder | None = None,
        index: VectorIndex | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.embedder = HashedEmbedder() if embedder is None else embedder
        if not isinstance(self.embedder, Embedder):
            raise TypeError(f"an embedder is needed, not {embedder!r}")
        self.index = AutoIndex(self.embedder.dimensions) if index is None else index
        if not isinstance(self.index, VectorIndex):
            raise TypeError(f"an index of vectors is needed, not {index!r}")
        if len(self.index):
            raise ValueError(f"an empty index is needed, not {index!r}")
        if self.index.dimensions != self.embedder.dimensions:
            raise ValueError(
                f"the index is of {self.index.dimensions} dimensions, the embedder of "
                f"{self.embedder.dimensions}"
            )
        if not callable(clock):
            raise TypeError(f"clock must be callable, not {clock!r}")
        self._clock = clock
        # Of all that follows, and of the index. It is the index's own where it has one:
        # another held around that would have to be older (see new_rlock).
        if isinstance(self.index, (BaseIndex, AutoIndex)):
            self._lock = self.index._lock
        else:
            self._lock = new_rlock()
        self._records: dict[Id, Record] = {}
        self._next = 0  # the id to try first, where none is given
        self._epoch = 0  # changes so far

    def add(
        self,
        texts: Sequence[str],
        ids: Sequence[Id] | None = None,
        *,
        metadata: Mapping[str, Any] | Sequence[Mapping[str, Any] | None] | None = None,
        importance: float | Sequence[float] = 1.0,
        timestamps: float | Sequence[float] | None = None,
        vectors: npt.ArrayLike | None = None,
    ) -> list[Id]:
        """Hold texts.

        Parameters
        ----------
        texts : sequence of str
        ids : sequence of int or str, optional
            Whole numbers that are free, by default.
        metadata : mapping or sequence of mappings, optional
            One for all, or one for each; copied, their values as they are.
        importance : float or sequence of float
            From 0 to 1.
        timestamps : float or sequence of float, optional
            Now, by default.
        vectors : array, optional
            Where the texts are embedded already.

        Returns
        -------
        list
            The ids.

        Raises
        ------
        ValueError
            An id is taken or given twice, or a number is out of range, or the lengths
            differ. Nothing is held then, nor if the embedder raises.
        """
        given = check_texts(texts)
        n = len(given)
        infos = [_info(one) for one in each("metadata", metadata, n, Mapping)]
        weights = [
            number("importance", one, 0, 1) for one in each("importance", importance, n)
        ]
        stamp = self._clock() if timestamps is None else timestamps
        stamps = [number("timestamp", one) for one in each("timestamps", stamp, n)]
        names = None if ids is None else check_ids(ids)
        if names is not None and len(names) != n:
            raise ValueError(f"{n} texts have {len(names)} ids")
        if names is not None and len(set(names)) < n:
            ((twice, _),) = Counter(names).most_common(1)
            raise ValueError(f"the id {twice!r} is given twice")
        self._check_free(names)  # before the work; and again when it is done
        made = self.embedder.embed(given) if vectors is None else vectors
        rows = unit_rows(made, n, self.embedder.dimensions)
        if not n:
            return []
        self._tell("learn", given)
        try:
            with self._lock:
                self._check_free(names)
                names = self._free(n) if names is None else names
                self.index.add(names, rows)
                held = map(Record, names, given, infos, weights, stamps)
                self._records.update(zip(names, held, strict=True))
                self._epoch += 1
        except BaseException:
            self._tell("forget", given)
            raise
        return names

    def _check_free(self, ids: list[Id] | None) -> None:
        for id in ids or ():
            if id in self._records:
                raise ValueError(f"the id {id!r} is taken: update() changes its text")

    def _free(self, n: int) -> list[Id]:
        """Whole numbers that are no ids yet (locked)."""
        made: list[Id] = []
        while len(made) < n:
            if self._next not in self._records:
                made.append(self._next)
            self._next += 1
        return made

    def _tell(self, what: str, texts: list[str]) -> None:
        """Let an embedder that learns know of texts."""
        method = getattr(self.embedder, what, None)
        if method is not None:
            method(texts)

    def update(
        self,
        id: Id,
        text: str | None = None,
        *,
        metadata: Mapping[str, Any] | None = None,
        importance: float | None = None,
        timestamp: float | None = None,
    ) -> Record:
        """Change what is given of a text that is held; KeyError where there is none."""
        id = check_id(id)
        changes: dict[str, Any] = {}
        rows = None
        if text is not None:
            changes["text"] = text
        if metadata is not None:
            changes["metadata"] = _info(*each("metadata", metadata, 1, Mapping))
        if importance is not None:
            changes["importance"] = number("importance", importance, 0, 1)
        if timestamp is not None:
            changes["timestamp"] = number("timestamp", timestamp)
        self.get(id)  # before the work
        if text is not None:
            made = self.embedder.embed(check_texts([text]))
            rows = unit_rows(made, 1, self.embedder.dimensions)
        with self._lock:
            old = self.get(id)
            new = replace(old, **changes)
            if rows is not None:
                self.index.add([id], rows)
            self._records[id] = new
            self._epoch += 1
        if text is not None:
            self._tell("learn", [text])
            self._tell("forget", [old.text])
        return new

    def remove(self, ids: Collection[Id]) -> int:
        """Drop texts; how many there were. Ids that are unknown are passed over."""
        gone = check_ids(ids)
        with self._lock:
            known = [id for id in dict.fromkeys(gone) if id in self._records]
            if not known:
                return 0
            self.index.remove(known)
            texts = [self._records.pop(id).text for id in known]
            self._epoch += 1
        self._tell("forget", texts)
        return len(known)

    def clear(self) -> None:
        """Drop all texts."""
        self.remove(list(self))

    def get(self, id: Id) -> Record:
        """What is held under an id; KeyError where there is nothing."""
        return self._records[id]

    def _state(self) -> tuple[dict[str, Any], list[Any]]:
        """What a file has to hold."""
        with self._lock:
            kind, about, parts = index_state(self.index)
            records = list(self._records.values())
            free = self._next
        rows = []
        for record in records:
            info = _json(record)
            rows.append(
                [record.id, record.text, info, record.importance, record.timestamp]
            )
        meta = {
            "embedder": self.embedder.name,
            "records": rows,
            "next": free,
            "index": [kind, about],
        }
        return meta, parts

    def _restore(self, meta: dict[str, Any], parts: list[bytearray]) -> None:
        """Take over what :meth:`_state` gave; of a collection that is empty."""
        self.index = index_from_state(meta["index"][0], meta["index"][1], parts)
        for id, text, info, importance, timestamp in meta["records"]:
            metadata = _info(json.loads(info))
            self._records[id] = Record(id, text, metadata, importance, timestamp)
        self._next = meta["next"]
        self._tell("learn", [record.text for record in self._records.values()])

    def __len__(self) -> int:
        return len(self._records)

    def __contains__(self, id: object) -> bool:
        return id in self._records

    def __iter__(self) -> Iterator[Id]:
        """The ids, in the order they came."""
        with self._lock:
            return iter(list(self._records))


def _info(metadata: Mapping[str, Any] | None) -> Mapping[str, Any]:
    return MappingProxyType(dict(metadata or {}))


def _json(record: Record) -> str:
    """Metadata as text that gives the very same back; no tuples, no keys but str."""
    info = dict(record.metadata)
    try:
        made = json.dumps(info)
        if json.loads(made) == info:
            return made
        reason = "it would come back as something else"
    except (TypeError, ValueError, RecursionError) as error:
        reason = str(error)
    raise TypeError(f"the metadata of {record.id!r} can't be written as JSON: {reason}")
