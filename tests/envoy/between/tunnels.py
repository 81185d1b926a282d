"""A client of tunnels to a workload (HBONE) that asks for what it likes, and two nodes to try it
on: clients and servers are in namespaces of their own."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import subprocess
from collections.abc import Generator, Iterable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

import msgspec
import pytest

from meshd.compile.plan.chains import AccessLog
from meshd.model.hbone import PROTOCOL
from meshd.model.interception import HBONE_PORT
from meshd.model.snapshot import MeshOptions
from tests.envoy.between import http2
from tests.envoy.between.mesh import Mesh
from tests.envoy.captured.place import run

CLIENTS: Final = ("client", "other")
SERVERS: Final = ("server", "second")
VIRTUAL: Final = {"server": "198.19.77.1", "second": "198.19.77.2"}
UNSUITED: Final = "198.19.77.3"
"""Of a service of the second one that does not say that tunnels suit it."""
SERVICE: Final = """
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {name}, namespace: servers, annotations: {{meshd.io/tunnels: "{suited}"}}}}
spec:
  hosts: [{name}.test]
  addresses: [{address}]
  location: MESH_INTERNAL
  resolution: STATIC
  workloadSelector: {{labels: {{app: {app}}}}}
  ports:
  - {{number: 8080, name: http, protocol: HTTP}}
  - {{number: 9000, name: tcp, protocol: TCP}}
  - {{number: 9002, name: halves, protocol: TCP}}
  - {{number: 7000, name: any}}
  - {{number: 7001, name: other}}
