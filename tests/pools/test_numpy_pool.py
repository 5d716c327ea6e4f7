"""numpy_pool: where arrays come from, and what the pool tells."""

import asyncio
import contextlib
import doctest
import inspect
import pickle
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy._core.multiarray import get_handler_name

import ctxpool
from ctxpool import NumpyPool, numpy_pool
from ctxpool.errors import CtxPoolError, NativeOnlyError
from ctxpool.pools import numpy as room

MIB = 1 << 20
native = pytest.mark.skipif(ctxpool.backend == "pure", reason="needs the native build")
DEFAULT = "default_allocator"


@pytest.fixture
def pool() -> NumpyPool:
    if ctxpool.backend == "pure":
        pytest.skip("needs the native build")
    return numpy_pool("64MiB", name="test")


def requests(pool: NumpyPool) -> int:
    return pool.stats().hits + pool.stats().misses


def address(array: Any) -> int:
    return int(array.__array_interface__["data"][0])


# --- the pure build -------------------------------------------------------------------


def test_the_pure_build_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    from ctxpool._pure import numpy_memory

    monkeypatch.setattr(room, "_memory", numpy_memory)
    for make in (numpy_pool, NumpyPool):
        with pytest.raises(NativeOnlyError, match=r"native build.*BlockPool\.empty"):
            make("1MiB")
    with pytest.raises(NotImplementedError):
        numpy_pool()
    with pytest.raises(CtxPoolError):
        numpy_pool()
    with pytest.raises(ValueError, match="size"):  # its arguments are looked at first
        numpy_pool("much")


# --- where arrays come from -----------------------------------------------------------


def test_arrays_made_inside_are_the_pools(pool: NumpyPool) -> None:
    before = np.ones(10_000)
    with pool as entered:
        assert entered is pool
        a = np.ones(10_000)
        b = a * 2 + before
        assert get_handler_name() == get_handler_name(a) == "ctxpool test"
        for array in (a, b, b[::2], b.reshape(100, 100).T, np.sort(b), np.zeros(999)):
            assert pool.owns(array)
        assert not pool.owns(before)
    assert get_handler_name() == DEFAULT
    assert not pool.owns(np.ones(10_000))
    assert (b == 3).all()
    assert pool.owns(b)


@pytest.mark.parametrize("n", [1, 1023, 1024, 5000, 1 << 19, MIB, 3 * MIB + 1])
def test_every_size(n: int) -> None:
    if ctxpool.backend == "pure":
        pytest.skip("needs the native build")
    for min_size in (1, 1024):
        pool = numpy_pool("64MiB", min_size=min_size)
        with pool:
            for _ in range(3):
                before = requests(pool)
                a, b = np.full(n, 7, np.uint8), np.zeros(n, np.uint8)
                assert n < min_size or requests(pool) >= before + 2
                assert pool.owns(a) == pool.owns(b) == (n >= min_size)
                assert (a == 7).all()
                assert not b.any()
                b[:] = 9  # what the next zeros are made of
                assert n < min_size or address(a) % 64 == 0
                assert n <= MIB or address(a) % (2 * MIB) == 0
                del a, b
        pool.check()
        assert pool.stats().live_blocks == 0


def test_memory_is_used_again_and_the_newest_first(pool: NumpyPool) -> None:
    with pool:
        a, b = np.ones(MIB), np.ones(MIB)
        first, second = address(a), address(b)
        del a
        del b
        c = np.ones(MIB)
        assert address(c) == second
        d = np.ones(MIB)
        assert address(d) == first
    stats = pool.stats()
    assert (stats.hits, stats.misses, stats.hit_ratio) == (2, 2, 0.5)


def test_a_power_of_two_has_no_header(pool: NumpyPool) -> None:
    with pool:
        a = np.ones(8 * MIB, np.uint8)
    assert pool.stats().live_bytes == a.nbytes == pool.stats().mapped_bytes


def test_resize(pool: NumpyPool) -> None:
    with pool:
        a = np.arange(1000)
        for n in (1020, 5000, 500_000, 499_000, 2000, 10, 600_000, 0, 7):
            kept = min(n, a.size)
            before = a[:kept].copy()
            a.resize(n, refcheck=False)
            assert (a[:kept] == before).all()
            assert not a[kept:].any()
        del a, before
    assert pool.stats().live_blocks == 0
    small = np.arange(5)  # NumPy's, and it stays so when it grows
    with pool:
        small.resize(10_000, refcheck=False)
    assert not pool.owns(small)
    assert list(small[:6]) == [0, 1, 2, 3, 4, 0]


def test_views_keep_the_memory_of_a_dead_pool(pool: NumpyPool) -> None:
    with pool:
        view = np.arange(1_000_000)[10::7]
    del pool
    assert view[3] == 31
    assert (view + view).sum() == 2 * view.sum()


# --- bounds ---------------------------------------------------------------------------


