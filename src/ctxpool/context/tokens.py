"""How many tokens a text has."""

import importlib
import operator
import re
import sys
from collections.abc import Sequence
from typing import Any, Protocol, SupportsIndex, cast, runtime_checkable
from zlib import crc32

from .. import LRUCache, LRUCacheStats, parse_size

__all__ = [
    "BytePairTokenizer",
    "HeuristicTokenizer",
    "TiktokenTokenizer",
    "TokenCounter",
    "Tokenizer",
    "load_tokenizer",
]


@runtime_checkable
class Tokenizer(Protocol):
    """Turns text into token ids. Any object with these two methods is one."""

    def encode(self, text: str) -> Sequence[int]:
        """The token ids of *text*, the same every time."""

    def count(self, text: str) -> int:
        """How many tokens *text* has, ``len(encode(text))``."""


# The pieces that byte-pair encoders cut a text into before they merge, made shorter
# where their merges usually end. The quantifiers were fitted to o200k_base. No part may
# look further than a bounded way ahead in vain: a text of blanks alone is linear too.
_PIECE = re.compile(
    r"""[^\S\r\n]?(?:[A-Z]?[a-z]{1,10}[\u00e0-\u024f\u1e01-\u1eff]?|[A-Z]{1,4})
      | [0-9]{1,3}
      | [^\S\r\n]{0,99}[\r\n]+
      | [^\S\r\n]+(?!\S)
      | [ ]?([-=*_~\#.+/])\1{1,31}
      | [ ]?[!-/:-@\[-`{-~]{1,3}\n*
      | [\u00c0-\u024f\u1e00-\u1eff][a-z]{0,2}
      | [ ]?[\u0370-\u04ff]{1,4}            # Greek, Cyrillic
      | [ ]?[\u0530-\u0eff]{1,3}  # Armenian, Hebrew, Arabic, those of India, Thai
      | [\u4e00-\u9fff][\u4e00-\u6200]?  # about half of the characters are low ones
      | [\u3040-\u30ff]{1,2}      # Kana
      | [\uac00-\ud7a3]{1,2}
      | .""",
    re.VERBOSE | re.DOTALL,
)


class HeuristicTokenizer:
    """Counts much as o200k_base does, with nothing to install or to load.

    Within 10 % of it on English, source code, JSON and logs, within 25 % on other
    languages, where a quarter of the length is up to 70 % off. Older vocabularies cut
    what is not English into more tokens than o200k_base: leave room, or take theirs
    (:func:`load_tokenizer`).

    Notes
    -----
    O(n), about 15 MB/s. An id is a checksum of its piece: equal pieces have equal ids,
    in any process, and there is no way back to the text.

    **Thread-safety**: it has no state.

    Examples
    --------
    >>> HeuristicTokenizer().count("A window of 4,096 tokens.")
    9
    """

    name = "heuristic"

    def encode(self, text: str) -> list[int]:
        """The token ids of *text*, each in 0 to 2**31 - 1."""
        pieces = (match[0] for match in _PIECE.finditer(text))
        return [
            crc32(piece.encode("utf-8", "surrogatepass")) & 0x7FFFFFFF
            for piece in pieces
        ]

    def count(self, text: str) -> int:
        """How many tokens *text* has, about."""
        return len(_PIECE.findall(text))


