"""The size classes of a MemoryPool, and how a request finds its own."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import Any, NoReturn

from .. import Block, BlockPool
from ..errors import PoolClosedError
from ..stats import SizeClassStats

__all__ = ["LARGEST", "SMALLEST", "Calls", "SizeClass", "geometric", "refuse_closed"]

SMALLEST, LARGEST = 256, 64 << 20  # of the default classes
MOST_BLOCKS = 2**32 - 2  # of a BlockPool
REMEMBERED = 4096  # sizes whose class is found at once


def geometric(smallest: int, largest: int) -> list[int]:
    """Four sizes per doubling: a block is at most 25 % larger than was asked for."""
    sizes, octave = [], smallest
    while octave <= largest:
        sizes += [octave * quarter // 4 for quarter in (4, 5, 6, 7)]
        octave *= 2
    return [size for size in sizes if size <= largest]


def floor_power_of_two(n: int) -> int:
    return 1 << (n.bit_length() - 1)


class SizeClass:
    """Blocks of one size. Its BlockPool is made when it is first needed."""

    __slots__ = (
        "_settings",
        "_taken_in",
        "block_size",
        "misses",
        "pool",
        "slab_blocks",
        "slab_bytes",
        "stride",
    )

    def __init__(
        self,
        block_size: int,
        stride: int,
        slab_size: int,
        total: int,
        settings: dict[str, Any],
        taken_in: Callable[[BlockPool], object],
    ) -> None:
        self.block_size, self.stride = block_size, stride
        self.slab_blocks = floor_power_of_two(
            min(max(slab_size // stride, 1), MOST_BLOCKS // 4)
        )
        self.slab_bytes = self.slab_blocks * stride
        self.misses = 0
        self.pool: BlockPool | None = None
        slabs = min(total // self.slab_bytes, MOST_BLOCKS // self.slab_blocks)
        self._settings = {
            "max_blocks": slabs * self.slab_blocks,
            "slab_blocks": self.slab_blocks,
            **settings,
        }
        self._taken_in = taken_in

    def make(self) -> BlockPool:
        """Its BlockPool; under the owner's lock."""
        if self.pool is None:
            pool = BlockPool(self.block_size, 0, **self._settings)
            self._taken_in(pool)
            if self.pool is None:  # a finalizer may have been here meanwhile
                self.pool = pool
        return self.pool

    def check_open(self) -> None:
        if self.pool is not None and self.pool.closed:
            refuse_closed(self.pool.name)

    def stats(self) -> SizeClassStats:
        """What it counts, at this moment; it has a pool."""
        assert self.pool is not None
        pool = self.pool.stats()
        free = pool.blocks - pool.in_use - pool.idle
        return SizeClassStats(
            block_size=self.block_size,
            slab_bytes=self.slab_bytes,
            blocks=pool.blocks,
            in_use=pool.in_use,
            peak=pool.peak,
            requested=pool.in_use * self.block_size - pool.padding,
            padding=pool.padding,
            free_in_used_slabs=free * self.stride,
            idle=pool.idle * self.stride,
            bytes=pool.bytes,
            acquires=pool.acquires,
            releases=pool.releases,
            misses=self.misses,
            waits=pool.waits,
            exhausted=pool.exhausted,
        )


def refuse_closed(name: str | None) -> NoReturn:
    called = "" if name is None else f" {name!r}"
    raise PoolClosedError(f"the pool{called} is closed")


def nothing(size: object) -> None:
    """Of a size that no class's own call serves: the slow path decides."""


class Calls(dict[Any, Callable[[Any], Block | None]]):
    """By size, ``try_acquire`` of the class that has such blocks.

    One look-up in a table of C for a size that was met before; else a bisection.
    """

    __slots__ = ("_classes", "_sizes")

    def __init__(self, classes: list[SizeClass]) -> None:
        self._classes = classes
        self._sizes = [each.block_size for each in classes]

    def class_of(self, nbytes: int) -> SizeClass:
        return self._classes[bisect_left(self._sizes, nbytes)]

    def __missing__(self, size: Any) -> Callable[[Any], Block | None]:
        if type(size) is not int or not 0 < size <= self._sizes[-1]:
            return nothing
        pool = self.class_of(size).pool
        if pool is None:
            return nothing
        if len(self) < REMEMBERED:
            self[size] = pool.try_acquire
        return pool.try_acquire
