# cython: freethreading_compatible=True
# cython: binding=False, embedsignature=True, embedsignature.format=clinic
# cython: boundscheck=False, wraparound=False, initializedcheck=False
"""The block pool over csrc/include/ctxpool/block_pool.h.

Who owns a slot: the Block, until its memory is asked for; from then on a _Lease that
every view and array of the block keeps alive, and that returns the slot when it dies.
On builds with a GIL a view that nobody else reaches at release is put to sleep beside
its slot, together with its lease, and wakes with the next block there: two objects
less to make for each block. There is no way to it meanwhile but through the pool.

A pool takes part in garbage collection for its hooks alone; blocks and leases have no
cycle to break (no_gc). None of them can be subclassed.
"""

cimport cython
from cpython.buffer cimport PyBuffer_FillInfo
from cpython.exc cimport (
    PyErr_Fetch, PyErr_Restore, PyErr_SetObject, PyErr_WriteUnraisable,
)
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF, Py_XDECREF
from libc.stdint cimport int64_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

cimport numpy as cnp

import operator
import sys
import warnings
from collections import deque

import numpy as np

from ctxpool._arguments import (
    array_layout, check_indices, choice, count, power_of_two, seconds,
)
from ctxpool._places import place
from ctxpool._waiting import wait, wait_in_task
from ctxpool.errors import (
    BlockInUseError,
    BlockReleasedError,
    CorruptionError,
    PoolClosedError,
    PoolExhaustedError,
    PoolTimeoutError,
)
from ctxpool._unraisable import report as report_unraisable
from ctxpool.sizes import parse_size
from ctxpool.stats import BlockPoolStats

cnp.import_array()

cdef extern from "lease.h":
    ctypedef struct cxp_kept:
        pass
    PyObject *cxp_kept_take(cxp_kept *kept)
    void cxp_kept_give(cxp_kept *kept, PyObject *object)
    void cxp_set_dealloc(object type, void (*dealloc)(PyObject *) noexcept)
    object cxp_owned(PyObject *new_reference)
    const int CXP_HAS_GIL
    uint32_t cxp_locked_take(PyObject *owner_of_pool, cxp_block_pool *pool,
                             uint32_t owner, int *disturbed)
    int cxp_locked_give(PyObject *owner_of_pool, cxp_block_pool *pool, uint32_t index,
                        uint32_t owner)
    void cxp_locked_pad(PyObject *owner_of_pool, cxp_block_pool *pool, size_t bytes)
    void cxp_locked_unpad(PyObject *owner_of_pool, cxp_block_pool *pool, size_t bytes)
    bint cxp_view_is_quiescent(PyObject *view, PyObject *lease, Py_ssize_t owners)
    bint cxp_view_is_released(PyObject *view)
    ctypedef struct PyArray_Descr:
        pass
    ctypedef struct cxp_layout:
        PyArray_Descr *descr
        int nd
        cnp.npy_intp *dims
    bint cxp_plain_layout(PyObject *dtype, PyObject *shape, size_t limit,
                          cxp_layout *layout)
    object cxp_array_over(cxp_layout *layout, void *data, PyObject *base)

cdef extern from "Python.h":
    Py_ssize_t Py_REFCNT(PyObject *obj)
    Py_ssize_t PyNumber_AsSsize_t(object o, PyObject *exc) except? -1
    object PyMemoryView_FromObject(object obj)
    PyObject *PyMemoryView_GET_BASE(PyObject *view)

cdef extern from "stdlib.h":
    int posix_memalign(void **p, size_t alignment, size_t size) nogil

cdef uint32_t HEAP = 0xFFFFFFFE  # the index of a block from the heap

cdef tuple ON_EXHAUSTED = ("raise", "wait", "grow", "heap")
cdef tuple ZERO = ("never", "acquire", "release")
cdef tuple HUGE_PAGES = ("auto", "always", "never")
cdef tuple FORK_MODES = ("copy", "wipe", "absent")  # in the order of vm.h's numbers
cdef size_t HUGE_BLOCK = 2 << 20
cdef int GROWTH = 64  # "grow" without a bound of the user's own: times blocks


cdef object other_layout(cxp_layout *layout, size_t limit, dtype, shape):
    """Fill *layout* in the general case; what owns its dtype. Or the error."""
    cdef Py_ssize_t i
    if dtype is not None:
        dtype = np.dtype(dtype)
        if cxp_plain_layout(<PyObject *>dtype, <PyObject *>shape, limit, layout):
            return dtype
    dtype, dims = array_layout(limit, dtype, shape)
    layout.descr = <PyArray_Descr *><PyObject *>dtype
    layout.nd = <int>len(dims)
    for i in range(layout.nd):
        layout.dims[i] = dims[i]
    return dtype


cdef damage(uint32_t index):
    return CorruptionError(f"something was written behind the end of block {index}")


cdef void report_damage(BlockPool pool, uint32_t index) noexcept:
    """Where nobody could catch it."""
    PyErr_SetObject(CorruptionError, damage(index))
    PyErr_WriteUnraisable(pool)


cdef cxp_kept kept_leases, kept_blocks


@cython.final
@cython.no_gc
cdef class _Lease:
    # A block's memory and the right to it.

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        if self.pool == NULL:
            raise BlockReleasedError("the block was released")
        PyBuffer_FillInfo(buffer, self, self.memory, <Py_ssize_t>self.size, 0, flags)


cdef void lease_dealloc(PyObject *op) noexcept:
    cdef PyObject *pool = (<_Lease>op).pool
    cdef uint32_t index = (<_Lease>op).index
    cdef bint deferred = (<_Lease>op).deferred
    cdef void *memory = (<_Lease>op).memory
    cdef size_t size = (<_Lease>op).size
    (<_Lease>op).pool = NULL
    cxp_kept_give(&kept_leases, op)
    if pool == NULL:
        return
    if index == HEAP:
        free(memory)
    if deferred or index == HEAP:
        # The pool, against its other threads: this may run in any of them.
        with cython.critical_section(<BlockPool>pool):
            (<BlockPool>pool)._deferred -= deferred
            (<BlockPool>pool)._heap_released += index == HEAP
    if index != HEAP:
        give_quietly(<BlockPool>pool, index, size)
    Py_DECREF(<object>pool)


