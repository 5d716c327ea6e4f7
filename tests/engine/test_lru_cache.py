"""LRUCache as a mapping, its extras, copies and subclasses."""

import copy
import doctest
import gc
import inspect
import math
import pickle
import sys
import weakref
from collections.abc import MutableMapping

import pytest

from ctxpool.errors import CtxPoolError, ValueTooLargeError
from ctxpool.stats import LRUCacheStats

PRIVATE = {
    "_MutableMapping__marker",
    "_abc_impl",
    "__abstractmethods__",
    "__slots__",
    "__firstlineno__",
    "__static_attributes__",
}


@pytest.fixture
def LRU(impl):
    return impl.LRUCache


def filled(LRU, keys="abc", maxsize=None, **kwargs):
    cache = LRU(maxsize or len(keys), **kwargs)
    for i, key in enumerate(keys):
        cache[key] = i
    return cache


def test_evicts_the_least_recently_used(LRU):
    cache = filled(LRU, "abc")
    assert cache["a"] == 0
    cache["d"] = 3
    assert list(cache) == ["a", "c", "d"]
    assert cache.by_recency() == ["c", "a", "d"]
    cache.check()


def test_iterates_in_the_order_of_insertion(LRU):
    cache = filled(LRU, "abc")
    cache["a"] = 9  # keeps its place
    assert list(cache) == ["a", "b", "c"]
    assert list(cache.items()) == [("a", 9), ("b", 1), ("c", 2)]
    del cache["a"]
    cache["a"] = 1
    assert list(cache.keys()) == ["b", "c", "a"]
    assert cache.by_recency() == ["b", "c", "a"]


def test_iteration_is_over_a_snapshot(LRU):
    cache = filled(LRU, "abc")
    for key in cache:
        del cache[key]
    assert len(cache) == 0
    cache.update(a=1, b=2)
    values = iter(cache.values())
    cache.clear()
    assert list(values) == [1, 2]


def test_what_promotes_and_what_does_not(LRU):
    for use in (
        lambda c: c["a"],
        lambda c: c.get("a"),
        lambda c: c.get_many(["a"]),
        lambda c: c.setdefault("a"),
        lambda c: c.touch("a"),
        lambda c: c.get_or_compute("a", None),
        lambda c: c.__setitem__("a", 5),
        lambda c: c.set("a", 5),
    ):
        cache = filled(LRU, "abc")
        use(cache)
        assert cache.by_recency() == ["b", "c", "a"]
    for look in (
        lambda c: "a" in c,
        lambda c: c.peek("a"),
        lambda c: list(c.values()),
        lambda c: list(c.items()),
        lambda c: ("a", 0) in c.items(),
        lambda c: 0 in c.values(),
        lambda c: c == dict(c.items()),
        repr,
        copy.copy,
        lambda c: c.time_left("a"),
    ):
        cache = filled(LRU, "abc")
        look(cache)
        assert cache.by_recency() == ["a", "b", "c"]
        assert cache.stats().hits == cache.stats().misses == 0


def test_counts(LRU):
    cache = filled(LRU, "abc")
    cache["a"], cache.get("b"), cache.get("x"), cache.pop("c"), cache.pop("y", None)
    cache.setdefault("z", 1), cache.setdefault("z", 1), cache.get_many("az")
    with pytest.raises(KeyError):
        cache["w"]
    with pytest.raises(KeyError):
        cache.pop("w")
    cache["q"] = 1
    stats = cache.stats()
    assert isinstance(stats, LRUCacheStats)
    assert (stats.hits, stats.misses, stats.inserts) == (6, 5, 5)
    assert (stats.evicted_capacity, stats.evicted_resize) == (1, 0)
    assert (stats.size, stats.currsize, stats.maxsize) == (3, 3, 3)
    assert stats.bytes > 0


def test_missing_keys(LRU):
    cache = LRU(2)
    for act in (cache.__getitem__, cache.__delitem__, cache.pop, cache.time_left):
        with pytest.raises(KeyError) as caught:
            act(("a", 1))
        assert caught.value.args == (("a", 1),)
    assert cache.get("a") is None
    assert cache.get("a", 5) == cache.pop("a", 5) == cache.peek("a", 5) == 5
    assert cache.get("a", default=5) == cache.pop("a", default=5) == 5
    assert cache.touch("a") is False


