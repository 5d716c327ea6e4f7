"""What a group of messages is worth to a window, next to the others."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .. import LRUCache
from .messages import Group, Message

__all__ = ["GroupValue", "identifiers", "later_uses"]

_WORD = re.compile(r"[\w@#][\w./:@#]*\w")
_TELLING = re.compile(r"[\d_/@#]|\w[.:]\w|[a-z][A-Z]")
_MOST = 64  # of a message
_known: LRUCache[tuple[str, int], frozenset[str]] = LRUCache(8192)

_BY_ROLE = {"system": 1.0, "user": 0.6, "assistant": 0.4, "tool": 0.2}
_OF_A_SUMMARY = 0.8


def identifiers(message: Message) -> frozenset[str]:
    """The first 64 different words of *message* that name one thing: with a digit, an
    underscore, the signs of a path or an address, or camelCase. Found once, cached."""
    text = message.text
    key = message.id, hash(text)
    found: frozenset[str] | None = _known.get(key)
    if found is None:
        first: dict[str, None] = {}
        for word in dict.fromkeys(_WORD.findall(text)):
            if word.isalpha() and word[1:].islower():
                continue  # as most are
            if len(word) > 2 and _TELLING.search(word):
                first[word] = None
                if len(first) == _MOST:
                    break
        found = _known[key] = frozenset(first)
    return found


def later_uses(groups: Sequence[Group]) -> list[int]:
    """For each group, how many newer ones name the identifier of it that most do."""
    named: dict[str, int] = {}
    uses = []
    for group in reversed(groups):
        words = frozenset().union(*map(identifiers, group.messages))
        uses.append(max((named.get(word, 0) for word in words), default=0))
        for word in words:
            named[word] = named.get(word, 0) + 1
    return uses[::-1]


@dataclass(frozen=True, slots=True)
class GroupValue:
    """A group's value: a weighted sum of four numbers from 0 to 1.

    Attributes
    ----------
    recency : float
        Weight of ``0.5 ** (age / half_life)``.
    importance : float
        Weight of what the messages' metadata give as ``"importance"``, the highest of
        them; without one, by role: system 1.0, a summary 0.8, user 0.6, assistant 0.4,
        tool 0.2.
    density : float
        Weight of the identifiers' number over that of the tokens, times 4.
    uses : float
        Weight of ``uses / (uses + 1)``.
    half_life : float
        In groups.

    Examples
    --------
    >>> value, told = GroupValue(), Group((Message("user", "Hi!"),), 5)
    >>> value(told, 16, 0) < value(told, 0, 0) < value(told, 0, 1)
    True
    """

    recency: float = 1.0
    importance: float = 1.0
    density: float = 0.5
    uses: float = 0.5
    half_life: float = 16.0

    def __post_init__(self) -> None:
        for name in ("recency", "importance", "density", "uses", "half_life"):
            value: Any = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"{name} must be a number, not {value!r}")
            if not value >= 0 or (name == "half_life" and value == 0):
                raise ValueError(f"{name} must not be negative or nan, not {value!r}")

    def __call__(self, group: Group, age: int, uses: int) -> float:
        """The value of *group*, which *age* groups are newer than, *uses* of which name
        an identifier of it."""
        named = sum(len(identifiers(message)) for message in group.messages)
        return (
            self.recency * math.exp2(-age / self.half_life)
            + self.importance * max(map(_importance, group.messages))
            + self.density * min(4 * named / max(group.tokens, 1), 1.0)
            + self.uses * uses / (uses + 1)
        )


def _importance(message: Message) -> float:
    given = message.metadata.get("importance")
    if isinstance(given, int | float) and not isinstance(given, bool):
        return min(max(0.0, given), 1.0)  # in this order nan becomes 0.0
    if len(message.sources) > 1:
        return _OF_A_SUMMARY
    return _BY_ROLE[message.role]
