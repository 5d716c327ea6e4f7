"""BlockReader: what comes out is what went in, however it was cut."""

import asyncio
import gc
import socket
import ssl
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxpool.errors import PoolTimeoutError
from ctxpool.pools.streams import (
    _StreamProtocol,
    open_connection,
    open_unix_connection,
    start_server,
    start_unix_server,
)


def run(coroutine):
    result = asyncio.run(asyncio.wait_for(coroutine, 20))
    gc.collect()
    return result


async def pair(pool, **options):
    """A reader, its writer, and the other end's socket."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    reader, writer = await open_connection(pool=pool, sock=ours, **options)
    return reader, writer, theirs


async def send(sock, data):
    await asyncio.get_running_loop().sock_sendall(sock, data)


async def end(writer, peer):
    peer.close()
    writer.close()
    await writer.wait_closed()


class Fed:
    """A reader that is fed by hand, through its protocol, without a socket."""

    class Transport:
        reading = True

        def is_closing(self):
            return False

        def is_reading(self):
            return self.reading

        def pause_reading(self):
            self.reading = False

        def resume_reading(self):
            self.reading = True

        def get_extra_info(self, name):
            return None

    def __init__(self, pool, limit=1 << 16):
        self.protocol = _StreamProtocol(pool, limit)
        self.transport = self.Transport()
        self.protocol.connection_made(self.transport)
        self.reader = self.protocol.reader

    async def feed(self, data):
        """As a loop does: as much as the buffer takes, while reading is not paused."""
        data = memoryview(data)
        while len(data):
            while not self.transport.reading:
                await asyncio.sleep(0)
            buffer = self.protocol.get_buffer(-1)
            n = min(len(buffer), len(data))
            buffer[:n] = data[:n]
            self.protocol.buffer_updated(n)
            data = data[n:]

    def end(self, error=None):
        if error is None:
            self.protocol.eof_received()
        reader = self.reader
        self.protocol.connection_lost(error)
        return reader


# -- each way of reading ---------------------------------------------------------------


def test_reads(impl):
    async def main():
        pool = impl.BlockPool(4096, 4)
        reader, writer, peer = await pair(pool)
        await send(peer, b"0123456789line\nabc--def--rest")
        assert bytes(await reader.read(2)) == b"01"
        assert bytes(await reader.readexactly(8)) == b"23456789"
        assert bytes(await reader.readline()) == b"line\n"
        assert bytes(await reader.readuntil(b"--")) == b"abc--"
        assert bytes(await reader.readuntil(b"--")) == b"def--"
        assert bytes(await reader.readany()) == b"rest"
        assert await reader.readexactly(0) == b""
        assert await reader.read(0) == b""
        await send(peer, b"tail")
        peer.shutdown(socket.SHUT_WR)
        assert bytes(await reader.read()) == b"tail"
        assert reader.stats().copied == 4
        assert reader.at_eof()
        assert await reader.read(5) == await reader.readany() == b""
        assert await reader.readline() == await reader.read() == b""
        stats = reader.stats()
        assert (stats.received, stats.copies, stats.heap_reads) == (33, 1, 0)
        assert "at its end" in repr(reader)
        await end(writer, peer)
        return pool

    assert run(main()).in_use == 0


def test_iteration_and_half_closed(impl):
    """The peer ends its half; ours still writes."""

    async def main():
        pool = impl.BlockPool(1024, 2, on_exhausted="wait")
        reader, writer, peer = await pair(pool)
        data = bytes(range(256)) * 100
        loop = asyncio.get_running_loop()
        sending = loop.create_task(send(peer, data))
        sending.add_done_callback(lambda task: peer.shutdown(socket.SHUT_WR))
        seen = bytearray()
        async for chunk in reader:
            assert not chunk.readonly
            seen += chunk
        assert seen == data
        writer.write(b"answer")
        await writer.drain()
        assert await loop.sock_recv(peer, 100) == b"answer"
        del chunk
        await end(writer, peer)
        return pool

    assert run(main()).in_use == 0


def test_no_copy(impl):
    """A message is where it was received, in a block of the pool."""

    async def main():
        pool = impl.BlockPool(1 << 16, 2)
        reader, writer, peer = await pair(pool)
        begin = pool.address(0)
        await send(peer, b"x" * 1000)
        head = await reader.readexactly(400)
        asyncio.get_running_loop().call_later(0.01, peer.send, b"y" * 1000)
        both = await reader.readexactly(1600)
        address = np.frombuffer(both, np.uint8).ctypes.data
        assert address == begin + 400, "pieces side by side are one"
        assert bytes(both) == b"x" * 600 + b"y" * 1000
        assert reader.stats().copied == 0
        assert pool.in_use == 1
        del head, both
        await end(writer, peer)
        return pool

    assert run(main()).in_use == 0


def test_a_long_message_goes_where_it_is_returned(impl):
    async def main():
        pool = impl.BlockPool(4096, 4)
        reader, writer, peer = await pair(pool)
        for n in (4096, 100_000):
            data = bytes(range(250)) * (n // 250 + 1)
            data = data[:n]
            await send(peer, data[:500])
            await asyncio.sleep(0.01)
            sending = asyncio.create_task(send(peer, data[500:]))
            assert bytes(await reader.readexactly(n)) == data
            await sending
        assert reader.stats().copied <= 1000
        await end(writer, peer)
        return pool

    assert run(main()).in_use == 0


def test_readexactly_into(impl):
    async def main():
        pool = impl.BlockPool(1024, 2)
        reader, writer, peer = await pair(pool)
        frame = np.zeros((100, 5), np.float64)
        sent = np.arange(500.0).reshape(100, 5)
        await send(peer, b"head" + sent.tobytes() + b"tail")
        assert bytes(await reader.readexactly(4)) == b"head"
        await reader.readexactly_into(frame)
        assert (frame == sent).all()
        assert bytes(await reader.readexactly(4)) == b"tail"
        await reader.readexactly_into(bytearray())
        with pytest.raises(TypeError, match="writable"):
            await reader.readexactly_into(b"abc")
        with pytest.raises(BufferError, match="contiguous"):
            await reader.readexactly_into(frame[:, 1])
        with pytest.raises(TypeError):
            await reader.readexactly_into("abc")
        await send(peer, b"abc")
        peer.close()
        with pytest.raises(asyncio.IncompleteReadError) as caught:
            await reader.readexactly_into(frame)
        assert (caught.value.partial, caught.value.expected) == (b"abc", 4000)
        await end(writer, peer)
        return pool

    assert run(main()).in_use == 0


def test_bad_arguments(impl):
    async def main():
        pool = impl.BlockPool(64, 2)
        reader, writer, peer = await pair(pool)
        with pytest.raises(ValueError, match="not -1"):
            await reader.readexactly(-1)
        with pytest.raises(ValueError, match="separator"):
            await reader.readuntil(b"")
        await end(writer, peer)
        with pytest.raises(ValueError, match="limit must be from 1"):
            await open_connection(pool=pool, limit=0, sock=None)

    run(main())


def test_incomplete(impl):
    async def main():
        pool = impl.BlockPool(64, 4)
        for n in (10, 1000):
            fed = Fed(pool)
            await fed.feed(b"abc")
            reader = fed.end()
            with pytest.raises(asyncio.IncompleteReadError) as caught:
                await reader.readexactly(n)
            assert (caught.value.partial, caught.value.expected) == (b"abc", n)
            assert reader.at_eof()
        fed = Fed(pool)
        await fed.feed(b"no end")
        reader = fed.end()
        with pytest.raises(asyncio.IncompleteReadError) as caught:
            await reader.readuntil(b"\n")
        assert caught.value.partial == b"no end"

    run(main())


def test_limit(impl):
    async def main():
        pool = impl.BlockPool(64, 8)
        fed = Fed(pool, limit=100)
        await fed.feed(b"x" * 150 + b"\nnext\n")
        for _ in range(2):
            with pytest.raises(asyncio.LimitOverrunError):
                await fed.reader.readline()
        assert bytes(await fed.reader.readexactly(151)) == b"x" * 150 + b"\n"
        assert bytes(await fed.reader.readline()) == b"next\n"

    run(main())


def test_a_slow_reader_stops_the_peer(impl):
    async def main():
        pool = impl.BlockPool(1024, 100)
        reader, writer, peer = await pair(pool, limit=2048)
        data = bytes(range(256)) * 4000
        sending = asyncio.create_task(send(peer, data))
        await asyncio.sleep(0.05)
        assert not sending.done()
        assert pool.in_use <= 6
        half = len(data) // 2
        assert bytes(await reader.readexactly(half)) == data[:half]
        assert bytes(await reader.readexactly(half)) == data[half:]
        await sending
        await end(writer, peer)

    run(main())


def test_a_message_longer_than_the_limit(impl):
    """In one block: the limit is for what nobody waits for."""

    async def main():
        pool = impl.BlockPool(1 << 16, 4)
        reader, writer, peer = await pair(pool, limit=1024)
        data = bytes(range(256)) * 256
        for _ in range(4):
            sending = asyncio.create_task(send(peer, data))
            got = await reader.readexactly(len(data))
            assert got == data
            await sending
        assert reader.stats().copied == 0
        del got
        await end(writer, peer)
        return pool

    assert run(main()).in_use == 0


def test_a_broken_connection(impl):
    """What came before is read first, then the error is raised."""

    async def main():
        pool = impl.BlockPool(64, 4)
        fed = Fed(pool)
        await fed.feed(b"abcdef")
        reader = fed.end(ConnectionResetError("gone"))
        assert bytes(await reader.readexactly(2)) == b"ab"
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(5)
        with pytest.raises(ConnectionResetError):
            await reader.readexactly(500)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        assert bytes(await reader.read(10)) == b"cdef"
        with pytest.raises(ConnectionResetError):
            await reader.read(1)
        with pytest.raises(ConnectionResetError):
            await reader.readany()
        assert isinstance(reader.exception(), ConnectionResetError)

    run(main())


def test_two_readers_at_once(impl):
    async def main():
        fed = Fed(impl.BlockPool(64, 4))
        task = asyncio.create_task(fed.reader.readexactly(10))
        await asyncio.sleep(0)
        for read in (fed.reader.readany(), fed.reader.readexactly(1000)):
            with pytest.raises(RuntimeError, match="another coroutine"):
                await read
        await fed.feed(b"0123456789")
        assert bytes(await task) == b"0123456789"

    run(main())


# -- any cut, any order of reads -------------------------------------------------------

reads = st.one_of(
    st.tuples(st.just("read"), st.integers(1, 200)),
    st.tuples(st.just("readany"), st.none()),
    st.tuples(st.just("readexactly"), st.integers(1, 300)),
    st.tuples(st.just("into"), st.integers(1, 300)),
    st.tuples(st.just("readuntil"), st.sampled_from([b"\n", b"ab", b"aab", b"\n\n"])),
)


@settings(max_examples=25)
@given(
    data=st.lists(st.sampled_from([b"a", b"b", b"\n", b"x" * 30, b"aab"]), max_size=60),
    cuts=st.lists(st.integers(1, 90), min_size=1, max_size=8),
    plan=st.lists(reads, min_size=1, max_size=6),
    blocks=st.integers(1, 4),
    block_size=st.sampled_from([16, 64, 200]),
    cancel=st.integers(0, 5),
)
def test_out_is_in(impl, data, cuts, plan, blocks, block_size, cancel):
    """Whatever the cuts, the reads, the pool's size, and who is cancelled meanwhile."""
    data = b"".join(data)

    async def main():
        pool = impl.BlockPool(block_size, blocks, on_exhausted="wait", timeout=0.001)
        fed = Fed(pool, limit=4096)

        async def feeding():
            at, turn = 0, 0
            while at < len(data):
                n = cuts[turn % len(cuts)]
                await fed.feed(data[at : at + n])
                at, turn = at + n, turn + 1
                await asyncio.sleep(0)
            fed.end()

        feeder = asyncio.create_task(feeding())
        reader, seen, turn = fed.reader, bytearray(), 0
        while not reader.at_eof():
            kind, n = plan[turn % len(plan)]
            turn += 1
            target = bytearray(n) if kind == "into" else None
            if kind == "into":
                read = reader.readexactly_into(target)
            elif kind == "readany":
                read = reader.readany()
            else:
                read = getattr(reader, kind)(n)
            task = asyncio.ensure_future(read)
            cancelled = cancel and turn % cancel == 0 and turn < 50
            if cancelled:
                for _ in range(turn % 3):
                    await asyncio.sleep(0)
                task.cancel()
            try:
                got = await task
            except asyncio.IncompleteReadError as error:
                got = error.partial
            except asyncio.CancelledError:
                assert cancelled
                continue
            got = target if kind == "into" and got is None else got
            if kind == "readexactly" and not reader.at_eof():
                assert len(got) == n
            if kind == "readuntil" and bytes(got).endswith(n):
                assert bytes(got).count(n) == 1 or n == b"\n\n" or len(n) > 1
            seen += got
            del got, task
        await feeder
        assert bytes(seen) == data
        assert reader.stats().received == len(data)
        return pool

    pool = run(main())
    assert pool.in_use == 0
    pool.check()