def test_popitem(LRU):
    cache = filled(LRU, "ab")
    cache["a"]
    assert cache.popitem() == ("b", 1)
    assert cache.popitem() == ("a", 0)
    with pytest.raises(KeyError, match="LRUCache is empty") as caught:
        cache.popitem()
    assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_maxsize(LRU):
    cache = LRU(0)
    with pytest.raises(
        ValueTooLargeError, match=r"^value too large: size 1, maxsize 0$"
    ):
        cache["a"] = 1
    assert issubclass(ValueTooLargeError, (ValueError, CtxPoolError))
    endless = LRU(math.inf)
    endless.update((i, i) for i in range(5000))
    assert len(endless) == endless.currsize == 5000
    assert endless.maxsize == math.inf
    assert len(filled(LRU, "abc", 2.5)) == 2
    for bad in (-1, -math.inf, math.nan):
        with pytest.raises(ValueError, match=f"maxsize must be .*not {bad}"):
            LRU(bad)
    for bad in (None, "5"):
        with pytest.raises(TypeError, match=f"maxsize must be a number, not {bad!r}"):
            LRU(bad)
    with pytest.raises(TypeError, match="on_evict must be callable, not 3"):
        LRU(1, on_evict=3)
    assert LRU(10**400).maxsize == 10**400


def test_sizes(LRU):
    cache = LRU(10, getsizeof=len)
    cache["a"], cache["b"] = "xxxx", "yyyyy"
    assert cache.currsize == 9
    assert isinstance(cache.currsize, int)
    cache["c"] = "zz"
    assert list(cache) == ["b", "c"]
    assert cache.currsize == 7
    with pytest.raises(
        ValueTooLargeError, match="value too large: size 11, maxsize 10"
    ):
        cache["b"] = "x" * 11
    assert cache["b"] == "yyyyy"
    cache["b"] = "y" * 8  # c has to go, b stays
    assert cache.currsize == 10
    cache["b"] = "y"
    assert cache.currsize == 3
    assert cache.getsizeof("four") == 4
    assert LRU(1).getsizeof("four") == LRU.getsizeof("four") == 1
    cache.check()
    cache.clear()
    assert cache.currsize == 0


def test_sizes_may_be_floats(LRU):
    cache = LRU(2, getsizeof=lambda value: value)
    cache["a"] = 1
    assert isinstance(cache.currsize, int)
    cache["b"] = 0.5
    assert cache.currsize == 1.5
    cache["c"] = 0.75
    assert list(cache) == ["b", "c"]
    cache.clear()
    assert isinstance(cache.currsize, int)


@pytest.mark.parametrize(
    ("size", "error", "message"),
    [
        (-1, ValueError, "value size must be non-negative, not -1"),
        (math.nan, ValueError, "value size must be a number, not nan"),
        ("1", TypeError, "value size must be a number, not '1'"),
        (None, TypeError, "value size must be a number, not None"),
    ],
)
def test_bad_sizes(LRU, size, error, message):
    cache = LRU(3, getsizeof=lambda value: size)
    with pytest.raises(error, match=message):
        cache["a"] = 1
    assert len(cache) == 0


def test_resize(LRU):
    gone = []
    cache = filled(LRU, "abcd", on_evict=lambda *args: gone.append(args))
    cache.resize(2)
    assert gone == [("a", 0, "resize"), ("b", 1, "resize")]
    assert cache.maxsize == 2
    cache["e"] = 4
    assert gone[2:] == [("c", 2, "capacity")]
    assert cache.stats().evicted_resize == 2
    with pytest.raises(ValueError, match="non-negative"):
        cache.resize(-1)
    cache.resize(math.inf)
    cache.update((i, i) for i in range(100))
    assert len(cache) == 102
    cache.resize(0)
    assert len(cache) == 0
    cache.check()


def test_on_evict_only_for_evictions(LRU):
    gone = []
    cache = filled(LRU, "abcdef", on_evict=lambda *args: gone.append(args))
    cache["a"] = 1
    del cache["a"]
    cache.pop("b")
    cache.popitem()
    cache.clear()
    assert gone == []


