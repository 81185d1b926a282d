"""A small API server: it lists, watches and refuses as the real one does, over TLS."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

from meshd.kubernetes import kubeconfig
from meshd.kubernetes.kubeconfig import Access
from tests import pem

TOKEN = "let-me-in"  # noqa: S105 - of a test


class ApiServer:
    """Objects of one path. ``asked`` are the queries that came."""

    def __init__(self, directory: Path, path: str = "/api/v1/pods") -> None:
        self.directory = directory
        self.path = path
        self.objects: dict[str, dict[str, Any]] = {}
        self.version = 1
        self.asked: list[dict[str, str]] = []
        self.gone_before = 0
        """Watches from earlier versions are refused."""
        self.refusal: tuple[int, str] | None = None
        self.port = 0
        self._is_there = False
        self._events: list[tuple[int, str, dict[str, Any]]] = []
        self._news = asyncio.Condition()
        self._streams: set[asyncio.StreamWriter] = set()
        key = pem.new_key()
        (directory / "ca.pem").write_bytes(pem.certificate_pem(key, "localhost", ca=True))
        (directory / "key.pem").write_bytes(pem.key_pem(key))

    def access(self, token: str = TOKEN) -> Access:
        config = {
            "current-context": "it",
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
            "clusters": [
                {
                    "name": "it",
                    "cluster": {
                        "server": f"https://localhost:{self.port}",
                        "certificate-authority": "ca.pem",
                    },
                }
            ],
            "users": [{"name": "it", "user": {"token": token}}],
        }
        path = self.directory / "kubeconfig"
        path.write_text(yaml.safe_dump(config))
        return kubeconfig.load(path)

    @asynccontextmanager
    async def serving(self) -> AsyncGenerator[None]:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(self.directory / "ca.pem", self.directory / "key.pem")
        server = await asyncio.start_server(self._serve, "localhost", self.port, ssl=tls)
        self._is_there = True
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            self._is_there = False
            server.close()
            self.hang_up()
            await server.wait_closed()

    # ---- what happens in it

    async def put(self, name: str, **fields: Any) -> None:
        kind = "MODIFIED" if name in self.objects else "ADDED"
        await self._note(kind, name, fields)

    async def delete(self, name: str) -> None:
        await self._note("DELETED", name, self.objects[name])

    async def _note(self, kind: str, name: str, fields: dict[str, Any]) -> None:
        async with self._news:
            self.version += 1
            meta = {"name": name, "namespace": "shop", "resourceVersion": str(self.version)}
            found = {**fields, "metadata": {**fields.get("metadata", {}), **meta}}
            self.objects[name] = found
            if kind == "DELETED":
                del self.objects[name]
            self._events.append((self.version, kind, found))
            self._news.notify_all()

    def hang_up(self) -> None:
        for stream in self._streams:
            stream.transport.abort()

    def forget(self) -> None:
        """Keep no history: whoever watches from before has to list again."""
        self.gone_before = self.version
        self._events = []

    # ---- how it answers

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._streams.add(writer)
        try:
            if not self._is_there:  # of a connection that came before the end
                return
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            await self._answer(head, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._streams.discard(writer)
            writer.transport.abort()

    async def _answer(self, head: str, writer: asyncio.StreamWriter) -> None:
        url = urlsplit(head.split(" ")[1])
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        self.asked.append(query)
        if f"authorization: Bearer {TOKEN}" not in head:
            return await self._say(writer, 401, {"message": "Unauthorized"})
        if self.refusal:
            return await self._say(writer, self.refusal[0], {"message": self.refusal[1]})
        if url.path != self.path:
            found = self.objects.get(url.path.rpartition("/")[2])
            text = {"message": f"{url.path} not found"}
            return await self._say(writer, 200 if found else 404, found or text)
        if "watch" in query:
            return await self._watch(writer, int(query["resourceVersion"]))
        return await self._list(writer, query)

    async def _list(self, writer: asyncio.StreamWriter, query: dict[str, str]) -> None:
        items, first = list(self.objects.values()), int(query.get("continue", 0))
        last = first + int(query["limit"])
        meta = {"resourceVersion": str(self.version)}
        if last < len(items):
            meta["continue"] = str(last)
        await self._say(writer, 200, {"metadata": meta, "items": items[first:last]})

    async def _watch(self, writer: asyncio.StreamWriter, version: int) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        if version < self.gone_before:
            text = {"code": 410, "message": "too old resource version"}
            return await self._chunk(writer, {"type": "ERROR", "object": text})
        while True:
            for number, kind, found in self._events:
                if number > version:
                    version = number
                    await self._chunk(writer, {"type": kind, "object": found})
            async with self._news:
                await self._news.wait()

    async def _chunk(self, writer: asyncio.StreamWriter, value: Any) -> None:
        line = json.dumps(value).encode() + b"\n"
        half = len(line) // 2  # lines do not come as chunks do
        for part in (line[:half], line[half:]):
            writer.write(b"%x\r\n%b\r\n" % (len(part), part))
        await writer.drain()

    async def _say(self, writer: asyncio.StreamWriter, status: int, value: Any) -> None:
        body = json.dumps(value).encode()
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
