"""Pickle protocol 5 with its buffers in pool blocks.

What goes out is a *frame*, one pickle with all its buffers (see
:mod:`ctxpool.pools.frames`), for a file, a socket or another thread.

It is pickle: **load nothing from whom you would not let run code**. The checks find
accidents, not attackers.
"""

from __future__ import annotations

import asyncio
import pickle
from typing import Any, SupportsIndex
from zlib import crc32

from ctxpool import BlockPool
from ctxpool._arguments import choice
from ctxpool.errors import FrameError

from ._memory import block_view, heap_view
from .frames import (
    ALIGNMENT,
    CHECKED,
    OVERSIZE,
    Oversize,
    Unpacker,
    aligned,
    check_longest,
    check_payload,
    head_of,
    truncated,
)

__all__ = ["dump", "dumps", "frame", "load", "load_async", "loads"]

_EMPTY = memoryview(b"")

# -- writing ---------------------------------------------------------------------------


def _laid_out(obj: Any, checksum: bool) -> tuple[bytes, list[tuple[memoryview, bytes]]]:
    """What comes before the payload; and each buffer, with the zeros behind it."""
    pickled: list[pickle.PickleBuffer] = []
    data = pickle.dumps(obj, protocol=5, buffer_callback=pickled.append)
    buffers, offsets, at = [], [], 0
    for view in (buffer.raw() for buffer in pickled):
        padding = bytes(aligned(view.nbytes) - view.nbytes)
        buffers.append((view, padding))
        offsets.append(at)
        at += view.nbytes + len(padding)
    check = None
    if checksum:
        check = 0
        for view, padding in buffers:
            check = crc32(padding, crc32(view, check))
    lengths = [view.nbytes for view, _ in buffers]
    return head_of(data, offsets, lengths, at, check), buffers


def frame(obj: Any, *, checksum: bool = False) -> list[bytes | memoryview]:
    """The frame of *obj* as buffers to be written one after the other. No copy.

    The buffers of *obj* are among them as they are: write them, with
    ``writer.writelines(frame(obj))`` or ``sock.sendmsg``, before *obj* changes.

    Parameters
    ----------
    obj : object
        Whatever pickles. Arrays that are contiguous, in C or in Fortran order, and
        :class:`pickle.PickleBuffer` go beside the pickle; others into it.
    checksum : bool
        Of the payload too, at about 1 GB/s. The rest always has one.

    Raises
    ------
    pickle.PicklingError, TypeError, AttributeError
        As ``pickle.dumps``; so too for a buffer that is not contiguous.

    Examples
    --------
    >>> import numpy as np
    >>> parts = frame({"x": np.arange(3.0)})
    >>> loads(b"".join(parts))
    {'x': array([0., 1., 2.])}
    """
    head, buffers = _laid_out(obj, checksum)
    parts: list[bytes | memoryview] = [head]
    for buffer, padding in buffers:
        parts.append(buffer)
        if padding:
            parts.append(padding)
    return parts


def dump(obj: Any, file: Any, *, checksum: bool = False) -> int:
    """Write the frame of *obj* to a binary file. How many bytes it takes.

    Parameters
    ----------
    obj, checksum
        As :func:`frame`.
    file : binary file
        With ``write``, that of a raw file or of a socket's ``makefile`` too.
    """
    written = 0
    for part in frame(obj, checksum=checksum):
        rest = memoryview(part)
        while rest.nbytes:
            n = file.write(rest)
            if n is None:
                raise BlockingIOError("the file is non-blocking, and takes no more")
            written += n
            rest = rest[n:]
    return written


