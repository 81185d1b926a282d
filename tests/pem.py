"""Certificates and keys in PEM, for tests of whatever reads them."""

from __future__ import annotations

import datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)


def new_key(curve: ec.EllipticCurve | None = None) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(curve or ec.SECP256R1())


def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


def key_pem(
    key: Any,
    layout: serialization.PrivateFormat = serialization.PrivateFormat.PKCS8,
    password: bytes = b"",
) -> bytes:
    hidden = serialization.BestAvailableEncryption(password) if password else None
    return key.private_bytes(
        serialization.Encoding.PEM, layout, hidden or serialization.NoEncryption()
    )


def certificate_pem(
    key: Any, name: str = "a.test", *, ends: float = 30, begins: float = -30, ca: bool = False
) -> bytes:
    """Self-signed; ``begins`` and ``ends`` in days from now."""
    now = datetime.datetime.now(datetime.UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signed = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins * DAY)
        .not_valid_after(now + ends * DAY)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())
    )
    return signed.public_bytes(serialization.Encoding.PEM)


def revocations_pem(key: Any, name: str = "a.test") -> bytes:
    """An empty revocation list."""
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .last_update(now)
        .next_update(now + DAY)
        .sign(key, hashes.SHA256())
    )
    return signed.public_bytes(serialization.Encoding.PEM)
