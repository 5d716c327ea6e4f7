"""What both twins of the shared pool say and do in the same words."""

from __future__ import annotations

import asyncio
import operator
import os
import socket
import struct
import time
from collections.abc import Iterator
from typing import Any, NamedTuple, NoReturn

from .errors import (
    BlockReleasedError,
    PoolExhaustedError,
    PoolTimeoutError,
    SegmentError,
)
from .stats import SharedLoan, SharedParticipant, SharedPoolStats

__all__ = [
    "HEADER",
    "MAX_BLOCKS",
    "PARTICIPANTS",
    "BlockHandle",
    "fields_of",
    "late",
    "loans_of",
    "name_in_bytes",
    "participant_of",
    "participants_of",
    "receive_fd",
    "reducible",
    "refuse",
    "refuse_segment",
    "send_fd",
    "stats_of",
    "text",
    "wait_for_block",
    "wait_in_task",
]

# As in csrc/include/ctxpool/shared_pool.h.
PARTICIPANTS = 32
MAX_BLOCKS = 1 << 24
HEADER = 4096
GENERATIONS = 1 << 26
_FREE = (1 << 38) - 1  # holders and transit
_HANDLE = struct.Struct("<QII?")

FOREIGN, OTHER_VERSION, OTHER_KIND, CORRUPT, FULL = 1, 2, 3, 4, 5
_REASONS = {
    FOREIGN: "holds no shared pool: it is no sealed memory file of ctxpool's",
    OTHER_VERSION: "holds a shared pool of another version of ctxpool",
    OTHER_KIND: (
        "holds a shared pool of the other back end: all participants of one must be "
        "native, or all pure (CTXPOOL_PURE, CTXPOOL_NATIVE)"
    ),
    CORRUPT: "holds a shared pool whose header is damaged",
}

# Seconds a waiter sleeps at once. A wake-up ends it (native); but the dead wake nobody,
# so it looks for them every time.
_SHORTEST, _LONGEST = 0.000_5, 0.05


class BlockHandle(NamedTuple):
    """A block on its way to another process: small, picklable, no memory in it.

    Made by :attr:`SharedBlock.handle` and :meth:`SharedBlock.send`; any queue, pipe or
    socket carries it, pickled or as :meth:`to_bytes`; :meth:`SharedBlockPool.open`
    makes a block of it again.

    Attributes
    ----------
    pool : int
        Which pool: a random number.
    block, generation : int
        Which block, and which of its hand-outs.
    moved : bool
        Whether the block was sent, and is to be opened once.

    Examples
    --------
    >>> handle = BlockHandle(pool=1, block=2, generation=3, moved=True)
    >>> len(handle.to_bytes())
    17
    >>> BlockHandle.from_bytes(handle.to_bytes()) == handle
    True
    """

    pool: int
    block: int
    generation: int
    moved: bool

    def to_bytes(self) -> bytes:
        """The handle in 17 bytes."""
        return _HANDLE.pack(*self)

    @classmethod
    def from_bytes(cls, data: bytes) -> BlockHandle:
        """The handle back.

        Raises
        ------
        ValueError
            *data* has another length.
        """
        if len(data) != _HANDLE.size:
            raise ValueError(f"a handle has {_HANDLE.size} bytes, not {len(data)}")
        return cls(*_HANDLE.unpack(data))


def fields_of(handle: Any, pool_id: int, blocks: int) -> tuple[int, int, bool]:
    """Index, generation and moved of a *handle*, checked: anybody may have made it."""
    if not isinstance(handle, BlockHandle):
        raise TypeError(f"open() takes a BlockHandle, not {handle!r}")
    try:
        pool, index, generation = map(operator.index, handle[:3])
    except (TypeError, ValueError):
        raise TypeError(f"a handle holds whole numbers, not {handle!r}") from None
    if pool != pool_id:
        raise ValueError(f"{handle!r} belongs to another pool than {pool_id}")
    if not 0 <= index < blocks:
        raise ValueError(f"{handle!r} names no block of a pool of {blocks}")
    if not 0 <= generation < GENERATIONS:
        raise ValueError(f"{handle!r} names no generation below {GENERATIONS}")
    return index, generation, bool(handle.moved)


