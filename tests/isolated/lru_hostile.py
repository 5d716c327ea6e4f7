# ruff: noqa: B023, F821, SIM105 (closures in loops are the probes, and names are deleted)
"""One hostile probe of LRUCache, or of Cache with a policy.

lru_hostile.py BACKEND PROBE[,PROBE...] [POLICY]: exits 0 when it held.
"""

import faulthandler
import gc
import importlib
import os
import sys
import threading
import weakref

faulthandler.enable()
POLICY = sys.argv[3] if len(sys.argv) > 3 else None
MODULE, NAME = ("cache", "Cache") if POLICY else ("lru_cache", "LRUCache")
CLASS = getattr(importlib.import_module(f"ctxpool._{sys.argv[1]}.{MODULE}"), NAME)
CHOICE = {"policy": POLICY} if POLICY else {}


def LRU(maxsize, **kwargs):
    return CLASS(maxsize, **CHOICE, **kwargs)


class Key:
    """A key whose comparison does something, once it is armed."""

    act = None

    def __init__(self, name, hash_=7):
        self.name, self.hash = name, hash_

    def __hash__(self):
        return self.hash

    def __eq__(self, other):
        act, Key.act = Key.act, None
        try:
            if act is not None:
                act()
        finally:
            Key.act = act
        return isinstance(other, Key) and self.name == other.name


class Once:
    def __init__(self, act):
        self.act, self.count = act, 0

    def __call__(self):
        self.count += 1
        if self.count == 1:
            self.act()


OPERATIONS = {
    "getitem": lambda c: c[Key("b")],
    "get": lambda c: c.get(Key("b")),
    "in": lambda c: Key("b") in c,
    "set": lambda c: c.__setitem__(Key("b"), 9),
    "set new": lambda c: c.__setitem__(Key("z"), 9),
    "set more": lambda c: c.__setitem__(Key("y"), 9),
    "del": lambda c: c.__delitem__(Key("b")),
    "pop": lambda c: c.pop(Key("b"), None),
    "setdefault": lambda c: c.setdefault(Key("x"), 9),
    "touch": lambda c: c.touch(Key("b")),
    "peek": lambda c: c.peek(Key("b")),
    "ttl": lambda c: c.set(Key("b"), 9, ttl=5),
    "compute": lambda c: c.get_or_compute(Key("w"), lambda key: 9),
}
ACTS = {
    "reenter": lambda c: (c.get(Key("a")), c.__setitem__(Key("b"), 5)),
    "clear": lambda c: c.clear(),
    "resize": lambda c: (c.resize(1), c.resize(3)),
    "delete": lambda c: [c.pop(key, None) for key in list(c)],
    "churn": lambda c: [c.__setitem__(i, [i]) for i in range(2000)],
    "grow": lambda c: (c.resize(10**6), [c.__setitem__(i, i) for i in range(5000)]),
    "shut": lambda c: c.resize(0),
    "sized": lambda c: c.__init__(3, getsizeof=lambda value: 1),
    "timed": lambda c: c.__init__(3, ttl=100),
    "init": lambda c: c.__init__(3),
    "collect": lambda c: gc.collect(),
}


def make(**kwargs):
    cache = LRU(3, **kwargs)
    for name in "abc":
        cache[Key(name)] = [name]
    return cache


def eq_acts():
    for what, act in ACTS.items():
        for name, operation in OPERATIONS.items():
            for kwargs in ({}, {"getsizeof": lambda value: 1}, {"ttl": 1000}):
                cache = make(**kwargs)
                Key.act = Once(lambda act=act, cache=cache: act(cache))
                try:
                    operation(cache)
                except KeyError:
                    pass
                except ValueError:
                    assert what == "shut"
                finally:
                    Key.act = None
                cache.check()
                assert cache.currsize <= cache.maxsize, (what, name)
                assert len(list(cache)) == len(cache)


def eq_raises():
    for operation in OPERATIONS.values():
        cache = make()
        before = list(cache.items())

        def act():
            raise ZeroDivisionError

        Key.act = act
        try:
            operation(cache)
        except ZeroDivisionError:
            pass
        else:
            raise AssertionError("swallowed")
        finally:
            Key.act = None
        assert list(cache.items()) == before
        cache.check()


def eq_deletes_the_compared():
    cache = LRU(10)

    class Gone(Key):
        def __eq__(self, other):
            for key in list(cache):
                if key is not other:
                    cache.pop(key, None)
            gc.collect()
            return True

        __hash__ = Key.__hash__

    for operation in OPERATIONS.values():
        cache.clear()
        cache["x"] = 1
        CLASS.__setitem__(cache, Gone("b"), object())
        try:
            operation(cache)
        except KeyError:
            pass
        cache.check()


