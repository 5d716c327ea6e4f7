"""Locks of the pure twins that a fork can't leave held by nobody.

A forked child has one thread. A lock that another thread of the parent held at that
moment would stay locked there for ever, and what it guards would be half done. So the
thread that forks takes every lock first, and both sides let go of them after it, as the
standard library's logging does with its own.
"""

from __future__ import annotations

import os
import threading
import weakref
from itertools import count
from typing import Any

__all__ = ["new_lock", "new_rlock"]

# By number, which is the order they are made in and taken in.
_locks: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
_numbers = count()
_held: list[Any] = []


def new_lock() -> threading.Lock:
    """A :class:`threading.Lock` that no thread holds after a fork.

    Whoever takes several of these takes them in the order they were made in.
    """
    lock = threading.Lock()
    _locks[next(_numbers)] = lock
    return lock


def new_rlock() -> threading.RLock:
    """A :class:`threading.RLock` that no other thread holds after a fork."""
    lock = threading.RLock()
    _locks[next(_numbers)] = lock
    return lock


def _living() -> list[Any]:
    """The locks there are, in order. Other threads may be making and dropping some, so
    this takes a copy in one step; to iterate over the dictionary itself would fail."""
    numbered = sorted(_locks.valuerefs(), key=lambda reference: reference.key)
    return [lock for reference in numbered if (lock := reference()) is not None]


def _before_fork() -> None:
    for lock in _living():
        # Not for ever: a key's __eq__ may be asleep in there.
        if lock.acquire(timeout=1):
            _held.append(lock)


def _after_fork() -> None:
    while _held:
        _held.pop().release()


def _after_fork_in_child() -> None:
    _held.clear()
    for lock in _living():
        lock._at_fork_reinit()  # as threading's own locks are


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork,
    after_in_child=_after_fork_in_child,
)
