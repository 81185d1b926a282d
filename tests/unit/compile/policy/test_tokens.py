"""Which tokens a workload believes, by which keys, and what it takes where that is not known."""

from __future__ import annotations

import json
from typing import Any

import pytest

from meshd.api.read import read_objects
from meshd.api.request_authentication.key_sets import key_set
from meshd.api.request_authentication.types import RequestAuthentication
from meshd.compile.explain.authorization import Facts, judge_request
from meshd.compile.plan.authorization import Authorization, RequestPrincipal, Text
from meshd.compile.policy.authorization import (
    authorization,
    by_namespace,
    is_guarded,
    of_connections,
)
from meshd.compile.policy.tokens import Keys, nobodys_key, request_principal
from meshd.matching.request import Request
from meshd.model.closed_authentication import ClosedAuthentication
from meshd.model.snapshot import MeshOptions
from meshd.model.workload import Workload
from tests import tokens
from tests.tokens import Key

OPTIONS = MeshOptions(root_namespace="istio-system")
SERVER = Workload(uid="w", name="w", namespace="shop", netns="", labels={"app": "web"})
KEYS = tokens.key_set(Key())
RULE = {"issuer": tokens.ISSUER, "jwks": KEYS}


def authentication(
    *rules: dict[str, Any], namespace: str = "shop", **spec: Any
) -> RequestAuthentication:
    value = {
        "apiVersion": "security.istio.io/v1",
        "kind": "RequestAuthentication",
        "metadata": {"name": "t", "namespace": namespace},
        "spec": {"jwtRules": list(rules), **spec},
    }
    (read,) = read_objects(json.dumps(value), "t.yaml")
    assert isinstance(read.object, RequestAuthentication)
    return read.object


def rules(*found: RequestAuthentication, keys: Keys | None = None) -> Authorization | None:
    return authorization(by_namespace((), found, keys or {}), SERVER, OPTIONS)


def test_policies_of_the_own_and_the_root_namespace_count_together() -> None:
    def about(name: str, namespace: str, app: str = "web") -> RequestAuthentication:
        rule = {**RULE, "issuer": name}
        selector = {"matchLabels": {"app": app}}
        return authentication(rule, namespace=namespace, selector=selector)

    found = rules(
        about("c", "shop"),
        about("a", "istio-system"),
        about("x", "other"),
        about("y", "shop", "db"),
    )
    assert found
    assert [one.issuer for one in found.tokens] == ["a", "c"]
    assert (found.deny, found.allow) == ((), None)
    assert of_connections(found) == Authorization()


@pytest.mark.parametrize(
    ("policies", "expected"),
    [((), False), ((authentication(RULE),), True), ((authentication(RULE, namespace="x"),), False)],
)
def test_a_workload_whose_tokens_are_read_judges_by_itself(
    policies: tuple[RequestAuthentication, ...], expected: bool
) -> None:
    assert is_guarded(by_namespace((), policies), SERVER, "istio-system") is expected


def test_keys_are_those_of_the_rule_or_were_fetched_or_nobody_has_them() -> None:
    fetched = key_set(tokens.key_set(Key("two"))).text
    at = {"https://a.test/keys": fetched, "https://b.test/.well-known/openid-configuration": KEYS}

    def keys_of(**rule: str) -> tuple[str, bool]:
        found = rules(authentication(dict(rule)), keys=at)
        assert found
        (one,) = found.tokens
        return one.keys, one.has_keys

    assert keys_of(issuer="a", jwks=KEYS) == (key_set(KEYS).text, True)
    assert keys_of(issuer="a", jwksUri="https://a.test/keys") == (fetched, True)
    assert keys_of(issuer="https://b.test/") == (KEYS, True)
    assert keys_of(issuer="a", jwksUri="https://c.test/keys") == (nobodys_key(), False)
    assert key_set(nobodys_key()).left_out == ()


@pytest.mark.parametrize(
    "found",
    [
        authentication(RULE, targetRef={"kind": "Gateway", "name": "x"}),
        authentication(RULE, targetRefs=[{"kind": "Gateway", "name": "x"}]),
        ClosedAuthentication.named("shop", "t"),
        ClosedAuthentication.named("istio-system", "t"),
        ClosedAuthentication.of(authentication(RULE)),
    ],
)
def test_a_policy_that_is_not_understood_lets_no_request_in(found: RequestAuthentication) -> None:
    judged = rules(found)
    for headers in ((), (("authorization", f"Bearer {tokens.token(Key())}"),)):
        verdict = judge_request(judged, Facts(), Request("a.test", headers=headers))
        assert (verdict.allowed, verdict.why, verdict.status) == (False, "denied by", 403)
    assert judged
    assert of_connections(judged) == Authorization()


def test_a_closed_policy_keeps_its_selector() -> None:
    other = authentication(RULE, selector={"matchLabels": {"app": "db"}})
    assert rules(ClosedAuthentication.of(other)) is None


@pytest.mark.parametrize(
    ("written", "issuer", "subject"),
    [
        ("*", Text("present"), Text("present")),
        ("https://a.test/ann", Text("exact", "https://a.test"), Text("exact", "ann")),
        ("https://a.test/*", Text("exact", "https://a.test"), Text("present")),
        ("https://a.test/an*", Text("exact", "https://a.test"), Text("prefix", "an")),
        ("accounts*", Text("prefix", "accounts"), Text("present")),
        ("*/ann", Text("present"), Text("exact", "ann")),
        ("*.test/ann", Text("suffix", ".test"), Text("exact", "ann")),
        ("*nn", Text("present"), Text("suffix", "nn")),
        ("ann", Text("exact", "ann"), Text("exact", "")),
    ],
)
def test_principals_of_requests_are_an_issuer_and_a_subject(
    written: str, issuer: Text, subject: Text
) -> None:
    assert request_principal(written) == RequestPrincipal(issuer, subject)