def dumps(
    obj: Any, pool: BlockPool, *, oversize: Oversize = "heap"
) -> list[memoryview]:
    """A frame of *obj* in blocks of *pool*: a copy that no change of *obj* reaches.

    :func:`loads` takes it, in this or another thread, and makes an object whose
    arrays lie in these very blocks. Joined, it is a frame for :func:`load`.

    Parameters
    ----------
    obj : object
        As :func:`frame`.
    pool : BlockPool
        Blocks of 128 bytes at least. No buffer is cut where it fits into a block.
    oversize : {"heap", "raise"}
        Where a buffer that is longer than a block goes: to the heap, in a piece of its
        own, or nowhere, with a ValueError.

    Returns
    -------
    list of memoryview
        One a block, or a buffer on the heap; each goes back when nothing reaches it.

    Raises
    ------
    PoolExhaustedError, PoolTimeoutError, PoolClosedError
        As :meth:`~ctxpool.BlockPool.acquire`; no block is lost.
    """
    choice("oversize", oversize, OVERSIZE)
    size = pool.block_size // ALIGNMENT * ALIGNMENT
    if size < 2 * ALIGNMENT:
        raise ValueError(f"blocks of {pool.block_size} bytes are too small: 128 needed")
    head, buffers = _laid_out(obj, checksum=False)
    if oversize == "raise":
        check_longest((view.nbytes for view, _ in buffers), size)
    pieces: list[memoryview] = []
    block, used = _EMPTY, 0  # the one that is being filled

    def place(data: bytes | memoryview) -> None:
        nonlocal used
        block[used : used + len(data)] = data
        used += len(data)

    def next_block() -> None:
        nonlocal block, used
        if used:
            pieces.append(block[:used])
        block, used = block_view(pool.acquire())[:size], 0

    for begin in range(0, len(head), size):
        next_block()
        place(head[begin : begin + size])
    for buffer, padding in buffers:
        n = buffer.nbytes + len(padding)
        if n > size:
            if used:
                pieces.append(block[:used])
            pieces.append(heap_view(n))
            block, used = pieces[-1], 0
            place(buffer)
            place(padding)
            block, used = _EMPTY, 0
            continue
        if used + n > len(block):
            next_block()
        place(buffer)
        place(padding)
    if used:
        pieces.append(block[:used])
    return pieces


# -- reading ---------------------------------------------------------------------------


def load(
    file: Any,
    pool: BlockPool,
    *,
    max_bytes: SupportsIndex | str = "64GiB",
    oversize: Oversize = "heap",
    **options: Any,
) -> Any:
    """Read a frame, its buffers right into blocks of *pool*, and make its object.

    Arrays are writable where those that were pickled were; they keep their block, with
    all other buffers in it, as long as they or any view of them live. Nothing is
    copied.

    Parameters
    ----------
    file : binary file
        With ``readinto``; also ``sock.makefile("rb")``. It is left behind the frame,
        so that several may follow one another.
    pool : BlockPool
        Small buffers share a block. Several threads may load at once.
    max_bytes : int or str
        A frame that says it is larger is refused before any memory is taken.
    oversize : {"heap", "raise"}
        Where a buffer that is longer than a block goes: to the heap, or nowhere, with a
        ValueError.
    **options
        *encoding* and others of ``pickle.loads``.

    Raises
    ------
    EOFError
        The file is at its end: no byte of a frame is there.
    TruncatedFrameError
        It ends within the frame. It is a FrameError and an EOFError.
    FrameError
        It is no frame, or damaged, or too large.
    PoolExhaustedError, PoolTimeoutError, PoolClosedError
        As :meth:`~ctxpool.BlockPool.acquire`. The file is somewhere in the frame.

    Examples
    --------
    >>> import io, numpy as np
    >>> pool = BlockPool("4KiB", 4)
    >>> file = io.BytesIO()
    >>> dump([np.arange(4), "and more"], file)
    256
    >>> _ = file.seek(0)
    >>> load(file, pool), pool.in_use
    ([array([0, 1, 2, 3]), 'and more'], 1)
    """
    if not hasattr(file, "readinto"):
        raise TypeError(f"a binary file with readinto() is needed, not {file!r}")
    unpacker = Unpacker(pool, max_bytes, oversize, options)
    first = True
    for target in unpacker.head():
        _read_into(file, target, "its head", first)
        first = False
    steps = unpacker.payload(pool.block_size)
    answer: memoryview | None = None
    while True:
        try:
            wanted = steps.send(answer)
        except StopIteration:
            return unpacker.object()
        answer = None
        if wanted is None:
            answer = block_view(pool.acquire())
        else:
            _read_into(file, wanted, "its buffers", False)
        del wanted


def _read_into(file: Any, target: memoryview, what: str, first: bool) -> None:
    filled = 0
    while filled < len(target):
        n = file.readinto(target[filled:])
        if n is None:
            raise BlockingIOError("the file is non-blocking, and has no data")
        if n == 0:
            if first and not filled:
                raise EOFError("no frame: the file is at its end")
            raise truncated(len(target) - filled, what)
        filled += n


