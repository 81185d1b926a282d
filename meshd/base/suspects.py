"""The search for the records that processes die of, from what each worked on when it ended. Pure.

A record that was there at three deaths in a row is left out. When there were several, all of them
are set aside, which shows that processes live without them; then half of them are tried at each
start, until one is left without which no process dies. Those that have not been tried by then come
next, all at once.

Something else is in force in place of a record that is set aside, and may kill, too. If processes
die although all suspects are set aside, nothing is put in force in their place either until the
search has ended.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Mapping, Set
from typing import Final, TypeAlias

import msgspec

from meshd.base.json_values import Json

DEATHS: Final = 3
"""Deaths in a row after which a record is left out."""
LEFT_OUT_FOR: Final = 3600.0
"""Seconds after which it is tried again."""
START: Final = "start"
"""The name of the record that stands for the start of a process itself."""
_WINDOW: Final = 600.0
"""Seconds within which deaths count."""
_KEPT: Final = 16
"""The content of records is kept if no more than these come at once."""

Content: TypeAlias = Json | bytes
"""The content of a record: a JSON value, or what has not been decoded yet."""


class Aside(enum.StrEnum):
    """The part that a record has in the search."""

    NOT = "no"
    """None. It is left out if processes have died of it often enough."""
    SUSPECTED = "suspected"
    """It is left out. One of these is at fault, alone or with others, if no process dies now."""
    WAITING = "waiting"
    """It is left out, and tried once it is known what is at fault among the suspected."""
    TRIED = "tried"
    """It is in force: if the process dies, it is at fault, or one of several is."""
    FOUND = "found"
    """It is left out, because it is at fault; the search goes on among others."""


_OUT: Final = frozenset({Aside.SUSPECTED, Aside.WAITING, Aside.FOUND})


class Suspect(msgspec.Struct, frozen=True):
    fingerprint: str
    """Of its content: another one begins anew."""
    content: Content = None
    """So that it is not lost."""
    deaths: tuple[float, ...] = ()
    """When, in Unix seconds."""
    began: float = 0.0
    """When this content came first, in Unix seconds."""
    works: bool = True
    """It is being put in force."""
    waits: bool = False
    """It is to be put in force later: no process can die of it now."""
    aside: Aside = Aside.NOT
    bare: bool = False
    """Nothing is in force in place of it while it is set aside."""
    learned: float = 0.0
    """When the search that it is a part of found out something last, in Unix seconds."""

    @property
    def is_unproven(self) -> bool:
        """Return whether it is to be put in force, and has not been without a death."""
        return self.works or self.waits

    @property
    def is_left_out(self) -> bool:
        return self.aside in _OUT or self.is_at_fault

    @property
    def lasts_until(self) -> float:
        """Return when it is tried again if it is left out, in Unix seconds."""
        return max(self.deaths[-1], self.learned) + LEFT_OUT_FOR

    @property
    def is_at_fault(self) -> bool:
        """Return whether it is left out, and no search is about it."""
        return self.aside is Aside.NOT and len(self.deaths) >= DEATHS


State: TypeAlias = Mapping[str, Suspect]


# ---- what happens to a process


def keeps_content(count: int) -> bool:
    """Return whether the content of so many records that come at once is kept."""
    return count <= _KEPT


def begun(
    state: State, records: Mapping[str, tuple[str, Content]], now: float
) -> dict[str, Suspect]:
    """Return the suspects when work begins; ``records``: fingerprint and content by name."""
    after = dict(state)
    keeps, new = keeps_content(len(records)), Suspect("", began=now)
    for name, (fingerprint, content) in records.items():
        before = state.get(name)
        kept = content if keeps else None
        if before is None or before.fingerprint != fingerprint:
            says_nothing = not fingerprint and kept is None
            after[name] = new if says_nothing else Suspect(fingerprint, kept, began=now)
            continue
        is_tried = before.aside is Aside.TRIED
        after[name] = msgspec.structs.replace(
            before,
            content=kept,
            works=True,
            waits=False,
            aside=before.aside if is_tried else Aside.NOT,
            bare=before.bare and is_tried,
        )
    return after


def done(state: State, names: Collection[str]) -> dict[str, Suspect]:
    """Return the suspects after records were put in force without a death."""
    after = _without(state, names)
    if _is_busy(after) or any(one.bare for one in after.values()):
        return after
    suspected = _of(after, Aside.SUSPECTED)
    undecided = {Aside.WAITING, Aside.TRIED}
    if len(suspected) > 1 or any(one.aside in undecided for one in after.values()):
        return after
    return after | _put(after, (*suspected, *_of(after, Aside.FOUND)), Aside.NOT)


def _without(state: State, names: Collection[str]) -> dict[str, Suspect]:
    after = dict(state)
    for name in names:
        one = state.get(name)
        if one is not None and one.is_unproven:
            del after[name]
    return after


def resting(state: State, idle: Collection[str]) -> dict[str, Suspect]:
    """Return the suspects while the records in ``idle`` wait."""
    return {
        name: msgspec.structs.replace(one, works=name not in idle, waits=name in idle)
        if (one.works and name in idle) or (one.waits and name not in idle)
        else one
        for name, one in state.items()
    }


def ended(state: State) -> dict[str, Suspect]:
    """Return the suspects after a process has ended as it was told to: it has died of nothing, and
    has not shown either that what it tried is harmless."""
    tried = _tried(state)
    after = _without(state, state.keys() - tried)
    idle = {name: msgspec.structs.replace(after[name], works=False, waits=False) for name in tried}
    return after | idle


def died(state: State, now: float) -> dict[str, Suspect]:
    """Return the suspects after a process has ended with this state."""
    # A start that takes minutes counts as others do: one that goes well ends the row.
    windows = {START: LEFT_OUT_FOR}
    counted = {name: _ended(one, now, windows.get(name, _WINDOW)) for name, one in state.items()}
    after = {name: one for name, one in counted.items() if one.deaths or one.waits}
    tried = _tried(state)
    worked = {name for name, one in state.items() if one.works and name != START}
    accused = {name for name in worked if name in tried or after[name].is_left_out}
    is_start = START in state and state[START].works
    if accused:
        after = _accused(after, accused, is_trial=bool(accused & tried), is_start=is_start)
    elif is_start and not tried and any(one.aside in _OUT for one in after.values()):
        after = _died_without(after, is_alone=not worked)
    learned = _learned(after, now) if accused or is_start else after
    return (
        learned if _is_open(after) else learned | _put(learned, _of(after, Aside.FOUND), Aside.NOT)
    )


def _learned(state: State, now: float) -> dict[str, Suspect]:
    """Return the suspects with those of the search kept for as long as it goes on."""
    new = msgspec.structs.replace
    return {
        name: one if one.aside is Aside.NOT else new(one, learned=now)
        for name, one in state.items()
    }


# ---- the search


def is_narrowing(state: State) -> bool:
    """Return whether the next start would find out more."""
    return not _is_busy(state) and any(one.aside in _OUT for one in state.values())


def narrowed(state: State, now: float) -> dict[str, Suspect]:
    """Return the suspects for the next start, when no process has died with this state.

    A record on trial that has not come yet stays a suspect, of which one more death is enough.
    """
    after = {**state, **_on_trial(state, _of(state, Aside.TRIED))}
    return _learned(_next(after) if _is_open(after) else after, now)


def _on_trial(state: State, names: Collection[str]) -> dict[str, Suspect]:
    new = msgspec.structs.replace
    return {
        name: new(one, deaths=one.deaths[1 - DEATHS :], aside=Aside.NOT, bare=False)
        for name in names
        if (one := state[name])
    }


def _accused(
    state: State, accused: Set[str], *, is_trial: bool, is_start: bool
) -> dict[str, Suspect]:
    """Return the suspects after a process has died that worked with records of which it may have
    died. ``is_trial``: the search had put them in force; ``is_start``: this was a start."""
    suspected = _of(state, Aside.SUSPECTED)
    if is_trial:
        after = {**state, **_put(state, suspected, Aside.WAITING)}
        after |= _put(after, accused, Aside.SUSPECTED)
        # Of all that were left, it is not known yet that processes live without them.
        return _alike(after if not suspected and len(accused) > 1 else _next(after))
    if suspected:
        after = {**state, **_put(state, accused, Aside.SUSPECTED)}
        return _bare(after) if is_start else _alike(after)
    # What came first may only have been there: it is the next one, if processes die without.
    newest = max(state[name].began for name in accused)
    last = {name for name in accused if state[name].began == newest}
    older = _on_trial(state, accused - last)
    is_known = len(accused) == 1
    return {**state, **older, **_put(state, last, Aside.NOT if is_known else Aside.SUSPECTED)}


def _died_without(state: State, *, is_alone: bool) -> dict[str, Suspect]:
    """Return the suspects after a process has died at its start without those set aside.

    ``is_alone``: no other record was being put in force.
    """
    aside = {name for name, one in state.items() if one.aside in _OUT}
    if all(state[name].bare for name in aside) and is_alone:
        return {name: one for name, one in state.items() if name not in aside}
    return _bare(state)


def _next(state: State) -> dict[str, Suspect]:
    """Return the suspects with the next of them on trial."""
    suspected = sorted(_of(state, Aside.SUSPECTED))
    if len(suspected) > 1:
        half = suspected[: len(suspected) // 2]
        return {**state, **_put(state, half, Aside.TRIED)}
    found = _put(state, suspected, Aside.FOUND)
    return {**state, **found, **_put(state, _of(state, Aside.WAITING), Aside.TRIED)}


def _bare(state: State) -> dict[str, Suspect]:
    return {
        name: one if one.aside is Aside.NOT else msgspec.structs.replace(one, bare=True)
        for name, one in state.items()
    }


def _alike(state: State) -> dict[str, Suspect]:
    """Return the suspects with all that are set aside bare if any of them is."""
    is_bare = any(one.bare for one in state.values())
    return _bare(state) if is_bare else dict(state)


def _put(state: State, names: Iterable[str], aside: Aside) -> dict[str, Suspect]:
    new = msgspec.structs.replace
    return {
        name: new(one, aside=aside, bare=one.bare and aside is not Aside.NOT)
        for name in names
        if (one := state[name])
    }


def _of(state: State, aside: Aside) -> frozenset[str]:
    return frozenset(name for name, one in state.items() if one.aside is aside)


def _tried(state: State) -> frozenset[str]:
    """Return the records on trial that the process has taken up, or was about to."""
    return frozenset(
        name for name in _of(state, Aside.TRIED) if state[name].works or state[name].waits
    )


def _is_busy(state: State) -> bool:
    return any(one.works for one in state.values())


def _is_open(state: State) -> bool:
    """Return whether any record is neither found at fault nor harmless."""
    searched = {Aside.SUSPECTED, Aside.WAITING, Aside.TRIED}
    return any(one.aside in searched for one in state.values())


def _ended(one: Suspect, now: float, window: float) -> Suspect:
    if one.works:
        is_tried = one.aside is Aside.TRIED  # a search may take longer
        recent = tuple(moment for moment in one.deaths if is_tried or moment > now - window)
        return msgspec.structs.replace(one, deaths=(*recent, now), works=False)
    if one.waits:
        return one
    if not one.deaths:
        return Suspect(one.fingerprint)
    is_kept = one.is_left_out or one.aside is Aside.TRIED
    ends = one.lasts_until if is_kept else one.deaths[-1] + window
    return one if now < ends else Suspect(one.fingerprint)


def at_fault(state: State) -> frozenset[str]:
    """Return the records that are left out for good."""
    return frozenset(name for name, one in state.items() if one.is_at_fault and name != START)


def died_of_nothing_known(state: State) -> bool:
    """Return whether a process has ended at its start while no record was noted."""
    return {name for name, one in state.items() if one.works} == {START}
