"""Endpoints that lead to an internal listener, for a client that cannot use it yet. Pure.

Such a client is told of a detour: the same endpoints by a way that it has. So nothing waits for the
listener, neither clusters for their endpoints nor the listener for those clusters, and no
connection is led to where nobody listens.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping

from meshd.xds.exchange import Response
from meshd.xds.resources import Resource
from meshd.xds.subscription import UNKNOWN


class Passable(Mapping[str, Resource]):
    """The published endpoints as one client is to have them.

    ``open_listeners``: the internal listeners that it can use; ``may_have``: whether it may have a
    listener; ``held``: the versions of endpoints that it has. A client that comes back with
    endpoints that lead to a listener is not led away.
    """

    def __init__(
        self,
        published: Mapping[str, Resource],
        open_listeners: set[str],
        may_have: Callable[[str], bool],
        held: Mapping[str, str],
    ) -> None:
        self._published = published
        self._open = open_listeners
        self._may_have = may_have
        self._held = held

    def __getitem__(self, name: str) -> Resource:
        resource = self._published[name]
        detour = resource.detour
        if detour is None or self._open.issuperset(detour.listeners):
            return resource
        is_there = self._held.get(name, UNKNOWN) == resource.version
        may_stay = is_there and all(map(self._may_have, detour.listeners))
        return resource if may_stay else detour.resource

    def __contains__(self, name: object) -> bool:
        return name in self._published

    def __iter__(self) -> Iterator[str]:
        return iter(self._published)

    def __len__(self) -> int:
        return len(self._published)


class Detours:
    """Which internal listeners one client can use, and what it was told by a detour meanwhile."""

    def __init__(self) -> None:
        self._open: set[str] = set()
        self._known: set[str] = set()
        """Listeners that the client has had for so long that no connection is left of listeners
        before them, which would not know whose it is."""
        self._taken: dict[str, tuple[str, ...]] = {}
        """The internal listeners that endpoints will lead to, by the name of endpoints that were
        told by a detour."""

    def passable(
        self,
        published: Mapping[str, Resource],
        may_have: Callable[[str], bool],
        held: Mapping[str, str],
    ) -> Mapping[str, Resource]:
        """Return the endpoints that the client is to have; see ``Passable``."""
        return Passable(published, self._open, may_have, held)

    def note_sent(self, response: Response, published: Mapping[str, Resource]) -> None:
        """Note which endpoints of a response took a detour, and to which listeners others lead."""
        for sent in response.resources:
            self._taken.pop(sent.name, None)
            if sent.detour:
                self._open.update(sent.detour.listeners)
            elif detour := published[sent.name].detour:
                self._taken[sent.name] = detour.listeners

    def note_there(
        self, names: Iterable[str], published: Mapping[str, Resource], held: Mapping[str, str]
    ) -> None:
        """Note which endpoints the client has by a detour already, so that none is sent: what leads
        there now was told otherwise before."""
        for name in names:
            resource = published.get(name)
            if (
                resource is not None
                and (detour := resource.detour) is not None
                and held.get(name) == detour.resource.version
            ):
                self._taken[name] = detour.listeners

    def note_published(self, published: Mapping[str, Resource]) -> None:
        """Forget endpoints that are not published any more."""
        self._taken = {name: one for name, one in self._taken.items() if name in published}

    def note_known(self, listeners: Iterable[str]) -> None:
        """Note listeners of which all connections know that the client has."""
        self._known.update(listeners)

    def note_lost(self, held: Container[str]) -> None:
        """Note which listeners the client still has."""
        self._open = {name for name in self._open if name in held}
        self._known = {name for name in self._known if name in held}

    def awaited(self, held: Mapping[str, str]) -> frozenset[str]:
        """Return the listeners that the client has, and that are not known for long enough."""
        return self._led_to(held) - self._known

    def end(self, held: Mapping[str, str]) -> list[str]:
        """Open what the client has and knows; return the endpoints that need no detour now."""
        self._open |= self._led_to(held) & self._known
        ended = [name for name, those in self._taken.items() if self._open.issuperset(those)]
        for name in ended:
            del self._taken[name]
        return ended

    def _led_to(self, held: Mapping[str, str]) -> frozenset[str]:
        """Return the listeners that the client has and endpoints will lead to."""
        found = {name for those in self._taken.values() for name in those}
        return frozenset(name for name in found if held.get(name))
