"""Which connections a gateway passes on to where, by what Gateways and VirtualServices say.

Gateway and VirtualServices are of other namespaces than the gateway's workload.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.envoy.captured.place import Backend, Place

BACKENDS = {
    name: Backend(name, {443: "tls", 9000: "tcp", 80: "http"})
    for name in ("nginx", "foreign", "first", "second")
}
GATEWAY = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: default}
spec:
  selector: {istio: edge}
  servers: [SERVERS]
"""
SERVER = "{{port: {{number: {port}, name: n{port}, protocol: {protocol}}}, hosts: {hosts}{tls}}}"


def server(port: int, protocol: str, *hosts: str) -> str:
    tls = ", tls: {mode: PASSTHROUGH}" if protocol in {"TLS", "HTTPS"} else ""
    written = "[" + ", ".join(f'"{host}"' for host in hosts) + "]"
    return SERVER.format(port=port, protocol=protocol, hosts=written, tls=tls)


def gateway(*servers: str) -> str:
    return GATEWAY.replace("SERVERS", ", ".join(servers))


def routing(name: str, namespace: str, hosts: str, **rules: str) -> str:
    written = "\n".join(f"  {kind}: {rule}" for kind, rule in rules.items())
    return f"""
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  hosts: [{hosts}]
  gateways: [default/edge, mesh]
{written}
"""


def tls(backend: str, *sni: str, **match: str) -> str:
    more = "".join(f", {name}: {value}" for name, value in match.items())
    names = ", ".join(f'"{one}"' for one in sni)
    return (
        f"{{match: [{{sniHosts: [{names}]{more}}}], "
        f"route: [{{destination: {{host: {backend}.test, port: {{number: 443}}}}}}]}}"
    )


def tcp(backend: str, *matches: str) -> str:
    match = f"match: [{', '.join(matches)}], " if matches else ""
    to = f"{{host: {backend}.test, port: {{number: 9000}}}}"
    return f"{{{match}route: [{{destination: {to}}}]}}"


