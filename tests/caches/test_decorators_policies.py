"""The decorators with each policy: they are a function in front of that cache."""

import asyncio
import gc
import inspect
import pickle
import random
import threading
import weakref
from typing import Any

import pytest

from ctxpool import LRUCache
from ctxpool._cache_support import POLICIES
from ctxpool._function_support import make_key
from ctxpool.caches import asynchronous, decorators

lru_cache = decorators.lru_cache
ttl_cache = decorators.ttl_cache
cached_method = decorators.cached_method
MISSING = object()


@pytest.fixture(autouse=True)
def _back_end(impl: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decorators, "CachedFunction", impl.CachedFunction)
    monkeypatch.setattr(decorators, "CachedMethod", impl.CachedMethod)
    monkeypatch.setattr(asynchronous, "Cache", impl.Cache)
    monkeypatch.setattr(asynchronous, "LRUCache", impl.LRUCache)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def keys(rng: random.Random, count: int) -> list[Any]:
    """Some popular, some once, a scan, a loop: as int, or as str."""
    found: list[Any] = []
    while len(found) < count:
        kind = rng.randrange(4)
        if kind == 0:
            found += [rng.randrange(8) for _ in range(20)]
        elif kind == 1:
            found += [int(rng.paretovariate(1)) for _ in range(30)]
        elif kind == 2:
            start = rng.randrange(1000)
            found += range(start, start + 15)
        else:
            found += [str(n) for n in range(12)] * 2
    return found[:count]


def made(cache: Any, **options: Any) -> Any:
    """What a decorated function is said to be."""

    def function(key: Any) -> bool:
        value = cache.get(key, MISSING)
        if value is MISSING:
            cache[key] = value = object()
            return False
        return True

    return function


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("maxsize", [1, 2, 10, 50, None])
def test_it_is_that_cache(impl: Any, policy: str, maxsize: int | None) -> None:
    rng = random.Random(f"{policy} {maxsize}")
    calls: list[Any] = []
    f = lru_cache(maxsize, policy=policy)(calls.append)
    cache = impl.Cache(float("inf") if maxsize is None else maxsize, policy)
    model = made(cache)
    for i, key in enumerate(keys(rng, 2500)):
        before = len(calls)
        f(key)
        assert (len(calls) == before) == model(key), f"call {i}, {key!r}"
        if i % 100 == 0:
            stats = cache.stats()
            assert f.cache_info() == (stats.hits, stats.misses, maxsize, stats.size)
    f.cache_clear()
    assert f.cache_info() == (0, 0, maxsize, 0)
    cache.clear()
    for key in keys(rng, 300):
        before = len(calls)
        f(key)
        assert (len(calls) == before) == model(key)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("shape", ["one", "two", "named"])
def test_ttl(impl: Any, policy: str, shape: str) -> None:
    """With several arguments, too: hashed where they lie, they have the hash of the
    tuple that is their key."""
    rng = random.Random(f"{policy} {shape}")
    clock = Clock()
    calls: list[Any] = []

    @ttl_cache(20, 10, policy=policy, timer=clock)
    def f(*args: Any, **kwargs: Any) -> None:
        calls.append(args)

    cache = impl.Cache(20, policy, ttl=10, timer=clock)
    model = made(cache)
    for i, key in enumerate(keys(rng, 1500)):
        clock.now += rng.choice([0, 0, 0.25, 0.5])
        before = len(calls)
        args = (key, "second") if shape == "two" else (key,)
        kwargs = {"b": "second"} if shape == "named" else {}
        f(*args, **kwargs)
        asked = make_key(args, kwargs, False)
        assert (len(calls) == before) == model(asked), f"call {i}, {key!r}"
        if i % 50 == 0:
            stats = cache.stats()
            assert f.cache_info() == (stats.hits, stats.misses, 20, stats.size)


@pytest.mark.parametrize("policy", POLICIES)
def test_several_arguments(policy: str) -> None:
    """What comes back is right, and the bound holds."""
    rng = random.Random(policy)
    for options in ({}, {"typed": True}, {"ttl": 1000}, {"single_flight": True}):
        decorate = lru_cache(7, policy=policy, **options)
        f = decorate(lambda *args, **kwargs: [args, kwargs])
        for _ in range(800):
            a, b = rng.randrange(6), rng.choice([1, 1.0, "1", (1,)])
            args, kwargs = rng.choice([((a, b), {}), ((a,), {"b": b}), ((), {"a": a})])
            value = f(*args, **kwargs)
            assert value == [args, kwargs]
            if options.get("typed"):
                assert [type(x) for x in value[0]] == [type(x) for x in args]
                assert type(value[1].get("b")) is type(kwargs.get("b"))
        info = f.cache_info()
        assert info.hits + info.misses == 800
        assert info.currsize <= 7


