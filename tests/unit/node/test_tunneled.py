"""Which workloads other nodes are told to reach by tunnels."""

from __future__ import annotations

import pytest

from meshd.model.workload import HostService, Workload
from meshd.node.tunneled import Tunneled
from meshd.settings import CaptureSettings
from meshd.workloads.lifecycle import Life, Phase

_PREFIX = "traffic.sidecar.istio.io/"


def workload(**annotations: str) -> Workload:
    return Workload(
        uid="back.server",
        name="server",
        namespace="back",
        netns="/run/netns/server",
        addresses=("198.18.0.9",),
        annotations={_PREFIX + name: value for name, value in annotations.items()},
    )


def told(
    one: Workload,
    *,
    phase: Phase = Phase.CAPTURED,
    accepted: bool = True,
    allowed: bool = True,
) -> bool:
    tunneled = Tunneled(CaptureSettings(), allowed=allowed)
    found = tunneled.of({one.uid: one}, {one.uid: Life(one, phase)}, {one.uid} if accepted else ())
    return one.uid in found


def test_a_captured_workload_whose_listener_proxies_have_is_told() -> None:
    assert told(workload())
    assert not told(workload(), allowed=False)
    assert not told(workload(), accepted=False)


@pytest.mark.parametrize("phase", [one for one in Phase if one is not Phase.CAPTURED])
def test_nobody_tunnels_to_what_is_not_captured(phase: Phase) -> None:
    assert not told(workload(), phase=phase)


@pytest.mark.parametrize(
    "annotations",
    [
        {"excludeInboundPorts": "15008"},
        {"includeInboundPorts": "8080"},
        {"excludeInterfaces": "eth1"},
        {"excludeInboundPorts": "nonsense"},
    ],
)
def test_nobody_tunnels_to_a_port_that_is_kept_from_capture(annotations: dict[str, str]) -> None:
    assert not told(workload(**annotations))


def test_a_service_of_the_host_has_no_tunnels() -> None:
    host = HostService(cgroup="x", outbound_port=15101, inbound_port=15102)
    one = Workload(uid="w", name="w", namespace="n", netns="", addresses=("198.18.0.9",), host=host)
    assert not told(one)


def test_a_listener_that_changes_takes_back_nothing() -> None:
    one, tunneled = workload(), Tunneled(CaptureSettings(), allowed=True)
    inside, captured = {one.uid: one}, {one.uid: Life(one, Phase.CAPTURED)}
    assert tunneled.of(inside, captured, {one.uid}) == {one.uid}
    assert tunneled.of(inside, captured, ()) == {one.uid}
    assert not tunneled.of(inside, {one.uid: Life(one, Phase.RELEASING)}, {one.uid})
    assert not tunneled.of(inside, captured, ())
