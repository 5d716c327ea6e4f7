"""The figures of a replayed conversation, as a dict for JSON and as tables."""

import math
from collections.abc import Sequence
from typing import Any

from .. import __version__, backend
from .replay import Answer, Step, Track

__all__ = ["HEADER", "build", "line", "summary"]

SCHEMA = 1
_DONE = ("compress", "summarise", "evicted", "spilled")
_DISTANCES = ((0, 20), (21, 60), (61, 150), (151, None))
_MISSED = 12

HEADER = (
    "                tokens sent         brought   messages of this turn and before\n"
    "turn  msgs    kept  short  recall  back  compr  summ  evict  spill      ms  facts"
)
LEGEND = """\
kept: messages as they were; short: compressed or summarised; recall: brought back.
evict: gone for good; spill: gone from the window into a store that can be searched.
facts: questions whose answer is in what the memory would send at that moment."""


def line(step: Step) -> str:
    """A step as a line below :data:`HEADER`."""
    asked = len(step.answers)
    right = sum(answer.answered for answer in step.answers)
    done = [step.done[name] or "" for name in _DONE]
    return (
        f"{step.turn:4} {step.messages:5} {step.kept:7,} {step.shortened:6,} "
        f"{step.recalled:7,} {step.items or '':5} "
        f"{done[0]:6} {done[1]:5} {done[2]:6} {done[3]:6} "
        f"{step.ns / 1e6:7.2f}  {f'{right} of {asked}' if asked else ''}"
    ).rstrip()


# ---- The dict ----


def percentile(values: Sequence[int], percent: float) -> int | None:
    """The nearest rank; None of no values."""
    if not values:
        return None
    ranked = sorted(values)
    return ranked[max(math.ceil(len(ranked) * percent / 100) - 1, 0)]


def _times(values: Sequence[int]) -> dict[str, int | None]:
    return {
        "count": len(values),
        "p50_ns": percentile(values, 50),
        "p99_ns": percentile(values, 99),
        "max_ns": max(values, default=None),
    }


def _score(answers: Sequence[Answer]) -> dict[str, int]:
    return {
        "asked": len(answers),
        "answered": sum(answer.answered for answer in answers),
        "stale": sum(answer.stale for answer in answers),
    }


def _near(answer: Answer, bounds: tuple[int, int | None]) -> bool:
    low, high = bounds
    return low <= answer.fact.distance and (
        high is None or answer.fact.distance <= high
    )


def _label(bounds: tuple[int, int | None]) -> str:
    low, high = bounds
    return f"{low}+" if high is None else f"{low}-{high}"


def _memory(track: Track) -> dict[str, Any]:
    answers = track.answers
    kinds = sorted({answer.fact.kind for answer in answers})
    spoken = [step for step in track.steps if step.tokens]
    sent = [step.tokens for step in spoken]
    return {
        "about": track.memory.about,
        "facts": {
            **_score(answers),
            "by_kind": {
                kind: _score([a for a in answers if a.fact.kind == kind])
                for kind in kinds
            },
            "by_distance": {
                _label(bounds): _score([a for a in answers if _near(a, bounds)])
                for bounds in _DISTANCES
            },
            "missed": [
                {
                    "id": answer.fact.id,
                    "question": answer.fact.question,
                    "kind": answer.fact.kind,
                    "distance": answer.fact.distance,
                    "stale": answer.stale,
                }
                for answer in answers
                if not answer.answered
            ],
        },
        "tokens": {
            "mean": round(sum(sent) / len(sent)) if sent else 0,
            "max": max([*sent, *(answer.tokens for answer in answers)], default=0),
        },
        "turn": _times([step.ns for step in track.steps]),
        "question": _times([answer.ns for answer in answers]),
        "done": {name: sum(step.done[name] for step in track.steps) for name in _DONE},
        "turns": [_step(step) for step in track.steps],
    }


def _step(step: Step) -> dict[str, Any]:
    return {
        "turn": step.turn,
        "messages": step.messages,
        "kept": step.kept,
        "shortened": step.shortened,
        "recalled": step.recalled,
        "items": step.items,
        **{name: step.done[name] for name in _DONE},
        "ns": step.ns,
        **_score(step.answers),
    }


