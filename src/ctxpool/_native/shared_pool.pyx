# cython: freethreading_compatible=True
# cython: binding=False, embedsignature=True, embedsignature.format=clinic
# cython: boundscheck=False, wraparound=False, initializedcheck=False
"""The shared pool over csrc/include/ctxpool/shared_pool.h.

Who holds a block in this process: the SharedBlock, until its memory is asked for; from
then on a _Lease that every view and array of the block keeps alive, and that gives the
block back when it dies. The pool keeps its mapping while there is a lease, also one
that a fork has made void.

Critical sections: a block's guards its fields; the pool's, taken inside it, what the C
core leaves to its caller. Between processes the C core is atomic by itself.
"""

cimport cython
from cpython.buffer cimport PyBuffer_FillInfo
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

cimport numpy as cnp

import errno
import math
import os

import numpy as np

from ctxpool import _shared_support as support
from ctxpool._arguments import array_layout, choice, count, power_of_two, seconds
from ctxpool._shared_support import BlockHandle
from ctxpool.errors import BlockInUseError, BlockReleasedError, PoolClosedError
from ctxpool.sizes import parse_size

cnp.import_array()

cdef extern from "lease.h":
    bint cxp_view_is_quiescent(PyObject *view, PyObject *lease, Py_ssize_t owners)
    bint cxp_view_is_released(PyObject *view)
    ctypedef struct cxp_layout:
        pass
    bint cxp_plain_layout(PyObject *dtype, PyObject *shape, size_t limit,
                          cxp_layout *layout)
    object cxp_array_over(cxp_layout *layout, void *data, PyObject *base)

cdef extern from "errno.h":
    int c_errno "errno"

cdef extern from "Python.h":
    Py_ssize_t Py_REFCNT(PyObject *obj)
    object PyMemoryView_FromObject(object obj)

cdef tuple ON_EXHAUSTED = ("raise", "wait")


@cython.final
@cython.no_gc
cdef class _Lease:
    # A block's memory and the right to it.

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        if self.pool is None:  # made by nobody of ours
            raise BlockReleasedError("the block was released")
        PyBuffer_FillInfo(buffer, self, self.memory, <Py_ssize_t>self.pool._size, 0,
                          flags)

    def __dealloc__(self):
        if self.pool is None:
            return
        # The pool, against its other threads: this may run in any of them.
        with cython.critical_section(self.pool):
            self.pool._leases -= 1
            self.pool._deferred -= self.deferred
            self.pool._give(self.index, self.forks)


