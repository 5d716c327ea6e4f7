"""Work on blocks by threads."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

from ctxpool._arguments import count

from .files import FileBlocks

__all__ = ["map_blocks"]

R = TypeVar("R")
_MOST = 1 << 20


def map_blocks(
    function: Callable[[Any], R],
    blocks: Iterable[Any],
    *,
    workers: int | None = None,
    in_flight: int | None = None,
) -> Iterator[R]:
    """``map(function, blocks)`` by threads, in order, with bounded blocks in flight.

    Of use where *function* lets go of the GIL, as numpy, zlib and hashlib do on large
    buffers, and on builds without one.

    Parameters
    ----------
    function : callable
        Of one block.
    blocks : iterable
        :func:`read_blocks` or :func:`iter_array`, or any other.
    workers : int, optional
        Threads; as many as there are processors by default.
    in_flight : int, optional
        Blocks that are taken before the first of their results is; by default one
        fewer than :func:`read_blocks` allows, else twice the threads.

    Yields
    ------
    The results. One that keeps its block keeps it from being used again, which ends in
    :class:`~ctxpool.errors.PoolExhaustedError`.

    Examples
    --------
    >>> import io
    >>> from ctxpool.pools import read_blocks
    >>> list(map_blocks(len, read_blocks(io.BytesIO(bytes(10)), block_size=4)))
    [4, 4, 2]
    """
    threads = (
        os.cpu_count() or 1 if workers is None else count("workers", workers, 1, _MOST)
    )
    most = 2 * threads
    if in_flight is not None:
        most = count("in_flight", in_flight, 1, _MOST)
    elif isinstance(blocks, FileBlocks):
        most = max(1, min(most, blocks.in_flight - 1))
    return _mapped(function, blocks, threads, most)


def _mapped(
    function: Callable[[Any], R], blocks: Iterable[Any], threads: int, most: int
) -> Iterator[R]:
    def call(box: list[Any]) -> R:
        return function(box.pop())  # see FileBlocks._start

    pending: deque[Future[R]] = deque()
    executor = ThreadPoolExecutor(threads, "ctxpool-map")
    try:
        source = iter(blocks)
        while True:
            while len(pending) < most:
                box = list(islice(source, 1))
                if not box:
                    most = 0  # no more to take
                    break
                pending.append(executor.submit(call, box))
            if not pending:
                return
            yield pending.popleft().result()
    finally:
        executor.shutdown(cancel_futures=True)
