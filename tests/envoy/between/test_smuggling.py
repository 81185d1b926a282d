"""No request reaches an application in the body, the headers or the upgrade of another, and none is
read in two ways.

Each attack names its caller falsely in a place where a second request, or a second header, might
begin. The proxies may refuse it or pass on what it says; the application never sees the false name.
"""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Iterable, Mapping
from typing import Final

import pytest

from tests.envoy.between import http2
from tests.envoy.between.application import Application
from tests.envoy.between.manifests import ADDRESS
from tests.envoy.between.mesh import Mesh, uri_of

NAME: Final = b"x-forwarded-client-cert"
FORGED: Final = b"By=a;URI=" + uri_of("king").encode()
LINE: Final = NAME + b": " + FORGED
HIDDEN: Final = b"GET /hidden HTTP/1.1\r\nhost: server.test\r\n" + LINE + b"\r\n\r\n"
UPGRADE: Final = (b"connection: upgrade", b"upgrade: websocket")
CHUNKED: Final = b"transfer-encoding: chunked"
INSIDE: Final = b" HTTP/1.1\r\n" + LINE + b"\r\nx-b: "
CONNECT: Final = (b":method", b"CONNECT")
POST: Final = (b":method", b"POST")


def http1(
    *headers: bytes, method: bytes = b"GET", body: bytes = b"", version: bytes = b"1.1"
) -> bytes:
    lines = (method + b" /seen HTTP/" + version, b"host: server.test", *headers, b"", b"")
    return b"\r\n".join(lines) + body


def second(path: bytes = b"/seen", *headers: http2.Header, body: bytes | None = None) -> bytes:
    return http2.request(path, *headers, body=body)


HTTP1: Final[Mapping[str, bytes]] = {
    "usual": http1(LINE),
    "upgrade to a WebSocket": http1(*UPGRADE, b"sec-websocket-version: 13", body=HIDDEN),
    "upgrade that fails": http1(*UPGRADE, b"sec-websocket-version: 99", body=HIDDEN),
    "upgrade by POST": http1(*UPGRADE, method=b"POST", body=HIDDEN),
    "upgrade in chunks": http1(
        *UPGRADE, CHUNKED, body=b"%x\r\n%s\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN)
    ),
    "upgrade to HTTP/2": http1(
        *(b"connection: upgrade, http2-settings", b"upgrade: h2c", b"http2-settings: AAMAAABk"),
        body=HIDDEN,
    ),
    "upgrade to both": http1(b"connection: upgrade", b"upgrade: h2c, websocket", body=HIDDEN),
    "upgrade to another": http1(b"connection: upgrade", b"upgrade: other", body=HIDDEN),
    "CONNECT": b"CONNECT server.test:8080 HTTP/1.1\r\nhost: server.test:8080\r\n\r\n" + HIDDEN,
    "CONNECT elsewhere": b"CONNECT 127.0.0.1:8080 HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n" + HIDDEN,
    "TRACE": http1(LINE, method=b"TRACE"),
    "folded line": http1(b"x-a: b\r\n " + LINE),
    "folded name": http1(b"x-a: b\r\n\t" + LINE),
    "LF alone": b"GET /seen HTTP/1.1\nhost: server.test\n" + LINE + b"\n\n",
    "CR alone": http1(b"x-a: b\r" + LINE),
    "CR before the end": http1(b"x-a: b\r\r\n" + LINE),
    "NUL": http1(b"x-a: b\0\r\n" + LINE),
    "chunk with LF alone": http1(CHUNKED, method=b"POST", body=b"3\nabc\n0\n\n" + HIDDEN),
    "chunk's extension": http1(CHUNKED, method=b"POST", body=b"3;a=b\r\nabc\r\n0\r\n\r\n" + HIDDEN),
    "chunk's extension with LF": http1(
        CHUNKED, method=b"POST", body=b"3;a\nabc\r\n0\r\n\r\n" + HIDDEN
    ),
    "chunk of great size": http1(CHUNKED, method=b"POST", body=b"1" + b"0" * 16 + b"\r\n" + HIDDEN),
    "trailer": http1(CHUNKED, method=b"POST", body=b"3\r\nabc\r\n0\r\n" + LINE + b"\r\n\r\n"),
    "another coding": http1(b"transfer-encoding: gzip, chunked", method=b"POST", body=HIDDEN),
    "coding in HTTP/1.0": http1(
        CHUNKED, method=b"POST", version=b"1.0", body=b"0\r\n\r\n" + HIDDEN
    ),
    "negative length": http1(b"content-length: -1", method=b"POST", body=HIDDEN),
    "length twice": http1(b"content-length: 0, 0", method=b"POST", body=HIDDEN),
    "underscores": http1(b"x_forwarded_client_cert: " + FORGED),
    "underscore and hyphens": http1(b"X-Forwarded_Client-Cert: " + FORGED),
    "blank before the colon": http1(NAME + b" : " + FORGED),
    "blank before the name": http1(b" " + LINE),
    "connection names it": http1(LINE, b"connection: close, " + NAME),
    "body of GET": http1(b"content-length: %d" % len(HIDDEN), body=HIDDEN),
    "expectation": http1(
        b"expect: 100-continue", b"content-length: 0", method=b"POST", body=HIDDEN
    ),
    "large header": http1(b"x-a: " + b"a" * 100_000, LINE),
    "many headers": http1(*(b"x-%d: a" % number for number in range(2000)), LINE),
}
HTTP2: Final[Mapping[str, bytes]] = {
    "usual": second(b"/seen", (NAME, FORGED), (NAME, FORGED)),
    "CRLF in a value": second(b"/seen", (b"x-a", b"b\r\n" + LINE)),
    "LF in a value": second(b"/seen", (b"x-a", b"b\n" + LINE)),
    "CRLF in a name": second(b"/seen", (b"x-a: b\r\n" + NAME, FORGED)),
    "colon in a name": second(b"/seen", (NAME + b":", FORGED)),
    "blank in a name": second(b"/seen", (NAME + b" ", FORGED)),
    "capitals in a name": second(b"/seen", (b"X-Forwarded-Client-Cert", FORGED)),
    "underscores": second(b"/seen", (b"x_forwarded_client_cert", FORGED)),
    "CRLF in the path": second(b"/seen" + INSIDE),
    "blank in the path": second(b"/seen HTTP/1.1"),
    "no path": second(b""),
    "CRLF in the method": second(b"/seen", (b":method", b"GET /hidden" + INSIDE)),
    "blank in the method": second(b"/seen", (b":method", b"GET /hidden")),
    "CRLF in the host": second(b"/seen", (b":authority", b"server.test\r\n" + LINE)),
    "CRLF in the scheme": second(b"/seen", (b":scheme", b"http://a" + INSIDE)),
    "path twice": http2.PREFACE
    + http2.frame(
        http2.HEADERS,
        5,
        1,
        b"".join(
            http2.literal(name, value)
            for name, value in (
                *((b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"server.test")),
                *((b":path", b"/seen"), (b":path", b"/hidden"), (NAME, FORGED)),
            )
        ),
    ),
    "chunked": second(
        b"/seen", POST, (b"transfer-encoding", b"chunked"), body=b"0\r\n\r\n" + HIDDEN
    ),
    "short length": second(b"/seen", POST, (b"content-length", b"0"), body=HIDDEN),
    "long length": second(b"/seen", POST, (b"content-length", b"500"), body=HIDDEN),
    "two lengths": second(
        b"/seen", POST, (b"content-length", b"3"), (b"content-length", b"5"), body=b"abc"
    ),
    "body without length": second(b"/seen", POST, body=HIDDEN),
    "body of GET": second(b"/seen", body=HIDDEN),
    "connection": second(b"/seen", (b"connection", b"close, " + NAME), (NAME, FORGED)),
    "upgrade": second(
        b"/seen", (b"connection", b"upgrade"), (b"upgrade", b"websocket"), body=HIDDEN
    ),
    "trailers": http2.request(b"/seen", POST, body=b"abc", trailers=[(NAME, FORGED)]),
    "CONNECT": second(b"", CONNECT, (b":scheme", b""), body=HIDDEN),
    "CONNECT to a WebSocket": second(b"/seen", CONNECT, (b":protocol", b"websocket"), body=HIDDEN),
    "CONNECT to another": second(b"/seen", CONNECT, (b":protocol", b"other"), body=HIDDEN),
    "CRLF in the protocol": second(b"/seen", CONNECT, (b":protocol", b"a\r\n" + LINE), body=HIDDEN),
}
_SILENCE: Final = 1.0
"""Seconds after which no more is taken to come."""
CALLERS: Final = ("client", "client, undeclared", "outside", "outside, undeclared", "gateway")


