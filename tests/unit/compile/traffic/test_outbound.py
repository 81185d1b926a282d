"""A workload's own listener takes requests itself, whichever ports they are sent to."""

from __future__ import annotations

import pytest
from envoy.config.listener.v3 import listener_pb2

from meshd.api.base import Key
from meshd.api.read import read_objects
from meshd.compile.clients import identity_of
from meshd.compile.compiled import Compiled, Kind
from meshd.compile.compiler import Compiler
from meshd.compile.explain.chain_choice import Connection, chosen_at
from meshd.compile.traffic.outbound import workload_listener
from meshd.compile.traffic.scope_listeners import scope_choices
from meshd.compile.visibility.index import MeshIndex
from meshd.compile.visibility.scope import Scope
from meshd.compile.visibility.view import View
from meshd.model.closed_workload import ClosedAddress
from meshd.model.interception import CAPTURE_PROBE_ADDRESS, CAPTURE_PROBE_PORT
from meshd.model.pool import Pool
from meshd.model.snapshot import MeshOptions, Snapshot
from meshd.model.workload import Workload
from meshd.registry.registry import build_snapshot
from tests.unit.compile.messages import as_messages

SERVICE = """
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: shop}}
spec: {{clusterIP: {address}, ports: [{ports}]}}
---
"""
WEB = SERVICE.format(
    name="web",
    address="198.19.0.1",
    ports="{name: http, port: 80}, {name: grpc-more, port: 81}, {name: any, port: 82},"
    " {name: http-mixed, port: 83}, {name: tcp, port: 84}",
)
MIXED = SERVICE.format(name="mixed", address="198.19.0.2", ports="{name: tcp, port: 83}")
CLOSED = ClosedAddress("198.18.0.9", Key("WorkloadEntry", "shop", "vm"))
COLLECTION = "xdstp:///envoy.config.route.v3.ScopedRouteConfiguration/shop/"
CLIENT = Workload(uid="shop.a", name="a", namespace="shop", netns="/a")


def snapshot(text: str, options: MeshOptions) -> Snapshot:
    objects = [read.object for read in read_objects(text, "a.yaml")]
    return build_snapshot(objects, (CLIENT,), options, {})


def chain(text: str, connection: Connection, options: MeshOptions | None = None) -> str:
    """The chain of a client's connection."""
    options = options or MeshOptions(direct_requests=True)
    view = View.of(MeshIndex.of(snapshot(text, options)), Scope("shop"))
    requests = scope_choices(view, options).requests
    identity = identity_of(CLIENT, options)
    listener = workload_listener(CLIENT, identity, "shop", requests, options)
    chosen = chosen_at(listener, connection)
    assert chosen
    return chosen.chain.name


@pytest.mark.parametrize(
    ("port", "expected"),
    [(80, "http"), (81, "http"), (82, "scope"), (83, "scope"), (84, "scope"), (9999, "scope")],
)
def test_ports_at_which_all_is_http_are_answered_there(port: int, expected: str) -> None:
    assert chain(WEB + MIXED, Connection(address="198.19.0.1", port=port)) == expected


def test_a_port_that_gets_another_protocol_is_the_scopes() -> None:
    connection = Connection(address="198.19.0.1", port=83)
    assert (chain(WEB, connection), chain(WEB + MIXED, connection)) == ("http", "scope")


def test_connections_to_closed_addresses_and_queries_are_the_scopes() -> None:
    options = MeshOptions(closed_addresses=(CLOSED,), direct_requests=True)
    for address, port in ((CLOSED.address, 80), ("198.18.0.1", 53), (CLOSED.address, 53)):
        assert chain(WEB, Connection(address=address, port=port), options) == "scope"
    assert chain(WEB, Connection(address="198.19.0.1", port=80), options) == "http"


def test_the_probe_is_answered_whatever_services_there_are() -> None:
    port = CAPTURE_PROBE_PORT
    text = SERVICE.format(name="x", address="198.19.0.3", ports=f"{{name: http, port: {port}}}")
    assert chain(text, Connection(address=CAPTURE_PROBE_ADDRESS, port=port)) == "probe"


def compiled(text: str) -> Compiled:
    made = Compiler().compile(snapshot(text, MeshOptions(direct_requests=True)), [CLIENT.uid])
    return as_messages(made)[Pool.TRAFFIC]


def own(made: Compiled) -> listener_pb2.Listener:
    return made[Kind.LISTENER]["shop.a|outbound"]


def test_its_chains_are_the_same_whatever_services_there_are() -> None:
    without, some, more = (own(compiled(text)) for text in ("", WEB, WEB + MIXED))
    assert list(without.filter_chains) == list(some.filter_chains) == list(more.filter_chains)
    assert some.filter_chain_matcher != more.filter_chain_matcher


def test_all_tables_of_clients_can_be_chosen_by_port() -> None:
    made = compiled(WEB + MIXED)
    named = {
        (name, one.key.fragments[0].string_key): one.route_configuration_name
        for name, one in made[Kind.CHOOSABLE].items()
        if one.route_configuration_name
    }
    ports = ("80", "81", "82", "83")
    assert named == {(f"{COLLECTION}{port}", port): f"{port}@shop" for port in ports}
    assert set(named.values()) <= made[Kind.ROUTE].keys()


def test_there_is_something_to_choose_from_without_services() -> None:
    """Envoy would wait for it before it opens the listener."""
    ((name, one),) = compiled("")[Kind.CHOOSABLE].items()
    assert name.startswith(COLLECTION)
    assert not one.route_configuration.virtual_hosts


def test_all_ports_are_the_scopes_unless_the_settings_say_otherwise() -> None:
    connection = Connection(address="198.19.0.1", port=80)
    assert chain(WEB, connection, MeshOptions()) == "scope"
