"""A promise and what was measured of it."""

import statistics
from dataclasses import dataclass

__all__ = ["Bar", "ns"]


@dataclass(frozen=True)
class Bar:
    """One row: ``value`` must be at most ``limit`` (or, with ``least``, at least)."""

    what: str
    value: float
    limit: float
    unit: str = "x"
    note: str = ""
    least: bool = False

    @property
    def met(self) -> bool:
        return self.value >= self.limit if self.least else self.value <= self.limit

    def __str__(self) -> str:
        sign = ">=" if self.least else "<="
        return (
            f"{'PASS' if self.met else 'MISS'}  {self.what:58} "
            f"{self.value:9,.2f} {sign} {self.limit:<8g} {self.unit:4} {self.note}"
        )


def ns(figures: dict[str, list[float]], *names: str) -> str:
    return ", ".join(f"{n} {statistics.median(figures[n]):,.1f} ns" for n in names)
