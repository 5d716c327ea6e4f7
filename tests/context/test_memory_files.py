"""A memory's directory: restarts, damage, full disks, threads, forks, kill -9."""

import asyncio
import gc
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

from ctxpool.context import HierarchicalMemory
from ctxpool.errors import DamagedStoreError, StoreClosedError, StoreError

FILES = ["memory.manifest", "facts.db", "episodes.db", "working.db"]


class Letters:
    name = "letters"
    dimensions = 26

    def embed(self, texts):
        made = [[t.lower().count(chr(97 + n)) for n in range(26)] for t in texts]
        return np.array(made, np.float32).reshape(len(texts), 26)


class Clock:
    now = 0.0

    def __call__(self):
        self.now += 1
        return self.now


@pytest.fixture
def memory():
    with HierarchicalMemory(budget=400, clock=Clock()) as made:
        yield made


def contents(messages):
    return [message.content for message in messages]


def strings(relations):
    return sorted(map(str, relations))


def unchanged(memory):
    return (
        contents(memory.working.messages()),
        [e.text for e in memory.episodic.episodes()],
        list(memory.semantic.triples(history=True)),
    )


def test_a_restart_goes_on_where_it_was(tmp_path):
    path, clock = tmp_path / "new" / "m", Clock()
    with HierarchicalMemory(path, budget=321, clock=clock) as memory:
        memory.process_input("Be brief.", "system", pinned=True)
        for n in range(30):
            memory.process_input(f"Remark {n} about the weather in Lisbon.")
        before = unchanged(memory)
        asked = [m.text for m in memory.recall("remark 3")]
        stats = memory.stats()
        assert stats.file_bytes > stats.semantic.file_bytes
        assert stats.as_dict()["working"]["budget"] == memory.working.budget
    memory.close()
    with pytest.raises(StoreClosedError):
        memory.recall("x")
    with HierarchicalMemory.open(path, clock=clock) as memory:
        assert memory.budget == 321
        assert unchanged(memory) == before
        assert [m.text for m in memory.recall("remark 3")] == asked
        memory.check()
    with HierarchicalMemory(path, budget=200, clock=clock) as memory:
        assert 0 < memory.working.tokens <= 150  # what fits of it
    with pytest.raises(StoreError, match="no memory in"):
        HierarchicalMemory.open(tmp_path / "other")


def test_saving_what_was_in_memory(tmp_path, memory):
    memory.process_input("Ada likes tea.")
    memory.save(tmp_path / "m")
    memory.process_input("Ada likes coffee.")
    with pytest.raises(StoreError, match="exists already"):
        memory.save(tmp_path / "m")
    with pytest.raises(ValueError, match="needs a path"):
        memory.save()
    with HierarchicalMemory.open(tmp_path / "m") as copy:
        assert contents(copy.working.messages()) == ["Ada likes tea."]
        assert strings(copy.semantic.relations()) == ["Ada likes tea"]
        copy.save()
    assert os.listdir(tmp_path) == ["m"]


def test_another_embedder(tmp_path):
    path = tmp_path / "m"
    with HierarchicalMemory(path) as memory:
        memory.process_input("Ada likes tea.")
    for recover in (False, True):  # it is no damage
        with pytest.raises(StoreError, match=r"hashed.*not 'letters'"):
            HierarchicalMemory(path, embedder=Letters(), recover=recover)
    with HierarchicalMemory(path, embedder=Letters(), reembed=True) as memory:
        assert memory.recall("likes tea", 1)[0].text == "Ada likes tea."
        assert memory.damaged == {}


