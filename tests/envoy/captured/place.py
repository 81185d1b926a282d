"""One Envoy with what a snapshot is compiled to, and a namespace whose traffic is sent into it.

Backends are listeners of the same Envoy, at addresses of their own inside the namespace: each says
its name, in HTTP (1.1 and 2), behind TLS, or as the first words of a TCP connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import itertools
import json
import os
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from pathlib import Path
from typing import Any, Self, TypeVar

import envoy

from meshd.api.base import Object
from meshd.api.read import read_objects
from meshd.capture.rules import inside
from meshd.compile.compiler import Compiler
from meshd.compile.replacement.isolation import Isolating
from meshd.model.interception import OUTBOUND_PORT, PROXY_MARK
from meshd.model.pool import Pool
from meshd.model.snapshot import MeshOptions
from meshd.model.workload import Workload
from meshd.node.packing import Packer
from meshd.proxy.bootstrap import bootstrap
from meshd.proxy.machine import capacity_here
from meshd.proxy.pool import Member
from meshd.registry.registry import build_snapshot
from meshd.settings import Paths, ProxySettings, Settings
from meshd.xds.server import Server
from tests.waiting import PATIENCE

T = TypeVar("T")
ENVOY = Path(envoy.__path__[0]) / "_bin" / "envoy"
DRAIN_TIME = 1
"""Of Envoy, in seconds: the shortest there is."""
_TYPE = "type.googleapis.com/envoy"
ADDRESS = "198.18.75.2"
"""Of the workload."""
_numbers = itertools.count()


def eventually(look: Callable[[], T | None], what: str) -> T:
    deadline = time.monotonic() + PATIENCE
    while not (found := look()):
        assert time.monotonic() < deadline, f"it did not come to be: {what}"
        threading.Event().wait(0.02)
    return found


class Publisher:
    """An xDS server on a loop of its own."""

    def __init__(self, path: Path) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.server = self._call(self._start(path))

    async def _start(self, path: Path) -> Server:
        server = Server(drain_time=DRAIN_TIME)
        await server.start(path)
        return server

    def _call(self, wanted: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(wanted, self._loop).result(PATIENCE + 5)

    def publish(self, resources: Any) -> None:
        """Until Envoy has taken all."""

        async def until_taken() -> bool:
            self.server.publish(resources)
            return await self.server.wait(self._is_synced, PATIENCE)

        taken = self._call(until_taken())
        rejected = {name: one.reason for (_, name), one in self.server.rejections().items()}
        assert taken, f"Envoy did not take all: {rejected}"
        assert not rejected, rejected

    def _is_synced(self) -> bool:
        members = [one for one in self.server.members() if one.connected]
        return bool(members) and all(one.synced for one in members)

    def close(self) -> None:
        self._call(self.server.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Backend:
    """A name, an address, and what is spoken on some ports of it.

    A port stands for all those up to ``and_up_to`` too.
    """

    def __init__(self, name: str, speaks: dict[int, str], and_up_to: int = 0) -> None:
        self.and_up_to = and_up_to
        self.name = name
        number = next(_numbers)
        self.address = f"198.18.{76 + number // 250}.{1 + number % 250}"
        self.speaks = speaks

    def listeners(self, netns: str, certificate: Path) -> Iterator[dict[str, Any]]:
        for port, spoken in self.speaks.items():
            yield {
                "name": f"backend {self.name} {port}",
                "address": {
                    "socket_address": {
                        "address": self.address,
                        "port_value": port,
                        "network_namespace_filepath": netns,
                    }
                },
                "filter_chains": [self._chain(spoken, certificate)],
            }

    def _chain(self, spoken: str, certificate: Path) -> dict[str, Any]:
        if spoken == "tcp":
            return {
                "filters": [
                    _typed(
                        "envoy.filters.network.direct_response",
                        "extensions.filters.network.direct_response.v3.Config",
                        response={"inline_string": f"{self.name}\n"},
                    )
                ]
            }
        chain: dict[str, Any] = {"filters": [self._manager()]}
        if spoken == "tls":
            file = {"filename": str(certificate)}
            chain["transport_socket"] = _typed(
                "envoy.transport_sockets.tls",
                "extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                common_tls_context={
                    "alpn_protocols": ["http/1.1"],
                    "tls_certificates": [{"certificate_chain": file, "private_key": file}],
                },
            )
        return chain

    def _manager(self) -> dict[str, Any]:
        answer = {"status": 200, "body": {"inline_string": f"{self.name}\n"}}
        route = {"match": {"prefix": "/"}, "direct_response": answer}
        router = _typed("envoy.filters.http.router", "extensions.filters.http.router.v3.Router")
        return _typed(
            "envoy.filters.network.http_connection_manager",
            "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            stat_prefix="backend",
            route_config={"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
            http_filters=[router],
        )


def _typed(name: str, kind: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "typed_config": {"@type": f"{_TYPE}.{kind}", **fields}}


class Place:
    """The namespace and the proxy."""

    def __init__(self, home: Path, backends: Iterable[Backend] = ()) -> None:
        self._home = home
        self._backends = list(backends)
        self.name = f"captured-{os.getpid()}-{next(_numbers)}"
        self.netns = f"/run/netns/{self.name}"
        self._stack = contextlib.ExitStack()
        self._compiler, self._packer = Isolating(Compiler(), Compiler), Packer()
        self.certificate = home / "backend.pem"

    def __enter__(self) -> Self:
        try:
            self._make_namespace()
            self._make_certificate()
            paths = Paths.from_environment({"MESHD_HOME": str(self._home)})
            for directory in (paths.proxy_run, paths.admin_run):
                directory.mkdir(parents=True, exist_ok=True)
            self._publisher = Publisher(paths.proxy_run / "xds.sock")
            self._stack.callback(self._publisher.close)
            self._start_envoy(paths)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _make_namespace(self) -> None:
        run("ip", "netns", "add", self.name)
        self._stack.callback(run, "ip", "netns", "del", self.name)
        inside_ = ("ip", "-n", self.name)
        run(*inside_, "link", "set", "lo", "up")
        run(*inside_, "link", "add", "out", "type", "veth", "peer", "name", "far")
        run(*inside_, "addr", "add", f"{ADDRESS}/24", "dev", "out")
        for link in ("out", "far"):
            run(*inside_, "link", "set", link, "up")
        run(*inside_, "route", "add", "default", "dev", "out")
        proxied = f"-m mark ! --mark {PROXY_MARK:#x} -j REDIRECT --to-ports {OUTBOUND_PORT}"
        self._redirect(f"-d 198.18.0.0/15 {proxied}")
        for backend in self._backends:
            run(*inside_, "addr", "add", f"{backend.address}/32", "dev", "lo")
            for port in backend.speaks if backend.and_up_to else ():
                these = f"-d {backend.address} --dport {port}:{backend.and_up_to}"
                self._redirect(f"{these} -j DNAT --to-destination {backend.address}:{port}")

    def _redirect(self, rule: str) -> None:
        command = ("iptables", "-w", "-t", "nat", "-A", "OUTPUT", "-p", "tcp", *rule.split())
        run("ip", "netns", "exec", self.name, *command)

    def _make_certificate(self) -> None:
        file = str(self.certificate)
        run(
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "1", "-subj", "/CN=backend", "-keyout", file, "-out", file + "~"),
        )
        self.certificate.write_text(self.certificate.read_text() + Path(file + "~").read_text())

    @property
    def admin_socket(self) -> Path:
        paths = Paths.from_environment({"MESHD_HOME": str(self._home)})
        return paths.admin_run / f"{Member(Pool.TRAFFIC, 0).name}.sock"

    def _start_envoy(self, paths: Paths) -> None:
        config = bootstrap(
            Settings(), paths, Member(Pool.TRAFFIC, 0), capacity_here(ProxySettings())
        )
        config["static_resources"]["listeners"] = [
            listener
            for backend in self._backends
            for listener in backend.listeners(self.netns, self.certificate)
        ]
        (self._home / "envoy.json").write_text(json.dumps(config))
        self.log = self._home / "envoy.log"
        with self.log.open("wb") as output:
            process = subprocess.Popen(
                [
                    *(str(ENVOY), "-c", str(self._home / "envoy.json"), "--concurrency", "1"),
                    *("--disable-hot-restart", "-l", "warning", "--drain-time-s", "1"),
                    *("--drain-strategy", "immediate"),
                ],
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)

    # ---- what is configured

    def load(
        self,
        text: str,
        *workloads: Workload,
        serving: Iterable[str] = (),
        standing: Iterable[Object] = (),
    ) -> None:
        """Until Envoy has it. ``serving``: those of the workloads that are in the namespace;
        ``standing``: replacements of objects that are not in force, of ``text`` or others."""
        objects = {read.object.key: read.object for read in read_objects(text, "test.yaml")}
        objects |= {one.key: one for one in standing}
        snapshot = build_snapshot(objects.values(), workloads, MeshOptions(), {})
        served = list(serving) or [workload.uid for workload in workloads]
        try:
            self._publisher.publish(self._packer.pack(self._compiler.compile(snapshot, served)))
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log.read_text()[-2000:]}") from None

    def workload(self, name: str, namespace: str = "default", **labels: str) -> Workload:
        return Workload(
            uid=f"{namespace}.{name}",
            name=name,
            namespace=namespace,
            netns=self.netns,
            labels={"app": name, **labels},
            addresses=(ADDRESS,),
            enrolled=True,
        )

    # ---- what a client in the namespace gets

    def connect(self, address: str, port: int, *, captured: bool = True) -> socket.socket:
        with inside.entered(Path(self.netns)):
            client = socket.socket()
        client.settimeout(PATIENCE)
        if not captured:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, PROXY_MARK)
        try:
            client.connect((address, port))
        except BaseException:
            client.close()
            raise
        return client

    def ask(self, spoken: str, address: str, port: int, host: str = "") -> str:
        """Who answers a client whose traffic is captured; empty when nobody does."""
        try:
            with self.connect(address, port) as client:
                return _DIALECTS[spoken](client, host)
        except (OSError, http.client.HTTPException):
            return ""

    def ask_gateway(self, spoken: str, port: int, host: str = "") -> str:
        """The same for a client from outside, at the workload's own address."""
        try:
            with self.connect(ADDRESS, port, captured=False) as client:
                return _DIALECTS[spoken](client, host)
        except (OSError, http.client.HTTPException):
            return ""


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE)


