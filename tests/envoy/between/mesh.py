"""One Envoy that serves workloads in namespaces of their own, captured as meshd does it, and a
stranger outside the mesh on the same network."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import http.client
import itertools
import json
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import msgspec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2

from meshd.api.read import read_objects
from meshd.ca import authority
from meshd.ca.names import TRUST_BUNDLE
from meshd.capture.rules import inside
from meshd.compile.compiled import Kind
from meshd.compile.compiler import Compiler
from meshd.model.pool import Pool
from meshd.model.short_way import ShortWay
from meshd.model.snapshot import MeshOptions
from meshd.model.workload import Identity, Workload
from meshd.node.packing import Packer
from meshd.proxy.bootstrap import bootstrap
from meshd.proxy.machine import capacity_here
from meshd.proxy.pool import Member
from meshd.registry.registry import build_snapshot
from meshd.settings import Paths, ProxySettings, Settings
from meshd.xds.resources import Resources
from tests.envoy.captured.place import DRAIN_TIME, ENVOY, Publisher, run
from tests.waiting import PATIENCE

BRIDGE = "198.18.77.1"
_NAMESPACES = {"gateway": "gateways", "server": "servers", "second": "servers"}
_numbers = itertools.count()


@dataclasses.dataclass(frozen=True)
class Host:
    """A namespace with an address."""

    name: str
    address: str

    @property
    def netns(self) -> str:
        return f"/run/netns/{self.name}"

    def connect(self, address: str, port: int) -> socket.socket:
        with inside.entered(Path(self.netns)):
            client = socket.socket()
        client.settimeout(PATIENCE)
        try:
            client.connect((address, port))
        except BaseException:
            client.close()
            raise
        return client

    def ask(self, address: str, port: int, request: str) -> Answer:
        """The answer to a request as it is written here, lines apart, without the empty one."""
        with self.connect(address, port) as client:
            return answer(client, request)


def namespace_of(name: str) -> str:
    """In Kubernetes' sense, of the workload or the service account of that name."""
    return _NAMESPACES.get(name, "clients")


def uri_of(name: str) -> str:
    """The identity that the workload or the service account of that name has."""
    return _identity(name).uri


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: str


def answer(client: socket.socket, request: str, *, after: float = 0) -> Answer:
    """``after``: so many seconds of silence."""
    time.sleep(after)
    client.sendall("\r\n".join([*request.strip().splitlines(), "", ""]).encode())
    response = http.client.HTTPResponse(client, method=request.split(maxsplit=1)[0])
    response.begin()
    found = {name.lower(): value for name, value in response.getheaders()}
    return Answer(response.status, found, response.read().decode("latin-1"))


