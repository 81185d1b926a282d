"""A workload's server, which answers with what it saw of its client. One of each kind:

8080 HTTP/1.1, 9090 gRPC, 9000 TCP where the server speaks first; 7000 and 7001 the first and the
third once more, and 5555 the first where no service knows it. It keeps nothing: who asks puts the
answers together.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import socket
from concurrent import futures
from typing import Any

import grpc

POD = os.environ["HOSTNAME"]
connections = itertools.count()


def seen(number: object, peer: Any, headers: list[tuple[str, str]]) -> dict[str, Any]:
    return {
        "pod": POD,
        "connection": f"{POD}/{number}",
        "peer": peer,
        "xfcc": [value for name, value in headers if name == "x-forwarded-client-cert"],
        "headers": dict(headers),
    }


async def read_head(reader: asyncio.StreamReader) -> tuple[str, list[tuple[str, str]]]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    pairs = [line.partition(":") for line in head[1:] if line]
    return head[0], [(name.strip().lower(), value.strip()) for name, _, value in pairs]


async def read_body(reader: asyncio.StreamReader, headers: dict[str, str]) -> int:
    """How many bytes there were."""
    total = 0
    if "chunked" in headers.get("transfer-encoding", ""):
        while size := int(await reader.readline(), 16):
            await skip(reader, size + 2)
            total += size
        await reader.readline()
        return total
    total = int(headers.get("content-length", "0"))
    await skip(reader, total)
    return total


async def skip(reader: asyncio.StreamReader, size: int) -> None:
    while size:
        part = await reader.read(min(size, 1 << 20))
        if not part:
            raise ConnectionError("the body ended early")
        size -= len(part)


async def serve_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    number, peer = next(connections), writer.get_extra_info("peername")[:2]
    try:
        while True:
            request, pairs = await read_head(reader)
            headers = dict(pairs)
            _, path, _ = request.split(" ", 2)
            if headers.get("upgrade", "").lower() == "websocket":
                writer.write(
                    b"HTTP/1.1 101 Switching Protocols\r\n"
                    b"connection: Upgrade\r\nupgrade: websocket\r\n\r\n"
                )
                await echo(reader, writer)
                return
            received = await read_body(reader, headers)
            what, _, argument = path.rpartition("/")
            if what == "/bytes":
                await send_bytes(writer, int(argument))
                continue
            if what == "/wait":
                await asyncio.sleep(float(argument))
            answer = seen(number, peer, pairs) | {"received": received, "path": path}
            body = json.dumps(answer).encode()
            writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
                b"content-length: %d\r\n\r\n" % len(body) + body
            )
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def send_bytes(writer: asyncio.StreamWriter, size: int) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
    while size:
        part = min(size, 1 << 20)
        writer.write(b"x" * part)
        await writer.drain()
        size -= part


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while part := await reader.read(1 << 16):
        writer.write(part)
        await writer.drain()


async def serve_tcp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A greeting, what comes in once more, and a farewell after the client's end."""
    peer = writer.get_extra_info("peername")[:2]
    try:
        writer.write(json.dumps({"pod": POD, "peer": peer}).encode() + b"\n")
        await echo(reader, writer)
        writer.write(b"bye\n")
        await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


class Rpc(grpc.GenericRpcHandler):
    def service(self, handler_call_details: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(self._answer)

    def _answer(self, _request: bytes, context: grpc.ServicerContext) -> bytes:
        headers = [(name, str(value)) for name, value in context.invocation_metadata()]
        return json.dumps(seen(context.peer(), context.peer(), headers)).encode()


async def main() -> None:
    rpc = grpc.server(futures.ThreadPoolExecutor(8), handlers=[Rpc()])
    rpc.add_insecure_port("[::]:9090")
    rpc.start()
    for handler, ports in ((serve_http, (8080, 7000, 5555)), (serve_tcp, (9000, 7001))):
        for port in ports:
            listener = socket.create_server(
                ("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=4096
            )
            await asyncio.start_server(handler, sock=listener)
    await asyncio.Event().wait()


asyncio.run(main())
