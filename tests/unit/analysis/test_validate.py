"""Each rule of each kind: one manifest that breaks it, and the line that is said."""

from __future__ import annotations

import json
import textwrap

import pytest
import re2
from hypothesis import given
from hypothesis import strategies as st

from meshd.analysis.validate import check_fields, check_references, stored_kinds
from meshd.api import kinds
from meshd.api.checks import host_problem
from meshd.api.patterns import regex_problem
from meshd.api.read import read_objects
from meshd.api.write import from_json, to_json

_GROUPS = {kind.KIND: kind for kind in kinds.ALL}


def manifest(kind: str, spec: str) -> str:
    known = _GROUPS[kind]
    version = "/".join(part for part in (known.GROUP, known.VERSIONS[-1]) if part)
    head = f"apiVersion: {version}\nkind: {kind}\nmetadata: {{name: x, namespace: ns}}\nspec:\n"
    return head + textwrap.indent(textwrap.dedent(spec).strip("\n"), "  ") + "\n"


def said(kind: str, spec: str, severity: str = "error") -> list[str]:
    """``field: message`` of each finding about one object."""
    return [
        f"{finding.field}: {finding.message}"
        for finding in check_fields(read_objects(manifest(kind, spec), "f.yaml"))
        if finding.severity == severity
    ]


def http(route: str) -> str:
    return "hosts: [reviews]\nhttp:\n- " + textwrap.indent(textwrap.dedent(route), "  ").strip()


TO = "route: [{destination: {host: reviews}}]\n"

EVERY_FIELD = """
hosts: [reviews, reviews.ns.svc.cluster.local, "*.example.com", 198.18.0.1]
gateways: [mesh, edge, other/edge]
exportTo: [".", other]
http:
- name: first
  match:
  - name: m
    uri: {prefix: /a}
    scheme: {exact: https}
    method: {regex: GET|POST}
    authority: {exact: reviews}
    headers: {end-user: {exact: john}, x-any: {}}
    withoutHeaders: {x-b: {prefix: y}}
    queryParams: {q: {regex: "[0-9]+"}}
    port: 9080
    sourceLabels: {app: productpage, app.kubernetes.io/name: p}
    sourceNamespace: ns
    gateways: [edge]
    ignoreUriCase: true
    statPrefix: s
  route:
  - {destination: {host: reviews, subset: v1, port: {number: 9080}}, weight: 90,
     headers: {request: {set: {a: b}, add: {c: d}, remove: [e]}, response: {set: {f: g}}}}
  - {destination: {host: reviews.ns.svc.cluster.local, subset: v2}, weight: 10}
  rewrite: {uri: /b}
  timeout: 2s
  retries:
    {attempts: 3, perTryTimeout: 100ms, retryOn: "5xx,reset,503", retryRemoteLocalities: true,
     retryIgnorePreviousHosts: false, backoff: 50ms}
  fault:
    delay: {fixedDelay: 2s, percentage: {value: 50}}
    abort: {httpStatus: 503, percentage: {value: 0.5}}
  mirror: {host: reviews, subset: v2}
  mirrorPercentage: {value: 10}
  corsPolicy:
    allowOrigins: [{exact: https://example.com}, {regex: ".*"}]
    allowMethods: [GET, POST]
    allowHeaders: [x-foo]
    exposeHeaders: [x-bar]
    maxAge: 24h
    allowCredentials: true
    unmatchedPreflights: IGNORE
  headers: {request: {set: {host: other.example.com}}, response: {remove: [server]}}
- match: [{uri: {exact: /old}}]
  redirect: {uri: /new, authority: example.com, port: 8080, scheme: https, redirectCode: 308}
- match: [{uri: {exact: /teapot}}]
  directResponse: {status: 418, body: {string: short}}
- match: [{uri: {prefix: /books}}]
  timeout: 2s
  delegate: {name: books, namespace: shop}
- rewrite: {uriRegexRewrite: {match: "^/x/(.*)$", rewrite: '/y/\\\\1'}}
  mirrors: [{destination: {host: reviews}, percentage: {value: 1}}]
  route: [{destination: {host: reviews}}]
tls:
- match: [{sniHosts: [a.example.com], destinationSubnets: [198.18.0.0/16], port: 443}]
  route: [{destination: {host: reviews}}]
tcp:
- match: [{port: 27017, sourceLabels: {a: b}, gateways: [mesh]}]
  route: [{destination: {host: reviews}, weight: 100}]
"""


