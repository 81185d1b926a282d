"""Gateways as Istio's tasks have them: their pods in istio-system, networking objects in default,
workloads in a third namespace, and servers outside of the mesh.

https://istio.io/latest/docs/tasks/traffic-management/egress/. Only the DestinationRule is where
clients are: it counts for those of its own namespace.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.node.certificates import certificate

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from tests.node.node import Node

EGRESS = "istio-egressgateway.istio-system.svc.cluster.local"
OUTSIDE = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: cnn, namespace: default}
spec:
  hosts: [edition.cnn.test]
  ports:
  - {number: 80, name: http-port, protocol: HTTP, targetPort: 8080}
  - {number: 443, name: https, protocol: HTTPS, targetPort: 8443}
  - {number: 90, name: grpc, protocol: GRPC, targetPort: 9090}
  - {number: 9000, name: tcp, protocol: TCP}
  resolution: STATIC
  endpoints: [{address: EXTERNAL}]
---
"""
GATEWAY = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: istio-egressgateway, namespace: default}
spec:
  selector: {istio: egressgateway}
  servers: [SERVERS]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: egressgateway-for-cnn, namespace: mesh}
spec:
  host: HOST
  subsets: [{name: cnn POLICY}]
---
"""
ROUTES = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: direct-cnn-through-egress-gateway, namespace: default}
spec:
  hosts: [HOSTS]
  gateways: [istio-egressgateway, mesh]
  KIND:
  - match: [{gateways: [mesh], port: FROM SNI}]
    route: [{destination: {host: GATEWAY, subset: cnn, port: {number: VIA}}, weight: 100}]
  - match: [{gateways: [istio-egressgateway], port: VIA SNI}]
    route: [{destination: {host: TARGET, port: {number: TO}}, weight: 100}]
---
"""
MUTUAL = ", tls: {mode: ISTIO_MUTUAL, sni: edition.cnn.test}"
PORTS = (("http2", 80, 8080), ("https", 443, 8443), ("tls-mongo", 9142, 9142), ("grpc", 90, 9090))


def gateway(port: int, protocol: str, host: str, mode: str = "", client: str = "") -> str:
    """A server of the egress gateway, and how clients of the mesh connect to it."""
    tls = f", tls: {{mode: {mode}}}" if mode else ""
    server = f'{{port: {{number: {port}, name: x, protocol: {protocol}}}, hosts: ["{host}"]{tls}}}'
    policy = f", trafficPolicy: {{portLevelSettings: [{{port: {{number: {port}}}{client}}}]}}"
    return (
        GATEWAY.replace("SERVERS", server)
        .replace("HOST", EGRESS)
        .replace(" POLICY", policy if client else "")
    )


def routes(kind: str, at: int, via: int, to: int, host: str = "edition.cnn.test") -> str:
    """What clients send to port ``at`` goes to the gateway's ``via``, and from there to ``to``."""
    sni = f", sniHosts: ['{host}']" if kind == "tls" else ""
    target = host.replace("*", "www")
    text = ROUTES.replace("HOSTS", f"'{host}'").replace("KIND", kind).replace(" SNI", sni)
    text = text.replace("GATEWAY", EGRESS).replace("TARGET", target)
    for name, number in (("FROM", at), ("VIA", via), ("TO", to)):
        text = text.replace(name, str(number))
    return text


