"""The books of a window of messages: what it holds, what each costs, where to cut it.

    head                    tail
    [pinned, pinned, ...]   [entry, entry, entry, entry, ...]
                      sums:  0      40     40     95    ...    total

An entry is a group: an assistant's tool calls with their results, or one message alone.
``sums[i]`` counts the tokens of all entries ahead of entry i that are not fixed, since
the ledger began. So "from where on does it fit in n tokens?" is one binary search, and
dropping the oldest entries changes none of the others. For the same reason entries and
messages have numbers that never change; a base is subtracted from them.

Invariants, verified by :meth:`Ledger.check`: a tool's result is in the entry of its
call; what is fixed is never dropped; the head has nothing else.
Nothing here is locked, counts tokens or calls back: the window does.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from ..errors import UnknownToolCallError
from .messages import Group, Message

__all__ = ["Entry", "Ledger"]


_NONE: set[str] = set()  # of all entries without calls; never added to


class Entry:
    """A group that may still grow.

    Attributes
    ----------
    fixed : bool
        Never cut away: pinned, or a system message, such as an old summary.
    number : int
        In the tail; -1 in the head.
    waiting : set of str
        The calls without a result: with any, it is no whole group.
    """

    __slots__ = (
        "fixed",
        "messages",
        "nbytes",
        "number",
        "pinned",
        "role",
        "tokens",
        "waiting",
    )

    def __init__(
        self,
        message: Message,
        tokens: int,
        nbytes: int,
        pinned: bool,
        waiting: set[str],
    ) -> None:
        self.messages = [message]
        self.tokens = tokens
        self.nbytes = nbytes
        self.pinned = pinned
        self.role = role = message.role
        self.fixed = pinned or role == "system"
        self.waiting = waiting
        self.number = -1

    def group(self, pinned: bool = False) -> Group:
        return Group(tuple(self.messages), self.tokens, self.pinned or pinned)

    def copy(self) -> Entry:
        made = Entry.__new__(Entry)
        made.messages, made.waiting = self.messages.copy(), self.waiting.copy()
        made.fixed = self.fixed
        made.tokens, made.nbytes = self.tokens, self.nbytes
        made.pinned, made.role, made.number = self.pinned, self.role, self.number
        return made


class Ledger:
    """See the module. *users_first*: a prompt must begin with a user's message."""

    def __init__(self, users_first: bool) -> None:
        self.users_first = users_first
        self.head: list[Entry] = []
        self.head_messages: list[Message] = []
        self.tail: list[Entry] = []
        self.messages: list[Message] = []  # of the tail
        self.sums: list[int] = []
        self.starts: list[int] = []  # the number of each entry's first message
        self.turns: list[int] = []  # the numbers of entries that a user begins
        self.fixed: list[int] = []  # the numbers of entries in the tail that are fixed
        self.base = 0  # the number of the tail's first entry
        self.messages_base = 0
        self.waiting: dict[str, Entry] = {}  # by the id of a call without a result
        self.open: dict[Entry, None] = {}  # entries with such calls
        self.total = 0  # of all that were ever added and not fixed
        self.tokens = 0  # of all entries
        self.fixed_tokens = 0
        self.nbytes = 0
        self.fixed_bytes = 0
        # How many tokens at the front of the prompt the latest change left in place.
        self.stable = 0

    # -- what there is ------------------------------------------------------------

    def entries(self) -> list[Entry]:
        return self.head + self.tail

    @property
    def last(self) -> Entry | None:
        return self.tail[-1] if self.tail else self.head[-1] if self.head else None

    def opened(self) -> bool:
        """Whether the head begins with a user's message: then any may follow."""
        return any(entry.role == "user" for entry in self.head)

    def opener(self, number: int) -> Entry | None:
        """The user's message of the turn that entry *number* of the tail is part of,
        if it is no part of the head and not pinned."""
        turns = self.turns
        turn = bisect_right(turns, number) - 1
        if turn < 0 or not self.users_first:
            return None
        entry = self.tail[turns[turn] - self.base]
        return None if entry.pinned else entry

    def newest(self) -> Entry | None:
        """The newest entry that is not fixed."""
        return next((entry for entry in reversed(self.tail) if not entry.fixed), None)

    def least(self) -> tuple[int, int]:
        """Tokens and bytes without which the newest entry can't be sent."""
        tokens, nbytes = self.fixed_tokens, self.fixed_bytes
        newest = self.newest()
        if newest is not None:
            for entry in {newest, self.opener(newest.number) or newest}:
                tokens += entry.tokens
                nbytes += entry.nbytes
        return tokens, nbytes

    def needed(
        self, message: Message, tokens: int, nbytes: int, pinned: bool
    ) -> tuple[int, int]:
        """What :meth:`least` will be when *message* is added."""
        home = self.home(message) if message.role == "tool" else None
        if home is None and not pinned and message.role != "system":
            opener = None
            if message.role != "user":
                opener = self.opener(self.base + len(self.tail))
            if opener is not None:
                tokens += opener.tokens
                nbytes += opener.nbytes
            return self.fixed_tokens + tokens, self.fixed_bytes + nbytes
        least = self.least()
        if home is not None and not home.fixed and home is not self.newest():
            return least  # if it is too much, it goes with its call
        return least[0] + tokens, least[1] + nbytes

    # -- adding -------------------------------------------------------------------

    def home(self, message: Message) -> Entry:
        """The entry that *message*, a tool's result, belongs to."""
        entry = self.waiting.get(message.tool_call_id)
        if entry is None:
            raise UnknownToolCallError(
                f"no call {message.tool_call_id!r} waits for a result: it was not made "
                f"here, has its result already, or has left the window"
            )
        return entry

    def add(
        self, message: Message, tokens: int, nbytes: int = 0, pinned: bool = False
    ) -> None:
        """Add *message* as the newest, a tool's result to its call. Amortised O(1), a
        result that comes late O(entries)."""
        role = message.role
        if role == "tool":
            self._answer(self.home(message), message, tokens, nbytes)
            return
        waiting = _NONE
        if calls := message.tool_calls:
            waiting = {call.id for call in calls}
            if len(waiting) < len(calls):
                ids = ", ".join(repr(call.id) for call in calls)
                raise ValueError(f"calls of one message need own ids, not {ids}")
        if pinned and role == "assistant" and self.users_first:
            self._pin_opener()
        tail = self.tail
        self.stable = self.tokens
        last = tail[-1] if tail else self.last
        if last is not None and last.waiting:
            # Its calls were not answered in time: it is withheld until they are.
            self.stable = self._ahead_of(last)
        entry = Entry(message, tokens, nbytes, pinned, waiting)
        if entry.fixed and not tail:
            self.head.append(entry)
            self.head_messages.append(message)
        else:
            entry.number = number = self.base + len(tail)
            tail.append(entry)
            self.sums.append(self.total)
            self.starts.append(self.messages_base + len(self.messages))
            self.messages.append(message)
            if role == "user":
                self.turns.append(number)
            if entry.fixed:
                self.fixed.append(number)
        self._account(entry, tokens, nbytes)
        if waiting:
            self.open[entry] = None
            for call_id in waiting:
                self.waiting[call_id] = entry

    def _account(self, entry: Entry, tokens: int, nbytes: int) -> None:
        self.tokens += tokens
        self.nbytes += nbytes
        if entry.fixed:
            self.fixed_tokens += tokens
            self.fixed_bytes += nbytes
        else:
            self.total += tokens

    def _answer(self, entry: Entry, message: Message, tokens: int, nbytes: int) -> None:
        call = message.tool_call_id
        del self.waiting[call]
        entry.waiting.discard(call)
        if not entry.waiting:
            del self.open[entry]
        newest = entry is self.last
        self.stable = self.tokens if newest else self._ahead_of(entry)
        if entry.number < 0:
            entry.messages.append(message)
            self.head_messages = [m for e in self.head for m in e.messages]
        else:
            at = entry.number - self.base
            if newest:
                self.messages.append(message)
            else:
                place = self.starts[at] - self.messages_base + len(entry.messages)
                self.messages.insert(place, message)
                grown = 0 if entry.fixed else tokens
                for later in range(at + 1, len(self.tail)):
                    self.starts[later] += 1
                    self.sums[later] += grown
            entry.messages.append(message)
        entry.tokens += tokens
        entry.nbytes += nbytes
        self._account(entry, tokens, nbytes)

    def _pin_opener(self) -> None:
        """Who pins an answer pins its question: no prompt begins with an answer."""
        if self.opened() or any(
            self.tail[n - self.base].role == "user" for n in self.fixed
        ):
            return
        if not self.turns:
            raise ValueError(
                "nothing can be pinned ahead of the first message of a user but "
                "system messages"
            )
        number = self.turns[-1]
        at = number - self.base
        entry = self.tail[at]
        entry.pinned = entry.fixed = True
        self.fixed.insert(bisect_left(self.fixed, number), number)
        self.total -= entry.tokens
        self.fixed_tokens += entry.tokens
        self.fixed_bytes += entry.nbytes
        for later in range(at + 1, len(self.tail)):
            self.sums[later] -= entry.tokens

    def _ahead_of(self, entry: Entry) -> int:
        tokens = 0
        for other in self.entries():
            if other is entry:
                break
            tokens += other.tokens
        return tokens

    # -- cutting ------------------------------------------------------------------

    def cut(self, tokens: int, sending: bool = True) -> tuple[int, int]:
        """From where on the tail fits in *tokens* with all that is fixed: the index of
        an entry, and that of its turn's opener where it must be put ahead of it, or -1.
        Nothing can be sent as long as none but assistants have spoken. O(log n)."""
        sums = self.sums
        least = self.total + self.fixed_tokens - tokens
        at = bisect_left(sums, least)
        if at == len(sums) or not self.users_first or self.tail[at].role == "user":
            return at, -1
        turns, base = self.turns, self.base
        turn = bisect_right(turns, base + at)
        if turn == 0:  # ahead of the first turn
            if not self.opened():
                if turns:
                    return turns[0] - base, -1
                if sending:
                    return len(sums), -1
            return at, -1
        first = turns[turn - 1] - base
        if self.tail[first].pinned:
            return at, -1
        # Within a turn: its opener goes along, if it leaves room for any of the rest.
        end = turns[turn] - base if turn < len(turns) else len(sums)
        at = bisect_left(sums, least + sums[first + 1] - sums[first], at, end)
        return (at, -1) if at == end else (at, first)

    def prompt(self, at: int, opener: int) -> list[Message]:
        """The messages that a cut leaves, without calls that wait for a result, but for
        the newest."""
        if at < len(self.tail):
            rest = self.messages[self.starts[at] - self.messages_base :]
        else:
            rest = []
        before = self.head_messages
        if opener >= 0 or self.fixed:
            extra = [n - self.base for n in self.fixed if n - self.base < at]
            if opener >= 0:
                extra.append(opener)
            before = before + [m for i in sorted(extra) for m in self.tail[i].messages]
        found = before + rest if before else rest
        return self._sendable(found) if self.open else found

    def _sendable(self, messages: list[Message]) -> list[Message]:
        last = self.last
        withheld = {
            id(message)
            for entry in self.open
            if entry is not last
            for message in entry.messages
        }
        return [m for m in messages if id(m) not in withheld] if withheld else messages

    def cut_bytes(
        self, at: int, opener: int, nbytes: int, least: int
    ) -> tuple[int, int]:
        """That cut, moved on until what it leaves is at most *nbytes*, or only what
        fits in *least* tokens. O(n)."""
        ahead = self.fixed_bytes
        suffix = []
        for entry in reversed(self.tail):
            ahead += 0 if entry.fixed else entry.nbytes
            suffix.append(ahead)
        suffix.reverse()
        newest = self.newest()
        end = newest.number - self.base if newest else 0
        for place in range(at + 1, end + 1):
            more = self.tail[opener].nbytes if opener >= 0 else 0
            if at >= end or suffix[at] + more <= nbytes:
                break
            left = self.fixed_tokens + self.total - self.sums[place]
            at, opener = max((at, opener), self.cut(max(left, least), False))
        return at, opener

    def drop(self, at: int, opener: int) -> list[Entry]:
        """Forget the tail's entries ahead of *at* but for the fixed ones, which move to
        the head, and the opener, which moves next to *at*, with the fixed ones that
        come after it. O(what goes)."""
        dropped: list[Entry] = []
        kept: list[Entry] = []
        stable = sum(entry.tokens for entry in self.head)
        for i in range(at):
            entry = self.tail[i]
            if i == opener or (entry.fixed and kept):
                kept.append(entry)
            elif entry.fixed:
                entry.number = -1
                self.head.append(entry)
                self.head_messages += entry.messages
            else:
                dropped.append(entry)
                self.tokens -= entry.tokens
                self.nbytes -= entry.nbytes
                self.open.pop(entry, None)
                for call in entry.waiting:
                    if self.waiting.get(call) is entry:
                        del self.waiting[call]
            if not dropped:
                stable += entry.tokens
        self.stable = stable if dropped else self.tokens
        more = at < len(self.tail)
        start = self.starts[at] if more else self.messages_base + len(self.messages)
        ahead = self.sums[at] if more else self.total
        del self.turns[: bisect_left(self.turns, self.base + at)]
        del self.fixed[: bisect_left(self.fixed, self.base + at)]
        for entry in reversed(kept):
            at -= 1
            start -= len(entry.messages)
            ahead -= 0 if entry.fixed else entry.tokens
            entry.number = self.base + at
            low = start - self.messages_base
            self.messages[low : low + len(entry.messages)] = entry.messages
            self.tail[at], self.starts[at], self.sums[at] = entry, start, ahead
            (self.fixed if entry.fixed else self.turns).insert(0, entry.number)
        del self.messages[: start - self.messages_base]
        del self.tail[:at], self.sums[:at], self.starts[:at]
        self.messages_base = start
        self.base += at
        return dropped

    def copy(self) -> Ledger:
        """A ledger of its own, with the same messages. O(n)."""
        made = Ledger(self.users_first)
        made.head = [entry.copy() for entry in self.head]
        made.tail = [entry.copy() for entry in self.tail]
        for name in ("head_messages", "messages", "sums", "starts", "turns", "fixed"):
            setattr(made, name, getattr(self, name).copy())
        for name in ("base", "messages_base", "total", "tokens", "nbytes", "stable"):
            setattr(made, name, getattr(self, name))
        made.fixed_tokens, made.fixed_bytes = self.fixed_tokens, self.fixed_bytes
        mine = dict(zip(map(id, self.entries()), made.entries(), strict=True))
        made.waiting = {call: mine[id(e)] for call, e in self.waiting.items()}
        made.open = {mine[id(entry)]: None for entry in self.open}
        return made

    def check(self) -> None:
        """Verify every invariant. O(n)."""
        total = self.sums[0] if self.sums else self.total
        number = self.messages_base
        messages: list[Message] = []
        turns, fixed = [], []
        for i, entry in enumerate(self.tail):
            assert entry.number == self.base + i
            assert self.sums[i] == total
            assert self.starts[i] == number
            total += 0 if entry.fixed else entry.tokens
            number += len(entry.messages)
            messages += entry.messages
            turns += [entry.number] if entry.role == "user" else []
            fixed += [entry.number] if entry.fixed else []
        assert (total, messages) == (self.total, self.messages)
        assert (turns, fixed) == (self.turns, self.fixed)
        assert all(entry.fixed and entry.number == -1 for entry in self.head)
        assert [m for e in self.head for m in e.messages] == self.head_messages
        entries = self.entries()
        assert sum(e.tokens for e in entries if e.fixed) == self.fixed_tokens
        assert sum(e.tokens for e in entries) == self.tokens
        assert sum(e.nbytes for e in entries) == self.nbytes
        assert sum(e.nbytes for e in entries if e.fixed) == self.fixed_bytes
        assert set(self.open) == {entry for entry in entries if entry.waiting}
        for entry in entries:
            calls = {call.id for call in entry.messages[0].tool_calls}
            answered = {message.tool_call_id for message in entry.messages[1:]}
            assert answered <= calls
            assert entry.waiting == calls - answered
        for call, entry in self.waiting.items():
            assert call in entry.waiting
            assert any(entry is other for other in entries)
