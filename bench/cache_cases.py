"""The operations on a cache: which keys, in which order, for each contender.

All contenders are given the very same key objects, whose hashes are known before
the clock starts.
"""

import random
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Any

import numpy as np
from operations import Case
from peers import Contender

__all__ = ["KINDS", "OPERATIONS", "Ring", "cases", "keys", "shuffled"]

KINDS = ("str", "int", "random int", "bytes", "tuple")

# Operation: the attribute of a Ring that feeds it. In this order: the last two put
# other keys into the cache than those it was filled with. In "zipf 90/10" nine of ten
# requests read and one stores, and all find their key; a read-through stores what it
# does not find, for which a dict, without a bound, has no need after a while. "insert +
# evict" begins with caches filled anew: what goes is what came first, for all alike.
OPERATIONS = {
    "hit c[k]": "shuffled",
    "hit get": "shuffled",
    "equal-copy key": "copies",
    "miss get": "absent",
    "overwrite": "shuffled",
    "zipf 90/10": "tens",
    "insert + evict": "fresh",
    "zipf read-through": "zipf",
}


def keys(n: int, kind: str, start: int = 0) -> list[Any]:
    """New key objects, the same each time, with their hashes computed."""
    numbers = range(start, start + n)
    made: list[Any]
    if kind == "int":
        made = list(numbers)
    elif kind == "random int":
        # splitmix64's finalizer, 61 bits of it: dict has no easy time with them.
        with np.errstate(over="ignore"):
            z = np.arange(start, start + n, dtype=np.uint64) * np.uint64(
                0x9E3779B97F4A7C15
            )
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            made = ((z ^ (z >> np.uint64(31))) >> np.uint64(3)).tolist()
    elif kind == "bytes":
        made = [b"key:%d" % i for i in numbers]
    elif kind == "tuple":
        made = [(f"user:{i % 1_000}", i) for i in numbers]
    else:
        made = [f"key:{i}" for i in numbers]
    for key in made:
        hash(key)
    return made


def shuffled(items: list[Any]) -> list[Any]:
    random.Random(1).shuffle(items)
    return items


class Ring:
    """Keys for caches of one size, each list made when it is first asked for."""

    def __init__(self, size: int, kind: str) -> None:
        self.size, self.kind = size, kind

    @cached_property
    def all(self) -> list[Any]:
        return keys(4 * self.size, self.kind)

    @cached_property
    def own(self) -> list[Any]:
        """What the caches are filled with."""
        return self.all[: self.size]

    @cached_property
    def shuffled(self) -> list[Any]:
        return shuffled(list(self.own))

    @cached_property
    def copies(self) -> list[Any]:
        """Equal keys that are other objects: no look-up ends at identity."""
        return shuffled(keys(self.size, self.kind))

    @cached_property
    def absent(self) -> list[Any]:
        return shuffled(keys(self.size, self.kind, 10**7))

    @cached_property
    def fresh(self) -> list[Any]:
        """Not among `own`, and none comes again before it is evicted."""
        return self.all[self.size :]

    @cached_property
    def pairs(self) -> list[tuple[Any, Any]]:
        """For a dict filled with `own`: what to store, and the oldest, to delete."""
        return list(zip(self.fresh + self.own, self.all, strict=True))

    @cached_property
    def zipf(self) -> list[Any]:
        """Requests of which about 90 % hit a cache of a thousand, and more hit larger
        ones."""
        return self._drawn(self.all)

    @cached_property
    def tens(self) -> list[tuple[Any, ...]]:
        """Requests for `own`, by ten."""
        drawn = self._drawn(self.own)
        return list(zip(*(drawn[i::10] for i in range(10)), strict=True))

    def _drawn(self, keys: list[Any]) -> list[Any]:
        ranks = np.random.default_rng(1).zipf(1.35, max(200_000, 2 * self.size))
        return [keys[rank % len(keys)] for rank in ranks.tolist()]


def cases(
    ring: Ring,
    contenders: Iterable[Contender],
    operations: Iterable[str] = OPERATIONS,
    filled: Callable[[Contender, Ring, bool], Any] = (
        lambda contender, ring, anew: contender.filled(ring.own)
    ),
) -> Iterator[list[Case]]:
    """For each operation the cases of those that can do it. ``filled`` may give the
    same cache for one operation after the other, as long as they keep their order, but
    where it is asked for one anew."""
    suffix = "" if ring.kind == "str" else f" ({ring.kind} keys)"

    def given(contender: Contender, operation: str) -> Callable[[], dict[str, Any]]:
        anew = operation == "insert + evict"
        return lambda: {"cache": filled(contender, ring, anew), "ring": ring}

    for operation in operations:
        yield [
            Case(
                "LRUCache",
                operation + suffix,
                ring.size,
                contender.name,
                contender.statements[operation],
                feed="ring.pairs"
                if "del" in contender.statements[operation]
                else f"ring.{OPERATIONS[operation]}",
                # Twice through all keys, but for the largest: whose turn it is finds
                # the processor's caches full of the others' data.
                ops=min(200_000, max(20_000, 2 * ring.size)),
                # So many requests make room for what is asked for often.
                warm=ring.size if operation == "zipf read-through" else 0,
                per=10 if operation == "zipf 90/10" else 1,
                side="pooled" if contender.side == "ours" else "unpooled",
                given=given(contender, operation),
            )
            for contender in contenders
            if operation in contender.statements and ring.size <= contender.largest
        ]
