"""The plan and a real Envoy agree which tokens are believed, and what policies make of them, by
rules, policies and requests by chance."""

from __future__ import annotations

import functools
import http.client
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from meshd.api.authorization_policy.types import (
    AuthorizationPolicy,
    AuthorizationPolicySpec,
    Condition,
    From,
    Rule,
    Source,
)
from meshd.api.base import ObjectMeta
from meshd.api.dispatch import check_fields
from meshd.api.read import Read
from meshd.api.request_authentication.types import (
    ClaimToHeader,
    JWTHeader,
    JWTRule,
    RequestAuthentication,
    RequestAuthenticationSpec,
)
from meshd.api.yaml import Document
from meshd.compile.explain.authorization import Verdict, judge_request
from meshd.compile.plan.authorization import Authorization
from meshd.compile.plan.tokens import TokenRule
from meshd.compile.policy.authorization import authorization, by_namespace
from meshd.matching.request import Request
from meshd.model.workload import Workload
from tests import tokens
from tests.envoy.authorization import policies
from tests.envoy.authorization.policies import Case
from tests.envoy.authorization.test_agreement import (
    LABELS,
    OPTIONS,
    connect,
    facts,
    of_requests,
    running,
)
from tests.tokens import Key

SETS: Final = 300
REQUESTS: Final = 12
ISSUERS: Final = ("a.test", "https://b.test/x")
KEYS: Final = (Key("one", "ES256"), Key("two", "EdDSA"))
STRANGER: Final = Key("stranger", "ES256")
SUBJECTS: Final = ("ann", "bob", "a/b", None, 7)
AUDIENCES: Final = (None, "web", "https://web/", ["x", "web"], "other", 5)
GROUPS: Final[tuple[Any, ...]] = (None, "ops", "ops dev", ["ops", "dev"], [], "", "o", 3, True)
PRINCIPALS: Final = ("*", "a.test/*", "*/ann", "https://b.test/x/bob", "a.test/a*", "a.test/a/b")
PLACES: Final = ("authorization", "x-jwt", "x-plain", "access_token", "token", "cookie")


def some(chance: random.Random, values: tuple[Any, ...], most: int = 2) -> tuple[Any, ...]:
    return tuple(chance.sample(values, chance.randint(1, min(most, len(values)))))


def jwt_rule(chance: random.Random) -> JWTRule:
    places: dict[str, Any] = {}
    if chance.random() < 0.5:
        places["from_headers"] = some(
            chance,
            (
                JWTHeader(name="X-Jwt", prefix="JWT "),
                JWTHeader(name="x-plain"),
                JWTHeader(name="authorization", prefix="Bearer "),
            ),
        )
    if chance.random() < 0.3:
        places["from_params"] = some(chance, ("token", "access_token"))
    if chance.random() < 0.3:
        places["from_cookies"] = ("session",)
    return JWTRule(
        issuer=chance.choice(ISSUERS),
        audiences=chance.choice([(), (), ("web",), ("http://web", "y")]),
        jwks=tokens.key_set(*some(chance, KEYS)),
        forward_original_token=chance.random() < 0.5,
        output_claim_to_headers=chance.choice(
            [(), (ClaimToHeader(header="x-claim", claim="sub"),)]
        ),
        space_delimited_claims=chance.choice([(), ("group",)]),
        **places,
    )


def authentications(chance: random.Random) -> tuple[RequestAuthentication, ...]:
    """Policies whose rules have an issuer each: of one issuer, either rule may be asked."""
    rules = [jwt_rule(chance)]
    other = jwt_rule(chance)
    if chance.random() < 0.5 and other.issuer != rules[0].issuer:
        rules.append(other)
    return tuple(
        RequestAuthentication(
            metadata=ObjectMeta(name=f"t{index}", namespace=chance.choice(["shop", policies.ROOT])),
            spec=RequestAuthenticationSpec(jwt_rules=(rule,)),
        )
        for index, rule in enumerate(rules)
    )


def condition(chance: random.Random) -> Condition:
    key, values = chance.choice(
        [
            ("request.auth.claims[group]", ("ops", "o*", "*v", "*")),
            ("request.auth.claims[org][team]", ("x", "*")),
            ("request.auth.claims[scope]", ("ops", "dev")),
            ("request.auth.audiences", ("web", "*")),
            ("request.auth.presenter", ("app", "*")),
            ("request.auth.principal", PRINCIPALS),
            ("request.headers[x-claim]", ("ann", "*")),
            ("request.headers[authorization]", ("Bearer*", "*")),
        ]
    )
    given = some(chance, values)
    return Condition(key=key, **{chance.choice(["values", "values", "not_values"]): given})


def rule(chance: random.Random) -> Rule:
    name = chance.choice(["request_principals", "request_principals", "not_request_principals"])
    source = Source(**{name: some(chance, PRINCIPALS)})
    return Rule(
        from_=(From(source=source),) if chance.random() < 0.5 else None,
        when=tuple(condition(chance) for _ in range(chance.choice([0, 1, 1, 2]))) or None,
    )


