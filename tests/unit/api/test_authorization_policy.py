"""AuthorizationPolicies that are refused, or warned of."""

from __future__ import annotations

import pytest

from meshd.api.dispatch import check_fields
from meshd.api.read import read_objects


def findings(spec: str, metadata: str = "") -> list[tuple[str, str]]:
    text = (
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n"
        f"metadata: {{name: p, namespace: shop{metadata}}}\nspec: {spec}\n"
    )
    found = check_fields(read_objects(text, "p.yaml"))
    return [(one.severity, one.field) for one in found]


@pytest.mark.parametrize(
    "spec",
    [
        "{}",
        "{rules: [{}]}",
        "{action: DENY, rules: [{}]}",
        "{rules: [{from: [{source: {principals: ['*', a*, '*b', cluster.local/ns/x/sa/y]}}]}]}",
        "{rules: [{from: [{source: {serviceAccounts: [a, b/c]}}]}]}",
        "{rules: [{to: [{operation: {paths: ['/a/{*}/b/{**}', /a, '*']}}]}]}",
        "{rules: [{when: [{key: 'request.headers[x]', notValues: [a]}]}]}",
    ],
)
def test_policies_that_istio_accepts_are_accepted(spec: str) -> None:
    assert findings(spec) == []


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ("{action: DENY}", "spec.rules"),
        ("{action: AUDIT, rules: []}", "spec.rules"),
        ("{action: CUSTOM, rules: [{}]}", "spec.provider"),
        ("{action: CUSTOM, provider: {name: ''}, rules: [{}]}", "spec.provider"),
        ("{action: CUSTOM, provider: {name: x}}", "spec.rules"),
        ("{provider: {name: x}}", "spec.provider"),
        ("{targetRefs: [{kind: Service, name: w}]}", "spec.targetRefs"),
        ("{targetRef: {kind: Service, name: w}}", "spec.targetRef"),
        ("{rules: [{from: []}]}", "spec.rules[0].from"),
        ("{rules: [{to: []}]}", "spec.rules[0].to"),
        ("{rules: [{when: []}]}", "spec.rules[0].when"),
        ("{rules: [{from: [{}]}]}", "spec.rules[0].from[0].source"),
        ("{rules: [{from: [{source: {}}]}]}", "spec.rules[0].from[0].source"),
        ("{rules: [{to: [{operation: {}}]}]}", "spec.rules[0].to[0].operation"),
        (
            "{rules: [{from: [{source: {namespaces: []}}]}]}",
            "spec.rules[0].from[0].source.namespaces",
        ),
        (
            "{rules: [{from: [{source: {namespaces: ['']}}]}]}",
            "spec.rules[0].from[0].source.namespaces[0]",
        ),
        (
            "{rules: [{from: [{source: {principals: ['spiffe://a/ns/b/sa/c']}}]}]}",
            "spec.rules[0].from[0].source.principals[0]",
        ),
        (
            "{rules: [{from: [{source: {requestPrincipals: ['']}}]}]}",
            "spec.rules[0].from[0].source.requestPrincipals[0]",
        ),
        (
            "{rules: [{from: [{source: {serviceAccounts: [a], namespaces: [b]}}]}]}",
            "spec.rules[0].from[0].source.serviceAccounts",
        ),
        (
            "{rules: [{from: [{source: {notServiceAccounts: [a], principals: [b]}}]}]}",
            "spec.rules[0].from[0].source.notServiceAccounts",
        ),
        (
            "{rules: [{from: [{source: {serviceAccounts: ['a*']}}]}]}",
            "spec.rules[0].from[0].source.serviceAccounts[0]",
        ),
        (
            "{rules: [{from: [{source: {ipBlocks: [1.2.3]}}]}]}",
            "spec.rules[0].from[0].source.ipBlocks[0]",
        ),
        *(
            (
                f"{{rules: [{{from: [{{source: {{ipBlocks: ['{network}']}}}}]}}]}}",
                "spec.rules[0].from[0].source.ipBlocks[0]",
            )
            for network in ("10.0.0.0/33", "10.0.0.0/255.0.0.0", "fe80::1%eth0", "fe80::%a/64", "1")
        ),
        (
            "{rules: [{to: [{operation: {ports: ['0']}}]}]}",
            "spec.rules[0].to[0].operation.ports[0]",
        ),
        *(
            (
                f"{{rules: [{{to: [{{operation: {{paths: ['{path}']}}}}]}}]}}",
                "spec.rules[0].to[0].operation.paths[0]",
            )
            for path in ("/a/{*}x", "/{**}/b/{*}", "a/{*}", "/{*}/b*", "/a/{**}/{**}")
        ),
        ("{rules: [{when: [{key: source.ip}]}]}", "spec.rules[0].when[0]"),
        ("{rules: [{when: [{key: source.port, values: [a]}]}]}", "spec.rules[0].when[0].key"),
        (
            "{rules: [{when: [{key: 'request.auth.claims[a]b', values: [a]}]}]}",
            "spec.rules[0].when[0].key",
        ),
        (
            "{rules: [{when: [{key: 'request.headers[a b]', values: [a]}]}]}",
            "spec.rules[0].when[0].key",
        ),
        (
            "{rules: [{when: [{key: destination.port, values: [http]}]}]}",
            "spec.rules[0].when[0].values[0]",
        ),
        (
            f"{{rules: [{{from: [{{source: {{namespaces: [{'a' * 64}]}}}}]}}]}}",
            "spec.rules[0].from[0].source.namespaces[0]",
        ),
        (
            f"{{rules: [{{to: [{{operation: {{paths: ['/{{*}}/{'a' * 1024}']}}}}]}}]}}",
            "spec.rules[0].to[0].operation.paths[0]",
        ),
    ],
)
def test_policies_that_istio_refuses_or_meshd_does_not_support_are_errors(
    spec: str, field: str
) -> None:
    assert ("error", field) in findings(spec)


