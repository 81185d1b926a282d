"""Judges connections and requests by the rules of the plan, as proxies do. Pure."""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal

import msgspec

from meshd.api.patterns import accepts
from meshd.base.json_values import Json, JsonObject, list_in
from meshd.compile.explain.route_choice import normalized
from meshd.compile.explain.tokens import IsSigned, Outcome, any_signature, passed_on, read
from meshd.compile.plan.authorization import (
    Address,
    Alternative,
    Asking,
    Authorization,
    Claim,
    Field,
    Header,
    Path,
    Peer,
    Port,
    RequestPrincipal,
    Rule,
    ServerName,
    Test,
    Text,
    Tried,
)
from meshd.compile.plan.origin import Origin
from meshd.matching.request import FORWARDED_FOR, Request

_FORBIDDEN: Final = 403


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a connection, and of a request in it."""

    peer: str = ""
    """SPIFFE URI; empty: the client showed no certificate of the mesh."""
    client: str = ""
    """Address."""
    forwarded: str = ""
    """The client's address as ``x-forwarded-for`` tells it; empty: as ``client``."""
    server: str = ""
    """Address."""
    port: int = 0
    server_name: str = ""
    now: float = 0
    """Unix time; 0: that of tokens is not looked at."""
    path: str = ""
    """With its query."""
    headers: Mapping[str, tuple[str, ...]] = {}
    """The values of each, by names in small letters, ``:authority`` and ``:method`` among them."""
    claims: JsonObject | None = None
    """What the request's token says; None: there is none that is believed."""


class Asked(msgspec.Struct, frozen=True):
    """An extension provider is asked. What it says is known to nobody here."""

    provider: str
    rule: Rule

    def __str__(self) -> str:
        return (
            f"{self.provider} is asked first, by {self.rule.origin}; what it says is not known here"
        )


class Verdict(msgspec.Struct, frozen=True):
    allowed: bool
    why: Literal[
        "no policy", "denied by", "allowed by", "nothing denies", "nothing allows", "invalid token"
    ]
    rule: Rule | None = None
    token: Outcome = Outcome()
    """What became of the request's token."""
    sent: Request | None = None
    """The request as it goes on, with what its token says."""
    notes: tuple[str, ...] = ()
    """What policies say that decide nothing."""
    asked: Asked | None = None
    """Who is asked before; None: nobody."""

    @property
    def status(self) -> int:
        """Return with which status a request is refused that is not allowed."""
        return self.token.status or _FORBIDDEN

    @property
    def origin(self) -> Origin | None:
        """Return what decided."""
        return self.token.origin if self.token.status else self.rule and self.rule.origin

    def __str__(self) -> str:
        return "; ".join((self._decided, *self.notes))

    @property
    def _decided(self) -> str:
        if self.token.status:
            return f"token refused by {self.token.origin}: {self.token.why}"
        word = "allowed" if self.allowed else "denied"
        if self.rule:
            return f"{word} by {self.rule.origin}"
        told = {
            "no policy": "no AuthorizationPolicy is about it",
            "nothing denies": "no rule denies it, and no policy allows only some",
            "nothing allows": "no rule of a policy that allows some fits",
            "invalid token": self.token.why,
        }
        return f"{word}: {told[self.why]}"


def judge(rules: Authorization | None, facts: Facts) -> Verdict:
    """Return what becomes of a request; of a connection, if ``rules`` are those of connections."""
    if rules is None:
        return Verdict(True, "no policy")
    found = _decided(rules, facts)
    notes = tuple(_notes(rules, facts))
    return msgspec.structs.replace(found, notes=notes, asked=_asked(rules.asking, facts))


def _asked(asking: Asking | None, facts: Facts) -> Asked | None:
    if asking is None:
        return None
    rule = next((rule for rule in asking.rules if fits(rule, facts)), None)
    return rule and Asked(asking.provider.name, rule)


def _notes(rules: Authorization, facts: Facts) -> Iterator[str]:
    if audited := next((rule for rule in rules.audit if fits(rule, facts)), None):
        yield f"audited by {audited.origin}"
    for tried in (Tried(deny=rules.tried.deny), Tried(allow=rules.tried.allow)):
        verdict = _decided(tried, facts)
        if not verdict.allowed:
            by = f"by {verdict.rule.origin}" if verdict.rule else "since no rule on trial allows it"
            yield f"would be denied {by}, which is a dry run"


