"""Tokens of end users, by keys that a node fetches from an issuer outside the mesh.

The issuer is a stranger's program. Clients, the server and the issuer are in three namespaces.
"""

from __future__ import annotations

import contextlib
import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests import tokens
from tests.tokens import Key

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from tests.node.node import Node

URL = "http://server.mesh.svc.cluster.local/who"
CLIENT = "caller.users"
SCRIPT = """
import http.server, sys, threading
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = sys.argv[1].encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
server = http.server.HTTPServer(("0.0.0.0", 8088), Page)
threading.Thread(target=server.serve_forever, daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module", autouse=True)
def caller(node: Node) -> Iterator[None]:
    write, pod = node.write, node.write.deployment("caller", "users")
    node.up(write.dump(write.namespace("users", enrolled=True), pod))
    node.eventually(node.is_well, "all is well")
    yield
    node.up(write.dump(pod | {"spec": pod["spec"] | {"replicas": 0}}))
    node.eventually(node.is_well, "all is well again")


def authentication(**rule: Any) -> str:
    value = {
        "apiVersion": "security.istio.io/v1",
        "kind": "RequestAuthentication",
        "metadata": {"name": "users", "namespace": "mesh"},
        "spec": {"selector": {"matchLabels": {"app": "server"}}, "jwtRules": [rule]},
    }
    return json.dumps(value)


@contextlib.contextmanager
def issuing(node: Node, *keys: Key) -> Generator[None]:
    """An issuer that says these are its keys, until its input ends."""
    with node.begin(
        "stranger.outside", sys.executable, "-c", SCRIPT, tokens.key_set(*keys)
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        yield


def status(node: Node, key: Key | None) -> str:
    line = ("-H", f"authorization: Bearer {tokens.token(key)}") if key else ()
    return node.status_of(CLIENT, URL, *line)


@pytest.fixture
def url(node: Node) -> str:
    return f"http://{node.pod('stranger.outside').plan.address}:8088/keys"


def test_keys_are_fetched_and_stay_while_the_issuer_is_away(node: Node, url: str) -> None:
    mine, other = Key("mine"), Key("other")
    with issuing(node, mine), node.applied(authentication(issuer=tokens.ISSUER, jwksUri=url)):
        node.eventually(lambda: status(node, mine) == "200", "the token is believed")
        assert (status(node, other), status(node, None)) == ("401", "200")
    assert status(node, other) == "200"


def test_until_keys_are_there_no_token_is_believed_and_status_says_why(
    node: Node, url: str
) -> None:
    mine = Key("mine")
    with node.applied(authentication(issuer=tokens.ISSUER, jwksUri=url)):
        node.eventually(lambda: status(node, mine) == "401", "the token is not believed")
        assert status(node, None) == "200"
        node.eventually(
            lambda: "no token of it is believed" in node.meshctl("status").errors,
            "status says why",
        )
        with issuing(node, mine):
            node.eventually(lambda: status(node, mine) == "200", "the token is believed")
    node.eventually(node.is_well, "all is well again")


def test_this_machine_is_not_asked(node: Node) -> None:
    for host in ("127.0.0.1", "169.254.169.254"):
        rule = {"issuer": "x", "jwksUri": f"http://{host}:1/keys"}
        with node.applied(authentication(**rule)):
            node.eventually(
                lambda host=host: f"{host} is not asked" in node.meshctl("status").errors,
                "status says why",
            )
    node.eventually(node.is_well, "all is well again")


def test_a_try_reads_the_token_of_a_request(node: Node) -> None:
    rule = {"issuer": tokens.ISSUER, "jwks": tokens.key_set(Key())}
    with node.applied(authentication(**rule)):
        cases: list[tuple[dict[str, Any], int]] = [({}, 0), ({"iss": "else"}, 1), ({"exp": 1}, 1)]
        for claims, expected in cases:
            token = tokens.token(Key(), None, **claims)
            tried = node.meshctl(
                "authz", "try", "deploy/caller", URL, "-n", "users", "--token", token
            )
            assert tried.status == expected, tried.output
