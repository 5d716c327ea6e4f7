"""What an agent remembers: windows of messages under a budget, what becomes of those
that no longer fit, and memories that are found again. Each loaded when it is first
asked for."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .compression import AdaptiveCompressor, Compressed
    from .counting import MessageCounter
    from .extract import Extract, Span
    from .formats import from_anthropic, from_openai, to_anthropic, to_openai
    from .group_value import GroupValue
    from .importance import ImportanceModel
    from .langchain import from_langchain, to_langchain
    from .messages import Group, Message, ToolCall
    from .overflow import OverflowChain, OverflowStrategy
    from .overflow_draft import OverflowDraft
    from .overflow_report import (
        OverflowAction,
        OverflowProblem,
        OverflowReport,
        OverflowResult,
    )
    from .overflow_strategies import Compress, Evict, Spill
    from .prompt_cache import BreakCost, CachedPrompt, CachePrices, PromptCache
    from .scoring import FEATURES, ScoredPieces
    from .sentences import Piece
    from .spill import Spilled, SpillStore
    from .summarise import Summarise
    from .tokens import (
        BytePairTokenizer,
        HeuristicTokenizer,
        TiktokenTokenizer,
        TokenCounter,
        Tokenizer,
        load_tokenizer,
    )
    from .window import ContextWindow

__all__ = [
    "FEATURES",
    "AdaptiveCompressor",
    "BreakCost",
    "BytePairTokenizer",
    "CachePrices",
    "CachedPrompt",
    "Compress",
    "Compressed",
    "ContextWindow",
    "Evict",
    "Extract",
    "Group",
    "GroupValue",
    "HeuristicTokenizer",
    "ImportanceModel",
    "Message",
    "MessageCounter",
    "OverflowAction",
    "OverflowChain",
    "OverflowDraft",
    "OverflowProblem",
    "OverflowReport",
    "OverflowResult",
    "OverflowStrategy",
    "Piece",
    "PromptCache",
    "ScoredPieces",
    "Span",
    "Spill",
    "SpillStore",
    "Spilled",
    "Summarise",
    "TiktokenTokenizer",
    "TokenCounter",
    "Tokenizer",
    "ToolCall",
    "from_anthropic",
    "from_langchain",
    "from_openai",
    "load_tokenizer",
    "to_anthropic",
    "to_langchain",
    "to_openai",
]
_homes = {
    "AdaptiveCompressor": "compression",
    "BreakCost": "prompt_cache",
    "BytePairTokenizer": "tokens",
    "CachePrices": "prompt_cache",
    "CachedPrompt": "prompt_cache",
    "Compress": "overflow_strategies",
    "Compressed": "compression",
    "ContextWindow": "window",
    "Evict": "overflow_strategies",
    "Extract": "extract",
    "FEATURES": "scoring",
    "Group": "messages",
    "GroupValue": "group_value",
    "HeuristicTokenizer": "tokens",
    "ImportanceModel": "importance",
    "Message": "messages",
    "MessageCounter": "counting",
    "OverflowAction": "overflow_report",
    "OverflowChain": "overflow",
    "OverflowDraft": "overflow_draft",
    "OverflowProblem": "overflow_report",
    "OverflowReport": "overflow_report",
    "OverflowResult": "overflow_report",
    "OverflowStrategy": "overflow",
    "Piece": "sentences",
    "PromptCache": "prompt_cache",
    "ScoredPieces": "scoring",
    "Span": "extract",
    "Spill": "overflow_strategies",
    "SpillStore": "spill",
    "Spilled": "spill",
    "Summarise": "summarise",
    "TiktokenTokenizer": "tokens",
    "TokenCounter": "tokens",
    "Tokenizer": "tokens",
    "ToolCall": "messages",
    "from_anthropic": "formats",
    "from_langchain": "langchain",
    "from_openai": "formats",
    "load_tokenizer": "tokens",
    "to_anthropic": "formats",
    "to_langchain": "langchain",
    "to_openai": "formats",
}


def __getattr__(name: str) -> Any:
    if name not in _homes:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_homes[name]}", __name__), name)
