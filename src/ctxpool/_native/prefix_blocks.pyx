# cython: freethreading_compatible=True
# cython: binding=False, embedsignature=True, embedsignature.format=clinic
"""PrefixBlockManager over csrc/include/ctxpool/prefix_blocks.h.

The critical sections lock the manager against other threads' calls on it (and one a
list of tokens, while it is read). Inside only the blocks' C functions are called: no
Python code runs, and no object is made or dies.
"""

cimport cython
cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.list cimport PyList_CheckExact
from cpython.long cimport PyLong_AsLongLongAndOverflow, PyLong_CheckExact
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from cpython.object cimport PyObject
from cpython.tuple cimport PyTuple_CheckExact
from libc.errno cimport ENOSPC
from libc.stdint cimport UINT32_MAX, int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

import os
import weakref

from .. import _arguments
from .. import _prefix_support as support
from .._prefix_support import PrefixAllocation, PrefixEvent, PrefixGrowth
from ..errors import BlockReleasedError, PoolExhaustedError
from ..stats import PrefixBlockStats
from .token_window import TokenWindow

cnp.import_array()

__all__ = ["PrefixBlockManager"]

cdef extern from "critical.h":
    enum:
        CXP_HAS_GIL

    bint cxp_left_behind(object self)

cdef extern from "token_window.h":
    bint cxp_small_int(PyObject *object, int64_t *value)

cdef extern from "Python.h":
    Py_ssize_t PySequence_Fast_GET_SIZE(PyObject *items)
    PyObject **PySequence_Fast_ITEMS(PyObject *items)

cdef enum:
    SMALL = 16  # blocks that append has on the stack

cdef bytes _unsalted = b""
cdef tuple _kinds = ("stored", "removed", "cleared")

# Where a lock can outlive its thread in a fork: all managers there are.
cdef object living = None if CXP_HAS_GIL else weakref.WeakValueDictionary()


def _after_fork_in_child():
    cdef PrefixBlockManager manager
    cdef cxp_prefix_blocks old, fresh
    for manager in list(living.values()):
        if cxp_left_behind(manager):
            old = manager.c  # half changed, perhaps: it is not even freed
            if cxp_prefix_init(&fresh, old.num_blocks, old.block_size,
                               old.tokens != NULL, old.event_room, old.powers[1]):
                manager._made = False
            manager.c = fresh


if not CXP_HAS_GIL and hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


# ---- What comes in, and goes out ----

cdef cxp_hash _hash(number):
    cdef cxp_hash hash
    hash.low = <uint64_t>(number & 0xFFFFFFFFFFFFFFFF)
    hash.high = <uint64_t>(number >> 64)
    return hash


cdef bytes _bytes(cxp_hash hash):
    cdef bytes made = PyBytes_FromStringAndSize(NULL, 16)
    cdef unsigned char *to = <unsigned char *>PyBytes_AS_STRING(made)
    cdef int i
    for i in range(8):
        to[i] = <unsigned char>(hash.high >> (56 - 8 * i))
        to[8 + i] = <unsigned char>(hash.low >> (56 - 8 * i))
    return made


cdef cnp.ndarray _empty(size_t n):
    cdef cnp.npy_intp shape = <cnp.npy_intp>n
    return cnp.PyArray_EMPTY(1, &shape, cnp.NPY_INT32, 0)


cdef cnp.ndarray _array(const int32_t *blocks, size_t n):
    cdef cnp.ndarray made = _empty(n)
    memcpy(cnp.PyArray_DATA(made), blocks, n * sizeof(int32_t))
    return made


cdef bint _read_small_ints(PyObject *items, Py_ssize_t n, int32_t *to) noexcept:
    """Whether all are exact ints of one digit, which then are in *to*."""
    cdef PyObject **item = PySequence_Fast_ITEMS(items)
    cdef int64_t value
    cdef Py_ssize_t i
    for i in range(n):
        if not cxp_small_int(item[i], &value):
            return False
        to[i] = <int32_t>value
    return True


