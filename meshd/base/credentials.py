"""Checks that a certificate with its key, or an authority's certificates, can be used. Pure.

The checks are those of the proxies: they accept what passes here, and what they would refuse is
named here. A proxy refuses everything beside a credential that it cannot load.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from meshd.base.errors import InvalidInputError
from meshd.base.moments import date

_CERTIFICATES: Final = ("CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE")
_KEYS: Final = ("PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "ENCRYPTED PRIVATE KEY")
_LISTS: Final = ("X509 CRL",)
_BEGIN: Final = re.compile(rb"^-----BEGIN ([A-Z0-9 ]+)-----", re.MULTILINE)
_LEAST_RSA: Final = 2048
"""Bits."""
_CURVES: Final = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
UNREADABLE: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""What reading a certificate, a request or a part of one raises, for what somebody has made."""


@dataclasses.dataclass(frozen=True, slots=True)
class Life:
    """The validity of a certificate, in Unix seconds."""

    begins: float
    ends: float

    def problem(self, now: float) -> str:
        """Return why the certificate is not valid at this moment; empty if it is."""
        if now >= self.ends:
            return f"its certificate expired on {date(self.ends)}"
        return f"its certificate is not valid before {date(self.begins)}" * (now < self.begins)


def check_certificate(chain: bytes, key: bytes) -> Life:
    """Check that ``chain`` begins with the certificate of the private ``key``; both are PEM. Raises
    InvalidInputError."""
    leaf = _leaf(chain)
    try:
        public: Any = leaf.public_key()
    except UNREADABLE:
        raise InvalidInputError("its certificate has a public key of an unknown kind") from None
    if isinstance(public, rsa.RSAPublicKey) and public.key_size < _LEAST_RSA:
        raise InvalidInputError(
            f"its certificate has an RSA key of {public.key_size} bits; proxies take {_LEAST_RSA}"
            " or more"
        )
    if isinstance(public, ec.EllipticCurvePublicKey) and not isinstance(public.curve, _CURVES):
        raise InvalidInputError(
            f"its certificate has a key on the curve {public.curve.name}; proxies take P-256, P-384"
            " and P-521"
        )
    if _encoded(public) != _encoded(_private_key(key).public_key()):
        raise InvalidInputError("its private key does not belong to its certificate")
    return Life(leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp())


def check_authority(roots: bytes, revoked: bytes = b"") -> bool:
    """Check ``roots``, certificates, and ``revoked``, revocation lists or nothing, all in PEM.

    Returns True. Raises InvalidInputError.
    """
    _check_certificates(roots, "authority")
    if not revoked:
        return True
    lists = list(_blocks(revoked, _LISTS))
    if not lists:
        raise InvalidInputError("its revocation list is not in PEM")
    for block in lists:
        try:
            x509.load_pem_x509_crl(block)
        except UNREADABLE:
            raise InvalidInputError("its revocation list cannot be read") from None
    return True


def _leaf(pem: bytes) -> x509.Certificate:
    """Return the first certificate of a chain. Raises InvalidInputError."""
    first = _check_certificates(pem, "certificate")
    try:
        return x509.load_pem_x509_certificate(first)
    except UNREADABLE:
        raise InvalidInputError("its certificate cannot be read") from None


def _check_certificates(pem: bytes, what: str) -> bytes:
    """Check certificates and return the first. Raises InvalidInputError.

    OpenSSL, of which proxies have a branch, reads them all: authorities that systems trust break
    rules on which other readers insist.
    """
    blocks = list(_blocks(pem, _CERTIFICATES))
    import ssl  # noqa: PLC0415  # 5 MB in each process, which few need

    reader = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for index, block in enumerate(blocks):
        try:
            reader.load_verify_locations(cadata=block.decode("ascii"))
        except (ssl.SSLError, ValueError):
            which = f" (number {index + 1} of {len(blocks)})" if len(blocks) > 1 else ""
            raise InvalidInputError(f"its {what} cannot be read{which}") from None
    if not blocks:
        raise InvalidInputError(f"its {what} is not in PEM")
    return blocks[0]


def _private_key(pem: bytes) -> Any:
    """Return the first private key, of any kind. Raises InvalidInputError."""
    block = next(_blocks(pem, _KEYS), None)
    if block is None:
        raise InvalidInputError("its private key is not in PEM")
    try:
        return serialization.load_pem_private_key(block, None)
    except TypeError:
        raise InvalidInputError("its private key is protected by a password; remove it") from None
    except UNREADABLE:
        raise InvalidInputError("its private key cannot be read") from None


def _blocks(pem: bytes, labels: tuple[str, ...]) -> Iterator[bytes]:
    """Yield PEM blocks with one of these labels (RFC 7468), old names replaced by today's."""
    at = 0
    while match := _BEGIN.search(pem, at):
        at = match.end()
        label = match[1].decode()
        if label in labels:
            end = f"-----END {label}-----".encode()
            found = pem.find(end, at)
            # Nothing that begins within a block is another, so that each byte is read once.
            at = found + len(end) if found >= 0 else len(pem)
            block = pem[match.start() : at]
            yield (
                block.replace(label.encode(), b"CERTIFICATE") if labels is _CERTIFICATES else block
            )


def _encoded(public: Any) -> bytes:
    return public.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
