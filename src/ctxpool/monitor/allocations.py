"""What a tracer found: allocations by stack, and what can be made of them."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from .._arguments import choice
from ..sizes import format_size

__all__ = [
    "AllocationSnapshot",
    "Frame",
    "LineUsage",
    "OperationUsage",
    "Stack",
    "Usage",
]

Measure = Literal["live_bytes", "live_count", "bytes", "count"]
_MEASURES = ("live_bytes", "live_count", "bytes", "count")


class Frame(NamedTuple):
    """A place in a program: the file, the line (0: unknown) and the function in it."""

    file: str
    line: int
    function: str

    def __str__(self) -> str:
        return f"{self.function} ({self.file}:{self.line})"


class Stack(NamedTuple):
    """Who called: the innermost operation that was traced, and the frames, the
    outermost first. Without frames: no Python code was running."""

    operation: str | None
    frames: tuple[Frame, ...]


@dataclass(frozen=True, slots=True)
class Usage:
    """Estimates, from a sample: of all that was allocated, and of what is alive.

    Attributes
    ----------
    bytes, count : float
        Allocated since the tracer was started, freed or not.
    live_bytes, live_count : float
        Of these, not yet freed.
    """

    bytes: float = 0.0
    count: float = 0.0
    live_bytes: float = 0.0
    live_count: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.bytes + other.bytes,
            self.count + other.count,
            self.live_bytes + other.live_bytes,
            self.live_count + other.live_count,
        )

    def __sub__(self, other: Usage) -> Usage:
        return Usage(
            self.bytes - other.bytes,
            self.count - other.count,
            self.live_bytes - other.live_bytes,
            self.live_count - other.live_count,
        )


@dataclass(frozen=True, slots=True)
class LineUsage(Usage):
    """What one line allocated itself, from whatever callers."""

    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.file else "(no Python code)"


@dataclass(frozen=True, slots=True)
class OperationUsage(Usage):
    """What was allocated within one traced operation, and in none within it."""

    operation: str | None = None

    def __str__(self) -> str:
        return "(no operation)" if self.operation is None else self.operation


class AllocationSnapshot(Mapping[Stack, Usage]):
    """Allocations by the stacks that made them: a mapping of stack to usage.

    Parameters
    ----------
    usages : mapping of Stack to Usage
        What was allocated at exactly that stack.
    mean : float
        Bytes between two samples, on the average. What is far below it is chance.

    Notes
    -----
    An estimate of *n* samples is off by about ``1 / sqrt(n)`` of itself; of a line that
    holds *b* bytes there are about ``b / mean`` samples.

    **Thread-safety**: it never changes.
    """

    def __init__(self, usages: Mapping[Stack, Usage], mean: float) -> None:
        self._usages = dict(usages)
        self.mean = mean

    def __getitem__(self, stack: Stack) -> Usage:
        return self._usages[stack]

    def __iter__(self) -> Iterator[Stack]:
        return iter(self._usages)

    def __len__(self) -> int:
        return len(self._usages)

    @property
    def total(self) -> Usage:
        """All stacks together."""
        return sum(self._usages.values(), Usage())

    def lines(
        self, by: Measure = "live_bytes", limit: int | None = None
    ) -> list[LineUsage]:
        """Usage by the line that allocated, most first.

        Parameters
        ----------
        by : {"live_bytes", "live_count", "bytes", "count"}
            What they are ordered by.
        limit : int, optional
            How many, at most.
        """
        choice("by", by, _MEASURES)
        sums: dict[tuple[str, int], Usage] = defaultdict(Usage)
        for (_, frames), usage in self._usages.items():
            at = (frames[-1].file, frames[-1].line) if frames else ("", 0)
            sums[at] += usage
        found = [
            LineUsage(u.bytes, u.count, u.live_bytes, u.live_count, file, line)
            for (file, line), u in sums.items()
        ]
        found.sort(key=lambda each: (-getattr(each, by), each.file, each.line))
        return found[:limit]

    def operations(self, by: Measure = "live_bytes") -> list[OperationUsage]:
        """Usage by the operation that was traced, most first; see :func:`trace`."""
        choice("by", by, _MEASURES)
        sums: dict[str | None, Usage] = defaultdict(Usage)
        for stack, usage in self._usages.items():
            sums[stack.operation] += usage
        found = [
            OperationUsage(u.bytes, u.count, u.live_bytes, u.live_count, name)
            for name, u in sums.items()
        ]
        found.sort(key=lambda each: (-getattr(each, by), each.operation or ""))
        return found

    def since(self, older: AllocationSnapshot) -> AllocationSnapshot:
        """What came and went between *older* and this one: negative where more was
        freed than allocated. Stacks of which nothing changed are left out."""
        changes = {}
        for stack in self._usages.keys() | older._usages.keys():
            change = self._usages.get(stack, Usage()) - older._usages.get(
                stack, Usage()
            )
            if change != Usage():
                changes[stack] = change
        return AllocationSnapshot(changes, self.mean)

    # -- for the eye -------------------------------------------------------------------

    def report(self, limit: int = 10, by: Measure = "live_bytes") -> str:
        """A table of the lines that allocated most, with their share."""
        whole = getattr(self.total, by)
        rows = []
        for each in self.lines(by, limit):
            value = getattr(each, by)
            share = 100 * value / whole if whole else 0.0
            said = format_size(value) if by.endswith("bytes") else f"{value:,.0f}"
            rows.append(f"{said:>12}  {share:5.1f} %  {each}")
        return "\n".join(rows)

    def _weighted(self, by: Measure) -> Iterable[tuple[list[str], int]]:
        choice("by", by, _MEASURES)
        for (operation, frames), usage in sorted(
            self._usages.items(), key=lambda item: (item[0].operation or "", item[0][1])
        ):
            weight = round(getattr(usage, by))
            if weight > 0:
                names = [str(frame) for frame in frames] or ["(no Python code)"]
                yield ([operation] if operation else []) + names, weight

    def collapsed(self, by: Measure = "live_bytes") -> str:
        """Lines of ``caller;...;callee weight``, as flamegraph.pl and inferno read."""
        return "".join(
            f"{';'.join(name.replace(';', ',') for name in names)} {weight}\n"
            for names, weight in self._weighted(by)
        )

    def speedscope(
        self, by: Measure = "live_bytes", name: str = "allocations"
    ) -> dict[str, Any]:
        """A profile for https://www.speedscope.app, which opens it from a JSON file.

        Its schema: https://www.speedscope.app/file-format-schema.json
        """
        numbers: dict[str, int] = {}
        samples, weights = [], []
        for names, weight in self._weighted(by):
            samples.append([numbers.setdefault(each, len(numbers)) for each in names])
            weights.append(weight)
        return {
            "$schema": "https://www.speedscope.app/file-format-schema.json",
            "shared": {"frames": [{"name": each} for each in numbers]},
            "profiles": [
                {
                    "type": "sampled",
                    "name": f"{name}: {by}",
                    "unit": "bytes" if by.endswith("bytes") else "none",
                    "startValue": 0,
                    "endValue": sum(weights),
                    "samples": samples,
                    "weights": weights,
                }
            ],
            "name": name,
            "activeProfileIndex": 0,
            "exporter": "ctxpool",
        }

    def save(self, path: str | os.PathLike[str], by: Measure = "live_bytes") -> None:
        """Write :meth:`speedscope` to a ``*.json`` file, else :meth:`collapsed`."""
        file = Path(path)
        if file.suffix == ".json":
            file.write_text(json.dumps(self.speedscope(by, file.stem)))
        else:
            file.write_text(self.collapsed(by))
