"""``meshctl explain``: the verdict, and each stage on the way to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec
import pytest

from meshd import wire
from meshd.api.base import Key, Object, ObjectMeta
from meshd.api.read import read_objects
from meshd.api.service_entry.types import WorkloadEntrySpec
from meshd.compile.explain.request import explain
from meshd.model.closed_workload import ClosedWorkload
from meshd.model.short_way import ShortWay
from meshd.model.snapshot import MeshOptions, Snapshot
from meshd.model.workload import HostService, NamedPort, Workload
from meshd.registry.registry import build_snapshot, hosts_without_address

MESH = """
apiVersion: v1
kind: Namespace
metadata: {name: default, labels: {istio-injection: enabled}}
---
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec: {selector: {app: reviews}, ports: [{name: http, port: 9080}]}
---
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {selector: {app: reviews}, ports: [{name: tcp, port: 3306, targetPort: 9080}]}
---
apiVersion: v1
kind: Service
metadata: {name: nobody}
spec: {selector: {app: nobody}, ports: [{name: http, port: 8000}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - match: [{headers: {end-user: {exact: john}}}]
    route: [{destination: {host: reviews, subset: v2}}]
  - match: [{uri: {regex: "/teapot/.*"}}]
    directResponse: {status: 418}
  - match: [{uri: {prefix: /old}, queryParams: {go: {exact: "1"}}}]
    redirect: {uri: /new}
  - match: [{uri: {prefix: /books}}]
    delegate: {name: books}
  - route: [{destination: {host: reviews, subset: v1}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: books}
spec:
  http:
  - name: books
    route: [{destination: {host: reviews, subset: v2}}]
"""


def workload(name: str, index: int, **labels: str) -> Workload:
    return Workload(
        uid=f"default.{name}",
        name=name,
        namespace="default",
        netns=f"/run/netns/{name}",
        service_account=name,
        labels=labels,
        addresses=(f"198.18.0.{index}",),
        ports=(NamedPort("http", 9080),),
    )


CLIENT = workload("client", 1, app="client")
SERVERS = (
    workload("reviews-v1", 2, app="reviews", version="v1"),
    workload("reviews-v2", 3, app="reviews", version="v2"),
)


def ask(
    destination: str,
    path: str = "/",
    headers: tuple[tuple[str, str], ...] = (),
    policy: str = "",
    more: str = "",
    client: Workload = CLIENT,
    begins_as: Literal["", "http", "tls", "other"] = "",
    server_name: str = "",
    *,
    outside: str = "",
    method: str = "GET",
    from_outside: bool = False,
    service_cidr: str = "",
    place_of: Callable[[Key, str], str] = lambda _key, _field: "",
    beside: tuple[Object, ...] = (),
    short_way_to: tuple[str, ...] = (),
    avoiding: tuple[str, ...] = (),
) -> wire.Explanation:
    options = MeshOptions(
        outbound_policy=policy or "ALLOW_ANY",  # type: ignore[arg-type]
        locality="us/a",
        service_cidr=service_cidr,
        short_way=bool(short_way_to),
    )
    objects = [read.object for read in read_objects(MESH + more, "mesh.yaml")]
    hosts = hosts_without_address(objects, options)
    addresses = {host: (f"198.19.0.{index}",) for index, host in enumerate(hosts, 1)}
    snapshot = build_snapshot((*objects, *beside), (client, *SERVERS), options, addresses)
    snapshot = msgspec.structs.replace(snapshot, short_way=ShortWay((), short_way_to))
    request = wire.Explain(
        "client",
        destination,
        path=path,
        method=method,
        headers=headers,
        begins_as=begins_as,
        server_name=server_name,
        from_outside=from_outside,
        client=outside,
    )
    return explain(snapshot, client, request, place_of, avoiding=avoiding)


@pytest.mark.parametrize(
    ("destination", "path", "headers", "verdict", "endpoints"),
    [
        ("reviews:9080", "/", (), "routed", ("198.18.0.2:9080",)),
        ("reviews", "/", (), "routed", ("198.18.0.2:9080",)),
        ("reviews.default.svc", "/", (("End-User", "john"),), "routed", ("198.18.0.3:9080",)),
        ("reviews:9080", "/teapot/1", (), "answered 418 by the proxy", ()),
        ("reviews:9080", "/old?go=1", (), "redirected", ()),
        ("reviews:9080", "/old?go=2", (), "routed", ("198.18.0.2:9080",)),
        ("reviews:9080", "/books/1", (), "routed", ("198.18.0.3:9080",)),
        ("db:3306", "/", (), "routed", ("198.18.0.2:9080", "198.18.0.3:9080")),
        ("nobody:8000", "/", (), "no healthy endpoint: 503", ()),
        ("example.com:443", "/", (), "passed through as it is", ()),
    ],
)
def test_the_verdict_and_the_endpoints(
    destination: str,
    path: str,
    headers: tuple[tuple[str, str], ...],
    verdict: str,
    endpoints: tuple[str, ...],
) -> None:
    found = ask(destination, path, headers)
    assert (found.verdict, found.endpoints) == (verdict, endpoints)


@pytest.mark.parametrize("begins_as", ["", "http", "tls"])
@pytest.mark.parametrize("port", [80, 9080, 3306])
def test_a_closed_address_is_refused_and_what_is_not_in_force_is_named(
    port: int, begins_as: Literal["", "http", "tls"]
) -> None:
    closed = ClosedWorkload(
        metadata=ObjectMeta(name="vm", namespace="default"),
        spec=WorkloadEntrySpec(address="198.18.9.9"),
    )
    found = ask(f"198.18.9.9:{port}", begins_as=begins_as, beside=(closed,))
    assert found.verdict == (
        "refused: WorkloadEntry default/vm is not in force; meshctl status says why"
    )
    assert stages(found)["chain"] == "refused, of WorkloadEntry default/vm: spec.address"
    assert ask(f"198.18.9.9:{port}").verdict != found.verdict


def test_unknown_hosts_are_refused_under_registry_only() -> None:
    assert ask("example.com:443", policy="REGISTRY_ONLY").verdict == "refused: not in the registry"


def test_the_place_of_a_route_is_told_below_a_delegate_too() -> None:
    asked: list[tuple[str, str]] = []

    def place_of(key: Key, field: str) -> str:
        asked.append((str(key), field))
        return "mesh.yaml:7"

    found = ask("reviews:9080", "/books/1", place_of=place_of)
    assert stages(found)["route"] == (
        "books, of VirtualService default/reviews, spec.http[3], from its delegate "
        "VirtualService default/books: spec.http[0] (mesh.yaml:7)"
    )
    assert asked[-1] == ("VirtualService default/books", "spec.http[0]")
    ask("reviews:9080", "/", place_of=place_of)
    assert asked[-1] == ("VirtualService default/reviews", "spec.http[4]")


MIRRORED = """
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: nobody}
spec:
  hosts: [nobody]
  http:
  - route: [{destination: {host: reviews, subset: v1}}]
    mirror: {host: reviews, subset: v2}
    mirror_percent: 50
    mirrors: [{destination: {host: nobody}, percentage: {value: 0.5}}]
"""


def test_where_copies_of_requests_go_is_told() -> None:
    steps = ask("nobody:8000", more=MIRRORED).stages
    assert {step.detail for step in steps if step.stage == "mirror"} == {
        "outbound|9080|v2|reviews.default.svc.cluster.local: a copy of 50 % of the requests,"
        " as nobody-shadow:8000/",
        "outbound|8000||nobody.default.svc.cluster.local: a copy of 0.5 % of the requests,"
        " as nobody-shadow:8000/",
    }


TREATED = """
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: nobody}
spec:
  hosts: [nobody]
  http:
  - match: [{uri: {prefix: /aborted}}]
    fault: {abort: {httpStatus: 555, percentage: {value: 100}}}
    route: [{destination: {host: reviews, subset: v1}}]
  - fault:
      delay: {fixedDelay: 2s, percentage: {value: 50}}
      abort: {grpcStatus: UNAVAILABLE, percentage: {value: 5}}
    corsPolicy: {allowOrigins: [{exact: "https://a.test"}]}
    headers: {request: {set: {x-user: somebody}}}
    route: [{destination: {host: reviews, subset: v1}}]
"""


def test_a_request_that_is_aborted_goes_nowhere() -> None:
    found = ask("nobody:8000", "/aborted", more=TREATED)
    assert (found.verdict, found.endpoints) == ("answered 555 by the proxy", ())
    assert stages(found)["fault"] == "100 % of the requests are answered 555 by the proxy"


def test_faults_of_some_requests_and_changes_of_headers_are_told() -> None:
    found = ask("nobody:8000", "/", (("origin", "https://b.test"),), more=TREATED)
    faults = [step.detail for step in found.stages if step.stage == "fault"]
    assert faults == [
        "50 % of the requests wait 2 s",
        "5 % of the requests are answered 200 by the proxy",
    ]
    assert stages(found)["cors"] == "request of origin https://b.test: not allowed"
    assert stages(found)["headers"].endswith(".cluster.local: x-user: somebody")
    assert found.verdict == "routed"


def test_a_preflight_is_answered_by_the_proxy() -> None:
    headers = (("origin", "https://a.test"), ("access-control-request-method", "PUT"))
    found = ask("nobody:8000", "/", headers, more=TREATED, method="OPTIONS")
    assert found.verdict == "preflight answered 200 by the proxy"
    assert "cluster" not in stages(found)


def test_the_order_of_endpoints_by_locality_is_told() -> None:
    far = """---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: far}