def test_a_virtual_service_with_every_field_is_valid() -> None:
    assert said("VirtualService", EVERY_FIELD) == []
    assert said("VirtualService", EVERY_FIELD, "warning") == []


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("exportTo: ['.']", "spec.hosts: needs at least one host"),
        ("gateways: [edge]\nhttp:\n- " + TO, "spec.gateways: a VirtualService without hosts is a"),
        ("http: [{delegate: {name: b}}]", "spec.http[0].delegate: a delegate cannot delegate"),
        (http("delegate: {}"), "spec.http[0].delegate.name: is required"),
        (http("delegate: {name: a/b}"), "spec.http[0].delegate.name: "),
        (
            http(TO + "delegate: {name: b}"),
            "spec.http[0]: has route and delegate; only one of them is possible",
        ),
        ("hosts: [a, a]\ntcp: [{route: [{destination: {host: a}}]}]", "spec.hosts[1]: "),
        ("hosts: ['*']\n" + "http:\n- " + TO, 'spec.hosts: the host "*" is for gateways only'),
        ("hosts: [a.*.b]\nhttp:\n- " + TO, 'spec.hosts[0]: "a.*.b": a wildcard stands on the'),
        ("hosts: [a, '']\nhttp:\n- " + TO, "spec.hosts[1]: an empty host"),
        ("hosts: [a]", "spec: needs at least one of http, tls, tcp"),
        ("hosts: [a]\ngateways: [A/b/c]\nhttp:\n- " + TO, "spec.gateways[0]: "),
        ("hosts: [a]\nexportTo: [x_y]\nhttp:\n- " + TO, "spec.exportTo[0]: "),
        ("hosts: [a]\nexportTo: ['*', x]\nhttp:\n- " + TO, "spec.exportTo: "),
        (http("name: x"), "spec.http[0]: does nothing: it needs one of route, redirect, "),
        (http(TO + "redirect: {uri: /}"), "spec.http[0]: has route and redirect; only one"),
        (
            http("redirect: {uri: /}\nrewrite: {uri: /x}"),
            "spec.http[0].rewrite: has no meaning beside redirect",
        ),
        (http("redirect: {}"), "spec.http[0].redirect: changes nothing"),
        (http("redirect: {port: 65536}"), "spec.http[0].redirect.port: 65536 is not"),
        (http("redirect: {uri: /, redirectCode: 200}"), "spec.http[0].redirect.redirectCode: "),
        (
            http("redirect: {port: 80, derivePort: FROM_REQUEST_PORT}"),
            "spec.http[0].redirect: has port and derivePort",
        ),
        (http("directResponse: {status: 99}"), "spec.http[0].directResponse.status: 99 is out"),
        (
            http("directResponse: {status: 200, body: {string: a, bytes: YQ==}}"),
            "spec.http[0].directResponse.body: has string and bytes; only one",
        ),
        (
            http("directResponse: {status: 200, body: {bytes: '!'}}"),
            "spec.http[0].directResponse.body.bytes: is not base64",
        ),
        (http(TO + "rewrite: {}"), "spec.http[0].rewrite: changes nothing"),
        (
            http(TO + "rewrite: {uri: /, uriRegexRewrite: {match: a, rewrite: b}}"),
            "spec.http[0].rewrite: has uri and uriRegexRewrite",
        ),
        (
            http(TO + "rewrite: {uriRegexRewrite: {match: '(', rewrite: b}}"),
            'spec.http[0].rewrite.uriRegexRewrite.match: "(" is not an RE2 regular expression',
        ),
        (
            http(TO + "match: [{uri: {exact: /, prefix: /}}]"),
            "spec.http[0].match[0].uri: has exact and prefix; only one of exact, prefix, regex",
        ),
        (
            http(TO + "match: [{scheme: {prefix: ''}}]"),
            "spec.http[0].match[0].scheme.prefix: an empty",
        ),
        (
            http(TO + "match: [{uri: {regex: '(?=a)'}}]"),
            'spec.http[0].match[0].uri.regex: "(?=a)" is not an RE2 regular expression',
        ),
        (
            http(TO + r"match: [{uri: {regex: '\x{100}'}}]"),
            r'spec.http[0].match[0].uri.regex: "\x{100}" has a character above \xff by its number',
        ),
        (
            http(TO + "match: [{queryParams: {'': {exact: c}}}]"),
            "spec.http[0].match[0].queryParams: a parameter needs a name",
        ),
        (
            http(TO + "match: [{headers: {'a b': {exact: c}}}]"),
            'spec.http[0].match[0].headers.a b: "a b" is not a header\'s name',
        ),
        (http(TO + "match: [{port: 70000}]"), "spec.http[0].match[0].port: 70000 is not a port"),
        (http(TO + "match: [{sourceLabels: {'a b': c}}]"), "spec.http[0].match[0].sourceLabels.a"),
        (
            http("route: [{destination: {host: a}, weight: -1}]"),
            "spec.http[0].route[0].weight: -1 is out of range",
        ),
        (
            http("route: [{destination: {host: a}}, {destination: {host: b}, weight: 0}]"),
            "spec.http[0].route: no destination has a weight above 0; give each its share",
        ),
        (
            http("route: [{destination: {host: '*'}}]"),
            'spec.http[0].route[0].destination.host: "*" is not a service',
        ),
        (
            http("route: [{destination: {host: a, port: {}}}]"),
            "spec.http[0].route[0].destination.port.number: is required",
        ),
        (
            http("route: [{destination: {host: a, subset: 'a|b'}}]"),
            'spec.http[0].route[0].destination.subset: "a|b" is not a name',
        ),
        (http(TO + "timeout: 10us"), "spec.http[0].timeout: must be 1ms or more"),
        (
            http(TO + "fault: {delay: {exponentialDelay: 1s}}"),
            "spec.http[0].fault.delay.exponentialDelay: is not supported; use fixedDelay",
        ),
        (
            http(TO + "fault: {abort: {http2Error: x}}"),
            "spec.http[0].fault.abort.http2Error: is not supported; use httpStatus",
        ),
        (http(TO + "retries: {attempts: -1}"), "spec.http[0].retries.attempts: -1 is out"),
        (
            http(TO + "retries: {retryRemoteLocalities: true}"),
            "spec.http[0].retries.retryRemoteLocalities: has no meaning while attempts is 0",
        ),
        (http(TO + "retries: {attempts: 1, backoff: 0s}"), "spec.http[0].retries.backoff: must"),
        (
            http(TO + "retries: {attempts: 0, retryOn: 5xx}"),
            "spec.http[0].retries.retryOn: has no meaning while attempts is 0",
        ),
        (
            http(TO + "retries: {attempts: 1, retryOn: '5xx,conect-failure'}"),
            'spec.http[0].retries.retryOn: "conect-failure" is not a condition '
            "(did you mean connect-failure?)",
        ),
        (http(TO + "fault: {}"), "spec.http[0].fault: injects nothing"),
        (
            http(TO + "fault: {delay: {fixedDelay: 0s}}"),
            "spec.http[0].fault.delay.fixedDelay: must be 1ms or more",
        ),
        (
            http(TO + "fault: {abort: {httpStatus: 500, grpcStatus: OK}}"),
            "spec.http[0].fault.abort: has httpStatus and grpcStatus; only one",
        ),
        (
            http(TO + "fault: {abort: {httpStatus: 1}}"),
            "spec.http[0].fault.abort.httpStatus: 1 is out of range; it must be from 200 to 599",
        ),
        (
            http(TO + "fault: {abort: {grpcStatus: UNAVAILBLE}}"),
            'spec.http[0].fault.abort.grpcStatus: "UNAVAILBLE" is not a gRPC status '
            "(did you mean UNAVAILABLE?)",
        ),
        (
            http(TO + "fault: {abort: {httpStatus: 500, percentage: {value: 101}}}"),
            "spec.http[0].fault.abort.percentage.value: 101 is out of range",
        ),
        (
            http(TO + "mirror: {host: a}\nmirrors: [{destination: {host: a}}]"),
            "spec.http[0]: has mirror and mirrors",
        ),
        (http(TO + "mirror: {host: ''}"), "spec.http[0].mirror.host: an empty host"),
        (
            http(TO + "mirrors: [{destination: {host: a}, percentage: {value: 200}}]"),
            "spec.http[0].mirrors[0].percentage.value: 200 is out of range",
        ),
        (http(TO + "corsPolicy: {allowOrigins: [{}]}"), "spec.http[0].corsPolicy.allowOrigins[0]"),
        (
            http(TO + "corsPolicy: {allowMethods: [get]}"),
            'spec.http[0].corsPolicy.allowMethods[0]: "get" is not a method (did you mean GET?)',
        ),
        (
            http(TO + "headers: {request: {set: {':path': /}}}"),
            'spec.http[0].headers.request.set.:path: ":path" cannot be changed',
        ),
        (
            http("route: [{destination: {host: a}, headers: {response: {add: {'': b}}}}]"),
            "spec.http[0].route[0].headers.response.add.: ",
        ),
        ("hosts: [a]\ntcp: [{match: []}]", "spec.tcp[0].route: needs at least one destination"),
        (
            "hosts: [a]\ntcp: [{match: [{destinationSubnets: [x]}], "
            "route: [{destination: {host: a}}]}]",
            'spec.tcp[0].match[0].destinationSubnets[0]: "x" is not an address or a CIDR',
        ),
        (
            "hosts: [a.b]\ntls: [{match: [{sniHosts: [c.d]}], route: [{destination: {host: a}}]}]",
            'spec.tls[0].match[0].sniHosts[0]: "c.d" is not among spec.hosts',
        ),
        (
            "hosts: [a.b]\ntls: [{match: [{sniHosts: []}], route: [{destination: {host: a}}]}]",
            "spec.tls[0].match[0].sniHosts: needs at least one host",
        ),
    ],
)
def test_a_virtual_service_that_breaks_a_rule(spec: str, message: str) -> None:
    (found,) = said("VirtualService", spec)
    assert found.startswith(message)


