"""What can have no effect is said when it is applied."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from meshd.analysis.validate import check_references
from meshd.api.gateway.types import GatewaySelection
from meshd.api.read import read_objects
from meshd.model.workload import HostService, Workload

SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {ports: [{name: http, port: 80}, {name: tcp, port: 9000}, {name: https, port: 443}]}
---
"""
OUTSIDE = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: outside, namespace: shop}
spec:
  hosts: [www.wiki.test]
  ports: [{number: 443, name: tls, protocol: TLS}]
  resolution: DNS
---
"""
GATEWAY = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: istio-system}
spec:
  selector: {istio: edge}
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: ["*.shop.test", "other/*"]}
  - {port: {number: 443, name: tls, protocol: TLS}, hosts: ["*"], tls: {mode: PASSTHROUGH}}
  - {port: {number: 444, name: own, protocol: TLS}, hosts: ["*"], tls: {mode: ISTIO_MUTUAL}}
---
"""
HTTP = "http: [{MATCH route: [{destination: {host: web}}]}]"
TCP = "tcp: [{MATCH route: [{destination: {host: web, port: {number: 9000}}}]}]"
TO_TLS = "tls: [{match: [{sniHosts: ['SNI'] MORE}], TO}]".replace(
    "TO", "route: [{destination: {host: web, port: {number: 443}}}]"
)
TLS = "tls: [{match: [{sniHosts: ['SNI'] MORE}], TO}]".replace(
    "TO", "route: [{destination: {host: web, port: {number: 443}}}]"
)


def said(
    text: str,
    *known: str,
    running: Sequence[Workload] | None = None,
    selection: GatewaySelection = "any-namespace",
) -> list[str]:
    """Of the first object, where others are in force."""
    first, *more = read_objects(text, "f.yaml")
    others = {
        read.object.key: read.object
        for one in ("".join(known),)
        for read in (*more, *read_objects(one, "f.yaml"))
    }
    found = check_references([first], others, workloads=running, gateway_selection=selection)
    assert all(finding.severity == "warning" for finding in found)
    return [f"{finding.field}: {finding.message}" for finding in found]


def routing(hosts: str, rules: str, gateways: str = "mesh", namespace: str = "shop") -> str:
    return f"""
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: x, namespace: {namespace}}}
spec:
  hosts: [{hosts}]
  gateways: [{gateways}]
  {rules}
---
"""


def tls(sni: str, more: str = "") -> str:
    return TLS.replace("SNI", sni).replace(" MORE", more)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            routing("'*.wikipedia.org'", tls("*.wikipedia.org", ", port: 443")),
            "spec.tls[0].match[0]: has no effect: no Service or ServiceEntry has *.wikipedia.org",
        ),
        (
            routing("a.test", TCP.replace("MATCH", "")),
            "spec.tcp[0]: has no effect: no Service or ServiceEntry has a.test",
        ),
        (
            routing("www.wiki.test", tls("www.wiki.test", ", port: 8443")),
            "spec.tls[0].match[0]: has no effect: 8443 is not a port of www.wiki.test",
        ),
        (
            routing("web", TCP.replace("MATCH", "match: [{port: 80}],")),
            "spec.tcp[0].match[0]: has no effect: 80 is not a port of web in the mesh for tcp "
            "(known: 443, 9000)",
        ),
        (
            routing("www.wiki.test", HTTP.replace("MATCH", "")),
            "spec.http[0]: has no effect: no port of www.wiki.test in the mesh is one for http",
        ),
        (
            routing("a.test", HTTP.replace("MATCH", "match: [{port: 81}],")),
            "spec.http[0].match[0]: has no effect: a.test is not a service, so only port 80 "
            "is routed",
        ),
        (
            routing("web.test", HTTP.replace("MATCH", ""), "istio-system/edge"),
            "spec.http[0]: has no effect: no server of Gateway istio-system/edge for web.test",
        ),
        (
            routing(
                "a.shop.test", HTTP.replace("MATCH", "match: [{port: 81}],"), "istio-system/edge"
            ),
            "spec.http[0].match[0]: has no effect: 81 is not a port of Gateway "
            "istio-system/edge for "
            "http (known: 80)",
        ),
        (
            routing("a.test", tls("a.test", ", port: 444"), "istio-system/edge"),
            "spec.tls[0].match[0]: has no effect: 444 is not a port of Gateway "
            "istio-system/edge for "
            "tls (known: 443)",
        ),
    ],
)
def test_a_rule_that_nothing_reaches_is_named_with_the_reason(text: str, wanted: str) -> None:
    found = said(text, SERVICE, OUTSIDE, GATEWAY)
    assert any(one.startswith(wanted) for one in found), found


