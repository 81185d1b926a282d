"""The cluster itself: what the other tests rely on."""

from __future__ import annotations

from tests.kube import manifests
from tests.kube.cluster import Cluster


def test_a_pod_is_reached_by_its_service(cluster: Cluster) -> None:
    cluster.apply(
        manifests.namespace("plain"),
        manifests.pod("server", "plain", port=8080),
        manifests.pod("client", "plain"),
        manifests.service("server", "plain", 80, target=8080),
    )
    address = cluster.get("service", "-n", "plain", "server")["spec"]["clusterIP"]
    cluster.running("plain", "server")
    cluster.running("plain", "client")

    def answered() -> bool:
        done = cluster.exec("plain", "client", "wget", "-qO-", f"http://{address}")
        return done.stdout == "hello\n"

    cluster.eventually(answered, "kube-proxy leads to the pod")
    assert cluster.ask("logs", "-n", "plain", "client") == ""
    cluster.ask("delete", "namespace", "plain", "--wait=false")
