from __future__ import annotations

import time
from collections.abc import Iterable

import msgspec
import pytest

from meshd.api.protocol import Protocol
from meshd.api.read import read_objects
from meshd.model.service import Endpoint, Preference, Resolution, ServiceRecord, seen_from
from meshd.model.snapshot import MeshOptions, Snapshot
from meshd.model.workload import NamedPort, Workload
from meshd.registry.addresses import VirtualAddresses
from meshd.registry.registry import build_snapshot, declared_addresses, hosts_without_address

OPTIONS = MeshOptions()


def pod(
    name: str, address: str, *, ready: bool = True, enrolled: bool = True, **more: str
) -> Workload:
    labels = {"app": "reviews", "version": "v1"} | more
    return Workload(
        uid=f"ns.{name}",
        name=name,
        namespace="ns",
        netns=f"/run/netns/{name}",
        service_account="bookinfo-reviews",
        labels=labels,
        addresses=(address,),
        ports=(NamedPort("http", 9080),),
        ready=ready,
        enrolled=enrolled,
    )


V1 = pod("reviews-v1", "198.18.0.1")
V2 = pod("reviews-v2", "198.18.0.2", version="v2")
OTHER = pod("ratings", "198.18.0.3", app="ratings")


def snapshot(
    text: str, workloads: Iterable[Workload] = (), addresses: VirtualAddresses | None = None
) -> Snapshot:
    objects = [read.object for read in read_objects(text, "f.yaml", "ns")]
    return build_snapshot(objects, workloads, OPTIONS, addresses or {})


def service(spec: str, name: str = "reviews") -> str:
    return f"apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {spec}\n---\n"


def entry(spec: str, name: str = "e") -> str:
    head = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\n"
    return f"{head}metadata: {{name: {name}}}\nspec: {spec}\n---\n"


def reviews(text: str, *workloads: Workload) -> ServiceRecord:
    return snapshot(text, workloads).services["reviews.ns.svc.cluster.local"]


def places(record: ServiceRecord) -> list[tuple[str, int, int]]:
    return [(found.address, found.port, found.service_port) for found in record.endpoints]


def test_a_service_has_the_workloads_that_its_selector_matches() -> None:
    record = reviews(service("{selector: {app: reviews}, ports: [{port: 80}]}"), V1, V2, OTHER)
    assert places(record) == [("198.18.0.1", 80, 80), ("198.18.0.2", 80, 80)]
    assert record.endpoints[1] == Endpoint(
        address="198.18.0.2",
        port=80,
        service_port=80,
        labels={"app": "reviews", "version": "v2"},
        service_account="bookinfo-reviews",
        namespace="ns",
        workload="ns.reviews-v2",
        name="reviews-v2",
        mutual_tls=True,
    )


@pytest.mark.parametrize(
    ("selector", "count"),
    [
        ("{app: reviews, version: v2}", 1),
        ("{app: ratings, version: v2}", 0),
        ("{app: nobody}", 0),
        ("{}", 0),
        ("{app: ratings}", 1),
    ],
)
def test_every_label_of_a_selector_counts_and_none_selects_nothing(
    selector: str, count: int
) -> None:
    record = reviews(service(f"{{selector: {selector}, ports: [{{port: 80}}]}}"), V1, V2, OTHER)
    assert len(record.endpoints) == count


def test_workloads_of_other_namespaces_are_not_selected() -> None:
    text = service("{selector: {app: reviews}, ports: [{port: 80}]}").replace(
        "name: reviews", "name: reviews, namespace: elsewhere"
    )
    assert snapshot(text, [V1]).services["reviews.elsewhere.svc.cluster.local"].endpoints == ()


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("", [("198.18.0.1", 80, 80)]),
        (", targetPort: 9081", [("198.18.0.1", 9081, 80)]),
        (", targetPort: http", [("198.18.0.1", 9080, 80)]),
        (', targetPort: "9082"', [("198.18.0.1", 9082, 80)]),
        (", targetPort: grpc", []),
    ],
)
def test_target_ports_are_numbers_or_names(
    target: str, expected: list[tuple[str, int, int]]
) -> None:
    text = service(f"{{selector: {{app: reviews}}, ports: [{{port: 80{target}}}]}}")
    assert places(reviews(text, V1)) == expected


