"""Policies against references in the plainest Python, and the twins op by op."""

import math
import pickle
import random

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from ctxpool import _cache_support as support
from ctxpool._pure.policies import tag_of

POLICIES = support.POLICIES


class Reference:
    """A cache of keys as a list, newest first; subclasses choose the victim."""

    def __init__(self, maxsize):
        self.maxsize = maxsize
        self.keys = []

    def access(self, key):
        """Whether it was a hit; a miss stores the key."""
        if key in self.keys:
            self.hit(key)
            return True
        if len(self.keys) >= self.maxsize:
            victim = self.victim()
            self.keys.remove(victim)
            self.gone(victim)
        self.keys.insert(0, key)
        self.new(key)
        return False

    def hit(self, key):
        pass

    def new(self, key):
        pass

    def gone(self, key):
        pass

    def victim(self):
        return self.keys[-1]


class Fifo(Reference):
    pass


class Lru(Reference):
    def hit(self, key):
        self.keys.remove(key)
        self.keys.insert(0, key)


class Mru(Lru):
    def victim(self):
        return self.keys[0]


class Lfu(Lru):
    def __init__(self, maxsize):
        super().__init__(maxsize)
        self.count = {}

    def new(self, key):
        self.count[key] = 1

    def hit(self, key):
        super().hit(key)
        self.count[key] += 1

    def victim(self):
        return min(reversed(self.keys), key=self.count.__getitem__)


class Sieve(Reference):
    """The paper's algorithm 1, with a list and an index from the tail."""

    def __init__(self, maxsize):
        super().__init__(maxsize)
        self.visited = {}
        self.hand = None

    def new(self, key):
        self.visited[key] = False

    def hit(self, key):
        self.visited[key] = True

    def victim(self):
        keys = self.keys
        at = keys.index(self.hand) if self.hand is not None else len(keys) - 1
        while self.visited[keys[at]]:
            self.visited[keys[at]] = False
            at = at - 1 if at > 0 else len(keys) - 1
        self.hand = keys[at - 1] if at > 0 else None
        return keys[at]


class S3Fifo(Reference):
    """The paper's algorithm 1; a ghost is one of the last `room` deaths."""

    def __init__(self, maxsize):
        super().__init__(maxsize)
        self.small, self.main, self.ghost, self.freq = [], [], {}, {}
        self.room, self.deaths = maxsize - maxsize // 10, 0

    def hit(self, key):
        self.freq[key] = min(self.freq[key] + 1, 3)

    def new(self, key):
        self.freq[key] = 0
        if self.deaths - self.ghost.pop(key, -self.room) < self.room:
            self.main.insert(0, key)
        else:
            self.small.insert(0, key)

    def victim(self):
        while True:
            if len(self.small) >= self.maxsize / 10:
                key = self.small.pop()
                if self.freq[key] > 1:
                    self.freq[key] = 0
                    self.main.insert(0, key)
                    continue
                self.deaths += 1
                self.ghost[key] = self.deaths
                return key
            key = self.main.pop()
            if not self.freq[key]:
                return key
            self.freq[key] -= 1
            self.main.insert(0, key)


REFERENCES = {"fifo": Fifo, "lru": Lru, "mru": Mru, "lfu": Lfu}
REFERENCES |= {"sieve": Sieve, "s3fifo": S3Fifo}
TRACES = st.lists(
    st.one_of(st.integers(0, 8), st.integers(0, 40), st.integers(0, 500)),
    min_size=30,
    max_size=400,
)


def access(cache, key):
    hit = cache.get(key) is not None
    if not hit:
        cache[key] = str(key)
    return hit


@pytest.mark.parametrize("policy", sorted(REFERENCES))
def test_against_the_reference(impl, policy):
    @settings(max_examples=80, deadline=None)
    @given(TRACES, st.sampled_from([1, 2, 3, 7, 10, 25]))
    def run(trace, maxsize):
        if policy == "s3fifo":  # larger ones lose a few ghosts
            maxsize = min(maxsize, 3)
        cache, reference = impl.Cache(maxsize, policy), REFERENCES[policy](maxsize)
        for n, key in enumerate(trace):
            assert access(cache, key) == reference.access(key), (n, key)
            assert sorted(cache) == sorted(reference.keys)
        cache.check()

    run()


