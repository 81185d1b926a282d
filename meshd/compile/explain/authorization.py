"""Judges connections and requests by the rules of the plan, as proxies do. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Literal

import msgspec

from meshd.api.patterns import accepts
from meshd.compile.explain.route_choice import normalized
from meshd.compile.plan.authorization import (
    Address,
    Alternative,
    Authorization,
    Field,
    Header,
    Path,
    Peer,
    Port,
    Rule,
    ServerName,
    Test,
    Text,
)
from meshd.matching.request import FORWARDED_FOR, Request


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
    path: str = ""
    """With its query."""
    headers: Mapping[str, tuple[str, ...]] = {}
    """The values of each, by names in small letters, ``:authority`` and ``:method`` among them."""


class Verdict(msgspec.Struct, frozen=True):
    allowed: bool
    why: Literal["no policy", "denied by", "allowed by", "nothing denies", "nothing allows"]
    rule: Rule | None = None

    def __str__(self) -> str:
        word = "allowed" if self.allowed else "denied"
        if self.rule:
            return f"{word} by {self.rule.origin}"
        told = {
            "no policy": "no AuthorizationPolicy is about it",
            "nothing denies": "no rule denies it, and no policy allows only some",
            "nothing allows": "no rule of a policy that allows some fits",
        }
        return f"{word}: {told[self.why]}"


def judge(rules: Authorization | None, facts: Facts) -> Verdict:
    """Return what becomes of a request; of a connection, if ``rules`` are those of connections."""
    if rules is None:
        return Verdict(True, "no policy")
    if denied := next((rule for rule in rules.deny if fits(rule, facts)), None):
        return Verdict(False, "denied by", denied)
    if rules.allow is None:
        return Verdict(True, "nothing denies")
    if allowed := next((rule for rule in rules.allow if fits(rule, facts)), None):
        return Verdict(True, "allowed by", allowed)
    return Verdict(False, "nothing allows")


def fits(rule: Rule, facts: Facts) -> bool:
    return all(any(_all(group, facts) for group in clause) for clause in rule.clauses)


def _all(group: Alternative, facts: Facts) -> bool:
    return all(_holds(field, facts) for field in group)


def _holds(field: Field, facts: Facts) -> bool:
    return any(_is_true(test, facts) for test in field.tests) is not field.negated


def _is_true(test: Test, facts: Facts) -> bool:
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
        case Address(of, networks):
            told = {
                "client": facts.client,
                "forwarded": facts.forwarded or facts.client,
                "server": facts.server,
            }[of]
            return any(_contains(network, told) for network in networks)


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
