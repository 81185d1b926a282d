"""What a setting may be is said where it is read, not where it would have been used."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshd.base.errors import InvalidInputError
from meshd.settings import load


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("mesh: {service_cidr: here}", "does not appear to be an IPv4 or IPv6 network"),
        ("mesh: {connect_timeout: 0s}", "connect_timeout: 0s is out of range"),
        ("mesh: {protocol_detection_timeout: 99999h}", "protocol_detection_timeout"),
        ("mesh: {mutual_tls_timeout: 0s}", "mutual_tls_timeout: 0s is out of range"),
        ("mesh: {dns_port: 0}", "mesh.dns_port"),
        ("mesh: {domain: A_b}", "mesh.domain: expected a DNS name"),
        ("mesh: {root_namespace: a.b}", "mesh.root_namespace: expected a DNS label"),
        ("proxy: {count: -1}", "count: -1 is out of range; it must be 0 to 64"),
        ("proxy: {memory_limit: -1}", "memory_limit"),
        ("proxy: {max_connections: 4294967296}", "max_connections"),
        ("proxy: {drain_time: 9999999h}", "drain_time"),
        ("capture: {exclude_inbound_ports: [80, 65536]}", "capture.exclude_inbound_ports[1]"),
        ("identity: {renew_at: 1.5}", "renew_at"),
        ("identity: {certificate_lifetime: 0s}", "certificate_lifetime"),
        ("identity: {ca_lifetime: 9999999h}", "ca_lifetime"),
        ("control: {port: 70000}", "control.port"),
        ("control: {disconnect_grace: 99999999h}", "disconnect_grace"),
        ("log: {lines_per_second: -1}", "lines_per_second"),
        ("log: {lines_per_second: .nan}", "not a number of JSON"),
        ("locality: a/b/c/d", "locality: expected region/zone/subzone"),
        ("node: a b", "node: expected a node's name"),
    ],
)
def test_values_that_no_process_could_use_are_refused(
    tmp_path: Path, text: str, named: str
) -> None:
    path = tmp_path / "meshd.yaml"
    path.write_text(text)
    with pytest.raises(InvalidInputError) as caught:
        load(path)
    assert named in str(caught.value)
