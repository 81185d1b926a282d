"""One client's requests of one type, what it has, and what it is still to be told. Pure.

After https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol, incremental variant.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from meshd.xds.exchange import NO_VERSIONS, Accepted, Refused, Rejection, Request, Response
from meshd.xds.resources import CLUSTER, ENDPOINTS, LISTENER, ROUTES, SECRET, Resource

EVERYTHING: Final = "*"
_EVERYTHING_IF_UNNAMED: Final = frozenset({CLUSTER, LISTENER})
"""Types for which a first request that names nothing asks for all there is (legacy wildcard)."""
_OF_COLLECTION: Final = "/*"
"""How names end that ask for a collection: all resources whose names are equal up to the last
slash."""

UNKNOWN: Final = ""
"""A version that no resource has."""


_MOST: Final = 500
"""Resources of one response."""
_MOST_ROUTES: Final = 1
"""The same, of route configurations: each may have all hosts of the mesh."""


def _collection(name: str) -> str:
    return name.rpartition("/")[0]


def _every(_: str) -> bool:
    return True


def _none(_: str) -> bool:
    return False


@dataclasses.dataclass(frozen=True, slots=True)
class _Doubt:
    """An uncertainty: the client may have ``offered``, or still ``before``."""

    before: str | None
    offered: str | None


class Subscription:
    """The subscription of one type URL of a stream.

    There is at most one response without an answer. A refused response is sent again in halves,
    until each bad resource is refused alone and everything else is accepted. Not so secrets: Envoy
    treats a secret that it has just refused as one that it has, and accepts it. So secrets that it
    may refuse are sent one at a time, and a refusal is about all of a response.
    """

    def __init__(self, type_url: str, alone: Callable[[str], bool] | None = None) -> None:
        """Begin; ``alone``: which names are sent one at a time, by default all secrets."""
        self.type_url = type_url
        self._alone = alone or (_every if type_url == SECRET else _none)
        self.held: dict[str, str] = {}
        """Versions that the client has, by name; UNKNOWN if it may have any."""
        self.rejected: dict[str, Rejection] = {}
        self.seen = False
        """The client has asked for this type."""
        self.came_back = False
        """It had some of it when it connected."""
        self._wildcard = False
        self._unanswered = False
        """It asked for all there is, has nothing, and was told nothing yet."""
        self._named: set[str] = set()
        self._collections: set[str] = set()
        """Those that it has asked for, each by what all names in it begin with."""
        self._unsure: dict[str, None] = {}
        """Names that may have to be sent, in the order in which they are looked at. All others are
        known to need nothing."""
        self._doubts: dict[str, _Doubt] = {}
        """About what was in a response that was refused as a whole."""
        self._again: set[str] = set()
        """Names to send even though the client has them."""
        self._parts: deque[tuple[str, ...]] = deque()
        self._nonce = ""
        self._flight: dict[str, str | None] = {}
        """What the response without an answer holds: versions, None where it removes."""

    # ---- what the client asks for

    def request(self, request: Request, published: Iterable[str]) -> None:
        """Take note of which names are wanted from now on.

        Endpoints that a client has are no use to a cluster that it was given after them, and that
        may have been the last it heard on its former stream: asked for anew, they are sent anew.
        """
        first, self.seen = not self.seen, True
        if first:
            self.came_back = bool(request.initial_versions)
            self.held.update(request.initial_versions)
        if EVERYTHING in request.subscribe or (first and self._asks_for_all(request)):
            self._wildcard = True
            self._unanswered = first and not request.initial_versions
            self._unsure.update(dict.fromkeys((*published, *self.held)))
        known = request.initial_versions if first else NO_VERSIONS
        for name in request.subscribe:
            if name.endswith(_OF_COLLECTION):
                self._collections.add(_collection(name))
                members = (
                    one for one in (*published, *self.held) if _collection(one) == _collection(name)
                )
                self._unsure.update(dict.fromkeys(members))
            elif name != EVERYTHING:
                self._named.add(name)
                self._unsure[name] = None
                if name not in known or self.type_url == ENDPOINTS:
                    self._again.add(name)
        self._unsubscribe(request.unsubscribe)
        if first and not self._wildcard:
            self._forget(name for name in set(self.held) if not self.wants(name))

    def _asks_for_all(self, request: Request) -> bool:
        named = request.subscribe or request.unsubscribe
        return not named and self.type_url in _EVERYTHING_IF_UNNAMED

    def _unsubscribe(self, names: Iterable[str]) -> None:
        for name in names:
            if name == EVERYTHING:
                self._wildcard = False
                self._forget([one for one in self.held if not self.wants(one)])
            elif name.endswith(_OF_COLLECTION):
                self._collections.discard(_collection(name))
                self._forget([one for one in self.held if not self.wants(one)])
            elif name in self._named:
                self._named.remove(name)
                if self._wildcard:  # the client cannot know whether it is part of all there is
                    self.send_again(name)
                else:
                    self._forget([name])

    def _forget(self, names: Iterable[str]) -> None:
        for name in names:
            self.held.pop(name, None)
            self.rejected.pop(name, None)
            self._doubts.pop(name, None)
            self._unsure.pop(name, None)
            self._again.discard(name)

    @property
    def named(self) -> frozenset[str]:
        """Return the names that the client has asked for."""
        return frozenset(self._named)

    def wants(self, name: str) -> bool:
        if self._wildcard or name in self._named:
            return True
        return bool(self._collections) and _collection(name) in self._collections

    # ---- what is to be sent

    def changed(self, names: Iterable[str], published: Mapping[str, Resource]) -> None:
        for name in names:
            rejection, resource = self.rejected.get(name), published.get(name)
            if rejection and (resource is None or resource.version != rejection.version):
                del self.rejected[name]
            if self.wants(name):
                self._unsure[name] = None

    def send_again(self, name: str) -> None:
        self._unsure[name] = None
        self._again.add(name)

    def is_to_be_sent_again(self, name: str) -> bool:
        return name in self._again

    def is_due(self, name: str, published: Mapping[str, Resource]) -> bool:
        if not self.wants(name):
            return False
        if name in self._again:
            return True
        resource = published.get(name)
        if resource is None:
            return name in self.held
        if self.held.get(name) == resource.version:
            return False
        rejection = self.rejected.get(name)
        return rejection is None or rejection.version != resource.version

    def due(
        self,
        published: Mapping[str, Resource],
        *,
        updates: bool = True,
        removals: bool = True,
        undecided: Callable[[str], bool] = _none,
        most: int | None = 1,
    ) -> list[str]:
        """Return the first names to send as soon as possible, and forget names that need nothing.

        ``undecided``: of which names it is not known yet whether there are such resources.
        ``most``: how many to return; None: all. Of a large mesh, only as many names are looked at.
        """
        due: list[str] = []
        idle: list[str] = []
        for name in self._unsure:
            if undecided(name):
                continue
            if not self.is_due(name, published):
                idle.append(name)
            # Who asks is answered at once, also that there is no such thing.
            elif updates if name in published or name in self._again else removals:
                due.append(name)
                if len(due) == most:
                    break
        for name in idle:
            del self._unsure[name]
        return due

    @property
    def waiting(self) -> bool:
        """Return whether a response has no answer yet, or is to be sent in parts."""
        return bool(self._nonce or self._parts)

    def next(
        self,
        nonce: str,
        published: Mapping[str, Resource],
        *,
        updates: bool,
        removals: bool,
        nothing: bool = False,
        undecided: Callable[[str], bool] = _none,
    ) -> Response | None:
        """Return the next response, if there is any and the client answered the one before.

        ``nothing``: a client that asked for everything may be told that there is nothing.
        """
        if self._nonce:
            return None
        names = self._next_part(published)
        if not names:
            names = self._batch(
                self.due(
                    published,
                    updates=updates,
                    removals=removals,
                    undecided=undecided,
                    most=self._most if self._alone is _none else None,
                )
            )
        if not names and not (nothing and self._unanswered and not published):
            return None
        return self._send(nonce, names, published)

    def _batch(self, names: Iterable[str]) -> list[str]:
        """Return the names of one response: no more than are made and taken in a short time."""
        ordered = sorted(names)
        return [name for name in ordered if not self._alone(name)][: self._most] or ordered[:1]

    @property
    def _most(self) -> int:
        return _MOST_ROUTES if self.type_url == ROUTES else _MOST

    def _next_part(self, published: Mapping[str, Resource]) -> list[str]:
        while self._parts:
            part = self._parts.popleft()
            # What is to be removed by now has its own time for that.
            if names := [name for name in part if name in published and self.wants(name)]:
                return names
        return []

    def _send(
        self, nonce: str, names: Iterable[str], published: Mapping[str, Resource]
    ) -> Response:
        resources: list[Resource] = []
        removed: list[str] = []
        self._nonce, self._unanswered = nonce, False
        for name in names:
            resource = published.get(name)
            if resource:
                resources.append(resource)
            else:
                removed.append(name)
            self._flight[name] = resource.version if resource else None
            self._unsure.pop(name, None)
            self._again.discard(name)
        return Response(self.type_url, nonce, tuple(resources), tuple(removed))

    # ---- what the client answers

    def answer(
        self, nonce: str, error: str | None, published: Mapping[str, Resource]
    ) -> Accepted | Refused | None:
        """Take an answer; return None if it answers nothing that waits for one."""
        if not nonce or nonce != self._nonce:
            return None
        flight, self._flight, self._nonce = self._flight, {}, ""
        names = tuple(flight)
        splits = self.type_url != SECRET and len(flight) > 1 and any(flight.values())
        if error is not None and splits:
            self._split(flight)
            return Refused(self.type_url, names, error, final=False)
        for name, version in flight.items():
            self._settle(name, version, error, published)
        if error is not None:
            return Refused(self.type_url, names, error, final=True)
        return Accepted(self.type_url, names)

    def _settle(
        self, name: str, version: str | None, error: str | None, published: Mapping[str, Resource]
    ) -> None:
        doubt = self._doubts.pop(name, None)
        if not self.wants(name):
            return
        self._unsure[name] = None  # it may have changed since
        if version is None:
            self._set_held(name, None)
        elif error is None:
            self._set_held(name, version)
        elif doubt and doubt.offered == version:
            self._set_held(name, doubt.before)
        current = published.get(name)
        if error is not None and version and current and current.version == version:
            self.rejected[name] = Rejection(version, error)
        else:
            self.rejected.pop(name, None)

    def _set_held(self, name: str, version: str | None) -> None:
        if version is None:
            self.held.pop(name, None)
        else:
            self.held[name] = version

    def _split(self, flight: Mapping[str, str | None]) -> None:
        """Split a refused response.

        Removals are not at fault, but it is unknown whether they were carried out. Envoy uses what
        is good of a response that it refuses.
        """
        wanted = {name: version for name, version in flight.items() if self.wants(name)}
        self._unsure.update(dict.fromkeys(wanted))
        updates = [name for name, version in wanted.items() if version is not None]
        for name in updates:
            earlier = self._doubts.get(name)
            if earlier is None:
                self._doubts[name] = _Doubt(self.held.get(name), wanted[name])
            elif earlier.offered != wanted[name]:
                self._doubts[name] = _Doubt(UNKNOWN, None)
            self.held[name] = UNKNOWN
        middle = (len(updates) + 1) // 2
        for part in (tuple(updates[middle:]), tuple(updates[:middle])):
            if part:
                self._parts.appendleft(part)

    def may_have(self) -> set[str]:
        """Return the names that the client has, or may have as soon as it reads what was sent."""
        flying = (name for name, version in self._flight.items() if version)
        return {*self.held, *flying}
