"""Validates RequestAuthentications.

https://istio.io/latest/docs/reference/config/security/request_authentication/

A policy that is not understood whole is an error: tokens that should not be believed could be.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterable, Iterator
from typing import Final

from meshd.api.checks import (
    Report,
    check_duration,
    check_labels,
    header_problem,
    header_value_problem,
    host_problem,
    is_address,
)
from meshd.api.decode import Path
from meshd.api.request_authentication.key_sets import NoKeySetError, key_set
from meshd.api.request_authentication.types import JWTRule, RequestAuthentication

MOST_RULES: Final = 64
"""Of one policy: proxies hold the keys of each, for each port of the workloads."""
_LONGEST: Final = 4096
"""Characters of an issuer, an address or a name."""
_NO_TARGETS: Final = (
    "is not carried out yet, whatever group, kind, name and namespace; choose workloads by selector"
)
_TAKEN: Final = frozenset(
    {
        "connection",
        "content-length",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "x-forwarded-client-cert",
        "x-forwarded-for",
        "x-forwarded-proto",
    }
)
"""Headers that proxies write, or read."""


def check_request_authentication(report: Report, found: RequestAuthentication) -> None:
    spec = found.spec
    if spec.selector:
        check_labels(report, ("spec", "selector", "matchLabels"), spec.selector.match_labels)
    for path, why in unsupported(found):
        report.error(path, why)
    if not spec.jwt_rules:
        report.warning(("spec", "jwtRules"), "has no effect: no issuer is believed")
    if len(spec.jwt_rules) > MOST_RULES:
        report.error(("spec", "jwtRules"), f"at most {MOST_RULES} rules; split the policy")
        return
    for index, rule in enumerate(spec.jwt_rules):
        _check_rule(report, ("spec", "jwtRules", index), rule)


def unsupported(found: RequestAuthentication) -> Iterator[tuple[Path, str]]:
    """Yield the fields of a policy that are not carried out, and why."""
    spec = found.spec
    for name, given in (("targetRef", spec.target_ref), ("targetRefs", spec.target_refs)):
        if given is not None:
            yield ("spec", name), _NO_TARGETS


def _check_rule(report: Report, path: Path, rule: JWTRule) -> None:
    _check_issuer(report, path, rule)
    _check_texts(report, (*path, "audiences"), rule.audiences)
    for index, header in enumerate(rule.from_headers):
        at: Path = (*path, "fromHeaders", index)
        _check_header(report, (*at, "name"), header.name)
        if "%" not in header.prefix and (problem := header_value_problem(header.prefix)):
            report.error((*at, "prefix"), problem)
    for name, texts in (
        ("fromParams", rule.from_params),
        ("fromCookies", rule.from_cookies),
        ("spaceDelimitedClaims", rule.space_delimited_claims),
    ):
        _check_texts(report, (*path, name), texts)
    if rule.output_payload_to_header:
        _check_output(report, (*path, "outputPayloadToHeader"), rule.output_payload_to_header)
    for index, one in enumerate(rule.output_claim_to_headers):
        at = (*path, "outputClaimToHeaders", index)
        _check_output(report, (*at, "header"), one.header)
        _check_texts(report, (*at, "claim"), (one.claim,))
    check_duration(report, (*path, "timeout"), rule.timeout)


def _check_issuer(report: Report, path: Path, rule: JWTRule) -> None:
    if not rule.issuer and not rule.jwks_uri:
        report.error((*path, "issuer"), "is missing; without it, jwksUri is needed")
    if len(rule.issuer) > _LONGEST:
        report.error((*path, "issuer"), f"has more than {_LONGEST} characters")
    if rule.jwks and rule.jwks_uri:
        report.error((*path, "jwks"), "cannot stand beside jwksUri; leave one out")
    elif rule.jwks:
        _check_keys(report, (*path, "jwks"), rule.jwks)
    elif rule.jwks_uri:
        if problem := uri_problem(rule.jwks_uri):
            report.error((*path, "jwksUri"), problem)
    elif rule.issuer and uri_problem(rule.issuer):
        message = (
            "has neither jwks nor jwksUri, and its issuer is no URL at which it could be asked"
            " for its keys (OpenID Connect Discovery)"
        )
        report.error(path, message)


def _check_keys(report: Report, path: Path, text: str) -> None:
    try:
        found = key_set(text)
    except NoKeySetError as error:
        report.error(path, str(error))
        return
    for line in found.left_out:
        report.warning(path, f"{line}: it is left out")


def uri_problem(text: str) -> str:
    """Return why keys cannot be fetched from a URL; empty if they can."""
    if len(text) > _LONGEST:
        return f'"{text[:100]}…" has more than {_LONGEST} characters'
    if not text.isascii() or not text.isprintable() or " " in text:
        return f'"{text[:100]}" has characters that a URL has only in the form %XX'
    return _parts_problem(text, f'"{text[:100]}"')


def _parts_problem(text: str, shown: str) -> str:
    try:
        parts = urllib.parse.urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        return f"{shown} is not a URL: {error}"
    if parts.scheme not in {"http", "https"} or not host or port == 0:
        return f"{shown} is not a URL that begins with https:// or http:// and a host"
    if parts.username is not None or parts.password is not None or parts.fragment:
        return f"{shown} has a user, a password or a fragment, which are not sent"
    return "" if is_address(host) else host_problem(host, wildcard=False)


def _check_texts(report: Report, path: Path, texts: Iterable[str]) -> None:
    for index, text in enumerate(texts):
        at: Path = path if path[-1] == "claim" else (*path, index)
        if not text:
            report.error(at, "is empty")
        elif len(text) > _LONGEST:
            report.error(at, f"has more than {_LONGEST} characters")


def _check_header(report: Report, path: Path, name: str) -> None:
    if problem := header_problem(name):
        report.error(path, problem)
    elif len(name) > _LONGEST:
        report.error(path, f"has more than {_LONGEST} characters")


def _check_output(report: Report, path: Path, name: str) -> None:
    _check_header(report, path, name)
    if name.lower() in _TAKEN or name.lower().startswith("x-envoy-"):
        report.error(path, f'"{name}" is a header that proxies write themselves; name another one')
