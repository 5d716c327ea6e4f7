"""Tokenizers and counters: deterministic, counted once, whatever the text."""

import pickle
import sys
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxpool.context import (
    BytePairTokenizer,
    HeuristicTokenizer,
    Message,
    MessageCounter,
    TiktokenTokenizer,
    TokenCounter,
    Tokenizer,
    ToolCall,
    load_tokenizer,
)

any_text = st.text(st.characters(exclude_categories=()))


@given(any_text)
def test_the_heuristic_counts_what_it_encodes(text):
    tokenizer = HeuristicTokenizer()
    ids = tokenizer.encode(text)
    assert len(ids) == tokenizer.count(text) == TokenCounter()(text)
    assert all(0 <= token < 2**31 for token in ids)
    assert (len(ids) == 0) == (text == "")
    assert ids == HeuristicTokenizer().encode(text)


def test_ids_are_the_same_in_every_process():
    assert HeuristicTokenizer().encode("for i in range(10):\n") == [
        1869941240,
        1614016417,
        1496908611,
        1674250689,
        1740064631,
        559752673,
        228692762,
    ]


@pytest.mark.parametrize(
    "unit", [" ", "\v", "\n ", "a", "A", "=", " x", "\ud800", "é", "中", "😀", ".\n"]
)
def test_no_text_takes_long(unit):
    text = unit * 200_000
    start = time.process_time()
    assert HeuristicTokenizer().count(text) > 0
    assert time.process_time() - start < 5  # one that is quadratic takes minutes


REFERENCE = {  # by o200k_base
    "The quick brown fox jumps over the lazy dog, and it doesn't stop.": 15,
    "def add(a: int, b: int) -> int:\n    return a + b\n": 19,
    '{"name": "search", "arguments": {"query": "weather", "limit": 10}}': 21,
    "2026-11-21T17:00:12.345Z INFO worker-3 request id=9e3779b9 took 31 ms": 32,
    "我们明天早上八点在车站见面,不要迟到。": 17,
    "Завтра утром мы встречаемся на вокзале в восемь часов.": 18,
}


@pytest.mark.parametrize("text", REFERENCE)
def test_the_heuristic_is_near_a_real_one(text):
    assert HeuristicTokenizer().count(text) == pytest.approx(REFERENCE[text], rel=0.25)


@pytest.mark.parametrize("name", BytePairTokenizer.NAMES)
def test_byte_pairs(name):
    pytest.importorskip("rs_bpe", exc_type=ImportError)
    tokenizer = load_tokenizer(name)
    assert isinstance(tokenizer, BytePairTokenizer)
    assert isinstance(tokenizer, Tokenizer)
    for text in [*REFERENCE, "a\ud800b", "<|endoftext|>", ""]:
        assert len(tokenizer.encode(text)) == tokenizer.count(text)
    assert tokenizer.encode("a\ud800b") == tokenizer.encode("a\ufffdb")
    assert len(tokenizer.encode("<|endoftext|>")) > 1
    again = pickle.loads(pickle.dumps(tokenizer))
    assert again.encode("hello world") == tokenizer.encode("hello world")
    if name == "o200k_base":
        assert {text: tokenizer.count(text) for text in REFERENCE} == REFERENCE


def test_tiktoken_with_a_vocabulary_at_hand():
    tiktoken = pytest.importorskip("tiktoken", exc_type=ImportError)
    encoding = tiktoken.Encoding(
        "bytes",
        pat_str=r".",
        mergeable_ranks={bytes([byte]): byte for byte in range(256)},
        special_tokens={"<|end|>": 256},
    )
    tokenizer = TiktokenTokenizer(encoding)
    assert tokenizer.encode("a<|end|>") == list(b"a<|end|>")
    assert tokenizer.count("é") == 2
    assert tokenizer.count("\ud800") == 3
    assert tokenizer.name == "tiktoken:bytes"
    with pytest.raises(TypeError, match="not 3"):
        TiktokenTokenizer(3)