async def load_async(
    reader: Any,
    pool: BlockPool,
    *,
    max_bytes: SupportsIndex | str = "64GiB",
    oversize: Oversize = "heap",
    **options: Any,
) -> Any:
    """As :func:`load`, from a stream.

    Parameters
    ----------
    reader : BlockReader or asyncio.StreamReader
        The first receives right into the blocks; the second has to copy.
    pool, max_bytes, oversize, **options
        As :func:`load`. A pool that waits is waited for as ``acquire_async`` does.

    Raises
    ------
    EOFError, TruncatedFrameError, FrameError, PoolExhaustedError
        As :func:`load`.

    Notes
    -----
    Who is cancelled while he reads leaves the stream somewhere in the frame: close it.
    """
    unpacker = Unpacker(pool, max_bytes, oversize, options)
    first = True
    for target in unpacker.head():
        await _receive(reader, target, "its head", first)
        first = False
    steps = unpacker.payload(pool.block_size)
    answer: memoryview | None = None
    while True:
        try:
            wanted = steps.send(answer)
        except StopIteration:
            return unpacker.object()
        answer = None
        if wanted is None:
            answer = block_view(await pool.acquire_async())
        else:
            await _receive(reader, wanted, "its buffers", False)
        del wanted


async def _receive(reader: Any, target: memoryview, what: str, first: bool) -> None:
    try:
        # The head is short, and what comes with it the reader may receive meanwhile.
        if hasattr(reader, "readexactly_into") and what != "its head":
            await reader.readexactly_into(target)
        else:
            target[:] = await reader.readexactly(len(target))
    except asyncio.IncompleteReadError as error:
        if first and not error.partial:
            raise EOFError("no frame: the stream is at its end") from None
        raise truncated(len(target) - len(error.partial), what) from None


def loads(
    data: Any,
    pool: BlockPool | None = None,
    *,
    oversize: Oversize = "heap",
    **options: Any,
) -> Any:
    """The object of a frame in memory: one buffer, or several in a list.

    Parameters
    ----------
    data : buffer, or list or tuple of them
        What :func:`dumps` or :func:`frame` returned, or the bytes of a frame.
    pool : BlockPool, optional
        The buffers are copied into its blocks. Without one, arrays lie where *data*
        has them: nothing is copied but what lies in two of its parts.
    oversize, **options
        As :func:`load`.

    Raises
    ------
    TruncatedFrameError, FrameError
        As :func:`load`; FrameError too when something follows the frame.
    PoolExhaustedError, PoolTimeoutError, PoolClosedError
        As :meth:`~ctxpool.BlockPool.acquire`.

    Examples
    --------
    >>> import numpy as np
    >>> pool = BlockPool("4KiB", 4)
    >>> parts = dumps(np.arange(4), pool)
    >>> array = loads(parts)
    >>> del parts
    >>> array, pool.in_use
    (array([0, 1, 2, 3]), 1)
    """
    parts = list(data) if isinstance(data, list | tuple) else [data]
    stream = _Parts([memoryview(part).cast("B") for part in parts])
    if pool is not None and stream.rest:
        result = load(stream, pool, max_bytes=1 << 62, oversize=oversize, **options)
    else:
        unpacker = Unpacker(None, 1 << 62, oversize, options, stream.rest)
        for target in unpacker.head():
            _read_into(stream, target, "its head", False)
        layout, begin, check = unpacker.layout, stream.at, 0
        for offset, length in unpacker.table.tolist():
            gap = stream.take(begin + offset - stream.at)
            buffer = stream.take(length)
            unpacker.buffers.append(buffer)
            if layout.flags & CHECKED:
                check = crc32(buffer, crc32(gap, check))
        gap = stream.take(begin + layout.payload - stream.at)
        check_payload(layout, crc32(gap, check))
        result = unpacker.object()
    if stream.rest:
        raise FrameError(f"{stream.rest} bytes follow the frame")
    return result


class _Parts:
    """Several buffers as one file."""

    def __init__(self, parts: list[memoryview]) -> None:
        self._parts = [part for part in reversed(parts) if len(part)]
        self.at = 0

    @property
    def rest(self) -> int:
        return sum(map(len, self._parts))

    def readinto(self, target: memoryview) -> int:
        if not self._parts:
            return 0
        n = min(len(target), len(self._parts[-1]))
        target[:n] = self._next(n)
        return n

    def take(self, n: int) -> memoryview:
        """The next *n* bytes: as they are where they are in one part."""
        if n == 0:
            return memoryview(bytearray())
        if self._parts and n <= len(self._parts[-1]):
            return self._next(n)
        if n > self.rest:
            raise truncated(n - self.rest, "its buffers")
        whole = heap_view(n)
        _read_into(self, whole, "its buffers", False)
        return whole

    def _next(self, n: int) -> memoryview:
        part = self._parts.pop()
        if n < len(part):
            self._parts.append(part[n:])
        self.at += n
        return part[:n]
