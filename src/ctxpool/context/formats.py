"""Messages from and to the dicts that OpenAI's and Anthropic's interfaces take.

A round trip through one format loses nothing: ``to_openai(from_openai(dicts)) ==
dicts``, unknown keys included. What :class:`Message` has no place for is noted in its
metadata, under the format's name. From one format to the other go texts, images,
documents, tool calls and their results; thinking is dropped, as no other provider can
read it; of anything else a ValueError tells that it can't be said.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from ._blocks import (
    THINKING,
    arguments,
    as_mapping,
    blocks_of,
    rest,
    shape_of,
    split,
)
from .messages import Message, ToolCall

__all__ = ["from_anthropic", "from_openai", "to_anthropic", "to_openai"]


def _given(name: str, shape: dict[str, Any]) -> dict[str, Any]:
    return {name: shape} if shape else {}


def _text(mapping: Mapping[str, Any], key: str, what: str) -> str:
    value = mapping.get(key)
    if not isinstance(value, str):
        raise ValueError(f"{what} needs {key!r} as text, not {value!r}")
    return value


# -- OpenAI ----------------------------------------------------------------------------


def from_openai(messages: Iterable[Mapping[str, Any]]) -> list[Message]:
    """The messages of a list of dicts in the form of OpenAI's chat completions.

    Raises
    ------
    TypeError, ValueError
        One is no such message.

    Examples
    --------
    >>> messages = from_openai([
    ...     {"role": "user", "content": "What time is it?"},
    ...     {"role": "assistant", "content": None, "tool_calls": [{
    ...         "id": "c1", "type": "function",
    ...         "function": {"name": "clock", "arguments": "{}"}}]},
    ...     {"role": "tool", "tool_call_id": "c1", "content": "12:30"},
    ... ])
    >>> messages[1].tool_calls, messages[2].content
    ((ToolCall(id='c1', name='clock', arguments='{}'),), '12:30')
    """
    return [_from_openai(as_mapping(item, "a message")) for item in messages]


def _from_openai(given: Mapping[str, Any]) -> Message:
    role = given.get("role")
    shape: dict[str, Any] = {}
    if role == "developer":
        role, shape["role"] = "system", role
    made = [
        _openai_call(as_mapping(item, "a tool call"))
        for item in given.get("tool_calls") or ()
    ]
    if any(note for _, note in made):
        shape["calls"] = [note for _, note in made]
    parts: tuple[Mapping[str, Any], ...] = ()
    content = given.get("content")
    if content is None:
        shape["content"] = "null" if "content" in given else "absent"
        content = ""
    elif not isinstance(content, str):
        content, parts, _, shape["layout"] = split(content, lambda block: None)
    elif not content and made:
        shape["content"] = "empty"
    known = ["role", "content"]
    # An empty list of calls, or a name that is null, comes back as it was.
    known += [key for key in ("tool_calls", "tool_call_id", "name") if given.get(key)]
    if extra := rest(given, *known):
        shape["extra"] = extra
    return Message(
        role,  # type: ignore[arg-type]  # Message says what a role may be
        content,
        tuple(call for call, _ in made),
        given.get("tool_call_id") or "",
        given.get("name") or "",
        parts,
        _given("openai", shape),
    )


_USUAL = {"call": {"type": "function"}, "body": {}}


def _openai_call(given: Mapping[str, Any]) -> tuple[ToolCall, dict[str, Any]]:
    kind = given.get("type", "function")
    key = "input" if kind == "custom" else "arguments"
    body = as_mapping(given.get(kind), f"{kind!r} of a tool call")
    call = ToolCall(
        _text(given, "id", "a tool call"),
        _text(body, "name", "a tool call"),
        _text(body, key, "a tool call"),
    )
    note = {"call": rest(given, "id", kind), "body": rest(body, "name", key)}
    return call, {} if note == _USUAL else note


def to_openai(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """The dicts of OpenAI's chat completions for *messages*.

    Raises
    ------
    ValueError
        A part of a message can't be said in this form.
    """
    return [_to_openai(message) for message in messages]


def _to_openai(message: Message) -> dict[str, Any]:
    shape = shape_of(message, "openai")
    made: dict[str, Any] = {"role": shape.get("role", message.role)}
    content: Any = message.content
    if message.parts or "layout" in shape:
        content = blocks_of(message, shape.get("layout"), _openai_part, None)
        if not content and "layout" not in shape:  # thinking alone
            content = None if message.tool_calls else ""
    elif not content and (message.tool_calls or "content" in shape):
        content = "" if shape.get("content") == "empty" else None
    if not (content is None and shape.get("content") == "absent"):
        made["content"] = content
    made.update(shape.get("extra", {}))
    if message.tool_calls:
        notes = shape.get("calls", ())
        if len(notes) != len(message.tool_calls):
            notes = [{}] * len(message.tool_calls)
        pairs = zip(message.tool_calls, notes, strict=True)
        made["tool_calls"] = [_to_openai_call(call, note) for call, note in pairs]
    if message.tool_call_id:
        made["tool_call_id"] = message.tool_call_id
    if message.name:
        made["name"] = message.name
    return made


def _to_openai_call(call: ToolCall, note: Mapping[str, Any]) -> dict[str, Any]:
    outer = (note or _USUAL)["call"]
    kind = outer.get("type", "function")
    key = "input" if kind == "custom" else "arguments"
    body = {"name": call.name, key: call.arguments, **note.get("body", {})}
    return {"id": call.id, **outer, kind: body}


_OPENAI = ("image_url", "input_audio", "file", "refusal")


def _openai_part(part: Mapping[str, Any]) -> Mapping[str, Any] | None:
    kind, source = part.get("type"), part.get("source")
    if kind in THINKING:
        return None
    if kind in ("image", "document") and isinstance(source, Mapping):
        url = source.get("url")
        if source.get("type") == "base64":
            url = f"data:{source.get('media_type')};base64,{source.get('data')}"
        if kind == "image" and url is not None:
            return {"type": "image_url", "image_url": {"url": url}}
        if kind == "document" and source.get("type") == "base64":
            name = part.get("title") or "document"
            return {"type": "file", "file": {"filename": name, "file_data": url}}
        if kind == "document" and source.get("type") == "text":
            return {"type": "text", "text": source.get("data")}
    if kind in _OPENAI or not isinstance(kind, str):
        return part
    raise ValueError(f"a part of type {kind!r} can't be said in OpenAI's form")


# -- Anthropic -------------------------------------------------------------------------


def from_anthropic(
    messages: Iterable[Mapping[str, Any]],
    system: str | Iterable[Mapping[str, Any]] | None = None,
) -> list[Message]:
    """The messages of a list of dicts in the form of Anthropic's Messages interface.

    A user's message with several tool results becomes several messages. *system* is
    what is given beside the messages: text, or blocks.

    Raises
    ------
    TypeError, ValueError
        One is no such message.
    """
    found = []
    if system is not None:
        found.append(_of_blocks("system", system, {}))
    for item in messages:
        given = as_mapping(item, "a message")
        role = given.get("role")
        content = given.get("content")
        shape = _given("extra", rest(given, "role", "content"))
        if role == "user" and not isinstance(content, str | None):
            found += _from_user(content, shape)
        elif role in ("user", "assistant"):
            found.append(_of_blocks(role, content, shape))
        else:
            raise ValueError(f"role must be 'user' or 'assistant', not {role!r}")
    return found


def _from_user(content: Any, shape: dict[str, Any]) -> list[Message]:
    """One message for each tool result, and for the blocks between them."""
    found: list[Message] = []
    run: list[Any] = []

    def end_of_run() -> None:
        if run or not found:
            more = {"joined": True} if found else shape
            found.append(_of_blocks("user", run.copy(), dict(more)))
            run.clear()

    for item in content:
        block = as_mapping(item, "a block")
        if block.get("type") != "tool_result":
            run.append(block)
            continue
        if run:
            end_of_run()
        more: dict[str, Any] = {"joined": True} if found else dict(shape)
        known = ("type", "tool_use_id", "content")
        more["result"] = rest(block, *known)
        call = _text(block, "tool_use_id", "a tool result")
        found.append(_of_blocks("tool", block.get("content"), more, call))
    end_of_run()
    return found


def _of_blocks(
    role: Any, content: Any, shape: dict[str, Any], call: str = ""
) -> Message:
    parts: tuple[Mapping[str, Any], ...] = ()
    calls: tuple[ToolCall, ...] = ()
    if content is None:
        content, shape["content"] = "", "absent"
    elif not isinstance(content, str):
        makes = _anthropic_call if role == "assistant" else lambda block: None
        content, parts, calls, shape["layout"] = split(content, makes)
    metadata = _given("anthropic", shape)
    return Message(role, content, calls, call, "", parts, metadata)


def _anthropic_call(
    block: Mapping[str, Any],
) -> tuple[ToolCall, dict[str, Any]] | None:
    if block.get("type") != "tool_use":
        return None
    name, call = (_text(block, key, "a tool call") for key in ("name", "id"))
    given = json.dumps(block.get("input", {}), ensure_ascii=False)
    return ToolCall(call, name, given), rest(block, "type", "id", "name", "input")


def to_anthropic(messages: Iterable[Message]) -> dict[str, Any]:
    """Keyword arguments of Anthropic's Messages interface for *messages*.

    ``"messages"``, and ``"system"`` where there is a system message: all of them go
    there, wherever they were. Results of tools go into one user's message.

    Raises
    ------
    ValueError
        A part of a message can't be said in this form, or the arguments of a tool call
        are no JSON.

    Examples
    --------
    >>> to_anthropic([Message("system", "Be brief."), Message("user", "Hello!")])
    {'system': 'Be brief.', 'messages': [{'role': 'user', 'content': 'Hello!'}]}
    """
    system: list[Any] = []
    made: list[dict[str, Any]] = []
    before = ""
    for message in messages:
        shape = shape_of(message, "anthropic")
        content = _to_blocks(message, shape)
        if message.role == "system":
            system.append(content)
            continue
        joined = bool(shape.get("joined"))
        if message.role == "tool":
            joined = joined or before == "tool"
            result = {"type": "tool_result", "tool_use_id": message.tool_call_id}
            if content is not None:
                result["content"] = content
            content = [{**result, **shape.get("result", {})}]
        role = "assistant" if message.role == "assistant" else "user"
        if joined and made and made[-1]["role"] == role == "user":
            made[-1]["content"] = _listed(made[-1]["content"]) + _listed(content)
        else:
            made.append({"role": role, **shape.get("extra", {})})
            if content is not None:
                made[-1]["content"] = content
        before = message.role
    if not system:
        return {"messages": made}
    if len(system) > 1:
        system = [[block for content in system for block in _listed(content)]]
    return {"system": system[0], "messages": made}


def _listed(content: Any) -> list[Any]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _to_blocks(message: Message, shape: Mapping[str, Any]) -> Any:
    if message.parts or message.tool_calls or "layout" in shape:
        layout = shape.get("layout")
        return blocks_of(message, layout, _anthropic_part, _to_anthropic_call)
    if not message.content and shape.get("content") == "absent":
        return None
    return message.content


def _to_anthropic_call(call: ToolCall, note: Mapping[str, Any]) -> dict[str, Any]:
    given = {"id": call.id, "name": call.name, "input": arguments(call)}
    return {"type": "tool_use", **given, **note}


def _anthropic_part(part: Mapping[str, Any]) -> Mapping[str, Any] | None:
    kind = part.get("type")
    if kind == "image_url":
        url = as_mapping(part.get("image_url"), "image_url").get("url")
        return {"type": "image", "source": _source(url)}
    if kind == "file":
        data = as_mapping(part.get("file"), "file").get("file_data")
        if isinstance(data, str):
            return {"type": "document", "source": _source(data)}
    if kind == "refusal":
        return {"type": "text", "text": part.get("refusal")}
    if kind == "reasoning":
        return None
    if kind in ("file", "input_audio"):
        raise ValueError(f"a part of type {kind!r} can't be said in Anthropic's form")
    return part


def _source(url: Any) -> dict[str, Any]:
    if not isinstance(url, str):
        raise ValueError(f"a URL must be text, not {url!r}")
    head, comma, data = url.partition(",")
    if comma and head.startswith("data:") and head.endswith(";base64"):
        kind = head.removeprefix("data:").removesuffix(";base64")
        return {"type": "base64", "media_type": kind, "data": data}
    return {"type": "url", "url": url}
