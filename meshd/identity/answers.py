"""What a certificate authority answers, held against what it was asked. Pure.

Whoever signs is trusted with the names of the mesh, but an answer that is for somebody else, or
that peers would refuse, is not put to use in silence.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from meshd.credentials import UNREADABLE
from meshd.errors import InvalidInputError


def check(
    csr: x509.CertificateSigningRequest, chain: bytes, roots: bytes
) -> tuple[x509.Certificate, ...]:
    """The chain, leaf first. Raises InvalidInputError when it is not for this request, or leads to
    none of the roots."""
    certificates, anchors = _parsed(chain, "chain"), _parsed(roots, "roots")
    try:
        _check(csr, certificates, anchors)
    except UNREADABLE:
        raise InvalidInputError("the certificate that came cannot be read") from None
    return certificates


def _check(
    csr: x509.CertificateSigningRequest,
    certificates: Sequence[x509.Certificate],
    anchors: Sequence[x509.Certificate],
) -> None:
    """Raises InvalidInputError, and what reading parts of a certificate raises."""
    leaf = certificates[0]
    if _public(leaf) != _public(csr):
        raise InvalidInputError("the certificate that came is for another key than was asked for")
    asked, got = _names(csr), _names(leaf)
    if asked != got:
        raise InvalidInputError(
            f"the certificate that came is for {_shown(got)}, and {_shown(asked)} was asked for"
        )
    if _may_sign(leaf):
        raise InvalidInputError("the certificate that came is an authority's, not a workload's")
    for issued, issuer in itertools.pairwise(certificates):
        if not _issued(issued, issuer):
            raise InvalidInputError("the certificates that came do not follow from one another")
    if not any(_issued(certificates[-1], root) or certificates[-1] == root for root in anchors):
        raise InvalidInputError("the certificate that came leads to none of the mesh's roots")


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
    """URIs and DNS names; of another kind there is none in this mesh."""
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