@pytest.mark.parametrize(
    ("route", "message"),
    [
        (
            "directResponse: {status: 200}\ncorsPolicy: {allowOrigins: [{exact: 'https://a'}]}",
            "corsPolicy: has no meaning beside directResponse",
        ),
        (
            TO + "corsPolicy: {allowOrigins: [{regex: '[^:]+'}]}",
            'corsPolicy.allowOrigins[0].regex: "[^:]+" matches "*", and therefore allows every',
        ),
        (
            TO + "mirror: {host: a}\nmirrorPercentage: {value: 0.00001}",
            "mirrorPercentage.value: is below 0.0001, the least share: nothing is copied",
        ),
        (
            TO + "mirrors: [{destination: {host: a}, percentage: {value: 0.00001}}]",
            "mirrors[0].percentage.value: is below 0.0001",
        ),
        (
            TO + "headers: {request: {set: {a: '%ENVIRONMENT(HOME)%'}}}",
            'headers.request.set.a: "%ENVIRONMENT(HOME)%" has a variable that proxies do not',
        ),
        (
            TO + "headers: {response: {add: {a: '%PROTOCOL% %SUCH%'}}}",
            'headers.response.add.a: "%PROTOCOL% %SUCH%" has a variable that proxies do not fill',
        ),
    ],
)
def test_what_has_no_effect_or_another_one_than_it_seems_is_a_warning(
    route: str, message: str
) -> None:
    assert said("VirtualService", http(route)) == []
    (found,) = said("VirtualService", http(route), "warning")
    assert found.startswith(f"spec.http[0].{message}")


def test_a_source_subnet_is_passed_over_with_a_warning() -> None:
    spec = "hosts: [a]\ntcp: [{match: [{sourceSubnet: 198.18.0.0/16}], " + TO.strip() + "}]"
    assert said("VirtualService", spec, "warning") == [
        "spec.tcp[0].match[0].sourceSubnet: is ignored, as in Istio; "
        "use sourceLabels or sourceNamespace"
    ]


def test_one_destination_needs_no_weight_and_weights_need_not_sum_to_100() -> None:
    assert said("VirtualService", http("route: [{destination: {host: a}, weight: 0}]")) == []
    two = "route: [{destination: {host: a}, weight: 1}, {destination: {host: b}, weight: 2}]"
    assert said("VirtualService", http(two)) == []


EVERY_DESTINATION_FIELD = """
host: reviews
exportTo: [ns]
workloadSelector: {matchLabels: {app: productpage}}
trafficPolicy:
  loadBalancer:
    consistentHash:
      httpCookie: {name: user, path: /, ttl: 0s, attributes: [{name: SameSite, value: Lax}]}
      ringHash: {minimumRingSize: 1024}
    localityLbSetting:
      enabled: true
      failover: [{from: us-east, to: eu-west}, {from: us-west, to: us-east}]
      failoverPriority: [topology.istio.io/network, rack, version=v2]
    warmup: {duration: 30s, minimumPercent: 10, aggression: 1}
  connectionPool:
    tcp:
      maxConnections: 1
      connectTimeout: 30ms
      idleTimeout: 1h
      maxConnectionDuration: 2h
      tcpKeepalive: {probes: 3, time: 7200s, interval: 75s}
    http:
      http1MaxPendingRequests: 1
      http2MaxRequests: 1000
      maxRequestsPerConnection: 1
      maxRetries: 3
      idleTimeout: 10s
      h2UpgradePolicy: UPGRADE
      maxConcurrentStreams: 10
      http2KeepAlive: {interval: 30s, timeout: 5s}
  outlierDetection:
    consecutive5xxErrors: 1
    consecutiveGatewayErrors: 1
    splitExternalLocalOriginErrors: true
    consecutiveLocalOriginFailures: 5
    interval: 1s
    baseEjectionTime: 3m
    maxEjectionPercent: 100
    minHealthPercent: 0
  proxyProtocol: {version: V2}
  retryBudget: {percent: 12.5, minRetryConcurrency: 5}
  tls: {mode: ISTIO_MUTUAL, sni: a.example.com, subjectAltNames: [spiffe://x]}
  portLevelSettings:
  - port: {number: 80}
    loadBalancer: {simple: LEAST_CONN, warmup: {duration: 1s, minimumPercent: 10}}
    tls: {mode: MUTUAL, clientCertificate: /c, privateKey: /k, caCertificates: /a}
subsets:
- {name: v1, labels: {version: v1}}
- name: v2-Beta
  labels: {version: v2}
  trafficPolicy:
    loadBalancer: {simple: RANDOM}
    tunnel: {protocol: POST, targetHost: proxy.example.com, targetPort: 3128}
"""


def test_a_destination_rule_with_every_field_is_valid() -> None:
    assert said("DestinationRule", EVERY_DESTINATION_FIELD) == []
    assert said("DestinationRule", EVERY_DESTINATION_FIELD, "warning") == []


EVERY_LOCALITY = """
host: reviews
trafficPolicy:
  loadBalancer:
    localityLbSetting:
      distribute:
      - from: us-west/zone1/*
        to: {us-west/zone1/*: 80, us-west/zone2/*: 20}
      - from: us-west/zone2
        to: {"*": 100}
"""


def test_a_distribution_over_localities_is_valid() -> None:
    assert said("DestinationRule", EVERY_LOCALITY) == []
    assert said("DestinationRule", EVERY_LOCALITY, "warning") == []


def test_an_order_of_localities_without_outlier_detection_is_a_warning() -> None:
    spec = locality("failover: [{from: us, to: eu}]")
    assert said("DestinationRule", spec, "warning") == [
        "spec.trafficPolicy.loadBalancer.localityLbSetting: has no effect without "
        "outlierDetection beside it: endpoints that fail go unnoticed"
    ]


def locality(text: str) -> str:
    return policy(f"loadBalancer: {{localityLbSetting: {{{text}}}}}")


