"""Pickle protocol 5 with its buffers in pool blocks.

A frame is one pickle with all its buffers, a stream of bytes for a file or a socket:

====================  =========================================================
``b"CXP5"``           magic
``B`` version         1
``B`` flags           1: the payload has a checksum
``H``                 0
``I`` count           of buffers
``I`` checksum        CRC-32 of table and pickle
``I`` checksum        CRC-32 of the payload, or 0
``Q`` pickle          bytes of the pickle
``Q`` payload         bytes of the payload
``I`` checksum        CRC-32 of all before
table                 ``count`` times ``Q`` offset in the payload, ``Q`` length
pickle                protocol 5
zeros                 up to a multiple of 64 from the frame's beginning
payload               the buffers, each at a multiple of 64, in order
====================  =========================================================

Numbers are little-endian. Buffers so lie in a block as they lie in the frame: a block
full of small ones takes one read.

It is pickle: **load nothing from whom you would not let run code**. The checks find
accidents, not attackers.
"""

from __future__ import annotations

import asyncio
import pickle
import struct
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, SupportsIndex
from zlib import crc32

import numpy as np

from ctxpool import BlockPool
from ctxpool._arguments import choice
from ctxpool.errors import FrameError, TruncatedFrameError
from ctxpool.sizes import parse_size

__all__ = ["dump", "dumps", "frame", "load", "load_async", "loads"]

_MAGIC, _VERSION, _CHECKED = b"CXP5", 1, 1
_HEADER = struct.Struct("<4sBBHIIIQQI")
_FIELDS = struct.Struct("<4sBBHIIIQQ")  # all but its checksum
_ENTRY = np.dtype([("offset", "<u8"), ("length", "<u8")])
_ALIGN = 64
_EMPTY = memoryview(b"")

Oversize = Literal["heap", "raise"]
_OVERSIZE = ("heap", "raise")


