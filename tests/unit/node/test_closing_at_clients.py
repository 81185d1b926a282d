"""Clients of a node follow what closes before it is compiled.

The way out of the mesh is closed, and workloads that come to take mutual TLS only are spoken to in
it.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2

from meshd.api.read import read_objects
from meshd.compile.names import BLACK_HOLE_CLUSTER, PASSTHROUGH_CLUSTER
from meshd.config import withheld
from meshd.xds.resources import CLUSTER, ENDPOINTS
from tests.unit.node.test_closing_of_a_node import SERVICE, WEB, Mesh, close, damage, lose, policy

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from meshd.api.base import Key, Object

WEB_CLUSTER = "outbound|80||web.shop.svc.cluster.local"
DISABLE = "{mtls: {mode: DISABLE}}"
STRICT = "{mtls: {mode: STRICT}}"
PORT_DISABLED = (
    "{selector: {matchLabels: {app: web}}, mtls: {mode: STRICT},"
    " portLevelMtls: {80: {mode: DISABLE}}}"
)
GATEWAY = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: web, namespace: shop}
spec:
  selector: {app: web}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]
"""


def running(directory: Path, *texts: str) -> Mesh:
    """Return a mesh of which these are compiled, and in which another compilation runs."""
    (directory / "lib").mkdir()
    mesh = Mesh(directory)
    mesh.apply(SERVICE, *texts)
    mesh.settle()
    begin(mesh)
    return mesh


def begin(mesh: Mesh, name: str = "other") -> None:
    mesh.apply(SERVICE.replace("name: web", f"name: {name}"))
    mesh.read()


def cluster(mesh: Mesh, name: str) -> cluster_pb2.Cluster:
    return cluster_pb2.Cluster.FromString(mesh.published[-1].of_type(CLUSTER)[name].body)


def speaks_mutual_tls(mesh: Mesh) -> bool:
    """Whether the node's clients speak it to the workload, and know by whom it is answered."""
    name = mesh.published[-1].of_type(CLUSTER)[WEB_CLUSTER].endpoints
    found = endpoint_pb2.ClusterLoadAssignment.FromString(
        mesh.published[-1].of_type(ENDPOINTS)[name].body
    )
    (endpoint,) = (one for each in found.endpoints for one in each.lb_endpoints)
    matches = endpoint.metadata.filter_metadata["envoy.transport_socket_match"]
    verified = b"/ns/shop/sa/" in mesh.published[-1].of_type(CLUSTER)[WEB_CLUSTER].body
    is_told = dict(matches) == {"tlsMode": "istio"}
    assert verified is is_told
    return is_told


def lets_out(mesh: Mesh) -> bool:
    return cluster(mesh, PASSTHROUGH_CLUSTER).type == cluster_pb2.Cluster.ORIGINAL_DST


CLOSINGS: dict[str, tuple[str, Callable[[Mesh], None]]] = {
    "a policy of the namespace": (policy(DISABLE), close(STRICT)),
    "a policy of the mesh": (
        policy(DISABLE, "istio-system"),
        close(STRICT, "istio-system"),
    ),
    "a policy of the workload": (
        policy(DISABLE),
        lambda mesh: mesh.apply(
            policy("{selector: {matchLabels: {app: web}}, mtls: {mode: STRICT}}", name="own")
        ),
    ),
    "an exception for a port that is gone": (policy(PORT_DISABLED), close(STRICT)),
    "a policy that is not in force any more": (policy(DISABLE), damage),
    "lost configuration": (policy(DISABLE), lose),
}


@pytest.mark.parametrize(("before", "closes"), CLOSINGS.values(), ids=CLOSINGS)
def test_clients_speak_mutual_tls_as_soon_as_a_workload_takes_nothing_else(
    tmp_path: Path, before: str, closes: Callable[[Mesh], None]
) -> None:
    mesh = running(tmp_path, before)
    assert not speaks_mutual_tls(mesh)
    closes(mesh)
    mesh.publishing.finish_closing()
    assert not mesh.takes_plaintext
    assert speaks_mutual_tls(mesh)
    assert mesh.publishing.busy
    mesh.publishing.finish_publication()  # of what was read before
    assert speaks_mutual_tls(mesh)
    told = mesh.published[-1]
    mesh.settle()
    assert speaks_mutual_tls(mesh)
    for kind in (CLUSTER, ENDPOINTS):  # so that proxies have nothing to take again
        mine = {name for name in told.of_type(kind) if "web.shop" in name}
        assert {told.version(kind, name) for name in mine} == {
            mesh.published[-1].version(kind, name) for name in mine
        }


def test_what_a_workload_does_not_take_yet_is_not_spoken(tmp_path: Path) -> None:
    mesh = running(tmp_path, policy(DISABLE))
    mesh.apply(policy("{mtls: {mode: PERMISSIVE}}"))
    mesh.publishing.finish_closing()
    assert not speaks_mutual_tls(mesh)


def test_what_opens_is_spoken_to_as_it_was_until_it_is_compiled(tmp_path: Path) -> None:
    mesh = running(tmp_path, policy(STRICT))
    mesh.apply(policy(DISABLE))
    mesh.publishing.finish_closing()
    assert speaks_mutual_tls(mesh)
    mesh.settle()
    assert not speaks_mutual_tls(mesh)


def test_the_port_of_a_gateway_is_spoken_to_as_before(tmp_path: Path) -> None:
    mesh = running(tmp_path, GATEWAY, policy(DISABLE))
    mesh.apply(policy(STRICT))
    mesh.publishing.finish_closing()
    assert not speaks_mutual_tls(mesh)
    mesh.settle()
    assert not speaks_mutual_tls(mesh)


