"""CachedFunction in Python, over the LRUCache in Python; CachedMethod over it."""

import time
from collections.abc import Callable
from types import MethodType
from typing import Any

from .. import _function_support as support
from .._cache_support import MISSING
from .._function_support import CacheInfo
from .cache import Cache
from .locks import new_rlock
from .lru_cache import LRUCache

__all__ = ["CachedFunction", "CachedMethod"]


class CachedFunction:
    """A function that remembers its results: what :func:`ctxpool.lru_cache` makes.

    It does what the object of :func:`functools.lru_cache` does, binds to instances as
    a function does, and is pickled by name.

    Parameters
    ----------
    function : callable
        What is called where no result is known.
    maxsize : int or None
        The most results kept; the least recently used goes first. 0: none are kept,
        None: no bound. With *getsizeof* the bound of the sum of the sizes.
    typed : bool
        Whether arguments of different types are different calls even where they are
        equal.
    policy : str
        Which result goes first instead, as of :class:`~ctxpool.Cache`: "s3fifo" hits
        more often than LRU on most loads, and can fall far below it on some.
    ttl : float, optional
        Seconds that a result is kept.
    key : callable, optional
        ``key(*args, **kwargs)`` makes the key of a call.
    getsizeof : callable, optional
        ``getsizeof(result)`` is its size. One that is too large is not kept.
    timer : callable, optional
        The clock of *ttl*; :func:`time.monotonic` by default.
    single_flight : bool
        Of several threads that make the same call at once, one calls the function
        and the others wait for its outcome; see :meth:`LRUCache.get_or_compute`.
    method : bool
        The first positional argument is passed on, and is no part of the key.

    Notes
    -----
    **Thread-safety**: as of functools: look-up and store are atomic, the function is
    called outside any lock. Exceptions are not cached.

    Examples
    --------
    >>> double = CachedFunction(lambda n: n * 2, 100)
    >>> double(4), double(4)
    (8, 8)
    >>> double.cache_info()
    CacheInfo(hits=1, misses=1, maxsize=100, currsize=1)
    """

    __slots__ = (
        "__dict__",
        "__weakref__",
        "_cache",
        "_flights",
        "_function",
        "_key",
        "_lock",
        "_maxsize",
        "_method",
        "_policy",
        "_replaces",
        "_ttl",
        "_typed",
        "_uncached",
    )

    def __init__(
        self,
        function: Callable[..., Any],
        maxsize: int | float | None = 128,
        typed: bool = False,
        *,
        policy: str = "lru",
        ttl: float | None = None,
        key: Callable[..., Any] | None = None,
        getsizeof: Callable[[Any], Any] | None = None,
        timer: Callable[[], Any] | None = None,
        single_flight: bool = False,
        method: bool = False,
    ) -> None:
        maxsize, policy, ttl = support.checked(
            function, maxsize, policy, ttl, key, getsizeof, timer
        )
        bound = support.bound(maxsize)
        clock = time.monotonic if timer is None else timer
        self._cache: LRUCache[Any, Any]
        if policy == "lru":
            self._cache = LRUCache(bound, getsizeof, ttl=ttl, timer=clock)
        else:
            self._cache = Cache(bound, policy, getsizeof, ttl=ttl, timer=clock)
        self._function = function
        self._maxsize = maxsize
        self._policy = policy
        self._ttl = ttl
        self._typed = bool(typed)
        self._key = key
        self._flights: dict[Any, Any] | None = {} if single_flight else None
        # Where each stores, the last result stays; else the first, as in functools.
        given = (ttl, key, getsizeof)
        self._replaces = maxsize is None or any(part is not None for part in given)
        self._method = bool(method)
        self._uncached = 0
        self._lock = new_rlock()

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        cache = self._cache
        if self._maxsize == 0 and self._flights is None:
            with self._lock:
                self._uncached += 1
            return self._function(*args, **kwargs)
        keyed = args[1:] if self._method else args
        if self._key is None:
            key = support.make_key(keyed, kwargs, self._typed)
        else:
            key = self._key(*keyed, **kwargs)
        value = cache.get(key, MISSING)
        if value is not MISSING:
            return value
        if self._flights is not None:
            return support.fly(cache, self._flights, key, self._function, args, kwargs)
        value = self._function(*args, **kwargs)
        if self._replaces or cache.peek(key, MISSING) is MISSING:
            cache._store_if_it_fits(key, value)
        return value

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else MethodType(self, instance)

    def cache_info(self) -> CacheInfo:
        """Hits, misses, maxsize and current size, as a named tuple."""
        stats = self._cache.stats()
        with self._lock:
            misses = stats.misses + self._uncached
        return CacheInfo(stats.hits, misses, self._maxsize, stats.currsize)

    def cache_clear(self) -> None:
        """Forget all results, and the counts."""
        cache = self._cache
        old = cache._detach()
        with cache._lock:
            cache._hits = cache._misses = 0
        with self._lock:
            self._uncached = 0
        del old

    def cache_parameters(self) -> dict[str, Any]:
        """``{"maxsize": ..., "typed": ...}``, a new dict; policy and ttl if given."""
        return support.parameters(self._maxsize, self._typed, self._policy, self._ttl)

    def __reduce__(self) -> str:
        return self.__qualname__  # type: ignore[attr-defined, no-any-return]

    def __copy__(self) -> "CachedFunction":
        return self

    def __deepcopy__(self, memo: Any) -> "CachedFunction":
        return self


