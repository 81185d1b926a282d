"""networking.istio.io Gateway: what the mesh listens on for clients outside it.

After https://istio.io/latest/docs/reference/config/networking/gateway/.
"""

from __future__ import annotations

from typing import ClassVar, Final, Literal

from meshd.model.base import NETWORKING_VERSIONS, Object, Strict


class GatewayPort(Strict, frozen=True):
    number: int
    protocol: str
    name: str
    target_port: int | None = None


CIPHER_SUITES: Final = frozenset(
    {
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "ECDHE-RSA-CHACHA20-POLY1305",
        "ECDHE-ECDSA-AES128-SHA",
        "ECDHE-RSA-AES128-SHA",
        "AES128-GCM-SHA256",
        "AES128-SHA",
        "ECDHE-ECDSA-AES256-SHA",
        "ECDHE-RSA-AES256-SHA",
        "AES256-GCM-SHA384",
        "AES256-SHA",
        "DES-CBC3-SHA",
    }
)
"""Those that Istio knows, of TLS 1.2 and before: newer ones cannot be chosen."""


class TLSCertificate(Strict, frozen=True):
    """Files."""

    server_certificate: str | None = None
    private_key: str | None = None
    ca_certificates: str | None = None


class ServerTLSSettings(Strict, frozen=True):
    https_redirect: bool = False
    mode: Literal[
        "PASSTHROUGH", "SIMPLE", "MUTUAL", "AUTO_PASSTHROUGH", "ISTIO_MUTUAL", "OPTIONAL_MUTUAL"
    ] = "PASSTHROUGH"
    server_certificate: str | None = None
    private_key: str | None = None
    ca_certificates: str | None = None
    ca_crl: str | None = None
    credential_name: str | None = None
    credential_names: tuple[str, ...] = ()
    ca_cert_credential_name: str | None = None
    tls_certificates: tuple[TLSCertificate, ...] = ()
    subject_alt_names: tuple[str, ...] = ()
    verify_certificate_spki: tuple[str, ...] = ()
    verify_certificate_hash: tuple[str, ...] = ()
    min_protocol_version: Literal["TLS_AUTO", "TLSV1_0", "TLSV1_1", "TLSV1_2", "TLSV1_3"] | None = (
        None
    )
    max_protocol_version: Literal["TLS_AUTO", "TLSV1_0", "TLSV1_1", "TLSV1_2", "TLSV1_3"] | None = (
        None
    )
    cipher_suites: tuple[str, ...] = ()

    @property
    def secrets(self) -> tuple[str, ...]:
        """Names of those whose certificates the server shows."""
        return self.credential_names or ((self.credential_name,) if self.credential_name else ())

    @property
    def files(self) -> tuple[tuple[str, str], ...]:
        """Certificates and keys that the server shows, where no Secret holds them."""
        pairs = (
            (self.server_certificate, self.private_key),
            *((one.server_certificate, one.private_key) for one in self.tls_certificates),
        )
        return () if self.secrets else tuple((one, key) for one, key in pairs if one and key)

    @property
    def asks_for_certificates(self) -> bool:
        """Of clients; ``MUTUAL`` alone lets none in without."""
        return self.mode in {"MUTUAL", "OPTIONAL_MUTUAL"}

    @property
    def authority_secret(self) -> str:
        """Name of the Secret with the authority that signs clients' certificates; empty: none."""
        if not self.asks_for_certificates:
            return ""
        return self.ca_cert_credential_name or next(iter(self.secrets), "")

    @property
    def authority_file(self) -> str:
        listed = (one.ca_certificates for one in self.tls_certificates)
        return self.ca_certificates or next(filter(None, listed), "")


class Server(Strict, frozen=True):
    port: GatewayPort
    hosts: tuple[str, ...]
    bind: str | None = None
    default_endpoint: str | None = None
    tls: ServerTLSSettings | None = None
    name: str | None = None


class GatewaySpec(Strict, frozen=True):
    servers: tuple[Server, ...]
    selector: dict[str, str] = {}


class Gateway(Object, frozen=True):
    GROUP: ClassVar[str] = "networking.istio.io"
    VERSIONS: ClassVar[tuple[str, ...]] = NETWORKING_VERSIONS
    KIND: ClassVar[str] = "Gateway"
    PLURALS: ClassVar[tuple[str, ...]] = ("gateways", "gateway", "gw")

    spec: GatewaySpec
