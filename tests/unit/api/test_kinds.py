from __future__ import annotations

import pytest

from meshd.api import kinds
from meshd.api import networking as traffic
from meshd.api.base import Object


def test_no_two_kinds_share_a_name() -> None:
    names = [name for kind in kinds.ALL for name in {kind.KIND.lower(), *kind.PLURALS}]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("name", "kind"),
    [("vs", "VirtualService"), ("services", "Service"), ("gw", "Gateway"), ("ns", "Namespace")],
)
def test_kinds_are_found_by_what_people_call_them(name: str, kind: str) -> None:
    assert kind == kinds.BY_NAME[name].KIND


def test_a_kind_is_found_by_its_group() -> None:
    assert kinds.find_kind("networking.istio.io", "Gateway") is traffic.Gateway
    assert kinds.find_kind("", "Gateway") is None


@pytest.mark.parametrize("kind", kinds.ALL)
def test_every_kind_can_be_typed_and_shown(kind: type[Object]) -> None:
    assert kind.KIND
    assert kind.VERSIONS
    assert kind.PLURALS
