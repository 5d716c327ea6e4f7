"""Threads on one cache, and get_or_compute."""

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from ctxpool.errors import ValueTooLargeError


@pytest.fixture
def LRU(impl):
    return impl.LRUCache


def together(count, work, timeout=60):
    """work(i) in *count* threads that start at once; their errors are ours."""
    barrier = threading.Barrier(count)
    answers = []

    def run(i):
        barrier.wait(timeout)
        return work(i)

    with ThreadPoolExecutor(count) as pool:
        futures = [pool.submit(run, i) for i in range(count)]
        answers = [future.result(timeout) for future in futures]
    return answers


@pytest.mark.parametrize("threads", [2, 6])
@pytest.mark.parametrize("kind", ["plain", "sized", "ttl", "subclass", "on_evict"])
def test_stress(LRU, threads, kind):
    told = []
    kwargs = {
        "sized": {"getsizeof": lambda value: 1},
        "ttl": {"ttl": 0.001},
        "on_evict": {"on_evict": lambda *args: told.append(args)},
    }.get(kind, {})

    class Sub(LRU):
        def popitem(self):
            return super().popitem()

    cache = (Sub if kind == "subclass" else LRU)(64, **kwargs)
    rounds = 300
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)

    def work(i):
        for n in range(rounds):
            key = f"k{(n * 7 + i * 13) % 150}"
            cache[key] = n
            cache.setdefault(f"k{n % 120}", i)
            cache.get(key)
            cache.get(n)
            cache.pop(f"k{n % 90}", None)
            key in cache, cache.peek(key), cache.touch(key)
            if n % 20 == 0:
                assert len(cache) <= 64
                assert len(list(cache.items())) <= 64
                cache.stats(), cache.by_recency()
                cache.check()
            if n % 100 == 0:
                cache.resize(32)
                cache.resize(64)
                cache.clear()

    try:
        together(threads, work)
    finally:
        sys.setswitchinterval(interval)
    cache.check()
    stats = cache.stats()
    lookups = stats.hits + stats.misses
    if kind != "subclass":
        assert lookups == threads * rounds * 4
    if kind == "on_evict":
        assert len(told) == stats.evicted_capacity + stats.evicted_resize


@pytest.mark.parametrize("how", ["store", "resize"])
def test_popitem_whose_entry_is_gone(LRU, how):
    """An overridden popitem has two steps; another thread may come between them."""

    class Sub(LRU):
        raced = True

        def popitem(self):
            if self.raced:
                self.raced = False
                together(1, lambda i: self.clear())
            return super().popitem()

    def make_room(cache):
        if how == "store":
            cache["c"] = 3
        else:
            cache.resize(1)

    cache = Sub(2)
    cache["a"], cache["b"] = 1, 2
    make_room(cache)
    assert dict(cache) == ({"c": 3} if how == "store" else {})
    assert cache.stats().evicted_capacity == cache.stats().evicted_resize == 0
    cache.check()

    class Broken(LRU):
        def popitem(self):
            raise KeyError("never")

    cache = Broken(2)
    cache["a"], cache["b"] = 1, 2
    with pytest.raises(KeyError, match="never"):
        make_room(cache)
    assert dict(cache) == {"a": 1, "b": 2}


def test_setdefault_stores_once(LRU):
    for _ in range(50):
        cache = LRU(4)
        answers = together(4, lambda i: cache.setdefault("k", object()))  # noqa: B023
        assert len(set(map(id, answers))) == 1


def test_get_or_compute(LRU):
    cache = LRU(2)
    assert cache.get_or_compute("a", str.upper) == "A"
    assert cache.get_or_compute("a", None) == "A"
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.inserts) == (1, 1, 1)
    small = LRU(3, len)
    assert small.get_or_compute("a", lambda key: "xxxx") == "xxxx"
    assert len(small) == 0
    with pytest.raises(TypeError, match="unhashable"):
        cache.get_or_compute([], str)


def test_one_computes_the_others_wait(LRU):
    cache, calls = LRU(10), []

    def fn(key):
        calls.append(key)
        time.sleep(0.05)
        return object()

    answers = together(5, lambda i: cache.get_or_compute("k", fn))
    assert calls == ["k"]
    assert len(set(map(id, answers))) == 1


def test_an_exception_reaches_all(LRU):
    cache, calls = LRU(10), []

    def fn(key):
        calls.append(key)
        time.sleep(0.1)
        raise ZeroDivisionError(key)

    def work(i):
        with pytest.raises(ZeroDivisionError, match="k"):
            cache.get_or_compute("k", fn)

    together(5, work)
    assert calls == ["k"]
    assert len(cache) == 0
    assert cache.get_or_compute("k", lambda key: 1) == 1


def test_an_interrupted_leader_hands_over(LRU):
    cache, calls = LRU(10), []

    def fn(key):
        calls.append(key)
        if len(calls) == 1:
            time.sleep(0.05)
            raise KeyboardInterrupt
        return 5

    def work(i):
        try:
            return cache.get_or_compute("k", fn)
        except KeyboardInterrupt:
            return "interrupted"

    assert sorted(map(str, together(4, work))) == ["5", "5", "5", "interrupted"]
    assert len(calls) == 2


def test_recursion_does_not_hang(LRU):
    cache, depth = LRU(10), []

    def fn(key):
        depth.append(key)
        return 1 if len(depth) == 3 else cache.get_or_compute(key, fn) + 1

    assert cache.get_or_compute("k", fn) == 3
    assert cache["k"] == 3

    def fib(n):
        return n if n < 2 else cache.get_or_compute(n - 1, fib) + fib(n - 2)

    assert cache.get_or_compute(15, fib) == 610


def test_a_circle_of_waiters_does_not_hang(LRU):
    cache, inside = LRU(10), threading.Barrier(2)

    def fn(key):
        if threading.current_thread() not in seen:
            seen.add(threading.current_thread())
            inside.wait(10)
            return cache.get_or_compute(1 - key, fn) + 1
        return 10

    seen = set()
    answers = together(2, lambda i: cache.get_or_compute(i, fn))
    assert all(answer in (11, 12) for answer in answers)


def test_many_keys_and_threads(LRU):
    cache = LRU(1000)
    calls = []

    def work(i):
        for n in range(200):
            assert cache.get_or_compute(n, lambda key: calls.append(key) or key) == n

    together(4, work)
    assert sorted(calls) == list(range(200))


def test_on_evict_that_raises_in_get_or_compute(LRU):
    def told(*args):
        raise RuntimeError("told")

    cache = LRU(1, on_evict=told)
    cache["a"] = 1
    with pytest.raises(RuntimeError, match="told"):
        cache.get_or_compute("b", str)
    assert dict(cache) == {"b": "b"}


def test_errors_leave_no_flight(LRU):
    cache = LRU(1)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            cache.get_or_compute("a", lambda key: 1 / 0)
    with pytest.raises(ValueTooLargeError):
        LRU(0)["a"] = 1
    assert LRU(0).get_or_compute("a", str) == "a"