def test_a_workload_that_is_not_ready_is_known_as_one_that_will_be() -> None:
    text = service("{selector: {app: reviews}, ports: [{port: 80}]}")
    taken = snapshot(text, [pod("a", "198.18.0.9", ready=False)])
    (endpoint,) = taken.services["reviews.ns.svc.cluster.local"].endpoints
    assert (endpoint.workload, endpoint.ready) == ("ns.a", False)
    assert list(taken.workloads) == ["ns.a"]


def test_a_workload_outside_the_mesh_is_an_endpoint_without_mutual_tls() -> None:
    text = service("{selector: {app: reviews}, ports: [{port: 80}]}")
    taken = snapshot(text, [V1, pod("a", "198.18.0.9", enrolled=False)])
    record = taken.services["reviews.ns.svc.cluster.local"]
    assert {found.workload: found.mutual_tls for found in record.endpoints} == {
        "ns.reviews-v1": True,
        "ns.a": False,
    }
    assert list(taken.workloads) == ["ns.reviews-v1"]


def test_a_namespace_s_label_brings_its_workloads_in() -> None:
    labelled = (
        "apiVersion: v1\nkind: Namespace\n"
        "metadata: {name: ns, labels: {istio.io/dataplane-mode: ambient}}\n"
    )
    assert list(snapshot(labelled, [pod("a", "198.18.0.9", enrolled=False)]).workloads) == ["ns.a"]


@pytest.mark.parametrize(
    ("port", "protocol"),
    [
        ("name: http", Protocol.HTTP),
        ("name: http-web", Protocol.HTTP),
        ("name: http2", Protocol.HTTP2),
        ("name: grpc-api", Protocol.GRPC),
        ("name: grpc-web", Protocol.GRPC),
        ("name: grpc-web-api", Protocol.GRPC),
        ("name: https", Protocol.HTTPS),
        ("name: tls-x", Protocol.TLS),
        ("name: tcp-db", Protocol.TCP),
        ("name: mongo", Protocol.TCP),
        ("name: mysql-db", Protocol.TCP),
        ("name: redis", Protocol.TCP),
        ("name: udp-dns, protocol: UDP", Protocol.UDP),
        ("name: dns, protocol: UDP", Protocol.UDP),
        ("name: web", Protocol.SNIFFED),
        ("name: httpish", Protocol.SNIFFED),
        ("name: ''", Protocol.SNIFFED),
        ("name: tcp, appProtocol: kubernetes.io/h2c", Protocol.HTTP2),
        ("name: tcp, appProtocol: HTTP", Protocol.HTTP),
        ("name: http, appProtocol: example.com/own", Protocol.TCP),
    ],
)
def test_protocols_are_declared_by_name_or_app_protocol(port: str, protocol: Protocol) -> None:
    record = reviews(service(f"{{ports: [{{port: 80, {port}}}]}}"))
    assert [found.protocol for found in record.ports] == [protocol]


@pytest.mark.parametrize("first", ["TCP", "UDP"])
def test_a_number_declared_for_tcp_and_udp_has_the_endpoints_of_tcp(first: str) -> None:
    ports = {"TCP": "{port: 53, name: tcp, targetPort: 5353}"}
    ports["UDP"] = "{port: 53, name: udp, protocol: UDP, targetPort: 5454}"
    second = next(name for name in ports if name != first)
    only = "{port: 161, name: only-udp, protocol: UDP}"
    listed = f"[{ports[first]}, {ports[second]}, {only}]"
    record = reviews(service(f"{{selector: {{app: reviews}}, ports: {listed}}}"), V1)
    assert [(port, number) for _, port, number in places(record)] == [(5353, 53), (161, 161)]


def test_a_port_on_which_servers_speak_first_is_not_sniffed() -> None:
    record = reviews(service("{ports: [{port: 3306, name: db}]}"))
    assert record.ports[0].protocol is Protocol.TCP


def test_virtual_addresses_are_the_declared_ones_or_those_that_were_given() -> None:
    text = service("{ports: [{port: 80}]}") + service(
        "{clusterIP: 198.19.5.5, ports: [{port: 80}]}", "fixed"
    )
    objects = [read.object for read in read_objects(text, "f.yaml", "ns")]
    assert hosts_without_address(objects, OPTIONS) == ("reviews.ns.svc.cluster.local",)
    assert declared_addresses(objects) == {"198.19.5.5"}
    taken = snapshot(text, (), {"reviews.ns.svc.cluster.local": ("198.19.0.7",)})
    assert taken.services["reviews.ns.svc.cluster.local"].addresses == ("198.19.0.7",)
    assert taken.services["fixed.ns.svc.cluster.local"].addresses == ("198.19.5.5",)


