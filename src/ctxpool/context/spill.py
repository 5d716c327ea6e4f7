"""Messages that no longer fit a window, in one SQLite file, to be had again."""

import math
import os
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from .. import _arguments
from ..errors import StoreError, UnstorableMessageError
from ..sizes import parse_size
from ..stats import SpillStats
from ._closing import Closing
from ._database import Database
from ._text_index import TextIndex, encodable, terms
from .message_json import dump_message, load_message
from .messages import Message, Role

__all__ = ["SpillStore", "Spilled"]

_KIND = 0x63747873  # "ctxs"
_SCHEMA = """\
CREATE TABLE messages (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    at REAL NOT NULL,
    role TEXT NOT NULL,
    nbytes INTEGER NOT NULL,
    crc INTEGER NOT NULL,
    body TEXT NOT NULL);
CREATE INDEX messages_at ON messages (at);
CREATE TABLE totals (nbytes INTEGER NOT NULL, removed INTEGER NOT NULL);
INSERT INTO totals VALUES (0, 0)"""
_AT_ONCE = 500  # parameters of a statement; SQLite takes at least 999


@dataclass(frozen=True, slots=True)
class Spilled:
    """A message that was found in a store.

    Attributes
    ----------
    message : Message
        As it was put.
    at : float
        When, in seconds as the store's clock has them.
    score : float
        How well it matches the query, more is better; 0.0 where there was none.
    """

    message: Message
    at: float
    score: float = 0.0


