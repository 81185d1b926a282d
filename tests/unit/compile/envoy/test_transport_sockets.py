"""What TLS contexts ask of the other side, and which versions they speak."""

from __future__ import annotations

from typing import Any

import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, tls_pb2

from meshd.compile.envoy.transport_sockets import mesh_client, mesh_server, secure
from meshd.compile.plan.tls import TlsMode, TlsPlan
from meshd.model.workload import Identity

TD = "cluster.local"
_V = common_pb2.TlsParameters
REVIEWS = Identity(TD, "shop", "reviews")


def client(plan: TlsPlan) -> Any:
    cluster = cluster_pb2.Cluster()
    secure(cluster, plan, TD)
    context = tls_pb2.UpstreamTlsContext()
    assert cluster.transport_socket.typed_config.Unpack(context)
    return context.common_tls_context


def mesh(socket: Any, kind: Any) -> Any:
    context = kind()
    assert socket and socket.typed_config.Unpack(context)
    return context.common_tls_context


@pytest.mark.parametrize(
    "context",
    [
        mesh(mesh_client(TlsPlan(mode=TlsMode.MESH), TD), tls_pb2.UpstreamTlsContext),
        mesh(mesh_server(REVIEWS, ("istio",)), tls_pb2.DownstreamTlsContext),
        client(TlsPlan(mode=TlsMode.MESH)),
        client(TlsPlan(mode=TlsMode.SIMPLE)),
        client(
            TlsPlan(
                mode=TlsMode.MUTUAL, certificate="file-cert:/c~/k", authority="file-root:system"
            )
        ),
    ],
)
def test_each_side_speaks_tls_1_2_and_1_3_and_says_so(context: Any) -> None:
    """Envoy's clients speak 1.2 at most where nothing is said."""
    versions = context.tls_params
    assert versions.tls_minimum_protocol_version == _V.TLSv1_2
    assert versions.tls_maximum_protocol_version == _V.TLSv1_3


@pytest.mark.parametrize(
    "context",
    [
        mesh(mesh_client(TlsPlan(mode=TlsMode.MESH), TD), tls_pb2.UpstreamTlsContext),
        mesh(mesh_server(REVIEWS, ("istio",)), tls_pb2.DownstreamTlsContext),
    ],
)
def test_where_no_name_is_known_any_workloads_is_taken_and_no_nodes(context: Any) -> None:
    validation = context.combined_validation_context.default_validation_context
    (matcher,) = validation.match_typed_subject_alt_names
    prefix = matcher.matcher.prefix
    assert REVIEWS.uri.startswith(prefix)
    assert not f"spiffe://{TD}/node/third".startswith(prefix)
    assert not f"spiffe://{TD}.evil/ns/shop/sa/reviews".startswith(prefix)


def test_no_session_is_kept_that_another_identity_could_resume() -> None:
    """Envoy keeps one for each name of a server where nothing is said."""
    context = tls_pb2.UpstreamTlsContext()
    assert mesh_client(TlsPlan(mode=TlsMode.MESH), TD).typed_config.Unpack(context)
    assert context.HasField("max_session_keys")
    assert context.max_session_keys.value == 0
