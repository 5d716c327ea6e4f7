"""ResourceManager, and the default one."""

import asyncio
import os
import subprocess
import sys
import threading

import pytest

import ctxpool
from ctxpool import ResourceManager
from ctxpool.errors import PoolClosedError, PoolTimeoutError, UnknownResourceError


class Thing:
    pass


@pytest.fixture
def manager():
    with ResourceManager(timeout=0) as manager:
        manager.register_resource_type("thing", Thing, max_size=1)
        yield manager


def test_get(manager):
    lease = manager.get_pooled_resource("thing")
    assert isinstance(lease.object, Thing)
    with pytest.raises(PoolTimeoutError, match="the pool 'thing'"):
        manager.get_pooled_resource("thing")
    lease.release()
    manager.get_pooled_resource("thing")
    assert manager.stats()["thing"].in_use == 0  # by itself


def test_with(manager):
    resource = manager.pooled_resource("thing")
    for _ in range(2):
        with resource as thing:
            assert isinstance(thing, Thing)
            assert manager.pool("thing").in_use == 1
    with pytest.raises(RuntimeError, match="was not entered"):
        resource.__exit__(None, None, None)
    with pytest.raises(ZeroDivisionError), resource:
        _ = 1 / 0
    assert manager.pool("thing").idle == 1
    assert repr(resource) == "<pooled_resource 'thing'>"


def test_entered_twice(manager):
    manager.register_resource_type("more", Thing)
    resource = manager.pooled_resource("more")
    with resource:
        with pytest.raises(RuntimeError, match="entered already: make another"):
            resource.__enter__()
        assert manager.pool("more").in_use == 1
    assert manager.pool("more").in_use == 0


def test_a_failed_enter_leaves_nothing(manager):
    resource = manager.pooled_resource("thing")
    with manager.pooled_resource("thing"):
        with pytest.raises(PoolTimeoutError):
            resource.__enter__()
        with pytest.raises(PoolTimeoutError):
            asyncio.run(resource.__aenter__())
    with resource:
        pass


def test_async_with(manager):
    async def main():
        async with manager.pooled_resource("thing") as thing:
            assert isinstance(thing, Thing)
        async with manager.pooled_resource("thing", timeout=1) as again:
            assert again is thing

    asyncio.run(main())


def test_decorated_functions(manager):
    @manager.pooled_resource("thing")
    def named(thing, a, *, b=2):
        """Its own."""
        assert manager.pool("thing").in_use == 1
        return thing, a, b

    thing, *rest = named(1, b=3)
    assert isinstance(thing, Thing)
    assert rest == [1, 3]
    assert (named.__name__, named.__doc__) == ("named", "Its own.")

    class Holder:
        @manager.pooled_resource("thing", argument="thing")
        def method(self, a, thing=None):
            return self, a, thing

    holder = Holder()
    assert holder.method(1) == (holder, 1, thing)
    with pytest.raises(TypeError, match="a function is needed, not 3"):
        manager.pooled_resource("thing")(3)


def test_decorated_coroutines_and_generators(manager):
    pool = manager.pool("thing")

    @manager.pooled_resource("thing", timeout=5)
    async def coroutine(thing, a):
        await asyncio.sleep(0)
        return pool.in_use, a

    @manager.pooled_resource("thing")
    def generator(thing, n):
        for _ in range(n):
            yield pool.in_use
        return "end"

    @manager.pooled_resource("thing")
    async def async_generator(thing, n):
        for _ in range(n):
            await asyncio.sleep(0)
            yield pool.in_use

    async def main():
        assert await asyncio.gather(*map(coroutine, range(3))) == [
            (1, 0),
            (1, 1),
            (1, 2),
        ]
        assert [n async for n in async_generator(2)] == [1, 1]
        items = async_generator(2)
        async for _ in items:
            break
        await items.aclose()
        assert pool.in_use == 0

    asyncio.run(main())
    assert list(generator(2)) == [1, 1]
    left = generator(2)
    next(left)
    assert pool.in_use == 1
    left.close()
    assert pool.in_use == 0


def test_metadata_and_statistics(manager):
    for _ in range(3):
        with manager.pooled_resource("thing"):
            pass
    (resource,) = manager.resources("thing")
    assert resource.uses == 3
    assert not resource.in_use
    assert resource.created <= resource.last_used
    assert manager.stats()["thing"].acquires == 3
    assert manager.evict() == 0


def test_registering(manager):
    with pytest.raises(ValueError, match="'thing' is registered already"):
        manager.register_resource_type("thing", Thing)
    with pytest.raises(TypeError, match="name must be text, not 3"):
        manager.register_resource_type(3, Thing)
    with pytest.raises(TypeError, match="factory must be callable"):
        manager.register_resource_type("bad", None)
    assert list(manager) == ["thing"]
    assert "thing" in manager
    assert len(manager) == 1
    manager.unregister_resource_type("thing")
    assert "thing" not in manager
    text = r"no resource type 'thing' is registered \(there are: none\)"
    for use in (
        lambda: manager.get_pooled_resource("thing"),
        lambda: manager.pooled_resource("thing").__enter__(),
        lambda: manager.unregister_resource_type("thing"),
        lambda: manager.resources("thing"),
    ):
        with pytest.raises(UnknownResourceError, match=text):
            use()
    with pytest.raises(LookupError):
        manager.pool([])


