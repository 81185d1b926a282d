"""Manifests, and those that the shared node has."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import yaml

SERVER_PORTS = (
    ("http-web", 80, 8080),
    ("grpc", 90, 9090),
    ("tcp-first", 91, 9000),
    ("a", 70, 7000),
    ("b", 71, 7001),
    ("c", 72, 9090),
)


class Write:
    """Manifests, as few words as will do."""

    @staticmethod
    def manifest(kind: str, name: str, namespace: str, **fields: Any) -> dict[str, Any]:
        versions = {"Deployment": "apps/v1"}
        metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
        metadata |= fields.pop("metadata", {})
        return {"apiVersion": versions.get(kind, "v1"), "kind": kind, "metadata": metadata} | fields

    @staticmethod
    def namespace(name: str, *, enrolled: bool) -> dict[str, Any]:
        labels = {"istio.io/dataplane-mode": "ambient"} if enrolled else {}
        return Write.manifest("Namespace", name, "", metadata={"labels": labels})

    @staticmethod
    def deployment(
        name: str,
        space: str = "mesh",
        *,
        program: str = "",
        labels: dict[str, str] | None = None,
        replicas: int = 1,
        ready: int = 0,
    ) -> dict[str, Any]:
        """A pod of its own service account. ``program`` of apps/; none: a client."""
        container: dict[str, Any] = {"name": "main", "image": "app"}
        if program:
            container["command"] = [sys.executable, "-u", f"/srv/app/{program}"]
        if ready:
            container["readinessProbe"] = {"tcpSocket": {"port": ready}, "periodSeconds": 1}
        own = {"app": name} | (labels or {})
        spec = {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": own},
                "spec": {"serviceAccountName": name, "containers": [container]},
            },
        }
        return Write.manifest("Deployment", name, space, spec=spec)

    @staticmethod
    def service(
        name: str,
        space: str = "mesh",
        *,
        app: str = "",
        headless: bool = False,
        annotations: Mapping[str, str] = MappingProxyType({}),
        ports: tuple[tuple[str, int, int], ...] = SERVER_PORTS,
    ) -> dict[str, Any]:
        spec: dict[str, Any] = {
            "selector": {"app": app or name},
            "ports": [{"name": n, "port": p, "targetPort": t} for n, p, t in ports],
        }
        if headless:
            spec["clusterIP"] = "None"
        said: dict[str, Any] = (
            {"metadata": {"annotations": dict(annotations)}} if annotations else {}
        )
        return Write.manifest("Service", name, space, spec=spec, **said)

    @staticmethod
    def dump(*objects: dict[str, Any]) -> str:
        return yaml.safe_dump_all(objects)


POPULATION = [
    Write.namespace("mesh", enrolled=True),
    Write.namespace("outside", enrolled=False),
    Write.deployment("server", program="server.py", ready=8080),
    Write.service("server"),
    Write.service(
        "bare",
        app="server",
        headless=True,
        ports=(("http-web", 8080, 8080), ("tcp-first", 9000, 9000)),
    ),
    *(Write.deployment(name) for name in ("alice", "bob", "carol")),
    Write.deployment("stranger", "outside"),
    Write.deployment("external", "outside", program="server.py", ready=8080),
]
"""A server, three clients of service accounts of their own, and two pods outside the mesh."""
