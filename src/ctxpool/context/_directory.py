"""The directory of a memory: whose it is, and what it was made with."""

import contextlib
import os
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import StoreError
from ._snapshot import read_snapshot, write_snapshot

__all__ = ["MANIFEST", "Directory", "read_manifest", "write_manifest"]

MANIFEST = "memory.manifest"
_KIND = "memory"
_all: weakref.WeakSet["Directory"] = weakref.WeakSet()


def _let_go() -> None:
    for directory in list(_all):
        directory.close()


if hasattr(os, "register_at_fork"):
    # The lock is the parent's; a child that kept the file would hold it longer.
    os.register_at_fork(after_in_child=_let_go)


def read_manifest(path: Path) -> dict[str, Any]:
    """The settings that a memory's directory was made with."""
    _, meta, _ = read_snapshot(path / MANIFEST, _KIND)
    return meta


def write_manifest(path: Path, settings: Mapping[str, Any]) -> None:
    """Write them, whole or not at all."""
    write_snapshot(path / MANIFEST, _KIND, settings, [])


def _lock(file: int) -> None:
    """Take the file, or raise BlockingIOError: at once, and for as long as it is open,
    so that a process that is killed leaves nothing locked."""
    try:
        import fcntl
    except ModuleNotFoundError:
        import msvcrt

        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        except PermissionError as error:
            raise BlockingIOError(str(error)) from None
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


class Directory:
    """A directory that this process alone has.

    Raises
    ------
    StoreError
        It can't be made or written, or another one has it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
            self._file: int | None = os.open(self.path / "lock", flags, 0o666)
        except OSError as error:
            raise StoreError(f"{str(path)!r} can't be used: {error}") from error
        try:
            _lock(self._file)
        except OSError as error:
            self.close()
            if isinstance(error, BlockingIOError):
                raise StoreError(
                    f"{str(path)!r} is open in another process or memory"
                ) from None
            raise StoreError(f"{str(path)!r} can't be locked: {error}") from error
        _all.add(self)

    def set_aside(self, name: str) -> str:
        """Rename a damaged file, and what belongs to it; its new name."""
        n = 1
        while (self.path / f"{name}.damaged-{n}").exists():
            n += 1
        for suffix in ("-wal", "-shm", ""):
            with contextlib.suppress(FileNotFoundError):
                os.rename(
                    self.path / f"{name}{suffix}",
                    self.path / f"{name}.damaged-{n}{suffix}",
                )
        return f"{name}.damaged-{n}"

    def close(self) -> None:
        """Let others have it; a second time does nothing."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)

    def __del__(self) -> None:
        if getattr(self, "_file", None) is not None:
            self.close()
