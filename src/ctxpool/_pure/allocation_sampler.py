"""The pure twin of the allocation sampler: there can be none, and it says so."""

from contextvars import ContextVar

from ctxpool.errors import NativeOnlyError

__all__ = ["most_depth", "operation", "places", "start", "stop", "tallies"]

most_depth = 128
operation: ContextVar[str] = ContextVar("ctxpool.operation")


def start(mean: float, depth: int, most: int) -> None:
    """CPython's allocators call C functions: NativeOnlyError."""
    raise NativeOnlyError(
        "AllocationTracer needs the native build of ctxpool, as CPython's allocator "
        "hooks take C functions: unset CTXPOOL_PURE, or reinstall where there is a C "
        "compiler (pip install --no-cache-dir --force-reinstall ctxpool). tracemalloc "
        "traces in any build, at 3 to 25 times the run time"
    )


def stop() -> None:
    """There is nothing to stop."""


def places() -> list[tuple[int, str | None, str, int, float, float, float, float]]:
    """Nothing was sampled."""
    return []


def tallies() -> tuple[int, int, int, int, int, bool]:
    """Nothing was sampled."""
    return 0, 0, 0, 0, 0, False
