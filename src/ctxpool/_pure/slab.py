"""The pure twin's memory: what ``csrc/src/vm.c`` is to the native one."""

from __future__ import annotations

import ctypes
import mmap
from typing import Literal

import numpy as np

__all__ = ["FORK_MODES", "Slab"]

# Linux's numbers; an interpreter built with older headers lacks the names.
_POPULATE_WRITE = 23
FORK_MODES: dict[str, int | None] = {"copy": None, "wipe": 18, "absent": 10}

_HUGE_SPAN = 2 << 20


class Slab:
    """A private anonymous mapping that begins at an aligned address.

    It costs no memory until it is touched, and is unmapped when the last object that
    was made over :attr:`map` dies.
    """

    __slots__ = ("base", "map", "start")

    def __init__(self, size: int, alignment: int, *, huge: bool, lazy: bool) -> None:
        huge_page = _huge_page_size() if huge else 0
        huge = 0 < huge_page <= size
        if huge:
            alignment = max(alignment, huge_page)
        size = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        size += max(alignment - mmap.PAGESIZE, 0)
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        if lazy:
            flags |= getattr(mmap, "MAP_NORESERVE", 0)
        try:
            self.map = mmap.mmap(-1, size, flags)
        except (OSError, ValueError, OverflowError):
            raise MemoryError(f"no room for a slab of {size} bytes") from None
        address = int(np.frombuffer(self.map, np.uint8).ctypes.data)
        self.start = -address % alignment  # where in the map the slab begins
        self.base = address + self.start
        if huge and hasattr(mmap, "MADV_HUGEPAGE"):
            try:
                self.map.madvise(mmap.MADV_HUGEPAGE)
            except OSError:
                huge = False  # a wish that the system may refuse

    def advise_fork(self, mode: Literal["copy", "wipe", "absent"]) -> None:
        """What a forked child finds: a copy, zeros or nothing; or OSError."""
        advice = FORK_MODES[mode]
        if advice is not None:
            self.map.madvise(advice)

    def bytes_of(self, offset: int, size: int) -> memoryview:
        """The slab's bytes from *offset*, writable."""
        start = self.start + offset
        return memoryview(self.map)[start : start + size]

    def populate(self, size: int, offset: int = 0) -> None:
        """Make *size* bytes from *offset* resident. Changes none of them."""
        if not size:
            return
        start, end = self.start + offset, self.start + offset + size
        start -= start % mmap.PAGESIZE
        try:
            self.map.madvise(_POPULATE_WRITE, start, end - start)
        except OSError:
            # No such advice here: read every page, which maps it but for its first
            # write. To write a byte back could undo another thread's write.
            memoryview(self.map)[start : end : mmap.PAGESIZE].tobytes()

    def discard(self, offset: int, size: int, *, lazy: bool) -> int:
        """Give whole pages back to the system; bytes that were resident there."""
        page = mmap.PAGESIZE
        first = -(-(self.start + offset) // page) * page
        last = (self.start + offset + size) // page * page
        if last <= first:
            return 0
        resident = _resident(self.base - self.start + first, last - first)
        advice = mmap.MADV_DONTNEED
        if lazy and size >= _HUGE_SPAN and hasattr(mmap, "MADV_FREE"):
            advice = mmap.MADV_FREE
        self.map.madvise(advice, first, last - first)
        return resident


def _huge_page_size() -> int:
    try:
        with open("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 0


def _resident(address: int, size: int) -> int:
    """Bytes of the pages in [address, address + size) that are resident."""
    flags = np.empty(size // mmap.PAGESIZE, np.uint8)
    mincore = ctypes.CDLL(None).mincore
    mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
    if mincore(address, size, flags.ctypes.data):
        return 0
    return int((flags & 1).sum()) * mmap.PAGESIZE
