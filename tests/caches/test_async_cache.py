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


def slow(**options: Any) -> tuple[Any, list[int], list[str]]:
    calls: list[int] = []
    events: list[str] = []

    @lru_cache(**options)
    async def f(n: int) -> int:
        calls.append(n)
        try:
            await asyncio.sleep(0.02)
        except asyncio.CancelledError:
            events.append("cancelled")
            raise
        if n < 0:
            raise ValueError(n)
        return n * 10

    return f, calls, events


def test_single_flight() -> None:
    async def main() -> None:
        f, calls, _ = slow()
        assert await asyncio.gather(*(f(1) for _ in range(5)), f(2)) == [10] * 5 + [20]
        assert sorted(calls) == [1, 2]
        assert await f(1) == 10
        assert f.cache_info() == (1, 6, 128, 2)

    asyncio.run(main())


def test_cancelling_the_first_caller_harms_nobody() -> None:
    async def main() -> None:
        f, calls, events = slow()
        first = asyncio.create_task(f(1))
        others = [asyncio.create_task(f(1)) for _ in range(3)]
        await asyncio.sleep(0.005)
        first.cancel()
        assert await asyncio.gather(*others) == [10] * 3
        with pytest.raises(asyncio.CancelledError):
            await first
        assert calls == [1]
        assert not events

    asyncio.run(main())


def test_the_last_who_leaves_cancels() -> None:
    async def main() -> None:
        f, calls, events = slow()
        tasks = [asyncio.create_task(f(1)) for _ in range(3)]
        await asyncio.sleep(0.005)
        for task in tasks:
            task.cancel()
        late = asyncio.create_task(f(1))  # comes before the cancelled one has ended
        await asyncio.gather(*tasks, return_exceptions=True)
        assert all(task.cancelled() for task in tasks)
        assert await late == 10
        assert len(calls) in (1, 2)
        assert await f(1) == 10
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(f(2), 0.001)
        await asyncio.sleep(0)
        assert events[-1] == "cancelled"
        assert await f(2) == 20

    asyncio.run(main())


def test_exceptions_are_shared_and_not_kept() -> None:
    async def main() -> None:
        f, calls, _ = slow()
        got = await asyncio.gather(*(f(-1) for _ in range(3)), return_exceptions=True)
        assert {str(e) for e in got} == {"-1"}
        assert calls == [-1]
        with pytest.raises(ValueError, match="-1"):
            await f(-1)
        assert calls == [-1, -1]

    asyncio.run(main())


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
        await asyncio.sleep(0.005)
        if calls[name] > 1:
            return name
        return name + await other("b" if name == "a" else "a")

    async def main() -> None:
        assert await same(1) == 3
        got = await asyncio.gather(other("a"), other("b"))
        assert all(text[0] == name for text, name in zip(got, "ab", strict=True))

    asyncio.run(asyncio.wait_for(main(), 20))


def test_several_loops() -> None:
    f, calls, _ = slow()
    got: list[int] = []
    barrier = threading.Barrier(3)

    async def main() -> None:
        barrier.wait(10)
        got.extend(await asyncio.gather(f(1), f(1), f(2)))

    threads = [threading.Thread(target=lambda: asyncio.run(main())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(got) == [10] * 6 + [20] * 3
    assert len(calls) <= 6
    before = len(calls)
    assert asyncio.run(f(1)) == 10  # kept across loops
    assert len(calls) == before


def test_a_loop_that_ends_leaves_nothing_behind() -> None:
    f, calls, _ = slow()

    async def leave() -> None:
        asyncio.create_task(f(1))  # noqa: RUF006
        await asyncio.sleep(0)

    asyncio.run(leave())
    assert asyncio.run(f(1)) == 10
    assert len(calls) <= 2


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