@pytest.mark.parametrize(
    ("name", "package"),
    [("o200k_base", "rs_bpe"), ("tiktoken:o200k_base", "tiktoken")],
)
def test_a_missing_extra_is_named(name, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    extra = {"rs_bpe": "bpe"}.get(package, package)
    with pytest.raises(ModuleNotFoundError, match=rf'"ctxpool\[{extra}\]"'):
        load_tokenizer(name)


@pytest.mark.parametrize("name", ["", "gpt", "tiktoken:", "tiktoken"])
def test_unknown_names_are_told(name):
    with pytest.raises(ValueError, match=f"not '{name}'"):
        load_tokenizer(name)
    with pytest.raises(TypeError, match="not 3"):
        load_tokenizer(3)
    with pytest.raises(ValueError, match="not 'x'"):
        BytePairTokenizer("x")


class Slow:
    def __init__(self):
        self.counted = []

    def encode(self, text):
        raise NotImplementedError

    def count(self, text):
        self.counted.append(text)
        if text == "bad":
            raise ZeroDivisionError
        return len(text)


def test_each_text_is_counted_once():
    counter = TokenCounter(Slow())
    assert [counter("abc"), counter("ab" + "c".strip())] == [3, 3]
    assert counter.tokenizer.counted == ["abc"]
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            counter("bad")
    assert counter.tokenizer.counted == ["abc", "bad", "bad"]
    counter.clear()
    counter("abc")
    assert counter.stats().misses == 4


def test_a_counter_keeps_within_its_bytes():
    counter = TokenCounter(Slow(), max_bytes=4000)
    for n in range(100):
        counter(f"{n:50}")
    assert 0 < counter.stats().currsize <= 4000
    assert counter("x" * 10_000) == 10_000  # larger than all of it: not kept
    assert counter.stats().currsize <= 4000


def test_a_text_of_a_subclass_is_its_characters():
    class Odd(str):
        def __eq__(self, other):
            raise ZeroDivisionError

        def __hash__(self):
            raise ZeroDivisionError

    counter = TokenCounter(Slow())
    assert counter("abc") == counter(Odd("abc")) == 3
    assert counter.tokenizer.counted == ["abc"]
    with pytest.raises(TypeError, match="not b'abc'"):
        counter(b"abc")
    with pytest.raises(TypeError, match=r"not \[\]"):
        counter([])


@pytest.mark.parametrize(
    ("value", "error"), [(-1, ValueError), (1.5, TypeError), (None, TypeError)]
)
def test_a_wrong_count_is_told(value, error):
    class Wrong(Slow):
        def count(self, text):
            return value

    with pytest.raises(error, match=f"counted {value} tokens"):
        TokenCounter(Wrong())("x")
    part = Message("user", parts=({"type": "image"},))
    with pytest.raises(error, match=f"returned {value}"):
        MessageCounter(part_tokens=lambda part: value)(part)


def test_wrong_arguments_are_told():
    with pytest.raises(TypeError, match="not 3"):
        TokenCounter(3)
    with pytest.raises(ValueError, match="max_bytes 'x'"):
        TokenCounter(max_bytes="x")
    with pytest.raises(TypeError, match="not 'x'"):
        MessageCounter()("x")
    with pytest.raises(TypeError, match="not 5"):
        MessageCounter(part_tokens=5)
    with pytest.raises(ValueError, match="per_message"):
        MessageCounter(per_message=-1)


def test_threads_count_the_same():
    counter = TokenCounter(max_bytes=20_000)
    texts = [f"text number {n} of many" for n in range(300)]
    expected = [HeuristicTokenizer().count(text) for text in texts]
    found = []

    def work():
        found.append([counter(text) for text in texts])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 4


def test_what_a_message_costs():
    count = MessageCounter(Slow(), per_message=3, per_call=5)
    assert count(Message("user", "abcd")) == 7
    assert count(Message("user", "", name="ann")) == 6
    call = ToolCall("c", "add", '{"a":1}')
    assert count(Message("assistant", "x", (call, call))) == 3 + 1 + 2 * (5 + 3 + 7)
    image = {"type": "image_url", "image_url": {"url": "x" * 1000}}
    assert count(Message("user", parts=(image,))) == 3 + 1600
    thought = {"type": "thinking", "thinking": "abc", "signature": "x" * 100}
    assert count(Message("assistant", parts=(thought,))) == 6
    sized = MessageCounter(Slow(), part_tokens=lambda part: 9)
    assert sized(Message("user", parts=(image, thought))) == 4 + 18
    again = pickle.loads(pickle.dumps(count))
    assert again(Message("user", "abcd")) == 7