"""
MANIFEST: Final = "".join(
    SERVICE.format(name=name, app=app, address=address, suited=suited)
    for name, app, address, suited in (
        *((name, name, address, "true") for name, address in VIRTUAL.items()),
        ("unsuited", "second", UNSUITED, ""),
    )
)
MODE: Final = """
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: servers}
spec: {mtls: {mode: %s}}
"""
"""Of mutual TLS at the servers."""
_RST_STREAM, _GOAWAY = 3, 7


class Nodes(NamedTuple):
    near: Mesh
    """With the clients."""
    far: Mesh
    """With the servers."""

    def load(
        self,
        more: str = "",
        *,
        near: bool = True,
        far: bool = True,
        told: Iterable[str] = (PROTOCOL,),
        accounts: dict[str, str] | None = None,
        connections: int = 0,
        rate: int = 0,
        access_log: AccessLog = "errors",
        addresses: Mapping[str, str] = MappingProxyType({}),
        account: str = "",
    ) -> None:
        """``near``, ``far``: the setting on each; ``told``: what is said of the servers;
        ``accounts``: by what names of servers the near node knows them; ``connections``: that each
        server may open, and be sent twice as many; ``rate``: and new ones a second; 0: any
        number; ``access_log``: of the far node; ``addresses``: of servers, in the place of their
        own; ``account``: the service account of all clients, if they have one in common."""
        clients = [
            msgspec.structs.replace(one, service_account=account or one.service_account)
            for one in map(self.near.workload, CLIENTS)
        ]
        servers = [
            msgspec.structs.replace(one, addresses=(addresses.get(one.name, one.addresses[0]),))
            for one in map(self.far.workload, SERVERS)
        ]
        elsewhere = [
            msgspec.structs.replace(
                one,
                netns="",
                node="far",
                protocols=tuple(told),
                service_account=(accounts or {}).get(one.name, one.service_account),
            )
            for one in servers
        ]
        text = MANIFEST + more
        options = MeshOptions(
            hbone=far,
            workload_connections=connections,
            connections_per_second=rate,
            access_log=access_log,
        )
        self.far.load(text, *servers, options=options)
        options = MeshOptions(hbone=near, outbound_policy="REGISTRY_ONLY")
        self.near.load(text, *clients, options=options, elsewhere=elsewhere)

    def first_words(self, client: str, server: str = "server") -> bytes:
        """What a TCP service says; nothing when the connection ends before."""
        try:
            with self.near.hosts[client].connect(VIRTUAL[server], 9000) as connection:
                return connection.makefile("rb").readline()
        except ConnectionError:
            return b""

    def received(self, server: str, port: int) -> int:
        """Connections to a port that came to a server over the network."""
        listed = subprocess.check_output((*self._raw(server), "-nvxL", "PREROUTING"), text=True)
        (rule,) = [line for line in listed.splitlines() if f"dpt:{port} " in line]
        return int(rule.split()[0])

    def count_received(self, *ports: int) -> None:
        for name in SERVERS:
            for port in ports:
                rule = f"-i eth0 -p tcp --dport {port} --syn"
                run(*self._raw(name), "-I", "PREROUTING", *rule.split())

    def _raw(self, server: str) -> tuple[str, ...]:
        name = self.far.hosts[server].name
        return ("ip", "netns", "exec", name, "iptables", "-w", "-t", "raw")


@contextlib.contextmanager
def two_nodes(home: pytest.TempPathFactory) -> Generator[Nodes]:
    with (
        Mesh(home.mktemp("near"), CLIENTS) as near,
        Mesh(home.mktemp("far"), SERVERS, beside=near) as far,
    ):
        nodes = Nodes(near, far)
        nodes.load()
        for mesh in nodes:
            for name in mesh.hosts:
                mesh.capture(name)
        nodes.count_received(HBONE_PORT, 9000)
        yield nodes


class Tunnel:
    """Of a program that speaks for itself, on a connection of its own."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._stream = -1
        self._left = b""
        connection.sendall(http2.PREFACE)

    @classmethod
    def to(cls, mesh: Mesh, address: str, context: ssl.SSLContext | None) -> Tunnel:
        """From outside of the mesh, by a host of this network; None: without TLS."""
        connection = mesh.outside.connect(address, HBONE_PORT)
        try:
            if context:
                connection = context.wrap_socket(connection)
            return cls(connection)
        except BaseException:
            connection.close()
            raise

    def close(self) -> None:
        self._connection.close()

    def connect(self, authority: str, *headers: http2.Header, method: bytes = b"CONNECT") -> bool:
        """Whether it was taken: the answer is :status 200."""
        self._stream += 2
        block = b"".join(
            http2.literal(key, value)
            for key, value in (
                (b":method", method),
                (b":authority", authority.encode()),
                *headers,
            )
        )
        with contextlib.suppress(ConnectionError, ssl.SSLError):  # which the answer tells
            self._connection.sendall(http2.frame(http2.HEADERS, 4, self._stream, block))
        while frame := self._next():
            kind, stream, payload = frame
            if kind == http2.HEADERS and stream == self._stream:
                return payload[:1] == b"\x88"
            if kind == _GOAWAY or (kind == _RST_STREAM and stream == self._stream):
                return False
        return False

    def begin(self, authority: str, count: int) -> None:
        """Ask for connections without waiting for an answer to any."""
        names = ((b":method", b"CONNECT"), (b":authority", authority.encode()))
        block = b"".join(http2.literal(key, value) for key, value in names)
        for _ in range(count):
            self._stream += 2
            self._connection.sendall(http2.frame(http2.HEADERS, 4, self._stream, block))

    def answers(self, count: int) -> list[bool]:
        """Whether each of so many was taken, in the order of the answers."""
        found: list[bool] = []
        while len(found) < count and (frame := self._next()):
            if frame[0] == http2.HEADERS:
                found.append(frame[2][:1] == b"\x88")
        return found

    def ask(self, data: bytes) -> bytes:
        """What comes first in answer, on the last stream."""
        if data:
            self._connection.sendall(http2.frame(http2.DATA, 0, self._stream, data))
        while frame := self._next():
            kind, stream, payload = frame
            if stream == self._stream and kind == http2.DATA:
                return payload
            if kind == _GOAWAY or (kind == _RST_STREAM and stream == self._stream):
                break
        return b""

    def _next(self) -> tuple[int, int, bytes] | None:
        try:
            head = self._exactly(9)
            size = int.from_bytes(head[:3])
            return head[3], struct.unpack(">I", head[5:9])[0], self._exactly(size)
        except (EOFError, ConnectionError, ssl.SSLError):
            return None

    def _exactly(self, size: int) -> bytes:
        while len(self._left) < size:
            data = self._connection.recv(65536)
            if not data:
                raise EOFError
            self._left += data
        found, self._left = self._left[:size], self._left[size:]
        return found


def certified(mesh: Mesh, account: str) -> ssl.SSLContext:
    """What a program has that holds a certificate, and speaks HTTP/2."""
    context = mesh.holder(account)
    context.set_alpn_protocols(["h2"])
    return context
