"""Whatever comes in whichever order, the node ends in the same state, and then it is quiet."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.api.base import Object
from meshd.base.errors import MeshdError
from meshd.config.admission import admit
from meshd.model.workload import Workload
from tests.unit.node.world import (
    BAD,
    GROUP,
    IN_GROUP,
    Outcome,
    World,
    host_service,
    pod,
    remote,
    service,
)

OUTSIDE = admit(
    {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": "shop", "labels": {"istio-injection": "disabled"}},
    }
)
CONFIGURATIONS: tuple[tuple[Object, ...], ...] = (
    (),
    (service("web"),),
    (service("web"), service("db", "web")),
    (service("web"), GROUP),
    (service("web"), OUTSIDE),
    (service(BAD),),
)
WORKLOADS = (
    pod("web"),
    pod("web", account="other"),
    pod("web", netns="2"),
    pod("web", netns="2", labels={"app": "web"}, addresses=("198.18.3.1",)),
    pod("db", labels={"app": "web"}),
    pod("db", annotations=IN_GROUP),
    host_service("ssh"),
)
ELSEWHERE: tuple[tuple[Workload, ...], ...] = (
    (),
    (remote("web", "198.18.5.1"),),
    (remote("web", "198.18.5.1"), remote("db", "198.18.5.2")),
)
ADDRESSES = (("198.18.0.1",), ("198.18.0.2", "fd00:198::2"))
PORTS = ("save", "place", "allow", "follow", "check", "publish")


@dataclasses.dataclass(frozen=True)
class Event:
    """Something that happens; what it has come to is told by ``World`` afterwards."""

    name: str
    act: Callable[[World], object]

    def __repr__(self) -> str:
        return self.name


def told() -> list[Event]:
    """What is told from outside."""
    return [
        *(
            Event(f"register {number}", lambda world, one=one: world.reconciler.register([one]))
            for number, one in enumerate(WORKLOADS)
        ),
        *(
            Event(f"unregister {uid}", lambda world, uid=uid: world.reconciler.unregister([uid]))
            for uid in sorted({one.uid for one in WORKLOADS})
        ),
        *(
            Event(f"configure {number}", lambda world, some=some: world.configure(*some))
            for number, some in enumerate(CONFIGURATIONS)
        ),
        *(
            Event(f"hear {number}", lambda world, some=some: world.hear(*some))
            for number, some in enumerate(ELSEWHERE)
        ),
        *(
            Event(f"move {number}", lambda world, some=some: world.move(*some))
            for number, some in enumerate(ADDRESSES)
        ),
        *(
            Event(f"healthy {yes}", lambda world, yes=yes: world.health("shop.db", yes))
            for yes in (True, False)
        ),
    ]


def happening() -> list[Event]:
    """What happens in between."""
    return [
        Event("settle", World.round),
        Event("work", World.work),
        Event("capture works", World.capture),
        Event("proxies accept", World.accept),
        Event("resolvers answer", World.answer),
        Event("restart", World.restart),
        *(
            Event(f"{port} fails", lambda world, port=port: world.failing.add(port))
            for port in PORTS
        ),
        *(
            Event(f"{port} works", lambda world, port=port: world.failing.discard(port))
            for port in PORTS
        ),
    ]


EVENTS = st.one_of(
    st.sampled_from(told()), st.sampled_from(happening()), st.sampled_from(happening()[:6])
)


def happens(world: World, events: list[Event]) -> None:
    for event in events:
        with contextlib.suppress(MeshdError):
            event.act(world)


def at_rest(world: World) -> Outcome:
    """Let everything work and be compiled again, and wait for the end."""
    world.failing.clear()
    if any(one.metadata.name == BAD for one in world.objects.values()):
        world.configure(*CONFIGURATIONS[1])
    world.touch()  # as time passes: what failed is tried again
    world.rest()
    return world.outcome


def straight_to(world: World) -> World:
    """Return a new world that was told only what is so in the end."""
    straight = World()
    straight.preferred, straight.healthy = world.preferred, set(world.healthy)
    straight.configure(*world.objects.values())
    straight.hear(*world.elsewhere)
    straight.reconciler.addresses_changed()
    straight.reconciler.register(world.reconciler.known.registered.values())
    return straight


def expected(outcome: Outcome) -> Outcome:
    """Return the outcome without the order in which workloads came."""
    assert outcome.published
    return dataclasses.replace(
        outcome,
        placed=tuple(sorted(outcome.placed, key=lambda one: one.workload.uid)),
    )


@settings(max_examples=150, deadline=None)
@given(st.lists(EVENTS, max_size=25))
def test_it_ends_as_if_it_had_been_told_only_what_is_so_in_the_end(events: list[Event]) -> None:
    world = World()
    happens(world, events)
    outcome = at_rest(world)
    assert expected(outcome) == expected(at_rest(straight_to(world)))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_order_of_events_does_not_matter(data: st.DataObject) -> None:
    events = [
        Event("register web", lambda world: world.reconciler.register(WORKLOADS[:1])),
        Event("register db", lambda world: world.reconciler.register(WORKLOADS[5:6])),
        Event("register ssh", lambda world: world.reconciler.register(WORKLOADS[6:])),
        Event("configure", lambda world: world.configure(service("web"), GROUP)),
        Event("hear", lambda world: world.hear(*ELSEWHERE[1])),
        Event("move", lambda world: world.move(*ADDRESSES[1])),
        Event("healthy", lambda world: world.health("shop.db", True)),
    ]
    world, other = World(), World()
    happens(world, events)
    shuffled = data.draw(st.permutations(events))
    between = data.draw(st.lists(st.sampled_from(happening()[:6]), max_size=len(shuffled)))
    for index, event in enumerate(shuffled):
        happens(other, [event, *between[index : index + 1]])
    assert expected(at_rest(world)) == expected(at_rest(other))


@settings(max_examples=60, deadline=None)
@given(st.lists(EVENTS, max_size=25))
def test_a_restart_changes_nothing(events: list[Event]) -> None:
    world = World()
    happens(world, events)
    outcome = at_rest(world)
    world.calls.clear()
    world.restart()
    world.rest()
    assert world.outcome == outcome
    assert "save" not in world.calls


@settings(max_examples=60, deadline=None)
@given(st.lists(EVENTS, max_size=25))
def test_no_port_is_called_again_when_nothing_changed(events: list[Event]) -> None:
    world = World()
    happens(world, events)
    at_rest(world)
    world.calls.clear()
    world.capture()
    world.hear(*world.elsewhere)
    world.move(*world.preferred)
    world.configure(*world.objects.values())
    world.reconciler.register(world.reconciler.known.registered.values())
    world.rest()
    world.settle()
    assert world.calls == []
