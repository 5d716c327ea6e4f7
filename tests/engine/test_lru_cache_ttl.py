"""Time to live."""

import copy
import math
import pickle
import time

import pytest


class Clock:
    def __init__(self):
        self.now = 0
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def LRU(impl):
    return impl.LRUCache


def test_entries_expire(LRU, clock):
    gone = []
    cache = LRU(5, ttl=10, timer=clock, on_evict=lambda *args: gone.append(args))
    cache["a"] = 1
    clock.now = 9.5
    assert cache["a"] == 1
    assert cache.time_left("a") == 0.5
    clock.now = 10
    with pytest.raises(KeyError):
        cache["a"]
    assert gone == [("a", 1, "expired")]
    assert len(cache) == 0
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.evicted_expired) == (1, 1, 1)


@pytest.mark.parametrize(
    "look",
    [
        lambda c: c.get("a") is None,
        lambda c: "a" not in c,
        lambda c: c.peek("a") is None,
        lambda c: c.pop("a", None) is None,
        lambda c: c.touch("a") is False,
        lambda c: c.setdefault("a", 2) == 2,
        lambda c: c.get_or_compute("a", lambda key: 2) == 2,
        lambda c: c.set("a", 2) is None,
        lambda c: len(c) == 0,
        lambda c: list(c) == list(c.items()) == [],
        lambda c: c.currsize == 0,
        lambda c: c.stats().size == 0,
        lambda c: c.expire() == 1,
        lambda c: c == {},
        lambda c: c.by_recency() == [],
        lambda c: copy.copy(c) == {},
    ],
)
def test_whatever_looks_finds_it_gone(LRU, clock, look):
    gone = []
    cache = LRU(5, ttl=10, timer=clock, on_evict=lambda *args: gone.append(args))
    cache["a"] = 1
    clock.now = 11
    assert look(cache)
    assert gone == [("a", 1, "expired")]
    cache.check()


def test_popitem_and_delete_of_the_expired(LRU, clock):
    cache = LRU(5, ttl=10, timer=clock)
    cache["a"] = 1
    clock.now = 11
    with pytest.raises(KeyError):
        del cache["a"]
    cache["b"] = 1
    clock.now = 22
    with pytest.raises(KeyError, match="is empty"):
        cache.popitem()


def test_own_ttl(LRU, clock):
    cache = LRU(5, ttl=10, timer=clock)
    cache.set("a", 1, ttl=5)
    cache.set("b", 2, ttl=None)
    cache.set("c", 3, ttl=math.inf)
    cache.set("d", 4)
    assert [cache.time_left(k) for k in "abcd"] == [5, math.inf, math.inf, 10]
    assert cache.ttl == 10
    clock.now = 20
    assert list(cache) == ["b", "c"]
    cache["b"] = 5  # decides anew
    assert cache.time_left("b") == 10
    cache["b"] = 6
    plain = LRU(5, timer=clock)
    plain.set("a", 1, ttl=1)
    plain["a"] = 2
    assert plain.time_left("a") == math.inf
    assert plain.ttl is None
    cache.check(), plain.check()


def test_touch_and_hits_do_not_renew(LRU, clock):
    cache = LRU(5, ttl=10, timer=clock)
    cache["a"] = 1
    clock.now = 9
    assert cache.touch("a")
    assert cache["a"] == 1
    clock.now = 10
    assert "a" not in cache


def test_a_full_cache_takes_the_due_first(LRU, clock):
    gone = []
    cache = LRU(3, timer=clock, on_evict=lambda *args: gone.append(args))
    cache["a"] = 1
    cache.set("b", 2, ttl=5)
    cache["c"] = 3
    clock.now = 6
    cache["d"] = 4
    assert gone == [("b", 2, "expired")]
    cache["e"] = 5
    assert gone[1:] == [("a", 1, "capacity")]


def test_a_store_drops_only_a_few(LRU, clock):
    gone = []
    cache = LRU(100, ttl=1, timer=clock, on_evict=lambda *args: gone.append(args[0]))
    for i in range(10):
        cache[i] = i
    clock.now = 5
    cache["a"] = 1
    assert gone == [0, 1]
    assert cache.expire() == 8
    assert gone == list(range(10))
    assert cache.expire() == 0
    assert list(cache) == ["a"]


