"""What a memory remembers of a long conversation, under several budgets.

The conversation and the questions are those of ``ctxpool chat``: 414 messages in three
weeks, tool results included, and 92 questions whose answers were said 3 to 390 messages
before. A fact is answerable if one of its accepted answers is in what the memory would
send to a model at that moment. All memories meet the same messages, in turns in one
process. "everything" sends all that was said, at its price. A turn is what a user says
and all that follows until the next time; its time is that of taking all of it in, and
of making the context once.

Bias. We wrote the conversation and the questions, before we measured; most questions
share a word with their answers, as those of people who know what they look for. That an
answer is in the context does not say that a model finds it there. Where we lose: who
drops the oldest messages spends microseconds on a turn, and we spend milliseconds.
"""

from collections.abc import Callable, Iterator
from typing import Any

from bar import Bar
from section import Findings, Section

from ctxpool.cli import chat_report, memories
from ctxpool.cli.conversation import CONVERSATION, FACTS, read, read_facts
from ctxpool.cli.replay import Replay
from ctxpool.context import MessageCounter

__all__ = ["sections"]

BUDGETS = (6_500, 8_000, 16_000, 32_000)
GAIN = {6_500: 2.0, 8_000: 2.0, 16_000: 1.5, 32_000: 1.1}  # times truncation's facts


def replayed(budget: int) -> Findings:
    messages = read(CONVERSATION)
    facts = read_facts(FACTS, messages)
    count = MessageCounter()
    made: list[memories.Memory] = [memories.Everything()]
    made += [memories.make(name, budget, count) for name in memories.MEMORIES]
    try:
        replay = Replay(messages, facts, made, count)
        replay.run(0, lambda turn: None)
    finally:
        for memory in made:
            memory.close()
    result = chat_report.build(
        replay.tracks,
        conversation="shipped",
        questions=None,
        messages=len(messages),
        resumed_after=0,
        tokens=sum(map(count, messages)),
        budget=budget,
        tokenizer="heuristic",
    )
    rows = [row(name, found, budget) for name, found in result["memories"].items()]
    return Findings(chat_report.summary(result), rows, list(bars(rows, budget)))


def row(name: str, found: dict[str, Any], budget: int) -> dict[str, Any]:
    return {
        "name": name,
        "budget": budget,
        "asked": found["facts"]["asked"],
        "answered": found["facts"]["answered"],
        "stale": found["facts"]["stale"],
        "mean_tokens": found["tokens"]["mean"],
        "max_tokens": found["tokens"]["max"],
        **{f"turn_{figure}": ns for figure, ns in found["turn"].items()},
    }


def bars(rows: list[dict[str, Any]], budget: int) -> Iterator[Bar]:
    by_name = {row["name"]: row for row in rows}
    cut = by_name["truncation"]["answered"]
    for name in ("overflow", "hierarchical"):
        found = by_name[name]
        note = f"{found['answered']} and {cut} of {found['asked']}"
        what = f"{name}: facts, to truncation's, {budget:,} tokens"
        yield Bar(what, found["answered"] / max(cut, 1), GAIN[budget], "x", note, True)
        what = f"{name}: tokens sent at most, {budget:,} tokens"
        yield Bar(what, found["max_tokens"], budget, "tok")


def sections(quick: bool, progress: Callable[[str], None]) -> Iterator[Section]:
    for budget in BUDGETS[1:2] if quick else BUDGETS:

        def run(budget: int = budget) -> Findings:
            progress(f"chat, {budget:,} tokens")
            return replayed(budget)

        yield Section(f"chat: a long conversation in {budget:,} tokens", run)
