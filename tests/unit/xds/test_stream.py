"""What one client is told, and in which order."""

from __future__ import annotations

import pytest

from meshd.xds.exchange import Accepted, Refused, Request, Response
from meshd.xds.resources import CLUSTER, ENDPOINTS, LISTENER, ROUTES, SECRET, Resource, Resources
from meshd.xds.stream import Stream
from meshd.xds.subscription import UNKNOWN


def _resource(type_url: str, name: str, version: str = "1", endpoints: str = "") -> Resource:
    return Resource(type_url, name, version, b"", endpoints)


def _cluster(name: str, version: str = "1", *, eds: bool = False) -> Resource:
    return _resource(CLUSTER, name, version, name if eds else "")


def _names(response: Response | None) -> tuple[str, list[str], list[str]]:
    assert response
    return (
        response.type_url.rpartition(".")[2],
        [resource.name for resource in response.resources],
        list(response.removed),
    )


def _ack(stream: Stream, response: Response | None) -> None:
    assert response
    assert isinstance(stream.receive(Request(response.type_url, nonce=response.nonce)), Accepted)


def _nack(stream: Stream, response: Response | None, reason: str = "bad") -> Refused:
    assert response
    request = Request(response.type_url, nonce=response.nonce, error=reason)
    refused = stream.receive(request)
    assert isinstance(refused, Refused)
    return refused


def _drain(stream: Stream) -> list[tuple[str, list[str], list[str]]]:
    """Accept all there is."""
    sent: list[tuple[str, list[str], list[str]]] = []
    while response := stream.next():
        sent.append(_names(response))
        _ack(stream, response)
    return sent


def _synced(*resources: Resource, routes: tuple[str, ...] = ()) -> Stream:
    stream = Stream(Resources.of(resources))
    stream.receive(Request(CLUSTER))
    stream.receive(Request(LISTENER))
    for type_url, names in ((ENDPOINTS, _eds(resources)), (ROUTES, routes)):
        if names:
            stream.receive(Request(type_url, subscribe=names))
    _drain(stream)
    assert stream.synced
    return stream


def _eds(resources: tuple[Resource, ...]) -> tuple[str, ...]:
    return tuple(resource.endpoints for resource in resources if resource.endpoints)


def test_listeners_wait_until_clusters_are_accepted() -> None:
    stream = Stream(Resources.of([_cluster("c"), _resource(LISTENER, "l")]))
    stream.receive(Request(CLUSTER, subscribe=("*",)))
    stream.receive(Request(LISTENER, subscribe=("*",)))
    clusters = stream.next()
    assert _names(clusters) == ("Cluster", ["c"], [])
    assert stream.next() is None
    assert not stream.synced
    _ack(stream, clusters)
    assert _drain(stream) == [("Listener", ["l"], [])]
    assert stream.synced


def test_a_client_without_listeners_is_told_once_that_there_are_none() -> None:
    stream = Stream(Resources.of([_cluster("c")]))
    stream.receive(Request(CLUSTER))
    stream.receive(Request(LISTENER, subscribe=("*",)))
    assert _drain(stream) == [("Cluster", ["c"], []), ("Listener", [], [])]
    assert stream.synced
    stream.receive(Request(LISTENER, subscribe=("*",)))
    assert stream.next() is None
    stream.replace(Resources.of([_cluster("c"), _resource(LISTENER, "l")]))
    assert _drain(stream) == [("Listener", ["l"], [])]


def test_refused_listeners_count_as_refused_until_they_are_taken_when_offered_again() -> None:
    stream = Stream(Resources.of([_cluster("c"), _resource(LISTENER, "l")]))
    stream.receive(Request(CLUSTER))
    stream.receive(Request(LISTENER))
    _ack(stream, stream.next())
    _nack(stream, stream.next(), "the address is in use")
    assert stream.next() is None
    for refuse in (True, False):
        assert stream.lacks_listeners
        stream.offer_again()
        response = stream.next()
        assert stream.rejections[LISTENER, "l"].reason == "the address is in use"
        if refuse:
            _nack(stream, response, "the address is in use")
        else:
            _ack(stream, response)
    assert not stream.rejections
    assert stream.held(LISTENER) == {"l": "1"}
    assert stream.next() is None


