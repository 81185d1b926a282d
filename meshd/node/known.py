"""What a node has been told, as one frozen value, and how each event changes it. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import msgspec

from meshd.model.listed import ListedEndpoint
from meshd.model.workload import Identity, Observation, Workload
from meshd.workloads import addressing
from meshd.workloads.host import host_services
from meshd.workloads.lifecycle import Life, Phase, known_again


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """The facts; those that are compared with others are by uid."""

    registered: Mapping[str, Workload] = {}
    """The workloads of this node as they were asked for; ``present`` returns them as they are."""
    lives: Mapping[str, Life] = {}
    damaged: Mapping[str, str] = {}
    """What there is to say of workloads whose records cannot be used."""
    host_is_known: bool = True
    """The services of the host are known: their records were not lost, or one has been registered
    since."""
    observations: Mapping[str, Observation] = {}
    observed: bool = False
    """Capture has told what it sees since this process began."""
    pins: Mapping[str, str] = {}
    """Paths at which namespaces are held, or were when they were last seen."""
    elsewhere: tuple[Workload, ...] = ()
    """The workloads of other nodes, as those name them."""
    listed: tuple[ListedEndpoint, ...] = ()
    """The endpoints of Services that Kubernetes lists."""
    contacts: int = 0
    """How often the server, if there is one, has heard what runs here."""


def registering(known: Known, wanted: Iterable[Workload]) -> Known:
    """Register workloads. Raises NotReadyError if no port is left for a service of the host."""
    placed = host_services.with_ports(wanted, known.registered)
    after = _recorded(known, {one.uid: one for one in placed})
    is_known = known.host_is_known or any(one.host for one in placed)
    return msgspec.structs.replace(after, host_is_known=is_known)


def unregistering(known: Known, uids: Iterable[str]) -> Known:
    return _recorded(known, dict.fromkeys(uids))


def _recorded(known: Known, news: Mapping[str, Workload | None]) -> Known:
    after = {**known.registered, **news}
    again = {
        uid: known_again(known.lives[uid], one) for uid, one in news.items() if uid in known.lives
    }
    return msgspec.structs.replace(
        known,
        registered={uid: one for uid, one in after.items() if one is not None},
        lives={**known.lives, **again},
        damaged={uid: why for uid, why in known.damaged.items() if uid not in news},
    )


def asking(known: Known, registered: Mapping[str, Workload]) -> Known:
    """Take registrations as corrected versions of those before."""
    return msgspec.structs.replace(known, registered=registered)


def contacted(known: Known) -> Known:
    return msgspec.structs.replace(known, contacts=known.contacts + 1)


def observing(known: Known, seen: Iterable[Observation]) -> Known:
    """Note all that capture sees now. A path that it does not name stays as it was seen last."""
    observations = {one.uid: one for one in seen}
    pins = {uid: one.pinned for uid, one in observations.items() if one.pinned}
    return msgspec.structs.replace(
        known, observations=observations, pins={**known.pins, **pins}, observed=True
    )


def hearing(known: Known, told: Iterable[Workload]) -> Known:
    """Note all workloads of other nodes."""
    return msgspec.structs.replace(known, elsewhere=tuple(told))


def listing(known: Known, listed: Iterable[ListedEndpoint]) -> Known:
    """Note all endpoints of Services that Kubernetes lists."""
    return msgspec.structs.replace(known, listed=tuple(listed))


def advancing(known: Known, lives: Mapping[str, Life]) -> Known:
    """Note how far workloads are; forget the paths of those that are gone."""
    needed = lives.keys() | known.observations.keys()
    pins = {uid: path for uid, path in known.pins.items() if uid in needed}
    return msgspec.structs.replace(known, lives=lives, pins=pins)


def phases(lives: Mapping[str, Life]) -> dict[str, Phase]:
    return {uid: life.phase for uid, life in lives.items()}


def present(known: Known, host: tuple[str, ...]) -> dict[str, Workload]:
    """Return the registered workloads with their present addresses; ``host``: this host's own."""
    seen = {uid: one.addresses for uid, one in known.observations.items()}
    if not known.observed:  # as they were last, until capture has told
        seen = {uid: life.workload.addresses for uid, life in known.lives.items()} | seen
    return addressing.known(known.registered, host, seen)


def pinned(served: Mapping[str, Workload], pins: Mapping[str, str]) -> dict[str, Workload]:
    """Return the workloads whose namespaces proxies can enter, with the paths of those."""
    return {
        uid: msgspec.structs.replace(workload, netns=path)
        for uid, workload in served.items()
        if (path := "" if workload.host else pins.get(uid)) is not None
    }


def seen(
    served: Mapping[str, Workload], published: Mapping[str, Workload], unseen: Collection[str]
) -> dict[str, Workload]:
    """Return what proxies are to serve with a snapshot that has not seen some workloads as they
    are now: those stay as they are published, or are not served yet.

    Such a snapshot may also lack the policies and services that they are to begin with.
    """
    given = {uid: published.get(uid) if uid in unseen else one for uid, one in served.items()}
    return {uid: one for uid, one in given.items() if one is not None}


def with_acting(
    identities: Iterable[Identity], acting: Iterable[Workload], trust_domain: str
) -> tuple[Identity, ...]:
    """Return the identities, with those under which proxies were told that workloads act."""
    told = (Identity(trust_domain, one.namespace, one.service_account) for one in acting)
    return tuple(sorted({*identities, *told}))


def served_as_wanted(
    accepted: Iterable[str], served: Mapping[str, Workload], wanted: Mapping[str, Workload]
) -> frozenset[str]:
    """Return the workloads whose accepted listeners are those that are wanted.

    What is published may be older than what is wanted: a listener that proxies have accepted is of
    another namespace then, or acts under another account. Both mappings are as ``pinned`` returns
    them.
    """
    return frozenset(
        uid
        for uid in accepted
        if uid in served and uid in wanted and _listens(served[uid]) == _listens(wanted[uid])
    )


def _listens(workload: Workload) -> tuple[str, int, str]:
    return workload.netns, workload.netns_cookie, workload.service_account
