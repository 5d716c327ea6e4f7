"""Texts that are shown shorter the older they get, and never lost."""

import itertools
import math
import operator
import time as _time
from collections.abc import Callable, Iterator, Sequence
from typing import SupportsIndex

from .. import LRUCache, _arguments
from ..context.extract import Extract, extract
from ..context.sentences import LONGEST, Piece, split
from ..context.tokens import HeuristicTokenizer, whole
from ..sizes import parse_size
from . import _blocks
from .views import HierarchyReport, LevelReport, SourceSpan, View

__all__ = ["HierarchicalCompressor"]

HOUR, DAY, WEEK = 3600.0, 86400.0, 604800.0
LEVELS = range(1, 5)
_RATIOS = (1.0, 0.5, 0.2, 0.05)
_SMALL = 80  # characters: an item that is no longer may be shown whole on level 2
_SHORTEST = 24  # characters: no piece is cut to less
_OVERHEAD = 200  # bytes of a view beside its text


class _Item:
    __slots__ = ("body", "id", "nbytes", "priority", "serial", "time")

    def __init__(
        self, id: str, text: str, time: float, priority: int, serial: int
    ) -> None:
        self.id = id
        # One attribute, so that a reader sees one or the other.
        self.body: str | _blocks.Packed = text
        self.nbytes = _nbytes(text)
        self.time = time
        self.priority = priority
        self.serial = serial


