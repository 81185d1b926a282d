"""Nodes' own names, and the file with a node's key and certificate.

A node is ``spiffe://TRUST_DOMAIN/node/NAME``: no workload can have a name of that form, so none can
pass for a node, whatever namespace it claims. The server is told from other nodes by a DNS name
that no other certificate has.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from meshd.base.credentials import UNREADABLE
from meshd.base.disk import Disk, write_whole
from meshd.base.errors import InvalidInputError, SystemRefusedError

SERVER_NAME: Final = "control-plane.meshd.internal"
"""In the server's certificate, whatever the names are that it is reached by."""

_NAME: Final = re.compile(r"(?![.-])[A-Za-z0-9._-]{1,253}", re.ASCII)
_FORM: Final = re.compile(r"spiffe://([^/]+)/node/([^/]+)", re.ASCII)


def checked_name(node: str) -> str:
    """Return the name. Raises InvalidInputError if no node can have it."""
    if not _NAME.fullmatch(node):
        raise InvalidInputError(
            f"{node!r} is not a valid name for a node: use letters, digits, '.', '-' and '_'"
        )
    return node


def node_uri(trust_domain: str, node: str) -> str:
    """Raises InvalidInputError."""
    return f"spiffe://{trust_domain}/node/{checked_name(node)}"


def parse_node(uri: str) -> tuple[str, str] | None:
    """Trust domain and name; None when it is not the name of a node."""
    found = _FORM.fullmatch(uri)
    if found is None or not _NAME.fullmatch(found.group(2)):
        return None
    return found.group(1), found.group(2)


def new_request(
    key: ec.EllipticCurvePrivateKey, uri: str, dns: Sequence[str] = ()
) -> x509.CertificateSigningRequest:
    names = [x509.UniformResourceIdentifier(uri), *map(x509.DNSName, dns)]
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(x509.SubjectAlternativeName(names), critical=True)
        .sign(key, hashes.SHA256())
    )


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Credentials:
    """The certificate and key of one end of a TLS connection, and the roots to verify the other.
    PEM."""

    key: bytes = dataclasses.field(repr=False)
    chain: bytes
    roots: bytes

    @property
    def leaf(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate(self.chain)

    @property
    def begins(self) -> float:
        return self.leaf.not_valid_before_utc.timestamp()

    @property
    def expires(self) -> float:
        return self.leaf.not_valid_after_utc.timestamp()

    @property
    def uri(self) -> str:
        """Return the certificate's URI; empty if it has none."""
        names = self.leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return next(iter(names.get_values_for_type(x509.UniformResourceIdentifier)), "")


_KEY_END: Final = b"-----END PRIVATE KEY-----\n"


class NodeFile:
    """A node's credentials on disk.

    One file, so that key and certificate always belong together: the key, the chain, and the roots
    after a line that says so.
    """

    _ROOTS: Final = b"# roots\n"

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._read: Credentials | None = None

    def load(self) -> Credentials:
        """Raises InvalidInputError when there is none, or it is damaged. Reads what is new only."""
        try:
            found = self._path.stat()
            stamp = (found.st_ino, found.st_mtime_ns)
            if self._read is None or stamp != self._stamp:
                self._read, self._stamp = self._parse(self._path.read_bytes()), stamp
        except FileNotFoundError:
            raise InvalidInputError(
                f"{self._path}: missing: this node has no certificate of its own; run: meshctl "
                "join SERVER --token TOKEN"
            ) from None
        except OSError as error:
            raise SystemRefusedError(f"{self._path}: cannot be read: {error.strerror}") from None
        return self._read

    def _parse(self, raw: bytes) -> Credentials:
        key, end, rest = raw.partition(_KEY_END)
        chain, separator, roots = rest.partition(self._ROOTS)
        try:
            if not (end and separator):
                raise ValueError("incomplete")
            serialization.load_pem_private_key(key + end, password=None)
            x509.load_pem_x509_certificates(chain)
            x509.load_pem_x509_certificates(roots)
        except UNREADABLE as error:
            raise InvalidInputError(
                f"{self._path}: damaged ({error}); run meshctl join with a new token"
            ) from None
        return Credentials(key + end, chain, roots)

    def save(self, credentials: Credentials, owner: tuple[int, int] | None = None) -> None:
        """Save as a whole or not at all; ``owner`` is uid and gid. Raises SystemRefusedError."""
        data = credentials.key + credentials.chain + self._ROOTS + credentials.roots
        try:
            write_whole(Disk(), self._path, data)
            if owner:
                os.chown(self._path, *owner)
        except OSError as error:
            raise SystemRefusedError(
                f"{self._path}: cannot be written: {error.strerror}; nothing was replaced"
            ) from None
