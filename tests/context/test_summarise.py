"""Summaries: of what, how often, by whom, and what happens when that one fails."""

import asyncio
import functools
import re
import subprocess
import sys
import threading

import pytest

from ctxpool.context import (
    Evict,
    Group,
    Message,
    OverflowChain,
    Spill,
    SpillStore,
    Summarise,
    ToolCall,
)


def count(message):
    """A token for four characters, and four for the message."""
    return 4 + len(message.text) // 4


def group(*messages, pinned=False):
    return Group(messages, sum(map(count, messages)), pinned)


def said(id, tokens=100, **more):
    text = f"Fact {id} is here. " * (tokens // 4)
    return group(Message("user", text[: (tokens - 4) * 4], id=id, **more))


def window_of(n, tokens=100):
    return [said(f"m{i}", tokens) for i in range(n)]


def gist(messages, tokens):
    return f"Gist of {len(messages)}."


def reduced(summarise, groups, budget, *more):
    return OverflowChain([summarise, *more]).reduce(groups, budget, count)


def all_messages(result):
    return [message for each in result.groups for message in each.messages]


def test_the_oldest_become_one_message():
    window = window_of(10)
    asked = []

    def summarizer(messages, tokens):
        asked.append(([m.id for m in messages], tokens))
        return gist(messages, tokens)

    result = reduced(Summarise(summarizer, chunk=0.5), window, 1000)
    assert asked == [([f"m{i}" for i in range(5)], 100)]
    summary = all_messages(result)[0]
    assert summary.content == "Summary of 5 earlier messages:\nGist of 5."
    assert summary.role == "user"
    assert summary.sources == ("m0", "m1", "m2", "m3", "m4")
    assert result.groups[1:] == window[5:]
    assert result.report.saved_by() == {"summarise": result.report.saved}
    assert not result.report.problems


def test_without_a_summarizer_its_own_sentences_are_taken():
    window = window_of(10)
    result = reduced(Summarise(), window, 1000)
    first = all_messages(result)[0]
    assert "Fact m0 is here." in first.content
    assert count(first) < 0.4 * 300
    assert result.report.after <= 700
    assert not result.report.problems


def test_pinned_and_new_groups_stay_and_tool_calls_go_whole():
    call = ToolCall("c", "read")
    tool = group(
        Message("assistant", tool_calls=(call,), id="call"),
        Message("tool", "x" * 800, tool_call_id="c", id="result"),
    )
    pinned = group(Message("user", "Remember this.", id="pin"), pinned=True)
    window = [said("a"), tool, pinned, *window_of(6)]
    result = reduced(Summarise(gist, to=0.1), window, 1000)
    kept = all_messages(result)
    assert kept[0].sources == ("a", "call", "result")
    assert kept[1] is pinned.messages[0]
    assert [m.id for m in kept[-4:]] == ["m2", "m3", "m4", "m5"]
    assert kept[2].sources == () or kept[2].sources == ("m0", "m1")


def test_no_summary_of_little_or_of_one_message():
    assert not reduced(Summarise(gist, min_tokens=300), window_of(6), 600).removed
    one = [said("a", 500), *window_of(4)]
    assert not reduced(Summarise(gist), one, 900).removed


def test_summaries_are_merged_by_levels_and_keep_the_ids_of_the_originals():
    levels, window, seen = [], [], []
    summarise = Summarise(gist, chunk=0.3, min_tokens=100, to=0.6)
    for i in range(200):
        window.append(said(f"m{i}"))
        result = reduced(summarise, window, 1000)
        window = result.groups
        made = [m for m in all_messages(result) if m.sources]
        levels.append([m.metadata["summary_level"] for m in made])
        seen = [s for m in all_messages(result) for s in m.sources or (m.id,)]
        assert seen == [f"m{j}" for j in range(i + 1)]
    assert max(map(max, filter(None, levels))) == 4  # of about 70 first summaries
    assert all(level == sorted(level, reverse=True) for level in levels)
    assert all(level.count(n) <= 3 for level in levels for n in level)


def test_a_summary_of_summaries_reads_without_their_first_lines():
    texts = []

    def compressor(text, tokens):
        texts.append(text)
        return text[: tokens * 4]

    meta = {"summary_level": 1}
    made = [
        group(
            Message(
                "user",
                f"Summary of 2 earlier messages:\nFact {i}. " + "x" * 300,
                sources=(f"a{i}", f"b{i}"),
                metadata=meta,
            )
        )
        for i in range(3)
    ]
    summarise = Summarise(compressor=compressor, keep=0)
    result = reduced(summarise, made, 250)
    assert texts[0].count("Summary of") == 0
    assert all(f"Fact {i}." in texts[0] for i in range(3))
    (merged,) = all_messages(result)
    assert merged.content.startswith("Summary of 6 earlier messages:\n")
    assert merged.sources == ("a0", "b0", "a1", "b1", "a2", "b2")


def test_levels_that_somebody_else_made_up():
    window = [
        said(f"m{i}", metadata={"summary_level": level})
        for i, level in enumerate([9, "x", None, True, -1, 2])
    ]
    assert reduced(Summarise(gist, keep=0), window, 600).report.saved > 0


def failing(messages, tokens):
    raise ZeroDivisionError("no model")


async def failing_later(messages, tokens):
    await asyncio.sleep(0)
    raise ZeroDivisionError("no model")


@pytest.mark.parametrize(
    ("summarizer", "told"),
    [
        (failing, "raised ZeroDivisionError: no model"),
        (failing_later, "raised ZeroDivisionError: no model"),
        (lambda m, n: "", "returned nothing"),
        (lambda m, n: " \n", "returned nothing"),
        (lambda m, n: None, "returned no text but NoneType"),
        (lambda m, n: b"x", "returned no text but bytes"),
        (lambda m, n: "long " * n * 4, "returned .* tokens for"),
        (lambda m: "", "raised TypeError"),
        (lambda m, n: next(iter([])), "raised .*StopIteration"),
    ],
    ids=["raise", "async", "empty", "blank", "none", "bytes", "long", "call", "stop"],
)
@pytest.mark.parametrize("way", ["reduce", "areduce"])
@pytest.mark.parametrize("timeout", [None, 20.0])
def test_a_summarizer_that_fails(summarizer, told, way, timeout):
    chain = OverflowChain([Summarise(summarizer, timeout=timeout)])
    window = window_of(10)
    if way == "reduce":
        result = chain.reduce(window, 1000, count)
    else:
        result = asyncio.run(chain.areduce(window, 1000, count))
    assert re.fullmatch(
        f"summarise: the summarizer {told}.*: extracted instead",
        str(result.report.problems[0]),
    )
    assert all_messages(result)[0].sources[0] == "m0"
    assert "Fact m0" in all_messages(result)[0].content
    assert result.report.after <= 700


def test_one_that_has_raised_is_asked_once_in_an_overflow():
    asked = []

    def summarizer(messages, tokens):
        asked.append(tokens)
        raise Mute

    for way in ("apply", "aapply"):
        chain = OverflowChain([Summarise(summarizer, chunk=0.3, to=0.3)])
        if way == "apply":
            result = chain.reduce(window_of(20), 2000, count)
        else:
            result = asyncio.run(chain.areduce(window_of(20), 2000, count))
        assert len(asked) == 1
        assert len(result.report.actions) > 1
        assert [p.text for p in result.report.problems] == [
            "the summarizer raised Mute: extracted instead"
        ]
        asked.clear()


class Mute(Exception):
    def __str__(self):
        raise ZeroDivisionError


async def gist_later(messages, tokens):
    await asyncio.sleep(0.001)
    return gist(messages, tokens)


class Callable:
    async def __call__(self, messages, tokens):
        return gist(messages, tokens)


@pytest.mark.parametrize(
    "summarizer",
    [
        gist,
        gist_later,
        functools.partial(gist_later),
        Callable(),
        lambda m, n: gist_later(m, n),
    ],
    ids=["function", "coroutine", "partial", "object", "lambda"],
)
@pytest.mark.parametrize("timeout", [None, 20.0])
def test_all_kinds_of_summarizers(summarizer, timeout):
    chain = OverflowChain([Summarise(summarizer, timeout=timeout)])
    window = window_of(10)

    async def within_a_loop():
        return chain.reduce(window, 1000, count)

    for result in (
        chain.reduce(window, 1000, count),
        asyncio.run(chain.areduce(window, 1000, count)),
        asyncio.run(within_a_loop()),
    ):
        assert not result.report.problems
        assert "Gist of" in all_messages(result)[0].content


def test_a_coroutine_function_is_awaited_on_the_loop_that_runs():
    async def run():
        loop, seen = asyncio.get_running_loop(), []

        async def summarizer(messages, tokens):
            seen.append(asyncio.get_running_loop() is loop)
            return "Gist."

        chain = OverflowChain([Summarise(summarizer)])
        await chain.areduce(window_of(10), 1000, count)
        return seen

    assert set(asyncio.run(run())) == {True}


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
@pytest.mark.parametrize("way", ["reduce", "areduce"])
def test_a_summarizer_that_hangs(kind, way):
    release = threading.Event()

    def hang(messages, tokens):
        release.wait(30)
        return "late"

    async def hang_later(messages, tokens):
        await asyncio.sleep(30)

    summarizer = hang if kind == "plain" else hang_later
    chain = OverflowChain([Summarise(summarizer, timeout=0.05, chunk=0.9)])
    try:
        if way == "reduce":
            result = chain.reduce(window_of(10), 1000, count)
        else:
            result = asyncio.run(chain.areduce(window_of(10), 1000, count))
    finally:
        release.set()
    assert "raised TimeoutError" in str(result.report.problems[0])
    assert result.report.after <= 700


HANGING = """
import threading
from ctxpool.context import Group, Message, OverflowChain, Summarise
def hang(messages, tokens):
    threading.Event().wait()
window = [Group((Message("user", f"Fact {n}. " * 40),), 100) for n in range(10)]
chain = OverflowChain([Summarise(hang, timeout=0.05)])
print(chain.reduce(window, 1000, lambda m: len(m.text) // 4).report.problems[0].text)
"""


def test_a_summarizer_that_hangs_does_not_hold_up_the_end():
    child = subprocess.run(
        [sys.executable, "-c", HANGING], capture_output=True, text=True, timeout=60
    )
    assert (child.returncode, child.stderr) == (0, "")
    assert "raised TimeoutError" in child.stdout


def test_what_is_cancelled_changes_nothing_but_the_store():
    async def run(store):
        begun = asyncio.Event()

        async def summarizer(messages, tokens):
            begun.set()
            await asyncio.sleep(30)

        window = window_of(10)
        chain = OverflowChain([Summarise(summarizer), Spill(store)])
        work = asyncio.create_task(chain.areduce(window, 1000, count))
        await asyncio.wait_for(begun.wait(), 30)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        assert "m0" in store  # it is there before the summarizer is asked
        assert chain.reduce(window, 5000, count).groups == window

    with SpillStore(":memory:") as store:
        asyncio.run(run(store))


def test_nothing_shorter_can_be_said():
    asked = []

    def same(text, tokens):
        asked.append(text)
        return text

    summarise = Summarise(compressor=same, keep=0, chunk=0.3)
    result = reduced(summarise, window_of(6), 600)
    assert not result.report.actions
    assert len(asked) == 2  # each run once


def test_an_extractor_that_fails_too_leaves_it_to_the_next():
    def fail(text, tokens):
        raise ZeroDivisionError("no text")

    summarise = Summarise(failing, compressor=fail)
    result = reduced(summarise, window_of(10), 1000, Evict())
    told = [problem.text for problem in result.report.problems]
    assert "ZeroDivisionError: no text" in told
    assert result.report.saved_by().keys() == {"evict"}


def test_an_evicted_summary_still_leads_to_its_originals():
    with SpillStore(":memory:") as store:
        window = window_of(10)
        chain = OverflowChain([Summarise(gist), Evict(to=0.3, keep=1), Spill(store)])
        first = chain.reduce(window, 1000, count)
        second = chain.reduce([*first.groups, *window_of(2)], 400, count)
        assert second.report.fits
        assert chain.restore(all_messages(first)[0])[0] == window[0].messages[0]
        assert not any(found.message.sources for found in store.history())


@pytest.mark.parametrize(
    ("settings", "error", "told"),
    [
        ({"summarizer": "gpt"}, TypeError, "summarizer must be a callable, not 'gpt'"),
        ({"compressor": 7}, TypeError, "compressor must be a callable, not 7"),
        ({"fan_in": 1}, ValueError, "fan_in must be from 2"),
        ({"slack": -1}, ValueError, "slack must not be negative, not -1"),
        ({"slack": "a"}, TypeError, "slack must be a number, not 'a'"),
        ({"timeout": -1}, ValueError, "timeout must not be negative"),
        ({"role": "tool"}, ValueError, "role must be one of .*, not 'tool'"),
        ({"chunk": 0}, ValueError, "chunk must be more than 0"),
        ({"to": "x"}, TypeError, "to must be a number, not 'x'"),
    ],
    ids=[
        "summarizer",
        "compressor",
        "fan",
        "slack",
        "text",
        "time",
        "role",
        "chunk",
        "to",
    ],
)
def test_wrong_settings(settings, error, told):
    with pytest.raises(error, match=told):
        Summarise(**settings)
