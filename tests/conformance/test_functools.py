"""CPython's own tests of functools.lru_cache, run against ours."""

import functools
import importlib
import unittest
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from ctxpool._function_support import CacheInfo
from ctxpool.caches import decorators


@pytest.fixture(scope="module")
def theirs() -> ModuleType:
    try:
        return importlib.import_module("test.test_functools")
    except ImportError as error:
        pytest.skip(f"this Python has no tests of its own: {error}")


def ours(theirs: ModuleType, lru_cache: Any) -> list[type[unittest.TestCase]]:
    """Their classes, as they make one for each implementation of functools."""
    names = {**vars(functools), "lru_cache": lru_cache, "_CacheInfo": CacheInfo}
    names["cache"] = lru_cache(maxsize=None)
    module = SimpleNamespace(**names)

    @lru_cache()
    def cached_func(x: int, y: int) -> int:
        return 3 * x + y

    @lru_cache()
    def cached_meth(self: Any, x: int, y: int) -> int:
        return 3 * x + y

    @lru_cache()
    def cached_staticmeth(x: int, y: int) -> int:
        return 3 * x + y

    body = {
        "__module__": __name__,
        "module": module,
        "cached_func": (cached_func,),
        "cached_meth": cached_meth,
        "cached_staticmeth": staticmethod(cached_staticmeth),
    }
    for name, wrapped in (
        ("TestLRUOurs.cached_meth", cached_meth),
        ("TestLRUOurs.cached_staticmeth", cached_staticmeth),
        ("cached_func", cached_func),
    ):
        wrapped.__qualname__ = name
        wrapped.__module__ = __name__
    made = type("TestLRUOurs", (theirs.TestLRU, unittest.TestCase), body)
    globals().update(TestLRUOurs=made, cached_func=cached_func)  # pickled by name
    cases = [made]
    if hasattr(theirs, "TestCache"):
        bases = (theirs.TestCache, unittest.TestCase)
        cases.append(type("TestCacheOurs", bases, {"module": module}))
    return cases


def test_functools(
    theirs: ModuleType, impl: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decorators, "CachedFunction", impl.CachedFunction)
    try:
        ran, bad = outcome(ours(theirs, decorators.lru_cache))
    finally:
        for name in ("TestLRUOurs", "cached_func"):
            globals().pop(name, None)
    assert ran > 20
    if bad:  # what functools itself fails here is no fault of ours
        _, excused = outcome([theirs.TestLRUC])
        bad = {name: trace for name, trace in bad.items() if name not in excused}
    assert not bad, "\n".join(f"{test}\n{trace}" for test, trace in bad.items())


def outcome(cases: list[type[unittest.TestCase]]) -> tuple[int, dict[str, str]]:
    """How many tests ran, and the traceback of each that failed, by name."""
    load = unittest.defaultTestLoader.loadTestsFromTestCase
    result = unittest.TestResult()
    unittest.TestSuite(load(case) for case in cases).run(result)
    failed = result.failures + result.errors
    return result.testsRun, {test.id().split(".")[-1]: trace for test, trace in failed}