def hash_misbehaves():
    cache = LRU(3)

    class Bad:
        mode = "raise"

        def __hash__(self):
            if Bad.mode == "raise":
                raise ZeroDivisionError
            if Bad.mode == "use":
                Bad.mode = ""
                cache.clear()
                cache["k"] = 1
            return 5

    for mode in ("raise", "use"):
        for act in (
            cache.__getitem__, cache.get, cache.__contains__, cache.__delitem__,
            cache.pop, cache.setdefault, cache.touch, cache.peek,
            lambda k: cache.__setitem__(k, 1),
        ):  # fmt: skip
            Bad.mode = mode
            try:
                act(Bad())
            except ZeroDivisionError:
                assert mode == "raise"
            except KeyError:
                assert mode == "use"
            else:
                assert mode == "use"
            cache.check()
    # A hash that changes while the key is inside.
    Bad.mode = ""
    cache = LRU(2)
    key = Key("a")
    cache[key] = 1
    key.hash = 8
    cache["b"] = 2
    cache["c"] = 3
    assert list(cache) == ["b", "c"] or POLICY in ("mru", "rr", "tinylfu"), list(cache)
    cache.check()


def del_reenters():
    for act in (
        lambda c: c.__setitem__("x", 1),
        lambda c: c.clear(),
        lambda c: c.resize(2),
        lambda c: c.get("a"),
        lambda c: list(c.items()),
        lambda c: c.popitem(),
    ):
        for trigger in (
            lambda c: c.__setitem__("new", 1),
            lambda c: c.__setitem__("a", 1),
            lambda c: c.clear(),
            lambda c: c.pop("a"),
            lambda c: c.__delitem__("a"),
            lambda c: c.resize(1),
            lambda c: c.popitem(),
            lambda c: c.__init__(3),
            lambda c: c.set("a", 1, ttl=4),
        ):
            cache = LRU(3)
            seen = []

            class Value:
                def __del__(self, cache=cache, act=act, seen=seen):
                    seen.append(1)
                    try:
                        act(cache)
                    except KeyError:
                        pass
                    cache.check()

            for name in "abc":
                cache[name] = Value()
            trigger(cache)
            assert seen
            cache.check()
            assert len(cache) <= cache.maxsize
            cache.clear()
            del cache


def callback_misbehaves():
    for act in (
        lambda c: c.clear(),
        lambda c: c.resize(1),
        lambda c: c.resize(1000),
        lambda c: c.__setitem__("x", 1) if len(c) < 2 else None,
        lambda c: list(c.items()),
        lambda c: 1 / 0,
    ):
        cache = LRU(3, on_evict=lambda k, v, r, act=act: act(cache))
        sys.unraisablehook = lambda unraisable: None
        for i in range(50):
            try:
                cache[i] = [i]
            except ZeroDivisionError:
                pass
            cache.check()
        try:
            cache.resize(0)
        except (ZeroDivisionError, ValueError):
            pass
        cache.check()
    depth = []

    def deeper(key, value, reason):
        depth.append(key)
        if len(depth) < 100:
            cache[key + 1000] = 1

    cache = LRU(1, on_evict=deeper)
    cache[1] = 1
    cache[2] = 2
    assert len(depth) == 100
    cache.check()


def weakref_in_del():
    """A value dies with the cache and looks at it through a weak reference."""
    seen = []

    class Value:
        def __init__(self, cache):
            self.cache = weakref.ref(cache)

        def __del__(self):
            seen.append(self.cache())

    for cls in (CLASS, type("Sub", (CLASS,), {})):
        cache = cls(3, **CHOICE)
        cache["a"] = Value(cache)
        del cache
        gc.collect()
    assert seen == [None, None], seen


def cycles():
    class Value:
        pass

    died = []
    for cls in (CLASS, type("Sub", (CLASS,), {})):
        cache = cls(3, **CHOICE)
        cache["self"] = cache
        cache["value"] = value = Value()
        value.cache = cache
        cache[(cache.get, 1) and (1, Value())] = 1
        refs = [weakref.ref(cache, died.append), weakref.ref(value, died.append)]
        del cache, value
        gc.collect()
        assert all(ref() is None for ref in refs)
    # Through the callbacks.
    holder = Value()
    cache = LRU(3, on_evict=lambda *a: holder, getsizeof=lambda v: holder and 1)
    holder.cache = cache
    ref = weakref.ref(holder)
    del cache, holder
    gc.collect()
    assert ref() is None


