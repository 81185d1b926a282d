"""Secrets go to the nodes that need them, and to no other."""

from __future__ import annotations

from typing import Any

from meshd.model.workload import Workload
from meshd.xds.private import needed_secrets


def workload(namespace: str, **labels: str) -> Workload:
    return Workload(uid="u", name="u", namespace=namespace, netns="", labels=labels)


def gateway(selector: dict[str, str], *credentials: str) -> dict[str, Any]:
    servers = [{"tls": {"mode": "SIMPLE", "credentialName": name}} for name in credentials]
    return {
        "kind": "Gateway",
        "metadata": {"name": "g", "namespace": "edge"},
        "spec": {"selector": selector, "servers": servers},
    }


RULE = {
    "kind": "DestinationRule",
    "metadata": {"name": "r", "namespace": "shop"},
    "spec": {"subsets": [{"trafficPolicy": {"tls": {"credentialName": "client"}}}]},
}
EDGE = gateway({"app": "edge"}, "site")


def test_a_gateways_go_where_a_workload_runs_that_it_selects() -> None:
    assert "edge/site" in needed_secrets([EDGE], [workload("any", app="edge", more="x")])
    assert needed_secrets([EDGE], [workload("edge", app="other")]) == frozenset()
    assert needed_secrets([EDGE], []) == frozenset()


def test_a_gateway_that_selects_nothing_gives_nothing_away() -> None:
    assert needed_secrets([gateway({}, "site")], [workload("edge")]) == frozenset()


def test_a_rules_go_where_its_namespace_runs() -> None:
    assert "shop/client" in needed_secrets([RULE], [workload("shop")])
    assert needed_secrets([RULE], [workload("elsewhere")]) == frozenset()


def test_the_authority_beside_a_secret_goes_with_it() -> None:
    assert needed_secrets([EDGE], [workload("x", app="edge")]) == {"edge/site", "edge/site-cacert"}


def test_all_secrets_that_a_server_names_go_where_it_is() -> None:
    tls = {"mode": "MUTUAL", "credentialNames": ["rsa", "ecdsa"], "caCertCredentialName": "clients"}
    edge = gateway({"app": "edge"})
    edge["spec"]["servers"] = [{"tls": tls}]

    assert {"edge/rsa", "edge/ecdsa", "edge/clients", "edge/clients-cacert"} <= needed_secrets(
        [edge], [workload("any", app="edge")]
    )
