"""Plain memory for what no block holds."""

import numpy as np

from ctxpool import Block

__all__ = ["block_view", "heap_view"]


def heap_view(n: int) -> memoryview:
    """*n* writable bytes from the heap that nobody has filled: O(1), untouched."""
    return memoryview(np.empty(n, np.uint8))  # type: ignore[arg-type]


def block_view(block: Block) -> memoryview:
    """The view of *block*, which goes back when nothing reaches it any more."""
    view = block.view
    block.release()
    return view
