"""Decorators that remember results: of functions, coroutine functions, methods."""

import inspect
import weakref
from collections.abc import Callable
from functools import partial, update_wrapper
from types import MethodType
from typing import Any

from .._backend import CachedFunction
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
    policy, ttl, key, getsizeof, timer, single_flight
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

    The results live in the instance's ``__dict__``. An instance without one needs
    ``__weakref__`` in its ``__slots__``; there a result that refers to its own
    instance keeps it alive.

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
        return _CachedMethod(maxsize, lru_cache(128, typed, **options))
    make = lru_cache(maxsize, typed, **options)
    return lambda function: _CachedMethod(function, make)


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


class _Home:
    """The results of one method of one instance. A copy or a pickle is empty."""

    __slots__ = ("cached", "method", "owner")

    def __init__(self, method: Any = None, owner: Any = None, cached: Any = None):
        self.method = method
        self.owner = owner  # a weak reference: a copied __dict__ brings us elsewhere
        self.cached = cached

    def belongs(self, method: Any, instance: Any) -> bool:
        return (
            self.method is method
            and self.owner is not None
            and self.owner() is instance
        )

    def __reduce__(self) -> Any:
        return _Home, ()


class _CachedMethod:
    """What :func:`cached_method` puts into the class."""

    def __init__(self, function: Callable[..., Any], make: Callable[..., Any]) -> None:
        make(function, method=True)  # bad arguments are told of at once
        self._function = function
        self._make = make
        self._name = f"__cached_method_{getattr(function, '__qualname__', '')}"
        self._homes: dict[Any, Any] = {}  # of instances without a __dict__, by id
        update_wrapper(self, function)

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = f"__cached_method_{owner.__qualname__}.{name}"

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        namespace = getattr(instance, "__dict__", None)
        homes: dict[Any, Any] = self._homes
        name: Any = id(instance)
        if type(namespace) is dict:
            homes, name = namespace, self._name
        home = homes.get(name)
        if type(home) is not _Home or not home.belongs(self, instance):
            home = self._new_home(homes, name, instance)
        return MethodType(home.cached, instance)

    def _new_home(self, homes: dict[Any, Any], name: Any, instance: Any) -> _Home:
        def forget(reference: Any) -> None:
            home = homes.get(name)
            if home is not None and home.owner is reference:
                homes.pop(name, None)

        try:
            # The instance's own __dict__ dies with it.
            owner = weakref.ref(instance, forget if homes is self._homes else None)
        except TypeError:
            raise TypeError(
                f"cached_method {self._function.__qualname__!r}: instances of "
                f"{type(instance).__name__!r} can't be weakly referenced "
                "(is '__weakref__' missing in __slots__?)"
            ) from None
        fresh = _Home(self, owner, self._make(self._function, method=True))
        home = homes.setdefault(name, fresh)  # another thread may have been faster
        if type(home) is not _Home or not home.belongs(self, instance):
            homes[name] = home = fresh
        return home

    def __call__(self, instance: Any, /, *args: Any, **kwargs: Any) -> Any:
        return self.__get__(instance)(*args, **kwargs)
