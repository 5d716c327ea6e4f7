"""The servers of bench/pools_buffers.py, one a process: python echo_server.py NAME SIZE

"echo" returns what comes. "frames" receives messages of SIZE bytes, keeps the newest
four, as a pipeline would, and answers each with a byte. The port is printed.
"""

import asyncio
import gc
import sys
from collections import deque

KEPT = 4


class Protocol(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(data)


class Fixed(asyncio.BufferedProtocol):
    """One buffer, whose bytes nobody may keep."""

    def __init__(self):
        self.view = memoryview(bytearray(1 << 16))

    def connection_made(self, transport):
        self.transport = transport

    def get_buffer(self, sizehint):
        return self.view

    def buffer_updated(self, n):
        self.transport.write(self.view[:n])


class ProtocolFrames(Protocol):
    def __init__(self, size):
        self.size, self.parts, self.have = size, [], 0
        self.kept = deque(maxlen=KEPT)

    def data_received(self, data):
        self.parts.append(data)
        self.have += len(data)
        if self.have == self.size:
            self.kept.append(b"".join(self.parts))
            self.parts, self.have = [], 0
            self.transport.write(b"k")


class FixedFrames(Fixed):
    """Copies out of its buffer, into a message of its own."""

    def __init__(self, size):
        super().__init__()
        self.size, self.message, self.have = size, bytearray(size), 0
        self.kept = deque(maxlen=KEPT)

    def buffer_updated(self, n):
        self.message[self.have : self.have + n] = self.view[:n]
        self.have += n
        if self.have == self.size:
            self.kept.append(self.message)
            self.message, self.have = bytearray(self.size), 0
            self.transport.write(b"k")


class FreshFrames(FixedFrames):
    """Receives right into a message of its own: no copy, but a new buffer each."""

    def get_buffer(self, sizehint):
        return memoryview(self.message)[self.have :]

    def buffer_updated(self, n):
        self.have += n
        if self.have == self.size:
            self.kept.append(self.message)
            self.message, self.have = bytearray(self.size), 0
            self.transport.write(b"k")


async def stream_echo(reader, writer):
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.close()


def stream_frames(size):
    async def serve(reader, writer):
        kept = deque(maxlen=KEPT)
        try:
            while True:
                kept.append(await reader.readexactly(size))
                writer.write(b"k")
        except asyncio.IncompleteReadError:
            writer.close()

    return serve


async def main(name, size):
    loop = asyncio.get_running_loop()
    handler = stream_frames(size) if size else stream_echo
    if name.startswith("ctxpool"):
        from ctxpool import BlockPool
        from ctxpool.pools import BlockProtocol, start_server

        pool = BlockPool(max(size, 1 << 16), 16, on_exhausted="wait")

        class Echo(BlockProtocol):
            def data_received(self, data):
                self.transport.write(data)

    if name.endswith("raised"):
        bytearray(16 << 20)  # freed, it raises malloc's threshold for mappings
    where = ("127.0.0.1", 0)
    match name:
        case "Protocol" | "Protocol, raised":
            make = (lambda: ProtocolFrames(size)) if size else Protocol
            server = await loop.create_server(make, *where)
        case "fixed buffer":
            make = (lambda: FixedFrames(size)) if size else Fixed
            server = await loop.create_server(make, *where)
        case "bytearray each":
            server = await loop.create_server(lambda: FreshFrames(size), *where)
        case "Streams" | "Streams, raised":
            server = await asyncio.start_server(handler, *where)
        case "ctxpool Protocol":
            server = await loop.create_server(lambda: Echo(pool), *where)
        case "ctxpool Streams":
            server = await start_server(handler, *where, pool=pool)
    print(server.sockets[0].getsockname()[1], flush=True)
    gc.disable()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
