"""The memories that a conversation is replayed through, all under one budget."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..context import (
    Compress,
    ContextWindow,
    Evict,
    HierarchicalMemory,
    MessageCounter,
    OverflowChain,
    Spill,
    SpillStore,
    Summarise,
)
from ..context.messages import Group, Message
from .conversation import time_of

if TYPE_CHECKING:
    from ..context import MemoryContext

__all__ = ["MEMORIES", "Context", "Everything", "Hierarchical", "Memory", "make"]

_RECALL_SHARE = 0.25
_RECALLED = 24  # episodes or messages that one question may bring back


@dataclass(frozen=True, slots=True)
class Context:
    """What would be sent to a model now.

    Attributes
    ----------
    messages : sequence of Message
        Originals and what stands for originals.
    recalled : sequence of Message
        What was brought back because of the question; sent too.
    items : int
        How many memories that is.
    """

    messages: Sequence[Message]
    recalled: Sequence[Message] = ()
    items: int = 0


class Memory(Protocol):
    """What a replay asks of a memory.

    Attributes
    ----------
    name, about : str
    done : Counter
        Messages so far: compressed, summarised, evicted (gone for good), and spilled,
        whose original has left the window for a store.
    """

    name: str
    about: str
    done: "Counter[str]"

    def see(self, message: Message) -> Context | None:
        """Take a message in. Of a user's message, what would be sent now."""

    def context(self, question: str, at: float) -> Context:
        """What would be sent if this were asked at that moment. It is not taken in."""

    def close(self) -> None:
        """Close its files."""


class Everything:
    """All that was said: no budget, the upper bound of what can be answered."""

    name = "everything"
    about = "all messages, whatever they cost"

    def __init__(self) -> None:
        self.done: Counter[str] = Counter()
        self._messages: list[Message] = []

    def see(self, message: Message) -> Context | None:
        self._messages.append(message)
        return Context(self._messages) if message.role == "user" else None

    def context(self, question: str, at: float) -> Context:
        return Context(self._messages)

    def close(self) -> None:
        """It has no files."""


class _Truncation:
    """System messages, and the newest others that fit; each counted once."""

    name = "truncation"
    about = "the newest messages that fit, as most do it"

    def __init__(self, budget: int, count: MessageCounter) -> None:
        self.done: Counter[str] = Counter()
        self._budget, self._count = budget, count
        self._system: list[tuple[Message, int]] = []
        self._rest: list[tuple[Message, int]] = []

    def see(self, message: Message) -> Context | None:
        held = self._system if message.role == "system" else self._rest
        held.append((message, self._count(message)))
        left = self._budget - sum(tokens for _, tokens in self._system)
        start = len(self._rest)
        while start and self._rest[start - 1][1] <= left:
            start -= 1
            left -= self._rest[start][1]
        # An answer without its call is refused by providers.
        while start < len(self._rest) and self._rest[start][0].role == "tool":
            start += 1
        self.done["evicted"] += start
        del self._rest[:start]
        return self.context("", 0.0) if message.role == "user" else None

    def context(self, question: str, at: float) -> Context:
        return Context([message for message, _ in (*self._system, *self._rest)])

    def close(self) -> None:
        """It has no files."""


@dataclass
class _Ledger:
    """Counts what a window does. *stored* tells whether a store has a message."""

    stored: Callable[[str], bool]
    done: "Counter[str]" = field(default_factory=Counter)
    _left: set[str] = field(default_factory=set)
    _made: set[str] = field(default_factory=set)
    _report: Any = None

    def evicted(self, groups: Sequence[Group]) -> None:
        """The window's ``on_evict``."""
        for message in (m for group in groups for m in group.messages):
            for id in message.sources or (message.id,):
                self._leaves(id)

    def look(self, window: ContextWindow) -> None:
        """Count what its overflow chain has reported since the last look."""
        if window.report is self._report:
            return
        self._report = window.report
        for action in self._report.actions if self._report else ():
            self._made.update(action.added)
            originals = [id for id in action.removed if id not in self._made]
            if action.strategy in ("compress", "summarise"):
                self.done[action.strategy] += len(originals)
            for id in originals:
                self._leaves(id)

    def _leaves(self, id: str) -> None:
        if id not in self._left:
            self._left.add(id)
            self.done["spilled" if self.stored(id) else "evicted"] += 1


