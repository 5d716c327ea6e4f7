"""The words of a store's messages: found by SQLite's FTS5, or without it by a scan."""

import heapq
import itertools
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from .words import STOP

__all__ = ["TextIndex", "encodable", "terms"]

# Contentless: the text is in the messages, and is made again to be taken out. The
# number of a message is never given twice, so that what a SQLite without FTS5 deleted
# meets nothing here.
_SCHEMA = """\
CREATE VIRTUAL TABLE IF NOT EXISTS words
USING fts5 (text, content = '', tokenize = 'porter unicode61')"""

# Scripts without spaces: each character is a word, or a whole sentence would be one.
_UNSPACED = "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
_UNSPACED += "\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]"
_CHARACTER = re.compile(_UNSPACED)
_WORD = re.compile(rf"(?:{_UNSPACED})+|(?:(?!{_UNSPACED})\w)+")
_MOST = 64  # words of a query


class TextIndex:
    """An index over the table ``messages``, by its ``seq``.

    Parameters
    ----------
    connection : sqlite3.Connection
        In a transaction that writes: the index is made, where there is none, and gets
        those messages that a SQLite without FTS5 has put.
    text : callable
        The text of a row of ``messages``; None for one that is not to be found.
    """

    def __init__(
        self, connection: sqlite3.Connection, text: Callable[[Any], str | None]
    ) -> None:
        self._text = text
        self._fts5 = _has_fts5(connection)
        if self._fts5:
            try:
                self._catch_up(connection)
            except sqlite3.DatabaseError:  # damaged: all that it has is in the messages
                self.make(connection)

    def make(self, connection: sqlite3.Connection) -> None:
        """Anew, of all messages."""
        if self._fts5:
            connection.execute("DROP TABLE IF EXISTS words")
            self._catch_up(connection)

    def _catch_up(self, connection: sqlite3.Connection) -> None:
        """Index what is newer than all that is in the index."""
        connection.execute(_SCHEMA)
        (last,) = connection.execute("SELECT max(rowid) FROM words").fetchone()
        rows = connection.execute("SELECT * FROM messages WHERE seq > ?", (last or 0,))
        for row in rows.fetchall():
            if (text := self._text(row)) is not None:
                self.add(connection, row[0], text)

    def check(self, connection: sqlite3.Connection) -> None:
        """sqlite3.DatabaseError if the index is damaged."""
        if self._fts5:
            connection.execute("INSERT INTO words (words) VALUES ('integrity-check')")

    def add(self, connection: sqlite3.Connection, seq: int | None, text: str) -> None:
        """The words of a new message."""
        if self._fts5:
            connection.execute(
                "INSERT INTO words (rowid, text) VALUES (?, ?)",
                (seq, _spaced(text)),
            )

    def remove(self, connection: sqlite3.Connection, seq: int, text: str) -> None:
        """Those of a message that goes."""
        if self._fts5:
            connection.execute(
                "INSERT INTO words (words, rowid, text) VALUES ('delete', ?, ?)",
                (seq, _spaced(text)),
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
            # Inside, nothing of a message is read but what *where* asks for.
            found = connection.execute(
                "SELECT score, messages.* FROM ("
                "SELECT rank AS score, words.rowid AS place FROM words "
                "JOIN messages ON seq = words.rowid "
                f"WHERE words MATCH ? AND {where} "
                "ORDER BY rank, words.rowid DESC LIMIT ?"
                ") JOIN messages ON seq = place ORDER BY score, seq DESC",
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
            text = _spaced(self._text(row) or "").lower()
            if score := sum(term in text for term in terms):
                yield float(score), row


def _has_fts5(connection: sqlite3.Connection) -> bool:
    (found,) = connection.execute(
        "SELECT count(*) FROM pragma_module_list WHERE name = 'fts5'"
    ).fetchone()
    return bool(found)


def encodable(text: str) -> bool:
    """Whether *text* has no half of a surrogate pair."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _spaced(text: str) -> str:
    """*text* for the index: spaces around each character that is a word."""
    if text.isascii():
        return text
    if not encodable(text):
        text = text.encode(errors="replace").decode()
    return _CHARACTER.sub(r" \g<0> ", text)


def terms(query: str) -> list[str]:
    """The different words of *query*, lowered, the first 64, without "the" and its like
    if there are others. Of characters that are words, each pair of neighbours, as the
    index has it."""
    if not isinstance(query, str):
        raise TypeError(f"a query must be text, not {query!r}")
    found: dict[str, None] = {}
    for word in _WORD.findall(query.lower()):
        if _CHARACTER.match(word) and len(word) > 1:
            pairs = itertools.pairwise(word)
            found.update((f"{a}  {b}", None) for a, b in pairs)
        else:
            found[word] = None
        if len(found) >= _MOST:
            break
    # Nearly every message has those, and each costs a look at all of them.
    telling = [word for word in found if word not in STOP]
    return (telling or list(found))[:_MOST]
