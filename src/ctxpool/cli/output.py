"""Files that a command writes: checked before the work, written after it."""

import json
import os
from collections.abc import Callable
from errno import EACCES
from typing import Any

from .errors import CommandError, UsageError

__all__ = ["check", "write", "write_json"]


def check(path: str, option: str) -> None:
    """Find out before the work whether *path* can be written, and leave no trace.

    Raises
    ------
    UsageError
        It can't.
    """
    existed = os.path.exists(path)
    try:
        if existed and not os.path.isfile(path) and not os.path.isdir(path):
            # A pipe or a device: to open it may wait, or end its reader.
            if not os.access(path, os.W_OK):
                raise PermissionError(EACCES, os.strerror(EACCES))
            return
        with open(path, "ab"):
            pass
        if not existed:
            os.unlink(path)
    except OSError as error:
        raise UsageError(f"{option} {path}: {error.strerror or error}") from error


def write(path: str, option: str, writer: Callable[[str], None]) -> None:
    """``writer(path)``; a failure names *option* and *path*."""
    try:
        writer(path)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise CommandError(f"{option} {path}: {error.strerror or error}") from error


def write_json(result: Any, path: str) -> None:
    """Write *result* to a file."""
    with open(path, "w", encoding="utf-8") as file:
        json.dump(result, file, indent=1)
        file.write("\n")
