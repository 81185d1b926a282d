"""RequestAuthentications: which tokens (JWT, RFC 7519) of end users are believed.

After https://istio.io/latest/docs/reference/config/security/request_authentication/.
"""

from __future__ import annotations

from typing import ClassVar

from meshd.api.authorization_policy.types import TargetReference
from meshd.api.base import Duration, Object, Strict, WorkloadSelector


class JWTHeader(Strict, frozen=True):
    """A header in which a token stands, after a prefix."""

    name: str = ""
    prefix: str = ""


class ClaimToHeader(Strict, frozen=True):
    """A claim that the application reads in a header. A claim of a claim is written ``a.b``."""

    header: str = ""
    claim: str = ""


class JWTRule(Strict, frozen=True):
    """One issuer: its keys, and where its tokens stand."""

    issuer: str = ""
    audiences: tuple[str, ...] = ()
    jwks_uri: str = ""
    jwks: str = ""
    from_headers: tuple[JWTHeader, ...] = ()
    from_params: tuple[str, ...] = ()
    from_cookies: tuple[str, ...] = ()
    output_payload_to_header: str = ""
    output_claim_to_headers: tuple[ClaimToHeader, ...] = ()
    forward_original_token: bool = False
    timeout: Duration | None = None
    """For one attempt to fetch the keys."""
    space_delimited_claims: tuple[str, ...] = ()


class RequestAuthenticationSpec(Strict, frozen=True):
    selector: WorkloadSelector | None = None
    target_ref: TargetReference | None = None
    target_refs: tuple[TargetReference, ...] | None = None
    jwt_rules: tuple[JWTRule, ...] = ()


class RequestAuthentication(Object, frozen=True):
    GROUP: ClassVar[str] = "security.istio.io"
    VERSIONS: ClassVar[tuple[str, ...]] = ("v1beta1", "v1")
    KIND: ClassVar[str] = "RequestAuthentication"
    PLURALS: ClassVar[tuple[str, ...]] = ("requestauthentications", "requestauthentication", "ra")

    spec: RequestAuthenticationSpec = RequestAuthenticationSpec()
