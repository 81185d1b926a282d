"""The ways from a client to its server that are measured: directly, through meshd and its settings,
and through pairs of sidecars."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any, Final

from meshd.proxy import binary
from meshd.settings import ProxySettings
from tests.bench import server, sidecars
from tests.bench.ground import Ground, Host, ground
from tests.bench.node import (
    SPACE,
    Node,
    cpu_of,
    eventually,
    namespace,
    pool,
    running,
    service,
    workload,
)

SIDECARS: Final = ("sidecars", "like Istio's")
"""Bare ones, and those that are configured as Istio's are."""
HOST: Final = f"server.{SPACE}.svc.cluster.local"
SETTINGS: Final[dict[str, Any]] = {
    "mesh": {"access_log": "off"},
    "capture": {"connections_per_second": 0},
}
"""As the sidecars have it."""
_ON_ONE_NODE: Final[dict[str, dict[str, Any]]] = {
    "meshd": {"proxy": {"short_way": False}},
    "meshd short way": {"proxy": {"short_way": True}},
}
_ACROSS_NODES: Final[dict[str, dict[str, Any]]] = {"meshd": {}}
"""Settings by the name of the variant, which begins with ``meshd``."""
_KINDS: Final = server.PORTS
_PORTS: Final = {"http": 80, "tcp": 90, "http2": 91, "grpc": 92}
"""Of the service."""
_ADDRESS: Final = "198.19.0.10"
_SIDECAR_ADDRESS: Final = "198.19.0.11"
_PATIENCE: Final = 30.0
"""Seconds."""


@dataclasses.dataclass(frozen=True, slots=True)
class Way:
    """How one client reaches its server."""

    client: Host
    address: str
    ports: Mapping[str, int]
    cpu: Callable[[], float]
    """Seconds that the proxies of both sides have taken so far."""
    memory: Callable[[], int]
    """Bytes of the proxies of both sides, in proportion where they share them."""


@contextlib.contextmanager
def same_node() -> Generator[dict[str, Way]]:
    """Client and server are workloads of one node, which there is with each of the settings."""
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(ground())
        ways = {"direct": _direct(place)}
        for number, (name, more) in enumerate(_ON_ONE_NODE.items()):
            node = stack.enter_context(running({**SETTINGS, **more}))
            ways[name] = _meshd(place, f"meshd{number}", node, node)
        yield ways | _all_sidecars(place)


@contextlib.contextmanager
def two_nodes() -> Generator[dict[str, Way]]:
    """The server is a workload of one node, the client of another that has joined it."""
    control = {"address": "127.0.0.1", "port": 0}
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(ground())
        ways = {"direct": _direct(place)}
        for number, (name, more) in enumerate(_ACROSS_NODES.items()):
            settings = {**SETTINGS, **more}
            server_settings = {**settings, "role": "server", "node": "near", "control": control}
            near = stack.enter_context(running(server_settings))
            far = stack.enter_context(running({**settings, "node": "far"}))
            _join(far, near)
            ways[name] = _meshd(place, f"meshd{number}", near, far)
        yield ways | _all_sidecars(place)


STAGES: Final = {"same node": same_node, "two nodes": two_nodes}


def _join(agent: Node, server_node: Node) -> None:
    port = server_node.paths.control_port
    eventually(port.exists, "the server listens", _PATIENCE)
    token = json.loads(server_node.meshctl("token", "create", "-o", "json"))["token"]
    number = port.read_text(encoding="ascii").strip()
    agent.meshctl("join", f"127.0.0.1:{number}", "--token", token)


def _direct(place: Ground) -> Way:
    host = server.start(place, "direct-server")
    return Way(place.add("direct-client"), host.address, _KINDS, lambda: 0.0, lambda: 0)


def _meshd(place: Ground, name: str, near: Node, far: Node) -> Way:
    """``near`` has the server, ``far`` the client."""
    host, client = server.start(place, f"{name}-server"), place.add(f"{name}-client")
    ports = {kind: (_PORTS[kind], _KINDS[kind]) for kind in _KINDS}
    near.apply(namespace(), service("server", _ADDRESS, "server", ports))
    near.register(workload(host, "server"))
    nodes = (near,) if far is near else (near, far)
    if far is not near:
        eventually(lambda: far.has("svc/server"), "the agent has the service", _PATIENCE)
    far.register(workload(client, "client"))

    def proxies() -> float:
        return sum(one.cpu for node in nodes for one in pool(node.processes()))

    def memory() -> int:
        return sum(one.proportional for node in nodes for one in pool(node.processes()))

    return Way(client, _ADDRESS, _PORTS, proxies, memory)


def _all_sidecars(place: Ground) -> dict[str, Way]:
    return {
        name: _sidecars(place, f"sidecar{number}", istio=bool(number))
        for number, name in enumerate(SIDECARS)
    }


def _sidecars(place: Ground, name: str, *, istio: bool) -> Way:
    host, client = server.start(place, f"{name}-server"), place.add(f"{name}-client")
    directory = place.directory / name
    directory.mkdir()
    sidecars.write_certificates(directory)
    sidecars.write_bootstraps(directory, host.address, _KINDS, _PORTS, istio=istio)
    envoy = str(binary.find(ProxySettings()))
    pids: list[int] = []
    for side, what, address, ports, port in (
        (host, "server", host.address, _KINDS, sidecars.INBOUND),
        (client, "client", _SIDECAR_ADDRESS, _PORTS, sidecars.OUTBOUND),
    ):
        config = str(directory / f"{what}.json")
        arguments = ("--concurrency", "1", "--disable-hot-restart", "--log-level", "error")
        program = place.start(side, [envoy, "--config-path", config, *arguments])
        pids.append(program.pid)
        rules = sidecars.redirections(address, ports, inbound=side is host, istio=istio)
        subprocess.run(
            side.inside(["iptables-restore", "--noflush"]), input=rules, text=True, check=True
        )
        server.listening(side, port)
    return Way(
        client,
        _SIDECAR_ADDRESS,
        _PORTS,
        lambda: sum(map(cpu_of, pids)),
        lambda: sum(map(_proportional, pids)),
    )


def _proportional(pid: int) -> int:
    """Return the bytes that a process has, each shared page in proportion."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    (line,) = (line for line in text.splitlines() if line.startswith("Pss:"))
    return int(line.split()[1]) * 1024
