"""No connection ever carries two workloads' identities, and each carries the right one."""

from __future__ import annotations

import asyncio
import collections
import re
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from cryptography.hazmat.primitives import serialization

from meshd.identity import authority
from meshd.identity.store import Store
from meshd.model.workload import Identity

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.node.conftest import Node

CLIENTS = ("alice", "bob", "carol")
LIFETIME = 8.0
"""Seconds of a certificate: short enough to see some of them renewed."""


def identity(account: str, namespace: str = "mesh") -> str:
    return f"spiffe://cluster.local/ns/{namespace}/sa/{account}"


def named_by(answer: dict[str, Any]) -> str:
    """The client that the one x-forwarded-client-cert names."""
    (value,) = answer["xfcc"]
    (uri,) = re.findall(r"URI=([^;,]+)", value)
    return uri


def ask_together(node: Node, how: str, target: str, *counts: int) -> dict[str, list[Any]]:
    """By client."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor() as threads:
        asked = {
            client: threads.submit(node.answers, client, how, target, *counts)
            for client in CLIENTS
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


@pytest.mark.parametrize(
    ("how", "port"), [("http", 80), ("http", 70), ("grpc", 90), ("grpc", 72)]
)
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
  trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}
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
def brisk(make: Callable[..., Node]) -> Any:
    """A node whose certificates live for seconds, and the recorder beside it."""
    node = make(identity={"certificate_lifetime": f"{LIFETIME:g}s"})
    node.start()
    certify_recorder(node)
    population = yaml.safe_load_all((Path(__file__).parent / "identities.yaml").read_text())
    node.up(yaml.safe_dump_all(list(population)))
    recorder = node.pod("recorder.outside").plan
    node.apply(RECORDER.replace("ADDRESS", recorder.address))
    yield node
    node.close()


def recorded(answer: dict[str, Any]) -> str:
    (name,) = answer["identities"]
    return name
