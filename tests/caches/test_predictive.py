"""Prefetching: what is loaded ahead, that it evicts nothing, and when it stops."""

import asyncio
import gc
import os
import random
import sys
import threading
import time
import weakref
from collections.abc import Hashable
from typing import Any

import pytest

from ctxpool import LRUCache
from ctxpool.caches import PredictiveCache, Prefetcher


class Slow:
    """A load of a second, by clocks that nothing else moves, one for each thread."""

    def __init__(self) -> None:
        self.clocks: dict[int, float] = {}

    def __call__(self, key: Any) -> Any:
        self.clocks[threading.get_ident()] = self.timer() + 1.0
        return ("value", key)

    def timer(self) -> float:
        return self.clocks.get(threading.get_ident(), 0.0)


def slow_cache(size: int, **options: Any) -> PredictiveCache:
    load = Slow()
    return PredictiveCache(load, size, timer=load.timer, **options)


class Told:
    """A model that says what it is told to."""

    def __init__(self, *chances: tuple[Any, float]) -> None:
        self.chances = list(chances)
        self.recorded: list[Any] = []

    def record(self, key: Hashable) -> None:
        self.recorded.append(key)

    def predict(self, n: int) -> list[tuple[Any, float]]:
        return self.chances[:n]


def run(cache: PredictiveCache, keys: list[Any]) -> None:
    for key in keys:
        assert cache.get(key) == ("value", key)
        cache.prefetcher.flush()


def zipf(length: int) -> list[int]:
    weights = [1 / (key + 1) for key in range(2000)]
    return random.Random(3).choices(range(2000), weights, k=length)


def test_a_loop_longer_than_the_cache_is_served_ahead() -> None:
    with slow_cache(20) as cache:
        run(cache, list(range(60)) * 15)
        stats = cache.stats()
        assert stats.enabled
        assert stats.hit_rate > 0.8
        assert stats.hit_rate_without == 0  # LRU and a loop
        assert stats.latency < stats.latency_without
        assert len(cache) == 20
        assert stats.used <= stats.loads
        assert stats.accesses == 900


def test_wrong_guesses_evict_nothing() -> None:
    """The cache's own hits are those of an LRUCache without any prefetching."""
    keys = zipf(1500) + list(range(50)) * 10 + zipf(500)
    plain = LRUCache(40)
    hits = 0
    with slow_cache(40, confidence=0) as cache:
        for key in keys:
            hits += key in plain
            plain.get(key)
            plain[key] = None
            cache.get(key)
            cache.prefetcher.flush()
        assert cache.stats().hits == hits
        assert list(cache._cache) == list(plain)


def test_independent_draws_switch_it_off_and_a_loop_on_again() -> None:
    model = Told((-1, 0.9), (-2, 0.05))
    with slow_cache(10, model=model, window=32, probation=2) as cache:
        assert cache.stats().enabled
        for key in range(1000):
            model.chances = [(-key - 1, 0.9)]  # always wrong
            cache.get(key)
            cache.prefetcher.flush()
        stats = cache.stats()
        assert not stats.enabled
        assert stats.used == 0
        assert stats.loads < 500
        for key in range(1000, 2000):
            model.chances = [(key + 1, 0.9)]
            cache.get(key)
            cache.prefetcher.flush()
        stats = cache.stats()
        assert stats.enabled
        assert stats.used > 100
        assert stats.switches >= 2


def test_zipf_draws_load_next_to_nothing_in_vain() -> None:
    with slow_cache(100, window=64) as cache:
        for key in zipf(4000):
            cache.get(key)
        cache.prefetcher.flush()
        stats = cache.stats()
        assert stats.wasted < 0.15 * stats.accesses
        assert stats.hit_rate >= stats.hit_rate_without


def test_ranks_by_worth() -> None:
    loaded: list[Any] = []
    model = Told(("big", 0.5), ("dear", 0.2), ("cheap", 0.25), ("rare", 0.05))
    with Prefetcher(
        lambda key: loaded.append(key),
        model=model,
        cost=lambda key: 10.0 if key == "dear" else 1.0,
        size=lambda key: 1000.0 if key == "big" else 1.0,
        pressure=lambda: 0.001,
        workers=1,
    ) as prefetcher:
        prefetcher.record("start", 2, 1.0)
        assert prefetcher.flush()
    assert loaded == ["dear", "cheap"]
    assert model.recorded == ["start"]


def test_a_read_joins_the_load_under_way() -> None:
    begun, go = threading.Event(), threading.Event()
    calls: list[Any] = []

    def load(key: Any) -> Any:
        calls.append(key)
        if key == "next":
            begun.set()
            go.wait(10)
        return key

    with PredictiveCache(load, 10, model=Told(("next", 0.9))) as cache:
        cache.get("first")
        assert begun.wait(10)
        threading.Timer(0.02, go.set).start()
        assert cache.get("next") == "next"
    assert calls == ["first", "next"]


