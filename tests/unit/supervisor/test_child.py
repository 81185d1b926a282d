"""However events come: never two processes, longer and longer pauses, and stopping ends."""

from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from meshd.base.backoff import Backoff
from meshd.supervisor.child import Act, Child, Event, Policy, State, Step, step

POLICIES = st.builds(
    Policy,
    restarts=st.builds(Backoff, st.floats(0.001, 5), st.floats(0.001, 60)),
    settled=st.floats(0.1, 60),
    drain=st.sampled_from([0.0, 3.0]),
    grace=st.floats(0.1, 5),
)


@dataclasses.dataclass
class World:
    """A child, its process and its timer, as far as they can be seen from the machine."""

    policy: Policy
    child: Child = dataclasses.field(default_factory=Child)
    processes: int = 0
    timer: float | None = None

    def feed(self, event: Event, lived: float = 0.0) -> Step | None:
        if event is Event.EXITED:
            self.processes -= 1
        elif event is Event.ADOPT and self.child.state is State.IDLE:
            self.processes += 1
        elif event is Event.TIMER:
            self.timer = None
        following = step(self.child, event, self.policy, lived=lived)
        if following:
            self.child, self.timer = following.child, following.timer
            self.processes += following.act is Act.SPAWN
        return following

    @property
    def possible(self) -> list[Event]:
        """What can happen now; the rest never does."""
        events = [Event.START, Event.STOP, Event.DRAINED]
        if self.child.state is State.IDLE:
            events.append(Event.ADOPT)
        if self.processes:
            events.append(Event.EXITED)
        if self.timer is not None:
            events.append(Event.TIMER)
        return events


@given(st.data(), POLICIES)
def test_there_are_never_two_processes_and_the_state_knows_whether_there_is_one(
    data: st.DataObject, policy: Policy
) -> None:
    world = World(policy)
    for _ in range(data.draw(st.integers(0, 40))):
        world.feed(data.draw(st.sampled_from(world.possible)), data.draw(st.floats(0, 100)))
        assert world.processes == world.child.lives


@given(st.data(), POLICIES)
def test_after_stop_no_process_is_started_and_time_alone_ends_it(
    data: st.DataObject, policy: Policy
) -> None:
    world = World(policy)
    for _ in range(data.draw(st.integers(0, 20))):
        world.feed(data.draw(st.sampled_from(world.possible)), data.draw(st.floats(0, 100)))
    world.feed(Event.STOP)
    acts: list[Act] = []
    for _ in range(4):
        if world.child.state is State.STOPPED:
            break
        # The process never ends by itself: only killing helps.
        event = Event.EXITED if world.child.state is State.KILLING else Event.TIMER
        assert event in world.possible, world
        following = world.feed(event)
        acts.append(following.act if following else Act.NOTHING)
    assert world.child.state is State.STOPPED
    assert Act.SPAWN not in acts
    assert world.processes == 0


def test_failures_in_a_row_are_counted_until_one_has_settled() -> None:
    policy = Policy(restarts=Backoff(0.1, 10.0), settled=10)
    world = World(policy)
    world.feed(Event.START)
    timers: list[float | None] = []
    for lived in (0.0, 9.0, 1.0, 10.0, 0.0):
        world.feed(Event.EXITED, lived)
        timers.append(world.timer)
        world.feed(Event.TIMER)
    assert timers == [0.1, 0.2, 0.4, 0.1, 0.2]


def test_one_that_ends_in_good_order_to_begin_anew_has_not_failed() -> None:
    world = World(Policy(restarts=Backoff(0.1, 10.0), settled=10, orderly=1))
    world.feed(Event.START)
    timers: list[float | None] = []
    for event, lived in (
        *((Event.EXITED, 0.0), (Event.EXITED, 0.0), (Event.ENDED, 1.0), (Event.ENDED, 1.0)),
        *((Event.EXITED, 0.0), (Event.ENDED, 0.9)),
    ):
        world.feed(event, lived)
        timers.append(world.timer)
        world.feed(Event.TIMER)
    assert timers == [0.1, 0.2, 0.1, 0.1, 0.4, 0.8]


def test_an_adopted_process_is_not_started_again() -> None:
    following = step(Child(), Event.ADOPT, Policy())
    assert following
    assert following == Step(Child(State.RUNNING))


def test_one_that_is_drained_early_is_asked_to_end_at_once() -> None:
    world = World(Policy(drain=60))
    world.feed(Event.START)
    assert world.feed(Event.STOP) == Step(Child(State.DRAINING), Act.DRAIN, 60)
    following = world.feed(Event.DRAINED)
    assert following
    assert following.act is Act.TERMINATE


def test_one_that_waits_to_be_started_again_is_stopped_without_a_word() -> None:
    world = World(Policy(drain=60))
    world.feed(Event.START)
    world.feed(Event.EXITED)
    assert world.feed(Event.STOP) == Step(Child(State.STOPPED))
