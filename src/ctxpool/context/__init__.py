"""What an agent remembers: windows of messages under a budget, what becomes of those
that no longer fit, and memories that are found again. Each loaded when it is first
asked for."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .auto_index import AutoIndex, AutoIndexStats, load_index
    from .compression import AdaptiveCompressor, Compressed
    from .counting import MessageCounter
    from .embedders import CachedEmbedder, CallableEmbedder, SentenceEmbedder
    from .embedding import Embedder, HashedEmbedder
    from .episodes import Consolidation, Episode, EpisodicStats, Recollection
    from .episodic import EpisodicMemory
    from .extract import Extract, Span
    from .formats import from_anthropic, from_openai, to_anthropic, to_openai
    from .graph import HNSWIndex
    from .group_value import GroupValue
    from .hits import Hit, RecallReport, Record, RetrieverStats
    from .importance import ImportanceModel
    from .langchain import from_langchain, to_langchain
    from .memories import HierarchicalMemoryStats, Memory, MemoryContext
    from .memory import HierarchicalMemory
    from .messages import Group, Message, ToolCall
    from .mmr import maximal_marginal_relevance
    from .overflow import OverflowChain, OverflowStrategy
    from .overflow_draft import OverflowDraft
    from .overflow_report import (
        OverflowAction,
        OverflowProblem,
        OverflowReport,
        OverflowResult,
    )
    from .overflow_strategies import Compress, Evict, Spill
    from .prefix import PrefixAllocation, PrefixBlockManager, PrefixEvent, PrefixGrowth
    from .prompt_cache import BreakCost, CachedPrompt, CachePrices, PromptCache
    from .relations import Entity, Neighbour, Relation, SemanticStats
    from .retrieval import ContextRetriever
    from .scoring import FEATURES, ScoredPieces
    from .semantic import SemanticMemory
    from .sentences import Piece
    from .spill import Spilled, SpillStore
    from .statements import Fact, Mention, extract_facts
    from .summarise import Summarise
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
    "FEATURES",
    "AdaptiveCompressor",
    "AutoIndex",
    "AutoIndexStats",
    "BreakCost",
    "BytePairTokenizer",
    "CachePrices",
    "CachedEmbedder",
    "CachedPrompt",
    "CallableEmbedder",
    "Compress",
    "Compressed",
    "Consolidation",
    "ContextRetriever",
    "ContextWindow",
    "Embedder",
    "Entity",
    "Episode",
    "EpisodicMemory",
    "EpisodicStats",
    "Evict",
    "Extract",
    "Fact",
    "FlatIndex",
    "Group",
    "GroupValue",
    "HNSWIndex",
    "HashedEmbedder",
    "HeuristicTokenizer",
    "HierarchicalMemory",
    "HierarchicalMemoryStats",
    "Hit",
    "ImportanceModel",
    "Memory",
    "MemoryContext",
    "Mention",
    "Message",
    "MessageCounter",
    "Neighbour",
    "OverflowAction",
    "OverflowChain",
    "OverflowDraft",
    "OverflowProblem",
    "OverflowReport",
    "OverflowResult",
    "OverflowStrategy",
    "Piece",
    "PrefixAllocation",
    "PrefixBlockManager",
    "PrefixEvent",
    "PrefixGrowth",
    "PromptCache",
    "RecallReport",
    "Recollection",
    "Record",
    "Relation",
    "RetrieverStats",
    "ScoredPieces",
    "SemanticMemory",
    "SemanticStats",
    "SentenceEmbedder",
    "Span",
    "Spill",
    "SpillStore",
    "Spilled",
    "Summarise",
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
    "FEATURES": "scoring",
    "AdaptiveCompressor": "compression",
    "AutoIndex": "auto_index",
    "AutoIndexStats": "auto_index",
    "BreakCost": "prompt_cache",
    "BytePairTokenizer": "tokens",
    "CachePrices": "prompt_cache",
    "CachedEmbedder": "embedders",
    "CachedPrompt": "prompt_cache",
    "CallableEmbedder": "embedders",
    "Compress": "overflow_strategies",
    "Compressed": "compression",
    "Consolidation": "episodes",
    "ContextRetriever": "retrieval",
    "ContextWindow": "window",
    "Embedder": "embedding",
    "Entity": "relations",
    "Episode": "episodes",
    "EpisodicMemory": "episodic",
    "EpisodicStats": "episodes",
    "Evict": "overflow_strategies",
    "Extract": "extract",
    "Fact": "statements",
    "FlatIndex": "vectors",
    "Group": "messages",
    "GroupValue": "group_value",
    "HNSWIndex": "graph",
    "HashedEmbedder": "embedding",
    "HeuristicTokenizer": "tokens",
    "HierarchicalMemory": "memory",
    "HierarchicalMemoryStats": "memories",
    "Hit": "hits",
    "ImportanceModel": "importance",
    "Memory": "memories",
    "MemoryContext": "memories",
    "Mention": "statements",
    "Message": "messages",
    "MessageCounter": "counting",
    "Neighbour": "relations",
    "OverflowAction": "overflow_report",
    "OverflowChain": "overflow",
    "OverflowDraft": "overflow_draft",
    "OverflowProblem": "overflow_report",
    "OverflowReport": "overflow_report",
    "OverflowResult": "overflow_report",
    "OverflowStrategy": "overflow",
    "Piece": "sentences",
    "PrefixAllocation": "prefix",
    "PrefixBlockManager": "prefix",
    "PrefixEvent": "prefix",
    "PrefixGrowth": "prefix",
    "PromptCache": "prompt_cache",
    "RecallReport": "hits",
    "Recollection": "episodes",
    "Record": "hits",
    "Relation": "relations",
    "RetrieverStats": "hits",
    "ScoredPieces": "scoring",
    "SemanticMemory": "semantic",
    "SemanticStats": "relations",
    "SentenceEmbedder": "embedders",
    "Span": "extract",
    "Spill": "overflow_strategies",
    "SpillStore": "spill",
    "Spilled": "spill",
    "Summarise": "summarise",
    "TiktokenTokenizer": "tokens",
    "TokenCounter": "tokens",
    "Tokenizer": "tokens",
    "ToolCall": "messages",
    "VectorIndex": "vectors",
    "extract_facts": "statements",
    "from_anthropic": "formats",
    "from_langchain": "langchain",
    "from_openai": "formats",
    "load_index": "auto_index",
    "load_tokenizer": "tokens",
    "maximal_marginal_relevance": "mmr",
    "to_anthropic": "formats",
    "to_langchain": "langchain",
    "to_openai": "formats",
}


def __getattr__(name: str) -> Any:
    if name not in _homes:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_homes[name]}", __name__), name)
