"""A file that is whole or not there: parts of bytes under a header with checksums."""

import contextlib
import json
import os
import struct
import threading
import zlib
from collections.abc import Mapping, Sequence
from io import BufferedReader
from pathlib import Path
from typing import Any

from ..errors import StoreError

__all__ = ["read_snapshot", "write_snapshot"]

_MAGIC = b"ctxpool\n"
# Of the header: its bytes and their CRC-32.
_LENGTHS = struct.Struct("<II")
_VERSION = 1


def write_snapshot(
    path: str | os.PathLike[str],
    kind: str,
    meta: Mapping[str, Any],
    parts: Sequence[Any],
) -> None:
    """Write *parts*, objects with a buffer, and *meta*, which JSON can hold, to *path*.

    The file is written beside it, flushed to the disk and then renamed: whoever opens
    *path*, even after a crash, finds the old file or the new one.

    Raises
    ------
    StoreError
        The file can't be written; what was at *path* is still there.
    """
    given = (memoryview(part) for part in parts)
    # An empty array can't be cast.
    views = [view.cast("B") if view.nbytes else memoryview(b"") for view in given]
    sizes = [[view.nbytes, zlib.crc32(view)] for view in views]
    header = json.dumps(
        {"kind": kind, "version": _VERSION, "meta": meta, "parts": sizes}
    ).encode()
    target = Path(path)
    beside = target.with_name(
        f".{target.name}.{os.getpid()}-{threading.get_ident()}.tmp"
    )
    try:
        with open(beside, "wb") as file:
            file.write(_MAGIC + _LENGTHS.pack(len(header), zlib.crc32(header)))
            file.write(header)
            for view in views:
                file.write(view)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, target)
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the new name, too
        finally:
            os.close(folder)
    except OSError as error:
        raise StoreError(f"{os.fspath(path)!r} can't be written: {error}") from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(beside)


def read_snapshot(
    path: str | os.PathLike[str], *kinds: str
) -> tuple[str, dict[str, Any], list[bytearray]]:
    """The kind, one of *kinds*, the meta and the parts of a file.

    Raises
    ------
    StoreError
        There is no such file, or it is damaged, or of another kind or version.
    """
    name = os.fspath(path)
    try:
        with open(path, "rb") as file:
            return _read(file, name, kinds)
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(f"{name!r} can't be read: {error}") from error


def _read(
    file: BufferedReader, name: str, kinds: tuple[str, ...]
) -> tuple[str, dict[str, Any], list[bytearray]]:
    size = os.fstat(file.fileno()).st_size
    start = file.read(len(_MAGIC) + _LENGTHS.size)
    if not start.startswith(_MAGIC) or len(start) < len(_MAGIC) + _LENGTHS.size:
        raise StoreError(f"{name!r} is no file of ctxpool, or damaged")
    length, checksum = _LENGTHS.unpack_from(start, len(_MAGIC))
    # No more is read than there is, whatever a damaged length says.
    raw = file.read(min(length, size))
    if len(raw) != length or zlib.crc32(raw) != checksum:
        raise StoreError(f"{name!r} is damaged: its header is not what was written")
    header = json.loads(raw)
    if header["kind"] not in kinds:
        wanted = " or ".join(kinds)
        raise StoreError(f"{name!r} holds a {header['kind']}, not a {wanted}")
    if header["version"] != _VERSION:
        raise StoreError(
            f"{name!r} is of version {header['version']}, and this ctxpool reads "
            f"version {_VERSION}"
        )
    if file.tell() + sum(nbytes for nbytes, _ in header["parts"]) != size:
        raise StoreError(f"{name!r} is damaged: it is not as long as it was")
    parts = []
    for nbytes, checksum in header["parts"]:
        part = bytearray(nbytes)
        if file.readinto(part) != nbytes or zlib.crc32(part) != checksum:
            raise StoreError(f"{name!r} is damaged: its checksum differs")
        parts.append(part)
    return header["kind"], header["meta"], parts
