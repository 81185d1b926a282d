"""TLS that ends at a gateway: the certificate that it shows, and those that it requires of clients.

After https://istio.io/latest/docs/reference/config/networking/gateway/#ServerTLSSettings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from envoy.config.core.v3 import base_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, tls_pb2
from envoy.type.matcher.v3 import string_pb2

from meshd.api.gateway.types import CIPHER_SUITES, ServerTLSSettings
from meshd.api.secret_files import of_server
from meshd.compile.envoy.wellknown import packed
from meshd.compile.gateway.secrets import Need
from meshd.compile.names import authority_secret, certificate_secret, missing_secret
from meshd.compile.upstream.tls import PLAIN_ALPN, secret

_SAN = common_pb2.SubjectAltNameMatcher


def gateway_server(
    tls: ServerTLSSettings, namespace: str, is_served: Callable[[str], bool] = lambda _: True
) -> base_pb2.TransportSocket:
    """Return the transport socket of a server; Secrets are of the workload's namespace.

    ``is_served``: whether proxies are sent a secret.
    """
    context = tls_pb2.CommonTlsContext(
        alpn_protocols=PLAIN_ALPN,
        tls_params=common_pb2.TlsParameters(
            tls_minimum_protocol_version=_version(tls.min_protocol_version or "TLSV1_2"),
            tls_maximum_protocol_version=_version(tls.max_protocol_version or "TLS_AUTO"),
            # As Istio does: those that are unknown are passed over.
            cipher_suites=[
                name for name in dict.fromkeys(tls.cipher_suites) if name in CIPHER_SUITES
            ],
        ),
        tls_certificate_sds_secret_configs=[
            secret(name) for name in _only(is_served, _certificates(tls, namespace))
        ],
    )
    if tls.asks_for_certificates:
        _verify_clients(context, tls, next(iter(_only(is_served, _authority(tls, namespace))), ""))
    server = tls_pb2.DownstreamTlsContext(
        common_tls_context=context, require_client_certificate={"value": tls.mode == "MUTUAL"}
    )
    return base_pb2.TransportSocket(name="envoy.transport_sockets.tls", typed_config=packed(server))


def _only(is_served: Callable[[str], bool], names: Iterable[str]) -> list[str]:
    """Return the names that are served; if none is, one that nothing serves: no handshake
    succeeds."""
    asked = list(names)
    return [name for name in asked if is_served(name)] or [missing_secret(one) for one in asked[:1]]


def secrets_needed(tls: ServerTLSSettings, namespace: str, user: str) -> Iterator[Need]:
    """Yield the secrets that a server of a workload in ``namespace`` needs."""
    for name in dict.fromkeys(filter(None, (*tls.secrets, tls.authority_secret))):
        yield Need(f"{namespace}/{name}", user, name in tls.secrets, name == tls.authority_secret)


def _verify_clients(
    context: tls_pb2.CommonTlsContext, tls: ServerTLSSettings, authority: str
) -> None:
    """Verify clients by the authority's secret, and by further conditions on their certificates."""
    validation = common_pb2.CertificateValidationContext(
        match_typed_subject_alt_names=[
            _SAN(san_type=kind, matcher=string_pb2.StringMatcher(exact=name))
            for name in tls.subject_alt_names
            for kind in _kinds(name)
        ],
        verify_certificate_spki=tls.verify_certificate_spki,
        verify_certificate_hash=tls.verify_certificate_hash,
        trust_chain_verification="ACCEPT_UNTRUSTED" if tls.insecure_skip_verify else None,
    )
    if authority:
        context.combined_validation_context.CopyFrom(
            tls_pb2.CommonTlsContext.CombinedCertificateValidationContext(
                default_validation_context=validation,
                validation_context_sds_secret_config=secret(authority),
            )
        )
    else:
        context.validation_context.CopyFrom(validation)


def _certificates(tls: ServerTLSSettings, namespace: str) -> Iterator[str]:
    """Yield the names of the secrets with the server's certificates."""
    for name in tls.secrets:
        yield certificate_secret(f"{namespace}/{name}")
    for files in of_server(tls)[0]:
        yield files.name


def _authority(tls: ServerTLSSettings, namespace: str) -> Iterator[str]:
    """Name of the secret with what clients' certificates are verified by, if there is one."""
    if name := tls.authority_secret:
        yield authority_secret(f"{namespace}/{name}")
    elif files := of_server(tls)[1]:
        yield files.name


def _kinds(name: str) -> tuple[common_pb2.SubjectAltNameMatcher.SanType, ...]:
    """Return the kinds that a name in a certificate may be of, since the API does not say it."""
    if "://" in name:
        return (_SAN.URI,)
    return (_SAN.EMAIL,) if "@" in name else (_SAN.DNS, _SAN.IP_ADDRESS)


def _version(name: str) -> str:
    """Return Envoy's name (``TLSv1_2``) of Istio's name for a protocol version (``TLSV1_2``)."""
    return name.replace("TLSV", "TLSv")
