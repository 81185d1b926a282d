"""Secrets go to the nodes that need them, and to no other."""

from __future__ import annotations

from typing import Any

import msgspec

from meshd.fleet.server.private import needed_secrets
from meshd.model.workload import Workload


def workload(namespace: str, **labels: str) -> Workload:
    """Return a workload that says that it is a gateway."""
    labels["istio"] = "gateway"
    return Workload(uid="u", name="u", namespace=namespace, netns="", labels=labels)


def gateway(selector: dict[str, str], *credentials: str) -> dict[str, Any]:
    servers = [{"tls": {"mode": "SIMPLE", "credentialName": name}} for name in credentials]
    return {
        "kind": "Gateway",
        "metadata": {"name": "g", "namespace": "edge"},
        "spec": {"selector": selector, "servers": servers},
    }


def rule(export_to: tuple[str, ...] = (), **selector: str) -> dict[str, Any]:
    spec: dict[str, Any] = {"subsets": [{"trafficPolicy": {"tls": {"credentialName": "client"}}}]}
    spec |= {"exportTo": [*export_to]} if export_to else {}
    spec |= {"workloadSelector": {"matchLabels": selector}} if selector else {}
    metadata = {"name": "r", "namespace": "shop"}
    return {"kind": "DestinationRule", "metadata": metadata, "spec": spec}


EDGE = gateway({"app": "edge"}, "site")
"""An object of the namespace edge."""


def test_a_gateways_are_those_of_the_namespaces_of_workloads_that_it_selects() -> None:
    needed = needed_secrets([EDGE], [workload("istio-system", app="edge", more="x")])
    assert needed == {"istio-system/site", "istio-system/site-cacert"}
    assert needed_secrets([EDGE], [workload("edge", app="other")]) == frozenset()
    assert needed_secrets([EDGE], []) == frozenset()


def test_a_gateway_that_may_not_select_a_workload_has_its_node_told_nothing() -> None:
    """Neither its own Secrets nor those of rules for gateways."""
    there = [workload("istio-system", app="edge"), workload("shop")]
    assert needed_secrets([EDGE, rule()], there)
    assert needed_secrets([EDGE, rule()], there, "own-namespace") == frozenset()
    unsaid = [msgspec.structs.replace(one, labels={"app": "edge"}) for one in there]
    assert needed_secrets([EDGE, rule()], unsaid) == frozenset()
    assert needed_secrets([EDGE, rule()], unsaid, "any-namespace")
    own = [workload("edge", app="edge")]
    assert needed_secrets([EDGE, rule()], own, "own-namespace") == needed_secrets(
        [EDGE, rule()], own
    )


def test_a_gateway_that_selects_nothing_gives_nothing_away() -> None:
    assert needed_secrets([gateway({}, "site")], [workload("edge")]) == frozenset()


def test_a_rules_are_those_of_gateways_namespaces_where_it_selects_no_workloads() -> None:
    nodes = [workload("shop"), workload("istio-system", app="edge")]
    needed = needed_secrets([EDGE, rule()], nodes)
    assert {one for one in needed if "client" in one} == {
        "istio-system/client",
        "istio-system/client-cacert",
    }
    assert needed_secrets([EDGE, rule()], nodes[:1]) == frozenset()
    assert "istio-system/client" not in needed_secrets([EDGE, rule((".",))], nodes)


def test_a_rule_that_selects_workloads_is_for_those_of_its_own_namespace() -> None:
    client = rule(app="client")
    assert "shop/client" in needed_secrets([client], [workload("shop", app="client")])
    assert needed_secrets([client], [workload("shop", app="other")]) == frozenset()
    assert needed_secrets([client], [workload("else", app="client")]) == frozenset()


def test_no_secret_of_another_namespace_is_sent_for_its_name() -> None:
    edge = gateway({"app": "edge"}, "bank/site", "edge/site")
    assert needed_secrets([edge], [workload("edge", app="edge")]) == {
        "edge/site",
        "edge/site-cacert",
    }


def test_all_secrets_that_a_server_names_go_where_it_is() -> None:
    tls = {"mode": "MUTUAL", "credentialNames": ["rsa", "ecdsa"], "caCertCredentialName": "clients"}
    edge = gateway({"app": "edge"})
    edge["spec"]["servers"] = [{"tls": tls}]

    assert {"any/rsa", "any/ecdsa", "any/clients", "any/clients-cacert"} <= needed_secrets(
        [edge], [workload("any", app="edge")]
    )
