"""The keys of conditions of AuthorizationPolicies. Pure.

https://istio.io/latest/docs/reference/config/security/conditions/
"""

from __future__ import annotations

import re
from typing import Final

from meshd.api.authorization_policy.types import Rule

_HEADER: Final = re.compile(r"request\.headers\[(.+)\]")
OF_NETWORKS: Final = frozenset({"source.ip", "remote.ip", "destination.ip"})
OF_PORTS: Final = frozenset({"destination.port"})
OF_TEXTS: Final = frozenset({"source.namespace", "source.principal", "connection.sni"})
PRINCIPAL: Final = "request.auth.principal"
AUDIENCES: Final = "request.auth.audiences"
PRESENTER: Final = "request.auth.presenter"
OF_TOKENS: Final = frozenset({PRINCIPAL, AUDIENCES, PRESENTER})
KNOWN: Final = OF_NETWORKS | OF_PORTS | OF_TEXTS | OF_TOKENS
_CLAIM: Final = re.compile(r"request\.auth\.claims((?:\[[^\[\]]+\])+)")
_CLAIMS: Final = {AUDIENCES: ("aud",), PRESENTER: ("azp",)}


def header_of(key: str) -> str:
    """Return the header, in small letters, that a key is about; empty: it is about none."""
    found = _HEADER.fullmatch(key)
    return found[1].lower() if found else ""


def asks_tokens(rule: Rule) -> bool:
    """Return whether a rule asks for what a request's token says."""
    sources = (one.source for one in rule.from_ or () if one.source)
    named = any(one.request_principals or one.not_request_principals for one in sources)
    return named or any(one.key in OF_TOKENS or claim_of(one.key) for one in rule.when or ())


def claim_of(key: str) -> tuple[str, ...]:
    """Return the names of the claim, and of those within it, that a key is about; empty: it is
    about none."""
    found = _CLAIM.fullmatch(key)
    return tuple(found[1][1:-1].split("][")) if found else _CLAIMS.get(key, ())