def policy(text: str) -> str:
    return f"host: a\ntrafficPolicy: {{{text}}}"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("host: ''", "spec.host: an empty host"),
        ("host: a\nsubsets: [{name: v1}, {name: v1}]", 'spec.subsets[1].name: the subset "v1" is'),
        ("host: a\nsubsets: [{name: ''}]", 'spec.subsets[0].name: "" is not a name'),
        ("host: a\nsubsets: [{name: a, labels: {x: 'b c'}}]", "spec.subsets[0].labels.x: "),
        (
            locality("distribute: [{from: a, to: {b: 100}}], failover: [{from: a, to: b}]"),
            "spec.trafficPolicy.loadBalancer.localityLbSetting: has distribute and failover; only",
        ),
        (
            locality("distribute: [{from: a, to: {b: 60, c: 30}}]"),
            "spec.trafficPolicy.loadBalancer.localityLbSetting.distribute[0].to: "
            "the weights come to 90; they must to 100",
        ),
        (
            locality("distribute: [{from: a, to: {b: 0, c: 100}}]"),
            "spec.trafficPolicy.loadBalancer.localityLbSetting.distribute[0].to.b: 0 is not",
        ),
        (
            locality("distribute: [{from: a, to: {a/*: 50, a/b: 50}}]"),
            "spec.trafficPolicy.loadBalancer.localityLbSetting.distribute[0].to: "
            '"a/*" and "a/b" have localities in common',
        ),
        (
            locality("distribute: [{from: a, to: {b: 100}}, {from: a/x, to: {b: 100}}]"),
            "spec.trafficPolicy.loadBalancer.localityLbSetting.distribute: "
            '"a" and "a/x" have localities in common',
        ),
        (
            locality("distribute: [{from: 'a/*/b', to: {b: 100}}]"),
            "spec.trafficPolicy.loadBalancer.localityLbSetting.distribute[0].from: "
            '"a/*/b": a wildcard stands alone, at the end',
        ),
        (
            locality("distribute: [{from: a/b/c/d, to: {b: 100}}]"),
            "spec.trafficPolicy.loadBalancer.localityLbSetting.distribute[0].from: "
            '"a/b/c/d" is not region, region/zone or region/zone/subzone',
        ),
        (
            locality("failover: [{from: us, to: us}]"),
            'spec.trafficPolicy.loadBalancer.localityLbSetting.failover[0]: "us" cannot stand in',
        ),
        (
            locality("failover: [{from: us/a, to: eu}]"),
            "spec.trafficPolicy.loadBalancer.localityLbSetting.failover[0].from: "
            '"us/a" is not a region',
        ),
        (
            locality("failover: [{from: us, to: '*'}]"),
            'spec.trafficPolicy.loadBalancer.localityLbSetting.failover[0].to: "*" is not a region',
        ),
        (
            locality(
                "failover: [{from: us, to: eu}], failoverPriority: [topology.kubernetes.io/zone]"
            ),
            "spec.trafficPolicy.loadBalancer.localityLbSetting.failoverPriority[0]: "
            '"topology.kubernetes.io/zone" and failover both say where to go next',
        ),
        (
            locality("failoverPriority: ['a b']"),
            "spec.trafficPolicy.loadBalancer.localityLbSetting.failoverPriority[0]",
        ),
        (
            policy("tunnel: {targetHost: a, targetPort: 0}"),
            "spec.trafficPolicy.tunnel.targetPort: 0 is not a port",
        ),
        (
            policy("retryBudget: {percent: 101}"),
            "spec.trafficPolicy.retryBudget.percent: 101 is out of range",
        ),
        (
            policy("loadBalancer: {consistentHash: {httpHeaderName: a, useSourceIp: true}}"),
            "spec.trafficPolicy.loadBalancer.consistentHash: has httpHeaderName and",
        ),
        (
            policy("loadBalancer: {simple: RANDOM, consistentHash: {useSourceIp: true}}"),
            "spec.trafficPolicy.loadBalancer: has simple and consistentHash",
        ),
        (
            policy("loadBalancer: {consistentHash: {useSourceIp: true, maglev: {tableSize: 4}}}"),
            "spec.trafficPolicy.loadBalancer.consistentHash.maglev.tableSize: must be a prime",
        ),
        (
            policy("connectionPool: {tcp: {maxConnections: -1}}"),
            "spec.trafficPolicy.connectionPool.tcp.maxConnections: -1 is out of range",
        ),
        (
            policy("connectionPool: {tcp: {connectTimeout: 0s}}"),
            "spec.trafficPolicy.connectionPool.tcp.connectTimeout: must be 1ms or more",
        ),
        (
            policy("connectionPool: {http: {useClientProtocol: true, h2UpgradePolicy: UPGRADE}}"),
            "spec.trafficPolicy.connectionPool.http: has useClientProtocol and",
        ),
        (
            policy("outlierDetection: {maxEjectionPercent: 101}"),
            "spec.trafficPolicy.outlierDetection.maxEjectionPercent: 101 is out of range",
        ),
        (
            policy("outlierDetection: {interval: 0s}"),
            "spec.trafficPolicy.outlierDetection.interval: must be",
        ),
        (
            policy("outlierDetection: {consecutiveLocalOriginFailures: 1}"),
            "spec.trafficPolicy.outlierDetection.consecutiveLocalOriginFailures: has no meaning",
        ),
        (
            policy("tls: {mode: MUTUAL, privateKey: /k}"),
            "spec.trafficPolicy.tls.clientCertificate: MUTUAL needs it, or a credentialName",
        ),
        (
            policy("tls: {mode: ISTIO_MUTUAL, privateKey: /k}"),
            "spec.trafficPolicy.tls.privateKey: ISTIO_MUTUAL uses the mesh's own",
        ),
        (
            policy("tls: {mode: SIMPLE, insecureSkipVerify: true, caCertificates: /a}"),
            "spec.trafficPolicy.tls.insecureSkipVerify: contradicts caCertificates",
        ),
        (
            policy("tls: {mode: SIMPLE, insecureSkipVerify: true, credentialName: c}"),
            "spec.trafficPolicy.tls.insecureSkipVerify: contradicts credentialName; remove one",
        ),
        (
            policy(
                "tls: {mode: MUTUAL, insecureSkipVerify: true, credentialName: c, "
                "subjectAltNames: [a]}"
            ),
            "spec.trafficPolicy.tls.insecureSkipVerify: contradicts subjectAltNames",
        ),
        (
            policy("tls: {mode: SIMPLE, credentialName: c, caCrl: /r}"),
            "spec.trafficPolicy.tls.credentialName: stands in place of files",
        ),
        (
            policy(f"tls: {{mode: SIMPLE, sni: {'x' * 256}}}"),
            "spec.trafficPolicy.tls.sni: is longer than 255 characters",
        ),
        (
            policy("tls: {mode: SIMPLE, caCertificates: etc/ca.pem}"),
            'spec.trafficPolicy.tls.caCertificates: "etc/ca.pem" is not an absolute path',
        ),
        (
            policy("tls: {mode: SIMPLE, caCertificates: /etc/meshd/certs/../../shadow}"),
            "spec.trafficPolicy.tls.caCertificates: ",
        ),
        (
            policy("portLevelSettings: [{port: {}, tls: {mode: DISABLE}}]"),
            "spec.trafficPolicy.portLevelSettings[0].port.number: is required",
        ),
    ],
)
def test_a_destination_rule_that_breaks_a_rule(spec: str, message: str) -> None:
    (found,) = said("DestinationRule", spec)
    assert found.startswith(message)


def test_a_substitution_by_a_group_that_is_none_is_named() -> None:
    written = r"rewrite: {uriRegexRewrite: {match: '^/(a)', rewrite: '/\2'}}"
    assert said("VirtualService", http(TO + written), "warning") == [
        r"spec.http[0].rewrite.uriRegexRewrite.rewrite: names the group \2, and match has 1: "
        "no path is changed"
    ]
    written = r"rewrite: {uriRegexRewrite: {match: '^/(a)', rewrite: '/\1\\2'}}"
    assert said("VirtualService", http(TO + written), "warning") == []


@pytest.mark.parametrize(("written", "unknown"), [(r"/a\q/b", r"\q"), ("/a\\\\\\", "\\")])
def test_an_escape_that_stands_for_nothing_is_named(written: str, unknown: str) -> None:
    rewrite = f"rewrite: {{uriRegexRewrite: {{match: '^/(a)', rewrite: '{written}'}}}}"
    (warning,) = said("VirtualService", http(TO + rewrite), "warning")
    assert warning.startswith(
        f'spec.http[0].rewrite.uriRegexRewrite.rewrite: "{unknown}" stands for nothing'
    )


