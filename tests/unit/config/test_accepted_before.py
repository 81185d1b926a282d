"""What was in force stays in force over upgrades and downgrades, or closes what it was about."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from meshd.analysis import validate
from meshd.api.base import Key
from meshd.api.peer_authentication.types import MutualTLS, PeerAuthentication
from meshd.api.read import read_objects
from meshd.base.errors import InvalidInputError
from meshd.compile.replacement.refused_objects import RefusedObjects
from meshd.config import withheld
from meshd.config.accepted_before import AcceptedBefore
from meshd.config.admission import admit
from meshd.config.store import Store
from meshd.model.closed_rule import ClosedRule
from meshd.model.closed_services import ClosedEntry
from meshd.model.snapshot import MeshOptions, Snapshot
from meshd.registry.registry import build_snapshot
from tests.unit import storing

RULE = Key("DestinationRule", "shop", "db")


def value(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    group = "security" if kind == "PeerAuthentication" else "networking"
    return {
        "apiVersion": "v1" if kind == "Service" else f"{group}.istio.io/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": "shop"},
        "spec": spec,
    }


TLS = {"tls": {"mode": "SIMPLE"}}
SUBSETS = [{"name": f"v{number}", "labels": {"v": str(number)}} for number in range(3000)]
HOSTS = [f"h{number}.test" for number in range(3000)]
PORTS = [{"number": number, "name": f"p{number}"} for number in range(1, 3000)]
TO = [{"destination": {"host": "db"}}]
HEAVY = {
    "subsets": value(
        "DestinationRule", "db", {"host": "db", "trafficPolicy": TLS, "subsets": SUBSETS}
    ),
    "hosts": value("VirtualService", "db", {"hosts": HOSTS, "http": [{"route": TO}]}),
    "ports": value(
        "ServiceEntry", "db", {"hosts": ["a.test"], "resolution": "DNS", "ports": PORTS}
    ),
    "servers": value(
        "Gateway",
        "db",
        {
            "selector": {"app": "edge"},
            "servers": [{"port": {**port, "protocol": "HTTP"}, "hosts": ["*"]} for port in PORTS],
        },
    ),
}
UNPRINTABLE = {
    "route": value(
        "VirtualService", "db", {"hosts": ["a.test"], "http": [{"name": "a\n", "route": TO}]}
    ),
    "entry": value(
        "ServiceEntry",
        "db",
        {
            "hosts": ["a.test"],
            "resolution": "DNS",
            "ports": [{"number": 80, "name": "http"}],
            "subjectAltNames": ["a\n"],
        },
    ),
}
CLOSED = value(
    "DestinationRule",
    "db",
    {
        "host": "db",
        "trafficPolicy": TLS | {"loadBalancer": {"consistentHash": {"httpHeaderName": "a\n"}}},
    },
)
BEFORE = HEAVY | UNPRINTABLE
UNREADABLE = value("DestinationRule", "db", {"host": "db", "trafficPolicy": TLS, "newer": 1})


def store(home: Path, *values: Any) -> Store:
    """A store; ``values`` are what another version has left in its file."""
    state = home / "state"
    state.mkdir(parents=True, exist_ok=True)
    if values:
        content = {"revision": 1, "objects": values, "addresses": {}}
        (state / "applied.json").write_text(json.dumps(content))
    return Store(home / "files", state)


@pytest.mark.parametrize("heavy", BEFORE.values(), ids=BEFORE)
def test_what_only_new_checks_refuse_stays_in_force_and_is_said(
    tmp_path: Path, heavy: dict[str, Any]
) -> None:
    reads = read_objects(json.dumps(heavy), "a.json")
    assert validate.check_fields(reads)
    (key,) = (read.object.key for read in reads)
    for found in (store(tmp_path, heavy), store(tmp_path)):
        assert list(found.objects) == [key]
        (finding,) = AcceptedBefore().findings(*found.stored)
        assert str(finding).startswith(f"{tmp_path}/state/applied.json:1: {key} is in force, as")
        storing.put(
            found,
            [
                read.object
                for read in read_objects(
                    json.dumps(value("DestinationRule", "other", {"host": "other"})), "b.json"
                )
            ],
        )
        storing.delete(found, [Key("DestinationRule", "shop", "other")])
    storing.delete(found, [key])
    assert not list(AcceptedBefore().findings(*found.stored))
    assert not list(tmp_path.glob("state/*damaged*"))


def test_nothing_is_said_to_be_in_force_that_proxies_refuse(tmp_path: Path) -> None:
    found = store(tmp_path, CLOSED)
    assert list(found.objects) == [RULE]
    assert not list(AcceptedBefore().findings(*found.stored))
    (closed,) = RefusedObjects().close(_snapshot(found)).destination_rules
    assert isinstance(closed, ClosedRule)


def test_what_counts_more_and_is_wrong_besides_is_not_in_force(tmp_path: Path) -> None:
    wrong = {**TLS, "connectionPool": {"tcp": {"connectTimeout": "0.0000001s"}}}
    spec = {"host": "db", "subsets": SUBSETS, "trafficPolicy": wrong}
    found = store(tmp_path, value("DestinationRule", "db", spec))
    assert RULE not in found.objects
    assert [rule.key for rule in found.closed] == [RULE]


def test_a_rule_that_this_version_cannot_read_closes_and_is_kept_until_it_is_replaced(
    tmp_path: Path,
) -> None:
    other = value("DestinationRule", "other", {"host": "other"})
    (read,) = read_objects(json.dumps(other), "b.json")
    for found in (store(tmp_path, UNREADABLE), store(tmp_path)):
        assert [rule.key for rule in found.closed] == [RULE]
        (finding,) = found.findings
        assert f"{RULE} is not in force, but kept: " in str(finding)
        storing.put(found, [read.object])
    assert UNREADABLE in json.loads((tmp_path / "state" / "applied.json").read_text())["objects"]
    good = value("DestinationRule", "db", {"host": "db"})
    (mended,) = read_objects(json.dumps(good), "b.json")
    assert [one.result for one in storing.put(found, [mended.object])] == ["configured"]
    for now in (found, store(tmp_path)):
        assert (now.closed, now.findings) == ((), ())
        assert RULE in now.objects


def test_an_unreadable_object_can_be_deleted(tmp_path: Path) -> None:
    found = store(tmp_path, UNREADABLE)
    assert [one.result for one in storing.delete(found, [RULE])] == ["deleted"]
    for now in (found, store(tmp_path)):
        assert (now.closed, now.findings) == ((), ())
    with pytest.raises(InvalidInputError, match="not found"):
        storing.delete(found, [RULE])


def test_so_does_a_policy_which_is_strict_meanwhile_and_comes_back_as_it_was(
    tmp_path: Path,
) -> None:
    policy = value("PeerAuthentication", "a", {"mtls": {"mode": "PERMISSIVE"}, "newer": 1})
    found = store(tmp_path, policy)
    found.keep_addresses({"a": ("198.19.0.1",)})
    (strict,) = found.objects.values()
    assert isinstance(strict, PeerAuthentication)
    assert strict.spec.mtls == MutualTLS("STRICT")
    written = json.loads((tmp_path / "state" / "applied.json").read_text())
    assert written["objects"] == [policy]


def kept(home: Path, *values: Any) -> Store:
    """A store whose directory has a file with these, which another version took."""
    for directory in (home / "files", home / "state" / "config.d"):
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "a.yaml").write_text("\n---\n".join(map(json.dumps, values)))
    return store(home)


# Decodable, but each fails a check that an earlier version may not have had.
WRONG: dict[str, dict[str, Any]] = {
    "route": value(
        "VirtualService",
        "db",
        {"hosts": ["b.test"], "http": [{"match": [{"uri": {"regex": r"\x{100}"}}], "route": TO}]},
    ),
    "rule": value("DestinationRule", "db", {"host": "db", "subsets": [{"name": "not a label!"}]}),
    "entry": value("ServiceEntry", "db", {"hosts": ["a.test"], "addresses": ["198.19.0.300"]}),
    "workload": value("WorkloadEntry", "db", {"address": "198.18.0.9", "ports": {"a": 99999}}),
    "policy": value(
        "PeerAuthentication", "db", {"mtls": {"mode": "PERMISSIVE"}, "portLevelMtls": {"99999": {}}}
    ),
    "authorization": value("AuthorizationPolicy", "db", {"rules": [{"to": [{}]}]}),
    "count and more": value(
        "DestinationRule", "db", {"host": "db", "subsets": [*SUBSETS, {"name": "not a label!"}]}
    ),
    "unreadable": UNREADABLE,
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_one_rule_tells_what_of_that_which_was_in_force_is_closed(
    tmp_path: Path, wrong: dict[str, Any]
) -> None:
    good = value("VirtualService", "good", {"hosts": ["a.test"], "http": [{"route": TO}]})
    ways = [make(tmp_path / make.__name__, wrong, good) for make in (store, kept)]
    key = Key(wrong["kind"], "shop", "db")
    for found in ways:
        assert Key("VirtualService", "shop", "good") in found.objects
        assert found.lost == ()
        assert key in {one.key for one in found.standing}
        assert any(f"{key} is not in force, but kept: " in str(one) for one in found.findings)
        assert not found.is_gone(key)
    assert ways[0].objects.keys() == ways[1].objects.keys()
    assert set(map(repr, ways[0].closed)) == set(map(repr, ways[1].closed))
    assert ways[0].digest_of(key) == ways[1].digest_of(key)


def test_what_was_applied_is_not_in_force_in_place_of_what_cannot_be_read_of_a_file(
    tmp_path: Path,
) -> None:
    store(tmp_path, value("VirtualService", "db", {"hosts": ["b.test"], "http": [{"route": TO}]}))
    found = kept(tmp_path, WRONG["route"])
    assert not found.objects
    assert [one.key for one in found.closed] == [Key("VirtualService", "shop", "db")]


def _snapshot(found: Store) -> Snapshot:
    return build_snapshot(found.objects.values(), (), MeshOptions(), {})


@pytest.mark.parametrize("heavy", BEFORE.values(), ids=BEFORE)
def test_so_does_what_a_file_has_that_was_good_once(tmp_path: Path, heavy: dict[str, Any]) -> None:
    found = kept(tmp_path, heavy)
    assert [str(key) for key in found.objects] == [f"{heavy['kind']} shop/db"]
    assert found.findings


def test_an_unreadable_part_of_a_file_that_was_good_once_opens_nothing(
    tmp_path: Path,
) -> None:
    policy = value("PeerAuthentication", "a", {"mtls": {"mode": "STRICT"}, "newer": 1})
    good = value("DestinationRule", "good", {"host": "good"})
    found = kept(tmp_path, UNREADABLE, policy, good)
    assert [rule.key for rule in found.closed] == [RULE]
    assert {str(key) for key in found.objects} == {
        "PeerAuthentication shop/a",
        "DestinationRule shop/good",
    }


def test_files_that_were_never_valid_are_refused_as_before(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.yaml").write_text(json.dumps(HEAVY["subsets"]))
    found = store(tmp_path)
    assert not found.objects
    assert found.findings


UNUSABLE: dict[str, dict[str, Any]] = {
    "entry": value("ServiceEntry", "db", {"hosts": ["a.test"], "newer": 1}),
    "route": value("VirtualService", "db", {"hosts": ["a.test"], "newer": 1}),
    "service": {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "db", "namespace": "shop"},
        "spec": {"ports": [{"port": 99999}]},
    },
    "workload": value("WorkloadEntry", "db", {"address": "198.18.0.9", "newer": 1}),
}


@pytest.mark.parametrize("unusable", UNUSABLE.values(), ids=UNUSABLE)
def test_an_object_with_hosts_that_cannot_be_used_is_closed_and_named(
    tmp_path: Path, unusable: dict[str, Any]
) -> None:
    key = Key(unusable["kind"], "shop", "db")
    found = store(tmp_path, unusable)
    assert [one.key for one in found.closed] == [key]
    assert not found.objects
    (finding,) = found.findings
    assert f"{key} is not in force, but kept: " in str(finding)
    assert "what it is about is refused" in str(finding)
    storing.delete(found, [key])
    assert (found.closed, found.findings) == ((), ())


@pytest.mark.parametrize("name", ["entry", "route", "workload"])
def test_so_is_one_in_a_file_that_was_good_once(tmp_path: Path, name: str) -> None:
    found = kept(tmp_path, UNUSABLE[name])
    assert [one.key for one in found.closed] == [Key(UNUSABLE[name]["kind"], "shop", "db")]


@pytest.mark.parametrize("opened", [store, kept])
def test_an_object_that_cannot_be_used_is_not_gone(
    tmp_path: Path, opened: Callable[[Path, Any], Store]
) -> None:
    found = opened(tmp_path, UNUSABLE["workload"])
    assert not found.objects
    assert not found.is_gone(Key("WorkloadEntry", "shop", "db"))
    assert found.is_gone(Key("WorkloadEntry", "shop", "other"))


def test_all_is_closed_that_can_be_read_of_an_object_of_a_file_that_was_good_once(
    tmp_path: Path,
) -> None:
    ports = [{"number": 8080, "name": "http"}, {"number": 9090, "name": 7}]
    spec = {"hosts": ["a.test", 7, "b.test"], "ports": ports}
    (closed,) = kept(tmp_path, value("ServiceEntry", "db", spec)).closed
    assert isinstance(closed, ClosedEntry)
    assert closed.spec.hosts == ("a.test", "b.test")
    assert {port.number for port in closed.spec.ports} >= {8080, 9090}


@pytest.mark.parametrize(
    ("unusable", "is_lost"),
    [
        (value("VirtualService", "db", {"hosts": [7]}), True),
        (value("VirtualService", "db", {"hosts": [7, "a.test"]}), False),
        (value("DestinationRule", "db", {"host": 7}), True),
        ({"kind": "PeerAuthentication", "apiVersion": "security.istio.io/v1"}, True),
        ("text", True),
        (value("Telemetry", "db", {}), False),
        (value("WorkloadEntry", "db", {"address": 7}), True),
        (value("WorkloadEntry", "db", {"address": "198.18.0.9", "newer": 1}), False),
    ],
    ids=[
        "no host",
        "a host",
        "no host of a rule",
        "no name",
        "no object",
        "another kind",
        "no address",
        "an address",
    ],
)
def test_an_object_that_does_not_say_what_it_is_about_is_lost_in_a_file_too(
    tmp_path: Path, unusable: Any, *, is_lost: bool
) -> None:
    good = value("DestinationRule", "good", {"host": "good"})
    found = kept(tmp_path, unusable, good)
    assert bool(found.lost) is is_lost
    assert [one.name for one in found.objects] == ["good"]


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("ServiceEntry", {"hosts": ["a.test"]}),
        ("VirtualService", {"hosts": ["a.test"]}),
        ("DestinationRule", {"host": "a"}),
        ("Service", {"hosts": ["a.test"]}),
        ("WorkloadEntry", {"address": "198.18.0.9"}),
    ],
)
def test_nodes_take_no_object_that_is_closed_on_the_server_and_close_it_too(
    kind: str, spec: dict[str, Any]
) -> None:
    closed = withheld.closed_value(value(kind, "db", spec))
    assert closed is not None
    told = withheld.unusable_json(closed)
    with pytest.raises(InvalidInputError):
        admit(told)
    again = withheld.closed_value(told)
    assert again is not None
    assert type(again) is type(closed)
    assert again == closed
