"""A Gateway of one namespace makes a gateway of another one's workload: settings decide whether."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.node.node import Node

STRICT = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: bank}
spec: {mtls: {mode: STRICT}}
"""
THEFT = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: way-in, namespace: NAMESPACE}
spec:
  selector: {app: till}
  servers:
  - {port: {number: 8443, name: http, protocol: HTTP}, hosts: ["*"]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: way-on, namespace: NAMESPACE}
spec:
  hosts: ["*"]
  gateways: [way-in]
  http: [{route: [{destination: {host: vault.bank.svc.cluster.local, port: {number: 80}}}]}]
"""
"""The requests of strangers are to reach the vault in the name of the till."""
TILL = "URI=spiffe://cluster.local/ns/bank/sa/till"


def bank(make: Callable[..., Node], selection: str) -> Node:
    """A node with a vault that takes mutual TLS only, and a stranger outside the mesh."""
    place = make(mesh={"gateway_selection": selection} if selection else {})
    place.start()
    write = place.write
    place.up(
        write.dump(
            write.namespace("bank", enrolled=True),
            write.namespace("thief", enrolled=True),
            write.namespace("outside", enrolled=False),
            write.deployment("vault", "bank", program="server.py", ready=8080),
            write.service("vault", "bank"),
            write.deployment("till", "bank"),
            write.deployment("stranger", "outside"),
        )
    )
    place.apply(STRICT)
    place.eventually(place.is_well, "all is well")
    vault = place.pod("vault.bank").plan.address
    refused = place.status_of("stranger.outside", f"http://{vault}:8080/who")
    assert refused == "000"
    return place


def warning(place: Node, text: str) -> str:
    done = place.meshctl("apply", "--wait", "-f", "-", text=text)
    assert done.status == 0, done.errors
    return done.errors


def through_the_till(place: Node) -> list[str]:
    """Who the vault sees behind a request of the stranger; nobody: it is not reached."""
    till = place.pod("till.bank").plan.address
    done = place.curl("stranger.outside", f"http://{till}:8443/who")
    return json.loads(done.output)["xfcc"] if done.output.startswith("{") else []


def in_its_own_name(place: Node) -> bool:
    (seen,) = place.answers("till.bank", "http", "vault.bank:80", 1)
    return TILL in str(seen.get("xfcc"))


def test_as_in_istio_a_gateway_of_any_namespace_is_served_and_apply_warns(
    make: Callable[..., Node],
) -> None:
    place = bank(make, "any-namespace")
    said = warning(place, THEFT.replace("NAMESPACE", "thief"))
    assert "makes a gateway of till" in said
    assert "of namespace bank: requests through this Gateway are sent in its name" in said
    place.eventually(lambda: TILL in str(through_the_till(place)), "the stranger comes in")
    place.close()


@pytest.mark.parametrize("selection", ["", "own-namespace"])
def test_workloads_are_not_made_gateways_by_others(
    make: Callable[..., Node], selection: str
) -> None:
    place = bank(make, selection)
    said = warning(place, THEFT.replace("NAMESPACE", "thief"))
    assert "has no effect: the workloads with these labels are in other namespaces (bank)" in said
    assert in_its_own_name(place)
    assert through_the_till(place) == []
    warning(place, THEFT.replace("NAMESPACE", "bank"))
    place.eventually(
        lambda: TILL in str(through_the_till(place)), "a Gateway of its own namespace is served"
    )
    place.close()
