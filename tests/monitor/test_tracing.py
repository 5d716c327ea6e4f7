"""The allocation tracer: estimates against the truth, threads, fork, other hooks."""

import asyncio
import contextlib
import ctypes
import gc
import json
import os
import subprocess
import sys
import threading
import tracemalloc
from itertools import repeat

import pytest

import ctxpool
from ctxpool.errors import NativeOnlyError
from ctxpool.monitor import AllocationTracer, trace
from ctxpool.monitor.allocations import AllocationSnapshot, Frame, Stack, Usage

native = pytest.mark.skipif(
    ctxpool.backend != "native", reason="needs the native build"
)
pytestmark = native
HERE = __file__


def line_of(function, more):
    return function.__code__.co_firstlineno + more


def held(n):
    return list(map(bytes, repeat(1000, n)))  # and, now and then, a longer list


def at_line(snapshot, function, more):
    line = line_of(function, more)
    (found,) = (
        each
        for each in snapshot.lines()
        if each.file == function.__code__.co_filename and each.line == line
    )
    return found


def test_live_and_freed_memory_by_line():
    with AllocationTracer(mean=4096) as tracer:
        kept = held(20_000)
        held(20_000)
        found = at_line(tracer.snapshot(), held, 1)
        size = sys.getsizeof(kept[0])
        assert found.live_bytes == pytest.approx(20_000 * size, rel=0.08)
        assert found.live_count == pytest.approx(20_000, rel=0.08)
        assert found.bytes == pytest.approx(40_000 * size, rel=0.15)
        kept.clear()
        gone = tracer.snapshot()
        left = [u for u in gone.lines() if u.line == line_of(held, 1)]
        assert sum(u.live_bytes for u in left) < 0.02 * 20_000 * size
    assert not tracer.running


def test_the_same_lines_as_tracemalloc():
    def work():
        table = {str(n): [n] * 5 for n in range(20_000)}
        words = [f"{n}-{n}" for n in range(30_000)]
        return table, words

    tracemalloc.start()
    try:
        kept = work()
        exact = tracemalloc.take_snapshot().statistics("lineno")
    finally:
        tracemalloc.stop()
    del kept
    with AllocationTracer(mean=2048) as tracer:
        kept = work()
        lines = tracer.snapshot().lines()
    for each, truth in zip(lines[:2], exact[:2], strict=True):
        assert (each.file, each.line) == (
            truth.traceback[0].filename,
            truth.traceback[0].lineno,
        )
        assert each.live_bytes == pytest.approx(truth.size, rel=0.1)
    del kept


def test_growing_lists_count_once():
    with AllocationTracer(mean=1024) as tracer:
        growing = []
        for n in range(200_000):
            growing.append(n % 7)
        live = tracer.snapshot().total.live_bytes
        assert live == pytest.approx(sys.getsizeof(growing), abs=64_000)


def test_stacks_name_their_callers():
    def outer():
        return held(500)

    with AllocationTracer(mean=64, depth=2) as tracer:
        kept = outer()
        snapshot = tracer.snapshot()
    names = {tuple(f.function for f in stack.frames)[-2:] for stack in snapshot}
    assert any("outer" in name[0] and name[-1].endswith("held") for name in names)
    assert max(len(stack.frames) for stack in snapshot) == 2
    del kept


def test_operations():
    async def step(name, n):
        with trace(name):
            await asyncio.sleep(0)
            kept = held(n)
            await asyncio.sleep(0)
            return kept

    async def both():
        return await asyncio.gather(step("few", 500), step("many", 5_000))

    @trace("decorated")
    def function(n):
        return held(n)

    @trace("awaited")
    async def coroutine(n):
        return held(n)

    with AllocationTracer(mean=512) as tracer:
        kept = asyncio.run(both()), function(2_000), asyncio.run(coroutine(1_000))
        with trace("outer"), trace("inner"):
            pass
        found = {each.operation: each for each in tracer.snapshot().operations()}
    size = sys.getsizeof(bytes(1000))
    for name, n in (("few", 500), ("many", 5_000), ("decorated", 2_000)):
        assert found[name].live_bytes == pytest.approx(n * size, rel=0.2), name
    assert found["awaited"].live_count == pytest.approx(1_000, rel=0.2)
    del kept