class _Window:
    """A :class:`ContextWindow` with its water marks, and nothing behind it."""

    name = "window"
    about = "ContextWindow: drops whole groups, down to the low water mark"

    def __init__(self, budget: int, count: MessageCounter) -> None:
        ledger = _Ledger(lambda id: False)
        self.done = ledger.done
        self._window = ContextWindow(budget, tokenizer=count, on_evict=ledger.evicted)

    def see(self, message: Message) -> Context | None:
        self._window.append(message)
        return self.context("", 0.0) if message.role == "user" else None

    def context(self, question: str, at: float) -> Context:
        return Context(self._window.messages())

    def close(self) -> None:
        """It has no files."""


class _Overflow:
    """A window that compresses, summarises, evicts and spills, and a search of what was
    spilled."""

    name = "overflow"
    about = "ContextWindow with OverflowChain: compress, summarise, spill, search"

    def __init__(self, budget: int, count: MessageCounter) -> None:
        self._store = SpillStore(":memory:")
        self._ledger = _Ledger(self._store.__contains__)
        self.done = self._ledger.done
        self._count = count
        self._room = int(budget * _RECALL_SHARE)
        chain = OverflowChain([Compress(), Summarise(), Evict(), Spill(self._store)])
        self._window = ContextWindow(
            budget - self._room,
            tokenizer=count,
            overflow=chain,
            on_evict=self._ledger.evicted,
        )

    def see(self, message: Message) -> Context | None:
        self._window.append(message)
        self._ledger.look(self._window)
        if message.role != "user":
            return None
        return self.context(message.content, time_of(message))

    def context(self, question: str, at: float) -> Context:
        held = self._window.messages()
        known = {message.id for message in held}
        found: list[Message] = []
        left = self._room
        for hit in self._store.search(question, _RECALLED):
            tokens = self._count(hit.message)
            if hit.message.id not in known and tokens <= left:
                found.append(hit.message)
                left -= tokens
        return Context(held, found, len(found))

    def close(self) -> None:
        """Close the store."""
        self._store.close()


class Hierarchical:
    """A :class:`HierarchicalMemory`: the window, episodes, and what is known."""

    name = "hierarchical"
    about = "HierarchicalMemory: a window that compresses, episodes, relations"

    def __init__(
        self, budget: int, count: MessageCounter, path: str | Path | None = None
    ) -> None:
        self._ledger = _Ledger(lambda id: id in self._memory.episodic)
        self.done = self._ledger.done
        self._memory = HierarchicalMemory(
            path,
            budget=budget,
            recall_share=_RECALL_SHARE,
            tokenizer=count.texts,
            overflow=OverflowChain([Compress(), Evict()]),
            on_evict=self._ledger.evicted,
        )

    def see(self, message: Message) -> Context | None:
        asks = message.role == "user"
        context = self._memory.process_input(
            message, k=_RECALLED if asks else 0, at=time_of(message)
        )
        self._ledger.look(self._memory.working)
        return _of(context) if asks else None

    @property
    def size(self) -> int:
        """Messages that it remembers."""
        return len(self._memory.episodic)

    def seen(self, messages: Sequence[Message]) -> int:
        """How many of *messages* it has seen, the first ones."""
        episodic = self._memory.episodic
        for seen in range(len(messages), 0, -1):
            message = messages[seen - 1]
            episode = episodic.get(message.id)
            if episode is not None and episode.text == message.text:
                return seen
        return 0

    def context(self, question: str, at: float) -> Context:
        return _of(self._memory.context(question, k=_RECALLED, at=at))

    def close(self) -> None:
        """Close the memory."""
        self._memory.close()


def _of(context: "MemoryContext") -> Context:
    reminder = [] if context.reminder is None else [context.reminder]
    items = len(context.episodes) + len(context.connections)
    return Context(context.working, reminder, items)


_KINDS = {kind.name: kind for kind in (_Truncation, _Window, _Overflow)}
MEMORIES = (*_KINDS, Hierarchical.name)


def make(
    name: str, budget: int, count: MessageCounter, path: str | Path | None = None
) -> Memory:
    """One of :data:`MEMORIES`; what it keeps is in *path*, if it keeps anything."""
    if name == Hierarchical.name:
        return Hierarchical(budget, count, path)
    made: Memory = _KINDS[name](budget, count)
    return made
