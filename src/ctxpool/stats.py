"""What the primitives count, as frozen records."""

from dataclasses import asdict, dataclass
from typing import Any

__all__ = [
    "BlockPoolStats",
    "LRUCacheStats",
    "ObjectPoolStats",
    "PooledObject",
    "TokenWindowStats",
]


class _Record:
    """A record that gives its fields as a plain dict."""

    __slots__ = ()

    def as_dict(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)  # type: ignore[call-overload, no-any-return]


@dataclass(frozen=True, slots=True)
class BlockPoolStats(_Record):
    """A moment of a :class:`~ctxpool.BlockPool`; counts are since its construction.

    Attributes
    ----------
    name : str or None
        The pool's name.
    block_size : int
        Bytes of a block that its user may write.
    blocks : int
        Blocks that exist now, free or not (without heap fallbacks).
    max_blocks : int
        Blocks that may exist.
    in_use : int
        Blocks that are out, deferred ones included.
    deferred : int
        Released blocks whose memory somebody still reaches.
    peak : int
        The most blocks that were out at once.
    acquires, releases : int
        Blocks handed out and given back, by any interface.
    waits : int
        Acquires that had to wait.
    exhausted : int
        Acquires that failed for want of a block.
    heap_fallbacks : int
        Blocks taken from the heap because the pool had none.
    bytes : int
        Bytes of address space that the blocks occupy, with padding.
    """

    name: str | None
    block_size: int
    blocks: int
    max_blocks: int
    in_use: int
    deferred: int
    peak: int
    acquires: int
    releases: int
    waits: int
    exhausted: int
    heap_fallbacks: int
    bytes: int


@dataclass(frozen=True, slots=True)
class TokenWindowStats(_Record):
    """A moment of a :class:`~ctxpool.TokenWindow`.

    Attributes
    ----------
    capacity : int
        Tokens that fit.
    size : int
        Tokens in the window now.
    position : int
        Tokens ever seen.
    evicted : int
        Tokens dropped because the window was full.
    generations : int
        Buffers used up and replaced.
    bytes : int
        Bytes of the buffers that the window holds.
    """

    capacity: int
    size: int
    position: int
    evicted: int
    generations: int
    bytes: int


@dataclass(frozen=True, slots=True)
class LRUCacheStats(_Record):
    """A moment of an :class:`~ctxpool.LRUCache`; counts are since its construction.

    Attributes
    ----------
    hits, misses : int
        Look-ups that found their key, and that did not.
    inserts : int
        New keys stored.
    evicted_capacity : int
        Entries dropped to make room.
    evicted_expired : int
        Entries dropped because their time to live was over.
    evicted_resize : int
        Entries dropped because the cache was made smaller.
    size : int
        Entries now.
    currsize : int or float
        Sum of the values' sizes now.
    maxsize : int or float
        The bound of *currsize*.
    bytes : int
        Bytes of the cache's own tables, without keys and values.
    """

    hits: int
    misses: int
    inserts: int
    evicted_capacity: int
    evicted_expired: int
    evicted_resize: int
    size: int
    currsize: int | float
    maxsize: int | float
    bytes: int

    @property
    def hit_ratio(self) -> float:
        """Hits over look-ups; 0.0 before the first look-up."""
        lookups = self.hits + self.misses
        return self.hits / lookups if lookups else 0.0


@dataclass(frozen=True, slots=True)
class ObjectPoolStats(_Record):
    """A moment of an :class:`~ctxpool.ObjectPool`; counts are since its construction.

    Attributes
    ----------
    name : str or None
        The pool's name.
    size : int
        Objects that exist, or are being made or disposed of.
    idle : int
        Those that wait in the pool.
    in_use : int
        Those that are out.
    waiting : int
        Threads and tasks that wait for one.
    max_size : int
        Objects that may exist.
    peak : int
        The most that were out at once.
    acquires, releases : int
        Objects that went out, and that came back or were discarded.
    created, disposed : int
        Objects that the factory made, and that the pool let go of.
    failed : int
        Calls of the factory that raised.
    invalid : int
        Objects that failed validation.
    expired : int
        Objects that were replaced or evicted for their age.
    evicted : int
        Objects that were evicted for being idle.
    leaked : int
        Objects that were out for longer than *leak_after*.
    waits : int
        Acquires that had to wait.
    timeouts : int
        Acquires that waited in vain.
    """

    name: str | None
    size: int
    idle: int
    in_use: int
    waiting: int
    max_size: int
    peak: int
    acquires: int
    releases: int
    created: int
    disposed: int
    failed: int
    invalid: int
    expired: int
    evicted: int
    leaked: int
    waits: int
    timeouts: int


@dataclass(frozen=True, slots=True)
class PooledObject:
    """An object of a pool, at a moment.

    Attributes
    ----------
    object : Any
        The object itself.
    created : float
        When it was made, in seconds since the epoch.
    last_used : float
        When it was last acquired or released, in seconds since the epoch.
    uses : int
        How often it was acquired.
    in_use : bool
        Whether it is out.
    place : str or None
        Where it was acquired, in a pool with *leak_after*, while it is out.
    """

    object: Any
    created: float
    last_used: float
    uses: int
    in_use: bool
    place: str | None
