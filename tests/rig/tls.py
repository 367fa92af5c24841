#!/usr/bin/env python3
"""TLS in front of a server that takes one handshake after another: a client that vanishes in one would hold up all.

    tls.py ADDRESS:PORT CERTIFICATE KEY ADDRESS:PORT      where it listens, and where plain TCP goes
"""
import asyncio
import contextlib
import ssl
import sys


async def main(listen, certificate, key, behind):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)

    async def serve(reader, writer):
        with contextlib.suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection(*behind.rsplit(":", 1))
            await asyncio.gather(carry(reader, far_writer), carry(far_reader, writer))

    address, port = listen.rsplit(":", 1)
    async with await asyncio.start_server(serve, address, int(port), ssl=tls, ssl_handshake_timeout=30) as server:
        await server.serve_forever()


async def carry(reader, writer):
    """Until one end closes or fails; then the other is closed."""
    try:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
    finally:
        writer.close()


asyncio.run(main(*sys.argv[1:]))
