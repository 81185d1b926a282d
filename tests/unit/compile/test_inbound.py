"""Which connections a workload's inbound listener takes, under every mode."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.compile.inbound import workload_listener
from meshd.compile.peer_authentication import Mode, PeerPolicy, as_accepted
from meshd.model.base import ObjectMeta
from meshd.model.security import MutualTLS, PeerAuthentication, PeerAuthenticationSpec
from meshd.model.service import Endpoint, Port, Protocol, ServiceRecord
from meshd.model.snapshot import MeshOptions, Snapshot
from meshd.model.workload import Identity, Workload

WORKLOAD = Workload(uid="default.a", name="a", namespace="default", netns="/run/meshd/netns/a")
IDENTITY = Identity("cluster.local", "default", "a")
PORTS = {80: Protocol.HTTP, 81: Protocol.TCP}

MESH = ("tls", "istio")
APPLICATION_TLS = ("tls", "h2")
CLEAR = ("raw_buffer", "")
KINDS = st.sampled_from([MESH, APPLICATION_TLS, CLEAR])
MODES = st.sampled_from(list(Mode))


def chosen(listener: Any, port: int, transport: str, alpn: str) -> Any | None:
    """Envoy's way through the chains: port, transport protocol, ALPN, never going back.

    https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/config/listener/v3/listener_components.proto
    """
    chains = list(listener.filter_chains)
    for said in (_port, _transport, _protocols):
        saying = [(chain, said(chain.filter_chain_match)) for chain in chains]
        exact = [chain for chain, values in saying if values & {port, transport, alpn}]
        chains = exact or [chain for chain, values in saying if not values]
    if chains:
        return chains[0]
    return listener.default_filter_chain if listener.HasField("default_filter_chain") else None


def _port(match: Any) -> set[Any]:
    return {match.destination_port.value} - {0}


def _transport(match: Any) -> set[Any]:
    return {match.transport_protocol} - {""}


def _protocols(match: Any) -> set[Any]:
    return set(match.application_protocols)


def fate(listener: Any, port: int, transport: str, alpn: str) -> str:
    chain = chosen(listener, port, transport, alpn)
    if chain is None:
        return "refused"
    if chain.HasField("transport_socket"):
        return "mutual"
    last = chain.filters[-1].typed_config.value
    return "refused" if b"BlackHoleCluster" in last else "plain"


def expected(mode: Mode, kind: tuple[str, str]) -> str:
    if kind == MESH and mode is not Mode.DISABLE:
        return "mutual"
    return "refused" if mode is Mode.STRICT else "plain"


@given(MODES, st.dictionaries(st.sampled_from([80, 81, 82]), MODES), st.integers(80, 84), KINDS)
def test_each_port_takes_what_its_mode_allows(
    mode: Mode, ports: dict[int, Mode], port: int, kind: tuple[str, str]
) -> None:
    policy = PeerPolicy(mode, ports)
    listener = workload_listener(WORKLOAD, IDENTITY, PORTS, policy, MeshOptions())
    assert fate(listener, port, *kind) == expected(policy.mode_of(port), kind)


@pytest.mark.parametrize(
    ("mode", "mutual"), [("DISABLE", False), ("STRICT", True), ("UNSET", True)]
)
def test_clients_speak_clear_text_only_where_mutual_tls_is_disabled(
    mode: str, mutual: bool
) -> None:
    host = "a.default.svc.cluster.local"
    endpoint = Endpoint(
        address="198.18.0.1", port=80, service_port=80, namespace="default", mutual_tls=True
    )
    policy = PeerAuthentication(
        metadata=ObjectMeta(name="default", namespace="default"),
        spec=PeerAuthenticationSpec(mtls=MutualTLS(mode=mode)),  # type: ignore[arg-type]
    )
    snapshot = Snapshot(
        services={
            host: ServiceRecord(
                host=host,
                namespace="default",
                ports=(Port(80, "http", Protocol.HTTP),),
                endpoints=(endpoint,),
            )
        },
        peer_authentications=(policy,),
    )
    (found,) = as_accepted(snapshot).services[host].endpoints
    assert found.mutual_tls is mutual
