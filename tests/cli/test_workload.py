import os
from collections import Counter
from pathlib import Path

import pytest

from ctxpool.cli import workload
from ctxpool.cli.errors import UsageError


def test_finds_every_file_in_order(tree: Path) -> None:
    found = workload.find([str(tree)])
    names = [os.path.relpath(path, tree) for path in found.paths]
    assert names == [
        "a.py",
        "empty",
        "deep/block.bin",
        "deep/half.txt",
        "deep/same.py",
        "deep/deeper/accents.txt",
    ]
    assert found.sizes == [os.path.getsize(path) for path in found.paths]
    assert found.skipped == []


def test_a_file_named_twice_comes_once(tree: Path) -> None:
    file = str(tree / "a.py")
    assert workload.find([file, file]).paths == [file]
    assert workload.find([str(tree), file]).paths.count(file) == 1


def test_a_missing_path_is_named(tree: Path) -> None:
    with pytest.raises(UsageError, match=r"no such file or folder: .*/nowhere"):
        workload.find([str(tree), str(tree / "nowhere")])


def test_what_is_no_file_is_skipped_with_its_reason(tree: Path) -> None:
    (tree / "dangling").symlink_to("nowhere")
    (tree / "loop").symlink_to("loop")
    (tree / "linked.py").symlink_to("a.py")
    (tree / "up").symlink_to(tree)
    os.mkfifo(tree / "fifo")
    found = workload.find([str(tree)])
    assert {os.path.basename(s.path): s.reason for s in found.skipped} == {
        "dangling": "No such file or directory",
        "fifo": "Not a regular file",
        "loop": "Too many levels of symbolic links",
    }
    assert str(tree / "linked.py") in found.paths
    assert len(found.paths) == 7


def test_a_folder_that_cant_be_listed_is_skipped(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("deeper"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = workload.find([str(tree)])
    assert found.skipped == [
        workload.Unreadable(str(tree / "deep" / "deeper"), "Permission denied")
    ]
    assert len(found.paths) == 5


def test_without_paths_it_is_the_standard_library() -> None:
    found = workload.find([])
    assert len(found.paths) > 100
    assert all(path.endswith(".py") for path in found.paths)
    assert not any("site-packages" in path for path in found.paths)
    assert str(Path(workload.standard_library(), "argparse.py")) in found.paths


def test_every_file_is_visited_and_some_again() -> None:
    order = workload.revisits(500, 0.5, seed=3)
    first = list(dict.fromkeys(order))
    assert first == list(range(500))
    assert 600 < len(order) < 900
    assert order == workload.revisits(500, 0.5, seed=3)
    assert order != workload.revisits(500, 0.5, seed=4)


def test_no_visits_again_when_not_wanted() -> None:
    assert workload.revisits(4, 0, seed=0) == [0, 1, 2, 3]
    assert workload.revisits(2, 0, seed=0, repeat=3) == [0, 1] * 3
    assert workload.revisits(0, 5, seed=0) == []


def test_later_visits_prefer_what_was_read_last() -> None:
    order = workload.revisits(300, 4, seed=1)
    stack: list[int] = []
    distances: Counter[int] = Counter()
    for file in order:
        if file in stack:
            distances[len(stack) - stack.index(file)] += 1
            stack.remove(file)
        stack.append(file)
    assert distances[1] > distances[2] > distances[4] > distances[16]
    assert max(distances) > 100