cdef void give_quietly(BlockPool pool, uint32_t index, size_t size) noexcept:
    """From a finalizer, where an exception may be on its way."""
    cdef PyObject *kind
    cdef PyObject *value
    cdef PyObject *trace
    if size != pool.c.block_size:
        cxp_locked_unpad(<PyObject *>pool, &pool.c, pool.c.block_size - size)
    if not pool._slow:
        cxp_locked_give(<PyObject *>pool, &pool.c, index, CXP_BY_LEASE)
        return
    PyErr_Fetch(&kind, &value, &trace)
    if pool._give(index, CXP_BY_LEASE) == 1:
        report_damage(pool, index)
    PyErr_Restore(kind, value, trace)


cdef PyObject *new_lease(BlockPool pool, uint32_t index, size_t size,
                         bint ours) except NULL:
    """A new reference to a lease that owns the block.

    One of the caller's references to the pool becomes the lease's. On failure that one
    is still the caller's; so is the block, but one that is *ours* goes back.
    """
    cdef PyObject *op = cxp_kept_take(&kept_leases)
    cdef void *memory
    if op == NULL:
        try:
            lease = _Lease.__new__(_Lease)
        except MemoryError:
            if ours:
                abandon(pool, index, size)
            raise
        Py_INCREF(lease)
        op = <PyObject *>lease
    if index != HEAP:
        memory = cxp_block_pool_at(&pool.c, index)
    elif posix_memalign(&memory, max(pool._alignment, sizeof(void *)), size):
        cxp_kept_give(&kept_leases, op)
        abandon(pool, index, size)
        raise MemoryError(f"no {size} bytes on the heap")
    elif pool.c.flags & (CXP_ZERO_ON_TAKE | CXP_ZERO_ON_GIVE):
        memset(memory, 0, size)
    (<_Lease>op).memory = memory
    (<_Lease>op).size = size
    (<_Lease>op).index = index
    (<_Lease>op).deferred = False
    (<_Lease>op).pool = <PyObject *>pool
    return op


cdef int abandon(BlockPool pool, uint32_t index, size_t size) except -1:
    """Give back a block for which there is no memory to make an object."""
    if index == HEAP:
        with cython.critical_section(pool):  # its counters
            pool._heap_released += 1
    else:
        give_quietly(pool, index, size)
    return 0


cdef PyObject *new_block(BlockPool pool, uint32_t index, size_t size) except NULL:
    """A new reference to the block that owns *index*; on failure it goes back."""
    # Raw, as an INCREF that a DECREF follows stalls the processor from 3.12 on: it
    # stores the half of the count, and then loads the whole.
    cdef PyObject *op = cxp_kept_take(&kept_blocks)
    if size != pool.c.block_size:
        cxp_locked_pad(<PyObject *>pool, &pool.c, pool.c.block_size - size)
    if op == NULL:
        try:
            block = Block.__new__(Block)
        except MemoryError:
            abandon(pool, index, size)
            raise
        Py_INCREF(block)
        op = <PyObject *>block
    Py_INCREF(pool)
    (<Block>op).index_ = index
    (<Block>op).size_ = size
    (<Block>op).pool_ = <PyObject *>pool
    return op


cdef void block_dealloc(PyObject *op) noexcept:
    if (<Block>op).pool_ != NULL:
        let_go(op)
    cxp_kept_give(&kept_blocks, op)


cdef void let_go(PyObject *op) noexcept:
    """Make a block dead, and give its slot back or leave it to its lease."""
    cdef PyObject *owner = (<Block>op).pool_  # the lease's reference, if there is one
    cdef PyObject *lease = (<Block>op).lease_
    cdef PyObject *view = (<Block>op).view_
    cdef uint32_t index = (<Block>op).index_
    (<Block>op).pool_ = NULL
    if lease != NULL:
        (<Block>op).lease_ = (<Block>op).view_ = NULL
        if (CXP_HAS_GIL and view != NULL and index != HEAP
                and not (<BlockPool>owner)._closed
                and (<BlockPool>owner)._views[index] == NULL
                and cxp_view_is_quiescent(view, lease, 2)):
            (<_Lease>lease).pool = NULL
            (<BlockPool>owner)._views[index] = view
            Py_DECREF(<object>lease)
            give_quietly(<BlockPool>owner, index, (<Block>op).size_)
        else:
            Py_INCREF(<object>owner)
            with cython.critical_section(<BlockPool>owner):  # its counters
                (<_Lease>lease).deferred = True
                (<BlockPool>owner)._deferred += 1
            Py_XDECREF(view)
            Py_DECREF(<object>lease)  # the last reference, or another holder has one
    else:
        give_quietly(<BlockPool>owner, index, (<Block>op).size_)
    Py_DECREF(<object>owner)


