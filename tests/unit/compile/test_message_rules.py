"""Whatever checks let pass, what is printed of it breaks none of Envoy's own rules for messages."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Final

import pytest
from envoy.config.bootstrap.v3 import bootstrap_pb2
from envoy.config.cluster.v3 import cluster_pb2, outlier_detection_pb2
from envoy.config.core.v3 import address_pb2, base_pb2, protocol_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2
from envoy.config.route.v3 import route_components_pb2
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2
from google.protobuf import any_pb2, duration_pb2, wrappers_pb2
from google.protobuf.message import Message

from meshd.api import kinds
from meshd.api.base import Duration, Object
from meshd.api.read import read_sources
from meshd.api.write import to_json
from meshd.base.errors import InvalidInputError
from meshd.config.admission import admit
from meshd.model.snapshot import MeshOptions
from tests.every_field import Field, altered
from tests.fuzz.node import Node
from tests.fuzz.values import BAD_DURATIONS, BAD_NUMBERS, BAD_TEXTS
from tests.message_rules import Rules
from tests.unit.compile.test_every_field import MESHES, WORKLOADS

_MOST: Final = 20
"""Alternatives of a field that are tried; the fuzzing of manifests tries all."""
_FLOATS: Final = (-0.1, 0.0, 1e-320, 100.1, 1e308)
_SHORT: Final = tuple(
    text for text in BAD_TEXTS if len(text) < 400 and text.encode(errors="replace") != b"?"
)


def alternatives(own: Any, _: Any) -> Iterator[Any]:
    """Yield the values that proxies may not like."""
    match own:
        case bool():
            yield not own
        case int():
            yield from (0, 1, *BAD_NUMBERS)
        case float():
            yield from _FLOATS
        case Duration():
            for text in ("0s", "1ms", *BAD_DURATIONS):
                try:
                    yield Duration.parse(text)
                except ValueError:
                    continue
        case str():
            yield from _SHORT
        case tuple() if own and isinstance(own[0], str):
            yield from ((text,) for text in _SHORT)
            yield own + own
        case tuple() if own:
            yield ()
            yield own + own
        case dict() if own:
            yield {}
            yield from ({text: one} for text in _SHORT for one in list(own.values())[:1])
        case _:
            return


@pytest.mark.parametrize("kind", kinds.STORED, ids=lambda kind: kind.KIND)
def test_no_value_that_is_let_in_breaks_a_rule(kind: type[Object]) -> None:
    """Each field once, in the first object that has it, with each of its alternatives."""
    path, seen = MESHES[1], set[Field]()
    reads = read_sources([(path.name, path.read_text(encoding="utf-8"))], "shop").objects
    objects = [read.object for read in reads]
    node = Node({one.key: one for one in objects}, WORKLOADS, MeshOptions())
    for known in objects:
        if isinstance(known, kind):
            tried = [one for one in altered(known, alternatives) if one[0][-1] not in seen]
            seen.update(chain[-1] for chain, _ in tried)
            for chain, other in _sample(tried):
                _let_in(node, other, f"{chain[-1]}: {other}")


def _sample(tried: Sequence[tuple[tuple[Field, ...], Object]]) -> Iterator[Any]:
    """Yield at most so many alternatives of each field, of all its places."""
    of_field: dict[Field, int] = {}
    for chain, other in tried:
        of_field[chain[-1]] = count = of_field.get(chain[-1], 0) + 1
        if count <= _MOST:
            yield chain, other


def _let_in(node: Node, other: Object, note: str) -> None:
    with contextlib.suppress(InvalidInputError):
        found = admit(to_json(other))
        try:
            node.put_in_force([found])
        except Exception as error:
            error.add_note(note)
            raise


_ADDRESS: Final = address_pb2.Address(
    socket_address=address_pb2.SocketAddress(address="a", port_value=1)
)
_MATCH: Final = route_components_pb2.RouteMatch(prefix="/")


def _route(**fields: Any) -> route_components_pb2.Route:
    return route_components_pb2.Route(match=_MATCH, **fields)


def _packed(message: Message) -> any_pb2.Any:
    found = any_pb2.Any()
    found.Pack(message)
    return found


BROKEN: Final[Sequence[tuple[str, Message]]] = (
    ("port_value", address_pb2.SocketAddress(address="a", port_value=65536)),
    ("none of port_specifier", address_pb2.SocketAddress(address="a")),
    ("min_len", address_pb2.SocketAddress(port_value=1)),
    ("min_len", cluster_pb2.Cluster()),
    ("enumeration", cluster_pb2.Cluster(name="a", lb_policy=99)),  # pyright: ignore[reportArgumentType]
    ("connect_timeout", cluster_pb2.Cluster(name="a", connect_timeout=duration_pb2.Duration())),
    (
        "max_ejection_percent",
        outlier_detection_pb2.OutlierDetection(
            max_ejection_percent=wrappers_pb2.UInt32Value(value=101)
        ),
    ),
    ("match: is required", route_components_pb2.Route()),
    (
        "priority",
        endpoint_pb2.ClusterLoadAssignment(
            cluster_name="a",
            endpoints=[endpoint_components_pb2.LocalityLbEndpoints(priority=129)],
        ),
    ),
    ("header's", base_pb2.HeaderValue(key="a\n", value="")),
    ("min_len", base_pb2.HeaderValue(value="a")),
    (
        "status",
        _route(direct_response=route_components_pb2.DirectResponseAction(status=99)),
    ),
    (
        "more than 1000",
        _route(request_headers_to_remove=["a"] * 0, request_headers_to_add=[
            base_pb2.HeaderValueOption(header=base_pb2.HeaderValue(key="a"))
        ] * 1001),
    ),
    (
        "stat_prefix",
        base_pb2.TransportSocket(name="a", typed_config=_packed(tcp_proxy_pb2.TcpProxy())),
    ),
    (
        "connection_keepalive.interval",
        protocol_pb2.Http2ProtocolOptions(
            connection_keepalive=protocol_pb2.KeepaliveSettings(
                interval=duration_pb2.Duration(), timeout=duration_pb2.Duration(seconds=1)
            )
        ),
    ),
)  # fmt: skip


@pytest.mark.parametrize(("said", "message"), BROKEN)
def test_violations_of_message_rules_are_found(said: str, message: Message) -> None:
    assert any(said in line for line in Rules().broken(message)), list(Rules().broken(message))


def test_valid_messages_have_no_violations() -> None:
    whole = (
        _ADDRESS,
        bootstrap_pb2.Bootstrap(),
        cluster_pb2.Cluster(name="a", connect_timeout=duration_pb2.Duration(nanos=1)),
        _route(request_headers_to_remove=["x-a"], non_forwarding_action={}),
        base_pb2.TransportSocket(
            name="a",
            typed_config=_packed(tcp_proxy_pb2.TcpProxy(stat_prefix="a", cluster="b")),
        ),
    )
    assert [line for one in whole for line in Rules().broken(one)] == []
