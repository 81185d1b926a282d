"""Istio's kinds are those that people apply with kubectl."""

from __future__ import annotations

import json
from typing import Any

from tests.kube import manifests
from tests.kube.cluster import Cluster
from tests.kube.test_pods import IN_MESH, namespace
from tests.kube.test_services import answered, strict
from tests.waiting import Missing


def virtual_service(**spec: Any) -> manifests.Object:
    meta = {"name": "server", "namespace": "routed"}
    given = {"hosts": ["server"], **spec}
    return {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": meta} | {
        "spec": given
    }


def test_routes_and_policies_are_followed_and_end_with_their_objects(cluster: Cluster) -> None:
    objects = (
        manifests.pod("server", "routed", "httpd", "-f", "-p", "8080", "-h", "/www"),
        manifests.pod("client", "routed"),
        manifests.service("server", "routed", 80, target=8080),
    )
    fault = {"abort": {"httpStatus": 418, "percentage": {"value": 100}}}
    route = {"fault": fault, "route": [{"destination": {"host": "server"}}]}
    url = "http://server/"

    def refused() -> bool | Missing:
        done = cluster.exec("routed", "client", "wget", "-qO-", url)
        return "418" in done.stderr or Missing(done.stderr)

    def in_plain() -> bool:
        address = cluster.running("routed", "server")["status"]["podIP"]
        done = cluster.machine.run("curl", "-sS", "--max-time", "5", f"http://{address}:8080/")
        return done.stdout == "hello\n"

    with namespace(cluster, "routed", *objects, **IN_MESH):
        cluster.running("routed", "server")
        cluster.running("routed", "client")
        cluster.eventually(lambda: answered(cluster, "routed", "client", url), "it answers")
        assert in_plain()
        cluster.apply(virtual_service(http=[route]), strict("routed"))
        cluster.eventually(refused, "the fault is injected")
        cluster.eventually(lambda: not in_plain(), "mutual TLS alone is taken")
        cluster.ask("delete", "virtualservice", "server", "-n", "routed")
        cluster.eventually(lambda: answered(cluster, "routed", "client", url), "it answers again")
        cluster.ask("delete", "peerauthentication", "default", "-n", "routed")
        cluster.eventually(in_plain, "plaintext is taken again")


def test_what_meshd_cannot_read_the_api_server_refuses(cluster: Cluster) -> None:
    with namespace(cluster, "routed"):
        for wrong in ({"http": [{"route": 7}]}, {"http": 7}):
            text = json.dumps(virtual_service(**wrong))
            done = cluster.kubectl("apply", "-f", "-", text=text)
            assert done.returncode != 0
            assert "spec.http" in done.stderr


def test_a_policy_that_is_not_valid_closes_its_namespace_and_is_named(cluster: Cluster) -> None:
    objects = (
        manifests.pod("server", "closed", "httpd", "-f", "-p", "8080", "-h", "/www"),
        manifests.pod("client", "closed"),
        manifests.service("server", "closed", 80, target=8080),
    )
    policy = {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "wrong", "namespace": "closed"},
        "spec": {"rules": [{"to": [{"operation": {"ports": ["not-a-port"]}}]}]},
    }
    with namespace(cluster, "closed", *objects, **IN_MESH):
        cluster.running("closed", "server")
        cluster.running("closed", "client")
        url = "http://server/"
        cluster.eventually(lambda: answered(cluster, "closed", "client", url), "it answers")
        cluster.apply(policy)

        def denied() -> bool | Missing:
            done = cluster.exec("closed", "client", "wget", "-qO-", url)
            return "403" in done.stderr or Missing(done.stderr + done.stdout)

        cluster.eventually(denied, "all is denied")
        told = cluster.mesh.meshctl("status")
        assert "AuthorizationPolicy closed/wrong of the API server" in told.stdout + told.stderr
        cluster.ask("delete", "authorizationpolicy", "wrong", "-n", "closed")
        cluster.eventually(lambda: answered(cluster, "closed", "client", url), "it answers again")
