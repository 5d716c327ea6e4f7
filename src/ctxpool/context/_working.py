"""The window of a :class:`HierarchicalMemory`, and the file that follows it."""

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from .._pure.locks import new_rlock
from ..errors import UnknownToolCallError
from ._working_file import WorkingFile
from .messages import Group, Message
from .window import ContextWindow

__all__ = ["Working"]


class _Noting:
    """An overflow that notes that it was asked: the window has other messages then."""

    def __init__(self, overflow: Any, note: Callable[[], None]) -> None:
        self._overflow, self._note = overflow, note

    def reduce(
        self,
        groups: Sequence[Group],
        budget: int,
        count: Callable[[Message], int],
    ) -> Any:
        self._note()
        return self._overflow.reduce(groups, budget, count)


class Working:
    """A window, which ids are in it, and its file, if it has one.

    The file gets each message that is added. It is written anew when messages have
    left the window or were replaced, and when threads have added some at once, so that
    it has the window's order.

    **Thread-safety**: each call is atomic. The window's callbacks run outside any lock.
    """

    def __init__(
        self,
        budget: int,
        path: Path | None,
        *,
        overflow: Any,
        on_evict: Callable[[list[Group]], object] | None,
        durable: bool,
        **settings: Any,
    ) -> None:
        self._on_evict = on_evict
        self._spilled: Any = getattr(overflow, "store", None)
        self._changed = False
        self._synced = 0
        self._ids: set[str] = set()  # of the messages, and of what they stand for
        self._whole: set[str] = set()  # of those that stand for nothing else
        self._lock = new_rlock()
        self.window = ContextWindow(
            budget,
            overflow=None if overflow is None else _Noting(overflow, self._note),
            on_evict=self._evicted,
            **settings,
        )
        self._file = None if path is None else WorkingFile(path, durable)
        if self._file is not None:
            try:
                self._fill(self._file.load())
            except BaseException:
                self._file.database.close()
                raise

    def _fill(self, messages: list[tuple[Message, bool]]) -> None:
        for message, pinned in messages:
            self._put_back([message], pinned)
        self._save(self._synced)

    def _put_back(self, messages: Sequence[Message], pinned: bool) -> None:
        """Add what was in the window. A pinned answer whose question is gone can't be
        pinned; what a smaller budget has no room for is left out."""
        for pin in (True, False) if pinned else (False,):
            with suppress(ValueError, UnknownToolCallError):
                self.window.extend(messages, pinned=pin)
                return

    def _note(self) -> None:
        self._changed = True

    def _evicted(self, groups: list[Group]) -> None:
        self._changed = True
        if self._on_evict is not None:
            self._on_evict(groups)

    def append(self, message: Message, *, pinned: bool) -> None:
        """Add a message to the window, and to the file."""
        synced = self._synced
        try:
            self.window.append(message, pinned=pinned)
        except BaseException:
            # It is in the window if it was a callback that raised: see forget().
            with self._lock:
                self._ids.add(message.id)
                self._changed = True
            raise
        self._save(synced, message, pinned)

    def _save(
        self, synced: int, message: Message | None = None, pinned: bool = False
    ) -> None:
        with self._lock:
            alone = synced == self._synced and not self._changed
            self._synced += 1
            self._changed = False
            try:
                if alone and message is not None:
                    self._ids |= {message.id, *message.sources}
                    if not message.sources:
                        self._whole.add(message.id)
                    if self._file is not None:
                        self._file.append(message, pinned)
                else:
                    self._save_all()
            except BaseException:
                self._changed = True  # the next one writes what this one could not
                raise

    def _save_all(self) -> None:
        groups = self.window.groups()
        held = [
            (message, group.pinned) for group in groups for message in group.messages
        ]
        self._ids = {id for message, _ in held for id in (message.id, *message.sources)}
        self._whole = {message.id for message, _ in held if not message.sources}
        if self._file is not None:
            self._file.replace(held)

    def holds(self, ids: Collection[str]) -> bool:
        """Whether one of these messages is in the window, or in a summary there."""
        return not self._ids.isdisjoint(ids)

    def shows(self, ids: Collection[str]) -> bool:
        """Whether one of these messages is in the window as it was: of one that was
        compressed or summarised the original may still be wanted."""
        return not self._whole.isdisjoint(ids)

    def forget(self, ids: Collection[str]) -> int:
        """Take messages out of the window, with all that stands for them or is of their
        groups, and out of the overflow's store; how many went from the window."""
        gone = set(ids)
        if self._spilled is not None:
            self._spilled.delete(gone)
        with self._lock:
            left = self._drop(gone) if self.holds(gone) else 0
            if self._file is not None:
                # Also of those that left the window long ago.
                self._file.database.purge()
        return left

    def _drop(self, gone: set[str]) -> int:
        groups = self.window.groups()
        kept = [
            group
            for group in groups
            if not any(
                message.id in gone or not gone.isdisjoint(message.sources)
                for message in group.messages
            )
        ]
        if len(kept) < len(groups):
            self._changed = True
            self.window.clear()
            for group in kept:
                self._put_back(group.messages, group.pinned)
        self._save(self._synced)
        return sum(len(g.messages) for g in groups) - sum(len(g.messages) for g in kept)

    @property
    def nbytes(self) -> int:
        """Of the file."""
        return 0 if self._file is None else self._file.database.nbytes

    def save_to(self, path: Path) -> None:
        """Write the window to a new file."""
        with self._lock:
            file = WorkingFile(path, True)
            try:
                file.replace(
                    (message, group.pinned)
                    for group in self.window.groups()
                    for message in group.messages
                )
            finally:
                file.database.close()

    def check(self) -> None:
        """Read the file and verify its structure."""
        if self._file is not None:
            self._file.database.check()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.database.close()
