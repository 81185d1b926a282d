"""Requests that come in through a gateway: HTTP, HTTPS with a Secret, and TLS passed through."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import pytest

from tests.node.certificates import certificate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.node.node import Node

CONFIG = """
apiVersion: v1
kind: Secret
metadata: {name: shop-cert, namespace: mesh}
type: kubernetes.io/tls
data: {tls.crt: CERT, tls.key: KEY}
---
apiVersion: v1
kind: Secret
metadata: {name: clients, namespace: mesh}
data: {ca.crt: CLIENT}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: front, namespace: mesh}
spec:
  selector: {istio: front}
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: [shop.test]}
  - port: {number: 443, name: https, protocol: HTTPS}
    hosts: [shop.test]
    tls: {mode: SIMPLE, credentialName: shop-cert}
  - port: {number: 444, name: mutual, protocol: HTTPS}
    hosts: [shop.test]
    tls: {mode: MUTUAL, credentialNames: [shop-cert], caCertCredentialName: clients}
  - port: {number: 445, name: optional, protocol: HTTPS}
    hosts: [shop.test]
    tls: {mode: OPTIONAL_MUTUAL, credentialNames: [shop-cert], caCertCredentialName: clients}
  - port: {number: 8443, name: tls, protocol: TLS}
    hosts: [own.test]
    tls: {mode: PASSTHROUGH}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: front, namespace: mesh}
