"""Says what a rule of an AuthorizationPolicy fits. Pure."""

from __future__ import annotations

from typing import Final

from meshd.compile.plan.authorization import (
    Address,
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
)
from meshd.compile.plan.tokens import TokenRule

_HEADERS: Final = {":authority": "host", ":method": "method"}
_SIDES: Final = {
    "client": "client address",
    "forwarded": "forwarded address",
    "server": "own address",
}


def describe(rule: Rule) -> str:
    """Return what a rule fits, in words."""
    clauses = (
        " or ".join(" and ".join(map(_field, group)) or "anything" for group in clause)
        for clause in rule.clauses
    )
    return "; ".join(clauses) or "everything"


def describe_tokens(rule: TokenRule) -> str:
    """Return which tokens a rule believes, in words."""
    places = (
        *(f"header {one.name}" for one in rule.headers),
        *(f"parameter {name}" for name in rule.parameters),
        *(f"cookie {name}" for name in rule.cookies),
    )
    return "; ".join(
        (
            f"issuer {rule.issuer or 'any'}",
            *([f"audience {' | '.join(rule.audiences)}"] if rule.audiences else []),
            *([f"in {' | '.join(places)}"] if places else []),
            *([] if rule.has_keys else ["none, since its keys are not known"]),
        )
    )


def _field(field: Field) -> str:
    told = [_test(test) for test in field.tests]
    names = list(dict.fromkeys(name for name, _ in told))
    listed = " | ".join(value for _, value in told)
    return f"{'/'.join(names)}{' not' if field.negated else ''} {listed}"


def _test(test: Test) -> tuple[str, str]:  # noqa: PLR0911 - a line for each kind
    match test:
        case Peer(text):
            return "caller", _text(text)
        case Address(of, networks):
            return _SIDES[of], " | ".join(networks)
        case Port(number):
            return "port", str(number)
        case ServerName(text):
            return "server name", _text(text)
        case Header(name, text):
            return _HEADERS.get(name, f"header {name}"), _text(text)
        case Path(text):
            return "path", _text(text)
        case Claim() | RequestPrincipal():
            return _of_token(test)


def _of_token(test: Claim | RequestPrincipal) -> tuple[str, str]:
    if isinstance(test, Claim):
        return f"claim {'.'.join(test.names)}", _text(test.text)
    return "issuer/subject", f"{_text(test.issuer)}/{_text(test.subject)}"


def _text(text: Text) -> str:
    match text.form:
        case "present":
            return "any"
        case "prefix":
            return f"{text.value}*"
        case "suffix":
            return f"*{text.value}"
        case "regex":
            return f"like {text.value}"
        case "exact":
            return text.value
