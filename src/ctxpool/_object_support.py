"""What an object pool does beside its hot path: make, validate, reset, dispose, wait.

Written once for both twins, and once for functions and coroutine functions: everything
that may call one of the user's callbacks is a coroutine, and where none of them is a
coroutine function it is simply run to its end (``_drive``).

A pool is a machine of slots. A slot is *reserved* (its object is being made or
disposed of), *held* (its object is out) or idle, and a lease is the right to one:
whoever drops a lease, by whatever accident, gives the slot back. Nothing here locks;
each of the pool's own steps is atomic:

========================= ======================================================
``_claim()``              a lease of an idle object, or of room for one, or None
``_reserve(size)``        a lease of room for one, up to so many, or None
``_renew(lease)``         the same, as a lease that this thread made: see there
``_fill(lease, object)``  reserved -> held; False where the pool was closed
``_empty(lease)``         held -> reserved; the object
``_stock(lease, object)`` reserved -> idle; False where the pool was closed
``_push(lease)``          held -> idle; False where the pool was closed
``_free(lease)``          reserved -> nothing
``_pop_expired(now)``     idle -> reserved, for one that is due: (lease, object)
``_overdue(now)``         those that are out for too long, each told once
========================= ======================================================
"""

from __future__ import annotations

import asyncio
import ctypes
import math
import os
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Coroutine
from typing import Any, NoReturn

from . import _object_sweeper, _unraisable
from ._arguments import seconds
from ._object_settings import Settings
from ._waiting import wait, wait_in_task
from .errors import PoolClosedError, PoolTimeoutError
from .stats import ObjectPoolStats, PooledObject

__all__ = [
    "COUNTS",
    "Settings",
    "acquire",
    "acquire_in_task",
    "awaited",
    "close",
    "close_in_task",
    "closed_error",
    "coroutine_error",
    "described",
    "discard",
    "entered",
    "evict",
    "finalize",
    "give_back",
    "give_up",
    "is_bound_here",
    "keep",
    "open_in_task",
    "open_pool",
    "replaced",
    "reset_failed",
    "restore",
    "statistics",
    "sweep",
]

# What a pool counts besides what its hot path counts, by position.
COUNTS = (
    "created",
    "disposed",
    "failed",
    "invalid",
    "expired",
    "evicted",
    "leaked",
    "waits",
    "timeouts",
)
CREATED, DISPOSED, FAILED, INVALID, EXPIRED, EVICTED, LEAKED, WAITS, TIMEOUTS = range(9)


def closed_error(settings: Settings) -> PoolClosedError:
    return PoolClosedError(f"{settings.label} is closed")


# --- calling back ------------------------------------------------------------------


