"""Sections out of what Envoy's /config_dump answers."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from meshd.base.errors import InvalidInputError, NotReadyError
from meshd.proxy.config_dump import entries, section

ADMIN = "type.googleapis.com/envoy.admin.v3"
DUMP: dict[str, Any] = {
    "configs": [
        {"@type": f"{ADMIN}.BootstrapConfigDump", "bootstrap": {}},
        {
            "@type": f"{ADMIN}.ClustersConfigDump",
            "static_clusters": [{"cluster": {"name": "xds"}}],
            "dynamic_active_clusters": [{"cluster": {"name": "a"}}, {"cluster": {"name": "b"}}],
        },
        {"@type": f"{ADMIN}.ListenersConfigDump", "dynamic_listeners": [{"name": "l"}]},
        {"@type": f"{ADMIN}.ScopedRoutesConfigDump"},
        {"@type": f"{ADMIN}.SecretsConfigDump", "dynamic_active_secrets": [{"name": "s"}]},
        {"@type": f"{ADMIN}.RoutesConfigDump", "dynamic_route_configs": [{"route_config": {}}]},
    ]
}


@pytest.mark.parametrize(
    ("what", "found"),
    [
        (
            "clusters",
            [{"cluster": {"name": "xds"}}, {"cluster": {"name": "a"}}, {"cluster": {"name": "b"}}],
        ),
        ("listeners", [{"name": "l"}]),
        ("secrets", [{"name": "s"}]),
        ("routes", [{"route_config": {}}]),
        ("endpoints", []),
    ],
)
def test_a_section_is_a_list_of_envoys_own_entries(what: str, found: list[dict[str, Any]]) -> None:
    assert entries(DUMP, what) == found


def test_an_unknown_section_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"no section 'filters' .known: listeners"):
        asyncio.run(section(tmp_path, ["proxy-0"], "filters"))


def test_every_member_that_does_not_answer_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotReadyError) as caught:
        asyncio.run(section(tmp_path, ["n1~proxy-0", "proxy-1"], "clusters"))
    assert "proxy-0.sock: No such file" in str(caught.value)
    assert "proxy-1.sock: No such file" in str(caught.value)
