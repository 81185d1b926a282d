"""What becomes of connections and requests to addresses that only the mesh has."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.api.protocol import Protocol
from meshd.compile.envoy.routes import route_table as printed_routes
from meshd.compile.explain.route_choice import Request, choose_host, choose_route
from meshd.compile.http.routes import route_table
from meshd.compile.plan.choices import ByAddress, ByBeginning, To
from meshd.compile.traffic.virtual_addresses import refusal, sockets
from meshd.compile.visibility.index import MeshIndex
from meshd.compile.visibility.scope import Scope
from meshd.compile.visibility.view import View
from meshd.model.service import Port, ServiceRecord
from meshd.model.snapshot import MeshOptions, Snapshot

OPTIONS = MeshOptions(service_cidr="198.19.0.0/16")


def service(name: str, *addresses: str, kubernetes: bool = True, port: int = 80) -> ServiceRecord:
    return ServiceRecord(
        host=f"{name}.test",
        namespace="shop",
        name=name if kubernetes else "",
        addresses=addresses,
        ports=(Port(port, "http", Protocol.HTTP),),
    )


def prefixes(cidr: str) -> list[str]:
    way = refusal((), MeshOptions(service_cidr=cidr), "refused")
    return [*way.beginnings] if isinstance(way, ByBeginning) else []


@given(st.ip_addresses(v=4), st.integers(1, 24), st.ip_addresses(v=4))
def test_an_address_is_refused_if_it_is_in_the_network(
    address: ipaddress.IPv4Address, length: int, other: ipaddress.IPv4Address
) -> None:
    network = ipaddress.ip_network((address, length), strict=False)
    begins = prefixes(str(network))
    for one in (address, other, network[0], network[-1]):
        assert any(str(one).startswith(text) for text in begins) == (one in network)


@pytest.mark.parametrize("cidr", ["198.19.0.0/25", "198.19.0.16/28", "198.19.0.1/32"])
def test_no_address_beside_a_small_network_is_refused(cidr: str) -> None:
    assert prefixes(cidr) == []


@pytest.mark.parametrize(
    ("cidr", "begins"), [("fd00:198::/32", ["fd00:198:"]), ("fd00::/32", []), ("", [])]
)
def test_networks_of_ipv6_are_known_by_how_their_addresses_begin(
    cidr: str, begins: list[str]
) -> None:
    assert prefixes(cidr) == begins


def test_a_service_has_no_ports_but_its_own_at_an_address_that_it_declares() -> None:
    services = (
        service("a", "198.19.0.1", "10.96.0.1"),
        service("b", "10.96.0.2", kubernetes=False),
    )
    way = refusal(services, OPTIONS, "refused")
    refused = To("refused")
    assert way == ByAddress({"10.96.0.1": refused}, ByBeginning(("198.19.",), refused))


def test_a_service_answers_at_its_own_address_and_port() -> None:
    assert [*sockets(service("a", "10.0.0.1", "fd00::1"), 80, OPTIONS)] == [
        "10.0.0.1:80",
        "[fd00::1]:80",
    ]
    of_entry = service("a", "198.18.0.1", "198.19.0.1", "198.19.8.0/24", kubernetes=False)
    assert [*sockets(of_entry, 80, OPTIONS)] == ["198.19.0.1:80"]


@pytest.mark.parametrize("policy", ["ALLOW_ANY", "REGISTRY_ONLY"])
def test_other_hosts_are_passed_through_as_the_policy_says(policy: str) -> None:
    options = MeshOptions(service_cidr="198.19.0.0/16", outbound_policy=policy)  # pyright: ignore[reportArgumentType]
    services = {"a.test": service("a", "198.19.0.1"), "b.test": service("b", "198.19.0.2")}
    view = View.of(MeshIndex.of(Snapshot(options=options, services=services)), Scope("shop"))
    table = route_table(view, 80)
    host = choose_host(table, Request("foreign.test"))
    assert host
    route = choose_route(host, Request("foreign.test"))
    assert route
    assert route.name == ("allow_any" if policy == "ALLOW_ANY" else "block_all")
    # Envoy warns of messages that are not finished, each time.
    assert b"xds.core.v3.CidrRange" not in printed_routes(table).SerializeToString()
    answered = {address for address, _ in host.addresses.routes} if host.addresses else set[str]()
    assert answered == ({"198.19.0.1:80", "198.19.0.2:80"} if policy == "ALLOW_ANY" else set())
