"""What services say of tunnels is "true" or "false"; anything else is warned of, and is no."""

from __future__ import annotations

import pytest

from meshd.api.dispatch import check_fields
from meshd.api.read import read_objects
from meshd.api.tunnels import suits_tunnels

SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: db, namespace: back, annotations: {%s}}
spec: {ports: [{port: 5432, name: tcp}]}
"""
ENTRY = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: db, namespace: back, annotations: {%s}}
spec: {hosts: [db.test], resolution: DNS, ports: [{number: 5432, name: tcp, protocol: TCP}]}
"""


@pytest.mark.parametrize("text", [SERVICE, ENTRY], ids=["Service", "ServiceEntry"])
@pytest.mark.parametrize(
    ("said", "suits", "is_warned"),
    [
        ("", False, False),
        ('meshd.io/tunnels: "true"', True, False),
        ('meshd.io/tunnels: "false"', False, False),
        ('meshd.io/tunnels: "True"', False, True),
        ('meshd.io/tunnels: ""', False, True),
    ],
)
def test_only_true_has_connections_carried_by_tunnels(
    text: str, said: str, suits: bool, is_warned: bool
) -> None:
    (read,) = found = read_objects(text % said, "m.yaml")
    assert suits_tunnels(read.object.metadata.annotations) is suits
    findings = [(one.severity, one.field) for one in check_fields(found)]
    assert findings == [("warning", "metadata.annotations.meshd.io/tunnels")] * is_warned
