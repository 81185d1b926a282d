"""Converts identities to SPIFFE names and back. Pure.

After https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md, with Istio's path:
``spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT``.
"""

from __future__ import annotations

import re
from typing import Final

from meshd.base.errors import InvalidInputError
from meshd.model.workload import Identity

TRUST_BUNDLE: Final = "ROOTCA"
"""The secret that holds the roots which peers are verified against."""

_SCHEME: Final = "spiffe://"
_FORM: Final = "spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT"
_MAX_BYTES: Final = 2048
_TRUST_DOMAIN: Final = re.compile(r"[a-z0-9._-]{1,255}", re.ASCII)
_SEGMENT: Final = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9._-]+", re.ASCII)


def parse(uri: str) -> Identity:
    """Raises InvalidInputError when it is not the name of a workload."""
    if not uri.startswith(_SCHEME):
        raise _error(uri, f"not of the form {_FORM}")
    match uri.removeprefix(_SCHEME).split("/"):
        case [trust_domain, "ns", namespace, "sa", service_account]:
            return checked(Identity(trust_domain, namespace, service_account))
        case _:
            raise _error(uri, f"not of the form {_FORM}")


def checked(identity: Identity) -> Identity:
    """Return the identity if its name is unambiguous. Raises InvalidInputError."""
    uri = identity.uri
    if len(uri) > _MAX_BYTES:
        raise _error(uri[:64] + "…", f"{len(uri)} bytes; SPIFFE allows {_MAX_BYTES}")
    if not _TRUST_DOMAIN.fullmatch(identity.trust_domain):
        raise _error(
            uri, "trust domain: must be 1 to 255 lower-case letters, digits, '.', '-' and '_'"
        )
    parts = (("namespace", identity.namespace), ("service account", identity.service_account))
    for part, value in parts:
        if not _SEGMENT.fullmatch(value):
            raise _error(uri, f"{part}: must be letters, digits, '.', '-' and '_'")
    return identity


def _error(uri: str, reason: str) -> InvalidInputError:
    return InvalidInputError(f"SPIFFE name {uri!r}: {reason}")