def test_on_evict_that_raises(LRU, monkeypatch):
    def told(key, value, reason):
        gone.append(key)
        raise RuntimeError(key)

    gone, unraisable = [], []
    monkeypatch.setattr(sys, "unraisablehook", lambda u: unraisable.append(u.exc_value))
    cache = filled(LRU, "abcd", on_evict=told)
    with pytest.raises(RuntimeError, match="a"):
        cache["e"] = 4
    assert cache["e"] == 4
    with pytest.raises(RuntimeError, match="b"):
        cache.resize(1)
    assert gone == ["a", "b", "c", "d"]
    assert [str(error) for error in unraisable] == ["c", "d"]
    assert list(cache) == ["e"]


def test_many(LRU):
    cache = LRU(3)
    cache.set_many({"a": 1, "b": 2})
    cache.set_many(iter([("c", 3)]))
    assert cache.get_many(["c", "x", "a"], 0) == [3, 0, 1]
    cache.update({"a": 5}, b=6)
    cache.update(zip("c", [7], strict=True))
    assert dict(cache) == {"a": 5, "b": 6, "c": 7}
    with pytest.raises(ValueError, match="unpack"):
        cache.set_many([("d", 4), (1, 2, 3)])
    assert "d" in cache


def test_is_a_mutable_mapping(LRU):
    cache = filled(LRU, "ab")
    assert isinstance(cache, MutableMapping)
    assert {**cache} == {"a": 0, "b": 1}
    assert cache == {"b": 1, "a": 0}
    assert cache != {"a": 0}
    assert cache == filled(LRU, "ab", 9)
    assert (cache == 5) is False
    match cache:
        case {"a": x, **rest}:
            assert (x, rest) == (0, {"b": 1})
        case _:
            pytest.fail("match does not take it for a mapping")
    with pytest.raises(TypeError, match="unhashable"):
        hash(cache)
    with pytest.raises(TypeError):
        reversed(cache)
    assert weakref.ref(cache)() is cache
    assert not LRU(1)
    assert LRU[int, str](maxsize=1).maxsize == 1
    for name in set(dir(MutableMapping)) - set(dir(object)) - PRIVATE:
        assert hasattr(LRU, name)
    with pytest.raises(AttributeError):
        cache.attribute = 1


def test_views(LRU):
    cache = filled(LRU, "ab")
    assert cache.keys() & {"a", "z"} == {"a"}
    assert ("b", 1) in cache.items()
    assert ("b", 2) not in cache.items()
    assert ("z", 2) not in cache.items()
    assert "b" not in cache.items()
    assert len(cache.values()) == 2
    assert 1 in cache.values()
    assert repr(cache.keys()) == "CacheKeys(['a', 'b'])"


def test_repr(LRU):
    cache = LRU(2)
    cache[1] = cache
    assert repr(cache) == "LRUCache({1: ...}, maxsize=2, currsize=1)"


def test_preallocate(LRU, impl):
    cache = LRU(1000, preallocate=True)
    before = cache.stats().bytes
    cache.update((i, i) for i in range(3000))
    if impl.backend == "native":
        assert cache.stats().bytes == before
        cache.clear()
        assert cache.stats().bytes == before
    cache.resize(2000)
    for bad in (math.inf, 2**31):
        with pytest.raises(ValueError, match="preallocate needs a maxsize of at most"):
            LRU(bad, preallocate=True)
    with pytest.raises(ValueError, match="not with getsizeof"):
        LRU(5, len, preallocate=True)


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, None])
def test_copies(LRU, again):
    if again is None:

        def again(cache):
            return pickle.loads(pickle.dumps(cache))

    cache = filled(LRU, "abcd", 10, getsizeof=abs)
    cache["d"], cache["a"]
    other = again(cache)
    assert type(other) is LRU
    assert other == cache
    assert list(other) == list(cache)
    assert other.by_recency() == cache.by_recency() == ["b", "c", "d", "a"]
    assert other.currsize == cache.currsize
    assert other.maxsize == 10
    assert other.stats().hits == 0
    other["e"] = 9
    assert "e" not in cache
    other.check()
    assert len(cache) == 4


class Named:
    """Made into a cache below, so that pickle finds it."""


