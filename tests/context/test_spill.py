"""The store of spilled messages: lossless, found again, bounded; damage is told."""

import math
import os
import signal
import sqlite3
import subprocess
import sys
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ctxpool.context import Message, SpillStore, ToolCall, _text_index
from ctxpool.context.message_json import dump_message
from ctxpool.errors import StoreClosedError, StoreError, UnstorableMessageError


def user(content, id, **more):
    return Message("user", content, id=id, **more)


def ids(found):
    return [each.message.id for each in found]


@pytest.fixture(params=["fts5", "scan"])
def store(request, monkeypatch):
    """A store with SQLite's index, and one without."""
    if request.param == "scan":
        monkeypatch.setattr(_text_index, "_has_fts5", lambda connection: False)
    clock = iter(range(1000))
    with SpillStore(":memory:", clock=lambda: next(clock)) as store:
        yield store


CALL = Message(
    "assistant",
    "I look it up.",
    tool_calls=(ToolCall("c1", "read_file", '{"path": "/etc/hosts"}'),),
    parts=({"type": "thinking", "thinking": "hm", "signature": "s"},),
    metadata={"cost": 0.5},
    id="a1",
)
RESULT = Message("tool", "127.0.0.1 localhost", tool_call_id="c1", id="r1")


def test_messages_come_back_as_they_were(store):
    assert store.put([CALL, RESULT]) == []
    for message in (CALL, RESULT):
        back = store[message.id]
        assert back == message
        assert (back.id, back.metadata) == (message.id, message.metadata)
    assert store.get_many(["r1", "a1", "r1"]) == [RESULT, CALL, RESULT]
    assert "a1" in store
    assert "x" not in store
    assert 7 not in store
    assert len(store) == 2
    assert store.missing(["a1", "x", "\ud800"]) == {"x", "\ud800"}


def test_what_is_not_there(store):
    store.put([CALL])
    with pytest.raises(KeyError, match="'x'"):
        store["x"]
    assert store.get("x") is None
    assert store.get("x", 3) == 3
    assert store.get("a1") == CALL
    with pytest.raises(KeyError, match="'x', 'y'"):
        store.get_many(["x", "a1", "y"])
    assert store.get_many(["x", "a1"], partial=True) == [CALL]
    with pytest.raises(TypeError, match="an id must be text, not 7"):
        store.get_many([7])
    with pytest.raises(TypeError, match="a list of ids is needed, not 'a1'"):
        store.get_many("a1")


def test_originals(store):
    store.put([CALL, RESULT])
    summary = user("s", "s1", sources=("a1", "r1", "gone"))
    with pytest.raises(KeyError, match="'gone'"):
        store.originals(summary)
    assert store.originals(summary, partial=True) == [CALL, RESULT]
    assert store.originals(CALL) == [CALL]


def test_more_ids_than_a_statement_takes(store):
    many = [user(str(i), f"m{i}") for i in range(1200)]
    store.put(many)
    assert store.get_many(m.id for m in many) == many
    assert store.delete(m.id for m in many) == 1200
    assert len(store) == 0


def test_the_same_again_changes_nothing_and_another_is_refused(store):
    store.put([user("a", "m1"), user("a", "m1")])
    assert len(store) == 1
    with pytest.raises(
        UnstorableMessageError, match="another one has its id"
    ) as caught:
        store.put([user("new", "m2"), user("b", "m1")])
    assert caught.value.id == "m1"
    assert ids(store.history()) == ["m1"]  # nor was the first of the two put
    assert store["m1"].content == "a"


def test_search(store):
    store.put(
        [
            user("The database uses port 5432.", "db"),
            user("Deploys happen on Tuesday.", "deploy"),
            user("retry_limit is 7 for /api/v2/users", "retry"),
            CALL,
            user("数据库在哪里?", "zh"),
            user("Ünïcode \ud800 wörds", "odd"),
        ]
    )
    assert ids(store.search("which port has the database?"))[0] == "db"
    assert ids(store.search("retry_limit"))[0] == "retry"
    assert ids(store.search("read_file"))[0] == "a1"  # a tool call's name
    assert ids(store.search("数据库")) == ["zh"]
    assert ids(store.search("wörds")) == ["odd"]
    assert ids(store.search("port deploys", 1, roles=["user"])) != []
    assert store.search("port", roles=["assistant"]) == []
    assert store.search("port", roles="tool") == []
    found = store.search("port 5432 database", since=0, until=0)
    assert found[0].at == 0.0
    assert found[0].score > 0
    assert store.search("port", since=1) == []
    assert store.search("port", 0) == []