def _encodable(text: str) -> str:
    """*text* with U+FFFD for what UTF-8 has no bytes for: lone surrogates."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class BytePairTokenizer:
    """A byte-pair vocabulary that comes with the package ``rs-bpe``: works offline.

    Parameters
    ----------
    name : {"o200k_base", "cl100k_base"}

    Raises
    ------
    ModuleNotFoundError
        The extra ``bpe`` is not installed.

    Notes
    -----
    Lone surrogates count as U+FFFD. **Thread-safety**: it has no state of its own.
    """

    NAMES = ("o200k_base", "cl100k_base")

    def __init__(self, name: str = "o200k_base") -> None:
        if name not in self.NAMES:
            listed = ", ".join(map(repr, self.NAMES))
            raise ValueError(f"name must be one of {listed}, not {name!r}")
        try:
            # A submodule of the extension, in sys.modules only after its parent.
            openai: Any = importlib.import_module("rs_bpe").openai
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"the tokenizer {name!r} needs the package rs-bpe: "
                f'pip install "ctxpool[bpe]"',
                name="rs_bpe",
            ) from error
        self.name = name
        self._tokenizer: Any = getattr(openai, name)()

    def __reduce__(self) -> tuple[type, tuple[str]]:
        return type(self), (self.name,)

    def encode(self, text: str) -> list[int]:
        """The token ids of *text*."""
        try:
            return cast("list[int]", self._tokenizer.encode(text))
        except UnicodeEncodeError:
            return cast("list[int]", self._tokenizer.encode(_encodable(text)))

    def count(self, text: str) -> int:
        """How many tokens *text* has."""
        try:
            return cast("int", self._tokenizer.count(text))
        except UnicodeEncodeError:
            return cast("int", self._tokenizer.count(_encodable(text)))


class TiktokenTokenizer:
    """An encoding of tiktoken. The names of special tokens are text like any other.

    Parameters
    ----------
    encoding : str or tiktoken.Encoding
        By name it is whatever ``tiktoken.get_encoding`` finds: in the folder that the
        variable ``TIKTOKEN_CACHE_DIR`` names, or else on the network.

    Raises
    ------
    ModuleNotFoundError
        The extra ``tiktoken`` is not installed.

    Notes
    -----
    **Thread-safety**: it has no state of its own.
    """

    def __init__(self, encoding: Any) -> None:
        if isinstance(encoding, str):
            try:
                tiktoken: Any = importlib.import_module("tiktoken")
            except ModuleNotFoundError as error:
                raise ModuleNotFoundError(
                    f"the encoding {encoding!r} needs the package tiktoken: "
                    f'pip install "ctxpool[tiktoken]"',
                    name="tiktoken",
                ) from error
            encoding = tiktoken.get_encoding(encoding)
        if not callable(getattr(encoding, "encode_ordinary", None)):
            raise TypeError(f"an encoding of tiktoken is needed, not {encoding!r}")
        self.name = f"tiktoken:{encoding.name}"
        self._encoding = encoding

    def encode(self, text: str) -> list[int]:
        """The token ids of *text*."""
        return cast("list[int]", self._encoding.encode_ordinary(text))

    def count(self, text: str) -> int:
        """How many tokens *text* has."""
        return len(self._encoding.encode_ordinary(text))


def load_tokenizer(name: str = "heuristic") -> Tokenizer:
    """A tokenizer by name.

    Parameters
    ----------
    name : str
        ``"heuristic"``, which needs nothing; ``"o200k_base"`` or ``"cl100k_base"``,
        offline, with the extra ``bpe``; ``"tiktoken:ENCODING"`` with the extra
        ``tiktoken``, which fetches a vocabulary that is not at hand.

    Raises
    ------
    ValueError
        There is none of this name.
    ModuleNotFoundError
        The extra that it needs is not installed.
    """
    if not isinstance(name, str):
        raise TypeError(f"name must be text, not {name!r}")
    if name == "heuristic":
        return HeuristicTokenizer()
    if name in BytePairTokenizer.NAMES:
        return BytePairTokenizer(name)
    kind, _, encoding = name.partition(":")
    if kind == "tiktoken" and encoding:
        return TiktokenTokenizer(encoding)
    known = ", ".join(map(repr, ("heuristic", *BytePairTokenizer.NAMES)))
    raise ValueError(f"name must be one of {known} or 'tiktoken:NAME', not {name!r}")


def whole(value: Any, says: str) -> int:
    """*value*, that a callback returned, as an int that is not negative."""
    if type(value) is int and value >= 0:
        return value
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(says.format(value)) from None
    if number < 0:
        raise ValueError(says.format(value))
    return number


_ENTRY = 160  # bytes: the cache's own, a tuple of two, the numbers in it
_size = operator.itemgetter(1)


class TokenCounter:
    """``counter(text)``: how many tokens a text has. Each text is counted once.

    Parameters
    ----------
    tokenizer : Tokenizer or str, optional
        An object with ``count``, or a name for :func:`load_tokenizer`; by default
        :class:`HeuristicTokenizer`.
    max_bytes : int or str
        Memory that the texts whose counts are remembered may take; of those that were
        used least recently the counts are forgotten. A text that is in use elsewhere
        too takes no memory twice.

    Notes
    -----
    A text that is known: O(1), about 0.1 us, after Python has hashed the string once.

    **Thread-safety**: each call is atomic. Threads that meet a new text at the same
    time may each have it counted. The tokenizer is called outside any lock; what it
    raises reaches the caller, and nothing is remembered.

    Examples
    --------
    >>> counter = TokenCounter(max_bytes="1MB")
    >>> counter("Hello, world!"), counter("Hello, world!"), counter.stats().hits
    (4, 4, 1)
    """

    __slots__ = ("_cache", "_count", "_get", "max_bytes", "tokenizer")

    def __init__(
        self,
        tokenizer: Tokenizer | str | None = None,
        *,
        max_bytes: SupportsIndex | str = "16MiB",
    ) -> None:
        if tokenizer is None or isinstance(tokenizer, str):
            tokenizer = load_tokenizer(tokenizer or "heuristic")
        if not callable(getattr(tokenizer, "count", None)):
            raise TypeError(f"a tokenizer has a method count, not {tokenizer!r}")
        self.tokenizer = tokenizer
        self.max_bytes = parse_size(max_bytes, "max_bytes")
        self._cache: LRUCache[str, tuple[int, int]] = LRUCache(
            self.max_bytes, getsizeof=_size
        )
        self._count = tokenizer.count
        self._get = self._cache.get

    def __call__(self, text: str) -> int:
        """How many tokens *text* has."""
        if type(text) is not str:
            if not isinstance(text, str):
                raise TypeError(f"a text must be str, not {text!r}")
            text = str.__str__(text)  # no __eq__ or __hash__ of a subclass's own
        known: tuple[int, int] | None = self._get(text)
        if known is not None:
            return known[0]
        tokens = whole(self._count(text), "the tokenizer counted {!r} tokens")
        nbytes = sys.getsizeof(text) + _ENTRY
        if nbytes <= self.max_bytes:
            self._cache[text] = tokens, nbytes
        return tokens

    def __reduce__(self) -> tuple[Any, ...]:
        return _counter, (self.tokenizer, self.max_bytes)

    def stats(self) -> LRUCacheStats:
        """Hits, misses and evictions of the cache; its size in bytes."""
        return self._cache.stats()

    def clear(self) -> None:
        """Forget all counts."""
        self._cache.clear()


def _counter(tokenizer: Tokenizer, max_bytes: int) -> TokenCounter:
    return TokenCounter(tokenizer, max_bytes=max_bytes)
