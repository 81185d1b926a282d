"""Endpoints lead to an internal listener only while the client can use it."""

from __future__ import annotations

import pytest

from meshd.xds.exchange import Request, Response
from meshd.xds.resources import (
    CLUSTER,
    ENDPOINTS,
    LISTENER,
    ROUTES,
    Detour,
    Resource,
    Resources,
)
from meshd.xds.server import Member
from meshd.xds.stream import Stream

_INSIDE = "inside"
_PLAIN = Resource(ENDPOINTS, "c", "plain", b"")
_CLUSTERS = (Resource(CLUSTER, "c", "1", b"", "c"),)


def _leading(version: str = "1") -> Resource:
    """Endpoints that lead to the internal listener."""
    detour = Resource(ENDPOINTS, "c", f"detour-{version}", b"")
    return Resource(ENDPOINTS, "c", version, b"", detour=Detour((_INSIDE,), detour))


def _listener(name: str, version: str = "1") -> Resource:
    return Resource(LISTENER, name, version, b"")


_OFF = Resources.of([*_CLUSTERS, _PLAIN, _listener("workload", "off")])
_ON = Resources.of([*_CLUSTERS, _leading(), _listener(_INSIDE), _listener("workload", "on")])


def _answer(stream: Stream, response: Response, error: str | None = None) -> None:
    stream.receive(Request(response.type_url, nonce=response.nonce, error=error))


def _sent(response: Response) -> str:
    """Return the type, and the versions or what is removed."""
    kind = response.type_url.rpartition(".")[2]
    told = [*(f"{one.name} {one.version}" for one in response.resources), *response.removed]
    return f"{kind}: {', '.join(told)}"


def _drain(stream: Stream, refused: str = "") -> list[str]:
    """Return what is sent until nothing is left; a listener called ``refused`` is refused."""
    sent: list[str] = []
    while response := stream.next():
        sent.append(_sent(response))
        bad = any(one.name == refused for one in response.resources)
        _answer(stream, response, "bad" if bad else None)
    return sent


def _connected(resources: Resources | None, held: Resources | None = None) -> Stream:
    """Return a stream whose client has asked for everything, and has what is ``held``."""
    stream = Stream(resources)
    for type_url, names in ((CLUSTER, ()), (ENDPOINTS, ("c",)), (LISTENER, ())):
        versions = (
            {one.name: one.version for one in held.of_type(type_url).values()} if held else {}
        )
        stream.receive(Request(type_url, subscribe=names, initial_versions=versions))
    return stream


def _running() -> Stream:
    """Return the stream of a client whose listeners know of no internal listener."""
    stream = _connected(_OFF)
    _drain(stream)
    assert stream.synced
    return stream


def test_a_new_client_is_led_inside_as_soon_as_it_has_the_listener() -> None:
    stream = _connected(_ON)
    assert _drain(stream) == [
        "Cluster: c 1",
        "ClusterLoadAssignment: c detour-1",
        "Listener: inside 1, workload on",
        "ClusterLoadAssignment: c 1",
    ]
    assert stream.synced


def test_a_running_client_is_led_inside_when_its_former_listeners_are_drained() -> None:
    stream = _running()
    stream.replace(_ON)
    assert _drain(stream) == [
        "ClusterLoadAssignment: c detour-1",
        "Listener: inside 1, workload on",
    ]
    assert stream.distrusts_listeners
    assert stream.avoided == {_INSIDE}
    assert not stream.settled
    stream.trust_listeners()
    assert _drain(stream) == ["ClusterLoadAssignment: c 1"]
    assert not stream.avoided
    assert stream.synced


def test_a_proxy_with_the_listener_is_led_inside_when_its_endpoints_equal_the_detours() -> None:
    """Nothing is sent by a detour then, and endpoints are as they were before the way was open."""
    same = Resource(ENDPOINTS, "c", "1", b"", detour=Detour((_INSIDE,), _PLAIN))
    listeners = _ON.of_type(LISTENER).values()
    stream = _connected(Resources.of([*_CLUSTERS, _PLAIN, *listeners]))
    _drain(stream)
    stream.replace(Resources.of([*_CLUSTERS, same, *listeners]))
    assert stream.avoided == {_INSIDE}
    assert _drain(stream) == ["ClusterLoadAssignment: c 1"]
    assert stream.synced
    assert not stream.avoided


