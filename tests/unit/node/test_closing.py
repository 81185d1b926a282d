"""Whatever the order of changes and compilations, nothing is as open as policies have forbidden."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import msgspec
import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.listener.v3 import listener_pb2
from hypothesis import given
from hypothesis import strategies as st

from meshd.api.base import ObjectMeta, WorkloadSelector
from meshd.api.peer_authentication.types import (
    MutualTLS,
    PeerAuthentication,
    PeerAuthenticationSpec,
)
from meshd.compile.messages import Entrance, placed
from meshd.compile.names import PASSTHROUGH_CLUSTER, listener_name
from meshd.compile.policy.peer_authentication import Mode, PeerPolicy, closed_by, peer_policy
from meshd.model.closed_policy import ClosedPolicy
from meshd.model.pool import Pool
from meshd.model.snapshot import MeshOptions, Snapshot
from meshd.model.workload import Identity, Workload
from meshd.node import closing as module
from meshd.node.closing import Known
from meshd.node.publication import Compiled, Publication, Wanted
from meshd.node.stages import Step
from meshd.xds.resources import CLUSTER, LISTENER, Resource, Resources, pack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

ROOT = "istio-system"
OPTIONS = MeshOptions(root_namespace=ROOT)
PORTS = (0, 80, 90)
"""Ports that policies may name, and one that none names."""


def policy(
    name: str,
    mode: Any,
    namespace: str = "shop",
    *,
    labels: dict[str, str] | None = None,
    ports: Mapping[int, Any] | None = None,
) -> PeerAuthentication:
    return PeerAuthentication(
        metadata=ObjectMeta(name=name, namespace=namespace),
        spec=PeerAuthenticationSpec(
            selector=WorkloadSelector(match_labels=labels) if labels else None,
            mtls=MutualTLS(mode=mode),
            port_level_mtls={port: MutualTLS(mode=one) for port, one in (ports or {}).items()},
        ),
    )


def workload(name: str, label: str) -> Workload:
    return Workload(
        uid=f"shop.{name}", name=name, namespace="shop", netns=f"/{name}", labels={"app": label}
    )


modes = st.sampled_from(("STRICT", "PERMISSIVE", "DISABLE", "UNSET"))
ports = st.dictionaries(st.sampled_from(PORTS[1:]), modes, max_size=2)
policies = st.one_of(
    st.builds(policy, st.just("mesh"), modes, st.just(ROOT)),
    st.builds(policy, st.just("namespace"), modes),
    st.builds(policy, st.just("own"), modes, labels=st.just({"app": "a"}), ports=ports),
    st.builds(policy, st.just("other"), modes, labels=st.just({"app": "b"}), ports=ports),
    st.builds(ClosedPolicy.named, st.sampled_from(("shop", ROOT)), st.just("damaged")),
)


class State(msgspec.Struct, frozen=True):
    """What is known at one moment."""

    policies: tuple[PeerAuthentication, ...] = ()
    members: tuple[Workload, ...] = ()
    lost: bool = False
    other: int = 0
    """What else is known, on which policies do not depend."""

    def known(self, number: int) -> Known:
        return Known(number, (self.policies,), self.lost, self.members, ROOT)

    def modes(self) -> dict[str, dict[int, Mode]]:
        """Return the modes of each workload's ports, by uid."""
        found = self.known(0).policies
        return {one.uid: by_port(peer_policy(found, one, ROOT)) for one in self.members}


states = st.builds(
    State,
    st.lists(policies, max_size=3, unique_by=lambda one: one.metadata.name).map(tuple),
    st.tuples(*(st.builds(workload, st.just(n), st.sampled_from("ab")) for n in "xy")),
    st.sampled_from((False, False, False, True)),
    st.integers(0, 1),
)


def by_port(found: PeerPolicy) -> dict[int, Mode]:
    return {port: found.mode_of(port) for port in PORTS}


def printed(entrance: Entrance) -> listener_pb2.Listener:
    """Return a message that tells no more than the modes of ports."""
    modes = {str(port): str(mode) for port, mode in by_port(entrance.policy).items()}
    name = listener_name(entrance.workload.uid, "inbound")
    return listener_pb2.Listener(name=name, stat_prefix=msgspec.json.encode(modes).decode())


