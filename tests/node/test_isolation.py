"""A workload reaches nothing of meshd but its proxy; a proxy reads no key."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
from envoy.service.discovery.v3 import discovery_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.node.node import Node

SDS = "/envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets"
SECRET = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"  # noqa: S105
NEVER = 1.0
"""Seconds to wait for what must not come: what is served comes within a hundredth."""
CONNECT = """
import socket, sys
for path in sys.argv[1:]:
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(10)
    try:
        s.connect(path)
        s.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
        print("in" if s.recv(1) else "hung up", path)
    except OSError as error:
        print("refused", path, error.strerror)
"""


def admin_sockets(node: Node) -> set[str]:
    found = {f"{proxy.name}.sock" for proxy in node.proxies()}
    assert len(found) == 4
    return found


def sockets(node: Node) -> list[str]:
    found = [
        str(path)
        for path in node.paths.run.rglob("*")
        if not path.is_relative_to(node.paths.netns) and path.is_socket()
    ]
    names = {Path(path).name for path in found}
    roles = {f"{role}.sock" for role in ("capture", "identity", "mesh", "supervisor", "plane")}
    assert roles | {"xds.sock"} | admin_sockets(node) <= names
    return found


def reached(output: str) -> list[str]:
    lines = output.splitlines()
    assert lines
    return [line for line in lines if not line.startswith("refused")]


def as_user(uid: int, gid: int, *command: str) -> subprocess.CompletedProcess[str]:
    """On the host, where nothing is hidden."""
    own = ("setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups")
    return subprocess.run([*own, *command], capture_output=True, text=True, check=False, timeout=60)


def proxy_user(node: Node) -> tuple[int, int]:
    found = Path(f"/proc/{node.proxies()[0].pid}").stat()
    assert found.st_uid != 0
    return found.st_uid, found.st_gid


def test_a_workload_reaches_no_socket_of_meshd(node: Node) -> None:
    for client in ("alice", "stranger.outside"):
        done = node.exec(client, sys.executable, "-c", CONNECT, *sockets(node))
        assert reached(done.output) == []


def test_its_user_would_not_even_if_it_saw_them(node: Node) -> None:
    user = node.pod("alice").plan.user
    assert (
        reached(as_user(user, user, "/usr/bin/python3", "-c", CONNECT, *sockets(node)).stdout) == []
    )


def test_a_workload_sees_no_file_of_meshd(node: Node) -> None:
    where = [str(path) for path in (node.paths.run, node.paths.lib, node.paths.etc)]
    done = node.exec("alice", "find", *where, "-mindepth", "1")
    assert done.output == ""


def test_a_workload_reaches_no_port_of_the_proxies_but_through_its_rules(node: Node) -> None:
    """The admin interface, metrics and DNS of the host's loopback are not its own."""
    for port in (15000, 15020, 15012, 15010, 15014):
        assert node.status_of("alice", f"http://127.0.0.1:{port}/") == "000"


def test_a_proxy_reaches_configuration_and_secrets_only(node: Node) -> None:
    uid, gid = proxy_user(node)
    done = as_user(uid, gid, "/usr/bin/python3", "-c", CONNECT, *sockets(node))
    names = {Path(line.split(" ")[-1]).name for line in reached(done.stdout)}
    assert names <= {"xds.sock"} | admin_sockets(node)


def test_a_proxy_reads_no_key(node: Node) -> None:
    uid, gid = proxy_user(node)
    keys = [*node.paths.lib.rglob("*key*"), node.paths.lib, node.paths.lib / "identity"]
    assert len(keys) >= 4
    for key in keys:
        assert as_user(uid, gid, "ls" if key.is_dir() else "cat", str(key)).returncode != 0
    for key in (path for path in keys if path.is_file()):
        assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_no_key_is_in_a_log_or_a_command_line(node: Node) -> None:
    lines: list[bytes] = []
    for pid in node.processes():
        with contextlib.suppress(OSError):  # it has ended by now
            lines.append(Path(f"/proc/{pid}/cmdline").read_bytes())
    assert lines
    for text in (*lines, node.log.encode()):
        assert b"PRIVATE KEY" not in text


def served(node: Node, name: str) -> bool:
    """Whether xds.sock gives the secret of that name to somebody who may ask there."""
    channel = grpc.insecure_channel(f"unix:{node.paths.proxy_run}/xds.sock")
    request = discovery_pb2.DeltaDiscoveryRequest(
        node={"id": "test~proxy-9"}, type_url=SECRET, resource_names_subscribe=[name]
    )
    call = channel.stream_stream(
        SDS,
        request_serializer=discovery_pb2.DeltaDiscoveryRequest.SerializeToString,
        response_deserializer=discovery_pb2.DeltaDiscoveryResponse.FromString,
    )

    def requests() -> Iterator[Any]:
        yield request
        os.read(reader, 1)

    reader, writer = os.pipe()
    try:
        for response in call(requests(), timeout=NEVER):
            if any(resource.name == name for resource in response.resources):
                return True
    except grpc.RpcError as error:
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED, error  # pyright: ignore
    finally:
        os.close(writer)
        channel.close()
        os.close(reader)
    return False


def test_only_identities_of_this_nodes_workloads_are_served(node: Node) -> None:
    prefix = "spiffe://cluster.local/ns/"
    node.eventually(lambda: served(node, prefix + "mesh/sa/alice"), "alice's own is served")
    for other in ("mesh/sa/nobody", "outside/sa/stranger", "kube-system/sa/default"):
        assert not served(node, prefix + other)
    assert not served(node, "spiffe://elsewhere.test/ns/mesh/sa/alice")


def test_workloads_cannot_signal_or_read_each_other(node: Node) -> None:
    alice, bob = node.pod("alice"), node.pod("bob")
    assert alice.plan.user != bob.plan.user
    pid = str(bob.containers[0].pid)
    done = as_user(alice.plan.user, alice.plan.user, "cat", f"/proc/{pid}/environ")
    assert done.returncode != 0
    assert as_user(alice.plan.user, alice.plan.user, "kill", "-0", pid).returncode != 0
