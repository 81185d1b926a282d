"""A Deployment's pods are replaced under load, and by pods that never get ready."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.node.loads import load

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.node.node import Node


def manifests(node: Node, revision: str, ready: int = 8080) -> str:
    deployment = node.write.deployment(
        "rolled", program="server.py", replicas=2, ready=ready, labels={"revision": revision}
    )
    return node.write.dump(deployment, node.write.service("rolled"))


@pytest.fixture(scope="module")
def rolled(node: Node) -> Iterator[None]:
    node.up(manifests(node, "one"))
    yield
    nothing: dict[str, Any] = node.write.deployment("rolled", replicas=0)
    node.up(node.write.dump(nothing))
    node.meshctl("delete", "-n", "mesh", "service", "rolled")


def pods(node: Node) -> dict[str, str]:
    rows = json.loads(node.meshctl("testbed", "ps", "-n", "mesh", "-o", "json").output)
    return {row["pod"]: row["labels"]["revision"] for row in rows if row["pod"][:6] == "rolled"}


@pytest.mark.usefixtures("rolled")
def test_requests_go_on_while_pods_are_replaced(node: Node) -> None:
    with load(node, "rolled:80") as went:
        node.up(manifests(node, "two"))
    assert set(pods(node).values()) == {"two"}
    assert went[0]["ok"] > 0
    assert went[0]["failures"] == []


@pytest.mark.usefixtures("rolled")
def test_pods_that_never_get_ready_leave_those_of_before_where_they_are(node: Node) -> None:
    before = pods(node)
    images = str(node.images / "images.yaml")
    up = ("testbed", "up", "-f", "-", "--images", images, "--timeout", "4s")
    done = node.meshctl(*up, text=manifests(node, "bad", ready=1))
    assert done.status == 1
    assert "Deployment mesh/rolled: 0 of 2 pods are replaced; 2 of before go on" in done.errors
    assert before.items() <= pods(node).items()
    node.up(manifests(node, "three"))
    assert set(pods(node).values()) == {"three"}
