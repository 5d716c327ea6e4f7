"""Connections to PostgreSQL: ObjectPool beside asyncpg's own pool, on one server.

A server is made for the purpose, in a folder of its own, behind a Unix socket; nothing
is left of it. Both pools hold asyncpg's connections and have four of them. "reset" is
what asyncpg does on return, a query of its own; "no reset" takes it out of both, which
leaves what the pools themselves cost. With 16 tasks for four connections the server is
what all wait for. Contenders take turns in one process and one
loop, the order rotating. Needs the extra ``bench-pools`` and PostgreSQL's server.
"""

import asyncio
import contextlib
import importlib.util
import os
import pwd
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from glob import glob
from pathlib import Path
from typing import Any

from bar import Bar
from section import Findings, Section

from ctxpool import ObjectPool

__all__ = ["sections"]

MOST, TASKS = 4, 16
OURS, THEIRS, ANEW = "ObjectPool", "asyncpg.Pool", "a new connection"


def program(name: str) -> str | None:
    found = sorted(glob(f"/usr/lib/postgresql/*/bin/{name}"))
    return found[-1] if found else shutil.which(name)


@contextlib.contextmanager
def server() -> Iterator[dict[str, Any]]:
    """A running server, as arguments of asyncpg.connect()."""
    initdb, postgres = program("initdb"), program("postgres")
    assert initdb is not None
    assert postgres is not None
    # It refuses to run as root.
    user = "postgres" if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory() as folder:
        if user:
            os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
        data = Path(folder, "data")
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "user": user}
        quiet |= {"stderr": subprocess.DEVNULL, "cwd": folder}
        made = [initdb, "-D", data, "-A", "trust", "-U", "ctxpool", "--no-sync"]
        subprocess.run(made, check=True, **quiet)
        settings = (
            "listen_addresses=",
            "fsync=off",
            f"unix_socket_directories={folder}",
        )
        options = [part for setting in settings for part in ("-c", setting)]
        running = subprocess.Popen([postgres, "-D", data, *options], **quiet)
        try:
            yield {"host": folder, "user": "ctxpool", "database": "postgres"}
        finally:
            running.terminate()
            running.wait()


async def first_connection(where: dict[str, Any]) -> None:
    import asyncpg

    for _ in range(100):
        with contextlib.suppress(OSError, asyncpg.CannotConnectNowError):
            return await (await asyncpg.connect(**where)).close()
        await asyncio.sleep(0.1)
    raise RuntimeError("PostgreSQL did not start")


async def nothing(connection: Any) -> None:
    """In place of a reset, or of work."""


async def select(connection: Any) -> None:
    await connection.fetchval("select 1")


Step = Callable[[], Awaitable[None]]


def steps(
    pools: dict[str, Any], work: Callable[[Any], Awaitable[None]]
) -> dict[str, Step]:
    def step(pool: Any) -> Step:
        async def once() -> None:
            async with pool.acquire() as connection:
                await work(connection)

        return once

    return {name: step(pool) for name, pool in pools.items()}


async def alone(step: Step, n: int) -> list[int]:
    """ns of each of *n*, one after the other."""
    now, taken = time.perf_counter_ns, []
    for _ in range(n):
        start = now()
        await step()
        taken.append(now() - start)
    return taken


async def together(step: Step, n: int) -> list[int]:
    """ns of each of *n*, by tasks of which most have to wait for a connection."""
    parts = await asyncio.gather(*(alone(step, n // TASKS) for _ in range(TASKS)))
    return [taken for part in parts for taken in part]


async def in_turns(
    contenders: dict[str, Step],
    how: Callable[[Step, int], Awaitable[list[int]]],
    n: int,
    rounds: int,
) -> list[dict[str, Any]]:
    names = list(contenders)
    whole: dict[str, list[float]] = {name: [] for name in names}
    single: dict[str, list[int]] = {name: [] for name in names}
    for turn in range(rounds + 1):  # the first warms up
        at = turn % len(names)
        for name in names[at:] + names[:at]:
            few = max(n // 50, TASKS) if name == ANEW else n
            start = time.perf_counter_ns()
            taken = await how(contenders[name], few)
            if turn:
                whole[name].append((time.perf_counter_ns() - start) / len(taken))
                single[name] += taken
    rows = []
    for name in names:
        ordered = sorted(single[name])
        rows.append(
            {
                "name": name,
                "each_us": statistics.median(whole[name]) / 1e3,
                "to_asyncpg": statistics.median(
                    a / b for a, b in zip(whole[name], whole[THEIRS], strict=True)
                ),
                "p50_us": ordered[len(ordered) // 2] / 1e3,
                "p99_us": ordered[int(len(ordered) * 0.99)] / 1e3,
                "max_us": ordered[-1] / 1e3,
            }
        )
    return rows


async def compared(quick: bool) -> Findings:
    import asyncpg

    n, rounds = (160, 2) if quick else (1_600, 11)
    lines, rows, bars = [], [], []
    with server() as where:
        await first_connection(where)

        async def connect() -> Any:
            return await asyncpg.connect(**where)

        async def once_anew() -> None:
            connection = await connect()
            await select(connection)
            await connection.close()

        for resets in (False, True):
            reset = asyncpg.Connection.reset if resets else nothing
            sizes = {"min_size": MOST, "max_size": MOST}
            theirs = await asyncpg.create_pool(**where, **sizes, reset=reset)
            ours = ObjectPool(
                connect,
                max_size=MOST,
                reset=reset if resets else None,
                dispose=asyncpg.Connection.close,
            )
            pools = {OURS: ours, THEIRS: theirs}
            said = "reset" if resets else "no reset"
            cases = [
                ("nothing", "one task", steps(pools, nothing), alone),
                ("select 1", "one task", steps(pools, select), alone),
                ("select 1", f"{TASKS} tasks", steps(pools, select), together),
            ]
            for what, who, contenders, how in cases:
                if what == "select 1" and how is alone and resets:
                    contenders |= {ANEW: once_anew}
                title = f"{what}, {said}, {who}"
                lines.append(title)
                for row in await in_turns(contenders, how, n, rounds):
                    lines.append(
                        f"  {row['name']:18}{row['each_us']:10,.2f} us each"
                        f"{row['to_asyncpg']:8.2f} x asyncpg.Pool   p50 "
                        f"{row['p50_us']:9,.2f}  p99 {row['p99_us']:9,.2f}"
                        f"  max {row['max_us']:9,.2f}"
                    )
                    rows.append({"case": title, **row})
                    if row["name"] == OURS and how is alone:
                        bars.append(Bar(f"{title}, to asyncpg's", row["to_asyncpg"], 1))
            await theirs.close()
            await ours.aclose()
    return Findings("\n".join(lines), rows, bars)


def sections(quick: bool, progress: Callable[[str], None]) -> Iterator[Section]:
    def run() -> Findings:
        if not importlib.util.find_spec("asyncpg"):
            return Findings("asyncpg is not installed", [])
        if not (program("initdb") and program("postgres")):
            return Findings("there is no PostgreSQL server on this machine", [])
        progress("PostgreSQL")
        return asyncio.run(compared(quick))

    yield Section("objects: connections to PostgreSQL", run)
