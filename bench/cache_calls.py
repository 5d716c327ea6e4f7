"""Decorated functions on a hit, with and without await, and lazy objects in use.

The function returns its argument. A plain call, which caches nothing, is the floor.
"""

import asyncio
import functools
import statistics
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from bar import Bar, ns
from operations import Case, control, measure, ratio
from peers import modules
from section import Findings, Section

__all__ = ["sections"]

MAXSIZE = 1_000

# Operation: statement, and the most that ours may take of functools' time.
CALLS = {
    "f(int)": ("f(x)", 0.75),
    "f(int, str)": ("f(x, 'a')", 0.9),
    "f(int, b=str)": ("f(x, b='a')", 0.9),
}

Decorator = Callable[[Any], Any]


def plain(function: Any) -> Any:
    return function


def decorators() -> dict[str, Decorator]:
    import ctxpool

    found = modules()
    known: dict[str, Callable[[Any], Decorator]] = {
        "cachebox": lambda m: m.cached(m.LRUCache(MAXSIZE)),
        "cachetools": lambda m: m.cached(m.LRUCache(MAXSIZE)),
        "moka_py": lambda m: m.cached(MAXSIZE, policy="lru"),
        "theine": lambda m: m.Memoize(MAXSIZE, None),
    }
    return {
        "plain call": plain,
        "functools": functools.lru_cache(MAXSIZE),
        **{name: make(found[name]) for name, make in known.items() if name in found},
        "ctxpool": ctxpool.lru_cache(MAXSIZE),
    }


def shared_by_instances() -> dict[str, Decorator]:
    known = decorators()
    return {name: known[name] for name in ("plain call", "functools", "ctxpool")}


def per_instance() -> dict[str, Decorator]:
    import ctxpool

    found = modules()
    known: dict[str, Callable[[Any], Decorator]] = {
        "cachebox": lambda m: m.cached(lambda self: self.cachebox),
        "cachetools": lambda m: m.cachedmethod(lambda self: self.cachetools),
        "wrapt": lambda m: m.lru_cache(maxsize=MAXSIZE),
    }
    return {
        "plain call": plain,
        **{name: make(found[name]) for name, make in known.items() if name in found},
        "cached_method": ctxpool.cached_method(MAXSIZE),
    }


def async_decorators() -> dict[str, Decorator]:
    import ctxpool

    found = modules()
    known: dict[str, Callable[[Any], Decorator]] = {
        "async_lru": lambda m: m.alru_cache(MAXSIZE),
        "aiocache": lambda m: m.cached(),
        "cachebox": lambda m: m.cached(m.LRUCache(MAXSIZE)),
        "moka_py": lambda m: m.cached(MAXSIZE, policy="lru"),
    }
    return {
        "plain await": plain,
        **{name: make(found[name]) for name, make in known.items() if name in found},
        "ctxpool": ctxpool.lru_cache(MAXSIZE),
    }


def function(decorate: Decorator) -> Any:
    @decorate
    def f(a: Any, b: Any = None) -> Any:
        return a

    return f


def coroutine_function(decorate: Decorator) -> Any:
    @decorate
    async def f(a: Any) -> Any:
        return a

    return f


def instance(decorate: Decorator) -> Any:
    """With a cache of its own for each of those who want one."""
    found = modules()

    class Thing:
        def __init__(self) -> None:
            for name in ("cachebox", "cachetools"):
                if name in found:
                    setattr(self, name, found[name].LRUCache(MAXSIZE))

        @decorate
        def f(self, a: Any) -> Any:
            return a

    return Thing()


def compared(
    operation: str, statement: str, made: dict[str, dict[str, Any]], quick: bool
) -> tuple[list[dict[str, Any]], dict[str, list[float]]]:
    """The rows of one operation, and the figures; ``made`` is what each may use."""
    group = [
        Case("calls", operation, 100, name, statement, feed="range(100)")
        for name in made
    ]
    group = [
        replace(case, given=functools.partial(dict, made[case.name])) for case in group
    ]
    figures = measure(
        [*group, control(group[-1])],
        rounds=2 if quick else 21,
        subtract=False,
        longest=2e5 if quick else 8e6,
    )
    rows = [
        {
            "operation": operation,
            "name": name,
            "median_ns": statistics.median(many),
            "min_ns": min(many),
        }
        for name, many in figures.items()
    ]
    return rows, figures


