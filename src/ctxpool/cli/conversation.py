"""Conversations and questions about them, in files of a JSON object a line."""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from .. import lru_cache
from ..context.messages import Message, ToolCall
from .errors import UsageError

__all__ = [
    "CONVERSATION",
    "FACTS",
    "Fact",
    "Turn",
    "found",
    "read",
    "read_facts",
    "time_of",
    "turns",
]

CONVERSATION = Path(__file__).with_name("data") / "conversation.jsonl"
FACTS = CONVERSATION.with_name("facts.jsonl")
_SECONDS = 60.0  # between messages, where their time is not told
_Record = TypeVar("_Record")


@dataclass(frozen=True, slots=True)
class Fact:
    """A question whose answer was said before it is asked.

    Attributes
    ----------
    id, question, kind : str
        The kind is free: name, number, decision, preference, ...
    answers : tuple of str
        Each alone is enough.
    superseded : tuple of str
        What held before: no answer any more.
    after : int
        How many messages have been seen when it is asked.
    distance : int
        So many messages ago the answer was said last.
    """

    id: str
    question: str
    kind: str
    answers: tuple[str, ...]
    superseded: tuple[str, ...]
    after: int
    distance: int


@dataclass(frozen=True, slots=True)
class Turn:
    """What a user says, and all that the agent does and says until the next one."""

    number: int
    first: int
    messages: tuple[Message, ...]


def time_of(message: Message) -> float:
    """When it was said, in seconds since 1970."""
    return float(message.metadata["time"])


def read(path: str | Path) -> list[Message]:
    """The messages of a file: OpenAI's shape, and ``id`` and ``time`` where known.

    Raises
    ------
    UsageError
        It can't be read, or a line is no message: the error names the line.
    """
    messages: list[Message] = []
    seen: set[str] = set()

    def message(record: dict[str, Any]) -> Message:
        made = _message(record, len(messages))
        if made.id in seen:
            raise ValueError(f"a second message with the id {made.id!r}")
        if made.role == "tool" and made.tool_call_id not in called:
            raise ValueError(f"no call before it has the id {made.tool_call_id!r}")
        called.update(call.id for call in made.tool_calls)
        seen.add(made.id)
        return made

    called: set[str] = set()
    for made in _records(path, message):
        messages.append(made)
    if not messages:
        raise UsageError(f"{path}: no message in it")
    return messages


def read_facts(path: str | Path, messages: Sequence[Message]) -> list[Fact]:
    """The questions of a file about these messages, in the order of asking.

    A line has ``question``, ``answers`` and ``after`` (the id of the last message that
    was seen), and may have ``id``, ``kind`` and ``superseded``.

    Raises
    ------
    UsageError
        It can't be read, or a line is no question about this conversation: no such
        message, or no answer was said before it. The error names the line.
    """
    places = {message.id: place for place, message in enumerate(messages)}
    texts = [message.text for message in messages]
    facts: list[Fact] = []

    def fact(record: dict[str, Any]) -> Fact:
        answers = _texts(record, "answers")
        if not answers:
            raise ValueError("it has no answers")
        last = _text(record, "after")
        if last not in places:
            raise ValueError(f"no message has the id {last!r}, which it is asked after")
        after = places[last] + 1
        said = [n for n in range(after) if found(answers, texts[n])]
        if not said:
            raise ValueError(f"no answer of {answers} was said up to {last!r}")
        return Fact(
            _text(record, "id", f"line {len(facts) + 1}"),
            _text(record, "question"),
            _text(record, "kind", "fact"),
            answers,
            _texts(record, "superseded", ()),
            after,
            after - said[-1],
        )

    for made in _records(path, fact):
        facts.append(made)
    return sorted(facts, key=lambda fact: fact.after)


def turns(messages: Sequence[Message]) -> list[Turn]:
    """The conversation cut before each user's message; what comes first is turn 0."""
    starts = [n for n, message in enumerate(messages) if message.role == "user"]
    if not starts or starts[0]:
        starts.insert(0, 0)
    ends = [*starts[1:], len(messages)]
    first = 1 if messages[0].role == "user" else 0
    return [
        Turn(number, start, tuple(messages[start:end]))
        for number, (start, end) in enumerate(zip(starts, ends, strict=True), first)
    ]


# ---- Is an answer in a text? ----


def found(answers: Sequence[str], text: str) -> bool:
    """Whether one of *answers* stands in *text* as words of its own. Case, line breaks
    and the commas of thousands make no difference."""
    text = _plain(text)
    return any(
        re.search(rf"(?<!\w){re.escape(_plain(answer))}(?!\w)", text)
        for answer in answers
    )


# Every question searches the same messages.
@lru_cache(8192)  # type: ignore[untyped-decorator]
def _plain(text: str) -> str:
    return re.sub(r"(?<=\d),(?=\d{3})", "", " ".join(text.casefold().split()))


# ---- Lines ----


def _records(
    path: str | Path, make: Callable[[dict[str, Any]], _Record]
) -> Iterator[_Record]:
    """What *make* makes of each line that is not blank."""
    try:
        with open(path, encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    record = json.loads(line)
                    if not isinstance(record, dict):
                        raise TypeError(f"must be a JSON object, not {line.strip()!r}")
                    made = make(record)
                except (ValueError, TypeError, RecursionError) as error:
                    raise UsageError(f"{path}, line {number}: {error}") from error
                yield made
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: no UTF-8 text: {error}") from error


def _message(record: dict[str, Any], place: int) -> Message:
    calls = record.get("tool_calls") or ()
    if not isinstance(calls, (list, tuple)):
        raise TypeError(f"tool_calls must be a list, not {calls!r}")
    return Message(
        _text(record, "role"),  # type: ignore[arg-type]  # it checks
        _content(record),
        tuple(map(_call, calls)),
        _text(record, "tool_call_id", ""),
        metadata={"time": _time(record, place)},
        id=_text(record, "id", f"{place + 1}"),
    )


def _content(record: dict[str, Any]) -> str:
    """Its text: null beside tool calls, and the text parts of a list."""
    content = record.get("content")
    if isinstance(content, list):
        return "\n".join(_text(part, "text", "") for part in content)
    return "" if content is None else _text(record, "content")


def _call(call: Any) -> ToolCall:
    if not isinstance(call, dict) or not isinstance(call.get("function"), dict):
        raise TypeError(f"a tool call needs id and function, not {call!r}")
    function = call["function"]
    return ToolCall(
        _text(call, "id"), _text(function, "name"), _text(function, "arguments", "{}")
    )


def _time(record: dict[str, Any], place: int) -> float:
    text = _text(record, "time", "")
    if not text:
        return _SECONDS * place
    at = datetime.fromisoformat(text)
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def _text(record: Any, name: str, default: str | None = None) -> str:
    value = record.get(name, default) if isinstance(record, dict) else record
    if not isinstance(value, str):
        if value is None:
            raise ValueError(f"it has no {name}")
        raise TypeError(f"{name} must be text, not {value!r}")
    return value


def _texts(
    record: dict[str, Any], name: str, default: tuple[str, ...] | None = None
) -> tuple[str, ...]:
    values = record.get(name, default)
    if not isinstance(values, (list, tuple)) or not all(
        isinstance(value, str) and value.strip() for value in values
    ):
        raise TypeError(f"{name} must be a list of texts, not {values!r}")
    return tuple(values)
