"""mesh → identity, one connection for as long as both live: the certificates of this node."""

from __future__ import annotations

import msgspec

from meshd.api.base import UnixSeconds
from meshd.model.workload import Identity
from meshd.wire.message import Message


class Allow(Message, frozen=True):
    """All identities of this node's workloads. No other is ever served."""

    identities: tuple[Identity, ...]
    contacts: int = 0
    """Of an agent. Whenever it changes, a certificate that was refused before is worth asking."""


class CertificateState(msgspec.Struct, frozen=True):
    """The state of one served certificate."""

    uri: str
    expires: UnixSeconds
    """Unix seconds."""
    serial: str
    problem: str = ""


class FileState(msgspec.Struct, frozen=True):
    """A secret in files that cannot be served as they are."""

    name: str
    problem: str


class CheckFiles(Message, frozen=True):
    """A question whether these secrets in files could be served; answered by ``CheckedFiles``."""

    names: tuple[str, ...]


class CheckedFiles(Message, frozen=True):
    problems: tuple[FileState, ...]


class Certificates(Message, frozen=True):
    """All that is served now, sent back at each change."""

    certificates: tuple[CertificateState, ...]
    problem: str = ""
    """With keeping them on disk: of no one of them alone."""
    files: tuple[FileState, ...] = ()


Messages = Allow | Certificates | CheckFiles | CheckedFiles
