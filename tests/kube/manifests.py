"""Objects of Kubernetes, as the tests write them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests.containers import images

Object = dict[str, Any]


def namespace(name: str, labels: Mapping[str, str] | None = None) -> Object:
    return _object("v1", "Namespace", name, "", labels)


def account(name: str, namespace: str) -> Object:
    return _object("v1", "ServiceAccount", name, namespace)


def pod(
    name: str,
    namespace: str,
    *command: str,
    labels: Mapping[str, str] | None = None,
    port: int = 0,
    **spec: Any,
) -> Object:
    """Return a pod of one container; without a command it serves ``hello`` at ``port``, or does
    nothing for ever."""
    serving = ("httpd", "-f", "-p", str(port), "-h", "/www")
    words = command or (serving if port else ("sleep", "2147483647"))
    container: Object = {
        "name": "it",
        "image": images.BOX,
        "imagePullPolicy": "Never",
        "command": list(words),
    }
    if port:
        container["ports"] = [{"name": "http", "containerPort": port}]
        container["readinessProbe"] = {
            "httpGet": {"path": "/", "port": port},
            "periodSeconds": 1,
        }
    made = _object("v1", "Pod", name, namespace, {"app": name, **(labels or {})})
    return made | {"spec": {"containers": [container], "terminationGracePeriodSeconds": 0, **spec}}


def service(
    name: str, namespace: str, port: int, *, target: int | None = None, **spec: Any
) -> Object:
    ports = [{"name": "http", "port": port, "targetPort": target or port}]
    made = _object("v1", "Service", name, namespace)
    return made | {"spec": {"selector": {"app": name}, "ports": ports, **spec}}


def _object(
    version: str, kind: str, name: str, namespace: str, labels: Mapping[str, str] | None = None
) -> Object:
    meta: Object = {"name": name}
    if namespace:
        meta["namespace"] = namespace
    if labels:
        meta["labels"] = dict(labels)
    return {"apiVersion": version, "kind": kind, "metadata": meta}


def named(objects: Sequence[Object]) -> list[str]:
    """Return the objects as kubectl names them."""
    return [f"{one['kind'].lower()}/{one['metadata']['name']}" for one in objects]
