"""Peak memory of one side, measured in a process of its own.

Two sides in one process share an allocator, so neither has a peak of its own. The
job therefore starts a new interpreter once per side. It runs that side alone over
the first part of the same visits, and tells by how much its resident memory rose
above what it was with everything imported, the tokenizer loaded and the side not
yet made.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any

import psutil

from .job import collector
from .settings import Settings
from .sides import Side, make
from .tokenizers import load

__all__ = ["LIMIT", "answer", "measure", "run"]

LIMIT = 16_000_000
_TIMEOUT_S = 600.0

# The child imports what this process imports, wherever either was started.
_CHILD = """
import json, sys
request = json.load(sys.stdin)
sys.path[:] = request.pop("path")
from ctxpool.cli.memory import answer
sys.exit(answer(request))
"""


def _status(field: str) -> int | None:
    """Bytes of a field of /proc/self/status; None where there is none."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    return None


class _Peak:
    """The highest resident memory since construction.

    The kernel's own high-water mark where it can be reset (Linux); elsewhere the
    highest of the samples.
    """

    def __init__(self) -> None:
        self._process = psutil.Process()
        try:
            Path("/proc/self/clear_refs").write_text("5")
            exact = _status("VmHWM") is not None
        except OSError:
            exact = False
        self.method = "VmHWM" if exact else "sampled RSS"
        self.start: int = self._process.memory_info().rss
        self._peak: int = self.start

    def sample(self) -> None:
        """Look now; costs nothing where the kernel keeps the mark."""
        if self.method == "sampled RSS":
            self._peak = max(self._peak, self._process.memory_info().rss)

    def peak(self) -> int:
        self.sample()
        return max(_status("VmHWM") or 0, self._peak) - self.start


def _visit(side: Side, path: str, room: int) -> int:
    """Do up to *room* bytes of a file, to the end of a chunk; the bytes done."""
    settings, done = side.settings, 0
    with FileIO(path) as file:
        while done < room:
            try:
                size = side.read(file)
            except OSError:
                side.drop()
                raise
            if not size:
                side.drop()
                break
            tokens = side.tokens(side.digest())
            for start in range(0, len(tokens), settings.step):
                side.step(tokens[start : start + settings.step])
            side.finish()
            done += size
            if size < settings.block_size:
                break
    return done


def run(
    settings: Settings, name: str, visits: Sequence[str], limit: int
) -> dict[str, Any]:
    """Run one side in this process, up to *limit* bytes; see :func:`measure`."""
    tokenizer = load(settings.tokenizer)
    tokenizer.encode(b"The tables of a tokenizer may be made on first use.")
    with collector(settings.gc):
        peak = _Peak()
        side = make(name, settings, tokenizer)
        done = 0
        for path in visits:
            if done >= limit:
                break
            with suppress(OSError):  # The job itself reports such files.
                done += _visit(side, path, limit - done)
            peak.sample()
        return {"peak_bytes": peak.peak(), "input_bytes": done, "method": peak.method}


def measure(
    settings: Settings, name: str, visits: Sequence[str], limit: int
) -> dict[str, Any]:
    """Peak memory of the side *name*, in bytes above the start.

    Returns
    -------
    dict
        ``peak_bytes``, ``input_bytes``, ``method``; or ``error`` alone.
    """
    request = {
        "settings": settings.as_dict(),
        "name": name,
        "visits": list(visits),
        "limit": limit,
        "path": sys.path,
    }
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", _CHILD],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=True,
        )
        # An import may have written something of its own before it.
        measured: dict[str, Any] = json.loads(done.stdout.rpartition("\n")[2])
    except subprocess.CalledProcessError as error:
        lines = (error.stderr or "").strip().splitlines() or ["no message"]
        return {"error": f"exit code {error.returncode}: {lines[-1]}"}
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        return {"error": str(error)}
    return measured


def answer(request: dict[str, Any]) -> int:
    """What the new process does: run, write the figures to stdout; its exit code."""
    settings = Settings(**request.pop("settings"))
    try:
        json.dump(run(settings, **request), sys.stdout)
    except KeyboardInterrupt:
        return 130
    return 0
