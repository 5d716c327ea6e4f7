"""How much memory may still be taken, and an error instead of a kill."""

from __future__ import annotations

import errno
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import SupportsIndex

from ctxpool.errors import MemoryLimitError
from ctxpool.sizes import parse_size
from ctxpool.stats import _Record

try:
    import resource
except ImportError:  # no such limits on this system
    resource = None  # type: ignore[assignment]

__all__ = ["MemoryHeadroom", "available_memory", "memory_limit", "require_memory"]

_STATUS = Path("/proc/self/status")
_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class MemoryHeadroom(_Record):
    """How much memory may be taken before something refuses or kills.

    Attributes
    ----------
    available : int
        Bytes.
    limit : int
        Bytes in all, of what sets the bound.
    source : str
        What that is: ``"system"``, ``"cgroup"``, ``"RLIMIT_AS"`` or ``"RLIMIT_DATA"``.
    """

    available: int
    limit: int
    source: str


def available_memory() -> MemoryHeadroom:
    """What may still be taken: the least that any of those who limit it leaves.

    The system's available memory, the control groups of the process (a container's
    limit; versions 1 and 2, cached files counted as free), and the resource limits on
    its address space and data. O(depth of the control groups), about 0.1 ms.

    It is a moment's answer: others take memory too.

    Examples
    --------
    >>> available_memory().available > 0
    True
    """
    import psutil

    system = psutil.virtual_memory()
    found = [MemoryHeadroom(int(system.available), int(system.total), "system")]
    found += _cgroups()
    found += _resource_limits()
    return min(found, key=lambda headroom: headroom.available)


def require_memory(nbytes: SupportsIndex | str, purpose: str = "") -> MemoryHeadroom:
    """Refuse now what would end in a kill later.

    Parameters
    ----------
    nbytes : int or str
        Bytes that are going to be taken.
    purpose : str
        What for, for the error's text.

    Returns
    -------
    MemoryHeadroom
        What there is.

    Raises
    ------
    MemoryLimitError
        There is not so much. Its text and its attributes ``wanted``, ``available``,
        ``limit`` and ``source`` say what was wanted, and what there is.

    Examples
    --------
    >>> require_memory("1000TB", "a table")
    Traceback (most recent call last):
        ...
    ctxpool.errors.MemoryLimitError: a table needs 1000000000000000 bytes, ...
    """
    wanted = parse_size(nbytes, "nbytes")
    headroom = available_memory()
    if wanted > headroom.available:
        raise MemoryLimitError(
            f"{purpose or 'this'} needs {wanted} bytes, and {headroom.available} are "
            f"left of the {headroom.limit} that {headroom.source} allows",
            wanted=wanted,
            available=headroom.available,
            limit=headroom.limit,
            source=headroom.source,
        )
    return headroom


_lock = threading.Lock()
_active: list[int] = []  # absolute limits of those inside memory_limit
_before: tuple[int, int] | None = None  # the process's own, while there are any


@contextmanager
def memory_limit(size: SupportsIndex | str) -> Iterator[None]:
    """Inside, the process may take *size* bytes more than it has, then MemoryError.

    The system enforces it (``RLIMIT_DATA``: what is written by the process alone;
    mapped files and shared memory are not counted), on every allocation by whatever
    library, before memory is touched; so there is an exception where there would have
    been a kill. A library that does not look whether it got its memory may crash.

    Parameters
    ----------
    size : int or str
        Bytes, or text such as ``"512MB"``.

    Raises
    ------
    MemoryLimitError
        For a MemoryError that leaves the block, its cause: the text says what was
        wanted, where the allocator told, and the limit.
    OSError
        ``ENOTSUP``: the system does not enforce such a limit (all but Linux).

    Notes
    -----
    It holds for all threads of the process. Inside another the smaller limit holds.
    What an allocator has mapped before, and free, is not counted again: next to nothing
    with glibc, up to a GiB with the mimalloc of free-threaded builds.

    Examples
    --------
    >>> with memory_limit("64MiB"):  # doctest: +SKIP
    ...     frame = np.ones(10**9)
    Traceback (most recent call last):
        ...
    ctxpool.errors.MemoryLimitError: beyond memory_limit(67108864): Unable to
    allocate 7.45 GiB for an array with shape (1000000000,) and data type float64;
    0 bytes of it are taken
    """
    nbytes = parse_size(size)
    if resource is None or not _STATUS.exists():
        raise OSError(errno.ENOTSUP, "this system enforces no limit on memory")
    with _lock:
        absolute = _data_bytes() + nbytes
        _active.append(absolute)
        _apply()
    try:
        yield
    except MemoryError as error:
        taken = _data_bytes()
        said = str(error) or "the allocator did not say how much was wanted"
        raise MemoryLimitError(
            f"beyond memory_limit({nbytes}): {said}; "
            f"{nbytes - absolute + taken} bytes of it are taken",
            wanted=None,
            available=max(0, absolute - taken),
            limit=nbytes,
            source="RLIMIT_DATA",
        ) from error
    finally:
        with _lock:
            _active.remove(absolute)
            _apply()


def _apply() -> None:
    """Set the least active limit, or the process's own again; under the lock."""
    global _before
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if _before is None:
        _before = (soft, hard)
    bounds = [n for n in (*_active, *_before) if n != resource.RLIM_INFINITY]
    if _active:
        resource.setrlimit(resource.RLIMIT_DATA, (min(bounds), hard))
    else:
        resource.setrlimit(resource.RLIMIT_DATA, (_before[0], hard))
        _before = None


def _status(field: str) -> int:
    """A figure of /proc/self/status, in bytes."""
    match = re.search(rf"^{field}:\s*(\d+) kB", _STATUS.read_text(), re.MULTILINE)
    return int(match[1]) << 10 if match else 0


def _data_bytes() -> int:
    return _status("VmData")


def _resource_limits() -> Iterator[MemoryHeadroom]:
    if resource is None or not _STATUS.exists():
        return
    for name, field in (("RLIMIT_AS", "VmSize"), ("RLIMIT_DATA", "VmData")):
        soft, _ = resource.getrlimit(getattr(resource, name))
        if soft != resource.RLIM_INFINITY:
            yield MemoryHeadroom(max(0, soft - _status(field)), soft, name)


def _cgroups(
    groups: Path = Path("/proc/self/cgroup"), root: Path = _CGROUPS
) -> Iterator[MemoryHeadroom]:
    """Those of the process and all above them."""
    try:
        lines = groups.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            names = ("memory.max", "memory.current", "inactive_file")
            top = root
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "")
            names = (*names[:2], "total_inactive_file")
            top = root / "memory"
        else:
            continue
        # A container sees its own group as the root: what it can't see is skipped.
        group = Path(os.path.normpath(f"{top}/{path}"))
        for folder in (group, *group.parents):
            if top not in (folder, *folder.parents):
                break
            headroom = _cgroup(folder, *names)
            if headroom is not None:
                yield headroom


def _cgroup(folder: Path, limit: str, usage: str, cached: str) -> MemoryHeadroom | None:
    try:
        bound = (folder / limit).read_text().strip()
        used = int((folder / usage).read_text())
        stat = (folder / "memory.stat").read_text()
    except OSError:
        return None
    if bound == "max" or int(bound) >= 1 << 60:
        return None
    match = re.search(rf"^{cached} (\d+)$", stat, re.MULTILINE)
    used -= int(match[1]) if match else 0
    return MemoryHeadroom(max(0, int(bound) - used), int(bound), "cgroup")
