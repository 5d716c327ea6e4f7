"""``cachedmethod``: a descriptor that gives each instance a caching method.

It is put into the instance's ``__dict__`` in the descriptor's own place, so that the
descriptor is asked once. Where the class has another attribute by that name (a subclass
overrides the method, and calls it by ``super()``) it lives in a dict beside.
"""

import inspect
from collections.abc import Callable
from functools import partial, update_wrapper
from types import MethodType
from typing import Any

from ._functions import Caching, Informing

__all__ = ["method_descriptor"]

BESIDE = "__cachetools_cachedmethods"


def _of_none(instance: Any) -> None:
    return None


class _Method(Caching):
    def __init__(self, descriptor: "_Descriptor", instance: Any) -> None:
        update_wrapper(self, descriptor.method)
        super().__init__(MethodType(descriptor.method, instance))
        self._descriptor = descriptor
        self._instance = instance
        self.cache_key = partial(descriptor.key, instance)

    @property
    def cache(self) -> Any:
        return self._descriptor.cache(self._instance)

    @property
    def cache_lock(self) -> Any:
        return self._descriptor.lock(self._instance)

    @property
    def cache_condition(self) -> Any:
        return self._descriptor.condition(self._instance)

    def __reduce__(self) -> Any:
        return self._descriptor.__get__, (self._instance,)

    def __repr__(self) -> str:
        wrapped: Any = self._descriptor.method
        return f"<cachedmethod {wrapped!r} of {object.__repr__(self._instance)}>"


class _InformingMethod(_Method, Informing):
    pass


class _Unbound:
    """What the class's attribute is: called with the instance first."""

    def __init__(self, descriptor: "_Descriptor") -> None:
        update_wrapper(self, descriptor.method)
        self._descriptor = descriptor

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else self._descriptor.__get__(instance)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        if args:
            return self._descriptor.__get__(args[0])(*args[1:], **kwargs)
        parameters = [*inspect.signature(self._descriptor.method).parameters.values()]
        first = parameters[0] if parameters else None
        if (
            first is None
            or first.kind is not first.POSITIONAL_OR_KEYWORD
            or first.name not in kwargs
        ):
            raise TypeError(
                f"{self._descriptor.method.__qualname__} needs an instance: "
                "a cachedmethod was called through its class without one"
            )
        instance = kwargs.pop(first.name)
        return self._descriptor.__get__(instance)(**kwargs)

    def __reduce__(self) -> Any:
        return self._descriptor.__get__, (None,)

    def __repr__(self) -> str:
        wrapped: Any = self._descriptor.method
        return f"<cachedmethod {wrapped!r}>"


def _find(owner: type, name: str) -> Any:
    return vars(owner)[name]


class _Descriptor:
    """What ``cachedmethod`` puts into the class."""

    def __init__(
        self, method: Any, cache: Any, key: Any, lock: Any, condition: Any, info: bool
    ) -> None:
        self.method = method
        self.cache = cache
        self.key = key
        self.condition = condition or _of_none
        self.lock = lock or self.condition
        self._make = _InformingMethod if info else _Method
        self._owner: type | None = None
        self._name: str | None = None
        self._unbound = _Unbound(self)
        update_wrapper(self, method)

    def __set_name__(self, owner: type, name: str) -> None:
        if self._name not in (None, name):
            raise TypeError(
                "a cachedmethod can't have two names in a class, "
                f"{self._name!r} and {name!r}"
            )
        if self._name is None:
            self._owner, self._name = owner, name

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        # classmethod() calls what it wraps, or asks it to bind to the class.
        raise TypeError("cachedmethod can't decorate class methods")

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        name = self._name
        if name is None:
            if isinstance(instance, type):
                self()
            raise TypeError("a cachedmethod has no name: __set_name__ was not called")
        if instance is None:
            return self._unbound
        found = inspect.getattr_static(type(instance), name, None)
        try:
            methods: Any = instance.__dict__
            place: Any = name
            if found is not self:
                methods, place = methods.setdefault(BESIDE, {}), self
                if place in methods:
                    return methods[place]
        except (AttributeError, TypeError) as error:
            raise self._no_place(instance, error) from None
        made = self._make(self, instance)
        try:
            return methods.setdefault(place, made)  # another thread's, if it was first
        except (AttributeError, TypeError) as error:
            raise self._no_place(instance, error) from None

    def _no_place(self, instance: Any, error: Exception) -> TypeError:
        of = f"'__dict__' attribute on {type(instance).__name__!r} instance"
        if isinstance(error, AttributeError):
            return TypeError(f"No {of} to cache {self._name!r}")
        return TypeError(
            f"The {of} does not support item assignment for caching {self._name!r}"
        )

    def __reduce__(self) -> Any:
        return _find, (self._owner, self._name)


def method_descriptor(
    method: Callable[..., Any],
    cache: Any,
    key: Any,
    lock: Any,
    condition: Any,
    info: bool,
) -> Any:
    """What ``cachedmethod(cache, ...)`` makes of *method*."""
    return _Descriptor(method, cache, key, lock, condition, info)
