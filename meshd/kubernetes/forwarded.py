"""Objects of the API server that are handed on as they are, but for what meshd never reads."""

from __future__ import annotations

from typing import Final

from meshd.base.json_values import JsonObject
from meshd.kubernetes.objects import Followed, Meta

ABOUT_THE_MESH: Final = ("meshd.io/", "istio.io/")
"""Parts of the annotations that are read; all others may be as long as they like."""


def read_annotations(meta: Meta) -> dict[str, str]:
    """Return the annotations that are read."""
    return {
        key: value
        for key, value in meta.annotations.items()
        if any(part in key for part in ABOUT_THE_MESH)
    }


class Forwarded(Followed, frozen=True):
    spec: JsonObject = {}

    def value(self, api_version: str, kind: str) -> JsonObject:
        """Return the object as ``kubectl get -o json`` has it, without its status."""
        meta = self.metadata
        metadata: JsonObject = {"name": meta.name, "labels": {**meta.labels}}
        metadata["annotations"] = {**read_annotations(meta)}
        if meta.namespace:
            metadata["namespace"] = meta.namespace
        if meta.creation_timestamp:
            metadata["creationTimestamp"] = meta.creation_timestamp
        head: JsonObject = {"apiVersion": api_version, "kind": kind, "metadata": metadata}
        return {**head, "spec": self.spec} if self.spec else head
