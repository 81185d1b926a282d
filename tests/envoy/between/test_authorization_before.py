"""Connections from before policies, or protocols of ports, changed are judged as all others."""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Iterator

import pytest

from meshd.model.snapshot import MeshOptions
from tests.envoy.between.application import Application
from tests.envoy.between.conftest import ADDRESS
from tests.envoy.between.mesh import Mesh, answer
from tests.envoy.between.test_authorization import MANIFEST, REQUEST, policy

NAMES = ("client", "other", "server", "second")


@pytest.fixture(scope="module", params=[False, True], ids=["network", "short way"])
def short_way(request: pytest.FixtureRequest) -> bool:
    return request.param


@pytest.fixture(scope="module")
def mesh(short_way: bool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with Mesh(tmp_path_factory.mktemp("before"), NAMES) as made:
        load(made, "", short_way=short_way)
        for name in NAMES:
            made.capture(name)
        yield made


@pytest.fixture(scope="module", autouse=True)
def application(mesh: Mesh) -> Iterator[Application]:
    made = Application(mesh.hosts["server"].netns, (8080, 7000), (9000, 7001))
    yield made
    made.close()


def load(mesh: Mesh, more: str, *, short_way: bool) -> None:
    mesh.load(
        MANIFEST + more,
        *map(mesh.workload, NAMES),
        options=MeshOptions(short_way=short_way),
    )


def second(served: str) -> str:
    return f"""
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: second, namespace: servers}}
spec:
  hosts: [second.test]
  addresses: [198.19.77.2]
  location: MESH_INTERNAL
  resolution: STATIC
  workloadSelector: {{labels: {{app: server}}}}
  ports: {served}
"""


@pytest.mark.parametrize("served", ["tcp, protocol: TCP", "any", "grpc, protocol: GRPC", ""])
def test_a_connection_from_before_a_ports_protocol_changed_is_judged(
    mesh: Mesh, short_way: bool, served: str
) -> None:
    """Another workload has the port as it was, so that nothing closes the connection."""
    beside = """
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: beside, namespace: servers}
spec:
  hosts: [beside.test]
  addresses: [198.19.77.3]
  location: MESH_INTERNAL
  resolution: STATIC
  workloadSelector: {labels: {app: second}}
  ports: [{number: 8080, name: http, protocol: HTTP}]
"""
    denied = policy("{action: DENY, rules: [{to: [{operation: {paths: [/denied]}}]}]}")
    own = mesh.hosts["server"].address
    load(mesh, denied + beside, short_way=short_way)
    with mesh.outside.connect(own, 8080) as client:
        assert answer(client, REQUEST.format("/")).status == 200
        ports = f"[{{number: 8080, name: {served}}}]" if served else "[{number: 1, name: http}]"
        other = second(ports).replace("second", "server")
        mesh.load(
            other + denied + beside,
            *map(mesh.workload, NAMES),
            options=MeshOptions(short_way=short_way),
        )
        with contextlib.suppress(ConnectionError, http.client.BadStatusLine):
            assert answer(client, REQUEST.format("/denied")).status in {403, 421}


def test_a_connection_from_before_the_first_policy_is_judged(mesh: Mesh, short_way: bool) -> None:
    """Also one whose requests went straight to the application."""
    denied = policy("{action: DENY, rules: [{to: [{operation: {paths: [/denied]}}]}]}")
    load(mesh, "", short_way=short_way)
    with mesh.hosts["client"].connect(ADDRESS, 8080) as client:
        for more, expected in (("", 200), (denied, 403), ("", 200), (denied, 403)):
            load(mesh, more, short_way=short_way)
            assert answer(client, REQUEST.format("/denied")).status == expected
