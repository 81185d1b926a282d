"""Client of an Envoy's admin interface, over its unix socket.

https://www.envoyproxy.io/docs/envoy/v1.40.0/operations/admin
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Final

import msgspec

from meshd.base import http
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
        body = bytearray()

        def take(_: int, part: bytes) -> None:
            body.extend(part)

        try:
            status = await http.ask(self._socket, method, target, take, timeout=self._timeout)
        except UnreachableError as error:
            raise UnreachableError(f"cannot reach the proxy at {self._socket}: {error}") from None
        return status, bytes(body)