@pytest.mark.parametrize("kind", ["readany", "readexactly", "into", "readuntil", "all"])
def test_a_cancelled_read_loses_nothing(impl, kind):
    """Cancelled after each of the pieces that it waits for."""

    async def main():
        pool = impl.BlockPool(64, 3, on_exhausted="wait")
        data = bytes(range(1, 201))
        for pieces in range(5):
            fed = Fed(pool)
            reader, target = fed.reader, bytearray(200)
            coroutine = {
                "readany": reader.readany,
                "readexactly": lambda r=reader: r.readexactly(200),
                "into": lambda r=reader, t=target: r.readexactly_into(t),
                "readuntil": lambda r=reader: r.readuntil(bytes([200])),
                "all": reader.read,
            }[kind]()
            task = asyncio.create_task(coroutine)
            await asyncio.sleep(0)
            for i in range(pieces):
                await fed.feed(data[40 * i : 40 * i + 40])
                if kind != "readany":
                    await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            del task
            rest = asyncio.create_task(fed.feed(data[40 * pieces :]))
            assert bytes(await reader.readexactly(200)) == data
            await rest
            fed.end()
        return pool

    assert run(main()).in_use == 0


# -- a dry pool ------------------------------------------------------------------------


def test_a_message_longer_than_the_pool(impl):
    """A read that holds the only block itself gets what it needs from the heap."""

    async def main():
        pool = impl.BlockPool(256, 1, on_exhausted="wait")
        reader, writer, peer = await pair(pool)
        data = bytes(range(1, 200)) * 10
        for _ in range(3):
            await send(peer, data + b"\0")
            assert bytes(await reader.readuntil(b"\0")) == data + b"\0"
            await send(peer, data)
            assert bytes(await reader.readexactly(len(data))) == data
        await end(writer, peer)
        return pool

    assert run(main()).in_use == 0


