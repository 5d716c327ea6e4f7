"""asyncio's streams, over the blocks of a pool."""

from __future__ import annotations

import asyncio
import re
from asyncio import StreamWriter
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np

from ctxpool import BlockPool
from ctxpool._arguments import count
from ctxpool.errors import PoolTimeoutError
from ctxpool.stats import _Record

from .protocols import BlockProtocol

__all__ = [
    "BlockReader",
    "BlockReaderStats",
    "open_connection",
    "open_unix_connection",
    "start_server",
    "start_unix_server",
]

_LIMIT = 1 << 16
_EMPTY = memoryview(b"")


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

    def __init__(self, protocol: _StreamProtocol, limit: int) -> None:
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
        self._insists = False  # whoever waits has part of what he needs
        self._reads = self._received = self._copies = self._copied = self._heap = 0

    # -- reading -----------------------------------------------------------------------

    async def readany(self) -> memoryview:
        """What there is, in one piece; waits for a byte at least. Empty at the end.

        Never a copy.
        """
        await self._fill(1)
        return self._take(len(self._pieces[0])) if self._pieces else _EMPTY

    async def read(self, n: int = -1) -> memoryview:
        """Up to *n* bytes in one piece; waits for a byte at least. Empty at the end.

        With -1 all until the end, copied together if they are more than one piece.
        """
        if n < 0:
            while not self._eof:
                await self._more(insists=True)
            self._check_error()
            return self._take(self._size)
        if n == 0:
            return _EMPTY
        await self._fill(1)
        return self._take(min(n, len(self._pieces[0]))) if self._pieces else _EMPTY

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
                await self._more(insists=self._size > 0)
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

    async def _fill(self, n: int) -> None:
        while self._size < n and not self._eof:
            await self._more(insists=False)
        if not self._size:
            self._check_error()

    async def _more(self, insists: bool) -> None:
        """Wait until something has come, or the end."""
        if self._waiter is not None:
            raise RuntimeError("another coroutine is reading from this stream already")
        self._insists = insists
        self._waiter = self._loop.create_future()
        self._protocol.want(insists)
        try:
            await self._waiter
        finally:
            self._waiter = None
            self._insists = False

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
        if self._size > 2 * self._limit:
            self._protocol.pause_reading()
        self._wake()

    def target(self) -> memoryview | None:
        """Where the next bytes are to go, if that is not a block."""
        target = self._target
        return None if target is None else target[self._filled :]

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
        if self._size <= self._limit:
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
                view = block.view[:n]
                block.release()
                return view
        return memoryview(np.empty(n, np.uint8))

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