def test_differences():
    with AllocationTracer(mean=512) as tracer:
        first = held(1_000)
        before = tracer.snapshot()
        first.clear()
        second = held(3_000)
        change = tracer.snapshot().since(before)
    line = next(u for u in change.lines() if u.line == line_of(held, 1))
    assert line.live_count == pytest.approx(2_000, rel=0.2)
    assert line.count == pytest.approx(3_000, rel=0.2)
    assert len(before.since(before)) == 0
    del second


def test_threads_are_seen():
    kept = []
    with AllocationTracer(mean=1024) as tracer:
        threads = [
            threading.Thread(target=lambda: kept.append(held(2_000))) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = at_line(tracer.snapshot(), held, 1)
    assert found.live_count == pytest.approx(8_000, rel=0.15)


def test_threads_that_start_and_stop_it():
    stop = threading.Event()

    def allocate():
        while not stop.is_set():
            held(20)

    def switch():
        while not stop.is_set():
            tracer = AllocationTracer(mean=256)
            with contextlib.suppress(RuntimeError), tracer:
                tracer.snapshot()

    threads = [threading.Thread(target=f) for f in (allocate, allocate, switch, switch)]
    for thread in threads:
        thread.start()
    stop.wait(0.5)
    stop.set()
    for thread in threads:
        thread.join()
    with AllocationTracer() as tracer:
        assert tracer.stats().hooked


def test_one_at_a_time():
    with AllocationTracer() as tracer:
        with pytest.raises(RuntimeError, match="this AllocationTracer is running"):
            tracer.start()
        with pytest.raises(RuntimeError, match="another"):
            AllocationTracer().start()
        assert tracer.running
    tracer.stop()
    with pytest.raises(RuntimeError, match="not running"):
        tracer.snapshot()
    assert not tracer.stats().running


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"mean": 0}, ValueError, "must be positive, not 0"),
        ({"mean": "much"}, ValueError, "'much' is no size"),
        ({"depth": 0}, ValueError, "depth must be from 1 to 128, not 0"),
        ({"depth": 129}, ValueError, "not 129"),
        ({"depth": "x"}, TypeError, "depth must be a whole number"),
        ({"places": 1}, ValueError, "places must be from 256"),
    ],
)
def test_wrong_settings(settings, error, says):
    with pytest.raises(error, match=says):
        AllocationTracer(**settings)


@pytest.mark.parametrize("wrong", ["", None, 5])
def test_wrong_operations(wrong):
    with pytest.raises(TypeError, match="must be a name"):
        trace(wrong)


def test_a_full_tree_merges():
    space = {}
    with AllocationTracer(mean=64, places=256) as tracer:
        for n in range(400):
            exec(f"def f{n}(): return bytes(100)", space)
        kept = [space[f"f{n}"]() for n in range(400) for _ in range(5)]
        assert tracer.stats().merged > 0
        assert tracer.stats().places == 256
        assert tracer.snapshot().total.live_count > 1_500
    del kept


def test_beside_tracemalloc():
    """Either may start and stop while the other is on."""
    tracer = AllocationTracer(mean=1024)
    for first_out in ("tracemalloc", "ours"):
        tracemalloc.start()
        tracer.start()
        kept = held(1_000)
        assert at_line(tracer.snapshot(), held, 1).live_count > 700
        if first_out == "ours":
            tracer.stop()
            tracemalloc.stop()
        else:
            tracemalloc.stop()
            tracer.stop()
        del kept
    with tracer:
        tracemalloc.start()  # in front of ours
        kept = held(1_000)
        tracemalloc.stop()
        assert len(kept) == 1_000
        assert (
            not tracer.stats().hooked
            or at_line(tracer.snapshot(), held, 1).live_count > 700
        )
    with tracer:
        assert tracer.stats().hooked


