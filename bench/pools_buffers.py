"""Real buffers: receives, pickles and files through pool blocks, beside their peers.

Method. Each server is a process of its own, all of them at once; one client, in this
process, has connections to each and asks them in turns, the order rotating. CPU is
the server's, by the clock of its process; latencies are the client's. With one
connection the server sleeps between two messages, and falling asleep and waking up are
most of what it pays; with 16 that are asked at once, it is busy. Pickles and
files: the contenders of a section run in turns in one process; memory is measured in
a process for each. Ratios are medians of the rounds' own ratios.

Bias. What asyncio's Protocol pays for is malloc's way with the 256 KiB that it asks
for on each read: mapped, cut and unmapped every time, until something larger was freed
once in the process, which raises malloc's threshold for good. Both are shown: a
process that does nothing else ("Protocol"), and one that did ("Protocol, raised").
"""

import gc
import os
import pickle
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from bar import Bar
from fresh import in_a_new_process
from section import Findings, Section

from ctxpool import BlockPool
from ctxpool.pools import read_blocks
from ctxpool.pools.pickling import dump, load

__all__ = ["peak", "sections"]

KIB, MIB = 1 << 10, 1 << 20
HERE = Path(__file__).parent
OURS = "ctxpool"

# -- servers ---------------------------------------------------------------------------

ECHOES = ("Protocol", "Protocol, raised", "Streams", "Streams, raised", "fixed buffer")
FRAMES = (*ECHOES, "bytearray each")
MINE = ("ctxpool Protocol", "ctxpool Streams")


