"""Files of any size, block by block, in memory that does not grow."""

from __future__ import annotations

import asyncio
import gc
import os
import queue
import time
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Any, BinaryIO, SupportsIndex

import numpy as np
import numpy.typing as npt

from ctxpool import BlockPool
from ctxpool._arguments import count, seconds
from ctxpool.errors import PoolExhaustedError
from ctxpool.sizes import parse_size

from .limits import require_memory

__all__ = ["FileBlocks", "read_blocks"]

_POLL = 0.002  # seconds between two looks of a task for a block that came back
_SLICE = 0.02  # of a thread
_MOST = 1 << 20


class _Source:
    """A file that fills blocks, one after the other; used by one thread at a time."""

    def __init__(self, file: Any) -> None:
        self.owned = isinstance(file, str | bytes | os.PathLike)
        self.name = os.fsdecode(file) if self.owned else getattr(file, "name", file)
        if not self.owned and not hasattr(file, "readinto"):
            raise TypeError(
                f"file must be a path or a binary file with readinto(), not {file!r}"
            )
        self.file: BinaryIO = file
        if self.owned:
            self.file = open(file, "rb", buffering=0)  # noqa: SIM115 - close() does
        self.ended = False

    def fill(self, array: npt.NDArray[np.uint8], begin: int, end: int) -> int:
        """Read into ``array[begin:end]``, all or to the end; where the bytes end."""
        memory = memoryview(array)  # type: ignore[arg-type]
        while begin < end and not self.ended:
            n = self.file.readinto(memory[begin:end])  # type: ignore[attr-defined]
            if n is None:
                raise BlockingIOError(f"{self.name!r} is non-blocking, and has no data")
            begin += n
            self.ended = n == 0
        return begin

    def close(self) -> None:
        if self.owned:
            self.file.close()


