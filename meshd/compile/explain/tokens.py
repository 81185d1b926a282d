"""Reads the tokens of a request by the rules of the plan, as proxies do. Pure.

What is not done is to check signatures, for which there is no key here that could be trusted more
than the words of whoever asks: a token counts as signed unless ``is_signed`` says otherwise.
"""

from __future__ import annotations

import base64
import dataclasses
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from meshd.base.errors import UNDECODABLE
from meshd.base.json_values import Json, JsonObject, list_in, text_in
from meshd.compile.plan.origin import Origin
from meshd.compile.plan.tokens import TokenHeader, TokenRule
from meshd.matching.request import Request

IsSigned = Callable[[TokenRule, str], bool]
_SKEW: Final = 60.0
"""Seconds by which the clocks of issuers may differ."""
_BEARER: Final = (TokenHeader("authorization", "Bearer "),)
_PARAMETERS: Final = ("access_token",)
"""Where tokens stand if a rule says nothing else: RFC 6750, sections 2.1 and 2.3."""
_OF_TOKENS: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.")
_FOREIGN: Final = "it is of another issuer"
_NO_AUDIENCE: Final = 403
_INVALID: Final = 401


class Outcome(msgspec.Struct, frozen=True):
    """What became of a request's tokens."""

    claims: JsonObject | None = None
    """What the token says that is believed; None: there is none."""
    status: int = 0
    """With which the request is refused; 0: it is not."""
    why: str = ""
    rule: TokenRule | None = None
    """The rule that believes the token, or refuses it."""

    @property
    def origin(self) -> Origin | None:
        return self.rule and self.rule.origin


def any_signature(_rule: TokenRule, _token: str) -> bool:
    """Return True: every token counts as signed."""
    return True


def read(
    rules: Sequence[TokenRule],
    request: Request,
    now: float = 0,
    is_signed: IsSigned = any_signature,
) -> Outcome:
    """Return what becomes of a request's tokens. ``now``: Unix time; 0: times are not looked at."""
    if not rules or _is_preflight(request):
        return Outcome()
    every = (_of_rule(rule, request, now, is_signed) for rule in rules)
    found = [one for one in every if one is not None]
    if valid := next((one for one in found if not one.status), None):
        return valid
    # That a token is of another issuer says less than what else is wrong.
    known = [one for one in found if one.why != _FOREIGN]
    return next(iter((*known, *found)), Outcome())


def passed_on(rules: Sequence[TokenRule], outcome: Outcome, request: Request) -> Request:
    """Return a request as policies and the application see it, after its tokens were read."""
    gone = {name for rule in rules for name in rule.written_headers}
    added: list[tuple[str, str]] = []
    if (rule := outcome.rule) and outcome.claims is not None:
        if not rule.keeps_token:
            gone |= {one.name for one in _headers(rule)}
        texts = ((name, _claim_text(outcome.claims, claim)) for name, claim in rule.claim_headers)
        added = [(name, text) for name, text in texts if text]
    kept = tuple((name, value) for name, value in request.headers if name.lower() not in gone)
    return dataclasses.replace(request, headers=(*kept, *added))


def _claim_text(claims: JsonObject, name: str) -> str:
    """Return a claim as a header has it; empty: it has none of it."""
    value: Json = claims
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    match value:
        case bool():
            return str(value).lower()
        case str():
            return value
        case int() | float():
            return f"{value:.0f}" if value >= 0 and value == int(value) else f"{value:f}"
        case _:
            return ""


def _is_preflight(request: Request) -> bool:
    asks = all(any(request.values(name)) for name in ("origin", "access-control-request-method"))
    return request.method == "OPTIONS" and asks


def _of_rule(rule: TokenRule, request: Request, now: float, is_signed: IsSigned) -> Outcome | None:
    """Return what becomes of the tokens at the places of a rule, all of which have to be valid;
    None: there are none."""
    judged = [_judged(rule, token, now, is_signed) for token in tokens(rule, request)]
    if not judged:
        return None
    return next((one for one in reversed(judged) if one.status), judged[0])


