"""Hostile callbacks, finalizers and moments, each probe in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "isolated" / "object_pool_hostile.py"
# In one process, to save time; faulthandler names the one that crashes.
TOGETHER = "cycles,references,half_made,finalizers_reenter,callbacks_misbehave"


@pytest.mark.parametrize(
    "probe", [TOGETHER, "many_tasks", "fork_in_threads", "interpreter_exit"]
)
def test_probe(impl, probe):
    if "fork" in probe and not hasattr(os, "fork"):
        pytest.skip("no fork here")
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore::DeprecationWarning",
            SCRIPT,
            impl.backend,
            probe,
        ],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Exception ignored" not in done.stderr
