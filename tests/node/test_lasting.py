"""Connections outlive every change of the configuration that does not concern them.

HTTP with keep-alive, WebSockets and plain TCP, to services and through a gateway; and they are used
once more when the proxies have nothing left that they let go.
"""

from __future__ import annotations

import http.client
import json
import socket
from typing import TYPE_CHECKING

import pytest

from tests.waiting import PATIENCE

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

    from tests.node.node import Node

GATEWAY = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: default}
spec:
  selector: {istio: lasting}
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: [shop.test MORE]}
  - {port: {number: 9000, name: tcp, protocol: TCP}, hosts: ["*"]}
---
"""
ROUTES = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: edge, namespace: default}
spec:
  hosts: [shop.test]
  gateways: [edge]
  http: [{route: [{destination: {host: server.mesh.svc.cluster.local, port: {number: 80}}}]}]
  tcp: [{route: [{destination: {host: server.mesh.svc.cluster.local, port: {number: 91}}}]}]
---
"""
SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: more, namespace: mesh}
spec: {selector: {app: SELECTED}, ports: [PORT]}
---
"""
CHANGES = {
    "a port that the pods did not serve before": SERVICE.replace("SELECTED", "server").replace(
        "PORT", "{name: http-more, port: 85, targetPort: 5555}"
    ),
    "an undeclared port that they did not serve before": SERVICE.replace(
        "SELECTED", "server"
    ).replace("PORT", "{name: more, port: 85, targetPort: 5555}"),
    **{
        f"another service of port {port}": SERVICE.replace("SELECTED", "other").replace(
            "PORT", f"{{name: {name}, port: {port}, targetPort: 8080}}"
        )
        for name, port in (("tls", 80), ("any", 80), ("https", 70), ("http", 91), ("any", 443))
    },
    "routes and rules of a service": """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: server, namespace: mesh}
spec:
  hosts: [server]
  http: [{timeout: 5s, route: [{destination: {host: server, subset: all}}]}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: server, namespace: mesh}
spec:
  host: server
  trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}
  subsets: [{name: all, labels: {app: server}}]
---
""",
    "an endpoint more": """
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: more, namespace: mesh}
spec: {address: EXTERNAL, labels: {app: server}, weight: 1}
---
""",
    "services outside": """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: wild, namespace: mesh}
spec:
  hosts: ["*.wild.test"]
  resolution: DYNAMIC_DNS
  ports: [{number: 80, name: http, protocol: HTTP}, {number: 443, name: tls, protocol: TLS}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: network, namespace: mesh}
spec:
  hosts: [network.test]
  addresses: [198.19.0.0/16]
  resolution: NONE
  ports: [{number: 9999, name: tcp, protocol: TCP}]
---
""",
    "a policy": """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: mesh}
spec: {mtls: {mode: STRICT}}
---
""",
    "a host of the gateway": GATEWAY.replace(" MORE", ", more.test"),
    "another Gateway at the same port": """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: aaa, namespace: default}
spec:
  selector: {istio: lasting}
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: [aaa.test]}
  - {port: {number: 8000, name: new, protocol: HTTP}, hosts: [shop.test]}
---
""",
}
HELD = (
    *("http,server,80", "ws,server,80", "http,server,70", "ws,server,70"),
    *("tcp,server,91", "tcp,server,71", "http,bare,8080", "tcp,bare,9000"),
)


class Holder:
    """Connections that a pod keeps."""

    def __init__(self, node: Node, pod: str, *held: str) -> None:
        titled = [f"{one}={one}" for one in held]
        self._process: subprocess.Popen[str] = node.begin(
            pod, "python3", "/srv/app/hold.py", *titled
        )
        assert self._answer() == {}

    def _answer(self) -> dict[str, str]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        assert line, self._process.communicate()[1]
        return json.loads(line)

    def ended(self) -> dict[str, str]:
        """Those that have ended since the last time."""
        assert self._process.stdin
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="module")
def gateway(node: Node) -> Iterator[str]:
    """Its address."""
    write = node.write
    pod = write.deployment("lasting", "istio-system", labels={"istio": "lasting"})
    node.up(write.dump(write.namespace("istio-system", enrolled=True), pod))
    with node.applied(GATEWAY.replace(" MORE", "") + ROUTES):
        yield node.pod("lasting.istio-system").plan.address
    node.up(write.dump(pod | {"spec": pod["spec"] | {"replicas": 0}}))
    node.eventually(node.is_well, "all is well again")


@pytest.fixture(scope="module")
def holders(node: Node, gateway: str) -> Iterator[list[Holder]]:
    made: list[Holder] = []
    try:
        made.append(Holder(node, "alice", *HELD))
        through = [f"{how},{gateway},80,shop.test" for how in ("http", "ws")]
        made.append(Holder(node, "stranger.outside", *through, f"tcp,{gateway},9000"))
        yield made
    finally:
        for holder in made:
            holder.close()


def draining(admin: Path) -> int:
    """Listeners and filter chains that a proxy is about to let go."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE)
        connection.connect(str(admin))
        asked = http.client.HTTPConnection("admin")
        asked.sock = connection
        asked.request("GET", "/stats?filter=_draining$")
        lines = asked.getresponse().read().decode().splitlines()
    return sum(int(line.rpartition(":")[2]) for line in lines if line)


def ended(node: Node, holders: list[Holder]) -> dict[str, str]:
    """When the proxies have let go what they had to."""
    members = list(node.paths.admin_run.glob("proxy-*.sock"))
    assert members
    node.eventually(lambda: not any(map(draining, members)), "nothing is draining")
    return {name: how for holder in holders for name, how in holder.ended().items()}


@pytest.mark.parametrize("change", CHANGES)
def test_open_connections_outlive_a_change(node: Node, holders: list[Holder], change: str) -> None:
    """The change, and that it is undone."""
    if change == "a host of the gateway":
        node.apply(CHANGES[change])
        assert ended(node, holders) == {}
        node.apply(GATEWAY.replace(" MORE", ""))
    else:
        external = node.pod("external.outside").plan.address
        with node.applied(CHANGES[change].replace("EXTERNAL", external)):
            assert ended(node, holders) == {}
    assert ended(node, holders) == {}
