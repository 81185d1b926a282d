"""meshctl node and token, against daemons that say what they are told to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from meshd import wire
from meshd.wire.nodes import MemberState
from meshd.wire.tokens import TokenState

if TYPE_CHECKING:
    from conftest import Daemon, Meshctl

MEMBERS = wire.MemberStates(
    (
        MemberState(name="a", bounds=("bank", "shop/web"), joined=0.0, expires=60.0),
        MemberState(name="b", bounds=(), joined=0.0, expires=1e11),
    )
)
CONNECTED = wire.NodeStatuses((wire.NodeStatus(name="b", connected=True, since=1.0, workloads=7),))


@pytest.fixture
def daemons(daemon: Daemon, tmp_path: Path) -> Iterator[tuple[Daemon, Daemon]]:
    """The identity role and the server role."""
    made = [type(daemon)(tmp_path / f"{role}.sock") for role in ("identity", "server")]
    for one in made:
        one.start()
    yield made[0], made[1]
    for one in made:
        one.stop()


def test_list_shows_all_nodes_that_have_joined_also_those_that_are_away(
    daemons: tuple[Daemon, Daemon], meshctl: Meshctl
) -> None:
    identity, server = daemons
    identity.says(MEMBERS)
    server.says(CONNECTED)
    _, a, b = meshctl("node", "list").lines
    assert a.split()[:5] == ["a", "bank,", "shop/web", "no", "0"]
    assert a.endswith("ended")
    assert b.split()[:4] == ["b", "any", "yes", "7"]
    (first, _) = json.loads(meshctl("node", "list", "-o", "json").out)
    assert first == {
        "name": "a",
        "namespaces": ["bank", "shop/web"],
        "joined": "1970-01-01T00:00:00Z",
        "certificate_expires": "1970-01-01T00:01:00Z",
        "connected": False,
        "workloads": 0,
    }
    assert meshctl("node", "list", "-o", "name").lines == ["a", "b"]


def test_remove_and_bind_go_to_the_server_role(
    daemons: tuple[Daemon, Daemon], meshctl: Meshctl
) -> None:
    _, server = daemons
    assert meshctl("node", "remove", "a").lines == ["node a removed"]
    done = meshctl("node", "bind", "a", "--namespace", "b", "--namespace", "a/x")
    assert done.lines == ["node a is bound to a/x, b"]
    assert meshctl("node", "bind", "a", "--any").lines == ["node a is bound to nothing"]
    assert server.asked == [
        wire.RemoveNode("a"),
        wire.BindNode("a", ("a/x", "b")),
        wire.BindNode("a", ()),
    ]
    assert meshctl("node", "bind", "a").code == 2
    assert meshctl("node", "bind", "a", "--any", "--namespace", "b").code == 2
    assert meshctl("node", "bind", "a", "--namespace", "B").code == 1
    assert len(server.asked) == 3


def test_a_token_says_what_its_node_may_run(
    daemons: tuple[Daemon, Daemon], meshctl: Meshctl
) -> None:
    identity, _ = daemons
    kept = TokenState(
        id="1", node="", created=0.0, expires=1.0, uses=1, used_by=(), state="valid", bounds=("b",)
    )
    identity.says(wire.TokenCreated("secret", kept))
    assert "may be in these namespaces: b\n" in meshctl("token", "create", "--namespace", "b").out
    assert "may be in any namespace" in meshctl("token", "create").out
    asked = [one.bounds for one in identity.asked if isinstance(one, wire.CreateToken)]
    assert asked == [("b",), ()]
    identity.says(wire.TokenStates((kept,)))
    (listed,) = json.loads(meshctl("token", "list", "-o", "json").out)
    assert listed["namespaces"] == ["b"]
