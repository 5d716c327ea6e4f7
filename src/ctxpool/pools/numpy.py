"""NumPy's arrays out of a pool, by NumPy's own hook (NEP 49)."""

from __future__ import annotations

from contextvars import ContextVar
from importlib import import_module
from types import TracebackType
from typing import Any, Literal, NoReturn, SupportsIndex

import numpy as np
import numpy.typing as npt

from .._arguments import choice, count
from .._backend import backend
from ..sizes import parse_size
from ..stats import NumpyPoolStats

__all__ = ["NumpyPool", "numpy_pool"]

_memory: Any = import_module(f"ctxpool._{backend}.numpy_memory")

# What a pool was installed over, for each that is, the newest last. A new thread has
# an empty one and a task a copy of its maker's, as it is with NumPy's handler itself.
_installed: ContextVar[tuple[tuple[NumpyPool, Any], ...]] = ContextVar("_installed")

_MIN_SIZE = 1 << 10
_HUGE_PAGES = ("auto", "always", "never")


class NumpyPool:
    """Memory for NumPy's arrays that stays mapped when an array dies, for the next.

    Inside ``with pool`` (or after :meth:`install`) every array that NumPy makes in this
    context takes its memory from the pool: results, temporaries, copies, the buffers of
    sorts. Fresh memory costs a page fault for each page that is touched, and the
    system's allocator asks for it anew and anew; the pool's was touched before.

    An array may outlive the ``with`` block, the pool object and the thread that made
    it: it keeps its memory's home alive, and gives the memory back when it dies.

    Parameters
    ----------
    size : int or str, optional
        Bytes of free memory to keep, such as ``"1GiB"``. This bounds the cache, not the
        arrays: beyond it memory comes from the system and goes back there, the longest
        unused first.
    limit : int or str, optional
        Bytes of pool memory that all arrays together may take; one too many raises
        NumPy's MemoryError. Without a limit an array fails where NumPy's own would.
    min_size : int or str, optional
        Arrays of fewer bytes (1 KiB) are left to NumPy, which has a cache of its own
        for them; neither *limit* nor :meth:`stats` knows of them.
    huge_pages : str, optional
        Where the system lets a program choose, arrays get huge pages from 2 MiB on
        (``"auto"``), of any size (``"always"``: for many small arrays) or
        ``"never"``.
    prefault : bool, optional
        Make new memory resident at once, in one call, and not page by page as it is
        touched. :meth:`warm` does so ahead of time.
    name : str, optional
        For the reader of :meth:`stats` and of NumPy's ``get_handler_name``.

    Raises
    ------
    NativeOnlyError
        This is a pure-Python installation.
    TypeError, ValueError
        An argument is of the wrong type, or out of its range.

    Notes
    -----
    *Cost.* O(1) and some tens of nanoseconds an array, system calls aside. A block is
    at most a quarter larger than what was asked for; it is aligned to 64 bytes, above
    512 KiB to 2 MiB.

    *Where it pays.* Arrays of some MiB that come and go: temporaries of expressions,
    frames, batches. It gains nothing where arrays live long, or are so small or so
    costly to compute that their memory does not count; and ``np.zeros`` of which only a
    little is ever used costs more: a used block has to be cleared as a whole, where
    the system's memory is zeros when it is touched.

    *Contexts.* The hook is NumPy's, and it is a context variable. A new thread starts
    without it: :meth:`install` it there, or give ``initializer=pool.install`` to an
    executor (from CPython 3.14 on free-threaded builds, and where so configured, a
    thread inherits its maker's context). An asyncio task has what was installed where
    it was made. A generator that yields inside ``with`` leaves the pool installed in
    its caller until it goes on, as with every context variable.

    *Threads.* All of it is thread-safe, without the GIL too; one pool may be installed
    in several threads at once, and an array may die in any thread.

    *Fork.* The child has a copy of the arrays and of the pool, as of all memory.

    *Subinterpreters.* As NumPy: it refuses to be imported in a second interpreter, or
    warns.

    Memory is found by address in a two-level page map, as in tcmalloc; it has no header
    in front of the data, which would cost each power of two a page.

    Examples
    --------
    >>> import ctxpool, numpy as np
    >>> pool = ctxpool.NumpyPool("64MiB")  # doctest: +SKIP
    >>> with pool:  # doctest: +SKIP
    ...     a = np.ones(1_000_000)
    ...     b = a * 2 + 1
    >>> pool.owns(b), pool.owns(np.ones(1_000_000))  # doctest: +SKIP
    (True, False)
    """

    __slots__ = ("__weakref__", "_heap", "_limit", "_min_size", "_name", "_size")

    def __init__(
        self,
        size: SupportsIndex | str = "1GiB",
        *,
        limit: SupportsIndex | str | None = None,
        min_size: SupportsIndex | str = _MIN_SIZE,
        huge_pages: Literal["auto", "always", "never"] = "auto",
        prefault: bool = False,
        name: str | None = None,
    ) -> None:
        self._size = _bytes(size, "size")
        self._limit = None if limit is None else _bytes(limit, "limit")
        self._min_size = _bytes(min_size, "min_size")
        choice("huge_pages", huge_pages, _HUGE_PAGES)
        if name is not None and not isinstance(name, str):
            raise TypeError(f"name must be text or None, not {name!r}")
        self._name = name
        shown = "ctxpool" if name is None else f"ctxpool {name}"
        self._heap = _memory.ArrayHeap(
            self._size,
            self._limit,
            self._min_size,
            huge_pages,
            bool(prefault),
            shown.encode("ascii", "replace").replace(b"\0", b"?"),
        )

    def install(self) -> NumpyPool:
        """Give this context's arrays memory of the pool, until :meth:`uninstall`.

        For threads and for programs that have no ``with`` block; may be nested.

        Returns
        -------
        NumpyPool
            The pool itself.

        Examples
        --------
        >>> from concurrent.futures import ThreadPoolExecutor
        >>> ThreadPoolExecutor(4, initializer=pool.install)  # doctest: +SKIP
        """
        # A context that holds anything makes each ufunc look for NumPy's error state in
        # it; a miss is 10 ns and is not remembered, a hit is. So let it hold that too.
        np.seterr(**np.geterr())
        # Noted before it is done: a KeyboardInterrupt between leaves nothing installed.
        stack, before = _installed.get(()), _memory.current_handler()
        _installed.set((*stack, (self, before)))
        _memory.set_handler(self._heap.capsule)
        return self

    def uninstall(self) -> None:
        """Undo the newest :meth:`install` of the pool in this context.

        What was installed before serves again. Pools may be uninstalled in any order,
        and a handler that somebody else has set meanwhile is left in its place.

        Raises
        ------
        RuntimeError
            The pool is not installed in this context (but perhaps in another thread's
            or task's, where it stays).
        """
        stack = list(_installed.get(()))
        for i in reversed(range(len(stack))):
            if stack[i][0] is self:
                break
        else:
            raise RuntimeError(f"{self!r} is not installed in this context")
        before = stack.pop(i)[1]
        if i < len(stack):  # a newer one was installed over this one
            stack[i] = (stack[i][0], before)
        elif _memory.current_handler() is self._heap.capsule:
            _memory.set_handler(before)
        _installed.set(tuple(stack))

    def __enter__(self) -> NumpyPool:
        return self.install()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.uninstall()

    def owns(self, array: npt.NDArray[Any]) -> bool:
        """Whether an array, or the array that it is a view of, is in pool memory.

        O(1) for each view of a view.
        """
        if not isinstance(array, np.ndarray):
            raise TypeError(f"an ndarray is needed, not {array!r}")
        while isinstance(array.base, np.ndarray):
            array = array.base
        return bool(self._heap.owns(array))

    def warm(self, nbytes: SupportsIndex | str, n: SupportsIndex = 1) -> None:
        """Have free, resident memory for *n* arrays of *nbytes* each.

        The next *n* of that size that live at once cost no page fault. O(pages); other
        threads go on meanwhile.

        Raises
        ------
        ValueError
            The arrays are smaller than *min_size*, or all of them together larger than
            *size* and so not kept.
        MemoryError
            The system, or the *limit*, does not give as much.
        """
        nbytes = _bytes(nbytes, "nbytes")
        n = count("n", n, 1, (1 << 31) - 1)
        if nbytes < self._min_size:
            raise ValueError(
                f"arrays of {nbytes} bytes are NumPy's own: "
                f"min_size is {self._min_size}"
            )
        if n * self._heap.block(nbytes) > self._size:
            raise ValueError(
                f"{n} arrays of {nbytes} bytes are more than the pool keeps, "
                f"which is {self._size}"
            )
        warm = self._heap.warm(nbytes, n)
        if warm < n:
            raise MemoryError(f"only {warm} of {n} arrays of {nbytes} bytes are warm")

    def trim(self) -> int:
        """Give all free memory back to the system; live arrays are left alone.

        Returns
        -------
        int
            Bytes that were resident there.
        """
        return int(self._heap.trim())

    def stats(self) -> NumpyPoolStats:
        """What the pool counts, at this moment. O(1)."""
        counts = self._heap.counts()
        return NumpyPoolStats(
            name=self._name, size=self._size, limit=self._limit, **counts
        )

    def check(self) -> None:
        """Walk the pool's invariants; AssertionError where one is broken. For tests."""
        line = self._heap.check()
        if line:
            raise AssertionError(f"the pool is damaged: array_heap.c, line {line}")

    @property
    def name(self) -> str | None:
        """The pool's name."""
        return self._name

    @property
    def size(self) -> int:
        """Bytes of free memory that the pool keeps at most."""
        return self._size

    @property
    def limit(self) -> int | None:
        """Bytes that all arrays together may take, or None."""
        return self._limit

    def __repr__(self) -> str:
        name = "" if self._name is None else f"name={self._name!r}, "
        now = self._heap.counts()
        return (
            f"<NumpyPool {name}size={self._size}, arrays={now['live_blocks']}, "
            f"live={now['live_bytes']}, idle={now['idle_bytes']}>"
        )

    def __reduce__(self) -> NoReturn:
        raise TypeError("cannot pickle a NumpyPool: its memory belongs to this process")


