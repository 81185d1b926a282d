"""Whose a connection is to an address that a Service has, and a ServiceEntry writes, too."""

from __future__ import annotations

import pytest

from meshd.api.protocol import Protocol
from meshd.compile.explain.chain_choice import Connection, chosen_at
from meshd.compile.traffic.scope_listeners import scope_choices, scope_listeners
from meshd.compile.visibility.index import MeshIndex
from meshd.compile.visibility.scope import Scope
from meshd.compile.visibility.view import View
from meshd.model.service import Port, ServiceRecord
from meshd.model.snapshot import MeshOptions, Snapshot

OWN = "10.96.0.7"
WEB = ServiceRecord(
    host="web.shop.svc.cluster.local",
    name="web",
    namespace="shop",
    addresses=(OWN,),
    ports=(
        Port(80, "http", Protocol.HTTP),
        Port(90, "tcp", Protocol.TCP),
        Port(443, "https", Protocol.HTTPS),
        Port(70, "any", Protocol.SNIFFED),
    ),
)


def entry(address: str, protocol: Protocol) -> ServiceRecord:
    """Its host sorts before the Service's."""
    ports = tuple(Port(port.number, f"p{port.number}", protocol) for port in WEB.ports)
    return ServiceRecord(
        host="a.taken", entry="a", namespace="other", addresses=(address, "198.18.9.9"), ports=ports
    )


def chain(connection: Connection, *services: ServiceRecord) -> str:
    snapshot = Snapshot(services={one.host: one for one in services})
    view = View.of(MeshIndex.of(snapshot), Scope("shop"))
    options = MeshOptions()
    choices = scope_choices(view, options)
    direct, inspected = scope_listeners(view.scope.name, choices, "", options)
    chosen = chosen_at(direct, connection)
    if chosen and chosen.chain.name == "inspect":
        chosen = chosen_at(inspected, connection)
    return chosen.chain.name if chosen else ""


@pytest.mark.parametrize("begins_as", ["http", "tls", "other"])
@pytest.mark.parametrize("protocol", [Protocol.TCP, Protocol.TLS, Protocol.HTTP, Protocol.SNIFFED])
@pytest.mark.parametrize("address", [OWN, f"{OWN}/32", "10.96.0.0/16", "0.0.0.0/0"])
def test_no_entry_takes_the_connections_of_a_service(
    address: str, protocol: Protocol, begins_as: str
) -> None:
    other = entry(address, protocol)
    for port in WEB.ports:
        if begins_as == "tls" and port.protocol is Protocol.HTTP:
            continue  # what speaks TLS at a port of HTTP is nobody's
        wanted = Connection(address=OWN, port=port.number, begins_as=begins_as)  # pyright: ignore[reportArgumentType]
        found = chain(wanted, other, WEB)
        assert "a.taken" not in found, (port.name, found)


def test_an_entry_has_its_other_addresses_and_ports() -> None:
    other = entry(OWN, Protocol.TCP)
    at = Connection(address="198.18.9.9", port=90, begins_as="other")
    assert "a.taken" in chain(at, other, WEB)
    more = ServiceRecord(
        host="a.taken",
        entry="a",
        namespace="other",
        addresses=(OWN,),
        ports=(Port(91, "tcp", Protocol.TCP),),
    )
    at = Connection(address=OWN, port=91, begins_as="other")
    assert "a.taken" in chain(at, more, WEB)
