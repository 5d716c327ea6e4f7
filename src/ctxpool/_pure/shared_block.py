"""A block of the pure twin's shared pool, and the lease that guards its memory."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import numpy.typing as npt

from ctxpool._arguments import array_layout
from ctxpool._shared_support import BlockHandle
from ctxpool.errors import BlockInUseError, BlockReleasedError

if TYPE_CHECKING:
    from .shared_pool import SharedBlockPool

__all__ = ["SharedBlock", "make_block"]


class _Lease(np.ndarray):
    """As :class:`ctxpool._pure.block._Lease`, of a block that is shared."""

    _pool: SharedBlockPool | None
    _index: int
    _forks: int
    _deferred: bool

    def __array_finalize__(self, obj: Any) -> None:
        self._pool = None  # a view of a lease owns nothing

    def __del__(self) -> None:
        pool = self._pool
        if pool is not None:
            self._pool = None
            pool._give(self._index, self._forks, self._deferred)


def make_block(pool: SharedBlockPool, index: int, generation: int) -> SharedBlock:
    block = object.__new__(SharedBlock)
    block._pool, block._index, block._generation = pool, index, generation
    block._forks = pool._segment.forks
    block._lease = block._view = None
    return block


class SharedBlock:
    """A block of a shared pool, held by this process until it is released.

    Made by :meth:`SharedBlockPool.acquire` and :meth:`SharedBlockPool.open` only. It is
    let go by :meth:`release`, by :meth:`send`, at the end of ``with``, or when the last
    reference dies; but the process holds its memory while anything in it can still
    reach that: a view, an array, a buffer in flight. A block that was let go is dead at
    once, for its owner: every use raises
    :class:`~ctxpool.errors.BlockReleasedError`. So is, in the child of a fork, one that
    the parent had.

    **Thread-safety**: each call is atomic. What threads and processes write into the
    memory is theirs to order: sending a handle orders what was written before it.

    Examples
    --------
    >>> pool = SharedBlockPool("4KiB", 2)
    >>> block = pool.acquire()
    >>> shown = pool.open(block.handle)        # here, or in any other process
    >>> block.array("int32", 4)[:] = 7
    >>> shown.array("int32", 2).tolist()
    [7, 7]
    """

    __slots__ = ("_forks", "_generation", "_index", "_lease", "_pool", "_view")

    _pool: SharedBlockPool | None
    _index: int
    _generation: int
    _forks: int
    _lease: _Lease | None
    _view: memoryview | None

    def __new__(cls) -> SharedBlock:
        raise TypeError("blocks are made by SharedBlockPool.acquire() and open()")

    def __init_subclass__(cls) -> None:
        raise TypeError("type 'ctxpool.SharedBlock' is not an acceptable base type")

    @property
    def view(self) -> memoryview:
        """The block's bytes: a writable memoryview of format ``B``. O(1)."""
        with self._living()._block_lock:
            pool = self._living()
            view = self._view
            if view is not None:
                try:
                    view.nbytes  # noqa: B018 - raises once its user released it
                    return view
                except ValueError:
                    self._view = None
            lease: Any = self._get_lease(pool)
            self._view = view = memoryview(lease)
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
            Writable, C-contiguous. While it or a view of it lives, this process holds
            the block.

        Raises
        ------
        BlockReleasedError
            The block was released or sent.
        ValueError
            The array is larger than the block, or its items are objects.
        """
        pool = self._living()
        dt, dims = array_layout(pool._segment_block_size, dtype, shape)
        with pool._block_lock:
            return np.ndarray(dims, dt, self._get_lease(self._living()))

    @property
    def index(self) -> int:
        """The block's number in its pool."""
        self._living()
        return self._index

    @property
    def generation(self) -> int:
        """Which hand-out of the block this is, modulo 2**26."""
        self._living()
        return self._generation

    @property
    def address(self) -> int:
        """Where the block's memory begins, in this process."""
        segment = self._living()._segment
        return segment.base + self._index * segment.stride

    @property
    def pool(self) -> SharedBlockPool:
        """The pool that the block belongs to."""
        return self._living()

    @property
    def released(self) -> bool:
        """Whether the block was released or sent, or was the parent's."""
        pool = self._pool
        return pool is None or pool._segment.forks != self._forks

    @property
    def handle(self) -> BlockHandle:
        """What another process opens to hold the block too, any number of times.

        This process holds it on; if it lets go before the other has opened the handle,
        the other gets an error.
        """
        pool = self._living()
        return BlockHandle(pool._segment.id, self._index, self._generation, False)

    def send(self, to: int | None = None) -> BlockHandle:
        """Give the block away: whoever opens the handle has it. O(1).

        The block is dead at once, as after :meth:`release`.

        Parameters
        ----------
        to : int, optional
            The number of the participant under whose life the block travels
            (:attr:`SharedBlockPool.participant` of the one that will open it). By
            default that is this one: if it dies or closes its pool before the handle
            is opened, the block is free, and the handle opens with an error.

        Returns
        -------
        BlockHandle
            To be opened once.

        Raises
        ------
        BlockReleasedError
            The block was released or sent.
        BlockInUseError
            Another process that holds it has sent it, and that is not opened yet.
        ValueError
            There is no participant *to*.
        """
        pool = self._living()
        with pool._block_lock:
            pool = self._living()
            pool._send(self._index, to)
            handle = BlockHandle(pool._segment.id, self._index, self._generation, True)
            self._let_go()
        return handle

    def release(self, strict: bool = False) -> None:
        """Let the block go. O(1).

        The block is dead at once. This process gives up its memory at once too when
        nothing else reaches it, else as soon as the last view or array of it dies; and
        it is free when no other process holds it.

        Parameters
        ----------
        strict : bool
            Refuse, instead of waiting, while something else in this process reaches
            the memory; the block then stays as it was.

        Raises
        ------
        BlockReleasedError
            The block was released or sent before.
        BlockInUseError
            *strict*, and a view or an array of the block is alive.
        """
        pool = self._living()
        with pool._block_lock:
            self._living()
            if strict and self._lease is not None and not self._quiescent():
                raise BlockInUseError(
                    f"{self!r} is still reachable: a view or an array of it is alive"
                )
            self._let_go()

    def __len__(self) -> int:
        """Bytes of the block."""
        return self._living()._segment_block_size

    def __enter__(self) -> SharedBlock:
        self._living()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if self.released:
            return
        try:
            self.release()
        except BlockReleasedError as error:  # by another thread, just now
            if exc is None:
                raise
            # The body's own exception is the one to be seen; this one is added.
            exc.add_note(f"and on release: {error}")

    def __repr__(self) -> str:
        pool = self._pool
        if pool is None or pool._segment.forks != self._forks:
            return "<SharedBlock, released>"
        return (
            f"<SharedBlock {self._index} of {pool._segment_block_size} bytes, "
            f"generation {self._generation}>"
        )

    def __reduce__(self) -> NoReturn:
        raise TypeError("cannot pickle a SharedBlock: pickle its handle, or send() it")

    def __del__(self) -> None:
        if self._pool is not None:
            self._let_go()

    # -- inside ----------------------------------------------------------------------

    def _living(self) -> SharedBlockPool:
        pool = self._pool
        if pool is None:
            raise BlockReleasedError("the block was released")
        if pool._segment.forks != self._forks:
            raise BlockReleasedError(
                "the block is the parent's: open its handle in the child"
            )
        return pool

    def _get_lease(self, pool: SharedBlockPool) -> _Lease:
        if self._lease is None:
            segment, index = pool._segment, self._index
            lease = _Lease.__new__(
                _Lease,
                (segment.block_size,),
                np.uint8,
                segment.map,
                segment.data + index * segment.stride,
            )
            lease._pool, lease._index, lease._forks = pool, index, self._forks
            lease._deferred = False
            self._lease = lease
        return self._lease

    def _let_go(self) -> None:
        """Make the block dead; its lease, if it has one, decides from here on."""
        pool, lease = self._pool, self._lease
        self._pool = self._lease = self._view = None
        if pool is None:
            return
        if lease is None:
            pool._give(self._index, self._forks, False)
        else:
            lease._deferred = True
            pool._deferred.append(None)

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
