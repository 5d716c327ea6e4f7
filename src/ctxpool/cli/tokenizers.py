"""Turn a chunk of bytes into token ids."""

import importlib
import re
from typing import Any, Protocol

from .errors import UsageError

__all__ = ["TOKENIZERS", "BytePair", "Tokenizer", "Words", "load"]

TOKENIZERS = ("auto", "bpe", "words")

_WORD = re.compile(rb"[A-Za-z_]{1,24}|[0-9]{1,8}|[ \t]{1,32}|\r?\n|.", re.DOTALL)
_MAX_WORDS = 1 << 20


class Tokenizer(Protocol):
    """Bytes to token ids and back."""

    name: str

    def encode(self, data: bytes | bytearray | memoryview) -> list[int]:
        """The token ids of *data*, each in 0 to 2**31 - 1."""

    def decode(self, ids: list[int]) -> bytes:
        """The bytes that *ids* stand for."""


class _Vocabulary(dict[bytes, int]):
    """Word to id. A new word takes the next id, until the vocabulary is full."""

    def __init__(self, limit: int) -> None:
        super().__init__((bytes([byte]), byte) for byte in range(256))
        self.words = list(self)
        self.limit = limit

    def __missing__(self, word: bytes) -> int:
        if len(self) >= self.limit:
            raise _FullError
        self.words.append(word)
        return self.setdefault(word, len(self))


class _FullError(Exception):
    """The vocabulary takes no more words."""


class Words:
    """Words, numbers, runs of blanks, line ends and single bytes.

    Ids 0 to 255 are the bytes. Every other word takes the next id when it is first
    seen, so the same chunks in the same order give the same ids everywhere. A word
    met after the vocabulary is full is spelled in bytes. No byte is lost:
    ``decode(encode(data)) == data``.

    Parameters
    ----------
    limit : int
        Words that the vocabulary takes, the 256 bytes included.
    """

    name = "words"

    def __init__(self, limit: int = _MAX_WORDS) -> None:
        self._ids = _Vocabulary(max(limit, 256))

    def __len__(self) -> int:
        return len(self._ids)

    def encode(self, data: bytes | bytearray | memoryview) -> list[int]:
        words = _WORD.findall(data)
        try:
            return list(map(self._ids.__getitem__, words))
        except _FullError:
            ids: list[int] = []
            for word in words:
                known = self._ids.get(word)
                ids += word if known is None else (known,)
            return ids

    def decode(self, ids: list[int]) -> bytes:
        words = self._ids.words
        return b"".join([words[token] for token in ids])


class BytePair:
    """The byte-pair encoding o200k_base, by the package ``rs-bpe``.

    Bytes that are not UTF-8, also those of a character cut by a chunk's border,
    are read as U+FFFD.
    """

    name = "bpe (o200k_base)"

    def __init__(self) -> None:
        # A submodule of the extension, in sys.modules only after its parent.
        self._tokenizer: Any = importlib.import_module("rs_bpe").openai.o200k_base()

    def encode(self, data: bytes | bytearray | memoryview) -> list[int]:
        ids: list[int] = self._tokenizer.encode(str(data, "utf-8", "replace"))
        return ids

    def decode(self, ids: list[int]) -> bytes:
        text: str = self._tokenizer.decode(ids)
        return text.encode()


def load(name: str) -> Tokenizer:
    """A new tokenizer: ``"bpe"``, ``"words"``, or ``"auto"``: bpe where installed.

    Raises
    ------
    UsageError
        ``"bpe"`` is asked for and its package is missing.
    """
    if name == "words":
        return Words()
    try:
        return BytePair()
    except ModuleNotFoundError as error:
        if name == "auto":
            return Words()
        raise UsageError(
            "--tokenizer bpe needs the package rs-bpe: "
            'pip install "ctxpool[bpe]", or take --tokenizer words'
        ) from error