def test_a_headless_service_has_endpoints_and_no_address() -> None:
    text = service("{clusterIP: None, selector: {app: reviews}, ports: [{port: 80}]}")
    objects = [read.object for read in read_objects(text, "f.yaml", "ns")]
    assert hosts_without_address(objects, OPTIONS) == ()
    record = reviews(text, V1)
    assert record.headless
    assert record.resolution is Resolution.NONE
    assert record.addresses == ()
    assert places(record) == [("198.18.0.1", 80, 80)]


def test_a_service_says_how_its_clients_are_to_be_treated() -> None:
    wishes = "sessionAffinity: ClientIP, trafficDistribution: PreferSameNode"
    record = reviews(service(f"{{{wishes}, ports: [{{port: 80}}]}}"))
    assert (record.sticky, record.prefers) == (True, Preference.SAME_NODE)


@pytest.mark.parametrize(
    ("annotation", "prefers"),
    [
        ("PreferClose", Preference.SAME_ZONE),
        ("PreferSameZone", Preference.SAME_ZONE),
        ("PreferSameNode", Preference.SAME_NODE),
        ("Any", Preference.ANY),
    ],
)
def test_traffic_distribution_may_be_an_annotation(annotation: str, prefers: Preference) -> None:
    named = f"x, annotations: {{networking.istio.io/traffic-distribution: {annotation}}}"
    text = entry("{hosts: [a.test], resolution: DNS, ports: [{number: 80, name: http}]}", named)
    assert snapshot(text).services["a.test"].prefers is prefers


@pytest.mark.parametrize(("said", "tunnels"), [("true", True), ("yes", False), ("", False)])
def test_services_say_whether_tunnels_suit_them(said: str, tunnels: bool) -> None:
    annotations = f'annotations: {{meshd.io/tunnels: "{said}"}}'
    text = entry("{hosts: [a.test], ports: [{number: 80, name: http}]}", f"x, {annotations}")
    assert snapshot(text).services["a.test"].tunnels is tunnels
    named = service("{ports: [{port: 80}]}").replace(
        "name: reviews", f"name: reviews, {annotations}"
    )
    assert reviews(named).tunnels is tunnels


def test_addresses_that_are_not_ready_may_be_published() -> None:
    text = service(
        "{selector: {app: reviews}, publishNotReadyAddresses: true, ports: [{port: 80}]}"
    )
    assert [found.ready for found in reviews(text, pod("a", "198.18.0.9", ready=False)).endpoints]


def test_local_traffic_is_for_workloads_of_this_node() -> None:
    text = service("{selector: {app: reviews}, internalTrafficPolicy: Local, ports: [{port: 80}]}")
    far = msgspec.structs.replace(V2, uid="far/ns.reviews-v2", node="far")
    objects = [read.object for read in read_objects(text, "f.yaml", "ns")]
    taken = build_snapshot(objects, [V1], MeshOptions(node="here"), {}, elsewhere=[far])
    assert places(taken.services["reviews.ns.svc.cluster.local"]) == [("198.18.0.1", 80, 80)]


def test_endpoints_are_where_their_labels_their_entry_or_their_node_say() -> None:
    text = service("{selector: {app: reviews}, ports: [{port: 80}]}") + (
        "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {name: vm}\n"
        "spec: {address: 198.18.0.7, labels: {app: reviews}, locality: eu/c, network: n}\n"
    )
    objects = [read.object for read in read_objects(text, "f.yaml", "ns")]
    far = msgspec.structs.replace(V2, uid="far/x", node="far", locality="us/b")
    labelled = msgspec.structs.replace(
        pod("a", "198.18.0.9"), labels={"app": "reviews", "istio-locality": "us.a.1"}
    )
    taken = build_snapshot(
        objects, [V1, labelled], MeshOptions(node="here", locality="us/a"), {}, elsewhere=[far]
    )
    found = taken.services["reviews.ns.svc.cluster.local"].endpoints
    assert {one.address: (one.locality, one.node) for one in found} == {
        "198.18.0.1": ("us/a", "here"),
        "198.18.0.2": ("us/b", "far"),
        "198.18.0.7": ("eu/c", ""),
        "198.18.0.9": ("us/a/1", "here"),
    }
    assert {one.labels.get("topology.istio.io/network") for one in found} == {None, "n"}


