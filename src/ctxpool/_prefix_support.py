"""What both twins of PrefixBlockManager share: its records, its keys, its checks."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from .errors import (
    BlockReleasedError,
    PoolExhaustedError,
    TokenRangeError,
    UnknownSequenceError,
)

__all__ = [
    "MOST_BLOCKS",
    "MOST_TOKENS",
    "PRIME",
    "PrefixAllocation",
    "PrefixEvent",
    "PrefixGrowth",
    "block_array",
    "handle_of",
    "key_of",
    "no_memory",
    "no_room",
    "start_of",
    "token_array",
    "unknown",
]

PRIME = (1 << 127) - 1  # of the hash, csrc/include/ctxpool/token_hash.h
MOST_BLOCKS = 1 << 30
MOST_TOKENS = 1 << 20  # of a block

_Array = npt.NDArray[np.int32]
_INT32 = np.iinfo(np.int32)


class PrefixAllocation(NamedTuple):
    """A new sequence: its handle, its blocks, and how many tokens were cached."""

    sequence: int
    blocks: _Array
    cached_tokens: int


class PrefixGrowth(NamedTuple):
    """The new blocks at a sequence's end. The first of them replaces *copied_from* when
    that is not None: the tokens there so far are to be copied."""

    blocks: _Array
    copied_from: int | None


class PrefixEvent(NamedTuple):
    """A change of the cache. ``"stored"``: *block* holds the tokens of *hash*, which
    come after those of *parent*; ``"removed"``: it does no longer; ``"cleared"``: no
    block does, and the rest says nothing."""

    kind: Literal["stored", "removed", "cleared"]
    block: int
    hash: bytes
    parent: bytes


def _number(purpose: bytes, name: str, value: str | bytes) -> int:
    if isinstance(value, str):
        value = str.encode(value, "utf-8", "surrogatepass")
    elif not isinstance(value, bytes):
        raise TypeError(f"{name} must be bytes or str, not {value!r}")
    value = bytes(value)
    # The short ones come again and again; the long ones are not worth keeping.
    return (_digest if len(value) <= 64 else _digest.__wrapped__)(purpose, value)


@lru_cache(256)
def _digest(purpose: bytes, value: bytes) -> int:
    """A number from 1 to PRIME - 1, the bias of which is 2**-128."""
    digest = blake2b(value, digest_size=32, person=purpose).digest()
    return int.from_bytes(digest, "big") % (PRIME - 1) + 1


def key_of(seed: str | bytes) -> int:
    """The key of the polynomials."""
    return _number(b"ctxpool key", "seed", seed)


def start_of(salt: str | bytes) -> int:
    """The hash of no tokens."""
    return _number(b"ctxpool start", "salt", salt)


def unknown(handle: int) -> UnknownSequenceError:
    """What to raise for a handle of no sequence."""
    named = handle if handle.bit_length() < 128 else hex(handle)
    return UnknownSequenceError(f"there is no sequence {named}, or no longer")


def handle_of(sequence: Any) -> int:
    """*sequence* as an int of 63 bits."""
    try:
        handle = operator.index(sequence)
    except TypeError:
        raise TypeError(
            f"a sequence is named by an integer, not {sequence!r}"
        ) from None
    if not 0 <= handle < 1 << 63:
        raise unknown(handle)
    return handle


def token_array(tokens: Any) -> _Array:
    """*tokens* as a contiguous array of int32, without a copy where they are one."""
    return _int32(tokens, "token", TokenRangeError)


def block_array(blocks: Any) -> _Array:
    """Numbers of blocks likewise."""
    return _int32(blocks, "block", BlockReleasedError)


def _int32(values: Any, noun: str, out_of_range: type[Exception]) -> _Array:
    if isinstance(values, np.ndarray):
        values = np.asarray(values)  # of a subclass
    elif not isinstance(values, list | tuple):
        try:
            values = np.asarray(memoryview(values))
        except Exception:  # no buffer, or one that numpy has no dtype for
            if hasattr(type(values), "__array__"):
                values = np.asarray(values)
    if isinstance(values, np.ndarray) and values.dtype.kind != "O":
        if values.ndim == 0:
            raise TypeError(f"{noun}s must be iterable, not an array of no dimension")
        if values.ndim > 1:
            raise ValueError(
                f"{noun}s must have one dimension, not the shape {values.shape}"
            )
        if values.dtype.kind not in "iu":
            raise TypeError(f"{noun}s must be integers, not {values.dtype}")
        if not np.can_cast(values.dtype, np.int32) and values.size:
            for value in (values.min(), values.max()):
                if not _INT32.min <= value <= _INT32.max:
                    raise out_of_range(f"{noun} {value} does not fit int32")
        return np.ascontiguousarray(values, np.int32)
    # A snapshot: __index__ may change the list.
    return np.array(_checked(tuple(values), noun, out_of_range), np.int32)


def _checked(
    values: Iterable[Any], noun: str, out_of_range: type[Exception]
) -> list[int]:
    numbers = []
    for value in values:
        try:
            number = operator.index(value)
        except TypeError:
            raise TypeError(f"a {noun} must be an integer, not {value!r}") from None
        if not _INT32.min <= number <= _INT32.max:
            # Very long ints have no decimal text (sys.set_int_max_str_digits).
            named = number if number.bit_length() < 128 else hex(number)
            raise out_of_range(f"{noun} {named} does not fit int32")
        numbers.append(number)
    return numbers


def no_room(tokens: int, free: int, num_blocks: int) -> PoolExhaustedError:
    """What to raise where too few blocks are free."""
    return PoolExhaustedError(
        f"no room for {tokens} tokens: {free} of {num_blocks} blocks are free"
    )


def no_memory(num_blocks: int, block_size: int, events: int) -> MemoryError:
    """What to raise for a manager that is too large."""
    return MemoryError(
        f"no memory for {num_blocks} blocks of {block_size} tokens and {events} events"
    )
