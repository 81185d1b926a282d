"""WorkloadGroups that make no sense are refused with the field's name."""

from __future__ import annotations

import pytest

from meshd.config.requests import validate_sources

GROUP = """
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: vms, namespace: shop}
spec:
  template: {serviceAccount: vm, ports: {http: 8080}}
  probe: {periodSeconds: 5, httpGet: {path: /healthz, port: 8080}}
"""


def findings(text: str) -> list[str]:
    return [f"{one.field}: {one.message}" for one in validate_sources([("f.yaml", text)])]


def test_a_valid_workload_group_has_no_findings() -> None:
    assert findings(GROUP) == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("serviceAccount: vm", "address: 198.18.0.1", "spec.template.address: each member has"),
        ("http: 8080", "http: 70000", "spec.template.ports.http: 70000 is not a port"),
        ("port: 8080}}", "port: 0}}", "spec.probe.httpGet.port: 0 is not a port"),
        ("periodSeconds: 5", "periodSeconds: -1", "spec.probe.periodSeconds: -1 is out of range"),
        ("httpGet: {path: /healthz, port: 8080}", "", "spec.probe: needs one of httpGet"),
        ("periodSeconds: 5", "exec: {command: [x]}", "spec.probe: needs only one of httpGet, exec"),
        ("httpGet: {path: /healthz, port: 8080}", "exec: {command: []}", "spec.probe.exec.command"),
        ("httpGet", "httpget", "spec.probe.httpget: unknown field (did you mean httpGet?)"),
    ],
)
def test_mistakes_of_a_group_are_named(old: str, new: str, expected: str) -> None:
    (found,) = findings(GROUP.replace(old, new))
    assert found.startswith(expected)
