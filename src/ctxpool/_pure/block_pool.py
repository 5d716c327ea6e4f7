"""The block pool in Python: what ``_native/block_pool.pyx`` does, slower."""

from __future__ import annotations

import operator
import sys
import warnings
from collections import deque
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
from ctxpool._pure.block import HEAP, Block, damage, make_lease
from ctxpool._pure.locks import new_lock, new_rlock
from ctxpool._pure.slab import FORK_MODES, Slab
from ctxpool._waiting import Waiter
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


def _place(frame: Any) -> str:
    code = frame.f_code
    return f"{code.co_filename}:{frame.f_lineno} in {code.co_name}"


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
    fork the child's pool and blocks are its own.

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
    ) -> None:
        if hasattr(self, "_slab"):
            raise RuntimeError("this pool is made already: make another")
        self._block_size = parse_size(block_size, "block_size")
        self._blocks = count("blocks", blocks, 1, _MAX_BLOCKS)
        self._on_exhausted = choice("on_exhausted", on_exhausted, _ON_EXHAUSTED)
        self._zero = choice("zero", zero, _ZERO)
        choice("huge_pages", huge_pages, _HUGE_PAGES)
        choice("fork", fork, FORK_MODES)
        if max_blocks is None:
            self._max_blocks = self._blocks
            if on_exhausted == "grow":
                self._max_blocks = min(self._blocks * _GROWTH, _MAX_BLOCKS)
        elif on_exhausted != "grow":
            raise ValueError(
                f'max_blocks={max_blocks!r} needs on_exhausted="grow", '
                f"not {on_exhausted!r}"
            )
        else:
            self._max_blocks = count(
                "max_blocks", max_blocks, self._blocks, _MAX_BLOCKS
            )
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
            lazy=self._max_blocks > self._blocks,
        )
        self._base = self._slab.base
        self._slab.advise_fork(fork)
        if prefault:
            self._slab.populate(self._stride * self._blocks)

        self._block_lock = new_rlock()  # the state of this pool's Block objects
        self._lock = new_lock()  # the tables below; taken after the other
        self._slot: dict[int, int] = {}  # owner of each block that is out
        self._generation: dict[int, int] = {}
        self._stack: list[int] = []
        self._fresh = 0
        self._poisoned: set[int] = set()
        self._returned: deque[tuple[int, bool]] = deque()
        self._deferred: deque[None] = deque()
        self._waiters: deque[Waiter] = deque()
        self._damaged: deque[int] = deque()
        self._places: dict[int, str] = {}
        self._closed = False
        self._in_use = self._peak = self._acquires = self._releases = 0
        self._waits = self._exhausted = self._heap = self._heap_live = 0

    def __init_subclass__(cls) -> None:
        raise TypeError("type 'ctxpool.BlockPool' is not an acceptable base type")

    # -- blocks ----------------------------------------------------------------------

    def acquire(self, timeout: float | None = None) -> Block:
        """A free block. O(1).

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait, with ``on_exhausted="wait"``; the pool's own by default.

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
        index = self._take(_BY_LEASE, timeout, heap=True)
        return self._block(index)

    def try_acquire(self) -> Block | None:
        """A free block, or None. Never waits, never takes from the heap. O(1).

        Raises
        ------
        PoolClosedError
            The pool is closed.
        """
        with self._lock:
            self._open()
            index = self._pop(_BY_LEASE)
        self._settle()
        if index is None:
            return None
        self._remember(index)
        return self._block(index)

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
        return [self._block(index) for index in self._take_many(count, _BY_LEASE)]

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
        lease = make_lease(self, self._take(_BY_LEASE, None, heap=True))
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
        with self._lock:
            return self._generation.get(number, 0) % _GENERATIONS

    # -- memory ----------------------------------------------------------------------

    def warm(self, n: SupportsIndex | None = None) -> None:
        """Make the first *n* blocks resident, all by default. Changes no byte.

        O(pages). Other threads go on meanwhile.
        """
        count = self._blocks if n is None else operator.index(n)
        if not 0 <= count <= self._max_blocks:
            raise ValueError(f"n must be from 0 to {self._max_blocks}, not {count}")
        with self._lock:
            self._open()
            slab = self._slab
        self._settle()
        if slab is not None:
            slab.populate(count * self._stride)

    def trim(self) -> int:
        """Give the memory of free blocks back to the system. O(blocks + pages).

        Returns
        -------
        int
            Bytes that were resident there. Spans of 2 MiB and more the system may
            take only when it is short, so the process may look as large for a while.
        """
        freed = 0
        with self._lock:
            slab, begin = self._slab, 0
            while slab is not None and begin < self._blocks:
                end = begin
                while end < self._blocks and end not in self._slot:
                    self._poisoned.discard(end)
                    end += 1
                if end > begin:
                    freed += slab.discard(
                        begin * self._stride,
                        (end - begin) * self._stride,
                        lazy=not self._debug,
                    )
                begin = end + 1
        self._settle()
        return freed

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
        with self._lock:
            found = sorted(
                (index, self._places[index])
                for index in self._slot
                if index in self._places
            )
        self._settle()
        return found

    def close(self) -> None:
        """Hand out nothing more.

        Blocks that are out stay good; the slab goes back to the system when the last
        of them does. Those who wait get :class:`~ctxpool.errors.PoolClosedError`.
        A pool in debug mode warns (ResourceWarning) of the blocks that are out, with
        the place of each acquire. Closing twice does nothing.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._stack.clear()
            self._fresh = self._blocks
            if not self._in_use:
                self._slab = None
            waiters = list(self._waiters)
            self._waiters.clear()
        self._settle()
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
        self._settle()
        with self._lock:
            return BlockPoolStats(
                name=self._name,
                block_size=self._block_size,
                blocks=self._blocks,
                max_blocks=self._max_blocks,
                in_use=self._in_use,
                deferred=len(self._deferred),
                peak=self._peak,
                acquires=self._acquires,
                releases=self._releases,
                waits=self._waits,
                exhausted=self._exhausted,
                heap_fallbacks=self._heap,
                bytes=self._stride * self._blocks,
            )

    def check(self) -> None:
        """Walk the pool's invariants; AssertionError where one is broken. For tests."""
        self._settle()
        with self._lock:
            assert self._fresh <= self._blocks <= self._max_blocks
            assert len(self._slot) == self._in_use <= self._peak
            assert self._acquires - self._releases == self._in_use + self._heap_live
            if self._closed:
                assert not self._stack
            else:
                assert len(set(self._stack)) == len(self._stack)
                assert not set(self._stack) & set(self._slot)
                assert len(self._stack) + self._in_use == self._fresh

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
        return self._blocks

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
        self._settle()
        return self._in_use

    @property
    def available(self) -> int:
        """Blocks that could be acquired now, without growing."""
        self._settle()
        with self._lock:
            return len(self._stack) + self._blocks - self._fresh

    @property
    def closed(self) -> bool:
        """Whether the pool was closed."""
        return self._closed

    def __enter__(self) -> BlockPool:
        with self._lock:
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
            raise IndexError(f"no block {number} in a pool of {self._blocks}")
        return number

    def _block(self, index: int) -> Block:
        block = object.__new__(Block)
        block._lease = block._view = None
        block._pool, block._index = self, index
        return block

    def _pop(self, owner: int) -> int | None:
        """A free block, made if need be and allowed; under the lock."""
        self._drain()
        if not self._stack and self._fresh == self._blocks:
            self._grow(1)
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
        if self._debug or self._zero != "never":
            self._fill_taken(index)
        return index

    def _grow(self, needed: int) -> None:
        """Double, or more where that is needed, up to max_blocks; under the lock."""
        if self._on_exhausted == "grow" and not self._closed:
            self._blocks = min(
                self._blocks + max(self._blocks, needed), self._max_blocks
            )

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
            if not self._in_use:
                self._slab = None
            return
        self._stack.append(index)
        while self._waiters:  # handed over, not raced for: first come, first served
            waiter = self._waiters.popleft()
            if waiter.stayed_behind:
                continue
            try:
                waiter.hand(self._pop(_BY_LEASE))
            except CorruptionError:
                self._waiters.appendleft(waiter)
            return

    def _free(self, numbers: list[int]) -> None:
        error = damaged = None
        with self._lock:
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
        self._settle()
        if error:
            raise ValueError(error)
        if damaged is not None:
            raise damage(damaged)

    def _give(self, index: int) -> None:
        """Take a block back from wherever we are, a finalizer perhaps.

        The lock may be held, by this very thread: so the block is put down first, and
        whoever has the lock picks it up.
        """
        self._returned.append((index, False))
        self._settle()

    def _lease_died(self, index: int, deferred: bool) -> None:
        self._returned.append((index, deferred))
        self._settle()

    def _settle(self) -> None:
        while self._returned and self._lock.acquire(blocking=False):
            try:
                self._drain()
            finally:
                self._lock.release()
        while self._damaged:
            _unraisable.report(damage(self._damaged.popleft()))

    def _drain(self) -> None:
        while self._returned:
            index, deferred = self._returned.popleft()
            if deferred:
                self._deferred.pop()
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
        with self._lock:
            self._open()
            index = self._pop(owner)
        self._settle()
        if index is None and self._on_exhausted == "wait":
            patience = self._timeout if timeout is None else seconds("timeout", timeout)
            index = self._wait(owner, patience)
        elif index is None and self._on_exhausted == "heap" and heap:
            with self._lock:
                self._heap += 1
                self._heap_live += 1
                self._acquires += 1
            self._settle()
            return HEAP
        elif index is None:
            self._refuse(1)
        self._remember(index)
        return index

    def _take_many(self, n: int, owner: int) -> list[int]:
        taken: list[int] = []
        with self._lock:
            self._open()
            self._drain()
            needed = n - len(self._stack) - self._blocks + self._fresh
            if needed > 0:
                self._grow(needed)
                needed = n - len(self._stack) - self._blocks + self._fresh
            try:
                while needed <= 0 and len(taken) < n:
                    taken.append(self._pop(owner))  # type: ignore[arg-type]
            except CorruptionError:
                for index in taken:
                    self._push(index)
                raise
        self._settle()
        if needed > 0:
            self._refuse(n)
        for index in taken:
            self._remember(index)
        return taken

    def _remember(self, index: int) -> None:
        """In debug mode, where the block was acquired."""
        if self._debug:
            frame = sys._getframe(1)
            while frame.f_globals is globals() and frame.f_back is not None:
                frame = frame.f_back
            self._places[index] = _place(frame)

    def _refuse(self, n: int) -> NoReturn:
        with self._lock:
            self._exhausted += 1
        name = "" if self._name is None else f" {self._name!r}"
        raise PoolExhaustedError(
            f"the pool{name} has {self.available} of {self._blocks} blocks free, "
            f"{n} needed; {self._advice()}"
        )

    def _advice(self) -> str:
        if self._on_exhausted == "grow":
            return f"it may not grow beyond max_blocks={self._max_blocks}"
        return 'release some, or make it with more blocks or on_exhausted="grow"'

    def _wait(self, owner: int, patience: float) -> int:
        waiter = Waiter()
        with self._lock:
            self._open()
            self._waits += 1
            index = self._pop(owner)  # one may have come back just now
            if index is None:
                self._waiters.append(waiter)
        self._settle()
        if index is not None:
            return index
        try:
            waiter.wait(patience)
        except BaseException:  # KeyboardInterrupt: give back what came meanwhile
            self._withdraw(waiter)
            if waiter.index is not None:
                self._give(waiter.index)
            raise
        self._withdraw(waiter)
        with self._lock:
            if waiter.index is not None:
                self._slot[waiter.index] = owner
            else:
                self._open()
                self._exhausted += 1
        self._settle()
        if waiter.index is not None:
            return waiter.index
        name = "" if self._name is None else f" {self._name!r}"
        raise PoolTimeoutError(
            f"no block of the pool{name} became free within {patience:g} s; "
            f"{self._blocks} are out"
        )

    def _withdraw(self, waiter: Waiter) -> None:
        with self._lock:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
        self._settle()
