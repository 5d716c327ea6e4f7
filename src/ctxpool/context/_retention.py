"""How much of each episode is still there: the forgetting curve, over arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["Retention"]

Floats = npt.NDArray[np.float64]
_SMALLEST = 64
_COLUMNS = np.dtype(
    [
        ("number", "i8"),
        ("accessed", "f8"),
        ("uses", "f4"),
        ("importance", "f4"),
        ("size", "i8"),
    ]
)


class Retention:
    """What decides which episodes come and which go, 32 bytes of each and its number.

    Retention falls by half in each half-life since the last use, the exponential form
    of Ebbinghaus's curve (1885). Each use makes the half-life longer by one more, as
    in MemoryBank (Zhong et al., AAAI 2024); so does importance, without bound towards
    1: what is of importance 1 is never forgotten.

    No thread-safety: whoever has one has a lock.
    """

    def __init__(self, half_life: float) -> None:
        self.half_life = half_life
        self.size = 0
        self._rows: dict[int, int] = {}
        self._table = np.zeros(_SMALLEST, _COLUMNS)

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, number: int) -> bool:
        return number in self._rows

    def clear(self) -> None:
        """As new."""
        self.__init__(self.half_life)  # type: ignore[misc]

    def put(
        self, number: int, accessed: float, uses: int, importance: float, size: int
    ) -> None:
        """Store an episode's figures, or replace them; O(1) amortised."""
        row = self._rows.get(number)
        if row is None:
            row = self._rows[number] = len(self._rows)
            if row == len(self._table):
                self._table = np.concatenate([self._table, np.zeros_like(self._table)])
        else:
            self.size -= int(self._table["size"][row])
        self.size += size
        self._table[row] = number, accessed, uses, importance, size

    def drop(self, number: int) -> None:
        """Forget an episode's figures; O(1)."""
        row = self._rows.pop(number, None)
        if row is not None:
            self.size -= int(self._table["size"][row])
            last = len(self._rows)
            if row != last:
                self._table[row] = self._table[last]
                self._rows[int(self._table["number"][row])] = row

    def use(self, number: int, now: float) -> None:
        """Count a use."""
        row = self._rows[number]
        self._table["accessed"][row] = max(now, float(self._table["accessed"][row]))
        self._table["uses"][row] += 1

    def bytes_of(self, number: int) -> int:
        """An episode's bytes."""
        return int(self._table["size"][self._rows[number]])

    def figures(self, number: int) -> tuple[float, int]:
        """When an episode was last used, and how often."""
        _, accessed, uses, _, _ = self._table[self._rows[number]].item()
        return accessed, int(uses)

    def of(self, numbers: Sequence[int], now: float) -> tuple[Floats, Floats]:
        """The recency of episodes, which is retention without importance, and their
        importance."""
        rows = self._table[[self._rows[number] for number in numbers]]
        return self._kept(rows, now, False), rows["importance"].astype(np.float64)

    def _kept(self, rows: npt.NDArray[np.void], now: float, important: bool) -> Floats:
        age = np.maximum(now - rows["accessed"], 0.0)
        half_lives = age / (self.half_life * (1.0 + rows["uses"]))
        if important:
            half_lives *= 1.0 - rows["importance"]
        return np.exp2(-half_lives)

    def faded(self, below: float, now: float) -> list[int]:
        """The episodes whose retention is less than *below*; O(n)."""
        rows = self._table[: len(self._rows)]
        found: list[int] = rows["number"][self._kept(rows, now, True) < below].tolist()
        return found

    def least(self, n: int, now: float) -> list[int]:
        """The *n* episodes of least retention, least first; of equal ones the least
        important, then the oldest. O(all)."""
        rows = self._table[: len(self._rows)]
        kept = self._kept(rows, now, True)
        if n < len(rows):
            # All that tie with the last one, too: the others decide among them.
            edge = np.partition(kept, n - 1)[n - 1]
            rows, kept = rows[kept <= edge], kept[kept <= edge]
        order = np.lexsort((rows["number"], rows["importance"], kept))[:n]
        found: list[int] = rows["number"][order].tolist()
        return found
