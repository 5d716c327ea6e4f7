# cython: freethreading_compatible=True
# cython: binding=False, embedsignature=True, embedsignature.format=clinic
"""The token window over csrc/include/ctxpool/token_ring.h.

The critical sections lock the window (and, where it is read in place, the list that
is being added) against other threads' calls on it. Inside them only the ring is
called, and memory allocated: no Python code runs.
"""

cimport cython
cimport numpy as cnp
from cpython.buffer cimport (
    PyBUF_C_CONTIGUOUS,
    PyBUF_FORMAT,
    PyBuffer_Release,
    PyObject_CheckBuffer,
    PyObject_GetBuffer,
)
from cpython.list cimport PyList_CheckExact
from cpython.long cimport (
    PyLong_CheckExact,
    PyLong_FromLongLong,
    PyLong_FromUnsignedLongLong,
)
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from cpython.object cimport PyObject
from cpython.slice cimport PySlice_Check
from cpython.tuple cimport PyTuple_CheckExact
from libc.stdint cimport UINT64_MAX, int64_t, uint64_t
from libc.string cimport memcpy

import sys

import numpy as np

from .._pickling import constructor
from ..errors import TokenRangeError
from ..stats import TokenWindowStats

cnp.import_array()

__all__ = ["TokenWindow"]

cdef extern from "token_window.h":
    bint cxp_locked_push(PyObject *window, cxp_ring *ring, int64_t value)
    bint cxp_small_int(PyObject *object, int64_t *value)
    int cxp_int_token(const cxp_ring *ring, PyObject *number, uint64_t *token)
    bint cxp_read_small_ints(const cxp_ring *ring, PyObject *items, Py_ssize_t n,
                             char *to)
    size_t cxp_cast(const cxp_ring *ring, void *to, size_t size, bint is_signed,
                    const void *source, size_t n)
    object cxp_snapshot(PyObject *dtype, int nd, cnp.npy_intp *shape,
                        cnp.npy_intp *strides, const char *data, PyObject *holder)

cdef extern from "Python.h":
    Py_ssize_t PySequence_Fast_GET_SIZE(PyObject *items)
    Py_ssize_t PyNumber_AsSsize_t(object number, PyObject *error) except? -1
    object PyNumber_Index(object number)

cdef enum:
    _ROUNDS = 100  # how often on_evict may fill the window again before it is an error


cdef object _whole(value, str name, Py_ssize_t least):
    try:
        number = PyNumber_Index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, not {value!r}") from None
    if number < least:
        raise ValueError(f"{name} must be at least {least}, not {number}")
    return number


cdef object _integer_dtype(dtype):
    try:
        known = np.dtype(dtype)
    except (TypeError, ValueError):
        known = None
    if known is None or known.kind not in "iu" or not known.isnative:
        raise ValueError(f"dtype must be a native integer type, not {dtype!r}")
    return np.dtype(f"{known.kind}{known.itemsize}")


@cython.final
cdef class Generation:
    """Keeps tokens as they are, those from a section of a buffer on; the base of the
    arrays that show them."""

    def __init__(self):
        raise TypeError("generations are made by TokenWindow")

    def __dealloc__(self):
        if self.gen != NULL:
            cxp_gen_drop(self.gen, self.section)


