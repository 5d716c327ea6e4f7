"""The model of accesses, native or pure: :mod:`ctxpool._pure.markov` tells how."""

from .._backend import MarkovModel

__all__ = ["MarkovModel"]
