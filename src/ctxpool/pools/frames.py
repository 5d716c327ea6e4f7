"""How a pickle and its buffers lie in a file or on a wire.

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

from ._memory import heap_view

__all__ = [
    "ALIGNMENT",
    "CHECKED",
    "OVERSIZE",
    "Layout",
    "Oversize",
    "Unpacker",
    "aligned",
    "check_longest",
    "check_payload",
    "head_of",
    "truncated",
]

_MAGIC, _VERSION, CHECKED = b"CXP5", 1, 1
_HEADER = struct.Struct("<4sBBHIIIQQI")
_FIELDS = struct.Struct("<4sBBHIIIQQ")  # all but its checksum
_ENTRY = np.dtype([("offset", "<u8"), ("length", "<u8")])
ALIGNMENT = 64

Oversize = Literal["heap", "raise"]
OVERSIZE = ("heap", "raise")


def aligned(n: int) -> int:
    return -(-n // ALIGNMENT) * ALIGNMENT


def head_of(
    data: bytes, offsets: list[int], lengths: list[int], total: int, check: int | None
) -> bytes:
    """Everything before the payload."""
    table = np.empty(len(offsets), _ENTRY)
    table["offset"], table["length"] = offsets, lengths
    flags, payload_check = (0, 0) if check is None else (CHECKED, check)
    entries = table.tobytes()
    fields = _FIELDS.pack(
        *(_MAGIC, _VERSION, flags, 0, len(offsets)),
        *(crc32(data, crc32(entries)), payload_check, len(data), total),
    )
    head = fields + crc32(fields).to_bytes(4, "little") + entries + data
    return head + bytes(aligned(len(head)) - len(head))


@dataclass(frozen=True)
class Layout:
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
        return aligned(size) - _HEADER.size

    @property
    def total(self) -> int:
        return _HEADER.size + self.head_rest + self.payload


def _layout(header: bytearray, max_bytes: int) -> Layout:
    magic, version, flags, zero, count, check, payload_check, data, payload, own = (
        _HEADER.unpack(header)
    )
    if magic != _MAGIC:
        raise FrameError(f"no frame of a pickle begins with {magic!r}")
    _compare("header", crc32(header[: _FIELDS.size]), own)
    if version != _VERSION or flags & ~CHECKED or zero:
        raise FrameError(f"a frame of version {version}, flags {flags}: not known here")
    layout = Layout(flags, count, check, payload_check, data, payload)
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


def _table(layout: Layout, rest: memoryview) -> tuple[np.ndarray[Any, Any], memoryview]:
    """The table and the pickle, after the checksum was found right."""
    cut = _ENTRY.itemsize * layout.count
    entries, data = rest[:cut], rest[cut : cut + layout.pickle_size]
    _compare("head", crc32(data, crc32(entries)), layout.head_check)
    table = np.frombuffer(entries, _ENTRY)
    offset, length = table["offset"], table["length"]
    end = offset + length
    if len(table) and (
        (offset % ALIGNMENT).any()
        or (end < offset).any()
        or (offset[1:] < end[:-1]).any()
        or int(end[-1]) > layout.payload
    ):
        raise FrameError("the frame's table of buffers is not in order")
    return table, data


def check_longest(lengths: Iterable[int], size: int) -> None:
    longest = max(lengths, default=0)
    if longest > size:
        raise ValueError(
            f"a buffer of {longest} bytes is longer than a block of {size}: "
            f'use larger blocks or oversize="heap"'
        )


def check_payload(layout: Layout, check: int) -> None:
    if layout.flags & CHECKED:
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
        padded = min(aligned(end), payload)
        if end - begin > size or padded - begin <= size:
            end = padded
        yield first, i, begin, end
        first = i


class Unpacker:
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
        self.pool, self.oversize = pool, choice("oversize", oversize, OVERSIZE)
        self.max_bytes = parse_size(max_bytes, "max_bytes")
        self.options = options
        self.at_hand = at_hand  # bytes that there are, where that is known
        self.buffers: list[memoryview] = []

    def head(self) -> Iterator[memoryview]:
        header = bytearray(_HEADER.size)
        yield memoryview(header)
        self.layout = _layout(header, self.max_bytes)
        if self.at_hand is not None and self.layout.total > self.at_hand:
            raise truncated(self.layout.total - self.at_hand, "it")
        rest = heap_view(self.layout.head_rest)
        yield rest
        self.table, self.data = _table(self.layout, rest)
        if self.pool is not None and self.oversize == "raise":
            check_longest(self.table["length"].tolist(), self.pool.block_size)

    def payload(
        self, size: int
    ) -> Generator[memoryview | None, memoryview | None, None]:
        layout, check, at = self.layout, 0, 0
        offsets, lengths = self.table["offset"].tolist(), self.table["length"].tolist()
        checked = layout.flags & CHECKED
        for first, last, begin, end in _runs(self.table, size, layout.payload):
            for gap in _gaps(begin - at):
                yield gap
                check = crc32(gap, check)
            at = end
            if end - begin > size:
                run = heap_view(end - begin)
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
        check_payload(layout, check)

    def object(self) -> Any:
        return pickle.loads(self.data, buffers=self.buffers, **self.options)


def _gaps(n: int) -> Iterator[memoryview]:
    """Bytes between buffers, read and dropped."""
    while n > 0:
        yield memoryview(bytearray(min(n, 1 << 16)))
        n -= 1 << 16


def truncated(missing: int, what: str) -> TruncatedFrameError:
    return TruncatedFrameError(
        f"the frame ends {missing} bytes before the end of {what}"
    )
