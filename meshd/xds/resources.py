"""The resources that are published to proxies: named bytes by type, each with a version, its
hash."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Final, SupportsBytes

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import scoped_route_pb2
from google.protobuf.message import Message

from meshd.base.errors import InvalidInputError

_PREFIX: Final = "type.googleapis.com/"

CLUSTER: Final = _PREFIX + "envoy.config.cluster.v3.Cluster"
ENDPOINTS: Final = _PREFIX + "envoy.config.endpoint.v3.ClusterLoadAssignment"
SECRET: Final = _PREFIX + "envoy.extensions.transport_sockets.tls.v3.Secret"
LISTENER: Final = _PREFIX + "envoy.config.listener.v3.Listener"
CHOOSABLE: Final = _PREFIX + "envoy.config.route.v3.ScopedRouteConfiguration"
"""Which route tables a listener may choose."""
ROUTES: Final = _PREFIX + "envoy.config.route.v3.RouteConfiguration"

RUNTIME: Final = _PREFIX + "envoy.service.runtime.v3.Runtime"

TYPES: Final = (RUNTIME, CLUSTER, ENDPOINTS, SECRET, CHOOSABLE, LISTENER, ROUTES)
"""In the order in which new things must arrive, so that what names a thing comes after it."""

_NOTHING: Final[Mapping[str, Resource]] = types.MappingProxyType({})


@dataclasses.dataclass(frozen=True, slots=True)
class Resource:
    """One resource of Envoy's configuration. The bytes are shared by all clients."""

    type_url: str
    name: str
    version: str
    """Equal exactly when the bytes are."""
    content: SupportsBytes = dataclasses.field(repr=False)
    """The bytes, or what puts them together when they are sent. May hold a private key: it is never
    shown."""
    endpoints: str = ""
    """Of a cluster that takes its endpoints from EDS: under which name."""
    detour: Detour | None = None
    """Of endpoints some of which are an internal listener."""
    internal: bool = False
    """Of a listener: only other listeners and clusters lead to it."""
    behind: str = ""
    """Of a listener: the name of an internal one to which it leaves some connections."""
    left: frozenset[str] = frozenset()
    """Which connections it leaves to that one."""
    table: str = ""
    """Of what a listener may choose: the name of the route table."""

    @property
    def body(self) -> bytes:
        return bytes(self.content)


@dataclasses.dataclass(frozen=True, slots=True)
class Detour:
    """What a client is told of endpoints instead, as long as it cannot use internal listeners."""

    listeners: tuple[str, ...]
    resource: Resource
    """The same endpoints, none of which is one of those listeners. It follows from the endpoints'
    bytes."""


def type_url(full_name: str) -> str:
    """Return the type URL of a message with this full name."""
    return _PREFIX + full_name


def pack(name: str, message: Message) -> Resource:
    """Return a protobuf message as a resource. Equal messages have equal versions."""
    return _packed(name, message, message.SerializeToString(deterministic=True))


def pack_bytes(name: str, kind: type[Message], body: bytes) -> Resource:
    """Return the bytes of a message of a kind as a resource."""
    return _packed(name, kind.FromString(body), body)


def _packed(name: str, message: Message, body: bytes) -> Resource:
    return Resource(
        sys.intern(type_url(message.DESCRIPTOR.full_name)),
        name,
        hashlib.blake2b(body, digest_size=8).hexdigest(),
        body,
        _endpoints(message) if isinstance(message, cluster_pb2.Cluster) else "",
        table=message.route_configuration_name
        if isinstance(message, scoped_route_pb2.ScopedRouteConfiguration)
        else "",
        internal=isinstance(message, listener_pb2.Listener)
        and message.HasField("internal_listener"),
    )


def _endpoints(cluster: cluster_pb2.Cluster) -> str:
    if cluster.type != cluster.EDS:
        return ""
    return cluster.eds_cluster_config.service_name or cluster.name


@dataclasses.dataclass(frozen=True, slots=True)
class Resources:
    """All resources of the proxies, by type URL and name."""

    by_type: Mapping[str, Mapping[str, Resource]]
    removed_types: frozenset[str] | None = None
    """The types whose removals clients are told, after all else; None: removals of all types, at
    once."""
    untold: frozenset[tuple[str, str]] = frozenset()
    """Types and names of resources that exist and cannot be told: clients keep what they have."""

    def removes(self, type_url: str) -> bool:
        return self.removed_types is None or type_url in self.removed_types

    @classmethod
    def of(cls, resources: Iterable[Resource]) -> Resources:
        """Raises InvalidInputError when two have the same type and name."""
        by_type: dict[str, dict[str, Resource]] = {}
        for resource in resources:
            named = by_type.setdefault(resource.type_url, {})
            if named.setdefault(resource.name, resource) is not resource:
                kind = resource.type_url.rpartition(".")[2]
                raise InvalidInputError(
                    f"{kind} {resource.name}: there are two of this name; rename one"
                )
        return cls(by_type)

    def of_type(self, type_url: str) -> Mapping[str, Resource]:
        return self.by_type.get(type_url, _NOTHING)

    def version(self, type_url: str, name: str) -> str | None:
        resource = self.of_type(type_url).get(name)
        return resource.version if resource else None


EMPTY: Final = Resources({})


def without_listeners(resources: Resources, goes: Callable[[str], bool]) -> Resources:
    """Return resources without the listeners whose names ``goes`` says."""
    kept = {name: one for name, one in resources.of_type(LISTENER).items() if not goes(name)}
    return Resources({**resources.by_type, LISTENER: kept})


Replacements = Mapping[tuple[str, str], Resource]
"""Resources by type URL and name."""


def with_others(resources: Resources, others: Replacements) -> Resources:
    """Return resources with others in place of those of the same types and names."""
    by_type = {**resources.by_type}
    for (type_url, name), one in others.items():
        if name in (before := by_type.get(type_url, _NOTHING)):
            by_type[type_url] = {**before, name: one}
    return Resources(by_type) if others else resources


def difference(old: Resources, new: Resources) -> dict[str, frozenset[str]]:
    """Return the names that were added, changed or removed, by type; a type without any is not
    listed."""
    found = {
        type_url: _differing(old.of_type(type_url), new.of_type(type_url))
        for type_url in old.by_type.keys() | new.by_type.keys()
    }
    return {type_url: names for type_url, names in found.items() if names}


def _differing(old: Mapping[str, Resource], new: Mapping[str, Resource]) -> frozenset[str]:
    if old is new:
        return frozenset()
    changed = {
        name
        for name, resource in new.items()
        if (before := old.get(name)) is not resource
        and (before is None or before.version != resource.version)
    }
    return frozenset(changed | (old.keys() - new.keys()))
