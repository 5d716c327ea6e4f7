import random
import sys
from pathlib import Path

import pytest

from ctxpool.cli import tokenizers
from ctxpool.cli.errors import UsageError
from ctxpool.cli.tokenizers import BytePair, Words

SOURCE = Path(tokenizers.__file__).read_bytes()


@pytest.mark.parametrize(
    "data",
    [b"", b"\n", SOURCE, bytes(range(256)), b"x" * 100 + b" " * 100 + b"\r\n\r"],
)
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_words_lose_no_byte(data: bytes, kind: type) -> None:
    words = Words()
    assert words.decode(words.encode(kind(data))) == data


def test_words_do_not_depend_on_the_type_or_the_time() -> None:
    first, second = Words(), Words()
    ids = first.encode(SOURCE)
    assert second.encode(memoryview(bytearray(SOURCE))) == ids
    assert first.encode(SOURCE) == ids
    assert len(ids) < len(SOURCE) / 2


def test_words_take_ids_as_they_come() -> None:
    words = Words()
    assert words.encode(b"one two one!") == [256, 32, 257, 32, 256, 33]
    assert len(words) == 258


def test_a_full_vocabulary_spells_in_bytes() -> None:
    words = Words(limit=257)
    assert words.encode(b"one two") == [256, 32, *b"two"]
    assert words.encode(b"two one") == [*b"two", 32, 256]
    assert len(words) == 257


def test_random_bytes_lose_nothing_with_a_full_vocabulary() -> None:
    draw = random.Random(1)
    words = Words(limit=300)
    for _ in range(50):
        data = draw.randbytes(draw.randrange(500))
        assert words.decode(words.encode(data)) == data


def test_byte_pairs_round_trip() -> None:
    pytest.importorskip("rs_bpe")
    tokenizer = BytePair()
    data = "Größe, naïveté: 数 <|endoftext|>\n".encode()
    ids = tokenizer.encode(memoryview(data))
    assert tokenizer.decode(ids) == data
    assert BytePair().encode(data) == ids
    assert all(0 <= token < 2**31 for token in ids)


def test_byte_pairs_take_bytes_that_are_no_text() -> None:
    pytest.importorskip("rs_bpe")
    tokenizer = BytePair()
    assert tokenizer.decode(tokenizer.encode(b"\xffab")) == "\ufffdab".encode()


def test_missing_byte_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rs_bpe", None)
    assert tokenizers.load("auto").name == "words"
    with pytest.raises(UsageError, match=r'pip install "ctxpool\[bpe\]"'):
        tokenizers.load("bpe")


def test_auto_takes_byte_pairs_where_installed() -> None:
    pytest.importorskip("rs_bpe")
    assert tokenizers.load("auto").name == BytePair.name
    assert tokenizers.load("words").name == "words"