@pytest.fixture(scope="module")
def outside(node: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The gateways, and the text for what is outside of the mesh."""
    key, cert = certificate(tmp_path_factory.mktemp("outside"), "edition.cnn.test")
    (node.images / "tls.pem").write_bytes(key.read_bytes() + cert.read_bytes())
    (node.images / "tls.pem").chmod(0o644)
    write = node.write
    pods = [
        write.deployment("egress", "istio-system", labels={"istio": "egressgateway"}),
        write.deployment("ingress", "istio-system", labels={"istio": "ingressgateway"}),
        write.deployment("secure", "outside", program="tls.py", ready=8443),
    ]
    node.up(
        write.dump(
            write.namespace("istio-system", enrolled=True),
            *pods,
            write.service("istio-egressgateway", "istio-system", app="egress", ports=PORTS),
        )
    )
    yield OUTSIDE
    node.up(write.dump(*(pod | {"spec": pod["spec"] | {"replicas": 0}} for pod in pods)))
    node.eventually(node.is_well, "all is well again")


def address(node: Node, pod: str) -> str:
    return node.pod(pod).plan.address


def entry(node: Node, text: str, server: str = "external.outside") -> str:
    return text.replace("EXTERNAL", address(node, server))


def peers(answers: list[dict[str, Any]]) -> set[str]:
    return {answer["peer"][0].removeprefix("::ffff:") for answer in answers}


@pytest.mark.parametrize(
    ("server", "client"),
    [(("HTTP", ""), ""), (("HTTPS", "ISTIO_MUTUAL"), MUTUAL)],
    ids=["plaintext", "mutual TLS"],
)
def test_http_leaves_by_the_egress_gateway(
    node: Node, outside: str, server: tuple[str, str], client: str
) -> None:
    """Its Service's port speaks HTTP/2, and clients' HTTP/1.1 and HTTP/2 arrive as they must."""
    text = entry(node, outside) + routes("http", 80, 80, 80)
    with node.applied(text + gateway(80, server[0], "edition.cnn.test", server[1], client)):
        assert peers(node.answers("alice", "http", "edition.cnn.test:80", 3)) == {
            address(node, "egress.istio-system")
        }
        done = node.curl("alice", "--http2-prior-knowledge", "http://edition.cnn.test/who")
        assert peers([done.json()]) == {address(node, "egress.istio-system")}


@pytest.mark.parametrize(
    ("server", "client"),
    [(("GRPC", ""), ""), (("HTTPS", "ISTIO_MUTUAL"), MUTUAL)],
    ids=["plaintext", "mutual TLS"],
)
def test_grpc_leaves_by_the_egress_gateway(
    node: Node, outside: str, server: tuple[str, str], client: str
) -> None:
    text = entry(node, outside) + routes("http", 90, 90, 90)
    with node.applied(text + gateway(90, server[0], "edition.cnn.test", server[1], client)):
        answers = node.answers("alice", "grpc", "edition.cnn.test:90", 3)
        assert {answer["peer"].rpartition(":")[0] for answer in answers} == {
            f"ipv4:{address(node, 'egress.istio-system')}"
        }


def secure(node: Node, url: str, *arguments: str) -> dict[str, Any]:
    done = node.curl("alice", "-k", *arguments, url)
    assert done.status == 0, done.errors
    return json.loads(done.output)


def test_tls_leaves_by_the_egress_gateway_as_it_is(node: Node, outside: str) -> None:
    text = entry(node, outside, "secure.outside") + routes("tls", 443, 443, 443)
    with node.applied(text + gateway(443, "TLS", "edition.cnn.test", "PASSTHROUGH")):
        seen = secure(node, "https://edition.cnn.test/")
        assert seen["peer"] == address(node, "egress.istio-system")
        assert seen["name"] == "edition.cnn.test"


ORIGINATION = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: originate-tls-for-cnn, namespace: default}
spec:
  host: edition.cnn.test
  trafficPolicy:
    portLevelSettings:
    - port: {number: 443}
      tls: {mode: SIMPLE, insecureSkipVerify: true}
---
"""


@pytest.mark.parametrize(
    ("server", "client"),
    [(("HTTP", ""), ""), (("HTTPS", "ISTIO_MUTUAL"), MUTUAL)],
    ids=["plaintext", "mutual TLS"],
)
def test_the_egress_gateway_begins_tls(
    node: Node, outside: str, server: tuple[str, str], client: str
) -> None:
    text = entry(node, outside, "secure.outside") + routes("http", 80, 80, 443) + ORIGINATION
    with node.applied(text + gateway(80, server[0], "edition.cnn.test", server[1], client)):
        done = node.curl("alice", "http://edition.cnn.test/")
        assert done.json()["peer"] == address(node, "egress.istio-system")
        assert done.json()["name"] == "edition.cnn.test"


def test_the_egress_gateway_verifies_by_a_secret_of_its_own_namespace(
    node: Node, outside: str
) -> None:
    """Which the rule, in another namespace, only names. Without it nothing is let through."""
    _, begin, rest = (node.images / "tls.pem").read_text().partition("-----BEGIN CERTIFICATE")
    metadata = {"name": "cnn-ca", "namespace": "istio-system"}
    beside = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata}
    beside["stringData"] = {"ca.crt": begin + rest}
    text = entry(node, outside, "secure.outside") + routes("http", 80, 80, 443) + ORIGINATION
    text = text.replace("insecureSkipVerify: true", "credentialName: cnn-ca")
    with node.applied(text + gateway(80, "HTTP", "edition.cnn.test")):
        assert node.status_of("alice", "http://edition.cnn.test/") == "503"
        with node.applied(json.dumps(beside)):
            node.eventually(
                lambda: node.status_of("alice", "http://edition.cnn.test/") == "200",
                "the gateway trusts the server",
            )