@pytest.mark.parametrize("policy", POLICIES)
def test_parameters(policy: str) -> None:
    f = lru_cache(policy=policy)(len)
    told = {} if policy == "lru" else {"policy": policy}
    assert f.cache_parameters() == {"maxsize": 128, "typed": False, **told}
    f = ttl_cache(3, 5, True, policy=policy)(len)
    told["ttl"] = 5.0
    assert f.cache_parameters() == {"maxsize": 3, "typed": True, **told}


def test_bad_policies() -> None:
    async def coroutine() -> None: ...

    for function in (len, coroutine):
        with pytest.raises(
            ValueError, match=r"policy must be one of .*, not 'nothing'"
        ):
            lru_cache(policy="nothing")(function)
        with pytest.raises(TypeError, match="policy must be a str, not None"):
            lru_cache(policy=None)(function)
    with pytest.raises(ValueError, match="not 'nothing'"):
        cached_method(policy="nothing")(len)


@lru_cache(policy="s3fifo")
def by_name(n: int) -> int:
    return n


def test_pickled_by_name() -> None:
    assert pickle.loads(pickle.dumps(by_name)) is by_name
    assert inspect.signature(by_name) == inspect.signature(by_name.__wrapped__)


@pytest.mark.parametrize("policy", POLICIES)
def test_maxsize_0(policy: str) -> None:
    f = lru_cache(0, policy=policy)(lambda n: [n])
    assert f(1) is not f(1)
    assert f.cache_info() == (0, 2, 0, 0)


@pytest.mark.parametrize("policy", POLICIES)
def test_recursion(policy: str) -> None:
    @lru_cache(200, policy=policy)
    def fib(n: int) -> int:
        return n if n < 2 else fib(n - 1) + fib(n - 2)

    assert fib(100) == 354224848179261915075
    depth = [0]

    @lru_cache(policy=policy)
    def same(n: int) -> int:
        depth[0] += 1
        return same(n) if depth[0] < 3 else depth[0]

    assert same(1) == same(1) == 3


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("options", [{}, {"ttl": 60.0}, {"maxsize": None}])
def test_threads(policy: str, options: Any) -> None:
    f = lru_cache(policy=policy, **{"maxsize": 30, **options})(lambda *args: args)
    errors: list[BaseException] = []
    barrier = threading.Barrier(4)

    def work(seed: int) -> None:
        rng = random.Random(seed)
        try:
            barrier.wait(60)
            for i in range(600):
                n = rng.randrange(60)
                assert f(n) == (n,)
                assert f(n, "x") == (n, "x")
                if i % 200 == 0:
                    f.cache_clear()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    if "maxsize" not in options:
        assert f.cache_info().currsize <= 30


@pytest.mark.parametrize("policy", POLICIES)
def test_methods(policy: str) -> None:
    class Document:
        @cached_method(4, policy=policy)
        def words(self, least: int) -> list[int]:
            return [least]

    one, other = Document(), Document()
    for n in range(40):
        assert one.words(n % 6) == [n % 6]
    assert one.words.cache_info().currsize == 4
    assert other.words.cache_info().misses == 0
    assert one.words.cache_parameters().get("policy", "lru") == policy


@pytest.mark.parametrize("policy", POLICIES)
def test_coroutine_functions(impl: Any, policy: str) -> None:
    rng = random.Random(policy)
    calls: list[Any] = []

    @lru_cache(10, policy=policy)
    async def f(key: Any) -> None:
        calls.append(key)

    model = made(impl.Cache(10, policy))

    async def main() -> None:
        for key in keys(rng, 800):
            before = len(calls)
            await f(key)
            assert (len(calls) == before) == model(key)

    asyncio.run(main())
    told = {} if policy == "lru" else {"policy": policy}
    assert f.cache_parameters() == {"maxsize": 10, "typed": False, **told}
    assert f.cache_info().currsize == 10


def test_the_default_is_an_lru_cache() -> None:
    assert not hasattr(LRUCache(1), "policy")
    f = lru_cache(2)(lambda n: [n])
    first = f(1)
    f(2), f(1), f(3)
    assert f(1) is first


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("options", [{}, {"ttl": 60}, {"getsizeof": lambda value: 1}])
def test_what_goes_dies(policy: str, options: Any) -> None:
    class Result:
        pass

    f = lru_cache(2, policy=policy, **options)(lambda *args: Result())
    results = [weakref.ref(f(n, *rest)) for n in range(9) for rest in ((), ("x",))]
    gc.collect()
    assert sum(result() is not None for result in results) <= 2
    f.cache_clear()
    gc.collect()
    assert not any(result() for result in results)