def build(
    tracks: Sequence[Track],
    *,
    conversation: str,
    questions: str | None,
    messages: int,
    resumed_after: int,
    tokens: int,
    budget: int,
    tokenizer: str,
) -> dict[str, Any]:
    """All figures of a replay; plain data, ready for JSON."""
    return {
        "schema": SCHEMA,
        "command": "ctxpool chat",
        "version": __version__,
        "backend": backend,
        "conversation": conversation,
        "questions": questions,
        "messages": messages,
        "resumed_after": resumed_after,
        "tokens": tokens,
        "budget": budget,
        "tokenizer": tokenizer,
        "memories": {track.memory.name: _memory(track) for track in tracks},
    }


# ---- The tables ----


def header(result: dict[str, Any]) -> str:
    """What was replayed, under which budget."""
    return (
        f"{result['messages']:,} messages, {result['tokens']:,} tokens; budget "
        f"{result['budget']:,} tokens ({result['tokenizer']}); "
        f"{result['backend']} back end"
    )


def summary(result: dict[str, Any]) -> str:
    """The memories beside one another, and what the last of them missed."""
    memories = result["memories"]
    lines = [header(result), ""]
    lines += [f"{name:13} {found['about']}" for name, found in memories.items()]
    asked = next(iter(memories.values()))["facts"]["asked"]
    if asked:
        lines += ["", *_facts(memories, asked)]
    lines += ["", *_costs(memories)]
    if asked:
        lines += _missed(memories)
    return "\n".join(lines)


def _facts(memories: dict[str, Any], asked: int) -> list[str]:
    distances = [_label(bounds) for bounds in _DISTANCES]
    first = next(iter(memories.values()))["facts"]["by_distance"]
    counts = [f"{first[d]['asked']}" for d in distances]
    lines = [
        "answerable facts, also by how many messages ago the answer was last said",
        f"{'':13} {'all':>9} {'':>5} {'stale':>6}"
        + "".join(f"{distance:>9}" for distance in distances),
        f"{'asked':13} {asked:9} {'':5} {'':6}"
        + "".join(f"{count:>9}" for count in counts),
    ]
    for name, found in memories.items():
        facts = found["facts"]
        share = facts["answered"] / facts["asked"]
        cells = [facts["by_distance"][d]["answered"] for d in distances]
        lines.append(
            f"{name:13} {facts['answered']:9} {share:5.0%} {facts['stale']:6}"
            + "".join(f"{cell:9}" for cell in cells)
        )
    return lines


def _costs(memories: dict[str, Any]) -> list[str]:
    lines = [
        f"{'':13} {'tokens sent':>15} {'ms per turn':>23} {'ms per question':>23}",
        f"{'':13} {'mean':>7} {'max':>7}" + f" {'p50':>7} {'p99':>7} {'max':>7}" * 2,
    ]
    for name, found in memories.items():
        lines.append(
            f"{name:13} {found['tokens']['mean']:7,} {found['tokens']['max']:7,}"
            + "".join(
                f" {_ms(found[what][figure]):>7}"
                for what in ("turn", "question")
                for figure in ("p50_ns", "p99_ns", "max_ns")
            )
        )
    return lines


def _ms(ns: int | None) -> str:
    return "-" if ns is None else f"{ns / 1e6:.2f}"


def _missed(memories: dict[str, Any]) -> list[str]:
    name, found = list(memories.items())[-1]
    missed = found["facts"]["missed"]
    if not missed:
        return ["", f"{name} missed none."]
    lines = ["", f"missed by {name}:"]
    for one in missed[:_MISSED]:
        why = ", only what held before" if one["stale"] else ""
        question = one["question"]
        if len(question) > 60:
            question = question[:57] + "..."
        lines.append(f"  {question} ({one['distance']} messages ago{why})")
    if len(missed) > _MISSED:
        lines.append(f"  and {len(missed) - _MISSED} more")
    return lines
