"""An importance of pieces that is learned from examples."""

from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np

from .fact_retention import Fact, states
from .scoring import FEATURES, Floats, ScoredPieces
from .sentences import split

__all__ = ["ImportanceModel"]

_ROUNDS = 50
_DONE = 1e-9


class ImportanceModel:
    """Logistic regression on the features of a piece.

    An instance is what ``importance=`` takes: it gives each piece the odds that it is
    worth keeping, beside what its words are worth anyway.

    Parameters
    ----------
    weights : mapping of str to float
        One weight each for any of :data:`~ctxpool.context.FEATURES`, and for
        ``"bias"``; those that are not given are 0.

    Raises
    ------
    ValueError
        A name that is no feature's, or a weight that is not finite.

    Notes
    -----
    **Thread-safety**: never changes once it is made. To keep a model, keep
    :attr:`weights` (plain numbers) and give them to the next one.

    Examples
    --------
    >>> texts = ["We rolled back to v2.8.1 at 14:20. It rained and we had a nice walk."]
    >>> model = ImportanceModel.fit(texts, [[("v2.8.1",), ("14:20",)]])
    >>> model.weights["numbers"] > 0 > model.weights["stop words"]
    True
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        for name, weight in weights.items():
            if name != "bias" and name not in FEATURES:
                raise ValueError(f"a feature must be one of {FEATURES}, not {name!r}")
            if not np.isfinite(weight):
                raise ValueError(f"the weight of {name!r} is not finite: {weight!r}")
        self._bias = float(weights.get("bias", 0.0))
        self._weights = np.array([float(weights.get(name, 0.0)) for name in FEATURES])

    def __repr__(self) -> str:
        return f"ImportanceModel({self.weights!r})"

    @property
    def weights(self) -> dict[str, float]:
        """By the name of the feature, and ``"bias"``."""
        named = dict(zip(FEATURES, self._weights.tolist(), strict=True))
        return {"bias": self._bias, **named}

    @classmethod
    def fit(
        cls,
        texts: Sequence[str],
        facts: Sequence[Sequence[Fact]],
        *,
        ridge: float = 10.0,
    ) -> Self:
        """Learn from texts and the facts that a reader must find in them.

        Parameters
        ----------
        texts : sequence of str
            The texts.
        facts : sequence of sequences of facts
            As many; a fact is a sequence of wordings, as
            :func:`~ctxpool.context.fact_retention.states` takes it. A piece that has
            all of one of them is worth keeping.
        ridge : float
            Weight of the penalty on large weights; the fewer texts, the more.

        Raises
        ------
        ValueError
            There are not as many of both, *ridge* is not above 0, or the texts have no
            piece with a fact, or none without.

        Notes
        -----
        Newton's method (iteratively reweighted least squares): deterministic, seconds
        for megabytes of text.
        """
        if len(texts) != len(facts):
            raise ValueError(f"{len(texts)} texts need as many sets, not {len(facts)}")
        if not ridge > 0:
            raise ValueError(f"ridge must be above 0, not {ridge!r}")
        rows, labels = [], []
        for text, stated in zip(texts, facts, strict=True):
            scored = ScoredPieces(text, split(text))
            rows.append(scored.features)
            labels += [any(states(part, fact) for fact in stated)
                       for part in scored.texts]  # fmt: skip
        kept = np.array(labels, np.float64)
        if not 0 < kept.sum() < len(kept):
            raise ValueError(
                f"{int(kept.sum())} of {len(kept)} pieces state a fact: there is "
                f"nothing to learn from"
            )
        weights = _logistic(np.vstack(rows), kept, ridge)
        return cls(dict(zip(("bias", *FEATURES), weights.tolist(), strict=True)))

    def __call__(self, pieces: ScoredPieces) -> Floats:
        """The odds of each piece."""
        logits = self._bias + pieces.features @ self._weights
        return np.asarray(np.exp(np.clip(logits, -30, 30)))


def _logistic(features: Floats, kept: Floats, ridge: float) -> Floats:
    """Weights of logistic regression, that of the constant first."""
    rows = np.column_stack([np.ones(len(features)), features])
    penalty = np.full(rows.shape[1], ridge)
    penalty[0] = 1e-6  # the constant is free, but for what keeps it finite
    weights = np.zeros(rows.shape[1])
    for _ in range(_ROUNDS):
        chance = 1 / (1 + np.exp(-np.clip(rows @ weights, -30, 30)))
        spread = chance * (1 - chance)
        gradient = rows.T @ (kept - chance) - penalty * weights
        curvature = (rows * spread[:, None]).T @ rows + np.diag(penalty)
        step = np.linalg.solve(curvature, gradient)
        weights = weights + step
        if np.abs(step).max() < _DONE:
            break
    return weights