class Server:
    def __init__(self, name: str, size: int, connections: int) -> None:
        command = [sys.executable, str(HERE / "echo_server.py"), name, str(size)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        port = self.process.stdout.readline()
        if not port:
            raise RuntimeError(f"{name}: the server did not start")
        self.sockets = []
        for _ in range(connections):
            connected = socket.create_connection(("127.0.0.1", int(port)), timeout=60)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.sockets.append(connected)
        # The clock of another process (clock_getcpuclockid).
        self.clock = (~self.process.pid << 3) | 2

    def ask(self, message: bytes, answer: int, n: int, out: list[int]) -> float:
        """us of the server's CPU for a round trip; the client's ns go to *out*."""
        now, trips = time.perf_counter_ns, n // len(self.sockets)
        before = time.clock_gettime_ns(self.clock)
        for _ in range(trips):
            start = now()
            for connected in self.sockets:
                connected.sendall(message)
            for connected in self.sockets:
                left = answer
                while left:
                    got = len(connected.recv(65536))
                    left -= got or sys.exit("the server has hung up")
            out.append(now() - start)
        used = time.clock_gettime_ns(self.clock) - before
        return used / trips / len(self.sockets) / 1e3

    def close(self) -> None:
        for connected in self.sockets:
            connected.close()
        self.process.kill()
        self.process.communicate()


def served(
    names: tuple[str, ...],
    size: int,
    frames: bool,
    trips: int,
    rounds: int,
    connections: int = 1,
) -> list[dict[str, Any]]:
    message, answer = bytes(size), 1 if frames else size
    with ExitStack() as stack:
        servers = {}
        for name in names:
            server = Server(name, size if frames else 0, connections)
            servers[name] = server
            stack.callback(server.close)
            server.ask(message, answer, trips, [])
        cpu: dict[str, list[float]] = {name: [] for name in names}
        times: dict[str, list[int]] = {name: [] for name in names}
        for turn in range(rounds):
            at = turn % len(names)
            for name in names[at:] + names[:at]:
                cpu[name].append(servers[name].ask(message, answer, trips, times[name]))
    return [
        {
            "name": name,
            "cpu_us": statistics.median(cpu[name]),
            "to_protocol": paired(cpu[name], cpu["Protocol"]),
            "to_fixed": paired(cpu[name], cpu["fixed buffer"]),
            **tails(times[name]),
        }
        for name in names
    ]


def paired(mine: list[float], other: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(mine, other, strict=True))


def tails(ns: list[int]) -> dict[str, float]:
    p50, p999 = (float(x) / 1e3 for x in np.percentile(ns, (50, 99.9)))
    return {"p50_us": p50, "p99.9_us": p999, "max_us": max(ns) / 1e3}


def server_findings(rows: list[dict[str, Any]], what: str, frames: bool) -> Findings:
    lines = [
        f"{'us':20}{'server CPU':>12}{'to Protocol':>13}{'to fixed':>10}"
        f"{'p50':>11}{'p99.9':>11}{'max':>11}"
    ]
    for row in rows:
        lines.append(
            f"{row['name']:20}{row['cpu_us']:12,.1f}{row['to_protocol']:12.2f}x"
            f"{row['to_fixed']:9.2f}x{row['p50_us']:11,.1f}{row['p99.9_us']:11,.1f}"
            f"{row['max_us']:11,.1f}"
        )
    limit = {"ctxpool Protocol": 0.5, "ctxpool Streams": 0.8}
    bars = [
        Bar(
            f"{row['name']}: {what}, server CPU to asyncio's Protocol",
            row["to_protocol"],
            limit[row["name"]],
        )
        for row in rows
        if row["name"] in limit and not frames
    ]
    return Findings("\n".join(lines), rows, bars)


# -- in this process -------------------------------------------------------------------


def in_turns(
    contenders: dict[str, Callable[[list[int]], None]], rounds: int
) -> dict[str, tuple[list[float], list[int]]]:
    """For each: ns of whole rounds, and of the single operations it noted itself."""
    names = list(contenders)
    found: dict[str, tuple[list[float], list[int]]] = {n: ([], []) for n in names}
    gc.collect()
    gc.disable()
    try:
        for turn in range(rounds + 1):  # the first warms up
            at = turn % len(names)
            for name in names[at:] + names[:at]:
                single: list[int] = []
                start = time.perf_counter_ns()
                contenders[name](single)
                if turn:
                    found[name][0].append(time.perf_counter_ns() - start)
                    found[name][1].extend(single)
    finally:
        gc.enable()
    return found


def local_findings(
    found: dict[str, tuple[list[float], list[int]]],
    peer: str,
    extra: dict[str, dict[str, float]],
    bar: Callable[[list[dict[str, Any]]], list[Bar]],
) -> Findings:
    rows = [
        {
            "name": name,
            "round_ms": statistics.median(whole) / 1e6,
            "to_peer": paired(whole, found[peer][0]),
            **tails(single),
            **extra.get(name, {}),
        }
        for name, (whole, single) in found.items()
    ]
    lines = [
        f"{'':24}{'round':>12}{'to ' + peer:>20}{'p50 us':>11}{'p99.9 us':>11}"
        f"{'max us':>11}{'RSS':>11}"
    ]
    for row in rows:
        memory = f"{row['rss_mib']:7.1f} MiB" if "rss_mib" in row else "-"
        lines.append(
            f"{row['name']:24}{row['round_ms']:9.1f} ms{row['to_peer']:19.2f}x"
            f"{row['p50_us']:11,.1f}{row['p99.9_us']:11,.1f}{row['max_us']:11,.1f}"
            f"{memory:>11}"
        )
    return Findings("\n".join(lines), rows, bar(rows))


def pickles(count: int, size: int, rounds: int, times: int) -> Findings:
    """Read and unpickle a dict of arrays; the newest four are kept."""
    obj = {f"array {i}": np.full(size, i % 256, np.uint8) for i in range(count)}
    total = count * (size + 64) + 64 * KIB
    pool = BlockPool(min(total, 8 * MIB), 6 * max(1, -(-total // (8 * MIB))) + 2)
    with tempfile.TemporaryDirectory() as folder:
        plain, beside, framed = (Path(folder, name) for name in ("p", "b", "f"))
        plain.write_bytes(pickle.dumps(obj, 5))
        buffers: list[pickle.PickleBuffer] = []
        data = pickle.dumps(obj, 5, buffer_callback=buffers.append)
        with beside.open("wb") as file:
            file.write(data)
            file.writelines(b.raw() for b in buffers)
        with framed.open("wb") as file:
            dump(obj, file)

        def in_band() -> Any:
            with plain.open("rb", 0) as file:
                return pickle.load(file)

        def bytearrays() -> Any:
            with beside.open("rb", 0) as file:
                head, made = file.read(len(data)), []
                for _ in range(count):
                    made.append(bytearray(size))
                    file.readinto(made[-1])
                return pickle.loads(head, buffers=made)

        def blocks() -> Any:
            with framed.open("rb", 0) as file:
                return load(file, pool)

        def repeated(work: Callable[[], Any]) -> Callable[[list[int]], None]:
            kept: deque[Any] = deque(maxlen=4)

            def run(out: list[int]) -> None:
                now = time.perf_counter_ns
                for _ in range(times):
                    start = now()
                    kept.append(work())
                    out.append(now() - start)

            return run

        contenders = {
            "pickle in band": repeated(in_band),
            "pickle 5, bytearrays": repeated(bytearrays),
            "ctxpool load": repeated(blocks),
        }
        found = in_turns(contenders, rounds)
    return local_findings(found, "pickle 5, bytearrays", {}, lambda rows: [])


READ = MIB


def consume(chunk: Any) -> None:
    np.bitwise_xor.reduce(np.frombuffer(chunk, np.uint64))


def file_read(path: str) -> Iterator[Any]:
    with open(path, "rb", 0) as file:
        while chunk := file.read(READ):
            yield chunk


def file_readinto(path: str) -> Iterator[Any]:
    """One buffer: nobody may keep what it had."""
    buffer = bytearray(READ)
    with open(path, "rb", 0) as file:
        while n := file.readinto(buffer):
            yield memoryview(buffer)[:n]


def file_mmap(path: str) -> Iterator[Any]:
    import mmap

    with open(path, "rb") as file:
        whole = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        for at in range(0, len(whole), READ):
            yield whole[at : at + READ]


def file_blocks(path: str) -> Iterator[Any]:
    return read_blocks(path, block_size=READ, in_flight=6)


def file_ahead(path: str) -> Iterator[Any]:
    return read_blocks(path, block_size=READ, in_flight=8, read_ahead=2)


READERS = {
    "file.read": file_read,
    "readinto one buffer": file_readinto,
    "mmap": file_mmap,
    "ctxpool read_blocks": file_blocks,
    "ctxpool, read_ahead=2": file_ahead,
}


def high_water() -> float:
    """MiB. Not ru_maxrss: that begins with the parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def peak(name: str, path: str, kept: int) -> float:
    """Run in a new process: MiB by which reading raises the peak of resident memory."""
    before = high_water()
    live: deque[Any] = deque(maxlen=kept)
    for chunk in READERS[name](path):
        consume(chunk)
        live.append(chunk)
    return high_water() - before


@contextmanager
def big_file(size: int) -> Iterator[str]:
    with tempfile.NamedTemporaryFile() as file:
        for _ in range(size // (4 * MIB)):
            file.write(os.urandom(4 * MIB))
        file.flush()
        yield file.name


def files(size: int, kept: int, rounds: int) -> Findings:
    with big_file(size) as path:

        def reading(read: Callable[[str], Iterator[Any]]) -> Callable[..., None]:
            def run(out: list[int]) -> None:
                live: deque[Any] = deque(maxlen=kept)
                now = time.perf_counter_ns
                start = now()
                for chunk in read(path):
                    consume(chunk)
                    live.append(chunk)
                    out.append(now() - start)
                    start = now()

            return run

        names = [n for n in READERS if not kept or n != "readinto one buffer"]
        found = in_turns({name: reading(READERS[name]) for name in names}, rounds)
        extra = {}
        for name in names:
            (grown,) = in_a_new_process(
                "from pools_buffers import peak\n"
                f"report(peak({name!r}, {path!r}, {kept}))"
            )
            extra[name] = {"rss_mib": grown}

    def bar(rows: list[dict[str, Any]]) -> list[Bar]:
        return [
            Bar(
                f"{row['name']}: {size // MIB} MiB, {kept} kept, peak memory it adds",
                row["rss_mib"],
                12,
                "MiB",
            )
            for row in rows
            if row["name"].startswith(OURS)
        ]

    return local_findings(found, "file.read", extra, bar)


# -- all of it -------------------------------------------------------------------------


def sections(quick: bool, progress: Callable[[str], None]) -> Iterator[Section]:
    rounds = 3 if quick else 15
    for size, connections in product((64, KIB, 4 * KIB), (1, 16)):

        def echo(size: int = size, connections: int = connections) -> Findings:
            progress(f"echo of {size} bytes")
            trips = 200 if quick else 2_000
            rows = served((*ECHOES, *MINE), size, False, trips, rounds, connections)
            what = f"echo of {size:,} bytes, {connections} at once"
            return server_findings(rows, what, False)

        yield Section(f"echo: {size:,} bytes, {connections} at once", echo)
    for size in (64 * KIB, MIB):

        def framed(size: int = size) -> Findings:
            progress(f"messages of {size} bytes")
            trips = 20 if quick else 32 * MIB // size
            rows = served((*FRAMES, MINE[1]), size, True, trips, rounds)
            return server_findings(rows, f"messages of {size:,} bytes", True)

        yield Section(f"receive: messages of {size:,} bytes, 4 kept", framed)
    for count, size in ((200, 4 * KIB), (8, MIB), (1, 32 * MIB)):

        def unpickle(count: int = count, size: int = size) -> Findings:
            progress(f"{count} arrays of {size}")
            return pickles(count, size, rounds, 3 if quick else 20)

        yield Section(f"pickle: {count} arrays of {size:,} bytes, 4 kept", unpickle)
    for kept in (0, 4):

        def stream(kept: int = kept) -> Findings:
            progress("files")
            return files((16 if quick else 512) * MIB, kept, 3 if quick else 7)

        yield Section(f"file: blocks of 1 MiB from the page cache, {kept} kept", stream)
