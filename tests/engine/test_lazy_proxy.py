"""LazyProxy: transparent, loaded once, never half loaded."""

import asyncio
import collections.abc
import copy
import functools
import gc
import io
import math
import operator
import os
import pickle
import sys
import threading
import time
import types
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePosixPath
from types import SimpleNamespace
from typing import Any

import pytest

BINARY = [
    *(operator.add, operator.sub, operator.mul, operator.matmul, operator.truediv),
    *(operator.floordiv, operator.mod, operator.lshift, operator.rshift),
    *(operator.and_, operator.or_, operator.xor, operator.pow, divmod),
    *(operator.lt, operator.le, operator.eq, operator.ne, operator.gt, operator.ge),
    *(operator.getitem, operator.contains, isinstance, format, round, getattr),
]


def pickled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


UNARY = [
    *(operator.neg, operator.pos, operator.invert, abs, bool, int, float, complex),
    *(operator.index, round, math.trunc, math.floor, math.ceil, len, hash, repr, str),
    *(bytes, list, sorted, reversed, next, dir, operator.length_hint, os.fspath),
    *(memoryview, callable, copy.copy, copy.deepcopy, pickled, vars, set, dict),
]
INPLACE = [
    *(operator.iadd, operator.isub, operator.imul, operator.imatmul),
    *(operator.itruediv, operator.ifloordiv, operator.imod, operator.ilshift),
    *(operator.irshift, operator.iand, operator.ior, operator.ixor, operator.ipow),
]


class Matrix:
    def __matmul__(self, other: Any) -> Any:
        return ("matmul", other)

    def __rmatmul__(self, other: Any) -> Any:
        return ("rmatmul", other)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Matrix)

    def __hash__(self) -> int:
        return 7


# Each call makes it anew: operations change some of them.
OBJECTS: list[Callable[[], Any]] = [
    *(lambda: 7, lambda: True, lambda: 2.5, lambda: 1 + 2j, lambda: Fraction(7, 2)),
    *(lambda: Decimal("1.25"), lambda: "text %s", lambda: b"raw", lambda: None),
    *(lambda: [3, 1, 2], lambda: (1, 2), lambda: {"a": 1}, lambda: {1, 2}),
    *(lambda: frozenset({1}), lambda: bytearray(b"ab"), lambda: range(5)),
    *(lambda: iter([1, 2]), lambda: PurePosixPath("a/b"), lambda: int, Matrix),
    *(lambda: collections.Counter("aab"), lambda: len, lambda: io.StringIO("x")),
]
OTHERS: list[Callable[[], Any]] = [
    *(lambda: 2, lambda: 0, lambda: "a", lambda: [1], lambda: {1, 3}, lambda: (2,)),
    *(lambda: {"b": 2}, lambda: 1.5, Matrix, lambda: "real", lambda: int),
]


def outcome(operation: Callable[..., Any], *args: Any) -> Any:
    """What came of it, in a form that compares."""
    try:
        result = operation(*args)
    except Exception as error:
        return type(error)
    if type(result).__name__ == "LazyProxy":
        result = type(result).loaded(result)
    if isinstance(result, memoryview):
        return result.tobytes()
    if isinstance(result, collections.abc.Iterator):
        return type(result), list(result)
    if " at 0x" in repr(result):  # another object at each call
        result = repr(result).split(" at 0x")[0]
    return result.__class__, result


def needs_buffers(impl: SimpleNamespace) -> None:
    if impl.backend == "pure" and sys.version_info < (3, 12):
        pytest.skip("Python code exports no buffers before 3.12")


@pytest.mark.parametrize("operation", UNARY)
def test_unary(impl: SimpleNamespace, operation: Any) -> None:
    if operation is callable:
        return  # of every proxy, as documented
    if (
        operation is memoryview
        and impl.backend == "pure"
        and sys.version_info < (3, 12)
    ):
        pytest.skip("Python code exports no buffers before 3.12")
    for make in OBJECTS:
        one = make()
        other = one if operation is hash else make()  # some hashes are of addresses
        proxy = impl.LazyProxy(lambda other=other: other)
        assert outcome(operation, proxy) == outcome(operation, one), one


