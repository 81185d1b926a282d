"""What the API server of a cluster has, as the kubernetes role tells it, put in force.

All of it is kept on disk, so that the mesh goes on with it when neither the API server nor that
role answers. Services are in force only when all slices are known: without its endpoints a Service
would be one that nobody serves, the API server's own among them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from meshd import wire
from meshd.api.base import Key, Object
from meshd.api.kubernetes.types import Namespace, Service
from meshd.api.object_fields import name_of, namespace_of
from meshd.base import kept_file
from meshd.base.errors import InvalidInputError
from meshd.base.json_values import JsonObject
from meshd.base.kept_file import KeptFile
from meshd.base.once import SaidOnce
from meshd.config import admission
from meshd.model.listed import SERVICE_NAME, ListedEndpoint
from meshd.wire import cluster

TAKEN: Final = (Namespace.KIND, Service.KIND)
"""Kinds that are taken from the API server."""
_log: Final = logging.getLogger(__name__)

Slices = Mapping[str, tuple[ListedEndpoint, ...]]


class State(msgspec.Struct, frozen=True):
    """What has been told, by kind or slice and name."""

    objects: Mapping[str, Mapping[str, JsonObject]] = {}
    slices: Slices | None = None
    """None: not told yet."""

    def taking(self, message: cluster.Messages) -> State:
        """Return the state after a message."""
        if isinstance(message, cluster.Slices):
            kept = {} if message.whole else dict(self.slices or {})
            gone = {name: one for name, one in kept.items() if name not in message.removed}
            return State(self.objects, {**gone, **message.changed})
        known = {} if message.whole else self.objects.get(message.kind, {})
        left = {name: one for name, one in known.items() if name not in message.removed}
        changed = {full_name(one): one for one in message.changed}
        return State({**self.objects, message.kind: {**left, **changed}}, self.slices)

    @property
    def listed(self) -> tuple[ListedEndpoint, ...]:
        """Return each endpoint once. Of a Service that has addresses of both families, those of
        IPv4 count; an address that several slices have is ready if it is so in one of them."""
        found: dict[tuple[str, str, str], ListedEndpoint] = {}
        for one in (one for _, each in sorted((self.slices or {}).items()) for one in each):
            key = one.namespace, one.service, one.address
            if key not in found or (one.ready and not found[key].ready):
                found[key] = one
        with_ipv4 = {key[:2] for key in found if ":" not in key[2]}
        return tuple(
            one
            for key, one in sorted(found.items())
            if ":" not in key[2] or key[:2] not in with_ipv4
        )


def full_name(value: JsonObject) -> str:
    """Return ``NAMESPACE/NAME``, or ``NAME`` of what has no namespace."""
    return "/".join(part for part in (namespace_of(value), name_of(value)) if part)


def admitted(values: Iterable[JsonObject]) -> tuple[dict[Key, Object], tuple[str, ...]]:
    """Return the objects, and why others are left out."""
    found: dict[Key, Object] = {}
    problems: list[str] = []
    for value in values:
        try:
            one = admission.admit(value)
        except InvalidInputError as error:
            problems.append(f"the API server's {error}; it is left out")
            continue
        found[one.key] = _by_slices(one) if isinstance(one, Service) else one
    return found, tuple(problems)


def _by_slices(service: Service) -> Service:
    """Return a Service that has the endpoints of its slices, whatever selected those."""
    selector = {SERVICE_NAME: service.metadata.name}
    spec = msgspec.structs.replace(service.spec, selector=selector)
    return msgspec.structs.replace(service, spec=spec)


class Cluster:
    """``surround`` takes the objects, ``list_endpoints`` the endpoints."""

    def __init__(
        self,
        path: Path,
        surround: Callable[[Mapping[Key, Object]], None],
        list_endpoints: Callable[[tuple[ListedEndpoint, ...]], None],
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """Begin with what was told last."""
        self._surround, self._list = surround, list_endpoints
        self._problems: tuple[str, ...] = ()
        self._said = SaidOnce({"MESHD_EVENT": "kubernetes"})
        self.kept = KeptFile(path, self.dumping, changed)
        consequence = "nothing of the cluster is known until the API server answers"
        self._state = kept_file.load(path, _decoded, consequence) or State()
        self._use()

    @property
    def problem(self) -> str:
        """Return what is left out, and why what is known is not kept; empty: nothing."""
        return "; ".join(filter(None, (*self._problems[:3], self.kept.problem)))

    def take(self, message: cluster.Messages) -> wire.Done:
        """Raises InvalidInputError for a kind that is not taken from the API server."""
        if isinstance(message, cluster.Objects) and message.kind not in TAKEN:
            raise InvalidInputError(f"{message.kind} is not taken from the API server")
        after = self._state.taking(message)
        if after != self._state:
            self._state = after
            self.kept.touch()
            self._use()
        return wire.Done()

    def _use(self) -> None:
        kinds = TAKEN if self._state.slices is not None else (Namespace.KIND,)
        values = (one for kind in kinds for one in self._state.objects.get(kind, {}).values())
        objects, self._problems = admitted(values)
        self._said.say(self._problems)
        self._list(self._state.listed)
        self._surround(objects)

    def dumping(self) -> Callable[[], bytes]:
        """Return what makes the bytes of the file."""
        state = self._state
        return lambda: msgspec.msgpack.encode(state)


def _decoded(data: bytes) -> State:
    return msgspec.msgpack.decode(data, type=State)
