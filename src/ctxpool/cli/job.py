"""Run both sides over the same input, in turns, and compare what they find."""

import gc
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import FileIO
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from .errors import DifferenceError
from .sides import Pooled, Side, Tokens, Unpooled
from .workload import Unreadable

__all__ = ["Job", "Tally", "collector"]


@dataclass(slots=True)
class Tally:
    """What the job met on its way.

    Attributes
    ----------
    visits : int
        Files opened, again and again included.
    bytes, chunks, tokens, steps : int
        What went through each of the two sides.
    checksum : int
        CRC-32 of all tokens as little-endian int32, in the order of the stream.
    preempted : int or None
        How often the system took the processor away; None where it does not tell.
    skipped : list of Unreadable
        Files that could not be read, or changed while they were read.
    """

    visits: int = 0
    bytes: int = 0
    chunks: int = 0
    tokens: int = 0
    steps: int = 0
    checksum: int = 0
    preempted: int | None = None
    skipped: list[Unreadable] = field(default_factory=list)


@contextmanager
def collector(on: bool) -> Iterator[None]:
    """Start from a collected heap; keep the garbage collector on or off inside."""
    was = gc.isenabled()
    gc.collect()
    (gc.enable if on else gc.disable)()
    try:
        yield
    finally:
        (gc.enable if was else gc.disable)()


class _ChangedError(Exception):
    """The two sides read different bytes, and the file is not what it was."""


class Job:
    """Both sides, and what they met.

    The two take turns at every single step, and who goes first alternates too, so
    that neither always finds the data in the processor's caches, and a pause of
    the machine hits both alike.
    """

    def __init__(self, pooled: Pooled, unpooled: Unpooled) -> None:
        self.pooled, self.unpooled = pooled, unpooled
        self.tally = Tally()
        self._orders: tuple[tuple[Side, Side], tuple[Side, Side]] = (
            (pooled, unpooled),
            (unpooled, pooled),
        )
        self._turn = 0
        self._lost: set[str] = set()

    def _order(self) -> tuple[Side, Side]:
        self._turn ^= 1
        return self._orders[self._turn]

    def run(
        self,
        visits: Sequence[str],
        limit: int | None = None,
        progress: Callable[[int], None] = lambda done: None,
    ) -> Tally:
        """Visit the files in order, until *limit* bytes are done.

        Raises
        ------
        DifferenceError
            The two sides came to different results.
        """
        tally = self.tally
        preempted = _preempted()
        for path in visits:
            if limit is not None and tally.bytes >= limit:
                break
            if path in self._lost:
                continue
            try:
                self._visit(path, limit, progress)
            except (OSError, _ChangedError) as error:
                self._lost.add(path)
                reason = getattr(error, "strerror", None) or str(error)
                tally.skipped.append(Unreadable(path, reason))
            else:
                tally.visits += 1
        self._compare_ends()
        if preempted is not None:
            tally.preempted = (_preempted() or preempted) - preempted
        return tally

    def _visit(
        self, path: str, limit: int | None, progress: Callable[[int], None]
    ) -> None:
        with FileIO(path) as first, FileIO(path) as second:
            was = _stamp(first)
            while limit is None or self.tally.bytes < limit:
                size, digest = self._read(path, first, second, was)
                if size:
                    self._chunk(path, digest)
                    self.tally.bytes += size
                    progress(self.tally.bytes)
                if size < self.pooled.settings.block_size:
                    return

    def _read(
        self, path: str, first: FileIO, second: FileIO, was: tuple[int, int]
    ) -> tuple[int, bytes]:
        """Both read the next chunk; its size and digest. On an error neither has it."""
        files: dict[Side, FileIO] = {self.pooled: first, self.unpooled: second}
        sizes: dict[Side, int] = {}
        started: list[Side] = []
        try:
            for side in self._order():
                started.append(side)
                sizes[side] = side.read(files[side])
            size, other = sizes[self.pooled], sizes[self.unpooled]
            digests = [side.digest() for side in self._order() if size]
            if size != other or len(set(digests)) > 1:
                if _stamp(first) != was:
                    raise _ChangedError("Changed while it was read")
                raise DifferenceError(
                    f"the two sides read different bytes from {path}: "
                    f"{size} pooled, {other} unpooled"
                )
        except (OSError, _ChangedError):
            for side in started:
                side.drop()
            raise
        if size:
            return size, digests[0]
        for side in started:
            side.drop()
        return 0, b""

    def _chunk(self, path: str, digest: bytes) -> None:
        found = {side: side.tokens(digest) for side in self._order()}
        pooled, unpooled = found[self.pooled], found[self.unpooled]
        if not _equal(pooled, unpooled):
            self._differ(path, "tokens", pooled, unpooled)
        if self.pooled.hits != self.unpooled.hits:
            self._differ(path, "cache hits", [self.pooled.hits], [self.unpooled.hits])
        step = self.pooled.settings.step
        for start in range(0, len(pooled), step):
            self._step(path, found, start, min(start + step, len(pooled)))
        for side in self._order():
            side.finish()
        self.tally.chunks += 1
        self.tally.tokens += len(pooled)

    def _step(self, path: str, found: dict[Side, Tokens], start: int, end: int) -> None:
        seen = {side: side.step(found[side][start:end]) for side in self._order()}
        for what, pooled, unpooled in zip(
            ("the window", "the last tokens"),
            seen[self.pooled],
            seen[self.unpooled],
            strict=True,
        ):
            if not np.array_equal(pooled, unpooled):
                self._differ(path, what, pooled, unpooled)
        whole = seen[self.pooled][0]
        new = whole[len(whole) - (end - start) :]
        self.tally.checksum = zlib.crc32(
            new.astype("<i4").tobytes(), self.tally.checksum
        )
        self.tally.steps += 1

    def _differ(self, path: str, what: str, pooled: Any, unpooled: Any) -> None:
        raise DifferenceError(
            f"the two sides differ in {what} at chunk {self.tally.chunks}, "
            f"step {self.tally.steps}, of {path}: "
            f"pooled {_short(pooled)}, unpooled {_short(unpooled)}"
        )

    def _compare_ends(self) -> None:
        stats = self.pooled.stats()
        counted = stats["lru_cache"]
        pairs = {
            "cache misses": (self.pooled.misses, self.unpooled.misses),
            "cached chunks": (len(self.pooled.cache), len(self.unpooled.cache)),
            "counted cache hits": (counted["hits"], self.unpooled.hits),
            "window position": (stats["token_window"]["position"], self.tally.tokens),
        }
        for what, (pooled, unpooled) in pairs.items():
            if pooled != unpooled:
                self._differ("all files", what, [pooled], [unpooled])
        if set(self.pooled.cache) != set(self.unpooled.cache):
            raise DifferenceError("the two sides hold different chunks in their caches")


def _preempted() -> int | None:
    try:
        count: int = psutil.Process().num_ctx_switches().involuntary
    except (NotImplementedError, psutil.Error):
        return None
    return count


def _stamp(file: FileIO) -> tuple[int, int]:
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns


def _equal(pooled: Tokens, unpooled: Tokens) -> bool:
    if isinstance(pooled, list):
        return pooled == unpooled
    return np.array_equal(pooled, unpooled)


def _short(tokens: Tokens) -> str:
    array: NDArray[Any] = np.asarray(tokens)
    shown = np.array2string(array, threshold=6, edgeitems=3, separator=", ")
    return f"{shown} ({len(array)})"