@native
def test_size_bounds_what_is_kept_and_not_the_arrays() -> None:
    pool = numpy_pool("4MiB")
    with pool:
        arrays = [np.ones(MIB, np.uint8) for _ in range(16)]
        assert pool.stats().live_bytes == 16 * MIB
        arrays.clear()
        stats = pool.stats()
        assert (stats.idle_bytes, stats.unmapped) == (4 * MIB, 12)
        large = np.ones(5 * MIB, np.uint8)
        del large
    assert pool.stats().idle_bytes == 4 * MIB
    assert pool.stats().peak_bytes == 16 * MIB
    pool.check()


@native
def test_a_limit_is_a_memory_error() -> None:
    pool = numpy_pool("64MiB", limit="8MiB")
    with pool:
        a = np.ones(6 * MIB, np.uint8)
        with pytest.raises(MemoryError, match="Unable to allocate"):
            np.ones(3 * MIB, np.uint8)
        with pytest.raises(MemoryError):
            a.resize(9 * MIB, refcheck=False)
        assert a.size == 6 * MIB
        assert a.all()
        small = np.ones(100, np.uint8)  # not counted
        b = np.zeros(2 * MIB, np.uint8)
        assert (pool.stats().live_bytes, pool.stats().refused) == (8 * MIB, 2)
        del a, b, small
        assert np.ones(8 * MIB, np.uint8).all()
    assert pool.limit == 8 * MIB
    pool.check()


@native
def test_more_than_any_machine_has_fails_as_without_us() -> None:
    with numpy_pool("1MiB"), pytest.raises(MemoryError):
        np.empty(1 << 60, np.uint8)


@native
def test_trim_and_warm() -> None:
    pool = numpy_pool("64MiB", huge_pages="never")
    assert pool.warm("3MiB", 4) is None
    assert pool.stats().idle_bytes == 12 * MIB
    misses = pool.stats().misses
    with pool:
        arrays = [np.ones(3 * MIB, np.uint8) for _ in range(4)]
    assert pool.stats().misses == misses
    assert pool.trim() == 0
    arrays.clear()
    assert pool.trim() == 12 * MIB
    assert pool.stats().mapped_bytes == 0
    with pytest.raises(ValueError, match="23 arrays of 3145728 bytes are more"):
        pool.warm("3MiB", 23)
    with pytest.raises(ValueError, match="NumPy's own"):
        pool.warm(1023)
    with pytest.raises(ValueError, match="n must be from 1"):
        pool.warm(5000, 0)
    with pytest.raises(MemoryError, match="only 1 of 2"):
        numpy_pool("64MiB", limit="4MiB").warm("3MiB", 2)
    pool.check()


@native
@pytest.mark.parametrize("huge_pages", ["auto", "always", "never"])
@pytest.mark.parametrize("prefault", [False, True])
def test_options(huge_pages: Any, prefault: bool) -> None:
    pool = numpy_pool("64MiB", huge_pages=huge_pages, prefault=prefault)
    with pool:
        for n in (2000, 200_000, 3_000_000):
            assert np.zeros(n).sum() == 0
            assert np.ones(n).sum() == n
    pool.check()


# --- contexts -------------------------------------------------------------------------


@native
def test_nested_and_in_any_order() -> None:
    a, b = numpy_pool("1MiB", name="a"), numpy_pool("1MiB", name="b")

    def now() -> str:
        return str(get_handler_name())

    with a:
        with b, a:
            assert now() == "ctxpool a"
        assert now() == "ctxpool a"
    assert now() == DEFAULT
    a.install()
    b.install()
    a.uninstall()
    assert now() == "ctxpool b"
    b.uninstall()
    assert now() == DEFAULT
    a.install()
    b.install()
    a.install()
    for left, expected in ((b, "a"), (a, "a")):
        left.uninstall()
        assert now() == f"ctxpool {expected}"
    a.uninstall()
    assert now() == DEFAULT


def test_a_handler_that_others_set_is_left(pool: NumpyPool) -> None:
    from ctxpool._native.numpy_memory import current_handler, set_handler

    default = current_handler()
    pool.install()
    set_handler(default)
    pool.uninstall()
    assert current_handler() is default
    with pytest.raises(ValueError, match="mem_handler"):
        set_handler(42)


def test_an_exception_inside_goes_on(pool: NumpyPool) -> None:
    with pytest.raises(ZeroDivisionError), pool:
        raise ZeroDivisionError
    assert get_handler_name() == DEFAULT


def test_the_error_state_is_as_before(pool: NumpyPool) -> None:
    calls: list[str] = []
    with np.errstate(divide="call", over="raise", call=lambda *_: calls.append("x")):
        before, call, size = np.geterr(), np.geterrcall(), np.getbufsize()
        with pool:
            assert (np.geterr(), np.geterrcall(), np.getbufsize()) == (
                before,
                call,
                size,
            )
            np.ones(1) / 0
            with pytest.raises(FloatingPointError):
                np.full(1, 1e308) * 10
        assert (np.geterr(), np.geterrcall()) == (before, call)
    assert calls == ["x"]


