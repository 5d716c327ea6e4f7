"""Cache: what it adds to LRUCache. Its policies are in test_cache_policies.py."""

import copy
import gc
import math
import pickle

import pytest

from ctxpool import _cache_support as support

POLICIES = support.POLICIES


@pytest.fixture(params=POLICIES)
def policy(request):
    return request.param


def test_s3fifo_is_the_default(impl):
    cache = impl.Cache(3)
    assert cache.policy == "s3fifo"
    assert isinstance(cache, impl.LRUCache)
    with pytest.raises(AttributeError):
        cache.policy = "lru"


def test_the_policy_has_to_exist(impl):
    names = ", ".join(POLICIES)
    with pytest.raises(ValueError, match=f"policy must be one of {names}, not 'arc'"):
        impl.Cache(3, "arc")
    with pytest.raises(TypeError, match="policy must be a str, not 3"):
        impl.Cache(3, 3)


def test_bad_arguments_change_nothing(impl, policy):
    cache = impl.Cache(3, policy)
    cache.update(a=1, b=2)
    for wrong in ((-1, "lru"), (3, "x"), (3, "lru", 5)):
        with pytest.raises((ValueError, TypeError)):
            cache.__init__(*wrong)
        assert (cache.policy, dict(cache), cache.maxsize) == (
            policy,
            {"a": 1, "b": 2},
            3,
        )
    cache.clear()
    assert cache.policy == policy


def test_a_second_init_changes_the_policy(impl, policy):
    cache = impl.Cache(2, "lfu")
    cache.update(a=1, b=2, c=3)
    cache.__init__(3, policy)
    assert (cache.policy, len(cache), cache.maxsize) == (policy, 0, 3)
    cache.update(a=1, b=2, c=3, d=4)
    cache.check()
    assert len(cache) == 3


def test_lru_is_lru_cache(impl):
    a, b = impl.LRUCache(5), impl.Cache(5, "lru")
    for i in range(300):
        for cache in (a, b):
            cache.get(i * 7 % 11)
            cache[i * i % 13] = i
        assert a.by_recency() == b.by_recency()
        assert list(a.items()) == list(b.items())


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("fifo", "bcd"),
        ("lru", "acd"),
        ("mru", "bcd"),
        ("lfu", "acd"),
        ("sieve", "acd"),
    ],
)
def test_what_goes(impl, name, left):
    cache = impl.Cache(3, name)
    cache.update(a=1, b=2, c=3)
    cache["a"], cache["a"]
    cache["d"] = 4
    assert list(cache) == list(left)


def test_s3fifo_lets_a_scan_pass(impl):
    cache = impl.Cache(20, "s3fifo")
    for key in range(20):
        cache[key] = key
        cache[key], cache[key]
    for key in range(1000, 1500):
        cache[key] = key
    assert sum(key in cache for key in range(20)) >= 18


def test_s3fifo_knows_what_comes_back(impl):
    cache = impl.Cache(10, "s3fifo")
    for key in range(10):
        cache[key] = key
    cache["new"] = 1  # 0 goes
    assert 0 not in cache
    cache[0] = 0  # 1 goes, and 0 is in the main queue
    assert cache.by_recency()[0] == 0


def test_popitem_gives_the_victim(impl, policy):
    cache = impl.Cache(8, policy)
    for i in range(20):
        cache[i % 11] = i
        cache.get(i % 3)
    twin = copy.copy(cache)
    gone = []
    while cache:
        key, _ = cache.popitem()
        assert key not in cache
        gone.append(key)
        cache.check()
    assert sorted(gone) == sorted(twin)
    with pytest.raises(KeyError, match="Cache is empty"):
        cache.popitem()


