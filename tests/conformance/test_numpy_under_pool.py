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


def outcome(module: str, *arguments: str) -> tuple[int, set[str], str]:
    """pytest's exit status, the names of what failed, and all it said."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += ["-p", "no:xdist", "-p", "no:randomly", "-W", "ignore", *arguments]
    # Nothing of this project's settings; what takes gigabytes is skipped.
    command += ["-c", os.devnull, "--rootdir", str(HERE), "--pyargs", module]
    env = {**os.environ, "PYTHONPATH": str(HERE), "NPY_AVAILABLE_MEM": "1 GB"}
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), env["PATH"]])
    env.pop("PYTEST_ADDOPTS", None)
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=250)
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    return done.returncode, set(failed), done.stdout + done.stderr


def run(module: str, *arguments: str) -> None:
    """Theirs pass with ours, but for what fails here without it."""
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"NumPy {np.__version__} is installed without its tests")
    status, failed, text = outcome(module, *arguments, "-p", "numpy_under_pool")
    assert status in (0, 1), text
    assert re.search(r"pool: [1-9]\d* requests", text), text
    assert re.search(r"\d+ passed", text), text
    if failed:
        failed -= outcome(module, *arguments)[1]
    assert not failed, text


def test_arrays() -> None:
    run("numpy._core.tests.test_multiarray", "-k", f"({ARRAYS}) and not big")


def test_mem_policy() -> None:
    for tool in ("meson", "ninja", "cc"):
        beside = Path(sys.executable).parent / tool
        if not shutil.which(tool) and not beside.is_file():
            pytest.skip(f"NumPy's test builds an extension, and there is no {tool}")
    run("numpy._core.tests.test_mem_policy")
