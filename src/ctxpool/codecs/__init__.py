"""Less memory for what is kept, each loaded when it is first asked for."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .hierarchy import HierarchicalCompressor
    from .views import HierarchyReport, LevelReport, SourceSpan, View

__all__ = [
    "HierarchicalCompressor",
    "HierarchyReport",
    "LevelReport",
    "SourceSpan",
    "View",
]
_homes = {
    "HierarchicalCompressor": "hierarchy",
    "HierarchyReport": "views",
    "LevelReport": "views",
    "SourceSpan": "views",
    "View": "views",
}


def __getattr__(name: str) -> Any:
    if name not in _homes:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_homes[name]}", __name__), name)
