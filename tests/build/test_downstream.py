"""An extension of somebody else's, built against the installed wheel alone."""

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("Cython")
pytest.importorskip("setuptools")
pytestmark = pytest.mark.timeout(600)

HERE = Path(__file__).parent / "downstream"


@pytest.fixture(scope="module")
def built(native, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("downstream")
    for name in ("downstream.pyx", "setup.py"):
        shutil.copy(HERE / name, folder)
    script = (
        f"import os, sys; os.chdir({str(folder)!r}); sys.argv[0] = 'setup.py'; "
        "exec(compile(open('setup.py').read(), 'setup.py', 'exec'))"
    )
    done = native.run("-c", script, "-q", "build_ext", "--inplace")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder


def run(native, built: Path, script: str):
    path = f"import json, sys; sys.path.insert(0, {str(built)!r}); import downstream\n"
    done = native.run("-c", path + script)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_blocks_from_c(native, built: Path) -> None:
    script = """
import ctxpool
pool = ctxpool.BlockPool(4096, 8)
mine = pool.acquire()
taken = downstream.take_all(pool, 7)
in_use = pool.stats().in_use
results = [downstream.give(pool, i) for i in taken]
again = downstream.give(pool, taken[0])
foreign = downstream.give(pool, mine.index)
mine.release()
print(json.dumps([sorted(taken), in_use, results, again, foreign, pool.stats().in_use]))
"""
    taken, in_use, results, again, foreign, left = run(native, built, script)
    assert len(set(taken)) == 7
    assert in_use == 8
    assert results == [0] * 7
    assert again == foreign == -1
    assert left == 0


def test_blocks_of_a_debug_pool_from_c(native, built: Path) -> None:
    """Debug mode's work is not inline: the extension must find it all the same."""
    script = """
import ctxpool
pool = ctxpool.BlockPool(100, 4, debug=True, zero="release")
taken = downstream.take_all(pool, 7)
print(json.dumps([len(taken), [downstream.give(pool, i) for i in taken]]))
"""
    assert run(native, built, script) == [4, [0] * 4]


def test_table_from_c(native, built: Path) -> None:
    script = "print(json.dumps(downstream.evictions(100, 10_000, 100)))"
    assert run(native, built, script) == [9_900, 0, 0]
    script = "print(json.dumps(downstream.evictions(100, 10_000, 101)))"
    assert run(native, built, script) == [0, 9_900, 0]


def test_model_from_c(native, built: Path) -> None:
    script = """
import ctxpool
model = ctxpool.MarkovModel(2)
known = downstream.learn(model, "abc" * 10)
print(json.dumps([known, len(model), model.predict(1)[0][0]]))
"""
    assert run(native, built, script) == [6, 6, "a"]
