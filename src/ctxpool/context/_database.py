"""One SQLite file of ours: opened, checked, written to by whole transactions."""

import os
import sqlite3
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import DamagedStoreError, StoreClosedError, StoreError
from ._closing import Closing

__all__ = ["Database"]

_all: weakref.WeakSet["Database"] = weakref.WeakSet()


def _renew_locks() -> None:
    for database in list(_all):
        database._lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    # Whoever held a lock in the parent does not exist in the child.
    os.register_at_fork(after_in_child=_renew_locks)


class Database(Closing):
    """A connection to *path*, for all threads.

    A transaction that :meth:`write` has left survives ``kill -9``; with *durable*, a
    loss of power, too, at the price of an fsync each.

    Parameters
    ----------
    path : path or ":memory:"
        Made where there is no such file.
    kind : int
        What the file holds, SQLite's application_id.
    version : int
        Of the schema.
    schema : str
        The statements that make the tables.
    durable : bool
        fsync at each commit.
    timeout : float
        Seconds to wait for another process that writes.

    Raises
    ------
    StoreError
        The file is damaged, or something else, or of another version. It is left
        as it is.

    Notes
    -----
    **Thread-safety.** One transaction at a time; threads wait for one another. A
    forked child opens the file anew when it first uses it.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        kind: int,
        version: int,
        schema: str,
        durable: bool = False,
        timeout: float = 10.0,
    ) -> None:
        self.path = os.fspath(path)
        self._kind, self._version, self._schema = kind, version, schema
        self._durable, self._timeout = durable, timeout
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._looked: tuple[sqlite3.Connection | None, int] = (None, 0)
        self._inherited: list[sqlite3.Connection] = []
        self._connection: sqlite3.Connection | None = self._open()
        _all.add(self)

    def _open(self) -> sqlite3.Connection:
        try:
            connection = sqlite3.connect(
                self.path,
                timeout=self._timeout,
                isolation_level=None,  # transactions are begun here, not guessed
                check_same_thread=False,  # there is a lock
                cached_statements=256,
            )
        except sqlite3.OperationalError as error:
            raise StoreError(f"{self.path!r} can't be opened: {error}") from error
        try:
            self._prepare(connection)
        except sqlite3.DatabaseError as error:
            connection.close()
            raise DamagedStoreError(
                f"{self.path!r} is damaged or no database: {error}. It was left as it "
                f"is; move it away to begin anew"
            ) from error
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        def pragma(name: str) -> int:
            return int(connection.execute(f"PRAGMA {name}").fetchone()[0])

        connection.execute(
            f"PRAGMA synchronous = {'FULL' if self._durable else 'NORMAL'}"
        )
        tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
        if tables == 0:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("BEGIN IMMEDIATE")  # two may be making it at once
            if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
                connection.execute("ROLLBACK")
            else:
                connection.execute(f"PRAGMA application_id = {self._kind}")
                connection.execute(f"PRAGMA user_version = {self._version}")
                for statement in self._schema.split(";\n"):
                    connection.execute(statement)
                connection.execute("COMMIT")
        if pragma("application_id") != self._kind:
            raise StoreError(f"{self.path!r} is a database, but not one of this kind")
        if (version := pragma("user_version")) != self._version:
            raise StoreError(
                f"{self.path!r} is of version {version}, and this ctxpool reads "
                f"version {self._version}"
            )
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA secure_delete = ON")  # what is deleted is zeroed

    def _current(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StoreClosedError(f"{self.path!r} was closed")
        if self._pid != os.getpid() and self.path != ":memory:":
            # SQLite forbids the parent's connection here, and to close it too.
            self._inherited.append(self._connection)
            self._connection = self._open()
            self._pid = os.getpid()
        return self._connection

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """The connection, for queries, by this thread alone."""
        with self._lock:
            try:
                yield self._current()
            except sqlite3.DatabaseError as error:
                raise self._told(error) from error

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """One transaction: done when the block ends, undone when it raises."""
        with self._lock:
            connection = self._current()
            if connection.in_transaction:  # part of the outer one
                yield connection
                return
            try:
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield connection
                    connection.execute("COMMIT")
                except BaseException:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                    raise
            except sqlite3.IntegrityError:
                raise  # what was asked for is wrong, not the file
            except sqlite3.DatabaseError as error:
                raise self._told(error) from error

    def _told(self, error: sqlite3.DatabaseError) -> Exception:
        # The low byte; codes of 3.11's own objects have none.
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        damaged = code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
        kind = DamagedStoreError if damaged else StoreError
        return kind(f"{self.path!r}: {error}")

    def check(self) -> None:
        """Read the whole file and verify its structure; O(its size).

        Raises
        ------
        StoreError
            It is damaged.
        """
        with self.read() as connection:
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise DamagedStoreError(f"{self.path!r} is damaged: {found}")

    def moved(self, connection: sqlite3.Connection) -> bool:
        """Whether the file may hold what another connection wrote since this was last
        asked, the first time included: what is kept in memory of it is then old.
        For inside :meth:`read` and :meth:`write`."""
        version = connection.execute("PRAGMA data_version").fetchone()[0]
        # A forked child's connection counts on its own.
        before, self._looked = self._looked, (connection, version)
        return before != self._looked

    def purge(self) -> bool:
        """Take what was deleted out of the journal, too; False while another process
        reads what it has."""
        with self.read() as connection:
            if connection.in_transaction:
                return False
            row = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            return not row[0]

    def copy(self, path: str | os.PathLike[str]) -> None:
        """Write all that it holds to a new file, as it is at one moment."""
        with self.read() as connection:
            connection.execute("VACUUM INTO ?", (os.fspath(path),))

    @property
    def nbytes(self) -> int:
        """The size of the file and its journal, in bytes."""
        if self.path == ":memory:":
            with self.read() as connection:
                pages = connection.execute("PRAGMA page_count").fetchone()[0]
                return int(pages) * int(
                    connection.execute("PRAGMA page_size").fetchone()[0]
                )
        files = (Path(self.path + suffix) for suffix in ("", "-wal"))
        return sum(file.stat().st_size for file in files if file.exists())

    def close(self) -> None:
        """Close the connection; a second time does nothing."""
        with self._lock:
            connection, self._connection = self._connection, None
            self._looked = None, 0
            if connection is not None and (
                self._pid == os.getpid() or self.path == ":memory:"
            ):
                connection.close()

    def __del__(self) -> None:
        # From 3.13 on an open connection that dies warns of it.
        if getattr(self, "_connection", None) is not None:
            self.close()