def late(handle: BlockHandle, word: int) -> NoReturn:
    """Say why a handle could not be opened."""
    now = word >> 38
    if now == handle.generation and word & _FREE and handle.moved:
        reason = "it was opened before, and a block that was sent is opened once"
    elif now == handle.generation:
        reason = "whoever held it released it, detached or died"
    else:
        reason = f"its block has gone on to generation {now}"
    raise BlockReleasedError(f"{handle!r} comes too late: {reason}")


def name_in_bytes(name: Any) -> bytes:
    """A pool's name as the segment keeps it."""
    if name is None:
        return b""
    if not isinstance(name, str):
        raise TypeError(f"name must be text or None, not {name!r}")
    data = name.encode()
    if not 0 < len(data) <= 31 or b"\0" in data:
        raise ValueError(f"name must take 1 to 31 bytes of UTF-8, not {name!r}")
    return data


def text(name: bytes) -> str | None:
    """The name back; whatever bytes stand there."""
    return name.split(b"\0")[0].decode(errors="replace") or None


def refuse_segment(reason: int, fd: Any) -> NoReturn:
    """Raise what a refusal to attach means."""
    if reason == FULL:
        raise PoolExhaustedError(
            f"the shared pool has {PARTICIPANTS} living participants: no room for more"
        )
    raise SegmentError(f"file descriptor {fd} {_REASONS[reason]}")


def refuse(pool: Any, patience: float | None = None) -> NoReturn:
    """No block: say so, and who has them."""
    name = "" if pool.name is None else f" {pool.name!r}"
    if patience is not None:
        raise PoolTimeoutError(
            f"no block of the shared pool{name} became free within {patience:g} s; "
            f"{pool.blocks} are out"
        )
    raise PoolExhaustedError(
        f"the shared pool{name} has none of {pool.blocks} blocks free; release some, "
        'make it with more blocks or on_exhausted="wait"; loans() says who has them'
    )


# --- waiting -------------------------------------------------------------------------


def wait_for_block(pool: Any, patience: float) -> Any:
    """Block this thread until there is a block, for *patience* seconds."""
    deadline, tick = time.monotonic() + patience, _SHORTEST
    pool._wait_begin()
    try:
        while True:
            seen = pool._seen()
            block = pool._try_hard()
            if block is not None:
                return block
            left = deadline - time.monotonic()
            if left <= 0:
                pool._count_exhausted()
                refuse(pool, patience)
            pool._wait(seen, min(left, tick))
            tick = min(2 * tick, _LONGEST)
    finally:
        pool._wait_end()


async def wait_in_task(pool: Any, patience: float) -> Any:
    """As :func:`wait_for_block`, of a task: it looks again and again."""
    deadline, tick = time.monotonic() + patience, _SHORTEST
    while True:
        block = pool._try_hard()
        if block is not None:
            return block
        left = deadline - time.monotonic()
        if left <= 0:
            pool._count_exhausted()
            refuse(pool, patience)
        await asyncio.sleep(min(left, tick))
        tick = min(2 * tick, _LONGEST)


# --- on the way to other processes ---------------------------------------------------


def send_fd(sock: Any, fd: int) -> None:
    """Send *fd* over a Unix socket."""
    _check_unix(sock)
    socket.send_fds(sock, [b"ctxpool"], [fd])


def receive_fd(sock: Any) -> int:
    """The file descriptor that comes over a Unix socket; the caller's to close."""
    _check_unix(sock)
    data, fds, _, _ = socket.recv_fds(sock, len(b"ctxpool"), 1)
    if len(fds) != 1:
        raise SegmentError(f"no file descriptor came over the socket, but {data!r}")
    os.set_inheritable(fds[0], False)
    return fds[0]


