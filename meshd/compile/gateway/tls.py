"""TLS that ends at a gateway: the certificate that it shows, and those that it requires of clients.

After https://istio.io/latest/docs/reference/config/networking/gateway/#ServerTLSSettings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from meshd.api.gateway.types import CIPHER_SUITES, ServerTLSSettings
from meshd.api.secret_files import of_server
from meshd.compile.gateway.secrets import Need
from meshd.compile.names import authority_secret, certificate_secret, missing_secret
from meshd.compile.plan.chains import ClientVerification, ServerTls
from meshd.compile.plan.tls import PLAIN_ALPN


def gateway_server(
    tls: ServerTLSSettings, namespace: str, is_served: Callable[[str], bool] = lambda _: True
) -> ServerTls:
    """Return the TLS of a server; Secrets are of the workload's namespace.

    ``is_served``: whether proxies are sent a secret.
    """
    suites = dict.fromkeys(tls.cipher_suites)
    return ServerTls(
        certificates=_only(is_served, _certificates(tls, namespace)),
        alpn=PLAIN_ALPN,
        minimum=tls.min_protocol_version or "TLSV1_2",
        maximum=tls.max_protocol_version or "TLS_AUTO",
        # As Istio does: those that are unknown are passed over.
        ciphers=tuple(name for name in suites if name in CIPHER_SUITES),
        clients=_clients(tls, _only(is_served, _authority(tls, namespace)))
        if tls.asks_for_certificates
        else None,
    )


def _clients(tls: ServerTLSSettings, authorities: tuple[str, ...]) -> ClientVerification:
    return ClientVerification(
        authority=next(iter(authorities), ""),
        required=tls.mode == "MUTUAL",
        subject_alt_names=tls.subject_alt_names,
        spki=tls.verify_certificate_spki,
        hashes=tls.verify_certificate_hash,
        untrusted=bool(tls.insecure_skip_verify),
    )


def _only(is_served: Callable[[str], bool], names: Iterable[str]) -> tuple[str, ...]:
    """Return the names that are served; if none is, one that nothing serves: no handshake
    succeeds."""
    asked = list(names)
    served = tuple(name for name in asked if is_served(name))
    return served or tuple(missing_secret(name) for name in asked[:1])


def secrets_needed(tls: ServerTLSSettings, namespace: str, user: str) -> Iterator[Need]:
    """Yield the secrets that a server of a workload in ``namespace`` needs."""
    for name in dict.fromkeys(filter(None, (*tls.secrets, tls.authority_secret))):
        yield Need(f"{namespace}/{name}", user, name in tls.secrets, name == tls.authority_secret)


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
