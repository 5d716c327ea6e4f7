import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ctxpool
from ctxpool import _info
from ctxpool.cli import main, run

FAST = ["--tokenizer", "words", "--window", "2000", "--step", "100", "--last", "200"]
QUICK = [*FAST, "--quiet", "--no-memory"]


def program(
    *arguments: str, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ctxpool", *arguments],
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert left.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["ctxpool", ctxpool.__version__]
    assert lines[1].split() == ["back", "end", ctxpool.backend]
    assert lines[2].split()[0] == sys.implementation.name.replace("cp", "CP")
    assert lines[3].split() == ["numpy", np.__version__]
    assert lines[4].split() == ["page", str(_info.page_size()), "bytes"]
    assert lines[5].startswith("huge page")
    assert len(lines) == 6


def test_version_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_info, "_read", lambda path: "")
    assert _info.huge_page_size() is None
    assert _info.version_text().endswith("unknown")
    assert _info.machine()["processor"] is None


def test_module_and_pure_back_end() -> None:
    done = program("--version", env={"CTXPOOL_PURE": "1", "CTXPOOL_NATIVE": ""})
    assert done.returncode == 0
    assert "back end  pure" in done.stdout


@pytest.mark.parametrize("arguments", [[], ["fly"], ["run", "--window", "0"]])
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
    assert "usage: ctxpool" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"]])
def test_help_names_the_exit_codes(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 0
    out = capsys.readouterr().out
    assert "130  interrupted" in out
    assert "2    wrong usage" in out


def test_the_whole_program_pure_and_quiet(tree: Path, tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    done = program(
        "run", str(tree), *FAST, "--quiet", "--json", str(figures),
        env={"CTXPOOL_PURE": "1", "CTXPOOL_NATIVE": ""},
    )  # fmt: skip
    assert done.returncode == 0
    assert not re.search("ctxpool:|%|peak", done.stderr)
    assert "pure back end" in done.stdout
    result = json.loads(figures.read_text())
    assert result["backend"] == "pure"
    for side in ("pooled", "unpooled"):
        assert "error" not in result["memory"][side]
        assert result["memory"][side]["peak_bytes"] > 0


def test_progress_where_there_is_no_terminal(tree: Path) -> None:
    done = program("run", str(tree), *FAST, "--no-memory")
    assert done.returncode == 0
    assert "100%" in done.stderr
    assert "\r" not in done.stderr


def test_an_interrupt_is_short(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tree: Path
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "timer_cost", interrupt)
    assert main(["run", str(tree), *FAST]) == 130
    assert capsys.readouterr().err.strip() == "ctxpool: interrupted"


def test_a_signal_ends_the_program(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(os.urandom(1 << 20) * 64)
    ours, terminal = os.openpty()
    child = subprocess.Popen(
        [sys.executable, "-m", "ctxpool", "run", str(tmp_path), *FAST],
        stderr=terminal,
        stdout=subprocess.DEVNULL,
    )
    os.close(terminal)
    shown = b""
    with child:
        while b"MB/s" not in shown:  # It is at work.
            shown += os.read(ours, 1000)
        child.send_signal(signal.SIGINT)
        assert child.wait(60) == 130
    with open(ours, "rb", buffering=0) as rest:
        try:
            while more := rest.read(1000):
                shown += more
        except OSError:  # Linux: the other end is closed.
            pass
    assert b"\r" in shown
    assert shown.strip().endswith(b"ctxpool: interrupted")
    assert b"Traceback" not in shown


def test_a_reader_that_leaves_is_no_error(tree: Path) -> None:
    code = """if True:
        import os, sys
        from ctxpool.cli import main
        reader, writer = os.pipe()
        os.close(reader)
        os.dup2(writer, 1)
        sys.exit(main(sys.argv[1:]))
    """
    done = subprocess.run(
        [sys.executable, "-c", code, "run", str(tree), *QUICK],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == 141
    assert not re.search("Traceback|Error|Exception", done.stderr)
