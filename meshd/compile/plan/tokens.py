"""Which tokens of end users (JWT) a workload believes, and what becomes of what they say."""

from __future__ import annotations

import msgspec

from meshd.compile.plan.origin import Origin


class TokenHeader(msgspec.Struct, frozen=True):
    """A header in which a token stands, after a prefix."""

    name: str
    prefix: str = ""


class TokenRule(msgspec.Struct, frozen=True, kw_only=True):
    """The tokens of one issuer."""

    origin: Origin
    issuer: str = ""
    """Empty: any, as long as the keys are those of the rule."""
    audiences: tuple[str, ...] = ()
    """A token is for one of them; empty: it may be for anybody."""
    keys: str
    """JSON Web Key Set."""
    has_keys: bool = True
    """False: the keys are not known, and nobody can have made a token that is believed."""
    headers: tuple[TokenHeader, ...] = ()
    parameters: tuple[str, ...] = ()
    cookies: tuple[str, ...] = ()
    """Where tokens stand; none at all: where RFC 6750 has them."""
    payload_header: str = ""
    """The header in which the application reads all claims; empty: none."""
    claim_headers: tuple[tuple[str, str], ...] = ()
    """Headers in which the application reads single claims, each with the claim's name."""
    keeps_token: bool = False
    """The application is sent the token, too."""
    split_claims: tuple[str, ...] = ()
    """Claims that are lists of words."""

    @property
    def written_headers(self) -> tuple[str, ...]:
        """Return the headers that nobody but the proxy may write."""
        payload = (self.payload_header,) if self.payload_header else ()
        return (*payload, *(header for header, _ in self.claim_headers))
