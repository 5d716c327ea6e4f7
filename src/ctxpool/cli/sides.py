"""The same work twice: with ctxpool, and the way it is written without it.

Each class does one chunk at a time: ``read`` takes a buffer and fills it, ``digest``
names the chunk by its content, ``tokens`` gets its tokens from the cache or the
tokenizer, ``step`` adds some of them to the window and looks at it, ``finish``
gives the oldest buffer back. The clock is read inside the methods, around what
differs and nothing else; samples are stored outside the timed sections.
"""

from abc import ABC, abstractmethod
from collections import OrderedDict, deque
from collections.abc import Callable
from functools import partial
from hashlib import blake2b
from io import FileIO
from itertools import islice
from time import perf_counter_ns as now
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .. import BlockPool, LRUCache, TokenWindow
from .latency import Recorder
from .settings import Settings
from .tokenizers import Tokenizer

__all__ = ["OPERATIONS", "Pooled", "Side", "Tokens", "Unpooled", "make"]

Tokens: TypeAlias = "list[int] | NDArray[np.int32]"
View: TypeAlias = "NDArray[np.integer[Any]]"

# name: (what the table calls it, is it the same code on both sides?)
OPERATIONS = {
    "buffer": ("buffer: take, give back", False),
    "read": ("read the file into it", False),
    "digest": ("digest of the chunk", True),
    "cache_hit": ("cache: hit", False),
    "cache_miss": ("cache: miss, insert", False),
    "tokenize": ("tokenize the chunk", True),
    "window_extend": ("window: extend", False),
    "window_view": ("window: all, as array", False),
    "window_last": ("window: last n, as array", False),
    "window_step": ("window: these three", False),
    "chunk": ("whole chunk, all of this", False),
}


class Side(ABC):
    """What both sides share: the record, the tokenizer, the chunk at hand."""

    name: str

    def __init__(self, settings: Settings, tokenizer: Tokenizer) -> None:
        self.settings = settings
        self.record = {name: Recorder() for name in OPERATIONS}
        self.hits = self.misses = 0
        self._tokenizer = tokenizer
        self._data = memoryview(b"")
        self._buffer_ns = self._chunk_ns = 0

    def digest(self) -> bytes:
        start = now()
        digest = blake2b(self._data, digest_size=16).digest()
        self._add("digest", now() - start)
        return digest

    def _encode(self) -> Tokens:
        """Called inside a timed section."""
        ids = self._tokenizer.encode(self._data)
        if self.settings.tokens == "array":
            return np.fromiter(ids, np.int32, len(ids))
        return ids

    def _add(self, operation: str, ns: int) -> None:
        self.record[operation].add(ns)
        self._chunk_ns += ns

    def _add_step(self, extend: int, view: int, last: int) -> None:
        self._add("window_extend", extend)
        self._add("window_view", view)
        self._add("window_last", last)
        self.record["window_step"].add(extend + view + last)

    def _end_chunk(self) -> None:
        self._add("buffer", self._buffer_ns)
        self.record["chunk"].add(self._chunk_ns)
        self._chunk_ns = 0

    @property
    def total_ns(self) -> int:
        """All time that this side took, in nanoseconds."""
        return self.record["chunk"].total

    # What the two sides do in their own way.

    @abstractmethod
    def read(self, file: FileIO) -> int:
        """Take a buffer, fill it from *file*; return the bytes read."""

    @abstractmethod
    def drop(self) -> None:
        """Give back the buffer of the last ``read`` and forget the chunk."""

    @abstractmethod
    def tokens(self, digest: bytes) -> Tokens:
        """The chunk's tokens, from the cache or the tokenizer."""

    @abstractmethod
    def step(self, tokens: Tokens) -> tuple[View, View]:
        """Add *tokens* to the window; return all of it, and its last n."""

    @abstractmethod
    def finish(self) -> None:
        """End the chunk: give back the oldest buffer in flight."""

    def stats(self) -> dict[str, Any]:
        """What the side's own objects count."""
        return {}


def _fill(file: FileIO, view: memoryview) -> int:
    """Read until *view* is full or the file ends."""
    size = 0
    while size < len(view) and (more := file.readinto(view[size:])):
        size += more
    return size


