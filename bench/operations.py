"""What is measured: every operation, ours and the way people write it today.

A case is text, as in timeit: a set-up, and a statement that runs once for each
item ``x`` of ``feed``. So one definition serves throughput (a loop with the clock
outside) and tails (a clock around every single operation), and no case pays for a
function call that another does not.

``side`` is "pooled" for ours and "unpooled" for everything else.
"""

import gc
import importlib
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

__all__ = ["Case", "compile_loop", "control", "engine", "measure", "ratio"]

KIB, MIB = 1 << 10, 1 << 20


@dataclass(frozen=True)
class Case:
    primitive: str
    operation: str
    size: int
    name: str
    statement: str
    setup: str = ""
    feed: str = "[0]"
    ops: int = 20_000  # statements in one timed loop
    per: int = 1  # operations in the statement
    warm: int = 0  # in the first one, which is not counted, if more
    side: str = "unpooled"
    # Objects that the statement may use, made when the loop is compiled.
    given: Callable[[], dict[str, Any]] = dict

    @property
    def group(self) -> str:
        return f"{self.primitive}: {self.operation}, {self.size:,}"


# --- the engine ------------------------------------------------------------------

NAMES = {
    "block_pool": ["Block", "BlockPool"],
    "token_window": ["TokenWindow"],
    "lru_cache": ["LRUCache"],
    "cache": ["Cache"],
    "shared_pool": ["SharedBlockPool"],
    "prefix_blocks": ["PrefixBlockManager"],
}


def engine(backend: str) -> dict[str, Any]:
    """The public names of one back end; ModuleNotFoundError where it was not built."""
    return {
        name: getattr(importlib.import_module(f"ctxpool._{backend}.{module}"), name)
        for module, names in NAMES.items()
        for name in names
    }


def ours(case: Case) -> Iterator[Case]:
    for backend in ("native", "pure"):
        yield replace(case, name=backend, side="pooled")


# --- the cases -------------------------------------------------------------------


def block_pool(sizes: tuple[int, ...]) -> Iterator[Case]:
    for size in sizes:
        pool = f"pool = BlockPool({size}, 64)"

        def case(
            operation: str,
            mine: str,
            *others: tuple[str, str, str],
            pool: str = pool,
            size: int = size,
        ) -> Iterator[Case]:
            base = Case("BlockPool", operation, size, "", mine, pool)
            yield from ours(base)
            for name, statement, setup in others:
                yield replace(base, name=name, statement=statement, setup=setup)

        u1 = 'u1 = np.dtype("u1")'
        byte_array = ("bytearray", f"bytearray({size})", "")
        empty = ("np.empty", f"np.empty({size}, u1)", u1)
        yield from case(
            "acquire + release", "pool.acquire().release()", byte_array, empty
        )
        yield from case("dropped", "pool.acquire()", byte_array, empty)
        yield from case(
            "with",
            "with pool.acquire(): pass",
            ("bytearray", f"with memoryview(bytearray({size})): pass", ""),
        )
        yield from case(
            "view",
            "b = pool.acquire(); v = b.view; v = None; b.release()",
            ("bytearray", f"v = memoryview(bytearray({size}))", ""),
        )
        yield replace(Case("BlockPool", "array", size, "np.empty", empty[1]), setup=u1)
        yield from ours(
            Case(
                "BlockPool",
                "array",
                size,
                "",
                f"pool.empty({size}, u1)",
                pool + "; " + u1,
            )
        )
        # The newest four are alive: what pipelines and queues of frames do.
        live = "; live = deque(maxlen=4)"
        touch = "a[::4096] = 1; live.append(a)"
        first = Case("BlockPool", "touch, 4 live", size, "", "", ops=2_000)
        yield from ours(
            replace(
                first,
                setup=pool + "; " + u1 + live,
                statement=f"a = pool.empty({size}, u1); {touch}",
            )
        )
        yield replace(
            first,
            name="np.empty",
            setup=u1 + live,
            statement=f"a = np.empty({size}, u1); {touch}",
        )
        yield replace(
            first,
            name="bytearray",
            setup="live = deque(maxlen=4)",
            statement=f"a = bytearray({size}); live.append(a)",
        )


