"""Content as a list of blocks, as providers have it, and a message's text and parts.

A message's text is that of the text blocks, joined by line ends. What this loses, where
each text began and in what order the blocks were, is kept as a *layout* in the
message's metadata, under the format's name: a list, in plain JSON, of

    ["text", length, {other keys}]   a text block
    ["part"]                         the next part
    ["call", {other keys}]           the next tool call

A message whose text was changed since then, by a compressor say, no longer fits its
layout, and gets the plain one: thinking, the text, other parts, tool calls.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .messages import Message, ToolCall

__all__ = [
    "THINKING",
    "arguments",
    "as_mapping",
    "blocks_of",
    "is_text",
    "rest",
    "shape_of",
    "split",
]

Layout = list[list[Any]]
THINKING = ("thinking", "redacted_thinking", "reasoning")


def as_mapping(value: Any, what: str) -> Mapping[str, Any]:
    """*value* if it is a mapping."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{what} must be a dict, not {value!r}")
    return value


def rest(mapping: Mapping[str, Any], *known: str) -> dict[str, Any]:
    """What *mapping* has beside the *known* keys."""
    return {key: value for key, value in mapping.items() if key not in known}


def is_text(block: Mapping[str, Any]) -> bool:
    """Whether it is a block of plain text."""
    return block.get("type") == "text" and isinstance(block.get("text"), str)


def shape_of(message: Message, style: str) -> Mapping[str, Any]:
    """What :mod:`formats` noted of the message's own form in this style."""
    shape = message.metadata.get(style)
    return shape if isinstance(shape, Mapping) else {}


def split(
    blocks: Iterable[Any],
    call: Callable[[Mapping[str, Any]], tuple[ToolCall, dict[str, Any]] | None],
) -> tuple[str, tuple[Mapping[str, Any], ...], tuple[ToolCall, ...], Layout]:
    """The text, parts, tool calls and layout of *blocks*; *call* makes a tool call of a
    block that is one."""
    texts: list[str] = []
    parts: list[Mapping[str, Any]] = []
    calls: list[ToolCall] = []
    layout: Layout = []
    for value in blocks:
        block = as_mapping(value, "a block")
        if is_text(block):
            texts.append(block["text"])
            layout.append(["text", len(block["text"]), rest(block, "type", "text")])
        elif (made := call(block)) is not None:
            calls.append(made[0])
            layout.append(["call", made[1]])
        else:
            parts.append(block)
            layout.append(["part"])
    return "\n".join(texts), tuple(parts), tuple(calls), layout


def _plain(message: Message, calls: bool) -> Layout:
    thinking = [part.get("type") in THINKING for part in message.parts]
    # Thinking comes first in the parts too, or the parts would be put out of order.
    first = thinking.index(False) if False in thinking else len(thinking)
    layout: Layout = [["part"]] * first
    if message.content:
        layout.append(["text", len(message.content), {}])
    layout += [["part"]] * (len(thinking) - first)
    return layout + ([["call", {}]] * len(message.tool_calls) if calls else [])


def _matches(layout: Any, message: Message, calls: bool) -> bool:
    if not isinstance(layout, list):
        return False
    kinds = [item[0] for item in layout]
    lengths = [item[1] for item in layout if item[0] == "text"]
    return (
        kinds.count("part") == len(message.parts)
        and kinds.count("call") == (len(message.tool_calls) if calls else 0)
        and sum(lengths) + max(len(lengths) - 1, 0) == len(message.content)
    )


def blocks_of(
    message: Message,
    layout: Any,
    part: Callable[[Mapping[str, Any]], Any],
    call: Callable[[ToolCall, Mapping[str, Any]], Any] | None,
) -> list[Any]:
    """The blocks of *message*, by *layout* where it fits; *part* and *call* make blocks
    of parts and tool calls, None where one has no place."""
    if not _matches(layout, message, call is not None):
        layout = _plain(message, call is not None)
    parts, calls = iter(message.parts), iter(message.tool_calls)
    blocks: list[Any] = []
    at = 0
    for kind, *more in layout:
        if kind == "text":
            text = message.content[at : at + more[0]]
            at += more[0] + 1
            blocks.append({"type": "text", "text": text, **more[1]})
        elif kind == "part":
            blocks.append(part(next(parts)))
        elif call is not None:
            blocks.append(call(next(calls), more[0]))
    return [block for block in blocks if block is not None]


def arguments(call: ToolCall) -> Any:
    """The arguments of *call* as an object."""
    try:
        return json.loads(call.arguments or "{}")
    except ValueError as error:
        raise ValueError(
            f"the arguments of call {call.id!r} are no JSON: {call.arguments!r}"
        ) from error
