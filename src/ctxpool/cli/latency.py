"""Record latencies in nanoseconds and sum them up.

Samples are kept exactly, up to a million of them. When there are more, they are
folded into buckets, 1024 to a doubling: memory stays bounded however long the job
runs, and no percentile is off by more than 0.1 %. Count, sum and maximum are
always exact.
"""

import math
from time import perf_counter_ns
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["PERCENTILES", "Recorder", "timer_cost"]

PERCENTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}

_FIRST, _LIMIT = 1 << 12, 1 << 20
_BITS = 10
_BUCKETS = (64 - _BITS) << _BITS
_BINS_PER_DECADE = 20


class Recorder:
    """The latencies of one operation.

    ``add`` costs about 0.1 us and takes memory now and then, so it belongs outside
    the timed section.

    Parameters
    ----------
    limit : int
        Samples kept exactly before they are folded into buckets.
    """

    __slots__ = ("_buckets", "_cells", "_folded", "_limit", "_size", "max", "total")

    def __init__(self, limit: int = _LIMIT) -> None:
        self._limit = limit
        self._cells: NDArray[np.uint64] = np.zeros(min(_FIRST, limit), np.uint64)
        self._size = 0
        self._buckets: NDArray[np.int64] | None = None
        self._folded = 0
        self.total = 0
        self.max = 0

    def add(self, ns: int) -> None:
        """Record one sample, in nanoseconds, not negative."""
        if self._size == len(self._cells):
            self._make_room()
        self._cells[self._size] = ns
        self._size += 1
        self.total += ns
        if ns > self.max:
            self.max = ns

    def _make_room(self) -> None:
        if self._size < self._limit:
            grown = np.zeros(min(2 * self._size, self._limit), np.uint64)
            grown[: self._size] = self._cells
            self._cells = grown
            return
        if self._buckets is None:
            self._buckets = np.zeros(_BUCKETS, np.int64)
        self._buckets += np.bincount(_bucket(self._cells), minlength=_BUCKETS)
        self._folded += self._size
        self._size = 0

    def __len__(self) -> int:
        return self._folded + self._size

    def _distribution(self) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """Distinct or repeated values in rising order, and how often each came."""
        values = np.sort(self._cells[: self._size])
        counts = np.ones(self._size, np.int64)
        if self._buckets is not None:
            used = np.flatnonzero(self._buckets)
            values = np.concatenate([_bucket_start(used), values])
            counts = np.concatenate([self._buckets[used], counts])
            order = np.argsort(values, kind="stable")
            values, counts = values[order], counts[order]
        return values, counts

    def percentile(self, fraction: float) -> int:
        """The smallest sample that at least *fraction* of all samples don't exceed.

        The nearest rank: always a latency that was seen, never a mean of two
        (``method="inverted_cdf"`` of :func:`numpy.quantile`).

        Raises
        ------
        ValueError
            There are no samples, or *fraction* is not in 0 to 1.
        """
        if not 0 <= fraction <= 1:
            raise ValueError(f"fraction must be in 0 to 1, not {fraction!r}")
        if not len(self):
            raise ValueError("no samples")
        values, counts = self._distribution()
        rank = max(1, math.ceil(fraction * len(self)))
        return int(values[np.searchsorted(np.cumsum(counts), rank)])

    def histogram(self) -> dict[str, list[Any]]:
        """Counts in bins of equal width on a log axis, 20 to a decade.

        Returns
        -------
        dict
            ``edges_ns``, one more than ``counts``. Samples of 0 count as 1 ns.
        """
        values, counts = self._distribution()
        if not len(values):
            return {"edges_ns": [], "counts": []}
        bins = np.floor(np.log10(np.maximum(values, 1)) * _BINS_PER_DECADE)
        first = int(bins[0])
        heights = np.bincount(bins.astype(np.int64) - first, weights=counts)
        edges = 10 ** (np.arange(first, first + len(heights) + 1) / _BINS_PER_DECADE)
        return {
            "edges_ns": [float(f"{edge:.4g}") for edge in edges],
            "counts": [int(height) for height in heights],
        }

    def summary(self) -> dict[str, Any]:
        """Count, total, mean, percentiles and maximum; None where nothing came."""
        if not len(self):
            blank = dict.fromkeys(["mean_ns", *(f"{p}_ns" for p in PERCENTILES)])
            return {"count": 0, "total_ns": 0, **blank, "max_ns": None}
        return {
            "count": len(self),
            "total_ns": self.total,
            "mean_ns": round(self.total / len(self), 1),
            **{f"{p}_ns": self.percentile(f) for p, f in PERCENTILES.items()},
            "max_ns": self.max,
        }


def _bucket(values: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Up to 2047 a value is its own bucket; above, its eleven leading bits count."""
    length = np.frexp(values.astype(np.float64))[1].astype(np.int64)
    shift = np.maximum(length - (_BITS + 1), 0)
    return (shift << _BITS) + (values.astype(np.int64) >> shift)


def _bucket_start(bucket: NDArray[np.int64]) -> NDArray[np.uint64]:
    shift = np.maximum((bucket >> _BITS) - 1, 0)
    start: NDArray[np.int64] = (bucket - (shift << _BITS)) << shift
    return start.astype(np.uint64)


def timer_cost(rounds: int = 20_000) -> dict[str, Any]:
    """What reading the clock twice in a row shows: the floor of every latency."""
    recorder = Recorder()
    for _ in range(rounds):
        start = perf_counter_ns()
        end = perf_counter_ns()
        recorder.add(end - start)
    return recorder.summary()
