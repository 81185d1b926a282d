"""Transport sockets: the mesh's mutual TLS in both directions, as Istio speaks it, and others."""

from __future__ import annotations

import functools
from typing import Final, Literal

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import base_pb2, proxy_protocol_pb2
from envoy.extensions.transport_sockets.internal_upstream.v3 import internal_upstream_pb2
from envoy.extensions.transport_sockets.proxy_protocol.v3 import upstream_proxy_protocol_pb2
from envoy.extensions.transport_sockets.raw_buffer.v3 import raw_buffer_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, secret_pb2, tls_pb2
from envoy.type.matcher.v3 import string_pb2
from envoy.type.metadata.v3 import metadata_pb2
from google.protobuf.message import Message

from meshd.compile.envoy.assignments import (
    INSIDE,
    MUTUAL_TLS,
    ORIGINAL_DESTINATION,
    SHORT_WAY,
    TUNNEL,
    TUNNELED,
)
from meshd.compile.envoy.wellknown import extension, over_ads, packed, true
from meshd.compile.plan.tls import TlsMode, TlsPlan
from meshd.model.workload import Identity
from meshd.protos import on_demand_secret_pb2, secret_from_filter_state_pb2

TRUST_BUNDLE: Final = "ROOTCA"

_UNNAMED: Final = "unidentified"
"""The secret asked for where no identity is set: there is none of that name, so it fails closed."""


def secret(name: str) -> secret_pb2.SdsSecretConfig:
    """Return a secret that proxies ask for by name."""
    return secret_pb2.SdsSecretConfig(name=name, sds_config=over_ads())


def _versions() -> common_pb2.TlsParameters:
    """Return the versions for both sides.

    Envoy's clients speak TLS 1.2 at most by default, in which both certificates, and so both names,
    are readable on the wire.
    """
    return common_pb2.TlsParameters(
        tls_minimum_protocol_version=common_pb2.TlsParameters.TLSv1_2,
        tls_maximum_protocol_version=common_pb2.TlsParameters.TLSv1_3,
    )


@functools.lru_cache(maxsize=1024)
def _peer_validation(
    sans: tuple[str, ...], trust_domain: str
) -> tls_pb2.CommonTlsContext.CombinedCertificateValidationContext:
    """Return a validation against the trust bundle.

    The peer's URI must be one of these, or any workload's of the domain: certificates of nodes,
    from the same authority, are not accepted.
    """
    made = tls_pb2.CommonTlsContext.CombinedCertificateValidationContext(
        validation_context_sds_secret_config=secret(TRUST_BUNDLE)
    )
    for san in sans or ("",):
        peer = made.default_validation_context.match_typed_subject_alt_names.add()
        peer.san_type = common_pb2.SubjectAltNameMatcher.URI
        if san:
            peer.matcher.exact = san
        else:
            peer.matcher.prefix = f"spiffe://{trust_domain}/ns/"
    return made


def mesh_client(plan: TlsPlan, trust_domain: str) -> base_pb2.TransportSocket:
    """Return a socket to another workload, with the identity that the filter state names."""
    context = tls_pb2.UpstreamTlsContext()
    context.CopyFrom(_mesh_client(plan.alpn))
    context.sni = plan.sni
    context.common_tls_context.combined_validation_context.CopyFrom(
        _peer_validation(plan.subject_alt_names, trust_domain)
    )
    return _transport_socket(context)


@functools.lru_cache(maxsize=16)
def _mesh_client(alpn: tuple[str, ...]) -> tls_pb2.UpstreamTlsContext:
    """Return what all clients have in common that offer these names.

    No session is kept: Envoy finds one by the server's name alone, before it knows which
    certificate the connection is to show, so that one workload would resume another's.
    """
    return tls_pb2.UpstreamTlsContext(
        max_session_keys={"value": 0},
        common_tls_context=tls_pb2.CommonTlsContext(
            tls_params=_versions(),
            alpn_protocols=alpn,
            custom_tls_certificate_selector=extension(
                "envoy.tls.certificate_selectors.on_demand_secret",
                on_demand_secret_pb2.Config(
                    config_source=over_ads(),
                    certificate_mapper=extension(
                        "envoy.tls.upstream_certificate_mappers.filter_state_override",
                        secret_from_filter_state_pb2.Config(default_value=_UNNAMED),
                    ),
                ),
            ),
        ),
    )


def mesh_server(identity: Identity, alpn: tuple[str, ...]) -> base_pb2.TransportSocket:
    """Return a socket from another workload: both sides show a certificate, each time.

    A session could be resumed for two days, by clients whose certificates ended long before.
    """
    return _transport_socket(
        tls_pb2.DownstreamTlsContext(
            require_client_certificate=true(),
            disable_stateless_session_resumption=True,
            disable_stateful_session_resumption=True,
            common_tls_context=tls_pb2.CommonTlsContext(
                tls_params=_versions(),
                alpn_protocols=alpn,
                tls_certificate_sds_secret_configs=[secret(identity.uri)],
                combined_validation_context=_peer_validation((), identity.trust_domain),
            ),
        )
    )