class FileBlocks:
    """The blocks of a file, as writable memoryviews. Made by :func:`read_blocks`.

    An iterator, an asynchronous iterator and a context manager. A view may be kept;
    its block goes back to the pool when nothing reaches it any more.

    **Thread-safety**: one thread or task at a time may ask for the next block; the
    blocks themselves may be used and dropped by any.
    """

    def __init__(
        self,
        source: _Source,
        pool: BlockPool,
        *,
        in_flight: int,
        read_ahead: int,
        headroom: int,
        capacity: int,
        delimiter: bytes | None,
        timeout: float,
    ) -> None:
        self._source = source
        self.pool = pool
        self.in_flight = in_flight
        self._read_ahead = read_ahead
        self._headroom, self._capacity = headroom, capacity
        self._delimiter = delimiter
        self._timeout = timeout
        # A token for each block that may be out. They come back from finalizers, which
        # may run anywhere: a SimpleQueue allows for that, a semaphore does not.
        self._tokens: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(in_flight):
            self._tokens.put(None)
        self._carry = b""
        self._offset = 0  # of the next block's own bytes in the file
        self._closed = False
        self._executor: ThreadPoolExecutor | None = None
        self._ahead: deque[tuple[npt.NDArray[np.uint8], Future[int]]] = deque()

    # -- iteration ---------------------------------------------------------------------

    def __iter__(self) -> FileBlocks:
        return self

    def __next__(self) -> memoryview:
        while not self._closed:
            if self._read_ahead and not self._ahead:
                self._start(self._prepare())
            if self._ahead:
                array, reading = self._ahead[0]
                end = self._finish(reading.result)
                self._ahead.popleft()
            else:
                array = self._prepare()
                fill = partial(self._source.fill, array, self._headroom, self._capacity)
                end = self._finish(fill)
                del fill
            view = self._cut(array, end)
            del array
            self._top_up()
            if len(view):
                return view
            del view  # it has nothing, and holds a block
        raise StopIteration

    def __aiter__(self) -> FileBlocks:
        return self

    async def __anext__(self) -> memoryview:
        while not self._closed:
            if not self._ahead:
                self._start(await self._prepare_async())
            array, reading = self._ahead[0]
            # Who is cancelled here leaves the read to the next who asks.
            waiting = asyncio.wrap_future(reading)
            waiting.add_done_callback(lambda done: done.cancelled() or done.exception())
            await asyncio.wait([waiting])
            end = self._finish(reading.result)
            self._ahead.popleft()
            view = self._cut(array, end)
            del array
            self._top_up()
            if len(view):
                return view
            del view  # it has nothing, and holds a block
        raise StopAsyncIteration

    # -- its end -----------------------------------------------------------------------

    def close(self) -> None:
        """Stop reading, and close the file if it was opened here. Views stay good."""
        self._closed = True
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(cancel_futures=True)
        self._ahead.clear()
        self._source.close()

    def __enter__(self) -> FileBlocks:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        executor = self.__dict__.get("_executor")
        source = self.__dict__.get("_source")
        if source is None:
            return
        if executor is not None:
            # This may be the reading thread: it can't wait for itself.
            try:
                executor.submit(source.close)
            except RuntimeError:  # the interpreter ends, and its threads have ended
                source.close()
            executor.shutdown(wait=False)
        else:
            source.close()

    def __repr__(self) -> str:
        return f"<FileBlocks of {self._source.name!r}, at byte {self._offset}>"

    # -- blocks ------------------------------------------------------------------------

    def _prepare(self) -> npt.NDArray[np.uint8]:
        """Room for a block, as an array that gives its token back when it dies."""
        try:
            self._tokens.get(block=False)
        except queue.Empty:
            gc.collect()  # an exception's frames may keep some
            self._await_token()
        try:
            return self._owning(self.pool.empty())
        except BaseException:
            self._tokens.put(None)
            raise

    def _await_token(self) -> None:
        # Bit by bit: without a GIL, what another thread drops dies when the thread
        # that made it, this one, runs again.
        until = time.monotonic() + self._timeout
        while True:
            left = until - time.monotonic()
            try:
                self._tokens.get(timeout=max(0, min(_SLICE, left)))
                return
            except queue.Empty:
                if left <= 0:
                    raise self._too_many() from None

    async def _prepare_async(self) -> npt.NDArray[np.uint8]:
        until = time.monotonic() + self._timeout
        while True:
            try:
                self._tokens.get(block=False)
                break
            except queue.Empty:
                if time.monotonic() >= until:
                    raise self._too_many() from None
            await asyncio.sleep(_POLL)
        try:
            block = await self.pool.acquire_async()
            array = block.array()
            block.release()
            return self._owning(array)
        except BaseException:
            self._tokens.put(None)
            raise

    def _owning(self, array: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        weakref.finalize(array, self._tokens.put, None).atexit = False
        return array

    def _too_many(self) -> PoolExhaustedError:
        waited = f" after {self._timeout:g} s" if self._timeout else ""
        return PoolExhaustedError(
            f"all {self.in_flight} blocks of {self._source.name!r} that may be out "
            f"are still held{waited}: let go of some, copy what is to stay, or ask for "
            f"a larger in_flight or timeout"
        )

    def _start(self, array: npt.NDArray[np.uint8]) -> None:
        if self._executor is None:
            self._executor = ThreadPoolExecutor(1, "ctxpool-read-ahead")
        source, begin, end = self._source, self._headroom, self._capacity
        # In a box that is emptied, as an executor drops its arguments only after
        # others know the result, and the block could seem to be held.
        box = [array]
        reading = self._executor.submit(lambda: source.fill(box.pop(), begin, end))
        self._ahead.append((array, reading))

    def _top_up(self) -> None:
        """Read ahead as far as that can be done without waiting."""
        while (
            not self._closed
            and len(self._ahead) < self._read_ahead
            and not self._source.ended
        ):
            try:
                self._tokens.get(block=False)
            except queue.Empty:
                return
            block = None
            try:
                block = self.pool.try_acquire()
                if block is None:
                    return
                array = block.array()
                block.release()
            finally:
                if block is None:
                    self._tokens.put(None)
            self._start(self._owning(array))

    def _finish(self, read: Callable[[], int]) -> int:
        try:
            return read()
        except BaseException:
            self.close()
            raise

    def _cut(self, array: npt.NDArray[np.uint8], end: int) -> memoryview:
        """What is handed out of a block filled up to *end*: nothing, perhaps."""
        memory = memoryview(array)  # type: ignore[arg-type]
        carry = self._carry
        begin = self._headroom - len(carry)
        memory[begin : self._headroom] = carry
        own = end - self._headroom
        self._offset += own
        if end < self._capacity:
            self.close()
            # What there is of an overlap was handed out before.
            return memory[begin:end] if own or self._delimiter else memory[:0]
        if self._delimiter is None:
            if self._headroom:
                self._carry = bytes(memory[max(begin, end - self._headroom) : end])
            return memory[begin:end]
        stop = begin + _behind_last(memory[begin:end], self._delimiter)
        if end - stop > self._headroom:
            self.close()
            raise ValueError(
                f"a record of {self._source.name!r} is longer than "
                f"max_record={self._headroom}: it begins at byte "
                f"{self._offset - (end - stop)}"
            )
        self._carry = bytes(memory[stop:end])
        return memory[begin:stop]


def _behind_last(memory: memoryview, delimiter: bytes) -> int:
    """Where the last *delimiter* ends, 0 if there is none. O(what is behind it)."""
    size, tail = len(memory), 256
    while True:
        tail = min(2 * tail, size)
        found = bytes(memory[size - tail :]).rfind(delimiter)
        if found >= 0:
            return size - tail + found + len(delimiter)
        if tail == size:
            return 0


def read_blocks(
    file: str | os.PathLike[str] | BinaryIO,
    pool: BlockPool | None = None,
    *,
    block_size: SupportsIndex | str = "1MiB",
    in_flight: int = 4,
    read_ahead: int = 0,
    overlap: int = 0,
    delimiter: bytes | None = None,
    max_record: SupportsIndex | str | None = None,
    timeout: float | None = 0,
) -> FileBlocks:
    """A file of any size as blocks of memory that are used again and again.

    Each is a writable memoryview over a pool block, into which the file was read;
    nothing is copied, and the block goes back when nothing reaches it any more. Memory
    is that of *in_flight* blocks, however large the file is.

    Parameters
    ----------
    file : path or binary file
        A file object needs ``readinto``, as those of ``open(..., "rb")`` and of
        ``gzip`` have; it is read from where it stands and left open.
    pool : BlockPool, optional
        Shared with others perhaps; by default one of its own, of *in_flight* blocks.
    block_size : int or str
        Of the default pool.
    in_flight : int
        How many blocks may be out, those that are read ahead included. A loop holds
        one while the next is read.
    read_ahead : int
        Blocks that a thread reads while others are worked on. It pays where reading
        takes long and does not need the processor, as over a network; a local disk is
        read ahead by the system itself.
    overlap : int
        Each block but the first begins with so many bytes of the end of the one
        before: for windows and patterns that lie in two blocks.
    delimiter : bytes, optional
        Each block ends behind one, so that no record is cut: ``b"\\n"`` for lines.
    max_record : int or str, optional
        Bytes of the longest record, a quarter of a block by default; this room is
        set aside in each block for a record's beginning.
    timeout : float, optional
        Seconds to wait for a block to come back when all *in_flight* are held, without
        end with None. None are waited for by default: in a loop nobody would return
        one.

    Returns
    -------
    FileBlocks
        For ``for`` and ``async for``, and for ``with``.

    Raises
    ------
    PoolExhaustedError
        When all blocks are held. Nothing is lost: let go of one and go on.
    MemoryLimitError
        There is no memory for the default pool.
    ValueError
        A record is longer than *max_record*.
    OSError
        As the file's.

    Examples
    --------
    >>> import io
    >>> text = io.BytesIO(b"to be\\nor not\\nto be\\n")
    >>> for block in read_blocks(text, block_size=12, delimiter=b"\\n", max_record=6):
    ...     print(bytes(block))
    b'to be\\n'
    b'or not\\n'
    b'to be\\n'
    """
    in_flight = count("in_flight", in_flight, 1, _MOST)
    read_ahead = count("read_ahead", read_ahead, 0, _MOST)
    patience = seconds("timeout", timeout)
    size = parse_size(block_size, "block_size") if pool is None else pool.block_size
    if delimiter is None:
        if max_record is not None:
            raise ValueError(f"max_record={max_record!r} needs a delimiter")
        headroom = count("overlap", overlap, 0, size - 1)
    else:
        if not isinstance(delimiter, bytes) or not delimiter:
            raise ValueError(f"delimiter must be bytes, one at least: {delimiter!r}")
        if overlap:
            raise ValueError(f"overlap={overlap!r} and a delimiter exclude each other")
        longest = (
            size // 4 if max_record is None else parse_size(max_record, "max_record")
        )
        headroom = count("max_record", longest, 1, size - 1)
    source = _Source(file)
    try:
        if pool is None:
            require_memory(size * in_flight, f"reading {source.name!r}")
            # A token is back a moment before its block is: so it waits for that.
            pool = BlockPool(size, in_flight, on_exhausted="wait")
    except BaseException:
        source.close()
        raise
    return FileBlocks(
        source,
        pool,
        in_flight=in_flight,
        read_ahead=read_ahead,
        headroom=headroom,
        capacity=size,
        delimiter=delimiter,
        timeout=patience,
    )
