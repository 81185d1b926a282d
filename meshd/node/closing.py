"""Closes what a policy closes before that is compiled.

A policy that becomes stricter would wait for the compilation that runs, and then for its own; until
then, plaintext would come in. What it closes needs no compilation: of the listeners that were
compiled last, those for incoming connections are made anew under the stricter policy, and replace
them. Nothing is opened so: what becomes more open waits for the compilation that has it, and until
then stays as strict as any policy has wanted that came since. What clients are told with it is in
``closing_clients``, and what AuthorizationPolicies close in ``closing_rules``.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

import msgspec

from meshd.api.authorization_policy.types import AuthorizationPolicy
from meshd.api.base import Key, Object
from meshd.api.peer_authentication.types import PeerAuthentication
from meshd.compile.messages import Entrance, entrance_listener
from meshd.compile.names import listener_name
from meshd.compile.policy.peer_authentication import PeerPolicy, closed_by, peer_policy
from meshd.compile.replacement.lost_configuration import policies_for_lost
from meshd.compile.shortcuts.guarded import Guarded
from meshd.compile.shortcuts.reached import Reached
from meshd.model.closed_authorization import ClosedAuthorization
from meshd.model.closed_rule import ClosedRule
from meshd.model.closed_services import ClosedEntry, ClosedService
from meshd.model.workload import Workload
from meshd.node.background import Background
from meshd.node.closing_clients import for_clients
from meshd.node.closing_rules import Judging
from meshd.node.stages import Step
from meshd.xds.resources import Replacements, Resource, pack

Entrances = Mapping[str, Entrance]
"""By the workloads' uids."""


class Known(msgspec.Struct, frozen=True):
    """What says which connections workloads are to accept."""

    number: int = 0
    """How often anything had changed until then."""
    objects: tuple[Iterable[Object], ...] = ()
    """All objects in force, and the replacements of others."""
    is_partly_lost: bool = False
    members: tuple[Workload, ...] = ()
    root_namespace: str = ""
    missing: tuple[Key, ...] = ()
    """AuthorizationPolicies that may be among what is lost."""

    @property
    def authorization_policies(self) -> tuple[AuthorizationPolicy, ...]:
        every = itertools.chain.from_iterable(self.objects)
        known = (one for one in every if isinstance(one, AuthorizationPolicy))
        return (*known, *(ClosedAuthorization.of(key) for key in self.missing))

    @property
    def closed(self) -> tuple[Object, ...]:
        """Return the closed objects that are about services."""
        every = itertools.chain.from_iterable(self.objects)
        return tuple(
            one for one in every if isinstance(one, ClosedEntry | ClosedService | ClosedRule)
        )

    @property
    def policies(self) -> tuple[PeerAuthentication, ...]:
        if self.is_partly_lost:
            return policies_for_lost(self.root_namespace)
        every = itertools.chain.from_iterable(self.objects)
        return tuple(one for one in every if isinstance(one, PeerAuthentication))


class Basis(msgspec.Struct, frozen=True):
    """What was compiled."""

    entrances: Entrances = {}
    number: int = 0
    """The number of changes until then."""
    reached: Reached | None = None
    """How clients reach services; None: nothing was compiled."""
    guarded: Guarded | None = None
    """Who may send what to workloads; None: nothing was compiled."""


class Until(msgspec.Struct, frozen=True):
    """What a workload was to accept until a number of changes, when it was last looked at."""

    number: int
    policy: PeerPolicy


class History(msgspec.Struct, frozen=True):
    """What the workloads of this node were to accept since the compilation in force began, whenever
    it was looked at."""

    looked: int = 0
    """The number of changes when it was last looked at."""
    now: Mapping[str, PeerPolicy] = {}
    """What was to be accepted then, by uid."""
    past: Mapping[str, tuple[Until, ...]] = {}
    """What was to be accepted before, by uid."""
    of: tuple[object, ...] = ()
    """What ``now`` follows from."""
    lost: int = 0
    """The number of changes when configuration was last found to be lost."""

    def followed(self, known: Known, basis: Basis, compiled: int) -> History:
        """Return the history with what is known now. ``compiled``: the number that is in force.

        A workload that has left stays as closed as it was while its listener is there.
        """
        policies = known.policies
        of = policies, known.members
        lost = known.number if known.is_partly_lost else self.lost
        if of == self.of:
            return msgspec.structs.replace(self, looked=known.number, lost=lost)
        left = {uid: one for uid, one in self.now.items() if uid in basis.entrances}
        now = left | _policies(policies, known.members, known.root_namespace)
        past = {uid: found for uid in now if (found := self._past(uid, now[uid], compiled))}
        return History(known.number, now, past, of, lost)

    def _past(self, uid: str, policy: PeerPolicy, compiled: int) -> tuple[Until, ...]:
        before = (*self.past.get(uid, ()), *self._newest(uid, policy))
        return tuple(one for one in before if one.number > compiled)

    def _newest(self, uid: str, policy: PeerPolicy) -> Iterator[Until]:
        """Yield what a workload was to accept, if that is another policy now."""
        if (before := self.now.get(uid)) is not None and before != policy:
            yield Until(self.looked, before)

    def closed(self, uid: str, entrance: Entrance, number: int) -> PeerPolicy:
        """Return the strictest policy for a workload since a number, that of its entrance
        included."""
        later = [one.policy for one in self.past.get(uid, ()) if one.number > number]
        if (newest := self.now.get(uid)) is not None:
            later.append(newest)
        return functools.reduce(closed_by, later, entrance.policy)


