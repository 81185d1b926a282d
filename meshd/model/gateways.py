"""networking.istio.io Gateway: what the mesh listens on for clients outside it.

After https://istio.io/latest/docs/reference/config/networking/gateway/.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from meshd.model.base import NETWORKING_VERSIONS, Object, Strict


class GatewayPort(Strict, frozen=True):
    number: int
    protocol: str
    name: str
    target_port: int | None = None


class ServerTLSSettings(Strict, frozen=True):
    https_redirect: bool = False
    mode: Literal[
        "PASSTHROUGH", "SIMPLE", "MUTUAL", "AUTO_PASSTHROUGH", "ISTIO_MUTUAL", "OPTIONAL_MUTUAL"
    ] = "PASSTHROUGH"
    server_certificate: str | None = None
    private_key: str | None = None
    ca_certificates: str | None = None
    credential_name: str | None = None
    subject_alt_names: tuple[str, ...] = ()
    min_protocol_version: Literal["TLS_AUTO", "TLSV1_0", "TLSV1_1", "TLSV1_2", "TLSV1_3"] | None = (
        None
    )
    max_protocol_version: Literal["TLS_AUTO", "TLSV1_0", "TLSV1_1", "TLSV1_2", "TLSV1_3"] | None = (
        None
    )
    cipher_suites: tuple[str, ...] = ()


class Server(Strict, frozen=True):
    port: GatewayPort
    hosts: tuple[str, ...]
    bind: str | None = None
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
