"""What a node has received from its server: the last good version of each resource. Pure.

A resource that does not decode is refused by name; its previous version stays, and all others are
accepted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from meshd.base.attempts import Attempts
from meshd.base.errors import UNDECODABLE, InvalidInputError, MeshdError


class Held(msgspec.Struct, frozen=True, array_like=True):
    version: str
    body: bytes


class _State(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The state on disk."""

    resources: dict[str, dict[str, Held]]
    refused: dict[str, dict[str, Held]] = {}


Decode = Callable[[str, str, bytes], Any]
"""Type URL, name and body → a value. Raises MeshdError when it is none."""


class Inbox:
    """The resources. ``attempts``: a record of which a process died is refused, and the previous
    version stays."""

    def __init__(self, decode: Decode, attempts: Attempts | None = None) -> None:
        self._decode = decode
        self._attempts = attempts
        self._held: dict[str, dict[str, Held]] = {}
        self._values: dict[str, dict[str, Any]] = {}
        self.refused: dict[tuple[str, str], str] = {}
        """Why, by type URL and name."""
        self._not_taken: dict[tuple[str, str], Held] = {}
        """What was refused, by the same."""

    def versions(self, type_url: str) -> dict[str, str]:
        return {name: held.version for name, held in self._held.get(type_url, {}).items()}

    def values(self, type_url: str) -> Mapping[str, Any]:
        """Return the values by name."""
        return self._values.get(type_url, {})

    def take(
        self,
        type_url: str,
        resources: Iterable[tuple[str, Held]],
        removed: Iterable[str] = (),
        *,
        starting: bool = False,
    ) -> tuple[bool, str]:
        """Take resources; return whether anything changed, and why something was refused, if so.

        ``starting``: the resources were taken before.
        """
        held = self._held.setdefault(type_url, {})
        values = self._values.setdefault(type_url, {})
        changed = False
        reasons: list[str] = []
        found = list(resources)
        self._begin(type_url, found, starting=starting)
        for name, resource in found:
            self._forget_refusal(type_url, name)
            try:
                self._check(type_url, name, resource)
                value = self._decode(type_url, name, resource.body)
            except MeshdError as error:
                self.refused[type_url, name] = str(error)
                self._not_taken[type_url, name] = resource
                reasons.append(f"{name}: {error}")
                continue
            changed = changed or held.get(name) != resource
            held[name], values[name] = resource, value
        for name in removed:
            self._forget_refusal(type_url, name)
            changed = held.pop(name, None) is not None or changed
            values.pop(name, None)
        return changed, "; ".join(reasons)

    def never_good(self, type_url: str) -> dict[str, bytes]:
        """Return resources that were refused and of which no version was ever taken, by name."""
        values = self.values(type_url)
        return {
            name: one.body
            for (url, name), one in self._not_taken.items()
            if url == type_url and name not in values
        }

    def _forget_refusal(self, type_url: str, name: str) -> None:
        self.refused.pop((type_url, name), None)
        self._not_taken.pop((type_url, name), None)

    def _begin(
        self, type_url: str, resources: Iterable[tuple[str, Held]], *, starting: bool
    ) -> None:
        attempts, held = self._attempts, self._held.get(type_url, {})
        if attempts is None:
            return
        records: dict[str, tuple[str, Any]] = {}
        for name, one in resources:
            shown, fingerprint = _shown(type_url, name), _fingerprint(one)
            suspected = attempts.knows(shown, fingerprint) if starting else held.get(name) != one
            if suspected and not attempts.why_left_out(shown, fingerprint):
                records[shown] = fingerprint, one.body
        attempts.begin(records)

    def _check(self, type_url: str, name: str, resource: Held) -> None:
        """Raises InvalidInputError."""
        if self._attempts is None:
            return
        shown = _shown(type_url, name)
        if why := self._attempts.why_left_out(shown, _fingerprint(resource)):
            raise InvalidInputError(f"left out: {why}")

    def dump(self) -> bytes:
        refused: dict[str, dict[str, Held]] = {}
        for (type_url, name), one in self._not_taken.items():
            refused.setdefault(type_url, {})[name] = one
        return msgspec.msgpack.encode(_State(self._held, refused))

    def load(self, data: bytes) -> tuple[str, ...]:
        """Load what ``dump`` returned; return what of it is unusable. Raises InvalidInputError."""
        try:
            state = msgspec.msgpack.decode(data, type=_State)
        except UNDECODABLE as error:
            raise InvalidInputError(f"damaged ({error})") from None
        found = [
            self.take(url, named.items(), starting=True)[1]
            for url, named in state.resources.items()
        ]
        for url, named in state.refused.items():
            self.take(url, named.items(), starting=True)  # that was said when they came
        return tuple(reason for reason in found if reason)


def _shown(type_url: str, name: str) -> str:
    return f"{type_url.rpartition('/')[2]} {name}"


def _fingerprint(resource: Held) -> str:
    return hashlib.blake2b(resource.body, digest_size=8).hexdigest()