def test_a_read_waits_for_no_load_that_has_not_begun() -> None:
    begun, go = threading.Event(), threading.Event()
    calls: list[Any] = []

    def load(key: Any) -> Any:
        calls.append(key)
        if key == "slow":
            begun.set()
            go.wait(30)
        return key

    model = Told(("slow", 0.9), ("next", 0.8))
    with PredictiveCache(load, 10, model=model, workers=1) as cache:
        cache.get("first")
        assert begun.wait(30)
        planned = threading.Event()
        cache.prefetcher._wake.put(planned)
        assert planned.wait(30)  # and both loads are under way, by one worker
        assert cache.get("next") == "next"
        assert not go.is_set()
        go.set()
        assert cache.prefetcher.flush()
        stats = cache.stats()
    assert sorted(calls) == ["first", "next", "slow"]
    assert stats.loads == 1
    assert stats.misses == 2


@pytest.mark.parametrize("where", ["record", "predict", "cost", "size", "pressure"])
def test_a_read_waits_for_no_planner(where: str) -> None:
    """Whatever the model or a callable takes long for: reads go on."""
    begun, go = threading.Event(), threading.Event()

    def slow(*args: Any) -> float:
        begun.set()
        go.wait(30)
        return 0.0

    class Model(Told):
        def record(self, key: Hashable) -> None:
            if where == "record":
                slow()

        def predict(self, n: int) -> list[tuple[Any, float]]:
            if where == "predict":
                slow()
            return super().predict(n)

    options: Any = {where: slow} if where in ("cost", "size", "pressure") else {}
    model = Model(("next", 0.9))
    with PredictiveCache(str.upper, 10, model=model, **options) as cache:
        cache.get("first")
        assert begun.wait(30)
        assert [cache.get(key) for key in ("a", "b", "a")] == ["A", "B", "A"]
        cache.put("c", "mine")
        assert cache.get("c") == "mine"
        assert cache.invalidate("a")
        assert not go.is_set()
        go.set()


def earned(keys: list[Any], size: int = 20) -> tuple[float, Any]:
    """By how much less the reads wait."""
    load = Slow()
    cache = PredictiveCache(load, size, window=64, timer=load.timer)
    with cache:
        run(cache, keys)
        stats = cache.stats()
    plain, misses = LRUCache(size), 0
    for key in keys:
        misses += key not in plain
        plain.get(key)
        plain[key] = None
    assert load.timer() == stats.misses
    assert stats.hit_rate_without == pytest.approx(1 - misses / len(keys))
    assert stats.latency_without == pytest.approx(misses / len(keys), rel=0.01)
    assert stats.latency_without >= stats.latency
    return 1 - load.timer() / misses, stats


def test_sequences_earn() -> None:
    rng = random.Random(5)
    files = [[rng.randrange(10**6) for _ in range(12)] for _ in range(30)]
    read = [key for _ in range(100) for key in rng.choice(files)]
    less, stats = earned(read)
    assert 0.46 < less < 0.95
    assert stats.enabled
    assert stats.used > 4 * stats.wasted
    less, _ = earned(list(range(60)) * 12)
    assert less > 0.85


def test_independent_draws_lose_nothing() -> None:
    less, stats = earned(zipf(1500), size=100)
    assert less > -0.01
    assert stats.wasted < 0.1 * stats.accesses


def test_features_of_the_cache() -> None:
    """One user's pages follow each other, whatever the others read between."""
    seen: list[Any] = []

    def features(key: Any) -> Any:
        seen.append(key)
        return key[1]

    with slow_cache(10, features=features) as cache:
        run(cache, [(user, page) for user in range(9) for page in range(5)])
        assert cache.stats().accesses == 45
    assert seen
    with pytest.raises(TypeError, match="features must be callable"):
        PredictiveCache(str, features=5)


def test_what_is_out_of_date_is_not_served() -> None:
    begun, go = threading.Event(), threading.Event()

    def load(key: Any) -> Any:
        if key == "next" and not go.is_set():
            begun.set()
            go.wait(10)
            return "old"
        return "new"

    with PredictiveCache(load, 10, model=Told(("next", 0.9))) as cache:
        cache.get("first")
        assert begun.wait(10)
        assert not cache.invalidate("next")
        go.set()
        cache.prefetcher.flush()
        assert cache.get("next") == "new"
        cache.put("next", "put")
        assert cache["next"] == "put"


