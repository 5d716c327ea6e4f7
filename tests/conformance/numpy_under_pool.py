"""A pytest plugin: everything runs with a pool installed, and the pool is whole."""

import os

import numpy as np
import pytest

import ctxpool

# Of one byte and more: no array is left to NumPy, so that all sorts of them are ours.
pool = ctxpool.numpy_pool("256MiB", min_size=os.environ.get("CTXPOOL_MIN_SIZE", "1"))


def pytest_configure() -> None:
    pool.install()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> object:
    result = yield
    pool.check()
    return result


def pytest_unconfigure() -> None:
    assert pool.owns(np.ones(3)), "a test left another handler installed"
    pool.uninstall()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    stats = pool.stats()
    terminalreporter.write_line(f"pool: {stats.hits + stats.misses} requests")
