"""Files that configuration names stop no proxy, and show nothing that is not for proxies."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.node.node import Node

ENTRY = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: trap, namespace: outside}
spec:
  hosts: [HOSTS]
  resolution: STATIC
  location: MESH_EXTERNAL
  ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8080}]
  endpoints: [{address: ADDRESS}]
"""
RULE = """
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: INDEX, namespace: outside}
spec: {host: INDEX.trap.test, trafficPolicy: {tls: {mode: SIMPLE, caCertificates: PATH}}}
"""
GATEWAY = """
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: trap, namespace: mesh}
spec:
  selector: {app: carol}
  servers:
  - port: {number: 443, name: https, protocol: HTTPS}
    hosts: [trap.test]
    tls: {mode: SIMPLE, serverCertificate: PATH, privateKey: PATH}
"""
NEIGHBOUR = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: neighbour, namespace: mesh}
spec: {hosts: [server], http: [{directResponse: {status: 418}}]}
"""


@pytest.fixture
def traps(node: Node) -> Iterator[dict[str, str]]:
    """Paths, each with what is said of it."""
    made = node.paths.certificates
    os.mkfifo(made / "pipe", 0o666)
    with (made / "large").open("wb") as file:
        file.truncate(800 * 1024 * 1024)
    made.joinpath("large").chmod(0o644)
    key = next(path for path in node.paths.keys.rglob("*.pem") if _is_key(path))
    (made / "key").symlink_to(key)
    (made / "zero").symlink_to("/dev/zero")
    (made / "server").symlink_to(node.paths.socket("mesh"))
    os.mkfifo(node.home / "pipe", 0o666)
    inside = dict.fromkeys(("key", "zero", "server"), "leads to")
    inside |= {"pipe": "it is a pipe", "large": "larger than", "missing": "No such file"}
    outside = (f"{node.home}/pipe", "/dev/zero", "/etc/shadow", str(key))
    yield {f"{made}/{name}": said for name, said in inside.items()} | dict.fromkeys(
        outside, "is not below"
    )
    for path in (*made.iterdir(), node.home / "pipe"):
        path.unlink()


def _is_key(path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):  # it has been renamed by now
        return stat.S_ISREG(path.lstat().st_mode) and "PRIVATE KEY" in path.read_text()
    return False


def _memory(node: Node) -> int:
    """KiB that the largest proxy has resident."""
    found = 0
    for child in node.proxies():
        text = Path(f"/proc/{child.pid}/status").read_text(encoding="utf-8")
        found = max(found, *(int(line.split()[1]) for line in text.splitlines() if "VmRSS" in line))
    return found


def test_no_path_stops_or_fattens_a_proxy_or_is_shown(node: Node, traps: dict[str, str]) -> None:
    before = _memory(node)
    address = node.pod("external.outside").plan.address
    hosts = ", ".join(f"t{index}.trap.test" for index in range(len(traps)))
    text = ENTRY.replace("HOSTS", hosts).replace("ADDRESS", address)
    for index, path in enumerate(traps):
        text += RULE.replace("INDEX", f"t{index}").replace("PATH", path)
    text += GATEWAY.replace("PATH", next(iter(traps)))

    applied = node.meshctl("apply", "--wait", "-f", "-", text=text)
    try:
        assert applied.status == 0, applied.errors
        for path, said in traps.items():
            lines = applied.errors.splitlines()
            assert any(path in line and said in line for line in lines), (path, lines)
        node.eventually(
            lambda: all(
                any(path in problem and said in problem for problem in node.statuses().problems)
                for path, said in traps.items()
            ),
            "status says what is not served",
        )
        with node.applied(NEIGHBOUR):
            assert node.status_of("alice", "http://server/who") == "418"
        assert node.status_of("alice", "http://server/who") == "200"
        assert node.status_of("alice", "http://t0.trap.test/who") == "503"
        node.eventually(node.is_well, "all is well")
        assert _memory(node) - before < 100 * 1024
        shown = node.meshctl("proxy-config", "secrets", "-o", "json").output
        assert "trap" not in shown
    finally:
        node.meshctl("delete", "-f", "-", text=text)
    node.eventually(node.is_well, "all is well again")
    named = str(node.paths.certificates)
    node.eventually(lambda: not any(named in one for one in node.statuses().problems), "forgotten")
