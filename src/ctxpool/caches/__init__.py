"""Caches over the engine's LRUCache."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .markov import MarkovModel
    from .predictive import PredictiveCache
    from .prefetcher import AccessModel, Prefetcher, PrefetchStats

__all__ = [
    "AccessModel",
    "MarkovModel",
    "PredictiveCache",
    "PrefetchStats",
    "Prefetcher",
]
_homes = {
    "AccessModel": "prefetcher",
    "MarkovModel": "markov",
    "PredictiveCache": "predictive",
    "PrefetchStats": "prefetcher",
    "Prefetcher": "prefetcher",
}


def __getattr__(name: str) -> Any:
    if name not in _homes:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_homes[name]}", __name__), name)
