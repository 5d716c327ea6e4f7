"""cachetools' own tests, run against ctxpool.compat.cachetools."""

import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

VERSION = "8.0.0"
# Theirs say "import cachetools": let it be ours.
RUN = """
import sys, unittest
from ctxpool.compat import cachetools
from ctxpool.compat.cachetools import func, keys
sys.modules.update({"cachetools": cachetools, "cachetools.func": func,
                    "cachetools.keys": keys})
unittest.main(module=None, argv=["theirs", "discover", "-s", "tests", "-t", "."])
"""


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their source distribution, unpacked."""
    folder = tmp_path_factory.mktemp("cachetools")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--no-binary=cachetools", "--dest", str(folder)]
    try:
        done = subprocess.run(
            [*command, f"cachetools=={VERSION}"],
            capture_output=True,
            text=True,
            timeout=80,
        )
    except subprocess.TimeoutExpired:
        pytest.skip("the package index did not answer")
    archive = folder / f"cachetools-{VERSION}.tar.gz"
    if done.returncode or not archive.is_file():
        lines = done.stderr.strip().splitlines() or ["pip said nothing"]
        pytest.skip(f"no source distribution of cachetools to be had: {lines[-1]}")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder / f"cachetools-{VERSION}"


@pytest.mark.parametrize("backend", ["native", "pure"])
def test_cachetools(
    sources: Path, backend: str, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue("twins")  # skips where there is nothing native
    env = {k: v for k, v in os.environ.items() if not k.startswith("CTXPOOL_")}
    env[f"CTXPOOL_{backend.upper()}"] = "1"
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        capture_output=True,
        text=True,
        cwd=sources,
        env=env,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    ran = re.search(r"^Ran (\d+) tests", done.stderr, re.MULTILINE)
    assert ran is not None
    assert int(ran[1]) > 300
