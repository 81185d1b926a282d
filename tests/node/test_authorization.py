"""AuthorizationPolicies as Istio's tasks have them, by what clients get.

The server is in one namespace, its clients in another and the gateway in a third.
https://istio.io/latest/docs/tasks/security/authorization/
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.node.node import Node

HOST = "server.mesh.svc.cluster.local"
URL = f"http://{HOST}/who"
POLICY = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: NAME, namespace: SPACE}
spec: SPEC
---
"""
INGRESS = f"""
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: edge, namespace: mesh}}
spec:
  selector: {{role: edge}}
  servers: [{{port: {{number: 8000, name: http, protocol: HTTP}}, hosts: ["*"]}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: edge, namespace: mesh}}
spec:
  hosts: ["*"]
  gateways: [edge]
  http: [{{route: [{{destination: {{host: {HOST}, port: {{number: 80}}}}}}]}}]
---
"""
OTHER, NOTHING = "other.callers", "{}"
CLIENT = "caller.callers"


def policy(spec: str, name: str = "p", space: str = "mesh") -> str:
    return POLICY.replace("NAME", name).replace("SPACE", space).replace("SPEC", spec)


@pytest.fixture(scope="module")
def callers(node: Node) -> Iterator[Node]:
    write = node.write
    pods = [
        write.deployment("caller", "callers"),
        write.deployment("other", "callers"),
        write.deployment("edge", "gateways", labels={"role": "edge", "meshd.io/gateway": ""}),
    ]
    spaces = [write.namespace(name, enrolled=True) for name in ("callers", "gateways")]
    node.up(write.dump(*spaces, *pods))
    node.eventually(node.is_well, "all is well")
    yield node
    node.up(write.dump(*(pod | {"spec": pod["spec"] | {"replicas": 0}} for pod in pods)))
    node.eventually(node.is_well, "all is well again")


def becomes(node: Node, client: str, status: str, *arguments: str) -> None:
    node.eventually(
        lambda: node.status_of(client, URL, *arguments) == status, f"{client} gets {status}"
    )


def speaks_tcp(node: Node, client: str) -> bool:
    """Of two who wait for each other's first words."""
    script = f"exec 3<>/dev/tcp/{HOST}/91; read -t 5 -u 3 line; echo $line"
    return '"pod": "server' in node.exec(client, "bash", "-c", script).output


BY_ACCOUNT = (
    "{selector: {matchLabels: {app: server}}, rules: [{"
    "from: [{source: {principals: [cluster.local/ns/callers/sa/caller]}}],"
    " to: [{operation: {methods: [GET]}}]}]}"
)


def test_http_traffic_is_allowed_by_account_and_method(callers: Node) -> None:
    with callers.applied(policy(NOTHING, "allow-nothing")):
        becomes(callers, CLIENT, "403")
        with callers.applied(policy(BY_ACCOUNT)):
            becomes(callers, CLIENT, "200")
            assert callers.status_of(CLIENT, URL, "-X", "POST") == "403"
            assert callers.status_of(OTHER, URL) == "403"
            direct = f"http://{callers.pod('server').plan.address}:8080/who"
            assert callers.status_of("stranger.outside", direct) == "403"
    becomes(callers, OTHER, "200")


def test_tcp_traffic_is_allowed_by_port_and_not_by_what_only_http_has(callers: Node) -> None:
    for operation, expected in (
        ("{ports: ['9000']}", True),
        ("{ports: ['9001']}", False),
        ("{ports: ['9000'], methods: [GET]}", False),
    ):
        with callers.applied(policy(f"{{rules: [{{to: [{{operation: {operation}}}]}}]}}")):
            callers.eventually(
                lambda expected=expected: speaks_tcp(callers, CLIENT) is expected, operation
            )
    callers.eventually(lambda: speaks_tcp(callers, CLIENT), "all may speak again")


def holding(node: Node, name: str, ports: tuple[int, int]) -> subprocess.Popen[str]:
    """A client that keeps a connection to a TCP port, and one to an HTTP port."""
    tcp, web = ports
    script = ("/srv/app/hold.py", f"tcp=tcp,{HOST},{tcp}", f"http=http,{HOST},{web}")
    held = node.begin(name, sys.executable, *script)
    assert used(held) == {}
    return held


