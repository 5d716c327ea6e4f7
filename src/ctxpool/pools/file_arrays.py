"""Files of numbers, in memory that does not grow."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from ctxpool import BlockPool

from .files import FileBlocks, read_blocks

__all__ = ["iter_array"]


def iter_array(
    file: str | os.PathLike[str] | BinaryIO,
    dtype: npt.DTypeLike,
    pool: BlockPool | None = None,
    *,
    shape: int | tuple[int, ...] = (),
    **options: Any,
) -> Iterator[npt.NDArray[Any]]:
    """A file of numbers as arrays of as many whole items as fit into a block.

    Parameters
    ----------
    file, pool
        As :func:`read_blocks`.
    dtype : dtype
        Of the numbers; records too, objects not.
    shape : int or tuple of int
        Of an item: ``(1080, 1920, 3)`` gives arrays of whole frames.
    **options
        *block_size*, *in_flight*, *read_ahead*, *timeout* of :func:`read_blocks`.

    Yields
    ------
    numpy.ndarray
        Of shape ``(n, *shape)``, writable, over the block. It may be kept, as one of
        those in flight.

    Raises
    ------
    ValueError
        The file ends within an item, or a block is smaller than one.

    Examples
    --------
    >>> import io
    >>> numbers = io.BytesIO(np.arange(5, dtype="<i4").tobytes())
    >>> [array.tolist() for array in iter_array(numbers, "<i4", block_size=10)]
    [[0, 1], [2, 3], [4]]
    """
    dt = np.dtype(dtype)
    if dt.hasobject or dt.itemsize == 0:
        raise ValueError(f"a file holds no items of dtype {dt}")
    dims = (shape,) if isinstance(shape, int) else tuple(shape)
    item = dt.itemsize * math.prod(dims)
    if item <= 0:
        raise ValueError(f"an item of shape {shape!r} has no bytes")
    for unfit in ("overlap", "delimiter", "max_record"):
        if unfit in options:
            raise TypeError(f"iter_array() takes no {unfit}")
    blocks = read_blocks(file, pool, **options)
    whole = blocks.pool.block_size // item * item
    if not whole:
        blocks.close()
        raise ValueError(
            f"an item of {item} bytes is larger than a block of "
            f"{blocks.pool.block_size}"
        )
    blocks._capacity = whole
    return _arrays(blocks, dt, dims, item)


def _arrays(
    blocks: FileBlocks, dtype: np.dtype[Any], dims: tuple[int, ...], item: int
) -> Iterator[npt.NDArray[Any]]:
    with blocks:
        for view in blocks:
            n, rest = divmod(len(view), item)
            if n:
                yield np.ndarray((n, *dims), dtype, view)
            if rest:
                raise ValueError(
                    f"{blocks._source.name!r} ends with {rest} bytes that are no "
                    f"whole item of {item}"
                )
            del view
