"""Services are those of the API server, with the endpoints that Kubernetes lists."""

from __future__ import annotations

import contextlib
from collections.abc import Generator

from tests.kube import manifests
from tests.kube.cluster import Cluster
from tests.kube.manifests import Object
from tests.kube.test_pods import IN_MESH, namespace, row
from tests.waiting import Missing

_UNPROBED = manifests.pod("server", "strict", "httpd", "-f", "-p", "8080", "-h", "/www")
"""kubelet's probes are no members of the mesh."""


def strict(name: str) -> Object:
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "PeerAuthentication",
        "metadata": {"name": "default", "namespace": name},
        "spec": {"mtls": {"mode": "STRICT"}},
    }


@contextlib.contextmanager
def taking_mutual_tls_only(cluster: Cluster, name: str) -> Generator[None]:
    cluster.mesh.apply(strict(name))
    try:
        yield
    finally:
        cluster.mesh.meshctl("delete", "peerauthentication", "default", "-n", name)


def answered(cluster: Cluster, space: str, client: str, url: str) -> bool | Missing:
    done = cluster.exec(space, client, "wget", "-qO-", url)
    return done.stdout == "hello\n" or Missing(done.stderr)


def address_of(cluster: Cluster, space: str, service: str) -> str:
    return cluster.get("service", "-n", space, service)["spec"]["clusterIP"]


def test_a_service_is_reached_by_mutual_tls_at_its_address_and_by_its_name(
    cluster: Cluster,
) -> None:
    """The server takes nothing else, and is in another namespace than its client."""
    objects = (_UNPROBED, manifests.service("server", "strict", 80, target=8080))
    client = manifests.pod("client", "buyers")
    with (
        namespace(cluster, "strict", *objects, **IN_MESH),
        namespace(cluster, "buyers", client, **IN_MESH),
        taking_mutual_tls_only(cluster, "strict"),
    ):
        cluster.running("strict", "server")
        cluster.running("buyers", "client")
        address = address_of(cluster, "strict", "server")
        for place in (address, "server.strict", "server.strict.svc.cluster.local"):
            url = f"http://{place}/"
            cluster.eventually(lambda u=url: answered(cluster, "buyers", "client", u), url)
        done = cluster.machine.run("curl", "-sS", "--max-time", "5", f"http://{address}/")
        assert (done.stdout, done.returncode == 0) == ("", False)


def test_the_api_server_is_reached_from_the_mesh(cluster: Cluster) -> None:
    """Its Service selects nothing; its endpoint is no workload."""
    with namespace(cluster, "curious", manifests.pod("client", "curious"), **IN_MESH):
        cluster.running("curious", "client")
        assert row(cluster, "client", "curious")["proven"]
        address = address_of(cluster, "default", "kubernetes")

        def refused() -> bool | Missing:
            url = f"https://{address}/version"
            done = cluster.exec("curious", "client", "wget", "-qO-", "--no-check-certificate", url)
            return "40" in done.stderr or "gitVersion" in done.stdout or Missing(done.stderr)

        cluster.eventually(refused, "it answers")


def test_a_pod_outside_the_mesh_is_reached_in_plaintext_by_its_service(cluster: Cluster) -> None:
    objects = (
        manifests.pod("server", "outside", port=8080),
        manifests.service("server", "outside", 80, target=8080),
    )
    client = manifests.pod("client", "inside")
    with (
        namespace(cluster, "outside", *objects),
        namespace(cluster, "inside", client, **IN_MESH),
    ):
        cluster.running("outside", "server")
        cluster.running("inside", "client")
        url = f"http://{address_of(cluster, 'outside', 'server')}/"
        cluster.eventually(lambda: answered(cluster, "inside", "client", url), "it answers")
