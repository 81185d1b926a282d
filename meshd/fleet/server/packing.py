"""Packs what nodes are told into messages, as far as messages can hold it.

What cannot be told is never taken for deleted by a node: see ``stand_ins``. Where nothing can be
told in place of it either, its removal is held back, and what it may have closed is lost.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Final, TypeAlias

import msgspec

from meshd import wire
from meshd.api.gateway.types import SELECTION, GatewaySelection
from meshd.api.object_fields import kind_of
from meshd.api.peer_authentication.types import PeerAuthentication
from meshd.api.write import api_version, to_json
from meshd.base.attempts import Attempts
from meshd.base.errors import InvalidInputError
from meshd.base.json_values import JsonObject
from meshd.config import lost_configuration
from meshd.fleet.server import mcp, stand_ins
from meshd.fleet.server.private import SECRET, may_name_secrets, needed_secrets
from meshd.model.workload import Workload
from meshd.xds.resources import Resource, Resources

_PACKING: Final = "what nodes are told"
_POLICY: Final = mcp.type_url(api_version(PeerAuthentication), PeerAuthentication.KIND)
_REMOVED: Final = frozenset({_POLICY, mcp.WORKLOAD})
"""The types of which nodes are told what is gone though configuration was lost: policies that are
left could open what one that was lost closed. Of other types nodes keep what they know."""

_Value: TypeAlias = JsonObject | Workload


class Packed(msgspec.Struct, frozen=True):
    """What nodes are told."""

    shared: Resources
    """Told to all of them."""
    private: Mapping[str, Resources]
    """Told to one of them, by its name."""
    problems: tuple[str, ...]
    """Objects that cannot be told, a line each."""


class _Told(msgspec.Struct, frozen=True):
    """An object or a workload that nodes are told of."""

    type_url: str
    name: str
    value: _Value
    encode: Callable[[], Resource]

    @property
    def key(self) -> str:
        """Return its name in messages and among the attempts."""
        return self.name if self.type_url == mcp.WORKLOAD else f"{self.type_url} {self.name}"

    @property
    def fingerprint(self) -> str:
        """Return that of its content. A workload changes by itself: it is known by its name."""
        if isinstance(self.value, Workload):
            return ""
        return hashlib.blake2b(json.dumps(self.value).encode(), digest_size=8).hexdigest()


class Packing:
    """The work, which is done by one thread at a time.

    ``attempts``: what made processes die is not packed again.
    """

    def __init__(
        self,
        attempts: Attempts,
        root_namespace: str,
        gateway_selection: GatewaySelection = SELECTION,
    ) -> None:
        self._attempts = attempts
        self._root_namespace = root_namespace
        self._gateway_selection: GatewaySelection = gateway_selection
        self._packed: dict[str, tuple[_Value, Resource]] = {}

    def pack(self, told: wire.Shared) -> Packed:
        """Return what nodes are told.

        Unchanged parts are kept; what no message can hold is replaced and reported.
        """
        now: dict[str, tuple[_Value, Resource]] = {}
        problems: list[str] = []
        replaced: dict[str, Resource] = {}
        untold: list[_Told] = []
        if not self._attempts.knows(_PACKING):
            self._attempts.begin({_PACKING: ("", None)})
        objects = told.objects or ()
        for one in (*map(_object, objects), *map(_workload, told.workloads)):
            try:
                now[one.key] = self._known(one) or (
                    one.value,
                    self._encoded(one, one.key, one.encode),
                )
            except InvalidInputError as error:
                problems.append(f"nodes are not told of {error}; {_CONSEQUENCE}")
                if found := self._in_place_of(one):
                    replaced[one.key] = found
                else:
                    untold.append(one)
        told_of = {key: resource for key, (_, resource) in now.items()} | replaced
        every = self._closed_for(told_of.values(), untold)
        self._attempts.done({_PACKING})
        self._packed = now
        secrets = [one for one in every if one.type_url == SECRET]
        others = {(one.type_url, one.name) for one in untold}
        shared = dataclasses.replace(
            Resources.of(one for one in every if one.type_url != SECRET),
            removed_types=_REMOVED if told.lost else None,
            untold=frozenset(one for one in others if one[0] != SECRET),
        )
        private = self._private(objects, told.workloads, secrets, others - shared.untold)
        return Packed(shared, private, tuple(problems))

    def _private(
        self,
        objects: Iterable[JsonObject],
        workloads: Iterable[Workload],
        secrets: Collection[Resource],
        untold: Collection[tuple[str, str]],
    ) -> dict[str, Resources]:
        """Return the Secrets of each node that needs any; ``untold``: those that cannot be told."""
        running: dict[str, list[Workload]] = {}
        for one in workloads if secrets or untold else ():
            running.setdefault(one.node, []).append(one)
        naming = [one for one in objects if may_name_secrets(one)]
        needed = {
            node: needed_secrets(naming, here, self._gateway_selection)
            for node, here in running.items()
        }
        return dict(_of_nodes(needed, {one.name: one for one in secrets}, untold))

    def _known(self, one: _Told) -> tuple[_Value, Resource] | None:
        known = self._packed.get(one.key)
        return known if known and known[0] == one.value else None

    def _encoded(self, one: _Told, key: str, encode: Callable[[], Resource]) -> Resource:
        """Return a message by the name ``key`` about an object. Raises InvalidInputError."""
        is_known = self._attempts.knows(_PACKING)
        if not (is_known or self._attempts.leaves_out):
            return encode()
        fingerprint = one.fingerprint
        if why := self._attempts.why_left_out(key, fingerprint):
            raise InvalidInputError(f"{key}, which is left out: {why}")
        if not is_known:
            return encode()
        # A process died at this: each for itself, so that it can be told which it was.
        self._attempts.begin({key: (fingerprint, None)})
        try:
            resource = encode()
        except InvalidInputError:
            self._attempts.done({key})
            raise
        self._attempts.done({key})
        return resource

    def _in_place_of(self, one: _Told) -> Resource | None:
        """Return the first that a message can hold of what stands for an object; None: nothing."""
        if isinstance(one.value, Workload):
            return None
        for name, form in stand_ins.FORMS:
            key = f"{name} {one.key}"
            if self._attempts.knows(key, one.fingerprint):
                continue  # of a form of what is known to kill, one death is enough
            try:
                encode = functools.partial(_encoded_as, form, one.value)
                return self._encoded(one, key, encode)
            except InvalidInputError:
                continue
        return None

    def _closed_for(self, every: Iterable[Resource], untold: Iterable[_Told]) -> Iterable[Resource]:
        """Return what nodes are told if nothing stands for objects without which they are open."""
        lost = [
            one.key
            for one in untold
            if not isinstance(one.value, Workload) and stand_ins.opens_if_absent(one.value)
        ]
        if not lost:
            return every
        closed = lost_configuration.told({}, lost, self._root_namespace).values()
        left = (one for one in every if one.type_url != _POLICY)
        return [*left, *(mcp.encode(to_json(one)) for one in closed)]


_CONSEQUENCE: Final = (
    "those that know it as it was before keep that (a PeerAuthentication only if it is unchanged),"
    " and others refuse what it may be about; correct or delete it"
)


def _object(value: JsonObject) -> _Told:
    encode = functools.partial(mcp.encode, value)
    return _Told(mcp.url_of(value), mcp.resource_name(value), value, encode)


def _workload(workload: Workload) -> _Told:
    name = f"{workload.node}/{workload.uid}"

    def encode() -> Resource:
        return mcp.encode_body(mcp.WORKLOAD, name, msgspec.to_builtins(workload))

    return _Told(mcp.WORKLOAD, name, workload, encode)


def _encoded_as(form: Callable[[JsonObject], JsonObject], value: JsonObject) -> Resource:
    """Raises InvalidInputError."""
    try:
        return mcp.encode(form(value))
    except (TypeError, ValueError) as error:  # of a value that JSON cannot hold either
        raise InvalidInputError(f"{kind_of(value)}: {error}") from None


def _of_nodes(
    needed_by: Mapping[str, Collection[str]],
    secrets: Mapping[str, Resource],
    untold: Collection[tuple[str, str]],
) -> Iterator[tuple[str, Resources]]:
    for node, needed in needed_by.items():
        own = Resources.of(secrets[name] for name in needed & secrets.keys())
        kept = frozenset(one for one in untold if one[1] in needed)
        if own.by_type or kept:
            yield node, dataclasses.replace(own, untold=kept)