def test_endpoints_have_the_names_of_the_workloads_that_serve() -> None:
    named = msgspec.structs.replace(V1, uid="ns.other", hostname="db-0", addresses=("198.18.0.9",))
    text = WORKLOAD_ENTRY + service(
        "{clusterIP: None, selector: {app: reviews}, ports: [{port: 80, targetPort: 80}]}"
    )
    ends = reviews(text, V1, named).endpoints
    assert sorted(end.name for end in ends) == ["db-0", V1.name, "vm"]


def test_an_external_name_is_resolved_by_dns() -> None:
    record = reviews(
        service("{type: ExternalName, externalName: a.example.com, ports: [{port: 80}]}")
    )
    assert record.resolution is Resolution.DNS
    assert record.external
    assert places(record) == [("a.example.com", 80, 80)]


def test_an_external_name_of_a_service_of_the_mesh_has_its_endpoints() -> None:
    text = service(
        "{type: ExternalName, externalName: second.ns.svc.cluster.local, ports: [{port: 80}]}"
    )
    text += service(
        "{type: ExternalName, externalName: real.ns.svc.cluster.local, ports: [{port: 80}]}",
        "second",
    )
    text += service("{selector: {app: reviews}, ports: [{port: 80, targetPort: http}]}", "real")
    record = reviews(text, V1)
    assert record.resolution is Resolution.STATIC
    assert not record.external
    assert places(record) == [("198.18.0.1", 9080, 80)]


@pytest.mark.parametrize("listed", ["", "ports: [{port: 81, name: http}], "])
def test_an_external_name_of_a_service_has_all_its_ports(listed: str) -> None:
    """Whether it lists any or not: it is another name."""
    text = service(f"{{type: ExternalName, {listed}externalName: real.ns.svc.cluster.local}}")
    text += service(
        "{selector: {app: reviews}, ports: [{port: 80, targetPort: http}, {name: b, port: 90}]}",
        "real",
    )
    record = reviews(text, V1)
    assert {80, 90} <= {port.number for port in record.ports}
    assert places(record) == [("198.18.0.1", 9080, 80), ("198.18.0.1", 90, 90)]


@pytest.mark.parametrize("location", ["MESH_EXTERNAL", "MESH_INTERNAL"])
def test_an_entry_whose_endpoint_is_a_service_has_that_services_endpoints(location: str) -> None:
    """Its address is one that only the mesh has: no resolver leads there."""
    text = service("{selector: {app: reviews}, ports: [{port: 80, targetPort: http}]}")
    text += entry(
        f"{{hosts: [api.test], resolution: DNS, location: {location}, "
        "ports: [{number: 443, name: http, targetPort: 80}], "
        "endpoints: [{address: reviews.ns.svc.cluster.local}]}"
    )
    record = snapshot(text, [V1]).services["api.test"]
    assert record.resolution is Resolution.STATIC
    assert places(record) == [("198.18.0.1", 9080, 443)]
    assert [port.number for port in record.ports] == [443]
    assert not record.external


def test_external_names_in_a_circle_end() -> None:
    text = "".join(
        service(
            f"{{type: ExternalName, externalName: {other}.ns.svc.cluster.local, "
            "ports: [{port: 80}]}",
            name,
        )
        for name, other in (("reviews", "b"), ("b", "c"), ("c", "b"))
    )
    assert reviews(text).resolution is Resolution.DNS


def test_a_static_entry_has_the_endpoints_that_it_lists() -> None:
    text = entry(
        "{hosts: [db.example.com], location: MESH_INTERNAL, resolution: STATIC, "
        "addresses: [198.19.1.1], exportTo: ['.'], subjectAltNames: [x], "
        "ports: [{number: 3306, name: db, protocol: MySQL, targetPort: 3307}], endpoints: ["
        "{address: 198.18.1.1, serviceAccount: db, labels: {a: b}, weight: 3}, "
        "{address: 198.18.1.2, ports: {db: 3308}}, "
        "{address: 198.18.1.3, serviceAccount: db, "
        "labels: {security.istio.io/tlsMode: disabled}}]}"
    )
    record = snapshot(text).services["db.example.com"]
    assert record.ports[0].protocol is Protocol.TCP
    assert (record.addresses, record.export_to) == (("198.19.1.1",), (".",))
    assert record.subject_alt_names == ("x",)
    assert places(record) == [
        ("198.18.1.1", 3307, 3306),
        ("198.18.1.2", 3308, 3306),
        ("198.18.1.3", 3307, 3306),
    ]
    assert [found.mutual_tls for found in record.endpoints] == [True, False, False]
    assert record.endpoints[0].weight == 3


