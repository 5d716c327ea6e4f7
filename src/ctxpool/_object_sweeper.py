"""One thread for all object pools that looks after them from time to time.

It is a daemon, starts when the first pool has something to look after, knows pools by
weak references only and ends when there is none left.
"""

from __future__ import annotations

import heapq
import itertools
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from . import _unraisable

__all__ = ["watch"]

_Entry = tuple[float, int, "weakref.ref[Any]", float, Callable[[Any], object]]

_numbers = itertools.count()


class _Rounds:
    """What is due when."""

    def __init__(self) -> None:
        self.changed = threading.Condition()  # reentrant: see finalizers
        self.due: list[_Entry] = []
        self.thread: threading.Thread | None = None

    def add(self, pool: Any, interval: float, sweep: Callable[[Any], object]) -> None:
        with self.changed:
            due = time.monotonic() + interval
            entry = (due, next(_numbers), weakref.ref(pool), interval, sweep)
            heapq.heappush(self.due, entry)
            if self.thread is None:
                thread = threading.Thread(
                    target=self.run, name="ctxpool sweeper", daemon=True
                )
                self.thread = thread
                try:
                    thread.start()
                except RuntimeError:  # no threads here: who needs it calls evict()
                    self.thread = None
                    self.due.clear()
            else:
                self.changed.notify()

    def next(self) -> _Entry | None:
        """What is due now, waited for; None when there is nothing left to wait for."""
        with self.changed:
            while self.due:
                seconds = self.due[0][0] - time.monotonic()
                if seconds <= 0:
                    return heapq.heappop(self.due)
                self.changed.wait(min(seconds, threading.TIMEOUT_MAX))
            self.thread = None
            return None

    def run(self) -> None:
        while (entry := self.next()) is not None:
            _, _, reference, interval, sweep = entry
            pool = reference()
            if pool is None:
                continue
            try:
                sweep(pool)
            except BaseException as error:
                _unraisable.report(error)
            if not pool.closed:
                self.add(pool, interval, sweep)
            # Neither this frame nor its loop may keep a pool alive.
            del pool


_rounds = _Rounds()


def watch(pool: Any, interval: float, sweep: Callable[[Any], object]) -> None:
    """Call ``sweep(pool)`` every *interval* seconds while the pool lives, unclosed."""
    _rounds.add(pool, interval, sweep)


def _after_fork() -> None:
    global _rounds
    _rounds = _Rounds()  # the parent's thread is not here


os.register_at_fork(after_in_child=_after_fork)
