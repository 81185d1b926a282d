"""Objects that were accepted with what proxies refuse cost themselves and no other object."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.envoy.captured.place import Backend, Place

A, B = Backend("a", {80: "http"}), Backend("b", {80: "http"})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with Place(tmp_path_factory.mktemp("texts"), (A, B)) as made:
        yield made


def entry(name: str, backend: Backend) -> str:
    return f"""
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {name}, namespace: apps}}
spec:
  hosts: [{name}.test]
  resolution: STATIC
  ports: [{{number: 80, name: http, protocol: HTTP}}]
  endpoints: [{{address: {backend.address}, labels: {{"a": "b\\n"}}}}]
  subjectAltNames: ["a\\n"]
---
"""


def routes(number: int, route: str) -> str:
    return f"""
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: v{number}, namespace: apps}}
spec: {{hosts: [v{number}.test, w{number}.test], http: [{{{route}}}]}}
---
"""


RULE = r"""
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: c, namespace: apps}
spec:
  host: c.test
  trafficPolicy: {tls: {mode: SIMPLE, sni: "a\n", subjectAltNames: ["a\n"]}}
---
"""
TO_B = "route: [{destination: {host: b.test}}]"
REFUSED = (
    r'redirect: {uri: "/a\n"}',
    r'redirect: {authority: "a\0"}',
    r'redirect: {prefixRewrite: "/a\r"}',
    rf'rewrite: {{uri: "/a\n"}}, {TO_B}',
    rf'rewrite: {{authority: "a\n"}}, {TO_B}',
    rf'rewrite: {{uriRegexRewrite: {{match: a, rewrite: "a\n"}}}}, {TO_B}',
    rf"match: [{{uri: {{regex: '\x{{100}}'}}}}], {TO_B}",
    f"match: [{{queryParams: {{'': {{exact: a}}}}}}], {TO_B}",
    f"headers: {{request: {{set: {{a: {'x' * 16_385}}}}}}}, {TO_B}",
    "directResponse: {status: 600}",
)
TAKEN = (
    rf'name: "a\n", {TO_B}',
    rf'match: [{{name: "a\n", statPrefix: "a\n"}}], {TO_B}',
    rf'corsPolicy: {{allowOrigins: [{{exact: "a\n"}}]}}, {TO_B}',
    'directResponse: {status: 200, body: {string: "a\\n"}}',
)


def test_values_that_proxies_refuse_close_their_own_hosts_only(place: Place) -> None:
    place.load(
        entry("a", A)
        + entry("b", B)
        + entry("c", B)
        + RULE
        + "".join(routes(number, route) for number, route in enumerate(REFUSED + TAKEN)),
        place.workload("client", "apps"),
    )
    answers = [
        place.ask("http", A.address, 80, f"v{number}.test")
        for number in range(len(REFUSED + TAKEN))
    ]
    assert answers == [""] * len(REFUSED) + ["b", "b", "b", "a"]
    assert place.ask("http", A.address, 80, "a.test") == "a"


SERVED = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: served, namespace: apps}
spec:
  hosts: [served.test]
  location: MESH_INTERNAL
  resolution: STATIC
  workloadSelector: {labels: {app: client}}
  ports: [{number: 80, name: http, protocol: HTTP}]
---
"""
POLICY = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: p, namespace: apps}}
spec: {{action: {}, rules: [{}]}}
---
"""
LONG = "x" * 40_000


@pytest.mark.parametrize("action", ["ALLOW", "DENY"])
@pytest.mark.parametrize(
    "rule",
    [
        f"{{to: [{{operation: {{paths: ['/{{*}}/{LONG}']}}}}]}}",
        f"{{from: [{{source: {{namespaces: [{LONG}]}}}}]}}",
        "{from: [{source: {ipBlocks: [10.0.0.0/33]}}]}",
        "{when: [{key: 'request.headers[a b]', values: [c]}]}",
    ],
    ids=["path", "namespace", "network", "header"],
)
def test_a_policy_that_proxies_refuse_keeps_no_other_change_from_them(
    place: Place, action: str, rule: str
) -> None:
    """The table for what arrives is that of all workloads of the node."""
    client = place.workload("client", "apps")
    place.load(entry("a", A) + SERVED + POLICY.format(action, rule), client)
    assert place.ask("http", A.address, 80, "a.test") == "a"