def services() -> str:
    return "".join(
        f"""
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {name}, namespace: apps}}
spec:
  hosts: [{name}.test]
  resolution: STATIC
  ports:
  - {{number: 443, name: tls, protocol: TLS}}
  - {{number: 9000, name: tcp, protocol: TCP}}
  - {{number: 80, name: http, protocol: HTTP}}
  endpoints: [{{address: {backend.address}}}]
"""
        for name, backend in BACKENDS.items()
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with Place(tmp_path_factory.mktemp("gateway"), BACKENDS.values()) as made:
        yield made


def load(place: Place, *texts: str) -> None:
    place.load("".join((*texts, services())), place.workload("edge", "istio-system", istio="edge"))


# ---- hosts


@pytest.mark.parametrize(
    ("hosts", "owner", "is_served"),
    [
        (("nginx.example.com",), "apps", True),
        (("*.example.com",), "apps", True),
        (("*",), "apps", True),
        (("*/nginx.example.com",), "apps", True),
        (("apps/nginx.example.com",), "apps", True),
        (("apps/*",), "apps", True),
        (("./nginx.example.com",), "default", True),
        (("default/nginx.example.com", "apps/other.test"), "default", True),
        (("other.example.com",), "apps", False),
        (("*.other.com",), "apps", False),
        (("default/nginx.example.com",), "apps", False),
        (("./nginx.example.com",), "apps", False),
        (("./*",), "apps", False),
        (("default/nginx.example.com", "apps/other.test"), "apps", False),
    ],
)
def test_a_server_serves_a_host_only_to_whom_it_is_listed_for(
    place: Place, hosts: tuple[str, ...], owner: str, is_served: bool
) -> None:
    """The same for HTTP, TLS that is passed through, and TCP."""
    load(
        place,
        gateway(
            server(80, "HTTP", *hosts),
            server(443, "TLS", *hosts),
            server(8443, "HTTPS", *hosts),
            server(9000, "TCP", *hosts),
        ),
        routing(
            "nginx",
            owner,
            "nginx.example.com",
            http="[{route: [{destination: {host: nginx.test, port: {number: 80}}}]}]",
            tls=f"[{tls('nginx', 'nginx.example.com')}]",
            tcp=f"[{tcp('nginx')}]",
        ),
    )
    answered = {
        spoken: place.ask_gateway(spoken.partition(" ")[0], port, "nginx.example.com")
        for spoken, port in (("http", 80), ("tls", 443), ("tls of https", 8443), ("tcp", 9000))
    }
    assert answered == dict.fromkeys(answered, "nginx" if is_served else "")


def test_a_name_is_served_only_as_far_as_both_sides_list_it(place: Place) -> None:
    """A wildcard of the VirtualService opens no more than the Gateway does."""
    load(
        place,
        gateway(server(443, "TLS", "nginx.example.com", "default/*.default.test")),
        routing("wide", "apps", '"*.example.com"', tls=f"[{tls('foreign', '*.example.com')}]"),
        routing("grab", "apps", '"*"', tls=f"[{tls('foreign', 'a.default.test')}]"),
    )
    assert place.ask_gateway("tls", 443, "nginx.example.com") == "foreign"
    assert place.ask_gateway("tls", 443, "other.example.com") == ""
    assert place.ask_gateway("tls", 443, "a.default.test") == ""
    assert place.ask_gateway("tls", 443) == ""


def test_a_gateway_that_may_not_have_a_host_leaves_it_to_one_that_may(place: Place) -> None:
    load(
        place,
        gateway(server(443, "TLS", "default/a.test"), server(9000, "TCP", "default/a.test")),
        routing(
            "a", "apps", "a.test", tls=f"[{tls('foreign', 'a.test')}]", tcp=f"[{tcp('foreign')}]"
        ),
        routing(
            "b", "default", "a.test", tls=f"[{tls('nginx', 'a.test')}]", tcp=f"[{tcp('nginx')}]"
        ),
    )
    assert place.ask_gateway("tls", 443, "a.test") == "nginx"
    assert place.ask_gateway("tcp", 9000) == "nginx"


# ---- matches


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ("gateways: [mesh]", False),
        ("gateways: [default/edge]", True),
        ("port: 1", False),
        ("sourceLabels: {istio: other}", False),
        ("sourceLabels: {istio: edge}", True),
        ("sourceNamespace: default", False),
        ("sourceNamespace: istio-system", True),
        ('destinationSubnets: ["198.19.0.0/16"]', False),
        ('destinationSubnets: ["198.18.75.0/24"]', True),
        ("gateways: [mesh, default/edge]", True),
        ("gateways: [default/edge], sourceNamespace: default", False),
    ],
)
def test_a_route_is_taken_only_where_its_match_holds(
    place: Place, condition: str, holds: bool
) -> None:
    """For tls and tcp; what does not match leaves the connection to the next route."""
    name, _, value = condition.partition(": ")
    first_tcp = tcp("first", f"{{{condition}}}")
    first_tls = tls("first", "a.test", **{name: value})
    load(
        place,
        gateway(server(443, "TLS", "a.test"), server(9000, "TCP", "a.test")),
        routing(
            "a",
            "apps",
            "a.test",
            tls=f"[{first_tls}, {tls('second', 'a.test')}]",
            tcp=f"[{first_tcp}, {tcp('second')}]",
        ),
    )
    wanted = "first" if holds else "second"
    assert place.ask_gateway("tls", 443, "a.test") == wanted
    assert [place.ask_gateway("tcp", 9000) for _ in range(3)] == [wanted] * 3


def test_a_match_on_a_port_is_on_the_servers_not_the_workloads(place: Place) -> None:
    service = """
---
apiVersion: v1
kind: Service
metadata: {name: edge, namespace: istio-system}
spec:
  selector: {istio: edge}
  ports: [{name: tcp, port: 31400, targetPort: 9001}]
"""
    load(
        place,
        gateway(server(31400, "TCP", "*")),
        routing(
            "a",
            "apps",
            '"*"',
            tcp=f"[{tcp('first', '{port: 9001}')}, {tcp('second', '{port: 31400}')}]",
        ),
        service,
    )
    assert place.ask_gateway("tcp", 9001) == "second"
