"""A workload that is new takes no connection before the listeners behind its own know its rules."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path

import pytest

from meshd.compile.traffic.entries import ENTRIES
from meshd.xds.exchange import Response
from meshd.xds.stream import Stream
from tests.envoy.between.mesh import Mesh
from tests.envoy.between.test_authorization import MANIFEST, policy

NAMES = ("client", "server", "second")
UID = "servers.second"
OWN = f"{UID}|inbound"
NEW = """
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: second, namespace: servers}
spec:
  hosts: [second.test]
  addresses: [198.19.77.2]
  location: MESH_INTERNAL
  resolution: STATIC
  workloadSelector: {labels: {app: second}}
  ports: [{number: 8081, name: http, protocol: HTTP}, {number: 7000, name: any}]
"""


def in_use(admin: Path) -> dict[str, str]:
    """Listeners that Envoy uses, as text, by name; not those that wait for something."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        client.connect(str(admin))
        client.sendall(b"GET /config_dump?resource=dynamic_listeners HTTP/1.1\r\nhost: a\r\n\r\n")
        response = http.client.HTTPResponse(client)
        response.begin()
        found = json.loads(response.read())["configs"]
    return {one["name"]: json.dumps(one.get("active_state")) for one in found}


@pytest.mark.parametrize("selector", ["", "selector: {matchLabels: {app: second}}, "])
def test_a_new_workload_is_known_before_its_listener_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, selector: str
) -> None:
    """Also when it is the only one of the node that a policy is about."""
    known: list[bool] = []
    following = Stream.next

    def watched(stream: Stream) -> Response | None:
        response = following(stream)
        if response and OWN in {one.name for one in response.resources}:
            listeners = in_use(mesh.admin)
            known.append(all(UID in listeners[entry.listener] for entry in ENTRIES))
        return response

    monkeypatch.setattr(Stream, "next", watched)
    rules = "rules: [{to: [{operation: {paths: [/yes]}}]}]"
    with Mesh(tmp_path, NAMES) as mesh:
        mesh.load(MANIFEST, mesh.workload("client"), mesh.workload("server"))
        mesh.load(MANIFEST + NEW + policy(f"{{{selector}{rules}}}"), *map(mesh.workload, NAMES))
    assert known == [True]
