"""What an agent remembers: windows of messages under a budget, what becomes of those
that no longer fit, and memories that are found again. Each loaded when it is first
asked for."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .extract import Extract, Span
    from .messages import Group, Message, ToolCall
    from .scoring import FEATURES, ScoredPieces
    from .sentences import Piece
    from .tokens import Tokenizer

__all__ = [
    "FEATURES",
    "Extract",
    "Group",
    "Message",
    "Piece",
    "ScoredPieces",
    "Span",
    "Tokenizer",
    "ToolCall",
]
_homes = {
    "Extract": "extract",
    "Span": "extract",
    "Group": "messages",
    "Message": "messages",
    "ToolCall": "messages",
    "FEATURES": "scoring",
    "ScoredPieces": "scoring",
    "Piece": "sentences",
    "Tokenizer": "tokens",
}


def __getattr__(name: str) -> Any:
    if name not in _homes:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_homes[name]}", __name__), name)
