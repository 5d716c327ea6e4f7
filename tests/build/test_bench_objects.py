"""The benchmark of object pools works; its figures are no business of a test."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(600)

BENCH = Path(__file__).resolve().parents[2] / "bench"


def test_sections(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    if importlib.util.find_spec("ctxpool._native.object_pool") is None:
        assert not request.config.getoption("--require-native")
        pytest.skip("no native extension in this installation")
    report = tmp_path / "objects.json"
    command = [sys.executable, "objects.py", "--quick", "--json", str(report)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=BENCH)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    sync, awaited, real = json.loads(report.read_text()).values()
    assert {"ours", "queue.LifoQueue"} <= {row["name"] for row in sync}
    assert {"ours", "asyncio.LifoQueue"} <= {row["name"] for row in awaited}
    assert all(0 < row["min_ns"] <= row["median_ns"] for row in [*sync, *awaited])
    assert "sqlite3 connection" in {row["name"] for row in real}
    for row in real:
        assert 0 < row["pooled_p50_ns"] <= row["pooled_p99.9_ns"]
