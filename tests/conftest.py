"""Every test that takes ``impl`` runs once per implementation."""

import importlib
import signal
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, settings

# A slow machine is no failure. "quick": sanitizers and further interpreters.
_common = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("full", max_examples=100, **_common)
settings.register_profile("quick", max_examples=25, stateful_step_count=30, **_common)
settings.load_profile("full")

MODULES = {"block_pool": ["Block", "BlockPool"], "token_window": ["TokenWindow"]}
MODULES["lru_cache"] = ["LRUCache"]
MODULES["cache"] = ["Cache"]
MODULES["cached_function"] = ["CachedFunction", "CachedMethod"]
MODULES["lazy_proxy"] = ["LazyProxy"]
MODULES["markov"] = ["MarkovModel"]
MODULES["shared_pool"] = ["SharedBlock", "SharedBlockPool"]
MODULES["object_pool"] = ["ObjectLease", "ObjectPool"]
MODULES["prefix_blocks"] = ["PrefixBlockManager"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-native",
        action="store_true",
        help="fail, not skip, when the extension is missing (CI passes this)",
    )
    parser.addoption(
        "--require-no-gil",
        action="store_true",
        help="fail if the GIL is on when the tests end: an extension switched it on",
    )


def pytest_configure() -> None:
    # A shell that starts the tests in the background has them ignore Ctrl-C.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_sessionfinish(session: pytest.Session) -> None:
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    if gil and session.config.getoption("--require-no-gil"):
        print("\nthe GIL is on: --require-no-gil")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


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


@pytest.fixture(scope="session")
def twins(request: pytest.FixtureRequest) -> tuple[SimpleNamespace, SimpleNamespace]:
    """Both implementations, native first, for the tests that compare them."""
    try:
        return load("native"), load("pure")
    except ModuleNotFoundError:
        if request.config.getoption("--require-native"):
            raise
        pytest.skip("no native extension in this installation")