spec: {address: 198.18.0.4, labels: {app: reviews}, locality: eu/c}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: db}
spec: {host: db, trafficPolicy: {outlierDetection: {consecutive5xxErrors: 1}}}
"""
    found = ask("db:3306", more=far)
    assert [step.detail for step in found.stages if step.stage in {"near", "endpoint"}] == [
        "from us/a: near endpoints first, others when those fail",
        "198.18.0.2:9080 default/reviews-v1 (mutual TLS), priority 0, us/a",
        "198.18.0.3:9080 default/reviews-v2 (mutual TLS), priority 0, us/a",
        "198.18.0.4:9080, priority 1, eu/c",
    ]


def test_settings_of_a_policy_are_told_with_the_field_that_sets_them() -> None:
    rule = """---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: db}
spec: {host: db, trafficPolicy: {outlierDetection: {consecutive5xxErrors: 1}, tls: {mode: DISABLE}}}
"""
    told = ask("db:3306", more=rule, place_of=lambda _, field: f"db.yaml:{len(field)}").stages
    assert [step.detail for step in told if step.stage == "policy"] == [
        "DestinationRule default/db: spec.trafficPolicy.outlierDetection (db.yaml:35)",
        "DestinationRule default/db: spec.trafficPolicy.tls (db.yaml:22)",
    ]


def test_a_name_that_is_looked_up_for_each_request_is_its_own_endpoint() -> None:
    wild = """---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: wild}
