"""Random actions against plain references: an OrderedDict, and cachetools itself."""

import copy
import math
import pickle
from collections import OrderedDict

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

KEYS = st.one_of(st.integers(0, 12), st.sampled_from("abcdef"))
SIZES = st.sampled_from([0, 1, 2, 3, 5, 0.5, 2.25])


class Plain:
    """What a cache should do, in the plainest words: dicts of (value, size, due)."""

    def __init__(self, maxsize, sized, ttl):
        self.maxsize, self.sized, self.ttl = maxsize, sized, ttl
        self.used = OrderedDict()  # in the order of use
        self.inserted = {}  # in the order of insertion
        self.now = 0
        self.gone = []

    def total(self):
        return sum(size for _, size, _ in self.used.values())

    def drop(self, key, reason=None):
        value, _, _ = self.used.pop(key)
        del self.inserted[key]
        if reason:
            self.gone.append((key, value, reason))
        return value

    def due(self):
        """The keys that are due, soonest first."""
        order = list(self.inserted)
        due = [k for k, (_, _, when) in self.used.items() if when <= self.now]
        return sorted(due, key=lambda k: (self.used[k][2], order.index(k)))

    def expire(self, most=math.inf):
        for n, key in enumerate(self.due()):
            if n < most:
                self.drop(key, "expired")

    def find(self, key):
        if key in self.used and self.used[key][2] <= self.now:
            self.drop(key, "expired")
        return key in self.used

    def get(self, key):
        if not self.find(key):
            return None
        self.used.move_to_end(key)
        return self.used[key][0]

    def set(self, key, value, ttl):
        size = value if self.sized else 1
        if size > self.maxsize:
            return False
        self.expire(2)
        self.find(key)
        while True:
            old = self.used[key][1] if key in self.used else 0
            if self.total() + size - old <= self.maxsize:
                break
            due = self.due()
            if due:
                self.drop(due[0], "expired")
            else:
                self.drop(next(iter(self.used)), "capacity")
        self.inserted[key] = None
        self.used[key] = value, size, self.now + ttl
        self.used.move_to_end(key)
        return True

    def resize(self, maxsize):
        self.maxsize = maxsize
        if self.total() > maxsize:
            self.expire()
        while self.total() > maxsize:
            self.drop(next(iter(self.used)), "resize")


def machine_for(LRU):
    class Machine(RuleBasedStateMachine):
        cache = None

        @precondition(lambda self: self.cache is None)
        @rule(
            maxsize=st.sampled_from([1, 3, 5, 8, 4.5, math.inf]),
            sized=st.booleans(),
            ttl=st.sampled_from([None, None, 3, 7]),
        )
        def start(self, maxsize, sized, ttl):
            self.plain = Plain(maxsize, sized, math.inf if ttl is None else ttl)
            self.gone = []
            self.cache = LRU(
                maxsize,
                (lambda value: value) if sized else None,
                ttl=ttl,
                timer=lambda: self.plain.now,
                on_evict=lambda *args: self.gone.append(args),
            )

        def use(action):
            return precondition(lambda self: self.cache is not None)(action)

        @use
        @rule(key=KEYS, value=SIZES)
        def setitem(self, key, value):
            if self.plain.set(key, value, self.plain.ttl):
                self.cache[key] = value
            else:
                with pytest.raises(ValueError, match="value too large"):
                    self.cache[key] = value

        @use
        @rule(key=KEYS, value=SIZES, ttl=st.sampled_from([1, 2, 5, math.inf]))
        def set_ttl(self, key, value, ttl):
            if self.plain.set(key, value, ttl):
                self.cache.set(key, value, ttl=ttl)

        @use
        @rule(key=KEYS)
        def get(self, key):
            assert self.cache.get(key) == self.plain.get(key)

        @use
        @rule(key=KEYS)
        def contains_and_peek(self, key):
            assert (key in self.cache) == self.plain.find(key)
            assert self.cache.peek(key, -1) == self.plain.used.get(key, (-1,))[0]

        @use
        @rule(key=KEYS)
        def touch(self, key):
            assert self.cache.touch(key) == (self.plain.get(key) is not None)

        @use
        @rule(key=KEYS)
        def pop(self, key):
            want = self.plain.drop(key) if self.plain.find(key) else -1
            assert self.cache.pop(key, -1) == want

        @use
        @rule()
        def popitem(self):
            self.plain.expire()
            if self.plain.used:
                key = next(iter(self.plain.used))
                assert self.cache.popitem() == (key, self.plain.drop(key))
            else:
                with pytest.raises(KeyError, match="LRUCache is empty"):
                    self.cache.popitem()

        @use
        @rule(key=KEYS, value=SIZES)
        def setdefault(self, key, value):
            want = self.plain.get(key)
            if want is not None or self.plain.set(key, value, self.plain.ttl):
                want = value if want is None else want
                assert self.cache.setdefault(key, value) == want

        @use
        @rule(maxsize=st.sampled_from([2, 4, 6, 9]))
        def resize(self, maxsize):
            self.plain.resize(maxsize)
            self.cache.resize(maxsize)

        @use
        @rule(seconds=st.sampled_from([0.5, 1, 3]))
        def wait(self, seconds):
            self.plain.now += seconds

        @use
        @rule()
        def copies(self):
            self.plain.expire()
            other = copy.copy(self.cache)
            assert list(other.items()) == list(self.cache.items())
            assert other.by_recency() == self.cache.by_recency()
            other.check()

        @use
        @rule()
        def clear(self):
            self.plain.used.clear()
            self.plain.inserted.clear()
            self.cache.clear()

        @use
        @rule()
        def whole(self):
            self.plain.expire()
            assert list(self.cache) == list(self.plain.inserted)
            assert self.cache.by_recency() == list(self.plain.used)
            assert self.cache.currsize == self.plain.total()
            assert len(self.cache) == len(self.plain.used)

        @invariant()
        def agrees(self):
            if self.cache is not None:
                self.cache.check()
                assert self.gone == self.plain.gone

    return Machine


