"""OpenAI's and Anthropic's dicts in and out: a round trip loses nothing."""

import json
import pickle
from itertools import chain

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from ctxpool.context import (
    ContextWindow,
    Message,
    MessageCounter,
    ToolCall,
    from_anthropic,
    from_openai,
    to_anthropic,
    to_openai,
)

IMAGE = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
INLINE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBO"}}
PICTURE = {
    "type": "image",
    "source": {"type": "base64", "media_type": "image/png", "data": "iVBO"},
}
THOUGHT = {"type": "thinking", "thinking": "Hm.", "signature": "abc"}


def openai_call(id, **more):
    function = {"name": "search", "arguments": '{"q": "x"}'}
    return {"id": id, "type": "function", "function": function, **more}


OPENAI = [
    {"role": "developer", "content": "Be brief."},
    {"role": "system", "content": [{"type": "text", "text": "And kind."}]},
    {"role": "user", "content": "", "name": "ann"},
    {
        "role": "user",
        "content": [
            IMAGE,
            {"type": "text", "text": "What", "cache_control": {"type": "ephemeral"}},
            {"type": "text", "text": ""},
            INLINE,
            {"type": "text", "text": "is this?\nAnd that?"},
        ],
    },
    {"role": "user", "content": []},
    {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "tool_calls": [openai_call("c1"), openai_call("c2", index=1)],
    },
    {"role": "tool", "tool_call_id": "c1", "content": "found"},
    {
        "role": "tool",
        "tool_call_id": "c2",
        "content": [{"type": "text", "text": "nothing"}],
    },
    {"role": "assistant", "tool_calls": [openai_call("c3")]},
    {"role": "tool", "tool_call_id": "c3", "content": ""},
    {"role": "assistant", "content": "", "tool_calls": [openai_call("c4")]},
    {
        "role": "assistant",
        "content": "x",
        "tool_calls": [
            {"id": "c5", "type": "custom", "custom": {"name": "sh", "input": "ls"}}
        ],
    },
    {"role": "assistant", "content": "Done.", "tool_calls": None, "audio": {"id": "a"}},
    {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
]
TOOL_USE = {"type": "tool_use", "id": "t1", "name": "search", "input": {"q": ["x", 1]}}
ANTHROPIC = [
    {"role": "user", "content": "Look."},
    {
        "role": "assistant",
        "content": [
            THOUGHT,
            {"type": "text", "text": "I will"},
            TOOL_USE,
            {"type": "text", "text": "look twice"},
            {**TOOL_USE, "id": "t2", "cache_control": {"type": "ephemeral"}},
        ],
    },
    {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "t1", "content": "found"},
            {
                "type": "tool_result",
                "tool_use_id": "t2",
                "is_error": True,
                "content": [{"type": "text", "text": "see"}, PICTURE],
            },
            {"type": "text", "text": "So what?"},
            PICTURE,
        ],
    },
    {"role": "assistant", "content": [{"type": "redacted_thinking", "data": "x"}]},
    {"role": "user", "content": [{"type": "text", "text": "one"}]},
    {"role": "user", "content": [PICTURE, {"type": "text", "text": "two"}]},
    {"role": "assistant", "content": [{**TOOL_USE, "id": "t3"}], "id": "msg_1"},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t3"}]},
    {"role": "user", "content": []},
    {"role": "assistant", "content": ""},
]
SYSTEMS = [
    None,
    "Be brief.",
    [{"type": "text", "text": "a"}, {"type": "text", "text": "b", "cache_control": {}}],
]


def test_openai_and_back():
    assert to_openai(from_openai(OPENAI)) == OPENAI


@pytest.mark.parametrize("system", SYSTEMS)
def test_anthropic_and_back(system):
    expected = {"messages": ANTHROPIC} | ({"system": system} if system else {})
    assert to_anthropic(from_anthropic(ANTHROPIC, system)) == expected
    assert to_anthropic(from_anthropic(**expected)) == expected