spec:
  hosts: ["*.example.com"]
  resolution: DYNAMIC_DNS
  ports: [{number: 80, name: http, protocol: HTTP}]
"""
    found = ask("www.example.com:80", more=wild)
    assert (found.verdict, found.endpoints) == ("routed", ("www.example.com:80",))
    assert found.cluster == "outbound|80||*.example.com"


def test_a_service_of_the_host_is_redirected_to_a_port_of_its_own() -> None:
    host = HostService(cgroup="meshd_services.slice/x.slice", outbound_port=15103)
    told = ask("reviews:9080", client=msgspec.structs.replace(CLIENT, netns="", host=host)).stages
    assert told[2].detail == "TCP to port 9080 is redirected to 15103 on the host"
    told = ask("reviews:9080").stages
    assert told[2].detail == "TCP to port 9080 is redirected to 15001 in its namespace"


def test_each_stage_is_told() -> None:
    found = ask("reviews:9080")
    assert [step.stage for step in found.stages] == [
        "source", "name", "capture", "listener", "chain", "routes", "host", "route", "cluster",
        "tls", "endpoint", "inbound",
    ]  # fmt: skip
    assert found.cluster == "outbound|9080|v1|reviews.default.svc.cluster.local"
    assert found.identity == "spiffe://cluster.local/ns/default/sa/client"


CONNECTIONS = """
---
apiVersion: v1
kind: Service
metadata: {name: mixed}
spec: {selector: {app: reviews}, ports: [{name: tcp, port: 9080}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: partner}
spec:
  hosts: ["*.partner.test", other.partner.test]
  ports: [{number: 443, name: tls, protocol: TLS}]
  resolution: NONE
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: db}
spec:
  hosts: [db]
  tcp:
  - match: [{port: 1}, {port: 3306, sourceLabels: {app: client}}]
    route: [{destination: {host: mixed, port: {number: 9080}}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: partner}
spec:
  hosts: ["*.partner.test"]
  tls:
  - match: [{port: 443, sniHosts: [db.partner.test]}]
    route: [{destination: {host: db, port: {number: 3306}}}]
"""


def stages(found: wire.Explanation) -> dict[str, str]:
    return {step.stage: step.detail for step in found.stages}


def test_the_rule_that_a_connection_goes_by_is_told() -> None:
    found = ask("db:3306", more=CONNECTIONS)
    assert stages(found)["chain"] == (
        "outbound|9080||mixed.default.svc.cluster.local,"
        " of VirtualService default/db: spec.tcp[0].match[1]"
    )
    found = ask("mixed:9080", more=CONNECTIONS)
    assert stages(found)["chain"].endswith(", of Service default/mixed: spec.ports[0]")
    assert found.verdict == "routed"


@pytest.mark.parametrize(
    ("destination", "server_name", "origin"),
    [
        ("db.partner.test:443", "", "VirtualService default/partner: spec.tls[0].match[0]"),
        ("198.18.9.9:443", "db.partner.test", "VirtualService default/partner: spec.tls[0]"),
        ("x.partner.test:443", "", "ServiceEntry default/partner: spec.ports[0]"),
        ("other.partner.test:443", "", "ServiceEntry default/partner: spec.ports[0]"),
    ],
)
def test_a_connection_with_tls_goes_by_its_server_name(
    destination: str, server_name: str, origin: str
) -> None:
    found = ask(destination, more=CONNECTIONS, begins_as="tls", server_name=server_name)
    chain = stages(found)["chain"]
    assert f"with the server name {server_name or destination.partition(':')[0]}" in chain
    assert f"of {origin}" in chain


def test_an_address_of_a_service_is_not_passed_through_for_what_it_does_not_speak() -> None:
    found = ask("db.partner.test:443", more=CONNECTIONS, begins_as="other")
    assert found.verdict == "passed through as it is"


def test_queries_for_names_go_to_the_resolver() -> None:
    assert ask("198.18.0.53:53").verdict == "answered by the resolver of the mesh's names"


STRICT = """
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict}
spec:
  selector: {matchLabels: {app: reviews}}
  mtls: {mode: PERMISSIVE}
  portLevelMtls: {9080: {mode: STRICT}}
