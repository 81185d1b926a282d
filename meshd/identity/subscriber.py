"""One client's subscription to secrets: what it is told, and when. Pure.

After https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol. A name that may not be
known yet is neither served nor denied: the client keeps what it has and hears when it is decided.
But Envoy does not start, nor take a new listener into use, while it waits for an answer. So what is
long in coming is denied to those who have nothing of it, and served once it is there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final

from meshd.model.secret_files import is_of_files

_REMOVED: Final = ""
"""Stands for the version of a secret that the client was told does not exist."""


@dataclasses.dataclass(frozen=True, slots=True)
class Secret:
    """What is served under a name. ``body`` holds a private key: it is never shown."""

    version: str
    body: bytes = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Secrets:
    """All that may be served at one moment."""

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
        """``_REMOVED`` when it does not exist, None when nothing can be said."""
        if found := self.get(name):
            return found.version
        if is_of_files(name):
            return _REMOVED if name in self.files else None
        return None if self.awaited is None or name in self.awaited else _REMOVED


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """What a client says, in either variant of the protocol."""

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
    """A client did not take these."""

    names: tuple[str, ...]
    reason: str


class Subscriber:
    """Feed it requests; send what ``next`` gives, until it gives None."""

    def __init__(self, *, whole: bool = False) -> None:
        """``whole``: the state-of-the-world variant, where a response lists all that exists."""
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
        """Tells what the client refused, if the request says that it did."""
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
        """What to send now, if anything has changed for this client."""
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
        """Of what is late the client keeps what it has."""
        version = secrets.version(name)
        missing = version is None and name in secrets.late and self._told[name] is None
        return _REMOVED if missing else version

    def _had_any(self, names: Mapping[str, str]) -> bool:
        """In the whole variant, what does not exist is told by leaving it out of a later list."""
        return any(self._told[name] for name in names)


def _together(changed: dict[str, str]) -> dict[str, str]:
    """Those that one response tells of. What is in files comes alone: if a client refuses it, that
    is about nothing else."""
    own = {name: version for name, version in changed.items() if not is_of_files(name)}
    return own or dict(sorted(changed.items())[:1])