spec:
  hosts: [shop.test]
  gateways: [front]
  http:
  - match: [{uri: {exact: /who}}, {uri: {prefix: /wait}}]
    route: [{destination: {host: server, port: {number: 80}}}]
  - match: [{uri: {prefix: /undeclared}}]
    route: [{destination: {host: server, port: {number: 70}}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: through, namespace: mesh}
spec:
  hosts: [own.test]
  gateways: [front]
  tls:
  - match: [{sniHosts: [own.test]}]
    route: [{destination: {host: tls-server, port: {number: 8443}}}]
"""
TLS_SERVER = """
import http.server, ssl
server = http.server.ThreadingHTTPServer(("", 8443), http.server.SimpleHTTPRequestHandler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/srv/app/own.pem")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""


@pytest.fixture(scope="module")
def front(node: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The gateway's address."""
    directory = tmp_path_factory.mktemp("certificates")
    write = node.write
    own_key, own_certificate = certificate(directory, "own.test")
    (node.images / "own.pem").write_bytes(own_key.read_bytes() + own_certificate.read_bytes())
    (node.images / "own.pem").chmod(0o644)
    (node.images / "tls_server.py").write_text(TLS_SERVER)
    key, shop = certificate(directory, "shop.test")
    client_key, client = certificate(directory, "client.test")
    (node.images / "client.pem").write_bytes(client_key.read_bytes() + client.read_bytes())
    (node.images / "client.pem").chmod(0o644)
    for file in (shop, own_certificate):
        (node.images / file.name).write_bytes(file.read_bytes())
    pods = [
        write.deployment("front", labels={"istio": "front"}),
        write.deployment("tls-server", program="tls_server.py", ready=8443),
        write.service("tls-server", ports=(("tls-own", 8443, 8443),)),
    ]
    node.up(write.dump(*pods))
    config = CONFIG
    for name, path in (("CERT", shop), ("KEY", key), ("CLIENT", client)):
        config = config.replace(name, base64.b64encode(path.read_bytes()).decode())
    with node.applied(config):
        address = node.pod("front").plan.address
        node.eventually(
            lambda: (
                node.status_of("stranger.outside", f"http://{address}/who", "-H", "host: shop.test")
                == "200"
            ),
            "the gateway answers",
        )
        yield address
    node.up(write.dump(*(pod | {"spec": pod["spec"] | {"replicas": 0}} for pod in pods[:2])))
    node.eventually(node.is_well, "all is well again")


def test_http_by_host_and_path(node: Node, front: str) -> None:
    def ask(path: str, host: str) -> str:
        return node.status_of("stranger.outside", f"http://{front}{path}", "-H", f"host: {host}")

    assert ask("/who", "shop.test") == "200"
    assert ask("/wait/0", "shop.test") == "200"
    assert ask("/other", "shop.test") == "404"
    assert ask("/who", "other.test") == "404"


def test_the_gateway_calls_on_in_its_own_name(node: Node, front: str) -> None:
    """And what a client from outside claims to be is removed."""
    answer = node.curl(
        "stranger.outside",
        "-H",
        "host: shop.test",
        "-H",
        "x-forwarded-client-cert: URI=spiffe://cluster.local/ns/x/sa/y",
        f"http://{front}/who",
    ).json()
    (shown,) = answer["xfcc"]
    assert "URI=spiffe://cluster.local/ns/mesh/sa/front" in shown
    assert "ns/x/sa/y" not in shown
    assert node.pod("stranger.outside").plan.address in answer["headers"]["x-forwarded-for"]


def test_https_with_a_secret(node: Node, front: str) -> None:
    done = node.curl(
        "stranger.outside",
        "--cacert",
        "/srv/app/shop.test.crt",
        "--resolve",
        f"shop.test:443:{front}",
        "https://shop.test/who",
    )
    assert json.loads(done.output)["pod"].startswith("server"), done.errors
    done = node.curl(
        "stranger.outside", "-k", "--resolve", f"other.test:443:{front}", "https://other.test/who"
    )
    assert done.status != 0


@pytest.mark.parametrize(
    ("port", "how"),
    [
        (80, ("--http2-prior-knowledge",)),
        (443, ("--http2",)),
        (443, ("--http1.1",)),
        (444, ("--http2", "--cert", "/srv/app/client.pem")),
        (445, ("--http2", "--cert", "/srv/app/client.pem")),
        (445, ("--http2",)),
        (445, ("--no-alpn",)),
    ],
)
def test_a_client_chooses_its_version_of_http(
    node: Node, front: str, port: int, how: tuple[str, ...]
) -> None:
    """In clear text and in each mode of TLS. The application speaks HTTP/1.1, whether its Service
    says so or nothing."""
    scheme = "http" if port == 80 else "https"
    trusted = ("--cacert", "/srv/app/shop.test.crt", "--resolve", f"shop.test:{port}:{front}")
    written = ("-o", "/dev/null", "-w", "%{http_code} over %{http_version}")
    spoken = "2" if how[0].startswith("--http2") else "1.1"
    for path in ("/who", "/undeclared"):
        url = f"{scheme}://shop.test:{port}{path}"
        done = node.curl("stranger.outside", *trusted, *how, *written, url)
        assert done.output == f"200 over {spoken}", (path, done.errors)


def test_https_for_clients_with_a_certificate(node: Node, front: str) -> None:
    """Their authority is in a Secret of its own."""
    ask = (
        *("--cacert", "/srv/app/shop.test.crt", "--resolve", f"shop.test:444:{front}"),
        "https://shop.test:444/who",
    )
    shown = node.curl("stranger.outside", "--cert", "/srv/app/client.pem", *ask)
    assert json.loads(shown.output)["pod"].startswith("server"), shown.errors
    assert node.curl("stranger.outside", *ask).status != 0
    other = node.curl("stranger.outside", "--cert", "/srv/app/own.pem", *ask)
    assert other.status != 0


def test_tls_passed_through(node: Node, front: str) -> None:
    """Only the server's own certificate is ever seen."""
    done = node.curl(
        "stranger.outside",
        "--cacert",
        "/srv/app/own.test.crt",
        "--resolve",
        f"own.test:8443:{front}",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        "https://own.test:8443/",
    )
    assert done.output == "200", done.errors
    done = node.curl(
        "stranger.outside",
        "-k",
        "--resolve",
        f"other.test:8443:{front}",
        "https://other.test:8443/",
    )
    assert done.status != 0


def test_the_key_is_in_no_log_and_no_answer(node: Node, front: str) -> None:
    assert front
    shown = node.meshctl("get", "secret", "-A", "-o", "yaml").output
    shown += node.meshctl("proxy-config", "secrets", "-o", "json").output
    key = base64.b64encode(b"-----BEGIN PRIVATE KEY-----").decode()[:24]
    assert "PRIVATE KEY" not in shown + node.log
    assert key not in node.meshctl("proxy-config", "secrets", "-o", "json").output
