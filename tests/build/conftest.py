"""One sdist, one wheel built from it, and that wheel installed in a folder.

Nothing comes from a package index: the builds use what the running environment
has (``--no-build-isolation --no-index``), and skip where it lacks a build tool.
"""

import importlib.metadata
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[2]
SITE = sysconfig.get_path("purelib")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One worker builds the wheel, once, for all of them, and one what the benchmarks
    time their floors with."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            group = "bench" if item.path.name == "test_bench.py" else "build"
            item.add_marker(pytest.mark.xdist_group(group))


def environment(**changes: str) -> dict[str, str]:
    """Ours, without the switches of ctxpool and of other builds."""
    clean = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("CTXPOOL_", "PYTHON", "PYTEST", "SKBUILD", "COV"))
    }
    return {**clean, "PIP_DISABLE_PIP_VERSION_CHECK": "1", **changes}


def build(source: Path, work: Path, **env: str) -> "subprocess.CompletedProcess[str]":
    """``pip wheel``: the wheel lands in ``work``. Stdout tells what pip -v tells."""
    command = [sys.executable, "-m", "pip", "wheel", "-v", "--no-build-isolation"]
    command += ["--no-index", "--no-deps", f"-Cbuild-dir={work / 'build'}"]
    return subprocess.run(
        [*command, "-w", str(work), str(source)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(**env),
    )


def wheel_in(work: Path) -> Path:
    (wheel,) = work.glob("ctxpool-*.whl")
    return wheel


@dataclass
class Installed:
    """A wheel unpacked in a folder. ``-S`` keeps the environment's own ctxpool out."""

    folder: Path

    def run(self, *arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
        path = os.pathsep.join([str(self.folder), SITE])
        return subprocess.run(
            [sys.executable, "-S", *arguments],
            capture_output=True,
            text=True,
            env=environment(PYTHONPATH=path, **env),
            cwd=self.folder,
        )


def install(wheel: Path, folder: Path) -> Installed:
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps"]
    done = subprocess.run(
        [*command, "--target", str(folder), str(wheel)],
        capture_output=True,
        text=True,
        env=environment(),
    )
    assert done.returncode == 0, done.stderr
    return Installed(folder)


@pytest.fixture(scope="session", autouse=True)
def build_tools() -> None:
    if not (ROOT / "pyproject.toml").is_file():
        pytest.skip("needs the checkout")
    for tool in ("pip", "scikit-build-core", "cython", "cython-cmake", "cmake"):
        try:
            importlib.metadata.version(tool)
        except importlib.metadata.PackageNotFoundError:
            pytest.skip(f"needs {tool} in the running environment")


@pytest.fixture(scope="session")
def building() -> SimpleNamespace:
    """The helpers above, for the tests."""
    return SimpleNamespace(
        ROOT=ROOT, SITE=SITE, build=build, wheel_in=wheel_in, Installed=Installed
    )


@pytest.fixture(scope="session")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    script = "import sys, scikit_build_core.build as b; b.build_sdist(sys.argv[1])"
    subprocess.run(
        [sys.executable, "-c", script, str(folder)],
        check=True,
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.DEVNULL,
    )
    (archive,) = folder.glob("ctxpool-*.tar.gz")
    return archive


@pytest.fixture(scope="session")
def source(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist, unpacked."""
    folder = tmp_path_factory.mktemp("source")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (root,) = folder.iterdir()
    return root


@pytest.fixture(scope="session")
def native_wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not any(shutil.which(cc) for cc in ("cc", "gcc", "clang")):
        pytest.skip("needs a C compiler")
    work = tmp_path_factory.mktemp("native-wheel")
    done = build(source, work, CTXPOOL_NATIVE="1")
    assert done.returncode == 0, done.stdout[-5000:]
    return wheel_in(work)


@pytest.fixture(scope="session")
def pure_build(
    source: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """The wheel made with CTXPOOL_PURE=1, and what the build said."""
    work = tmp_path_factory.mktemp("pure-wheel")
    done = build(source, work, CTXPOOL_PURE="1")
    assert done.returncode == 0, done.stdout[-5000:]
    return wheel_in(work), done.stdout


@pytest.fixture(scope="session")
def native(native_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return install(native_wheel, tmp_path_factory.mktemp("native") / "site")


@pytest.fixture(scope="session")
def pure(
    pure_build: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory
) -> Installed:
    return install(pure_build[0], tmp_path_factory.mktemp("pure") / "site")
