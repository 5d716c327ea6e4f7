"""ctxpool.lru_cache, beyond what CPython's own tests of functools ask."""

import copy
import functools
import gc
import pickle
import random
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import ctxpool
from ctxpool.caches import decorators


@pytest.fixture(autouse=True)
def _back_end(impl: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decorators, "CachedFunction", impl.CachedFunction)


lru_cache = decorators.lru_cache
ttl_cache = decorators.ttl_cache


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def recorded(**options: Any) -> tuple[Any, list[Any]]:
    calls: list[Any] = []

    @lru_cache(**options)
    def f(*args: Any, **kwargs: Any) -> Any:
        calls.append((args, kwargs))
        return len(calls)

    return f, calls


def test_the_facade_offers_them() -> None:
    assert ctxpool.lru_cache is decorators.lru_cache
    assert ctxpool.ttl_cache is decorators.ttl_cache
    assert ctxpool.cached_method is decorators.cached_method
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        ctxpool.nothing  # noqa: B018


ARGUMENTS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((), {}),
    *[((x,), {}) for x in (1, True, 1.0, "1", b"1", None, (1,), 2**70, -1, -2, "")],
    *[((1, x), {}) for x in (1, True, 1.0, "1", b"1", None, (1,), 2**70, -1, -2)],
    ((1,), {"a": 1}),
    ((1,), {"a": 1.0}),
    ((), {"a": 1, "b": 2}),
    ((), {"b": 2, "a": 1}),
    ((), {"a": (1, "b")}),
    (("a", 1), {}),
    ((int,), {}),
    ((1, int), {}),
    ((1, "a", 1), {}),
    ((frozenset("ab"), 1 + 0j, 1j), {}),
]


@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize("maxsize", [0, 1, 3, 10, None])
def test_it_is_functools(typed: bool, maxsize: int | None) -> None:
    """Random calls: the same results, calls and counts after each."""
    rng = random.Random(1)
    mine, theirs = (
        make(maxsize=maxsize, typed=typed)(lambda *args, **kwargs: object())
        for make in (lru_cache, functools.lru_cache)
    )
    seen: dict[int, Any] = {}
    for _ in range(3000):
        args, kwargs = rng.choice(ARGUMENTS)
        a, b = mine(*args, **kwargs), theirs(*args, **kwargs)
        assert seen.setdefault(id(b), (b, a))[1] is a
        assert mine.cache_info() == theirs.cache_info()
        if rng.random() < 0.005:
            mine.cache_clear()
            theirs.cache_clear()
    assert mine.cache_parameters() == theirs.cache_parameters()
    assert repr(mine.cache_info()) == repr(theirs.cache_info())


def test_arguments_of_the_decorator() -> None:
    for make in (lru_cache, functools.lru_cache):
        for bad in ("3", 3.0, []):
            with pytest.raises(
                TypeError,
                match="Expected first argument to be an integer, a callable, or None",
            ):
                make(bad)
        with pytest.raises(TypeError, match="the first argument must be callable"):
            make(3)(4)
    assert lru_cache(-3)(len).cache_parameters() == {"maxsize": 0, "typed": False}
    with pytest.raises(ValueError, match="ttl must be positive, not 0"):
        lru_cache(ttl=0)(len)
    with pytest.raises(TypeError, match="key must be callable, not 3"):
        lru_cache(key=3)(len)
    with pytest.raises(TypeError, match="getsizeof must be callable, not 3"):
        lru_cache(getsizeof=3)(len)


def test_unhashable_and_exceptions() -> None:
    f, calls = recorded()
    for bad in (([],), (1, [])):
        with pytest.raises(TypeError, match="unhashable type: 'list'"):
            f(*bad)
    with pytest.raises(TypeError, match="unhashable"):
        f(a=[])
    assert not calls

    @lru_cache
    def fails(n: int) -> None:
        calls.append(n)
        raise KeyError(n)

    for _ in range(2):
        with pytest.raises(KeyError):
            fails(3)
    assert calls == [3, 3]
    assert fails.cache_info() == (0, 2, 128, 0)


