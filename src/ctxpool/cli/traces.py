"""Access traces: those of a folder, and a few that are made here."""

import gzip
import lzma
import random
import struct
import sys
from array import array
from collections.abc import Callable, Iterable
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import TextIO

from .errors import UsageError

__all__ = ["Trace", "find", "made"]

REQUESTS = 60_000
SEED = 1


class Trace:
    """A named sequence of keys, read when it is asked for."""

    def __init__(self, name: str, read: Callable[[], "array[int]"]) -> None:
        self.name = name
        self.keys = read


def find(folder: str) -> list[Trace]:
    """The traces of a folder, by name.

    ``NAME.trace`` and ``NAME.trace.gz``: a number a line, lines of ``*`` are skipped.
    ``NAME.arc`` and ``NAME.arc.gz``: first block, number of blocks, two more columns.
    ``NAME.trace.xz``: big-endian 32-bit integers.

    Raises
    ------
    UsageError
        There is no such folder, or no trace in it.
    """
    root = Path(folder)
    if not root.is_dir():
        raise UsageError(f"--traces {folder}: no such folder")
    found = []
    for path in sorted(root.iterdir()):
        name, _, suffix = path.name.partition(".")
        if suffix in _READERS:
            found.append(Trace(name, partial(_read, path, suffix)))
    if not found:
        known = ", ".join(f".{suffix}" for suffix in _READERS)
        raise UsageError(f"--traces {folder}: no file that ends in {known}")
    return found


def _read(path: Path, suffix: str) -> "array[int]":
    try:
        keys = _READERS[suffix](path)
    except (OSError, EOFError, ValueError, lzma.LZMAError) as error:
        raise UsageError(f"{path}: {error}") from error
    if not keys:
        raise UsageError(f"{path}: no requests in it")
    return keys


def _text(path: Path) -> TextIO:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="ascii")
    return open(path, encoding="ascii")


def _numbers(path: Path) -> "array[int]":
    with _text(path) as lines:
        words = (line.strip() for line in lines)
        return _array(int(word) for word in words if word not in ("", "*"))


def _blocks(path: Path) -> "array[int]":
    keys = _array(())
    with _text(path) as lines:
        for number, line in enumerate(lines, 1):
            columns = line.split()
            if not columns:
                continue
            if len(columns) < 2:
                raise ValueError(f"line {number} has one column: {line.strip()!r}")
            first, count = int(columns[0]), int(columns[1])
            if not 0 <= count <= 1_000_000:
                raise ValueError(f"line {number} asks for {count} blocks")
            keys.extend(range(first, first + count))
    return keys


def _integers(path: Path) -> "array[int]":
    with lzma.open(path) as file:
        data = file.read()
    if len(data) % 4:
        raise ValueError(f"{len(data)} bytes are no whole number of 32-bit integers")
    return _array(number for (number,) in struct.iter_unpack(">i", data))


def _array(keys: Iterable[int]) -> "array[int]":
    try:
        return array("q", keys)
    except OverflowError as error:
        raise ValueError(f"a key is no 64-bit integer: {error}") from error


_READERS: dict[str, Callable[[Path], "array[int]"]] = {
    "trace": _numbers,
    "trace.gz": _numbers,
    "arc": _blocks,
    "arc.gz": _blocks,
    "trace.xz": _integers,
}


def made(requests: int = REQUESTS, seed: int = SEED) -> list[Trace]:
    """Traces of the four kinds that policies differ on, always the same.

    ``zipf``: independent draws, popularity by Zipf's law. ``scan``: the same, and now
    and then a run over keys that never come again. ``shift``: what is popular changes.
    ``loop``: over and over through more keys than most caches hold.
    """
    kinds = {"zipf": _zipf, "scan": _scan, "shift": _shift, "loop": _loop}
    return [
        Trace(name, partial(_make, kind, requests, seed))
        for name, kind in kinds.items()
    ]


def _make(
    kind: Callable[[int, random.Random], list[int]], requests: int, seed: int
) -> "array[int]":
    return _array(kind(requests, random.Random(seed)))


def _draws(n: int, dice: random.Random, keys: int = 10_000) -> list[int]:
    weights = list(accumulate(1 / rank**0.9 for rank in range(1, keys + 1)))
    return dice.choices(range(keys), cum_weights=weights, k=n)


_zipf = _draws


def _scan(n: int, dice: random.Random) -> list[int]:
    keys, fresh = [], sys.maxsize // 2
    for at, key in enumerate(_draws(n, dice)):
        keys.append(key)
        if at % 5000 == 4999:
            keys.extend(range(fresh, fresh + 1500))
            fresh += 1500
    return keys[:n]


def _shift(n: int, dice: random.Random) -> list[int]:
    return [key + at // 4000 * 300 for at, key in enumerate(_draws(n, dice))]


def _loop(n: int, dice: random.Random) -> list[int]:
    popular = _draws(n, dice)
    return [popular[at] if at % 4 == 0 else -1 - at % 2400 for at in range(n)]
