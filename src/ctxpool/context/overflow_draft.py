"""A window in the course of an overflow: all that a strategy may do to it."""

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from .. import _arguments
from ..errors import UnstorableMessageError
from .message_json import dump_message
from .messages import Group, Message
from .overflow_report import (
    OverflowAction,
    OverflowProblem,
    OverflowReport,
    OverflowResult,
)

if TYPE_CHECKING:
    from .spill import SpillStore

__all__ = ["OverflowDraft", "originals_of", "told"]


def originals_of(messages: Iterable[Message]) -> tuple[str, ...]:
    """The ids of the originals that *messages* stand for, each once, in order."""
    found: dict[str, None] = {}
    for message in messages:
        found.update(dict.fromkeys(message.sources or (message.id,)))
    return tuple(found)


def told(error: Exception) -> str:
    """What *error* says, if it can."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return type(error).__name__


class OverflowDraft:
    """The groups of a window while a chain makes them fit; a strategy gets one.

    Every change is whole: the new messages are counted and the old ones are in the
    store before the first group moves. A strategy may therefore fail at any time.

    Attributes
    ----------
    budget : int
        Tokens that the window may have.
    target : int
        Tokens that the strategy at work is to come down to.
    store : SpillStore or None
        Where messages go before they leave the window.

    Notes
    -----
    **Thread-safety.** A draft belongs to the call that it was made for.
    """

    def __init__(
        self,
        groups: Iterable[Group],
        budget: int,
        count: Callable[[Message], int],
        store: "SpillStore | None" = None,
    ) -> None:
        self._groups = list(groups)
        for group in self._groups:
            if not isinstance(group, Group):
                raise TypeError(f"a Group is needed, not {group!r}")
        self.budget = _arguments.count("budget", budget, 1, 2**63 - 1)
        if not callable(count):
            raise TypeError(f"count must be a callable, not {count!r}")
        self._count = count
        self.store = store
        self._before = tuple(self._groups)
        self._tokens_before = sum(group.tokens for group in self._groups)
        self._tokens = self._tokens_before
        self.target = self.budget
        self.strategy = ""
        self._held: set[str] = set()
        self._saved: dict[int, Message] = {}  # by identity: an id may be another's too
        self._actions: list[OverflowAction] = []
        self._problems: list[OverflowProblem] = []
        self._forgotten: list[str] = []

    def __getitem__(self, index: int) -> Group:
        return self._groups[index]

    def __len__(self) -> int:
        return len(self._groups)

    def __iter__(self) -> Iterator[Group]:
        return iter(tuple(self._groups))

    @property
    def tokens(self) -> int:
        """Tokens that the window has now."""
        return self._tokens

    @property
    def excess(self) -> int:
        """Tokens above the target; not positive when the strategy's work is done."""
        return self.tokens - self.target

    def free(self, keep: int = 0) -> list[int]:
        """The indices of the groups that may be changed, oldest first: no pinned one,
        none that the store can't hold, and none of the *keep* newest."""
        return [
            i
            for i, group in enumerate(self._groups[: max(len(self) - keep, 0)])
            if not group.pinned
            and not (self._held and self._held & {m.id for m in group.messages})
        ]

    def count(self, message: Message) -> int:
        """Tokens of *message*, as the window counts them."""
        tokens = self._count(message)
        return _arguments.count("the count of a message", tokens, 0, 2**63 - 1)

    def begin(self, strategy: str, to: float) -> None:
        """The chain's: what follows is this strategy's work, down to *to*."""
        self.strategy = strategy
        self.target = int(self.budget * to)

    def note(self, text: str) -> None:
        """Report what went wrong."""
        self._problems.append(OverflowProblem(self.strategy, text))

    def hold(self, id: str) -> int:
        """Leave the groups with this message alone, and those with any other that JSON
        can't hold; returns how many messages that are more than before."""
        known = len(self._held)
        for group in self._groups:
            for message in group.messages:
                if message.id == id or not _is_json(message):
                    self._held.add(message.id)
        return len(self._held) - known

    def save(self, messages: Iterable[Message]) -> None:
        """See to it that *messages* are in the store, if there is one.

        One that stands for others is not stored if the store has all of these.
        """
        if self.store is None:
            return
        new = [m for m in messages if id(m) not in self._saved]
        sources = originals_of(m for m in new if m.sources)
        missing = self.store.missing(sources) if sources else set()
        wanted = [m for m in new if not m.sources or missing.intersection(m.sources)]
        if wanted:
            self._forgotten += self.store.put(wanted)
        self._saved.update((id(m), m) for m in new)

    def derived(self, made: Message, messages: Iterable[Message]) -> Message:
        """*made*, to stand for *messages*: with their sources, and an id made of these
        and of what it says, always the same."""
        sources = originals_of(messages)
        text = "\0".join((self.strategy, made.text, *sources))
        data = text.encode(errors="surrogatepass")
        digest = hashlib.blake2b(data, digest_size=16).hexdigest()
        return replace(made, id=f"{self.strategy}-{digest}", sources=sources)

    def replace(self, start: int, stop: int, messages: Sequence[Message]) -> None:
        """Put one group of *messages* in the place of groups *start* to *stop*."""
        if not 0 <= start < stop <= len(self):
            raise IndexError(f"no groups {start} to {stop} of {len(self)}")
        new = tuple(messages)
        if not new:
            raise ValueError("a group needs a message: drop() removes groups")
        tokens = sum(self.count(message) for message in new)
        self._change({range(start, stop): Group(new, tokens)})

    def drop(self, indices: Collection[int]) -> None:
        """Remove the groups of these indices."""
        for index in indices:
            if not 0 <= index < len(self):
                raise IndexError(f"no group {index} of {len(self)}")
        if indices:
            self._change({range(i, i + 1): None for i in sorted(set(indices))})

    def _change(self, changes: dict[range, Group | None]) -> None:
        old = [self._groups[i] for span in changes for i in span]
        for group in old:
            if group.pinned:
                ids = ", ".join(message.id for message in group.messages)
                raise ValueError(f"{ids} is pinned")
        new = [group for group in changes.values() if group is not None]
        kept = {id(message) for group in new for message in group.messages}
        gone = [m for group in old for m in group.messages if id(m) not in kept]
        self.save(gone)
        was = {id(message) for group in old for message in group.messages}
        came = [m for group in new for m in group.messages if id(m) not in was]
        # Nothing below can fail.
        for span in sorted(changes, key=lambda span: span.start, reverse=True):
            place = changes[span]
            self._groups[span.start : span.stop] = [] if place is None else [place]
        before, after = (sum(g.tokens for g in some) for some in (old, new))
        self._tokens += after - before
        self._actions.append(
            OverflowAction(
                self.strategy,
                tuple(message.id for message in gone),
                tuple(message.id for message in came),
                before,
                after,
            )
        )

    def result(self) -> OverflowResult:
        """The window as it is now, and what was done to it."""
        kept = {id(m) for group in self._groups for m in group.messages}
        return OverflowResult(
            list(self._groups),
            OverflowReport(
                self.budget,
                self._tokens_before,
                self._tokens,
                tuple(self._actions),
                tuple(self._problems),
                tuple(self._forgotten),
            ),
            [m for g in self._before for m in g.messages if id(m) not in kept],
        )


def _is_json(message: Message) -> bool:
    try:
        dump_message(message)
    except UnstorableMessageError:
        return False
    return True
