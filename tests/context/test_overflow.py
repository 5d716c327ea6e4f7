"""The chain: thresholds, order, failures, provenance."""

import asyncio
import json
import random
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxpool.context import (
    Compress,
    ContextWindow,
    Evict,
    Group,
    Message,
    OverflowChain,
    OverflowStrategy,
    Spill,
    SpillStore,
    Summarise,
    ToolCall,
)

WORDS = (
    "server database error pool timeout config deploy cache user request latency",
    "build test commit branch memory index query table schema token retry limit",
)


def count(message):
    """A token for four characters, and four for the message."""
    return 4 + len(message.text) // 4


def group(*messages, pinned=False):
    return Group(messages, sum(map(count, messages)), pinned)


def text(rng, sentences):
    def sentence():
        words = " ".join(
            rng.choice(" ".join(WORDS).split()) for _ in range(rng.randint(5, 15))
        )
        return f"{words.capitalize()} {rng.randint(0, 9999)}."

    return " ".join(sentence() for _ in range(sentences))


def talk(turns, seed=1):
    """A system message, pinned, and turns with a tool's result in each second one."""
    rng = random.Random(seed)
    made = [group(Message("system", "You are of help.", id="sys"), pinned=True)]
    for i in range(turns):
        made.append(group(Message("user", text(rng, 2), id=f"u{i}")))
        if i % 2:
            call = ToolCall(f"c{i}", "read", '{"path": "a.py"}')
            made.append(
                group(
                    Message("assistant", tool_calls=(call,), id=f"c{i}"),
                    Message("tool", text(rng, 12), tool_call_id=f"c{i}", id=f"r{i}"),
                )
            )
        made.append(group(Message("assistant", text(rng, 5), id=f"a{i}")))
    return made


def ids(groups):
    return [message.id for group in groups for message in group.messages]


def tokens(groups):
    return sum(each.tokens for each in groups)


@pytest.fixture
def store():
    with SpillStore(":memory:") as store:
        yield store


class Step:
    """A strategy that does what it is told to."""

    def __init__(self, do, to=0.5, name="step"):
        self.do, self.to, self.name = do, to, name

    def apply(self, draft):
        self.do(draft)


def test_below_the_start_nothing_is_done():
    window = talk(10)
    called = []
    chain = OverflowChain([Step(called.append)])
    result = chain.reduce(window, tokens(window) * 2, count)
    assert result.groups == window
    assert result.groups is not window
    assert (result.report.actions, result.removed, called) == ((), [], [])
    assert result.report.saved == 0
    assert chain.reduce([], 10, count).groups == []


def test_the_default_goes_only_as_far_as_it_must(store):
    """90 % -> 70 % by compression alone; the next steps have nothing to do."""
    window = talk(40)
    budget = int(tokens(window) / 0.95)
    chain = OverflowChain([Compress(), Summarise(), Evict(), Spill(store)])
    result = chain.reduce(window, budget, count)
    assert set(result.report.saved_by()) == {"compress"}
    assert 0.6 * budget < result.report.after <= 0.7 * budget
    assert ids(result.groups)[0] == "sys"
    assert ids(result.groups)[-4:] == ids(window)[-4:]
    back = [m for g in result.groups for m in g.messages for m in chain.restore(m)]
    assert back == [m for g in window for m in g.messages]
    assert result.removed == store.get_many(m.id for m in result.removed)


def test_each_step_takes_over_where_the_one_before_ends(store):
    window = talk(40)
    budget = tokens(window) // 4
    chain = OverflowChain(
        [
            Compress(ratio=0.8),
            Summarise(keep=60),
            Evict(keep=30),
            Spill(store, min_tokens=64, preview=8),
        ]
    )
    report = chain.reduce(window, budget, count).report
    assert list(report.saved_by()) == ["compress", "summarise", "evict", "spill"]
    assert report.fits
    assert report.after <= 0.8 * budget
    assert not report.problems


