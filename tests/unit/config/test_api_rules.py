"""What the API refuses, what it only warns of, and what it takes, kind by kind.

Each case is one that Istio's own two gates, the schema and the webhook, decide in the same way.
"""

from __future__ import annotations

import sys
from types import FrameType

import pytest

from meshd.analysis.validate import check_fields
from meshd.api.read import read_objects
from tests.unit.analysis.test_validate import (
    HTTPS,
    TO,
    entry,
    http,
    locality,
    manifest,
    policy,
    said,
    server,
)

EXPORTED = "hosts: [a]\nhttp: [{route: [{destination: {host: a}}]}]\nexportTo: "
HEADERS = "headers: {request: {set: {x-a: '%s'}}}"


@pytest.mark.parametrize(
    ("kind", "spec", "field"),
    [
        ("VirtualService", EXPORTED + "[a, a]", "spec.exportTo[1]"),
        ("VirtualService", EXPORTED + "['.', ns]", "spec.exportTo[1]"),
        ("VirtualService", EXPORTED + "['~']", "spec.exportTo[0]"),
        ("DestinationRule", "host: a\nexportTo: ['~']", "spec.exportTo[0]"),
        ("ServiceEntry", entry("resolution: DNS\nexportTo: ['~', b]"), "spec.exportTo"),
        (
            "DestinationRule",
            "host: a\nworkloadSelector: {matchLabels: {a: b}}\nexportTo: ['*']",
            "spec.exportTo",
        ),
        (
            "DestinationRule",
            "host: a\nworkloadSelector: {matchLabels: {a: b}}\nexportTo: [., other]",
            "spec.exportTo",
        ),
        ("VirtualService", http(TO + "timeout: 1500us"), "spec.http[0].timeout"),
        ("VirtualService", http(TO + "timeout: 0s"), "spec.http[0].timeout"),
        (
            "VirtualService",
            http(TO + "corsPolicy: {maxAge: 1500ms}"),
            "spec.http[0].corsPolicy.maxAge",
        ),
        (
            "DestinationRule",
            policy("connectionPool: {tcp: {connectTimeout: 1.0005s}}"),
            "spec.trafficPolicy.connectionPool.tcp.connectTimeout",
        ),
        ("DestinationRule", "host: a\ntrafficPolicy: {}", "spec.trafficPolicy"),
        (
            "DestinationRule",
            "host: a\nsubsets: [{name: b, trafficPolicy: {}}]",
            "spec.subsets[0].trafficPolicy",
        ),
        ("DestinationRule", policy("connectionPool: {}"), "spec.trafficPolicy.connectionPool"),
        (
            "DestinationRule",
            policy("portLevelSettings: [{port: {number: 80}}]"),
            "spec.trafficPolicy.portLevelSettings[0]",
        ),
        (
            "DestinationRule",
            policy("connectionPool: {http: {http2KeepAlive: {interval: 5s}}}"),
            "spec.trafficPolicy.connectionPool.http.http2KeepAlive",
        ),
        ("DestinationRule", "host: 198.18.0.1", "spec.host"),
        ("DestinationRule", "host: a\nsubsets: [{name: v1.2}]", "spec.subsets[0].name"),
        (
            "PeerAuthentication",
            "selector: {matchLabels: {a: b}}\nportLevelMtls: {}",
            "spec.portLevelMtls",
        ),
        (
            "VirtualService",
            http(TO + HEADERS % "100%"),
            "spec.http[0].headers.request.set.x-a",
        ),
        (
            "VirtualService",
            http(TO + HEADERS % "a %HOSTNAME b"),
            "spec.http[0].headers.request.set.x-a",
        ),
        (
            "VirtualService",
            http(TO + HEADERS % "%REQ(a%"),
            "spec.http[0].headers.request.set.x-a",
        ),
        (
            "ServiceEntry",
            entry(
                "resolution: DYNAMIC_DNS\nendpoints: [{address: 198.18.0.1}]", hosts="['*.a.test']"
            ),
            "spec.endpoints",
        ),
        (
            "ServiceEntry",
            entry("resolution: DYNAMIC_DNS\naddresses: [198.18.0.1]", hosts="['*.a.test']"),
            "spec.addresses",
        ),
        (
            "ServiceEntry",
            entry(hosts="[a.b, c.d]", ports="{number: 1, name: a, protocol: TCP}"),
            "spec.ports[0].protocol",
        ),
        (
            "VirtualService",
            "hosts: ['*.com', a.com]\nhttp: [{route: [{destination: {host: a}}]}]",
            "spec.hosts[1]",
        ),
        (
            "VirtualService",
            "hosts: [a.b.com, '*.b.com']\nhttp: [{route: [{destination: {host: a}}]}]",
            "spec.hosts[1]",
        ),
        (
            "VirtualService",
            http(TO + "rewrite: {authority: a}\nheaders: {request: {set: {Host: b}}}"),
            "spec.http[0]",
        ),
        (
            "VirtualService",
            http(TO + "headers: {request: {set: {host: a}, add: {':authority': b}}}"),
            "spec.http[0]",
        ),
        (
            "VirtualService",
            http(TO + "headers: {response: {set: {host: a}}}"),
            "spec.http[0].headers.response.set.host",
        ),
        (
            "VirtualService",
            http(TO + "retries: {perTryTimeout: 1s}"),
            "spec.http[0].retries.perTryTimeout",
        ),
        (
            "VirtualService",
            http(TO + "retries: {attempts: 1, retryOn: '5xx, reset'}"),
            "spec.http[0].retries.retryOn",
        ),
        (
            "VirtualService",
            http("redirect: {uri: /, prefixRewrite: /b}"),
            "spec.http[0].redirect",
        ),
        (
            "VirtualService",
            http("redirect: {uri: /}\nfault: {abort: {httpStatus: 500}}"),
            "spec.http[0].fault",
        ),
        (
            "VirtualService",
            http(TO + "match: [{headers: {'@request.auth.claims.group': {exact: a}}}]"),
            "spec.http[0].match[0].headers.@request.auth.claims.group",
        ),
        (
            "VirtualService",
            http(TO + "match: [{sourceNamespace: a.b}]"),
            "spec.http[0].match[0].sourceNamespace",
        ),
        (
            "VirtualService",
            http(TO + "match: [{uri: {regex: '" + "a" * 1025 + "'}}]"),
            "spec.http[0].match[0].uri.regex",
        ),
        ("Gateway", server(hosts="[web]"), "spec.servers[0].hosts[0]"),
        ("Gateway", server(hosts="['ns/web']"), "spec.servers[0].hosts[0]"),
        ("Gateway", server(hosts="['*web.com']"), "spec.servers[0].hosts[0]"),
        (
            "Gateway",
            server("number: 80, name: http, protocol: HTTP, targetPort: 8080"),
            "spec.servers[0].port.targetPort",
        ),
        (
            "WorkloadGroup",
            "template: {}\nprobe: {exec: {command: ['']}}",
            "spec.probe.exec.command",
        ),
    ],
)
def test_values_that_the_api_refuses_are_errors(kind: str, spec: str, field: str) -> None:
    assert [message.partition(": ")[0] for message in said(kind, spec)] == [field]


