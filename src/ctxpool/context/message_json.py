"""A message as JSON text and back: nothing is lost, or an error says what would be."""

import json
from collections.abc import Mapping
from typing import Any

from ..errors import UnstorableMessageError
from .messages import Message, ToolCall

__all__ = ["dump_message", "load_message"]

_ATOMS = (str, int, float, bool, type(None))
_DEEPEST = 100  # far below what the encoder and the decoder can do on any stack


def _plain(value: Any, where: str, depth: int = 0) -> Any:
    """*value* in what JSON has. The encoder would make text of a key that is none."""
    if isinstance(value, _ATOMS):
        return value
    if depth == _DEEPEST:
        raise ValueError(f"{where.partition('[')[0]} is nested over {depth} deep")
    if isinstance(value, Mapping):
        found = {}
        for key, each in value.items():
            if not isinstance(key, str):
                raise TypeError(f"{where} has a key that is no text: {key!r}")
            found[key] = _plain(each, f"{where}[{key!r}]", depth + 1)
        return found
    if isinstance(value, list | tuple):
        each_in = enumerate(value)
        return [_plain(each, f"{where}[{i}]", depth + 1) for i, each in each_in]
    raise TypeError(f"JSON can't hold {where}, {value!r}")


def dump_message(message: Message) -> str:
    """*message* as JSON text, all of it. What is empty is left out.

    Metadata and parts come back as JSON has them: a tuple as a list, an enumeration's
    member as its value. ``nan`` and the infinities stay themselves.

    Raises
    ------
    UnstorableMessageError
        JSON can't hold a part of it.

    Examples
    --------
    >>> dump_message(Message("user", "Hello.", id="m1"))
    '{"id": "m1", "role": "user", "content": "Hello."}'
    """
    if not isinstance(message, Message):
        raise TypeError(f"a Message is needed, not {message!r}")
    fields: dict[str, Any] = {"id": message.id, "role": message.role}
    try:
        if not isinstance(message.id, str):
            raise TypeError("its id is no text")
        calls = [[call.id, call.name, call.arguments] for call in message.tool_calls]
        rest = {
            "content": message.content,
            "tool_calls": calls,
            "tool_call_id": message.tool_call_id,
            "name": message.name,
            "parts": message.parts,
            "metadata": message.metadata,
            "sources": message.sources,
        }
        fields.update((k, _plain(v, k)) for k, v in rest.items() if v)
        text = json.dumps(fields, ensure_ascii=False)
        try:
            text.encode()
        except UnicodeEncodeError:  # half of a surrogate pair, which only escapes hold
            text = json.dumps(fields)
        return text
    except Exception as error:  # a mapping of the caller's may raise anything
        raise UnstorableMessageError(
            f"message {message.id!r} can't be stored: {error}", id=message.id
        ) from error


def load_message(text: str) -> Message:
    """The message that :func:`dump_message` made *text* of.

    Raises
    ------
    ValueError
        It is no such text.
    """
    try:
        fields = json.loads(text)
        for name in ("parts", "sources"):
            if name in fields:
                fields[name] = tuple(fields[name])
        if "tool_calls" in fields:
            fields["tool_calls"] = tuple(ToolCall(*c) for c in fields["tool_calls"])
        return Message(**fields)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"no message's JSON: {error}") from error