def way_out(*, is_open: bool) -> Resource:
    """Return the way out of the mesh."""
    kind = cluster_pb2.Cluster.ORIGINAL_DST if is_open else cluster_pb2.Cluster.STATIC
    return pack(PASSTHROUGH_CLUSTER, cluster_pb2.Cluster(name=PASSTHROUGH_CLUSTER, type=kind))


def told_to_clients(*_: object, is_lost: bool) -> tuple[Resource, ...]:
    return (way_out(is_open=False),) if is_lost else ()


class Steps:
    """Work that begins and ends when a test says so."""

    def __init__(
        self, _: str, begin: Callable[[], Callable[[], object]], done: Callable[[Any], None]
    ) -> None:
        self._begin = begin
        self._done = done
        self._asked = False
        self._made: list[object] = []

    def ask(self) -> None:
        self._asked = True

    def begin(self) -> None:
        if self._asked and not self._made:
            self._asked = False
            self._made.append(self._begin()())

    def end(self) -> None:
        if self._made:
            self._done(self._made.pop())

    def finish(self) -> None:
        self.end()
        while self._asked:
            self.begin()
            self.end()


class Node:
    """Changes and compilations of a node, in any order."""

    def __init__(self) -> None:
        self.states = [State()]
        self.looked_at = 0, State()
        self.seen: list[tuple[int, State]] = []
        """What was looked at, with its number."""
        self.running: tuple[int, Compiled] | None = None
        self.ended = 0
        """The number of the last compilation that has ended."""
        self.compiled = State()
        self.made: Mapping[str, Entrance] = {}
        self.told: dict[str, dict[int, Mode]] = {}
        self.lets_out = False
        publication: Any = Publication(
            self._publish,
            dict.fromkeys(("shop.x", "shop.y")).keys,
            self._known,
            lambda: None,
            step=self._step,
        )
        self.publication = publication
        self.change(State(members=(workload("x", "a"), workload("y", "a"))))

    @property
    def number(self) -> int:
        return len(self.states) - 1

    def _known(self) -> Known:
        self.looked_at = self.number, self.states[-1]
        return self.states[-1].known(self.number)

    def _publish(self, resources: Mapping[Pool, Resources]) -> None:
        decode = listener_pb2.Listener.FromString
        for one in resources[Pool.TRAFFIC].of_type(LISTENER).values():
            modes = msgspec.json.decode(decode(one.body).stat_prefix, type=dict[int, Mode])
            self.told[one.name] = modes
        told = resources[Pool.TRAFFIC].of_type(CLUSTER)[PASSTHROUGH_CLUSTER]
        self.lets_out = told == way_out(is_open=True)

    def _step(self, step: Step) -> None:
        if step is Step.CLOSED:
            self.seen.append(self.looked_at)

    def change(self, state: State) -> None:
        self.states.append(state)
        self.publication.closing.ask()

    def begin(self) -> None:
        """Begin a compilation of all that is known."""
        last = self.publication.last
        if self.running:
            return
        if last and self.states[last.number] == self.states[-1]:
            self.publication.renumber(self.number)
            return
        state = self.states[-1]
        entrances = self.entrances(state)
        listeners = [
            pack(listener_name(uid, "inbound"), printed(one)) for uid, one in entrances.items()
        ]
        self.running = (
            self.number,
            Compiled(
                Wanted(Snapshot(), {one.uid: one for one in state.members}, {}),
                self.number,
                self.number,
                {Pool.TRAFFIC: Resources.of([*listeners, way_out(is_open=not state.lost)])},
                entrances,
                reached=cast("Any", object()),
            ),
        )

    def entrances(self, state: State) -> Mapping[str, Entrance]:
        """Return the entrances of a compilation: the very ones of the one before, if it may go on
        from that one."""
        before, self.compiled = self.compiled, state
        if msgspec.structs.replace(before, other=state.other) != state:
            found, identity = state.known(0).policies, Identity("t", "shop", "a")
            self.made = {
                one.uid: Entrance(placed(one), identity, {}, peer_policy(found, one, ROOT), OPTIONS)
                for one in state.members
            }
        return self.made

    def end(self) -> None:
        """Have the compilation ended."""
        if self.running:
            number, compiled = self.running
            self.running, self.ended = None, number
            self.publication.take(compiled, is_newest=number == self.number)

    def look(self) -> None:
        """Begin to look at what is to be closed."""
        self.publication.closing.begin()

    def close(self) -> None:
        """Have closed what was looked at."""
        self.publication.closing.end()

    def finish(self) -> None:
        """Have closed all that is known."""
        self.publication.closing.finish()

    def do(self, event: State | str) -> None:
        if isinstance(event, State):
            self.change(event)
        else:
            getattr(self, event)()

    def settle(self) -> None:
        for step in (self.end, self.finish, self.begin, self.end, self.finish):
            step()

    def open(self) -> Iterator[tuple[str, int]]:
        """Yield the workloads and ports at which plaintext comes in."""
        for uid in ("shop.x", "shop.y"):
            modes = self.told.get(listener_name(uid, "inbound"), {})
            yield from ((uid, port) for port, mode in modes.items() if mode is not Mode.STRICT)

    def check(self) -> None:
        last = self.publication.last
        if last is None:
            return
        later = [state for number, state in self.seen if number > last.number]
        for uid, port in self.open():
            for state in (self.states[last.number], *later):
                assert state.modes()[uid][port] is not Mode.STRICT
        if self.lets_out:
            assert not any(state.lost for state in (self.states[last.number], *later))