def connect(mesh: Mesh, caller: str) -> socket.socket:
    who, _, undeclared = caller.partition(", ")
    port = 7000 if undeclared else 8080
    if who == "client":
        return mesh.hosts["client"].connect(ADDRESS, port)
    if who == "gateway":
        return mesh.outside.connect(mesh.hosts["gateway"].address, 80)
    return mesh.outside.connect(mesh.hosts["server"].address, port)


def send(client: socket.socket, attack: bytes) -> None:
    """Send as much as the other end accepts before it closes the connection."""
    client.settimeout(_SILENCE)
    with contextlib.suppress(OSError):
        client.sendall(attack)


def settle(clients: Iterable[socket.socket]) -> None:
    """Read until all connections are silent, and close them."""
    left = list(clients)
    while ready := select.select(left, (), (), _SILENCE)[0]:
        for client in ready:
            with contextlib.suppress(ConnectionError):
                if client.recv(65536):
                    continue
            left.remove(client)
            client.close()
    for client in left:
        client.close()


def forged(heads: list[str]) -> list[str]:
    """Return the heads of requests that show the false name where an application looks for it."""
    return [
        head
        for head in heads
        for line in head.replace("\r", "\n").split("\n")
        if line.lower().replace("_", "-").lstrip().startswith(NAME.decode()) and "/sa/king" in line
    ]


@pytest.mark.parametrize(
    ("caller", "attacks"),
    [
        *((caller, HTTP1) for caller in CALLERS),
        # On an undeclared port the application would have to speak HTTP/2 itself.
        *((caller, HTTP2) for caller in CALLERS if "undeclared" not in caller),
    ],
)
def test_no_request_or_header_is_smuggled_past_a_proxy(
    mesh: Mesh, application: Application, caller: str, attacks: Mapping[str, bytes]
) -> None:
    application.heads.clear()
    clients = [(connect(mesh, caller), attack) for attack in attacks.values()]
    for client, attack in clients:
        send(client, attack)
    settle(client for client, _ in clients)
    assert any(" /seen " in head for head in application.heads)
    assert forged(application.heads) == []
