"""Tunnels lead to workloads whose ends of them are of another implementation of HBONE."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Generator, Iterator
from typing import Final

import pytest

from tests.envoy.between.foreign import Foreign
from tests.envoy.between.mesh import uri_of
from tests.envoy.between.tunnels import CLIENTS, VIRTUAL, Nodes, two_nodes
from tests.envoy.captured.place import eventually

MUCH: Final = b"x" * (8 << 20)
"""More than all buffers on the way hold."""


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with two_nodes(tmp_path_factory) as made:
        made.load(addresses={"second": made.near.outside.address})
        yield made


@contextlib.contextmanager
def served(nodes: Nodes, account: str, answer: bytes) -> Generator[Foreign]:
    """By who holds the certificate of an account."""
    context = nodes.near.holder(account, ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["h2"])
    with contextlib.closing(Foreign(nodes.near.outside, context, answer)) as foreign:
        yield foreign


def test_a_server_that_finishes_first_is_sent_what_comes_after_and_its_answer_is_whole(
    nodes: Nodes,
) -> None:
    """Envoy's own end of a tunnel loses both."""
    with (
        served(nodes, "second", MUCH) as foreign,
        nodes.near.hosts["client"].connect(VIRTUAL["second"], 9002) as client,
    ):
        stream = client.makefile("rb")
        assert stream.read(1) == b"x"
        assert len(stream.read()) == len(MUCH) - 1
        client.sendall(b"question")
        client.close()
        stream.close()
        eventually(
            lambda: list(foreign.received.values()) == [b"question"], "the question is there"
        )


def test_each_client_has_one_tunnel_in_its_own_name(nodes: Nodes) -> None:
    with served(nodes, "second", b"hello\n") as foreign:
        for name in CLIENTS * 3:
            assert nodes.first_words(name, "second") == b"hello\n"
        assert sorted(foreign.clients) == sorted(map(uri_of, CLIENTS))


def test_an_end_of_another_identity_is_told_nothing(nodes: Nodes) -> None:
    with served(nodes, "server", b"hello\n") as foreign:
        assert nodes.first_words("client", "second") == b""
        assert foreign.received == {}
