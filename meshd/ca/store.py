"""The authority's keys and certificates on disk, under the names that Istio gives them.

``root-key.pem``, ``root-cert.pem``: the root; ``ca-key.pem``, ``ca-cert.pem``: the intermediate
that signs leaves; ``cert-chain.pem``: certificates between it and the root, if there are any.
Missing files are made at the first start, each key before its certificate. An administrator may
provide their own, as for Istio's ``cacerts``: then no root key is needed on this host, and the
administrator renews the intermediate.

The directory (0700) and the files (0600) belong to the identity role's user, and no workload or
proxy runs as that user; root on the host can read them. Leaf keys are never on disk. A root that
exists is never replaced: every unclear case is an error.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Generator
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from meshd.base.credentials import UNREADABLE
from meshd.base.disk import TEMPORARY, Disk, sync_directory, write_whole
from meshd.base.errors import InvalidInputError, MeshdError, NotReadyError, SystemRefusedError
from meshd.ca import authority
from meshd.ca.authority import Authority, AuthorityKey

_MAX_BYTES: Final = 1024 * 1024
_INTERMEDIATE: Final = 0.1
"""Life time of an intermediate of ours, as a part of the root's."""


class Store:
    """One directory of keys. ``lifetime``: seconds for which a new root is valid."""

    def __init__(
        self, directory: Path, trust_domain: str, lifetime: float, disk: Disk | None = None
    ) -> None:
        self._directory = directory
        self._trust_domain = trust_domain
        self._lifetime = lifetime
        self._disk = disk or Disk()
        self._root_key = directory / "root-key.pem"
        self._root_cert = directory / "root-cert.pem"
        self._ca_key = directory / "ca-key.pem"
        self._ca_cert = directory / "ca-cert.pem"
        self._cert_chain = directory / "cert-chain.pem"

    def open(self, now: float) -> Authority:
        """Return the authority, made or completed if necessary; call it again when the intermediate
        may be due.

        Raises MeshdError, one line, if the files cannot be used or written.
        """
        with self._locked():
            self._sweep()
            if self._root_key.exists():
                self._complete(now)
            elif not any(path.exists() for path in (self._root_cert, self._ca_key, self._ca_cert)):
                self._write_key(self._root_key)
                self._complete(now)
            return self._load(now)

    # ---- making what is missing

    def _complete(self, now: float) -> None:
        """Make what is missing, with the root key."""
        root_key = self._read_key(self._root_key)
        if not self._root_cert.exists():
            self._refuse_orphan(self._ca_cert, self._root_cert)
            made = authority.make_root(
                _ours(root_key, self._root_key), self._trust_domain, now, self._lifetime
            )
            self._write(self._root_cert, authority.pem(made), 0o644)
        root = self._read_certificates(self._root_cert)[0]
        self._check_pair(self._root_key, root_key, self._root_cert, root)
        self._checked_valid(self._root_cert, root, now)
        if not self._ca_key.exists():
            self._refuse_orphan(self._ca_cert, self._ca_key)
            self._write_key(self._ca_key)
        if not self._ca_cert.exists() or self._is_due(root, now):
            self._make_intermediate((root_key, root), now)

    def _is_due(self, root: x509.Certificate, now: float) -> bool:
        """Return whether the intermediate has to be renewed; only one that the root itself issued
        is ours."""
        found = self._read_certificates(self._ca_cert)[0]
        ours = found != root and authority.is_issued_by(found, root)
        return ours and now >= authority.half_life(found)

    def _make_intermediate(self, root: tuple[AuthorityKey, x509.Certificate], now: float) -> None:
        key = self._read_key(self._ca_key)
        made = authority.make_intermediate(
            key, self._trust_domain, root, now, self._lifetime * _INTERMEDIATE
        )
        self._write(self._ca_cert, authority.pem(made), 0o644)

    def _refuse_orphan(self, found: Path, missing: Path) -> None:
        if found.exists():
            raise InvalidInputError(
                f"{found}: there, but {missing.name} is not; put it back, or move all files of "
                f"{self._directory} away to begin with a new root"
            )

    def _write_key(self, path: Path) -> None:
        text = authority.new_key().private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        self._write(path, text, 0o600)

    def _write(self, path: Path, data: bytes, mode: int) -> None:
        try:
            write_whole(self._disk, path, data, mode)
        except OSError as error:
            raise SystemRefusedError(
                f"{path}: cannot be written: {error.strerror}; nothing was replaced"
            ) from None

    # ---- reading

    def _load(self, now: float) -> Authority:
        for path in (self._root_cert, self._ca_cert, self._ca_key):
            if not path.exists():
                raise InvalidInputError(
                    f"{path}: missing, and there is no root-key.pem to make it with; put it back, "
                    f"or move all files of {self._directory} away to begin with a new root"
                )
        key = self._read_key(self._ca_key)
        issuer, *more = self._read_certificates(self._ca_cert)
        roots = self._read_certificates(self._root_cert)
        if self._cert_chain.exists():
            more += self._read_certificates(self._cert_chain)
        self._check_pair(self._ca_key, key, self._ca_cert, issuer)
        self._checked_valid(self._ca_cert, issuer, now)
        if not authority.is_authority(issuer):
            raise InvalidInputError(f"{self._ca_cert}: may not sign others; use a CA certificate")
        for root in roots:
            self._checked_valid(self._root_cert, root, now)
        try:
            chain = authority.chain_of(issuer, more, roots)
        except InvalidInputError as error:
            raise InvalidInputError(
                f"{self._ca_cert}: {error}; complete root-cert.pem or cert-chain.pem"
            ) from None
        for link in chain:
            self._checked_valid(self._cert_chain, link, now)
        return Authority(self._trust_domain, key, chain, issuer, tuple(roots))

    def _check_pair(
        self, key_path: Path, key: AuthorityKey, path: Path, certificate: x509.Certificate
    ) -> None:
        if not authority.same_key(key, certificate):
            raise InvalidInputError(
                f"{path}: is for another key than {key_path.name}; put back the file that belongs "
                "to it"
            )

    def _checked_valid(self, path: Path, certificate: x509.Certificate, now: float) -> None:
        try:
            authority.check_valid(certificate, now)
        except InvalidInputError as error:
            raise InvalidInputError(
                f"{path}: {error}; replace it, or move all files of {self._directory} away to "
                "begin with a new root"
            ) from None

    def _read_key(self, path: Path) -> AuthorityKey:
        try:
            found = serialization.load_pem_private_key(_read(path, private=True), password=None)
        except TypeError:
            raise InvalidInputError(
                f"{path}: has a passphrase; store it without one (openssl pkey -in … -out …)"
            ) from None
        except UNREADABLE:
            raise InvalidInputError(
                f"{path}: not a private key in PEM; put back the one that was there"
            ) from None
        if not isinstance(found, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
            raise InvalidInputError(f"{path}: neither an ECDSA nor an RSA key; use one of these")
        return found

    def _read_certificates(self, path: Path) -> list[x509.Certificate]:
        """Return the certificates of a file, at least one."""
        try:
            return x509.load_pem_x509_certificates(_read(path, private=False))
        except UNREADABLE:
            raise InvalidInputError(
                f"{path}: not a certificate in PEM; put back the one that was there"
            ) from None

    # ---- the directory

    @contextlib.contextmanager
    def _locked(self) -> Generator[None]:
        """Hold a lock: two processes that start together must not make two roots."""
        descriptor = self._open_directory()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise NotReadyError(
                f"{self._directory}: another process of meshd is using it; try again"
            ) from None
        finally:
            os.close(descriptor)

    def _open_directory(self) -> int:
        path = self._directory
        try:
            with contextlib.suppress(FileExistsError):
                path.mkdir(mode=0o700)
                sync_directory(self._disk, path.parent)
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise SystemRefusedError(
                f"{path}: cannot be opened: {error.strerror}; it must be a directory of the user "
                "that meshd's roles run as"
            ) from None
        if stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o077:
            os.close(descriptor)
            raise InvalidInputError(f"{path}: others may enter it; run: chmod 700 {path}")
        return descriptor

    def _sweep(self) -> None:
        """Remove what a process that died while writing has left."""
        for path in self._directory.glob(f".*{TEMPORARY}"):
            with contextlib.suppress(OSError):
                path.unlink()


def _read(path: Path, *, private: bool) -> bytes:
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            data = file.read(_MAX_BYTES)
    except OSError as error:
        raise _unreadable(path, error) from None
    if private and stat.S_IMODE(found.st_mode) & 0o077:
        raise InvalidInputError(f"{path}: others may read this key; run: chmod 600 {path}")
    if private and found.st_uid not in {0, os.geteuid()}:
        raise InvalidInputError(
            f"{path}: belongs to uid {found.st_uid}; run: chown {os.geteuid()} {path}"
        )
    return data


def _unreadable(path: Path, error: OSError) -> MeshdError:
    hint = f"; run: chown {os.geteuid()} {path}" if isinstance(error, PermissionError) else ""
    return SystemRefusedError(f"{path}: cannot be read: {error.strerror}{hint}")


def _ours(key: AuthorityKey, path: Path) -> ec.EllipticCurvePrivateKey:
    """Raises InvalidInputError for a key that we did not make, so neither its certificate."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key
    raise InvalidInputError(f"{path}: there, but root-cert.pem is not; put it back")
