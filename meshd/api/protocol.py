"""The protocol of a port, by the rules of Istio's protocol selection.

https://istio.io/latest/docs/ops/configuration/traffic-management/protocol-selection/
"""

from __future__ import annotations

import enum
from typing import Final, Literal

Routes = Literal["http", "tls", "tcp"]
"""The routes of a VirtualService, by their field."""
DEFAULT_HTTP_PORT: Final = 80
"""Where requests are routed to hosts that are in no registry."""


class Protocol(enum.StrEnum):
    """The protocol of a service port."""

    HTTP = "http"
    HTTP2 = "http2"
    GRPC = "grpc"
    HTTPS = "https"
    TLS = "tls"
    TCP = "tcp"
    UDP = "udp"
    SNIFFED = "sniffed"
    """Not declared: found out for each connection."""

    @property
    def is_http(self) -> bool:
        return self in {Protocol.HTTP, Protocol.HTTP2, Protocol.GRPC}

    def is_for(self, routes: Routes) -> bool:
        """Return whether these routes of a VirtualService look at connections to such a port."""
        if routes == "http":
            return self.is_http or self is Protocol.SNIFFED
        return not self.is_http and self is not Protocol.UDP


_NAMES: Final = {
    "http": Protocol.HTTP,
    "http2": Protocol.HTTP2,
    "grpc": Protocol.GRPC,
    "grpc-web": Protocol.GRPC,
    "https": Protocol.HTTPS,
    "tls": Protocol.TLS,
    "tcp": Protocol.TCP,
    "udp": Protocol.UDP,
    "mongo": Protocol.TCP,
    "mysql": Protocol.TCP,
    "redis": Protocol.TCP,
}
_APP_PROTOCOLS: Final = _NAMES | {
    "kubernetes.io/h2c": Protocol.HTTP2,
    "kubernetes.io/ws": Protocol.HTTP,
    "kubernetes.io/wss": Protocol.HTTPS,
    "istio.io/mysql": Protocol.TCP,
}

KNOWN: Final = tuple(_NAMES)
"""What a ServiceEntry's or a Gateway's port may say, in any case of letters."""

_SERVER_FIRST: Final = {21, 22, 25, 53, 110, 143, 587, 3306, 5900, 27017, 6379}
"""Ports on which the server speaks first, so that there is nothing to sniff: they are TCP. Those of
Istio, and what IANA lists of FTP, SSH, POP3, IMAP, message submission and RFB:
https://www.iana.org/assignments/service-names-port-numbers."""


def of_service_port(
    transport: str, name: str = "", app_protocol: str | None = None, number: int = 0
) -> Protocol:
    """Return the protocol: ``appProtocol`` wins over the name's prefix; without both it is
    detected."""
    if transport == "UDP":
        return Protocol.UDP
    if app_protocol:
        # An appProtocol that nobody knows is opaque bytes, as in Istio.
        return _APP_PROTOCOLS.get(app_protocol.lower(), Protocol.TCP)
    return _of_name(name) or (Protocol.TCP if number in _SERVER_FIRST else Protocol.SNIFFED)


def of_entry_port(protocol: str | None, name: str = "", number: int = 0) -> Protocol:
    """Return the protocol of a ServiceEntry's port: its own field, or as for a Service's port."""
    said = _NAMES.get((protocol or "").lower())
    return said or of_service_port("TCP", name, None, number)


def _of_name(name: str) -> Protocol | None:
    name = name.lower()
    if name == "grpc-web" or name.startswith("grpc-web-"):
        return Protocol.GRPC
    return _NAMES.get(name.partition("-")[0])