def test_not_installed(pool: NumpyPool) -> None:
    with pytest.raises(RuntimeError, match="not installed in this context"):
        pool.uninstall()
    pool.install()
    failed = in_a_thread(lambda: raised(pool.uninstall))
    assert "not installed" in str(failed)
    assert get_handler_name() == "ctxpool test"
    pool.uninstall()


def in_a_thread(work: Callable[[], Any]) -> Any:
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    thread.join()
    return results[0]


def raised(call: Callable[[], Any]) -> BaseException | None:
    try:
        call()
    except RuntimeError as error:
        return error
    return None


def test_threads_install_for_themselves(pool: NumpyPool) -> None:
    def made() -> bool:
        return pool.owns(np.ones(10_000))

    assert in_a_thread(lambda: (pool.install() is pool, made())) == (True, True)
    assert not made()
    with ThreadPoolExecutor(2, initializer=pool.install) as executor:
        assert all(executor.map(lambda _: made(), range(20)))
    assert not made()


def test_tasks_have_what_they_were_made_with(pool: NumpyPool) -> None:
    def made() -> bool:
        return pool.owns(np.ones(10_000))

    async def child() -> bool:
        await asyncio.sleep(0)
        return made()

    async def main() -> None:
        with pool:
            inside = asyncio.create_task(child())
        outside = asyncio.create_task(child())
        assert (await inside, await outside) == (True, False)

    asyncio.run(main())
    assert not made()


@native
def test_many_pools_at_once() -> None:
    pools = [numpy_pool("2MiB", name=str(i)) for i in range(20)]
    with contextlib.ExitStack() as stack:
        arrays = []
        for pool in pools:
            stack.enter_context(pool)
            arrays.append(np.ones(1000))
    assert all(
        pool.owns(array) == (i == j)
        for i, pool in enumerate(pools)
        for j, array in enumerate(arrays)
    )


# --- arguments and faces --------------------------------------------------------------


@native
def test_a_pool_that_exists_is_shared() -> None:
    pool = numpy_pool()
    assert pool.size == 1 << 30
    assert numpy_pool(pool) is pool
    with pytest.raises(TypeError, match=r"no options.*name"):
        numpy_pool(pool, name="x")
    blocks = ctxpool.BlockPool(100, 1)
    with pytest.raises(TypeError, match="not <BlockPool"):
        numpy_pool(blocks)  # type: ignore[arg-type]


@native
@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"size": 0}, ValueError, "size must be positive, not 0"),
        ({"size": "1 pound"}, ValueError, "size '1 pound' is no size"),
        ({"size": 1.5}, TypeError, "size"),
        ({"size": None}, TypeError, "size"),
        ({"size": 1 << 62}, ValueError, r"size must be less than 2\*\*62"),
        ({"limit": -1}, ValueError, "limit must be positive, not -1"),
        ({"min_size": 0}, ValueError, "min_size must be positive, not 0"),
        ({"huge_pages": "yes"}, ValueError, "huge_pages must be one of 'auto'"),
        ({"huge_pages": None}, ValueError, "huge_pages must be one of 'auto'"),
        ({"name": b"x"}, TypeError, "name must be text or None, not b'x'"),
        ({"colour": 1}, TypeError, "colour"),
    ],
)
def test_bad_arguments(options: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        numpy_pool(**options)


@native
@pytest.mark.parametrize("name", ["x" * 500, "é\0ü", ""])
def test_names_of_any_kind(name: str) -> None:
    pool = numpy_pool("1MiB", name=name)
    with pool:
        shown = get_handler_name()
    assert shown.startswith("ctxpool")
    assert len(shown) < 127
    assert pool.name == pool.stats().name == name


def test_faces(pool: NumpyPool) -> None:
    with pool:
        a = np.ones(1000)
    assert repr(pool) == (
        "<NumpyPool name='test', size=67108864, arrays=1, live=8192, idle=0>"
    )
    assert a.all()
    assert pool.stats().as_dict()["live_blocks"] == 1
    assert pool.stats().hit_ratio == 0.0
    with pytest.raises(TypeError, match="cannot pickle a NumpyPool"):
        pickle.dumps(pool)
    with pytest.raises(TypeError, match="an ndarray is needed, not 3"):
        pool.owns(3)  # type: ignore[arg-type]
    assert not pool.owns(np.frombuffer(b"abcdefgh"))
    assert not pool.owns(np.ones(0))


@native
def test_the_examples() -> None:
    """They are skipped elsewhere, as a pure build can't run them."""
    text = inspect.getdoc(NumpyPool) or ""
    examples = text.replace("# doctest: +SKIP", "")
    test = doctest.DocTestParser().get_doctest(examples, {}, "NumpyPool", None, 0)
    assert len(test.examples) == 4
    assert doctest.DocTestRunner(verbose=False).run(test).failed == 0
