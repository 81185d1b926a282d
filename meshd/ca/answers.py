"""Checks the answer of a certificate authority against the request. Pure.

The authority is trusted with the names of the mesh, but an answer for another name, or one that
peers would refuse, is an error and not used in silence.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from meshd.base.credentials import UNREADABLE
from meshd.base.errors import InvalidInputError


def check(
    csr: x509.CertificateSigningRequest, chain: bytes, roots: bytes
) -> tuple[x509.Certificate, ...]:
    """Return the chain, leaf first.

    Raises InvalidInputError if the chain is not for this request or leads to none of the roots.
    """
    certificates, anchors = _parsed(chain, "chain"), _parsed(roots, "roots")
    try:
        _check(csr, certificates, anchors)
    except UNREADABLE:
        raise InvalidInputError("the certificate received cannot be read") from None
    return certificates


def _check(
    csr: x509.CertificateSigningRequest,
    certificates: Sequence[x509.Certificate],
    anchors: Sequence[x509.Certificate],
) -> None:
    """Raises InvalidInputError, and what reading parts of a certificate raises."""
    leaf = certificates[0]
    if _public(leaf) != _public(csr):
        raise InvalidInputError("the certificate received is for another key than requested")
    asked, got = _names(csr), _names(leaf)
    if asked != got:
        raise InvalidInputError(
            f"the certificate received is for {_shown(got)}; {_shown(asked)} was requested"
        )
    if _may_sign(leaf):
        raise InvalidInputError("the certificate received is an authority's, not a workload's")
    for issued, issuer in itertools.pairwise(certificates):
        if not _issued(issued, issuer):
            raise InvalidInputError("the certificates received do not form a chain")
    if not any(_issued(certificates[-1], root) or certificates[-1] == root for root in anchors):
        raise InvalidInputError("the certificate received leads to none of the mesh's roots")


def _parsed(pem: bytes, what: str) -> tuple[x509.Certificate, ...]:
    try:
        found = tuple(x509.load_pem_x509_certificates(pem))
    except UNREADABLE:
        found = ()
    if not found:
        raise InvalidInputError(f"the answer has no {what} that can be read")
    return found


def _public(of: x509.Certificate | x509.CertificateSigningRequest) -> bytes:
    return of.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _names(of: x509.Certificate | x509.CertificateSigningRequest) -> frozenset[str]:
    """Return URIs and DNS names; this mesh has no other kind."""
    try:
        names = of.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()
    return frozenset(str(name.value) for name in names)


def _shown(names: frozenset[str]) -> str:
    return ", ".join(sorted(names)) or "nobody"


def _may_sign(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, *UNREADABLE):
        return False
    return _may_sign(issuer)
