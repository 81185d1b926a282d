"""Chooses the check for each kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from meshd.config.damaged import about_the_rest
from meshd.config.read import Read
from meshd.config.validate.controllers import (
    check_daemon_set,
    check_deployment,
    check_pod,
    check_stateful_set,
)
from meshd.config.validate.counts import check_counts
from meshd.config.validate.destinations import check_destination_rule
from meshd.config.validate.entries import check_service_entry, check_workload_entry
from meshd.config.validate.fields import Report
from meshd.config.validate.gateways import check_gateway
from meshd.config.validate.groups import check_workload_group
from meshd.config.validate.kubernetes import (
    check_metadata,
    check_secret,
    check_service,
)
from meshd.config.validate.policies import check_peer_authentication
from meshd.config.validate.virtual_services import check_virtual_service
from meshd.decoding import Path
from meshd.model import kinds
from meshd.model.base import Object
from meshd.model.entries import WorkloadGroup
from meshd.model.finding import Finding
from meshd.model.kubernetes import DaemonSet, Deployment, Pod, Secret, Service, StatefulSet
from meshd.model.security import PeerAuthentication
from meshd.model.traffic import (
    DestinationRule,
    Gateway,
    ServiceEntry,
    VirtualService,
    WorkloadEntry,
)

_CHECKS: Final[dict[type[Object], Callable[[Report, Any], None]]] = {
    VirtualService: check_virtual_service,
    DestinationRule: check_destination_rule,
    Gateway: check_gateway,
    ServiceEntry: check_service_entry,
    WorkloadEntry: check_workload_entry,
    WorkloadGroup: check_workload_group,
    PeerAuthentication: check_peer_authentication,
    Service: check_service,
    Secret: check_secret,
    Pod: check_pod,
    Deployment: check_deployment,
    StatefulSet: check_stateful_set,
    DaemonSet: check_daemon_set,
}


def check_fields(reads: Iterable[Read]) -> tuple[Finding, ...]:
    """Return the findings about each object by itself."""
    findings: list[Finding] = []
    for read in reads:
        report = Report(read)
        if check_counts(report, read.object):
            check_metadata(report, read.object.metadata)
            if check := _CHECKS.get(type(read.object)):
                check(report, read.object)
        findings += report.findings
    return tuple(findings)


def check_damaged(damaged: Iterable[tuple[Read, tuple[Path, ...]]]) -> tuple[Finding, ...]:
    """Return the other findings about objects of which a part cannot be read."""
    return tuple(
        finding
        for read, left_out in damaged
        for finding in about_the_rest(check_fields([read]), left_out)
    )


def stored_kinds(reads: Iterable[Read]) -> tuple[tuple[Read, ...], tuple[Finding, ...]]:
    """Return the objects that the mesh's configuration consists of, and a warning for each other
    one."""
    stored: list[Read] = []
    passed_over: list[Finding] = []
    for read in reads:
        if isinstance(read.object, kinds.STORED):
            stored.append(read)
        else:
            message = (
                f"ignored: a {read.object.KIND} is not configuration (meshctl testbed up reads it)"
            )
            passed_over.append(read.finding((), message, severity="warning"))
    return tuple(stored), tuple(passed_over)
