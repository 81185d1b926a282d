"""Near endpoints first, over EDS and with the pool that clients of several localities share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.node.node import Node

RULE = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: spread, namespace: mesh}
spec:
  host: spread
  trafficPolicy:
    outlierDetection: {consecutive5xxErrors: 3, maxEjectionPercent: 100}
"""


def server(node: Node, name: str, *, replicas: int = 1) -> dict[str, Any]:
    labels = {"part-of": "spread", "istio-locality": f"us.{name}"}
    return node.write.deployment(
        name, program="server.py", labels=labels, ready=8080, replicas=replicas
    )


def client(node: Node, where: str, *, replicas: int = 1) -> dict[str, Any]:
    labels = {"istio-locality": f"us.{where}"}
    return node.write.deployment(f"in-{where}", labels=labels, replicas=replicas)


@pytest.fixture(scope="module")
def everywhere(node: Node) -> Iterator[None]:
    service = node.write.service("spread")
    service["spec"]["selector"] = {"part-of": "spread"}
    pods = [kind(node, where) for kind in (server, client) for where in ("west", "east")]
    node.up(node.write.dump(service, *pods))
    yield
    pods = [kind(node, at, replicas=0) for kind in (server, client) for at in ("west", "east")]
    node.up(node.write.dump(*pods))
    node.eventually(node.is_well, "all is well again")


def is_served_by(node: Node, client: str, name: str) -> bool:
    answers = [node.curl(client, "http://spread/who") for _ in range(8)]
    pods = {str(one.json()["pod"]).partition("-")[0] for one in answers if one.output}
    return pods == {name}


@pytest.mark.usefixtures("everywhere")
def test_each_client_is_served_where_it_is_and_elsewhere_when_nothing_is_there(node: Node) -> None:
    with node.applied(RULE):
        node.eventually(lambda: is_served_by(node, "in-west", "west"), "west serves west")
        node.eventually(lambda: is_served_by(node, "in-east", "east"), "east serves east")
        told = node.meshctl("explain", "in-west", "spread:80", "-n", "mesh").output
        assert "priority 0, us/west" in told
        assert "priority 1, us/east" in told
        node.up(node.write.dump(server(node, "west", replicas=0)))
        node.eventually(lambda: is_served_by(node, "in-west", "east"), "east serves west")
        node.up(node.write.dump(server(node, "west")))
        node.eventually(lambda: is_served_by(node, "in-west", "west"), "west serves west again")
