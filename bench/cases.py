"""Every case of ``make bench`` whose back end is there."""

from collections.abc import Iterator

from cache_cases import Ring
from cache_cases import cases as cache_cases
from operations import KIB, MIB, Case, block_pool, engine, token_window
from peers import primitives

__all__ = ["cases"]


def lru_cache() -> Iterator[Case]:
    contenders = primitives()
    for size in (1_000, 100_000):
        for group in cache_cases(Ring(size, "str"), contenders):
            yield from group


def cases() -> list[Case]:
    found = [
        *block_pool((4 * KIB, 64 * KIB, MIB)),
        *token_window((131_072,)),
        *lru_cache(),
    ]
    try:
        engine("native")
    except ModuleNotFoundError:
        found = [case for case in found if case.name != "native"]
    return found
