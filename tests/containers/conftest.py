"""The machine with a container runtime that all tests in here share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from tests.containers.runtime import Runtime
from tests.node.daemon import DEFAULTS

MESH = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "mesh"}}
LABELED = {"labels": {"istio.io/dataplane-mode": "ambient"}}
STRICT = {
    "apiVersion": "security.istio.io/v1",
    "kind": "PeerAuthentication",
    "metadata": {"name": "default", "namespace": "mesh"},
    "spec": {"mtls": {"mode": "STRICT"}},
}


@pytest.fixture(scope="session")
def runtime() -> Iterator[Runtime]:
    """A runtime with meshd, whose containers are in namespace ``mesh``, which takes mutual TLS
    only. Leave it as you found it."""
    settings = {"kubernetes": {"enabled": True, "container_namespace": "mesh"}}
    made = Runtime(DEFAULTS | settings)
    with contextlib.closing(made):
        made.start()
        made.mesh.start()
        made.mesh.apply(MESH | {"metadata": MESH["metadata"] | LABELED}, STRICT)  # type: ignore[operator]
        yield made