def test_a_client_that_comes_back_with_listeners_is_not_told_that_there_are_none() -> None:
    stream = Stream(Resources.of([_cluster("c")]))
    stream.receive(Request(CLUSTER, initial_versions={"c": "1"}))
    stream.receive(Request(LISTENER, initial_versions={"l": "1"}))
    assert _drain(stream) == [("Listener", [], ["l"])]


def test_listeners_wait_for_the_endpoints_of_new_clusters() -> None:
    stream = Stream(
        Resources.of([_cluster("c", eds=True), _resource(ENDPOINTS, "c"), _resource(LISTENER, "l")])
    )
    stream.receive(Request(CLUSTER))
    stream.receive(Request(LISTENER))
    _ack(stream, stream.next())
    assert stream.next() is None
    assert stream.warming
    stream.receive(Request(ENDPOINTS, subscribe=("c",)))
    endpoints = stream.next()
    assert _names(endpoints) == ("ClusterLoadAssignment", ["c"], [])
    assert stream.next() is None
    _ack(stream, endpoints)
    assert _drain(stream) == [("Listener", ["l"], [])]


def test_a_client_that_never_asks_for_endpoints_gets_its_listeners_when_told_to_go_on() -> None:
    stream = Stream(
        Resources.of([_cluster("c", eds=True), _resource(ENDPOINTS, "c"), _resource(LISTENER, "l")])
    )
    stream.receive(Request(CLUSTER))
    stream.receive(Request(LISTENER))
    assert len(_drain(stream)) == 1
    stream.stop_waiting()
    assert _drain(stream) == [("Listener", ["l"], [])]


def test_a_changed_cluster_is_given_its_endpoints_again() -> None:
    endpoints = _resource(ENDPOINTS, "c")
    stream = _synced(_cluster("c", eds=True), endpoints)
    stream.replace(Resources.of([_cluster("c", "2", eds=True), endpoints]))
    assert _drain(stream) == [("Cluster", ["c"], []), ("ClusterLoadAssignment", ["c"], [])]


def test_endpoints_that_were_under_way_do_not_count_for_a_cluster_sent_after_them() -> None:
    stream = _synced(_cluster("c", eds=True), _resource(ENDPOINTS, "c"))
    changed = [_cluster("c", eds=True), _resource(ENDPOINTS, "c", "2"), _resource(LISTENER, "l")]
    stream.replace(Resources.of(changed))
    early = stream.next()
    assert _names(early)[0] == "ClusterLoadAssignment"
    _ack(stream, stream.next())  # the listener
    stream.replace(
        Resources.of([_cluster("c", "2", eds=True), *changed[1:2], _resource(LISTENER, "l", "2")])
    )
    _ack(stream, stream.next())  # the cluster
    _ack(stream, early)
    assert _drain(stream) == [("ClusterLoadAssignment", ["c"], []), ("Listener", ["l"], [])]


def test_clusters_go_after_the_routes_and_listeners_that_named_them() -> None:
    stream = _synced(
        _cluster("old"), _resource(LISTENER, "l"), _resource(ROUTES, "r"), routes=("r",)
    )
    stream.replace(
        Resources.of([_cluster("new"), _resource(LISTENER, "l", "2"), _resource(ROUTES, "r", "2")])
    )
    assert _drain(stream) == [
        ("Cluster", ["new"], []),
        ("RouteConfiguration", ["r"], []),
        ("Listener", ["l"], []),
        ("Cluster", [], ["old"]),
    ]


def test_routes_are_told_before_listeners_and_go_after_them() -> None:
    """They say who may send requests to a workload whose listener is new."""
    stream = _synced(_resource(LISTENER, "l"), _resource(ROUTES, "r"), routes=("r",))
    stream.replace(Resources.of([_resource(LISTENER, "new"), _resource(ROUTES, "r", "2")]))
    assert _drain(stream) == [("RouteConfiguration", ["r"], []), ("Listener", ["new"], ["l"])]
    stream.replace(Resources.of([]))
    assert _drain(stream) == [("Listener", [], ["new"]), ("RouteConfiguration", [], ["r"])]