def secure(cluster: cluster_pb2.Cluster, plan: TlsPlan, trust_domain: str) -> None:
    """Put into a cluster how its connections are secured."""
    match plan.mode:
        case TlsMode.PLAIN:
            pass
        case TlsMode.MESH:
            cluster.transport_socket.CopyFrom(mesh_client(plan, trust_domain))
        case TlsMode.AUTO:
            mutual, plain = (
                cluster.transport_socket_matches.add(),
                cluster.transport_socket_matches.add(),
            )
            mutual.name = "tlsMode-istio"
            mutual.match.CopyFrom(MUTUAL_TLS)
            mutual.transport_socket.CopyFrom(mesh_client(plan, trust_domain))
            plain.name = "tlsMode-disabled"
            plain.transport_socket.CopyFrom(_PLAIN)
        case TlsMode.SIMPLE | TlsMode.MUTUAL:
            cluster.transport_socket.CopyFrom(_external_client(plan))


def allow_internal(cluster: cluster_pb2.Cluster, *, inside: bool, tunneled: bool) -> None:
    """Put the sockets to endpoints that are reached by the short way, and by tunnels, before all
    others."""
    others = list(cluster.transport_socket_matches)
    del cluster.transport_socket_matches[:]
    ways = (
        (inside, "tlsMode-local", SHORT_WAY, (ORIGINAL_DESTINATION, INSIDE)),
        (tunneled, "tlsMode-hbone", TUNNELED, (TUNNEL,)),
    )
    for is_open, name, wanted, passed in ways:
        if is_open:
            match = cluster.transport_socket_matches.add(name=name)
            match.match.CopyFrom(wanted)
            match.transport_socket.CopyFrom(_socket_with(passed))
    if cluster.HasField("transport_socket"):
        other = cluster.transport_socket_matches.add(name="other")
        other.transport_socket.CopyFrom(cluster.transport_socket)
        cluster.ClearField("transport_socket")
    cluster.transport_socket_matches.extend(others)


@functools.cache
def _socket_with(names: tuple[str, ...]) -> base_pb2.TransportSocket:
    """Return the socket to an internal listener that takes along what its endpoint's metadata of
    these names says."""
    passed = internal_upstream_pb2.InternalUpstreamTransport.MetadataValueSource
    host = metadata_pb2.MetadataKind(host=metadata_pb2.MetadataKind.Host())
    config = internal_upstream_pb2.InternalUpstreamTransport(
        passthrough_metadata=[passed(kind=host, name=name) for name in names],
        transport_socket=_PLAIN,
    )
    return base_pb2.TransportSocket(
        name="envoy.transport_sockets.internal_upstream", typed_config=packed(config)
    )


def announce_clients(cluster: cluster_pb2.Cluster, version: Literal["V1", "V2"]) -> None:
    """Put the PROXY protocol around whatever the cluster's connections are secured by.

    It names the client before anything else:
    https://www.haproxy.org/download/2.1/doc/proxy-protocol.txt
    """
    for match in cluster.transport_socket_matches:
        match.transport_socket.CopyFrom(_around(match.transport_socket, version))
    if cluster.HasField("transport_socket"):
        cluster.transport_socket.CopyFrom(_around(cluster.transport_socket, version))
    elif not cluster.transport_socket_matches:
        cluster.transport_socket.CopyFrom(_around(_PLAIN, version))


def _around(
    socket: base_pb2.TransportSocket, version: Literal["V1", "V2"]
) -> base_pb2.TransportSocket:
    config = upstream_proxy_protocol_pb2.ProxyProtocolUpstreamTransport(
        config=proxy_protocol_pb2.ProxyProtocolConfig(version=version), transport_socket=socket
    )
    return base_pb2.TransportSocket(
        name="envoy.transport_sockets.upstream_proxy_protocol", typed_config=packed(config)
    )


def internal_socket() -> base_pb2.TransportSocket:
    """Return the socket to an internal listener, which takes the filter state along."""
    return base_pb2.TransportSocket(
        name="envoy.transport_sockets.internal_upstream",
        typed_config=packed(
            internal_upstream_pb2.InternalUpstreamTransport(transport_socket=_PLAIN)
        ),
    )


_PLAIN: Final = base_pb2.TransportSocket(
    name="envoy.transport_sockets.raw_buffer", typed_config=packed(raw_buffer_pb2.RawBuffer())
)


def _external_client(plan: TlsPlan) -> base_pb2.TransportSocket:
    """Return a socket to a server outside the mesh, verified by DNS name unless the rule names
    others."""
    context = tls_pb2.CommonTlsContext(tls_params=_versions(), alpn_protocols=plan.alpn)
    if plan.certificate:
        context.tls_certificate_sds_secret_configs.append(secret(plan.certificate))
    if not plan.insecure_skip_verify:
        context.combined_validation_context.CopyFrom(_server_validation(plan))
    return _transport_socket(tls_pb2.UpstreamTlsContext(sni=plan.sni, common_tls_context=context))


def _server_validation(
    plan: TlsPlan,
) -> tls_pb2.CommonTlsContext.CombinedCertificateValidationContext:
    names = plan.subject_alt_names or ((plan.sni,) if plan.sni else ())
    kind = common_pb2.SubjectAltNameMatcher
    return tls_pb2.CommonTlsContext.CombinedCertificateValidationContext(
        default_validation_context=common_pb2.CertificateValidationContext(
            match_typed_subject_alt_names=[
                kind(
                    san_type=kind.URI if "://" in name else kind.DNS,
                    matcher=string_pb2.StringMatcher(exact=name),
                )
                for name in names
            ]
        ),
        validation_context_sds_secret_config=secret(plan.authority),
    )


def _transport_socket(context: Message) -> base_pb2.TransportSocket:
    return base_pb2.TransportSocket(
        name="envoy.transport_sockets.tls", typed_config=packed(context)
    )