async def everything(reader, kept):
    async for chunk in reader:
        kept.append(chunk)


def test_reading_all_holds_no_block(impl):
    async def main():
        pool = impl.BlockPool(256, 2, on_exhausted="wait")
        reader, writer, peer = await pair(pool)
        data = bytes(range(256)) * 300
        sending = asyncio.create_task(send(peer, data))
        sending.add_done_callback(lambda task: peer.shutdown(socket.SHUT_WR))
        assert bytes(await reader.read()) == data
        assert reader.stats().heap_reads == 0
        await end(writer, peer)
        return pool

    assert run(main()).in_use == 0


def test_a_consumer_that_keeps_all_stops_the_peer(impl):
    async def main():
        pool = impl.BlockPool(1024, 2, on_exhausted="wait", timeout=0.02)
        reader, writer, peer = await pair(pool)
        data, kept = bytes(range(256)) * 4000, []
        sending = asyncio.create_task(send(peer, data))
        with pytest.raises(PoolTimeoutError):
            await everything(reader, kept)
        assert sum(map(len, kept)) <= 2 * 1024 + 256
        assert not sending.done()
        seen = bytearray().join(kept)
        kept.clear()
        while len(seen) < len(data):
            seen += await reader.readany()
        assert seen == data
        await sending
        await end(writer, peer)
        return pool

    assert run(main()).in_use == 0


