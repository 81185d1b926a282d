"""The records that processes die of are found among many, also if what replaces them kills, too."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshd.base.attempts import Attempts

_MOST_STARTS = 600
_REPLACED = "replacement of "


@dataclasses.dataclass(frozen=True)
class Outcome:
    deaths: int
    out: frozenset[str]
    """The records that are left out in the end."""
    given_up: frozenset[str]
    """Those of which the replacement is not in force either."""
    gave_up: bool
    """Nothing is in force."""


@dataclasses.dataclass
class World:
    """Processes one after the other that put records in force as the mesh role does.

    One dies if any of ``culprits`` is in force, or a replacement of any of ``replacements``, or
    always, if ``is_hopeless``.
    """

    names: Collection[str]
    culprits: Collection[str] = ()
    replacements: Collection[str] = ()
    old: Collection[str] = ()
    """Records that came long before the others."""
    is_noted: bool = True
    """They came while a process was running, which noted them."""
    is_hopeless: bool = False
    now: float = 1000.0
    seconds: float = 10.0
    """From one start to the next."""
    path: Path = Path()

    def run(self) -> Outcome:
        deaths = 0
        if self.is_noted:
            first = self.started()
            for some in (self.old, set(self.names) - set(self.old)):
                self.now += 1
                first.begin(dict.fromkeys(some, ("1", None)))
            deaths = 1
        for _ in range(_MOST_STARTS):
            attempts = self.started()
            if attempts.gives_up:
                return Outcome(deaths, frozenset(self.names), frozenset(), gave_up=True)
            attempts.start()
            out = {name for name in self.names if attempts.why_left_out(name, "1")}
            bare = {name for name in out if self._is_given_up(attempts, name)}
            self._note(attempts, out, bare)
            kills = (set(self.names) - out) & set(self.culprits)
            if self.is_hopeless or kills or (out - bare) & set(self.replacements):
                deaths += 1
                continue
            attempts.done()
            if not attempts.is_narrowing:
                return Outcome(deaths, frozenset(out), frozenset(bare), gave_up=False)
            attempts.narrow()
            attempts.end()
        raise AssertionError("it goes on for ever")

    def started(self) -> Attempts:
        self.now += self.seconds
        return Attempts(self.path, lambda: self.now)

    @staticmethod
    def _is_given_up(attempts: Attempts, name: str) -> bool:
        return attempts.is_bare(name) or bool(attempts.why_left_out(_REPLACED + name, "1"))

    def _note(self, attempts: Attempts, out: Collection[str], bare: Collection[str]) -> None:
        found = [name for name in self.names if name not in out and attempts.suspects(name, "1")]
        instead = [
            _REPLACED + name
            for name in out
            if name not in bare
            and (name in attempts.newly_left_out or attempts.suspects(_REPLACED + name))
        ]
        attempts.begin(dict.fromkeys(found, ("1", None)))
        self.now += 0.001
        attempts.begin(dict.fromkeys(instead, ("1", None)))


def names(many: int) -> list[str]:
    return [f"r{number:04}" for number in range(many)]


def run(world: World) -> Outcome:
    with TemporaryDirectory() as directory:
        return dataclasses.replace(world, path=Path(directory) / "attempts.json").run()


@st.composite
def worlds(draw: st.DrawFn) -> World:
    every = names(draw(st.sampled_from([1, 2, 3, 5, 8, 17, 40])))
    some = st.sets(st.sampled_from(every), max_size=3)
    culprits = draw(st.sets(st.sampled_from(every), min_size=1, max_size=3))
    return World(
        names=every,
        culprits=culprits,
        replacements=draw(st.sets(st.sampled_from(sorted(culprits)))) | draw(some),
        old=draw(some),
        is_noted=draw(st.booleans()),
        seconds=draw(st.sampled_from([1.0, 10.0, 30.0])),
    )


def most_deaths(world: World, found: Outcome) -> int:
    """Return the deaths that it may take: those that raise suspicion, and halves for each one."""
    halves = math.ceil(math.log2(len(world.names)))
    return 8 + len(world.culprits) * (halves + 3) + 5 * len(found.given_up)


@settings(max_examples=30)
@given(worlds())
def test_only_culprits_are_left_out_in_the_end_after_few_deaths(world: World) -> None:
    found = run(world)
    assert not found.gave_up
    assert found.out == set(world.culprits)
    assert found.given_up == set(world.culprits) & set(world.replacements)
    assert found.deaths <= most_deaths(world, found)


@pytest.mark.parametrize("many", [2, 1000])
@pytest.mark.parametrize("deadly", [False, True])
def test_a_culprit_among_a_thousand_costs_ten_deaths_more(many: int, *, deadly: bool) -> None:
    culprits = names(many)[:1]
    found = run(World(names(many), culprits, culprits if deadly else ()))
    assert found.out == set(culprits)
    assert found.deaths <= 5 + 4 * deadly + math.ceil(math.log2(many))


@pytest.mark.parametrize("seconds", [60.0, 120.0])
def test_a_search_that_takes_longer_than_an_hour_comes_to_its_end(seconds: float) -> None:
    every = names(40)
    culprits = {every[number] for number in (14, 35, 39)}
    found = run(World(every, culprits, culprits, seconds=seconds))
    assert not found.gave_up
    assert found.out == found.given_up == culprits


@pytest.mark.parametrize("many", [1, 2, 40])
def test_nothing_is_in_force_if_processes_die_whatever_is_left_out(many: int) -> None:
    assert run(World(names(many), is_hopeless=True)).gave_up


def narrowed(path: Path) -> World:
    """A world in which the next start tries the culprit ``a``, and leaves out ``b``."""
    world = World(["a", "b"], ["a"], path=path)
    for _ in range(3):
        world.started().begin(dict.fromkeys(world.names, ("1", None)))
    living = world.started()
    living.start()
    living.done()
    living.narrow()
    return world


def left_out(world: World, attempts: Attempts) -> set[str]:
    return {name for name in world.names if attempts.why_left_out(name, "1")}


def test_an_end_that_was_told_shows_nothing_about_what_is_tried(tmp_path: Path) -> None:
    world = narrowed(tmp_path / "attempts.json")
    for _ in range(2):
        told = world.started()
        assert left_out(world, told) == {"b"}
        told.start()
        told.begin({"a": ("1", None)})
        told.end()
    assert world.run().out == {"a"}


def test_a_start_that_has_chosen_the_next_notes_nothing_more(tmp_path: Path) -> None:
    world = World(["a", "b"], ["a"], path=tmp_path / "attempts.json")
    for _ in range(3):
        world.started().begin(dict.fromkeys(world.names, ("1", None)))
    living = world.started()
    for _ in range(2):
        living.narrow()  # two of its records have turned out well at the same time
        assert not living.is_narrowing
    living.begin({"a": ("1", None)})
    assert left_out(world, world.started()) == {"b"}


def test_what_has_not_come_while_it_was_tried_is_a_suspect_still(tmp_path: Path) -> None:
    world = narrowed(tmp_path / "attempts.json")
    without_it = world.started()
    without_it.start()
    without_it.done()
    without_it.narrow()
    late = world.started()
    assert "a" not in left_out(world, late)
    late.begin({"a": ("1", None)})
    assert "a" in left_out(world, world.started())
