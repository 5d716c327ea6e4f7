"""What `pip install .` makes: native, pure, or an error, and never by accident."""

import re
import sysconfig
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

NO_COMPILER = {"CC": "/nonexistent/cc"}
FALLBACK = "made the pure-Python wheel"
pytestmark = pytest.mark.timeout(600)


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_native_wheel_contents(native_wheel: Path) -> None:
    shipped = names(native_wheel)
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    for module in ("block_pool", "token_window", "lru_cache"):
        assert f"ctxpool/_native/{module}{suffix}" in shipped
        assert f"ctxpool/_native/{module}.pxd" in shipped
    assert "ctxpool/py.typed" in shipped
    for header in ("block_pool.h", "lru_table.h", "token_ring.h", "vm.h"):
        assert f"ctxpool/include/ctxpool/{header}" in shipped
    assert any(re.fullmatch(r"ctxpool-.*/licenses/LICENSE", name) for name in shipped)
    assert "none-any" not in native_wheel.name


@pytest.mark.parametrize("kind", ["native", "pure"])
def test_no_sources_and_no_strangers_in_a_wheel(
    kind: str, request: pytest.FixtureRequest
) -> None:
    if kind == "native":
        wheel = request.getfixturevalue("native_wheel")
    else:
        wheel, _ = request.getfixturevalue("pure_build")
    for name in names(wheel):
        assert not name.endswith((".pyx", ".c", ".a", ".o")), name
        assert re.match(r"ctxpool(-[^/]*\.(dist-info|data))?/", name), name


def test_metadata(native_wheel: Path) -> None:
    with zipfile.ZipFile(native_wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = Parser().parsestr(archive.read(name).decode())
    required = [
        re.match(r"[\w-]+", line)[0]  # type: ignore[index]
        for line in metadata.get_all("Requires-Dist", [])
        if "extra ==" not in line
    ]
    assert sorted(required) == ["numpy", "psutil"]
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "MIT"
    assert metadata["Name"] == "ctxpool"


def test_pure_build_on_request(pure_build: tuple[Path, str], pure) -> None:
    wheel, said = pure_build
    assert wheel.name.endswith("-none-any.whl")
    assert not [name for name in names(wheel) if name.endswith(".so")]
    assert FALLBACK not in said, "nothing failed, so nothing is to be reported"
    done = pure.run("-c", "import ctxpool; print(ctxpool.backend)")
    assert done.stdout.strip() == "pure", done.stderr


def test_no_compiler_gives_the_pure_wheel_and_says_so(
    source: Path, tmp_path: Path, building
) -> None:
    done = building.build(source, tmp_path, **NO_COMPILER)
    assert done.returncode == 0, done.stdout[-5000:]
    assert building.wheel_in(tmp_path).name.endswith("-none-any.whl")
    said = [line for line in done.stdout.splitlines() if FALLBACK in line]
    assert len(said) == 1, said


def test_no_compiler_is_an_error_where_native_is_asked_for(
    source: Path, tmp_path: Path, building
) -> None:
    done = building.build(source, tmp_path, CTXPOOL_NATIVE="1", **NO_COMPILER)
    assert done.returncode != 0
    assert not list(tmp_path.glob("*.whl"))
    assert FALLBACK not in done.stdout


@pytest.mark.parametrize("kind", ["native", "pure"])
def test_smoke(kind: str, request: pytest.FixtureRequest, building) -> None:
    """The wheels are built from the sdist, so this tests the sdist too."""
    installed = request.getfixturevalue(kind)
    done = installed.run(str(building.ROOT / "tools" / "smoke.py"), kind)
    assert done.returncode == 0, done.stderr
