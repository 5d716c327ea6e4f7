"""Bytes an entry takes over its key and value, and what a full collection costs.

Each contender has a process of its own: what another freed would be used again.
Resident memory is read when the keys are there and the cache is not yet, after
filling, and after three times as many other keys have gone through. gc.collect() is
timed with the cache and without it, everything else frozen.
"""

import subprocess
from collections.abc import Callable, Iterator
from typing import Any

from bar import Bar
from fresh import in_a_new_process
from peers import Contender, contenders
from section import Findings, Section

__all__ = ["bars", "inside", "measured", "sections"]

# With int keys too; the others' bytes do not hang on the keys.
WITH_INTS = ("dict", "functools", "cachebox", "LRUCache", "Cache s3fifo")

JUDGED = 1_000_000  # entries: what is promised is promised for so many
OURS = ("LRUCache", "Cache ", "dict")  # the last is the floor: it has no bound
FIGURES = ("filled", "churned", "tracked", "gc_with_ms", "gc_without_ms")


def inside(
    name: str, kind: str, n: int, resident: Callable[[], int]
) -> Iterator[float]:
    """Run in the new process: the FIGURES, one by one."""
    import gc
    import time

    from cache_cases import Ring

    ring = Ring(n, kind)
    (contender,) = (c for c in contenders() if c.name == name)
    store = contender.statements["insert + evict"]
    names: dict[str, Any] = {"own": ring.own, "fresh": ring.fresh}
    pairs = "zip(fresh, own + fresh)"
    feed = pairs if "del" in store else "fresh"

    def collection() -> float:
        """ms; the best of nine."""
        taken = []
        for _ in range(9):
            start = time.perf_counter_ns()
            gc.collect()
            taken.append((time.perf_counter_ns() - start) / 1e6)
        return min(taken)

    before = resident()
    gc.freeze()
    cache = names["cache"] = contender.filled(ring.own)
    yield (resident() - before) / n
    exec(f"for x in {feed}:\n {store}\nx = None", names)
    yield (resident() - before) / n
    yield float(gc.is_tracked(cache))
    yield collection()
    names.clear()
    del cache
    yield collection()


def measured(name: str, kind: str, n: int) -> dict[str, Any]:
    figures = in_a_new_process(
        "from cache_memory import inside\n"
        f"report(*inside({name!r}, {kind!r}, {n}, resident))"
    )
    row = dict(zip(FIGURES, figures, strict=True))
    return {"name": name, "keys": kind, "size": n, **row}


def bars(rows: list[dict[str, Any]]) -> Iterator[Bar]:
    """A policy may remember more than LRU does, but less than any peer holds."""
    peer = min(
        (row["churned"] for row in rows if not row["name"].startswith(OURS)),
        default=float("inf"),
    )
    for row in rows:
        if not row["name"].startswith(OURS[:2]):
            continue
        what = f"{row['name']}, {row['size']:,} {row['keys']} keys"
        if row["size"] >= JUDGED and row["name"] != "LRUCache":
            yield Bar(f"{what}, bytes an entry churned", row["churned"], peer, "B")
        elif row["size"] >= JUDGED:
            for when, label in (("filled", "filling"), ("churned", "three churns")):
                yield Bar(f"{what}, bytes an entry after {label}", row[when], 50, "B")
            # A page or two of the interpreter's own come and go.
            grown = row["churned"] - row["filled"]
            yield Bar(f"{what}, bytes an entry that churn adds", grown, 0.5, "B")
        cost = row["gc_with_ms"] - row["gc_without_ms"]
        yield Bar(f"{what}, ms that it adds to gc.collect()", cost, 1.0, "ms")


def printed(rows: list[dict[str, Any]]) -> str:
    lines = [f"{'':14}{'filled':>12}{'churned':>12}{'gc.collect()':>16}{'without':>12}"]
    for row in rows:
        if "failed" in row:
            lines.append(f"{row['name']:14}{'-':>12}  {row['failed']}")
            continue
        lines.append(
            f"{row['name']:14}{row['filled']:10.1f} B{row['churned']:10.1f} B"
            f"{row['gc_with_ms']:13.2f} ms{row['gc_without_ms']:9.2f} ms"
        )
    return "\n".join(lines)


def takes_part(contender: Contender, kind: str) -> bool:
    if contender.name == "zict":  # 5 us an entry: too slow for a million
        return False
    return kind == "str" or contender.name in WITH_INTS


def sections(quick: bool, progress: Callable[[str], None]) -> Iterator[Section]:
    n = 20_000 if quick else JUDGED
    for kind in ("str", "int"):

        def run(kind: str = kind) -> Findings:
            rows = []
            for contender in contenders():
                if takes_part(contender, kind):
                    progress(contender.name)
                    try:
                        rows.append(measured(contender.name, kind, n))
                    except subprocess.CalledProcessError as error:
                        rows.append(
                            {
                                "name": contender.name,
                                "keys": kind,
                                "size": n,
                                "failed": f"exit status {error.returncode}",
                            }
                        )
            judged = [row for row in rows if "failed" not in row]
            return Findings(printed(rows), rows, list(bars(judged)))

        yield Section(f"memory: {n:,} {kind} keys", run)
