"""Many old messages become one that says what was in them."""

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from .. import _arguments
from . import _calls
from .messages import Message
from .overflow_draft import OverflowDraft, originals_of, told
from .overflow_strategies import optional_callable, share, shortened

__all__ = ["Summarise", "Summarizer"]

Summarizer = Callable[[Sequence[Message], int], str | Awaitable[str]]
_LEVEL = "summary_level"
_UNASKED = object()


def _level(message: Message) -> int:
    """How often what it says was summarised: 0 of an original or a compressed one."""
    level = message.metadata.get(_LEVEL)
    if isinstance(level, int) and len(message.sources) > 1:
        return max(level, 0)
    return 0


class Summarise:
    """Puts a summary in the place of the oldest groups that follow one another.

    A summary is not summarised again at each overflow, which would wear it down: only
    *fan_in* neighbours of the same level become one of the next, as the runs of a
    log-structured merge tree (O'Neil et al., 1996). A message's words thus pass through
    O(log n) summaries. It keeps the ids of all originals (:attr:`Message.sources`).

    Parameters
    ----------
    summarizer : callable, optional
        ``(messages, tokens) -> text`` of at most so many tokens, or an awaitable of it.
        When it raises, takes longer than *timeout*, returns nothing, or more than was
        allowed, the compressor does it, and the report says so; one that has raised is
        not asked again in this overflow. By default there is none.
    compressor : callable, optional
        ``(text, tokens) -> text``. By default the text's own most telling sentences.
    to : float
        Part of the budget to come down to.
    ratio : float
        Tokens of a summary, as a part of those it stands for.
    min_tokens : int
        Groups of fewer tokens in all are not summarised.
    chunk : float
        Tokens of the groups that become one summary, as a part of the budget.
    fan_in : int
        Summaries that become one.
    slack : float
        How much longer than it was asked for a summary may be, as a part of it.
    timeout : float, optional
        Seconds. With one, a plain function is called in a thread of its own, which is
        left behind when the time is over.
    keep : int
        The newest groups, which stay as they are.
    role : {"user", "system", "assistant"}
        Of the summary. Every provider lets a conversation begin with a user's message.

    Notes
    -----
    A coroutine function belongs with :meth:`OverflowChain.areduce`. In ``reduce`` it
    runs in an event loop of its own, and the caller waits.

    **Thread-safety.** Any number of chains may use it at once.
    """

    name = "summarise"

    def __init__(
        self,
        summarizer: Summarizer | None = None,
        *,
        compressor: Callable[[str, int], str] | None = None,
        to: float = 0.7,
        ratio: float = 0.2,
        min_tokens: int = 256,
        chunk: float = 0.25,
        fan_in: int = 3,
        slack: float = 0.25,
        timeout: float | None = None,
        keep: int = 4,
        role: str = "user",
    ) -> None:
        self.summarizer: Summarizer | None = optional_callable("summarizer", summarizer)
        self.compressor = optional_callable("compressor", compressor)
        self.to = share("to", to)
        self.ratio = share("ratio", ratio)
        self.min_tokens = _arguments.count("min_tokens", min_tokens, 1, 2**31)
        self.chunk = share("chunk", chunk)
        self.fan_in = _arguments.count("fan_in", fan_in, 2, 1000)
        if isinstance(slack, bool) or not isinstance(slack, int | float):
            raise TypeError(f"slack must be a number, not {slack!r}")
        if not slack >= 0:
            raise ValueError(f"slack must not be negative, not {slack!r}")
        self.slack = float(slack)
        self.timeout = (
            None if timeout is None else _arguments.seconds("timeout", timeout)
        )
        self.keep = _arguments.count("keep", keep, 0, 2**31)
        self.role = _arguments.choice("role", role, ("user", "system", "assistant"))

    def __repr__(self) -> str:
        return f"Summarise({self.summarizer!r}, to={self.to}, ratio={self.ratio})"

    def apply(self, draft: OverflowDraft) -> None:
        """Summarise until the draft has its target."""
        after, asked = 0, self.summarizer
        while (run := self._next(draft, after)) is not None:
            reply: object = _UNASKED
            if asked is not None:
                try:
                    reply = _calls.call(
                        asked, run.messages, run.wanted, timeout=self.timeout
                    )
                except Exception as error:
                    reply, asked = error, None  # the next one would fail as well
            after = self._settle(draft, run, reply, after)

    async def aapply(self, draft: OverflowDraft) -> None:
        """The same; a coroutine function is awaited on the running event loop, and
        whatever else takes time is done in a thread."""
        after, asked = 0, self.summarizer
        while run := await _calls.aside(self._next, draft, after):
            reply: object = _UNASKED
            if asked is not None:
                try:
                    reply = await _calls.call_async(
                        asked, run.messages, run.wanted, timeout=self.timeout
                    )
                except Exception as error:
                    reply, asked = error, None
            after = await _calls.aside(self._settle, draft, run, reply, after)

    def _next(self, draft: OverflowDraft, after: int) -> "_Run | None":
        """What to summarise next, from group *after* on; it is in the store now."""
        run = self._found(draft, after) if draft.excess > 0 else None
        if run is not None:
            draft.save(run.messages)
        return run

    def _found(self, draft: OverflowDraft, after: int) -> "_Run | None":
        runs: list[tuple[int, list[int]]] = []  # neighbours of one level
        for i in draft.free(self.keep):
            if i >= after:
                level = max(map(_level, draft[i].messages))
                if not runs or runs[-1][0] != level or runs[-1][1][-1] != i - 1:
                    runs.append((level, []))
                runs[-1][1].append(i)
        for level, run in runs:
            if level and len(run) >= self.fan_in:
                return self._run(draft, run[: self.fan_in], level)
        for level, run in runs:
            if not level:
                some = self._run(draft, self._chunk(draft, run), 0)
                if some.tokens >= self.min_tokens and len(some.messages) > 1:
                    return some
        return None

    def _chunk(self, draft: OverflowDraft, run: list[int]) -> list[int]:
        """The first of *run* that are enough for one summary."""
        most = max(int(draft.budget * self.chunk), self.min_tokens)
        some: list[int] = []
        tokens = messages = 0
        for i in run:
            more = draft[i].tokens
            if tokens + more > most and tokens >= self.min_tokens and messages > 1:
                break
            some.append(i)
            tokens += more
            messages += len(draft[i].messages)
        return some

    def _run(self, draft: OverflowDraft, indices: list[int], level: int) -> "_Run":
        groups = [draft[i] for i in indices]
        tokens = sum(group.tokens for group in groups)
        return _Run(
            indices[0],
            indices[-1] + 1,
            tuple(message for group in groups for message in group.messages),
            level,
            tokens,
            max(int(tokens * self.ratio), 1),
        )

    def _settle(
        self, draft: OverflowDraft, run: "_Run", reply: object, after: int
    ) -> int:
        """Put the summary in its place; where to look for the next run."""
        summary = None
        if reply is not _UNASKED:
            try:
                summary = self._accepted(draft, run, reply)
            except ValueError as refusal:
                draft.note(f"the summarizer {refusal}: extracted instead")
        if summary is None:
            text = shortened(self.compressor, run.text, run.wanted, run.tokens)
            summary = self._message(draft, run, text)
            if not text.strip() or draft.count(summary) >= run.tokens:
                return run.stop  # it can't be made shorter
        draft.replace(run.start, run.stop, [summary])
        return after

    def _accepted(self, draft: OverflowDraft, run: "_Run", reply: object) -> Message:
        if isinstance(reply, Exception):
            raise ValueError(f"raised {told(reply)}") from reply
        if not isinstance(reply, str):
            raise ValueError(f"returned no text but {type(reply).__name__}")
        if not reply.strip():
            raise ValueError("returned nothing")
        tokens = draft.count(Message("user", reply, id=""))
        if tokens > run.wanted * (1 + self.slack) or tokens >= run.tokens:
            raise ValueError(f"returned {tokens:,} tokens for {run.wanted:,}")
        return self._message(draft, run, reply)

    def _message(self, draft: OverflowDraft, run: "_Run", text: str) -> Message:
        n = len(originals_of(run.messages))
        made = Message(
            self.role,
            f"Summary of {n} earlier messages:\n{text}",
            metadata={_LEVEL: run.level + 1},
        )
        return draft.derived(made, run.messages)


class _Run(NamedTuple):
    """Groups that become one summary."""

    start: int
    stop: int
    messages: tuple[Message, ...]
    level: int
    tokens: int
    wanted: int

    @property
    def text(self) -> str:
        """All that they say, without the first lines of summaries."""
        if self.level:
            return "\n\n".join(m.content.partition("\n")[2] for m in self.messages)
        return "\n\n".join(f"{m.role}: {m.text}" for m in self.messages)
