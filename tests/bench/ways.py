"""The ways from a client to its server that are measured: directly, through meshd and its settings,
and through pairs of sidecars."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import subprocess
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from meshd.base.errors import MeshdError
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
MESHD: Final = "meshd"
_NETWORK: Final = f"{MESHD} over the network"
_POLICIES: Final = f"{MESHD} policies"
"""The server has an AuthorizationPolicy of ten rules, of which the last one allows the client."""
_HBONE: Final = f"{MESHD} HBONE"
COMPARED: Final = ((_NETWORK, MESHD), (_POLICIES, _NETWORK), (_HBONE, MESHD))
"""Variants, each over what it is without its setting or policy."""
_ON_ONE_NODE: Final[dict[str, dict[str, Any]]] = {
    MESHD: {},
    _NETWORK: {"proxy": {"short_way": False}},
    _POLICIES: {"proxy": {"short_way": False}},
}
_ACROSS_NODES: Final[dict[str, dict[str, Any]]] = {
    MESHD: {"proxy": {"hbone": False}},
    _HBONE: {"proxy": {"hbone": True}},
}
"""Settings by the name of the variant, which begins with ``meshd``."""
_KINDS: Final = server.PORTS
_PORTS: Final = {"http": 80, "tcp": 90, "http2": 91, "grpc": 92}
"""Of the service."""
_ADDRESS: Final = "198.19.0.10"
_SIDECAR_ADDRESS: Final = "198.19.0.11"
_PATIENCE: Final = 30.0
"""Seconds."""
FAILURES: Final = (MeshdError, OSError, ValueError, subprocess.SubprocessError)
"""What keeps a part of the bench, or a way, from being measured, and not the others."""


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


class Ways:
    """The ways of one stage. The direct one has to be there, for others are compared with it."""

    def __init__(self, direct: Way) -> None:
        self.made: dict[str, Way] = {"direct": direct}
        self.missing: dict[str, str] = {}
        """Why a way could not be made."""

    @contextlib.contextmanager
    def with_all(self, makers: Mapping[str, Making]) -> Generator[Ways]:
        """Make others; one that cannot be made leaves nothing behind, and the rest is there."""
        with contextlib.ExitStack() as stack:
            for name, making in makers.items():
                with contextlib.ExitStack() as own:
                    try:
                        self.made[name] = making(own)
                    except FAILURES as error:
                        self.missing[name] = f"{type(error).__name__}: {error}"
                    else:
                        stack.enter_context(own.pop_all())
            yield self


Making = Callable[[contextlib.ExitStack], Way]
"""Makes a way that is there until the stack is closed."""


@contextlib.contextmanager
def same_node() -> Generator[Ways]:
    """Client and server are workloads of one node, which there is with each of the settings."""
    with ground() as place:

        def meshd(number: int, name: str, stack: contextlib.ExitStack) -> Way:
            node = stack.enter_context(running({**SETTINGS, **_ON_ONE_NODE[name]}))
            objects = (_policy(),) if name == _POLICIES else ()
            return _meshd(place, f"meshd{number}", node, node, objects)

        with _stage(place, _ON_ONE_NODE, meshd) as ways:
            yield ways


@contextlib.contextmanager
def two_nodes() -> Generator[Ways]:
    """The server is a workload of one node, the client of another that has joined it."""
    control = {"address": "127.0.0.1", "port": 0}
    with ground() as place:

        def meshd(number: int, name: str, stack: contextlib.ExitStack) -> Way:
            settings = {**SETTINGS, **_ACROSS_NODES[name]}
            server_settings = {**settings, "role": "server", "node": "near", "control": control}
            near = stack.enter_context(running(server_settings))
            far = stack.enter_context(running({**settings, "node": "far"}))
            _join(far, near)
            return _meshd(place, f"meshd{number}", near, far)

        with _stage(place, _ACROSS_NODES, meshd) as ways:
            yield ways


@contextlib.contextmanager
def _stage(
    place: Ground,
    variants: Iterable[str],
    meshd: Callable[[int, str, contextlib.ExitStack], Way],
) -> Generator[Ways]:
    makers: dict[str, Making] = {
        name: functools.partial(meshd, number, name) for number, name in enumerate(variants)
    }
    for number, name in enumerate(SIDECARS):
        makers[name] = functools.partial(_sidecars, place, f"sidecar{number}", bool(number))
    with Ways(_direct(place)).with_all(makers) as ways:
        yield ways


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


def _policy() -> dict[str, Any]:
    def rule(**source: list[str]) -> dict[str, Any]:
        return {
            "from": [{"source": source}],
            "to": [{"operation": {"paths": ["/a*", "/b*"], "methods": ["PUT", "POST"]}}],
        }

    others = [rule(principals=[f"cluster.local/ns/other/sa/{name}"]) for name in "abcdefghi"]
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "ten", "namespace": SPACE},
        "spec": {"rules": [*others, {"from": [{"source": {"namespaces": [SPACE]}}]}]},
    }


def _meshd(
    place: Ground, name: str, near: Node, far: Node, objects: Sequence[dict[str, Any]] = ()
) -> Way:
    """``near`` has the server, ``far`` the client; ``objects``: what is applied besides."""
    host, client = server.start(place, f"{name}-server"), place.add(f"{name}-client")
    ports = {kind: (_PORTS[kind], _KINDS[kind]) for kind in _KINDS}
    near.apply(namespace(), service("server", _ADDRESS, "server", ports), *objects)
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


def _sidecars(place: Ground, name: str, istio: bool, _: contextlib.ExitStack) -> Way:
    """The programs are the ground's, which ends them."""
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