class HierarchicalCompressor:
    """Keeps texts, and shows less of each the older and the less important it is.

    An item's level follows from its age: 1 for the first hour, 2 for a day, 3 for a
    week, 4 from then on; each step of priority takes it one level up or down. Level 1
    is shown whole. On level 2 half of an item is shown, or a single short sentence. On
    level 3 the items of
    a day are one group, of which a fifth is shown, on level 4 those of a week, of which
    a twentieth is: what several of them say, a group says once. What is shown are the
    statements that say most (:func:`~ctxpool.context.extract.extract`), with their
    places in the items. The items are never changed: :meth:`restore` gives each back
    as it came, to the byte.

    Parameters
    ----------
    ages : three floats
        Seconds from which on an item is on level 2, 3 and 4.
    ratios : four floats
        Share of an item's or a group's characters that each level shows at most.
    groups : two floats
        Seconds of a group on level 3 and 4; they begin at multiples of that.
    compressor : callable, optional
        ``compressor(text, tokens)`` gives a text to show on levels 2 to 4 instead, an
        LLM's summary for instance.
    count : callable, optional
        Gives the tokens of a text, for the compressor.
    codec : {"zlib", "zstd"}
        How the items are kept. zstd needs Python 3.14 or the extra ``ctxpool[zstd]``.
    block_size : int or str
        Bytes of text that are compressed together: more is smaller, and slower to
        restore.
    view_bytes : int or str
        Memory for views, which are made when they are first asked for.
    clock : callable
        Tells the time where no ``now`` is given, in seconds.

    Raises
    ------
    ValueError
        Ages, ratios, groups or a codec that can't be.

    Notes
    -----
    :meth:`add` is O(1) but for measuring the text. A view is made in time linear in its
    items' text, a few MB/s, and kept; views of old groups do not change any more.

    **Thread-safety**: each call is atomic; :meth:`views` and :meth:`report` show the
    items that were there when they began. Callables run without a lock held; what they
    raise reaches the caller, and nothing is changed.

    Examples
    --------
    >>> store = HierarchicalCompressor(clock=lambda: 0.0)
    >>> note = (
    ...     "Hello to all of you. The disk of db-7 was 91 % full at 04:10. "
    ...     "Apart from that it was a quiet day."
    ... )
    >>> first = store.add(note, time=-7200)
    >>> keep = store.add("The password rotates on Friday.", time=-7200, priority=1)
    >>> [(view.level, view.text) for view in store.views()]
    [(2, 'The disk of db-7 was 91 % full at 04:10.'), (1, 'The password rotates on Friday.')]
    >>> store.restore(first) == note
    True
    """  # noqa: E501

    def __init__(
        self,
        *,
        ages: Sequence[float] = (HOUR, DAY, WEEK),
        ratios: Sequence[float] = _RATIOS,
        groups: Sequence[float] = (DAY, WEEK),
        compressor: Callable[[str, int], str] | None = None,
        count: Callable[[str], int] | None = None,
        codec: str = "zlib",
        block_size: SupportsIndex | str = "64KiB",
        view_bytes: SupportsIndex | str = "16MiB",
        clock: Callable[[], float] = _time.time,
    ) -> None:
        self.ages = _numbers("ages", ages, 3)
        self.ratios = _numbers("ratios", ratios, 4)
        self.groups = _numbers("groups", groups, 2)
        if list(self.ages) != sorted(self.ages):
            raise ValueError(f"ages must ascend, not {ages!r}")
        if max(self.ratios) > 1 or not min(self.ratios):
            raise ValueError(f"ratios must be above 0 and at most 1, not {ratios!r}")
        if not min(self.groups):
            raise ValueError(f"groups must be above 0, not {groups!r}")
        for name, given in (("compressor", compressor), ("count", count)):
            if given is not None and not callable(given):
                raise TypeError(f"{name} must be callable, not {given!r}")
        self._compressor = compressor
        self._count = count or HeuristicTokenizer().count
        self._codec = _blocks.codec(codec)
        self._block_size = parse_size(block_size, "block_size")
        self._clock = clock
        self._items: dict[str, _Item] = {}
        self._serials = itertools.count()
        # By the items' serial numbers, which are never given twice.
        self._views: LRUCache[tuple[int, tuple[int, ...]], View] = LRUCache(
            parse_size(view_bytes, "view_bytes"), getsizeof=_view_size
        )

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, id: object) -> bool:
        return id in self._items

    def __repr__(self) -> str:
        return f"<HierarchicalCompressor of {len(self)} items>"

    def add(
        self,
        text: str,
        *,
        id: str | None = None,
        priority: int = 0,
        time: float | None = None,
    ) -> str:
        """Keep *text*.

        Parameters
        ----------
        text : str
            Any text.
        id : str, optional
            By which it comes back; made up where none is given.
        priority : int
            Levels by which it is shown fuller than its age says, -3 to 3.
        time : float, optional
            When it was said, in seconds; by default now.

        Returns
        -------
        str
            The id.

        Raises
        ------
        ValueError
            There is an item of this id.
        """
        if not isinstance(text, str):
            raise TypeError(f"a text is needed, not {text!r}")
        if id is not None and not isinstance(id, str):
            raise TypeError(f"id must be str, not {id!r}")
        priority = _arguments.count("priority", priority, -3, 3)
        said = self._now(time, "time")
        serial = next(self._serials)
        names = (str(n) for n in itertools.count(serial)) if id is None else iter([id])
        for name in names:
            item = _Item(name, text, said, priority, serial)
            if self._items.setdefault(name, item) is item:
                return name
        raise ValueError(f"there is an item {id!r} already")

    def restore(self, id: str) -> str:
        """The item as it was added.

        Raises
        ------
        KeyError
            There is none of this id.
        """
        (text,) = _blocks.texts_of([self._items[id].body])
        return text

    def forget(self, id: str) -> None:
        """Let go of an item. Its bytes in a compressed block stay until the block's
        last item is forgotten.

        Raises
        ------
        KeyError
            There is none of this id.
        """
        del self._items[id]

    def level(self, id: str, *, now: float | None = None) -> int:
        """The level that an item is on; KeyError if there is none of this id."""
        return self._level(self._items[id], self._now(now))

    def views(self, *, now: float | None = None) -> list[View]:
        """What is shown of all items, by the time of their oldest; none that is empty.

        O(n log n) for n items, and making the views that are new.
        """
        return [view for view in self._all_views(self._now(now)) if view.text]

    def view(self, id: str, *, now: float | None = None) -> View:
        """What is shown of one item, or of the group that it is in.

        Raises
        ------
        KeyError
            There is none of this id.
        """
        wanted = self._items[id]
        now = self._now(now)
        if (level := self._level(wanted, now)) <= 2:
            return self._view(level, [wanted])
        for level, items in self._grouped(now):
            if wanted in items:
                return self._view(level, items)
        raise KeyError(id)  # forgotten meanwhile

    def compact(self, *, now: float | None = None) -> int:
        """Compress, without loss, the items that are not on level 1 any more.

        To be called now and then by who has the time, 0.03 seconds a MB.

        Returns
        -------
        int
            Bytes that were saved.
        """
        now = self._now(now)
        items = [
            item
            for item in self._sorted()
            if isinstance(item.body, str) and self._level(item, now) > 1
        ]
        texts = _blocks.texts_of([item.body for item in items])
        saved = sum(item.nbytes for item in items)
        blocks = set()
        packed = _blocks.pack(texts, self._block_size, *self._codec)
        for item, body in zip(items, packed, strict=True):
            item.body = body
            blocks.add(body.block)
        return saved - sum(len(block.data) for block in blocks)

    def report(self, *, now: float | None = None) -> HierarchyReport:
        """Sizes before and after, and the items of each level; makes all views."""
        grouped = list(self._grouped(self._now(now)))
        shown = [(self._view(level, items), items) for level, items in grouped]
        levels = []
        for level in LEVELS:
            here = [(view, items) for view, items in shown if view.level == level]
            levels.append(
                LevelReport(
                    level=level,
                    items=sum(len(items) for _, items in here),
                    views=sum(bool(view.text) for view, _ in here),
                    original_bytes=sum(i.nbytes for _, items in here for i in items),
                    view_bytes=sum(_nbytes(view.text) for view, _ in here),
                )
            )
        all_items = [item for _, items in grouped for item in items]
        bodies = [(item.body, item.nbytes) for item in all_items]
        blocks = {id(b.block): b.block for b, _ in bodies if not isinstance(b, str)}
        return HierarchyReport(
            items=len(all_items),
            original_bytes=sum(one.original_bytes for one in levels),
            view_bytes=sum(one.view_bytes for one in levels),
            stored_bytes=sum(nbytes for body, nbytes in bodies if isinstance(body, str))
            + sum(len(block.data) for block in blocks.values()),
            levels=tuple(levels),
        )

    def _now(self, now: float | None, name: str = "now") -> float:
        if now is None:
            now = self._clock()
        try:
            number = float(now)
        except (TypeError, ValueError):
            raise TypeError(f"{name} must be seconds, not {now!r}") from None
        if not math.isfinite(number):
            raise ValueError(f"{name} must be finite, not {now!r}")
        return number

    def _level(self, item: _Item, now: float) -> int:
        by_age = 1 + sum(now - item.time >= age for age in self.ages)
        return min(max(by_age - item.priority, LEVELS[0]), LEVELS[-1])

    def _sorted(self) -> list[_Item]:
        """The items of this moment, oldest first."""
        return sorted(
            self._items.copy().values(), key=operator.attrgetter("time", "serial")
        )

    def _grouped(self, now: float) -> Iterator[tuple[int, list[_Item]]]:
        """The items that are shown together, with their level, oldest first."""
        groups: dict[tuple[int, float], list[_Item]] = {}
        for item in self._sorted():
            level = self._level(item, now)
            key: float = item.serial
            if level > 2:
                key = item.time // self.groups[level - 3]
            groups.setdefault((level, key), []).append(item)
        for (level, _), items in groups.items():
            yield level, items

    def _all_views(self, now: float) -> Iterator[View]:
        for level, items in self._grouped(now):
            yield self._view(level, items)

    def _view(self, level: int, items: list[_Item]) -> View:
        if level == 1:
            return self._made(level, items)
        key = level, tuple(item.serial for item in items)
        known: View | None = self._views.get(key)
        if known is None:
            known = self._made(level, items)
            if _view_size(known) <= self._views.maxsize:
                self._views[key] = known
        return known

    def _made(self, level: int, items: list[_Item]) -> View:
        texts = list(_blocks.texts_of(item.body for item in items))
        joined = "\n".join(texts)
        sources = tuple(item.id for item in items)
        ratio = self.ratios[level - 1]
        if self._compressor is not None and level > 1:
            tokens = whole(self._count(joined), "count gave {!r} tokens")
            shown = self._compressor(joined, int(tokens * ratio))
            if not isinstance(shown, str):
                raise TypeError(f"a compressor must return text, not {shown!r}")
            return View(level, shown, sources, (), lossy=shown != joined)
        kept = _extract(texts, joined, ratio)
        if level == 2 and not kept.text and len(joined) <= _SMALL:
            kept = Extract.whole(joined)  # half of it would be nothing
        spans = tuple(_source_spans(kept, items, texts))
        return View(level, kept.text, sources, spans, kept.lossy)


