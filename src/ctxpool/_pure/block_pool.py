"""The block pool in Python: what ``_native/block_pool.pyx`` does, slower."""

from __future__ import annotations

import operator
import sys
import warnings
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Literal, NoReturn, SupportsIndex

import numpy as np
import numpy.typing as npt

from ctxpool._arguments import (
    array_layout,
    check_indices,
    choice,
    count,
    power_of_two,
    seconds,
)
from ctxpool._places import place
from ctxpool._pure.block import HEAP, Block, damage, make_lease
from ctxpool._pure.locks import new_rlock
from ctxpool._pure.slab import FORK_MODES, Slab
from ctxpool._waiting import TaskWaiter, Waiter, wait, wait_in_task
from ctxpool.errors import (
    CorruptionError,
    PoolClosedError,
    PoolExhaustedError,
    PoolTimeoutError,
)
from ctxpool.sizes import parse_size
from ctxpool.stats import BlockPoolStats

from .. import _unraisable

__all__ = ["Block", "BlockPool"]

_BY_LEASE, _BY_INDEX = 1, 2
_CANARY, _CANARY_SIZE, _POISON_FREE, _POISON_NEW = 0xFD, 16, 0xDD, 0xCD
_MAX_BLOCKS = 2**32 - 2
_GENERATIONS = 2**29
_MAX_ALIGNMENT = 2**40
_GROWTH = 64  # "grow" without a bound of the user's own: up to so many times blocks
_HUGE_BLOCK = 2 << 20

_ON_EXHAUSTED = ("raise", "wait", "grow", "heap")
_ZERO = ("never", "acquire", "release")
_HUGE_PAGES = ("auto", "always", "never")


class _Locked:
    """The lock of a pool's tables, with all in them that was returned so far.

    What is returned while it is held, by a finalizer in this very thread perhaps, is
    seen to at its end. Any other call that interrupts one of the same thread would
    find the tables half changed: it is refused. The lock can be taken twice, so that
    whoever comes in between its being taken and being marked as busy has it whole.
    """

    __slots__ = ("_pool",)

    def __init__(self, pool: BlockPool) -> None:
        self._pool = pool

    def __enter__(self) -> None:
        pool = self._pool
        pool._lock.acquire()
        if pool._busy:
            pool._lock.release()
            raise RuntimeError(
                "a finalizer or signal handler that interrupted a call on a pool "
                "can only release blocks of it"
            )
        pool._busy = True
        pool._drain()

    def __exit__(self, *exc: object) -> None:
        self._pool._unlock()
        self._pool._settle()


