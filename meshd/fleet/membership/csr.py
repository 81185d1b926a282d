"""Requests for certificates: their content, and the names that a node may request. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from meshd.base.credentials import UNREADABLE
from meshd.base.errors import InvalidInputError
from meshd.ca.names import parse
from meshd.fleet.joining.node import SERVER_NAME, node_uri, parse_node
from meshd.model.bounds import Bounds, cover, refusal
from meshd.model.workload import Identity

_MAX_BYTES = 16 * 1024
_SHORTEST_RSA = 2048


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """A well-formed request; nothing is said about whether it may be granted."""

    csr: x509.CertificateSigningRequest
    uri: str
    dns: tuple[str, ...]

    @property
    def names(self) -> Sequence[x509.GeneralName]:
        return [x509.UniformResourceIdentifier(self.uri), *map(x509.DNSName, self.dns)]


def read(pem: bytes) -> Asked:
    """Raises InvalidInputError when it is not a request for exactly one SPIFFE name."""
    if len(pem) > _MAX_BYTES:
        raise InvalidInputError(f"the request has {len(pem)} bytes; {_MAX_BYTES} are allowed")
    try:
        csr = x509.load_pem_x509_csr(pem)
        key = csr.public_key()
        names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        raise InvalidInputError("the request has no name") from None
    except UNREADABLE:
        raise InvalidInputError("not a certificate request in PEM") from None
    if not _is_strong(key):
        raise InvalidInputError("the request's key is neither P-256 or better nor RSA of 2048 bits")
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    dns = names.get_values_for_type(x509.DNSName)
    if len(uris) != 1 or len(uris) + len(dns) != len(list(names)):
        raise InvalidInputError("the request must name one SPIFFE URI and nothing else")
    return Asked(csr, uris[0], tuple(dns))


def _is_strong(key: object) -> bool:
    if isinstance(key, ec.EllipticCurvePublicKey):
        return key.curve.key_size >= 256
    return isinstance(key, rsa.RSAPublicKey) and key.key_size >= _SHORTEST_RSA


def check_node_may_ask(node: str, asked: Asked, bounds: Bounds, trust_domain: str) -> None:
    """Check that the request is for the node's own name or within its bounds. Raises
    InvalidInputError."""
    if asked.dns:
        raise InvalidInputError(f"node {node} may not have a certificate with DNS names")
    if asked.uri == node_uri(trust_domain, node):
        return
    if parse_node(asked.uri):
        raise InvalidInputError(f"node {node} may not have the certificate of {asked.uri}")
    identity = parse(asked.uri)
    if identity.trust_domain != trust_domain:
        raise InvalidInputError(f"{asked.uri}: not in the trust domain {trust_domain!r}")
    if not cover(bounds, identity.namespace, identity.service_account):
        reason = refusal(node, bounds, identity.namespace, identity.service_account)
        raise InvalidInputError(f"{asked.uri}: {reason}")


def check_registered(node: str, asked: Asked, registered: Collection[Identity]) -> None:
    """Check that an identity is registered on the node. Raises InvalidInputError."""
    if not parse_node(asked.uri) and parse(asked.uri) not in registered:
        raise InvalidInputError(
            f"{asked.uri}: no workload of that identity is registered on node {node}"
        )


def check_server_may_ask(node: str, asked: Asked, trust_domain: str) -> None:
    """Check that the request is for the server's own name. Raises InvalidInputError."""
    if asked.uri != node_uri(trust_domain, node) or asked.dns != (SERVER_NAME,):
        raise InvalidInputError(f"{asked.uri}: not the name of this server")
