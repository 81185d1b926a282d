"""Which rules are told of a workload, and in which words; explain says which of them decides."""

from __future__ import annotations

from typing import Any

import pytest

from meshd import wire
from meshd.api.read import read_objects
from meshd.compile.explain.judging import judging
from meshd.compile.explain.request import explain
from meshd.model.snapshot import MeshOptions, Snapshot
from meshd.model.workload import Workload
from meshd.registry.registry import build_snapshot
from tests import tokens

CLIENT = Workload(
    uid="front.client",
    name="client",
    namespace="front",
    netns="/n/client",
    service_account="client",
    addresses=("198.18.1.1",),
    enrolled=True,
)
SERVER = Workload(
    uid="shop.web",
    name="web",
    namespace="shop",
    netns="/n/web",
    service_account="web",
    labels={"app": "web"},
    addresses=("198.18.1.2",),
    enrolled=True,
)
SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  clusterIP: 198.19.0.1
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080}, {name: tcp, port: 90, targetPort: 9000}]
"""
POLICIES = """
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: some, namespace: shop}
spec: {rules: [{from: [{source: {principals: [cluster.local/ns/front/sa/client]}}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: none, namespace: istio-system}
spec:
  action: DENY
  rules:
  - to: [{operation: {paths: [/admin*], notMethods: [GET, H*]}}, {operation: {ports: ["1"]}}]
    when: [{key: "request.headers[X-A]", values: ["*"]}]
"""


def snapshot(policies: str = POLICIES) -> Snapshot:
    objects = [read.object for read in read_objects(SERVICE + policies, "test.yaml")]
    return build_snapshot(objects, [CLIENT, SERVER], MeshOptions(), {})


def explained(
    path: str = "/", *, method: str = "POST", port: int = 80, policies: str = POLICIES
) -> tuple[str, list[str]]:
    asked = wire.Explain(
        "client", f"web.shop:{port}", "front", path, method, headers=(("x-a", "b"),)
    )
    found = explain(snapshot(policies), CLIENT, asked)
    told = [step.detail for step in found.stages if step.stage == "authorization"]
    return found.verdict, told


def test_the_rules_about_a_workload_are_told_in_the_order_in_which_they_count() -> None:
    found = judging(snapshot(), SERVER, lambda key, _: f"{key.name}.yaml:1")
    told = [(one.action, one.policy, one.field, one.place) for one in found.rules]
    assert told == [
        ("deny", "istio-system/none", "spec.rules[0]", "none.yaml:1"),
        ("allow", "shop/some", "spec.rules[0]", "some.yaml:1"),
    ]
    assert [one.fits for one in found.rules] == [
        "method not GET | H* and path /admin* or port 1; header x-a any",
        "caller spiffe://cluster.local/ns/front/sa/client",
    ]
    assert (found.workload, found.otherwise) == ("shop/web", "deny")


def test_what_proxies_count_is_told_of_each_rule() -> None:
    counts = {("ns[istio-system]-policy[none]-rule[0]", "denied"): 3}
    found = judging(snapshot(), SERVER, lambda key, _: key.name, counts)
    assert [one.count for one in found.rules] == [3, 0]
    unknown = judging(snapshot(), SERVER, lambda key, _: key.name)
    assert [one.count for one in unknown.rules] == [None, None]


def test_of_a_workload_without_policies_everything_is_allowed() -> None:
    found = judging(snapshot(""), SERVER, lambda key, _: key.name)
    assert (found.rules, found.otherwise) == ((), "allow")


def test_policies_without_rules_are_told_too_since_they_deny_what_no_other_allows() -> None:
    nothing = "\n".join(POLICIES.splitlines()[:5]) + "\nspec: {}\n"
    found = judging(snapshot(nothing), SERVER, lambda key, _: key.name)
    assert found.rules == (wire.JudgingRule("allow", "shop/some", "spec.rules", "nothing", "some"),)
    assert found.otherwise == "deny"


@pytest.mark.parametrize(
    ("path", "method", "verdict", "why"),
    [
        ("/admin/x", "POST", "denied: 403", "istio-system/none"),
        ("/x/../admin", "POST", "denied: 403", "istio-system/none"),
        ("/admin/x", "GET", "routed", "shop/some"),
        ("/", "POST", "routed", "shop/some"),
    ],
)
def test_explain_names_the_rule_that_decides(
    path: str, method: str, verdict: str, why: str
) -> None:
    found, told = explained(path, method=method)
    assert found == verdict
    (line,) = told
    assert why in line


def test_explain_judges_connections_without_what_only_requests_have() -> None:
    verdict, told = explained(port=90)
    assert verdict == "denied: the connection is closed"
    assert told == ["denied by AuthorizationPolicy istio-system/none: spec.rules[0]"]
    allowing = POLICIES.split("---\n")[1]
    assert explained(port=90, policies=f"---\n{allowing}") == (
        "routed",
        ["allowed by AuthorizationPolicy shop/some: spec.rules[0]"],
    )
    other = allowing.replace("principals: [cluster.local/ns/front/sa/client]", "namespaces: [x]")
    verdict, told = explained(port=90, policies=f"---\n{other}")
    assert verdict == "denied: the connection is closed"
    assert told == ["denied: no rule of a policy that allows some fits"]


def test_explain_tells_nothing_where_no_policy_is() -> None:
    assert explained(policies="") == ("routed", [])


TOKENS = f"""
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: users, namespace: shop}}
spec:
  jwtRules:
  - issuer: me
    audiences: [web]
    fromHeaders: [{{name: X-Jwt}}]
    fromParams: [t]
    fromCookies: [c]
    jwks: '{tokens.key_set(tokens.Key())}'
  - {{issuer: other, jwksUri: "https://other.test/keys"}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: anne, namespace: shop}}