class SpillStore(Closing):
    """Messages in a file, lossless: content, tool calls, parts, metadata, sources.

    They are found by id (O(log n)), by time, and by the words of a query. A message
    that is put is there after ``kill -9``.

    Parameters
    ----------
    path : path or ":memory:"
        Made where there is no such file.
    max_bytes : int or str, optional
        The most that all messages may take, as JSON in UTF-8: the oldest go first.
        The file takes about 1.7 times that, with its indices, and its journal 4 MB.
    durable : bool
        Wait for the disk at each put, so that a loss of power loses nothing either.
    clock : callable
        The time in seconds, for :attr:`Spilled.at`.

    Raises
    ------
    StoreError
        The file is damaged or something else. It is left as it is. Every method
        raises it when it meets damage, or can't write.

    Notes
    -----
    **Thread-safety.** Each call is atomic, between threads and processes; a forked
    child may go on with the store.

    The ranking is BM25 of SQLite's FTS5 (Robertson et al., 1994), with English
    endings cut off (Porter, 1980). Where SQLite was built without FTS5, a search reads
    all messages and ranks them by how many of the query's words they contain.

    Examples
    --------
    >>> store = SpillStore(":memory:")
    >>> store.put([Message("user", "The key is under the mat.", id="m1")])
    []
    >>> store["m1"].content
    'The key is under the mat.'
    >>> [found.message.id for found in store.search("where are my keys?")]
    ['m1']
    >>> store.close()
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_bytes: int | str | None = None,
        durable: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.max_bytes = (
            None if max_bytes is None else parse_size(max_bytes, "max_bytes")
        )
        if not callable(clock):
            raise TypeError(f"clock must be a callable, not {clock!r}")
        self._clock = clock
        self._database = Database(
            path, kind=_KIND, version=1, schema=_SCHEMA, durable=durable
        )
        try:
            with self._database.write() as connection:
                self._index = TextIndex(connection, self._text)
        except BaseException:
            self._database.close()
            raise

    @property
    def path(self) -> str:
        """The file's."""
        return self._database.path

    def __repr__(self) -> str:
        return f"SpillStore({self.path!r})"

    # -- in ---------------------------------------------------------------------

    def put(self, messages: Iterable[Message]) -> list[str]:
        """Add *messages*, in one transaction: all of them or, on an error, none.

        One that is there already stays as it is.

        Returns
        -------
        list of str
            The ids of those that went to keep to *max_bytes*, oldest first.

        Raises
        ------
        UnstorableMessageError
            JSON can't hold a message, another one has its id, or it is larger than
            *max_bytes*.
        """
        rows = [(message, dump_message(message)) for message in messages]
        now = float(self._clock())
        if not math.isfinite(now):
            raise ValueError(f"the clock must give seconds, not {now!r}")
        with self._database.write() as connection:
            added = sum(self._add(connection, *row, now) for row in rows)
            connection.execute("UPDATE totals SET nbytes = nbytes + ?", (added,))
            return self._make_room(connection)

    def _add(
        self, connection: sqlite3.Connection, message: Message, body: str, now: float
    ) -> int:
        """The bytes that were added."""
        id, data = message.id, body.encode()
        if not encodable(id):
            raise UnstorableMessageError(
                f"message {id!r} can't be stored: its id is no valid text", id=id
            )
        found = connection.execute(
            "SELECT body FROM messages WHERE id = ?", (id,)
        ).fetchone()
        if found is not None:
            if found[0] != body:
                raise UnstorableMessageError(
                    f"message {id!r} can't be stored: another one has its id", id=id
                )
            return 0
        if self.max_bytes is not None and len(data) > self.max_bytes:
            raise UnstorableMessageError(
                f"message {id!r} takes {len(data)} bytes: more than the store's "
                f"max_bytes of {self.max_bytes}",
                id=id,
            )
        cursor = connection.execute(
            "INSERT INTO messages (at, id, role, nbytes, crc, body) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (now, id, message.role, len(data), zlib.crc32(data), body),
        )
        self._index.add(connection, cursor.lastrowid, message.text)
        return len(data)

    def _make_room(self, connection: sqlite3.Connection) -> list[str]:
        if self.max_bytes is None:
            return []
        (total,) = connection.execute("SELECT nbytes FROM totals").fetchone()
        oldest: list[Any] = []
        if total > self.max_bytes:
            for row in connection.execute("SELECT * FROM messages ORDER BY seq"):
                oldest.append(row)
                total -= row[4]
                if total <= self.max_bytes:
                    break
        connection.execute("UPDATE totals SET removed = removed + ?", (len(oldest),))
        self._remove(connection, oldest)
        return [row[1] for row in oldest]

    # -- out --------------------------------------------------------------------

    def __getitem__(self, id: str) -> Message:
        """The message of this id; KeyError if there is none."""
        return self.get_many([id])[0]

    def get(self, id: str, default: Any = None) -> Any:
        """The message of this id, or *default*."""
        found = self.get_many([id], partial=True)
        return found[0] if found else default

    def get_many(self, ids: Iterable[str], *, partial: bool = False) -> list[Message]:
        """The messages of these ids, in their order.

        Parameters
        ----------
        ids : iterable of str
            Of messages.
        partial : bool
            Leave out those that are not there.

        Raises
        ------
        KeyError
            Some are not there; it names them all.
        """
        ids = _text_ids(ids)
        found: dict[str, Message] = {}
        with self._database.read() as connection:
            for row in _selected(connection, ids):
                found[row[1]] = self._load(row)
        missing = [id for id in ids if id not in found]
        if missing and not partial:
            listed = ", ".join(map(repr, missing))
            raise KeyError(f"no message {listed} in {self.path!r}")
        return [found[id] for id in ids if id in found]

    def originals(self, message: Message, *, partial: bool = False) -> list[Message]:
        """The messages that *message* stands for, in their order; of an original,
        itself.

        Raises
        ------
        KeyError
            Some are not there, and *partial* is false; it names them all.
        """
        if not message.sources:
            return [message]
        return self.get_many(message.sources, partial=partial)

    def missing(self, ids: Iterable[str]) -> set[str]:
        """Those of *ids* that the store has no message of."""
        ids = _text_ids(ids)
        with self._database.read() as connection:
            found = {row[0] for row in _selected(connection, ids, "id")}
        return set(ids) - found

    def search(
        self,
        query: str,
        k: int = 5,
        *,
        roles: Iterable[str] | None = None,
        since: float | None = None,
        until: float | None = None,
    ) -> list[Spilled]:
        """The *k* messages that match the words of *query* best, best first.

        Any text is a query; nothing in it is syntax. One without words finds nothing.

        Parameters
        ----------
        query : str
            Its first 64 different words count.
        k : int
            How many at most.
        roles : iterable of str, optional
            Only messages of these.
        since, until : float, optional
            Only those put in this time, both ends included.

        Notes
        -----
        O(messages with one of the words), a few us each; without FTS5, O(all bytes).
        """
        k = _arguments.count("k", k, 0, 2**31)
        wanted = terms(query)
        if not wanted or k == 0:
            return []
        where, values = _conditions(roles, since, until)
        with self._database.read() as connection:
            best = self._index.best(connection, wanted, k, where, values)
        return [Spilled(self._load(row), row[2], score) for score, row in best]

    def history(
        self,
        *,
        since: float | None = None,
        until: float | None = None,
        roles: Iterable[str] | None = None,
        limit: int | None = None,
    ) -> list[Spilled]:
        """The messages in the order in which they were put.

        Parameters
        ----------
        since, until : float, optional
            Only those put in this time, both ends included.
        roles : iterable of str, optional
            Only messages of these.
        limit : int, optional
            Only the newest so many.
        """
        most = -1 if limit is None else _arguments.count("limit", limit, 0, 2**31)
        where, values = _conditions(roles, since, until)
        with self._database.read() as connection:
            rows = connection.execute(
                f"SELECT * FROM messages WHERE {where} ORDER BY seq DESC LIMIT ?",
                (*values, most),
            ).fetchall()
        return [Spilled(self._load(row), row[2]) for row in reversed(rows)]

    def _load(self, row: Any) -> Message:
        _, id, _, _, _, crc, body = row
        try:
            if zlib.crc32(body.encode()) != crc:
                raise ValueError("its checksum differs")
            return load_message(body)
        except (ValueError, AttributeError) as error:
            raise StoreError(
                f"{self.path!r}: message {id!r} is damaged: {error}"
            ) from error

    def _text(self, row: Any) -> str | None:
        """What the index has of it: nothing of one that is damaged."""
        try:
            return self._load(row).text
        except StoreError:
            return None

    # -- away -------------------------------------------------------------------

    def delete(self, ids: Iterable[str]) -> int:
        """Remove the messages of these ids; returns how many there were."""
        ids = _text_ids(ids)
        with self._database.write() as connection:
            rows = list(_selected(connection, ids))
            self._remove(connection, rows)
        return len(rows)

    def clear(self) -> None:
        """Remove all messages."""
        with self._database.write() as connection:
            connection.execute("DELETE FROM messages")
            connection.execute("UPDATE totals SET nbytes = 0")
            self._index.clear(connection)

    def _remove(self, connection: sqlite3.Connection, rows: Sequence[Any]) -> None:
        for row in rows:
            if (text := self._text(row)) is not None:
                self._index.remove(connection, row[0], text)
            connection.execute("DELETE FROM messages WHERE seq = ?", (row[0],))
        connection.execute(
            "UPDATE totals SET nbytes = nbytes - ?", (sum(row[4] for row in rows),)
        )

    # -- about ------------------------------------------------------------------

    def __contains__(self, id: object) -> bool:
        return isinstance(id, str) and not self.missing([id])

    def __len__(self) -> int:
        with self._database.read() as connection:
            return int(
                connection.execute("SELECT count(*) FROM messages").fetchone()[0]
            )

    def __bool__(self) -> bool:
        return True  # a store that holds nothing is a store

    def stats(self) -> SpillStats:
        """What the store holds now."""
        with self._database.read() as connection:
            count, first, last = connection.execute(
                "SELECT count(*), min(at), max(at) FROM messages"
            ).fetchone()
            nbytes, removed = connection.execute("SELECT * FROM totals").fetchone()
        return SpillStats(
            path=self.path,
            messages=count,
            bytes=nbytes,
            max_bytes=self.max_bytes,
            file_bytes=self._database.nbytes,
            removed=removed,
            oldest=first,
            newest=last,
        )

    def check(self) -> None:
        """Read every message and verify the file's structure; O(its size).

        Raises
        ------
        StoreError
            Something is damaged; it names the first.
        """
        self._database.check()
        with self._database.read() as connection:
            for row in connection.execute("SELECT * FROM messages"):
                self._load(row)
        with self._database.write() as connection:
            self._index.check(connection)

    def reindex(self) -> None:
        """Make the index of words anew, from the messages; O(all of them).

        For a file whose index is damaged, while its messages are not.
        """
        with self._database.write() as connection:
            self._index.make(connection)

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        self._database.close()


