"""The life of workloads on this node, from being registered to being let go. Pure.

Capture, proxies and certificates each do their part when the step before is known to be done:

    JOINING      capture pins the namespace
    LISTENING    the proxies open listeners in it
    CAPTURED     capture redirects the traffic to them
    RELEASING    capture takes the rules away
    CLOSING      the proxies close the listeners
    LETTING_GO   capture lets go of the namespace
    HELD         the traffic stays captured and nothing serves it: what it is cannot be told

A workload that comes back with another namespace first goes all the way out with the old one: the
pinned path is the same, so that proxies would not notice. Anything else about it may change while
it is captured.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Iterable, Mapping

import msgspec

from meshd.model.pool import Pool
from meshd.model.workload import Identity, Observation, Placement, Stage, Workload


class Phase(enum.StrEnum):
    """What a workload waits for; CAPTURED waits for nothing."""

    JOINING = "joining"
    LISTENING = "listening"
    CAPTURED = "captured"
    RELEASING = "releasing"
    CLOSING = "closing"
    LETTING_GO = "letting_go"
    HELD = "held"


_SERVED = frozenset({Phase.LISTENING, Phase.CAPTURED, Phase.RELEASING})
"""The workload's listeners are to be in the proxies."""


class Life(msgspec.Struct, frozen=True):
    """One workload's life. ``workload`` is as it is served; a newer version may be wanted."""

    workload: Workload
    phase: Phase = Phase.JOINING
    former_account: str = ""
    """Service account under which proxies may still act, until all have the new listeners."""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """The facts that other parts report."""

    observations: Mapping[str, Observation] = {}
    """By uid. A workload that is not listed is as good as absent."""
    observed: bool = True
    """Capture has told at all; until then nothing is known to be absent."""
    missing: Collection[Pool] = ()
    """Pools of which no member is connected."""
    accepted: Collection[str] = ()
    """Uids whose listeners are published and in use, as published, by every connected member of
    the pool that they are for, of which there is at least one."""
    present: Collection[str] = ()
    """Uids of which any listener is published, or may be in use by any connected member."""
    bypass: Mapping[str, tuple[int, ...]] = {}
    """Ports on which the proxy itself listens for a workload (a gateway), by uid."""
    trust_domain: str = "cluster.local"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done now."""

    lives: dict[str, Life]
    """To be handed in next time, and to be kept on disk before the rest is acted upon."""
    placements: tuple[Placement, ...]
    served: dict[str, Workload]
    """Workloads whose listeners are to be published, by uid."""
    identities: tuple[Identity, ...]
    gone: frozenset[str]
    """Uids of which nothing is left in the kernel. They are in ``lives`` no more."""


def step(
    lives: Mapping[str, Life], wanted: Mapping[str, Workload], facts: Facts, *, hold: bool = False
) -> Plan:
    """Take each workload one step further, if the facts allow it.

    To be called whenever a fact changes, and again when the plan was acted upon and ``lives``
    changed: facts are those from after that. ``hold``: no workload begins, ends or enters another
    phase, since that cannot be recorded now; workloads that stay in their phases are served as they
    are wanted all the same.
    """
    following: dict[str, Life] = {}
    gone: set[str] = set()
    for uid in sorted(lives.keys() | wanted.keys()):
        life = lives.get(uid)
        after = _advance(life, wanted.get(uid), facts) if life else Life(wanted[uid])
        if hold and _phase(after) is not _phase(life):
            after = life
        if after:
            following[uid] = after
        elif life:
            gone.add(uid)
    return Plan(
        lives=following,
        placements=tuple(
            Placement(life.workload, stage, facts.bypass.get(uid, ()))
            for uid, life in following.items()
            if (stage := _stage(life)) is not Stage.ABSENT
        ),
        served={uid: life.workload for uid, life in following.items() if life.phase in _SERVED},
        identities=_identities(following.values(), facts.trust_domain),
        gone=frozenset(gone),
    )


def _phase(life: Life | None) -> Phase | None:
    return life.phase if life else None


def known_again(life: Life, registered: Workload | None) -> Life:
    """Return the life of a held workload that is registered again or, with None, given up."""
    if life.phase is not Phase.HELD:
        return life
    return Life(registered, Phase.CAPTURED) if registered else _in(life, Phase.RELEASING)


def _advance(life: Life, wanted: Workload | None, facts: Facts) -> Life | None:
    if life.phase is Phase.HELD:
        return life
    if wanted is None or _has_moved(life.workload, wanted) or life.phase not in _STAYING:
        return _leave(life, facts)
    return _stay(_updated(life, wanted, facts), facts)


def _has_moved(before: Workload, now: Workload) -> bool:
    """Return whether a workload has another namespace: by path, or by cookie as far as that is
    known."""
    cookies = {before.netns_cookie, now.netns_cookie} - {0}
    return before.netns != now.netns or len(cookies) > 1


def _stay(life: Life, facts: Facts) -> Life:
    uid = life.workload.uid
    if life.phase is Phase.JOINING and _observed(uid, facts) is not Stage.ABSENT:
        return _in(life, Phase.LISTENING)
    if life.phase is Phase.LISTENING and uid in facts.accepted:
        return _in(life, Phase.CAPTURED)
    return life


def _leave(life: Life, facts: Facts) -> Life | None:
    """Return the next step out; nothing is removed before what relies on it is known to be gone."""
    uid = life.workload.uid
    stage = _observed(uid, facts)
    match life.phase:
        case Phase.JOINING:
            return _in(life, Phase.CLOSING)
        case Phase.LISTENING | Phase.CAPTURED:
            return _in(life, Phase.RELEASING)
        case Phase.RELEASING if facts.observed and stage is not Stage.CAPTURED:
            return _in(life, Phase.CLOSING)
        case Phase.CLOSING if uid not in facts.present:
            return _in(life, Phase.LETTING_GO)
        case Phase.LETTING_GO if facts.observed and stage is Stage.ABSENT:
            return None
        case _:
            return life


_STAYING = frozenset({Phase.JOINING, Phase.LISTENING, Phase.CAPTURED})


def _updated(life: Life, wanted: Workload, facts: Facts) -> Life:
    """Serve it as it is now; keep the former identity while a proxy may act under it."""
    former = life.former_account
    if wanted.service_account != life.workload.service_account:
        former = former or life.workload.service_account
    elif wanted.uid in facts.accepted:
        former = ""
    return msgspec.structs.replace(life, workload=wanted, former_account=former)


def _in(life: Life, phase: Phase) -> Life:
    return msgspec.structs.replace(life, phase=phase)


def _observed(uid: str, facts: Facts) -> Stage:
    observation = facts.observations.get(uid)
    return observation.stage if observation else Stage.ABSENT


def _stage(life: Life) -> Stage:
    match life.phase:
        case Phase.CAPTURED | Phase.HELD:
            return Stage.CAPTURED
        case Phase.LETTING_GO:
            return Stage.ABSENT
        case _:
            return Stage.PINNED


def _identities(lives: Iterable[Life], trust_domain: str) -> tuple[Identity, ...]:
    return tuple(
        sorted(
            {
                Identity(trust_domain, life.workload.namespace, account)
                for life in lives
                if life.phase not in {Phase.LETTING_GO, Phase.HELD}
                for account in (life.workload.service_account, life.former_account)
                if account
            }
        )
    )


def owners_accepted(
    published: Iterable[str], accepted: Collection[str], owner: Callable[[str], str]
) -> frozenset[str]:
    """Return the uids of which every published listener is accepted; ``owner`` returns a listener's
    uid, or ""."""
    owned = [(owner(name), name in accepted) for name in published]
    refused = {uid for uid, is_accepted in owned if not is_accepted}
    return frozenset(uid for uid, _ in owned if uid and uid not in refused)


def owners_present(present: Iterable[str], owner: Callable[[str], str]) -> frozenset[str]:
    """Return the uids that have any listener."""
    return frozenset(uid for uid in map(owner, present) if uid)
