"""Nothing points up: csrc <- _native, _pure <- facade <- rooms <- cli."""

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "ctxpool"
CORE = ROOT / "csrc"

pytestmark = pytest.mark.skipif(not SOURCE.is_dir(), reason="needs the checkout")

BASE, ENGINE, FACADE, ROOM, CLI = range(5)
# What both twins use: the checks of arguments, and such.
SHARED = ["_arguments", "_waiting", "_cache_support", "_pickling", "_unraisable"]
SHARED += ["_function_support"]
SHARED += ["_lazy_support"]
SHARED += ["_markov_support"]
SHARED += ["_places"]
SHARED += ["_prefix_support"]
SHARED += ["_shared_support"]
SHARED += ["_object_settings", "_object_support", "_object_sweeper"]
LAYERS = {
    **dict.fromkeys(["errors", "stats", "sizes", "_include", *SHARED], BASE),
    **dict.fromkeys(["_native", "_pure"], ENGINE),
    **dict.fromkeys(["", "_backend"], FACADE),
    **dict.fromkeys(["cli", "__main__"], CLI),
}


def room(module: str) -> str:
    """``"_pure"`` of ``"ctxpool._pure.block_pool"``, ``""`` of ``"ctxpool"``."""
    return f"{module}.".split(".")[1]


def layer(module: str) -> int:
    """What is not listed is a room."""
    return LAYERS.get(room(module), ROOM)


def allowed(importer: str, imported: str) -> bool:
    if {room(importer), room(imported)} == {"_native", "_pure"}:
        return False
    return layer(imported) <= layer(importer)


def module_name(path: Path) -> str:
    parts = ("ctxpool", *path.relative_to(SOURCE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def exists(module: str) -> bool:
    path = SOURCE.joinpath(*module.split(".")[1:])
    return path.is_dir() or any(
        path.with_suffix(suffix).is_file() for suffix in (".py", ".pyx", ".pxd")
    )


def resolve(importer: Path, level: int, module: str, names: list[str]) -> Iterator[str]:
    """The modules of ctxpool behind ``from <level dots><module> import <names>``."""
    if level:
        package = ("ctxpool", *importer.relative_to(SOURCE).parent.parts)
        package = package[: len(package) - level + 1]
        module = ".".join([*package, *([module] if module else [])])
    if module.split(".")[0] != "ctxpool":
        return
    for name in names:
        yield f"{module}.{name}" if exists(f"{module}.{name}") else module


def run_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those that only type checkers see."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        yield node
        yield from run_nodes(node)


def python_imports(path: Path) -> Iterator[str]:
    for node in run_nodes(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "ctxpool":
                    yield alias.name
        elif isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names]
            yield from resolve(path, node.level, node.module or "", names)


CYTHON_IMPORT = re.compile(
    r"^[ \t]*from[ \t]+(\.*)([\w.]*)[ \t]+c?import[ \t]+(\([^)]*\)|[^\n#]+)"
    r"|^[ \t]*c?import[ \t]+(ctxpool[\w.]*)",
    re.MULTILINE,
)


def cython_imports(path: Path) -> Iterator[str]:
    for dots, module, names, whole in CYTHON_IMPORT.findall(path.read_text()):
        if whole:
            yield whole
        else:
            listed = re.findall(r"(\w+)(?:\s+as\s+\w+)?", names)
            yield from resolve(path, len(dots), module, listed)


def imports() -> Iterator[tuple[str, str]]:
    for path in sorted(SOURCE.rglob("*")):
        if path.suffix == ".py":
            found = python_imports(path)
        elif path.suffix in (".pyx", ".pxd", ".pxi"):
            found = cython_imports(path)
        else:
            continue
        for imported in found:
            yield module_name(path), imported


def test_no_import_points_up() -> None:
    edges = set(imports())
    assert ("ctxpool._backend", "ctxpool._pure.block_pool") in edges, "no walk at all"
    wrong = sorted(f"{a} imports {b}" for a, b in edges if not allowed(a, b))
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("importer", "imported", "good"),
    [
        ("ctxpool._pure.block_pool", "ctxpool.errors", True),
        ("ctxpool._pure.block_pool", "ctxpool._native.block_pool", False),
        ("ctxpool._native.block_pool", "ctxpool._pure.block_pool", False),
        ("ctxpool._native.lru_cache", "ctxpool._native.block_pool", True),
        ("ctxpool._pure.lru_cache", "ctxpool", False),
        ("ctxpool._pure.lru_cache", "ctxpool._backend", False),
        ("ctxpool.errors", "ctxpool.stats", True),
        ("ctxpool.errors", "ctxpool._pure.block_pool", False),
        ("ctxpool.caches.decorators", "ctxpool", True),
        ("ctxpool", "ctxpool.caches.decorators", False),
        ("ctxpool.caches", "ctxpool.cli", False),
        ("ctxpool.cli.run", "ctxpool.caches", True),
    ],
)
def test_the_rule_itself(importer: str, imported: str, good: bool) -> None:
    assert allowed(importer, imported) is good


def test_the_core_knows_no_python() -> None:
    """csrc includes its own headers and the system's, never Python's."""
    for path in sorted(CORE.rglob("*.[ch]")):
        for kind, name in re.findall(
            r'^\s*#\s*include\s*([<"])([^>"]+)', path.read_text(), re.MULTILINE
        ):
            assert name not in ("Python.h", "pythread.h", "numpy/arrayobject.h"), path
            if kind == '"':
                homes = (path.parent, CORE / "include", CORE / "src", CORE / "tests")
                assert any((home / name).is_file() for home in homes), (path, name)


@pytest.mark.parametrize("flag", ["", "CTXPOOL_PURE"])
def test_importing_the_core_needs_numpy_only(flag: str) -> None:
    """No optional extra, no psutil, is loaded by ``import ctxpool``."""
    script = (
        "import json, sys, numpy\n"
        "before = set(sys.modules)\n"
        "import ctxpool\n"
        "print(json.dumps([m.split('.')[0] for m in set(sys.modules) - before]))"
    )
    env = {k: v for k, v in os.environ.items() if not k.startswith("CTXPOOL_")}
    if flag:
        env[flag] = "1"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=env
    )
    assert done.returncode == 0, done.stderr
    foreign = {
        name
        for name in json.loads(done.stdout.splitlines()[-1])
        if name not in sys.stdlib_module_names
        and name not in ("ctxpool", "numpy", "cython_runtime")
        and not name.startswith("_cython_")
    }
    assert not foreign
