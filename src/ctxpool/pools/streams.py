"""asyncio's streams, over the blocks of a pool."""

from __future__ import annotations

import asyncio
from asyncio import StreamWriter
from collections import deque
from collections.abc import Awaitable, Callable
from os import PathLike
from typing import Any

from ctxpool import BlockPool
from ctxpool._arguments import count
from ctxpool.errors import PoolTimeoutError

from .arena import arena_of
from .protocols import BlockProtocol
from .reader import BlockReader

__all__ = [
    "open_connection",
    "open_unix_connection",
    "start_server",
    "start_unix_server",
]

_LIMIT = 1 << 16


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
        reader, arena = self.reader, self._arena
        if reader is not None and reader._target is not None:
            return reader._target[reader._filled :]
        if arena is None:
            arena = self._arena = arena_of(self.pool)
        return arena.reserve(self)

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
    port: int | None = None,
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