def test_endpoints_are_looked_at_ten_times_a_second_at_most() -> None:
    assert said("DestinationRule", policy("outlierDetection: {interval: 1ms}"), "warning") == [
        "spec.trafficPolicy.outlierDetection.interval: is taken for 100ms"
    ]


@pytest.mark.parametrize(
    ("written", "field", "size"),
    [
        ("ringHash: {minimumRingSize: 8388608}", "ringHash.minimumRingSize", 8192),
        ("maglev: {tableSize: 4999999}", "maglev.tableSize", 65537),
    ],
)
def test_a_table_that_would_fill_the_proxies_is_made_smaller(
    written: str, field: str, size: int
) -> None:
    spec = policy(f"loadBalancer: {{consistentHash: {{useSourceIp: true, {written}}}}}")
    assert said("DestinationRule", spec) == []
    (found,) = said("DestinationRule", spec, "warning")
    assert found.startswith(
        f"spec.trafficPolicy.loadBalancer.consistentHash.{field}: is taken for {size}"
    )


def test_a_client_may_show_the_certificate_of_a_secret_and_verify_nothing() -> None:
    spec = policy("tls: {mode: MUTUAL, insecureSkipVerify: true, credentialName: c}")
    assert said("DestinationRule", spec) == []
    spec = policy("tls: {mode: SIMPLE, insecureSkipVerify: true, caCrl: /r}")
    assert said("DestinationRule", spec, "warning") == [
        "spec.trafficPolicy.tls.caCrl: has no effect with insecureSkipVerify"
    ]


def test_simple_tls_without_an_anchor_is_a_warning() -> None:
    assert said("DestinationRule", policy("tls: {mode: SIMPLE}"), "warning") == [
        "spec.trafficPolicy.tls: without caCertificates the system's certificates are trusted"
    ]


GATEWAY = """
selector: {istio: ingressgateway}
servers:
- port: {number: 80, name: http, protocol: HTTP}
  hosts: ["*", ./a.example.com]
  tls: {httpsRedirect: true}
- port: {number: 443, name: https, protocol: HTTPS}
  hosts: [ns/*.example.com]
  tls: {mode: SIMPLE, credentialName: cert, minProtocolVersion: TLSV1_2,
        cipherSuites: [ECDHE-ECDSA-AES128-GCM-SHA256]}
- port: {number: 444, name: mutual, protocol: https}
  hosts: [b.example.com]
  tls: {mode: MUTUAL, serverCertificate: /c, privateKey: /k, caCertificates: /a, caCrl: /r}
- port: {number: 446, name: optional, protocol: https}
  hosts: [e.example.com]
  tls:
    mode: OPTIONAL_MUTUAL
    credentialNames: [rsa, ecdsa]
    caCertCredentialName: clients
    subjectAltNames: [spiffe://example.com/x, a.example.com]
    verifyCertificateSpki: [47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=]
    verifyCertificateHash:
    - e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
- port: {number: 447, name: two, protocol: https}
  hosts: [f.example.com]
  tls:
    mode: SIMPLE
    tlsCertificates:
    - {serverCertificate: /c, privateKey: /k}
    - {serverCertificate: /d, privateKey: /l, caCertificates: /a}
- port: {number: 445, name: sni, protocol: TLS}
  hosts: [c.example.com]
  tls: {mode: PASSTHROUGH}
- port: {number: 27017, name: mongo, protocol: MONGO}
  hosts: ["*"]
"""


def test_a_gateway_with_every_kind_of_server_is_valid() -> None:
    assert said("Gateway", GATEWAY) == []
    assert said("Gateway", GATEWAY, "warning") == []


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("bind: 198.18.0.1", "bind: is ignored: all addresses of the workload are served"),
        ("defaultEndpoint: 127.0.0.1:80", "defaultEndpoint: is ignored, as in Istio"),
        (
            "tls: {mode: SIMPLE, credentialName: c, cipherSuites: [AES129-SHA]}",
            'tls.cipherSuites[0]: "AES129-SHA" is unknown (did you mean AES128-SHA?); '
            "it is ignored",
        ),
        (
            "tls: {mode: SIMPLE, credentialName: c, verifyCertificateHash: [ABCD]}",
            "tls.verifyCertificateHash: has no effect with SIMPLE, which asks clients for no",
        ),
    ],
)
def test_what_a_gateway_passes_over_is_a_warning(spec: str, message: str) -> None:
    if "tls" not in spec:
        spec += "\n  tls: {mode: SIMPLE, credentialName: c}"
    (found,) = said("Gateway", server(HTTPS, spec), "warning")
    assert found.startswith(f"spec.servers[0].{message}")


def server(
    port: str = "number: 80, name: http, protocol: HTTP", rest: str = "", hosts: str = '["*"]'
) -> str:
    return f"selector: {{a: b}}\nservers:\n- port: {{{port}}}\n  hosts: {hosts}\n  {rest}"


