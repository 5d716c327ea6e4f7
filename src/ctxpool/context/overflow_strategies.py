"""What makes a window smaller: Compress, Evict, Spill. (Summarise has its own file.)"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from .. import LRUCache, _arguments
from .extract import extract
from .group_value import GroupValue, later_uses
from .messages import Group, Message
from .overflow_draft import OverflowDraft
from .spill import SpillStore

__all__ = ["Compress", "Evict", "Spill", "optional_callable", "share", "shortened"]


def share(name: str, value: Any) -> float:
    """*value*, a part of a whole."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, not {value!r}")
    if not 0 < value <= 1:
        raise ValueError(f"{name} must be more than 0 and at most 1, not {value!r}")
    return float(value)


def optional_callable(name: str, value: Any) -> Any:
    """*value*, a callable or None."""
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be a callable, not {value!r}")
    return value


def shortened(
    compressor: Callable[[str, int], str] | None, text: str, tokens: int, of: int
) -> str:
    """*text*, which has *of* tokens, in about *tokens* of them."""
    if compressor is None:
        # By the ratio: the window's tokens are not those that it would count.
        return extract(text, ratio=min(tokens / of, 1.0)).text
    found = compressor(text, tokens)
    if not isinstance(found, str):
        raise TypeError(f"a compressor must return text, not {found!r}")
    return found


def _own_tokens(draft: OverflowDraft, message: Message) -> int:
    """Tokens of the content, without what else the message has."""
    if not message.tool_calls and not message.parts:
        return draft.count(message)
    return draft.count(dataclasses.replace(message, tool_calls=(), parts=()))


def _key(message: Message) -> tuple[str, int]:
    return message.id, hash(message.content)


def _exchanged(group: Group, old: Message, new: Message) -> list[Message]:
    return [new if message is old else message for message in group.messages]


class Compress:
    """Shortens single messages, the long and old ones first.

    A message is compressed once; the tool calls and parts that it has stay.

    Parameters
    ----------
    compressor : callable, optional
        ``(text, tokens) -> text``, of about so many tokens. What is no shorter is not
        used. By default the text's own most telling sentences.
    to : float
        Part of the budget to come down to.
    ratio : float
        Part of a message's tokens that shall be left.
    min_tokens : int
        A message of fewer stays as it is.
    keep : int
        The newest groups, which stay as they are.

    Notes
    -----
    The order is that of (tokens saved, as characters) x age in groups. O(n log n) in
    the messages, and a call of *compressor* for each until it is enough.

    **Thread-safety.** Any number of chains may use it at once.
    """

    name = "compress"

    def __init__(
        self,
        compressor: Callable[[str, int], str] | None = None,
        *,
        to: float = 0.7,
        ratio: float = 0.4,
        min_tokens: int = 64,
        keep: int = 4,
    ) -> None:
        self.compressor = optional_callable("compressor", compressor)
        self.to = share("to", to)
        self.ratio = share("ratio", ratio)
        self.min_tokens = _arguments.count("min_tokens", min_tokens, 1, 2**31)
        self.keep = _arguments.count("keep", keep, 0, 2**31)
        # What didn't get shorter is not tried at each overflow.
        self._in_vain: LRUCache[Any, bool] = LRUCache(4096)

    def __repr__(self) -> str:
        return f"Compress(to={self.to}, ratio={self.ratio})"

    def apply(self, draft: OverflowDraft) -> None:
        """Compress until the draft has its target."""
        found = sorted(
            (len(message.content) * (len(draft) - i), -i, -j)
            for i in draft.free(self.keep)
            for j, message in enumerate(draft[i].messages)
            if len(message.content) >= self.min_tokens and not message.sources
        )
        while found and draft.excess > 0:
            # As many as should be enough: the store takes them in one transaction.
            some, expected = [], 0.0
            while found and expected < draft.excess:
                _, i, j = found.pop()
                message = draft[-i].messages[-j]
                tokens = _own_tokens(draft, message)
                if tokens >= self.min_tokens and _key(message) not in self._in_vain:
                    some.append((-i, -j, tokens))
                    expected += tokens * (1 - self.ratio)
            draft.save([draft[i].messages[j] for i, j, _ in some])
            for i, j, tokens in some:
                if draft.excess > 0:
                    self._shorten(draft, i, j, tokens)

    def _shorten(self, draft: OverflowDraft, i: int, j: int, tokens: int) -> None:
        old = draft[i].messages[j]
        wanted = max(int(tokens * self.ratio), 1)
        text = shortened(self.compressor, old.content, wanted, tokens)
        new = draft.derived(dataclasses.replace(old, content=text), [old])
        if text.strip() and draft.count(new) < draft.count(old):
            draft.replace(i, i + 1, _exchanged(draft[i], old, new))
        else:
            self._in_vain[_key(old)] = True


