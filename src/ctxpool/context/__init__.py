"""What an agent remembers: windows of messages under a budget, what becomes of those
that no longer fit, and memories that are found again. Each loaded when it is first
asked for."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .compression import AdaptiveCompressor, Compressed
    from .counting import MessageCounter
    from .extract import Extract, Span
    from .importance import ImportanceModel
    from .messages import Group, Message, ToolCall
    from .scoring import FEATURES, ScoredPieces
    from .sentences import Piece
    from .tokens import (
        BytePairTokenizer,
        HeuristicTokenizer,
        TiktokenTokenizer,
        TokenCounter,
        Tokenizer,
        load_tokenizer,
    )

__all__ = [
    "FEATURES",
    "AdaptiveCompressor",
    "BytePairTokenizer",
    "Compressed",
    "Extract",
    "Group",
    "HeuristicTokenizer",
    "ImportanceModel",
    "Message",
    "MessageCounter",
    "Piece",
    "ScoredPieces",
    "Span",
    "TiktokenTokenizer",
    "TokenCounter",
    "Tokenizer",
    "ToolCall",
    "load_tokenizer",
]
_homes = {
    "FEATURES": "scoring",
    "AdaptiveCompressor": "compression",
    "BytePairTokenizer": "tokens",
    "Compressed": "compression",
    "Extract": "extract",
    "Group": "messages",
    "HeuristicTokenizer": "tokens",
    "ImportanceModel": "importance",
    "Message": "messages",
    "MessageCounter": "counting",
    "Piece": "sentences",
    "ScoredPieces": "scoring",
    "Span": "extract",
    "TiktokenTokenizer": "tokens",
    "TokenCounter": "tokens",
    "Tokenizer": "tokens",
    "ToolCall": "messages",
    "load_tokenizer": "tokens",
}


def __getattr__(name: str) -> Any:
    if name not in _homes:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_homes[name]}", __name__), name)
