"""The Services of people stay as they are unless ports are added to them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from meshd.api.write import to_json
from meshd.base.errors import InvalidInputError
from meshd.config.admission import admit
from meshd.node.changing import Changing
from meshd.node.offers import Offers
from meshd.roles.mesh import assembled
from meshd.settings import Paths, Settings
from meshd.wire import OfferedPort
from meshd.workloads import offer
from tests.unit import storing

SERVICE = admit(
    {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"clusterIP": "198.18.0.9", "ports": [{"name": "http", "port": 80}]},
    }
)


def test_a_service_that_is_not_in_force_is_not_replaced_by_a_new_one(tmp_path: Path) -> None:
    paths = Paths(tmp_path / "etc", tmp_path / "lib", tmp_path / "run")
    for directory in (paths.config_directory, paths.lib, paths.resolver_run):
        directory.mkdir(parents=True)
    mesh = assembled(Settings(), paths)
    storing.put(mesh.store, [SERVICE])
    stored = mesh.store.objects[SERVICE.key]
    mesh.store.withhold(str)
    offers = Offers(mesh, Changing(mesh), is_own=True)
    assert not tuple(offers.of("shop"))
    new = offer.wanted(None, "web", "shop", (OfferedPort(80, 8080, "http"),), "shop.web")
    with pytest.raises(InvalidInputError, match="Service shop/web is not in force"):
        asyncio.run(offers.apply(new))
    mesh.store.withhold(lambda _: "")
    assert to_json(mesh.store.objects[SERVICE.key]) == to_json(stored)
