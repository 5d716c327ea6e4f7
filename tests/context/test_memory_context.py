"""What a HierarchicalMemory would send where its window holds no originals."""

import pytest

from ctxpool.context import (
    Compress,
    Evict,
    HierarchicalMemory,
    OverflowChain,
    Summarise,
)

SECRET = "The combination of the safe is 48-15-16."
NOISE = "Nothing of note happened on this day, and the weather was as dull as ever. "


@pytest.mark.parametrize(
    "strategy",
    [
        Summarise(lambda messages, tokens: "Some days went by."),
        Compress(lambda text, tokens: "Short."),
    ],
)
def test_an_original_is_recalled_though_something_stands_for_it(strategy) -> None:
    chain = OverflowChain([strategy, Evict(keep=1)])
    with HierarchicalMemory(budget=600, overflow=chain, clock=lambda: 0.0) as memory:
        memory.process_input(f"{SECRET} {NOISE * 5}")
        for day in range(12):
            memory.process_input(f"Day {day}. {NOISE * 3}")
        window = memory.working.messages()
        assert not any("48-15-16" in message.text for message in window)
        context = memory.context("What is the combination of the safe?")
        assert any("48-15-16" in message.text for message in context.messages)
        assert context.tokens <= 600
        found = memory.recall("combination of the safe", 10)
        (original,) = (one for one in found if NOISE in one.text and SECRET in one.text)
        assert original.tier == "episodic"


def test_context_changes_nothing() -> None:
    with HierarchicalMemory(budget=600, clock=lambda: 0.0) as memory:
        for day in range(20):
            memory.process_input(f"Day {day}. {NOISE * 3}")
        before = memory.working.messages(), memory.episodic.episodes()
        context = memory.context("What happened on day 3?", k=2)
        assert (memory.working.messages(), memory.episodic.episodes()) == before
        assert context.message.content == "What happened on day 3?"
        assert 0 < len(context.episodes) <= 2
        taken = memory.process_input("What happened on day 3?", k=2)
        assert [e.episode.id for e in taken.episodes] == [
            e.episode.id for e in context.episodes
        ]