# -- servers ---------------------------------------------------------------------------


async def echo(reader, writer):
    async for chunk in reader:
        writer.write(chunk)
        await writer.drain()
    writer.close()
    await writer.wait_closed()


async def exercise(pool, address=None, **options):
    connect = open_connection if address else open_unix_connection
    data = bytes(range(256)) * 500

    async def client(i):
        where = address or (options["path"],)
        rest = {k: v for k, v in options.items() if k != "path"}
        reader, writer = await connect(*where, pool=pool, **rest)
        for n in (1, 20, 70_000):
            writer.write(data[i : i + n])
            assert bytes(await reader.readexactly(n)) == data[i : i + n]
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(client(i) for i in range(5)))


def test_echo_server(impl):
    async def main():
        pool = impl.BlockPool(4096, 8, on_exhausted="wait")
        server = await start_server(echo, "127.0.0.1", 0, pool=pool)
        async with server:
            await exercise(pool, server.sockets[0].getsockname())
            await asyncio.sleep(0.02)
        return pool

    assert run(main()).in_use == 0


def test_unix_server(impl, tmp_path):
    async def main():
        pool, path = impl.BlockPool(4096, 8, on_exhausted="wait"), str(tmp_path / "s")
        server = await start_unix_server(echo, path, pool=pool)
        async with server:
            await exercise(pool, path=path)
            await asyncio.sleep(0.02)
        return pool

    assert run(main()).in_use == 0


