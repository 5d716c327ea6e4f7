import gc
import json
import os
import sys
from io import FileIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ctxpool.cli import job, main, report, run, sides
from ctxpool.cli.errors import DifferenceError, UsageError
from ctxpool.cli.job import Job
from ctxpool.cli.settings import Settings
from ctxpool.cli.sides import OPERATIONS, Pooled, Unpooled
from ctxpool.cli.tokenizers import Words

SMALL = Settings(
    block_size=1000, window=500, last=100, step=64, cache=8, tokenizer="words"
)
FAST = ["--tokenizer", "words", "--window", "500", "--step", "64", "--last", "100"]
FAST += ["--no-memory", "--quiet"]
FIGURES = ("p50_ns", "p99_ns", "p99.9_ns", "max_ns")


def make(settings: Settings) -> Job:
    return Job(Pooled(settings, Words()), Unpooled(settings, Words()))


def files(tree: Path) -> list[str]:
    return sorted(str(path) for path in tree.rglob("*") if path.is_file())


@pytest.mark.parametrize("tokens", ["list", "array"])
@pytest.mark.parametrize("buffer", ["bytearray", "numpy"])
@pytest.mark.parametrize("window", ["deque", "concatenate"])
def test_both_sides_agree(
    engine: SimpleNamespace, tree: Path, tokens: str, buffer: str, window: str
) -> None:
    settings = Settings(
        block_size=1000, window=500, last=100, step=64, cache=8,
        tokens=tokens, unpooled_buffer=buffer, unpooled_window=window,
    )  # fmt: skip
    work = make(settings)
    visits = files(tree) + files(tree)
    tally = work.run(visits)
    assert tally.bytes == sum(os.path.getsize(path) for path in visits)
    assert tally.visits == len(visits)
    assert tally.skipped == []
    assert work.pooled.hits == work.unpooled.hits > 0
    assert work.pooled.misses + work.pooled.hits == tally.chunks
    for name in OPERATIONS:
        count = len(work.pooled.record[name])
        assert count == len(work.unpooled.record[name]) > 0
    assert len(work.pooled.record["read"]) == tally.chunks
    assert len(work.pooled.record["window_step"]) == tally.steps


def test_the_figures_do_not_change_the_results(
    engine: SimpleNamespace, tree: Path
) -> None:
    tallies = [make(SMALL).run(files(tree)) for _ in range(2)]
    for tally in tallies:
        tally.preempted = None
    assert tallies[0] == tallies[1]
    assert tallies[0].checksum


