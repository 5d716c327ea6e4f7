"""What a file of entities and relations answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, Any

from .. import _arguments
from ._graph import Graph
from ._triples import (
    HOLDS,
    RELATION,
    entity_of,
    fold,
    predicate_of,
    predicates_of,
    relation_of,
)
from .relations import Entity, Neighbour, Relation, SemanticStats
from .statements import COMMON_WORDS

if TYPE_CHECKING:
    import networkx

__all__ = ["SemanticView"]

_PAGE = 500
_NAME_WORDS = 4  # of a name that mentioned() finds


def _bare(word: str) -> str:
    """A word of a text as it would stand in a folded name."""
    try:
        return fold(word.strip(",.;:!?()[]{}<>\"'").removesuffix("'s"))
    except ValueError:
        return ""


class SemanticView:
    """The questions that :class:`~ctxpool.context.SemanticMemory` answers."""

    _graph: Graph
    _clock: Callable[[], float]

    def entity(self, name: str) -> Entity | None:
        """The entity of this name or alias; None where there is none."""
        fold(name)
        with self._graph.read() as connection:
            number = self._graph.id(connection, name)
            return None if number is None else entity_of(connection, number)

    def entities(self, kind: str | None = None, *, limit: int = 1000) -> list[Entity]:
        """The entities, or those of a kind, oldest first, at most *limit*."""
        limit = _arguments.count("limit", limit, 0, 1 << 40)
        with self._graph.read() as connection:
            numbers = connection.execute(
                "SELECT id FROM entity WHERE :kind IS NULL OR kind = :kind "
                "ORDER BY id LIMIT :limit",
                {"kind": kind, "limit": limit},
            ).fetchall()
            return [entity_of(connection, number) for (number,) in numbers]

    def relations(
        self,
        subject: str | None = None,
        predicate: str | None = None,
        object: str | None = None,
        *,
        source: str | None = None,
        at: float | None = None,
        history: bool = False,
        limit: int = 1000,
    ) -> list[Relation]:
        """The relations that match what is given and hold at *at* (default: now).

        Parameters
        ----------
        subject, predicate, object : str, optional
        source : str, optional
            Those that it says.
        at : float, optional
            Seconds since the epoch.
        history : bool
            Those of all times.
        limit : int
            The newest so many.

        Returns
        -------
        list of Relation
            In the order in which they came to hold.
        """
        limit = _arguments.count("limit", limit, 0, 1 << 40)
        when = self._when(at)
        where: list[str] = ["1"]
        values: list[Any] = []
        with self._graph.read() as connection:
            for column, name in (("subject", subject), ("object", object)):
                if name is not None:
                    fold(name)
                    where.append(f"r.{column} = ?")
                    values.append(self._graph.id(connection, name))
            if predicate is not None:
                where.append("r.predicate = ?")
                values.append(predicate_of(predicate))
            if source is not None:
                where.append("r.id IN (SELECT relation FROM source WHERE source = ?)")
                values.append(source)
            if not history:
                where.append(HOLDS)
                values += [when, when]
            rows = connection.execute(
                f"{RELATION} WHERE {' AND '.join(where)} "
                "ORDER BY r.valid_from DESC, r.id DESC LIMIT ?",
                (*values, limit),
            ).fetchall()
        return [relation_of(row) for row in reversed(rows)]

    def neighbours(
        self,
        entity: str,
        hops: int = 1,
        *,
        predicates: Collection[str] | None = None,
        at: float | None = None,
        limit: int = 100,
    ) -> list[Neighbour]:
        """The entities within *hops* relations of this one, nearest first.

        Parameters
        ----------
        entity : str
            Of an unknown one the list is empty.
        hops : int
        predicates : collection of str, optional
            Follow these only, in either direction.
        at : float, optional
            Relations that hold then; default now.
        limit : int
            At most so many. Those of one entity come the surest first, then the
            newest; those of one with more than 2,048 relations the newest first.

        Returns
        -------
        list of Neighbour
            Each entity once.
        """
        hops = _arguments.count("hops", hops, 1, 1000)
        limit = _arguments.count("limit", limit, 0, 1 << 40)
        return self._graph.neighbours(
            entity, hops, predicates_of(predicates), self._when(at), limit
        )

    def path(
        self,
        start: str,
        end: str,
        *,
        predicates: Collection[str] | None = None,
        at: float | None = None,
        max_hops: int = 6,
        max_entities: int = 10_000,
    ) -> list[Relation] | None:
        """A shortest chain of relations between two entities, in either direction.

        Returns
        -------
        list of Relation or None
            Empty for one and the same; None where there is none within *max_hops*, or
            *max_entities* were seen without finding one.
        """
        fold(start), fold(end)
        hops = _arguments.count("max_hops", max_hops, 0, 1000)
        most = _arguments.count("max_entities", max_entities, 1, 1 << 40)
        return self._graph.path(
            start, end, predicates_of(predicates), self._when(at), hops, most
        )

    def mentioned(self, text: str) -> list[Entity]:
        """The entities that are known and that *text* names; O(its words)."""
        if not isinstance(text, str):
            raise TypeError(f"text must be str, not {text!r}")
        words = [_bare(word) for word in text.split()]
        spans = [
            (n, m, " ".join(words[n:m]))
            for n in range(len(words))
            for m in range(min(n + _NAME_WORDS, len(words)), n, -1)  # the longest first
        ]
        keys = list({key for _, _, key in spans if key and key not in COMMON_WORDS})
        known: dict[str, int] = {}
        with self._graph.read() as connection:
            for n in range(0, len(keys), _PAGE):
                some = keys[n : n + _PAGE]
                known.update(
                    connection.execute(
                        "SELECT key, entity FROM name WHERE key IN "
                        f"({','.join('?' * len(some))})",
                        some,
                    )
                )
            found: dict[int, None] = {}
            end = 0
            for n, m, key in spans if known else ():
                if n >= end and key in known:
                    found[known[key]] = None
                    end = m
            return [entity_of(connection, number) for number in found]

    def sources(self, entity: str, *, limit: int = 100) -> list[str]:
        """Ids of what mentions this entity, the last ones added first."""
        limit = _arguments.count("limit", limit, 0, 1 << 40)
        fold(entity)
        with self._graph.read() as connection:
            rows = connection.execute(
                "SELECT source FROM mention WHERE entity = ? "
                "ORDER BY number DESC LIMIT ?",
                (self._graph.id(connection, entity), limit),
            )
            return [source for (source,) in rows]

    def triples(
        self, *, at: float | None = None, history: bool = False
    ) -> Iterator[tuple[str, str, str]]:
        """Each relation that holds at *at* (default: now), or each of all times, as
        subject, predicate and object, in the order in which they were added."""
        for relation in self._all(self._when(at), history):
            yield relation.subject, relation.predicate, relation.object

    def _all(self, at: float, history: bool) -> Iterator[Relation]:
        """Page by page: no lock is held while the caller does something with one."""
        last = 0
        while True:
            with self._graph.read() as connection:
                rows = connection.execute(
                    f"{RELATION} WHERE r.id > ? AND (? OR ({HOLDS})) "
                    "ORDER BY r.id LIMIT ?",
                    (last, history, at, at, _PAGE),
                ).fetchall()
            for row in rows:
                yield relation_of(row)
            if len(rows) < _PAGE:
                return
            last = rows[-1][0]

    def to_networkx(
        self, *, at: float | None = None, history: bool = False
    ) -> networkx.MultiDiGraph[str]:
        """The entities and relations as a graph of networkx, with its algorithms.

        A node is a name, with kind and attributes; an edge's key is the relation's id,
        its data are the relation's fields.

        Raises
        ------
        ModuleNotFoundError
            Without the extra: ``pip install "ctxpool[graph]"``.
        """
        try:
            import networkx
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                'to_networkx() needs networkx: pip install "ctxpool[graph]"'
            ) from error
        graph: networkx.MultiDiGraph[str] = networkx.MultiDiGraph()
        with self._graph.read() as connection:
            entities = connection.execute(
                "SELECT name, kind, attributes FROM entity ORDER BY id"
            ).fetchall()
        for name, kind, attributes in entities:
            graph.add_node(name, kind=kind, attributes=json.loads(attributes))
        for relation in self._all(self._when(at), history):
            graph.add_edge(
                relation.subject,
                relation.object,
                key=relation.id,
                predicate=relation.predicate,
                confidence=relation.confidence,
                valid_from=relation.valid_from,
                valid_to=relation.valid_to,
                sources=relation.sources,
            )
        return graph

    def stats(self) -> SemanticStats:
        """What there is; O(relations)."""
        with self._graph.read() as connection:
            entities, relations, still = connection.execute(
                "SELECT (SELECT count(*) FROM entity), count(*), "
                "count(*) FILTER (WHERE valid_to IS NULL) FROM relation"
            ).fetchone()
            file_bytes = self._graph.database.nbytes
        near = self._graph.near.stats()
        return SemanticStats(
            entities, relations, still, file_bytes, near.hits, near.misses
        )

    def check(self) -> None:
        """Read the whole file and verify its structure; StoreError if it is damaged."""
        self._graph.database.check()

    def _when(self, at: float | None) -> float:
        return _arguments.number("a moment", self._clock() if at is None else at)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(name) and self.entity(name) is not None

    def __len__(self) -> int:
        """How many entities there are; O(n)."""
        with self._graph.read() as connection:
            row = connection.execute("SELECT count(*) FROM entity").fetchone()
            return int(row[0])

    def __bool__(self) -> bool:
        return True