class Mesh:
    """The stranger is the host ``outside``. ``on_host``: the proxy runs in the stranger's
    namespace, as if that were the machine's own. ``beside``: another node, with its network and its
    authority."""

    def __init__(
        self,
        home: Path,
        names: Iterable[str],
        *,
        on_host: bool = False,
        beside: Mesh | None = None,
    ) -> None:
        self._home = home
        self._on_host = on_host
        self._stack = contextlib.ExitStack()
        own = f"between-{os.getpid()}-{next(_numbers)}"
        self._beside = beside
        first = 102 if beside else 2
        self.hosts = {
            name: Host(f"{own}-{name}", f"198.18.77.{first + index}")
            for index, name in enumerate(names)
        }
        self.outside = beside.outside if beside else Host(f"{own}-outside", BRIDGE)
        self._compiler, self._packer = Compiler(), Packer()
        self._authority = beside._authority if beside else _authority()
        self._secrets: dict[str, Any] = {}

    def __enter__(self) -> Self:
        try:
            self._make_namespaces()
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

    def _make_namespaces(self) -> None:
        outside = ("ip", "-n", self.outside.name)
        for host in (*(() if self._beside else (self.outside,)), *self.hosts.values()):
            run("ip", "netns", "add", host.name)
            self._stack.callback(run, "ip", "netns", "del", host.name)
            run("ip", "-n", host.name, "link", "set", "lo", "up")
        if not self._beside:
            run(*outside, "link", "add", "br0", "type", "bridge")
            run(*outside, "addr", "add", f"{BRIDGE}/24", "dev", "br0")
            run(*outside, "link", "set", "br0", "up")
        for host in self.hosts.values():
            own, port = ("ip", "-n", host.name), f"port{host.address.rpartition('.')[2]}"
            peer = ("peer", "name", port, "netns", self.outside.name)
            run(*own, "link", "add", "eth0", "type", "veth", *peer)
            run(*outside, "link", "set", port, "master", "br0", "up")
            run(*own, "addr", "add", f"{host.address}/24", "dev", "eth0")
            run(*own, "link", "set", "eth0", "up")
            run(*own, "route", "add", "default", "via", BRIDGE)

    def _start_envoy(self, paths: Paths) -> None:
        self.admin = paths.admin_run / f"{Member(Pool.TRAFFIC, 0).name}.sock"
        config = bootstrap(
            Settings(), paths, Member(Pool.TRAFFIC, 0), capacity_here(ProxySettings())
        )
        (self._home / "envoy.json").write_text(json.dumps(config))
        self.log = self._home / "envoy.log"
        with self.log.open("wb") as output:
            process = subprocess.Popen(
                [
                    *(("ip", "netns", "exec", self.outside.name) if self._on_host else ()),
                    *(str(ENVOY), "-c", str(self._home / "envoy.json"), "--concurrency", "1"),
                    *("--disable-hot-restart", "-l", "warning", "--drain-time-s", str(DRAIN_TIME)),
                    *("--drain-strategy", "immediate"),
                ],
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)

    # ---- what is configured

    def workload(self, name: str, **labels: str) -> Workload:
        """Of the host of that name; its service account has the name, too. Clients, servers and
        gateways are in three namespaces, and gateways say that they are."""
        host, is_gateway = self.hosts[name], namespace_of(name) == "gateways"
        return Workload(
            uid=f"{namespace_of(name)}.{name}",
            name=name,
            namespace=namespace_of(name),
            netns=host.netns,
            service_account=name,
            addresses=(host.address,),
            enrolled=True,
            labels={"app": name, **({"meshd.io/gateway": ""} if is_gateway else {}), **labels},
        )

    def load(
        self,
        text: str,
        *workloads: Workload,
        options: MeshOptions | None = None,
        short_way: ShortWay | None = None,
        elsewhere: Iterable[Workload] = (),
    ) -> None:
        """Until Envoy has it. See ``packed``."""
        made = self.packed(
            text, *workloads, options=options, short_way=short_way, elsewhere=elsewhere
        )
        self.publish(made)

    def packed(
        self,
        text: str,
        *workloads: Workload,
        options: MeshOptions | None = None,
        short_way: ShortWay | None = None,
        elsewhere: Iterable[Workload] = (),
    ) -> Mapping[Pool, Resources]:
        """What Envoy is told. ``short_way``: for whom it is open; without, for all, where the
        options allow it. ``elsewhere``: workloads of other nodes."""
        objects = [read.object for read in read_objects(text, "test.yaml")]
        snapshot = build_snapshot(
            objects, workloads, options or MeshOptions(), {}, elsewhere=elsewhere
        )
        open_to = short_way or ShortWay(
            tuple(sorted({uri_of(one.service_account) for one in workloads})),
            tuple(sorted(one.uid for one in workloads)),
        )
        snapshot = msgspec.structs.replace(snapshot, short_way=open_to)
        compiled = self._compiler.compile(snapshot, [one.uid for one in workloads])
        for workload in workloads:
            self._certify(_identity(workload.service_account))
        # The compiler goes on from its own.
        traffic = compiled[Pool.TRAFFIC]
        secrets = {**traffic[Kind.SECRET], **self._secrets}
        compiled = {**compiled, Pool.TRAFFIC: {**traffic, Kind.SECRET: secrets}}
        return self._packer.pack(compiled)

    def publish(self, resources: Mapping[Pool, Resources]) -> None:
        """Until Envoy has it."""
        try:
            self._publisher.publish(resources)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log.read_text()[-2000:]}") from None

    def capture(self, name: str) -> None:
        """As meshd does it. A process of its own, for gRPC does not survive a fork."""
        meshctl = Path(sys.executable).with_name("meshctl")
        run(str(meshctl), "capture", "apply", "--netns", self.hosts[name].netns)

    # ---- certificates

    def _certify(self, identity: Identity) -> None:
        if identity.uri in self._secrets:
            return
        chain, key = self.certificate(identity)
        for name in (identity.uri, identity.client_secret):
            message = secret_pb2.Secret(name=name)
            message.tls_certificate.certificate_chain.inline_bytes = chain
            message.tls_certificate.private_key.inline_bytes = key
            self._secrets[name] = message
        trust = secret_pb2.Secret(name=TRUST_BUNDLE)
        trust.validation_context.trusted_ca.inline_bytes = self._authority.roots()
        self._secrets[TRUST_BUNDLE] = trust

    def rotate(self) -> None:
        """All workloads get new certificates with what is loaded next."""
        self._secrets.clear()

    def certificate(self, identity: Identity) -> tuple[bytes, bytes]:
        key = authority.new_key()
        asked = authority.request(identity, key, 3600)
        issued = asyncio.run(self._authority.sign(asked, time.time()))
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return issued.chain, private

    def holder(self, service_account: str, side: int = ssl.PROTOCOL_TLS_CLIENT) -> ssl.SSLContext:
        """What a program has that holds a certificate of the mesh and speaks for itself. A server
        wants one of its clients, too."""
        chain, key = self.certificate(_identity(service_account))
        file = self._home / f"{service_account}.pem"
        file.write_bytes(chain + key)
        context = ssl.SSLContext(side)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.load_cert_chain(file)
        if side == ssl.PROTOCOL_TLS_SERVER:
            context.load_verify_locations(cadata=self._authority.roots().decode())
            context.verify_mode = ssl.CERT_REQUIRED
        context.set_alpn_protocols(["istio-http/1.1", "istio"])
        return context


def _identity(service_account: str) -> Identity:
    return Identity("cluster.local", namespace_of(service_account), service_account)


def _authority() -> authority.Authority:
    now, key = time.time(), authority.new_key()
    root = authority.make_root(key, "cluster.local", now, 86400)
    return authority.Authority("cluster.local", key, (), root, (root,))


def headers(seen: str) -> Mapping[str, list[str]]:
    """Of a request's head as the application saw it; names in small letters."""
    found: dict[str, list[str]] = {}
    for line in seen.splitlines()[1:]:
        name, _, value = line.partition(": ")
        found.setdefault(name.lower(), []).append(value)
    return found