def test_an_application_that_speaks_tls_by_itself_is_spoken_to_as_before(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    mesh = Mesh(tmp_path)
    labels = {**WEB.labels, "security.istio.io/tlsMode": "disabled"}
    mesh.member = msgspec.structs.replace(WEB, labels=labels)
    mesh.apply(SERVICE, policy(DISABLE))
    mesh.settle()
    begin(mesh)
    mesh.apply(policy(STRICT))
    mesh.publishing.finish_closing()
    assert not speaks_mutual_tls(mesh)


def test_a_result_compiled_meanwhile_is_closed_in_its_turn(tmp_path: Path) -> None:
    """The endpoint's address is another one there, and the workload's listener is the very same."""
    mesh = running(tmp_path, policy(DISABLE))
    mesh.publishing.finish_publication()
    mesh.member = msgspec.structs.replace(WEB, addresses=("198.18.0.2",))
    mesh.retake()
    mesh.read()
    mesh.apply(policy(STRICT))
    mesh.publishing.finish_closing()
    mesh.publishing.finish_publication()
    assert speaks_mutual_tls(mesh)
    name = mesh.published[-1].of_type(CLUSTER)[WEB_CLUSTER].endpoints
    assert b"198.18.0.2" in mesh.published[-1].of_type(ENDPOINTS)[name].body


def test_what_was_made_for_one_compilation_replaces_nothing_of_another(tmp_path: Path) -> None:
    mesh = running(tmp_path, policy(DISABLE))
    mesh.apply(policy(STRICT))
    mesh.publishing.finish_closing()
    publishing: Any = mesh.publishing
    publication = publishing._publication
    assert publication.last
    basis = publication.last.basis
    assert publication._closing.replacements(basis)
    assert basis.reached
    other = dataclasses.replace(basis.reached)
    assert publication._closing.replacements(msgspec.structs.replace(basis, reached=other)) is None


def test_lost_configuration_closes_the_way_out_of_the_mesh_at_once(tmp_path: Path) -> None:
    mesh = running(tmp_path)
    assert lets_out(mesh)
    lose(mesh)
    mesh.publishing.finish_closing()
    assert not lets_out(mesh)
    closed = cluster(mesh, PASSTHROUGH_CLUSTER)
    closed.name = closed.alt_stat_name = BLACK_HOLE_CLUSTER
    nowhere = cluster(mesh, BLACK_HOLE_CLUSTER)
    nowhere.alt_stat_name = BLACK_HOLE_CLUSTER
    assert closed == nowhere
    assert mesh.publishing.busy
    mesh.publishing.finish_publication()  # of what was read before
    assert not lets_out(mesh)


def test_the_way_out_opens_when_what_was_lost_is_back_and_compiled(tmp_path: Path) -> None:
    mesh = running(tmp_path)
    lose(mesh)
    mesh.publishing.finish_closing()
    mesh.store.lost = ()
    mesh.retake()
    mesh.publishing.finish_closing()
    assert not lets_out(mesh)
    mesh.settle()
    assert lets_out(mesh)


def test_only_lost_configuration_closes_the_way_out(tmp_path: Path) -> None:
    mesh = running(tmp_path)
    mesh.apply(policy(STRICT))
    mesh.publishing.finish_closing()
    assert lets_out(mesh)


RULE = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web, namespace: shop}
spec: {host: web, trafficPolicy: {connectionPool: {tcp: {maxConnections: 9}}}}
"""
ENTRY = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: far, namespace: shop}
spec:
  hosts: [far.test]
  addresses: [198.19.7.7]
  resolution: DNS
  ports: [{number: 80, name: http, protocol: HTTP}]
"""
FAR_CLUSTER = "outbound|80||far.test"


def leads_nowhere(mesh: Mesh, name: str) -> bool:
    """Whether there is no endpoint behind a cluster, or no such cluster."""
    clusters = mesh.published[-1].of_type(CLUSTER)
    if name not in clusters:
        return True
    found = cluster(mesh, name)
    return found.type == cluster_pb2.Cluster.STATIC and not found.load_assignment.endpoints


def objects_of(*texts: str) -> dict[Key, Object]:
    found = [read.object for text in texts for read in read_objects(text, "a.yaml")]
    return {one.key: one for one in found}


@pytest.mark.parametrize(
    ("text", "mine"), [(SERVICE, WEB_CLUSTER), (ENTRY, FAR_CLUSTER), (RULE, WEB_CLUSTER)]
)
def test_a_service_that_is_closed_leads_nowhere_before_that_is_compiled(
    tmp_path: Path, text: str, mine: str
) -> None:
    """As at an agent, whose server tells an object that it cannot take."""
    (tmp_path / "lib").mkdir()
    mesh = Mesh(tmp_path)
    before = objects_of(SERVICE, ENTRY, RULE)
    mesh.store.follow(before)
    mesh.settle()
    (other,) = {WEB_CLUSTER, FAR_CLUSTER} - {mine}
    assert not leads_nowhere(mesh, mine)
    mesh.store.follow(before | objects_of(SERVICE.replace("name: web", "name: other")))
    mesh.read()  # its compilation is the one that runs
    (closed,) = objects_of(text).values()
    replacement = withheld.closed_object(closed)
    assert replacement
    others = {key: one for key, one in before.items() if key != closed.key}
    mesh.store.follow(others, (replacement,))
    mesh.publishing.finish_closing()
    assert mesh.publishing.busy
    assert leads_nowhere(mesh, mine)
    mesh.publishing.finish_publication()  # of what was read before
    assert leads_nowhere(mesh, mine)
    for _ in range(2):
        mesh.settle()
        assert leads_nowhere(mesh, mine)
        assert not leads_nowhere(mesh, other)
    mesh.store.follow(before)
    mesh.settle()
    assert not leads_nowhere(mesh, mine)
