"""The token window in Python over numpy: the specification of the native one.

The layout is simpler than that of ``csrc/include/ctxpool/token_ring.h``: a
generation that is used up is replaced by a fresh buffer, into which the window is
copied at once. What a caller can see is the same.
"""

import operator
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, Self, SupportsIndex, cast, overload

import numpy as np
import numpy.typing as npt

from .._pickling import constructor
from ..errors import TokenRangeError
from ..stats import TokenWindowStats
from .locks import new_rlock

__all__ = ["TokenWindow"]

_Array = npt.NDArray[np.integer[Any]]

_ROUNDS = 100  # how often on_evict may fill the window again before it is an error


def _whole(value: SupportsIndex, name: str, least: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, not {value!r}") from None
    if number < least:
        raise ValueError(f"{name} must be at least {least}, not {number}")
    return number


def _integer_dtype(dtype: npt.DTypeLike) -> np.dtype[np.integer[Any]]:
    try:
        known = np.dtype(dtype)
    except (TypeError, ValueError):
        known = None
    if known is None or known.kind not in "iu" or not known.isnative:
        raise ValueError(f"dtype must be a native integer type, not {dtype!r}")
    return np.dtype(f"{known.kind}{known.itemsize}")


def _frozen(array: _Array) -> _Array:
    """A view of *array* that nobody can make writable again."""
    return cast(_Array, np.asarray(array.data.toreadonly()))


class _Watch:
    """The lowest position at which the window ended while a callback ran."""

    __slots__ = ("low",)

    def __init__(self) -> None:
        self.low: float = float("inf")


class TokenWindow:
    """The last *capacity* tokens of a stream, always as one array.

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

    __slots__ = (
        "__weakref__",
        "_buffer",
        "_capacity",
        "_dtype",
        "_evicted",
        "_frozen",
        "_generations",
        "_greatest",
        "_least",
        "_lock",
        "_on_evict",
        "_origin",
        "_overflow",
        "_overlap",
        "_pinned",
        "_shown",
        "_sink",
        "_slack",
        "_start",
        "_viewed",
        "_w",
        "_watches",
    )

    def __init__(
        self,
        capacity: SupportsIndex,
        *,
        overlap: SupportsIndex = 0,
        sink: SupportsIndex = 0,
        slack: SupportsIndex | None = None,
        dtype: npt.DTypeLike = "int32",
        overflow: Literal["slide", "compact"] = "slide",
        on_evict: Callable[[_Array], object] | None = None,
    ) -> None:
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
        try:
            buffer = np.empty(fits - pins + extra, kind)
        except (MemoryError, ValueError, OverflowError):
            raise MemoryError(
                f"no memory for a window of {fits} tokens and {extra} of slack"
            ) from None
        if hasattr(self, "_lock"):
            raise RuntimeError("TokenWindow.__init__ was called before")
        self._lock = new_rlock()
        self._capacity, self._overlap, self._sink, self._slack = (
            fits,
            keeps,
            pins,
            extra,
        )
        self._dtype, self._overflow, self._on_evict = kind, overflow, on_evict
        limits = np.iinfo(kind)
        self._least, self._greatest = int(limits.min), int(limits.max)
        self._buffer, self._frozen = buffer, _frozen(buffer)
        self._start = self._w = 0  # the body of the window is buffer[start:w]
        self._viewed = 0  # buffer[:viewed] was shown, and is not written again
        self._origin = 0  # the absolute position of buffer[0]
        self._evicted = self._generations = 0
        self._pinned = np.empty(0, kind)
        self._shown: _Array | None = None  # view() with a sink, until a change
        self._watches: list[_Watch] = []

    # ---- what the window is ----

    @property
    def capacity(self) -> int:
        """How many tokens fit."""
        return self._capacity

    @property
    def maxlen(self) -> int:
        """The capacity, by its name in ``collections.deque``."""
        return self._capacity

    @property
    def overlap(self) -> int:
        """How many of the newest tokens a compacting overflow keeps."""
        return self._overlap

    @property
    def sink(self) -> int:
        """How many of the first tokens are pinned."""
        return self._sink

    @property
    def slack(self) -> int:
        """Room for tokens beyond the capacity in a buffer."""
        return self._slack

    @property
    def overflow(self) -> str:
        """What a full window does: ``"slide"`` or ``"compact"``."""
        return self._overflow

    @property
    def dtype(self) -> np.dtype[np.integer[Any]]:
        """The tokens' numpy dtype."""
        return self._dtype

    @property
    def on_evict(self) -> Callable[[_Array], object] | None:
        """What is called with the tokens that overflow drops."""
        return self._on_evict

    @property
    def position(self) -> int:
        """Tokens ever seen, less those taken back by :meth:`pop`.

        Without a sink ``window[i]`` has the absolute position
        ``position - len(window) + i``, for ever.
        """
        with self._lock:
            return self._origin + self._w

    @property
    def evicted(self) -> int:
        """Tokens dropped by overflow, those included that passed straight through."""
        return self._evicted

    def stats(self) -> TokenWindowStats:
        """The window's counts at this moment."""
        with self._lock:
            nbytes = self._buffer.nbytes + self._pinned.nbytes
            if self._shown is not None:
                nbytes += self._shown.nbytes
            return TokenWindowStats(
                capacity=self._capacity,
                size=len(self),
                position=self._origin + self._w,
                evicted=self._evicted,
                generations=self._generations,
                bytes=nbytes,
            )

    def __len__(self) -> int:
        with self._lock:
            return len(self._pinned) + self._w - self._start

    def __repr__(self) -> str:
        newest = self.last(8).tolist()
        shown = ", ".join(map(str, newest))
        size = len(self)
        if size > len(newest):
            shown = f"..., {shown}"
        return (
            f"<{type(self).__name__} [{shown}], {size} of {self._capacity} "
            f"{self._dtype} tokens at position {self.position}>"
        )

    def _check(self) -> int:
        """0, or the line of token_ring.h whose invariant does not hold; for tests."""
        with self._lock:
            assert 0 <= self._start <= self._w <= len(self._buffer)
            assert self._viewed <= len(self._buffer)
            assert len(self._pinned) <= self._sink
            assert len(self._pinned) == self._sink or self._start == self._w
            assert len(self) <= self._capacity
        return 0

    # ---- tokens in ----

    def append(self, token: SupportsIndex, /) -> None:
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
        self._add(np.array([self._checked(token)], self._dtype))

    def extend(self, tokens: Iterable[SupportsIndex], /) -> None:
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
        self._add(self._converted(tokens))

    def __iadd__(self, tokens: Iterable[SupportsIndex]) -> Self:
        self.extend(tokens)
        return self

    def _checked(self, token: SupportsIndex) -> int:
        try:
            value = operator.index(token)
        except TypeError:
            raise TypeError(f"a token must be an integer, not {token!r}") from None
        if not self._least <= value <= self._greatest:
            # Very long ints have no decimal text (sys.set_int_max_str_digits).
            named = value if value.bit_length() < 128 else hex(value)
            raise TokenRangeError(f"token {named} does not fit {self._dtype}")
        return value

    def _converted(self, tokens: Any) -> _Array:
        """*tokens* as an array of the window's dtype, all of them checked."""
        if isinstance(tokens, TokenWindow):
            tokens = tokens.view()
        elif not isinstance(tokens, list | tuple | np.ndarray):
            try:
                tokens = np.asarray(memoryview(tokens))
            except Exception:  # no buffer, or one that numpy has no dtype for
                if hasattr(type(tokens), "__array__"):
                    tokens = np.asarray(tokens)
        if isinstance(tokens, np.ndarray):
            if tokens.ndim == 0:
                raise TypeError("tokens must be iterable, not an array of no dimension")
            if tokens.ndim > 1:
                raise ValueError(
                    f"tokens must have one dimension, not the shape {tokens.shape}"
                )
            if tokens.dtype.kind in "iu":
                if tokens.dtype != self._dtype:
                    for value in (tokens.min(), tokens.max()) if tokens.size else ():
                        if not self._least <= int(value) <= self._greatest:
                            for token in tokens.tolist():
                                self._checked(token)
                return tokens.astype(self._dtype, copy=False)
            if tokens.dtype.kind != "O":
                raise TypeError(f"tokens must be integers, not {tokens.dtype}")
            tokens = tokens.tolist()
        # A snapshot: __index__ may change the list.
        return np.array([self._checked(token) for token in tuple(tokens)], self._dtype)

    def _overflowing(self, m: int) -> int:
        """How many unpinned tokens, oldest first, *m* more would push out."""
        over = len(self) + m - self._capacity
        if over <= 0:
            return 0
        if self._overflow == "slide":
            return over
        step = self._capacity - self._sink - self._overlap
        return -(-over // step) * step

    def _add(self, tokens: _Array) -> None:
        if self._on_evict is None:
            with self._lock:
                self._place(tokens, self._overflowing(len(tokens)))
            return
        # What was told of: the window's tokens before the absolute position `told`,
        # and `passed` tokens of the input, those that are not going to stay.
        told: float = 0
        passed = 0
        for _ in range(_ROUNDS):
            with self._lock:
                body = self._w - self._start
                pins = min(len(tokens), self._sink - len(self._pinned))
                drop = self._overflowing(len(tokens))
                gone = min(drop, body)
                through = drop - gone
                first = self._origin + self._start
                known = int(max(0, min(told - first, body)))
                old = self._frozen[self._start + known : self._start + gone]
                new = tokens[pins + passed : pins + through]
                if not len(old) and not len(new):
                    if known == body:
                        known += min(passed, len(tokens) - pins)
                    self._place(tokens, max(drop, known))
                    return
                self._viewed = max(self._viewed, self._start + gone)
                watch = _Watch()
                self._watches.append(watch)
            try:
                self._on_evict(_frozen(np.concatenate((old, new))) if len(new) else old)
            finally:
                with self._lock:
                    self._watches.remove(watch)
            told = min(max(told, first + gone), watch.low)
            passed = max(passed, through)
        raise RuntimeError(f"on_evict filled the window again, {_ROUNDS} times over")

    def _place(self, tokens: _Array, drop: int) -> None:
        """Add *tokens*, and drop *drop* unpinned ones of the window and the input."""
        body = self._w - self._start
        pins = min(len(tokens), self._sink - len(self._pinned))
        gone = min(drop, body)
        through = drop - gone
        rest = tokens[pins + through :]
        if self._w + len(rest) > len(self._buffer) or self._w < self._viewed:
            self._renew(gone)
        else:
            self._start += gone
        if pins:
            self._pinned = np.concatenate((self._pinned, tokens[:pins]))
        self._buffer[self._w : self._w + len(rest)] = rest
        self._w += len(rest)
        self._origin += pins + through
        self._evicted += drop
        self._shown = None

    def _renew(self, gone: int) -> None:
        """Go on in a fresh buffer, without the *gone* oldest tokens of the body."""
        buffer = np.empty_like(self._buffer)
        live = self._frozen[self._start + gone : self._w]
        buffer[: len(live)] = live
        self._buffer, self._frozen = buffer, _frozen(buffer)
        self._origin += self._start + gone
        self._start, self._w, self._viewed = 0, len(live), 0
        self._generations += 1

    # ---- tokens out ----

    def popleft(self) -> int:
        """Remove and return the oldest token that is not pinned; O(1).

        Raises
        ------
        IndexError
            There is none.
        """
        with self._lock:
            if self._w > self._start:
                token = int(self._buffer[self._start])
                self._start += 1
                self._shown = None
                return token
            pinned = len(self._pinned)
        raise IndexError(
            "only pinned tokens are left" if pinned else "pop from an empty window"
        )

    def pop(self) -> int:
        """Take back and return the newest token; O(1).

        The position decreases by one, so that every other token keeps its own.

        Raises
        ------
        IndexError
            The window is empty.
        """
        with self._lock:
            if self._w > self._start:
                self._w -= 1
                token = int(self._buffer[self._w])
            elif len(self._pinned):
                token = int(self._pinned[-1])
                self._pinned = self._pinned[:-1]
                self._origin -= 1
            else:
                raise IndexError("pop from an empty window")
            for watch in self._watches:
                watch.low = min(watch.low, self._origin + self._w)
            self._shown = None
            return token

    def clear(self) -> None:
        """Remove all tokens, the pinned ones too; the position stays. O(1).

        The next *sink* tokens will be pinned.
        """
        with self._lock:
            self._start = self._w
            self._pinned = self._pinned[:0]
            self._shown = None

    # ---- arrays ----

    def view(self) -> _Array:
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
        with self._lock:
            if self._sink == 0:
                self._viewed = max(self._viewed, self._w)
                return self._frozen[self._start : self._w]
            if self._shown is None:
                body = self._frozen[self._start : self._w]
                self._shown = _frozen(np.concatenate((self._pinned, body)))
            return self._shown[:]

    def last(self, n: SupportsIndex, /) -> _Array:
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
        count = _whole(n, "n", 0)
        with self._lock:
            if count <= self._w - self._start:
                self._viewed = max(self._viewed, self._w)
                return self._frozen[self._w - count : self._w]
            return self.view()[-count:]

    def windows(self, size: SupportsIndex, stride: SupportsIndex = 1) -> _Array:
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
        width, step = _whole(size, "size", 1), _whole(stride, "stride", 1)
        view = self.view()
        rows = (len(view) - width) // step + 1 if len(view) >= width else 0
        return np.lib.stride_tricks.as_strided(
            view,
            (rows, width),
            (view.itemsize * step if rows > 1 else view.itemsize, view.itemsize),
            writeable=False,
        )

    def text(self, decode: Callable[[list[int]], str], /) -> str:
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

    def __array__(
        self, dtype: npt.DTypeLike | None = None, copy: bool | None = None
    ) -> npt.NDArray[Any]:
        view = self.view()
        if dtype is not None and np.dtype(dtype) != view.dtype:
            if copy is False:
                raise ValueError(f"a window of {view.dtype} is not {dtype!r} uncopied")
            return view.astype(dtype)
        return view.copy() if copy else view

    # ---- a sequence of ints ----

    @overload
    def __getitem__(self, key: SupportsIndex) -> int: ...
    @overload
    def __getitem__(self, key: slice) -> _Array: ...
    def __getitem__(self, key: SupportsIndex | slice) -> int | _Array:
        if isinstance(key, slice):
            return self.view()[key]
        try:
            i = operator.index(key)
        except TypeError:
            raise TypeError(
                f"window indices must be integers or slices, not {type(key).__name__}"
            ) from None
        with self._lock:
            size = len(self)
            if i < 0:
                i += size
            if not 0 <= i < size:
                raise IndexError("window index out of range")
            i -= len(self._pinned)
            return int(self._pinned[i] if i < 0 else self._buffer[self._start + i])

    def __iter__(self) -> Iterator[int]:
        return iter(self.view().data)

    def __reversed__(self) -> Iterator[int]:
        return iter(self.view()[::-1].data)

    def __contains__(self, token: object) -> bool:
        return any(mine == token for mine in self)

    def count(self, token: object, /) -> int:
        """How many times *token* is in the window; O(n)."""
        return sum(1 for mine in self if mine == token)

    def index(
        self,
        token: object,
        start: SupportsIndex = 0,
        stop: SupportsIndex = sys.maxsize,
        /,
    ) -> int:
        """The first index of *token* from *start* on and before *stop*; O(n).

        Raises
        ------
        ValueError
            It is not there.
        """
        begin, end = operator.index(start), operator.index(stop)
        view = self.view()
        first, end, _ = slice(begin, end).indices(len(view))
        for i, mine in enumerate(view[first:end].data, first):
            if mine == token:
                return i
        raise ValueError(f"{token!r} is not in the window")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TokenWindow):
            return NotImplemented
        return np.array_equal(self.view(), other.view())

    __hash__ = None  # type: ignore[assignment]

    # ---- copies ----

    def copy(self) -> Self:
        """A window of the same type with the same tokens, position and parameters."""
        new = type(self).__new__(type(self))
        *state, attributes = self._state()
        new.__setstate__((*state, attributes and attributes.copy()))
        return new

    __copy__ = copy

    def __reduce__(self) -> tuple[Any, ...]:
        return *constructor(type(self)), self._state()

    def _state(self) -> tuple[Any, ...]:
        parameters = {
            "capacity": self._capacity,
            "overlap": self._overlap,
            "sink": self._sink,
            "slack": self._slack,
            "dtype": self._dtype.name,
            "overflow": self._overflow,
            "on_evict": self._on_evict,
        }
        with self._lock:
            moment = self.view(), self._origin + self._w, self._evicted
        return (parameters, *moment, getattr(self, "__dict__", None))

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        parameters, tokens, position, evicted, attributes = state
        TokenWindow.__init__(self, **parameters)
        tokens = self._converted(tokens)
        if len(tokens) > self._capacity:
            raise ValueError(f"{len(tokens)} tokens for a capacity of {self._capacity}")
        with self._lock:
            self._place(tokens, 0)
            self._origin += _whole(position, "position", len(tokens)) - len(tokens)
            self._evicted = _whole(evicted, "evicted", 0)
        if attributes:
            self.__dict__.update(attributes)