def cleared_by_the_collector():
    """A finalizer of a cycle uses the cache that the collector may have cleared."""
    survivors = []

    class Value:
        def __del__(self):
            survivors.append(self.cache)

    cache = LRU(3, on_evict=lambda *args: cache2)
    value = Value()
    value.cache = cache
    cache["v"] = value
    cache2 = cache
    del cache, value, cache2
    gc.collect()
    for cache in survivors:
        cache["x"] = 1
        assert cache["x"] == 1
        assert cache.maxsize == 3
        repr(cache), cache.stats()
        cache.check()


def references():
    """Nothing leaks, nothing is dropped twice."""
    key, value = Key("k", 3), object()
    base = sys.getrefcount(key), sys.getrefcount(value)
    for kwargs in ({}, {"getsizeof": lambda v: 1}, {"ttl": 100}):
        cache = LRU(2, **kwargs)
        for _ in range(50):
            cache[key] = value
            cache[key] = value
            cache[key], cache.get(key), cache.peek(key), key in cache, cache.touch(key)
            cache.popitem()
            cache[key] = value
            cache.pop(key)
            cache.setdefault(key, value), cache.setdefault(key, value)
            del cache[key]
            cache.set(key, value, ttl=50)
            list(cache), list(cache.items()), list(cache.values()), cache.by_recency()
            cache == {key: value}, repr(cache), cache.__getstate__()
            cache[1] = cache[2] = 1
            cache.get_or_compute(key, lambda k: value)
            cache.get_many([key]), cache.set_many({key: value})
            cache.get("missing"), cache.get("missing", value), cache.pop("m", value)
            cache.resize(1), cache.resize(2)
            cache[key] = value
            cache.clear()
            for bad in (cache.popitem, lambda: cache["x"], lambda: cache.pop("x")):
                try:
                    bad()
                except KeyError:
                    pass
        cache[key] = value
        del cache
    gc.collect()
    after = sys.getrefcount(key), sys.getrefcount(value)
    assert after == base, (base, after)


def nested_deep():
    cache = None
    for _ in range(200_000 if sys.argv[1] == "native" else 20_000):
        outer = LRU(1)
        outer["in"] = cache
        cache = outer
    del cache, outer
    gc.collect()


def fork():
    cache = LRU(100)
    stop = threading.Event()

    def work():
        i = 0
        while not stop.is_set():
            i += 1
            cache[i % 200] = i
            cache.get(i % 77)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    started, leave = threading.Event(), threading.Event()
    computing = threading.Thread(
        target=cache.get_or_compute,
        args=("slow", lambda key: (started.set(), leave.wait(20))),
    )
    computing.start()
    started.wait(20)
    try:
        for _ in range(10):
            pid = os.fork()
            if pid == 0:
                code = 1
                try:
                    cache.check()
                    cache["child"] = 1
                    # Whoever computes this stayed in the parent.
                    assert cache.get_or_compute("slow", lambda key: 5) == 5
                    cache.clear()
                    code = 0
                finally:
                    os._exit(code)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    finally:
        stop.set()
        leave.set()
        for thread in (*threads, computing):
            thread.join()
    cache.check()


def interpreter_exit():
    class Value:
        def __init__(self, cache):
            self.cache = cache

        def __del__(self):
            self.cache.get("a")
            self.cache["z"] = 1
            len(self.cache), list(self.cache)

    global kept, kept_by_del
    kept = LRU(5, on_evict=lambda *args: None)
    for name in "abcdefg":
        kept[name] = Value(kept)
    kept_by_del = LRU(5, ttl=100)
    kept_by_del["a"] = Value(kept_by_del)
    sys.modules["kept"] = kept


def memory_is_flat():
    cache = LRU(1000)
    for i in range(5000):
        cache[i] = i
    before = cache.stats().bytes
    for i in range(200_000):
        cache[i * 7919] = i
        if i % 3 == 0:
            del cache[i * 7919]
    assert cache.stats().bytes <= before * 1.1
    cache.check()


def subinterpreter():
    try:
        import _xxsubinterpreters as interpreters
    except ImportError:
        import _interpreters as interpreters
    which = interpreters.create()
    code = f"""
import importlib
try:
    LRU = importlib.import_module("ctxpool._{sys.argv[1]}.{MODULE}").{NAME}
except ImportError:
    pass
else:
    cache = LRU(2)
    cache.update(a=1, b=2, c=3)
    cache.check()
"""
    try:
        interpreters.run_string(which, code)
    except Exception as error:  # refused, by numpy or by us: not crashed
        print(error)
    interpreters.destroy(which)
    cache = LRU(2)
    cache.update(a=1, b=2, c=3)
    cache.check()


if __name__ == "__main__":
    for probe in sys.argv[2].split(","):
        globals()[probe]()