def test_they_go_in_the_order_of_their_time(LRU, clock):
    gone = []
    cache = LRU(100, timer=clock, on_evict=lambda *args: gone.append(args[0]))
    for i in range(50):
        cache.set(i, i, ttl=1 + i * 37 % 50)
    cache.set(7, 7, ttl=0.5)
    del cache[11]
    clock.now = 100
    assert cache.expire() == 49
    want = sorted(range(50), key=lambda i: i * 37 % 50 if i != 7 else -1)
    assert gone == [i for i in want if i != 11]


def test_the_timer_is_left_alone_without_ttl(LRU, clock):
    cache = LRU(2, timer=clock)
    cache.update(a=1, b=2, c=3)
    cache["b"], cache.get("x"), len(cache), list(cache), cache.stats(), cache.popitem()
    cache.expire(), cache.resize(1), cache.time_left("b")
    assert clock.calls == 0


def test_sizes_and_ttl(LRU, clock):
    cache = LRU(10, len, ttl=10, timer=clock)
    cache["a"] = "xxxxx"
    clock.now = 5
    cache["b"] = "xxxx"
    clock.now = 10
    assert cache.currsize == 4
    cache["c"] = "xxxxxx"
    assert list(cache) == ["b", "c"]
    cache.clear()
    cache["c"] = "x"
    assert cache.time_left("c") == 10
    cache.check()


@pytest.mark.parametrize(
    ("ttl", "error", "message"),
    [
        (0, ValueError, "ttl must be positive, not 0"),
        (-1, ValueError, "ttl must be positive, not -1"),
        (math.nan, ValueError, "ttl must be a number, not nan"),
        ("1", TypeError, "ttl must be a number, not '1'"),
    ],
)
def test_bad_ttl(LRU, ttl, error, message):
    with pytest.raises(error, match=message):
        LRU(1, ttl=ttl)
    cache = LRU(1)
    with pytest.raises(error, match=message):
        cache.set("a", 1, ttl=ttl)
    assert len(cache) == 0
    assert LRU(1, ttl=math.inf).ttl is None


def test_bad_timers(LRU):
    for answer, error in (("x", TypeError), (math.nan, ValueError), (None, TypeError)):
        cache = LRU(1, ttl=1, timer=lambda: answer)  # noqa: B023
        with pytest.raises(error, match="the time that timer returns must be a number"):
            cache["a"] = 1
        assert len(cache) == 0
    with pytest.raises(TypeError, match="timer must be callable, not None"):
        LRU(1, timer=None)


def test_timer_that_raises_or_reenters(LRU):
    def timer():
        if modes and modes[-1] == "raise":
            raise RuntimeError("clock")
        if modes and modes[-1] == "use":
            modes.append("")
            cache["z"] = 1
            cache.clear()
        return 0

    modes = []
    cache = LRU(3, ttl=1, timer=timer)
    cache["a"] = 1
    modes.append("raise")
    for act in (
        lambda: cache["a"],
        lambda: cache.__setitem__("b", 1),
        lambda: len(cache),
        lambda: list(cache),
        lambda: cache.popitem(),
        lambda: "a" in cache,
        lambda: cache.pop("a"),
        lambda: cache.resize(1),
    ):
        with pytest.raises(RuntimeError, match="clock"):
            act()
    modes.append("")
    assert dict(cache) == {"a": 1}
    modes.append("use")
    cache["b"] = 2
    assert dict(cache) == {"b": 2}
    modes.append("use")
    assert cache.get("b") is None
    cache.check()


def test_copies_keep_the_time_left(LRU):
    for again in (copy.copy, copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))):
        cache = LRU(5, ttl=1000, timer=time.monotonic)
        cache["a"] = 1
        cache.set("b", 2, ttl=math.inf)
        other = again(cache)
        assert 990 < other.time_left("a") <= 1000
        assert other.time_left("b") == math.inf
        assert other.ttl == 1000
        other.check()


def test_the_real_clock(LRU):
    cache = LRU(5, ttl=0.02)
    cache["a"] = 1
    assert "a" in cache
    time.sleep(0.03)
    assert "a" not in cache