def test_a_report_reads(store):
    window = talk(30)
    chain = OverflowChain([Compress(), Evict(), Spill(store)])
    report = chain.reduce(window, tokens(window) // 3, count).report
    assert report.saved == report.before - report.after > 0
    assert sum(report.saved_by().values()) == report.saved
    told = report.as_dict()
    assert json.loads(json.dumps(told)) == told
    assert told["saved"] == report.saved
    assert told["actions"][0]["strategy"] == "compress"
    lines = str(report).splitlines()
    assert lines[0].endswith(f"{report.saved:,} saved")
    assert [line.split(":")[0] for line in lines[1:]] == ["  compress", "  evict"]


def test_a_strategy_that_raises_is_reported_and_the_next_one_goes_on(store):
    window = talk(10)

    def half(draft):
        draft.drop([1])
        raise ZeroDivisionError("no more")

    chain = OverflowChain(
        [Step(half, name="half"), Evict(to=0.5, keep=0), Spill(store)]
    )
    result = chain.reduce(window, tokens(window), count)
    assert [str(p) for p in result.report.problems] == [
        "half: ZeroDivisionError: no more"
    ]
    assert "! half: ZeroDivisionError" in str(result.report)
    assert result.report.saved_by().keys() == {"half", "evict"}
    assert store["u0"] == window[1].messages[0]
    assert result.report.after <= result.report.budget / 2


def test_what_a_draft_refuses():
    window = talk(4)
    refused = []

    def attempt(draft):
        old = draft[1].messages[0]
        for call in (
            lambda: draft.drop([0]),
            lambda: draft.replace(0, 2, [old]),
            lambda: draft.drop([99]),
            lambda: draft.replace(1, 1, [old]),
            lambda: draft.replace(1, 2, []),
            lambda: draft.replace(1, 2, [Message("user", "no number")]),
        ):
            try:
                call()
            except (ValueError, IndexError, TypeError) as error:
                refused.append(str(error))
        assert list(draft) == window

    def counted(message):
        return "many" if message.content == "no number" else count(message)

    OverflowChain([Step(attempt)]).reduce(window, tokens(window), counted)
    assert refused == [
        "sys is pinned",
        "sys is pinned",
        "no group 99 of 11",
        "no groups 1 to 1 of 11",
        "a group needs a message: drop() removes groups",
        "the count of a message must be a whole number, not 'many'",
    ]


def test_a_store_that_fails_loses_nothing():
    window = talk(10)
    store = SpillStore(":memory:")
    chain = OverflowChain([Compress(), Summarise(), Evict(), Spill(store)])
    store.close()
    result = chain.reduce(window, tokens(window), count)
    assert result.groups == window
    assert not result.removed
    problems = result.report.problems
    assert [p.strategy for p in problems] == ["compress", "summarise", "evict", "spill"]
    assert all("was closed" in p.text for p in problems)


def test_what_the_store_cannot_hold_stays_and_the_rest_goes(store):
    window = talk(10)
    odd = Message("user", "x" * 400, metadata={"at": object()}, id="odd")
    again = Message("user", "y" * 400, id="u1")  # another one with an id of the talk's
    window[3:3] = [group(odd), group(again)]
    chain = OverflowChain([Compress(), Summarise(), Evict(keep=0), Spill(store)])
    result = chain.reduce(window, tokens(window) // 3, count)
    left = [m for g in result.groups for m in g.messages]
    assert odd in left
    assert result.report.fits
    assert "message 'odd' can't be stored: JSON can't hold metadata['at']" in str(
        result.report
    )
    for message in (m for g in window for m in g.messages):
        assert (
            message in left or store[message.id] == message or message in (odd, again)
        )


def test_a_full_store_lets_go_and_says_so():
    window = talk(20)
    with SpillStore(":memory:", max_bytes=3000) as store:
        chain = OverflowChain([Evict(), Spill(store)])
        result = chain.reduce(window, tokens(window) // 3, count)
        assert result.report.fits
        assert result.report.forgotten
        assert len(store) == len(result.removed) - len(result.report.forgotten)
        assert "the store let go" in str(result.report)
        gone = result.report.forgotten[0]
        assert gone in [m.id for m in result.removed]


def test_restore_without_a_store():
    chain = OverflowChain()
    message = Message("user", "short", sources=("a",), id="s")
    with pytest.raises(KeyError, match="no store for the sources of 's'"):
        chain.restore(message)
    assert chain.restore(Message("user", id="a")) == [Message("user", id="a")]


@pytest.mark.parametrize(
    ("make", "error", "told"),
    [
        (lambda s: OverflowChain([7]), TypeError, "no strategy.*: 7"),
        (lambda s: OverflowChain([Evict]), TypeError, "no strategy"),
        (lambda s: OverflowChain([], start=0), ValueError, "start must be more than 0"),
        (lambda s: OverflowChain([Step(id, to=2)]), ValueError, "at most 1, not 2"),
        (lambda s: OverflowChain([Step(id, to="x")]), TypeError, "a number, not 'x'"),
        (
            lambda s: OverflowChain([Spill(s), Spill(SpillStore(":memory:"))]),
            ValueError,
            "one store",
        ),
        (lambda s: OverflowChain().reduce([7], 9, count), TypeError, "Group .*, not 7"),
        (lambda s: OverflowChain().reduce([], 0, count), ValueError, "budget"),
        (lambda s: OverflowChain().reduce([], 9, 7), TypeError, "count must be"),
    ],
    ids=[
        "object",
        "class",
        "start",
        "to",
        "to-text",
        "stores",
        "group",
        "zero",
        "count",
    ],
)
def test_wrong_arguments(store, make, error, told):
    with pytest.raises(error, match=told):
        make(store)


def test_strategies_are_known_by_their_methods(store):
    for strategy in (Compress(), Summarise(), Evict(), Spill(store), Step(id)):
        assert isinstance(strategy, OverflowStrategy)
    assert repr(OverflowChain([Evict()])) == (
        "OverflowChain([Evict(to=0.8, keep=2)], start=0.9)"
    )


def test_a_callback_may_use_the_chain_and_the_store(store):
    window = talk(10)
    inner = []

    def compressor(text, n):
        store.put([Message("user", text)])
        inner.append(OverflowChain([Evict()]).reduce(window, 500, count).report.fits)
        return text[: n * 4]

    chain = OverflowChain([Compress(compressor), Spill(store)])
    assert chain.reduce(window, tokens(window), count).report.fits
    assert inner
    assert all(inner)


def test_threads_share_a_chain(tmp_path):
    window = talk(12)
    budget = tokens(window) // 2
    with SpillStore(tmp_path / "s.db") as store:
        chain = OverflowChain([Compress(), Summarise(), Evict(), Spill(store)])
        want = chain.reduce(window, budget, count)
        found = []
        threads = [
            threading.Thread(
                target=lambda: found.append(chain.reduce(window, budget, count))
            )
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert [ids(result.groups) for result in found] == [ids(want.groups)] * 4


def test_areduce_does_the_same_beside_the_event_loop(store):
    window = talk(30)
    budget = tokens(window) // 3
    main = threading.get_ident()
    seen = set()

    def counted(message):
        seen.add(threading.get_ident())
        return count(message)

    async def run():
        chain = OverflowChain([Compress(), Summarise(), Evict(), Spill(store)])
        work = asyncio.create_task(chain.areduce(window, budget, counted))
        ticks = 0
        while not work.done():
            ticks += 1
            await asyncio.sleep(0)
        return chain, work.result(), ticks

    chain, result, ticks = asyncio.run(run())
    assert ids(result.groups) == ids(chain.reduce(window, budget, count).groups)
    assert main not in seen
    assert ticks > 1


def test_an_error_that_cannot_be_printed(store):
    class Mute(Exception):
        def __str__(self):
            raise ZeroDivisionError

    def fail(draft):
        raise Mute

    report = (
        OverflowChain([Step(fail), Spill(store)]).reduce(talk(9), 300, count).report
    )
    assert [problem.text for problem in report.problems] == ["Mute"]
    assert report.fits


def test_areduce_reports_failures_too(store):
    def fail(draft):
        raise StopIteration("odd")

    async def run():
        chain = OverflowChain([Step(fail), Spill(store)])
        return await asyncio.wait_for(chain.areduce(talk(9), 300, count), 30)

    report = asyncio.run(run()).report
    assert report.fits
    assert "StopIteration" in report.problems[0].text


def test_a_window_with_a_chain_loses_nothing(store):
    chain = OverflowChain([Compress(), Summarise(), Evict(), Spill(store)])
    gone = []
    window = ContextWindow(2000, overflow=chain, high_water=0.9, on_evict=gone.extend)
    said = [message for each in talk(80) for message in each.messages]
    for message in said:
        window.append(message)
        assert window.tokens <= 2000
    assert window.stats().reductions > 10
    assert window.stats().evicted == 0  # the chain has made room each time
    assert window.report.fits
    left = window.messages()
    assert left[0] is said[0]
    assert left[-1] is said[-1]
    there = {source for m in left for source in m.sources or (m.id,)}
    assert all(m.id in there or store[m.id] == m for m in said)
    assert any(len(m.sources) > 1 for m in left)
    back = {m.id: m for short in left for m in chain.restore(short)}
    assert all(back[m.id] == m for m in said if m.id in there)
    assert all(m.sources or m.id in store for group in gone for m in group.messages)


# Any window, any chain, callbacks that fail at any time.

contents = st.integers(0, 60).flatmap(
    lambda n: st.sampled_from(["word", "Fact 12.", "path/to_file", "ü"]).map(
        lambda word: " ".join([word] * n)
    )
)


@st.composite
def windows(draw):
    made = []
    for i, shape in enumerate(draw(st.lists(st.sampled_from("uupats"), max_size=14))):
        content = draw(contents)
        if shape == "t":
            call = ToolCall(f"c{i}", "read")
            made.append(
                group(
                    Message("assistant", tool_calls=(call,), id=f"call{i}"),
                    Message("tool", content, tool_call_id=f"c{i}", id=f"m{i}"),
                )
            )
        elif shape == "s":
            sources = (f"old{i}", f"older{i}")
            made.append(group(Message("user", content, id=f"m{i}", sources=sources)))
        else:
            role = "assistant" if shape == "a" else "user"
            message = Message(role, content, id=f"m{i}")
            made.append(group(message, pinned=shape == "p"))
    return made


class Failing:
    """A callback that does what a list of numbers says, over and over."""

    def __init__(self, plan, normal):
        self.plan, self.normal, self.calls = plan, normal, 0

    def __call__(self, *args):
        self.calls += 1
        do = self.plan[self.calls % len(self.plan)] if self.plan else 0
        if do == 1:
            raise ZeroDivisionError
        return {0: self.normal(*args), 2: "", 3: None, 4: "long " * 500}[do]


plans = st.lists(st.integers(0, 4), max_size=4)


def steps(plan, store):
    """Strategies in all sizes, with callbacks that fail by *plan*."""
    short = Failing(plan, lambda text, n: text[: n * 4])
    told = Failing(plan, lambda messages, n: "Gist." + "x" * n)
    worth = Failing(
        [0 if n > 1 else n for n in plan], lambda group, age, uses: -float(age)
    )
    return {
        "C": lambda: Compress(min_tokens=4, keep=1),
        "c": lambda: Compress(short, min_tokens=1, ratio=0.5, keep=0),
        "S": lambda: Summarise(min_tokens=8, keep=1),
        "s": lambda: Summarise(
            told, compressor=short, min_tokens=1, keep=0, fan_in=2, ratio=0.5
        ),
        "E": lambda: Evict(),
        "e": lambda: Evict(worth, to=0.4, keep=0),
        "P": lambda: Spill(store, min_tokens=16, preview=4),
        "p": lambda: Spill(store, to=0.3),
    }


@given(windows(), st.text("CcSsEePp", max_size=5), plans, st.integers(1, 120))
def test_whatever_happens(window, kinds, plan, percent):
    whole = tuple(window)
    budget = max(tokens(window) * percent // 100, 1)
    results = []
    with SpillStore(":memory:") as store:
        for _ in range(2):
            made = steps(plan, store)
            chain = OverflowChain([made[kind]() for kind in kinds])
            results.append(chain.reduce(window, budget, count))
        result = results[0]
        groups, report = result.groups, result.report
        assert tuple(window) == whole

        # The same again gives the same again.
        assert groups == results[1].groups
        assert ids(groups) == ids(results[1].groups)

        # The counts are right, and what is pinned is untouched, in its place.
        assert report.after == tokens(groups) == sum(tokens_of(g) for g in groups)
        assert report.before == tokens(window)
        assert [g for g in groups if g.pinned] == [g for g in window if g.pinned]

        # A result has its call, and a call its result.
        for each in groups:
            calls = [c.id for m in each.messages for c in m.tool_calls]
            assert calls == [m.tool_call_id for m in each.messages if m.tool_call_id]

        # It fits whenever it can.
        if "p" in kinds.lower() and tokens(g for g in window if g.pinned) <= budget:
            assert report.fits

        # Order is kept: what each message stands for begins where it did.
        order = [s for g in window for m in g.messages for s in m.sources or (m.id,)]
        firsts = [(m.sources or (m.id,))[0] for g in groups for m in g.messages]
        assert [order.index(first) for first in firsts] == sorted(
            order.index(first) for first in firsts
        )

        # Every message is there, or was handed back, and is in the store.
        left, removed = ids(groups), [message.id for message in result.removed]
        known = {s for g in groups for m in g.messages for s in m.sources} | set(left)
        for message in (m for g in window for m in g.messages):
            assert (message.id in left) != (message.id in removed)
            if message.id not in left and chain.store is not None:
                assert message.sources or store[message.id] == message
                assert message.id in store or known.issuperset(message.sources)
        if chain.store is not None:
            for message in (
                m for g in groups for m in g.messages if m.id.find("-") > 0
            ):
                back = chain.restore(message, partial=True)
                assert {m.id for m in back} >= set(message.sources) - {
                    s for s in message.sources if s.startswith("old")
                }


def tokens_of(each: Group) -> int:
    return sum(map(count, each.messages))
