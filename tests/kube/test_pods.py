"""Pods of kubelet are in the mesh before their first process starts, as whoever they are."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Any

from tests.kube import manifests
from tests.kube.cluster import CHAIN, NET_D, Cluster
from tests.kube.manifests import Object
from tests.waiting import Missing

IN_MESH = {"istio.io/dataplane-mode": "ambient"}


@contextlib.contextmanager
def namespace(cluster: Cluster, name: str, *objects: Object, **labels: str) -> Generator[None]:
    """Within the block there is a namespace with these objects."""
    cluster.apply(manifests.namespace(name, labels))
    cluster.eventually(
        lambda: cluster.kubectl("get", "sa", "default", "-n", name).returncode == 0, "an account"
    )
    if objects:
        cluster.apply(*objects)
    try:
        yield
    finally:
        cluster.ask("delete", "namespace", name, "--wait=false")
        cluster.ask("delete", "pods", "--all", "-n", name, "--force", "--grace-period=0")


def row(cluster: Cluster, name: str, space: str) -> dict[str, Any]:
    rows = cluster.mesh.rows()
    return next((one for one in rows if one["uid"] == f"{space}.{name}"), {})


def test_a_pod_is_captured_under_its_own_account_before_it_starts(cluster: Cluster) -> None:
    """The pod's first process looks whether its traffic is redirected yet."""
    looks = "cat /proc/net/ip_tables_names /proc/net/route; exec sleep 2147483647"
    objects = (
        manifests.account("buyer", "shop"),
        manifests.pod("web", "shop", "sh", "-c", looks, serviceAccountName="buyer"),
    )
    with namespace(cluster, "shop", *objects, **IN_MESH):
        cluster.running("shop", "web")
        found = row(cluster, "web", "shop")
        assert found["proven"]
        assert found["service_account"] == "buyer"
        assert "nat" in cluster.ask("logs", "-n", "shop", "web")


def test_a_pod_outside_the_mesh_is_left_alone_until_its_namespace_joins(cluster: Cluster) -> None:
    with namespace(cluster, "later", manifests.pod("web", "later")):
        cluster.running("later", "web")
        found = row(cluster, "web", "later")
        assert (found["enrolled"], found["captured"]) == (False, False)
        started = cluster.running("later", "web")["status"]["startTime"]
        cluster.ask("label", "namespace", "later", "istio.io/dataplane-mode=ambient")
        cluster.eventually(
            lambda: row(cluster, "web", "later").get("proven") or Missing("not proven"),
            "it is in the mesh",
        )
        cluster.ask("label", "namespace", "later", "istio.io/dataplane-mode-")
        cluster.eventually(
            lambda: not row(cluster, "web", "later").get("captured"), "it is out again"
        )
        pod = cluster.running("later", "web")
        assert pod["status"]["startTime"] == started
        assert pod["status"]["containerStatuses"][0]["restartCount"] == 0


def test_a_pod_stays_out_by_its_own_label(cluster: Cluster) -> None:
    out = manifests.pod("out", "mixed", labels={"istio.io/dataplane-mode": "none"})
    with namespace(cluster, "mixed", out, manifests.pod("member", "mixed"), **IN_MESH):
        for name in ("out", "member"):
            cluster.running("mixed", name)
        assert not row(cluster, "out", "mixed")["enrolled"]
        assert row(cluster, "member", "mixed")["proven"]
        cluster.ask("label", "pod", "-n", "mixed", "out", "istio.io/dataplane-mode-")
        cluster.eventually(lambda: row(cluster, "out", "mixed").get("proven"), "it has joined")


def test_a_deleted_pod_is_let_go_and_its_end_waits_for_nothing(cluster: Cluster) -> None:
    with namespace(cluster, "brief", manifests.pod("web", "brief"), **IN_MESH):
        cluster.running("brief", "web")
        cluster.ask("delete", "pod", "-n", "brief", "web")
        cluster.eventually(lambda: not row(cluster, "web", "brief"), "it is let go")


def test_a_pod_that_ran_before_the_plugin_joins_without_a_restart(cluster: Cluster) -> None:
    is_on = cluster.mesh.settings
    chain = f"{NET_D}/{CHAIN}"

    def has_plugin() -> bool:
        return "meshd-cni" in cluster.machine.ask("cat", chain)

    with namespace(cluster, "before", **IN_MESH):
        cluster.mesh.reload({**is_on, "kubernetes": {"enabled": False}})
        try:
            cluster.eventually(lambda: not has_plugin(), "the plugin is out")
            cluster.apply(manifests.pod("web", "before"))
            started = cluster.running("before", "web")
        finally:
            cluster.mesh.reload(is_on)
        cluster.eventually(has_plugin, "the plugin is in")
        cluster.mesh.settle()

        def is_proven() -> bool | Missing:
            with contextlib.suppress(AssertionError):
                if row(cluster, "web", "before").get("proven"):
                    return True
            return Missing(cluster.machine.log("meshd")[-3000:])

        cluster.eventually(is_proven, "it is in the mesh")
        pod = cluster.running("before", "web")
        assert pod["status"]["containerStatuses"] == started["status"]["containerStatuses"]
        cluster.ask("delete", "pod", "-n", "before", "web")
        cluster.eventually(lambda: not row(cluster, "web", "before"), "it is let go")


def test_pods_of_excluded_namespaces_start_without_meshd_and_others_wait_for_it(
    cluster: Cluster,
) -> None:
    system = manifests.pod("needed", "kube-system")
    cluster.eventually(
        lambda: cluster.kubectl("get", "sa", "default", "-n", "kube-system").returncode == 0, "it"
    )
    with namespace(cluster, "waiting", **IN_MESH):
        cluster.mesh.stop()
        try:
            cluster.apply(manifests.pod("web", "waiting"), system)
            cluster.running("kube-system", "needed")

            def is_told() -> bool | Missing:
                told = cluster.ask("describe", "pod", "-n", "waiting", "web")
                return "systemctl start meshd" in told or Missing(told[-500:])

            cluster.eventually(is_told, "the pod's events say what to do")
            cluster.ask("delete", "pod", "-n", "kube-system", "needed")
        finally:
            cluster.mesh.start()
        cluster.running("waiting", "web")
        assert row(cluster, "web", "waiting")["proven"]