class Pooled(Side):
    """``BlockPool``, ``TokenWindow``, ``LRUCache``."""

    name = "pooled"

    def __init__(self, settings: Settings, tokenizer: Tokenizer) -> None:
        super().__init__(settings, tokenizer)
        self.pool = BlockPool(settings.block_size, settings.blocks, name="run")
        self.window = TokenWindow(settings.window)
        self.cache: LRUCache[bytes, Tokens] = LRUCache(settings.cache)
        self._held: deque[Any] = deque()

    def read(self, file: FileIO) -> int:
        start = now()
        block = self.pool.acquire()
        view = block.view
        taken = now()
        self._held.append(block)
        filling = now()
        size = _fill(file, view)
        filled = now()
        self._data = view[:size]
        self._buffer_ns = taken - start
        if size:
            self._add("read", filled - filling)
        return size

    def drop(self) -> None:
        self._data = memoryview(b"")
        self._held.pop().release()
        self._chunk_ns = 0

    def tokens(self, digest: bytes) -> Tokens:
        cache = self.cache
        start = now()
        tokens: Tokens | None = cache.get(digest)
        end = now()
        if tokens is not None:
            self._add("cache_hit", end - start)
            self.hits += 1
            return tokens
        encoding = now()
        tokens = self._encode()
        encoded = now()
        cache[digest] = tokens
        stored = now()
        self._add("tokenize", encoded - encoding)
        self._add("cache_miss", end - start + stored - encoded)
        self.misses += 1
        return tokens

    def step(self, tokens: Tokens) -> tuple[View, View]:
        window, n = self.window, self.settings.last
        start = now()
        window.extend(tokens)
        extended = now()
        view = window.view()
        viewed = now()
        last = window.last(n)
        end = now()
        self._add_step(extended - start, viewed - extended, end - viewed)
        return view, last

    def finish(self) -> None:
        self._data = memoryview(b"")
        if len(self._held) >= self.settings.in_flight:
            block = self._held.popleft()
            start = now()
            block.release()
            del block
            self._buffer_ns += now() - start
        self._end_chunk()

    def stats(self) -> dict[str, Any]:
        return {
            "block_pool": self.pool.stats().as_dict(),
            "token_window": self.window.stats().as_dict(),
            "lru_cache": self.cache.stats().as_dict(),
        }


class _DequeWindow:
    """The last tokens in a ``deque(maxlen=...)``, made an array when asked."""

    def __init__(self, capacity: int) -> None:
        self._tokens: deque[int] = deque(maxlen=capacity)

    def extend(self, tokens: Tokens) -> None:
        # A deque takes an array one numpy scalar at a time, three times slower.
        self._tokens.extend(tokens if isinstance(tokens, list) else tokens.tolist())

    def view(self) -> View:
        return np.fromiter(self._tokens, np.int32, len(self._tokens))

    def last(self, n: int) -> View:
        tokens = self._tokens
        n = min(n, len(tokens))
        return np.fromiter(islice(reversed(tokens), n), np.int32, n)[::-1]


class _ConcatenateWindow:
    """The last tokens in an array that is made anew by each extend."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._tokens = np.empty(0, np.int32)

    def extend(self, tokens: Tokens) -> None:
        new = np.asarray(tokens, np.int32)[-self._capacity :]
        keep = self._capacity - len(new)
        old = self._tokens[max(len(self._tokens) - keep, 0) :]
        self._tokens = np.concatenate([old, new])

    def view(self) -> View:
        return self._tokens

    def last(self, n: int) -> View:
        return self._tokens[-n:]


class Unpooled(Side):
    """A fresh buffer for each read, a ``deque``, an ``OrderedDict``."""

    name = "unpooled"

    def __init__(self, settings: Settings, tokenizer: Tokenizer) -> None:
        super().__init__(settings, tokenizer)
        self._allocate: Callable[[int], Any] = (
            bytearray
            if settings.unpooled_buffer == "bytearray"
            else partial(np.empty, dtype=np.uint8)
        )
        self.window = (
            _DequeWindow(settings.window)
            if settings.unpooled_window == "deque"
            else _ConcatenateWindow(settings.window)
        )
        self.cache: OrderedDict[bytes, Tokens] = OrderedDict()
        self._held: deque[Any] = deque()

    def read(self, file: FileIO) -> int:
        size = self.settings.block_size
        start = now()
        buffer = self._allocate(size)
        view = memoryview(buffer)
        taken = now()
        self._held.append(buffer)
        filling = now()
        size = _fill(file, view)
        filled = now()
        self._data = view[:size]
        self._buffer_ns = taken - start
        if size:
            self._add("read", filled - filling)
        return size

    def drop(self) -> None:
        self._data = memoryview(b"")
        self._held.pop()
        self._chunk_ns = 0

    def tokens(self, digest: bytes) -> Tokens:
        cache, maxsize = self.cache, self.settings.cache
        start = now()
        tokens = cache.get(digest)
        if tokens is not None:
            cache.move_to_end(digest)
        end = now()
        if tokens is not None:
            self._add("cache_hit", end - start)
            self.hits += 1
            return tokens
        encoding = now()
        tokens = self._encode()
        encoded = now()
        cache[digest] = tokens
        if len(cache) > maxsize:
            cache.popitem(last=False)
        stored = now()
        self._add("tokenize", encoded - encoding)
        self._add("cache_miss", end - start + stored - encoded)
        self.misses += 1
        return tokens

    def step(self, tokens: Tokens) -> tuple[View, View]:
        window, n = self.window, self.settings.last
        start = now()
        window.extend(tokens)
        extended = now()
        view = window.view()
        viewed = now()
        last = window.last(n)
        end = now()
        self._add_step(extended - start, viewed - extended, end - viewed)
        return view, last

    def finish(self) -> None:
        self._data = memoryview(b"")
        if len(self._held) >= self.settings.in_flight:
            buffer = self._held.popleft()
            start = now()
            del buffer
            self._buffer_ns += now() - start
        self._end_chunk()


def make(name: str, settings: Settings, tokenizer: Tokenizer) -> Side:
    """The side of that name."""
    return {"pooled": Pooled, "unpooled": Unpooled}[name](settings, tokenizer)
