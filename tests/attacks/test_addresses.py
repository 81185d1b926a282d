"""A neighbour on the same switch, root in its own namespace, takes addresses of others."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from meshd.pods.addresses import SWITCH, Subnet
from meshd.pods.network import entered
from tests.node.process import Process, run
from tests.waiting import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.node.node import Node

STRICT = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict, namespace: mesh}
spec: {mtls: {mode: STRICT}}
"""
PROBES = ("169.254.7.127", "fd16:9254:7127:1337:ffff:ffff:ffff:ffff")
"""Where a kubelet's probes come from in Istio's ambient mode, which lets them pass."""
SERVE = """
import http.server, sys, threading
server = http.server.HTTPServer(("", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler)
threading.Thread(target=server.serve_forever, daemon=True).start()
sys.stdin.read()
"""
FORGED = "x-forwarded-client-cert: By=x;URI=spiffe://cluster.local/ns/mesh/sa/alice"


class Mallory:
    """Root in the namespace of a pod outside the mesh."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.state = node.pod("stranger.outside")

    def run(self, *command: str) -> Process:
        return run(["nsenter", f"--net={self.state.netns}", *command], {}, "", 2 * PATIENCE)

    def takes(self, address: str) -> None:
        v6 = ":" in address
        done = self.run(
            *("ip", "address", "replace", f"{address}/{128 if v6 else 32}", "dev", "eth0"),
            *(["nodad"] if v6 else []),
        )
        assert done.status == 0, done.errors

    def gives_back(self, address: str) -> None:
        length = 128 if ":" in address else 32
        self.run("ip", "address", "del", f"{address}/{length}", "dev", "eth0")

    def asks(self, url: str, source: str = "") -> str:
        """The status code that came back; 000: none did."""
        interface = ("--interface", source) if source else ()
        done = self.run(
            *("curl", "-g", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "1"),
            *(*interface, "-H", FORGED, url),
        )
        return done.output[-3:]


@pytest.fixture(scope="module")
def mallory(node: Node) -> Iterator[Mallory]:
    with node.applied(STRICT):
        made = Mallory(node)
        address = node.pod("server").plan.address
        node.eventually(lambda: made.asks(f"http://{address}:8080/who") == "000", "it is strict")
        yield made


@pytest.mark.parametrize("taken", PROBES)
def test_the_address_of_health_probes_passes_no_policy(
    node: Node, mallory: Mallory, taken: str
) -> None:
    plan = node.pod("server").plan
    target = f"[{plan.address_v6}]" if ":" in taken else plan.address
    mallory.takes(taken)
    try:
        assert mallory.asks(f"http://{target}:8080/who", taken) == "000"
    finally:
        mallory.gives_back(taken)


def test_packets_with_the_source_address_of_another_pod_do_not_arrive(
    node: Node, mallory: Mallory
) -> None:
    """It would be answered to its owner; what must not be is that the switch learns from it."""
    subnet = Subnet.parse(node.cidr)
    server, alice = node.pod("server").plan, node.pod("alice").plan
    for taken, target in (
        (alice.address, server.address),
        (subnet.address(SWITCH), server.address),
        (alice.address_v6, server.address_v6),
    ):
        mallory.takes(taken)
        try:
            before = arrived(node.pod("server").netns)
            mallory.run("ping", "-n", "-c", "2", "-W", "1", "-i", "0.2", "-I", taken, target)
            assert arrived(node.pod("server").netns) == before
        finally:
            mallory.gives_back(taken)
    assert node.status_of("alice", "http://server/who") == "200"


def test_the_port_of_hbone_is_behind_the_same_policy(node: Node, mallory: Mallory) -> None:
    alice = node.pod("alice").plan.address
    serving = node.begin("alice", sys.executable, "-c", SERVE, "15008")
    try:
        node.eventually(
            lambda: node.status_of("alice", f"http://{alice}:15008/") == "200", "it listens"
        )
        assert mallory.asks(f"http://{alice}:15008/") == "000"
    finally:
        serving.communicate()


def arrived(netns: Path) -> int:
    """ICMP echo requests that the namespace has been sent."""
    with entered(netns):
        text = subprocess.run(
            ["nstat", "-a", "-s", "-z", "IcmpInEchos", "Icmp6InEchos"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Icmp"))
