"""Doors of identities: requests for certificates, certificates, keys, tokens and names."""

from __future__ import annotations

import base64
import random
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from meshd.api import secret_files
from meshd.base import credentials
from meshd.ca import answers, names
from meshd.fleet.joining import node
from meshd.fleet.membership import csr, tokens
from meshd.fleet.server import istio_ca
from meshd.model import bounds
from meshd.protos.istio_ca_pb2 import IstioCertificateRequest
from tests import pem
from tests.fuzz.door import Door

_KEY: Final = pem.new_key()
_OTHER_KEYS: Final[tuple[Any, ...]] = (
    ec.generate_private_key(ec.SECP192R1()),
    ed25519.Ed25519PrivateKey.generate(),
    rsa.generate_private_key(65537, 1024),  # noqa: S505 - weak on purpose
)
_CERTIFICATE: Final = pem.certificate_pem(_KEY)
_URI: Final = "spiffe://cluster.local/ns/shop/sa/web"
_ASKED: Final = node.new_request(_KEY, _URI)
_REQUEST: Final = _ASKED.public_bytes(Encoding.PEM)


def _framed(label: bytes, data: bytes) -> bytes:
    body = base64.encodebytes(data)
    return b"-----BEGIN %b-----\n%b-----END %b-----\n" % (label, body, label)


def _ask(data: bytes) -> None:
    """A request for a certificate in DER, which the first byte may say to be PEM."""
    text = data[1:] if data[:1] == b"P" else _framed(b"CERTIFICATE REQUEST", data[1:])
    asked = csr.read(text)
    csr.check_node_may_ask("n", asked, ("shop",), "cluster.local")


_TEXTS: Final = (
    _URI,
    "spiffe://cluster.local/node/n",
    "spiffe://x/ns/a/sa/b",
    "",
    "../..",
    "a.test",
)
_NAMES: Final[tuple[x509.GeneralName, ...]] = (
    *map(x509.UniformResourceIdentifier, (*_TEXTS, *_TEXTS)),
    *map(x509.DNSName, _TEXTS),
    *(x509.RFC822Name("a@a.test"), x509.RegisteredID(x509.ObjectIdentifier("1.2.3"))),
)


def _make_request(rng: random.Random) -> bytes:
    """A request that is signed, for names that are wrong in some way."""
    listed: list[x509.GeneralName] = [rng.choice(_NAMES) for _ in range(rng.choice((0, 1, 1, 2)))]
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if listed:
        builder = builder.add_extension(x509.SubjectAlternativeName(listed), rng.random() < 0.5)
    if rng.random() < 0.3:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
    key = rng.choice((_KEY, _KEY, *_OTHER_KEYS))
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return b"D" + builder.sign(key, digest).public_bytes(Encoding.DER)


def _certificate(data: bytes) -> bytes:
    return data[1:] if data[:1] == b"P" else _framed(b"CERTIFICATE", data[1:])


def _check_credentials(data: bytes) -> None:
    credentials.check_certificate(_certificate(data), pem.key_pem(_KEY))


def _check_authority(data: bytes) -> None:
    first, _, second = data.partition(b"\n\n")
    credentials.check_authority(first, second)


def _take_answer(data: bytes) -> None:
    answers.check(_ASKED, _certificate(data), _CERTIFICATE)


def _identify(data: bytes) -> None:
    """A certificate that TLS has verified, which OpenSSL could read."""
    try:
        x509.load_der_x509_certificate(data)
    except (ValueError, x509.InvalidVersion):
        return
    istio_ca.peer_of(data, "cluster.local")


def _name(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    node.parse_node(text)
    secret_files.parse(text)
    names.parse(text)


def _bounds(data: bytes) -> None:
    bounds.checked(data.decode("utf-8", "replace").split("\n"))


_DER: Final = x509.load_pem_x509_certificate(_CERTIFICATE).public_bytes(Encoding.DER)
_TOKEN: Final = tokens.make(bytes(range(tokens.RANDOM_BYTES)), bytes(32)).text

DOORS: Final = (
    Door(
        "csr", _ask, (b"P" + _REQUEST, b"D" + _ASKED.public_bytes(Encoding.DER)), make=_make_request
    ),
    Door(
        "certificate-request",
        istio_ca.decode,
        (IstioCertificateRequest(csr=_REQUEST.decode(), validity_duration=60).SerializeToString(),),
    ),
    Door("certificate", _check_credentials, (b"P" + _CERTIFICATE, b"D" + _DER)),
    Door(
        "private-key",
        lambda data: credentials.check_certificate(_CERTIFICATE, data),
        (pem.key_pem(_KEY), pem.key_pem(_KEY, password=b"x")),
    ),
    Door("authority", _check_authority, (_CERTIFICATE, _CERTIFICATE + b"\n\n" + _CERTIFICATE)),
    Door("certificate-answer", _take_answer, (b"P" + _CERTIFICATE, b"D" + _DER)),
    Door("peer-certificate", _identify, (_DER,)),
    Door("token", lambda data: tokens.parse(data.decode("utf-8", "replace")), (_TOKEN.encode(),)),
    Door(
        "identity-name",
        _name,
        (_URI.encode(), b"spiffe://t/node/n", b"file-cert:/a~/b", b"file-root:system"),
    ),
    Door("node-bounds", _bounds, (b"shop\nbank/till",)),
)
