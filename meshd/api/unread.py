"""Kinds of other APIs that manifests contain beside those that are read. Pure."""

from __future__ import annotations

from typing import Final

MEANINGLESS: Final = {
    "ClusterRole",
    "ClusterRoleBinding",
    "CronJob",
    "CustomResourceDefinition",
    "EndpointSlice",
    "Endpoints",
    "HorizontalPodAutoscaler",
    "Ingress",
    "IngressClass",
    "Job",
    "LimitRange",
    "NetworkPolicy",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "PodDisruptionBudget",
    "ResourceQuota",
    "Role",
    "RoleBinding",
    "StorageClass",
}
"""Kubernetes' kinds that many manifests have, and that mean nothing to a mesh."""
NOT_READ: Final = {
    "EnvoyFilter",
    "ProxyConfig",
    "Sidecar",
    "Telemetry",
    "WasmPlugin",
}
"""Istio's other kinds: known by name, so that nobody looks for a typing error."""