def _text_ids(ids: Iterable[str]) -> list[str]:
    """*ids* as a list. A string is one id that somebody forgot to put into a list."""
    listed = [ids] if isinstance(ids, str) else list(ids)
    for id in listed:
        if not isinstance(id, str):
            raise TypeError(f"an id must be text, not {id!r}")
    if isinstance(ids, str):
        raise TypeError(f"a list of ids is needed, not {ids!r}")
    return listed


def _selected(
    connection: sqlite3.Connection, ids: Sequence[str], columns: str = "*"
) -> Iterator[Any]:
    # What can't be encoded is the id of no message.
    known = [id for id in dict.fromkeys(ids) if encodable(id)]
    for i in range(0, len(known), _AT_ONCE):
        some = known[i : i + _AT_ONCE]
        marks = ", ".join("?" * len(some))
        yield from connection.execute(
            f"SELECT {columns} FROM messages WHERE id IN ({marks})", some
        ).fetchall()


def _conditions(
    roles: Iterable[str] | None, since: float | None, until: float | None
) -> tuple[str, list[Any]]:
    clauses: list[str] = ["1"]
    values: list[Any] = []
    for sign, name, limit in ((">=", "since", since), ("<=", "until", until)):
        if limit is not None:
            try:
                values.append(float(limit))
            except (TypeError, ValueError):
                raise TypeError(f"{name} must be seconds, not {limit!r}") from None
            clauses.append(f"at {sign} ?")
    if roles is not None:
        wanted = [roles] if isinstance(roles, str) else list(roles)
        for role in wanted:
            _arguments.choice("role", role, get_args(Role))
        clauses.append(f"role IN ({', '.join('?' * len(wanted))})")
        values += wanted
    return " AND ".join(clauses), values