def token_window(sizes: tuple[int, ...]) -> Iterator[Case]:
    for size in sizes:
        window = (
            f"full = np.arange({size}, dtype=np.int32)\n"
            f"window = TokenWindow({size}); window.extend(full)"
        )
        deque_ = f"window = deque(range({size}), maxlen={size})"

        def case(
            operation: str,
            mine: str,
            other: str,
            feed: str = "[7]",
            ops: int = 20_000,
            window: str = window,
            deque_: str = deque_,
            size: int = size,
        ) -> Iterator[Case]:
            base = Case("TokenWindow", operation, size, "", mine, window, feed, ops)
            yield from ours(base)
            yield replace(base, name="deque", statement=other, setup=deque_)

        yield from case("append", "window.append(x)", "window.append(x)")
        for n in (16, 512):
            yield from case(
                f"extend {n} from a list",
                "window.extend(x)",
                "window.extend(x)",
                f"[list(range({n}))]",
                200_000 // n,
            )
        for n in (16, 512, 65_536):
            yield from case(
                f"extend {n:,} from an array",
                "window.extend(x)",
                "window.extend(x)",
                f"[np.arange({n}, dtype=np.int32)]",
                max(20, 400_000 // n),
            )
        yield from case(
            "whole window as an array",
            "window.view()",
            "np.fromiter(window, np.int32, len(window))",
            ops=50,
        )
        yield from case(
            "extend 16, then the whole window",
            "window.extend(x); window.view()",
            "window.extend(x); np.fromiter(window, np.int32, len(window))",
            "[np.arange(16, dtype=np.int32)]",
            50,
        )
        last = min(4_000, size)
        yield from case(
            f"last {last:,}",
            f"window.last({last})",
            f"list(islice(reversed(window), {last}))[::-1]",
            ops=200,
        )


TEXT_MAY_USE = """
from collections import deque
from itertools import islice
import numpy as np
"""

# --- the loops ---------------------------------------------------------------------

THROUGHPUT = """
def loop(n, feed):
    for x in islice(feed, n):
{statement}
"""
LATENCY = """
def loop(n, feed, out, now):
    i = 0
    for x in islice(feed, n):
        t0 = now()
{statement}
        out[i] = now() - t0
        i += 1
"""


def namespace(case: Case) -> dict[str, Any]:
    names: dict[str, Any] = {
        "islice": itertools.islice,
    }
    exec(TEXT_MAY_USE, names)
    if case.side == "pooled" and case.setup:
        names.update(engine(case.name))
    return names


def compile_loop(case: Case, latency: bool = False) -> Callable[..., None]:
    """``loop(n)``, or with ``latency`` ``loop(n, out)``: out[i] = ns of the i-th.

    The set-up's names become locals of the loop, as in a function of its own. A
    statement that awaits needs a ``run`` among what is given, which runs a coroutine.
    """
    names = namespace(case)
    before = set(names)
    names.update(case.given())
    exec(case.setup, names)
    made = [name for name in names if name not in before and name != "__builtins__"]
    made += [name for name in ("np",) if name in case.statement]
    feed = eval(case.feed, names)
    template = LATENCY if latency else THROUGHPUT
    indent = "        "
    body = "\n".join(indent + line for line in case.statement.splitlines())
    source = template.format(statement=body)
    closed = "".join(f", {name}={name}" for name in dict.fromkeys(made))
    source = source.replace("):\n", f"{closed}):\n", 1)
    if "await " in case.statement:
        source = source.replace("def", "async def", 1)
    exec(compile(source, f"<{case.group}, {case.name}>", "exec"), names)
    loop = names["loop"]
    # One endless iterator: insert + evict goes on where the last call stopped.
    items = itertools.chain.from_iterable(itertools.repeat(feed))
    if latency:
        return lambda n, out: loop(n, items, out, time.perf_counter_ns)
    if "await " in case.statement:
        return lambda n: names["run"](loop(n, items))
    return lambda n: loop(n, items)


def control(case: Case) -> Case:
    """The empty loop over the same feed."""
    return replace(
        case, name="(empty loop)", side="unpooled", statement="pass", setup=""
    )


def measure(
    group: list[Case],
    rounds: int = 21,
    subtract: bool = True,
    longest: float = float("inf"),
) -> dict[str, list[float]]:
    """ns per operation in each round, by name; the order rotates from round to round.

    With ``subtract`` the empty loop's best round is taken off; without, the empty
    loop may be one of the group. Who would take longer than ``longest`` ns for a round
    does fewer operations.
    """
    loops = {case.name: compile_loop(case) for case in group}
    counts = {case.name: max(case.ops, case.warm) for case in group}
    most = {case.name: case.ops for case in group}
    per = {case.name: case.per for case in group}
    empty = compile_loop(control(group[0]))
    ops = max(most.values())
    figures: dict[str, list[float]] = {name: [] for name in loops}
    names = list(loops)
    base = float("inf")  # whatever makes an empty loop slower is noise
    gc.collect()
    gc.disable()
    try:
        for round_ in range(rounds + 1):  # the first warms up
            if subtract:
                start = time.perf_counter_ns()
                empty(ops)
                base = min(base, (time.perf_counter_ns() - start) / ops / group[0].per)
            turn = round_ % len(names)
            for name in names[turn:] + names[:turn]:
                loop, n = loops[name], counts[name]
                start = time.perf_counter_ns()
                loop(n)
                taken = (time.perf_counter_ns() - start) / n
                if round_:
                    figures[name].append(taken / per[name])
                else:
                    counts[name] = max(100, int(min(most[name], longest / taken)))
    finally:
        gc.enable()
    if subtract:
        return {n: [max(x - base, 0.1) for x in many] for n, many in figures.items()}
    return figures


def ratio(figures: dict[str, list[float]], mine: str, other: str) -> float:
    """The median of the rounds' own ratios."""
    return statistics.median(
        a / b for a, b in zip(figures[mine], figures[other], strict=True)
    )
