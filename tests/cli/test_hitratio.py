"""``ctxpool bench hitratio`` and its traces."""

import gzip
import itertools
import json
import lzma
import struct
import xml.etree.ElementTree as ET
from pathlib import Path
from types import SimpleNamespace

import pytest

from ctxpool.cli import hitratio, main, traces
from ctxpool.cli.errors import UsageError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "traces"
    root.mkdir()
    keys = [at * at % 89 for at in range(600)]
    text = "".join(f"{key}\n" for key in keys)
    (root / "plain.trace").write_text(f"*\n{text}\n*\n")
    (root / "zipped.trace.gz").write_bytes(gzip.compress(text.encode()))
    (root / "words.trace.xz").write_bytes(lzma.compress(struct.pack(">600i", *keys)))
    (root / "blocks.arc.gz").write_bytes(
        gzip.compress(b"5 3 0 1\n\n9 1 0 2\n4 2 0 3\n")
    )
    (root / "README.md").write_text("not a trace")
    return root


def test_formats(folder: Path) -> None:
    found = {trace.name: list(trace.keys()) for trace in traces.find(str(folder))}
    assert list(found) == ["blocks", "plain", "words", "zipped"]
    assert found["blocks"] == [5, 6, 7, 9, 4, 5]
    assert found["plain"] == found["words"] == found["zipped"]
    assert found["plain"][:4] == [0, 1, 4, 9]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.trace", b"1\nx\n", "invalid literal"),
        ("a.trace", b"*\n", "no requests in it"),
        ("a.trace", b"9" * 30, "no 64-bit integer"),
        ("a.trace.gz", b"plain", "Not a gzipped file"),
        ("a.trace.gz", gzip.compress(b"1\n" * 999, mtime=0)[:-9], "end-of-stream"),
        ("a.trace.xz", lzma.compress(b"12345"), "5 bytes are no whole number"),
        ("a.trace.xz", b"nothing", "not supported"),
        ("a.arc", b"1 2 3 4\n7\n", "line 2 has one column"),
        ("a.arc", b"1 -2 3 4\n", "line 1 asks for -2 blocks"),
        ("a.arc", b"1 99999999999 3 4\n", "line 1 asks for 99999999999 blocks"),
    ],
)
def test_a_bad_trace(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    (trace,) = traces.find(str(tmp_path))
    with pytest.raises(UsageError, match=message) as raised:
        trace.keys()
    assert name in str(raised.value)


def test_no_traces(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        traces.find(str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match=r"no file that ends in \.trace,"):
        traces.find(str(tmp_path))


def test_made_traces_are_always_the_same() -> None:
    first, second = traces.made(2000), traces.made(2000)
    assert [trace.name for trace in first] == ["zipf", "scan", "shift", "loop"]
    for a, b in zip(first, second, strict=True):
        assert a.keys() == b.keys()
        assert len(a.keys()) == 2000
    assert traces.made(2000, seed=2)[0].keys() != first[0].keys()


@pytest.fixture
def engine(impl: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    monkeypatch.setattr(hitratio, "Cache", impl.Cache)
    return impl


def test_hit_ratio(engine: SimpleNamespace) -> None:
    assert hitratio.hit_ratio([1, 2, 1, 2], 2, "lru") == 50
    assert hitratio.hit_ratio([1, 2, 3, 1, 2, 3], 2, "lru") == 0
    assert hitratio.hit_ratio([1, 2, 3, 1, 2, 3], 2, "mru") == pytest.approx(100 / 3)


def best(keys: list[int], size: int) -> int:
    """The most hits, by trying every choice there is."""
    states = {frozenset[int](): 0}
    for key in keys:
        later: dict[frozenset[int], int] = {}
        for held, hits in states.items():
            if key in held:
                choices = [(held, hits + 1)]
            elif len(held) < size:
                choices = [(held | {key}, hits)]
            else:
                choices = [(held - {gone} | {key}, hits) for gone in held]
            for state, count in choices:
                later[state] = max(later.get(state, 0), count)
        states = later
    return max(states.values())


def test_the_optimum_is_one() -> None:
    for seed, size in itertools.product(range(40), (1, 2, 3)):
        keys = [(at * at * 7 + at * seed) % 11 % (4 + seed % 4) for at in range(40)]
        found = hitratio.optimum(keys, size)
        assert found == pytest.approx(100 * best(keys, size) / len(keys))


def test_nothing_beats_the_optimum(engine: SimpleNamespace) -> None:
    for trace in traces.made(3000):
        keys = trace.keys().tolist()
        for policy in hitratio.POLICIES:
            found = hitratio.hit_ratio(keys, 100, policy)
            assert 0 <= found <= hitratio.optimum(keys, 100)


def test_a_table_and_json(
    engine: SimpleNamespace, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = tmp_path / "out.json"
    args = ["bench", "hitratio", "--traces", str(folder), "--sizes", "20,8,8,500"]
    assert main([*args, "--json", str(path)]) == 0
    out, err = capsys.readouterr()
    assert "trace 2 of 4: plain, 600 requests, 8 entries" in err
    lines = out.splitlines()
    assert lines[1].split() == ["trace,", "entries", *hitratio.POLICIES, "optimum"]
    assert lines[2].startswith("plain 8 ")
    assert lines[-1].startswith("worst against lru")
    result = json.loads(path.read_text())
    assert [(p["trace"], p["size"]) for p in result["points"]] == [
        (name, size) for name in ("plain", "words", "zipped") for size in (8, 20)
    ]
    assert result["against_lru"]["lru"] == {"mean": 0, "worst": 0}
    assert set(result["points"][0]["percent"]) == {*hitratio.POLICIES, "optimum"}
    assert main([*args, "--json", "-", "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["points"] == result["points"]
    assert err.splitlines() == lines


def test_without_traces(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    few = traces.made(1500)
    monkeypatch.setattr(traces, "made", lambda: few)
    assert main(["bench", "hitratio", "--sizes", "50", "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert "loop 50" in out
    assert not err


@pytest.mark.parametrize("suffix", ["png", "svg", "html"])
def test_plot(folder: Path, tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / f"plot.{suffix}"
    args = ["bench", "hitratio", "--traces", str(folder), "--sizes", "8,20", "--quiet"]
    assert main([*args, "--plot", str(path)]) == 0
    data = path.read_bytes()
    if suffix == "png":
        assert data.startswith(b"\x89PNG")
    elif suffix == "svg":
        assert ET.fromstring(data).tag.endswith("svg")
    else:
        assert data.startswith(b"<!DOCTYPE html>")
        assert data.count(b"<svg") == 1


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--traces", "nowhere"], "nowhere: no such folder"),
        (["--plot", "x.gif"], "must end in .png"),
        (["--sizes", "1000000"], "no trace has more keys"),
        (["--sizes", "5000", "--json", "/nowhere/x.json"], "No such file"),
    ],
)
def test_wrong_input(
    args: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    few = traces.made(20_000)[:1]
    monkeypatch.setattr(traces, "made", lambda: few)
    assert main(["bench", "hitratio", *args, "--quiet"]) in (1, 2)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("args", [[], ["fly"], ["hitratio", "--sizes", "5,x"]])
def test_wrong_usage(args: list[str], capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as left:
        main(["bench", *args])
    assert left.value.code == 2
    assert "usage: ctxpool bench" in capsys.readouterr().err
