"""The shared pool in Python: what ``_native/shared_pool.pyx`` does, slower."""

from __future__ import annotations

import errno
import math
import os
import time
from collections import deque
from types import TracebackType
from typing import Any, Literal, SupportsIndex

from ctxpool import _shared_support as support
from ctxpool._arguments import choice, count, power_of_two, seconds
from ctxpool._pure.locks import new_lock, new_rlock
from ctxpool._pure.shared_block import SharedBlock, make_block
from ctxpool._pure.shared_segment import Refused, Segment
from ctxpool._shared_support import BlockHandle
from ctxpool.errors import BlockInUseError, PoolClosedError
from ctxpool.sizes import parse_size
from ctxpool.stats import SharedLoan, SharedParticipant, SharedPoolStats

__all__ = ["SharedBlock", "SharedBlockPool"]

_ON_EXHAUSTED = ("raise", "wait")


class _Locked:
    """The lock of a pool's segment, with all given back that was returned so far."""

    __slots__ = ("_pool",)

    def __init__(self, pool: SharedBlockPool) -> None:
        self._pool = pool

    def __enter__(self) -> Segment:
        self._pool._lock.acquire()
        try:
            self._pool._drain()
        except BaseException:
            self._pool._lock.release()
            raise
        return self._pool._segment

    def __exit__(self, *exc: object) -> None:
        self._pool._lock.release()
        self._pool._settle()