def used(held: subprocess.Popen[str]) -> dict[str, str]:
    """The connections that have ended, and how."""
    assert held.stdout
    return json.loads(held.stdout.readline())


def use(held: subprocess.Popen[str]) -> set[str]:
    """The connections that have ended since they were used last."""
    assert held.stdin
    held.stdin.write("\n")
    held.stdin.flush()
    return set(used(held))


def test_an_open_connection_ends_when_a_policy_comes_that_denies_it(callers: Node) -> None:
    """That of another client stays."""
    deny = (
        "{selector: {matchLabels: {app: server}}, action: DENY, rules: [{"
        "from: [{source: {principals: [cluster.local/ns/callers/sa/caller]}}],"
        " to: [{operation: {ports: ['9000']}}]}]}"
    )
    with holding(callers, CLIENT, (91, 80)) as denied, holding(callers, OTHER, (91, 80)) as allowed:
        try:
            with callers.applied(policy(deny)):
                callers.eventually(
                    lambda: use(denied) == {"tcp"}, "the connection that is denied ends"
                )
                assert "open connections ended that policies deny now" in callers.log
                assert use(allowed) == set()
            assert use(allowed) == set()
            assert use(denied) == set()
        finally:
            for held in (denied, allowed):
                held.kill()


def test_deny_rules_take_precedence_over_allow_rules(callers: Node) -> None:
    deny = (
        "{action: DENY, rules: [{to: [{operation: {methods: [GET]}}],"
        " when: [{key: 'request.headers[x-token]', notValues: [admin]}]}]}"
    )
    with callers.applied(policy("{rules: [{}]}", "all") + policy(deny)):
        becomes(callers, CLIENT, "403")
        assert callers.status_of(CLIENT, URL, "-H", "x-token: admin") == "200"
        assert callers.status_of(CLIENT, URL, "-H", "x-token: guest") == "403"
        assert not speaks_tcp(callers, CLIENT)
    becomes(callers, CLIENT, "200")


def test_an_ingress_gateway_judges_by_the_clients_address(callers: Node) -> None:
    stranger = callers.pod("stranger.outside").plan.address
    url = f"http://{callers.pod('edge.gateways').plan.address}:8000/who"

    def entering(status: str) -> None:
        callers.eventually(
            lambda: callers.status_of("stranger.outside", url) == status, f"{status} at the gateway"
        )

    with callers.applied(INGRESS):
        entering("200")
        for field, status in (("ipBlocks", "200"), ("notIpBlocks", "403")):
            sources = f"[{{source: {{{field}: [{stranger}]}}}}]"
            spec = f"{{selector: {{matchLabels: {{role: edge}}}}, rules: [{{from: {sources}}}]}}"
            with callers.applied(policy(spec, "edge", "gateways")):
                entering(status)
                tried = callers.meshctl(
                    *("authz", "try", "deploy/edge", url, "-n", "gateways"),
                    *("--from-outside", "--client", stranger),
                )
                assert tried.status == (0 if status == "200" else 1), tried.output
        entering("200")


def test_policies_of_a_workload_are_listed_and_tried(callers: Node) -> None:
    with callers.applied(policy(BY_ACCOUNT)):
        becomes(callers, OTHER, "403")
        listed = callers.meshctl("authz", "check", "deploy/server", "-n", "mesh", "-o", "json")
        (rule,) = json.loads(listed.output)["rules"]
        assert (rule["policy"], rule["field"]) == ("mesh/p", "spec.rules[0]")
        before = rule["count"]
        assert callers.status_of(CLIENT, URL) == "200"
        listed = callers.meshctl("authz", "check", "deploy/server", "-n", "mesh", "-o", "json")
        assert json.loads(listed.output)["rules"][0]["count"] == before + 1
        for name, status in (("caller", 0), ("other", 1)):
            tried = callers.meshctl("authz", "try", f"deploy/{name}", URL, "-n", "callers")
            assert tried.status == status, tried.output
    becomes(callers, OTHER, "200")


def test_a_policy_that_is_not_carried_out_is_refused(callers: Node) -> None:
    target = policy("{targetRefs: [{kind: Service, name: server}], rules: [{}]}")
    done = callers.meshctl("apply", "-f", "-", text=target)
    assert done.status == 1
    assert "choose those behind a Service by selector" in done.errors
    assert callers.status_of(CLIENT, URL) == "200"
