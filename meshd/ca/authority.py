"""The certificate authority: makes root and intermediate certificates, and signs leaves. Pure.

Time comes in as Unix seconds; keys and certificates as values. ``store`` keeps them. Leaves have
the shape of Istio's: the SPIFFE name is the only subject alternative name, critical because the
subject is empty (RFC 5280, 4.2.1.6), for servers and clients alike.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
from collections.abc import Sequence
from typing import Final, Protocol, cast

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from meshd.base.errors import InvalidInputError
from meshd.ca.names import checked
from meshd.model.workload import Identity

AuthorityKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
"""We make P-256 keys; an administrator's own may be RSA."""

CLOCK_SKEW: Final = 120.0
"""Seconds by which a certificate is valid before it was made, for peers whose clock is behind."""
_SHORTEST: Final = 1.0
"""Seconds of a certificate: they count whole ones."""
_LAST_MOMENT: Final = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)
"""No certificate can name a later one (RFC 5280, 4.1.2.5)."""
_BOTH_ENDS: Final = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
"""What workloads are: whichever end of a connection."""


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """A request for a leaf certificate; the private key stays with the requester."""

    identity: Identity
    csr: x509.CertificateSigningRequest
    lifetime: float
    """Seconds; an authority may give less."""


@dataclasses.dataclass(frozen=True, slots=True)
class Issued:
    """A leaf certificate with the chain that a peer needs to verify it."""

    chain: bytes
    """PEM, the leaf first, without the root."""
    serial: int
    begins: float
    expires: float
    """Unix seconds."""