@lru_cache
def by_name(n: int) -> int:
    return n


def test_pickle_copy_weakref() -> None:
    assert pickle.loads(pickle.dumps(by_name)) is by_name
    assert copy.copy(by_name) is by_name
    assert copy.deepcopy(by_name) is by_name
    assert by_name.__wrapped__(3) == 3
    assert by_name.__name__ == "by_name"
    f, _ = recorded()
    ref = weakref.ref(f)
    f.anything = 3
    assert f.anything == 3
    del f, _
    gc.collect()
    assert ref() is None


def test_methods() -> None:
    class Point:
        @lru_cache
        def add(self, n: int) -> Any:
            return self, n

        @staticmethod
        @lru_cache
        def static(n: int) -> int:
            return n

        @classmethod
        @lru_cache
        def of_class(cls, n: int) -> Any:
            return cls, n

    p, q = Point(), Point()
    assert p.add(3) == (p, 3)
    assert q.add(n=3) == (q, 3)
    assert Point.add(p, 3) == (p, 3)
    assert p.add.cache_info().hits == 1
    assert p.static(2) == Point.static(2) == 2
    assert p.of_class(2) == (Point, 2)


def test_cycles_are_collected() -> None:
    class Value:
        pass

    value: Any = Value()

    @lru_cache
    def f(*args: Any, kept: Any = value) -> Any:
        return kept

    value.f = f
    f(1), f(1, 2)
    ref = weakref.ref(value)
    del f, value
    gc.collect()
    assert ref() is None


def test_references_are_given_back() -> None:
    if (
        not hasattr(sys, "getrefcount")
        or not getattr(sys, "_is_gil_enabled", lambda: True)()
    ):
        pytest.skip("counts of references are exact with a GIL only")
    thing, argument = object(), ("an", "argument")
    before = sys.getrefcount(thing), sys.getrefcount(argument)

    @lru_cache(2)
    def f(*args: Any, **kwargs: Any) -> Any:
        return thing

    for i in range(20):
        f(argument), f(argument, i), f(argument, i, k=argument), f(i)
    f.cache_clear()
    assert (sys.getrefcount(thing), sys.getrefcount(argument)) == before


def test_eq_that_clears() -> None:
    class Hostile:
        armed = False

        def __hash__(self) -> int:
            return 1

        def __eq__(self, other: object) -> bool:
            if Hostile.armed:
                f.cache_clear()
                for i in range(50):
                    f(i, i)
            return False

    f, _ = recorded(maxsize=20)
    for _ in range(5):
        f(Hostile(), 1)
    Hostile.armed = True
    for _ in range(5):
        f(Hostile(), 1)
        f(Hostile(), a=Hostile())
    Hostile.armed = False
    assert f.cache_info().currsize <= 20


def test_eq_that_raises() -> None:
    class Bad:
        def __hash__(self) -> int:
            return 1

        def __eq__(self, other: object) -> bool:
            raise ZeroDivisionError

    f, calls = recorded()
    f(Bad(), 1)
    with pytest.raises(ZeroDivisionError):
        f(Bad(), 1)
    assert len(calls) == 1


def test_recursion() -> None:
    @lru_cache(None)
    def fib(n: int) -> int:
        return n if n < 2 else fib(n - 1) + fib(n - 2)

    assert fib(100) == 354224848179261915075
    depth = [0]

    @lru_cache
    def same(n: int) -> int:
        depth[0] += 1
        return same(n) if depth[0] < 3 else depth[0]

    assert same(1) == 3
    assert same(1) == 3
    assert depth == [3]


