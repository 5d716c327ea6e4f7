"""The pure twin's segment: what ``csrc/src/shared_pool.c`` is to the native one.

Layout, words and slots are those of ``csrc/include/ctxpool/shared_pool.h``, and so is
the argument why kill -9 at any instruction loses no block. Two things differ, and the
header says which is at work: Python has no compare-and-swap, so a word changes under a
lock on one more byte of the file, which the kernel lets go of when its holder dies
(each change is one store still, so nothing is ever half done); and it has no futex, so
those who wait look again and again.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import struct
import time
import weakref

import numpy as np

from ctxpool._shared_support import (
    CORRUPT,
    FOREIGN,
    FULL,
    HEADER,
    MAX_BLOCKS,
    OTHER_KIND,
    OTHER_VERSION,
    PARTICIPANTS,
)

__all__ = ["Refused", "Segment"]

_MAGIC, _VERSION, _PURE = b"ctxpool\x1a", 1, 2
_HEAD = struct.Struct("=8sIIQQQQQQQQQQ32s")  # up to the name
_SLOTS, _SLOT = 136, struct.Struct("=IIQQQQQQQQ3Q")
_COUNTERS = ("takes", "opens", "gives", "sends", "waits", "exhausted", "recovered")
_ONE_GENERATION, _FREE = 1 << 38, (1 << 38) - 1
_TRANSIT, _GENERATIONS = 63 << 32, (1 << 64) - (1 << 38)
_MOST = 2**62

# The kernel's numbers: an interpreter built with older headers lacks the names.
_GETLK, _SETLK, _SETLKW = 36, 37, 38
_ADD_SEALS, _GET_SEALS, _SEAL_SEAL, _SEALED = 1033, 1034, 1, 2 | 4
_NOEXEC_SEAL = 8  # Linux 6.3; some systems refuse to do without
_FLOCK = struct.Struct("hhqqi0q")
_MUTEX = PARTICIPANTS  # the byte whose lock guards the words


class Refused(Exception):
    """Why there is nothing to attach to: one of the reasons in _shared_support."""


class _Head:
    """The fixed numbers of a segment; what follows from the first three is checked."""

    def __init__(self, block_size: int, blocks: int, alignment: int) -> None:
        self.block_size, self.blocks, self.alignment = block_size, blocks, alignment
        self.good = (
            0 < block_size <= _MOST
            and 0 < blocks <= MAX_BLOCKS
            and 0 < alignment <= HEADER
            and not alignment & (alignment - 1)
        )
        if not self.good:
            return
        self.stride = -(-block_size // alignment) * alignment
        self.words = HEADER
        self.since = self.words + 8 * blocks
        self.hints = self.since + 8 * blocks
        hints_end = self.hints + 8 * -(-blocks // 64)
        self.data = -(-hints_end // HEADER) * HEADER
        self.total = -(-(self.data + self.stride * blocks) // HEADER) * HEADER
        self.good = self.total <= _MOST

    def packed(self, id_: int, name: bytes) -> bytes:
        return _HEAD.pack(
            _MAGIC,
            _VERSION,
            _PURE,
            id_,
            self.block_size,
            self.stride,
            self.blocks,
            self.alignment,
            self.words,
            self.since,
            self.hints,
            self.data,
            self.total,
            name,
        )


_segments: weakref.WeakSet[Segment] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for segment in list(_segments):
        segment._forked()


os.register_at_fork(after_in_child=_after_fork_in_child)


class Segment:
    """A mapped segment, and this process's part in it.

    The caller serialises the calls; between processes each is atomic.
    """

    def __init__(self) -> None:
        self.fd = self.lock_fd = -1
        self.slot = -1  # not attached: closed, or forked
        self.forks = 0  # how often this attachment was inherited
        self.held = 0
        self.local: dict[int, int] = {}  # references of this process to a block
        self._last = 0

    # -- making and joining ----------------------------------------------------------

    @classmethod
    def create(
        cls, block_size: int, blocks: int, alignment: int, name: bytes, reserve: bool
    ) -> Segment:
        if not hasattr(os, "memfd_create"):
            raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
        head = _Head(block_size, blocks, alignment)
        if not head.good:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        segment = cls()
        try:
            flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
            try:
                segment.fd = os.memfd_create("ctxpool", flags | _NOEXEC_SEAL)
            except OSError:
                segment.fd = os.memfd_create("ctxpool", flags)
            os.ftruncate(segment.fd, head.total)
            fcntl.fcntl(segment.fd, _ADD_SEALS, _SEALED | _SEAL_SEAL)
            id_ = int.from_bytes(os.urandom(8), "little")
            os.pwrite(segment.fd, head.packed(id_, name), 0)
            if reserve:
                os.posix_fallocate(segment.fd, 0, head.total)
            segment._join(head, id_, name)
        except BaseException:
            segment.fini()
            raise
        return segment

    @classmethod
    def attach(cls, fd: int) -> Segment:
        size = os.fstat(fd).st_size
        try:
            sealed = fcntl.fcntl(fd, _GET_SEALS)
            data = os.pread(fd, _HEAD.size, 0)
        except OSError:
            raise Refused(FOREIGN) from None
        if sealed & _SEALED != _SEALED or len(data) < _HEAD.size or size < HEADER:
            raise Refused(FOREIGN)
        magic, version, kind, id_, *numbers, name = _HEAD.unpack(data)
        if magic != _MAGIC:
            raise Refused(FOREIGN)
        if version != _VERSION:
            raise Refused(OTHER_VERSION)
        if kind != _PURE:
            raise Refused(OTHER_KIND)
        head = _Head(numbers[0], numbers[2], numbers[3])
        if (
            not head.good
            or head.packed(id_, name) != data
            or head.total != size
            or name[-1]
        ):
            raise Refused(CORRUPT)
        segment = cls()
        try:
            segment.fd = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
            segment._join(head, id_, name)
        except BaseException:
            segment.fini()
            raise
        return segment

    def _join(self, head: _Head, id_: int, name: bytes) -> None:
        self.map = mmap.mmap(self.fd, head.total)
        self.id, self.name, self.total = id_, name, head.total
        self.block_size, self.blocks = head.block_size, head.blocks
        self.alignment, self.stride, self.data = head.alignment, head.stride, head.data
        self.words = np.ndarray(head.blocks, np.uint64, self.map, head.words)
        self.since = np.ndarray(head.blocks, np.uint64, self.map, head.since)
        # A store into it is one instruction.
        self._store = memoryview(self.map)[head.words : head.since].cast("Q")
        self.base = int(self.words.ctypes.data) - head.words + head.data
        _segments.add(self)
        self.rejoin()

    def rejoin(self) -> None:
        """Take a slot, where none is held: first of all, and after a fork."""
        # A description of its own, never inherited knowingly, never mapped.
        self.lock_fd = os.open(f"/proc/self/fd/{self.fd}", os.O_RDWR | os.O_CLOEXEC)
        for slot in range(PARTICIPANTS):
            if self._lock(slot, _SETLK, fcntl.F_WRLCK):
                self._scrub(slot)
                incarnation = self.slot_of(slot)[1]
                started = time.monotonic_ns()
                self._write_slot(slot, (0, incarnation, started, *[0] * 10))
                self._write_slot(slot, (os.getpid(), incarnation, started, *[0] * 10))
                self.slot = slot
                return
        os.close(self.lock_fd)
        self.lock_fd = -1
        raise Refused(FULL)

    def _forked(self) -> None:
        """In the child: the lock is the parent's, and so are the blocks."""
        if self.lock_fd >= 0:
            os.close(self.lock_fd)
        self.lock_fd = self.slot = -1
        self.held, self.local = 0, {}
        self.forks += 1

    def fini(self) -> None:
        """Give back all that is ours here; the memory goes with its last user."""
        if self.slot >= 0:
            self._scrub(self.slot)
        self.slot = -1
        for fd in (self.lock_fd, self.fd):
            if fd >= 0:
                os.close(fd)
        self.lock_fd = self.fd = -1
        _segments.discard(self)
        for name in ("map", "words", "since", "_store"):
            self.__dict__.pop(name, None)

    # -- locks and slots -------------------------------------------------------------

    def _lock(self, byte: int, command: int, kind: int) -> bool:
        """Whether the lock was got; of _GETLK, whether it could be."""
        flock = _FLOCK.pack(kind, os.SEEK_SET, byte, 1, 0)
        try:
            answer = fcntl.fcntl(self.lock_fd, command, flock)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise
        return command != _GETLK or _FLOCK.unpack(answer)[0] == fcntl.F_UNLCK

    def _swap(self, index: int, old: int, new: int) -> bool:
        """Store *new* if *old* stands there."""
        try:
            self._lock(_MUTEX, _SETLKW, fcntl.F_WRLCK)
            if self._store[index] != old:
                return False
            self._store[index] = new
            return True
        finally:
            self._lock(_MUTEX, _SETLK, fcntl.F_UNLCK)

    def slot_of(self, slot: int) -> tuple[int, ...]:
        """pid, incarnation, since, and the counters."""
        return _SLOT.unpack_from(self.map, _SLOTS + slot * _SLOT.size)[:10]

    def _write_slot(self, slot: int, fields: tuple[int, ...]) -> None:
        _SLOT.pack_into(self.map, _SLOTS + slot * _SLOT.size, *fields)

    def count(self, counter: str, n: int = 1) -> None:
        if self.slot >= 0:
            at = _SLOTS + self.slot * _SLOT.size + 16 + 8 * _COUNTERS.index(counter)
            (value,) = struct.unpack_from("=Q", self.map, at)
            struct.pack_into("=Q", self.map, at, (value + n) % 2**64)

    def alive(self, slot: int) -> bool:
        """Whether the participant in a slot lives."""
        return slot == self.slot or not self._lock(slot, _GETLK, fcntl.F_WRLCK)

    def _scrub(self, slot: int) -> int:
        """With the lock of the slot: nothing of its last participant stays."""
        at = _SLOTS + slot * _SLOT.size
        (incarnation,) = struct.unpack_from("=I", self.map, at + 4)
        # First: who sends a block into this slot from now on finds out, see send.
        struct.pack_into("=I", self.map, at + 4, (incarnation + 1) % 2**32)
        mine = (self.words >> np.uint64(slot) & np.uint64(1)).astype(bool)
        mine |= self.words >> np.uint64(32) & np.uint64(63) == slot + 1
        free_now = 0
        for index in np.flatnonzero(mine).tolist():
            free_now += self._withdraw(index, 1 << slot, slot + 1) == 1
        struct.pack_into("=I", self.map, at, 0)  # last: cut short, it is done again
        return free_now

    def _withdraw(self, index: int, holder: int, transit: int) -> int:
        while True:
            old = self._store[index]
            new = old & ~holder
            if transit and old >> 32 & 63 == transit:
                new &= ~_TRANSIT
            if new == old:
                return -1
            if self._swap(index, old, new):
                return int(new & _FREE == 0)

    def recover(self) -> int:
        """Take back what dead participants held; blocks that are free now."""
        named = int(np.bitwise_or.reduce(self.words)) & (1 << PARTICIPANTS) - 1
        for transit in np.unique(self.words >> np.uint64(32) & np.uint64(63)).tolist():
            named |= 1 << transit >> 1
        recovered = 0
        for slot in range(PARTICIPANTS):
            if slot == self.slot or not (self.slot_of(slot)[0] or named >> slot & 1):
                continue
            if self._lock(slot, _SETLK, fcntl.F_WRLCK):
                try:
                    recovered += self._scrub(slot)
                finally:
                    self._lock(slot, _SETLK, fcntl.F_UNLCK)
        self.count("recovered", recovered)
        return recovered

    # -- blocks ----------------------------------------------------------------------

    def word(self, index: int) -> int:
        return int(self._store[index])

    def _hold(self, index: int) -> None:
        self.local[index] = self.local.get(index, 0) + 1
        self.held = len(self.local)

    def _claim(self, index: int) -> bool:
        old = self._store[index]
        new = (old + _ONE_GENERATION | 1 << self.slot) % 2**64
        if old & _FREE or not self._swap(index, old, new):
            return False
        self.since[index] = time.monotonic_ns()
        self._hold(index)
        self.count("takes")
        return True

    def take(self) -> int | None:
        """A free block, now held by this process; or None. O(blocks)."""
        while not self._claim(self._last):
            free = np.flatnonzero(self.words & np.uint64(_FREE) == 0)
            if not free.size:
                return None
            self._last = int(free[0])
        return self._last

    def open(self, index: int, generation: int, moved: bool) -> bool:
        """Hold the block of a handle; False: it comes too late."""
        while True:
            old = self._store[index]
            if old >> 38 != generation or not old & _FREE:
                return False
            if moved and not old & _TRANSIT:
                return False
            new = (old & ~_TRANSIT if moved else old) | 1 << self.slot
            if self._swap(index, old, new):
                self._hold(index)
                self.count("opens")
                return True

    def give(self, index: int) -> None:
        """Drop one reference of this process."""
        references = self.local.get(index, 0) - 1
        if references < 0 or self.slot < 0:
            return
        self.count("gives")
        if references:
            self.local[index] = references
            return
        del self.local[index]
        self.held = len(self.local)
        if self._withdraw(index, 1 << self.slot, 0) == 1:
            self._last = index

    def send(self, index: int, slot: int, incarnation: int) -> int:
        """Let a block travel under the life of a participant: 0; -1: it travels
        already; -2: there is no such participant."""
        while True:
            old = self._store[index]
            if old & _TRANSIT:
                return -1
            pid, current, *_ = self.slot_of(slot)
            if not pid or current != incarnation:
                return -2
            if self._swap(index, old, old | slot + 1 << 32):
                break
        pid, current, *_ = self.slot_of(slot)
        if not pid or current != incarnation:  # too late for its scrub to see it?
            self._withdraw(index, 0, slot + 1)
            return -2
        self.count("sends")
        return 0

    def check(self) -> None:
        mine = self.words >> np.uint64(max(self.slot, 0)) & np.uint64(1)
        held = np.flatnonzero(mine).tolist() if self.slot >= 0 else []
        assert held == sorted(self.local), (held, self.local)
        assert self.held == len(held)
        assert all(n > 0 for n in self.local.values())
