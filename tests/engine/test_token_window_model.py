"""Random actions against a plain list, on every layout, with views kept all along."""

import collections
import pickle

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

TOKENS = st.integers(-(2**15), 2**15 - 1)


class Model:
    """What the window does, one token at a time."""

    def __init__(self, capacity, sink, overlap, compact):
        self.tokens = []
        self.capacity, self.sink = capacity, sink
        self.step = capacity - sink - overlap if compact else 1
        self.position = self.evicted = 0
        self.told = []

    def append(self, token):
        if len(self.tokens) == self.capacity:
            self.told += self.tokens[self.sink : self.sink + self.step]
            del self.tokens[self.sink : self.sink + self.step]
            self.evicted += self.step
        self.tokens.append(token)
        self.position += 1


class Machine(RuleBasedStateMachine):
    cls = None  # set by the test

    @initialize(data=st.data(), tell=st.booleans(), compact=st.booleans())
    def start(self, data, tell, compact):
        capacity = data.draw(st.integers(1, 90), "capacity")
        sink = data.draw(st.sampled_from([0, 0, capacity // 3]), "sink")
        overlap = data.draw(st.integers(0, capacity - sink - 1), "overlap")
        self.model = Model(capacity, sink, overlap, compact)
        self.told = []
        self.window = self.cls(
            capacity,
            sink=sink,
            overlap=overlap if compact else 0,
            overflow="compact" if compact else "slide",
            slack=data.draw(st.sampled_from([None, 1, 2, 100, 300]), "slack"),
            dtype=data.draw(st.sampled_from(["int16", "int32", "int64"]), "dtype"),
            on_evict=self.tell if tell else None,
        )
        self.shown = []

    def tell(self, tokens):
        assert not tokens.flags.writeable
        self.told += tokens.tolist()
        self.shown.append((tokens, tokens.tolist()))

    @rule(token=TOKENS)
    def append(self, token):
        self.window.append(token)
        self.model.append(token)

    @rule(count=st.integers(1, 300), token=TOKENS)
    def append_many(self, count, token):
        for _ in range(count):
            self.append(token)
            token = token + 1 if token < 2**15 - 1 else 0

    @rule(
        tokens=st.lists(TOKENS, max_size=30),
        times=st.sampled_from([1, 1, 1, 2, 9]),
        kind=st.sampled_from(["list", "same", "int64", "iter"]),
    )
    def extend(self, tokens, times, kind):
        tokens = tokens * times
        if kind == "list":
            self.window.extend(tokens)
        elif kind == "iter":
            self.window.extend(iter(tokens))
        else:
            dtype = self.window.dtype if kind == "same" else kind
            self.window.extend(np.array(tokens, dtype))
        for token in tokens:
            self.model.append(token)

    @rule(cut=st.integers(0, 100))
    def extend_by_itself(self, cut):
        tokens = self.model.tokens[cut:]
        self.window.extend(self.window.view()[cut:])
        for token in tokens:
            self.model.append(token)

    @rule(count=st.integers(1, 5))
    def pop(self, count):
        for _ in range(count):
            if self.model.tokens:
                assert self.window.pop() == self.model.tokens.pop()
                self.model.position -= 1
            else:
                with pytest.raises(IndexError):
                    self.window.pop()

    @rule(count=st.integers(1, 5))
    def popleft(self, count):
        for _ in range(count):
            if len(self.model.tokens) > self.model.sink:
                assert self.window.popleft() == self.model.tokens.pop(self.model.sink)
            else:
                with pytest.raises(IndexError):
                    self.window.popleft()

    @rule()
    def clear(self):
        self.window.clear()
        self.model.tokens.clear()

    @rule(n=st.integers(0, 100))
    def show(self, n):
        for got in (self.window.view(), self.window.last(n), self.window[n:0:-2]):
            self.shown.append((got, got.tolist()))

    @rule(token=TOKENS, pick=st.integers(0, 100))
    def search(self, token, pick):
        tokens = self.model.tokens
        if tokens:
            token = tokens[pick % len(tokens)]
            assert self.window.index(token) == tokens.index(token)
        assert (token in self.window) == (token in tokens)
        assert self.window.count(token) == tokens.count(token)

    @rule(through=st.sampled_from([lambda w: w.copy(), None]))
    def replace_by_a_copy(self, through):
        if self.window.on_evict is None:
            through = through or (lambda w: pickle.loads(pickle.dumps(w)))
            self.window = through(self.window)

    @invariant()
    def same(self):
        if not hasattr(self, "window"):
            return
        assert self.window._check() == 0
        assert list(self.window) == self.model.tokens
        assert len(self.window) == len(self.model.tokens)
        assert self.window.position == self.model.position
        assert self.window.evicted == self.model.evicted
        if self.window.on_evict is not None:
            assert self.told == self.model.told

    def teardown(self):
        if hasattr(self, "window"):
            del self.window
            for got, was in self.shown:
                assert got.tolist() == was


def test_random_actions(impl):
    machine = type("Machine", (Machine,), {"cls": impl.TokenWindow})
    machine.TestCase.settings = settings(
        max_examples=150, stateful_step_count=40, deadline=None
    )
    case = machine.TestCase()
    case.runTest()


@pytest.mark.parametrize("slack", [None, 1, 5])
def test_sliding_is_what_a_deque_does(impl, slack):
    import random

    chance = random.Random(7)
    window = impl.TokenWindow(37, slack=slack)
    deque = collections.deque(maxlen=37)
    for step in range(5000):
        action = chance.randrange(8)
        if action < 4:
            window.append(step)
            deque.append(step)
        elif action == 4:
            tokens = [chance.randrange(100) for _ in range(chance.randrange(60))]
            window.extend(tokens)
            deque.extend(tokens)
        elif deque and action == 5:
            assert window.popleft() == deque.popleft()
        elif deque and action == 6:
            assert window.pop() == deque.pop()
        elif action == 7 and chance.randrange(20) == 0:
            window.clear()
            deque.clear()
        assert list(window) == list(deque)
