"""What a service speaks arrives as it was sent, and comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.node.conftest import Node


@pytest.mark.parametrize("port", [80, 70])
def test_http(node: Node, port: int) -> None:
    answers = node.answers("alice", "http", f"server:{port}", 5, 2)
    assert len(answers) == 10
    assert all(answer["pod"].startswith("server") for answer in answers)
    assert all(answer["headers"]["x-request-id"] for answer in answers)