def test_registered_by_one_thread_of_many(manager):
    barrier, results = threading.Barrier(4), []

    def register():
        barrier.wait(10)
        try:
            results.append(manager.register_resource_type("one", Thing))
        except ValueError:
            results.append(None)

    threads = [threading.Thread(target=register) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert results.count(None) == 3
    assert manager.pool("one") in results


def test_close():
    disposed = []
    manager = ResourceManager()
    for name in "ab":
        manager.register_resource_type(
            name, Thing, initial_size=1, dispose=disposed.append
        )
    lease = manager.get_pooled_resource("a")
    with manager:
        assert repr(manager) == "<ResourceManager of 2 types>"
    assert len(disposed) == 1
    lease.release()
    assert len(disposed) == 2
    for use in (
        manager.__enter__,
        lambda: manager.pool("a"),
        lambda: manager.register_resource_type("c", Thing),
    ):
        with pytest.raises(PoolClosedError, match="the resource manager is closed"):
            use()
    manager.close()


def test_aclose():
    disposed = []

    async def dispose(thing):
        await asyncio.sleep(0)
        disposed.append(thing)

    async def main():
        async with ResourceManager() as manager:
            manager.register_resource_type("a", Thing, dispose=dispose)
            async with manager.pooled_resource("a"):
                pass
        assert len(disposed) == 1

    asyncio.run(main())


def test_settings(monkeypatch):
    for variable, value in {
        "MAX_SIZE": "7",
        "TIMEOUT": "0.5",
        "MAX_IDLE": "none",
        "CLEANUP_INTERVAL": "2.5",
    }.items():
        monkeypatch.setenv(f"CTXPOOL_POOL_{variable}", value)
    settings = ResourceManager().register_resource_type("a", Thing)._settings
    assert (settings.max_size, settings.timeout) == (7, 0.5)
    assert (settings.max_idle, settings.interval) == (float("inf"), 2.5)
    manager = ResourceManager(max_size=3, timeout=None, cleanup_interval=None)
    settings = manager.register_resource_type("a", Thing)._settings
    assert (settings.max_size, settings.timeout) == (3, float("inf"))
    assert settings.interval == float("inf")
    assert manager.register_resource_type("b", Thing, max_size=4).max_size == 4


def test_defaults(monkeypatch):
    for variable in ("MAX_SIZE", "TIMEOUT", "MAX_IDLE", "CLEANUP_INTERVAL"):
        monkeypatch.delenv(f"CTXPOOL_POOL_{variable}", raising=False)
    settings = ResourceManager().register_resource_type("a", Thing)._settings
    assert (settings.max_size, settings.timeout) == (100, 30)
    assert (settings.max_idle, settings.interval) == (600, 300)


@pytest.mark.parametrize(
    ("variable", "value", "text"),
    [
        ("MAX_SIZE", "many", "must be a whole number, more than 0, not 'many'"),
        ("MAX_SIZE", "0", "must be a whole number, more than 0, not '0'"),
        ("TIMEOUT", "soon", "must be seconds or none, more than 0, not 'soon'"),
        ("MAX_IDLE", "inf", "must be seconds or none, more than 0, not 'inf'"),
        ("CLEANUP_INTERVAL", "-1", "must be seconds or none, more than 0, not '-1'"),
    ],
)
def test_bad_variables(monkeypatch, variable, value, text):
    monkeypatch.setenv(f"CTXPOOL_POOL_{variable}", value)
    with pytest.raises(ValueError, match=f"CTXPOOL_POOL_{variable} {text}"):
        ResourceManager()


def test_bad_arguments():
    with pytest.raises(ValueError, match="max_size must be from 1"):
        ResourceManager(max_size=0)
    with pytest.raises(TypeError, match="timeout must be seconds or None"):
        ResourceManager(timeout="soon")


def test_the_default_manager():
    name = "test_the_default_manager"

    @ctxpool.pooled_resource(name)
    def used(thing):
        return thing

    with pytest.raises(UnknownResourceError):
        used()
    ctxpool.register_resource_type(name, Thing)
    try:
        thing = used()
        assert isinstance(thing, Thing)
        with ctxpool.pooled_resource(name) as again:
            assert again is thing
        assert ctxpool.get_pooled_resource(name).object is thing
    finally:
        from ctxpool.pools.manager import default_manager

        default_manager.unregister_resource_type(name)


def test_interpreter_exit_with_everything_in_use():
    script = (
        "import asyncio, ctxpool, threading\n"
        "class Thing: pass\n"
        "pool = ctxpool.register_resource_type('a', Thing, initial_size=2,\n"
        "    max_idle=0.01, dispose=lambda t: None, max_size=2)\n"
        "lease = ctxpool.get_pooled_resource('a')\n"
        "other = pool.get()\n"
        "threading.Thread(target=lambda: pool.get(), daemon=True).start()\n"
        "print('done')\n"
    )
    env = {**os.environ, "PYTHONWARNINGS": "default"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        env=env,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