def test_an_exception_in_a_handler(impl):
    async def broken(reader, writer):
        await reader.readany()
        raise LookupError("no such thing")

    async def main():
        loop, reports = asyncio.get_running_loop(), []
        loop.set_exception_handler(lambda loop, context: reports.append(context))
        pool = impl.BlockPool(1024, 4)
        async with await start_server(broken, "127.0.0.1", 0, pool=pool) as server:
            where = server.sockets[0].getsockname()
            reader, writer = await open_connection(*where[:2], pool=pool)
            writer.write(b"abc")
            assert await reader.readany() == b""
            writer.close()
            await writer.wait_closed()
            await asyncio.sleep(0.01)
        assert len(reports) == 1
        assert isinstance(reports[0]["exception"], LookupError)
        reports.clear()
        return pool

    assert run(main()).in_use == 0


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    try:
        subprocess.run(
            [*command.split(), "-keyout", "key.pem", "-out", "cert.pem"],
            cwd=folder,
            check=True,
            capture_output=True,
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no openssl to make a certificate with")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    client = ssl.create_default_context(cafile=str(folder / "cert.pem"))
    client.check_hostname = False
    return server, client


def test_tls(impl, certificate):
    """Also with one block: an idle TLS connection holds none of it."""

    async def main(blocks):
        pool = impl.BlockPool(2048, blocks, on_exhausted="wait")
        ours, theirs = certificate
        server = await start_server(echo, "127.0.0.1", 0, pool=pool, ssl=ours)
        async with server:
            await exercise(pool, server.sockets[0].getsockname()[:2], ssl=theirs)
            await asyncio.sleep(0.02)
        return pool

    for blocks in (8, 1):
        assert run(main(blocks)).in_use == 0


def test_start_tls(impl, certificate):
    async def serve(reader, writer):
        assert bytes(await reader.readline()) == b"STARTTLS\n"
        writer.write(b"go\n")
        await writer.start_tls(certificate[0])
        await echo(reader, writer)

    async def main():
        pool = impl.BlockPool(2048, 4, on_exhausted="wait")
        async with await start_server(serve, "127.0.0.1", 0, pool=pool) as server:
            where = server.sockets[0].getsockname()[:2]
            reader, writer = await open_connection(*where, pool=pool)
            writer.write(b"STARTTLS\n")
            assert bytes(await reader.readline()) == b"go\n"
            await writer.start_tls(certificate[1], server_hostname="localhost")
            writer.write(b"secret" * 1000)
            assert bytes(await reader.readexactly(6000)) == b"secret" * 1000
            writer.close()
            await asyncio.sleep(0.02)
        return pool

    if hasattr(asyncio.StreamWriter, "start_tls"):
        assert run(main()).in_use == 0


def test_uvloop(impl):
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        pytest.skip("it may switch the GIL on")
    uvloop = pytest.importorskip("uvloop")

    async def main():
        pool = impl.BlockPool(4096, 8, on_exhausted="wait")
        server = await start_server(echo, "127.0.0.1", 0, pool=pool)
        async with server:
            await exercise(pool, server.sockets[0].getsockname())
            await asyncio.sleep(0.02)
        return pool

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        pool = runner.run(main())
    gc.collect()
    assert pool.in_use == 0