def tokens(rule: TokenRule, request: Request) -> Iterator[str]:
    """Yield the tokens at the places of a rule, in the order in which proxies look for them."""
    for header in sorted(set(_headers(rule)), key=lambda one: one.name + one.prefix):
        for value in request.values(header.name):
            before, prefix, after = (
                value.partition(header.prefix) if header.prefix else ("", "", value)
            )
            if not header.prefix:
                yield value
            elif prefix:
                yield _token_in(before + prefix, after)
    query = urllib.parse.parse_qs(
        request.path.partition("?")[2].partition("#")[0], keep_blank_values=True
    )
    for name in sorted(set(_PARAMETERS if _is_usual(rule) else rule.parameters)):
        yield from query.get(name, ())[:1]
    cookies = _cookies(request) if rule.cookies else {}
    yield from (cookies[name] for name in sorted(set(rule.cookies)) if name in cookies)


def _is_usual(rule: TokenRule) -> bool:
    return not (rule.headers or rule.parameters or rule.cookies)


def _headers(rule: TokenRule) -> tuple[TokenHeader, ...]:
    return _BEARER if _is_usual(rule) else rule.headers


def _token_in(before: str, after: str) -> str:
    """Return what proxies take for the token after a prefix."""
    start = next((index for index, sign in enumerate(after) if sign in _OF_TOKENS), None)
    return before + after if start is None else after[start:]


def _cookies(request: Request) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for line in request.values("cookie"):
        for part in line.split(";"):
            name, equals, value = part.strip().partition("=")
            if equals:
                found.setdefault(name, value.strip('"'))
    return found


def _judged(rule: TokenRule, token: str, now: float, is_signed: IsSigned) -> Outcome:
    said = _claims(token)
    for why, status in _problems(rule, token, said, now, is_signed):
        return Outcome(status=status, why=why, rule=rule)
    return Outcome(_split(said or {}, rule.split_claims), rule=rule)


def _problems(
    rule: TokenRule, token: str, said: JsonObject | None, now: float, is_signed: IsSigned
) -> Iterator[tuple[str, int]]:
    """Yield why a token is not believed, and with which status it is refused; ``said``: what it
    says."""
    if said is None:
        yield "it is no token", _INVALID
        return
    if rule.issuer and said.get("iss") != rule.issuer:
        yield _FOREIGN, _INVALID
    if now and isinstance(until := said.get("exp"), int | float) and until + _SKEW < now:
        yield "it has expired", _INVALID
    if now and isinstance(since := said.get("nbf"), int | float) and since > now + _SKEW:
        yield "it is not valid yet", _INVALID
    wanted = {_audience(one) for one in rule.audiences}
    audiences = said.get("aud")
    given = [audiences] if isinstance(audiences, str) else list_in(audiences)
    if wanted and wanted.isdisjoint(_audience(text_in(one)) for one in given):
        yield "it is for another audience", _NO_AUDIENCE
    if not rule.has_keys:
        yield "the keys of its issuer are not known", _INVALID
    if not is_signed(rule, token):
        yield "its signature is wrong", _INVALID


def _audience(text: str) -> str:
    """Return an audience as proxies compare it."""
    for scheme in ("https://", "http://"):
        text = text.removeprefix(scheme)
    return text.removesuffix("/")


def _split(said: JsonObject, names: Sequence[str]) -> JsonObject:
    words: JsonObject = {
        name: list[Json](value.split())
        for name in names
        if isinstance(value := said.get(name), str)
    }
    return {**said, **words}


def _claims(token: str) -> JsonObject | None:
    """Return what a token says; None: it is none."""
    parts = token.split(".")
    if len(parts) != 3 or not all(parts):
        return None
    try:
        said = (base64.b64decode(one + "=" * (-len(one) % 4), altchars=b"-_") for one in parts[:2])
        header, payload = (msgspec.json.decode(one, type=dict[str, Json]) for one in said)
    except (*UNDECODABLE, ValueError):
        return None
    return payload if isinstance(header.get("alg"), str) and _is_well_formed(payload) else None


def _is_well_formed(said: JsonObject) -> bool:
    """Return whether registered claims are of their types: RFC 7519, section 4.1."""
    texts = all(isinstance(said.get(name, ""), str) for name in ("iss", "sub", "jti"))
    times = all(isinstance(said.get(name, 0), int | float) for name in ("iat", "nbf", "exp"))
    audiences = said.get("aud", "")
    listed = audiences if isinstance(audiences, list) else [audiences]
    return texts and times and all(isinstance(one, str) for one in listed)
