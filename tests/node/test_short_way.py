"""Connections between workloads of a whole node take the short way."""

from __future__ import annotations

import asyncio
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from meshd.model.pool import Pool
from meshd.proxy.admin import Admin
from meshd.proxy.bootstrap import member_name
from tests.node.manifests import Write

if TYPE_CHECKING:
    from tests.node.node import Node

CLIENTS = ("alice", "bob")
STRICT = Write.manifest(
    "PeerAuthentication",
    "default",
    "mesh",
    spec={"mtls": {"mode": "STRICT"}},
) | {"apiVersion": "security.istio.io/v1"}


@pytest.fixture(scope="module")
def short(node: Node) -> Node:
    node.eventually(lambda: ways(node)["server"] == "open", "the short way is open")
    return node


def ways(node: Node) -> dict[str, str]:
    return {
        row.workload.split("-")[0]: row.short_way
        for row in node.statuses().workloads
        if row.namespace == "mesh"
    }


def taken(node: Node) -> list[int]:
    """How many connections of each proxy have taken the short way so far."""

    async def of(proxy: str) -> int:
        socket = node.paths.admin_run / f"{member_name(proxy)}.sock"
        found = await Admin(socket).stats("^listener[.]local[.]downstream_cx_total$")
        return found["listener.local.downstream_cx_total"]

    proxies = [one.name for one in node.statuses().proxies if one.pool is Pool.TRAFFIC]
    return [asyncio.run(of(name)) for name in proxies]


def named_by(answer: dict[str, Any]) -> str:
    (value,) = answer["xfcc"]
    (uri,) = re.findall(r"URI=([^;,]+)", value)
    return uri


def test_connections_stay_inside_each_proxy(short: Node) -> None:
    before = taken(short)
    assert len(short.answers("alice", "tcp", "server:91", 20)) == 20
    after = taken(short)
    grown = [later - earlier for earlier, later in zip(before, after, strict=True)]
    assert len(grown) > 1
    assert all(grown)
    assert sum(grown) == 20


@pytest.mark.parametrize(("how", "port"), [("http", 80), ("http", 70), ("grpc", 90)])
def test_callers_of_several_accounts_never_share_a_connection(
    short: Node, how: str, port: int
) -> None:
    with ThreadPoolExecutor() as threads:
        asked = {
            client: threads.submit(short.answers, client, how, f"server:{port}", 50, 6)
            for client in CLIENTS
        }
        answers = {client: future.result() for client, future in asked.items()}
    seen: dict[Any, set[str]] = {}
    for client, got in answers.items():
        assert got
        for answer in got:
            assert named_by(answer) == f"spiffe://cluster.local/ns/mesh/sa/{client}"
            assert short.pod(client).plan.address in str(answer["peer"])
            seen.setdefault(answer["connection"], set()).add(client)
    assert all(len(names) == 1 for names in seen.values())


def test_plaintext_from_outside_of_the_mesh_is_refused_under_strict(short: Node) -> None:
    address = short.pod("server").plan.address
    with short.applied(short.write.dump(STRICT)):
        assert short.status_of("alice", "http://server/") == "200"
        assert short.status_of("stranger.outside", f"http://{address}:8080/") == "000"


MARKED = """
import socket, sys
with socket.socket() as connection:
    connection.settimeout(15)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, int(sys.argv[3], 16))
    try:
        connection.connect((sys.argv[1], int(sys.argv[2])))
        connection.sendall(b"GET / HTTP/1.1\\r\\nhost: a\\r\\nconnection: close\\r\\n\\r\\n")
        print(connection.recv(100)[9:12].decode())
    except OSError:
        print("refused")
"""


@pytest.mark.parametrize("mark", ["0x539", "0x53a", "0x111"])
@pytest.mark.parametrize("port", ["8080", "15006", "15001"])
def test_no_mark_of_the_proxies_passes_strict(short: Node, mark: str, port: str) -> None:
    """Root in a workload's namespace can send what its own proxies would send."""
    address = short.pod("server").plan.address
    with short.applied(short.write.dump(STRICT)):
        done = short.exec("alice", sys.executable, "-c", MARKED, address, port, mark)
        assert done.output.strip() in {"", "refused"}, (done.output, done.errors)


def test_a_workload_that_lists_anothers_address_does_not_get_its_identity(short: Node) -> None:
    """A host of one's own may lead to the address of a workload of this node: its policy and the
    caller's identity stay as they are."""
    write, address = short.write, short.pod("server").plan.address
    entry = write.manifest(
        "ServiceEntry",
        "mine",
        "attacker",
        spec={
            "hosts": ["mine.test"],
            "ports": [{"number": 8080, "name": "http", "protocol": "HTTP"}],
            "resolution": "STATIC",
            "location": "MESH_INTERNAL",
            "exportTo": ["*"],
            "endpoints": [{"address": address, "serviceAccount": "other"}],
        },
    ) | {"apiVersion": "networking.istio.io/v1"}
    with short.applied(short.write.dump(STRICT, entry)):
        short.eventually(
            lambda: short.status_of("alice", "http://mine.test:8080/") in {"503", "000"},
            "nobody is at the address who has the account that is listed",
        )
        assert short.status_of("stranger.outside", f"http://{address}:8080/") == "000"
        assert short.status_of("alice", "http://server/") == "200"


def test_explain_and_status_say_which_way_is_taken(short: Node) -> None:
    def explained() -> str:
        return short.meshctl("explain", "alice", "server:80", "-n", "mesh").output

    short.eventually(lambda: "(short way)" in explained(), "explain tells what is published")
    shown = short.meshctl("status", "-o", "wide").output
    assert "SHORT WAY" in shown
