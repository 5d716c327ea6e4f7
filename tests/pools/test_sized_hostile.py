"""Hostile users of a MemoryPool, each probe in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "isolated" / "sized_hostile.py"
PROBES = [
    "finalizers_use_the_pool",
    "hooks_do_anything",
    "signals_use_the_pool",
    "memory_is_flat",
    "interpreter_exit",
]


@pytest.mark.parametrize("probe", PROBES)
def test_probe(impl, probe):
    if probe == "memory_is_flat" and not Path("/proc/self/statm").exists():
        pytest.skip("no /proc here")
    if probe == "memory_is_flat" and "asan" in os.environ.get("LD_PRELOAD", ""):
        pytest.skip("AddressSanitizer keeps what was freed")
    if impl.backend == "pure" and probe.endswith("use_the_pool"):
        pytest.skip("the pure pool refuses what interrupts a call of its own")
    done = subprocess.run(
        [sys.executable, SCRIPT, impl.backend, probe],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Exception ignored" not in done.stderr
