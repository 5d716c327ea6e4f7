import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from ctxpool.cli import main, plot, run
from ctxpool.cli.errors import UsageError
from ctxpool.cli.sides import OPERATIONS

FAST = ["--tokenizer", "words", "--window", "500", "--step", "64", "--last", "100"]
FAST += ["--no-memory", "--quiet"]


def draw(tree: Path, path: Path) -> bytes:
    pytest.importorskip("matplotlib")
    assert main(["run", str(tree), *FAST, "--plot", str(path)]) == 0
    return path.read_bytes()


def test_png(tree: Path, tmp_path: Path) -> None:
    data = draw(tree, tmp_path / "plot.PNG")
    assert data.startswith(b"\x89PNG")
    width, height = (int.from_bytes(data[at : at + 4]) for at in (16, 20))
    assert width > 1000
    assert height > 800
    assert len(data) > 50_000


def test_svg(tree: Path, tmp_path: Path) -> None:
    data = draw(tree, tmp_path / "plot.svg")
    root = ET.fromstring(data)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    for colour in plot._COLOURS.values():
        assert data.count(colour.encode()) > 2 * len(OPERATIONS)
    assert b"window: extend" in data


def test_html_needs_nothing_else(tree: Path, tmp_path: Path) -> None:
    text = draw(tree, tmp_path / "plot.html").decode()
    assert text.startswith("<!DOCTYPE html>")
    assert text.count("<svg") == 1
    assert not re.search(r"(src|href)=\"(?!#)", text)
    assert text.count('<tr class="pooled">') == len(OPERATIONS)
    assert "<h2>Method</h2>" in text
    assert "perf_counter_ns" in text


def test_an_unknown_suffix_is_found_before_the_work(
    tree: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "_job", lambda *_: pytest.fail("it went to work"))
    assert main(["run", str(tree), *FAST, "--plot", "plot.gif"]) == 2
    err = capsys.readouterr().err
    assert "plot.gif: the name must end in .png, .svg, .html" in err


def test_missing_matplotlib_is_found_before_the_work(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UsageError, match=r'pip install "ctxpool\[plot\]"'):
        plot.check(str(tree / "plot.png"))
    assert not (tree / "plot.png").exists()


def test_matplotlib_is_not_imported_for_nothing(tree: Path) -> None:
    code = (
        "import sys; from ctxpool.cli import main; "
        f"code = main(['run', {str(tree)!r}, *{FAST!r}]); "
        "sys.exit(code or ('matplotlib' in sys.modules) * 9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
