"""Secrets that Gateways and DestinationRules name: they are those of the proxy's own namespace."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from meshd.analysis.validate import check_references
from meshd.api.read import read_sources
from meshd.config.store import Store
from meshd.model.workload import Workload
from meshd.wire import Apply, Changed, DeleteNamed, Named
from tests.pem import certificate_pem, key_pem, new_key
from tests.unit import storing

GATEWAY = """\
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: config}
spec:
  selector: {istio: edge}
  servers:
  - port: {number: 443, name: https, protocol: HTTPS}
    hosts: [shop.test]
    tls: {mode: SIMPLE, credentialName: shop}
"""
RULE = """\
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: out, namespace: config}
spec:
  host: out.test
  trafficPolicy: {tls: {mode: SIMPLE, credentialName: client}}
"""
HOST = """\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: out, namespace: config}
spec: {hosts: [out.test], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS}
"""


KEY = new_key()
CERTIFICATE = certificate_pem(KEY).decode()
PAIR = {"tls.crt": CERTIFICATE, "tls.key": key_pem(KEY).decode()}
AUTHORITY = {"ca.crt": CERTIFICATE}


def secret(name: str, namespace: str, **entries: str) -> str:
    """With everything, or with these."""
    metadata = {"name": name, "namespace": namespace}
    found = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata}
    return json.dumps(found | {"stringData": entries or PAIR | AUTHORITY}) + "\n"


def workload(namespace: str, **labels: str) -> Workload:
    uid = f"w.{namespace}"
    return Workload(uid=uid, name="w", namespace=namespace, netns="/netns", labels=labels)


EDGE = workload("edge", istio="edge")


def said(*texts: str, workloads: Sequence[Workload] | None = (EDGE,)) -> list[str]:
    reading = read_sources((("f.yaml", "---\n".join(texts)),), "default")
    found = check_references(reading.objects, {}, workloads=workloads)
    return [one.message for one in found if "credential" in one.field]


def test_a_gateways_secret_is_missed_where_its_workload_is() -> None:
    assert said(GATEWAY) == [
        "there is no Secret edge/shop, in the namespace of the proxy; no TLS connection succeeds"
        " there until there is one"
    ]
    (elsewhere,) = said(GATEWAY, secret("shop", "config"))
    assert "Secret edge/shop" in elsewhere
    assert "(the one in config is not read from there)" in elsewhere
    assert said(GATEWAY, secret("shop", "edge")) == []


def test_where_no_gateway_runs_any_namespace_may_be_meant() -> None:
    for workloads in (None, (), (workload("edge", istio="other"),)):
        assert said(GATEWAY, secret("shop", "anywhere"), workloads=workloads) == []
        (found,) = said(GATEWAY, workloads=workloads)
        assert 'no Secret "shop" in any namespace' in found


def test_each_namespace_with_such_gateways_needs_its_own() -> None:
    gateways = (EDGE, workload("second", istio="edge"))
    (found,) = said(GATEWAY, secret("shop", "edge"), workloads=gateways)
    assert "Secret second/shop" in found


def test_a_gateway_that_selects_its_own_namespace_needs_no_secret_of_others(
    tmp_path: Path,
) -> None:
    (tmp_path / "config.d").mkdir()
    store = Store(tmp_path / "config.d", tmp_path / "lib", gateway_selection="own-namespace")

    def applied(*texts: str) -> list[str]:
        answer = storing.apply(store, Apply((("-", "---\n".join(texts)),)), workloads=(EDGE,))
        assert isinstance(answer, Changed)
        return [one for one in answer.warnings if "Secret" in one or "has no effect" in one]

    (warning,) = applied(GATEWAY, secret("shop", "edge"))
    assert "mesh.gateway_selection is own-namespace" in warning
    deletion = DeleteNamed((Named("secret", ("shop",)),), "edge", dry_run=True)
    assert storing.delete_named(store, deletion, (EDGE,)).warnings == ()


def test_a_rule_without_a_selector_is_for_gateways_and_says_so() -> None:
    warning, missing = said(HOST, GATEWAY, RULE, secret("shop", "edge"), secret("client", "config"))
    assert "other clients connect in plaintext" in warning
    assert "there is no Secret edge/client" in missing
    (warning,) = said(HOST, GATEWAY, RULE, secret("shop", "edge"), secret("client", "edge"))
    assert "other clients connect in plaintext" in warning


def test_a_rule_that_selects_workloads_names_a_secret_of_its_own_namespace() -> None:
    rule = RULE + "  workloadSelector: {matchLabels: {app: a}}\n"
    (found,) = said(HOST, rule, secret("client", "edge"))
    assert "there is no Secret config/client" in found
    assert said(HOST, rule, secret("client", "config")) == []


def test_a_secret_has_to_have_what_its_user_needs() -> None:
    """Whether a daemon knows where gateways run, or manifests are validated without one."""
    mutual = GATEWAY.replace("SIMPLE", "MUTUAL")
    beside = secret("shop-cacert", "edge", **AUTHORITY)
    for workloads in (None, (EDGE,)):
        (found,) = said(GATEWAY, secret("shop", "edge", **AUTHORITY), workloads=workloads)
        assert found.startswith("Secret edge/shop has no tls.crt and tls.key")
        (found,) = said(mutual, secret("shop", "edge", **PAIR), workloads=workloads)
        assert found.startswith("Secret edge/shop has no ca.crt")
        assert said(mutual, secret("shop", "edge", **PAIR), beside, workloads=workloads) == []
        assert said(mutual, secret("shop", "edge"), workloads=workloads) == []


def test_taking_from_a_secret_what_its_user_needs_is_told_to_the_one_who_does_it(
    store: Store,
) -> None:
    text = secret("shop", "edge", **AUTHORITY)
    answer = storing.apply(store, Apply((("-", text),)), workloads=(EDGE,))
    assert isinstance(answer, Changed)
    (warning,) = answer.warnings
    assert "has no tls.crt and tls.key, which Gateway config/edge needs" in warning


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "config.d").mkdir()
    store = Store(tmp_path / "config.d", tmp_path / "lib")
    text = "---\n".join((GATEWAY, secret("shop", "edge"), secret("shop", "config")))
    storing.apply(store, Apply((("-", text),)))
    return store


def test_deleting_a_secret_in_use_is_told_to_the_one_who_does_it(store: Store) -> None:
    def deleted(namespace: str) -> tuple[str, ...]:
        request = DeleteNamed((Named("secret", ("shop",)),), namespace, dry_run=True)
        return storing.delete_named(store, request, (EDGE,)).warnings

    assert deleted("config") == ()
    assert deleted("edge") == (
        "Secret edge/shop is in use: Gateway config/edge: spec.servers[0].tls.credentialName; no"
        " TLS connection succeeds there until there is one",
    )


def test_deleting_a_secret_together_with_its_user_is_no_matter(store: Store) -> None:
    def warnings(*texts: str) -> tuple[str, ...]:
        request = Apply((("-", "---\n".join(texts)),), delete=True, dry_run=True)
        answer = storing.apply(store, request, workloads=(EDGE,))
        assert not hasattr(answer, "findings"), answer
        return answer.warnings  # pyright: ignore[reportAttributeAccessIssue]

    assert len(warnings(secret("shop", "edge"))) == 1
    assert warnings(GATEWAY, secret("shop", "edge")) == ()