def test_against_a_plain_reference(impl):
    case = machine_for(impl.LRUCache).TestCase
    case.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
    case().runTest()


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "set",
                "get",
                "getitem",
                "pop",
                "popitem",
                "del",
                "setdefault",
                "in",
                "update",
                "clear",
                "len",
                "missing",
            ]
        ),
        KEYS,
        st.integers(-1, 6),
    ),
    max_size=60,
)


def outcome(action, cache, key, value):
    """What came of an action: its answer, or the kind of its error."""
    try:
        return {
            "set": lambda: cache.__setitem__(key, value),
            "get": lambda: cache.get(key, value),
            "getitem": lambda: cache[key],
            "pop": lambda: cache.pop(key, value),
            "popitem": lambda: cache.popitem(),
            "del": lambda: cache.__delitem__(key),
            "setdefault": lambda: cache.setdefault(key, value),
            "in": lambda: key in cache,
            "update": lambda: cache.update([(key, value), (value, value)]),
            "clear": lambda: cache.clear(),
            "len": lambda: len(cache),
            "missing": lambda: cache.pop(key),
        }[action]()
    except (KeyError, ValueError) as error:
        kind = KeyError if isinstance(error, KeyError) else ValueError
        return kind, error.args if kind is KeyError else str(error)[:15]


@pytest.mark.parametrize("subclass", [False, True])
def test_against_cachetools(impl, subclass):
    cachetools = pytest.importorskip("cachetools")

    def classes():
        for base in (impl.LRUCache, cachetools.LRUCache):
            calls = []
            if not subclass:
                yield base, calls
                continue

            class Sub(base):
                log = calls

                def popitem(self):
                    self.log.append("popitem")
                    return super().popitem()

                def __delitem__(self, key):
                    self.log.append(("del", key))
                    super().__delitem__(key)

                def __missing__(self, key):
                    self.log.append(("missing", key))
                    return key

            yield Sub, calls

    @settings(max_examples=150, deadline=None)
    @given(ACTIONS, st.sampled_from([0, 1, 3, 6, 2.5, math.inf]), st.booleans())
    def run(actions, maxsize, sized):
        (ours, our_calls), (theirs, their_calls) = classes()
        size = (lambda value: value) if sized else None
        mine, other = ours(maxsize, size), theirs(maxsize, size)
        for action, key, value in actions:
            want = outcome(action, other, key, value)
            assert outcome(action, mine, key, value) == want
            assert list(mine) == list(other)
            assert len(mine) == len(other)
            assert (mine.currsize, mine.maxsize) == (other.currsize, other.maxsize)
            assert mine == dict(other._Cache__data)
            assert mine.by_recency() == list(other._LRUCache__order)
            assert our_calls == their_calls
            mine.check()

    run()


def test_pickles_go_round(impl):
    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.tuples(KEYS, SIZES)), st.lists(KEYS))
    def run(pairs, used):
        cache = impl.LRUCache(20, lambda_free_size)
        cache.update(pairs)
        cache.get_many(used)
        other = pickle.loads(pickle.dumps(cache))
        assert list(other.items()) == list(cache.items())
        assert other.by_recency() == cache.by_recency()
        assert other.currsize == cache.currsize

    run()


lambda_free_size = abs