@pytest.mark.parametrize("maxsize", [10, 100, 700])
def test_the_ghosts_that_are_lost_cost_little(impl, maxsize):
    cache, reference = impl.Cache(maxsize, "s3fifo"), S3Fifo(maxsize)
    dice, hits, n = random.Random(maxsize), [0, 0], 20_000
    for _ in range(n):
        key = int(maxsize * dice.paretovariate(0.7) / 10) % (20 * maxsize)
        hits[0] += access(cache, key)
        hits[1] += reference.access(key)
    assert abs(hits[0] - hits[1]) < 0.003 * n
    cache.check()


def test_random_choice_is_fair(impl):
    cache = impl.Cache(10, "rr")
    gone = dict.fromkeys(range(10), 0)
    for key in range(10):
        cache[key] = key
    for _ in range(5000):
        key, _ = cache.popitem()
        cache[key] = key
        gone[key] += 1
    assert min(gone.values()) > 350
    assert max(gone.values()) < 650


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "set",
                "set",
                "get",
                "get",
                "get",
                "pop",
                "popitem",
                "resize",
                "wait",
                "ttl",
                "touch",
                "setdefault",
                "clear",
                "copy",
                "expire",
            ]
        ),
        st.one_of(st.integers(0, 15), st.integers(0, 60)),
        st.integers(0, 6),
    ),
    max_size=120,
)


