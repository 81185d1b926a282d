"""Which connections a workload's inbound listener takes, under every mode."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.api.base import Duration, ObjectMeta
from meshd.api.peer_authentication.types import (
    MutualTLS,
    PeerAuthentication,
    PeerAuthenticationSpec,
)
from meshd.api.protocol import Protocol
from meshd.compile.envoy.listeners import listener as printed
from meshd.compile.explain.chain_choice import Connection, choose
from meshd.compile.plan.chains import Refusal
from meshd.compile.plan.listeners import Listener
from meshd.compile.policy import mutual_tls_timeout
from meshd.compile.policy.acceptance import as_accepted
from meshd.compile.policy.peer_authentication import Mode, PeerPolicy
from meshd.compile.policy.served import Spoken
from meshd.compile.traffic.inbound import workload_listener
from meshd.model.service import Endpoint, Port, ServiceRecord
from meshd.model.snapshot import MeshOptions, Snapshot
from meshd.model.workload import Identity, Workload
from meshd.settings import MeshSettings, Settings

WORKLOAD = Workload(uid="default.a", name="a", namespace="default", netns="/run/meshd/netns/a")
IDENTITY = Identity("cluster.local", "default", "a")
PORTS = {80: Spoken.HTTP, 81: Spoken.OPAQUE, 82: Spoken.SNIFFED}

MESH = "istio"
"""Offered protocol."""
APPLICATION_TLS = "h2"
CLEAR = ""
KINDS = st.sampled_from([MESH, APPLICATION_TLS, CLEAR])
MODES = st.sampled_from(list(Mode))


def fate(listener: Listener, port: int, alpn: str) -> str:
    """What becomes of a connection that offers this protocol."""
    connection = Connection(
        port=port, begins_as="tls" if alpn else "other", offers_mesh_tls=alpn == MESH
    )
    to = choose(listener.choice, connection)
    chain = listener.chain(to.chain) if to else None
    if chain is None or isinstance(chain.target, Refusal):
        return "refused"
    return "mutual" if chain.tls else "plain"


def expected(mode: Mode, kind: str) -> str:
    if kind == MESH and mode is not Mode.DISABLE:
        return "mutual"
    return "refused" if mode is Mode.STRICT else "plain"


@given(MODES, st.dictionaries(st.sampled_from([80, 81, 82]), MODES), st.integers(80, 84), KINDS)
def test_each_port_takes_what_its_mode_allows(
    mode: Mode, ports: dict[int, Mode], port: int, kind: str
) -> None:
    policy = PeerPolicy(mode, ports)
    listener = workload_listener(WORKLOAD, IDENTITY, PORTS, policy, MeshOptions())
    assert fate(listener, port, kind) == expected(policy.mode_of(port), kind)


def test_a_plain_client_that_says_nothing_waits_as_long_as_the_settings_say() -> None:
    policy = PeerPolicy(Mode.PERMISSIVE, {})
    settings = Settings(mesh=MeshSettings(mutual_tls_timeout=Duration(0.25)))
    options = settings.mesh_options()
    listener = workload_listener(WORKLOAD, IDENTITY, PORTS, policy, options)
    assert listener.patience == 0.25
    assert printed(listener).continue_on_listener_filters_timeout


def waiting(text: str) -> float | None:
    workload = msgspec.structs.replace(WORKLOAD, annotations={mutual_tls_timeout.ANNOTATION: text})
    policy = PeerPolicy(Mode.PERMISSIVE, {})
    return workload_listener(workload, IDENTITY, PORTS, policy, MeshOptions()).patience


def test_a_workload_may_say_by_itself_how_long_plain_clients_wait() -> None:
    assert waiting("250ms") == 0.25
    assert waiting("1m") == 60


@pytest.mark.parametrize("text", ["", "0s", "49ms", "61s", "soon", "-1s", "1"])
def test_an_invalid_duration_is_reported_and_changes_nothing(text: str) -> None:
    assert waiting(text) == MeshOptions().mutual_tls_timeout
    workload = msgspec.structs.replace(WORKLOAD, annotations={mutual_tls_timeout.ANNOTATION: text})
    (told,) = mutual_tls_timeout.problems([workload, WORKLOAD])
    assert "meshd.io/mutual-tls-timeout" in told
    assert "workload default/a: " in told


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