@pytest.mark.parametrize("size", [999, 1000, 1001, 2000, 8192])
def test_chunks_end_at_blocks(
    engine: SimpleNamespace, tmp_path: Path, size: int
) -> None:
    file = tmp_path / "file"
    file.write_bytes(os.urandom(size))
    work = make(SMALL)
    tally = work.run([str(file)])
    assert (tally.chunks, tally.bytes) == (-(-size // 1000), size)
    assert len(work.pooled.record["digest"]) == tally.chunks


def test_buffers_in_flight(engine: SimpleNamespace, tree: Path) -> None:
    settings = Settings(block_size=100, blocks=3, in_flight=3, window=5000)
    work = make(settings)
    work.run(files(tree))
    pool = work.pooled.stats()["block_pool"]
    assert pool["peak"] <= 3
    assert pool["in_use"] == 2
    assert pool["deferred"] == 0


def test_the_limit_is_kept_to_a_chunk(engine: SimpleNamespace, tree: Path) -> None:
    tally = make(SMALL).run(files(tree), limit=2500)
    assert tally.bytes == 3000


def test_progress_is_told(engine: SimpleNamespace, tree: Path) -> None:
    told: list[int] = []
    tally = make(SMALL).run(files(tree), progress=told.append)
    assert told == sorted(told)
    assert len(told) == tally.chunks
    assert told[-1] == tally.bytes


@pytest.mark.parametrize("what", ["view", "last", "tokens"])
def test_a_difference_is_an_error(
    engine: SimpleNamespace, tree: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def wrong_step(self: Any, tokens: Any) -> Any:
        views = list(step(self, tokens))
        index = 0 if what == "view" else 1
        views[index] = views[index].copy()
        views[index][-1] += 1
        return views

    step = Unpooled.step
    if what == "tokens":
        monkeypatch.setattr(Unpooled, "tokens", lambda self, digest: [1, 2, 3])
    else:
        monkeypatch.setattr(Unpooled, "step", wrong_step)
    with pytest.raises(DifferenceError, match=r"the two sides differ in .* at chunk 0"):
        make(SMALL).run(files(tree))


def test_a_difference_in_hits_is_an_error(
    engine: SimpleNamespace, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = make(SMALL)
    work.unpooled.hits = 1
    with pytest.raises(DifferenceError, match="cache hits"):
        work.run(files(tree))


def test_a_cache_that_counts_wrong_is_an_error(
    engine: SimpleNamespace, tree: Path
) -> None:
    work = make(SMALL)
    work.pooled.cache.get(b"never there")
    work.pooled.cache[b"another"] = [1]
    with pytest.raises(DifferenceError):
        work.run([])


def test_a_difference_ends_the_program_with_1(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Unpooled, "tokens", lambda self, digest: [1])
    assert main(["run", str(tree), *FAST]) == 1
    assert "the two sides differ in tokens" in capsys.readouterr().err


class Refusing(FileIO):
    """A file whose second read fails."""

    reads = 0

    def readinto(self, buffer: Any) -> int:
        self.reads += 1
        if self.reads > 2 and str(self.name).endswith("a.py"):
            raise OSError(5, "Input/output error")
        return super().readinto(buffer)


def test_a_file_that_fails_halfway_is_skipped(
    engine: SimpleNamespace, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "FileIO", Refusing)
    work = make(SMALL)
    tally = work.run(files(tree) * 2)
    assert [(s.path, s.reason) for s in tally.skipped] == [
        (str(tree / "a.py"), "Input/output error")
    ]
    assert tally.visits == 2 * (len(files(tree)) - 1)
    assert work.pooled.stats()["block_pool"]["in_use"] == SMALL.in_flight - 1


def test_a_file_that_changes_is_skipped(
    engine: SimpleNamespace, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = {side: side.read for side in (Pooled, Unpooled)}

    def change(self: Any, file: FileIO) -> int:
        size = reads[type(self)](self, file)
        if str(file.name).endswith("a.py"):
            (tree / "a.py").write_text("changed")
        return size

    for side in reads:
        monkeypatch.setattr(side, "read", change)
    work = make(SMALL)
    tally = work.run(files(tree))
    assert [s.reason for s in tally.skipped] == ["Changed while it was read"]
    assert tally.visits == len(files(tree)) - 1


def test_bytes_that_differ_in_an_unchanged_file_are_an_error(
    engine: SimpleNamespace, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Unpooled, "digest", lambda self: b"other")
    with pytest.raises(DifferenceError, match="different bytes"):
        make(SMALL).run(files(tree))


@pytest.mark.parametrize("on", [True, False])
def test_the_collector_is_as_it_was(on: bool) -> None:
    was = gc.isenabled()
    with job.collector(on):
        assert gc.isenabled() is on
    assert gc.isenabled() is was


def test_the_report_is_whole(
    engine: SimpleNamespace, tree: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path = tmp_path / "figures.json"
    assert main(["run", str(tree), *FAST, "--json", str(path)]) == 0
    result = json.loads(path.read_text())
    assert set(result) == {
        "schema", "command", "version", "backend", "time", "machine", "settings",
        "method", "timer", "input", "equal", "operations", "throughput", "memory",
        "primitives", "seconds",
    }  # fmt: skip
    assert [row["name"] for row in result["operations"]] == list(OPERATIONS)
    for row in result["operations"]:
        for side in ("pooled", "unpooled"):
            figures = row[side]
            ordered = [figures[name] for name in FIGURES]
            assert ordered == sorted(ordered)
            assert figures["count"] == sum(figures["histogram"]["counts"]) > 0
            assert figures["total_ns"] >= figures["max_ns"]
        assert row["ratio"]["p50"] == pytest.approx(
            row["pooled"]["p50_ns"] / row["unpooled"]["p50_ns"], rel=1e-3
        )
    chunks = next(row for row in result["operations"] if row["name"] == "chunk")
    assert result["throughput"]["pooled"]["seconds"] == pytest.approx(
        chunks["pooled"]["total_ns"] / 1e9, abs=1e-6
    )
    assert set(result["primitives"]) == {"block_pool", "token_window", "lru_cache"}
    assert result["memory"] is None
    assert result["settings"]["window"] == 500
    out, err = capsys.readouterr()
    assert err == ""
    assert "Equal on both sides" in out
    assert all(len(line) <= 80 for line in out.splitlines())
    for label, _ in OPERATIONS.values():
        assert label in out


def test_figures_to_stdout_leave_the_table_to_stderr(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(tree), *FAST, "--json", "-"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["command"] == "ctxpool run"
    assert "Equal on both sides" in err


def test_no_hits_is_a_row_less(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = str(tree / "a.py")
    assert main(["run", one, *FAST, "--revisit", "0", "--block-size", "1MB"]) == 0
    assert "cache: hit" not in capsys.readouterr().out


def fails(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> str:
    assert main(["run", *arguments, *FAST]) == code
    out, err = capsys.readouterr()
    assert out == ""
    return err


def test_missing_path(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    err = fails(capsys, str(tree), "/nowhere/at/all")
    assert err == "ctxpool: error: no such file or folder: /nowhere/at/all\n"


def test_empty_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "dangling").symlink_to("nothing")
    err = fails(capsys, str(tmp_path))
    assert f"nothing to read: no file with content in {tmp_path}" in err
    assert "skipped" in err
    assert "dangling: No such file or directory" in err


def test_nothing_readable(
    tree: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str) -> FileIO:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(job, "FileIO", refuse)
    err = fails(capsys, str(tree / "a.py"))
    assert "a.py: Permission denied" in err
    assert "no file could be read" in err


def test_unreadable_files_are_counted(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(25):
        (tree / f"dangling{number:02}").symlink_to("nothing")
    path = tmp_path / "figures.json"
    assert main(["run", str(tree), *FAST, "--json", str(path)]) == 0
    out, err = capsys.readouterr()
    assert err.count("No such file or directory") == 20
    assert "skipped 5 more" in err
    assert "Skipped: 25 files or folders" in out
    assert len(json.loads(path.read_text())["input"]["skipped"]) == 25


@pytest.mark.parametrize("option", ["--json", "--plot"])
def test_an_unwritable_path_is_found_before_the_work(
    option: str, tree: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(run, "_job", lambda *_: pytest.fail("it went to work"))
    monkeypatch.setattr(run.plot, "check", lambda path: None)
    err = fails(capsys, str(tree), option, str(tree / "no" / "where.svg"))
    assert f"{option} {tree}/no/where.svg: No such file or directory" in err
    assert "Is a directory" in fails(capsys, str(tree), option, str(tree))


def test_the_check_leaves_no_file_and_no_change(tree: Path, tmp_path: Path) -> None:
    new, old = tmp_path / "new.json", tmp_path / "old.json"
    old.write_text("old")
    for path in (new, old):
        assert main(["run", "/nowhere", *FAST, "--json", str(path)]) == 2
    assert not new.exists()
    assert old.read_text() == "old"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_ends_with_1(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    err = fails(capsys, str(tree), "--json", "/dev/full", code=1)
    assert "--json /dev/full: No space left on device" in err


def test_json_and_plot_need_two_names(
    tree: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run.plot, "check", lambda path: None)
    same = str(tree / "x.svg")
    assert "the same file" in fails(capsys, "--json", same, "--plot", same)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"in_flight": 9, "blocks": 8}, "--in-flight 9 holds more blocks"),
        ({"last": 9, "window": 8, "step": 1}, "--last 9 is more than --window 8"),
        ({"last": 1, "window": 8, "step": 9}, "--step 9 is more than --window 8"),
    ],
)
def test_settings_that_contradict(options: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Settings(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--block-size", "many"],
        ["--limit", "0"],
        ["--blocks", "-3"],
        ["--cache", "1.5"],
        ["--revisit", "-1"],
        ["--revisit", "nan"],
        ["--seed", "x"],
    ],
)
def test_options_that_make_no_sense(
    arguments: list[str], tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main(["run", str(tree), *arguments])
    assert left.value.code == 2
    err = capsys.readouterr().err
    assert arguments[0] in err
    assert repr(arguments[1]) in err


def test_missing_byte_pairs_are_found_before_the_work(
    tree: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rs_bpe", None)
    assert main(["run", str(tree), "--tokenizer", "bpe"]) == 2
    assert 'pip install "ctxpool[bpe]"' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (None, "-"), (0, "0 ns"), (999, "999 ns"), (1_000, "1.00 us"),
        (9_994, "9.99 us"), (9_996, "10.0 us"), (99_960, "100 us"),
        (999_400, "999 us"), (999_600, "1.00 ms"), (12_345_678_900, "12.3 s"),
        (5_000_000_000_000, "5000 s"),
    ],
)  # fmt: skip
def test_times_have_three_digits(ns: int | None, text: str) -> None:
    assert report.format_ns(ns) == text


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (None, "-"), (-4096, "-4.10 kB"), (999, "999 B"), (1_000, "1.00 kB"),
        (31_525_224, "31.5 MB"), (2**50, "1126 TB"),
    ],
)  # fmt: skip
def test_sizes_have_three_digits(nbytes: int | None, text: str) -> None:
    assert report.format_bytes(nbytes) == text


def test_losses_are_named(tree: Path) -> None:
    settings = Settings(window=500, last=100, step=64, tokenizer="words")
    work = make(settings)
    work.run(files(tree))
    for recorder in work.pooled.record.values():
        for _ in range(2 * len(recorder)):
            recorder.add(10**9)
    result = report.build(
        work, settings, "words", work.pooled.record["read"].summary(), [], None, 1.0
    )
    text = report.table(result)
    assert "Pooling loses here: buffer" in text
    assert "p99.9 is the maximum" in text


def test_ids_fit_the_window(engine: SimpleNamespace) -> None:
    work = make(SMALL)
    view, last = work.pooled.step([0, 2**31 - 1])
    assert view.dtype == last.dtype == np.int32
    assert sides.make("pooled", SMALL, Words()).name == "pooled"