spec: {{rules: [{{from: [{{source: {{requestPrincipals: [me/ann]}}}}], when: [{{key: "request.auth.claims[a][b]", values: [c]}}]}}]}}
"""  # noqa: E501 - an object in a line


def test_rules_of_tokens_are_told_before_all_others() -> None:
    found = judging(snapshot(TOKENS), SERVER, lambda key, _: key.name)
    assert [(one.action, one.policy, one.field, one.fits) for one in found.rules] == [
        (
            "token",
            "shop/users",
            "spec.jwtRules[0]",
            "issuer me; audience web; in header x-jwt | parameter t | cookie c",
        ),
        (
            "token",
            "shop/users",
            "spec.jwtRules[1]",
            "issuer other; none, since its keys are not known",
        ),
        ("allow", "shop/anne", "spec.rules[0]", "issuer/subject me/ann; claim a.b c"),
    ]


@pytest.mark.parametrize(
    ("claims", "verdict", "why"),
    [
        (None, "denied: 403", ["denied: no rule of a policy that allows some fits"]),
        ({"sub": "ann"}, "denied: 403", ["denied: no rule of a policy that allows some fits"]),
        (
            {"a": {"b": "c"}},
            "routed",
            ["allowed by AuthorizationPolicy shop/anne: spec.rules[0]"],
        ),
        (
            {"aud": "x"},
            "denied: 403",
            [
                "token refused by RequestAuthentication shop/users: spec.jwtRules[0]: it is for"
                " another audience"
            ],
        ),
        (
            {"exp": 1},
            "denied: 401",
            ["token refused by RequestAuthentication shop/users: spec.jwtRules[0]: it has expired"],
        ),
    ],
)
def test_explain_reads_the_token_of_a_request(
    claims: dict[str, Any] | None, verdict: str, why: list[str]
) -> None:
    headers: tuple[tuple[str, str], ...] = ()
    if claims is not None:
        said = {"iss": "me", "aud": "web", **claims}
        headers = (("x-jwt", tokens.token(tokens.Key(), None, **said)),)
    asked = wire.Explain("client", "web.shop:80", "front", headers=headers, now=1e9)
    found = explain(snapshot(TOKENS), CLIENT, asked)
    assert found.verdict == verdict
    assert [step.detail for step in found.stages if step.stage == "authorization"] == why
    believed = [step for step in found.stages if step.stage == "token"]
    assert bool(believed) is (claims is not None and "token refused" not in why[0])


ROUTED_BY_CLAIM = f"""
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: edge, namespace: shop}}
spec:
  selector: {{app: web}}
  servers: [{{port: {{number: 80, name: http, protocol: HTTP}}, hosts: ["*"]}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: edge, namespace: shop}}
spec:
  hosts: ["*"]
  gateways: [edge]
  http:
  - match: [{{headers: {{"@request.auth.claims.group": {{exact: admin}}}}}}]
    directResponse: {{status: 201}}
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: users, namespace: shop}}
spec: {{jwtRules: [{{issuer: me, jwks: '{tokens.key_set(tokens.Key())}'}}]}}
"""


@pytest.mark.parametrize(
    ("group", "verdict"), [("admin", "answered 201 by the proxy"), ("other", "no route: 404")]
)
def test_explain_chooses_routes_of_a_gateway_by_claims(group: str, verdict: str) -> None:
    objects = [read.object for read in read_objects(ROUTED_BY_CLAIM, "test.yaml")]
    made = build_snapshot(objects, [SERVER], MeshOptions(), {})
    token = tokens.token(tokens.Key(), None, iss="me", group=group)
    headers = (("authorization", f"Bearer {token}"),)
    asked = wire.Explain("web", "a.test:80", "shop", headers=headers, from_outside=True)
    assert explain(made, SERVER, asked).verdict == verdict
