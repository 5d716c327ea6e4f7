"""What an agent remembers: windows of messages under a budget, what becomes of those
that no longer fit, and memories that are found again. Each loaded when it is first
asked for."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .messages import Group, Message, ToolCall
    from .prefix import PrefixAllocation, PrefixBlockManager, PrefixEvent, PrefixGrowth
    from .tokens import Tokenizer

__all__ = [
    "Group",
    "Message",
    "PrefixAllocation",
    "PrefixBlockManager",
    "PrefixEvent",
    "PrefixGrowth",
    "Tokenizer",
    "ToolCall",
]
_homes = {
    "PrefixAllocation": "prefix",
    "PrefixEvent": "prefix",
    "PrefixGrowth": "prefix",
    "PrefixBlockManager": "prefix",
    "Group": "messages",
    "Message": "messages",
    "ToolCall": "messages",
    "Tokenizer": "tokens",
}


def __getattr__(name: str) -> Any:
    if name not in _homes:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_homes[name]}", __name__), name)
