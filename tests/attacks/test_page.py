"""A page of somebody else's cannot read what the node serves for its administrator."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.node.node import Node


def asked(node: Node, path: str, *headers: str) -> str:
    port = (node.paths.run / "telemetry.port").read_text(encoding="ascii").strip()
    options = [part for header in headers for part in ("-H", header)]
    command = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", *options]
    url = f"http://127.0.0.1:{port}{path}"
    return subprocess.run([*command, url], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("path", ["/", "/api/state", "/metrics", "/healthz/ready"])
def test_nothing_is_served_under_a_foreign_name(node: Node, path: str) -> None:
    assert asked(node, path) == "200"
    assert asked(node, path, "Host: localhost:15020") == "200"
    assert asked(node, path, "Host: evil.example") == "421"
    assert asked(node, path, "Host: 127.0.0.1.evil.example:15020") == "421"
