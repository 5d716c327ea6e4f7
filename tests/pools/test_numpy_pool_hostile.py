"""Hostile uses of the numpy pool, each probe in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import ctxpool

SCRIPT = Path(__file__).parents[1] / "isolated" / "numpy_hostile.py"
PROBES = [
    "the_pool_dies_first",
    "memory_goes_with_the_pool",
    "references",
    "other_threads_free",
    "threads",
    "fork",
    "interpreter_exit",
    "generators_and_tasks",
    "objects_and_odd_memory",
    "no_memory",
    "stolen",
]
# Sanitizers reserve address space, keep freed memory and count what is stolen.
ALONE = {"no_memory", "memory_goes_with_the_pool", "the_pool_dies_first"}


@pytest.mark.skipif(ctxpool.backend == "pure", reason="needs the native build")
@pytest.mark.parametrize("probe", PROBES)
def test_probe(probe: str) -> None:
    if probe == "fork" and not hasattr(os, "fork"):
        pytest.skip("no fork here")
    if probe in ALONE and "asan" in os.environ.get("LD_PRELOAD", ""):
        pytest.skip("the sanitizer's own memory would be measured")
    if probe == "no_memory" and not sys.platform.startswith("linux"):
        pytest.skip("no bound of the address space here")
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", SCRIPT, probe],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Exception ignored" not in done.stderr