cdef bint _is_flat(values, int type):
    """Whether they are an array that can be read as it is."""
    return (cnp.PyArray_Check(values)
            and cnp.PyArray_TYPE(values) == type
            and cnp.PyArray_NDIM(values) == 1
            and cnp.PyArray_ISCARRAY_RO(values))


cdef bint _narrow(const int64_t *values, Py_ssize_t n, int32_t *to) noexcept:
    """Whether all fit, and then are in *to*."""
    cdef int64_t lost = 0
    cdef Py_ssize_t i
    for i in range(n):
        to[i] = <int32_t>values[i]
        lost |= values[i] ^ to[i]
    return lost == 0


cdef cnp.ndarray _tokens(tokens):
    """They as a contiguous array of int32."""
    cdef cnp.ndarray array
    cdef Py_ssize_t n
    cdef bint done
    if PyList_CheckExact(tokens) or PyTuple_CheckExact(tokens):
        array = _empty(PySequence_Fast_GET_SIZE(<PyObject *>tokens))
        n = cnp.PyArray_SIZE(array)
        with cython.critical_section(tokens):
            done = PySequence_Fast_GET_SIZE(<PyObject *>tokens) == n and (
                _read_small_ints(<PyObject *>tokens, n,
                                 <int32_t *>cnp.PyArray_DATA(array)))
        if done:
            return array
    elif _is_flat(tokens, cnp.NPY_INT32):
        return tokens
    elif _is_flat(tokens, cnp.NPY_INT64):
        n = cnp.PyArray_SIZE(tokens)
        array = _empty(n)
        if _narrow(<const int64_t *>cnp.PyArray_DATA(tokens), n,
                   <int32_t *>cnp.PyArray_DATA(array)):
            return array
    elif isinstance(tokens, TokenWindow):
        return _tokens(tokens.view())
    return support.token_array(tokens)


cdef uint64_t _handle(sequence) except? 0:
    cdef int overflow
    cdef long long handle
    if PyLong_CheckExact(sequence):
        handle = PyLong_AsLongLongAndOverflow(sequence, &overflow)
        if handle >= 0 and not overflow:
            return <uint64_t>handle
    return <uint64_t>support.handle_of(sequence)


# Records are made without bytecode, in which a Ctrl-C could lose what was allocated.
cdef object _record = tuple.__new__

# What append gives that needed no block: most of the time. Its array has no element to
# be written.
cdef object _no_growth = PrefixGrowth(_empty(0), None)