def test_a_cluster_stays_while_a_refused_listener_may_still_name_it() -> None:
    stream = _synced(_cluster("old"), _resource(LISTENER, "l"))
    stream.replace(Resources.of([_resource(LISTENER, "l", "2")]))
    assert _nack(stream, stream.next()).final
    assert stream.next() is None
    assert stream.settled
    stream.replace(Resources.of([_resource(LISTENER, "l", "3")]))
    assert _drain(stream) == [("Listener", ["l"], []), ("Cluster", [], ["old"])]


def test_only_the_bad_one_of_many_is_refused_and_it_is_not_offered_again() -> None:
    names = [f"c{number}" for number in range(16)]
    resources = Resources.of(map(_cluster, names))
    stream = Stream(resources)
    stream.receive(Request(CLUSTER))
    stream.receive(Request(LISTENER))
    responses = 0
    while response := stream.next():
        responses += response.type_url == CLUSTER
        if any(resource.name == "c5" for resource in response.resources):
            _nack(stream, response, "c5 is bad")
        else:
            _ack(stream, response)
    assert responses == 9
    assert stream.held(CLUSTER).keys() == set(names) - {"c5"}
    assert stream.rejections[CLUSTER, "c5"].reason == "c5 is bad"
    assert stream.settled
    assert not stream.synced

    stream.replace(Resources.of([*map(_cluster, names), _cluster("more")]))
    assert _drain(stream) == [("Cluster", ["more"], [])]
    stream.replace(Resources.of([_cluster("c5", "2")]))
    assert _names(stream.next()) == ("Cluster", ["c5"], [])


def test_what_was_perhaps_applied_of_a_refused_response_is_removed_when_it_is_unpublished() -> None:
    stream = Stream(Resources.of([_cluster("a"), _cluster("b")]))
    stream.receive(Request(CLUSTER))
    stream.receive(Request(LISTENER))
    _nack(stream, stream.next())
    stream.replace(Resources({}))
    assert stream.may_have(CLUSTER) == {"a", "b"}
    assert _drain(stream) == [("Cluster", [], ["a", "b"]), ("Listener", [], [])]


def test_what_was_offered_in_several_versions_is_not_known_when_the_last_is_refused() -> None:
    names = ("a", "b", "c", "d")

    def offer(version: str) -> Resources:
        return Resources.of(_cluster(name, version) for name in names)

    stream = Stream(offer("1"))
    stream.receive(Request(CLUSTER))
    stream.receive(Request(LISTENER))
    _nack(stream, stream.next())
    stream.replace(offer("2"))
    _nack(stream, stream.next())  # the client may use its version 2 of a by now
    stream.replace(offer("1"))
    last = stream.next()
    assert _names(last) == ("Cluster", ["a"], [])
    _nack(stream, last)
    assert stream.held(CLUSTER)["a"] == UNKNOWN
    stream.replace(Resources({}))
    assert "a" in stream.may_have(CLUSTER)


def test_going_back_to_the_version_in_use_ends_a_rejection() -> None:
    first = Resources.of([_cluster("c")])
    stream = _synced(_cluster("c"))
    stream.replace(Resources.of([_cluster("c", "2")]))
    _nack(stream, stream.next())
    stream.replace(first)
    assert not stream.rejections
    assert stream.next() is None


def test_a_reconnected_client_is_sent_only_what_it_lacks() -> None:
    stream = Stream(
        Resources.of([_cluster("same"), _cluster("changed", "2"), _resource(SECRET, "s")])
    )
    versions = {"same": "1", "changed": "1", "gone": "1"}
    stream.receive(Request(CLUSTER, initial_versions=versions))
    stream.receive(Request(SECRET, subscribe=("s",), initial_versions={"s": "1"}))
    assert _drain(stream) == [("Cluster", ["changed"], [])]
    stream.receive(Request(LISTENER))
    assert _drain(stream) == [("Cluster", [], ["gone"])]


