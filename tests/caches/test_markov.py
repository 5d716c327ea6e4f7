"""The model of accesses: what it learns, that its confidences are true, its bounds."""

import copy
import itertools
import pickle
import random
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ctxpool.caches
from ctxpool import _markov_support as support


@pytest.fixture
def Model(impl: Any) -> Any:
    return impl.MarkovModel


def markov_chain(order: int, states: int, length: int, seed: int = 1) -> list[int]:
    """The last *order* states decide, among three or four next ones."""
    rng = random.Random(seed)
    follows: dict[tuple[int, ...], list[int]] = {}
    chain = list(range(order))
    while len(chain) < length:
        name = tuple(chain[-order:])
        if name not in follows:
            follows[name] = rng.sample(range(states), 4)
        chain += rng.choices(follows[name], [70, 20, 8, 2])
    return chain


def zipf(keys: int, length: int, seed: int = 1) -> list[int]:
    weights = [1 / (key + 1) for key in range(keys)]
    return random.Random(seed).choices(range(keys), weights, k=length)


def cycle_with_noise(length: int, share: float, seed: int = 3) -> list[int]:
    """A cycle of 80 keys, of which other keys, drawn by Zipf, take the place."""
    rng, noise = random.Random(seed), zipf(300, length, seed)
    place, keys = 0, []
    for other in noise:
        if rng.random() < share:
            place = (place + 1) % 80
            keys.append(1000 + place)
        else:
            keys.append(other)
    return keys


