"""Blocks of tokens shared by common prefixes, beside vLLM's block pool.

PrefixBlockManager with blocks of 16 tokens; prefix_peers.py tells the peer: vLLM's own
Python or, without its sources, the same thing in plain Python. "get + free" takes n
blocks that are not cached and gives them back. "miss" is a whole prompt of which
nothing is cached, in a pool that is full of such: hashes, look-up, as many evictions,
and all blocks given back; "hit" is the same prompt again. Each gets the prompt as a
list of ints, ours also as an array of int32, as tokenizers and TokenWindow have it.

A call for one block is mostly the call itself: there we gain least. In a server the
model takes milliseconds where this takes microseconds: it pays for long prompts, many
requests a second, a simulation, or a gateway that has no model.
"""

import gc
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from bar import Bar
from operations import engine
from pools_shared import timed
from prefix_peers import SIZE, peer
from section import Findings, Section

__all__ = ["sections"]

OURS, LIST, ARRAY = "ctxpool", "ctxpool, list", "ctxpool, int32 array"
LAX = "ctxpool, unverified"
BLOCKS = 100_000
GET = {1: 20_000, 64: 4_000, 4096: 200}
PROMPTS = {8_192: 200, 131_072: 40}
# At least so many times as fast as the peer.
GAINS = {"get + free": 15, "miss": 10, "hit": 10, "init": 10}


def manager(blocks: int, **options: Any) -> Any:
    return engine("native")["PrefixBlockManager"](blocks, SIZE, **options)


def taking(n: int) -> dict[str, Callable[[], None]]:
    ours, theirs = manager(BLOCKS), peer()(BLOCKS)

    def mine() -> None:
        ours.release(ours.acquire(n))

    def other() -> None:
        theirs.free(theirs.get(n))

    return {OURS: mine, theirs.name: other}


def prompts(n: int, fresh: bool) -> dict[str, Callable[[], None]]:
    """Prompts of n tokens, *fresh* ones or the same again, in a full pool of twice as
    many blocks: steady eviction of all others."""
    blocks = 2 * n // SIZE
    theirs = peer()(blocks)
    tokens = np.random.default_rng(1).integers(0, 100_000, n).tolist()

    def begun(tokens: Any) -> Any:
        if fresh:  # the first token is in the hash of every block
            tokens[0] += 1
        return tokens

    def ours_with(tokens: Any, **options: Any) -> Callable[[], None]:
        ours = manager(blocks, **options)

        def call() -> None:
            made = ours.allocate(begun(tokens))
            assert made.cached_tokens in ((0,) if fresh else (0, n))
            ours.free(made.sequence)

        return call

    def other() -> None:
        blocks, _ = theirs.prompt(begun(tokens))
        theirs.free(blocks)

    array = np.array(tokens, np.int32)
    return {
        LIST: ours_with(list(tokens)),
        ARRAY: ours_with(array),
        LAX: ours_with(array.copy(), verify=False),
        theirs.name: other,
    }


def making() -> dict[str, Callable[[], None]]:
    return {
        OURS: lambda: manager(BLOCKS) and None,
        peer().name: lambda: peer()(BLOCKS) and None,
    }


def rows(what: str, n: int, found: dict[str, np.ndarray]) -> Iterator[dict[str, Any]]:
    theirs = np.median(found[peer().name], 1)
    for name, taken in found.items():
        p50, p99 = (float(x) / 1e3 for x in np.percentile(taken, (50, 99)))
        yield {
            "what": what,
            "n": n,
            "name": name,
            "p50_us": p50,
            "p99_us": p99,
            "max_us": float(taken.max()) / 1e3,
            "times": float(np.median(theirs / np.median(taken, 1))),
        }


def printed(found: list[dict[str, Any]]) -> str:
    lines = [f"{'us':>19}  {'':22}{'p50':>12}{'p99':>12}{'max':>12}{'times':>9}"]
    for row in found:
        lines.append(
            f"{row['what']:>10} {row['n']:8,}  {row['name']:22}{row['p50_us']:12,.2f}"
            f"{row['p99_us']:12,.2f}{row['max_us']:12,.1f}{row['times']:9.1f}"
        )
    return "\n".join(lines)


def bars(found: list[dict[str, Any]]) -> Iterator[Bar]:
    for row in found:
        if row["name"] in (OURS, LIST, ARRAY) and not (
            row["what"] == "get + free" and row["n"] == 1
        ):
            yield Bar(
                f"prefix blocks, {row['what']} of {row['n']:,}, {row['name']}",
                row["times"],
                GAINS[row["what"]],
                note=f"as fast as {peer().name}; {row['p50_us']:,.1f} us",
                least=True,
            )


def collection() -> float:
    """ms of a full garbage collection, the best of nine."""
    best = float("inf")
    for _ in range(9):
        start = time.perf_counter_ns()
        gc.collect()
        best = min(best, (time.perf_counter_ns() - start) / 1e6)
    return best


def garbage() -> Findings:
    """What a pool of cached blocks gives the garbage collector to do."""
    makers: dict[str, Callable[[], Any]] = {
        OURS: lambda: manager(BLOCKS).allocate,
        peer().name: lambda: peer()(BLOCKS).prompt,
    }
    found = []
    for name, make in makers.items():
        take = make()
        take(list(range(BLOCKS * SIZE)))
        with_it, objects = collection(), len(gc.get_objects())
        del take
        more = with_it - collection(), objects - len(gc.get_objects())
        found.append({"name": name, "ms": more[0], "objects": more[1]})
    text = "\n".join(
        f"{row['name']:20}{row['objects']:9,} objects{row['ms']:10.3f} ms more"
        for row in found
    )
    what = f"prefix blocks, garbage collector's objects for {BLOCKS:,}"
    return Findings(text, found, [Bar(what, found[0]["objects"], 5, "", "")])


def sections(quick: bool, progress: Callable[[str], None]) -> Iterator[Section]:
    def run(
        what: str,
        make: Callable[[int], dict[str, Callable[[], None]]],
        sizes: dict[int, int],
    ) -> Callable[[], Findings]:
        def measured() -> Findings:
            found: list[dict[str, Any]] = []
            for n, times in sizes.items():
                progress(f"{what}, {n:,}")
                times = max(times // 20, 20) if quick else times
                found += rows(what, n, timed(make(n), times))
            return Findings(printed(found), found, list(bars(found)))

        return measured

    title = f"prefix blocks, beside {peer().name}"
    yield Section(f"{title}: get + free", run("get + free", taking, GET))
    yield Section(f"{title}: miss", run("miss", lambda n: prompts(n, True), PROMPTS))
    yield Section(f"{title}: hit", run("hit", lambda n: prompts(n, False), PROMPTS))
    yield Section(f"{title}: init", run("init", lambda n: making(), {BLOCKS: 20}))
    yield Section(f"{title}: garbage collection", garbage)
