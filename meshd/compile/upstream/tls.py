"""TLS contexts: the mesh's mutual TLS in both directions, as Istio speaks it on the wire."""

from __future__ import annotations

from typing import Final

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import base_pb2
from envoy.extensions.transport_sockets.raw_buffer.v3 import raw_buffer_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, secret_pb2, tls_pb2
from envoy.type.matcher.v3 import string_pb2
from google.protobuf.message import Message

from meshd.compile.envoy.wellknown import extension, over_ads, packed, true
from meshd.compile.upstream.tls_plan import TlsMode, TlsPlan
from meshd.model.workload import Identity
from meshd.protos import on_demand_secret_pb2, secret_from_filter_state_pb2

TRUST_BUNDLE: Final = "ROOTCA"
HTTP_ALPN: Final = ("istio-http/1.0", "istio-http/1.1", "istio-h2")
"""What a client of the mesh offers where it speaks HTTP inside the TLS."""
PLAIN_ALPN: Final = ("h2", "http/1.1")
"""What a server chooses from that reads HTTP right behind the TLS: once a name is chosen, Envoy
takes HTTP/1.1 unless it is ``h2``. Clients of the mesh offer names of its own only, so that none is
chosen and their first bytes decide."""
TCP_ALPN: Final = ("istio-peer-exchange", "istio")

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


def _peer_validation(
    sans: tuple[str, ...], trust_domain: str
) -> tls_pb2.CommonTlsContext.CombinedCertificateValidationContext:
    """Return a validation against the trust bundle.

    The peer's URI must be one of these, or any workload's of the domain: certificates of nodes,
    from the same authority, are not accepted.
    """
    matchers = [string_pb2.StringMatcher(exact=san) for san in sans] or [
        string_pb2.StringMatcher(prefix=f"spiffe://{trust_domain}/ns/")
    ]
    return tls_pb2.CommonTlsContext.CombinedCertificateValidationContext(
        default_validation_context=common_pb2.CertificateValidationContext(
            match_typed_subject_alt_names=[
                common_pb2.SubjectAltNameMatcher(
                    san_type=common_pb2.SubjectAltNameMatcher.URI, matcher=matcher
                )
                for matcher in matchers
            ]
        ),
        validation_context_sds_secret_config=secret(TRUST_BUNDLE),
    )


def mesh_client(plan: TlsPlan, trust_domain: str) -> base_pb2.TransportSocket:
    """Return a socket to another workload, with the identity that the filter state names.

    No session is kept: Envoy finds one by the server's name alone, before it knows which
    certificate the connection is to show, so that one workload would resume another's.
    """
    return _transport_socket(
        tls_pb2.UpstreamTlsContext(
            sni=plan.sni,
            max_session_keys={"value": 0},
            common_tls_context=tls_pb2.CommonTlsContext(
                tls_params=_versions(),
                alpn_protocols=plan.alpn,
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
                combined_validation_context=_peer_validation(plan.subject_alt_names, trust_domain),
            ),
        )
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


def transport_sockets(
    plan: TlsPlan, trust_domain: str
) -> tuple[base_pb2.TransportSocket | None, list[cluster_pb2.Cluster.TransportSocketMatch]]:
    """Return a cluster's ``transport_socket`` and ``transport_socket_matches`` for a plan."""
    match plan.mode:
        case TlsMode.PLAIN:
            return None, []
        case TlsMode.MESH:
            return mesh_client(plan, trust_domain), []
        case TlsMode.AUTO:
            return None, [
                cluster_pb2.Cluster.TransportSocketMatch(
                    name="tlsMode-istio",
                    match={"tlsMode": "istio"},
                    transport_socket=mesh_client(plan, trust_domain),
                ),
                cluster_pb2.Cluster.TransportSocketMatch(
                    name="tlsMode-disabled",
                    transport_socket=base_pb2.TransportSocket(
                        name="envoy.transport_sockets.raw_buffer",
                        typed_config=packed(raw_buffer_pb2.RawBuffer()),
                    ),
                ),
            ]
        case TlsMode.SIMPLE | TlsMode.MUTUAL:
            return _external_client(plan), []


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