class Signer(Protocol):
    """A certifier of identities: this node's own authority, or a remote one."""

    async def sign(self, request: Request, now: float) -> Issued:
        """Raises MeshdError when it is refused or cannot be done now."""
        ...

    def roots(self) -> bytes:
        """Return the PEM of all certificates that peers are verified against."""
        ...


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def request(identity: Identity, key: ec.EllipticCurvePrivateKey, lifetime: float) -> Request:
    """Raises InvalidInputError when the identity has no proper name."""
    csr = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(_name_of(identity), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Request(identity, csr, lifetime)


@dataclasses.dataclass(frozen=True, slots=True)
class Authority:
    """Signs leaves of one trust domain with an intermediate or, without one, with a root."""

    trust_domain: str
    key: AuthorityKey = dataclasses.field(repr=False)
    chain: tuple[x509.Certificate, ...]
    """The key's own certificate first, then those between it and the root; never the root."""
    issuer: x509.Certificate
    """The key's own certificate."""
    root_certificates: tuple[x509.Certificate, ...]

    async def sign(self, request: Request, now: float) -> Issued:
        """Raises InvalidInputError when the request or the authority itself is not valid."""
        self._check(request, now)
        names = _name_of(request.identity)
        return self._issue(names, _BOTH_ENDS, request.csr, request.lifetime, now)

    def certify(
        self,
        names: Sequence[x509.GeneralName],
        csr: x509.CertificateSigningRequest,
        lifetime: float,
        now: float,
    ) -> Issued:
        """Certify a node rather than a workload. Raises InvalidInputError, as ``sign``.

        The certificate is for one end of a connection: the server's, which alone has a DNS name, or
        the client's. So no node passes for a destination of workloads.
        """
        self._check_csr(", ".join(str(name.value) for name in names), names, csr, now)
        serves = any(isinstance(name, x509.DNSName) for name in names)
        usage = ExtendedKeyUsageOID.SERVER_AUTH if serves else ExtendedKeyUsageOID.CLIENT_AUTH
        return self._issue(x509.SubjectAlternativeName(names), (usage,), csr, lifetime, now)

    def _issue(
        self,
        names: x509.SubjectAlternativeName,
        usages: Sequence[x509.ObjectIdentifier],
        csr: x509.CertificateSigningRequest,
        lifetime: float,
        now: float,
    ) -> Issued:
        if not lifetime >= _SHORTEST:  # so that it refuses NaN, too
            raise InvalidInputError(f"no certificate can be valid for {lifetime:g} seconds")
        last = min(c.not_valid_after_utc for c in (self.issuer, *self.root_certificates))
        leaf = (
            _validity(now, lifetime, last)
            .subject_name(x509.Name([]))
            .issuer_name(self.issuer.subject)
            .public_key(csr.public_key())
            .add_extension(names, critical=True)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(_issued_by(self.issuer), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        return Issued(
            pem(leaf, *self.chain),
            leaf.serial_number,
            leaf.not_valid_before_utc.timestamp(),
            leaf.not_valid_after_utc.timestamp(),
        )

    def roots(self) -> bytes:
        return pem(*self.root_certificates)

    def _check(self, request: Request, now: float) -> None:
        identity = checked(request.identity)
        if identity.trust_domain != self.trust_domain:
            raise InvalidInputError(
                f"{identity.uri}: not in this authority's trust domain {self.trust_domain!r}"
            )
        uri = x509.UniformResourceIdentifier(identity.uri)
        self._check_csr(identity.uri, [uri], request.csr, now)

    def _check_csr(
        self,
        whose: str,
        names: Sequence[x509.GeneralName],
        csr: x509.CertificateSigningRequest,
        now: float,
    ) -> None:
        if not csr.is_signature_valid:
            raise InvalidInputError(f"{whose}: the request is not signed by its own key")
        asked = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        if list(asked) != list(names):
            raise InvalidInputError(f"{whose}: the request names something else")
        for certificate in (self.issuer, *self.root_certificates):
            check_valid(certificate, now)


def make_root(
    key: ec.EllipticCurvePrivateKey, organization: str, now: float, lifetime: float
) -> x509.Certificate:
    """Return a self-signed root."""
    name = _subject(organization, "meshd root")
    return (
        _validity(now, lifetime, _LAST_MOMENT)
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def make_intermediate(
    key: AuthorityKey,
    organization: str,
    root: tuple[AuthorityKey, x509.Certificate],
    now: float,
    lifetime: float,
) -> x509.Certificate:
    """Return an intermediate that signs leaves only and ends no later than its root."""
    root_key, root_certificate = root
    return (
        _validity(now, lifetime, root_certificate.not_valid_after_utc)
        .subject_name(_subject(organization, "meshd intermediate"))
        .issuer_name(root_certificate.subject)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_issued_by(root_certificate), critical=False)
        .sign(root_key, hashes.SHA256())
    )


def pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(c.public_bytes(serialization.Encoding.PEM) for c in certificates)


def check_valid(certificate: x509.Certificate, now: float) -> None:
    """Raises InvalidInputError when it is expired or not valid yet."""
    moment = _moment(now)
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    name = certificate.subject.rfc4514_string()
    if moment > ends:
        raise InvalidInputError(f"CA certificate {name}: expired on {ends:%Y-%m-%d %H:%M:%S} UTC")
    if moment < begins:
        raise InvalidInputError(
            f"CA certificate {name}: valid from {begins:%Y-%m-%d %H:%M:%S} UTC only; check "
            "this host's clock"
        )


def is_authority(certificate: x509.Certificate) -> bool:
    """Return whether the certificate may sign others."""
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False


def is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Return whether ``issuer`` may sign others and has signed this certificate."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return is_authority(issuer)


def half_life(certificate: x509.Certificate) -> float:
    """Return the Unix time from which an intermediate is to be renewed."""
    begins = certificate.not_valid_before_utc.timestamp()
    return (begins + certificate.not_valid_after_utc.timestamp()) / 2


def same_key(key: AuthorityKey, certificate: x509.Certificate) -> bool:
    """Return whether the certificate is for this key."""
    return key.public_key() == certificate.public_key()


def _subject(organization: str, name: str) -> x509.Name:
    """Return a subject within the bounds of X.520: 64 characters each."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization[:64]),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )


def _moment(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


def _validity(now: float, lifetime: float, last: datetime.datetime) -> x509.CertificateBuilder:
    """Return a builder with the validity, whose end is rounded up to a whole second."""
    wanted = now + lifetime
    ends = last if wanted >= last.timestamp() else _moment(math.ceil(wanted))
    return (
        x509.CertificateBuilder()
        .serial_number(x509.random_serial_number())
        .not_valid_before(_moment(math.floor(now - CLOCK_SKEW)))
        .not_valid_after(ends)
    )


def _name_of(identity: Identity) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(checked(identity).uri)])


def _issued_by(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    try:
        found = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        key = cast(ec.EllipticCurvePublicKey, issuer.public_key())
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(key)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(found)


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def chain_of(
    issuer: x509.Certificate,
    between: Sequence[x509.Certificate],
    roots: Sequence[x509.Certificate],
) -> tuple[x509.Certificate, ...]:
    """Return the certificates from ``issuer`` to a root, without the root. Raises InvalidInputError
    if ``between`` does not lead there."""
    found: list[x509.Certificate] = []
    todo = list(between)
    at = issuer
    while at not in roots:
        found.append(at)
        above = next((c for c in (*roots, *todo) if c != at and is_issued_by(at, c)), None)
        if above is None:
            raise InvalidInputError(
                f"CA certificate {at.subject.rfc4514_string()}: its issuer "
                f"{at.issuer.rfc4514_string()} is neither a root nor in the chain"
            )
        if above in todo:
            todo.remove(above)
        at = above
    return tuple(found)