@pytest.mark.parametrize(
    "text",
    [
        routing("'*.wiki.test'", tls("*.wiki.test", ", port: 443")),
        routing("web", HTTP.replace("MATCH", "")),
        routing("web", TCP.replace("MATCH", "match: [{port: 9000}],")),
        routing("a.test", HTTP.replace("MATCH", "")),
        routing("a.test", HTTP.replace("MATCH", "match: [{port: 80}],")),
        routing("a.shop.test", HTTP.replace("MATCH", ""), "istio-system/edge"),
        routing("a.test", HTTP.replace("MATCH", ""), "istio-system/edge", "other"),
        routing("a.test", tls("a.test"), "istio-system/edge"),
        routing("a.test", TCP.replace("MATCH", "match: [{port: 444}],"), "istio-system/edge"),
        # Somebody reaches it, if not everybody.
        routing("a.test", TCP.replace("MATCH", ""), "mesh, istio-system/edge"),
    ],
)
def test_a_route_that_a_request_may_reach_has_an_effect(text: str) -> None:
    found = said(text, SERVICE, OUTSIDE, GATEWAY)
    assert not [one for one in found if "no effect" in one]


def test_a_gateway_that_may_come_yet_is_waited_for() -> None:
    found = said(routing("a.test", tls("a.test"), "later"), SERVICE)
    assert found == ["spec.gateways[0]: Gateway shop/later not found"]


@pytest.mark.parametrize("name", ["./edge", "shop/edge", "edge", "edge.shop.svc.cluster.local"])
def test_a_gateway_is_found_by_each_way_to_name_it(name: str) -> None:
    own = GATEWAY.replace("namespace: istio-system", "namespace: shop")
    assert said(routing("a.test", tls("a.test"), name), SERVICE, own) == []


def test_a_delegate_that_nobody_names_is_named() -> None:
    delegate = routing("web", HTTP.replace("MATCH", "")).replace("hosts: [web]", "exportTo: ['*']")
    delegate = delegate.replace("  gateways: [mesh]\n", "")
    assert said(delegate, SERVICE) == ["spec: has no hosts, and no VirtualService delegates to it"]
    root = routing("web", "http: [{match: [{uri: {prefix: /}}], delegate: {name: x}}]")
    assert (
        said(
            delegate,
            SERVICE,
            root.replace("name: x, name", "name: y, name").replace(
                "{name: x, namespace: shop}", "{name: y, namespace: shop}"
            ),
        )
        == []
    )


RULE = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: x, namespace: shop}
spec:
  host: HOST
  trafficPolicy: {portLevelSettings: [{port: {number: PORT}, tls: {mode: DISABLE}}]}
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}, trafficPolicy:
    {tls: {mode: DISABLE}}}]