HTTPS = "number: 443, name: https, protocol: HTTPS"


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("VirtualService", EVERY_FIELD),
        ("DestinationRule", EVERY_DESTINATION_FIELD),
        ("Gateway", GATEWAY),
    ],
)
def test_every_field_survives_being_written_and_read_back(kind: str, spec: str) -> None:
    (read,) = read_objects(manifest(kind, spec), "f.yaml")
    written = to_json(read.object)
    assert from_json(written) == read.object
    (again,) = read_objects(json.dumps(written), "f.json")
    assert again.object == read.object


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("selector: {a: b}\nservers: []", "spec.servers: needs at least one server"),
        (server(hosts="[]"), "spec.servers[0].hosts: needs at least one host"),
        (server(hosts="[x_/a.b]"), "spec.servers[0].hosts[0]: "),
        (server(hosts="[a.*]"), "spec.servers[0].hosts[0]: "),
        (server("number: 0, name: a, protocol: HTTP"), "spec.servers[0].port.number: 0 is not"),
        (server("number: 1, name: '', protocol: HTTP"), "spec.servers[0].port.name: is required"),
        (
            server("number: 1, name: a, protocol: HTPP"),
            'spec.servers[0].port.protocol: "HTPP" is unknown (did you mean HTTP?)',
        ),
        (server(HTTPS), "spec.servers[0].tls: HTTPS needs it"),
        (
            server(HTTPS, "tls: {mode: SIMPLE}"),
            "spec.servers[0].tls.credentialName: SIMPLE needs the name of a Secret "
            "(or serverCertificate, privateKey)",
        ),
        (
            server(HTTPS, "tls: {mode: MUTUAL, serverCertificate: /c, privateKey: /k}"),
            "spec.servers[0].tls.caCertificates: MUTUAL needs it, or a caCertCredentialName",
        ),
        (
            server(HTTPS, "tls: {mode: ISTIO_MUTUAL, credentialName: c}"),
            "spec.servers[0].tls.credentialName: has no meaning with ISTIO_MUTUAL",
        ),
        (
            server(HTTPS, "tls: {mode: AUTO_PASSTHROUGH}"),
            "spec.servers[0].tls.mode: AUTO_PASSTHROUGH is not supported; use PASSTHROUGH",
        ),
        (
            server(HTTPS, "tls: {mode: SIMPLE, credentialName: c, credentialNames: [d]}"),
            "spec.servers[0].tls: has credentialName and credentialNames; only one of them",
        ),
        (
            server(HTTPS, "tls: {mode: SIMPLE, credentialNames: [a, b, c]}"),
            "spec.servers[0].tls.credentialNames: has 3 entries; at most two are possible",
        ),
        (
            server(HTTPS, "tls: {mode: SIMPLE, credentialName: a/b}"),
            "spec.servers[0].tls.credentialName: ",
        ),
        (
            server(HTTPS, "tls: {mode: SIMPLE, tlsCertificates: [{serverCertificate: /c}]}"),
            "spec.servers[0].tls.tlsCertificates[0].privateKey: is required, unless a Secret",
        ),
        (
            server(HTTPS, "tls: {mode: SIMPLE, serverCertificate: a.crt, privateKey: /a.key}"),
            'spec.servers[0].tls.serverCertificate: "a.crt" is not an absolute path',
        ),
        (
            server(
                HTTPS,
                "tls: {mode: SIMPLE, tlsCertificates: "
                "[{serverCertificate: /a.crt, privateKey: /../a.key}]}",
            ),
            "spec.servers[0].tls.tlsCertificates[0].privateKey: ",
        ),
        (
            server(HTTPS, "tls: {mode: MUTUAL, credentialName: c, caCrl: /r}"),
            "spec.servers[0].tls.caCrl: is a file; a Secret brings its own list",
        ),
        (
            server(HTTPS, "tls: {mode: MUTUAL, credentialName: c, verifyCertificateHash: [abc]}"),
            'spec.servers[0].tls.verifyCertificateHash[0]: "abc" is not a SHA-256 in hexadecimal',
        ),
        (
            server(HTTPS, "tls: {mode: MUTUAL, credentialName: c, verifyCertificateSpki: [YWJj]}"),
            'spec.servers[0].tls.verifyCertificateSpki[0]: "YWJj" is not a SHA-256 in base64',
        ),
        (
            server(rest="tls: {mode: SIMPLE, credentialName: c}"),
            "spec.servers[0].tls: HTTP has no TLS; of this only httpsRedirect is possible",
        ),
        (
            server(
                HTTPS,
                "tls: {mode: SIMPLE, credentialName: c, minProtocolVersion: TLSV1_3, "
                "maxProtocolVersion: TLSV1_2}",
            ),
            "spec.servers[0].tls.minProtocolVersion: TLSV1_3 is above the maximum, TLSV1_2",
        ),
        (
            server() + "\n- {port: {number: 81, name: http, protocol: HTTP}, hosts: [a.b]}",
            'spec.servers[1].port.name: "http" is the port name of servers[0] already',
        ),
        (
            server() + "\n- {port: {number: 80, name: tcp, protocol: TCP}, hosts: [a.b]}",
            "spec.servers[1].port.protocol: port 80 cannot speak TCP and HTTP",
        ),
    ],
)
def test_a_gateway_that_breaks_a_rule(spec: str, message: str) -> None:
    (found,) = said("Gateway", spec)
    assert found.startswith(message)


ENTRY = """
hosts: [db.example.com]
addresses: [198.19.1.0/24, fd00:198::1]
ports:
- {number: 3306, name: mysql, protocol: MySQL, targetPort: 3307}
- {number: 80, name: http, protocol: HTTP}
location: MESH_INTERNAL
resolution: STATIC
endpoints:
- {address: 198.18.1.1, ports: {mysql: 3308}, labels: {app: db}, weight: 2, locality: a/b,
   network: n, serviceAccount: db}
exportTo: ["."]
subjectAltNames: [spiffe://cluster.local/ns/ns/sa/db]
"""


@pytest.mark.parametrize(
    "spec",
    [
        ENTRY,
        "hosts: [a.example.com]\nports: [{number: 443, name: tls, protocol: TLS}]\nresolution: DNS",
        "hosts: ['*.example.com']\nports: [{number: 80, name: http, protocol: HTTP}]",
        "hosts: [a.b]\nports: [{number: 1, name: http}]\nresolution: DNS\n"
        "endpoints: [{address: c.d}]",
        "hosts: [a.b]\nports: [{number: 1, name: http}]\nresolution: STATIC\n"
        "workloadSelector: {labels: {app: x}}",
    ],
)
def test_service_entries_of_all_sorts_are_valid(spec: str) -> None:
    assert said("ServiceEntry", spec) == []


def entry(rest: str = "resolution: DNS", hosts: str = "[a.b]", ports: str = "") -> str:
    ports = ports or "{number: 80, name: http, protocol: HTTP}"
    return f"hosts: {hosts}\nports: [{ports}]\n{rest}"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (entry(hosts="[]"), "spec.hosts: needs at least one host"),
        (entry("resolution: NONE", hosts="['*']"), 'spec.hosts: the host "*" is too wide'),
        (entry(hosts="['*.a']"), 'spec.hosts[0]: "*.a" cannot be resolved'),
        (entry(ports="{number: 0, name: a}"), "spec.ports[0].number: 0 is not a port"),
        (
            entry(ports="{number: 1, name: a, protocol: HTPT}"),
            'spec.ports[0].protocol: "HTPT" is unknown (did you mean HTTP?)',
        ),
        (
            entry(ports="{number: 1, name: a}, {number: 1, name: b}"),
            "spec.ports[1].number: the port 1 is written twice",
        ),
        (
            entry(ports="{number: 1, name: a}, {number: 2, name: a}"),
            'spec.ports[1].name: the name "a" is written twice',
        ),
        (entry("resolution: DNS\naddresses: [x]"), 'spec.addresses[0]: "x" is not an IP address'),
        (
            entry("resolution: DNS\naddresses: [198.18.0.0/24]"),
            "spec.addresses[0]: a CIDR is not possible with resolution: DNS",
        ),
        (
            entry("resolution: NONE\nendpoints: [{address: 198.18.0.1}]"),
            "spec.endpoints: resolution: NONE takes the client's address",
        ),
        (
            entry("resolution: STATIC\nendpoints: [{address: a.b}]"),
            'spec.endpoints[0].address: "a.b" is not an IP address; names need resolution: DNS',
        ),
        (
            entry("resolution: STATIC\nendpoints: [{address: 198.18.0.1, ports: {htp: 1}}]"),
            'spec.endpoints[0].ports.htp: "htp" is not a name in spec.ports (did you mean http?)',
        ),
        (
            entry(
                "resolution: DNS\nendpoints: [{address: a.b}]\nworkloadSelector: {labels: {a: b}}"
            ),
            "spec.workloadSelector: stands in place of endpoints",
        ),
        (
            entry("resolution: DYNAMIC_DNS"),
            'spec.hosts[0]: "a.b" is not a wildcard; DYNAMIC_DNS is for *.a.b, DNS for one name',
        ),
        (
            entry(
                "resolution: DYNAMIC_DNS",
                hosts="['*.a.test']",
                ports="{number: 5, name: tcp, protocol: TCP}",
            ),
            "spec.ports[0].protocol: DYNAMIC_DNS needs a protocol that names the host",
        ),
        (
            entry("resolution: DYNAMIC_DNS\nlocation: MESH_INTERNAL", hosts="['*.a.test']"),
            "spec.location: DYNAMIC_DNS is for MESH_EXTERNAL only",
        ),
        (
            entry("resolution: DNS_ROUND_ROBIN\nendpoints: [{address: a.b}, {address: a.c}]"),
            "spec.endpoints: resolution: DNS_ROUND_ROBIN has at most one",
        ),
        (
            entry("resolution: DNS\nendpoints: [{address: unix:///x}]"),
            "spec.endpoints[0].address: unix sockets are not supported",
        ),
    ],
)
def test_a_service_entry_that_breaks_a_rule(spec: str, message: str) -> None:
    (found,) = said("ServiceEntry", spec)
    assert found.startswith(message)


