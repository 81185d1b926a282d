"""Decides what proxies are sent of Kubernetes' Secrets, for gateways and for rules with
``credentialName``.

Istio's keys: ``tls.crt``, ``tls.key``, ``ca.crt`` and ``ca.crl`` (or ``cert``, ``key``, ``cacert``,
``crl``): https://istio.io/latest/docs/tasks/traffic-management/ingress/secure-ingress/#key-formats.

What proxies would refuse is never sent to them: they would refuse what names it as a whole, with
all that is beside it. Who names it is given a name instead that no secret has, so that handshakes
fail there and only there, also when a Secret that was good is deleted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, TypeVar

from meshd.api.kubernetes.types import Secret
from meshd.base.errors import InvalidInputError
from meshd.compile.memo import Memo
from meshd.compile.names import KUBERNETES, authority_secret, certificate_secret
from meshd.compile.plan.secrets import ServedAuthority, ServedCertificate, ServedSecret

if TYPE_CHECKING:
    from meshd.base.credentials import Life

T = TypeVar("T")
_AUTHORITY = "-cacert"


@dataclasses.dataclass(frozen=True, slots=True)
class Need:
    """A use of a Secret."""

    name: str
    """``NAMESPACE/NAME``."""
    user: str
    """What asks, as people know it."""
    certificate: bool
    authority: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Credential:
    """The usable parts of a Secret."""

    certificate: ServedCertificate | None = None
    """With its key."""
    authority: ServedAuthority | None = None
    life: Life | None = None
    """Of the certificate."""
    problem: str = ""
    """Why it is less than what is written; empty when it is not."""
    missing: bool = False
    """There is no such Secret."""


@dataclasses.dataclass(frozen=True, slots=True)
class UsedCredential:
    """A credential that something on this node names."""

    need: Need
    credential: Credential

    @property
    def unusable(self) -> str:
        """Return why proxies are not sent what they need of a credential; empty if they are."""
        found, need = self.credential, self.need
        why = found.problem
        if not why and need.certificate and found.certificate is None:
            why = "it has no tls.crt and tls.key"
        if not why and need.authority and found.authority is None:
            why = "it has no ca.crt"
        return self._said(why, "no connection succeeds there until it is mended")

    def problem(self, now: float) -> str:
        """Return what is wrong with a credential at this moment; empty if nothing is."""
        life = self.credential.life if self.need.certificate else None
        why = life.problem(now) if life else ""
        return self.unusable or self._said(why, "others do not accept it")

    def _said(self, why: str, then: str) -> str:
        return f"{self.need.user}: Secret {self.need.name}: {why}; {then}" if why else ""


class Credentials:
    """The credentials that one compilation asks for."""

    def __init__(self, secrets: Mapping[str, Secret], memo: Memo) -> None:
        self._secrets = secrets
        self._memo = memo
        self._found: dict[str, Credential] = {}
        self._needs: dict[Need, None] = {}
        self._served: set[str] = set()

    def need(self, need: Need) -> None:
        """Note a use of a Secret."""
        self._needs[need] = None
        name = need.name
        if name not in self._found:
            secret, authority = self._secrets.get(name), self._secrets.get(name + _AUTHORITY)
            made = self._memo.call(("credential", name), credential, name, secret, authority)
            self._found[name] = made
            self._served |= {served.name for served in _served(made)}

    def renewed(self, secrets: Mapping[str, Secret], memo: Memo) -> Credentials | None:
        """Return the credentials that the same uses make of other Secrets; None: proxies are sent
        secrets of other names."""
        found = Credentials(secrets, memo)
        for need in self._needs:
            found.need(need)
        found._memo = self._memo  # the other one is for this compilation
        return found if found._served == self._served else None

    def of(self, name: str) -> Credential:
        """Return a credential that is needed."""
        return self._found[name]

    def is_served(self, name: str) -> bool:
        """Return whether proxies are sent a secret of this name. Names that are not Kubernetes'
        come from elsewhere."""
        if not name.startswith(KUBERNETES):
            return True
        return name in self._served

    def served(self) -> Iterator[ServedSecret]:
        """Yield what proxies are sent."""
        for _, found in sorted(self._found.items()):
            yield from _served(found)

    def used(self) -> tuple[UsedCredential, ...]:
        return tuple(UsedCredential(need, self._found[need.name]) for need in self._needs)


def _served(found: Credential) -> Iterator[ServedSecret]:
    return (one for one in (found.certificate, found.authority) if one is not None)


def credential(name: str, secret: Secret | None, beside: Secret | None) -> Credential:
    """Return a credential; ``beside``: the Secret ``…-cacert`` that may hold the authority
    alone."""
    # The library for certificates takes ten megabytes: only where there are Secrets.
    from meshd.base.credentials import check_authority, check_certificate  # noqa: PLC0415

    if secret is None:
        return Credential(problem="there is no such Secret", missing=True)
    problems: list[str] = []
    chain, key = secret.entry("tls.crt", "cert"), secret.entry("tls.key", "key")
    life = _judged(problems, check_certificate, chain, key) if chain or key else None
    roots, revoked = _authority(secret)
    if not roots and beside:
        roots, listed = _authority(beside)
        revoked = listed or revoked
    is_usable = bool(roots) and _judged(problems, check_authority, roots, revoked)
    if not (chain or key or roots):
        problems.append("it has none of tls.crt, tls.key and ca.crt")
    return Credential(
        ServedCertificate(certificate_secret(name), chain, key) if life else None,
        ServedAuthority(authority_secret(name), roots, revoked) if is_usable else None,
        life,
        ", ".join(problems),
    )


def _authority(secret: Secret) -> tuple[bytes, bytes]:
    """Return the authority and its revocation list."""
    return secret.entry("ca.crt", "cacert"), secret.entry("ca.crl", "crl")


def _judged(
    problems: list[str], judge: Callable[[bytes, bytes], T], one: bytes, other: bytes
) -> T | None:
    try:
        return judge(one, other)
    except InvalidInputError as error:
        problems.append(str(error))
        return None