@cython.final
@cython.no_gc
cdef class Block:
    """Block()
--

A block of a pool, held until it is released.

    Made by :meth:`BlockPool.acquire` only. It gives its memory back on
    :meth:`release`, at the end of ``with``, or when the last reference dies; but
    the memory is not handed out again while anything can still reach it: a view, a
    slice of one, an array, a buffer in flight. A released block is dead at once,
    for its owner: every use of it raises :class:`~ctxpool.errors.BlockReleasedError`.

    The block itself exports no buffer: use :attr:`view` or :meth:`array`.

    **Thread-safety**: each call is atomic. Two threads that release one block: one
    of them gets the error. What threads write into the memory is theirs to order.
    """

    def __init__(self):
        raise TypeError("blocks are made by BlockPool.acquire()")

    cdef int _dead(self) except -1:
        raise BlockReleasedError("the block was released")

    cdef PyObject *_get_lease(self) except NULL:
        # Borrowed. Under the block's critical section; the block is alive.
        cdef PyObject *view = NULL
        if self.lease_ != NULL:
            return self.lease_
        if CXP_HAS_GIL and self.index_ != HEAP:
            view = <PyObject *>(<BlockPool>self.pool_)._views[self.index_]
        if view != NULL:
            (<BlockPool>self.pool_)._views[self.index_] = NULL
            if (cxp_view_is_quiescent(view, PyMemoryView_GET_BASE(view), 1)
                    and (<_Lease>PyMemoryView_GET_BASE(view)).size == self.size_):
                self.lease_ = PyMemoryView_GET_BASE(view)
                Py_INCREF(<object>self.lease_)
                (<_Lease>self.lease_).deferred = False
                (<_Lease>self.lease_).pool = self.pool_
                self.view_ = view
                return self.lease_
            Py_DECREF(<object>view)
        self.lease_ = new_lease(<BlockPool>self.pool_, self.index_, self.size_, False)
        return self.lease_

    cdef object _get_view(self):
        # Under the block's critical section.
        cdef PyObject *lease
        cdef PyObject *old = self.view_
        if self.pool_ == NULL:
            self._dead()
        if old != NULL:
            if not cxp_view_is_released(old):
                return <object>old
            self.view_ = NULL
            Py_DECREF(<object>old)
        lease = self._get_lease()
        if self.view_ == NULL:
            view = PyMemoryView_FromObject(<object>lease)
            Py_INCREF(view)
            self.view_ = <PyObject *>view
        return <object>self.view_

    cdef bint _quiescent(self) noexcept:
        """Whether nobody but this block reaches its memory."""
        if self.view_ == NULL or cxp_view_is_released(self.view_):
            return Py_REFCNT(self.lease_) == 1
        return cxp_view_is_quiescent(self.view_, self.lease_, 2)

    cdef int _release(self, bint strict) except -1:
        if CXP_HAS_GIL:
            return self._release_locked(strict)
        # The block, against a thread that releases it or asks for its view too.
        with cython.critical_section(self):
            return self._release_locked(strict)

    cdef int _release_locked(self, bint strict) except -1:
        cdef bint damaged = False
        if self.pool_ == NULL:
            self._dead()
        if strict and self.lease_ != NULL and not self._quiescent():
            raise BlockInUseError(
                f"{self!r} is still reachable: a view or an array of it is alive"
            )
        if (<BlockPool>self.pool_)._debug and self.index_ != HEAP:
            damaged = cxp_block_pool_mend(&(<BlockPool>self.pool_).c, self.index_)
        let_go(<PyObject *>self)
        if damaged:
            raise damage(self.index_)
        return 0

    @property
    def view(self):
        """The block's bytes: a writable memoryview of format ``B``. O(1)."""
        if CXP_HAS_GIL:
            return self._get_view()
        # The block, against a thread that releases it.
        with cython.critical_section(self):
            return self._get_view()

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
            Writable, C-contiguous. While it or a view of it lives, the block is not
            handed out again.

        Raises
        ------
        BlockReleasedError
            The block was released.
        ValueError
            The array is larger than the block, or its items are objects.
        """
        cdef PyObject *lease
        cdef cxp_layout layout
        cdef size_t size = self.size
        kept = None  # what owns the layout's dtype
        if not cxp_plain_layout(<PyObject *>dtype, <PyObject *>shape, size, &layout):
            kept = other_layout(&layout, size, dtype, shape)
        with cython.critical_section(self):  # as in view
            if self.pool_ == NULL:
                self._dead()
            lease = self._get_lease()
            Py_INCREF(<object>lease)
        return cxp_array_over(&layout, (<_Lease>lease).memory, lease)

    @property
    def index(self):
        """The block's number in its pool, or -1 for one from the heap."""
        if self.pool_ == NULL:
            self._dead()
        return -1 if self.index_ == HEAP else <int64_t>self.index_

    @property
    def size(self):
        """Bytes that were asked for, which its views have: the block's or fewer."""
        if self.pool_ == NULL:
            self._dead()
        return self.size_

    @property
    def address(self):
        """Where the block's memory begins."""
        with cython.critical_section(self):  # as in view
            if self.pool_ == NULL:
                self._dead()
            if self.index_ == HEAP:
                return <size_t>(<_Lease>self.lease_).memory
            return <size_t>cxp_block_pool_at(&(<BlockPool>self.pool_).c, self.index_)

    @property
    def pool(self):
        """The pool that the block belongs to."""
        with cython.critical_section(self):  # as in view
            if self.pool_ == NULL:
                self._dead()
            return <object>self.pool_

    @property
    def released(self):
        """Whether the block was given back."""
        return self.pool_ == NULL

    def release(self, bint strict=False):
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
        self._release(strict)

    def __len__(self):
        """Its :attr:`size`."""
        if self.pool_ == NULL:
            self._dead()
        return <Py_ssize_t>self.size_

    def __enter__(self):
        if self.pool_ == NULL:
            self._dead()
        return self

    def __exit__(self, exc_type, exc, tb):
        if self.pool_ == NULL:
            return
        if CXP_HAS_GIL and not (<BlockPool>self.pool_)._slow:
            let_go(<PyObject *>self)
            return
        try:
            self._release(False)
        except (BlockReleasedError, CorruptionError) as error:
            if exc is None:
                raise
            # The body's own exception is the one to be seen; this one is added.
            exc.add_note(f"and on release: {error}")

    def __repr__(self):
        with cython.critical_section(self):  # as in view
            if self.pool_ == NULL:
                return "<Block, released>"
            index = -1 if self.index_ == HEAP else <int64_t>self.index_
            return f"<Block {index} of {self.size_} bytes>"

    def __reduce__(self):
        raise TypeError("cannot pickle a Block: its memory belongs to this process")


