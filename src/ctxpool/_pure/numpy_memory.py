"""The pure twin of NumPy's memory hook: there can be none, and it says so."""

from typing import Any

from ctxpool.errors import NativeOnlyError

__all__ = ["ArrayHeap"]


class ArrayHeap:
    """A heap that NumPy calls, which takes C functions: NativeOnlyError."""

    def __init__(self, *arguments: Any) -> None:
        raise NativeOnlyError(
            "numpy_pool needs the native build of ctxpool, as NumPy's allocator hook "
            "takes C functions: unset CTXPOOL_PURE, or reinstall where there is a C "
            "compiler (pip install --no-cache-dir --force-reinstall ctxpool). "
            "BlockPool.empty() gives arrays from a pool in any build"
        )
