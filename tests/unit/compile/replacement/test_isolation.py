"""One object that cannot be compiled costs itself, and nothing is opened by leaving it out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import pytest

from meshd.api.base import ObjectMeta
from meshd.api.networking import (
    DestinationRule,
    DestinationRuleSpec,
    VirtualService,
    VirtualServiceSpec,
)
from meshd.api.peer_authentication.types import PeerAuthentication
from meshd.base.errors import InvalidInputError
from meshd.compile.compiled import Compiled
from meshd.compile.replacement.isolation import Isolating
from meshd.model.closed_routes import ClosedRoutes
from meshd.model.closed_rule import ClosedRule
from meshd.model.pool import Pool
from meshd.model.service import Endpoint, Resolution, ServiceRecord
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
            stands = isinstance(found, ClosedRule | ClosedRoutes)
            if found.metadata.name.startswith("bad") and not stands:
                raise ValueError("Value out of range: 1e300")
        services = snapshot.services.values()
        if any(one.name.startswith("bad") and not one.closed for one in services):
            raise ValueError("Value out of range: 1e300")
        if self.seen is not None:
            self.seen.append(snapshot)
        return {}


def isolating() -> tuple[Isolating[Mapping[Pool, Compiled]], list[Snapshot]]:
    seen: list[Snapshot] = []
    return Isolating(Picky(seen), Picky), seen


def test_the_objects_at_fault_are_left_out_and_named_and_the_others_compiled() -> None:
    names = ["a", "bad-1", "b", "c", "bad-2", "d"]
    compiler, seen = isolating()
    compiler.compile(Snapshot(virtual_services=tuple(map(route, names))), ())
    left = seen[-1].virtual_services
    assert [one.metadata.name for one in left] == names
    assert [isinstance(one, ClosedRoutes) for one in left] == [
        False,
        True,
        False,
        False,
        True,
        False,
    ]
    assert [problem.partition(" is left out")[0] for problem in compiler.problems] == [
        "VirtualService shop/bad-1",
        "VirtualService shop/bad-2",
    ]
    assert "ValueError: Value out of range: 1e300" in compiler.problems[0]


def test_objects_at_fault_are_not_searched_again_when_only_readiness_changes() -> None:
    seen: list[Snapshot] = []
    trials: list[Snapshot] = []
    compiler = Isolating(Picky(seen), lambda: Picky(trials))
    endpoint = Endpoint(address="198.18.0.1", port=80, service_port=80)
    bad = msgspec.structs.replace(service("bad"), name="bad", endpoints=(endpoint,))
    tried: list[int] = []
    for ready in (True, False, True):
        now = msgspec.structs.replace(endpoint, ready=ready)
        record = msgspec.structs.replace(bad, endpoints=(now,))
        services = {one.host: one for one in (service("web"), record)}
        compiler.compile(Snapshot(services=services), ())
        assert len(compiler.problems) == 1
        tried.append(len(trials))
    assert tried[0] > 0
    assert tried == tried[:1] * 3
    assert {host: one.closed for host, one in seen[-1].services.items()} == {
        "bad.shop.svc.cluster.local": True,
        "web.shop.svc.cluster.local": False,
    }
    assert compiler.problems[0].endswith("(until then its hosts are not reached)")


def test_an_object_that_was_corrected_is_compiled_again() -> None:
    compiler, seen = isolating()
    compiler.compile(Snapshot(virtual_services=(route("bad"), route("a"))), ())
    assert compiler.problems
    compiler.compile(Snapshot(virtual_services=(route("good"), route("a"))), ())
    assert compiler.problems == ()
    assert len(seen[-1].virtual_services) == 2


def test_a_destination_rule_that_is_left_out_stays_as_a_closed_one() -> None:
    """Its TLS settings would be missing, and the service spoken to in plaintext."""
    bad = rule("bad", "db")
    compiler, seen = isolating()
    compiler.compile(Snapshot(destination_rules=(bad, rule("a", "web"))), ())
    assert seen[-1].destination_rules == (ClosedRule.of(bad), rule("a", "web"))
    (problem,) = compiler.problems
    assert problem.endswith("(until then its hosts are not reached)")


def test_an_object_at_fault_even_when_closed_is_not_opened() -> None:
    class Refusing:
        def compile(self, snapshot: Snapshot, serving: Iterable[str]) -> Mapping[Pool, Compiled]:
            if snapshot.services:
                raise ValueError("no service is taken")
            return {}

    compiler = Isolating(Refusing(), Refusing)
    record = service("web")
    with pytest.raises(InvalidInputError, match="the one before stays"):
        compiler.compile(Snapshot(services={record.host: record}), ())


def test_an_authentication_policy_is_never_left_out() -> None:
    policy = PeerAuthentication(metadata=ObjectMeta(name="bad", namespace="shop"))
    compiler, seen = isolating()
    with pytest.raises(InvalidInputError, match="the one before stays"):
        compiler.compile(Snapshot(peer_authentications=(policy,)), ())
    assert seen == []


def test_the_snapshot_in_force_is_the_last_that_was_compiled() -> None:
    compiler, seen = isolating()
    assert compiler.compiled is None
    compiler.compile(Snapshot(virtual_services=(route("bad"), route("a"))), ())
    left = (ClosedRoutes.of(route("bad")), route("a"))
    assert compiler.compiled == seen[-1] == Snapshot(virtual_services=left)
    policy = PeerAuthentication(metadata=ObjectMeta(name="bad", namespace="shop"))
    with pytest.raises(InvalidInputError):
        compiler.compile(Snapshot(peer_authentications=(policy,)), ())
    assert compiler.compiled == Snapshot(virtual_services=left)
