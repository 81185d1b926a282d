"""Decides how an upstream's connections are secured."""

from __future__ import annotations

from meshd.api.networking import ClientTLSSettings
from meshd.api.protocol import Protocol
from meshd.api.secret_files import of_client
from meshd.compile.names import OutboundCluster, authority_secret, certificate_secret
from meshd.compile.plan.tls import PLAIN, TlsMode, TlsPlan
from meshd.compile.upstream.rule_credentials import full_name
from meshd.model.service import ServiceRecord
from meshd.model.workload import Identity


def tls_plan(
    cluster: OutboundCluster,
    service: ServiceRecord,
    protocol: Protocol,
    settings: ClientTLSSettings | None,
    trust_domain: str,
    *,
    original_destination: bool = False,
    credential_namespace: str = "",
) -> TlsPlan:
    """Return the plan for one cluster of a service. Without settings the mesh decides for each
    endpoint.

    A cluster that connects to the client's own destination cannot distinguish endpoints: it uses
    mutual TLS for all or for none.
    """
    if settings is not None and settings.mode == "DISABLE":
        return PLAIN
    if settings is not None and settings.mode in {"SIMPLE", "MUTUAL"}:
        return _of_rule(service, protocol, settings, credential_namespace)
    if settings is None and (service.external or not _can_be_mutual(service, original_destination)):
        return PLAIN
    automatic = settings is None and not original_destination
    asked = settings.subject_alt_names if settings else ()
    return TlsPlan(
        mode=TlsMode.AUTO if automatic else TlsMode.MESH,
        sni=(settings.sni if settings else None) or cluster.sni,
        subject_alt_names=asked or _accounts(service, trust_domain, automatic=automatic),
        alpn=_mesh_alpn(protocol),
    )


def _can_be_mutual(service: ServiceRecord, original_destination: bool) -> bool:
    if not original_destination:
        return True
    return bool(service.endpoints) and all(mutual_tls for _, _, mutual_tls in service.accounts)


def _accounts(service: ServiceRecord, trust_domain: str, *, automatic: bool) -> tuple[str, ...]:
    """Return the accounts that may serve the service: those of all its endpoints, for any port or
    subset.

    So a cluster changes only when an account appears or goes, not with each endpoint. Where a rule
    asks for mutual TLS, endpoints count too that are not known to speak it.
    """
    identities = (
        Identity(trust_domain, namespace, account).uri
        for namespace, account, mutual_tls in service.accounts
        if account and (mutual_tls or not automatic)
    )
    return tuple(sorted({*service.subject_alt_names, *identities}))


def _mesh_alpn(protocol: Protocol) -> tuple[str, ...]:
    """Return the ALPN that tells the server, before it decrypts anything, the protocol inside.

    For an undeclared protocol the listener says for each connection what it found (filter state).
    """
    match protocol:
        case Protocol.HTTP:
            return ("istio-http/1.1", "istio-http/1.0")
        case Protocol.HTTP2 | Protocol.GRPC:
            return ("istio-h2",)
        case _:
            return ("istio-peer-exchange", "istio")


def _of_rule(
    service: ServiceRecord, protocol: Protocol, settings: ClientTLSSettings, namespace: str
) -> TlsPlan:
    certificate, authority = _secrets(settings, namespace)
    return TlsPlan(
        mode=TlsMode.SIMPLE if settings.mode == "SIMPLE" else TlsMode.MUTUAL,
        sni=settings.sni or ("" if service.host.startswith("*") else service.host),
        subject_alt_names=settings.subject_alt_names or service.subject_alt_names,
        alpn=("h2",) if protocol in {Protocol.HTTP2, Protocol.GRPC} else (),
        certificate=certificate,
        authority=authority,
        insecure_skip_verify=bool(settings.insecure_skip_verify),
    )


def _secrets(settings: ClientTLSSettings, namespace: str) -> tuple[str, str]:
    """Return the names of the secrets with the client's certificate and the server's authority."""
    if named := settings.credential_name:
        full = full_name(named, namespace) or named
        shown = certificate_secret(full) if settings.mode == "MUTUAL" else ""
        return shown, authority_secret(full)
    shown, authority = of_client(settings)
    return shown.name if shown else "", authority.name if authority else ""
