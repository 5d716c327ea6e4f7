"""A stream reader that gives out views of pool blocks."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Protocol

from ctxpool import BlockPool
from ctxpool.stats import _Record

from ._memory import block_view, heap_view

__all__ = ["BlockReader", "BlockReaderStats", "Connection"]

_EMPTY = memoryview(b"")


class Connection(Protocol):
    """What a reader asks of the protocol that feeds it."""

    pool: BlockPool

    @property
    def starved(self) -> bool:
        """Whether it has stopped because the pool is dry."""

    def contiguous(self, base: memoryview | None, end: int, n: int) -> bool:
        """Whether the next *n* bytes may come to lie behind *end* of *base*."""

    def want(self, insists: bool) -> None:
        """Somebody waits; if he *insists*, the pool is no reason to stop."""

    def pause_reading(self) -> None:
        """Receive nothing for now."""

    def resume_reading(self) -> None:
        """Receive again."""


@dataclass(frozen=True, slots=True)
class BlockReaderStats(_Record):
    """What a :class:`BlockReader` has done so far.

    Attributes
    ----------
    received : int
        Bytes that came.
    reads : int
        Receives they came in.
    copies : int
        Results put together from pieces that did not lie side by side.
    copied : int
        Bytes copied for that.
    heap_reads : int
        Receives for which the pool had no block.
    """

    received: int
    reads: int
    copies: int
    copied: int
    heap_reads: int


class BlockReader:
    """A :class:`asyncio.StreamReader` that gives out views of pool blocks.

    Made by :func:`open_connection` and :func:`start_server`. What lies in one piece is
    handed out as it is; a result is copied together only where it came to lie in two
    blocks, or with another connection's bytes between, which :meth:`stats` counts. A
    long ``readexactly`` is received right into the memory that it returns. Views may
    be kept; a block goes back when nothing reaches it any more.

    One coroutine may read at a time. One that is cancelled loses nothing: what came
    is there for the next read. After the end, or a broken connection, what came
    before it can still be read.

    Notes
    -----
    The reader stops receiving when more than twice its limit waits to be read, and
    when the pool is dry (see :class:`~ctxpool.pools.BlockProtocol`). A read that has
    part of its bytes and needs more never waits for the pool: it takes them to the
    heap, as the block it waits for may be its own. A read that has nothing yet waits,
    and raises :class:`~ctxpool.errors.PoolTimeoutError` if the pool was made with a
    timeout; it may be repeated.

    **Thread-safety**: none; it belongs to its event loop.
    """

    def __init__(self, protocol: Connection, limit: int) -> None:
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._limit = limit
        self._pieces: deque[memoryview] = deque()
        self._size = 0
        # The last piece ends at _end of _base, so what comes behind it can join it.
        self._base: memoryview | None = None
        self._begin = self._end = 0
        # What a read receives right into, while it waits.
        self._target: memoryview | None = None
        self._filled = 0
        self._eof = False
        self._error: BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._wanted = 1  # bytes, by whoever waits
        self._stopped = False  # more than enough has come
        self._insists = False  # whoever waits has part of what he needs
        self._reads = self._received = self._copies = self._copied = self._heap = 0

    # -- reading -----------------------------------------------------------------------

    async def readany(self) -> memoryview:
        """What there is, in one piece; waits for a byte at least. Empty at the end.

        Never a copy.
        """
        while not self._size and not self._eof:
            await self._more(insists=False)
        return self._take(len(self._pieces[0])) if self._size else self._at_end()

    async def read(self, n: int = -1) -> memoryview:
        """Up to *n* bytes in one piece; waits for a byte at least. Empty at the end.

        With -1 all until the end, copied to the heap, so that it holds no blocks.
        """
        if n < 0:
            return await self._all()
        if n == 0:
            return _EMPTY
        while not self._size and not self._eof:
            await self._more(insists=False)
        if not self._size:
            return self._at_end()
        return self._take(min(n, len(self._pieces[0])))

    async def _all(self) -> memoryview:
        parts = bytearray()
        try:
            while True:
                if self._size:
                    self._copies += 1
                    self._copied += self._size
                while self._size:
                    parts += self._take(len(self._pieces[0]))
                if self._eof:
                    self._check_error()
                    return memoryview(parts)
                await self._more(insists=False)
        except BaseException:
            self._put_back(parts)
            raise

    async def readexactly(self, n: int) -> memoryview:
        """*n* bytes in one piece.

        Raises
        ------
        asyncio.IncompleteReadError
            The end came before; ``partial`` has what there was.
        """
        if n < 0:
            raise ValueError(f"n must not be negative, not {n}")
        if n == 0:
            return _EMPTY
        while self._size < n:
            if self._eof:
                self._incomplete(n)
            if self._in_one_piece(n):
                await self._more(self._size > 0, n)
            else:
                target = self._memory(n)
                await self._receive_into(target)
                return target
        return self._take(n)

    async def readexactly_into(self, buffer: Any) -> None:
        """Fill *buffer*, a writable, contiguous one; the kernel does so where it can.

        Raises
        ------
        asyncio.IncompleteReadError
            The end came before; ``partial`` has what there was.
        BufferError, TypeError
            *buffer* is not contiguous, read-only, or no buffer.
        """
        target = memoryview(buffer)
        if target.readonly:
            raise TypeError(f"a writable buffer is needed, not {buffer!r}")
        if not target.c_contiguous:
            raise BufferError("a contiguous buffer is needed")
        if target.nbytes:
            await self._receive_into(target.cast("B"), keep=False)

    async def readuntil(self, separator: bytes = b"\n") -> memoryview:
        """All up to *separator* and with it, in one piece.

        Raises
        ------
        asyncio.IncompleteReadError
            The end came before; ``partial`` has what there was.
        asyncio.LimitOverrunError
            More than the limit came without one. It all stays to be read.
        """
        if not separator:
            raise ValueError("separator must be one byte at least")
        pattern = re.compile(re.escape(separator))
        searched = 0
        while True:
            end = self._find(pattern, len(separator), searched)
            if end > self._limit or (end < 0 and self._size > self._limit):
                found = "found, but it is" if end >= 0 else "not found, and the bytes"
                raise asyncio.LimitOverrunError(
                    f"separator {found} beyond the limit of {self._limit}",
                    max(end, self._size - len(separator) + 1),
                )
            if end >= 0:
                return self._take(end)
            if self._eof:
                self._incomplete(None)
            searched = max(0, self._size - len(separator) + 1)
            await self._more(insists=self._size > 0)

    async def readline(self) -> memoryview:
        """A line with its end, or what there was without one. Empty at the end.

        Raises
        ------
        asyncio.LimitOverrunError
            As :meth:`readuntil`.
        """
        try:
            return await self.readuntil(b"\n")
        except asyncio.IncompleteReadError as error:
            return memoryview(error.partial)

    async def __aiter__(self) -> AsyncIterator[memoryview]:
        """What comes, piece by piece as :meth:`readany`, until the end."""
        while chunk := await self.readany():
            yield chunk

    def at_eof(self) -> bool:
        """Whether the end has come and all is read."""
        return self._eof and not self._size

    def exception(self) -> BaseException | None:
        """What broke the connection."""
        return self._error

    def stats(self) -> BlockReaderStats:
        """What it has done so far."""
        return BlockReaderStats(
            self._received, self._reads, self._copies, self._copied, self._heap
        )

    def __repr__(self) -> str:
        state = ", at its end" if self._eof else ""
        return f"<BlockReader, {self._size} bytes to be read{state}>"

    # -- waiting -----------------------------------------------------------------------

    async def _more(self, insists: bool, size: int = 1) -> None:
        """Wait until something has come, or the end.

        With *size*, until there is so much, or in more than one piece.
        """
        if self._waiter is not None:
            raise RuntimeError("another coroutine is reading from this stream already")
        if self._stopped or insists:
            self._stopped = False
            self._protocol.want(insists)
        self._insists, self._wanted = insists, size
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
            self._insists, self._wanted = False, 1

    async def _receive_into(self, target: memoryview, keep: bool = True) -> None:
        """Fill *target*, of bytes. What it had of a read that fails stays to be read:
        in *target* itself, if that may be kept."""
        n = len(target)
        if self._waiter is not None:
            raise RuntimeError("another coroutine is reading from this stream already")
        filled = 0
        try:
            filled = self._move_into(target)
            while filled < n and not self._eof:
                self._target, self._filled = target, filled
                try:
                    await self._more(insists=True)
                finally:
                    filled, self._target = self._filled, None
        except BaseException:
            self._put_back(target[:filled] if keep else bytes(target[:filled]))
            raise
        if filled < n:
            self._put_back(target[:filled] if keep else bytes(target[:filled]))
            self._incomplete(n)

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _at_end(self) -> memoryview:
        self._check_error()
        return _EMPTY

    def _check_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _incomplete(self, expected: int | None) -> None:
        self._check_error()
        raise asyncio.IncompleteReadError(bytes(self._take(self._size)), expected)

    # -- what came ---------------------------------------------------------------------

    def feed(self, data: memoryview, base: memoryview, begin: int, dry: bool) -> None:
        """Take *data*, which begins at *begin* of *base*."""
        n = len(data)
        self._reads += 1
        self._received += n
        self._heap += dry
        self._size += n
        if base is self._base and begin == self._end:
            self._end += n
            self._pieces[-1] = base[self._begin : self._end]
        else:
            self._pieces.append(data)
            self._base, self._begin, self._end = base, begin, begin + n
        if self._size >= self._wanted or len(self._pieces) > 1:
            self._wake()
            if self._size > max(self._wanted, 2 * self._limit):
                self._stopped = True
                self._protocol.pause_reading()

    def target_received(self, n: int) -> None:
        """So many bytes went there."""
        self._reads += 1
        self._received += n
        self._filled += n
        if self._target is not None and self._filled == len(self._target):
            self._target = None
            self._wake()

    def feed_end(self, error: BaseException | None) -> None:
        """Nothing more will come."""
        self._eof = True
        if error is not None:
            self._error = error
        self._wake()

    def pool_failed(self, error: BaseException) -> None:
        """The pool has no block for whoever waits with nothing to hand."""
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)

    def _in_one_piece(self, n: int) -> bool:
        """Whether *n* bytes may come to lie side by side."""
        if len(self._pieces) > 1 or self._protocol.starved:
            return False
        return self._protocol.contiguous(self._base, self._end, n - self._size)

    def _take(self, n: int) -> memoryview:
        """The next *n* bytes in one piece; so many are there."""
        if n == 0:
            return _EMPTY
        head = self._pieces[0]
        if n < len(head):
            self._pieces[0] = head[n:]
            data = head[:n]
            self._size -= n
            if len(self._pieces) == 1:
                self._begin += n
        elif n == len(head):
            data = self._pieces.popleft()
            self._size -= n
            if not self._pieces:
                self._base = None
        else:
            data = self._memory(n)
            self._move_into(data)
        if self._stopped and self._size <= self._limit:
            self._stopped = False
            self._protocol.resume_reading()
        return data

    def _move_into(self, target: memoryview) -> int:
        """Copy as much as fits and is there."""
        filled = 0
        while self._pieces and filled < len(target):
            piece = self._pieces[0][: len(target) - filled]
            target[filled : filled + len(piece)] = piece
            filled += len(piece)
            self._size -= len(piece)
            if len(piece) < len(self._pieces[0]):
                self._pieces[0] = self._pieces[0][len(piece) :]
                if len(self._pieces) == 1:
                    self._begin += len(piece)
            else:
                self._pieces.popleft()
        if not self._pieces:
            self._base = None
        if filled:
            self._copies += 1
            self._copied += filled
        return filled

    def _put_back(self, data: Any) -> None:
        if len(data):
            self._pieces.appendleft(memoryview(data))
            self._size += len(data)
            if len(self._pieces) == 1:
                self._base = None

    def _memory(self, n: int) -> memoryview:
        """For *n* bytes: of a block, where they are a good part of one."""
        pool = self._protocol.pool
        if pool.block_size // 16 < n <= pool.block_size:
            block = pool.try_acquire()
            if block is not None:
                return block_view(block)[:n]
        return heap_view(n)

    def _find(self, pattern: re.Pattern[bytes], length: int, start: int) -> int:
        """Where the separator ends, at *start* or behind it; -1 if nowhere."""
        offset, before = 0, b""
        for piece in self._pieces:
            if offset + len(piece) > start:
                if before:
                    seam = before + bytes(piece[: length - 1])
                    match = pattern.search(seam)
                    if match:
                        return offset - len(before) + match.end()
                match = pattern.search(piece, max(0, start - offset))
                if match:
                    return offset + match.end()
            if length > 1:
                before = (before + bytes(piece[-(length - 1) :]))[-(length - 1) :]
            offset += len(piece)
        return -1
