"""Entities and relations in SQL: the tables, and what is done to them in a
transaction of the caller's."""

import json
import unicodedata
from collections.abc import Collection, Iterable
from sqlite3 import Connection
from typing import Any

from .relations import Entity, Relation

__all__ = [
    "HOLDS",
    "KIND",
    "RELATION",
    "SCHEMA",
    "VERSION",
    "delete_entity",
    "entity_of",
    "fold",
    "make_entity",
    "mention",
    "predicate_of",
    "predicates_of",
    "put",
    "relation_of",
    "say",
    "texts_of",
    "unsay",
]

KIND, VERSION = 0x43585345, 1
SCHEMA = """\
CREATE TABLE entity (
  id INTEGER PRIMARY KEY, name TEXT NOT NULL, kind TEXT NOT NULL,
  attributes TEXT NOT NULL);
CREATE TABLE name (
  key TEXT PRIMARY KEY, name TEXT NOT NULL,
  entity INTEGER NOT NULL REFERENCES entity ON DELETE CASCADE) WITHOUT ROWID;
CREATE INDEX name_entity ON name (entity);
CREATE TABLE relation (
  id INTEGER PRIMARY KEY,
  subject INTEGER NOT NULL REFERENCES entity ON DELETE CASCADE,
  predicate TEXT NOT NULL,
  object INTEGER NOT NULL REFERENCES entity ON DELETE CASCADE,
  confidence REAL NOT NULL, valid_from REAL NOT NULL, valid_to REAL);
CREATE INDEX relation_slot ON relation (subject, predicate, object);
CREATE INDEX relation_subject ON relation (subject, valid_from);
CREATE INDEX relation_object ON relation (object, valid_from);
CREATE TABLE source (
  number INTEGER PRIMARY KEY,
  relation INTEGER NOT NULL REFERENCES relation ON DELETE CASCADE,
  source TEXT NOT NULL, UNIQUE (relation, source));
CREATE INDEX source_source ON source (source);
CREATE TABLE mention (
  number INTEGER PRIMARY KEY,
  entity INTEGER NOT NULL REFERENCES entity ON DELETE CASCADE,
  source TEXT NOT NULL, UNIQUE (entity, source));
CREATE INDEX mention_source ON mention (source)"""
RELATION = """\
SELECT r.id, s.name, r.predicate, o.name, r.confidence, r.valid_from, r.valid_to,
  (SELECT json_group_array(source) FROM (SELECT source FROM source
    WHERE relation = r.id ORDER BY number DESC LIMIT 20)),
  r.subject, r.object
FROM relation r JOIN entity s ON s.id = r.subject JOIN entity o ON o.id = r.object
"""
HOLDS = "r.valid_from <= ? AND ifnull(r.valid_to > ?, 1)"
# Nothing else is known of an entity, and nobody speaks of it.
_FORGOTTEN = """\
DELETE FROM entity WHERE id = :id AND attributes = '{}' AND NOT EXISTS (
  SELECT 1 FROM mention WHERE entity = :id UNION ALL
  SELECT 1 FROM relation WHERE subject = :id UNION ALL
  SELECT 1 FROM relation WHERE object = :id)"""


def fold(name: str) -> str:
    """What all spellings of a name have in common."""
    if not isinstance(name, str):
        raise TypeError(f"a name must be str, not {name!r}")
    key = " ".join(unicodedata.normalize("NFKC", name).casefold().split())
    key = key.strip("`\"'").removesuffix("()")
    if not key:
        raise ValueError(f"a name must not be empty, not {name!r}")
    return key


def predicate_of(name: str) -> str:
    if not isinstance(name, str):
        raise TypeError(f"a predicate must be str, not {name!r}")
    predicate = "_".join(name.casefold().replace("_", " ").split())
    if not predicate:
        raise ValueError(f"a predicate must not be empty, not {name!r}")
    return predicate


def predicates_of(predicates: Collection[str] | None) -> frozenset[str] | None:
    if isinstance(predicates, str):
        raise TypeError(f"predicates must be a set of names, not {predicates!r}")
    return None if predicates is None else frozenset(map(predicate_of, predicates))


def texts_of(name: str, given: str | Iterable[str]) -> tuple[str, ...]:
    texts = (
        (given,)
        if isinstance(given, str) or not isinstance(given, Iterable)
        else tuple(given)
    )
    for text in texts:
        if not isinstance(text, str):
            raise TypeError(f"{name} must be text, not {text!r}")
    return tuple(dict.fromkeys(text for text in texts if text))


