"""Hostile arguments, results and callbacks of the decorators and of LazyProxy, each
probe in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ctxpool._cache_support import POLICIES

SCRIPT = Path(__file__).parents[1] / "isolated" / "function_hostile.py"
# With every policy: in one process, to save time; faulthandler names what crashes.
OF_A_POLICY = [
    # Before any thread, from whose start on 3.13t keeps classes and functions for ever.
    "cycles",
    "methods_misbehave",
    "references",
    "eq_acts",
    "eq_raises",
    "hash_misbehaves",
    "result_del_reenters",
    "recursion",
    "key_misbehaves",
    "getsizeof_misbehaves",
    "timer_misbehaves",
    "async_waiters",
    "async_keys_misbehave",
    "async_loops",
    "loader_raises_with_waiters",
    "threads",
    "methods_in_threads",
    "interpreter_exit",
]
PROBES = [*OF_A_POLICY, "recursion_of_c_alone", "fork"]
PROBES += ["load_misbehaves", "load_in_threads", "load_and_fork"]


@pytest.mark.parametrize("probe", PROBES)
def test_probe(impl: Any, probe: str) -> None:
    run(impl, probe)


@pytest.mark.parametrize("policy", [name for name in POLICIES if name != "lru"])
def test_probes_of_a_policy(impl: Any, policy: str) -> None:
    run(impl, ",".join(OF_A_POLICY), policy)


def run(impl: Any, probe: str, *policy: str) -> None:
    if "fork" in probe and not hasattr(os, "fork"):
        pytest.skip("no fork here")
    env = {k: v for k, v in os.environ.items() if not k.startswith("CTXPOOL_")}
    env[f"CTXPOOL_{impl.backend.upper()}"] = "1"
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", SCRIPT, probe, *policy],
        capture_output=True,
        text=True,
        env=env,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # At the end of the stack there is no room for CPython's own callbacks, either.
    for ignored in done.stderr.split("Exception ignored")[1:]:
        assert "RecursionError" in ignored, done.stderr