class SharedBlockPool:
    """Blocks of memory that several processes share, handed over without a copy.

    A process acquires a block, writes into it, and gives it away
    (:meth:`SharedBlock.send`) or shows it (:attr:`SharedBlock.handle`); what travels by
    queue, pipe or socket is a handle of some bytes, and :meth:`open` makes of it a
    block over the same memory. A block is free when no process holds it.

    Processes come by the pool in one of these ways, and all are equals then; the one
    that made it may go first:

    - by fork: the child of a process that has a pool uses that pool;
    - as an argument of ``multiprocessing.Process``, or of the initializer of a pool of
      processes, whatever the start method;
    - over a Unix socket: :meth:`send_fd` and :meth:`receive`;
    - any other way that carries a file descriptor: :meth:`fileno` and :meth:`from_fd`.

    **What is promised at kill -9.** The memory is one sealed memory file that has no
    name: nothing of it is ever seen in ``/dev/shm``, and the system frees it with the
    last process. There is no thread, and no lock that a dead process leaves held. A
    process that is killed, at whatever instruction, loses no block and sets none free
    that another one holds: what it held, and it alone, comes back at the next
    :meth:`recover`, which everyone does who finds the pool exhausted or waits. A block
    that was sent and not opened belongs to its sender till then, or to the participant
    it was sent ``to``: it comes back when that one dies or closes its pool. Whoever
    opens a handle too late gets :class:`~ctxpool.errors.BlockReleasedError`, and never
    another's block.

    Parameters
    ----------
    block_size : int or str
        Bytes of a block, or text such as ``"64KB"`` or ``"1MiB"``.
    blocks : int
        Blocks, up to 2**24.
    alignment : int
        Of each block's address; a power of two up to 4096. Blocks are padded to a
        multiple of it.
    on_exhausted : {"raise", "wait"}
        What an acquire of this process does when no block is free: raise
        :class:`~ctxpool.errors.PoolExhaustedError`, or wait until one comes back or its
        holder dies. There is no order among those who wait.
    timeout : float, optional
        Seconds to wait with ``"wait"``; without end by default.
    reserve : bool
        Take all memory from the system now: it can't be short of it later, when a
        first touch would be a fault (SIGBUS).
    name : str, optional
        For errors and statistics, in every process; up to 31 bytes.

    Raises
    ------
    OSError
        The system has no room; or it is not Linux 3.17 or newer, with ``/proc``.

    Notes
    -----
    **Thread-safety**: each call is atomic, between threads and between processes.

    **Forks**: the child of a fork is a participant of its own from its first call on.
    Blocks that the parent holds are the parent's alone: inherited ones are dead in the
    child. Arrays and views of them still show the memory, and do not hold it.

    At most 32 participants (processes) are attached at a time. All of one pool are
    native, or all pure. A block's handle may be forged by whoever has the pool: it
    separates processes that trust each other.

    Where it does not pay: messages of a few KiB, which are as quick through a pipe.

    Examples
    --------
    >>> pool = SharedBlockPool("1MiB", 4)
    >>> block = pool.acquire()
    >>> block.view[:5] = b"hello"
    >>> handle = block.send()                  # by any queue, pipe or socket
    >>> with pool.open(handle) as received:    # in this process or any other
    ...     bytes(received.view[:5])
    b'hello'
    >>> pool.close()
    """

    def __init__(
        self,
        block_size: SupportsIndex | str,
        blocks: SupportsIndex,
        *,
        alignment: SupportsIndex = 64,
        on_exhausted: Literal["raise", "wait"] = "raise",
        timeout: float | None = None,
        reserve: bool = False,
        name: str | None = None,
    ) -> None:
        if hasattr(self, "_segment"):
            raise RuntimeError("this pool is made already: make another")
        size = parse_size(block_size, "block_size")
        n = count("blocks", blocks, 1, support.MAX_BLOCKS)
        aligned = power_of_two("alignment", alignment, support.HEADER)
        self._begin(on_exhausted, timeout)
        encoded = support.name_in_bytes(name)
        try:
            self._segment = Segment.create(size, n, aligned, encoded, bool(reserve))
        except OSError as error:
            raise _no_segment(error, n, size) from None
        self._segment_block_size = size

    def __init_subclass__(cls) -> None:
        raise TypeError("type 'ctxpool.SharedBlockPool' is not an acceptable base type")

    @classmethod
    def from_fd(
        cls,
        fd: SupportsIndex,
        *,
        on_exhausted: Literal["raise", "wait"] = "raise",
        timeout: float | None = None,
    ) -> SharedBlockPool:
        """The pool behind a file descriptor. O(blocks).

        Parameters
        ----------
        fd : int
            From :meth:`fileno` of a participant. It stays the caller's, to close.
        on_exhausted, timeout
            As of the class, for this process.

        Raises
        ------
        SegmentError
            It holds no such pool, or one of another version or back end, or a damaged
            one.
        PoolExhaustedError
            The pool has 32 living participants.
        OSError
            It is no open file descriptor.
        """
        number = count("fd", fd, 0, 2**31 - 1)
        pool = cls.__new__(cls)
        pool._begin(on_exhausted, timeout)
        try:
            pool._segment = Segment.attach(number)
        except Refused as reason:
            support.refuse_segment(reason.args[0], number)
        pool._segment_block_size = pool._segment.block_size
        return pool

    @classmethod
    def receive(
        cls,
        sock: Any,
        *,
        on_exhausted: Literal["raise", "wait"] = "raise",
        timeout: float | None = None,
    ) -> SharedBlockPool:
        """The pool that :meth:`send_fd` sent over a Unix socket.

        Raises
        ------
        SegmentError
            What came is no such pool: see :meth:`from_fd`.
        TypeError, ValueError
            *sock* is no Unix socket.
        """
        fd = support.receive_fd(sock)
        try:
            return cls.from_fd(fd, on_exhausted=on_exhausted, timeout=timeout)
        finally:
            os.close(fd)

    def send_fd(self, sock: Any) -> None:
        """Send the pool over a Unix socket, to :meth:`receive` at its other end.

        Raises
        ------
        TypeError, ValueError
            *sock* is no Unix socket.
        PoolClosedError
            The pool is closed.
        """
        support.send_fd(sock, self.fileno())

    def fileno(self) -> int:
        """The file descriptor to hand on; it stays the pool's, and open till its end.

        Raises
        ------
        PoolClosedError
            The pool is closed.
        """
        self._open()
        return self._segment.fd

    # -- blocks ----------------------------------------------------------------------

    def acquire(self, timeout: float | None = None) -> SharedBlock:
        """A free block. O(1), 64 blocks a step where few are free (pure: O(blocks)).

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait, with ``on_exhausted="wait"``; the pool's own by default.

        Returns
        -------
        SharedBlock
            With the bytes its last user left; zeros, if it had none.

        Raises
        ------
        PoolExhaustedError
            No block is free, not even after :meth:`recover`, and the pool does not
            wait; or this process, after a fork, would be the 33rd.
        PoolTimeoutError
            No block became free in time.
        PoolClosedError
            The pool is closed.
        """
        patience = self._timeout if timeout is None else seconds("timeout", timeout)
        block = self._try_hard()
        if block is None and self._waits:
            block = support.wait_for_block(self, patience)
        if block is None:
            self._count_exhausted()
            support.refuse(self)
        return block

    async def acquire_async(self, timeout: float | None = None) -> SharedBlock:
        """As :meth:`acquire`, but what waits is a task of asyncio, not its thread.

        It looks again and again, at least every 50 ms: no thread and no file
        descriptor waits for it.
        """
        patience = self._timeout if timeout is None else seconds("timeout", timeout)
        block = self.try_acquire()
        if block is None and self._waits:
            block = await support.wait_in_task(self, patience)
        return self.acquire() if block is None else block

    def try_acquire(self) -> SharedBlock | None:
        """A free block, or None. Never waits, and does not :meth:`recover`.

        Raises
        ------
        PoolClosedError
            The pool is closed.
        """
        with _Locked(self):
            segment = self._joined()
            index = segment.take()
            if index is None:
                return None
            return make_block(self, index, segment.word(index) >> 38)

    def open(self, handle: BlockHandle) -> SharedBlock:
        """The block of a handle, now held by this process too. O(1), no copy.

        Raises
        ------
        BlockReleasedError
            It comes too late: nobody holds the block any more; or it was sent, and has
            been opened already.
        TypeError, ValueError
            *handle* is no handle, or one of another pool.
        PoolClosedError
            The pool is closed.
        """
        self._open()
        index, generation, moved = support.fields_of(
            handle, self._segment.id, self._segment.blocks
        )
        with _Locked(self):
            segment = self._joined()
            if segment.open(index, generation, moved):
                return make_block(self, index, generation)
            word = segment.word(index)
        support.late(handle, word)

    def recover(self) -> int:
        """Take back what participants held that are dead. O(blocks).

        Called by itself where an acquire finds no block, and while one waits.

        Returns
        -------
        int
            Blocks that are free now and were not before.

        Raises
        ------
        PoolClosedError
            The pool is closed.
        """
        with _Locked(self):
            return self._joined().recover()

    # -- what is known ---------------------------------------------------------------

    @property
    def participant(self) -> int:
        """This participant's number, for :meth:`SharedBlock.send` of another one."""
        with _Locked(self):
            segment = self._joined()
            incarnation = segment.slot_of(segment.slot)[1]
            return support.participant_of(segment.slot, incarnation)

    def participants(self) -> list[SharedParticipant]:
        """Who is attached, and who was and died with what is not recovered yet.

        O(blocks).
        """
        words, slots = self._snapshot()
        return support.participants_of(
            words, slots, self._segment.slot, time.monotonic_ns()
        )

    def loans(self, older_than: float = 0.0) -> list[SharedLoan]:
        """The blocks that are out: who has each of them, and for how long. O(blocks).

        Parameters
        ----------
        older_than : float
            Only blocks that have been out for as many seconds: leaks, perhaps.
        """
        age = seconds("older_than", older_than)
        words, slots = self._snapshot()
        return support.loans_of(words, slots, time.monotonic_ns(), age)

    def stats(self) -> SharedPoolStats:
        """What is counted in the segment, at this moment. O(blocks)."""
        words, slots = self._snapshot()
        return support.stats_of(
            self, words, slots, self._segment.held, len(self._deferred)
        )

    def check(self) -> None:
        """Walk the pool's invariants; AssertionError where one is broken. For tests."""
        with _Locked(self):
            self._joined().check()

    def close(self) -> None:
        """Leave: hand out nothing more, in this process.

        Blocks that it holds stay good till they are released; with the last of them it
        detaches. Blocks that it sent, and that are not opened by then, are free. Others
        go on. Closing twice does nothing.
        """
        with _Locked(self):
            self._closed = True
            self._finish()

    @property
    def name(self) -> str | None:
        """The pool's name."""
        return support.text(self._segment.name)

    @property
    def block_size(self) -> int:
        """Bytes of a block."""
        return self._segment_block_size

    @property
    def blocks(self) -> int:
        """Blocks, free or not."""
        return self._segment.blocks

    @property
    def alignment(self) -> int:
        """Of each block's address."""
        return self._segment.alignment

    @property
    def in_use(self) -> int:
        """Blocks that this process holds, also those whose release is deferred."""
        with _Locked(self) as segment:
            return segment.held

    @property
    def available(self) -> int:
        """Blocks that are free now. O(blocks)."""
        words, _ = self._snapshot()
        return sum(1 for word, _ in words if not word & (1 << 38) - 1)

    @property
    def closed(self) -> bool:
        """Whether the pool was closed, in this process."""
        return self._closed

    def __enter__(self) -> SharedBlockPool:
        self._open()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        name = "" if self.name is None else f"name={self.name!r}, "
        closed = ", closed" if self._closed else ""
        return (
            f"<SharedBlockPool {name}block_size={self.block_size}, "
            f"blocks={self.blocks}, in_use={self.in_use}{closed}>"
        )

    def __reduce__(self) -> Any:
        self._open()
        patience = None if self._timeout == math.inf else self._timeout
        policy = "wait" if self._waits else "raise"
        return type(self)._from_dup, (support.reducible(self), policy, patience)

    def __del__(self) -> None:
        # In a cycle that is collected, blocks and arrays may outlive it by a moment.
        if getattr(self, "_segment", None) is not None:
            self._closed = True
            self._finish()

    # -- inside ----------------------------------------------------------------------

    @classmethod
    def _from_dup(cls, dup: Any, on_exhausted: Any, timeout: Any) -> SharedBlockPool:
        fd = dup.detach()
        try:
            return cls.from_fd(fd, on_exhausted=on_exhausted, timeout=timeout)
        finally:
            os.close(fd)

    def _begin(self, on_exhausted: Any, timeout: Any) -> None:
        self._waits = choice("on_exhausted", on_exhausted, _ON_EXHAUSTED) == "wait"
        self._timeout = seconds("timeout", timeout)
        self._closed = False
        self._block_lock = new_rlock()  # the state of this pool's SharedBlock objects
        self._lock = new_lock()  # the segment; taken after the other
        self._returned: deque[tuple[int, int, bool]] = deque()
        self._deferred: deque[None] = deque()

    def _open(self) -> None:
        if self._closed:
            name = "" if self.name is None else f" {self.name!r}"
            raise PoolClosedError(f"the shared pool{name} is closed")

    def _joined(self) -> Segment:
        """The segment, for a participant; under the lock."""
        self._open()
        segment = self._segment
        if segment.slot < 0:  # the child of a fork
            try:
                segment.rejoin()
            except Refused as reason:
                support.refuse_segment(reason.args[0], segment.fd)
        return segment

    def _finish(self) -> None:
        """Detach, if all is over; under the lock."""
        if self._closed and not self._segment.held and self._segment.fd >= 0:
            self._segment.fini()

    def _give(self, index: int, forks: int, deferred: bool) -> None:
        """Take back a reference from wherever we are, a finalizer perhaps.

        The lock may be held, by this very thread: so it is put down first, and whoever
        has the lock picks it up.
        """
        self._returned.append((index, forks, deferred))
        self._settle()

    def _settle(self) -> None:
        while self._returned and self._lock.acquire(blocking=False):
            try:
                self._drain()
            finally:
                self._lock.release()

    def _drain(self) -> None:
        while self._returned:
            index, forks, deferred = self._returned.popleft()
            if deferred:
                self._deferred.pop()
            if forks == self._segment.forks:
                self._segment.give(index)
                self._finish()

    def _send(self, index: int, to: SupportsIndex | None) -> None:
        with _Locked(self) as segment:
            slot, incarnation = segment.slot, segment.slot_of(segment.slot)[1]
            if to is not None:
                number = count("to", to, 0, 2**37 - 1)
                incarnation, slot = divmod(number, support.PARTICIPANTS)
            state = segment.send(index, slot, incarnation)
        if state == -1:
            raise BlockInUseError(f"block {index} was sent already, and is in transit")
        if state == -2:
            raise ValueError(f"the shared pool has no living participant {to}")

    def _snapshot(self) -> tuple[support.Words, support.Slots]:
        with _Locked(self):
            segment = self._joined()
            words = list(
                zip(segment.words.tolist(), segment.since.tolist(), strict=True)
            )
            slots: support.Slots = []
            for slot in range(support.PARTICIPANTS):
                pid, incarnation, since, *counts = segment.slot_of(slot)
                alive = bool(pid) and segment.alive(slot)
                slots.append((pid, incarnation, alive, since, *counts))
        return words, slots

    def _segment_bytes(self) -> int:
        return self._segment.total

    # What ctxpool._shared_support asks of a pool in order to wait.

    def _try_hard(self) -> SharedBlock | None:
        block = self.try_acquire()
        if block is None and self.recover():
            block = self.try_acquire()
        return block

    def _count_exhausted(self) -> None:
        with _Locked(self) as segment:
            segment.count("exhausted")

    def _wait_begin(self) -> None:
        with _Locked(self):
            self._joined().count("waits")

    def _wait_end(self) -> None:
        pass

    def _seen(self) -> int:
        return 0

    def _wait(self, seen: int, patience: float) -> None:
        time.sleep(patience)


def _no_segment(error: OSError, blocks: int, size: int) -> OSError:
    if error.errno == errno.ENOTSUP:
        what = "a shared pool needs Linux 3.17 or newer"
    else:
        what = f"no shared pool of {blocks} blocks of {size} bytes: {error.strerror}"
    return OSError(error.errno, what)