def test_subclass_is_copied_whole(LRU, monkeypatch):
    class Cache(LRU):
        def __init__(self, name):
            super().__init__(3)
            self.name = name

    monkeypatch.setitem(globals(), "Named", Cache)
    Cache.__qualname__ = Cache.__name__ = "Named"
    Cache.__module__ = __name__
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or _me())
    cache = Cache("x")
    cache["a"] = cache
    for other in (copy.copy(cache), pickle.loads(pickle.dumps(cache))):
        assert type(other) is Cache
        assert other.name == "x"
    assert copy.deepcopy(cache)["a"].name == "x"


def _me():
    module = type(sys)(__name__)
    module.__dict__.update(globals())
    return module


def test_subclass_hooks_are_called_where_cachetools_calls_them(LRU):
    calls = []

    def recorder(name):
        method = getattr(LRU, name)

        def call(self, *args):
            calls.append((name, *args))
            return method(self, *args)

        return call

    names = [
        "__getitem__",
        "__setitem__",
        "__delitem__",
        "__contains__",
        "popitem",
        "pop",
        "get",
    ]
    Cache = type("Cache", (LRU,), {name: recorder(name) for name in names})
    cache = Cache(2)
    cache["a"] = 1
    cache.update(b=2)
    del calls[:]
    cache["c"] = 3
    assert calls == [("__setitem__", "c", 3), ("popitem",), ("__delitem__", "a")]
    del calls[:]
    cache.get("b"), cache.get("x")
    assert calls == [
        ("get", "b"), ("__contains__", "b"), ("__getitem__", "b"),
        ("get", "x"), ("__contains__", "x"),
    ]  # fmt: skip
    del calls[:]
    assert cache.pop("b") == 2
    assert calls == [
        ("pop", "b"), ("__contains__", "b"), ("__getitem__", "b"), ("__delitem__", "b"),
    ]  # fmt: skip
    del calls[:]
    assert cache.setdefault("d", 4) == 4
    assert calls == [("__contains__", "d"), ("__setitem__", "d", 4)]
    del calls[:]
    assert list(cache.values()) == [3, 4]
    assert ("__getitem__", "c") in calls
    del calls[:]
    cache.resize(1)
    assert calls == [("popitem",), ("__delitem__", "d")] or calls == [
        ("popitem",),
        ("__delitem__", "c"),
    ]
    assert cache.stats().evicted_resize == 1


def test_overridden_popitem_tells_on_evict(LRU):
    class Newest(LRU):
        def popitem(self):
            key = self.by_recency()[-1]
            return key, self.pop(key)

    gone = []
    cache = filled(Newest, "ab", on_evict=lambda *args: gone.append(args))
    cache["c"] = 2
    assert gone == [("b", 1, "capacity")]
    assert list(cache) == ["a", "c"]
    assert cache.stats().evicted_capacity == 1

    class Refuses(LRU):
        def popitem(self):
            raise RuntimeError("no")

    cache = filled(Refuses, "ab")
    with pytest.raises(RuntimeError, match="no"):
        cache["c"] = 1
    assert dict(cache) == {"a": 0, "b": 1}
    cache["b"] = 5


def test_missing_hook(LRU):
    class Default(LRU):
        def __missing__(self, key):
            self[key] = key * 2
            return key * 2

    cache = Default(2)
    assert cache["a"] == "aa"
    assert cache.get("b") is None
    assert cache.pop("b", 7) == 7
    assert cache.get_or_compute("a", None) == "aa"
    assert list(cache) == ["a"]


def test_getsizeof_hook(LRU):
    class Method(LRU):
        def getsizeof(self, value):
            return len(value)

    class Super(LRU):
        def getsizeof(self, value):
            return super().getsizeof(value) + 1

    assert filled_with(Method(3), "aa", "b").currsize == 3
    assert filled_with(Super(3), "aa").currsize == 2
    given = Method(3, getsizeof=lambda value: 3)
    assert filled_with(given, "a", "b").currsize == given.getsizeof(0) == 3


def filled_with(cache, *values):
    for i, value in enumerate(values):
        cache[i] = value
    return cache


def test_init_again_starts_again(LRU):
    cache = filled(LRU, "abc")
    cache.__init__(1)
    assert (len(cache), cache.maxsize) == (0, 1)

    class NoInit(LRU):
        def __init__(self):
            """Forgets super().__init__()."""

    with pytest.raises(ValueTooLargeError):
        NoInit()["a"] = 1