AT_GATEWAY = "hosts: [a.b]\ngateways: [edge]\nhttp:\n- "


@pytest.mark.parametrize(
    ("kind", "spec", "field"),
    [
        (
            "Gateway",
            server(HTTPS, "tls: {mode: SIMPLE, credentialName: c, httpsRedirect: true}"),
            "spec.servers[0].tls.httpsRedirect",
        ),
        (
            "Gateway",
            server(
                HTTPS,
                "tls: {mode: SIMPLE, credentialName: c, serverCertificate: /c, privateKey: /k}",
            ),
            "spec.servers[0].tls.credentialName",
        ),
        (
            "Gateway",
            server(HTTPS, "tls: {mode: PASSTHROUGH, credentialName: c}"),
            "spec.servers[0].tls.credentialName",
        ),
        (
            "Gateway",
            server(HTTPS, "tls: {mode: SIMPLE, credentialName: c, minProtocolVersion: TLSV1_0}"),
            "spec.servers[0].tls.minProtocolVersion",
        ),
        ("ServiceEntry", entry(hosts="['*foo.com']", rest="resolution: NONE"), "spec.hosts[0]"),
        ("ServiceEntry", entry("resolution: STATIC"), "spec.endpoints"),
        ("ServiceEntry", "hosts: [a.b]\nresolution: DNS", "spec.ports"),
        (
            "ServiceEntry",
            entry("resolution: STATIC\nworkloadSelector: {labels: {}}"),
            "spec.workloadSelector",
        ),
        (
            "ServiceEntry",
            entry("resolution: NONE\nworkloadSelector: {labels: {a: b}}"),
            "spec.workloadSelector",
        ),
        (
            "ServiceEntry",
            entry(
                "resolution: NONE", ports="{number: 80, name: a, protocol: HTTP, targetPort: 81}"
            ),
            "spec.ports[0].targetPort",
        ),
        ("PeerAuthentication", "selector: {}", "spec.selector"),
        ("DestinationRule", "host: a\nworkloadSelector: {}", "spec.workloadSelector"),
        (
            "VirtualService",
            http(TO + "mirrorPercentage: {value: 1}"),
            "spec.http[0].mirrorPercentage",
        ),
        (
            "VirtualService",
            http(TO + "mirror: {host: a}\nmirrorPercent: 1"),
            "spec.http[0].mirrorPercent",
        ),
        (
            "VirtualService",
            http(TO + "match: [{uri: {prefix: ''}}]"),
            "spec.http[0].match[0].uri.prefix",
        ),
        ("VirtualService", http(TO + "match: [{uri: {}}]"), "spec.http[0].match[0].uri"),
        (
            "VirtualService",
            http(TO + "fault: {abort: {percentage: {value: 1}}}"),
            "spec.http[0].fault.abort",
        ),
        ("VirtualService", http(TO + "fault: {delay: {}}"), "spec.http[0].fault.delay"),
        (
            "VirtualService",
            http(TO + "match: [{gateways: [edge]}]"),
            "spec.http[0].match[0].gateways[0]",
        ),
        (
            "VirtualService",
            "hosts: [a.b]\ngateways: [edge.infra.svc.cluster.local]\nhttp:\n- " + TO,
            "spec.gateways[0]",
        ),
        (
            "VirtualService",
            http("directResponse: {status: 200, body: {string: '" + "a" * 102401 + "'}}"),
            "spec.http[0].directResponse.body",
        ),
        (
            "VirtualService",
            http("redirect: {uri: /, redirectCode: 304}"),
            "spec.http[0].redirect.redirectCode",
        ),
        (
            "VirtualService",
            "hosts: [a.b]\ntls: [{match: [{sniHosts: [198.18.0.1]}], "
            "route: [{destination: {host: a}}]}]",
            "spec.tls[0].match[0].sniHosts[0]",
        ),
        (
            "DestinationRule",
            policy("outlierDetection: {consecutiveErrors: 1}"),
            "spec.trafficPolicy.outlierDetection.consecutiveErrors",
        ),
        (
            "DestinationRule",
            policy("loadBalancer: {consistentHash: {useSourceIp: true, minimumRingSize: 1}}"),
            "spec.trafficPolicy.loadBalancer.consistentHash.minimumRingSize",
        ),
        (
            "DestinationRule",
            policy("loadBalancer: {consistentHash: {}}"),
            "spec.trafficPolicy.loadBalancer.consistentHash",
        ),
        (
            "DestinationRule",
            policy("loadBalancer: {zoneAwareLbSetting: {enabled: true, minClusterSize: 3}}"),
            "spec.trafficPolicy.loadBalancer.zoneAwareLbSetting",
        ),
        ("WorkloadEntry", "network: n", "spec.address"),
    ],
)
def test_ignored_fields_are_warnings(kind: str, spec: str, field: str) -> None:
    assert said(kind, spec) == []
    assert [one.partition(": ")[0] for one in said(kind, spec, "warning")] == [field]


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("VirtualService", http("delegate: {name: b}\nmatch: [{uri: {regex: a}}]")),
        ("VirtualService", http(TO + "match: [{withoutHeaders: {x: {regex: '*'}}}]")),
        ("VirtualService", http("match: [{uri: {prefix: /a/}}]\nredirect: {prefixRewrite: /}")),
        ("VirtualService", http(TO + HEADERS % "100%% of %HOSTNAME% and %REQ(:path)%")),
        ("VirtualService", "hosts: ['*foo.com']\nhttp:\n- " + TO),
        ("VirtualService", http(TO + "headers: {request: {set: {Host: a b}}}")),
        ("ServiceEntry", entry("resolution: DNS\nexportTo: ['~']")),
        ("Gateway", server(hosts="['198.18.0.1']")),
        (
            "DestinationRule",
            "host: a\nworkloadSelector: {matchLabels: {a: b}}\nexportTo: ['.']",
        ),
        (
            "DestinationRule",
            policy(
                "loadBalancer: {consistentHash: {httpCookie: {name: a, "
                "attributes: [{name: Secure}, {name: SameSite, value: Lax}]}}}"
            ),
        ),
        ("DestinationRule", policy("retryBudget: {percent: 10}")),
        ("DestinationRule", policy("tls: {mode: SIMPLE, credentialName: c}")),
    ],
)
def test_values_that_the_api_accepts_give_no_finding(kind: str, spec: str) -> None:
    assert said(kind, spec) == []
    assert said(kind, spec, "warning") == []


