"""Client of an Envoy's admin interface, over its unix socket.

https://www.envoyproxy.io/docs/envoy/v1.40.0/operations/admin
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import h11
import msgspec

from meshd.base.errors import UNDECODABLE, SystemRefusedError, UnreachableError

_PATIENCE: Final = 5.0
_ACTIVE: Final = "listener_manager.total_listeners_active"
_WARMING: Final = "listener_manager.total_listeners_warming"
_CONNECTIONS: Final = ".downstream_cx_active"
"""Of each listener. Not ``server.total_connections``, which is as old as the query before."""
_VITAL: Final = f"^{_ACTIVE}$|^{_WARMING}$|^listener[.].*{_CONNECTIONS}$"


@dataclasses.dataclass(frozen=True, slots=True)
class Vitals:
    """The vital signs of a running proxy."""

    live: bool
    """It has had its first configuration, or has waited for it long enough."""
    listeners: int
    warming: int
    """Listeners that wait for something, and do not listen yet."""
    connections: int
    """From clients; internal ones count, too."""


class Admin:
    """The admin interface of one proxy; requests raise UnreachableError if it does not answer."""

    def __init__(self, socket: Path, *, timeout: float = _PATIENCE) -> None:
        self._socket = socket
        self._timeout = timeout

    async def vitals(self) -> Vitals:
        found = await self.stats(_VITAL)
        return Vitals(
            live=await self.is_live(),
            listeners=found.get(_ACTIVE, 0),
            warming=found.get(_WARMING, 0),
            connections=sum(
                value
                for name, value in found.items()
                if name.endswith(_CONNECTIONS) and not name.startswith("listener.admin.")
            ),
        )

    async def is_live(self) -> bool:
        status, _ = await self._request("GET", "/ready")
        return status == 200

    async def config_dump(self, *, resource: str = "", endpoints: bool = False) -> dict[str, Any]:
        """Return the configuration; ``resource`` is one field of one section:
        ``dynamic_listeners``."""
        query = [f"resource={resource}"] if resource else []
        query += ["include_eds"] if endpoints else []
        return await self._json("/config_dump" + ("?" + "&".join(query) if query else ""))

    async def stats(self, pattern: str = "") -> dict[str, int]:
        """Return counters and gauges by name; ``pattern`` is a regular expression without ``&``."""
        found = await self._json(f"/stats?format=json{f'&filter={pattern}' if pattern else ''}")
        return {one["name"]: one["value"] for one in found.get("stats", ()) if "value" in one}

    async def clusters(self) -> dict[str, Any]:
        return await self._json("/clusters?format=json")

    async def certificates(self) -> dict[str, Any]:
        return await self._json("/certs")

    async def fail_health_check(self) -> None:
        """Have the proxy close each HTTP connection after its next answer."""
        await self._command("/healthcheck/fail")

    async def drain_listeners(self, *, graceful: bool = False) -> None:
        """Stop taking connections from workloads: at once, or at the end of the drain time.

        Only on listeners marked inbound. The internal ones go on for connections that are there,
        and DNS until the end: a UDP socket that is drained is not read, and not closed either, so
        that the kernel would go on giving it queries.
        """
        await self._command("/drain_listeners?inboundonly" + ("&graceful" if graceful else ""))

    async def _command(self, target: str) -> None:
        await self._expect("POST", target)

    async def _json(self, target: str) -> dict[str, Any]:
        body = await self._expect("GET", target)
        try:
            return msgspec.json.decode(body, type=dict[str, Any])
        except UNDECODABLE as error:
            raise SystemRefusedError(f"{self._socket}: {target}: no JSON: {error}") from None

    async def _expect(self, method: str, target: str) -> bytes:
        status, body = await self._request(method, target)
        if status != 200:
            told = body.decode(errors="replace").strip()[:200]
            raise SystemRefusedError(f"{self._socket}: {target}: status {status}: {told}")
        return body

    async def _request(self, method: str, target: str) -> tuple[int, bytes]:
        try:
            async with asyncio.timeout(self._timeout):
                return await _exchange(self._socket, method, target)
        except TimeoutError:
            reason = f"no answer within {self._timeout:g} s"
        except (OSError, h11.ProtocolError) as error:
            reason = str(getattr(error, "strerror", None) or error)
        raise UnreachableError(f"cannot reach the proxy at {self._socket}: {reason}")


async def _exchange(socket: Path, method: str, target: str) -> tuple[int, bytes]:
    """Raises OSError, h11.ProtocolError."""
    reader, writer = await asyncio.open_unix_connection(socket)
    try:
        protocol = h11.Connection(h11.CLIENT)
        headers = [("host", "admin"), ("connection", "close"), ("content-length", "0")]
        for event in (h11.Request(method=method, target=target, headers=headers), _END):
            writer.write(protocol.send(event) or b"")
        status, body = 0, bytearray()
        async for event in _events(protocol, reader):
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += event.data
        return status, bytes(body)
    finally:
        writer.close()


_END: Final = h11.EndOfMessage()


async def _events(protocol: h11.Connection, reader: asyncio.StreamReader) -> AsyncIterator[object]:
    """Yield the events of one whole answer."""
    while True:
        event = protocol.next_event()
        if event is h11.NEED_DATA:
            protocol.receive_data(await reader.read(65536))
        elif isinstance(event, h11.EndOfMessage):
            return
        elif isinstance(event, h11.ConnectionClosed):
            raise h11.RemoteProtocolError("closed the connection in the middle of an answer")
        else:
            yield event
