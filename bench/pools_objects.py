"""Object pools side by side: ours, SQLAlchemy's QueuePool, and others, in one run.

Contenders of one operation run in one process, in turns, the order rotating, with the
garbage collector off; a ratio is the median of the rounds' own ratios. The empty loop
is in every figure and stands beside them. Peers come with the extra ``bench-pools``;
each is called as its documentation shows, and has its least: a trivial object, no
reset, no validation. ``release`` of generic-pool looks through a list of its objects,
which has one entry here.
"""

import asyncio
import importlib.util
import queue
import re
import sqlite3
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

from bar import Bar
from operations import Case, control, measure, ratio
from section import Findings, Section

__all__ = ["sections"]

EMPTY = "(empty loop)"
WITH = "with pool.acquire(): pass"
DOCUMENT = '{"name": "a", "values": [1, 2, 3], "more": {"x": 0.5}}'
PAYLOAD = b"the same words again and again, and some of them new " * 40


class Nothing:
    """A context manager that does nothing, in Python."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc: object) -> None:
        pass


class AsyncNothing:
    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, *exc: object) -> None:
        pass


def pool_of(factory: Callable[[], Any], **options: Any) -> Any:
    from ctxpool._native.object_pool import ObjectPool

    return ObjectPool(factory, 1, 4, **options)


def good(obj: Any) -> bool:
    return True


def pure_pool() -> Any:
    from ctxpool._pure.object_pool import ObjectPool

    return ObjectPool(object, 1, 4)


def filled(made: Any) -> Any:
    made.put_nowait(object())
    return made


def queue_pool() -> Any:
    from sqlalchemy.pool import QueuePool

    class Connection:
        def rollback(self) -> None:
            pass

        def close(self) -> None:
            pass

    return QueuePool(Connection, pool_size=4, reset_on_return=None)


def generic() -> Any:
    import generic_pool

    class Factory(generic_pool.Factory):  # type: ignore[misc]
        def create(self) -> object:
            return object()

    return generic_pool.Pool(Factory(), maxsize=4)


def pond() -> Any:
    import pond

    class Factory(pond.PooledObjectFactory):  # type: ignore[misc]
        def createInstance(self) -> Any:
            return pond.PooledObject(object())

        def destroy(self, pooled_object: Any) -> None:
            pass

        def reset(self, pooled_object: Any, **kwargs: Any) -> Any:
            return pooled_object

        def validate(self, pooled_object: Any) -> bool:
            return True

    factory = Factory()
    made = pond.Pond(time_between_eviction_runs=3_600)
    made.register(factory)
    return made, factory


# Name: statement, what it is given, the module it needs.
Contenders = dict[str, tuple[str, Callable[[], dict[str, Any]], str | None]]

SYNC: Contenders = {
    "bare `with`": ("with pool: pass", lambda: {"pool": Nothing()}, None),
    "queue.LifoQueue": (
        "o = pool.get(); pool.put(o)",
        lambda: {"pool": filled(queue.LifoQueue())},
        None,
    ),
    "generic-pool": (
        "o = pool.acquire(); pool.release(o)",
        lambda: {"pool": generic()},
        "generic_pool",
    ),
    "pondpond": (
        "o = pool.borrow(f); pool.recycle(o, f)",
        lambda: dict(zip(("pool", "f"), pond(), strict=True)),
        "pond",
    ),
    "SQLAlchemy QueuePool": (
        "c = pool.connect(); c.close()",
        lambda: {"pool": queue_pool()},
        "sqlalchemy",
    ),
    "ours, pure": (WITH, lambda: {"pool": pure_pool()}, None),
    "ours, get + put": (
        "o = pool.get(); pool.put(o)",
        lambda: {"pool": pool_of(object)},
        None,
    ),
    "ours, reset + validate": (
        WITH,
        lambda: {"pool": pool_of(bytearray, reset=bytearray.clear, validate=good)},
        None,
    ),
    "ours": (WITH, lambda: {"pool": pool_of(object)}, None),
}


def asynchronous(run: Any) -> Contenders:
    def given(make: Callable[[], Any]) -> Callable[[], dict[str, Any]]:
        return lambda: {"pool": make(), "run": run}

    return {
        "empty coroutines": (
            "async with pool: pass # await ",
            given(AsyncNothing),
            None,
        ),
        "asyncio.LifoQueue": (
            "o = await pool.get(); await pool.put(o)",
            given(lambda: filled(asyncio.LifoQueue())),
            None,
        ),
        "ours": (
            "async with pool.acquire(): pass # await ",
            given(lambda: pool_of(object)),
            None,
        ),
    }


def timed(
    operation: str, contenders: Contenders, quick: bool
) -> tuple[list[dict[str, Any]], dict[str, list[float]]]:
    present = {
        name: (statement, given)
        for name, (statement, given, module) in contenders.items()
        if module is None or importlib.util.find_spec(module)
    }
    group = [
        Case("objects", operation, 1, name, statement, given=given)
        for name, (statement, given) in present.items()
    ]
    figures = measure(
        [*group, control(group[0])],
        rounds=2 if quick else 21,
        subtract=False,
        longest=2e5 if quick else 2e7,
    )
    rows = [
        {
            "operation": operation,
            "name": name,
            "median_ns": statistics.median(many),
            "min_ns": min(many),
            "to_ours": ratio(figures, name, "ours"),
        }
        for name, many in figures.items()
    ]
    return rows, figures


def printed(rows: list[dict[str, Any]], absent: list[str]) -> str:
    lines = [
        f"{row['name']:26}{row['median_ns']:12,.0f} ns {row['to_ours']:9,.2f} x ours"
        for row in rows
    ]
    return "\n".join(
        [*lines, *(f"{name:26}           - not installed" for name in absent)]
    )


def judged(
    what: str, contenders: Contenders, quick: bool, limit: float, peers: list[str]
) -> Findings:
    rows, figures = timed(what, contenders, quick)
    ours = statistics.median(figures["ours"]) - statistics.median(figures[EMPTY])
    bars = [Bar(f"{what}, without waiting", ours, limit, "ns")]
    present = [name for name in peers if name in figures]
    if present:
        best = min(present, key=lambda name: statistics.median(figures[name]))
        bars.append(Bar(f"{what}, to the best peer", ratio(figures, "ours", best), 1.0))
        bars[-1] = Bar(bars[-1].what, bars[-1].value, 1.0, note=best)
    absent = [name for name in contenders if name not in figures]
    return Findings(printed(rows, absent), rows, bars)


def sync(quick: bool) -> Findings:
    peers = ["generic-pool", "pondpond", "SQLAlchemy QueuePool", "queue.LifoQueue"]
    return judged("with", SYNC, quick, 200, peers)


def awaited(quick: bool) -> Findings:
    with asyncio.Runner() as runner:
        return judged(
            "async with",
            asynchronous(runner.run),
            quick,
            600,
            ["asyncio.LifoQueue"],
        )


# --- something real ------------------------------------------------------------------


def select(db: sqlite3.Connection) -> Any:
    return db.execute("select ? + ?", (1, 2)).fetchone()


def connected() -> sqlite3.Connection:
    return sqlite3.connect("file:bench?mode=memory&cache=shared", uri=True)


def parser() -> Any:
    import json

    return json.JSONDecoder(parse_float=float)


def pattern() -> re.Pattern[str]:
    re.purge()  # or the module's own cache would be what is measured
    return re.compile(r"(\w+)@(\w+)\.(com|org)")


def compressor() -> Any:
    import zstandard

    return zstandard.ZstdCompressor(level=3)


# Name: factory, use, options of the pool, the module it needs.
Real = tuple[Callable[[], Any], Callable[[Any], Any], dict[str, Any], str | None]
REAL: dict[str, Real] = {
    "sqlite3 connection": (
        connected,
        select,
        {"reset": sqlite3.Connection.rollback, "dispose": sqlite3.Connection.close},
        None,
    ),
    "zstd compressor, 2 KB": (
        compressor,
        lambda c: c.compress(PAYLOAD),
        {},
        "zstandard",
    ),
    "compiled regex": (pattern, lambda p: p.search("to a@b.org"), {}, None),
    "JSON decoder": (parser, lambda d: d.decode(DOCUMENT), {}, None),
    "bytearray(64), a cheap one": (lambda: bytearray(64), len, {}, None),
    "object(), the cheapest": (object, id, {}, None),
}


def latencies(step: Callable[[], Any], n: int) -> list[int]:
    now = time.perf_counter_ns
    taken = []
    for _ in range(n):
        start = now()
        step()
        taken.append(now() - start)
    return taken


def real(quick: bool) -> Findings:
    rows, lines, bars = [], [], []
    n, rounds = (30, 2) if quick else (300, 21)
    for name, (factory, use, options, module) in REAL.items():
        if module and not importlib.util.find_spec(module):
            lines.append(f"{name:28} - {module} is not installed")
            continue
        pool = pool_of(factory, **options)
        dispose = options.get("dispose")

        def unpooled(
            factory: Any = factory, use: Any = use, dispose: Any = dispose
        ) -> None:
            obj = factory()
            use(obj)
            if dispose:
                dispose(obj)

        def pooled(pool: Any = pool, use: Any = use) -> None:
            with pool.acquire() as obj:
                use(obj)

        steps = {"unpooled": unpooled, "pooled": pooled}
        taken: dict[str, list[int]] = {"unpooled": [], "pooled": []}
        ratios = []
        for i in range(rounds + 1):
            turn = {
                s: latencies(steps[s], n) for s in sorted(steps, reverse=bool(i % 2))
            }
            if i:  # the first warms up
                for side, many in turn.items():
                    taken[side] += many
                medians = {s: statistics.median(m) for s, m in turn.items()}
                ratios.append(medians["pooled"] / medians["unpooled"])
        row: dict[str, Any] = {"name": name, "ratio": statistics.median(ratios)}
        for side, many in taken.items():
            many.sort()
            row[f"{side}_p50_ns"] = many[len(many) // 2]
            row[f"{side}_p99.9_ns"] = many[int(len(many) * 0.999)]
        rows.append(row)
        loses = "" if row["ratio"] < 1 else "  <- a pool loses here"
        p50, tail = (
            f"{row['unpooled_' + what]:10,} -> {row['pooled_' + what]:10,} ns"
            for what in ("p50_ns", "p99.9_ns")
        )
        lines.append(
            f"{name:28} p50 {p50}   p99.9 {tail}   {row['ratio']:6.2f} x{loses}"
        )
        pool.close()
    bars += [
        Bar("pooled to unpooled: " + row["name"], row["ratio"], 1.0)
        for row in rows
        if row["name"].startswith(("sqlite3", "zstd", "compiled"))
    ]
    return Findings("\n".join(lines), rows, bars)


def sections(quick: bool, progress: Callable[[str], None]) -> Iterator[Section]:
    yield Section("objects: with, a trivial object", lambda: sync(quick))
    yield Section("objects: async with, a trivial object", lambda: awaited(quick))
    yield Section("objects: pooled and unpooled, real ones", lambda: real(quick))
