"""How many tokens a text has."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

__all__ = ["Tokenizer"]


@runtime_checkable
class Tokenizer(Protocol):
    """Turns text into token ids. Any object with these two methods is one."""

    def encode(self, text: str) -> Sequence[int]:
        """The token ids of *text*."""

    def count(self, text: str) -> int:
        """How many tokens *text* has, ``len(encode(text))``."""
