"""Episodes in SQL: the tables, and what is done to them in a transaction of the
caller's. A text and its vector are one row: neither is there without the other."""

import json
from collections.abc import Iterable, Iterator, Mapping
from sqlite3 import Connection
from typing import Any

import numpy as np

from ..errors import DamagedStoreError
from ._episode_draft import Draft
from .embedding import Vectors
from .episodes import Episode

__all__ = [
    "KIND",
    "SCHEMA",
    "VERSION",
    "about",
    "absorb",
    "delete",
    "figures",
    "insert",
    "note",
    "numbers_of",
    "repeat",
    "rows",
    "state",
]

KIND, VERSION = 0x43585045, 1
SCHEMA = """\
CREATE TABLE episode (
  number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,
  digest BLOB NOT NULL UNIQUE, text TEXT NOT NULL, role TEXT NOT NULL,
  created REAL NOT NULL, importance REAL NOT NULL, metadata TEXT NOT NULL,
  accessed REAL NOT NULL, uses INTEGER NOT NULL, vector BLOB NOT NULL);
CREATE INDEX episode_created ON episode (created);
CREATE TABLE source (
  source TEXT NOT NULL, episode INTEGER NOT NULL REFERENCES episode ON DELETE CASCADE,
  PRIMARY KEY (source, episode)) WITHOUT ROWID;
CREATE INDEX source_episode ON source (episode);
CREATE TABLE about (name TEXT PRIMARY KEY, value) WITHOUT ROWID"""
_FIGURES = """\
SELECT number, accessed, uses, importance, length(CAST(text AS BLOB)) +
  length(CAST(metadata AS BLOB)) + length(vector) FROM episode"""
_ROW = """\
SELECT number, id, text, role, created, importance, metadata,
  (SELECT json_group_array(source) FROM source WHERE episode = number) FROM episode"""
_AT_ONCE = 500


def insert(connection: Connection, draft: Draft, key: bytes, vector: Vectors) -> int:
    """Store an episode; its number."""
    (number,) = connection.execute(
        "INSERT INTO episode (id, digest, text, role, created, importance, metadata, "
        "accessed, uses, vector) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, ?) "
        "RETURNING number",
        (
            *(draft.id, key, draft.text, draft.role, draft.at, draft.importance),
            *(draft.metadata, draft.at, vector.astype("<f2").tobytes()),
        ),
    ).fetchone()
    note(connection, number, draft.sources)
    return int(number)


def repeat(connection: Connection, number: int, draft: Draft) -> None:
    """It was said again: what is new of it is added."""
    (before,) = connection.execute(
        "SELECT metadata FROM episode WHERE number = ?", (number,)
    ).fetchone()
    connection.execute(
        "UPDATE episode SET importance = max(importance, ?), metadata = ?, "
        "accessed = max(accessed, ?), uses = uses + 1 WHERE number = ?",
        (
            draft.importance,
            json.dumps(json.loads(before) | json.loads(draft.metadata)),
            draft.at,
            number,
        ),
    )
    note(connection, number, (draft.id, *draft.sources))


def note(connection: Connection, number: int, sources: Iterable[str]) -> None:
    """The episode goes by these ids, too."""
    connection.executemany(
        "INSERT OR IGNORE INTO source SELECT :id, :number WHERE NOT EXISTS "
        "(SELECT 1 FROM episode WHERE number = :number AND id = :id)",
        [{"id": source, "number": number} for source in sources],
    )


def absorb(
    connection: Connection, stays: int, others: list[int], group: Mapping[int, Episode]
) -> None:
    """Let *stays* stand for the others of its group."""
    kept = group[stays]
    metadata: dict[str, Any] = {}
    for other in others:
        metadata |= group[other].metadata
        note(connection, stays, (group[other].id, *group[other].sources))
        connection.execute("DELETE FROM episode WHERE number = ?", (other,))
    members = group.values()
    connection.execute(
        "UPDATE episode SET metadata = ?, uses = ?, accessed = ?, created = ? "
        "WHERE number = ?",
        (
            *(json.dumps(metadata | dict(kept.metadata)), sum(e.uses for e in members)),
            *(max(e.accessed for e in members), min(e.created for e in members), stays),
        ),
    )


def delete(connection: Connection, numbers: Iterable[int]) -> None:
    """Delete episodes."""
    connection.executemany(
        "DELETE FROM episode WHERE number = ?", [(number,) for number in numbers]
    )


def numbers_of(connection: Connection, ids: Iterable[str]) -> list[int]:
    """The episodes of these ids, or of which these are sources."""
    found: dict[int, None] = {}
    for id in ids:
        for (number,) in connection.execute(
            "SELECT number FROM episode WHERE id = :id UNION "
            "SELECT episode FROM source WHERE source = :id",
            {"id": id},
        ):
            found[number] = None
    return list(found)


def rows(connection: Connection, numbers: list[int]) -> Iterator[tuple[Any, ...]]:
    """The number and the first seven fields of :class:`Episode` of those that are
    there, in no order; the metadata as JSON."""
    for n in range(0, len(numbers), _AT_ONCE):
        some = numbers[n : n + _AT_ONCE]
        marks = ",".join("?" * len(some))
        for row in connection.execute(f"{_ROW} WHERE number IN ({marks})", some):
            number, id, text, role, created, importance, metadata, sources = row
            yield (
                *(number, id, text, role, created, importance),
                *(metadata, tuple(json.loads(sources))),
            )


def figures(connection: Connection, numbers: Iterable[int]) -> list[tuple[Any, ...]]:
    """Number, last use, uses, importance and size of these episodes."""
    return [
        connection.execute(f"{_FIGURES} WHERE number = ?", (number,)).fetchone()
        for number in numbers
    ]


def state(
    connection: Connection, path: str, dimensions: int
) -> Iterator[tuple[list[tuple[Any, ...]], Vectors]]:
    """Number, last use, uses, importance and size of all episodes, with their vectors;
    some thousands at a time."""
    cursor = connection.execute(
        f"{_FIGURES.replace(' FROM', ', vector FROM')} ORDER BY number"
    )
    while some := cursor.fetchmany(4096):
        packed = b"".join(row[5] for row in some)
        if len(packed) != 2 * dimensions * len(some):
            raise DamagedStoreError(f"{path!r} is damaged: vectors of another length")
        vectors = np.frombuffer(packed, "<f2").reshape(len(some), dimensions)
        yield [row[:5] for row in some], vectors.astype(np.float32)


def about(connection: Connection, name: str) -> Any:
    """What the file says of itself; None where it says nothing."""
    row = connection.execute("SELECT value FROM about WHERE name = ?", (name,))
    found = row.fetchone()
    return None if found is None else found[0]