def act(cache, action, key, value):
    try:
        return {
            "set": lambda: cache.__setitem__(key, value),
            "get": lambda: cache.get(key),
            "pop": lambda: cache.pop(key, None),
            "popitem": lambda: cache.popitem(),
            "resize": lambda: cache.resize(3 + key // 3) if value == 0 else None,
            "wait": lambda: None,
            "ttl": lambda: cache.set(key, value, ttl=value + 1),
            "touch": lambda: cache.touch(key),
            "setdefault": lambda: cache.setdefault(key, value),
            "clear": lambda: cache.clear() if key == 7 else None,
            "copy": lambda: cache.__getstate__()["marks"],
            "expire": lambda: cache.expire(),
        }[action]()
    except (KeyError, ValueError) as error:
        return type(error), str(error)


@pytest.mark.parametrize("policy", POLICIES)
def test_the_twins_agree_op_by_op(twins, policy):
    @settings(max_examples=150, deadline=None)
    @given(ACTIONS, st.sampled_from([1, 4, 10, 21, 5.5, math.inf]), st.integers(0, 2))
    def run(actions, maxsize, kind):
        now = [0.0]
        told = [], []
        caches = [
            twin.Cache(
                maxsize,
                policy,
                abs if kind == 1 else None,
                ttl=9 if kind == 2 else None,
                timer=lambda: now[0],
                on_evict=lambda *args, out=out: out.append(args),
            )
            for twin, out in zip(twins, told, strict=True)
        ]
        for action, key, value in actions:
            now[0] += value * (action == "wait")
            first, second = (act(cache, action, key, value) for cache in caches)
            assert first == second
            assert told[0] == told[1]
            a, b = caches
            assert a.by_recency() == b.by_recency()
            assert list(a.items()) == list(b.items())
            assert a.currsize == b.currsize <= b.maxsize
            a.check()
            b.check()

    run()


@pytest.mark.parametrize("policy", POLICIES)
def test_the_twins_agree_on_a_long_run(twins, policy):
    """Long enough for all arrays to grow, and for ghosts to be forgotten."""
    caches = [twin.Cache(200, policy) for twin in twins]
    x = 1
    for n in range(30_000):
        x = x * 48271 % 0x7FFFFFFF
        key = (x % 1500) * (x >> 16) % (300 if n % 3 else 3000)
        hits = [access(cache, key) for cache in caches]
        assert hits[0] == hits[1]
    assert caches[0].by_recency() == caches[1].by_recency()
    assert caches[0].__getstate__()["marks"] == caches[1].__getstate__()["marks"]
    for cache in caches:
        cache.check()


def phases(requests):
    """Loops over more than fits, up and down, draws, and what shifts: each in turn."""
    x = 1
    for n in range(requests):
        x = x * 48271 % 0x7FFFFFFF
        yield (
            n % 1300,
            abs(n % 2400 - 1200),
            (x % 1500) * (x >> 16) % 3000,
            n // 20 + x % 700,
        )[n // 6000 % 4]


@pytest.mark.parametrize("policy", ["adaptive", "tinylfu"])
def test_the_twins_agree_while_they_adapt(twins, policy):
    """Large enough for a sample of the keys, and for the sample to shrink."""
    caches = [twin.Cache(1200, policy) for twin in twins]
    windows = set()
    for n, key in enumerate(phases(50_000)):
        hits = [access(cache, key) for cache in caches]
        assert hits[0] == hits[1], n
        if n % 5000 == 2500:
            states = [cache.__getstate__() for cache in caches]
            windows.add(states[0]["marks"][0] >> 6)
            assert states[0]["marks"] == states[1]["marks"]
            assert caches[0].by_recency() == caches[1].by_recency()
            for cache in caches:
                cache.check()
        if n == 20_000:  # each goes on as the other
            states = [pickle.loads(pickle.dumps(c.__getstate__())) for c in caches]
            caches = [twin.Cache(1) for twin in twins]
            for cache, state in zip(caches, reversed(states), strict=True):
                cache.__setstate__(state)
        if n in (30_000, 40_000):
            for cache in caches:
                cache.resize(700 if n == 30_000 else 1500)
    assert len(windows) > 1


def hits_of(impl, policy, size, keys):
    cache = impl.Cache(size, policy)
    return [access(cache, key) for key in keys]


def test_adaptive_is_lru_where_lru_is_best(impl):
    up_and_down = [abs(n % 400 - 200) for n in range(8000)]
    for size in (50, 100, 190):
        assert hits_of(impl, "adaptive", size, up_and_down) == hits_of(
            impl, "lru", size, up_and_down
        )


def test_adaptive_is_not_lru_where_lru_is_worst(impl):
    loop = list(range(120)) * 40
    assert sum(hits_of(impl, "lru", 100, loop)) == 0
    assert sum(hits_of(impl, "adaptive", 100, loop)) > 0.7 * len(loop)


def test_adaptive_returns_to_lru(impl):
    """What it loses when the tide turns is a part of one cacheful."""
    before = list(range(120)) * 30
    for drift in (3, 10):
        after = [1000 + n // drift + n * n % 60 for n in range(6000)]
        keys = before + after
        adaptive = sum(hits_of(impl, "adaptive", 100, keys)[len(before) :])
        lru = sum(hits_of(impl, "lru", 100, keys)[len(before) :])
        assert adaptive > lru - 100, drift


def test_tinylfu_lets_scans_pass(impl):
    x, keys = 1, []
    for n in range(12_000):
        x = x * 48271 % 0x7FFFFFFF
        keys.append((x % 120) * (x >> 16) % 120 if n % 2 else 1000 + n)
    lru, tiny = (sum(hits_of(impl, policy, 100, keys)) for policy in ("lru", "tinylfu"))
    assert tiny > lru * 1.2


def test_what_was_popular_goes_in_the_end(impl):
    cache = impl.Cache(10, "tinylfu")
    for key in range(10):
        for _ in range(20):
            access(cache, key)
    for n in range(2000):
        access(cache, 100 + n % 15)
    assert min(cache) >= 100


def test_keys_of_one_hash(impl):
    """All ghosts are one: no harm but to the hit ratio."""

    class Key(int):
        def __hash__(self):
            return 7

    for policy in POLICIES:
        cache = impl.Cache(20, policy)
        for i in range(300):
            access(cache, Key(i * i % 47))
            cache.check()
        assert len(cache) == 20


def test_tags_are_those_of_the_table(twins):
    native = twins[0].Cache(10, "s3fifo")
    for number in (0, 1, 7, 8, -1, -2, 2**61 - 2, 12345678901):
        native[number] = 1
        assert 0 <= tag_of(hash(number)) < 2**32