---
"""


def test_a_port_that_proxies_need_is_named() -> None:
    assert said(GATEWAY.replace("number: 444", "number: 15006")) == [
        "spec.servers[2].port.number: has no effect: proxies need 15006 for themselves"
    ]


def test_a_port_that_proxies_need_on_hosts_is_named_where_a_host_is_a_gateway() -> None:
    gateway = GATEWAY.replace("number: 444", "number: 15443")
    labels = {"istio": "edge"}
    edge = Workload(uid="e", name="e", namespace="istio-system", netns="/run/e", labels=labels)
    host = msgspec.structs.replace(edge, host=HostService(cgroup="edge.slice"))
    assert said(gateway, running=[edge]) == []
    assert said(gateway, running=[host]) == [
        "spec.servers[2].port.number: has no effect at istio-system/e: proxies need 15101 to 15900"
        " for services of hosts"
    ]


def test_a_rule_for_a_host_that_is_nothing_is_named() -> None:
    assert said(RULE.replace("HOST", "wen").replace("PORT", "80"), SERVICE) == [
        'spec.host: has no effect: "wen" is not a Service or ServiceEntry '
        "(wen.shop.svc.cluster.local)"
    ]


def test_settings_of_a_port_that_is_none_and_of_a_subset_without_use_are_named() -> None:
    assert said(RULE.replace("HOST", "web").replace("PORT", "81"), SERVICE) == [
        "spec.subsets[1].trafficPolicy: has no effect: no VirtualService sends anything to subset "
        '"v2"',
        "spec.trafficPolicy.portLevelSettings[0].port.number: has no effect: 81 is not a port of "
        "web.shop.svc.cluster.local (known: 80, 443, 9000)",
    ]
    used = routing("web", "http: [{route: [{destination: {host: web, subset: v2}}]}]")
    assert (
        said(
            RULE.replace("HOST", "'*.shop.svc.cluster.local'").replace("PORT", "80"), SERVICE, used
        )
        == []
    )


def test_a_subset_that_only_some_clients_know_is_named() -> None:
    rule = RULE.replace("HOST", "web.shop.svc.cluster.local").replace("PORT", "80")
    route = routing("web", "http: [{route: [{destination: {host: web, subset: v2}}]}]")
    elsewhere = rule.replace("namespace: shop", "namespace: default")
    (found,) = said(route, SERVICE, elsewhere)
    assert found.startswith(
        'spec.http[0].route[0].destination.subset: "v2" is in DestinationRule default/x, which '
        "counts for clients in default only"
    )
    for namespace in ("shop", "istio-system"):
        seen = rule.replace("namespace: shop", f"namespace: {namespace}")
        assert said(route, SERVICE, seen) == []


@pytest.mark.parametrize(
    ("port", "protocol", "message"),
    [
        (9000, "TCP", "has no effect on port 9000: it is an address of Service shop/web"),
        (443, "TLS", "has no effect on port 443: it is an address of Service shop/web"),
        (80, "HTTP", None),  # told by the host
        (9001, "TCP", None),
    ],
)
def test_the_address_of_a_service_that_an_entry_writes_is_named(
    port: int, protocol: str, message: str | None
) -> None:
    service = SERVICE.replace("spec: {", "spec: {clusterIP: 10.96.0.7, ")
    ports = f"addresses: [198.18.0.1, 10.96.0.7]\n  ports: [{{number: {port}, name: p, protocol: "
    text = OUTSIDE.replace("ports: [{number: 443, name: tls, protocol: TLS", ports + protocol)
    assert said(text, service) == ([f"spec.addresses[1]: {message}"] if message else [])


def test_an_entry_for_a_host_that_another_has_is_named() -> None:
    again = OUTSIDE.replace("namespace: shop", "namespace: other")
    assert said(again, OUTSIDE) == [
        'spec.hosts[0]: "www.wiki.test" is declared by ServiceEntry shop/outside too; '
        "each is for its own namespace, and one for the others"
    ]
    added = OUTSIDE.replace("name: outside", "name: more")
    assert said(added, OUTSIDE) == []
    otherwise = added.replace("resolution: DNS", "resolution: NONE")
    assert said(otherwise, OUTSIDE)[0].endswith("too; one of them has no effect")
    service = OUTSIDE.replace("www.wiki.test", "web.shop.svc.cluster.local")
    assert "is declared by Service shop/web too" in said(service, SERVICE)[0]


ALIAS = """
apiVersion: v1
kind: Service
metadata: {name: alias, namespace: shop}
spec: {type: ExternalName, externalName: NAME}
---
"""


def test_a_name_outside_the_mesh_that_lists_no_ports_is_named() -> None:
    listed = ALIAS.replace("NAME", "www.wiki.test, ports: [{port: 80}]")
    assert said(listed) == said(ALIAS.replace("NAME", "web.shop.svc.cluster.local"), SERVICE) == []
    assert said(ALIAS.replace("NAME", "www.wiki.test")) == [
        "spec.ports: has no effect: outside the mesh, only listed ports lead there"
    ]


@pytest.mark.parametrize(
    ("label", "namespace", "is_named"),
    [
        ("app", "shop", True),
        ("app", "istio-system", False),
        ("istio", "shop", False),
        ("meshd.io/gateway", "shop", False),
    ],
)
def test_a_workload_of_others_that_becomes_a_gateway_unasked_is_named(
    label: str, namespace: str, is_named: bool
) -> None:
    """What its Gateways let in is sent on in its name."""
    workload = Workload(uid="x", name="till", namespace=namespace, netns="", labels={label: "edge"})
    found = said(GATEWAY.replace("{istio: edge}", f"{{{label}: edge}}"), running=[workload])
    wanted = (
        "spec.selector: makes a gateway of till of namespace shop: requests through this Gateway"
    )
    assert [one.startswith(wanted) for one in found] == ([True] if is_named else [])


def test_a_gateway_that_the_settings_keep_from_its_workloads_is_told_so() -> None:
    def named(*namespaces: str) -> list[str]:
        running = [
            Workload(uid=one, name="till", namespace=one, netns="", labels={"istio": "edge"})
            for one in namespaces
        ]
        return said(GATEWAY, running=running, selection="own-namespace")

    assert named("shop", "istio-system") == []
    assert named("shop", "bank") == [
        "spec.selector: has no effect: the workloads with these labels are in other namespaces"
        " (bank, shop), and mesh.gateway_selection is own-namespace; move the Gateway to theirs"
    ]
    assert "(a, b, c, …)" in named(*"dcba")[0]
    assert named() == ["spec.selector: has no effect: it selects no workload that runs now"]


def test_what_to_do_about_workloads_that_do_not_say_that_they_are_gateways() -> None:
    till = Workload(uid="a", name="till", namespace="bank", netns="", labels={"app": "till"})
    found = GATEWAY.replace("istio: edge", "app: till")
    (told,) = said(found, running=[till], selection="declared-gateways")
    assert told.endswith("or give those that are gateways the label meshd.io/gateway")
    declared = msgspec.structs.replace(till, labels={**till.labels, "meshd.io/gateway": ""})
    assert said(found, running=[declared], selection="declared-gateways") == []


def test_gateways_that_share_no_workload_are_no_rivals() -> None:
    other = GATEWAY.replace("namespace: istio-system", "namespace: shop")
    assert any("of Gateway shop/edge too" in one for one in said(GATEWAY, other))
    assert said(GATEWAY, other, selection="own-namespace") == []


POLICY = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: x, namespace: shop}
spec: {selector: {matchLabels: {istio: edge}}, mtls: {mode: STRICT}}
---
"""


