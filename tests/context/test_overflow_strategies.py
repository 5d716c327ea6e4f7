"""Each strategy alone: what it takes, what it leaves, what bad callbacks come to."""

import math

import pytest

from ctxpool.context import (
    Compress,
    Evict,
    Group,
    GroupValue,
    Message,
    OverflowChain,
    Spill,
    SpillStore,
    ToolCall,
)
from ctxpool.context.group_value import identifiers, later_uses


def count(message):
    """A token for four characters, and four for the message."""
    return 4 + len(message.text) // 4


def group(*messages, pinned=False):
    return Group(messages, sum(map(count, messages)), pinned)


def said(id, tokens, **more):
    return group(Message("user", "word" * (tokens - 4), id=id, **more))


def looked_up(id, tokens):
    call = ToolCall(id, "read", '{"path": "a.py"}')
    parts = ({"type": "thinking", "thinking": "hm"},)
    return group(
        Message("assistant", tool_calls=(call,), parts=parts, id=f"{id}-call"),
        Message("tool", "word" * tokens, tool_call_id=id, id=f"{id}-result"),
    )


def reduced(strategy, groups, budget):
    return OverflowChain([strategy]).reduce(groups, budget, count)


def touched(result):
    return [id for action in result.report.actions for id in action.removed]


def cut(text, tokens):
    return text[: tokens * 4]


# -- Compress -------------------------------------------------------------------


def test_the_long_and_old_are_compressed_first_and_no_more_than_needed():
    window = [said("a", 100), said("b", 300), said("c", 100), said("d", 300)]
    result = reduced(Compress(cut, keep=1, to=0.7), window, 880)
    assert touched(result) == ["b", "a"]  # 300 x 3, 100 x 4, 100 x 2; d is the newest
    assert result.report.after <= 0.7 * 880
    assert [m.sources for g in result.groups for m in g.messages] == [
        ("a",),
        ("b",),
        (),
        (),
    ]


def test_a_compressed_message_is_the_same_but_for_its_text():
    window = [looked_up("t", 400), said("z", 20)]
    result = reduced(Compress(cut, keep=1), window, 440)
    call, short = result.groups[0].messages
    assert call is window[0].messages[0]
    assert (short.role, short.tool_call_id) == ("tool", "t")
    assert len(short.content) == 4 * int(404 * 0.4)
    assert short.sources == ("t-result",)
    again = reduced(Compress(cut, keep=1), window, 440)
    assert again.groups[0].messages[1].id == short.id != "t-result"


def test_tool_calls_and_parts_stay():
    call = ToolCall("c", "read")
    parts = ({"type": "image", "data": "x"},)
    message = Message(
        "assistant", "word" * 200, (call,), parts=parts, metadata={"k": 1}
    )
    result = reduced(Compress(cut, keep=0), [group(message)], 220)
    (short,) = result.groups[0].messages
    assert (short.tool_calls, short.parts, short.metadata) == ((call,), parts, {"k": 1})
    assert len(short.content) < len(message.content)


def test_nothing_is_compressed_twice_or_below_the_minimum():
    compress = Compress(cut, keep=0, min_tokens=50)
    first = reduced(compress, [said("a", 300), said("b", 40)], 300)
    assert touched(first) == ["a"]
    second = reduced(compress, first.groups, 100)
    assert second.groups == first.groups
    assert not second.report.actions


def test_what_gets_no_shorter_is_left_and_not_tried_again():
    asked = []

    def longer(text, tokens):
        asked.append(text)
        return text + "!" * 40

    compress = Compress(longer, keep=0)
    window = [said("a", 300), said("b", 200)]
    for _ in range(3):
        result = reduced(compress, window, 500)
        assert result.groups == window
        assert not result.report.problems
    assert len(asked) == 2
    for text in ("", " \n"):
        assert not reduced(Compress(lambda *_: text, keep=0), window, 500).removed  # noqa: B023


