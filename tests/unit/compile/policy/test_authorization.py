"""Which policies are about a workload, and what each field of them fits."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from meshd.api.authorization_policy.types import AuthorizationPolicy
from meshd.api.read import read_objects
from meshd.compile.explain.authorization import Facts, Verdict, facts_of, judge
from meshd.compile.policy.authorization import (
    asks_server_name,
    authorization,
    by_namespace,
    is_guarded,
    of_connections,
)
from meshd.matching.request import Request
from meshd.model.closed_authorization import ClosedAuthorization
from meshd.model.extension_provider import AuthorizationProvider
from meshd.model.snapshot import MeshOptions
from meshd.model.workload import Workload

OPTIONS = MeshOptions(trust_domain="mesh.test", root_namespace="istio-system")
SERVER = Workload(uid="w", name="w", namespace="shop", netns="", labels={"app": "web", "v": "1"})
PEER = "spiffe://mesh.test/ns/front/sa/client"
CALL = Facts(
    peer=PEER, client="198.18.1.1", server="198.18.2.1", port=8080, server_name="web.shop.test"
)
ASKED = Request("web.test:80", "/items/7?x=/admin", "GET", (("x-user", "ann"),))


def policy(spec: str, namespace: str = "shop", name: str = "p") -> AuthorizationPolicy:
    text = (
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n"
        f"metadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
    )
    (read,) = read_objects(text, "p.yaml")
    assert isinstance(read.object, AuthorizationPolicy)
    return read.object


def verdict(*policies: AuthorizationPolicy, request: Request | None = ASKED) -> Verdict:
    rules = authorization(by_namespace(policies), SERVER, OPTIONS)
    if request is not None:
        return judge(rules, facts_of(CALL, request))
    return judge(rules and of_connections(rules), CALL)


def fits(rule: str, request: Request | None = ASKED) -> bool:
    return verdict(policy(f"{{rules: [{rule}]}}"), request=request).allowed


FITTING: list[tuple[str, str, str]] = [
    ("source", "principals", "mesh.test/ns/front/sa/client"),
    ("source", "principals", "cluster.local/ns/front/sa/client"),
    ("source", "principals", "mesh.test/ns/front/*"),
    ("source", "principals", "'*/sa/client'"),
    ("source", "principals", "'*'"),
    ("source", "namespaces", "front"),
    ("source", "namespaces", "fro*"),
    ("source", "namespaces", "'*ont'"),
    ("source", "serviceAccounts", "front/client"),
    ("source", "ipBlocks", "198.18.1.0/24"),
    ("source", "ipBlocks", "198.18.1.1"),
    ("source", "remoteIpBlocks", "198.18.0.0/16"),
    ("operation", "hosts", "WEB.test:80"),
    ("operation", "hosts", "'web.test:*'"),
    ("operation", "hosts", "'*'"),
    ("operation", "ports", "'8080'"),
    ("operation", "methods", "GET"),
    ("operation", "methods", "G*"),
    ("operation", "paths", "/items/7"),
    ("operation", "paths", "/items*"),
    ("operation", "paths", "'*/7'"),
    ("operation", "paths", "'/items/{*}'"),
    ("operation", "paths", "'/{**}'"),
]
OTHERS: list[tuple[str, str, str]] = [
    ("source", "principals", "mesh.test/ns/front/sa/clien"),
    ("source", "principals", "other.test/ns/front/sa/client"),
    ("source", "namespaces", "fron"),
    ("source", "namespaces", "shop"),
    ("source", "serviceAccounts", "client"),
    ("source", "ipBlocks", "198.18.1.2"),
    ("source", "ipBlocks", "fd00::/8"),
    ("operation", "hosts", "web.test"),
    ("operation", "ports", "'80'"),
    ("operation", "methods", "get"),
    ("operation", "paths", "/items"),
    ("operation", "paths", "'*/admin'"),
    ("operation", "paths", "'/{*}'"),
    ("operation", "paths", "/Items/7"),
]


def rule(group: str, field: str, value: str) -> str:
    key = "from" if group == "source" else "to"
    return f"{{{key}: [{{{group}: {{{field}: [{value}]}}}}]}}"


def negated(field: str) -> str:
    return f"not{field[0].upper()}{field[1:]}"


@pytest.mark.parametrize(("group", "field", "value"), FITTING)
def test_a_field_fits_and_its_not_form_does_not(group: str, field: str, value: str) -> None:
    assert fits(rule(group, field, value))
    assert not fits(rule(group, negated(field), value))


@pytest.mark.parametrize(("group", "field", "value"), OTHERS)
def test_a_field_does_not_fit_and_its_not_form_does(group: str, field: str, value: str) -> None:
    assert not fits(rule(group, field, value))
    assert fits(rule(group, negated(field), value))


@pytest.mark.parametrize(
    ("key", "value", "other"),
    [
        ("source.ip", "198.18.1.1", "198.18.1.2"),
        ("remote.ip", "198.18.0.0/16", "203.0.113.0/24"),
        ("destination.ip", "198.18.2.1", "198.18.1.1"),
        ("destination.port", "8080", "80"),
        ("source.namespace", "front", "shop"),
        ("source.principal", "cluster.local/ns/front/sa/client", "a"),
        ("connection.sni", "*.shop.test", "web.shop"),
        ("request.headers[X-User]", "a*", "bob"),
        ("request.headers[x-user]", "*", "b*"),
    ],
)
def test_a_condition_is_met_by_its_values_and_not_by_its_not_values(
    key: str, value: str, other: str
) -> None:
    def met(field: str, given: str) -> bool:
        return fits(f"{{when: [{{key: '{key}', {field}: ['{given}']}}]}}")

    assert [met("values", value), met("values", other)] == [True, False]
    assert [met("notValues", value), met("notValues", other)] == [False, True]


def test_fields_have_to_fit_together_and_items_one_of_them() -> None:
    assert fits("{to: [{operation: {methods: [PUT, GET], paths: [/items*]}}]}")
    assert not fits("{to: [{operation: {methods: [GET], paths: [/x]}}]}")
    assert fits("{to: [{operation: {methods: [PUT]}}, {operation: {paths: [/items*]}}]}")
    assert not fits(
        "{from: [{source: {namespaces: [shop]}}], to: [{operation: {ports: ['8080']}}]}"
    )


def test_a_client_without_a_certificate_has_no_identity() -> None:
    rules = authorization(
        by_namespace([policy("{rules: [{from: [{source: {notNamespaces: [front]}}]}]}")]),
        SERVER,
        OPTIONS,
    )
    assert judge(rules, Facts()).allowed
    assert not judge(rules, Facts(peer=PEER)).allowed


def test_deny_comes_before_allow_and_without_allow_all_is_allowed() -> None:
    all_, none = policy("{rules: [{}]}", name="all"), policy("{}", name="none")
    deny = policy("{action: DENY, rules: [{to: [{operation: {methods: [GET]}}]}]}", name="deny")
    other = policy("{action: DENY, rules: [{to: [{operation: {methods: [PUT]}}]}]}", name="other")
    chosen = ((), (none,), (all_, none), (all_, deny), (deny,))
    assert [verdict(*one).allowed for one in chosen] == [True, False, True, False, False]
    assert verdict(other).why == "nothing denies"
    assert str(verdict(all_, deny)) == "denied by AuthorizationPolicy shop/deny: spec.rules[0]"


def test_a_policy_is_about_workloads_of_its_namespace_or_of_all_that_it_selects() -> None:
    def about(namespace: str, selector: str) -> bool:
        one = policy(f"{{selector: {{matchLabels: {selector}}}}}", namespace)
        return is_guarded(by_namespace([one]), SERVER, OPTIONS.root_namespace)

    assert about("shop", "{app: web}")
    assert about("istio-system", "{app: web, v: '1'}")
    assert about("istio-system", "{}")
    assert not about("shop", "{app: web, v: '2'}")
    assert not about("istio-system", "{app: db}")
    assert not about("front", "{app: web}")


NO_ADMIN = "{action: ACTION, rules: [{to: [{operation: {paths: [/items/7]}}]}]}"


def on_trial(spec: str) -> AuthorizationPolicy:
    found = policy(spec)
    annotated = msgspec.structs.replace(found.metadata, annotations={"istio.io/dry-run": "true"})
    return msgspec.structs.replace(found, metadata=annotated)


@pytest.mark.parametrize(
    ("noted", "notes"),
    [
        (policy(NO_ADMIN.replace("ACTION", "AUDIT")), "audited by"),
        (policy("{action: AUDIT, rules: [{to: [{operation: {paths: [/other]}}]}]}"), ""),
        (on_trial(NO_ADMIN.replace("ACTION", "DENY")), "would be denied by"),
        (on_trial(NO_ADMIN.replace("ACTION", "ALLOW")), ""),
        (on_trial("{}"), "would be denied since no rule on trial allows it"),
        (on_trial("{targetRefs: [{kind: Service, name: web}]}"), ""),
    ],
)
def test_what_only_notes_decides_nothing(noted: AuthorizationPolicy, notes: str) -> None:
    assert is_guarded(by_namespace([noted]), SERVER, OPTIONS.root_namespace)
    found = verdict(noted)
    assert (found.allowed, found.why) == (True, "nothing denies")
    assert notes in str(found)
    assert bool(found.notes) is bool(notes)
    assert verdict(noted, request=None).notes == ()
    denied = verdict(noted, policy("{}", name="q"))
    assert (denied.allowed, denied.notes) == (False, found.notes)


@pytest.mark.parametrize(
    ("spec", "allowed"),
    [
        ("{rules: [{to: [{operation: {methods: [GET]}}]}]}", False),
        ("{rules: [{to: [{operation: {notPaths: [/x]}}]}]}", False),
        ("{rules: [{when: [{key: 'request.headers[a]', notValues: [b]}]}]}", False),
        ("{rules: [{to: [{operation: {ports: ['8080']}}]}]}", True),
        ("{action: DENY, rules: [{to: [{operation: {methods: [PUT]}}]}]}", False),
        ("{action: DENY, rules: [{to: [{operation: {methods: [PUT], ports: ['8080']}}]}]}", False),
        ("{action: DENY, rules: [{to: [{operation: {methods: [PUT], ports: ['80']}}]}]}", True),
        (
            "{action: DENY, rules: [{from: [{source: {namespaces: [shop]}}],"
            " to: [{operation: {paths: [/x]}}]}]}",
            True,
        ),
    ],
)
def test_connections_know_nothing_of_what_requests_have(spec: str, *, allowed: bool) -> None:
    assert verdict(policy(spec), request=None).allowed is allowed


UNSUPPORTED: list[str] = [
    "{targetRefs: [{kind: Service, name: w}], rules: [{}]}",
    "{targetRef: {kind: Service, name: w}, rules: [{}]}",
    "{rules: [{}, {when: [{key: 'request.auth.newer', values: [b]}]}]}",
    "{rules: [{}, {when: [{key: 'newer.attribute', values: [b]}]}]}",
    "{action: AUDIT, rules: [{when: [{key: 'newer.attribute', values: [b]}]}]}",
]


@pytest.mark.parametrize("spec", UNSUPPORTED[:-1])
def test_a_policy_with_unsupported_parts_denies_everything(spec: str) -> None:
    open_ = policy("{rules: [{}]}", name="open")
    for request in (ASKED, None):
        found = verdict(open_, policy(spec), request=request)
        assert not found.allowed
        assert "a part of it is not carried out" in str(found)


CUSTOM = (
    "{action: CUSTOM, provider: {name: NAME}, rules: [{to: [{operation: {paths: [/items/7]}}]}]}"
)
PROVIDERS = tuple(
    AuthorizationProvider(name=name, host="p.test", port=90, speaks="grpc") for name in ("x", "y")
)


def asked_verdict(*policies: AuthorizationPolicy, request: Request | None = ASKED) -> Verdict:
    options = msgspec.structs.replace(OPTIONS, providers=PROVIDERS)
    rules = authorization(by_namespace(policies), SERVER, options)
    if request is not None:
        return judge(rules, facts_of(CALL, request))
    return judge(rules and of_connections(rules), CALL)


def test_a_provider_is_asked_before_others_decide() -> None:
    custom = policy(CUSTOM.replace("NAME", "x"))
    assert asked_verdict(custom).allowed
    assert str(asked_verdict(custom).asked).startswith("x is asked first, by AuthorizationPolicy")
    denied = asked_verdict(custom, policy("{}", name="none"))
    assert (denied.allowed, bool(denied.asked)) == (False, True)
    other = Request("web.test:80", "/other", "GET")
    assert asked_verdict(custom, request=other).asked is None
    # Of a connection, nobody is asked: what the rest of the rule fits is refused.
    assert not asked_verdict(custom, request=None).allowed


@pytest.mark.parametrize(
    ("policies", "why"),
    [
        ((policy(CUSTOM.replace("NAME", "z")),), "is no extension provider"),
        (
            (
                policy(CUSTOM.replace("NAME", "x")),
                policy(CUSTOM.replace("NAME", "y"), "istio-system"),
            ),
            "is not that of another policy",
        ),
    ],
)
def test_where_nobody_can_be_asked_everything_is_denied(
    policies: tuple[AuthorizationPolicy, ...], why: str
) -> None:
    for request in (ASKED, Request("web.test:80", "/other", "GET"), None):
        found = asked_verdict(*policies, request=request)
        assert not found.allowed
        assert why in str(found)


def test_a_replacement_denies_everything_in_its_namespace_or_the_mesh() -> None:
    open_ = policy("{rules: [{}]}")
    for namespace, denied in (("shop", True), ("istio-system", True), ("front", False)):
        closed = ClosedAuthorization.named(namespace, "x")
        assert verdict(open_, closed).allowed is not denied


def test_only_rules_with_server_names_have_these_noted() -> None:
    def asked(spec: str) -> bool:
        return asks_server_name(authorization(by_namespace([policy(spec)]), SERVER, OPTIONS))

    assert asked("{rules: [{when: [{key: connection.sni, values: [a]}]}]}")
    assert asked("{action: DENY, rules: [{when: [{key: connection.sni, notValues: [a]}]}]}")
    assert not asked("{rules: [{}]}")
    assert not asks_server_name(None)


def test_paths_are_judged_as_the_proxy_reads_them() -> None:
    deny = policy('{action: DENY, rules: [{to: [{operation: {paths: ["/admin*"]}}]}]}')
    seen: dict[str, Any] = {
        path: verdict(deny, request=Request("h", path)).allowed
        for path in ("/x/../admin", "/%61dmin", "/./admin?q", "//admin", "/x?/admin")
    }
    assert list(seen.values()) == [False, False, False, True, True]


def test_each_line_of_a_header_is_judged() -> None:
    """So that another line hides nothing."""
    deny = policy("{action: DENY, rules: [{when: [{key: 'request.headers[a]', values: [x]}]}]}")
    for lines, allowed in (((("A", "y"), ("a", "x")), False), ((("a", "y"), ("a", "z")), True)):
        assert verdict(deny, request=Request("h", headers=lines)).allowed is allowed


@pytest.mark.parametrize(
    "host", ["a.test,b.test", "b.test,a.test", "me@a.test", "a.test..", "a%2etest", "a..test:80"]
)
@pytest.mark.parametrize(
    "spec",
    [
        "{action: DENY, rules: [{to: [{operation: {hosts: [a.test, 'a.test:*']}}]}]}",
        "{rules: [{to: [{operation: {notHosts: [a.test, 'a.test:*']}}]}]}",
        "{action: DENY, rules: [{when: [{key: 'request.headers[Host]', values: [a.test]}]}]}",
    ],
)
def test_where_hosts_matter_no_request_names_anything_else(spec: str, host: str) -> None:
    found = policy(spec)
    assert not verdict(found, request=Request(host)).allowed
    for other in ("b.test", "B.test.", "b_1.test:80", "[fd00::1]:80", "10.0.0.1", ""):
        assert verdict(found, request=Request(other)).allowed, other
    of_methods = policy("{action: DENY, rules: [{to: [{operation: {methods: [PUT]}}]}]}")
    assert verdict(of_methods, request=Request(host)).allowed


def test_what_names_no_host_is_nothing_that_a_connection_has() -> None:
    hosts = "{action: DENY, rules: [{to: [{operation: {hosts: [a.test], ports: ['80']}}]}]}"
    assert verdict(policy(hosts), request=None).allowed