def test_errors_of_loads_ahead_are_counted_and_those_of_reads_raised() -> None:
    def load(key: Any) -> Any:
        if key == "bad":
            raise OSError(key)
        return key

    with PredictiveCache(load, 10, model=Told(("bad", 0.9))) as cache:
        cache.get("a")
        cache.prefetcher.flush()
        assert cache.stats().errors == 1
        with pytest.raises(OSError, match="bad"):
            cache.get("bad")
        assert "bad" not in cache


def test_a_model_that_raises_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(Told):
        def predict(self, n: int) -> Any:
            raise LookupError("model")

    seen: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda u: seen.append(u.exc_value))
    with PredictiveCache(str, 10, model=Broken()) as cache:
        assert cache.get(5) == "5"
        cache.prefetcher.flush()
        assert cache.get(5) == "5"
    assert [type(error) for error in seen] == [LookupError]


def test_without_prefetching_it_only_counts() -> None:
    with PredictiveCache(str, 10, prefetch=False) as cache:
        for key in [1, 2, 3] * 300:
            cache.get(key)
        cache.prefetcher.flush()
        stats = cache.stats()
    assert (stats.hits, stats.misses, stats.loads, stats.enabled) == (897, 3, 0, False)


def test_trains_its_model() -> None:
    with PredictiveCache(str, 10) as cache:
        assert cache.train([1, 2, 3, 4] * 20, epochs=2)[1] > 0.9
        cache.get(1)
        cache.get(2)
        cache.prefetcher.flush()
        assert cache.stats().loads > 0
    cache = PredictiveCache(str, 10, model=Told())
    with pytest.raises(TypeError, match="has no train"):
        cache.train([1])


def test_threads_share_it() -> None:
    cache = PredictiveCache(lambda key: ("value", key), 30)
    errors: list[Any] = []

    def work(seed: int) -> None:
        rng = random.Random(seed)
        try:
            for i in range(2000):
                key = i % 50 if seed % 2 else rng.randrange(100)
                assert cache.get(key) == ("value", key)
                if rng.random() < 0.01:
                    cache.invalidate(key)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.prefetcher.flush()
    stats = cache.stats()
    cache.close()
    assert errors == []
    assert stats.accesses == 8000


def test_closed_and_collected() -> None:
    cache = PredictiveCache(str, 10)
    cache.get(1)
    cache.close()
    cache.close()
    assert cache.get(2) == "2"
    other = PredictiveCache(str, 10)
    other.get(1)
    thread = other.prefetcher._thread
    reference = weakref.ref(other.prefetcher)
    other.prefetcher.flush()
    del other
    for _ in range(100):
        gc.collect()
        if reference() is None:
            break
        time.sleep(0.01)
    assert reference() is None
    thread.join(5)
    assert not thread.is_alive()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_has_a_planner_of_its_own() -> None:
    with PredictiveCache(str, 10) as cache:
        cache.get(1)
        child = os.fork()
        if child == 0:
            good = cache.get(2) == "2" and cache.prefetcher.flush()
            os._exit(0 if good else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_on_an_event_loop() -> None:
    calls: list[Any] = []

    async def load(key: Any) -> Any:
        calls.append(key)
        await asyncio.sleep(0.0005)
        if key == "bad":
            raise OSError(key)
        return ("value", key)

    async def main() -> None:
        cache = PredictiveCache(load, 10)
        with pytest.raises(TypeError, match="coroutine function"):
            cache.get(1)
        for key in list(range(30)) * 10:
            assert await cache.aget(key) == ("value", key)
            await asyncio.sleep(0.001)
        stats = cache.stats()
        assert stats.used > 100
        assert stats.hit_rate_without == 0
        calls.clear()
        await asyncio.gather(*(cache.aget("one") for _ in range(5)))
        assert calls.count("one") == 1
        gone = asyncio.ensure_future(cache.aget("two"))
        stays = asyncio.ensure_future(cache.aget("two"))
        await asyncio.sleep(0)
        gone.cancel()
        assert await stays == ("value", "two")
        with pytest.raises(OSError, match="bad"):
            await cache.aget("bad")
        cache.close()
        await asyncio.sleep(0.01)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"model": 5}, TypeError, "model must have record"),
        ({"confidence": 2}, ValueError, "confidence must be from 0 to 1, not 2"),
        ({"cost": 5}, TypeError, "cost must be callable, not 5"),
        ({"ahead": 0}, ValueError, "ahead must be from 1 to 64, not 0"),
        ({"model": Told(), "features": str}, ValueError, "features are for"),
    ],
)
def test_bad_arguments(options: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        Prefetcher(str, **options)
    with pytest.raises(TypeError, match="load must be callable, not 5"):
        Prefetcher(5)  # type: ignore[arg-type]
