"""What both implementations of :class:`~ctxpool.LazyProxy` share: the load itself,
and the protocols that have no function of their own in ``operator``."""

import copyreg
import operator
from collections.abc import Callable
from inspect import CO_ITERABLE_COROUTINE
from types import GeneratorType
from typing import Any

from ._cache_support import MISSING, flight_epoch, single_flight

__all__ = ["Pending", "awaited", "base_of", "context_manager", "publish"]

_proxies: set[type] = set()


def publish(cls: Any) -> None:
    """Make *cls*, an implementation of the proxy, known: to loads and to pickle."""
    _proxies.add(cls)
    copyreg.pickle(cls, lambda proxy: _reduced(cls.loaded(proxy)))


def _reduced(target: Any) -> tuple[Any, ...]:
    """A ``__reduce__`` of *target* itself, which a reader needs no ctxpool for."""
    return operator.getitem, ((target,), 0)


class Pending:
    """A load that is still to come. A proxy keeps one until it has its object."""

    __slots__ = ("_flights", "_load", "_loading", "_value")

    def __init__(self, load: Callable[[], Any]) -> None:
        if not callable(load):
            raise TypeError(f"load must be callable, not {load!r}")
        self._load: Callable[[], Any] | None = load
        self._value: Any = MISSING
        self._loading = -1  # the epoch (a fork starts one) in which a load is under way
        self._flights: dict[Any, Any] = {}

    def result(self) -> Any:
        """The loaded object: loaded by one thread, for which the others wait."""
        return single_flight(self._flights, None, self._run, self._peek, self._store)

    def _run(self, _: Any) -> Any:
        # single_flight lets a second one in here only where to wait would be to
        # wait for oneself.
        if self._loading == flight_epoch():
            raise RuntimeError("the load of a LazyProxy needs what that proxy loads")
        load = self._load
        self._loading = flight_epoch()
        try:
            value = load() if load is not None else self._value
            while type(value) in _proxies:  # never a proxy of a proxy
                value = type(value).loaded(value)
            return value
        finally:
            self._loading = -1

    def _peek(self, _: Any, default: Any) -> Any:
        return self._value  # MISSING, which is the default, before the load

    def _store(self, _: Any, value: Any) -> None:
        self._value = value
        self._load = None


def context_manager(target: Any, enter: str, leave: str) -> Any:
    """The bound method *enter* of a *target* that has both methods on its class."""
    cls = type(target)
    if not (hasattr(cls, enter) and hasattr(cls, leave)):
        kind = "asynchronous context manager" if "a" in enter else "context manager"
        raise TypeError(f"{cls.__name__!r} object does not support the {kind} protocol")
    return getattr(target, enter)


def awaited(target: Any) -> Any:
    """The iterator that ``await target`` runs."""
    flags = target.gi_code.co_flags if isinstance(target, GeneratorType) else 0
    if flags & CO_ITERABLE_COROUTINE:
        return _iterator(target)
    if not hasattr(type(target), "__await__"):
        name = type(target).__name__
        raise TypeError(f"object {name} can't be used in 'await' expression")
    return target.__await__()


def _iterator(coroutine: Any) -> Any:
    """A generator of :func:`types.coroutine`, which ``__await__`` must not return."""
    return (yield from coroutine)


def base_of(target: Any) -> Any:
    """``__mro_entries__`` of a proxy that a class statement names among its bases."""
    return lambda bases: (target,)
