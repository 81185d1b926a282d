"""Gateway of networking.istio.io: what the mesh listens on for clients outside it.

After https://istio.io/latest/docs/reference/config/networking/gateway/.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import ClassVar, Final, Literal, TypeAlias

from meshd.api.base import NETWORKING_VERSIONS, Object, Strict
from meshd.api.protocol import Routes

_CLEAR_TEXT: Final = frozenset({"HTTP", "HTTP2", "GRPC", "GRPC-WEB"})
_ENCRYPTED: Final = frozenset({"HTTPS", "TLS"})
GATEWAY_LABELS: Final = frozenset(
    {"istio", "meshd.io/gateway", "gateway.networking.k8s.io/gateway-name"}
)
"""Labels by which workloads say that they are gateways. The first is that of Istio's own gateways
(``istio: ingressgateway``)."""
GatewaySelection: TypeAlias = Literal["declared-gateways", "any-namespace", "own-namespace"]
"""The workloads that a Gateway selects: those of its own namespace, and of other ones those that
say that they are gateways, or all, or none. ``any-namespace`` is what Istio does, ``own-namespace``
what its PILOT_SCOPE_GATEWAY_TO_NAMESPACE asks for."""
SELECTION: Final = "declared-gateways"
"""The default."""
MESH: Final = "mesh"
"""The reserved gateway name that stands for all workloads of the mesh."""


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
    """The files of a certificate."""

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
    insecure_skip_verify: bool | None = None

    @property
    def secrets(self) -> tuple[str, ...]:
        """Return the names of Secrets whose certificates the server shows."""
        return self.credential_names or ((self.credential_name,) if self.credential_name else ())

    @property
    def files(self) -> tuple[tuple[str, str], ...]:
        """Return certificates and keys that the server shows, where no Secret holds them."""
        pairs = (
            (self.server_certificate, self.private_key),
            *((one.server_certificate, one.private_key) for one in self.tls_certificates),
        )
        return () if self.secrets else tuple((one, key) for one, key in pairs if one and key)

    @property
    def asks_for_certificates(self) -> bool:
        """Return whether clients are asked for certificates; ``MUTUAL`` alone admits none
        without."""
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
    """The configuration of a gateway on one port."""

    port: GatewayPort
    hosts: tuple[str, ...]
    bind: str | None = None
    default_endpoint: str | None = None
    tls: ServerTLSSettings | None = None
    name: str | None = None

    @property
    def redirects(self) -> bool:
        """Return whether plaintext requests are redirected to the same URL with https."""
        return self.tls is not None and self.tls.https_redirect

    @property
    def is_tls(self) -> bool:
        """Return whether clients speak TLS, whether it ends here or not."""
        encrypted = self.port.protocol.upper() in _ENCRYPTED
        return not self.is_clear_text and (encrypted or self.tls is not None)

    @property
    def terminates_tls(self) -> bool:
        tls = self.tls
        return (
            tls is not None
            and tls.mode not in {"PASSTHROUGH", "AUTO_PASSTHROUGH"}
            and (not self.is_clear_text)
        )

    @property
    def is_clear_text(self) -> bool:
        """Return whether the server speaks plaintext HTTP; ``tls`` can only redirect to HTTPS."""
        return self.port.protocol.upper() in _CLEAR_TEXT

    @property
    def is_http(self) -> bool:
        return self.is_clear_text or self.port.protocol.upper() == "HTTPS"

    def is_for(self, routes: Routes) -> bool:
        """Return whether these routes of a VirtualService look at what clients send."""
        match routes:
            case "http":
                return self.is_clear_text or (self.is_http and self.terminates_tls)
            case "tls":
                return self.is_tls and not self.terminates_tls
            case "tcp":
                return not self.is_http or not (self.is_clear_text or self.terminates_tls)

    def owned_hosts(self, namespace: str) -> Iterator[tuple[str, str]]:
        """Yield hosts, each with the namespace whose VirtualServices may use it (``*``: any).

        ``namespace`` is the Gateway's own.
        """
        for text in self.hosts:
            owner, separator, host = text.rpartition("/")
            if not separator:
                yield "*", host.lower()
            else:
                yield (namespace if owner == "." else owner), host.lower()


class GatewaySpec(Strict, frozen=True):
    servers: tuple[Server, ...]
    selector: dict[str, str] = {}


class Gateway(Object, frozen=True):
    GROUP: ClassVar[str] = "networking.istio.io"
    VERSIONS: ClassVar[tuple[str, ...]] = NETWORKING_VERSIONS
    KIND: ClassVar[str] = "Gateway"
    PLURALS: ClassVar[tuple[str, ...]] = ("gateways", "gateway", "gw")

    spec: GatewaySpec

    def selects(
        self, labels: Mapping[str, str], namespace: str, selection: GatewaySelection
    ) -> bool:
        """Return whether a workload with these labels in this namespace serves the Gateway."""
        own = self.metadata.namespace
        return may_serve(own, namespace, labels, selection) and fits(self.spec.selector, labels)


def may_serve(
    gateway_namespace: str, namespace: str, labels: Iterable[str], selection: GatewaySelection
) -> bool:
    """Return whether a workload of a namespace with labels of these names may serve a Gateway of
    ``gateway_namespace``.

    Whoever has a workload serve a Gateway sends requests in its name.
    """
    if selection == "any-namespace" or gateway_namespace == namespace:
        return True
    return selection == "declared-gateways" and not GATEWAY_LABELS.isdisjoint(labels)


def remedy(selection: GatewaySelection) -> str:
    """Return what to do about a Gateway whose workloads are in other namespaces."""
    move = "move the Gateway to theirs"
    if selection == "own-namespace":
        return move
    return f"{move}, or give those that are gateways the label meshd.io/gateway"


def fits(selector: Mapping[str, object], labels: Mapping[str, str]) -> bool:
    """Return whether labels have all that a Gateway's selector asks for; an empty one selects
    nothing."""
    return bool(selector) and selector.items() <= labels.items()


def gateway_name(name: str, namespace: str) -> str:
    """Return ``NAMESPACE/NAME`` for a name that an object of ``namespace`` writes in ``gateways``.

    These are ``NAME``, ``./NAME``, ``NAMESPACE/NAME``, and ``NAME.NAMESPACE…`` of old manifests.
    """
    if name == MESH:
        return name
    if "/" in name:
        owner, _, short = name.partition("/")
        return f"{namespace if owner == '.' else owner}/{short}"
    short, _, rest = name.partition(".")
    return f"{rest.split('.', maxsplit=1)[0] or namespace}/{short}"