def test_a_failover_that_names_one_side_only_is_a_warning() -> None:
    spec = locality("failover: [{from: us}]") + "\n  outlierDetection: {}"
    spec = spec.replace("{loadBalancer", "\n  loadBalancer").replace("}}\n", "}\n")
    assert said("DestinationRule", spec) == []
    assert [one.partition(": ")[0] for one in said("DestinationRule", spec, "warning")] == [
        "spec.trafficPolicy.loadBalancer.localityLbSetting.failover[0].to"
    ]


@pytest.mark.parametrize(
    ("first", "second"),
    [("*.example.com", "a.example.com"), ("A.test", "a.test"), ("*a.test", "*.a.test")],
)
def test_hosts_that_cover_one_another_are_found_in_either_order(first: str, second: str) -> None:
    for hosts in ((first, second), (second, first)):
        spec = f"hosts: ['{hosts[0]}', '{hosts[1]}']\nhttp:\n- {TO}"
        found = said("VirtualService", spec)
        covered = f'spec.hosts[1]: "{hosts[1]}" and "{hosts[0]}" have names in common'
        assert found == [covered]


def test_an_object_with_a_thousand_parts_costs_no_more_than_their_sum() -> None:
    """Each pair of its hosts, or of its matches, would take seconds of the role that judges it."""
    hosts = ", ".join(f"h{number}.example.com" for number in range(250))
    match = "match: [{uri: {prefix: /%s}, headers: {x: {exact: '%d'}}}]"
    routes = "".join(f"- {match % ('a' * (one % 50), one)}\n  {TO}" for one in range(1000))
    (one,) = read_objects(
        manifest("VirtualService", f"hosts: [{hosts}]\nhttp:\n{routes}"), "f.yaml"
    )
    calls = 0

    def count(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        check_fields([one])
    finally:
        sys.setprofile(before)
    assert calls < 600_000
