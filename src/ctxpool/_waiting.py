"""A thread that waits in a pool's queue, and what it is handed."""

from __future__ import annotations

import os
import threading

__all__ = ["Waiter"]

_forks = 0  # how often this process came out of a fork


def _after_fork() -> None:
    global _forks
    _forks += 1


os.register_at_fork(after_in_child=_after_fork)


class Waiter:
    """One waiting thread.

    A block is handed to it (:meth:`hand`), not raced for: first come, first served.
    Nothing here takes a lock that its caller could hold already, so that a finalizer
    may hand a block over from anywhere.
    """

    __slots__ = ("_forks", "_wake", "index")

    def __init__(self) -> None:
        self.index: int | None = None
        self._forks = _forks
        self._wake = threading.Lock()
        self._wake.acquire()

    @property
    def stayed_behind(self) -> bool:
        """Whether its thread is one of the parent's, that no child of a fork has."""
        return self._forks != _forks

    def wait(self, seconds: float) -> None:
        """Return when woken, or after *seconds*."""
        self._wake.acquire(timeout=-1 if seconds > threading.TIMEOUT_MAX else seconds)

    def hand(self, index: int | None) -> None:
        """Wake it, with a block or without."""
        self.index = index
        self._wake.release()