def numpy_pool(
    size: SupportsIndex | str | NumpyPool = "1GiB", **options: Any
) -> NumpyPool:
    """A pool for NumPy's arrays, to be used in a ``with`` block.

    ::

        with ctxpool.numpy_pool("1GiB") as pool:
            ...  # arrays made here take their memory from the pool

    Parameters
    ----------
    size : int, str or NumpyPool, optional
        Bytes of free memory to keep; or a pool that exists, to go on with what it has.
    **options
        Those of :class:`NumpyPool`: ``limit``, ``min_size``, ``huge_pages``,
        ``prefault``, ``name``. A pool that exists has its own.

    Returns
    -------
    NumpyPool

    Raises
    ------
    NativeOnlyError
        This is a pure-Python installation.
    TypeError, ValueError
        An argument is of the wrong type, or out of its range. A
        :class:`~ctxpool.BlockPool` is refused: it has blocks of one size, and may run
        Python when one comes back, which an allocator must not; ``BlockPool.empty``
        makes arrays of its blocks.
    """
    if isinstance(size, NumpyPool):
        if options:
            raise TypeError(f"a pool that exists takes no options: {sorted(options)}")
        return size
    if hasattr(size, "acquire"):
        raise TypeError(
            f"numpy_pool needs a size or a NumpyPool, not {size!r}: an allocator gives "
            "memory of any size and runs no Python. pool.empty(shape, dtype) makes an "
            "array of a block"
        )
    return NumpyPool(size, **options)


def _bytes(size: SupportsIndex | str, name: str) -> int:
    nbytes = parse_size(size, name)
    if nbytes >= 1 << 62:
        raise ValueError(f"{name} must be less than 2**62 bytes, not {nbytes}")
    return nbytes
