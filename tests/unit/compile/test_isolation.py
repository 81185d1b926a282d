"""One object that cannot be compiled costs itself, and nothing is opened by leaving it out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from meshd.api.base import ObjectMeta
from meshd.api.peer_authentication.types import PeerAuthentication
from meshd.api.traffic import (
    DestinationRule,
    DestinationRuleSpec,
    VirtualService,
    VirtualServiceSpec,
)
from meshd.base.errors import InvalidInputError
from meshd.compile.compiler import Compiled
from meshd.compile.isolation import Isolating, closed
from meshd.model.pool import Pool
from meshd.model.service import Resolution, ServiceRecord
from meshd.model.snapshot import Snapshot


def route(name: str, namespace: str = "shop") -> VirtualService:
    return VirtualService(
        metadata=ObjectMeta(name=name, namespace=namespace), spec=VirtualServiceSpec(hosts=(name,))
    )


def rule(name: str, host: str) -> DestinationRule:
    return DestinationRule(
        metadata=ObjectMeta(name=name, namespace="shop"), spec=DestinationRuleSpec(host=host)
    )


def service(name: str) -> ServiceRecord:
    host = f"{name}.shop.svc.cluster.local"
    return ServiceRecord(host=host, namespace="shop", name=name, resolution=Resolution.STATIC)


class Picky:
    """Compiles everything but what has a name that begins with "bad"."""

    def __init__(self, seen: list[Snapshot] | None = None) -> None:
        self.seen = seen

    def compile(self, snapshot: Snapshot, serving: Iterable[str]) -> Mapping[Pool, Compiled]:
        listed: list[Any] = [
            *snapshot.virtual_services,
            *snapshot.destination_rules,
            *snapshot.peer_authentications,
        ]
        for found in listed:
            if found.metadata.name.startswith("bad"):
                raise ValueError("Value out of range: 1e300")
        if self.seen is not None:
            self.seen.append(snapshot)
        return {}


def isolating() -> tuple[Isolating, list[Snapshot]]:
    seen: list[Snapshot] = []
    return Isolating(Picky(seen), Picky), seen


def test_the_objects_at_fault_are_left_out_and_named_and_the_others_compiled() -> None:
    names = ["a", "bad-1", "b", "c", "bad-2", "d"]
    compiler, seen = isolating()
    compiler.compile(Snapshot(virtual_services=tuple(map(route, names))), ())
    assert [one.metadata.name for one in seen[-1].virtual_services] == ["a", "b", "c", "d"]
    assert [problem.partition(" is left out")[0] for problem in compiler.problems] == [
        "VirtualService shop/bad-1",
        "VirtualService shop/bad-2",
    ]
    assert "ValueError: Value out of range: 1e300" in compiler.problems[0]


def test_an_object_that_was_corrected_is_compiled_again() -> None:
    compiler, seen = isolating()
    compiler.compile(Snapshot(virtual_services=(route("bad"), route("a"))), ())
    assert compiler.problems
    compiler.compile(Snapshot(virtual_services=(route("good"), route("a"))), ())
    assert compiler.problems == ()
    assert len(seen[-1].virtual_services) == 2


def test_a_destination_rule_takes_its_services_with_it() -> None:
    """Its TLS settings would be missing, and the service spoken to in plaintext."""
    services = {one.host: one for one in (service("db"), service("web"))}
    compiler, seen = isolating()
    compiler.compile(Snapshot(services=services, destination_rules=(rule("bad", "db"),)), ())
    assert list(seen[-1].services) == ["web.shop.svc.cluster.local"]


def test_so_does_one_that_is_not_even_in_the_snapshot() -> None:
    snapshot = Snapshot(services={one.host: one for one in (service("db"), service("web"))})
    assert closed(snapshot, ()) is snapshot
    for host in ("db", "db.shop.svc.cluster.local"):
        left = closed(snapshot, [("shop", host)]).services
        assert list(left) == ["web.shop.svc.cluster.local"]
    assert not closed(snapshot, [("shop", "*.shop.svc.cluster.local")]).services
    assert closed(snapshot, [("other", "db")]).services == snapshot.services


@pytest.mark.parametrize(
    ("namespace", "closes"), [("evil", False), ("shop", True), ("istio-system", True)]
)
def test_only_the_root_namespace_closes_services_of_others(namespace: str, closes: bool) -> None:
    services = {one.host: one for one in (service("db"), service("web"))}
    assert bool(closed(Snapshot(services=services), [(namespace, "*")]).services) is not closes
    bad = DestinationRule(
        metadata=ObjectMeta(name="bad", namespace=namespace), spec=DestinationRuleSpec(host="*")
    )
    compiler, seen = isolating()
    compiler.compile(Snapshot(services=services, destination_rules=(bad,)), ())
    assert bool(seen[-1].services) is not closes


def test_an_authentication_policy_is_never_left_out() -> None:
    policy = PeerAuthentication(metadata=ObjectMeta(name="bad", namespace="shop"))
    compiler, seen = isolating()
    with pytest.raises(InvalidInputError, match="the one before stays"):
        compiler.compile(Snapshot(peer_authentications=(policy,)), ())
    assert seen == []
