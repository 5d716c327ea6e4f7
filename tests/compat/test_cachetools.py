"""ctxpool.compat.cachetools: what every policy does, wherever conformance can't run."""

import pickle
import random
import threading
from collections.abc import MutableMapping
from typing import Any

import pytest

import ctxpool
from ctxpool.compat import cachetools
from ctxpool.compat.cachetools import func, keys


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def end_of(key: Any, value: Any, now: float) -> float:
    return now + 10


MAKERS = {
    "Cache": cachetools.Cache,
    "FIFOCache": cachetools.FIFOCache,
    "LFUCache": cachetools.LFUCache,
    "LRUCache": cachetools.LRUCache,
    "RRCache": cachetools.RRCache,
    "TTLCache": lambda maxsize, **kw: cachetools.TTLCache(maxsize, 10, **kw),
    "TLRUCache": lambda maxsize, **kw: cachetools.TLRUCache(maxsize, end_of, **kw),
}


@pytest.fixture(params=MAKERS)
def make(request: pytest.FixtureRequest) -> Any:
    return MAKERS[request.param]


def test_the_names() -> None:
    for name in cachetools.__all__:
        assert hasattr(cachetools, name)
    for name in MAKERS:
        assert issubclass(getattr(cachetools, name), cachetools.Cache)
    assert issubclass(cachetools.LRUCache, ctxpool.LRUCache)


def test_random_actions(make: Any) -> None:
    """Never over the bound, never a wrong value, sizes that add up."""
    rng = random.Random(3)
    cache = make(12, getsizeof=lambda value: value % 4)
    model: dict[int, int] = {}
    assert isinstance(cache, MutableMapping)
    for step in range(4000):
        key, value = rng.randrange(20), rng.randrange(100)
        action = rng.randrange(7)
        if action < 3:
            cache[key] = model[key] = value
        elif action == 3 and key in cache:
            del cache[key]
        elif action == 4:
            cache.pop(key, None)
        elif action == 5 and cache:
            cache.popitem()
        elif key in cache:
            assert cache[key] == model[key]
        assert cache.currsize == sum(v % 4 for v in cache.values()) <= 12
        assert all(model[k] == v for k, v in cache.items())
        assert len(cache) == len(list(cache))
        if step % 1000 == 999:
            cache.clear()
            assert (len(cache), cache.currsize) == (0, 0)
    with pytest.raises(ValueError, match=r"value too large: size 3, maxsize 1"):
        make(1, getsizeof=len)["a"] = "abc"


def test_pickle(make: Any) -> None:
    cache = make(3)
    cache.update({1: "a", 2: "b"})
    again = pickle.loads(pickle.dumps(cache))
    assert dict(again) == dict(cache)
    for n in range(5):
        again[n] = n
    assert len(again) == 3


def test_who_goes() -> None:
    fifo = cachetools.FIFOCache(2)
    fifo.update(a=1, b=2)
    assert fifo["a"] == 1
    fifo["c"] = 3
    assert set(fifo) == {"b", "c"}
    lfu = cachetools.LFUCache(2)
    lfu.update(a=1, b=2)
    assert (lfu["a"], lfu["a"], lfu["b"]) == (1, 1, 2)
    lfu["c"] = 3
    assert set(lfu) == {"a", "c"}
    del lfu["c"]
    assert lfu.popitem() == ("a", 1)
    lru = cachetools.LRUCache(2)
    lru.update(a=1, b=2)
    assert lru["a"] == 1
    lru["c"] = 3
    assert set(lru) == {"a", "c"}
    rr = cachetools.RRCache(2, choice=max)
    rr.update(a=1, b=2)
    rr["c"] = 3
    assert set(rr) == {"a", "c"}
    for empty in (fifo, lfu, lru, rr):
        empty.clear()
        with pytest.raises(KeyError):
            empty.popitem()


