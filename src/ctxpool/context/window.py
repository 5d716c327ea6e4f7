"""Whole messages under a budget of tokens: a :class:`ContextWindow`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, SupportsIndex

from .. import parse_size
from .._arguments import choice, count
from .._pure.locks import new_lock
from ..errors import BudgetExceededError
from ..stats import ContextWindowStats
from ._ledger import Ledger
from ._reduction import Overflow, in_common, rebuilt
from .counting import MessageCounter
from .messages import Group, Message
from .tokens import TokenCounter, Tokenizer

__all__ = ["ContextWindow", "Overflow"]

_MOST = 2**62


def _nbytes(message: Message) -> int:
    """Memory that the texts of *message* take, in bytes."""
    nbytes = sys.getsizeof(message.content)
    for call in message.tool_calls:
        nbytes += sys.getsizeof(call.name) + sys.getsizeof(call.arguments)
    if message.parts:
        nbytes += len(json.dumps([dict(p) for p in message.parts], default=repr))
    return nbytes


class ContextWindow:
    """The newest messages of a conversation that fit a budget, ready to be sent.

    Each message is counted once. When the window is full, the oldest go, a good many
    at a time: a provider's prompt cache stays valid in between. What leaves it by
    :meth:`messages` is always a prompt that providers accept: it begins with a user's
    message after the system's, a tool call is followed by all of its results or does
    not appear, and it is never over the budget.

    Parameters
    ----------
    budget : int
        Tokens that a prompt may have, with the reply.
    tokenizer : Tokenizer, str, TokenCounter or MessageCounter, optional
        Counts the tokens; by default :class:`HeuristicTokenizer`. A counter may be
        shared between windows.
    reserve : int
        Tokens of the budget that are left to the reply.
    max_bytes : int or str, optional
        Memory that the messages' texts may take.
    overlap : int
        Tokens of the newest messages that an overflow leaves as they are.
    high_water, low_water : float
        The window makes room when it has more than *high_water* of the limit, the
        budget without the reserve; then the oldest messages go until *low_water* is
        reached. Both are shares of what pinned messages leave of it. A low mark that is
        far below the high one drops more at once, and breaks the prompt cache less
        often.
    sink : int
        The first messages, from the first one of a user on, that are pinned.
    start : {"user", "any"}
        With what a prompt may begin after system messages. ``"any"`` is for providers
        that let an assistant speak first.
    overflow : object, optional
        Makes room instead of dropping, see :class:`Overflow`. Where what it returns is
        still over the limit, the oldest go.
    on_evict : callable, optional
        ``on_evict(groups)`` is told of the groups that have left the window, oldest
        first, also of those that *overflow* left out and that no message stands for.

    Raises
    ------
    BudgetExceededError
        *overlap* or *reserve* do not fit into the budget.

    Notes
    -----
    What is kept or dropped as a whole is a *group*: an assistant's calls with their
    results, wherever these arrive, or one message. A turn is a user's message and what
    follows. Where the cut falls within a turn, the user's message stays, and the oldest
    of what followed it goes. System messages and those added with ``pinned=True`` stay;
    a pinned answer keeps its question. An unanswered call is part of the prompt as
    long as it is the newest, then not until its last result is here.

    Adding: O(1) amortised, about 1 us beside counting. :meth:`fits`: O(log n), below
    1 us at any length. :meth:`messages`: that and a copy of the references.

    ``on_evict`` and ``overflow`` are called outside any lock and may use the window;
    the message that was added is in it by then, whatever they raise. If *overflow*
    raises, or the window was changed meanwhile other than by adding, what it returned
    is not used; should the window be over its limit, the oldest go.

    **Thread-safety**: each call is atomic. While *overflow* works, others may add; if
    they overrun the limit, the oldest messages go, and its work was in vain: leave room
    between *high_water* and the limit. A finalizer or a signal handler must not use a
    window that its own thread is just using. A forked child has its own window. Windows
    can be pickled if their tokenizer and callbacks can.

    Examples
    --------
    >>> window = ContextWindow(50, low_water=0.5)
    >>> window.append(Message("system", "Answer in one word."))
    >>> for n in range(6):
    ...     window.append(Message("user", f"What is {n} plus {n}?"))
    ...     window.append(Message("assistant", f"{2 * n}"))
    >>> window.tokens, [message.content for message in window.messages()]
    (43, ['Answer in one word.', 'What is 4 plus 4?', '8', 'What is 5 plus 5?', '10'])
    >>> [message.content for message in window.messages(budget=30)]
    ['Answer in one word.', 'What is 5 plus 5?', '10']
    """

    def __init__(
        self,
        budget: SupportsIndex,
        *,
        tokenizer: Tokenizer | TokenCounter | MessageCounter | str | None = None,
        reserve: SupportsIndex = 0,
        max_bytes: SupportsIndex | str | None = None,
        overlap: SupportsIndex = 0,
        high_water: float = 1.0,
        low_water: float = 0.75,
        sink: SupportsIndex = 0,
        start: str = "user",
        overflow: Overflow | None = None,
        on_evict: Callable[[list[Group]], object] | None = None,
    ) -> None:
        limit = count("budget", budget, 1, _MOST)
        self._reserve = count("reserve", reserve, 0, _MOST)
        self._limit = limit - self._reserve
        if self._limit < 1:
            raise BudgetExceededError(
                f"a reserve of {self._reserve} leaves nothing of a budget of {limit}"
            )
        self._overlap = count("overlap", overlap, 0, _MOST)
        if self._overlap > self._limit:
            raise BudgetExceededError(
                f"overlap must be at most {self._limit}, not {self._overlap}"
            )
        marks = {"high_water": high_water, "low_water": low_water}
        for name, mark in marks.items():
            if not isinstance(mark, float | int) or not 0 <= mark <= 1:
                raise ValueError(f"{name} must be from 0 to 1, not {mark!r}")
        if not low_water <= high_water:
            raise ValueError(
                f"low_water must be at most high_water, {high_water!r}, "
                f"not {low_water!r}"
            )
        self._high_water, self._low_water = float(high_water), float(low_water)
        self._max_bytes = None if max_bytes is None else parse_size(max_bytes)
        self._sink = count("sink", sink, 0, _MOST)
        if not isinstance(tokenizer, MessageCounter):
            tokenizer = MessageCounter(tokenizer)
        self._count = tokenizer
        if overflow is not None and not callable(getattr(overflow, "reduce", None)):
            raise TypeError(f"overflow must have a method reduce, not {overflow!r}")
        if on_evict is not None and not callable(on_evict):
            raise TypeError(f"on_evict must be callable, not {on_evict!r}")
        self._overflow, self._on_evict = overflow, on_evict
        self._ledger = Ledger(choice("start", start, ("user", "any")) == "user")
        self._sunk = self._appended = self._evictions = self._evicted = 0
        self._evicted_tokens = self._reductions = self._breaks = self._broken = 0
        self._report: Any = None
        self._begin()

    def _begin(self) -> None:
        """What a window has that neither a copy nor a pickle takes along."""
        self._epoch = 0  # changed by whatever is not the addition of a group
        self._reducing = 0  # the process that asks overflow: a child's parent is not it
        self._lock = new_lock()

    # -- adding -------------------------------------------------------------------

    def append(self, message: Message, *, pinned: bool = False) -> None:
        """Add a message as the newest; a tool's result goes to its call, and is pinned
        if that is.

        Raises
        ------
        BudgetExceededError
            The message is larger than what the budget leaves beside pinned messages
            and the user's message that it follows. Nothing was changed.
        UnknownToolCallError
            It is the result of no call that waits for one. Nothing was changed.
        """
        tokens = self._count(message)
        nbytes = 0 if self._max_bytes is None else _nbytes(message)
        with self._lock:
            self._add(message, tokens, nbytes, pinned)
            over = self._over(self._high_water)
        if over:
            self._make_room()

    def extend(self, messages: Iterable[Message], *, pinned: bool = False) -> None:
        """Add messages in their order: all, or none if one of them can't be added.

        Raises as :meth:`append` does. O(messages held + added).
        """
        counted = [(message, *self._cost(message)) for message in messages]
        with self._lock:
            names = ("_ledger", "_sunk", "_appended", "_breaks", "_broken")
            before = {name: getattr(self, name) for name in names}
            self._ledger = self._ledger.copy()
            try:
                for message, tokens, nbytes in counted:
                    self._add(message, tokens, nbytes, pinned)
            except BaseException:
                vars(self).update(before)
                raise
            over = self._over(self._high_water)
        if over:
            self._make_room()

    def _cost(self, message: Message) -> tuple[int, int]:
        """Its tokens and bytes."""
        tokens = self._count(message)
        return tokens, 0 if self._max_bytes is None else _nbytes(message)

    def _add(self, message: Message, tokens: int, nbytes: int, pinned: bool) -> None:
        ledger, sunk, role = self._ledger, self._sunk, message.role
        if role == "system":
            pinned = True
        elif sunk < self._sink and (sunk or role == "user" or not ledger.users_first):
            pinned = True
            sunk += 1
        limit, max_bytes = self._limit, self._max_bytes
        was = ledger.tokens
        if was + tokens > limit or (
            max_bytes is not None and ledger.nbytes + nbytes > max_bytes
        ):
            needed = ledger.needed(message, tokens, nbytes, pinned)
            if needed[0] > limit:
                raise BudgetExceededError(
                    f"a message of {tokens} tokens needs {needed[0]} with what can't "
                    f"be dropped, and the window's limit is {limit}"
                )
            if max_bytes is not None and needed[1] > max_bytes:
                raise BudgetExceededError(
                    f"a message of {nbytes} bytes needs {needed[1]} with what can't be "
                    f"dropped, and the window's limit is {max_bytes}"
                )
        ledger.add(message, tokens, nbytes, pinned)
        self._sunk = sunk
        self._appended += 1
        if role == "tool" or (pinned and role == "assistant"):
            self._epoch += 1  # a group that was there has changed
        if ledger.stable < was:
            self._broke(was)

    def _broke(self, was: int) -> None:
        self._breaks += 1
        self._broken += was - self._ledger.stable

    # -- making room --------------------------------------------------------------

    def _mark(self, share: float) -> tuple[int, int]:
        """The tokens and the bytes at a water mark."""
        ledger, nbytes = self._ledger, 0
        if self._max_bytes is not None:
            nbytes = ledger.fixed_bytes
            nbytes += int(share * max(self._max_bytes - nbytes, 0))
        tokens = ledger.fixed_tokens
        return tokens + int(share * (self._limit - tokens)), nbytes

    def _over(self, share: float) -> bool:
        ledger, max_bytes = self._ledger, self._max_bytes
        if share == 1:
            tokens, nbytes = self._limit, max_bytes or 0
        else:
            tokens, nbytes = self._mark(share)
        return ledger.tokens > tokens or (
            max_bytes is not None and ledger.nbytes > nbytes
        )

    def _make_room(self) -> None:
        with self._lock:
            ask = self._overflow is not None and self._reducing != os.getpid()
            if ask:
                self._reducing = os.getpid()
        if not ask:
            # Who waits for another thread's overflow, or for its own, would wait long.
            self._evict(1.0 if self._overflow is not None else self._high_water)
            return
        try:
            self._reduce()
        finally:
            with self._lock:
                self._reducing = 0
            self._evict(1.0)

    def _evict(self, share: float) -> None:
        """Drop the oldest down to the low mark, if there is more than at *share*."""
        with self._lock:
            if not self._over(share):
                return
            ledger, was = self._ledger, self._ledger.tokens
            tokens, nbytes = self._mark(self._low_water)
            least = ledger.least()
            if least[0] > self._limit:  # the newest is pinned now, with its question
                least = 0, 0
            overlap = min(ledger.fixed_tokens + self._overlap, self._limit)
            at, opener = ledger.cut(max(tokens, overlap, least[0]), sending=False)
            if self._max_bytes is not None:
                at, opener = ledger.cut_bytes(
                    at, opener, max(nbytes, least[1]), least[0]
                )
            dropped = ledger.drop(at, opener)
            self._epoch += 1
            self._evictions += 1
            self._evicted += sum(len(entry.messages) for entry in dropped)
            self._evicted_tokens += was - ledger.tokens
            if ledger.stable < was:
                self._broke(was)
        if dropped and self._on_evict is not None:
            self._on_evict([entry.group() for entry in dropped])

    def _reduce(self) -> None:
        """Have *overflow* make room."""
        with self._lock:
            if not self._over(self._high_water):
                return
            epoch, was = self._epoch, self._ledger.entries()
            groups, strict = self._groups(protect=True), self._ledger.users_first
        assert self._overflow is not None
        result = self._overflow.reduce(groups, self._limit, self._count)
        made, gone = rebuilt(groups, was, list(result.groups), self._cost, strict)
        least = made.least()[0]
        if least > self._limit:
            raise BudgetExceededError(
                f"overflow returned {least} tokens that can't be dropped, and the "
                f"window's limit is {self._limit}"
            )
        with self._lock:
            if epoch != self._epoch:
                return
            ledger = self._ledger
            tokens = ledger.tokens
            for entry in ledger.entries()[len(was) :]:  # came meanwhile
                made.add(entry.messages[0], entry.tokens, entry.nbytes, entry.pinned)
            made.stable = in_common(ledger, made)
            self._ledger = made
            self._epoch += 1
            self._reductions += 1
            self._report = getattr(result, "report", None)
            if made.stable < tokens:
                self._broke(tokens)
        if gone and self._on_evict is not None:
            self._on_evict(gone)

    # -- what is in it ------------------------------------------------------------

    def messages(self, budget: SupportsIndex | None = None) -> list[Message]:
        """A prompt: all that is pinned, and the newest messages that fit.

        Parameters
        ----------
        budget : int, optional
            Tokens of the prompt; by default the window's limit.

        Raises
        ------
        BudgetExceededError
            What is pinned does not fit into *budget*.
        """
        limit = self._limit if budget is None else self._asked(budget)
        with self._lock:
            ledger = self._ledger
            if ledger.fixed_tokens > limit:
                self._too_small(limit)
            return ledger.prompt(*ledger.cut(limit))

    def fits(self, budget: SupportsIndex) -> int:
        """From where on the window fits in *budget* tokens, with what is pinned: an
        index into ``list(window)``, its length where nothing does. O(log n).

        Where this is within a turn, the user's message of the turn is counted too.

        Raises
        ------
        BudgetExceededError
            What is pinned does not fit into *budget*.
        """
        limit = budget if type(budget) is int else self._asked(budget)
        with self._lock:
            ledger = self._ledger
            if ledger.fixed_tokens > limit or limit < 0:
                self._too_small(limit)
            at = ledger.cut(limit)[0]
            head = len(ledger.head_messages)
            if at == len(ledger.tail):
                return head + len(ledger.messages)
            return head + ledger.starts[at] - ledger.messages_base

    def _asked(self, budget: SupportsIndex) -> int:
        return count("budget", budget, 0, _MOST)

    def _too_small(self, limit: int) -> None:
        raise BudgetExceededError(
            f"what is pinned takes {self._ledger.fixed_tokens} tokens, and "
            f"budget is {limit}"
        )

    def groups(self) -> list[Group]:
        """All groups that the window holds, oldest first. O(n)."""
        with self._lock:
            return self._groups()

    def _groups(self, protect: bool = False) -> list[Group]:
        """*protect*: as pinned, too, what an overflow may not touch now."""
        ledger = self._ledger
        if not protect:
            return [entry.group() for entry in ledger.entries()]
        least = ledger.total - self._overlap
        found = [entry.group(bool(entry.waiting)) for entry in ledger.head]
        for entry, ahead in zip(ledger.tail, ledger.sums, strict=True):
            found.append(entry.group(bool(entry.waiting) or ahead >= least))
        return found

    def __len__(self) -> int:
        """Messages that it holds."""
        with self._lock:
            return len(self._ledger.head_messages) + len(self._ledger.messages)

    def __iter__(self) -> Iterator[Message]:
        """All messages that it holds now, oldest first."""
        with self._lock:
            return iter(self._ledger.head_messages + self._ledger.messages)

    @property
    def tokens(self) -> int:
        """Of all messages that it holds."""
        with self._lock:
            return self._ledger.tokens

    @property
    def budget(self) -> int:
        """Tokens that a prompt may have, with the reply."""
        return self._limit + self._reserve

    @property
    def limit(self) -> int:
        """Tokens that a prompt may have."""
        return self._limit

    @property
    def counter(self) -> MessageCounter:
        """What counts its messages."""
        return self._count

    @property
    def report(self) -> Any:
        """What *overflow* reported last; None before."""
        return self._report

    @property
    def stable_prefix(self) -> int:
        """Tokens at the front of the prompt that the latest change left in place."""
        with self._lock:
            return self._ledger.stable

    def stats(self) -> ContextWindowStats:
        """The counts of this moment."""
        with self._lock:
            ledger = self._ledger
            return ContextWindowStats(
                messages=len(ledger.head_messages) + len(ledger.messages),
                groups=len(ledger.head) + len(ledger.tail),
                tokens=ledger.tokens,
                bytes=ledger.nbytes,
                pinned_tokens=ledger.fixed_tokens,
                budget=self._limit + self._reserve,
                limit=self._limit,
                appended=self._appended,
                evictions=self._evictions,
                evicted=self._evicted,
                evicted_tokens=self._evicted_tokens,
                reductions=self._reductions,
                stable_prefix=ledger.stable,
                breaks=self._breaks,
                broken_tokens=self._broken,
            )

    # -- the whole of it ----------------------------------------------------------

    def clear(self) -> None:
        """Forget all messages, pinned ones too; ``on_evict`` is not told."""
        with self._lock:
            was = self._ledger
            self._ledger = Ledger(was.users_first)
            self._sunk = 0
            self._epoch += 1
            if was.tokens:
                self._broke(was.tokens)

    def copy(self) -> ContextWindow:
        """A window of its own with the same messages, settings and counts. O(n)."""
        made = type(self).__new__(type(self))
        made.__setstate__(self.__getstate__())
        return made

    __copy__ = copy

    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            state = {**vars(self), "_ledger": self._ledger.copy()}
        for name in ("_epoch", "_lock", "_reducing"):
            del state[name]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._begin()

    def __repr__(self) -> str:
        stats = self.stats()
        return (
            f"<ContextWindow: {stats.messages} messages, {stats.tokens} of "
            f"{stats.limit} tokens>"
        )

    def check(self) -> None:
        """Verify every invariant of the window's books. O(n).

        Raises
        ------
        AssertionError
            One does not hold: a mistake in ctxpool.
        """
        with self._lock:
            self._ledger.check()
