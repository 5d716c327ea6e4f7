"""The model of accesses: what it learns, that its confidences are true, its bounds."""

import random
import sys
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxpool.caches import MarkovModel


def markov_chain(states: int, length: int, seed: int = 1) -> list[int]:
    rng = random.Random(seed)
    follows = {state: rng.sample(range(states), 4) for state in range(states)}
    chain = [0]
    while len(chain) < length:
        chain.append(rng.choices(follows[chain[-1]], [70, 20, 8, 2])[0])
    return chain


def zipf(keys: int, length: int, seed: int = 1) -> list[int]:
    weights = [1 / (key + 1) for key in range(keys)]
    return random.Random(seed).choices(range(keys), weights, k=length)


def test_a_cycle_becomes_certain() -> None:
    model = MarkovModel()
    assert model.train(list(range(100)) * 5, epochs=2)[1] > 0.98
    for key in (10, 11, 12):
        model.record(key)
    [(key, confidence)] = model.predict(1)
    assert key == 13
    assert confidence > 0.95
    assert [key for key, _ in model.follow(3)] == [13, 14, 15]


def test_a_longer_context_decides() -> None:
    model = MarkovModel()
    model.train("abcxbd" * 100)
    for before, expected in (("ab", "c"), ("xb", "d")):
        model.forget_position()
        for key in before:
            model.record(key)
        assert model.predict(1)[0][0] == expected
    assert model.predict(1, "x")[0][0] == "b"
    assert model.predict(1, "ab")[0][0] == "c"


@pytest.mark.parametrize("sequence", [markov_chain(200, 30_000), zipf(500, 30_000)])
def test_confidences_are_true(sequence: list[int]) -> None:
    model = MarkovModel()
    model.train(sequence[:10_000])
    bins: dict[int, list[float]] = {}
    for key in sequence[10_000:]:
        for guess, confidence in model.predict(4):
            tally = bins.setdefault(int(confidence * 10), [0, 0, 0])
            tally[0] += 1
            tally[1] += confidence
            tally[2] += guess == key
        model.record(key)
    total = sum(count for count, _, _ in bins.values())
    for count, said, right in bins.values():
        if count >= total / 20:
            assert abs(said - right) / count < 0.08
    error = sum(abs(said - right) for _, said, right in bins.values())
    assert error / total < 0.06


@given(st.lists(st.sampled_from("abcde"), max_size=200), st.integers(1, 4))
def test_probabilities_of_distinct_keys(keys: list[str], order: int) -> None:
    model = MarkovModel(order, contexts=20, successors=3)
    for key in keys:
        model.record(key)
        found = model.predict(10)
        assert len({key for key, _ in found}) == len(found)
        assert all(0 < confidence < 1 for _, confidence in found)
        assert sum(confidence for _, confidence in found) <= 1 + 1e-9
        ranked = [confidence for _, confidence in found]
        assert ranked == sorted(ranked, reverse=True)
        assert model.predict(2) == found[:2]
        for level in model._levels:
            for context in level.values():
                assert context.total == sum(context.counts.values())
                assert 0 < len(context.counts) <= 3
                assert min(context.counts.values()) > 0


def test_memory_is_bounded() -> None:
    model = MarkovModel(2, contexts=50, successors=4)
    for key in zipf(5000, 20_000):
        model.record(key)
    assert len(model) <= 100
    model.clear()
    assert len(model) == 0
    assert model.predict(3) == []


def test_it_follows_changes() -> None:
    model = MarkovModel()
    model.train("ab" * 2000)
    model.train("ac" * 2000)
    for key in "caca":
        model.record(key)
    assert model.predict(1)[0][0] == "c"


def test_features_are_the_contexts() -> None:
    model = MarkovModel(1, features=lambda key: key[0])
    model.train([("x", 1), ("y", 7), ("x", 2), ("y", 7), ("x", 3), ("y", 7)])
    model.record(("x", 99))
    assert model.predict(1)[0][0] == ("y", 7)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="order must be from 1 to 8, not 9"):
        MarkovModel(9)
    with pytest.raises(TypeError, match="features must be callable, not 5"):
        MarkovModel(features=5)  # type: ignore[arg-type]
    model = MarkovModel()
    with pytest.raises(TypeError, match="unhashable"):
        model.record([])
    with pytest.raises(ValueError, match="n must be from 0"):
        model.predict(-1)


def test_an_error_in_a_key_leaves_the_model_whole() -> None:
    class Key:
        broken = inside = False

        def __hash__(self) -> int:
            return 1

        def __eq__(self, other: object) -> bool:
            if Key.broken:
                raise OSError("no")
            if not Key.inside:
                Key.inside = True
                model.predict(1)  # comes back in
                Key.inside = False
            return self is other

    model = MarkovModel()
    keys = [Key() for _ in range(3)]
    model.train(keys * 10)
    Key.broken = True
    model.record(keys[0])
    model.record(keys[1])
    with pytest.raises(OSError, match="no"):
        model.predict(1)
    Key.broken = False
    model.train(keys * 10)
    model.record(keys[0])
    model.record(keys[1])
    assert model.predict(1)[0][0] is keys[2]


def test_threads() -> None:
    model = MarkovModel(contexts=100)
    errors: list[Any] = []

    def work(seed: int) -> None:
        try:
            for key in zipf(300, 3000, seed):
                model.record(key)
                if key % 16 == 0:
                    assert sum(p for _, p in model.predict(4)) <= 1 + 1e-9
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert errors == []
    assert not model._pending or len(model) > 0