def test_nothing_outside_the_mesh_is_spoken_mutual_tls_to() -> None:
    text = entry(
        "{hosts: [a.b], location: MESH_EXTERNAL, resolution: STATIC, ports: [{number: 1, name: a}],"
        " endpoints: [{address: 198.18.1.1, serviceAccount: db}]}"
    )
    record = snapshot(text).services["a.b"]
    assert record.external
    assert not record.endpoints[0].mutual_tls


def test_a_dns_entry_resolves_its_host_or_the_names_that_it_lists() -> None:
    ports = "ports: [{number: 443, name: tls, protocol: TLS}]"
    text = entry(f"{{hosts: [a.example.com], resolution: DNS, {ports}}}", "a")
    text += entry(
        f"{{hosts: [b.example.com], resolution: DNS, {ports}, endpoints: [{{address: c.d}}]}}", "b"
    )
    services = snapshot(text).services
    assert places(services["a.example.com"]) == [("a.example.com", 443, 443)]
    assert places(services["b.example.com"]) == [("c.d", 443, 443)]
    objects = [read.object for read in read_objects(text, "f.yaml", "ns")]
    assert hosts_without_address(objects, OPTIONS) == ("a.example.com", "b.example.com")


def test_a_dns_entry_may_be_one_name_of_which_the_first_address_counts() -> None:
    text = entry(
        "{hosts: [a.test], resolution: DNS_ROUND_ROBIN, ports: [{number: 80, name: http}]}"
    )
    record = snapshot(text).services["a.test"]
    assert record.resolution is Resolution.DNS_ROUND_ROBIN
    assert [one.address for one in record.endpoints] == ["a.test"]


def test_an_alias_is_not_headless() -> None:
    text = service(
        "{type: ExternalName, externalName: a.test, clusterIP: None, ports: [{port: 80}]}"
    )
    (record,) = snapshot(text).services.values()
    assert not record.headless


@pytest.mark.parametrize("resolution", ["DNS", "STATIC"])
def test_an_endpoint_that_has_a_network_and_no_address_is_left_out(resolution: str) -> None:
    text = entry(
        f"{{hosts: [a.test], resolution: {resolution}, ports: [{{number: 80, name: http}}],"
        " endpoints: [{address: 198.18.0.1}, {network: far}]}"
    )
    record = snapshot(text).services["a.test"]
    assert [one.address for one in record.endpoints] == ["198.18.0.1"]


def test_an_entry_without_resolution_keeps_the_client_s_destination() -> None:
    text = entry("{hosts: ['*.example.com'], ports: [{number: 80, name: http}]}")
    record = snapshot(text).services["*.example.com"]
    assert (record.resolution, record.endpoints) == (Resolution.NONE, ())
    objects = [read.object for read in read_objects(text, "f.yaml", "ns")]
    assert hosts_without_address(objects, OPTIONS) == ()


WORKLOAD_ENTRY = """\
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: vm}
spec: {address: 198.18.2.1, labels: {app: reviews}, serviceAccount: vm, ports: {http: 8081}}
---
"""


def test_an_entry_selects_workloads_and_workload_entries() -> None:
    text = WORKLOAD_ENTRY + entry(
        "{hosts: [a.b], location: MESH_INTERNAL, resolution: STATIC, "
        "ports: [{number: 80, name: http, targetPort: 8080}], "
        "workloadSelector: {labels: {app: reviews}}}"
    )
    record = snapshot(text, [V1]).services["a.b"]
    assert places(record) == [("198.18.0.1", 8080, 80), ("198.18.2.1", 8081, 80)]
    assert [found.mutual_tls for found in record.endpoints] == [True, True]
    assert record.endpoints[1].service_account == "vm"


