"""Decides which tokens a workload believes: RequestAuthentications, as rules of the plan.

The rules of all policies about a workload count together. A request without a token is none of
their business: an AuthorizationPolicy asks for one, or nobody does.
https://istio.io/latest/docs/concepts/security/#request-authentication
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from meshd.api.request_authentication.checks import unsupported
from meshd.api.request_authentication.discovery import keys_at
from meshd.api.request_authentication.key_sets import NoKeySetError, encoded, key_set, on_p256
from meshd.api.request_authentication.types import JWTRule, RequestAuthentication
from meshd.compile.plan import authorization as plan
from meshd.compile.plan.origin import Origin
from meshd.compile.plan.tokens import TokenHeader, TokenRule
from meshd.model.closed_authentication import ClosedAuthentication

_UNKNOWN: Final = "a part of it is not carried out, so no request is taken"
_ALWAYS_SPLIT: Final = ("scope", "permission")
"""RFC 8693, section 4.2, and Istio."""
Keys = Mapping[str, str]
"""The sets of keys that were fetched, by their URLs."""


def closed_rules(found: Iterable[RequestAuthentication]) -> Iterator[plan.Rule]:
    """Yield what denies all requests where a policy is not understood: tokens that it would not
    believe may be believed by the application."""
    for policy in found:
        if isinstance(policy, ClosedAuthentication) or any(unsupported(policy)):
            yield plan.Rule(origin=Origin(policy.key, _UNKNOWN), only_requests=True)


def token_rules(found: Iterable[RequestAuthentication], keys: Keys) -> tuple[TokenRule, ...]:
    """Return the rules of policies, in the order in which proxies try them."""
    rules = (
        _rule(policy, index, rule, keys)
        for policy in found
        for index, rule in enumerate(policy.spec.jwt_rules)
    )
    return tuple(sorted(rules, key=lambda one: one.issuer))


def _rule(policy: RequestAuthentication, index: int, rule: JWTRule, keys: Keys) -> TokenRule:
    known = _known_keys(rule, keys)
    claims = (one for one in rule.space_delimited_claims if one not in _ALWAYS_SPLIT)
    return TokenRule(
        origin=Origin(policy.key, f"spec.jwtRules[{index}]"),
        issuer=rule.issuer,
        audiences=rule.audiences,
        keys=known or nobodys_key(),
        has_keys=bool(known),
        headers=tuple(TokenHeader(one.name.lower(), one.prefix) for one in rule.from_headers),
        parameters=rule.from_params,
        cookies=rule.from_cookies,
        payload_header=rule.output_payload_to_header.lower(),
        claim_headers=tuple(
            (one.header.lower(), one.claim) for one in rule.output_claim_to_headers
        ),
        keeps_token=rule.forward_original_token,
        split_claims=(*_ALWAYS_SPLIT, *claims),
    )


def _known_keys(rule: JWTRule, keys: Keys) -> str:
    """Return the keys of a rule; empty: none are known."""
    try:
        return key_set(rule.jwks).text if rule.jwks else keys.get(keys_at(rule), "")
    except NoKeySetError:
        return ""


def request_principal(value: str) -> plan.RequestPrincipal:
    """Return what ``ISSUER/SUBJECT`` stands for, with a ``*`` at its beginning or end.

    An issuer may have slashes in it, so that the last one counts, as in Istio.
    """
    present = plan.Text("present")
    issuer, slash, subject = value.rpartition("/")
    if value == "*":
        return plan.RequestPrincipal(present, present)
    if value.startswith("*"):
        if not slash:
            return plan.RequestPrincipal(present, plan.Text("suffix", value[1:]))
        wanted = present if issuer == "*" else plan.Text("suffix", issuer[1:])
        return plan.RequestPrincipal(wanted, plan.Text("exact", subject))
    if value.endswith("*"):
        if not slash:
            return plan.RequestPrincipal(plan.Text("prefix", value[:-1]), present)
        wanted = present if subject == "*" else plan.Text("prefix", subject[:-1])
        return plan.RequestPrincipal(plan.Text("exact", issuer), wanted)
    exact = plan.Text("exact", issuer if slash else value)
    return plan.RequestPrincipal(exact, plan.Text("exact", subject if slash else ""))


@functools.cache
def nobodys_key() -> str:
    """Return a set with one key, for which nobody has the private key: a point of the curve whose
    coordinate is a digest."""
    x = int.from_bytes(hashlib.sha256(b"meshd: no key is known").digest(), "big")
    while (y := on_p256(x)) is None:
        x += 1
    key = {"kty": "EC", "crv": "P-256", "alg": "ES256", "x": encoded(x), "y": encoded(y)}
    return json.dumps({"keys": [key]}, sort_keys=True, separators=(",", ":"))
