"""HTTP on 8080 (``/fail`` is a 503), and on 9000 whatever it is sent comes back."""

from __future__ import annotations

import asyncio


async def web(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while head := await reader.readuntil(b"\r\n\r\n"):
        failing = head.startswith(b"GET /fail")
        body = b"no\n" if failing else b"ok\n"
        status = b"503 Service Unavailable" if failing else b"200 OK"
        writer.write(b"HTTP/1.1 %s\r\ncontent-length: 3\r\n\r\n%s" % (status, body))
        await writer.drain()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(4096):
        writer.write(data)
        await writer.drain()
    writer.close()


async def until_it_hangs_up(
    handle: object, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    try:
        await handle(reader, writer)  # type: ignore[operator]
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def main() -> None:
    for port, handle in ((8080, web), (9000, echo)):
        await asyncio.start_server(
            lambda r, w, handle=handle: until_it_hangs_up(handle, r, w), "0.0.0.0", port
        )
    await asyncio.Event().wait()


asyncio.run(main())