class _StreamProtocol(BlockProtocol):
    """Between a transport, a :class:`BlockReader` and a :class:`asyncio.StreamWriter`.

    The writer is asyncio's own, and asks its protocol for ``_drain_helper`` and
    ``_get_close_waiter``, and on ``start_tls`` for the two ``_replace`` methods.
    """

    def __init__(
        self,
        pool: BlockPool,
        limit: int,
        client_connected: Callable[[BlockReader, StreamWriter], Any] | None = None,
    ) -> None:
        super().__init__(pool)
        self._loop = asyncio.get_running_loop()
        self.reader: BlockReader | None = BlockReader(self, limit)
        self._client_connected_cb = client_connected
        self._task: asyncio.Task[Any] | None = None
        self._over_ssl = False
        self._lost = self._writing_paused = False
        self._drainers: deque[asyncio.Future[None]] = deque()
        self._closed: asyncio.Future[None] = self._loop.create_future()

    @property
    def starved(self) -> bool:
        return self._starved

    def contiguous(self, base: memoryview | None, end: int, n: int) -> bool:
        arena = self._arena
        if arena is None:
            return base is None and n <= self.pool.block_size
        return arena.contiguous(base, end, n)

    def want(self, insists: bool) -> None:
        """The reader waits; if it *insists*, the pool is no reason to stop."""
        if insists and self._starved:
            if self._arena is not None:
                self._arena.forget(self)
            self._starved = False
        self.resume_reading()

    def resume_reading(self) -> None:
        if self._paused or not self._starved:
            super().resume_reading()

    def room_failed(self, error: BaseException) -> None:
        if isinstance(error, PoolTimeoutError) and self.reader is not None:
            self.reader.pool_failed(error)
        super().room_failed(error)

    # -- asyncio's calls ---------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._over_ssl = transport.get_extra_info("sslcontext") is not None
        if self._client_connected_cb is None:
            return
        assert self.reader is not None
        writer = StreamWriter(self.transport, self, None, self._loop)  # type: ignore[arg-type]
        result = self._client_connected_cb(self.reader, writer)
        if asyncio.iscoroutine(result):
            self._task = self._loop.create_task(result)
            self._task.add_done_callback(self._client_done)

    def _client_done(self, task: asyncio.Task[Any]) -> None:
        transport, self._task = self.transport, None
        if task.cancelled():
            error = None
        else:
            error = task.exception()
            if error is not None:
                self._loop.call_exception_handler(
                    {
                        "message": "Unhandled exception in client_connected_cb",
                        "exception": error,
                        "transport": transport,
                    }
                )
        if transport is not None and (error is not None or task.cancelled()):
            transport.close()

    def get_buffer(self, sizehint: int) -> memoryview:
        if self.reader is not None:
            target = self.reader.target()
            if target is not None:
                return target
        return super().get_buffer(sizehint)

    def buffer_updated(self, nbytes: int) -> None:
        reader, arena = self.reader, self._arena
        if reader is not None and reader._target is not None:
            reader.target_received(nbytes)
            return
        assert arena is not None
        data = arena.commit(self, nbytes)
        base, arena.base = arena.base, None
        if arena.dry and (reader is None or not reader._insists):
            self._starve()
        if reader is not None and base is not None:
            reader.feed(data, base, arena.begin, arena.dry)

    def eof_received(self) -> bool:
        if self.reader is not None:
            self.reader.feed_end(None)
        return not self._over_ssl  # a TLS connection can't be half closed

    def connection_lost(self, exc: Exception | None) -> None:
        reader = self.reader
        if reader is not None:
            reader.feed_end(exc)
        if not self._closed.done():
            if exc is None:
                self._closed.set_result(None)
            else:
                self._closed.set_exception(exc)
                self._closed.exception()  # nobody has to ask for it
        self._lost = True
        for waiter in self._drainers:
            if not waiter.done():
                if exc is None:
                    waiter.set_result(None)
                else:
                    waiter.set_exception(exc)
        self.reader = None
        super().connection_lost(exc)

    # -- for the writer ----------------------------------------------------------------

    def pause_writing(self) -> None:
        self._writing_paused = True

    def resume_writing(self) -> None:
        self._writing_paused = False
        for waiter in self._drainers:
            if not waiter.done():
                waiter.set_result(None)

    async def _drain_helper(self) -> None:
        if self._lost:
            raise ConnectionResetError("Connection lost")
        if not self._writing_paused:
            return
        waiter = self._loop.create_future()
        self._drainers.append(waiter)
        try:
            await waiter
        finally:
            self._drainers.remove(waiter)

    def _get_close_waiter(self, writer: StreamWriter) -> asyncio.Future[None]:
        return self._closed

    def _replace_transport(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self._over_ssl = transport.get_extra_info("sslcontext") is not None

    def _replace_writer(self, writer: StreamWriter) -> None:
        self._replace_transport(writer.transport)  # type: ignore[arg-type]


ClientConnected = Callable[[BlockReader, StreamWriter], Awaitable[None] | None]


def _check_limit(limit: int) -> int:
    return count("limit", limit, 1, 1 << 62)


async def open_connection(
    host: str | None = None,
    port: int | str | None = None,
    *,
    pool: BlockPool,
    limit: int = _LIMIT,
    **options: Any,
) -> tuple[BlockReader, StreamWriter]:
    """:func:`asyncio.open_connection`, with a reader over *pool*.

    Parameters
    ----------
    host, port
        As there.
    pool : BlockPool
        Where the reader receives; it may be shared with any number of others.
    limit : int
        Bytes of the longest line, and half of what may wait to be read.
    **options
        For ``loop.create_connection``: ``ssl``, ``sock``, ``family`` and so on.

    Returns
    -------
    BlockReader, asyncio.StreamWriter
    """
    return await _connect(
        lambda loop, make: loop.create_connection(make, host, port, **options),
        pool,
        limit,
    )


async def start_server(
    client_connected_cb: ClientConnected,
    host: str | None = None,
    port: int | str | None = None,
    *,
    pool: BlockPool,
    limit: int = _LIMIT,
    **options: Any,
) -> asyncio.Server:
    """:func:`asyncio.start_server`, with readers over *pool*.

    All connections share the pool's blocks, so that what they have received and not
    dropped yet can never be more than the pool.

    Parameters
    ----------
    client_connected_cb : callable
        Called with each connection's :class:`BlockReader` and
        :class:`asyncio.StreamWriter`; a coroutine function becomes a task.
    host, port
        As there.
    pool, limit
        As :func:`open_connection`.
    **options
        For ``loop.create_server``.
    """
    loop, limit = asyncio.get_running_loop(), _check_limit(limit)
    return await loop.create_server(
        lambda: _StreamProtocol(pool, limit, client_connected_cb), host, port, **options
    )


async def open_unix_connection(
    path: str | PathLike[str] | None = None,
    *,
    pool: BlockPool,
    limit: int = _LIMIT,
    **options: Any,
) -> tuple[BlockReader, StreamWriter]:
    """:func:`asyncio.open_unix_connection`, with a reader over *pool*.

    As :func:`open_connection`.
    """
    where: Any = path
    return await _connect(
        lambda loop, make: loop.create_unix_connection(make, where, **options),
        pool,
        limit,
    )


async def start_unix_server(
    client_connected_cb: ClientConnected,
    path: str | PathLike[str] | None = None,
    *,
    pool: BlockPool,
    limit: int = _LIMIT,
    **options: Any,
) -> asyncio.Server:
    """:func:`asyncio.start_unix_server`, with readers over *pool*.

    As :func:`start_server`.
    """
    loop, limit = asyncio.get_running_loop(), _check_limit(limit)
    return await loop.create_unix_server(
        lambda: _StreamProtocol(pool, limit, client_connected_cb), path, **options
    )


async def _connect(
    connect: Callable[..., Any], pool: BlockPool, limit: int
) -> tuple[BlockReader, StreamWriter]:
    loop, limit = asyncio.get_running_loop(), _check_limit(limit)
    transport, protocol = await connect(loop, lambda: _StreamProtocol(pool, limit))
    return protocol.reader, StreamWriter(transport, protocol, None, loop)