def judging(chance: random.Random) -> tuple[AuthorizationPolicy, ...]:
    return tuple(
        AuthorizationPolicy(
            metadata=ObjectMeta(name=f"p{number}", namespace="shop"),
            spec=AuthorizationPolicySpec(
                action=chance.choice(["ALLOW", "DENY"]),
                rules=tuple(rule(chance) for _ in range(chance.randint(1, 2))),
            ),
        )
        for number in range(chance.randint(0, 2))
    )


@functools.cache
def sets() -> tuple[tuple[tuple[RequestAuthentication, ...], tuple[AuthorizationPolicy, ...]], ...]:
    chances = (random.Random(f"tokens {number}") for number in range(SETS))  # noqa: S311
    return tuple((authentications(chance), judging(chance)) for chance in chances)


@functools.cache
def guards() -> dict[str, Authorization | None]:
    """Return what each of many workloads takes."""
    workload = Workload(uid="w", name="w", namespace="shop", netns="", labels=LABELS)
    return {
        f"w{number}": authorization(by_namespace(judged, read), workload, OPTIONS)
        for number, (read, judged) in enumerate(sets())
    }


def token(chance: random.Random) -> tuple[str, str]:
    """A token, and the name of the key that has signed it."""
    key = chance.choice([*KEYS, *KEYS, STRANGER])
    claims: dict[str, Any] = {
        "iss": chance.choice([*ISSUERS, *ISSUERS, "c.test"]),
        "sub": chance.choice(SUBJECTS),
        "aud": chance.choice(AUDIENCES[1:3] if chance.random() < 0.6 else AUDIENCES[:5]),
        "group": chance.choice(GROUPS),
        "scope": chance.choice([None, "ops dev", "x"]),
        "azp": chance.choice([None, "app"]),
        "org": chance.choice([None, {"team": "x"}, {"team": ["x"]}, "x"]),
    }
    return tokens.token(key, None, **claims), key.name


def request(chance: random.Random) -> tuple[Request, dict[str, str]]:
    """A request, and by its tokens the names of the keys that have signed them."""
    headers: list[tuple[str, str]] = []
    query: list[str] = []
    signed: dict[str, str] = {}
    if chance.random() < 0.2:
        headers.append(("x-claim", "ann"))
    for place in chance.sample(PLACES, chance.choice([0, 1, 1, 1, 1, 2])):
        text, name = token(chance) if chance.random() < 0.9 else ("none", "")
        signed[text] = name
        match place:
            case "authorization":
                headers.append((place, f"{chance.choice(['Bearer', 'Bearer', 'Basic'])} {text}"))
            case "x-jwt":
                headers.append((place, f"{chance.choice(['JWT ', ''])}{text}"))
            case "x-plain":
                headers.append((place, text))
            case "cookie":
                headers.append((place, f"a=b; session={text}"))
            case _:
                query.append(f"{place}={text}")
    return Request("a.test", f"/?{'&'.join(query)}", headers=tuple(headers)), signed


@pytest.fixture(scope="module")
def requests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("tokens")
    known = {uid: rules for uid, rules in guards().items() if rules}
    with running(directory, of_requests(directory / "requests", known)):
        yield directory / "requests"


CASE: Final = Case("", "198.18.1.1", "198.18.2.1", policies.PORT, "", ())


def expected(rules: Authorization | None, asked: Request, signed: dict[str, str]) -> Verdict:
    def is_signed(rule: TokenRule, text: str) -> bool:
        return signed.get(text) in {key["kid"] for key in json.loads(rule.keys)["keys"]}

    return judge_request(rules, facts(CASE), asked, is_signed)


def test_tokens_are_believed_as_the_plan_says(requests: Path) -> None:
    wrong: list[object] = []
    for uid, rules in guards().items():
        chance = random.Random(f"requests {uid}")  # noqa: S311
        with connect(requests, uid, CASE) as client:
            for _ in range(REQUESTS):
                asked, signed = request(chance)
                lines = [f"{asked.method} {asked.path} HTTP/1.1", f"host: {asked.host}"]
                lines += (f"{name}: {value}" for name, value in asked.headers)
                client.sendall("\r\n".join([*lines, "", ""]).encode())
                answer = http.client.HTTPResponse(client, method=asked.method)
                answer.begin()
                body = answer.read()
                verdict = expected(rules, asked, signed)
                if answer.status != (503 if verdict.allowed else verdict.status):
                    wrong.append((uid, asked, signed, str(verdict), answer.status, body))
    assert not wrong, (len(wrong), wrong[0], sets()[int(wrong[0][0][1:])])  # type: ignore[index]


def test_rules_by_chance_are_valid_and_decide_in_all_ways() -> None:
    document = Document("", 0, None, {})
    reads = [Read(one, document) for read, judged in sets() for one in (*read, *judged)]
    assert [one for one in check_fields(reads) if one.severity == "error"] == []
    whys: set[tuple[str, int]] = set()
    for uid, rules in guards().items():
        chance = random.Random(f"requests {uid}")  # noqa: S311
        for _ in range(REQUESTS):
            verdict = expected(rules, *request(chance))
            whys.add((verdict.why, verdict.status if verdict.token.status else 0))
    assert {why for why, _ in whys} == {
        *("denied by", "allowed by", "nothing denies", "nothing allows", "invalid token")
    }
    assert {status for _, status in whys} == {0, 401, 403}