def test_no_query_is_a_syntax_error(store):
    store.put([user("and or not near", "m1")])
    for query in (
        "",
        '"',
        "a AND",
        "NEAR(",
        "(",
        "*",
        "col:x",
        "-x",
        "'; DROP",
        "\0",
        "^",
    ):
        store.search(query)
    assert ids(store.search('"near" AND (')) == ["m1"]
    assert store.search("\ud800 ?!") == []
    store.search("word " * 10_000 + " ".join(map(str, range(10_000))))
    with pytest.raises(TypeError, match="a query must be text, not 7"):
        store.search(7)


@given(st.text(st.characters(exclude_categories=()), max_size=40))
def test_any_text_can_be_stored_and_asked_for(text):
    with SpillStore(":memory:") as store:
        store.put([user(text, "m1")])
        assert store["m1"].content == text
        store.search(text)
        assert store.delete(["m1"]) == 1
        assert store.search(text) == []
        store.check()


def test_history(store):
    for name in "abcd":
        store.put([user(name, name)])
    store.put([RESULT])
    assert ids(store.history()) == ["a", "b", "c", "d", "r1"]
    assert ids(store.history(since=1, until=2)) == ["b", "c"]
    assert ids(store.history(limit=2)) == ["d", "r1"]
    assert ids(store.history(roles=["tool"])) == ["r1"]
    assert ids(store.history(roles=[])) == []
    with pytest.raises(ValueError, match=r"role must be one of .*, not 'robot'"):
        store.history(roles=["robot"])
    with pytest.raises(TypeError, match="since must be seconds, not 'noon'"):
        store.history(since="noon")
    with pytest.raises(ValueError, match="limit must be from 0"):
        store.history(limit=-1)


def test_delete_and_clear(store):
    store.put([user(f"word{i}", f"m{i}") for i in range(4)])
    assert store.delete(["m1", "x", "m1"]) == 1
    assert store.search("word1") == []
    assert ids(store.search("word2")) == ["m2"]
    store.clear()
    assert (len(store), store.stats().bytes, store.search("word2")) == (0, 0, [])
    assert store
    store.put([user("again", "m1")])
    assert ids(store.search("again")) == ["m1"]


def test_the_oldest_go_to_keep_to_the_size():
    size = len(dump_message(user("xxxx", "m0")))
    with SpillStore(":memory:", max_bytes=3 * size) as store:
        assert store.put([user("xxxx", f"m{i}") for i in range(3)]) == []
        assert store.put([user("yyyy", "m3")]) == ["m0"]
        # Of more than there is room for, the newest stay.
        assert store.put([user("zzzz", f"n{i}") for i in range(4)]) == [
            *("m1", "m2", "m3"),
            "n0",
        ]
        assert ids(store.search("zzzz xxxx")) == ["n3", "n2", "n1"]
        stats = store.stats()
        assert (stats.messages, stats.bytes, stats.removed) == (3, 3 * size, 5)
        assert stats.as_dict()["max_bytes"] == 3 * size
        with pytest.raises(
            UnstorableMessageError, match="more than the store's max_by"
        ):
            store.put([user("x" * 1000, "big")])
        assert len(store) == 3


@pytest.mark.parametrize(
    ("settings", "error", "told"),
    [
        ({"max_bytes": 0}, ValueError, "max_bytes"),
        ({"max_bytes": "much"}, ValueError, "'much'"),
        ({"clock": 7}, TypeError, "clock must be a callable, not 7"),
    ],
    ids=["zero", "text", "clock"],
)
def test_wrong_settings(settings, error, told):
    with pytest.raises(error, match=told):
        SpillStore(":memory:", **settings)


