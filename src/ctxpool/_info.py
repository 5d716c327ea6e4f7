"""What this installation is and what it runs on."""

import mmap
import os
import platform
import sys
from pathlib import Path

import numpy as np

from . import __version__, backend

__all__ = ["huge_page_size", "machine", "page_size", "version_text"]


def page_size() -> int:
    """Bytes of a page of memory."""
    return mmap.PAGESIZE


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _field(text: str, name: str) -> str:
    """The value of the line ``name: value``, as /proc writes it; "" without one."""
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon and key.strip() == name:
            return value.strip()
    return ""


def huge_page_size() -> int | None:
    """Bytes of a huge page; None where the system does not tell."""
    number, _, unit = _field(_read("/proc/meminfo"), "Hugepagesize").partition(" ")
    if number.isdecimal() and unit == "kB":
        return int(number) * 1024
    size = _read("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size").strip()
    return int(size) if size.isdecimal() else None


def _transparent() -> str | None:
    """The kernel's choice for transparent huge pages: always, madvise or never."""
    choices = _read("/sys/kernel/mm/transparent_hugepage/enabled").split()
    return next((c.strip("[]") for c in choices if c.startswith("[")), None)


def _gil() -> bool:
    enabled = getattr(sys, "_is_gil_enabled", None)
    return True if enabled is None else bool(enabled())


def machine() -> dict[str, str | int | bool | None]:
    """The machine and the interpreter, for a report."""
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "system": platform.platform(),
        "architecture": platform.machine(),
        "processor": _field(_read("/proc/cpuinfo"), "model name") or None,
        "cpus": len(affinity(0)) if affinity else os.cpu_count(),
        "page_bytes": page_size(),
        "huge_page_bytes": huge_page_size(),
        "transparent_huge_pages": _transparent(),
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "gil": _gil(),
        "numpy": np.__version__,
    }


def version_text() -> str:
    """Version, back end, interpreter, numpy and page sizes, one a line."""
    huge, transparent = huge_page_size(), _transparent()
    huge_text = f"{huge} bytes" if huge else "unknown"
    if transparent:
        huge_text += f" (transparent: {transparent})"
    gil = "" if _gil() else " (free-threaded)"
    lines = {
        "ctxpool": __version__,
        "back end": backend,
        platform.python_implementation(): platform.python_version() + gil,
        "numpy": np.__version__,
        "page": f"{page_size()} bytes",
        "huge page": huge_text,
    }
    return "\n".join(f"{name:<10}{value}" for name, value in lines.items())
