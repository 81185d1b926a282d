"""No edit of routes, services, gateways or policies replaces a listener that is still wanted, nor a
chain in it that is still there: whatever is edited, and in whichever combination.

What Envoy keeps is said in ``test_lasting``, which holds single changes against all chains.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec
import pytest
import yaml
from envoy.config.listener.v3 import listener_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.api.read import read_objects
from meshd.compile.compiled import Compiled, Kind
from meshd.compile.compiler import Compiler
from meshd.model.pool import Pool
from meshd.model.short_way import ShortWay
from meshd.model.snapshot import MeshOptions
from meshd.registry.registry import build_snapshot, hosts_without_address
from tests import tokens
from tests.unit.compile.messages import as_messages
from tests.unit.compile.test_lasting import WORKLOADS, chains, kept

CERTIFIED: Final = tuple(one.uid for one in WORKLOADS)
MANAGER: Final = "envoy.filters.network.http_connection_manager"
ENABLED: Final = {"istio-injection": "enabled"}


def _object(kind: str, name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    group = {
        "Service": "v1",
        "PeerAuthentication": "security.istio.io/v1",
        "AuthorizationPolicy": "security.istio.io/v1",
        "RequestAuthentication": "security.istio.io/v1",
    }.get(kind, "networking.istio.io/v1")
    return {"apiVersion": group, "kind": kind, "metadata": {"name": name}, "spec": dict(spec)}


Spec = dict[str, Any]


def _fields(optional: Mapping[str, Any] | None = None, **fields: Any) -> st.SearchStrategy[Spec]:
    """Return objects with all of these fields; one that is not a strategy is a list of values."""

    def drawn(values: Any) -> st.SearchStrategy[Any]:
        return values if isinstance(values, st.SearchStrategy) else st.sampled_from(values)

    return st.fixed_dictionaries(
        {name: drawn(values) for name, values in fields.items()},
        optional={name: st.just(value) for name, value in (optional or {}).items()},
    )


def _port(one: Spec) -> int:
    return one["port"]


def _server_name(one: Spec) -> str:
    return one["port"]["name"]


def _server(number: int, name: str, protocol: str, host: str, **tls: str) -> Spec:
    made: Spec = {"port": {"number": number, "name": name, "protocol": protocol}, "hosts": [host]}
    return made | ({"tls": tls} if tls else {})


PORTS = [
    {"name": "http", "port": 80, "targetPort": 8080},
    {"name": "http-more", "port": 9000, "targetPort": 8080},
    {"name": "grpc", "port": 91, "targetPort": 9091},
    {"name": "tcp", "port": 9000},
    {"name": "any", "port": 7000},
    {"name": "tls", "port": 443},
    {"name": "http2", "port": 7000, "targetPort": 8090},
]
SERVICES = _fields(
    {"clusterIP": "None"},
    selector=[{"app": "web"}, {"app": "other"}, {"app": "edge"}],
    ports=st.lists(st.sampled_from(PORTS), min_size=1, max_size=4, unique_by=_port),
)
TARGETS = _fields(
    {"subset": "v1"},
    host=["s0", "s1", "s2", "missing"],
    port=[{"number": number} for number in (80, 9000, 7000)],
)
ROUTED: dict[str, Any] = {
    "hosts": [["s0"], ["s1", "a.test"], ["a.test"], ["s2"]],
    "gateways": [["mesh"], ["edge"], ["mesh", "edge"]],
}
WAYS = st.lists(_fields(destination=TARGETS), min_size=1, max_size=1)
VIRTUAL_SERVICES = st.one_of(
    _fields(**ROUTED, http=st.tuples(_fields(timeout=["1s", "2s"], route=WAYS)).map(list)),
    _fields(**ROUTED, tcp=st.tuples(_fields(route=WAYS)).map(list)),
)
DESTINATION_RULES = _fields(
    {"subsets": [{"name": "v1", "labels": {"version": "v1"}}]},
    host=["s0", "s1", "s2"],
    trafficPolicy=[
        *(
            {"tls": {"mode": mode}, "connectionPool": {"tcp": {"maxConnections": limit}}}
            for mode in ("DISABLE", "ISTIO_MUTUAL")
            for limit in (1, 100)
        ),
        {"connectionPool": {"tcp": {"idleTimeout": "5s"}}},
        {"loadBalancer": {"consistentHash": {"useSourceIp": True}}},
    ],
)
SERVERS = [
    _server(80, "http", "HTTP", "a.test"),
    _server(80, "more", "HTTP", "b.test"),
    _server(81, "other", "HTTP", "*"),
    _server(9000, "tcp", "TCP", "*"),
    _server(443, "https", "HTTPS", "a.test", mode="SIMPLE", credentialName="a"),
    _server(443, "tls", "TLS", "p.test", mode="PASSTHROUGH"),
]
GATEWAYS = _fields(
    selector=[{"app": "edge"}],
    servers=st.lists(st.sampled_from(SERVERS), min_size=1, max_size=4, unique_by=_server_name),
)
MODES = [{"mode": mode} for mode in ("STRICT", "PERMISSIVE", "DISABLE")]
POLICIES = _fields(
    selector=[{"matchLabels": {"app": "web"}}],
    mtls=MODES,
    portLevelMtls=[{port: mode} for port in (8080, 9000) for mode in MODES],
)
ENTRIES = _fields(
    hosts=[["outside.test"], ["*.wild.test"]],
    resolution=["NONE", "DYNAMIC_DNS"],
    ports=[
        [{"number": 80, "name": "http", "protocol": "HTTP"}],
        [{"number": 443, "name": "tls", "protocol": "TLS"}],
        [{"number": 7000, "name": "tcp", "protocol": "TCP"}],
    ],
)
AUTHORIZATIONS = _fields(
    {"selector": {"matchLabels": {"app": "web"}}},
    action=["ALLOW", "DENY"],
    rules=[
        [],
        [{"from": [{"source": {"principals": ["cluster.local/ns/default/sa/other"]}}]}],
        [{"to": [{"operation": {"ports": ["9000"]}}]}],
        [{"to": [{"operation": {"methods": ["GET"], "paths": ["/a"]}}]}],
    ],
)
AUTHENTICATIONS = _fields(
    {"selector": {"matchLabels": {"app": "web"}}},
    jwtRules=[
        [],
        [{"issuer": "me", "jwks": tokens.key_set(tokens.Key("one"))}],
        [{"issuer": "me", "jwks": tokens.key_set(tokens.Key("two"))}],
        [{"issuer": "me", "jwksUri": "https://me.test/keys", "fromHeaders": [{"name": "x"}]}],
    ],
)
KINDS: Final = {
    "Service": (SERVICES, ("s0", "s1", "s2")),
    "VirtualService": (VIRTUAL_SERVICES, ("v0", "v1")),
    "DestinationRule": (DESTINATION_RULES, ("d0",)),
    "Gateway": (GATEWAYS, ("edge", "more")),
    "PeerAuthentication": (POLICIES, ("default",)),
    "AuthorizationPolicy": (AUTHORIZATIONS, ("a0", "a1")),
    "RequestAuthentication": (AUTHENTICATIONS, ("t0", "t1")),
    "ServiceEntry": (ENTRIES, ("e0",)),
}
MESHES = st.fixed_dictionaries(
    {(kind, name): st.none() | specs for kind, (specs, names) in KINDS.items() for name in names}
)
Mesh = Mapping[tuple[str, str], Mapping[str, Any] | None]


def compiled(mesh: Mesh, *, short_way: bool) -> Compiled:
    metadata = {"name": "default", "labels": ENABLED}
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
    wanted = [_object(kind, name, spec) for (kind, name), spec in mesh.items() if spec]
    text = yaml.safe_dump_all([space, *wanted])
    read = [one.object for one in read_objects(text, "test.yaml")]
    options = MeshOptions(short_way=short_way, direct_requests=short_way)
    addresses = {
        host: (f"198.19.0.{sum(host.encode()) % 250}",)
        for host in hosts_without_address(read, options)
    }
    snapshot = build_snapshot(read, WORKLOADS, options, addresses)
    if short_way:
        snapshot = msgspec.structs.replace(snapshot, short_way=ShortWay((), CERTIFIED))
    return as_messages(Compiler().compile(snapshot, CERTIFIED))[Pool.TRAFFIC]


def of_http(listener: listener_pb2.Listener) -> Iterator[str]:
    """Yield the names of chains of HTTP."""
    for chain in (*listener.filter_chains, listener.default_filter_chain):
        if any(each.name == MANAGER for each in chain.filters):
            yield chain.name


def judged(name: str, listener: listener_pb2.Listener, before: Mesh, after: Mesh) -> set[str]:
    """The names of a gateway's chains that judge connections by policies that are edited."""
    if "|gateway|" not in name or authorizations(before) == authorizations(after):
        return set()
    return {*chains(listener)} - {*of_http(listener)}


