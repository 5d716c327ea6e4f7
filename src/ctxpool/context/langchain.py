"""Messages from and to LangChain's, of the extra ``langchain``."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from ._blocks import arguments, blocks_of, rest, shape_of, split
from .messages import Message, ToolCall

__all__ = ["from_langchain", "to_langchain"]

_ROLES = {"human": "user", "ai": "assistant", "system": "system", "tool": "tool"}
_KNOWN = ("type", "content", "id", "name", "tool_calls", "tool_call_id")


def _module() -> Any:
    try:
        return importlib.import_module("langchain_core.messages")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "LangChain's messages need the package langchain-core: "
            'pip install "ctxpool[langchain]"',
            name="langchain_core",
        ) from error


def from_langchain(messages: Iterable[Any]) -> list[Message]:
    """The messages of LangChain's own: Human, AI, System and ToolMessage.

    A round trip loses nothing; a chunk comes back as the message that it is a chunk of.

    Raises
    ------
    ModuleNotFoundError
        The extra ``langchain`` is not installed.
    TypeError, ValueError
        One is of another kind, or a tool call has no id.
    """
    base = _module().BaseMessage
    found = []
    for given in messages:
        if not isinstance(given, base):
            raise TypeError(f"a message of LangChain is needed, not {given!r}")
        found.append(_from(given))
    return found


def _from(given: Any) -> Message:
    kind = {"AIMessageChunk": "ai"}.get(given.type, given.type)
    kind = kind.removesuffix("MessageChunk").lower()
    if kind not in _ROLES:
        raise ValueError(f"there is no place for a message of type {given.type!r}")
    calls = tuple(_call(call) for call in getattr(given, "tool_calls", ()))
    wanted = {call.id: json.loads(call.arguments) for call in calls}

    def known_call(
        block: Mapping[str, Any],
    ) -> tuple[ToolCall, dict[str, Any]] | None:
        """What Anthropic's integration repeats in the content."""
        if block.get("type") != "tool_use" or block.get("id") not in wanted:
            return None
        if block.get("input") != wanted[block["id"]]:
            return None
        call = next(call for call in calls if call.id == block["id"])
        return call, rest(block, "type", "id", "name", "input")

    shape: dict[str, Any] = {}
    content = given.content
    parts: tuple[Mapping[str, Any], ...] = ()
    if not isinstance(content, str):
        plain = [i for i, block in enumerate(content) if isinstance(block, str)]
        blocks = [
            {"type": "text", "text": block} if isinstance(block, str) else block
            for block in content
        ]
        content, parts, repeated, layout = split(blocks, known_call)
        if repeated and repeated != calls:  # in another order: leave them as they are
            content, parts, repeated, layout = split(blocks, lambda block: None)
        shape = {"layout": layout, "plain": plain, "calls": bool(repeated)}
    fields = {**vars(given), **(given.model_extra or {})}
    if extra := {key: value for key, value in rest(fields, *_KNOWN).items() if value}:
        shape["extra"] = extra
    if given.id is None:
        shape["id"] = None
    own = {} if given.id is None else {"id": given.id}
    return Message(
        _ROLES[kind],  # type: ignore[arg-type]
        content,
        calls,
        getattr(given, "tool_call_id", ""),
        given.name or "",
        parts,
        {"langchain": shape} if shape else {},
        **own,
    )


def _call(given: Mapping[str, Any]) -> ToolCall:
    if not isinstance(given.get("id"), str):
        raise ValueError(f"a tool call needs an id: {given!r}")
    text = json.dumps(given["args"], ensure_ascii=False)
    return ToolCall(given["id"], given["name"], text)


def to_langchain(messages: Iterable[Message]) -> list[Any]:
    """LangChain's messages for *messages*.

    Raises
    ------
    ModuleNotFoundError
        The extra ``langchain`` is not installed.
    ValueError
        The arguments of a tool call are no JSON.
    """
    module = _module()
    kinds = {
        "user": module.HumanMessage,
        "assistant": module.AIMessage,
        "system": module.SystemMessage,
        "tool": module.ToolMessage,
    }
    return [kinds[message.role](**_fields(message)) for message in messages]


def _fields(message: Message) -> dict[str, Any]:
    shape = shape_of(message, "langchain")
    content: Any = message.content
    if message.parts or "layout" in shape:
        repeat = _repeated if shape.get("calls") else None
        content = blocks_of(message, shape.get("layout"), dict, repeat)
        if len(content) == len(shape.get("layout", ())):
            for at in shape["plain"]:
                content[at] = content[at]["text"]
    made = {"content": content, **shape.get("extra", {})}
    if "id" not in shape:
        made["id"] = message.id
    if message.name:
        made["name"] = message.name
    if message.tool_call_id:
        made["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        made["tool_calls"] = [
            {"name": call.name, "args": arguments(call), "id": call.id}
            for call in message.tool_calls
        ]
    return made


def _repeated(call: ToolCall, note: Mapping[str, Any]) -> dict[str, Any]:
    given = {"id": call.id, "name": call.name, "input": arguments(call)}
    return {"type": "tool_use", **given, **note}
