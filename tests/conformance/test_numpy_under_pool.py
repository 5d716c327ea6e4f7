"""NumPy's own tests of its memory hook and of its arrays, with a pool installed.

A part of them; ``make numpy-conformance`` runs more."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ctxpool

HERE = Path(__file__).parent
# Those that allocate in every way, and none that takes long.
ARRAYS = "Resize or TestCreation or Pickling or TestIO or Unicode or sort_largearrays"

pytestmark = [
    pytest.mark.skipif(ctxpool.backend == "pure", reason="needs the native build"),
    pytest.mark.timeout(300),
]


def run(module: str, *arguments: str) -> None:
    """Theirs pass with ours, or fail without it just as well."""
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"NumPy {np.__version__} is installed without its tests")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += ["-p", "no:xdist", "-p", "no:randomly", "-W", "ignore", *arguments]
    # Nothing of this project's settings; what takes gigabytes is skipped.
    command += ["-c", os.devnull, "--rootdir", str(HERE), "--pyargs", module]
    env = {**os.environ, "PYTHONPATH": str(HERE), "NPY_AVAILABLE_MEM": "1 GB"}
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env["PATH"]])
    env.pop("PYTEST_ADDOPTS", None)
    results = []
    for plugin in (["-p", "numpy_under_pool"], []):
        done = subprocess.run(
            [*command, *plugin], env=env, capture_output=True, text=True, timeout=250
        )
        results.append((done.returncode, done.stdout + done.stderr))
        if done.returncode == 0:
            break
    ours = results[0][1]
    assert results[-1] == results[0] or results[-1][0] != 0, ours
    assert re.search(r"pool: [1-9]\d* requests", ours), ours
    assert re.search(r"\d+ passed", ours), ours


def test_arrays() -> None:
    run("numpy._core.tests.test_multiarray", "-k", f"({ARRAYS}) and not big")


def test_mem_policy() -> None:
    for tool in ("meson", "ninja", "cc"):
        beside = Path(sys.executable).parent / tool
        if not shutil.which(tool) and not beside.is_file():
            pytest.skip(f"NumPy's test builds an extension, and there is no {tool}")
    run("numpy._core.tests.test_mem_policy")