def _tcp(client: socket.socket, host: str) -> str:
    """The server speaks first."""
    del host
    return client.makefile("rb").readline().decode().strip()


def _tcp_after_client(client: socket.socket, host: str) -> str:
    """The client speaks first, and nothing that is HTTP or TLS."""
    client.sendall(b"who are you?\n")
    return _tcp(client, host)


def _http(client: socket.socket, host: str) -> str:
    client.sendall(f"GET / HTTP/1.1\r\nhost: {host}\r\n\r\n".encode())
    response = http.client.HTTPResponse(client)
    response.begin()
    return response.read().decode().strip() if response.status == 200 else ""


def _tls_context() -> ssl.SSLContext:
    """As browsers offer it; the certificate is anybody's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


_TLS = _tls_context()


def _tls(client: socket.socket, host: str) -> str:
    with _TLS.wrap_socket(client, server_hostname=host or None) as wrapped:
        return _http(wrapped, host)


def _http2(client: socket.socket, host: str) -> str:
    """With prior knowledge. https://httpwg.org/specs/rfc9113.html, and static names of HPACK."""
    authority = bytes([0x41, len(host)]) + host.encode()
    headers = b"\x82\x86\x84" + authority  # GET, http, /
    client.sendall(
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(4, 0, 0, b"") + _frame(1, 5, 1, headers)
    )
    stream = client.makefile("rb")
    status = b""
    while len(head := stream.read(9)) == 9:
        length, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
        payload = stream.read(length)
        if kind == 1:
            status = payload[:1]
        if kind == 0:
            return payload.decode().strip() if status == b"\x88" else ""  # 200
        if kind == 7 or (kind in {1, 3} and flags & 1):
            return ""
    return ""


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return (
        struct.pack(">I", len(payload))[1:]
        + bytes([kind, flags])
        + struct.pack(">I", stream)
        + payload
    )


_DIALECTS: dict[str, Callable[[socket.socket, str], str]] = {
    "tcp": _tcp,
    "tcp after client": _tcp_after_client,
    "http": _http,
    "http2": _http2,
    "tls": _tls,
}
