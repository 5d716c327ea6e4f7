"""What a :class:`HierarchicalMemory` answers."""

from dataclasses import dataclass
from typing import Literal

from ..stats import ContextWindowStats, _Record
from .episodes import EpisodicStats, Recollection
from .messages import Message
from .relations import Relation, SemanticStats

__all__ = ["HierarchicalMemoryStats", "Memory", "MemoryContext"]


@dataclass(frozen=True, slots=True)
class Memory:
    """One thing that a query brought to mind.

    Attributes
    ----------
    tier : {"working", "episodic", "semantic"}
        Where it is: in the window, in the store of episodes alone, or among relations.
    text : str
        As it would stand in a prompt.
    tokens : int
        Of the text.
    score : float
        By which memories of all tiers are ordered.
    created : float
        When it was said, or began to hold; seconds since the epoch.
    sources : tuple of str
        Ids of the messages that it comes from.
    """

    tier: Literal["working", "episodic", "semantic"]
    text: str
    tokens: int
    score: float
    created: float
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MemoryContext:
    """What to send to a model now.

    Attributes
    ----------
    message : Message
        What came in.
    working : tuple of Message
        The window, *message* included.
    episodes : tuple of Recollection
        What was said earlier and is not in the window, the most relevant first.
    connections : tuple of Relation
        What is known of those that the message names.
    learnt : tuple of Relation
        What the message says itself.
    reminder : Message or None
        Episodes and connections as a system message.
    tokens : int
        Of :attr:`messages`, all together; never more than the memory's budget.
    """

    message: Message
    working: tuple[Message, ...]
    episodes: tuple[Recollection, ...]
    connections: tuple[Relation, ...]
    learnt: tuple[Relation, ...]
    reminder: Message | None
    tokens: int

    @property
    def messages(self) -> list[Message]:
        """The window, with the reminder behind the system messages it begins with."""
        found = list(self.working)
        if self.reminder is not None:
            first = 0
            while first < len(found) and found[first].role == "system":
                first += 1
            found.insert(first, self.reminder)
        return found


@dataclass(frozen=True, slots=True)
class HierarchicalMemoryStats(_Record):
    """A moment of a :class:`HierarchicalMemory`.

    Attributes
    ----------
    working : ContextWindowStats
    episodic : EpisodicStats
    semantic : SemanticStats
    file_bytes : int
        Of all its files.
    """

    working: ContextWindowStats
    episodic: EpisodicStats
    semantic: SemanticStats
    file_bytes: int