class Evict:
    """Drops whole groups, the least valuable first.

    Parameters
    ----------
    value : callable, optional
        ``(group, age, uses) -> float``: *age* counts the newer groups, *uses* those of
        them that name an identifier of this one. By default a :class:`GroupValue`.
    to : float
        Part of the budget to come down to.
    keep : int
        The newest groups, which stay whatever they are worth.

    Notes
    -----
    Of two of the same value the older one goes. O(n log n) in the groups; the
    identifiers of a message are found once.

    **Thread-safety.** Any number of chains may use it at once.
    """

    name = "evict"

    def __init__(
        self,
        value: Callable[[Group, int, int], float] | None = None,
        *,
        to: float = 0.8,
        keep: int = 2,
    ) -> None:
        self.value = optional_callable("value", value) or GroupValue()
        self.to = share("to", to)
        self.keep = _arguments.count("keep", keep, 0, 2**31)

    def __repr__(self) -> str:
        return f"Evict(to={self.to}, keep={self.keep})"

    def apply(self, draft: OverflowDraft) -> None:
        """Drop groups until the draft has its target."""
        uses = later_uses(list(draft))
        worth: list[tuple[float, int]] = []
        for i in draft.free(self.keep):
            value = self.value(draft[i], len(draft) - 1 - i, uses[i])
            if isinstance(value, bool) or not hasattr(value, "__float__"):
                raise TypeError(f"a group's value must be a number, not {value!r}")
            if math.isnan(number := float(value)):
                raise ValueError(f"a group's value must be a number, not {value!r}")
            worth.append((number, i))
        gone, excess = [], draft.excess
        for _, i in sorted(worth):
            if excess <= 0:
                break
            gone.append(i)
            excess -= draft[i].tokens
        draft.drop(gone)


class Spill:
    """Moves what is left over to a store, long texts first; the last resort.

    The content of a long message goes, and its beginning stays, with the id to ask the
    store for: tool calls keep their results. If that is not enough, whole groups go,
    oldest first, the newest one only if the window had more than its budget else.

    A chain with a Spill also puts there, first, whatever the other strategies change.

    Parameters
    ----------
    store : SpillStore
        Where to.
    to : float
        Part of the budget to come down to.
    min_tokens : int
        Of a long message.
    preview : int
        About how many tokens of it stay.
    """

    name = "spill"

    def __init__(
        self,
        store: SpillStore,
        *,
        to: float = 0.8,
        min_tokens: int = 256,
        preview: int = 64,
    ) -> None:
        if not isinstance(store, SpillStore):
            raise TypeError(f"store must be a SpillStore, not {store!r}")
        self.store = store
        self.to = share("to", to)
        self.min_tokens = _arguments.count("min_tokens", min_tokens, 2, 2**31)
        # A stub must not be long itself, or it would be spilled again.
        self.preview = _arguments.count("preview", preview, 0, self.min_tokens // 2)

    def __repr__(self) -> str:
        return f"Spill({self.store!r}, to={self.to})"

    def apply(self, draft: OverflowDraft) -> None:
        """Spill until the draft has its target."""
        long = [
            (tokens, -i, -j)
            for i in draft.free()
            for j, message in enumerate(draft[i].messages)
            if len(message.content) >= self.min_tokens
            and len(message.sources) <= 1
            and (tokens := _own_tokens(draft, message)) >= self.min_tokens
        ]
        for tokens, i, j in sorted(long, reverse=True):
            if draft.excess <= 0:
                return
            self._shorten(draft, -i, -j, tokens)
        self._drop(draft)

    def _shorten(self, draft: OverflowDraft, i: int, j: int, tokens: int) -> None:
        old = draft[i].messages[j]
        kept = old.content[: len(old.content) * self.preview // tokens]
        (source,) = old.sources or (old.id,)
        text = f"[{tokens:,} tokens are kept outside, as {source}]"
        if kept:
            text += f" It begins:\n{kept}"
        new = draft.derived(dataclasses.replace(old, content=text), [old])
        if draft.count(new) < draft.count(old):
            draft.replace(i, i + 1, _exchanged(draft[i], old, new))

    def _drop(self, draft: OverflowDraft) -> None:
        gone, excess = [], draft.excess
        for i in draft.free():
            newest = i == len(draft) - 1
            if excess <= (draft.budget - draft.target if newest else 0):
                break
            gone.append(i)
            excess -= draft[i].tokens
        draft.drop(gone)
