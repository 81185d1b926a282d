"""Checks that proxies can use the content of a Secret: a certificate with its key, an authority.

A Secret may hold anything. It is checked if its type or the names of its entries say that it is for
TLS; ``cert``, ``key`` and ``cacert`` mean that only where they hold PEM.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from meshd.api.checks import Report
from meshd.api.decode import Path
from meshd.api.finding import Finding
from meshd.api.kubernetes.types import Secret
from meshd.api.read import Read
from meshd.base.errors import InvalidInputError

_PEM: Final = b"-----BEGIN "
_CERTIFICATE: Final = (("tls.crt", "cert"), ("tls.key", "key"))
_AUTHORITY: Final = (("ca.crt", "cacert"), ("ca.crl", "crl"))


def check_contents(report: Report, found: Secret) -> None:
    # The library for certificates takes ten megabytes: only where there are any.
    from meshd.base.credentials import check_authority, check_certificate  # noqa: PLC0415

    chain, key = (_judged(found, names) for names in _CERTIFICATE)
    if chain and key:
        _report(report, _place(found, *_CERTIFICATE[0]), lambda: check_certificate(chain, key))
    roots, revoked = (_judged(found, names) for names in _AUTHORITY)
    if roots:
        _report(report, _place(found, *_AUTHORITY[0]), lambda: check_authority(roots, revoked))


def out_of_date(reads: Iterable[Read], now: float) -> tuple[Finding, ...]:
    """Return warnings of certificates that are not valid at this moment."""
    found: list[Finding] = []
    for read in reads:
        if isinstance(read.object, Secret) and (why := _life_problem(read.object, now)):
            path = _place(read.object, *_CERTIFICATE[0])
            found.append(read.finding(path, f"{why}; others do not accept it", "warning"))
    return tuple(found)


def _life_problem(found: Secret, now: float) -> str:
    from meshd.base.credentials import check_certificate  # noqa: PLC0415

    chain, key = (_judged(found, names) for names in _CERTIFICATE)
    if not (chain and key):
        return ""
    try:
        return check_certificate(chain, key).problem(now)
    except InvalidInputError:  # said elsewhere
        return ""


def _judged(found: Secret, names: tuple[str, str]) -> bytes:
    """Return an entry, if it is certain that it is for TLS."""
    plain, short = names
    content = found.entry(plain, short)
    is_certain = found.type == "kubernetes.io/tls" or found.entry(plain) or _PEM in content
    return content if is_certain else b""


def _place(found: Secret, *names: str) -> Path:
    for name in names:
        if found.string_data.get(name):
            return ("stringData", name)
        if found.data.get(name):
            return ("data", name)
    return ()


def _report(report: Report, path: Path, judge: Callable[[], object]) -> None:
    try:
        judge()
    except InvalidInputError as error:
        report.error(path, f"{error}; no proxy would take it")