def test_keys_of_all_kinds(LRU):
    keys = ["a", "é", "𝄞", b"a", 1, -1, -2, 2**70, 1.5, None, ("a", 1), frozenset("x")]
    cache = LRU(100)
    for i, key in enumerate(keys):
        cache[key] = i
    for i, key in enumerate(keys):
        assert cache[pickle.loads(pickle.dumps(key))] == i
    assert cache[1.0] == cache[True] == 4
    for key in ([], {}, set()):
        for act in (
            cache.__getitem__, cache.get, cache.__contains__, cache.peek, cache.touch,
            cache.pop, cache.__delitem__, cache.setdefault, cache.time_left,
        ):  # fmt: skip
            with pytest.raises(TypeError, match="unhashable"):
                act(key)
        with pytest.raises(TypeError, match="unhashable"):
            cache[key] = 1
    cache.check()


def test_untracked_while_it_holds_only_atoms(impl):
    if impl.backend == "pure":
        pytest.skip("made of Python objects, which are all tracked")
    cache = impl.LRUCache(10)
    cache["a"], cache[1], cache[("a", 2)] = 1.5, b"b", None
    assert not gc.is_tracked(cache)
    cache["b"] = []
    assert gc.is_tracked(cache)
    for key, value in (("a", {}), ((([],)[:0] and 1) or (1, (2,)), 1)):
        cache = impl.LRUCache(10)
        cache["a"] = 1
        cache[key] = value
        assert gc.is_tracked(cache)
    assert gc.is_tracked(impl.LRUCache(10, on_evict=print))
    assert gc.is_tracked(type("Sub", (impl.LRUCache,), {})(10))


def test_bytes_an_entry(impl):
    if impl.backend == "pure":
        pytest.skip("a bar of the native table")
    n = 10**6
    cache = impl.LRUCache(n)
    for i in range(n):
        cache[i] = None
    assert cache.stats().bytes < 50 * n
    for i in range(2 * n):
        cache[n + i] = None
    assert cache.stats().bytes < 50 * n
    assert next(iter(cache)) == 2 * n


def test_twins_agree():
    from ctxpool._native.lru_cache import LRUCache as native

    from ctxpool._pure.lru_cache import LRUCache as pure

    def parameters(thing):
        return [
            (p.name, p.kind, p.default)
            for p in inspect.signature(thing).parameters.values()
            if p.name != "self"
        ]

    assert parameters(native) == parameters(pure)
    assert inspect.getdoc(native) == inspect.getdoc(pure)
    public = {n for n in dir(pure) if not n.startswith("_")}
    assert public == {n for n in dir(native) if not n.startswith("_")}
    for name in public | {"__getstate__", "__setstate__", "__missing__"}:
        ours, theirs = getattr(native, name), getattr(pure, name)
        assert inspect.getdoc(ours) == inspect.getdoc(theirs), name
        if callable(theirs) and name != "getsizeof":
            assert parameters(ours) == parameters(theirs), name


def test_docstrings_run(impl):
    import ctxpool  # noqa: F401

    finder, runner = doctest.DocTestFinder(), doctest.DocTestRunner()
    for name in ["__doc__", *dir(impl.LRUCache)]:
        text = getattr(impl.LRUCache, name).__doc__ if name != "__doc__" else None
        text = impl.LRUCache.__doc__ if name == "__doc__" else text
        parser = doctest.DocTestParser()
        test = parser.get_doctest(
            text or "", {"LRUCache": impl.LRUCache}, name, None, None
        )
        runner.run(test)
    assert finder
    assert runner.tries > 5
    assert runner.failures == 0


@pytest.mark.parametrize("getsizeof", [None, len, lambda value: len(value) / 2])
def test_sizes_are_ints_as_long_as_all_are(impl, getsizeof):
    cache = impl.LRUCache(10, getsizeof)
    wanted = float if getsizeof is not None and getsizeof is not len else int
    assert type(cache.currsize) is type(cache.stats().currsize) is int
    cache["a"] = "xx"
    assert type(cache.currsize) is type(cache.stats().currsize) is wanted
    assert cache.currsize == cache.stats().currsize
