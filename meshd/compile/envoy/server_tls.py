"""Prints TLS that ends at a listener: the mesh's own, and that of clients from outside."""

from __future__ import annotations

from envoy.config.core.v3 import base_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, tls_pb2
from envoy.type.matcher.v3 import string_pb2

from meshd.compile.envoy.transport_sockets import mesh_server, secret
from meshd.compile.envoy.wellknown import packed
from meshd.compile.plan.chains import ClientVerification, MeshTls, ServerTls
from meshd.model.session_tickets import SESSION_TICKETS

_SAN = common_pb2.SubjectAltNameMatcher


def server_tls(plan: MeshTls | ServerTls) -> base_pb2.TransportSocket:
    """Return the transport socket of a chain."""
    if isinstance(plan, MeshTls):
        return mesh_server(plan.identity, plan.alpn)
    context = tls_pb2.CommonTlsContext(
        alpn_protocols=plan.alpn,
        tls_params=common_pb2.TlsParameters(
            tls_minimum_protocol_version=_version(plan.minimum),
            tls_maximum_protocol_version=_version(plan.maximum),
            cipher_suites=plan.ciphers,
        ),
        tls_certificate_sds_secret_configs=[secret(name) for name in plan.certificates],
    )
    server = tls_pb2.DownstreamTlsContext(require_client_certificate={"value": False})
    if plan.clients is not None:
        _verify_clients(context, plan.clients)
        server.require_client_certificate.value = plan.clients.required
        # A session is resumed without its certificate being looked at, which may have ended since.
        server.disable_stateless_session_resumption = True
        server.disable_stateful_session_resumption = True
    else:
        server.session_ticket_keys_sds_secret_config.CopyFrom(secret(SESSION_TICKETS))
    server.common_tls_context.CopyFrom(context)
    return base_pb2.TransportSocket(name="envoy.transport_sockets.tls", typed_config=packed(server))


def _verify_clients(context: tls_pb2.CommonTlsContext, clients: ClientVerification) -> None:
    """Verify clients by the authority's secret, and by further conditions on their certificates."""
    validation = common_pb2.CertificateValidationContext(
        match_typed_subject_alt_names=[
            _SAN(san_type=kind, matcher=string_pb2.StringMatcher(exact=name))
            for name in clients.subject_alt_names
            for kind in _kinds(name)
        ],
        verify_certificate_spki=clients.spki,
        verify_certificate_hash=clients.hashes,
        trust_chain_verification="ACCEPT_UNTRUSTED" if clients.untrusted else None,
    )
    if clients.authority:
        context.combined_validation_context.CopyFrom(
            tls_pb2.CommonTlsContext.CombinedCertificateValidationContext(
                default_validation_context=validation,
                validation_context_sds_secret_config=secret(clients.authority),
            )
        )
    else:
        context.validation_context.CopyFrom(validation)


def _kinds(name: str) -> tuple[common_pb2.SubjectAltNameMatcher.SanType, ...]:
    """Return the kinds that a name in a certificate may be of, since the plan does not say it."""
    if "://" in name:
        return (_SAN.URI,)
    return (_SAN.EMAIL,) if "@" in name else (_SAN.DNS, _SAN.IP_ADDRESS)


def _version(name: str) -> str:
    """Return Envoy's name (``TLSv1_2``) of Istio's name for a protocol version (``TLSV1_2``)."""
    return name.replace("TLSV", "TLSv")