PAIRS = [(make, other) for make in OBJECTS for other in OTHERS]
# These ask for an exact type on their right.
STRICT = [isinstance, getattr, format, round, operator.mod]
STRICT += [operator.contains, operator.getitem]


@pytest.mark.parametrize("operation", BINARY)
def test_binary_both_ways(impl: SimpleNamespace, operation: Any) -> None:
    for make, other in PAIRS:
        expected = outcome(operation, make(), other())
        assert outcome(operation, impl.LazyProxy(make), other()) == expected
        expected = outcome(operation, other(), make())
        if operation not in STRICT and expected is not TypeError:
            assert outcome(operation, other(), impl.LazyProxy(make)) == expected


@pytest.mark.parametrize("operation", INPLACE)
def test_in_place(impl: SimpleNamespace, operation: Any) -> None:
    for make, other in PAIRS:
        expected = outcome(operation, make(), other())
        assert outcome(operation, impl.LazyProxy(make), other()) == expected


def test_in_place_keeps_the_proxy_of_what_changed(impl: SimpleNamespace) -> None:
    items: list[int] = []
    proxy = also = impl.LazyProxy(lambda: items)
    proxy += [1]
    assert proxy is also
    assert items == [1]
    number = same = impl.LazyProxy(lambda: 1)
    number += 1
    assert (type(number), number, same) == (int, 2, 1)


def test_both_sides_are_proxies(impl: SimpleNamespace) -> None:
    def proxy(value: Any) -> Any:
        return impl.LazyProxy(lambda: value)

    assert proxy(3) + proxy(4) == proxy(7)
    assert proxy([1]) + proxy([2]) == [1, 2]
    assert proxy(2) ** proxy(5) == 32
    assert pow(proxy(2), 5, 7) == 4
    assert proxy({1}) < proxy({1, 2})
    assert {proxy("k"): 1}["k"] == 1
    assert isinstance(proxy(3), proxy(int))


def special_methods() -> set[str]:
    """All that CPython looks up on a type: the names of the slots of all built-ins, and
    those that its functions and statements ask for by name."""
    found = set()
    for cls in object.__subclasses__():
        for name, value in vars(cls).items():
            if isinstance(value, types.WrapperDescriptorType):
                found.add(name)
    found |= {"__bytes__", "__format__", "__dir__", "__reversed__", "__length_hint__"}
    found |= {"__complex__", "__round__", "__trunc__", "__floor__", "__ceil__"}
    found |= {"__fspath__", "__instancecheck__", "__subclasscheck__", "__enter__"}
    found |= {"__exit__", "__aenter__", "__aexit__", "__aiter__", "__anext__"}
    return found


# Of the proxy itself, or of its type.
ITS_OWN = {"__init__", "__new__", "__del__", "__getattr__"}
# It is no descriptor, as documented.
ITS_OWN |= {"__get__", "__set__", "__delete__"}
# What was exported is released by the object itself.
ITS_OWN |= {"__release_buffer__"}


def test_has_every_special_method(impl: SimpleNamespace) -> None:
    wanted = special_methods() - ITS_OWN
    assert {"__add__", "__await__", "__index__", "__imatmul__", "__next__"} <= wanted
    if impl.backend == "pure" and sys.version_info < (3, 12):
        wanted.discard("__buffer__")
    own = set(vars(impl.LazyProxy))
    if impl.backend == "native":  # slots that are no attributes before 3.12
        own |= {"__buffer__"}
    assert wanted <= own, wanted - own


