"""The examples run: those of README.md, and those of every docstring, twice."""

import doctest
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

import ctxpool

README = Path(__file__).resolve().parents[1] / "README.md"
FLAGS = doctest.ELLIPSIS
ENGINE = [
    "Block",
    "BlockPool",
    "Cache",
    "CachedFunction",
    "LRUCache",
    "LazyProxy",
    "MarkovModel",
    "SharedBlock",
    "SharedBlockPool",
    "ObjectLease",
    "ObjectPool",
    "PrefixBlockManager",
    "TokenWindow",
]


def run(test: doctest.DocTest) -> None:
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=FLAGS, verbose=False)
    runner.run(test, out=report.append, clear_globs=False)
    assert runner.summarize(verbose=False).failed == 0, "".join(report)


def modules() -> list[str]:
    """All but the twins, whose examples run on each of the two."""
    found = pkgutil.walk_packages(ctxpool.__path__, "ctxpool.")
    names = [m.name for m in found if not re.search(r"\._native|\.__main__", m.name)]
    return ["ctxpool", *(n for n in names if "._pure" not in n)]


@pytest.mark.parametrize("name", modules())
def test_module_examples(name: str) -> None:
    module = importlib.import_module(name)
    for test in doctest.DocTestFinder(exclude_empty=True).find(module, name):
        run(test)


@pytest.fixture
def facade(impl: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """``from ctxpool import BlockPool``, in an example, gives this twin's."""
    monkeypatch.setattr(ctxpool, "backend", impl.backend)
    for name in ENGINE:
        monkeypatch.setattr(ctxpool, name, getattr(impl, name))
    return impl


def documented(cls: type) -> Iterator[tuple[str, str]]:
    yield cls.__name__, inspect.getdoc(cls) or ""
    for name, value in vars(cls).items():
        if not name.startswith("_") and getattr(value, "__doc__", None):
            yield f"{cls.__name__}.{name}", inspect.getdoc(getattr(cls, name)) or ""


@pytest.mark.parametrize("cls", ENGINE)
def test_engine_examples(facade: SimpleNamespace, cls: str) -> None:
    parser = doctest.DocTestParser()
    names = {name: getattr(facade, name) for name in ENGINE}
    examples = 0
    for name, text in documented(getattr(facade, cls)):
        test = parser.get_doctest(text, {"ctxpool": ctxpool, **names}, name, None, 0)
        examples += len(test.examples)
        run(test)
    assert examples or cls in ("Block", "ObjectLease"), f"{cls} shows no example"


@pytest.mark.skipif(not README.is_file(), reason="needs the checkout")
def test_readme_examples(
    facade: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In order, in one namespace; a ``python no-run`` block is left out."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__readme__"}
    text = README.read_text()
    for match in re.finditer(r"^```(python|pycon)[ \t]*\n(.*?)^```", text, re.M | re.S):
        line = text.count("\n", 0, match.start(2))
        if ">>>" in match[2]:
            test = doctest.DocTestParser().get_doctest(
                match[2], names, f"{README.name}:{line + 1}", str(README), line
            )
            run(test)
            names = test.globs
        else:
            exec(compile("\n" * line + match[2], str(README), "exec"), names)
