"""Those who wait for memory of a pool with several size classes.

A block of a waiter's own class is handed to it by that class, in turn. A slab of
another class is nobody's own: when one becomes wholly free, all who wait are woken, and
each sees to the whole line, first come, first served. So the wake-up of one that gives
up at this moment is not lost, and a finalizer that wakes them takes no lock.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from .._waiting import TaskWaiter, Waiter

__all__ = ["Line", "TaskInLine", "ThreadInLine"]


class ThreadInLine(Waiter):
    """A waiting thread that can also be woken without a block."""

    __slots__ = ()

    def poke(self) -> None:
        """Wake it, to look for itself."""
        with suppress(RuntimeError):  # it is awake already
            self._wake.release()

    def hand(self, index: int | None) -> bool:
        """Wake it, with a block or without."""
        self.index = index
        self.poke()
        return True


class TaskInLine(TaskWaiter):
    """A waiting task that can also be woken without a block."""

    __slots__ = ()

    def poke(self) -> None:
        """Wake it, to look for itself."""
        with suppress(RuntimeError):  # the loop was closed just now
            self._loop.call_soon_threadsafe(self._wake)

    def renew(self) -> None:
        """Be ready to be woken again."""
        self.future = self._loop.create_future()


class Line:
    """Who waits, in the order they came, each with the class it waits for."""

    __slots__ = ("waiting",)

    def __init__(self) -> None:
        self.waiting: list[tuple[ThreadInLine | TaskInLine, Any]] = []

    def poke(self) -> None:
        """A slab became wholly free: wake them all. From anywhere."""
        if self.waiting:
            for waiter, _ in self.waiting.copy():
                waiter.poke()

    def serve(self, extend: Callable[[Any], bool], own: Any) -> None:
        """Let *extend* make memory for each class that is waited for, in turn.

        What it raises for another's class is left to that other to find out.
        """
        for entry in self.waiting.copy():
            waiter, wanted = entry
            if waiter.gone:
                self._remove(entry)
            elif waiter.index is None:
                try:
                    extend(wanted)
                except Exception:
                    if wanted is own:
                        raise

    def wait(self, wanted: Any, extend: Callable[[Any], bool], patience: float) -> int:
        """Block this thread until it has a block of *wanted*, a size class."""
        waiter, deadline = ThreadInLine(), time.monotonic() + patience
        entry = (waiter, wanted)
        try:
            self._join(entry, extend)
            while waiter.index is None:
                rest = deadline - time.monotonic()
                if rest <= 0:
                    break
                waiter.wait(rest)
                self._look(entry, extend)
        except BaseException:
            self._abandon(entry)
            raise
        return self._leave(entry, patience)

    async def wait_in_task(
        self, wanted: Any, extend: Callable[[Any], bool], patience: float
    ) -> int:
        """As :meth:`wait`, but what waits is a task of asyncio."""
        waiter = TaskInLine()
        entry = (waiter, wanted)
        try:
            self._join(entry, extend)
            async with asyncio.timeout(None if patience == math.inf else patience):
                while waiter.index is None:
                    await waiter.wait()
                    waiter.renew()
                    self._look(entry, extend)
        except TimeoutError:
            pass  # and perhaps it has a block by now
        except BaseException:  # cancelled
            self._abandon(entry)
            raise
        return self._leave(entry, patience)

    def _join(self, entry: Any, extend: Callable[[Any], bool]) -> None:
        waiter, wanted = entry
        # First in the line, to be woken from now on; then a look at what there is.
        self.waiting.append(entry)
        wanted.pool._enqueue(waiter)
        self._look(entry, extend)

    def _look(self, entry: Any, extend: Callable[[Any], bool]) -> None:
        waiter, wanted = entry
        if waiter.index is None:
            wanted.check_open()
            self.serve(extend, wanted)

    def _leave(self, entry: Any, patience: float) -> int:
        waiter, wanted = entry
        wanted.pool._withdraw(waiter)
        self._remove(entry)
        if waiter.index is None:
            wanted.pool._give_up(patience)
        return waiter.index  # type: ignore[no-any-return]

    def _abandon(self, entry: Any) -> None:
        waiter, wanted = entry
        wanted.pool._withdraw(waiter)
        self._remove(entry)
        if waiter.index is not None:
            wanted.pool._take_back(waiter.index)

    def _remove(self, entry: Any) -> None:
        with suppress(ValueError):  # another found it gone
            self.waiting.remove(entry)
