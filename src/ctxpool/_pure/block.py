"""A block of the pure twin's pool, and the lease that guards its memory."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import numpy.typing as npt

from ctxpool._arguments import array_layout
from ctxpool.errors import BlockInUseError, BlockReleasedError, CorruptionError

if TYPE_CHECKING:
    from .block_pool import BlockPool

__all__ = ["HEAP", "Block", "damage", "make_lease"]

HEAP = -1  # the index of a block from the heap


def damage(index: int) -> CorruptionError:
    return CorruptionError(f"something was written behind the end of block {index}")


class _Lease(np.ndarray):
    """A block's memory and the right to it.

    Whoever reaches the memory keeps this object alive, through a memoryview, an
    array's base or a foreign buffer; when it dies, the block goes back.
    """

    _pool: BlockPool | None
    _index: int
    _size: int
    _deferred: bool

    def __array_finalize__(self, obj: Any) -> None:
        self._pool = None  # a view of a lease owns nothing

    def __del__(self) -> None:
        pool = self._pool
        if pool is not None:
            self._pool = None
            pool._lease_died(self._index, self._size, self._deferred)


def make_lease(pool: BlockPool, index: int, size: int) -> _Lease:
    if index == HEAP:
        alignment = pool._alignment
        memory: Any = bytearray(size + alignment)
        start = -np.frombuffer(memory, np.uint8).ctypes.data % alignment
        lease = _Lease.__new__(_Lease, (size,), np.uint8, memory, start)
    else:
        slab = pool._slab
        assert slab is not None  # it stays while a block is out
        offset = slab.start + index * pool._stride
        lease = _Lease.__new__(_Lease, (size,), np.uint8, slab.map, offset)
    lease._pool, lease._index, lease._deferred = pool, index, False
    lease._size = size
    return lease


class Block:
    """A block of a pool, held until it is released.

    Made by :meth:`BlockPool.acquire` only. It gives its memory back on
    :meth:`release`, at the end of ``with``, or when the last reference dies; but
    the memory is not handed out again while anything can still reach it: a view, a
    slice of one, an array, a buffer in flight. A released block is dead at once,
    for its owner: every use of it raises :class:`~ctxpool.errors.BlockReleasedError`.

    The block itself exports no buffer: use :attr:`view` or :meth:`array`.

    **Thread-safety**: each call is atomic. Two threads that release one block: one
    of them gets the error. What threads write into the memory is theirs to order.
    """

    __slots__ = ("_index", "_lease", "_pool", "_size", "_view")

    _pool: BlockPool | None
    _index: int
    _size: int
    _lease: _Lease | None
    _view: memoryview | None

    def __new__(cls) -> Block:
        raise TypeError("blocks are made by BlockPool.acquire()")

    def __init_subclass__(cls) -> None:
        raise TypeError("type 'ctxpool.Block' is not an acceptable base type")

    @property
    def view(self) -> memoryview:
        """The block's bytes: a writable memoryview of format ``B``. O(1)."""
        pool = self._pool
        if pool is None:
            self._dead()
        with pool._block_lock:
            view = self._view
            if view is not None:
                try:
                    view.nbytes  # noqa: B018 - raises once its user released it
                    return view
                except ValueError:
                    self._view = None
            self._view = view = memoryview(self._get_lease())  # type: ignore[arg-type]
            return view

    def array(
        self, dtype: npt.DTypeLike | None = None, shape: Any = None
    ) -> npt.NDArray[Any]:
        """An array over the block's memory, from its first byte. O(1), no copy.

        Parameters
        ----------
        dtype : dtype, optional
            Of the items; bytes (``uint8``) by default.
        shape : int or tuple of int, optional
            By default one dimension with as many items as fit.

        Returns
        -------
        numpy.ndarray
            Writable, C-contiguous. While it or a view of it lives, the block is not
            handed out again.

        Raises
        ------
        BlockReleasedError
            The block was released.
        ValueError
            The array is larger than the block, or its items are objects.
        """
        pool = self._pool
        if pool is None:
            self._dead()
        dt, dims = array_layout(self._size, dtype, shape)
        with pool._block_lock:
            return np.ndarray(dims, dt, self._get_lease())

    @property
    def index(self) -> int:
        """The block's number in its pool, or -1 for one from the heap."""
        if self._pool is None:
            self._dead()
        return self._index

    @property
    def size(self) -> int:
        """Bytes that were asked for, which its views have: the block's or fewer."""
        if self._pool is None:
            self._dead()
        return self._size

    @property
    def address(self) -> int:
        """Where the block's memory begins."""
        pool = self._pool
        if pool is None:
            self._dead()
        if self._index != HEAP:
            return pool._base + self._index * pool._stride
        with pool._block_lock:
            return int(self._get_lease().ctypes.data)

    @property
    def pool(self) -> BlockPool:
        """The pool that the block belongs to."""
        if self._pool is None:
            self._dead()
        return self._pool

    @property
    def released(self) -> bool:
        """Whether the block was given back."""
        return self._pool is None

    def release(self, strict: bool = False) -> None:
        """Give the block back. O(1).

        The block is dead at once. Its memory returns to the pool at once too when
        nothing else reaches it, else as soon as the last view or array of it dies.

        Parameters
        ----------
        strict : bool
            Refuse, instead of waiting, while something else reaches the memory; the
            block then stays as it was.

        Raises
        ------
        BlockReleasedError
            The block was released before.
        BlockInUseError
            *strict*, and a view or an array of the block is alive.
        CorruptionError
            The pool is in debug mode, and something was written behind the block's
            end. The block is released all the same.
        """
        pool = self._pool
        if pool is None:
            self._dead()
        with pool._block_lock:
            if self._pool is None:
                self._dead()
            if strict and self._lease is not None and not self._quiescent():
                raise BlockInUseError(
                    f"{self!r} is still reachable: a view or an array of it is alive"
                )
            damaged = pool._debug and self._index != HEAP and pool._mend(self._index)
            lease = self._detach()
        if lease is None:
            pool._give(self._index, self._size)
        lease = None  # the last reference, or another holder has one
        if damaged:
            raise damage(self._index)

    def __len__(self) -> int:
        """Its :attr:`size`."""
        if self._pool is None:
            self._dead()
        return self._size

    def __enter__(self) -> Block:
        if self._pool is None:
            self._dead()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if self._pool is None:
            return
        try:
            self.release()
        except (BlockReleasedError, CorruptionError) as error:
            if exc is None:
                raise
            # The body's own exception is the one to be seen; this one is added.
            exc.add_note(f"and on release: {error}")

    def __repr__(self) -> str:
        if self._pool is None:
            return "<Block, released>"
        return f"<Block {self._index} of {self._size} bytes>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("cannot pickle a Block: its memory belongs to this process")

    def __del__(self) -> None:
        pool = self._pool
        if pool is not None and self._detach() is None:
            pool._give(self._index, self._size)

    def _dead(self) -> NoReturn:
        raise BlockReleasedError("the block was released")

    def _get_lease(self) -> _Lease:
        if self._pool is None:
            self._dead()
        if self._lease is None:
            self._lease = make_lease(self._pool, self._index, self._size)
        return self._lease

    def _detach(self) -> _Lease | None:
        """Make the block dead; its lease, if it has one, decides from here on."""
        lease, pool = self._lease, self._pool
        self._pool = self._lease = self._view = None
        if lease is not None and pool is not None:
            lease._deferred = True
            pool._deferred.append(None)
        return lease

    def _quiescent(self) -> bool:
        """Whether nobody but this block reaches its memory."""
        # An attribute is counted twice: in its slot, and as the argument.
        if self._view is not None:
            if sys.getrefcount(self._view) > 2:
                return False
            try:
                self._view.release()
            except BufferError:
                return False
            self._view = None
        # A slice of the view, a buffer or an array would count here.
        return sys.getrefcount(self._lease) <= 2
