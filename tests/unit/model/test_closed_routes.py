"""Closed routes stand for the hosts and the protocols of others."""

from __future__ import annotations

from typing import Any

from meshd.api.base import ObjectMeta
from meshd.api.networking import VirtualService, VirtualServiceSpec
from meshd.api.virtual_service.types import HTTPRoute, TCPRoute, TLSMatchAttributes, TLSRoute
from meshd.model.closed_routes import ClosedRoutes

META = ObjectMeta(name="a", namespace="shop", creation_timestamp="2026-01-01T00:00:00Z")


def closed(**spec: Any) -> VirtualServiceSpec:
    routes = VirtualService(
        metadata=META, spec=VirtualServiceSpec(hosts=("a.test", "b.test"), **spec)
    )
    found = ClosedRoutes.of(routes)
    assert found.metadata == META
    assert found.spec.hosts == routes.spec.hosts
    return found.spec


def test_only_protocols_that_were_routed_are_closed() -> None:
    spec = closed(http=(HTTPRoute(),), gateways=("edge",), export_to=(".",))
    assert (len(spec.http), spec.tls, spec.tcp) == (1, (), ())
    assert (spec.gateways, spec.export_to) == (("edge",), (".",))
    spec = closed(tcp=(TCPRoute(),))
    assert (spec.http, spec.tls, len(spec.tcp)) == ((), (), 1)


def test_server_names_are_closed_that_were_routed() -> None:
    matched = TLSMatchAttributes(("a.test",))
    (route,) = closed(tls=(TLSRoute((matched, matched)),)).tls
    assert route.match == (matched,)


def test_all_is_closed_where_it_is_not_known_what_was_routed() -> None:
    spec = closed()
    assert (len(spec.http), len(spec.tcp)) == (1, 1)
    assert spec.tls[0].match == (TLSMatchAttributes(("a.test", "b.test")),)


def test_a_delegate_stays_a_delegate() -> None:
    routes = VirtualService(metadata=META, spec=VirtualServiceSpec(http=(HTTPRoute(),)))
    found = ClosedRoutes.of(routes)
    assert found.is_delegate
    assert (len(found.spec.http), found.spec.tls, found.spec.tcp) == (1, (), ())
