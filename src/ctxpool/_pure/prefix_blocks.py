"""Blocks of tokens by number, shared by the sequences that begin alike.

The book-keeping of paged attention (Kwon et al. 2023, "Efficient memory management for
large language model serving with PagedAttention") with a cache of full blocks by
chained hashes, as in vLLM's automatic prefix caching. The structure is described in
csrc/include/ctxpool/prefix_blocks.h, the hash in token_hash.h beside it.
"""

from __future__ import annotations

import operator
from collections import OrderedDict, deque
from collections.abc import Iterable
from itertools import islice
from typing import Any, NoReturn, SupportsIndex

import numpy as np
import numpy.typing as npt

from .. import _arguments
from .. import _prefix_support as support
from .._prefix_support import PRIME, PrefixAllocation, PrefixEvent, PrefixGrowth
from ..errors import BlockReleasedError, PoolExhaustedError
from ..stats import PrefixBlockStats
from .locks import new_rlock

__all__ = ["PrefixBlockManager"]

_Array = npt.NDArray[np.int32]


class _Sequence:
    __slots__ = ("blocks", "full", "hash", "tokens")

    def __init__(self, blocks: list[int], tokens: int, full: int, hash_: int) -> None:
        self.blocks = blocks
        self.tokens = tokens
        self.full = full  # the hash of the tokens in full blocks
        self.hash = hash_  # and of all


def _read(tokens: Any) -> list[int]:
    """They as coefficients of the polynomial: 1 to 2**32."""
    words = support.token_array(tokens).view(np.uint32).astype(np.int64) + 1
    return words.tolist()  # type: ignore[no-any-return]


def _bytes(hash_: int) -> bytes:
    return hash_.to_bytes(16, "big")


def _array(blocks: Iterable[int]) -> _Array:
    return np.array(list(blocks), np.int32)


class _Lock:
    """Refuses, instead of waiting for ever, the call that interrupts another one of its
    thread, in a finalizer or signal handler: it would find the tables half changed."""

    __slots__ = ("_busy", "_lock")

    def __init__(self) -> None:
        self._lock = new_rlock()
        self._busy = False

    def __enter__(self) -> None:
        self._lock.acquire()
        if self._busy:
            self._lock.release()
            raise RuntimeError("this call interrupts another one on the same manager")
        self._busy = True

    def __exit__(self, *exc: object) -> None:
        self._busy = False
        self._lock.release()