def test_on_evict_is_told_of_each(impl, policy):
    told = []
    cache = impl.Cache(4, policy, on_evict=lambda *args: told.append(args))
    for i in range(50):
        cache[i] = -i
        cache.get(i // 2)
    assert all(reason == "capacity" for _, _, reason in told)
    assert len(told) == 46
    cache.resize(1)
    assert [reason for _, _, reason in told[46:]] == ["resize"] * 3
    keys = [key for key, _, _ in told]
    assert sorted([*keys, *cache]) == list(range(50))


def test_time_to_live(impl, policy):
    now = [0.0]
    cache = impl.Cache(5, policy, ttl=10, timer=lambda: now[0])
    for i in range(12):
        cache[i] = i
        cache.get(i)
        now[0] += 1
        cache.check()
    before, gone = len(cache), cache.stats().evicted_expired
    assert 4 <= before <= 5  # of "mru" one has expired
    now[0] += 100
    assert len(cache) == 0
    assert cache.stats().evicted_expired == gone + before
    cache.check()


def test_sizes(impl, policy):
    cache = impl.Cache(30, policy, lambda value: value)
    for i in range(200):
        cache[i % 17] = 1 + i * 7 % 12
        cache.get(i % 5)
        assert cache.currsize <= 30
        cache.check()
    with pytest.raises(ValueError, match="value too large: size 31, maxsize 30"):
        cache["big"] = 31


def test_an_unbounded_one(impl, policy):
    cache = impl.Cache(math.inf, policy)
    for i in range(500):
        cache[i] = i
        cache.get(i // 2)
    assert len(cache) == 500
    cache.resize(7)
    cache.check()
    assert len(cache) == 7


def test_preallocated_memory_stays_the_same(impl, policy):
    cache = impl.Cache(1000, policy, preallocate=True)
    before = cache.stats().bytes
    for i in range(5000):
        cache[i * i] = i
        cache.get((i - 300) ** 2)
    if impl.backend == "native":
        assert cache.stats().bytes == before
    cache.clear()
    cache["a"] = 1
    cache.check()
    if impl.backend == "native":
        assert cache.stats().bytes == before


def test_memory_of_native_policies(impl):
    if impl.backend == "pure":
        pytest.skip("its bytes are an estimate")
    each = {}
    for policy in POLICIES:
        cache = impl.Cache(20_000, policy)
        for i in range(60_000):
            cache[i] = i
        each[policy] = cache.stats().bytes / 20_000
    for policy, most in (("fifo", 0), ("sieve", 1), ("rr", 8), ("lfu", 12)):
        assert each[policy] - each["lru"] <= most * 1.1
    assert each["s3fifo"] - each["lru"] < 40


@pytest.mark.parametrize("how", [copy.copy, lambda c: pickle.loads(pickle.dumps(c))])
def test_a_copy_goes_on_alike(impl, policy, how):
    """Where nothing is remembered of what has gone."""
    cache = impl.Cache(9, policy)
    for i in range(9):
        cache[i] = i
    for i in range(40):
        cache.get(i * i % 9)
    other = how(cache)
    assert type(other) is type(cache)
    assert (other.policy, other.maxsize) == (policy, 9)
    assert list(other.items()) == list(cache.items())
    assert other.by_recency() == cache.by_recency()
    other.check()
    if policy in ("adaptive", "tinylfu"):  # they count requests that came before
        return
    for i in range(300):
        for each in (cache, other):
            each.get(i * 7 % 23)
            each[i * i % 29] = i
        assert list(other) == list(cache)


def test_a_copy_in_the_middle_keeps_order_and_marks(impl, policy):
    cache = impl.Cache(9, policy)
    for i in range(100):
        cache[i * i % 31] = i
        cache.get(i % 7)
        other = copy.copy(cache)
        other.check()
        assert other.by_recency() == cache.by_recency()
        assert other.__getstate__()["marks"] == cache.__getstate__()["marks"]


def test_subclasses_see_evictions(impl, policy):
    class Sub(impl.Cache):
        def popitem(self):
            pair = super().popitem()
            gone.append(pair)
            return pair

        def __delitem__(self, key):
            deleted.append(key)
            super().__delitem__(key)

    gone, deleted = [], []
    cache = Sub(3, policy)
    for i in range(9):
        cache[i] = i
        cache.check()
    assert len(gone) == 6
    assert deleted == [key for key, _ in gone]
    assert pickle.loads(pickle.dumps(impl.Cache(3, policy))).policy == policy


def test_atoms_cost_the_collector_nothing(impl, policy):
    if impl.backend == "pure":
        pytest.skip("a Python object is always tracked")
    cache = impl.Cache(100, policy)
    for i in range(300):
        cache[i] = str(i)
    assert not gc.is_tracked(cache)
    cache["list"] = []
    assert gc.is_tracked(cache)
