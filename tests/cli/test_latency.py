import random

import numpy as np
import pytest

from ctxpool.cli.latency import PERCENTILES, Recorder, timer_cost

FRACTIONS = [0, 0.001, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999, 1]


def record(samples: list[int], limit: int = 1 << 20) -> Recorder:
    recorder = Recorder(limit)
    for sample in samples:
        recorder.add(sample)
    return recorder


@pytest.mark.parametrize("count", [1, 2, 3, 10, 999, 1000, 1001, 20_000])
def test_percentiles_are_numpys_nearest_ranks(count: int) -> None:
    draw = random.Random(count)
    samples = [int(draw.lognormvariate(6, 2)) for _ in range(count)]
    recorder = record(samples)
    for fraction in FRACTIONS:
        expected = np.quantile(samples, fraction, method="inverted_cdf")
        assert recorder.percentile(fraction) == expected
    assert len(recorder) == count
    assert recorder.total == sum(samples)
    assert recorder.max == max(samples)


@pytest.mark.parametrize("limit", [1, 7, 500])
def test_folded_samples_stay_within_a_thousandth(limit: int) -> None:
    draw = random.Random(limit)
    samples = [int(draw.lognormvariate(9, 4)) for _ in range(3_000)]
    samples += [0, 1, 2047, 2048, 2049, 2**40, 2**52]
    recorder = record(samples, limit)
    for fraction in FRACTIONS:
        expected = np.quantile(samples, fraction, method="inverted_cdf")
        assert recorder.percentile(fraction) == pytest.approx(expected, rel=1e-3)
    assert len(recorder) == len(samples)
    assert (recorder.total, recorder.max) == (sum(samples), max(samples))
    assert sum(recorder.histogram()["counts"]) == len(samples)


def test_small_values_survive_folding_exactly() -> None:
    samples = list(range(2_048)) * 2
    recorder = record(samples, limit=100)
    for fraction in FRACTIONS:
        expected = np.quantile(samples, fraction, method="inverted_cdf")
        assert recorder.percentile(fraction) == expected


def test_histogram_bins_hold_their_samples() -> None:
    recorder = record([0, 1, 10, 10, 99, 1_000_000])
    histogram = recorder.histogram()
    edges, counts = histogram["edges_ns"], histogram["counts"]
    assert len(edges) == len(counts) + 1
    assert edges == sorted(edges)
    assert sum(counts) == 6
    assert counts[0] == 2
    assert counts[20] == 2
    assert edges[0] == 1
    assert edges[-2] <= 1_000_000 < edges[-1]


def test_nothing_recorded() -> None:
    recorder = Recorder()
    assert recorder.histogram() == {"edges_ns": [], "counts": []}
    assert recorder.summary()["count"] == 0
    assert recorder.summary()["p50_ns"] is None
    with pytest.raises(ValueError, match="no samples"):
        recorder.percentile(0.5)


def test_a_fraction_out_of_range_is_named() -> None:
    with pytest.raises(ValueError, match=r"0 to 1, not 50"):
        record([1]).percentile(50)


def test_the_timer_has_a_cost() -> None:
    cost = timer_cost(1_000)
    assert cost["count"] == 1_000
    assert cost["max_ns"] >= cost["p50_ns"] >= 0
    assert {f"{name}_ns" for name in PERCENTILES} <= set(cost)
