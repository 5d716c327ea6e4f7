"""Who is next to whom in a file of relations, and the part of it that is in memory."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from sqlite3 import Connection
from typing import Any, TypeAlias

from .. import LRUCache
from ._database import Database
from ._triples import HOLDS, KIND, RELATION, SCHEMA, VERSION, fold, relation_of
from .relations import Neighbour, Relation

__all__ = ["Graph"]

_HUB = 2048  # relations of one entity that are worth keeping in memory
_NAMES = 65_536  # whose entity is remembered


# A relation as it is seen from one of its ends: the other end, by name and number, and
# what a search looks at.
_Edge: TypeAlias = tuple[Neighbour, int, str, float, float]
_Step: TypeAlias = tuple[int, Relation | None]


def _edge(row: tuple[Any, ...], number: int) -> _Edge:
    relation = relation_of(row)
    name, other = relation.object, row[9]
    if row[8] != number:
        name, other = relation.subject, row[8]
    end = math.inf if relation.valid_to is None else relation.valid_to
    near = Neighbour(name, 1, relation)
    return near, other, relation.predicate, relation.valid_from, end


class Graph:
    """The file of a :class:`SemanticMemory`, under two caches: of the entity that a
    name stands for, and of an entity's relations.

    What is in the caches is what the file has: a writer drops what it changes, and
    what another process changes is seen. Nothing is put into
    them inside a transaction, which may be undone.
    """

    def __init__(
        self, path: str | os.PathLike[str], cache_relations: int, durable: bool
    ) -> None:
        self.database = Database(
            path, kind=KIND, version=VERSION, schema=SCHEMA, durable=durable
        )
        # None in place of a hub's relations, which are read as they are asked for.
        self.near: LRUCache[int, tuple[_Edge, ...] | None] = LRUCache(
            max(cache_relations, _HUB + 1),
            getsizeof=lambda edges: 1 if edges is None else 1 + len(edges),
        )
        self._ids: LRUCache[str, int] = LRUCache(_NAMES)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """The connection, and caches that are what the file has."""
        with self.database.read() as connection:
            if self.database.moved(connection):
                self.drop_all()
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction, likewise."""
        with self.database.write() as connection:
            if self.database.moved(connection):
                self.drop_all()
            yield connection

    def drop(self, *entities: int) -> None:
        """Forget their relations in memory, which a writer changes."""
        for number in entities:
            self.near.pop(number, None)

    def drop_all(self) -> None:
        """Forget what is in memory: entities are gone."""
        self.near.clear()
        self._ids.clear()

    def id(self, connection: Connection, name: str) -> int | None:
        """The entity of this name or alias."""
        if type(name) is not str:
            fold(name)
            name = str.__str__(name)  # a subclass's __eq__ has no place under a lock
        number: int | None = self._ids.get(name)
        if number is None:
            row = connection.execute(
                "SELECT entity FROM name WHERE key = ?", (fold(name),)
            ).fetchone()
            if row is None:
                return None
            number = int(row[0])
            if not connection.in_transaction:
                self._ids[name] = number
        return number

    def edges(
        self,
        connection: Connection,
        number: int,
        only: frozenset[str] | None,
        at: float,
        limit: int,
    ) -> list[_Edge]:
        """The relations of an entity that hold: the surest first; a hub's newest."""
        near = self.near.get(number, ())
        if near == ():
            near = self._load(connection, number)
        if near is None:
            return self._of_hub(connection, number, only, at, limit)
        return [
            edge
            for edge in near
            if edge[3] <= at < edge[4] and (only is None or edge[2] in only)
        ]

    def _load(self, connection: Connection, number: int) -> tuple[_Edge, ...] | None:
        rows = connection.execute(
            f"{RELATION} WHERE r.subject = :id UNION ALL "
            f"{RELATION} WHERE r.object = :id AND r.subject != :id LIMIT :most",
            {"id": number, "most": _HUB + 1},
        ).fetchall()
        near = None
        if len(rows) <= _HUB:
            rows.sort(key=lambda row: (-row[4], -row[5], -row[0]))
            near = tuple(_edge(row, number) for row in rows)
        self.near[number] = near
        return near

    def _of_hub(
        self,
        connection: Connection,
        number: int,
        only: frozenset[str] | None,
        at: float,
        limit: int,
    ) -> list[_Edge]:
        """At most *limit* each way: a hub's cost is what is asked for, not its size."""
        holds = HOLDS
        if only is not None:
            holds += f" AND r.predicate IN ({','.join('?' * len(only))})"
        found: list[_Edge] = []
        for end in ("subject", "object"):
            rows = connection.execute(
                f"{RELATION} WHERE r.{end} = ? AND {holds} "
                f"ORDER BY r.valid_from DESC LIMIT ?",
                (number, at, at, *sorted(only or ()), limit),
            )
            found += [_edge(row, number) for row in rows]
        return found

    def neighbours(
        self,
        start: str,
        hops: int,
        only: frozenset[str] | None,
        at: float,
        limit: int,
    ) -> list[Neighbour]:
        """Breadth first, each entity once, at most *limit*."""
        found: list[Neighbour] = []
        with self.read() as connection:
            number = self.id(connection, start)
            frontier = [] if number is None else [number]
            seen = set(frontier)
            for hop in range(1, hops + 1):
                reached = []
                for number in frontier:
                    if len(found) >= limit:
                        return found
                    # Of a hub, those that were seen are not those that are wanted.
                    most = limit + len(seen)
                    edges = self.edges(connection, number, only, at, most)
                    for near, other, *_ in edges:
                        if other not in seen and len(found) < limit:
                            seen.add(other)
                            reached.append(other)
                            if hop > 1:
                                near = Neighbour(near.name, hop, near.relation)
                            found.append(near)
                frontier = reached
        return found

    def path(
        self,
        start: str,
        end: str,
        only: frozenset[str] | None,
        at: float,
        hops: int,
        most: int,
    ) -> list[Relation] | None:
        """Breadth first from both ends, the smaller side first, until they meet."""
        with self.read() as connection:
            a, b = self.id(connection, start), self.id(connection, end)
            if a is None or b is None:
                return None
            if a == b:
                return []
            # Each entity that was reached: the one before it, and how they relate.
            sides: list[dict[int, _Step]] = [{a: (a, None)}, {b: (b, None)}]
            frontiers = [[a], [b]]
            for _ in range(hops):
                side = 0 if len(frontiers[0]) <= len(frontiers[1]) else 1
                mine, theirs = sides[side], sides[1 - side]
                reached: list[int] = []
                for number in frontiers[side]:
                    edges = self.edges(connection, number, only, at, most)
                    for near, other, *_ in edges:
                        if other in mine:
                            continue
                        mine[other] = number, near.relation
                        if other in theirs:
                            return _joined(sides, other)
                        reached.append(other)
                    if len(mine) + len(theirs) > most:
                        return None
                frontiers[side] = reached
        return None


def _joined(sides: list[dict[int, _Step]], middle: int) -> list[Relation]:
    """The relations from the one end over *middle* to the other."""
    halves: list[list[Relation]] = []
    for side in sides:
        half, number = [], middle
        while (step := side[number])[1] is not None:
            half.append(step[1])
            number = step[0]
        halves.append(half)
    return [*reversed(halves[0]), *halves[1]]