def _policies(
    policies: Iterable[PeerAuthentication], members: Iterable[Workload], root_namespace: str
) -> dict[str, PeerPolicy]:
    """Return what each workload is to accept, by uid."""
    by_namespace: dict[str, list[PeerAuthentication]] = {}
    for one in policies:
        by_namespace.setdefault(one.metadata.namespace, []).append(one)

    def about(namespace: str) -> Iterable[PeerAuthentication]:
        names = {namespace, root_namespace}
        return itertools.chain.from_iterable(by_namespace.get(name, ()) for name in names)

    return {one.uid: peer_policy(about(one.namespace), one, root_namespace) for one in members}


class Closed(msgspec.Struct, frozen=True):
    """A listener under a stricter policy."""

    entrance: Entrance
    listener: Resource


class Answer(msgspec.Struct, frozen=True):
    """What is to be closed of what was compiled."""

    basis: Basis
    history: History
    closed: Mapping[str, Closed]
    """By uid."""
    clients: tuple[Resource, ...] = ()
    """What clients of this node are told in place of what was compiled."""
    judging: Judging = Judging()

    @property
    def replacements(self) -> Replacements:
        own = (one.listener for one in self.closed.values())
        every = (*own, *self.clients, *self.judging.resources)
        return {(one.type_url, one.name): one for one in every}


_NOTHING: Final = Answer(Basis(), History(), {})


def closing(before: Answer, known: Known, basis: Basis, compiled: int) -> Answer:
    """Return what is to be closed now. ``compiled``: the number that is in force. Pure."""
    history = before.history.followed(known, basis, compiled)
    rules = before.judging.followed(known.authorization_policies, known.members, basis.guarded)
    closed: dict[str, Closed] = {}
    for uid, entrance in basis.entrances.items():
        stricter = entrance.under(
            history.closed(uid, entrance, basis.number), rules.guards.get(uid)
        )
        if stricter != entrance:
            closed[uid] = _closed(stricter, before.closed.get(uid))
    changed = {
        uid: (basis.entrances[uid].policy, one.entrance.policy) for uid, one in closed.items()
    }
    lost = history.lost > basis.number
    clients = for_clients(basis.reached, changed, rules.guards, known.closed, is_lost=lost)
    return Answer(basis, history, closed, clients, rules)


def _closed(entrance: Entrance, before: Closed | None) -> Closed:
    if before is not None and before.entrance == entrance:
        return before
    name = listener_name(entrance.workload.uid, "inbound")
    return Closed(entrance, pack(name, entrance_listener(entrance)))


class Closing:
    """The work. ``known`` returns what there is now, ``basis`` what was compiled last, and
    ``compiled`` the number that is in force; ``done`` is called when there is an answer."""

    def __init__(
        self,
        known: Callable[[], Known],
        basis: Callable[[], Basis],
        compiled: Callable[[], int],
        done: Callable[[], None],
        *,
        step: Callable[[Step], None],
    ) -> None:
        self._known = known
        self._basis = basis
        self._compiled = compiled
        self._tell = done
        self._step = step
        self._answer = _NOTHING
        self.work = Background("closing", self._begin, self._done)

    def _begin(self) -> Callable[[], Answer]:
        self._step(Step.CLOSING)
        return functools.partial(
            closing, self._answer, self._known(), self._basis(), self._compiled()
        )

    def _done(self, answer: Answer) -> None:
        self._step(Step.CLOSED)
        self._answer = answer
        self._tell()

    def replacements(self, basis: Basis) -> Replacements | None:
        """Return what replaces some of what was compiled; None: that is not known yet."""
        answer = self._answer
        if answer.history.looked <= basis.number:
            return {}
        looked_at = answer.basis
        if looked_at.entrances is not basis.entrances or looked_at.reached is not basis.reached:
            return None
        return answer.replacements if looked_at.number <= basis.number else None
