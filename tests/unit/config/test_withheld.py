"""What is left out never opens what it closed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from meshd.api.authorization_policy.types import Rule
from meshd.api.service_entry.types import WorkloadEntrySpec
from meshd.base.json_values import Json, JsonObject
from meshd.config import applied
from meshd.config.admission import admit
from meshd.config.store import Store
from meshd.config.withheld import closed, without
from meshd.model.closed_authentication import ClosedAuthentication
from meshd.model.closed_authorization import ClosedAuthorization
from meshd.model.closed_policy import ClosedPolicy
from meshd.model.closed_rule import ClosedRule
from meshd.model.closed_workload import ClosedWorkload


def policy(name: str, **spec: Json) -> JsonObject:
    meta: JsonObject = {"name": name, "namespace": "shop", "labels": {}, "annotations": {}}
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "PeerAuthentication",
        "metadata": meta,
        "spec": spec,
    }


def is_strict(found: object) -> bool:
    assert isinstance(found, ClosedPolicy)
    return (
        found.spec.selector is None and bool(found.spec.mtls) and found.spec.mtls.mode == "STRICT"
    )


def test_a_policy_that_is_left_out_closes_its_namespace() -> None:
    found = admit(policy("a", mtls={"mode": "PERMISSIVE"}))
    space = admit({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}})
    objects = {one.key: one for one in (found, space)}
    assert without(objects, lambda _: "") == objects
    after = without(objects, lambda _: "it kills")
    assert after.keys() == {found.key}
    assert is_strict(after[found.key])


def test_what_a_destination_rule_that_is_left_out_is_about_is_known() -> None:
    meta: JsonObject = {"name": "db", "namespace": "shop"}
    rule = admit(
        {
            "apiVersion": "networking.istio.io/v1",
            "kind": "DestinationRule",
            "metadata": meta,
            "spec": {"host": "db"},
        }
    )
    whole = {rule.key: rule}
    assert closed(whole, whole) == ()
    (rule_in_place,) = closed(whole, without(whole, lambda _: "it kills"))
    assert isinstance(rule_in_place, ClosedRule)
    assert (rule_in_place.key, rule_in_place.spec.host) == (rule.key, "db")


def test_a_store_knows_what_is_closed_as_long_as_the_rule_is_withheld(tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "state").mkdir(0o700)
    (tmp_path / "files" / "a.yaml").write_text(
        "{apiVersion: networking.istio.io/v1, kind: DestinationRule,"
        " metadata: {name: db, namespace: shop}, spec: {host: db}}"
    )
    store = Store(tmp_path / "files", tmp_path / "state")
    assert store.closed == ()
    store.withhold(lambda _: "it kills")
    (rule,) = store.closed
    assert isinstance(rule, ClosedRule)
    assert (str(rule.key), rule.spec.host) == ("DestinationRule shop/db", "db")
    store.withhold(lambda _: "")
    assert store.closed == ()


def test_the_address_of_a_workload_entry_that_is_left_out_is_closed_and_no_host_name() -> None:
    meta: JsonObject = {"name": "vm", "namespace": "shop"}
    version = "networking.istio.io/v1"
    addresses = ("198.18.0.9", "vm.example.com")
    address, name = (
        admit(
            {
                "apiVersion": version,
                "kind": "WorkloadEntry",
                "metadata": meta,
                "spec": {"address": address, "labels": {"app": "db"}, "ports": {"tcp": 5432}},
            }
        )
        for address in addresses
    )
    (found,) = closed({address.key: address}, {})
    assert isinstance(found, ClosedWorkload)
    assert (found.key, found.spec) == (address.key, WorkloadEntrySpec(address="198.18.0.9"))
    assert closed({name.key: name}, {}) == ()


def test_a_policy_on_disk_that_cannot_be_read_closes_its_namespace(tmp_path: Path) -> None:
    path = tmp_path / "applied.json"
    bad = [policy("a", mtls={"mode": "???"}), policy("b", selector=5), {"kind": 5}]
    path.write_text(json.dumps({"revision": 1, "objects": bad, "addresses": {}}))
    loaded, findings = applied.load(path)
    assert [key.name for key in loaded.objects] == ["a", "b"]
    assert all(map(is_strict, loaded.objects.values()))
    assert list(loaded.unusable) == list(loaded.objects)
    assert len(findings) == 2  # of what has no name: that it is not in force, and where a copy is


def test_a_policy_that_the_last_good_copy_has_and_that_cannot_be_read_closes_its_namespace(
    tmp_path: Path,
) -> None:
    bad = json.dumps(policy("a", selector={"matchLabels": {"app": "db"}}, mtls={"mode": "???"}))
    for directory in (tmp_path / "files", tmp_path / "state" / "config.d"):
        directory.mkdir(parents=True)
        (directory / "a.yaml").write_text(bad)
    (found,) = Store(tmp_path / "files", tmp_path / "state").objects.values()
    assert is_strict(found)


def test_a_policy_about_requests_that_is_left_out_denies_everything_in_its_namespace() -> None:
    value = {**policy("a", rules=[{}]), "kind": "AuthorizationPolicy"}
    found = admit(value)
    (in_place,) = without({found.key: found}, lambda _: "it kills").values()
    assert isinstance(in_place, ClosedAuthorization)
    assert (in_place.key, in_place.spec.action) == (found.key, "DENY")
    assert in_place.spec.selector is None
    assert in_place.spec.rules == (Rule(),)


def test_a_policy_about_tokens_that_is_left_out_lets_no_request_in() -> None:
    spec: JsonObject = {"jwtRules": []}
    value: JsonObject = {**policy("a"), "kind": "RequestAuthentication", "spec": spec}
    found = admit(value)
    (in_place,) = without({found.key: found}, lambda _: "it kills").values()
    assert isinstance(in_place, ClosedAuthentication)
    assert (in_place.key, in_place.spec.selector) == (found.key, None)


@pytest.mark.parametrize(
    "spec",
    [
        {"rules": [{"form": []}]},
        {"action": "CUSTOM", "rules": [{}]},
        {"rules": [{"when": [{"key": "request.auth.newer", "values": ["*"]}]}]},
        {"newer": True},
    ],
)
def test_a_stored_policy_about_requests_that_is_not_understood_denies(
    tmp_path: Path, spec: JsonObject
) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "state").mkdir(0o700)
    value: Json = {**policy("a"), "kind": "AuthorizationPolicy", "spec": spec}
    stored: Json = {"version": 1, "revision": 1, "objects": [value], "addresses": {}}
    (tmp_path / "state" / "applied.json").write_text(json.dumps(stored))
    store = Store(tmp_path / "files", tmp_path / "state")
    assert [type(one) for one in store.objects.values()] == [ClosedAuthorization], store.findings
    assert store.findings