cdef class PrefixBlockManager:
    """PrefixBlockManager(num_blocks, block_size=16, *, verify=True, events=0, seed=b'')
--

Blocks of tokens by number, shared by the sequences that begin alike.

    Whoever keeps something for each token of a sequence, such as the keys and values of
    a transformer's attention, keeps it in *num_blocks* blocks of *block_size* tokens.
    This is the book-keeping of such blocks: which sequence has which, and which can be
    used again by a sequence that begins with the same tokens. It holds no such data
    itself: blocks are numbers from 0 on.

    Parameters
    ----------
    num_blocks : int
        How many blocks there are: 1 to 2**30.
    block_size : int, optional
        Tokens of a block: 1 to 2**20. Only full blocks are shared through the cache.
    verify : bool, optional
        Keep the tokens of each block, 4 bytes each, and compare them: no collision of
        hashes can make one prompt pass for another. Without it see the notes.
    events : int, optional
        How many events are kept for :meth:`drain_events`; the oldest give way. None by
        default.
    seed : bytes or str, optional
        What the hashes are made with. Managers of the same seed and block size give the
        same tokens the same hashes, in any process.

    Raises
    ------
    TypeError, ValueError
        A parameter is not what is said above.
    MemoryError
        The blocks do not fit in memory.

    Notes
    -----
    *Sequences* are named by handles, plain integers that :meth:`allocate` and
    :meth:`fork` give; a freed handle is not used again. A *token* is an integer of 32
    bits. Wherever tokens are asked for, an int32 array or buffer (a
    :class:`TokenWindow`, too) is read in place, and any other iterable of integers is
    checked and copied first.

    *When a block is cached.* As soon as it is full: whoever allocates promises to
    compute it before anyone reads it, in the order of the calls. :meth:`free` can take
    back what was not computed. A block that becomes full with the same tokens as one
    that is cached stays private. If all of a prompt is cached, an engine that needs the
    last token's output computes that token again.

    *When one is evicted.* A block that no sequence has any longer stays cached until it
    is needed. Blocks that are not cached are taken first, then the least recently used,
    of each sequence its last block first: what remains is a prefix.

    *The hash* of a block is that of all tokens up to its end, a polynomial over the
    field of 2**127 - 1 at a point made from *seed*. If that is a secret, two sequences
    of up to n tokens collide with a chance of at most n / 2**126, among m of them there
    is a collision with one of m**2 * n / 2**127; with ``verify=True`` a collision only
    means that one of the two is not cached. Who knows the seed can make collisions: for
    prompts of strangers keep *verify*, and take a secret *seed*.

    *Cost.* :meth:`lookup`, :meth:`touch`, :meth:`allocate` and :meth:`append` are
    O(tokens), natively about 2 ns a token; :meth:`fork`, :meth:`free`, :meth:`acquire`
    and :meth:`release` are O(blocks). All memory but the sequences' lists of blocks is
    taken and touched at construction: natively about 50 bytes a block. No object of
    Python's exists per block, so that the garbage collector has nothing to walk.

    **Thread-safety.** Each call is atomic; whatever Python code the tokens bring with
    them runs before it. A finalizer or a signal handler may use the manager in the
    middle of any call on it; the pure one refuses that with RuntimeError. A forked
    child has a manager of its own: on builds without the GIL an empty one, if another
    thread was inside a call at that moment.

    Examples
    --------
    >>> manager = PrefixBlockManager(num_blocks=8, block_size=4)
    >>> first = manager.allocate(range(10))
    >>> first.blocks, first.cached_tokens
    (array([0, 1, 2], dtype=int32), 0)
    >>> second = manager.allocate([*range(8), 99, 98])
    >>> second.blocks, second.cached_tokens
    (array([0, 1, 3], dtype=int32), 8)
    >>> manager.append(second.sequence, [97, 96, 95]).blocks
    array([4], dtype=int32)
    >>> manager.free(first.sequence)
    >>> manager.lookup(range(100))
    8
    """

    def __init__(self, num_blocks, block_size=16, *, verify=True, events=0, seed=b""):
        cdef cxp_prefix_blocks blocks
        cdef uint32_t c_blocks, c_size
        cdef size_t c_events
        cdef cxp_hash key
        cdef bint compares, made = False
        cdef int rc
        n = _arguments.count("num_blocks", num_blocks, 1, support.MOST_BLOCKS)
        size = _arguments.count("block_size", block_size, 1, support.MOST_TOKENS)
        room = _arguments.count("events", events, 0, 2**62)
        key = _hash(support.key_of(seed))
        unsalted = support.start_of(b"")
        compares = bool(verify)
        c_blocks, c_size, c_events = n, size, room
        with nogil:  # touches every page
            rc = cxp_prefix_init(&blocks, c_blocks, c_size, compares, c_events, key)
        if rc:
            raise support.no_memory(n, size, room)
        with cython.critical_section(self):
            if self.c.blocks == NULL:
                self.c = blocks
                self._made = made = True
        if not made:
            cxp_prefix_fini(&blocks)
            raise RuntimeError("PrefixBlockManager.__init__ was called before")
        self._unsalted = _hash(unsalted)
        if not CXP_HAS_GIL:
            living[id(self)] = self

    def __dealloc__(self):
        cxp_prefix_fini(&self.c)

    cdef int _ready(self) except -1:
        if not self._made:
            raise RuntimeError("PrefixBlockManager.__init__ was not called")
        return 0

    cdef int _start(self, salt, cxp_hash *start) except -1:
        """The hash of no tokens."""
        self._ready()
        if salt is _unsalted:
            start[0] = self._unsalted
        else:
            start[0] = _hash(support.start_of(salt))
        return 0

    # ---- what it is ----

    @property
    def num_blocks(self):
        """How many blocks there are."""
        return self.c.num_blocks

    @property
    def block_size(self):
        """Tokens of a block."""
        return self.c.block_size

    @property
    def verify(self):
        """Whether tokens are compared, beside their hashes."""
        return self.c.tokens != NULL

    @property
    def available(self):
        """Blocks that no sequence has, cached or not."""
        cdef uint32_t nfree
        with cython.critical_section(self):
            nfree = self.c.nfree
        return nfree

    def stats(self):
        """The counts at this moment."""
        cdef cxp_prefix_blocks now
        with cython.critical_section(self):
            now = self.c
        return PrefixBlockStats(
            num_blocks=now.num_blocks,
            block_size=now.block_size,
            used=now.num_blocks - now.nfree,
            peak=now.peak,
            cached=now.ncached,
            sequences=now.live,
            queried_tokens=now.queried_tokens,
            hit_tokens=now.hit_tokens,
            evictions=now.evictions,
            exhausted=now.exhausted,
            events=now.event_count,
            events_dropped=now.events_dropped,
        )

    def __repr__(self):
        now = self.stats()
        return (
            f"<{type(self).__name__} num_blocks={now.num_blocks}, "
            f"block_size={now.block_size}, used={now.used}, cached={now.cached}>"
        )

    def __reduce__(self):
        raise TypeError(
            "cannot pickle a PrefixBlockManager: its blocks are good in this process "
            "only"
        )

    def _check(self):
        """0; raises where an invariant does not hold; for tests."""
        cdef int line
        self._ready()
        with cython.critical_section(self):
            line = cxp_prefix_check(&self.c)
        return line

    # ---- finding ----

    def lookup(self, tokens, /, *, salt=b""):
        """How many of *tokens*, from the first on, are in cached blocks; O(tokens).

        Nothing changes by it, neither the order of eviction nor the counts.

        Parameters
        ----------
        tokens : iterable of int
            What :meth:`allocate` takes.
        salt : bytes or str, optional
            What tells apart those who may not share blocks: a tenant, an adapter, the
            images that tokens stand for.

        Returns
        -------
        int
            Tokens: a multiple of the block size.
        """
        cdef cxp_hash start
        cdef cnp.ndarray array = _tokens(tokens)
        cdef size_t found
        self._start(salt, &start)
        with cython.critical_section(self):
            found = cxp_prefix_lookup(&self.c, start,
                                      <const int32_t *>cnp.PyArray_DATA(array),
                                      cnp.PyArray_SIZE(array))
        return found * self.c.block_size

    def touch(self, tokens, /, *, salt=b""):
        """The same, and the blocks are evicted last from now on; O(tokens).

        What keeps a system prompt cached that is rarely used.
        """
        cdef cxp_hash start
        cdef cnp.ndarray array = _tokens(tokens)
        cdef size_t found
        self._start(salt, &start)
        with cython.critical_section(self):
            found = cxp_prefix_touch(&self.c, start,
                                     <const int32_t *>cnp.PyArray_DATA(array),
                                     cnp.PyArray_SIZE(array))
        return found * self.c.block_size

    def hashes(self, tokens, /, *, salt=b""):
        """The hashes of the full blocks of *tokens*, 16 bytes each; O(tokens).

        Those that events name: who collects them knows what another manager, of the
        same seed and block size, has cached.

        Examples
        --------
        >>> manager = PrefixBlockManager(8, 4, events=100)
        >>> _ = manager.allocate(range(10))
        >>> stored = {event.hash for event in manager.drain_events()}
        >>> [hash in stored for hash in manager.hashes(range(14))]
        [True, True, False]
        """
        cdef cxp_hash hash
        cdef cnp.ndarray array = _tokens(tokens)
        cdef const int32_t *data = <const int32_t *>cnp.PyArray_DATA(array)
        cdef size_t i, size
        self._start(salt, &hash)
        size = self.c.block_size
        found = []
        for i in range(<size_t>cnp.PyArray_SIZE(array) // size):
            hash = cxp_hash_extend(hash, self.c.powers, data + i * size, size)
            found.append(_bytes(hash))
        return found

    # ---- sequences ----

    def allocate(self, tokens, /, *, salt=b""):
        """A sequence that begins with *tokens*; O(tokens).

        Parameters
        ----------
        tokens : iterable of int
            The prompt.
        salt : bytes or str, optional
            As for :meth:`lookup`.

        Returns
        -------
        PrefixAllocation
            ``sequence``, the handle; ``blocks``, its blocks as an array of int32, one
            for each *block_size* tokens begun; and ``cached_tokens``, how many of the
            tokens, from the first on, were cached: their blocks are computed already.

        Raises
        ------
        PoolExhaustedError
            Too few blocks are free; nothing is changed.
        TokenRangeError
            A token does not fit 32 bits.
        TypeError
            A token is no integer, or the *salt* is neither bytes nor str.
        ValueError
            An array of tokens has more than one dimension.
        MemoryError
            No memory for the list of blocks.
        """
        cdef cxp_hash start
        cdef cnp.ndarray array = _tokens(tokens)
        cdef cnp.ndarray blocks
        cdef size_t cached = 0, n = cnp.PyArray_SIZE(array)
        cdef uint64_t handle = 0
        cdef uint32_t nfree
        cdef int rc
        self._start(salt, &start)
        blocks = _empty(n // self.c.block_size + (n % self.c.block_size != 0))
        with cython.critical_section(self):
            nfree = self.c.nfree
            rc = cxp_prefix_allocate(&self.c, start,
                                     <const int32_t *>cnp.PyArray_DATA(array), n,
                                     &handle, <int32_t *>cnp.PyArray_DATA(blocks),
                                     &cached)
        if rc == ENOSPC:
            raise support.no_room(n, nfree, self.c.num_blocks)
        if rc:
            raise MemoryError(f"no memory for the blocks of {n} tokens")
        return _record(PrefixAllocation, (handle, blocks, cached * self.c.block_size))

    def append(self, sequence, tokens, /):
        """Add *tokens* to a sequence; O(tokens).

        Returns
        -------
        PrefixGrowth
            ``blocks``, the new ones at the sequence's end, as an array of int32; and
            ``copied_from``: None, or the block in which the sequence shared its last
            tokens with another one. Then the first of the new ones replaces it, and
            what is kept for these tokens is to be copied there.

        Raises
        ------
        PoolExhaustedError, TokenRangeError, TypeError, ValueError, MemoryError
            As :meth:`allocate`; nothing is changed.
        UnknownSequenceError
            There is no such sequence.

        Examples
        --------
        >>> manager = PrefixBlockManager(8, 4)
        >>> sequence = manager.allocate([1, 2, 3, 4, 5]).sequence
        >>> other = manager.fork(sequence)
        >>> manager.append(other, [6])
        PrefixGrowth(blocks=array([2], dtype=int32), copied_from=1)
        >>> manager.append(sequence, [7])
        PrefixGrowth(blocks=array([], dtype=int32), copied_from=None)
        """
        cdef uint64_t handle = _handle(sequence)
        cdef cnp.ndarray array = _tokens(tokens)
        cdef size_t most, n = cnp.PyArray_SIZE(array)
        cdef int32_t[SMALL] few
        cdef int32_t *fresh = few
        cdef cxp_prefix_growth growth
        cdef cxp_prefix_sequence *s
        cdef uint32_t nfree
        cdef int rc = 0
        self._ready()
        most = n // self.c.block_size + 2
        if most > SMALL:
            fresh = <int32_t *>PyMem_RawMalloc(most * sizeof(int32_t))
            if fresh == NULL:
                raise MemoryError(f"no memory for the blocks of {n} tokens")
        try:
            with cython.critical_section(self):
                nfree = self.c.nfree
                s = cxp_prefix_find(&self.c, handle)
                if s != NULL:
                    rc = cxp_prefix_append(&self.c, s,
                                           <const int32_t *>cnp.PyArray_DATA(array), n,
                                           fresh, &growth)
            if s == NULL:
                raise support.unknown(handle)
            if rc == ENOSPC:
                raise support.no_room(n, nfree, self.c.num_blocks)
            if rc:
                raise MemoryError(f"no memory for the blocks of {n} tokens")
            if not growth.added:
                return _no_growth
            blocks = _array(fresh, growth.added)
        finally:
            if fresh != few:
                PyMem_RawFree(fresh)
        if growth.copied_from == self.c.num_blocks:
            return _record(PrefixGrowth, (blocks, None))
        return _record(PrefixGrowth, (blocks, growth.copied_from))

    def fork(self, sequence, /):
        """Another sequence of the same blocks, which then grow apart; O(blocks).

        Also the last block is shared, though it may not be full: the first of the two
        to grow in it copies it (see :meth:`append`).

        Returns
        -------
        int
            The handle of the new sequence.

        Raises
        ------
        UnknownSequenceError
            There is no such sequence.
        MemoryError
            No memory for the list of blocks.
        """
        cdef uint64_t forked = 0, handle = _handle(sequence)
        cdef bint known
        cdef int rc = 0
        self._ready()
        with cython.critical_section(self):
            known = cxp_prefix_find(&self.c, handle) != NULL
            if known:
                rc = cxp_prefix_fork(&self.c, handle, &forked)
        if not known:
            raise support.unknown(handle)
        if rc:
            raise MemoryError("no memory for the blocks of another sequence")
        return forked

    def free(self, sequence, /, *, computed=None):
        """End a sequence; O(blocks). What nobody else has of it stays cached.

        Parameters
        ----------
        sequence : int
            Its handle.
        computed : int, optional
            How many of its tokens were computed, if not all: blocks that hold others
            can be found no more, whoever else has them.

        Raises
        ------
        UnknownSequenceError
            There is no such sequence, or no longer.
        """
        cdef uint64_t handle = _handle(sequence)
        cdef uint64_t good = UINT32_MAX
        cdef bint known
        self._ready()
        if computed is not None:
            good = _arguments.count("computed", computed, 0, 2**62)
            good = min(good // self.c.block_size, <uint64_t>UINT32_MAX)
        with cython.critical_section(self):
            known = cxp_prefix_find(&self.c, handle) != NULL
            if known:
                cxp_prefix_free(&self.c, handle, <uint32_t>good)
        if not known:
            raise support.unknown(handle)

    def blocks(self, sequence, /):
        """The blocks of a sequence, in order, as an array of int32; O(blocks).

        Raises
        ------
        UnknownSequenceError
            There is no such sequence.
        """
        cdef uint64_t handle = _handle(sequence)
        cdef cxp_prefix_sequence *s
        cdef cnp.ndarray made = _empty(0)
        cdef size_t n = 0
        while True:
            with cython.critical_section(self):
                s = cxp_prefix_find(&self.c, handle)
                if s != NULL:
                    n = s.nblocks
                    if n == <size_t>cnp.PyArray_SIZE(made):
                        memcpy(cnp.PyArray_DATA(made), s.blocks, n * sizeof(int32_t))
            if s == NULL:
                raise support.unknown(handle)
            if n == <size_t>cnp.PyArray_SIZE(made):
                return made
            made = _empty(n)  # and it may have grown meanwhile

    def length(self, sequence, /):
        """How many tokens a sequence has; O(1).

        Raises
        ------
        UnknownSequenceError
            There is no such sequence.
        """
        cdef uint64_t handle = _handle(sequence)
        cdef uint64_t tokens = 0
        cdef cxp_prefix_sequence *s
        with cython.critical_section(self):
            s = cxp_prefix_find(&self.c, handle)
            if s != NULL:
                tokens = s.tokens
        if s == NULL:
            raise support.unknown(handle)
        return tokens

    # ---- blocks by number ----

    def acquire(self, n, /):
        """*n* blocks for whatever the caller has in mind, as an array of int32; O(n).

        They belong to no sequence, and are never cached.

        Raises
        ------
        PoolExhaustedError
            Fewer are free; nothing is changed.
        """
        cdef size_t wanted
        cdef uint32_t nfree
        cdef cnp.ndarray made
        cdef int64_t few
        cdef int rc = 0
        self._ready()
        if cxp_small_int(<PyObject *>n, &few) and few >= 0:
            wanted = <size_t>few
        else:
            wanted = _arguments.count("n", n, 0, support.MOST_BLOCKS)
        with cython.critical_section(self):
            nfree = self.c.nfree
            if wanted > nfree:  # or an array for them could be too much
                rc = cxp_prefix_take(&self.c, wanted, NULL)
        if rc == 0:
            made = _empty(wanted)
            with cython.critical_section(self):
                nfree = self.c.nfree
                rc = cxp_prefix_take(&self.c, wanted,
                                     <int32_t *>cnp.PyArray_DATA(made))
        if rc:
            raise PoolExhaustedError(f"{wanted} blocks are not free: {nfree} are")
        return made

    def release(self, blocks, /):
        """Give back blocks that :meth:`acquire` gave, in any order; O(blocks).

        Raises
        ------
        BlockReleasedError
            One of them is not out, or is there twice; nothing is changed.
        TypeError, ValueError
            They are no integers, or in more than one dimension.
        """
        cdef cnp.ndarray array
        cdef size_t bad, n
        cdef const int32_t *given
        self._ready()
        if _is_flat(blocks, cnp.NPY_INT32):
            array = blocks
        else:
            array = support.block_array(blocks)
        if not CXP_HAS_GIL:
            array = array.copy()  # what is checked may not change before it is used
        given = <const int32_t *>cnp.PyArray_DATA(array)
        n = cnp.PyArray_SIZE(array)
        with cython.critical_section(self):
            bad = cxp_prefix_give(&self.c, given, n)
        if bad < n:
            raise BlockReleasedError(
                f"block {array[bad]} is not out, or given back twice"
            )

    # ---- the cache as a whole ----

    def reset_prefix_cache(self):
        """Let no block be found any more, used or not; O(num_blocks).

        For when what the blocks hold is void, because the model's weights changed, say.
        Sequences keep their blocks.

        Returns
        -------
        int
            How many blocks were cached.
        """
        cdef uint32_t were
        self._ready()
        with cython.critical_section(self):
            were = cxp_prefix_reset(&self.c)
        return were

    def drain_events(self):
        """What happened to the cache since the last call, oldest first; O(events).

        At most as many as the parameter *events* said: if ``stats().events_dropped``
        has grown, the oldest are missing, and whoever follows the cache by its events
        begins anew, after :meth:`reset_prefix_cache`.

        Returns
        -------
        list of PrefixEvent
            ``kind``, ``"stored"``, ``"removed"`` or ``"cleared"``; ``block``, ``hash``,
            and, of a stored one, ``parent``: the hash before it.
        """
        cdef cxp_prefix_event event
        cdef cxp_prefix_event *events
        cdef size_t n = 0, i, room
        self._ready()
        with cython.critical_section(self):
            room = self.c.event_count
        events = <cxp_prefix_event *>PyMem_RawMalloc(room * sizeof(event) + 1)
        if events == NULL:
            raise MemoryError(f"no memory for {room} events")
        try:
            with cython.critical_section(self):
                while n < room and cxp_prefix_next_event(&self.c, &events[n]):
                    n += 1
            drained = []
            for i in range(n):
                event = events[i]
                drained.append(_record(PrefixEvent, (
                    _kinds[event.kind], event.block, _bytes(event.hash),
                    _bytes(event.parent))))
        finally:
            PyMem_RawFree(events)
        return drained
