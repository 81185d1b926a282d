"""Files that configuration names: certificates with their keys, authorities, revocation lists.

Proxies never open them. They ask for a secret, whose name contains the paths as Istio's does, and
get the content.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from typing import Final

import msgspec

from meshd.api.destination_rule.types import ClientTLSSettings
from meshd.api.gateway.types import ServerTLSSettings

SYSTEM: Final = "system"
"""In place of a path: the authorities that the operating system trusts."""
_CERTIFICATE: Final = "file-cert:"
_AUTHORITY: Final = "file-root:"
_LONGEST: Final = 1024
"""Characters of a path."""


class SecretFiles(msgspec.Struct, frozen=True):
    """A certificate with its private key, or an authority with its revocation list if there is one.
    All are paths."""

    certificate: str = ""
    private_key: str = ""
    authority: str = ""
    revoked: str = ""

    @property
    def name(self) -> str:
        """Return the name of the secret."""
        if self.certificate:
            return f"{_CERTIFICATE}{_quoted(self.certificate)}~{_quoted(self.private_key)}"
        revoked = f"~{_quoted(self.revoked)}" if self.revoked else ""
        return f"{_AUTHORITY}{_quoted(self.authority)}{revoked}"

    @property
    def paths(self) -> tuple[str, ...]:
        given = (self.certificate, self.private_key, self.authority, self.revoked)
        return tuple(path for path in dict.fromkeys(given) if path and path != SYSTEM)


def is_of_files(name: str) -> bool:
    """Return whether a secret of this name comes from files."""
    return name.startswith((_CERTIFICATE, _AUTHORITY))


def parse(name: str) -> SecretFiles | None:
    """Return the files of a secret's name; None if the name is not of that form."""
    for prefix, fields in (
        (_CERTIFICATE, ("certificate", "private_key")),
        (_AUTHORITY, ("authority", "revoked")),
    ):
        if name.startswith(prefix):
            paths = [_unquoted(part) for part in name.removeprefix(prefix).split("~")]
            found = SecretFiles(**dict(zip(fields, paths, strict=False)))
            return found if found.name == name and len(paths) <= len(fields) else None
    return None


def of_client(tls: ClientTLSSettings) -> tuple[SecretFiles | None, SecretFiles | None]:
    """Return a client's certificate, and the authority by which it verifies servers.

    Either is None where a Secret holds it, or where there is none.
    """
    if tls.mode not in {"SIMPLE", "MUTUAL"} or tls.credential_name:
        return None, None
    shown = None
    if tls.mode == "MUTUAL" and tls.client_certificate:
        shown = SecretFiles(tls.client_certificate, tls.private_key or "")
    if tls.insecure_skip_verify:
        return shown, None
    return shown, SecretFiles(authority=tls.ca_certificates or SYSTEM, revoked=tls.ca_crl or "")


def of_server(tls: ServerTLSSettings) -> tuple[tuple[SecretFiles, ...], SecretFiles | None]:
    """Return a server's certificates, and the authority by which it verifies clients."""
    shown = tuple(SecretFiles(chain, key) for chain, key in tls.files)
    if not tls.asks_for_certificates or tls.authority_secret or not tls.authority_file:
        return shown, None
    return shown, SecretFiles(authority=tls.authority_file, revoked=tls.ca_crl or "")


def path_problem(path: str) -> str:
    """Return why a file cannot have this path; empty if it can."""
    if len(path) > _LONGEST:
        return f"a path of more than {_LONGEST} characters"
    if not path.isprintable():
        return "a path with characters that cannot be printed"
    if not path.startswith("/"):
        return f'"{path}" is not an absolute path'
    if ".." in path.split("/"):
        return f'"{path}": write the path without ".."'
    return ""


def is_below(path: str, directories: Iterable[str]) -> bool:
    """Return whether the path is in one of the directories, by its text alone: links are not
    followed."""
    plain = posixpath.normpath(path)
    return any(plain.startswith(posixpath.normpath(one).rstrip("/") + "/") for one in directories)


def _quoted(path: str) -> str:
    return path.replace("%", "%25").replace("~", "%7E")


def _unquoted(text: str) -> str:
    return text.replace("%7E", "~").replace("%25", "%")
