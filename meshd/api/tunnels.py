"""What a Service or a ServiceEntry says of tunnels between nodes. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from meshd.api.base import ObjectMeta
from meshd.api.checks import Report

ANNOTATION: Final = "meshd.io/tunnels"
"""Of a Service or a ServiceEntry: "true" says that clients end its connections, and not servers."""


def suits_tunnels(annotations: Mapping[str, str]) -> bool:
    """Return whether a service says that its connections may be carried by tunnels."""
    return annotations.get(ANNOTATION) == "true"


def check_tunnels(report: Report, meta: ObjectMeta) -> None:
    text = meta.annotations.get(ANNOTATION)
    if text not in {None, "true", "false"}:
        message = f'"{text}" is neither true nor false: no connection is carried by a tunnel'
        report.warning(("metadata", "annotations", ANNOTATION), message)