def _check_unix(sock: Any) -> None:
    if not isinstance(sock, socket.socket):
        raise TypeError(f"a Unix socket is needed, not {sock!r}")
    if sock.family != socket.AF_UNIX:
        raise ValueError(f"a Unix socket is needed, not {sock!r}")


def reducible(pool: Any) -> Any:
    """Of a pool that is pickled: its file descriptor, for the process being started."""
    from multiprocessing import context, reduction

    # At no other time: it would start a thread that serves the file descriptor.
    if context.get_spawning_popen() is None:
        raise TypeError(
            "cannot pickle a SharedBlockPool but to a process that is being started "
            "(an argument of multiprocessing.Process or of a pool's initializer); "
            "use send_fd() and receive() over a Unix socket"
        )
    return reduction.DupFd(pool.fileno())


# --- reports -------------------------------------------------------------------------
#
# Over what the twins read from the segment: per block a word and when it was taken, in
# ns; per slot (pid, incarnation, alive, since_ns, takes, opens, gives, sends, waits,
# exhausted, recovered).

Words = list[tuple[int, int]]
Slots = list[tuple[int, ...]]


def participant_of(slot: int, incarnation: int) -> int:
    """The number of a participant: never given to another of the same pool."""
    return incarnation * PARTICIPANTS + slot


def _slots_in(mask: int) -> Iterator[int]:
    return (slot for slot in range(PARTICIPANTS) if mask >> slot & 1)


def stats_of(
    pool: Any, words: Words, slots: Slots, mine: int, deferred: int
) -> SharedPoolStats:
    in_use = [word for word, _ in words if word & _FREE]
    totals = [sum(slot[field] for slot in slots) for field in range(4, 11)]
    takes, opens, gives, sends, waits, exhausted, recovered = totals
    return SharedPoolStats(
        name=pool.name,
        block_size=pool.block_size,
        blocks=len(words),
        in_use=len(in_use),
        in_transit=sum(1 for word in in_use if word >> 32 & 63),
        mine=mine,
        deferred=deferred,
        participants=sum(1 for slot in slots if slot[2]),
        acquires=takes,
        opens=opens,
        releases=gives,
        sends=sends,
        waits=waits,
        exhausted=exhausted,
        recovered=recovered,
        bytes=pool._segment_bytes(),
    )


def participants_of(
    words: Words, slots: Slots, me: int, now_ns: int
) -> list[SharedParticipant]:
    found = []
    for slot, (pid, incarnation, alive, since_ns, *counts) in enumerate(slots):
        if not pid:
            continue
        takes, opens, gives, sends, *_ = counts
        found.append(
            SharedParticipant(
                number=participant_of(slot, incarnation),
                pid=pid,
                alive=bool(alive),
                me=slot == me,
                age_s=max(now_ns - since_ns, 0) / 1e9,
                holds=sum(1 for word, _ in words if word >> slot & 1),
                in_transit=sum(1 for word, _ in words if word >> 32 & 63 == slot + 1),
                acquires=takes,
                opens=opens,
                releases=gives,
                sends=sends,
            )
        )
    return found


def loans_of(
    words: Words, slots: Slots, now_ns: int, older_than: float
) -> list[SharedLoan]:
    found = []
    for index, (word, since_ns) in enumerate(words):
        age = max(now_ns - since_ns, 0) / 1e9
        if not word & _FREE or age < older_than:
            continue
        keeper = word >> 32 & 63
        found.append(
            SharedLoan(
                index=index,
                generation=word >> 38,
                age_s=age,
                holders=tuple(slots[slot][0] for slot in _slots_in(word)),
                in_transit_of=(
                    slots[keeper - 1][0] if 1 <= keeper <= PARTICIPANTS else None
                ),
            )
        )
    return found
