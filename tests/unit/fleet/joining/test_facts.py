"""What the settings of a server and of its nodes have in common."""

from __future__ import annotations

import msgspec
import pytest

from meshd.api.gateway.types import GatewaySelection
from meshd.fleet.joining.facts import MeshFacts, difference, differing
from meshd.settings import MeshSettings, Settings

OURS = MeshFacts.of(Settings())
STRICT = MeshFacts.of(Settings(mesh=MeshSettings(gateway_selection="own-namespace")))


def test_a_node_takes_over_what_differs() -> None:
    facts = msgspec.structs.replace(STRICT, domain="mesh.local")
    assert differing(OURS, facts) == {
        ("mesh", "domain"): "mesh.local",
        ("mesh", "gateway_selection"): "own-namespace",
    }


def test_a_server_that_does_not_say_which_workloads_gateways_select_opens_nothing() -> None:
    """Servers of earlier versions do not."""
    told = msgspec.to_builtins(OURS)
    del told["gateway_selection"], told["gateways"]
    assert differing(STRICT, msgspec.convert(told, MeshFacts)) == {}


@pytest.mark.parametrize("selection", ["any-namespace", "own-namespace", "declared-gateways"])
def test_agents_of_earlier_versions_are_told_what_they_know(selection: GatewaySelection) -> None:
    theirs = MeshFacts.of(Settings(mesh=MeshSettings(gateway_selection=selection)))
    assert theirs.gateway_selection in {selection, None}
    assert theirs.gateway_selection in {"any-namespace", "own-namespace", None}
    earlier = msgspec.structs.replace(theirs, gateways=None)
    assert differing(theirs, earlier) == {}


def test_each_setting_that_differs_is_a_problem_that_says_both_values() -> None:
    fields = [name for name in OURS.__struct_fields__ if name != "gateway_selection"]
    for field, path in zip(fields, OURS.by_path, strict=True):
        theirs = msgspec.structs.replace(OURS, **{field: "other"})
        problem = difference(OURS, theirs, "boss")
        assert f"{'.'.join(path)} is {getattr(OURS, field)}, not other" in problem
        assert "server boss" in problem


def test_settings_that_agree_are_no_problem() -> None:
    assert difference(OURS, OURS, "boss") == ""
