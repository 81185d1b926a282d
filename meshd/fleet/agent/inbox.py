"""Holds what a node has received from its server: the last good version of each resource. Pure.

A resource that cannot be decoded is refused by name; its previous version stays, and all other
resources are accepted.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from meshd.base.attempts import Attempts, Begun
from meshd.base.errors import UNDECODABLE, InvalidInputError, MeshdError


class Held(msgspec.Struct, frozen=True, array_like=True):
    version: str
    body: bytes


class Decoded(msgspec.Struct, frozen=True):
    """A resource, and what was decoded from it, or why it is refused."""

    name: str
    resource: Held
    value: Any = None
    refused: str = ""
    kills: bool = False
    """Processes died of it: it was not even read."""
    is_there: bool = True
    """Its body is known. Otherwise, only that a process died with it."""


class _State(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The state on disk.

    Refused resources are stored among the others, with ``_REFUSED`` before their type URL: versions
    of meshd that do not know of refused resources read them as resources of an unused type.
    """

    resources: dict[str, dict[str, Held]]
    refused: dict[str, dict[str, Held]] = {}
    """The place where versions before 0.2 kept refused resources. It is no longer written."""


_REFUSED: Final = "refused:"
"""The prefix of the type URL of a refused resource on disk."""
_NO_VERSION: Final = "refused"
"""The version of a resource of which no version was taken. No server has this version, so that the
server sends its own version, or says that there is none."""
_UNRECORDED: Final = (
    "a process of meshd died before it had kept this version; the server is asked which version is"
    " in force"
)


Decode = Callable[[str, str, bytes], Any]
"""Type URL, name and body → a value. Raises MeshdError if the body cannot be decoded."""


