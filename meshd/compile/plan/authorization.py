"""Who may send what to a workload: rules, each with the object that it comes from.

A rule is a list of clauses, all of which have to hold. A clause is a list of alternatives, each a
list of tests that hold together.
"""

from __future__ import annotations

import itertools
from typing import Literal

import msgspec

from meshd.compile.plan.origin import Origin
from meshd.compile.plan.tokens import TokenRule
from meshd.model.extension_provider import AuthorizationProvider
from meshd.model.workload import Identity

Form = Literal["exact", "prefix", "suffix", "present", "regex"]
Side = Literal["client", "forwarded", "server"]


class Text(msgspec.Struct, frozen=True):
    """What a text has to be like; ``present`` takes any."""

    form: Form
    value: str = ""
    ignore_case: bool = False


class Peer(msgspec.Struct, frozen=True, tag="peer"):
    """The SPIFFE URI in the client's certificate. A client without one has none."""

    text: Text


class Address(msgspec.Struct, frozen=True, tag="address"):
    """An address of the connection, in one of these networks."""

    of: Side
    """``forwarded``: that of the client as ``x-forwarded-for`` tells it."""
    networks: tuple[str, ...]


class Port(msgspec.Struct, frozen=True, tag="port"):
    """The workload's port."""

    number: int


class ServerName(msgspec.Struct, frozen=True, tag="server_name"):
    """The name in the TLS hello."""

    text: Text


class Header(msgspec.Struct, frozen=True, tag="header"):
    """A header of the request, in small letters; ``:authority`` and ``:method`` are headers."""

    name: str
    text: Text


class Path(msgspec.Struct, frozen=True, tag="path"):
    """The request's path, without its query."""

    text: Text


class Claim(msgspec.Struct, frozen=True, tag="claim"):
    """A claim of the request's token that is a text, or a list of texts of which one fits."""

    names: tuple[str, ...]
    """Of the claim, and of those within it."""
    text: Text


class RequestPrincipal(msgspec.Struct, frozen=True, tag="request_principal"):
    """The issuer and the subject of the request's token."""

    issuer: Text
    subject: Text


Test = Peer | Address | Port | ServerName | Header | Path | Claim | RequestPrincipal
OF_TOKENS = (Claim, RequestPrincipal)
OF_REQUESTS = (Header, Path, *OF_TOKENS)
"""The tests of which a connection knows nothing."""


class Field(msgspec.Struct, frozen=True):
    """A field of a rule: one of several tests holds, or none of them does."""

    tests: tuple[Test, ...]
    negated: bool = False


Alternative = tuple[Field, ...]


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One rule of a policy."""

    origin: Origin
    clauses: tuple[tuple[Alternative, ...], ...] = ()
    """Without any, the rule fits everything."""
    only_requests: bool = False
    """No other connection is judged by it."""

    @property
    def name(self) -> str:
        """Return how Istio names it in logs: ``ns[N]-policy[P]-rule[I]``."""
        key, place = self.origin.key, self.origin.field.replace("spec.rules", "rule")
        return f"ns[{key.namespace}]-policy[{key.name}]-{place}"

    @property
    def fields(self) -> tuple[Field, ...]:
        return tuple(one for clause in self.clauses for group in clause for one in group)

    @property
    def tests(self) -> tuple[Test, ...]:
        return tuple(test for field in self.fields for test in field.tests)


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """Rules on trial: of requests it is noted whether they would be denied."""

    deny: tuple[Rule, ...] = ()
    allow: tuple[Rule, ...] | None = None
    """None: there is no such policy."""


def asked_by(provider: str) -> str:
    """Return how the names of rules begin that have a provider asked, as in Istio."""
    return f"istio-ext-authz-{provider}-"


class Asking(msgspec.Struct, frozen=True, kw_only=True):
    """Of requests that a rule fits, a provider is asked, too, whether they are allowed."""

    provider: AuthorizationProvider
    rules: tuple[Rule, ...]
    identity: Identity
    """In whose name it is asked."""
    address: str
    """From which; empty: that is not known."""

    def name_of(self, rule: Rule) -> str:
        """Return the name of a rule, by which its filter knows that it is to ask."""
        return f"{asked_by(self.provider.name)}{rule.name}"


class Authorization(msgspec.Struct, frozen=True, kw_only=True):
    """What a workload takes: nothing that a rule of ``deny`` fits; then what one of ``allow`` fits,
    or all if no policy allows anything in particular."""

    deny: tuple[Rule, ...] = ()
    allow: tuple[Rule, ...] | None = None
    """None: there is no such policy."""
    tokens: tuple[TokenRule, ...] = ()
    """Which tokens of requests are believed. A request with another one is refused."""
    asking: Asking | None = None
    tried: Tried = Tried()
    audit: tuple[Rule, ...] = ()
    """Requests that one of them fits are logged."""

    @property
    def rules(self) -> tuple[Rule, ...]:
        """Return all of them, whatever follows if they fit."""
        asking = self.asking.rules if self.asking else ()
        tried = self.tried.deny, self.tried.allow or ()
        return tuple(itertools.chain(self.deny, self.allow or (), asking, *tried, self.audit))
