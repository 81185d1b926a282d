"""Behind the short way is what is behind mutual TLS, and the way is closed to strangers."""

from __future__ import annotations

from typing import Literal

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from meshd.compile.envoy.listeners import listener as printed
from meshd.compile.explain.chain_choice import Connection, choose
from meshd.compile.names import LOCAL_INSPECTED
from meshd.compile.plan.authorization import Authorization
from meshd.compile.plan.chains import Chain, Http, Tcp
from meshd.compile.plan.listeners import Listener
from meshd.compile.policy import straight
from meshd.compile.policy.served import Ports, Spoken
from meshd.compile.traffic.inbound import shared_listeners
from meshd.compile.traffic.local import local_listeners
from meshd.model.short_way import Requests
from meshd.model.snapshot import MeshOptions

_OPTIONS = MeshOptions(short_way=True)
_CALLERS = ("spiffe://cluster.local/ns/default/sa/a", "spiffe://cluster.local/ns/default/sa/b")
_UIDS = st.sampled_from(["default.a", "default.b", "default.c"])
_PORTS = st.dictionaries(st.integers(80, 83), st.sampled_from(list(Spoken)), max_size=4)
Beginning = Literal["tls", "http", "http/1.0", "other"]
_BEGINNINGS: st.SearchStrategy[Beginning] = st.sampled_from(["http", "http/1.0", "tls", "other"])


def end(listeners: dict[str, Listener], first: str, connection: Connection) -> Chain | None:
    """The chain in which a connection ends, after those that hand it to another listener."""
    listener = listeners[first]
    seen = (
        connection
        if listener.inspects_http
        else msgspec.structs.replace(connection, begins_as="other")
    )
    to = choose(listener.choice, seen)
    chain = listener.chain(to.chain) if to else listener.default
    if chain and chain.hands_over and isinstance(chain.target, Tcp):
        return end(listeners, chain.target.upstreams[0][0], connection)
    return chain


@given(st.dictionaries(_UIDS, _PORTS), _UIDS, st.integers(80, 84), _BEGINNINGS)
def test_a_connection_ends_where_one_over_mutual_tls_does(
    served: dict[str, Ports], uid: str, port: int, begins_as: Beginning
) -> None:
    connection = Connection(port=port, workload=uid, begins_as=begins_as)
    is_sniffed = served.get(uid, {}).get(port) is Spoken.SNIFFED
    networked = {one.name: one for one in shared_listeners(served, _OPTIONS)}
    inside = {one.name: one for one in local_listeners(served, _CALLERS, _OPTIONS)}
    wanted = end(networked, "inbound-inspected" if is_sniffed else "inbound", connection)
    found = end(inside, "local", connection)
    assert wanted
    assert found
    assert found.target == wanted.target


@given(
    st.dictionaries(_UIDS, _PORTS), _UIDS, st.integers(80, 84), st.sampled_from(["http1", "http2"])
)
def test_requests_in_the_version_that_an_application_takes_go_straight_to_the_same_port(
    served: dict[str, Ports], uid: str, port: int, sent: Requests
) -> None:
    connection = Connection(port=port, workload=uid, begins_as="http")
    named = msgspec.structs.replace(connection, requests=sent)
    inside = {one.name: one for one in local_listeners(served, _CALLERS, _OPTIONS)}
    read_again, found = end(inside, "local", connection), end(inside, "local", named)
    assert read_again
    assert found
    if straight.obstacle(served.get(uid, {}).get(port), sent):
        assert found is read_again
    else:
        assert isinstance(found.target, Tcp)
        assert isinstance(read_again.target, Http)
        assert [read_again.target.routes] == [name for name, _ in found.target.upstreams]


def test_a_workload_that_policies_are_about_reads_all_requests_itself() -> None:
    served: dict[str, Ports] = {"default.a": {80: Spoken.HTTP}, "default.b": {80: Spoken.HTTP}}
    guards = {"default.a": Authorization()}
    inside = {one.name: one for one in local_listeners(served, _CALLERS, _OPTIONS, guards)}
    for uid, kind in (("default.a", Http), ("default.b", Tcp)):
        chain = end(inside, "local", Connection(port=80, workload=uid, requests="http1"))
        assert chain
        assert isinstance(chain.target, kind)


def test_unknown_callers_are_refused_on_all_ports() -> None:
    served: dict[str, Ports] = {"default.a": {80: Spoken.HTTP, 81: Spoken.SNIFFED}}
    first, second = (
        printed(one).filter_chain_matcher for one in local_listeners(served, _CALLERS, _OPTIONS)
    )
    assert first.on_no_match.action.name == "refused"
    (question,) = first.matcher_list.matchers
    asked = question.predicate.or_matcher.predicate
    assert [one.single_predicate.value_match.exact for one in asked] == list(_CALLERS)
    assert not second.HasField("matcher_list")


def test_without_callers_all_are_refused() -> None:
    for callers, questions in (((), 0), (_CALLERS[:1], 1)):
        first, second = local_listeners({}, callers, _OPTIONS)
        matcher = printed(first).filter_chain_matcher
        assert len(matcher.matcher_list.matchers) == questions
        assert matcher.on_no_match.action.name == "refused"
        assert second.name == LOCAL_INSPECTED
        assert first.socket is second.socket is None
