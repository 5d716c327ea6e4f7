"""What an agent remembers: windows of messages under a budget, what becomes of those
that no longer fit, and memories that are found again. Each loaded when it is first
asked for."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .auto_index import AutoIndex, AutoIndexStats, load_index
    from .counting import MessageCounter
    from .embedders import CachedEmbedder, CallableEmbedder, SentenceEmbedder
    from .embedding import Embedder, HashedEmbedder
    from .episodes import Consolidation, Episode, EpisodicStats, Recollection
    from .episodic import EpisodicMemory
    from .facts import Fact, Mention, extract_facts
    from .formats import from_anthropic, from_openai, to_anthropic, to_openai
    from .graph import HNSWIndex
    from .hits import Hit, RecallReport, Record, RetrieverStats
    from .langchain import from_langchain, to_langchain
    from .memories import HierarchicalMemoryStats, Memory, MemoryContext
    from .memory import HierarchicalMemory
    from .messages import Group, Message, ToolCall
    from .mmr import maximal_marginal_relevance
    from .prompt_cache import BreakCost, CachedPrompt, CachePrices, PromptCache
    from .relations import Entity, Neighbour, Relation, SemanticStats
    from .retrieval import ContextRetriever
    from .semantic import SemanticMemory
    from .tokens import (
        BytePairTokenizer,
        HeuristicTokenizer,
        TiktokenTokenizer,
        TokenCounter,
        Tokenizer,
        load_tokenizer,
    )
    from .vectors import FlatIndex, VectorIndex
    from .window import ContextWindow

__all__ = [
    "AutoIndex",
    "AutoIndexStats",
    "BreakCost",
    "BytePairTokenizer",
    "CachePrices",
    "CachedEmbedder",
    "CachedPrompt",
    "CallableEmbedder",
    "Consolidation",
    "ContextRetriever",
    "ContextWindow",
    "Embedder",
    "Entity",
    "Episode",
    "EpisodicMemory",
    "EpisodicStats",
    "Fact",
    "FlatIndex",
    "Group",
    "HNSWIndex",
    "HashedEmbedder",
    "HeuristicTokenizer",
    "HierarchicalMemory",
    "HierarchicalMemoryStats",
    "Hit",
    "Memory",
    "MemoryContext",
    "Mention",
    "Message",
    "MessageCounter",
    "Neighbour",
    "PromptCache",
    "RecallReport",
    "Recollection",
    "Record",
    "Relation",
    "RetrieverStats",
    "SemanticMemory",
    "SemanticStats",
    "SentenceEmbedder",
    "TiktokenTokenizer",
    "TokenCounter",
    "Tokenizer",
    "ToolCall",
    "VectorIndex",
    "extract_facts",
    "from_anthropic",
    "from_langchain",
    "from_openai",
    "load_index",
    "load_tokenizer",
    "maximal_marginal_relevance",
    "to_anthropic",
    "to_langchain",
    "to_openai",
]
_homes = {
    "AutoIndex": "auto_index",
    "AutoIndexStats": "auto_index",
    "load_index": "auto_index",
    "MessageCounter": "counting",
    "CachedEmbedder": "embedders",
    "CallableEmbedder": "embedders",
    "SentenceEmbedder": "embedders",
    "Embedder": "embedding",
    "HashedEmbedder": "embedding",
    "Consolidation": "episodes",
    "Episode": "episodes",
    "EpisodicStats": "episodes",
    "Recollection": "episodes",
    "EpisodicMemory": "episodic",
    "Fact": "facts",
    "Mention": "facts",
    "extract_facts": "facts",
    "from_anthropic": "formats",
    "from_openai": "formats",
    "to_anthropic": "formats",
    "to_openai": "formats",
    "HNSWIndex": "graph",
    "Hit": "hits",
    "RecallReport": "hits",
    "Record": "hits",
    "RetrieverStats": "hits",
    "from_langchain": "langchain",
    "to_langchain": "langchain",
    "HierarchicalMemoryStats": "memories",
    "Memory": "memories",
    "MemoryContext": "memories",
    "HierarchicalMemory": "memory",
    "Group": "messages",
    "Message": "messages",
    "ToolCall": "messages",
    "maximal_marginal_relevance": "mmr",
    "BreakCost": "prompt_cache",
    "CachePrices": "prompt_cache",
    "CachedPrompt": "prompt_cache",
    "PromptCache": "prompt_cache",
    "Entity": "relations",
    "Neighbour": "relations",
    "Relation": "relations",
    "SemanticStats": "relations",
    "ContextRetriever": "retrieval",
    "SemanticMemory": "semantic",
    "BytePairTokenizer": "tokens",
    "HeuristicTokenizer": "tokens",
    "TiktokenTokenizer": "tokens",
    "TokenCounter": "tokens",
    "Tokenizer": "tokens",
    "load_tokenizer": "tokens",
    "FlatIndex": "vectors",
    "VectorIndex": "vectors",
    "ContextWindow": "window",
}


def __getattr__(name: str) -> Any:
    if name not in _homes:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_homes[name]}", __name__), name)
