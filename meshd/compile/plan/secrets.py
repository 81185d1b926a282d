"""Certificates, keys and authorities of Kubernetes' Secrets, as proxies are sent them."""

from __future__ import annotations

import msgspec


class ServedCertificate(msgspec.Struct, frozen=True):
    """A certificate with its key, in PEM."""

    name: str
    """By which proxies ask for it."""
    chain: bytes
    key: bytes

    def __repr__(self) -> str:
        """Name it, without its key: a value may end up in a log."""
        return f"{type(self).__name__}({self.name!r})"


class ServedAuthority(msgspec.Struct, frozen=True):
    """What certificates of the other side are verified by, in PEM."""

    name: str
    roots: bytes
    revoked: bytes = b""
    """Revocation lists; empty: there are none."""


ServedSecret = ServedCertificate | ServedAuthority
