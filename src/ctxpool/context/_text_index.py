"""The words of a store's messages: found by SQLite's FTS5, or without it by a scan."""

import heapq
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from . import _words

__all__ = ["TextIndex"]

# Contentless: the text is in the messages, and is made again to be taken out. The
# number of a message is never given twice, so that what a SQLite without FTS5 deleted
# meets nothing here.
_SCHEMA = """\
CREATE VIRTUAL TABLE IF NOT EXISTS words
USING fts5 (text, content = '', tokenize = 'porter unicode61')"""


class TextIndex:
    """An index over the table ``messages``, by its ``seq``.

    Parameters
    ----------
    connection : sqlite3.Connection
        In a transaction that writes: the index is made, where there is none, and gets
        those messages that a SQLite without FTS5 has put.
    text : callable
        The text of a row of ``messages``.
    """

    def __init__(
        self, connection: sqlite3.Connection, text: Callable[[Any], str]
    ) -> None:
        self._text = text
        self._fts5 = _has_fts5(connection)
        if self._fts5:
            connection.execute(_SCHEMA)
            (last,) = connection.execute("SELECT max(rowid) FROM words").fetchone()
            rows = connection.execute(
                "SELECT * FROM messages WHERE seq > ?", (last or 0,)
            )
            for row in rows.fetchall():
                self.add(connection, row[0], text(row))

    def add(self, connection: sqlite3.Connection, seq: int | None, text: str) -> None:
        """The words of a new message."""
        if self._fts5:
            connection.execute(
                "INSERT INTO words (rowid, text) VALUES (?, ?)",
                (seq, _words.spaced(text)),
            )

    def remove(self, connection: sqlite3.Connection, seq: int, text: str) -> None:
        """Those of a message that goes."""
        if self._fts5:
            connection.execute(
                "INSERT INTO words (words, rowid, text) VALUES ('delete', ?, ?)",
                (seq, _words.spaced(text)),
            )

    def clear(self, connection: sqlite3.Connection) -> None:
        """All of them."""
        if self._fts5:
            connection.execute("INSERT INTO words (words) VALUES ('delete-all')")

    def best(
        self,
        connection: sqlite3.Connection,
        terms: list[str],
        k: int,
        where: str,
        values: list[Any],
    ) -> list[tuple[float, Any]]:
        """Scores and rows of the *k* best of those that *where* lets through; the
        newer one first of two that are equally good."""
        if self._fts5:
            query = " OR ".join(f'"{term}"' for term in terms)
            found = connection.execute(
                "SELECT bm25(words), messages.* FROM words "
                "JOIN messages ON seq = words.rowid "
                f"WHERE words MATCH ? AND {where} "
                "ORDER BY bm25(words), seq DESC LIMIT ?",
                (query, *values, k),
            )
            return [(-score, row) for score, *row in found]
        rows = connection.execute(f"SELECT * FROM messages WHERE {where}", values)
        best = heapq.nlargest(
            k, self._scored(rows, terms), key=lambda found: (found[0], found[1][0])
        )
        return best

    def _scored(
        self, rows: Iterable[Any], terms: list[str]
    ) -> Iterator[tuple[float, Any]]:
        for row in rows:
            text = _words.spaced(self._text(row)).lower()
            if score := sum(term in text for term in terms):
                yield float(score), row


def _has_fts5(connection: sqlite3.Connection) -> bool:
    (found,) = connection.execute(
        "SELECT count(*) FROM pragma_module_list WHERE name = 'fts5'"
    ).fetchone()
    return bool(found)