@pytest.mark.parametrize(
    ("read", "write", "dicts"),
    [
        (from_openai, to_openai, OPENAI),
        (from_anthropic, lambda m: to_anthropic(m)["messages"], ANTHROPIC),
    ],
    ids=["openai", "anthropic"],
)
def test_what_is_noted_survives_pickle_and_json(read, write, dicts):
    messages = pickle.loads(pickle.dumps(read(dicts)))
    assert write(messages) == dicts
    for message in messages:
        assert json.loads(json.dumps(message.metadata)) == message.metadata


def test_several_results_are_messages_of_their_own():
    messages = from_anthropic(ANTHROPIC)
    assert [m.role for m in messages[:5]] == [
        "user",
        "assistant",
        "tool",
        "tool",
        "user",
    ]
    assert messages[1].content == "I will\nlook twice"
    assert messages[1].parts == (THOUGHT,)
    assert [call.arguments for call in messages[1].tool_calls] == [
        '{"q": ["x", 1]}'
    ] * 2
    assert messages[2].tool_call_id == "t1"
    assert messages[3].parts == (PICTURE,)


def test_made_here_it_is_said_in_both_forms():
    call = ToolCall("c", "add", '{"a": 1}')
    messages = [
        Message("system", "Be brief."),
        Message("user", "What is it?", parts=(PICTURE,)),
        Message("assistant", "", (call, ToolCall("d", "add", "")), parts=(THOUGHT,)),
        Message("tool", "2", tool_call_id="c"),
        Message("tool", "3", tool_call_id="d"),
        Message("system", "No jokes."),
        Message("user", "Thanks."),
    ]
    made = to_anthropic(messages)
    assert [block["text"] for block in made["system"]] == ["Be brief.", "No jokes."]
    user, assistant, results, last = made["messages"]
    assert user["content"] == [{"type": "text", "text": "What is it?"}, PICTURE]
    assert [block["type"] for block in assistant["content"]] == [
        "thinking",
        "tool_use",
        "tool_use",
    ]
    assert assistant["content"][1]["input"] == {"a": 1}
    assert [block["tool_use_id"] for block in results["content"]] == ["c", "d"]
    assert last == {"role": "user", "content": "Thanks."}
    said = to_openai(messages)
    assert said[1]["content"] == [{"type": "text", "text": "What is it?"}, INLINE]
    assert said[2]["content"] is None  # the thinking is for its own provider
    assert said[2]["tool_calls"][0] == {
        "id": "c",
        "type": "function",
        "function": {"name": "add", "arguments": '{"a": 1}'},
    }


def test_from_one_form_to_the_other():
    there = to_anthropic(from_openai(OPENAI[:8]))
    assert PICTURE in there["messages"][1]["content"]
    link = {"type": "url", "url": "https://example.org/a.png"}
    assert {"type": "image", "source": link} in there["messages"][1]["content"]
    pdf = {"type": "base64", "media_type": "application/pdf", "data": "JVBE"}
    document = {"type": "document", "source": pdf, "title": "a.pdf"}
    message = Message("user", parts=(document,))
    file = to_openai([message])[0]["content"][0]
    assert file["file"] == {
        "filename": "a.pdf",
        "file_data": "data:application/pdf;base64,JVBE",
    }
    back = to_anthropic(from_openai([{"role": "user", "content": [file]}]))
    assert back["messages"][0]["content"] == [{"type": "document", "source": pdf}]
    with pytest.raises(ValueError, match="'input_audio' can't be said"):
        to_anthropic([Message("user", parts=({"type": "input_audio"},))])
    with pytest.raises(ValueError, match="'web_search_tool_result' can't be said"):
        to_openai([Message("user", parts=({"type": "web_search_tool_result"},))])


def test_a_text_that_was_changed_goes_out_plainly():
    from dataclasses import replace

    messages = from_openai(OPENAI)
    short = replace(messages[3], content="What?")
    assert to_openai([short])[0]["content"] == [
        {"type": "text", "text": "What?"},
        IMAGE,
        INLINE,
    ]
    thinking = replace(from_anthropic(ANTHROPIC)[1], content="I look")
    content = to_anthropic([thinking])["messages"][0]["content"]
    assert [b["type"] for b in content] == ["thinking", "text", "tool_use", "tool_use"]


