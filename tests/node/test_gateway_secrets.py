"""Secrets of gateways: the pods and Secrets are in istio-system, networking objects in default,
workloads in mesh. Two tenants share a port, and what one does costs the other nothing."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.node.certificates import certificate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.node.node import Node

TENANT = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: NAME, namespace: default}
spec:
  selector: {istio: shared}
  servers:
  - port: {number: 443, name: https, protocol: HTTPS}
    hosts: [NAME.test]
    tls: {mode: SIMPLE, credentialName: NAME}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: NAME, namespace: default}
spec:
  hosts: [NAME.test]
  gateways: [NAME]
  http: [{route: [{destination: {host: server.mesh.svc.cluster.local, port: {number: 80}}}]}]
---
"""


class Tenants:
    """Who has hosts on the shared gateway."""

    def __init__(self, node: Node, directory: Path, address: str) -> None:
        self.node, self._directory, self._address = node, directory, address

    def secret(
        self,
        name: str,
        namespace: str = "istio-system",
        key_of: str = "",
        entries: tuple[str, str] = ("cert", "key"),
    ) -> str:
        """With another one's key, if that is said. Its certificate is in the pods' images."""
        key, signed = certificate(self._directory, (key_of or name) + ".test")
        if key_of:
            signed = self._directory / f"{name}.test.crt"
        else:
            (self.node.images / signed.name).write_bytes(signed.read_bytes())
        files = zip(entries, (signed, key), strict=True)
        data = {entry: base64.b64encode(file.read_bytes()).decode() for entry, file in files}
        metadata = {"name": name, "namespace": namespace}
        found = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data}
        return json.dumps(found) + "\n---\n"

    def is_served(self, name: str) -> bool:
        """By its own certificate."""
        done = self.node.curl(
            "stranger.outside",
            *("--cacert", f"/srv/app/{name}.test.crt", "-m", "5"),
            *("--resolve", f"{name}.test:443:{self._address}", f"https://{name}.test/who"),
        )
        return done.status == 0 and done.json()["pod"].startswith("server")

    def problems(self) -> str:
        return "\n".join(self.node.statuses().problems)


@pytest.fixture(scope="module")
def tenants(node: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tenants]:
    write = node.write
    pod = write.deployment("shared", "istio-system", labels={"istio": "shared"})
    node.up(write.dump(write.namespace("istio-system", enrolled=True), pod))
    address = node.pod("shared.istio-system").plan.address
    yield Tenants(node, tmp_path_factory.mktemp("tenants"), address)
    node.up(write.dump(pod | {"spec": pod["spec"] | {"replicas": 0}}))
    node.eventually(node.is_well, "all is well again")


def tenant(name: str) -> str:
    return TENANT.replace("NAME", name)


def test_a_secret_is_the_one_beside_the_gateways_pod(tenants: Tenants) -> None:
    """Not the one of that name beside the object."""
    decoy = tenants.secret("good", "default")
    own = tenants.secret("good")
    with tenants.node.applied(decoy + own + tenant("good")):
        tenants.node.eventually(lambda: tenants.is_served("good"), "the gateway serves its own")
    with tenants.node.applied(decoy + tenant("good")):
        tenants.node.eventually(
            lambda: "Secret istio-system/good" in tenants.problems(), "it is said what is missing"
        )
        tenants.node.eventually(lambda: not tenants.is_served("good"), "it is not served any more")


def test_a_bad_secret_costs_its_own_host_only(tenants: Tenants) -> None:
    """One that is missing and one without what its server needs, whichever tenant comes first."""
    node = tenants.node
    bad = tenants.secret("bad", entries=("cacert", "other")) + tenant("bad") + tenant("missing")
    with node.applied(tenants.secret("first") + tenant("first")):
        node.eventually(lambda: tenants.is_served("first"), "the first tenant is served")
        try:
            for _ in range(2):  # again when it is there already
                done = node.meshctl("apply", "-f", "-", "--wait", text=bad)
                assert done.status == 1
                assert "not in force: Gateway default/bad: server https" in done.errors
                assert "Secret istio-system/bad: it has no tls.crt" in done.errors
            assert tenants.is_served("first")
            later = tenants.secret("later")
            done = node.meshctl("apply", "-f", "-", "--wait", text=later + tenant("later"))
            assert done.status == 0, done.errors
            node.eventually(lambda: tenants.is_served("later"), "a later tenant is served")
            node.apply(later + tenant("later"), delete=True)
            node.meshctl("proxies", "replace")
            assert "Secret istio-system/bad: it has no tls.crt" in tenants.problems()
            assert "Secret istio-system/missing" in tenants.problems()
            assert tenants.is_served("first")
        finally:
            node.apply(bad, delete=True)


def test_a_key_that_does_not_fit_is_refused(tenants: Tenants) -> None:
    """And what was good stays in force."""
    node = tenants.node
    with node.applied(tenants.secret("fit") + tenant("fit")):
        node.eventually(lambda: tenants.is_served("fit"), "the tenant is served")
        for entries in (("tls.crt", "tls.key"), ("cert", "key")):
            wrong = tenants.secret("fit", key_of="other", entries=entries)
            done = node.meshctl("apply", "-f", "-", text=wrong)
            assert done.status == 1
            assert "private key does not belong to its certificate" in done.errors
        assert tenants.is_served("fit")


def test_a_deleted_secret_is_served_no_longer(tenants: Tenants) -> None:
    node = tenants.node
    gone = tenants.secret("gone")
    with node.applied(tenants.secret("stays") + tenant("stays") + gone + tenant("gone")):
        node.eventually(lambda: tenants.is_served("gone"), "both tenants are served")
        done = node.meshctl("delete", "secret", "gone", "-n", "istio-system", "--wait")
        try:
            assert "is in use: Gateway default/gone" in done.errors
            node.eventually(lambda: not tenants.is_served("gone"), "it is not served any more")
            assert tenants.is_served("stays")
        finally:
            node.apply(gone)
        node.eventually(lambda: tenants.is_served("gone"), "it is served again")
