"""Clients of the mesh do not reach an address that is closed, on whichever port."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from meshd.api.base import Key
from meshd.api.read import read_objects
from meshd.compile.compiler import Compiler
from meshd.compile.envoy.routes import route_table as printed_routes
from meshd.compile.explain.chain_choice import Connection
from meshd.compile.explain.connections import at_client
from meshd.compile.explain.route_choice import Request, choose_host, choose_route
from meshd.compile.http.routes import route_table
from meshd.compile.plan.chains import Refusal
from meshd.compile.visibility.index import MeshIndex
from meshd.compile.visibility.scope import Scope
from meshd.compile.visibility.view import View
from meshd.model.closed_workload import ClosedAddress
from meshd.model.snapshot import MeshOptions, Snapshot
from meshd.model.workload import Workload
from meshd.registry.registry import build_snapshot
from tests.unit.compile.messages import as_messages

CLOSED = tuple(
    ClosedAddress(address, Key("WorkloadEntry", "shop", "vm"))
    for address in ("198.18.0.9", "fd00:198::9")
)
SERVICES = """
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 198.19.0.1, ports: [{name: http, port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: by-port, namespace: shop}
spec:
  hosts: [by-port.example.com]
  ports: [{number: 5432, name: tcp, protocol: TCP}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: network, namespace: shop}
spec:
  hosts: [network.example.com]
  addresses: [198.18.0.0/24]
  ports: [{number: 6379, name: tcp, protocol: TCP}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: by-name, namespace: shop}
spec:
  hosts: [by-name.example.com]
  ports: [{number: 443, name: tls, protocol: TLS}]
"""


def snapshot(**given: Any) -> Snapshot:
    objects = [read.object for read in read_objects(SERVICES, "a.yaml")]
    client = Workload(uid="shop.a", name="a", namespace="shop", netns="/a")
    return build_snapshot(objects, (client,), MeshOptions(**given), {})


def view(**given: Any) -> View:
    return View.of(MeshIndex.of(snapshot(**given)), Scope("shop"))


def is_refused(of: View, connection: Connection) -> bool:
    chosen = at_client(of, connection, "resolver")[-1]
    return isinstance(chosen.chain.target, Refusal)


@pytest.mark.parametrize("address", ["198.18.0.9", "fd00:198::9"])
@pytest.mark.parametrize("port", [80, 443, 5432, 6379, 9999])
@pytest.mark.parametrize("begins_as", ["http", "tls", "other"])
@pytest.mark.parametrize("cidr", ["", "198.19.0.0/16"], ids=["no network", "a network"])
def test_connections_to_a_closed_address_are_refused_on_all_ports(
    address: str, port: int, begins_as: Any, cidr: str
) -> None:
    asked = Connection(
        address=address, port=port, begins_as=begins_as, server_name="by-name.example.com"
    )
    assert not is_refused(view(service_cidr=cidr), asked)
    closed = view(service_cidr=cidr, closed_addresses=CLOSED)
    assert is_refused(closed, asked)
    assert not is_refused(closed, msgspec.structs.replace(asked, address="198.18.0.8"))


@pytest.mark.parametrize("captures_dns", [True, False])
def test_queries_are_the_resolvers_to_answer_whatever_the_address(*, captures_dns: bool) -> None:
    closed = view(closed_addresses=CLOSED, captures_dns=captures_dns)
    assert is_refused(closed, Connection(address="198.18.0.9", port=53)) is not captures_dns


@pytest.mark.parametrize("cidr", ["", "198.19.0.0/16"], ids=["no network", "a network"])
@pytest.mark.parametrize(
    ("destination", "passes"),
    [
        ("198.18.0.9:80", False),
        ("[fd00:198::9]:80", False),
        ("198.18.0.90:80", True),
        ("[fd00:198::90]:80", True),
    ],
)
def test_requests_on_connections_from_before_are_refused_too(
    cidr: str, destination: str, *, passes: bool
) -> None:
    table = route_table(view(service_cidr=cidr, closed_addresses=CLOSED), 80)
    request = Request("foreign.test", destination=destination)
    host = choose_host(table, request)
    assert host
    route = choose_route(host, request)
    assert route
    assert (route.name == "allow_any") is passes
    sockets = {socket for socket, _ in host.addresses.routes} if host.addresses else set[str]()
    assert {"198.18.0.9:80", "[fd00:198::9]:80"} <= sockets
    assert all(one.encode() in printed_routes(table).SerializeToString() for one in sockets)


def test_a_compiler_that_goes_on_closes_and_opens_it_as_a_new_one_does() -> None:
    compiler = Compiler()
    open_, closed = snapshot(), snapshot(closed_addresses=CLOSED)
    for now in (open_, closed, closed, open_):
        found, fresh = (
            as_messages(one.compile(now, ("shop.a",))) for one in (compiler, Compiler())
        )
        assert found == fresh
