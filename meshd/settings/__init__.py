"""Frozen ``Settings`` from etc/meshd.yaml, and the paths of meshd's files."""

from __future__ import annotations

from meshd.settings.paths import Paths
from meshd.settings.sections import (
    CaptureSettings,
    ControlSettings,
    IdentitySettings,
    IssuerSettings,
    KubernetesSettings,
    LogSettings,
    MeshSettings,
    ProxySettings,
    TelemetrySettings,
)
from meshd.settings.settings import Settings, load

__all__ = [
    "CaptureSettings",
    "ControlSettings",
    "IdentitySettings",
    "IssuerSettings",
    "KubernetesSettings",
    "LogSettings",
    "MeshSettings",
    "Paths",
    "ProxySettings",
    "Settings",
    "TelemetrySettings",
    "load",
]
