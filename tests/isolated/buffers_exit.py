"""The interpreter ends amid everything: no hang, no crash, not a word."""

import asyncio
import importlib
import os
import sys
import tempfile

from ctxpool.pools import BlockProtocol, map_blocks, open_connection, read_blocks
from ctxpool.pools.pickling import frame, loads

module = importlib.import_module(f"ctxpool._{sys.argv[1]}.block_pool")
kept = []


class Keep(BlockProtocol):
    def data_received(self, data):
        kept.append(data)


async def main():
    pool = module.BlockPool(4096, 4, on_exhausted="wait")
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Keep(pool), "127.0.0.1", 0)
    where = server.sockets[0].getsockname()
    other = module.BlockPool(64, 1, on_exhausted="wait")
    reader, writer = await open_connection(*where, pool=other)
    kept.extend([server, reader, writer, other.acquire()])
    writer.write(bytes(100_000))
    while pool.available:
        await asyncio.sleep(0.001)
    # Connections that wait for a block, a reader that waits, and a file half read.
    with tempfile.NamedTemporaryFile(delete=False) as file:
        file.truncate(1 << 20)
    kept.append(asyncio.ensure_future(reader.readexactly(10)))
    blocks = read_blocks(file.name, module.BlockPool(4096, 8), read_ahead=3)
    kept.append(next(blocks))
    kept.append(await anext(blocks))
    kept.append(blocks)
    results = map_blocks(bytes, read_blocks(file.name, block_size=4096))
    kept.append(next(results))
    kept.append(results)
    whole = b"".join(frame(bytearray(100)))
    kept.append(loads(whole, module.BlockPool(4096, 2)))
    os.unlink(file.name)
    await asyncio.sleep(0.01)
    writer.transport.abort()
    server.close()


asyncio.run(main())
print("done")
