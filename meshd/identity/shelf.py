"""Certificates and keys of workloads on disk, for a node whose authority is elsewhere.

What is there at a restart is served without asking anybody. A file is one identity's, 0600.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import logging
from pathlib import Path

import msgspec

from meshd.errors import UNDECODABLE, SystemRefusedError
from meshd.identity.authority import Issued
from meshd.identity.disk import Disk, write_whole
from meshd.model.workload import Identity

_log = logging.getLogger(__name__)


class _Content(msgspec.Struct, frozen=True):
    uri: str
    issued: float
    begins: float
    expires: float
    serial: str
    chain: bytes
    key: bytes


@dataclasses.dataclass(frozen=True, slots=True)
class Kept:
    """``issued``: Unix seconds at which it was made."""

    issued: float
    certificate: Issued
    key: bytes = dataclasses.field(repr=False)


class Shelf:
    """``directory`` is made when first needed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def put(self, identity: Identity, kept: Kept) -> None:
        """Raises SystemRefusedError; what was there before then still is."""
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
        path = self._path(identity)
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            write_whole(Disk(), path, msgspec.json.encode(content))
        except OSError as error:
            raise SystemRefusedError(f"{path}: cannot be written: {error.strerror}") from None

    def get(self, identity: Identity, now: float) -> Kept | None:
        """None when there is none that is valid; one that has ended is removed."""
        path = self._path(identity)
        try:
            found = msgspec.json.decode(path.read_bytes(), type=_Content)
        except FileNotFoundError:
            return None
        except (OSError, *UNDECODABLE) as error:
            _log.warning(
                "%s: not usable, so %s gets a new certificate: %s",
                *(path, identity.uri, error),
                extra={"MESHD_EVENT": "record-lost"},
            )
            return None
        if found.uri != identity.uri or now >= found.expires:
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        certificate = Issued(found.chain, int(found.serial, 16), found.begins, found.expires)
        return Kept(found.issued, certificate, found.key)

    def _path(self, identity: Identity) -> Path:
        # Its own name could be longer than a file's may be.
        return self._directory / f"{hashlib.sha256(identity.uri.encode()).hexdigest()[:40]}.json"