class Inbox:
    """The resources that were received.

    ``attempts``: a record that made a process die is refused, and its previous version stays.
    ``types``: the type URLs that the server is asked for; None: any.
    """

    def __init__(
        self,
        decode: Decode,
        attempts: Attempts | None = None,
        types: Collection[str] | None = None,
    ) -> None:
        self._decode = decode
        self._types = types
        self._attempts = attempts
        self._held: dict[str, dict[str, Held]] = {}
        self._values: dict[str, dict[str, Any]] = {}
        self.refused: dict[tuple[str, str], str] = {}
        """Why resources were refused, by type URL and name."""
        self.unused: frozenset[Begun] = frozenset()
        """What was kept and is not put in force yet, among the attempts."""
        self._not_taken: dict[tuple[str, str], Decoded] = {}
        """The refused resources, by type URL and name."""

    def versions(self, type_url: str) -> dict[str, str]:
        """Return the version of each resource of a type, by name, as the server is to be told.

        Of what was refused it is to send its own, also if that is the version that is held again:
        the refusal would never end otherwise.
        """
        refused = {name: _NO_VERSION for url, name in self._not_taken if url == type_url}
        held = {name: held.version for name, held in self._held.get(type_url, {}).items()}
        return held | refused

    def values(self, type_url: str) -> Mapping[str, Any]:
        """Return the decoded resources of a type by name."""
        return self._values.get(type_url, {})

    def take(
        self,
        type_url: str,
        resources: Iterable[tuple[str, Held]],
        removed: Iterable[str] = (),
        *,
        starting: bool = False,
    ) -> tuple[bool, str]:
        """Take resources; return whether anything changed, and why resources were refused, if any.

        ``starting``: the resources are read back from disk.
        """
        found = list(resources)
        self.begin(type_url, found, starting=starting)
        return self.keep(type_url, self.decoded(type_url, found), removed)

    def decoded(self, type_url: str, resources: Iterable[tuple[str, Held]]) -> Sequence[Decoded]:
        """Decode resources after ``begin``, for ``keep``. A thread may do it: no state changes."""
        return [self._decoded(type_url, name, one) for name, one in resources]

    def _decoded(self, type_url: str, name: str, resource: Held) -> Decoded:
        if why := self._why_left_out(type_url, name, resource):
            return Decoded(name, resource, refused=f"left out: {why}", kills=True)
        try:
            return Decoded(name, resource, self._decode(type_url, name, resource.body))
        except MeshdError as error:
            return Decoded(name, resource, refused=str(error) or repr(error))

    def keep(
        self, type_url: str, resources: Iterable[Decoded], removed: Iterable[str] = ()
    ) -> tuple[bool, str]:
        """Take what was decoded, and return the same as ``take``."""
        held = self._held.setdefault(type_url, {})
        values = self._values.setdefault(type_url, {})
        changed = False
        reasons: list[str] = []
        resources = list(resources)
        if attempts := self._attempts:
            names = [_shown(type_url, one.name) for one in resources]
            attempts.taken(names)
            self.unused |= attempts.begun(names)
        for one in resources:
            name, resource = one.name, one.resource
            ended = self._forget_refusal(type_url, name)
            if one.refused:
                self.refused[type_url, name] = one.refused
                self._not_taken[type_url, name] = one
                reasons.append(f"{name}: {one.refused}")
                continue
            changed = changed or ended or held.get(name) != resource
            held[name], values[name] = resource, one.value
        for name in removed:
            self._forget_doubt(type_url, name)
            ended = self._forget_refusal(type_url, name)
            changed = held.pop(name, None) is not None or ended or changed
            values.pop(name, None)
        return changed, "; ".join(reasons)

    def used(self, unused: frozenset[Begun] | None = None) -> None:
        """Note that what was ``unused`` is put in force now; None: all that was kept."""
        used = self.unused if unused is None else unused
        if self._attempts:
            self._attempts.in_hand -= used
        self.unused -= used

    def copy(self) -> Inbox:
        """Return an inbox that has the same, and keeps it whatever this one receives."""
        other = Inbox(self._decode, self._attempts, self._types)
        other._held = {url: dict(held) for url, held in self._held.items()}
        other._values = {url: dict(values) for url, values in self._values.items()}
        other.refused, other._not_taken = dict(self.refused), dict(self._not_taken)
        return other

    def never_good(self, type_url: str) -> dict[str, bytes]:
        """Return the refused resources of which no version was ever taken, by name."""
        values = self.values(type_url)
        return {
            name: one.resource.body
            for (url, name), one in self._not_taken.items()
            if url == type_url and name not in values and one.is_there
        }

    def kept(self, type_url: str) -> dict[str, tuple[bytes, bytes | None]]:
        """Return the resources of which a version is kept because another one was refused, by name:
        both bodies. The refused one is None if processes died of it: nobody is to read it."""
        held = self._held.get(type_url, {})
        return {
            name: (held[name].body, None if one.kills else one.resource.body)
            for (url, name), one in self._not_taken.items()
            if url == type_url and name in held
        }

    def _forget_refusal(self, type_url: str, name: str) -> bool:
        """Forget the refusal of a resource; return whether there was one."""
        self.refused.pop((type_url, name), None)
        return self._not_taken.pop((type_url, name), None) is not None

    def _forget_doubt(self, type_url: str, name: str) -> None:
        """Forget what processes have died with, if that is all that is known of a resource."""
        one, gone = self._not_taken.get((type_url, name)), _shown(type_url, name)
        if self._attempts and one and not one.is_there:
            self._attempts.keep_only(lambda noted: noted != gone)

    def begin(
        self, type_url: str, resources: Iterable[tuple[str, Held]], *, starting: bool = False
    ) -> frozenset[Begun]:
        """Note resources before they are decoded, since decoding may kill the process, and return
        what is noted, for ``drop``. They are in hand until ``used`` is called."""
        attempts, held = self._attempts, self._held.get(type_url, {})
        if attempts is None:
            return frozenset()
        records: dict[str, tuple[str, Any]] = {}
        for name, one in resources:
            shown, fingerprint = _shown(type_url, name), _fingerprint(one)
            is_new = held.get(name) != one or (type_url, name) in self._not_taken
            suspected = attempts.suspects(shown, fingerprint) if starting else is_new
            if suspected and not attempts.why_left_out(shown, fingerprint):
                records[shown] = fingerprint, one.body
        begun = attempts.begin(records, tentative=True)
        attempts.in_hand |= begun
        return begun

    def drop(self, begun: frozenset[Begun]) -> None:
        """Note that resources were decoded that nobody waits for any more, without a death."""
        if self._attempts is not None:
            self._attempts.in_hand -= begun
            self._attempts.withdraw(begun)

    def _why_left_out(self, type_url: str, name: str, resource: Held) -> str:
        """Return why a resource is not to be read, because a process died of it; empty: it is."""
        if self._attempts is None:
            return ""
        return self._attempts.why_left_out(_shown(type_url, name), _fingerprint(resource))

    def _is_known(self, type_url: str) -> bool:
        """Return whether the server is asked for a type.

        Resources of other types would never be updated or removed.
        """
        return self._types is None or type_url in self._types

    def dump(self) -> bytes:
        return self.dumping()()

    def dumping(self) -> Callable[[], bytes]:
        """Return what dumps the present state, whatever changes meanwhile."""
        resources = {type_url: dict(held) for type_url, held in self._held.items()}
        for (type_url, name), one in self._not_taken.items():
            if one.is_there:
                resources.setdefault(_REFUSED + type_url, {})[name] = one.resource
        return functools.partial(msgspec.msgpack.encode, _State(resources))

    def doubt(self, type_url: str) -> None:
        """Count resources of a type as refused, after ``load``, of which processes died with
        another version than the one that was kept, if any: until the server has answered which
        version is in force, since it is asked for these."""
        held, prefix = self._held.get(type_url, {}), _shown(type_url, "")
        suspected = self._attempts.suspected if self._attempts else {}
        for shown, fingerprint in suspected.items():
            name = shown.removeprefix(prefix)
            key, known = (type_url, name), held.get(name)
            if name == shown or key in self._not_taken:
                continue
            if known is None or _fingerprint(known) != fingerprint:
                self.refused[key] = _UNRECORDED
                unknown = Held(_NO_VERSION, b"")
                self._not_taken[key] = Decoded(
                    name, unknown, refused=_UNRECORDED, kills=True, is_there=False
                )

    def load(self, data: bytes) -> tuple[str, ...]:
        """Load what ``dump`` returned; return why parts of it are unusable.

        Raises InvalidInputError if all of it is unusable.
        """
        try:
            state = msgspec.msgpack.decode(data, type=_State)
        except UNDECODABLE as error:
            raise InvalidInputError(f"damaged ({error})") from None
        reasons = [
            self.take(url, named.items(), starting=True)[1]
            for url, named in state.resources.items()
            if not url.startswith(_REFUSED) and self._is_known(url)
        ]
        for url, named in filter(lambda one: self._is_known(one[0]), _refused(state)):
            self.take(url, named.items(), starting=True)  # reported when they came
        return tuple(reason for reason in reasons if reason)


def _refused(state: _State) -> Iterator[tuple[str, dict[str, Held]]]:
    """Yield the refused resources by type URL.

    Some versions wrote the prefix in the old place, too.
    """
    marked = ((url, named) for url, named in state.resources.items() if url.startswith(_REFUSED))
    for url, named in itertools.chain(state.refused.items(), marked):
        yield url.rpartition(_REFUSED)[2], named


def _shown(type_url: str, name: str) -> str:
    return f"{type_url.rpartition('/')[2]} {name}"


def _fingerprint(resource: Held) -> str:
    return hashlib.blake2b(resource.body, digest_size=8).hexdigest()
