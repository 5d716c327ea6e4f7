"""What both twins of MarkovModel share: its constants, priors and saved rates."""

from __future__ import annotations

import sys
from array import array
from bisect import bisect
from functools import cache

__all__ = [
    "MEMORY",
    "MOST",
    "RATES",
    "STEP",
    "invalid",
    "max_bytes",
    "pack",
    "priors",
    "unpack",
]

MOST = 255  # of a context's counts: at it all are halved, so that it follows changes
# Contexts are alike by their counts, about as a logarithm, and by the leader's share in
# sixteenths, or by how many followers they have, up to 8.
STEPS = (1, 2, 3, 4, 6, 9, 13, 20, 32, 64, 128)
STEP = [bisect(STEPS, max(total, 1)) - 1 for total in range(MOST)]
SHARES = 12
FOLLOWERS = 8
# Rates of the contexts of one length: of leaders, of others than the leader, and of
# followers where none leads.
LEADS = len(STEPS) * SHARES
RESTS = len(STEPS) * FOLLOWERS
RATES = LEADS + 2 * RESTS
MEMORY = 1000.0  # tries that a rate remembers, for the same reason
TRUST = 2.0  # tries that a prior counts for

# Bytes: of an object and its rates, of a context, of a slot of the tables, of a key.
OBJECT, CONTEXT, SLOT, KEY = 4096, 16, 8, 96


@cache
def priors(order: int) -> tuple[bytes, bytes]:
    """Hits and tries to begin with, as doubles: Moffat's method C, about."""
    hits = array("d")
    for total in STEPS:
        for share in range(SHARES):
            hits.append(TRUST * (share + 5) / 16 * total / (total + 1))
    hits.extend([TRUST * 0.25] * RESTS)
    for total in STEPS:
        for followers in range(1, FOLLOWERS + 1):
            hits.append(TRUST * total / (total + followers))
    tries = array("d", [TRUST]) * RATES
    return hits.tobytes() * (2 * order + 2), tries.tobytes() * (2 * order + 2)


def max_bytes(order: int, contexts: int, successors: int) -> int:
    """The bound of the native tables."""
    total = OBJECT + 2 * RATES * 16 * (order + 1)
    keys = order + successors
    slots = 8
    while slots * 6 // 10 < contexts:
        slots *= 2
    for size in range(order + 1):
        room = CONTEXT + 4 * size + (successors + 3 & ~3) + 4 * successors + 7 & ~7
        total += slots * SLOT + (contexts + 1) * room
        keys += contexts * (successors + size) if size else 0
    return total + KEY * keys


def pack(data: bytes, code: str) -> bytes:
    """Items of this machine as little-endian ones, and back."""
    if sys.byteorder == "little":
        return data
    swapped = array(code, data)
    swapped.byteswap()
    return swapped.tobytes()


def unpack(hits: bytes, tries: bytes, order: int) -> tuple[bytes, bytes]:
    """The rates that a pickle brought, checked."""
    hits, tries = pack(hits, "d"), pack(tries, "d")
    if not len(hits) == len(tries) == len(priors(order)[0]):
        raise invalid("its rates are of another length")
    for hit, tried in zip(array("d", hits), array("d", tries), strict=True):
        if not 0 <= hit <= tried <= MEMORY:
            raise invalid(f"a rate of {hit} in {tried}")
    return hits, tries


def invalid(why: str) -> ValueError:
    """What to raise for a state that no model can be in."""
    return ValueError(f"this is no state of a MarkovModel: {why}")
