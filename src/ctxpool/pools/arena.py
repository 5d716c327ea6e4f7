"""Where the connections of an event loop receive: consecutive slices of pool blocks.

A read takes what room the current block has left, and leaves the rest to the next
read, of whichever connection. So a message of 20 bytes takes 20 bytes, an idle
connection holds nothing, and one block serves them all until somebody keeps it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol
from weakref import WeakKeyDictionary, WeakValueDictionary

from ctxpool import Block, BlockPool
from ctxpool.errors import PoolExhaustedError, PoolTimeoutError

__all__ = ["ReadArena", "arena_of"]

_SCRATCH = 256  # bytes that a connection may read before it stops for want of a block
_RETRY = 0.005  # seconds; of a pool that keeps no queue


class _Starved(Protocol):
    """A connection that has stopped reading because the pool is dry."""

    def room_is_back(self) -> None: ...

    def room_failed(self, error: BaseException) -> None: ...


class ReadArena:
    """Consecutive slices of a pool's blocks, for all that one event loop receives.

    :meth:`reserve` lends the room that is left in the current block, :meth:`commit`
    makes the first *n* bytes of it the reader's own, for as long as any slice of
    them lives. A block with less than a sixteenth of its room left is given up: it
    goes back to the pool when the last slice of it dies.

    Parameters
    ----------
    pool : BlockPool
        Any. Where it is dry, 256 bytes come from the heap, and the connection that
        read them stops until a block is back: in turn with others who wait, if the
        pool is one that waits, else by asking every 5 ms.

    Notes
    -----
    **Thread-safety**: none; it belongs to one event loop. Between ``reserve`` and
    ``commit`` nobody else may reserve, which is so on all loops that read by
    themselves when a socket is ready: asyncio's on POSIX systems, TLS on them, uvloop.

    Attributes
    ----------
    least : int
        Bytes of room below which a block is given up.
    heap_reads : int
        Reads for which the pool had no block.
    dry : bool
        Whether the last commit was one of them.
    base : memoryview or None
        The whole block or scratch that the last commit was in, from *begin*; who asked
        for it sets it to None, as it keeps the block.
    begin : int
        Where in *base* it began.

    Examples
    --------
    >>> arena = ReadArena(BlockPool(64, 2))
    >>> arena.reserve("me")[:5] = b"hello"
    >>> hello = arena.commit("me", 5)
    >>> len(arena.reserve("me")), bytes(hello)
    (59, b'hello')
    """

    __slots__ = (
        "__weakref__",
        "_at",
        "_block",
        "_hungry",
        "_owner",
        "_pump",
        "_room",
        "_view",
        "base",
        "begin",
        "dry",
        "heap_reads",
        "least",
        "pool",
    )

    def __init__(self, pool: BlockPool) -> None:
        if not hasattr(pool, "try_acquire"):
            raise TypeError(f"pool must be a BlockPool, not {pool!r}")
        self.pool = pool
        self.least = max(1, pool.block_size // 16)
        self.heap_reads = 0
        self.dry = False
        self.base: memoryview | None = None
        self.begin = 0
        self._block: Block | None = None  # None with a room: that is scratch
        self._view: memoryview | None = None
        self._room: memoryview | None = None
        self._at = 0
        self._owner: object = None
        self._hungry: deque[_Starved] = deque()
        self._pump: asyncio.Task[None] | None = None

    def reserve(self, owner: object) -> memoryview:
        """Room for *owner*'s next read, of a byte at least.

        Raises
        ------
        PoolClosedError, CorruptionError
            As :meth:`~ctxpool.BlockPool.acquire`.
        """
        room = self._room
        if room is None or self._block is None:
            room = self._refill()
        self._owner = owner
        return room

    def commit(self, owner: object, n: int) -> memoryview:
        """The first *n* bytes of *owner*'s reservation, to be kept or dropped.

        Raises
        ------
        RuntimeError
            The last to reserve was somebody else: his read would have overwritten
            this one.
        """
        room = self._room
        if room is None or owner is not self._owner:
            raise RuntimeError(f"{owner!r} has reserved nothing, or was overtaken")
        left = len(room) - n
        if n < 0 or left < 0:
            raise ValueError(f"{n} bytes of a reservation of {len(room)}")
        self._owner = None
        self.base, self.begin = self._view, self._at
        data = room[:n]
        if self._block is None:
            self.dry = True
            self.heap_reads += 1
            self._leave()
        else:
            self.dry = False
            if left < self.least:
                self._leave()
            else:
                self._at += n
                self._room = room[n:]
        return data

    def contiguous(self, view: memoryview | None, end: int, n: int) -> bool:
        """Whether the next *n* bytes may come to lie behind *end* of *view*.

        With None: whether they may lie anywhere in one piece.
        """
        if view is not None:
            return (
                view is self._view
                and end == self._at
                and self._room is not None
                and n <= len(self._room)
            )
        if self._room is None or self._block is None:
            return n <= self.pool.block_size
        return n <= len(self._room)

    # -- a pool that is dry ------------------------------------------------------------

    def wait_for_room(self, starved: _Starved) -> None:
        """Have ``starved.room_is_back()`` called in its turn.

        Or ``room_failed`` with the error of a pool that waits no longer than its
        timeout; the place in the queue is kept.
        """
        self._hungry.append(starved)
        if self._pump is None:
            loop = asyncio.get_running_loop()
            self._pump = loop.create_task(self._serve())

    def forget(self, starved: _Starved) -> None:
        """Leave the queue of those who wait for room."""
        if starved in self._hungry:
            self._hungry.remove(starved)
            if not self._hungry and self._pump is not None:
                self._pump.cancel()
                self._pump = None  # who comes next needs one that lives

    async def _serve(self) -> None:
        """One after the other, so that each finds what is left by those before."""
        me = asyncio.current_task()
        try:
            while self._hungry:
                if self._room is None or self._block is None:
                    block = await self._block_of_waiting_pool()
                    if self._room is None or self._block is None:
                        self._adopt(block)
                    del block
                if self._hungry:
                    self._hungry.popleft().room_is_back()
                # What it has to read is read before the next one is let in.
                await asyncio.sleep(0)
                await asyncio.sleep(0)
        except Exception as error:  # closed, or the pool found itself damaged
            while self._hungry:
                self._hungry.popleft().room_failed(error)
        finally:
            if self._pump is me:
                self._pump = None

    async def _block_of_waiting_pool(self) -> Block:
        while True:
            try:
                return await self.pool.acquire_async()
            except PoolTimeoutError as error:
                for starved in tuple(self._hungry):
                    starved.room_failed(error)
            except PoolExhaustedError:
                await asyncio.sleep(_RETRY)

    # -- blocks ------------------------------------------------------------------------

    def _refill(self) -> memoryview:
        block = self.pool.try_acquire()
        if block is None:
            try:
                block = self.pool.acquire(0)  # from the heap, if that is its way
            except PoolExhaustedError:
                if self._room is None:
                    self._view = self._room = memoryview(bytearray(_SCRATCH))
                    self._at = 0
                return self._room
        return self._adopt(block)

    def _adopt(self, block: Block) -> memoryview:
        self._block = block
        self._view = self._room = block.view
        self._at = 0
        return self._room

    def _leave(self) -> None:
        block = self._block
        self._view = self._room = self._block = None
        if block is not None:
            block.release()


_arenas: WeakKeyDictionary[
    asyncio.AbstractEventLoop, WeakValueDictionary[int, ReadArena]
] = WeakKeyDictionary()


def arena_of(pool: BlockPool) -> ReadArena:
    """The running loop's arena over *pool*; it lives while somebody keeps it."""
    loop = asyncio.get_running_loop()
    arenas = _arenas.get(loop)
    if arenas is None:
        arenas = _arenas.setdefault(loop, WeakValueDictionary())
    # By number: an arena keeps its pool, so the number is not another's meanwhile.
    arena = arenas.get(id(pool))
    if arena is None:
        arena = arenas[id(pool)] = ReadArena(pool)
    return arena
