"""What a node takes over from the server that it joins."""

from __future__ import annotations

import msgspec

from meshd.cli.join import taken_over
from meshd.fleet.joining.join import MeshFacts
from meshd.settings import MeshSettings, Settings

OURS = Settings()
FACTS = MeshFacts(
    trust_domain=OURS.identity.trust_domain,
    domain=OURS.mesh.domain,
    root_namespace=OURS.mesh.root_namespace,
    service_cidr=OURS.mesh.service_cidr,
    gateway_selection="own-namespace",
)


def test_a_node_takes_over_what_differs() -> None:
    facts = msgspec.structs.replace(FACTS, domain="mesh.local")
    assert taken_over(OURS, facts) == {
        ("mesh", "domain"): "mesh.local",
        ("mesh", "gateway_selection"): "own-namespace",
    }


def test_a_server_that_does_not_say_which_workloads_gateways_select_opens_nothing() -> None:
    """Servers of earlier versions do not."""
    told = msgspec.to_builtins(FACTS)
    del told["gateway_selection"]
    strict = Settings(mesh=MeshSettings(gateway_selection="own-namespace"))
    assert taken_over(strict, msgspec.convert(told, MeshFacts)) == {}
