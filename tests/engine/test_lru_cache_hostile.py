"""Hostile keys, values and callbacks, each probe in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ctxpool._cache_support import POLICIES

SCRIPT = Path(__file__).parents[1] / "isolated" / "lru_hostile.py"
PROBES = [
    "eq_acts",
    "eq_raises",
    "eq_deletes_the_compared",
    "hash_misbehaves",
    "del_reenters",
    "callback_misbehaves",
    "weakref_in_del",
    "cycles",
    "cleared_by_the_collector",
    "references",
    "nested_deep",
    "fork",
    "interpreter_exit",
    "memory_is_flat",
    "subinterpreter",
]


@pytest.mark.parametrize("probe", PROBES)
def test_probe(impl, probe):
    run(impl, probe)


# Slow, and the same code for all policies: with the one that holds most memory.
SLOW = ["nested_deep", "fork", "subinterpreter"]


@pytest.mark.parametrize("policy", POLICIES)
def test_probes_of_a_policy(impl, policy):
    """In one process, to save time; faulthandler names the one that crashes."""
    run(impl, ",".join(probe for probe in PROBES if probe not in SLOW), policy)


@pytest.mark.parametrize("probe", SLOW)
def test_slow_probe_with_a_policy(impl, probe):
    run(impl, probe, "s3fifo")


def run(impl, probe, *policy):
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
            *policy,
        ],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Exception ignored" not in done.stderr
