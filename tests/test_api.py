"""The twins have the same face: names, signatures, docstrings."""

import inspect
from typing import Any

import pytest

import ctxpool
from ctxpool import errors

CLASSES = [
    "Block",
    "BlockPool",
    "Cache",
    "CachedFunction",
    "LRUCache",
    "LazyProxy",
    "MarkovModel",
    "SharedBlock",
    "SharedBlockPool",
    "ObjectLease",
    "ObjectPool",
    "PrefixBlockManager",
    "TokenWindow",
]
PROTOCOLS = [
    "__len__ __iter__ __reversed__ __contains__ __getitem__ __setitem__ __delitem__",
    "__enter__ __exit__ __aenter__ __aexit__ __copy__ __deepcopy__ __buffer__ __bool__",
    "__array__ __index__ __int__ __class_getitem__ __missing__ __call__ __or__ __ior__",
]
OWN = ["__eq__", "__repr__", "__str__", "__reduce__", "__reduce_ex__"]


def public(cls: type) -> list[str]:
    return [name for name in dir(cls) if not name.startswith("_")]


def shape(signature: inspect.Signature) -> list[tuple[Any, ...]]:
    """Names, kinds and defaults: annotations live in the pure twin alone."""
    return [(p.name, p.kind, p.default) for p in signature.parameters.values()]


@pytest.fixture(params=CLASSES)
def pair(request: pytest.FixtureRequest, twins: Any) -> tuple[type, type]:
    return getattr(twins[0], request.param), getattr(twins[1], request.param)


def test_names(pair: tuple[type, type]) -> None:
    native, pure = pair
    assert public(native) == public(pure)
    assert native.__name__ == pure.__name__
    for name in public(native):
        a, b = getattr(native, name), getattr(pure, name)
        assert callable(a) == callable(b), name


def test_protocols(pair: tuple[type, type]) -> None:
    native, pure = pair
    for name in " ".join(PROTOCOLS).split():
        assert hasattr(native, name) == hasattr(pure, name), name
    for name in OWN:  # everything has them: whose are they?
        inherited = getattr(object, name)
        assert (getattr(native, name) is inherited) == (
            getattr(pure, name) is inherited
        ), name
    assert (native.__hash__ is None) == (pure.__hash__ is None)


def test_signature_of_the_class(pair: tuple[type, type]) -> None:
    native, pure = pair
    assert shape(inspect.signature(native)) == shape(inspect.signature(pure))


def test_signatures_of_the_methods(pair: tuple[type, type]) -> None:
    native, pure = pair
    for name in public(pure):
        if not callable(getattr(pure, name)):
            continue
        a = shape(inspect.signature(getattr(native, name)))
        b = shape(inspect.signature(getattr(pure, name)))
        if b and b[0][0] == "self":  # positional only in a C type, as it must be
            assert a[0][0] == "self", name
            a, b = a[1:], b[1:]
        assert a == b, name


def test_docstrings(pair: tuple[type, type]) -> None:
    native, pure = pair
    assert inspect.getdoc(native) == inspect.getdoc(pure)
    for name in public(pure):
        mine = getattr(pure, name).__doc__
        assert mine, f"{name} has no docstring"
        assert inspect.getdoc(getattr(native, name)) == inspect.getdoc(
            getattr(pure, name)
        ), name


def test_all_is_sorted_and_true() -> None:
    for module in (ctxpool, errors):
        assert module.__all__ == sorted(set(module.__all__))
        assert all(hasattr(module, name) for name in module.__all__)
    for name in CLASSES:
        assert name in ctxpool.__all__


def test_errors_are_documented_and_catchable() -> None:
    assert errors.__doc__
    defined = {name for name, cls in vars(errors).items() if inspect.isclass(cls)}
    assert defined == set(errors.__all__)
    for name in errors.__all__:
        cls = getattr(errors, name)
        assert cls.__doc__, name
        assert issubclass(cls, errors.CtxPoolError)
        if cls is not errors.CtxPoolError:
            others = [b for b in cls.__mro__ if b.__module__ == "builtins"]
            assert others[0] is not Exception, f"{name} is no built-in exception"
