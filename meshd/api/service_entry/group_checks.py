"""Validates WorkloadGroups.
https://istio.io/latest/docs/reference/config/networking/workload-group/"""

from __future__ import annotations

import re
from typing import Final

from meshd.api.checks import (
    Report,
    check_label_names,
    check_labels,
    check_port,
    check_port_name,
    check_range,
    check_service_account,
    is_address,
)
from meshd.api.decode import Path
from meshd.api.destination_rule.localities import check_locality
from meshd.api.service_entry.types import HTTPHealthCheck, ReadinessProbe, WorkloadGroup

_HEADER: Final = re.compile(r"[-A-Za-z0-9]+")
_MOST_SECONDS = 24 * 3600
_WAYS = ("httpGet", "tcpSocket", "exec", "grpc")


def check_workload_group(report: Report, found: WorkloadGroup) -> None:
    template, path = found.spec.template, ("spec", "template")
    if template.address:
        report.error((*path, "address"), "each member has its own; leave it out")
    check_service_account(report, (*path, "serviceAccount"), template.service_account)
    for name, number in template.ports.items():
        check_port_name(report, (*path, "ports", name), name)
        check_port(report, (*path, "ports", name), number)
    check_labels(report, (*path, "labels"), template.labels)
    check_locality(report, (*path, "locality"), template.locality)
    check_range(report, (*path, "weight"), template.weight, 0, 2**32 - 1)
    check_labels(report, ("spec", "metadata", "labels"), found.spec.metadata.labels)
    annotations = found.spec.metadata.annotations
    check_label_names(report, ("spec", "metadata", "annotations"), annotations)
    if found.spec.probe:
        _check_probe(report, ("spec", "probe"), found.spec.probe)


def _check_probe(report: Report, path: Path, probe: ReadinessProbe) -> None:
    ways = (probe.http_get, probe.tcp_socket, probe.exec, probe.grpc)
    given = [name for name, way in zip(_WAYS, ways, strict=True) if way]
    if len(given) != 1:
        what = f"only one of {', '.join(given)}" if given else f"one of {', '.join(_WAYS)}"
        report.error(path, f"needs {what}")
    for name, way in (("httpGet", probe.http_get), ("tcpSocket", probe.tcp_socket)):
        if way:
            check_port(report, (*path, name, "port"), way.port)
            if way.host and way.host != "localhost" and not is_address(way.host):
                message = "a probe asks each member at an address of its own; leave it out"
                report.error((*path, name, "host"), message)
    if check := probe.http_get:
        _check_request(report, (*path, "httpGet"), check)
    if probe.grpc:
        check_port(report, (*path, "grpc", "port"), probe.grpc.port)
    if probe.exec and not all((probe.exec.command, *probe.exec.command)):
        report.error((*path, "exec", "command"), "needs a program")
    check_range(
        report, (*path, "initialDelaySeconds"), probe.initial_delay_seconds, 0, _MOST_SECONDS
    )
    for name, seconds in (
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ):
        check_range(report, (*path, name), seconds, 0, _MOST_SECONDS)


def _check_request(report: Report, path: Path, check: HTTPHealthCheck) -> None:
    if any(not " " < character < "\x7f" for character in check.path):
        report.error((*path, "path"), "has characters that must be percent-encoded in a path")
    for index, header in enumerate(check.http_headers):
        if not _HEADER.fullmatch(header.name):
            message = f'"{header.name}" is not a header\'s name: letters, digits and "-"'
            report.error((*path, "httpHeaders", index, "name"), message)
        if any(character < " " or character == "\x7f" for character in header.value):
            report.error((*path, "httpHeaders", index, "value"), "has control characters")
