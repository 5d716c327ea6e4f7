"""One message into all tiers of a memory, or into none."""

import contextlib
from collections.abc import Callable

from .. import _arguments
from ..errors import StoreError
from ._working import Working
from .episodic import EpisodicMemory
from .messages import Message
from .relations import Relation
from .semantic import SemanticMemory
from .statements import Fact, Mention

__all__ = ["SPEAKERS", "Intake", "encodable", "importance_of"]

SPEAKERS = ("user", "assistant")  # whose words say what is so; a tool's are output


def importance_of(message: Message, facts: int) -> float:
    """Half, and more for what states facts; a tool's output can be had again."""
    return 0.3 if message.role == "tool" else min(0.5 + 0.1 * facts, 0.9)


def encodable(text: str) -> str:
    """*text* with "?" for lone surrogates, which no file can hold."""
    return text.encode("utf-8", "replace").decode()


class Intake:
    """Stores messages: callbacks first, then what lasts, then the window. What was done
    before an error is undone."""

    def __init__(
        self,
        semantic: SemanticMemory,
        episodic: EpisodicMemory,
        window: Working,
        rate: Callable[[Message, int], float],
    ) -> None:
        self._semantic, self._episodic, self._window = semantic, episodic, window
        self._rate = rate

    def found(self, message: Message) -> list[Fact | Mention]:
        """What the extractor finds in it."""
        if message.role not in SPEAKERS or not message.content.strip():
            return []
        text, speaker = encodable(message.content), message.name or message.role
        return self._semantic.extract(text, encodable(speaker))

    def _rated(
        self,
        message: Message,
        found: list[Fact | Mention],
        importance: float | None,
    ) -> float:
        if importance is None:
            importance = self._rate(message, sum(isinstance(f, Fact) for f in found))
        return _arguments.fraction("importance", importance)

    def take_in(
        self,
        message: Message,
        found: list[Fact | Mention],
        now: float,
        importance: float | None,
        pinned: bool,
    ) -> tuple[Relation, ...]:
        """Store it in all tiers; what it says."""
        learnt: tuple[Relation, ...]
        if message.role == "system":  # no experience: for the window alone
            known, learnt = self._window.holds([message.id]), ()
        else:
            known, learnt = self.remember(message, found, now, importance)
        try:
            self._window.append(message, pinned=pinned)
        except BaseException:
            self._undo(message, known)
            if not known:
                with contextlib.suppress(StoreError):
                    self._window.forget([message.id])
            raise
        return learnt

    def remember(
        self,
        message: Message,
        found: list[Fact | Mention],
        now: float,
        importance: float | None,
    ) -> tuple[bool, tuple[Relation, ...]]:
        """Store it in the two tiers that last; whether it was known, what it says."""
        if not message.text.strip():
            return self._window.holds([message.id]), ()
        rated = self._rated(message, found, importance)
        known = message.id in self._episodic
        self._episodic.remember(
            encodable(message.text),
            role=message.role,
            id=message.id,
            importance=rated,
            metadata=message.metadata,
            sources=message.sources,
            at=now,
        )
        try:
            learnt = self._semantic.add_found(found, source=message.id, at=now)
        except BaseException:
            self._undo(message, known)
            raise
        return known, tuple(learnt)

    def _undo(self, message: Message, known: bool) -> None:
        """It was not taken in: take out what is of it alone, as far as that goes."""
        if known:
            return
        with contextlib.suppress(StoreError):
            episode = self._episodic.get(message.id)
            if episode is not None and episode.id == message.id:
                self._episodic.forget(message.id)
            self._semantic.forget(source=message.id)
