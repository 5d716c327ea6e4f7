"""LazyProxy in Python: every special method, each a line."""

import copy
import math
import operator
import os
import sys
from collections.abc import Callable
from typing import Any, final

from .. import _lazy_support as support

__all__ = ["LazyProxy"]

_get = object.__getattribute__
_set = object.__setattr__


@final
class LazyProxy:
    """An object that is loaded when it is first used, and until then is not.

    Whatever is done with the proxy is done with the object that *load* returns:
    attributes, calls, operators, comparison, hash, iteration, ``with``, ``await``,
    ``isinstance``, ``repr``. The first use calls *load*; the proxy then forgets it.

    Parameters
    ----------
    load : callable
        ``load()`` returns the object. It may be slow, and it may raise: the error goes
        to whoever used the proxy, nothing is kept, and the next use tries again. If it
        returns another proxy, that one's object is taken.

    Raises
    ------
    TypeError
        *load* is not callable.
    RuntimeError
        At a use: *load* itself uses the proxy that it is to load, or two loads in two
        threads wait for each other.

    Notes
    -----
    *Threads.* One thread loads; the others that need the object wait for it, and get
    the error if there is one.

    *Pickles and copies* are of the object, and need no ctxpool to be read. Weak
    references are to the proxy. Augmented assignment (``proxy += other``) leaves a
    mutable object behind its proxy and gives a new one, as of an ``int``, by itself.

    *What a proxy can't hide*: ``type(proxy)`` and ``is``; C code that asks for an exact
    type (``"".join([proxy])``); that it is no sequence or mapping to ``match``; that a
    function's proxy in a class makes no method (to look at a class loads nothing); and
    that this type has every special method, so that ``callable(proxy)`` and the
    one-method classes of :mod:`collections.abc` say yes
    (``hasattr(proxy, "__iter__")`` tells the truth). ``memoryview(proxy)`` is for the
    native twin, and for both from Python 3.12 on.

    *Cost.* A use costs the object's own and a few nanoseconds (native).

    Examples
    --------
    >>> from ctxpool import LazyProxy
    >>> numbers = LazyProxy(lambda: print("loading") or [3, 1, 2])
    >>> LazyProxy.is_loaded(numbers)
    False
    >>> len(numbers)
    loading
    3
    >>> sorted(numbers), isinstance(numbers, list)
    ([1, 2, 3], True)
    """

    __slots__ = ("__weakref__", "_pending", "_target")

    def __new__(cls, load: Callable[[], Any]) -> "LazyProxy":
        pending = support.Pending(load)
        self = object.__new__(cls)
        _set(self, "_pending", pending)
        return self

    def __init_subclass__(cls) -> None:
        raise TypeError("type 'ctxpool.LazyProxy' is not an acceptable base type")

    @staticmethod
    def is_loaded(proxy: Any) -> bool:
        """Whether *proxy* has its object. Loads nothing.

        A static method, to be called on the class: ``proxy.is_loaded`` would be an
        attribute of the object.

        Raises
        ------
        TypeError
            *proxy* is no LazyProxy.

        Examples
        --------
        >>> LazyProxy.is_loaded(LazyProxy(dict))
        False
        """
        return _get(_checked(proxy), "_pending") is None

    @staticmethod
    def loaded(proxy: Any) -> Any:
        """The object of *proxy* itself, loaded if it was not.

        A static method, to be called on the class: ``proxy.loaded`` would be an
        attribute of the object.

        Raises
        ------
        TypeError
            *proxy* is no LazyProxy.

        Examples
        --------
        >>> type(LazyProxy.loaded(LazyProxy(dict)))
        <class 'dict'>
        """
        return _target(_checked(proxy))

    def __getattribute__(self, name: str) -> Any:
        try:
            return getattr(_target(self), name)
        except AttributeError:
            if name == "__mro_entries__":  # see base_of
                return support.base_of(_target(self))
            raise

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(_target(self), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(_target(self), name)

    def __hash__(self) -> int:
        return hash(_target(self))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _target(self)(*args, **kwargs)

    def __setitem__(self, key: Any, value: Any) -> None:
        _target(self)[key] = value

    def __delitem__(self, key: Any) -> None:
        del _target(self)[key]

    def __eq__(self, other: Any) -> Any:
        return _target(self) == other

    def __ne__(self, other: Any) -> Any:
        return _target(self) != other

    def __lt__(self, other: Any) -> Any:
        return _target(self) < other

    def __le__(self, other: Any) -> Any:
        return _target(self) <= other

    def __gt__(self, other: Any) -> Any:
        return _target(self) > other

    def __ge__(self, other: Any) -> Any:
        return _target(self) >= other

    def __divmod__(self, other: Any) -> Any:
        return divmod(_target(self), other)

    def __rdivmod__(self, other: Any) -> Any:
        return divmod(other, _target(self))

    def __pow__(self, other: Any, mod: Any = None) -> Any:
        return pow(_target(self), other, mod)

    def __rpow__(self, other: Any, mod: Any = None) -> Any:
        return pow(other, _target(self), mod)

    def __ipow__(self, other: Any) -> Any:  # type: ignore[misc]
        target = _target(self)
        target **= other
        return _kept(self, target)

    def __repr__(self) -> str:
        return repr(_target(self))

    def __str__(self) -> str:
        return str(_target(self))

    def __bytes__(self) -> bytes:
        return bytes(_target(self))

    def __format__(self, spec: str) -> str:
        return format(_target(self), spec)

    def __dir__(self) -> Any:
        return dir(_target(self))

    def __bool__(self) -> bool:
        return bool(_target(self))

    def __len__(self) -> int:
        return len(_target(self))

    def __iter__(self) -> Any:
        return iter(_target(self))

    def __next__(self) -> Any:
        return next(_target(self))

    def __reversed__(self) -> Any:
        return reversed(_target(self))

    def __length_hint__(self) -> int:
        return operator.length_hint(_target(self))

    def __contains__(self, item: Any) -> bool:
        return item in _target(self)

    def __getitem__(self, key: Any) -> Any:
        return _target(self)[key]

    def __neg__(self) -> Any:
        return -_target(self)

    def __pos__(self) -> Any:
        return +_target(self)

    def __invert__(self) -> Any:
        return ~_target(self)

    def __abs__(self) -> Any:
        return abs(_target(self))

    def __int__(self) -> int:
        return int(_target(self))

    def __float__(self) -> float:
        return float(_target(self))

    def __complex__(self) -> complex:
        return complex(_target(self))

    def __index__(self) -> int:
        return operator.index(_target(self))

    def __round__(self, *digits: Any) -> Any:
        return round(_target(self), *digits)

    def __trunc__(self) -> Any:
        return math.trunc(_target(self))

    def __floor__(self) -> Any:
        return math.floor(_target(self))

    def __ceil__(self) -> Any:
        return math.ceil(_target(self))

    def __fspath__(self) -> Any:
        return os.fspath(_target(self))

    def __instancecheck__(self, instance: Any) -> bool:
        return isinstance(instance, _target(self))

    def __subclasscheck__(self, cls: Any) -> bool:
        return issubclass(cls, _target(self))

    def __enter__(self) -> Any:
        return support.context_manager(_target(self), "__enter__", "__exit__")()

    def __exit__(self, exc_type: Any, exc: Any, tb: Any) -> Any:
        return _target(self).__exit__(exc_type, exc, tb)

    def __aenter__(self) -> Any:
        return support.context_manager(_target(self), "__aenter__", "__aexit__")()

    def __aexit__(self, exc_type: Any, exc: Any, tb: Any) -> Any:
        return _target(self).__aexit__(exc_type, exc, tb)

    def __await__(self) -> Any:
        return support.awaited(_target(self))

    def __aiter__(self) -> Any:
        return aiter(_target(self))

    def __anext__(self) -> Any:
        return anext(_target(self))

    def __copy__(self) -> Any:
        return copy.copy(_target(self))

    def __add__(self, other: Any) -> Any:
        return _target(self) + other

    def __radd__(self, other: Any) -> Any:
        return other + _target(self)

    def __iadd__(self, other: Any) -> Any:
        target = _target(self)
        target += other
        return _kept(self, target)

    def __sub__(self, other: Any) -> Any:
        return _target(self) - other

    def __rsub__(self, other: Any) -> Any:
        return other - _target(self)

    def __isub__(self, other: Any) -> Any:
        target = _target(self)
        target -= other
        return _kept(self, target)

    def __mul__(self, other: Any) -> Any:
        return _target(self) * other

    def __rmul__(self, other: Any) -> Any:
        return other * _target(self)

    def __imul__(self, other: Any) -> Any:
        target = _target(self)
        target *= other
        return _kept(self, target)

    def __matmul__(self, other: Any) -> Any:
        return _target(self) @ other

    def __rmatmul__(self, other: Any) -> Any:
        return other @ _target(self)

    def __imatmul__(self, other: Any) -> Any:
        target = _target(self)
        target @= other
        return _kept(self, target)

    def __truediv__(self, other: Any) -> Any:
        return _target(self) / other

    def __rtruediv__(self, other: Any) -> Any:
        return other / _target(self)

    def __itruediv__(self, other: Any) -> Any:
        target = _target(self)
        target /= other
        return _kept(self, target)

    def __floordiv__(self, other: Any) -> Any:
        return _target(self) // other

    def __rfloordiv__(self, other: Any) -> Any:
        return other // _target(self)

    def __ifloordiv__(self, other: Any) -> Any:
        target = _target(self)
        target //= other
        return _kept(self, target)

    def __mod__(self, other: Any) -> Any:
        return _target(self) % other

    def __rmod__(self, other: Any) -> Any:
        return other % _target(self)

    def __imod__(self, other: Any) -> Any:
        target = _target(self)
        target %= other
        return _kept(self, target)

    def __lshift__(self, other: Any) -> Any:
        return _target(self) << other

    def __rlshift__(self, other: Any) -> Any:
        return other << _target(self)

    def __ilshift__(self, other: Any) -> Any:
        target = _target(self)
        target <<= other
        return _kept(self, target)

    def __rshift__(self, other: Any) -> Any:
        return _target(self) >> other

    def __rrshift__(self, other: Any) -> Any:
        return other >> _target(self)

    def __irshift__(self, other: Any) -> Any:
        target = _target(self)
        target >>= other
        return _kept(self, target)

    def __and__(self, other: Any) -> Any:
        return _target(self) & other

    def __rand__(self, other: Any) -> Any:
        return other & _target(self)

    def __iand__(self, other: Any) -> Any:
        target = _target(self)
        target &= other
        return _kept(self, target)

    def __xor__(self, other: Any) -> Any:
        return _target(self) ^ other

    def __rxor__(self, other: Any) -> Any:
        return other ^ _target(self)

    def __ixor__(self, other: Any) -> Any:
        target = _target(self)
        target ^= other
        return _kept(self, target)

    def __or__(self, other: Any) -> Any:
        return _target(self) | other

    def __ror__(self, other: Any) -> Any:
        return other | _target(self)

    def __ior__(self, other: Any) -> Any:
        target = _target(self)
        target |= other
        return _kept(self, target)

    if sys.version_info >= (3, 12):

        def __buffer__(self, flags: int) -> memoryview:
            return memoryview(_target(self))


def _checked(proxy: Any) -> LazyProxy:
    if type(proxy) is not LazyProxy:
        raise TypeError(f"a LazyProxy is needed, not {type(proxy).__name__}")
    return proxy


def _target(proxy: LazyProxy) -> Any:
    """The object of *proxy*, loaded if need be."""
    pending = _get(proxy, "_pending")
    if pending is not None:
        value = pending.result()
        _set(proxy, "_target", value)  # by each thread that waited: the same object
        _set(proxy, "_pending", None)
    return _get(proxy, "_target")


def _kept(proxy: LazyProxy, result: Any) -> Any:
    """What an augmented assignment gives: the proxy, if its object changed in place."""
    return proxy if result is _get(proxy, "_target") else result


support.publish(LazyProxy)
