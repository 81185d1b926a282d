"""An agent that died with a changed policy before it was kept is not as open as the one before."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from meshd.base.attempts import Attempts
from meshd.base.json_values import JsonObject
from meshd.compile.policy.peer_authentication import Mode
from meshd.fleet.server import mcp
from meshd.xds.resources import Resources
from tests.unit.node.agent_role import AgentRole
from tests.unit.node.test_untold_by_server import OPEN, POLICY, WITH_PLACES

if TYPE_CHECKING:
    from pathlib import Path

LABELED: JsonObject = {
    **OPEN,
    "metadata": {"name": "a", "namespace": "shop", "labels": {"a": "b"}},
}


class Node:
    """An agent whose processes die; ``kept``: what they had on disk."""

    def __init__(self, home: Path, *kept: JsonObject) -> None:
        self._home = home
        self._started()
        self.told(*kept)
        self._attempts.done()
        self.agent.restarted()

    def _started(self) -> None:
        self._attempts = Attempts(self._home / "attempts.json")
        self.agent = AgentRole(self._home, self._attempts)

    def told(self, *objects: JsonObject, works: bool = False) -> None:
        self.agent.follow(Resources.of(map(mcp.encode, objects)))
        if works:
            self._attempts.done()

    def dies(self, *, keeps: bool = False) -> Mode:
        """Return the mode of the next process, which has heard nothing of its server yet."""
        if keeps:
            self.agent.restarted()
        self._started()
        return self.agent.mode()


@pytest.mark.parametrize("kept", [(), (OPEN,)])
@pytest.mark.parametrize("in_force", [(), (OPEN,), (POLICY,), (LABELED,)])
def test_it_is_closed_until_its_server_has_answered_whatever_the_answer_is(
    tmp_path: Path, kept: tuple[JsonObject, ...], in_force: tuple[JsonObject, ...]
) -> None:
    node = Node(tmp_path, *kept)
    node.told(POLICY)
    for _ in range(2):
        assert node.dies() is Mode.STRICT
        assert ["died" in one for one in node.agent.refused] == [True]
        assert not node.agent.store.lost
    node.told(*in_force, works=True)
    expected = Mode.STRICT if POLICY in in_force else Mode.PERMISSIVE
    assert node.agent.mode() is expected
    assert not node.agent.refused
    assert node.dies(keeps=True) is expected
    assert not node.agent.refused


def test_a_policy_that_is_kept_is_not_closed_whatever_a_process_dies_of(tmp_path: Path) -> None:
    node = Node(tmp_path, OPEN)
    assert node.dies() is Mode.PERMISSIVE
    node.told(OPEN, *WITH_PLACES)
    assert node.dies() is Mode.PERMISSIVE
    node.told(LABELED)
    assert node.dies(keeps=True) is Mode.PERMISSIVE
    assert node.dies() is Mode.PERMISSIVE


def test_it_stays_closed_over_restarts_until_the_server_answers(tmp_path: Path) -> None:
    node = Node(tmp_path, OPEN)
    node.told(POLICY)
    assert node.dies() is Mode.STRICT
    assert node.dies(keeps=True) is Mode.STRICT
    node.told(OPEN)
    assert node.agent.mode() is Mode.PERMISSIVE