def test_each_special_method_is_that_of_the_object(impl: SimpleNamespace) -> None:
    """An object that tells what was called on it, and with what."""
    special = special_methods() - ITS_OWN
    # Their arguments or results are not free: they have tests of their own.
    special -= {"__getattribute__", "__setattr__", "__delattr__", "__buffer__"}
    special -= {"__call__"}
    special -= {"__repr__", "__str__", "__hash__", "__bool__", "__len__", "__format__"}
    special -= {"__int__", "__float__", "__complex__", "__index__", "__bytes__"}
    special -= {"__dir__", "__fspath__", "__length_hint__", "__contains__"}
    special -= {
        "__setitem__",
        "__delitem__",
        "__iter__",
        "__aiter__",
        "__await__",
        "__enter__",
    }
    special -= {"__exit__", "__aenter__", "__aexit__", "__instancecheck__"}
    special -= {"__subclasscheck__", "__reversed__", "__round__"}

    def teller(name: str) -> Any:
        return lambda self, *args: (name, *args)

    cls = type("Teller", (), {name: teller(name) for name in special})
    proxy = impl.LazyProxy(cls)
    other = object()
    for name in sorted(special):
        method = getattr(type(proxy), name)
        if name in UNARY_NAMES:
            assert method(proxy) == (name,)
        else:
            more = (None,) if name in ("__pow__", "__rpow__") else ()
            assert method(proxy, other, *more) == (name, other), name


UNARY_NAMES = {"__neg__", "__pos__", "__invert__", "__abs__", "__next__", "__anext__"}
UNARY_NAMES |= {"__trunc__", "__floor__", "__ceil__"}


def test_is_no_descriptor(impl: SimpleNamespace) -> None:
    """Else to look at a class would load what is in it."""
    loads: list[int] = []

    class Settings:
        data = impl.LazyProxy(lambda: loads.append(1) or [1, 2])

    assert type(Settings.data) is type(Settings().data) is impl.LazyProxy
    assert not loads
    assert Settings().data == [1, 2]


def test_calls(impl: SimpleNamespace) -> None:
    def function(*args: Any, **kwargs: Any) -> Any:
        return args, kwargs

    proxy = impl.LazyProxy(lambda: function)
    assert proxy() == ((), {})
    assert proxy(1, *[2, 3], a=4, b=5) == ((1, 2, 3), {"a": 4, "b": 5})
    assert proxy.__call__(1, a=2) == type(proxy).__call__(proxy, 1, a=2)
    assert functools.partial(proxy, 1)(2, a=3) == ((1, 2), {"a": 3})
    assert list(map(proxy, [1])) == [((1,), {})]
    method = impl.LazyProxy(lambda: [3, 1].append)
    assert method(2) is None
    with pytest.raises(TypeError, match="'int' object is not callable"):
        impl.LazyProxy(lambda: 5)()
    with pytest.raises(TypeError, match="takes no keyword"):
        impl.LazyProxy(lambda: len)(x=1)
    with pytest.raises(ZeroDivisionError):
        impl.LazyProxy(lambda: 1 / 0)(1)
    assert impl.LazyProxy(lambda: dict)(a=1) == {"a": 1}


def test_containers(impl: SimpleNamespace) -> None:
    inner = {"a": 1}
    proxy = impl.LazyProxy(lambda: inner)
    proxy["b"] = 2
    del proxy["a"]
    assert inner == {"b": 2} == dict(proxy) == {**proxy}
    assert [*proxy] == ["b"]
    assert proxy.get("x", 3) == 3
    missing = impl.LazyProxy(lambda: collections.defaultdict(list))
    missing["new"].append(1)
    assert missing == {"new": [1]}
    items = impl.LazyProxy(lambda: [1, 2, 3, 4])
    items[1:3] = [9]
    del items[-1]
    assert items == [1, 9]
    assert ["x", "y"][impl.LazyProxy(lambda: 1)] == "y"


