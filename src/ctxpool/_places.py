"""Where in the user's own code a pool was asked for something."""

from __future__ import annotations

from types import FrameType

__all__ = ["place"]


def place(frame: FrameType) -> str:
    """``"file:line in function"`` of the nearest frame that is not ctxpool's."""
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(
        "ctxpool."
    ):
        frame = frame.f_back
    code = frame.f_code
    return f"{code.co_filename}:{frame.f_lineno} in {code.co_name}"