@cython.final
@cython.no_gc
cdef class SharedBlock:
    """SharedBlock()
--

A block of a shared pool, held by this process until it is released.

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

    def __init__(self):
        raise TypeError("blocks are made by SharedBlockPool.acquire() and open()")

    def __dealloc__(self):
        if self._pool is not None:
            self._let_go()

    cdef SharedBlockPool _living(self):
        if self._pool is None:
            raise BlockReleasedError("the block was released")
        if self._pool.c.forks != self._forks:
            raise BlockReleasedError(
                "the block is the parent's: open its handle in the child"
            )
        return self._pool

    cdef _Lease _get_lease(self):
        # Under the block's critical section; the block is alive.
        cdef _Lease lease
        cdef SharedBlockPool pool = self._pool
        if self._lease is None:
            with cython.critical_section(pool):  # its count of leases
                lease = _Lease.__new__(_Lease)
                lease.pool = pool
                lease.memory = cxp_shared_at(&pool.c, self._index)
                lease.index, lease.forks = self._index, self._forks
                pool._leases += 1
            self._lease = lease
        return self._lease

    cdef bint _quiescent(self) noexcept:
        """Whether nobody but this block reaches its memory."""
        if self._view is None or cxp_view_is_released(<PyObject *>self._view):
            return Py_REFCNT(<PyObject *>self._lease) == 1
        return cxp_view_is_quiescent(<PyObject *>self._view, <PyObject *>self._lease, 2)

    cdef int _let_go(self) noexcept:
        """Make the block dead; its lease, if it has one, decides from here on."""
        cdef SharedBlockPool pool = self._pool
        cdef _Lease lease = self._lease
        _view, self._view = self._view, None  # dropped at the end
        self._pool = self._lease = None
        with cython.critical_section(pool):
            if lease is None:
                pool._give(self._index, self._forks)
            else:
                lease.deferred = True
                pool._deferred += 1
        return 0

    @property
    def view(self):
        """The block's bytes: a writable memoryview of format ``B``. O(1)."""
        # The block, against a thread that releases it.
        with cython.critical_section(self):
            self._living()
            if self._view is None or cxp_view_is_released(<PyObject *>self._view):
                self._view = PyMemoryView_FromObject(self._get_lease())
            return self._view

    def array(self, dtype=None, shape=None):
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
        cdef cxp_layout layout
        cdef _Lease lease
        cdef size_t size = self._living()._size
        cdef bint plain = cxp_plain_layout(<PyObject *>dtype, <PyObject *>shape, size,
                                           &layout)
        if not plain:
            dtype, shape = array_layout(size, dtype, shape)
        with cython.critical_section(self):  # as in view
            self._living()
            lease = self._get_lease()
        if not plain:
            return np.ndarray(shape, dtype, lease)
        Py_INCREF(lease)
        return cxp_array_over(&layout, lease.memory, <PyObject *>lease)

    @property
    def index(self):
        """The block's number in its pool."""
        self._living()
        return self._index

    @property
    def generation(self):
        """Which hand-out of the block this is, modulo 2**26."""
        self._living()
        return self._generation

    @property
    def address(self):
        """Where the block's memory begins, in this process."""
        cdef SharedBlockPool pool
        with cython.critical_section(self):  # as in view
            pool = self._living()
            return <size_t>cxp_shared_at(&pool.c, self._index)

    @property
    def pool(self):
        """The pool that the block belongs to."""
        return self._living()

    @property
    def released(self):
        """Whether the block was released or sent, or was the parent's."""
        cdef SharedBlockPool pool = self._pool
        return pool is None or pool.c.forks != self._forks

    @property
    def handle(self):
        """What another process opens to hold the block too, any number of times.

        This process holds it on; if it lets go before the other has opened the handle,
        the other gets an error.
        """
        return BlockHandle(self._living().c.id, self._index, self._generation, False)

    def send(self, to=None):
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
        cdef SharedBlockPool pool
        cdef uint32_t slot, incarnation
        cdef int state
        if to is not None:
            to = count("to", to, 0, 2**37 - 1)
        with cython.critical_section(self):  # as in view
            pool = self._living()
            with cython.critical_section(pool):  # its counters
                if to is None:
                    slot = pool.c.slot
                    incarnation = pool.c.header.slot[slot].incarnation
                else:
                    slot = to % CXP_SHARED_PARTICIPANTS
                    incarnation = to // CXP_SHARED_PARTICIPANTS
                state = cxp_shared_send(&pool.c, self._index, slot, incarnation)
            if state == -1:
                raise BlockInUseError(
                    f"block {self._index} was sent already, and is in transit"
                )
            if state == -2:
                raise ValueError(f"the shared pool has no living participant {to}")
            handle = BlockHandle(pool.c.id, self._index, self._generation, True)
            self._let_go()
        return handle

    def release(self, bint strict=False):
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
        # The block, against a thread that releases it or asks for its view too.
        with cython.critical_section(self):
            self._living()
            if strict and self._lease is not None and not self._quiescent():
                raise BlockInUseError(
                    f"{self!r} is still reachable: a view or an array of it is alive"
                )
            self._let_go()

    def __len__(self):
        """Bytes of the block."""
        return <Py_ssize_t>self._living()._size

    def __enter__(self):
        self._living()
        return self

    def __exit__(self, exc_type, exc, tb):
        # The block, against a thread that releases it.
        with cython.critical_section(self):
            if self._pool is not None and self._pool.c.forks == self._forks:
                self._let_go()

    def __repr__(self):
        cdef SharedBlockPool pool = self._pool
        if pool is None or pool.c.forks != self._forks:
            return "<SharedBlock, released>"
        return (
            f"<SharedBlock {self._index} of {pool._size} bytes, "
            f"generation {self._generation}>"
        )

    def __reduce__(self):
        raise TypeError("cannot pickle a SharedBlock: pickle its handle, or send() it")