@cython.final
@cython.no_gc_clear  # its hooks are called to the end: others break a cycle
cdef class BlockPool:
    """BlockPool(block_size, blocks, *, max_blocks=None, alignment=64, prefault=False,
    huge_pages='auto', on_exhausted='raise', timeout=None, zero='never', debug=False,
    name=None, fork='copy', slab_blocks=None, on_create=None, on_destroy=None)
--

Blocks of equal size, made at once and used again and again.

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

    def __cinit__(self, *args, **kwargs):
        self._waiters = deque()
        self._places = {}
        self._ranges, self._holes = [], []

    def __init__(self, block_size, blocks, *, max_blocks=None, alignment=64,
                 prefault=False, huge_pages="auto", on_exhausted="raise",
                 timeout=None, zero="never", debug=False, name=None, fork="copy",
                 slab_blocks=None, on_create=None, on_destroy=None):
        if self.c.stack != NULL:
            raise RuntimeError("this pool is made already: make another")
        cdef size_t size = parse_size(block_size, "block_size")
        cdef uint32_t slab = 0 if slab_blocks is None else power_of_two(
            "slab_blocks", slab_blocks, 1 << 30)
        cdef uint32_t n = count("blocks", blocks, 0 if slab else 1, CXP_MAX_BLOCKS)
        cdef uint32_t most = n
        cdef uint32_t flags = 0
        cdef bint huge, fault = prefault
        self._on_exhausted = choice("on_exhausted", on_exhausted, ON_EXHAUSTED)
        choice("zero", zero, ZERO)
        choice("huge_pages", huge_pages, HUGE_PAGES)
        choice("fork", fork, FORK_MODES)
        if max_blocks is None:
            if on_exhausted == "grow" or slab:
                most = min(max(<object>n, <object>slab) * GROWTH, CXP_MAX_BLOCKS)
        elif on_exhausted != "grow" and not slab:
            raise ValueError(
                f'max_blocks={max_blocks!r} needs on_exhausted="grow", '
                f"not {on_exhausted!r}"
            )
        else:
            most = count("max_blocks", max_blocks, max(n, 1), CXP_MAX_BLOCKS)
        if slab:
            for what, number in (("blocks", n), ("max_blocks", most)):
                if number % slab:
                    raise ValueError(
                        f"{what} must be a multiple of slab_blocks={slab}, not {number}"
                    )
        for what, hook in (("on_create", on_create), ("on_destroy", on_destroy)):
            if hook is not None and not callable(hook):
                raise TypeError(f"{what} must be callable or None, not {hook!r}")
        self._alignment = power_of_two("alignment", alignment, 1 << 40)
        self._timeout = seconds("timeout", timeout)
        if name is not None and not isinstance(name, str):
            raise TypeError(f"name must be text or None, not {name!r}")
        self._name = name
        self._debug = self._slow = debug
        self._prefault = prefault
        if zero == "acquire":
            flags |= CXP_ZERO_ON_TAKE
        elif zero == "release":
            flags |= CXP_ZERO_ON_GIVE
        if self._debug:
            flags |= CXP_DEBUG
        huge = huge_pages == "always" or (
            huge_pages == "auto" and (fault or size >= HUGE_BLOCK)
        )
        hooked = on_create is not None or on_destroy is not None
        later = slab or hooked  # the first blocks come as all others do
        if cxp_block_pool_init(&self.c, size, 0 if later else n, most,
                               self._alignment, flags, huge, fault):
            raise MemoryError(f"no room for {most} blocks of {size} bytes")
        if slab and cxp_block_pool_use_slabs(&self.c, slab.bit_length() - 1):
            raise MemoryError(f"no room for {most} blocks of {size} bytes")
        if CXP_HAS_GIL:
            self._views = <void **>PyMem_Calloc(most, sizeof(void *))
            if self._views == NULL:
                raise MemoryError()
        if cxp_vm_advise_fork(&self.c.vm, FORK_MODES.index(fork)):
            raise OSError(f"the system knows no fork={fork!r}")
        self._slab, self._on_create, self._on_destroy = slab, on_create, on_destroy
        if hooked:
            self._slow = self._pinned = True
            cxp_block_pool_pin(&self.c)
        while later and self.c.blocks < n:
            self._extend(slab or n, False)

    def __del__(self):
        # No block is out, or its lease would hold the pool.
        if self._ranges:
            with cython.critical_section(self):  # as in close
                self._closed = True
                cxp_block_pool_close(&self.c)
            self._finish()

    def __dealloc__(self):
        self._forget_views()
        PyMem_Free(self._views)
        cxp_block_pool_fini(&self.c)

    cdef int _forget_views(self) noexcept:
        """Drop the sleeping views."""
        cdef uint32_t i
        cdef PyObject *view
        if self._views == NULL:
            return 0
        for i in range(self.c.fresh):
            view = <PyObject *>self._views[i]
            if view == NULL:
                continue
            self._views[i] = NULL
            if not cxp_view_is_quiescent(view, PyMemoryView_GET_BASE(view), 1):
                # Somebody got hold of it (gc.get_objects()): the memory must stay.
                self.c.vm.map = NULL
            Py_XDECREF(view)
        return 0

    cdef int _check_open(self) except -1:
        if self._closed:
            name = "" if self._name is None else f" {self._name!r}"
            raise PoolClosedError(f"the pool{name} is closed")
        return 0

    cdef int64_t _check_index(self, number) except -1:
        if not 0 <= number < self.c.blocks:
            raise IndexError(f"no block {number} in a pool of {self.blocks}")
        return number

    cdef int _give(self, uint32_t index, uint32_t owner) noexcept:
        """As cxp_block_pool_give; the block may go on to one who waits."""
        cdef int state
        cdef uint32_t idle
        # The pool, against its other threads.
        with cython.critical_section(self):
            if self._debug:
                self._places.pop(index, None)
            idle = self.c.idle
            state = cxp_block_pool_give(&self.c, index, owner)
            if self._waiting:
                self._hand_over()
            idle = self.c.idle > idle
        if idle and self._listener is not None:
            self._notify()
        if self._closed and self._pinned:
            self._finish()
        return state

    cdef int _notify(self) noexcept:
        listener = self._listener
        if listener is not None:
            try:
                listener()
            except BaseException as error:
                report_unraisable(error)
        return 0

    cdef int _hand_over(self) except -1:
        """Free blocks to those who wait, first come, first served. Under the lock."""
        cdef uint32_t index
        while self._waiting and cxp_block_pool_available(&self.c):
            waiter = self._waiters.popleft()
            self._waiting -= 1
            if waiter.gone:
                continue
            index = cxp_block_pool_take(&self.c, CXP_BY_LEASE)
            if index == CXP_NO_BLOCK:
                self._waiters.appendleft(waiter)
                self._waiting += 1
            elif not waiter.hand(index):
                cxp_block_pool_give(&self.c, index, CXP_BY_LEASE)
        return 0

    cdef uint32_t _take(self, uint32_t owner, object timeout,
                        bint heap) except? CXP_NO_BLOCK:
        cdef int disturbed = 0
        cdef uint32_t index
        index = cxp_locked_take(<PyObject *>self, &self.c, owner, &disturbed)
        if index == CXP_NO_BLOCK:
            index = self._take_slow(owner, timeout, heap)
        if self._debug:
            self._inspect(index, owner, disturbed)
        return index

    cdef int _inspect(self, uint32_t index, uint32_t owner, bint disturbed) except -1:
        """In debug mode, of a block just taken: its state, and where that was."""
        if disturbed:
            self._give(index, owner)
            raise CorruptionError(
                f"block {index} was written to after it was released"
            )
        if index != HEAP:
            self._places[index] = place(sys._getframe(0))
        return 0

    cdef uint32_t _take_slow(self, uint32_t owner, object timeout,
                             bint heap) except? CXP_NO_BLOCK:
        cdef uint32_t index = CXP_NO_BLOCK
        cdef int disturbed = 0
        self._check_open()
        if self._on_exhausted == "wait":
            index = wait(self, self._patience(timeout))
            with cython.critical_section(self):  # against its other threads
                cxp_block_pool_pass(&self.c, index, owner)
            return index
        if self._on_exhausted == "heap" and heap:
            with cython.critical_section(self):  # its counters
                self._heap += 1
            return HEAP
        if self._on_exhausted == "grow":
            # Others may take what came, before this thread does.
            while index == CXP_NO_BLOCK and self._more(1):
                index = cxp_locked_take(<PyObject *>self, &self.c, owner, &disturbed)
        if index == CXP_NO_BLOCK:
            self._refuse(1)
        return index

    cdef uint32_t _more(self, size_t needed) except? CXP_NO_BLOCK:
        """Let more blocks exist, *needed* free ones if that may be; how many came."""
        cdef uint32_t more
        cdef size_t there
        with cython.critical_section(self):  # against another that grows it
            there = cxp_block_pool_available(&self.c)
            if there >= needed:
                return 1
            more = <uint32_t>min(max(needed - there, <size_t>self.c.blocks),
                                 <size_t>CXP_MAX_BLOCKS)
            if not self._slab and not self._pinned:
                return cxp_block_pool_grow(&self.c, more)
        if not self._slab:
            return self._extend(more, True)
        more = 0
        while cxp_block_pool_available(&self.c) < needed and self._extend(
                self._slab, True):
            more += self._slab
        if not more and cxp_block_pool_available(&self.c) >= needed:
            return 1  # by another thread's doing
        return more

    cdef uint32_t _extend(self, uint32_t more, bint holes) except? CXP_NO_BLOCK:
        """As :meth:`_more`, of slabs and of blocks that the hooks are told of."""
        cdef uint32_t first = 0
        cdef uint32_t n = 0
        cdef int failed = 0
        with cython.critical_section(self):  # against another that grows it
            if holes and self._holes:
                first, n = self._holes.pop()
            else:
                first = self.c.blocks
                n = cxp_block_pool_reserve(&self.c, more)
            if not n or self._closed:
                return 0
            cxp_block_pool_pin(&self.c)
            self._coming += 1
        # Without the lock: the range is ours, and the hook may do what it likes.
        came = False
        try:
            if self._prefault:
                with nogil:
                    failed = cxp_vm_populate(cxp_block_pool_at(&self.c, first),
                                             self.c.stride * n)
                if failed:
                    raise MemoryError(
                        f"the system has no {self.c.stride * n} bytes to make resident"
                    )
            if self._on_create is not None:
                self._on_create(<size_t>cxp_block_pool_at(&self.c, first),
                                self.c.stride * n)
            came = True
        finally:
            with cython.critical_section(self):  # against its other threads
                self._coming -= 1
                if not came:
                    self._holes.append((first, n))
                else:
                    if self._pinned:
                        self._ranges.append((first, n))
                    if not self._closed:
                        cxp_block_pool_present(&self.c, first, n)
                        if self._waiting:
                            self._hand_over()
                cxp_block_pool_unpin(&self.c)
            if self._closed:
                self._finish()
        return n

    cdef int _tell(self, hook, uint32_t first, uint32_t n) noexcept:
        if hook is not None:
            try:
                hook(<size_t>cxp_block_pool_at(&self.c, first), self.c.stride * n)
            except BaseException as error:
                report_unraisable(error)
        return 0

    cdef int _finish(self) noexcept:
        """Tell on_destroy of each range once the slab is to die, then let it go."""
        while True:
            with cython.critical_section(self):  # against its other threads
                if not self._closed or self.c.in_use or not self._pinned:
                    return 0
                if not self._ranges:
                    if not self._coming:
                        self._pinned = False
                        cxp_block_pool_unpin(&self.c)
                    return 0
                first, n = self._ranges.pop()
                self._coming += 1
            self._tell(self._on_destroy, first, n)
            with cython.critical_section(self):
                self._coming -= 1

    # What ctxpool._waiting asks of a pool.

    def _enqueue(self, waiter):
        cdef uint32_t index
        with cython.critical_section(self):  # against a thread that gives one back
            self._check_open()
            self._waits += 1
            self._slow = True
            # One may have come back just now.
            index = cxp_block_pool_take(&self.c, CXP_BY_LEASE)
            if index == CXP_NO_BLOCK:
                self._waiters.append(waiter)
                self._waiting += 1
            else:
                waiter.index = index

    def _withdraw(self, waiter):
        with cython.critical_section(self):  # against a thread that hands it a block
            if waiter in self._waiters:
                self._waiters.remove(waiter)
                self._waiting -= 1

    def _take_back(self, uint32_t index):
        self._give(index, CXP_BY_LEASE)

    def _give_up(self, patience):
        with cython.critical_section(self):  # its counters
            self._check_open()
            self._exhausted += 1
        name = "" if self._name is None else f" {self._name!r}"
        raise PoolTimeoutError(
            f"no block of the pool{name} became free within {patience:g} s; "
            f"{self.blocks} are out"
        )

    cdef double _patience(self, timeout) except? -1:
        return self._timeout if timeout is None else seconds("timeout", timeout)

    cdef int _take_many(self, uint32_t owner, uint32_t *indices, size_t n) except -1:
        cdef int disturbed = 0
        cdef bint short
        cdef size_t i
        self._check_open()
        if self._on_exhausted == "grow":
            self._more(n)
        with cython.critical_section(self):  # against its other threads
            short = cxp_block_pool_take_many(&self.c, owner, indices, n, &disturbed)
        if short:
            self._refuse(n)
        if disturbed:
            for i in range(n):
                self._give(indices[n - 1 - i], owner)
            raise CorruptionError("a block was written to after it was released")
        if self._debug:
            for i in range(n):
                self._inspect(indices[i], owner, False)
        return 0

    cdef int _refuse(self, size_t n) except -1:
        with cython.critical_section(self):  # its counters
            self._exhausted += 1
        name = "" if self._name is None else f" {self._name!r}"
        advice = 'release some, or make it with more blocks or on_exhausted="grow"'
        if self._on_exhausted == "grow":
            advice = f"it may not grow beyond max_blocks={self.c.max_blocks}"
        raise PoolExhaustedError(
            f"the pool{name} has {self.available} of "
            f"{self.blocks} blocks free, {n} needed; {advice}"
        )

    cdef PyObject *_acquire_lease(self) except NULL:
        """A new reference to the lease of a block that has no Block."""
        cdef uint32_t index = self._take(CXP_BY_LEASE, None, True)
        cdef PyObject *lease = new_lease(self, index, self.c.block_size, True)
        Py_INCREF(self)
        return lease

    cdef size_t _size_of(self, size) except? 0:
        """What was asked for, or the whole block."""
        if size is None:
            return self.c.block_size
        return count("size", size, 1, self.c.block_size)

    cdef Block _heap_block(self, size_t size):
        """A Block from the heap: its lease, which owns the memory, is made at once."""
        cdef Block block = Block.__new__(Block)
        block.lease_ = new_lease(self, HEAP, size, True)
        block.index_ = HEAP
        block.size_ = size
        Py_INCREF(self)
        block.pool_ = <PyObject *>self
        return block

    # -- blocks ----------------------------------------------------------------------

    def acquire(self, timeout=None, size=None):
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
        cdef size_t bytes_ = self.c.block_size if size is None else self._size_of(size)
        cdef uint32_t index = self._take(CXP_BY_LEASE, timeout, True)
        if index == HEAP:
            return self._heap_block(bytes_)
        return cxp_owned(new_block(self, index, bytes_))

    async def acquire_async(self, timeout=None, size=None):
        """As :meth:`acquire`, but what waits is a task of asyncio, not its thread.

        Tasks and threads wait in one queue. A task that is cancelled leaves it, and
        gives back what it was handed meanwhile.
        """
        block = self.try_acquire(size)
        if block is None and self._on_exhausted == "wait":
            index = await wait_in_task(self, self._patience(timeout))
            block = self._adopt(index, size)
        return self.acquire(None, size) if block is None else block

    def _adopt(self, uint32_t index, size):
        # A Block for a slot that was handed over.
        if self._debug:
            self._inspect(index, CXP_BY_LEASE, False)
        return cxp_owned(new_block(self, index, self._size_of(size)))

    def try_acquire(self, size=None):
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
        cdef int disturbed = 0
        cdef size_t bytes_ = self.c.block_size
        cdef uint32_t index
        cdef Py_ssize_t asked
        if size is not None:
            asked = PyNumber_AsSsize_t(size, NULL)  # clips
            if asked <= 0 or <size_t>asked > bytes_:
                self._size_of(size)
            bytes_ = <size_t>asked
        index = cxp_locked_take(<PyObject *>self, &self.c, CXP_BY_LEASE, &disturbed)
        if index == CXP_NO_BLOCK:
            self._check_open()
            while (index == CXP_NO_BLOCK and self._on_exhausted == "grow"
                    and self._more(1)):
                index = cxp_locked_take(<PyObject *>self, &self.c, CXP_BY_LEASE,
                                        &disturbed)
            if index == CXP_NO_BLOCK:
                return None
        if self._debug:
            self._inspect(index, CXP_BY_LEASE, disturbed)
        return cxp_owned(new_block(self, index, bytes_))

    def acquire_many(self, n):
        """*n* blocks, or none and an error. Never waits. O(n).

        Raises
        ------
        PoolExhaustedError
            Fewer than *n* are free, and the pool can't grow by so many.
        PoolClosedError
            The pool is closed.
        """
        cdef list blocks
        cdef Py_ssize_t i
        cdef uint32_t *indices
        number = operator.index(n)
        if number < 0:
            raise ValueError(f"n must not be negative, not {number}")
        if number > self.c.max_blocks:
            self._check_open()
            self._refuse(min(number, sys.maxsize))
        blocks = [None] * number
        indices = <uint32_t *>malloc(max(<size_t>number, 1) * sizeof(uint32_t))
        if indices == NULL:
            raise MemoryError()
        i = number
        try:
            self._take_many(CXP_BY_LEASE, indices, <size_t>number)
            for i in range(number):
                blocks[i] = cxp_owned(
                    new_block(self, indices[i], self.c.block_size))
        except BaseException:  # block i is back already
            for i in range(i + 1, number):
                give_quietly(self, indices[i], self.c.block_size)
            raise
        finally:
            free(indices)
        return blocks

    def release(self, block, bint strict=False):
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
        cdef PyObject *pool
        if not isinstance(block, Block):
            raise TypeError(f"release() takes a Block, not {block!r}")
        pool = (<Block>block).pool_
        if pool != NULL and pool != <PyObject *>self:
            raise ValueError(f"{block!r} belongs to another pool")
        (<Block>block)._release(strict)

    def empty(self, shape=None, dtype=None):
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
        cdef cxp_layout layout
        cdef PyObject *lease
        kept = None  # what owns the layout's dtype
        if not cxp_plain_layout(<PyObject *>dtype, <PyObject *>shape,
                                self.c.block_size, &layout):
            kept = other_layout(&layout, self.c.block_size, dtype, shape)
        lease = self._acquire_lease()
        return cxp_array_over(&layout, (<_Lease>lease).memory, lease)

    # -- blocks by number ------------------------------------------------------------

    def allocate(self):
        """The number of a free block, for those who manage blocks by number. O(1).

        It stays taken until :meth:`free`. The pool keeps no watch over who uses its
        memory.

        Raises
        ------
        PoolExhaustedError, PoolTimeoutError, PoolClosedError, CorruptionError
            As :meth:`acquire`; a block from the heap has no number.
        """
        return self._take(CXP_BY_INDEX, None, False)

    def free(self, index):
        """Give back a block that :meth:`allocate` gave. O(1).

        Raises
        ------
        ValueError
            No such block is out by its number: it is free, or a :class:`Block`'s.
        """
        cdef int state = -1
        cdef Py_ssize_t number = -1
        try:
            number = index
        except OverflowError:
            number = -1
        if 0 <= number < self.c.max_blocks:
            if self._slow:
                state = self._give(<uint32_t>number, CXP_BY_INDEX)
            else:
                state = cxp_locked_give(<PyObject *>self, &self.c, <uint32_t>number,
                                        CXP_BY_INDEX)
        if state < 0:
            raise ValueError(f"block {index} was not allocated by number")
        if state > 0:
            raise damage(<uint32_t>number)

    def allocate_many(self, out):
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
        cdef cnp.ndarray numbers
        check_indices(out, highest=self.c.max_blocks - 1)
        numbers = out
        if numbers.dtype != np.uint32 or not numbers.flags.c_contiguous:
            numbers = np.empty(out.shape, np.uint32)
        self._take_many(CXP_BY_INDEX, <uint32_t *>cnp.PyArray_DATA(numbers),
                        <size_t>cnp.PyArray_SIZE(numbers))
        if numbers is not out:
            out[...] = numbers

    def free_many(self, indices):
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
        cdef cnp.ndarray numbers
        cdef int64_t state
        cdef uint32_t idle
        check_indices(indices)
        if indices.dtype == np.uint32:
            numbers = np.ascontiguousarray(indices)
        else:
            wrong = indices[(indices < 0) | (indices >= self.c.max_blocks)]
            if wrong.size:
                raise ValueError(f"block {wrong.flat[0]} was not allocated by number")
            numbers = np.ascontiguousarray(indices, np.uint32)
        damaged = None
        # The pool, against its other threads.
        with cython.critical_section(self):
            for number in numbers.flat if self._debug else ():
                if (cxp_block_pool_owner(&self.c, number) == CXP_BY_INDEX
                        and cxp_block_pool_mend(&self.c, number)):
                    damaged = number
            idle = self.c.idle
            state = cxp_block_pool_give_many(
                &self.c, <const uint32_t *>cnp.PyArray_DATA(numbers),
                <size_t>cnp.PyArray_SIZE(numbers), CXP_BY_INDEX,
            )
            if state >= 0:
                for number in numbers.flat if self._debug else ():
                    self._places.pop(int(number), None)
                if self._waiting:
                    self._hand_over()
            idle = self.c.idle > idle
        if idle:
            self._notify()
        if self._closed and self._pinned:
            self._finish()
        if state < 0:
            wrong = numbers.flat[-1 - state]
            if (numbers.flat[:-1 - state] == wrong).any():
                raise ValueError(f"block {wrong} stands there twice")
            raise ValueError(f"block {wrong} was not allocated by number")
        if damaged is not None:
            raise damage(damaged)

    def address(self, index):
        """Where block *index* begins in memory; IndexError where there is none.

        Raises
        ------
        PoolClosedError
            The pool is closed, and its memory given back.
        """
        cdef uint32_t number = self._check_index(operator.index(index))
        with cython.critical_section(self):  # against a thread that closes it
            if self.c.base == NULL:
                self._check_open()
            return <size_t>cxp_block_pool_at(&self.c, number)

    def generation(self, index):
        """How often block *index* was handed out, modulo 2**29.

        Who keeps it beside the number can tell later whether the block is still the
        one he knew.
        """
        cdef uint32_t number = self._check_index(operator.index(index))
        with cython.critical_section(self):  # against a thread that takes it
            return cxp_block_pool_generation(&self.c, number)

    # -- memory ----------------------------------------------------------------------

    def warm(self, n=None):
        """Make the first *n* blocks resident, all by default. Changes no byte.

        O(pages). Other threads go on meanwhile.

        Raises
        ------
        RuntimeError
            The pool has slabs: they are made resident as they come (*prefault*).
        """
        cdef size_t size
        cdef unsigned char *base
        cdef int failed
        if self._slab:
            raise RuntimeError("warm() needs a pool without slabs: use prefault=True")
        number = self.blocks if n is None else operator.index(n)
        if not 0 <= number <= self.c.max_blocks:
            raise ValueError(f"n must be from 0 to {self.c.max_blocks}, not {number}")
        with cython.critical_section(self):  # against a thread that closes it
            self._check_open()
            cxp_block_pool_pin(&self.c)
        size = <size_t>number * self.c.stride
        base = self.c.base
        with nogil:
            failed = size and cxp_vm_populate(base, size)
        with cython.critical_section(self):
            cxp_block_pool_unpin(&self.c)
        if failed:
            raise MemoryError(f"the system has no {size} bytes to make resident")

    def trim(self):
        """Give the memory of free blocks back to the system. O(blocks + pages).

        Returns
        -------
        int
            Bytes that were resident there. Spans of 2 MiB and more the system may
            take only when it is short, so the process may look as large for a while.
            0 in a pool with hooks, whose memory is registered with somebody.
        """
        cdef size_t freed
        if self._pinned:
            return 0
        with cython.critical_section(self):  # against a thread that takes a block
            freed = cxp_block_pool_trim(&self.c)
        return freed

    def grow(self, slabs=1):
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
        cdef uint32_t more = 0
        self._check_slabs()
        for _ in range(count("slabs", slabs, 0, CXP_MAX_BLOCKS)):
            self._check_open()
            if not self._extend(self._slab, True):
                break
            more += self._slab
        return more

    def shrink(self, slabs=None):
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
        cdef uint32_t first, gone = 0
        cdef size_t freed = 0
        self._check_slabs()
        most = CXP_MAX_BLOCKS if slabs is None else count(
            "slabs", slabs, 0, CXP_MAX_BLOCKS)
        while gone < most:
            # No break in it: Cython 3.1 would not leave the section.
            with cython.critical_section(self):  # against a thread that takes a block
                first = CXP_NO_BLOCK if self._closed else cxp_block_pool_idle(&self.c)
                if first != CXP_NO_BLOCK:
                    cxp_block_pool_withdraw(&self.c, first, self._slab)
                    if self._pinned:
                        self._ranges.remove((first, self._slab))
                    cxp_block_pool_pin(&self.c)
                    self._coming += 1
            if first == CXP_NO_BLOCK:
                break
            gone += 1
            # Without the lock: the range is ours.
            self._tell(self._on_destroy, first, self._slab)
            freed += cxp_vm_discard(cxp_block_pool_at(&self.c, first),
                                    self.c.stride * self._slab, False)
            with cython.critical_section(self):  # against its other threads
                self._coming -= 1
                self._holes.append((first, self._slab))
                cxp_block_pool_unpin(&self.c)
            if self._closed:
                self._finish()
        return gone * self._slab, freed

    def _check_slabs(self):
        if not self._slab:
            raise RuntimeError("grow() and shrink() need a pool with slab_blocks")
        self._check_open()

    # What ctxpool.pools.MemoryPool asks of it.

    def _listen(self, listener):
        with cython.critical_section(self):  # against a thread that gives one back
            self._slow = True
            self._listener = listener

    def _idle(self):
        # Slabs that are wholly free.
        with cython.critical_section(self):  # as in stats
            return self.c.idle

    def _from_heap(self, size):
        # A Block of any size that is none of the pool's.
        cdef size_t bytes_ = size
        with cython.critical_section(self):  # its counters
            self._heap += 1
        return self._heap_block(bytes_)

    def leaks(self):
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
        return sorted(self._places.copy().items())

    def close(self):
        """Hand out nothing more.

        Blocks that are out stay good; the slab goes back to the system when the last
        of them does. Those who wait get :class:`~ctxpool.errors.PoolClosedError`.
        A pool in debug mode warns (ResourceWarning) of the blocks that are out, with
        the place of each acquire. Closing twice does nothing.
        """
        with cython.critical_section(self):  # against its other threads
            if self._closed:
                return
            self._closed = True
            self._forget_views()
            cxp_block_pool_close(&self.c)
            waiters = list(self._waiters)
            self._waiters.clear()
            self._waiting = 0
        for waiter in waiters:
            waiter.hand(None)
        self._finish()
        if self._debug and self.in_use:
            listed = "\n".join(
                f"  block {index}, acquired at {place}" for index, place in self.leaks()
            )
            warnings.warn(
                f"{self!r} was closed with {self.in_use} blocks out:\n{listed}",
                ResourceWarning,
                stacklevel=1,
            )

    def stats(self):
        """What the pool counts, at this moment."""
        with cython.critical_section(self):  # one moment
            return BlockPoolStats(
                name=self._name,
                block_size=self.c.block_size,
                blocks=self.c.blocks - self.c.absent,
                max_blocks=self.c.max_blocks,
                in_use=self.c.in_use,
                deferred=self._deferred,
                peak=self.c.peak,
                acquires=self.c.takes + self._heap,
                releases=self.c.gives + self._heap_released,
                waits=self._waits,
                exhausted=self._exhausted,
                heap_fallbacks=self._heap,
                bytes=self.c.stride * (self.c.blocks - self.c.absent),
                padding=self.c.padding,
                idle=self.c.idle << self.c.slab_shift,
            )

    def check(self):
        """Walk the pool's invariants; AssertionError where one is broken. For tests."""
        cdef int64_t broken
        with cython.critical_section(self):  # one moment
            broken = cxp_block_pool_check(&self.c)
        if broken:
            raise AssertionError(f"the state of block {-1 - broken} is wrong")

    @property
    def name(self):
        """The pool's name."""
        return self._name

    @property
    def block_size(self):
        """Bytes of a block that its user may write."""
        return self.c.block_size

    @property
    def blocks(self):
        """Blocks that exist, free or not."""
        with cython.critical_section(self):  # as in stats
            return self.c.blocks - self.c.absent

    @property
    def max_blocks(self):
        """Blocks that may exist."""
        return self.c.max_blocks

    @property
    def alignment(self):
        """Of each block's address."""
        return self._alignment

    @property
    def in_use(self):
        """Blocks that are out, also those whose release is deferred."""
        with cython.critical_section(self):  # as in stats
            return self.c.in_use

    @property
    def available(self):
        """Blocks that could be acquired now, without growing."""
        with cython.critical_section(self):  # as in stats
            return cxp_block_pool_available(&self.c)

    @property
    def closed(self):
        """Whether the pool was closed."""
        return self._closed

    def __enter__(self):
        self._check_open()
        return self

    def __exit__(self, exc_type, exc, tb):
        self.close()

    def __repr__(self):
        name = "" if self._name is None else f"name={self._name!r}, "
        closed = ", closed" if self._closed else ""
        return (
            f"<BlockPool {name}block_size={self.c.block_size}, "
            f"blocks={self.blocks}, in_use={self.in_use}{closed}>"
        )

    def __reduce__(self):
        raise TypeError("cannot pickle a BlockPool: its memory belongs to this process")


cxp_set_dealloc(_Lease, lease_dealloc)
cxp_set_dealloc(Block, block_dealloc)
