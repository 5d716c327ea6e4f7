"""What a message costs: its text, and what providers add to it."""

from collections.abc import Callable, Mapping
from typing import Any, SupportsIndex

from .._arguments import count
from .messages import Message
from .tokens import TokenCounter, Tokenizer, whole

__all__ = ["MEDIA_TOKENS", "MessageCounter"]

# What a large image costs after a provider has scaled it down; a small one is less.
MEDIA_TOKENS = 1600
_TEXTS = ("text", "thinking", "title", "context", "refusal")


class MessageCounter:
    """``counter(message)``: the tokens of a message, its text counted once.

    Parameters
    ----------
    tokenizer : Tokenizer, str or TokenCounter, optional
        As for :class:`TokenCounter`; one of those is shared.
    per_message : int
        Tokens that a message costs beside its text: its role, where it begins and ends.
    per_call : int
        Tokens that a tool call costs beside its name and arguments.
    part_tokens : callable, optional
        ``part_tokens(part)``: the tokens of a part that is no text, such as an image,
        which depend on provider, model and size. Without it the texts in a part are
        counted, and whatever has no text costs 1,600, as a large image does.

    Notes
    -----
    **Thread-safety**: as :class:`TokenCounter`.

    Examples
    --------
    >>> counter = MessageCounter()
    >>> counter(Message("user", "Hello, world!"))
    8
    """

    __slots__ = ("_call", "_message", "_part", "texts")

    def __init__(
        self,
        tokenizer: Tokenizer | TokenCounter | str | None = None,
        *,
        per_message: SupportsIndex = 4,
        per_call: SupportsIndex = 8,
        part_tokens: Callable[[Mapping[str, Any]], int] | None = None,
    ) -> None:
        if not isinstance(tokenizer, TokenCounter):
            tokenizer = TokenCounter(tokenizer)
        if part_tokens is not None and not callable(part_tokens):
            raise TypeError(f"part_tokens must be callable, not {part_tokens!r}")
        self.texts = tokenizer
        self._message = count("per_message", per_message, 0, 1 << 20)
        self._call = count("per_call", per_call, 0, 1 << 20)
        self._part = part_tokens

    def __call__(self, message: Message) -> int:
        """The tokens of *message*."""
        if not isinstance(message, Message):
            raise TypeError(f"a Message is needed, not {message!r}")
        texts = self.texts
        tokens = self._message
        if message.content:
            tokens += texts(message.content)
        if message.name:
            tokens += texts(message.name)
        for call in message.tool_calls:
            tokens += self._call + texts(call.name) + texts(call.arguments)
        for part in message.parts:
            tokens += self._of_part(part)
        return tokens

    def _of_part(self, part: Mapping[str, Any]) -> int:
        if not isinstance(part, Mapping):
            raise TypeError(f"a part of a message must be a dict, not {part!r}")
        if self._part is not None:
            return whole(self._part(part), "part_tokens returned {!r}")
        found = [part[key] for key in _TEXTS if isinstance(part.get(key), str)]
        return sum(map(self.texts, found)) if found else MEDIA_TOKENS

    def __reduce__(self) -> tuple[Any, ...]:
        return _counter, (self.texts, self._message, self._call, self._part)


def _counter(texts: TokenCounter, message: int, call: int, part: Any) -> MessageCounter:
    return MessageCounter(texts, per_message=message, per_call=call, part_tokens=part)
