"""The pools over each of the two engines."""

import pytest

from ctxpool.pools import sized


@pytest.fixture
def memory_pool(impl, monkeypatch):
    """MemoryPool over one of the twins."""
    monkeypatch.setattr(sized, "Block", impl.Block)
    monkeypatch.setattr(sized, "BlockPool", impl.BlockPool)
    return sized.MemoryPool
