"""What the primitives count, as frozen records."""

from dataclasses import asdict, dataclass
from typing import Any

__all__ = [
    "BlockPoolStats",
    "ContextWindowStats",
    "LRUCacheStats",
    "MemoryPoolStats",
    "NumpyPoolStats",
    "ObjectPoolStats",
    "PooledObject",
    "PrefixBlockStats",
    "SharedLoan",
    "SharedParticipant",
    "SharedPoolStats",
    "SizeClassStats",
    "SpillStats",
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
        Bytes of address space that the blocks occupy, with the gaps between them.
    padding : int
        Bytes of the blocks that are out which nobody asked for.
    idle : int
        Free blocks of slabs that are wholly free (with *slab_blocks*).
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
    padding: int
    idle: int


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


@dataclass(frozen=True, slots=True)
class SizeClassStats(_Record):
    """A moment of one size class of a :class:`~ctxpool.MemoryPool`.

    Attributes
    ----------
    block_size : int
        Bytes of a block of the class.
    slab_bytes : int
        Bytes of the budget that the class takes at a time.
    blocks : int
        Blocks that exist now, free or not.
    in_use : int
        Blocks that are out.
    peak : int
        The most blocks that were out at once.
    requested : int
        Bytes that were asked for, of the blocks that are out.
    padding : int
        The rest of those blocks.
    free_in_used_slabs : int
        Bytes of free blocks in slabs that have a block out: no other class gets them.
    idle : int
        Bytes of slabs that are wholly free.
    bytes : int
        Bytes of all slabs of the class.
    acquires, releases : int
        Blocks handed out and given back.
    misses : int
        Requests that found no free block at once.
    waits : int
        Requests that had to wait.
    exhausted : int
        Requests that waited in vain.
    """

    block_size: int
    slab_bytes: int
    blocks: int
    in_use: int
    peak: int
    requested: int
    padding: int
    free_in_used_slabs: int
    idle: int
    bytes: int
    acquires: int
    releases: int
    misses: int
    waits: int
    exhausted: int

    @property
    def internal_fragmentation(self) -> float:
        """Padding over all bytes of blocks that are out; 0.0 if none is."""
        return _share(self.padding, self.requested + self.padding)

    @property
    def external_fragmentation(self) -> float:
        """Free bytes in slabs partly used over all bytes of slabs; 0.0 without any."""
        return _share(self.free_in_used_slabs, self.bytes)


@dataclass(frozen=True, slots=True)
class MemoryPoolStats(_Record):
    """A moment of a :class:`~ctxpool.MemoryPool`; counts are since its construction.

    Attributes
    ----------
    name : str or None
        The pool's name.
    total_size : int
        The budget in bytes.
    bytes, peak_bytes : int
        Bytes of the budget that are in slabs now, and the most that ever were.
    in_use, requested, padding, free_in_used_slabs : int
        Sums over the classes: see :class:`SizeClassStats`.
    moved : int
        Slabs that a class got in exchange for those of other classes.
    too_large : int
        Requests larger than the largest class that were served.
    heap : int
        Blocks taken from the heap.
    heap_in_use : int
        Those of them that are out.
    waits, exhausted : int
        Requests that had to wait, and that failed for want of memory.
    classes : tuple of SizeClassStats
        Ascending by the size of their blocks; those that were never asked for a block
        are not among them.
    """

    name: str | None
    total_size: int
    bytes: int
    peak_bytes: int
    in_use: int
    requested: int
    padding: int
    free_in_used_slabs: int
    moved: int
    too_large: int
    heap: int
    heap_in_use: int
    waits: int
    exhausted: int
    classes: tuple[SizeClassStats, ...]

    @property
    def internal_fragmentation(self) -> float:
        """Padding over all bytes of blocks that are out; 0.0 if none is."""
        return _share(self.padding, self.requested + self.padding)

    @property
    def external_fragmentation(self) -> float:
        """Free bytes in slabs partly used over all bytes of slabs; 0.0 without any."""
        return _share(self.free_in_used_slabs, self.bytes)


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
class NumpyPoolStats(_Record):
    """A moment of a :class:`~ctxpool.NumpyPool`; counts are since its construction.

    Arrays below the pool's *min_size* are NumPy's own and not in it.

    Attributes
    ----------
    name : str or None
        The pool's name.
    size : int
        Bytes of free memory that the pool keeps at most.
    limit : int or None
        Bytes that all arrays together may take.
    hits : int
        Requests served from memory that was mapped already.
    misses : int
        Requests that needed new memory of the system: these cost page faults.
    refused : int
        Requests beyond the limit, or that the system had no memory for.
    unmapped : int
        Maps given back to the system: more than *size* was free, or by a trim.
    live_blocks : int
        Requests that are not freed yet: arrays, and NumPy's buffers.
    live_bytes : int
        Bytes of their blocks.
    peak_bytes : int
        The most that *live_bytes* ever was.
    idle_bytes : int
        Bytes of used memory kept for the next arrays, at most *size*.
    mapped_bytes : int
        Bytes of address space that the pool has of the system.
    """

    name: str | None
    size: int
    limit: int | None
    hits: int
    misses: int
    refused: int
    unmapped: int
    live_blocks: int
    live_bytes: int
    peak_bytes: int
    idle_bytes: int
    mapped_bytes: int

    @property
    def hit_ratio(self) -> float:
        """Hits over requests; 0.0 before the first."""
        requests = self.hits + self.misses
        return self.hits / requests if requests else 0.0


@dataclass(frozen=True, slots=True)
class SharedPoolStats(_Record):
    """A moment of a :class:`~ctxpool.SharedBlockPool`, over all its processes.

    Counts are those of the participants that live, since each of them attached.

    Attributes
    ----------
    name : str or None
        The pool's name.
    block_size : int
        Bytes of a block.
    blocks : int
        Blocks, free or not.
    in_use : int
        Blocks that somebody holds, or that are in transit.
    in_transit : int
        Blocks that were sent and not yet opened.
    mine : int
        Blocks that this process holds, deferred ones included.
    deferred : int
        Blocks that this process released and whose memory it still reaches.
    participants : int
        Processes that are attached and live (one that attached twice counts twice).
    acquires, opens, releases, sends : int
        Blocks taken from the pool, opened from a handle, given back, sent.
    waits : int
        Acquires that had to wait.
    exhausted : int
        Acquires that failed for want of a block.
    recovered : int
        Blocks that came back because whoever had them died.
    bytes : int
        Bytes of the segment.
    """

    name: str | None
    block_size: int
    blocks: int
    in_use: int
    in_transit: int
    mine: int
    deferred: int
    participants: int
    acquires: int
    opens: int
    releases: int
    sends: int
    waits: int
    exhausted: int
    recovered: int
    bytes: int


@dataclass(frozen=True, slots=True)
class SharedParticipant(_Record):
    """One attachment of a process to a :class:`~ctxpool.SharedBlockPool`.

    Attributes
    ----------
    number : int
        By which a block can be sent to it.
    pid : int
        Its process, by the number it has in its own pid namespace.
    alive : bool
        False: it died, and what it held comes back at the next recovery.
    me : bool
        Whether it is this one.
    age_s : float
        Seconds since it attached.
    holds, in_transit : int
        Blocks that it holds, and that travel under its life.
    acquires, opens, releases, sends : int
        As in :class:`SharedPoolStats`.
    """

    number: int
    pid: int
    alive: bool
    me: bool
    age_s: float
    holds: int
    in_transit: int
    acquires: int
    opens: int
    releases: int
    sends: int


@dataclass(frozen=True, slots=True)
class SharedLoan(_Record):
    """A block of a :class:`~ctxpool.SharedBlockPool` that is out.

    Attributes
    ----------
    index, generation : int
        The block, and which of its hand-outs.
    age_s : float
        Seconds since it was taken from the pool.
    holders : tuple of int
        The pids of those who hold it.
    in_transit_of : int or None
        The pid under whose life it travels.
    """

    index: int
    generation: int
    age_s: float
    holders: tuple[int, ...]
    in_transit_of: int | None


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


@dataclass(frozen=True, slots=True)
class SpillStats(_Record):
    """A moment of a :class:`~ctxpool.context.SpillStore`.

    Attributes
    ----------
    path : str
        The file's.
    messages : int
        Messages that it holds.
    bytes : int
        What they take, as JSON in UTF-8.
    max_bytes : int or None
        The most that they may take.
    file_bytes : int
        The size of the file and its journal.
    removed : int
        Messages that ever went to keep to *max_bytes*.
    oldest, newest : float or None
        When the first and the last of them were put; None if there is none.
    """

    path: str
    messages: int
    bytes: int
    max_bytes: int | None
    file_bytes: int
    removed: int
    oldest: float | None
    newest: float | None


@dataclass(frozen=True, slots=True)
class ContextWindowStats(_Record):
    """A moment of a :class:`~ctxpool.ContextWindow`; counts are since its construction.

    Attributes
    ----------
    messages, groups : int
        That the window holds.
    tokens, bytes : int
        Of all of them; bytes are counted in a window with *max_bytes* alone.
    pinned_tokens : int
        Of those that are never dropped.
    budget, limit : int
        Tokens of the window, and without the reserve.
    appended : int
        Messages that were added.
    evictions : int
        How often the window dropped messages.
    evicted, evicted_tokens : int
        Messages that it dropped, and their tokens.
    reductions : int
        How often ``overflow`` made room.
    stable_prefix : int
        Tokens at the front of the prompt that the latest change left as they were: what
        a provider's prompt cache can still serve.
    breaks, broken_tokens : int
        How often a change was not at the end, and how many tokens, of all prompts,
        came after the place: what the cache could no longer serve.
    """

    messages: int
    groups: int
    tokens: int
    bytes: int
    pinned_tokens: int
    budget: int
    limit: int
    appended: int
    evictions: int
    evicted: int
    evicted_tokens: int
    reductions: int
    stable_prefix: int
    breaks: int
    broken_tokens: int


@dataclass(frozen=True, slots=True)
class PrefixBlockStats(_Record):
    """A moment of a :class:`~ctxpool.PrefixBlockManager`; counts are since its
    construction.

    Attributes
    ----------
    num_blocks, block_size : int
        Blocks that there are, and tokens of each.
    used : int
        Blocks that sequences hold, or their taker.
    peak : int
        The most that were used at once.
    cached : int
        Blocks that can be found, used or not.
    sequences : int
        Sequences that were not freed.
    queried_tokens, hit_tokens : int
        Tokens given to ``allocate``, and those of them that were cached.
    evictions : int
        Cached blocks that were taken for something else.
    exhausted : int
        Calls that failed for want of a block.
    events, events_dropped : int
        Events that wait to be drained, and that gave way to newer ones.
    """

    num_blocks: int
    block_size: int
    used: int
    peak: int
    cached: int
    sequences: int
    queried_tokens: int
    hit_tokens: int
    evictions: int
    exhausted: int
    events: int
    events_dropped: int

    @property
    def hit_rate(self) -> float:
        """The share of tokens that were cached, 0 to 1."""
        return _share(self.hit_tokens, self.queried_tokens)

    @property
    def usage(self) -> float:
        """The share of blocks that are used, 0 to 1."""
        return _share(self.used, self.num_blocks)