@pytest.mark.parametrize(
    ("text", "namespace", "wanted"),
    [
        (GATEWAY, "istio-system", ""),
        (GATEWAY, "other", ""),
        (GATEWAY, "", "spec.selector: has no effect: it selects no workload that runs now"),
        (POLICY, "shop", ""),
        (
            POLICY,
            "other",
            "spec.selector.matchLabels: has no effect: "
            "it selects no workload in shop that runs now",
        ),
    ],
)
def test_a_selector_of_nothing_is_named_where_it_is_known_what_runs(
    text: str, namespace: str, wanted: str
) -> None:
    edge = Workload(
        uid="x", name="x", namespace=namespace, netns="", labels={"istio": "edge", "a": "b"}
    )
    assert said(text, running=[edge] if namespace else []) == ([wanted] if wanted else [])
    assert said(text) == []


ASKING = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: x, namespace: SPACE}
spec: {rules: [RULE]}
---
"""
READING = """
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: x, namespace: SPACE}
spec: {}
---
"""
NOBODY_READS = (
    "spec.rules: asks for what tokens say, and no RequestAuthentication has them read there"
)


@pytest.mark.parametrize(
    "rule",
    [
        "{from: [{source: {requestPrincipals: ['*']}}]}",
        "{from: [{source: {notRequestPrincipals: ['*']}}]}",
        "{when: [{key: 'request.auth.claims[a]', values: [b]}]}",
        "{when: [{key: request.auth.audiences, values: [b]}]}",
    ],
)
def test_a_policy_about_tokens_that_nobody_reads_is_named(rule: str) -> None:
    asking, in_root = (
        ASKING.replace("SPACE", space).replace("RULE", rule) for space in ("shop", "istio-system")
    )
    for space, own, root in (
        ("shop", [], []),
        ("istio-system", [], []),
        ("other", [NOBODY_READS], []),
    ):
        reading = READING.replace("SPACE", space)
        assert (said(asking, reading), said(in_root, reading)) == (own, root)
    assert said(asking) == [NOBODY_READS]
    assert said(ASKING.replace("SPACE", "shop").replace("RULE", "{}")) == []


def test_a_denying_rule_about_tokens_denies_all_connections_that_are_not_http() -> None:
    rule = "{from: [{source: {notRequestPrincipals: ['*']}}]}"
    asking = ASKING.replace("SPACE", "shop").replace(
        "rules: [RULE]", f"action: DENY, rules: [{rule}]"
    )
    (found,) = said(asking, READING.replace("SPACE", "shop"))
    assert "denies all connections that are not HTTP" in found
