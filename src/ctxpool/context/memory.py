"""A memory of three tiers: what is being said, what was said, and what is known."""

import math
import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Self, SupportsIndex

from .. import _arguments
from ..errors import StoreClosedError, StoreError
from ._async_memory import AsyncMemory
from ._closing import Closing
from ._connections import connected, related
from ._intake import SPEAKERS, Intake, encodable, importance_of
from ._memory_files import MemoryFiles
from ._reminder import made_context
from ._working import Working
from .counting import MessageCounter
from .embedding import Embedder, HashedEmbedder
from .episodes import Consolidation, Recollection
from .episodic import EpisodicMemory
from .memories import HierarchicalMemoryStats, Memory, MemoryContext
from .messages import Group, Message, Role
from .relations import Relation
from .semantic import SemanticMemory
from .statements import extract_facts
from .tokens import TokenCounter, Tokenizer
from .window import ContextWindow

__all__ = ["HierarchicalMemory"]


class HierarchicalMemory(Closing, AsyncMemory):
    """What an agent remembers, in one directory or in memory alone.

    *Working* memory is a :class:`ContextWindow` of the latest messages. *Episodic*
    memory (:class:`EpisodicMemory`) has all that was said, and finds it again by
    likeness, recency and importance. *Semantic* memory (:class:`SemanticMemory`) has
    entities and relations, each for the time in which it holds.

    Parameters
    ----------
    path : path, optional
        A directory, made where there is none; None: in memory until :meth:`save`.
    budget : int, optional
        Tokens of all that :meth:`process_input` returns; by default 8192, or what the
        directory was made with.
    recall_share : float, optional
        Share of the budget that is kept for what comes from episodic and semantic
        memory; by default a quarter.
    tokenizer : Tokenizer, str or TokenCounter, optional
        As for :class:`ContextWindow`.
    embedder : Embedder, optional
        As for :class:`EpisodicMemory`.
    extractor : callable
        As for :class:`SemanticMemory`.
    importance : callable
        ``importance(message, facts)``, from 0 to 1, of a message with so many facts.
    max_items, max_bytes : int or str, optional
        Of episodic memory.
    half_life : float
        Of episodic memory, in seconds.
    overflow, on_evict : optional
        Of the window. What is evicted from it is still in episodic memory.
    window : mapping, optional
        Other arguments of :class:`ContextWindow`, such as ``low_water``.
    reembed : bool
        Make new vectors where the directory has those of another embedder.
    recover : bool
        Set damaged files aside instead of refusing them: see :attr:`damaged`.
    durable : bool
        fsync at each write: a loss of power loses nothing, either.
    clock : callable
        The time now, in seconds since the epoch.

    Attributes
    ----------
    working : ContextWindow
    episodic : EpisodicMemory
    semantic : SemanticMemory
    damaged : dict
        With *recover*: the new name of each file that was set aside, and why. Facts
        are then taken from the episodes again, and the window's messages are put back
        into the episodes.

    Raises
    ------
    StoreError
        A file is damaged or of another embedder, or another process has the directory.

    Notes
    -----
    When a call returns, what it wrote survives ``kill -9``. Callbacks (tokenizer,
    embedder, extractor, importance, overflow) are called outside any lock. What one of
    them raises while a message is taken in reaches the caller, and the message is in no
    tier; only where the tokens of what it brings to mind can't be counted, it is.

    **Thread-safety**: calls may come from any thread. Each tier is changed atomically;
    the three one after the other. A forked child can't use a memory that has a
    directory: it is the parent's.

    Examples
    --------
    >>> with HierarchicalMemory(budget=500, clock=lambda: 0.0) as memory:
    ...     _ = memory.process_input("My name is Ada and I live in Lisbon.")
    ...     context = memory.process_input("Where do I live?")
    ...     [str(relation) for relation in context.connections]
    ['user lives in Lisbon', 'user name Ada']
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        budget: SupportsIndex | None = None,
        recall_share: float | None = None,
        tokenizer: Tokenizer | TokenCounter | str | None = None,
        embedder: Embedder | None = None,
        extractor: Callable[[str, str], Iterable[Any]] = extract_facts,
        importance: Callable[[Message, int], float] = importance_of,
        max_items: SupportsIndex | None = None,
        max_bytes: SupportsIndex | str | None = None,
        half_life: float = 7 * 86400.0,
        overflow: Any = None,
        on_evict: Callable[[list[Group]], object] | None = None,
        window: Mapping[str, Any] | None = None,
        reembed: bool = False,
        recover: bool = False,
        durable: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not callable(importance):
            raise TypeError(f"importance must be callable, not {importance!r}")
        self._clock = clock
        self._embedder: Embedder = HashedEmbedder() if embedder is None else embedder
        self._counter = MessageCounter(tokenizer)
        self._count = self._counter.texts
        self._pid = os.getpid()
        self._closed = False
        self._files = MemoryFiles(path, recover)
        try:
            made_with = self._files.settings
            if budget is None:
                budget = made_with.get("budget", 8192)
            if recall_share is None:
                recall_share = made_with.get("recall_share", 0.25)
            self.budget = _arguments.count("budget", budget, 1, 1 << 62)
            share = _arguments.fraction("recall_share", recall_share)
            self._recall_tokens = int(self.budget * share)
            self.semantic = self._files.open(
                "facts.db",
                lambda file: SemanticMemory(
                    file, extractor=extractor, durable=durable, clock=clock
                ),
            )
            self.episodic = self._files.open(
                "episodes.db",
                lambda file: EpisodicMemory(
                    file,
                    embedder=self._embedder,
                    max_items=max_items,
                    max_bytes=max_bytes,
                    half_life=half_life,
                    reembed=reembed,
                    durable=durable,
                    clock=clock,
                ),
            )
            self._window = self._files.open(
                "working.db",
                lambda file: Working(
                    self.budget - self._recall_tokens,
                    file if isinstance(file, Path) else None,
                    overflow=overflow,
                    on_evict=on_evict,
                    durable=durable,
                    tokenizer=self._counter,
                    **(window or {}),
                ),
            )
            self._intake = Intake(
                self.semantic, self.episodic, self._window, importance
            )
            self._mend()
            self._files.write_settings(
                budget=self.budget, recall_share=share, embedder=self._embedder.name
            )
        except BaseException:
            self._files.close()
            raise

    @classmethod
    def open(cls, path: str | os.PathLike[str], **settings: Any) -> Self:
        """The memory in a directory, with the budget that it was made with.

        Raises
        ------
        StoreError
            There is none; and as the class itself.
        """
        if not MemoryFiles.exists(path):
            raise StoreError(f"there is no memory in {os.fspath(path)!r}")
        return cls(path, **settings)

    def _mend(self) -> None:
        """Restore what another tier has of a file that was set aside."""
        if "episodes.db" in self.damaged:
            for message in self.working.messages():
                self._intake.remember(message, [], self._clock(), 0.5)
        if "facts.db" in self.damaged:
            for episode in self.episodic.episodes(limit=1 << 40):
                if episode.role in ("", *SPEAKERS):
                    speaker = episode.role or "user"
                    self.semantic.learn(
                        episode.text,
                        source=episode.id,
                        speaker=speaker,
                        at=episode.created,
                    )

    @property
    def working(self) -> ContextWindow:
        """The window. What is added to it directly is in no other tier."""
        return self._window.window

    @property
    def damaged(self) -> dict[str, str]:
        """Files that were set aside, and why."""
        return dict(self._files.damaged)

    # --- taking in -------------------------------------------------------------------

    def process_input(
        self,
        text: str | Message,
        role: Role = "user",
        *,
        k: SupportsIndex = 8,
        importance: float | None = None,
        metadata: Mapping[str, Any] | None = None,
        pinned: bool = False,
        at: float | None = None,
    ) -> MemoryContext:
        """Take in a message, and return what to send to a model: the window, and what
        was said earlier and is known that belongs to it.

        Parameters
        ----------
        text : str or Message
        role : {"user", "assistant", "system", "tool"}
            Of a text. System messages are for the window alone.
        k : int
            Episodes that are returned at most.
        importance : float, optional
            From 0 to 1; by default what the memory's *importance* says.
        metadata : mapping, optional
            Of a text; what JSON can hold.
        pinned : bool
            Never dropped from the window.
        at : float, optional
            When it is said; default now.

        Raises
        ------
        BudgetExceededError
            It is larger than the window. Nothing was changed.
        StoreError
            It can't be written. It is not remembered; the memory goes on answering.
        """
        self._check()
        message = self._message(text, role, metadata)
        k = _arguments.count("k", k, 0, 1 << 20)
        now = self._when(at)
        found = self._intake.found(message)
        said = encodable(message.text)
        episodes = self._episodes(said, k, now)
        learnt = self._intake.take_in(message, found, now, importance, pinned)
        return self._context(message, said, episodes, learnt, now)

    def context(
        self, query: str, *, k: SupportsIndex = 8, at: float | None = None
    ) -> MemoryContext:
        """What :meth:`process_input` would return for a user's text, which is not taken
        in: nothing changes, and no use is counted.

        Parameters
        ----------
        query : str
        k : int
            Episodes that are returned at most.
        at : float, optional
            The moment that it is seen from; default now.
        """
        self._check()
        message = self._message(query, "user", None)
        k = _arguments.count("k", k, 0, 1 << 20)
        said, now = encodable(message.text), self._when(at)
        episodes = self._episodes(said, k, now, count_use=False)
        return self._context(message, said, episodes, (), now)

    def _context(
        self,
        message: Message,
        said: str,
        episodes: list[Recollection],
        learnt: tuple[Relation, ...],
        now: float,
    ) -> MemoryContext:
        return made_context(
            message,
            self.working,
            episodes,
            connected(self.semantic, said, now),
            learnt,
            self._recall_tokens,
        )

    def remember(
        self,
        text: str | Message,
        role: Role = "user",
        *,
        importance: float | None = None,
        metadata: Mapping[str, Any] | None = None,
        at: float | None = None,
    ) -> str:
        """Take in a message without the window; its id."""
        self._check()
        message = self._message(text, role, metadata)
        now = self._when(at)
        found = self._intake.found(message)
        self._intake.remember(message, found, now, importance)
        return message.id

    def _message(
        self, text: str | Message, role: Role, metadata: Mapping[str, Any] | None
    ) -> Message:
        if isinstance(text, Message):
            if metadata is not None:
                raise TypeError("metadata is for a text: a Message has its own")
            return text
        return Message(role, text, metadata=dict(metadata or {}))

    # --- bringing to mind ------------------------------------------------------------

    def _episodes(
        self, query: str, k: int, now: float, *, count_use: bool = True
    ) -> list[Recollection]:
        if not k or not query.strip() or not self._recall_tokens:
            return []
        return self.episodic.recall(
            query,
            k,
            where=lambda e: not self._window.shows((e.id, *e.sources)),
            at=now,
            count_use=count_use,
        )

    def recall(
        self,
        query: str,
        k: SupportsIndex = 10,
        *,
        budget_tokens: SupportsIndex | None = None,
        threshold: float = 0.0,
        at: float | None = None,
    ) -> list[Memory]:
        """What *query* brings to mind, of all three tiers in one order.

        Parameters
        ----------
        query : str
        k : int
            At most so many.
        budget_tokens : int, optional
            Tokens of all their texts together: what does not fit is passed over, and
            what comes after it may be shorter.
        threshold : float
            Similarity that an episode must exceed.
        at : float, optional
            The moment that it is seen from; default now.
        """
        self._check()
        k = _arguments.count("k", k, 0, 1 << 20)
        left = math.inf
        if budget_tokens is not None:
            left = _arguments.count("budget_tokens", budget_tokens, 0, 1 << 62)
        if not isinstance(query, str):
            raise TypeError(f"query must be str, not {query!r}")
        query, now = encodable(query), self._when(at)
        memories = related(self.semantic, self._embedder, self._count, query, now)
        for one in self.episodic.recall(query, k, threshold=threshold, at=now):
            episode = one.episode
            ids = (episode.id, *episode.sources)
            memories.append(
                Memory(
                    "working" if self._window.shows(ids) else "episodic",
                    episode.text,
                    self._count(episode.text),
                    one.score,
                    episode.created,
                    ids,
                )
            )
        memories.sort(key=lambda memory: (-memory.score, -memory.created))
        found: list[Memory] = []
        for memory in memories:
            if len(found) < k and memory.tokens <= left:
                found.append(memory)
                left -= memory.tokens
        return found

    # --- forgetting ------------------------------------------------------------------

    def forget(
        self,
        *ids: str,
        query: str | None = None,
        threshold: float = 0.5,
        before: float | None = None,
    ) -> int:
        """Delete messages from all tiers, from caches and from the files.

        Their bytes are overwritten in the memory's own files. The store of an overflow
        chain deletes them, in its own way.

        Parameters
        ----------
        *ids : str
            Of messages. What stands for several goes with any of them: a merged
            episode, a summary in the window, a tool call with its results.
        query : str, optional
            All that is at least *threshold* similar to it.
        threshold : float
        before : float, optional
            All that was said before this moment, in seconds since the epoch.

        Returns
        -------
        int
            Episodes, relations, entities and messages of the window that are gone.

        Raises
        ------
        StoreError
            A file can't be written. Call it again: nothing is in the way.
        """
        self._check()
        if not ids and query is None and before is None:
            raise TypeError("forget() needs ids, a query or a moment")
        wanted = list(ids)
        if query is not None:
            found = self.episodic.recall(
                query, 1 << 20, threshold=threshold, count_use=False
            )
            wanted += [one.episode.id for one in found]
        gone = self.episodic.forget(*wanted, before=before)
        every = {*wanted, *(id for e in gone for id in (e.id, *e.sources))}
        self._count.clear()  # its keys are texts
        return (
            len(gone) + self.semantic.forget(source=every) + self._window.forget(every)
        )

    def consolidate(
        self,
        *,
        older_than: float = 86400.0,
        similarity: float = 0.95,
        fade_below: float = 0.0,
        limit: SupportsIndex = 1000,
        at: float | None = None,
    ) -> Consolidation:
        """:meth:`EpisodicMemory.consolidate`. What is known stays."""
        self._check()
        return self.episodic.consolidate(
            older_than=older_than,
            similarity=similarity,
            fade_below=fade_below,
            limit=limit,
            at=at,
        )

    # --- the directory ---------------------------------------------------------------

    def save(self, path: str | os.PathLike[str] | None = None) -> None:
        """Write what is in memory alone: nothing but the counts of uses, for a memory
        that has a directory. With *path*, a copy of it all into a new directory, whole
        or not at all.

        Raises
        ------
        StoreError
            It can't be written, or there is something at *path*.
        ValueError
            The memory has no directory, and no path is given.
        """
        self._check()
        if path is None:
            if self._files.directory is None:
                raise ValueError(
                    "a memory without a directory needs a path to be saved"
                )
            self.episodic.flush()
        else:
            self._files.save_to(
                Path(path),
                {
                    "facts.db": self.semantic.save_to,
                    "episodes.db": self.episodic.save_to,
                    "working.db": self._window.save_to,
                },
            )

    def check(self) -> None:
        """Read all files and verify their structure; StoreError if one is damaged."""
        self._check()
        self.semantic.check()
        self.episodic.check()
        self._window.check()

    def stats(self) -> HierarchicalMemoryStats:
        """What there is; O(relations)."""
        self._check()
        episodic, semantic = self.episodic.stats(), self.semantic.stats()
        nbytes = episodic.file_bytes + semantic.file_bytes + self._window.nbytes
        return HierarchicalMemoryStats(self.working.stats(), episodic, semantic, nbytes)

    def close(self) -> None:
        """Close all files, and let others have the directory; a second time does
        nothing."""
        if self._pid == os.getpid() or self._files.directory is None:
            self._closed = True
            self._files.close()

    def _check(self) -> None:
        if self._closed:
            raise StoreClosedError("the memory was closed")
        if self._files.directory is not None and self._pid != os.getpid():
            raise StoreError(
                f"{str(self._files.directory.path)!r} belongs to the process "
                f"{self._pid}, which this one was forked from"
            )

    def _when(self, at: float | None) -> float:
        return _arguments.number("a moment", self._clock() if at is None else at)

    def __repr__(self) -> str:
        directory = self._files.directory
        where = "in memory" if directory is None else repr(str(directory.path))
        return f"<HierarchicalMemory {where}>"