@pytest.mark.parametrize(
    ("read", "given", "error", "says"),
    [
        (from_openai, ["text"], TypeError, "must be a dict, not 'text'"),
        (from_openai, [{"role": "robot"}], ValueError, "not 'robot'"),
        (from_openai, [{"content": "x"}], ValueError, "not None"),
        (from_openai, [{"role": "tool", "content": "x"}], ValueError, "tool_call_id"),
        (from_openai, [{"role": "user", "content": [3]}], TypeError, "not 3"),
        (from_openai, [{"role": "user", "content": 3}], TypeError, "not iterable"),
        (
            from_openai,
            [{"role": "assistant", "tool_calls": [{"id": "a"}]}],
            TypeError,
            "'function' of a tool call",
        ),
        (from_anthropic, [{"role": "system"}], ValueError, "not 'system'"),
        (
            from_anthropic,
            [{"role": "user", "content": [{"type": "tool_result"}]}],
            ValueError,
            "'tool_use_id' as text, not None",
        ),
        (
            from_anthropic,
            [{"role": "assistant", "content": [{"type": "tool_use", "id": "a"}]}],
            ValueError,
            "'name' as text, not None",
        ),
    ],
)
def test_what_is_no_message_is_told(read, given, error, says):
    with pytest.raises(error, match=says):
        read(given)


def test_arguments_that_are_no_json_are_told():
    message = Message("assistant", "", (ToolCall("c", "add", '{"a"'),))
    assert to_openai([message])[0]["tool_calls"][0]["function"]["arguments"] == '{"a"'
    with pytest.raises(ValueError, match="call 'c' are no JSON"):
        to_anthropic([message])


text = st.text(max_size=5)
text_block = st.fixed_dictionaries(
    {"type": st.just("text"), "text": text}, optional={"cache_control": st.just({})}
)
blocks = st.lists(text_block | st.just(PICTURE) | st.just(THOUGHT), max_size=4)
values = st.recursive(st.none() | st.booleans() | st.integers() | text, st.lists)
tool_use = st.fixed_dictionaries(
    {"type": st.just("tool_use"), "id": text, "name": text},
    optional={"input": st.dictionaries(text, values, max_size=2), "caller": text},
).map(lambda block: {"input": {}, **block})
tool_result = st.fixed_dictionaries(
    {"type": st.just("tool_result"), "tool_use_id": st.text(min_size=1, max_size=3)},
    optional={"content": text | blocks, "is_error": st.booleans()},
)


def anthropic(role, *kinds):
    content = st.lists(st.one_of(text_block, st.just(PICTURE), *kinds), max_size=5)
    return st.fixed_dictionaries({"role": st.just(role), "content": text | content})


turns = st.tuples(anthropic("user", tool_result), anthropic("assistant", tool_use))


@given(st.lists(turns, max_size=3).map(lambda pairs: [*chain(*pairs)]))
@settings(max_examples=60)
def test_any_conversation_with_anthropic_comes_back(conversation):
    assert to_anthropic(from_anthropic(conversation))["messages"] == conversation


optional = {"name": text | st.none(), "refusal": text | st.none()}
images = st.lists(text_block | st.just(IMAGE) | st.just(INLINE), max_size=4)
openai_message = st.one_of(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "system", "developer"])},
        optional={"content": text | st.none() | images, **optional},
    ),
    st.fixed_dictionaries(
        {"role": st.just("assistant")},
        optional={
            "content": text | st.none() | st.lists(text_block, max_size=2),
            "tool_calls": st.none() | st.lists(text.map(openai_call), max_size=2),
            **optional,
        },
    ),
    st.fixed_dictionaries(
        {"role": st.just("tool"), "tool_call_id": st.text(min_size=1, max_size=3)},
        optional={"content": text | st.lists(text_block, max_size=2)},
    ),
)


@given(st.lists(openai_message))
@settings(max_examples=60)
def test_any_conversation_with_openai_comes_back(conversation):
    assert to_openai(from_openai(conversation)) == conversation


def test_a_window_of_them():
    window = ContextWindow(10_000)
    messages = from_openai(OPENAI[:8])
    window.extend(messages)
    assert to_openai(window.messages()) == OPENAI[:8]
    count = MessageCounter()
    assert window.tokens == sum(map(count, messages))