def test_tcp_leaves_by_the_egress_gateway_in_mutual_tls(node: Node, outside: str) -> None:
    """As MongoDB's does in Istio's blog; the server speaks first."""
    text = entry(node, outside) + routes("tcp", 9000, 9142, 9000)
    with node.applied(text + gateway(9142, "TLS", "edition.cnn.test", "ISTIO_MUTUAL", MUTUAL)):
        answers = node.answers("alice", "tcp", "edition.cnn.test:9000", 2)
        assert peers(answers) == {address(node, "egress.istio-system")}


def test_a_wildcard_leaves_by_the_egress_gateway_whatever_address_its_names_have(
    node: Node, outside: str
) -> None:
    """Where one server has all of them; only one of its names is a service."""
    text = entry(node, outside, "secure.outside").replace("edition.cnn.test", "www.wiki.test")
    text += routes("tls", 443, 443, 443, "*.wiki.test")
    text += gateway(443, "HTTPS", "*.wiki.test", "PASSTHROUGH")
    somewhere = ("--resolve", f"en.wiki.test:443:{address(node, 'external.outside')}")
    with node.applied(text):
        for url, arguments in (
            ("https://www.wiki.test/", ()),
            ("https://en.wiki.test/", somewhere),
        ):
            assert secure(node, url, *arguments)["peer"] == address(node, "egress.istio-system")


LOOKED_UP = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: localhost, namespace: default}
spec:
  hosts: ["*.localhost"]
  ports: [{number: 9443, name: tls, protocol: TLS}]
  resolution: DYNAMIC_DNS
---
"""


def test_names_of_a_wildcard_are_looked_up_at_the_egress_gateway(node: Node, outside: str) -> None:
    """Those of ``localhost`` are known everywhere: the server that has them is beside the gateway's
    proxy, where no client could reach it."""
    del outside
    text = LOOKED_UP + gateway(443, "TLS", "*.localhost", "PASSTHROUGH")
    text += routes("tls", 9443, 443, 9443, "*.localhost").replace("www.localhost", "'*.localhost'")
    argv, environment = node.command(
        "egress.istio-system", sys.executable, "/srv/app/tls.py", "9443"
    )
    asked = ("--resolve", f"a.localhost:9443:{address(node, 'external.outside')}")
    with node.applied(text), running(argv, environment):
        node.eventually(
            lambda: node.curl("alice", "-k", *asked, "https://a.localhost:9443/").status == 0,
            "the server beside the gateway answers",
        )
        seen = secure(node, "https://a.localhost:9443/", *asked)
        assert (seen["peer"], seen["name"]) == ("127.0.0.1", "a.localhost")
        assert seen["pod"].startswith("egress")


@contextlib.contextmanager
def running(argv: list[str], environment: dict[str, str]) -> Generator[None]:
    process = subprocess.Popen(argv, env=environment, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()


INGRESS = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: tcp-echo-gateway, namespace: default}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 31400, name: tcp, protocol: TCP}, hosts: ["*"]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: tcp-echo, namespace: default}
spec:
  hosts: ["*"]
  gateways: [tcp-echo-gateway]
  tcp:
  - match: [{port: 31400}]
    route: [{destination: {host: server.mesh.svc.cluster.local, port: {number: 91}}}]
---
"""
NEIGHBOUR = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: aaa, namespace: outside}
spec:
  hosts: ["*"]
  gateways: [default/tcp-echo-gateway]
  tcp: [{route: [{destination: {host: bare.mesh.svc.cluster.local, port: {number: 1}}}]}]
---
"""


@pytest.mark.parametrize(("host", "port"), [("server", 91), ("bare", 9000)])
def test_tcp_comes_in_by_the_ingress_gateway(
    node: Node, outside: str, host: str, port: int
) -> None:
    """To a headless service too. No other namespace takes it, where the Gateway lists its own."""
    del outside
    own = INGRESS.replace('"*"]}', '"./*"]}').replace("server.mesh", f"{host}.mesh")
    own = own.replace("number: 91", f"number: {port}")
    target = f"{address(node, 'ingress.istio-system')}:31400"
    with node.applied(NEIGHBOUR + own):
        answers = node.answers("stranger.outside", "tcp", target, 3)
        assert all(answer["pod"].startswith("server") for answer in answers)
