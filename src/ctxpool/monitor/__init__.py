"""What memory a running program uses, and where. Each loaded when it is first asked
for."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .allocations import AllocationSnapshot, LineUsage, OperationUsage, Stack, Usage
    from .tracing import AllocationTracer, AllocationTracerStats, trace

__all__ = [
    "AllocationSnapshot",
    "AllocationTracer",
    "AllocationTracerStats",
    "LineUsage",
    "OperationUsage",
    "Stack",
    "Usage",
    "trace",
]
_homes = {
    "AllocationSnapshot": "allocations",
    "AllocationTracer": "tracing",
    "AllocationTracerStats": "tracing",
    "LineUsage": "allocations",
    "OperationUsage": "allocations",
    "Stack": "allocations",
    "Usage": "allocations",
    "trace": "tracing",
}


def __getattr__(name: str) -> Any:
    if name not in _homes:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_homes[name]}", __name__), name)
