"""A workload sends what proxies and servers may read in two ways, or by ways around its rules."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.node.node import Node

HIDDEN = "GET /hidden HTTP/1.1\r\nhost: server\r\n\r\n"
CHUNKED = f"0\r\n\r\n{HIDDEN}"
CODED = "transfer-encoding: chunked"
AMBIGUOUS = {
    "both": f"content-length: {len(CHUNKED)}\r\n{CODED}\r\n\r\n{CHUNKED}",
    "both, the length a part of it": f"content-length: 4\r\n{CODED}\r\n\r\n{CHUNKED}",
    "two lengths": f"content-length: 0\r\ncontent-length: {len(HIDDEN)}\r\n\r\n{HIDDEN}",
    "blank before the colon": f"transfer-encoding : chunked\r\n\r\n{CHUNKED}",
    "unknown coding": f"transfer-encoding: xchunked\r\n\r\n{CHUNKED}",
    "coding twice": f"transfer-encoding: chunked, identity\r\n\r\n{CHUNKED}",
    "folded line": f"transfer-encoding:\r\n chunked\r\ncontent-length: 4\r\n\r\n{CHUNKED}",
    "length with a sign": f"content-length: +{len(HIDDEN)}\r\n\r\n{HIDDEN}",
}
"""Requests of which some servers take the body for a second request."""
SEND = """
import socket, sys
with socket.create_connection(("server", 80), 60) as connection:
    connection.sendall(sys.stdin.buffer.read())
    try:
        while part := connection.recv(65536):
            sys.stdout.write(part.decode("latin-1"))
            connection.settimeout(1)
    except TimeoutError:
        pass
"""


@pytest.mark.parametrize("how", AMBIGUOUS)
def test_no_request_is_hidden_in_the_body_of_another(node: Node, how: str) -> None:
    text = f"POST /seen HTTP/1.1\r\nhost: server\r\nconnection: close\r\n{AMBIGUOUS[how]}"
    answer = node.exec("alice", sys.executable, "-c", SEND, text=text).output
    assert answer.startswith(("HTTP/1.1 200", "HTTP/1.1 400", "HTTP/1.1 501")), answer
    assert '"path": "/hidden"' not in answer
    assert answer.count("HTTP/1.1 ") == 1


@pytest.mark.parametrize(
    "tricks",
    [
        ("connection: close, x-forwarded-client-cert",),
        ("x-forwarded-client-cert: URI=spiffe://x", "X-Forwarded-Client-Cert: URI=spiffe://y"),
        ("x-forwarded-client-cert:",),
        ("te: trailers", "trailer: x-forwarded-client-cert"),
    ],
)
def test_no_header_takes_the_callers_identity_away(node: Node, tricks: tuple[str, ...]) -> None:
    options = [part for trick in tricks for part in ("-H", trick)]
    answer = json.loads(node.curl("alice", *options, "http://server/who").output)
    (seen,) = answer["xfcc"]
    assert "/sa/alice" in seen
    assert seen.count("URI=") == 1


SOCKETS = """
import json, socket, sys
found = {}
devices = {name: name for _, name in socket.if_nameindex()}
for name, family, protocol, address in (
    ("usual", socket.AF_INET, 0, sys.argv[1]),
    ("mapped", socket.AF_INET6, 0, "::ffff:" + sys.argv[1]),
    ("mptcp", socket.AF_INET, 262, sys.argv[1]),
    *((device, socket.AF_INET, 0, sys.argv[1]) for device in devices),
):
    try:
        with socket.socket(family, socket.SOCK_STREAM, protocol) as connection:
            connection.settimeout(15 if name in devices else 60)
            if name in devices:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name.encode())
            connection.connect((address, 8080))
            connection.sendall(b"GET /who HTTP/1.1\\r\\nhost: bare\\r\\n"
                               b"connection: close\\r\\n\\r\\n")
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
            found[name] = json.loads(answer.partition(b"\\r\\n\\r\\n")[2])["xfcc"]
    except OSError as error:
        found[name] = [type(error).__name__]
print(json.dumps(found))
"""


def test_other_kinds_of_sockets_go_through_the_proxy_too(node: Node) -> None:
    address = node.pod("server").plan.address
    done = node.exec("alice", sys.executable, "-c", SOCKETS, address)
    found: dict[str, list[Any]] = json.loads(done.output)
    assert len(found["usual"]) == 1
    assert "/sa/alice" in found["usual"][0]
    assert found["mapped"] == found["usual"]
    # A kernel without MPTCP knows no such socket.
    assert found["mptcp"] == found["usual"] or found["mptcp"][0].endswith("Error")
    # Sockets that are bound to a device, among them the one that leads out of the namespace.
    bound = {name: got for name, got in found.items() if name not in {"usual", "mapped", "mptcp"}}
    assert len(bound) > 1
    for got in bound.values():
        assert got == found["usual"] or got[0].endswith("Error"), found


MALFORMED = """
import random, socket
rng = random.Random(1)
question = b"\\0\\7\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\6server\\0\\0\\1\\0\\1"
words = (b"\\xc0\\x0c", b"\\xff", b"\\0", b"\\x3f", b"\\xc0\\xff", b"a" * 64, b"\\0\\0\\x29\\xff")
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
    asking.connect(("198.18.0.53", 53))
    for _ in range(3000):
        data = bytearray(question)
        for _ in range(rng.randrange(1, 6)):
            at = rng.randrange(len(data) + 1)
            data[at : at + rng.randrange(3)] = rng.choice((*words, bytes([rng.randrange(256)])))
        try:
            asking.send(data[: rng.choice((5, 12, 20, 600))])
        except OSError:
            pass
for data in (b"\\0", b"\\xff\\xff", b"\\0\\0", b"\\0\\x20" + question, b"\\0\\5abcde" * 50):
    with socket.create_connection(("198.18.0.53", 53), 60) as asking:
        asking.sendall(data)
"""


def test_malformed_queries_end_no_process_and_cost_no_answer(node: Node) -> None:
    node.eventually(node.is_well, "all is well")
    before = _answering(node.home)
    assert before
    done = node.exec("alice", sys.executable, "-c", MALFORMED)
    assert done.status == 0, done.errors
    node.eventually(
        lambda: node.exec("bob", "getent", "hosts", "server").status == 0, "it is answered"
    )
    # A resolver that has got other tables may just have been started anew.
    assert _answering(node.home) >= before


def _answering(home: Path) -> set[tuple[str, str]]:
    """Processes of the node that take part in answers: proxies and resolvers."""
    found: set[tuple[str, str]] = set()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        if str(home) in command and ("envoy" in command or "dnsmasq" in command):
            found.add((path.name, command.partition("\0")[0]))
    return found