def test_time() -> None:
    clock = Clock()
    cache = cachetools.TTLCache(3, ttl=10, timer=clock)
    cache["a"] = 1
    clock.now = 5
    cache["b"] = 2
    clock.now = 10
    assert [*iter(cache)] == ["b"]  # list() asks for the length, which expires
    assert "a" not in cache
    assert cache.get("a") is None
    assert cache.expire() == [("a", 1)]
    assert cache.ttl == 10
    own = cachetools.TLRUCache(3, lambda key, value, now: now + value, timer=clock)
    own["short"], own["long"] = 1, 100
    own["never"] = 0
    assert set(own) == {"short", "long"}
    clock.now = 11
    assert own.expire() == [("short", 1)]
    with clock_stopped(own) as now:
        clock.now = 1000
        assert own.timer() == now
        assert "long" in own
    assert "long" not in own


def clock_stopped(cache: Any) -> Any:
    return cache.timer


def test_a_key_whose_eq_comes_back(make: Any) -> None:
    visits = 5

    class Key:
        def __init__(self, n: int) -> None:
            self.n = n

        def __hash__(self) -> int:
            return 1

        def __eq__(self, other: object) -> bool:
            nonlocal visits
            if visits:  # for ever, even a dict would look for ever
                visits -= 1
                cache.get(self)
            return isinstance(other, Key) and self.n == other.n

    cache = make(4)
    for n in range(3):
        cache[Key(n)] = n
    assert cache[Key(1)] == 1
    cache[Key(1)] = 5
    del cache[Key(1)]
    assert sorted(cache.values()) == [0, 2]


def test_keys() -> None:
    assert keys.hashkey(1, a=2, b=3) == keys.hashkey(1, b=3, a=2)
    assert keys.hashkey(1) == keys.hashkey(1.0)
    assert keys.typedkey(1) != keys.typedkey(1.0)
    assert keys.typedkey(a=1) != keys.typedkey(a=1.0)
    assert keys.methodkey(object(), 1) == keys.hashkey(1)
    assert keys.typedmethodkey(object(), 1) == keys.typedkey(1)
    key = keys.hashkey(1, a=2)
    assert pickle.loads(pickle.dumps(key)) == key


@pytest.mark.parametrize("how", [{}, {"lock": 1}, {"condition": 1}])
def test_cached(how: dict[str, Any]) -> None:
    if "lock" in how:
        how = {"lock": threading.Lock()}
    elif "condition" in how:
        how = {"condition": threading.Condition()}
    calls: list[int] = []

    @cachetools.cached(cachetools.LRUCache(2), info=True, **how)
    def f(n: int) -> int:
        calls.append(n)
        if n < 0:
            raise KeyError(n)
        return n

    assert [f(1), f(1), f(2)] == [1, 1, 2]
    for _ in range(2):
        with pytest.raises(KeyError):
            f(-1)
    assert f.cache_info() == (1, 4, 2, 2)
    f.cache_clear()
    assert f.cache_info() == (0, 0, 2, 0)
    assert calls == [1, 2, -1, -1]
    with pytest.raises(TypeError, match="cache must not be None"):
        cachetools.cached(None)


def test_cachedmethod() -> None:
    class Squares:
        def __init__(self) -> None:
            self.cache = cachetools.LRUCache(4)

        @cachetools.cachedmethod(lambda self: self.cache, info=True)
        def of(self, n: int) -> int:
            return n * n

    class Child(Squares):
        def of(self, n: int) -> int:
            return super().of(n) + 1

    squares = Squares()
    assert [squares.of(3), squares.of(3), Squares.of(squares, 3)] == [9, 9, 9]
    assert squares.of.cache_info() == (2, 1, 4, 1)
    child = Child()
    assert [child.of(3), child.of(3)] == [10, 10]
    assert super(Child, child).of.cache_info().hits == 1
    with pytest.raises(TypeError, match="without one"):
        Squares.of()


@pytest.mark.parametrize("name", func.__all__)
def test_func(name: str) -> None:
    decorator = getattr(func, name)
    for decorate in (decorator, decorator(), decorator(maxsize=None, typed=True)):
        f = decorate(lambda n: [n])
        assert f(1) is f(1)
        assert f.cache_info().hits == 1
        assert set(f.cache_parameters()) == {"maxsize", "typed"}
