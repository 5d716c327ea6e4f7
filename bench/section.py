"""A part of a benchmark: measured at one go, printed, judged."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bar import Bar

__all__ = ["Findings", "Section"]


@dataclass(frozen=True)
class Findings:
    text: str
    rows: list[dict[str, Any]]
    bars: list[Bar] = field(default_factory=list)


@dataclass(frozen=True)
class Section:
    title: str
    run: Callable[[], Findings]
