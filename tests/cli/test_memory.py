import mmap
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ctxpool.cli import memory
from ctxpool.cli.settings import Settings

SETTINGS = Settings(window=500, last=100, step=64, tokenizer="words")


def files(tree: Path) -> list[str]:
    return sorted(str(path) for path in tree.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", ["pooled", "unpooled"])
def test_each_side_alone(tree: Path, name: str) -> None:
    visits = [*files(tree), str(tree / "nowhere")]
    measured = memory.measure(SETTINGS, name, visits, 10**9)
    assert measured["input_bytes"] == sum(map(os.path.getsize, files(tree)))
    assert measured["peak_bytes"] > 0
    assert measured["method"] in ("VmHWM", "sampled RSS")


@pytest.mark.parametrize("name", ["pooled", "unpooled"])
def test_in_this_process(engine: SimpleNamespace, tree: Path, name: str) -> None:
    settings = Settings(block_size=1024, window=500, last=100, step=64)
    measured = memory.run(settings, name, files(tree), 5000)
    assert 5000 <= measured["input_bytes"] < 6024
    assert measured["peak_bytes"] >= 0


def test_where_the_kernel_keeps_no_mark(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_status", lambda field: None)
    measured = memory.run(SETTINGS, "pooled", files(tree), 10**9)
    assert measured["method"] == "sampled RSS"
    assert measured["peak_bytes"] >= 0


def test_a_peak_is_seen() -> None:
    peak = memory._Peak()
    # Not from the heap, which may have kept as much from an earlier test.
    with mmap.mmap(-1, 32 << 20) as block:
        for page in range(0, 32 << 20, mmap.PAGESIZE):
            block[page] = 1
        peak.sample()
    assert 30 << 20 < peak.peak() < 64 << 20


@pytest.mark.parametrize(
    ("outcome", "message"),
    [
        (subprocess.CalledProcessError(3, "x", stderr="one\ntwo\n"), "code 3: two"),
        (subprocess.CalledProcessError(-9, "x", stderr=""), "code -9: no message"),
        (subprocess.TimeoutExpired("x", 5), "timed out"),
        (FileNotFoundError(2, "No such file"), "No such file"),
        (SimpleNamespace(stdout="gibberish"), "Expecting value"),
    ],
)
def test_a_failed_measurement_says_why(
    monkeypatch: pytest.MonkeyPatch, outcome: Any, message: str
) -> None:
    def fake(*_: object, **__: object) -> Any:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(subprocess, "run", fake)
    assert message in memory.measure(SETTINGS, "pooled", [], 1)["error"]
