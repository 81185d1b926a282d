"""The content and order of one node's delta ADS stream. Pure.

Types do not depend on each other here: a node compiles from all of them together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from meshd.xds.resources import EMPTY, Resource, Resources
from meshd.xds.subscription import Accepted, Refused, Rejection, Request, Response, Subscription


class NodeStream:
    """A state machine: feed it requests and publications; send what ``next`` returns, until it
    returns None."""

    def __init__(self, resources: Resources | None = None) -> None:
        """Begin; None: nothing was published yet, so that nothing can be said to a node."""
        self._resources = resources
        self._subscriptions: dict[str, Subscription] = {}
        self._count = 0

    def receive(self, request: Request) -> Accepted | Refused | None:
        """Take a request; return what the node did with a response, if the request says so."""
        url = request.type_url
        subscription = self._subscriptions.setdefault(url, Subscription(url))
        published = self._published(url)
        answered = subscription.answer(request.nonce, request.error, published)
        subscription.request(request, published)
        return answered

    def publish(self, resources: Resources, changed: Mapping[str, Iterable[str]]) -> None:
        """Publish; ``changed``: at least the names that differ from those before, by type."""
        self._resources = resources
        for url, names in changed.items():
            if subscription := self._subscriptions.get(url):
                subscription.changed(names, resources.of_type(url))

    def next(self) -> Response | None:
        """Return the next response, which counts as sent."""
        if self._resources is None:
            return None
        for url, subscription in self._subscriptions.items():
            response = subscription.next(
                str(self._count + 1), self._published(url), updates=True, removals=True
            )
            if response:
                self._count += 1
                return response
        return None

    @property
    def synced(self) -> bool:
        """Return whether the node has all that it asked for."""
        return self._resources is not None and not any(
            one.waiting or one.rejected or one.due(self._published(url))
            for url, one in self._subscriptions.items()
        )

    @property
    def rejections(self) -> dict[tuple[str, str], Rejection]:
        """Return the rejections by type URL and name."""
        return {
            (url, name): rejection
            for url, subscription in self._subscriptions.items()
            for name, rejection in subscription.rejected.items()
        }

    def _published(self, url: str) -> Mapping[str, Resource]:
        return (self._resources or EMPTY).of_type(url)
