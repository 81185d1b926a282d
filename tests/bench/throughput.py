"""Requests a second and latency: directly, through meshd, and through a pair of sidecars.

Rounds alternate between the three, so that what disturbs the machine disturbs all of them.
"""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from meshd.base.errors import SystemRefusedError
from meshd.proxy import binary
from meshd.settings import ProxySettings
from tests.bench import load, server, sidecars
from tests.bench.figures import Json, Ratio, Series
from tests.bench.ground import Ground, Host
from tests.bench.load import Load
from tests.bench.node import SPACE, Node, namespace, service, workload

VARIANTS: Final = ("direct", "meshd", "sidecars")
COMPARED: Final = (("meshd", "sidecars"), ("meshd", "direct"), ("sidecars", "direct"))
_KINDS: Final = server.PORTS
_PORTS: Final = {"http": 80, "tcp": 90, "http2": 91}
"""Of the service."""
_MESH_ADDRESS: Final = "198.19.0.10"
_SIDECAR_ADDRESS: Final = "198.19.0.11"
_HOST: Final = f"server.{SPACE}.svc.cluster.local"


@dataclasses.dataclass(frozen=True, slots=True)
class Scenario:
    name: str
    kind: str
    keep_alive: bool = True

    @property
    def unit(self) -> str:
        return "requests/s" if self.keep_alive else "connections/s"


SCENARIOS: Final = (
    Scenario("http", "http"),
    Scenario("tcp", "tcp"),
    Scenario("http2", "http2"),
    Scenario("http, a connection each", "http", keep_alive=False),
    Scenario("tcp, a connection each", "tcp", keep_alive=False),
)


@dataclasses.dataclass(frozen=True, slots=True)
class Way:
    """How one client reaches its server."""

    client: Host
    address: str
    ports: Mapping[str, int]

    def load(self, scenario: Scenario, seconds: float) -> Load:
        """Raises SystemRefusedError when nothing is answered."""
        url = f"http://{self.address}:{self.ports[scenario.kind]}/"
        try:
            if scenario.kind == "http2":
                return self._h2load(url, seconds)
            command = load.wrk(url, _HOST, seconds, keep_alive=scenario.keep_alive)
            return load.parse_wrk(self.client.run(command, timeout=seconds + 20))
        except (ValueError, subprocess.SubprocessError) as error:
            raise SystemRefusedError(f"{scenario.name} to {url}: {error}") from None

    def _h2load(self, url: str, seconds: float) -> Load:
        log = self.client.path.with_suffix(".h2load")
        try:
            command = load.h2load(url, _HOST, seconds, str(log))
            text = self.client.run(command, timeout=seconds + 20)
            return load.parse_h2load(text, log.read_text(encoding="ascii"))
        finally:
            log.unlink(missing_ok=True)


def prepare(ground: Ground, node: Node) -> dict[str, Way]:
    """The three pairs of client and server."""
    return {
        "direct": _direct(ground),
        "meshd": _meshd(ground, node),
        "sidecars": _sidecars(ground),
    }


def _direct(ground: Ground) -> Way:
    host = server.start(ground, "direct-server")
    return Way(ground.add("direct-client"), host.address, _KINDS)


def _meshd(ground: Ground, node: Node) -> Way:
    host = server.start(ground, "server")
    client = ground.add("client")
    ports = {name: (_PORTS[name], _KINDS[name]) for name in _KINDS}
    node.apply(namespace(), service("server", _MESH_ADDRESS, "server", ports))
    node.register(workload(host, "server"), workload(client, "client"))
    return Way(client, _MESH_ADDRESS, _PORTS)


def _sidecars(ground: Ground) -> Way:
    host, client = server.start(ground, "sidecar-server"), ground.add("sidecar-client")
    directory = ground.directory / "sidecars"
    directory.mkdir()
    sidecars.write_certificates(directory)
    sidecars.write_bootstraps(directory, host.address, _KINDS)
    envoy = str(binary.find(ProxySettings()))
    for place, name, address, ports, port in (
        (host, "server", host.address, _KINDS, sidecars.INBOUND),
        (client, "client", _SIDECAR_ADDRESS, _PORTS, sidecars.OUTBOUND),
    ):
        config = str(directory / f"{name}.json")
        arguments = ("--concurrency", "1", "--disable-hot-restart", "--log-level", "warning")
        ground.start(place, [envoy, "--config-path", config, *arguments])
        rules = sidecars.redirections(address, ports, inbound=place is host)
        subprocess.run(
            place.inside(["iptables-restore", "--noflush"]), input=rules, text=True, check=True
        )
        server.listening(place, port)
    return Way(client, _SIDECAR_ADDRESS, _PORTS)


def measure(
    ways: Mapping[str, Way], rounds: int, seconds: float, progress: Callable[[str], None]
) -> list[Json]:
    """For each scenario its figures and ratios. Raises SystemRefusedError."""
    return [
        _as_json(scenario, _rounds(ways, scenario, rounds, seconds, progress))
        for scenario in SCENARIOS
    ]


def _rounds(
    ways: Mapping[str, Way],
    scenario: Scenario,
    rounds: int,
    seconds: float,
    progress: Callable[[str], None],
) -> dict[str, list[Load]]:
    found: dict[str, list[Load]] = {name: [] for name in ways}
    for way in ways.values():
        way.load(scenario, 1)  # connections and certificates are there before anything counts
    for number in range(rounds):
        for name in _turned(list(ways), number):
            progress(f"{scenario.name}: {name}, round {number + 1} of {rounds}")
            found[name].append(ways[name].load(scenario, seconds))
    return found


def _turned(names: list[str], number: int) -> Iterator[str]:
    """Each round begins with another one, so that none always comes after the same."""
    start = number % len(names)
    yield from names[start:] + names[:start]


def _as_json(scenario: Scenario, found: Mapping[str, list[Load]]) -> Json:
    series = {
        name: (
            Series("rate", scenario.unit, tuple(load.rate for load in loads)),
            Series("p50", "s", tuple(load.p50 for load in loads)),
            Series("p99", "s", tuple(load.p99 for load in loads)),
        )
        for name, loads in found.items()
    }
    ratios = [
        Ratio(f"{over}/{under} {left.name}", left, right)
        for over, under in COMPARED
        for left, right in zip(series[over], series[under], strict=True)
    ]
    return {
        "scenario": scenario.name,
        "connections": load.CONNECTIONS,
        "variants": {
            name: {
                "figures": [one.as_json() for one in series[name]],
                "failed": sum(load.failed for load in loads),
            }
            for name, loads in found.items()
        },
        "ratios": [ratio.as_json() for ratio in ratios],
    }