class BlockPool:
    """Blocks of equal size, made at once and used again and again.

    Acquire and release are O(1), touch no block memory and ask nobody for any: the
    free list is a stack of numbers beside the blocks, last in, first out. The slab
    is one private mapping, aligned, and stays where it is.

    A block's memory never goes back to the pool while anything can still reach it:
    see :class:`Block`.

    Parameters
    ----------
    block_size : int or str
        Bytes of a block, or text such as ``"64KB"`` or ``"1MiB"``.
    blocks : int
        Blocks that exist from the start.
    max_blocks : int, optional
        Blocks that may exist with ``on_exhausted="grow"``; 64 times *blocks* by
        default. Address space for them is reserved at once, memory is not.
    alignment : int
        Of each block's address; a power of two. Blocks are padded to a multiple of it.
    prefault : bool
        Make all blocks resident now (0.2 to 0.6 s for 1 GB), so that no first touch
        costs a page fault later.
    huge_pages : {"auto", "always", "never"}
        Ask the system for huge pages, where the slab is large enough for one.
        ``"auto"`` asks where blocks are of a huge page or more, or are prefaulted:
        elsewhere the first touch of a small block would pay for 2 MiB.
    on_exhausted : {"raise", "wait", "grow", "heap"}
        What an acquire does when no block is free: raise
        :class:`~ctxpool.errors.PoolExhaustedError`; wait for one, first come, first
        served; make more, doubling, up to *max_blocks*, then raise; take memory from
        the heap, which is counted.
    timeout : float, optional
        Seconds to wait with ``"wait"``; without end by default.
    zero : {"never", "acquire", "release"}
        When blocks are filled with zeros. ``"never"``: a block has the bytes that its
        last user left.
    debug : bool
        Fill blocks with 0xCD when acquired and 0xDD when released, find writes behind
        a block's end and into a free block, and remember the place of each acquire
        for :meth:`leaks`. Slow: O(block_size) an acquire.
    name : str, optional
        For errors and statistics.
    fork : {"copy", "wipe", "absent"}
        What a forked child finds in the blocks: a copy, zeros, or nothing (touching
        it is a fault). With ``"copy"`` the parent pays after a fork for each page it
        writes next.
    slab_blocks : int, optional
        Blocks that come and go together, by :meth:`grow` and :meth:`shrink`; a power
        of two. *blocks*, which may be 0 then, and *max_blocks*, which needs no
        ``"grow"`` then, are multiples of it.
    on_create, on_destroy : callable, optional
        ``on_create(address, nbytes)`` is called when memory for blocks has come into
        being (at construction and when the pool grows), before a block of it is
        handed out; ``on_destroy`` with the same numbers before that memory goes: when
        a slab is given back, or when the pool was closed or dropped and its last
        block came back. For who must register memory: pinned pages, RDMA. They run
        without any lock. What *on_create* raises is raised by the call that needed
        the memory, and the memory is not used; what *on_destroy* raises goes to
        :func:`sys.unraisablehook`. Memory registered so stays when :meth:`trim` is
        called.

    Raises
    ------
    MemoryError
        The system has no room for the slab.
    OSError
        The system knows no such *fork* mode.

    Notes
    -----
    **Thread-safety**: each call is atomic. The pool may be used from any thread;
    blocks may be released by another thread than the one that acquired them. After a
    fork the child's pool and blocks are its own. A finalizer or a signal handler may
    use the pool in the middle of any call on it; the pure pool lets it release blocks,
    and refuses the rest with RuntimeError.

    Where a pool does not pay: buffers under about 512 bytes, arrays under 1 KiB, and
    one steady buffer of up to 16 MiB that is filled anyway.

    Examples
    --------
    >>> pool = BlockPool("4KiB", 8)
    >>> with pool.acquire() as block:
    ...     block.view[:5] = b"hello"
    ...     pool.in_use
    1
    >>> pool.in_use
    0
    >>> frame = pool.empty((4, 4), "float32")
    >>> pool.in_use
    1
    >>> del frame
    >>> pool.in_use
    0
    """

    def __init__(
        self,
        block_size: SupportsIndex | str,
        blocks: SupportsIndex,
        *,
        max_blocks: SupportsIndex | None = None,
        alignment: SupportsIndex = 64,
        prefault: bool = False,
        huge_pages: Literal["auto", "always", "never"] = "auto",
        on_exhausted: Literal["raise", "wait", "grow", "heap"] = "raise",
        timeout: float | None = None,
        zero: Literal["never", "acquire", "release"] = "never",
        debug: bool = False,
        name: str | None = None,
        fork: Literal["copy", "wipe", "absent"] = "copy",
        slab_blocks: SupportsIndex | None = None,
        on_create: Callable[[int, int], object] | None = None,
        on_destroy: Callable[[int, int], object] | None = None,
    ) -> None:
        if hasattr(self, "_slab"):
            raise RuntimeError("this pool is made already: make another")
        self._block_size = parse_size(block_size, "block_size")
        self._span = 0
        if slab_blocks is not None:
            self._span = power_of_two("slab_blocks", slab_blocks, 1 << 30)
        n = count("blocks", blocks, 0 if self._span else 1, _MAX_BLOCKS)
        self._on_exhausted = choice("on_exhausted", on_exhausted, _ON_EXHAUSTED)
        self._zero = choice("zero", zero, _ZERO)
        choice("huge_pages", huge_pages, _HUGE_PAGES)
        choice("fork", fork, FORK_MODES)
        if max_blocks is None:
            self._max_blocks = n
            if on_exhausted == "grow" or self._span:
                self._max_blocks = min(max(n, self._span) * _GROWTH, _MAX_BLOCKS)
        elif on_exhausted != "grow" and not self._span:
            raise ValueError(
                f'max_blocks={max_blocks!r} needs on_exhausted="grow", '
                f"not {on_exhausted!r}"
            )
        else:
            self._max_blocks = count("max_blocks", max_blocks, max(n, 1), _MAX_BLOCKS)
        if self._span:
            for what, number in (("blocks", n), ("max_blocks", self._max_blocks)):
                if number % self._span:
                    raise ValueError(
                        f"{what} must be a multiple of slab_blocks={self._span}, "
                        f"not {number}"
                    )
        for what, hook in (("on_create", on_create), ("on_destroy", on_destroy)):
            if hook is not None and not callable(hook):
                raise TypeError(f"{what} must be callable or None, not {hook!r}")
        self._alignment = power_of_two("alignment", alignment, _MAX_ALIGNMENT)
        self._timeout = seconds("timeout", timeout)
        if name is not None and not isinstance(name, str):
            raise TypeError(f"name must be text or None, not {name!r}")
        self._name = name
        self._debug = bool(debug)
        gap = _CANARY_SIZE if debug else 0
        self._stride = -(-(self._block_size + gap) // self._alignment) * self._alignment
        self._slab: Slab | None = Slab(
            self._stride * self._max_blocks,
            self._alignment,
            huge=huge_pages == "always"
            or (huge_pages == "auto" and (prefault or self._block_size >= _HUGE_BLOCK)),
            lazy=self._max_blocks > n,
        )
        self._base = self._slab.base
        self._slab.advise_fork(fork)
        self._on_create, self._on_destroy = on_create, on_destroy
        # For the hooks: only _finish lets the slab go.
        self._pinned = on_create is not None or on_destroy is not None
        later = self._span or self._pinned  # the first blocks come as all others do
        self._blocks = 0 if later else n
        self._prefault = bool(prefault)
        if prefault and not later:
            self._slab.populate(self._stride * n)

        self._block_lock = new_rlock()  # the state of this pool's Block objects
        self._lock = new_rlock()  # the tables below; taken after the other
        self._busy = False  # somebody has it, and is changing them
        self._slot: dict[int, int] = {}  # owner of each block that is out
        self._generation: dict[int, int] = {}
        self._stack: list[int] = []
        self._fresh = 0
        self._poisoned: set[int] = set()
        self._returned: deque[tuple[int, int, bool]] = deque()
        self._deferred: deque[None] = deque()
        self._waiters: deque[Waiter | TaskWaiter] = deque()
        self._damaged: deque[int] = deque()
        self._places: dict[int, str] = {}
        self._closed = False
        self._in_use = self._peak = self._acquires = self._releases = 0
        self._waits = self._exhausted = self._heap = self._heap_live = 0
        self._padding = 0
        self._used: dict[int, int] = {}  # of each slab that is there: blocks out
        self._idle_slabs = 0
        self._absent: set[int] = set()  # blocks that have no memory for now
        self._coming = 0  # calls of the hooks that go on
        self._ranges: list[tuple[int, int]] = []  # that on_destroy is to be told of
        self._holes: list[tuple[int, int]] = []  # that are absent, to be used again
        self._listener: Callable[[], object] | None = None
        self._news = False  # a slab became idle: for the listener
        while later and self._blocks < n:
            self._extend(self._span or n, holes=False)

    def __init_subclass__(cls) -> None:
        raise TypeError("type 'ctxpool.BlockPool' is not an acceptable base type")

    # -- blocks ----------------------------------------------------------------------

    def acquire(
        self, timeout: float | None = None, size: SupportsIndex | None = None
    ) -> Block:
        """A free block. O(1).

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait, with ``on_exhausted="wait"``; the pool's own by default.
        size : int, optional
            Bytes needed of it: its view and its arrays have no more. All by default.

        Returns
        -------
        Block
            With the bytes its last user left, unless the pool zeroes.

        Raises
        ------
        PoolExhaustedError
            No block is free, and the pool neither waits, grows nor takes from the heap.
        PoolTimeoutError
            No block became free in time.
        PoolClosedError
            The pool is closed.
        CorruptionError
            The pool is in debug mode, and the block was written to while it was free.
            The block is handed out at the next acquire.
        """
        asked = self._size_of(size)
        index = self._take(_BY_LEASE, timeout, heap=True)
        return self._block(index, asked)

    async def acquire_async(
        self, timeout: float | None = None, size: SupportsIndex | None = None
    ) -> Block:
        """As :meth:`acquire`, but what waits is a task of asyncio, not its thread.

        Tasks and threads wait in one queue. A task that is cancelled leaves it, and
        gives back what it was handed meanwhile.
        """
        block = self.try_acquire(size)
        if block is None and self._on_exhausted == "wait":
            index = await wait_in_task(self, self._patience(timeout))
            block = self._adopt(index, size)
        return self.acquire(None, size) if block is None else block

    def try_acquire(self, size: SupportsIndex | None = None) -> Block | None:
        """A free block, or None. Never waits, never takes from the heap. O(1).

        Parameters
        ----------
        size : int, optional
            As for :meth:`acquire`.

        Raises
        ------
        PoolClosedError
            The pool is closed.
        """
        asked = self._size_of(size)
        index = self._try(_BY_LEASE)
        if index is None:
            return None
        self._remember(index)
        return self._block(index, asked)

    def acquire_many(self, n: SupportsIndex) -> list[Block]:
        """*n* blocks, or none and an error. Never waits. O(n).

        Raises
        ------
        PoolExhaustedError
            Fewer than *n* are free, and the pool can't grow by so many.
        PoolClosedError
            The pool is closed.
        """
        count = operator.index(n)
        if count < 0:
            raise ValueError(f"n must not be negative, not {count}")
        size = self._block_size
        return [self._block(index, size) for index in self._take_many(count, _BY_LEASE)]

    def release(self, block: Block, strict: bool = False) -> None:
        """Give *block* back: :meth:`Block.release` for a block of this pool.

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
        if block._pool is not None and block._pool is not self:
            raise ValueError(f"{block!r} belongs to another pool")
        block.release(strict)

    def empty(
        self, shape: Any = None, dtype: npt.DTypeLike | None = None
    ) -> npt.NDArray[Any]:
        """An array in a block of its own, which goes back when the array dies. O(1).

        Parameters
        ----------
        shape : int or tuple of int, optional
            By default one dimension with as many items as fit.
        dtype : dtype, optional
            Of the items; bytes (``uint8``) by default.

        Returns
        -------
        numpy.ndarray
            Writable, C-contiguous, with the bytes the block's last user left. The
            block is held while the array, or any view of it, lives.

        Raises
        ------
        ValueError
            The array is larger than a block, or its items are objects.
        PoolExhaustedError, PoolTimeoutError, PoolClosedError, CorruptionError
            As :meth:`acquire`.
        """
        dt, dims = array_layout(self._block_size, dtype, shape)
        lease = make_lease(
            self, self._take(_BY_LEASE, None, heap=True), self._block_size
        )
        return np.ndarray(dims, dt, lease)

    # -- blocks by number ------------------------------------------------------------

    def allocate(self) -> int:
        """The number of a free block, for those who manage blocks by number. O(1).

        It stays taken until :meth:`free`. The pool keeps no watch over who uses its
        memory.

        Raises
        ------
        PoolExhaustedError, PoolTimeoutError, PoolClosedError, CorruptionError
            As :meth:`acquire`; a block from the heap has no number.
        """
        return self._take(_BY_INDEX, None, heap=False)

    def free(self, index: SupportsIndex) -> None:
        """Give back a block that :meth:`allocate` gave. O(1).

        Raises
        ------
        ValueError
            No such block is out by its number: it is free, or a :class:`Block`'s.
        """
        number = operator.index(index)
        self._free([number])

    def allocate_many(self, out: npt.NDArray[np.integer]) -> None:
        """Fill *out* with the numbers of free blocks, all or none. O(n). Never waits.

        Parameters
        ----------
        out : ndarray of an integer dtype
            Any shape; writable.

        Raises
        ------
        TypeError
            *out* is no integer ndarray.
        ValueError
            *out* can't be written to, or its dtype can't hold the pool's numbers.
        PoolExhaustedError
            Fewer than ``out.size`` blocks are free; none was taken.
        """
        check_indices(out, highest=self._max_blocks - 1)
        numbers = self._take_many(out.size, _BY_INDEX)
        out[...] = np.array(numbers, np.int64).reshape(out.shape)

    def free_many(self, indices: npt.NDArray[np.integer]) -> None:
        """Give back blocks that were allocated by number, all or none. O(n).

        Parameters
        ----------
        indices : ndarray of an integer dtype
            Any shape.

        Raises
        ------
        TypeError
            *indices* is no integer ndarray.
        ValueError
            One of them is not out by its number, or stands there twice; none was
            given back.
        """
        check_indices(indices)
        numbers = indices.ravel().tolist()
        self._free(numbers)

    def address(self, index: SupportsIndex) -> int:
        """Where block *index* begins in memory; IndexError where there is none.

        Raises
        ------
        PoolClosedError
            The pool is closed, and its memory given back.
        """
        number = self._existing(index)
        if self._slab is None:
            self._open()
        return self._base + number * self._stride

    def generation(self, index: SupportsIndex) -> int:
        """How often block *index* was handed out, modulo 2**29.

        Who keeps it beside the number can tell later whether the block is still the
        one he knew.
        """
        number = self._existing(index)
        with _Locked(self):
            return self._generation.get(number, 0) % _GENERATIONS

    # -- memory ----------------------------------------------------------------------

    def warm(self, n: SupportsIndex | None = None) -> None:
        """Make the first *n* blocks resident, all by default. Changes no byte.

        O(pages). Other threads go on meanwhile.

        Raises
        ------
        RuntimeError
            The pool has slabs: they are made resident as they come (*prefault*).
        """
        if self._span:
            raise RuntimeError("warm() needs a pool without slabs: use prefault=True")
        count = self._blocks if n is None else operator.index(n)
        if not 0 <= count <= self._max_blocks:
            raise ValueError(f"n must be from 0 to {self._max_blocks}, not {count}")
        with _Locked(self):
            self._open()
            slab = self._slab
        if slab is not None:
            slab.populate(count * self._stride)

    def trim(self) -> int:
        """Give the memory of free blocks back to the system. O(blocks + pages).

        Returns
        -------
        int
            Bytes that were resident there. Spans of 2 MiB and more the system may
            take only when it is short, so the process may look as large for a while.
            0 in a pool with hooks, whose memory is registered with somebody.
        """
        freed = 0
        if self._pinned:
            return 0
        with _Locked(self):
            slab, begin = self._slab, 0
            while slab is not None and begin < self._blocks:
                end = begin
                while end < self._blocks and not (
                    end in self._slot or end in self._absent
                ):
                    self._poisoned.discard(end)
                    end += 1
                if end > begin:
                    freed += slab.discard(
                        begin * self._stride,
                        (end - begin) * self._stride,
                        lazy=not self._debug,
                    )
                begin = end + 1
        return freed

    def grow(self, slabs: SupportsIndex = 1) -> int:
        """Let so many more slabs exist, up to *max_blocks*. O(blocks of a slab).

        Their blocks go first to those who wait. Those that :meth:`shrink` gave back
        come again first.

        Returns
        -------
        int
            Blocks that came.

        Raises
        ------
        RuntimeError
            The pool was made without *slab_blocks*.
        PoolClosedError
            The pool is closed.
        MemoryError
            The system has no memory to make them resident (*prefault*).
        """
        self._check_slabs()
        more = 0
        for _ in range(count("slabs", slabs, 0, _MAX_BLOCKS)):
            with _Locked(self):
                self._open()
            if not self._extend(self._span, holes=True):
                break
            more += self._span
        return more

    def shrink(self, slabs: SupportsIndex | None = None) -> tuple[int, int]:
        """Give slabs that are wholly free back to the system, all by default.

        Their blocks no longer exist, until the pool grows again; their address space
        stays reserved. O(free blocks) a slab.

        Returns
        -------
        int
            Blocks that went.
        int
            Bytes of theirs that were resident.

        Raises
        ------
        RuntimeError
            The pool was made without *slab_blocks*.
        PoolClosedError
            The pool is closed.
        """
        self._check_slabs()
        most = _MAX_BLOCKS
        if slabs is not None:
            most = count("slabs", slabs, 0, _MAX_BLOCKS)
        gone = freed = 0
        while gone < most:
            with _Locked(self):
                if self._closed:
                    break
                idle = [number for number, used in self._used.items() if not used]
                slab = self._slab
                if not idle or slab is None:
                    break
                first = max(idle) * self._span
                self._vacate(first)
                self._coming += 1
            gone += 1
            # Without the lock: the range is ours.
            self._tell(self._on_destroy, first, self._span)
            try:
                freed += slab.discard(
                    first * self._stride, self._span * self._stride, lazy=False
                )
            finally:
                with _Locked(self):
                    self._coming -= 1
                    self._holes.append((first, self._span))
        return gone * self._span, freed

    def leaks(self) -> list[tuple[int, str]]:
        """Blocks that are out and where they were acquired; needs ``debug=True``.

        Returns
        -------
        list of (int, str)
            Number and ``"file:line in function"``, by number.

        Raises
        ------
        RuntimeError
            The pool is not in debug mode.
        """
        if not self._debug:
            raise RuntimeError("leaks() needs a pool made with debug=True")
        with _Locked(self):
            found = sorted(
                (index, self._places[index])
                for index in self._slot
                if index in self._places
            )
        return found

    def close(self) -> None:
        """Hand out nothing more.

        Blocks that are out stay good; the slab goes back to the system when the last
        of them does. Those who wait get :class:`~ctxpool.errors.PoolClosedError`.
        A pool in debug mode warns (ResourceWarning) of the blocks that are out, with
        the place of each acquire. Closing twice does nothing.
        """
        with _Locked(self):
            if self._closed:
                return
            self._closed = True
            self._stack.clear()
            self._fresh = self._blocks
            self._let_go()
            waiters = list(self._waiters)
            self._waiters.clear()
        for waiter in waiters:
            waiter.hand(None)
        if self._debug and self._in_use:
            listed = "\n".join(
                f"  block {index}, acquired at {place}" for index, place in self.leaks()
            )
            warnings.warn(
                f"{self!r} was closed with {self._in_use} blocks out:\n{listed}",
                ResourceWarning,
                stacklevel=2,
            )

    def stats(self) -> BlockPoolStats:
        """What the pool counts, at this moment."""
        with _Locked(self):
            return BlockPoolStats(
                name=self._name,
                block_size=self._block_size,
                blocks=self._blocks - len(self._absent),
                max_blocks=self._max_blocks,
                in_use=self._in_use,
                deferred=len(self._deferred),
                peak=self._peak,
                acquires=self._acquires,
                releases=self._releases,
                waits=self._waits,
                exhausted=self._exhausted,
                heap_fallbacks=self._heap,
                bytes=self._stride * (self._blocks - len(self._absent)),
                padding=self._padding,
                idle=self._idle_slabs * self._span,
            )

    def check(self) -> None:
        """Walk the pool's invariants; AssertionError where one is broken. For tests."""
        with _Locked(self):
            assert self._fresh <= self._blocks <= self._max_blocks
            assert len(self._slot) == self._in_use <= self._peak
            assert self._acquires - self._releases == self._in_use + self._heap_live
            if self._closed:
                assert not self._stack
            else:
                assert len(set(self._stack)) == len(self._stack)
                assert not set(self._stack) & set(self._slot)
                assert not set(self._stack) & self._absent
                taken = len(self._stack) + self._in_use + len(self._absent)
                assert taken == self._fresh
            assert not self._absent & set(self._slot)
            for number, used in self._used.items():
                first = number * self._span
                blocks = range(first, first + self._span)
                assert used == sum(block in self._slot for block in blocks)
                assert not self._absent.intersection(blocks)
            idle = sum(not used for used in self._used.values())
            assert idle == self._idle_slabs

    @property
    def name(self) -> str | None:
        """The pool's name."""
        return self._name

    @property
    def block_size(self) -> int:
        """Bytes of a block that its user may write."""
        return self._block_size

    @property
    def blocks(self) -> int:
        """Blocks that exist, free or not."""
        with _Locked(self):
            return self._blocks - len(self._absent)

    @property
    def max_blocks(self) -> int:
        """Blocks that may exist."""
        return self._max_blocks

    @property
    def alignment(self) -> int:
        """Of each block's address."""
        return self._alignment

    @property
    def in_use(self) -> int:
        """Blocks that are out, also those whose release is deferred."""
        with _Locked(self):
            return self._in_use

    @property
    def available(self) -> int:
        """Blocks that could be acquired now, without growing."""
        with _Locked(self):
            return len(self._stack) + self._blocks - self._fresh

    @property
    def closed(self) -> bool:
        """Whether the pool was closed."""
        return self._closed

    def __enter__(self) -> BlockPool:
        with _Locked(self):
            self._open()
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
            f"<BlockPool {name}block_size={self._block_size}, "
            f"blocks={self._blocks}, in_use={self.in_use}{closed}>"
        )

    def __reduce__(self) -> NoReturn:
        raise TypeError("cannot pickle a BlockPool: its memory belongs to this process")

    # -- inside ----------------------------------------------------------------------

    def _open(self) -> None:
        if self._closed:
            name = "" if self._name is None else f" {self._name!r}"
            raise PoolClosedError(f"the pool{name} is closed")

    def _existing(self, index: SupportsIndex) -> int:
        number = operator.index(index)
        if not 0 <= number < self._blocks:
            raise IndexError(f"no block {number} in a pool of {self.blocks}")
        return number

    def _block(self, index: int, size: int) -> Block:
        block = object.__new__(Block)
        block._lease = block._view = None
        block._pool, block._index, block._size = self, index, size
        self._pad(index, size)
        return block

    def _pad(self, index: int, size: int) -> None:
        if index != HEAP and size != self._block_size:
            with _Locked(self):
                self._padding += self._block_size - size

    def _size_of(self, size: SupportsIndex | None) -> int:
        """What was asked for, or the whole block."""
        if size is None:
            return self._block_size
        return count("size", size, 1, self._block_size)

    def _try(self, owner: int) -> int | None:
        """A free block, made if need be and allowed."""
        while True:
            with _Locked(self):
                self._open()
                index = self._pop(owner)
            # Others may take what comes, before this thread does.
            if index is not None or self._on_exhausted != "grow" or not self._more(1):
                return index

    def _pop(self, owner: int) -> int | None:
        """A free block; under the lock."""
        if self._stack:
            index = self._stack.pop()
        elif self._fresh < self._blocks:
            index = self._fresh
            self._fresh += 1
        else:
            return None
        self._slot[index] = owner
        self._generation[index] = self._generation.get(index, 0) + 1
        self._acquires += 1
        self._in_use += 1
        self._peak = max(self._peak, self._in_use)
        if self._span:
            number = index // self._span
            self._idle_slabs -= not self._used[number]
            self._used[number] += 1
        if self._debug or self._zero != "never":
            self._fill_taken(index)
        return index

    def _available(self) -> int:
        return len(self._stack) + self._blocks - self._fresh

    def _more(self, needed: int) -> int:
        """Let more blocks exist, *needed* free ones if that may be; how many came."""
        with _Locked(self):
            free = self._available()
            if free >= needed:
                return 1
            more = max(needed - free, self._blocks)
            if not self._span and not self._pinned:
                return self._grow(more)
        if not self._span:
            return self._extend(more, holes=True)
        more = 0
        while self._available() < needed and self._extend(self._span, holes=True):
            more += self._span
        return more or int(self._available() >= needed)  # by another thread's doing

    def _grow(self, more: int) -> int:
        """Up to so many further blocks; under the lock."""
        if self._closed:
            return 0
        more = min(more, self._max_blocks - self._blocks)
        self._blocks += more
        return more

    def _extend(self, more: int, *, holes: bool) -> int:
        """As :meth:`_more`, of slabs and of blocks that the hooks are told of."""
        with _Locked(self):
            slab = self._slab
            if self._closed or slab is None:
                return 0
            if holes and self._holes:
                first, n = self._holes.pop()
            else:
                # Blocks never handed out go on the stack, which a range needs.
                self._stack += range(self._fresh, self._blocks)
                first, n = self._blocks, self._grow(more)
                self._fresh = self._blocks
                self._absent.update(range(first, first + n))
            if not n:
                return 0
            self._coming += 1
        # Without the lock: the range is ours, and the hook may do what it likes.
        came = False
        try:
            if self._prefault:
                slab.populate(n * self._stride, first * self._stride)
            if self._on_create is not None:
                self._on_create(self._base + first * self._stride, n * self._stride)
            came = True
        finally:
            with _Locked(self):
                self._coming -= 1
                if not came:
                    self._holes.append((first, n))
                else:
                    if self._pinned:
                        self._ranges.append((first, n))
                    if not self._closed:
                        self._present(first, n)
        return n

    def _present(self, first: int, n: int) -> None:
        """Make absent blocks free; under the lock."""
        self._absent.difference_update(range(first, first + n))
        self._stack += range(first + n - 1, first - 1, -1)
        if self._span:
            self._used[first // self._span] = 0
            self._idle_slabs += 1
        self._hand_over()

    def _vacate(self, first: int) -> None:
        """Make the blocks of an idle slab absent; under the lock."""
        blocks = range(first, first + self._span)
        self._stack = [index for index in self._stack if index not in blocks]
        self._absent.update(blocks)
        self._poisoned.difference_update(blocks)
        del self._used[first // self._span]
        self._idle_slabs -= 1
        if self._pinned:
            self._ranges.remove((first, self._span))

    def _check_slabs(self) -> None:
        if not self._span:
            raise RuntimeError("grow() and shrink() need a pool with slab_blocks")
        with _Locked(self):
            self._open()

    def _tell(
        self, hook: Callable[[int, int], object] | None, first: int, n: int
    ) -> None:
        if hook is not None:
            try:
                hook(self._base + first * self._stride, n * self._stride)
            except BaseException as error:
                _unraisable.report(error)

    def _let_go(self) -> None:
        """Unmap the slab when its last user is gone; under the lock."""
        if self._closed and not self._in_use and not self._pinned:
            self._slab = None

    def _finish(self) -> None:
        """Tell on_destroy of each range once the slab is to die, then let it go."""
        while self._pinned and self._closed and self._try_lock():
            try:
                if self._in_use:
                    return
                if not self._ranges:
                    if not self._coming:
                        self._pinned = False
                        self._let_go()
                    return
                first, n = self._ranges.pop()
                self._coming += 1
            finally:
                self._unlock()
            self._tell(self._on_destroy, first, n)
            with self._lock:
                self._coming -= 1

    def __del__(self) -> None:
        if getattr(self, "_ranges", None):
            # No block is out, or one that dies with it, whose lease calls _finish.
            self._closed = True
            self._stack.clear()
            self._fresh = self._blocks
            self._finish()

    def _bytes_of(self, index: int) -> memoryview:
        assert self._slab is not None
        return self._slab.bytes_of(index * self._stride, self._stride)

    def _fill_taken(self, index: int) -> None:
        size, memory = self._block_size, self._bytes_of(index)
        if self._debug:
            poison = bytes([_POISON_FREE]) * size
            if index in self._poisoned and memory[:size] != poison:
                self._poisoned.discard(index)
                self._push(index)
                raise CorruptionError(
                    f"block {index} was written to after it was released"
                )
            self._poisoned.discard(index)
            memory[:size] = bytes([_POISON_NEW]) * size
            memory[size:] = bytes([_CANARY]) * (self._stride - size)
        if self._zero == "acquire" or (self._debug and self._zero == "release"):
            memory[:size] = bytes(size)

    def _push(self, index: int) -> None:
        """Take a block back; under the lock."""
        del self._slot[index]
        if self._span:
            number = index // self._span
            self._used[number] -= 1
            self._idle_slabs += not self._used[number]
            self._news = self._news or not self._used[number]
        self._places.pop(index, None)
        self._in_use -= 1
        self._releases += 1
        if self._debug:
            if self._mend(index):
                self._damaged.append(index)
            size = self._block_size
            self._bytes_of(index)[:size] = bytes([_POISON_FREE]) * size
            self._poisoned.add(index)
        elif self._zero == "release":
            self._bytes_of(index)[: self._block_size] = bytes(self._block_size)
        if self._closed:
            self._let_go()
            return
        self._stack.append(index)
        self._hand_over()

    def _hand_over(self) -> None:
        """Free blocks to those who wait, first come, first served; under the lock."""
        while self._waiters and self._stack:
            waiter = self._waiters.popleft()
            if waiter.gone:
                continue
            try:
                handed = self._pop(_BY_LEASE)
            except CorruptionError:
                self._waiters.appendleft(waiter)
                return
            if handed is not None and not waiter.hand(handed):
                self._push(handed)

    def _free(self, numbers: list[int]) -> None:
        error = damaged = None
        with _Locked(self):
            seen: set[int] = set()
            for number in numbers:
                if self._slot.get(number) != _BY_INDEX:
                    error = f"block {number} was not allocated by number"
                elif number in seen:
                    error = f"block {number} stands there twice"
                seen.add(number)
                if error:
                    break
            else:
                for number in reversed(numbers):
                    if self._debug and self._mend(number):
                        damaged = number
                    self._push(number)
        if error:
            raise ValueError(error)
        if damaged is not None:
            raise damage(damaged)

    def _give(self, index: int, size: int) -> None:
        """Take a block back from wherever we are, a finalizer perhaps.

        The lock may be held, by this very thread: so the block is put down first, and
        whoever has the lock picks it up.
        """
        self._returned.append((index, size, False))
        self._settle()

    def _lease_died(self, index: int, size: int, deferred: bool) -> None:
        self._returned.append((index, size, deferred))
        self._settle()

    def _try_lock(self) -> bool:
        """Take the lock, unless somebody has it: another thread, or this one."""
        if not self._lock.acquire(blocking=False):
            return False
        if self._busy:
            self._lock.release()
            return False
        self._busy = True
        return True

    def _unlock(self) -> None:
        self._busy = False
        self._lock.release()

    def _settle(self) -> None:
        while self._returned and self._try_lock():
            try:
                self._drain()
            finally:
                self._unlock()
        while self._damaged:
            _unraisable.report(damage(self._damaged.popleft()))
        if self._news:
            self._news = False
            listener = self._listener
            if listener is not None:
                try:
                    listener()
                except BaseException as error:
                    _unraisable.report(error)
        if self._closed and self._pinned:
            self._finish()

    def _drain(self) -> None:
        while self._returned:
            index, size, deferred = self._returned.popleft()
            if deferred:
                self._deferred.pop()
            if index != HEAP:
                self._padding -= self._block_size - size
            if index == HEAP:
                self._releases += 1
                self._heap_live -= 1
            else:
                self._push(index)

    def _mend(self, index: int) -> bool:
        """Debug: whether something was written behind a block's end, told once."""
        canary = bytes([_CANARY]) * (self._stride - self._block_size)
        gap = self._bytes_of(index)[self._block_size :]
        damaged = gap != canary
        gap[:] = canary
        return damaged

    def _take(self, owner: int, timeout: float | None, heap: bool) -> int:
        index = self._try(owner)
        if index is None and self._on_exhausted == "wait":
            index = wait(self, self._patience(timeout))
            with _Locked(self):
                self._slot[index] = owner
        elif index is None and self._on_exhausted == "heap" and heap:
            with _Locked(self):
                self._heap += 1
                self._heap_live += 1
                self._acquires += 1
            return HEAP
        elif index is None:
            self._refuse(1)
        self._remember(index)
        return index

    def _take_many(self, n: int, owner: int) -> list[int]:
        taken: list[int] = []
        with _Locked(self):
            self._open()
        if self._on_exhausted == "grow":
            self._more(n)
        with _Locked(self):
            needed = n - self._available()
            try:
                while needed <= 0 and len(taken) < n:
                    taken.append(self._pop(owner))  # type: ignore[arg-type]
            except CorruptionError:
                for index in taken:
                    self._push(index)
                raise
        if needed > 0:
            self._refuse(n)
        for index in taken:
            self._remember(index)
        return taken

    def _patience(self, timeout: float | None) -> float:
        return self._timeout if timeout is None else seconds("timeout", timeout)

    def _remember(self, index: int) -> None:
        """In debug mode, where the block was acquired."""
        if self._debug:
            self._places[index] = place(sys._getframe(1))

    def _refuse(self, n: int) -> NoReturn:
        with _Locked(self):
            self._exhausted += 1
        name = "" if self._name is None else f" {self._name!r}"
        raise PoolExhaustedError(
            f"the pool{name} has {self.available} of {self.blocks} blocks free, "
            f"{n} needed; {self._advice()}"
        )

    def _advice(self) -> str:
        if self._on_exhausted == "grow":
            return f"it may not grow beyond max_blocks={self._max_blocks}"
        return 'release some, or make it with more blocks or on_exhausted="grow"'

    # What ctxpool._waiting asks of a pool.

    def _enqueue(self, waiter: Waiter | TaskWaiter) -> None:
        with _Locked(self):
            self._open()
            self._waits += 1
            waiter.index = self._pop(_BY_LEASE)  # one may have come back just now
            if waiter.index is None:
                self._waiters.append(waiter)

    def _withdraw(self, waiter: Waiter | TaskWaiter) -> None:
        with _Locked(self):
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def _take_back(self, index: int) -> None:
        self._give(index, self._block_size)

    def _give_up(self, patience: float) -> NoReturn:
        with _Locked(self):
            self._open()
            self._exhausted += 1
        name = "" if self._name is None else f" {self._name!r}"
        raise PoolTimeoutError(
            f"no block of the pool{name} became free within {patience:g} s; "
            f"{self.blocks} are out"
        )

    def _adopt(self, index: int, size: SupportsIndex | None) -> Block:
        """A Block for a slot that was handed over."""
        self._remember(index)
        return self._block(index, self._size_of(size))

    # What ctxpool.pools.MemoryPool asks of it.

    def _listen(self, listener: Callable[[], object] | None) -> None:
        self._listener = listener

    def _idle(self) -> int:
        """Slabs that are wholly free."""
        with _Locked(self):
            return self._idle_slabs

    def _from_heap(self, size: int) -> Block:
        """A Block of any size that is none of the pool's."""
        with _Locked(self):
            self._heap += 1
            self._heap_live += 1
            self._acquires += 1
        block = self._block(HEAP, size)
        block._get_lease()  # or the MemoryError, at once
        return block
