"""The files of a :class:`HierarchicalMemory`: opened one by one, closed together."""

import contextlib
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ..errors import DamagedStoreError, StoreError
from ._directory import MANIFEST, Directory, read_manifest, write_manifest

__all__ = ["MemoryFiles"]

T = TypeVar("T")


class MemoryFiles:
    """A directory and what is open in it; or nothing but what is open.

    Parameters
    ----------
    path : path or None
    recover : bool
        Set a damaged file aside, and begin a new one.
    """

    def __init__(self, path: str | os.PathLike[str] | None, recover: bool) -> None:
        self.directory = None if path is None else Directory(path)
        self.damaged: dict[str, str] = {}
        self.settings: dict[str, Any] = {}
        self._recover = recover
        self._open: list[Any] = []
        if self.directory is not None and (self.directory.path / MANIFEST).exists():
            try:
                self.settings = read_manifest(self.directory.path)
            except StoreError as error:
                if not recover:
                    self.close()
                    raise
                self._set_aside(MANIFEST, error)

    @staticmethod
    def exists(path: str | os.PathLike[str]) -> bool:
        """Whether there is a memory in this directory."""
        return (Path(path) / MANIFEST).exists()

    def open(self, name: str, make: Callable[[Any], T]) -> T:
        """What *make* makes of a file of this name, or of ``":memory:"``."""
        if self.directory is None:
            made = make(":memory:")
        else:
            path = self.directory.path / name
            try:
                made = self._checked(make, path)
            except DamagedStoreError as error:
                if not self._recover:
                    raise
                self._set_aside(name, error)
                made = make(path)
        self._open.append(made)
        return made

    def _checked(self, make: Callable[[Any], T], path: Path) -> T:
        made: Any = make(path)
        if self._recover:
            try:
                made.check()
            except BaseException:
                made.close()
                raise
        found: T = made
        return found

    def _set_aside(self, name: str, error: StoreError) -> None:
        assert self.directory is not None
        self.damaged[name] = f"{self.directory.set_aside(name)}: {error}"

    def write_settings(self, **settings: Any) -> None:
        """Keep what a memory in a directory is made with."""
        if self.directory is not None and settings != self.settings:
            write_manifest(self.directory.path, settings)
            self.settings = settings
        elif self.directory is None:
            self.settings = settings

    def save_to(self, path: Path, parts: Mapping[str, Callable[[Path], None]]) -> None:
        """Write each part to a file of a new directory. It is made beside its place and
        moved there when it is whole."""
        beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            if path.exists():
                raise FileExistsError(f"{str(path)!r} exists already")
            beside.mkdir(parents=True)
            for name, write in parts.items():
                write(beside / name)
            write_manifest(beside, self.settings)
            os.rename(beside, path)
        except OSError as error:
            raise StoreError(f"{str(path)!r} can't be written: {error}") from error
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def close(self) -> None:
        """Close all; the directory last, and whatever one of them raises."""
        with contextlib.ExitStack() as stack:
            if self.directory is not None:
                stack.callback(self.directory.close)
            while self._open:
                stack.callback(self._open.pop(0).close)
