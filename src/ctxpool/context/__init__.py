"""What an agent remembers: windows of messages under a budget, what becomes of those
that no longer fit, and memories that are found again. Each loaded when it is first
asked for."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .auto_index import AutoIndex, AutoIndexStats, load_index
    from .embedders import CachedEmbedder, CallableEmbedder, SentenceEmbedder
    from .embedding import Embedder, HashedEmbedder
    from .messages import Group, Message, ToolCall
    from .tokens import Tokenizer
    from .vectors import FlatIndex, HNSWIndex, VectorIndex

__all__ = [
    "AutoIndex",
    "AutoIndexStats",
    "CachedEmbedder",
    "CallableEmbedder",
    "Embedder",
    "FlatIndex",
    "Group",
    "HNSWIndex",
    "HashedEmbedder",
    "Message",
    "SentenceEmbedder",
    "Tokenizer",
    "ToolCall",
    "VectorIndex",
    "load_index",
]
_homes = {
    "AutoIndex": "auto_index",
    "AutoIndexStats": "auto_index",
    "CachedEmbedder": "embedders",
    "CallableEmbedder": "embedders",
    "Embedder": "embedding",
    "FlatIndex": "vectors",
    "HNSWIndex": "vectors",
    "HashedEmbedder": "embedding",
    "VectorIndex": "vectors",
    "load_index": "auto_index",
    "Group": "messages",
    "Message": "messages",
    "ToolCall": "messages",
    "SentenceEmbedder": "embedders",
    "Tokenizer": "tokens",
}


def __getattr__(name: str) -> Any:
    if name not in _homes:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_homes[name]}", __name__), name)
