"""Chooses the check for each kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from meshd.api import kinds
from meshd.api.authorization_policy.checks import check_authorization_policy
from meshd.api.authorization_policy.types import AuthorizationPolicy
from meshd.api.base import Object
from meshd.api.checks import Report
from meshd.api.counts import check_counts
from meshd.api.damaged import about_the_rest
from meshd.api.decode import Path
from meshd.api.destination_rule.checks import check_destination_rule
from meshd.api.finding import Finding
from meshd.api.gateway.checks import check_gateway
from meshd.api.kubernetes.checks import check_metadata, check_secret, check_service
from meshd.api.kubernetes.controller_checks import (
    check_daemon_set,
    check_deployment,
    check_pod,
    check_stateful_set,
)
from meshd.api.kubernetes.types import (
    ConfigMap,
    DaemonSet,
    Deployment,
    Namespace,
    Pod,
    Secret,
    Service,
    ServiceAccount,
    StatefulSet,
)
from meshd.api.networking import (
    DestinationRule,
    Gateway,
    ServiceEntry,
    VirtualService,
    WorkloadEntry,
)
from meshd.api.peer_authentication.checks import check_peer_authentication
from meshd.api.peer_authentication.types import PeerAuthentication
from meshd.api.read import Read
from meshd.api.request_authentication.checks import check_request_authentication
from meshd.api.request_authentication.types import RequestAuthentication
from meshd.api.service_entry.checks import check_service_entry, check_workload_entry
from meshd.api.service_entry.group_checks import check_workload_group
from meshd.api.service_entry.types import WorkloadGroup
from meshd.api.texts import check_texts, sent
from meshd.api.virtual_service.checks import check_virtual_service
from meshd.api.yaml import Document, show_path


def _nothing_more(_report: Report, _found: Object) -> None:
    """Find nothing: the metadata is all that there is to check."""


CHECKS: Final[dict[type[Object], Callable[[Report, Any], None]]] = {
    Namespace: _nothing_more,
    ServiceAccount: _nothing_more,
    VirtualService: check_virtual_service,
    DestinationRule: check_destination_rule,
    Gateway: check_gateway,
    ServiceEntry: check_service_entry,
    WorkloadEntry: check_workload_entry,
    WorkloadGroup: check_workload_group,
    PeerAuthentication: check_peer_authentication,
    AuthorizationPolicy: check_authorization_policy,
    RequestAuthentication: check_request_authentication,
    Service: check_service,
    Secret: check_secret,
    Pod: check_pod,
    Deployment: check_deployment,
    StatefulSet: check_stateful_set,
    DaemonSet: check_daemon_set,
    ConfigMap: _nothing_more,
}
"""The check of each kind."""


def check_fields(reads: Iterable[Read]) -> tuple[Finding, ...]:
    """Return the findings about each object by itself."""
    findings: list[Finding] = []
    for read in reads:
        report = Report(read)
        if check_counts(report, read.object):
            _check(report, read.object)
            check_texts(report, read.object)
        findings += report.findings
    return tuple(findings)


def check_accepted(read: Read) -> tuple[Finding, ...]:
    """Return the findings about an object that is in force already, whatever it counts and
    whichever characters are in its texts.

    Former versions, and servers of other versions, take more than this one does.
    """
    report = Report(read)
    _check(report, read.object)
    return tuple(report.findings)


def refused_by_proxies(found: Object) -> Iterator[tuple[str, str]]:
    """Yield the fields for which proxies would refuse also what is beside the object, and why.

    These are errors of its checks, which keep new objects from having them.
    """
    report = Report(Read(found, Document("", 0, None, {})))
    _check(report, found)
    for finding in report.refused_by_proxies:
        yield finding.field, finding.message
    for path, message in sent(found):
        yield show_path(path), message


def _check(report: Report, found: Object) -> None:
    check_metadata(report, found.metadata)
    if check := CHECKS.get(type(found)):  # not of replacements, which are kinds of meshd's own
        check(report, found)


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
