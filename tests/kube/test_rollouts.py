"""What changes in a cluster costs nobody a request."""

from __future__ import annotations

from typing import Any

from tests.kube import manifests
from tests.kube.cluster import Cluster
from tests.kube.test_pods import IN_MESH, namespace
from tests.kube.test_services import answered
from tests.waiting import Missing

_ASKING = """
while [ ! -e /stop ]; do
  if wget -qO /dev/null http://web/; then echo ok; else echo failed; fi
done
echo end
sleep 2147483647
"""


def deployment(version: str) -> manifests.Object:
    """Pods that are sent requests for as long as it takes until nobody sends them any more."""
    pod = manifests.pod("web", "rolling", port=8080)
    (container,) = pod["spec"]["containers"]
    container["lifecycle"] = {"preStop": {"exec": {"command": ["sleep", "3"]}}}
    container["env"] = [{"name": "VERSION", "value": version}]
    template = {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 10},
    }
    rolling = {"maxSurge": 1, "maxUnavailable": 0}
    spec: dict[str, Any] = {
        "replicas": 3,
        "selector": {"matchLabels": {"app": "web"}},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": rolling},
        "template": template,
    }
    meta = {"name": "web", "namespace": "rolling"}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec}


def test_a_rolling_update_under_load_loses_no_request(cluster: Cluster) -> None:
    client = manifests.pod("client", "rolling", "sh", "-c", _ASKING)
    service = manifests.service("web", "rolling", 80, target=8080)

    def rolled_out() -> None:
        status = ("rollout", "status", "deployment/web", "-n", "rolling", "--timeout=60s")
        cluster.ask(*status)

    def counts() -> tuple[int, int]:
        lines = cluster.ask("logs", "-n", "rolling", "client").splitlines()
        return lines.count("ok"), lines.count("failed")

    with namespace(cluster, "rolling", service, deployment("1"), **IN_MESH):
        rolled_out()
        idle = manifests.pod("waiting", "rolling")
        cluster.apply(idle)
        cluster.running("rolling", "waiting")
        cluster.eventually(
            lambda: answered(cluster, "rolling", "waiting", "http://web/"), "the mesh serves it"
        )
        cluster.apply(client)
        cluster.running("rolling", "client")
        cluster.eventually(lambda: counts()[0] > 20 or Missing(str(counts())), "requests")
        before = counts()
        cluster.apply(deployment("2"))
        rolled_out()
        during = counts()
        cluster.eventually(lambda: counts()[0] > during[0] + 20, "requests after it")
        cluster.exec("rolling", "client", "touch", "/stop")
        good, failed = counts()
        assert during[0] > before[0]
        assert failed == 0, f"{failed} of {good + failed} failed"
