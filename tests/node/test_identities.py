"""No connection ever carries two workloads' identities, and each carries the right one."""

from __future__ import annotations

import asyncio
import collections
import re
import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import serialization

from meshd.ca import authority
from meshd.ca.store import Store
from meshd.model.workload import Identity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.node.node import Node

CLIENTS = ("alice", "bob", "carol")
LIFETIME = 12.0
"""Seconds of a certificate: short enough to see some of them renewed, and long enough for a busy
machine, on which a renewal may take seconds."""


def identity(account: str, namespace: str = "mesh") -> str:
    return f"spiffe://cluster.local/ns/{namespace}/sa/{account}"


def named_by(answer: dict[str, Any]) -> str:
    """The client that the one x-forwarded-client-cert names."""
    (value,) = answer["xfcc"]
    (uri,) = re.findall(r"URI=([^;,]+)", value)
    return uri


def ask_together(node: Node, how: str, target: str, *counts: int) -> dict[str, list[Any]]:
    """By client."""
    with ThreadPoolExecutor() as threads:
        asked = {
            client: threads.submit(node.answers, client, how, target, *counts) for client in CLIENTS
        }
        return {client: future.result() for client, future in asked.items()}


def check(answers: dict[str, list[Any]], named: Callable[[Any], str]) -> None:
    """Each answer names its client, and no connection ever saw two clients."""
    seen: dict[Any, set[str]] = collections.defaultdict(set)
    for client, got in answers.items():
        assert got
        for answer in got:
            assert named(answer) == identity(client)
            seen[answer["connection"]].add(named(answer))
    assert all(len(names) == 1 for names in seen.values())
    assert len(seen) >= len(CLIENTS)


@pytest.mark.parametrize(("how", "port"), [("http", 80), ("http", 70), ("grpc", 90), ("grpc", 72)])
def test_clients_of_several_accounts_never_share_a_connection(
    node: Node, how: str, port: int
) -> None:
    answers = ask_together(node, how, f"server:{port}", 50, 6)
    check(answers, named_by)
    for client, got in answers.items():
        address = node.pod(client).plan.address
        assert all(address in str(answer["peer"]) for answer in got)


def test_a_connection_is_used_again_by_the_same_client(node: Node) -> None:
    """Or else the tests above would prove nothing."""
    answers = node.answers("alice", "http", "server:80", 50, 1)
    assert len({answer["connection"] for answer in answers}) < len(answers)


# ---- as somebody outside the mesh sees it on the wire

RECORDER = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: recorder, namespace: mesh}
spec:
  hosts: [recorder.test]
  addresses: [198.19.200.1]
  location: MESH_INTERNAL
  resolution: STATIC
  ports:
  - {number: 80, name: http, protocol: HTTP, targetPort: 9443}
  - {number: 81, name: tcp, protocol: TCP, targetPort: 9444}
  endpoints: [{address: ADDRESS}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: recorder, namespace: mesh}
spec:
  host: recorder.test
  trafficPolicy:
    tls: {mode: ISTIO_MUTUAL}
    connectionPool: {http: {maxRequestsPerConnection: 30}}
"""


def certify_recorder(node: Node) -> None:
    """Give the recorder a certificate of the mesh's authority."""
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory) / "identity"
        shutil.copytree(node.paths.lib / "identity", copy)
        own = Store(copy, "cluster.local", 3600).open(time.time())
    key = authority.new_key()
    named = Identity("cluster.local", "outside", "recorder")
    issued = asyncio.run(own.sign(authority.request(named, key, 3600), time.time()))
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (node.images / "server.pem").write_bytes(private + issued.chain)
    (node.images / "ca.pem").write_bytes(own.roots())


@pytest.fixture(scope="module")
def brisk(make: Callable[..., Node]) -> Iterator[Node]:
    """A node whose certificates live for seconds, with the recorder beside it. Its workloads show
    them to each other, too."""
    node = make(identity={"certificate_lifetime": f"{LIFETIME:g}s"}, proxy={"short_way": False})
    node.start()
    certify_recorder(node)
    write = node.write
    node.up(
        write.dump(
            write.namespace("mesh", enrolled=True),
            write.namespace("outside", enrolled=False),
            write.deployment("recorder", "outside", program="recorder.py", ready=9444),
            write.deployment("server", program="server.py", ready=8080),
            write.service("server"),
            *(write.deployment(client) for client in CLIENTS),
        )
    )
    node.apply(RECORDER.replace("ADDRESS", node.pod("recorder.outside").plan.address))
    yield node
    node.close()


def recorded(answer: dict[str, Any]) -> str:
    (name,) = answer["identities"]
    return name


def serials(answers: dict[str, list[Any]]) -> dict[str, set[str]]:
    return {client: {answer["serial"] for answer in got} for client, got in answers.items()}


@pytest.mark.parametrize(("how", "port"), [("http", 80), ("lines", 81)])
def test_each_connection_on_the_wire_has_its_own_clients_certificate(
    brisk: Node, how: str, port: int
) -> None:
    """Also after certificates were renewed, over pools of connections that live on until they have
    carried some requests: each client opens new ones now and then."""

    def ask() -> dict[str, list[Any]]:
        answers = ask_together(brisk, how, f"recorder.test:{port}", 20, 4)
        check(answers, recorded)
        return answers

    first = serials(ask())

    def shows_new_ones() -> bool:
        later = serials(ask())
        return all(later[client] - first[client] for client in CLIENTS)

    brisk.eventually(shows_new_ones, "each client shows a renewed certificate")


def test_identities_stay_apart_while_certificates_are_renewed(brisk: Node) -> None:
    def expiries() -> dict[str, str | None]:
        return {
            row.workload: row.certificate_expires
            for row in brisk.statuses().workloads
            if row.enrolled
        }

    before = expiries()

    def are_renewed() -> bool:
        for how, port in (("http", 80), ("grpc", 90)):
            check(ask_together(brisk, how, f"server:{port}", 30, 4), named_by)
        return all(before[name] != expires for name, expires in expiries().items())

    brisk.eventually(are_renewed, "all certificates are renewed")
    check(ask_together(brisk, "http", "server:80", 30, 4), named_by)


# ---- what a client says about itself

FORGED = (
    "By=spiffe://cluster.local/ns/mesh/sa/server;Hash=00;URI=" + "spiffe://cluster.local/ns/x/sa/y"
)


def test_what_a_client_in_the_mesh_claims_to_be_is_replaced(node: Node) -> None:
    header = f"x-forwarded-client-cert: {FORGED}"
    answer = node.curl("alice", "-H", header, "http://server:80/who").json()
    assert named_by(answer) == identity("alice")
    assert f"By={identity('server')}" in answer["xfcc"][0]


@pytest.mark.parametrize("port", [8080, 7000])
def test_what_a_client_outside_the_mesh_claims_to_be_is_removed(node: Node, port: int) -> None:
    address = node.pod("server").plan.address
    header = f"x-forwarded-client-cert: {FORGED}"
    answer = node.curl("stranger.outside", "-H", header, f"http://{address}:{port}/who").json()
    assert answer["xfcc"] == []
