"""The pools over each of the two engines."""

import os

import pytest

from ctxpool.pools import size_class, sized


@pytest.fixture
def memory_pool(impl, monkeypatch):
    """MemoryPool over one of the twins."""
    monkeypatch.setattr(sized, "Block", impl.Block)
    for module in (sized, size_class):
        monkeypatch.setattr(module, "BlockPool", impl.BlockPool)
    return sized.MemoryPool


@pytest.fixture
def open_fds():
    """The open descriptors, by a call. Compare by <=: garbage may close some."""
    return lambda: set(os.listdir("/proc/self/fd"))
