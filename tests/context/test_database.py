"""The SQLite file under the stores: transactions, damage, fork, kill -9."""

import os
import signal
import sqlite3
import sys
import threading

import pytest

from ctxpool.context._database import Database
from ctxpool.errors import StoreClosedError, StoreError

KIND = 0x63747801
SCHEMA = "CREATE TABLE t (k INTEGER PRIMARY KEY, v TEXT);\nCREATE INDEX tv ON t (v)"


def opened(path, **settings):
    return Database(path, **{"kind": KIND, "version": 1, "schema": SCHEMA} | settings)


def put(database, key, value="x"):
    with database.write() as connection:
        connection.execute("INSERT INTO t VALUES (?, ?)", (key, value))


def keys(database):
    with database.read() as connection:
        return [k for (k,) in connection.execute("SELECT k FROM t ORDER BY k")]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.db"


def test_what_is_written_is_there_again(path):
    with opened(path) as database:
        put(database, 1)
        assert keys(database) == [1]
    with opened(path, durable=True) as database:
        assert keys(database) == [1]
        assert database.nbytes > 0
        database.check()


def test_a_transaction_is_whole_or_not(path):
    with opened(path) as database:

        def fail():
            with database.write() as connection:
                connection.execute("INSERT INTO t VALUES (1, 'x')")
                with database.write():  # a part of the outer one
                    connection.execute("INSERT INTO t VALUES (2, 'x')")
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        assert keys(database) == []
        put(database, 3)
        with pytest.raises(sqlite3.IntegrityError):
            put(database, 3)
        assert keys(database) == [3]


def test_what_is_closed_says_so(path):
    database = opened(path)
    database.close()
    database.close()
    with pytest.raises(StoreClosedError, match="closed"):
        keys(database)


@pytest.mark.parametrize(
    ("settings", "says"),
    [({"kind": KIND + 1}, "not one of this kind"), ({"version": 2}, "version 1")],
)
def test_other_files_are_refused_and_left_alone(path, settings, says):
    with opened(path) as database:
        put(database, 1)
    with pytest.raises(StoreError, match=says):
        opened(path, **settings)
    with opened(path) as database:
        assert keys(database) == [1]


@pytest.mark.parametrize(
    "content", [b"no database" * 100, b"SQLite format 3\0" + b"x" * 99]
)
def test_no_database(path, content):
    path.write_bytes(content)
    with pytest.raises(StoreError, match="damaged or no database"):
        opened(path)
    assert path.read_bytes() == content


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(StoreError, match="can't be opened"):
        opened(tmp_path / "none" / "file.db")


def test_damage_is_found(path):
    with opened(path) as database:
        for n in range(2000):
            put(database, n, "value" * 10)
    data = bytearray(path.read_bytes())
    data[8192:16384] = b"\xee" * 8192
    path.write_bytes(data)
    with opened(path) as database, pytest.raises(StoreError):
        database.check()


def test_threads_wait_for_one_another(path):
    with opened(path) as database:

        def work(start):
            for n in range(start, start + 50):
                put(database, n)

        threads = [threading.Thread(target=work, args=(100 * n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(keys(database)) == 200


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_opens_it_anew(path):
    with opened(path) as database:
        put(database, 1)
        with database.write():  # the parent's lock is held while it forks
            pid = os.fork()
            if pid == 0:
                try:
                    os._exit(0 if keys(database) == [1] else 1)
                finally:
                    os._exit(2)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        put(database, 2)
        assert keys(database) == [1, 2]


@pytest.mark.skipif(sys.platform == "win32", reason="needs kill -9")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_killed_at_any_time_it_keeps_what_was_acknowledged(path):
    opened(path).close()
    for _ in range(5):
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                with opened(path) as database:
                    n = max([*keys(database), 0])
                    while True:
                        n += 1
                        put(database, n)
                        os.write(write, b"%d\n" % n)
            finally:
                os._exit(1)
        os.close(write)
        told = b""
        while told.count(b"\n") < 20:
            told += os.read(read, 100)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        while more := os.read(read, 65536):
            told += more
        os.close(read)
        last = int(told.split()[-1])
        with opened(path) as database:
            database.check()
            found = keys(database)
            assert found == list(range(1, len(found) + 1))
            assert len(found) - last in (0, 1)


def test_it_knows_when_another_one_wrote(path):
    with opened(path) as one, opened(path) as two:

        def moved(database):
            with database.read() as connection:
                return database.moved(connection)

        assert moved(one)
        assert not moved(one)
        put(one, 1)
        assert not moved(one)
        put(two, 2)
        assert moved(one)
        assert not moved(one)


def test_what_is_purged_is_in_no_file(path):
    with opened(path) as database:
        put(database, 1, "xylophone")
        with database.write() as connection:
            connection.execute("DELETE FROM t")
        assert database.purge()
        for file in path.parent.iterdir():
            assert b"xylophone" not in file.read_bytes()
        with database.write():
            assert not database.purge()  # not now


def test_a_copy(path):
    with opened(path) as database:
        put(database, 1)
        copy = path.with_name("copy.db")
        database.copy(copy)
        with pytest.raises(StoreError, match="exist"):
            database.copy(copy)
    with opened(copy) as database:
        assert keys(database) == [1]