def _drive(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run to its end what waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    coroutine.close()
    raise RuntimeError("a callback that is no coroutine function waited for something")


async def _call(settings: Settings, function: Any, *args: Any) -> Any:
    result = function(*args)
    if not isinstance(result, Coroutine):
        return result
    if not settings.is_async:
        raise coroutine_error(settings, result)
    return await result


def coroutine_error(settings: Settings, coroutine: Any) -> TypeError:
    coroutine.close()
    return TypeError(
        f"{coroutine!r} was given to {settings.label}, which can't await it: "
        "make it of a coroutine function"
    )


async def _dispose(pool: Any, obj: Any) -> None:
    settings = pool._settings
    pool._tally(DISPOSED)
    if settings.dispose is not None:
        try:
            await _call(settings, settings.dispose, obj)
        except Exception as error:
            _unraisable.report(error)


async def _discard(pool: Any, lease: Any) -> None:
    """Dispose of a held object; its slot is free after that, and not before."""
    try:
        await _dispose(pool, pool._empty(lease))
    finally:
        pool._free(lease)


async def _dispose_reserved(pool: Any, lease: Any, obj: Any) -> None:
    try:
        await _dispose(pool, obj)
    finally:
        pool._free(lease)


def _run(pool: Any, function: Any, lease: Any, *args: Any) -> Any:
    """Call the coroutine function now, or in a task of the pool's event loop; the
    task, where that is the running one."""
    settings = pool._settings
    if not settings.is_async:
        return _drive(function(pool, lease, *args))
    loop = settings.loop

    def start() -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = loop.create_task(function(pool, lease, *args))
        settings.tasks.add(task)
        task.add_done_callback(settings.tasks.discard)
        return task

    if loop is asyncio._get_running_loop():
        return start()
    try:
        loop.call_soon_threadsafe(start)
    except RuntimeError:  # it is closed: nobody can speak with the object any more
        if lease._held:
            pool._empty(lease)
        pool._tally(DISPOSED)
        pool._free(lease)
    return None


def discard(pool: Any, lease: Any) -> Any:
    """Dispose of what *lease* holds."""
    return _run(pool, _discard, lease)


# --- acquire -----------------------------------------------------------------------


async def _usable(pool: Any, lease: Any) -> bool:
    """Whether a held object that was idle may be handed out."""
    settings = pool._settings
    if settings.max_age != math.inf and pool._age(lease) >= settings.max_age:
        pool._tally(EXPIRED)
        return False
    if settings.validate is None:
        return True
    try:
        good = bool(await _call(settings, settings.validate, lease.object))
    except Exception:  # the usual answer of a connection that is gone
        good = False
    except BaseException:
        discard(pool, lease)
        raise
    if not good:
        pool._tally(INVALID)
    return good


async def _ready(pool: Any, lease: Any) -> Any:
    """*lease* with an object that is fit for use; on an error its slot is free."""
    if not lease._held or not await _usable(pool, lease):
        await _replace(pool, lease)
    if pool._settings.leak_after != math.inf:
        pool._mark(lease, _place())
    return lease


async def _replace(pool: Any, lease: Any) -> None:
    """A new object, in the slot of one that is not fit: who had his turn keeps it."""
    if lease._held:
        try:
            await _dispose(pool, pool._empty(lease))
        except BaseException:
            pool._free(lease)
            raise
    obj = await _make(pool, lease)
    if not pool._fill(lease, obj):
        await _dispose_reserved(pool, lease, obj)
        raise closed_error(pool._settings)


def replaced(pool: Any, lease: Any) -> Any:
    """*lease*, whose object failed validation, with a new one."""
    pool._tally(INVALID)
    _drive(_replace(pool, lease))
    return lease


def reset_failed(pool: Any, lease: Any, error: BaseException) -> None:
    """Dispose of an object that can't be used again."""
    discard(pool, lease)
    if not isinstance(error, Exception):
        raise error
    _unraisable.report(error)


async def _make(pool: Any, lease: Any) -> Any:
    """A new object for a reserved slot; on an error the slot is free."""
    settings = pool._settings
    try:
        obj = await _call(settings, settings.factory)
    except BaseException:
        pool._tally(FAILED)
        pool._free(lease)
        raise
    pool._tally(CREATED)
    if not settings.watched and settings.interval != math.inf:
        settings.watched = True
        _object_sweeper.watch(pool, settings.interval, sweep)
    return obj


def _handed_out(pool: Any, lease: Any) -> Any:
    if pool._settings.leak_after != math.inf:
        pool._mark(lease, _place())
    return lease


def _place() -> str:
    """Where the user's code is."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(
        "ctxpool."
    ):
        frame = frame.f_back
    code = frame.f_code
    return f"{code.co_filename}:{frame.f_lineno} in {code.co_name}"


def _patience(settings: Settings, timeout: Any) -> float:
    return settings.timeout if timeout is None else seconds("timeout", timeout)


def acquire(pool: Any, timeout: Any, blocking: bool) -> Any:
    """A lease that holds an object; this thread waits for it.

    Or None, unless *blocking*, where an event loop would stand still meanwhile: then
    it has to be awaited.
    """
    settings = pool._settings
    patience = _patience(settings, timeout)
    in_task = not blocking and asyncio._get_running_loop() is not None
    if settings.is_async:
        if in_task:
            return None
        listed = " and ".join(settings.coroutines)
        raise TypeError(
            f"{settings.label} has a coroutine function as {listed}: "
            "use `async with` or `await`"
        )
    lease = pool._claim()
    if lease is None:
        if not patience:
            give_up(pool, patience)
        if in_task:
            return None
        lease = pool._renew(wait(pool, patience))
    return _drive(_ready(pool, lease))


async def acquire_in_task(pool: Any, timeout: Any) -> Any:
    """As :func:`acquire`, but a task waits."""
    settings = pool._settings
    patience = _patience(settings, timeout)
    if settings.is_async:
        _bind(pool)
    lease = pool._claim()
    if lease is None:
        if not patience:
            give_up(pool, patience)
        lease = pool._renew(await wait_in_task(pool, patience))
    return await _ready(pool, lease)


async def awaited(lease: Any) -> Any:
    """A lease that was still to be awaited, with an object."""
    lease._adopt(await acquire_in_task(lease.pool, lease._timeout))
    return lease


async def entered(lease: Any) -> Any:
    """The object of such a lease."""
    return (await awaited(lease)).object


def give_up(pool: Any, patience: float) -> NoReturn:
    """What was waited for did not come."""
    settings = pool._settings
    if pool.closed:
        raise closed_error(settings)
    pool._tally(TIMEOUTS)
    raise PoolTimeoutError(
        f"no object of {settings.label} became free within {patience:g} s; "
        f"max_size={settings.max_size} are out"
    )


_binding = threading.Lock()


def is_bound_here(settings: Settings) -> bool:
    """Whether the pool's event loop is the one that runs here."""
    return settings.loop is asyncio._get_running_loop()


def _bind(pool: Any) -> None:
    """Let the running loop have the pool, for good or until it is closed."""
    settings = pool._settings
    loop = asyncio.get_running_loop()
    if settings.loop is loop:
        return
    with _binding:
        if settings.loop is not None and not settings.loop.is_closed():
            raise RuntimeError(
                f"{settings.label} has coroutine functions and belongs to another "
                "event loop"
            )
        settings.loop = loop
    # What the closed loop left can't be used in this one, nor properly disposed of.
    while (found := pool._pop_expired(math.inf)) is not None:
        pool._tally(DISPOSED)
        pool._free(found[0])
    pool._bound(loop)


# --- give back ---------------------------------------------------------------------


async def restore(pool: Any, lease: Any) -> None:
    """Reset a held object, and let it be idle or go on to the next who waits."""
    settings = pool._settings
    if settings.reset is not None and not pool.closed:
        try:
            await _call(settings, settings.reset, lease.object)
        except BaseException as error:
            reset_failed(pool, lease, error)
            return
    if not pool._push(lease):
        await _discard(pool, lease)


def give_back(pool: Any, lease: Any) -> Any:
    """As :func:`restore`, from anywhere."""
    return _run(pool, restore, lease)


async def keep(task: Any) -> None:
    """Wait for what was begun; it goes on when the waiting is cancelled."""
    if task is not None:
        await asyncio.shield(task)


# --- from time to time -------------------------------------------------------------


def evict(pool: Any) -> int:
    """Dispose of the idle objects that are due; how many."""
    settings = pool._settings
    n = 0
    now = settings.clock()
    while (found := pool._pop_expired(now)) is not None:
        _run(pool, _dispose_reserved, *found)
        n += 1
    return n


def sweep(pool: Any) -> None:
    """Evict, and tell of leaks."""
    evict(pool)
    settings = pool._settings
    if settings.leak_after == math.inf:
        return
    now = settings.clock()
    for obj, since, place in pool._overdue(now):
        pool._tally(LEAKED)
        try:
            if settings.on_leak is not None:
                settings.on_leak(obj, now - since, place)
            else:
                warnings.warn(
                    f"an object of {settings.label}, acquired at {place}, is out for "
                    f"{now - since:.1f} s",
                    ResourceWarning,
                    stacklevel=1,
                )
        except Exception as error:
            _unraisable.report(error)


# --- the pool's own life -----------------------------------------------------------


def open_pool(pool: Any) -> None:
    """Make the initial objects, all or none."""
    _pools.add(pool)
    if not pool._settings.is_async:
        try:
            _drive(_stock(pool))
        except BaseException:
            close(pool)
            raise


async def open_in_task(pool: Any) -> None:
    """As :func:`open_pool`; objects that were made before an error stay."""
    if pool.closed:
        raise closed_error(pool._settings)
    if pool._settings.is_async:
        _bind(pool)
    await _stock(pool)


async def _stock(pool: Any) -> None:
    while (lease := pool._reserve(pool._settings.initial_size)) is not None:
        obj = await _make(pool, lease)
        if not pool._stock(lease, obj):
            await _dispose_reserved(pool, lease, obj)
            raise closed_error(pool._settings)


def close(pool: Any) -> list[Any]:
    """Hand out nothing more, wake all, dispose of what is idle; the tasks of that."""
    waiters = pool._shut()
    for waiter in waiters:
        waiter.hand(None)
    tasks = []
    while (found := pool._pop_expired(math.inf)) is not None:
        tasks.append(_run(pool, _dispose_reserved, *found))
    return [task for task in tasks if task is not None]


async def close_in_task(pool: Any) -> None:
    close(pool)
    tasks = pool._settings.tasks
    if tasks:
        await asyncio.gather(*tasks, return_exceptions=True)


def finalize(settings: Settings, objects: list[Any]) -> None:
    """Dispose of the idle objects of a pool that nobody has any more."""
    if settings.dispose is None or not objects or sys.is_finalizing():
        return
    if settings.is_async:
        warnings.warn(
            f"{settings.label} was dropped and not closed: "
            f"{len(objects)} idle objects are not disposed of",
            ResourceWarning,
            stacklevel=1,
        )
        return
    for obj in objects:
        try:
            settings.dispose(obj)
        except Exception as error:
            _unraisable.report(error)


def statistics(
    pool: Any, numbers: tuple[int, ...], counts: tuple[int, ...]
) -> ObjectPoolStats:
    size, idle, in_use, waiting, peak, acquires, releases = numbers
    return ObjectPoolStats(
        name=pool._settings.name,
        size=size,
        idle=idle,
        in_use=in_use,
        waiting=waiting,
        max_size=pool._settings.max_size,
        peak=peak,
        acquires=acquires,
        releases=releases,
        **dict(zip(COUNTS, counts, strict=True)),
    )


def described(
    pool: Any, found: list[tuple[Any, float, float, int, bool, str | None]]
) -> list[PooledObject]:
    now, wall = pool._settings.clock(), time.time()
    return [
        PooledObject(obj, wall - now + created, wall - now + used, uses, in_use, place)
        for obj, created, used, uses, in_use, place in found
    ]


# --- fork --------------------------------------------------------------------------

_pools: weakref.WeakSet[Any] = weakref.WeakSet()


def _after_fork() -> None:
    """A child begins with empty pools: what they held, open connections say, is the
    parent's, and may not even be finalized here."""
    global _binding
    _binding = threading.Lock()
    for pool in list(_pools):
        objects = pool._forget()
        settings = pool._settings
        settings.loop, settings.tasks, settings.watched = None, set(), False
        if objects:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(objects))


os.register_at_fork(after_in_child=_after_fork)
