"""What the API server of a cluster has, as the kubernetes role tells it, put in force.

All of it is kept on disk, so that the mesh goes on with it when neither the API server nor that
role answers. Services are in force only when all slices are known: without its endpoints a Service
would be one that nobody serves, the API server's own among them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from meshd import wire
from meshd.api.kubernetes.types import Service
from meshd.api.object_fields import name_of, namespace_of
from meshd.base import kept_file
from meshd.base.errors import InvalidInputError
from meshd.base.json_values import JsonObject
from meshd.base.kept_file import KeptFile
from meshd.base.once import SaidOnce
from meshd.config.merging import Followed
from meshd.kubernetes.followed_kinds import KINDS
from meshd.model.listed import ListedEndpoint
from meshd.node.cluster_objects import Judging
from meshd.wire import cluster

_MOST_SHOWN: Final = 3
"""Lines of each sort in status."""


Slices = Mapping[str, tuple[ListedEndpoint, ...]]


class State(msgspec.Struct, frozen=True):
    """What has been told, by kind or slice and name."""

    objects: Mapping[str, Mapping[str, JsonObject]] = {}
    slices: Slices | None = None
    """None: not told yet."""

    def taking(self, message: cluster.Objects | cluster.Slices) -> State:
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


class Cluster:
    """``surround`` takes the objects, ``list_endpoints`` the endpoints."""

    def __init__(
        self,
        path: Path,
        surround: Callable[[Followed], None],
        list_endpoints: Callable[[tuple[ListedEndpoint, ...]], None],
        changed: Callable[[], None] = lambda: None,
        *,
        enabled: bool = True,
    ) -> None:
        """Begin with what was told last, if that is ``enabled``."""
        self._surround, self._list = surround, list_endpoints
        self._judging = Judging()
        self._problems: tuple[str, ...] = ()
        self._trouble: tuple[str, ...] = ()
        self._said = SaidOnce({"MESHD_EVENT": "kubernetes"})
        self.kept = KeptFile(path, self.dumping, changed)
        consequence = "nothing of the cluster is known until the API server answers"
        kept = kept_file.load(path, _decoded, consequence) if enabled else None
        self._state = kept or State()
        self._use()

    @property
    def problem(self) -> str:
        """Return what is left out, and why what is known is old or not kept; empty: nothing."""
        return "; ".join(
            filter(None, (*self._trouble, *self._problems[:_MOST_SHOWN], self.kept.problem))
        )

    def take(self, message: cluster.Messages) -> wire.Done:
        """Raises InvalidInputError for a kind that is not taken from the API server."""
        if isinstance(message, cluster.Trouble):
            self._trouble = message.problems[:_MOST_SHOWN]
            return wire.Done()
        if isinstance(message, cluster.Objects) and message.kind not in KINDS:
            raise InvalidInputError(f"{message.kind} is not taken from the API server")
        after = self._state.taking(message)
        if after != self._state:
            self._state = after
            self.kept.touch()
            self._use()
        return wire.Done()

    def _use(self) -> None:
        objects, has_slices = self._state.objects, self._state.slices is not None
        kinds = [kind for kind in KINDS if has_slices or kind != Service.KIND]
        values = [one for kind in kinds for one in objects.get(kind, {}).values()]
        found, self._problems = self._judging.admitted(values)
        self._said.say(self._problems)
        self._list(self._state.listed)
        self._surround(found)

    def dumping(self) -> Callable[[], bytes]:
        """Return what makes the bytes of the file."""
        state = self._state
        return lambda: msgspec.msgpack.encode(state)


def _decoded(data: bytes) -> State:
    return msgspec.msgpack.decode(data, type=State)
