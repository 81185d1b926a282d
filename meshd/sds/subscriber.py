"""One client's subscription to secrets: what it is told, and when. Pure.

After https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol. A name that may not be
known yet is neither served nor denied: the client keeps what it has and hears when it is decided.
But Envoy does not start, nor use a new listener, while it waits for an answer. So a secret that is
long in coming is denied to clients that have nothing of it, and served once it exists.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final

from meshd.api.secret_files import is_of_files

_REMOVED: Final = ""
"""Stands for the version of a secret that the client was told does not exist."""


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
    """What is in files that configuration names; None: nothing usable."""

    def get(self, name: str) -> Secret | None:
        return self.served.get(name) or self.files.get(name)

    def version(self, name: str) -> str | None:
        """Return a secret's version: ``_REMOVED`` if it does not exist, None if that is unknown."""
        if found := self.get(name):
            return found.version
        if is_of_files(name):
            return _REMOVED if name in self.files else None
        return None if self.awaited is None or name in self.awaited else _REMOVED


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """A client's request, in either variant of the protocol."""

    subscribe: tuple[str, ...] = ()
    unsubscribe: tuple[str, ...] = ()
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str])
    """What it has from a stream before this one, by name."""
    nonce: str = ""
    error: str | None = None
    """Why it refused the response of that nonce."""


@dataclasses.dataclass(frozen=True, slots=True)
class Response:
    nonce: str
    secrets: tuple[tuple[str, Secret], ...]
    removed: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Refusal:
    """A client's refusal of some secrets."""

    names: tuple[str, ...]
    reason: str


class Subscriber:
    """A state machine: feed it requests, and send what ``next`` returns, until it returns None."""

    def __init__(self, *, whole: bool = False) -> None:
        """Begin without subscriptions; ``whole``: a response lists all that exists (state of the
        world)."""
        self._whole = whole
        self._told: dict[str, str | None] = {}
        """The version of each subscribed name that the client was told of last."""
        self._sent: dict[str, Response] = {}
        """Responses that are not answered yet, by nonce."""
        self._count = 0

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self._told)

    def receive(self, request: Request) -> Refusal | None:
        """Take a request; return what the client refused, if it did."""
        answered = self._sent.pop(request.nonce, None)
        for name in request.unsubscribe:
            self._told.pop(name, None)
        if self._whole:
            self._keep_only(request.subscribe)
        else:
            for name in request.subscribe:
                self._told[name] = None
        for name, version in request.versions.items():
            self._told[name] = version or None
        if answered is None or request.error is None:
            return None
        names = tuple(name for name, _ in answered.secrets)
        return Refusal(names or answered.removed, request.error)

    def _keep_only(self, names: tuple[str, ...]) -> None:
        self._told = {name: self._told.get(name) for name in names}

    def next(self, secrets: Secrets) -> Response | None:
        """Return the next response, if anything has changed for this client."""
        current = {name: self._version(name, secrets) for name in self._told}
        changed = {
            name: version
            for name, version in current.items()
            if version is not None and version != self._told[name]
        }
        if not self._whole:
            changed = _together(changed)
        listed = current if self._whole else changed
        found = tuple((name, secret) for name in listed if (secret := secrets.get(name)))
        if not changed or (self._whole and not found and not self._had_any(changed)):
            return None
        removed = tuple(name for name, version in changed.items() if version == _REMOVED)
        self._told.update(changed)
        self._count += 1
        response = Response(str(self._count), found, removed)
        self._sent[response.nonce] = response
        return response

    def _version(self, name: str, secrets: Secrets) -> str | None:
        """Return the version to tell; of a late secret the client keeps what it has."""
        version = secrets.version(name)
        missing = version is None and name in secrets.late and self._told[name] is None
        return _REMOVED if missing else version

    def _had_any(self, names: Mapping[str, str]) -> bool:
        """Return whether the client had any of these, which a later list tells it by leaving them
        out."""
        return any(self._told[name] for name in names)


def _together(changed: dict[str, str]) -> dict[str, str]:
    """Return the names that one response tells of.

    A secret in a file comes alone: if a client refuses it, the refusal is about nothing else.
    """
    own = {name: version for name, version in changed.items() if not is_of_files(name)}
    return own or dict(sorted(changed.items())[:1])