"""
PLAIN = """
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: db}
spec: {host: db, trafficPolicy: {tls: {mode: DISABLE}}}
"""


def test_how_a_workload_of_this_node_takes_it_is_told() -> None:
    assert stages(ask("reviews:9080"))["inbound"] == (
        "default.reviews-v1|inbound port 9080: mutual TLS PERMISSIVE (default),"
        " chain mtls-inspected → 9080|either"
    )
    said = "STRICT (PeerAuthentication default/strict: spec.portLevelMtls.9080.mode)"
    assert said in stages(ask("reviews:9080", more=STRICT))["inbound"]


def test_a_workload_that_refuses_it_is_told() -> None:
    inbound = stages(ask("db:3306", more=STRICT + PLAIN))["inbound"]
    assert inbound.endswith("refused: the client does not begin mutual TLS")
    assert "refused" not in stages(ask("db:3306", more=PLAIN))["inbound"]


EDGE = """
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: default}
spec:
  selector: {app: client}
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}
  - port: {number: 8080, name: old, protocol: HTTP}
    hosts: [site.test]
    tls: {httpsRedirect: true}
  - port: {number: 443, name: site, protocol: HTTPS}
    hosts: [site.test]
    tls: {mode: SIMPLE, credentialName: site}
  - port: {number: 443, name: through, protocol: TLS}
    hosts: [through.test]
    tls: {mode: PASSTHROUGH}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: edge}
spec:
  hosts: [site.test, through.test]
  gateways: [edge]
  http:
  - route: [{destination: {host: reviews, subset: v1}}]
  tls:
  - match: [{sniHosts: [through.test]}]
    route: [{destination: {host: db, port: {number: 3306}}}]
"""


def enter(destination: str) -> wire.Explanation:
    return ask(destination, more=EDGE, from_outside=True)


def test_a_request_from_outside_enters_by_the_server_of_a_gateway() -> None:
    found = enter("site.test:80")
    assert stages(found)["chain"] == "http, of Gateway default/edge: spec.servers[0]"
    assert (found.verdict, found.endpoints) == ("routed", ("198.18.0.2:9080",))
    found = enter("site.test:443")
    assert stages(found)["chain"].endswith("of Gateway default/edge: spec.servers[2]")
    assert stages(found)["server tls"] == "ends here, with kubernetes://default/site"
    assert found.endpoints == ("198.18.0.2:9080",)


AT_EDGE = """
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: edge}
spec:
  selector: {matchLabels: {app: client}}
  rules: [{from: [{source: {FIELD: [203.0.113.0/24]}}]}]