cdef class TokenWindow:
    """TokenWindow(capacity, *, overlap=0, sink=0, slack=None, dtype='int32',
    overflow='slide', on_evict=None)
--

The last *capacity* tokens of a stream, always as one array.

    Code written for ``collections.deque(maxlen=capacity)`` as a first-in, first-out
    window of integers runs unchanged. What such a window never does is left out:
    writing at the left (``appendleft``, ``extendleft``), in the middle (``insert``,
    ``remove``, ``rotate``, ``reverse``, item assignment), concatenation and order.

    :meth:`view` and :meth:`last` give numpy arrays without copying. They are
    snapshots: a token once written is never changed, so an array stays what it was
    for ever, whatever happens to the window. It keeps its buffer alive, and only
    that.

    Parameters
    ----------
    capacity : int
        How many tokens fit.
    overlap : int
        With ``overflow="compact"``: how many of the newest tokens an overflow keeps.
    sink : int
        The first *sink* tokens are pinned: overflow and :meth:`popleft` drop those
        after them. ``sink + overlap < capacity``.
    slack : int, optional
        Room for tokens beyond *capacity* in a buffer, at least 1; ``3 * capacity``
        by default. Every token is copied about ``capacity / slack`` times. Not used
        with *sink* and "compact".
    dtype : numpy integer dtype
        ``int8`` to ``uint64``, in native byte order.
    overflow : {"slide", "compact"}
        When a token comes and the window is full: drop the oldest one, or all but
        the newest *overlap* ones (fewer and larger evictions).
    on_evict : callable, optional
        Called with the tokens that overflow is about to drop, oldest first, as a
        read-only array, before they are gone; not for :meth:`popleft`, :meth:`pop`
        and :meth:`clear`. If it raises, nothing is added and nothing is lost. It
        may use the window: of the tokens it was shown, those that are still there
        afterwards are dropped.

    Raises
    ------
    TypeError, ValueError
        A parameter is not what is said above.
    MemoryError
        The buffers do not fit in memory.

    Notes
    -----
    The native window holds one buffer of ``capacity + slack`` tokens, and goes round
    in it; two, and goes to and fro, with less slack than ``3 * capacity``. So it has
    16 bytes per int32 token of capacity, 8 with *sink* and "compact", and 8 to 32 with
    a slack of one's own. They are touched at construction, so that no page fault comes
    later. One more buffer is needed for each that arrays out there keep when the
    window has to write there again; with the default slack that is none as long as
    each array is let go before ``capacity / 2`` more tokens have come. The pure window
    holds a single buffer, and makes a new one when it is used up.

    Natively :meth:`append`, :meth:`popleft`, :meth:`pop`, :meth:`view`, :meth:`last`
    and ``window[i]`` are O(1) in the worst case: the next buffer is filled in small
    batches while this one is used up (the algorithm is ours, see ``token_ring.h``).
    Exceptions: with *sink* and "slide", :meth:`view` copies, once per change of the
    window; with *sink* and "compact", :meth:`popleft` copies; appending after
    :meth:`pop`, where an array shows the popped token, copies the window.

    **Thread-safety.** Every call is atomic. *on_evict*, and whatever Python code the
    tokens given bring with them, runs outside the lock. Two threads that fill a full
    window at once may both show *on_evict* the same tokens.

    A subclass keeps its type through :meth:`copy` and pickling. A window compares
    equal to a window with the same tokens, and is not hashable.

    Examples
    --------
    >>> window = TokenWindow(4)
    >>> window.extend([1, 2, 3, 4, 5])
    >>> before = window.view()
    >>> before
    array([2, 3, 4, 5], dtype=int32)
    >>> window.append(6)
    >>> before.tolist(), window.view().tolist()
    ([2, 3, 4, 5], [3, 4, 5, 6])
    >>> window.position, window.evicted
    (6, 2)
    """

    def __init__(self, capacity, *, overlap=0, sink=0, slack=None, dtype="int32",
                 overflow="slide", on_evict=None):
        cdef cxp_ring ring
        cdef size_t c_capacity, c_slack, c_sink, step
        cdef unsigned size
        cdef bint is_signed, compact, made = False
        cdef int rc
        fits = _whole(capacity, "capacity", 1)
        keeps = _whole(overlap, "overlap", 0)
        pins = _whole(sink, "sink", 0)
        extra = 3 * fits if slack is None else _whole(slack, "slack", 1)
        kind = _integer_dtype(dtype)
        if overflow not in ("slide", "compact"):
            raise ValueError(f'overflow must be "slide" or "compact", not {overflow!r}')
        if keeps and overflow != "compact":
            raise ValueError(f'overlap {keeps} needs overflow="compact"')
        if pins + keeps >= fits:
            raise ValueError(
                f"sink {pins} + overlap {keeps} must be less than capacity {fits}"
            )
        if on_evict is not None and not callable(on_evict):
            raise TypeError(f"on_evict must be callable, not {on_evict!r}")
        rc = -1
        if fits <= sys.maxsize and extra <= sys.maxsize:
            c_capacity, c_slack, c_sink = fits, extra, pins
            compact = overflow == "compact"
            step = fits - pins - keeps if compact else 1
            size = kind.itemsize
            is_signed = kind.kind == "i"
            with nogil:  # touches every page
                rc = cxp_ring_init(&ring, c_capacity, c_slack, c_sink, step, compact,
                                   size, is_signed)
        if rc:
            raise MemoryError(
                f"no memory for a window of {fits} tokens and {extra} of slack"
            )
        ring.tell = on_evict is not None
        cxp_ring_aim(&ring)
        with cython.critical_section(self):
            if self.c.gen == NULL:
                self.c = ring
                self._dtype = kind
                self._on_evict = on_evict
                self._overlap = keeps
                self._slack = extra
                self._overflow = str(overflow)
                self._made = made = True
        if not made:
            cxp_ring_fini(&ring)
            raise RuntimeError("TokenWindow.__init__ was called before")

    def __dealloc__(self):
        cxp_ring_fini(&self.c)

    cdef int _ready(self) except -1:
        if not self._made:
            raise RuntimeError("TokenWindow.__init__ was not called")
        return 0

    # ---- what the window is ----

    @property
    def capacity(self):
        """How many tokens fit."""
        return self.c.capacity

    @property
    def maxlen(self):
        """The capacity, by its name in ``collections.deque``."""
        return self.c.capacity

    @property
    def overlap(self):
        """How many of the newest tokens a compacting overflow keeps."""
        return self._overlap

    @property
    def sink(self):
        """How many of the first tokens are pinned."""
        return self.c.sink

    @property
    def slack(self):
        """Room for tokens beyond the capacity in a buffer."""
        return self._slack

    @property
    def overflow(self):
        """What a full window does: ``"slide"`` or ``"compact"``."""
        return self._overflow

    @property
    def dtype(self):
        """The tokens' numpy dtype."""
        return self._dtype

    @property
    def on_evict(self):
        """What is called with the tokens that overflow drops."""
        return self._on_evict

    @property
    def position(self):
        """Tokens ever seen, less those taken back by :meth:`pop`.

        Without a sink ``window[i]`` has the absolute position
        ``position - len(window) + i``, for ever.
        """
        cdef uint64_t position
        with cython.critical_section(self):
            position = cxp_ring_position(&self.c)
        return position

    @property
    def evicted(self):
        """Tokens dropped by overflow, those included that passed straight through."""
        cdef uint64_t evicted
        with cython.critical_section(self):
            evicted = self.c.evicted
        return evicted

    def stats(self):
        """The window's counts at this moment."""
        cdef size_t size, nbytes
        cdef uint64_t position, evicted, generations
        with cython.critical_section(self):
            size = cxp_ring_len(&self.c)
            position = cxp_ring_position(&self.c)
            evicted = self.c.evicted
            generations = self.c.generations
            nbytes = cxp_ring_bytes(&self.c)
            if self._copied is not None:
                nbytes += self._copied.gen.nbytes
        return TokenWindowStats(
            capacity=self.c.capacity,
            size=size,
            position=position,
            evicted=evicted,
            generations=generations,
            bytes=nbytes,
        )

    def __len__(self):
        cdef size_t size
        with cython.critical_section(self):
            size = cxp_ring_len(&self.c)
        return <Py_ssize_t>size

    def __repr__(self):
        newest = self.last(8).tolist()
        shown = ", ".join(map(str, newest))
        size = len(self)
        if size > len(newest):
            shown = f"..., {shown}"
        return (
            f"<{type(self).__name__} [{shown}], {size} of {self.capacity} "
            f"{self._dtype} tokens at position {self.position}>"
        )

    def _check(self):
        """0, or the line of token_ring.h whose invariant does not hold; for tests."""
        cdef int line
        with cython.critical_section(self):
            line = cxp_ring_check(&self.c)
        return line

    # ---- tokens in ----

    def append(self, token, /):
        """Add one token; O(1).

        Raises
        ------
        TokenRangeError
            The token does not fit the dtype; nothing is added.
        TypeError
            The token is no integer; nothing is added.
        MemoryError
            No memory for the next buffer; nothing is added or lost.
        """
        cdef int64_t value
        cdef uint64_t bits
        cdef bint done = False
        cdef char[8] bytes_
        if cxp_small_int(<PyObject *>token, &value):
            done = cxp_locked_push(<PyObject *>self, &self.c, value)
        if not done:
            self._token(token, &bits)
            cxp_token_write(bytes_, self.c.size, bits)
            self._put(bytes_, 1)

    def extend(self, tokens, /):
        """Add all *tokens*, or none of them if there is an error; O(len(tokens)).

        The result is that of appending one by one, but *on_evict* is called once,
        with all the tokens that are dropped.

        Parameters
        ----------
        tokens : iterable, buffer or one-dimensional integer array
            An array or buffer of the window's dtype is copied as it is, one of
            another integer dtype is checked for range first. Anything else is
            iterated to its end before the first token is added.

        Raises
        ------
        TokenRangeError
            A token does not fit the dtype.
        TypeError
            A token is no integer, or *tokens* is not iterable.
        ValueError
            An array has more than one dimension.
        MemoryError
            No memory for the tokens or the next buffer.

        Examples
        --------
        >>> window = TokenWindow(3, dtype="uint8")
        >>> window.extend(b"abcd")
        >>> window.view()
        array([ 98,  99, 100], dtype=uint8)
        """
        self._ready()
        if isinstance(tokens, TokenWindow):
            tokens = tokens.view()
        if cnp.PyArray_Check(tokens):
            self._put_array(tokens)
            return
        if PyList_CheckExact(tokens) or PyTuple_CheckExact(tokens):
            if not self._put_small_ints(tokens):
                self._put_items(tuple(tokens))
            return
        if not isinstance(tokens, (list, tuple)):
            array = None
            if PyObject_CheckBuffer(tokens):
                if self._put_buffer(tokens):
                    return
                try:
                    array = np.asarray(memoryview(tokens))
                except Exception:  # numpy has no dtype for it
                    array = None
            if array is None and hasattr(type(tokens), "__array__"):
                array = np.asarray(tokens)
            if array is not None:
                self._put_array(array)
                return
        self._put_items(tuple(tokens))

    def __iadd__(self, tokens):
        self.extend(tokens)
        return self

    cdef int _token(self, object token, uint64_t *bits) except -1:
        """*token*, any object, checked."""
        self._ready()
        try:
            number = token if PyLong_CheckExact(token) else PyNumber_Index(token)
        except TypeError:
            raise TypeError(f"a token must be an integer, not {token!r}") from None
        if cxp_int_token(&self.c, <PyObject *>number, bits):
            # Very long ints have no decimal text (sys.set_int_max_str_digits).
            named = number if number.bit_length() < 128 else hex(number)
            raise TokenRangeError(f"token {named} does not fit {self._dtype}")
        return 0

    cdef bint _put_small_ints(self, object tokens) except -1:
        """Add a list or tuple of small ints; False, and nothing done, if it is not."""
        cdef PyObject *items = <PyObject *>tokens
        cdef Py_ssize_t n, room
        cdef char *to
        cdef bint simple = True
        cdef int rc = 0
        # Straight into the free slots, where that is possible. Both are locked: the
        # list as well, since another thread may shrink it.
        with cython.critical_section(self, tokens):
            n = PySequence_Fast_GET_SIZE(items)
            to = cxp_ring_tail(&self.c, <size_t>n)
            if to != NULL:
                simple = cxp_read_small_ints(&self.c, items, n, to)
                if simple and not cxp_ring_fast(&self.c, to, <size_t>n):
                    rc = self._add(to, <size_t>n,
                                   cxp_ring_overflow(&self.c, <size_t>n))
        if rc:
            raise MemoryError("no memory for the next buffer of the window")
        if to != NULL or n == 0:
            return simple
        room = n
        to = <char *>PyMem_RawMalloc(<size_t>room * self.c.size)
        if to == NULL:
            raise MemoryError(f"no memory for {n} tokens")
        try:
            with cython.critical_section(tokens):  # it may have grown meanwhile
                n = min(room, PySequence_Fast_GET_SIZE(items))
                simple = cxp_read_small_ints(&self.c, items, n, to)
            if simple:
                self._put(to, <size_t>n)
        finally:
            PyMem_RawFree(to)
        return simple

    cdef int _put_items(self, object tokens) except -1:
        """Add a tuple of anything; checking them may run Python code."""
        cdef size_t m = <size_t>len(tokens), i = 0
        cdef unsigned size = self.c.size
        cdef uint64_t bits
        cdef char *to = <char *>PyMem_RawMalloc(m * size + 1)
        if to == NULL:
            raise MemoryError(f"no memory for {m} tokens")
        try:
            for token in tokens:
                self._token(token, &bits)
                cxp_token_write(to + i * size, size, bits)
                i += 1
            self._put(to, m)
        finally:
            PyMem_RawFree(to)
        return 0

    cdef int _put_array(self, object tokens) except -1:
        cdef cnp.ndarray array = tokens
        cdef char kind = array.descr.kind
        cdef size_t m, bad
        if cnp.PyArray_NDIM(array) != 1:
            if cnp.PyArray_NDIM(array) == 0:
                raise TypeError("tokens must be iterable, not an array of no dimension")
            raise ValueError(
                f"tokens must have one dimension, not the shape {tokens.shape}"
            )
        if kind == b"O":
            return self._put_items(tuple(array.tolist()))
        if kind != b"i" and kind != b"u":
            raise TypeError(f"tokens must be integers, not {tokens.dtype}")
        if not cnp.PyArray_ISCARRAY_RO(array):
            array = array.astype(array.dtype.newbyteorder("="), order="C", subok=False)
        m = <size_t>cnp.PyArray_SIZE(array)
        bad = self._put_values(cnp.PyArray_DATA(array), m,
                               <size_t>cnp.PyArray_ITEMSIZE(array), kind == b"i")
        if bad < m:
            raise TokenRangeError(f"token {array[bad]} does not fit {self._dtype}")
        return 0

    cdef bint _put_buffer(self, object tokens) except -1:
        """Add a buffer of native integers; False, and nothing done, if it is not."""
        cdef Py_buffer buffer
        cdef size_t m, size, bad
        cdef char kind = 0
        try:
            PyObject_GetBuffer(tokens, &buffer, PyBUF_FORMAT | PyBUF_C_CONTIGUOUS)
        except Exception:  # numpy knows what to do with it, or what to say
            return False
        try:
            size = <size_t>buffer.itemsize
            if (buffer.ndim == 1 and buffer.format != NULL and buffer.format[0] != 0
                    and buffer.format[1] == 0 and size in (1, 2, 4, 8)
                    and <size_t>buffer.buf % size == 0):
                kind = buffer.format[0]
            if kind not in b"bhilqBHILQ":
                return False
            m = <size_t>buffer.len // size
            bad = self._put_values(buffer.buf, m, size, kind > 97)  # b"a"
            if bad < m:
                value = memoryview(tokens)[bad]
                raise TokenRangeError(f"token {value} does not fit {self._dtype}")
        finally:
            PyBuffer_Release(&buffer)
        return True

    cdef size_t _put_values(self, const void *source, size_t m, size_t size,
                            bint is_signed) except? 0:
        """Add m native integers: m, or where one is that does not fit; then nothing is
        added."""
        cdef size_t bad = m
        cdef char *to
        cdef char *scratch = NULL
        cdef int rc = 0
        if size == self.c.size and is_signed == self.c.is_signed:
            self._put(<const char *>source, m)
            return m
        # Straight into the free slots, where that is possible.
        with cython.critical_section(self):
            to = cxp_ring_tail(&self.c, m)
            if to != NULL:
                bad = cxp_cast(&self.c, to, size, is_signed, source, m)
                if bad == m and not cxp_ring_fast(&self.c, to, m):
                    rc = self._add(to, m, cxp_ring_overflow(&self.c, m))
        if rc:
            raise MemoryError("no memory for the next buffer of the window")
        if to != NULL:
            return bad
        scratch = <char *>PyMem_RawMalloc(m * self.c.size + 1)
        if scratch == NULL:
            raise MemoryError(f"no memory for {m} tokens")
        try:
            bad = cxp_cast(&self.c, scratch, size, is_signed, source, m)
            if bad == m:
                self._put(scratch, m)
        finally:
            PyMem_RawFree(scratch)
        return bad

    cdef int _add(self, const char *tokens, size_t m, size_t drop):
        """0, or -1 without memory. In a critical section."""
        # What the window holds for its own convenience is not to be in the way.
        if self._holder is not None and (
                self._holder.section != cxp_ring_section(&self.c)
                or cxp_ring_turns(&self.c, m, drop)):
            self._holder = None
        return cxp_ring_extend(&self.c, tokens, m, drop)

    cdef int _put(self, const char *tokens, size_t m) except -1:
        """Add m checked tokens."""
        cdef int rc = 0
        cdef bint tell = False
        with cython.critical_section(self):
            if not cxp_ring_fast(&self.c, tokens, m):
                tell = self.c.tell
                if not tell:
                    rc = self._add(tokens, m, cxp_ring_overflow(&self.c, m))
        if rc:
            raise MemoryError("no memory for the next buffer of the window")
        if tell:
            self._put_telling(tokens, m)
        return 0

    cdef int _put_telling(self, const char *tokens, size_t m) except -1:
        """The same, with on_evict to be told first."""
        # What was told of: the window's tokens before the absolute position `told`,
        # and `passed` tokens of the input, those that are not going to stay.
        cdef uint64_t told = 0, first
        cdef size_t passed = 0, body, pins, drop, gone, through, known, slot, old, new
        cdef unsigned size = self.c.size
        cdef cxp_watch watch
        cdef cxp_watch **link
        cdef cxp_gen *gen
        cdef const char *data
        cdef Generation holder
        cdef int rc = 0
        cdef bint done = False
        for _ in range(_ROUNDS):
            holder = None
            gen = NULL
            data = NULL
            with cython.critical_section(self):
                body = cxp_ring_body(&self.c)
                pins = cxp_ring_pins(&self.c, m)
                drop = cxp_ring_overflow(&self.c, m)
                gone = min(drop, body)
                through = drop - gone
                slot = self.c.w - body
                first = self.c.origin + slot
                known = 0
                if told > first:
                    known = body if told - first > body else <size_t>(told - first)
                old = gone - known if gone > known else 0
                new = through - passed if through > passed else 0
                if old == 0 and new == 0:
                    if known == body:
                        known += min(passed, m - pins)
                    rc = self._add(tokens, m, max(drop, known))
                    done = True
                else:
                    if new:
                        gen = cxp_gen_alone((old + new) * size)
                        if gen != NULL:
                            data = cxp_gen_data(gen)
                            memcpy(<char *>data,
                                   self.c.data + (slot + known) * size, old * size)
                            memcpy(<char *>data + old * size,
                                   tokens + (pins + passed) * size, new * size)
                    else:
                        holder = self._hold()
                        data = self.c.data + (slot + known) * size
                        cxp_ring_show(&self.c, slot + gone)
                    if data != NULL:
                        watch.low = UINT64_MAX
                        watch.next = self.c.watches
                        self.c.watches = &watch
            if done:
                if rc:
                    raise MemoryError("no memory for the next buffer of the window")
                return 0
            if data == NULL:
                raise MemoryError(f"no memory for {old + new} tokens")
            try:
                if holder is None:
                    holder = Generation.__new__(Generation)
                    holder.gen = gen
                self._on_evict(self._array(holder, data, old + new))
            finally:
                holder = None
                with cython.critical_section(self):
                    link = &self.c.watches
                    while link[0] != &watch:
                        link = &link[0].next
                    link[0] = watch.next
            told = min(max(told, first + gone), watch.low)
            passed = max(passed, through)
        raise RuntimeError(f"on_evict filled the window again, {_ROUNDS} times over")

    # ---- tokens out ----

    cdef object _int(self, uint64_t bits):
        if self.c.is_signed:
            return PyLong_FromLongLong(<int64_t>bits)
        return PyLong_FromUnsignedLongLong(bits)

    def popleft(self):
        """Remove and return the oldest token that is not pinned; O(1).

        Raises
        ------
        IndexError
            There is none.
        """
        cdef uint64_t bits
        cdef size_t size
        cdef int rc
        with cython.critical_section(self):
            size = cxp_ring_len(&self.c)
            if self.c.prefix:
                self._holder = None  # the buffer will change
            rc = cxp_ring_popleft(&self.c, &bits)
        if rc > 0:
            raise IndexError(
                "only pinned tokens are left" if size else "pop from an empty window"
            )
        if rc < 0:
            raise MemoryError("no memory for the next buffer of the window")
        return self._int(bits)

    def pop(self):
        """Take back and return the newest token; O(1).

        The position decreases by one, so that every other token keeps its own.

        Raises
        ------
        IndexError
            The window is empty.
        """
        cdef uint64_t bits
        cdef int rc
        with cython.critical_section(self):
            rc = cxp_ring_pop(&self.c, &bits)
        if rc:
            raise IndexError("pop from an empty window")
        return self._int(bits)

    def clear(self):
        """Remove all tokens, the pinned ones too; the position stays. O(1).

        The next *sink* tokens will be pinned.
        """
        cdef int rc
        with cython.critical_section(self):
            if self.c.prefix:
                self._holder = None  # the buffer may change
            self._copied = None
            rc = cxp_ring_clear(&self.c)
        if rc:
            raise MemoryError("no memory for the next buffer of the window")

    # ---- arrays ----

    cdef Generation _hold(self):
        """The holder of what the window shows now. In a critical section."""
        cdef Generation holder = self._holder
        cdef size_t section = cxp_ring_section(&self.c)
        if holder is None or holder.section != section or holder.gen != self.c.gen:
            self._ready()
            holder = Generation.__new__(Generation)
            cxp_gen_hold(self.c.gen, section)
            holder.gen = self.c.gen
            holder.section = section
            self._holder = holder
        return holder

    cdef Generation _reach(self, const char **data, size_t *n):
        """All tokens in one piece, and what keeps it. In a critical section."""
        cdef uint64_t[4] now
        cdef size_t body = self.c.w - self.c.start, beside
        cdef Generation holder
        if self.c.pinned == NULL:
            holder = self._hold()
            cxp_ring_show(&self.c, self.c.w)
            data[0] = self.c.data + self.c.start * self.c.size
            n[0] = body
            return holder
        now = [self.c.generations, self.c.w, self.c.start, self.c.repins]
        if (self._copied is None or self._copied_at[0] != now[0]
                or self._copied_at[1] != now[1] or self._copied_at[2] != now[2]
                or self._copied_at[3] != now[3]):
            self._copied = None
            holder = Generation.__new__(Generation)
            holder.gen = cxp_gen_alone((self.c.npinned + body) * self.c.size)
            if holder.gen == NULL:
                raise MemoryError(f"no memory for {self.c.npinned + body} tokens")
            beside = self.c.npinned * self.c.size
            memcpy(cxp_gen_data(holder.gen), self.c.pinned, beside)
            memcpy(cxp_gen_data(holder.gen) + beside,
                   self.c.data + self.c.start * self.c.size, body * self.c.size)
            # Shown: so that no slot of it changes without a change of `now`.
            cxp_ring_show(&self.c, self.c.w)
            self._copied = holder
            self._copied_n = self.c.npinned + body
            self._copied_at = now
        data[0] = cxp_gen_data(self._copied.gen)
        n[0] = self._copied_n
        return self._copied

    cdef object _array(self, Generation holder, const char *data, size_t n):
        cdef cnp.npy_intp shape = <cnp.npy_intp>n
        return cxp_snapshot(<PyObject *>self._dtype, 1, &shape, NULL, data,
                            <PyObject *>holder)

    def view(self):
        """The window as a read-only array; O(1), nothing is copied.

        It is a snapshot: later changes of the window do not show in it. With a sink
        and ``overflow="slide"`` it is a copy, made once per change of the window.

        Returns
        -------
        numpy.ndarray
            Shape ``(len(window),)``, the window's dtype, oldest token first.

        Examples
        --------
        >>> window = TokenWindow(8)
        >>> window.extend(range(3))
        >>> window.view()
        array([0, 1, 2], dtype=int32)
        """
        cdef const char *data = NULL
        cdef size_t n = 0
        cdef Generation holder
        with cython.critical_section(self):
            holder = self._reach(&data, &n)
        return self._array(holder, data, n)

    def last(self, n, /):
        """The newest *n* tokens, or all if there are fewer; O(1), read-only.

        A snapshot like :meth:`view`.

        Raises
        ------
        ValueError
            *n* is negative.

        Examples
        --------
        >>> window = TokenWindow(8)
        >>> window.extend(range(5))
        >>> window.last(2)
        array([3, 4], dtype=int32)
        """
        cdef const char *data = NULL
        cdef size_t size = 0, m
        cdef int64_t count
        cdef Generation holder
        if not cxp_small_int(<PyObject *>n, &count) or count < 0:
            count = min(_whole(n, "n", 0), sys.maxsize)
        m = <size_t>count
        with cython.critical_section(self):
            if m <= self.c.w - self.c.start:
                holder = self._hold()
                cxp_ring_show(&self.c, self.c.w)
                data = self.c.data + self.c.w * self.c.size
            else:
                holder = self._reach(&data, &size)
                data += size * self.c.size
                m = min(m, size)
        return self._array(holder, data - m * self.c.size, m)

    def windows(self, size, stride=1):
        """All stretches of *size* tokens, *stride* apart, as the rows of an array.

        O(1), nothing is copied (see :meth:`view`); tokens at the end that do not
        fill a row are not shown.

        Returns
        -------
        numpy.ndarray
            Shape ``((len(window) - size) // stride + 1, size)``, or ``(0, size)`` if
            the window is shorter than *size*; read-only.

        Raises
        ------
        ValueError
            *size* or *stride* is not positive.

        Examples
        --------
        >>> window = TokenWindow(8)
        >>> window.extend(range(5))
        >>> window.windows(3, 2)
        array([[0, 1, 2],
               [2, 3, 4]], dtype=int32)
        """
        cdef const char *data = NULL
        cdef size_t n = 0
        cdef Generation holder
        cdef cnp.npy_intp[2] shape
        cdef cnp.npy_intp[2] strides
        width, step = _whole(size, "size", 1), _whole(stride, "stride", 1)
        with cython.critical_section(self):
            holder = self._reach(&data, &n)
        rows = (n - width) // step + 1 if n >= width else 0
        shape[0], shape[1] = rows, width
        strides[0] = strides[1] = self.c.size
        if rows > 1:
            strides[0] = step * self.c.size
        return cxp_snapshot(<PyObject *>self._dtype, 2, shape, strides, data,
                            <PyObject *>holder)

    def text(self, decode, /):
        """The window as text: ``decode(tokens)`` of a list of ints.

        Parameters
        ----------
        decode : callable
            A tokenizer's, such as ``encoding.decode``.

        Raises
        ------
        TypeError
            *decode* gave something else than text.

        Examples
        --------
        >>> window = TokenWindow(8)
        >>> window.extend(b"tokens")
        >>> window.text(lambda tokens: bytes(tokens).decode())
        'tokens'
        """
        result = decode(self.view().tolist())
        if not isinstance(result, str):
            raise TypeError(f"decode must give text, not {result!r}")
        return result

    def __array__(self, dtype=None, copy=None):
        view = self.view()
        if dtype is not None and np.dtype(dtype) != view.dtype:
            if copy is False:
                raise ValueError(f"a window of {view.dtype} is not {dtype!r} uncopied")
            return view.astype(dtype)
        return view.copy() if copy else view

    # ---- a sequence of ints ----

    def __getitem__(self, key):
        cdef int64_t value
        cdef Py_ssize_t i, size
        cdef uint64_t bits = 0
        if cxp_small_int(<PyObject *>key, &value):
            i = <Py_ssize_t>value
        elif PySlice_Check(key):
            return self.view()[key]
        else:
            try:
                number = PyNumber_Index(key)
            except TypeError:
                raise TypeError(
                    "window indices must be integers or slices, "
                    f"not {type(key).__name__}"
                ) from None
            i = PyNumber_AsSsize_t(number, NULL)
        with cython.critical_section(self):
            size = <Py_ssize_t>cxp_ring_len(&self.c)
            if i < 0:
                i += size
            if 0 <= i < size:
                bits = cxp_ring_load(&self.c, cxp_ring_at(&self.c, <size_t>i))
        if not 0 <= i < size:
            raise IndexError("window index out of range")
        return self._int(bits)

    def __iter__(self):
        return iter(self.view().data)

    def __reversed__(self):
        return iter(self.view()[::-1].data)

    cdef Py_ssize_t _find(self, object token, Py_ssize_t start, Py_ssize_t stop):
        """Where an exact int is in window[start:stop], or -1; runs no Python code."""
        cdef uint64_t bits
        cdef size_t size, n, first, end, at
        cdef Py_ssize_t found = -1
        if not self._made or cxp_int_token(&self.c, <PyObject *>token, &bits):
            return -1
        with cython.critical_section(self):
            size = cxp_ring_len(&self.c)
            if start < 0:
                start = max(start + <Py_ssize_t>size, 0)
            if stop < 0:
                stop = max(stop + <Py_ssize_t>size, 0)
            first, end = <size_t>start, min(<size_t>stop, size)
            while first < end and found < 0:
                # One piece, or the sink apart and then the others.
                n = (self.c.npinned if first < self.c.npinned else size)
                n = min(n, end) - first
                at = cxp_ring_find(&self.c, cxp_ring_at(&self.c, first), n, bits)
                if at < n:
                    found = <Py_ssize_t>(first + at)
                first += n
        return found

    def __contains__(self, token):
        if PyLong_CheckExact(token):
            return self._find(token, 0, sys.maxsize) >= 0
        for mine in self.view().data:
            if mine == token:
                return True
        return False

    def count(self, token, /):
        """How many times *token* is in the window; O(n)."""
        cdef Py_ssize_t found = 0
        cdef const char *data
        cdef uint64_t bits
        cdef size_t i, size, n, at
        if not PyLong_CheckExact(token):
            for mine in self.view().data:
                if mine == token:
                    found += 1
            return found
        if not self._made or cxp_int_token(&self.c, <PyObject *>token, &bits):
            return 0
        with cython.critical_section(self):
            i, size = 0, cxp_ring_len(&self.c)
            while i < size:
                # One piece, or the sink apart and then the others.
                n = (self.c.npinned if i < self.c.npinned else size) - i
                data = cxp_ring_at(&self.c, i)
                i += n
                at = cxp_ring_find(&self.c, data, n, bits)
                while at < n:
                    found += 1
                    data += (at + 1) * self.c.size
                    n -= at + 1
                    at = cxp_ring_find(&self.c, data, n, bits)
        return found

    def index(self, token, start=0, stop=sys.maxsize, /):
        """The first index of *token* from *start* on and before *stop*; O(n).

        Raises
        ------
        ValueError
            It is not there.
        """
        begin, end = PyNumber_Index(start), PyNumber_Index(stop)
        cdef Py_ssize_t found
        if PyLong_CheckExact(token):
            found = self._find(token, PyNumber_AsSsize_t(begin, NULL),
                               PyNumber_AsSsize_t(end, NULL))
            if found >= 0:
                return found
        else:
            view = self.view()
            first, end, _ = slice(begin, end).indices(len(view))
            for i, mine in enumerate(view[first:end].data, first):
                if mine == token:
                    return i
        raise ValueError(f"{token!r} is not in the window")

    def __eq__(self, other):
        if not isinstance(other, TokenWindow):
            return NotImplemented
        return np.array_equal(self.view(), other.view())

    # ---- copies ----

    def copy(self):
        """A window of the same type with the same tokens, position and parameters."""
        new = type(self).__new__(type(self))
        *state, attributes = self._state()
        new.__setstate__((*state, attributes and attributes.copy()))
        return new

    def __copy__(self):
        """A window of the same type with the same tokens, position and parameters."""
        return self.copy()

    def __reduce__(self):
        return *constructor(type(self)), self._state()

    cdef tuple _state(self):
        cdef const char *data = NULL
        cdef size_t n = 0
        cdef uint64_t position, evicted
        cdef Generation holder
        parameters = {
            "capacity": self.c.capacity,
            "overlap": self._overlap,
            "sink": self.c.sink,
            "slack": self._slack,
            "dtype": self._dtype.name if self._dtype is not None else None,
            "overflow": self._overflow,
            "on_evict": self._on_evict,
        }
        with cython.critical_section(self):
            holder = self._reach(&data, &n)
            position = cxp_ring_position(&self.c)
            evicted = self.c.evicted
        view = self._array(holder, data, n)
        return parameters, view, position, evicted, getattr(self, "__dict__", None)

    def __setstate__(self, state):
        cdef uint64_t c_position, c_evicted
        parameters, tokens, position, evicted, attributes = state
        TokenWindow.__init__(self, **parameters)
        size = len(tokens)
        if size > self.c.capacity:
            raise ValueError(f"{size} tokens for a capacity of {self.c.capacity}")
        c_position = _whole(position, "position", size)
        c_evicted = _whole(evicted, "evicted", 0)
        self.extend(tokens)
        with cython.critical_section(self):
            self.c.origin += c_position - size
            self.c.evicted = c_evicted
        if attributes:
            self.__dict__.update(attributes)