def test_one_at_a_time(tmp_path):
    path = tmp_path / "m"
    with HierarchicalMemory(path):
        with pytest.raises(StoreError, match="open in another process"):
            HierarchicalMemory(path)
        code = (
            "import sys; from ctxpool.context import HierarchicalMemory\n"
            "from ctxpool.errors import StoreError\n"
            "try: HierarchicalMemory(sys.argv[1])\n"
            "except StoreError as error: print(error)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(path)],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert "open in another process" in done.stdout, done.stderr
    HierarchicalMemory(path).close()


def test_what_is_dropped_lets_go(tmp_path):
    for _ in range(2):
        memory = HierarchicalMemory(tmp_path / "m", embedder=Letters())
        memory.process_input("hello")
        del memory
        gc.collect()


def test_a_file_in_its_place(tmp_path):
    (tmp_path / "m").write_text("x")
    with pytest.raises(StoreError, match="can't be used"):
        HierarchicalMemory(tmp_path / "m")


# --- damage --------------------------------------------------------------------------


@pytest.fixture
def damaged(tmp_path, request):
    path = tmp_path / "m"
    with HierarchicalMemory(path, budget=300) as memory:
        memory.process_input("My name is Ada.")
        memory.process_input("I live in Lisbon.")
        memory.remember("The key is under the mat.")
    data = b"\xee" * (path / request.param).stat().st_size
    (path / request.param).write_bytes(data)
    return path, request.param


@pytest.mark.parametrize("damaged", FILES, indirect=True)
def test_a_damaged_file_is_named_and_left(damaged):
    path, name = damaged
    before = (path / name).read_bytes()
    with pytest.raises(StoreError, match=name):
        HierarchicalMemory(path)
    assert (path / name).read_bytes() == before
    with pytest.raises(StoreError, match=name):  # and nothing is locked
        HierarchicalMemory(path)


@pytest.mark.parametrize("damaged", FILES, indirect=True)
def test_recovery_loses_nothing_else(damaged):
    path, name = damaged
    before = (path / name).read_bytes()
    with HierarchicalMemory(path, recover=True, budget=300) as memory:
        assert list(memory.damaged) == [name]
        aside = memory.damaged[name].partition(":")[0]
        assert (path / aside).read_bytes() == before
        said = ["My name is Ada.", "I live in Lisbon."]
        if name != "working.db":
            assert contents(memory.working.messages()) == said
        episodes = {e.text for e in memory.episodic.episodes()}
        assert set(said) <= episodes
        assert ("The key is under the mat." in episodes) == (name != "episodes.db")
        relations = strings(memory.semantic.relations())
        assert relations == ["user lives in Lisbon", "user name Ada"]
    with HierarchicalMemory.open(path) as memory:
        assert memory.damaged == {}
        assert memory.budget == 300


def test_damage_within_a_file(tmp_path):
    path = tmp_path / "m"
    with HierarchicalMemory(path, embedder=Letters()) as memory:
        for n in range(300):
            memory.remember(f"text {n} " * 20)
    file = path / "episodes.db"
    data = bytearray(file.read_bytes())
    data[20480:65536] = b"\xee" * 45056
    file.write_bytes(data)
    with pytest.raises(DamagedStoreError, match=r"episodes\.db"):
        HierarchicalMemory(path, embedder=Letters())
    with HierarchicalMemory(path, embedder=Letters(), recover=True) as memory:
        assert list(memory.damaged) == ["episodes.db"]
        memory.process_input("It goes on.")


@pytest.mark.parametrize("tier", ["episodic", "semantic", "working"])
def test_a_full_disk(tmp_path, tier):
    with HierarchicalMemory(tmp_path / "m", clock=Clock()) as memory:
        memory.process_input("Ada likes tea.")
        before = unchanged(memory)
        database = {
            "episodic": lambda: memory.episodic._store.database,
            "semantic": lambda: memory.semantic._graph.database,
            "working": lambda: memory._window._file.database,
        }[tier]()
        with database.read() as connection:
            pages = connection.execute("PRAGMA page_count").fetchone()[0]
            connection.execute(f"PRAGMA max_page_count = {pages}")
        names = " ".join(f"Name{n}x uses Thing{n}y." for n in range(60)) + "x" * 20_000
        with pytest.raises(StoreError, match="full"):
            memory.process_input(names)
        assert unchanged(memory) == before
        assert memory.recall("who likes tea?", 1)[0].text
        with database.read() as connection:
            connection.execute(f"PRAGMA max_page_count = {1 << 30}")
        memory.process_input(names)
        assert len(memory.working) == len(memory.episodic) == 2
    with HierarchicalMemory.open(tmp_path / "m") as memory:
        assert contents(memory.working.messages()) == ["Ada likes tea.", names]


# --- threads, tasks, forks, kills ----------------------------------------------------


def test_threads(tmp_path):
    errors = []
    path = tmp_path / "m"
    with HierarchicalMemory(path, budget=300, embedder=Letters()) as memory:

        def work(n):
            try:
                for i in range(15):
                    context = memory.process_input(
                        f"text {i} of thread {n}, Ada is {i}"
                    )
                    assert context.tokens <= 300
                    memory.recall(f"text {i}")
                    if i % 5 == 4:
                        memory.forget(context.message.id)
                    memory.stats()
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert len(memory.episodic) == 48
        held = [m.id for g in memory.working.groups() for m in g.messages]
    with HierarchicalMemory(path, budget=300, embedder=Letters()) as memory:
        assert [m.id for g in memory.working.groups() for m in g.messages] == held


def test_from_an_event_loop():
    async def main():
        async with HierarchicalMemory(embedder=Letters()) as memory:
            contexts = await asyncio.gather(
                *(memory.aprocess_input(f"Ada likes number {n}") for n in range(5))
            )
            assert len({c.message.id for c in contexts}) == 5
            id = await memory.aremember("one more")
            assert len(await memory.arecall("Ada likes", 3)) == 3
            assert await memory.aforget(id) == 1
            assert (await memory.aconsolidate()).merged == 0
        with pytest.raises(StoreClosedError):
            await memory.aprocess_input("x")

    asyncio.run(main())


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_can_not_use_it(tmp_path):
    path = tmp_path / "m"
    memory = HierarchicalMemory(path, embedder=Letters())
    memory.process_input("before")
    begin, end = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            with pytest.raises(StoreError, match="forked from"):
                memory.process_input("x")
            memory.close()
            os.write(end[1], b"x")
            os.read(begin[0], 1)  # it lives while the parent opens it again
            os._exit(0)
        finally:
            os._exit(1)
    try:
        assert os.read(end[0], 1) == b"x"
        memory.process_input("after")
        memory.close()
        with HierarchicalMemory(path, embedder=Letters()) as memory:
            assert contents(memory.working.messages()) == ["before", "after"]
    finally:
        os.write(begin[1], b"x")
        status = os.waitpid(pid, 0)[1]
        for descriptor in (*begin, *end):
            os.close(descriptor)
    assert os.waitstatus_to_exitcode(status) == 0


@pytest.mark.skipif(sys.platform == "win32", reason="needs kill -9")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_killed_at_any_time_it_keeps_what_was_acknowledged(tmp_path):
    path = tmp_path / "m"
    options = {"budget": 400, "embedder": Letters()}
    said, acknowledged = 0, set()
    for _ in range(4):
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                memory = HierarchicalMemory(path, **options)
                for n in range(said, 10**6):
                    memory.process_input(f"Thing{n}x uses Other{n}y.")
                    os.write(write, b"%d\n" % n)
            finally:
                os._exit(1)
        os.close(write)
        told = b""
        try:
            while told.count(b"\n") < 12:
                told += os.read(read, 100)
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        while more := os.read(read, 65536):
            told += more
        os.close(read)
        acknowledged |= set(map(int, told.split()))
        last = max(acknowledged)
        with HierarchicalMemory.open(path, **options) as memory:  # nothing is locked
            memory.check()
            kept = [int(e.text[5:].split("x")[0]) for e in memory.episodic.episodes()]
            assert kept == list(range(len(kept)))
            assert len(kept) - 1 in (last, last + 1)
            related = memory.semantic.relations(predicate="uses")
            # A message that a kill cut short may be an episode without its relation.
            assert acknowledged <= {int(r.subject[5:-1]) for r in related} <= set(kept)
            window = [int(m.content[5:].split("x")[0]) for m in memory.working]
            assert window == sorted(window)
            assert {n for n in acknowledged if n >= window[0]} <= set(window)
            assert window[-1] in (last, last + 1)
            said = len(kept)
