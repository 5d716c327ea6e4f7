"""Who waits in a pool's queue for a block: a thread, or a task of asyncio.

(Or for an object: an object pool hands over leases.) A block is handed over (``hand``),
not raced for: first come, first served. Nothing here takes a lock that its caller could
hold already, so that a finalizer may hand a block over from anywhere.

A pool has for it ``_enqueue`` (wait in turn, or take what came back just now),
``_withdraw`` (leave the queue), ``_take_back`` (a block that was handed over) and
``_give_up`` (say that it was in vain).
"""

from __future__ import annotations

import asyncio
import math
import os
import sys
import threading
import time
from typing import Any

__all__ = ["TaskWaiter", "Waiter", "wait", "wait_in_task"]

# Without a GIL an object dies in the thread that made it: what another thread drops
# last waits until that one runs. It may be the very one that waits here, so it runs at
# times.
_TICK = 0.01 if "t" in getattr(sys, "abiflags", "") else 0.0

_forks = 0  # how often this process came out of a fork


def _after_fork() -> None:
    global _forks
    _forks += 1


os.register_at_fork(after_in_child=_after_fork)


class Waiter:
    """One waiting thread."""

    __slots__ = ("_forks", "_wake", "index")

    def __init__(self) -> None:
        self.index: Any = None
        self._forks = _forks
        self._wake = threading.Lock()
        self._wake.acquire()

    @property
    def gone(self) -> bool:
        """Whether its thread is one of the parent's, that no child of a fork has."""
        return self._forks != _forks

    def wait(self, seconds: float) -> None:
        """Return when woken, or after *seconds*."""
        if not _TICK:
            endless = seconds > threading.TIMEOUT_MAX
            self._wake.acquire(timeout=-1 if endless else seconds)
            return
        until = time.monotonic() + seconds
        while not self._wake.acquire(timeout=min(_TICK, seconds)):
            seconds = until - time.monotonic()
            if seconds <= 0:
                return

    def hand(self, index: Any) -> bool:
        """Wake it, with a block or without; False where that can't be."""
        self.index = index
        self._wake.release()
        return True


class TaskWaiter:
    """One waiting task, to be woken from any thread."""

    __slots__ = ("_forks", "_loop", "_ticking", "future", "index")

    def __init__(self) -> None:
        self.index: Any = None
        self._forks = _forks
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[None] = self._loop.create_future()

    @property
    def gone(self) -> bool:
        """Whether nobody will run its task any more."""
        return self._forks != _forks or self._loop.is_closed()

    async def wait(self) -> None:
        """Return when woken."""
        if not _TICK:
            await self.future
            return
        self._tick()
        try:
            await self.future
        finally:
            self._ticking.cancel()

    def _tick(self) -> None:
        self._ticking = self._loop.call_later(_TICK, self._tick)

    def hand(self, index: Any) -> bool:
        """As :meth:`Waiter.hand`."""
        self.index = index
        try:
            self._loop.call_soon_threadsafe(self._wake)
        except RuntimeError:  # the loop was closed just now
            self.index = None
            return False
        return True

    def _wake(self) -> None:
        if not self.future.done():
            self.future.set_result(None)


def wait(pool: Any, patience: float) -> Any:
    """Block this thread until *pool* hands it a block, for *patience* seconds."""
    waiter = Waiter()
    pool._enqueue(waiter)
    if waiter.index is None:
        try:
            waiter.wait(patience)
        except BaseException:  # KeyboardInterrupt
            _abandon(pool, waiter)
            raise
        pool._withdraw(waiter)
    if waiter.index is None:
        pool._give_up(patience)
    return waiter.index


async def wait_in_task(pool: Any, patience: float) -> Any:
    """Suspend this task until *pool* hands it a block, for *patience* seconds."""
    waiter = TaskWaiter()
    pool._enqueue(waiter)
    if waiter.index is None:
        try:
            async with asyncio.timeout(None if patience == math.inf else patience):
                await waiter.wait()
        except TimeoutError:
            pool._withdraw(waiter)  # and perhaps it has a block by now
        except BaseException:  # cancelled
            _abandon(pool, waiter)
            raise
    if waiter.index is None:
        pool._give_up(patience)
    return waiter.index


def _abandon(pool: Any, waiter: Waiter | TaskWaiter) -> None:
    """Leave the queue, and give back what came meanwhile."""
    pool._withdraw(waiter)
    if waiter.index is not None:
        pool._take_back(waiter.index)
