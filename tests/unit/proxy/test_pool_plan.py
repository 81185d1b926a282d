"""The pool's plan, carried out step by step, never serves less than before."""

from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from meshd.model.pool import Pool
from meshd.proxy.pool import Member, Running, plan, size, superseded


@dataclasses.dataclass
class Grown:
    """Members as they would come and go when a plan is followed."""

    count: int
    listeners: int
    running: dict[Member, Running] = dataclasses.field(default_factory=dict[Member, Running])
    outdated: set[Member] = dataclasses.field(default_factory=set[Member])

    def follow(self) -> bool:
        """Whether there was anything to do."""
        following = plan(Pool.TRAFFIC, self.count, self.running.values(), self.outdated)
        for member in following.start:
            assert member not in self.running
            self.running[member] = Running(member)
        for member in following.stop:
            self.running[member] = dataclasses.replace(self.running[member], leaving=True)
            self.outdated.discard(member)
        return bool(following.start or following.stop)

    def advance(self, member: Member) -> None:
        """One thing happens to a member: it comes up, gets its listeners, or is gone."""
        one = self.running[member]
        if one.leaving:
            del self.running[member]
        elif not one.live:
            self.running[member] = dataclasses.replace(one, live=True)
        else:
            self.running[member] = dataclasses.replace(one, listeners=self.listeners)

    @property
    def serving(self) -> int:
        return sum(
            one.live and not one.leaving and one.listeners == self.listeners
            for one in self.running.values()
        )

    def settle(self) -> None:
        for _ in range(20 * (self.count + len(self.running) + 1)):
            acted = self.follow()
            todo = [
                member
                for member, one in self.running.items()
                if one.leaving or not one.live or one.listeners != self.listeners
            ]
            if not todo and not acted:
                return
            for member in todo:
                self.advance(member)
        raise AssertionError(f"never settles: {self.running}")


@given(st.integers(1, 4), st.integers(0, 3), st.data())
def test_replacing_never_takes_away_what_serves(
    count: int, listeners: int, data: st.DataObject
) -> None:
    pool = Grown(count, listeners)
    pool.settle()
    old = set(pool.running)
    pool.outdated = set(old)
    least = pool.serving
    for _ in range(200):
        pool.follow()
        assert pool.serving >= least
        assert len(pool.running) <= count + 1, "one is replaced at a time"
        if not pool.running or (not pool.outdated and len(pool.running) == count):
            break
        pool.advance(data.draw(st.sampled_from(sorted(pool.running))))
    pool.settle()
    assert len(pool.running) == count
    assert not old & set(pool.running)


@given(st.integers(0, 5), st.integers(0, 5))
def test_the_pool_follows_its_size(before: int, after: int) -> None:
    pool = Grown(before, 2)
    pool.settle()
    pool.count = after
    pool.settle()
    assert sorted(member.slot for member in pool.running) == list(range(after))


def test_one_that_has_fewer_listeners_does_not_take_over() -> None:
    old, new = Member(Pool.TRAFFIC, 0), Member(Pool.TRAFFIC, 0, 1)
    running = [Running(old, True, 5), Running(new, True, 4)]
    assert not plan(Pool.TRAFFIC, 1, running, {old}).stop
    running[1] = Running(new, True, 5)
    assert plan(Pool.TRAFFIC, 1, running, {old}).stop == (old,)


def test_generations_are_used_again() -> None:
    pool = Grown(1, 1)
    pool.settle()
    for expected in ("proxy-0.1", "proxy-0", "proxy-0.1"):
        pool.outdated = set(pool.running)
        pool.settle()
        assert [member.name for member in pool.running] == [expected]


@given(st.sampled_from(Pool), st.integers(0, 9999), st.integers(0, 9999))
def test_a_name_is_read_as_it_is_written(pool: Pool, slot: int, generation: int) -> None:
    member = Member(pool, slot, generation)
    assert Member.parse(member.name) == member


def test_other_names_are_no_members() -> None:
    assert Member.parse("proxy-x") is None
    assert Member.parse("mesh") is None


@given(st.integers(0, 100))
def test_dns_has_a_second_member_where_there_is_a_second_proxy(count: int) -> None:
    assert size(Pool.TRAFFIC, count) == count
    assert size(Pool.DNS, count) == min(count, 2)


def test_of_those_that_share_a_slot_the_newest_stays() -> None:
    first, second, other = (Member(Pool.DNS, *place) for place in ((0, 1), (0, 0), (1, 0)))
    assert superseded([first, other, second]) == {first}
    assert superseded([first, other]) == set()
