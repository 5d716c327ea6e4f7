"""The episodes' file: restarts, threads, forks, full disks, damage, kill -9."""

import os
import signal
import sqlite3
import sys
import threading

import numpy as np
import pytest

from ctxpool.context import EpisodicMemory
from ctxpool.errors import DamagedStoreError, StoreClosedError, StoreError


class Letters:
    """A vector of how often each of eight letters is in a text."""

    name = "letters"
    dimensions = 8

    def embed(self, texts):
        made = np.array([[t.count(c) for c in "abcdefgh"] for t in texts], np.float32)
        return made.reshape(len(texts), 8)


@pytest.fixture
def memory():
    with EpisodicMemory(clock=lambda: 0.0) as made:
        yield made


def texts(found):
    return [one.episode.text for one in found]


def test_a_restart_changes_no_answer(tmp_path):
    def asked(memory):
        found = memory.recall("text 7 of many", 5, at=50.0, count_use=False)
        return [(one.episode, one.similarity, one.score) for one in found]

    path = tmp_path / "e.db"
    with EpisodicMemory(path, clock=lambda: 50.0) as memory:
        memory.remember_many([f"text {n} of many" for n in range(50)])
        memory.recall("text 7")
        before = asked(memory)
    memory.close()
    with pytest.raises(StoreClosedError):
        memory.recall("x")
    with EpisodicMemory(path, clock=lambda: 50.0) as memory:
        assert asked(memory) == before
        assert before[0][0].uses == 1
        memory.check()


def test_two_at_once(tmp_path):
    path = tmp_path / "e.db"
    with EpisodicMemory(path) as one, EpisodicMemory(path) as two:
        one.remember("red apples", id="1")
        assert texts(two.recall("apples")) == ["red apples"]
        two.remember("green apples", id="2")
        two.remember("red apples")
        one.remember("more apples")
        assert len(one) == len(two) == 3
        one.forget("1")
        assert sorted(texts(two.recall("apples"))) == ["green apples", "more apples"]


def test_threads(memory):
    errors = []

    def work(n):
        try:
            for i in range(30):
                memory.remember(f"text {i} of thread {n % 2}", id=f"{n % 2}-{i}")
                memory.recall(f"text {i}", 3)
                if i % 7 == 0:
                    memory.forget(f"{n % 2}-{i // 2}")
            memory.consolidate(older_than=0, limit=20)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(memory) == len(memory.episodes()) == memory.stats().items


def full(memory):
    """As if the disk had no room for another page."""
    with memory._store.database.read() as connection:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")


def test_a_full_disk(tmp_path):
    with EpisodicMemory(tmp_path / "e.db") as memory:
        memory.remember("the old text")
        full(memory)
        with pytest.raises(StoreError, match=r"e\.db.*full"):
            memory.remember("x" * 100_000)
        assert texts(memory.recall("the old text x")) == ["the old text"]
        assert len(memory) == len(memory.index) == 1
        memory.forget(memory.episodes()[0].id)
        assert len(memory) == 0


def test_uses_that_can_not_be_written(memory, monkeypatch):
    def full():
        raise StoreError("full")

    memory.remember("red apples")
    monkeypatch.setattr(memory._store, "write_uses", full)
    for _ in range(300):
        assert texts(memory.recall("apples")) == ["red apples"]
    monkeypatch.undo()
    memory.flush()
    with memory._store.database.read() as connection:
        assert connection.execute("SELECT uses FROM episode").fetchone() == (300,)


@pytest.mark.parametrize(
    "content", [b"no database" * 99, b"SQLite format 3\0" + b"x" * 99]
)
def test_a_damaged_file(tmp_path, content):
    (tmp_path / "e.db").write_bytes(content)
    with pytest.raises(DamagedStoreError, match=r"e\.db"):
        EpisodicMemory(tmp_path / "e.db")


def test_damaged_vectors(tmp_path):
    with EpisodicMemory(tmp_path / "e.db") as memory:
        memory.remember("abc")
    with sqlite3.connect(tmp_path / "e.db") as connection:
        connection.execute("UPDATE episode SET vector = x'00'")
    connection.close()
    with pytest.raises(DamagedStoreError, match="vectors of another length"):
        EpisodicMemory(tmp_path / "e.db")


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child(tmp_path):
    with EpisodicMemory(tmp_path / "e.db") as memory:
        memory.remember("red apples")
        pid = os.fork()
        if pid == 0:
            try:
                memory.remember("green apples")
                os._exit(0 if len(memory.recall("apples")) == 2 else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert len(memory.recall("apples")) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="needs kill -9")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_killed_at_any_time_it_keeps_what_was_acknowledged(tmp_path):
    path = tmp_path / "e.db"
    EpisodicMemory(path, embedder=Letters()).close()
    for round in range(3):
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                with EpisodicMemory(path, embedder=Letters()) as memory:
                    for n in range(10**6):
                        text = f"{round}:{n}"
                        memory.remember(text, id=text)
                        os.write(write, b"%d\n" % n)
                        if n % 3 == 2:
                            memory.forget(f"{round}:{n - 1}")
            finally:
                os._exit(1)
        os.close(write)
        try:
            told = b""
            while told.count(b"\n") < 15:
                told += os.read(read, 100)
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        while more := os.read(read, 65536):
            told += more
        os.close(read)
        last = int(told.split()[-1])
        with EpisodicMemory(path, embedder=Letters()) as memory:
            memory.check()
            kept = {e.id for e in memory.episodes() if e.id.startswith(f"{round}:")}
            certain = {f"{round}:{n}" for n in range(last + 1) if n % 3 != 1}
            assert certain <= kept
            gone = {f"{round}:{n - 1}" for n in range(2, last, 3)}
            assert not gone & kept
            assert len(memory.index) == len(memory)
