"""The transport security of an upstream."""

from __future__ import annotations

import enum
from typing import Final

import msgspec

HTTP_ALPN: Final = ("istio-http/1.0", "istio-http/1.1", "istio-h2")
"""What a client of the mesh offers where it speaks HTTP inside the TLS."""
PLAIN_ALPN: Final = ("h2", "http/1.1")
"""What a server chooses from that reads HTTP right behind the TLS: once a name is chosen, the proxy
takes HTTP/1.1 unless it is ``h2``. Clients of the mesh offer names of its own only, so that none is
chosen and their first bytes decide."""
TCP_ALPN: Final = ("istio-peer-exchange", "istio")


class TlsMode(enum.StrEnum):
    PLAIN = "plain"
    AUTO = "auto"
    """Mutual TLS of the mesh to each endpoint that speaks it, plaintext to the others."""
    MESH = "mesh"
    """Mutual TLS of the mesh to all endpoints."""
    SIMPLE = "simple"
    """The client shows no certificate."""
    MUTUAL = "mutual"
    """The client shows a certificate that the rule names."""


class TlsPlan(msgspec.Struct, frozen=True, kw_only=True):
    """All parts of a transport socket."""

    mode: TlsMode
    sni: str = ""
    """Server name; empty: none is sent (a wildcard host)."""
    subject_alt_names: tuple[str, ...] = ()
    """The server's certificate must have one of these. Empty: in the mesh any identity of the
    trust domain (nothing is known about the endpoints), else the name of the host."""
    alpn: tuple[str, ...] = ()
    certificate: str = ""
    """Name of the secret with the certificate that the client shows."""
    authority: str = ""
    """Name of the secret by which servers are verified."""
    insecure_skip_verify: bool = False


PLAIN = TlsPlan(mode=TlsMode.PLAIN)