def test_a_file_is_there_again(tmp_path):
    path = tmp_path / "spill.db"
    with SpillStore(path) as store:
        store.put([CALL, RESULT])
    with SpillStore(path, durable=True) as store:
        assert store.get_many(["a1", "r1"]) == [CALL, RESULT]
        assert ids(store.search("localhost")) == ["r1"]
        store.check()
        stats = store.stats()
        assert stats.file_bytes > stats.bytes > 0
    with pytest.raises(StoreClosedError):
        store["a1"]
    assert repr(store) == f"SpillStore({str(path)!r})"


def test_a_file_of_a_sqlite_without_fts5_is_indexed_later(tmp_path, monkeypatch):
    path = tmp_path / "spill.db"
    with SpillStore(path) as store:
        store.put([user("first word", "m1"), user("second word", "m2")])
    with monkeypatch.context() as patch:
        patch.setattr(_text_index, "_has_fts5", lambda connection: False)
        with SpillStore(path) as store:
            store.put([user("third word", "m3")])
            store.delete(["m1"])
            assert sorted(ids(store.search("word"))) == ["m2", "m3"]
    with SpillStore(path) as store:
        assert sorted(ids(store.search("word"))) == ["m2", "m3"]
        assert ids(store.search("third")) == ["m3"]


def damage(path, sql):
    with sqlite3.connect(path) as connection:
        connection.execute(sql)
    connection.close()


def test_a_damaged_message_is_told_and_the_others_are_whole(tmp_path):
    path = tmp_path / "spill.db"
    with SpillStore(path) as store:
        store.put([user("alpha one", "m1"), user("alpha two", "m2")])
    damage(
        path, "UPDATE messages SET body = replace(body, 'one', 'six') WHERE id = 'm1'"
    )
    with SpillStore(path) as store:
        for ask in (
            lambda: store["m1"],
            lambda: store.search("one"),
            lambda: store.history(),
            lambda: store.check(),
        ):
            with pytest.raises(StoreError, match="'m1' is damaged: its checksum"):
                ask()
        assert store["m2"].content == "alpha two"
        assert store.delete(["m1"]) == 1  # it can go
        assert ids(store.search("alpha one")) == ["m2"]
        store.check()


def test_a_damaged_message_without_an_index_does_not_close_the_store(
    tmp_path, monkeypatch
):
    path = tmp_path / "spill.db"
    with monkeypatch.context() as patch:
        patch.setattr(_text_index, "_has_fts5", lambda connection: False)
        with SpillStore(path) as store:
            store.put([user("alpha one", "m1"), user("alpha two", "m2")])
        damage(path, "UPDATE messages SET crc = 1 WHERE id = 'm1'")
        with SpillStore(path) as store:
            assert ids(store.search("alpha")) == ["m2"]
    with SpillStore(path) as store:
        assert ids(store.search("alpha")) == ["m2"]
        assert store.delete(["m1", "m2"]) == 2
        store.check()


@pytest.mark.parametrize(
    "value", ["x'00ff'", "NULL", "'{}'"], ids=["blob", "null", "{}"]
)
def test_a_body_of_another_kind(tmp_path, value):
    path = tmp_path / "spill.db"
    with SpillStore(path) as store:
        store.put([user("a", "m1")])
    damage(path, f"UPDATE OR IGNORE messages SET body = {value}")
    with SpillStore(path) as store:
        if value != "NULL":  # which the schema refuses
            with pytest.raises(StoreError, match="'m1' is damaged"):
                store["m1"]


