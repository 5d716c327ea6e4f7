"""Memory of many sizes under one budget: :class:`MemoryPool`.

Each size class is a BlockPool whose blocks come and go in slabs. The budget counts the
slabs of all classes. A class that needs one when the budget is used up takes the place
of slabs of other classes that are wholly free; those go back to the system.

No user's code runs under the pool's lock, which guards the budget alone.
"""

from __future__ import annotations

import math
import sys
import weakref
from collections.abc import Callable, Generator, Iterable
from types import TracebackType
from typing import Any, Literal, NoReturn, SupportsIndex

import numpy as np
import numpy.typing as npt

from .. import Block, BlockPool
from .._arguments import array_layout, choice, power_of_two, seconds
from .._pure.locks import new_rlock
from ..errors import PoolExhaustedError
from ..sizes import parse_size
from ..stats import MemoryPoolStats
from .line import Line
from .size_class import (
    LARGEST,
    SMALLEST,
    Calls,
    SizeClass,
    geometric,
    refuse_closed,
)

__all__ = ["MemoryPool"]

SLAB = 2 << 20  # a huge page
GAP = 16  # what BlockPool's debug mode adds to a block, at least
ON_TOO_LARGE = ("raise", "heap", "map")
ON_EXHAUSTED = ("raise", "wait", "heap")


class _Allocation:
    """What :meth:`MemoryPool.allocate_async` returns: to be awaited or entered."""

    __slots__ = ("_block", "_pool", "_size", "_timeout")

    def __init__(
        self, pool: MemoryPool, size: SupportsIndex | str, timeout: float | None
    ) -> None:
        self._pool, self._size, self._timeout = pool, size, timeout
        self._block: Block | None = None

    def __await__(self) -> Generator[Any, None, Block]:
        return self._pool._allocate_in_task(self._size, self._timeout).__await__()

    async def __aenter__(self) -> Block:
        if self._block is not None:
            raise RuntimeError("this allocation is entered already: make another")
        self._block = await self
        return self._block

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        block, self._block = self._block, None
        if block is not None:
            block.__exit__(exc_type, exc, tb)