@pytest.fixture(autouse=True, scope="module")
def _steps_and_plain_listeners() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "entrance_listener", printed)
        patched.setattr(module, "Background", Steps)
        patched.setattr(module, "for_clients", told_to_clients)
        yield


events = st.lists(
    st.one_of(states, st.sampled_from(("begin", "end", "look", "close", "finish"))),
    min_size=4,
    max_size=30,
)


@given(events)
def test_nothing_is_as_open_as_a_policy_forbids_that_came_since_it_was_compiled(
    told: Sequence[State | str],
) -> None:
    node = Node()
    node.settle()
    for event in told:
        node.do(event)
        node.check()
    node.finish()
    node.check()
    assert node.publication.last.number >= node.ended


@given(events)
def test_in_the_end_everything_is_as_the_newest_policies_say(told: Sequence[State | str]) -> None:
    node = Node()
    for event in told:
        node.do(event)
    node.settle()
    wanted = node.states[-1].modes()
    assert node.told == {listener_name(uid, "inbound"): modes for uid, modes in wanted.items()}
    assert node.lets_out is not node.states[-1].lost


@given(states, states)
def test_a_stricter_policy_is_in_force_before_it_is_compiled(before: State, after: State) -> None:
    after = msgspec.structs.replace(after, members=before.members)
    node = Node()
    node.change(before)
    node.settle()
    node.begin()
    node.change(after)
    node.finish()
    then, now = before.modes(), after.modes()
    for uid, modes in then.items():
        expected = {
            port: Mode.STRICT if now[uid][port] is Mode.STRICT else mode
            for port, mode in modes.items()
        }
        assert node.told[listener_name(uid, "inbound")] == expected
    assert node.lets_out is not (before.lost or after.lost)


def with_policies(node: Node, *policies: PeerAuthentication) -> State:
    return msgspec.structs.replace(node.states[-1], policies=policies)


def test_a_compilation_that_began_before_a_policy_became_stricter_does_not_undo_it() -> None:
    node = Node()
    node.settle()
    node.change(with_policies(node, policy("namespace", "DISABLE")))
    node.begin()
    node.change(with_policies(node, policy("namespace", "STRICT")))
    node.finish()
    assert not list(node.open())
    node.end()
    node.finish()
    assert not list(node.open())
    assert node.publication.last.number < node.number


def test_what_was_compiled_is_published_once_it_is_known_what_is_closed_of_it() -> None:
    node = Node()
    node.settle()
    node.change(with_policies(node, policy("namespace", "DISABLE")))
    node.begin()
    number = node.number
    node.change(with_policies(node))
    node.end()
    assert node.publication.is_pending
    node.finish()
    assert not node.publication.is_pending
    assert node.publication.last.number == number


