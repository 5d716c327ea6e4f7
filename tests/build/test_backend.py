"""Which of the two is at work, and what happens when it can't be."""

import shutil
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(600)

WHICH = ("-c", "import ctxpool; print(ctxpool.backend, ctxpool.BlockPool.__module__)")


@pytest.fixture
def copy(native, tmp_path: Path, building):
    """A native installation that a test may damage."""
    shutil.copytree(native.folder, tmp_path / "site")
    return building.Installed(tmp_path / "site")


def extension(installed, module: str) -> Path:
    (path,) = (installed.folder / "ctxpool" / "_native").glob(f"{module}.*.so")
    return path


def test_native_is_the_default(native) -> None:
    done = native.run(*WHICH)
    assert done.stdout.startswith("native ctxpool._native"), done.stderr


@pytest.mark.parametrize("value", ["1", "true", "YES", " on "])
def test_pure_at_import(native, value: str) -> None:
    done = native.run(*WHICH, CTXPOOL_PURE=value)
    assert done.stdout.startswith("pure "), done.stderr


@pytest.mark.parametrize("value", ["0", "false", "No", "off", ""])
def test_a_switch_that_is_off(native, value: str) -> None:
    done = native.run(*WHICH, CTXPOOL_PURE=value, CTXPOOL_NATIVE=value)
    assert done.stdout.startswith("native "), done.stderr


def test_native_asked_for_and_there(native) -> None:
    assert native.run(*WHICH, CTXPOOL_NATIVE="1").stdout.startswith("native ")


def test_native_asked_for_and_missing(pure) -> None:
    done = pure.run(*WHICH, CTXPOOL_NATIVE="1")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: CTXPOOL_NATIVE=1"), done.stderr
    assert "no native build" in last
    assert "pip install" in last


@pytest.mark.parametrize("kind", ["native", "pure"])
def test_both_switches_exclude_each_other(
    kind: str, request: pytest.FixtureRequest
) -> None:
    installed = request.getfixturevalue(kind)
    done = installed.run(*WHICH, CTXPOOL_NATIVE="1", CTXPOOL_PURE="1")
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: "), done.stderr
    assert "CTXPOOL_PURE" in last
    assert "CTXPOOL_NATIVE" in last


@pytest.mark.parametrize("name", ["CTXPOOL_PURE", "CTXPOOL_NATIVE"])
def test_a_switch_with_another_value(native, name: str) -> None:
    done = native.run(*WHICH, **{name: "maybe"})
    last = done.stderr.strip().splitlines()[-1]
    assert last == f"ImportError: {name} must be 1 or 0, not 'maybe'"


@pytest.mark.parametrize("module", ["block_pool", "token_window", "lru_cache"])
def test_a_broken_extension_is_loud(copy, module: str) -> None:
    extension(copy, module).write_bytes(b"\x7fELF this is no extension")
    done = copy.run(*WHICH)
    assert done.returncode == 1, "a broken extension was passed over in silence"
    assert "ImportError" in done.stderr.strip().splitlines()[-1]
    assert not done.stdout


def test_a_broken_extension_does_not_hinder_the_twin(copy) -> None:
    extension(copy, "block_pool").write_bytes(b"\x7fELF this is no extension")
    assert copy.run(*WHICH, CTXPOOL_PURE="1").stdout.startswith("pure ")


def test_without_the_extensions_the_twin_is_at_work(copy) -> None:
    for path in (copy.folder / "ctxpool" / "_native").glob("*.so"):
        path.unlink()
    assert copy.run(*WHICH).stdout.startswith("pure ")


@pytest.mark.parametrize("module", ["block_pool", "token_window", "lru_cache"])
def test_one_missing_extension_beside_others_is_loud(copy, module: str) -> None:
    extension(copy, module).unlink()
    done = copy.run(*WHICH)
    assert done.returncode == 1, "half an installation was passed over in silence"
    assert f"ctxpool._native.{module}" in done.stderr.strip().splitlines()[-1]
    assert copy.run(*WHICH, CTXPOOL_PURE="1").stdout.startswith("pure ")


def test_a_missing_dependency_is_not_taken_for_a_missing_extension(copy) -> None:
    script = "import sys; sys.modules['numpy'] = None; import ctxpool"
    done = copy.run("-c", script)
    assert done.returncode == 1
    assert "numpy" in done.stderr.strip().splitlines()[-1]


def test_include_folder_of_an_installation(native) -> None:
    done = native.run("-c", "import ctxpool; print(ctxpool.get_include())")
    include = Path(done.stdout.strip())
    assert include.is_relative_to(native.folder)
    assert (include / "ctxpool" / "block_pool.h").is_file()


def test_include_folder_that_was_lost(copy) -> None:
    shutil.rmtree(copy.folder / "ctxpool" / "include")
    done = copy.run("-c", "import ctxpool; ctxpool.get_include()")
    assert done.stderr.strip().splitlines()[-1].startswith("FileNotFoundError: no C")