@pytest.mark.parametrize(
    ("spec", "text", "is_wrong"),
    [
        ("{}", "true", False),
        ("{}", "false", False),
        ("{}", "T", False),
        ("{}", "yes", True),
        ("{action: DENY, rules: [{}]}", "true", False),
        ("{action: AUDIT, rules: [{}]}", "true", True),
        ("{action: CUSTOM, provider: {name: x}, rules: [{}]}", "true", True),
        ("{action: CUSTOM, provider: {name: x}, rules: [{}]}", "", False),
        ("{action: AUDIT, rules: [{}]}", "false", False),
    ],
)
def test_only_what_decides_can_be_on_trial(spec: str, text: str, is_wrong: bool) -> None:
    found = findings(spec, f", annotations: {{istio.io/dry-run: '{text}'}}")
    assert found == [("error", "metadata.annotations.istio.io/dry-run")] * is_wrong


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (
            "{rules: [{to: [{operation: {paths: ['a']}}]}]}",
            "spec.rules[0].to[0].operation.paths[0]",
        ),
        (
            "{rules: [{to: [{operation: {paths: ['/a*b']}}]}]}",
            "spec.rules[0].to[0].operation.paths[0]",
        ),
        (
            "{rules: [{to: [{operation: {methods: [get]}}]}]}",
            "spec.rules[0].to[0].operation.methods[0]",
        ),
        (
            "{rules: [{to: [{operation: {hosts: ['*a*']}}]}]}",
            "spec.rules[0].to[0].operation.hosts[0]",
        ),
        (
            "{action: DENY, rules: [{to: [{operation: {methods: [get], ports: ['80']}}]}]}",
            "spec.rules[0].to[0].operation.methods[0]",
        ),
    ],
)
def test_probable_mistakes_are_warnings(spec: str, field: str) -> None:
    assert findings(spec) == [("warning", field)]


def test_one_policy_has_bounds() -> None:
    many = ", ".join(["{}"] * 1001)
    assert findings(f"{{rules: [{many}]}}") == [("error", "spec.rules")]
    paths = ", ".join(f"/{number}" for number in range(900))
    rules = ", ".join([f"{{to: [{{operation: {{paths: [{paths}]}}}}]}}"] * 12)
    assert ("error", "spec.rules") in findings(f"{{rules: [{rules}]}}")
