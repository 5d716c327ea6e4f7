"""What an agent remembers: windows of messages under a budget, what becomes of those
that no longer fit, and memories that are found again. Each loaded when it is first
asked for."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .counting import MessageCounter
    from .formats import from_anthropic, from_openai, to_anthropic, to_openai
    from .langchain import from_langchain, to_langchain
    from .messages import Group, Message, ToolCall
    from .prompt_cache import BreakCost, CachedPrompt, CachePrices, PromptCache
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
    "BreakCost",
    "BytePairTokenizer",
    "CachePrices",
    "CachedPrompt",
    "ContextWindow",
    "Group",
    "HeuristicTokenizer",
    "Message",
    "MessageCounter",
    "PromptCache",
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
    "ContextWindow": "window",
    "Group": "messages",
    "Message": "messages",
    "ToolCall": "messages",
    "BreakCost": "prompt_cache",
    "BytePairTokenizer": "tokens",
    "CachePrices": "prompt_cache",
    "CachedPrompt": "prompt_cache",
    "HeuristicTokenizer": "tokens",
    "MessageCounter": "counting",
    "PromptCache": "prompt_cache",
    "TiktokenTokenizer": "tokens",
    "TokenCounter": "tokens",
    "Tokenizer": "tokens",
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