def test_attributes(impl: SimpleNamespace) -> None:
    inner = SimpleNamespace(loaded=5, _target=6, target=7)
    proxy = impl.LazyProxy(lambda: inner)
    proxy.x = 1
    del proxy.target
    assert inner == SimpleNamespace(loaded=5, _target=6, x=1)
    assert (proxy.loaded, proxy._target, proxy.x) == (5, 6, 1)
    assert proxy.__class__ is SimpleNamespace
    assert vars(proxy) is vars(inner)
    assert isinstance(proxy, SimpleNamespace)
    with pytest.raises(AttributeError, match="nothing"):
        _ = proxy.nothing
    with pytest.raises(AttributeError):
        del proxy.nothing


def test_of_functions_and_classes(impl: SimpleNamespace) -> None:
    def function(*args: Any, **kwargs: Any) -> Any:
        return args, kwargs

    proxy = impl.LazyProxy(lambda: function)
    assert proxy(1, a=2) == ((1,), {"a": 2})
    assert proxy.__name__ == "function"
    cls = impl.LazyProxy(lambda: Matrix)

    class Derived(cls):  # type: ignore[misc]
        pass

    assert Derived.__bases__ == (Matrix,)
    assert isinstance(Derived(), cls)
    assert issubclass(Derived, cls)
    assert isinstance(cls(), Matrix)
    assert impl.LazyProxy(lambda: list)[int] == list[int]


def test_with(impl: SimpleNamespace) -> None:
    lock = threading.Lock()
    with impl.LazyProxy(lambda: lock):
        assert lock.locked()
    assert not lock.locked()
    message = "'int' object does not support the context manager protocol"
    with pytest.raises(TypeError, match=message), impl.LazyProxy(lambda: 5):
        raise AssertionError


def test_async(impl: SimpleNamespace) -> None:
    class Manager:
        async def __aenter__(self) -> str:
            return "in"

        async def __aexit__(self, *args: Any) -> bool:
            return True

    async def coroutine() -> int:
        await asyncio.sleep(0)
        return 5

    async def generate() -> Any:
        yield 1
        yield 2

    @types.coroutine
    def old() -> Any:
        yield
        return 6

    async def main() -> None:
        assert await impl.LazyProxy(coroutine) == 5
        assert await impl.LazyProxy(old) == 6
        assert [n async for n in impl.LazyProxy(generate)] == [1, 2]
        assert await anext(impl.LazyProxy(generate)) == 1
        async with impl.LazyProxy(Manager) as inside:
            assert inside == "in"
            raise ValueError  # which the manager swallows
        with pytest.raises(TypeError, match="object int can't be used in 'await'"):
            await impl.LazyProxy(lambda: 5)
        with pytest.raises(TypeError, match="asynchronous context manager"):
            async with impl.LazyProxy(lambda: 5):
                raise AssertionError

    asyncio.run(main())


def test_pickles_and_copies_are_of_the_object(impl: SimpleNamespace) -> None:
    shared = [1]
    proxy = impl.LazyProxy(lambda: shared)
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        both = pickle.loads(pickle.dumps((proxy, shared), protocol))
        assert type(both[0]) is list
        assert both[0] is both[1]
        assert b"ctxpool" not in pickle.dumps(proxy, protocol)
    assert pickle.loads(pickle.dumps(impl.LazyProxy(lambda: len))) is len
    assert copy.copy(proxy) == [1]
    assert copy.copy(proxy) is not shared
    deep = copy.deepcopy([shared, proxy])
    assert deep[0] is deep[1]
    assert deep[0] is not shared
    with pytest.raises(TypeError):
        pickle.dumps(impl.LazyProxy(threading.Lock))


def test_weak_references_are_to_the_proxy(impl: SimpleNamespace) -> None:
    proxy = impl.LazyProxy(lambda: 5)
    reference = weakref.ref(proxy)
    assert reference() is proxy
    assert not impl.LazyProxy.is_loaded(proxy)
    del proxy
    gc.collect()
    assert reference() is None


