"""A tracer of allocations that may stay on: it looks at a sample of them."""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Callable
from contextvars import Token
from dataclasses import dataclass
from functools import wraps
from importlib import import_module
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, cast

from .. import backend, parse_size
from .._arguments import count
from ..stats import _Record
from .allocations import AllocationSnapshot, Frame, Stack, Usage

__all__ = ["AllocationTracer", "AllocationTracerStats", "trace"]

P = ParamSpec("P")
R = TypeVar("R")

_sampler: Any = import_module(f".._{backend}.allocation_sampler", __package__)
_lock = threading.Lock()  # of the process's one sampler
_running: AllocationTracer | None = None

_FEWEST, _MOST = 1 << 8, 1 << 22  # places


@dataclass(frozen=True, slots=True)
class AllocationTracerStats(_Record):
    """A moment of an :class:`AllocationTracer`.

    Attributes
    ----------
    running : bool
        Whether it samples.
    hooked : bool
        Whether all three allocators still call it: another tracer that was stopped
        since may have put back those from before.
    samples : int
        Allocations that were looked at.
    live : int
        Of these, not yet freed.
    places : int
        Of the tree of stacks.
    merged : int
        Calls that counted for their caller, as the tree was full.
    lost : int
        Samples for which there was no memory.
    """

    running: bool
    hooked: bool
    samples: int
    live: int
    places: int
    merged: int
    lost: int


class AllocationTracer:
    """Where memory is allocated, and where what is alive of it came from.

    In place of :mod:`tracemalloc`, which looks at each allocation: this one looks at
    one per *mean* bytes, so that it can stay on in production, and counts each for as
    many as it stands for. It sees what CPython's allocators give (all three domains,
    in all threads): objects, and the buffers of lists, dicts, bytes; not what C
    libraries and NumPy ask of malloc themselves.

    Parameters
    ----------
    mean : int or str
        Bytes between two samples, on the average; exponentially distributed. 8 KiB
        tells lines that hold 1 MiB to within 10 %; 512 KiB, of large programs.
    depth : int
        Frames of a stack that are kept, the innermost ones; 1 to 128.
    places : int
        The most that the tree of stacks holds, 40 bytes each. What comes when it is
        full counts for the caller.

    Raises
    ------
    NativeOnlyError
        From :meth:`start`, where this is the pure build.

    Notes
    -----
    The estimates are unbiased (Poisson sampling over bytes, as in tcmalloc's heap
    profiler). Code objects that were sampled live until :meth:`stop`.

    **Thread-safety.** Each call is atomic. There is one sampler in a process: a second
    tracer can't be started before the first is stopped. A forked child goes on with
    what the parent had. Allocations of other interpreters than the main one count as
    those without Python code.

    Examples
    --------
    >>> with AllocationTracer(mean="8KiB") as tracer:
    ...     with trace("load"):
    ...         table = [str(n) * 10 for n in range(20_000)]
    ...     found = tracer.snapshot()
    >>> found.operations()[0].operation
    'load'
    >>> 1_500_000 < found.operations()[0].live_bytes < 3_000_000
    True
    """

    def __init__(
        self, mean: int | str = "512KiB", *, depth: int = 32, places: int = 1 << 16
    ) -> None:
        self.mean = parse_size(mean)
        if self.mean < 1:
            raise ValueError(f"mean must be at least 1 byte, not {mean!r}")
        self.depth = count("depth", depth, 1, _sampler.most_depth)
        self.places = count("places", places, _FEWEST, _MOST)

    @property
    def running(self) -> bool:
        """Whether it samples now."""
        return _running is self

    def start(self) -> None:
        """Begin, with nothing: what was allocated before is not known.

        Raises
        ------
        RuntimeError
            A tracer is running, this one or another.
        """
        global _running
        with _lock:
            if _running is not None:
                which = "this" if _running is self else "another"
                raise RuntimeError(
                    f"{which} AllocationTracer is running: stop it first"
                )
            _sampler.start(float(self.mean), self.depth, self.places)
            _running = self

    def stop(self) -> None:
        """Take the hooks out, and forget everything. A second time does nothing."""
        global _running
        with _lock:
            if _running is self:
                _running = None
                _sampler.stop()

    def snapshot(self) -> AllocationSnapshot:
        """What was found so far; O(places).

        Raises
        ------
        RuntimeError
            It is not running.
        """
        with _lock:
            if _running is not self:
                raise RuntimeError("this AllocationTracer is not running: start it")
            rows = _sampler.places()
        return AllocationSnapshot(_usages(rows), float(self.mean))

    def stats(self) -> AllocationTracerStats:
        """What it did so far."""
        with _lock:
            if _running is not self:
                return AllocationTracerStats(False, False, 0, 0, 0, 0, 0)
            samples, live, lost, merged, places, hooked = _sampler.tallies()
        return AllocationTracerStats(True, hooked, samples, live, places, merged, lost)

    def __enter__(self) -> AllocationTracer:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.stop()


def _usages(rows: list[tuple[Any, ...]]) -> dict[Stack, Usage]:
    """By stack, of the rows of a tree in which each names its parent."""
    stacks: list[Stack] = []
    found: dict[Stack, Usage] = {}
    for number, (parent, file, what, line, *usage) in enumerate(rows):
        if number == 0:
            stack = Stack(None, ())
        elif file is None:
            stack = Stack(what, ())
        else:
            operation, frames = stacks[parent]
            stack = Stack(operation, (*frames, Frame(file, line, what)))
        stacks.append(stack)
        if usage[1]:
            # Two instructions of a line are two places, and one frame.
            found[stack] = found.get(stack, Usage()) + Usage(*usage)
    return found


class trace:
    """Name what is done, so that allocations can be told by it.

    A context manager, and a decorator of functions and coroutine functions. The name
    belongs to the context (:mod:`contextvars`): to this thread, or to this task and
    those that it starts. Within another operation the inner one counts.

    Parameters
    ----------
    operation : str
        Its name. Names are kept for as long as a tracer runs: few of them.

    Examples
    --------
    >>> with trace("parse"):
    ...     pass
    >>> @trace("answer")
    ... async def answer(request): ...
    """

    __slots__ = ("_tokens", "operation")

    def __init__(self, operation: str) -> None:
        if not isinstance(operation, str) or not operation:
            raise TypeError(f"operation must be a name, not {operation!r}")
        self.operation = sys.intern(str(operation))
        self._tokens: list[Token[str]] = []

    def __enter__(self) -> trace:
        self._tokens.append(_sampler.operation.set(self.operation))
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        _sampler.operation.reset(self._tokens.pop())

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        name = self.operation
        if inspect.iscoroutinefunction(function):

            @wraps(function)
            async def awaited(*args: P.args, **kwargs: P.kwargs) -> Any:
                with trace(name):
                    return await function(*args, **kwargs)

            return cast("Callable[P, R]", awaited)

        @wraps(function)
        def called(*args: P.args, **kwargs: P.kwargs) -> R:
            with trace(name):
                return function(*args, **kwargs)

        return called
