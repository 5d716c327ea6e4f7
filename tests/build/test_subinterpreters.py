"""A second interpreter in the process: refused with ImportError or served, never
a crash. numpy itself may refuse; what counts is how the process ends."""

import pytest

pytestmark = pytest.mark.timeout(300)

SCRIPT = """
import sys, warnings
warnings.simplefilter("ignore")
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters

USE = '''
import warnings
warnings.simplefilter("ignore")
try:
    import ctxpool
except ImportError as error:
    print("refused:", type(error).__name__, flush=True)
else:
    with ctxpool.BlockPool(4096, 2) as pool:
        block = pool.acquire()
        block.view[:3] = b"abc"
        block.release()
    window = ctxpool.TokenWindow(4)
    window.extend([1, 2, 3, 4, 5])
    kept = window.view()
    cache = ctxpool.LRUCache(2)
    cache["a"] = [cache]
    if ctxpool.backend == "native":
        with ctxpool.numpy_pool("1MiB", min_size=1) as numbers:
            kept = kept + kept
        assert numbers.owns(kept)
    print("served:", ctxpool.backend, flush=True)
'''
main_too = sys.argv[1] == "both"
if main_too:
    import ctxpool
    pool = ctxpool.BlockPool(4096, 2)
    held = pool.acquire()
for _ in range(3):
    one = interpreters.create()
    try:
        failed = interpreters.run_string(one, USE)
        if failed:
            print("failed:", failed, flush=True)
    except Exception as error:
        print("failed:", error, flush=True)
    interpreters.destroy(one)
if main_too:
    held.release()
    assert pool.stats().in_use == 0
    pool.close()
print("alive")
"""


@pytest.mark.parametrize("kind", ["native", "pure"])
@pytest.mark.parametrize("where", ["both", "sub"])
def test_subinterpreters(kind: str, where: str, request: pytest.FixtureRequest) -> None:
    installed = request.getfixturevalue(kind)
    done = installed.run("-c", SCRIPT, where)
    assert done.returncode == 0, (done.stdout, done.stderr)
    *lines, last = done.stdout.split("\n")[:-1]
    assert last == "alive", done
    outcomes = [line for line in lines if line.startswith(("refused: ", "served: "))]
    assert len(outcomes) == 3, done
    for line in outcomes:
        assert line in ("refused: ImportError", f"served: {kind}"), done
