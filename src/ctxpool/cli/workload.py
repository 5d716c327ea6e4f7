"""Which files the job reads, and in which order."""

import os
import random
import stat
import sysconfig
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .errors import UsageError

__all__ = ["Found", "Unreadable", "find", "revisits", "standard_library"]


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A path that was skipped, and why."""

    path: str
    reason: str


@dataclass(slots=True)
class Found:
    """The files below the given paths: parallel lists of paths and sizes."""

    paths: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    skipped: list[Unreadable] = field(default_factory=list)

    def _skip(self, path: str, error: OSError) -> None:
        self.skipped.append(Unreadable(path, error.strerror or str(error)))

    def _add(self, path: str) -> None:
        try:
            status = os.stat(path)
        except OSError as error:
            self._skip(path, error)
            return
        if stat.S_ISREG(status.st_mode):
            self.paths.append(path)
            self.sizes.append(status.st_size)
        else:
            self.skipped.append(Unreadable(path, "Not a regular file"))


def standard_library() -> str:
    """The folder of the Python standard library's own sources."""
    return sysconfig.get_path("stdlib")


def find(paths: Sequence[str]) -> Found:
    """All regular files at or below *paths*, in sorted order, each once.

    Without *paths*, the sources (``*.py``) of the standard library, without
    packages installed beside it. Links to files are followed, links to folders
    are not. What can't be listed or is no file is noted in ``skipped``.

    Raises
    ------
    UsageError
        A given path does not exist.
    """
    found = Found()
    for path in paths:
        if not os.path.lexists(path):
            raise UsageError(f"no such file or folder: {path}")
    names: dict[str, None] = {}
    for path in paths or [standard_library()]:
        if os.path.isdir(path):
            names.update(dict.fromkeys(_below(path, found, only_python=not paths)))
        else:
            names[path] = None
    for name in names:
        found._add(name)
    return found


def _below(folder: str, found: Found, *, only_python: bool) -> Iterable[str]:
    def note(error: OSError) -> None:
        found._skip(str(error.filename), error)

    for parent, folders, files in os.walk(folder, onerror=note):
        if only_python:
            folders[:] = [f for f in folders if f not in _INSTALLED]
            files = [f for f in files if f.endswith(".py")]
        folders.sort()
        for file in sorted(files):
            yield str(Path(parent, file))


_INSTALLED = {"site-packages", "dist-packages", "__pycache__"}


def revisits(count: int, share: float, seed: int, repeat: int = 1) -> list[int]:
    """The order of visits to *count* files: each once, some again in between.

    After each first visit come *share* more visits on average (their number is
    geometric) to files seen before. Which one, is drawn by how long ago it was
    last read: the k-th most recent with probability about 1/k (Zipf's law in an
    LRU stack), the way an agent comes back to what it just read. *repeat* is how
    often all that happens, each time with new draws.
    """
    draw = random.Random(seed).random
    again = share / (1 + share)
    order: list[int] = []
    for _ in range(repeat):
        stack: list[int] = []  # most recent last
        for file in range(count):
            stack.append(file)
            order.append(file)
            while draw() < again:
                file_again = stack.pop(-int(len(stack) ** draw()))
                stack.append(file_again)
                order.append(file_again)
    return order
