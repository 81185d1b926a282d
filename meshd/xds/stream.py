"""The content and order of one client's delta ADS stream. Pure: no I/O, no clock.

Make before break: a client hears of clusters and their endpoints first, of listeners and routes
that name them when it has accepted those, and of removed clusters when it has accepted listeners
and routes that do not name them any more, and has ended the connections of those before: see
``leaving``. Endpoints that lead to an internal listener, which only comes after them, take a detour
until the client has it: see ``detours``. New listeners that take connections come after those
behind them: see ``following``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import ClassVar, Final

from meshd.xds.detours import Detours
from meshd.xds.exchange import Accepted, Refused, Request, Response
from meshd.xds.following import Following
from meshd.xds.leaving import Leaving
from meshd.xds.resources import (
    CHOOSABLE,
    CLUSTER,
    EMPTY,
    ENDPOINTS,
    LISTENER,
    ROUTES,
    TYPES,
    Resource,
    Resources,
    difference,
)
from meshd.xds.unordered import UnorderedStream

_FIRST: Final = (CLUSTER, ENDPOINTS)
_LAST: Final = (LISTENER, ROUTES)
_NAMED: Final = (*_FIRST, CHOOSABLE)
"""Types of what listeners and routes name, so that its removals come last."""


class Stream(UnorderedStream):
    """The state machine of ``UnorderedStream``, with an order."""

    _is_told_again: ClassVar = False
    """A proxy goes on with the version that it has when it refuses another."""

    def __init__(self, resources: Resources | None = None, *, drains: bool = False) -> None:
        """Begin; see ``UnorderedStream``.

        ``drains``: the client keeps connections of listeners that were replaced for a while, and
        ``end_period`` is called.
        """
        super().__init__(resources, TYPES)
        self._leaving = Leaving(drains=drains)
        self._warming: dict[str, str] = {}
        """Clusters that were sent and wait for their endpoints, with the endpoints' name."""
        self._detours = Detours()
        self._new_listeners = Following()

    # ---- what happens

    def receive(self, request: Request) -> Accepted | Refused | None:
        is_new = not self._subscriptions[LISTENER].held
        answered = super().receive(request)
        if request.type_url == ENDPOINTS:
            self._note_there(request.subscribe)
        if answered:
            self._after_answer(answered)
        if is_new and isinstance(answered, Accepted) and answered.type_url == LISTENER:
            self._detours.note_known(answered.names)
        self._end_detours()
        return answered

    def publish(self, resources: Resources, changed: Mapping[str, Iterable[str]]) -> None:
        super().publish(resources, changed)
        published = resources.of_type(ENDPOINTS)
        self._warming = {
            cluster: name
            for cluster, name in self._warming.items()
            if name in published and cluster in resources.of_type(CLUSTER)
        }
        self._detours.note_published(published)
        self._note_there(changed.get(ENDPOINTS, ()))
        self._end_detours()

    def replace(self, resources: Resources) -> None:
        """Publish as ``publish`` does, for a caller that does not know what changed."""
        self.publish(resources, difference(self._resources or EMPTY, resources))

    def stop_waiting(self) -> None:
        """Go on though the client never asked for the endpoints of clusters that it accepted."""
        self._warming.clear()

    def trust_listeners(self) -> None:
        """Lead endpoints to the internal listeners that the client has: no connection is left of
        the listeners that it had before those."""
        if self.distrusts_listeners:
            self._detours.note_known(self._detours.awaited(self._subscriptions[LISTENER].held))
            self._end_detours()

    @property
    def waits_to_remove(self) -> bool:
        """Return whether something is to be removed once open connections have had their time."""
        return self._leaving.waits

    def end_period(self) -> None:
        """Note that the client's drain time has passed once more while something waited for it."""
        self._leaving.end_period()

    @property
    def avoided(self) -> frozenset[str]:
        """Return the internal listeners to which endpoints are to lead that lead this client
        elsewhere, as far as it has told."""
        endpoints, published = self._subscriptions[ENDPOINTS], super()._published(ENDPOINTS)
        return frozenset(
            listener
            for name, resource in published.items()
            if resource.detour is not None
            and endpoints.wants(name)
            and endpoints.held.get(name) != resource.version
            for listener in resource.detour.listeners
        )

    @property
    def distrusts_listeners(self) -> bool:
        """Return whether endpoints take a detour though the client has the internal listener.

        Connections that the client's former listeners took do not say whose they are, which the
        internal listener asks. Envoy keeps them for the drain time.
        """
        awaited = self._detours.awaited(self._subscriptions[LISTENER].held)
        return bool(awaited) and not self._stale

    def offer_again(self) -> None:
        """Offer refused listeners again, since their address may be free by now."""
        listeners = self._subscriptions[LISTENER]
        for name in listeners.rejected:
            listeners.send_again(name)

    @property
    def lacks_listeners(self) -> bool:
        """Return whether the client refused listeners."""
        return bool(self._subscriptions[LISTENER].rejected)

    # ---- what is to be sent

    def next(self) -> Response | None:
        """Return the next response, which counts as sent."""
        if self._resources is None:
            return None
        return self._make() or self._switch() or self._break() or self._deny()

    def _make(self) -> Response | None:
        """Return what nothing names yet, and what no other type depends on."""
        for type_url in self._subscriptions:
            if type_url not in _LAST:
                removals = type_url not in _NAMED
                if response := self._send(type_url, removals=removals):
                    return response
        return None

    def _switch(self) -> Response | None:
        if self._published(CLUSTER) and not self._subscriptions[CLUSTER].seen:
            return None
        if self._warming or not self._is_through(CLUSTER):
            return None
        # Routes say who may send requests to a workload: they come before its listeners.
        response = self._send(ROUTES, removals=False) or self._send_listeners()
        return response or self._remove_tables()

    def _remove_tables(self) -> Response | None:
        """Return removals of tables, once no listener chooses among them."""
        choosable, published = self._subscriptions[CHOOSABLE], self._published(CHOOSABLE)
        gone = choosable.waiting or choosable.due(published, updates=False)
        if not gone or self._stale:
            return self._send(ROUTES)
        return self._send(CHOOSABLE, updates=False) if self._is_through(LISTENER) else None

    def _send_listeners(self) -> Response | None:
        listeners = self._subscriptions[LISTENER]
        published = self._published(LISTENER)
        if listeners.waiting:  # for the rest of a response that was refused, maybe
            return self._send(LISTENER)
        if self._lacks_choices:
            return None
        if due := listeners.due(published, most=None):
            self._new_listeners.prepare(
                due, published, listeners.held, lacks_tables=self._lacks_tables
            )
        response = self._send(LISTENER)
        if response:
            self._new_listeners.note_sent(response)
        return response

    @property
    def _lacks_choices(self) -> bool:
        """Return whether the client does not know all tables yet, or has not asked for all, among
        which listeners may choose: it would answer requests for others 404."""
        choosable, routes = self._subscriptions[CHOOSABLE], self._subscriptions[ROUTES]
        known, published = self._published(CHOOSABLE), self._published(ROUTES)
        tables = {known[name].table for name in choosable.held if name in known}
        return choosable.waiting or any(
            name in published and name not in routes.held and name not in routes.rejected
            for name in tables
        )

    @property
    def _lacks_tables(self) -> bool:
        """Return whether the client waits for route tables that it asked for."""
        routes, published = self._subscriptions[ROUTES], self._published(ROUTES)
        return any(
            name in published and name not in routes.held and name not in routes.rejected
            for name in routes.named
        )

    def _untold(self, type_url: str) -> Callable[[str], bool]:
        if type_url == LISTENER:
            return self._new_listeners.held_back.__contains__
        if type_url in _FIRST:
            return lambda name: self._stays(type_url, name)
        return super()._untold(type_url)

    def _stays(self, type_url: str, name: str) -> bool:
        """Return whether a resource that is not there any more is not to be removed yet."""
        is_leaving = type_url in _FIRST and self._leaving.stays(name)
        return is_leaving and name not in self._published(type_url)

    def _break(self) -> Response | None:
        """Return removals of what nothing names any more."""
        if not self._may_break:
            return None
        self._leaving.note(self._to_remove())
        removed = (self._send(type_url, updates=False) for type_url in _NAMED)
        return next(filter(None, removed), None)

    def _to_remove(self) -> Iterator[str]:
        for type_url in _FIRST:
            published = self._published(type_url)
            yield from self._subscriptions[type_url].due(published, updates=False, most=None)

    def _deny(self) -> Response | None:
        """Return an answer without listeners: a new proxy otherwise waits for 15 s before it is
        live."""
        if self._subscriptions[CLUSTER].came_back or not self._may_break:
            return None
        return self._send(LISTENER, nothing=True)

    @property
    def _may_break(self) -> bool:
        """Return whether the client has switched to listeners and routes that name only what is
        published."""
        listeners, routes = self._subscriptions[LISTENER], self._subscriptions[ROUTES]
        if self._warming or not listeners.seen or self._stale:
            return False
        if listeners.came_back and listeners.held and not routes.seen and self._published(ROUTES):
            return False  # it has routes of its own, and will say so in its next request
        return all(map(self._is_through, (CLUSTER, *_LAST)))

    def _send(
        self,
        type_url: str,
        *,
        updates: bool = True,
        removals: bool = True,
        nothing: bool = False,
    ) -> Response | None:
        response = super()._send(type_url, updates=updates, removals=removals, nothing=nothing)
        if response and type_url == CLUSTER:
            self._expect_endpoints(response)
        elif response and type_url == ENDPOINTS:
            self._detours.note_sent(response, super()._published(ENDPOINTS))
        return response

    def _published(self, type_url: str) -> Mapping[str, Resource]:
        published = super()._published(type_url)
        if type_url != ENDPOINTS:
            return published
        held = self._subscriptions[ENDPOINTS].held
        return self._detours.passable(published, self._may_have_listener, held)

    def _note_there(self, names: Iterable[str]) -> None:
        held = self._subscriptions[ENDPOINTS].held
        self._detours.note_there(names, super()._published(ENDPOINTS), held)

    def _may_have_listener(self, name: str) -> bool:
        listeners = self._subscriptions[LISTENER]
        return name in listeners.held or not listeners.seen

    def _end_detours(self) -> None:
        """Lead endpoints to internal listeners that the client has by now.

        A listener that it keeps in a former version may be one that does not say whose its
        connections are.
        """
        held = self._subscriptions[LISTENER].held
        if self._subscriptions[LISTENER].seen:
            self._detours.note_lost(held)
        if not self._stale and all(map(self._is_through, _LAST)):
            names = self._detours.end(held)
            self._subscriptions[ENDPOINTS].changed(names, self._published(ENDPOINTS))

    def _expect_endpoints(self, response: Response) -> None:
        """Note clusters that wait for endpoints.

        A new or changed cluster is used once it was given endpoints *after* that. A client that
        already has endpoints of that name does not ask for them again, so they are sent unasked.
        """
        endpoints = self._subscriptions[ENDPOINTS]
        for cluster in response.resources:
            name = cluster.endpoints
            if name and name in self._published(ENDPOINTS):
                self._warming[cluster.name] = name
                if endpoints.wants(name):
                    endpoints.send_again(name)

    def _after_answer(self, answered: Accepted | Refused) -> None:
        final = isinstance(answered, Accepted) or answered.final
        if answered.type_url == ENDPOINTS and final:
            self._endpoints_arrived(frozenset(answered.names))
        elif answered.type_url == CLUSTER and isinstance(answered, Refused) and final:
            for name in answered.names:
                self._warming.pop(name, None)

    def _endpoints_arrived(self, names: frozenset[str]) -> None:
        endpoints = self._subscriptions[ENDPOINTS]
        self._warming = {
            cluster: name
            for cluster, name in self._warming.items()
            if name not in names or endpoints.is_to_be_sent_again(name)
        }

    # ---- how far it is

    def _is_through(self, type_url: str) -> bool:
        """Return whether the client has all new or changed resources of a type except what it
        refused."""
        subscription = self._subscriptions[type_url]
        published = self._published(type_url)
        removals = type_url not in _NAMED
        return not (subscription.waiting or subscription.due(published, removals=removals))

    @property
    def _stale(self) -> bool:
        """Return whether the client uses a former version of something, which may name any former
        cluster."""
        return any(
            name in subscription.held
            for subscription in map(self._subscriptions.__getitem__, _LAST)
            for name in subscription.rejected
        )

    @property
    def warming(self) -> bool:
        """Return whether listeners wait for the client to accept endpoints of clusters."""
        return bool(self._warming)

    @property
    def leads(self) -> bool:
        """Return whether the client has all listeners and routes except what it refused, and what
        these name."""
        return not self._warming and all(map(self._is_through, (CLUSTER, *_LAST)))

    @property
    def settled(self) -> bool:
        """Return whether the client has all that is published except what it refused."""
        if self._resources is None or self._warming or self.distrusts_listeners:
            return False
        if not (self._subscriptions[CLUSTER].seen and self._subscriptions[LISTENER].seen):
            return False
        may_break = self._may_break
        return all(
            not subscription.waiting
            and not subscription.due(
                self._published(type_url),
                removals=may_break or type_url not in _NAMED,
                undecided=functools.partial(self._stays, type_url),
            )
            for type_url, subscription in self._subscriptions.items()
        )

    def held(self, type_url: str) -> Mapping[str, str]:
        """Return the versions by name that the client has accepted."""
        subscription = self._subscriptions.get(type_url)
        return subscription.held if subscription else {}

    def may_have(self, type_url: str) -> set[str]:
        """Return the names that the client has accepted, or may as soon as it reads what was
        sent."""
        subscription = self._subscriptions.get(type_url)
        return subscription.may_have() if subscription else set()
