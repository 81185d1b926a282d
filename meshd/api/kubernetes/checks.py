"""Validates Kubernetes' kinds, as far as meshd reads them.

https://kubernetes.io/docs/reference/kubernetes-api/
"""

from __future__ import annotations

import base64
import datetime
import ipaddress
import re
from typing import Final

from meshd.api.base import ObjectMeta
from meshd.api.checks import (
    Report,
    check_host,
    check_label_names,
    check_labels,
    check_port,
    check_range,
    is_address,
)
from meshd.api.decode import Path
from meshd.api.kubernetes.types import Container, PodSpec, Probe, Secret, Service, ServicePort
from meshd.api.read import label_problem
from meshd.api.secret_contents import check_contents
from meshd.api.tunnels import check_tunnels
from meshd.base.numbers import whole

_MOST_ANNOTATIONS: Final = 256 * 1024
"""Bytes of all annotations of one object: as many as Kubernetes takes."""
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII)
"""RFC 3339."""


def check_metadata(report: Report, meta: ObjectMeta) -> None:
    check_labels(report, ("metadata", "labels"), meta.labels)
    check_label_names(report, ("metadata", "annotations"), meta.annotations)
    size = sum(len(key) + len(value.encode()) for key, value in meta.annotations.items())
    if size > _MOST_ANNOTATIONS:
        message = f"{size} bytes; all annotations together have at most {_MOST_ANNOTATIONS}"
        report.error(("metadata", "annotations"), message)
    if meta.creation_timestamp is not None and not _is_time(meta.creation_timestamp):
        message = f'"{meta.creation_timestamp}" is not a time such as 2024-02-29T12:00:00Z'
        report.error(("metadata", "creationTimestamp"), message)


def _is_time(text: str) -> bool:
    if not _TIME.fullmatch(text):
        return False
    try:
        # An offset may lead out of the years that there are.
        datetime.datetime.fromisoformat(text).astimezone(datetime.UTC)
    except (ValueError, OverflowError):
        return False
    return True


def check_service(report: Report, found: Service) -> None:
    check_tunnels(report, found.metadata)
    spec = found.spec
    headless = (spec.cluster_ip or "").lower() == "none"
    if spec.type == "ExternalName":
        if not spec.external_name:
            report.error(("spec", "externalName"), "type: ExternalName needs it")
        else:
            check_host(report, ("spec", "externalName"), spec.external_name)
        if headless:
            report.warning(("spec", "clusterIP"), "is ignored: type: ExternalName is another name")
    elif not spec.ports and not headless:
        report.error(("spec", "ports"), "needs at least one port")
    for ip in filter(None, (spec.cluster_ip, *spec.cluster_ips)):
        if ip.lower() != "none" and (problem := _cluster_ip_problem(ip)):
            report.error(("spec", "clusterIP"), problem)
    check_labels(report, ("spec", "selector"), spec.selector)
    seen: set[tuple[str, object]] = set()
    for index, port in enumerate(spec.ports):
        path: Path = ("spec", "ports", index)
        _check_service_port(report, path, port, alone=len(spec.ports) == 1)
        for what in (("name", port.name or None), ("port", (port.port, port.protocol))):
            if what[1] is not None and what in seen:
                report.error((*path, what[0]), f"{getattr(port, what[0])} is written twice")
            seen.add(what)


def _cluster_ip_problem(ip: str) -> str:
    if not is_address(ip):
        return f'"{ip}" is not an IP address, nor None'
    address = ipaddress.ip_address(ip)
    special = address.is_loopback or address.is_unspecified or address.is_multicast
    if special or address.is_link_local:
        return f"{ip} cannot be the address of a service: it is not routed"
    return ""


def _check_service_port(report: Report, path: Path, port: ServicePort, *, alone: bool) -> None:
    check_port(report, (*path, "port"), port.port)
    check_port(report, (*path, "nodePort"), port.node_port or None)
    if isinstance(port.target_port, int):
        check_port(report, (*path, "targetPort"), port.target_port)
    elif port.target_port is not None:
        _check_target(report, (*path, "targetPort"), port.target_port)
    if port.name and (problem := label_problem(port.name)):
        report.error((*path, "name"), problem)
    if not port.name and not alone:
        report.error((*path, "name"), "is required where a service has several ports")


def _check_target(report: Report, path: Path, text: str) -> None:
    """Check a target port that is written as text: a name, or a number in quotes."""
    if problem := label_problem(text):
        report.error(path, problem)
    elif text.isdigit() and not whole(text, 65535):
        report.error(path, f"{text} is not a port; ports are 1 to 65535")


def check_secret(report: Report, found: Secret) -> None:
    for key, value in found.data.items():
        try:
            base64.b64decode("".join(value.split()), validate=True)
        except ValueError:
            report.error(("data", key), "is not base64; unencoded text goes into stringData")
    if found.type == "kubernetes.io/tls":
        for key in ("tls.crt", "tls.key"):
            if not (found.data.get(key) or found.string_data.get(key)):
                report.error(("data", key), "type: kubernetes.io/tls needs it")
    if not report.findings:
        check_contents(report, found)


def check_pod_spec(report: Report, path: Path, spec: PodSpec) -> None:
    if not spec.containers:
        report.error((*path, "containers"), "needs at least one container")
    names: set[str] = set()
    for field, containers in (
        ("initContainers", spec.init_containers),
        ("containers", spec.containers),
    ):
        for index, container in enumerate(containers):
            place = (*path, field, index)
            if container.name in names:
                report.error((*place, "name"), f'"{container.name}" is written twice')
            names.add(container.name)
            _check_container(report, place, container)


def _check_container(report: Report, path: Path, container: Container) -> None:
    if problem := label_problem(container.name):
        report.error((*path, "name"), problem)
    if not container.image:
        report.error((*path, "image"), "is required")
    for index, port in enumerate(container.ports):
        check_port(report, (*path, "ports", index, "containerPort"), port.container_port)
    if container.readiness_probe:
        _check_probe(report, (*path, "readinessProbe"), container.readiness_probe, container)


def _check_probe(report: Report, path: Path, probe: Probe, container: Container) -> None:
    actions = {"httpGet": probe.http_get, "tcpSocket": probe.tcp_socket, "exec": probe.exec}
    given = [name for name, action in actions.items() if action]
    if len(given) > 1:
        report.error(path, f"has {' and '.join(given)}; only one of them is possible")
    named = {port.name for port in container.ports}
    for name, action in (("httpGet", probe.http_get), ("tcpSocket", probe.tcp_socket)):
        if action is None:
            continue
        if isinstance(action.port, int):
            check_port(report, (*path, name, "port"), action.port)
        elif action.port not in named and not whole(action.port, 65535):
            report.error((*path, name, "port"), f'"{action.port}" is not a port of this container')
    for field, value, low in (
        ("initialDelaySeconds", probe.initial_delay_seconds, 0),
        ("periodSeconds", probe.period_seconds, 0),
        ("timeoutSeconds", probe.timeout_seconds, 0),
        ("successThreshold", probe.success_threshold, 0),
        ("failureThreshold", probe.failure_threshold, 0),
    ):
        check_range(report, (*path, field), value, low)