def test_what_the_raw_domain_gives():
    raw = ctypes.pythonapi
    raw.PyMem_RawMalloc.restype = ctypes.c_void_p
    raw.PyMem_RawMalloc.argtypes = [ctypes.c_size_t]
    raw.PyMem_RawRealloc.restype = ctypes.c_void_p
    raw.PyMem_RawRealloc.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    raw.PyMem_RawFree.argtypes = [ctypes.c_void_p]
    library = ctypes.CDLL(None)  # without the GIL
    for name in ("PyMem_RawMalloc", "PyMem_RawRealloc", "PyMem_RawFree"):
        getattr(library, name).argtypes = getattr(raw, name).argtypes
        getattr(library, name).restype = getattr(raw, name).restype
    for calls in (raw, library):
        with AllocationTracer(mean=4096) as tracer:
            gc.disable()
            try:
                before = tracer.snapshot().total.live_bytes
                blocks = [calls.PyMem_RawMalloc(100_000) for _ in range(100)]
                blocks = [calls.PyMem_RawRealloc(p, 200_000) for p in blocks]
                grown = tracer.snapshot().total.live_bytes - before
                assert grown == pytest.approx(100 * 200_000, rel=0.05)
                for p in blocks:
                    calls.PyMem_RawFree(p)
                left = tracer.snapshot().total.live_bytes - before
                assert abs(left) < 100_000
            finally:
                gc.enable()


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_goes_on():
    with AllocationTracer(mean=1024) as tracer:
        kept = held(1_000)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                more = held(1_000)
                found = at_line(tracer.snapshot(), held, 1)
                tracer.stop()
                held(10)
                status = 0 if 1_500 < found.live_count < 2_500 else 2
                del more
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert at_line(tracer.snapshot(), held, 1).live_count < 1_500
        del kept


def test_an_interpreter_may_end_while_it_runs():
    script = """
import threading, time
from ctxpool.monitor import AllocationTracer, trace
tracer = AllocationTracer(mean=64)
tracer.start()
class Last:
    def __del__(self):
        self.more = [bytes(100) for _ in range(100)]
keep = Last()
def work():
    with trace("work"):
        while True:
            [bytes(100) for _ in range(100)]
threading.Thread(target=work, daemon=True).start()
time.sleep(0.05)
print(len(tracer.snapshot()) > 0)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


def test_the_pure_build_says_so():
    script = """
from ctxpool.errors import NativeOnlyError
from ctxpool.monitor import AllocationTracer, trace
with trace("this works"):
    pass
try:
    AllocationTracer().start()
except NativeOnlyError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        env={k: v for k, v in os.environ.items() if k != "CTXPOOL_NATIVE"}
        | {"CTXPOOL_PURE": "1"},
    )
    assert "tracemalloc traces in any build" in done.stdout, done.stderr
    assert issubclass(NativeOnlyError, NotImplementedError)


# -- pictures --------------------------------------------------------------------------

A, B = Frame("a.py", 1, "main"), Frame("b;c.py", 2, "f")
MADE = AllocationSnapshot(
    {
        Stack(None, (A,)): Usage(10, 1, 5, 1),
        Stack("load", (A, B)): Usage(3000, 3, 2000, 2),
        Stack(None, ()): Usage(7, 1, 0, 0),
    },
    512,
)


def test_collapsed_stacks(tmp_path):
    text = MADE.collapsed()
    assert text == "main (a.py:1) 5\nload;main (a.py:1);f (b,c.py:2) 2000\n"
    MADE.save(tmp_path / "stacks.txt")
    assert (tmp_path / "stacks.txt").read_text() == text
    assert "(no Python code) 7\n" in MADE.collapsed("bytes")


def test_speedscope(tmp_path):
    MADE.save(tmp_path / "profile.json", "count")
    told = json.loads((tmp_path / "profile.json").read_text())
    (profile,) = told["profiles"]
    frames = [frame["name"] for frame in told["shared"]["frames"]]
    stacks = [[frames[i] for i in sample] for sample in profile["samples"]]
    assert ["load", "main (a.py:1)", "f (b;c.py:2)"] in stacks
    assert sum(profile["weights"]) == profile["endValue"] == 5
    assert profile["unit"] == "none"


def test_tables():
    assert MADE.report().splitlines()[0] == "    1.95 KiB   99.8 %  b;c.py:2"
    assert [str(each) for each in MADE.lines("bytes")] == [
        "b;c.py:2",
        "a.py:1",
        "(no Python code)",
    ]
    assert [str(each) for each in MADE.operations()] == ["load", "(no operation)"]
    assert MADE.total == Usage(3017, 5, 2005, 3)
    with pytest.raises(ValueError, match="by must be one of"):
        MADE.lines("size")
