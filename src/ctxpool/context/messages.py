"""One message of a conversation, and those that must stay together."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

__all__ = ["Group", "Message", "Role", "ToolCall"]

Role = Literal["system", "user", "assistant", "tool"]
_ROLES = get_args(Role)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """What an assistant asked of a tool.

    Attributes
    ----------
    id : str
        The result names it, as :attr:`Message.tool_call_id`.
    name : str
        Of the tool.
    arguments : str
        As JSON text.
    """

    id: str
    name: str
    arguments: str = "{}"


@dataclass(frozen=True, slots=True)
class Message:
    """One message, whatever provider's it is. It never changes.

    Attributes
    ----------
    role : {"system", "user", "assistant", "tool"}
        Who speaks.
    content : str
        The text.
    tool_calls : tuple of ToolCall
        Of an assistant.
    tool_call_id : str
        Of a tool's result: the call that it answers.
    name : str
        Of the speaker or the tool, where there is one.
    parts : tuple of mappings
        What is no text (images, documents, thinking), as the provider's own dicts.
    metadata : mapping
        The caller's own; sent to nobody. Under ``"openai"``, ``"anthropic"`` and
        ``"langchain"`` is noted what form it had there, if it came from there.
    id : str
        Made up where none is given.
    sources : tuple of str
        Of a summary or a compressed message: the ids of the messages that it stands
        for, the originals, never those of another summary.

    Raises
    ------
    ValueError
        The role is none of the four, or a role has what only another one can have.
    TypeError
        The content is no text.
    """

    role: Role
    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    name: str = ""
    parts: tuple[Mapping[str, Any], ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict, compare=False)
    id: str = field(default_factory=lambda: uuid.uuid4().hex, compare=False)
    sources: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.role not in _ROLES:
            listed = ", ".join(map(repr, _ROLES))
            raise ValueError(f"role must be one of {listed}, not {self.role!r}")
        if not isinstance(self.content, str):
            raise TypeError(f"content must be str, not {self.content!r}")
        if self.tool_calls and self.role != "assistant":
            raise ValueError(f"only an assistant calls tools, not {self.role!r}")
        if bool(self.tool_call_id) != (self.role == "tool"):
            raise ValueError(
                f"a tool's message, and no other, needs tool_call_id: role "
                f"{self.role!r} has {self.tool_call_id!r}"
            )

    @property
    def text(self) -> str:
        """All of its text: the content, and its tool calls' names and arguments."""
        if not self.tool_calls:
            return self.content
        calls = (f"{call.name} {call.arguments}" for call in self.tool_calls)
        return "\n".join([self.content, *calls] if self.content else calls)


@dataclass(frozen=True, slots=True)
class Group:
    """Messages that a window keeps or drops as a whole: an assistant's tool calls with
    their results, or one message alone.

    Attributes
    ----------
    messages : tuple of Message
        In their order; never empty.
    tokens : int
        Of all of them together, with what each message costs beside its text.
    pinned : bool
        Neither dropped nor replaced.
    """

    messages: tuple[Message, ...]
    tokens: int
    pinned: bool = False
