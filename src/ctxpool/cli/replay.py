"""Play a conversation through several memories, and ask them about it on the way."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter_ns

from ..context import MessageCounter
from ..context.messages import Message
from ..errors import BudgetExceededError
from .conversation import Fact, Turn, found, time_of, turns
from .errors import UsageError
from .memories import Context, Memory

__all__ = ["Answer", "Replay", "Step", "Track"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a question found in the context of a memory.

    Attributes
    ----------
    fact : Fact
    answered : bool
        An accepted answer is in the context.
    stale : bool
        None is, but what held before is.
    tokens : int
        Of the context.
    ns : int
        Time to make it.
    """

    fact: Fact
    answered: bool
    stale: bool
    tokens: int
    ns: int


@dataclass(slots=True)
class Step:
    """What a memory did in a turn.

    Attributes
    ----------
    turn : int
    messages : int
        Of the user, the agent and its tools.
    kept, shortened, recalled : int
        Tokens that were sent when the user had spoken: of original messages, of what
        stands for originals, and of what was brought back.
    items : int
        How many memories were brought back.
    done : Counter
        Messages compressed, summarised, evicted, spilled.
    ns : int
        Time to take in all messages, and to make the context once.
    answers : list of Answer
        To the questions after this turn.
    """

    turn: int
    messages: int
    kept: int = 0
    shortened: int = 0
    recalled: int = 0
    items: int = 0
    done: "Counter[str]" = field(default_factory=Counter)
    ns: int = 0
    answers: list[Answer] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        """That were sent."""
        return self.kept + self.shortened + self.recalled


@dataclass(slots=True)
class Track:
    """A memory and its steps."""

    memory: Memory
    steps: list[Step] = field(default_factory=list)

    @property
    def answers(self) -> list[Answer]:
        """To all questions."""
        return [answer for step in self.steps for answer in step.answers]


class Replay:
    """Every memory meets the same messages and questions, in turns in one process; who
    goes first changes with each turn.

    Parameters
    ----------
    messages : sequence of Message
    facts : sequence of Fact
        In the order of asking.
    memories : sequence of Memory
    count : MessageCounter
        Measures what the memories send.
    """

    def __init__(
        self,
        messages: Sequence[Message],
        facts: Sequence[Fact],
        memories: Sequence[Memory],
        count: MessageCounter,
    ) -> None:
        self.tracks = [Track(memory) for memory in memories]
        self._messages, self._count = messages, count
        self._asked: dict[int, list[Fact]] = {}
        for fact in facts:
            self._asked.setdefault(fact.after, []).append(fact)

    def run(self, seen: int, tell: Callable[[Turn], None]) -> None:
        """Play what comes after the first *seen* messages; *tell* of each turn."""
        for turn in turns(self._messages):
            if turn.first + len(turn.messages) <= seen:
                continue
            shift = turn.number % len(self.tracks)
            for track in self.tracks[shift:] + self.tracks[:shift]:
                track.steps.append(self._step(track.memory, turn, seen))
            tell(turn)

    def _step(self, memory: Memory, turn: Turn, seen: int) -> Step:
        step, before = Step(turn.number, 0), memory.done.copy()
        for place, message in enumerate(turn.messages, turn.first):
            if place < seen:
                continue
            start = perf_counter_ns()
            context = self._see(memory, message)
            step.ns += perf_counter_ns() - start
            step.messages += 1
            if context is not None:
                self._weigh(step, context)
            for fact in self._asked.get(place + 1, ()):
                step.answers.append(self._ask(memory, fact, time_of(message)))
        step.done = memory.done - before
        return step

    def _see(self, memory: Memory, message: Message) -> Context | None:
        try:
            return memory.see(message)
        except BudgetExceededError as error:
            raise UsageError(
                f"the message {message.id!r} is too large for --memory {memory.name}: "
                f"{error}. Take a larger --budget"
            ) from error

    def _weigh(self, step: Step, context: Context) -> None:
        for message in context.messages:
            if message.sources:
                step.shortened += self._count(message)
            else:
                step.kept += self._count(message)
        step.recalled = sum(map(self._count, context.recalled))
        step.items = context.items

    def _ask(self, memory: Memory, fact: Fact, at: float) -> Answer:
        start = perf_counter_ns()
        context = memory.context(fact.question, at)
        ns = perf_counter_ns() - start
        sent = [*context.messages, *context.recalled]
        texts = [message.text for message in sent]
        answered = any(found(fact.answers, text) for text in texts)
        stale = not answered and any(found(fact.superseded, text) for text in texts)
        return Answer(fact, answered, stale, sum(map(self._count, sent)), ns)
