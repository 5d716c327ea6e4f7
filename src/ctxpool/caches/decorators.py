"""Decorators that remember results: of functions, coroutine functions, methods."""

import inspect
from collections.abc import Callable
from functools import partial, update_wrapper
from typing import Any

from .._backend import CachedFunction, CachedMethod
from .asynchronous import cached_coroutine_function

__all__ = ["cached_method", "lru_cache", "ttl_cache"]


def lru_cache(
    maxsize: Any = 128,
    typed: bool = False,
    *,
    policy: str = "lru",
    ttl: float | None = None,
    key: Callable[..., Any] | None = None,
    getsizeof: Callable[[Any], Any] | None = None,
    timer: Callable[[], Any] | None = None,
    single_flight: bool = False,
) -> Any:
    """Remember the results of a function: :func:`functools.lru_cache`, and more.

    Used as ``@lru_cache`` or ``@lru_cache(...)``. With *maxsize* and *typed* alone it
    does what functools does, ``cache_info()``, ``cache_clear()``,
    ``cache_parameters()`` and ``__wrapped__`` included. The decorated function is a
    :class:`~ctxpool.CachedFunction`; see there for the other parameters.

    A coroutine function becomes one whose awaited results are remembered. Of several
    tasks of one event loop that make the same call at once, one task computes and all
    take its outcome, be it a result or an exception; exceptions are not cached. The
    computation is cancelled when all who wait for it are, not when one of them is.
    Where waiting would be waiting for oneself, the function is called at once.
    *single_flight* makes no difference here.

    Parameters
    ----------
    maxsize : int or None
        The most results kept; None: no bound.
    typed : bool
        Whether ``f(3)`` and ``f(3.0)`` are always different calls.
    policy : str
        Which result goes when there is no room: one of the names that
        :class:`~ctxpool.Cache` takes, and explains. The default is exact LRU.
    ttl, key, getsizeof, timer, single_flight
        As of :class:`~ctxpool.CachedFunction`.

    Examples
    --------
    >>> @lru_cache
    ... def square(n):
    ...     return n * n
    >>> square(3), square(3)
    (9, 9)
    >>> square.cache_info()
    CacheInfo(hits=1, misses=1, maxsize=128, currsize=1)
    """
    options: dict[str, Any] = {
        "policy": policy,
        "ttl": ttl,
        "key": key,
        "getsizeof": getsizeof,
        "timer": timer,
        "single_flight": single_flight,
    }
    if callable(maxsize) and isinstance(typed, bool):
        return _cached(maxsize, 128, typed, **options)
    if maxsize is not None and not isinstance(maxsize, int):
        raise TypeError("Expected first argument to be an integer, a callable, or None")
    return partial(_cached, maxsize=maxsize, typed=typed, **options)


def ttl_cache(
    maxsize: Any = 128, ttl: float = 600, typed: bool = False, **options: Any
) -> Any:
    """:func:`lru_cache` whose results live *ttl* seconds, 600 unless it is given.

    Used as ``@ttl_cache`` or ``@ttl_cache(...)``.

    Examples
    --------
    >>> @ttl_cache(maxsize=2, ttl=60)
    ... def square(n):
    ...     return n * n
    >>> square(3), square(3), square.cache_info().hits
    (9, 9, 1)
    """
    return lru_cache(maxsize, typed, ttl=ttl, **options)


def cached_method(maxsize: Any = 128, typed: bool = False, **options: Any) -> Any:
    """:func:`lru_cache` for methods: each instance has results of its own.

    They go when the instance does: nothing here keeps it alive, and it need not be
    hashable. ``instance.method.cache_info()`` and the like tell of one instance.
    Copies and pickles of an instance start without results.

    The results live in the instance's ``__dict__``; where there is none, a result that
    refers to its own instance keeps it alive. Instances have to take weak references:
    a class with ``__slots__`` needs ``__weakref__`` among them.

    Native, a hit costs little more than the call of a method.

    Raises
    ------
    TypeError
        At the first use: the instance can't be weakly referenced.

    Examples
    --------
    >>> class Document:
    ...     @cached_method
    ...     def words(self, least):
    ...         return 7
    >>> document = Document()
    >>> document.words(3), document.words(3), document.words.cache_info().hits
    (7, 7, 1)
    """
    if callable(maxsize) and isinstance(typed, bool):
        return _method(maxsize, lru_cache(128, typed, **options))
    return partial(_method, make=lru_cache(maxsize, typed, **options))


def _cached(
    function: Callable[..., Any],
    maxsize: int | None,
    typed: bool,
    *,
    method: bool = False,
    **options: Any,
) -> Any:
    if inspect.iscoroutinefunction(function):
        return cached_coroutine_function(
            function, maxsize, typed, method=method, **options
        )
    cached = CachedFunction(function, maxsize, typed, method=method, **options)
    return update_wrapper(cached, function)


def _method(function: Callable[..., Any], make: Callable[..., Any]) -> Any:
    return update_wrapper(CachedMethod(function, make), function)
