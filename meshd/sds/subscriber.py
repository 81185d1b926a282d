"""One client's subscription to secrets: what it is told, and when. Pure.

The protocol is that of ``xds.subscription``; this adds what is special about secrets. A name that
may not be known yet is neither served nor denied: the client keeps what it has and hears when it is
decided. But Envoy does not start, nor use a new listener, while it waits for an answer. So a secret
that is long in coming is denied to clients that have nothing of it, and served once it exists.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from meshd.api.secret_files import is_of_files
from meshd.xds.exchange import Refused, Request, Response
from meshd.xds.resources import SECRET, Resource
from meshd.xds.subscription import EVERYTHING, Subscription


@dataclasses.dataclass(frozen=True, slots=True)
class Secret:
    """A secret as it is served. ``body`` holds a private key: it is never shown."""

    version: str
    body: bytes = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Secrets:
    """All secrets that may be served at one moment."""

    served: Mapping[str, Secret] = dataclasses.field(default_factory=dict[str, Secret])
    awaited: frozenset[str] | None = None
    """Names that will be served; None: it is not known yet which names there are."""
    late: frozenset[str] = frozenset()
    """Those of them that it may take long for: who has none is told so, and need not wait."""

    files: Mapping[str, Secret | None] = dataclasses.field(default_factory=dict[str, None])
    """What is in files that configuration names, and what else there is under names of its own;
    None: nothing usable."""

    def get(self, name: str) -> Secret | None:
        return self.served.get(name) or self.files.get(name)

    def is_decided(self, name: str) -> bool:
        """Return whether it is known which secret that is, or that it does not exist."""
        if self.get(name):
            return True
        if is_of_files(name):
            return name in self.files
        return self.awaited is not None and name not in self.awaited


class Subscriber:
    """A state machine: feed it requests, and send what ``next`` returns, until it returns None."""

    def __init__(self, *, whole: bool = False) -> None:
        """Begin without subscriptions; ``whole``: a response lists all that exists (state of the
        world)."""
        self.whole = whole
        # If a client refuses a secret in a file, the refusal is about nothing else.
        self._subscription = Subscription(SECRET, alone=_never if whole else is_of_files)
        self._secrets: Secrets | None = None
        self._published: dict[str, Resource] = {}
        """What the client has asked for, of these secrets."""
        self._asked: set[str] = set()
        """Names that were not looked up among them yet."""
        self._count = 0

    @property
    def names(self) -> frozenset[str]:
        return self._subscription.named

    def receive(self, request: Request) -> Refused | None:
        """Take a request; return what the client refused, if it did. Nobody is given all there
        is."""
        answered = self._subscription.answer(request.nonce, request.error, self._published)
        subscribe = [name for name in request.subscribe if name != EVERYTHING]
        gone = tuple(self.names - set(subscribe)) if self.whole else request.unsubscribe
        asked = tuple(set(subscribe) - self.names) if self.whole else tuple(subscribe)
        versions = {name: known for name, known in request.initial_versions.items() if known}
        wanted = dataclasses.replace(
            request,
            subscribe=asked,
            unsubscribe=gone,
            initial_versions=versions,
        )
        self._subscription.request(wanted, self._published)
        self._asked.update(asked)
        self._asked.difference_update(gone)
        for name in gone:
            self._published.pop(name, None)
        return answered if isinstance(answered, Refused) else None

    def next(self, secrets: Secrets) -> Response | None:
        """Return the next response, which counts as sent."""
        if secrets is not self._secrets:
            self._secrets, self._asked = secrets, set(self.names)
        for name in self._asked:
            self._look_up(name, secrets)
        self._asked.clear()
        while response := self._following(secrets):
            if not self.whole:
                return response
            listed = tuple(one for _, one in sorted(self._published.items()))
            if listed or any(name in self._subscription.held for name in response.removed):
                return dataclasses.replace(response, resources=listed, removed=())
            # A list cannot say that there is nothing of what the client never had.
            self._subscription.answer(response.nonce, None, self._published)
        return None

    def _look_up(self, name: str, secrets: Secrets) -> None:
        before, found = self._published.pop(name, None), secrets.get(name)
        if found:
            self._published[name] = Resource(SECRET, name, found.version, found.body)
        if before != self._published.get(name):
            self._subscription.changed((name,), self._published)

    def _following(self, secrets: Secrets) -> Response | None:
        response = self._subscription.next(
            str(self._count + 1),
            self._published,
            updates=True,
            removals=True,
            undecided=lambda name: self._is_undecided(name, secrets),
        )
        self._count += response is not None
        return response

    def _is_undecided(self, name: str, secrets: Secrets) -> bool:
        """Return whether the client keeps what it has of a secret; of a late one it may have
        nothing, and is told that it is not there."""
        if secrets.is_decided(name):
            return False
        return name not in secrets.late or name in self._subscription.held


def _never(_: str) -> bool:
    return False
