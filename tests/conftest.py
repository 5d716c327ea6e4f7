"""Every test that takes ``impl`` runs once per implementation."""

import importlib
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

MODULES = {"block_pool": ["Block", "BlockPool"], "token_window": ["TokenWindow"]}
MODULES["lru_cache"] = ["LRUCache"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-native",
        action="store_true",
        help="fail, not skip, when the extension is missing (CI passes this)",
    )


def load(backend: str) -> SimpleNamespace:
    """The public names of one implementation, and its name as ``backend``."""
    names = {
        name: getattr(importlib.import_module(f"ctxpool._{backend}.{module}"), name)
        for module, public in MODULES.items()
        for name in public
    }
    return SimpleNamespace(backend=backend, **names)


@pytest.fixture(params=["native", "pure"], scope="session")
def impl(request: pytest.FixtureRequest) -> Iterator[SimpleNamespace]:
    try:
        yield load(request.param)
    except ModuleNotFoundError:
        if request.config.getoption("--require-native"):
            raise
        pytest.skip("no native extension in this installation")
