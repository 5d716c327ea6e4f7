"""The benchmarks of the cache, the pools and the context memory work; their figures are
no business of a test."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(600)

BENCH = Path(__file__).resolve().parents[2] / "bench"
OPERATIONS = 8


@pytest.fixture(autouse=True)
def built(request: pytest.FixtureRequest) -> None:
    if importlib.util.find_spec("ctxpool._native.lru_cache") is None:
        assert not request.config.getoption("--require-native")
        pytest.skip("no native extension in this installation")


def python(*arguments: str) -> str:
    command = [sys.executable, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=BENCH)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def script(text: str) -> Any:
    """What it prints, read as JSON."""
    return json.loads(python("-c", text).splitlines()[-1])


def quick(only: str, folder: Path) -> dict[str, Any]:
    report = folder / "report.json"
    said = python("cache.py", "--quick", "--only", only, "--json", str(report))
    result: dict[str, Any] = json.loads(report.read_text())
    met = sum(bar["met"] for bar in result["bars"])
    assert f"{met} of {len(result['bars'])} bars met" in said
    return result


def test_table(tmp_path: Path) -> None:
    (rows,) = quick("table: 1,000 tuple", tmp_path)["sections"].values()
    for name in ("dict", "LRUCache", "Cache lru", "Cache s3fifo", "Cache sieve"):
        assert sum(row["name"] == name for row in rows) == OPERATIONS
    # It has no way to overwrite, and none to look without storing.
    assert sum(row["name"] == "functools" for row in rows) == 4
    assert all(0 < row["min_ns"] <= row["median_ns"] for row in rows)
    assert {row["to_dict"] for row in rows if row["name"] == "dict"} == {1.0}


def test_calls(tmp_path: Path) -> None:
    sections = quick("calls", tmp_path)["sections"]
    assert len(sections) == 4
    names = {row["name"] for rows in sections.values() for row in rows}
    assert {"ctxpool", "functools", "cached_method", "LazyProxy", "direct"} <= names


def test_threads(tmp_path: Path) -> None:
    report = quick("threads", tmp_path)
    (rows,) = report["sections"].values()
    assert {row["threads"] for row in rows} == {1, 2, 4}
    assert all(row["mops"] > 0 for row in rows)
    assert report["bars"]


def test_tail(tmp_path: Path) -> None:
    pytest.importorskip("Cython")
    pytest.importorskip("setuptools")
    sections = quick("tail", tmp_path)["sections"]
    assert len(sections) == 3
    for rows in sections.values():
        assert rows[0]["name"] == "(clock)"
        assert {"LRUCache", "Cache s3fifo"} <= {row["name"] for row in rows}
        for row in rows:
            assert row["p50_ns"] <= row["p99.9_ns"] <= row["max_ns"]
            assert row["again_ns"] <= row["max_ns"]


def test_pools(tmp_path: Path) -> None:
    pytest.importorskip("Cython")
    pytest.importorskip("setuptools")
    report = tmp_path / "report.json"
    only = [
        "objects: with",
        "async with",
        "real ones",
        "calls, 512",
        "1 mib, 4 kept",
        "touch: 4 KiB, 4 live, thread",
    ]
    only += ["shared"] if sys.platform == "linux" else []
    only += [
        "echo: 64 bytes, 16",
        "receive: messages of 65",
        "pickle: 200",
        "cache, 4 kept",
    ]
    python("pools.py", "--quick", "--json", str(report), "--only", *only)
    sections = list(json.loads(report.read_text())["sections"].values())
    sync, awaited, real, calls, framed, touch, *shared = sections[:-4]
    echo, frames, pickles, files = sections[-4:]
    assert {"ours", "queue.LifoQueue"} <= {row["name"] for row in sync}
    assert {"ours", "asyncio.LifoQueue"} <= {row["name"] for row in awaited}
    assert all(0 < row["min_ns"] <= row["median_ns"] for row in [*sync, *awaited])
    assert "sqlite3 connection" in {row["name"] for row in real}
    for row in real:
        assert 0 < row["pooled_p50_ns"] <= row["pooled_p99.9_ns"]
    assert all(row["median_ns"] > 0 for row in calls)
    assert [row["name"] for row in framed][:2] == ["(control)", "MemoryPool"]
    names = ["(control)", "BlockPool", "np.empty", "bytearray", "mmap", "SharedMemory"]
    assert [row["name"] for row in touch] == names
    for row in [*framed, *touch, *pickles, *files]:
        assert row["p50_us"] <= row["p99.9_us"] <= row["max_us"]
    for row in shared:
        ways = {"SharedBlockPool", "shared_memory"}
        assert ways <= {way["name"] for way in row}
    assert {"Protocol", "Streams", "ctxpool Protocol"} <= {row["name"] for row in echo}
    assert all(row["cpu_us"] > 0 for row in echo + frames)
    grown = {row["name"]: row["rss_mib"] for row in files}
    assert grown["ctxpool read_blocks"] < grown["mmap"]


def test_context(tmp_path: Path) -> None:
    """Every chapter is imported; one is run."""
    report = tmp_path / "context.json"
    picture = tmp_path / "context.png"
    python("context.py", "--quick", "--only", "chat:", "--json", str(report))
    result = json.loads(report.read_text())
    (rows,) = result["sections"].values()
    assert [row["name"] for row in rows][:2] == ["everything", "truncation"]
    assert all(0 < row["answered"] <= row["asked"] for row in rows)
    assert len(result["bars"]) == 4
    if importlib.util.find_spec("matplotlib") is not None:
        script(
            "import json, pathlib, context_plot\n"
            f"report = json.loads(pathlib.Path({str(report)!r}).read_text())\n"
            f"context_plot.draw(report, pathlib.Path({str(picture)!r}))\n"
            "print(1)"
        )
        assert picture.read_bytes().startswith(b"\x89PNG")


def test_prefix_blocks() -> None:
    """Also that the peer does the same: hits and misses are asserted by the loops."""
    found = script(
        "import json, context_prefix\n"
        "from prefix_peers import Plain\n"
        "plain = Plain(4)\n"
        "first, again = plain.prompt(list(range(40))), plain.prompt(list(range(40)))\n"
        "calls = context_prefix.timed(context_prefix.prompts(512, True), 20)\n"
        "rows = list(context_prefix.rows('miss', 512, calls))\n"
        "print(json.dumps([first, again, rows]))"
    )
    assert found[:2] == [[[0, 1, 2], 0], [[0, 1, 3], 2]]
    assert [row["name"] for row in found[2]][-1] == "plain Python"
    assert all(0 < row["p50_us"] <= row["max_us"] for row in found[2])


def test_memory() -> None:
    """More than the pointers and the hash, less than a list of everything."""
    row = script(
        "import json, cache_memory\n"
        "print(json.dumps(cache_memory.measured('LRUCache', 'int', 50_000)))"
    )
    assert 16 < row["filled"] < 400
    assert row["tracked"] == 0.0


def test_a_dict_is_bound_by_hand() -> None:
    """The floor of insert + evict holds no more than a cache would."""
    held = script(
        "from cache_cases import Ring\nimport peers\n"
        "ring = Ring(100, 'random int'); floor = peers.dictionary()\n"
        "cache = floor.filled(ring.own)\n"
        "for x in ring.pairs * 2: exec(floor.statements['insert + evict'])\n"
        "print(len(cache))"
    )
    assert held == 100


def test_keys() -> None:
    """Distinct, and the copies equal without being the same objects."""
    checks = script(
        "import json\nfrom cache_cases import KINDS, Ring\n"
        "checks = {}\n"
        "for kind in KINDS:\n"
        "    ring = Ring(500, kind)\n"
        "    ids = {id(key) for key in ring.own[257:]}\n"
        "    checks[kind] = [\n"
        "        len(set(ring.all)), set(ring.copies) == set(ring.own),\n"
        "        sum(id(key) in ids for key in ring.copies),\n"
        "        len(set(ring.absent) & set(ring.all)),\n"
        "        len(set(ring.fresh) & set(ring.own)),\n"
        "    ]\n"
        "print(json.dumps(checks))"
    )
    assert len(checks) == 5
    assert all(found == [2_000, True, 0, 0, 0] for found in checks.values()), checks


def test_absent_peers_are_named() -> None:
    """Each with a reason; what is left still takes part."""
    reasons, names = script(
        "import importlib.util, json\n"
        "importlib.util.find_spec = lambda *args: None\n"
        "import peers\n"
        "names = [contender.name for contender in peers.contenders()]\n"
        "print(json.dumps([peers.absent(), names]))"
    )
    assert reasons["cachebox"] == reasons["lru-dict"] == "not installed"
    assert names[:3] == ["dict", "functools", "LRUCache"]


def test_nothing_chosen() -> None:
    command = [sys.executable, "cache.py", "--quick", "--only", "no such section"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=BENCH)
    assert done.returncode == 1
    assert "no section contains 'no such section'" in done.stderr


def test_picture(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "cache.png"
    python("cache.py", "--quick", "--only", "table: 1,000 str", "--plot", str(picture))
    assert picture.read_bytes().startswith(b"\x89PNG")