def test_what_was_looked_at_for_one_compilation_says_nothing_of_the_next_one() -> None:
    node, strict = Node(), policy("namespace", "STRICT")
    for policies in ((strict,), ()):
        node.settle()
        node.change(with_policies(node, *policies))
    node.settle()
    node.change(with_policies(node, strict))
    node.settle()
    node.change(with_policies(node))
    node.begin()
    node.change(with_policies(node, strict))
    node.look()
    node.end()
    node.close()
    assert not list(node.open())
    node.finish()
    assert not list(node.open())
    assert not node.publication.is_pending


def test_what_was_compiled_is_not_lost_when_what_is_in_force_is_closed_first() -> None:
    node = Node()
    node.settle()
    node.change(with_policies(node, policy("namespace", "DISABLE")))
    node.begin()
    node.change(with_policies(node, policy("namespace", "STRICT")))
    node.look()
    node.end()
    node.close()
    assert not list(node.open())
    assert node.publication.is_pending
    node.finish()
    assert node.publication.last.number == node.ended


def test_closing_a_newer_compilation_opens_nothing_of_the_one_in_force() -> None:
    node = Node()
    node.settle()
    state = node.states[-1]
    node.change(with_policies(node, policy("namespace", "STRICT")))
    node.finish()
    node.change(msgspec.structs.replace(state, other=1))
    node.begin()
    node.change(with_policies(node, policy("namespace", "DISABLE")))
    node.end()
    node.begin()
    node.change(state)
    node.look()
    node.end()
    node.close()
    assert not list(node.open())
    node.finish()
    assert node.publication.last.number == node.ended


def test_a_policy_in_force_already_closes_nothing_again() -> None:
    node = Node()
    node.settle()
    state = node.states[-1]
    node.change(with_policies(node, policy("namespace", "STRICT")))
    node.look()
    node.change(msgspec.structs.replace(state, other=1))
    node.begin()
    node.end()
    node.close()
    assert list(node.open())


def test_a_more_open_policy_waits_for_its_compilation() -> None:
    node = Node()
    node.settle()
    open_state = node.states[-1]
    node.change(with_policies(node, policy("mesh", "STRICT", ROOT)))
    node.finish()
    node.change(open_state)
    node.finish()
    assert not list(node.open())
    node.begin()  # there is nothing to compile: what was compiled has just that
    node.finish()
    assert list(node.open())


def test_a_workload_that_leaves_is_as_closed_as_it_was() -> None:
    node = Node()
    node.settle()
    strict = (policy("mesh", "STRICT", ROOT),)
    node.change(with_policies(node, *strict))
    node.finish()
    node.change(State(strict))
    node.finish()
    assert not list(node.open())


MODES = st.sampled_from(Mode)
peer_policies = st.builds(
    PeerPolicy, MODES, st.dictionaries(st.sampled_from(PORTS[1:]), MODES, max_size=2)
)


@given(peer_policies, peer_policies)
def test_a_policy_that_another_one_closes_is_strict_where_either_is(
    one: PeerPolicy, other: PeerPolicy
) -> None:
    closed = closed_by(one, other)
    for port in PORTS:
        is_strict = other.mode_of(port) is Mode.STRICT
        assert closed.mode_of(port) is (Mode.STRICT if is_strict else one.mode_of(port))
    assert (closed is one) == (by_port(closed) == by_port(one))
    assert closed_by(closed, other) is closed


def test_what_one_policy_closes_is_what_is_compiled_of_it() -> None:
    wide, exception = PeerPolicy(Mode.STRICT, {}), PeerPolicy(Mode.STRICT, {80: Mode.PERMISSIVE})
    nothing, port = PeerPolicy(Mode.PERMISSIVE, {}), PeerPolicy(Mode.PERMISSIVE, {80: Mode.STRICT})
    for before, after in ((nothing, wide), (nothing, port), (exception, wide)):
        assert closed_by(before, after) == after