def test_raw_tcp_without_addresses_is_a_warning() -> None:
    spec = entry("resolution: NONE", ports="{number: 1, name: a, protocol: TCP}")
    (found,) = said("ServiceEntry", spec, "warning")
    assert found.startswith('spec.addresses: port "a" is TCP')


@pytest.mark.parametrize(
    ("kind", "spec", "message"),
    [
        ("WorkloadEntry", "labels: {a: b}", "spec.address: is required"),
        ("WorkloadEntry", "address: 'a b'", 'spec.address: "a b" is not an IP address'),
        ("WorkloadEntry", "{address: a.b, ports: {x: 0}}", "spec.ports.x: 0 is not a port"),
        ("WorkloadEntry", "{address: a.b, weight: -1}", "spec.weight: -1 is out of range"),
        (
            "PeerAuthentication",
            "portLevelMtls: {80: {mode: STRICT}}",
            "spec.portLevelMtls: is for chosen workloads: it needs selector.matchLabels",
        ),
        (
            "PeerAuthentication",
            "{selector: {matchLabels: {a: b}}, portLevelMtls: {0: {mode: STRICT}}}",
            "spec.portLevelMtls.0: 0 is not a port",
        ),
        ("Service", "selector: {a: b}", "spec.ports: needs at least one port"),
        ("Service", "ports: [{port: 0}]", "spec.ports[0].port: 0 is not a port"),
        ("Service", "ports: [{port: 1, targetPort: 65536}]", "spec.ports[0].targetPort: 65536"),
        ("Service", "ports: [{port: 1, targetPort: '65536'}]", "spec.ports[0].targetPort: 65536"),
        ("Service", "ports: [{port: 1, targetPort: '0'}]", "spec.ports[0].targetPort: 0 is not"),
        (
            "Service",
            "ports: [{port: 1, targetPort: '99999999999'}]",
            "spec.ports[0].targetPort: 99999999999 is not a port",
        ),
        ("Service", "ports: [{port: 1, targetPort: A}]", 'spec.ports[0].targetPort: "A" is not'),
        (
            "Service",
            "ports: [{port: 1}, {port: 2, name: a}]",
            "spec.ports[0].name: is required where a service has several ports",
        ),
        (
            "Service",
            "ports: [{port: 1, name: a}, {port: 2, name: a}]",
            "spec.ports[1].name: a is written twice",
        ),
        (
            "Service",
            "ports: [{port: 1, name: a}, {port: 1, name: b}]",
            "spec.ports[1].port: 1 is written twice",
        ),
        ("Service", "type: ExternalName", "spec.externalName: type: ExternalName needs it"),
        ("Service", "{clusterIP: x, ports: [{port: 1}]}", 'spec.clusterIP: "x" is not an IP'),
        ("Service", "{clusterIP: 127.0.0.1, ports: [{port: 1}]}", "spec.clusterIP: 127.0.0.1 can"),
        ("Service", "{clusterIP: '::', ports: [{port: 1}]}", "spec.clusterIP: :: cannot be"),
        ("Service", "ports: [{port: 1, targetPort: 0}]", "spec.ports[0].targetPort: 0 is not"),
        ("Pod", "containers: []", "spec.containers: needs at least one container"),
        (
            "Pod",
            "containers: [{name: a, image: b}, {name: a, image: b}]",
            'spec.containers[1].name: "a" is written twice',
        ),
        (
            "Pod",
            "containers: [{name: a, image: b, readinessProbe: {tcpSocket: {port: x}}}]",
            'spec.containers[0].readinessProbe.tcpSocket.port: "x" is not a port of this container',
        ),
        (
            "Deployment",
            "selector: {matchLabels: {a: b}}\n"
            "template: {metadata: {labels: {a: c}}, spec: {containers: [{name: a, image: b}]}}",
            'spec.selector.matchLabels.a: "b" is not what spec.template.metadata.labels says (c)',
        ),
        (
            "Deployment",
            "replicas: -1\ntemplate: {spec: {containers: [{name: a, image: b}]}}",
            "spec.replicas: -1 is out of range",
        ),
    ],
)
def test_other_kinds_that_break_a_rule(kind: str, spec: str, message: str) -> None:
    (found,) = said(kind, spec)
    assert found.startswith(message)


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("data: {tls.crt: YQ==, tls.key: YQ==}", ["data.tls.crt: its certificate is not in PEM"]),
        (
            "stringData: {tls.crt: s3cr3t}\ndata: {tls.key: YQ==}",
            ["stringData.tls.crt: its certificate is not in PEM"],
        ),
        ("data: {tls.crt: YQ==}", ["data.tls.key: type: kubernetes.io/tls needs it"]),
        ("data: {tls.crt: YQ==, tls.key: s3cr3t!}", ["data.tls.key: is not base64"]),
    ],
)
def test_a_tls_secret_has_both_parts_and_they_are_never_shown(
    text: str, messages: list[str]
) -> None:
    head = "apiVersion: v1\nkind: Secret\ntype: kubernetes.io/tls\nmetadata: {name: x}\n"
    found = check_fields(read_objects(head + text, "f.yaml"))
    assert len(found) == len(messages)
    for finding, message in zip(found, messages, strict=True):
        assert f"{finding.field}: {finding.message}".startswith(message)
        assert "s3cr3t" not in str(finding)


def test_a_finding_names_file_line_object_and_field() -> None:
    text = manifest("VirtualService", http("name: x"))
    (found,) = check_fields(read_objects(text, "reviews.yaml"))
    assert str(found) == (
        "reviews.yaml:7: VirtualService ns/x: spec.http[0]: "
        "does nothing: it needs one of route, redirect, directResponse, delegate"
    )


def test_objects_for_testbeds_are_skipped_with_a_warning() -> None:
    reads = read_objects(
        manifest("Pod", "containers: [{name: a, image: b}]")
        + "---\n"
        + manifest("Service", "ports: [{port: 1}]"),
        "f.yaml",
    )
    stored, findings = stored_kinds(reads)
    assert [read.object.KIND for read in stored] == ["Service"]
    assert [finding.severity for finding in findings] == ["warning"]


# ---- references


def references(*documents: str) -> list[str]:
    """Of the first document, where the others are in force."""
    (first, *others) = (read_objects(text, "f.yaml")[0] for text in documents)
    known = {read.object.key: read.object for read in others}
    found = check_references([first], known)
    assert all(finding.severity == "warning" for finding in found)
    return [f"{finding.field}: {finding.message}" for finding in found]


