"""A window under random use, beside a plain model of what a prompt may be."""

import random
from contextlib import suppress
from types import SimpleNamespace

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from ctxpool.context import ContextWindow, Group, Message, MessageCounter, ToolCall
from ctxpool.errors import BudgetExceededError, UnknownToolCallError


class Letters:
    """A token for each character."""

    def count(self, text):
        return len(text)

    def encode(self, text):
        return [ord(c) for c in text]


COUNT = MessageCounter(Letters(), per_message=1, per_call=0)


def cost(messages):
    return sum(map(COUNT, messages))


def assert_acceptable(prompt, users_first):
    """What providers demand: an assistant's calls are followed by all their results,
    unless they are the newest, and a user speaks first."""
    others = [m for m in prompt if m.role != "system"]
    if others and users_first:
        assert others[0].role == "user"
    waiting = set()
    for message in prompt:
        if message.role == "tool":
            assert message.tool_call_id in waiting, "an orphaned result"
            waiting.remove(message.tool_call_id)
            continue
        assert not waiting, "an unanswered call"
        waiting = {call.id for call in message.tool_calls}


def best(groups, budget, users_first):
    """The longest prompt by trial: from each group on, the oldest first."""
    fixed = [g.pinned or g.messages[0].role == "system" for g in groups]
    users = [i for i, g in enumerate(groups) if g.messages[0].role == "user"]
    spare = budget - sum(g.tokens for g, f in zip(groups, fixed, strict=True) if f)
    if spare < 0:
        return None
    for at in range(len(groups) + 1):
        kept = {i for i in range(len(groups)) if fixed[i] or i >= at}
        if users_first and at < len(groups):
            before = [i for i in users if i <= at]
            kept.update(before[-1:])
            roles = (groups[i].messages[0].role for i in sorted(kept))
            if next((r for r in roles if r != "system"), "user") != "user":
                continue
        if sum(groups[i].tokens for i in kept if not fixed[i]) <= spare:
            break
    chosen = [groups[i] for i in sorted(kept)]
    return [m for g in chosen if g is groups[-1] or whole(g) for m in g.messages]


def whole(group):
    return len(group.messages) == 1 + len(group.messages[0].tool_calls)


sizes = st.integers(0, 14)


class WindowMachine(RuleBasedStateMachine):
    @initialize(
        limit=st.integers(20, 120),
        marks=st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted),
        sink=st.integers(0, 3),
        overlap=st.integers(0, 20),
        max_bytes=st.none() | st.integers(300, 1500),
        start=st.sampled_from(["user", "user", "any"]),
    )
    def begin(self, limit, marks, sink, overlap, max_bytes, start):
        self.evicted = []
        self.window = ContextWindow(
            limit + 7,
            reserve=7,
            tokenizer=COUNT,
            low_water=marks[0],
            high_water=marks[1],
            sink=sink,
            overlap=overlap,
            max_bytes=max_bytes,
            start=start,
            on_evict=self.evicted.extend,
        )
        self.limit, self.users_first = limit, start == "user"
        self.added, self.pinned, self.calls, self.number = [], [], [], 0

    def add(self, role, size, pinned=False, **more):
        self.number += 1
        message = Message(role, f"{self.number:<{size}}"[:size], **more)
        before = list(self.window), self.window.tokens, self.window.stats()
        newest = self.window.groups()[-1:]
        try:
            self.window.append(message, pinned=pinned)
        except (BudgetExceededError, UnknownToolCallError):
            assert (list(self.window), self.window.tokens) == before[:2]
            assert self.window.stats() == before[2]
            return False
        except ValueError as error:
            if not pinned or "ahead of the first message of a user" not in str(error):
                raise
            assert self.window.stats() == before[2]
            return False
        self.added.append(message)
        if pinned or role == "system":
            self.pinned.append(message)
        if role != "tool":  # the newest is never dropped to make room for itself
            assert self.window.groups()[-1].messages[0] is message
        elif newest and message.tool_call_id in {
            call.id for call in newest[0].messages[0].tool_calls
        }:
            assert message in list(self.window)
        return True

    @rule(size=sizes)
    def user(self, size):
        self.add("user", size)

    @rule(size=sizes)
    def answer(self, size):
        self.add("assistant", size)

    @rule(size=st.integers(0, 6))
    def system(self, size):
        self.add("system", size)

    @rule(size=st.integers(0, 6), role=st.sampled_from(["user", "assistant"]))
    def pin(self, size, role):
        self.add(role, size, pinned=True)

    @rule(size=sizes, count=st.integers(1, 3), same=st.booleans())
    def call(self, size, count, same):
        ids = [f"{i if same else (self.number, i)}" for i in range(count)]
        calls = tuple(ToolCall(i, "f", "") for i in ids)
        if self.add("assistant", size, tool_calls=calls):
            self.calls += ids

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), size=sizes)
    def result(self, data, size):
        call = data.draw(st.sampled_from(self.calls[-4:]))
        if self.add("tool", size, tool_call_id=call):
            self.calls.remove(call)

    @rule(size=sizes)
    def orphan(self, size):
        assert not self.add("tool", size, tool_call_id="nobody's")

    @rule(sizes=st.lists(sizes, max_size=5))
    def extend(self, sizes):
        new = [Message("user", "x" * size) for size in sizes]
        before = list(self.window)
        try:
            self.window.extend(new)
        except BudgetExceededError:
            assert list(self.window) == before
        else:
            self.added += new

    @rule()
    def another(self):
        made = self.window.copy()
        assert made.messages() == self.window.messages()
        assert made.stats() == self.window.stats()
        made.check()
        self.window = made

    @rule(budget=st.integers(0, 130))
    def question(self, budget):
        expected = best(self.window.groups(), budget, self.users_first)
        if expected is None:
            for ask in (self.window.messages, self.window.fits):
                try:
                    ask(budget)
                except BudgetExceededError:
                    continue
                raise AssertionError("pinned messages do not fit")
            return
        prompt = self.window.messages(budget)
        assert prompt == expected
        assert cost(prompt) <= budget
        assert_acceptable(prompt, self.users_first)
        at = self.window.fits(budget)
        rest = [m for g in self.window.groups() if whole(g) for m in g.messages]
        if len(rest) == len(self.window):
            assert prompt[len(prompt) - (len(rest) - at) :] == rest[at:]

    @invariant()
    def holds(self):
        window = self.window
        window.check()
        prompt = window.messages()
        assert_acceptable(prompt, self.users_first)
        assert cost(prompt) <= self.limit
        assert window.tokens <= self.limit
        assert prompt == best(window.groups(), self.limit, self.users_first)
        held = [id(m) for m in window]
        # Nothing is lost, and but for results, which go to their calls, in order.
        gone = [id(m) for g in self.evicted for m in g.messages]
        assert sorted(held + gone) == sorted(map(id, self.added))
        place = {id(m): i for i, m in enumerate(self.added) if m.role != "tool"}
        for messages in (held, list(map(id, prompt))):
            places = [place[m] for m in messages if m in place]
            assert places == sorted(places)
        assert {id(m) for m in self.pinned} <= set(held)
        assert 0 <= window.stable_prefix <= window.tokens


