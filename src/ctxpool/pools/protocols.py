"""A protocol for asyncio that receives into the blocks of a pool."""

from __future__ import annotations

import asyncio

from ctxpool import BlockPool

from .arena import ReadArena, arena_of

__all__ = ["BlockProtocol"]


class BlockProtocol(asyncio.BufferedProtocol):
    """An :class:`asyncio.Protocol` whose ``data_received`` gets views of pool blocks.

    The bytes are where the kernel has put them: no buffer is made for a read, and
    nothing is copied. A view may be kept, sliced, sent or made an array, for as long
    as it is needed; its block goes back to the pool when nothing reaches it any more.

    A class of one's own overrides :meth:`data_received` and what else it needs of
    :class:`asyncio.BufferedProtocol`; where it overrides ``connection_made`` and
    ``connection_lost``, it calls these. An exception of ``data_received`` closes the
    connection, as in any protocol.

    Parameters
    ----------
    pool : BlockPool
        Shared by all connections of a loop that are given the same. They receive one
        behind the other into one block at a time (see
        :class:`~ctxpool.pools.ReadArena`), so a kept view keeps what else is in its
        block: what is small and stays for long is better copied, ``bytes(data)``.

    Attributes
    ----------
    transport : asyncio.Transport or None
        From ``connection_made`` to ``connection_lost``. After ``loop.start_tls`` set
        it to the new one.

    Notes
    -----
    When the pool is dry the connection receives 256 bytes more, from the heap, and
    then stops reading, so that the peer has to wait. It reads on when a block is
    back: those who wait are served in turn, and nothing is lost. To stop reading for
    reasons of one's own, use :meth:`pause_reading`, not the transport's.

    It works under asyncio's own loops, with TLS, and under uvloop.

    **Thread-safety**: none; it belongs to its event loop. The views may be used and
    dropped by any thread.

    Examples
    --------
    >>> class Echo(BlockProtocol):
    ...     def data_received(self, data):
    ...         self.transport.write(data)
    >>> pool = BlockPool("64KiB", 64, on_exhausted="wait")
    >>> async def serve():
    ...     loop = asyncio.get_running_loop()
    ...     return await loop.create_server(lambda: Echo(pool), "localhost", 8888)
    """

    def __init__(self, pool: BlockPool) -> None:
        self.pool = pool
        self.transport: asyncio.Transport | None = None
        self._arena: ReadArena | None = None
        self._paused = False  # by its user
        self._starved = False  # by the pool

    def data_received(self, data: memoryview) -> None:
        """Called with what came: a writable view, never empty. To be overridden."""

    # -- asyncio's calls ---------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of the transport and of the room to receive in."""
        arena, self._arena, self.transport = self._arena, None, None
        if arena is not None and self._starved:
            arena.forget(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """The room that is left in the current block."""
        arena = self._arena
        if arena is None:
            arena = self._arena = arena_of(self.pool)
        return arena.reserve(self)

    def buffer_updated(self, nbytes: int) -> None:
        """Hand on what came."""
        arena = self._arena
        assert arena is not None
        data = arena.commit(self, nbytes)
        if arena.dry:
            self._starve()
        arena.base = None
        self.data_received(data)

    # -- flow control ------------------------------------------------------------------

    def pause_reading(self) -> None:
        """Receive nothing until :meth:`resume_reading`. Twice is as once."""
        self._paused = True
        self._apply()

    def resume_reading(self) -> None:
        """Receive again, unless the pool is dry."""
        self._paused = False
        self._apply()

    def room_is_back(self) -> None:
        """The pool has a block for this connection."""
        self._starved = False
        self._apply()

    def room_failed(self, error: BaseException) -> None:
        """The pool has none, and says why: it was closed, or its timeout is over.

        A closed pool, or a damaged one, closes the connection when it reads next.
        """
        arena = self._arena
        if arena is not None and self not in arena._hungry:
            self.room_is_back()

    def _starve(self) -> None:
        if not self._starved and self._arena is not None:
            self._starved = True
            self._apply()
            self._arena.wait_for_room(self)

    def _apply(self) -> None:
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        if self._paused or self._starved:
            if transport.is_reading():
                transport.pause_reading()
        elif not transport.is_reading():
            transport.resume_reading()
