"""Hostile keys, features and threads, each probe in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[1] / "isolated" / "markov_hostile.py"
PROBES = [
    "keys_act",
    "keys_raise",
    "features_misbehave",
    "names_act",
    "del_reenters",
    "iterables_misbehave",
    "cycles",
    "cleared_by_the_collector",
    "references",
    "nested_deep",
    "threads",
    "fork",
    "memory_is_flat",
    "interpreter_exit",
    "uninitialised",
]


@pytest.mark.parametrize("probe", PROBES)
def test_probe(impl: Any, probe: str) -> None:
    if probe == "fork" and not hasattr(os, "fork"):
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