def test_exports_the_buffer_of_the_object(impl: SimpleNamespace) -> None:
    needs_buffers(impl)
    data = bytearray(b"abc")
    proxy = impl.LazyProxy(lambda: data)
    with memoryview(proxy) as view:
        view[0] = ord("x")
        with pytest.raises(BufferError):
            data.append(1)
    data.append(1)
    assert data == b"xbc\x01"
    before = sys.getrefcount(None)
    for _ in range(1000):
        memoryview(proxy).release()
    assert sys.getrefcount(None) - before < 500


def test_argument(impl: SimpleNamespace) -> None:
    with pytest.raises(TypeError, match="load must be callable, not 5"):
        impl.LazyProxy(5)
    with pytest.raises(TypeError):
        impl.LazyProxy()
    with pytest.raises(TypeError):
        type("Sub", (impl.LazyProxy,), {})
    for function in (impl.LazyProxy.is_loaded, impl.LazyProxy.loaded):
        with pytest.raises(TypeError, match="a LazyProxy is needed, not int"):
            function(5)


def test_loads_once_and_forgets_the_loader(impl: SimpleNamespace) -> None:
    class Load:
        calls = 0

        def __call__(self) -> list[int]:
            Load.calls += 1
            return [1]

    load = Load()
    reference = weakref.ref(load)
    proxy = impl.LazyProxy(load)
    del load
    assert Load.calls == 0
    assert not impl.LazyProxy.is_loaded(proxy)
    assert (len(proxy), proxy[0], bool(proxy)) == (1, 1, True)
    assert impl.LazyProxy.is_loaded(proxy)
    assert impl.LazyProxy.loaded(proxy) is impl.LazyProxy.loaded(proxy)
    assert Load.calls == 1
    gc.collect()
    assert reference() is None


def test_a_failed_load_raises_and_is_tried_again(impl: SimpleNamespace) -> None:
    errors = iter([OSError("a"), KeyboardInterrupt(), AttributeError("b")])

    def load() -> int:
        for error in errors:
            raise error
        return 5

    proxy = impl.LazyProxy(load)
    for expected in (OSError, KeyboardInterrupt, AttributeError):
        assert not impl.LazyProxy.is_loaded(proxy)
        with pytest.raises(expected):
            _ = proxy.real
    assert proxy == 5


def test_a_load_that_uses_its_own_proxy(impl: SimpleNamespace) -> None:
    seen = []

    def load() -> int:
        try:
            len(proxy)
        except RuntimeError as error:
            seen.append(str(error))
        return 5

    proxy = impl.LazyProxy(load)
    assert proxy == 5
    assert seen == ["the load of a LazyProxy needs what that proxy loads"]


def test_proxies_of_proxies(impl: SimpleNamespace, twins: Any) -> None:
    inner = twins[0].LazyProxy(lambda: 5)
    outer = impl.LazyProxy(lambda: twins[1].LazyProxy(lambda: inner))
    assert type(impl.LazyProxy.loaded(outer)) is int
    itself: list[Any] = []
    itself.append(impl.LazyProxy(lambda: itself[0]))
    with pytest.raises(RuntimeError, match="needs what that proxy loads"):
        str(itself[0])
    circle: list[Any] = [impl.LazyProxy(lambda: circle[1])]
    circle.append(twins[0].LazyProxy(lambda: circle[0]))
    with pytest.raises(RuntimeError, match="needs what that proxy loads"):
        hash(circle[1])


def test_containers_of_their_own_proxy(impl: SimpleNamespace) -> None:
    items: list[Any] = []
    items.append(impl.LazyProxy(lambda: items))
    assert repr(items) == "[[...]]"
    pair: tuple[Any, ...] = (impl.LazyProxy(lambda: pair),)
    for operation in (hash, lambda p: p == (p[0][0],) and hash(p)):
        with pytest.raises(RecursionError):
            operation(pair)


