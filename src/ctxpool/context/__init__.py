"""What an agent remembers: windows of messages under a budget, what becomes of those
that no longer fit, and memories that are found again. Each loaded when it is first
asked for."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .auto_index import AutoIndex, AutoIndexStats, load_index
    from .embedders import CachedEmbedder, CallableEmbedder, SentenceEmbedder
    from .embedding import Embedder, HashedEmbedder
    from .graph import HNSWIndex
    from .hits import Hit, RecallReport, Record, RetrieverStats
    from .messages import Group, Message, ToolCall
    from .mmr import maximal_marginal_relevance
    from .retrieval import ContextRetriever
    from .tokens import Tokenizer
    from .vectors import FlatIndex, VectorIndex

__all__ = [
    "AutoIndex",
    "AutoIndexStats",
    "CachedEmbedder",
    "CallableEmbedder",
    "ContextRetriever",
    "Embedder",
    "FlatIndex",
    "Group",
    "HNSWIndex",
    "HashedEmbedder",
    "Hit",
    "Message",
    "RecallReport",
    "Record",
    "RetrieverStats",
    "SentenceEmbedder",
    "Tokenizer",
    "ToolCall",
    "VectorIndex",
    "load_index",
    "maximal_marginal_relevance",
]
_homes = {
    "ContextRetriever": "retrieval",
    "Hit": "hits",
    "RecallReport": "hits",
    "Record": "hits",
    "RetrieverStats": "hits",
    "maximal_marginal_relevance": "mmr",
    "AutoIndex": "auto_index",
    "AutoIndexStats": "auto_index",
    "CachedEmbedder": "embedders",
    "CallableEmbedder": "embedders",
    "Embedder": "embedding",
    "FlatIndex": "vectors",
    "HNSWIndex": "graph",
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
