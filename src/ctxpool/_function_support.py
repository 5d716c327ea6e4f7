"""What both implementations of :class:`~ctxpool.CachedFunction` share."""

import math
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

from . import _cache_support as support

__all__ = [
    "CacheInfo",
    "bound",
    "checked",
    "fly",
    "forgetting",
    "home_name",
    "make_key",
    "nothing",
    "owner_of",
    "parameters",
]

MARK: Any = object()  # between positional and keyword arguments


class CacheInfo(NamedTuple):
    """What ``cache_info()`` returns; equal to the tuple that functools returns."""

    hits: int
    misses: int
    maxsize: int | float | None
    currsize: int | float


class HashedKey(tuple[Any, ...]):
    """A tuple that asks its items for their hashes once."""

    hash: int

    def __hash__(self) -> int:
        try:
            return self.hash
        except AttributeError:
            self.hash = super().__hash__()
            return self.hash


def make_key(
    args: tuple[Any, ...], kwargs: dict[str, Any], typed: bool, *, count: Any = len
) -> Any:
    """The key of a call, as functools.lru_cache makes it.

    A lone argument that is exactly a str or an int is its own key; otherwise the
    arguments, in the order in which they were given, make up a tuple. *count* is bound
    here, for someone may put a cached function in the place of ``len``.
    """
    if not (typed or kwargs):
        if count(args) == 1 and type(args[0]) in (int, str):
            return args[0]
        return HashedKey(args)
    key = args
    if kwargs:
        key += (MARK, *(part for item in kwargs.items() for part in item))
    if typed:
        key += (*map(type, args), *map(type, kwargs.values()))
    return HashedKey(key)


def checked(
    function: Any,
    maxsize: Any,
    policy: Any,
    ttl: Any,
    key: Any,
    getsizeof: Any,
    timer: Any,
) -> tuple[Any, str, float | None]:
    """*maxsize*, not below 0, *policy* and *ttl*; the others are what they must be."""
    if not callable(function):
        raise TypeError("the first argument must be callable")
    for name, given in (("key", key), ("getsizeof", getsizeof), ("timer", timer)):
        if given is not None and not callable(given):
            raise TypeError(f"{name} must be callable, not {given!r}")
    if maxsize is not None:
        if not isinstance(maxsize, int) and getsizeof is None:
            raise TypeError(
                f"Expected maxsize to be an integer or None, not {maxsize!r}"
            )
        support.checked_number(maxsize, "maxsize")
        maxsize = max(maxsize, 0)
    return maxsize, support.checked_policy(policy), support.checked_ttl(ttl)


def parameters(
    maxsize: Any, typed: bool, policy: str, ttl: float | None
) -> dict[str, Any]:
    """``cache_parameters()``: what functools tells, and what functools has not."""
    told = {"maxsize": maxsize, "typed": typed}
    if policy != "lru":
        told["policy"] = policy
    if ttl:
        told["ttl"] = ttl
    return told


def bound(maxsize: Any) -> int | float:
    """*maxsize* as LRUCache takes it."""
    return math.inf if maxsize is None else maxsize


def fly(
    cache: Any,
    flights: dict[Any, Any],
    key: Any,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """One call of *function* per key at a time; see ``LRUCache.get_or_compute``."""
    return support.single_flight(
        flights,
        key,
        lambda _: function(*args, **kwargs),
        cache.peek,
        cache._store_if_it_fits,
    )


# ---- Methods ----


def nothing() -> None:
    """What copies and pickles have in the place of an instance's results."""


def home_name(owner: Any, name: str = "") -> str:
    """The attribute that has an instance's results of a method."""
    name = f".{name}" if name else ""
    return f"__cached_method_{getattr(owner, '__qualname__', '')}{name}"


def owner_of(instance: Any, forget: Any, function: Any) -> weakref.ref[Any]:
    """A weak reference to *instance*."""
    try:
        return weakref.ref(instance, forget)
    except TypeError:
        raise TypeError(
            f"cached_method {getattr(function, '__qualname__', function)!r}: instances "
            f"of {type(instance).__name__!r} can't be weakly referenced "
            "(is '__weakref__' missing in __slots__?)"
        ) from None


def forgetting(homes: dict[Any, Any], number: int) -> Callable[[Any], None]:
    """What is to be called when the instance of that *number* dies."""

    def forget(reference: Any) -> None:
        home = homes.get(number)
        if home is not None and home.owner is reference:
            homes.pop(number, None)

    return forget
