"""How much of what is nearest an index finds."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from .embedding import Vectors
from .hits import RecallReport
from .vectors import Id, Match, similarities

__all__ = ["measured_recall"]

_CHUNK = 8192
# Vectors as far away as the last that counts are as good as it.
_TIE = 1e-6


def measured_recall(
    queries: Vectors,
    k: int,
    ids: list[Id],
    get: Callable[[list[Id]], Vectors],
    search: Callable[[Vectors, int], list[Match]],
) -> RecallReport:
    """What *search* finds of the *k* nearest among *ids*, whose vectors *get* gives, or
    those of them that there still are."""
    if not len(queries):
        raise ValueError("recall needs queries, not none")
    nearest = np.full((len(queries), k), -np.inf, np.float32)
    exact_s = 0.0
    for start in range(0, len(ids), _CHUNK):
        vectors = get(ids[start : start + _CHUNK])
        begin = time.perf_counter()
        similar = np.concatenate([nearest, queries @ vectors.T], axis=1)
        nearest = np.partition(similar, -k, axis=1)[:, -k:]
        exact_s += time.perf_counter() - begin
    there = min(k, len(ids))
    # Where there is nothing to find, nothing is missed.
    last: npt.NDArray[np.float32] = np.sort(nearest, axis=1)[:, k - max(there, 1)]
    shares, search_s = [], 0.0
    for query, least in zip(queries, last, strict=True):
        begin = time.perf_counter()
        found = search(query, k)
        search_s += time.perf_counter() - begin
        similar = similarities(get([id for id, _ in found]), query)
        right = int((similar >= least - _TIE).sum())
        shares.append(min(1.0, right / there) if there else 1.0)
    return RecallReport(
        queries=len(queries),
        k=k,
        recall=float(np.mean(shares)),
        worst=min(shares),
        search_s=search_s / len(queries),
        exact_s=exact_s / len(queries),
    )
