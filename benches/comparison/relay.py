"""Carries connections of a port to a socket in the file system, each byte some milliseconds later, both ways.

relay.py PORT SOCKET MILLISECONDS
"""

import asyncio
import sys

PIECE = 64 << 10
# Pieces on their way in one direction: more than the delay times the rate of any link that it stands for.
PIECES = 512


async def carry(source, sink, delay):
    """Copies until the end of `source`. What arrives is passed on `delay` seconds later, in order."""
    loop = asyncio.get_running_loop()
    pieces = asyncio.Queue(PIECES)

    async def receive():
        while True:
            piece = await source.read(PIECE)
            await pieces.put((loop.time() + delay, piece))
            if not piece:
                return

    async def send():
        while True:
            due, piece = await pieces.get()
            await asyncio.sleep(due - loop.time())
            if not piece:
                sink.write_eof()
                return
            sink.write(piece)
            await sink.drain()

    await asyncio.gather(receive(), send())


async def main(port, socket, delay):
    async def accept(reader, writer):
        from_server, to_server = await asyncio.open_unix_connection(socket)
        try:
            await asyncio.gather(carry(reader, to_server, delay), carry(from_server, writer, delay))
        except OSError:
            # One of the two is gone: the other learns it by the end of its connection.
            pass
        finally:
            to_server.close()
            writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", port)
    print("ready", flush=True)
    async with server:
        await server.serve_forever()


asyncio.run(main(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]) / 1000))
