"""Pools of objects by name: a :class:`ResourceManager`, and a default one."""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
import os
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from types import TracebackType
from typing import Any

from .._backend import ObjectLease, ObjectPool
from ..errors import PoolClosedError, UnknownResourceError
from ..stats import ObjectPoolStats, PooledObject

__all__ = [
    "PooledResource",
    "ResourceManager",
    "get_pooled_resource",
    "pooled_resource",
    "register_resource_type",
]

# What a pool gets that is registered without: argument, variable, value.
_DEFAULTS: dict[str, tuple[str, Any]] = {
    "max_size": ("CTXPOOL_POOL_MAX_SIZE", 100),
    "timeout": ("CTXPOOL_POOL_TIMEOUT", 30.0),
    "max_idle": ("CTXPOOL_POOL_MAX_IDLE", 600.0),
    "cleanup_interval": ("CTXPOOL_POOL_CLEANUP_INTERVAL", 300.0),
}


class _Default:
    def __repr__(self) -> str:
        return "default"


_DEFAULT: Any = _Default()


def _from_environment(argument: str) -> Any:
    variable, value = _DEFAULTS[argument]
    text = os.environ.get(variable, "").strip()
    if not text:
        return value
    try:
        if argument == "max_size":
            value = int(text)
        elif text.lower() == "none":
            return None
        else:
            value = float(text)
        if math.isfinite(value) and value > 0:
            return value
    except ValueError:
        pass
    kind = "a whole number" if argument == "max_size" else "seconds or none"
    raise ValueError(f"{variable} must be {kind}, more than 0, not {text!r}")