@cython.final
@cython.no_gc
cdef class SharedBlockPool:
    """SharedBlockPool(block_size, blocks, *, alignment=64, on_exhausted='raise',
    timeout=None, reserve=False, name=None)
--

Blocks of memory that several processes share, handed over without a copy.

    A process acquires a block, writes into it, and gives it away
    (:meth:`SharedBlock.send`) or shows it (:attr:`SharedBlock.handle`); what travels by
    queue, pipe or socket is a handle of some bytes, and :meth:`open` makes of it a
    block over the same memory. A block is free when no process holds it.

    Processes come by the pool in one of these ways, and all are equals then; the one
    that made it may go first:

    - by fork: the child of a process that has a pool uses that pool;
    - as an argument of ``multiprocessing.Process``, or of the initializer of a pool of
      processes, whatever the start method;
    - over a Unix socket: :meth:`send_fd` and :meth:`receive`;
    - any other way that carries a file descriptor: :meth:`fileno` and :meth:`from_fd`.

    **What is promised at kill -9.** The memory is one sealed memory file that has no
    name: nothing of it is ever seen in ``/dev/shm``, and the system frees it with the
    last process. There is no thread, and no lock that a dead process leaves held. A
    process that is killed, at whatever instruction, loses no block and sets none free
    that another one holds: what it held, and it alone, comes back at the next
    :meth:`recover`, which everyone does who finds the pool exhausted or waits. A block
    that was sent and not opened belongs to its sender till then, or to the participant
    it was sent ``to``: it comes back when that one dies or closes its pool. Whoever
    opens a handle too late gets :class:`~ctxpool.errors.BlockReleasedError`, and never
    another's block.

    Parameters
    ----------
    block_size : int or str
        Bytes of a block, or text such as ``"64KB"`` or ``"1MiB"``.
    blocks : int
        Blocks, up to 2**24.
    alignment : int
        Of each block's address; a power of two up to 4096. Blocks are padded to a
        multiple of it.
    on_exhausted : {"raise", "wait"}
        What an acquire of this process does when no block is free: raise
        :class:`~ctxpool.errors.PoolExhaustedError`, or wait until one comes back or its
        holder dies. There is no order among those who wait.
    timeout : float, optional
        Seconds to wait with ``"wait"``; without end by default.
    reserve : bool
        Take all memory from the system now: it can't be short of it later, when a
        first touch would be a fault (SIGBUS).
    name : str, optional
        For errors and statistics, in every process; up to 31 bytes.

    Raises
    ------
    OSError
        The system has no room; or it is not Linux 3.17 or newer, with ``/proc``.

    Notes
    -----
    **Thread-safety**: each call is atomic, between threads and between processes.

    **Forks**: the child of a fork is a participant of its own from its first call on.
    Blocks that the parent holds are the parent's alone: inherited ones are dead in the
    child. Arrays and views of them still show the memory, and do not hold it.

    At most 32 participants (processes) are attached at a time. All of one pool are
    native, or all pure. A block's handle may be forged by whoever has the pool: it
    separates processes that trust each other.

    Where it does not pay: messages of a few KiB, which are as quick through a pipe.

    Examples
    --------
    >>> pool = SharedBlockPool("1MiB", 4)
    >>> block = pool.acquire()
    >>> block.view[:5] = b"hello"
    >>> handle = block.send()                  # by any queue, pipe or socket
    >>> with pool.open(handle) as received:    # in this process or any other
    ...     bytes(received.view[:5])
    b'hello'
    >>> pool.close()
    """

    def __cinit__(self, *args, **kwargs):
        memset(&self.c, 0, sizeof(self.c))
        self.c.slot = CXP_SHARED_NONE
        self.c.fd = -1
        self._closed = True

    def __init__(self, block_size, blocks, *, alignment=64, on_exhausted="raise",
                 timeout=None, reserve=False, name=None):
        if self._made:
            raise RuntimeError("this pool is made already: make another")
        cdef size_t size = parse_size(block_size, "block_size")
        cdef uint32_t n = count("blocks", blocks, 1, support.MAX_BLOCKS)
        cdef size_t aligned = power_of_two("alignment", alignment, support.HEADER)
        cdef bint now = reserve
        cdef bytes encoded
        self._begin(on_exhausted, timeout)
        encoded = support.name_in_bytes(name)
        if cxp_shared_create(&self.c, size, n, aligned, encoded, now):
            error = c_errno
            if error == errno.ENOTSUP:
                what = "a shared pool needs Linux 3.17 or newer"
            else:
                what = (
                    f"no shared pool of {n} blocks of {size} bytes: "
                    f"{os.strerror(error)}"
                )
            raise OSError(error, what)
        self._know()

    def __dealloc__(self):
        if self._made:
            cxp_shared_fini(&self.c)

    cdef int _begin(self, object on_exhausted, object timeout) except -1:
        self._waits = choice("on_exhausted", on_exhausted, ON_EXHAUSTED) == "wait"
        self._timeout = seconds("timeout", timeout)
        return 0

    cdef int _know(self) except -1:
        """What stays known when the pool is closed."""
        self._made = True
        self._closed = False
        self._size, self._blocks = self.c.block_size, self.c.blocks
        self._bytes = self.c.map_size
        self._alignment = self.c.header.alignment
        self._name = support.text(self.c.header.name[:32])
        return 0

    cdef int _open(self) except -1:
        if self._closed:
            name = "" if self._name is None else f" {self._name!r}"
            raise PoolClosedError(f"the shared pool{name} is closed")
        return 0

    cdef int _join(self) except -1:
        """Be a participant, also in the child of a fork; under the critical section."""
        self._open()
        cdef int reason
        if self.c.slot == CXP_SHARED_NONE:
            reason = cxp_shared_rejoin(&self.c)
            if reason < 0:
                raise OSError(c_errno, os.strerror(c_errno))
            if reason:
                support.refuse_segment(reason, self.c.fd)
        return 0

    cdef int _finish(self) noexcept:
        """Detach and unmap, if all is over; under the critical section."""
        if self._closed and not self.c.held and not self._leases and not self.c.waiters:
            cxp_shared_fini(&self.c)
        return 0

    cdef int _give(self, uint32_t index, uint32_t forks) noexcept:
        """Drop a reference; under the critical section."""
        if forks == self.c.forks:
            cxp_shared_give(&self.c, index)
        self._finish()
        return 0

    cdef SharedBlock _block(self, uint32_t index, uint32_t generation):
        cdef SharedBlock block
        try:
            block = SharedBlock.__new__(SharedBlock)
        except MemoryError:
            cxp_shared_give(&self.c, index)
            raise
        block._index, block._generation = index, generation
        block._forks = self.c.forks
        block._pool = self
        return block

    cdef SharedBlock _try(self):
        cdef uint32_t index
        # The pool, against its other threads.
        with cython.critical_section(self):
            if self._closed or self.c.slot == CXP_SHARED_NONE:
                self._join()
            index = cxp_shared_take(&self.c)
            if index == CXP_SHARED_NONE:
                return None
            return self._block(
                index, cxp_shared_generation(cxp_shared_word(&self.c, index))
            )

    @classmethod
    def from_fd(cls, fd, *, on_exhausted="raise", timeout=None):
        """The pool behind a file descriptor. O(blocks).

        Parameters
        ----------
        fd : int
            From :meth:`fileno` of a participant. It stays the caller's, to close.
        on_exhausted, timeout
            As of the class, for this process.

        Raises
        ------
        SegmentError
            It holds no such pool, or one of another version or back end, or a damaged
            one.
        PoolExhaustedError
            The pool has 32 living participants.
        OSError
            It is no open file descriptor.
        """
        cdef int number = count("fd", fd, 0, 2**31 - 1)
        cdef SharedBlockPool pool = SharedBlockPool.__new__(SharedBlockPool)
        cdef int reason
        pool._begin(on_exhausted, timeout)
        reason = cxp_shared_attach(&pool.c, number)
        if reason < 0:
            raise OSError(c_errno, os.strerror(c_errno))
        if reason:
            support.refuse_segment(reason, number)
        pool._know()
        return pool

    @classmethod
    def receive(cls, sock, *, on_exhausted="raise", timeout=None):
        """The pool that :meth:`send_fd` sent over a Unix socket.

        Raises
        ------
        SegmentError
            What came is no such pool: see :meth:`from_fd`.
        TypeError, ValueError
            *sock* is no Unix socket.
        """
        fd = support.receive_fd(sock)
        try:
            return cls.from_fd(fd, on_exhausted=on_exhausted, timeout=timeout)
        finally:
            os.close(fd)

    @classmethod
    def _from_dup(cls, dup, on_exhausted, timeout):
        fd = dup.detach()
        try:
            return cls.from_fd(fd, on_exhausted=on_exhausted, timeout=timeout)
        finally:
            os.close(fd)

    def send_fd(self, sock):
        """Send the pool over a Unix socket, to :meth:`receive` at its other end.

        Raises
        ------
        TypeError, ValueError
            *sock* is no Unix socket.
        PoolClosedError
            The pool is closed.
        """
        support.send_fd(sock, self.fileno())

    def fileno(self):
        """The file descriptor to hand on; it stays the pool's, and open till its end.

        Raises
        ------
        PoolClosedError
            The pool is closed.
        """
        self._open()
        return self.c.fd

    def acquire(self, timeout=None):
        """A free block. O(1), 64 blocks a step where few are free (pure: O(blocks)).

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait, with ``on_exhausted="wait"``; the pool's own by default.

        Returns
        -------
        SharedBlock
            With the bytes its last user left; zeros, if it had none.

        Raises
        ------
        PoolExhaustedError
            No block is free, not even after :meth:`recover`, and the pool does not
            wait; or this process, after a fork, would be the 33rd.
        PoolTimeoutError
            No block became free in time.
        PoolClosedError
            The pool is closed.
        """
        cdef SharedBlock block
        cdef double patience = self._timeout
        if timeout is not None:
            patience = seconds("timeout", timeout)
        block = self._try()
        if block is None:
            block = self._try_hard()
        if block is None and self._waits:
            return support.wait_for_block(self, patience)
        if block is None:
            self._count_exhausted()
            support.refuse(self)
        return block

    async def acquire_async(self, timeout=None):
        """As :meth:`acquire`, but what waits is a task of asyncio, not its thread.

        It looks again and again, at least every 50 ms: no thread and no file
        descriptor waits for it.
        """
        patience = self._timeout if timeout is None else seconds("timeout", timeout)
        block = self.try_acquire()
        if block is None and self._waits:
            block = await support.wait_in_task(self, patience)
        return self.acquire() if block is None else block

    def try_acquire(self):
        """A free block, or None. Never waits, and does not :meth:`recover`.

        Raises
        ------
        PoolClosedError
            The pool is closed.
        """
        return self._try()

    def open(self, handle):
        """The block of a handle, now held by this process too. O(1), no copy.

        Raises
        ------
        BlockReleasedError
            It comes too late: nobody holds the block any more; or it was sent, and has
            been opened already.
        TypeError, ValueError
            *handle* is no handle, or one of another pool.
        PoolClosedError
            The pool is closed.
        """
        cdef uint64_t word
        self._open()
        index, generation, moved = support.fields_of(handle, self.c.id, self._blocks)
        cdef uint32_t i = index, g = generation
        cdef bint m = moved
        with cython.critical_section(self):  # against its other threads
            self._join()
            if cxp_shared_open(&self.c, i, g, m) == 0:
                return self._block(i, g)
            word = cxp_shared_word(&self.c, i)
        support.late(handle, word)

    def recover(self):
        """Take back what participants held that are dead. O(blocks).

        Called by itself where an acquire finds no block, and while one waits.

        Returns
        -------
        int
            Blocks that are free now and were not before.

        Raises
        ------
        PoolClosedError
            The pool is closed.
        """
        with cython.critical_section(self):  # against its other threads
            self._join()
            return cxp_shared_recover(&self.c)

    @property
    def participant(self):
        """This participant's number, for :meth:`SharedBlock.send` of another one."""
        with cython.critical_section(self):  # against a thread that closes it
            self._join()
            return support.participant_of(
                self.c.slot, self.c.header.slot[self.c.slot].incarnation
            )

    def participants(self):
        """Who is attached, and who was and died with what is not recovered yet.

        O(blocks).
        """
        words, slots = self._snapshot()
        return support.participants_of(words, slots, self.c.slot, cxp_shared_now())

    def loans(self, older_than=0.0):
        """The blocks that are out: who has each of them, and for how long. O(blocks).

        Parameters
        ----------
        older_than : float
            Only blocks that have been out for as many seconds: leaks, perhaps.
        """
        age = seconds("older_than", older_than)
        words, slots = self._snapshot()
        return support.loans_of(words, slots, cxp_shared_now(), age)

    def stats(self):
        """What is counted in the segment, at this moment. O(blocks)."""
        words, slots = self._snapshot()
        return support.stats_of(self, words, slots, self.c.held, self._deferred)

    def check(self):
        """Walk the pool's invariants; AssertionError where one is broken. For tests."""
        with cython.critical_section(self):  # against its other threads
            self._join()
            state = cxp_shared_check(&self.c)
        assert state == 0, state

    def close(self):
        """Leave: hand out nothing more, in this process.

        Blocks that it holds stay good till they are released; with the last of them it
        detaches. Blocks that it sent, and that are not opened by then, are free. Others
        go on. Closing twice does nothing.
        """
        with cython.critical_section(self):  # against its other threads
            if not self._closed:
                self._closed = True
                self._finish()

    @property
    def name(self):
        """The pool's name."""
        return self._name

    @property
    def block_size(self):
        """Bytes of a block."""
        return self._size

    @property
    def blocks(self):
        """Blocks, free or not."""
        return self._blocks

    @property
    def alignment(self):
        """Of each block's address."""
        return self._alignment

    @property
    def in_use(self):
        """Blocks that this process holds, also those whose release is deferred."""
        with cython.critical_section(self):  # against its other threads
            return self.c.held

    @property
    def available(self):
        """Blocks that are free now. O(blocks)."""
        cdef uint32_t i, n = 0
        with cython.critical_section(self):  # against a thread that closes it
            self._join()
            for i in range(self.c.blocks):
                n += cxp_shared_is_free(cxp_shared_word(&self.c, i))
        return n

    @property
    def closed(self):
        """Whether the pool was closed, in this process."""
        return self._closed

    def __enter__(self):
        self._open()
        return self

    def __exit__(self, exc_type, exc, tb):
        self.close()

    def __repr__(self):
        name = "" if self._name is None else f"name={self._name!r}, "
        closed = ", closed" if self._closed else ""
        return (
            f"<SharedBlockPool {name}block_size={self._size}, "
            f"blocks={self._blocks}, in_use={self.in_use}{closed}>"
        )

    def __reduce__(self):
        self._open()
        patience = None if self._timeout == math.inf else self._timeout
        policy = "wait" if self._waits else "raise"
        return type(self)._from_dup, (support.reducible(self), policy, patience)

    def _snapshot(self):
        cdef uint32_t i
        cdef cxp_shared_slot *slot
        words, slots = [], []
        with cython.critical_section(self):  # against a thread that closes it
            self._join()
            for i in range(self.c.blocks):
                words.append((cxp_shared_word(&self.c, i), self.c.since[i]))
            for i in range(CXP_SHARED_PARTICIPANTS):
                slot = &self.c.header.slot[i]
                alive = slot.pid != 0 and cxp_shared_alive(&self.c, i) != 0
                slots.append((
                    slot.pid, slot.incarnation, alive, slot.since_ns, slot.takes,
                    slot.opens, slot.gives, slot.sends, slot.waits, slot.exhausted,
                    slot.recovered,
                ))
        return words, slots

    def _segment_bytes(self):
        return self._bytes

    # What ctxpool._shared_support asks of a pool in order to wait.

    def _try_hard(self):
        block = self._try()
        if block is None and self.recover():
            block = self._try()
        return block

    def _count_exhausted(self):
        with cython.critical_section(self):  # against a thread that closes it
            self._join()
            self.c.header.slot[self.c.slot].exhausted += 1

    def _wait_begin(self):
        with cython.critical_section(self):  # its counters
            self._join()
            cxp_shared_wait_begin(&self.c)

    def _wait_end(self):
        with cython.critical_section(self):  # as above
            cxp_shared_wait_end(&self.c)
            self._finish()

    def _seen(self):
        with cython.critical_section(self):  # against a thread that closes it
            self._join()
            return cxp_shared_seen(&self.c)

    def _wait(self, uint32_t seen, double patience):
        # Mapped as long as somebody waits: see _finish.
        cdef uint64_t ns = <uint64_t>(patience * 1e9)
        if not self.c.waiters:
            return
        with nogil:
            cxp_shared_wait(&self.c, seen, ns)