def test_a_proxy_that_reconnects_with_endpoints_of_the_detour_is_led_inside() -> None:
    same = Resource(ENDPOINTS, "c", "1", b"", detour=Detour((_INSIDE,), _PLAIN))
    listeners = _ON.of_type(LISTENER).values()
    held = Resources.of([*_CLUSTERS, _PLAIN, *listeners])
    stream = _connected(Resources.of([*_CLUSTERS, same, *listeners]), held)
    _drain(stream)
    stream.trust_listeners()
    assert _drain(stream) == ["ClusterLoadAssignment: c 1"]
    assert stream.synced


def test_a_member_waits_for_longer_than_the_drain_time() -> None:
    member = Member(7)
    assert member.timers() == {}
    member.stream = _running()
    member.stream.replace(_ON)
    _drain(member.stream)
    (waits,) = member.timers().values()
    assert waits > 7


def test_a_client_that_has_the_listener_is_told_of_changed_endpoints_at_once() -> None:
    stream = _connected(_ON)
    _drain(stream)
    listeners = _ON.of_type(LISTENER).values()
    stream.replace(Resources.of([*_CLUSTERS, _leading("2"), *listeners]))
    assert _drain(stream) == ["ClusterLoadAssignment: c 2"]


@pytest.mark.parametrize("refused", [_INSIDE, "workload"])
def test_a_client_that_refuses_a_listener_goes_on_by_the_detour_and_hears_of_changes(
    refused: str,
) -> None:
    stream = _running()
    stream.replace(_ON)
    _drain(stream, refused)
    stream.trust_listeners()
    assert _drain(stream) == []
    assert stream.settled
    listeners = _ON.of_type(LISTENER).values()
    stream.replace(Resources.of([*_CLUSTERS, _leading("2"), *listeners]))
    assert _drain(stream, refused) == ["ClusterLoadAssignment: c detour-2"]
    mended = (_listener(_INSIDE, "2"), _listener("workload", "2"))
    stream.replace(Resources.of([*_CLUSTERS, _leading("2"), *mended]))
    _drain(stream)
    stream.trust_listeners()
    assert _drain(stream) == ["ClusterLoadAssignment: c 2"]


def test_endpoints_wait_for_the_routes_of_the_listener() -> None:
    routes = Resource(ROUTES, "r", "1", b"")
    stream = _connected(
        Resources.of([*_ON.of_type(LISTENER).values(), *_CLUSTERS, _leading(), routes])
    )
    seen: list[str] = []
    while response := stream.next():
        seen.append(_sent(response))
        if response.type_url == LISTENER:
            stream.receive(Request(ROUTES, subscribe=("r",)))
        _answer(stream, response)
    assert seen[-2:] == ["RouteConfiguration: r 1", "ClusterLoadAssignment: c 1"]


def test_a_client_that_comes_back_with_the_short_way_keeps_it() -> None:
    stream = _connected(_ON, held=_ON)
    assert _drain(stream) == ["ClusterLoadAssignment: c 1"]
    assert stream.synced
    listeners = _ON.of_type(LISTENER).values()
    stream.replace(Resources.of([*_CLUSTERS, _leading("2"), *listeners]))
    assert _drain(stream) == ["ClusterLoadAssignment: c 2"]


def test_the_listener_goes_after_the_endpoints_that_led_to_it() -> None:
    """Clusters change, too: those with the short way take endpoints along otherwise."""
    on = _connected(_ON)
    _drain(on)
    changed = Resource(CLUSTER, "c", "2", b"", "c")
    off = Resources.of([changed, _PLAIN, _listener("workload", "off")])
    on.replace(off)
    expected = [
        "Cluster: c 2",
        "ClusterLoadAssignment: c plain",
        "Listener: workload off, inside",
    ]
    assert _drain(on) == expected
    assert _drain(_connected(off, held=_ON))[-1] == expected[-1]


def test_without_the_listener_turned_on_again_it_is_waited_for_again() -> None:
    stream = _connected(_ON)
    _drain(stream)
    for resources in (_OFF, _ON):
        stream.replace(resources)
        sent = _drain(stream)
    assert sent[0] == "ClusterLoadAssignment: c detour-1"
    assert stream.distrusts_listeners
