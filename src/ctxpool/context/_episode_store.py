"""Episodes in a file, and what of them is in memory: it follows the file."""

import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from sqlite3 import Connection
from typing import Any

import numpy as np

from .. import LRUCache
from ..errors import StoreError, ValueTooLargeError
from . import _episode_file as file
from ._database import Database
from ._episode_draft import Draft, digest
from ._retention import Retention
from .embedding import Embedder, Vectors, unit_rows
from .episodes import Episode
from .vectors import VectorIndex

__all__ = ["EpisodeStore"]

_AT_ONCE = 256  # texts that are embedded at a time
_NO_VECTORS = np.empty((0, 0), np.float32)


def _size(row: tuple[Any, ...]) -> int:
    """Bytes of an episode's fields in memory, about."""
    return 500 + sys.getsizeof(row[2]) + len(row[6])


class EpisodeStore:
    """The file of an :class:`~ctxpool.context.EpisodicMemory`, an index of its vectors,
    the figures that decide what fades, and a cache of texts.

    A change is made in the file first, and in memory when the transaction is done: an
    error changes neither. Should memory fail after that, or should another process
    have written to the file, memory is made anew from the file by the next call.

    **Thread-safety**: methods that take a connection are for inside :meth:`current`;
    all others are atomic.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        embedder: Embedder,
        index: VectorIndex,
        *,
        half_life: float,
        cache_bytes: int,
        reembed: bool,
        durable: bool,
    ) -> None:
        self.embedder, self.index = embedder, index
        self.retention = Retention(half_life)
        self.texts: LRUCache[int, tuple[Any, ...]] = LRUCache(
            cache_bytes, getsizeof=_size
        )
        self._largest_text = cache_bytes
        self._unwritten: set[int] = set()  # whose uses the file has not
        self._whole = False  # whether memory is what the file is
        self.database = Database(
            path,
            kind=file.KIND,
            version=file.VERSION,
            schema=file.SCHEMA,
            durable=durable,
        )
        try:
            self._take_up(reembed)
        except BaseException:
            self.database.close()
            raise

    def _take_up(self, reembed: bool) -> None:
        name, dimensions = self.embedder.name, self.embedder.dimensions
        with self.database.write() as connection:
            before = file.about(connection, "embedder")
            if before is not None and before != name and not reembed:
                raise StoreError(
                    f"{self.database.path!r} was made with the embedder {before!r}, "
                    f"not {name!r}: open it with that one, or with reembed=True"
                )
            if before != name:
                self._embed_anew(connection)
            connection.executemany(
                "INSERT OR REPLACE INTO about VALUES (?, ?)",
                [("embedder", name), ("dimensions", dimensions)],
            )
        with self.current() as connection:
            learn = getattr(self.embedder, "learn", None)
            if learn is not None and not getattr(self.embedder, "documents", 1):
                texts = connection.execute("SELECT text FROM episode ORDER BY number")
                while some := texts.fetchmany(_AT_ONCE):
                    learn([text for (text,) in some])

    def _embed_anew(self, connection: Connection) -> None:
        last = 0
        while some := connection.execute(
            "SELECT number, text FROM episode WHERE number > ? ORDER BY number LIMIT ?",
            (last, _AT_ONCE),
        ).fetchall():
            vectors = self.embedded([text for _, text in some]).astype("<f2")
            connection.executemany(
                "UPDATE episode SET vector = ? WHERE number = ?",
                [(v.tobytes(), n) for v, (n, _) in zip(vectors, some, strict=True)],
            )
            last = some[-1][0]

    @contextmanager
    def current(self) -> Iterator[Connection]:
        """The connection by this thread alone, and an index that holds what the file
        does."""
        with self.database.read() as connection:
            if self.database.moved(connection) or not self._whole:
                self._load(connection)
            yield connection

    def _load(self, connection: Connection) -> None:
        self._whole = False
        self.texts.clear()
        self.retention.clear()
        self._unwritten.clear()
        self.index.remove(list(self.index))
        states = file.state(connection, self.database.path, self.embedder.dimensions)
        for figures, vectors in states:
            for row in figures:
                self.retention.put(*row)
            self.index.add([row[0] for row in figures], vectors)
        self._whole = True

    @contextmanager
    def _change(self) -> Iterator[Connection]:
        """A transaction, in which memory is what the file is, uses included. They are
        to be taken for written when it is done."""
        with self.database.write() as connection:
            if self.database.moved(
                connection
            ):  # between current() and the transaction's begin
                self._load(connection)
            connection.executemany(
                "UPDATE episode SET accessed = ?, uses = ? WHERE number = ?",
                [(*self.retention.figures(n), n) for n in self._unwritten],
            )
            yield connection

    def embedded(self, texts: list[str]) -> Vectors:
        some = [
            unit_rows(
                self.embedder.embed(part := texts[n : n + _AT_ONCE]),
                len(part),
                self.embedder.dimensions,
            )
            for n in range(0, len(texts), _AT_ONCE)
        ]
        # As the file will have them, so that a restart changes no answer.
        return np.concatenate(some).astype("<f2").astype(np.float32)

    def add(
        self,
        drafts: list[Draft],
        vectors: Vectors,
        now: float,
        max_items: float,
        max_bytes: float,
    ) -> tuple[list[Episode], int, list[Episode]]:
        """Store them all or none; the episodes, how many of them are new, and those
        that had to go for them."""
        with self.current():
            with self._change() as connection:
                numbers, fresh = self._put(connection, drafts, vectors)
                new = sum(drafts[row].size(vectors.shape[1]) for row in fresh.values())
                gone = self._victims(
                    len(self.retention) + len(fresh) - max_items,
                    self.retention.size + new - max_bytes,
                    now,
                    set(numbers),
                )
                evicted = self.read(connection, gone)
                file.delete(connection, gone)
                figures = file.figures(connection, dict.fromkeys(numbers))
            self._follow(figures, gone)
            self._index(list(fresh), vectors[list(fresh.values())], gone)
            found = self.read(connection, numbers)
            return [found[n] for n in numbers], len(fresh), list(evicted.values())

    def _put(
        self, connection: Connection, drafts: list[Draft], vectors: Vectors
    ) -> tuple[list[int], dict[int, int]]:
        """The number of each draft, and the row of each that is new by its number."""
        numbers: list[int] = []
        fresh: dict[int, int] = {}
        for row, draft in enumerate(drafts):
            key = digest(draft.role, draft.text)
            found = connection.execute(
                "SELECT number, digest FROM episode WHERE digest = ? OR id = ?",
                (key, draft.id),
            ).fetchall()
            known = [number for number, other in found if other == key]
            if len(found) > len(known):
                raise ValueError(f"the id {draft.id!r} is that of another text")
            if known:
                file.repeat(connection, known[0], draft)
                numbers.append(known[0])
            else:
                number = file.insert(connection, draft, key, vectors[row])
                fresh[number] = row
                numbers.append(number)
        return numbers, fresh

    def _victims(
        self, over_items: float, over_bytes: float, now: float, kept: set[int]
    ) -> list[int]:
        """So many episodes and bytes of the least retention, those *kept* aside."""
        if over_items <= 0 and over_bytes <= 0:
            return []
        wanted = int(max(over_items, 1)) + len(kept)
        while True:
            found: list[int] = []
            freed = 0
            for number in self.retention.least(wanted, now):
                if number not in kept:
                    found.append(number)
                    freed += self.retention.bytes_of(number)
                if len(found) >= over_items and freed >= over_bytes:
                    return found
            if wanted >= len(self.retention):
                raise ValueTooLargeError(
                    f"{len(kept)} texts at once are more than there may be: there is "
                    "no room even without all others"
                )
            wanted *= 4

    def _follow(self, changed: Iterable[tuple[Any, ...]], gone: Iterable[int]) -> None:
        """The figures and texts in memory, after a change of the file."""
        self._unwritten.clear()
        for number in gone:
            self.retention.drop(number)
            self.texts.pop(number, None)
        for figures in changed:
            self.retention.put(*figures)
            self.texts.pop(figures[0], None)

    def _index(self, new: list[int], vectors: Vectors, gone: list[int]) -> None:
        self._whole = False  # should one of these fail
        if gone:
            self.index.remove(gone)
        if new:
            self.index.add(new, vectors)
        self._whole = True

    def use(self, numbers: list[int], now: float) -> int:
        """Count a use of each that is there; how many uses are not written yet."""
        with self.current():
            for number in numbers:
                if number in self.retention:
                    self.retention.use(number, now)
                    self._unwritten.add(number)
            return len(self._unwritten)

    def write_uses(self) -> None:
        """Uses are written with the next change; a killed process loses some."""
        with self.current():
            with self._change():
                pass
            self._unwritten.clear()

    def rank(
        self, vector: Vectors, wanted: int, least: float, now: float
    ) -> tuple[list[tuple[int, float, float, float]], bool]:
        """Number, similarity, recency and importance of the *wanted* most similar;
        whether there may be more of them."""
        with self.current():
            wanted = max(1, min(wanted, len(self.retention)))
            found = self.index.search(vector, wanted)
            near = [
                (int(number), similar) for number, similar in found if similar > least
            ]
            recency, importance = self.retention.of([number for number, _ in near], now)
        figures = zip(near, recency.tolist(), importance.tolist(), strict=True)
        more = len(near) == wanted < len(self.retention)
        return [(*pair, *rest) for pair, *rest in figures], more

    def read(self, connection: Connection, numbers: list[int]) -> dict[int, Episode]:
        """The episodes of those that are there, through the cache."""
        fields = {n: self.texts.get(n) for n in dict.fromkeys(numbers)}
        missing = [number for number, known in fields.items() if known is None]
        for row in file.rows(connection, missing) if missing else ():
            fields[row[0]] = row
            if not connection.in_transaction and _size(row) <= self._largest_text:
                self.texts[row[0]] = row
        found: dict[int, Episode] = {}
        for number, row in fields.items():
            if row is not None:
                _, id, text, role, created, importance, metadata, sources = row
                figures = self.retention.figures(number)
                metadata = json.loads(
                    metadata
                )  # the caller's own, to change as he likes
                found[number] = Episode(
                    *(id, text, role, created, importance, metadata, sources), *figures
                )
        return found

    def remove(self, connection: Connection, numbers: list[int]) -> list[Episode]:
        """Delete episodes, everywhere; what they were."""
        if not numbers:
            return []
        gone = self.read(connection, numbers)
        with self._change() as connection:
            file.delete(connection, numbers)
        self._follow((), numbers)
        self._index([], _NO_VECTORS, numbers)
        self.database.purge()
        return list(gone.values())

    def merge(
        self, number: int, alike: float, old: set[int], neighbours: int
    ) -> list[Episode]:
        """Let one episode stand for this one and those like it; the others."""
        with self.current() as connection:
            if number not in self.retention:
                return []  # merged or forgotten meanwhile
            vector = self.index.get([number])[0]
            like = [
                int(other)
                for other, near in self.index.search(vector, neighbours)
                if near >= alike and other in old and other != number
            ]
            group = self.read(connection, [number, *like])
            if len(group) < 2:
                return []
            stays = max(group, key=lambda n: (group[n].importance, group[n].uses, n))
            others = [n for n in group if n != stays]
            with self._change() as connection:
                file.absorb(connection, stays, others, group)
                figures = file.figures(connection, [stays])
            self._follow(figures, others)
            self._index([], _NO_VECTORS, others)
            return [group[other] for other in others]