FLOORS = ("plain call", "plain await", "direct", "(empty loop)")


def ahead(operation: str, figures: dict[str, list[float]]) -> Iterator[Bar]:
    """Ours, the last but the empty loop, to the best peer, if there is any."""
    mine = list(figures)[-2]
    medians = {name: statistics.median(many) for name, many in figures.items()}
    peers = [name for name in figures if name not in (mine, *FLOORS)]
    if peers:
        best = min(peers, key=medians.__getitem__)
        yield Bar(
            f"{mine}: {operation}, to the best peer",
            ratio(figures, mine, best),
            1.0,
            note=f"{medians[mine]:,.1f} ns, {best} {medians[best]:,.1f} ns",
        )


def printed(rows: list[dict[str, Any]]) -> str:
    lines = []
    for operation in dict.fromkeys(row["operation"] for row in rows):
        cells = [
            f"{row['name']} {row['median_ns']:,.1f}/{row['min_ns']:,.1f}"
            for row in rows
            if row["operation"] == operation
        ]
        lines.append(f"{operation + ':':22}" + "  ".join(cells))
    return "\n".join(lines)


def to_functools(
    operation: str, limit: float, figures: dict[str, list[float]]
) -> Iterator[Bar]:
    yield Bar(
        f"ctxpool: {operation}, to functools",
        ratio(figures, "ctxpool", "functools"),
        limit,
        note=ns(figures, "ctxpool", "functools"),
    )


def calls(quick: bool) -> Findings:
    rows: list[dict[str, Any]] = []
    bars: list[Bar] = []
    for operation, (statement, limit) in CALLS.items():
        made = {name: {"f": function(how)} for name, how in decorators().items()}
        found, figures = compared(operation, statement, made, quick)
        rows += found
        bars += to_functools(operation, limit, figures)
        bars += ahead(operation, figures)
    return Findings(printed(rows), rows, bars)


def methods(quick: bool) -> Findings:
    shared, own = "method(int), shared", "method(int), its own"
    everyone, figures = compared(
        shared,
        "o.f(x)",
        {name: {"o": instance(how)} for name, how in shared_by_instances().items()},
        quick,
    )
    bars = list(to_functools(shared, 0.9, figures))
    rows, figures = compared(
        own,
        "o.f(x)",
        {name: {"o": instance(how)} for name, how in per_instance().items()},
        quick,
    )
    bars += ahead(own, figures)
    return Findings(printed(everyone + rows), everyone + rows, bars)


def awaited(quick: bool) -> Findings:
    with asyncio.Runner() as runner:
        made = {
            name: {"f": coroutine_function(decorate), "run": runner.run}
            for name, decorate in async_decorators().items()
        }
        rows, figures = compared("await f(int)", "await f(x)", made, quick)
    return Findings(printed(rows), rows, list(ahead("await f(int)", figures)))


class Thing:
    def __init__(self) -> None:
        self.value = 1

    def __call__(self, x: Any) -> Any:
        return x

    def method(self, x: Any) -> Any:
        return x


PROXIED = {"attribute": "p.value", "method": "p.method(x)", "call": "p(x)"}


def proxies(quick: bool) -> Findings:
    import ctxpool

    found = modules()
    known: dict[str, Callable[[Any], Any]] = {
        "wrapt": lambda m: m.LazyObjectProxy(Thing),
        "lazy_object_proxy": lambda m: m.Proxy(Thing),
    }
    made = {
        "direct": Thing(),
        **{name: make(found[name]) for name, make in known.items() if name in found},
        "LazyProxy": ctxpool.LazyProxy(Thing),
    }
    rows: list[dict[str, Any]] = []
    bars: list[Bar] = []
    for operation, statement in PROXIED.items():
        own, figures = compared(
            operation, statement, {name: {"p": p} for name, p in made.items()}, quick
        )
        rows += own
        bars += ahead(operation, figures)
    return Findings(printed(rows), rows, bars)


def sections(quick: bool, progress: Callable[[str], None]) -> Iterator[Section]:
    yield Section("calls: decorators on a hit", lambda: calls(quick))
    yield Section("calls: decorated methods on a hit", lambda: methods(quick))
    yield Section("calls: coroutine functions on a hit", lambda: awaited(quick))
    yield Section("calls: lazy objects", lambda: proxies(quick))
