"""What a provider's prompt cache serves of a conversation, and what breaking it costs.

Providers keep the beginning of a prompt for some minutes. A prompt that begins with the
same tokens as the one before pays little for these; whatever follows the first change
is paid for in full. So a window that drops its oldest message each turn pays for nearly
everything each time, and one that drops many now and then hardly ever does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from .._arguments import count
from .._pure.locks import new_lock
from ..stats import _Record
from .counting import MessageCounter
from .messages import Message

__all__ = ["BreakCost", "CachePrices", "CachedPrompt", "PromptCache"]


@dataclass(frozen=True, slots=True)
class BreakCost(_Record):
    """What it costs to drop a part of a prompt that is cached.

    Attributes
    ----------
    cost : float
        Of writing what follows the change anew, beyond what reading it would cost.
    saving : float
        What each request costs less from then on.
    requests : float
        After how many requests the saving has paid for the cost; infinite if never.
    """

    cost: float
    saving: float
    requests: float


@dataclass(frozen=True, slots=True)
class CachePrices:
    """What a provider asks for a token of a prompt, and when it is served from a cache.

    Parameters
    ----------
    input : float
        For a token, in any currency; by default 1, and the others are shares of it.
    read : float
        For one that comes from the cache.
    write : float
        For one that goes into the cache.
    minimum : int
        Tokens that a prefix must have to be cached.
    step : int
        Prefixes are cached in multiples of so many tokens.
    ttl : float, optional
        Seconds for which a prefix is kept after it was last used; None without end.

    Notes
    -----
    The defaults are Anthropic's ratios: a read costs a tenth, a write a quarter more.
    Where writing costs nothing extra, ``write`` is ``input``.

    Examples
    --------
    >>> prices = CachePrices(input=3e-6, read=0.3e-6, write=3.75e-6)
    >>> prices.breaking(dropped=4_000, rewritten=11_000).requests
    31.625
    """

    input: float = 1.0
    read: float = 0.1
    write: float = 1.25
    minimum: int = 1024
    step: int = 1
    ttl: float | None = 300.0

    def __post_init__(self) -> None:
        for name in ("input", "read", "write", "ttl"):
            value = getattr(self, name)
            if name == "ttl" and value is None:
                continue
            if not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise ValueError(f"{name} must not be negative, not {value!r}")
        count("minimum", self.minimum, 0, 2**62)
        count("step", self.step, 1, 2**62)

    def cached(self, prefix: int) -> int:
        """How many tokens of a prefix that was sent before come from the cache."""
        return 0 if prefix < self.minimum else prefix - prefix % self.step

    def breaking(self, dropped: int, rewritten: int) -> BreakCost:
        """What dropping *dropped* tokens costs, where *rewritten* tokens follow them
        that are cached, too, and will have to be sent anew.

        What comes before stays cached, and matters not.
        """
        count("dropped", dropped, 0, 2**62)
        count("rewritten", rewritten, 0, 2**62)
        cost = rewritten * (self.write - self.read)
        saving = dropped * self.read
        return BreakCost(cost, saving, cost / saving if saving else math.inf)


@dataclass(frozen=True, slots=True)
class CachedPrompt(_Record):
    """One prompt, or many of them together.

    Attributes
    ----------
    prompts : int
        How many.
    tokens : int
        Of all.
    stable : int
        Tokens at the front that were the same as in the prompt before.
    cached : int
        Tokens that come from the cache.
    cost : float
        At the prices of the model: reading those, and writing the others.
    uncached_cost : float
        Had there been no cache.
    share : float
        Of the tokens, those that come from the cache; 0 to 1.
    """

    prompts: int = 0
    tokens: int = 0
    stable: int = 0
    cached: int = 0
    cost: float = 0.0
    uncached_cost: float = 0.0

    @property
    def share(self) -> float:
        return self.cached / self.tokens if self.tokens else 0.0

    def __add__(self, other: CachedPrompt) -> CachedPrompt:
        if not isinstance(other, CachedPrompt):
            return NotImplemented
        mine, more = self.as_dict().values(), other.as_dict().values()
        return CachedPrompt(*(a + b for a, b in zip(mine, more, strict=True)))


class PromptCache:
    """A model of a provider's cache: what it serves of prompts sent one after another.

    Parameters
    ----------
    prices : CachePrices, optional
    counter : MessageCounter, optional
        Counts the tokens; that of a window, say.

    Notes
    -----
    A prompt is compared with the one before, message by message; O(n).

    **Thread-safety**: each call is atomic.

    Examples
    --------
    >>> cache = PromptCache(CachePrices(minimum=0))
    >>> messages = [Message("user", "How far is the moon?")]
    >>> cache.send(messages).cached
    0
    >>> messages += [Message("assistant", "384,400 km"), Message("user", "The sun?")]
    >>> prompt = cache.send(messages)
    >>> prompt.tokens, prompt.cached
    (25, 10)
    """

    def __init__(
        self,
        prices: CachePrices | None = None,
        counter: MessageCounter | None = None,
    ) -> None:
        if prices is not None and not isinstance(prices, CachePrices):
            raise TypeError(f"prices must be CachePrices, not {prices!r}")
        if counter is not None and not isinstance(counter, MessageCounter):
            raise TypeError(f"counter must be a MessageCounter, not {counter!r}")
        self.prices = prices or CachePrices()
        self.counter = counter or MessageCounter()
        self._lock = new_lock()
        self._messages: list[Message] = []
        self._sent = -math.inf
        self._total = CachedPrompt()

    def send(self, messages: Iterable[Message], now: float = 0.0) -> CachedPrompt:
        """What the cache serves of this prompt; it is the one before from now on.

        Parameters
        ----------
        messages : iterable of Message
        now : float
            When it is sent, in seconds on any clock: for the prices' ``ttl``.
        """
        new, prices = list(messages), self.prices
        sums = list(accumulate(map(self.counter, new), initial=0))
        with self._lock:
            same = _in_common(self._messages, new)
            late = prices.ttl is not None and now - self._sent > prices.ttl
            stable = sums[same]
            cached = 0 if late else prices.cached(stable)
            tokens = sums[-1]
            prompt = CachedPrompt(
                1,
                tokens,
                stable,
                cached,
                cached * prices.read + (tokens - cached) * prices.write,
                tokens * prices.input,
            )
            self._messages, self._sent = new, now
            self._total += prompt
            return prompt

    def stats(self) -> CachedPrompt:
        """All prompts together."""
        with self._lock:
            return self._total

    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            return {k: v for k, v in vars(self).items() if k != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._lock = new_lock()


def _in_common(old: list[Message], new: list[Message]) -> int:
    """How many messages at the front are the same."""
    same = 0
    for a, b in zip(old, new, strict=False):
        if a is not b and not _sent_alike(a, b):
            break
        same += 1
    return same


def _sent_alike(a: Message, b: Message) -> bool:
    """Whether a provider gets the same of both: their sources are not sent."""
    return (a.role, a.content, a.tool_calls, a.tool_call_id, a.name, a.parts) == (
        b.role,
        b.content,
        b.tool_calls,
        b.tool_call_id,
        b.name,
        b.parts,
    )
