from __future__ import annotations

import msgspec
import pytest

from meshd.model.short_way import ShortWay
from meshd.model.workload import HostService, Observation, Stage, Workload
from meshd.workloads.short_way import closed, open_to, opened

_DOMAIN = "cluster.local"
_WEB = Workload(
    uid="default.web",
    name="web",
    namespace="default",
    netns="/pins/web",
    service_account="web",
    addresses=("198.18.0.1", "fd00::1"),
)
_URI = "spiffe://cluster.local/ns/default/sa/web"
_CAPTURED = Observation("default.web", Stage.CAPTURED, True)


def of(workload: Workload, seen: Observation | None, *certified: str) -> ShortWay:
    observations = {seen.uid: seen} if seen else {}
    return open_to({workload.uid: workload}, observations, certified, _DOMAIN)


def test_it_is_open_to_a_captured_workload_with_a_valid_certificate() -> None:
    assert of(_WEB, _CAPTURED, _URI) == ShortWay((_URI,), ("default.web",))
    assert closed(_WEB, {}, _CAPTURED, {_URI}, _DOMAIN) == ""


@pytest.mark.parametrize(
    ("changed", "seen", "certified", "why"),
    [
        ({}, None, {_URI}, "it is not captured"),
        ({}, Observation("default.web", Stage.PINNED), {_URI}, "it is not captured"),
        (
            {},
            Observation("default.web", Stage.CAPTURED, unprotected=True),
            {_URI},
            "it is not captured",
        ),
        ({}, _CAPTURED, {_URI + "2"}, "its identity has no valid certificate"),
        ({"addresses": ("fd00::1",)}, _CAPTURED, {_URI}, "it has no IPv4 address"),
        (
            {"host": HostService(cgroup="a"), "netns": ""},
            _CAPTURED,
            {_URI},
            "a service of the host has no namespace of its own",
        ),
    ],
)
def test_whatever_is_missing_closes_it(
    changed: dict[str, object], seen: Observation | None, certified: set[str], why: str
) -> None:
    workload = msgspec.structs.replace(_WEB, **changed)
    assert closed(workload, {}, seen, certified, _DOMAIN) == why
    assert of(workload, seen, *certified).destinations == ()


def test_a_caller_needs_a_valid_certificate_and_nothing_else() -> None:
    assert of(_WEB, None, _URI).callers == (_URI,)
    assert of(_WEB, _CAPTURED).callers == ()


def test_a_caller_without_an_address_to_be_seen_by_closes_it_for_all() -> None:
    other = msgspec.structs.replace(_WEB, uid="default.other", name="other", addresses=())
    served = {_WEB.uid: _WEB, other.uid: other}
    why = closed(_WEB, served, _CAPTURED, {_URI}, _DOMAIN)
    assert why == "default/other of this node has no IPv4 address to be seen by"
    assert open_to(served, {_WEB.uid: _CAPTURED}, {_URI}, _DOMAIN) == ShortWay((_URI,), ())


def test_it_is_not_open_where_proxies_do_not_lead_there_yet() -> None:
    assert opened((), told=True) == "open"
    assert opened(("proxy-0", "proxy-1"), told=True) == "not yet in proxy-0, proxy-1"
    assert opened((), told=False) == "not yet in any proxy"
