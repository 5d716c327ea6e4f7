"""Messages as JSON: the same message comes back, or an error says what would not."""

import enum
import json
import math
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxpool.context import Message, ToolCall
from ctxpool.context.message_json import dump_message, load_message
from ctxpool.errors import UnstorableMessageError

texts = st.text(st.characters(exclude_categories=()), max_size=30)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3)
    ),
    max_leaves=8,
)
mappings = st.dictionaries(texts, values, max_size=3)
common = {
    "content": texts,
    "name": texts,
    "parts": st.lists(mappings, max_size=2).map(tuple),
    "metadata": mappings,
    "id": texts,
    "sources": st.lists(texts, max_size=3).map(tuple),
}
calls = st.lists(st.builds(ToolCall, texts, texts, texts), max_size=2).map(tuple)
messages = (
    st.builds(Message, st.sampled_from(["system", "user"]), **common)
    | st.builds(Message, st.just("assistant"), tool_calls=calls, **common)
    | st.builds(Message, st.just("tool"), tool_call_id=texts.filter(bool), **common)
)


@given(messages)
def test_a_message_comes_back_as_it_was(message):
    text = dump_message(message)
    text.encode()  # a file can hold it
    back = load_message(text)
    assert back == message
    assert (back.id, back.metadata) == (message.id, message.metadata)
    assert dump_message(back) == text


def test_what_json_has_another_form_of():
    class Colour(enum.StrEnum):
        RED = "red"

    given = {"t": (1, (2,)), "m": MappingProxyType({"a": 1}), "e": Colour.RED}
    back = load_message(dump_message(Message("user", metadata=given)))
    assert back.metadata == {"t": [1, [2]], "m": {"a": 1}, "e": "red"}
    odd = Message("user", metadata={"x": [math.inf, math.nan]})
    found = load_message(dump_message(odd)).metadata["x"]
    assert found[0] == math.inf
    assert math.isnan(found[1])


class Hostile(dict):
    def items(self):
        raise ZeroDivisionError("no items")


endless: list = []
endless.append(endless)


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        ({"when": {"at": object}}, r"metadata\['when'\]\['at'\], <class 'object'>"),
        ({"a": [1, b"x"]}, r"metadata\['a'\]\[1\], b'x'"),
        ({1: "a"}, "metadata has a key that is no text: 1"),
        ({"a": endless}, "metadata is nested over 100 deep"),
        (Hostile(a=1), "no items"),
    ],
    ids=["class", "bytes", "key", "endless", "hostile"],
)
def test_what_json_cannot_hold(metadata, told):
    with pytest.raises(UnstorableMessageError, match=told) as caught:
        dump_message(Message("user", metadata=metadata, id="m7"))
    assert caught.value.id == "m7"
    assert "'m7'" in str(caught.value)


def test_what_is_nested_deep_comes_back():
    deep: list = []
    for _ in range(98):
        deep = [deep]
    message = Message("user", metadata={"a": deep})
    assert load_message(dump_message(message)).metadata == {"a": deep}


def test_no_message():
    with pytest.raises(TypeError, match="a Message is needed, not 'hello'"):
        dump_message("hello")
    with pytest.raises(UnstorableMessageError, match="its id is no text"):
        dump_message(Message("user", id=7))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        '"user"',
        '{"role": "nobody"}',
        '{"role": "user", "x": 1}',
        '{"role": "assistant", "tool_calls": [[]]}',
        "[" * 100_000,
    ],
    ids=range(8),
)
def test_no_such_json(text):
    with pytest.raises(ValueError, match="no message's JSON"):
        load_message(text)


def test_unused_fields_are_left_out():
    assert json.loads(dump_message(Message("user", id="a"))) == {
        "id": "a",
        "role": "user",
    }