def _decided(rules: Authorization | Tried, facts: Facts) -> Verdict:
    if denied := next((rule for rule in rules.deny if fits(rule, facts)), None):
        return Verdict(False, "denied by", denied)
    if rules.allow is None:
        return Verdict(True, "nothing denies")
    if allowed := next((rule for rule in rules.allow if fits(rule, facts)), None):
        return Verdict(True, "allowed by", allowed)
    return Verdict(False, "nothing allows")


def judge_request(
    rules: Authorization | None,
    connection: Facts,
    request: Request,
    is_signed: IsSigned = any_signature,
) -> Verdict:
    """Return what becomes of a request; ``is_signed``: see ``tokens.read``."""
    token, seen = Outcome(), request
    if rules and rules.tokens:
        token = read(rules.tokens, normalized(request), connection.now, is_signed)
        seen = passed_on(rules.tokens, token, request)
    if token.status:
        return Verdict(False, "invalid token", token=token)
    facts = facts_of(connection, seen)
    found = judge(rules, msgspec.structs.replace(facts, claims=token.claims))
    sent = dataclasses.replace(seen, claims=token.claims)
    return msgspec.structs.replace(found, token=token, sent=sent)


def fits(rule: Rule, facts: Facts) -> bool:
    return all(any(_all(group, facts) for group in clause) for clause in rule.clauses)


def _all(group: Alternative, facts: Facts) -> bool:
    return all(_holds(field, facts) for field in group)


def _holds(field: Field, facts: Facts) -> bool:
    return any(_is_true(test, facts) for test in field.tests) is not field.negated


def _is_true(test: Test, facts: Facts) -> bool:  # noqa: PLR0911 - a line for each kind
    match test:
        case Peer(text):
            return bool(facts.peer) and _is_like(text, facts.peer)
        case ServerName(text):
            return bool(facts.server_name) and _is_like(text, facts.server_name)
        case Header(name, text):
            return any(_is_like(text, value) for value in facts.headers.get(name, ()))
        case Path(text):
            return _is_like(text, facts.path.partition("#")[0].partition("?")[0])
        case Port(number):
            return number == facts.port
        case Claim(names, text):
            return _says(facts.claims, names, text)
        case RequestPrincipal(issuer, subject):
            return _says(facts.claims, ("iss",), issuer, lists=False) and _says(
                facts.claims, ("sub",), subject, lists=False
            )
        case Address(of, networks):
            told = {
                "client": facts.client,
                "forwarded": facts.forwarded or facts.client,
                "server": facts.server,
            }[of]
            return any(_contains(network, told) for network in networks)


def _says(
    claims: JsonObject | None, names: Sequence[str], text: Text, *, lists: bool = True
) -> bool:
    """Return whether a claim is a text that fits, or a list with one."""
    value: Json = claims
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    given = list_in(value) if lists and isinstance(value, list) else [value]
    return any(
        isinstance(one, str) and _is_like(text, one) and (text.form != "present" or bool(one))
        for one in given
    )


def _contains(network: str, address: str) -> bool:
    return bool(address) and ipaddress.ip_address(address) in ipaddress.ip_network(
        network, strict=False
    )


def _is_like(text: Text, value: str) -> bool:
    wanted = text.value.lower() if text.ignore_case else text.value
    found = value.lower() if text.ignore_case else value
    match text.form:
        case "exact":
            return found == wanted
        case "prefix":
            return found.startswith(wanted)
        case "suffix":
            return found.endswith(wanted)
        case "present":
            return True
        case "regex":
            return accepts(wanted, found)


def facts_of(connection: Facts, request: Request) -> Facts:
    """Return what is known of a request in a connection, as the proxy reads it."""
    seen = normalized(request)
    names = {":authority", ":method", *(name.lower() for name, _ in seen.headers)}
    headers = {name: seen.values(name) for name in names} | {"host": (seen.host,)}
    forwarded = ",".join(headers.get(FORWARDED_FOR, ())).rpartition(",")[2].strip()
    return msgspec.structs.replace(connection, path=seen.path, headers=headers, forwarded=forwarded)