def test_a_compressor_that_returns_no_text():
    result = reduced(Compress(lambda text, n: b"x", keep=0), [said("a", 300)], 300)
    assert "TypeError: a compressor must return text, not b'x'" in str(result.report)


# -- Evict ----------------------------------------------------------------------


def test_the_least_valuable_go():
    worth = {"a": 3, "b": 1, "c": 2, "d": 1, "e": 0, "f": 0}
    window = [said(id, 100) for id in worth]
    seen = []

    def value(group, age, uses):
        seen.append((group.messages[0].id, age, uses))
        return worth[group.messages[0].id]

    result = reduced(Evict(value, to=0.5), window, 600)
    assert touched(result) == ["b", "c", "d"]
    assert seen == [("a", 5, 0), ("b", 4, 0), ("c", 3, 0), ("d", 2, 0)]
    assert [m.id for m in result.removed] == ["b", "c", "d"]
    # Of equals the older ones go.
    same = reduced(Evict(lambda *_: 0, to=0.5, keep=0), window, 600)
    assert touched(same) == ["a", "b", "c"]


def test_groups_go_whole():
    window = [looked_up("t", 100), said("a", 400), said("b", 10), said("c", 10)]
    result = reduced(Evict(lambda group, age, uses: -age), window, 530)
    assert touched(result) == ["t-call", "t-result"]


@pytest.mark.parametrize("value", ["high", None, True, math.nan, 1j], ids=repr)
def test_no_value(value):
    window = [said(str(i), 100) for i in range(5)]
    result = reduced(Evict(lambda *_: value), window, 400)
    assert result.groups == window
    assert f"a group's value must be a number, not {value!r}" in str(result.report)


def test_infinite_values_are_values():
    window = [said(str(i), 100) for i in range(5)]
    value = {"0": math.inf, "1": -math.inf, "2": 0}
    evict = Evict(lambda group, *_: value[group.messages[0].id], to=0.8)
    assert touched(reduced(evict, window, 500)) == ["1"]


# -- GroupValue -----------------------------------------------------------------


def test_identifiers():
    text = (
        "Call get_user with id 42 at /api/v2, then fooBar or db.users: see #7. OK well-"
    )
    assert identifiers(Message("user", text)) == {
        *("get_user", "/api/v2", "42", "fooBar", "db.users", "#7")
    } - {"/api/v2", "42", "#7"} | {"api/v2"}


def test_uses_are_counted_in_what_follows():
    window = [
        group(Message("user", "order_17 and user_5")),
        group(Message("user", "nothing")),
        group(Message("user", "order_17 was late")),
        group(Message("user", "order_17 came"), Message("user", "order_17 again")),
    ]
    assert later_uses(window) == [2, 0, 1, 0]
    assert later_uses([]) == []


def test_what_makes_a_group_valuable():
    value = GroupValue()
    plain = group(Message("user", "We talked of this and that for a while."))
    assert value(plain, 0, 0) > value(plain, 10, 0) > value(plain, 1000, 0)
    assert value(plain, 10, 3) > value(plain, 10, 1) > value(plain, 10, 0)
    dense = group(Message("user", "order_17 db.users port 5432 retry_limit x9_1"))
    assert value(dense, 5, 0) > value(plain, 5, 0)
    worth = [
        value(group(Message("user", "a", metadata={"importance": n})), 5, 0)
        for n in (0, 0.5, 1, 99)
    ]
    assert worth[0] < worth[1] < worth[2] == worth[3]
    for odd in ("high", math.nan, True, None):  # no number is no importance
        message = Message("tool", "a", tool_call_id="c", metadata={"importance": odd})
        assert value(group(message), 5, 0) < worth[1]
    summary = group(Message("assistant", "a", sources=("x", "y")))
    assert value(summary, 5, 0) > value(group(Message("assistant", "a")), 5, 0)
    for wrong in ({"recency": -1}, {"half_life": 0}, {"uses": math.nan}):
        with pytest.raises(ValueError, match="must not be negative"):
            GroupValue(**wrong)
    with pytest.raises(TypeError, match="density must be a number, not 'a'"):
        GroupValue(density="a")