def _extract(texts: list[str], joined: str, ratio: float) -> Extract:
    """The share of *texts* to show, no piece of two of them at once."""
    if ratio == 1:
        return Extract.whole(joined)
    limit = max(_SHORTEST, min(LONGEST, int(len(joined) * ratio)))
    pieces = []
    at = 0
    for text in texts:
        pieces += [
            Piece(at + start, at + end, kind) for start, end, kind in split(text, limit)
        ]
        at += len(text) + 1
    return extract(joined, ratio=ratio, pieces=pieces)


def _source_spans(
    kept: Extract, items: list[_Item], texts: list[str]
) -> Iterator[SourceSpan]:
    """The spans of an extract of the joined texts, by item."""
    ends = list(itertools.accumulate(len(text) + 1 for text in texts))
    number = 0
    for start, end, at in kept.spans:
        while ends[number] <= start:
            number += 1
        while start < end:  # a span of pieces with nothing between may pass an end
            begin = ends[number] - len(texts[number]) - 1
            last = min(end, ends[number] - 1)
            if last > start:
                yield SourceSpan(items[number].id, start - begin, last - begin, at)
            at += ends[number] - start
            start = ends[number]
            number = min(number + 1, len(ends) - 1)


def _numbers(name: str, values: Sequence[float], length: int) -> tuple[float, ...]:
    try:
        numbers = tuple(map(float, values))
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be {length} numbers, not {values!r}") from None
    if len(numbers) != length or not all(0 <= n < math.inf for n in numbers):
        raise ValueError(
            f"{name} must be {length} numbers of 0 or more, not {values!r}"
        )
    return numbers


def _nbytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _view_size(view: View) -> int:
    return _OVERHEAD + len(view.text) * 4 + 100 * len(view.spans)