TestWindow = WindowMachine.TestCase
TestWindow.settings = settings(max_examples=40, stateful_step_count=40)


class Scribbler:
    """Reduces at random: keeps, drops and replaces groups, raises, uses the window."""

    def __init__(self, rng):
        self.rng = rng

    def reduce(self, groups, budget, count):
        rng = self.rng
        if rng.random() < 0.1:
            raise ZeroDivisionError
        if rng.random() < 0.3:
            with suppress(BudgetExceededError):
                self.window.append(Message("user", "w" * rng.randint(0, 5)))
        if rng.random() < 0.05:
            self.window.clear()
        return SimpleNamespace(groups=[*self.scribbled(groups)])

    def scribbled(self, groups):
        for group in groups:
            chance = self.rng.random()
            if group.pinned or chance < 0.5:
                yield group
            elif chance > 0.7:
                ids = tuple(message.id for message in group.messages)
                role = self.rng.choice(["user", "system"])
                text = "s" * self.rng.randint(0, 4)
                yield Group((Message(role, text, sources=ids),), 1, chance > 0.98)


@pytest.mark.parametrize("seed", range(40))
def test_whatever_overflow_returns_the_window_is_whole(seed):
    rng = random.Random(seed)
    overflow, start = Scribbler(rng), rng.choice(["user", "user", "any"])
    overflow.window = window = ContextWindow(
        limit := rng.randint(10, 80),
        tokenizer=COUNT,
        overflow=overflow,
        high_water=rng.choice([0.5, 0.8, 1]),
        low_water=rng.choice([0, 0.3, 0.5]),
        overlap=rng.choice([0, 5]),
        sink=rng.choice([0, 1, 2]),
        start=start,
    )
    calls = []
    for number in range(60):
        kind, text = rng.random(), "x" * rng.randint(0, 8)
        if kind < 0.6:
            role = "user" if kind < 0.35 else "assistant"
            message, pinned = Message(role, text), rng.random() < 0.05
        elif kind < 0.8 or not calls:
            calls += (made := [f"{number}.{n}" for n in range(rng.randint(1, 2))])
            asked = tuple(ToolCall(call, "f", "") for call in made)
            message, pinned = Message("assistant", text, asked), False
        else:
            call = calls.pop(rng.randrange(len(calls)))
            message, pinned = Message("tool", text, tool_call_id=call), False
        expected = ValueError, UnknownToolCallError, ZeroDivisionError
        with suppress(*expected):
            window.append(message, pinned=pinned)
        window.check()
        assert window.tokens <= limit
        prompt = window.messages()
        assert prompt == best(window.groups(), limit, start == "user")
        assert_acceptable(prompt, start == "user")
