"""What a window asks for when it has run full, and the checks of what it gets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ._ledger import Entry, Ledger
from .messages import Group, Message

__all__ = ["Overflow", "in_common", "rebuilt"]


class Overflow(Protocol):
    """What a window asks when it has run full: an :class:`OverflowChain`, say."""

    def reduce(
        self,
        groups: Sequence[Group],
        budget: int,
        count: Callable[[Message], int],
    ) -> Any:
        """An object whose ``groups`` are to take the place of *groups*.

        Groups that are pinned must be among them; so are those whose calls wait for
        results. What stands ahead of the first message of a user is held and not sent,
        system messages excepted: let a summary be either of the two.
        """


def rebuilt(
    groups: Sequence[Group],
    entries: Sequence[Entry],
    result: Sequence[Group],
    cost: Callable[[Message], tuple[int, int]],
    users_first: bool,
) -> tuple[Ledger, list[Group]]:
    """A ledger of *result*, which *groups* were reduced to, and those of *groups* that
    nothing in it stands for.

    Raises
    ------
    TypeError, ValueError, LookupError
        It can't take their place.
    """
    pinned = {id(entry.messages[0]): entry.pinned for entry in entries}
    made = Ledger(users_first)
    ids: set[str] = set()
    sources: set[str] = set()
    for group in result:
        if not isinstance(group, Group) or not group.messages:
            raise TypeError(f"overflow returned {group!r} for a group")
        pin = pinned.get(id(group.messages[0]), group.pinned)
        for message in group.messages:
            made.add(message, *cost(message), pin)
            ids.add(message.id)
            sources.update(message.sources)
    for group in groups:
        if group.pinned and not ids.issuperset(m.id for m in group.messages):
            raise ValueError(f"overflow returned no longer {group!r}: it is pinned")
    ids |= sources
    gone = [g for g in groups if ids.isdisjoint(m.id for m in g.messages)]
    return made, gone


def in_common(old: Ledger, new: Ledger) -> int:
    """Tokens of the entries at the front that are the same in both."""
    tokens = 0
    for was, entry in zip(old.entries(), new.entries(), strict=False):
        if list(map(id, was.messages)) != list(map(id, entry.messages)):
            break
        tokens += entry.tokens
    return tokens
