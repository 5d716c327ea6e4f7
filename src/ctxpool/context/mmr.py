"""Choosing what is relevant and says something new each time."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .embedding import Vectors
from .vectors import similarities

__all__ = ["maximal_marginal_relevance"]


def maximal_marginal_relevance(
    relevance: npt.ArrayLike, vectors: Vectors, k: int, diversity: float = 0.5
) -> list[int]:
    """The places of *k* candidates, each the best of ``(1 - diversity) * relevance -
    diversity * similarity``, the similarity being that to the nearest one chosen.

    Parameters
    ----------
    relevance : array of n numbers
    vectors : array of n rows of length 1
    k : int
        Fewer come back where there are fewer.
    diversity : float
        From 0, relevance alone, to 1.

    Notes
    -----
    O(k n) products of vectors: the nearest chosen one of each candidate is kept, and
    each choice compared with all once. Of equal candidates the first is taken.

    References
    ----------
    J. Carbonell and J. Goldstein, "The use of MMR, diversity-based reranking for
    reordering documents and producing summaries", SIGIR 1998.

    Examples
    --------
    >>> vectors = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    >>> maximal_marginal_relevance([0.9, 0.8, 0.5], vectors, 2)
    [0, 2]
    """
    if not 0 <= diversity <= 1:
        raise ValueError(f"diversity must be from 0 to 1, not {diversity!r}")
    gain: npt.NDArray[Any] = (1 - diversity) * np.asarray(relevance, np.float64)
    nearest = np.full(len(gain), -np.inf)
    chosen: list[int] = []
    for _ in range(min(k, len(gain))):
        # Nothing is chosen yet: then nothing is near.
        penalty = diversity * nearest if chosen else 0.0
        best = int(np.argmax(gain - penalty))
        chosen.append(best)
        gain[best] = -np.inf
        np.maximum(nearest, similarities(vectors, vectors[best]), out=nearest)
    return chosen
