from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshd.api.authorization_policy.types import AuthorizationPolicy
from meshd.api.read import read_objects
from meshd.compile.policy.short_way import reachable, with_short_way
from meshd.model.service import Endpoint
from meshd.model.short_way import Inside, ShortWay
from meshd.model.snapshot import MeshOptions, Snapshot
from meshd.model.workload import HostService, Workload

_WEB = Workload(
    uid="default.web",
    name="web",
    namespace="default",
    netns="/pins/web",
    service_account="web",
    addresses=("198.18.0.1", "fd00::1"),
)
_URI = "spiffe://cluster.local/ns/default/sa/web"
_PLACE = Endpoint(
    address="198.18.0.1",
    port=8080,
    service_port=80,
    namespace="default",
    service_account="web",
    workload="default.web",
    mutual_tls=True,
)


def policy(rules: str) -> AuthorizationPolicy:
    text = f"""
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: p, namespace: default}}
spec: {{action: DENY, rules: {rules}}}
"""
    (read,) = read_objects(text, "test.yaml")
    assert isinstance(read.object, AuthorizationPolicy)
    return read.object


def of(
    workload: Workload = _WEB,
    *policies: AuthorizationPolicy,
    on: bool = True,
    listed: bool = True,
) -> Snapshot:
    return Snapshot(
        authorization_policies=policies,
        options=MeshOptions(short_way=on),
        workloads={workload.uid: workload},
        short_way=ShortWay((_URI,), (workload.uid,) if listed else ()),
    )


def test_an_endpoint_that_is_the_workload_itself_is_reached_inside() -> None:
    (place,) = with_short_way((_PLACE,), reachable(of()))
    assert place == msgspec.structs.replace(_PLACE, inside=Inside("/pins/web", _URI))


@pytest.mark.parametrize(
    "changed",
    [
        {"workload": ""},
        {"workload": "default.other"},
        {"address": "198.18.0.2"},
        {"address": "fd00::1"},
        {"mutual_tls": False},
        {"service_account": "king"},
        {"namespace": "other"},
    ],
    ids=str,
)
def test_an_endpoint_that_claims_to_be_a_workload_is_not_reached_inside(
    changed: dict[str, object],
) -> None:
    place = msgspec.structs.replace(_PLACE, **changed)
    assert with_short_way((place,), reachable(of())) == (place,)


@pytest.mark.parametrize(
    "snapshot",
    [
        of(on=False),
        of(listed=False),
        of(msgspec.structs.replace(_WEB, addresses=("fd00::1",))),
        of(msgspec.structs.replace(_WEB, netns="", host=HostService(cgroup="web"))),
        msgspec.structs.replace(of(), workloads={}),
    ],
    ids=["off", "not listed", "IPv6 only", "of the host", "gone"],
)
def test_a_workload_that_cannot_be_reached_inside_is_not(snapshot: Snapshot) -> None:
    assert reachable(snapshot) == {}


def test_one_that_policies_are_about_is_told_apart_from_one_without() -> None:
    """So no connection of before passes them, nor do requests that are not read on its side."""
    judged = policy("[{from: [{source: {namespaces: [bad]}}]}]")
    (place,) = with_short_way((_PLACE,), reachable(of(_WEB, judged)))
    assert place.inside == Inside("/pins/web", _URI, judged=True)


def test_one_that_asks_for_the_name_in_tls_hellos_is_not_reached_inside() -> None:
    named = policy("[{}, {when: [{key: connection.sni, values: [a]}]}]")
    assert reachable(of(_WEB, named)) == {}


@given(st.lists(st.sampled_from(["198.18.0.1", "198.18.0.9", "fd00::1"]), max_size=4))
def test_endpoints_are_the_very_same_where_none_is_reached_inside(addresses: list[str]) -> None:
    places = tuple(
        msgspec.structs.replace(_PLACE, address=address, workload="") for address in addresses
    )
    assert with_short_way(places, reachable(of())) is places