def relation_of(row: tuple[Any, ...]) -> Relation:
    """The relation in a row of ``RELATION``."""
    sources = () if row[7] == "[]" else tuple(json.loads(row[7]))
    number, subject, predicate, object, confidence, start, end = row[:7]
    return Relation(number, subject, predicate, object, confidence, start, end, sources)


def entity_of(connection: Connection, number: int) -> Entity:
    """The entity of this number."""
    name, kind, attributes = connection.execute(
        "SELECT name, kind, attributes FROM entity WHERE id = ?", (number,)
    ).fetchone()
    aliases = connection.execute(
        "SELECT name FROM name WHERE entity = ? AND name != ? ORDER BY name",
        (number, name),
    )
    return Entity(name, kind, json.loads(attributes), tuple(a for (a,) in aliases))


def make_entity(connection: Connection, name: str, kind: str = "") -> int:
    """The number of the entity of this name, which is made where there is none."""
    key = fold(name)
    row = connection.execute("SELECT entity FROM name WHERE key = ?", (key,)).fetchone()
    if row is not None:
        if kind:
            connection.execute(
                "UPDATE entity SET kind = :kind WHERE id = :id AND kind != :kind",
                {"kind": kind, "id": row[0]},
            )
        return int(row[0])
    (number,) = connection.execute(
        "INSERT INTO entity (name, kind, attributes) VALUES (?, ?, '{}') RETURNING id",
        (name, kind),
    ).fetchone()
    connection.execute("INSERT INTO name VALUES (?, ?, ?)", (key, name, number))
    return int(number)


def mention(connection: Connection, entity: int, sources: Iterable[str]) -> None:
    """Note who speaks of it."""
    connection.executemany(
        "INSERT OR IGNORE INTO mention (entity, source) VALUES (?, ?)",
        [(entity, source) for source in sources],
    )


def put(
    connection: Connection,
    triple: tuple[int, str, int],
    confidence: float,
    interval: tuple[float, float | None],
    functional: bool,
) -> tuple[int, list[int]]:
    """Make room in the slot, and put the interval there.

    Returns
    -------
    tuple
        The relation's number, and the objects of those that it has closed.
    """
    (subject, predicate, object), (start, end) = triple, interval
    closed: list[int] = []
    where = "subject = ? AND predicate = ?" + ("" if functional else " AND object = ?")
    slot = connection.execute(
        "SELECT id, object, valid_from, valid_to FROM relation "
        f"WHERE {where} AND ifnull(valid_to > ?, 1) ORDER BY valid_from, id",
        (*(triple[:2] if functional else triple), start),
    ).fetchall()
    for number, other, began, ended in slot:
        if began > start:  # the next one is known already
            end = began if end is None else min(end, began)
            break
        if other == object:
            if end is not None and (ended is None or end < ended):
                ended = end
            connection.execute(
                "UPDATE relation SET confidence = max(confidence, ?), valid_to = ? "
                "WHERE id = ?",
                (confidence, ended, number),
            )
            return int(number), closed
        closed.append(other)
        connection.execute(
            "UPDATE relation SET valid_to = ? WHERE id = ?", (start, number)
        )
    (number,) = connection.execute(
        "INSERT INTO relation (subject, predicate, object, confidence, valid_from, "
        "valid_to) VALUES (?, ?, ?, ?, ?, ?) RETURNING id",
        (subject, predicate, object, confidence, start, end),
    ).fetchone()
    return int(number), closed


def say(connection: Connection, relation: int, sources: Iterable[str]) -> None:
    """Note who says it."""
    connection.executemany(
        "INSERT OR IGNORE INTO source (relation, source) VALUES (?, ?)",
        [(relation, source) for source in sources],
    )


def unsay(connection: Connection, source: str) -> int:
    """Delete what *source* alone has said; how many entities and relations."""
    relations = connection.execute(
        "DELETE FROM source WHERE source = ? RETURNING relation", (source,)
    ).fetchall()
    entities = connection.execute(
        "DELETE FROM mention WHERE source = ? RETURNING entity", (source,)
    ).fetchall()
    gone = 0
    for (number,) in relations:
        gone += connection.execute(
            "DELETE FROM relation WHERE id = :id AND NOT EXISTS "
            "(SELECT 1 FROM source WHERE relation = :id)",
            {"id": number},
        ).rowcount
    for (number,) in entities:
        gone += connection.execute(_FORGOTTEN, {"id": number}).rowcount
    return gone


def delete_entity(connection: Connection, number: int) -> int:
    """Delete an entity and its relations; how many of both."""
    gone = connection.execute(
        "DELETE FROM relation WHERE subject = :id OR object = :id", {"id": number}
    ).rowcount
    return (
        gone + connection.execute("DELETE FROM entity WHERE id = ?", (number,)).rowcount
    )
