"""What a hierarchy of texts shows, and what it tells of itself."""

from dataclasses import dataclass
from typing import NamedTuple

from ..stats import _Record

__all__ = ["HierarchyReport", "LevelReport", "SourceSpan", "View"]


class SourceSpan(NamedTuple):
    """``view.text[at : at + end - start] == restore(id)[start:end]``."""

    id: str
    start: int
    end: int
    at: int


@dataclass(frozen=True, slots=True)
class View(_Record):
    """What is shown of an item, or of a group of them.

    Attributes
    ----------
    level : int
        1: whole, 2: a summary, 3: a summary of a group, 4: the archive.
    text : str
        What is left of it.
    sources : tuple of str
        The ids of the items that it stands for, oldest first.
    spans : tuple of SourceSpan
        Where its parts are in them; none if a *compressor* of one's own made it.
    lossy : bool
        Whether anything is missing. The items themselves are there in full:
        :meth:`HierarchicalCompressor.restore`.
    """

    level: int
    text: str
    sources: tuple[str, ...]
    spans: tuple[SourceSpan, ...]
    lossy: bool


@dataclass(frozen=True, slots=True)
class LevelReport(_Record):
    """One level of a :class:`HierarchyReport`.

    Attributes
    ----------
    level, items, views : int
        The level, the items on it, and the views that show them.
    original_bytes, view_bytes : int
        Bytes of the items and of the views, in UTF-8.
    """

    level: int
    items: int
    views: int
    original_bytes: int
    view_bytes: int


@dataclass(frozen=True, slots=True)
class HierarchyReport(_Record):
    """A moment of a :class:`HierarchicalCompressor`.

    Attributes
    ----------
    items : int
        Items in it.
    original_bytes : int
        Bytes of all items, in UTF-8.
    view_bytes : int
        Bytes of what is shown of them.
    stored_bytes : int
        Bytes in which the items are kept, without loss: compressed, but for those that
        :meth:`HierarchicalCompressor.compact` has not met yet.
    levels : tuple of LevelReport
        Levels 1 to 4.
    """

    items: int
    original_bytes: int
    view_bytes: int
    stored_bytes: int
    levels: tuple[LevelReport, ...]

    @property
    def ratio(self) -> float:
        """Bytes shown over bytes of the items; 1.0 without any."""
        return self.view_bytes / self.original_bytes if self.original_bytes else 1.0

    @property
    def stored_ratio(self) -> float:
        """Bytes kept over bytes of the items; 1.0 without any."""
        return self.stored_bytes / self.original_bytes if self.original_bytes else 1.0