# inspect shows them bare, as those of functools.
for _method in (CachedFunction.cache_info, CachedFunction.cache_clear):
    _method.__annotations__ = {}


class _Home:
    """What one instance has of one CachedMethod. Copies and pickles of it are None."""

    __slots__ = ("cached", "method", "owner")

    def __init__(self, method: Any, owner: Any, cached: Any) -> None:
        self.method = method
        self.owner = owner  # a weak reference: a copied __dict__ brings us elsewhere
        self.cached = cached

    def __reduce__(self) -> Any:
        return support.nothing, ()


class CachedMethod:
    """A method that remembers its results for each instance: see
    :func:`ctxpool.cached_method`, which makes it.

    Parameters
    ----------
    function : callable
        The method.
    make : callable
        ``make(function, method=True)`` gives the cached function of an instance.
    """

    __slots__ = ("__dict__", "__weakref__", "_function", "_homes", "_make", "_name")

    def __init__(self, function: Callable[..., Any], make: Callable[..., Any]) -> None:
        make(function, method=True)  # bad arguments are told of at once
        self._function = function
        self._make = make
        self._name = support.home_name(function)
        self._homes: dict[Any, Any] = {}  # of instances without a __dict__, by id

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = support.home_name(owner, name)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        if not args:
            raise TypeError("a cached_method needs an instance")
        return self._home(args[0]).cached(*args, **kwargs)

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self
        return MethodType(self._home(instance).cached, instance)

    def _home(self, instance: Any) -> _Home:
        homes: dict[Any, Any] = self._homes
        name: Any = id(instance)
        if type(instance).__dictoffset__ and not isinstance(instance, type):
            homes, name = object.__getattribute__(instance, "__dict__"), self._name
        home: Any = homes.get(name)
        if self._houses(home, instance):
            return home  # type: ignore[no-any-return]
        # The instance's own __dict__ dies with it.
        own = homes is not self._homes
        forget = None if own else support.forgetting(homes, name)
        owner = support.owner_of(instance, forget, self._function)
        fresh = _Home(self, owner, self._make(self._function, method=True))
        home = homes.setdefault(name, fresh)  # another thread may have been faster
        if not self._houses(home, instance):
            homes[name] = home = fresh
        return home  # type: ignore[no-any-return]

    def _houses(self, home: Any, instance: Any) -> bool:
        return type(home) is _Home and home.method is self and home.owner() is instance

    def __reduce__(self) -> str:
        return self.__qualname__  # type: ignore[attr-defined, no-any-return]

    def __copy__(self) -> "CachedMethod":
        return self

    def __deepcopy__(self, memo: Any) -> "CachedMethod":
        return self