def segments(length: int, seed: int = 4) -> list[int]:
    """Files of twenty blocks, read whole, some more often than others."""
    rng = random.Random(seed)
    files = [[rng.randrange(3000) for _ in range(20)] for _ in range(100)]
    order = zipf(100, length // 20, seed)
    return list(itertools.chain.from_iterable(files[i] for i in order))


LENGTH = 20_000
SOURCES = {
    "order 1": markov_chain(1, 200, LENGTH),
    "order 2": markov_chain(2, 25, LENGTH, 2),
    "order 3": markov_chain(3, 8, LENGTH, 3),
    "zipf": zipf(500, LENGTH),
    "many by zipf": zipf(20_000, LENGTH),
    "uniform": random.Random(9).choices(range(50), k=LENGTH),
    "cycle with noise": cycle_with_noise(LENGTH, 0.7),
    "noise with cycle": cycle_with_noise(LENGTH, 0.3),
    "segments": segments(LENGTH),
    "changes": markov_chain(1, 100, LENGTH // 2, 11)
    + markov_chain(1, 100, LENGTH // 2, 12),
    "a cycle, then another": [*range(200)] * 50 + [*range(199, -1, -1)] * 50,
    "mixed": [
        key
        for pair in zip(segments(LENGTH // 2), zipf(300, LENGTH // 2), strict=True)
        for key in pair
    ],
}


# ---- What it learns ----


def test_a_cycle_becomes_certain(Model: Any) -> None:
    model = Model()
    assert model.train(list(range(100)) * 5, epochs=2)[1] > 0.98
    for key in (10, 11, 12):
        model.record(key)
    [(key, confidence)] = model.predict(1)
    assert key == 13
    assert confidence > 0.95
    assert [key for key, _ in model.follow(3)] == [13, 14, 15]
    reached = [chance for _, chance in model.follow(20)]
    assert len(reached) == 20
    assert reached == sorted(reached, reverse=True)


def test_a_longer_context_decides(Model: Any) -> None:
    model = Model()
    model.train("abcxbd" * 100)
    for before, expected in (("ab", "c"), ("xb", "d")):
        model.forget_position()
        for key in before:
            model.record(key)
        assert model.predict(1)[0][0] == expected
    assert model.predict(1, "x")[0][0] == "b"
    assert model.predict(1, "ab")[0][0] == "c"
    assert model.predict(1, ["never", "a", "b"])[0][0] == "c"


def test_what_is_frequent_is_expected_after_what_is_unknown(Model: Any) -> None:
    model = Model()
    model.train("aaaabaaaacaaaad" * 5)
    assert model.predict(1, ["never"])[0][0] == "a"
    assert model.predict(1)[0][0] == "a"


def test_it_follows_changes(Model: Any) -> None:
    model = Model()
    model.train("ab" * 2000)
    model.train("ac" * 2000)
    for key in "caca":
        model.record(key)
    assert model.predict(1)[0][0] == "c"


def test_features_are_the_contexts(Model: Any) -> None:
    model = Model(1, features=lambda key: key[0])
    model.train([("x", 1), ("y", 7), ("x", 2), ("y", 7), ("x", 3), ("y", 7)])
    model.record(("x", 99))
    assert model.predict(1)[0][0] == ("y", 7)
    assert model.predict(1, [("x", 5)])[0][0] == ("y", 7)
    assert model.follow(3)[0][0] == ("y", 7)
    assert len(model.follow(3)) == 3
    model.check()


def test_training_is_not_connected_with_what_is_around(Model: Any) -> None:
    model = Model()
    model.record("before")
    assert model.train("xyxyxy", epochs=0) == []
    assert model.train([], epochs=2) == [0.0, 0.0]
    accuracy = model.train("xyxyxy" * 5, epochs=3)
    assert len(accuracy) == 3
    assert accuracy[2] > 0.9
    assert model.predict(5, ["before"])[0][0] in ("x", "y")
    assert "x" not in dict(model.predict(0, ["before"]))


# ---- Confidence ----


@pytest.mark.parametrize("source", SOURCES)
def test_confidences_are_true(Model: Any, source: str) -> None:
    """Of the predictions at 0.3, say, 30 % come true, to within 4 points."""
    model, sequence = Model(), SOURCES[source]
    bins: dict[int, list[float]] = {}
    for i, key in enumerate(sequence):
        if i >= 5000:
            for guess, confidence in model.predict(4):
                tally = bins.setdefault(int(confidence * 10), [0, 0, 0])
                tally[0] += 1
                tally[1] += confidence
                tally[2] += guess == key
        model.record(key)
    total = sum(count for count, _, _ in bins.values())
    for count, said, right in bins.values():
        if count >= total / 20:
            assert abs(said - right) / count < 0.04
    error = sum(abs(said - right) for _, said, right in bins.values())
    assert error / total < 0.02


def test_nothing_is_certain_nor_impossible(Model: Any) -> None:
    model = Model(1)
    for _ in range(3000):
        model.record("a")
    assert 0.99 < model.predict(1)[0][1] < 1
    model.train(list(range(3000)))
    assert all(0 < confidence < 1 for _, confidence in model.predict(99))


@given(st.lists(st.sampled_from("abcde"), max_size=200), st.integers(1, 4))
def test_probabilities_of_distinct_keys(
    twins: Any, keys: list[str], order: int
) -> None:
    for impl in twins:
        model = impl.MarkovModel(order, contexts=20, successors=3)
        for key in keys:
            model.record(key)
            found = model.predict(40)
            assert len({key for key, _ in found}) == len(found)
            assert all(0 < confidence < 1 for _, confidence in found)
            assert sum(confidence for _, confidence in found) <= 1 + 1e-9
            ranked = [confidence for _, confidence in found]
            assert ranked == sorted(ranked, reverse=True)
            assert model.predict(2) == found[:2]
            assert model.predict(1) == found[:1]
            model.check()


# ---- The twins ----


@given(
    st.integers(0, 2**32),
    st.integers(1, 8),
    st.sampled_from([1, 2, 3, 20, 300]),
    st.sampled_from([1, 2, 5, 16, 128]),
    st.booleans(),
)
def test_the_twins_agree_bit_for_bit(
    twins: Any, seed: int, order: int, contexts: int, successors: int, named: bool
) -> None:
    rng = random.Random(seed)
    features = (lambda key: key // 3) if named else None
    a, b = (
        impl.MarkovModel(order, contexts, successors, features=features)
        for impl in twins
    )
    many = rng.choice([2, 5, 30, 400])
    for _ in range(rng.randint(1, 400)):
        action = rng.random()
        if action < 0.02:
            a.forget_position()
            b.forget_position()
        elif action < 0.04:
            assert a.follow(5) == b.follow(5)
        elif action < 0.1:
            after = [rng.randrange(many + 2) for _ in range(rng.randrange(10))]
            n = rng.choice([0, 1, 3, 20, 1000])
            assert a.predict(n, after) == b.predict(n, after)
        else:
            key = min(rng.randrange(many), rng.randrange(many))
            a.record(key)
            b.record(key)
    assert a.predict(10_000) == b.predict(10_000)
    assert len(a) == len(b)
    assert a.max_bytes == b.max_bytes
    a.check()
    b.check()
    one, other = a.__getstate__(), b.__getstate__()
    assert one["hits"] == other["hits"]
    assert one["tries"] == other["tries"]


def test_either_loads_the_state_of_the_other(twins: Any) -> None:
    models = [impl.MarkovModel(2, 30, 5) for impl in twins]
    for key in zipf(40, 3000):
        for model in models:
            model.record(key)
    for impl, state in zip(
        twins, [m.__getstate__() for m in models[::-1]], strict=True
    ):
        models.append(impl.MarkovModel.__new__(impl.MarkovModel))
        models[-1].__setstate__(state)
    for key in zipf(40, 500, seed=2):
        answers = [model.predict(9) for model in models]
        assert answers == answers[:1] * 4
        for model in models:
            model.record(key)
            model.check()


def test_max_bytes_bounds_the_native_tables(twins: Any) -> None:
    """With keys that come back in ever other company: as many as can be held."""
    for order, contexts, successors in ((1, 300, 16), (3, 100, 5), (8, 20, 128)):
        model = twins[0].MarkovModel(order, contexts, successors)
        fresh = itertools.count(10**6)
        for i in range(30_000):
            model.record(i // 40 % contexts)
            model.record(next(fresh))
        assert sys.getsizeof(model) <= model.max_bytes
        model.check()


# ---- Bounds ----


def test_memory_is_bounded(Model: Any) -> None:
    model = Model(2, contexts=50, successors=4)
    for key in zipf(5000, 20_000):
        model.record(key)
    assert len(model) == 100
    model.check()
    model.clear()
    assert len(model) == 0
    assert model.predict(3) == []
    model.check()
    model.train("ab" * 20)
    assert model.predict(1, "a")[0][0] == "b"


def test_keys_that_no_context_names_are_let_go(Model: Any) -> None:
    class Key:
        alive = 0

        def __init__(self) -> None:
            Key.alive += 1

        def __del__(self) -> None:
            Key.alive -= 1

    model = Model(2, contexts=10, successors=3)
    for _ in range(2000):
        model.record(Key())
    assert Key.alive <= 10 * (1 + 3) + 10 * (2 + 3) + 3 + 2
    model.clear()
    assert Key.alive == 0


def test_equal_keys_are_one_key(Model: Any) -> None:
    model = Model()
    model.train([1, "x", 1.0, "x", True, "x"] * 10)
    assert model.predict(1, "x") == model.predict(1, ["x"])
    key, confidence = model.predict(1, ["x"])[0]
    assert type(key) is int
    assert confidence > 0.5


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0,), ValueError, "order must be from 1 to 8, not 0"),
        ((9,), ValueError, "order must be from 1 to 8, not 9"),
        (("3",), TypeError, "order must be a whole number, not '3'"),
        ((3, 0), ValueError, "contexts must be from 1 to 16777216, not 0"),
        ((3, 2**70), ValueError, "contexts must be from 1 to 16777216, not 1180"),
        ((3, 10, 129), ValueError, "successors must be from 1 to 128, not 129"),
        ((3, 10, 1.5), TypeError, "successors must be a whole number, not 1.5"),
    ],
)
def test_bad_arguments(Model: Any, arguments: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        Model(*arguments)


def test_bad_calls(Model: Any) -> None:
    with pytest.raises(TypeError, match="features must be callable, not 5"):
        Model(features=5)
    model = Model()
    with pytest.raises(TypeError, match="unhashable"):
        model.record([])
    with pytest.raises(TypeError, match="unhashable"):
        model.predict(1, [[]])
    for n in (-1, 2**31, -(2**80)):
        with pytest.raises(
            ValueError, match=f"n must be from 0 to 1073741824, not {n}"
        ):
            model.predict(n)
    with pytest.raises(TypeError, match=r"n must be a whole number, not 1\.5"):
        model.predict(1.5)
    with pytest.raises(ValueError, match="steps must be from 0 to 65536, not -2"):
        model.follow(-2)
    with pytest.raises(TypeError, match="not iterable"):
        model.predict(1, 5)
    with pytest.raises(ValueError, match="epochs must be from 0"):
        model.train([], -1)
    assert model.predict(True, ()) == []
    assert len(model) == 0


def test_an_initialised_model_can_be_made_anew(Model: Any) -> None:
    model = Model()
    model.train("abc" * 10)
    model.__init__(1, 5, features=str)
    assert len(model) == 0
    for key in range(100):
        model.record(key)
    assert len(model) == 5
    model.check()


# ---- Copies and pickles ----


def test_copies_are_independent(Model: Any) -> None:
    model = Model(2, 20, 3)
    model.train("abcabd" * 30)
    model.record("a")
    for other in (copy.copy(model), copy.deepcopy(model)):
        assert other.predict(9) == model.predict(9)
        assert len(other) == len(model)
        other.train("xyz" * 10)
        other.check()
        assert other.predict(9) != model.predict(9)


class Sub(ctxpool.MarkovModel):
    pass


def test_pickles() -> None:
    model = Sub(2, features=len)
    model.note = "mine"  # type: ignore[attr-defined]
    model.train(["a", "bb", "ccc"] * 10)
    model.record("a")
    loaded = pickle.loads(pickle.dumps(model))
    assert type(loaded) is Sub
    assert loaded.note == "mine"
    assert loaded.predict(3) == model.predict(3)
    assert loaded.predict(1)[0][0] == "bb"
    loaded.check()


def test_damaged_states_are_refused(Model: Any) -> None:
    model = Model(2, 20, 3)
    for key in zipf(30, 500):
        model.record(key)
    good = model.__getstate__()
    rng = random.Random(5)
    refused = 0
    for _ in range(300):
        state = dict(good)
        field = rng.choice(
            ["learned", "learned", "hits", "tries", "keys", "successors"]
        )
        if field == "keys":
            state["keys"] = [rng.randrange(3) for _ in state["keys"]]
        elif field == "successors":
            state["successors"] = rng.randint(1, 3)
        else:
            damaged = bytearray(state[field])
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
            state[field] = bytes(damaged[: len(damaged) - 4 * rng.randrange(2)])
        other = Model.__new__(Model)
        try:
            other.__setstate__(state)
        except ValueError as error:
            refused += "no state of a MarkovModel" in str(error)
        other.check()
        other.train("ab" * 5)
        other.predict(9)
        other.check()
    assert refused > 100


def test_the_priors_are_sane() -> None:
    hits, tries = support.priors(3)
    assert len(hits) == len(tries) == 8 * support.RATES * 2 * 4
    assert support.unpack(hits, tries, 3) == (hits, tries)
    assert ctxpool.caches.MarkovModel is ctxpool.MarkovModel