class MemoryPool:
    """Blocks of many sizes, made at once and used again, under one budget.

    A request gets a block of the smallest size class that holds it: as much of the
    block as was asked for, the rest is padding. Allocate and release are O(1) and ask
    the system for nothing while the class has a free block; else the class gets another
    slab, under the budget, which all classes share: when it is used up, slabs of other
    classes that are wholly free go back to the system in exchange.

    The blocks are :class:`~ctxpool.Block` objects with all of their rules: a block's
    memory is not handed out again while anything can still reach it.

    Parameters
    ----------
    block_sizes : iterable of int or str, optional
        The size classes, such as ``[4096, "16KiB", "64KiB"]``. By default four per
        doubling, from 256 bytes to 64 MiB or a quarter of the budget: from 256 bytes
        on, padding takes at most 25 % of what was asked for.
    total_size : int or str
        The budget: bytes of all slabs together. Bookkeeping (about 16 bytes for each
        block) is not in it, nor is what *on_too_large* and ``"heap"`` take.
    on_too_large : {"raise", "heap", "map"}
        What to do for a request larger than the largest class: raise ValueError; take
        the memory from the heap; give it a mapping of its own, which goes back to the
        system with the block. The last two are counted, and outside the budget.
    on_exhausted : {"raise", "wait", "heap"}
        What to do when the class has no free block and there is no slab to be had:
        raise :class:`~ctxpool.errors.PoolExhaustedError`, wait, or take memory from
        the heap, which is counted.
    timeout : float, optional
        Seconds to wait with ``"wait"``; without end by default.
    slab_size : int or str, optional
        What a class takes of the budget at a time, rounded down to a power of two of
        its blocks, at least one. By default 2 MiB or a 64th of the budget, whichever
        is less. Small slabs are wholly free sooner; great ones are got more seldom.
    prefault, huge_pages, alignment, zero, debug, fork
        As for :class:`~ctxpool.BlockPool`, of each slab when it comes.
    name : str, optional
        For errors and statistics.
    on_create, on_destroy : callable, optional
        ``on_create(address, nbytes)`` after a slab has come into being, and
        ``on_destroy`` before it goes, as for :class:`~ctxpool.BlockPool`. Not for what
        is outside the budget.

    Raises
    ------
    ValueError
        A class is larger than the budget, or there is none.

    Notes
    -----
    **Thread-safety**: each call is atomic. Blocks may be released by any thread. After
    a fork the child's pool and blocks are its own.

    Those who wait for one class are served in turn. Slabs go to whoever came first of
    those that one can serve. A request that finds a free block of its class takes it,
    also while others wait for other classes: who holds a large block and needs a small
    one is not held up by those who wait for large ones.

    For each class that is used, address space of the whole budget is reserved; memory
    is not.

    It pays for buffers of changing sizes of which several are alive, above all over
    1 MiB. It does not for objects under 512 bytes or one steady buffer under 16 MiB.

    Examples
    --------
    >>> pool = MemoryPool([4096, "16KiB", "64KiB"], total_size="1MiB")
    >>> with pool.allocate(5000) as block:
    ...     block.view[:5] = b"hello"
    ...     len(block.view), pool.stats().padding
    (5000, 11384)
    >>> frame = pool.empty((64, 64), "float32")
    >>> pool.stats().in_use
    1
    >>> del frame
    >>> pool.trim() >= 4096
    True
    """

    def __init__(
        self,
        block_sizes: Iterable[SupportsIndex | str] | None = None,
        total_size: SupportsIndex | str = "1GB",
        *,
        on_too_large: Literal["raise", "heap", "map"] = "raise",
        on_exhausted: Literal["raise", "wait", "heap"] = "raise",
        timeout: float | None = None,
        slab_size: SupportsIndex | str | None = None,
        prefault: bool = False,
        huge_pages: Literal["auto", "always", "never"] = "auto",
        alignment: SupportsIndex = 64,
        zero: Literal["never", "acquire", "release"] = "never",
        debug: bool = False,
        name: str | None = None,
        fork: Literal["copy", "wipe", "absent"] = "copy",
        on_create: Callable[[int, int], object] | None = None,
        on_destroy: Callable[[int, int], object] | None = None,
    ) -> None:
        self._total = parse_size(total_size, "total_size")
        self._on_too_large = choice("on_too_large", on_too_large, ON_TOO_LARGE)
        self._on_exhausted = choice("on_exhausted", on_exhausted, ON_EXHAUSTED)
        self._timeout = seconds("timeout", timeout)
        align = power_of_two("alignment", alignment, 2**40)
        slab = min(SLAB, max(self._total // 64, 1))
        if slab_size is not None:
            slab = parse_size(slab_size, "slab_size")
        if block_sizes is None:
            sizes = geometric(SMALLEST, min(LARGEST, self._total // 4))
        elif isinstance(block_sizes, str):
            raise TypeError(f"block_sizes must be several sizes, not {block_sizes!r}")
        else:
            sizes = sorted({parse_size(size, "a block size") for size in block_sizes})
        if not sizes:
            raise ValueError(
                f"there is no size class: block_sizes={block_sizes!r}, "
                f"total_size={total_size!r}"
            )
        owns: dict[str, Any] = {
            "alignment": align,
            "huge_pages": huge_pages,
            "zero": zero,
            "name": name,
            "fork": fork,
        }
        self._own = {**owns, "debug": debug}
        settings = {
            **self._own,
            "prefault": prefault,
            "on_create": on_create,
            "on_destroy": on_destroy,
        }
        self._lock = new_rlock()  # the budget
        self._line = Line()
        self._owners: weakref.WeakSet[BlockPool] = weakref.WeakSet()
        owners = self._owners
        poke = self._line.poke if on_exhausted == "wait" else None

        def taken_in(pool: BlockPool) -> None:
            # No cycle: a class refers to the line and not to the pool.
            owners.add(pool)
            if poke is not None:
                pool._listen(poke)

        gap = GAP if debug else 0
        self._classes: list[SizeClass] = []
        for size in sizes:
            stride = -(-(size + gap) // align) * align
            if stride > self._total:
                raise ValueError(
                    f"a block of {size} bytes takes {stride} of total_size="
                    f"{total_size!r}: less than one fits"
                )
            self._classes.append(
                SizeClass(
                    size,
                    stride,
                    min(slab, self._total),
                    self._total,
                    settings,
                    taken_in,
                )
            )
        self._largest = sizes[-1]
        self._calls = Calls(self._classes)
        self._name, self._debug = name, bool(debug)
        # Checks these arguments too, by asking for next to nothing.
        BlockPool(1, 0, slab_blocks=1, max_blocks=1, **settings).close()
        self._heap = BlockPool(1, 1, **owns)
        owners.add(self._heap)
        self._used = self._peak = self._moved = 0
        self._too_large = self._refused = 0
        self._closed = False

    # -- blocks ----------------------------------------------------------------------

    def allocate(
        self, size: SupportsIndex | str, timeout: float | None = None
    ) -> Block:
        """A block of *size* bytes. O(1), but for a new slab.

        Parameters
        ----------
        size : int or str
            Bytes; the block's view and arrays have no more.
        timeout : float, optional
            Seconds to wait, with ``on_exhausted="wait"``; the pool's own by default.

        Returns
        -------
        Block
            With the bytes its last user left, unless the pool zeroes. To be used in a
            ``with``, or released, or dropped.

        Raises
        ------
        ValueError
            *size* is not positive, or larger than the largest class and
            ``on_too_large="raise"``.
        PoolExhaustedError
            There is no free block and no slab to be had.
        PoolTimeoutError
            There was none in time.
        PoolClosedError
            The pool is closed.
        MemoryError
            The heap or the system has no such memory.
        """
        try:
            block = self._calls[size](size)
        except TypeError:
            parse_size(size)  # which says what is wrong with it
            raise
        return self._allocate(size, timeout) if block is None else block

    def allocate_async(
        self, size: SupportsIndex | str, timeout: float | None = None
    ) -> _Allocation:
        """As :meth:`allocate`, but what waits is a task of asyncio, not its thread.

        ``block = await pool.allocate_async(n)``, or
        ``async with pool.allocate_async(n) as block``. Tasks and threads wait in one
        line. A task that is cancelled leaves it, and gives back what it was handed
        meanwhile.
        """
        return _Allocation(self, size, timeout)

    def release(self, block: Block, strict: bool = False) -> None:
        """Give *block* back: :meth:`Block.release` for a block of this pool. O(1).

        Raises
        ------
        TypeError
            *block* is not a :class:`Block`.
        ValueError
            *block* belongs to another pool.
        BlockReleasedError, BlockInUseError, CorruptionError
            As :meth:`Block.release`.
        """
        if not isinstance(block, Block):
            raise TypeError(f"release() takes a Block, not {block!r}")
        if not block.released and block.pool not in self._owners:
            raise ValueError(f"{block!r} belongs to another pool")
        block.release(strict)

    def empty(
        self,
        shape: Any,
        dtype: npt.DTypeLike | None = None,
        timeout: float | None = None,
    ) -> npt.NDArray[Any]:
        """An array in a block of its own, which goes back when the array dies. O(1).

        Parameters
        ----------
        shape : int or tuple of int
            Its dimensions.
        dtype : dtype, optional
            Of the items; bytes (``uint8``) by default.
        timeout : float, optional
            As for :meth:`allocate`.

        Returns
        -------
        numpy.ndarray
            Writable, C-contiguous, with the bytes the block's last user left. The
            block is held while the array, or any view of it, lives.

        Raises
        ------
        ValueError
            The shape is negative, the items are objects, or the array is too large.
        PoolExhaustedError, PoolTimeoutError, PoolClosedError
            As :meth:`allocate`.
        """
        dt = dtype if type(dtype) is np.dtype else np.dtype(dtype or np.uint8)
        try:
            nbytes = (shape if type(shape) is int else math.prod(shape)) * dt.itemsize
        except TypeError:
            nbytes = None
        if type(nbytes) is not int or nbytes <= 0:  # empty, wrong, or of other types
            if shape is None:
                raise TypeError(
                    "shape must be a whole number or a tuple of them, not None"
                )
            dt, shape = array_layout(sys.maxsize, dt, shape)
            nbytes = max(math.prod(shape) * dt.itemsize, 1)
        return self.allocate(nbytes, timeout).array(dt, shape)

    # -- memory ----------------------------------------------------------------------

    def trim(self) -> int:
        """Give the memory of free blocks back to the system. O(blocks + pages).

        Slabs that are wholly free go, and their share of the budget is free for other
        classes; of the others whole free pages go.

        Returns
        -------
        int
            Bytes that were resident there.

        Raises
        ------
        PoolClosedError
            The pool is closed.
        """
        self._check_open()
        freed = 0
        for each in self._made():
            blocks, resident = each.pool.shrink()  # type: ignore[union-attr]
            self._give_budget(blocks * each.stride)
            freed += resident + each.pool.trim()  # type: ignore[union-attr]
        return freed

    def close(self) -> None:
        """Hand out nothing more.

        Blocks that are out stay good; the memory of a class goes back to the system
        when the last block of it does. Those who wait get
        :class:`~ctxpool.errors.PoolClosedError`. Closing twice does nothing.
        """
        with self._lock:
            self._closed = True
            self._calls.clear()
        self._heap.close()
        for each in self._made():
            each.pool.close()  # type: ignore[union-attr]
        self._line.poke()

    def leaks(self) -> list[tuple[int, str]]:
        """Blocks that are out and where they were acquired; needs ``debug=True``.

        Returns
        -------
        list of (int, str)
            Bytes of the block's class and ``"file:line in function"``, by size.

        Raises
        ------
        RuntimeError
            The pool is not in debug mode.
        """
        if not self._debug:
            raise RuntimeError("leaks() needs a pool made with debug=True")
        return [
            (each.block_size, place)
            for each in self._made()
            for _, place in each.pool.leaks()  # type: ignore[union-attr]
        ]

    def stats(self) -> MemoryPoolStats:
        """What the pool counts, class by class; each class at one moment of its own."""
        classes = tuple(each.stats() for each in self._made())
        heap = self._heap.stats()
        return MemoryPoolStats(
            name=self._name,
            total_size=self._total,
            bytes=self._used,
            peak_bytes=self._peak,
            in_use=sum(each.in_use for each in classes),
            requested=sum(each.requested for each in classes),
            padding=sum(each.padding for each in classes),
            free_in_used_slabs=sum(each.free_in_used_slabs for each in classes),
            moved=self._moved,
            too_large=self._too_large,
            heap=heap.heap_fallbacks,
            heap_in_use=heap.acquires - heap.releases,
            waits=sum(each.waits for each in classes),
            exhausted=self._refused + sum(each.exhausted for each in classes),
            classes=classes,
        )

    def check(self) -> None:
        """Walk the pool's invariants; AssertionError where one is broken. For tests.

        No other thread may use the pool meanwhile.
        """
        blocks = 0
        for each in self._made():
            assert each.pool is not None
            each.pool.check()
            blocks += each.pool.stats().bytes
        assert self._closed or blocks == self._used, (blocks, self._used)
        assert self._used <= self._total
        assert self._used <= self._peak <= self._total

    @property
    def name(self) -> str | None:
        """The pool's name."""
        return self._name

    @property
    def total_size(self) -> int:
        """The budget in bytes."""
        return self._total

    @property
    def block_sizes(self) -> tuple[int, ...]:
        """Bytes of a block of each class, ascending."""
        return tuple(each.block_size for each in self._classes)

    @property
    def closed(self) -> bool:
        """Whether the pool was closed."""
        return self._closed

    def __enter__(self) -> MemoryPool:
        self._check_open()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        name = "" if self._name is None else f"name={self._name!r}, "
        closed = ", closed" if self._closed else ""
        return (
            f"<MemoryPool {name}{len(self._classes)} classes up to {self._largest} "
            f"bytes, {self._used} of {self._total} bytes in slabs{closed}>"
        )

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "cannot pickle a MemoryPool: its memory belongs to this process"
        )

    # -- inside ----------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._closed:
            refuse_closed(self._name)

    def _made(self) -> list[SizeClass]:
        return [each for each in self._classes if each.pool is not None]

    def _allocate(self, size: SupportsIndex | str, timeout: float | None) -> Block:
        """Where the class had no block at once, or there is no such class."""
        nbytes = parse_size(size)
        patience = self._timeout if timeout is None else seconds("timeout", timeout)
        block, each = self._at_once(nbytes)
        if each is None:
            return block  # type: ignore[return-value]
        return self._adopt(each, self._line.wait(each, self._extend, patience), nbytes)

    async def _allocate_in_task(
        self, size: SupportsIndex | str, timeout: float | None
    ) -> Block:
        try:
            block = self._calls[size](size)
        except TypeError:
            parse_size(size)
            raise
        if block is not None:
            return block
        nbytes = parse_size(size)
        patience = self._timeout if timeout is None else seconds("timeout", timeout)
        block, each = self._at_once(nbytes)
        if each is None:
            return block  # type: ignore[return-value]
        index = await self._line.wait_in_task(each, self._extend, patience)
        return self._adopt(each, index, nbytes)

    def _at_once(self, nbytes: int) -> tuple[Block | None, SizeClass | None]:
        """A block without waiting, or the class that is to be waited for."""
        self._check_open()
        if nbytes > self._largest:
            return self._outside(nbytes), None
        each = self._calls.class_of(nbytes)
        with self._lock:
            self._check_open()
            pool = each.make()
            each.misses += 1
        block = pool.try_acquire(nbytes)
        # Who waits already comes before this one: what is free of the budget is theirs.
        waits = self._on_exhausted == "wait"
        while block is None and not (waits and self._line.waiting):
            if not self._extend(each):
                break
            block = pool.try_acquire(nbytes)
        if block is not None:
            return block, None
        if waits:
            return None, each
        if self._on_exhausted == "heap":
            return self._heap._from_heap(nbytes), None
        with self._lock:
            self._refused += 1
        self._refuse(each, nbytes)

    def _outside(self, nbytes: int) -> Block:
        """More than any class has."""
        if self._on_too_large == "raise":
            raise ValueError(
                f"size {nbytes} is larger than the largest class of {self._largest} "
                'bytes; on_too_large="heap" or "map" would serve it'
            )
        if self._on_too_large == "heap":
            block = self._heap._from_heap(nbytes)
        else:
            pool = BlockPool(nbytes, 1, **self._own)
            self._owners.add(pool)
            block = pool.acquire()
        with self._lock:
            self._too_large += 1
        return block

    def _refuse(self, each: SizeClass, nbytes: int) -> NoReturn:
        name = "" if self._name is None else f" {self._name!r}"
        raise PoolExhaustedError(
            f"the pool{name} has no free block of {each.block_size} bytes for "
            f"{nbytes}, and {self._used} of {self._total} bytes are in slabs that are "
            "in use; release some, or make it with a larger total_size"
        )

    def _adopt(self, each: SizeClass, index: int, nbytes: int) -> Block:
        assert each.pool is not None
        return each.pool._adopt(index, nbytes)

    def _extend(self, each: SizeClass) -> bool:
        """One more slab for a class, if there is one to be had."""
        if not (self._take_budget(each.slab_bytes) or self._exchange(each)):
            return False
        came = 0
        try:
            came = each.pool.grow()  # type: ignore[union-attr]
        finally:
            if not came:
                self._give_budget(each.slab_bytes)
        return came > 0

    def _take_budget(self, need: int, held: int = 0) -> bool:
        """Take *need* bytes of the budget, of which *held* are taken already."""
        with self._lock:
            self._used += need - held
            if self._used > self._total:
                self._used -= need - held
                return False
            self._peak = max(self._peak, self._used)
        return True

    def _give_budget(self, nbytes: int) -> None:
        with self._lock:
            self._used -= nbytes
        self._line.poke()  # who waits may have looked while these were taken

    def _exchange(self, each: SizeClass) -> bool:
        """Have other classes give up idle slabs in favour of one; all or none."""
        idle = [
            (other.pool._idle() * other.slab_bytes, number, other)
            for number, other in enumerate(self._classes)
            if other.pool is not None and other is not each
        ]
        need, held = each.slab_bytes, 0
        if self._total - self._used + sum(nbytes for nbytes, _, _ in idle) < need:
            return False
        try:
            # The class with the most first. What goes stays ours until it is enough.
            for _, _, other in sorted(idle, reverse=True):
                blocks = 1
                while blocks:
                    blocks, _ = other.pool.shrink(1)  # type: ignore[union-attr]
                    held += blocks * other.stride
                    if self._take_budget(need, held):
                        held = 0
                        with self._lock:
                            self._moved += 1
                        return True
        finally:
            if held:
                self._give_budget(held)
        return False