def test_every_way_to_call() -> None:
    f, calls = recorded()
    assert f(1, a=2) == f.__call__(1, a=2) == f(*[1], a=2) == 1
    assert functools.partial(f, 1)(a=2) == type(f).__call__(f, 1, a=2) == 1
    assert list(map(f, [3, 3])) == [2, 2]
    assert len(calls) == 2


def test_a_call_while_the_collector_clears() -> None:
    class Caller:
        def __del__(self) -> None:
            told.append(self.f(1))

    told: list[Any] = []
    f, _ = recorded()
    caller: Any = Caller()
    caller.f, f.caller = f, caller
    del f, _, caller
    gc.collect()
    assert told == [1]


def test_ttl() -> None:
    clock = Clock()
    f, calls = recorded(ttl=10, timer=clock)
    assert f(1) == f(1) == 1
    clock.now = 9.9
    assert f(1) == 1
    clock.now = 10
    assert f(1) == 2
    assert f.cache_info() == (2, 2, 128, 1)
    assert f(1, 2, a=3) == f(1, 2, a=3) == 3
    clock.now = 30
    assert f.cache_info().currsize == 0
    assert len(calls) == 3


def test_ttl_cache() -> None:
    clock = Clock()

    @ttl_cache(maxsize=2, timer=clock)
    def f(n: int) -> object:
        return object()

    first = f(1)
    clock.now = 599
    assert f(1) is first
    clock.now = 600
    assert f(1) is not first
    bare = ttl_cache(len)
    assert bare("abc") == 3
    assert bare.cache_parameters() == {"maxsize": 128, "typed": False, "ttl": 600}


def test_key() -> None:
    f, calls = recorded(key=lambda x, **rest: x % 10)
    assert f(3) == f(13) == f(23, extra=1) == 1
    assert calls == [((3,), {})]
    with pytest.raises(TypeError):
        f()


def test_getsizeof() -> None:
    @lru_cache(10, getsizeof=len)
    def f(n: int) -> str:
        return "x" * n

    assert len(f(4)) == 4
    assert len(f(5)) == 5
    assert f.cache_info().currsize == 9
    assert len(f(11)) == 11  # too large: returned, not kept
    assert f.cache_info() == (0, 3, 10, 9)
    f(6)
    assert f.cache_info().currsize == 6


@pytest.mark.parametrize("options", [{}, {"ttl": 60}, {"maxsize": None}])
def test_one_call_among_threads(options: Any) -> None:
    f, calls, gate = None, [], threading.Event()

    @lru_cache(single_flight=True, **options)
    def slow(n: int) -> int:
        calls.append(n)
        gate.wait(10)
        return n

    f, got = slow, []
    threads = [threading.Thread(target=lambda: got.append(f(5))) for _ in range(6)]
    for thread in threads:
        thread.start()
    while not calls:
        pass
    gate.set()
    for thread in threads:
        thread.join(20)
    assert got == [5] * 6
    assert calls == [5]
    assert slow(5) == 5


@pytest.mark.parametrize("options", [{}, {"maxsize": None}, {"ttl": 60.0}])
def test_threads(options: Any) -> None:
    options = {"maxsize": 50, **options}

    @lru_cache(**options)
    def f(a: int, b: str = "") -> Any:
        return a, b

    errors: list[BaseException] = []
    barrier = threading.Barrier(4)

    def work(seed: int) -> None:
        rng = random.Random(seed)
        barrier.wait(10)
        try:
            for i in range(3000):
                n = rng.randrange(100)
                assert f(n) == (n, "")
                assert f(n, "x") == (n, "x")
                assert f(n, b=str(n)) == (n, str(n))
                if i % 500 == 0:
                    f.cache_clear()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors
    if options["maxsize"]:
        assert f.cache_info().currsize <= 50


def test_same_errors_and_hooks_of_builtins() -> None:
    cached: Callable[..., Any] = lru_cache(max)
    assert cached(1, 2) == cached(1, 2) == 2
    assert cached.cache_info().hits == 1
    with pytest.raises(TypeError):
        cached()