"""


@pytest.mark.parametrize("field", ["ipBlocks", "remoteIpBlocks"])
@pytest.mark.parametrize(
    ("destination", "denied"),
    [
        ("site.test:80", "denied: 403"),
        ("site.test:8080", "denied: 403"),
        ("through.test:443", "denied: the connection is closed"),
    ],
)
def test_requests_through_a_gateway_are_judged_there_first(
    field: str, destination: str, denied: str
) -> None:
    policy = AT_EDGE.replace("FIELD", field)
    claim = (("x-forwarded-for", "203.0.113.7"),)
    for client, is_admitted in (("", False), ("198.51.100.7", False), ("203.0.113.9", True)):
        found = ask(
            destination, headers=claim, more=EDGE + policy, from_outside=True, outside=client
        )
        assert (found.verdict != denied) is is_admitted
        assert ("allowed by" in stages(found)["authorization"]) is is_admitted


def test_tls_that_passes_through_a_gateway_goes_by_its_server_name() -> None:
    found = enter("through.test:443")
    assert "of VirtualService default/edge: spec.tls[0].match[0]" in stages(found)["chain"]
    assert stages(found)["server tls"] == "none ends here"
    assert set(found.endpoints) == {"198.18.0.2:9080", "198.18.0.3:9080"}


def test_a_server_that_redirects_to_https_is_told() -> None:
    assert enter("site.test:8080").verdict == "redirected to https"
    assert ask("site.test:443", more=EDGE, from_outside=True, server_name="x.test").verdict == (
        "refused: no server of its Gateways wants this connection"
    )


def test_connections_that_no_server_of_a_gateway_wants_are_refused() -> None:
    assert enter("else.test:443").verdict.startswith("refused: no server")
    assert enter("198.18.0.1:443").verdict.startswith("refused: no server")
    assert enter("site.test:81").verdict == "refused: no Gateway opens port 81 there"


def test_objects_left_out_of_the_configuration_are_told() -> None:
    snapshot = Snapshot(workloads={CLIENT.uid: CLIENT})
    found = explain(snapshot, CLIENT, wire.Explain("client", "a"), left_out=("a is left out",))
    assert found.stages[0] == wire.Step("left out", "a is left out")


def test_proxies_that_do_not_lead_to_the_short_way_yet_are_told() -> None:
    inside = ("default.reviews-v1",)
    found = stages(ask("reviews:9080", short_way_to=inside, avoiding=("proxy-0", "proxy-1")))
    assert found["endpoint"].endswith(" (short way)")
    assert found["detour"] == "over the network still in proxy-0, proxy-1"
    assert "detour" not in stages(ask("reviews:9080", short_way_to=inside))
    assert "detour" not in stages(ask("reviews:9080", avoiding=("proxy-0",)))


def test_a_member_that_no_proxy_serves_is_not_taken_for_a_stranger() -> None:
    asked = wire.Explain("client", "a")
    assert explain(Snapshot(), CLIENT, asked, is_member=True).verdict == "not served"
    assert explain(Snapshot(), CLIENT, asked).verdict == "outside the mesh"


def test_the_place_of_what_decides_is_told() -> None:
    """Only the fields that decide are asked for; an object that is in no file has no place."""
    asked: list[tuple[str, str]] = []

    def place_of(key: Key, field: str) -> str:
        asked.append((str(key), field))
        return "db.yaml:7" if key.kind == "VirtualService" else ""

    found = ask("db:3306", more=CONNECTIONS, place_of=place_of)
    rule = "VirtualService default/db: spec.tcp[0].match[1]"
    assert stages(found)["chain"].endswith(f"of {rule} (db.yaml:7)")
    assert asked == [("VirtualService default/db", "spec.tcp[0].match[1]")]
    found = ask("mixed:9080", more=CONNECTIONS, place_of=place_of)
    assert stages(found)["chain"].endswith("of Service default/mixed: spec.ports[0]")


def test_requests_that_a_gateway_sends_by_the_short_way_are_read_once_more() -> None:
    near, why = tuple(one.uid for one in SERVERS), "since clients do not send it as requests"
    assert why not in stages(ask("reviews:9080", short_way_to=near))["inbound"]
    entering = ask("site.test:80", more=EDGE, from_outside=True, short_way_to=near)
    assert why in stages(entering)["inbound"]