def _aligned(n: int) -> int:
    return -(-n // _ALIGN) * _ALIGN


# -- writing -----------------------------------------------------------------------------


def _laid_out(
    obj: Any, checksum: bool
) -> tuple[bytes, list[tuple[memoryview, bytes]]]:
    """What comes before the payload; and each buffer, with the zeros behind it."""
    pickled: list[pickle.PickleBuffer] = []
    data = pickle.dumps(obj, protocol=5, buffer_callback=pickled.append)
    buffers, offsets, at = [], [], 0
    for view in (buffer.raw() for buffer in pickled):
        padding = bytes(_aligned(view.nbytes) - view.nbytes)
        buffers.append((view, padding))
        offsets.append(at)
        at += view.nbytes + len(padding)
    check = None
    if checksum:
        check = 0
        for view, padding in buffers:
            check = crc32(padding, crc32(view, check))
    lengths = [view.nbytes for view, _ in buffers]
    return _head(data, offsets, lengths, at, check), buffers


def _head(
    data: bytes, offsets: list[int], lengths: list[int], total: int, check: int | None
) -> bytes:
    """Everything before the payload."""
    table = np.empty(len(offsets), _ENTRY)
    table["offset"], table["length"] = offsets, lengths
    flags, payload_check = (0, 0) if check is None else (_CHECKED, check)
    entries = table.tobytes()
    fields = _FIELDS.pack(
        *(_MAGIC, _VERSION, flags, 0, len(offsets)),
        *(crc32(data, crc32(entries)), payload_check, len(data), total),
    )
    head = fields + crc32(fields).to_bytes(4, "little") + entries + data
    return head + bytes(_aligned(len(head)) - len(head))


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


def dumps(obj: Any, pool: BlockPool, *, oversize: Oversize = "heap") -> list[memoryview]:
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
    choice("oversize", oversize, _OVERSIZE)
    size = pool.block_size // _ALIGN * _ALIGN
    if size < 2 * _ALIGN:
        raise ValueError(f"blocks of {pool.block_size} bytes are too small: 128 needed")
    head, buffers = _laid_out(obj, checksum=False)
    if oversize == "raise":
        _check_longest((view.nbytes for view, _ in buffers), size)
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
        block, used = _block_view(pool.acquire())[:size], 0

    for begin in range(0, len(head), size):
        next_block()
        place(head[begin : begin + size])
    for buffer, padding in buffers:
        n = buffer.nbytes + len(padding)
        if n > size:
            if used:
                pieces.append(block[:used])
            pieces.append(memoryview(np.empty(n, np.uint8)))
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


# -- reading -----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Layout:
    """What a frame's header and table say, believed only after they were checked."""

    flags: int
    count: int
    head_check: int
    payload_check: int
    pickle_size: int
    payload: int

    @property
    def head_rest(self) -> int:
        """Bytes between the header and the payload."""
        size = _HEADER.size + _ENTRY.itemsize * self.count + self.pickle_size
        return _aligned(size) - _HEADER.size

    @property
    def total(self) -> int:
        return _HEADER.size + self.head_rest + self.payload


def _layout(header: bytearray, max_bytes: int) -> _Layout:
    magic, version, flags, zero, count, check, payload_check, data, payload, own = (
        _HEADER.unpack(header)
    )
    if magic != _MAGIC:
        raise FrameError(f"no frame of a pickle begins with {magic!r}")
    _compare("header", crc32(header[: _FIELDS.size]), own)
    if version != _VERSION or flags & ~_CHECKED or zero:
        raise FrameError(f"a frame of version {version}, flags {flags}: not known here")
    layout = _Layout(flags, count, check, payload_check, data, payload)
    if layout.total > max_bytes:
        raise FrameError(
            f"a frame of {layout.total} bytes: more than max_bytes={max_bytes}"
        )
    return layout


def _compare(what: str, found: int, wanted: int) -> None:
    if found != wanted:
        raise FrameError(
            f"the frame's {what} is damaged: checksum {found:#010x}, not {wanted:#010x}"
        )


def _table(layout: _Layout, rest: memoryview) -> tuple[np.ndarray[Any, Any], memoryview]:
    """The table and the pickle, after the checksum was found right."""
    cut = _ENTRY.itemsize * layout.count
    entries, data = rest[:cut], rest[cut : cut + layout.pickle_size]
    _compare("head", crc32(data, crc32(entries)), layout.head_check)
    table = np.frombuffer(entries, _ENTRY)
    offset, length = table["offset"], table["length"]
    end = offset + length
    if len(table) and (
        (offset % _ALIGN).any()
        or (end < offset).any()
        or (offset[1:] < end[:-1]).any()
        or int(end[-1]) > layout.payload
    ):
        raise FrameError("the frame's table of buffers is not in order")
    return table, data


def _check_longest(lengths: Iterable[int], size: int) -> None:
    longest = max(lengths, default=0)
    if longest > size:
        raise ValueError(
            f"a buffer of {longest} bytes is longer than a block of {size}: "
            f'use larger blocks or oversize="heap"'
        )


def _check_payload(layout: _Layout, check: int) -> None:
    if layout.flags & _CHECKED:
        _compare("payload", check, layout.payload_check)


def _runs(
    table: np.ndarray[Any, Any], size: int, payload: int
) -> Iterator[tuple[int, int, int, int]]:
    """Buffers that fit into a block together: first, behind the last, begin, end.

    The end is behind the zeros, where those fit too.
    """
    offsets, lengths = table["offset"].tolist(), table["length"].tolist()
    first = 0
    for i in range(1, len(offsets) + 1):
        if i < len(offsets) and offsets[i] + lengths[i] - offsets[first] <= size:
            continue
        begin, end = offsets[first], offsets[i - 1] + lengths[i - 1]
        padded = min(_aligned(end), payload)
        if end - begin > size or padded - begin <= size:
            end = padded
        yield first, i, begin, end
        first = i


class _Unpacker:
    """The steps of loading, for those who read and those who await.

    ``head`` and ``payload`` yield buffers, to be filled with the frame's next bytes
    one by one; ``payload`` yields None for the view of a block, to be sent to it.
    """

    def __init__(
        self,
        pool: BlockPool | None,
        max_bytes: SupportsIndex | str,
        oversize: Oversize,
        options: dict[str, Any],
        at_hand: int | None = None,
    ) -> None:
        self.pool, self.oversize = pool, choice("oversize", oversize, _OVERSIZE)
        self.max_bytes = parse_size(max_bytes, "max_bytes")
        self.options = options
        self.at_hand = at_hand  # bytes that there are, where that is known
        self.buffers: list[memoryview] = []

    def head(self) -> Iterator[memoryview]:
        header = bytearray(_HEADER.size)
        yield memoryview(header)
        self.layout = _layout(header, self.max_bytes)
        if self.at_hand is not None and self.layout.total > self.at_hand:
            raise _truncated(self.layout.total - self.at_hand, "it")
        rest = memoryview(np.empty(self.layout.head_rest, np.uint8))
        yield rest
        self.table, self.data = _table(self.layout, rest)
        if self.pool is not None and self.oversize == "raise":
            _check_longest(self.table["length"].tolist(), self.pool.block_size)

    def payload(
        self, size: int
    ) -> Generator[memoryview | None, memoryview | None, None]:
        layout, check, at = self.layout, 0, 0
        offsets, lengths = self.table["offset"].tolist(), self.table["length"].tolist()
        checked = layout.flags & _CHECKED
        for first, last, begin, end in _runs(self.table, size, layout.payload):
            for gap in _gaps(begin - at):
                yield gap
                check = crc32(gap, check)
            at = end
            if end - begin > size:
                run = memoryview(np.empty(end - begin, np.uint8))
            elif end > begin:
                block = yield None
                assert block is not None
                run = block[: end - begin]
            else:
                run = memoryview(bytearray())
            if end > begin:
                yield run
            if checked:
                check = crc32(run, check)
            for i in range(first, last):
                start = offsets[i] - begin
                self.buffers.append(run[start : start + lengths[i]])
        for gap in _gaps(layout.payload - at):
            yield gap
            check = crc32(gap, check)
        _check_payload(layout, check)

    def object(self) -> Any:
        return pickle.loads(self.data, buffers=self.buffers, **self.options)


def _gaps(n: int) -> Iterator[memoryview]:
    """Bytes between buffers, read and dropped."""
    while n > 0:
        yield memoryview(bytearray(min(n, 1 << 16)))
        n -= 1 << 16


def _truncated(missing: int, what: str) -> TruncatedFrameError:
    return TruncatedFrameError(f"the frame ends {missing} bytes before the end of {what}")


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
    >>> import io
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
    unpacker = _Unpacker(pool, max_bytes, oversize, options)
    first = True
    for target in unpacker.head():
        _read_into(file, target, "its head", first)
        first = False
    steps = unpacker.payload(pool.block_size)
    answer: memoryview | None = None
    while True:
        try:
            target = steps.send(answer)
        except StopIteration:
            return unpacker.object()
        answer = None
        if target is None:
            answer = _block_view(pool.acquire())
        else:
            _read_into(file, target, "its buffers", False)
        del target


def _block_view(block: Any) -> memoryview:
    view: memoryview = block.view
    block.release()
    return view


def _read_into(file: Any, target: memoryview, what: str, first: bool) -> None:
    filled = 0
    while filled < len(target):
        n = file.readinto(target[filled:])
        if n is None:
            raise BlockingIOError("the file is non-blocking, and has no data")
        if n == 0:
            if first and not filled:
                raise EOFError("no frame: the file is at its end")
            raise _truncated(len(target) - filled, what)
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
    unpacker = _Unpacker(pool, max_bytes, oversize, options)
    first = True
    for target in unpacker.head():
        await _receive(reader, target, "its head", first)
        first = False
    steps = unpacker.payload(pool.block_size)
    answer: memoryview | None = None
    while True:
        try:
            target = steps.send(answer)
        except StopIteration:
            return unpacker.object()
        answer = None
        if target is None:
            answer = _block_view(await pool.acquire_async())
        else:
            await _receive(reader, target, "its buffers", False)
        del target


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
        raise _truncated(len(target) - len(error.partial), what) from None


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
        unpacker = _Unpacker(None, 1 << 62, oversize, options, stream.rest)
        for target in unpacker.head():
            _read_into(stream, target, "its head", False)
        layout, begin, check = unpacker.layout, stream.at, 0
        for offset, length in unpacker.table.tolist():
            gap = stream.take(begin + offset - stream.at)
            buffer = stream.take(length)
            unpacker.buffers.append(buffer)
            if layout.flags & _CHECKED:
                check = crc32(buffer, crc32(gap, check))
        gap = stream.take(begin + layout.payload - stream.at)
        _check_payload(layout, crc32(gap, check))
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
            raise _truncated(n - self.rest, "its buffers")
        whole = memoryview(np.empty(n, np.uint8))
        _read_into(self, whole, "its buffers", False)
        return whole

    def _next(self, n: int) -> memoryview:
        part = self._parts.pop()
        if n < len(part):
            self._parts.append(part[n:])
        self.at += n
        return part[:n]
