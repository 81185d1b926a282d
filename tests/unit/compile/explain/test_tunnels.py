"""What explain says of endpoints that are not reached by tunnels."""

from __future__ import annotations

import msgspec
import pytest

from meshd import wire
from meshd.api.read import read_objects
from meshd.compile.explain.request import explain
from meshd.model.hbone import PROTOCOL
from meshd.model.snapshot import MeshOptions
from meshd.model.workload import Workload
from meshd.registry.registry import build_snapshot

_SERVICE = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: db, namespace: servers, annotations: {meshd.io/tunnels: "true"}}
spec:
  hosts: [db.test]
  addresses: [198.19.0.1]
  location: MESH_INTERNAL
  resolution: %s
  workloadSelector: {labels: {app: db}}
  ports:
  - {number: 72, name: udp, protocol: UDP}
  - {number: 70, name: tcp, protocol: TCP}
  - {number: 72, name: tcp-too, protocol: TCP}
  - {number: 80, name: http, protocol: HTTP}
  - {number: 15021, name: tcp-proxy, protocol: TCP}
"""
_RULE = """
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: db, namespace: servers}
spec: {host: db.test, trafficPolicy: {tls: {mode: DISABLE}}}
"""


def workload(name: str, namespace: str, number: int, node: str = "") -> Workload:
    return Workload(
        uid=f"{namespace}.{name}",
        name=name,
        namespace=namespace,
        netns="" if node else f"/run/netns/{name}",
        service_account=name,
        labels={"app": name},
        addresses=(f"198.18.0.{number}",),
        node=node,
    )


_CLIENT = workload("client", "clients", 1)
_FAR = msgspec.structs.replace(workload("db", "servers", 2, "far"), protocols=(PROTOCOL,))
_OLD = workload("db", "servers", 3, "old")


def told(
    port: int, *elsewhere: Workload, more: str = "", here: bool = False, text: str = _SERVICE
) -> list[str]:
    """What is said of tunnels, without the stage."""
    workloads = (_CLIENT, workload("db", "servers", 4)) if here else (_CLIENT,)
    found = stages(port, workloads, elsewhere, more, text=text)
    return [one.detail for one in found if one.stage == "tunnels"]


def stages(
    port: int,
    workloads: tuple[Workload, ...],
    elsewhere: tuple[Workload, ...],
    more: str = "",
    *,
    resolution: str = "STATIC",
    on: bool = True,
    text: str = _SERVICE,
) -> tuple[wire.Step, ...]:
    objects = [read.object for read in read_objects(text % resolution + more, "mesh.yaml")]
    options = MeshOptions(hbone=on, node="here")
    snapshot = build_snapshot(objects, workloads, options, {}, elsewhere=elsewhere)
    found = explain(
        snapshot, _CLIENT, wire.Explain("client", f"db.test:{port}"), lambda _key, _field: ""
    )
    return tuple(found.stages)


def test_nothing_is_said_of_an_endpoint_that_has_a_tunnel() -> None:
    assert told(70, _FAR) == []
    endpoints = [one.detail for one in stages(70, (_CLIENT,), (_FAR,)) if one.stage == "endpoint"]
    assert endpoints == [
        "198.18.0.2:70 servers/db (tunnel, to spiffe://cluster.local/ns/servers/sa/db)"
    ]


@pytest.mark.parametrize(
    ("port", "reason"),
    [
        (70, "none to 198.18.0.3:70: its node does not say that it can be reached so"),
        (15021, "none to 198.18.0.3:15021: the port is one of a proxy's"),
        (80, "none: what may be HTTP is not tunneled"),
    ],
)
def test_the_reason_is_told_where_there_is_no_tunnel(port: int, reason: str) -> None:
    assert told(port, _OLD) == [reason]


def test_a_service_that_tunnels_do_not_suit_is_told_of() -> None:
    text = _SERVICE.replace('tunnels: "true"', 'tunnels: "yes"')
    (reason,) = told(70, _FAR, text=text)
    assert reason == 'none: db.test has no annotation meshd.io/tunnels: "true"'


def test_an_endpoint_of_this_node_says_so() -> None:
    assert told(70, _FAR, here=True) == ["none to 198.18.0.4:70: it runs on this node"]


def test_a_port_that_is_declared_for_udp_too_is_no_other() -> None:
    assert told(72, _FAR) == []


def test_a_rule_that_keeps_all_connections_from_tunnels_is_told_once() -> None:
    (reason,) = told(70, _FAR, _OLD, more=_RULE)
    assert reason == "none: a DestinationRule asks for tls.mode DISABLE"


def test_the_chooser_of_endpoints_is_told_where_it_is_not_the_proxy() -> None:
    found = stages(70, (_CLIENT,), (_FAR,), resolution="NONE")
    (reason,) = [one.detail for one in found if one.stage == "tunnels"]
    assert reason.startswith("none: the proxy is given no endpoints")


def test_nothing_is_said_while_the_setting_is_off() -> None:
    found = stages(80, (_CLIENT,), (_OLD,), on=False)
    assert [one for one in found if one.stage == "tunnels"] == []
