"""LangChain's messages in and out."""

import sys
import warnings

import pytest

from ctxpool.context import Message, ToolCall, from_langchain, to_langchain

SAID = {"type": "text", "text": "x"}


def test_without_the_extra_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "langchain_core.messages", None)
    monkeypatch.setitem(sys.modules, "langchain_core", None)
    with pytest.raises(ModuleNotFoundError, match=r'"ctxpool\[langchain\]"'):
        from_langchain([])
    with pytest.raises(ModuleNotFoundError, match=r'"ctxpool\[langchain\]"'):
        to_langchain([])


@pytest.fixture
def langchain():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own, of new interpreters
        return pytest.importorskip("langchain_core.messages", exc_type=ImportError)


def conversation(langchain):
    call = {"name": "add", "args": {"a": [1, "ü"]}, "id": "c1", "type": "tool_call"}
    use = {"type": "tool_use", "id": "c1", "name": "add", "input": {"a": [1, "ü"]}}
    other = {**use, "input": {"b": 1}}
    return [
        langchain.SystemMessage("Be brief.", id="s"),
        langchain.HumanMessage("Hello", name="ann"),
        langchain.HumanMessage(["a", {"type": "text", "text": "b"}, "c"]),
        langchain.HumanMessage(
            [{"type": "image_url", "image_url": {"url": "u"}}, "see"]
        ),
        langchain.AIMessage(
            "",
            tool_calls=[call],
            response_metadata={"model": "m"},
            usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
        ),
        langchain.ToolMessage("3", tool_call_id="c1", status="error", artifact=[1]),
        langchain.AIMessage(
            [{"type": "text", "text": "so"}, {**use, "index": 1}], tool_calls=[call]
        ),
        langchain.AIMessage([other], tool_calls=[call]),
        langchain.AIMessage("x", additional_kwargs={"refusal": "no"}),
        langchain.HumanMessage([]),
    ]


def test_there_and_back(langchain):
    messages = conversation(langchain)
    assert to_langchain(from_langchain(messages)) == messages


def test_what_they_become(langchain):
    messages = from_langchain(conversation(langchain))
    assert [m.role for m in messages[:6]] == [
        "system",
        "user",
        "user",
        "user",
        "assistant",
        "tool",
    ]
    assert messages[0].id == "s"
    assert messages[2].content == "a\nb\nc"
    assert messages[4].tool_calls == (ToolCall("c1", "add", '{"a": [1, "ü"]}'),)
    assert messages[6].parts == ()


def test_chunks_are_messages(langchain):
    (message,) = from_langchain([langchain.AIMessageChunk("x")])
    assert (message.role, message.content) == ("assistant", "x")


def test_made_here(langchain):
    made = to_langchain(
        [
            Message("user", "x", id="1", parts=({"type": "image"},)),
            Message("assistant", "", (ToolCall("c", "add", '{"a": 1}'),), id="2"),
            Message("tool", "2", tool_call_id="c", id="3"),
        ]
    )
    assert made == [
        langchain.HumanMessage(
            [{"type": "text", "text": "x"}, {"type": "image"}], id="1"
        ),
        langchain.AIMessage(
            "", id="2", tool_calls=[{"name": "add", "args": {"a": 1}, "id": "c"}]
        ),
        langchain.ToolMessage("2", tool_call_id="c", id="3"),
    ]


def test_what_has_no_place_is_told(langchain):
    with pytest.raises(TypeError, match="not 'x'"):
        from_langchain(["x"])
    with pytest.raises(ValueError, match="'remove'"):
        from_langchain([langchain.RemoveMessage(id="1")])
    call = {"name": "add", "args": {}, "id": None}
    with pytest.raises(ValueError, match="needs an id"):
        from_langchain([langchain.AIMessage("", tool_calls=[call])])
