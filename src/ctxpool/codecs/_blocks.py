"""Texts packed together, without loss."""

import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module

__all__ = ["Packed", "codec", "pack", "texts_of"]

Pack = Callable[[bytes], bytes]


def codec(name: str) -> tuple[Pack, Pack]:
    """What compresses and what decompresses, by the codec's name.

    Raises
    ------
    ValueError
        There is no such codec.
    ImportError
        It is not installed.
    """
    if name == "zlib":
        return zlib.compress, zlib.decompress
    if name == "zstd":
        return _zstd()
    raise ValueError(f"codec must be one of 'zlib', 'zstd', not {name!r}")


def _zstd() -> tuple[Pack, Pack]:
    # The standard library's own from CPython 3.14 on.
    for module in ("compression.zstd", "zstandard"):
        try:
            zstd = import_module(module)
        except ModuleNotFoundError:
            continue
        return zstd.compress, zstd.decompress
    raise ImportError('codec="zstd" needs the extra: pip install "ctxpool[zstd]"')


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Some texts, one after the other."""

    data: bytes
    unpack: Pack


@dataclass(frozen=True, slots=True)
class Packed:
    """One of the texts of a block."""

    block: Block
    start: int
    end: int


def texts_of(bodies: Iterable[str | Packed]) -> Iterator[str]:
    """Each text, packed or not; of neighbours the block is unpacked once."""
    block: Block | None = None
    data = b""
    for body in bodies:
        if isinstance(body, str):
            yield body
            continue
        if body.block is not block:
            block = body.block
            data = block.unpack(block.data)
        yield data[body.start : body.end].decode("utf-8", "surrogatepass")


def pack(
    texts: Iterable[str], block_size: int, compress: Pack, decompress: Pack
) -> Iterator[Packed]:
    """Each text, packed in blocks of *block_size* bytes or of one larger text."""
    batch: list[bytes] = []
    size = 0

    def whole() -> Iterator[Packed]:
        if batch:
            block = Block(compress(b"".join(batch)), decompress)
            at = 0
            for data in batch:
                yield Packed(block, at, at + len(data))
                at += len(data)

    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        if size + len(data) > block_size:
            yield from whole()
            batch, size = [], 0
        batch.append(data)
        size += len(data)
    yield from whole()
