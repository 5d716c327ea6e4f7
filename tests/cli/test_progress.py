import io

import pytest

from ctxpool.cli import progress
from ctxpool.cli.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    time = [0.0]
    monkeypatch.setattr(progress, "monotonic", lambda: time[0])
    return time


def test_a_terminal_has_one_line_that_is_written_anew(clock: list[float]) -> None:
    stream = Terminal()
    shown = Progress(10_000_000, stream)
    for done in range(1, 11):
        clock[0] += 0.5
        shown.update(done * 1_000_000)
    shown.end(10_000_000)
    lines = stream.getvalue().split("\r")
    assert stream.getvalue().count("\n") == 1
    assert len(lines) == 12
    assert lines[5].split() == ["50%", "5.0", "MB", "2.00", "MB/s", "2", "s", "left"]
    assert lines[-1].split()[0] == "100%"
    assert all(len(line) >= len(lines[1]) for line in lines[1:])


def test_elsewhere_lines_are_sparse(clock: list[float]) -> None:
    stream = io.StringIO()
    shown = Progress(1_000, stream)
    for done in range(1, 1_000):
        clock[0] += 0.02
        shown.update(done)
    shown.end(1_000)
    text = stream.getvalue()
    assert "\r" not in text
    assert [line.split()[0] for line in text.splitlines()] == [
        "25%", "50%", "75%", "100%",
    ]  # fmt: skip


def test_quiet_is_silent(clock: list[float]) -> None:
    shown = Progress(10, None)
    clock[0] += 100
    shown.update(5)
    shown.say("something")
    shown.end(10)


def test_an_input_that_grew_stays_at_a_hundred_percent(clock: list[float]) -> None:
    stream = io.StringIO()
    shown = Progress(10, stream)
    clock[0] += 100
    shown.update(25)
    assert stream.getvalue().split()[0] == "100%"
