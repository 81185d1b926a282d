"""Withholds objects from being in force, and replaces them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Final, TypeVar

import msgspec

from meshd.api import kinds
from meshd.api.authorization_policy.types import AuthorizationPolicy
from meshd.api.base import Key, Object, ObjectMeta, WorkloadSelector
from meshd.api.checks import host_problem
from meshd.api.damaged import readable_items
from meshd.api.destination_rule.types import DestinationRule, DestinationRuleSpec
from meshd.api.gateway.types import MESH
from meshd.api.kubernetes.types import Service
from meshd.api.peer_authentication.types import PeerAuthentication
from meshd.api.read import label_problem, subdomain_problem
from meshd.api.request_authentication.types import RequestAuthentication
from meshd.api.service_entry.types import ServiceEntry, WorkloadEntry
from meshd.api.virtual_service.types import VirtualService, VirtualServiceSpec
from meshd.api.write import to_json
from meshd.base.errors import UNDECODABLE
from meshd.base.json_values import Json, JsonObject, mapping_at, mapping_in, value_at
from meshd.config.policy_digest import DIGEST, NOT_IN_FORCE
from meshd.model.closed_authentication import ClosedAuthentication
from meshd.model.closed_authorization import ClosedAuthorization
from meshd.model.closed_policy import ClosedPolicy
from meshd.model.closed_routes import ClosedRoutes
from meshd.model.closed_rule import ClosedRule
from meshd.model.closed_services import ClosedEntry, ClosedService
from meshd.model.closed_workload import ClosedWorkload

Replacement = ClosedPolicy | ClosedAuthorization | ClosedAuthentication
"""The replacements of policies, which are objects in force."""
POLICIES: Final[Mapping[str, type[Replacement]]] = {
    PeerAuthentication.KIND: ClosedPolicy,
    AuthorizationPolicy.KIND: ClosedAuthorization,
    RequestAuthentication.KIND: ClosedAuthentication,
}
"""The kinds of policies about who may come in, and how each is replaced by its name alone."""
Closed = ClosedRule | ClosedRoutes | ClosedEntry | ClosedService | ClosedWorkload
"""The replacements of objects that have hosts, or an address, and are not in force."""
T = TypeVar("T")
WITH_PLACES: Final = frozenset(
    {
        DestinationRule.KIND,
        VirtualService.KIND,
        ServiceEntry.KIND,
        Service.KIND,
        WorkloadEntry.KIND,
    }
)
"""The kinds of objects that are about hosts or an address."""

_NO_TEXT: Final = "publishNotReadyAddresses"
"""A field of a Service that is no text, and that tells nothing of what is closed."""
_PORT_NUMBER: Final = {ServiceEntry.KIND: "number", Service.KIND: "port"}


def without(objects: Mapping[Key, Object], why: Callable[[Object], str]) -> dict[Key, Object]:
    """Return the objects in force; ``why`` returns an empty text for objects that stay.

    A PeerAuthentication may be all that requires mutual TLS in its namespace, so it is replaced by
    one that requires mutual TLS in the whole namespace; an AuthorizationPolicy by one that denies
    everything there, and a RequestAuthentication by one with which no request is taken there.
    Withheld objects of other kinds are left out; ``closed`` keeps their hosts and addresses from
    being reached without them.
    """
    return {
        key: found
        for key, one in objects.items()
        if (found := in_place_of_object(one) if why(one) else one) is not None
    }


def closed(whole: Mapping[Key, Object], left: Mapping[Key, Object]) -> tuple[Closed, ...]:
    """Return a closed object for each object of ``whole`` that has hosts, or an address, and is not
    in ``left``."""
    found = (closed_object(one) for key, one in whole.items() if key not in left)
    return tuple(one for one in found if one is not None)


def closed_object(found: Object, *, cut: bool = False) -> Closed | None:
    """Return an object whose hosts or address are refused; None if it has none. ``cut``: a part of
    the object could not be read.
    """
    match found:
        case DestinationRule():
            return ClosedRule.of(found)
        case VirtualService():
            return ClosedRoutes.of(found, cut=cut)
        case ServiceEntry():
            return ClosedEntry.of(found, cut=cut)
        case Service():
            return ClosedService.of(found, cut=cut)
        case WorkloadEntry():
            return ClosedWorkload.of(found)
        case _:
            return None


def closed_value(value: Json) -> Closed | None:
    """Return a closed object for one that cannot be used, as far as it says what it is about; None
    if it does not.

    ``value`` is the object as plain values, which nobody has judged. Of what cannot be read whole,
    all clients, protocols and usual ports are closed that may have been in what is missing.
    """
    known = _converted(value, _Kind)
    kind = kinds.find_kind(known.api_version.rpartition("/")[0], known.kind) if known else None
    if known is None or kind is None:
        return None
    if kind is DestinationRule:
        return about(value)
    meta = known.metadata
    if label_problem(meta.namespace) or subdomain_problem(meta.name):
        return None
    part = _readable(value, kind)
    if part is None:
        return None
    closed = closed_object(_widened(*part), cut=bool(part[1]))
    if isinstance(closed, ClosedEntry | ClosedRoutes) and not closed.spec.hosts:
        is_delegate = isinstance(closed, ClosedRoutes) and not value_at(value, "spec", "hosts")
        return closed if is_delegate else None
    return closed


def unusable_json(closed: Object, digest: str = "") -> JsonObject:
    """Return the JSON of a closed object in a form that no node takes.

    A node that has a version of the object from before keeps that one, unless it is a policy and
    ``digest``, if given, is that of another one; any other node closes what the object is about, or
    the namespace of a policy. If nothing were told, its traffic would pass as if there were none.
    """
    value = to_json(closed)
    # Unknown fields of Kubernetes' own kinds are ignored.
    wrong: JsonObject = {_NO_TEXT: NOT_IN_FORCE} if isinstance(closed, Service) else {}
    if digest:
        wrong = {DIGEST: digest}
    return {**value, "spec": {**mapping_at(value, "spec"), NOT_IN_FORCE: True, **wrong}}


def is_unknown(value: Json) -> bool:
    """Return whether an object that cannot be used has hosts or an address, and does not say which
    ones."""
    known = _converted(value, _OfKind)
    if known is None or known.kind not in WITH_PLACES:
        return False
    if known.kind == WorkloadEntry.KIND and _has_no_ip_address(value):
        return False
    group = known.api_version.rpartition("/")[0] if isinstance(known.api_version, str) else None
    is_ours = group is None or kinds.find_kind(group, known.kind) is not None
    return is_ours and closed_value(value) is None


def key_of(value: Json) -> Key | None:
    """Return the key of an object that was not validated; None if the object does not say it."""
    named = _converted(value, _Named)
    return named and Key(named.kind, named.metadata.namespace, named.metadata.name)


def is_lost(value: Json) -> bool:
    """Return whether an object that cannot be used may have closed something, without saying
    what."""
    if (key := key_of(value)) is None:
        return True
    if key.kind in POLICIES:
        return in_place_of(key.kind, key.namespace, key.name) is None
    return is_unknown(value) or _hides_ports(key.kind, value)


def _has_no_ip_address(value: Json) -> bool:
    """Return whether a WorkloadEntry says that it has a host name, a unix socket, or a network
    alone."""
    address, network = (value_at(value, "spec", field) for field in ("address", "network"))
    if not address and isinstance(network, str | None) and isinstance(address, str | None):
        return bool(network)
    return isinstance(address, str) and (
        address.startswith("unix:") or not host_problem(address, wildcard=False)
    )


def _hides_ports(kind: str, value: Json) -> bool:
    """Return whether a service has a port without a number that can be read."""
    field = _PORT_NUMBER.get(kind, "")
    ports = value_at(value, "spec", "ports") if field else None
    if ports is None:
        return False
    if not isinstance(ports, list):
        return True
    numbers = (one.get(field) if isinstance(one, dict) else None for one in ports)
    return not all(isinstance(one, int) and not isinstance(one, bool) for one in numbers)


def _readable(value: Json, kind: type[Object]) -> tuple[Object, frozenset[str]] | None:
    """Return what can be read of an object, and the fields of which something is missing."""
    written = value_at(value, "spec")
    if not isinstance(written, dict) and kind is not Service:
        return None
    spec = {
        key: part
        for key, part in mapping_in(written).items()
        if key != NOT_IN_FORCE and (key, part) != (_NO_TEXT, NOT_IN_FORCE)
    }
    nameless = False
    if kind is ServiceEntry and isinstance(ports := spec.get("ports"), list):
        spec["ports"] = [_named_port(port) for port in ports]
        nameless = spec["ports"] != ports
    part = readable_items({"metadata": value_at(value, "metadata"), "spec": spec}, kind)
    if part is None:
        return None
    fields = {"ports"} if nameless else set[str]()
    if not isinstance(written, dict):
        fields.add("spec")
    return part[0], part[1] | fields


def _named_port(port: Json) -> Json:
    """Return a port that can be read by its number alone."""
    if isinstance(port, dict) and not isinstance(port.get("name"), str):
        return {**port, "name": "unknown"}
    return port


def _widened(found: Object, cut: Collection[str]) -> Object:
    """Return the object for all clients that it may have been for."""
    if not isinstance(found, VirtualService | ServiceEntry):
        return found
    spec = found.spec
    export_to = () if "exportTo" in cut else _shown_to(spec.export_to)
    spec = msgspec.structs.replace(spec, export_to=export_to)
    if isinstance(spec, VirtualServiceSpec) and "gateways" in cut:
        gateways = tuple(dict.fromkeys((MESH, *spec.gateways)))
        spec = msgspec.structs.replace(spec, gateways=gateways)
    return msgspec.structs.replace(found, spec=spec)


def _shown_to(export_to: tuple[str, ...]) -> tuple[str, ...]:
    """Return the namespaces; none, which is all, if it cannot be told what one of them is."""
    known = (one in {".", "*", "~"} or not label_problem(one.lower()) for one in export_to)
    return export_to if all(known) else ()


def about(value: Json) -> ClosedRule | None:
    """Return a closed rule in place of a DestinationRule that cannot be used.

    ``value``: the rule as plain values, not validated. None if it does not tell what it is about. A
    rule that does not tell its clients holds for all of them.
    """
    known = _converted(value, _Rule)
    if known is None or host_problem(known.spec.host.lower(), wildcard=True):
        return None
    meta, spec = known.metadata, known.spec
    if label_problem(meta.namespace) or subdomain_problem(meta.name):
        return None
    whole = DestinationRuleSpec(
        host=spec.host,
        export_to=_shown_to(_converted(spec.export_to, tuple[str, ...]) or ()),
        workload_selector=_converted(spec.workload_selector, WorkloadSelector),
    )
    return ClosedRule(metadata=ObjectMeta(name=meta.name, namespace=meta.namespace), spec=whole)


def _converted(value: Json, wanted: type[T]) -> T | None:
    try:
        return msgspec.convert(value, wanted)
    except UNDECODABLE:
        return None


class _Name(msgspec.Struct, frozen=True):
    name: str
    namespace: str


class _Kind(msgspec.Struct, frozen=True, rename="camel"):
    """The part of an object that tells its kind and name."""

    api_version: str
    kind: str
    metadata: _Name


class _NameOnly(msgspec.Struct, frozen=True):
    name: str
    namespace: str = ""


class _Named(msgspec.Struct, frozen=True):
    """The part of an object that identifies it, whatever its version."""

    kind: str
    metadata: _NameOnly


class _OfKind(msgspec.Struct, frozen=True, rename="camel"):
    kind: str
    api_version: Json = None


class _About(msgspec.Struct, frozen=True, rename="camel"):
    host: str
    export_to: Json = None
    workload_selector: Json = None


class _Rule(msgspec.Struct, frozen=True):
    """The part of a DestinationRule that tells its name, host and clients."""

    metadata: _Name
    spec: _About


def in_place_of(kind: str, namespace: str, name: str) -> Replacement | None:
    """Return the replacement of an object of which only kind and name are known; None: none."""
    if kind not in POLICIES or label_problem(namespace) or subdomain_problem(name):
        return None
    return POLICIES[kind].named(namespace, name)


def in_place_of_object(found: Object) -> Replacement | None:
    """Return the replacement of an object; None if there is none."""
    meta = found.metadata
    return in_place_of(found.KIND, meta.namespace, meta.name)