class PrefixBlockManager:
    """Blocks of tokens by number, shared by the sequences that begin alike.

    Whoever keeps something for each token of a sequence, such as the keys and values of
    a transformer's attention, keeps it in *num_blocks* blocks of *block_size* tokens.
    This is the book-keeping of such blocks: which sequence has which, and which can be
    used again by a sequence that begins with the same tokens. It holds no such data
    itself: blocks are numbers from 0 on.

    Parameters
    ----------
    num_blocks : int
        How many blocks there are: 1 to 2**30.
    block_size : int, optional
        Tokens of a block: 1 to 2**20. Only full blocks are shared through the cache.
    verify : bool, optional
        Keep the tokens of each block, 4 bytes each, and compare them: no collision of
        hashes can make one prompt pass for another. Without it see the notes.
    events : int, optional
        How many events are kept for :meth:`drain_events`; the oldest give way. None by
        default.
    seed : bytes or str, optional
        What the hashes are made with. Managers of the same seed and block size give the
        same tokens the same hashes, in any process.

    Raises
    ------
    TypeError, ValueError
        A parameter is not what is said above.
    MemoryError
        The blocks do not fit in memory.

    Notes
    -----
    *Sequences* are named by handles, plain integers that :meth:`allocate` and
    :meth:`fork` give; a freed handle is not used again. A *token* is an integer of 32
    bits. Wherever tokens are asked for, an int32 array or buffer (a
    :class:`TokenWindow`, too) is read in place, and any other iterable of integers is
    checked and copied first.

    *When a block is cached.* As soon as it is full: whoever allocates promises to
    compute it before anyone reads it, in the order of the calls. :meth:`free` can take
    back what was not computed. A block that becomes full with the same tokens as one
    that is cached stays private. If all of a prompt is cached, an engine that needs the
    last token's output computes that token again.

    *When one is evicted.* A block that no sequence has any longer stays cached until it
    is needed. Blocks that are not cached are taken first, then the least recently used,
    of each sequence its last block first: what remains is a prefix.

    *The hash* of a block is that of all tokens up to its end, a polynomial over the
    field of 2**127 - 1 at a point made from *seed*. If that is a secret, two sequences
    of up to n tokens collide with a chance of at most n / 2**126, among m of them there
    is a collision with one of m**2 * n / 2**127; with ``verify=True`` a collision only
    means that one of the two is not cached. Who knows the seed can make collisions: for
    prompts of strangers keep *verify*, and take a secret *seed*.

    *Cost.* :meth:`lookup`, :meth:`touch`, :meth:`allocate` and :meth:`append` are
    O(tokens), natively about 2 ns a token; :meth:`fork`, :meth:`free`, :meth:`acquire`
    and :meth:`release` are O(blocks). All memory but the sequences' lists of blocks is
    taken and touched at construction: natively about 50 bytes a block. No object of
    Python's exists per block, so that the garbage collector has nothing to walk.

    **Thread-safety.** Each call is atomic; whatever Python code the tokens bring with
    them runs before it. A finalizer or a signal handler may use the manager in the
    middle of any call on it; the pure one refuses that with RuntimeError. A forked
    child has a manager of its own: on builds without the GIL an empty one, if another
    thread was inside a call at that moment.

    Examples
    --------
    >>> manager = PrefixBlockManager(num_blocks=8, block_size=4)
    >>> first = manager.allocate(range(10))
    >>> first.blocks, first.cached_tokens
    (array([0, 1, 2], dtype=int32), 0)
    >>> second = manager.allocate([*range(8), 99, 98])
    >>> second.blocks, second.cached_tokens
    (array([0, 1, 3], dtype=int32), 8)
    >>> manager.append(second.sequence, [97, 96, 95]).blocks
    array([4], dtype=int32)
    >>> manager.free(first.sequence)
    >>> manager.lookup(range(100))
    8
    """

    __slots__ = (
        "__weakref__",
        "_block_size",
        "_descending",
        "_events",
        "_events_dropped",
        "_evictions",
        "_exhausted",
        "_free",
        "_free_slots",
        "_generations",
        "_hashes",
        "_hit_tokens",
        "_lock",
        "_loose",
        "_num_blocks",
        "_peak",
        "_powers",
        "_queried_tokens",
        "_refs",
        "_room",
        "_sequences",
        "_table",
        "_tokens",
        "_verify",
    )

    def __init__(
        self,
        num_blocks: SupportsIndex,
        block_size: SupportsIndex = 16,
        *,
        verify: bool = True,
        events: SupportsIndex = 0,
        seed: str | bytes = b"",
    ) -> None:
        n = _arguments.count("num_blocks", num_blocks, 1, support.MOST_BLOCKS)
        size = _arguments.count("block_size", block_size, 1, support.MOST_TOKENS)
        room = _arguments.count("events", events, 0, 2**62)
        key = support.key_of(seed)
        verify = bool(verify)
        try:
            # Of the native one's tokens, at least: what can't be there is not begun.
            bytearray(0 if not verify else n * size)
            bytearray(room)
            refs, hashes = [0] * n, [-1] * n
        except (MemoryError, OverflowError):
            raise support.no_memory(n, size, room) from None
        if hasattr(self, "_lock"):
            raise RuntimeError("PrefixBlockManager.__init__ was called before")
        self._num_blocks, self._block_size = n, size
        self._verify, self._room = verify, room
        self._refs, self._loose = refs, bytearray(n)
        self._hashes = hashes  # -1: not cached
        self._tokens: list[list[int]] = [[]] * n
        self._table: dict[int, int] = {}
        self._free = OrderedDict.fromkeys(range(n))
        self._powers = [1]
        for _ in range(size):
            self._powers.append(self._powers[-1] * key % PRIME)
        self._descending = self._powers[-2::-1]
        self._sequences: dict[int, _Sequence] = {}
        self._free_slots: list[int] = []
        self._generations: list[int] = []
        self._events: deque[tuple[Any, ...]] = deque(maxlen=room)
        self._peak = self._queried_tokens = self._hit_tokens = 0
        self._evictions = self._exhausted = self._events_dropped = 0
        self._lock = _Lock()

    # ---- what it is ----

    @property
    def num_blocks(self) -> int:
        """How many blocks there are."""
        return self._num_blocks

    @property
    def block_size(self) -> int:
        """Tokens of a block."""
        return self._block_size

    @property
    def verify(self) -> bool:
        """Whether tokens are compared, beside their hashes."""
        return self._verify

    @property
    def available(self) -> int:
        """Blocks that no sequence has, cached or not."""
        return len(self._free)

    def stats(self) -> PrefixBlockStats:
        """The counts at this moment."""
        with self._lock:
            return PrefixBlockStats(
                num_blocks=self._num_blocks,
                block_size=self._block_size,
                used=self._num_blocks - len(self._free),
                peak=self._peak,
                cached=len(self._table),
                sequences=len(self._sequences),
                queried_tokens=self._queried_tokens,
                hit_tokens=self._hit_tokens,
                evictions=self._evictions,
                exhausted=self._exhausted,
                events=len(self._events),
                events_dropped=self._events_dropped,
            )

    def __repr__(self) -> str:
        now = self.stats()
        return (
            f"<{type(self).__name__} num_blocks={now.num_blocks}, "
            f"block_size={now.block_size}, used={now.used}, cached={now.cached}>"
        )

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "cannot pickle a PrefixBlockManager: its blocks are good in this process "
            "only"
        )

    # ---- finding ----

    def lookup(self, tokens: Any, /, *, salt: str | bytes = b"") -> int:
        """How many of *tokens*, from the first on, are in cached blocks; O(tokens).

        Nothing changes by it, neither the order of eviction nor the counts.

        Parameters
        ----------
        tokens : iterable of int
            What :meth:`allocate` takes.
        salt : bytes or str, optional
            What tells apart those who may not share blocks: a tenant, an adapter, the
            images that tokens stand for.

        Returns
        -------
        int
            Tokens: a multiple of the block size.
        """
        words, hash_ = _read(tokens), support.start_of(salt)
        with self._lock:
            return len(self._cached(hash_, words)[0]) * self._block_size

    def touch(self, tokens: Any, /, *, salt: str | bytes = b"") -> int:
        """The same, and the blocks are evicted last from now on; O(tokens).

        What keeps a system prompt cached that is rarely used.
        """
        words, hash_ = _read(tokens), support.start_of(salt)
        with self._lock:
            found, _ = self._cached(hash_, words)
            for block in reversed(found):
                if block in self._free:
                    self._free.move_to_end(block)
            return len(found) * self._block_size

    def hashes(self, tokens: Any, /, *, salt: str | bytes = b"") -> list[bytes]:
        """The hashes of the full blocks of *tokens*, 16 bytes each; O(tokens).

        Those that events name: who collects them knows what another manager, of the
        same seed and block size, has cached.

        Examples
        --------
        >>> manager = PrefixBlockManager(8, 4, events=100)
        >>> _ = manager.allocate(range(10))
        >>> stored = {event.hash for event in manager.drain_events()}
        >>> [hash in stored for hash in manager.hashes(range(14))]
        [True, True, False]
        """
        words, hash_ = _read(tokens), support.start_of(salt)
        size, found = self._block_size, []
        for at in range(0, len(words) - size + 1, size):
            hash_ = self._extended(hash_, words[at : at + size])
            found.append(_bytes(hash_))
        return found

    # ---- sequences ----

    def allocate(self, tokens: Any, /, *, salt: str | bytes = b"") -> PrefixAllocation:
        """A sequence that begins with *tokens*; O(tokens).

        Parameters
        ----------
        tokens : iterable of int
            The prompt.
        salt : bytes or str, optional
            As for :meth:`lookup`.

        Returns
        -------
        PrefixAllocation
            ``sequence``, the handle; ``blocks``, its blocks as an array of int32, one
            for each *block_size* tokens begun; and ``cached_tokens``, how many of the
            tokens, from the first on, were cached: their blocks are computed already.

        Raises
        ------
        PoolExhaustedError
            Too few blocks are free; nothing is changed.
        TokenRangeError
            A token does not fit 32 bits.
        TypeError
            A token is no integer, or the *salt* is neither bytes nor str.
        ValueError
            An array of tokens has more than one dimension.
        MemoryError
            No memory for the list of blocks.
        """
        words, hash_ = _read(tokens), support.start_of(salt)
        size, wanted = self._block_size, -(-len(words) // self._block_size)
        with self._lock:
            free = len(self._free)
            found, hash_ = self._cached(hash_, words)
            idle = sum(block in self._free for block in found)
            if wanted - len(found) <= free - idle:
                for block in found:
                    self._ref(block)
                cached = len(found) * size
                made = _Sequence(found, cached, hash_, hash_)
                handle = self._begin(made)
                self._grow(made, words[cached:])
                self._queried_tokens += len(words)
                self._hit_tokens += cached
                return PrefixAllocation(handle, _array(found), cached)
            self._exhausted += 1
        raise self._no_room(len(words), free)

    def append(self, sequence: SupportsIndex, tokens: Any, /) -> PrefixGrowth:
        """Add *tokens* to a sequence; O(tokens).

        Returns
        -------
        PrefixGrowth
            ``blocks``, the new ones at the sequence's end, as an array of int32; and
            ``copied_from``: None, or the block in which the sequence shared its last
            tokens with another one. Then the first of the new ones replaces it, and
            what is kept for these tokens is to be copied there.

        Raises
        ------
        PoolExhaustedError, TokenRangeError, TypeError, ValueError, MemoryError
            As :meth:`allocate`; nothing is changed.
        UnknownSequenceError
            There is no such sequence.

        Examples
        --------
        >>> manager = PrefixBlockManager(8, 4)
        >>> sequence = manager.allocate([1, 2, 3, 4, 5]).sequence
        >>> other = manager.fork(sequence)
        >>> manager.append(other, [6])
        PrefixGrowth(blocks=array([2], dtype=int32), copied_from=1)
        >>> manager.append(sequence, [7])
        PrefixGrowth(blocks=array([], dtype=int32), copied_from=None)
        """
        handle = support.handle_of(sequence)
        words = _read(tokens)
        with self._lock:
            found = self._find(handle)
            filled, free = found.tokens % self._block_size, len(self._free)
            copied_from = None
            if words and filled and self._refs[found.blocks[-1]] > 1:
                copied_from = found.blocks[-1]
            beyond = max(filled + len(words) - self._block_size, 0) if filled else None
            wanted = -(-(len(words) if beyond is None else beyond) // self._block_size)
            wanted += copied_from is not None
            if wanted <= free:
                if copied_from is not None:
                    found.blocks[-1] = own = self._take()
                    self._tokens[own] = self._tokens[copied_from][:]
                    self._unref(copied_from)
                self._grow(found, words)
                fresh = _array(found.blocks[len(found.blocks) - wanted :])
                return PrefixGrowth(fresh, copied_from)
            self._exhausted += 1
        raise self._no_room(len(words), free)

    def fork(self, sequence: SupportsIndex, /) -> int:
        """Another sequence of the same blocks, which then grow apart; O(blocks).

        Also the last block is shared, though it may not be full: the first of the two
        to grow in it copies it (see :meth:`append`).

        Returns
        -------
        int
            The handle of the new sequence.

        Raises
        ------
        UnknownSequenceError
            There is no such sequence.
        MemoryError
            No memory for the list of blocks.
        """
        handle = support.handle_of(sequence)
        with self._lock:
            old = self._find(handle)
            for block in old.blocks:
                self._ref(block)
            new = _Sequence(list(old.blocks), old.tokens, old.full, old.hash)
            return self._begin(new)

    def free(
        self, sequence: SupportsIndex, /, *, computed: SupportsIndex | None = None
    ) -> None:
        """End a sequence; O(blocks). What nobody else has of it stays cached.

        Parameters
        ----------
        sequence : int
            Its handle.
        computed : int, optional
            How many of its tokens were computed, if not all: blocks that hold others
            can be found no more, whoever else has them.

        Raises
        ------
        UnknownSequenceError
            There is no such sequence, or no longer.
        """
        handle = support.handle_of(sequence)
        good = self._num_blocks
        if computed is not None:
            tokens = _arguments.count("computed", computed, 0, 2**62)
            good = tokens // self._block_size
        with self._lock:
            found = self._find(handle)
            for i, block in reversed([*enumerate(found.blocks)]):
                if i >= good and self._hashes[block] >= 0:
                    self._uncache(block)
                self._unref(block)
            del self._sequences[handle]
            slot = handle & 0xFFFFFFFF
            self._generations[slot] = (self._generations[slot] + 1) & 0x7FFFFFFF
            self._free_slots.append(slot)

    def blocks(self, sequence: SupportsIndex, /) -> _Array:
        """The blocks of a sequence, in order, as an array of int32; O(blocks).

        Raises
        ------
        UnknownSequenceError
            There is no such sequence.
        """
        handle = support.handle_of(sequence)
        with self._lock:
            return _array(self._find(handle).blocks)

    def length(self, sequence: SupportsIndex, /) -> int:
        """How many tokens a sequence has; O(1).

        Raises
        ------
        UnknownSequenceError
            There is no such sequence.
        """
        handle = support.handle_of(sequence)
        with self._lock:
            return self._find(handle).tokens

    # ---- blocks by number ----

    def acquire(self, n: SupportsIndex, /) -> _Array:
        """*n* blocks for whatever the caller has in mind, as an array of int32; O(n).

        They belong to no sequence, and are never cached.

        Raises
        ------
        PoolExhaustedError
            Fewer are free; nothing is changed.
        """
        wanted = _arguments.count("n", n, 0, support.MOST_BLOCKS)
        with self._lock:
            free = len(self._free)
            if wanted <= free:
                taken = [self._take() for _ in range(wanted)]
                for block in taken:
                    self._loose[block] = 1
                self._count_peak()
                return _array(taken)
            self._exhausted += 1
        raise PoolExhaustedError(f"{wanted} blocks are not free: {free} are")

    def release(self, blocks: Any, /) -> None:
        """Give back blocks that :meth:`acquire` gave, in any order; O(blocks).

        Raises
        ------
        BlockReleasedError
            One of them is not out, or is there twice; nothing is changed.
        TypeError, ValueError
            They are no integers, or in more than one dimension.
        """
        given = support.block_array(blocks).tolist()
        with self._lock:
            seen = set[int]()
            for block in given:
                good = 0 <= block < self._num_blocks and self._loose[block]
                if block in seen or not good:
                    bad = block
                    break
                seen.add(block)
            else:
                for block in reversed(given):
                    self._loose[block] = 0
                    self._unref(block)
                return
        raise BlockReleasedError(f"block {bad} is not out, or given back twice")

    # ---- the cache as a whole ----

    def reset_prefix_cache(self) -> int:
        """Let no block be found any more, used or not; O(num_blocks).

        For when what the blocks hold is void, because the model's weights changed, say.
        Sequences keep their blocks.

        Returns
        -------
        int
            How many blocks were cached.
        """
        with self._lock:
            were = len(self._table)
            self._table.clear()
            self._hashes = [-1] * self._num_blocks
            self._tell("cleared", 0, 0, 0)
            return were

    def drain_events(self) -> list[PrefixEvent]:
        """What happened to the cache since the last call, oldest first; O(events).

        At most as many as the parameter *events* said: if ``stats().events_dropped``
        has grown, the oldest are missing, and whoever follows the cache by its events
        begins anew, after :meth:`reset_prefix_cache`.

        Returns
        -------
        list of PrefixEvent
            ``kind``, ``"stored"``, ``"removed"`` or ``"cleared"``; ``block``, ``hash``,
            and, of a stored one, ``parent``: the hash before it.
        """
        with self._lock:
            drained = [*self._events]
            self._events.clear()
        return [
            PrefixEvent(kind, block, _bytes(hash_), _bytes(parent))
            for kind, block, hash_, parent in drained
        ]

    # ---- inner parts, under the lock ----

    def _extended(self, hash_: int, words: list[int]) -> int:
        powers = islice(self._descending, self._block_size - len(words), None)
        added = sum(map(operator.mul, words, powers))
        after: int = (hash_ * self._powers[len(words)] + added) % PRIME
        return after

    def _cached(self, hash_: int, words: list[int]) -> tuple[list[int], int]:
        """The cached blocks from the first on, and the hash of their tokens."""
        size, found = self._block_size, list[int]()
        for at in range(0, len(words) - size + 1, size):
            part = words[at : at + size]
            after = self._extended(hash_, part)
            block = self._table.get(after)
            if block is None or (self._verify and self._tokens[block] != part):
                break
            found.append(block)
            hash_ = after
        return found, hash_

    def _cache(self, block: int, hash_: int, parent: int) -> None:
        if hash_ in self._table:
            return
        self._table[hash_] = block
        self._hashes[block] = hash_
        self._tell("stored", block, hash_, parent)

    def _uncache(self, block: int) -> None:
        hash_, self._hashes[block] = self._hashes[block], -1
        del self._table[hash_]
        self._tell("removed", block, hash_, 0)

    def _tell(self, kind: str, block: int, hash_: int, parent: int) -> None:
        if self._room:
            self._events_dropped += len(self._events) == self._room
            self._events.append((kind, block, hash_, parent))

    def _ref(self, block: int) -> None:
        if not self._refs[block]:
            del self._free[block]
        self._refs[block] += 1

    def _unref(self, block: int) -> None:
        self._refs[block] -= 1
        if not self._refs[block]:
            self._free[block] = None
            if self._hashes[block] < 0:
                self._free.move_to_end(block, last=False)

    def _take(self) -> int:
        block: int = next(iter(self._free))
        if self._hashes[block] >= 0:
            self._uncache(block)
            self._evictions += 1
        self._tokens[block] = []
        self._ref(block)
        return block

    def _count_peak(self) -> None:
        self._peak = max(self._peak, self._num_blocks - len(self._free))

    def _grow(self, sequence: _Sequence, words: list[int]) -> None:
        """Append, where enough is free and the last block is the sequence's own."""
        size, at = self._block_size, 0
        while at < len(words):
            filled = sequence.tokens % size
            part = words[at : at + size - filled]
            at += len(part)
            if not filled:
                sequence.blocks.append(self._take())
            block = sequence.blocks[-1]
            if self._verify:
                self._tokens[block] += part
            sequence.hash = self._extended(sequence.hash, part)
            sequence.tokens += len(part)
            if filled + len(part) == size:
                self._cache(block, sequence.hash, sequence.full)
                sequence.full = sequence.hash
        self._count_peak()

    def _begin(self, sequence: _Sequence) -> int:
        if not self._free_slots:
            self._free_slots.append(len(self._generations))
            self._generations.append(0)
        slot = self._free_slots.pop()
        handle = self._generations[slot] << 32 | slot
        self._sequences[handle] = sequence
        return handle

    def _find(self, handle: int) -> _Sequence:
        try:
            return self._sequences[handle]
        except KeyError:
            raise support.unknown(handle) from None

    def _no_room(self, tokens: int, free: int) -> PoolExhaustedError:
        return support.no_room(tokens, free, self._num_blocks)

    def _check(self) -> int:
        """0; raises where an invariant does not hold; for tests."""
        with self._lock:
            refs = [int(loose) for loose in self._loose]
            for sequence in self._sequences.values():
                whole = -(-sequence.tokens // self._block_size)
                assert len(sequence.blocks) == whole
                for block in sequence.blocks:
                    refs[block] += 1
            assert refs == self._refs
            assert {b for b, n in enumerate(refs) if not n} == set(self._free)
            cached = {h: b for b, h in enumerate(self._hashes) if h >= 0}
            assert cached == self._table
        return 0
