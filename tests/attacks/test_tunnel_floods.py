"""Floods of frames that cost their receiver more than their sender end the tunnel in which they
come, and no other.

The attacker holds the certificate of a workload that it runs, and reads no answer.
"""

from __future__ import annotations

import contextlib
import ssl
import struct
from collections.abc import Callable, Iterator

import pytest

from meshd.model.interception import HBONE_PORT
from tests.envoy.between import http2
from tests.envoy.between.application import BANNER, Application
from tests.envoy.between.tunnels import Nodes, Tunnel, certified, two_nodes

PRIORITY, RST_STREAM, PING, WINDOW_UPDATE, CONTINUATION = 2, 3, 6, 8, 9
END_HEADERS, CANCEL = 4, 8
Flood = Callable[[str], Iterator[bytes]]
"""What is sent, by the authority that is asked for."""
FRAMES = 100_000
"""A flood has so many. Envoy ends the tunnel long before."""
STREAMS = 1000
"""And connections that a rapid reset may make the application see: about as many as Envoy allows to
be taken back before it looks at how many were not."""


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with two_nodes(tmp_path_factory) as made:
        yield made


@pytest.fixture(scope="module", autouse=True)
def application(nodes: Nodes) -> Iterator[Application]:
    made = Application(nodes.far.hosts["server"].netns, (8080,), (9000,))
    yield made
    made.close()


def connect(stream: int, authority: str, flags: int = END_HEADERS) -> bytes:
    names = ((b":method", b"CONNECT"), (b":authority", authority.encode()))
    block = b"".join(http2.literal(key, value) for key, value in names)
    return http2.frame(http2.HEADERS, flags, stream, block)


def resets(authority: str) -> Iterator[bytes]:
    """Each stream is asked for and taken back at once."""
    for stream in range(1, FRAMES, 2):
        cancel = http2.frame(RST_STREAM, 0, stream, struct.pack(">I", CANCEL))
        yield connect(stream, authority) + cancel


def repeated(frame: bytes, before: Callable[[str], bytes] = lambda _: b"") -> Flood:
    def made(authority: str) -> Iterator[bytes]:
        yield before(authority)
        for _ in range(FRAMES // 50):
            yield frame * 50

    return made


FLOODS: dict[str, Flood] = {
    "rapid reset": resets,
    "ping": repeated(http2.frame(PING, 0, 0, b"x" * 8)),
    "settings": repeated(http2.frame(http2.SETTINGS, 0, 0, b"")),
    "priority": repeated(http2.frame(PRIORITY, 0, 1, b"\0\0\0\0\x10")),
    "window update": repeated(http2.frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1))),
    "empty data": repeated(http2.frame(http2.DATA, 0, 1, b""), lambda to: connect(1, to)),
    "continuation": repeated(
        http2.frame(CONTINUATION, 0, 1, http2.literal(b"x-a", b"y" * 50)),
        lambda to: connect(1, to, flags=0),
    ),
}


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_ends_its_tunnel_and_no_other(
    nodes: Nodes, application: Application, flood: str
) -> None:
    own = nodes.far.hosts["server"].address
    with contextlib.closing(Tunnel.to(nodes.far, own, certified(nodes.near, "client"))) as other:
        assert other.connect(f"{own}:9000")
        before = len(application.peers)
        assert is_ended(nodes, FLOODS[flood](f"{own}:9000"))
        assert len(application.peers) - before < STREAMS
        assert other.ask(b"") == BANNER
        assert other.connect(f"{own}:9000")
        assert other.ask(b"") == BANNER


def is_ended(nodes: Nodes, flood: Iterator[bytes]) -> bool:
    """Whether a program with a certificate that sends this loses its connection."""
    raw = nodes.far.outside.connect(nodes.far.hosts["server"].address, HBONE_PORT)
    with certified(nodes.near, "mallory").wrap_socket(raw) as connection:
        try:
            connection.sendall(http2.PREFACE)
            for frames in flood:
                connection.sendall(frames)
        except (ConnectionError, ssl.SSLError):
            return True
    return False