def test_no_store(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("not a database" * 100)
    with pytest.raises(StoreError, match=r"notes\.txt' is damaged or no database"):
        SpillStore(path)
    assert path.read_text() == "not a database" * 100
    with pytest.raises(StoreError, match="can't be opened"):
        SpillStore(tmp_path / "no" / "such" / "folder.db")


def test_bytes_overwritten_anywhere_are_told_or_harmless(tmp_path):
    path = tmp_path / "spill.db"
    kept = [user(f"text number {i} " * 20, f"m{i}") for i in range(40)]
    with SpillStore(path) as store:
        store.put(kept)
    whole = path.read_bytes()
    for at in range(100, len(whole), len(whole) // 25):
        path.write_bytes(whole[:at] + b"\x5a" * 64 + whole[at + 64 :])
        try:
            with SpillStore(path) as store:
                for message in kept:
                    assert store.get(message.id) in (message, None)
                store.search("number 7")
                store.check()
        except StoreError:
            pass


CHILD = """
import sys
from ctxpool.context import Message, SpillStore
store = SpillStore(sys.argv[1])
for i in range(100_000):
    store.put([Message("user", f"fact {i}", id=f"m{i}")])
    print(i, flush=True)
"""


def test_kill_9_loses_nothing_that_was_put(tmp_path):
    path = tmp_path / "spill.db"
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, path], stdout=subprocess.PIPE, text=True
    )
    try:
        for line in child.stdout:
            if int(line) >= 50:
                break
        child.send_signal(signal.SIGKILL)
        last = max([50, *(int(line) for line in child.stdout if line.endswith("\n"))])
        child.wait(30)
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
    with SpillStore(path) as store:
        store.check()
        assert len(store.get_many(f"m{i}" for i in range(last + 1))) == last + 1
        assert ids(store.search(f"fact {last}", 1)) == [f"m{last}"]


def test_a_clock_that_fails_adds_nothing():
    times = [math.nan, math.inf, 5.0]
    with SpillStore(":memory:", clock=lambda: times.pop(0)) as store:
        for told in ("nan", "inf"):
            with pytest.raises(ValueError, match=f"seconds, not {told}"):
                store.put([user("a", "m1")])
        store.put([user("a", "m1")])
        with pytest.raises(IndexError):
            store.put([user("b", "m2")])
        assert [(found.at, found.message.id) for found in store.history()] == [
            (5, "m1")
        ]


def test_threads_share_a_store(tmp_path):
    errors = []
    with SpillStore(tmp_path / "spill.db") as store:
        barrier = threading.Barrier(4)

        def work(n):
            try:
                barrier.wait(10)
                for i in range(25):
                    store.put([user(f"thread{n} item{i}", f"{n}-{i}")])
                    assert store[f"{n}-{i}"].content == f"thread{n} item{i}"
                    store.search("thread1", 3)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not errors
        assert len(store) == 100


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_goes_on_with_it(tmp_path):
    with SpillStore(tmp_path / "spill.db") as store:
        store.put([user("parent", "p")])
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                store.put([user("child", "c")])
                code = 0 if store["p"].content == "parent" else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert store["c"].content == "child"


class Model(RuleBasedStateMachine):
    """A store with a bound beside a dict in order."""

    def __init__(self):
        super().__init__()
        self.now = 0
        self.store = SpillStore(":memory:", max_bytes=400, clock=lambda: self.now)
        self.model = {}

    names = st.integers(0, 12)

    @rule(some=st.lists(names, max_size=5), size=st.integers(0, 60))
    def put(self, some, size):
        self.now += 1
        batch = [user("w" * (n * size // 12), f"m{n}") for n in some]
        want = dict(self.model)
        clash = any(want.setdefault(m.id, m) != m for m in batch)
        if clash:
            with pytest.raises(UnstorableMessageError):
                self.store.put(batch)
            return
        removed = []
        while sum(len(dump_message(m)) for m in want.values()) > 400:
            removed.append(next(iter(want)))
            del want[removed[-1]]
        assert self.store.put(batch) == removed
        self.model = want

    @rule(some=st.lists(names, max_size=5))
    def delete(self, some):
        there = {f"m{n}" for n in some} & self.model.keys()
        assert self.store.delete(f"m{n}" for n in some) == len(there)
        for id in there:
            del self.model[id]

    @invariant()
    def same(self):
        assert ids(self.store.history()) == list(self.model)
        stats = self.store.stats()
        assert stats.bytes == sum(len(dump_message(m)) for m in self.model.values())

    def teardown(self):
        self.store.check()
        self.store.close()


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=25, stateful_step_count=15)
