"""Certificates and keys of workloads on disk, for a node whose authority is elsewhere.

After a restart they are served without asking the server. Each file is one identity's, 0600. What
cannot be used is removed: a key that nothing uses serves only those who steal it, and the identity
gets another one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Container
from pathlib import Path
from typing import Annotated, Final

import msgspec

from meshd.api.base import UnixSeconds
from meshd.base import kept_file
from meshd.base.disk import TEMPORARY, Disk, write_whole
from meshd.base.errors import UNDECODABLE
from meshd.base.unwritten import Unwritten
from meshd.ca.authority import Issued
from meshd.model.workload import Identity

_SWEEP: Final = 3600.0
"""Seconds between two looks for what has ended."""


class _Content(msgspec.Struct, frozen=True):
    uri: str
    issued: UnixSeconds
    begins: UnixSeconds
    expires: UnixSeconds
    serial: Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{1,40}\Z")]
    """Hexadecimal: RFC 5280, 4.1.2.2."""
    chain: bytes
    key: bytes


@dataclasses.dataclass(frozen=True, slots=True)
class Kept:
    """A certificate with its key. ``issued``: the Unix time at which it was made."""

    issued: UnixSeconds
    certificate: Issued
    key: bytes = dataclasses.field(repr=False)


class LeafFiles:
    """The files of certificates; ``directory`` is made when first needed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._swept = 0.0
        self._waiting: dict[Identity, Kept] = {}
        self._unwritten = Unwritten(directory)
        self._remove_remains()

    def _remove_remains(self) -> None:
        """Remove what a process that died was writing, and copies that former versions set
        aside."""
        for pattern in (f".*.json{TEMPORARY}", "*.json.damaged-*"):
            for path in self._directory.glob(pattern):
                with contextlib.suppress(OSError):
                    path.unlink()

    @property
    def problem(self) -> str:
        """Return why not all certificates are on disk; empty if they are."""
        return self._unwritten.problem

    @property
    def waits(self) -> bool:
        """Return whether anything waits for the disk, so that ``put_waiting`` may help."""
        return bool(self._waiting)

    def put(self, identity: Identity, kept: Kept) -> None:
        """Write now, or when the disk allows it; until then, the former file stays."""
        self._waiting[identity] = kept
        self.put_waiting()

    def put_waiting(self) -> None:
        """Write what could not be written before, as far as that is possible now."""
        try:
            for identity, kept in list(self._waiting.items()):
                self._write(identity, kept)
                del self._waiting[identity]
        except OSError as error:
            self._unwritten.note(
                f"{self._directory}: cannot be written: {error.strerror}; new certificates would "
                "be lost on restart"
            )
        else:
            self._unwritten.note("")

    def drop(self, identities: Container[Identity]) -> None:
        """Forget waiting writes of identities that are not among these."""
        self._waiting = {one: kept for one, kept in self._waiting.items() if one in identities}

    def _write(self, identity: Identity, kept: Kept) -> None:
        """Raises OSError."""
        issued = kept.certificate
        content = _Content(
            identity.uri,
            kept.issued,
            issued.begins,
            issued.expires,
            f"{issued.serial:x}",
            issued.chain,
            kept.key,
        )
        self._directory.mkdir(mode=0o700, exist_ok=True)
        write_whole(Disk(), self._path(identity), msgspec.json.encode(content))
        if abs(kept.issued - self._swept) >= _SWEEP:
            self._swept = kept.issued
            self._sweep(kept.issued)

    def _sweep(self, now: float) -> None:
        """Remove what has ended, of workloads that came and went.

        Only when a new certificate has just shown that the clock is right: a wrong one would cost
        a node that is without its server all that it has.
        """
        for path in self._directory.glob("*.json"):
            with contextlib.suppress(OSError):
                if _has_ended(path.read_bytes(), now):
                    path.unlink()

    def get(self, identity: Identity) -> Kept | None:
        """Return a certificate; None if there is none.

        An expired one is returned, too: without any, a proxy does not even serve what needs none.
        """
        decode = msgspec.json.Decoder(_Content).decode
        consequence = f"{identity.uri} gets a new certificate"
        found = kept_file.load(self._path(identity), decode, consequence, secret=True)
        if found is None or found.uri != identity.uri:
            return None
        certificate = Issued(found.chain, int(found.serial, 16), found.begins, found.expires)
        return Kept(found.issued, certificate, found.key)

    def _path(self, identity: Identity) -> Path:
        # Its own name could be longer than a file's may be.
        return self._directory / f"{hashlib.sha256(identity.uri.encode()).hexdigest()[:40]}.json"


def _has_ended(content: bytes, now: float) -> bool:
    """Return whether a certificate has ended, or cannot be used."""
    try:
        return now >= msgspec.json.decode(content, type=_Content).expires
    except UNDECODABLE:
        return True
