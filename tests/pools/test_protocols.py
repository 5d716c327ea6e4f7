"""BlockProtocol and the arena it receives in, over real sockets."""

import asyncio
import gc
import socket
import sys

import pytest

from ctxpool.errors import PoolClosedError
from ctxpool.pools import BlockProtocol, ReadArena


def run(coroutine):
    result = asyncio.run(asyncio.wait_for(coroutine, 20))
    gc.collect()
    return result


class Keep(BlockProtocol):
    """Keeps all that comes, unless told otherwise."""

    def __init__(self, pool):
        super().__init__(pool)
        self.kept, self.seen = [], bytearray()
        self.lost = asyncio.get_running_loop().create_future()

    def data_received(self, data):
        self.seen += data
        self.kept.append(data)

    def connection_lost(self, exc):
        super().connection_lost(exc)
        self.lost.set_result(exc)


async def pair(factory):
    """A protocol at one end of a pair of sockets, and the other end."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    loop = asyncio.get_running_loop()
    _, protocol = await loop.create_connection(factory, sock=ours)
    return protocol, theirs


async def send(sock, data):
    await asyncio.get_running_loop().sock_sendall(sock, data)


async def until(condition):
    while not condition():
        await asyncio.sleep(0.001)


# -- the arena -------------------------------------------------------------------------


def test_slices_follow_one_another(impl):
    pool = impl.BlockPool(64, 2)
    arena = ReadArena(pool)
    kept = []
    for i in range(4):
        arena.reserve("a")[:10] = bytes([i]) * 10
        kept.append(arena.commit("a", 10))
    assert pool.in_use == 1
    assert [bytes(view) for view in kept] == [bytes([i]) * 10 for i in range(4)]
    arena.base = None
    del arena
    assert pool.in_use == 1
    del kept
    assert pool.in_use == 0


def test_a_block_is_left_when_little_room_is_left(impl):
    pool = impl.BlockPool(64, 2)
    arena = ReadArena(pool)
    assert arena.least == 4
    arena.reserve("a")
    first = arena.commit("a", 61)
    assert pool.in_use == 1
    assert len(arena.reserve("a")) == 64
    assert pool.in_use == 2
    arena.base = None
    del first
    assert pool.in_use == 1


def test_what_was_not_committed_is_lent_again(impl):
    arena = ReadArena(impl.BlockPool(64, 1))
    arena.reserve("a")[:1] = b"x"
    room = arena.reserve("b")
    assert len(room) == 64
    with pytest.raises(RuntimeError, match="overtaken"):
        arena.commit("a", 1)
    assert len(arena.commit("b", 64)) == 64
    with pytest.raises(RuntimeError, match="reserved nothing"):
        arena.commit("b", 1)


def test_a_commit_beyond_its_reservation(impl):
    arena = ReadArena(impl.BlockPool(64, 1))
    arena.reserve("a")
    with pytest.raises(ValueError, match="65 bytes of a reservation of 64"):
        arena.commit("a", 65)
    with pytest.raises(ValueError, match="-1 bytes"):
        arena.commit("a", -1)


def test_a_dry_pool_lends_scratch(impl):
    pool = impl.BlockPool(64, 1)
    arena = ReadArena(pool)
    held = pool.acquire()
    assert len(arena.reserve("a")) == 256
    scratch = arena.commit("a", 3)
    assert arena.dry
    assert arena.heap_reads == 1
    arena.reserve("a")
    held.release()
    assert len(arena.reserve("a")) == 64, "a block that came back is taken at once"
    assert len(scratch) == 3


def test_other_policies(impl):
    for policy in ("grow", "heap"):
        pool = impl.BlockPool(64, 1, on_exhausted=policy)
        arena, held = ReadArena(pool), pool.acquire()
        assert len(arena.reserve("a")) == 64
        arena.commit("a", 64)
        assert not arena.dry
        held.release()


def test_what_is_no_pool():
    with pytest.raises(TypeError, match="must be a BlockPool, not 'pool'"):
        ReadArena("pool")


# -- the protocol ----------------------------------------------------------------------


def test_views_of_one_block(impl):
    async def main():
        pool = impl.BlockPool(4096, 4)
        protocol, peer = await pair(lambda: Keep(pool))
        for i in range(5):
            await send(peer, bytes([i]) * 20)
            await until(lambda n=20 * (i + 1): len(protocol.seen) == n)
        assert pool.in_use == 1
        assert all(view.nbytes == 20 and not view.readonly for view in protocol.kept)
        peer.close()
        assert await protocol.lost is None
        assert pool.in_use == 1, "kept beyond the connection's end"
        assert b"".join(protocol.kept) == protocol.seen
        protocol.kept.clear()
        assert protocol.transport is None
        return pool

    assert run(main()).in_use == 0


def test_connections_share_blocks(impl):
    async def main():
        pool = impl.BlockPool(4096, 2)
        ends = [await pair(lambda: Keep(pool)) for _ in range(20)]
        for i, (_, peer) in enumerate(ends):
            await send(peer, bytes([i]) * 10)
        await until(lambda: all(len(p.seen) == 10 for p, _ in ends))
        assert pool.in_use == 1, "twenty connections, one block"
        for i, (protocol, peer) in enumerate(ends):
            assert bytes(protocol.kept[0]) == bytes([i]) * 10
            peer.close()
            await protocol.lost
            protocol.kept.clear()
        return pool

    assert run(main()).in_use == 0


@pytest.mark.parametrize("policy", ["raise", "wait"])
def test_back_pressure(impl, policy):
    """A consumer that keeps all stops the peer; one that lets go gets every byte."""

    async def main():
        pool = impl.BlockPool(1024, 2, on_exhausted=policy)
        protocol, peer = await pair(lambda: Keep(pool))
        data = bytes(range(256)) * 4096
        sending = asyncio.create_task(send(peer, data))
        await until(lambda: not protocol.transport.is_reading())
        await asyncio.sleep(0.02)
        assert len(protocol.seen) <= 2 * 1024 + 256
        assert not sending.done()
        assert pool.in_use == 2
        while len(protocol.seen) < len(data):
            protocol.kept.clear()
            await asyncio.sleep(0)
        await sending
        assert protocol.seen == data
        protocol.kept.clear()
        peer.close()
        await protocol.lost
        return pool

    pool = run(main())
    assert pool.in_use == 0
    pool.check()


def test_back_pressure_is_fair(impl):
    """With one block among many, each gets its turn."""

    class Drop(Keep):
        def data_received(self, data):
            self.seen += data
            held.append(data)
            while len(held) > 3:
                held.popleft()

    from collections import deque

    held = deque()

    async def main():
        pool = impl.BlockPool(512, 1, on_exhausted="wait")
        ends = [await pair(lambda: Drop(pool)) for _ in range(8)]
        data = bytes(range(256)) * 40
        tasks = [asyncio.create_task(send(peer, data)) for _, peer in ends]
        while not all(len(p.seen) == len(data) for p, _ in ends):
            held.clear()
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        assert all(protocol.seen == data for protocol, _ in ends)
        for protocol, peer in ends:
            peer.close()
            protocol.kept.clear()
            await protocol.lost
        held.clear()
        return pool

    assert run(main()).in_use == 0


def test_its_user_pauses_too(impl):
    async def main():
        pool = impl.BlockPool(1024, 4)
        protocol, peer = await pair(lambda: Keep(pool))
        protocol.pause_reading()
        protocol.pause_reading()
        await send(peer, b"abc")
        await asyncio.sleep(0.01)
        assert not protocol.seen
        protocol.resume_reading()
        await until(lambda: protocol.seen == b"abc")
        peer.close()
        await protocol.lost
        protocol.resume_reading()  # of no use any more, and no error

    run(main())


def test_a_pause_outlives_the_return_of_a_block(impl):
    async def main():
        pool = impl.BlockPool(1024, 1, on_exhausted="wait")
        held = pool.acquire()
        protocol, peer = await pair(lambda: Keep(pool))
        await send(peer, b"x" * 2000)
        await until(lambda: not protocol.transport.is_reading())
        protocol.pause_reading()
        held.release()
        await asyncio.sleep(0.02)
        assert len(protocol.seen) == 256
        protocol.resume_reading()
        await until(lambda: len(protocol.seen) >= 1280)
        peer.close()
        protocol.kept.clear()
        await protocol.lost
        return pool

    run(main())


def test_a_connection_that_closes_while_it_waits(impl):
    async def main():
        pool = impl.BlockPool(1024, 1, on_exhausted="wait")
        held = pool.acquire()
        protocol, peer = await pair(lambda: Keep(pool))
        await send(peer, b"x" * 2000)
        await until(lambda: not protocol.transport.is_reading())
        arena = protocol._arena
        protocol.transport.abort()
        await protocol.lost
        await asyncio.sleep(0.01)
        assert arena._pump is None
        assert not arena._hungry
        held.release()
        peer.close()
        return pool

    assert run(main()).in_use == 0


def test_one_leaves_and_another_waits(impl):
    """In the same turn of the loop: the one who comes later is served all the same."""

    async def main():
        pool = impl.BlockPool(1024, 1, on_exhausted="wait")
        held = pool.acquire()
        first, one = await pair(lambda: Keep(pool))
        second, other = await pair(lambda: Keep(pool))
        await send(one, b"x" * 2000)
        await until(lambda: not first.transport.is_reading())
        await asyncio.sleep(0.01)  # it waits in the pool's queue
        first._arena.forget(first)
        await send(other, b"y" * 600)
        second.buffer_updated(second.get_buffer(-1).nbytes - 255)
        assert not second.transport.is_reading()
        held.release()
        await until(lambda: len(second.seen) == 601)
        for protocol, peer in ((first, one), (second, other)):
            protocol.kept.clear()
            protocol.transport.abort()
            await protocol.lost
            peer.close()
        return pool

    assert run(main()).in_use == 0


def test_an_exception_of_the_receiver_closes(impl):
    class Bad(Keep):
        def data_received(self, data):
            raise LookupError("no such thing")

    async def main():
        loop, reports = asyncio.get_running_loop(), []
        loop.set_exception_handler(lambda loop, context: reports.append(context))
        pool = impl.BlockPool(1024, 1)
        protocol, peer = await pair(lambda: Bad(pool))
        await send(peer, b"abc")
        assert isinstance(await protocol.lost, LookupError)
        assert len(reports) == 1
        reports.clear()
        peer.close()
        return pool

    assert run(main()).in_use == 0


@pytest.mark.parametrize("waits", [False, True])
def test_a_closed_pool_closes_the_connection(impl, waits):
    async def main():
        loop, reports = asyncio.get_running_loop(), []
        loop.set_exception_handler(lambda loop, context: reports.append(context))
        pool = impl.BlockPool(1024, 1, on_exhausted="wait")
        held = pool.acquire()
        protocol, peer = await pair(lambda: Keep(pool))
        if waits:
            await send(peer, b"abc")
            await until(lambda: not protocol.transport.is_reading())
        pool.close()
        await send(peer, b"abc")
        assert isinstance(await protocol.lost, PoolClosedError)
        assert len(reports) == 1
        held.release()
        peer.close()

    run(main())


def test_a_pool_with_a_timeout_goes_on_waiting(impl):
    async def main():
        pool = impl.BlockPool(1024, 1, on_exhausted="wait", timeout=0.005)
        held = pool.acquire()
        protocol, peer = await pair(lambda: Keep(pool))
        await send(peer, b"x" * 600)
        await until(lambda: pool.stats().exhausted > 3)
        assert len(protocol.seen) == 256
        held.release()
        await until(lambda: len(protocol.seen) == 600)
        peer.close()
        await protocol.lost

    run(main())


def test_uvloop(impl):
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        pytest.skip("it may switch the GIL on")
    uvloop = pytest.importorskip("uvloop")

    async def main():
        pool = impl.BlockPool(1024, 2, on_exhausted="wait")
        protocol, peer = await pair(lambda: Keep(pool))
        data = bytes(range(256)) * 1000
        sending = asyncio.create_task(send(peer, data))
        await until(lambda: pool.in_use == 2)
        await asyncio.sleep(0.01)
        assert len(protocol.seen) <= 2 * 1024 + 256
        while len(protocol.seen) < len(data):
            protocol.kept.clear()
            await asyncio.sleep(0)
        await sending
        assert protocol.seen == data
        peer.close()
        await protocol.lost
        protocol.kept.clear()
        return pool

    loop = uvloop.new_event_loop()
    try:
        pool = loop.run_until_complete(asyncio.wait_for(main(), 20))
    finally:
        loop.close()
    gc.collect()
    assert pool.in_use == 0


def test_arenas_end_with_their_connections(impl):
    from ctxpool.pools.arena import _arenas

    async def main():
        pool = impl.BlockPool(1024, 2)
        protocol, peer = await pair(lambda: Keep(pool))
        await send(peer, b"abc")
        await until(lambda: protocol.seen)
        arenas = _arenas[asyncio.get_running_loop()]
        assert len(arenas) == 1
        peer.close()
        await protocol.lost
        gc.collect()
        assert len(arenas) == 0

    run(main())