def test_a_reconnected_client_is_given_endpoints_again_for_clusters_that_wait_for_them() -> None:
    stream = Stream(Resources.of([_cluster("c", "2", eds=True), _resource(ENDPOINTS, "c")]))
    # It does not ask for clusters while one of them waits.
    stream.receive(Request(ENDPOINTS, subscribe=("c",), initial_versions={"c": "1"}))
    assert _drain(stream) == [("ClusterLoadAssignment", ["c"], [])]
    stream.receive(Request(CLUSTER, initial_versions={"c": "2"}))
    assert _drain(stream) == []


def test_nothing_is_said_before_anything_is_published() -> None:
    stream = Stream()
    stream.receive(Request(CLUSTER, initial_versions={"c": "1"}))
    stream.receive(Request(LISTENER))
    assert stream.next() is None
    assert not stream.synced
    stream.replace(Resources.of([_cluster("c")]))
    assert stream.next() is None
    assert stream.synced


def test_a_client_that_asks_again_for_a_resource_is_sent_it_again() -> None:
    stream = _synced(_cluster("c", eds=True), _resource(ENDPOINTS, "c"))
    stream.receive(Request(ENDPOINTS, subscribe=("c",)))
    assert _drain(stream) == [("ClusterLoadAssignment", ["c"], [])]


def test_a_client_that_asks_for_a_missing_resource_is_told_so_and_gets_it_when_it_comes() -> None:
    stream = _synced()
    stream.receive(Request(SECRET, subscribe=("s",)))
    assert _drain(stream) == [("Secret", [], ["s"])]
    stream.replace(Resources.of([_resource(SECRET, "s")]))
    assert _drain(stream) == [("Secret", ["s"], [])]


def test_unsubscribed_resources_are_no_longer_sent() -> None:
    stream = _synced(_resource(ENDPOINTS, "e"))
    stream.receive(Request(ENDPOINTS, subscribe=("e",)))
    _drain(stream)
    stream.receive(Request(ENDPOINTS, unsubscribe=("e", "never")))
    stream.replace(Resources.of([_resource(ENDPOINTS, "e", "2")]))
    assert stream.next() is None
    assert not stream.held(ENDPOINTS)


def test_an_empty_first_request_asks_for_all_clusters_but_for_no_endpoints() -> None:
    stream = _synced(_resource(ENDPOINTS, "e"))
    stream.receive(Request(ENDPOINTS))
    assert stream.next() is None


def test_a_name_unsubscribed_beside_the_wildcard_is_answered() -> None:
    stream = _synced(_cluster("c"))
    stream.receive(Request(CLUSTER, subscribe=("c", "none")))
    _drain(stream)
    stream.receive(Request(CLUSTER, unsubscribe=("c", "none")))
    assert _drain(stream) == [("Cluster", ["c"], ["none"])]


def test_after_unsubscribing_the_wildcard_only_named_ones_are_sent() -> None:
    stream = _synced(_cluster("a"), _cluster("b"))
    stream.receive(Request(CLUSTER, subscribe=("a",)))
    _drain(stream)
    stream.receive(Request(CLUSTER, unsubscribe=("*",)))
    stream.replace(Resources.of([_cluster("a", "2"), _cluster("b", "2")]))
    assert _drain(stream) == [("Cluster", ["a"], [])]


@pytest.mark.parametrize("nonce", ["", "99"])
def test_an_answer_to_nothing_settles_nothing(nonce: str) -> None:
    stream = Stream(Resources.of([_cluster("c")]))
    stream.receive(Request(CLUSTER))
    stream.next()
    assert stream.receive(Request(CLUSTER, nonce=nonce)) is None
    assert not stream.held(CLUSTER)


def test_publications_while_a_client_is_slow_become_one_response() -> None:
    stream = _synced(_cluster("c"))
    stream.replace(Resources.of([_cluster("c", "2")]))
    pending = stream.next()
    for version in range(3, 10):
        stream.replace(Resources.of([_cluster("c", str(version))]))
        assert stream.next() is None
    _ack(stream, pending)
    last = stream.next()
    assert last
    assert [resource.version for resource in last.resources] == ["9"]
