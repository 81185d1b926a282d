"""One client's stream of resources whose types do not depend on each other. Pure: no I/O, no clock.

A node compiles from all types together, so that it takes them in any order. What a proxy is told is
ordered: see ``stream``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar

from meshd.xds.exchange import Accepted, Refused, Rejection, Request, Response
from meshd.xds.resources import EMPTY, Resource, Resources
from meshd.xds.subscription import Subscription


class UnorderedStream:
    """A state machine: feed it requests and publications; send what ``next`` returns, until it
    returns None."""

    _is_told_again: ClassVar = True
    """Whether the client is sent a version that it holds once the one that it refused is not wanted
    any more. A node cannot know otherwise, and closes what that one might have closed."""

    def __init__(self, resources: Resources | None = None, types: Iterable[str] = ()) -> None:
        """Begin; None: nothing was published yet, so that nothing can be said to a client.

        ``types`` are known before the client asks for them; others once it does.
        """
        self._resources = resources
        self._subscriptions = {type_url: Subscription(type_url) for type_url in types}
        self._count = 0

    def receive(self, request: Request) -> Accepted | Refused | None:
        """Take a request; return what the client did with a response, if the request says so."""
        url = request.type_url
        subscription = self._subscriptions.setdefault(url, Subscription(url))
        published = self._published(url)
        answered = subscription.answer(request.nonce, request.error, published)
        subscription.request(request, published)
        return answered

    def publish(self, resources: Resources, changed: Mapping[str, Iterable[str]]) -> None:
        """Publish; ``changed``: at least the names that differ from those before, by type."""
        self._resources = resources
        for type_url, names in changed.items():
            if subscription := self._subscriptions.get(type_url):
                found, known = resources.of_type(type_url), subscription.rejected
                back = [name for name in names if name in known and name in found]
                subscription.changed(names, found)
                for name in back if self._is_told_again else ():
                    if subscription.held.get(name) == found[name].version:
                        subscription.send_again(name)

    def next(self) -> Response | None:
        """Return the next response, which counts as sent."""
        if self._resources is None:
            return None
        return next(filter(None, map(self._following, self._subscriptions)), None)

    def _following(self, type_url: str) -> Response | None:
        """Return the next response of a type, with removals if these are to be told."""
        resources = self._resources or EMPTY
        if resources.removed_types is None:
            return self._send(type_url)
        response = self._send(type_url, removals=False)
        return response or self._send(type_url, removals=resources.removes(type_url))

    def _send(
        self,
        type_url: str,
        *,
        updates: bool = True,
        removals: bool = True,
        nothing: bool = False,
    ) -> Response | None:
        """Return the next response of a type, as ``Subscription.next`` does."""
        response = self._subscriptions[type_url].next(
            str(self._count + 1),
            self._published(type_url),
            updates=updates,
            removals=removals,
            nothing=nothing,
            undecided=self._untold(type_url),
        )
        if response:
            self._count += 1
        return response

    def _untold(self, type_url: str) -> Callable[[str], bool]:
        untold = (self._resources or EMPTY).untold
        return lambda name: (type_url, name) in untold

    def _published(self, type_url: str) -> Mapping[str, Resource]:
        return (self._resources or EMPTY).of_type(type_url)

    @property
    def settled(self) -> bool:
        """Return whether the client has all that it asked for except what it refused."""
        return self._resources is not None and not any(
            one.waiting
            or one.due(
                self._published(type_url),
                removals=self._resources.removes(type_url),
                undecided=self._untold(type_url),
            )
            for type_url, one in self._subscriptions.items()
        )

    @property
    def synced(self) -> bool:
        """Return whether the client has all that it asked for."""
        return self.settled and not self.rejections

    @property
    def rejections(self) -> dict[tuple[str, str], Rejection]:
        """Return the rejections by type URL and name."""
        return {
            (type_url, name): rejection
            for type_url, subscription in self._subscriptions.items()
            for name, rejection in subscription.rejected.items()
        }
