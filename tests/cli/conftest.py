"""Small trees of files, and the job on either implementation."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from ctxpool.cli import sides


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Files of many sizes; some repeat others, one is empty, one is not text."""
    root = tmp_path / "tree"
    (root / "deep" / "deeper").mkdir(parents=True)
    text = "".join(f"def f_{i}(x):\n    return x + {i * 37}\n" for i in range(400))
    (root / "a.py").write_text(text)
    (root / "deep" / "same.py").write_text(text)
    (root / "deep" / "half.txt").write_text(text[: len(text) // 2])
    (root / "deep" / "block.bin").write_bytes(bytes(range(256)) * 32)
    (root / "deep" / "deeper" / "accents.txt").write_text("Größe, naïveté, 数 " * 300)
    (root / "empty").write_bytes(b"")
    return root


@pytest.fixture
def engine(impl: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The job runs on this implementation."""
    for name in ("BlockPool", "TokenWindow", "LRUCache"):
        monkeypatch.setattr(sides, name, getattr(impl, name))
    return impl
