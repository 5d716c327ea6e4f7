"""What is known: entities, and relations between them that hold for a time."""

import json
import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from sqlite3 import Connection
from typing import Any

from .. import _arguments
from . import _triples
from ._closing import Closing
from ._graph import Graph
from ._semantic_view import SemanticView
from ._triples import (
    HOLDS,
    RELATION,
    fold,
    predicate_of,
    predicates_of,
    relation_of,
    texts_of,
)
from .relations import Entity, Relation
from .statements import Fact, Mention, extract_facts

__all__ = ["SemanticMemory"]

_FUNCTIONAL = (
    *("age", "born", "email", "listens_on", "lives_in", "located_in", "married_to"),
    *("name", "reports_to", "value", "works_at"),
)


def _checked(found: Any) -> Fact | Mention:
    """What an extractor gave, which may be a plain triple."""
    if isinstance(found, tuple) and len(found) == 3:
        found = Fact(*found)
    if isinstance(found, Mention):
        fold(found.name)
        return found
    if isinstance(found, Fact):
        fold(found.subject), fold(found.object), predicate_of(found.predicate)
        _arguments.fraction("confidence", found.confidence)
        return found
    raise TypeError(f"an extractor must give facts, mentions or triples, not {found!r}")


class SemanticMemory(Closing, SemanticView):
    """Entities and their relations, in one SQLite file under a cache.

    A relation holds from one moment to another. What is retracted or contradicted is
    closed, not deleted: the past can be asked for. Only :meth:`forget` deletes.

    Parameters
    ----------
    path : path or ":memory:"
    functional : collection of str
        Predicates with one object at a time: a new one closes the old one's interval.
        By default some of those that :func:`extract_facts` finds, as ``lives_in``.
    extractor : callable
        ``extractor(text, speaker)`` gives :class:`Fact`, :class:`Mention` or triples
        of text, for :meth:`learn`. Called outside any lock and transaction.
    cache_relations : int
        Relations that are kept in memory, some 400 bytes each.
    durable : bool
        fsync at each write: a loss of power loses nothing, either.
    clock : callable
        The time now, in seconds since the epoch.

    Raises
    ------
    StoreError
        The file is damaged, or something else. It is left as it is.

    Notes
    -----
    Two spellings name the same entity if they are equal but for case, width and
    spaces, or if one is an alias. Intervals of one functional subject and predicate
    never overlap, nor do those of one triple (R. T. Snodgrass, "Developing
    Time-Oriented Database Applications in SQL", 1999: a sequenced key).

    Neighbours cost O(the entity's relations), without a query for them while they are
    in the cache. What another process writes to the file, the next call sees.

    **Thread-safety**: each call is atomic.

    Examples
    --------
    >>> memory = SemanticMemory(clock=lambda: 30.0)
    >>> _ = memory.add("Ada", "lives_in", "Paris", valid_from=10)
    >>> _ = memory.add("Ada", "lives_in", "Lisbon", valid_from=20)
    >>> [str(relation) for relation in memory.relations("Ada")]
    ['Ada lives in Lisbon']
    >>> [str(relation) for relation in memory.relations("ada", at=15)]
    ['Ada lives in Paris']
    >>> memory.close()
    """

    def __init__(
        self,
        path: str | os.PathLike[str] = ":memory:",
        *,
        functional: Collection[str] = _FUNCTIONAL,
        extractor: Callable[[str, str], Iterable[Any]] = extract_facts,
        cache_relations: int = 50_000,
        durable: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not callable(extractor):
            raise TypeError(f"extractor must be callable, not {extractor!r}")
        self.functional = predicates_of(functional) or frozenset()
        self._extractor, self._clock = extractor, clock
        cache_relations = _arguments.count(
            "cache_relations", cache_relations, 0, 1 << 40
        )
        self._graph = Graph(path, cache_relations, durable)

    # --- writing ---------------------------------------------------------------------

    def add_entity(
        self,
        name: str,
        kind: str = "",
        attributes: Mapping[str, Any] | None = None,
        aliases: Iterable[str] = (),
    ) -> Entity:
        """Add an entity, or to what is known of it.

        Parameters
        ----------
        name : str
        kind : str
            Takes the place of the old one unless it is empty.
        attributes : mapping, optional
            Added to those that there are; must be JSON.
        aliases : iterable of str
            Other names of it.

        Raises
        ------
        ValueError
            An alias is the name of another entity.
        TypeError
            JSON can't hold the attributes.
        """
        fold(name)
        if not isinstance(kind, str):
            raise TypeError(f"kind must be text, not {kind!r}")
        try:
            added = json.loads(json.dumps(dict(attributes or {}), allow_nan=False))
        except (TypeError, ValueError) as error:
            raise type(error)(f"attributes must be JSON: {error}") from None
        others = texts_of("an alias", aliases)
        with self._graph.write() as connection:
            number = _triples.make_entity(connection, name, kind)
            if added:
                before = _triples.entity_of(connection, number).attributes
                connection.execute(
                    "UPDATE entity SET attributes = ? WHERE id = ?",
                    (json.dumps({**before, **added}), number),
                )
            for alias in others:
                owner = self._graph.id(connection, alias)
                if owner not in (None, number):
                    raise ValueError(f"{alias!r} is the name of another entity")
                connection.execute(
                    "INSERT OR IGNORE INTO name VALUES (?, ?, ?)",
                    (fold(alias), alias, number),
                )
            return _triples.entity_of(connection, number)

    def add(
        self,
        subject: str,
        predicate: str,
        object: str,
        *,
        confidence: float = 1.0,
        sources: str | Iterable[str] = (),
        valid_from: float | None = None,
        valid_to: float | None = None,
        functional: bool | None = None,
    ) -> Relation:
        """State that something is so; entities that are new are added.

        What held already is confirmed: it gets the sources, and the higher confidence.

        Parameters
        ----------
        subject, predicate, object : str
        confidence : float
            From 0 to 1.
        sources : str or iterable of str
            Ids of what says so.
        valid_from, valid_to : float, optional
            Seconds since the epoch; by default from now on.
        functional : bool, optional
            There is one object at a time: whatever else holds at *valid_from* is
            closed then. By default, if the predicate is one of ``self.functional``.

        Returns
        -------
        Relation
            As it is now in the file. It ends where the next one of the same subject
            and predicate begins, if that is known already.

        Notes
        -----
        O(log n) and the size of its slot: a functional subject and predicate, or a
        triple.
        """
        fold(subject), fold(object)
        predicate = predicate_of(predicate)
        confidence = _arguments.fraction("confidence", confidence)
        start = self._when(valid_from)
        end = None if valid_to is None else _arguments.number("valid_to", valid_to)
        if end is not None and end <= start:
            raise ValueError(f"valid_to must be after {start}, not {valid_to!r}")
        one = predicate in self.functional if functional is None else bool(functional)
        said_by = texts_of("a source", sources)
        with self._graph.write() as connection:
            a, b = self._made(connection, subject), self._made(connection, object)
            number, closed = _triples.put(
                connection, (a, predicate, b), confidence, (start, end), one
            )
            self._graph.drop(a, b, *closed)
            _triples.say(connection, number, said_by)
            row = connection.execute(f"{RELATION} WHERE r.id = ?", (number,)).fetchone()
            return relation_of(row)

    def _made(self, connection: Connection, name: str, kind: str = "") -> int:
        number = None if kind else self._graph.id(connection, name)
        if number is None:
            number = _triples.make_entity(connection, name, kind)
        return number

    def retract(
        self,
        subject: str,
        predicate: str | None = None,
        object: str | None = None,
        *,
        at: float | None = None,
    ) -> int:
        """State that it is no longer so, from *at* (default: now) on.

        Returns
        -------
        int
            How many relations held then, and end then.
        """
        when = self._when(at)
        fold(subject)
        where, values = ["subject = ?"], []
        if predicate is not None:
            where.append("predicate = ?")
            values.append(predicate_of(predicate))
        if object is not None:
            fold(object)
            where.append("object = ?")
        with self._graph.write() as connection:
            a = self._graph.id(connection, subject)
            b = None if object is None else self._graph.id(connection, object)
            if a is None or (object is not None and b is None):
                return 0
            ended = connection.execute(
                f"UPDATE relation AS r SET valid_to = ? WHERE {' AND '.join(where)} "
                f"AND {HOLDS} RETURNING object",
                (when, a, *values, *(() if b is None else (b,)), when, when),
            ).fetchall()
            self._graph.drop(a, *(other for (other,) in ended))
            return len(ended)

    def learn(
        self,
        text: str,
        *,
        source: str = "",
        speaker: str = "user",
        at: float | None = None,
    ) -> list[Relation]:
        """Add what the extractor finds in *text*: all of it, or nothing on an error.

        Parameters
        ----------
        text : str
        source : str
            Id of the text. What it mentions is found by it, and forgotten with it.
        speaker : str
            Whom "I" stands for.
        at : float, optional
            When it was said: facts hold from then on, denied ones until then.

        Returns
        -------
        list of Relation
            What it says, without what it denies.
        """
        return self.add_found(self.extract(text, speaker), source=source, at=at)

    def extract(self, text: str, speaker: str = "user") -> list[Fact | Mention]:
        """What the extractor finds in *text*, checked; nothing is added."""
        if not isinstance(text, str):
            raise TypeError(f"text must be str, not {text!r}")
        return [_checked(found) for found in self._extractor(text, speaker)]

    def add_found(
        self,
        found: Iterable[Fact | Mention],
        *,
        source: str = "",
        at: float | None = None,
    ) -> list[Relation]:
        """Add what :meth:`extract` found: the second half of :meth:`learn`."""
        said_by = texts_of("source", source)
        when = self._when(at)
        learnt = []
        with self._graph.write() as connection:
            for one in found:
                if isinstance(one, Mention):
                    names = {one.name: one.kind}
                elif one.negated:
                    self.retract(one.subject, one.predicate, one.object, at=when)
                    continue
                else:
                    relation = self.add(
                        one.subject,
                        one.predicate,
                        one.object,
                        confidence=one.confidence,
                        sources=said_by,
                        valid_from=when,
                        functional=one.functional or None,
                    )
                    learnt.append(relation)
                    names = {one.subject: "", one.object: ""}
                for name, kind in names.items():
                    number = self._made(connection, name, kind)
                    _triples.mention(connection, number, said_by)
        return learnt

    def forget(
        self, entity: str | None = None, *, source: str | Iterable[str] | None = None
    ) -> int:
        """Delete an entity and its relations, or what these sources alone have said.

        The bytes are overwritten in the file and its journal. What a forgotten
        statement has closed stays closed.

        Returns
        -------
        int
            Entities and relations that are gone.
        """
        if (entity is None) == (source is None):
            raise TypeError("forget() needs an entity or a source")
        unsaid = texts_of("a source", () if source is None else source)
        if entity is not None:
            fold(entity)
        with self._graph.write() as connection:
            before = connection.total_changes
            gone = sum(_triples.unsay(connection, one) for one in unsaid)
            number = None if entity is None else self._graph.id(connection, entity)
            if number is not None:
                gone += _triples.delete_entity(connection, number)
            changed = connection.total_changes != before
            self._graph.drop_all()
        if changed:
            self._graph.database.purge()
        return gone

    def save_to(self, path: str | os.PathLike[str]) -> None:
        """Write all of it to a new file.

        Raises
        ------
        StoreError
            It can't be written, or there is one.
        """
        self._graph.database.copy(path)

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        self._graph.database.close()

    def __repr__(self) -> str:
        return f"<SemanticMemory {self._graph.database.path!r}>"