def looked_up(names: Iterable[str], before: Mesh, after: Mesh) -> set[str]:
    """The chains to a service that is found in another way than before."""
    found = (mesh["ServiceEntry", "e0"] or {} for mesh in (before, after))
    if len({one.get("resolution") for one in found}) == 1:
        return set()
    return {name for name in names if name.endswith(".test")}


def authorizations(mesh: Mesh) -> list[Any]:
    return [spec for (kind, _), spec in mesh.items() if kind == "AuthorizationPolicy"]


@pytest.mark.parametrize("short_way", [False, True])
@given(before=MESHES, after=MESHES)
@settings(max_examples=40, deadline=None)
def test_listeners_wanted_before_and_after_stay(
    before: Mesh, after: Mesh, *, short_way: bool
) -> None:
    old, new = (compiled(mesh, short_way=short_way)[Kind.LISTENER] for mesh in (before, after))
    lost = [name for name in old if "|gateway|" not in name and name not in new]
    assert lost == [], "listeners that do not depend on objects"
    for name in old.keys() & new.keys():
        assert kept(old[name]) == kept(new[name]), f"{name} is replaced"
        was, now = chains(old[name]), chains(new[name])
        others = judged(name, old[name], before, after) | looked_up(was, before, after)
        for chain in was.keys() & now.keys() - others:
            assert was[chain] == now[chain], f"chain {chain} of {name} is replaced"