class PooledResource:
    """One use of a resource: a context manager, or a decorator.

    Made by :func:`pooled_resource`. As a context manager, it may be entered again
    after it was left; who needs two at once makes two.
    """

    __slots__ = ("_argument", "_lease", "_manager", "_name", "_timeout")

    def __init__(
        self,
        manager: ResourceManager,
        name: str,
        timeout: float | None,
        argument: str | None,
    ) -> None:
        self._manager = manager
        self._name = name
        self._timeout = timeout
        self._argument = argument
        self._lease: ObjectLease[Any] | None = None

    def __repr__(self) -> str:
        return f"<pooled_resource {self._name!r}>"

    def __enter__(self) -> Any:
        lease = self._begin(self._manager.pool(self._name).acquire(self._timeout))
        try:
            return lease.__enter__()
        except BaseException:
            self._lease = None
            raise

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._end().__exit__(exc_type, exc, tb)

    async def __aenter__(self) -> Any:
        pool = self._manager.pool(self._name)
        lease = self._begin(pool.acquire_async(self._timeout))
        try:
            return await lease.__aenter__()
        except BaseException:
            self._lease = None
            raise

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        await self._end().__aexit__(exc_type, exc, tb)

    def _begin(self, lease: ObjectLease[Any]) -> ObjectLease[Any]:
        if self._lease is not None:
            raise RuntimeError(f"{self!r} is entered already: make another")
        self._lease = lease
        return lease

    def _end(self) -> ObjectLease[Any]:
        lease, self._lease = self._lease, None
        if lease is None:
            raise RuntimeError(f"{self!r} was not entered")
        return lease

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Let every call of *function* have a resource of its own."""
        if not callable(function):
            raise TypeError(f"a function is needed, not {function!r}")
        manager, name, timeout = self._manager, self._name, self._timeout
        argument = self._argument

        def bound(resource: Any, args: Any, kwargs: Any) -> Any:
            if argument is None:
                return function(resource, *args, **kwargs)
            return function(*args, **{**kwargs, argument: resource})

        wrapper: Callable[..., Any]
        if inspect.isasyncgenfunction(function):

            async def async_generator(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
                async with (
                    manager.pool(name).acquire_async(timeout) as resource,
                    contextlib.aclosing(bound(resource, args, kwargs)) as items,
                ):
                    async for item in items:
                        yield item

            wrapper = async_generator
        elif inspect.iscoroutinefunction(function):

            async def coroutine(*args: Any, **kwargs: Any) -> Any:
                async with manager.pool(name).acquire_async(timeout) as resource:
                    return await bound(resource, args, kwargs)

            wrapper = coroutine
        elif inspect.isgeneratorfunction(function):

            def generator(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
                with manager.pool(name).acquire(timeout) as resource:
                    return (yield from bound(resource, args, kwargs))

            wrapper = generator
        else:

            def call(*args: Any, **kwargs: Any) -> Any:
                with manager.pool(name).acquire(timeout) as resource:
                    return bound(resource, args, kwargs)

            wrapper = call
        return functools.wraps(function)(wrapper)


class ResourceManager:
    """Pools of objects by name.

    Parameters
    ----------
    max_size : int, optional
        Objects of each type that may exist; by default the variable
        ``CTXPOOL_POOL_MAX_SIZE``, or 100.
    timeout : float, optional
        Seconds to wait for one; ``CTXPOOL_POOL_TIMEOUT``, or 30. None: without end.
    max_idle : float, optional
        Seconds without use after which one is evicted; ``CTXPOOL_POOL_MAX_IDLE``, or
        600. None: never.
    cleanup_interval : float, optional
        Seconds between rounds of eviction; ``CTXPOOL_POOL_CLEANUP_INTERVAL``, or 300.

    Raises
    ------
    ValueError
        A variable of the environment is not what it should be.

    Notes
    -----
    A type may have settings of its own: see :meth:`register_resource_type`. The
    variables are read when the manager is made; they may say ``none``.

    **Thread-safety**: each call is atomic. What :class:`~ctxpool.ObjectPool` promises
    holds for each type.

    Examples
    --------
    >>> import sqlite3
    >>> with ResourceManager(max_size=4) as manager:
    ...     manager.register_resource_type(
    ...         "db",
    ...         lambda: sqlite3.connect(":memory:", check_same_thread=False),
    ...         reset=lambda db: db.rollback(),
    ...         dispose=lambda db: db.close(),
    ...     )
    ...     with manager.pooled_resource("db") as db:
    ...         db.execute("select 6 * 7").fetchone()
    ...
    ...     @manager.pooled_resource("db")
    ...     def added(db, a, b):
    ...         return db.execute("select ? + ?", (a, b)).fetchone()[0]
    ...
    ...     added(1, 2), manager.stats()["db"].created
    <ObjectPool name='db', max_size=4, idle=0, in_use=0>
    (42,)
    (3, 1)
    """

    def __init__(
        self,
        *,
        max_size: int = _DEFAULT,
        timeout: float | None = _DEFAULT,
        max_idle: float | None = _DEFAULT,
        cleanup_interval: float | None = _DEFAULT,
    ) -> None:
        given = {
            "max_size": max_size,
            "timeout": timeout,
            "max_idle": max_idle,
            "cleanup_interval": cleanup_interval,
        }
        self._defaults: dict[str, Any] = {
            argument: _from_environment(argument) if value is _DEFAULT else value
            for argument, value in given.items()
        }
        # Wrong ones are told of now, and not when the first type is registered.
        ObjectPool(object, **self._defaults)
        self._pools: dict[str, ObjectPool[Any]] = {}
        self._closed = False

    def register_resource_type(
        self, name: str, factory: Callable[[], Any], **options: Any
    ) -> ObjectPool[Any]:
        """Register a type of resources.

        Parameters
        ----------
        name : str
        factory : callable
            Makes a resource; may be a coroutine function.
        **options
            As for :class:`~ctxpool.ObjectPool`: *reset*, *validate*, *dispose*,
            *max_size* and others.

        Returns
        -------
        ObjectPool
            The type's own pool.

        Raises
        ------
        ValueError
            The name is taken, or an option out of range.
        PoolClosedError
            The manager is closed.
        """
        if not isinstance(name, str):
            raise TypeError(f"name must be text, not {name!r}")
        self._check_open()
        if name in self._pools:
            raise ValueError(f"the resource type {name!r} is registered already")
        pool: ObjectPool[Any] = ObjectPool(
            factory, **{**self._defaults, "name": name, **options}
        )
        if self._pools.setdefault(name, pool) is not pool:
            pool.close()  # another thread was faster
            raise ValueError(f"the resource type {name!r} is registered already")
        if self._closed:
            pool.close()
            self._check_open()
        return pool

    def unregister_resource_type(self, name: str) -> None:
        """Forget a type: its pool is closed, what is out is disposed of on return."""
        self.pool(name)
        pool = self._pools.pop(name, None)
        if pool is not None:
            pool.close()

    def pool(self, name: str) -> ObjectPool[Any]:
        """The pool of a type; UnknownResourceError where there is none."""
        try:
            return self._pools[name]
        except (KeyError, TypeError):
            self._check_open()
            known = ", ".join(map(repr, list(self._pools))) or "none"
            raise UnknownResourceError(
                f"no resource type {name!r} is registered (there are: {known})"
            ) from None

    def get_pooled_resource(
        self, name: str, timeout: float | None = None
    ) -> ObjectLease[Any]:
        """A lease of a resource: ``lease.object``, until ``lease.release()``.

        The resource goes back by itself when the lease is dropped. As
        :meth:`ObjectPool.acquire`, errors included.

        Raises
        ------
        UnknownResourceError
            No such type is registered.
        """
        return self.pool(name).acquire(timeout)

    def pooled_resource(
        self, name: str, timeout: float | None = None, argument: str | None = None
    ) -> PooledResource:
        """A resource for a block, or for each call of a function.

        ``with pooled_resource(name) as resource:``, ``async with`` likewise. As a
        decorator it gives each call a resource of its own, as first argument, or by
        keyword as *argument*; for functions, coroutine functions, and generators of
        both kinds, which keep it until they end. The type need not be registered yet.
        """
        return PooledResource(self, name, timeout, argument)

    def resources(self, name: str) -> list[PooledObject]:
        """What is known of each resource of a type: uses, creation, last use. O(n)."""
        return self.pool(name).objects()

    def stats(self) -> dict[str, ObjectPoolStats]:
        """The statistics of each type."""
        return {name: pool.stats() for name, pool in list(self._pools.items())}

    def evict(self) -> int:
        """Dispose now of what was idle for too long; how many."""
        return sum(pool.evict() for pool in list(self._pools.values()))

    def close(self) -> None:
        """Close all pools. Closing twice does nothing."""
        self._closed = True
        while self._pools:
            with contextlib.suppress(KeyError):
                self._pools.popitem()[1].close()

    async def aclose(self) -> None:
        """As :meth:`close`, and wait for what coroutine functions have to do."""
        self._closed = True
        while self._pools:
            with contextlib.suppress(KeyError):
                await self._pools.popitem()[1].aclose()

    def _check_open(self) -> None:
        if self._closed:
            raise PoolClosedError("the resource manager is closed")

    def __contains__(self, name: object) -> bool:
        return name in self._pools

    def __iter__(self) -> Iterator[str]:
        """The names of the types."""
        return iter(list(self._pools))

    def __len__(self) -> int:
        return len(self._pools)

    def __bool__(self) -> bool:
        return True

    def __enter__(self) -> ResourceManager:
        self._check_open()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> ResourceManager:
        self._check_open()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        closed = ", closed" if self._closed else ""
        return f"<ResourceManager of {len(self)} types{closed}>"


default_manager = ResourceManager()


def register_resource_type(
    name: str, factory: Callable[[], Any], **options: Any
) -> ObjectPool[Any]:
    """:meth:`ResourceManager.register_resource_type` of the default manager.

    Examples
    --------
    >>> import json
    >>> pool = register_resource_type("decoder", json.JSONDecoder, max_size=2)
    >>> @pooled_resource("decoder")
    ... def parsed(decoder, text):
    ...     return decoder.decode(text)
    >>> parsed("[1, 2]")
    [1, 2]
    >>> default_manager.unregister_resource_type("decoder")
    """
    return default_manager.register_resource_type(name, factory, **options)


def get_pooled_resource(name: str, timeout: float | None = None) -> ObjectLease[Any]:
    """:meth:`ResourceManager.get_pooled_resource` of the default manager."""
    return default_manager.get_pooled_resource(name, timeout)


def pooled_resource(
    name: str, timeout: float | None = None, argument: str | None = None
) -> PooledResource:
    """:meth:`ResourceManager.pooled_resource` of the default manager."""
    return default_manager.pooled_resource(name, timeout, argument)