def test_by_default_the_old_and_empty_go_and_what_is_used_stays():
    window = [
        group(
            Message("user", "The account is acct_9931." + " Please." * 20, id="named")
        ),
        *(said(f"chat{i}", 60) for i in range(6)),
        group(Message("user", "Is acct_9931 paid?", id="asks")),
        said("last", 20),
    ]
    result = reduced(Evict(to=0.6), window, 440)
    assert touched(result) == ["chat0", "chat1", "chat2"]


# -- Spill ----------------------------------------------------------------------


@pytest.fixture
def store():
    with SpillStore(":memory:") as store:
        yield store


def test_long_texts_become_stubs_that_name_them(store):
    window = [said("q", 20), looked_up("t", 1000), said("z", 20)]
    result = reduced(Spill(store), window, 1000)
    call, stub = result.groups[1].messages
    assert call is window[1].messages[0]
    assert stub.content.startswith(
        "[1,004 tokens are kept outside, as t-result] It begins:\nwordword"
    )
    assert count(stub) < 100
    assert (stub.role, stub.tool_call_id, stub.sources) == ("tool", "t", ("t-result",))
    assert store["t-result"] == window[1].messages[1]
    assert [m.content for m in store.originals(stub)] == ["word" * 1000]
    assert result.report.after <= 800


def test_then_whole_groups_go_and_the_newest_last(store):
    window = [said(str(i), 100) for i in range(10)]
    result = reduced(Spill(store), window, 500)
    assert touched(result) == [str(i) for i in range(6)]
    assert len(store) == 6
    # The newest is not spilled to come down to 80 %, only if it doesn't fit.
    assert reduced(Spill(store), [said("x", 95)], 100).report.after == 95
    assert reduced(Spill(store), [said("y", 101)], 100).report.after == 0


def test_a_stub_of_a_compressed_message_leads_to_the_original(store):
    window = [said("a", 2000), said("z", 20)]
    chain = OverflowChain([Compress(cut, keep=0), Spill(store)])
    result = chain.reduce(window, 600, count)
    stub = result.groups[0].messages[0]
    assert "as a]" in stub.content
    assert chain.restore(stub) == [window[0].messages[0]]
    assert len(store) == 1


@pytest.mark.parametrize(
    ("make", "error", "told"),
    [
        (lambda: Compress(7), TypeError, "compressor must be a callable, not 7"),
        (lambda: Compress(to=0), ValueError, "to must be more than 0"),
        (lambda: Compress(to=True), TypeError, "to must be a number, not True"),
        (lambda: Compress(ratio=1.5), ValueError, "ratio .* not 1.5"),
        (lambda: Compress(min_tokens=0), ValueError, "min_tokens"),
        (lambda: Compress(keep=-1), ValueError, "keep"),
        (lambda: Evict("age"), TypeError, "value must be a callable, not 'age'"),
        (lambda: Evict(keep=1.5), TypeError, "keep must be a whole number, not 1.5"),
        (lambda: Evict(to=math.nan), ValueError, "to must be .* not nan"),
        (lambda: Spill("s.db"), TypeError, "store must be a SpillStore, not 's.db'"),
    ],
    ids=range(10),
)
def test_wrong_settings(make, error, told):
    with pytest.raises(error, match=told):
        make()


def test_a_preview_is_shorter_than_what_it_is_of(store):
    with pytest.raises(ValueError, match="preview must be from 0 to 50, not 60"):
        Spill(store, min_tokens=100, preview=60)
    bare = reduced(Spill(store, preview=0), [said("a", 1000), said("b", 9)], 900)
    assert bare.groups[0].messages[0].content == (
        "[1,000 tokens are kept outside, as a]"
    )
