"""Retired kinds: their present names, and the translation of the one that still has a meaning.

authentication.istio.io/v1alpha1 ended with Istio 1.6:
https://istio.io/v1.4/docs/reference/config/security/istio.authentication.v1alpha1/
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final

from meshd.api.base import Key, ObjectMeta, WorkloadSelector
from meshd.api.decode import Path
from meshd.api.kubernetes.types import Service
from meshd.api.peer_authentication.types import (
    MutualTLS,
    MutualTLSMode,
    PeerAuthentication,
    PeerAuthenticationSpec,
)
from meshd.base.json_values import Json, JsonObject

ROOT_NAMESPACE: Final = "istio-system"
"""Where a policy is for the whole mesh."""

_GROUPS: Final = {
    "rbac.istio.io": "write an AuthorizationPolicy of security.istio.io/v1",
    "config.istio.io": "Mixer is gone; access control is an AuthorizationPolicy of "
    "security.istio.io/v1, metrics need no configuration",
    "authentication.istio.io": "write a PeerAuthentication of security.istio.io/v1",
}
_KINDS: Final = {
    "RouteRule": "write a VirtualService of networking.istio.io/v1",
    "DestinationPolicy": "write a DestinationRule of networking.istio.io/v1",
    "EgressRule": "write a ServiceEntry of networking.istio.io/v1",
    "HTTPAPISpec": "Mixer is gone, and nothing took its place",
    "HTTPAPISpecBinding": "Mixer is gone, and nothing took its place",
    "QuotaSpec": "Mixer is gone; limits of rates have no kind of their own any more",
    "QuotaSpecBinding": "Mixer is gone; limits of rates have no kind of their own any more",
}
"""Of ``config.istio.io``, whose kinds went different ways."""
_MOVED: Final = {
    ("extensions", "v1beta1", "Deployment"): "apps/v1",
    ("apps", "v1beta1", "Deployment"): "apps/v1",
    ("apps", "v1beta2", "Deployment"): "apps/v1",
    ("apps", "v1beta1", "StatefulSet"): "apps/v1",
    ("apps", "v1beta2", "StatefulSet"): "apps/v1",
    ("extensions", "v1beta1", "DaemonSet"): "apps/v1",
    ("apps", "v1beta2", "DaemonSet"): "apps/v1",
}


def successor(group: str, version: str, kind: str) -> str:
    """Return what replaces a retired kind or version; empty if it is not retired."""
    old = f"{group}/{version}"
    if moved := _MOVED.get((group, version, kind)):
        return f"{old} {kind} was retired; write apiVersion: {moved}"
    if hint := (group == "config.istio.io" and _KINDS.get(kind)) or _GROUPS.get(group):
        return f"{old} {kind} was retired: {hint}"
    return ""


def is_policy(api_version: str, kind: str) -> bool:
    """Return whether ``translate`` takes the kind."""
    return api_version == "authentication.istio.io/v1alpha1" and kind in {"Policy", "MeshPolicy"}


@dataclasses.dataclass(frozen=True, slots=True)
class Translation:
    """The present meaning of a policy, or why it has none."""

    policies: tuple[PeerAuthentication, ...] = ()
    errors: tuple[tuple[Path, str], ...] = ()


class _UntranslatableError(Exception):
    def __init__(self, path: Path, reason: str, kind: str = "PeerAuthentication") -> None:
        self.path = path
        self.reason = f"{reason}; write a {kind} of security.istio.io/v1"
        super().__init__(reason)


def translate(
    kind: str, meta: ObjectMeta, namespace: str, spec: Json, services: Mapping[Key, Service]
) -> Translation:
    """Return the PeerAuthentications that mean exactly what a Policy or MeshPolicy meant.

    ``services`` are those that the policy's targets may name.
    """
    try:
        written = _mapping(("spec",), spec or {})
        _nothing_lost(written)
        mode = _mode(written)
        targets = _list(("spec", "targets"), written.get("targets"))
        if kind == "MeshPolicy":
            if targets:
                raise _UntranslatableError(("spec", "targets"), "a MeshPolicy has no targets")
            return Translation((_policy(meta.name, ROOT_NAMESPACE, None, mode, ()),))
        if not targets:
            return Translation((_policy(meta.name, namespace, None, mode, ()),))
        policies: list[PeerAuthentication] = []
        for index, named in enumerate(targets):
            path = ("spec", "targets", index)
            target = _mapping(path, named)
            service, ports = _service(path, target, namespace, services)
            name = meta.name if len(targets) == 1 else f"{meta.name}-{service.metadata.name}"
            selector = WorkloadSelector(match_labels=service.spec.selector)
            policies.append(_policy(name, namespace, selector, mode, ports))
    except _UntranslatableError as error:
        return Translation(errors=((error.path, error.reason),))
    return Translation(tuple(policies))


def _policy(
    name: str,
    namespace: str,
    selector: WorkloadSelector | None,
    mode: MutualTLSMode,
    ports: tuple[int, ...],
) -> PeerAuthentication:
    mtls = MutualTLS(mode=mode)
    spec = PeerAuthenticationSpec(
        selector=selector,
        mtls=None if ports else mtls,
        port_level_mtls=dict.fromkeys(ports, mtls) if ports else None,
    )
    return PeerAuthentication(metadata=ObjectMeta(name=name, namespace=namespace), spec=spec)


def _nothing_lost(spec: JsonObject) -> None:
    for field, value in spec.items():
        if field in {"origins", "originIsOptional"} and value:
            reason = "checks of end users' tokens cannot be translated"
            raise _UntranslatableError(("spec", field), reason, "RequestAuthentication")
        if field == "principalBinding" and value == "USE_ORIGIN":
            raise _UntranslatableError(("spec", field), "USE_ORIGIN cannot be translated")
        if field not in _FIELDS:
            raise _UntranslatableError(("spec", field), "unknown field")


_FIELDS: Final = {
    "targets",
    "peers",
    "peerIsOptional",
    "origins",
    "originIsOptional",
    "principalBinding",
}


def _mode(spec: JsonObject) -> MutualTLSMode:
    peers = _list(("spec", "peers"), spec.get("peers"))
    if not peers:
        return "DISABLE"
    if len(peers) > 1:
        raise _UntranslatableError(("spec", "peers", 1), "several methods cannot be translated")
    path = ("spec", "peers", 0)
    peer = _mapping(path, peers[0])
    if "jwt" in peer:
        reason = "checks of tokens cannot be translated"
        raise _UntranslatableError(path, reason, "RequestAuthentication")
    if set(peer) != {"mtls"}:
        raise _UntranslatableError(path, "only the method mtls can be translated")
    mtls = _mapping((*path, "mtls"), peer["mtls"] or {})
    mode = mtls.get("mode", "STRICT")
    if mode not in {"STRICT", "PERMISSIVE"}:
        raise _UntranslatableError((*path, "mtls", "mode"), f"{mode} is not a mode")
    if mtls.get("allowTls"):
        raise _UntranslatableError((*path, "mtls", "allowTls"), "allowTls cannot be translated")
    return "PERMISSIVE" if mode == "PERMISSIVE" or spec.get("peerIsOptional") else "STRICT"


def _service(
    path: Path, target: JsonObject, namespace: str, services: Mapping[Key, Service]
) -> tuple[Service, tuple[int, ...]]:
    """Return the service that a target names, and the workloads' ports that it is limited to."""
    name = str(target.get("name", ""))
    service = services.get(Key("Service", namespace, name))
    if service is None:
        reason = f"Service {namespace}/{name} is not known, so its workloads cannot be selected"
        raise _UntranslatableError((*path, "name"), reason)
    if not service.spec.selector:
        reason = f"Service {namespace}/{name} has no selector, so its workloads are not known"
        raise _UntranslatableError((*path, "name"), reason)
    if target.get("labels"):
        raise _UntranslatableError((*path, "labels"), "labels of a target cannot be translated")
    wanted = _list((*path, "ports"), target.get("ports"))
    return service, tuple(
        _workload_port((*path, "ports", index), _mapping((*path, "ports", index), port), service)
        for index, port in enumerate(wanted)
    )


def _workload_port(path: Path, wanted: JsonObject, service: Service) -> int:
    for port in service.spec.ports:
        if wanted.get("number") == port.port or (port.name and wanted.get("name") == port.name):
            if isinstance(port.target_port, str):
                raise _UntranslatableError(path, f'its targetPort "{port.target_port}" is a name')
            return port.target_port or port.port
    raise _UntranslatableError(path, f"Service {service.metadata.name} has no such port")


def _mapping(path: Path, value: Json) -> JsonObject:
    if not isinstance(value, dict):
        raise _UntranslatableError(path, "expected a mapping")
    return value


def _list(path: Path, value: Json) -> list[Json]:
    if not value:
        return []
    if not isinstance(value, list):
        raise _UntranslatableError(path, "expected a list")
    return value
