"""lru_cache of coroutine functions: single flight, cancellation, loops, circles."""

import asyncio
import inspect
import pickle
import threading
from typing import Any

import pytest

from ctxpool import lru_cache, ttl_cache


@lru_cache
async def by_name(n: int) -> int:
    return n


def test_it_stays_a_coroutine_function() -> None:
    assert inspect.iscoroutinefunction(by_name)
    assert asyncio.run(by_name(3)) == 3
    assert pickle.loads(pickle.dumps(by_name)) is by_name
    assert by_name.cache_parameters() == {"maxsize": 128, "typed": False}
    assert by_name.cache_info().currsize == 1
    by_name.cache_clear()
    assert by_name.cache_info() == (0, 0, 128, 0)


class Slow:
    """A cached coroutine function that ends when it is told to."""

    def __init__(self, **options: Any) -> None:
        self.calls: list[int] = []
        self.events: list[str] = []
        self.go = asyncio.Event()
        self.f = lru_cache(**options)(self.run)

    async def run(self, n: int) -> int:
        self.calls.append(n)
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.events.append("cancelled")
            raise
        if n < 0:
            raise ValueError(n)
        return n * 10

    async def under_way(self, n: int, count: int) -> list[asyncio.Task[int]]:
        """*count* callers who wait for the same."""
        tasks = [asyncio.create_task(self.f(n)) for _ in range(count)]
        while n not in self.calls:
            await asyncio.sleep(0)
        return tasks


def run(main: Any) -> None:
    asyncio.run(asyncio.wait_for(main, 60))


def test_single_flight() -> None:
    async def main() -> None:
        slow = Slow()
        tasks = [*await slow.under_way(1, 5), *await slow.under_way(2, 1)]
        slow.go.set()
        assert await asyncio.gather(*tasks) == [10] * 5 + [20]
        assert sorted(slow.calls) == [1, 2]
        assert await slow.f(1) == 10
        assert slow.f.cache_info() == (1, 6, 128, 2)

    run(main())


def test_cancelling_the_first_caller_harms_nobody() -> None:
    async def main() -> None:
        slow = Slow()
        first, *others = await slow.under_way(1, 4)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        slow.go.set()
        assert await asyncio.gather(*others) == [10] * 3
        assert slow.calls == [1]
        assert not slow.events

    run(main())


def test_the_last_who_leaves_cancels() -> None:
    async def main() -> None:
        slow = Slow()
        tasks = await slow.under_way(1, 3)
        for task in tasks:
            task.cancel()
        late = asyncio.create_task(slow.f(1))  # before the cancelled one has ended
        await asyncio.gather(*tasks, return_exceptions=True)
        assert all(task.cancelled() for task in tasks)
        slow.go.set()
        assert await late == 10
        assert len(slow.calls) in (1, 2)
        assert await slow.f(1) == 10
        slow.go.clear()
        events = len(slow.events)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(slow.f(2), 0.001)
        while len(slow.events) == events and 2 in slow.calls:
            await asyncio.sleep(0)
        slow.go.set()
        assert await slow.f(2) == 20

    run(main())


def test_exceptions_are_shared_and_not_kept() -> None:
    async def main() -> None:
        slow = Slow()
        tasks = await slow.under_way(-1, 3)
        slow.go.set()
        got = await asyncio.gather(*tasks, return_exceptions=True)
        assert [str(error) for error in got] == ["-1"] * 3
        assert slow.calls == [-1]
        with pytest.raises(ValueError, match="-1"):
            await slow.f(-1)
        assert slow.calls == [-1, -1]

    run(main())


def test_circles_do_not_hang() -> None:
    depth = 0

    @lru_cache
    async def same(n: int) -> int:
        nonlocal depth
        depth += 1
        await asyncio.sleep(0)
        return await same(n) if depth < 3 else depth

    calls = {"a": 0, "b": 0}

    @lru_cache
    async def other(name: str) -> str:
        calls[name] += 1
        await asyncio.sleep(0)
        if calls[name] > 1:
            return name
        return name + await other("b" if name == "a" else "a")

    async def main() -> None:
        assert await same(1) == 3
        got = await asyncio.gather(other("a"), other("b"))
        assert all(text[0] == name for text, name in zip(got, "ab", strict=True))

    run(main())


def test_several_loops() -> None:
    calls: list[int] = []
    got: list[int] = []
    barrier = threading.Barrier(3)

    @lru_cache
    async def f(n: int) -> int:
        calls.append(n)
        await asyncio.sleep(0)
        return n * 10

    async def main() -> None:
        barrier.wait(60)
        got.extend(await asyncio.gather(f(1), f(1), f(2)))

    threads = [threading.Thread(target=lambda: run(main())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == [10] * 6 + [20] * 3
    assert len(calls) <= 6
    before = len(calls)
    assert asyncio.run(f(1)) == 10  # kept across loops
    assert len(calls) == before


def test_a_loop_that_ends_leaves_nothing_behind() -> None:
    calls: list[int] = []

    @lru_cache
    async def f(n: int) -> int:
        calls.append(n)
        if len(calls) == 1:
            await asyncio.get_running_loop().create_future()  # for ever
        return n * 10

    async def leave() -> None:
        task = asyncio.create_task(f(1))
        while not calls:
            await asyncio.sleep(0)
        del task

    asyncio.run(leave())
    assert asyncio.run(f(1)) == 10
    assert len(calls) == 2


def test_options() -> None:
    class Clock:
        now = 0.0

        def __call__(self) -> float:
            return self.now

    clock, calls = Clock(), []

    @ttl_cache(maxsize=4, ttl=5, timer=clock, key=lambda n, **_: n % 10)
    async def f(n: int, **_: Any) -> int:
        calls.append(n)
        return n

    async def main() -> None:
        assert await f(3) == 3
        assert await f(13, a=1) == 3
        clock.now = 5
        assert await f(13) == 13

    asyncio.run(main())
    assert calls == [3, 13]