SERVICE = manifest("Service", "ports: [{port: 80}]").replace("name: x", "name: reviews")


@pytest.mark.parametrize("host", ["reviews", "reviews.ns", "reviews.ns.svc", "Reviews"])
def test_a_host_is_known_by_each_name_that_is_compiled(host: str) -> None:
    route = manifest("VirtualService", http(f"route: [{{destination: {{host: {host}}}}}]"))
    assert references(route, SERVICE) == []
    rule = manifest("DestinationRule", f"host: {host}\nsubsets: [{{name: v1}}]")
    chosen = f"route: [{{destination: {{host: {host}, subset: v1}}}}]"
    assert references(manifest("VirtualService", http(chosen)), SERVICE, rule) == []


def test_a_subset_in_no_destination_rule_is_a_warning_with_those_known() -> None:
    route = manifest("VirtualService", http("route: [{destination: {host: reviews, subset: v9}}]"))
    rule = manifest(
        "DestinationRule",
        "host: reviews.ns.svc.cluster.local\nsubsets: [{name: v1}, {name: v3}, {name: v2}]",
    )
    assert references(route, SERVICE, rule) == [
        'spec.http[0].route[0].destination.subset: "v9" is in no DestinationRule '
        "for host reviews (known: v1, v2, v3)"
    ]
    assert references(route.replace("v9", "v2"), SERVICE, rule) == []
    assert references(route, SERVICE) == [
        'spec.http[0].route[0].destination.subset: "v9" is in no DestinationRule for host reviews'
    ]


def test_a_destination_that_is_no_service_is_a_warning() -> None:
    route = manifest("VirtualService", http("route: [{destination: {host: reviws}}]"))
    assert references(route, SERVICE) == [
        'spec.http[0].route[0].destination.host: "reviws" is not a Service or ServiceEntry '
        "(reviws.ns.svc.cluster.local)"
    ]


def test_a_wildcard_entry_covers_its_hosts() -> None:
    route = manifest("VirtualService", http("route: [{destination: {host: a.example.com}}]"))
    wild = manifest("ServiceEntry", entry("resolution: NONE", hosts="['*.example.com']"))
    assert references(route, wild) == []


def test_gateways_and_secrets_that_are_not_there_are_warnings() -> None:
    route = manifest("VirtualService", "hosts: [a]\ngateways: [edge]\nhttp:\n- " + TO)
    gateway = manifest("Gateway", server(HTTPS, "tls: {mode: SIMPLE, credentialName: cert}"))
    assert "spec.gateways[0]: Gateway ns/edge not found" in references(route, SERVICE)
    assert references(gateway) == [
        'spec.servers[0].tls.credentialName: there is no Secret "cert" in any namespace; it is '
        "looked for in the one of the gateway's workload, and no TLS connection succeeds there "
        "until there is one"
    ]


def test_two_virtual_services_for_a_host_of_the_mesh_are_a_warning() -> None:
    route = manifest("VirtualService", http(TO))
    other = route.replace("name: x", "name: y")
    (found,) = references(route, other, SERVICE)
    assert found.startswith('spec.hosts[0]: "reviews" is also in VirtualService ns/y')


def test_a_delegate_that_cannot_take_effect_is_a_warning() -> None:
    root = manifest(
        "VirtualService", http("match: [{uri: {prefix: /a}}]\ndelegate: {name: d, namespace: shop}")
    )
    delegate = (
        manifest("VirtualService", "http:\n- match: [{uri: {prefix: /b}}]\n  " + TO)
        .replace("name: x", "name: d")
        .replace("namespace: ns", "namespace: shop")
    )
    assert references(root, SERVICE) == [
        "spec.http[0].delegate: VirtualService shop/d not found; requests skip this route"
    ]
    assert references(root, delegate) == [
        "spec.http[0].match: VirtualService shop/d: http[0] has no effect: "
        "its match is not a subset of this"
    ]
    assert references(root, delegate.replace("/b", "/a/b")) == []
    hidden = delegate.replace("spec:\n", "spec:\n  exportTo: [.]\n")
    assert references(root, hidden) == [
        "spec.http[0].delegate: VirtualService shop/d is not exported to ns; "
        "requests skip this route"
    ]
    whole = delegate.replace("spec:\n", "spec:\n  hosts: [a]\n")
    assert references(root, whole) == [
        "spec.http[0].delegate: VirtualService shop/d has hosts, so it is not a delegate; "
        "requests skip this route"
    ]


# ---- the leaves


@pytest.mark.parametrize(
    "pattern",
    [".*", "^/a/[^/]+$", "(?i)GET", "a(?i:b)c", "x(?i)y", r"\d{3}", r"[[:alpha:]]+", r"\pL",
     r"(?P<n>a)", r"(?<n>a)", r"a\.b\z", r"\Aa", "a{1,1000}", r"[(?=]", "a+?", r"\\1"],
)  # fmt: skip
def test_regular_expressions_of_re2_are_taken(pattern: str) -> None:
    assert regex_problem(pattern) == ""


@pytest.mark.parametrize(
    "pattern",
    ["", "(", "[", "*", "(?=a)", "(?!a)", "(?<=a)", "(?<!a)", r"(a)\1", "(?P=n)", "(?>a)", "a++",
     "(?(1)a|b)", "(?#c)", "a{1001}", "(?P<n", "x{2,1}"],
)  # fmt: skip
def test_syntax_that_re2_lacks_is_refused(pattern: str) -> None:
    assert regex_problem(pattern)


@pytest.mark.parametrize("pattern", ["[^x]{1000}[^x]{1000}[^x]{1000}", r"(\pN?){900}"])
def test_large_regular_expressions_are_compiled_up_to_a_bound_of_all(
    pattern: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[str] = []
    really = re2.compile

    def count(pattern: str, options: object) -> object:
        compiled.append(pattern)
        return really(pattern, options)

    monkeypatch.setattr(re2, "compile", count)
    matches = "".join(f"- uri: {{regex: '{pattern}{n}'}}\n" for n in range(400))
    found = said("VirtualService", http(f"{TO}match:\n{matches}"))
    assert len(compiled) < 20
    assert any("at most 262144 are taken" in one for one in found)


@given(st.text(max_size=40))
def test_any_text_is_a_pattern_or_not(text: str) -> None:
    assert isinstance(regex_problem(text), str)
    assert isinstance(host_problem(text, wildcard=True), str)


@pytest.mark.parametrize("host", ["a", "a.b.c", "*.a", "*", "*a", "*-a.b", "A.b", "a.b."])
def test_hosts_are_taken(host: str) -> None:
    assert host_problem(host, wildcard=True) == ""


@pytest.mark.parametrize(
    "host",
    [
        "",
        "a..b",
        "-a",
        "a*",
        "*_a",
        "a_b",
        "1.2",
        "a.*",
        "*.*.a",
        "a b",
        "a/b",
        "x" * 64,
        "a:80",
        "http://a",
    ],
)
def test_invalid_hosts_are_refused(host: str) -> None:
    assert host_problem(host, wildcard=True)