def test_a_service_selects_workload_entries_too() -> None:
    text = WORKLOAD_ENTRY + service(
        "{selector: {app: reviews}, ports: [{port: 80, name: http, targetPort: http}]}"
    )
    assert places(reviews(text, V1)) == [("198.18.0.1", 9080, 80), ("198.18.2.1", 8081, 80)]


def test_entries_of_a_host_are_merged_in_a_namespace_only() -> None:
    def dns(name: str, namespace: str, port: int) -> str:
        spec = f"{{hosts: [a.b], resolution: DNS, ports: [{{number: {port}, name: a}}]}}"
        return entry(spec, name).replace("{name:", f"{{namespace: {namespace}, name:", 1)

    ports = snapshot(dns("x", "one", 1) + dns("y", "one", 2) + dns("z", "two", 3))
    assert [port.number for port in ports.services["a.b"].ports] == [1, 2]
    assert places(ports.services["a.b"]) == [("a.b", 1, 1), ("a.b", 2, 2)]
    assert places(ports.services["a.b@two"]) == [("a.b", 3, 3)]


def test_a_host_is_what_most_clients_see_and_each_namespace_has_its_own() -> None:
    """The plain name is the first that all see. Who exports to others only has nothing of it."""

    def of(namespace: str, export_to: str) -> str:
        spec = f"{{hosts: [a.b], exportTo: ['{export_to}'], ports: [{{number: 80, name: a}}]}}"
        return entry(spec).replace("{name:", f"{{namespace: {namespace}, name:", 1)

    text = of("one", ".") + of("two", "*") + of("three", "*") + of("four", "five")
    services = snapshot(text).services
    assert set(services) == {"a.b", "a.b@one", "a.b@two", "a.b@four"}
    owners = {
        client: seen_from(client, services.values())["a.b"].namespace
        for client in ("", "one", "two", "three", "four", "five", "six")
    }
    assert owners == {
        "": "three",
        "one": "one",
        "two": "two",
        "three": "three",
        "four": "three",
        "five": "four",
        "six": "three",
    }


def test_nobody_takes_a_service_s_host_by_an_entry() -> None:
    text = service("{selector: {app: reviews}, ports: [{port: 80}]}") + entry(
        "{hosts: [reviews.ns.svc.cluster.local], resolution: DNS, location: MESH_EXTERNAL, "
        "ports: [{number: 81, name: a}]}"
    )
    record = reviews(text, V1)
    assert not record.external
    assert places(record) == [("198.18.0.1", 80, 80)]


def test_virtual_services_are_ordered_oldest_first() -> None:
    def route(name: str, made: str) -> str:
        return (
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\n"
            f"metadata: {{name: {name}, creationTimestamp: '{made}'}}\n"
            "spec: {hosts: [a], tcp: [{route: [{destination: {host: a}}]}]}\n---\n"
        )

    text = (
        route("young", "2024-01-02T00:00:00Z")
        + route("b", "2024-01-01T00:00:00Z")
        + route("a", "2024-01-01T00:00:00Z")
    )
    ordered = snapshot(text).virtual_services
    assert [found.metadata.name for found in ordered] == ["a", "b", "young"]


def test_the_order_of_what_comes_in_does_not_matter() -> None:
    text = WORKLOAD_ENTRY + service("{selector: {app: reviews}, ports: [{port: 80}]}")
    objects = [read.object for read in read_objects(text, "f.yaml", "ns")]
    one = build_snapshot(objects, [V1, V2], OPTIONS, {})
    other = build_snapshot(reversed(objects), [V2, V1], OPTIONS, {})
    assert one == other


def test_cost_grows_with_endpoints_not_with_services_times_workloads() -> None:
    def cost(services: int) -> float:
        text = "".join(
            service(f"{{selector: {{app: a{number}}}, ports: [{{port: 80}}]}}", f"s{number}")
            for number in range(services)
        )
        objects = [read.object for read in read_objects(text, "f.yaml", "ns")]
        workloads = [
            pod(f"p{number}", "198.18.0.1", app=f"a{number}") for number in range(services)
        ]
        times: list[float] = []
        for _ in range(5):
            start = time.process_time()
            build_snapshot(objects, workloads, OPTIONS, {})
            times.append(time.process_time() - start)
        return min(times)

    # Eight times as many of both: a scan of all for each would cost 64 times as much, each time.
    assert any(cost(800) < 24 * cost(100) for _ in range(5))