@pytest.mark.parametrize("fails", [False, True])
def test_one_thread_loads_for_all(impl: SimpleNamespace, fails: bool) -> None:
    for _ in range(20):
        calls: list[int] = []

        def load(calls: list[int] = calls) -> list[int]:
            calls.append(1)
            time.sleep(0.002)
            if fails and len(calls) == 1:
                raise OSError("no")
            return [5]

        proxy = impl.LazyProxy(load)
        start = threading.Barrier(4)

        def use(proxy: Any = proxy, start: Any = start) -> Any:
            start.wait()
            try:
                return id(impl.LazyProxy.loaded(proxy)), proxy[0]
            except OSError:
                return None

        with ThreadPoolExecutor(4) as pool:
            results = [f.result() for f in [pool.submit(use) for _ in range(4)]]
        if fails:
            assert None in results
            assert proxy[0] == 5
            assert len(calls) == 2
        else:
            assert len(set(results)) == 1
            assert len(calls) == 1


def test_two_loads_that_wait_for_each_other(impl: SimpleNamespace) -> None:
    """An error in one of them, and no hang."""
    start = threading.Barrier(2)
    proxies: list[Any] = []

    def load(other: int) -> int:
        start.wait()
        return proxies[other] + 1

    proxies.append(impl.LazyProxy(functools.partial(load, 1)))
    proxies.append(impl.LazyProxy(functools.partial(load, 0)))

    def use(proxy: Any) -> Any:
        try:
            return int(proxy)
        except RuntimeError as error:
            return str(error)

    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(use, proxies))
    assert set(results) == {"the load of a LazyProxy needs what that proxy loads"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_fork_in_the_middle_of_a_load(impl: SimpleNamespace) -> None:
    here, go = threading.Event(), threading.Event()

    def load() -> int:
        here.set()
        go.wait(10)
        return 5

    proxy = impl.LazyProxy(load)
    thread = threading.Thread(target=lambda: proxy == 5)
    thread.start()
    here.wait(10)
    child = os.fork()
    if child == 0:
        go.set()  # the child's load, for the parent's thread is not here
        os._exit(0 if proxy == 5 else 1)
    go.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert proxy == 5


def test_cycles_are_collected(impl: SimpleNamespace) -> None:
    class Node:
        proxy: Any

    def cycle(use: bool) -> Any:
        node = Node()
        node.proxy = impl.LazyProxy(lambda: (node, node.proxy))
        if use:
            len(node.proxy)
        return weakref.ref(node)

    references = [cycle(use) for use in (False, True) for _ in range(10)]
    gc.collect()
    assert [r() for r in references] == [None] * 20


def test_nothing_leaks(impl: SimpleNamespace) -> None:
    class Target:
        live = 0

        def __init__(self) -> None:
            type(self).live += 1

        def __del__(self) -> None:
            type(self).live -= 1

    def fail() -> None:
        raise ValueError("no")

    for _ in range(100):
        proxy = impl.LazyProxy(Target)
        str(proxy)
        with pytest.raises(AttributeError):
            _ = proxy.nothing
        with pytest.raises(ValueError, match="no"):
            bool(impl.LazyProxy(fail))
    del proxy
    gc.collect()
    assert Target.live == 0


def test_behaves_as_wrapt_does(impl: SimpleNamespace) -> None:
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        pytest.skip("importing wrapt may switch the GIL on")
    wrapt = pytest.importorskip("wrapt", minversion="2.0")
    for make in OBJECTS:
        for operation in UNARY:
            if operation in (repr, callable, hash):  # of the proxy; of an address
                continue
            theirs = outcome(operation, wrapt.LazyObjectProxy(make))
            ours = outcome(operation, impl.LazyProxy(make))
            if theirs in (TypeError, NotImplementedError, AttributeError):
                continue  # what it can't do
            assert ours == theirs, (operation, make())
