"""Where the keys of an issuer are fetched. Pure.

https://openid.net/specs/openid-connect-discovery-1_0.html#ProviderConfig
"""

from __future__ import annotations

from typing import Final

from meshd.api.request_authentication.types import JWTRule

_CONFIGURATION: Final = "/.well-known/openid-configuration"


def keys_at(rule: JWTRule) -> str:
    """Return the URL at which a rule's keys are, or the issuer's configuration that names it;
    empty: the rule has its keys in it."""
    if rule.jwks:
        return ""
    return rule.jwks_uri or rule.issuer.rstrip("/") + _CONFIGURATION


def is_configuration(url: str) -> bool:
    """Return whether a URL is that of an issuer's configuration."""
    return url.endswith(_CONFIGURATION)


def configured_issuer(url: str) -> str:
    """Return the issuer whose configuration a URL is, without a slash at the end."""
    return url.removesuffix(_CONFIGURATION)
